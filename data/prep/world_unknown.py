"""Questions that a model has to answer with its not knowing: about what is not there, what no image
shows, and things whose names were never taught; and images that show nothing at all."""

from PIL import Image, ImageDraw

from world_facts import Question, Words
from world_names import COLOURS
from world_places import ENGLISH
from world_questions import DON_T_KNOW, DON_T_KNOW_DE
from world_wordings import WORDINGS, wordings_make

TEST_WORDINGS = 6  # every sixth question without an answer is asked in the test alone


def not_there(scene, rng):
    """A question about a thing that is not in the image."""
    like = rng.choice(scene.known) if scene.known else None
    words = Words(scene.absent_thing(rng, like))
    ways = ["colour", "where", "side", "height"]
    if scene.single:
        ways += ["relation_verify", "size"]
    way, fields = rng.choice(ways), {}
    if way in ("relation_verify", "size"):
        fields["y"] = Words(rng.choice(scene.single)["thing"])
        fields["c"], fields["d"] = rng.choice((("larger", "größer"), ("smaller", "kleiner"))) \
            if way == "size" else (rng.choice(ENGLISH["left"]), "links von")
    return Question(("query", "obj", "unknownPremise"), wordings_make(way, x=words, **fields),
                    f"There {words.is_} no {words.name}.", f"Hier {words.ist} {words.kein}.", [],
                    None, "unknown")


def unanswerable(scene, rng, test=False):
    """Who made this? Some of the wordings are in the test only."""
    things = [one["thing"] for one in scene.single if Words(one["thing"]).is_ == "is"]
    fields = {"x": Words(rng.choice(things))} if things else {}
    texts = []
    for number, language in enumerate(WORDINGS["unanswerable"]):
        usable = [text for at, text in enumerate(language)
                  if (things or "{x" not in text) and
                  (number == 1 or (at % TEST_WORDINGS == 4) == test)]
        texts.append([text.format(**fields)[0].upper() + text.format(**fields)[1:]
                      for text in rng.sample(usable, 2)])
    return Question(("query", "global", "unknownAnswer"), texts, DON_T_KNOW, DON_T_KNOW_DE, [], None,
                    "unknown")


def unnamed(scene, rng):
    """What is this? Where it is one thing without a name, or nothing that can be named."""
    if len(scene.objects) > 1 or scene.known:
        return None
    return Question(("query", "cat", "unknownThing" if scene.objects else "unknownNoise"),
                    wordings_make("this"), DON_T_KNOW, DON_T_KNOW_DE, scene.objects, None, "unknown")


def unnamed_seen(scene, rng):
    """What do you see? Where that is nothing that can be named."""
    if scene.known:
        return None
    return Question(("query", "cat", "unknownSeen"),
                    wordings_make(rng.choice(("see", "describe"))), DON_T_KNOW, DON_T_KNOW_DE,
                    scene.objects, None, "unknown")


def existence_denied(scene, rng):
    """Is there a cat? Where nothing can be named."""
    thing = scene.absent_thing(rng)
    return Question(("verify", "obj", "exist"), wordings_make("exist", x=Words(thing)), "no",
                    "nein", [], ["yes", "no"])


# ---- images without a name

def noise_make(size, rng):
    """Noise of one of several kinds; nothing is to be seen in it."""
    kind = rng.choice(("pixels", "clouds", "bars", "gray"))
    if kind == "pixels":
        cells = rng.choice((size, size // 2, size // 4))
        image = Image.frombytes("RGB", (cells, cells), rng.randbytes(3 * cells * cells))
        return image.resize((size, size), Image.NEAREST)
    if kind == "gray":
        cells = rng.choice((size, 28, 14))
        image = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
        return image.resize((size, size), Image.BICUBIC).convert("RGB")
    cells = (rng.choice((4, 7, 12)), rng.choice((4, 7, 12)))
    if kind == "bars":
        cells = rng.choice(((1, 40), (40, 1), (1, 90), (90, 1)))
    image = Image.frombytes("RGB", cells, rng.randbytes(3 * cells[0] * cells[1]))
    return image.resize((size, size), Image.NEAREST if kind == "bars" else Image.BICUBIC)


def shape_make(rng):
    """A cut-out of no known form: a random outline, filled with two colours."""
    side_ = 160
    count = rng.randint(5, 11)
    image = Image.new("RGBA", (side_, side_), (0, 0, 0, 0))
    mask = Image.new("L", (2 * side_, 2 * side_), 0)
    turned = Image.new("L", mask.size, 0)
    for _ in range(rng.randint(1, 3)):
        middle = [side_ * rng.uniform(0.7, 1.3) for _ in range(2)]
        points = [(middle[0] + side_ * rng.uniform(-0.7, 0.7), middle[1] + side_ *
                   rng.uniform(-0.7, 0.7)) for _ in range(count)]
        ImageDraw.Draw(mask).polygon(points, fill=255)
    draw = ImageDraw.Draw(turned)
    for _ in range(rng.randint(2, 9)):
        x, y, r = (rng.uniform(0, 2 * side_), rng.uniform(0, 2 * side_), rng.uniform(10, 70))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=255)
    first, second = (COLOURS[name][1] for name in rng.sample(sorted(COLOURS), 2))
    paint = Image.composite(Image.new("RGB", mask.size, first), Image.new("RGB", mask.size, second),
                            turned).resize((side_, side_), Image.BOX)
    image.paste(paint, (0, 0), mask.resize((side_, side_), Image.BOX))
    return image


