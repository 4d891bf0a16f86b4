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


def end_tokens(case):
    """The tokens that end a text and a turn, in all cases."""
    return [(case.mask + 1) % case.vocabulary, (case.mask + 2) % case.vocabulary]


def llada_choice(table, noise_uniform, temperature):
    """LLaDA's way of drawing, in the logarithm only to see what nearly ties."""
    noisy = table.exp() / (-np.log(noise_uniform)).reshape(table.shape) ** temperature
    best = noisy.topk(2, dim=-1).values.log() / temperature
    apart(best[:, 0] - best[:, 1], DRAW_GAP)
    return noisy


def propose(case, canvas, step):
    """tokens, float32 scores, logits, and probabilities at the temperature, all rows at once."""
    logits = torch.from_numpy(model_logits(case, canvas.numpy()))
    table = logits.double()
    table[:, case.mask] = -math.inf
    if "-noend" in case.strategy:
        table[:, end_tokens(case)[0]] = -math.inf
    log_probability = torch.log_softmax(table, dim=-1)
    choice, temperature = table, float(np.float32(case.temperature))
    which = stream(case.length, case.sample, step, PROPOSAL)
    if case.temperature > 0 and case.strategy.startswith("llada"):
        u = uniform(case.seed, which, case.length * case.vocabulary)
        choice = llada_choice(table, torch.from_numpy(u), temperature)
    elif case.temperature > 0:
        noise = gumbel(case.seed, which, case.length * case.vocabulary)
        choice = table / temperature + torch.from_numpy(noise).reshape(case.length, -1)
        best = choice.topk(2, dim=-1).values
        apart(best[:, 0] - best[:, 1], DRAW_GAP)
    tokens = torch.from_numpy(choice.numpy().argmax(axis=-1))  # of equals the first
    scores = log_probability.gather(-1, tokens[:, None])[:, 0].float()
    probability = torch.softmax(table / (temperature or 1.0), dim=-1)
    return tokens, scores, logits, probability


def masks_left(schedule, n, step, iterations):
    """floor(N * rate) and the rate itself."""
    if schedule == "linear":
        rate = 1 - Fraction(step, iterations)
        return math.floor(n * rate), float(rate)
    rate = math.cos(math.pi / 2 * step / iterations)
    return (math.floor(n * rate) if step < iterations else 0), rate


def approximate(strategy, noisy, scores):
    """Which of the masked positions confidenceX or entropyX writes."""
    masked = torch.where(noisy, scores, torch.full_like(scores, -math.inf))
    order = masked.sort(descending=True, stable=True)
    apart(order.values[:-1] - order.values[1:], RANK_GAP)
    if strategy.startswith("confidence"):
        bound = float(np.float32(strategy.removeprefix("confidence")))
        apart(masked - math.log(bound), RANK_GAP)
        write = noisy & (masked >= math.log(bound))
    else:
        bound = float(np.float32(strategy.removeprefix("entropy")))
        before = torch.cat([torch.zeros(1, dtype=torch.float64), (-order.values).cumsum(0)[:-1]])
        apart(before - bound, RANK_GAP)
        write = torch.zeros_like(noisy)
        write[order.indices[before <= bound]] = True
        write = write & noisy
    if bool(noisy.any()):
        write[order.indices[0]] = True
    return write


# ---- LLaDA and Dream ----

CONFIDENCE_GAP = 2e-6  # confidences are float32 numbers, mostly below 1


def top(rank, among, count, logits, exact):
    """The `count` best of the positions in `among`, the leftmost of equals. Two that tie must do so
    in any program: their logits are the same, or `exact` says so of this value."""
    rank = torch.where(among, rank, torch.full_like(rank, math.nan))
    order = sorted(among.nonzero()[:, 0].tolist(), key=lambda i: (-rank[i].item(), i))
    for i, j in zip(order, order[1:]):
        if rank[i] != rank[j]:
            apart((rank[i] - rank[j])[None], CONFIDENCE_GAP)
        elif not exact(rank[i].item()) and not bool((logits[i] == logits[j]).all()):
            raise NearTie
    chosen = torch.zeros_like(among)
    chosen[order[:count]] = True
    return chosen


def llada_plan(case, n):
    """For each step the open positions of its block, and how many of them are written."""
    parts = case.strategy.split("-")
    size = int(parts[1].removeprefix("block")) if parts[1].startswith("block") else n
    blocks = torch.arange(n).split(size)
    base, more = divmod(max(case.iterations, len(blocks)), len(blocks))
    plan = []
    for b, block in enumerate(blocks):
        steps = base + (1 if b < more else 0)
        each, rest = divmod(len(block), steps)
        plan += [(block, each + 1 if s < rest else each) for s in range(steps)]
    return plan


def llada_write(case, step, noisy, places, proposed, plan):
    tokens, scores, logits, _ = proposed
    block, count = plan[step - 1]
    rank = scores.double()
    if "-random" in case.strategy:
        which = stream(case.length, case.sample, step, RANKING)
        rank = torch.from_numpy(uniform(case.seed, which, case.length))[places]
    if "-endlast" in case.strategy:
        ends = torch.isin(tokens, torch.tensor(end_tokens(case)))
        rank = rank.masked_fill(ends, -math.inf)
    among = torch.zeros_like(noisy)
    among[block] = True
    return top(rank, among & noisy, count, logits, math.isinf)


def dream_write(case, step, noisy, places, proposed):
    tokens, _, logits, probability = proposed
    eps, last = Fraction(1, 1000), step == case.iterations
    t, s = (1 - (1 - eps) * Fraction(i, case.iterations) for i in (step - 1, step))
    share = Fraction(1) if last else 1 - s / t
    parts = case.strategy.split("-")
    if parts[1] == "origin":
        which = stream(case.length, case.sample, step, WRITING)
        chance = torch.from_numpy(uniform(case.seed, which, case.length))[places]
        return noisy & (chance < float(share))
    if parts[1] == "maskgit_plus":
        rank = probability.gather(-1, tokens[:, None])[:, 0]
    elif parts[1] == "topk_margin":
        best = probability.sort(dim=-1, descending=True).values
        rank = best[:, 0] - best[:, 1]
    else:
        rank = -torch.special.entr(probability).sum(dim=-1)
    if len(parts) > 2:
        tau = float(np.float32(parts[2].removeprefix("stochastic")))
        which = stream(case.length, case.sample, step, RANKING)
        rank = rank + tau * torch.from_numpy(gumbel(case.seed, which, case.length))[places]
    count = math.floor(int(noisy.sum()) * share)
    return top(rank, noisy, count, logits, lambda value: value == 0)


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
    own_steps = case.strategy.startswith(("ar", "confidence", "entropy"))
    steps = n if own_steps else case.iterations
    if case.strategy.startswith("llada"):
        plan = llada_plan(case, n)
        steps = len(plan)
    tokens = torch.full((n,), case.mask)
    scores = torch.full((n,), -math.inf)
    noisy = torch.ones(n, dtype=torch.bool)
    asked, rows, events = [], [], set()
    for step in range(1, steps + 1):
        shown = filled(case, places, tokens, template)
        proposed = tuple(part[places] for part in propose(case, shown, step))
        candidate, candidate_score, logits, _ = proposed
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
        elif case.strategy.startswith(("llada", "dream")):
            if case.strategy.startswith("llada"):
                write = llada_write(case, step, noisy, places, proposed, plan)
            else:
                write = dream_write(case, step, noisy, places, proposed)
            noisy, erase = noisy & ~write, torch.zeros_like(noisy)
        elif case.strategy.startswith(("confidence", "entropy")):
            write, erase = approximate(case.strategy, noisy, candidate_score.double()), ~noisy & False
            noisy = noisy & ~write
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
