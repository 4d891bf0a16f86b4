"""The small world's images: cut-outs, backgrounds, and scenes composed of them."""

import io
import math
import os
import subprocess
import zlib

from PIL import Image, ImageDraw, ImageFilter

from world_names import COLOURS

STAMPS = "/usr/share/tuxpaint/stamps"
PHOTOS = "/usr/share/tuxpaint/templates"
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SPRITE = 200  # longest side of a cut-out in memory
PHOTO_NAMES = ("burnt_bark", "cliff", "corn_maze", "mossy_bark", "mossy_log", "mudstone",
               "ocean_splash", "ocean_waves", "redwoods_above", "rocks", "trees_at_dusk",
               "trees_above")
PHOTOS_HELD_OUT = ("mossy_log", "trees_above")
# How many of each object a scene has, and how often.
PLANS = {
    "1": ((1, (1,)),),
    "2": ((85, (1, 1)), (15, (2,))),
    "many": ((8, (1,)), (28, (1, 1)), (16, (1, 1, 1)), (12, (1, 1, 1, 1)), (4, (2,)), (6, (2, 1)),
             (4, (2, 1, 1)), (3, (2, 2)), (5, (3,)), (7, (3, 1)), (9, (4,))),
}
SIZES = {1: (0.34, 0.86), 2: (0.28, 0.60), 3: (0.26, 0.50), 4: (0.26, 0.42)}
UNSEEN = 0.3  # of the things in held-out scenes that have such images


class Images:
    """All cut-outs and photographs, in memory, read once. unknown: images without a name."""

    def __init__(self, things, unknown):
        from fontTools.ttLib import TTFont

        font = TTFont(FONT)
        characters, glyphs = font.getBestCmap(), font["CBDT"].strikeData[0]
        self.sprites = {}
        sources = [source for thing in things for source, _, _ in thing.images]
        for source in sources + [source for split in unknown.values() for source in split]:
            if source not in self.sprites:
                if source.startswith("U+"):
                    data = glyphs[characters[int(source.removeprefix("U+"), 16)]].imageData
                    sprite = Image.open(io.BytesIO(data))
                else:
                    sprite = stamp_open(os.path.join(STAMPS, source))
                sprite = trimmed(sprite.convert("RGBA"))
                sprite.thumbnail((SPRITE, SPRITE), Image.LANCZOS)
                self.sprites[source] = (sprite, mean_colour(sprite))
        self.photos = {}
        for name in PHOTO_NAMES:
            photo = Image.open(os.path.join(PHOTOS, name + ".jpg")).convert("RGB")
            photo.thumbnail((480, 480), Image.LANCZOS)
            self.photos[name] = photo


def stamp_open(path):
    if os.path.exists(path + ".png"):
        return Image.open(path + ".png")
    if not os.path.exists(path + ".svg"):
        raise FileNotFoundError(f"{path}: neither .png nor .svg was found; see objects.tsv and "
                                "the package tuxpaint-stamps-default")
    command = ["rsvg-convert", "--height", "200", "--keep-aspect-ratio", path + ".svg"]
    return Image.open(io.BytesIO(subprocess.run(command, stdout=subprocess.PIPE,
                                                check=True).stdout))


def trimmed(sprite):
    box = sprite.getchannel("A").point(lambda value: 255 * (value > 24)).getbbox()
    return sprite.crop(box)


def mean_colour(sprite):
    return sprite.resize((1, 1), Image.BOX).convert("RGBA").getdata()[0][:3]


def mixed(colour, other, share):
    return tuple(round(c + (o - c) * share) for c, o in zip(colour, other))


def companion(name, colour):
    """A second colour for patterns that does not change the colour's name."""
    if name in ("red", "white"):
        return mixed(colour, (0, 0, 0), 0.28 if name == "red" else 0.14)
    return mixed(colour, (255, 255, 255), {"yellow": 0.5, "brown": 0.2}.get(name, 0.3))


def pattern_draw(kind, colour, second, size, rng):
    """Twice the size, reduced, for smooth edges."""
    side = 2 * size
    image = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(image)
    step = round(side * rng.uniform(0.10, 0.2))
    if kind == "stripes":
        slope = rng.choice((0, 0, 1, -1))
        for at in range(-2 * side, 3 * side, step):
            draw.polygon([(at, 0), (at + step // 2, 0), (at + step // 2 + slope * side, side),
                          (at + slope * side, side)], fill=second)
        if rng.random() < 0.5:
            image = image.transpose(Image.ROTATE_90)
    elif kind == "dots":
        radius = step * 0.28
        for row in range(side // step + 2):
            for column in range(-1, side // step + 2):
                x, y = (column + 0.5 * (row % 2)) * step, row * step
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=second)
    else:
        for row in range(side // step + 1):
            for column in range(row % 2, side // step + 1, 2):
                draw.rectangle([column * step, row * step, column * step + step - 1,
                                row * step + step - 1], fill=second)
    return image.resize((size, size), Image.BOX)


def background_make(images, held_out, size, rng):
    """(image, what it is): plain, one of the patterns, shades, or a photograph."""
    kind = rng.choices(("plain", "stripes", "dots", "checks", "photo", "shades"),
                       (38, 13, 13, 13, 16, 7))[0]
    if kind == "photo":
        unseen = held_out and rng.random() < 0.25
        name = rng.choice([n for n in PHOTO_NAMES if (n in PHOTOS_HELD_OUT) == unseen])
        photo = images.photos[name]
        side = round(min(photo.size) * rng.uniform(0.5, 1))
        x, y = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
        image = photo.crop((x, y, x + side, y + side)).resize((size, size), Image.LANCZOS)
        image = image.filter(ImageFilter.GaussianBlur(size / 100))  # out of focus
        return image, {"pattern": "photo", "colour": None, "photo": name}
    if kind == "shades":  # soft noise between two colours
        first, second = (COLOURS[name][1] for name in rng.sample(sorted(COLOURS), 2))
        cells = rng.choice((3, 4, 6))
        mask = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
        image = Image.composite(Image.new("RGB", (size, size), first),
                                  Image.new("RGB", (size, size), mixed(first, second, 0.6)),
                                  mask.resize((size, size), Image.BICUBIC))
        return image, {"pattern": "shades", "colour": None}
    name = rng.choice(sorted(COLOURS))
    colour = tuple(max(0, min(255, c + rng.randint(-10, 10))) for c in COLOURS[name][1])
    if kind == "plain":
        return Image.new("RGB", (size, size), colour), {"pattern": kind, "colour": name}
    second = companion(name, colour)
    return (pattern_draw(kind, colour, second, size, rng), {"pattern": kind, "colour": name})


def background_fits(image, what, chosen):
    """Whether every thing contrasts with it."""
    mean = image.resize((1, 1), Image.BOX).getpixel((0, 0))
    for _, (_, thing_mean), _, colour, _ in chosen:
        if colour and colour == what["colour"]:
            return False
        if math.dist(mean, thing_mean) < 60:
            return False
    return True


def pair_split(one, other):
    """Which split a combination of two objects belongs to: a twelfth each to valid and test."""
    name = "|".join(sorted((one.id, other.id)))
    return {0: "valid", 1: "test"}.get(zlib.crc32(name.encode()) % 12, "train")


def things_choose(things, counts, split, rng):
    """Different objects whose combination belongs to the split: in a training scene every pair
    does, in a held-out one the first pair, so that no training scene has its set of objects."""
    while True:
        chosen = rng.sample(things, len(counts))
        pairs = [pair_split(one, other) for i, one in enumerate(chosen) for other in chosen[:i]]
        if not pairs or (split == "train" and all(pair == "train" for pair in pairs)):
            return chosen
        if split != "train" and pairs[0] == split:
            return chosen


def layout(ratios, rng):
    """Places for boxes of these ratios width:height, in the unit square, overlapping little."""
    low, high = SIZES[len(ratios)]
    for attempt in range(1000):
        boxes = []
        for ratio in ratios:
            # large and small ones rather than equal ones, so that sizes can be compared
            longest = low + (high - low) * rng.betavariate(0.7, 0.7) * (1 - min(attempt, 300) / 300)
            if max(ratio, 1 / ratio) > 2.2:  # a pencil has to be longer to be as visible
                longest = min(0.9, 1.25 * longest)
            width, height = longest * min(1, ratio), longest * min(1, 1 / ratio)
            for _ in range(12):
                x, y = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
                if all(overlap((x, y, width, height), box) <= 0.06 for box in boxes):
                    boxes.append((x, y, width, height))
                    break
            else:
                break
        if len(boxes) == len(ratios):
            return boxes
    raise RuntimeError("no room for the things of a scene")


def overlap(one, other):
    """Common area, as a share of the smaller box."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    smaller = min(one[2] * one[3], other[2] * other[3])
    return max(0, width) * max(0, height) / smaller


def image_choose(thing, split, rng):
    """Some of the things in held-out scenes that have unseen images show one."""
    seen = [p for p in thing.images if not p[2]]
    unseen = [p for p in thing.images if p[2]]
    return rng.choice(unseen if split != "train" and unseen and rng.random() < UNSEEN else seen)


def objects_choose(images, things, split, plan, nameless, rng):
    """[(thing or None, cut-out, unseen, colour, source)]; nameless: a cut-out in place of one."""
    counts = rng.choices([counts for _, counts in plan], [weight for weight, _ in plan])[0]
    chosen = []
    if nameless:
        counts = counts[:-1]
        chosen.append((None, nameless, False, None, None))
    for thing, count in zip(things_choose(things, counts, split, rng) if counts else (), counts):
        for _ in range(count):
            source, colour, unseen = image_choose(thing, split, rng)
            chosen.append((thing, images.sprites[source], unseen, colour, source))
    rng.shuffle(chosen)
    return chosen


def scene_make(images, things, where, plan, size, rng, nameless=None):
    """(image, scene): the scene graph that questions are made from. where: (set, split, index);
    nameless: (cut-out, its mean colour) of a thing that has no name."""
    name, split, index = where
    chosen = objects_choose(images, things, split, plan, nameless, rng)
    for _ in range(40):
        image, what = background_make(images, split != "train", size, rng)
        if background_fits(image, what, chosen):
            break
    sprites = []
    for _, (sprite, _), *_ in chosen:
        if rng.random() < 0.5:
            sprite = sprite.transpose(Image.FLIP_LEFT_RIGHT)
        sprites.append(trimmed(sprite.rotate(rng.uniform(-10, 10), Image.BICUBIC, expand=True)))
    scene = {"id": f"{name}/{index:06d}", "size": size, "background": what, "objects": []}
    boxes = layout([sprite.width / sprite.height for sprite in sprites], rng)
    for place, (thing, _, unseen, colour, source) in enumerate(chosen):
        x, y, w, h = (round(size * value) for value in boxes[place])
        sprite = sprites[place].resize((max(2, w), max(2, h)), Image.LANCZOS)
        light = rng.uniform(0.88, 1.12)
        shaded = sprite.convert("RGB").point([min(255, round(v * light)) for v in range(256)] * 3)
        alpha = sprite.getchannel("A")
        image.paste(shaded, (x, y), alpha)
        scene["objects"].append({
            "id": f"{name}{index:06d}{place}", "thing": thing, "colour": colour,
            "image": source, "unseen": unseen, "x": x, "y": y, "w": w, "h": h,
            "area": sum(v * n for v, n in enumerate(alpha.histogram())) / 255,
            "cx": (x + w / 2) / size, "cy": (y + h / 2) / size})
    return image, scene
