#!/usr/bin/env python3
"""Features of things without photographs: the classifier's own classes, put into features of scenes.

usage: data/prep/class_features.py OUT --model FOLDER --images FOLDER [--number N] [--seed N] [--probe EVAL]
  OUT       gets features.safetensors ("features", [N * 1000, 49, 1280], half precision), features.json
            (LLaVA's conversations; "image" is the row's number) and classes.json (class, probability)
  --model   efficientnet-lite0/ as pretrained.py makes it
  --images  folder of images whose features are the backgrounds
  --number  N feature maps for each class (8)
  --probe   folder of photos_eval.py: measures what the maps teach, by a linear classifier

A feature map is 7x7 positions of 1,280 values from 0 to 6; the classifier takes their mean. A map of a
class starts as that of a real image. A blob of positions is moved along the class's row of weights, less
the mean of the rows, times how much each channel varies in the backgrounds, by the least multiple for
which the classifier gives the class the probability wanted (0.4 to 0.95, drawn); values are clipped to 0
and 6. Only some of the channels that speak for the class grow, so that maps are as sparse as real ones.
"""
import argparse
import json
import os
import random
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from classifier import Classifier, names_read, pixels_of
from photo_questions import Questions, conversation

GRID, CHANNELS = 7, 1280
LOWEST, HIGHEST = 0.4, 0.95  # probabilities of the classes
GROWING = 40, 160  # channels
BACKGROUNDS = 600  # images at most


def files_below(folder):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names
                  if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def features_read(classifier, paths):
    maps = []
    for start in range(0, len(paths), 16):
        images = [pixels_of(Image.open(path)) for path in paths[start:start + 16]]
        maps.append(classifier.features(torch.stack(images)).half())
    return torch.cat(maps)


def blob(rng):
    """[49] weights from 0 to 1: an ellipse with a soft edge, of a fifth of the image to nearly all."""
    width, height = rng.uniform(1.2, 4.5), rng.uniform(1.2, 4.5)
    x, y = rng.uniform(1.5, GRID - 2.5), rng.uniform(1.5, GRID - 2.5)
    at = torch.arange(GRID, dtype=torch.float32)
    distance = ((at[None, :] - x) / width) ** 2 + ((at[:, None] - y) / height) ** 2
    return torch.exp(-distance ** 1.5).reshape(-1)


class Maker:
    def __init__(self, classifier, backgrounds, rng):
        self.classifier, self.backgrounds, self.rng = classifier, backgrounds, rng
        self.direction = classifier.weight - classifier.weight.mean(0)
        # Channels that real maps use little grow little.
        self.spread = backgrounds.float().reshape(-1, CHANNELS).std(0)

    def push(self, classes):
        """[B, 1280]: the classes' directions. Nine values in ten of real maps are 0, so that only some
        channels grow, drawn from the best; all others that speak against the class may sink."""
        whole = self.direction[classes] * self.spread
        score = whole * torch.rand(whole.shape)
        out = whole.clamp(max=0)
        for row, values in enumerate(score):
            best = values.topk(self.rng.randint(*GROWING)).indices
            out[row, best] = whole[row, best]
        return out

    def make(self, classes, tries=4):
        """Maps of the classes, one each, and the probabilities reached. Where the drawn channels do not
        suffice, others are drawn."""
        rng, count = self.rng, len(classes)
        start = torch.stack([self.backgrounds[rng.randrange(len(self.backgrounds))].float()
                             for _ in range(count)])
        masks = torch.stack([blob(rng) for _ in range(count)])[:, :, None]
        wanted = torch.tensor([rng.uniform(LOWEST, HIGHEST) for _ in range(count)])
        push = self.push(classes)[:, None, :] * masks
        push = push * 2 * torch.rand(count, GRID * GRID, CHANNELS)
        index = torch.tensor(classes)
        # Where the thing is, the background fades.
        base = start * (1 - masks * torch.tensor(
            [rng.uniform(0.3, 0.9) for _ in range(count)])[:, None, None])
        low, high = torch.zeros(count), torch.full((count,), 400.0)
        for _ in range(14):  # the least multiple that reaches the probability, by halving
            middle = (low + high) / 2
            maps = (base + push * middle[:, None, None]).clamp(0, 6)
            reached = self.classifier.probabilities(maps)[torch.arange(count), index]
            enough = reached >= wanted
            high, low = torch.where(enough, middle, high), torch.where(enough, low, middle)
        maps = (base + push * high[:, None, None]).clamp(0, 6)
        probabilities = self.classifier.probabilities(maps)
        missed = torch.nonzero(probabilities[torch.arange(count), index] < LOWEST).flatten()
        if len(missed) and tries:
            again = self.make([classes[row] for row in missed], tries - 1)
            maps, probabilities = maps.clone(), probabilities.clone()
            maps[missed], probabilities[missed] = again
        return maps, probabilities


def statistics(title, maps):
    maps = maps.float()
    norms = maps.norm(dim=2)
    print(f"{title}: mean {maps.mean():.3f}, zero {(maps == 0).float().mean():.3f}, "
          f"at 6 {(maps == 6).float().mean():.5f}, norm of a position {norms.mean():.1f} "
          f"(least {norms.min():.1f}, largest {norms.max():.1f}), "
          f"norm of the mean {maps.mean(1).norm(dim=1).mean():.2f}")


def linear_fit(x, y, classes, steps=400):
    """Logistic regression on standardized inputs."""
    mean, std = x.mean(0), x.std(0) + 1e-3
    layer = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(steps):
        rows = torch.randint(len(x), (256,))
        loss = torch.nn.functional.cross_entropy(layer((x[rows] - mean) / std), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda values: layer((values - mean) / std).argmax(1)


def probe(classifier, folder, names, maps, classes):
    """How often linear classifiers that learned from the made maps alone name real photographs."""
    with open(os.path.join(folder, "gqa", "photos_questions.json"), encoding="utf-8") as file:
        records = [r for r in json.load(file).values() if r["types"]["detailed"] == "photoSubject"]
    simples = sorted({row["simple"] for row in names})
    number = {simple: at for at, simple in enumerate(simples)}
    label = torch.tensor([number[row["simple"]] for row in names])
    known = [r for r in records if {number.get(x) for x in r["answers"]} - {None}
             or any(row["name"] in r["answers"] for row in names)]
    paths = [os.path.join(folder, "images", r["imageId"] + ".jpg") for r in known]
    real = features_read(classifier, paths).float()
    statistics("photographs for evaluation", real)
    right = [{number[x] for x in r["answers"] if x in number} |
             {number[row["simple"]] for row in names if row["name"] in r["answers"]} for r in known]

    def score(title, predicted):
        hits = [int(p) in fit for p, fit in zip(predicted, right, strict=True)]
        print(f"{title}: {sum(hits)} of {len(hits)} subjects, {100 * np.mean(hits):.1f} %")

    score("the classifier itself", label[classifier.probabilities(real).argmax(1)])
    target = label[torch.tensor(classes)]
    mean = maps.float().mean(1)
    score("probe on means of made maps", linear_fit(mean, target, len(simples))(real.mean(1)))
    # As the projector sees them: one layer for each position, named by the largest of the positions.
    strongest = maps.float().amax(1)
    score("probe on maxima over positions", linear_fit(strongest, target, len(simples))(real.amax(1)))
    both = torch.cat([mean, strongest], 1)
    score("probe on both", linear_fit(both, target, len(simples))(
        torch.cat([real.mean(1), real.amax(1)], 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--model", metavar="FOLDER", required=True)
    parser.add_argument("--images", metavar="FOLDER", required=True)
    parser.add_argument("--number", metavar="N", type=int, default=8)
    parser.add_argument("--seed", metavar="N", type=int, default=1)
    parser.add_argument("--probe", metavar="EVAL")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    rng, names = random.Random(options.seed), names_read()
    classifier = Classifier(options.model)
    paths = files_below(options.images)
    rng.shuffle(paths)
    if not paths:
        sys.exit(f"class_features.py: {options.images}: no images")
    backgrounds = features_read(classifier, paths[:BACKGROUNDS])
    statistics("backgrounds", backgrounds)
    maker, questions = Maker(classifier, backgrounds, rng), Questions(names, options.seed)
    order = [number for number in range(len(names)) for _ in range(options.number)]
    rng.shuffle(order)
    maps, talks, reached = [], [], []
    for start in range(0, len(order), 50):
        some = order[start:start + 50]
        made, probabilities = maker.make(some)
        maps.append(made.half())
        for at, (number, values) in enumerate(zip(some, probabilities, strict=True)):
            reached.append(float(values[number]))
            # What was put in is known, whatever its share.
            turns = questions.talk(values, names[number]["simple"])
            talks.append(conversation(f"class-{start + at}", str(start + at), turns))
    maps = torch.cat(maps)
    statistics("made maps", maps)
    print(f"{len(maps)} maps, probability of the class {min(reached):.2f} to {max(reached):.2f}, "
          f"{sum(p < LOWEST for p in reached)} below {LOWEST}")
    os.makedirs(options.out, exist_ok=True)
    save_file({"features": maps}, os.path.join(options.out, "features.safetensors"))
    for name, value in (("features", talks), ("classes", [
            {"class": number, "probability": round(p, 4)} for number, p in
            zip(order, reached, strict=True)])):
        with open(os.path.join(options.out, f"{name}.json"), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=0)
    if options.probe:
        probe(classifier, options.probe, names, maps, order)


if __name__ == "__main__":
    main()
