/* The stack of blocks in training: its forward pass equals inference, and its gradients are those
 * of an oracle in double precision, by central differences of a sum over its outputs. Weights,
 * spans and dropout are random; parts are frozen at random. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/random.h"
#include "kernels/stack.h"

#include <math.h>

enum { BLOCKS = 3, RANK = 3, ROWS = 29 };

/* The parameters of a block, in the order of its struct. */
enum {
    QKV_W,
    QKV_B,
    OUT_W,
    OUT_B,
    NORM1_W,
    NORM1_B,
    FC1_W,
    FC1_B,
    FC2_W,
    FC2_B,
    NORM2_W,
    NORM2_B,
    LORA_A,
    LORA_B = LORA_A + LORA_TARGETS,
    ITEMS = LORA_B + LORA_TARGETS
};

static const char *const item_names[LORA_A] = {"qkv_w",   "qkv_b",   "out_w",   "out_b",
                                               "norm1_w", "norm1_b", "fc1_w",   "fc1_b",
                                               "fc2_w",   "fc2_b",   "norm2_w", "norm2_b"};

static Tensor *slot_of(Block *b, int item) {
    Tensor *const plain[LORA_A] = {&b->qkv_w,   &b->qkv_b,   &b->out_w,   &b->out_b,
                                   &b->norm1_w, &b->norm1_b, &b->fc1_w,   &b->fc1_b,
                                   &b->fc2_w,   &b->fc2_b,   &b->norm2_w, &b->norm2_b};
    if (item < LORA_A) return plain[item];
    return item < LORA_B ? &b->lora[item - LORA_A].a : &b->lora[item - LORA_B].b;
}

/* All values of a model, one after the other; the input's [ROWS, D] are the last ones. */
typedef struct Model {
    BlockConfig config;
    Dtype compute;
    Block blocks[BLOCKS];
    struct {
        int64_t at, rows, columns; /* columns 0: a vector; rows 0: absent */
    } items[BLOCKS][ITEMS];
    int64_t x_at, size;
    float *values, *grads;
    uint16_t *narrow; /* the values in bf16 */
} Model;

static void item_shape(const BlockConfig *c, int item, int64_t *rows, int64_t *columns) {
    const int64_t d = c->width, f = c->ffn;
    const int64_t plain[LORA_A][2] = {{3 * d, d}, {3 * d, 0}, {d, d}, {d, 0}, {d, 0}, {d, 0},
                                      {f, d},     {f, 0},     {d, f}, {d, 0}, {d, 0}, {d, 0}};
    *rows = *columns = 0;
    if (item < LORA_A) {
        *rows = plain[item][0], *columns = plain[item][1];
        return;
    }
    const int target = (item - LORA_A) % LORA_TARGETS;
    if (!c->lora.rank || !(c->lora.targets >> target & 1)) return;
    const int64_t n = target == LORA_FC1 ? f : d, k = target == LORA_FC2 ? f : d;
    *rows = item < LORA_B ? c->lora.rank : n;
    *columns = item < LORA_B ? k : c->lora.rank;
}

static Tensor item_tensor(const Model *m, int block, int item) {
    const int64_t at = m->items[block][item].at, rows = m->items[block][item].rows,
                  columns = m->items[block][item].columns;
    if (!columns) return tensor_1d(m->values + at, DTYPE_F32, rows);
    if (m->compute == DTYPE_BF16) return tensor_2d(m->narrow + at, DTYPE_BF16, rows, columns);
    return tensor_2d(m->values + at, DTYPE_F32, rows, columns);
}

/* A model with gradients everywhere. In bf16 the values of matrices and of the input are
 * representable in bf16. */
static Model *model_new(const BlockConfig *config, Dtype compute, uint64_t seed) {
    TestRandom random = {seed};
    Model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->config = *config, m->compute = compute;
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++) {
            item_shape(config, i, &m->items[b][i].rows, &m->items[b][i].columns);
            m->items[b][i].at = m->size;
            m->size += m->items[b][i].rows * (m->items[b][i].columns ? m->items[b][i].columns : 1);
        }
    m->x_at = m->size;
    m->size += ROWS * config->width;
    m->values = calloc((size_t)m->size, sizeof *m->values);
    m->grads = calloc((size_t)m->size, sizeof *m->grads);
    m->narrow = calloc((size_t)m->size, sizeof *m->narrow);
    assert_true(m->values && m->grads && m->narrow);
    for (int64_t i = 0; i < m->size; i++) m->values[i] = test_random_normal(&random);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++) {
            const int64_t rows = m->items[b][i].rows, columns = m->items[b][i].columns;
            float *v = m->values + m->items[b][i].at;
            const float scale = columns ? 0.5f / sqrtf((float)columns) : 0.2f;
            for (int64_t j = 0; j < rows * (columns ? columns : 1); j++)
                v[j] = v[j] * scale + (i == NORM1_W || i == NORM2_W ? 1 : 0);
        }
    values_convert(m->narrow, DTYPE_BF16, m->values, DTYPE_F32, (size_t)m->size);
    for (int b = 0; compute == DTYPE_BF16 && b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++)
            if (m->items[b][i].columns)
                values_convert(m->values + m->items[b][i].at, DTYPE_F32,
                               m->narrow + m->items[b][i].at, DTYPE_BF16,
                               (size_t)(m->items[b][i].rows * m->items[b][i].columns));
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++) {
            if (!m->items[b][i].rows) continue;
            Tensor *slot = slot_of(&m->blocks[b], i);
            *slot = item_tensor(m, b, i);
            slot->grad = m->grads + m->items[b][i].at;
        }
    return m;
}

static void model_free(Model *m) {
    free(m->values), free(m->grads), free(m->narrow);
    free(m);
}

/* Three sequences of odd lengths: one in three blocks, each of which attends to those before it,
 * one that attends to itself, one in two blocks. */
static const AttentionSpan spans[] = {
    {0, 5, 1, {{0, 5}}},     {5, 9, 2, {{0, 5}, {5, 9}}}, {9, 14, 3, {{0, 5}, {5, 9}, {9, 14}}},
    {14, 21, 1, {{14, 21}}}, {21, 24, 1, {{21, 24}}},     {24, 29, 2, {{21, 24}, {24, 29}}},
};
enum { SPANS = sizeof spans / sizeof *spans };

static BlockConfig config_of(bool pre_norm, bool lora, Activation activation) {
    return (BlockConfig){
        .width = 15,
        .heads = 3,
        .ffn = 22,
        .pre_norm = pre_norm,
        .activation = activation,
        .eps = 1e-5f,
        .lora = {lora ? RANK : 0, 6, lora ? (1u << LORA_TARGETS) - 1 : 0},
    };
}

static const StackDropout no_dropout;
static const StackDropout some_dropout = {0.2f, 0.1f, 0.3f, 77, 5};

/* ---- The oracle. ---- */

typedef struct Oracle {
    const Model *model;
    const double *values; /* as model->values */
    const StackDropout *dropout;
    double *x, *n, *qkv, *att, *inner, *w; /* [ROWS, D], [ROWS, D], [ROWS, 3D], ... */
} Oracle;

static double oracle_mask(const Oracle *o, float p, int block, int place, uint64_t index) {
    const uint64_t stream = random_stream(o->dropout->stream, (uint64_t)block, (uint64_t)place, 0);
    return random_uniform(o->dropout->seed, stream, index) >= p ? 1 / (1 - (double)p) : 0;
}

/* y = x W^T + b, with W's LoRA merged, a different one for each third of qkv. */
static void oracle_linear(const Oracle *o, int block, int item, LoraTarget target, double *y,
                          const double *x) {
    const Model *m = o->model;
    const int64_t n = m->items[block][item].rows, k = m->items[block][item].columns;
    const double *w = o->values + m->items[block][item].at;
    const double *bias = o->values + m->items[block][item + 1].at;
    const int thirds = item == QKV_W ? 3 : 1;
    memcpy(o->w, w, (size_t)(n * k) * sizeof *w);
    for (int third = 0; third < thirds; third++) {
        const int a_item = LORA_A + (int)target + third, b_item = LORA_B + (int)target + third;
        if (!m->items[block][a_item].rows) continue;
        const double *a = o->values + m->items[block][a_item].at;
        const double *b = o->values + m->items[block][b_item].at;
        const double scale = (double)m->config.lora.alpha / RANK;
        for (int64_t i = 0; i < n / thirds; i++)
            for (int64_t j = 0; j < k; j++)
                for (int r = 0; r < RANK; r++)
                    o->w[(third * (n / thirds) + i) * k + j] +=
                        scale * b[i * RANK + r] * a[r * k + j];
    }
    for (int t = 0; t < ROWS; t++)
        for (int64_t i = 0; i < n; i++) {
            double sum = bias[i];
            for (int64_t j = 0; j < k; j++) sum += x[t * k + j] * o->w[i * k + j];
            y[t * n + i] = sum;
        }
}

static void oracle_norm(const Oracle *o, int block, int item, double *y, const double *x) {
    const Model *m = o->model;
    const int d = m->config.width;
    const double *w = o->values + m->items[block][item].at;
    const double *b = o->values + m->items[block][item + 1].at;
    for (int t = 0; t < ROWS; t++) {
        double mean = 0, var = 0;
        for (int i = 0; i < d; i++) mean += x[t * d + i] / d;
        for (int i = 0; i < d; i++) var += (x[t * d + i] - mean) * (x[t * d + i] - mean) / d;
        const double scale = 1 / sqrt(var + (double)m->config.eps);
        for (int i = 0; i < d; i++) y[t * d + i] = (x[t * d + i] - mean) * scale * w[i] + b[i];
    }
}

static void oracle_attention(const Oracle *o, int block) {
    const int d = o->model->config.width, heads = o->model->config.heads, width = d / heads;
    for (int s = 0; s < SPANS; s++)
        for (int t = spans[s].q_begin; t < spans[s].q_end; t++)
            for (int h = 0; h < heads; h++) {
                double score[ROWS], sum = 0, *out = o->att + t * d + h * width;
                const double *q = o->qkv + t * 3 * d + h * width;
                int row[ROWS], n = 0;
                for (int r = 0; r < spans[s].range_count; r++)
                    for (int j = spans[s].range[r].begin; j < spans[s].range[r].end; j++)
                        row[n++] = j;
                for (int j = 0; j < n; j++) {
                    const double *k = o->qkv + row[j] * 3 * d + d + h * width;
                    score[j] = 0;
                    for (int i = 0; i < width; i++) score[j] += q[i] * k[i] / sqrt(width);
                    score[j] = exp(score[j]);
                    sum += score[j];
                }
                for (int i = 0; i < width; i++) out[i] = 0;
                for (int j = 0; j < n; j++) {
                    const double *v = o->qkv + row[j] * 3 * d + 2 * d + h * width;
                    const double p = score[j] / sum *
                                     oracle_mask(o, o->dropout->attention, block, STACK_SOFTMAX,
                                                 (uint64_t)(t * heads + h) * 65536 + (uint64_t)j);
                    for (int i = 0; i < width; i++) out[i] += p * v[i];
                }
            }
}

static double oracle_activation(double x, Activation activation) {
    if (activation == ACTIVATION_GELU) return x / 2 * (1 + erf(x / sqrt(2)));
    if (activation == ACTIVATION_QUICK_GELU) return x / (1 + exp(-1.702 * x));
    return x > 0 ? x : 0;
}

static void oracle_block(const Oracle *o, int block) {
    const BlockConfig *c = &o->model->config;
    const int d = c->width, f = c->ffn;
    double *h = c->pre_norm ? o->n : o->x;
    if (c->pre_norm) oracle_norm(o, block, NORM1_W, h, o->x);
    oracle_linear(o, block, QKV_W, LORA_QUERY, o->qkv, h);
    oracle_attention(o, block);
    oracle_linear(o, block, OUT_W, LORA_OUT, o->n, o->att);
    for (int i = 0; i < ROWS * d; i++)
        o->x[i] +=
            o->n[i] * oracle_mask(o, o->dropout->hidden, block, STACK_ATTENTION, (uint64_t)i);
    oracle_norm(o, block, c->pre_norm ? NORM2_W : NORM1_W, h, o->x);
    oracle_linear(o, block, FC1_W, LORA_FC1, o->inner, h);
    for (int i = 0; i < ROWS * f; i++)
        o->inner[i] = oracle_activation(o->inner[i], c->activation) *
                      oracle_mask(o, o->dropout->inner, block, STACK_INNER, (uint64_t)i);
    oracle_linear(o, block, FC2_W, LORA_FC2, o->n, o->inner);
    for (int i = 0; i < ROWS * d; i++)
        o->x[i] +=
            o->n[i] * oracle_mask(o, o->dropout->hidden, block, STACK_FEED_FORWARD, (uint64_t)i);
    if (!c->pre_norm) oracle_norm(o, block, NORM2_W, o->x, o->x);
}

/* The sum of all outputs, each times its weight. */
static double oracle_sum(const Oracle *o, const float *weights) {
    const int n = ROWS * o->model->config.width;
    double sum = 0;
    memcpy(o->x, o->values + o->model->x_at, (size_t)n * sizeof *o->x);
    for (int b = 0; b < BLOCKS; b++) oracle_block(o, b);
    for (int i = 0; i < n; i++) sum += o->x[i] * (double)weights[i];
    return sum;
}

static Oracle oracle_new(const Model *m, const StackDropout *dropout, double *values) {
    const int64_t d = m->config.width, f = m->config.ffn;
    for (int64_t i = 0; i < m->size; i++) values[i] = (double)m->values[i];
    return (Oracle){m,
                    values,
                    dropout,
                    doubles(ROWS * d),
                    doubles(ROWS * d),
                    doubles(ROWS * 3 * d),
                    doubles(ROWS * d),
                    doubles(ROWS * f),
                    doubles(3 * d * d + f * d)};
}

static void oracle_free(Oracle *o) {
    free(o->x), free(o->n), free(o->qkv), free(o->att), free(o->inner), free(o->w);
}

/* ---- Forward and backward pass of the stack. ---- */

typedef struct Pass {
    StackDropout dropout;
    bool recompute;
    int lowest;
    bool no_input;
} Pass;

static float *weights_new(int64_t n, uint64_t seed) {
    TestRandom random = {seed};
    float *w = malloc((size_t)n * sizeof *w);
    assert_non_null(w);
    for (int64_t i = 0; i < n; i++) w[i] = test_random_normal(&random);
    return w;
}

static Stack stack_of(const Model *m, const Pass *p) {
    return (Stack){&m->config, m->blocks,  BLOCKS,       m->compute, spans,
                   SPANS,      p->dropout, p->recompute, p->lowest,  !p->no_input};
}

/* Gradients of the weighted sum of the outputs, from zero, into model->grads; the outputs to `out`
 * (which may be NULL). The arena has exactly the predicted size, and all of it is used. */
static void run(Device *device, Model *m, const Pass *p, const float *weights, float *out) {
    Error err;
    const Stack stack = stack_of(m, p);
    const int64_t n = ROWS * m->config.width;
    float *dx = m->grads + m->x_at;
    memset(m->grads, 0, (size_t)m->size * sizeof *m->grads);
    memcpy(dx, weights, (size_t)n * sizeof *dx);
    const size_t kept = stack_tape_bytes(&stack, ROWS),
                 passing = stack_backward_bytes(&stack, ROWS);
    Arena arena;
    StackTape tape;
    assert_ok(arena_open(&arena, device, kept + passing, &err), &err);
    memset(arena.block, 0xff, arena.size);            /* NaN */
    float *input = malloc((size_t)n * sizeof *input); /* which may be overwritten */
    assert_non_null(input);
    memcpy(input, m->values + m->x_at, (size_t)n * sizeof *input);
    const Tensor x = tensor_2d(input, DTYPE_F32, ROWS, m->config.width);
    assert_ok(stack_forward(device, &stack, &tape, &arena, x, &err), &err);
    assert_int_equal(arena.used, kept);
    if (p->lowest == 0) assert_memory_equal(input, m->values + m->x_at, (size_t)n * sizeof *input);
    if (out) memcpy(out, tape.x.data, (size_t)n * sizeof *out);
    assert_ok(
        stack_backward(device, &stack, &tape, &arena, tensor_2d(dx, DTYPE_F32, ROWS, x.ld), &err),
        &err);
    assert_int_equal(arena.used, kept);
    assert_int_equal(arena.peak, kept + passing);
    free(input);
    stack_tape_free(&tape);
    arena_close(&arena);
}

/* ---- The forward pass equals inference. ---- */

static void inference(Device *device, const Model *m, float *out) {
    Error err;
    Arena arena;
    BlockWork work;
    const AttentionPlan plan = {.spans = spans, .span_count = SPANS};
    const size_t bytes = block_work_bytes(&m->config, ROWS, m->compute);
    const int64_t n = ROWS * m->config.width;
    assert_ok(arena_open(&arena, device, bytes, &err), &err);
    assert_ok(block_work_take(&work, &m->config, &arena, ROWS, m->compute, &err), &err);
    assert_int_equal(arena.used, bytes);
    memcpy(work.x.data, m->values + m->x_at, (size_t)n * sizeof *out);
    assert_ok(block_begin(device, &m->config, &work, &err), &err);
    assert_ok(blocks_forward(device, &m->config, m->blocks, BLOCKS, &work, &plan, NULL, &err),
              &err);
    memcpy(out, work.x.data, (size_t)n * sizeof *out);
    arena_close(&arena);
}

static void forward_cases(Device *device, Dtype compute, double limit) {
    for (int i = 0; i < 8; i++) {
        const BlockConfig c =
            config_of(i & 1, i & 2, i & 1 ? ACTIVATION_QUICK_GELU : ACTIVATION_GELU);
        Model *m = model_new(&c, compute, 100 + (uint64_t)i);
        const int64_t n = ROWS * c.width;
        float *weights = weights_new(n, 3), *got = weights_new(n, 4), *want = weights_new(n, 5);
        run(device, m, &(Pass){.recompute = i & 4}, weights, got);
        inference(device, m, want);
        assert_close(got, want, (size_t)n, limit, "forward against inference");
        double *values = doubles(m->size);
        Oracle o = oracle_new(m, &no_dropout, values);
        oracle_sum(&o, weights);
        for (int64_t j = 0; j < n; j++) want[j] = (float)o.x[j];
        assert_close(got, want, (size_t)n, 2 * limit, "forward against the oracle");
        oracle_free(&o);
        free(values), free(weights), free(got), free(want);
        model_free(m);
    }
}

static void forward_f32(void **state) {
    forward_cases(*state, DTYPE_F32, 1e-6);
}

static void forward_bf16(void **state) {
    if (!device_has_bf16(*state)) skip();
    forward_cases(*state, DTYPE_BF16, 2e-2);
}

/* ---- Gradients. ---- */

enum { SAMPLES = 7 };

/* Checks some of `count` values from `at` on: the norm of the error relative to the gradient's. */
static void derivative_check(Oracle *o, double *values, const float *weights, int64_t at,
                             int64_t count, const char *name, int block, TestRandom *random) {
    double wrong = 0, whole = 0;
    for (int s = 0; s < SAMPLES; s++) {
        const int64_t i = at + (int64_t)(test_random_next(random) % (uint64_t)count);
        const double step = 2e-5, before = values[i];
        values[i] = before + step;
        const double above = oracle_sum(o, weights);
        values[i] = before - step;
        const double want = (above - oracle_sum(o, weights)) / (2 * step);
        values[i] = before;
        const double got = (double)o->model->grads[i];
        wrong += (got - want) * (got - want);
        whole += want * want;
    }
    if (!(sqrt(wrong) <= 1e-5 * sqrt(whole) + 1e-7))
        fail_msg("gradient of %s, block %d: off by %g of %g", name, block, sqrt(wrong),
                 sqrt(whole));
}

static void gradient_case(Device *device, const BlockConfig *c, const Pass *pass, uint64_t seed) {
    TestRandom random = {seed};
    Model *m = model_new(c, DTYPE_F32, seed);
    float *weights = weights_new(ROWS * c->width, seed + 1);
    double *values = doubles(m->size);
    run(device, m, pass, weights, NULL);
    Oracle o = oracle_new(m, &pass->dropout, values);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++) {
            const int64_t rows = m->items[b][i].rows, columns = m->items[b][i].columns;
            const char *name = i < LORA_A
                                   ? item_names[i]
                                   : lora_target_name((LoraTarget)((i - LORA_A) % LORA_TARGETS));
            if (rows)
                derivative_check(&o, values, weights, m->items[b][i].at,
                                 rows * (columns ? columns : 1), name, b, &random);
        }
    derivative_check(&o, values, weights, m->x_at, ROWS * c->width, "x", 0, &random);
    oracle_free(&o);
    free(values), free(weights);
    model_free(m);
}

static void gradients(void **state) {
    static const Activation activations[] = {ACTIVATION_GELU, ACTIVATION_QUICK_GELU,
                                             ACTIVATION_RELU};
    for (int i = 0; i < 8; i++) {
        const BlockConfig c = config_of(i & 1, i & 2, activations[i % 3]);
        gradient_case(*state, &c, &(Pass){.dropout = i & 4 ? some_dropout : no_dropout},
                      200 + (uint64_t)i);
    }
}

/* The bf16 stack against the f32 one with the same weights: dropout is the same, and sums over
 * spans are not rounded one by one. */
static void gradients_bf16(void **state) {
    if (!device_has_bf16(*state)) skip();
    for (int i = 0; i < 8; i++) {
        const BlockConfig c = config_of(i & 1, i & 2, ACTIVATION_GELU);
        const Pass pass = {.dropout = i & 4 ? some_dropout : no_dropout};
        Model *narrow = model_new(&c, DTYPE_BF16, 300 + (uint64_t)i);
        Model *wide = model_new(&c, DTYPE_F32, 300 + (uint64_t)i);
        memcpy(wide->values, narrow->values, (size_t)wide->size * sizeof *wide->values);
        float *weights = weights_new(ROWS * c.width, 6);
        run(*state, narrow, &pass, weights, NULL);
        run(*state, wide, &pass, weights, NULL);
        for (int b = 0; b < BLOCKS; b++)
            for (int j = 0; j < ITEMS; j++) {
                const int64_t at = narrow->items[b][j].at, rows = narrow->items[b][j].rows,
                              columns = narrow->items[b][j].columns;
                if (rows)
                    assert_close(narrow->grads + at, wide->grads + at,
                                 (size_t)(rows * (columns ? columns : 1)), 2e-2,
                                 j < LORA_A ? item_names[j] : "LoRA");
            }
        assert_close(narrow->grads + narrow->x_at, wide->grads + wide->x_at,
                     (size_t)(ROWS * c.width), 2e-2, "x");
        free(weights);
        model_free(narrow), model_free(wide);
    }
}

/* ---- Activation checkpointing and frozen weights change no bit. ---- */

static void gradients_same(const Model *m, const float *want, bool x, const char *what) {
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++) {
            const int64_t rows = m->items[b][i].rows, columns = m->items[b][i].columns,
                          at = m->items[b][i].at;
            if (!rows) continue;
            const bool frozen = !slot_of(&((Model *)m)->blocks[b], i)->grad;
            for (int64_t j = 0; j < rows * (columns ? columns : 1); j++) {
                const float expected = frozen ? 0 : want[at + j];
                if (memcmp(&m->grads[at + j], &expected, sizeof expected) != 0)
                    fail_msg("%s: block %d, item %d, value %lld is %g, expected %g", what, b, i,
                             (long long)j, (double)m->grads[at + j], (double)expected);
            }
        }
    if (x)
        assert_memory_equal(m->grads + m->x_at, want + m->x_at,
                            (size_t)(ROWS * m->config.width) * sizeof *want);
}

static void thaw(Model *m) {
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < ITEMS; i++)
            if (m->items[b][i].rows) slot_of(&m->blocks[b], i)->grad = m->grads + m->items[b][i].at;
}

static void frozen_case(Device *device, Model *m, const StackDropout *dropout, uint64_t seed) {
    TestRandom random = {seed};
    const int64_t n = ROWS * m->config.width;
    float *weights = weights_new(n, seed), *all = weights_new(m->size, seed);
    float *want = weights_new(n, seed), *got = weights_new(n, seed);
    Pass pass = {.dropout = *dropout};
    run(device, m, &pass, weights, want);
    memcpy(all, m->grads, (size_t)m->size * sizeof *all);
    pass.recompute = true;
    run(device, m, &pass, weights, NULL);
    gradients_same(m, all, true, "recomputed");
    for (int round = 0; round < 8; round++) {
        thaw(m);
        /* Anything, one of eight, whole blocks, and finally everything. */
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < ITEMS; i++) {
                const bool freeze = round == 7   ? true
                                    : round >= 5 ? b < round - 4
                                    : round & 1  ? test_random_next(&random) >> 61 != 0
                                                 : test_random_next(&random) >> 63;
                if (freeze) slot_of(&m->blocks[b], i)->grad = NULL;
            }
        const int lowest = stack_lowest_trainable(m->blocks, BLOCKS);
        if (round >= 5) assert_int_equal(lowest, round == 7 ? BLOCKS : round - 4);
        for (int how = 0; how < 4; how++) {
            pass = (Pass){*dropout, how & 1, how & 2 ? lowest : 0, how & 2};
            run(device, m, &pass, weights, got);
            assert_memory_equal(got, want, (size_t)n * sizeof *got);
            gradients_same(m, all, !pass.no_input, "frozen in part");
        }
    }
    thaw(m);
    free(weights), free(all), free(want), free(got);
}

static void frozen(void **state) {
    for (int i = 0; i < 16; i++) {
        const Dtype compute = i & 8 ? DTYPE_BF16 : DTYPE_F32;
        if (compute == DTYPE_BF16 && !device_has_bf16(*state)) continue;
        const BlockConfig c = config_of(i & 1, i & 2, ACTIVATION_GELU);
        Model *m = model_new(&c, compute, 400 + (uint64_t)i);
        frozen_case(*state, m, i & 4 ? &some_dropout : &no_dropout, 500 + (uint64_t)i);
        model_free(m);
    }
}

/* ---- A batch in two micro-batches: the sum of the gradients. ---- */

static void part_run(Device *device, Model *m, const float *weights, int first, int rows,
                     const AttentionSpan *part, int count) {
    Error err;
    const Stack stack = {.config = &m->config,
                         .blocks = m->blocks,
                         .count = BLOCKS,
                         .compute = m->compute,
                         .spans = part,
                         .span_count = count,
                         .input = true};
    const int64_t d = m->config.width;
    Arena arena;
    StackTape tape;
    float *dx = m->grads + m->x_at + first * d;
    memcpy(dx, weights + first * d, (size_t)(rows * d) * sizeof *dx);
    assert_ok(arena_open(&arena, device,
                         stack_tape_bytes(&stack, rows) + stack_backward_bytes(&stack, rows), &err),
              &err);
    const Tensor x = tensor_2d(m->values + m->x_at + first * d, DTYPE_F32, rows, d);
    assert_ok(stack_forward(device, &stack, &tape, &arena, x, &err), &err);
    assert_ok(
        stack_backward(device, &stack, &tape, &arena, tensor_2d(dx, DTYPE_F32, rows, d), &err),
        &err);
    stack_tape_free(&tape);
    arena_close(&arena);
}

static void split(void **state) {
    for (int i = 0; i < 4; i++) {
        const BlockConfig c = config_of(i & 1, i & 2, ACTIVATION_GELU);
        Model *m = model_new(&c, DTYPE_F32, 600 + (uint64_t)i);
        float *weights = weights_new(ROWS * c.width, 7), *whole = weights_new(m->size, 8);
        run(*state, m, &(Pass){.recompute = false}, weights, NULL);
        memcpy(whole, m->grads, (size_t)m->size * sizeof *whole);
        memset(m->grads, 0, (size_t)m->size * sizeof *m->grads);
        AttentionSpan second[SPANS - 3];
        for (int s = 3; s < SPANS; s++) {
            AttentionSpan *span = &second[s - 3];
            *span = spans[s];
            span->q_begin -= 14, span->q_end -= 14;
            for (int r = 0; r < span->range_count; r++)
                span->range[r].begin -= 14, span->range[r].end -= 14;
        }
        part_run(*state, m, weights, 0, 14, spans, 3);
        part_run(*state, m, weights, 14, ROWS - 14, second, SPANS - 3);
        assert_close(m->grads, whole, (size_t)m->size, 1e-6, "two micro-batches against one");
        free(weights), free(whole);
        model_free(m);
    }
}

/* ---- Errors. ---- */

static void refused(void **state) {
    Error err;
    const BlockConfig c = config_of(true, false, ACTIVATION_GELU);
    Model *m = model_new(&c, DTYPE_F32, 700);
    Arena arena;
    StackTape tape;
    const Pass pass = {.recompute = false};
    Stack stack = stack_of(m, &pass), bad;
    const Tensor x = tensor_2d(m->values + m->x_at, DTYPE_F32, ROWS, c.width);
    const Tensor dx = tensor_2d(m->grads + m->x_at, DTYPE_F32, ROWS, c.width);
    const size_t bytes = stack_tape_bytes(&stack, ROWS) + stack_backward_bytes(&stack, ROWS);
    assert_ok(arena_open(&arena, *state, bytes, &err), &err);
#define FORWARD(stack, x) stack_forward(*state, stack, &tape, &arena, x, &err)
    bad = stack, bad.count = 0;
    assert_refused(FORWARD(&bad, x), &err, "0 blocks");
    bad = stack, bad.dropout.inner = 1;
    assert_refused(FORWARD(&bad, x), &err, "dropout is 1");
    bad = stack, bad.dropout.hidden = NAN;
    assert_refused(FORWARD(&bad, x), &err, "dropout is");
    bad = stack, bad.lowest = 4;
    assert_refused(FORWARD(&bad, x), &err, "block 4 of 3");
    bad = stack, bad.lowest = -1;
    assert_refused(FORWARD(&bad, x), &err, "block -1 of 3");
    bad = stack, bad.span_count--;
    assert_refused(FORWARD(&bad, x), &err, "24 queries", "29 rows");
    assert_refused(FORWARD(&stack, tensor_columns(x, 0, 5)), &err, "[rows, 15]");
    const size_t whole = arena.size;
    for (arena.size = 0; arena.size < stack_tape_bytes(&stack, ROWS); arena.size += 4096) {
        assert_refused(FORWARD(&stack, x), &err, "arena");
        assert_true(arena.used == 0 && !tape.blocks);
    }
    arena.size = whole;
    assert_ok(FORWARD(&stack, x), &err);
    const size_t used = arena.used;
#define BACKWARD(stack, dx) stack_backward(*state, stack, &tape, &arena, dx, &err)
    bad = stack, bad.count--;
    assert_refused(BACKWARD(&bad, dx), &err, "tape of 3 blocks", "stack of 2");
    assert_refused(BACKWARD(&stack, tensor_rows(dx, 0, 5)), &err, "[29, 15]");
    arena.size = used + 1000;
    assert_refused(BACKWARD(&stack, dx), &err, "arena");
    assert_int_equal(arena.used, used);
    stack_tape_free(&tape);
    stack_tape_free(&tape);
    arena_close(&arena);
    model_free(m);
}

/* ---- LoRA's parameters. ---- */

static const BlockNames bert_names = {.query = "attention.self.query",
                                      .key = "attention.self.key",
                                      .value = "attention.self.value",
                                      .out = "attention.output.dense",
                                      .norm1 = "attention.output.LayerNorm",
                                      .fc1 = "intermediate.dense",
                                      .fc2 = "output.dense",
                                      .norm2 = "output.LayerNorm"};
static const BlockNames torch_names = {.in_proj = "self_attn.in_proj",
                                       .out = "self_attn.out_proj",
                                       .norm1 = "norm1",
                                       .fc1 = "linear1",
                                       .fc2 = "linear2",
                                       .norm2 = "norm2"};

static void block_prepared_run(Device *device, const BlockConfig *c, const Block *b, float *out) {
    Error err;
    Arena arena;
    BlockWork work;
    TestRandom random = {9};
    const AttentionPlan plan = {.spans = spans, .span_count = SPANS};
    assert_ok(arena_open(&arena, device, block_work_bytes(c, ROWS, DTYPE_F32), &err), &err);
    assert_ok(block_work_take(&work, c, &arena, ROWS, DTYPE_F32, &err), &err);
    for (int i = 0; i < ROWS * c->width; i++)
        ((float *)work.x.data)[i] = test_random_normal(&random);
    assert_ok(block_begin(device, c, &work, &err), &err);
    assert_ok(blocks_forward(device, c, b, 1, &work, &plan, NULL, &err), &err);
    memcpy(out, work.x.data, (size_t)(ROWS * c->width) * sizeof *out);
    arena_close(&arena);
}

/* Names and shapes are peft's; fresh matrices add nothing. */
static void lora_declared(void **state) {
    Error err;
    const BlockConfig c = config_of(false, true, ACTIVATION_GELU);
    Block b = {0};
    Params lora;
    params_init(&lora, *state);
    assert_ok(block_declare_lora(&b, &c, &bert_names, &lora, "roberta.encoder.layer.3", &err),
              &err);
    assert_int_equal(lora.count, 2 * LORA_TARGETS);
#define LORA_PARAM(name) params_find(&lora, "base_model.model.roberta.encoder.layer.3." name)
    const Param *a2 = LORA_PARAM("output.dense.lora_A.weight");
    const Param *b1 = LORA_PARAM("intermediate.dense.lora_B.weight");
    const Param *aq = LORA_PARAM("attention.self.query.lora_A.weight");
    assert_true(a2 && b1 && aq && aq->slot == &b.lora[LORA_QUERY].a);
    assert_true(a2->shape[0] == RANK && a2->shape[1] == c.ffn && a2->init == INIT_NORMAL);
    assert_true(fabs((double)a2->init_std * sqrt(3 * c.ffn) - 1) < 1e-6);
    assert_true(b1->shape[0] == c.ffn && b1->shape[1] == RANK && b1->init == INIT_ZERO);
    params_free(&lora);
}

/* With everything packed: new LoRA matrices against none, and others against the same ones
 * plain. */
static void lora_packed(void **state) {
    Error err;
    TestRandom random = {10};
    BlockConfig c = config_of(true, true, ACTIVATION_GELU), without = c;
    without.lora.rank = 0;
    const size_t n = (size_t)(ROWS * c.width);
    float *got = weights_new((int64_t)n, 1), *want = weights_new((int64_t)n, 2);
    for (int fresh = 0; fresh < 2; fresh++) {
        Block b, other;
        Params base, lora;
        params_init(&base, *state), params_init(&lora, *state);
        assert_ok(block_declare(&b, &c, &bert_names, &base, false, "layer", &err), &err);
        assert_ok(block_declare_lora(&b, &c, &bert_names, &lora, "layer", &err), &err);
        assert_ok(params_allocate(&base, DTYPE_F32, &err), &err);
        assert_ok(params_allocate(&lora, DTYPE_F32, &err), &err);
        params_initialise(&base, 1), params_initialise(&lora, 2);
        for (int i = 1; !fresh && i < lora.count; i += 2)
            for (int64_t j = 0; j < tensor_count(lora.items[i].value); j++)
                ((float *)lora.items[i].value.data)[j] = test_random_normal(&random);
        assert_ok(params_prepare(&base, DTYPE_F32, NULL, NULL, &err), &err);
        assert_ok(params_prepare(&lora, DTYPE_F32, NULL, NULL, &err), &err);
        other = b;
        for (int t = 0; t < LORA_TARGETS; t++) {
            assert_true(b.lora[t].a.packed && b.lora[t].b.packed);
            other.lora[t].a = fresh ? TENSOR_NONE : lora.items[2 * t].value;
            other.lora[t].b = fresh ? TENSOR_NONE : lora.items[2 * t + 1].value;
        }
        block_prepared_run(*state, &c, &b, got);
        block_prepared_run(*state, fresh ? &without : &c, &other, want);
        assert_close(got, want, n, 1e-6, fresh ? "fresh LoRA" : "packed LoRA");
        params_free(&base), params_free(&lora);
    }
    free(got), free(want);
}

static void lora_refused(void **state) {
    Error err;
    BlockConfig c = config_of(false, true, ACTIVATION_RELU);
    Block b = {0};
    Params lora;
    params_init(&lora, *state);
    assert_refused(block_declare_lora(&b, &c, &torch_names, &lora, "layers.0", &err), &err,
                   "layers.0", "\"query\"", "self_attn.in_proj", "fc1");
    assert_int_equal(lora.count, 0);
    c.lora.targets = 1u << LORA_FC1 | 1u << LORA_OUT;
    assert_ok(block_declare_lora(&b, &c, &torch_names, &lora, "layers.0", &err), &err);
    assert_int_equal(lora.count, 4);
    assert_non_null(params_find(&lora, "base_model.model.layers.0.linear1.lora_A.weight"));
    c.lora.alpha = INFINITY;
    assert_refused(block_declare_lora(&b, &c, &torch_names, &lora, "layers.0", &err), &err,
                   "alpha");
    c.lora = (LoraConfig){-1, 1, 1};
    assert_refused(block_declare_lora(&b, &c, &torch_names, &lora, "layers.0", &err), &err,
                   "rank -1");
    c.lora.rank = 0;
    assert_ok(block_declare_lora(&b, &c, &torch_names, &lora, "layers.0", &err), &err);
    assert_int_equal(lora.count, 4);
    params_free(&lora);
    assert_string_equal(lora_target_name(LORA_VALUE), "value");
    assert_string_equal(lora_target_name(LORA_TARGETS), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_f32), cmocka_unit_test(forward_bf16),
        cmocka_unit_test(gradients),   cmocka_unit_test(gradients_bf16),
        cmocka_unit_test(frozen),      cmocka_unit_test(split),
        cmocka_unit_test(refused),     cmocka_unit_test(lora_declared),
        cmocka_unit_test(lora_packed), cmocka_unit_test(lora_refused),
    };
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
