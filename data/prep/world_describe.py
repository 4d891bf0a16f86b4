"""Descriptions of scenes: grammatical sentences, English or German, the same for the same scene."""

from world_facts import PLACES, Question, side
from world_names import COLOURS, a, count_of, count_of_de, listing
from world_wordings import wordings_make

UNKNOWN, UNKNOWN_DE = "something that I do not know", "etwas, das ich nicht kenne"


def groups_in_order(scene):
    """[(objects of one name, place or None)], from left to right."""
    groups = scene.groups + [[one] for one in scene.objects if not one["thing"]]
    groups = sorted(groups, key=lambda group: min(one["cx"] for one in group))
    found = []
    for group in groups:
        sides = side(group[0]) if len(group) == 1 else []
        found.append((group, sides[0] if sides else None))
    return found


def english(scene, colours):
    words, several = [], False
    for number, (group, place) in enumerate(groups_in_order(scene)):
        thing, colour = group[0]["thing"], group[0]["colour"]
        if not thing:
            text = UNKNOWN
        elif len(group) == 1 and colour and colours:
            text = a(f"{colour} {thing.name}")
        else:
            text = count_of(len(group), thing)
        if number == 0:
            plural = thing and thing.plural == thing.name and thing.name.endswith("s")
            several = len(group) > 1 or plural
        words.append(text + (f" {PLACES[place][0]}" if place else ""))
    return f"There {'are' if several else 'is'} {listing(words, 'and')}."


def german(scene):
    words, several = [], len(scene.objects) > 1
    for group, place in groups_in_order(scene):
        thing = group[0]["thing"]
        text = count_of_de(len(group), thing) if thing else UNKNOWN_DE
        several = several or (thing is not None and thing.gender == "p")
        words.append((f"{PLACES[place][1]} " if place else "") + text)
    return f"Im Bild {'sind' if several else 'ist'} {listing(words, 'und')}."


def background(scene):
    colour, pattern = scene.background["colour"], scene.background["pattern"]
    if not colour:
        return "", ""
    extra = f" with {pattern}" if pattern != "plain" else ""
    extra_de = " mit " + {"stripes": "Streifen", "dots": "Punkten", "checks": "Karos"}[pattern] \
        if pattern != "plain" else ""
    return (f" The background is {colour}{extra}.",
            f" Der Hintergrund ist {COLOURS[colour][0]}{extra_de}.")


def describe(scene, rng):
    """Describe the picture: things with their colours, and the background."""
    behind, behind_de = background(scene)
    return Question(("query", "global", "describe"), wordings_make("describe"),
                    english(scene, True) + behind, german(scene) + behind_de)


def see(scene, rng):
    """What do you see? The things alone."""
    return Question(("query", "global", "see"), wordings_make("see"), english(scene, False),
                    german(scene))
