#!/usr/bin/env python3
"""Photographs from packages for training, with questions that a classifier answers.

usage: data/prep/photos.py OUT --model FOLDER [--packages FOLDER] [--crops N] [--seed N]
  OUT       gets images/*.jpg (400 pixels at most) and photos.json, LLaVA's conversations
  FOLDER    efficientnet-lite0/ as pretrained.py makes it
  --packages  where the .deb files and wheels of photos.tsv lie or are downloaded to (OUT/packages);
            nothing is installed
  --crops   random parts of each photograph besides the whole (4)

photos.tsv beside this lists the photographs: package, path (for Qt's resource files FILE.rcc:PATH) and,
where the package's own file name or a look says it, what is shown. They were chosen by eye from contact
sheets; none is from a package that photos_eval.py reserves, and any that looks like one of its photographs is
refused. Needs PyTorch, safetensors, Pillow, apt and dpkg-deb. Photographs keep their packages' licences.
"""
import argparse
import collections
import csv
import io
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import torch
from PIL import Image

import photos_eval
from classifier import Classifier, names_read, pixels_of
from photo_questions import Questions, conversation

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "photos.tsv")
SIDE, NEAR = 400, 40  # pixels; differing bits of 256 at most of photographs that are the same


def rcc_members(data):
    """(path, bytes) of the files in one of Qt's binary resource files."""
    version, tree, values, names = struct.unpack(">4I", data[4:20])
    if data[:4] != b"qres" or version not in (1, 2, 3):
        raise ValueError("not a Qt resource file of version 1 to 3")
    size = 14 if version == 1 else 22
    waiting = [(0, "")]
    while waiting:
        number, path = waiting.pop()
        at = tree + number * size
        name, flags = struct.unpack(">IH", data[at:at + 6])
        if number:
            length, = struct.unpack(">H", data[names + name:names + name + 2])
            path += "/" + data[names + name + 6:names + name + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack(">II", data[at + 6:at + 14])
            waiting += [(child, path) for child in range(first, first + count)]
            continue
        offset, = struct.unpack(">I", data[at + 10:at + 14])
        length, = struct.unpack(">I", data[values + offset:values + offset + 4])
        content = data[values + offset + 4:values + offset + 4 + length]
        yield path, zlib.decompress(content[4:]) if flags & 1 else content


def package_read(path, wanted):
    """{path: bytes} of the wanted files of a wheel or .deb."""
    outer = collections.defaultdict(set)
    for name in wanted:
        file, colon, inner = name.partition(".rcc:")
        outer[file + ".rcc" if colon else name].add(inner)
    found = {}

    def take(name, data):
        for inner in outer[name]:
            if not inner:
                found[name] = data
        if name.endswith(".rcc"):
            for inner, content in rcc_members(data):
                for end in outer[name]:
                    if inner.endswith("/" + end):
                        found[f"{name}:{end}"] = content

    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            for name in set(wheel.namelist()) & set(outer):
                take(name, wheel.read(name))
        return found
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE) as unpack, \
            tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isfile() and name in outer:
                take(name, tar.extractfile(member).read())
    return found


def opened(data):
    """On white, at most SIDE pixels."""
    image = Image.open(io.BytesIO(data))
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.LANCZOS)
    return image


def fingerprint(image):
    """256 bits: whether brightness rises from left to right."""
    values = np.asarray(image.convert("L").resize((17, 16), Image.BILINEAR), np.int16)
    return (values[:, 1:] > values[:, :-1]).reshape(-1)


def photographs_read(packages):
    """[(row, image)]; the reserved packages are refused."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    taken = {row["package"] for row in rows} & photos_eval.packages_reserved()
    if taken:
        sys.exit(f"photos.tsv: {sorted(taken)[0]} is reserved for evaluation")
    wanted = collections.defaultdict(dict)
    for row in rows:
        wanted[row["source"], row["package"], row["version"]][row["path"]] = row
    out, missing = [], 0
    for key, paths in sorted(wanted.items()):
        found = package_read(photos_eval.package_get(packages, *key), paths)
        missing += len(set(paths) - set(found))
        out += [(paths[path], opened(data)) for path, data in sorted(found.items())]
    if missing:
        print(f"{missing} of {len(rows)} photographs are not in these versions of their packages")
    return out


def evaluation_fingerprints(packages, shared):
    rows = photos_eval.table_read()
    prints = []
    for data in photos_eval.photographs_read(rows, packages, shared).values():
        image = opened(data)
        prints += [fingerprint(image), fingerprint(image.transpose(Image.FLIP_LEFT_RIGHT))]
    return np.array(prints)


def crops_of(image, count, rng, known):
    """The whole and random parts, some mirrored; larger ones of what has a name that holds for all."""
    yield image
    for _ in range(count):
        side = rng.uniform(0.7 if known else 0.45, 0.9)
        width, height = round(image.width * side), round(image.height * side)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        part = image.crop((left, top, left + width, top + height))
        yield part.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--model", metavar="FOLDER", required=True)
    parser.add_argument("--packages", metavar="FOLDER")
    parser.add_argument("--shared", metavar="FOLDER", default="../shared")
    parser.add_argument("--crops", metavar="N", type=int, default=4)
    parser.add_argument("--seed", metavar="N", type=int, default=1)
    options = parser.parse_args()
    packages = options.packages or os.path.join(options.out, "packages")
    for folder in (packages, os.path.join(options.out, "images")):
        os.makedirs(folder, exist_ok=True)
    kept_apart = evaluation_fingerprints(packages, options.shared)
    classifier, questions = Classifier(options.model), Questions(names_read(), options.seed)
    rng, talks, counts = random.Random(options.seed), [], collections.Counter()
    for number, (row, whole) in enumerate(photographs_read(packages)):
        if (kept_apart != fingerprint(whole)).sum(1).min() <= NEAR:
            print(f"refused, as it is like a photograph for evaluation: {row['package']} {row['path']}")
            continue
        parts = list(crops_of(whole, options.crops, rng, bool(row["name"])))
        pixels = torch.stack([pixels_of(image) for image in parts])
        every = classifier.probabilities(classifier.features(pixels))
        for part, (image, values) in enumerate(zip(parts, every, strict=True)):
            turns = questions.talk(values, row["name"])
            counts["no question" if not turns else "unsure" if any(
                "not know" in answer or "weiß" in answer for _, answer in turns) else
                "named" if len(turns) > 3 else "only denials"] += 1
            if turns:
                name = f"{number:04}-{part}"
                image.save(os.path.join(options.out, "images", f"{name}.jpg"), quality=90)
                talks.append(conversation(f"photo-{name}", f"{name}.jpg", turns))
    with open(os.path.join(options.out, "photos.json"), "w", encoding="utf-8") as file:
        json.dump(talks, file, ensure_ascii=False, indent=0)
    print(f"{len(talks)} images, {sum(len(t['conversations']) // 2 for t in talks)} questions; "
          + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
