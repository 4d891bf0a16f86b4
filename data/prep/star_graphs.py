#!/usr/bin/env python3
"""Star graphs with their paths, to plan with: "2,8|5,2|5,9|9,3/5,8=5,2,8", edges / start, goal = path.

usage: data/prep/star_graphs.py OUT [--degree D] [--length L] [--nodes N] [--train N] [--test N] [--seed N]
  OUT       gets train.txt and test.txt, a graph a line
  --degree  arms that leave the start (2)
  --length  nodes of an arm, the start included (5)
  --nodes   nodes are drawn from 0 to N - 1 (20)
  --train, --test   graphs (100,000 and 2,000); no two are the same
  --seed    (1)

Edges lead away from the start and are in random order; the goal is the end of a random arm. The same
arguments give the same bytes. Only one way out of the start is right, so a walk that follows edges from
there by chance reaches the goal with probability 1 / D.
"""
import argparse
import os
import random
import sys


def graph_draw(rng, degree, length, nodes):
    """A start, its arms, and the edges in random order."""
    drawn = rng.sample(range(nodes), 1 + degree * (length - 1))
    start = drawn.pop()
    arms = [[start, *drawn[i:i + length - 1]] for i in range(0, len(drawn), length - 1)]
    edges = [edge for arm in arms for edge in zip(arm, arm[1:])]
    rng.shuffle(edges)
    return arms[rng.randrange(degree)], edges


def graph_text(path, edges):
    return (f'{"|".join(f"{a},{b}" for a, b in edges)}/{path[0]},{path[-1]}='
            f'{",".join(map(str, path))}')


def graphs_draw(count, degree, length, nodes, seed, seen):
    """`count` different ones, whatever the order of the edges, and none that was seen; adds to these."""
    rng, before = random.Random(f"star {degree} {length} {nodes} {seed}"), len(seen)
    while len(seen) - before < count:
        path, edges = graph_draw(rng, degree, length, nodes)
        key = hash((path[-1], tuple(sorted(edges))))
        if key not in seen:
            seen.add(key)
            yield graph_text(path, edges)


def graphs_write(out, degree, length, nodes, train, test, seed, known=frozenset()):
    """The test's graphs are drawn first, so that they do not depend on how many train; none of `known`. Returns
    these and the written ones."""
    os.makedirs(out, exist_ok=True)
    seen = set(known)
    lines = graphs_draw(test + train, degree, length, nodes, seed, seen)
    for name, count in (("test", test), ("train", train)):
        path = f"{out}/{name}.txt"
        found = [next(lines) + "\n" for _ in range(count)]
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.writelines(found)
        os.replace(path + ".part", path)
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    for name, default in (("degree", 2), ("length", 5), ("nodes", 20), ("train", 100_000), ("test", 2_000),
                          ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if min(options.degree, options.train + 1, options.test + 1) < 1 or options.length < 2:
        sys.exit("a graph has at least one arm, and an arm two nodes")
    if options.nodes < 1 + options.degree * (options.length - 1):
        sys.exit(f"--nodes {options.nodes}: {options.degree} arms of {options.length} nodes have "
                 f"{1 + options.degree * (options.length - 1)}")
    graphs_write(options.out, options.degree, options.length, options.nodes, options.train, options.test,
                 options.seed)


if __name__ == "__main__":
    main()
