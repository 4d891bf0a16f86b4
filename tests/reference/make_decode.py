"""Writes tests/golden/decode/*.bin, one file for each strategy, from decode_reference.py.

usage: python3 tests/reference/make_decode.py [FOLDER [COUNT]]     (needs numpy and torch)

A file is cases end to end, little-endian: a header (HEADER below), then [steps, N] cells of
{int32 token, float32 score, int32 proposed token, float32 proposed score}. Seeds are searched: a
case in which another program's rounding could change a ranking is not written.

approximate.bin has the same of the approximate strategies, models.bin of LLaDA's and Dream's, with
longer answers.

templates.bin has cases with fixed tokens, of all strategies: after the header the [N] int32 tokens
of the template, the mask where it is open. With a COUNT only that file is written, with so many
random cases; test_decode_fixed compares the file that EASYFIRST_TEMPLATES names.
"""

import random
import sys
from collections import Counter
from itertools import count, product
from pathlib import Path

import numpy as np

from decode_reference import Case, NearTie, decode, philox

KINDS = ["random", "coarse", "peaked", "weights"]
SHAPE_FIELDS = ["vocabulary", "mask", "length", "iterations", "request", "sample"]
HEADER = np.dtype(
    [("strategy", "S64"), ("kind", "<i4")]
    + [(name, "<i4") for name in SHAPE_FIELDS]
    + [("steps", "<i4"), ("evaluations", "<i4")]
    + [("seed", "<u4"), ("temperature", "<f4"), ("score", "<f4")]
)
CELL = np.dtype(
    [("token", "<i4"), ("score", "<f4"), ("proposal", "<i4"), ("proposal_score", "<f4")]
)

STRATEGIES = [
    f"reparam-{condition}-{ranking}-{schedule}"
    for condition, ranking, schedule in product(
        ["uncond", "cond"], ["deterministic", "stochastic0.5", "stochastic2"], ["cosine", "linear"]
    )
] + ["cmlm", "ar"]

APPROXIMATE = ["confidence0.9", "confidence0.3", "entropy0.5", "entropy3"]

LLADA = [
    "llada-lowconf",
    "llada-random",
    "llada-block1-lowconf",
    "llada-block4-lowconf",
    "llada-block4-random",
    "llada-block7-lowconf-noend",
    "llada-block5-lowconf-endlast",
    "llada-lowconf-noend-endlast",
]
DREAM = [
    "dream-origin",
    "dream-maskgit_plus",
    "dream-topk_margin",
    "dream-entropy",
    "dream-maskgit_plus-stochastic0.1",
    "dream-topk_margin-stochastic0.5",
    "dream-entropy-stochastic0.25",
    "dream-entropy",
]
MODEL_CASES = 200  # of each of the two

# (N, T, temperature, kind, vocabulary); the kinds turn from one strategy to the next.
SHAPES = [
    (1, 1, 0, 0, 40),
    (1, 10, 0, 1, 50),
    (1, 7, 1, 2, 300),
    (2, 1, 0.7, 1, 40),
    (2, 7, 0, 2, 61),
    (2, 10, 0, 0, 40),
    (3, 50, 0, 1, 97),
    (3, 10, 1.3, 0, 300),
    (5, 7, 0, 0, 300),
    (5, 50, 0, 2, 40),
    (8, 7, 0.5, 2, 120),
    (8, 50, 0, 0, 53),
    (13, 1, 0, 2, 211),
    (13, 7, 0.7, 0, 40),
    (13, 50, 0, 2, 40),
]


def make_case(strategy, turn, number):
    n, t, temperature, kind, vocabulary = SHAPES[number]
    kind = KINDS[(kind + turn) % len(KINDS)]
    for seed in count(1000 * turn + 10 * number):
        case = Case(
            strategy=strategy,
            kind=kind,
            vocabulary=vocabulary,
            mask=(vocabulary - 1, 3, vocabulary // 2)[number % 3],
            length=n,
            iterations=t,
            request=number % 4,
            sample=(number * 5) % 3,
            seed=seed,
            temperature=temperature,
        )
        try:
            return case, decode(case)
        except NearTie:
            continue


def case_bytes(case, table, evaluations):
    tokens, scores, proposals, proposal_scores = table
    header = np.zeros((), HEADER)
    for field in ["strategy", *SHAPE_FIELDS, "seed", "temperature"]:
        header[field] = getattr(case, field)
    header["kind"] = KINDS.index(case.kind)
    header["steps"], header["evaluations"] = len(tokens), evaluations
    open_ = [i for i in range(case.length) if not case.fixed or case.fixed[i] == case.mask]
    header["score"] = scores[-1][open_].astype(np.float64).mean()
    cells = np.zeros(tokens.shape, CELL)
    cells["token"], cells["score"] = tokens, scores
    cells["proposal"], cells["proposal_score"] = proposals, proposal_scores
    return header.tobytes() + np.array(case.fixed, "<i4").tobytes() + cells.tobytes()


def make_template(strategy, draw, most=12):
    """A random case whose positions are partly fixed."""
    while True:
        length, vocabulary = draw.randint(1, most), draw.randint(5, 60)
        mask = draw.randrange(vocabulary)
        fixed = [draw.randrange(vocabulary) if draw.random() < 0.5 else mask for _ in range(length)]
        fixed[draw.randrange(length)] = mask
        case = Case(
            strategy=strategy,
            kind=draw.choice(KINDS),
            vocabulary=vocabulary,
            mask=mask,
            length=length,
            iterations=draw.randint(1, most),
            request=draw.randrange(4),
            sample=draw.randrange(3),
            seed=draw.randrange(2**31),
            temperature=draw.choice([0, 0, 0, 0.5, 1.25]),
            fixed=tuple(fixed),
        )
        try:
            return case, decode(case)
        except NearTie:
            continue


def write_templates(folder, count, name="templates.bin", strategies=STRATEGIES, most=12):
    draw, parts = random.Random(20), []
    for number in range(count):
        strategy = strategies[number % len(strategies)]
        case, (table, evaluations, _) = make_template(strategy, draw, most)
        parts.append(case_bytes(case, table, evaluations))
    (folder / name).write_bytes(b"".join(parts))
    return sum(map(len, parts))


def check_philox():
    """The vectors published with the generator."""
    f = 0xFFFFFFFF
    for counter, key, expected in [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([f] * 4, [f] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]:
        assert " ".join(f"{word:08x}" for word in philox([counter], key)[0].tolist()) == expected


def main():
    check_philox()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/decode")
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        print(f"{sys.argv[2]} templates, {write_templates(folder, int(sys.argv[2]))} bytes")
        return
    happened, size = Counter(), write_templates(folder, 10 * len(STRATEGIES))
    size += write_templates(folder, 10 * len(APPROXIMATE), "approximate.bin", APPROXIMATE)
    size += write_templates(folder, 2 * MODEL_CASES, "models.bin", LLADA + DREAM, 16)
    for turn, strategy in enumerate(STRATEGIES):
        parts = []
        for number in range(len(SHAPES)):
            case, (table, evaluations, events) = make_case(strategy, turn, number)
            happened.update(events)
            parts.append(case_bytes(case, table, evaluations))
        (folder / f"{strategy}.bin").write_bytes(b"".join(parts))
        size += sum(map(len, parts))
    for event in ("erasure", "tie", "kept", "settled"):
        assert happened[event] > 0, f"no case with {event}"
    print(f"{len(STRATEGIES)} files, {size} bytes, cases with: {dict(happened)}")


if __name__ == "__main__":
    main()
