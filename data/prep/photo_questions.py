"""Questions and answers about a photograph, of which a classifier's probabilities are known."""
import random
import re

SHORT, SHORT_DE = "Answer with a word or phrase.", "Antworte mit einem Wort."
UNKNOWN, UNKNOWN_DE = "I do not know.", "Das weiß ich nicht."
SURE, ABSENT, UNSURE = 0.5, 0.001, 0.2  # probabilities
GERMAN, BRIEF = 0.12, 0.5
KEPT_UNSURE, KEPT_DENIED = 0.3, 0.2  # of the images of which nothing is named

NAMING = ("What is the main subject of this photograph?", "What does this photograph show?",
          "What is in this photograph?", "What can be seen here?", "What is this?", "What is it?",
          "What do you see?", "What is shown here?", "What is in the picture?",
          "What does the image show?", "What's this?", "Name the main thing in the image.",
          "What is the thing in the photo?", "What can you see in this photo?",
          "Which object is this?", "What is the most important thing in the picture?")
NAMED = ("It is {a}.", "This is {a}.", "The photograph shows {a}.", "There is {a}.", "I see {a}.",
         "The picture shows {a}.")
NAMED_MANY = ("They are {a}.", "The photograph shows {a}.", "I see {a}.", "The picture shows {a}.")
PRESENCE = ("{Is} there {a}?", "Can you see {a}?", "Do you see {a}?", "Does the photograph show {a}?",
            "{Is} there {a} in the picture?", "{Is} there {a} in the photo?", "Is this {a}?",
            "Does the image show {a}?")
NAMING_DE = ("Was ist das?", "Was ist zu sehen?", "Was zeigt das Foto?", "Was siehst du?",
             "Was ist auf dem Bild?", "Wie heißt das?")
CATEGORIES_DE = {"animal": "ein Tier", "vehicle": "ein Fahrzeug", "building": "ein Bauwerk",
                 "musical instrument": "ein Musikinstrument", "food": "etwas zu essen",
                 "furniture": "ein Möbelstück", "clothing": "ein Kleidungsstück",
                 "tool": "ein Werkzeug", "device": "ein Gerät", "plant": "eine Pflanze"}
KINDS = {"animal": "an animal", "vehicle": "a vehicle", "building": "a building",
         "musical instrument": "a musical instrument", "food": "food", "furniture": "furniture",
         "clothing": "clothing", "tool": "a tool", "device": "a device", "plant": "a plant",
         "container": "a container", "weapon": "a weapon"}
MASS = set("hay wool coffee wine bread soup corn velvet spaghetti coral guacamole cutlery steam dough "
           "armor grass gravel bark graffiti broccoli cabbage cauliflower eggnog carbonara".split()) | {
               "toilet paper", "ice cream", "chocolate sauce", "meat loaf", "chain mail"}
# Never denied together: a thing may be called by another name of its group. The first names all.
GROUPS = (
    "bird|rooster|hen|chicken|ostrich|bird of prey|eagle|vulture|owl|peacock|parrot|hummingbird|"
    "toucan|duck|goose|gosling|swan|stork|flamingo|heron|crane|pelican|penguin|kingfisher|"
    "spoonbills|swans",
    "insect|beetle|ladybug|fly|bee|ant|grasshopper|cricket|stick insect|cockroach|mantis|cicada|"
    "leafhopper|lacewing|dragonfly|butterfly|caterpillar",
    "fish|shark|ray|eel",
    "coral|coral reef|scuba diver|sea anemone|fish",
    "monkey|gorilla|chimpanzee|gibbon|orangutan|lemur|macaque",
    "lizard|chameleon|salamander|crocodile|frog|snake",
    "boat|ship|boathouse|dock|pier|shipwreck",
    "car|taxi|truck|bus|van|ambulance|fire engine|wheel|car mirror|car grille|race car",
    "train|railway|tram",
    "castle|palace|church|monastery|tower|temple|house|houses|wooden house|mosque|building|"
    "skyscraper|gate|opera house|amphitheater|monument|pyramid|pyramids|stupa|statue|wall|"
    "brick wall|city|silos|parking garage|dome|arch|obelisk|lighthouse|barn|roof|prison|library|"
    "cliff dwelling|greenhouse|altar|vault|standing stones|totem pole|fountain|stone wall|cinema|"
    "planetarium|restaurant|shop|stage|patio|bridge|dam|fence|pedestal|triumphal arch|bannister",
    "mountain|mountains|valley|cliff|volcano|lake|beach|headland|geyser|dam|rock|rocks|canyon|"
    "hill|desert|dune|sea|waves|wave|waterfall|stream|island|city|clouds|sunset",
    "pot|bowl|cup|glass|jug|pan|plate|bottle|vase|teapot|soup|coffee|food|bucket|barrel|container",
    "cow|calf|buffalo|bison",
    "sheep|goat|antelope|ibex|llama|alpaca",
    "wolf|dog|coyote|wild dog|fox|hyena",
    "cat|kitten|lynx|puma|leopard|cheetah|jaguar|tiger|lion",
    "bear|polar bear|panda|red panda",
    "computer|keyboard|screen|television|computer mouse|laptop|device|telephone|radio",
    "bag|box|basket|package|packet|envelope",
    "scissors|pliers|wrench|tweezers|hammer|screwdriver|tool|nail clipper|hatchet|ax|knife|"
    "can opener|tape measure|corkscrew|letter opener|screw|nail|sickle|multimeter",
    "flower|daisy|lady's slipper|rapeseed|plant",
    "mushroom|fungus",
    "fruit|lemon|orange|apple|fig|pomegranate|strawberry|banana|pineapple|custard apple|jackfruit",
    "horse|cart",
    "pig|wild boar|warthog",
    "squirrel|marmot|guinea pig|hamster|weasel|beaver|pika|hedgehog|porcupine|rabbit|hare|badger|"
    "skunk",
    "turtle|snail|slug|shell|crab|lobster|worm",
    "whale|dolphin|seal|narwhal|manatee|shark",
    "clock|watch|scales|barometer|magnetic compass|odometer",
    "ball|baseball|volleyball",
    "solar panel|solar dish|windmill|wind turbine|radio telescope",
)
GENERAL = {"bird", "insect", "fish", "fruit"}  # the first names of groups that hold for all in them
TOGETHER = [set(group.split("|")) for group in GROUPS]
DENIED_KINDS = {"animal", "vehicle", "musical instrument", "food", "building", "device", "tool",
                "furniture", "container", "sport", "weapon"}


def is_plural(name):
    last = name.split()[-1]
    return last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in (
        "canvas", "chess", "bus")


def a(name):
    """The name with its article."""
    if name in MASS or is_plural(name):
        return name
    vowel = name[0].lower() in "aeiou" and not name.lower().startswith(("uni", "one", "eu", "u-"))
    return ("an " if vowel else "a ") + name


def related(one, other):
    return one == other or any(one in group and other in group for group in TOGETHER)


class Questions:
    """names: the table of the classes (classifier.names_read)."""

    def __init__(self, names, seed=0):
        self.names, self.rng = names, random.Random(seed)
        self.of_simple = {}
        for number, row in enumerate(names):
            self.of_simple.setdefault(row["simple"], []).append(number)
        self.kind_of = {row["simple"]: row["category"] for row in names}
        self.deniable = [simple for simple, kind in self.kind_of.items() if kind in DENIED_KINDS]

    def shares(self, probabilities):
        """Probability of each simple name: the sum over its classes."""
        return {simple: float(sum(probabilities[n] for n in numbers))
                for simple, numbers in self.of_simple.items()}

    def absent(self, shares, present, count):
        """Names of what is surely not there: half of them of the kinds that are."""
        kinds = {self.kind_of.get(name) for name in present}
        fit = [name for name in self.deniable if shares[name] < ABSENT
               and not any(related(name, other) for other in present)]
        close = [name for name in fit if self.kind_of[name] in kinds]
        out = []
        for _ in range(count):
            pool = close if close and self.rng.random() < 0.5 else fit
            if pool:
                out.append(self.rng.choice(pool))
        return out

    def turn(self, question, brief, sentence, german=False):
        """A question with a short answer, or with a sentence."""
        if brief and self.rng.random() < BRIEF:
            return f"{question}\n{SHORT_DE if german else SHORT}", brief
        return question, sentence

    def naming(self, name, german=""):
        rng = self.rng
        if german and rng.random() < GERMAN:
            return f"{rng.choice(NAMING_DE)}\n{SHORT_DE}", german
        wording = rng.choice(NAMED_MANY if is_plural(name) else NAMED)
        if is_plural(name):
            wording = wording.replace("There is", "There are")
        return self.turn(rng.choice(NAMING), name, wording.format(a=a(name)))

    def presence(self, name, there):
        rng = self.rng
        wording = rng.choice(PRESENCE)
        if is_plural(name):
            wording = wording.replace("Is this", "Are these").replace("{Is}", "Are")
        question = wording.replace("{Is}", "Is").format(a=a(name))
        this = question.startswith(("Is this", "Are these"))
        word = "are" if is_plural(name) else "is"
        if this:
            pronoun = "they" if is_plural(name) else "it"
            sentence = f"{'Yes' if there else 'No'}, {pronoun} {word} {'' if there else 'not '}{a(name)}."
        else:
            sentence = f"Yes, there {word} {a(name)}." if there else f"No, there {word} no {name}."
        return self.turn(question, "yes" if there else "no", sentence)

    def kind(self, kind, there):
        word = KINDS[kind]
        if there and kind in CATEGORIES_DE and self.rng.random() < GERMAN:
            return self.turn(f"Ist das {CATEGORIES_DE[kind]}?", "ja",
                             f"Ja, das ist {CATEGORIES_DE[kind]}.", True)
        return self.turn(f"Is this {word}?", "yes" if there else "no",
                         f"Yes, it is {word}." if there else f"No, it is not {word}.")

    def choose(self, name, other):
        pair = [a(name), a(other)]
        self.rng.shuffle(pair)
        question = self.rng.choice(("Is it {} or {}?", "Is this {} or {}?", "Do you see {} or {}?",
                                    "What is this, {} or {}?")).format(*pair)
        return self.turn(question, name, self.rng.choice(
            (f"It is {a(name)}.", f"This is {a(name)}.")) if not is_plural(name) else f"I see {a(name)}.")

    def unsure(self):
        rng = self.rng
        if rng.random() < GERMAN:
            return rng.choice(NAMING_DE), UNKNOWN_DE
        return rng.choice(NAMING), UNKNOWN

    def talk(self, probabilities, true=""):
        """[(question, answer)] about an image, possibly none. `true`: a name that is known to be right;
        without it the classifier must be sure."""
        rng, shares = self.rng, self.shares(probabilities)
        best = max(shares, key=shares.get)
        main = true or (best if shares[best] > SURE else "")
        turns = []
        if main:
            present = {main} | ({best} if shares[best] > SURE else set())
            if rng.random() < 0.6:
                turns.append(self.presence(main, True))
            german = next((row["german"] for row in self.names if row["simple"] == main), "")
            turns += [self.naming(main, german), self.presence(main, True)]
            turns += [self.presence(first, True) for first, *others in
                      (group.split("|") for group in GROUPS) if first in GENERAL and main in others]
            kind = self.kind_of.get(main)
            if kind in KINDS and rng.random() < 0.5:
                turns.append(self.kind(kind, True))
            elif kind and rng.random() < 0.5:
                other = rng.choice([k for k in KINDS if k not in (kind, "container", "device", "tool")])
                turns.append(self.kind(other, False))
            number = int(probabilities.argmax())
            exact = self.names[number]["name"]
            if probabilities[number] > 0.6 and exact != main == best and re.search(
                    r"^(dog|bird|cat|butterfly|snake|monkey|bear|car|boat|ball)$", main):
                turns.append(self.turn(f"What kind of {main} is it?", exact, f"It is {a(exact)}."))
            denied = self.absent(shares, present, 3)
            turns += [self.presence(name, False) for name in denied[:rng.choice((1, 2))]]
            if denied[2:]:
                turns.append(self.choose(main, denied[2]))
        elif shares[best] < UNSURE and rng.random() < KEPT_UNSURE:
            turns.append(self.unsure())
            turns += [self.presence(name, False) for name in self.absent(shares, {best}, 1)]
        elif shares[best] >= UNSURE and rng.random() < KEPT_DENIED:
            near = {name for name, share in shares.items() if share > 0.02}
            turns += [self.presence(name, False) for name in self.absent(shares, near, 2)]
        rng.shuffle(turns)
        return turns


def conversation(name, image, turns):
    """LLaVA's record."""
    said = []
    for number, (question, answer) in enumerate(turns):
        said.append({"from": "human", "value": ("" if number else "<image>\n") + question})
        said.append({"from": "gpt", "value": answer})
    return {"id": name, "image": image, "conversations": said}
