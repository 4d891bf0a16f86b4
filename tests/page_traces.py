"""Traces for tests/page_browser.py: made up, but with everything that a page has to show.

Each is an object as apps/trace/trace.h describes it. The network that they tell of does not exist; the
numbers come from a small generator with a fixed seed, so the same traces come out every time.
"""

import math
import random

MASK = 250001
SPACE = "\u2581"


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.ids = {}

    def word(self, piece):
        return {"id": self.ids.setdefault(piece, 10 + len(self.ids)), "piece": piece}

    def likely(self, piece, others):
        """A proposal and its alternatives, the likeliest first, with shares that sum to less than 1."""
        rest, out = 1.0, []
        for one in [piece] + self.random.sample(others, min(4, len(others))):
            share = rest * self.random.uniform(0.3, 0.97)
            out.append((one, math.log(share)))
            rest -= share
        return sorted(out, key=lambda pair: -pair[1]) if self.random.random() < 0.2 else out

    def steps(self, pieces, count, wrong):
        """Fills `pieces` in an order of its own in `count` steps; each of `wrong` is a place whose
        first word is another one, which is erased again."""
        n = len(pieces)
        vocabulary = sorted(set(pieces) | {SPACE + "the", SPACE + "of", "s", "\u2581maybe"})
        # The first step in which something stands at a place, and the last; between, what is wrong.
        when = {i: self.random.randint(1, max(1, count // 2)) for i in range(n)}
        until = {i: self.random.randint(when[i] + 2, max(when[i] + 2, count - 3)) for i in wrong}
        cells, trace = [None] * n, []
        for s in range(1, count + 1):
            row = []
            for i in range(n):
                likely = self.likely(pieces[i], [v for v in vocabulary if v != pieces[i]])
                if i in wrong and when[i] <= s < until[i] and until[i] < count:
                    if s == when[i]:
                        cells[i] = (SPACE + "wrong" if i % 2 else "x" + str(i), -1.5)
                elif i in wrong and s == until[i] and until[i] < count and i % 3:
                    cells[i] = None  # erased; the others are replaced at once
                elif cells[i] is None and (s >= when[i] or s == count):
                    cells[i] = (pieces[i], likely[0][1])
                elif i in wrong and s >= until[i] and cells[i][0] != pieces[i]:
                    cells[i] = (pieces[i], likely[0][1])
                row.append(self.cell(cells[i], likely))
            trace.append({"step": s, "evaluated": s % 3 != 0, "cells": row})
        return trace

    def cell(self, held, likely):
        proposal = self.word(likely[0][0])
        out = {
            "masked": held is None,
            "id": MASK,
            "piece": "<mask>",
            "score": None,
            "proposal": proposal["id"],
            "proposal_piece": proposal["piece"],
            "proposal_score": likely[0][1],
            "top_k": [{**self.word(p), "score": s} for p, s in likely[1:]],
        }
        if held:
            out.update(self.word(held[0]), score=held[1])
        return out


def text_of(pieces):
    return "".join(pieces).replace(SPACE, " ").strip()


def trace(seed, question, answers, count, wrong=0, image=None, prompt=False, picture=None):
    """answers: lists of pieces, the first is the best hypothesis."""
    make = Maker(seed)
    hypotheses, runs = [], []
    for k, pieces in enumerate(answers):
        places = set(make.random.sample(range(len(pieces)), min(wrong, len(pieces))))
        runs.append(make.steps(pieces, count, places))
        one = {
            "text": text_of(pieces),
            "length": len(pieces),
            "sample": 0,
            "score": -0.1 - 0.25 * k,
            "evaluations": count,
        }
        if k:
            one["trace"] = runs[k]
        if picture:
            one["attention"] = [peak(i, len(pieces), picture["grid"]) for i in range(len(pieces))]
        hypotheses.append(one)
    last = runs[0][-1]["cells"]
    out = {
        "prompt" if prompt else "question": question,
        "answer": text_of(answers[0]),
        "score": -0.1,
        "length": len(answers[0]),
        "tokens": [{k: c[k] for k in ("id", "piece", "score")} for c in last],
        "steps": count,
        "evaluations": count * len(answers),
        "strategy": "reparam-uncond-deterministic-cosine",
        "seed": 2**63 - 1,
        "prompt_tokens": 12,
        "hypotheses": hypotheses,
        "model": "/somewhere/models/made-up",
        "best": 0,
        "trace": runs[0],
    }
    if image:
        out["image"] = image
    if picture:
        out["geometry"] = picture
    return out


def peak(i, n, grid):
    """A bump that goes, with the place in the answer, from the left to the right and a little down."""
    x0 = (i + 0.5) / n * grid
    y0 = 1 + 0.4 * x0
    rows = [
        math.exp(-((x + 0.5 - x0) ** 2 + (y + 0.5 - y0) ** 2) / grid)
        for y in range(grid)
        for x in range(grid)
    ]
    return [0.4 * r / sum(rows) for r in rows]


LONG = (
    "The picture shows a quiet harbour in the early morning , with three small sailing boats that "
    "are tied to a wooden pier , a row of narrow houses in faded colours behind them , and a man "
    "in a yellow coat who is mending his net while two gulls watch him from the roof of a shed "
    "near the water ."
)
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(1)>",
    "\"'`&lt;&amp;",
    "\u202egnp.exe\u202c",
    "\u2028\u2029",
    "{{data}}",
    "<script>",
]


def all_traces():
    """name: trace."""
    long = [SPACE + w if w not in ",." else w for w in LONG.split()]
    assert len(long) > 55
    plain = [SPACE + w for w in "There are two boats".split()] + ["."]
    far = [
        [
            SPACE + "\u56fe\u7247",
            "\u91cc",
            "\u6709",
            "\u4e00\u53ea",
            "\u732b",
            "\u3002",
            SPACE + "\U0001f431",
            SPACE + "\U0001f469\u200d\U0001f680",
            SPACE + "\u0418",
            "\u043b\u044c\u044f",
            SPACE + "e\u0301t\u00e9",
            SPACE,
            "\u2026",
        ]
        + list("\u8fd9\u662f\u4e00\u5f20\u5f88\u5927\u7684\u6d77\u6e2f\u7684\u7167\u7247")
    ]
    beam = [
        plain,
        [SPACE + w for w in "Two".split()],
        [SPACE + w for w in "There are two small boats in the picture".split()] + ["."],
    ]
    # 320 x 200, of which the tower saw the middle 200 x 200 as 100 x 100.
    picture = {
        "width": 320,
        "height": 200,
        "size": 100,
        "grid": 8,
        "left": 60.0,
        "top": 0.0,
        "scale_x": 2.0,
        "scale_y": 2.0,
    }
    return {
        "long": trace(
            1,
            "What does the picture show? Tell it in detail.",
            [long],
            50,
            wrong=9,
            image="harbour.jpg",
        ),
        "far": trace(
            2,
            "\u56fe\u7247\u91cc\u6709\u4ec0\u4e48\uff1f \U0001f431",
            far,
            20,
            wrong=3,
            prompt=True,
        ),
        "beam": trace(
            3,
            "How many boats?",
            beam,
            12,
            wrong=1,
            image="/home/someone/boats.png",
            picture=picture,
        ),
        "hostile": trace(
            4,
            " ".join(HOSTILE),
            [[SPACE + h for h in HOSTILE] + HOSTILE],
            10,
            wrong=2,
            image="/somewhere/" + HOSTILE[2].replace("/", "") + ".png",
        ),
        "one": trace(5, "Is it asleep?", [[SPACE + "yes"]], 1),
        "order": trace(6, "?", [[SPACE + str(k) for k in range(130)]], 120, wrong=30),
    }
