"""EfficientNet-Lite0 with its classifier of 1,000 classes, from the folder that pretrained.py writes.

The labels of photographs that no person described. Needs PyTorch, safetensors and Pillow.
"""
import csv
import os

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

NAMES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "imagenet_names.tsv")
SIDE, MEAN, STD, EPSILON = 224, 127 / 255, 128 / 255, 1e-3
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the 16 blocks


def names_read(path=NAMES):
    """The classes in the classifier's order: dicts of name, simple, category, german."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def convolved(x, weight, norm, stride=1):
    """TensorFlow's "same" padding: one pixel less before than after where it is odd."""
    size, kernel = x.shape[-1], weight.shape[-1]
    padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    first, last = padding // 2, padding - padding // 2
    x = torch.nn.functional.pad(x, (first, last, first, last))
    groups = x.shape[1] if weight.shape[1] == 1 else 1
    x = torch.nn.functional.conv2d(x, weight, stride=stride, groups=groups)
    gain, bias, mean, variance = norm
    return torch.nn.functional.batch_norm(x, mean, variance, gain, bias, eps=EPSILON)


class Classifier:
    def __init__(self, folder):
        torch.set_num_threads(1)  # the layers are small: on a busy machine, threads wait for each other
        self.tensors = load_file(os.path.join(folder, "model.safetensors"))
        self.weight, self.bias = self.tensors["_fc.weight"], self.tensors["_fc.bias"]

    def layer(self, x, prefix, conv, norm, stride=1):
        parts = [self.tensors[f"{prefix}{norm}.{part}"]
                 for part in ("weight", "bias", "running_mean", "running_var")]
        return convolved(x, self.tensors[f"{prefix}{conv}.weight"], parts, stride)

    @torch.inference_mode()
    def features(self, pixels):
        """[B, 3, 224, 224] to [B, 49, 1280], values from 0 to 6."""
        x = self.layer(pixels, "", "_conv_stem", "_bn0", 2).clamp(0, 6)
        for number, stride in enumerate(STRIDES):
            prefix, before = f"_blocks.{number}.", x
            if prefix + "_expand_conv.weight" in self.tensors:
                x = self.layer(x, prefix, "_expand_conv", "_bn0").clamp(0, 6)
            x = self.layer(x, prefix, "_depthwise_conv", "_bn1", stride).clamp(0, 6)
            x = self.layer(x, prefix, "_project_conv", "_bn2")
            if x.shape == before.shape:
                x = x + before
        return self.layer(x, "", "_conv_head", "_bn1").clamp(0, 6).flatten(2).transpose(1, 2)

    @torch.inference_mode()
    def probabilities(self, features):
        """[B, 49, 1280] to [B, 1000]."""
        return torch.softmax(features.mean(1) @ self.weight.T + self.bias, dim=1)


def pixels_of(image):
    """[3, 224, 224] of a Pillow image: its middle, as preprocessor_config.json says."""
    width, height = image.size
    scale = SIDE / min(width, height)
    image = image.convert("RGB").resize((max(SIDE, round(width * scale)),
                                         max(SIDE, round(height * scale))), Image.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    values = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return torch.from_numpy((values - MEAN) / STD).permute(2, 0, 1)
