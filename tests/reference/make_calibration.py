"""Writes tests/golden/scores/calibration.json: Platt's fit of scores to right and wrong, by scipy and scikit-learn.

usage: python3 tests/reference/make_calibration.py [FILE]     (needs numpy, scipy and scikit-learn)

Each case has answers [score, length, right], slope, offset and length of the minimum of the cross-entropy to Platt's
targets, once with the score alone and once with the length, by scipy's trust-region Newton method on scaled
predictors, started elsewhere than the C code; scikit-learn's own fit of the same (score alone) must agree as far as
it converges. Threshold, Brier score and expected calibration error are those of the score alone.
"""

import json
import math
import random
import sys

import numpy
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import _sigmoid_calibration

BINS = 10


def fit(columns, right):
    positive, negative = right.sum(), (1 - right).sum()
    target = numpy.where(right > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    scale = [max(abs(c).max(), 1e-9) for c in columns]
    x = numpy.stack([c / s for c, s in zip(columns, scale)] + [numpy.ones(len(right))], 1)

    def loss(w):
        z = x @ w
        return (numpy.logaddexp(0, z) - target * z).sum()

    def gradient(w):
        return x.T @ (expit(x @ w) - target)

    def hessian(w):
        s = expit(x @ w)
        return x.T @ (x * (s * (1 - s))[:, None])

    w = minimize(loss, numpy.full(x.shape[1], 0.1), jac=gradient, hess=hessian, method="trust-exact",
                 options={"gtol": 1e-9, "maxiter": 10000}).x  # fmt: skip
    for _ in range(5):  # to the last digits
        w = w - numpy.linalg.solve(hessian(w), gradient(w))
    assert abs(gradient(w)).max() < 1e-10, gradient(w)
    return [float(v / s) for v, s in zip(w, scale + [1])]


def case(name, answers):
    score, length, right = (numpy.array([a[k] for a in answers], float) for k in range(3))
    slope, offset = fit([score], right)
    a, b = _sigmoid_calibration(score, right)  # sigmoid(-(a score + b))
    assert max(abs(expit(slope * score + offset) - expit(-(a * score + b)))) < 1e-3, (name, slope, offset, a, b)
    made = {"name": name, "answers": answers, "slope": slope, "offset": offset}
    if len(set(length)) > 1:
        w = fit([score, length], right)
        made["with_length"] = {"slope": w[0], "length": w[1], "offset": w[2]}
    p = expit(slope * score + offset)
    made["brier"] = float(((p - right) ** 2).mean())
    bins = numpy.minimum((p * BINS).astype(int), BINS - 1)
    made["ece"] = float(sum(abs((p - right)[bins == b].sum()) for b in range(BINS)) / len(p))
    ordered = sorted(p[right > 0])
    made["threshold"] = math.floor(ordered[int(0.1 * len(ordered))] * 1e6) / 1e6  # of 10 % of the right ones
    return made


def drawn(rng, count, slope, offset, weight):
    answers = []
    for _ in range(count):
        score, length = round(-rng.expovariate(2), 4), rng.randint(1, 12)
        answers.append([score, length, int(rng.random() < expit(slope * score + offset + weight * length))])
    return answers


def main():
    rng = random.Random(16)
    separable = [[round(-0.1 * rng.random() - (0 if i % 3 else 1), 4), i % 4 + 1, int(i % 3 > 0)] for i in range(31)]
    tiny = [[-1e-4 * rng.randint(0, 9), rng.randint(1, 3), int(rng.random() < 0.7)] for _ in range(23)]
    cases = [
        case("drawn", drawn(rng, 71, 3.2, 2.1, -0.2)),
        case("few wrong ones", drawn(rng, 53, 0.9, 3.2, 0)),
        case("separated by the score", separable),
        case("separated by the length", [[s, 2 + 9 * (1 - r), r] for s, _, r in drawn(rng, 19, 1, 0.5, 0)]),
        case("nearly equal scores", tiny),
        case("far away scores", [[1000 + 50 * s, n, r] for s, n, r in drawn(rng, 29, 2, 1, 0)]),
        case("one length", [[s, 3, r] for s, _, r in drawn(rng, 17, 2, 1, 0)]),
    ]
    with open(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/scores/calibration.json", "w") as out:
        json.dump(cases, out)
        out.write("\n")


main()
