"""What questions are made from: a scene with what is clear about it."""

from world_names import KINDS, a, der, ein, kind_answer, kind_ein

CLEAR = 0.22  # distance of centres, as a share of the side, that makes a place clear
OFF_CENTRE = 0.14  # distance from the middle that makes a side clear
CENTRED = 0.08  # and what counts as being in the middle
RELATIONS = {  # axis, sign, of a relation: English, German with the dative, opposite
    "left": ("to the left of", "links von", "right"),
    "right": ("to the right of", "rechts von", "left"),
    "above": ("above", "über", "below"),
    "below": ("below", "unter", "above"),
}
RELATION_ANSWERS_DE = {"left": "links", "right": "rechts", "above": "darüber", "below": "darunter"}
SIDES = {"left": ("on the left", "links"), "right": ("on the right", "rechts"),
         "top": ("at the top", "oben"), "bottom": ("at the bottom", "unten")}
PLACES = {"left": ("on the left", "links"), "right": ("on the right", "rechts"),
          "top": ("at the top", "oben"), "bottom": ("at the bottom", "unten"),
          "top left": ("at the top left", "oben links"),
          "top right": ("at the top right", "oben rechts"),
          "bottom left": ("at the bottom left", "unten links"),
          "bottom right": ("at the bottom right", "unten rechts"),
          "middle": ("in the middle", "in der Mitte")}
YES_DE = {"yes": "ja", "no": "nein"}


class Words:
    """A thing's names in the forms that wordings ask for."""

    def __init__(self, thing, alias=None):
        """alias: another English name; its plural is the first name's."""
        self.name, self.names = alias or thing.name, thing.plural
        self.a = a(self.name)
        several = thing.plural == self.name and self.name.endswith("s")
        self.is_, self.Is = ("are", "Are") if several else ("is", "Is")
        self.does, self.Does = ("do", "Do") if several else ("does", "Does")
        self.de, self.de_plural = thing.de, thing.de_plural
        self.der, self.den, self.dem = der(thing), der(thing, "acc"), der(thing, "dat")
        self.ein, self.einen = ein(thing), ein(thing, "acc")
        self.kein = ("keine " if thing.gender == "p" else "k") + ein(thing)
        several = thing.gender == "p"
        self.ist, self.Ist = ("sind", "Sind") if several else ("ist", "Ist")
        self.hat, self.Hat = ("haben", "Haben") if several else ("hat", "Hat")
        self.gehoert = "gehören" if several else "gehört"


class KindWords:
    """A kind's names; those without a gender are not asked after in German."""

    def __init__(self, kind):
        article, self.names, self.de, gender, self.de_plural, _ = KINDS[kind]
        self.a, self.name = article, kind_answer(kind)
        self.ein, self.einen = kind_ein(kind), kind_ein(kind, "acc")
        if kind == "vegetable":
            self.ein = self.einen = "Gemüse"
        self.der = {"m": "der", "f": "die", "n": "das"}.get(gender, "das") + " " + self.de
        self.Welcher = {"m": "Welcher", "f": "Welche", "n": "Welches"}.get(gender)


class Question:
    """One question: its wordings and answer in English and German, and what GQA's files record.
    kind: GQA's structural, semantic and detailed type."""

    def __init__(self, kind, wordings, en_answer, de_answer, things=(), choices=None, group=None,
                 full=None):
        self.structural, self.semantic, self.detailed = kind
        self.en_wordings, self.de_wordings = wordings
        self.en_answer, self.de_answer = en_answer, de_answer
        self.en_sentence = full or en_answer
        self.group = group  # GQA's global group of open questions
        self.things = list(things)  # objects of the scene that it is about
        self.choices = choices  # what could be answered; None: any object's name
        self.key = (self.detailed, *sorted(one["id"] for one in self.things))


class Scene:
    """A scene with what the questions look up."""

    def __init__(self, scene, things, colour_weights):
        self.objects = scene["objects"]  # the unknown ones, too
        self.known = [one for one in self.objects if one["thing"]]
        self.size, self.background = scene["size"], scene["background"]
        self.things = things
        self.colour_weights = colour_weights
        self.present = {}
        for one in self.known:
            self.present.setdefault(one["thing"].id, []).append(one)
        self.single = [group[0] for group in self.present.values() if len(group) == 1]
        self.groups = list(self.present.values())
        near = {name for one in self.known for name in one["thing"].near}
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
    if abs(one["cx"] - 0.5) > OFF_CENTRE:
        sides.append("left" if one["cx"] < 0.5 else "right")
    if abs(one["cy"] - 0.5) > OFF_CENTRE:
        sides.append("top" if one["cy"] < 0.5 else "bottom")
    return sides


def where(one):
    """Its place in the image, if that is beyond doubt: "left", "top left", "middle"."""
    words = []
    for axis, low, high in (("cy", "top", "bottom"), ("cx", "left", "right")):
        away = one[axis] - 0.5
        if abs(away) > OFF_CENTRE:
            words.append(low if away < 0 else high)
        elif abs(away) > CENTRED:
            return None
    return " ".join(words) or "middle"


def name_of(one):
    return one["thing"].name


def coin(rng):
    return rng.choice(("yes", "no"))


def colour_accept(scene, colour, rng):
    """Rare colours are asked after more often than common ones."""
    return rng.random() < scene.colour_weights.get(colour, 1)


def related_pairs(scene):
    return [(one, other, relation(one, other)) for one in scene.single for other in scene.single
            if one is not other and relation(one, other)]
