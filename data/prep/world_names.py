"""The small world's words: the table of objects, kinds and colours, English and German grammar."""

import os

FOLDER = os.path.dirname(os.path.abspath(__file__))

KINDS = {  # kind: English with article, plural; German noun, gender, plural; what it belongs to
    "animal": ("an animal", "animals", "Tier", "n", "Tiere", None),
    "bird": ("a bird", "birds", "Vogel", "m", "Vögel", "animal"),
    "insect": ("an insect", "insects", "Insekt", "n", "Insekten", "animal"),
    "food": ("something to eat", None, "etwas zu essen", None, None, None),
    "fruit": ("a fruit", "fruits", "Frucht", "f", "Früchte", "food"),
    "vegetable": ("a vegetable", "vegetables", "Gemüse", "n", None, "food"),
    "plant": ("a plant", "plants", "Pflanze", "f", "Pflanzen", None),
    "flower": ("a flower", "flowers", "Blume", "f", "Blumen", "plant"),
    "vehicle": ("a vehicle", "vehicles", "Fahrzeug", "n", "Fahrzeuge", None),
    "tool": ("a tool", "tools", "Werkzeug", "n", "Werkzeuge", None),
    "instrument": ("a musical instrument", "musical instruments",
                   "Musikinstrument", "n", "Musikinstrumente", None),
    "clothing": ("a piece of clothing", "pieces of clothing",
                 "Kleidungsstück", "n", "Kleidungsstücke", None),
    "building": ("a building", "buildings", "Gebäude", "n", "Gebäude", None),
    "ball": ("a ball", "balls", "Ball", "m", "Bälle", None),
    "furniture": ("a piece of furniture", "pieces of furniture",
                  "Möbelstück", "n", "Möbelstücke", None),
}
# What a thing of the kind is called in a short answer.
KIND_ANSWERS = {"instrument": "musical instrument"}
KIND_ANSWERS_DE = {"fruit": "Frucht", "food": "Essen"}

COLOURS = {  # name: German, and what a background of it looks like
    "red": ("rot", (205, 32, 38)),
    "orange": ("orange", (245, 136, 24)),
    "yellow": ("gelb", (246, 218, 50)),
    "green": ("grün", (52, 152, 62)),
    "blue": ("blau", (42, 96, 204)),
    "purple": ("lila", (124, 52, 156)),
    "pink": ("rosa", (246, 150, 190)),
    "brown": ("braun", (120, 76, 40)),
    "black": ("schwarz", (20, 20, 22)),
    "white": ("weiß", (248, 248, 248)),
    "gray": ("grau", (136, 138, 142)),
}
# English names without an indefinite article.
PLURAL_ONLY = ("grapes", "blueberries", "fries", "spaghetti", "sunglasses", "glasses", "jeans",
               "shorts", "headphones", "scissors", "broccoli", "garlic", "bread", "cheese", "popcorn",
               "corn", "soap", "fire", "lettuce", "chocolate")
# Synonyms that are accepted as answers, but never asked after: without an article, with other
# meanings, for other things, too, or only for some of the images.
NEVER_ASKED = frozenset("""american football|ass|ball|balloon|baseball cap|bath|bin|bird|bird of prey
birthday cake|blossom|bolt|bow|brush|buck|buffalo|bull|cabbage|candy|car|cart|cheeseburger|cheetah
chicken|chocolate|coach|cock|computer|crayon|cricket|cruise ship|cup|cup of coffee|date|dice|digger|dino
drop|duckling|earth|egg|engine|fir|fir tree|flash|flower|football|frying pan|gecko|glass|hare|hawk
home|honey|hook|hot pepper|human skull|jaguar|jet|kitchen knife|kitten|lamb|lamp|leaf|letter
lightning|loaf of bread|lock|locust|luggage|mail|maize|meat|mike|milk|mule|notebook|oak|ox|palace
pasta|pen|pepper|pickle|pickup|pick-up|piece of cake|piglet|plant|plane|police|present|puzzle|racket|rat
rubber duck|salad|saturn|sedan|shell|ship|shirt|skate|slice of bread|slice of cake|spook|sports car
stag|steam engine|steam locomotive|sundae|sweet|sweetcorn|t-rex|tablet|tee|tie|toast|torch|train
trainer|tree|trolley|trunk|tub|washer|water|wc|wine|wood|world|xmas tree
""".replace("\n", "|").split("|"))
PATTERNS = {"stripes": "Streifen", "dots": "Punkte", "checks": "Karos", "plain": "einfarbig"}
NUMBERS = ("no", "one", "two", "three", "four")
NUMBERS_DE = ("kein", "ein", "zwei", "drei", "vier")


class Thing:
    """One line of objects.tsv."""

    def __init__(self, line, where):
        fields = line.split("\t")
        if len(fields) != 10:
            raise ValueError(f"{where}: {len(fields)} fields, expected 10")
        (self.id, self.name, self.plural, self.de, oblique, self.gender, self.de_plural,
         kind, images, near) = fields
        self.de_oblique = self.de if oblique == "-" else oblique
        self.kind = None if kind == "-" else kind
        self.near = set() if near == "-" else set(near.split())
        if self.gender not in ("m", "f", "n", "p") or (self.kind and self.kind not in KINDS):
            raise ValueError(f"{where}: unknown gender or kind: {self.gender}, {kind}")
        self.images = []  # (source, colour or None, kept for held-out scenes)
        for text in images.split():
            held_out = text.endswith("*")
            source, _, colour = text.rstrip("*").partition(":")
            if colour and colour not in COLOURS:
                raise ValueError(f"{where}: {colour} is no colour of the small world")
            self.images.append((source, colour or None, held_out))
        if all(held_out for _, _, held_out in self.images):
            raise ValueError(f"{where}: every image is held out")

    def kinds(self):
        """Its kind and what that belongs to, the closest first."""
        kinds, kind = [], self.kind
        while kind:
            kinds.append(kind)
            kind = KINDS[kind][5]
        return kinds


def things_read():
    path = os.path.join(FOLDER, "objects.tsv")
    with open(path, encoding="utf-8") as file:
        things = [Thing(line.rstrip("\n"), f"{path}: line {number}")
                  for number, line in enumerate(file, 1) if not line.startswith("#")]
    known = {thing.id: thing for thing in things}
    for thing in things:
        for other in thing.near:
            if other not in known:
                raise ValueError(f"{path}: {thing.id} is near {other}, which is not in the table")
    for thing in things:  # near is mutual, whichever line says so
        for other in sorted(thing.near):
            known[other].near.add(thing.id)
    return things


def aliases_read():
    """{name: [others]}: what a thing is called, too, in the singular and with an article."""
    aliases, names = {}, {thing.name for thing in things_read()}
    with open(os.path.join(FOLDER, "synonyms.tsv"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                name, *others = line.rstrip("\n").split("\t")
                aliases[name] = [other for other in others if not other.endswith("s") and
                                 other.islower() and other not in NEVER_ASKED | names]
    return aliases


def unknown_read():
    """Images of things that have no name here: {split: [source]}."""
    sources = {"train": [], "valid": [], "test": []}
    with open(os.path.join(FOLDER, "unknown.tsv"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                source = line.strip()
                split = {"*": "test", "+": "valid"}.get(source[-1], "train")
                sources[split].append(source.rstrip("*+"))
    return sources


def a(name):
    """A noun with its indefinite article, if it takes one."""
    if name.split()[-1] in PLURAL_ONLY:
        return name
    vowel = name[0].lower() in "aeiou" and not name.lower().startswith(("uni", "ufo")) or \
        name == "hourglass"
    return ("an " if vowel else "a ") + name


ARTICLES_DE = {  # case: gender: definite, indefinite
    "nom": {"m": ("der", "ein "), "f": ("die", "eine "), "n": ("das", "ein "), "p": ("die", "")},
    "acc": {"m": ("den", "einen "), "f": ("die", "eine "), "n": ("das", "ein "), "p": ("die", "")},
    "dat": {"m": ("dem", "einem "), "f": ("der", "einer "), "n": ("dem", "einem "),
            "p": ("den", "")},
}


def der(thing, case="nom"):
    noun = thing.de if case == "nom" else thing.de_oblique
    return f"{ARTICLES_DE[case][thing.gender][0]} {noun}"


def ein(thing, case="nom"):
    noun = thing.de if case == "nom" else thing.de_oblique
    return f"{ARTICLES_DE[case][thing.gender][1]}{noun}"


def kind_ein(kind, case="nom"):
    _, _, noun, gender, _, _ = KINDS[kind]
    return f"{ARTICLES_DE[case][gender][1]}{noun}" if gender else noun


def kind_answer(kind):
    return KIND_ANSWERS.get(kind, kind)


def kind_answer_de(kind):
    return KIND_ANSWERS_DE.get(kind, KINDS[kind][2])


def count_of(number, thing):
    return a(thing.name) if number == 1 else f"{NUMBERS[number]} {thing.plural}"


def count_of_de(number, thing, case="nom"):
    return ein(thing, case) if number == 1 else f"{NUMBERS_DE[number]} {thing.de_plural}"


def listing(words, last):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" {last} {words[-1]}"


def sentence(text):
    return text[0].upper() + text[1:]
