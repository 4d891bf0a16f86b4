#!/usr/bin/env python3
"""Planning: paths of star graphs, by masked diffusion, by an autoregressive model and by a random walk
(arXiv 2308.12219v3, figures 7 and 8, in small).

usage: data/prep/planning.py OUT [--degrees D,...] [--learned D,...] [--length L] [--nodes N] [--graphs N]
           [--few N] [--questions N] [--layers N] [--width N] [--steps N] [--seed N] [--threads N] [--small]
  OUT          gets the graphs, the models, planning.md, planning.svg and planning.json; the same command
               resumes
  --degrees    arms of the graphs that are asked (2,4)
  --learned    arms of those that are learned from (1,2,4)
  --length     nodes of an arm (4)
  --nodes      that a graph's nodes are drawn from, at least (12); at least one more than it has
  --graphs     for training, of each degree (100,000)
  --few        of one arm, where a model learns to look hops up (6,000)
  --questions  unseen graphs that are asked, of each degree (2,000)
  --layers, --width   of the models (2, 64)
  --steps      updates of 2,048 tokens (6,000)
  --small      one and two arms of 3 nodes, 200 questions, 600 updates: a minute

The two models have equally many weights, the same data and as many updates: 6 minutes on two cores. Diffusion is
LLaDA's objective with complementary masks, predictions shifted. An answer is right if it is the path, exactly. EASYFIRST is the program
(build/easyfirst).
"""
import sys

from experiment import WAYS, Experiment, options_read, parser_make, tokenizer_write
from plot import Panel, draw
from star_graphs import graphs_write

SMALL = {"degrees": "2", "learned": "1,2", "length": 3, "graphs": 20_000, "questions": 200, "steps": 600}
HEAD = 32  # a head's width
POINTS, VALID = 8, 200  # of a curve; graphs of each
HELD, OTHER_SEED = 500, 76  # graphs that curves are drawn with; added to the seed for those that are asked


def tokens_of(degree, length):
    """Of a line: four an edge, start and goal, the path, the end."""
    return 4 * degree * (length - 1) + 4 + 2 * length


def nodes_of(options, degree):
    """That a graph's nodes are drawn from."""
    return max(options.nodes, degree * (options.length - 1) + 2)


def way_train(experiment, options, way):
    most = max(options.learned + options.degrees)
    model = experiment.fresh(way, f"{experiment.out}/tokenizer", options.layers, options.width,
                             max(64, tokens_of(most, options.length) + 2), HEAD, "llama")
    files = [f"{experiment.out}/graphs-{degree}/train.txt" for degree in options.learned]
    every = max(1, options.steps // POINTS)
    return experiment.train(way, model, way, files[0], options.steps, "--lr", "4e-3", "--batch-tokens", 2048,
                            *[word for file in files[1:] for word in ("--data", file)],
                            *(("--complementary",) if way == "diffusion" else ()),
                            "--group", "off", "--save-every", every, "--keep", POINTS + 1)


def way_measure(experiment, options, way, run, degree):
    """The last model's score of all questions, and the curve of some of them."""
    score = experiment.exact(f"{run}/model", f"{experiment.out}/asked-{degree}/test.txt", f"{way}-{degree}")
    test = f"{experiment.out}/graphs-{degree}/test.txt"
    curve = []
    for step in experiment.checkpoints(run):
        name = f"{run}/checkpoint-{step:08d}"
        curve.append((step, experiment.exact(name, test, f"{way}-{degree}-{step}", "--limit", VALID)["value"]))
    return score, [*curve, (options.steps, score["value"])]


def degree_measure(experiment, options, runs, degree):
    rows, curves = [], []
    for way, run in runs.items():
        score, curve = way_measure(experiment, options, way, run, degree)
        rows.append({"name": f"{way}, degree {degree}", "degree": degree, "way": way, **score})
        curves.append((way, [curve]))
        print(f"{rows[-1]['name']}: {score['value']:.1f} %", file=sys.stderr, flush=True)
    chance = 100 / degree
    rows.append({"name": f"random walk, degree {degree}", "degree": degree, "way": "random walk", "value": chance,
                 "low": chance, "high": chance})
    curves.append(("random walk", [[(0, chance), (options.steps, chance)]]))
    return rows, Panel(f"Paths right, degree {degree} (%)", curves, below="updates", scale=1, low=0, high=105,
                       dots=True)


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = parser_make(__doc__, 6000, SMALL)
    parser.add_argument("--degrees", default="2,4")
    parser.add_argument("--learned", default="1,2,4")
    for name, default in (("length", 4), ("nodes", 12), ("graphs", 100_000), ("few", 6_000), ("questions", 2_000),
                          ("layers", 2), ("width", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = options_read(parser)
    options.degrees, options.learned = numbers(options.degrees), numbers(options.learned)
    experiment = Experiment(options)
    most = max(options.learned + options.degrees)
    tokenizer_write(f"{experiment.out}/tokenizer", map(str, range(nodes_of(options, most) + 2)))
    for degree in sorted({*options.degrees, *options.learned}):
        nodes = nodes_of(options, degree)
        graphs = options.graphs if degree > 1 else min(options.few, options.graphs)
        kind = (degree, options.length, nodes)
        held = min(HELD, options.questions)
        known = graphs_write(f"{experiment.out}/graphs-{degree}", *kind, graphs, held, options.seed)
        if degree in options.degrees:
            graphs_write(f"{experiment.out}/asked-{degree}", *kind, 0, options.questions,
                         options.seed + OTHER_SEED, known)
    runs = {way: way_train(experiment, options, way) for way in WAYS}
    rows, panels = [], []
    table = ["| degree | diffusion | autoregressive | random walk |", "|---:|---:|---:|---:|"]
    for degree in options.degrees:
        found, panel = degree_measure(experiment, options, runs, degree)
        rows += found
        panels.append(panel)
        table.append(f"| {degree} | " + " | ".join(
            f"{r['value']:.1f} ({r['low']:.1f} to {r['high']:.1f})" if "questions" in r else f"{r['value']:.1f}"
            for r in found) + " |")
    draw("Paths of star graphs that are exactly right, over updates", panels, f"{experiment.out}/planning.svg")
    experiment.finish("planning", vars(options), rows, table)
    print(f"{experiment.out}/planning.md, {experiment.out}/planning.svg, {experiment.out}/planning.json")


if __name__ == "__main__":
    main()
