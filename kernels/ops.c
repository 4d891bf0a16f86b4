#include "kernels/ops.h"

#include "kernels/backend.h"

#include <math.h>
#include <stdio.h>

/* Every operation is checked here once, for all backends, and then called through the device's
 * table. An operation on no rows does nothing and succeeds; but first it fails if the backend lacks
 * it. */
#define FORWARD(device, op, empty, ...)                                                  \
    do {                                                                                 \
        if (!(device)->backend->op)                                                      \
            return error_set(err, "%s has no %s version", #op, (device)->backend->name); \
        if (empty) return 0;                                                             \
        device_poke(device);                                                             \
        return (device)->backend->op(device, __VA_ARGS__);                               \
    } while (0)

/* ---- Checks of arguments. ---- */

/* Sets of types. */
enum {
    F32 = 1u << DTYPE_F32,
    BF16 = 1u << DTYPE_BF16,
    F16 = 1u << DTYPE_F16,
    I32 = 1u << DTYPE_I32,
    U8 = 1u << DTYPE_U8,
    COMPUTE = F32 | BF16,
    FLOATS = F32 | BF16 | F16,
    WEIGHTS = FLOATS | 1u << DTYPE_I8, /* i8 with scales */
};

enum {
    OPTIONAL = 1, /* may be TENSOR_NONE */
    SLICE = 2,    /* may be a column slice, with gaps between its rows */
    VECTOR = 4,   /* of one dimension: `rows` values */
};

enum { ANY = -1 }; /* any number of rows or columns */

typedef struct Want {
    const char *name;
    Tensor t;
    unsigned types;
    int64_t rows, columns;
    unsigned flags;
} Want;

/* "f32, bf16 or f16" */
static const char *types_text(char *out, size_t size, unsigned types) {
    size_t used = 0;
    const char *between = "";
    out[0] = 0;
    for (int d = 0; types && used < size; d++) {
        if (!(types >> d & 1)) continue;
        types &= ~(1u << d);
        used += (size_t)snprintf(out + used, size - used, "%s%s", between, dtype_name((Dtype)d));
        between = types & (types - 1) ? ", " : " or "; /* several left, or the last one */
    }
    return out;
}

static void want_text(char *out, size_t size, const Want *want) {
    char number[2][24];
    int64_t n[2] = {want->rows, want->columns};
    for (int i = 0; i < 2; i++)
        if (n[i] == ANY)
            snprintf(number[i], sizeof number[i], "any");
        else
            snprintf(number[i], sizeof number[i], "%lld", (long long)n[i]);
    snprintf(out, size, want->flags & VECTOR ? "[%s]" : "[%s, %s]", number[0], number[1]);
}

static int check_type(const char *op, const char *name, Tensor t, unsigned types, Error *err) {
    char text[64];
    if (t.dtype > DTYPE_NONE && t.dtype < DTYPE_COUNT && (types >> t.dtype & 1)) return 0;
    return error_set(err, "%s: %s is %s, expected %s", op, name, dtype_name(t.dtype),
                     types_text(text, sizeof text, types));
}

static int check_distance(const char *op, const char *name, Tensor t, bool slice, Error *err) {
    int64_t columns = t.ndim ? t.shape[t.ndim - 1] : 1;
    if (t.ndim < 2 || tensor_row_count(t) <= 1 || t.ld == columns) return 0;
    if (t.ld > columns && slice) return 0;
    return error_set(err, "%s: %s has rows of %lld values %lld apart, expected %s", op, name,
                     (long long)columns, (long long)t.ld,
                     slice ? "no overlap" : "them end to end (no column slice)");
}

/* Checks presence, type and shape of all matrices and vectors. */
static int check(const char *op, const Want *wants, size_t count, Error *err) {
    for (const Want *want = wants; want < wants + count; want++) {
        Tensor t = want->t;
        if (!t.data) {
            if (want->flags & OPTIONAL) continue;
            return error_set(err, "%s: %s is missing", op, want->name);
        }
        TRY(check_type(op, want->name, t, want->types, err));
        if (t.dtype == DTYPE_I8 && !t.scale)
            return error_set(err, "%s: %s is i8 without scales", op, want->name);
        bool vector = want->flags & VECTOR;
        bool right = t.ndim == (vector ? 1 : 2) && t.shape[0] >= 0 && (vector || t.shape[1] >= 1) &&
                     (want->rows == ANY || t.shape[0] == want->rows) &&
                     (vector || want->columns == ANY || t.shape[1] == want->columns);
        if (!right) {
            char found[128], expected[64];
            shape_text(found, sizeof found, t.ndim, t.shape);
            want_text(expected, sizeof expected, want);
            return error_set(err, "%s: %s is %s, expected %s", op, want->name, found, expected);
        }
        TRY(check_distance(op, want->name, t, want->flags & SLICE, err));
    }
    return 0;
}

#define CHECK(op, ...)                                                                             \
    TRY(check(op, (const Want[]){__VA_ARGS__}, sizeof((const Want[]){__VA_ARGS__}) / sizeof(Want), \
              err))

/* Two tensors of one shape, of any number of dimensions. */
static int check_alike(const char *op, const char *name, Tensor t, unsigned types,
                       const char *other_name, Tensor other, bool slice, Error *err) {
    if (!t.data) return error_set(err, "%s: %s is missing", op, name);
    TRY(check_type(op, name, t, types, err));
    TRY(check_distance(op, name, t, slice, err));
    if (tensor_same_shape(t, other)) return 0;
    char found[128], expected[128];
    shape_text(found, sizeof found, t.ndim, t.shape);
    shape_text(expected, sizeof expected, other.ndim, other.shape);
    return error_set(err, "%s: %s is %s, expected %s as %s is", op, name, found, expected,
                     other_name);
}

/* Few operations know what to do with a weight that comes in parts. */
static int check_whole(const char *op, Tensor w, Error *err) {
    if (!w.parts) return 0;
    return error_set(err, "%s: not all rows of the weight are in memory (kernels/parts.h)", op);
}

/* A weight [rows, columns of x] for inputs x: packed, or plain rows of x's type. The shape and the
 * type of a packed one are filled in from the pack. */
static int check_weight_rows(const char *op, Tensor *w, Tensor x, int64_t rows, Error *err) {
    const struct Packed *p = w->packed;
    if (!p) {
        CHECK(op, {"w", *w, 1u << x.dtype, rows, x.shape[1], SLICE});
        return 0;
    }
    char found[64], expected[64];
    if (p->conv.kernel) return error_set(err, "%s: w is packed for a convolution", op);
    shape_text(found, sizeof found, 2, (int64_t[]){p->rows, p->columns});
    if (w->ndim && (w->ndim != 2 || w->shape[0] != p->rows || w->shape[1] != p->columns)) {
        shape_text(expected, sizeof expected, w->ndim, w->shape);
        return error_set(err, "%s: w is %s but was packed as %s", op, expected, found);
    }
    want_text(expected, sizeof expected, &(Want){.rows = rows, .columns = x.shape[1]});
    if (p->columns != x.shape[1] || (rows != ANY && p->rows != rows))
        return error_set(err, "%s: packed w is %s, expected %s", op, found, expected);
    if (p->dtype != x.dtype)
        return error_set(err, "%s: x is %s, but w is packed for inputs of %s", op,
                         dtype_name(x.dtype), dtype_name(p->dtype));
    void *data = w->data;
    *w = tensor_2d(data, p->dtype, p->rows, p->columns);
    w->packed = p;
    return 0;
}

static int check_weight(const char *op, Tensor *w, Tensor x, int64_t rows, Error *err) {
    TRY(check_whole(op, *w, err));
    return check_weight_rows(op, w, x, rows, err);
}

static int check_activation(const char *op, Activation activation, Error *err) {
    if (activation >= ACTIVATION_NONE && activation < ACTIVATION_COUNT) return 0;
    return error_set(err, "%s: activation %d is unknown", op, (int)activation);
}

/* Checks that a number is in [low, high), or [low, high]; NaN never is. */
static int check_number(const char *op, const char *name, double v, double low, double high,
                        Error *err) {
    if (v >= low && v < high) return 0;
    return error_set(err, "%s: %s is %g, expected %g <= %s < %g", op, name, v, low, name, high);
}

/* ---- Layers. ---- */

const char *activation_name(Activation activation) {
    switch (activation) {
    case ACTIVATION_NONE:
        return "none";
    case ACTIVATION_GELU:
        return "gelu";
    case ACTIVATION_QUICK_GELU:
        return "quick_gelu";
    case ACTIVATION_RELU:
        return "relu";
    case ACTIVATION_TANH:
        return "tanh";
    case ACTIVATION_SILU:
        return "silu";
    case ACTIVATION_COUNT:
        break;
    }
    return "unknown";
}

int linear_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Activation activation,
                   bool accumulate, Error *err) {
    const char *op = "linear_forward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, SLICE});
    TRY(check_weight(op, &w, x, ANY, err));
    CHECK(op, {"y", y, 1u << x.dtype | F32, x.shape[0], w.shape[0], SLICE},
          {"b", b, F32, w.shape[0], 0, OPTIONAL | VECTOR});
    TRY(check_activation(op, activation, err));
    if (accumulate && activation != ACTIVATION_NONE)
        return error_set(err, "%s: an accumulated matmul takes no activation, found %s", op,
                         activation_name(activation));
    FORWARD(device, linear_forward, x.shape[0] == 0, y, x, w, b, activation, accumulate, err);
}

int linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,
                    bool accumulate_dx, Error *err) {
    const char *op = "linear_backward";
    CHECK(op, {"dy", dy, COMPUTE, ANY, ANY, SLICE});
    int64_t rows = dy.shape[0], n = dy.shape[1];
    /* x is needed for dw only, and w, plain, for dx only. */
    if (dx.data && !w.data && w.packed)
        return error_set(err, "%s: w is packed only, expected its plain rows for dx", op);
    CHECK(op, {"x", x, 1u << dy.dtype, rows, ANY, SLICE | (dw.data ? 0 : OPTIONAL)},
          {"w", w, 1u << dy.dtype, n, x.data ? x.shape[1] : ANY, SLICE | (dx.data ? 0 : OPTIONAL)});
    CHECK(op, {"dx", dx, 1u << dy.dtype | F32, rows, w.shape[1], OPTIONAL | SLICE},
          {"dw", dw, F32, n, x.shape[1], OPTIONAL}, {"db", db, F32, n, 0, OPTIONAL | VECTOR});
    FORWARD(device, linear_backward, rows == 0, dx, dw, db, dy, x, w, accumulate_dx, err);
}

/* One check for each parameter type in ELEMENTWISE_LIST. */
static int check_Activation(const char *op, const char *name, Activation activation, Error *err) {
    (void)name;
    return check_activation(op, activation, err);
}

static int check_float(const char *op, const char *name, float v, Error *err) {
    return isfinite(v) ? 0 : error_set(err, "%s: %s is %g", op, name, v);
}

#define ELEMENTWISE(X, name, type, parameter)                                            \
    int name##_forward(Device *device, Tensor y, Tensor x, type parameter, Error *err) { \
        const char *op = #name "_forward";                                               \
        TRY(check_alike(op, "x", x, COMPUTE, "x", x, false, err));                       \
        TRY(check_alike(op, "y", y, COMPUTE, "x", x, false, err));                       \
        TRY(check_##type(op, #parameter, parameter, err));                               \
        FORWARD(device, name##_forward, tensor_count(x) == 0, y, x, parameter, err);     \
    }
ELEMENTWISE_LIST(ELEMENTWISE, )

int activation_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                        Error *err) {
    const char *op = "activation_backward";
    TRY(check_alike(op, "x", x, COMPUTE, "x", x, false, err));
    TRY(check_alike(op, "dy", dy, COMPUTE, "x", x, false, err));
    TRY(check_alike(op, "dx", dx, COMPUTE, "x", x, false, err));
    TRY(check_activation(op, activation, err));
    FORWARD(device, activation_backward, tensor_count(x) == 0, dx, dy, x, activation, err);
}

int layernorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                      Tensor b, float eps, Error *err) {
    const char *op = "layernorm_forward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    int64_t rows = x.shape[0], d = x.shape[1];
    CHECK(op, {"y", y, COMPUTE, rows, d, 0}, {"copy", copy, COMPUTE, rows, d, OPTIONAL},
          {"stats", stats, F32, rows, 2, OPTIONAL}, {"w", w, F32, d, 0, VECTOR},
          {"b", b, F32, d, 0, OPTIONAL | VECTOR});
    TRY(check_number(op, "eps", eps, 0, 1, err));
    FORWARD(device, layernorm_forward, rows == 0, y, copy, stats, x, w, b, eps, err);
}

int layernorm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                       Tensor w, Tensor stats, bool accumulate_dx, Error *err) {
    const char *op = "layernorm_backward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    int64_t rows = x.shape[0], d = x.shape[1];
    CHECK(op, {"dy", dy, COMPUTE, rows, d, 0}, {"dx", dx, COMPUTE, rows, d, OPTIONAL},
          {"dw", dw, F32, d, 0, OPTIONAL | VECTOR}, {"db", db, F32, d, 0, OPTIONAL | VECTOR},
          {"w", w, F32, d, 0, VECTOR}, {"stats", stats, F32, rows, 2, 0});
    FORWARD(device, layernorm_backward, rows == 0, dx, dw, db, dy, x, w, stats, accumulate_dx, err);
}

int rmsnorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                    float eps, Error *err) {
    const char *op = "rmsnorm_forward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    int64_t rows = x.shape[0], d = x.shape[1];
    CHECK(op, {"y", y, COMPUTE, rows, d, 0}, {"copy", copy, COMPUTE, rows, d, OPTIONAL},
          {"stats", stats, F32, rows, 2, OPTIONAL}, {"w", w, F32, d, 0, VECTOR});
    TRY(check_number(op, "eps", eps, 0, 1, err));
    FORWARD(device, rmsnorm_forward, rows == 0, y, copy, stats, x, w, eps, err);
}

int rmsnorm_backward(Device *device, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                     Tensor stats, bool accumulate_dx, Error *err) {
    const char *op = "rmsnorm_backward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    int64_t rows = x.shape[0], d = x.shape[1];
    CHECK(op, {"dy", dy, COMPUTE, rows, d, 0}, {"dx", dx, COMPUTE, rows, d, OPTIONAL},
          {"dw", dw, F32, d, 0, OPTIONAL | VECTOR}, {"w", w, F32, d, 0, VECTOR},
          {"stats", stats, F32, rows, 2, 0});
    FORWARD(device, rmsnorm_backward, rows == 0, dx, dw, dy, x, w, stats, accumulate_dx, err);
}

int rotary_forward(Device *device, Tensor y, Tensor x, Tensor table, Tensor index, bool back,
                   Error *err) {
    const char *op = "rotary_forward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, SLICE});
    CHECK(op, {"y", y, COMPUTE, x.shape[0], x.shape[1], SLICE}, {"table", table, F32, ANY, ANY, 0},
          {"index", index, I32, x.shape[0], 0, VECTOR});
    int64_t width = table.shape[1];
    if (width % 2 || x.shape[1] % width)
        return error_set(err,
                         "%s: %lld columns of x and %lld of the table, expected heads of an "
                         "even width each",
                         op, (long long)x.shape[1], (long long)width);
    FORWARD(device, rotary_forward, x.shape[0] == 0, y, x, table, index, back, err);
}

int gated_forward(Device *device, Tensor y, Tensor x, Activation activation, Error *err) {
    const char *op = "gated_forward";
    CHECK(op, {"y", y, COMPUTE, ANY, ANY, 0});
    CHECK(op, {"x", x, COMPUTE, y.shape[0], 2 * y.shape[1], 0});
    TRY(check_activation(op, activation, err));
    FORWARD(device, gated_forward, y.shape[0] == 0, y, x, activation, err);
}

int gated_backward(Device *device, Tensor dx, Tensor dy, Tensor x, Activation activation,
                   Error *err) {
    const char *op = "gated_backward";
    CHECK(op, {"dy", dy, COMPUTE, ANY, ANY, 0});
    CHECK(op, {"dx", dx, COMPUTE, dy.shape[0], 2 * dy.shape[1], 0},
          {"x", x, COMPUTE, dy.shape[0], 2 * dy.shape[1], 0});
    TRY(check_activation(op, activation, err));
    FORWARD(device, gated_backward, dy.shape[0] == 0, dx, dy, x, activation, err);
}

/* ---- Attention. ---- */

static int check_dropout(const char *op, const Dropout *dropout, Error *err) {
    return dropout ? check_number(op, "dropout", dropout->p, 0, 1, err) : 0;
}

/* Rows within the tensors, and at least one key for every query: an empty softmax is undefined.
 * Dropout's index allows 65536 keys. */
static int check_spans(const char *op, const AttentionSpan *spans, int count, int64_t rows,
                       int64_t key_rows, const Dropout *dropout, Error *err) {
    if (count < 0 || (count > 0 && !spans)) return error_set(err, "%s: spans are missing", op);
    for (int s = 0; s < count; s++) {
        const AttentionSpan *span = &spans[s];
        if (span->q_begin < 0 || span->q_begin > span->q_end || span->q_end > rows)
            return error_set(err, "%s: span %d has the queries %d to %d of %lld rows", op, s,
                             span->q_begin, span->q_end, (long long)rows);
        if (span->range_count < 1 || span->range_count > ATTENTION_RANGES)
            return error_set(err, "%s: span %d has %d key ranges, expected 1 to %d", op, s,
                             span->range_count, ATTENTION_RANGES);
        int64_t keys = 0;
        for (int r = 0; r < span->range_count; r++) {
            int32_t begin = span->range[r].begin, end = span->range[r].end;
            if (begin < 0 || begin > end || end > key_rows)
                return error_set(err, "%s: span %d has the keys %d to %d of %lld rows", op, s,
                                 begin, end, (long long)key_rows);
            keys += end - begin;
        }
        if (keys == 0 && span->q_begin < span->q_end)
            return error_set(err, "%s: span %d has no keys", op, s);
        if (span->causal != 0 && span->causal != 1)
            return error_set(err, "%s: span %d has causal %d, expected 0 or 1", op, s,
                             span->causal);
        if (span->causal && keys < span->q_end - span->q_begin)
            return error_set(err,
                             "%s: span %d is causal with %d queries and %lld keys, expected at "
                             "least as many keys",
                             op, s, span->q_end - span->q_begin, (long long)keys);
        if (span->window < 0 || (span->window && keys < span->q_end - span->q_begin))
            return error_set(err,
                             "%s: span %d has a window of %d, %d queries and %lld keys, expected "
                             "0 or more and at least as many keys",
                             op, s, span->window, span->q_end - span->q_begin, (long long)keys);
        if (keys > 65536 && dropout && dropout->p > 0)
            return error_set(err, "%s: span %d has %lld keys, expected at most 65536 with dropout",
                             op, s, (long long)keys);
    }
    return 0;
}

static int check_attention(const char *op, Tensor q, Tensor k, Tensor v, int heads, float scale,
                           const AttentionSpan *spans, int count, const Dropout *dropout,
                           Error *err) {
    CHECK(op, {"q", q, COMPUTE, ANY, ANY, SLICE});
    if (heads < 1 || q.shape[1] % heads)
        return error_set(err, "%s: %lld columns do not divide into %d heads", op,
                         (long long)q.shape[1], heads);
    const int64_t width = q.shape[1] / heads;
    CHECK(op, {"k", k, 1u << q.dtype, ANY, ANY, SLICE});
    if (k.shape[1] % width || heads % (k.shape[1] / width))
        return error_set(err,
                         "%s: k is [%lld, %lld], expected [any, %lld], or fewer heads of %lld that "
                         "divide the %d",
                         op, (long long)k.shape[0], (long long)k.shape[1], (long long)q.shape[1],
                         (long long)width, heads);
    CHECK(op, {"v", v, 1u << q.dtype, k.shape[0], k.shape[1], SLICE});
    if (!isfinite(scale)) return error_set(err, "%s: scale is %g", op, scale);
    TRY(check_dropout(op, dropout, err));
    return check_spans(op, spans, count, q.shape[0], k.shape[0], dropout, err);
}

int attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                      int heads, float scale, const AttentionSpan *spans, int span_count,
                      const Dropout *dropout, Error *err) {
    const char *op = "attention_forward";
    TRY(check_attention(op, q, k, v, heads, scale, spans, span_count, dropout, err));
    CHECK(op, {"out", out, 1u << q.dtype, q.shape[0], q.shape[1], SLICE},
          {"lse", lse, F32, q.shape[0], heads, OPTIONAL});
    FORWARD(device, attention_forward, q.shape[0] == 0 || span_count == 0, out, lse, q, k, v, heads,
            scale, spans, span_count, dropout, err);
}

int attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                       Tensor lse, Tensor q, Tensor k, Tensor v, int heads, float scale,
                       const AttentionSpan *spans, int span_count, const Dropout *dropout,
                       Error *err) {
    const char *op = "attention_backward";
    TRY(check_attention(op, q, k, v, heads, scale, spans, span_count, dropout, err));
    int64_t rows = q.shape[0], keys = k.shape[0], d = q.shape[1], kd = k.shape[1];
    unsigned c = 1u << q.dtype;
    CHECK(op, {"dq", dq, c | F32, rows, d, SLICE}, {"dk", dk, c | F32, keys, kd, SLICE},
          {"dv", dv, c | F32, keys, kd, SLICE}, {"dout", dout, c, rows, d, SLICE},
          {"out", out, c, rows, d, SLICE}, {"lse", lse, F32, rows, heads, 0});
    FORWARD(device, attention_backward, rows == 0 || span_count == 0, dq, dk, dv, dout, out, lse, q,
            k, v, heads, scale, spans, span_count, dropout, err);
}

/* ---- Rows: embeddings, conversions, patches, means. ---- */

int gather_forward(Device *device, Tensor y, const GatherTerm *terms, int count, Error *err) {
    const char *op = "gather_forward";
    CHECK(op, {"y", y, COMPUTE, ANY, ANY, 0});
    if (count < 1 || !terms)
        return error_set(err, "%s: %d terms, expected at least one", op, count);
    for (int i = 0; i < count; i++) {
        TRY(check_whole(op, terms[i].table, err));
        CHECK(op, {"table", terms[i].table, WEIGHTS, ANY, y.shape[1], 0},
              {"index", terms[i].index, I32, y.shape[0], 0, VECTOR});
    }
    FORWARD(device, gather_forward, y.shape[0] == 0, y, terms, count, err);
}

int gather_backward(Device *device, Tensor dtable, Tensor dy, Tensor index, Error *err) {
    const char *op = "gather_backward";
    CHECK(op, {"dy", dy, COMPUTE, ANY, ANY, 0});
    CHECK(op, {"dtable", dtable, F32, ANY, dy.shape[1], 0},
          {"index", index, I32, dy.shape[0], 0, VECTOR});
    FORWARD(device, gather_backward, dy.shape[0] == 0, dtable, dy, index, err);
}

int convert_forward(Device *device, Tensor y, Tensor x, Error *err) {
    const char *op = "convert_forward";
    TRY(check_alike(op, "x", x, FLOATS, "x", x, true, err));
    TRY(check_alike(op, "y", y, FLOATS, "x", x, true, err));
    FORWARD(device, convert_forward, tensor_count(x) == 0, y, x, err);
}

int patches_forward(Device *device, Tensor y, Tensor x, int channels, int side, int patch,
                    Error *err) {
    const char *op = "patches_forward";
    enum { LIMIT = 1 << 15 }; /* keeps the multiplications below within 64 bits */
    if (channels < 1 || channels > LIMIT || side < 1 || side > LIMIT || patch < 1 || side % patch)
        return error_set(err,
                         "%s: %d channels, side %d and patch %d, expected a side of whole patches",
                         op, channels, side, patch);
    int64_t across = side / patch;
    CHECK(op, {"x", x, F32, ANY, (int64_t)channels * side * side, 0});
    CHECK(op,
          {"y", y, COMPUTE, x.shape[0] * across * across, (int64_t)channels * patch * patch, 0});
    FORWARD(device, patches_forward, x.shape[0] == 0, y, x, channels, side, patch, err);
}

static int check_segments(const char *op, const int32_t *begin, int segments, int64_t rows,
                          Error *err) {
    if (segments < 0 || (segments > 0 && !begin))
        return error_set(err, "%s: segment offsets are missing", op);
    for (int s = 0; s < segments; s++)
        if (begin[s] < 0 || begin[s] >= begin[s + 1] || begin[s + 1] > rows)
            return error_set(err,
                             "%s: segment %d is rows %d to %d of %lld, expected at least one row",
                             op, s, begin[s], begin[s + 1], (long long)rows);
    return 0;
}

/* Sizes whose products stay far from overflowing, and at least one place for the filter. */
static int check_conv(const char *op, const Conv2d *c, Error *err) {
    enum { SIDE = 1 << 14, CHANNELS = 1 << 16, KERNEL = 1 << 8 };
    if (c->height < 1 || c->height > SIDE || c->width < 1 || c->width > SIDE)
        return error_set(err, "%s: images of %d x %d, expected sides of 1 to %d", op, c->width,
                         c->height, SIDE);
    if (c->channels < 1 || c->channels > CHANNELS || c->out < 1 || c->out > CHANNELS)
        return error_set(err, "%s: %d channels to %d, expected 1 to %d", op, c->channels, c->out,
                         CHANNELS);
    if (c->depthwise && c->out != c->channels)
        return error_set(err, "%s: depthwise from %d channels to %d, expected as many", op,
                         c->channels, c->out);
    if (c->kernel < 1 || c->kernel > KERNEL || c->stride < 1 || c->stride > KERNEL)
        return error_set(err, "%s: kernel %d with stride %d, expected 1 to %d", op, c->kernel,
                         c->stride, KERNEL);
    if (c->before < 0 || c->before >= c->kernel || c->after < 0 || c->after >= c->kernel)
        return error_set(err, "%s: %d and %d zeros around an image, expected 0 to %d", op,
                         c->before, c->after, c->kernel - 1);
    int shorter = c->height < c->width ? c->height : c->width;
    if (shorter + c->before + c->after < c->kernel)
        return error_set(err, "%s: a filter of side %d does not fit into an image of %d x %d", op,
                         c->kernel, c->width, c->height);
    return 0;
}

int conv2d_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, bool accumulate,
                   Error *err) {
    const char *op = "conv2d_forward";
    if (!w.packed || !w.packed->conv.kernel)
        return error_set(err, "%s: w is not packed for a convolution", op);
    const Conv2d *c = &w.packed->conv;
    int64_t pixels = (int64_t)c->height * c->width;
    CHECK(op, {"x", x, 1u << w.packed->dtype, ANY, c->channels, 0});
    if (x.shape[0] % pixels)
        return error_set(err, "%s: x has %lld rows, not a multiple of an image's %d x %d", op,
                         (long long)x.shape[0], c->height, c->width);
    int64_t places = (int64_t)conv2d_places(c, c->height) * conv2d_places(c, c->width);
    CHECK(op, {"y", y, 1u << x.dtype, x.shape[0] / pixels * places, c->out, 0},
          {"b", b, F32, c->out, 0, VECTOR});
    if (accumulate && c->relu6)
        return error_set(err, "%s: an accumulated convolution takes no activation, found relu6",
                         op);
    FORWARD(device, conv2d_forward, x.shape[0] == 0, y, x, w, b, accumulate, err);
}

int segment_mean_forward(Device *device, Tensor y, Tensor x, const int32_t *begin, int segments,
                         Error *err) {
    const char *op = "segment_mean_forward";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    TRY(check_segments(op, begin, segments, x.shape[0], err));
    CHECK(op, {"y", y, COMPUTE, segments, x.shape[1], 0});
    FORWARD(device, segment_mean_forward, segments == 0, y, x, begin, segments, err);
}

int segment_mean_backward(Device *device, Tensor dx, Tensor dy, const int32_t *begin, int segments,
                          Error *err) {
    const char *op = "segment_mean_backward";
    CHECK(op, {"dx", dx, COMPUTE, ANY, ANY, 0});
    TRY(check_segments(op, begin, segments, dx.shape[0], err));
    CHECK(op, {"dy", dy, COMPUTE, segments, dx.shape[1], 0});
    FORWARD(device, segment_mean_backward, dx.shape[0] == 0, dx, dy, begin, segments, err);
}

/* ---- Vocabulary. ---- */

int vocab_propose(Device *device, int32_t *tokens, float *scores, Tensor x, Tensor w, Tensor b,
                  const VocabChoice *choice, Error *err) {
    const char *op = "vocab_propose";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, SLICE});
    TRY(check_weight(op, &w, x, ANY, err));
    int64_t rows = x.shape[0], vocabulary = w.shape[0];
    CHECK(op, {"b", b, F32, vocabulary, 0, OPTIONAL | VECTOR});
    const char *absent = !tokens ? "tokens" : !scores ? "scores" : !choice ? "choice" : NULL;
    if (absent) return error_set(err, "%s: %s is missing", op, absent);
    if (vocabulary > INT32_MAX || choice->limit < 1 || choice->limit > vocabulary)
        return error_set(err, "%s: limit is %d, expected 1 to the vocabulary's %lld", op,
                         choice->limit, (long long)vocabulary);
    if (choice->banned < -1 || choice->banned >= vocabulary)
        return error_set(err, "%s: banned is %d, expected an id below %lld, or -1", op,
                         choice->banned, (long long)vocabulary);
    if (choice->limit == 1 && choice->banned == 0)
        return error_set(err, "%s: with limit 1 and id 0 banned there is nothing to propose", op);
    TRY(check_number(op, "temperature", choice->temperature, 0, INFINITY, err));
    if (choice->temperature > 0 && rows > 0 && (!choice->stream || !choice->index))
        return error_set(err, "%s: a draw needs a stream and an index for each row", op);
    FORWARD(device, vocab_propose, rows == 0, tokens, scores, x, w, b, choice, err);
}

int vocab_logits(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Error *err) {
    const char *op = "vocab_logits";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, SLICE});
    TRY(check_weight(op, &w, x, ANY, err));
    CHECK(op, {"y", y, F32, x.shape[0], w.shape[0], SLICE},
          {"b", b, F32, w.shape[0], 0, OPTIONAL | VECTOR});
    FORWARD(device, vocab_logits, x.shape[0] == 0, y, x, w, b, err);
}

int vocab_cross_entropy(Device *device, Tensor loss, Tensor dx, Tensor dw, Tensor db, Tensor x,
                        Tensor w, Tensor b, Tensor target, Tensor weight, float smoothing,
                        Tensor smoothing_weight, Error *err) {
    const char *op = "vocab_cross_entropy";
    CHECK(op, {"x", x, COMPUTE, ANY, ANY, 0});
    TRY(check_weight_rows(op, &w, x, ANY, err));
    TRY(check_number(op, "smoothing", smoothing, 0, 1, err));
    int64_t rows = x.shape[0], d = x.shape[1], vocabulary = w.shape[0];
    CHECK(op, {"loss", loss, F32, rows, 0, VECTOR}, {"dx", dx, 1u << x.dtype, rows, d, OPTIONAL},
          {"dw", dw, F32, vocabulary, d, OPTIONAL},
          {"db", db, F32, vocabulary, 0, OPTIONAL | VECTOR},
          {"b", b, F32, vocabulary, 0, OPTIONAL | VECTOR}, {"target", target, I32, rows, 0, VECTOR},
          {"weight", weight, F32, rows, 0, VECTOR},
          {"smoothing_weight", smoothing_weight, F32, rows, 0,
           VECTOR | (smoothing > 0 ? 0 : OPTIONAL)});
    FORWARD(device, vocab_cross_entropy, rows == 0, loss, dx, dw, db, x, w, b, target, weight,
            smoothing, smoothing_weight, err);
}

/* ---- Training. ---- */

int dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout, bool accumulate,
                    Error *err) {
    const char *op = "dropout_forward";
    TRY(check_alike(op, "x", x, COMPUTE, "x", x, false, err));
    TRY(check_alike(op, "y", y, COMPUTE, "x", x, false, err));
    TRY(check_dropout(op, &dropout, err));
    FORWARD(device, dropout_forward, tensor_count(x) == 0, y, x, dropout, accumulate, err);
}

static int check_adamw(const char *op, const AdamW *adamw, Error *err) {
    if (!adamw) return error_set(err, "%s: the step's settings are missing", op);
    TRY(check_number(op, "lr", adamw->lr, 0, INFINITY, err));
    TRY(check_number(op, "beta1", adamw->beta1, 0, 1, err));
    TRY(check_number(op, "beta2", adamw->beta2, 0, 1, err));
    TRY(check_number(op, "eps", adamw->eps, 0, 1, err));
    TRY(check_number(op, "weight_decay", adamw->weight_decay, 0, INFINITY, err));
    TRY(check_number(op, "grad_scale", adamw->grad_scale, 0, INFINITY, err));
    if (adamw->first < 0)
        return error_set(err, "%s: first is %lld, expected 0 or more", op, (long long)adamw->first);
    if (adamw->step < 1)
        return error_set(err, "%s: step is %lld, expected 1 for the first", op,
                         (long long)adamw->step);
    return 0;
}

static int check_weights(const char *op, Tensor p, Tensor copy, Error *err) {
    CHECK(op, {"p", p, COMPUTE, ANY, 0, VECTOR});
    CHECK(op, {"copy", copy, FLOATS, p.shape[0], 0, OPTIONAL | VECTOR});
    if (p.dtype == DTYPE_F32 || !copy.data) return 0;
    return error_set(err, "%s: a copy of weights in bf16, expected one of f32's alone", op);
}

int adamw_step(Device *device, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g,
               const AdamW *adamw, Error *err) {
    const char *op = "adamw_step";
    TRY(check_weights(op, p, copy, err));
    int64_t n = p.shape[0];
    CHECK(op, {"m", m, F32, n, 0, VECTOR}, {"v", v, F32, n, 0, VECTOR},
          {"g", g, F32, n, 0, VECTOR});
    TRY(check_adamw(op, adamw, err));
    FORWARD(device, adamw_step, n == 0, p, copy, m, v, g, adamw, err);
}

int adamw8_step(Device *device, Tensor p, Tensor copy, const Moments8 *moments, Tensor g,
                const AdamW *adamw, Error *err) {
    const char *op = "adamw8_step";
    TRY(check_weights(op, p, copy, err));
    int64_t n = p.shape[0], blocks = (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    if (!moments) return error_set(err, "%s: the moments are missing", op);
    const Moments8 *q = moments;
    CHECK(op, {"g", g, F32, n, 0, VECTOR}, {"m", q->m, U8, n, 0, VECTOR},
          {"v", q->v, U8, n, 0, VECTOR}, {"m_scale", q->m_scale, F32, blocks, 0, VECTOR},
          {"v_scale", q->v_scale, F32, blocks, 0, VECTOR},
          {"maps", q->maps, F32, 4, MOMENT_BLOCK, 0});
    TRY(check_adamw(op, adamw, err));
    FORWARD(device, adamw8_step, n == 0, p, copy, moments, g, adamw, err);
}

int square_sum(Device *device, double *sum, Tensor x, Error *err) {
    const char *op = "square_sum";
    TRY(check_alike(op, "x", x, COMPUTE, "x", x, false, err));
    if (!sum) return error_set(err, "%s: sum is missing", op);
    *sum = 0;
    FORWARD(device, square_sum, tensor_count(x) == 0, sum, x, err);
}

/* ---- Packed weights. ---- */

int pack_weight(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    const char *op = "pack_weight";
    if (count < 1 || !pieces)
        return error_set(err, "%s: %d pieces, expected at least one", op, count);
    TRY(check_type(op, "compute", (Tensor){.dtype = compute}, COMPUTE, err));
    if (compute == DTYPE_BF16 && !device->bf16)
        return error_set(err, "%s: for bf16 inputs, on a device without bf16 matmuls (%s)", op,
                         device->text);
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "piece %d", i);
        CHECK(op, {name, pieces[i], WEIGHTS, ANY, i ? pieces[0].shape[1] : ANY, SLICE});
        rows += pieces[i].shape[0];
    }
    if (rows < 1) return error_set(err, "%s: the pieces have no rows", op);
    FORWARD(device, pack_weight, false, packed, pieces, count, compute, vocabulary, progress, err);
}

int conv2d_pack(Device *device, struct Packed **packed, const Conv2d *conv, Tensor w, Dtype compute,
                Error *err) {
    const char *op = "conv2d_pack";
    TRY(check_conv(op, conv, err));
    TRY(check_type(op, "compute", (Tensor){.dtype = compute}, COMPUTE, err));
    if (compute == DTYPE_BF16 && !device->bf16)
        return error_set(err, "%s: for bf16 inputs, on a device without bf16 matmuls (%s)", op,
                         device->text);
    if (!w.data) return error_set(err, "%s: w is missing", op);
    TRY(check_type(op, "w", w, F32, err));
    const int64_t shape[] = {conv->out, conv->depthwise ? 1 : conv->channels, conv->kernel,
                             conv->kernel};
    if (!tensor_same_shape(w, tensor_nd(w.data, DTYPE_F32, 4, shape))) {
        char found[128], expected[128];
        shape_text(found, sizeof found, w.ndim, w.shape);
        shape_text(expected, sizeof expected, 4, shape);
        return error_set(err, "%s: w is %s, expected %s", op, found, expected);
    }
    FORWARD(device, conv2d_pack, false, packed, conv, w, compute, err);
}

void packed_free(Device *device, struct Packed *packed) {
    if (packed) device->backend->packed_free(device, packed);
}

size_t packed_bytes(const struct Packed *packed) {
    return packed ? packed->bytes : 0;
}

size_t pack_size(Device *device, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                 bool vocabulary) {
    if (!device->backend->pack_size || rows < 1 || columns < 1) return 0;
    if (compute != DTYPE_F32 && !(compute == DTYPE_BF16 && device->bf16)) return 0;
    return device->backend->pack_size(device, rows, columns, stored, compute, vocabulary);
}
