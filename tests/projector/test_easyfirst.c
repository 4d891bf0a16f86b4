/* The public library, as a program that knows easyfirst.h alone uses it. */
#include <math.h>
#include <pthread.h>

#include "apps/commands.h"
#include "tests/projector/easyfirst_test.h"
#include "vision/image.h"

static void test_version(void **state) {
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%d.%d", EF_VERSION_MAJOR, EF_VERSION_MINOR);
    assert_string_equal(ef_version(), text);
    assert_string_equal(EF_VERSION, text);
    assert_string_equal(EF_VERSION, text);
}

/* ---- Errors. ---- */

static void test_model_errors(void **state) {
    (void)state;
    ef_error err;
    ef_model *model = (ef_model *)&err;
    ef_model_options o = ef_model_options_default();
    check_failed(ef_model_open("none", NULL, &model, &err), &err, model, "none: no such folder");
    check_failed(ef_model_open(NULL, NULL, &model, &err), &err, model, "no model is named");
    assert_int_equal(ef_model_open("none", NULL, &model, NULL), -1);
    assert_int_equal(ef_model_open(BUNDLED, NULL, NULL, &err), -1);
    o.device = "gpu";
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "no device \"gpu\"");
    o.device = "cuda:1x";
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "no device");
    o.device = "cpu", o.dtype = (ef_dtype)7;
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "dtype 7");
    o.dtype = EF_DTYPE_AUTO, o.threads = -1;
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "-1 threads");
    o.threads = 0, o.size = 0;
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "ef_model_options_default");
    o.size = sizeof o + 8;
    check_failed(ef_model_open(BUNDLED, &o, &model, &err), &err, model, "later version");
    o.size = sizeof o;
    check_failed(ef_model_open(BUNDLED "/vision", &o, &model, &err), &err, model, "vision");
}

/* A structure of an earlier version: the members that it lacks have their defaults. */
static void test_earlier_options(void **state) {
    (void)state;
    ef_error err;
    ef_model *model;
    ef_model_options o = ef_model_options_default();
    o.device = "cpu", o.threads = -5, o.size = offsetof(ef_model_options, threads);
    check_ok(ef_model_open(folders[0], &o, &model, &err), &err);
    ef_model_close(model);
}

static void test_image_errors(void **state) {
    (void)state;
    ef_error err;
    ef_image *image = (ef_image *)&err;
    const uint8_t pixels[12] = {0};
    check_failed(ef_image_open("none.png", &image, &err), &err, image, "none.png");
    check_failed(ef_image_open("-", &image, &err), &err, image, "no such file"); /* no input */
    check_failed(ef_image_open(NULL, &image, &err), &err, image, "NULL");
    check_failed(ef_image_decode("GIF89a......", 12, &image, &err), &err, image, "GIF");
    check_failed(ef_image_decode("", 0, &image, &err), &err, image, "empty");
    check_failed(ef_image_decode(NULL, 5, &image, &err), &err, image, "NULL");
    check_failed(ef_image_from_pixels(NULL, 2, 2, 0, &image, &err), &err, image, "NULL");
    check_failed(ef_image_from_pixels(pixels, 0, 2, 0, &image, &err), &err, image, "0 x 2");
    check_failed(ef_image_from_pixels(pixels, 2, -2, 0, &image, &err), &err, image, "2 x -2");
    check_failed(ef_image_from_pixels(pixels, 2, 2, 5, &image, &err), &err, image, "5 bytes apart");
    check_failed(ef_image_from_pixels(pixels, 900000, 900000, 0, &image, &err), &err, image,
                 "most");
    assert_int_equal(ef_image_open(PHOTO, NULL, &err), -1);
    assert_int_equal(ef_image_from_pixels(pixels, 2, 2, 0, NULL, &err), -1);
    assert_int_equal(ef_image_decode(pixels, 2, NULL, NULL), -1);
}

static void test_option_errors(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a = (ef_answers *)&err;
    ef_model *model = open_model(BUNDLED);
    ef_options o[12];
    static const char *const words[12] = {
        "strategy", "steps", "beam", "samples",    "length_weight", "temper",
        "later",    "seed?", "nan",  "early_stop", "prefix_cache",  "guidance"};
    for (int i = 0; i < 12; i++) o[i] = ef_options_default();
    o[9].early_stop = -1, o[10].prefix_cache = -1, o[11].guidance = NAN;
    o[0].strategy = "best", o[1].steps = -1, o[2].beam = 513, o[3].samples = -2;
    o[4].length_weight = -1, o[5].temperature = INFINITY, o[6].size += 8, o[8].temperature = NAN;
    for (int i = 0; i < 12; i++)
        if (i != 7) check_failed(ef_complete(model, "A", 3, &o[i], &a, &err), &err, a, words[i]);
    check_failed(ef_complete(NULL, "A", 3, NULL, &a, &err), &err, a, "NULL");
    check_failed(ef_answer(model, NULL, 2, NULL, &a, &err), &err, a, "NULL");
    assert_int_equal(ef_answer(model, NULL, 0, NULL, NULL, NULL), -1);
    check_ok(ef_answer(model, NULL, 0, NULL, &a, &err), &err);
    assert_int_equal(ef_answers_count(a), 0);
    ef_answers_close(a);
    ef_model_close(model);
}

static void test_nothing(void **state) {
    (void)state;
    ef_model_close(NULL), ef_image_close(NULL), ef_answers_close(NULL);
    ef_cancellation_close(NULL), ef_cancel(NULL);
    assert_int_equal(ef_cancelled(NULL), 0);
    assert_int_equal(ef_model_has_vision(NULL) + ef_model_has_length_predictor(NULL), 0);
    assert_null(ef_model_device(NULL));
    assert_int_equal(ef_image_width(NULL) + ef_image_height(NULL), 0);
    assert_int_equal(ef_answers_count(NULL), 0);
    assert_null(ef_answer_text(NULL, 0));
    assert_null(ef_answer_error(NULL, 0));
    assert_null(ef_answer_tokens(NULL, 0));
    assert_int_equal(ef_answer_length(NULL, 0), 0);
    assert_true(ef_answer_score(NULL, 0) == -INFINITY);
}

/* ---- Answers. ---- */

/* Answers outlive what they were made with. */
static void test_ownership(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a;
    char question[] = QUESTION;
    ef_model *model = open_model(BUNDLED);
    ef_image *image = open_image(PHOTO);
    check_ok(ef_ask(model, image, question, NULL, &a, &err), &err);
    char *text = strdup(ef_answer_text(a, 0));
    memset(question, 'x', sizeof question - 1);
    ef_image_close(image);
    ef_model_close(model);
    assert_int_equal(ef_answers_count(a), 1);
    assert_null(ef_answer_error(a, 0));
    assert_string_equal(ef_answer_text(a, 0), text);
    assert_string_not_equal(text, "");
    int length = ef_answer_length(a, 0);
    const ef_token *tokens = ef_answer_tokens(a, 0);
    check_tokens(tokens, length);
    double sum = 0;
    char joined[200] = "";
    for (int i = 0; i < length; i++) sum += log((double)tokens[i].probability);
    for (int i = 0; i < length && strcmp(tokens[i].piece, "</s>") != 0; i++)
        strcat(joined, tokens[i].piece); /* which ends the text */
    assert_true(fabs(sum / length - ef_answer_score(a, 0)) < 1e-5);
    char *to = joined; /* the pieces are the text, with marks for spaces */
    for (const char *p = joined; *p; p++) {
        const int mark = !strncmp(p, "\u2581", 3);
        *to++ = mark ? ' ' : *p;
        if (mark) p += 2;
    }
    *to = 0;
    assert_string_equal(joined + (*joined == ' '), text);
    free(text);
    assert_null(ef_answer_text(a, 1)); /* there is none */
    ef_answers_close(a);
}

/* Requests of all kinds, more than go into one batch, good and bad, about more images than are
 * encoded at once, in mixed order: each is answered as by itself. */
enum { MIXED = 150, MIXED_IMAGES = 11 };

static ef_request mixed_request(int i, ef_image **images) {
    static const char *const texts[] = {QUESTION, "Ein Hund schläft.", "Which colour?", "A"};
    ef_request r = {.task = i % 4 == 0   ? EF_TRANSLATE
                            : i % 4 == 1 ? EF_SUMMARIZE
                            : i % 4 == 2 ? EF_COMPLETE
                                         : EF_ASK,
                    .text = texts[i / 4 % 4]};
    if (r.task == EF_TRANSLATE) r.from = "German", r.to = "en";
    if (r.task == EF_ASK || i % 8 == 2) r.image = images[i * 7 % MIXED_IMAGES];
    if (i % 5 == 3) r.length = 1 + i % 6;
    return r;
}

static const char *spoil(ef_request *r, int i) {
    switch (i) {
    case 10:
        return r->text = NULL, "NULL";
    case 20:
        return r->text = " \n", "empty";
    case 30:
        return r->text = "a\xff", "byte 1 (0xFF)";
    case 40:
        return r->length = -3, "-3 tokens";
    case 51:
        return r->image = NULL, "no image";
    case 60:
        return r->to = NULL, "languages";
    case 61:
        return r->from = "de", "EF_TRANSLATE";
    case 64:
        return r->to = "Klingon", "Klingon";
    case 71:
        return r->task = (ef_task)9, "task 9";
    case 80:
        return r->length = 100000, "100000";
    default:
        return NULL;
    }
}

static void check_mixed(const char *folder) {
    ef_error err;
    ef_answers *all, *one;
    ef_image *images[MIXED_IMAGES];
    ef_model *model = open_model(folder);
    for (int i = 0; i < MIXED_IMAGES; i++) {
        uint8_t pixels[9 * 13 * 3];
        for (size_t p = 0; p < sizeof pixels; p++) pixels[p] = (uint8_t)(p * (size_t)(i + 3));
        check_ok(ef_image_from_pixels(pixels, 9, 13, 0, &images[i], &err), &err);
    }
    ef_request requests[MIXED];
    const char *wrong[MIXED];
    for (int i = 0; i < MIXED; i++) {
        requests[i] = mixed_request(i, images);
        wrong[i] = spoil(&requests[i], i);
    }
    check_ok(ef_answer(model, requests, MIXED, NULL, &all, &err), &err);
    assert_int_equal(ef_answers_count(all), MIXED);
    for (int i = 0; i < MIXED; i++) {
        const char *error = ef_answer_error(all, (size_t)i);
        if (wrong[i]) {
            if (!error || !strstr(error, wrong[i])) fail_msg("request %d: %s", i, error);
            assert_null(ef_answer_text(all, (size_t)i));
            assert_true(ef_answer_score(all, (size_t)i) == -INFINITY);
        } else if (error)
            fail_msg("request %d: %s", i, error);
        if (wrong[i] || i % 3) continue;
        check_ok(ef_answer(model, &requests[i], 1, NULL, &one, &err), &err);
        same_answer(all, (size_t)i, one, 0);
        if (requests[i].length)
            assert_int_equal(ef_answer_length(all, (size_t)i), requests[i].length);
        ef_answers_close(one);
    }
    for (int i = 0; i < MIXED_IMAGES; i++) ef_image_close(images[i]);
    ef_answers_close(all);
    ef_model_close(model);
}

static void test_mixed(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) check_mixed(folders[f]);
}

/* One request that cannot be answered is the call's own failure; a model that sees nothing says so,
 * and one of one pair of languages, too. */
static void test_single_errors(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a = NULL;
    ef_model *model, *bundled = open_model(BUNDLED);
    ef_image *image = open_image(PHOTO);
    ef_model_options o = ef_model_options_default();
    o.text_only = 1, o.device = "cpu";
    check_ok(ef_model_open(BUNDLED, &o, &model, &err), &err);
    assert_int_equal(ef_model_has_vision(model), 0);
    assert_int_equal(ef_model_has_vision(bundled), 1);
    assert_int_equal(ef_model_has_length_predictor(model), 1);
    assert_non_null(strstr(ef_model_device(model), "CPU"));
    check_failed(ef_ask(model, image, QUESTION, NULL, &a, &err), &err, a, "vision tower");
    check_failed(ef_ask(bundled, NULL, QUESTION, NULL, &a, &err), &err, a, "no image");
    check_failed(ef_ask(bundled, image, NULL, NULL, &a, &err), &err, a, "NULL");
    check_failed(ef_summarize(bundled, "", NULL, &a, &err), &err, a, "empty");
    check_failed(ef_translate(bundled, "A", "en", "fr", NULL, &a, &err), &err, a,
                 "English to French");
    check_failed(ef_complete(bundled, "A", 999999, NULL, &a, &err), &err, a, "999999");
    ef_image_close(image);
    ef_model_close(model), ef_model_close(bundled);
}

static void test_long_prompt(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a = NULL;
    ef_options o = ef_options_default();
    ef_model *model = open_model(BUNDLED);
    char text[4000];
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = "dog "[i % 4];
    text[sizeof text - 1] = 0;
    check_failed(ef_complete(model, text, 3, &o, &a, &err), &err, a, "tokens long");
    o.long_prompts = EF_LONG_KEEP_LAST;
    check_ok(ef_complete(model, text, 3, &o, &a, &err), &err);
    assert_int_equal(ef_answer_length(a, 0), 3);
    ef_answers_close(a);
    ef_model_close(model);
}

/* ---- Images. ---- */

static void test_images(void **state) {
    (void)state;
    ef_error err;
    ef_model *model = open_model(BUNDLED);
    for (int turned = 0; turned < 2; turned++) {
        const char *path = turned ? IMAGES "orientation6.jpg" : PHOTO;
        Error why;
        Image pixels;
        size_t size;
        ef_image *images[4] = {open_image(path)};
        char *bytes = file_bytes(path, &size);
        assert_ok(image_read(&pixels, path, NULL, &why), &why);
        size_t row = (size_t)pixels.width * 3, stride = row + 5;
        uint8_t *spaced = calloc((size_t)pixels.height, stride);
        for (size_t y = 0; y < (size_t)pixels.height; y++)
            memcpy(spaced + y * stride, pixels.pixels + y * row, row);
        check_ok(ef_image_decode(bytes, size, &images[1], &err), &err);
        check_ok(
            ef_image_from_pixels(pixels.pixels, pixels.width, pixels.height, 0, &images[2], &err),
            &err);
        check_ok(
            ef_image_from_pixels(spaced, pixels.width, pixels.height, stride, &images[3], &err),
            &err);
        free(spaced), free(bytes);
        ef_answers *a[4];
        for (int i = 0; i < 4; i++) {
            assert_int_equal(ef_image_width(images[i]), pixels.width);
            assert_int_equal(ef_image_height(images[i]), pixels.height);
            ef_model *fresh = open_model(BUNDLED); /* which has not encoded any of them */
            check_ok(ef_ask(fresh, images[i], QUESTION, NULL, &a[i], &err), &err);
            same_answer(a[i], 0, a[0], 0);
            ef_model_close(fresh);
        }
        for (int i = 0; i < 4; i++) ef_answers_close(a[i]), ef_image_close(images[i]);
        image_free(&pixels);
    }
    ef_model_close(model);
}

/* ---- Steps. ---- */

typedef struct Steps {
    ef_model *model;
    ef_cancellation *cancellation;
    int calls, cancel_at;
    int last[3][4];       /* [request][hypothesis]: the last step that was told */
    char text[3][4][200]; /* its pieces */
} Steps;

static void callback(void *user, const ef_step *step) {
    Steps *s = user;
    assert_in_range(step->request, 0, 2);
    assert_in_range(step->hypothesis, 0, 3);
    int *last = &s->last[step->request][step->hypothesis];
    assert_int_equal(step->step, *last + 1);
    assert_in_range(step->step, 1, step->steps);
    *last = step->step;
    check_tokens(step->tokens, step->length);
    char *text = s->text[step->request][step->hypothesis];
    text[0] = 0;
    for (int i = 0; i < step->length; i++) strcat(text, step->tokens[i].piece);
    s->calls++;
    if (s->calls == s->cancel_at) ef_cancel(s->cancellation);
    if (s->model) {
        ef_error err;
        ef_answers *a = NULL;
        check_failed(ef_complete(s->model, "A", 1, NULL, &a, &err), &err, a, "at work");
    }
}

/* Three requests, the second of which cannot be answered, with two lengths and two samples. */
static void test_steps(void **state) {
    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        ef_error err;
        ef_answers *a, *plain;
        Steps steps = {.model = open_model(folders[f])};
        ef_image *image = open_image(PHOTO);
        const ef_request requests[] = {{.task = EF_ASK, .text = QUESTION, .image = image},
                                       {.task = EF_ASK, .text = "", .image = image},
                                       {.task = EF_COMPLETE, .text = "One, two, three"}};
        ef_options o = ef_options_default();
        o.beam = o.samples = 2, o.steps = 7, o.temperature = 0.5f, o.seed = 3;
        check_ok(ef_answer(steps.model, requests, 3, &o, &plain, &err), &err);
        o.on_step = callback, o.user = &steps;
        check_ok(ef_answer(steps.model, requests, 3, &o, &a, &err), &err);
        assert_int_equal(steps.calls, 2 * 4 * 7);
        for (int h = 0; h < 4; h++) assert_int_equal(steps.last[1][h], 0);
        for (int r = 0; r < 3; r += 2) {
            char joined[200] = "";
            bool found = false;
            same_answer(a, (size_t)r, plain, (size_t)r);
            const ef_token *tokens = ef_answer_tokens(a, (size_t)r);
            for (int i = 0; i < ef_answer_length(a, (size_t)r); i++)
                strcat(joined, tokens[i].piece);
            for (int h = 0; h < 4; h++) found |= !strcmp(joined, steps.text[r][h]);
            assert_true(found); /* the best one's last step is the answer */
        }
        ef_answers_close(a), ef_answers_close(plain);
        ef_image_close(image);
        ef_model_close(steps.model);
    }
}

static void test_cancel(void **state) {
    (void)state;
    ef_error err;
    ef_answers *a = NULL;
    Steps steps = {.cancel_at = 3};
    ef_model *model = open_model(BUNDLED);
    ef_options o = ef_options_default();
    check_ok(ef_cancellation_new(&steps.cancellation, &err), &err);
    o.on_step = callback, o.user = &steps, o.cancellation = steps.cancellation;
    assert_int_equal(ef_cancelled(steps.cancellation), 0);
    check_failed(ef_complete(model, "One, two,", 5, &o, &a, &err), &err, a, "cancelled");
    assert_int_equal(steps.calls, 3);
    assert_int_equal(ef_cancelled(steps.cancellation), 1);
    check_failed(ef_complete(model, "One, two,", 5, &o, &a, &err), &err, a, "cancelled");
    assert_int_equal(steps.calls, 3); /* before anything is computed */
    o.cancellation = NULL, steps.cancel_at = 0, steps.last[0][0] = 0;
    check_ok(ef_complete(model, "One, two,", 5, &o, &a, &err), &err);
    ef_answers_close(a);
    ef_cancellation_close(steps.cancellation);
    ef_model_close(model);
}

/* ---- Threads. ---- */

typedef struct Asker {
    ef_model *model;
    const ef_image *image;
    const char *question;
    char answer[4][200];
    const char *failed;
    ef_error err;
} Asker;

static void *ask_often(void *argument) {
    Asker *asker = argument;
    for (int i = 0; i < 4; i++) {
        ef_answers *a;
        if (ef_ask(asker->model, asker->image, asker->question, NULL, &a, &asker->err)) {
            asker->failed = asker->err.text;
            return NULL;
        }
        snprintf(asker->answer[i], sizeof asker->answer[i], "%s", ef_answer_text(a, 0));
        ef_answers_close(a);
    }
    return NULL;
}

/* Two threads with one model and one with another, about two images. */
static void test_threads(void **state) {
    (void)state;
    ef_error err;
    ef_model *first = open_model(BUNDLED), *second = open_model(folders[0]);
    ef_image *photo = open_image(PHOTO), *grey = open_image(IMAGES "grey.jpg");
    Asker askers[3] = {{.model = first, .image = photo, .question = QUESTION},
                       {.model = first, .image = grey, .question = "Which colour is it?"},
                       {.model = second, .image = photo, .question = QUESTION}};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &askers[i]), 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        ef_answers *a;
        if (askers[i].failed) fail_msg("thread %d: %s", i, askers[i].failed);
        check_ok(ef_ask(askers[i].model, askers[i].image, askers[i].question, NULL, &a, &err),
                 &err);
        for (int k = 0; k < 4; k++) assert_string_equal(askers[i].answer[k], ef_answer_text(a, 0));
        ef_answers_close(a);
    }
    ef_image_close(photo), ef_image_close(grey);
    ef_model_close(first), ef_model_close(second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),         cmocka_unit_test(test_model_errors),
        cmocka_unit_test(test_earlier_options), cmocka_unit_test(test_image_errors),
        cmocka_unit_test(test_option_errors),   cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_ownership),       cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_single_errors),   cmocka_unit_test(test_long_prompt),
        cmocka_unit_test(test_images),          cmocka_unit_test(test_steps),
        cmocka_unit_test(test_cancel),          cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
