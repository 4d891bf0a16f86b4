/* An Infill whose prompts come and go: each is evaluated as in an Infill of its own. */
#include <math.h>

#include "language/infill.h"
#include "language/row_pool.h"
#include "tests/golden_models.h"

enum { SLOTS = 5, LONGEST = 12 };

/* ---- Rows. ---- */

static void test_rows(void **state) {
    (void)state;
    enum { ROWS = 50, RANGES = 12 };
    RowPool pool;
    Error err;
    TestRandom random = {4};
    int owner[ROWS] = {0}, begins[64] = {0}, lengths[64] = {0}, refused = 0;
    assert_ok(row_pool_open(&pool, ROWS, RANGES, &err), &err);
    for (int i = 0; i < 4000; i++) {
        int at = (int)(test_random_next(&random) % 16);
        if (lengths[at]) {
            row_pool_give(&pool, begins[at]);
            for (int r = 0; r < lengths[at]; r++) owner[begins[at] + r] = 0;
            lengths[at] = 0;
            continue;
        }
        int rows = 1 + (int)(test_random_next(&random) % 9), begin = row_pool_take(&pool, rows);
        int free_rows = 0, lowest = -1, taken = 0; /* what the pool should have found */
        for (int k = 0; k < 16; k++) taken += lengths[k] > 0;
        for (int r = 0; r < ROWS && lowest < 0; r++) {
            free_rows = owner[r] ? 0 : free_rows + 1;
            if (free_rows == rows) lowest = r - rows + 1;
        }
        assert_int_equal(begin, taken == RANGES ? -1 : lowest);
        refused += begin < 0;
        if (begin < 0) continue;
        begins[at] = begin, lengths[at] = rows;
        for (int r = 0; r < rows; r++) owner[begin + r] = 1;
    }
    assert_true(refused > 10);
    assert_int_equal(row_pool_take(&pool, 0), 0);
    row_pool_close(&pool);
}

/* ---- Slots. ---- */

typedef struct Asked {
    int32_t ids[LONGEST], canvas[LONGEST];
    InfillPrompt prompt;
    int length; /* of its canvas */
    float temperature;
    uint64_t noise;
} Asked;

static void asked_make(Asked *a, const Fixture *f, TestRandom *random) {
    int vocabulary = tokenizer_size(f->model.tokenizer);
    int32_t mask = tokenizer_mask_id(f->model.tokenizer);
    int count = (int)(test_random_next(random) % (LONGEST + 1));
    a->length = 1 + (int)(test_random_next(random) % LONGEST);
    for (int i = 0; i < LONGEST; i++) {
        a->ids[i] = 5 + (int32_t)(test_random_next(random) % (uint64_t)(vocabulary - 5));
        a->canvas[i] = test_random_next(random) % 2 ? mask : a->ids[LONGEST - 1 - i];
    }
    a->prompt = (InfillPrompt){a->ids, count, (int)(test_random_next(random) % 3) - 1};
    a->temperature = test_random_next(random) % 2 ? 0.9f : 0;
    a->noise = test_random_next(random);
}

static DecodeCanvas asked_canvas(const Asked *a, int slot) {
    return (DecodeCanvas){
        .request = slot, .length = a->length, .tokens = a->canvas, .noise = a->noise};
}

static InfillConfig config_of(const Fixture *f, AttentionPattern pattern) {
    return (InfillConfig){.model = language_of_xlmr(&f->model.xlmr),
                          .device = f->device,
                          .pattern = pattern,
                          .mask_id = tokenizer_mask_id(f->model.tokenizer),
                          .vocab_limit = tokenizer_size(f->model.tokenizer),
                          .image_tokens = golden_image_tokens(&f->golden),
                          .image_rows = multimodal_image_rows(&f->model.parts),
                          .keep_hidden = true};
}

static void near(float got, float want) {
    if (!(fabsf(got - want) <= 1e-5f * (1 + fabsf(want))))
        fail_msg("%g, expected %g", (double)got, (double)want);
}

/* The proposals and length logits that it had in the shared Infill, against its own's. */
static void check_alone(const Fixture *f, AttentionPattern pattern, const Asked *a,
                        const Proposal *got, const float *logits) {
    Error err;
    Infill *alone;
    Proposal want[LONGEST];
    InfillConfig config = config_of(f, pattern);
    const LengthPredictor *length = &f->model.length_model;
    float *own = malloc((size_t)length->classes * sizeof *own);
    config.prompts = &a->prompt, config.prompt_count = 1;
    assert_ok(infill_open(&alone, &config, &err), &err);
    assert_ok(infill_lengths(alone, length, own, &err), &err);
    assert_ok(infill_reserve(alone, a->length, a->length + 1, &err), &err);
    const DecodeCanvas canvas = asked_canvas(a, 0);
    assert_ok(infill_evaluate(alone, &canvas, 1, a->temperature, 9, want, &err), &err);
    for (int i = 0; i < a->length; i++) {
        assert_int_equal(got[i].token, want[i].token);
        near(got[i].score, want[i].score);
    }
    for (int c = 0; c < length->classes; c++) near(logits[c], own[c]);
    infill_close(alone);
    free(own);
}

/* Prompts join in ones and twos and leave in any order; all are evaluated together. */
static void check_slots(const char *folder, AttentionPattern pattern) {
    Fixture f;
    Error err;
    Infill *infill;
    Asked asked[SLOTS];
    int slots[SLOTS], count = 0, full = 0;
    TestRandom random = {11};
    fixture_open(&f, folder, "f32");
    const LengthPredictor *length = &f.model.length_model;
    float *logits = calloc((size_t)length->classes * SLOTS, sizeof *logits);
    InfillConfig config = config_of(&f, pattern);
    config.slots = SLOTS, config.batch_tokens = 40;
    config.prefix_rows = xlmr_longest(&f.model.xlmr.config);
    assert_ok(infill_open(&infill, &config, &err), &err);
    for (int round = 0; round < 40; round++) {
        int fresh = count;
        for (int n = (int)(test_random_next(&random) % 3); n > 0 && count < SLOTS; n--, count++) {
            asked_make(&asked[count], &f, &random);
            asked[count].prompt.ids = asked[count].ids;
            if (!infill_place(infill, &asked[count].prompt, &slots[count])) break;
        }
        full += count == SLOTS;
        assert_ok(infill_prefill(infill, &err), &err);
        assert_ok(infill_lengths_of(infill, length, slots + fresh, count - fresh,
                                    logits + (size_t)fresh * (size_t)length->classes, &err),
                  &err);
        DecodeCanvas canvases[SLOTS];
        DecodeBatch batches[SLOTS];
        Proposal got[SLOTS][LONGEST];
        for (int i = 0; i < count; i++) {
            canvases[i] = asked_canvas(&asked[i], slots[i]);
            batches[i] = (DecodeBatch){&canvases[i], 1, asked[i].temperature, 9, got[i]};
        }
        assert_ok(infill_evaluate_all(infill, batches, count, &err), &err);
        for (int i = 0; i < count; i++)
            check_alone(&f, pattern, &asked[i], got[i],
                        logits + (size_t)i * (size_t)length->classes);
        if (count == 0 || test_random_next(&random) % 2) continue;
        int out = (int)(test_random_next(&random) % (uint64_t)count);
        infill_remove(infill, slots[out]);
        count--;
        /* The last one moves to its place in this list, but not its ids, which a slot refers to. */
        if (out < count) infill_remove(infill, slots[count]);
        if (out < count) {
            asked[out] = asked[count];
            asked[out].prompt.ids = asked[out].ids;
            assert_true(infill_place(infill, &asked[out].prompt, &slots[out]));
            memcpy(logits + (size_t)out * (size_t)length->classes,
                   logits + (size_t)count * (size_t)length->classes,
                   (size_t)length->classes * sizeof *logits);
        }
    }
    assert_true(full > 3);
    infill_close(infill);
    free(logits);
    fixture_close(&f);
}

static void test_slots(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        check_slots(golden_folders[i], ATTENTION_FULL);
        check_slots(golden_folders[i], ATTENTION_BLOCK_CAUSAL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_slots)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
