/* Earlier turns before a question: the tokens that training has, and what does not fit. */
#include "tests/projector/easyfirst_test.h"

#include "projector/easyfirst_private.h"
#include "projector/examples.h"

enum { TURNS = 14, TEXT = 400, PIECES = 24 };

/* A conversation whose texts are its own. */
typedef struct Talk {
    RecordTurn record[TURNS];
    ef_turn turns[TURNS];
    char texts[TURNS][2][TEXT];
    int count;
} Talk;

static void random_text(char *out, int words, TestRandom *random) {
    static const char *const list[PIECES] = {
        "What",   "colour", "is",         "the",   "dog",     "Bild", "der",  "Hund?",
        "my",     "name",   "Übermorgen", "größe", "château", "3.5",  "red?", "sky's",
        "日本語", "-",      "\ttab ",     "a  b",  "left,",   "of",   "i",    "e\xcc\x81t\xc3\xa9"};
    out[0] = 0;
    for (int i = 0; i < words; i++) {
        if (i) strncat(out, " ", TEXT - strlen(out) - 1);
        strncat(out, list[test_random_next(random) % PIECES], TEXT - strlen(out) - 1);
    }
}

static void talk_random(Talk *t, int count, int words, TestRandom *random) {
    t->count = count;
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++)
            random_text(t->texts[i][k], 1 + (int)(test_random_next(random) % (unsigned)words),
                        random);
        t->record[i] = (RecordTurn){t->texts[i][0], t->texts[i][1]};
        t->turns[i] = (ef_turn){t->texts[i][0], t->texts[i][1]};
    }
}

/* The ids of a question after its turns, as an answer of `length` tokens would be asked for. */
static Prompts asked(ef_model *model, const Talk *t, int turn, const ef_image *image, int length,
                     Answer *answer) {
    Error err;
    Prompts prompts;
    RecordTurn *turns;
    char *prompt;
    const ef_request r = {.task = image ? EF_ASK : EF_COMPLETE,
                          .text = t->turns[turn].question,
                          .image = image,
                          .turns = t->turns,
                          .turn_count = (size_t)turn};
    assert_ok(request_prompt(model, &r, &prompt, &err), &err);
    assert_ok(request_turns(model, &r, &turns, &err), &err);
    const AnswerRequest request = {.prompt = prompt,
                                   .image = image ? 0 : -1,
                                   .length = length,
                                   .turns = turns,
                                   .turn_count = turn};
    assert_ok(prompts_encode(&prompts, &model->model.parts, &request, 1, 1, LONG_PROMPTS_REFUSE,
                             answer, &err),
              &err);
    request_turns_free(turns, (size_t)turn);
    free(prompt);
    return prompts;
}

/* Every turn of random conversations has in inference the tokens that it has in training with
 * `--context on`: models with and without an answer position, with and without an image, short
 * conversations and such that do not fit. */
static void test_as_in_training(void **state) {
    (void)state;
    TestRandom random = {21};
    ef_image *image = open_image(PHOTO);
    static Talk t;
    int kept_all = 0, dropped_some = 0, dropped_all = 0;
    for (int f = 0; f < FOLDERS; f++) {
        ef_model *model = open_model(folders[f]);
        Multimodal *m = &model->model.parts;
        const int longest = xlmr_longest(&m->language.xlmr->config);
        for (int round = 0; round < 40; round++) {
            const bool sees = round % 2;
            m->answer_position = round % 4 < 2 ? 0 : longest - longest / 4;
            Examples examples = {0};
            Skipped skipped = {0};
            Error err;
            talk_random(&t, 1 + round % TURNS, 3 + round * longest / 400, &random);
            const Record record = {
                .id = "", .image = sees ? "a.jpg" : NULL, .turns = t.record, .count = t.count};
            const ExampleConfig config = {.tokenizer = m->tokenizer,
                                          .longest = longest,
                                          .positions = longest,
                                          .answer_position = m->answer_position,
                                          .image_rows = multimodal_image_rows(m),
                                          .context = true,
                                          .long_prompts = LONG_PROMPTS_REFUSE};
            assert_ok(examples_make(&examples, &record, &config, "test", &skipped, &err), &err);
            for (int i = 0; i < examples.count; i++) {
                const ExampleTurn *turn = examples.items[i].turns;
                const int number = examples.items[i].turn;
                Answer answer;
                Prompts p =
                    asked(model, &t, number, sees ? image : NULL, turn->answer_count - 1, &answer);
                assert_null(answer.error);
                assert_int_equal(p.count, 1);
                assert_int_equal(p.items[0].count, turn->prompt_count);
                assert_memory_equal(p.items[0].ids, turn->prompt,
                                    (size_t)turn->prompt_count * sizeof(int32_t));
                assert_int_equal(answer.prompt_tokens, turn->prompt_count);
                assert_in_range(answer.dropped_turns, 0, number);
                kept_all += number && !answer.dropped_turns;
                dropped_all += number && answer.dropped_turns == number;
                dropped_some += answer.dropped_turns && answer.dropped_turns < number;
                prompts_free(&p);
            }
            examples_free(&examples);
        }
        ef_model_close(model);
    }
    assert_true(kept_all > 50 && dropped_some > 50 && dropped_all > 5);
    ef_image_close(image);
}

/* ---- What the library says. ---- */

static ef_answers *answer_of(ef_model *model, const ef_request *r) {
    ef_error err;
    ef_answers *a;
    check_ok(ef_answer(model, r, 1, NULL, &a, &err), &err);
    return a;
}

/* Turns are the text before the question, and count; those that do not fit are counted. */
static void test_text_before(void **state) {
    (void)state;
    ef_turn turns[40];
    for (int f = 0; f < FOLDERS; f++) {
        ef_model *model = open_model(folders[f]);
        ef_image *image = open_image(PHOTO);
        turns[0] = (ef_turn){"My name is Ada.", "Hello Ada."};
        turns[1] = (ef_turn){"Is it red?", "no"};
        ef_request r = {.task = EF_COMPLETE, .text = "What is it?", .length = 5, .turns = turns};
        ef_request whole = r;
        r.turn_count = 2;
        whole.text = "My name is Ada. Hello Ada. Is it red? no What is it?";
        for (int sees = 0; sees < 2; sees++) {
            if (sees) r.task = EF_ASK, r.image = image, whole.image = image;
            ef_answers *a = answer_of(model, &r), *b = answer_of(model, &whole);
            same_answer(a, 0, b, 0);
            assert_int_equal(ef_answer_prompt_tokens(a, 0), ef_answer_prompt_tokens(b, 0));
            assert_int_equal(ef_answer_dropped_turns(a, 0), 0);
            ef_answers_close(a), ef_answers_close(b);
        }
        /* As many of forty as fit: one more does not. */
        for (int i = 0; i < 40; i++)
            turns[i] = (ef_turn){"Which of the things in the image is the largest one of them all?",
                                 "a red tractor in front of the house"};
        r.turn_count = 40;
        ef_answers *a = answer_of(model, &r);
        const int dropped = ef_answer_dropped_turns(a, 0);
        assert_in_range(dropped, 1, 40);
        assert_null(ef_answer_error(a, 0));
        char text[16384] = "";
        for (int i = dropped - 1; i < 40; i++)
            strcat(strcat(strcat(strcat(text, turns[i].question), " "), turns[i].answer), " ");
        whole.text = strcat(text, r.text);
        ef_error err;
        assert_int_equal(ef_check(model, &whole, NULL, NULL, &err), -1);
        assert_int_equal(err.code, EF_TOO_LONG);
        int tokens;
        check_ok(ef_check(model, &r, NULL, &tokens, &err), &err);
        assert_int_equal(tokens, ef_answer_prompt_tokens(a, 0));
        ef_answers_close(a);
        /* The answer that is not given leaves less room, never more. */
        if (ef_model_has_length_predictor(model)) {
            r.length = 0;
            a = answer_of(model, &r);
            assert_in_range(ef_answer_dropped_turns(a, 0), dropped, 40);
            ef_answers_close(a);
        }
        assert_int_equal(ef_answer_dropped_turns(NULL, 0), 0);
        ef_image_close(image);
        ef_model_close(model);
    }
}

/* A turn without an answer, or with a mask in it, ends the context, as in training. */
static void test_unusable_turns(void **state) {
    (void)state;
    ef_model *model = open_model(folders[0]);
    const ef_turn turns[] = {
        {"red", "dog"}, {"sky", ""}, {"", "left"}, {"is", "<mask>"}, {"of", "3"}};
    ef_request r = {.task = EF_COMPLETE, .text = "Bild", .length = 3, .turns = turns};
    static const int dropped[] = {0, 0, 2, 2, 4, 4};
    for (size_t n = 0; n <= 5; n++) {
        r.turn_count = n;
        ef_answers *a = answer_of(model, &r);
        assert_int_equal(ef_answer_dropped_turns(a, 0), dropped[n]);
        ef_answers_close(a);
    }
    ef_model_close(model);
}

static void test_refused(void **state) {
    (void)state;
    ef_error err;
    ef_model *model = open_model(BUNDLED);
    const ef_turn bad[][2] = {{{"a", "b"}, {NULL, "c"}},
                              {{"a", "b"}, {"c", NULL}},
                              {{"a", "b"}, {"c\xff", "d"}},
                              {{"a", "b\xc3"}, {"c", "d"}}};
    static const char *const words[] = {"turn 2 has no question", "turn 2 has no answer",
                                        "turn 2: byte 1 (0xFF) of the question",
                                        "turn 1: byte 1 (0xC3) of the answer"};
    for (int i = 0; i < 4; i++) {
        ef_request r[2] = {{.task = EF_COMPLETE, .text = "x", .turns = bad[i], .turn_count = 2},
                           {.task = EF_COMPLETE, .text = "x"}};
        ef_answers *a;
        check_ok(ef_answer(model, r, 2, NULL, &a, &err), &err);
        assert_non_null(strstr(ef_answer_error(a, 0), words[i]));
        assert_int_equal(ef_answer_dropped_turns(a, 0), 2);
        assert_null(ef_answer_error(a, 1));
        ef_answers_close(a);
        check_failed(ef_check(model, r, NULL, NULL, &err), &err, NULL, words[i]);
    }
    ef_request r = {.task = EF_SUMMARIZE, .text = "x", .turns = bad[0], .turn_count = 1};
    check_failed(ef_check(model, &r, NULL, NULL, &err), &err, NULL, "only EF_ASK and EF_COMPLETE");
    r = (ef_request){.task = EF_COMPLETE, .text = "x", .turn_count = 1};
    check_failed(ef_check(model, &r, NULL, NULL, &err), &err, NULL, "NULL");
    /* The question itself must fit. */
    char text[8000];
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = "which one? "[i % 11];
    text[sizeof text - 1] = 0;
    r = (ef_request){.task = EF_COMPLETE, .text = text, .turns = bad[0], .turn_count = 1};
    check_failed(ef_check(model, &r, NULL, NULL, &err), &err, NULL, "shorten it");
    assert_int_equal(err.code, EF_TOO_LONG);
    ef_options o = ef_options_default();
    ef_answers *a;
    o.long_prompts = EF_LONG_KEEP_LAST;
    check_ok(ef_answer(model, &r, 1, &o, &a, &err), &err);
    assert_true(ef_answer_dropped_tokens(a, 0) > 0);
    assert_int_equal(ef_answer_dropped_turns(a, 0), 1);
    ef_answers_close(a);
    ef_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_in_training),
        cmocka_unit_test(test_text_before),
        cmocka_unit_test(test_unusable_turns),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
