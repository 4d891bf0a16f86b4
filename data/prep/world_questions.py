"""Questions about what is in a scene: existence, naming, kinds, numbers, colours, the background.

Every maker draws its answer first (yes or no; how many) and then looks for a question that has it,
so that no answer is much more common than the others. What a person could see otherwise is not asked:
colours only where the table has one, and nothing is denied that is `near` something in the image.
"""

from world_facts import (
    YES_DE,
    KindWords,
    Question,
    Words,
    coin,
    colour_accept,
    name_of,
    side,
    where,
)
from world_names import (
    COLOURS,
    KINDS,
    NUMBERS,
    NUMBERS_DE,
    PATTERNS,
    a,
    aliases_read,
    kind_answer,
    kind_answer_de,
)
from world_wordings import wordings_make

DON_T_KNOW, DON_T_KNOW_DE = "I do not know.", "Das weiß ich nicht."
SEVERAL = ("sock", "cherry", "bouquet")  # of which one image shows several
ALIASES = aliases_read()
CORNERS = {"top left": ("in the top left", "oben links"),
           "top right": ("in the top right", "oben rechts"),
           "bottom left": ("in the bottom left", "unten links"),
           "bottom right": ("in the bottom right", "unten rechts")}
DIRECTIONS = {"left": ("cx", -1), "right": ("cx", 1), "top": ("cy", -1), "bottom": ("cy", 1)}
SIDE_WORDS = {"left": (("on the left", "on the left side", "at the left"), "links"),
              "right": (("on the right", "on the right side", "at the right"), "rechts"),
              "top": (("at the top", "in the upper half"), "oben"),
              "bottom": (("at the bottom", "in the lower half"), "unten"),
              "middle": (("in the middle", "in the center"), "in der Mitte")}

# ---- existence


def exist_of(thing, answer, group):
    return Question(("verify", "obj", "exist"), wordings_make("exist", x=Words(thing)), answer,
                    YES_DE[answer], group, ["yes", "no"],
                    full=f"Yes, there is {a(thing.name)}." if answer == "yes" else
                    f"No, there is no {thing.name}.")


def exist_pair(scene, rng):
    """One question with yes and one with no: of what is there, no other is asked as often."""
    if not scene.groups:
        return []
    group = rng.choice(scene.groups)
    return [exist_of(group[0]["thing"], "yes", group[:1]),
            exist_of(scene.absent_thing(rng, group[0]), "no", [])]


def exist_alias_pair(scene, rng):
    """The same by another name ("bike"); denied only where nothing in the image is called so."""
    def names(thing):
        return {thing.name, *ALIASES.get(thing.name, ())}
    near = [t for t in scene.things if t not in scene.absent]
    taken = {name for thing in near for name in names(thing)}
    yes = [(group[0], alias) for group in scene.groups
           for alias in ALIASES.get(group[0]["thing"].name, ())]
    no = [(thing, alias) for thing in scene.absent for alias in ALIASES.get(thing.name, ())
          if alias not in taken and thing.name not in taken]
    if not yes:
        return []
    one, alias = rng.choice(yes)
    thing, other = rng.choice(no)
    return [Question(("verify", "obj", "exist"), wordings_make("exist_alias", x=Words(what, name)),
                     answer, YES_DE[answer], group, ["yes", "no"])
            for what, name, answer, group in ((one["thing"], alias, "yes", [one]),
                                              (thing, other, "no", []))]


def exist_kind_pair(scene, rng):
    if not scene.kinds or not scene.absent_kinds:
        return []
    found = []
    for answer in ("yes", "no"):
        kind = rng.choice(sorted(scene.kinds) if answer == "yes" else scene.absent_kinds)
        group = scene.kinds[kind][0] if answer == "yes" else []
        found.append(Question(
            ("verify", "cat", "existKind"), wordings_make("exist_kind", k=KindWords(kind)), answer,
            YES_DE[answer], group[:1], ["yes", "no"]))
    return found


def pair_of(scene, rng, name, detailed):
    """A or B? One of them is in the image."""
    if not scene.groups:
        return None
    one = rng.choice(scene.groups)[0]
    pair = [one["thing"], scene.absent_thing(rng, one)]
    rng.shuffle(pair)
    thing = one["thing"]
    return Question(("choose", "obj", detailed),
                    wordings_make(name, x=Words(pair[0]), y=Words(pair[1])), thing.name, thing.de,
                    [one], [t.name for t in pair])


def exist_choose(scene, rng):
    return pair_of(scene, rng, "exist_choose", "existChoose")


def choose_this(scene, rng):
    if len(scene.objects) != 1:
        return None
    return pair_of(scene, rng, "choose_this", "categoryThisChoose")


def verify_this_pair(scene, rng):
    if len(scene.objects) != 1 or not scene.known:
        return []
    one = scene.known[0]
    found = []
    for answer in ("yes", "no"):
        thing = one["thing"] if answer == "yes" else scene.absent_thing(rng, one)
        found.append(Question(("verify", "cat", "verifyThis" + answer.capitalize()),
                              wordings_make("verify_this", x=Words(thing)), answer, YES_DE[answer],
                              [one], ["yes", "no"]))
    return found


# ---- names and kinds

def name_only(scene, rng):
    """What is it? Where all things in the image are of one name."""
    if len(scene.groups) != 1 or len(scene.known) != len(scene.objects):
        return None
    group, thing = scene.groups[0], scene.groups[0][0]["thing"]
    several = len(group) > 1
    return Question(("query", "cat", "categoryThis"), wordings_make("these" if several else "this"),
                    thing.plural if several else thing.name,
                    thing.de_plural if several else thing.de, group,
                    [t.plural if several else t.name for t in scene.things], "object",
                    f"It is {a(thing.name)}." if not several else f"They are {thing.plural}.")


def name_of_kind(scene, rng):
    """Which animal is in the picture?"""
    kinds = [k for k, groups in sorted(scene.kinds.items()) if len(groups) == 1 and
             len(groups[0]) == 1 and k not in ("food", "vegetable") and k not in
             doubtful_kinds(scene)]
    if not kinds or len(scene.known) != len(scene.objects):
        return None
    kind = rng.choice(kinds)
    one = scene.kinds[kind][0][0]
    return Question(("query", "cat", "categoryName"),
                    wordings_make("name_kind", k=KindWords(kind)), one["thing"].name,
                    one["thing"].de, [one], None, kind)


def doubtful_kinds(scene):
    """Kinds that something else in the image could be taken for."""
    table = {t.id: t for t in scene.things}
    return {kind for one in scene.known for name in one["thing"].near
            for kind in table[name].kinds() if kind not in one["thing"].kinds()}


def away(one, sides):
    """Whether it is clearly not on all of these sides."""
    return any((one[DIRECTIONS[name][0]] - 0.5) * DIRECTIONS[name][1] <= -0.04 for name in sides)


def alone_on_side(scene):
    """(side or corner, object): the only one there, and clearly there."""
    cases = []
    for one in scene.objects:
        sides = side(one)
        others = [other for other in scene.objects if other is not one]
        cases += [(name, one) for name in sides if all(away(o, (name,)) for o in others)]
        if len(sides) == 2 and all(away(other, sides) for other in others):
            cases.append((" ".join(reversed(sides)), one))
        if where(one) == "middle" and others and all(side(other) for other in others):
            cases.append(("middle", one))
    return cases


def side_words(name, rng):
    if name in CORNERS:
        return CORNERS[name]
    return rng.choice(SIDE_WORDS[name][0]), SIDE_WORDS[name][1]


def name_on_side(scene, rng):
    """What is on the left? In the top left? What the model does not know has no name."""
    cases = alone_on_side(scene)
    if not cases:
        return None
    name, one = rng.choice(cases)
    english, german = side_words(name, rng)
    thing = one["thing"]
    return Question(("query", "rel", "placeName" if thing else "unknownThing"),
                    wordings_make("name_side", c=english, d=german),
                    thing.name if thing else DON_T_KNOW, thing.de if thing else DON_T_KNOW_DE,
                    [one], None, "object")


def name_of_kind_on_side(scene, rng):
    """Which animal is on the left? Of that kind, one alone is."""
    doubt = doubtful_kinds(scene)
    cases = []
    for kind, groups in sorted(scene.kinds.items()):
        ones = [one for group in groups for one in group]
        if kind in ("food", "vegetable") or kind in doubt or len(ones) < 2:
            continue
        for one in ones:
            cases += [(kind, name, one) for name in side(one)
                      if name not in {n for o in ones if o is not one for n in side(o)} and
                      all(side(o) for o in ones)]
    if not cases:
        return None
    kind, name, one = rng.choice(cases)
    english, german = side_words(name, rng)
    return Question(("query", "rel", "placeName"),
                    wordings_make("name_kind_side", k=KindWords(kind), c=english, d=german),
                    one["thing"].name, one["thing"].de, [one], None, kind)


def name_beside(scene, rng):
    """What is next to B? Where there are two things."""
    if len(scene.objects) != 2 or len(scene.single) != 2:
        return None
    one, other = rng.sample(scene.single, 2)
    return Question(("query", "rel", "relName"), wordings_make("beside", y=Words(other["thing"])),
                    one["thing"].name, one["thing"].de, [one, other], None, "object")


def nothing_on_side(scene, rng):
    """What is on the left, where nothing is?"""
    empty = [name for name, start in (("left", "x"), ("top", "y"))
             if all(one[start] > 0.5 * scene.size for one in scene.objects)]
    empty += [name for name, (start, length) in (("right", ("x", "w")), ("bottom", ("y", "h")))
              if all(one[start] + one[length] < 0.5 * scene.size for one in scene.objects)]
    if not empty or rng.random() > 0.3:
        return None
    name = rng.choice(sorted(empty))
    return Question(("query", "rel", "placeNothing"),
                    wordings_make("name_side", c=rng.choice(SIDE_WORDS[name][0]),
                                  d=SIDE_WORDS[name][1]), "nothing", "nichts", [], None, "object")


def name_of_colour(scene, rng):
    """What is the red thing?"""
    colours = [one["colour"] for one in scene.objects]
    if None in colours or len(scene.known) != len(scene.objects) or len(scene.objects) < 2:
        return None
    ones = [one for one in scene.objects if colours.count(one["colour"]) == 1]
    if not ones:
        return None
    one = rng.choice(ones)
    return Question(("query", "attr", "colorName"),
                    wordings_make("name_colour", c=one["colour"], d=COLOURS[one["colour"]][0]),
                    one["thing"].name, one["thing"].de, [one], None, "object")


def kind_query(scene, rng):
    """What kind of thing is the A?"""
    ones = [one for one in scene.single if one["thing"].kind]
    if not ones:
        return None
    one = rng.choice(ones)
    kind = one["thing"].kind
    return Question(("query", "cat", "kindOf"), wordings_make("kind_of", x=Words(one["thing"])),
                    kind_answer(kind), kind_answer_de(kind), [one],
                    [kind_answer(k) for k in KINDS], "kind")


def related_kinds(thing):
    return {k for k in KINDS if k in thing.kinds() or KINDS[k][5] in thing.kinds()}


def kind_choose(scene, rng):
    """Is it an animal or a plant?"""
    if len(scene.objects) != 1 or not scene.known or not scene.known[0]["thing"].kind:
        return None
    one = scene.known[0]
    kind = rng.choice(one["thing"].kinds())
    doubt = doubtful_kinds(scene) | related_kinds(one["thing"])
    pair = [kind, rng.choice([k for k in KINDS if k not in doubt])]
    rng.shuffle(pair)
    return Question(("choose", "cat", "kindChoose"),
                    wordings_make("choose_kind", k=KindWords(pair[0]), m=KindWords(pair[1])),
                    kind_answer(kind), kind_answer_de(kind), [one], [kind_answer(k) for k in pair])


# ---- colours

def coloured(scene):
    return [one for one in scene.single if one["colour"]]


def colour_query(scene, rng):
    ones = [one for one in coloured(scene) if colour_accept(scene, one["colour"], rng)]
    if not ones:
        return None
    one = rng.choice(ones)
    return Question(("query", "attr", "color"), wordings_make("colour", x=Words(one["thing"])),
                    one["colour"], COLOURS[one["colour"]][0], [one], sorted(COLOURS), "color",
                    f"The {name_of(one)} is {one['colour']}.")


def colour_on_side(scene, rng):
    """What color is the thing on the left?"""
    cases = [case for case in alone_on_side(scene) if case[1]["colour"] and
             colour_accept(scene, case[1]["colour"], rng)]
    if not cases:
        return None
    name, one = rng.choice(cases)
    english, german = side_words(name, rng)
    return Question(("query", "attr", "color"), wordings_make("colour_side", c=english, d=german),
                    one["colour"], COLOURS[one["colour"]][0], [one], sorted(COLOURS), "color")


def other_colour(scene, colour, rng):
    """A wrong colour; often that of something else in the image."""
    seen = [one["colour"] for one in scene.objects] + [scene.background["colour"]]
    near = sorted({c for c in seen if c and c != colour})
    if near and rng.random() < 0.4:
        return rng.choice(near)
    return rng.choice([c for c in sorted(COLOURS) if c != colour])


def verify_colour(scene, rng):
    ones = coloured(scene)
    if not ones:
        return None
    one, answer = rng.choice(ones), coin(rng)
    asked = one["colour"] if answer == "yes" else other_colour(scene, one["colour"], rng)
    return Question(("verify", "attr", "verifyColor"),
                    wordings_make("colour_verify", x=Words(one["thing"]), c=asked,
                                  d=COLOURS[asked][0]), answer, YES_DE[answer], [one],
                    ["yes", "no"])


def choose_colour(scene, rng):
    ones = [one for one in coloured(scene) if colour_accept(scene, one["colour"], rng)]
    if not ones:
        return None
    one = rng.choice(ones)
    pair = [one["colour"], other_colour(scene, one["colour"], rng)]
    rng.shuffle(pair)
    return Question(("choose", "attr", "chooseColor"),
                    wordings_make("colour_choose", x=Words(one["thing"]), c=" or ".join(pair),
                                  d=" oder ".join(COLOURS[c][0] for c in pair)), one["colour"],
                    COLOURS[one["colour"]][0], [one], pair)


# ---- the background

def background_colour(scene, rng):
    colour = scene.background["colour"]
    if not colour:
        return None
    return Question(("query", "global", "backgroundColor"), wordings_make("back_colour"), colour,
                    COLOURS[colour][0], [], sorted(COLOURS), "background",
                    f"The background is {colour}.")


def background_verify(scene, rng):
    colour = scene.background["colour"]
    if not colour:
        return None
    answer = coin(rng)
    asked = Phrase(colour if answer == "yes" else other_colour(scene, colour, rng))
    return Question(("verify", "global", "backgroundVerify"),
                    wordings_make("back_verify", c=asked, d=COLOURS[asked][0]), answer,
                    YES_DE[answer], [], ["yes", "no"])


class Phrase(str):
    """A word that knows its article."""

    __slots__ = ()

    @property
    def a(self):
        return a(str(self))


def background_pattern(scene, rng):
    pattern = scene.background["pattern"]
    if pattern not in PATTERNS or (pattern == "plain" and rng.random() > 0.34):
        return None
    return Question(("query", "global", "backgroundPattern"), wordings_make("back_pattern"),
                    pattern, PATTERNS[pattern], [], sorted(PATTERNS), "pattern")


def pattern_verify(scene, rng):
    pattern = scene.background["pattern"]
    if pattern not in PATTERNS or pattern == "plain":
        return None
    answer = coin(rng)
    asked = pattern if answer == "yes" else \
        rng.choice([p for p in sorted(PATTERNS) if p not in (pattern, "plain")])
    return Question(("verify", "global", "patternVerify"),
                    wordings_make("back_pattern_verify", c=asked, d=PATTERNS[asked]), answer,
                    YES_DE[answer], [], ["yes", "no"])


# ---- how many

def countable(thing):
    """One image of it shows one thing that has a singular."""
    return thing.gender != "p" and thing.id not in SEVERAL and \
        not (thing.name == thing.plural and thing.name.endswith("s"))


def count_thing(scene, rng):
    """Numbers from 0 to 4; those that scenes have oftener are asked after less often."""
    groups = [group for group in scene.groups if countable(group[0]["thing"])]
    if not groups:
        return None
    group = max(groups, key=len)
    number = len(group)
    if number == 1:
        if rng.random() < 0.12:
            thing = scene.absent_thing(rng, group[0])
            return Question(("query", "obj", "count"), wordings_make("count", x=Words(thing)), "0",
                            "0", [], list("01234"), "number", f"There is no {thing.name}.")
        if rng.random() > 0.25:
            return None
        group = rng.choice(groups)
    return Question(("query", "obj", "count"),
                    wordings_make("count", x=Words(group[0]["thing"])), str(number), str(number),
                    group, list("01234"), "number")


def count_kind(scene, rng):
    """How many animals? Only where nothing could be taken for one."""
    doubt = doubtful_kinds(scene)
    cases = [(kind, sum(len(group) for group in groups))
             for kind, groups in sorted(scene.kinds.items())
             if all(countable(group[0]["thing"]) for group in groups) and KINDS[kind][1] and
             KINDS[kind][4] and kind not in doubt]
    cases = [case for case in cases if case[1] > 1 or rng.random() < 0.3]
    if not cases or len(scene.known) != len(scene.objects):
        return None
    kind, number = rng.choice(cases)
    words = KindWords(kind)
    return Question(("query", "obj", "countKind"), wordings_make("count_kind", k=words), str(number),
                    str(number), [one for group in scene.kinds[kind] for one in group],
                    list("01234"), "number")


def count_all(scene, rng):
    number = len(scene.objects)
    if number == 0 or rng.random() > {1: 0.4, 2: 0.5, 3: 0.8, 4: 0.8}[number]:
        return None
    return Question(("query", "obj", "countAll"), wordings_make("count_all"), str(number),
                    str(number), [], list("01234"), "number")


def count_verify(scene, rng):
    """Are there three cats?"""
    groups = [group for group in scene.groups if len(group) > 1 and countable(group[0]["thing"])]
    if not groups:
        return None
    group, answer = rng.choice(groups), coin(rng)
    number = len(group)
    if answer == "no":
        number = rng.choice([n for n in (2, 3, 4) if n != number])
    return Question(("verify", "obj", "countVerify"),
                    wordings_make("count_verify", x=Words(group[0]["thing"]), c=NUMBERS[number],
                                  d=NUMBERS_DE[number]), answer, YES_DE[answer], group,
                    ["yes", "no"])


def count_several(scene, rng):
    """Is there more than one cat?"""
    answer = coin(rng)
    groups = [group for group in scene.groups if countable(group[0]["thing"]) and
              (len(group) > 1) == (answer == "yes")]
    if not groups or len(scene.objects) < 2 or (answer == "no" and rng.random() > 0.4):
        return None
    group = rng.choice(groups)
    return Question(("verify", "obj", "countSeveral"),
                    wordings_make("count_several", x=Words(group[0]["thing"])), answer,
                    YES_DE[answer], group[:1], ["yes", "no"])
