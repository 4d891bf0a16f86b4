#!/usr/bin/python3
"""What objects.tsv was checked with: its names next to the packages' own, and contact sheets.

usage: world_check.py names                 names that the packages put otherwise
       world_check.py images SHEET.png      every image with its name, colour, "*" if kept
                                            for held-out scenes
       world_check.py scenes OUT FILE.json SHEET.png [FIRST]
                                            24 scenes of OUT with their questions and answers
"""

import json
import os
import sys
import textwrap
from xml.etree import ElementTree

from PIL import Image, ImageDraw

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from world_images import STAMPS, Images
from world_names import things_read

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
    things = things_read()
    images = Images(things)
    cells = [(thing, *image) for thing in things for image in thing.images]
    columns, width, height = 20, 96, 112
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), (200, 210, 220))
    draw = ImageDraw.Draw(sheet)
    for number, (thing, source, colour, held_out) in enumerate(cells):
        x, y = number % columns * width, number // columns * height
        sprite = images.sprites[source][0].copy()
        sprite.thumbnail((width - 8, 84))
        sheet.paste(sprite, (x + 4, y + 2), sprite)
        draw.text((x + 3, y + 86), thing.name[:15], fill=(0, 0, 0))
        draw.text((x + 3, y + 98), (colour or "") + (" *" if held_out else ""), fill=(140, 0, 0))
    sheet.save(path)


def scenes_draw(out, name, path, first):
    with open(os.path.join(out, name), encoding="utf-8") as file:
        records = json.load(file)[first:first + 24]
    sheet = Image.new("RGB", (4 * 500, 6 * 240), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for number, record in enumerate(records):
        x, y = number % 4 * 500, number // 4 * 240
        with Image.open(os.path.join(out, "images", record["image"])) as image:
            sheet.paste(image.resize((150, 150)), (x, y))
        turns = record["conversations"]
        line = y
        for human, model in zip(turns[::2], turns[1::2]):
            question = human["value"].replace("<image>\n", "").replace("\n<image>", "")
            text = f"{question.splitlines()[0]} -> {model['value']}"
            # the built-in typeface has no letters beyond Latin 1
            for part in textwrap.wrap(text.encode("latin-1", "replace").decode("latin-1"), 55):
                draw.text((x + 156, line), part, fill=(0, 0, 0))
                line += 11
    sheet.save(path)


def main():
    words = sys.argv[1:]
    if words == ["names"]:
        names_print()
    elif len(words) == 2 and words[0] == "images":
        images_draw(words[1])
    elif len(words) in (4, 5) and words[0] == "scenes":
        scenes_draw(*words[1:4], int(words[4]) if len(words) == 5 else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
