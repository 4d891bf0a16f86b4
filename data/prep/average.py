#!/usr/bin/env python3
"""A model whose weights are the average of two of the same shape, one trained on from the other.

usage: data/prep/average.py FIRST SECOND OUT [--share S]
  FIRST, SECOND  model folders with weights in floating point (`easyfirst quantize --dequantize`)
  OUT            is made: SECOND's files, with averaged weights in f32
  --share        SECOND's part of the average, 0 to 1 (0.5)

Weights of two points of one run lie in the same valley of the loss, and between them it is lower (Izmailov et al.,
arXiv 1803.05407; Wortsman et al., arXiv 2109.01903). The vision tower, which is frozen, and what is no weight are
SECOND's. Needs torch and safetensors.
"""
import argparse
import os
import shutil
import sys

AVERAGED = "language/model.safetensors", "projector.safetensors", "length.safetensors"


def give_up(message):
    sys.exit(f"average.py: {message}")


def averaged(first, second, share, path):
    """The average of two files' tensors."""
    if first.keys() != second.keys():
        give_up(f"{path}: the two models have other tensors: {', '.join(sorted(first.keys() ^ second.keys())[:3])}")
    out = {}
    for name, values in second.items():
        if values.shape != first[name].shape:
            give_up(f"{path}: {name} is {list(first[name].shape)} in one model, {list(values.shape)} in the other")
        if not values.is_floating_point():
            give_up(f"{path}: {name} is no floating-point tensor; `easyfirst quantize --dequantize` makes it one")
        out[name] = ((1 - share) * first[name].double() + share * values.double()).float().contiguous()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("first", "second", "out"):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument("--share", type=float, default=0.5, metavar="S")
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error("--share is from 0 to 1")
    if os.path.exists(options.out):
        give_up(f"{options.out}: exists already; name another folder, or remove it")
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    part = options.out + ".part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(options.second, part)
    for path in AVERAGED:
        files = [os.path.join(folder, path) for folder in (options.first, options.second)]
        if not all(map(os.path.exists, files)):
            continue
        with safe_open(files[1], "pt") as file:
            about = file.metadata()
        os.remove(os.path.join(part, path))  # it may be a link to the model that it was copied from
        save_file(averaged(*map(load_file, files), options.share, path), os.path.join(part, path), metadata=about)
    os.rename(part, options.out)


if __name__ == "__main__":
    sys.exit(main())
