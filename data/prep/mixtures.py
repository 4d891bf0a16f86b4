#!/usr/bin/env python3
"""The mixtures that a model of pretrained parts is trained on, out of what the other scripts made.

usage: data/prep/mixtures.py FOLDER
  FOLDER  has text/ (text.py), catalogues/ (catalogues.py), world/ (world.py) and, where they exist,
          more/ (world.py with --start: scenes for the joint mixture that no earlier stage saw; without it those of
          world/ are asked about more often), unnamed/
          (the same with --nameless: things without a name), photos/ (photos.py) and classes/
          (class_features.py, feature_cache.py); gets
          texts/   text pairs in the model's own prompts, with ratio.json
          joint/   the same and scenes, captions, photographs, classes, with ratio.json, and images/,
                   one folder of links for all of them
          hard/    the same with fewer of the questions that are learned soon, and of the texts
          late/    the same with unnamed/, and with the questions that are learned last, and names of
                   classes, asked often
          lengths/ the same as joint/, with fewer texts and more descriptions: for the length predictor
          valid.*.jsonl, test.*.jsonl   the held-out texts in the same prompts

The prompts are short, since most texts are: "German to English: ...", "English to German: ...",
"Summarize: ..."; questions are asked as they are. A part of the pairs is repeated in lower case, which
subtitles and hasty people write. The same files give the same bytes.
"""
import json
import os
import random
import re
import sys

from photo_questions import NAMING, NAMING_DE

LOWER = 60_000  # pairs that are repeated in lower case
FEW = 5  # words below which a message is a label
LONGEST_SUMMARY = 900  # characters: long texts cost more than they teach

# Units of each file in a mixture, relative to each other.
TEXTS = {"descriptions": 16, "messages": 26, "manuals": 22, "dictionary": 10, "short": 4, "lower": 6,
         "summary": 6, "en-de": 10}
IMAGES = {"scenes-1": 3, "scenes-2": 3, "scenes-many": 5, "more-2": 4, "more-many": 22, "captions-1": 1,
          "captions-2": 1, "captions-many": 3, "photos": 4, "classes": 8}
SOURCES = {"more-2": "more/scenes-2.json", "more-many": "more/scenes-many.json",
           "photos": "photos/photos.json", "classes": "classes/features.json"}
TEXT_SHARE = 5  # text units for each unit of TEXTS above in the joint mixture
LENGTH_SHARE = 2.5  # and in that of lengths, where descriptions, the long answers, are asked for more often,
LENGTHS = {"captions-1": 4, "captions-2": 4, "captions-many": 25, "unnamed-many": 4}  # and also of what has no name
HARD_SHARES = {"hard": 3, "late": 5}
FEWER = {"scenes-1": 1, "scenes-2": 1}  # units in these two
# Units of files in the last alone.
LATE = {"late-many": 50, "verified-many": 60, "unnamed-many": 10, "classes": 30, "classes-named": 60, "photos": 8,
        "photos-named": 8, "captions-1": 8, "captions-2": 8, "captions-many": 40}

# Answers of yes-or-no questions and of places, which the joint mixture teaches soon, and what a question is
# about that stays hard; of the others of these answers so many are kept.
EASY = {"yes", "no", "ja", "nein", "left", "right", "above", "below", "top", "bottom", "links", "rechts",
        "oben", "unten", "darüber", "darunter", "on the left", "on the right"}
HARD = re.compile(
    r"background|dots|stripes|checks|pattern|behind|larger|smaller|bigger|big |small|size|\btwo\b|\bthree\b|"
    r"\bfour\b|\bfive\b|more than one|several|red\b|green|blue|yellow|black|white|gray|grey|brown|orange|"
    r"pink|purple|hintergrund|punkte|streifen|karo|größer|kleiner|zwei|drei|vier|mehrere|mehr als|farb|"
    r"rot\b|grün|blau|gelb|schwarz|weiß|grau|braun|rosa|lila", re.IGNORECASE)
EASY_KEPT = 0.3
# What is learned last: numbers, sizes, and whether a background is of a color or pattern.
LATE_ASKED = re.compile(
    r"how many|more than one|several|are there (two|three|four)|larger|smaller|bigger|background|"
    r"dots|stripes|checks|wie viele|mehrere|sind da (zwei|drei|vier)|größer|kleiner|hintergrund|punkte|"
    r"streifen|karos", re.IGNORECASE)
LATE_KEPT = 0.3  # of those whose answer is a color or a pattern, which are learned soon


def prompt_of(text):
    """A prompt in the model's own words, of one in those of Flan."""
    for begin, end, ours in (
            ("Translate the sentences into English.  German: ", " English: ", "German to English: "),
            ("Translate the sentences into German.  English: ", " German: ", "English to German: "),
            ("Write a short summary of the text.  Text: ", " Summary: ", "Summarize: ")):
        if text.startswith(begin) and text.endswith(end):
            return ours + text[len(begin):-len(end)]
    return text


def pairs(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            yield prompt_of(record["inputs"]), record["targets"]


def write_pairs(path, found):
    with open(path + ".part", "w", encoding="utf-8") as out:
        for inputs, targets in found:
            out.write(json.dumps({"inputs": inputs, "targets": targets}, ensure_ascii=False) + "\n")
    os.replace(path + ".part", path)


def words(text):
    return len(text.split())


def lowered(found):
    for inputs, targets in found:
        prompt, _, text = inputs.partition(": ")
        yield prompt + ": " + text.lower(), targets.lower()


def texts_make(folder):
    rng = random.Random(1)
    text, catalogues, out = (os.path.join(folder, name) for name in ("text", "catalogues", "texts"))
    os.makedirs(out, exist_ok=True)
    messages = list(pairs(f"{catalogues}/train.messages.jsonl"))
    made = {
        "descriptions": list(pairs(f"{text}/train.translation.jsonl")),
        "messages": [p for p in messages if words(p[1]) >= FEW],
        "short": [p for p in messages if words(p[1]) < FEW],
        "manuals": list(pairs(f"{catalogues}/train.manuals.jsonl")),
        "dictionary": list(pairs(f"{catalogues}/train.dictionary.jsonl")),
        "summary": [p for p in pairs(f"{text}/train.summary.jsonl") if len(p[0]) <= LONGEST_SUMMARY],
    }
    long_ones = made["descriptions"] + made["messages"] + made["manuals"]
    made["lower"] = list(lowered(rng.sample(long_ones, min(LOWER, len(long_ones)))))
    back = [p for name in ("messages", "manuals")
            for p in pairs(f"{catalogues}/train.{name}.en-de.jsonl") if words(p[1]) >= FEW - 1]
    back += pairs(f"{text}/train.translation-en-de.jsonl")
    rng.shuffle(back)
    made["en-de"] = back
    for name, found in made.items():
        write_pairs(f"{out}/{name}.jsonl", found)
    with open(f"{out}/ratio.json", "w", encoding="utf-8") as file:
        json.dump({f"{name}.jsonl": share for name, share in TEXTS.items()}, file, indent=2)
    for part in ("valid", "test"):
        for source in (f"{text}/{part}.translation", f"{text}/{part}.translation-en-de",
                       f"{text}/{part}.summary", f"{catalogues}/{part}.messages",
                       f"{catalogues}/{part}.manuals", f"{catalogues}/{part}.dictionary"):
            if os.path.exists(source + ".jsonl"):
                name = os.path.basename(source).replace("translation", "descriptions")
                write_pairs(f"{folder}/{name}.jsonl", pairs(source + ".jsonl"))


def link(source, target):
    if not os.path.islink(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)


def records_write(path, records):
    with open(path + ".part", "w", encoding="utf-8") as out:
        json.dump(records, out, ensure_ascii=False)
    os.replace(path + ".part", path)


def records_read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def conversations_make(source, target, prefix):
    """LLaVA records with their images below `prefix`; questions as a person asks them."""
    records = records_read(source)
    for record in records:
        record["image"] = prefix + record["image"]
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("\nAnswer with a word or phrase.", "")
    records_write(target, records)


def joint_make(folder, mixture, text_share):
    out = os.path.join(folder, mixture)
    os.makedirs(out + "/images", exist_ok=True)
    for name in ("1", "2", "many", "valid"):
        link(f"{folder}/world/images/{name}", f"{out}/images/{name}")
    ratio = {f"{name}.jsonl": round(text_share * share) for name, share in TEXTS.items()}
    for name in TEXTS:
        link(f"{folder}/texts/{name}.jsonl", f"{out}/{name}.jsonl")
    for name, share in IMAGES.items():
        if name in SOURCES:
            images = name.partition("-")[0]
            source = os.path.join(folder, SOURCES[name])
            if not os.path.exists(source) or not os.path.exists(f"{folder}/{images}/images"):
                if images == "more":  # all scenes are in world/
                    ratio[name.replace("more", "scenes") + ".json"] += share
                continue  # of the classes: they are not in the feature cache yet
            link(f"{folder}/{images}/images", f"{out}/images/{images}")
            conversations_make(source, f"{out}/{name}.json", images + "/")
        else:
            link(f"{folder}/world/{name}.json", f"{out}/{name}.json")
        ratio[name + ".json"] = share
    with open(f"{out}/ratio.json", "w", encoding="utf-8") as file:
        json.dump(ratio, file, indent=2)


def hard_kept(question, answer, rng):
    return answer.lower() not in EASY or HARD.search(question) or rng.random() <= EASY_KEPT


def late_kept(question, answer, rng):
    if not LATE_ASKED.search(question):
        return False
    soon = "background" in question.lower() or "hintergrund" in question.lower()
    return not soon or answer.lower() in EASY or rng.random() < LATE_KEPT


def verified_kept(question, answer, rng):
    return answer.lower() in ("yes", "no", "ja", "nein") and LATE_ASKED.search(question)


def naming_kept(question, answer, rng):
    return question in NAMING or question in NAMING_DE


def thinned(records, kept, rng):
    """The same conversations with those of their questions that are kept."""
    for record in records:
        turns, left = record["conversations"], []
        for human, gpt in zip(turns[::2], turns[1::2]):
            question = human["value"].replace("<image>\n", "")
            if kept(question, gpt["value"], rng):
                left += [{**human, "value": question if left else "<image>\n" + question}, gpt]
        if left:
            yield {**record, "conversations": left}


def hard_make(folder, mixture, text_share):
    """The joint mixture with thinned conversations."""
    joint, out = os.path.join(folder, "joint"), os.path.join(folder, mixture)
    os.makedirs(out, exist_ok=True)
    with open(f"{joint}/ratio.json", encoding="utf-8") as file:
        ratio = json.load(file)
    rng = random.Random(7)
    for name in ratio:
        stem = name.partition(".")[0]
        if stem in TEXTS:
            ratio[name] = round(text_share * TEXTS[stem])
        ratio[name] = FEWER.get(stem, ratio[name])
        if stem.startswith(("scenes", "more")):
            records_write(f"{out}/{name}", list(thinned(records_read(f"{joint}/{name}"), hard_kept, rng)))
        else:
            link(f"{joint}/{name}", f"{out}/{name}")
    with open(f"{out}/ratio.json", "w", encoding="utf-8") as file:
        json.dump(ratio, file, indent=2)
    if mixture == "late":
        late_add(folder, ratio, rng)


def unnamed_make(folder, mixture):
    if os.path.exists(f"{folder}/unnamed/scenes-many.json"):
        link(f"{folder}/unnamed/images", f"{folder}/joint/images/unnamed")
        conversations_make(f"{folder}/unnamed/scenes-many.json", f"{folder}/{mixture}/unnamed-many.json", "unnamed/")


def units_add(folder, mixture, ratio, units):
    """Units of those of these files that the mixture has."""
    ratio.update((f"{name}.json", number) for name, number in units.items()
                 if os.path.exists(f"{folder}/{mixture}/{name}.json"))
    with open(f"{folder}/{mixture}/ratio.json", "w", encoding="utf-8") as file:
        json.dump(ratio, file, indent=2)


def lengths_make(folder):
    joint_make(folder, "lengths", LENGTH_SHARE)
    unnamed_make(folder, "lengths")
    with open(f"{folder}/lengths/ratio.json", encoding="utf-8") as file:
        ratio = json.load(file)
    units_add(folder, "lengths", ratio, LENGTHS)


def late_add(folder, ratio, rng):
    """Files of questions that are learned last, of things without a name, and of names alone."""
    joint, late = os.path.join(folder, "joint"), os.path.join(folder, "late")
    records = [record for name in ("scenes-many", "more-many") if os.path.exists(f"{joint}/{name}.json")
               for record in records_read(f"{joint}/{name}.json")]
    records_write(f"{late}/late-many.json", list(thinned(records, late_kept, rng)))
    records_write(f"{late}/verified-many.json", list(thinned(records, verified_kept, rng)))
    unnamed_make(folder, "late")
    for name in ("classes", "photos"):
        if os.path.exists(f"{joint}/{name}.json"):
            records_write(f"{late}/{name}-named.json",
                          list(thinned(records_read(f"{joint}/{name}.json"), naming_kept, rng)))
    units_add(folder, "late", ratio, LATE)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = os.path.abspath(sys.argv[1])
    texts_make(folder)
    joint_make(folder, "joint", TEXT_SHARE)
    for mixture, share in HARD_SHARES.items():
        hard_make(folder, mixture, share)
    lengths_make(folder)


if __name__ == "__main__":
    main()
