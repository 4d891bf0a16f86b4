#!/usr/bin/env python3
"""A projector whose image tokens begin as the embeddings of words: those for what each patch shows.

usage: data/prep/projector_words.py OUT --cache FILE --images FOLDER --gqa FOLDER --language FOLDER
           [--named FILE ...] [--scenes N] [--steps N] [--seed N]
  OUT         gets projector.safetensors, a projector mlp2x_gelu
  --cache     features of training images, as `easyfirst train --feature-cache` keeps them; images that it
              lacks are left out
  --images    the folder of images as `train` was given it
  --gqa       world.py's folder of scene graphs: 1_, 2_ and many_sceneGraphs.json
  --named     conversations about photographs and classes; what is in them is what "There is ..." says
  --language  an XLM-R's folder, with its sentencepiece.bpe.model
  --scenes    of the scene graphs, drawn (12000)
  --steps     of AdamW, 2,048 patches each (400)

Target of a patch: the embedding of the object's name that covers it, with half that of its color, or those of
"background", of the background's color and of its pattern; of the first row, the whole image's mean: those of
all names. Each cell's position is a vector from "left" to "right" and one from "top" to "bottom", as far as the cell
is from the middle. Embeddings are of a word's pieces, averaged, their mean over the vocabulary taken off. The loss is
the squared distance, and the cross-entropy of the name among all names by cosine.

Needs numpy, torch, safetensors and sentencepiece; THREADS in the environment (2).
"""
import argparse
import json
import os
import re
import sys

import numpy as np
import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from feature_cache import DIGITS, HEADER, header_read, key_of

GRID, SIDE = 7, 224
COVERED, TOUCHED = 0.4, 0.1  # shares of a cell: at or above the first it is the object's, at or below the other of the background
COLOR, NAME_LOSS, SHARPNESS = 0.5, 0.3, 12.0
PLACE = 0.6  # length of a position at the middle of a side, in words' lengths
HIDDEN, BATCH, RATE = 384, 2048, 1e-3
SUBJECT = re.compile(r"(?:There is|It is|This is|I see|shows) (?:an? |the )?([a-z -]+)\.")


def give_up(message):
    sys.exit(f"projector_words.py: {message}")


class Cache:
    def __init__(self, path, images):
        dtype, self.rows, self.width = header_read(path)
        if dtype != "bf16":
            give_up(f"{path}: features are {dtype}, expected bf16 (--feature-dtype)")
        self.images, self.places = images, {}
        self.data = np.memmap(path, np.uint8, "r")
        size = 2 * DIGITS + self.rows * self.width * 2
        for at in range(HEADER, len(self.data) - size + 1, size):
            self.places[self.data[at:at + DIGITS].tobytes()] = at + 2 * DIGITS

    def features(self, image):
        """[rows, width], None for an image without any."""
        path = f"{self.images}/{image}"
        at = self.places.get(key_of(path, path)) if os.path.exists(path) else None
        if at is None:
            return None
        bits = self.data[at:at + self.rows * self.width * 2].view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(self.rows, self.width)


class Words:
    def __init__(self, folder):
        self.pieces = sentencepiece.SentencePieceProcessor(os.path.join(folder, "sentencepiece.bpe.model"))
        with safe_open(os.path.join(folder, "model.safetensors"), "pt") as tensors:
            self.table = tensors.get_tensor("roberta.embeddings.word_embeddings.weight").float()
        self.mean, self.known = self.table[4:-1].mean(0), {}
        self.rms = float(self.table[4:-1].square().mean().sqrt())

    def __call__(self, word):
        if word not in self.known:
            ids = [i + 1 for i in self.pieces.encode(word)]  # XLM-R's ids are one above the pieces'
            self.known[word] = (self.table[ids] - self.mean).mean(0)
        return self.known[word]


def covered(box, row, column):
    x, y, w, h = (v * GRID / SIDE for v in box)
    across = min(x + w, column + 1) - max(x, column)
    down = min(y + h, row + 1) - max(y, row)
    return max(0, across) * max(0, down)


def scene_rows(scene):
    """(names, further words) of the whole and of each cell; None for a cell that is in between."""
    things = [((o["x"], o["y"], o["w"], o["h"]), o["name"], o["attributes"][:1])
              for o in scene["objects"].values()]
    ground = [word for word in (scene["background"]["colour"], scene["background"]["pattern"]) if word]
    rows = [([name for _, name, _ in things], [])]
    for row in range(GRID):
        for column in range(GRID):
            share, best = max(((covered(t[0], row, column), i) for i, t in enumerate(things)),
                              default=(0, 0))
            if share >= COVERED:
                rows.append(([things[best][1]], things[best][2]))
            else:
                rows.append((["background"], ground) if share <= TOUCHED else None)
    return rows


def items_read(options, rows, random):
    """(image, rows) of scenes, photographs and classes."""
    items = []
    for part in ("1", "2", "many"):
        with open(os.path.join(options.gqa, part + "_sceneGraphs.json"), encoding="utf-8") as file:
            items += [(name + ".jpg", scene_rows(scene)) for name, scene in json.load(file).items()]
    items = [items[i] for i in random.permutation(len(items))[:options.scenes]]
    for path in options.named:
        with open(path, encoding="utf-8") as file:
            for talk in json.load(file):
                found = SUBJECT.search(" ".join(t["value"] for t in talk["conversations"][1::2]))
                if found:
                    items.append((talk["image"], [([found.group(1)], [])] + [None] * (rows - 1)))
    return items


class Patches:
    """Features, targets, the name's index (-1 for several), and whether it is of the whole image."""

    def __init__(self, items, cache, words, random):
        features, targets, names, wholes, self.images = [], [], [], [], 0
        self.names = sorted({name for _, rows in items for row in rows if row for name in row[0]})
        index = {name: i for i, name in enumerate(self.names)}
        for image, rows in items:
            values = cache.features(image)
            if values is None:
                continue
            self.images += 1
            ground = [i for i, row in enumerate(rows) if row and row[0] == ["background"]]
            things = [i for i, row in enumerate(rows) if row and row[0] and row[0] != ["background"]]
            random.shuffle(ground)
            for i in things + ground[:max(2, len(things) // 3)]:
                of_row, further = rows[i]
                target = sum(words(name) for name in of_row) / len(of_row)**0.5
                targets.append(target + COLOR * sum(words(word) for word in further))
                features.append(values[i].astype(np.float16))
                names.append(index[of_row[0]] if len(of_row) == 1 else -1)
                wholes.append(i == 0)
        if not features:
            give_up("no image has features in the cache")
        self.features, self.targets = torch.from_numpy(np.stack(features)), torch.stack(targets)
        self.index, self.whole = torch.tensor(names), torch.tensor(wholes)
        self.thing = (self.index >= 0) & (self.index != index.get("background", -2))
        self.held = len(features) // 20  # the first ones, of other images than the rest


def projector_new(patches, words):
    """Fresh weights, scaled so that the output has the words' mean and, about, their size."""
    wide, narrow = patches.features.shape[1], patches.targets.shape[1]
    net = torch.nn.Sequential(torch.nn.Linear(wide, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, narrow))
    with torch.no_grad():
        rms = patches.features[patches.held:patches.held + 4096].float().square().mean().sqrt()
        net[0].weight.normal_(0, 1 / (rms * wide**0.5))
        net[0].bias.zero_()
        net[2].weight.normal_(0, words.rms / HIDDEN**0.5)
        net[2].bias.copy_(words.mean)
    return net


def learn(net, patches, words, steps):
    names = F.normalize(torch.stack([words(name) for name in patches.names]))
    size = patches.targets.square().sum(1).mean()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(steps + 1):
        if step % 100 == 0 or step == steps:
            report(step, net, patches, words, names)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / (steps + 1))
        take = torch.randint(patches.held, len(patches.features), (BATCH,))
        output = net(patches.features[take].float()) - words.mean
        one = patches.index[take] >= 0
        loss = (output - patches.targets[take]).square().sum(1).mean() / size + NAME_LOSS * F.cross_entropy(
            SHARPNESS * F.normalize(output[one]) @ names.T, patches.index[take][one])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def positions(words, rows):
    """[rows, D]: what is added to each row of an image."""
    across, down = (F.normalize(words(b) - words(a), dim=0) for a, b in (("left", "right"), ("top", "bottom")))
    length, middle = PLACE * words.rms * len(across)**0.5, (GRID - 1) / 2
    table = torch.zeros(rows, len(across))
    for cell in range(GRID * GRID):
        row, column = divmod(cell, GRID)
        table[cell + rows - GRID * GRID] = length * (
            (column / middle - 1) * across + (row / middle - 1) * down)
    return table


def report(step, net, patches, words, names):
    with torch.no_grad():
        held = slice(0, patches.held)
        output = net(patches.features[held].float())
        right = (F.normalize(output - words.mean) @ names.T).argmax(1) == patches.index[held]
        thing, whole = patches.thing[held], patches.whole[held]
        print(f"step {step}: held-out patches of objects {right[thing & ~whole].float().mean():.1%} right, "
              f"means {right[thing & whole].float().mean():.1%}, "
              f"root mean square {output.square().mean().sqrt():.3f} (words {words.rms:.3f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    for name in ("cache", "images", "gqa", "language"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--named", action="append", default=[], metavar="FILE")
    for name, number in (("scenes", 12000), ("steps", 400), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=number, metavar="N")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    random = np.random.default_rng(options.seed)
    cache, words = Cache(options.cache, options.images), Words(options.language)
    patches = Patches(items_read(options, cache.rows, random), cache, words, random)
    print(f"{len(patches.features)} patches of {patches.images} images, {len(patches.names)} names")
    net = projector_new(patches, words)
    learn(net, patches, words, options.steps)
    os.makedirs(options.out, exist_ok=True)
    tensors = {f"model.mm_projector.{name}": value.detach().contiguous()
               for name, value in net.state_dict().items()}
    tensors["model.mm_projector.position_embedding.weight"] = positions(words, cache.rows)
    save_file(tensors, os.path.join(options.out, "projector.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
