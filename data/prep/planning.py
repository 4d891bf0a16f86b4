#!/usr/bin/env python3
"""Planning: paths of star graphs, by masked diffusion, by an autoregressive model and by a random walk
(arXiv 2308.12219, figures 7 and 8, in small).

usage: data/prep/planning.py OUT [--degrees D,...] [--length L] [--nodes N] [--graphs N] [--questions N]
           [--layers N] [--width N] [--steps N] [--seed N] [--threads N] [--small]
  OUT          gets the graphs, the models, planning.md, planning.svg and planning.json; the same command
               resumes
  --degrees    arms that leave the start (2,4)
  --length     nodes of an arm (5)
  --nodes      that a graph's nodes are drawn from (30)
  --graphs     for training (200,000)
  --questions  unseen graphs that are asked (2,000)
  --layers, --width   of the models (3, 128)
  --steps      updates of 2,048 tokens for each 40 tokens of a graph (1,600)
  --small      two arms of 3 nodes, 200 questions, 2 layers of 64: a minute

The two models have the same weights' number, data and updates. An answer is right if it is the path,
exactly. EASYFIRST is the program (build/easyfirst).
"""
import sys

from experiment import WAYS, Experiment, curve_read, options_read, parser_make, tokenizer_write
from plot import Panel, draw
from star_graphs import graphs_write

SMALL = {"degrees": "2", "length": 3, "nodes": 12, "graphs": 20_000, "questions": 200, "layers": 2, "width": 64,
         "steps": 600}
POINTS, VALID = 8, 200  # of a curve; graphs of each


def tokens_of(degree, length):
    """Of a line: four an edge, start and goal, the path, the end."""
    return 4 * degree * (length - 1) + 4 + 2 * length


def ways_measure(experiment, options, degree):
    """(rows, curves) of one degree."""
    base = f"{experiment.out}/degree-{degree}"
    graphs_write(base, degree, options.length, options.nodes, options.graphs, options.questions, options.seed,
                 VALID)
    steps = options.steps * tokens_of(degree, options.length) // 40
    rows, curves = [], []
    for way in WAYS:
        model = experiment.fresh(way, f"{experiment.out}/tokenizer", options.layers, options.width,
                                 tokens_of(max(options.degrees), options.length) + 2)
        run = experiment.train(way, model, f"degree-{degree}/{way}", f"{base}/train.txt", steps, "--lr", "2e-3",
                               "--batch-tokens", 2048, "--valid", f"{base}/valid.txt", "--valid-limit", VALID,
                               "--valid-answers", VALID, "--best-by", "exact", "--valid-every",
                               max(1, steps // POINTS))
        score = experiment.exact(f"{run}/model", f"{base}/test.txt", f"degree-{degree}/{way}-exact")
        rows.append({"name": f"{way}, degree {degree}", "degree": degree, "way": way, "updates": steps, **score})
        curves.append((way, [curve_read(run, "valid_score")]))
        print(f"{rows[-1]['name']}: {score['value']:.1f} %", file=sys.stderr, flush=True)
    chance = 100 / degree
    rows.append({"name": f"random walk, degree {degree}", "degree": degree, "way": "random walk", "value": chance,
                 "low": chance, "high": chance})
    curves.append(("random walk", [[(0, chance), (steps, chance)]]))
    return rows, curves


def main():
    parser = parser_make(__doc__, 1600, SMALL)
    parser.add_argument("--degrees", default="2,4")
    for name, default in (("length", 5), ("nodes", 30), ("graphs", 200_000), ("questions", 2_000), ("layers", 3),
                          ("width", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = options_read(parser)
    options.degrees = [int(degree) for degree in options.degrees.split(",")]
    experiment = Experiment(options)
    tokenizer_write(f"{experiment.out}/tokenizer", map(str, range(options.nodes)))
    rows, panels = [], []
    table = ["| degree | diffusion | autoregressive | random walk |", "|---:|---:|---:|---:|"]
    for degree in options.degrees:
        found, curves = ways_measure(experiment, options, degree)
        rows += found
        table.append(f"| {degree} | " + " | ".join(
            f"{r['value']:.1f} ({r['low']:.1f} to {r['high']:.1f})" if "updates" in r else f"{r['value']:.1f}"
            for r in found) + " |")
        panels.append(Panel(f"Paths right, degree {degree} (%)", curves, below="updates", scale=1, low=0, high=105,
                            dots=True))
    draw("Paths of star graphs that are exactly right, over updates", panels, f"{experiment.out}/planning.svg")
    experiment.finish("planning", vars(options), rows, table)
    print(f"{experiment.out}/planning.md, {experiment.out}/planning.svg, {experiment.out}/planning.json")


if __name__ == "__main__":
    main()
