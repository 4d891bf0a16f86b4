/* Decoders of LLaMA's kind against transformers' (LLaMA, Qwen2) and torch (LLaDA): logits and
 * gradients with full, block-causal and causal attention; the cache of keys, LoRA, 8-bit weights.
 * tests/reference/make_llama.py has the same configurations. */
#include "data/checkpoints/checkpoint.h"
#include "kernels/int8.h"
#include "language/llama_train.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"

#include <math.h>

typedef struct Kind {
    const char *name, *trained; /* the attention that the gradients are of */
    int vocab, layers, width, heads, key_heads, head_width, ffn;
    float eps, theta;
    unsigned biased;
    bool tied;
    LlamaNaming naming;
    RopeScaling scaling;
} Kind;

static const Kind kinds[] = {
    {"llama", "causal", 23, 2, 18, 6, 2, 8, 13, 1e-5f, 500, 0, false, LLAMA_NAMES, {4, 1, 4, 16}},
    {"biases", "blocks", 17, 1, 12, 3, 3, 0, 11, 1e-6f, 1e4f, 7, true, LLAMA_NAMES, {0}},
    {"qwen2", "causal", 19, 2, 12, 3, 1, 0, 15, 1e-6f, 1e6f, BLOCK_QKV, true, LLAMA_NAMES, {0}},
    {"llada", "full", 21, 2, 16, 2, 0, 0, 9, 1e-5f, 1e4f, 0, false, LLADA_NAMES, {0}},
};
enum { KINDS = sizeof kinds / sizeof *kinds, SPANS = 16 };

static LlamaConfig config_of(const Kind *k) {
    LlamaConfig c = {.vocab = k->vocab,
                     .layers = k->layers,
                     .positions = 64,
                     .block = llama_block(k->width, k->heads, k->key_heads, k->ffn, k->eps),
                     .theta = k->theta,
                     .scaling = k->scaling,
                     .tied = k->tied,
                     .naming = k->naming};
    c.block.head_width = k->head_width;
    c.block.unbiased = 7 & ~k->biased;
    return c;
}

/* A model with its golden file, and the file's batch. */
typedef struct Fixed {
    const Kind *kind;
    Device *device;
    Checkpoint golden;
    Params params;
    Llama model;
    int32_t *ids, *begin, *ends, *counts, *positions;
    int tokens, sequences;
    AttentionSpan spans[SPANS];
    int span_count;
} Fixed;

static void open_declared(Fixed *f, Device *device, const Kind *kind) {
    Error err;
    char path[128];
    int count;
    *f = (Fixed){.kind = kind, .device = device};
    snprintf(path, sizeof path, "tests/golden/llama/%s.safetensors", kind->name);
    assert_ok(checkpoint_open(&f->golden, path, NULL, &err), &err);
    params_init(&f->params, device);
    const LlamaConfig config = config_of(kind);
    assert_ok(llama_declare(&f->model, &config, &f->params, &err), &err);
    for (int i = 0; i < f->params.count; i++) {
        Param *p = &f->params.items[i];
        assert_ok(params_set(p, golden(&f->golden, p->name, 0), &err), &err);
    }
    f->ids = golden_ids(&f->golden, "ids", 0, &f->tokens);
    f->begin = golden_ids(&f->golden, "begin", 0, &count);
    f->sequences = count - 1;
    f->ends = golden_ids(&f->golden, "blocks", 0, &count);
    f->counts = golden_ids(&f->golden, "block_counts", 0, &count);
    f->positions = malloc((size_t)f->tokens * sizeof *f->positions);
    for (int s = 0; s < f->sequences; s++)
        for (int t = f->begin[s]; t < f->begin[s + 1]; t++) f->positions[t] = t - f->begin[s];
}

static void close_fixed(Fixed *f) {
    llama_free(&f->model);
    params_free(&f->params);
    checkpoint_close(&f->golden);
    free(f->ids), free(f->begin), free(f->ends), free(f->counts), free(f->positions);
}

/* Every sequence with "full", "blocks" or "causal" attention. */
static XlmrBatch batch_of(Fixed *f, const char *mode) {
    const int32_t *end = f->ends;
    f->span_count = 0;
    for (int s = 0; s < f->sequences; s++) {
        const int32_t first = f->begin[s], last = f->begin[s + 1];
        int32_t q = first;
        const bool blocks = !strcmp(mode, "blocks");
        for (int b = 0; b < (blocks ? f->counts[s] : 1); b++) {
            const int32_t stop = blocks ? first + end[b] : last;
            f->spans[f->span_count++] =
                (AttentionSpan){q, stop, 1, {{first, stop}}, .causal = !strcmp(mode, "causal")};
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
                llama_work_bytes(&f->model, n) + llama_head_bytes(&f->model, n) +
                    arena_bytes(DTYPE_F32, n, vocab));
    assert_ok(llama_forward(&f->model, arena, batch, &hidden, NULL, &err), &err);
    int32_t *all = malloc((size_t)n * sizeof *all);
    for (int i = 0; i < n; i++) all[i] = i;
    assert_ok(llama_head(&f->model, arena, hidden, all, n, &features, &err), &err);
    assert_ok(arena_take(arena, &logits, DTYPE_F32, n, vocab, &err), &err);
    assert_ok(vocab_logits(f->device, logits, features, f->model.vocab_w, TENSOR_NONE, &err), &err);
    free(all);
    return logits;
}

static void check_logits(Device *device, Dtype compute, double limit) {
    static const char *const modes[] = {"full", "blocks", "causal"};
    for (int k = 0; k < KINDS; k++) {
        Fixed f;
        Error err;
        open_declared(&f, device, &kinds[k]);
        assert_ok(params_prepare(&f.params, compute, NULL, NULL, &err), &err);
        for (int m = 0; m < 3; m++) {
            Arena arena;
            char name[64], what[64];
            const XlmrBatch batch = batch_of(&f, modes[m]);
            snprintf(name, sizeof name, "logits.%s", modes[m]);
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

/* ---- The cache: a sequence in pieces, causal, with the bits of the whole. ---- */

static void test_cache(void **state) {
    Device *device = isa_device(state);
    for (int k = 0; k < KINDS; k++) {
        Fixed f;
        Error err;
        open_declared(&f, device, &kinds[k]);
        assert_ok(params_prepare(&f.params, DTYPE_F32, NULL, NULL, &err), &err);
        const LlamaConfig *c = &f.model.config;
        enum { N = 20 };
        static const int cuts[] = {0, 7, 8, 9, 17, N};
        int32_t positions[N];
        for (int i = 0; i < N; i++) positions[i] = i;
        const AttentionSpan whole = {0, N, 1, {{0, N}}, 1};
        XlmrBatch batch = {
            .tokens = N, .ids = f.ids, .positions = positions, .plan = {&whole, 1, NULL, 0, NULL}};
        Arena arena, kept;
        const Tensor want = logits_of(&f, &arena, &batch);
        KvCache cache = {calloc((size_t)c->layers, sizeof(Tensor)), c->layers, N};
        const int64_t wide = 2 * block_key_width(&c->block);
        arena_exact(&kept, device, (size_t)c->layers * arena_bytes(DTYPE_F32, N, wide));
        for (int i = 0; i < c->layers; i++)
            assert_ok(arena_take(&kept, &cache.layers[i], DTYPE_F32, N, wide, &err), &err);
        for (int i = 0; i + 1 < (int)(sizeof cuts / sizeof *cuts); i++) {
            const int first = cuts[i], count = cuts[i + 1] - first;
            const AttentionSpan span = {0, count, 1, {{0, first + count}}, 1};
            Arena piece;
            batch = (XlmrBatch){.tokens = count,
                                .ids = f.ids + first,
                                .positions = positions + first,
                                .plan = {&span, 1, &cache, first, NULL}};
            const Tensor got = logits_of(&f, &piece, &batch);
            if (test_on_gpu()) /* few rows and many are other kernels there */
                assert_close(got.data, tensor_rows(want, first, count).data,
                             (size_t)(count * c->vocab), 1e-6, kinds[k].name);
            else
                assert_memory_equal(got.data, tensor_rows(want, first, count).data,
                                    tensor_bytes(got));
            arena_close(&piece);
        }
        free(cache.layers);
        arena_close(&kept), arena_close(&arena);
        close_fixed(&f);
    }
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
    const XlmrBatch batch = batch_of(f, f->kind->trained);
    const XlmrTargets t = {
        .count = *count, .rows = rows, .ids = targets, .weights = floats(f, "weights")};
    float *losses = malloc((size_t)*count * sizeof *losses);
    const size_t bytes = llama_loss_bytes(&f->model, f->tokens, *count, run, false);
    arena_exact(&arena, f->device, bytes);
    assert_ok(llama_loss(&f->model, &arena, &batch, &t, run, losses, TENSOR_NONE, &err), &err);
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

static void check_gradients(Device *device, Dtype compute, double loss_limit, double limit) {
    for (int k = 0; k < KINDS; k++) {
        float *first = NULL;
        for (int recompute = 0; recompute < 2; recompute++) {
            Fixed f;
            Error err;
            int count;
            char name[128];
            open_declared(&f, device, &kinds[k]);
            assert_ok(params_train(&f.params, compute, &err), &err);
            const TrainRun run = {.backward = true, .recompute = recompute};
            float *losses = losses_of(&f, &run, &count);
            assert_close(losses, floats(&f, "losses"), (size_t)count, loss_limit, "losses");
            float *grad = gradients_of(&f.params);
            for (int i = 0; i < f.params.count; i++) {
                const Param *p = &f.params.items[i];
                snprintf(name, sizeof name, "grad.%s", p->name);
                assert_close(grad + p->offset, floats(&f, name), values_in(p), limit, name);
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

/* The loss without gradients, of packed and of plain weights. */
static void test_loss_alone(void **state) {
    Device *device = isa_device(state);
    for (int k = 0; k < KINDS; k++)
        for (int plain = 0; plain < 2; plain++) {
            Fixed f;
            Error err;
            int count;
            open_declared(&f, device, &kinds[k]);
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
 * and dA = s B^T dW', dB = s dW' A^T. ---- */

enum { RANK = 3 };
static const float LORA_SCALE = 2; /* alpha / RANK */

static float *host_values(const Params *params, const Param *p) {
    Error err;
    float *v = malloc(values_in(p) * sizeof *v);
    assert_ok(params_fetch(params, p, v, DTYPE_F32, &err), &err);
    return v;
}

/* Name of the matrix that parameter `i` of the LoRA table belongs to. */
static Param *adapted(Params *params, const char *lora_name) {
    char name[192];
    const char *begin = lora_name + strlen("base_model.model.");
    snprintf(name, sizeof name, "%.*s.weight", (int)(strstr(begin, ".lora_") - begin), begin);
    Param *p = params_find(params, name);
    assert_non_null(p);
    return p;
}

static void merge(Fixed *merged, const Params *lora) {
    Error err;
    for (int i = 0; i < lora->count; i += 2) {
        const Param *p = adapted(&merged->params, lora->items[i].name);
        const int64_t n = p->shape[0], d = p->shape[1];
        float *w = host_values(&merged->params, p), *a = host_values(lora, &lora->items[i]),
              *b = host_values(lora, &lora->items[i + 1]);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < d; c++)
                for (int j = 0; j < RANK; j++)
                    w[r * d + c] += LORA_SCALE * b[r * RANK + j] * a[j * d + c];
        assert_ok(params_store(&merged->params, p, w, &err), &err);
        free(w), free(a), free(b);
    }
}

/* Of one pair of matrices, from the gradient dw [n, d] of the merged weight. */
static void check_pair(const Params *lora, int i, const float *grad, const float *dw, int64_t n,
                       int64_t d) {
    const Param *pa = &lora->items[i], *pb = &lora->items[i + 1];
    float *a = host_values(lora, pa), *b = host_values(lora, pb);
    float *da = calloc((size_t)(RANK * d), sizeof *da),
          *db = calloc((size_t)(n * RANK), sizeof *db);
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < d; c++)
            for (int j = 0; j < RANK; j++) {
                da[j * d + c] += LORA_SCALE * b[r * RANK + j] * dw[r * d + c];
                db[r * RANK + j] += LORA_SCALE * dw[r * d + c] * a[j * d + c];
            }
    assert_close(grad + pa->offset, da, (size_t)(RANK * d), 1e-5, pa->name);
    assert_close(grad + pb->offset, db, (size_t)(n * RANK), 1e-5, pb->name);
    free(a), free(b), free(da), free(db);
}

static void check_lora(Device *device, const Kind *kind) {
    Fixed f, merged;
    Error err;
    Params lora;
    TestRandom random = {kind->vocab};
    int count;
    const TrainRun run = {.backward = true};
    open_declared(&f, device, kind);
    f.model.config.block.lora = (LoraConfig){RANK, LORA_SCALE * RANK, (1u << LORA_TARGETS) - 1};
    params_init(&lora, device);
    assert_ok(llama_declare_lora(&f.model, &lora, &err), &err);
    assert_int_equal(lora.count, 2 * LORA_MATRICES * kind->layers); /* fc1 is gate and up */
    assert_ok(params_allocate(&lora, DTYPE_F32, &err), &err);
    params_freeze(&f.params, true);
    assert_ok(params_train(&f.params, DTYPE_F32, &err), &err);
    assert_ok(params_train(&lora, DTYPE_F32, &err), &err);
    for (int i = 0; i < lora.count; i++) {
        float *v = malloc(values_in(&lora.items[i]) * sizeof *v);
        for (size_t j = 0; j < values_in(&lora.items[i]); j++)
            v[j] = 0.2f * test_random_normal(&random);
        assert_ok(params_store(&lora, &lora.items[i], v, &err), &err);
        free(v);
    }
    open_declared(&merged, device, kind);
    assert_ok(params_train(&merged.params, DTYPE_F32, &err), &err);
    merge(&merged, &lora);
    float *got = losses_of(&f, &run, &count), *want = losses_of(&merged, &run, &count);
    assert_close(got, want, (size_t)count, 1e-5, "losses with LoRA");
    float *alone = losses_of(&f, &(TrainRun){0}, &count);
    assert_close(alone, want, (size_t)count, 1e-5, "losses with LoRA, inference");
    float *grad = gradients_of(&lora), *dw = gradients_of(&merged.params);
    for (int i = 0; i < lora.count; i += 2) {
        const Param *p = adapted(&merged.params, lora.items[i].name);
        check_pair(&lora, i, grad, dw + p->offset, p->shape[0], p->shape[1]);
    }
    free(got), free(want), free(alone), free(grad), free(dw);
    params_free(&lora);
    close_fixed(&f), close_fixed(&merged);
}

static void test_lora(void **state) {
    for (int k = 0; k < KINDS; k++) check_lora(isa_device(state), &kinds[k]);
}

/* ---- Dropout: masks are those of the forward pass, with and without checkpointing. ---- */

static double loss_sum(Fixed *f, const TrainRun *run) {
    int count;
    double sum = 0;
    float *losses = losses_of(f, run, &count);
    for (int i = 0; i < count; i++) sum += (double)losses[i];
    free(losses);
    return sum;
}

/* Moves all parameters by `step` times their direction, a fixed random one. */
static void move(Fixed *f, float *const *start, float *const *direction, float step) {
    Error err;
    for (int i = 0; i < f->params.count; i++) {
        const Param *p = &f->params.items[i];
        float *v = malloc(values_in(p) * sizeof *v);
        for (size_t j = 0; j < values_in(p); j++) v[j] = start[i][j] + step * direction[i][j];
        assert_ok(params_store(&f->params, p, v, &err), &err);
        free(v);
    }
}

/* The slope of the loss along that direction, by the gradients and by differences. */
static void check_dropout(Device *device, const Kind *kind, bool recompute) {
    Fixed f;
    Error err;
    TestRandom random = {77};
    enum { MOST = 32 };
    float *start[MOST], *direction[MOST];
    const TrainRun run = {
        .dropout = 0.25f, .seed = 3, .stream = 5, .recompute = recompute, .backward = true};
    open_declared(&f, device, kind);
    assert_ok(params_train(&f.params, DTYPE_F32, &err), &err);
    assert_in_range(f.params.count, 1, MOST);
    loss_sum(&f, &run);
    float *grad = gradients_of(&f.params);
    double slope = 0;
    for (int i = 0; i < f.params.count; i++) {
        const Param *p = &f.params.items[i];
        start[i] = host_values(&f.params, p);
        direction[i] = malloc(values_in(p) * sizeof(float));
        for (size_t j = 0; j < values_in(p); j++) {
            direction[i][j] = test_random_normal(&random);
            slope += (double)direction[i][j] * (double)grad[p->offset + (int64_t)j];
        }
    }
    const float step = 1e-4f;
    move(&f, start, direction, step);
    const double high = loss_sum(&f, &run);
    move(&f, start, direction, -step);
    const double measured = (high - loss_sum(&f, &run)) / (2 * (double)step);
    if (!(fabs(measured - slope) <= 2e-2 * fabs(slope) + 2e-2))
        fail_msg("%s: slope %g by gradients, %g by differences", kind->name, slope, measured);
    for (int i = 0; i < f.params.count; i++) free(start[i]), free(direction[i]);
    free(grad);
    close_fixed(&f);
}

static void test_dropout(void **state) {
    for (int k = 0; k < KINDS; k++)
        for (int recompute = 0; recompute < 2; recompute++)
            check_dropout(isa_device(state), &kinds[k], recompute);
}

/* ---- 8-bit weights: the logits of a model with the dequantized ones. ---- */

/* Replaces the values of a matrix by integers with scales, or by what these stand for. */
static void quantize(Param *p, bool integers, void **memory) {
    Error err;
    const int64_t n = p->shape[0], d = p->shape[1];
    float *values = malloc((size_t)(n * d) * sizeof *values), *scales = malloc((size_t)n * 4);
    int8_t *small = malloc((size_t)(n * d));
    tensor_values(values, DTYPE_F32, p->value, 0, n * d);
    for (int64_t r = 0; r < n; r++) scales[r] = int8_quantize(small + r * d, values + r * d, d);
    for (int64_t i = 0; i < n * d; i++) values[i] = scales[i / d] * small[i];
    Tensor t = tensor_2d(integers ? (void *)small : values, integers ? DTYPE_I8 : DTYPE_F32, n, d);
    if (integers) t.scale = scales;
    memory[0] = values, memory[1] = scales, memory[2] = small;
    assert_ok(params_set(p, t, &err), &err);
}

static void test_int8(void **state) {
    Device *device = isa_device(state);
    enum { MOST = 32 };
    for (int k = 0; k < KINDS; k++) {
        Fixed f[2];
        Arena arena[2];
        Tensor logits[2];
        void *memory[2][MOST][3] = {{{NULL}}};
        for (int integers = 0; integers < 2; integers++) {
            Error err;
            Fixed *m = &f[integers];
            open_declared(m, device, &kinds[k]);
            assert_in_range(m->params.count, 1, MOST);
            for (int i = 0; i < m->params.count; i++)
                if (m->params.items[i].role != PARAM_VECTOR)
                    quantize(&m->params.items[i], integers, memory[integers][i]);
            assert_ok(params_prepare(&m->params, DTYPE_F32, NULL, NULL, &err), &err);
            const XlmrBatch batch = batch_of(m, "causal");
            logits[integers] = logits_of(m, &arena[integers], &batch);
        }
        assert_close(logits[1].data, logits[0].data, (size_t)tensor_count(logits[0]), 1e-5,
                     kinds[k].name);
        for (int integers = 0; integers < 2; integers++) {
            arena_close(&arena[integers]);
            close_fixed(&f[integers]);
            for (int i = 0; i < MOST * 3; i++) free(memory[integers][i / 3][i % 3]);
        }
    }
}

/* ---- Refusals. ---- */

static void refuse(Device *device, LlamaConfig c, const char *first, const char *second) {
    Error err;
    Params params;
    Llama model;
    params_init(&params, device);
    assert_refused(llama_declare(&model, &c, &params, &err), &err, first, second);
    llama_free(&model);
    params_free(&params);
}

static void test_refusals(void **state) {
    Device *device = isa_device(state);
    const LlamaConfig good = config_of(&kinds[0]);
    LlamaConfig c = good;
    c.block.key_heads = 4;
    refuse(device, c, "6 heads", "4 heads of keys");
    c = good, c.block.head_width = 7;
    refuse(device, c, "width 7", "even");
    c = good, c.block.head_width = 0, c.block.heads = 4, c.block.key_heads = 2;
    refuse(device, c, "width 18", "4 heads");
    c = good, c.theta = -1;
    refuse(device, c, "rope_theta", "-1");
    c = good, c.scaling.high = 1;
    refuse(device, c, "rope_scaling", "high_freq_factor 1");
    c = good, c.vocab = 1;
    refuse(device, c, "1 tokens", "at least");
    c = good, c.block.gated = false;
    refuse(device, c, "blocks", "llama_block");
}

static void test_bad_batches(void **state) {
    Fixed f;
    Error err;
    open_declared(&f, isa_device(state), &kinds[2]);
    XlmrBatch b = batch_of(&f, "causal");
    f.ids[3] = 19;
    assert_refused(llama_check_batch(&f.model, &b, &err), &err, "id 3 is 19", "-1 to 18");
    f.ids[3] = 18, f.positions[5] = 64;
    assert_refused(llama_check_batch(&f.model, &b, &err), &err, "position 5 is 64");
    close_fixed(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(test_logits_f32),     ON_EACH_ISA(test_logits_bf16),
        ON_EACH_ISA(test_cache),          ON_EACH_ISA(test_gradients_f32),
        ON_EACH_ISA(test_gradients_bf16), ON_EACH_ISA(test_loss_alone),
        ON_EACH_ISA(test_lora),           ON_EACH_ISA(test_dropout),
        ON_EACH_ISA(test_int8),           ON_EACH_ISA(test_refusals),
        ON_EACH_ISA(test_bad_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
