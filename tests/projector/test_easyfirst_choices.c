/* The public library: answers that are chosen from given ones. */
#include <math.h>

#include "tests/projector/easyfirst_test.h"

/* ef_choice and the getters of one answer agree with each other. */
static void check_chosen(const ef_answers *a, size_t i, const char *const *choices, size_t count) {
    double sum = 0, most = -INFINITY, mean = 0;
    int best = -1;
    assert_int_equal(ef_answer_choices(a, i), count);
    assert_null(ef_answer_error(a, i));
    assert_int_equal(ef_answer_code(a, i), EF_OK);
    for (size_t c = 0; c < count; c++) {
        const ef_choice *choice = ef_answer_choice(a, i, c);
        double score = choice->length_score;
        assert_string_equal(choice->text, choices[c]);
        check_tokens(choice->tokens, choice->length);
        for (int k = 0; k < choice->length; k++) score += (double)choice->tokens[k].score;
        assert_true(fabs(score - choice->score) < 1e-3);
        sum += choice->probability;
        if (choice->score > most) most = choice->score, best = (int)c;
    }
    assert_true(fabs(sum - 1) < 1e-9);
    assert_null(ef_answer_choice(a, i, count));
    assert_int_equal(ef_answer_chosen(a, i), best);
    assert_string_equal(ef_answer_text(a, i), choices[best]);
    assert_int_equal(ef_answer_hypotheses(a, i), 1);
    assert_int_equal(ef_answer_best(a, i), 0);
    const ef_choice *chosen = ef_answer_choice(a, i, (size_t)best);
    assert_int_equal(ef_answer_length(a, i), chosen->length);
    for (int k = 0; k < chosen->length; k++) {
        assert_int_equal(ef_answer_tokens(a, i)[k].id, chosen->tokens[k].id);
        mean += (double)chosen->tokens[k].score / chosen->length;
    }
    assert_true(fabs(mean - ef_answer_score(a, i)) < 1e-4);
    assert_true(isnan(ef_answer_probability(a, i)));
    assert_true(ef_answer_evaluations(a, i) >= 1);
}

/* Requests with and without choices, with and without images, in one call and alone. */
static void mixed_requests(void **state) {
    (void)state;
    static const char *const sides[] = {"left", "right", "on the left"}, *const one[] = {"dog"};
    for (int m = 0; m < FOLDERS; m++) {
        ef_error err;
        ef_model *model = open_model(folders[m]);
        ef_image *image = open_image(PHOTO);
        const ef_request requests[] = {
            {.task = EF_ASK, .text = QUESTION, .image = image, .length = 4},
            {.task = EF_ASK, .text = QUESTION, .image = image, .choices = sides, .choice_count = 3},
            {.task = EF_COMPLETE, .text = "the dog is", .choices = sides, .choice_count = 3},
            {.task = EF_COMPLETE, .text = "the dog is", .length = 3},
            {.task = EF_COMPLETE, .text = "the dog is", .choices = one, .choice_count = 1},
            {.task = EF_COMPLETE, .text = "the dog is", .choices = sides, .choice_count = 0},
        };
        ef_answers *all, *alone;
        check_ok(ef_answer(model, requests, 6, NULL, &all, &err), &err);
        check_chosen(all, 1, sides, 3), check_chosen(all, 2, sides, 3),
            check_chosen(all, 4, one, 1);
        assert_true(ef_answer_choice(all, 4, 0)->probability == 1);
        assert_non_null(strstr(ef_answer_error(all, 5), "no choices"));
        assert_int_equal(ef_answer_chosen(all, 5), -1);
        assert_int_equal(ef_answers_work(all)->answered, 5);
        for (int i = 0; i < 5; i++) {
            check_ok(ef_answer(model, &requests[i], 1, NULL, &alone, &err), &err);
            assert_string_equal(ef_answer_text(alone, 0), ef_answer_text(all, (size_t)i));
            for (size_t c = 0; c < ef_answer_choices(alone, 0); c++)
                assert_true(fabs(ef_answer_choice(alone, 0, c)->score -
                                 ef_answer_choice(all, (size_t)i, c)->score) < 0.05);
            assert_int_equal(ef_answer_choices(alone, 0), ef_answer_choices(all, (size_t)i));
            ef_answers_close(alone);
        }
        assert_int_equal(ef_answer_choices(all, 0), 0);
        assert_int_equal(ef_answer_chosen(all, 3), -1);
        ef_model_close(model), ef_image_close(image); /* the answers keep what they need */
        check_chosen(all, 1, sides, 3);
        ef_answers_close(all);
    }
}

/* The same call gives the same bits. */
static void nothing_is_random(void **state) {
    (void)state;
    static const char *const choices[] = {"red", "green", "two red balls", "dark blue"};
    ef_error err;
    ef_model *model = open_model(BUNDLED);
    ef_image *image = open_image(PHOTO);
    ef_answers *a, *b;
    ef_options options = ef_options_default();
    check_ok(ef_choose(model, image, "What color is the tractor?", choices, 4, NULL, &a, &err),
             &err);
    options.seed = 7, options.steps = 3, options.temperature = 1, options.samples = 5;
    check_ok(ef_choose(model, image, "What color is the tractor?", choices, 4, &options, &b, &err),
             &err);
    assert_string_equal(ef_answer_text(a, 0), "green");
    for (size_t c = 0; c < 4; c++)
        assert_true(ef_answer_choice(a, 0, c)->score == ef_answer_choice(b, 0, c)->score);
    ef_answers_close(a), ef_answers_close(b);
    ef_model_close(model), ef_image_close(image);
}

static void one_request(void **state) {
    (void)state;
    static const char *const odd[] = {"yes\tor\x1b[31m", "no"}, *const twice[] = {"no", "no"};
    ef_error err;
    ef_model *model = open_model(BUNDLED);
    ef_answers *a;
    check_ok(ef_choose(model, NULL, "Yes or no?", odd + 1, 1, NULL, &a, &err), &err);
    check_chosen(a, 0, odd + 1, 1);
    ef_answers_close(a);
    if (ef_choose(model, NULL, "Yes or no?", odd, 2, NULL, &a, &err) == 0) {
        check_chosen(a, 0, odd, 2); /* as given, control characters and all */
        ef_answers_close(a);
    } else
        assert_non_null(strstr(err.text, "does not know"));
    check_failed(ef_choose(model, NULL, "Yes or no?", twice, 2, NULL, &a, &err), &err, a,
                 "same as");
    check_failed(ef_choose(model, NULL, "Yes or no?", NULL, 0, NULL, &a, &err), &err, a,
                 "no choices");
    check_failed(ef_choose(model, NULL, "Yes or no?", NULL, 3, NULL, &a, &err), &err, a,
                 "no choices");
    check_failed(ef_choose(model, NULL, " ", odd + 1, 1, NULL, &a, &err), &err, a, "empty");
    check_failed(ef_choose(NULL, NULL, "A", odd + 1, 1, NULL, &a, &err), &err, a, "no model");
    const ef_request length = {
        .task = EF_COMPLETE, .text = "A", .length = 2, .choices = odd + 1, .choice_count = 1};
    check_ok(ef_answer(model, &length, 1, NULL, &a, &err), &err);
    assert_non_null(strstr(ef_answer_error(a, 0), "length of 2 tokens"));
    ef_answers_close(a);
    ef_model_close(model);
}

/* Before anything is computed. */
static void checks(void **state) {
    (void)state;
    static const char *const choices[] = {"yes", "no"}, *const wrong[] = {"yes", ""};
    static char text[2048];
    ef_error err;
    ef_model *model = open_model(MODELS "tiny-base");
    int tokens;
    ef_request r = {.task = EF_ASK, .text = QUESTION, .choices = choices, .choice_count = 2};
    check_ok(ef_check(model, &r, NULL, &tokens, &err), &err);
    assert_true(tokens > 0);
    r.choices = wrong;
    assert_int_equal(ef_check(model, &r, NULL, &tokens, &err), -1);
    assert_non_null(strstr(err.text, "choice 2"));
    for (int i = 0; i < 120; i++) strcat(text, "dog ");
    const char *const longest[] = {"yes", text};
    r.choices = longest;
    assert_int_equal(ef_check(model, &r, NULL, &tokens, &err), -1);
    assert_int_equal(err.code, EF_TOO_LONG);
    ef_model_close(model);
}

static void cancelled(void **state) {
    (void)state;
    static const char *const choices[] = {"yes", "no"};
    ef_error err;
    ef_model *model = open_model(MODELS "tiny-xl");
    ef_answers *a;
    ef_options options = ef_options_default();
    check_ok(ef_cancellation_new(&options.cancellation, &err), &err);
    ef_cancel(options.cancellation);
    check_failed(ef_choose(model, NULL, "A", choices, 2, &options, &a, &err), &err, a, "cancelled");
    assert_int_equal(err.code, EF_CANCELLED);
    check_ok(ef_choose(model, NULL, "A", choices, 2, NULL, &a, &err), &err);
    ef_answers_close(a);
    ef_cancellation_close(options.cancellation);
    ef_model_close(model);
}

static void getters_without_choices(void **state) {
    (void)state;
    assert_int_equal(ef_answer_choices(NULL, 0), 0);
    assert_null(ef_answer_choice(NULL, 0, 0));
    assert_int_equal(ef_answer_chosen(NULL, 0), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_requests), cmocka_unit_test(nothing_is_random),
        cmocka_unit_test(one_request),    cmocka_unit_test(checks),
        cmocka_unit_test(cancelled),      cmocka_unit_test(getters_without_choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
