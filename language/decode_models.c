/* The strategies of LLaDA and Dream; see decode.h. */
#include <math.h>

#include "language/decode_step.h"

/* Writes the masked positions of [from, to) with the n largest ranks, the leftmost of equals. */
static void write_best(Canvas *canvas, const StepInput *input, int from, int to, int n) {
    for (; n > 0; n--) {
        int best = -1;
        for (int i = from; i < to; i++)
            if (canvas->tokens[i] == canvas->mask_id &&
                (best < 0 || input->ranks[i] > input->ranks[best]))
                best = i;
        if (best < 0) return;
        canvas_write(canvas, best, input->proposals[best]);
    }
}

/* ---- LLaDA ---- */

/* The block that a step is in. */
typedef struct Block {
    int from, to;    /* its places among the open positions */
    int step, steps; /* of the block, from 0 */
} Block;

static Block block_of_step(const Canvas *canvas, int size) {
    if (size <= 0 || size > canvas->open) size = canvas->open;
    int blocks = (canvas->open + size - 1) / size, t = canvas->step - 1;
    int steps = canvas->steps / blocks, longer = canvas->steps % blocks;
    /* The first `longer` blocks have a step more. */
    int early = longer * (steps + 1);
    int block = t < early ? t / (steps + 1) : longer + (t - early) / steps;
    Block b = {.from = block * size,
               .step = t < early ? t % (steps + 1) : (t - early) % steps,
               .steps = steps + (t < early)};
    b.to = b.from + size < canvas->open ? b.from + size : canvas->open;
    return b;
}

/* The position of the open one with this index; the length if there are not so many. */
static int open_position(const Canvas *canvas, int index) {
    int i = 0;
    for (; i < canvas->length; i++)
        if (!canvas_fixed(canvas, i) && index-- == 0) break;
    return i;
}

static bool canvas_end(const Canvas *canvas, int32_t token) {
    for (int i = 0; i < canvas->end_count; i++)
        if (canvas->ends[i] == token) return true;
    return false;
}

void llada_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input) {
    Block b = block_of_step(canvas, options->block);
    int from = open_position(canvas, b.from), to = open_position(canvas, b.to);
    int masks = b.to - b.from, n = masks / b.steps + (b.step < masks % b.steps);
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_RANKING);
    for (int i = from; i < to; i++) {
        Proposal proposal = canvas_proposal(canvas, input->proposals, i);
        input->ranks[i] = options->random_remasking
                              ? random_uniform(options->seed, stream, (uint64_t)i)
                              : (double)proposal.score;
        if (options->end_last && canvas_end(canvas, proposal.token)) input->ranks[i] = -INFINITY;
    }
    write_best(canvas, input, from, to, n);
}

/* ---- Dream ---- */

/* 1 - s/t = part / whole: with the step d = 0.999 / T of the times, t = 1 - d i and s = t - d after
 * i steps, and 1 - s/t = d / t = 999 / (1000 T - 999 i). In the last step, 1. */
typedef struct Share {
    int64_t part, whole;
} Share;

static Share dream_share(const Canvas *canvas) {
    if (canvas->step == canvas->steps) return (Share){1, 1};
    return (Share){999, 1000 * (int64_t)canvas->steps - 999 * (int64_t)(canvas->step - 1)};
}

static void origin_step(Canvas *canvas, uint64_t seed, const Proposal *proposals) {
    Share share = dream_share(canvas);
    double probability = (double)share.part / (double)share.whole;
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_WRITING);
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id &&
            random_uniform(seed, stream, (uint64_t)i) < probability)
            canvas_write(canvas, i, proposals[i]);
}

void dream_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input) {
    if (options->dream == DREAM_ORIGIN) {
        origin_step(canvas, options->seed, input->proposals);
        return;
    }
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_RANKING);
    int masks = 0;
    for (int i = 0; i < canvas->length; i++) {
        if (canvas->tokens[i] != canvas->mask_id) continue;
        masks++;
        input->ranks[i] = input->confidence ? (double)input->confidence[i]
                                            : exp((double)input->proposals[i].score);
        if (options->stochastic)
            input->ranks[i] += options->tau * random_gumbel(options->seed, stream, (uint64_t)i);
    }
    Share share = dream_share(canvas);
    write_best(canvas, input, 0, canvas->length, (int)(masks * share.part / share.whole));
}

/* ---- what they need ---- */

bool canvas_choice(DecodeChoice *choice, const DecodeOptions *options, const int32_t *ends) {
    *choice =
        (DecodeChoice){.measure = DECODE_NO_MEASURE, .never = -1, .guidance = options->guidance};
    if (options->strategy == DECODE_LLADA && options->end_never) choice->never = ends[0];
    if (options->strategy == DECODE_DREAM && options->dream == DREAM_TOPK_MARGIN)
        choice->measure = DECODE_MARGIN;
    else if (options->strategy == DECODE_DREAM && options->dream == DREAM_ENTROPY)
        choice->measure = DECODE_NEG_ENTROPY;
    else if (options->strategy == DECODE_DREAM && options->dream == DREAM_MASKGIT_PLUS &&
             options->temperature > 0)
        choice->measure = DECODE_PROBABILITY;
    return choice->measure != DECODE_NO_MEASURE || choice->never >= 0 || choice->guidance > 0;
}
