/* Encoders other than XLM-R against transformers: RoBERTa, BERT and ModernBERT, tied and untied:
 * logits, losses and gradients with full and block-causal attention, windows, the cache of keys,
 * LoRA. tests/reference/make_encoders.py has the same configurations. */
#include "data/checkpoints/checkpoint.h"
#include "language/language.h"
#include "language/xlmr_train.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"

#include <math.h>

typedef struct Kind {
    const char *name;
    XlmrConfig config;
} Kind;

#define SMALL \
    { .width = 12, .heads = 3, .ffn = 15, .activation = ACTIVATION_GELU, .eps = 1e-5f }
#define MODERN                                                                                    \
    .activation = ACTIVATION_GELU, .eps = 1e-5f, .pre_norm = true, .gated = true, .joined = true, \
    .rotary = true

static const Kind kinds[] = {
    {"roberta", {23, 2, 42, SMALL, false, ENCODER_XLMR, 1, 0, 0, 0}},
    {"roberta-untied", {23, 2, 42, SMALL, true, ENCODER_XLMR, 1, 0, 0, 0}},
    {"bert", {21, 2, 30, SMALL, false, ENCODER_BERT, 2, 0, 0, 0}},
    {"bert-untied", {21, 2, 30, SMALL, true, ENCODER_BERT, 2, 0, 0, 0}},
    {"modernbert",
     {25,
      4,
      40,
      {.width = 12,
       .heads = 3,
       .ffn = 15,
       MODERN,
       .window = 3,
       .global_every = 3,
       .unbiased = BLOCK_QKV | BLOCK_OUT | BLOCK_FFN | BLOCK_NORMS},
      false,
      ENCODER_MODERNBERT,
      0,
      HEAD_DENSE,
      500,
      40}},
    {"modernbert-untied",
     {19,
      3,
      40,
      {.width = 16, .heads = 2, .ffn = 15, MODERN, .window = 4, .global_every = 2},
      true,
      ENCODER_MODERNBERT,
      0,
      HEAD_VOCABULARY,
      500,
      40}},
};
enum { KINDS = sizeof kinds / sizeof *kinds, SPANS = 16 };

/* A model with its golden file, and the file's batch. */
typedef struct Fixed {
    Device *device;
    Checkpoint golden;
    Params params;
    Xlmr model;
    int32_t *ids, *begin, *ends, *counts, *positions;
    int tokens, sequences;
    AttentionSpan spans[SPANS];
    int span_count;
    bool trained_blocks; /* gradients are of block-causal attention */
} Fixed;

static void open_declared(Fixed *f, Device *device, const Kind *kind) {
    Error err;
    char path[128];
    int count;
    *f = (Fixed){.device = device};
    snprintf(path, sizeof path, "tests/golden/encoders/%s.safetensors", kind->name);
    assert_ok(checkpoint_open(&f->golden, path, NULL, &err), &err);
    params_init(&f->params, device);
    XlmrConfig config = kind->config;
    if (config.kind == ENCODER_BERT) config.block.eps = 1e-12f;
    assert_ok(xlmr_declare(&f->model, &config, &f->params, &err), &err);
    for (int i = 0; i < f->params.count; i++) {
        Param *p = &f->params.items[i];
        assert_ok(params_set(p, golden(&f->golden, p->name, 0), &err), &err);
    }
    f->ids = golden_ids(&f->golden, "ids", 0, &f->tokens);
    f->begin = golden_ids(&f->golden, "begin", 0, &count);
    f->sequences = count - 1;
    f->ends = golden_ids(&f->golden, "blocks", 0, &count);
    f->counts = golden_ids(&f->golden, "block_counts", 0, &count);
    int32_t *trained = golden_ids(&f->golden, "trained", 0, &count);
    f->trained_blocks = trained[0];
    free(trained);
    f->positions = malloc((size_t)f->tokens * sizeof *f->positions);
    for (int s = 0; s < f->sequences; s++)
        for (int t = f->begin[s]; t < f->begin[s + 1]; t++)
            f->positions[t] = xlmr_first_position(&config) + t - f->begin[s];
}

static void close_fixed(Fixed *f) {
    xlmr_free(&f->model);
    params_free(&f->params);
    checkpoint_close(&f->golden);
    free(f->ids), free(f->begin), free(f->ends), free(f->counts), free(f->positions);
}

static XlmrBatch batch_of(Fixed *f, bool blocks) {
    const int32_t *end = f->ends;
    f->span_count = 0;
    for (int s = 0; s < f->sequences; s++) {
        const int32_t first = f->begin[s], last = f->begin[s + 1];
        int32_t q = first;
        for (int b = 0; b < (blocks ? f->counts[s] : 1); b++) {
            const int32_t stop = blocks ? first + end[b] : last;
            f->spans[f->span_count++] = (AttentionSpan){q, stop, 1, {{first, stop}}, 0, 0};
            q = stop;
        }
        end += f->counts[s];
    }
    return (XlmrBatch){.tokens = f->tokens,
                       .ids = f->ids,
                       .positions = f->positions,
                       .plan = {.spans = f->spans, .span_count = f->span_count}};
}

/* An arena of exactly so many bytes, which are NaN at first. */
static void arena_exact(Arena *arena, Device *device, size_t bytes) {
    Error err;
    assert_ok(arena_open(arena, device, bytes, &err), &err);
    memset(arena->block, 0xff, bytes);
}

/* Logits of all rows: [T, V] in the arena. */
static Tensor logits_of(const Fixed *f, Arena *arena, const XlmrBatch *batch) {
    Error err;
    const int vocab = f->model.config.vocab, n = batch->tokens;
    Tensor hidden, features, logits;
    arena_exact(arena, f->device,
                xlmr_work_bytes(&f->model, n) + xlmr_head_bytes(&f->model, n) +
                    arena_bytes(DTYPE_F32, n, vocab));
    assert_ok(xlmr_forward(&f->model, arena, batch, &hidden, NULL, &err), &err);
    int32_t *all = malloc((size_t)n * sizeof *all);
    for (int i = 0; i < n; i++) all[i] = i;
    assert_ok(xlmr_head(&f->model, arena, hidden, all, n, &features, &err), &err);
    assert_ok(arena_take(arena, &logits, DTYPE_F32, n, vocab, &err), &err);
    assert_ok(vocab_logits(f->device, logits, features, f->model.vocab_w, f->model.vocab_b, &err),
              &err);
    free(all);
    return logits;
}

static void check_logits(Device *device, Dtype compute, double limit) {
    for (int k = 0; k < KINDS; k++) {
        Fixed f;
        Error err;
        open_declared(&f, device, &kinds[k]);
        assert_ok(params_prepare(&f.params, compute, NULL, NULL, &err), &err);
        for (int blocks = 0; blocks < 2; blocks++) {
            Arena arena;
            char what[64];
            const char *name = blocks ? "logits.blocks" : "logits.full";
            const XlmrBatch batch = batch_of(&f, blocks);
            snprintf(what, sizeof what, "%s of %s", name, kinds[k].name);
            compare(logits_of(&f, &arena, &batch), golden(&f.golden, name, 0), limit, what, 0);
            arena_close(&arena);
        }
        close_fixed(&f);
    }
}

static void test_logits_f32(void **state) {
    check_logits(isa_device(state), DTYPE_F32, 1e-5);
}

static void test_logits_bf16(void **state) {
    Device *device = isa_device(state);
    if (!device_has_bf16(device)) skip();
    check_logits(device, DTYPE_BF16, 2e-2);
}

/* ---- The cache: a sequence in blocks, one at a time, as in the whole; the windows reach
 * over the blocks' ends. ---- */

static void check_cache(Device *device, const Kind *kind) {
    enum { N = 20, CUTS = 6 };
    static const int cuts[CUTS] = {0, 1, 3, 9, 10, N};
    Fixed f;
    Error err;
    open_declared(&f, device, kind);
    assert_ok(params_prepare(&f.params, DTYPE_F32, NULL, NULL, &err), &err);
    const XlmrConfig *c = &f.model.config;
    AttentionSpan spans[CUTS - 1];
    int32_t positions[N];
    for (int i = 0; i < N; i++) positions[i] = xlmr_first_position(c) + i;
    for (int i = 0; i + 1 < CUTS; i++)
        spans[i] = (AttentionSpan){cuts[i], cuts[i + 1], 1, {{0, cuts[i + 1]}}, 0, 0};
    XlmrBatch batch = {.tokens = N,
                       .ids = f.ids + f.begin[2],
                       .positions = positions,
                       .plan = {.spans = spans, .span_count = CUTS - 1}};
    Arena arena, kept;
    const Tensor want = logits_of(&f, &arena, &batch);
    KvCache cache = {calloc((size_t)c->layers, sizeof(Tensor)), c->layers, N};
    const int64_t wide = 2 * block_key_width(&c->block);
    arena_exact(&kept, device, (size_t)c->layers * arena_bytes(DTYPE_F32, N, wide));
    for (int i = 0; i < c->layers; i++)
        assert_ok(arena_take(&kept, &cache.layers[i], DTYPE_F32, N, wide, &err), &err);
    for (int i = 0; i + 1 < CUTS; i++) {
        const int first = cuts[i], count = cuts[i + 1] - first;
        const AttentionSpan span = {0, count, 1, {{0, first + count}}, 0, 0};
        Arena piece;
        batch = (XlmrBatch){
            .tokens = count,
            .ids = f.ids + f.begin[2] + first,
            .positions = positions + first,
            .plan = {.spans = &span, .span_count = 1, .cache = &cache, .cache_begin = first}};
        const Tensor got = logits_of(&f, &piece, &batch);
        /* Not to the bit: at these odd widths some matmuls of few rows and of many differ. */
        assert_close(got.data, tensor_rows(want, first, count).data, (size_t)(count * c->vocab),
                     2e-6, kind->name);
        arena_close(&piece);
    }
    free(cache.layers);
    arena_close(&kept), arena_close(&arena);
    close_fixed(&f);
}

static void test_cache(void **state) {
    for (int k = 0; k < KINDS; k++) check_cache(isa_device(state), &kinds[k]);
}

/* ---- Gradients. ---- */

static const float *floats(const Fixed *f, const char *name) {
    return golden(&f->golden, name, 0).data;
}

/* The losses of the golden targets, with gradients as `run` says. */
static float *losses_of(Fixed *f, const TrainRun *run, int *count) {
    Error err;
    Arena arena;
    int32_t *rows = golden_ids(&f->golden, "rows", 0, count);
    int32_t *targets = golden_ids(&f->golden, "targets", 0, count);
    const XlmrBatch batch = batch_of(f, f->trained_blocks);
    const XlmrTargets t = {
        .count = *count, .rows = rows, .ids = targets, .weights = floats(f, "weights")};
    float *losses = malloc((size_t)*count * sizeof *losses);
    const size_t bytes = xlmr_loss_bytes(&f->model, f->tokens, *count, run, false);
    arena_exact(&arena, f->device, bytes);
    assert_ok(xlmr_loss(&f->model, &arena, &batch, &t, run, losses, TENSOR_NONE, &err), &err);
    assert_int_equal(arena.used, 0);
    arena_close(&arena);
    free(rows), free(targets);
    return losses;
}

static float *gradients_of(const Params *params) {
    Error err;
    float *grad = malloc((size_t)params->flat * sizeof *grad);
    assert_ok(device_download(params->device, grad, params->grad,
                              (size_t)params->flat * sizeof *grad, &err),
              &err);
    return grad;
}

static size_t values_in(const Param *p) {
    return (size_t)tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape));
}

/* A key's bias shifts all scores of a query alike, but where keys are turned: its gradient is 0, and
 * what is found there is rounding, small beside the query's gradient. */
static void check_gradient(const Fixed *f, const Param *p, const float *grad, double limit) {
    char name[128];
    const char *key = strstr(p->name, "self.key.bias");
    if (key) {
        snprintf(name, sizeof name, "grad.%.*sself.query.bias", (int)(key - p->name), p->name);
        const float *query = floats(f, name);
        double size = 0;
        for (size_t i = 0; i < values_in(p); i++) size += fabs((double)query[i]);
        for (size_t i = 0; i < values_in(p); i++)
            assert_true(fabs((double)grad[p->offset + (int64_t)i]) <= limit * size);
        return;
    }
    snprintf(name, sizeof name, "grad.%s", p->name);
    assert_close(grad + p->offset, floats(f, name), values_in(p), limit, name);
}

static void check_gradients(Device *device, Dtype compute, double loss_limit, double limit) {
    for (int k = 0; k < KINDS; k++) {
        float *first = NULL;
        for (int recompute = 0; recompute < 2; recompute++) {
            Fixed f;
            Error err;
            int count;
            open_declared(&f, device, &kinds[k]);
            assert_ok(params_train(&f.params, compute, &err), &err);
            const TrainRun run = {.backward = true, .recompute = recompute};
            float *losses = losses_of(&f, &run, &count);
            assert_close(losses, floats(&f, "losses"), (size_t)count, loss_limit, "losses");
            float *grad = gradients_of(&f.params);
            for (int i = 0; i < f.params.count; i++) {
                check_gradient(&f, &f.params.items[i], grad, limit);
            }
            if (first) /* activation checkpointing has the same bits */
                assert_memory_equal(first, grad, (size_t)f.params.flat * sizeof *grad);
            free(first);
            first = grad;
            free(losses);
            close_fixed(&f);
        }
        free(first);
    }
}

static void test_gradients_f32(void **state) {
    check_gradients(isa_device(state), DTYPE_F32, 1e-5, 2e-5);
}

static void test_gradients_bf16(void **state) {
    Device *device = isa_device(state);
    if (!device_has_bf16(device)) skip();
    check_gradients(device, DTYPE_BF16, 2e-2, 0.1);
}

/* Frozen lower blocks: nothing below the last one is computed, and its gradients are the same. */
static void test_frozen(void **state) {
    for (int k = 0; k < KINDS; k++) {
        Fixed f;
        Error err;
        int count, trained = 0;
        char last[32];
        open_declared(&f, isa_device(state), &kinds[k]);
        snprintf(last, sizeof last, ".%d.", f.model.config.layers - 1);
        for (int i = 0; i < f.params.count; i++)
            f.params.items[i].trainable = strstr(f.params.items[i].name, last) != NULL;
        assert_ok(params_train(&f.params, DTYPE_F32, &err), &err);
        float *losses = losses_of(&f, &(TrainRun){.backward = true}, &count);
        float *grad = gradients_of(&f.params);
        for (int i = 0; i < f.params.count; i++) {
            const Param *p = &f.params.items[i];
            if (!p->trainable) continue;
            check_gradient(&f, p, grad, 2e-5);
            trained++;
        }
        assert_true(trained >= 6);
        free(losses), free(grad);
        close_fixed(&f);
    }
}

/* The loss without gradients, of packed and of plain weights. */
static void test_loss_alone(void **state) {
    for (int k = 0; k < KINDS; k++)
        for (int plain = 0; plain < 2; plain++) {
            Fixed f;
            Error err;
            int count;
            open_declared(&f, isa_device(state), &kinds[k]);
            if (plain)
                assert_ok(params_train(&f.params, DTYPE_F32, &err), &err);
            else
                assert_ok(params_prepare(&f.params, DTYPE_F32, NULL, NULL, &err), &err);
            float *losses = losses_of(&f, &(TrainRun){0}, &count);
            assert_close(losses, floats(&f, "losses"), (size_t)count, 1e-5, "losses");
            free(losses);
            close_fixed(&f);
        }
}

/* ---- LoRA: a frozen model with A and B has the losses of one whose weights are W' = W + s B A,
 * and dB = s dW' A^T; ModernBERT's joined gate and up have one A and B. ---- */

enum { RANK = 3 };
static const float LORA_SCALE = 2; /* alpha / RANK */

static float *host_values(const Params *params, const Param *p) {
    Error err;
    float *v = malloc(values_in(p) * sizeof *v);
    assert_ok(params_fetch(params, p, v, DTYPE_F32, &err), &err);
    return v;
}

/* The matrix that parameter `i` of the LoRA table belongs to. */
static Param *adapted(Params *params, const char *lora_name) {
    char name[192];
    const char *begin = lora_name + strlen("base_model.model.");
    snprintf(name, sizeof name, "%.*s.weight", (int)(strstr(begin, ".lora_") - begin), begin);
    Param *p = params_find(params, name);
    assert_non_null(p);
    return p;
}

static void check_lora(Device *device, const Kind *kind) {
    const bool modern = kind->config.kind == ENCODER_MODERNBERT;
    Fixed f, merged;
    Error err;
    Params lora;
    TestRandom random = {kind->config.vocab};
    int count;
    const TrainRun run = {.backward = true};
    open_declared(&f, device, kind);
    f.model.config.block.lora =
        (LoraConfig){RANK, LORA_SCALE * RANK, modern ? 7u << LORA_OUT : (1u << LORA_TARGETS) - 1};
    params_init(&lora, device);
    assert_ok(xlmr_declare_lora(&f.model, &lora, &err), &err);
    assert_int_equal(lora.count, 2 * (modern ? 3 : 6) * kind->config.layers);
    assert_ok(params_allocate(&lora, DTYPE_F32, &err), &err);
    params_freeze(&f.params, true);
    assert_ok(params_train(&f.params, DTYPE_F32, &err), &err);
    assert_ok(params_train(&lora, DTYPE_F32, &err), &err);
    open_declared(&merged, device, kind);
    assert_ok(params_train(&merged.params, DTYPE_F32, &err), &err);
    for (int i = 0; i < lora.count; i += 2) {
        const Param *pa = &lora.items[i], *pb = &lora.items[i + 1];
        const Param *p = adapted(&merged.params, pa->name);
        const int64_t n = p->shape[0], d = p->shape[1];
        float *w = host_values(&merged.params, p), *a = malloc(values_in(pa) * sizeof *a),
              *b = malloc(values_in(pb) * sizeof *b);
        assert_int_equal(values_in(pb), n * RANK);
        for (size_t j = 0; j < values_in(pa); j++) a[j] = 0.2f * test_random_normal(&random);
        for (size_t j = 0; j < values_in(pb); j++) b[j] = 0.2f * test_random_normal(&random);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < d; c++)
                for (int j = 0; j < RANK; j++)
                    w[r * d + c] += LORA_SCALE * b[r * RANK + j] * a[j * d + c];
        assert_ok(params_store(&lora, pa, a, &err), &err);
        assert_ok(params_store(&lora, pb, b, &err), &err);
        assert_ok(params_store(&merged.params, p, w, &err), &err);
        free(w), free(a), free(b);
    }
    float *got = losses_of(&f, &run, &count), *want = losses_of(&merged, &run, &count);
    assert_close(got, want, (size_t)count, 1e-5, "losses with LoRA");
    float *alone = losses_of(&f, &(TrainRun){0}, &count);
    assert_close(alone, want, (size_t)count, 1e-5, "losses with LoRA, inference");
    float *grad = gradients_of(&lora), *dw = gradients_of(&merged.params);
    for (int i = 0; i < lora.count; i += 2) {
        const Param *pa = &lora.items[i], *pb = &lora.items[i + 1];
        const Param *p = adapted(&merged.params, pa->name);
        const int64_t n = p->shape[0], d = p->shape[1];
        float *a = host_values(&lora, pa), *db = calloc((size_t)(n * RANK), sizeof *db);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < d; c++)
                for (int j = 0; j < RANK; j++)
                    db[r * RANK + j] += LORA_SCALE * dw[p->offset + r * d + c] * a[j * d + c];
        assert_close(grad + pb->offset, db, (size_t)(n * RANK), 2e-5, pb->name);
        free(a), free(db);
    }
    free(got), free(want), free(alone), free(grad), free(dw);
    params_free(&lora);
    close_fixed(&f), close_fixed(&merged);
}

static void test_lora(void **state) {
    for (int k = 0; k < KINDS; k++) check_lora(isa_device(state), &kinds[k]);
}

static void test_refused(void **state) {
    (void)state;
    Device *device;
    Error err;
    Xlmr m;
    Params params;
    XlmrConfig c = kinds[4].config;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    params_init(&params, device);
    c.local_theta = 0;
    assert_refused(xlmr_declare(&m, &c, &params, &err), &err, "bases of 500 and 0");
    c = kinds[4].config, c.block.global_every = 0;
    assert_refused(xlmr_declare(&m, &c, &params, &err), &err, "window of 3");
    c = kinds[4].config, c.block.rotary = false;
    assert_refused(xlmr_declare(&m, &c, &params, &err), &err, "not those of its kind");
    c = kinds[4].config;
    assert_ok(xlmr_declare(&m, &c, &params, &err), &err);
    m.config.block.lora = (LoraConfig){2, 2, 1u << LORA_QUERY};
    Params lora;
    params_init(&lora, device);
    assert_refused(xlmr_declare_lora(&m, &lora, &err), &err, "attn.Wqkv", "out, fc1 and fc2");
    params_free(&lora);
    xlmr_free(&m), params_free(&params);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(test_logits_f32),     ON_EACH_ISA(test_logits_bf16),
        ON_EACH_ISA(test_cache),          ON_EACH_ISA(test_gradients_f32),
        ON_EACH_ISA(test_gradients_bf16), ON_EACH_ISA(test_frozen),
        ON_EACH_ISA(test_loss_alone),     ON_EACH_ISA(test_lora),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
