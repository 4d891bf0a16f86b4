/* Attention against softmax(q k^T * scale) v in double precision, written out. */
#include "tests/matrix.h"

#include <math.h>
#include <time.h>

#include "kernels/random.h"

typedef struct Case {
    TestMatrix q, k, v, out, lse;
    int heads, width;
    double scale;
} Case;

static Case case_new(TestRandom *random, Dtype dtype, int rows, int key_rows, int heads, int width,
                     int gap) {
    int d = heads * width;
    return (Case){.q = matrix_random(random, dtype, rows, d, gap, 1, 0),
                  .k = matrix_random(random, dtype, key_rows, d, gap, 1, 0),
                  .v = matrix_random(random, dtype, key_rows, d, gap, 1, 0),
                  .out = matrix_new(dtype, rows, d, gap),
                  .lse = matrix_new(DTYPE_F32, rows, heads, 0),
                  .heads = heads,
                  .width = width,
                  .scale = 1 / sqrt(width)};
}

static void case_free(Case *c) {
    matrix_free(&c->q), matrix_free(&c->k), matrix_free(&c->v);
    matrix_free(&c->out), matrix_free(&c->lse);
}

static void case_run(Device *device, Case *c, const AttentionSpan *spans, int count,
                     const Dropout *dropout) {
    Error err;
    assert_ok(attention_forward(device, c->out.t, c->lse.t, c->q.t, c->k.t, c->v.t, c->heads,
                                (float)c->scale, spans, count, dropout, &err),
              &err);
}

static AttentionSpan span_of(int q_begin, int q_end, int begin, int end) {
    return (AttentionSpan){q_begin, q_end, 1, {{begin, end}}};
}

/* One row of one head: out [width], returns the log-sum-exp. */
static double oracle_row(const Case *c, const AttentionSpan *span, int row, int head,
                         const Dropout *dropout, double *out) {
    int keys[8192], n = 0;
    for (int r = 0; r < span->range_count; r++)
        for (int j = span->range[r].begin; j < span->range[r].end; j++) keys[n++] = j;
    double *p = malloc((size_t)n * sizeof *p), largest = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++) {
        p[j] = 0;
        for (int d = head * c->width; d < (head + 1) * c->width; d++)
            p[j] += matrix_get(&c->q, row, d) * matrix_get(&c->k, keys[j], d);
        p[j] *= (float)c->scale;
        if (p[j] > largest) largest = p[j];
    }
    for (int j = 0; j < n; j++) sum += p[j] = exp(p[j] - largest);
    for (int d = 0; d < c->width; d++) out[d] = 0;
    for (int j = 0; j < n; j++) {
        uint64_t index = ((uint64_t)row * (uint64_t)c->heads + (uint64_t)head) * 65536u;
        bool kept = !dropout || random_uniform(dropout->seed, dropout->stream,
                                               index + (uint64_t)j) >= dropout->p;
        double weight = kept ? p[j] / sum / (dropout ? 1 - (double)dropout->p : 1) : 0;
        for (int d = 0; d < c->width; d++)
            out[d] += weight * matrix_get(&c->v, keys[j], head * c->width + d);
    }
    free(p);
    return largest + log(sum);
}

/* Every row of the spans; rows of no span must not have been written. Only every `step`-th row of a
 * span is checked. */
static void case_check(const Case *c, const AttentionSpan *spans, int count, const Dropout *dropout,
                       int step, const char *what) {
    int64_t rows = c->q.t.shape[0];
    double *want = malloc((size_t)c->width * sizeof *want);
    bool *seen = calloc((size_t)rows, sizeof *seen);
    double difference = 0, norm = 0, lse_error = 0;
    for (int s = 0; s < count; s++)
        for (int row = spans[s].q_begin; row < spans[s].q_end; row++) {
            seen[row] = true;
            if ((row - spans[s].q_begin) % step && row + 1 < spans[s].q_end) continue;
            for (int h = 0; h < c->heads; h++) {
                double lse = oracle_row(c, &spans[s], row, h, dropout, want);
                lse_error =
                    fmax(lse_error, fabs(matrix_get(&c->lse, row, h) - lse) / fmax(1, fabs(lse)));
                assert_true(isfinite(matrix_get(&c->lse, row, h)));
                for (int d = 0; d < c->width; d++) {
                    double got = matrix_get(&c->out, row, h * c->width + d);
                    if (!isfinite(got)) fail_msg("%s: %g in row %d", what, got, row);
                    difference += (got - want[d]) * (got - want[d]);
                    norm += want[d] * want[d];
                }
            }
        }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t d = 0; !seen[row] && d < c->out.t.shape[1]; d++)
            assert_true(isnan(matrix_get(&c->out, row, d)));
    double e = norm > 0 ? sqrt(difference / norm) : difference;
    /* A GPU's tensor cores truncate sums where the CPU rounds them. */
    double lse_limit = test_on_gpu() && c->out.t.dtype == DTYPE_BF16 ? 1e-5 : 2e-6;
    if (!(e <= dtype_limit(c->out.t.dtype)) || !(lse_error <= lse_limit))
        fail_msg("%s, %d heads of %d: relative error %g, of the log-sum-exp %g", what, c->heads,
                 c->width, e, lse_error);
    free(want);
    free(seen);
}

static void test_sizes(void **state) {
    Device *device = isa_device(state);
    static const struct {
        int rows, keys, heads, width, step;
    } sizes[] = {
        {1, 1, 1, 1, 1},     {1, 1, 2, 5, 1},     {2, 3, 3, 8, 1},      {3, 2, 1, 16, 1},
        {7, 7, 2, 64, 1},    {17, 17, 2, 80, 1},  {65, 65, 2, 88, 3},   {6, 100, 2, 128, 1},
        {100, 100, 3, 5, 3}, {13, 300, 2, 64, 1}, {300, 300, 1, 64, 7}, {513, 513, 2, 64, 29},
        {4, 300, 12, 64, 1}, {5, 31, 2, 17, 1},   {257, 33, 1, 130, 9},
    };
    TestRandom random = {11};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int type = 0; type < 2; type++) {
            Case c = case_new(&random, type ? DTYPE_BF16 : DTYPE_F32, sizes[i].rows, sizes[i].keys,
                              sizes[i].heads, sizes[i].width, i % 2 ? 7 : 0);
            AttentionSpan span = span_of(0, sizes[i].rows, 0, sizes[i].keys);
            case_run(device, &c, &span, 1, NULL);
            case_check(&c, &span, 1, NULL, sizes[i].step, "sizes");
            case_free(&c);
        }
}

/* Kinds of heads. In bf16, aligned heads of a multiple of 8 have separate kernels on a GPU, by
 * width; all others share one. */
static const struct Kind {
    Dtype dtype;
    int width, gap;
} kinds[] = {
    {DTYPE_F32, 24, 5},  {DTYPE_F32, 72, 0},  {DTYPE_BF16, 24, 5},  {DTYPE_BF16, 24, 8},
    {DTYPE_BF16, 64, 8}, {DTYPE_BF16, 80, 0}, {DTYPE_BF16, 128, 8},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* For a GPU's kernels: rows to a block, keys to a tile and heads of all widths and one more or
 * less, one of each, more tiles of keys than a block has warps, and enough to fill all
 * multiprocessors. */
static void test_tiles(void **state) {
    Device *device = isa_device(state);
    static const struct {
        int rows, keys, heads, width, step;
    } sizes[] = {
        {1, 1, 1, 64, 1},    {1, 1, 12, 32, 1},    {1, 300, 3, 64, 1},   {9, 271, 2, 64, 1},
        {16, 64, 1, 32, 1},  {17, 65, 1, 128, 1},  {33, 63, 2, 80, 1},   {64, 64, 1, 96, 3},
        {5, 600, 1, 64, 1},  {15, 520, 2, 128, 3}, {70, 130, 1, 40, 3},  {63, 127, 2, 88, 5},
        {65, 129, 1, 8, 3},  {300, 129, 3, 64, 7}, {129, 191, 5, 64, 7}, {3, 66, 4, 16, 1},
        {40, 65, 12, 32, 3}, {19, 257, 1, 80, 1},
    };
    TestRandom random = {21};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        Case c = case_new(&random, DTYPE_BF16, sizes[i].rows, sizes[i].keys, sizes[i].heads,
                          sizes[i].width, i % 2 ? 8 : 0);
        AttentionSpan span = span_of(0, sizes[i].rows, 0, sizes[i].keys);
        case_run(device, &c, &span, 1, NULL);
        case_check(&c, &span, 1, NULL, sizes[i].step, "tiles");
        case_free(&c);
    }
}

/* An image of 40 rows, a prompt of 9 and two answers that attend to image, prompt and themselves; a
 * second sequence; a span without queries; ranges without rows; rows of no span. */
static const AttentionSpan layout[] = {
    {0, 40, 1, {{0, 40}}},
    {40, 49, 2, {{0, 40}, {40, 49}}},
    {49, 52, 3, {{0, 40}, {40, 49}, {49, 52}}},
    {52, 57, 4, {{0, 40}, {5, 5}, {40, 49}, {52, 57}}},
    {57, 57, 1, {{0, 1}}},
    {60, 83, 4, {{70, 83}, {60, 70}, {60, 60}, {60, 61}}},
};
enum { LAYOUT_SPANS = sizeof layout / sizeof *layout, LAYOUT_ROWS = 90 };

static void test_spans(void **state) {
    Device *device = isa_device(state);
    TestRandom random = {12};
    for (int i = 0; i < KINDS; i++) {
        Case c = case_new(&random, kinds[i].dtype, LAYOUT_ROWS, LAYOUT_ROWS, 3, kinds[i].width,
                          kinds[i].gap);
        case_run(device, &c, layout, LAYOUT_SPANS, NULL);
        case_check(&c, layout, LAYOUT_SPANS, NULL, 1, "spans");
        case_free(&c);
    }
}

/* Ranges of many rows with borders anywhere in tiles of keys, and consecutive calls with almost
 * equal spans: a device may cache the plan of the last ones. */
static void test_ranges(void **state) {
    Device *device = isa_device(state);
    enum { ROWS = 290 };
    static const AttentionSpan spans[][2] = {
        {{0, 70, 4, {{100, 163}, {3, 68}, {63, 64}, {200, 290}}}, {70, 80, 1, {{0, 64}}}},
        {{0, 70, 4, {{100, 163}, {3, 68}, {63, 64}, {200, 289}}}, {70, 80, 1, {{0, 64}}}},
        {{0, 70, 3, {{100, 163}, {3, 68}, {63, 64}, {200, 290}}}, {70, 80, 1, {{0, 64}}}},
        {{0, 69, 4, {{100, 163}, {3, 68}, {63, 64}, {200, 290}}}, {70, 80, 1, {{0, 64}}}},
    };
    TestRandom random = {22};
    for (int i = 0; i < KINDS; i += 2)
        for (int turn = 0; turn < 5; turn++) {
            Case c = case_new(&random, kinds[i].dtype, ROWS, ROWS, 2, kinds[i].width, kinds[i].gap);
            case_run(device, &c, spans[turn % 4], 1 + (turn != 1), NULL);
            case_check(&c, spans[turn % 4], 1 + (turn != 1), NULL, 7, "ranges");
            case_free(&c);
        }
}

/* q, k and v as column slices of one matrix, out in place of q. */
static void slices(Device *device, Dtype dtype, int rows, int heads, int width, int gap) {
    const int d = heads * width;
    TestRandom random = {13};
    Case c = case_new(&random, dtype, rows, rows, heads, width, 0);
    TestMatrix all = matrix_random(&random, dtype, rows, 3 * d, gap, 1, 0);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < d; i++) {
            matrix_set(&all, r, i, matrix_get(&c.q, r, i));
            matrix_set(&all, r, d + i, matrix_get(&c.k, r, i));
            matrix_set(&all, r, 2 * d + i, matrix_get(&c.v, r, i));
        }
    AttentionSpan span = span_of(0, rows, 0, rows);
    case_run(device, &c, &span, 1, NULL);
    Error err;
    Tensor q = tensor_columns(all.t, 0, d);
    assert_ok(attention_forward(device, q, TENSOR_NONE, q, tensor_columns(all.t, d, d),
                                tensor_columns(all.t, 2 * d, d), heads, (float)c.scale, &span, 1,
                                NULL, &err),
              &err);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < d; i++) assert_true(matrix_get(&all, r, i) == matrix_get(&c.out, r, i));
    matrix_free(&all);
    case_free(&c);
}

static void test_slices(void **state) {
    Device *device = isa_device(state);
    slices(device, DTYPE_F32, 37, 2, 20, 4);
    slices(device, DTYPE_F32, 37, 2, 150, 0);
    slices(device, DTYPE_BF16, 37, 2, 40, 8);
    slices(device, DTYPE_BF16, 16, 2, 64, 8);
    slices(device, DTYPE_BF16, 130, 5, 64, 0);
}

/* The same bits with any other rows, in any pieces, on any number of threads. */
static void independence(Device *device, Device *single, const struct Kind *kind) {
    enum { ROWS = 257 };
    TestRandom random = {14};
    Case c = case_new(&random, kind->dtype, ROWS, ROWS, 2, kind->width, kind->gap);
    AttentionSpan whole = span_of(0, ROWS, 20, 231), pieces[ROWS];
    case_run(device, &c, &whole, 1, NULL);
    for (int pass = 0; pass < 4; pass++) {
        Case again = c;
        again.out = matrix_new(c.out.t.dtype, ROWS, c.out.t.shape[1], 3);
        again.lse = matrix_new(DTYPE_F32, ROWS, c.heads, 0);
        if (kind->gap == 8) { /* as aligned as the first */
            matrix_free(&again.out);
            again.out = matrix_new(c.out.t.dtype, ROWS, c.out.t.shape[1], 0);
        }
        int count = 0;
        for (int row = 0; row < ROWS;) {
            int length = pass == 0 ? ROWS : pass == 1 ? 1 + row % 11 : pass == 2 ? 1 : 60;
            if (length > ROWS - row) length = ROWS - row;
            pieces[count++] = span_of(row, row + length, 20, 231);
            row += length;
        }
        case_run(pass == 0 ? single : device, &again, pieces, count, NULL);
        /* A few rows alone, a call for each piece. */
        for (int i = 0; pass == 1 && i < 5; i++) case_run(device, &again, pieces + 7 * i, 1, NULL);
        for (int row = 0; row < ROWS; row++) {
            assert_true(matrix_same_row(&again.out, row, &c.out, row));
            assert_true(matrix_same_row(&again.lse, row, &c.lse, row));
        }
        matrix_free(&again.out), matrix_free(&again.lse);
    }
    case_free(&c);
}

static void test_independence(void **state) {
    Device *device = isa_device(state), *single;
    static const struct Kind some[] = {
        {DTYPE_F32, 40, 3}, {DTYPE_BF16, 40, 3}, {DTYPE_BF16, 40, 8}, {DTYPE_BF16, 128, 8}};
    Error err;
    DeviceOptions options = {.kind = DEVICE_CPU, .threads = 1, .isa = isa_name(device)};
    assert_ok(test_device_open(&single, &options, &err), &err);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) independence(device, single, &some[i]);
    device_close(single);
}

/* With the identity matrix as values the output is the softmax itself. */
static Case case_of_softmax(TestRandom *random, Dtype dtype, int rows, int keys, int heads) {
    Case c = case_new(random, dtype, rows, keys, heads, keys, 0);
    c.scale *= 0.3;
    for (int j = 0; j < keys; j++)
        for (int d = 0; d < heads * keys; d++) matrix_set(&c.v, j, d, d % keys == j);
    return c;
}

static void dropouts(Device *device, Dtype dtype, int rows, int keys, int heads) {
    TestRandom random = {15};
    Case c = case_of_softmax(&random, dtype, rows, keys, heads);
    AttentionSpan spans[] = {span_of(0, 23, 0, keys), span_of(23, rows, 0, keys)};
    /* The last p equals the smallest number that is drawn, which a float can hold: kept. */
    float ps[] = {0.1f, 0.5f, 0.9f, 1e-9f, 0, 1};
    const size_t count = sizeof ps / sizeof *ps;
    for (int i = 0; i < rows * heads * keys; i++) {
        uint64_t index = (uint64_t)(i / keys) * 65536u + (uint64_t)(i % keys);
        ps[count - 1] = fminf(ps[count - 1], (float)random_uniform(77, count - 1, index));
    }
    for (size_t i = 0; i < count; i++) {
        Dropout dropout = {ps[i], 77, i};
        case_run(device, &c, spans, 2, &dropout);
        case_check(&c, spans, 2, &dropout, 1, "dropout");
        int kept = 0, n = rows * heads * keys;
        for (int r = 0; r < rows; r++)
            for (int d = 0; d < heads * keys; d++) {
                uint64_t index = (uint64_t)(r * heads + d / keys) * 65536u + (uint64_t)(d % keys);
                bool keep = random_uniform(77, dropout.stream, index) >= ps[i];
                assert_true((matrix_get(&c.out, r, d) != 0) == keep);
                kept += keep;
            }
        double p = ps[i], deviation = sqrt(n * p * (1 - p));
        assert_true(fabs(kept - n * (1 - p)) <= 4 * deviation);
    }
    case_free(&c);
}

static void test_dropout(void **state) {
    Device *device = isa_device(state);
    dropouts(device, DTYPE_F32, 60, 75, 3);
    dropouts(device, DTYPE_BF16, 60, 75, 1);
    dropouts(device, DTYPE_BF16, 40, 32, 2);
    dropouts(device, DTYPE_BF16, 40, 64, 1);
    dropouts(device, DTYPE_BF16, 39, 80, 1);
    dropouts(device, DTYPE_BF16, 39, 128, 2);
}

/* Places are counted over a span's ranges. */
static void test_dropout_spans(void **state) {
    Device *device = isa_device(state);
    const Dropout dropout = {0.3f, 78, 1};
    TestRandom random = {20};
    for (int i = 0; i < KINDS; i++) {
        Case c = case_new(&random, kinds[i].dtype, LAYOUT_ROWS, LAYOUT_ROWS, 3, kinds[i].width,
                          kinds[i].gap);
        case_run(device, &c, layout, LAYOUT_SPANS, &dropout);
        case_check(&c, layout, LAYOUT_SPANS, &dropout, 1, "dropout over spans");
        case_free(&c);
    }
}

/* Two keys with the scores 0 and x: the second has e^x / (1 + e^x). */
static void test_exp(void **state) {
    Device *device = isa_device(state);
    enum { ROWS = 4000 };
    TestRandom random = {16};
    Case c = case_new(&random, DTYPE_F32, ROWS, 2, 1, 1, 0);
    c.scale = 1;
    matrix_set(&c.k, 0, 0, 0), matrix_set(&c.k, 1, 0, 1);
    matrix_set(&c.v, 0, 0, 0), matrix_set(&c.v, 1, 0, 1);
    for (int r = 0; r < ROWS; r++) matrix_set(&c.q, r, 0, -87.3 * r / (ROWS - 1));
    AttentionSpan span = span_of(0, ROWS, 0, 2);
    case_run(device, &c, &span, 1, NULL);
    double worst = 0;
    for (int r = 0; r < ROWS; r++) {
        double e = exp(matrix_get(&c.q, r, 0));
        worst = fmax(worst, fabs(matrix_get(&c.out, r, 0) / (e / (1 + e)) - 1));
    }
    if (!(worst <= 3e-7)) fail_msg("exp: relative error %g", worst);
    case_free(&c);
}

static void large_scores(Device *device, Dtype dtype) {
    enum { ROWS = 19, KEYS = 45, WIDTH = 16 };
    TestRandom random = {17};
    Case c = case_new(&random, dtype, ROWS, KEYS, 1, WIDTH, 0);
    c.scale = 1;
    /* Row r scores 10000 * +-1 on all keys but one, which is 200 above the others. */
    for (int j = 0; j < KEYS; j++)
        for (int d = 0; d < WIDTH; d++) matrix_set(&c.k, j, d, d == 0 ? 100 : d == 1 ? j == 31 : 0);
    for (int r = 0; r < ROWS; r++)
        for (int d = 0; d < WIDTH; d++)
            matrix_set(&c.q, r, d, d == 0 ? (r % 2 ? -100 : 100) : d == 1 ? 200 : 0);
    AttentionSpan span = span_of(0, ROWS, 0, KEYS);
    case_run(device, &c, &span, 1, NULL);
    case_check(&c, &span, 1, NULL, 1, "large scores");
    for (int r = 0; r < ROWS; r++) {
        assert_true(matrix_get(&c.lse, r, 0) == (r % 2 ? -10000 : 10000) + 200);
        for (int d = 0; d < WIDTH; d++)
            assert_true(matrix_get(&c.out, r, d) == matrix_get(&c.v, 31, d));
    }
    case_free(&c);
}

static void test_large_scores(void **state) {
    large_scores(isa_device(state), DTYPE_F32);
    large_scores(isa_device(state), DTYPE_BF16);
}

/* A negative scale reverses the order of the scores, 0 makes all keys equal. */
static void test_scales(void **state) {
    Device *device = isa_device(state);
    static const double scales[] = {-0.2, 0, 1e-3, 2};
    TestRandom random = {23};
    for (int i = 0; i < KINDS; i++) {
        Case c = case_new(&random, kinds[i].dtype, 20, 70, 2, kinds[i].width, kinds[i].gap);
        AttentionSpan span = span_of(0, 20, 0, 70);
        c.scale = scales[i % 4];
        case_run(device, &c, &span, 1, NULL);
        case_check(&c, &span, 1, NULL, 1, "scales");
        case_free(&c);
    }
}

/* A NaN reaches everything that depends on it and nothing else. */
static void nans(Device *device, const struct Kind *kind, int where) {
    const int width = kind->width, d = 2 * width;
    TestRandom random = {18};
    Case clean = case_new(&random, kind->dtype, LAYOUT_ROWS, LAYOUT_ROWS, 2, width, kind->gap);
    case_run(device, &clean, layout, LAYOUT_SPANS, NULL);
    random.state = 18;
    Case c = case_new(&random, kind->dtype, LAYOUT_ROWS, LAYOUT_ROWS, 2, width, kind->gap);
    /* Row 50 is a query and a key of the third span only; the column is head 1's. */
    matrix_set(where == 0 ? &c.q : where == 1 ? &c.k : &c.v, 50, width + 6, NAN);
    case_run(device, &c, layout, LAYOUT_SPANS, NULL);
    for (int r = 0; r < 57; r++)
        for (int i = 0; i < d; i++) {
            bool row = where == 0 ? r == 50 : r >= 49 && r < 52;
            bool column = where == 2 ? i == width + 6 : i >= width;
            double got = matrix_get(&c.out, r, i), was = matrix_get(&clean.out, r, i);
            assert_true(row && column ? isnan(got) : got == was);
            if (where < 2) assert_true(isnan(matrix_get(&c.lse, r, 1)) == row);
        }
    case_free(&c);
    case_free(&clean);
}

static void test_nan(void **state) {
    Device *device = isa_device(state);
    for (int i = 0; i < KINDS; i++)
        for (int where = 0; where < 3; where++) nans(device, &kinds[i], where);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints the speed, to measure changes; asserts nothing. */
static void test_speed(void **state) {
    Device *device = isa_device(state);
    if (test_on_gpu())
        return; /* emulated, or with all data copied to and from the GPU: not a GPU's
                                  time */
    enum { ROWS = 300, HEADS = 12, WIDTH = 64 };
    TestRandom random = {19};
    Case c = case_new(&random, DTYPE_F32, ROWS, ROWS, HEADS, WIDTH, 0);
    AttentionSpan span = span_of(0, ROWS, 0, ROWS);
    double start = seconds_now(), now = start, best = INFINITY;
    while (now - start < 0.05) {
        double before = now;
        case_run(device, &c, &span, 1, NULL);
        now = seconds_now();
        best = fmin(best, now - before);
    }
    printf("note: attention, 300 rows, 12 heads of 64, %s: %.0f GFLOP/s\n", device_text(device),
           4.0 * ROWS * ROWS * HEADS * WIDTH / best * 1e-9);
    case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_ISA(test_sizes),         ON_EACH_ISA(test_tiles),  ON_EACH_ISA(test_spans),
        ON_EACH_ISA(test_ranges),        ON_EACH_ISA(test_slices), ON_EACH_ISA(test_dropout),
        ON_EACH_ISA(test_dropout_spans), ON_EACH_ISA(test_scales), ON_EACH_ISA(test_independence),
        ON_EACH_ISA(test_exp),           ON_EACH_ISA(test_nan),    ON_EACH_ISA(test_large_scores),
        ON_EACH_ISA(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
