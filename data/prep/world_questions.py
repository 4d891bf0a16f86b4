"""Questions about a scene, from its graph: in the ways of GQA, in English and German.

Every question type draws its answer first (yes or no; how many; left, right, above or below) and
then looks for a question that has it, so that no answer is much more common than the others. What a
person could see otherwise is not asked: places are asked only where they are clear, colours only
where the table has one, and nothing is denied that is `near` something in the image.
"""

from world_facts import (
    RELATION_ANSWERS_DE,
    RELATIONS,
    SIDES,
    YES_DE,
    Question,
    coin,
    colour_accept,
    name_of,
    related_pairs,
    relation,
    select,
    side,
)
from world_names import (
    COLOURS,
    KINDS,
    PATTERNS,
    a,
    count_of,
    count_of_de,
    der,
    ein,
    kind_answer,
    kind_answer_de,
    kind_ein,
    sentence,
)

# ---- existence

def exist_thing(scene, rng, answer, one):
    """Is there an A? `one` is in the scene; asked after if the answer is yes."""
    answer = answer or coin(rng)
    yes = answer == "yes"
    group = [one] if yes else []
    thing = one["thing"] if yes else scene.absent_thing(rng, one)
    program = [("select", f"{thing.name} ({group[0]['id'] if yes else '-'})", []),
               ("exist", "?", [0])]
    return Question(
        ("verify", "obj", "exist"),
        ([f"Is there {a(thing.name)} in the picture?", f"Can you see {a(thing.name)}?"], answer,
         f"Yes, there is {a(thing.name)}." if yes else f"No, there is no {thing.name}."),
        ([f"Ist {ein(thing)} im Bild?", f"Sieht man {ein(thing, 'acc')}?"], YES_DE[answer],
         f"Ja, {ein(thing)} ist im Bild." if yes else f"Nein, k{ein(thing)} ist im Bild."),
        program, None, group, ["yes", "no"])


def exist_kind(scene, rng):
    if not scene.kinds or not scene.absent_kinds:
        return None
    answer = coin(rng)
    kind = rng.choice(sorted(scene.kinds) if answer == "yes" else scene.absent_kinds)
    group = scene.kinds[kind][0] if answer == "yes" else []
    article = KINDS[kind][0]
    none = article.replace("something", "nothing") if kind == "food" else \
        "no " + article.split(" ", 1)[1]
    none_de = "nichts zu essen" if kind == "food" else "k" + kind_ein(kind)
    if kind == "vegetable":
        none_de = "kein Gemüse"
    ein_de = "Gemüse" if kind == "vegetable" else kind_ein(kind)
    ein_de_acc = "Gemüse" if kind == "vegetable" else kind_ein(kind, "acc")
    return Question(
        ("verify", "cat", "existKind"),
        ([f"Is there {article} in the picture?", f"Can you see {article}?"], answer,
         f"Yes, there is {article}." if answer == "yes" else f"No, there is {none}."),
        ([f"Ist {ein_de} im Bild?", f"Sieht man {ein_de_acc}?"], YES_DE[answer],
         f"Ja, {ein_de} ist im Bild." if answer == "yes" else f"Nein, {none_de} ist im Bild."),
        [("select", f"{kind_answer(kind)} ({group[0]['id'] if group else '-'})", []),
         ("exist", "?", [0])], None, group[:1], ["yes", "no"])


def exist_both(scene, rng):
    """Is there an A and a B?"""
    if len(scene.groups) < 2:
        return None
    answer = coin(rng)
    if answer == "yes":
        pair = [group[0]["thing"] for group in rng.sample(scene.groups, 2)]
    elif rng.random() < 0.8:
        one = rng.choice(scene.groups)[0]
        pair = [one["thing"], scene.absent_thing(rng, one)]
        rng.shuffle(pair)
    else:
        pair = rng.sample(scene.absent, 2)
    return logical_exist(scene, pair, "and", answer)


def exist_either(scene, rng):
    """Is there either an A or a B?"""
    answer = coin(rng)
    if answer == "no":
        pair = rng.sample(scene.absent, 2)
    else:
        one = rng.choice(scene.groups)[0]
        pair = [one["thing"], scene.absent_thing(rng, one)]
        rng.shuffle(pair)
    return logical_exist(scene, pair, "or", answer)


def logical_exist(scene, pair, word, answer):
    first, second = pair
    present = [scene.present[t.id][0] for t in pair if t.id in scene.present]
    argument = [f"{t.name} ({scene.present[t.id][0]['id'] if t.id in scene.present else '-'})"
                for t in pair]
    yes = answer == "yes"
    if word == "and":
        en = [f"Are there both {a(first.name)} and {a(second.name)}?",
              f"Is there {a(first.name)} and also {a(second.name)}?"]
        de = [f"Sind {ein(first)} und {ein(second)} im Bild?",
              f"Sieht man {ein(first, 'acc')} und auch {ein(second, 'acc')}?"]
        full = (f"Yes, there are {a(first.name)} and {a(second.name)}." if yes else
                f"No, there are not both {a(first.name)} and {a(second.name)}.")
        full_de = "Ja, beides ist im Bild." if yes else "Nein, nicht beides ist im Bild."
    else:
        en = [f"Is there either {a(first.name)} or {a(second.name)}?",
              f"Can you see {a(first.name)} or {a(second.name)}?"]
        de = [f"Ist entweder {ein(first)} oder {ein(second)} im Bild?",
              f"Sieht man entweder {ein(first, 'acc')} oder {ein(second, 'acc')}?"]
        full = (f"Yes, there is {a(name_of(present[0]))}." if yes else
                f"No, there is neither {a(first.name)} nor {a(second.name)}.")
        full_de = (f"Ja, {ein(present[0]['thing'])} ist im Bild." if yes else
                   f"Nein, weder {ein(first)} noch {ein(second)} ist im Bild.")
    return Question(("logical", "obj", "existAnd" if word == "and" else "existOr"),
                    (en, answer, full), (de, YES_DE[answer], full_de),
                    [("select", argument[0], []), ("exist", "?", [0]),
                     ("select", argument[1], []), ("exist", "?", [2]), (word, "", [1, 3])],
                    None, present, ["yes", "no"])


def choose_thing(scene, rng):
    one = rng.choice(scene.groups)[0]
    pair = [one["thing"], scene.absent_thing(rng, one)]
    rng.shuffle(pair)
    first, second = pair
    thing = one["thing"]
    return Question(
        ("choose", "obj", "existChoose"),
        ([f"Which is in the picture, {a(first.name)} or {a(second.name)}?",
          f"What do you see, {a(first.name)} or {a(second.name)}?"], thing.name,
         f"There is {a(thing.name)}."),
        ([f"Was ist im Bild, {ein(first)} oder {ein(second)}?",
          f"Was sieht man, {ein(first, 'acc')} oder {ein(second, 'acc')}?"], thing.de,
         f"Im Bild ist {ein(thing)}."),
        [("select", f"{thing.name} ({one['id']})", []),
         ("choose name", f"{first.name}|{second.name}", [0])],
        None, [one], [first.name, second.name], [exist_thing(scene, rng, "yes", one)])


# ---- names and kinds

def name_only(scene, rng):
    """What is it? Where all things in the image are of one name."""
    if len(scene.groups) != 1:
        return None
    group, thing = scene.groups[0], scene.groups[0][0]["thing"]
    if len(group) == 1:
        en = [rng.choice(("What is this?", "What is in the picture?")),
              "What does the picture show?"]
        de = [rng.choice(("Was ist das?", "Was ist im Bild?")), "Was zeigt das Bild?"]
        full, full_de = f"It is {a(thing.name)}.", f"Das ist {ein(thing)}."
    else:
        en = ["What are these things?", "What does the picture show several of?"]
        de = ["Was für Dinge sind das?", "Wovon zeigt das Bild mehrere?"]
        full = f"They are {thing.plural}."
        full_de = f"Das sind {thing.de_plural}."
    several = len(group) > 1
    return Question(("query", "cat", "categoryThis"),
                    (en, thing.plural if several else thing.name, full),
                    (de, thing.de_plural if several else thing.de, full_de),
                    [select(group[0]), ("query", "name", [0])], "object", group,
                    [t.plural if several else t.name for t in scene.things],
                    [exist_thing(scene, rng, "yes", group[0])])


def name_of_kind(scene, rng):
    """Which animal is in the picture?"""
    kinds = [k for k, groups in sorted(scene.kinds.items()) if len(groups) == 1 and k != "food"
             and k != "vegetable" and k not in doubtful_kinds(scene)]
    if not kinds:
        return None
    kind = rng.choice(kinds)
    group = scene.kinds[kind][0]
    thing = group[0]["thing"]
    if len(group) > 1:
        return None
    word = KINDS[kind][0].split(" ", 1)[1]
    which = {"m": "Welcher", "f": "Welche", "n": "Welches"}[KINDS[kind][3]]
    return Question(
        ("query", "cat", "categoryName"),
        ([f"Which {word} is in the picture?", f"What {word} do you see?"], thing.name,
         f"The {word} is {a(thing.name)}."),
        ([f"{which} {KINDS[kind][2]} ist im Bild?",
          f"Was für {kind_ein(kind)} ist im Bild?"], thing.de, f"Im Bild ist {ein(thing)}."),
        [("select", f"{kind_answer(kind)} ({group[0]['id']})", []), ("query", "name", [0])],
        kind, group, None, [exist_thing(scene, rng, "yes", group[0])])


def doubtful_kinds(scene):
    """Kinds that something else in the image could be taken for."""
    table = {t.id: t for t in scene.things}
    return {kind for one in scene.objects for name in one["thing"].near
            for kind in table[name].kinds() if kind not in one["thing"].kinds()}


def name_on_side(scene, rng):
    """What is on the left?"""
    cases = []
    for name, axis, sign in (("left", "cx", -1), ("right", "cx", 1),
                             ("top", "cy", -1), ("bottom", "cy", 1)):
        there = [o for o in scene.objects if (o[axis] - 0.5) * sign > -0.04]
        if len(there) == 1 and name in side(there[0]) and len(scene.objects) > 1:
            cases.append((name, there[0]))
    if not cases:
        return None
    name, one = rng.choice(cases)
    thing = one["thing"]
    where, where_de = SIDES[name]
    return Question(
        ("query", "rel", "placeName"),
        ([f"What is {where}?", f"Which thing is {where} of the picture?"], thing.name,
         f"{sentence(where)} is {a(thing.name)}."),
        ([f"Was ist {where_de} im Bild?", f"Welches Ding ist {where_de}?"], thing.de,
         f"{sentence(where_de)} ist {ein(thing)}."),
        [("select", "scene", []), ("filter hposition" if name in ("left", "right") else
                                   "filter vposition", name, [0]), ("query", "name", [1])],
        "object", [one], None, [exist_thing(scene, rng, "yes", one)])


def name_of_colour(scene, rng):
    """What is the red thing?"""
    colours = [one["colour"] for one in scene.objects]
    if None in colours or len(scene.objects) < 2:
        return None
    ones = [one for one in scene.objects if colours.count(one["colour"]) == 1]
    if not ones:
        return None
    one = rng.choice(ones)
    thing = one["thing"]
    colour, colour_de = one["colour"], COLOURS[one["colour"]][0]
    return Question(
        ("query", "attr", "colourName"),
        ([f"Which thing is {colour}?", f"What in the picture is {colour}?"], thing.name,
         f"The {thing.name} is {colour}."),
        ([f"Welches Ding ist {colour_de}?", f"Was im Bild ist {colour_de}?"], thing.de,
         f"{sentence(der(thing))} ist {colour_de}."),
        [("select", "scene", []), ("filter color", colour, [0]), ("query", "name", [1])],
        "object", [one], None, [verify_colour(scene, rng, one, "yes")])


def kind_query(scene, rng):
    """What kind of thing is the A?"""
    ones = [group[0] for group in scene.groups if group[0]["thing"].kind]
    if not ones:
        return None
    one = rng.choice(ones)
    thing = one["thing"]
    kind = thing.kind
    group = scene.present[thing.id]
    the, the_de, verb, verb_de = f"the {thing.name}", der(thing), "is", "ist"
    if len(group) > 1:
        the, the_de, verb, verb_de = f"the {thing.plural}", f"die {thing.de_plural}", "are", "sind"
    answer, answer_de = kind_answer(kind), kind_answer_de(kind)
    full = {"food": "food"}.get(kind, KINDS[kind][0] if len(group) == 1 else KINDS[kind][1])
    if len(group) == 1 or kind in ("food", "vegetable"):
        full_de = {"food": "etwas zu essen", "vegetable": "Gemüse"}.get(kind, kind_ein(kind))
    else:
        full_de = KINDS[kind][4]
    return Question(
        ("query", "cat", "kindOf"),
        ([f"What kind of thing {verb} {the}?", f"What sort of thing {verb} {the}?"], answer,
         f"{sentence(the)} {verb} {full}."),
        ([f"Was für eine Art Ding {verb_de} {the_de}?", f"Zu welcher Art gehören die Dinge: "
          f"{the_de}?" if len(group) > 1 else f"Zu welcher Art gehört {the_de}?"], answer_de,
         f"{sentence(the_de)} {verb_de} {full_de}."),
        [select(one), ("query", "type", [0])], "kind", [one],
        [kind_answer(k) for k in KINDS])


def kind_choose(scene, rng):
    """Is the A a bird or a fruit?"""
    ones = [one for one in scene.single if one["thing"].kind]
    if not ones:
        return None
    one = rng.choice(ones)
    thing, kind = one["thing"], one["thing"].kind
    related = {k for k in KINDS if k in thing.kinds() or KINDS[k][5] in thing.kinds()}
    other = rng.choice([k for k in KINDS if k not in related])
    pair = [kind, other]
    rng.shuffle(pair)
    return Question(
        ("choose", "cat", "kindChoose"),
        ([f"Is the {thing.name} {KINDS[pair[0]][0]} or {KINDS[pair[1]][0]}?",
          f"What is the {thing.name}, {KINDS[pair[0]][0]} or {KINDS[pair[1]][0]}?"],
         kind_answer(kind), f"The {thing.name} is {KINDS[kind][0]}."),
        ([f"Ist {der(thing)} {kind_ein(pair[0])} oder {kind_ein(pair[1])}?",
          f"Was ist {der(thing)}, {kind_ein(pair[0])} oder {kind_ein(pair[1])}?"],
         kind_answer_de(kind), f"{sentence(der(thing))} ist {kind_ein(kind)}."),
        [select(one), ("choose type", f"{kind_answer(pair[0])}|{kind_answer(pair[1])}", [0])],
        None, [one], [kind_answer(k) for k in pair])


# ---- colours

def coloured(scene):
    return [one for one in scene.single if one["colour"]]


def colour_query(scene, rng):
    ones = [one for one in coloured(scene) if colour_accept(scene, one["colour"], rng)]
    if not ones:
        return None
    one = rng.choice(ones)
    thing, colour = one["thing"], one["colour"]
    return Question(
        ("query", "attr", "color"),
        ([f"What colour is the {thing.name}?", f"Which colour does the {thing.name} have?"], colour,
         f"The {thing.name} is {colour}."),
        ([f"Welche Farbe hat {der(thing)}?", f"In welcher Farbe ist {der(thing)} zu sehen?"],
         COLOURS[colour][0], f"{sentence(der(thing))} ist {COLOURS[colour][0]}."),
        [select(one), ("query", "color", [0])], "color", [one], sorted(COLOURS),
        [verify_colour(scene, rng, one, "yes")])


def verify_colour(scene, rng, one=None, answer=None):
    if one is None:
        ones = coloured(scene)
        if not ones:
            return None
        one = rng.choice(ones)
    answer = answer or coin(rng)
    thing, colour = one["thing"], one["colour"]
    asked = colour if answer == "yes" else \
        rng.choice([c for c in sorted(COLOURS) if c != colour])
    full, full_de = ("Yes", "Ja") if answer == "yes" else ("No", "Nein")
    return Question(
        ("verify", "attr", "verifyColor"),
        ([f"Is the {thing.name} {asked}?", f"Does the {thing.name} have the colour {asked}?"],
         answer, f"{full}, the {thing.name} is {colour}."),
        ([f"Ist {der(thing)} {COLOURS[asked][0]}?",
          f"Hat {der(thing)} die Farbe {COLOURS[asked][0].capitalize()}?"], YES_DE[answer],
         f"{full_de}, {der(thing)} ist {COLOURS[colour][0]}."),
        [select(one), ("verify color", asked, [0])], None, [one], ["yes", "no"])


def choose_colour(scene, rng):
    ones = [one for one in coloured(scene) if colour_accept(scene, one["colour"], rng)]
    if not ones:
        return None
    one = rng.choice(ones)
    thing, colour = one["thing"], one["colour"]
    pair = [colour, rng.choice([c for c in sorted(COLOURS) if c != colour])]
    rng.shuffle(pair)
    pair_de = [COLOURS[c][0] for c in pair]
    return Question(
        ("choose", "attr", "chooseColor"),
        ([f"Is the {thing.name} {pair[0]} or {pair[1]}?",
          f"Which colour is the {thing.name}, {pair[0]} or {pair[1]}?"], colour,
         f"The {thing.name} is {colour}."),
        ([f"Ist {der(thing)} {pair_de[0]} oder {pair_de[1]}?",
          f"Welche Farbe hat {der(thing)}, {pair_de[0]} oder {pair_de[1]}?"], COLOURS[colour][0],
         f"{sentence(der(thing))} ist {COLOURS[colour][0]}."),
        [select(one), ("choose color", f"{pair[0]}|{pair[1]}", [0])], None, [one], pair,
        [verify_colour(scene, rng, one, "yes")])


def same_colour(scene, rng):
    answer = coin(rng)
    ones = coloured(scene)
    pairs = [(x, y) for i, x in enumerate(ones) for y in ones[:i]
             if (x["colour"] == y["colour"]) == (answer == "yes")]
    if not pairs or (answer == "no" and rng.random() > 0.2):
        return None
    one, other = rng.sample(rng.choice(pairs), 2)
    first, second = one["thing"], other["thing"]
    full = (f"Yes, both are {one['colour']}." if answer == "yes" else
            f"No, the {first.name} is {one['colour']} and the {second.name} is {other['colour']}.")
    full_de = (f"Ja, beide sind {COLOURS[one['colour']][0]}." if answer == "yes" else
               f"Nein, {der(first)} ist {COLOURS[one['colour']][0]} und {der(second)} ist "
               f"{COLOURS[other['colour']][0]}.")
    return Question(
        ("compare", "attr", "twoSame"),
        ([f"Do the {first.name} and the {second.name} have the same colour?",
          f"Is the {first.name} of the same colour as the {second.name}?"], answer, full),
        ([f"Haben {der(first)} und {der(second)} die gleiche Farbe?",
          f"Hat {der(first)} die gleiche Farbe wie {der(second)}?"], YES_DE[answer], full_de),
        [select(one), select(other), ("same color", "", [0, 1])], None, [one, other],
        ["yes", "no"])


def colours_both(scene, rng):
    """Is the A red and the B blue?"""
    ones = coloured(scene)
    if len(ones) < 2:
        return None
    answer = coin(rng)
    pair = rng.sample(ones, 2)
    asked = [one["colour"] for one in pair]
    if answer == "no":
        wrong = rng.randrange(2)
        asked[wrong] = rng.choice([c for c in sorted(COLOURS) if c != asked[wrong]])
    first, second = (one["thing"] for one in pair)
    real = [one["colour"] for one in pair]
    full, full_de = ("Yes", "Ja") if answer == "yes" else ("No", "Nein")
    return Question(
        ("logical", "attr", "verifyAttrAnd"),
        ([f"Is the {first.name} {asked[0]} and the {second.name} {asked[1]}?",
          f"Are the {first.name} {asked[0]} and the {second.name} {asked[1]}?"], answer,
         f"{full}, the {first.name} is {real[0]} and the {second.name} is {real[1]}."),
        ([f"Ist {der(first)} {COLOURS[asked[0]][0]} und {der(second)} {COLOURS[asked[1]][0]}?",
          (f"Sind {der(first)} {COLOURS[asked[0]][0]} und {der(second)} "
           f"{COLOURS[asked[1]][0]}?")], YES_DE[answer],
         (f"{full_de}, {der(first)} ist {COLOURS[real[0]][0]} und {der(second)} ist "
          f"{COLOURS[real[1]][0]}.")),
        [select(pair[0]), ("verify color", asked[0], [0]), select(pair[1]),
         ("verify color", asked[1], [2]), ("and", "", [1, 3])], None, pair, ["yes", "no"])


# ---- the background

def background_colour(scene, rng):
    colour = scene.background["colour"]
    if not colour:
        return None
    return Question(
        ("query", "global", "backgroundColor"),
        (["What colour is the background?", "Which colour is behind the things?"], colour,
         f"The background is {colour}."),
        (["Welche Farbe hat der Hintergrund?", "Welche Farbe ist hinter den Dingen?"],
         COLOURS[colour][0], f"Der Hintergrund ist {COLOURS[colour][0]}."),
        [("select", "scene", []), ("query", "color", [0])], "background", [], sorted(COLOURS))


def background_pattern(scene, rng):
    pattern = scene.background["pattern"]
    if pattern not in PATTERNS or (pattern == "plain" and rng.random() > 0.34):
        return None
    full = "The background is plain." if pattern == "plain" else \
        f"The background has {pattern}."
    full_de = "Der Hintergrund ist einfarbig." if pattern == "plain" else \
        f"Der Hintergrund hat {PATTERNS[pattern]}."
    return Question(
        ("query", "global", "backgroundPattern"),
        (["What pattern does the background have?", "Which pattern is in the background?"],
         pattern, full),
        (["Welches Muster hat der Hintergrund?", "Was für ein Muster ist im Hintergrund?"],
         PATTERNS[pattern], full_de),
        [("select", "scene", []), ("query", "pattern", [0])], "pattern", [], sorted(PATTERNS))


# ---- how many

def count_thing(scene, rng):
    """Numbers 1 to 4 are as frequent as each other, given how often scenes have them (PLANS)."""
    group = max(scene.groups, key=len)
    number = len(group)
    if rng.random() > {1: 0.17, 2: 0.85, 3: 0.92, 4: 1}[number]:
        return None
    if number == 1:
        group = rng.choice(scene.groups)
    thing = group[0]["thing"]
    plural = count_of_de(number, thing)
    return Question(
        ("query", "obj", "count"),
        ([f"How many {thing.plural} are there?", f"How many {thing.plural} do you see?"],
         str(number), f"There {'is' if number == 1 else 'are'} {count_of(number, thing)}."),
        ([f"Wie viele {thing.de_plural} sind im Bild?", f"Wie viele {thing.de_plural} sieht man?"],
         str(number), f"Im Bild {'ist' if number == 1 else 'sind'} {plural}."),
        [("select", f"{thing.name} ({','.join(o['id'] for o in group)})", []),
         ("count", "", [0])], "number", group, list("1234"))


def count_all(scene, rng):
    number = len(scene.objects)
    if rng.random() > {1: 1, 2: 0.34, 3: 0.5, 4: 0.35}[number]:
        return None
    word = ("one thing", "two things", "three things", "four things")[number - 1]
    word_de = ("ein Ding", "zwei Dinge", "drei Dinge", "vier Dinge")[number - 1]
    return Question(
        ("query", "obj", "countAll"),
        (["How many things are in the picture?", "How many things do you see?"], str(number),
         f"There {'is' if number == 1 else 'are'} {word}."),
        (["Wie viele Dinge sind im Bild?", "Wie viele Dinge sieht man?"], str(number),
         f"Im Bild {'ist' if number == 1 else 'sind'} {word_de}."),
        [("select", "scene", []), ("count", "", [0])], "number", [], list("1234"))


# ---- where

def place_query(scene, rng):
    """Where is A, seen from B?"""
    pairs = related_pairs(scene)
    if not pairs:
        return None
    one, other, where = rng.choice(pairs)
    first, second = one["thing"], other["thing"]
    english, german, _ = RELATIONS[where]
    return Question(
        ("query", "rel", "relPlace"),
        ([f"Where is the {first.name}, seen from the {second.name}?",
          f"In which direction from the {second.name} is the {first.name}?"], where,
         f"The {first.name} is {english} the {second.name}."),
        ([f"Wo ist {der(first)}, von {der(second, 'dat')} aus gesehen?",
          f"In welcher Richtung von {der(second, 'dat')} ist {der(first)}?"],
         RELATION_ANSWERS_DE[where], f"{sentence(der(first))} ist {german} {der(second, 'dat')}."),
        [select(one), select(other), ("query", "relation", [0, 1])], "place", [one, other],
        sorted(RELATIONS), [verify_place(scene, rng, (one, other, where), "yes")])


def verify_place(scene, rng, case=None, answer=None):
    """Is A to the left of B?"""
    if case is None:
        pairs = related_pairs(scene)
        if not pairs:
            return None
        case = rng.choice(pairs)
    one, other, where = case
    answer = answer or coin(rng)
    asked = where if answer == "yes" else RELATIONS[where][2]
    first, second = one["thing"], other["thing"]
    full, full_de = ("Yes", "Ja") if answer == "yes" else ("No", "Nein")
    return Question(
        ("verify", "rel", "relVerify"),
        ([f"Is the {first.name} {RELATIONS[asked][0]} the {second.name}?",
          f"Do you see the {first.name} {RELATIONS[asked][0]} the {second.name}?"], answer,
         f"{full}, the {first.name} is {RELATIONS[where][0]} the {second.name}."),
        ([f"Ist {der(first)} {RELATIONS[asked][1]} {der(second, 'dat')}?",
          f"Sieht man {der(first, 'acc')} {RELATIONS[asked][1]} {der(second, 'dat')}?"],
         YES_DE[answer],
         f"{full_de}, {der(first)} ist {RELATIONS[where][1]} {der(second, 'dat')}."),
        [select(other), ("verify rel", f"{first.name},{RELATIONS[asked][0]},s ({one['id']})", [0])],
        None, [one, other], ["yes", "no"])


def choose_place(scene, rng):
    """Is A to the left or to the right of B?"""
    pairs = related_pairs(scene)
    if not pairs:
        return None
    one, other, where = rng.choice(pairs)
    first, second = one["thing"], other["thing"]
    ways = ["left", "right"] if where in ("left", "right") else ["above", "below"]
    rng.shuffle(ways)
    if ways[0] in ("left", "right"):
        english = f"to the {ways[0]} or to the {ways[1]} of"
        german = " oder ".join(RELATIONS[w][1].split()[0] for w in ways) + " von"
    else:
        english = f"{ways[0]} or {ways[1]}"
        german = " oder ".join(RELATIONS[w][1] for w in ways)
    return Question(
        ("choose", "rel", "relChoose"),
        ([f"Is the {first.name} {english} the {second.name}?",
          f"Do you see the {first.name} {english} the {second.name}?"], where,
         f"The {first.name} is {RELATIONS[where][0]} the {second.name}."),
        ([f"Ist {der(first)} {german} {der(second, 'dat')}?",
          f"Sieht man {der(first, 'acc')} {german} {der(second, 'dat')}?"],
         RELATION_ANSWERS_DE[where],
         f"{sentence(der(first))} ist {RELATIONS[where][1]} {der(second, 'dat')}."),
        [select(other), ("choose rel", f"{first.name},{ways[0]}|{ways[1]},s ({one['id']})", [0])],
        None, [one, other], ways, [verify_place(scene, rng, (one, other, where), "yes")])


def name_by_place(scene, rng):
    """What is to the left of B? One thing alone is, and clearly."""
    cases = []
    for other in scene.single:
        for where, axis, sign in (("left", "cx", -1), ("right", "cx", 1),
                                  ("above", "cy", -1), ("below", "cy", 1)):
            there = [o for o in scene.objects
                     if o is not other and (o[axis] - other[axis]) * sign > 0.08]
            if len(there) == 1 and relation(there[0], other) == where:
                cases.append((there[0], other, where))
    if not cases:
        return None
    one, other, where = rng.choice(cases)
    first, second = one["thing"], other["thing"]
    english, german, _ = RELATIONS[where]
    entails = [exist_thing(scene, rng, "yes", one)]
    if one in scene.single:
        entails.append(verify_place(scene, rng, (one, other, where), "yes"))
    return Question(
        ("query", "rel", "relName"),
        ([f"What is {english} the {second.name}?", f"Which thing is {english} the {second.name}?"],
         first.name, f"{sentence(a(first.name))} is {english} the {second.name}."),
        ([f"Was ist {german} {der(second, 'dat')}?",
          f"Welches Ding ist {german} {der(second, 'dat')}?"], first.de,
         f"{sentence(german)} {der(second, 'dat')} ist {ein(first)}."),
        [select(other), ("relate", f"_,{english},s ({one['id']})", [0]), ("query", "name", [1])],
        "object", [one, other], None, entails)


def side_query(scene, rng):
    """On which side is A?"""
    cases = [(one, where) for one in scene.single for where in side(one)]
    if not cases:
        return None
    one, where = rng.choice(cases)
    thing = one["thing"]
    english, german = SIDES[where]
    if where in ("left", "right"):
        en = [f"On which side of the picture is the {thing.name}, left or right?",
              f"Is the {thing.name} on the left or on the right?"]
        de = [f"Auf welcher Seite ist {der(thing)}, links oder rechts?",
              f"Ist {der(thing)} links oder rechts im Bild?"]
        ways = ["left", "right"]
    else:
        en = [f"Is the {thing.name} at the top or at the bottom of the picture?",
              f"Where is the {thing.name}, at the top or at the bottom?"]
        de = [f"Ist {der(thing)} oben oder unten im Bild?",
              f"Wo ist {der(thing)}, oben oder unten?"]
        ways = ["bottom", "top"]
    return Question(
        ("choose", "attr", "positionChoose"),
        (en, where, f"The {thing.name} is {english}."),
        (de, german, f"{sentence(der(thing))} ist {german}."),
        [select(one), ("choose hposition" if ways[0] == "left" else "choose vposition",
                       "|".join(ways), [0])], None, [one], ways)


# ---- compare

def extent(one):
    return (one["w"] * one["h"]) ** 0.5


def larger_pairs(scene):
    """Pairs of which the first is clearly larger in the image, by area and by longest side."""
    return [(one, other) for one in scene.single for other in scene.single
            if extent(one) > 1.3 * extent(other)
            and max(one["w"], one["h"]) > 1.2 * max(other["w"], other["h"])]


def larger_choose(scene, rng):
    pairs = larger_pairs(scene)
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    smaller = rng.random() < 0.5
    thing = (other if smaller else one)["thing"]
    first, second = rng.sample([one["thing"], other["thing"]], 2)
    word, word_de = ("smaller", "kleiner") if smaller else ("larger", "größer")
    return Question(
        ("compare", "attr", "chooseLarger"),
        ([f"Which looks {word} in the picture, the {first.name} or the {second.name}?",
          f"What is shown {word}, the {first.name} or the {second.name}?"], thing.name,
         f"The {thing.name} looks {word}."),
        ([f"Was ist im Bild {word_de}, {der(first)} oder {der(second)}?",
          f"Was sieht {word_de} aus, {der(first)} oder {der(second)}?"], thing.de,
         f"{sentence(der(thing))} ist im Bild {word_de}."),
        [select(one), select(other), (f"choose {word}", f"{first.name}|{second.name}", [0, 1])],
        None, [one, other], [first.name, second.name])


def larger_verify(scene, rng):
    pairs = larger_pairs(scene)
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    answer = coin(rng)
    first, second = (one, other) if answer == "yes" else (other, one)
    full, full_de = ("Yes", "Ja") if answer == "yes" else ("No", "Nein")
    large = one["thing"]
    return Question(
        ("compare", "attr", "verifyLarger"),
        ([f"Does the {name_of(first)} look larger than the {name_of(second)}?",
          f"Is the {name_of(first)} shown larger than the {name_of(second)}?"], answer,
         f"{full}, the {large.name} looks larger."),
        ([f"Ist {der(first['thing'])} im Bild größer als {der(second['thing'])}?",
          f"Sieht {der(first['thing'])} größer aus als {der(second['thing'])}?"], YES_DE[answer],
         f"{full_de}, {der(large)} ist im Bild größer."),
        [select(first), select(second), ("verify larger", "", [0, 1])], None, [one, other],
        ["yes", "no"])


def same_kind(scene, rng):
    """Are the A and the B both animals?"""
    answer = coin(rng)
    doubt = doubtful_kinds(scene)
    cases = []
    for i, one in enumerate(scene.single):
        for other in scene.single[:i]:
            kinds = [set(o["thing"].kinds()) for o in (one, other)]
            found = (kinds[0] & kinds[1]) if answer == "yes" else (kinds[0] ^ kinds[1]) - doubt
            cases += [(one, other, kind) for kind in sorted(found) if KINDS[kind][4]]
    if not cases or (answer == "no" and rng.random() > 0.2):
        return None
    one, other, kind = rng.choice(cases)
    first, second = one["thing"], other["thing"]
    not_one = first if kind not in first.kinds() else second
    full = (f"Yes, both are {KINDS[kind][1]}." if answer == "yes" else
            f"No, the {not_one.name} is not {KINDS[kind][0]}.")
    full_de = (f"Ja, beide sind {KINDS[kind][4]}." if answer == "yes" else
               f"Nein, {der(not_one)} ist k{kind_ein(kind)}.")
    return Question(
        ("compare", "cat", "sameKind"),
        ([f"Are the {first.name} and the {second.name} both {KINDS[kind][1]}?",
          f"Are both the {first.name} and the {second.name} {KINDS[kind][1]}?"], answer, full),
        ([f"Sind {der(first)} und {der(second)} beide {KINDS[kind][4]}?",
          (f"Gehören {der(first)} und {der(second)} beide zur Art "
           f"{KINDS[kind][2]}?")], YES_DE[answer], full_de),
        [select(one), select(other), ("same type", kind_answer(kind), [0, 1])], None,
        [one, other], ["yes", "no"])


def more_of(scene, rng):
    """Are there more As than Bs?"""
    cases = [(x, y) for x in scene.groups for y in scene.groups if len(x) > len(y)]
    if not cases:
        return None
    many, few = rng.choice(cases)
    answer = coin(rng)
    first, second = (many, few) if answer == "yes" else (few, many)
    first, second, most = first[0]["thing"], second[0]["thing"], many[0]["thing"]
    full, full_de = ("Yes", "Ja") if answer == "yes" else ("No", "Nein")
    return Question(
        ("compare", "obj", "verifyMore"),
        ([f"Are there more {first.plural} than {second.plural}?",
          f"Do you see more {first.plural} than {second.plural}?"], answer,
         f"{full}, there are more {most.plural}."),
        ([f"Sind mehr {first.de_plural} als {second.de_plural} im Bild?",
          f"Sieht man mehr {first.de_plural} als {second.de_plural}?"], YES_DE[answer],
         f"{full_de}, es sind mehr {most.de_plural}."),
        [("select", f"{first.name}", []), ("count", "", [0]), ("select", f"{second.name}", []),
         ("count", "", [2]), ("more", "", [1, 3])], None, many + few, ["yes", "no"])


# What is tried for a scene: counting always stays, then come the harder ones, then the others.
COUNTING = (count_thing, count_all)
HARD = (name_only, name_of_kind, name_on_side, name_by_place, name_of_colour, place_query,
        verify_place, choose_place, colour_query, colour_query, verify_colour, choose_colour,
        colours_both, same_colour, same_kind, more_of, larger_choose, larger_verify)
OTHERS = (exist_kind, exist_both, exist_either, choose_thing, kind_query, kind_choose,
          background_colour, background_pattern, side_query, name_of_kind)
SPARE = (exist_either, choose_thing, choose_thing, exist_either, choose_thing)


def questions_make(scene, number, rng):
    """At most `number` different questions; fewer only where a scene gives no more."""
    asked = set()

    def collect(questions):
        found = []
        for question in questions:
            if question and question.en_wordings[0] not in asked:
                asked.add(question.en_wordings[0])
                found.append(question)
        rng.shuffle(found)
        return found

    groups = rng.sample(scene.groups, min(3, len(scene.groups)))
    counting = collect(make(scene, rng) for make in COUNTING)
    hard = collect(make(scene, rng) for make in HARD)
    # Existence once for each object at most: of one alone there is only one question with a yes.
    others = collect([make(scene, rng) for make in OTHERS] +
                     [exist_thing(scene, rng, None, group[0]) for group in groups])
    spare = collect(make(scene, rng) for make in SPARE)
    chosen = counting + hard[:number * 7 // 10]
    chosen += (others + spare)[:number - len(chosen)]
    rng.shuffle(chosen)
    return chosen[:number]
