/* Answering many requests: the KV cache with block-causal attention, the canvas cache and the rest
 * of the batch never change an answer; on the tiny models in f32. */
#include <math.h>

#include "projector/answers.h"
#include "tests/golden_models.h"

enum { REQUESTS = 14 };

/* Requests about both images and none, with prompts of random words. */
typedef struct Asked {
    AnswerRequest requests[REQUESTS];
    char prompts[REQUESTS][512];
} Asked;

static void random_prompt(char *out, size_t size, int words, TestRandom *random) {
    static const char *const list[] = {"What", "colour", "is",  "the",    "dog",    "left",
                                       "of",   "house",  "How", "many",   "shapes", "Bild",
                                       "der",  "Hund",   "und", "circle", "sky"};
    out[0] = 0;
    for (int i = 0; i < words; i++) {
        strncat(out, i ? " " : "", size - strlen(out) - 1);
        strncat(out, list[test_random_next(random) % (sizeof list / sizeof list[0])],
                size - strlen(out) - 1);
    }
}

static void asked_make(Asked *a, uint64_t seed, bool predict) {
    TestRandom random = {seed};
    for (int i = 0; i < REQUESTS; i++) {
        random_prompt(a->prompts[i], sizeof a->prompts[i], 1 + (int)(test_random_next(&random) % 9),
                      &random);
        a->requests[i] =
            (AnswerRequest){.prompt = a->prompts[i],
                            .image = (int)(test_random_next(&random) % 3) - 1,
                            .length = predict ? 0 : 1 + (int)(test_random_next(&random) % 20)};
    }
}

/* Both answers have the same hypotheses, tokens and counts; returns the largest difference of
 * scores. */
static double answers_differ(const Answers *a, int i, const Answers *b, int j) {
    const Answer *x = &a->items[i], *y = &b->items[j];
    assert_int_equal(x->count, y->count);
    /* Not the index of the best: two samples may be equal. */
    assert_string_equal(x->text, y->text);
    double most = 0;
    for (int h = 0; h < x->count; h++) {
        const DecodeResult *r = &a->results[x->first + h], *s = &b->results[y->first + h];
        assert_int_equal(r->length, s->length);
        assert_memory_equal(r->tokens, s->tokens, (size_t)r->length * sizeof *r->tokens);
        for (int n = 0; n < r->length; n++) {
            double d = fabs((double)r->scores[n] - s->scores[n]) / (1 + fabs((double)s->scores[n]));
            if (!(d <= 1e-5))
                fail_msg("scores %g and %g", (double)r->scores[n], (double)s->scores[n]);
            if (d > most) most = d;
        }
    }
    return most;
}

static void answer(Fixture *f, const AnswerRequest *requests, int count,
                   const AnswerOptions *options, Answers *answers) {
    Error err;
    Tensor image = golden_image_tokens(&f->golden);
    assert_ok(multimodal_answer(&f->model.parts, image, requests, count, options, answers, &err),
              &err);
}

/* ---- The KV cache with block-causal attention. ---- */

static void check_reuse(const char *folder, bool predict, int answer_position) {
    Fixture f;
    Asked asked;
    Answers with, without;
    fixture_open(&f, folder, "f32");
    f.model.parts.attention = ATTENTION_BLOCK_CAUSAL;
    f.model.parts.answer_position = answer_position;
    asked_make(&asked, 7, predict);
    AnswerOptions options = answer_options_default();
    options.length_beam = 3;
    answer(&f, asked.requests, REQUESTS, &options, &with);
    options.no_kv_cache = true;
    answer(&f, asked.requests, REQUESTS, &options, &without);
    double most = 0;
    for (int i = 0; i < REQUESTS; i++) {
        double d = answers_differ(&with, i, &without, i);
        if (d > most) most = d;
    }
    /* A step costs only the rows of the canvas and </s>; the prefix is computed once. */
    int64_t rows = 0, evaluations = 0, prefix = 0;
    for (int i = 0; i < with.result_count; i++) {
        rows += (int64_t)with.results[i].evaluations * (with.results[i].length + 1);
        evaluations += with.results[i].evaluations;
    }
    bool seen[3] = {false};
    for (int i = 0; i < REQUESTS; i++) {
        int image = asked.requests[i].image;
        if (!seen[image + 1])
            prefix += 1 + (image >= 0 ? multimodal_image_rows(&f.model.parts) : 0);
        seen[image + 1] = true;
        prefix += with.items[i].prompt_tokens;
    }
    assert_int_equal(with.counts.rows, rows);
    assert_int_equal(with.counts.prefix_rows, prefix);
    assert_int_equal(with.counts.canvases, evaluations);
    printf("note: blocks, %s, %d hypotheses: %.1f rows a canvas with reuse, %.1f without; scores "
           "within "
           "%.1e\n",
           f.model.xlmr.config.block.pre_norm ? "pre-LN" : "post-LN", with.result_count,
           (double)with.counts.rows / (double)with.counts.canvases,
           (double)without.counts.rows / (double)without.counts.canvases, most);
    answers_free(&with), answers_free(&without);
    fixture_close(&f);
}

static void test_reuse(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int predict = 0; predict < 2; predict++)
            check_reuse(golden_folders[i], predict, predict ? 0 : 70);
}

/* ---- Answers with positions from a fixed one on. ---- */

static void test_answer_position(void **state) {
    (void)state;
    Fixture f;
    Error err;
    fixture_open(&f, golden_folders[1], "f32");
    Multimodal *m = &f.model.parts;
    AnswerRequest r = {.prompt = "What is the colour of the dog?", .image = 0, .length = 6};
    AnswerOptions options = answer_options_default();
    for (int pattern = 0; pattern < 2; pattern++) {
        Answers here, same, other;
        m->attention = pattern ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL;
        m->answer_position = 0;
        answer(&f, &r, 1, &options, &here);
        /* At its actual position the answer is the same to the bit; at another it differs. */
        int place = 1 + multimodal_image_rows(m) + here.items[0].prompt_tokens;
        m->answer_position = place;
        answer(&f, &r, 1, &options, &same);
        assert_memory_equal(same.results[0].scores, here.results[0].scores,
                            6 * sizeof *here.results[0].scores);
        m->answer_position = place + 20;
        answer(&f, &r, 1, &options, &other);
        assert_memory_not_equal(other.results[0].scores, here.results[0].scores,
                                6 * sizeof *here.results[0].scores);
        answers_free(&here), answers_free(&same), answers_free(&other);
        /* The prompt must end before it, and the answer has the positions from it on. */
        m->answer_position = place - 1;
        assert_refused(multimodal_check(m, &r, NULL, &err), &err, "tokens long");
        m->answer_position = 128 - 7;
        assert_ok(multimodal_check(m, &r, NULL, &err), &err);
        m->answer_position = 128 - 6;
        assert_refused(multimodal_check(m, &r, NULL, &err), &err, "does not fit");
    }
    fixture_close(&f);
}

/* ---- The rest of the batch. ---- */

static void check_batch(const char *folder, AttentionPattern pattern, float temperature,
                        double *most) {
    Fixture f;
    Asked asked;
    fixture_open(&f, folder, "f32");
    f.model.parts.attention = pattern;
    asked_make(&asked, 11 + (uint64_t)pattern, false);
    AnswerOptions options = answer_options_default();
    options.decode.temperature = temperature;
    options.decode.seed = 5;
    options.samples = temperature > 0 ? 2 : 1;
    Answers alone[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) answer(&f, &asked.requests[i], 1, &options, &alone[i]);
    static const int batches[] = {0, 60,
                                  150}; /* rows of a forward pass: all at once, one or two, a few */
    for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
        Answers together;
        options.batch_tokens = batches[b];
        answer(&f, asked.requests, REQUESTS, &options, &together);
        for (int i = 0; i < REQUESTS; i++) {
            double d = answers_differ(&together, i, &alone[i], 0);
            if (d > *most) *most = d;
        }
        answers_free(&together);
    }
    for (int i = 0; i < REQUESTS; i++) answers_free(&alone[i]);
    fixture_close(&f);
}

static void test_batch(void **state) {
    (void)state;
    double most = 0;
    for (int i = 0; i < 2; i++) {
        check_batch(golden_folders[i], ATTENTION_FULL, 0, &most);
        check_batch(golden_folders[i], ATTENTION_BLOCK_CAUSAL, 0, &most);
        check_batch(golden_folders[i], ATTENTION_FULL, 0.9f, &most);
    }
    printf("note: batch against alone: scores %s\n",
           most == 0 ? "bit-identical" : "within 1e-5, not to the bit");
}

/* ---- The canvas cache, with a network. ---- */

static void test_memory(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, golden_folders[0], "f32");
    TestRandom random = {3};
    AnswerRequest requests[64];
    char prompts[64][512];
    for (int n = 0; n < 64; n++) {
        random_prompt(prompts[n], sizeof prompts[n], 1 + (int)(test_random_next(&random) % 8),
                      &random);
        requests[n] = (AnswerRequest){.prompt = prompts[n], .image = -1, .length = n + 1};
    }
    AnswerOptions options = answer_options_default();
    options.trace = true;
    Answers with, without;
    answer(&f, requests, 64, &options, &with);
    options.decode.no_canvas_cache = true;
    answer(&f, requests, 64, &options, &without);
    for (int i = 0; i < 64; i++) {
        answers_differ(&with, i, &without, i);
        const DecodeResult *a = &with.results[i], *b = &without.results[i];
        assert_int_equal(b->evaluations, 50);
        assert_true(a->evaluations <= 50);
        for (int c = 0; c < a->length * a->steps; c++) {
            assert_int_equal(a->trace[c].token, b->trace[c].token);
            /* Batches differ with and without: the same 1e-5 as for any other mix. */
            if (isfinite(a->trace[c].score) || isfinite(b->trace[c].score))
                assert_true(fabs((double)a->trace[c].score - b->trace[c].score) <=
                            1e-5 * (1 + fabs((double)b->trace[c].score)));
        }
    }
    answers_free(&with), answers_free(&without);
    fixture_close(&f);
}

/* Mean evaluations of 50 over random prompts, in the manner of the paper's default strategy. */
static void test_evaluations(void **state) {
    (void)state;
    static const int lengths[] = {1, 2, 4, 8, 16, 32};
    static const double most[] = {1, 3, 9, 50, 50, 50};
    Fixture f;
    fixture_open(&f, golden_folders[0], "f32");
    char line[256] = "";
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        TestRandom random = {17 + l};
        AnswerRequest requests[50];
        char prompts[50][512];
        for (int i = 0; i < 50; i++) {
            random_prompt(prompts[i], sizeof prompts[i], 2 + (int)(test_random_next(&random) % 9),
                          &random);
            requests[i] =
                (AnswerRequest){.prompt = prompts[i], .image = i % 3 - 1, .length = lengths[l]};
        }
        AnswerOptions options = answer_options_default();
        Answers answers;
        answer(&f, requests, 50, &options, &answers);
        double mean = (double)answers.counts.canvases / 50;
        snprintf(line + strlen(line), sizeof line - strlen(line), " N=%d: %.1f", lengths[l], mean);
        assert_true(mean <= most[l]);
        answers_free(&answers);
    }
    printf("note: tiny XLM-R, random weights, mean evaluations of 50 steps:%s\n", line);
    fixture_close(&f);
}

/* ---- Requests that cannot be answered. ---- */

static void test_refused(void **state) {
    (void)state;
    Fixture f;
    Error err;
    fixture_open(&f, golden_folders[0], "f32");
    const Multimodal *m = &f.model.parts;
    char longest[4096];
    TestRandom random = {1};
    random_prompt(longest, sizeof longest, 400, &random);
    AnswerRequest r = {.prompt = longest, .image = -1, .length = 4};
    assert_refused(multimodal_check(m, &r, NULL, &err), &err, "tokens long", "122 fit", "128");
    r.image = 0;
    assert_refused(multimodal_check(m, &r, NULL, &err), &err, "106 fit", "16 of the image");
    r.length = 200;
    assert_refused(multimodal_check(m, &r, NULL, &err), &err, "200", "does not fit");
    r = (AnswerRequest){.prompt = " \n", .image = -1, .length = 4};
    assert_refused(multimodal_check(m, &r, NULL, &err), &err, "empty");
    r.prompt = "a\xff"
               "b";
    assert_refused(multimodal_check(m, &r, NULL, &err), &err, "UTF-8");
    Multimodal bare = *m;
    bare.length = NULL;
    r = (AnswerRequest){.prompt = "What is this?", .image = -1};
    assert_refused(multimodal_check(&bare, &r, NULL, &err), &err, "length predictor",
                   "how many tokens");
    bare.tower = NULL;
    Tensor tokens;
    assert_refused(multimodal_encode(&bare, NULL, 1, &tokens, &err), &err, "cannot see",
                   "model folder");
    /* In a batch each request has its own message, and the others are answered. */
    AnswerRequest three[3] = {{.prompt = "What?", .image = -1, .length = 2},
                              {.prompt = longest, .image = -1, .length = 2},
                              {.prompt = "Which?", .image = 0, .length = 2}};
    Answers answers;
    AnswerOptions options = answer_options_default();
    assert_ok(multimodal_answer(m, TENSOR_NONE, three, 3, &options, &answers, &err), &err);
    assert_non_null(answers.items[0].text);
    assert_null(answers.items[0].error);
    for (int i = 1; i < 3; i++) {
        assert_true(answers.items[i].error && !answers.items[i].text && !answers.items[i].count);
        assert_non_null(strstr(answers.items[i].error, i == 1 ? "124 fit" : "no such image"));
    }
    answers_free(&answers);
    fixture_close(&f);
}

static void test_length_probability(void **state) {
    (void)state;
    enum { CLASSES = 7 };
    const float logits[][CLASSES] = {{0, 0, 0, 0, 0, 0, 0},
                                     {1, -2, 3.5F, 0, 3.5F, -7, 2},
                                     {900, 899, -900, 0, 1, 2, 3}}; /* exp would overflow */
    for (size_t l = 0; l < sizeof logits / sizeof logits[0]; l++) {
        double sum = 0;
        for (int n = 1; n <= CLASSES; n++)
            sum += exp(length_log_probability(logits[l], CLASSES, n));
        assert_true(fabs(sum - 1) < 1e-12);
        for (int n = 2; n <= CLASSES; n++)
            assert_true(fabs(length_log_probability(logits[l], CLASSES, n) -
                             length_log_probability(logits[l], CLASSES, 1) -
                             ((double)logits[l][n - 1] - logits[l][0])) < 1e-9);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length_probability),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_evaluations),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_answer_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
