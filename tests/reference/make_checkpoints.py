"""Makes tests/golden/checkpoint: small checkpoints as PyTorch and safetensors themselves write them.

Needs torch 2.1 or later (for the float8 types) and safetensors; run from the repository's root:
    python3 tests/reference/make_checkpoints.py
The files of the format before PyTorch 1.6 alone, with any torch:
    python3 tests/reference/make_checkpoints.py legacy

Every tensor's values are value(i) = (i - 3) / 2 for i = 0, 1, 2, ... in the order of its own shape
(exact in all the float types); integers are i - 3, booleans i % 2. The test computes the same.
"""

import json
import os
import sys
import zipfile
from collections import OrderedDict

import torch

FOLDER = "tests/golden/checkpoint"


def ramp(*shape, dtype=torch.float32):
    count = 1
    for n in shape:
        count *= n
    i = torch.arange(count)
    if dtype == torch.bool:
        return (i % 2).to(dtype).reshape(shape)
    if dtype.is_floating_point:
        return ((i - 3) / 2).to(dtype).reshape(shape)
    if dtype in (torch.uint8, getattr(torch, "uint16", None)):
        return i.to(dtype).reshape(shape)
    return (i - 3).to(dtype).reshape(shape)


def path(*names):
    joined = os.path.join(FOLDER, *names)
    os.makedirs(os.path.dirname(joined), exist_ok=True)
    return joined


def common_types():
    return {
        "f32": ramp(2, 3),
        "f16": ramp(4, dtype=torch.float16),
        "bf16": ramp(2, 2, dtype=torch.bfloat16),
        "f64": ramp(3, dtype=torch.float64),
        "i64": ramp(1, 5, dtype=torch.int64),
        "i32": ramp(5, dtype=torch.int32),
        "i16": ramp(5, dtype=torch.int16),
        "i8": ramp(5, dtype=torch.int8),
        "u8": ramp(5, dtype=torch.uint8),
        "bool": ramp(3, dtype=torch.bool),
        "scalar": torch.tensor(-1.5),
        "empty": torch.zeros(0, 4),
    }


def all_types():
    others = {"other.f8": ramp(3).to(torch.float8_e4m3fn), "other.u16": ramp(3, dtype=torch.uint16)}
    return {**common_types(), **others}


def views():
    tied = ramp(4, 3)
    return OrderedDict(
        transposed=ramp(3, 4).t().contiguous().t(),  # [3, 4] with strides 1, 3
        permuted=ramp(2, 3, 4).permute(2, 0, 1).contiguous().permute(1, 2, 0),
        every_second=torch.stack([ramp(5), ramp(5)], 1).flatten()[::2],
        expanded=torch.full((1, 1), -1.5).expand(2, 3),
        one=ramp(1, 3).as_strided((1, 3), (77, 1)),
        tied=tied,
        tied_too=tied,
        tied_rows=tied[1:3],
        parameter=torch.nn.Parameter(ramp(2, 2)),
    )


def trainer():
    return {
        "epoch": 3,
        "args": {"lr": 1e-3, "names": ["a", "b"], "betas": (0.9, 0.98), "big": 1 << 70},
        "optimizer": {"state": {0: {"exp_avg": ramp(2)}}},
        "state_dict": OrderedDict(a=ramp(2), b=OrderedDict(c=ramp(3))),
    }


def linear():
    module = torch.nn.Linear(3, 2)
    module.weight.data.copy_(ramp(2, 3))
    module.bias.data.copy_(ramp(2))
    return module.state_dict()


def legacy():
    def save(value, name, **options):
        torch.save(value, path(name), _use_new_zipfile_serialization=False, **options)

    save({"a": ramp(2)}, "legacy.bin")
    save(common_types(), "legacy_types.bin")
    save(common_types(), "legacy_protocol4.bin", pickle_protocol=4)
    save(views(), "legacy_views.bin")
    save(trainer(), "legacy_trainer.pt")
    save(linear(), "legacy_module.bin")


def shard(tensors, count, pattern, index, save):
    names = sorted(tensors)
    weight_map = {}
    for k in range(count):
        name = pattern % (k + 1, count)
        part = {n: tensors[n] for n in names[k::count]}
        weight_map.update({n: name for n in part})
        save(part, name)
    with open(index, "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": weight_map}, f, indent=1)
        f.write("\n")


def main():
    from safetensors.torch import save_file

    save_file(all_types(), path("types.safetensors"), metadata={"format": "pt"})
    torch.save(all_types(), path("types.bin"))
    torch.save(all_types(), path("protocol4.bin"), pickle_protocol=4)
    legacy()
    torch.save(linear(), path("module.bin"))
    torch.save(views(), path("views.bin"))
    torch.save(trainer(), path("trainer.pt"))
    torch.save({"encoder": {"w": ramp(2)}, "list": [ramp(1), ramp(2)], 7: {"w": ramp(3)}},
               path("nested.pt"))

    parts = {"a": ramp(2), "b": ramp(3), "c": ramp(4), "d": ramp(5), "e": ramp(6)}
    shard(parts, 2, "model-%05d-of-%05d.safetensors",
          path("sharded", "model.safetensors.index.json"),
          lambda part, name: save_file(part, path("sharded", name), metadata={"format": "pt"}))
    shard(parts, 3, "pytorch_model-%05d-of-%05d.bin",
          path("sharded_bin", "pytorch_model.bin.index.json"),
          lambda part, name: torch.save(part, path("sharded_bin", name)))

    # A state dict that someone has put through an ordinary zip program.
    with zipfile.ZipFile(path("module.bin")) as stored, \
            zipfile.ZipFile(path("compressed.bin"), "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(zipfile.ZipInfo(entry.filename), stored.read(entry.filename),
                            zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    legacy() if sys.argv[1:] == ["legacy"] else main()
