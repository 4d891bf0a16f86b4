#!/usr/bin/env python3
"""Scores answers to questions that have several accepted answers ("answers" in GQA's records).

usage: data/prep/photos_answers.py QUESTIONS.json PREDICTIONS.json [ACCEPTED.json]
Prints accuracy by kind of question, which is the last part of its key. ACCEPTED.json gets the predictions with each accepted one in the
wording that `easyfirst score gqa` expects.

A prediction is accepted if it is one of the answers, or a sentence with one of them as whole words
(singular or plural), in at most LONGEST words, without denying it and without another choice: another
number or, unless some accepted answer has both, another color. Yes/no is the first word.
"""
import collections
import json
import re
import sys

LONGEST = 16
COLORS = ("red orange yellow green blue purple violet pink brown black white gray grey silver gold "
          "golden beige turquoise").split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
DENIALS = {"not", "no", "nothing", "unknown", "unsure"}
FRAME = {"a", "an", "the", "it", "its", "is", "are", "this", "that", "these", "there", "they"}


def words_of(text):
    return re.sub(r"[^\w\s]", " ", text.lower().replace("-", " ")).split()


def singular(word):
    if len(word) < 4:
        return word
    if word == "buses":
        return "bus"
    for end, other in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"),
                       ("ss", "ss"), ("us", "us"), ("s", "")):
        if word.endswith(end) and len(word) > len(end) + 1:
            return word[:-len(end)] + other
    return word


def base(words):
    """Numbers as digits, without articles, nouns in the singular."""
    return [str(NUMBERS.index(word)) if word in NUMBERS else singular(word) for word in words]


def holds(words, phrase):
    return any(words[i:i + len(phrase)] == phrase for i in range(len(words) - len(phrase) + 1))


def accepted(prediction, answers):
    """Whether the prediction is one of the answers or a short sentence with one."""
    words = words_of(prediction)
    if set(answers) & {"yes", "no"}:
        return bool(words) and words[0] in answers
    given, known = base(words), [base(words_of(answer)) for answer in answers]
    if given in known or base([word for word in words if word not in FRAME]) in known:
        return True
    if not words or len(words) > LONGEST or DENIALS & set(words):
        return False
    every = {word for answer in known for word in answer}
    others = [word for word in given if word in COLORS or word.isdigit()]
    asks_choice = any(word in COLORS or word.isdigit() for word in every)
    if asks_choice and any(word not in every for word in others):
        return False
    return any(holds(given, answer) for answer in known)


def predictions_accept(predictions, questions):
    """The predictions with each accepted one in the words of its record's "answer"."""
    out = []
    for one in predictions:
        record = questions.get(one["questionId"], {})
        right = "answers" in record and accepted(one["prediction"], record["answers"])
        out.append({**one, "prediction": record["answer"]} if right else one)
    return out


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            questions = json.load(file)
        with open(sys.argv[2], encoding="utf-8") as file:
            predictions = json.load(file)
        changed = predictions_accept(predictions, questions)
        given = {one["questionId"]: one["prediction"] for one in changed}
        counts = collections.defaultdict(lambda: [0, 0])
        for key, record in questions.items():
            for group in ("all", key.rsplit("-", 1)[-1]):
                counts[group][0] += given.get(key) == record["answer"]
                counts[group][1] += 1
        for group, (right, count) in sorted(counts.items()):
            print(f"{group}\t{right} of {count}\t{100 * right / count:.1f} %")
        if len(sys.argv) == 4:
            with open(sys.argv[3], "w", encoding="utf-8") as file:
                json.dump(changed, file, ensure_ascii=False)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"photos_answers.py: {error}")


if __name__ == "__main__":
    main()
