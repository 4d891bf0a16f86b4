"""What questions and captions are made from: a scene with what is clear about it."""

from world_names import KINDS

CLEAR = 0.22  # distance of centres, as a share of the side, that makes a place clear
RELATIONS = {  # axis, sign, of a relation: English, German with the dative, opposite
    "left": ("to the left of", "links von", "right"),
    "right": ("to the right of", "rechts von", "left"),
    "above": ("above", "über", "below"),
    "below": ("below", "unter", "above"),
}
RELATION_ANSWERS_DE = {"left": "links", "right": "rechts", "above": "darüber", "below": "darunter"}
SIDES = {"left": ("on the left", "links"), "right": ("on the right", "rechts"),
         "top": ("at the top", "oben"), "bottom": ("at the bottom", "unten")}
YES_DE = {"yes": "ja", "no": "nein"}


class Question:
    """type: GQA's structural, semantic and detailed; en and de: (wordings, answer, sentence)."""

    def __init__(self, kind, en, de, program, group=None, things=(), choices=None, entails=()):
        self.structural, self.semantic, self.detailed = kind
        self.en_wordings, self.en_answer, self.en_sentence = en
        self.de_wordings, self.de_answer, self.de_sentence = de
        self.program = program  # (operation, argument, dependencies)
        self.group = group  # GQA's global group of open questions
        self.things = things  # objects of the scene that it is about
        self.choices = choices  # what could be answered; None: any object's name
        self.entails = list(entails)


class Scene:
    """A scene with what the questions look up."""

    def __init__(self, scene, things, colour_weights):
        self.objects = scene["objects"]
        self.background = scene["background"]
        self.things = things
        self.colour_weights = colour_weights
        self.present = {}
        for one in self.objects:
            self.present.setdefault(one["thing"].id, []).append(one)
        self.single = [group[0] for group in self.present.values() if len(group) == 1]
        self.groups = list(self.present.values())
        near = {name for one in self.objects for name in one["thing"].near}
        self.absent = [t for t in things if t.id not in self.present and t.id not in near]
        self.kinds = {}
        for group in self.groups:
            for kind in group[0]["thing"].kinds():
                self.kinds.setdefault(kind, []).append(group)
        near_kinds = {k for t in things if t.id in near for k in t.kinds()}
        self.absent_kinds = [k for k in KINDS if k not in self.kinds and k not in near_kinds]

    def absent_thing(self, rng, like=None):
        """Something that is not there, half the time of a kind that is."""
        if like and like["thing"].kind and rng.random() < 0.5:
            same = [t for t in self.absent if t.kind == like["thing"].kind]
            if same:
                return rng.choice(same)
        return rng.choice(self.absent)


def relation(one, other):
    """Where one is, seen from the other, if that is beyond doubt."""
    dx, dy = one["cx"] - other["cx"], one["cy"] - other["cy"]
    if abs(dx) >= CLEAR and abs(dx) >= 1.6 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) >= CLEAR and abs(dy) >= 1.6 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def side(one):
    """Sides of the image that it is clearly on."""
    sides = []
    if abs(one["cx"] - 0.5) > 0.16:
        sides.append("left" if one["cx"] < 0.5 else "right")
    if abs(one["cy"] - 0.5) > 0.16:
        sides.append("top" if one["cy"] < 0.5 else "bottom")
    return sides


def name_of(one):
    return one["thing"].name


def select(one):
    return ("select", f"{name_of(one)} ({one['id']})", [])


def coin(rng):
    return rng.choice(("yes", "no"))


def colour_accept(scene, colour, rng):
    """Rare colours are asked after more often than common ones."""
    return rng.random() < scene.colour_weights.get(colour, 1)


def related_pairs(scene):
    return [(one, other, relation(one, other)) for one in scene.single for other in scene.single
            if one is not other and relation(one, other)]
