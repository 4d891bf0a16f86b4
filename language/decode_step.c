#include "language/decode_step.h"

#include <math.h>

#include "kernels/random.h"

static double schedule_rate(DecodeSchedule schedule, int t, int T) {
    return schedule == DECODE_LINEAR ? 1 - (double)t / T : cos(M_PI / 2 * t / T);
}

/* k = floor(N * rate). For the linear schedule in integers: in floating point 10 * (1 - 45/50.) is
 * just below 1 and k would be one too small. cos(pi/2) is not quite 0, and for T above some 10^8
 * the first rates round to 1, where the (k+1)-th smallest of N would not exist. */
static int schedule_masks(DecodeSchedule schedule, int N, int t, int T) {
    if (t == T) return 0;
    if (schedule == DECODE_LINEAR) return (int)((int64_t)N * (T - t) / T);
    return (int)floor(N * schedule_rate(schedule, t, T));
}

/* The value that has index k when `values` are sorted (Hoare's selection; reorders them). */
static double select_smallest(double *values, int count, int k) {
    int low = 0, high = count - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (values[i] < pivot) i++;
            while (values[j] > pivot) j--;
            if (i > j) break;
            double swap = values[i];
            values[i++] = values[j], values[j--] = swap;
        }
        /* Now values[low..j] <= pivot <= values[i..high], and what lies between equals it. */
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return values[k];
}

/* ranks, sorted: scratch, [length]; of sorted, the open positions are used. */
static void reparam_step(Canvas *canvas, const DecodeOptions *options, const Proposal *proposals,
                         double *ranks, double *sorted) {
    int length = canvas->length, N = 0;
    int k = schedule_masks(options->schedule, canvas->open, canvas->step, canvas->steps);
    double noise = 0;
    if (options->stochastic)
        noise = options->tau * schedule_rate(options->schedule, canvas->step, canvas->steps);
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_RANKING);
    for (int i = 0; i < length; i++) {
        if (canvas_fixed(canvas, i)) continue;
        ranks[i] = proposals[i].score;
        if (noise > 0) ranks[i] += noise * random_gumbel(options->seed, stream, (uint64_t)i);
        sorted[N++] = ranks[i];
    }
    double cutoff = select_smallest(sorted, N, k);

    for (int i = 0; i < length; i++) {
        if (canvas_fixed(canvas, i)) continue;
        bool low = ranks[i] < cutoff; /* none if k = 0: then cutoff is the smallest */
        bool masked = canvas->tokens[i] == canvas->mask_id;
        bool spared =
            !masked && options->conditional &&
            !(proposals[i].token == canvas->tokens[i] && proposals[i].score < canvas->scores[i]);
        if (low && !spared)
            canvas_write(canvas, i, (Proposal){canvas->mask_id, -INFINITY});
        else if (masked)
            canvas_write(canvas, i, proposals[i]);
    }
}

/* k never grows. */
bool decode_settled(const DecodeOptions *options, int open, int step, int steps) {
    return options->strategy != DECODE_REPARAM ||
           schedule_masks(options->schedule, open, step, steps) == 0;
}

static void cmlm_step(Canvas *canvas, uint64_t seed, const Proposal *proposals) {
    double probability = 1.0 / (canvas->steps - canvas->step + 1.0);
    uint64_t stream = canvas_stream(canvas, DECODE_NOISE_WRITING);
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id &&
            random_uniform(seed, stream, (uint64_t)i) < probability)
            canvas_write(canvas, i, proposals[i]);
}

/* Nothing is left to write after position i. */
static void canvas_end(Canvas *canvas, int i, int32_t token) {
    while (++i < canvas->length)
        if (canvas->tokens[i] == canvas->mask_id) canvas_write(canvas, i, (Proposal){token, 0});
}

static void ar_step(Canvas *canvas, const Proposal *proposals) {
    int i = 0;
    while (i < canvas->length && canvas->tokens[i] != canvas->mask_id) i++;
    if (i == canvas->length) return;
    canvas_write(canvas, i, proposals[i]);
    for (int s = 0; s < canvas->stop_count; s++)
        if (proposals[i].token == canvas->stops[s]) canvas_end(canvas, i, proposals[i].token);
}

/* The masked position with the best score, the leftmost of equals; -1: nothing is masked. */
static int surest_masked(const Canvas *canvas, const Proposal *proposals) {
    int best = -1;
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id &&
            (best < 0 || proposals[i].score > proposals[best].score))
            best = i;
    return best;
}

static void confidence_step(Canvas *canvas, float bound, const Proposal *proposals) {
    int i = surest_masked(canvas, proposals);
    if (i >= 0) canvas_write(canvas, i, proposals[i]);
    for (i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id && exp((double)proposals[i].score) >= bound)
            canvas_write(canvas, i, proposals[i]);
}

static void entropy_step(Canvas *canvas, float bound, const Proposal *proposals) {
    double surprise = 0;
    for (int i; surprise <= bound && (i = surest_masked(canvas, proposals)) >= 0;) {
        canvas_write(canvas, i, proposals[i]);
        surprise -= (double)proposals[i].score;
    }
}

bool canvas_settled(const Canvas *canvas, const DecodeOptions *options) {
    return canvas_complete(canvas) &&
           decode_settled(options, canvas->open, canvas->step, canvas->steps);
}

void canvas_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input) {
    const Proposal *proposals = input->proposals;
    switch (options->strategy) {
    case DECODE_REPARAM:
        reparam_step(canvas, options, proposals, input->ranks, input->sorted);
        return;
    case DECODE_CMLM:
        cmlm_step(canvas, options->seed, proposals);
        return;
    case DECODE_AR:
        ar_step(canvas, proposals);
        return;
    case DECODE_CONFIDENCE:
        confidence_step(canvas, options->bound, proposals);
        return;
    case DECODE_ENTROPY:
        entropy_step(canvas, options->bound, proposals);
        return;
    case DECODE_LLADA:
        llada_step(canvas, options, input);
        return;
    case DECODE_DREAM:
        dream_step(canvas, options, input);
        return;
    }
}
