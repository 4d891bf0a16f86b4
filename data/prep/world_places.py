"""Questions about where things are and how large: asked only where the answer is beyond doubt."""

from world_facts import (
    PLACES,
    RELATION_ANSWERS_DE,
    RELATIONS,
    YES_DE,
    Question,
    Words,
    coin,
    related_pairs,
    relation,
    side,
    where,
)
from world_wordings import wordings_make

OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
ENGLISH = {"left": ("to the left of", "left of"), "right": ("to the right of", "right of"),
           "above": ("above", "above", "over"), "below": ("below", "under")}
SIZES = {"larger": (("larger", "bigger"), "größer"), "smaller": (("smaller", "smaller"), "kleiner")}
MOST = {"largest": (("largest", "biggest"), "größten"), "smallest": (("smallest",), "kleinsten")}


# ---- position in the image

def on_side(scene, rng, names, wording, detailed):
    cases = [(one, name) for one in scene.single for name in side(one) if name in names]
    if not cases:
        return None
    one, name = rng.choice(cases)
    return Question(("choose", "attr", detailed), wordings_make(wording, x=Words(one["thing"])),
                    name, PLACES[name][1], [one], list(names))


def side_query(scene, rng):
    return on_side(scene, rng, ("left", "right"), "side", "positionChoose")


def height_query(scene, rng):
    return on_side(scene, rng, ("top", "bottom"), "height", "heightChoose")


def where_query(scene, rng):
    """The middle is asked after less often than it comes."""
    ones = [one for one in scene.single if where(one) and
            (where(one) != "middle" or rng.random() < 0.5)]
    if not ones:
        return None
    one = rng.choice(ones)
    english, german = PLACES[where(one)]
    return Question(("query", "attr", "positionQuery"), wordings_make("where", x=Words(one["thing"])),
                    english, german, [one], [english for english, _ in PLACES.values()], "place")


def side_verify(scene, rng):
    cases = [(one, name) for one in scene.single for name in side(one)]
    if not cases:
        return None
    (one, name), answer = rng.choice(cases), coin(rng)
    english, german = PLACES[name if answer == "yes" else OPPOSITE[name]]
    return Question(("verify", "attr", "positionVerify"),
                    wordings_make("side_verify", x=Words(one["thing"]), c=english, d=german), answer,
                    YES_DE[answer], [one], ["yes", "no"])


# ---- relations

def words_of(one, other):
    return {"x": Words(one["thing"]), "y": Words(other["thing"])}


def relation_query(scene, rng):
    """Where is A, seen from B?"""
    pairs = related_pairs(scene)
    if not pairs:
        return None
    one, other, name = rng.choice(pairs)
    return Question(("query", "rel", "relPlace"), wordings_make("relation", **words_of(one, other)),
                    name, RELATION_ANSWERS_DE[name], [one, other], sorted(RELATIONS), "place")


def relation_verify(scene, rng):
    """Is A to the left of B?"""
    pairs = related_pairs(scene)
    if not pairs:
        return None
    (one, other, name), answer = rng.choice(pairs), coin(rng)
    asked = name if answer == "yes" else RELATIONS[name][2]
    return Question(("verify", "rel", "relVerify"),
                    wordings_make("relation_verify", c=rng.choice(ENGLISH[asked]),
                                  d=RELATIONS[asked][1], **words_of(one, other)), answer,
                    YES_DE[answer], [one, other], ["yes", "no"])


def relation_choose(scene, rng):
    """Is A left or right of B?"""
    pairs = related_pairs(scene)
    if not pairs:
        return None
    one, other, name = rng.choice(pairs)
    ways = ["left", "right"] if name in ("left", "right") else ["above", "below"]
    rng.shuffle(ways)
    if "left" in ways:
        english = rng.choice((f"to the {ways[0]} or to the {ways[1]} of",
                              f"{ways[0]} or {ways[1]} of"))
        german = " oder ".join(RELATIONS[way][1].split()[0] for way in ways) + " von"
    else:
        english = f"{ways[0]} or {ways[1]}"
        german = " oder ".join(RELATIONS[way][1] for way in ways)
    return Question(("choose", "rel", "relChoose"),
                    wordings_make("relation_choose", c=english, d=german, **words_of(one, other)),
                    name, RELATION_ANSWERS_DE[name], [one, other], ways)


def relation_name(scene, rng):
    """What is to the left of B? One thing alone is, and clearly."""
    cases = []
    for other in scene.single:
        for name, axis, sign in (("left", "cx", -1), ("right", "cx", 1),
                                 ("above", "cy", -1), ("below", "cy", 1)):
            there = [o for o in scene.objects
                     if o is not other and (o[axis] - other[axis]) * sign > 0.08]
            if len(there) == 1 and there[0]["thing"] and relation(there[0], other) == name:
                cases.append((there[0], other, name))
    if not cases:
        return None
    one, other, name = rng.choice(cases)
    return Question(("query", "rel", "relName"),
                    wordings_make("relation_name", c=rng.choice(ENGLISH[name]),
                                  d=RELATIONS[name][1], y=Words(other["thing"])),
                    one["thing"].name, one["thing"].de, [one, other], None, "object")


# ---- sizes

def clearly_larger(one, other):
    """By area, by what a box encloses, and by the longest side."""
    return one["area"] > 1.5 * other["area"] and one["w"] * one["h"] > 1.5 * other["w"] * other["h"] \
        and max(one["w"], one["h"]) > 1.15 * max(other["w"], other["h"])


def larger_pairs(scene):
    return [(one, other) for one in scene.single for other in scene.single
            if one is not other and clearly_larger(one, other)]


def size_choose(scene, rng):
    pairs = larger_pairs(scene)
    if not pairs:
        return None
    large, small = rng.choice(pairs)
    name = rng.choice(("larger", "smaller"))
    thing = (large if name == "larger" else small)["thing"]
    first, second = rng.sample([large, small], 2)
    english, german = SIZES[name]
    return Question(("compare", "attr", "chooseLarger"),
                    wordings_make("size", c=rng.choice(english), d=german, **words_of(first, second)),
                    thing.name, thing.de, [large, small],
                    [first["thing"].name, second["thing"].name])


def size_verify(scene, rng):
    pairs = larger_pairs(scene)
    if not pairs:
        return None
    (large, small), answer = rng.choice(pairs), coin(rng)
    name = rng.choice(("larger", "smaller"))
    first, second = (large, small) if (answer == "yes") == (name == "larger") else (small, large)
    english, german = SIZES[name]
    return Question(("compare", "attr", "verifyLarger"),
                    wordings_make("size_verify", c=rng.choice(english), d=german,
                                  **words_of(first, second)), answer, YES_DE[answer],
                    [large, small], ["yes", "no"])


def size_most(scene, rng):
    """Which thing is the largest?"""
    if len(scene.objects) < 2 or len(scene.single) != len(scene.objects):
        return None
    ones = sorted(scene.objects, key=lambda one: one["area"])
    cases = []
    if all(clearly_larger(ones[-1], other) for other in ones[:-1]):
        cases.append(("largest", ones[-1]))
    if all(clearly_larger(other, ones[0]) for other in ones[1:]):
        cases.append(("smallest", ones[0]))
    if not cases:
        return None
    name, one = rng.choice(cases)
    english, german = MOST[name]
    return Question(("query", "attr", "sizeName"),
                    wordings_make("size_most", c=rng.choice(english), d=german), one["thing"].name,
                    one["thing"].de, [one], None, "object")
