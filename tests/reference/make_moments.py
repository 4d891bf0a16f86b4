"""Writes tests/golden/optimizer/moments8.safetensors: AdamW with moments in blocks of 8 bits, in numpy.

usage: python3 tests/reference/make_moments.py [--bitsandbytes]    (numpy, safetensors)

The maps are written down from their definition (8-bit Optimizers via Block-wise Quantization, ICLR 2022, and
bitsandbytes' dynamic map); with --bitsandbytes they are compared with those of that package. Four steps on 700
values (three blocks, the last one not full; one with zero gradients), each operation rounded to f32: `p0`, `g`
[4, n]; after each step `p` [4, n], `m`, `v` [4, n] u8 and `m.scale`, `v.scale` [4, 3]; `maps` [2, 256].
"""

import sys

import numpy as np
from safetensors.numpy import save_file

N, STEPS, BLOCK = 700, 4, 256
RATE, BETA1, BETA2, EPS, DECAY, SCALE = 0.01, 0.9, 0.98, 1e-8, 0.1, 0.5
f32 = np.float32


def dynamic_map(signed):
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1)
        centers = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        values += [*centers, *(-centers if signed else [])]
    assert len(values) == 256
    return np.sort(np.array(values)).astype(f32)


def rounded(values, numbers):
    """Codes and scales: the nearest number of each value's share of its block's largest magnitude."""
    codes, scales = np.zeros(N, np.uint8), []
    middles = ((numbers[:-1].astype(np.float64) + numbers[1:]) / 2).astype(f32)
    for at in range(0, N, BLOCK):
        block = values[at : at + BLOCK]
        scale = np.abs(block).max()
        share = block / scale if scale > 0 else np.zeros_like(block)
        codes[at : at + BLOCK] = np.searchsorted(middles, share, side="left")
        scales.append(scale)
    return codes, np.array(scales, f32)


def restored(codes, scales, numbers):
    return numbers[codes] * np.repeat(scales, BLOCK)[:N]


def main():
    maps = [dynamic_map(True), dynamic_map(False)]
    if "--bitsandbytes" in sys.argv:
        from bitsandbytes.functional import create_dynamic_map
        for signed, ours in ((True, maps[0]), (False, maps[1])):
            theirs = create_dynamic_map(signed=signed).numpy()
            assert np.abs(theirs - ours).max() <= 1e-7, "the maps differ"
        print("bitsandbytes has the same maps")
        return
    random = np.random.default_rng(11)
    p = random.standard_normal(N).astype(f32)
    g = (random.standard_normal((STEPS, N)) * 10.0 ** random.uniform(-4, 1, (STEPS, N))).astype(f32)
    g[:, 256:512][:, ::2] = 0
    g[0, 512:] = 0
    tensors = {"p0": p.copy(), "g": g, "maps": np.stack(maps)}
    codes = [np.zeros(N, np.uint8)] * 2
    scales = [np.zeros(3, f32)] * 2
    kept = {name: [] for name in ("p", "m", "v", "m.scale", "v.scale")}
    keep1, keep2 = f32(BETA1), f32(BETA2)
    add1, add2 = f32(1 - float(keep1)), f32(1 - float(keep2))
    for step in range(1, STEPS + 1):
        rate = f32(float(f32(RATE)) / (1 - float(keep1) ** step))
        root = f32(1 / np.sqrt(1 - float(keep2) ** step))
        gradient = g[step - 1] * f32(SCALE)
        m = keep1 * restored(codes[0], scales[0], maps[0]) + add1 * gradient
        v = keep2 * restored(codes[1], scales[1], maps[1]) + add2 * gradient * gradient
        p = p - (rate * m / (np.sqrt(v) * root + f32(EPS)) + f32(float(f32(RATE)) * float(f32(DECAY))) * p)
        for i, values in enumerate((m, v)):
            codes[i], scales[i] = rounded(values, maps[i])
        for name, value in zip(kept, (p, *codes, *scales)):
            kept[name].append(value.copy())
    assert p.dtype == f32
    tensors |= {name: np.stack(values) for name, values in kept.items()}
    save_file(tensors, "tests/golden/optimizer/moments8.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
