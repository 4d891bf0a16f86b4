/* What every operation refuses and says, devices and arenas. */
#include "tests/matrix.h"
#include "tests/test.h"

#include "kernels/backend.h"
#include "kernels/ops.h"

#include <math.h>

/* ---- What operations refuse ---- */

static float storage[4096];

static Tensor matrix(Dtype dtype, int64_t rows, int64_t columns) {
    return tensor_2d(storage, dtype, rows, columns);
}

static Tensor f32(int64_t rows, int64_t columns) {
    return matrix(DTYPE_F32, rows, columns);
}

static Tensor vector(int64_t n) {
    return tensor_1d(storage, DTYPE_F32, n);
}

static Tensor indices(int64_t n) {
    return tensor_1d(storage, DTYPE_I32, n);
}

static const Tensor none; /* TENSOR_NONE */

static void refused_linear(void **state) {
    Device *d = *state;
    Error err;
    Tensor slice = tensor_columns(f32(4, 8), 0, 3), overlap = f32(4, 3);
    overlap.ld = 2;
    const struct {
        Tensor y, x, w, b;
        const char *said[4];
    } cases[] = {
        {f32(4, 5), none, f32(5, 3), none, {"x is missing"}},
        {f32(4, 5), f32(4, 3), none, none, {"w is missing"}},
        {none, f32(4, 3), f32(5, 3), none, {"y is missing"}},
        {f32(4, 5), matrix(DTYPE_F16, 4, 3), f32(5, 3), none, {"x is f16", "f32 or bf16"}},
        {f32(4, 5), matrix(DTYPE_BF16, 4, 3), f32(5, 3), none, {"w is f32", "expected bf16"}},
        {f32(4, 5), f32(4, 3), matrix(DTYPE_F16, 5, 3), none, {"w is f16", "expected f32"}},
        {matrix(DTYPE_BF16, 4, 5), f32(4, 3), f32(5, 3), none, {"y is bf16", "expected f32"}},
        {f32(4, 5), f32(4, 3), f32(5, 2), none, {"w is [5, 2]", "[any, 3]"}},
        {f32(4, 6), f32(4, 3), f32(5, 3), none, {"y is [4, 6]", "[4, 5]"}},
        {f32(3, 5), f32(4, 3), f32(5, 3), none, {"y is [3, 5]", "[4, 5]"}},
        {f32(4, 5), f32(4, 3), f32(5, 3), vector(4), {"b is [4]", "[5]"}},
        {f32(4, 5), f32(4, 3), f32(5, 3), f32(1, 5), {"b is [1, 5]", "[5]"}},
        {f32(4, 5), vector(3), f32(5, 3), none, {"x is [3]", "[any, any]"}},
        {f32(4, 5), f32(4, 0), f32(5, 0), none, {"x is [4, 0]"}},
        {f32(4, 5), overlap, f32(5, 3), none, {"x", "3 values 2 apart"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err.text[0] = 0;
        assert_int_equal(
            linear_forward(d, cases[i].y, cases[i].x, cases[i].w, cases[i].b, 0, false, &err), -1);
        check_message(&err, "linear_forward", (const char **)cases[i].said);
        assert_ptr_equal(strstr(err.text, "linear_forward: "), err.text);
    }
    assert_refused(linear_forward(d, f32(4, 5), slice, f32(5, 3), none, 9, false, &err), &err,
                   "activation 9");
    assert_refused(
        linear_forward(d, f32(4, 5), slice, f32(5, 3), none, ACTIVATION_GELU, true, &err), &err,
        "accumulate", "gelu");
    assert_refused(linear_backward(d, f32(4, 3), f32(5, 3), vector(5), f32(4, 5), none, f32(5, 3),
                                   false, &err),
                   &err, "linear_backward: x is missing");
    assert_refused(linear_backward(d, f32(4, 3), none, none, f32(4, 5), none, none, false, &err),
                   &err, "w is missing");
    assert_refused(
        linear_backward(d, none, f32(5, 4), none, f32(4, 5), f32(4, 3), none, false, &err), &err,
        "dw is [5, 4]", "[5, 3]");

    struct Packed *packed;
    Tensor w = f32(5, 3);
    assert_ok(pack_weight(d, &packed, &w, 1, DTYPE_F32, false, NULL, &err), &err);
    Tensor p = {.packed = packed}, q = f32(6, 3);
    q.packed = packed;
    assert_refused(linear_forward(d, f32(4, 5), f32(4, 2), p, none, 0, false, &err), &err, "[5, 3]",
                   "[any, 2]");
    assert_refused(linear_forward(d, f32(4, 5), f32(4, 3), q, none, 0, false, &err), &err,
                   "w is [6, 3]", "packed as [5, 3]");
    assert_refused(linear_forward(d, f32(4, 5), matrix(DTYPE_BF16, 4, 3), p, none, 0, false, &err),
                   &err, "x is bf16", "packed for inputs of f32");
    assert_refused(linear_backward(d, f32(4, 3), none, none, f32(4, 5), none, p, false, &err), &err,
                   "w is packed only", "plain rows");
    packed_free(d, packed);

    Tensor pieces[2] = {f32(5, 3), f32(5, 4)}, empty = f32(0, 3), whole = matrix(DTYPE_I32, 5, 3);
    assert_refused(pack_weight(d, &packed, pieces, 0, DTYPE_F32, false, NULL, &err), &err,
                   "0 pieces");
    assert_refused(pack_weight(d, &packed, pieces, 2, DTYPE_F32, false, NULL, &err), &err,
                   "piece 1 is [5, 4]", "[any, 3]");
    assert_refused(pack_weight(d, &packed, pieces, 1, DTYPE_F16, false, NULL, &err), &err,
                   "compute is f16");
    assert_refused(pack_weight(d, &packed, &empty, 1, DTYPE_F32, false, NULL, &err), &err,
                   "no rows");
    assert_refused(pack_weight(d, &packed, &whole, 1, DTYPE_F32, false, NULL, &err), &err, "i32",
                   "f32, bf16, f16 or i8");
    assert_int_equal(pack_size(d, 0, 3, DTYPE_F32, DTYPE_F32, false), 0);
    assert_int_equal(packed_bytes(NULL), 0);
    packed_free(d, NULL);
}

static void refused_rows(void **state) {
    Device *d = *state;
    Error err;
    Tensor x = f32(4, 6), narrow = tensor_columns(f32(4, 8), 0, 6);
    assert_refused(activation_forward(d, f32(4, 5), x, ACTIVATION_RELU, &err), &err, "y is [4, 5]",
                   "[4, 6]");
    assert_refused(activation_forward(d, matrix(DTYPE_I32, 4, 6), x, ACTIVATION_RELU, &err), &err,
                   "y is i32");
    assert_refused(activation_forward(d, narrow, x, ACTIVATION_RELU, &err), &err,
                   "no column slice");
    assert_refused(activation_backward(d, x, none, x, ACTIVATION_RELU, &err), &err,
                   "dy is missing");
    assert_refused(layernorm_forward(d, x, none, none, x, vector(5), vector(6), 1e-5f, &err), &err,
                   "w is [5]");
    assert_refused(layernorm_forward(d, x, none, none, x, none, vector(6), 1e-5f, &err), &err,
                   "w is missing");
    assert_refused(layernorm_forward(d, x, none, f32(4, 1), x, vector(6), vector(6), 1e-5f, &err),
                   &err, "stats is [4, 1]", "[4, 2]");
    assert_refused(layernorm_forward(d, x, f32(3, 6), none, x, vector(6), vector(6), 1e-5f, &err),
                   &err, "copy");
    assert_refused(layernorm_forward(d, x, none, none, x, vector(6), vector(6), NAN, &err), &err,
                   "eps");
    assert_refused(layernorm_forward(d, narrow, none, none, x, vector(6), vector(6), 0, &err), &err,
                   "column slice");
    assert_refused(layernorm_backward(d, x, none, none, x, x, vector(6), none, false, &err), &err,
                   "stats is missing");

    assert_refused(rmsnorm_forward(d, x, none, none, x, vector(5), 1e-5f, &err), &err, "w is [5]");
    assert_refused(rmsnorm_forward(d, f32(4, 5), none, none, x, vector(6), 1e-5f, &err), &err,
                   "rmsnorm_forward: y is [4, 5]");
    assert_refused(rmsnorm_forward(d, x, none, none, x, vector(6), -1, &err), &err, "eps is -1");
    assert_refused(rmsnorm_backward(d, x, vector(5), x, x, vector(6), f32(4, 2), false, &err), &err,
                   "dw is [5]");
    assert_refused(rmsnorm_backward(d, x, none, x, x, vector(6), none, false, &err), &err,
                   "stats is missing");
    assert_refused(rotary_forward(d, x, x, f32(9, 4), indices(4), false, &err), &err,
                   "6 columns of x and 4 of the table");
    assert_refused(rotary_forward(d, x, x, f32(9, 3), indices(4), false, &err), &err, "even width");
    assert_refused(rotary_forward(d, x, x, f32(9, 2), indices(3), false, &err), &err,
                   "index is [3]", "[4]");
    assert_refused(rotary_forward(d, x, x, matrix(DTYPE_BF16, 9, 2), indices(4), false, &err), &err,
                   "table is bf16", "f32");
    assert_refused(gated_forward(d, x, x, ACTIVATION_SILU, &err), &err, "x is [4, 6]", "[4, 12]");
    assert_refused(gated_forward(d, x, f32(4, 12), ACTIVATION_COUNT, &err), &err,
                   "activation 6 is unknown");
    assert_refused(gated_backward(d, x, x, f32(4, 12), ACTIVATION_SILU, &err), &err, "dx is [4, 6]",
                   "[4, 12]");

    GatherTerm terms[2] = {{f32(9, 6), indices(4)}, {f32(9, 5), indices(4)}};
    assert_refused(gather_forward(d, x, terms, 0, &err), &err, "0 terms");
    assert_refused(gather_forward(d, x, terms, 2, &err), &err, "table is [9, 5]", "[any, 6]");
    terms[0].index = indices(3);
    assert_refused(gather_forward(d, x, terms, 1, &err), &err, "index is [3]", "[4]");
    terms[0].index = vector(4);
    assert_refused(gather_forward(d, x, terms, 1, &err), &err, "index is f32", "i32");
    assert_refused(gather_backward(d, f32(9, 5), x, indices(4), &err), &err, "dtable is [9, 5]");
    assert_refused(convert_forward(d, matrix(DTYPE_I8, 4, 6), x, &err), &err, "y is i8",
                   "f32, bf16 or f16");
    assert_refused(convert_forward(d, f32(6, 4), x, &err), &err, "y is [6, 4]", "[4, 6]");
    assert_refused(patches_forward(d, f32(1, 3), f32(1, 48), 3, 4, 3, &err), &err,
                   "side 4 and patch 3");
    assert_refused(patches_forward(d, f32(1, 3), f32(1, 47), 3, 4, 2, &err), &err, "x is [1, 47]",
                   "[any, 48]");
    assert_refused(patches_forward(d, f32(3, 12), f32(1, 48), 3, 4, 2, &err), &err, "y is [3, 12]",
                   "[4, 12]");
    const int32_t begin[] = {0, 2, 2, 5};
    assert_refused(segment_mean_forward(d, f32(2, 6), x, begin, 2, &err), &err,
                   "segment 1 is rows 2 to 2");
    assert_refused(segment_mean_forward(d, f32(1, 6), x, begin + 2, 1, &err), &err,
                   "rows 2 to 5 of 4");
    assert_refused(segment_mean_forward(d, f32(2, 6), x, begin, 1, &err), &err, "y is [2, 6]",
                   "[1, 6]");
    assert_refused(segment_mean_forward(d, f32(2, 6), x, NULL, 1, &err), &err,
                   "offsets are missing");
    assert_refused(segment_mean_backward(d, x, f32(1, 5), begin, 1, &err), &err, "dy is [1, 5]");
}

static void refused_attention(void **state) {
    Device *d = *state;
    Error err;
    Tensor q = f32(4, 6), k = f32(8, 6);
    AttentionSpan good = {0, 4, 1, {{0, 8}}}, s;
    Dropout dropout = {.p = 1};
#define ATTEND(out, lse, q_, k_, v, heads, scale, span, count, drop) \
    attention_forward(d, out, lse, q_, k_, v, heads, scale, span, count, drop, &err)
    assert_refused(ATTEND(q, none, q, f32(8, 5), k, 2, 1, &good, 1, NULL), &err, "k is [8, 5]",
                   "[any, 6]");
    assert_refused(ATTEND(q, none, q, k, f32(7, 6), 2, 1, &good, 1, NULL), &err, "v is [7, 6]",
                   "[8, 6]");
    assert_refused(ATTEND(q, none, q, matrix(DTYPE_BF16, 8, 6), k, 2, 1, &good, 1, NULL), &err,
                   "k is bf16");
    assert_refused(ATTEND(f32(3, 6), none, q, k, k, 2, 1, &good, 1, NULL), &err, "out is [3, 6]");
    assert_refused(ATTEND(q, f32(4, 3), q, k, k, 2, 1, &good, 1, NULL), &err, "lse is [4, 3]",
                   "[4, 2]");
    assert_refused(ATTEND(q, none, q, k, k, 4, 1, &good, 1, NULL), &err, "6 columns", "4 heads");
    assert_refused(ATTEND(q, none, q, k, k, 2, NAN, &good, 1, NULL), &err, "scale");
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, NULL, 1, NULL), &err, "spans are missing");
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &good, 1, &dropout), &err, "dropout is 1");
    s = good, s.q_end = 5;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "span 0",
                   "queries 0 to 5 of 4");
    s = good, s.range_count = 5;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "5 key ranges", "1 to 4");
    s = good, s.range[0].end = 9;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "keys 0 to 9 of 8");
    s = good, s.range[0].begin = 8;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "span 0 has no keys");
    s = good, s.causal = 2;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "causal 2", "0 or 1");
    s = good, s.causal = 1, s.range[0].end = 3;
    assert_refused(ATTEND(q, none, q, k, k, 2, 1, &s, 1, NULL), &err, "4 queries and 3 keys");
    assert_refused(ATTEND(q, none, q, f32(8, 4), f32(8, 4), 3, 1, &good, 1, NULL), &err,
                   "k is [8, 4]", "divide the 3"); /* two heads of keys for three */
    assert_refused(attention_backward(d, q, k, f32(8, 3), q, q, f32(4, 2), q, k, k, 2, 1, &good, 1,
                                      NULL, &err),
                   &err, "dv is [8, 3]", "[8, 6]");
    assert_refused(attention_backward(d, q, k, k, q, q, none, q, k, k, 2, 1, &good, 1, NULL, &err),
                   &err, "attention_backward: lse is missing");
}

static void refused_vocab(void **state) {
    Device *d = *state;
    Error err;
    Tensor x = f32(4, 6), w = f32(9, 6);
    int32_t tokens[4];
    float scores[4];
    const struct {
        VocabChoice choice;
        const char *said[3];
    } cases[] = {
        {{.limit = 10, .banned = -1}, {"limit is 10", "9"}},
        {{.limit = 0, .banned = -1}, {"limit is 0"}},
        {{.limit = 9, .banned = 9}, {"banned is 9"}},
        {{.limit = 9, .banned = -2}, {"banned is -2"}},
        {{.limit = 1, .banned = 0}, {"nothing to propose"}},
        {{.limit = 9, .banned = -1, .temperature = -1}, {"temperature is -1"}},
        {{.limit = 9, .banned = -1, .temperature = NAN}, {"temperature is", "nan"}},
        {{.limit = 9, .banned = -1, .temperature = 1}, {"a stream and an index"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err.text[0] = 0;
        assert_int_equal(vocab_propose(d, tokens, scores, x, w, none, &cases[i].choice, &err), -1);
        check_message(&err, "vocab_propose", (const char **)cases[i].said);
    }
    VocabChoice c = {.limit = 9, .banned = -1};
    assert_refused(vocab_propose(d, NULL, scores, x, w, none, &c, &err), &err, "tokens is missing");
    assert_refused(vocab_propose(d, tokens, NULL, x, w, none, &c, &err), &err, "scores is missing");
    assert_refused(vocab_propose(d, tokens, scores, x, w, none, NULL, &err), &err,
                   "choice is missing");
    assert_refused(vocab_propose(d, tokens, scores, f32(4, 5), w, none, &c, &err), &err,
                   "w is [9, 6]", "[any, 5]");
    assert_refused(vocab_propose(d, tokens, scores, x, w, vector(8), &c, &err), &err, "b is [8]",
                   "[9]");
    assert_refused(vocab_logits(d, f32(4, 8), x, w, none, &err), &err, "y is [4, 8]", "[4, 9]");
    assert_refused(vocab_logits(d, matrix(DTYPE_BF16, 4, 9), x, w, none, &err), &err, "y is bf16",
                   "f32");
#define ENTROPY(target, weight, smoothing, smoothing_weight)                                   \
    vocab_cross_entropy(d, vector(4), none, none, none, x, w, none, target, weight, smoothing, \
                        smoothing_weight, &err)
    assert_refused(ENTROPY(vector(4), vector(4), 0, none), &err, "target is f32", "i32");
    assert_refused(ENTROPY(indices(4), vector(3), 0, none), &err, "weight is [3]", "[4]");
    assert_refused(ENTROPY(indices(4), vector(4), 0.1f, none), &err, "smoothing_weight is missing");
    assert_refused(ENTROPY(indices(4), vector(4), 1, none), &err, "smoothing is 1");
}

static void refused_training(void **state) {
    Device *d = *state;
    Error err;
    Tensor p = vector(9);
    double sum;
    AdamW a = {.lr = 1, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .grad_scale = 1, .step = 1},
          bad;
    assert_refused(dropout_forward(d, f32(4, 5), f32(4, 6), (Dropout){.p = 0.1f}, false, &err),
                   &err, "y is [4, 5]");
    assert_refused(dropout_forward(d, f32(4, 6), f32(4, 6), (Dropout){.p = -1}, true, &err), &err,
                   "dropout is -1");
    assert_refused(
        dropout_forward(d, f32(4, 6), matrix(DTYPE_F16, 4, 6), (Dropout){0}, false, &err), &err,
        "x is f16", "f32 or bf16");
    assert_refused(scale_forward(d, f32(4, 5), f32(4, 6), 2, &err), &err, "y is [4, 5]");
    assert_refused(scale_forward(d, matrix(DTYPE_F16, 4, 6), f32(4, 6), 2, &err), &err, "y is f16");
    assert_refused(scale_forward(d, f32(4, 6), f32(4, 6), NAN, &err), &err, "scale is");
    assert_refused(adamw_step(d, p, none, p, p, vector(8), &a, &err), &err, "g is [8]", "[9]");
    assert_refused(adamw_step(d, p, indices(9), p, p, p, &a, &err), &err, "copy is i32");
    assert_refused(adamw_step(d, p, none, p, p, p, NULL, &err), &err, "settings are missing");
    bad = a, bad.step = 0;
    assert_refused(adamw_step(d, p, none, p, p, p, &bad, &err), &err, "step is 0");
    bad = a, bad.beta2 = 1;
    assert_refused(adamw_step(d, p, none, p, p, p, &bad, &err), &err, "beta2 is 1");
    bad = a, bad.lr = NAN;
    assert_refused(adamw_step(d, p, none, p, p, p, &bad, &err), &err, "lr is");
    assert_refused(square_sum(d, &sum, indices(4), &err), &err, "x is i32");
    assert_refused(square_sum(d, NULL, p, &err), &err, "sum is missing");
}

/* A backend without an operation: the message says which, and of which kind of device. */
static void refused_without_backend(void **state) {
    (void)state;
    static const Backend nothing = {.name = "paper"};
    Device device = {.backend = &nothing}, *d = &device;
    Error err;
    Tensor x = f32(4, 6), w = f32(9, 6), p = vector(6);
    GatherTerm term = {w, indices(4)};
    AttentionSpan span = {0, 4, 1, {{0, 4}}};
    const int32_t begin[] = {0, 4};
    VocabChoice choice = {.limit = 9, .banned = -1};
    AdamW a = {.step = 1};
    int32_t tokens[4];
    float scores[4];
    double sum;
    struct Packed *packed;
#define LACKING(op, ...) assert_refused(op(d, __VA_ARGS__, &err), &err, #op " has no paper version")
    LACKING(linear_forward, f32(4, 9), x, w, none, 0, false);
    LACKING(linear_backward, none, none, none, f32(4, 9), none, none, false);
    LACKING(activation_forward, x, x, ACTIVATION_RELU);
    LACKING(activation_backward, x, x, x, ACTIVATION_RELU);
    LACKING(layernorm_forward, x, none, none, x, p, p, 0);
    LACKING(layernorm_backward, none, none, none, x, x, p, f32(4, 2), false);
    LACKING(rmsnorm_forward, x, none, none, x, p, 0);
    LACKING(rmsnorm_backward, none, none, x, x, p, f32(4, 2), false);
    LACKING(rotary_forward, x, x, f32(9, 2), indices(4), false);
    LACKING(gated_forward, f32(4, 3), x, ACTIVATION_SILU);
    LACKING(gated_backward, x, f32(4, 3), x, ACTIVATION_SILU);
    LACKING(attention_forward, x, none, x, x, x, 2, 1, &span, 1, NULL);
    LACKING(attention_backward, x, x, x, x, x, f32(4, 2), x, x, x, 2, 1, &span, 1, NULL);
    LACKING(gather_forward, x, &term, 1);
    LACKING(gather_backward, w, x, indices(4));
    LACKING(convert_forward, x, x);
    LACKING(patches_forward, f32(4, 12), f32(1, 48), 3, 4, 2);
    LACKING(segment_mean_forward, f32(1, 6), x, begin, 1);
    LACKING(segment_mean_backward, x, f32(1, 6), begin, 1);
    LACKING(vocab_propose, tokens, scores, x, w, none, &choice);
    LACKING(vocab_logits, f32(4, 9), x, w, none);
    LACKING(vocab_cross_entropy, vector(4), none, none, none, x, w, none, indices(4), vector(4), 0,
            none);
    LACKING(dropout_forward, x, x, (Dropout){0}, false);
    LACKING(scale_forward, x, x, 2);
    LACKING(adamw_step, p, none, p, p, p, &a);
    LACKING(square_sum, &sum, x);
    LACKING(pack_weight, &packed, &w, 1, DTYPE_F32, false, NULL);
    assert_int_equal(pack_size(d, 9, 6, DTYPE_F32, DTYPE_F32, false), 0);
}

/* ---- Devices and arenas ---- */

/* Exactly the requested bytes, in one piece and in several. */
static void device_clears(void **state) {
    Error err;
    static const size_t sizes[] = {0, 1, 255, 4097, ((size_t)3 << 20) + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *bytes = malloc(sizes[i] + 2);
        assert_non_null(bytes);
        memset(bytes, 0xa5, sizes[i] + 2);
        assert_ok(device_clear(*state, bytes + 1, sizes[i], &err), &err);
        assert_int_equal(bytes[0], 0xa5);
        assert_int_equal(bytes[sizes[i] + 1], 0xa5);
        for (size_t j = 1; j <= sizes[i]; j++)
            if (bytes[j]) fail_msg("byte %zu of %zu is %d", j - 1, sizes[i], bytes[j]);
        free(bytes);
    }
}

/* A view of a weight carries neither its pack nor its gradient: they are the whole's. */
static void weight_views(void **state) {
    (void)state;
    float values[4 * 6] = {0}, grad[4 * 6] = {0};
    Tensor w = f32(4, 6);
    w.data = values;
    assert_false(tensor_present(tensor_grad(w)));
    w.grad = grad;
    Tensor g = tensor_grad(w);
    assert_true(g.data == grad && g.dtype == DTYPE_F32 && tensor_same_shape(g, w) && g.ld == 6);
    assert_false(tensor_present(tensor_grad(tensor_rows(w, 1, 2))));
    assert_false(tensor_present(tensor_grad(tensor_columns(w, 1, 2))));
}

static void device_options(void **state) {
    (void)state;
    Error err;
    Device *device;
    DeviceOptions options = {.threads = 1, .isa = "base"};
    assert_ok(device_open(&device, &options, &err), &err);
    assert_int_equal(device_kind(device), DEVICE_CPU);
    assert_int_equal(device_threads(device), 1);
    assert_non_null(strstr(device_text(device), "CPU, 1 thread, base"));
    assert_int_equal(device_compute_dtype(device, DTYPE_F16), DTYPE_F32);
    assert_int_equal(device_compute_dtype(device, DTYPE_F32), DTYPE_F32);
    assert_int_equal(device_compute_dtype(device, DTYPE_BF16),
                     device_has_bf16(device) ? DTYPE_BF16 : DTYPE_F32);
    size_t free_bytes = 1, total = 1;
    assert_false(device_memory(device, &free_bytes, &total));
    assert_true(free_bytes == 0 && total == 0);
    assert_ok(device_wait(device, &err), &err);
    assert_true(device_counters(device).launches == 0 && device_counters(device).bytes_up == 0);
    assert_true(device_gpu_count() >= 0);
    void *memory;
    assert_refused(device_alloc(device, &memory, SIZE_MAX - 5, &err), &err, "out of memory",
                   "bytes");
    assert_ok(device_alloc(device, &memory, 0, &err), &err);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    device_free(device, memory);
    device_free(device, NULL);
    device_close(device);
    device_close(NULL);
    options.isa = "sse9";
    assert_refused(device_open(&device, &options, &err), &err, "sse9", "avx2");
    options = (DeviceOptions){.threads = -1};
    assert_refused(device_open(&device, &options, &err), &err, "-1 threads");
}

static void arenas(void **state) {
    Error err;
    Arena arena;
    Tensor a, b;
    const float values[3] = {1, 2, 3};
    assert_int_equal(arena_bytes(DTYPE_BF16, 3, 5), 256);
    assert_int_equal(arena_bytes(DTYPE_F32, 65, 1), 512);
    assert_int_equal(arena_bytes(DTYPE_F32, 0, 7), 0);
    assert_true(arena_bytes(DTYPE_F32, INT64_MAX, INT64_MAX) == SIZE_MAX);
    assert_ok(arena_open(&arena, *state, 1024, &err), &err);
    assert_ok(arena_take(&arena, &a, DTYPE_F32, 8, 16, &err), &err);
    assert_int_equal(a.ld, 16);
    size_t mark = arena.used;
    assert_ok(arena_upload(&arena, &b, DTYPE_F32, 3, values, &err), &err);
    assert_int_equal(b.ndim, 1);
    assert_memory_equal(b.data, values, sizeof values);
    assert_int_equal((uintptr_t)b.data % 256, 0);
    assert_refused(arena_take(&arena, &b, DTYPE_F32, 1, 65, &err), &err, "[1, 65] f32", "512 bytes",
                   "256 of 1024");
    assert_refused(arena_take(&arena, &b, DTYPE_F32, -1, 65, &err), &err, "[-1, 65]");
    assert_refused(arena_take(&arena, &b, DTYPE_F32, INT64_MAX, 65, &err), &err, "arena");
    assert_refused(arena_take(&arena, &b, DTYPE_NONE, 1, 1, &err), &err, "unknown");
    assert_int_equal(arena.used, 768);
    arena_reset(&arena, mark);
    assert_ok(arena_take(&arena, &b, DTYPE_BF16, 1, 256, &err), &err);
    assert_int_equal(arena.used, 1024);
    assert_int_equal(arena.peak, 1024);
    assert_ok(arena_take(&arena, &b, DTYPE_F32, 0, 9, &err), &err);
    assert_non_null(b.data);
    arena_close(&arena);
    arena_close(&arena);
    assert_refused(arena_open(&arena, *state, SIZE_MAX, &err), &err, "arena", "out of memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_linear),    cmocka_unit_test(refused_rows),
        cmocka_unit_test(refused_attention), cmocka_unit_test(refused_vocab),
        cmocka_unit_test(refused_training),  cmocka_unit_test(refused_without_backend),
        cmocka_unit_test(device_options),    cmocka_unit_test(device_clears),
        cmocka_unit_test(weight_views),      cmocka_unit_test(arenas),
    };
    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
