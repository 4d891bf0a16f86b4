"""Writes tests/golden/order/order.json: what order statistics should be, computed another way.

usage: python3 tests/reference/make_order.py [FILE]     (needs numpy and scipy)

  correlations  pairs of whole numbers with ties; Kendall's tau-b and Spearman's rho by scipy (null: not
                defined)
  set           random answers, each a list of steps (ids, -1 for a mask) with the pieces of its ids and a
                prompt; of each the counts, from the story of each place as a text; of the set the share of
                pairs in which an easy word was first, from scipy's Mann-Whitney U of each answer: its sum,
                the pairs, and the mean sum of random orders
  graphs        steps of an answer's tokens, segments of tokens, edges; the shares under random order are
                exact: all permutations
"""

import itertools
import json
import random
import re
import sys
from pathlib import Path

import numpy
from scipy.stats import kendalltau, mannwhitneyu, spearmanr

WORDS = ["the", "is", "a", "dog", "cat", "red", "on", "sea", "hat", "two", "old", "sky"]
SHARE = 0.4
DEALS = 1000  # random orders of an answer


def defined(value):
    value = float(value)
    return value if value == value else None


def correlations(rng):
    cases = []
    for n in [2, 3, 3, 4, 5, 7, 8, 12, 20, 33, 64, 101]:
        for most in [1, 2, n // 2 + 1, 3 * n]:
            x = [rng.randint(-most, most) for _ in range(n)] if most % 2 else list(range(n))
            y = [rng.randint(1, most) for _ in range(n)]
            kendall = spearman = None
            if len(set(x)) > 1 and len(set(y)) > 1:
                kendall, spearman = kendalltau(x, y, variant="b").statistic, spearmanr(x, y).statistic
            cases.append({"x": x, "y": y, "kendall": kendall and defined(kendall),
                          "spearman": spearman and defined(spearman)})
    return cases


def random_answer(rng):
    """Pieces of words, some in two halves, and steps that mask, write and write over."""
    pieces = []
    for _ in range(rng.randint(1, 9)):
        word = rng.choice(WORDS)
        pieces += ["\u2581" + word[0], word[1:]] if len(word) > 1 and rng.random() < 0.3 else ["\u2581" + word]
    pieces[-1:] = [pieces[-1], "."] if rng.random() < 0.5 else [pieces[-1]]
    n = len(pieces)
    final = [1000 + i for i in range(n)]
    steps, now = [], [-1] * n
    for _ in range(rng.randint(1, 12)):
        for i in range(n):
            if rng.random() < 0.4:
                now[i] = rng.choice([-1, final[i], 7, 8])
        steps.append(list(now))
    steps.append(final)
    for _ in range(rng.randint(0, 2)):
        steps.append(final)
    return {"steps": steps, "pieces": pieces, "prompt": "Is the %s %s?" % (rng.choice(WORDS), rng.choice(WORDS).upper())}


def places(answer):
    found = []
    for column in zip(*answer["steps"]):
        runs = [(value, len(list(run))) for value, run in itertools.groupby((-1,) + column)]
        starts, at = [], 0
        for value, length in runs:
            starts.append((value, at))
            at += length
        written = [(v, s) for v, s in starts if v != -1]
        erasures = sum(1 for (v, _), following in zip(starts, starts[1:]) if v != -1)
        found.append({"first": written[0][1] if written else 0,
                      "last": starts[-1][1] if starts[-1][0] != -1 else 0,
                      "writes": len(written), "erasures": erasures,
                      "rewrites": max(len(written) - 1, 0),
                      "returns": sum(a == b for (a, _), (b, _) in zip(written, written[1:]))})
    return found


def answer_words(answer, story):
    """(word, step in which its last piece was written, was first seen), without punctuation."""
    words = []
    for piece, place in zip(answer["pieces"], story):
        if piece == ".":
            continue
        if piece[0] == "\u2581":
            words.append([piece[1:], place["last"], place["first"]])
        else:
            words[-1] = [words[-1][0] + piece, max(words[-1][1], place["last"]), max(words[-1][2], place["first"])]
    return words


def u_share(easy, content):
    """How often easy is the smaller one, ties half, and the number of pairs."""
    if not easy or not content:
        return 0.0, 0
    return float(mannwhitneyu(content, easy, method="asymptotic").statistic), len(easy) * len(content)


def count_pairs(words, fixed, prompt):
    """[share, pairs] of each kind of easy words."""
    kinds = {"fixed": [], "copied": [], "content": []}
    for word, time, seen in words:
        kinds["fixed" if word in fixed else "copied" if word in prompt else "content"].append((time, seen))
    column = lambda kind, k: [w[k] for w in kinds[kind]]
    return {"fixed": u_share(column("fixed", 0), column("content", 0)),
            "copied": u_share(column("copied", 0), column("content", 0)),
            "both": u_share(column("fixed", 0) + column("copied", 0), column("content", 0)),
            "seen": u_share(column("fixed", 1) + column("copied", 1), column("content", 1))}


def random_set(rng):
    answers = [random_answer(rng) for _ in range(25)]
    stories = [places(a) for a in answers]
    words = [answer_words(a, s) for a, s in zip(answers, stories)]
    holders = {w: sum(any(w == x[0] for x in one) for one in words) for w in WORDS}
    fixed = {w for w, n in holders.items() if n >= 2 and n >= SHARE * len(answers)}
    sums = {kind: [0.0, 0, 0.0] for kind in ["fixed", "copied", "both", "seen"]}
    expected = []
    for answer, one, story in zip(answers, words, stories):
        prompt = set(re.findall(r"\w+", answer["prompt"].lower()))
        for kind, (share, pairs) in count_pairs(one, fixed, prompt).items():
            sums[kind][0] += share
            sums[kind][1] += pairs
        for _ in range(DEALS):
            dealt = answer_words(answer, rng.sample(story, len(story)))
            for kind, (share, _) in count_pairs(dealt, fixed, prompt).items():
                sums[kind][2] += share / DEALS
        before = numpy.array([[-1] * len(story)] + answer["steps"])
        wrote = ((before[1:] != before[:-1]) & (before[1:] != -1)).sum(1)
        lasts = [p["last"] for p in story]
        good = len(lasts) > 2 and len(set(lasts)) > 1
        expected.append({"places": story, "writing_steps": int((wrote > 0).sum()),
                         "several_steps": int((wrote > 1).sum()),
                         "kendall": defined(kendalltau(range(len(lasts)), lasts).statistic) if good else None})
    return {"fixed_share": SHARE, "fixed": sorted(fixed), "answers": answers, "expected": expected,
            "pairs": sums}


def random_graphs(rng):
    cases = []
    for n in [2, 3, 4, 5, 6, 7]:
        for _ in range(2):
            lasts = [rng.randint(1, rng.choice([2, 9])) for _ in range(n)]
            cuts = sorted(rng.sample(range(1, n), min(n - 1, rng.randint(1, 3))))
            segments = [list(pair) for pair in zip([0] + cuts, cuts + [n])]
            pairs = [list(p) for p in itertools.combinations(range(len(segments)), 2)]
            edges = rng.sample(pairs, rng.randint(1, len(pairs)))

            def respected(times):
                ends = [max(times[a:b]) for a, b in segments]
                return (sum(ends[a] < ends[b] for a, b in edges), sum(ends[a] <= ends[b] for a, b in edges))

            all_orders = numpy.array([respected(p) for p in itertools.permutations(lasts)])
            strict, lax = respected(lasts)
            mean, whole = all_orders.mean(0), (all_orders == len(edges)).mean(0)
            cases.append({"lasts": lasts, "segments": segments, "edges": edges, "strict": strict, "lax": lax,
                          "chance_strict": mean[0], "chance_lax": mean[1], "chance_sort_strict": whole[0],
                          "chance_sort_lax": whole[1]})
    return cases


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/order/order.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(20)
    result = {"correlations": correlations(rng), "set": random_set(rng), "graphs": random_graphs(rng)}
    out.write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=True) + "\n")


main()
