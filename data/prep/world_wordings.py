"""How a person asks: several wordings of every question, English and German, the plainest first.

{x...} and {y...} are things (world_facts.Words), {k...} and {m...} kinds; {c} is any other English
word, {d} the same in German."""

WORDINGS = {
    # ---- existence
    "exist": ([
        "{x.Is} there {x.a} in the picture?", "{x.Is} there {x.a}?", "Can you see {x.a}?",
        "Do you see {x.a}?", "Does the picture show {x.a}?", "{x.Is} there {x.a} in the image?",
        "Are there any {x.names}?", "Any {x.names} here?", "{x.Is} there {x.a} anywhere?",
        "{x.Is} {x.a} in this picture?", "Are there {x.names} in the picture?"], [
        "{x.Ist} {x.ein} im Bild?", "Sieht man {x.einen}?", "Gibt es hier {x.einen}?",
        "Siehst du {x.einen}?", "Ist auf dem Bild {x.ein} zu sehen?"]),
    "exist_alias": ([
        "{x.Is} there {x.a} in the picture?", "{x.Is} there {x.a}?", "Can you see {x.a}?",
        "Do you see {x.a}?", "Does the picture show {x.a}?", "{x.Is} there {x.a} in the image?",
        "{x.Is} there {x.a} anywhere?"], [
        "{x.Ist} {x.ein} im Bild?", "Sieht man {x.einen}?"]),
    "exist_kind": ([
        "Is there {k.a} in the picture?", "Is there {k.a}?", "Can you see {k.a}?",
        "Do you see {k.a}?", "Does the picture show {k.a}?", "Is there {k.a} in the image?"], [
        "Ist {k.ein} im Bild?", "Sieht man {k.einen}?", "Gibt es hier {k.einen}?"]),
    "exist_choose": ([
        "Which is in the picture, {x.a} or {y.a}?", "What do you see, {x.a} or {y.a}?",
        "Do you see {x.a} or {y.a}?", "Is there {x.a} or {y.a} in the picture?",
        "Does the picture show {x.a} or {y.a}?"], [
        "Was ist im Bild, {x.ein} oder {y.ein}?", "Was sieht man, {x.einen} oder {y.einen}?"]),
    "verify_this": ([
        "Is this {x.a}?", "Is that {x.a}?", "Is it {x.a}?", "This is {x.a}, right?"], [
        "Ist das {x.ein}?", "Zeigt das Bild {x.einen}?"]),
    "choose_this": ([
        "Is this {x.a} or {y.a}?", "Is it {x.a} or {y.a}?", "What is this, {x.a} or {y.a}?"], [
        "Ist das {x.ein} oder {y.ein}?", "Was ist das, {x.ein} oder {y.ein}?"]),
    # ---- naming
    "this": ([
        "What is this?", "What is it?", "What's this?", "What is that?", "What thing is this?",
        "What is the thing in the picture?", "What is it called?", "Name the thing.",
        "What object is this?", "Which thing is shown?", "What is this called?",
        "what is that thing?"], [
        "Was ist das?", "Was ist das für ein Ding?", "Wie heißt das?", "Was ist hier zu sehen?",
        "Wie nennt man das?"]),
    "these": ([
        "What are these?", "What are these things?", "What are they?", "What's shown several times?",
        "What things are these?"], [
        "Was sind das für Dinge?", "Was ist das?", "Was ist mehrmals zu sehen?"]),
    "name_kind": ([
        "Which {k.name} is in the picture?", "What {k.name} do you see?", "What {k.name} is this?",
        "What's the {k.name} called?", "What is the {k.name}?", "Which {k.name} is it?",
        "What kind of {k.name} is it?", "What {k.name} is there?", "What is the {k.name} called?",
        "What type of {k.name} is in the picture?"], [
        "{k.Welcher} {k.de} ist im Bild?", "Was für {k.ein} ist das?", "Wie heißt {k.der}?",
        "{k.Welcher} {k.de} ist zu sehen?"]),
    "name_side": ([
        "What is {c}?", "What's {c}?", "What do you see {c}?", "What is {c} of the picture?",
        "Which thing is {c}?", "What is there {c}?", "What can be seen {c}?", "Name the thing {c}.",
        "What's the thing {c}?"], [
        "Was ist {d} im Bild?", "Was ist {d}?", "Was sieht man {d}?", "Welches Ding ist {d}?",
        "Was ist {d} zu sehen?"]),
    "name_kind_side": ([
        "Which {k.name} is {c}?", "What {k.name} is {c}?", "What {k.name} do you see {c}?",
        "What's the {k.name} {c}?"], [
        "{k.Welcher} {k.de} ist {d}?", "Was für {k.ein} ist {d}?"]),
    "beside": ([
        "What is next to the {y.name}?", "What's beside the {y.name}?",
        "What else is in the picture besides the {y.name}?", "What is beside the {y.name}?",
        "What else do you see, not the {y.name}?"], [
        "Was ist neben {y.dem}?", "Was ist außer {y.dem} noch im Bild?"]),
    "name_colour": ([
        "Which thing is {c}?", "What in the picture is {c}?", "What is the {c} thing?",
        "What is {c}?", "What's the {c} object?"], [
        "Welches Ding ist {d}?", "Was im Bild ist {d}?", "Was ist hier {d}?"]),
    "kind_of": ([
        "What kind of thing {x.is_} the {x.name}?", "What sort of thing {x.is_} the {x.name}?"], [
        "Was für eine Art Ding {x.ist} {x.der}?", "Zu welcher Art gehört {x.der}?"]),
    "verify_kind": ([
        "{x.Is} the {x.name} {k.a}?", "{x.Is} {x.a} {k.a}?"], [
        "{x.Ist} {x.der} {k.ein}?"]),
    "choose_kind": ([
        "Is it {k.a} or {m.a}?", "Is this {k.a} or {m.a}?", "Do you see {k.a} or {m.a}?",
        "What is it, {k.a} or {m.a}?"], [
        "Ist das {k.ein} oder {m.ein}?", "Was ist das, {k.ein} oder {m.ein}?"]),
    # ---- numbers
    "count": ([
        "How many {x.names} are there?", "How many {x.names} do you see?",
        "How many {x.names} are in the picture?", "How many {x.names} can you see?",
        "Count the {x.names}.", "What is the number of {x.names}?", "How many {x.names}?"], [
        "Wie viele {x.de_plural} sind im Bild?", "Wie viele {x.de_plural} sieht man?",
        "Wie viele {x.de_plural} gibt es?", "Wie viele {x.de_plural} siehst du?"]),
    "count_verify": ([
        "Are there {c} {x.names}?", "Do you see {c} {x.names}?",
        "Are there {c} {x.names} in the picture?"], [
        "Sind {d} {x.de_plural} im Bild?", "Sieht man {d} {x.de_plural}?"]),
    "count_several": ([
        "Is there more than one {x.name}?", "Are there several {x.names}?",
        "Do you see more than one {x.name}?"], [
        "Sind mehrere {x.de_plural} im Bild?", "Sieht man mehrere {x.de_plural}?"]),
    "count_kind": ([
        "How many {k.names} are there?", "How many {k.names} do you see?",
        "How many {k.names} are in the picture?", "Count the {k.names}.", "How many {k.names}?"], [
        "Wie viele {k.de_plural} sind im Bild?", "Wie viele {k.de_plural} sieht man?",
        "Wie viele {k.de_plural} gibt es?"]),
    "count_all": ([
        "How many things are there?", "How many things do you see?",
        "How many things are in the picture?", "How many objects are there?",
        "How many objects can you see?", "Count the things.", "How many objects are in the image?",
        "What is the number of things?"], [
        "Wie viele Dinge sind im Bild?", "Wie viele Dinge sieht man?", "Wie viele Dinge gibt es?",
        "Wie viele Gegenstände sind zu sehen?"]),
    # ---- colours and backgrounds
    "colour": ([
        "What color {x.is_} the {x.name}?", "Which color {x.is_} the {x.name}?",
        "What's the color of the {x.name}?", "What is the color of the {x.name}?",
        "Which color {x.does} the {x.name} have?", "What color {x.does} the {x.name} have?",
        "In what color {x.is_} the {x.name}?"], [
        "Welche Farbe {x.hat} {x.der}?", "In welcher Farbe {x.ist} {x.der} zu sehen?",
        "Was ist die Farbe von {x.dem}?"]),
    "colour_side": ([
        "What color is the thing {c}?", "What is the color of the thing {c}?",
        "Which color has the object {c}?", "What color does the thing {c} have?"], [
        "Welche Farbe hat das Ding {d}?"]),
    "colour_verify": ([
        "{x.Is} the {x.name} {c}?", "{x.Does} the {x.name} look {c}?",
        "Is {c} the color of the {x.name}?"], [
        "{x.Ist} {x.der} {d}?", "{x.Hat} {x.der} die Farbe {d}?"]),
    "colour_choose": ([
        "{x.Is} the {x.name} {c}?", "What color {x.is_} the {x.name}, {c}?",
        "Which color {x.is_} the {x.name}, {c}?"], [
        "{x.Ist} {x.der} {d}?", "Welche Farbe {x.hat} {x.der}, {d}?"]),
    "back_colour": ([
        "What color is the background?", "Which color is the background?",
        "What is the color of the background?", "What's the background color?",
        "What color is behind the things?", "What is the background color?",
        "What color does the background have?"], [
        "Welche Farbe hat der Hintergrund?", "Was ist die Farbe des Hintergrunds?",
        "Welche Farbe ist hinten?"]),
    "back_verify": ([
        "Is the background {c}?", "Does the picture have {c.a} background?",
        "Is there {c.a} background?"], [
        "Ist der Hintergrund {d}?"]),
    "back_pattern": ([
        "What pattern does the background have?", "Which pattern is in the background?",
        "What is the pattern of the background?", "What pattern is on the background?",
        "What's the background pattern?"], [
        "Welches Muster hat der Hintergrund?", "Was für ein Muster ist im Hintergrund?"]),
    "back_pattern_verify": ([
        "Does the background have {c}?", "Are there {c} in the background?",
        "Are there {c} on the background?"], [
        "Hat der Hintergrund {d}?", "Sind im Hintergrund {d}?"]),
    # ---- position
    "side": ([
        "On which side {x.is_} the {x.name}, left or right?",
        "{x.Is} the {x.name} on the left or on the right?",
        "On which side of the picture {x.is_} the {x.name}, left or right?",
        "{x.Is} the {x.name} left or right?", "Which side {x.is_} the {x.name} on, left or right?",
        "Where {x.is_} the {x.name}, left or right?",
        "{x.Is} the {x.name} on the left side or the right side?"], [
        "Auf welcher Seite {x.ist} {x.der}, links oder rechts?",
        "{x.Ist} {x.der} links oder rechts?", "Wo {x.ist} {x.der}, links oder rechts?"]),
    "height": ([
        "{x.Is} the {x.name} at the top or at the bottom?",
        "Where {x.is_} the {x.name}, at the top or at the bottom?",
        "{x.Is} the {x.name} at the top or at the bottom of the picture?",
        "Where {x.is_} the {x.name}, top or bottom?",
        "{x.Is} the {x.name} in the upper or in the lower half?"], [
        "{x.Ist} {x.der} oben oder unten?", "Wo {x.ist} {x.der}, oben oder unten?",
        "{x.Ist} {x.der} oben oder unten im Bild?"]),
    "where": ([
        "Where {x.is_} the {x.name}?", "Where in the picture {x.is_} the {x.name}?",
        "Where can I see the {x.name}?", "In which part of the picture {x.is_} the {x.name}?",
        "Where do you see the {x.name}?", "Where's the {x.name} in the image?",
        "What is the position of the {x.name}?"], [
        "Wo {x.ist} {x.der}?", "Wo im Bild {x.ist} {x.der}?", "Wo sieht man {x.den}?"]),
    "side_verify": ([
        "{x.Is} the {x.name} {c}?", "{x.Is} the {x.name} {c} of the picture?",
        "{x.Is} there {x.a} {c}?", "Do you see {x.a} {c}?"], [
        "{x.Ist} {x.der} {d}?", "{x.Ist} {x.der} {d} im Bild?"]),
    # ---- relations
    "relation": ([
        "Where {x.is_} the {x.name}, seen from the {y.name}?",
        "In which direction from the {y.name} {x.is_} the {x.name}?",
        "Where {x.is_} the {x.name} relative to the {y.name}?",
        "Where {x.is_} the {x.name} compared to the {y.name}?"], [
        "Wo {x.ist} {x.der}, von {y.dem} aus gesehen?",
        "In welcher Richtung von {y.dem} {x.ist} {x.der}?"]),
    "relation_verify": ([
        "{x.Is} the {x.name} {c} the {y.name}?", "{x.Is} {x.a} {c} the {y.name}?",
        "Do you see the {x.name} {c} the {y.name}?"], [
        "{x.Ist} {x.der} {d} {y.dem}?", "Sieht man {x.den} {d} {y.dem}?"]),
    "relation_choose": ([
        "{x.Is} the {x.name} {c} the {y.name}?", "Where {x.is_} the {x.name}, {c} the {y.name}?"], [
        "{x.Ist} {x.der} {d} {y.dem}?", "Wo {x.ist} {x.der}, {d} {y.dem}?"]),
    "relation_name": ([
        "What is {c} the {y.name}?", "Which thing is {c} the {y.name}?", "What's {c} the {y.name}?",
        "What do you see {c} the {y.name}?"], [
        "Was ist {d} {y.dem}?", "Welches Ding ist {d} {y.dem}?", "Was sieht man {d} {y.dem}?"]),
    # ---- sizes
    "size": ([
        "Which is {c}, the {x.name} or the {y.name}?",
        "Which one is {c}, the {x.name} or the {y.name}?",
        "What is {c}, the {x.name} or the {y.name}?",
        "Which looks {c} in the picture, the {x.name} or the {y.name}?",
        "Which of them is {c}, the {x.name} or the {y.name}?",
        "What is {c} in the picture, the {x.name} or the {y.name}?"], [
        "Was ist {d}, {x.der} oder {y.der}?", "Was ist im Bild {d}, {x.der} oder {y.der}?",
        "Was sieht {d} aus, {x.der} oder {y.der}?"]),
    "size_verify": ([
        "{x.Is} the {x.name} {c} than the {y.name}?",
        "{x.Does} the {x.name} look {c} than the {y.name}?",
        "{x.Is} the {x.name} shown {c} than the {y.name}?"], [
        "{x.Ist} {x.der} {d} als {y.der}?", "{x.Ist} {x.der} im Bild {d} als {y.der}?"]),
    "size_most": ([
        "Which thing is the {c}?", "What is the {c} thing?", "What is the {c} thing in the picture?",
        "What's the {c} object?", "Which object is the {c}?"], [
        "Welches Ding ist am {d}?", "Was ist im Bild am {d}?"]),
    # ---- descriptions
    "describe": ([
        "Describe the picture.", "Describe it.", "Describe the image.", "Describe this picture.",
        "Please describe the picture.", "Describe what you see.", "Give a description."], [
        "Beschreibe das Bild.", "Beschreibe, was zu sehen ist.", "Bitte beschreibe das Bild."]),
    "see": ([
        "What do you see?", "What is in the picture?", "What does the picture show?",
        "What can you see?", "What's in the picture?", "What is in this image?",
        "Tell me what you see.", "What is shown here?", "What is there to see?",
        "What things are in the picture?", "What's going on here?", "What do you see in the image?"], [
        "Was siehst du?", "Was ist im Bild?", "Was zeigt das Bild?", "Was ist zu sehen?",
        "Was sieht man hier?"]),
    # ---- what cannot be known from an image
    "unanswerable": ([
        "What is its name?", "How old is the person who made this?", "Who made this picture?",
        "Who drew this?", "When was this picture made?", "What day is it?", "What time is it?",
        "Where was this picture taken?", "How much does it cost?", "Who does it belong to?",
        "What will happen next?", "What happened before?", "Why is it here?",
        "What is the weather like tomorrow?", "What does it smell like?", "What does it taste like?",
        "How heavy is it?", "How old is it?", "What is the name of the artist?",
        "Which year is it?", "What is the owner called?", "Where does it come from?",
        "What sound can be heard?", "What is it thinking?", "How much did it cost?",
        "What is my name?", "Who am I?", "Where do you live?", "How is the {x.name} feeling?",
        "What is the {x.name} called by its owner?", "Who owns the {x.name}?",
        "How old {x.is_} the {x.name}?", "How much does the {x.name} cost?",
        "How heavy {x.is_} the {x.name}?", "Where was the {x.name} bought?",
        "Who made the {x.name}?", "What will the {x.name} do next?", "Why {x.is_} the {x.name} here?",
        "When was the {x.name} made?", "What is the story of the {x.name}?",
        "What is outside of the picture?", "What is on the other side of the picture?"], [
        "Wie heißt die Person, die das gemacht hat?", "Wer hat das gemalt?", "Wie spät ist es?",
        "Wie viel kostet das?", "Wem gehört das?", "Was passiert als Nächstes?",
        "Wann wurde das Bild gemacht?", "Wie alt {x.ist} {x.der}?", "Wem {x.gehoert} {x.der}?",
        "Wie schwer {x.ist} {x.der}?", "Wo wurde das Bild gemacht?"]),
}


def casual(text, rng):
    """As it is typed in a hurry: in lower case, without the question mark, or both."""
    way = rng.random()
    if way < 0.06:
        return text.rstrip("?.")
    if way < 0.20:
        return lowered(text)
    if way < 0.28:
        return lowered(text).rstrip("?.")
    return text


def lowered(text):
    return text[0].lower() + text[1:]


def wordings_make(name, **fields):
    """(English, German) wordings of a question, filled in."""
    found = []
    for texts in WORDINGS[name]:
        filled = [text.format(**fields) for text in texts]
        found.append([text[0].upper() + text[1:] for text in filled])
    return found
