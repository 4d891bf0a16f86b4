"""The decoding strategies of masked diffusion, a second time: written from the method's
description (arXiv 2308.12219, 2302.05737), over full [N, V] score tables with torch, to check
language/decode.c.

It has its own random numbers (Philox4x32-10) and a synthetic model whose logits are small integers
times a power of two, taken from integer hashes: any program computes them to the last bit.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

U64 = np.uint64
PROPOSAL, RANKING, WRITING = 0, 1, 2  # purposes of noise

# ---- random numbers ----


def mix(x):
    """The finaliser of splitmix64 over an array."""
    x = np.atleast_1d(np.asarray(x, dtype=U64)) + U64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def fold(start, *values):
    """mix(... mix(mix(start) ^ values[0]) ^ values[1] ...); values may be arrays."""
    h = mix(start)
    for value in values:
        h = mix(h ^ np.atleast_1d(np.asarray(value, dtype=U64)))
    return h


def stream(length, sample, step, purpose):
    return int(fold(length, sample, step, purpose)[0])


def philox(counter, key):
    """counter [n, 4], key [2] (32-bit values held in uint64) -> [n, 4]."""
    c, (k0, k1), low, half = np.array(counter, dtype=U64), map(int, key), U64(2**32 - 1), U64(32)
    for _ in range(10):
        p, q = c[:, 0] * U64(0xD2511F53), c[:, 2] * U64(0xCD9E8D57)
        first, third = (q >> half) ^ c[:, 1] ^ U64(k0), (p >> half) ^ c[:, 3] ^ U64(k1)
        c = np.stack([first, q & low, third, p & low], axis=1)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def uniform(seed, which, count):
    """The first `count` numbers in (0, 1) of a stream."""
    blocks = np.arange((count + 3) // 4, dtype=U64)
    counter = np.empty((len(blocks), 4), dtype=U64)
    counter[:, 0], counter[:, 1] = blocks & U64(2**32 - 1), blocks >> U64(32)
    counter[:, 2], counter[:, 3] = which % 2**32, which >> 32
    out = philox(counter, (seed % 2**32, seed >> 32)).reshape(-1)[:count]
    return (out.astype(np.float64) + 0.5) / 2.0**32


def gumbel(seed, which, count):
    return -np.log(-np.log(uniform(seed, which, count)))


# ---- the synthetic model ----


@dataclass
class Case:
    strategy: str
    kind: str  # random | coarse | peaked | weights
    vocabulary: int
    mask: int
    length: int
    iterations: int
    request: int
    sample: int
    seed: int
    temperature: float
    fixed: tuple = ()  # of a template: the token of each position, the mask where it is open


def model_logits(case, canvas):
    """float32 [N, V] for one canvas (the <mask> column included, as a network has it).

    random: every logit a fresh number in [-4, 4).
    coarse: 8 kinds of rows with logits 0, 0.5 .. 3.5: rows tie, and tokens within a row do.
    peaked: there is a right answer; its logit grows with the right words already written nearby.
    weights: like a network of random weights: a row's own token, which dominates, plus a context
    that every token adds to and all rows share.
    """
    n, vocabulary = case.length, np.arange(case.vocabulary, dtype=U64)[None, :]
    rows = np.arange(n, dtype=U64)[:, None]
    whole = fold(case.seed, case.request, n, *[int(token) for token in canvas])
    row_key = mix(whole ^ rows)
    if case.kind == "random":
        units = (mix(row_key ^ vocabulary) >> U64(40)).astype(np.int64) - 2**23
        return (units / 2.0**21).astype(np.float32)
    if case.kind == "coarse":
        units = mix(fold(case.seed, row_key & U64(7)) ^ vocabulary) >> U64(61)
        return (units.astype(np.int64) / 2.0).astype(np.float32)
    if case.kind == "weights":
        tokens = np.asarray(canvas).astype(U64)[:, None]
        key = fold(case.seed, case.request, n)
        place_key = mix(mix(key ^ rows) ^ tokens)
        own = (mix(place_key ^ vocabulary) >> U64(43)).astype(np.int64) - 2**20
        place_key = place_key ^ U64(2**32)
        context = (mix(place_key ^ vocabulary) >> U64(46)).astype(np.int64) - 2**17
        return ((own + context.sum(axis=0)) / 2.0**18).astype(np.float32)
    answer_key = fold(case.seed, case.request, n)
    answer = (mix(answer_key ^ rows) % U64(case.vocabulary)).astype(np.int64)[:, 0]
    answer = np.where(answer == case.mask, (answer + 1) % case.vocabulary, answer)
    ease = (mix(answer_key ^ (rows + U64(2**32))) >> U64(44)).astype(np.int64)[:, 0]
    right = np.asarray(canvas) == answer
    near = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    support = (right[None, :] & (near >= 1) & (near <= 3)).sum(axis=1)
    units = (mix(row_key ^ vocabulary) >> U64(45)).astype(np.int64) - 2**18
    units[np.arange(n), answer] += (3 + support) * 2**18 + ease
    return (units / 2.0**18).astype(np.float32)


# ---- decoding ----


class NearTie(Exception):
    """Two numbers whose order another program might see differently."""


RANK_GAP = 1e-4  # scores are float32 numbers of 1 to 10; another log-sum-exp moves the last bit
DRAW_GAP = 1e-7  # noise and logits are doubles


def apart(difference, gap):
    """Every difference is exactly 0 or clearly not."""
    difference = difference[torch.isfinite(difference)].abs()
    if bool(((difference > 0) & (difference < gap)).any()):
        raise NearTie


def propose(case, canvas, step):
    """tokens, float32 scores and logits, all rows at once."""
    logits = torch.from_numpy(model_logits(case, canvas.numpy()))
    table = logits.double()
    table[:, case.mask] = -math.inf
    log_probability = torch.log_softmax(table, dim=-1)
    choice = table
    if case.temperature > 0:
        noise = gumbel(
            case.seed,
            stream(case.length, case.sample, step, PROPOSAL),
            case.length * case.vocabulary,
        )
        temperature = float(np.float32(case.temperature))
        choice = table / temperature + torch.from_numpy(noise).reshape(case.length, -1)
        best = choice.topk(2, dim=-1).values
        apart(best[:, 0] - best[:, 1], DRAW_GAP)
    tokens = torch.from_numpy(choice.numpy().argmax(axis=-1))  # of equals the first
    scores = log_probability.gather(-1, tokens[:, None])[:, 0].float()
    return tokens, scores, logits


def masks_left(schedule, n, step, iterations):
    """floor(N * rate) and the rate itself."""
    if schedule == "linear":
        rate = 1 - Fraction(step, iterations)
        return math.floor(n * rate), float(rate)
    rate = math.cos(math.pi / 2 * step / iterations)
    return (math.floor(n * rate) if step < iterations else 0), rate


def filled(case, places, values, other):
    """Values of the open positions in a canvas whose other positions have `other`."""
    canvas = torch.tensor(other, dtype=values.dtype)
    canvas[places] = values
    return canvas


def decode(case):
    """Works on the open positions alone, as if the others were part of the model. Returns (tokens, scores, proposals, proposal scores) as [steps, N] arrays, how many
    evaluations are needed, and which of the rarer things happened. A settled step (nothing masked,
    and nothing to be masked) is computed like any other, and checked to change nothing; its tokens
    are recorded as its proposals, and it needs no evaluation."""
    template = list(case.fixed) or [case.mask] * case.length
    places = torch.tensor([i for i, token in enumerate(template) if token == case.mask])
    n, length, zeros = len(places), case.length, [0.0] * case.length
    steps = n if case.strategy == "ar" else case.iterations
    tokens = torch.full((n,), case.mask)
    scores = torch.full((n,), -math.inf)
    noisy = torch.ones(n, dtype=torch.bool)
    asked, rows, events = [], [], set()
    for step in range(1, steps + 1):
        shown = filled(case, places, tokens, template)
        candidate, candidate_score, logits = (part[places] for part in propose(case, shown, step))
        before, canvas, k = noisy, tokens, 0
        if case.strategy == "cmlm":
            chance = uniform(case.seed, stream(length, case.sample, step, WRITING), length)[places.numpy()]
            write = noisy & torch.from_numpy(chance < 1.0 / (steps - step + 1))
            noisy = noisy & ~write
            erase = torch.zeros_like(write)
        elif case.strategy == "ar":
            write = torch.arange(n) == (step - 1)
            noisy = noisy & ~write
            erase = torch.zeros_like(write)
        else:
            _, condition, ranking, schedule = case.strategy.split("-")
            k, rate = masks_left(schedule, n, step, case.iterations)
            rank = candidate_score.double()
            if ranking != "deterministic":
                tau = float(np.float32(ranking.removeprefix("stochastic")))
                noise = gumbel(case.seed, stream(length, case.sample, step, RANKING), length)[places.numpy()]
                rank = rank + tau * rate * torch.from_numpy(noise)
            cutoff = rank.sort().values[k]
            low = rank < cutoff
            if k > 0:
                apart(rank - cutoff, RANK_GAP)
                # Rows that tie must tie in any program: only if their logits are the same.
                tied = (rank == cutoff).nonzero()[:, 0]
                if len(tied) > 1 and not bool((logits[tied] == logits[tied[0]]).all()):
                    raise NearTie
            if int(low.sum()) < k:
                events.add("tie")
            not_v1 = not_v2 = low
            if condition == "cond":
                same = (candidate == tokens) & low & ~noisy
                apart(candidate_score[same] - scores[same], RANK_GAP)
                not_v1 = (candidate == tokens) & (candidate_score < scores) & low
                if bool((~noisy & low & ~not_v1).any()):
                    events.add("kept")
            erase = torch.where(noisy, not_v2, not_v1)
            write = noisy & ~not_v2
            noisy = (noisy | not_v1) & not_v2
        tokens = torch.where(write, candidate, tokens).masked_fill(erase, case.mask)
        scores = torch.where(write, candidate_score, scores).masked_fill(erase, -math.inf)
        if bool((~before & erase).any()):
            events.add("erasure")
        if k == 0 and not bool(before.any()):
            assert bool((tokens == canvas).all()) and not bool(noisy.any())
            candidate, candidate_score = tokens, scores
            events.add("settled")
        else:
            asked.append(tuple(canvas.tolist()))
        rows.append((
            filled(case, places, tokens, template),
            filled(case, places, scores, zeros),
            filled(case, places, candidate, template),
            filled(case, places, candidate_score, zeros),
        ))
    assert not bool((tokens == case.mask).any())
    table = [torch.stack(column).numpy() for column in zip(*rows)]
    return table, len(set(asked)) if case.temperature == 0 else len(asked), events
