/* bench_ops_cases.c - what each operation is given, with how many bytes and operations that is.
 *
 * Bytes: each input read once and each output written once, what is added to both. Operations: two
 * for each multiply-add of a matmul; of the others those of the formula in ops.h, exp, erf, tanh
 * and square root being one each. Inputs are normal random numbers, as the tests' are.
 */
#include "apps/bench_ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"
#include "kernels/moments.h"

/* ---- Memory. ---- */

enum {
    READ = 1,
    WRITTEN = 2,
    BOTH = READ | WRITTEN, /* added to */
    TABLE = 4,             /* filled, but only a part of it is read, which the case counts */
};

enum { PATTERN = 1 << 16 }; /* values that are made at a time, and repeated */

/* Normal random values; those of weights are small. */
static int pattern_make(void **values, Dtype dtype, float scale, Error *err) {
    float *normal = malloc(PATTERN * sizeof *normal);
    *values = malloc(PATTERN * dtype_size(dtype));
    if (!normal || !*values) {
        free(normal), free(*values);
        *values = NULL;
        return error_set(err, "out of memory for the inputs");
    }
    for (uint64_t i = 0; i < PATTERN; i++)
        normal[i] = scale * (float)(sqrt(-2 * log(random_uniform(1, 0, i))) *
                                    cos(2 * M_PI * random_uniform(1, 1, i)));
    values_convert(*values, dtype, normal, DTYPE_F32, PATTERN);
    free(normal);
    return 0;
}

static int fill(OpWork *w, Tensor t, float scale, Error *err) {
    void *values;
    TRY(pattern_make(&values, t.dtype, scale, err));
    const size_t bytes = tensor_bytes(t), piece = PATTERN * dtype_size(t.dtype);
    int status = 0;
    for (size_t at = 0; at < bytes && status == 0; at += piece)
        status = device_upload(w->device, (char *)t.data + at, values,
                               bytes - at < piece ? bytes - at : piece, err);
    free(values);
    return status;
}

static int take_scaled(OpWork *w, Tensor *t, Dtype dtype, int64_t rows, int64_t columns, int access,
                       float scale, Error *err) {
    *t = tensor_2d(NULL, dtype, rows, columns);
    const double bytes = (double)tensor_bytes(*t);
    w->bytes += (access & READ ? bytes : 0) + (access & WRITTEN ? bytes : 0);
    if (w->planning) {
        w->memory += arena_bytes(dtype, rows, columns);
        return 0;
    }
    TRY(arena_take(&w->arena, t, dtype, rows, columns, err));
    if (access & (READ | TABLE)) return fill(w, *t, scale, err);
    return device_clear(w->device, t->data, tensor_bytes(*t), err);
}

static int take(OpWork *w, Tensor *t, Dtype dtype, int64_t rows, int64_t columns, int access,
                Error *err) {
    return take_scaled(w, t, dtype, rows, columns, access, 1, err);
}

static int take_vector(OpWork *w, Tensor *t, Dtype dtype, int64_t n, int access, Error *err) {
    TRY(take(w, t, dtype, 1, n, access, err));
    *t = tensor_1d(t->data, dtype, n);
    return 0;
}

/* n numbers below `limit`, far apart. */
static int take_ids(OpWork *w, Tensor *t, int64_t n, int64_t limit, Error *err) {
    *t = tensor_1d(NULL, DTYPE_I32, n);
    w->bytes += (double)tensor_bytes(*t);
    if (w->planning) {
        w->memory += arena_bytes(DTYPE_I32, 1, n);
        return 0;
    }
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (!ids) return error_set(err, "out of memory for the inputs");
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(i * 40503 % limit);
    int status = arena_upload(&w->arena, t, DTYPE_I32, n, ids, err);
    free(ids);
    return status;
}

/* A weight [n, k] in the device's layout. */
static int take_packed(OpWork *w, int64_t n, int64_t k, bool vocabulary, Error *err) {
    const size_t plain = (size_t)n * (size_t)k * dtype_size(w->compute);
    w->w = tensor_2d(NULL, w->compute, n, k);
    w->bytes += (double)plain;
    if (w->planning) {
        w->host_bytes += plain + pack_size(w->device, n, k, w->compute, w->compute, vocabulary);
        return 0;
    }
    void *values, *whole = malloc(plain);
    if (!whole) return error_set(err, "out of memory for the weight");
    int status = pattern_make(&values, w->compute, 0.02f, err);
    const size_t piece = PATTERN * dtype_size(w->compute);
    for (size_t at = 0; at < plain && status == 0; at += piece)
        memcpy((char *)whole + at, values, plain - at < piece ? plain - at : piece);
    Tensor rows = tensor_2d(whole, w->compute, n, k);
    if (status == 0) {
        status = pack_weight(w->device, &w->packed, &rows, 1, w->compute, vocabulary, NULL, err);
        free(values);
    }
    free(whole);
    w->w.packed = w->packed;
    return status;
}

static void shape_is(OpWork *w, int64_t a, int64_t b, int64_t c) {
    if (c)
        snprintf(w->shape, sizeof w->shape, "%lld x %lld x %lld", (long long)a, (long long)b,
                 (long long)c);
    else
        snprintf(w->shape, sizeof w->shape, "%lld x %lld", (long long)a, (long long)b);
}

/* ---- Linear layers: query, key and value, the output, and the two of the feed-forward part. ----
 */

enum { LINEAR_LAYERS = 4 };

static void linear_shape(OpWork *w, int64_t *rows, int64_t *n, int64_t *k, double matmuls) {
    const OpShapes *s = w->shapes;
    const int64_t d = s->width, f = s->ffn;
    const int64_t shapes[LINEAR_LAYERS][2] = {{3 * d, d}, {d, d}, {f, d}, {d, f}};
    *rows = s->rows, *n = shapes[w->variant][0], *k = shapes[w->variant][1];
    shape_is(w, *rows, *k, *n);
    w->operations = 2 * matmuls * (double)*rows * (double)*n * (double)*k;
}

static int linear_forward_setup(OpWork *w, Error *err) {
    int64_t rows, n, k;
    linear_shape(w, &rows, &n, &k, 1);
    TRY(take(w, &w->x, w->compute, rows, k, READ, err));
    TRY(take_packed(w, n, k, false, err));
    TRY(take_vector(w, &w->b, DTYPE_F32, n, READ, err));
    return take(w, &w->y, w->compute, rows, n, WRITTEN, err);
}

static int linear_forward_run(OpWork *w, Error *err) {
    return linear_forward(w->device, w->y, w->x, w->w, w->b, ACTIVATION_NONE, false, err);
}

static int linear_backward_setup(OpWork *w, Error *err) {
    int64_t rows, n, k;
    linear_shape(w, &rows, &n, &k, 2);
    TRY(take(w, &w->dy, w->compute, rows, n, READ, err));
    TRY(take(w, &w->x, w->compute, rows, k, READ, err));
    TRY(take_scaled(w, &w->w, w->compute, n, k, READ, 0.02f, err));
    TRY(take(w, &w->dx, w->compute, rows, k, WRITTEN, err));
    TRY(take(w, &w->dw, DTYPE_F32, n, k, BOTH, err));
    return take_vector(w, &w->db, DTYPE_F32, n, BOTH, err);
}

static int linear_backward_run(OpWork *w, Error *err) {
    return linear_backward(w->device, w->dx, w->dw, w->db, w->dy, w->x, w->w, false, err);
}

/* ---- Value by value. ---- */

/* x and y [rows, columns]. */
static int values_setup(OpWork *w, int64_t columns, Dtype y, double operations, Error *err) {
    const int64_t rows = w->shapes->rows;
    shape_is(w, rows, columns, 0);
    w->operations = operations * (double)rows * (double)columns;
    TRY(take(w, &w->x, w->compute, rows, columns, READ, err));
    return take(w, &w->y, y, rows, columns, WRITTEN, err);
}

/* What an operation of ELEMENTWISE_LIST gets as its parameter, by the parameter's type. */
static Activation parameter_Activation(const OpWork *w) {
    return w->shapes->activation;
}
static float parameter_float(const OpWork *w) {
    (void)w;
    return 0.5f;
}
/* Operations for each value, likewise: GELU has four, and so has quick GELU. */
enum { OPERATIONS_Activation = 4, OPERATIONS_float = 1 };

#define ELEMENTWISE_CASE(X, name, type, parameter)                                  \
    static int name##_forward_setup(OpWork *w, Error *err) {                        \
        return values_setup(w, w->shapes->ffn, w->compute, OPERATIONS_##type, err); \
    }                                                                               \
    static int name##_forward_run(OpWork *w, Error *err) {                          \
        return name##_forward(w->device, w->y, w->x, parameter_##type(w), err);     \
    }
ELEMENTWISE_LIST(ELEMENTWISE_CASE, )

static int activation_backward_setup(OpWork *w, Error *err) {
    TRY(values_setup(w, w->shapes->ffn, w->compute, 9, err));
    return take(w, &w->dy, w->compute, w->shapes->rows, w->shapes->ffn, READ, err);
}

static int activation_backward_run(OpWork *w, Error *err) {
    return activation_backward(w->device, w->y, w->dy, w->x, w->shapes->activation, err);
}

/* To the other one of the two types. */
static int convert_forward_setup(OpWork *w, Error *err) {
    return values_setup(w, w->shapes->width, w->compute == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32, 0,
                        err);
}

static int convert_forward_run(OpWork *w, Error *err) {
    return convert_forward(w->device, w->y, w->x, err);
}

static int dropout_forward_setup(OpWork *w, Error *err) {
    return values_setup(w, w->shapes->width, w->compute, 2, err);
}

static int dropout_forward_run(OpWork *w, Error *err) {
    return dropout_forward(w->device, w->y, w->x, (Dropout){.p = 0.1f, .seed = 1}, false, err);
}

/* ---- Rows: norms, tables, patches, means. ---- */

static int layernorm_forward_setup(OpWork *w, Error *err) {
    const int64_t d = w->shapes->width;
    TRY(values_setup(w, d, w->compute, 7, err));
    TRY(take(w, &w->stats, DTYPE_F32, w->shapes->rows, 2, WRITTEN, err));
    TRY(take_vector(w, &w->w, DTYPE_F32, d, READ, err));
    return take_vector(w, &w->b, DTYPE_F32, d, READ, err);
}

static int layernorm_forward_run(OpWork *w, Error *err) {
    return layernorm_forward(w->device, w->y, TENSOR_NONE, w->stats, w->x, w->w, w->b, 1e-5f, err);
}

static int layernorm_backward_setup(OpWork *w, Error *err) {
    const int64_t d = w->shapes->width, rows = w->shapes->rows;
    TRY(values_setup(w, d, w->compute, 14, err));
    TRY(take(w, &w->dy, w->compute, rows, d, READ, err));
    TRY(take(w, &w->stats, DTYPE_F32, rows, 2, READ, err));
    TRY(take_vector(w, &w->w, DTYPE_F32, d, READ, err));
    TRY(take_vector(w, &w->dw, DTYPE_F32, d, BOTH, err));
    return take_vector(w, &w->db, DTYPE_F32, d, BOTH, err);
}

static int layernorm_backward_run(OpWork *w, Error *err) {
    return layernorm_backward(w->device, w->y, w->dw, w->db, w->dy, w->x, w->w, w->stats, false,
                              err);
}

static int rmsnorm_forward_setup(OpWork *w, Error *err) {
    const int64_t d = w->shapes->width;
    TRY(values_setup(w, d, w->compute, 4, err));
    TRY(take(w, &w->stats, DTYPE_F32, w->shapes->rows, 2, WRITTEN, err));
    return take_vector(w, &w->w, DTYPE_F32, d, READ, err);
}

static int rmsnorm_forward_run(OpWork *w, Error *err) {
    return rmsnorm_forward(w->device, w->y, TENSOR_NONE, w->stats, w->x, w->w, 1e-5f, err);
}

static int rmsnorm_backward_setup(OpWork *w, Error *err) {
    const int64_t d = w->shapes->width, rows = w->shapes->rows;
    TRY(values_setup(w, d, w->compute, 10, err));
    TRY(take(w, &w->dy, w->compute, rows, d, READ, err));
    TRY(take(w, &w->stats, DTYPE_F32, rows, 2, READ, err));
    TRY(take_vector(w, &w->w, DTYPE_F32, d, READ, err));
    return take_vector(w, &w->dw, DTYPE_F32, d, BOTH, err);
}

static int rmsnorm_backward_run(OpWork *w, Error *err) {
    return rmsnorm_backward(w->device, w->y, w->dw, w->dy, w->x, w->w, w->stats, false, err);
}

/* Heads as wide as the model's. */
static int rotary_forward_setup(OpWork *w, Error *err) {
    const OpShapes *s = w->shapes;
    TRY(values_setup(w, s->width, w->compute, 3, err));
    TRY(take(w, &w->w, DTYPE_F32, s->rows, s->width / s->heads, READ, err));
    return take_ids(w, &w->index, s->rows, s->rows, err);
}

static int rotary_forward_run(OpWork *w, Error *err) {
    return rotary_forward(w->device, w->y, w->x, w->w, w->index, false, err);
}

/* act(gate) * up, gate and up being as wide as fc1. */
static int gated_setup(OpWork *w, int operations, Error *err) {
    const int64_t rows = w->shapes->rows, f = w->shapes->ffn;
    shape_is(w, rows, f, 0);
    w->operations = (double)operations * (double)(rows * f);
    return take(w, &w->x, w->compute, rows, 2 * f, READ, err);
}

static int gated_forward_setup(OpWork *w, Error *err) {
    TRY(gated_setup(w, 5, err));
    return take(w, &w->y, w->compute, w->shapes->rows, w->shapes->ffn, WRITTEN, err);
}

static int gated_forward_run(OpWork *w, Error *err) {
    return gated_forward(w->device, w->y, w->x, ACTIVATION_SILU, err);
}

static int gated_backward_setup(OpWork *w, Error *err) {
    TRY(gated_setup(w, 15, err));
    TRY(take(w, &w->dy, w->compute, w->shapes->rows, w->shapes->ffn, READ, err));
    return take(w, &w->dx, w->compute, w->shapes->rows, 2 * (int64_t)w->shapes->ffn, WRITTEN, err);
}

static int gated_backward_run(OpWork *w, Error *err) {
    return gated_backward(w->device, w->dx, w->dy, w->x, ACTIVATION_SILU, err);
}

/* Rows of the table that words, or places, are looked up in. */
static int64_t table_rows(const OpWork *w) {
    return w->shapes->vocabulary ? w->shapes->vocabulary : w->shapes->rows;
}

/* A word and a place, or a patch and a place. */
static int gather_forward_setup(OpWork *w, Error *err) {
    const int64_t rows = w->shapes->rows, d = w->shapes->width;
    shape_is(w, rows, d, 2);
    for (int i = 0; i < 2; i++) {
        GatherTerm *term = &w->terms[i];
        const int64_t entries = i ? rows : table_rows(w);
        TRY(take(w, &term->table, w->compute, entries, d, TABLE, err));
        TRY(take_ids(w, &term->index, rows, entries, err));
        w->bytes += (double)(rows * d) * (double)dtype_size(w->compute);
    }
    w->operations = (double)(rows * d);
    return take(w, &w->y, w->compute, rows, d, WRITTEN, err);
}

static int gather_forward_run(OpWork *w, Error *err) {
    return gather_forward(w->device, w->y, w->terms, 2, err);
}

static int gather_backward_setup(OpWork *w, Error *err) {
    const int64_t rows = w->shapes->rows, d = w->shapes->width;
    shape_is(w, rows, d, 0);
    w->operations = (double)(rows * d);
    w->bytes = 2 * 4 * (double)(rows * d); /* of the table's gradient, added to */
    TRY(take(w, &w->dw, DTYPE_F32, table_rows(w), d, 0, err));
    TRY(take(w, &w->dy, w->compute, rows, d, READ, err));
    return take_ids(w, &w->index, rows, table_rows(w), err);
}

static int gather_backward_run(OpWork *w, Error *err) {
    return gather_backward(w->device, w->dw, w->dy, w->index, err);
}

static int patches_forward_setup(OpWork *w, Error *err) {
    const OpShapes *s = w->shapes;
    const int64_t across = s->side / s->patch, values = (int64_t)s->channels * s->patch * s->patch;
    shape_is(w, s->channels, s->side, s->side);
    TRY(take(w, &w->x, DTYPE_F32, 1, (int64_t)s->channels * s->side * s->side, READ, err));
    return take(w, &w->y, w->compute, across * across, values, WRITTEN, err);
}

static int patches_forward_run(OpWork *w, Error *err) {
    const OpShapes *s = w->shapes;
    return patches_forward(w->device, w->y, w->x, s->channels, s->side, s->patch, err);
}

/* EfficientNet-Lite0's kinds of convolutions: its first, one of one pixel, one for each channel. */
static const Conv2d convolutions[] = {
    {224, 224, 3, 32, .kernel = 3, .stride = 2, .after = 1, .relu6 = true},
    {28, 28, 40, 240, .kernel = 1, .stride = 1, .relu6 = true},
    {56, 56, 144, 144, .kernel = 5, .stride = 2, .before = 1, .after = 2, .depthwise = true,
     .relu6 = true},
};
enum { CONVOLUTIONS = sizeof convolutions / sizeof *convolutions };

static int conv2d_forward_setup(OpWork *w, Error *err) {
    const Conv2d *c = &convolutions[w->variant];
    const int64_t places = (int64_t)conv2d_places(c, c->height) * conv2d_places(c, c->width);
    const int64_t shape[] = {c->out, c->depthwise ? 1 : c->channels, c->kernel, c->kernel};
    Tensor weight = tensor_nd(NULL, DTYPE_F32, 4, shape);
    const int64_t n = tensor_count(weight);
    snprintf(w->shape, sizeof w->shape, "%d px, %d to %d, %d x %d%s", c->width, c->channels, c->out,
             c->kernel, c->kernel, c->depthwise ? ", depthwise" : "");
    w->bytes += (double)n * (double)dtype_size(w->compute);
    w->operations = 2.0 * (double)places * (double)n;
    TRY(take(w, &w->x, w->compute, (int64_t)c->height * c->width, c->channels, READ, err));
    TRY(take(w, &w->y, w->compute, places, c->out, WRITTEN, err));
    TRY(take_vector(w, &w->b, DTYPE_F32, c->out, READ, err));
    if (w->planning) {
        w->host_bytes += tensor_bytes(weight) * 2;
        return 0;
    }
    TRY(pattern_make(&weight.data, DTYPE_F32, 0.1f, err));
    int status = conv2d_pack(w->device, &w->packed, c, weight, w->compute, err);
    free(weight.data);
    w->w.packed = w->packed;
    return status;
}

static int conv2d_forward_run(OpWork *w, Error *err) {
    return conv2d_forward(w->device, w->y, w->x, w->w, w->b, false, err);
}

/* Four rows to one; `whole` has all rows, `means` the others. */
static int segments_setup(OpWork *w, Tensor *whole, int whole_access, Tensor *means,
                          int means_access, Error *err) {
    const int rows = w->shapes->rows, d = w->shapes->width;
    w->segments = (rows + 3) / 4;
    shape_is(w, rows, d, w->segments);
    w->operations = (double)rows * d;
    w->offsets = w->planning ? NULL : malloc(((size_t)w->segments + 1) * sizeof *w->offsets);
    if (!w->planning && !w->offsets) return error_set(err, "out of memory for the inputs");
    for (int i = 0; i <= w->segments && w->offsets; i++)
        w->offsets[i] = 4 * i < rows ? 4 * i : rows;
    TRY(take(w, whole, w->compute, rows, d, whole_access, err));
    return take(w, means, w->compute, w->segments, d, means_access, err);
}

static int segment_mean_forward_setup(OpWork *w, Error *err) {
    return segments_setup(w, &w->x, READ, &w->y, WRITTEN, err);
}

static int segment_mean_forward_run(OpWork *w, Error *err) {
    return segment_mean_forward(w->device, w->y, w->x, w->offsets, w->segments, err);
}

static int segment_mean_backward_setup(OpWork *w, Error *err) {
    return segments_setup(w, &w->dx, WRITTEN, &w->dy, READ, err);
}

static int segment_mean_backward_run(OpWork *w, Error *err) {
    return segment_mean_backward(w->device, w->dx, w->dy, w->offsets, w->segments, err);
}

/* ---- Attention: the sequence sees itself. ---- */

/* Query, key and value are slices of one matrix, as in a block. */
static int take_qkv(OpWork *w, Tensor *q, Tensor *k, Tensor *v, int access, Error *err) {
    const int64_t d = w->shapes->width;
    Tensor all;
    TRY(take(w, &all, w->compute, w->shapes->rows, 3 * d, access, err));
    if (w->planning) return 0;
    *q = tensor_columns(all, 0, d), *k = tensor_columns(all, d, d);
    *v = tensor_columns(all, 2 * d, d);
    return 0;
}

static int attention_setup(OpWork *w, double matmuls, Error *err) {
    const OpShapes *s = w->shapes;
    shape_is(w, s->rows, s->rows, s->width);
    w->operations = 2 * matmuls * s->rows * s->rows * s->width;
    w->span = (AttentionSpan){0, s->rows, 1, {{0, s->rows}}};
    TRY(take_qkv(w, &w->q, &w->k, &w->v, READ, err));
    TRY(take(w, &w->y, w->compute, s->rows, s->width, WRITTEN, err));
    return take(w, &w->stats, DTYPE_F32, s->rows, s->heads, WRITTEN, err);
}

static float attention_scale(const OpWork *w) {
    return 1 / sqrtf((float)w->shapes->width / (float)w->shapes->heads);
}

static int attention_forward_setup(OpWork *w, Error *err) {
    return attention_setup(w, 2, err);
}

static int attention_forward_run(OpWork *w, Error *err) {
    return attention_forward(w->device, w->y, w->stats, w->q, w->k, w->v, w->shapes->heads,
                             attention_scale(w), &w->span, 1, NULL, err);
}

/* Of what the forward wrote, as many bytes are read. */
static int attention_backward_setup(OpWork *w, Error *err) {
    TRY(attention_setup(w, 5, err));
    TRY(take(w, &w->dy, w->compute, w->shapes->rows, w->shapes->width, READ, err));
    TRY(take_qkv(w, &w->dq, &w->dk, &w->dv, BOTH, err));
    return w->planning ? 0 : attention_forward_run(w, err);
}

static int attention_backward_run(OpWork *w, Error *err) {
    return attention_backward(w->device, w->dq, w->dk, w->dv, w->dy, w->y, w->stats, w->q, w->k,
                              w->v, w->shapes->heads, attention_scale(w), &w->span, 1, NULL, err);
}

/* ---- Vocabulary. ---- */

static int vocabulary_setup(OpWork *w, Error *err) {
    const OpShapes *s = w->shapes;
    shape_is(w, s->answers, s->width, s->vocabulary);
    w->operations = 2.0 * s->answers * s->width * s->vocabulary;
    TRY(take(w, &w->x, w->compute, s->answers, s->width, READ, err));
    TRY(take_packed(w, s->vocabulary, s->width, true, err));
    return take_vector(w, &w->b, DTYPE_F32, s->vocabulary, READ, err);
}

static int vocab_propose_setup(OpWork *w, Error *err) {
    const size_t rows = (size_t)w->shapes->answers;
    TRY(vocabulary_setup(w, err));
    w->bytes += 8.0 * (double)rows;
    if (w->planning) return 0;
    w->tokens = calloc(rows, sizeof *w->tokens), w->scores = calloc(rows, sizeof *w->scores);
    return w->tokens && w->scores ? 0 : error_set(err, "out of memory for the proposals");
}

static int vocab_propose_run(OpWork *w, Error *err) {
    const VocabChoice choice = {.banned = -1, .limit = w->shapes->vocabulary};
    return vocab_propose(w->device, w->tokens, w->scores, w->x, w->w, w->b, &choice, err);
}

static int vocab_logits_setup(OpWork *w, Error *err) {
    TRY(vocabulary_setup(w, err));
    return take(w, &w->y, DTYPE_F32, w->shapes->answers, w->shapes->vocabulary, WRITTEN, err);
}

static int vocab_logits_run(OpWork *w, Error *err) {
    return vocab_logits(w->device, w->y, w->x, w->w, w->b, err);
}

/* Of a quarter of the rows, as in training, and with all gradients. */
static int vocab_cross_entropy_setup(OpWork *w, Error *err) {
    const int64_t rows = (w->shapes->rows + 3) / 4, d = w->shapes->width, v = w->shapes->vocabulary;
    shape_is(w, rows, d, v);
    w->operations = 6 * (double)rows * (double)d * (double)v;
    TRY(take(w, &w->x, w->compute, rows, d, READ, err));
    TRY(take_scaled(w, &w->w, w->compute, v, d, READ, 0.02f, err));
    TRY(take_vector(w, &w->b, DTYPE_F32, v, READ, err));
    TRY(take_ids(w, &w->target, rows, v, err));
    TRY(take_vector(w, &w->weight, DTYPE_F32, rows, READ, err));
    TRY(take_vector(w, &w->y, DTYPE_F32, rows, WRITTEN, err));
    TRY(take(w, &w->dx, w->compute, rows, d, WRITTEN, err));
    TRY(take(w, &w->dw, DTYPE_F32, v, d, BOTH, err));
    return take_vector(w, &w->db, DTYPE_F32, v, BOTH, err);
}

static int vocab_cross_entropy_run(OpWork *w, Error *err) {
    return vocab_cross_entropy(w->device, w->y, w->dx, w->dw, w->db, w->x, w->w, w->b, w->target,
                               w->weight, 0, TENSOR_NONE, err);
}

/* ---- Training: the feed-forward part's larger weight. ---- */

static int64_t parameters(const OpWork *w) {
    return (int64_t)w->shapes->ffn * w->shapes->width;
}

static int adamw_step_setup(OpWork *w, Error *err) {
    const int64_t n = parameters(w);
    shape_is(w, w->shapes->ffn, w->shapes->width, 0);
    w->operations = 16 * (double)n;
    TRY(take_vector(w, &w->w, DTYPE_F32, n, BOTH, err));
    TRY(take_vector(w, &w->y, w->compute, n, WRITTEN, err));
    TRY(take_vector(w, &w->dw, DTYPE_F32, n, WRITTEN,
                    err)); /* moments: zero at first, not random */
    TRY(take_vector(w, &w->db, DTYPE_F32, n, WRITTEN, err));
    w->bytes += 2 * 4 * (double)n;
    return take_vector(w, &w->dy, DTYPE_F32, n, READ, err);
}

static const AdamW adamw_settings = {.lr = 1e-5f,
                                     .beta1 = 0.9f,
                                     .beta2 = 0.98f,
                                     .eps = 1e-8f,
                                     .weight_decay = 0.01f,
                                     .grad_scale = 1,
                                     .step = 1};

static int adamw_step_run(OpWork *w, Error *err) {
    return adamw_step(w->device, w->w, w->y, w->dw, w->db, w->dy, &adamw_settings, err);
}

/* The moments: dq and dk with the scales q and k; the maps are v. */
static int adamw8_step_setup(OpWork *w, Error *err) {
    const int64_t n = parameters(w), blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    float maps[4 * MOMENT_BLOCK];
    shape_is(w, w->shapes->ffn, w->shapes->width, 0);
    w->operations = 16 * (double)n;
    TRY(take_vector(w, &w->w, DTYPE_F32, n, BOTH, err));
    TRY(take_vector(w, &w->y, w->compute, n, WRITTEN, err));
    TRY(take_vector(w, &w->dq, DTYPE_U8, n, WRITTEN, err));
    TRY(take_vector(w, &w->dk, DTYPE_U8, n, WRITTEN, err));
    TRY(take_vector(w, &w->q, DTYPE_F32, blocks, WRITTEN, err));
    TRY(take_vector(w, &w->k, DTYPE_F32, blocks, WRITTEN, err));
    w->bytes += 2 * ((double)n + 4 * (double)blocks);
    TRY(take(w, &w->v, DTYPE_F32, 4, MOMENT_BLOCK, WRITTEN, err));
    TRY(take_vector(w, &w->dy, DTYPE_F32, n, READ, err));
    if (w->planning) return 0;
    moments_maps(maps);
    return device_upload(w->device, w->v.data, maps, sizeof maps, err);
}

static int adamw8_step_run(OpWork *w, Error *err) {
    const Moments8 moments = {w->dq, w->dk, w->q, w->k, w->v};
    return adamw8_step(w->device, w->w, w->y, &moments, w->dy, &adamw_settings, err);
}

static int square_sum_setup(OpWork *w, Error *err) {
    const int64_t n = parameters(w);
    shape_is(w, w->shapes->ffn, w->shapes->width, 0);
    w->operations = 2 * (double)n;
    return take_vector(w, &w->x, w->compute, n, READ, err);
}

static int square_sum_run(OpWork *w, Error *err) {
    double sum;
    return square_sum(w->device, &sum, w->x, err);
}

/* ---- All of them. ---- */

/* A name of OP_LIST that has no functions above does not compile. */
#define OP_CASE(name) {#name, name##_setup, name##_run},

const OpCase op_cases[] = {OP_LIST(OP_CASE){0}};

int op_case_variants(const OpCase *c) {
    if (!strcmp(c->op, "conv2d_forward")) return CONVOLUTIONS;
    return strncmp(c->op, "linear_", 7) ? 1 : LINEAR_LAYERS;
}

bool op_case_applies(const OpCase *c, const OpShapes *shapes) {
    if (!strncmp(c->op, "vocab_", 6)) return shapes->vocabulary > 0;
    /* Convolutions have shapes of their own, listed once with the tower. */
    if (!strcmp(c->op, "patches_forward") || !strcmp(c->op, "conv2d_forward"))
        return shapes->patch > 0;
    return true;
}

int op_work_plan(OpWork *work, const OpCase *c, Device *device, const OpShapes *shapes,
                 Dtype compute, int variant, Error *err) {
    *work = (OpWork){.device = device,
                     .shapes = shapes,
                     .compute = compute,
                     .variant = variant,
                     .planning = true};
    return c->setup(work, err);
}

int op_work_open(OpWork *work, const OpCase *c, Error *err) {
    work->planning = false;
    work->bytes = work->operations = 0; /* counted again */
    TRY(arena_open(&work->arena, work->device, work->memory, err));
    return c->setup(work, err);
}

void op_work_close(OpWork *work) {
    arena_close(&work->arena);
    packed_free(work->device, work->packed);
    free(work->offsets), free(work->tokens), free(work->scores);
    *work = (OpWork){0};
}
