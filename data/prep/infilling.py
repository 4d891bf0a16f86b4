"""How often a model finds words that were removed from sentences: the exact recovery of infilling,
easy words first and left to right.

usage: python3 data/prep/infilling.py MODEL FILE [COUNT]     (after `make`; needs nothing but Python)

FILE has lines {"inputs", "targets"} of JSON. Of each of the first COUNT (500) targets with at least
eight words, three words of letters, not next to each other, are removed, at random but with a fixed
seed. They are filled in after the line's prompt ("inputs") and without one, in gaps of the words'
own numbers of tokens (___{N}) and in gaps without a length, which costs several hypotheses. A word
is recovered if it is the same text; a sentence if all three are. Evaluations are runs of the
network, a sentence's hypotheses together.
"""

import json
import os
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "projector" / "python"))
import easyfirst

REMOVED, LEAST_WORDS = 3, 8


def removed_words(words, draw):
    """Places of three words of letters that are not next to each other; None without them."""
    places = [i for i, word in enumerate(words) if re.fullmatch(r"[^\W\d_]+", word)]
    for _ in range(50):
        chosen = sorted(draw.sample(places, min(REMOVED, len(places))))
        if len(chosen) == REMOVED and all(b - a > 1 for a, b in zip(chosen, chosen[1:])):
            return chosen
    return None


def sentences(path, count):
    """(prompt, words, places of the removed ones)."""
    draw, found = random.Random(17), []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        words = record["targets"].split()
        if len(words) < LEAST_WORDS or "__" in record["targets"] or "\\" in record["targets"]:
            continue
        places = removed_words(words, draw)
        if places:
            found.append((record["inputs"], words, places))
        if len(found) == count:
            break
    return found


def template(words, places, gap):
    return " ".join(gap(word) if i in places else word for i, word in enumerate(words))


def measure(model, cases, prompted, tokens, **options):
    """Shares of words and sentences that are recovered, and evaluations of a sentence."""
    def gap(word):
        return "___{%d}" % tokens[word] if tokens else "___"

    requests = [
        easyfirst.Complete(prompt if prompted else "", template=template(words, places, gap))
        for prompt, words, places in cases
    ]
    answers = model.answer(requests, **options)
    right = whole = evaluations = failed = 0
    for (_, words, places), answer in zip(cases, answers):
        failed += answer.text is None
        evaluations += answer.evaluations
        given = (answer.text or "").split()
        same = [len(given) == len(words) and given[i] == words[i] for i in places]
        right, whole = right + sum(same), whole + all(same)
    n = len(cases)
    if failed:
        print(f"{failed} of {n} do not fit the model and count as wrong", file=sys.stderr)
    return right / (REMOVED * n), whole / n, evaluations / n


def main():
    model = easyfirst.Model(sys.argv[1], text_only=True)
    cases = sentences(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 500)
    removed = {words[i] for _, words, places in cases for i in places}
    tokens = {word: model.check(easyfirst.Complete(word, length=1)) for word in removed}
    print(f"{len(cases)} sentences of {os.path.basename(sys.argv[2])}, {REMOVED} words removed")
    print("| prompt | gaps | strategy | words | sentences | evaluations |\n|---|---|---|---|---|---|")
    for prompted in (True, False):
        for lengths in (tokens, None):
            for name, strategy in (("easy first", None), ("left to right", "ar")):
                words, whole, evaluations = measure(model, cases, prompted, lengths, strategy=strategy)
                print(f"| {'yes' if prompted else 'no'} | {'given' if lengths else 'tried'} | {name} | "
                      f"{100 * words:.1f} % | {100 * whole:.1f} % | {evaluations:.1f} |", flush=True)


if __name__ == "__main__":
    main()
