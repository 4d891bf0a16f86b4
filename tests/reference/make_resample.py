#!/usr/bin/env python3
"""Numpy's random numbers, and sacrebleu's confidence intervals and paired tests: tests/golden/scores/resample.json.

    ENV/bin/pip install sacrebleu==2.6.0 numpy
    ENV/bin/python tests/reference/make_resample.py

Two systems answer 61 lines of made-up words. sacrebleu adds its counts in float32, so that its scores differ from exact
sums by 1e-7 of their size; its randomization test is exact.
"""
import json
import os
import random

import numpy as np
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

WORDS = "a the red green old dog cat bird house tree runs sees has on in under small , . two three many never".split()


def corpus():
    source = random.Random(7)
    lines = [[source.choice(WORDS) for _ in range(source.randint(2, 17))] for _ in range(61)]
    references = [[" ".join(line)] + ([" ".join(reversed(line))] if i % 5 == 0 else []) for i, line in enumerate(lines)]

    def system(share):
        out = []
        for line in lines:
            words = [w if source.random() > share else source.choice(WORDS) for w in line if source.random() > share / 3]
            out.append(" ".join(words))
        return out

    return system(0.35), system(0.3), references


def draws():
    all_draws = []
    for seed in (12345, 0, 1, 4294967296, 18446744073709551615):
        row = {"seed": str(seed), "next": [str(v) for v in np.random.default_rng(seed).bit_generator.random_raw(5)]}
        row["below"] = {str(n): np.random.default_rng(seed).choice(n, size=(3, 7)).ravel().tolist()
                        for n in (1, 2, 3, 61, 1000, 3000000000)}
        row["bits"] = np.random.default_rng(seed).integers(2, size=(7, 10), dtype=bool).astype(int).ravel().tolist()
        all_draws.append(row)
    return all_draws


def main():
    first, second, references = corpus()
    columns = [[line[0] for line in references], [line[1] if len(line) > 1 else None for line in references]]
    out = {"sacrebleu": sacrebleu.__version__, "first": first, "second": second, "references": references,
           "draws": draws(), "intervals": {}, "paired": {}}
    metrics = {"bleu": BLEU(), "bleu-lc-floor": BLEU(lowercase=True, smooth_method="floor", tokenize="intl"),
               "chrf": CHRF(), "chrf++": CHRF(word_order=2)}
    for name, metric in metrics.items():
        score = metric.corpus_score(first, columns, n_bootstrap=1000)
        out["intervals"][name] = {"score": score.score, "mean": score._mean, "half": score._ci}
        for test, samples in (("bs", 1000), ("ar", 10000), ("bs", 39)):
            _, results = PairedTest([("first", first), ("second", second)], {name: metric}, columns, test_type=test,
                                    n_samples=samples)()
            base, system = next(v for k, v in results.items() if k != "System")
            out["paired"].setdefault(name, []).append(
                {"test": test, "samples": samples, "p": system.p_value, "score": system.score, "mean": system.mean,
                 "half": system.ci, "base": base.score})
    path = os.path.join(os.path.dirname(__file__), "..", "golden", "scores", "resample.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(out, file, indent=0, default=float)
        file.write("\n")


if __name__ == "__main__":
    main()
