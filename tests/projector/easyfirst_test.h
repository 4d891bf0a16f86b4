/* easyfirst_test.h - what the tests of the public library share. */
#ifndef EASYFIRST_TESTS_PROJECTOR_EASYFIRST_TEST_H
#define EASYFIRST_TESTS_PROJECTOR_EASYFIRST_TEST_H

#include "projector/easyfirst.h"

#include "tests/test.h"

#define MODELS   "tests/golden/models/"
#define IMAGES   "tests/golden/images/"
#define BUNDLED  "data/bundled/model"
#define PHOTO    "data/bundled/images/tractor.jpg"
#define QUESTION "What is this?"

static const char *const folders[] = {MODELS "tiny-base", MODELS "tiny-xl", BUNDLED};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

#define check_ok(call, error)                                      \
    do {                                                           \
        if ((call) != 0) fail_msg("%s: %s", #call, (error)->text); \
    } while (0)

/* The call failed and left nothing behind, with one line that has the word. */
#define check_failed(call, error, object, word)                                     \
    do {                                                                            \
        (error)->text[0] = 0;                                                       \
        if ((call) != -1) fail_msg("%s: should have failed", #call);                \
        if (!strstr((error)->text, word)) fail_msg("%s: %s", #call, (error)->text); \
        assert_null(strchr((error)->text, '\n'));                                   \
        assert_null(object);                                                        \
    } while (0)

/* On the CPU, whatever the machine has. */
static inline ef_model *open_model(const char *folder) {
    ef_error err;
    ef_model *model;
    ef_model_options options = ef_model_options_default();
    options.device = "cpu";
    check_ok(ef_model_open(folder, &options, &model, &err), &err);
    return model;
}

static inline ef_image *open_image(const char *path) {
    ef_error err;
    ef_image *image;
    check_ok(ef_image_open(path, &image, &err), &err);
    return image;
}

static inline void same_answer(const ef_answers *a, size_t i, const ef_answers *b, size_t k) {
    assert_non_null(ef_answer_text(a, i));
    assert_string_equal(ef_answer_text(a, i), ef_answer_text(b, k));
    assert_int_equal(ef_answer_length(a, i), ef_answer_length(b, k));
    assert_true(ef_answer_score(a, i) == ef_answer_score(b, k));
}

static inline void check_tokens(const ef_token *tokens, int length) {
    for (int i = 0; i < length; i++) {
        assert_non_null(tokens[i].piece);
        assert_true(tokens[i].probability >= 0 && tokens[i].probability <= 1);
        assert_int_equal(tokens[i].masked, !strcmp(tokens[i].piece, "<mask>"));
        if (tokens[i].masked) assert_true(tokens[i].probability == 0);
    }
}

#endif
