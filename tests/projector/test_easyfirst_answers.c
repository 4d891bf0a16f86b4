/* What the public library says of answers and models, and calls that are cancelled. */
#include "tests/projector/easyfirst_test.h"

#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "projector/easyfirst_private.h"

/* ---- Cancelling. ---- */

/* Cancels after so many microseconds, from another thread. */
typedef struct Canceller {
    ef_cancellation *cancellation;
    int after;
    double at; /* when it did */
} Canceller;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *cancel_later(void *argument) {
    Canceller *c = argument;
    usleep((useconds_t)c->after);
    c->at = seconds();
    ef_cancel(c->cancellation);
    return NULL;
}

/* Many images and long prompts, cancelled at moments that lie all over the call: while images are
 * encoded, in the prefix, in the steps. It returns soon, and the same call gives the same bits as
 * on a model that was never cancelled. */
static void test_cancel_anywhere(void **state) {
    (void)state;
    enum { IMAGES_HERE = 24, TRIES = 9 };
    ef_error err;
    ef_answers *plain, *a = NULL;
    ef_image *images[IMAGES_HERE];
    ef_request requests[IMAGES_HERE];
    ef_model *model = open_model(BUNDLED), *fresh = open_model(BUNDLED);
    char text[700];
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = "which colour? "[i % 14];
    text[sizeof text - 1] = 0;
    for (int i = 0; i < IMAGES_HERE; i++) {
        uint8_t pixels[31 * 17 * 3];
        for (size_t p = 0; p < sizeof pixels; p++) pixels[p] = (uint8_t)(p * (size_t)(3 * i + 7));
        check_ok(ef_image_from_pixels(pixels, 31, 17, 0, &images[i], &err), &err);
        requests[i] = (ef_request){.task = EF_ASK, .text = text, .image = images[i], .length = 9};
    }
    double start = seconds();
    check_ok(ef_answer(fresh, requests, IMAGES_HERE, NULL, &plain, &err), &err);
    double whole = seconds() - start;
    double soonest = whole;
    for (int t = 0; t < TRIES; t++) {
        Canceller canceller = {.after = (int)(1e6 * whole * (t + 0.5) / (TRIES + 2))};
        ef_options o = ef_options_default();
        pthread_t thread;
        check_ok(ef_cancellation_new(&canceller.cancellation, &err), &err);
        o.cancellation = canceller.cancellation;
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, &canceller), 0);
        int failed = ef_answer(model, requests, IMAGES_HERE, &o, &a, &err);
        double end = seconds();
        pthread_join(thread, NULL);
        if (failed) {
            assert_string_equal(err.text, "cancelled");
            assert_int_equal(err.code, EF_CANCELLED);
            assert_null(a);
            soonest = fmin(soonest, end - canceller.at);
        }
        ef_answers_close(a);
        ef_cancellation_close(canceller.cancellation);
        check_ok(ef_answer(model, requests + t, 1, NULL, &a, &err), &err);
        same_answer(a, 0, plain, (size_t)t);
        ef_answers_close(a);
        a = NULL;
    }
    assert_true(soonest < whole / 10);
    check_ok(ef_answer(model, requests, IMAGES_HERE, NULL, &a, &err), &err);
    for (size_t i = 0; i < IMAGES_HERE; i++) same_answer(a, i, plain, i);
    for (int i = 0; i < IMAGES_HERE; i++) ef_image_close(images[i]);
    ef_answers_close(a), ef_answers_close(plain);
    ef_model_close(model), ef_model_close(fresh);
}

/* What a cancelled encoding leaves undone: no block of the tower runs after the flag is set. */
static void test_cancel_encoding(void **state) {
    (void)state;
    ef_error err;
    ef_model *model = open_model(BUNDLED);
    ef_image *image = open_image(PHOTO);
    ef_work work = {0};
    const int set = 1;
    int block;
    device_cancel_by(model->device, &set);
    const ef_image *images[] = {image};
    assert_int_equal(model_see(model, images, 1, &block, &work, (Error *)(void *)&err), -1);
    assert_string_equal(err.text, "cancelled");
    assert_int_equal(work.images, 0);
    assert_int_equal(model->images.count, 0);
    device_cancel_by(model->device, NULL);
    check_ok(model_see(model, images, 1, &block, &work, (Error *)(void *)&err), &err);
    assert_int_equal(work.images, 1);
    ef_image_close(image);
    ef_model_close(model);
}

/* ---- What is asked of answers and models. ---- */

/* Hypotheses, their numbers, and what the call did, against each other and against the steps. */
static void test_hypotheses(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a;
    ef_model *model = open_model(folders[0]);
    ef_image *image = open_image(PHOTO);
    const ef_request requests[] = {{.task = EF_ASK, .text = QUESTION, .image = image},
                                   {.task = EF_COMPLETE, .text = " "},
                                   {.task = EF_COMPLETE, .text = "One, two", .length = 3}};
    ef_options o = ef_options_default();
    o.beam = 3, o.samples = 2, o.temperature = 0.9f, o.steps = 5, o.seed = 11;
    o.strategy = "reparam-cond-stochastic0.5-linear";
    check_ok(ef_answer(model, requests, 3, &o, &a, &err), &err);
    const int count[] = {6, 0, 2};
    int64_t evaluations = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ef_answer_hypotheses(a, i), count[i]);
        assert_null(ef_answer_hypothesis(a, i, count[i]));
        assert_null(ef_answer_hypothesis(a, i, -1));
        int own = 0, best = ef_answer_best(a, i);
        assert_in_range(best + 1, count[i] > 0, count[i]);
        for (int k = 0; k < count[i]; k++) {
            const ef_hypothesis *h = ef_answer_hypothesis(a, i, k);
            assert_int_equal(h->sample, k % 2);
            assert_int_equal(h->steps, 5);
            check_tokens(h->tokens, h->length);
            double sum = 0;
            for (int t = 0; t < h->length; t++) sum += (double)h->tokens[t].score;
            assert_true(fabs(sum / h->length - h->score) < 1e-5);
            assert_true(h->score <= ef_answer_score(a, i));
            own += h->evaluations;
        }
        assert_int_equal(ef_answer_evaluations(a, i), own);
        evaluations += own;
        if (best < 0) continue;
        const ef_hypothesis *h = ef_answer_hypothesis(a, i, best);
        assert_string_equal(h->text, ef_answer_text(a, i));
        assert_ptr_equal(h->tokens, ef_answer_tokens(a, i));
        assert_int_equal(ef_answer_code(a, i), EF_OK);
        assert_true(ef_answer_prompt_tokens(a, i) > 0);
    }
    const ef_work *w = ef_answers_work(a);
    assert_int_equal(ef_answer_code(a, 1), EF_FAILED);
    assert_int_equal(w->answered, 2);
    assert_int_equal(w->images, 1);
    assert_int_equal(w->steps, 8 * 5);
    assert_int_equal(w->evaluations, evaluations);
    assert_true(w->rows > 0 && w->forwards > 0 && w->canvases == evaluations);
    assert_true(w->encode_seconds > 0 && w->prefix_seconds > 0 && w->decode_seconds > 0);
    ef_answers_close(a);
    check_ok(ef_answer(model, requests, 1, NULL, &a, &err), &err);
    assert_int_equal(ef_answers_work(a)->images, 0); /* they were there */
    ef_answers_close(a);
    ef_image_close(image);
    ef_model_close(model);
}

/* Options that change no answer. */
static void test_caches(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a, *plain;
    ef_model *model = open_model(BUNDLED);
    ef_options o = ef_options_default();
    check_ok(ef_complete(model, "One, two, three", 7, NULL, &plain, &err), &err);
    for (int i = 0; i < 3; i++) {
        o.no_canvas_cache = i == 0, o.no_kv_cache = i == 1, o.batch_tokens = i == 2 ? 40 : 0;
        check_ok(ef_complete(model, "One, two, three", 7, &o, &a, &err), &err);
        same_answer(a, 0, plain, 0);
        if (i == 0) assert_true(ef_answer_evaluations(a, 0) > ef_answer_evaluations(plain, 0));
        if (i == 1) assert_true(ef_answers_work(a)->rows > ef_answers_work(plain)->rows);
        ef_answers_close(a);
    }
    ef_answers_close(plain);
    ef_model_close(model);
}

static void test_long_policies(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a;
    ef_options o = ef_options_default();
    ef_model *model = open_model(BUNDLED);
    char text[3000];
    int tokens;
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = "dog "[i % 4];
    text[sizeof text - 1] = 0;
    const ef_request requests[] = {{.task = EF_COMPLETE, .text = text, .length = 3},
                                   {.task = EF_COMPLETE, .text = "A", .length = 3}};
    const ef_code codes[] = {EF_TOO_LONG, EF_SKIPPED, EF_OK};
    for (int i = 0; i < 3; i++) {
        o.long_prompts = (ef_long_prompts)i;
        check_ok(ef_answer(model, requests, 2, &o, &a, &err), &err);
        assert_int_equal(ef_answer_code(a, 0), codes[i]);
        assert_int_equal(ef_answer_code(a, 1), EF_OK);
        int dropped = ef_answer_dropped_tokens(a, 0), all = ef_answer_prompt_tokens(a, 0);
        assert_int_equal(dropped > 0, i == 2);
        assert_in_range(all, 700, 800);
        assert_int_equal(ef_answers_work(a)->skipped, i == 1);
        assert_int_equal(ef_answers_work(a)->shortened, i == 2);
        assert_int_equal(ef_answers_work(a)->dropped_tokens, dropped);
        ef_answers_close(a);
        err.code = EF_OK;
        assert_int_equal(ef_check(model, requests, &o, &tokens, &err), i == 2 ? 0 : -1);
        assert_int_equal(err.code, codes[i]);
        assert_int_equal(tokens, all);
    }
    o.long_prompts = (ef_long_prompts)3;
    a = (ef_answers *)&err;
    check_failed(ef_complete(model, "A", 3, &o, &a, &err), &err, a, "long_prompts is 3");
    ef_model_close(model);
}

static void test_checks(void **state) {
    (void)state;
    ef_error err;
    ef_answers *none = NULL;
    int tokens = 9;
    ef_model *model = open_model(BUNDLED), *blind, *closed = (ef_model *)&err;
    ef_model_options o = ef_model_options_default();
    o.device = "cpu", o.text_only = 1;
    check_ok(ef_model_open(BUNDLED, &o, &blind, &err), &err);
    ef_request r = {.task = EF_ASK, .text = QUESTION};
    check_ok(ef_check(model, &r, NULL, &tokens, &err), &err);
    assert_in_range(tokens, 2, 30);
    check_failed(ef_check(blind, &r, NULL, NULL, &err), &err, none, "no vision tower");
    assert_int_equal(err.code, EF_MISSING_PART);
    check_failed(ef_check_task(blind, EF_ASK, 0, &err), &err, none, "no vision tower");
    check_ok(ef_check_task(blind, EF_SUMMARIZE, 5, &err), &err);
    check_ok(ef_check_task(model, EF_ASK, 0, &err), &err);
    check_failed(ef_check_task(model, EF_ASK, 5000, &err), &err, none, "5000");
    check_failed(ef_check_task(model, (ef_task)7, 5, &err), &err, none, "task 7");
    check_failed(ef_check(NULL, &r, NULL, NULL, &err), &err, none, "NULL");
    check_failed(ef_check(model, NULL, NULL, NULL, &err), &err, none, "NULL");
    r = (ef_request){.task = EF_COMPLETE, .text = "a\xff"};
    check_failed(ef_check(model, &r, NULL, NULL, &err), &err, none, "byte 1");
    o = ef_model_options_default();
    o.check_answers = 1, o.answer_length = 5000, o.device = "cpu";
    check_failed(ef_model_open(BUNDLED, &o, &closed, &err), &err, closed, "5000");
    o.check_answers = 0, o.answer_length = 0, o.pad = (ef_pad)-1;
    check_failed(ef_model_open(BUNDLED, &o, &closed, &err), &err, closed, "pad -1");
    o.pad = EF_PAD_OFF, o.feature_layer = 77;
    check_failed(ef_model_open(MODELS "tiny-base", &o, &closed, &err), &err, closed, "77");
    o.feature_layer = EF_FEATURE_LAYER_DEFAULT, o.from = "en", o.to = "Klingon";
    check_failed(ef_model_open(BUNDLED, &o, &closed, &err), &err, closed, "Klingon");
    o = ef_model_options_default(), o.device = "cpu", o.vision = BUNDLED "/vision";
    check_failed(ef_model_open(NULL, &o, &closed, &err), &err, closed, "no language model");
    assert_int_equal(err.code, EF_MISSING_PART);
    ef_model_close(model), ef_model_close(blind);
}

static void test_model_description(void **state) {
    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        ef_statistics s;
        ef_model *model = open_model(folders[f]);
        for (int p = EF_LANGUAGE; p <= EF_LENGTH_PREDICTOR; p++) {
            const char *line = ef_model_part(model, (ef_part)p);
            assert_non_null(line);
            assert_non_null(strstr(line, folders[f]));
            assert_null(strchr(line, '\n'));
        }
        assert_null(ef_model_part(model, (ef_part)4));
        assert_true(ef_model_context(model) > ef_model_image_tokens(model));
        assert_true(ef_model_image_tokens(model) > 0);
        memset(&s, 1, sizeof s);
        ef_model_statistics(model, &s, sizeof s.load_seconds); /* a caller of an earlier version */
        assert_true(s.load_seconds > 0 && s.peak_memory == (size_t)0x0101010101010101);
        ef_model_statistics(model, &s, sizeof s);
        assert_true(s.peak_memory > 1 << 20 && s.device_memory_size == 0);
        ef_model_close(model);
    }
    assert_null(ef_model_part(NULL, EF_VISION));
    assert_int_equal(ef_model_context(NULL) + ef_model_image_tokens(NULL), 0);
}

/* An image that is opened for a model gives the same answers; others refuse it. */
static void test_images_for(void **state) {
    (void)state;
    ef_error err;
    static const char *const paths[] = {PHOTO, IMAGES "orientation6.jpg", IMAGES "grey.jpg"};
    ef_model *model = open_model(BUNDLED), *other = open_model(folders[0]);
    for (int i = 0; i < 3; i++) {
        ef_answers *a, *b, *none = NULL;
        ef_image *image = open_image(paths[i]), *square;
        check_ok(ef_image_open_for(model, paths[i], &square, &err), &err);
        assert_int_equal(ef_image_width(square), ef_image_width(image));
        assert_int_equal(ef_image_height(square), ef_image_height(image));
        check_ok(ef_ask(model, image, QUESTION, NULL, &a, &err), &err);
        check_ok(ef_ask(model, square, QUESTION, NULL, &b, &err), &err);
        same_answer(a, 0, b, 0);
        check_failed(ef_ask(other, square, QUESTION, NULL, &none, &err), &err, none, "otherwise");
        ef_answers_close(a), ef_answers_close(b);
        ef_image_close(image), ef_image_close(square);
    }
    ef_image *none = (ef_image *)&err;
    check_failed(ef_image_open_for(model, "none.png", &none, &err), &err, none, "none.png");
    check_failed(ef_image_open_for(NULL, PHOTO, &none, &err), &err, none, "NULL");
    check_failed(ef_image_open_for(model, NULL, &none, &err), &err, none, "NULL");
    ef_model_close(model), ef_model_close(other);
}

/* ---- Messages. ---- */

/* Whether a line of source has a text in which an option of a command line is named. */
static bool names_option(const char *line) {
    bool inside = false;
    for (const char *p = line; *p; p++) {
        if (*p == '\\' && p[1])
            p++;
        else if (*p == '"')
            inside = !inside;
        else if (inside && p[0] == '-' && p[1] == '-' && p[2] >= 'a' && p[2] <= 'z')
            return true;
    }
    return false;
}

/* What a user of the library reads does not speak of the program's command line. */
static void test_messages(void **state) {
    (void)state;
    static const char *const folders_below[] = {"kernels", "vision", "language", "projector",
                                                "data"};
    assert_true(names_option("error_set(err, \"say --length N\")"));
    assert_false(names_option("for (; n--; ) puts(\"a - b\"); /* --length */"));
    size_t lines = 0;
    for (size_t f = 0; f < sizeof folders_below / sizeof *folders_below; f++)
        for (int depth = 0; depth < 3; depth++) {
            char pattern[100];
            glob_t found;
            snprintf(pattern, sizeof pattern, "%s/%s*.c*", folders_below[f],
                     depth == 2   ? "*/*/"
                     : depth == 1 ? "*/"
                                  : "");
            if (glob(pattern, 0, NULL, &found)) continue;
            for (size_t i = 0; i < found.gl_pathc; i++) {
                FILE *file = fopen(found.gl_pathv[i], "r");
                char *line = NULL;
                size_t size = 0;
                assert_non_null(file);
                for (; getline(&line, &size, file) >= 0; lines++)
                    if (names_option(line)) fail_msg("%s: %s", found.gl_pathv[i], line);
                free(line), fclose(file);
            }
            globfree(&found);
        }
    assert_true(lines > 10000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_anywhere),   cmocka_unit_test(test_cancel_encoding),
        cmocka_unit_test(test_hypotheses),        cmocka_unit_test(test_caches),
        cmocka_unit_test(test_long_policies),     cmocka_unit_test(test_checks),
        cmocka_unit_test(test_model_description), cmocka_unit_test(test_images_for),
        cmocka_unit_test(test_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
