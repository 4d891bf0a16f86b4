"""Captions of scenes: one sentence, English or German."""

from world_facts import RELATIONS, name_of, related_pairs
from world_names import COLOURS, a, count_of, count_of_de, ein, listing, sentence


def caption(scene, rng, german):
    """One sentence: what is in the scene, and perhaps on what or where."""
    groups = scene.groups[:]
    rng.shuffle(groups)
    colour = scene.background["colour"]
    pairs = related_pairs(scene)
    if pairs and rng.random() < 0.4:
        one, other, where = rng.choice(pairs)
        if german:
            return f"{sentence(ein(one['thing']))} {RELATIONS[where][1]} " \
                   f"{ein(other['thing'], 'dat')}."
        return f"{sentence(a(name_of(one)))} {RELATIONS[where][0]} {a(name_of(other))}."
    if german:
        words = []
        for group in groups:
            words.append(count_of_de(len(group), group[0]["thing"]))
        text = listing(words, "und")
        if colour and rng.random() < 0.5:
            text += f", der Hintergrund ist {COLOURS[colour][0]}"
        return sentence(text) + "."
    words = []
    for group in groups:
        thing, own = group[0]["thing"], group[0]["colour"]
        if len(group) == 1 and own and rng.random() < 0.5:
            words.append(a(f"{own} {thing.name}"))
        else:
            words.append(count_of(len(group), thing))
    text = listing(words, "and")
    if colour and rng.random() < 0.5:
        text += f" on {a(colour + ' background')}"
    return sentence(text) + "."
