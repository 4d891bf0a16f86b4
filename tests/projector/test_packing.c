/* Packed batches: what every row with a loss can see is just the sequence of its turn and copy. */
#include <math.h>

#include "kernels/random.h"
#include "projector/packing.h"
#include "tests/golden_models.h"

enum { SIDE = 3, PIXELS = 3 * SIDE * SIDE, MASK = 999, TURNS = 4, ITEMS = 6, MOST = 64 };

/* Units of random tokens. Answers may have MASK among their words' ids only where it is masked. */
typedef struct Units {
    Example examples[ITEMS];
    ExampleTurn turns[ITEMS][TURNS];
    int32_t ids[ITEMS][TURNS][2][16];
    float pixels[ITEMS][PIXELS];
    PackingItem items[ITEMS];
    int count, sequences;
} Units;

static void units_random(Units *u, int count, int words, int image_rows, TestRandom *random) {
    *u = (Units){.count = count};
    for (int i = 0; i < count; i++) {
        Example *e = &u->examples[i];
        *e = (Example){.image = test_random_next(random) % 3 != 0,
                       .turns = u->turns[i],
                       .count = 1 + (int)(test_random_next(random) % TURNS)};
        e->tokens = 1 + (e->image ? image_rows : 0);
        for (int k = 0; k < e->count; k++) {
            ExampleTurn *t = &u->turns[i][k];
            t->prompt = u->ids[i][k][0], t->answer = u->ids[i][k][1];
            t->prompt_count = (int)(test_random_next(random) % 7);
            t->answer_count = 1 + (int)(test_random_next(random) % 8);
            for (int j = 0; j < 16; j++)
                for (int part = 0; part < 2; part++)
                    u->ids[i][k][part][j] =
                        4 + (int32_t)(test_random_next(random) % (unsigned)words);
            u->ids[i][k][1][t->answer_count - 1] = TOKEN_EOS;
            e->tokens += t->prompt_count + t->answer_count;
        }
        for (int j = 0; j < PIXELS; j++) u->pixels[i][j] = test_random_normal(random);
        u->items[i] = (PackingItem){.example = e,
                                    .pixels = e->image ? u->pixels[i] : NULL,
                                    .stream = test_random_next(random)};
        u->sequences += e->count;
    }
}

static PackingConfig config_of(AttentionPattern pattern) {
    return (PackingConfig){.pattern = pattern,
                           .image_rows = 5,
                           .image_size = SIDE,
                           .mask_id = MASK,
                           .noise = noise_config_default(),
                           .seed = 17};
}

static TrainBatch build(const PackingConfig *c, const Units *u, double sequences) {
    Error err;
    TrainBatch b;
    assert_ok(packing_build(&b, c, u->items, u->count, sequences, &err), &err);
    return b;
}

/* ---- By hand. ---- */

static void assert_i32(const int32_t *got, const int32_t *want, int n) {
    for (int i = 0; i < n; i++)
        if (got[i] != want[i]) fail_msg("value %d is %d, expected %d", i, got[i], want[i]);
}

static void assert_spans(const TrainBatch *b, const int32_t (*want)[8], int n) {
    assert_int_equal(b->span_count, n);
    for (int i = 0; i < n; i++) {
        const AttentionSpan *s = &b->spans[i];
        int32_t got[8] = {s->q_begin, s->q_end};
        for (int r = 0; r < s->range_count; r++)
            got[2 + 2 * r] = s->range[r].begin, got[3 + 2 * r] = s->range[r].end;
        assert_i32(got, want[i], 8);
    }
}

/* An image of two rows with two questions, all masked (of one timestep), and a pair without. */
static void small_example(PackingConfig *c, Units *u) {
    *u = (Units){.count = 2, .sequences = 3};
    c->image_rows = 2;
    c->noise.timesteps = 1;
    static const int32_t a[] = {10, 11}, b[] = {20, 2}, d[] = {21, 22, 2}, e[] = {12},
                         f[] = {23, 2};
    u->turns[0][0] = (ExampleTurn){a, b, 2, 2};
    u->turns[0][1] = (ExampleTurn){NULL, d, 0, 3};
    u->turns[1][0] = (ExampleTurn){e, f, 1, 2};
    u->examples[0] = (Example){true, -1, u->turns[0], 2, 10};
    u->examples[1] = (Example){false, 0, u->turns[1], 1, 4};
    for (int i = 0; i < PIXELS; i++) u->pixels[0][i] = (float)i;
    u->items[0] = (PackingItem){&u->examples[0], u->pixels[0], 1};
    u->items[1] = (PackingItem){&u->examples[1], NULL, 2};
}

static void blocks_by_hand(void **state) {
    (void)state;
    PackingConfig c = config_of(ATTENTION_BLOCK_CAUSAL);
    static Units u;
    small_example(&c, &u);
    TrainBatch b = build(&c, &u, 3);
    static const int32_t ids[] = {0,    -1,   -1,   10,   11, MASK, MASK, MASK, MASK, MASK, MASK,
                                  MASK, MASK, MASK, MASK, 0,  12,   MASK, MASK, MASK, MASK};
    static const int32_t positions[] = {2, 3, 4, 5, 6, 7, 8, 7, 8, 5, 6,
                                        7, 5, 6, 7, 2, 3, 4, 5, 4, 5};
    static const int32_t spans[][8] = {{0, 3, 0, 3},
                                       {3, 5, 0, 3, 3, 5},
                                       {5, 7, 0, 3, 3, 5, 5, 7},
                                       {7, 9, 0, 3, 3, 5, 7, 9},
                                       {9, 12, 0, 3, 9, 12},
                                       {12, 15, 0, 3, 12, 15},
                                       {15, 16, 15, 16},
                                       {16, 17, 15, 16, 16, 17},
                                       {17, 19, 15, 16, 16, 17, 17, 19},
                                       {19, 21, 15, 16, 16, 17, 19, 21}};
    static const int32_t rows[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 20};
    static const int32_t targets[] = {20, 2, 20, 2, 21, 22, 2, 21, 22, 2, 23, 2, 23, 2};
    assert_int_equal(b.tokens, 21);
    assert_i32(b.ids, ids, 21);
    assert_i32(b.positions, positions, 21);
    for (int i = 0; i < 21; i++) assert_int_equal(b.image_rows[i], i == 1 ? 0 : i == 2 ? 1 : -1);
    assert_spans(&b, spans, 10);
    assert_int_equal(b.targets, 14);
    assert_i32(b.rows, rows, 14);
    assert_i32(b.target_ids, targets, 14);
    for (int i = 0; i < 14; i++) /* T = 1: the noise weight is 1 */
        assert_true(b.weights[i] == (float)(1. / ((i >= 4 && i < 10 ? 3 : 2) * 2 * 3)));
    assert_null(b.smoothing_weights);
    assert_int_equal(b.images, 1);
    assert_memory_equal(b.pixels, u.pixels[0], sizeof u.pixels[0]);
    assert_int_equal(packing_rows(&c, &u.examples[0]) + packing_rows(&c, &u.examples[1]), 21);
    assert_int_equal(packing_targets(&c, &u.examples[0]), 10);
    train_batch_free(&b);
    assert_null(b.ids);
}

/* Answers that count from a fixed place: nothing but their positions is different. */
static void fixed_answers_by_hand(void **state) {
    (void)state;
    static const int32_t blocks[] = {2,  3,  4,  5,  6, 11, 12, 11, 12, 11, 12,
                                     13, 11, 12, 13, 2, 3,  11, 12, 11, 12};
    static const int32_t full[] = {2, 3, 4,  5,  6, 11, 12, 2,  3,  4,
                                   5, 6, 11, 12, 2, 3,  4,  11, 12, 13};
    for (int pattern = 0; pattern < 2; pattern++) {
        PackingConfig c = config_of(pattern ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
        static Units u;
        small_example(&c, &u);
        TrainBatch before = build(&c, &u, 3);
        c.answer_position = 9;
        TrainBatch b = build(&c, &u, 3);
        assert_i32(b.positions, pattern ? blocks : full, pattern ? 21 : 20);
        assert_int_equal(b.tokens, before.tokens);
        assert_i32(b.ids, before.ids, b.tokens);
        assert_i32(b.rows, before.rows, b.targets);
        assert_memory_equal(b.spans, before.spans, (size_t)b.span_count * sizeof *b.spans);
        train_batch_free(&b), train_batch_free(&before);
    }
}

static void full_by_hand(void **state) {
    (void)state;
    PackingConfig c = config_of(ATTENTION_FULL);
    static Units u;
    small_example(&c, &u);
    TrainBatch b = build(&c, &u, 3);
    static const int32_t first[] = {0,  -1, -1,   10,   11, MASK, MASK, 0,    -1,   -1,
                                    10, 11, MASK, MASK, 0,  -1,   -1,   MASK, MASK, MASK};
    static const int32_t positions[] = {2, 3, 4, 5, 6, 7, 8, 2, 3, 4, 5, 6, 7, 8, 2, 3, 4, 5, 6, 7};
    static const int32_t spans[][8] = {{0, 7, 0, 7},     {7, 14, 7, 14},   {14, 20, 14, 20},
                                       {20, 26, 20, 26}, {26, 30, 26, 30}, {30, 34, 30, 34}};
    assert_int_equal(b.tokens, 34);
    assert_i32(b.ids, first, 20);
    assert_i32(b.positions, positions, 20);
    assert_spans(&b, spans, 6);
    /* One image, whose rows are read four times. */
    assert_int_equal(b.images, 1);
    for (int i = 0; i < 34; i++) assert_true((b.image_rows[i] >= 0) == (b.ids[i] == -1));
    assert_true(b.image_rows[22] == 1 && b.image_rows[21] == 0);
    assert_int_equal(packing_rows(&c, &u.examples[0]) + packing_rows(&c, &u.examples[1]), 34);
    train_batch_free(&b);
}

static void lengths_by_hand(void **state) {
    (void)state;
    static Units u;
    for (int blocks = 0; blocks < 2; blocks++) {
        PackingConfig c = config_of(blocks ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
        small_example(&c, &u);
        c.lengths = true, c.classes = 2;
        c.noise.label_smoothing = 0.1f; /* has no part in it */
        TrainBatch b = build(&c, &u, 3);
        static const int32_t ids[] = {0, -1, -1, 10, 11, 0, -1, -1, 0, 12};
        static const int32_t positions[] = {2, 3, 4, 5, 6, 2, 3, 4, 2, 3};
        static const int32_t full[][8] = {{0, 5, 0, 5}, {5, 8, 5, 8}, {8, 10, 8, 10}};
        static const int32_t block[][8] = {
            {0, 3, 0, 3}, {3, 5, 0, 5}, {5, 8, 5, 8}, {8, 9, 8, 9}, {9, 10, 8, 10}};
        assert_int_equal(b.tokens, 10);
        assert_i32(b.ids, ids, 10);
        assert_i32(b.positions, positions, 10);
        assert_spans(&b, blocks ? block : full, blocks ? 5 : 3);
        assert_int_equal(b.prompts, 3);
        assert_i32(b.prompt_begin, (int32_t[]){0, 5, 8, 10}, 4);
        assert_i32(b.classes, (int32_t[]){0, 1, 0}, 3);
        assert_true(b.prompt_weight == (float)(1. / 3));
        assert_int_equal(b.targets, 0);
        assert_true(b.smoothing == 0 && !b.smoothing_weights);
        assert_int_equal(packing_targets(&c, &u.examples[0]), 0);
        assert_int_equal(packing_rows(&c, &u.examples[0]) + packing_rows(&c, &u.examples[1]), 10);
        train_batch_free(&b);
    }
    /* An answer of </s> alone is the shortest class, one beyond the last class is the last. */
    PackingConfig c = config_of(ATTENTION_FULL);
    small_example(&c, &u);
    c.lengths = true, c.classes = 1;
    u.turns[1][0].answer++, u.turns[1][0].answer_count = 1;
    TrainBatch b = build(&c, &u, 3);
    assert_i32(b.classes, (int32_t[]){0, 0, 0}, 3);
    train_batch_free(&b);
}

/* ---- By brute force. ---- */

typedef struct Token {
    int32_t id, image_row, position;
} Token;

/* The sequence of one turn and copy, alone: tokens, and for each the end of its block. */
typedef struct Sequence {
    Token tokens[MOST];
    int ends[MOST];
    int count, answer; /* tokens; where the answer begins */
} Sequence;

static Sequence sequence_of(const PackingConfig *c, const Example *e, int turn, const bool *masked,
                            int image) {
    Sequence s = {0};
    const ExampleTurn *t = &e->turns[turn];
    s.tokens[s.count++] = (Token){TOKEN_BOS, -1, 0};
    for (int i = 0; e->image && i < c->image_rows; i++)
        s.tokens[s.count++] = (Token){-1, image * c->image_rows + i, 0};
    int head = s.count;
    for (int i = 0; i < t->prompt_count; i++) s.tokens[s.count++] = (Token){t->prompt[i], -1, 0};
    s.answer = s.count;
    for (int i = 0; masked && i < t->answer_count; i++)
        s.tokens[s.count++] = (Token){masked[i] ? c->mask_id : t->answer[i], -1, 0};
    for (int i = 0; i < s.count; i++) {
        s.tokens[i].position = 2 + i;
        s.ends[i] = c->pattern == ATTENTION_FULL ? s.count
                    : i < head                   ? head
                    : i < s.answer               ? s.answer
                                                 : s.count;
    }
    return s;
}

/* The rows that a row sees, in order; the row must be in one span and no more. */
static int seen_rows(const TrainBatch *b, int row, int *rows) {
    int n = 0, spans = 0;
    for (int i = 0; i < b->span_count; i++) {
        const AttentionSpan *s = &b->spans[i];
        if (row < s->q_begin || row >= s->q_end) continue;
        spans++;
        for (int r = 0; r < s->range_count; r++)
            for (int k = s->range[r].begin; k < s->range[r].end; k++) {
                assert_true(n < MOST);
                rows[n++] = k;
            }
    }
    assert_int_equal(spans, 1);
    return n;
}

/* What row `row` sees, and what that sees in turn, is the sequence with the row at place `at`. */
static void check_row(const TrainBatch *b, int row, const Sequence *s, int at, char *reached) {
    int rows[MOST], below[MOST], n = seen_rows(b, row, rows);
    assert_int_equal(n, s->ends[at]);
    assert_int_equal(rows[at], row);
    for (int j = 0; j < n; j++) {
        int k = rows[j];
        assert_int_equal(b->ids[k], s->tokens[j].id);
        assert_int_equal(b->image_rows ? b->image_rows[k] : -1, s->tokens[j].image_row);
        assert_int_equal(b->positions[k], s->tokens[j].position);
        assert_int_equal(seen_rows(b, k, below), s->ends[j]);
        assert_memory_equal(below, rows, (size_t)s->ends[j] * sizeof *rows);
        reached[k] = 1;
    }
}

/* All of a batch against the turns one by one; returns how many copies had no masked token. */
static int check_batch(const TrainBatch *b, const PackingConfig *c, const Units *u,
                       double sequences) {
    int copies = noise_copies(&c->noise), target = 0, dropped = 0, image = 0;
    double weights = 0;
    char *reached = calloc((size_t)b->tokens + 1, 1);
    for (int i = 0; i < u->count; i++) {
        const Example *e = &u->examples[i];
        int before = target;
        for (int k = 0; k < e->count; k++) {
            bool masked[2 * 16];
            NoiseDraw draw;
            int n = e->turns[k].answer_count;
            noise_draw(&c->noise, c->seed, random_stream(u->items[i].stream, (uint64_t)k, 0, 0), n,
                       masked, &draw);
            for (int copy = 0; copy < copies; copy++) {
                Sequence s = sequence_of(c, e, k, masked + copy * n, image);
                int first = target;
                for (int t = 0; t < n; t++) {
                    if (!masked[copy * n + t]) continue;
                    assert_true(target < b->targets);
                    assert_int_equal(b->target_ids[target], e->turns[k].answer[t]);
                    double weight = draw.weight[copy] / (n * copies * sequences);
                    assert_true(fabs(b->weights[target] - weight) <= 1e-7 * weight);
                    if (b->smoothing_weights)
                        assert_true(b->smoothing_weights[target] ==
                                    (float)noise_smoothing(&c->noise, draw.weight[copy]));
                    check_row(b, b->rows[target++], &s, s.answer + t, reached);
                    weights += weight;
                }
                dropped += target == first;
            }
        }
        if (e->image && target > before) {
            assert_memory_equal(b->pixels + image * PIXELS, u->pixels[i], sizeof u->pixels[i]);
            image++;
        }
    }
    assert_int_equal(target, b->targets);
    assert_int_equal(image, b->images);
    assert_true((b->image_rows == NULL) == (image == 0));
    assert_true((b->smoothing_weights != NULL) == (c->noise.label_smoothing > 0));
    assert_true(b->smoothing == c->noise.label_smoothing);
    /* Nothing is packed without need. */
    for (int r = 0; r < b->tokens; r++)
        if (!reached[r]) fail_msg("row %d of %d serves no loss", r, b->tokens);
    free(reached);
    return dropped;
}

static void targets_see_their_sequence_alone(void **state) {
    (void)state;
    TestRandom random = {77};
    static Units u;
    int dropped = 0, empty = 0;
    for (int round = 0; round < 240; round++) {
        PackingConfig c = config_of(round % 2 ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
        c.image_rows = 1 + (int)(test_random_next(&random) % 8);
        c.seed = test_random_next(&random);
        units_random(&u, 1 + (int)(test_random_next(&random) % ITEMS), 900, c.image_rows, &random);
        if (round % 5 == 0)
            for (int i = 0; i < u.count; i++) u.examples[i].image = false, u.items[i].pixels = NULL;
        if (round % 3 == 0) c.noise.objective = OBJECTIVE_LLADA;
        c.noise.complementary = round % 6 == 0;
        c.noise.weighting = round % 7 == 0 ? WEIGHTING_CONSTANT : WEIGHTING_LINEAR;
        c.noise.label_smoothing = round % 4 == 0 ? 0.1f : 0;
        double sequences = u.sequences * (1 + round % 3);
        TrainBatch b = build(&c, &u, sequences);
        int rows = 0, targets = 0;
        for (int i = 0; i < u.count; i++) {
            rows += packing_rows(&c, &u.examples[i]);
            targets += packing_targets(&c, &u.examples[i]);
        }
        int without = check_batch(&b, &c, &u, sequences);
        assert_true(b.tokens <= rows && b.targets <= targets);
        if (!without) assert_int_equal(b.tokens, rows);
        if (c.noise.objective == OBJECTIVE_LLADA && c.noise.complementary)
            assert_int_equal(b.targets, targets);
        dropped += without, empty += b.tokens == 0;
        train_batch_free(&b);
    }
    assert_true(dropped > 100 && empty > 0);
}

/* The stage `length`: each prompt's rows are its sequence and no other's. */
static void prompts_are_sequences(void **state) {
    (void)state;
    TestRandom random = {78};
    static Units u;
    for (int round = 0; round < 60; round++) {
        PackingConfig c = config_of(round % 2 ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
        c.lengths = true, c.classes = 4;
        units_random(&u, 1 + round % ITEMS, 900, c.image_rows, &random);
        TrainBatch b = build(&c, &u, u.sequences);
        char *reached = calloc((size_t)b.tokens, 1);
        int prompt = 0, image = 0;
        for (int i = 0; i < u.count; i++) {
            for (int k = 0; k < u.examples[i].count; k++, prompt++) {
                Sequence s = sequence_of(&c, &u.examples[i], k, NULL, image);
                int begin = b.prompt_begin[prompt];
                assert_int_equal(b.prompt_begin[prompt + 1] - begin, s.count);
                for (int r = 0; r < s.count; r++) check_row(&b, begin + r, &s, r, reached);
                int class = u.turns[i][k].answer_count - 2;
                class = class < 0 ? 0 : class > 3 ? 3 : class;
                assert_int_equal(b.classes[prompt], class);
            }
            image += u.examples[i].image;
        }
        assert_int_equal(prompt, b.prompts);
        assert_int_equal(b.prompts, u.sequences);
        assert_int_equal(b.prompt_begin[prompt], b.tokens);
        assert_int_equal(b.images, image);
        free(reached);
        train_batch_free(&b);
    }
}

/* The same unit has the same noise in any batch, and another one under another seed. */
static void noise_is_the_units_own(void **state) {
    (void)state;
    TestRandom random = {79};
    static Units u;
    PackingConfig c = config_of(ATTENTION_BLOCK_CAUSAL);
    units_random(&u, ITEMS, 900, c.image_rows, &random);
    Units alone = u;
    alone.items[0] = u.items[ITEMS - 1];
    alone.count = 1;
    TrainBatch all = build(&c, &u, 5), one = build(&c, &alone, 5);
    assert_true(one.tokens > 0 && one.tokens < all.tokens);
    assert_i32(one.ids, all.ids + all.tokens - one.tokens, one.tokens);
    c.seed++;
    TrainBatch other = build(&c, &u, 5);
    assert_true(other.tokens != all.tokens ||
                memcmp(other.ids, all.ids, (size_t)all.tokens * sizeof *all.ids));
    train_batch_free(&all), train_batch_free(&one), train_batch_free(&other);
}

/* ---- In numbers. ---- */

/* Logits [count, V] of `rows` of a batch. */
static float *logits_of(Fixture *f, const XlmrBatch *batch, const int32_t *rows, int count) {
    const Xlmr *m = &f->model.xlmr;
    Error err;
    Arena arena;
    Tensor hidden, features, logits;
    assert_ok(arena_open(&arena, f->device,
                         xlmr_work_bytes(m, batch->tokens) + xlmr_head_bytes(m, count) +
                             arena_bytes(DTYPE_F32, count, m->config.vocab),
                         &err),
              &err);
    assert_ok(xlmr_forward(m, &arena, batch, &hidden, NULL, &err), &err);
    assert_ok(xlmr_head(m, &arena, hidden, rows, count, &features, &err), &err);
    assert_ok(arena_take(&arena, &logits, DTYPE_F32, count, m->config.vocab, &err), &err);
    assert_ok(vocab_logits(f->device, logits, features, m->vocab_w, m->vocab_b, &err), &err);
    float *host = malloc(tensor_bytes(logits));
    assert_ok(device_download(f->device, host, logits.data, tensor_bytes(logits), &err), &err);
    arena_close(&arena);
    return host;
}

/* The logits of one sequence alone, of its answer's rows. */
static float *logits_alone(Fixture *f, const Sequence *s, Tensor image_tokens) {
    int32_t ids[MOST], image_rows[MOST], positions[MOST], rows[MOST];
    AttentionSpan spans[3];
    int span_count = 0;
    for (int i = 0; i < s->count; i++) {
        ids[i] = s->tokens[i].id, image_rows[i] = s->tokens[i].image_row;
        positions[i] = s->tokens[i].position;
        if (i >= s->answer) rows[i - s->answer] = i;
        if (i == 0 || s->ends[i] != s->ends[i - 1])
            spans[span_count++] = (AttentionSpan){i, s->ends[i], 1, {{0, s->ends[i]}}};
    }
    XlmrBatch batch = {.tokens = s->count,
                       .ids = ids,
                       .image_rows = image_rows,
                       .positions = positions,
                       .image_tokens = image_tokens,
                       .plan = {.spans = spans, .span_count = span_count}};
    return logits_of(f, &batch, rows, s->count - s->answer);
}

/* Answering meets the same copy as a canvas, if its </s> is not masked: what it proposes there is
 * the best of the packed batch's logits, with the same log-probability. `logits` are those of the
 * copy's masked rows. */
static void check_answering(Fixture *f, const PackingConfig *c, const Example *e, int turn,
                            const Sequence *s, int image, Tensor image_tokens,
                            const float *logits) {
    const ExampleTurn *t = &e->turns[turn];
    const int vocab = f->model.xlmr.config.vocab, length = t->answer_count - 1;
    InfillPrompt prompt = {t->prompt, t->prompt_count, e->image ? image : -1};
    InfillConfig config = {.model = language_of_xlmr(&f->model.xlmr),
                           .device = f->device,
                           .pattern = c->pattern,
                           .mask_id = c->mask_id,
                           .vocab_limit = vocab,
                           .prompts = &prompt,
                           .prompt_count = 1,
                           .image_tokens = image_tokens,
                           .image_rows = c->image_rows};
    int32_t canvas[16];
    Proposal proposals[16];
    Infill *infill;
    Error err;
    for (int i = 0; i < length; i++) canvas[i] = s->tokens[s->answer + i].id;
    DecodeCanvas one = {.length = length, .tokens = canvas};
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, length, length + 1, &err), &err);
    assert_ok(infill_evaluate(infill, &one, 1, 0, 0, proposals, &err), &err);
    for (int i = 0; i < length; i++) {
        if (canvas[i] != c->mask_id) continue;
        double sum = 0;
        int best = 0; /* <s>, which is not <mask> */
        for (int v = 0; v < vocab; v++)
            if (v != c->mask_id && logits[v] > logits[best]) best = v;
        for (int v = 0; v < vocab; v++)
            if (v != c->mask_id) sum += exp((double)logits[v] - logits[best]);
        assert_int_equal(proposals[i].token, best);
        assert_true(fabs(proposals[i].score + log(sum)) <= 1e-5);
        logits += vocab;
    }
    infill_close(infill);
}

/* The largest error of the packed logits; *answered counts the copies that were also compared with
 * answering. */
static double check_numbers(Fixture *f, const PackingConfig *c, const Units *u, const TrainBatch *b,
                            Tensor image_tokens, int *answered) {
    size_t vocab = (size_t)f->model.xlmr.config.vocab;
    XlmrBatch batch = {.tokens = b->tokens,
                       .ids = b->ids,
                       .image_rows = b->image_rows,
                       .positions = b->positions,
                       .image_tokens = image_tokens,
                       .plan = {.spans = b->spans, .span_count = b->span_count}};
    float *packed = logits_of(f, &batch, b->rows, b->targets);
    double most = 0;
    int target = 0, image = 0, copies = noise_copies(&c->noise);
    for (int i = 0; i < u->count; i++) {
        const Example *e = &u->examples[i];
        int before = target;
        for (int k = 0; k < e->count; k++) {
            bool masked[2 * 16];
            NoiseDraw draw;
            int n = e->turns[k].answer_count;
            noise_draw(&c->noise, c->seed, random_stream(u->items[i].stream, (uint64_t)k, 0, 0), n,
                       masked, &draw);
            for (int copy = 0; copy < copies; copy++) {
                Sequence s = sequence_of(c, e, k, masked + copy * n, image);
                float *alone = logits_alone(f, &s, image_tokens);
                if (n > 1 && !masked[copy * n + n - 1]) {
                    check_answering(f, c, e, k, &s, image, image_tokens,
                                    packed + (size_t)target * vocab);
                    ++*answered;
                }
                for (int t = 0; t < n; t++) {
                    if (!masked[copy * n + t]) continue;
                    double error = relative_error(packed + (size_t)target++ * vocab,
                                                  alone + (size_t)t * vocab, vocab);
                    if (!(error <= most)) most = error;
                }
                free(alone);
            }
        }
        image += e->image && target > before;
    }
    assert_int_equal(target, b->targets);
    free(packed);
    return most;
}

static void logits_are_those_of_the_turns_alone(void **state) {
    (void)state;
    static Units u;
    for (int folder = 0; folder < 2; folder++) {
        Fixture f;
        fixture_open(&f, golden_folders[folder], "f32");
        Tensor image_tokens = golden_image_tokens(&f.golden);
        int rows = multimodal_image_rows(&f.model.parts);
        int images = (int)(image_tokens.shape[0] / rows);
        assert_true(images >= 2 && rows + 16 < MOST);
        for (int blocks = 0; blocks < 2; blocks++) {
            TestRandom random = {(uint64_t)(90 + 2 * folder + blocks)};
            PackingConfig c = config_of(blocks ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
            c.image_rows = rows;
            c.mask_id = tokenizer_mask_id(f.model.tokenizer);
            units_random(&u, 3, 500, rows, &random);
            for (int i = 0; i < 3; i++) { /* two images around a unit without */
                u.examples[i].image = i != 1;
                u.items[i].pixels = i != 1 ? u.pixels[i] : NULL;
            }
            TrainBatch b = build(&c, &u, 1);
            assert_int_equal(b.images, 2);
            int answered = 0;
            double error = check_numbers(&f, &c, &u, &b, image_tokens, &answered);
            assert_true(answered > 2);
            if (!(error <= 1e-6)) fail_msg("packed and alone differ by %g", error);
            printf("note: packed (%s, %s), %d rows, %d targets: logits as alone within %.1e\n",
                   blocks ? "blocks" : "full", folder ? "pre-LN" : "post-LN", b.tokens, b.targets,
                   error);
            train_batch_free(&b);
        }
        fixture_close(&f);
    }
}

static void refusals(void **state) {
    (void)state;
    Error err;
    TrainBatch b;
    static Units u;
    PackingConfig c = config_of(ATTENTION_FULL);
    small_example(&c, &u);
    assert_refused(packing_build(&b, &c, u.items, 2, 0, &err), &err, "0 sequences");
    assert_refused(packing_build(&b, &c, u.items, 2, NAN, &err), &err, "nan sequences");
    u.items[0].pixels = NULL;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "example 1", "missing");
    u.items[0].pixels = u.pixels[0], u.items[1].pixels = u.pixels[1];
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "example 2", "without");
    u.items[1].pixels = NULL;
    c.image_rows = 0;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "example 1", "0 rows");
    c.image_rows = 2, c.noise.timesteps = 0;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "0 timesteps");
    c.noise.timesteps = 5, c.noise.label_smoothing = NAN;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "smoothing of nan");
    c.noise.label_smoothing = 0, c.noise.objective = OBJECTIVE_LLADA, c.noise.eps = 1;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "eps is 1");
    c.noise.eps = 0.1f, c.lengths = true;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "0 classes");
    c.lengths = false, u.turns[0][1].answer_count = 0;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "turn 2 of example 1");
    c.image_rows = 1 << 30;
    u.turns[0][1].answer_count = 3;
    assert_refused(packing_build(&b, &c, u.items, 2, 3, &err), &err, "too large");
    assert_int_equal(packing_rows(&c, &u.examples[0]), 2147483647);
    assert_null(b.ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_by_hand),
        cmocka_unit_test(full_by_hand),
        cmocka_unit_test(fixed_answers_by_hand),
        cmocka_unit_test(lengths_by_hand),
        cmocka_unit_test(targets_see_their_sequence_alone),
        cmocka_unit_test(prompts_are_sequences),
        cmocka_unit_test(noise_is_the_units_own),
        cmocka_unit_test(logits_are_those_of_the_turns_alone),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
