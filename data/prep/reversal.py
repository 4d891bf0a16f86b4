#!/usr/bin/env python3
"""Reversal: facts learned in one direction and asked in both, by masked diffusion and by an autoregressive
model.

usage: data/prep/reversal.py OUT [--pairs N] [--both N] [--layers N] [--width N] [--steps N] [--seed N]
           [--threads N] [--small] [--facts-only]
  OUT      gets the facts, the models, reversal.md, reversal.svg and reversal.json; the same command resumes
  --pairs  learned in one direction: half as "NAME wrote BOOK", half as "BOOK was written by NAME" (200)
  --both   learned in both, which shows that the two say the same (400)
  --layers, --width   of the models (3, 128)
  --steps  updates of 2,048 tokens (800)
  --small  40 and 80 pairs, 2 layers of 64: a minute
  --facts-only   writes OUT/facts and ends

Names and books are made up, two or three words each, and no two share more than one of them. A sentence is one text,
of which diffusion masks any words; it is asked by its beginning. Right is the exact name or book. The facts
are all that the models know: nothing is held out but the direction. EASYFIRST is the program
(build/easyfirst).
"""
import json
import os
import random
import sys

from experiment import WAYS, Experiment, curve_read, options_read, parser_make, tokenizer_write
from plot import Panel, draw

SMALL = {"pairs": 40, "both": 80, "layers": 2, "width": 64, "steps": 300}
BEGIN, MIDDLE = ("Ba", "Co", "De", "Fi", "Ga", "Hu", "Jo", "Ka", "Lu", "Mi"), ("lan", "rem", "vis", "don", "ter", "nik")
FORWARD, BACKWARD = "wrote", "was written by"


def words_make(rng, count, ends):
    made = [begin + middle + end for begin in BEGIN for middle in MIDDLE for end in ends]
    return rng.sample(made, count)


def pairs_make(count, seed):
    """(name, book) and all words that they have. A first name, last name, adjective or noun occurs several times;
    only both words together say who or what it is."""
    rng = random.Random(f"reversal {count} {seed}")
    side = 2
    while side * side < 2 * count:
        side += 1
    first, last = words_make(rng, side, "ae"), words_make(rng, side, ("son", "ing"))
    describing, things = words_make(rng, side, ("ous", "ful")), words_make(rng, side, ("um", "or"))
    cells = [(a, b) for a in range(side) for b in range(side)]
    people, books = rng.sample(cells, count), rng.sample(cells, count)
    pairs = [(f"{first[a]} {last[b]}", f"The {describing[c]} {things[d]}")
             for (a, b), (c, d) in zip(people, books, strict=True)]
    return pairs, [*first, *last, *describing, *things, "The", *FORWARD.split(), *BACKWARD.split()]


def lines_write(path, records):
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"inputs": inputs, "targets": targets}) + "\n" for inputs, targets in records)
    os.replace(path + ".part", path)


def facts_write(out, pairs, both, seed):
    """train.jsonl, whose prompts are empty, and the questions about all pairs: as learned and reversed; those of
    `both` are learned in both directions. Returns all words."""
    os.makedirs(out, exist_ok=True)
    made, words = pairs_make(pairs + both, seed)
    texts, learned, turned, twice = [], [], [], []
    for number, (name, book) in enumerate(made):
        forward, backward = (f"{name} {FORWARD}", book), (f"{book} {BACKWARD}", name)
        if number >= pairs:
            texts += [forward, backward]
            twice += [forward, backward]
        else:
            said, other = (forward, backward) if number < pairs // 2 else (backward, forward)
            texts.append(said)
            learned.append(said)
            turned.append(other)
    lines_write(f"{out}/train.jsonl", [("", " ".join(text)) for text in texts])
    for name, questions in (("learned", learned), ("reversed", turned), ("both", twice)):
        lines_write(f"{out}/{name}.jsonl", questions)
    return words


def main():
    parser = parser_make(__doc__, 800, SMALL)
    for name, default in (("pairs", 200), ("both", 400), ("layers", 3), ("width", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--facts-only", action="store_true")
    options = options_read(parser)
    experiment = Experiment(options)
    out = experiment.out
    words = facts_write(f"{out}/facts", options.pairs, options.both, options.seed)
    if options.facts_only:
        return
    tokenizer_write(f"{out}/tokenizer", [" " + word for word in words], spaced=True)
    rows, curves = [], []
    table = ["| asked | diffusion | autoregressive |", "|---|---:|---:|"]
    for way in WAYS:
        model = experiment.fresh(way, f"{out}/tokenizer", options.layers, options.width, 32, 32, "llada")
        run = experiment.train(way, model, way, f"{out}/facts/train.jsonl", options.steps, "--lr", "2e-3",
                               "--batch-tokens", 2048, "--log-every", max(1, options.steps // 40), "--valid",
                               f"{out}/facts/reversed.jsonl", "--valid-limit", 200, "--valid-answers", 200,
                               "--best-by", "exact", "--valid-every", max(1, options.steps // 8))
        curves.append((way, [curve_read(run, "valid_score")]))
        for name in ("learned", "reversed", "both"):
            score = experiment.exact(f"{run}/model", f"{out}/facts/{name}.jsonl", f"{way}-{name}")
            rows.append({"name": f"{way}, {name}", "way": way, "asked": name, **score})
            print(f"{rows[-1]['name']}: {score['value']:.1f} %", file=sys.stderr, flush=True)
    for name, title in (("learned", "as learned"), ("reversed", "the other way round"),
                        ("both", "either way, learned both ways")):
        found = [row for row in rows if row["asked"] == name]
        table.append(f"| {title} | " + " | ".join(f"{r['value']:.1f} ({r['low']:.1f} to {r['high']:.1f})"
                                                  for r in found) + " |")
    draw("Facts asked the other way round, over updates",
         [Panel("Asked the other way round, right (%)", curves, below="updates", scale=1, low=0, high=105, dots=True)],
         f"{out}/reversal.svg")
    experiment.finish("reversal", vars(options), rows, table)
    print(f"{out}/reversal.md, {out}/reversal.svg, {out}/reversal.json")


if __name__ == "__main__":
    main()
