#!/usr/bin/env python3
"""Puts made features into the cache of `easyfirst train --feature-cache`, each as an image of its own.

usage: data/prep/feature_cache.py CACHE FEATURES OUT [--path PREFIX]
  CACHE     a cache that `train` made with the same model (a step on one image makes one); records are added
  FEATURES  folder of class_features.py
  OUT       gets images/N.png, which only stand for the features, and features.json, the conversations,
            with "N.png" as their images
  --path    the folder of these images as `train` will be given it (OUT/images): the cache knows an image
            by its path, size and time of change, so that the files must stay as they are

Needs numpy and safetensors. Rows of the cache are 49, or 50 with the mean as the first one.
"""
import argparse
import hashlib
import json
import os
import sys

import numpy as np
from safetensors import safe_open

from evaluate_inputs import gray_write

HEADER, DIGITS = 256, 64


def give_up(message):
    sys.exit(f"feature_cache.py: {message}")


def header_read(path):
    """The type's name, rows and width."""
    with open(path, "rb") as file:
        lines = file.read(HEADER).split(b"\0")[0].decode("ascii", "replace").split("\n")
    if lines[0] != "easyfirst features 1":
        give_up(f"{path}: not a feature cache")
    dtype, rows, width = lines[1].split()
    return dtype.lower(), int(rows), int(width)


def converted(values, dtype):
    """Bytes of float values in the cache's type."""
    values = np.ascontiguousarray(values, np.float32)
    if dtype in ("f32", "fp32", "float32"):
        return values.tobytes()
    if dtype in ("f16", "fp16", "float16"):
        return values.astype(np.float16).tobytes()
    bits = values.view(np.uint32).astype(np.uint64)  # to the nearest, ties to even
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()


def key_of(file, path):
    info = os.stat(file)
    text = f"{info.st_size} {info.st_mtime_ns // 10**9} {info.st_mtime_ns % 10**9} {path}"
    return hashlib.sha256(text.encode()).hexdigest().encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cache", "features", "out"):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument("--path", metavar="PREFIX")
    options = parser.parse_args()
    images = os.path.join(options.out, "images")
    prefix = options.path or images
    os.makedirs(images, exist_ok=True)
    dtype, rows, width = header_read(options.cache)
    record = 2 * DIGITS + rows * width * len(converted(np.zeros(1), dtype))
    if (os.path.getsize(options.cache) - HEADER) % record:
        give_up(f"{options.cache}: its last record is incomplete; `train` repairs it when it opens it")
    with open(os.path.join(options.features, "features.json"), encoding="utf-8") as file:
        talks = json.load(file)
    path = os.path.join(options.features, "features.safetensors")
    with safe_open(path, "np") as tensors, open(options.cache, "ab") as cache:
        features = tensors.get_slice("features")
        count, places, channels = features.get_shape()
        if count < len(talks) or channels != width or rows not in (places, places + 1):
            give_up(f"{path}: {count} maps of {places} x {channels}, expected {rows} x {width}")
        for number, talk in enumerate(talks):
            name = f"{number}.png"
            gray_write(os.path.join(images, name))
            talk["image"] = name
            values = features[number:number + 1][0].astype(np.float32)
            if rows > places:
                values = np.concatenate([values.mean(0, keepdims=True), values])
            data = converted(values, dtype)
            cache.write(key_of(os.path.join(images, name), f"{prefix}/{name}") +
                        hashlib.sha256(data).hexdigest().encode() + data)
    with open(os.path.join(options.out, "features.json"), "w", encoding="utf-8") as file:
        json.dump(talks, file, ensure_ascii=False, indent=0)
    print(f"{len(talks)} feature maps added to {options.cache}")


if __name__ == "__main__":
    main()
