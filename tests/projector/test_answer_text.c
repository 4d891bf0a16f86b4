/* The tokens of given answers: to encoders with byte-level BPE they are after a space, in training,
 * choices, likelihoods and templates alike. */
#include "projector/answer_text.h"

#include "projector/choices.h"
#include "projector/examples.h"
#include "projector/likelihood.h"
#include "projector/model.h"
#include "tests/matrix.h"
#include "tests/opened.h"
#include "tests/test.h"

#define ENCODERS "tests/golden/encoders/"

static const struct Kind {
    const char *folder;
    bool spaced;
} kinds[] = {
    {ENCODERS "roberta", true},
    {ENCODERS "modernbert", true},
    {ENCODERS "bert", false},
    {"tests/golden/models/tiny-base", false},
    {"tests/golden/llama/folders/llada", false},
    {"tests/golden/causal/qwen2", false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const char *const prompts[] = {"What is it", "What is it?", "Say: ", "Say:\n", "", "x\t"};
enum { PROMPTS = sizeof prompts / sizeof *prompts };

static Ids ids_of(const Tokenizer *t, const char *text) {
    Error err;
    Ids ids = {0};
    assert_ok(tokenizer_encode(t, text, strlen(text), &ids, &err), &err);
    return ids;
}

/* What an answer's tokens are to be. */
static Ids wanted(const struct Kind *k, const Tokenizer *t, const char *prompt, const char *text) {
    char after[64];
    const size_t n = strlen(prompt);
    const bool spaced = k->spaced && n && !strchr(" \n\t", prompt[n - 1]) && *text != ' ';
    snprintf(after, sizeof after, "%s%s", spaced ? " " : "", text);
    return ids_of(t, after);
}

static void check_ids(const Ids *want, const int32_t *ids, size_t count) {
    assert_int_equal(count, want->count);
    assert_memory_equal(ids, want->ids, count * sizeof *ids);
}

/* The rule itself makes a difference, and decoding drops the space. */
static void test_space(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Opened o;
        opened_open(&o, kinds[k].folder);
        const Tokenizer *t = o.model.tokenizer;
        const LanguageModel *m = &o.model.parts.language;
        assert_false(answer_after_space(m, t, NULL));
        for (int p = 0; p < PROMPTS; p++) {
            Error err;
            Ids ids = {0}, want = wanted(&kinds[k], t, prompts[p], "the dog"),
                bare = ids_of(t, "the dog");
            const bool spaced = answer_after_space(m, t, prompts[p]);
            assert_int_equal(spaced, kinds[k].spaced && p < 2);
            assert_ok(answer_text_encode(t, spaced, "the dog", 7, &ids, &err), &err);
            check_ids(&want, ids.ids, ids.count);
            assert_int_equal(ids.ids[0] != bare.ids[0], spaced);
            char *text, *plain;
            assert_ok(tokenizer_decode(t, ids.ids, ids.count, &text, &err), &err);
            assert_ok(tokenizer_decode(t, bare.ids, bare.count, &plain, &err), &err);
            assert_string_equal(text, plain);
            free(text), free(plain);
            const size_t before = ids.count;
            assert_ok(answer_text_encode(t, spaced, "", 0, &ids, &err), &err);
            assert_int_equal(ids.count, before);
            ids_free(&ids), ids_free(&want), ids_free(&bare);
        }
        opened_close(&o);
    }
}

/* Examples of every prompt, whose answers also end as before; a caption without its question, and a
 * text by itself, have no prompt. */
static void test_examples(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Opened o;
        Examples examples = {0};
        opened_open(&o, kinds[k].folder);
        ExampleConfig config = {
            .tokenizer = o.model.tokenizer, .longest = 40, .language = o.model.parts.language};
        for (int way = 0; way < 2 * PROMPTS; way++) {
            Error err;
            Skipped skipped = {0};
            RecordTurn turn = {prompts[way / 2], way % 4 < 2 ? "the dog" : " the dog"};
            const Record record = {.id = "1", .turns = &turn, .count = 1};
            config.plain = way % 2;
            assert_ok(examples_make(&examples, &record, &config, "x", &skipped, &err), &err);
            assert_int_equal(examples.count, 1);
            const ExampleTurn *made = examples.items[0].turns;
            Ids want =
                wanted(&kinds[k], config.tokenizer, way % 2 ? "" : prompts[way / 2], turn.response);
            check_ids(&want, made->answer, (size_t)made->answer_count - 1);
            ids_free(&want);
        }
        examples_free(&examples);
        opened_close(&o);
    }
}

/* The end-of-text token is in the canvas of masked diffusion of LLaMA's kind, as in training, and in no
 * other. */
static void test_lengths(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Opened o;
        opened_open(&o, kinds[k].folder);
        for (int p = 0; p < PROMPTS; p++) {
            Error err;
            int length, none;
            Ids want = wanted(&kinds[k], o.model.tokenizer, prompts[p], "the dog");
            assert_ok(answer_target_length(&o.model.parts, prompts[p], "the dog", &length, &err),
                      &err);
            assert_ok(answer_target_length(&o.model.parts, prompts[p], "", &none, &err), &err);
            assert_int_equal(length, (int)want.count + (k == 4));
            assert_int_equal(none, 1 + (k == 4));
            ids_free(&want);
        }
        opened_close(&o);
    }
}

static void check_choices(const Opened *o, const struct Kind *k, const char *prompt) {
    static const char *const texts[] = {"the dog", "no"};
    Error err;
    Choices choices;
    const ChoiceRequest request = {.prompt = prompt, .image = -1, .choices = texts, .count = 2};
    assert_ok(multimodal_choose(&o->model.parts, TENSOR_NONE, &request, 1, &(ChoiceOptions){0},
                                &choices, &err),
              &err);
    if (choices.items[0].answer.error) fail_msg("%s", choices.items[0].answer.error);
    for (int i = 0; i < 2; i++) {
        Ids want = wanted(k, o->model.tokenizer, prompt, texts[i]);
        const ChoiceScore *s = &choices.items[0].scores[i];
        check_ids(&want, s->tokens, (size_t)s->length);
        ids_free(&want);
    }
    choices_free(&choices);
}

static void check_likelihood(const Opened *o, const struct Kind *k, const char *prompt) {
    Error err;
    Likelihood out;
    const LikelihoodRequest r = {.prompt = prompt, .image = -1, .text = "the dog"};
    assert_ok(multimodal_likelihood(&o->model.parts, TENSOR_NONE, &r, 1,
                                    &(LikelihoodSettings){.options = {.samples = 2}}, &out, NULL,
                                    &err),
              &err);
    if (out.error) fail_msg("%s", out.error);
    Ids want = wanted(k, o->model.tokenizer, prompt, "the dog");
    assert_int_equal(out.tokens, want.count);
    ids_free(&want);
    likelihoods_free(&out, 1);
}

/* Of a model that was trained with padded answers, choices, texts and targets are padded as its examples
 * are. */
static void test_padded(void **state) {
    (void)state;
    static const char *const texts[] = {"the dog", "no"};
    enum { PAD = 11 };
    for (int k = 0; k < KINDS; k++) {
        Opened o;
        Error err;
        Choices choices;
        Likelihood likelihood;
        Examples examples = {0};
        Skipped skipped = {0};
        int length;
        opened_open(&o, kinds[k].folder);
        Multimodal *m = &o.model.parts;
        if (m->language.end < 0) {
            opened_close(&o);
            continue;
        }
        m->pad_answers = PAD;
        const ChoiceRequest request = {
            .prompt = "a cat", .image = -1, .choices = texts, .count = 2};
        assert_ok(
            multimodal_choose(m, TENSOR_NONE, &request, 1, &(ChoiceOptions){0}, &choices, &err),
            &err);
        if (choices.items[0].answer.error) fail_msg("%s", choices.items[0].answer.error);
        const LikelihoodRequest r = {.prompt = "a cat", .image = -1, .text = texts[0]};
        assert_ok(multimodal_likelihood(m, TENSOR_NONE, &r, 1,
                                        &(LikelihoodSettings){.options = {.samples = 2}},
                                        &likelihood, NULL, &err),
                  &err);
        assert_int_equal(likelihood.tokens, PAD);
        for (int i = 0; i < 2; i++) {
            RecordTurn turn = {"a cat", texts[i]};
            const Record record = {.id = "1", .turns = &turn, .count = 1};
            const ExampleConfig config = {.tokenizer = o.model.tokenizer,
                                          .longest = 40,
                                          .language = m->language,
                                          .pad_answers = PAD};
            assert_ok(examples_make(&examples, &record, &config, "x", &skipped, &err), &err);
            const ExampleTurn *made = examples.items[0].turns;
            const ChoiceScore *s = &choices.items[0].scores[i];
            assert_int_equal(s->length, PAD);
            assert_int_equal(made->answer_count, PAD + 1);
            assert_memory_equal(s->tokens, made->answer, PAD * sizeof *s->tokens);
            assert_int_equal(s->tokens[PAD - 1], m->language.end);
            assert_ok(answer_target_length(m, "a cat", texts[i], &length, &err), &err);
            assert_int_equal(length, PAD);
        }
        choices_free(&choices);
        likelihoods_free(&likelihood, 1);
        examples_free(&examples);
        opened_close(&o);
    }
}

static void check_template(const Opened *o, const struct Kind *k, const char *prompt) {
    Error err;
    Answer answer;
    const AnswerRequest r = {.prompt = prompt, .image = -1, .answer_template = "the ___{2} dog"};
    Prompts encoded;
    assert_ok(
        prompts_encode(&encoded, &o->model.parts, &r, 1, 0, LONG_PROMPTS_REFUSE, &answer, &err),
        &err);
    if (answer.error) fail_msg("%s", answer.error);
    Ids want = wanted(k, o->model.tokenizer, prompt, "the");
    const Ids *got = &answer.template->ids;
    assert_true(got->count > want.count);
    const bool same = !memcmp(got->ids, want.ids, (want.count - 1) * sizeof *want.ids);
    assert_true(same && got->ids[0] == want.ids[0]);
    ids_free(&want);
    prompts_free(&encoded);
    answer_template_free(answer.template);
}

static void test_answers(void **state) {
    (void)state;
    for (int k = 0; k < 5; k++) { /* the last is autoregressive */
        Opened o;
        opened_open(&o, kinds[k].folder);
        o.model.parts.length = NULL;
        for (int p = 0; p < PROMPTS; p++) {
            if (k < 4) check_choices(&o, &kinds[k], prompts[p]);
            check_likelihood(&o, &kinds[k], prompts[p]);
            check_template(&o, &kinds[k], prompts[p]);
        }
        opened_close(&o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_space),   cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_padded),  cmocka_unit_test(test_examples),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
