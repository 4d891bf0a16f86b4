#!/usr/bin/python3
"""Scores answers as a person would: with synonyms (synonyms.tsv), by subject, and with the share of
answers that say that the model does not know.

usage: answers_score.py world QUESTIONS.json PREDICTIONS.json [MODEL]   what `eval gqa` wrote for a set;
                                                    of MODEL, a calibrated folder, also the share of
                                                    answers for which `ask` says "not sure"
       answers_score.py ask QUESTIONS.jsonl                     natural.tsv's questions, for that
       answers_score.py natural ANSWERS.jsonl                   what `eval gqa` answered to these
"""

import collections
import json
import math
import os
import re
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
SUBJECTS = {
    "existence": ("exist", "existKind", "existChoose", "verifyThisYes", "verifyThisNo",
                  "categoryThisChoose", "photoExist"),
    "naming": ("categoryThis", "categoryName", "colorName", "placeName", "placeNothing", "relName",
               "photoSubject"),
    "kind": ("kindOf", "kindChoose"),
    "color": ("color", "chooseColor", "verifyColor", "photoColor"),
    "background": ("backgroundColor", "backgroundPattern", "backgroundVerify", "patternVerify"),
    "number": ("count", "countAll", "countKind", "countVerify", "countSeveral",
               "photoNumber"),
    "position": ("positionChoose", "heightChoose", "positionQuery", "positionVerify",
                 "photoPlace"),
    "relation": ("relPlace", "relVerify", "relChoose"),
    "size": ("chooseLarger", "verifyLarger", "sizeName"),
    "use": ("photoUse",),
    "clothing": ("photoClothing",),
    "unknown": ("unknownThing", "unknownNoise", "unknownSeen", "unknownAnswer", "unknownPremise"),
}
SUBJECT_OF = {detailed: name for name, types in SUBJECTS.items() for detailed in types}


def plain(text):
    """In lower case, without a final stop, an article or spaces around it."""
    return re.sub(r"^(an?|the) ", "", text.lower().strip().rstrip(".!").strip())


def table_read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t") for line in file if not line.startswith("#")]


def unknowing(text):
    """Whether an answer says that the model does not know, or that the premise is wrong."""
    return bool(re.match(r"i do not know|i don't know|not sure|there (is|are) no\b", plain(text)))


def unsure_read(model, answers_path):
    """Keys of the answers for which `ask` says "not sure" (easyfirst calibrate)."""
    with open(os.path.join(model, "easyfirst.json"), encoding="utf-8") as file:
        calibration = json.load(file)["calibration"]
    unsure = set()
    with open(answers_path, encoding="utf-8") as file:
        for one in map(json.loads, file):
            told = one["metadata"]
            if told["length"] > calibration.get("longest", told["length"]):
                continue
            sure = 1 / (1 + math.exp(-calibration["slope"] * told["score"] - calibration["offset"] -
                                     calibration.get("length", 0) * told["length"]))
            if sure < calibration["threshold"]:
                unsure.add(one["question_id"])
    return unsure


def world_score(questions_path, predictions_path, model=None):
    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    with open(predictions_path, encoding="utf-8") as file:
        predictions = {one["questionId"]: one["prediction"] for one in json.load(file)}
    synonyms = {plain(name): {plain(other) for other in others}
                for name, *others in table_read("synonyms.tsv")}
    unsure = unsure_read(model, os.path.join(os.path.dirname(predictions_path), "answers.jsonl")) if model else set()
    counts = collections.defaultdict(lambda: [0, 0, 0, 0])
    for key, record in questions.items():
        answer, given = plain(record["answer"]), plain(predictions.get(key, ""))
        right = given == answer or given in synonyms.get(answer, ())
        detailed = record["types"]["detailed"]
        for name in (SUBJECT_OF.get(detailed, "other"), "all"):
            counts[name][0] += 1
            counts[name][1] += right
            counts[name][2] += unknowing(given)
            counts[name][3] += unknowing(given) or key in unsure
    print(f"{'subject':12}{'questions':>10}{'right':>9}{'not known':>11}{'or not sure' if model else '':>13}".rstrip())
    for name in [*SUBJECTS, "other", "all"]:
        if name in counts:
            total, right, unknown, either = counts[name]
            print(f"{name:12}{total:10}{100 * right / total:8.1f}%{100 * unknown / total:10.1f}%" +
                  (f"{100 * either / total:12.1f}%" if model else ""))


def accepted(given, patterns):
    given = plain(given)
    for pattern in patterns:
        if pattern.startswith("~"):
            if all(re.search(rf"\b{re.escape(word)}\b", given) for word in pattern[1:].split("&")):
                return True
        elif given == pattern or (pattern in ("yes", "no") and given.startswith(pattern + ",")):
            return True
    return False


def natural_ask(path):
    with open(path, "w", encoding="utf-8") as file:
        for number, (image, question, _) in enumerate(table_read("natural.tsv"), 1):
            file.write(json.dumps({"question_id": str(number), "image": image + ".jpg",
                                   "text": question}) + "\n")


def natural_score(path):
    with open(path, encoding="utf-8") as file:
        answers = {one["question_id"]: one["text"] for one in map(json.loads, file)}
    rows, right = table_read("natural.tsv"), 0
    for number, (image, question, patterns) in enumerate(rows, 1):
        given = answers.get(str(number), "")
        good = accepted(given, patterns.split("|"))
        right += good
        print(f"{'right' if good else 'WRONG'}\t{image}\t{question}\t{given}")
    print(f"{right} of {len(rows)}")


def main():
    words = sys.argv[1:]
    ways = {"world": (world_score, 2), "ask": (natural_ask, 1), "natural": (natural_score, 1)}
    most = {"world": 4}
    if not words or words[0] not in ways or \
            not 1 + ways[words[0]][1] <= len(words) <= most.get(words[0], 1 + ways[words[0]][1]):
        sys.exit(__doc__)
    ways[words[0]][0](*words[1:])


if __name__ == "__main__":
    main()
