#!/usr/bin/python3
"""What objects.tsv was checked with: its names next to the packages' own, and contact sheets.

usage: world_check.py names                 names that the packages put otherwise
       world_check.py images SHEET.png      every image with its name, colour, "*" if kept
                                            for held-out scenes, and those without a name
       world_check.py scenes OUT FILE.json SHEET.png [FIRST]
                                            20 scenes of OUT with their questions and answers
       world_check.py answers OUT SET       English answers of scenes-SET.json that differ from
                                            what the boxes of its scene graphs say
"""

import json
import os
import re
import sys
import textwrap
from xml.etree import ElementTree

from PIL import Image, ImageDraw

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from world_images import STAMPS, Images
from world_names import things_read, unknown_read

CLDR = "/usr/share/unicode/cldr/common/annotations"  # package unicode-cldr-core


def emoji_names(language):
    tree = ElementTree.parse(f"{CLDR}/{language}.xml")
    return {note.get("cp").replace("\ufe0f", ""): note.text
            for note in tree.iter("annotation") if note.get("type") == "tts"}


def stamp_names(source):
    """The sentence that names a stamp, in English and German."""
    with open(os.path.join(STAMPS, source + ".txt"), encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    german = [line.partition("=")[2] for line in lines if line.startswith("de.utf8=")]
    return lines[0], german[0] if german else "-"


def names_print():
    english, german = emoji_names("en"), emoji_names("de")
    for thing in things_read():
        for source, _, _ in thing.images:
            if source.startswith("U+"):
                character = chr(int(source.removeprefix("U+"), 16))
                names = english.get(character, "-"), german.get(character, "-")
            else:
                names = stamp_names(source)
            for ours, theirs in zip((thing.name, thing.de), names):
                if ours.lower() not in theirs.lower():
                    print(f"{thing.id}\t{source}\t{ours}\t{theirs}")


def images_draw(path):
    things, unknown = things_read(), unknown_read()
    images = Images(things, unknown)
    cells = [(thing.name, *image) for thing in things for image in thing.images]
    cells += [(source, source, f"unknown {split}", False)
              for split, sources in unknown.items() for source in sources]
    columns, width, height = 20, 96, 112
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), (200, 210, 220))
    draw = ImageDraw.Draw(sheet)
    for number, (name, source, colour, held_out) in enumerate(cells):
        x, y = number % columns * width, number // columns * height
        sprite = images.sprites[source][0].copy()
        sprite.thumbnail((width - 8, 84))
        sheet.paste(sprite, (x + 4, y + 2), sprite)
        draw.text((x + 3, y + 86), name[:15], fill=(0, 0, 0))
        draw.text((x + 3, y + 98), (colour or "") + (" *" if held_out else ""), fill=(140, 0, 0))
    sheet.save(path)


def scenes_draw(out, name, path, first):
    with open(os.path.join(out, name), encoding="utf-8") as file:
        records = json.load(file)[first:first + 20]
    sheet = Image.new("RGB", (4 * 520, 5 * 224), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for number, record in enumerate(records):
        x, y = number % 4 * 520, number // 4 * 224
        with Image.open(os.path.join(out, "images", record["image"])) as image:
            sheet.paste(image.resize((200, 200)), (x, y))
        turns = record["conversations"]
        line = y
        for human, model in zip(turns[::2], turns[1::2]):
            question = human["value"].replace("<image>\n", "").replace("\n<image>", "")
            text = f"{question.splitlines()[0]} -> {model['value']}"
            # the built-in typeface has no letters beyond Latin 1
            for part in textwrap.wrap(text.encode("latin-1", "replace").decode("latin-1"), 52):
                draw.text((x + 206, line), part, fill=(0, 0, 0))
                line += 11
    sheet.save(path)


def boxes_of(graph):
    """{name: [(x and y of the middle, area of the box)]}"""
    found = {}
    for one in graph["objects"].values():
        middle = ((one["x"] + one["w"] / 2) / graph["width"],
                  (one["y"] + one["h"] / 2) / graph["height"])
        found.setdefault(one["name"].lower(), []).append((*middle, one["w"] * one["h"]))
    return found


def expected(question, boxes, plurals):
    """The answer by the boxes to what a pattern recognizes; None for any other question."""
    names = "|".join(sorted(map(re.escape, boxes), key=len, reverse=True))
    text = question.lower().rstrip("?.")
    directions = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "over": (1, -1),
                  "below": (1, 1), "under": (1, 1), "top": (1, -1), "bottom": (1, 1)}

    def middle(name):
        return boxes[name][0]
    match = re.fullmatch(rf"(?:is|are) (?:the|an?) ({names}) (?:to the )?(left|right|above|over|"
                         rf"below|under)(?: of)? the ({names})", text)
    if match:
        axis, sign = directions[match[2]]
        away = (middle(match[1])[axis] - middle(match[3])[axis]) * sign
        return "yes" if away > 0 else "no"
    match = re.fullmatch(rf"(?:is|are) the ({names}) (?:on|at) the (left|right|top|bottom)", text)
    if match:
        axis, sign = directions[match[2]]
        return "yes" if (middle(match[1])[axis] - 0.5) * sign > 0 else "no"
    match = re.fullmatch(rf"which (?:one )?is (larger|bigger|smaller), the ({names}) or the "
                         rf"({names})", text)
    if match:
        one, other = sorted(match.groups()[1:], key=lambda name: middle(name)[2])
        return one if match[1] == "smaller" else other
    match = re.fullmatch(r"how many (.*?)(?: are there| do you see| are in the picture)?", text)
    if match and match[1] in plurals:
        return str(len(boxes.get(plurals[match[1]], ())))
    match = re.fullmatch(r"(?:is|are) there (?:an? )?(.*?)(?: in the picture)?", text)
    if match and match[1] in plurals.values():
        return "yes" if match[1] in boxes else "no"
    return None


def answers_check(out, name):
    plurals = {thing.plural.lower(): thing.name.lower() for thing in things_read()}
    with open(os.path.join(out, f"gqa/{name}_sceneGraphs.json"), encoding="utf-8") as file:
        graphs = json.load(file)
    with open(os.path.join(out, f"scenes-{name}.json"), encoding="utf-8") as file:
        records = json.load(file)
    checked = wrong = 0
    for record in records:
        boxes = boxes_of(graphs[record["image"].removesuffix(".jpg")])
        turns = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        for question, answer in zip(turns[::2], turns[1::2]):
            right = expected(question, boxes, plurals)
            if right is not None and not answer.startswith("There "):
                checked += 1
                if answer.lower() != right:
                    wrong += 1
                    print(f"{record['id']}\t{question}\t{answer}\t{right}")
    print(f"{checked} answers checked, {wrong} differ")


def main():
    words = sys.argv[1:]
    if words == ["names"]:
        names_print()
    elif len(words) == 2 and words[0] == "images":
        images_draw(words[1])
    elif len(words) == 3 and words[0] == "answers":
        answers_check(*words[1:])
    elif len(words) in (4, 5) and words[0] == "scenes":
        scenes_draw(*words[1:4], int(words[4]) if len(words) == 5 else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
