#include "tests/decode_cases.h"

#include <math.h>

#include "kernels/random.h"

/* ---- the synthetic model ---- */

static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static void weights_logits(const Synthetic *model, const DecodeCanvas *canvas, int row,
                           float *logits) {
    int V = model->vocabulary, N = canvas->length;
    uint64_t key = mix(mix(mix(model->seed) ^ (uint64_t)canvas->request) ^ (uint64_t)N);
    int64_t units[512] = {0};
    for (int i = 0; i < N; i++) {
        uint64_t place = mix(mix(key ^ (uint64_t)i) ^ (uint64_t)canvas->tokens[i]);
        uint64_t shared = place ^ UINT64_C(1) << 32;
        for (int v = 0; v < V; v++) {
            if (i == row) units[v] += (int64_t)(mix(place ^ (uint64_t)v) >> 43) - (1 << 20);
            units[v] += (int64_t)(mix(shared ^ (uint64_t)v) >> 46) - (1 << 17);
        }
    }
    for (int v = 0; v < V; v++) logits[v] = (float)units[v] * 0x1p-18f;
}

/* One row of logits; see model_logits in the reference. */
static void synthetic_logits(const Synthetic *model, const DecodeCanvas *canvas, uint64_t whole,
                             int row, float *logits) {
    int V = model->vocabulary, N = canvas->length;
    uint64_t key = mix(whole ^ (uint64_t)row);
    if (model->kind == KIND_RANDOM) {
        for (int v = 0; v < V; v++)
            logits[v] = (float)((int64_t)(mix(key ^ (uint64_t)v) >> 40) - (1 << 23)) * 0x1p-21f;
        return;
    }
    if (model->kind == KIND_COARSE) {
        key = mix(mix(model->seed) ^ (key & 7));
        for (int v = 0; v < V; v++) logits[v] = (float)(mix(key ^ (uint64_t)v) >> 61) * 0.5f;
        return;
    }
    if (model->kind == KIND_WEIGHTS) {
        weights_logits(model, canvas, row, logits);
        return;
    }
    uint64_t answer_key = mix(mix(mix(model->seed) ^ (uint64_t)canvas->request) ^ (uint64_t)N);
    int32_t answer = 0;
    int64_t support = 0;
    for (int i = row > 3 ? row - 3 : 0; i < N && i <= row + 3; i++) {
        int32_t right = (int32_t)(mix(answer_key ^ (uint64_t)i) % (uint64_t)V);
        if (right == model->mask_id) right = (right + 1) % V;
        if (i == row)
            answer = right;
        else
            support += canvas->tokens[i] == right;
    }
    int64_t ease = (int64_t)(mix(answer_key ^ ((uint64_t)row + (UINT64_C(1) << 32))) >> 44);
    for (int v = 0; v < V; v++) {
        int64_t units = (int64_t)(mix(key ^ (uint64_t)v) >> 45) - (1 << 18);
        if (v == answer) units += (3 + support) * (1 << 18) + ease;
        logits[v] = (float)units * 0x1p-18f;
    }
}

/* The measure from probabilities, which are sorted for the largest two. */
static float synthetic_measure(const Synthetic *model, const float *logits, float temperature,
                               const DecodeChoice *choice, int token) {
    double p[512], sum = 0, entropy = 0, first = 0, second = 0;
    for (int v = 0; v < model->vocabulary; v++) {
        bool left_out = v == model->mask_id || v == choice->never;
        p[v] = left_out ? 0 : exp(logits[v] / (temperature > 0 ? (double)temperature : 1.0));
        sum += p[v];
    }
    for (int v = 0; v < model->vocabulary; v++) {
        double q = p[v] / sum;
        if (q > 0) entropy -= q * log(q);
        if (q > first)
            second = first, first = q;
        else if (q > second)
            second = q;
    }
    return (float)(choice->measure == DECODE_MARGIN        ? first - second
                   : choice->measure == DECODE_NEG_ENTROPY ? -entropy
                                                           : p[token] / sum);
}

static Proposal synthetic_propose(const Synthetic *model, const float *logits, int row,
                                  uint64_t noise, float temperature, uint64_t seed, int32_t never) {
    int V = model->vocabulary, best = -1;
    double most = -INFINITY, largest = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++) {
        if (v == model->mask_id || v == never) continue;
        double z = logits[v];
        if (largest < z) largest = z;
        if (temperature > 0)
            z = z / temperature +
                random_gumbel(seed, noise, (uint64_t)row * (uint64_t)V + (uint64_t)v);
        if (z > most) most = z, best = v;
    }
    for (int v = 0; v < V; v++)
        if (v != model->mask_id && v != never) sum += exp(logits[v] - largest);
    return (Proposal){best, (float)(logits[best] - largest - log(sum))};
}

int synthetic_evaluate(void *user, const DecodeCanvas *canvases, int count, float temperature,
                       uint64_t seed, Proposal *out, Error *err) {
    Synthetic *model = user;
    float logits[512];
    assert_true(count >= 1 && model->vocabulary <= 512);
    model->calls++, model->canvases += count;
    if (model->calls == model->fail_call) return error_set(err, "the model is out of order");
    Proposal *next = out;
    for (int c = 0; c < count; c++) {
        const DecodeCanvas *canvas = &canvases[c];
        for (int b = 0; model->distinct && b < c; b++)
            assert_false(canvas->request == canvases[b].request &&
                         canvas->length == canvases[b].length &&
                         memcmp(canvas->tokens, canvases[b].tokens,
                                (size_t)canvas->length * sizeof *canvas->tokens) == 0);
        uint64_t whole =
            mix(mix(mix(model->seed) ^ (uint64_t)canvas->request) ^ (uint64_t)canvas->length);
        for (int i = 0; i < canvas->length; i++) whole = mix(whole ^ (uint64_t)canvas->tokens[i]);
        for (int row = 0; row < canvas->length; row++) {
            synthetic_logits(model, canvas, whole, row, logits);
            const DecodeChoice *choice = canvas->choice;
            Proposal proposal = synthetic_propose(model, logits, row, canvas->noise, temperature,
                                                  seed, choice ? choice->never : -1);
            assert_true((canvas->confidence != NULL) ==
                        (choice && choice->measure != DECODE_NO_MEASURE));
            if (canvas->confidence)
                canvas->confidence[row] =
                    synthetic_measure(model, logits, temperature, choice, proposal.token);
            *next++ = proposal;
        }
    }
    if (model->calls == model->poison_call) out[0] = model->poison;
    return 0;
}

/* ---- helpers ---- */

DecodeOptions options_named(const char *name) {
    DecodeOptions options = decode_options_default();
    Error err;
    assert_ok(decode_strategy_parse(&options, name, &err), &err);
    return options;
}

DecodeRun run_of(Synthetic *model, const DecodeOptions *options, const DecodeSpec *specs,
                 int count) {
    return (DecodeRun){.options = options,
                       .specs = specs,
                       .count = count,
                       .mask_id = model->mask_id,
                       .evaluate = synthetic_evaluate,
                       .model = model,
                       .trace = true,
                       .ends = {(model->mask_id + 1) % model->vocabulary,
                                (model->mask_id + 2) % model->vocabulary},
                       .end_count = 2};
}

DecodeResult *decode_all(Synthetic *model, const DecodeOptions *options, const DecodeSpec *specs,
                         int count) {
    DecodeRun run = run_of(model, options, specs, count);
    DecodeResult *results;
    Error err;
    assert_ok(decode_run(&run, &results, &err), &err);
    return results;
}

/* The same to the last bit: answer, scores, every step. (Not the evaluations.) */
void assert_same(const DecodeResult *a, const DecodeResult *b) {
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->steps, b->steps);
    size_t N = (size_t)a->length;
    assert_memory_equal(a->tokens, b->tokens, N * sizeof *a->tokens);
    assert_memory_equal(a->scores, b->scores, N * sizeof *a->scores);
    assert_memory_equal(a->trace, b->trace, N * (size_t)a->steps * sizeof *a->trace);
    assert_memory_equal(&a->score, &b->score, sizeof a->score);
}

const char *const strategies[] = {
    "reparam-uncond-deterministic-cosine",
    "reparam-uncond-deterministic-linear",
    "reparam-uncond-stochastic0.5-cosine",
    "reparam-uncond-stochastic0.5-linear",
    "reparam-uncond-stochastic2-cosine",
    "reparam-uncond-stochastic2-linear",
    "reparam-cond-deterministic-cosine",
    "reparam-cond-deterministic-linear",
    "reparam-cond-stochastic0.5-cosine",
    "reparam-cond-stochastic0.5-linear",
    "reparam-cond-stochastic2-cosine",
    "reparam-cond-stochastic2-linear",
    "cmlm",
    "ar",
};

int random_below(TestRandom *random, int n) {
    return (int)(test_random_uniform(random) * n);
}

/* ---- against the reference ---- */

static void assert_score(float got, float expected, const char *what, int step, int position) {
    bool same =
        isinf(expected) ? got == expected : fabsf(got - expected) <= 1e-5f * fabsf(expected);
    if (!same)
        fail_msg("%s: step %d, position %d: score %.9g, not %.9g", what, step, position,
                 (double)got, (double)expected);
}

void golden_case(const GoldenHeader *header, const int32_t *fixed, const TraceCell *cells) {
    DecodeOptions options = options_named(header->strategy);
    options.iterations = header->iterations;
    options.temperature = header->temperature;
    options.seed = header->seed;
    Synthetic model = {.kind = header->kind,
                       .vocabulary = header->vocabulary,
                       .mask_id = header->mask,
                       .seed = header->seed};
    DecodeSpec spec = {header->request, header->length, header->sample, .fixed = fixed};
    DecodeResult *result = decode_all(&model, &options, &spec, 1);
    char what[160];
    snprintf(what, sizeof what, "%s, N = %d, T = %d, temperature %g, seed %u", header->strategy,
             header->length, header->iterations, (double)header->temperature, header->seed);
    assert_int_equal(result->steps, header->steps);
    for (int step = 1; step <= result->steps; step++)
        for (int i = 0; i < result->length; i++) {
            int at = (step - 1) * result->length + i;
            const TraceCell *got = &result->trace[at], *expected = &cells[at];
            if (got->token != expected->token || got->proposal.token != expected->proposal.token)
                fail_msg("%s: step %d, position %d: token %d (proposed %d), not %d (%d)", what,
                         step, i, got->token, got->proposal.token, expected->token,
                         expected->proposal.token);
            assert_score(got->score, expected->score, what, step, i);
            assert_score(got->proposal.score, expected->proposal.score, what, step, i);
        }
    for (int i = 0; i < result->length; i++) {
        const TraceCell *last = &result->trace[(result->steps - 1) * result->length + i];
        assert_int_equal(result->tokens[i], last->token);
        assert_true(result->scores[i] == last->score);
    }
    assert_score((float)result->score, header->score, what, result->steps, -1);
    assert_int_equal(result->evaluations, header->evaluations);
    assert_int_equal(model.canvases, header->evaluations);
    decode_results_free(result, 1);

    options.no_canvas_cache = true;
    result = decode_all(&model, &options, &spec, 1);
    assert_int_equal(result->evaluations, result->steps);
    decode_results_free(result, 1);
}
