/* Templates (projector/template.h): parsing, tokens, lengths of gaps, texts; and answers that fill
 * them, by tiny models with random weights. */
#include <math.h>

#include "projector/answers.h"
#include "tests/golden_models.h"

#define TOKENIZER "tests/golden/tokenizer/sentencepiece.bpe.model"

static int below(TestRandom *random, int n) {
    return (int)(test_random_uniform(random) * n);
}

static Tokenizer *tokenizer;

static int open_tokenizer(void **state) {
    (void)state;
    Error err;
    assert_ok(tokenizer_open(&tokenizer, TOKENIZER, &err), &err);
    return 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

/* ---- Parsing. ---- */

/* A template's parts in one line: texts in quotes, gaps as numbers, 0 for open ones. */
static void assert_parts(const char *text, const char *expected) {
    Template t;
    Error err;
    char out[512] = "";
    assert_ok(template_parse(&t, text, &err), &err);
    for (int i = 0; i < t.count; i++) {
        size_t used = strlen(out);
        if (t.parts[i].text)
            snprintf(out + used, sizeof out - used, "\"%s\"", t.parts[i].text);
        else
            snprintf(out + used, sizeof out - used, "%d", t.parts[i].tokens);
    }
    if (strcmp(out, expected)) fail_msg("%s: %s, not %s", text, out, expected);
    template_free(&t);
}

static void parts_are_found(void **state) {
    (void)state;
    assert_parts("The ___ is.", "\"The \"0\" is.\"");
    assert_parts("___", "0");
    assert_parts("_______", "0");
    assert_parts("a __ b_c", "\"a __ b_c\"");
    assert_parts("___{3}x", "3\"x\"");
    assert_parts("___{3}___{12}____", "3120");
    assert_parts("un___able", "\"un\"0\"able\"");
    assert_parts("\\___", "\"___\"");
    assert_parts("\\_____{2}", "\"_____{2}\"");
    assert_parts("\\\\___", "\"\\\"0");
    assert_parts("\\\\\\___", "\"\\___\"");
    assert_parts("a\\b \\_ \\\\ \\", "\"a\\b \\_ \\\\ \\\"");
    assert_parts("___\\{3}", "0\"{3}\"");
    assert_parts("___{1}{2}", "1\"{2}\"");
    assert_parts("a <mask>b<mask>", "\"a \"1\"b\"1");
    assert_parts("<mas <mask", "\"<mas <mask\"");
    assert_parts("\xe2\x82\xac___\n\r\n___", "\"\xe2\x82\xac\"0\"\n\r\n\"0");
}

static void odd_templates_are_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "empty"},
        {"no gap", "no gap"},
        {"\\___ __", "no gap"},
        {"___ ___{0}", "gap 2 has a length of 0"},
        {"___{1000001}", "1000001 tokens"},
        {"___{99999999999999999999}", "99999999999999999999 tokens"},
        {"___{", "followed by \"{\""},
        {"___{}", "\"{}\""},
        {"___{x}", "\"{x}\""},
        {"___{-1}", "\"{-1}\""},
        {"___{ 1}", "a number of tokens expected"},
        {"___{3", "as in ___{3}"},
        {"___{999999}___{999999}", "more than 1000000"},
        {"a\xff___", "byte 1 (0xFF)"},
        {"___\xc3", "byte 3 (0xC3)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Template t;
        Error err;
        assert_refused(template_read(&t, tokenizer, cases[i][0], &err), &err, cases[i][1]);
        assert_true(t.count == 0 && !t.parts && !t.ids.ids);
    }
}

/* ---- Tokens. ---- */

static void assert_pieces(const char *text, const char *expected) {
    Template t;
    Error err;
    char out[512] = "";
    assert_ok(template_read(&t, tokenizer, text, &err), &err);
    for (size_t i = 0; i < t.ids.count; i++) {
        strncat(out, i ? " " : "", sizeof out - strlen(out) - 1);
        strncat(out, tokenizer_piece(tokenizer, t.ids.ids[i]), sizeof out - strlen(out) - 1);
    }
    if (strcmp(out, expected)) fail_msg("%s: %s, not %s", text, out, expected);
    template_free(&t);
}

#define SPACE "\xe2\x96\x81"

/* Text after a gap begins a word only where it begins with white space. */
static void text_after_a_gap_continues_it(void **state) {
    (void)state;
    assert_pieces("The ___ is", SPACE "The " SPACE "is");
    assert_pieces("The ___.", SPACE "The .");
    assert_pieces("___, the", ", " SPACE "the");
    assert_pieces("___\nthe", SPACE "the");
    assert_pieces("___ ___ ___", "");
    assert_pieces("<mask>\xe2\x98\x83 the", "<unk> " SPACE "the"); /* a snowman */
    Template whole, part;
    Error err;
    static const char *const rests[] = {"able", "s", "ing the", "-like", "\xc3\xa4 x", "1,000"};
    for (size_t i = 0; i < sizeof rests / sizeof *rests; i++) {
        char text[64];
        snprintf(text, sizeof text, "___%s", rests[i]);
        assert_ok(template_read(&part, tokenizer, text, &err), &err);
        assert_true(part.ids.count > 0);
        assert_true(strncmp(tokenizer_piece(tokenizer, part.ids.ids[0]), SPACE, 3) != 0);
        /* Its tokens are the text. */
        char *decoded;
        assert_ok(tokenizer_decode(tokenizer, part.ids.ids, part.ids.count, &decoded, &err), &err);
        assert_string_equal(decoded, rests[i]);
        free(decoded);
        template_free(&part);
        snprintf(text, sizeof text, "___ %s", rests[i]);
        assert_ok(template_read(&whole, tokenizer, text, &err), &err);
        assert_int_equal(strncmp(tokenizer_piece(tokenizer, whole.ids.ids[0]), SPACE, 3), 0);
        template_free(&whole);
    }
}

/* ---- Lengths. ---- */

static int lengths_of(const char *text, int beam, int total, const float *logits, int classes,
                      int longest, int *lengths) {
    Template t;
    Error err;
    assert_ok(template_read(&t, tokenizer, text, &err), &err);
    int count = template_lengths(&t, beam, total, logits, classes, longest, lengths, &err);
    for (int i = 0; i < count; i++) {
        int length = template_length(&t, lengths + i * t.gaps);
        assert_true(length <= longest && (!total || length == total));
        for (int k = 0; k < i; k++)
            assert_true(t.open_gaps == 0 || memcmp(lengths + i * t.gaps, lengths + k * t.gaps,
                                                   (size_t)t.gaps * sizeof *lengths) != 0);
    }
    template_free(&t);
    return count;
}

static void lengths_are_tried_in_order(void **state) {
    (void)state;
    int l[512 * 4];
    assert_int_equal(lengths_of("The ___{2} is", 8, 0, NULL, 0, 50, l), 1);
    assert_int_equal(l[0], 2);
    assert_int_equal(lengths_of("The ___ is", 5, 0, NULL, 0, 50, l), 5);
    for (int i = 0; i < 5; i++) assert_int_equal(l[i], i + 1);
    assert_int_equal(lengths_of("The ___ is", 5, 0, NULL, 0, 4, l), 2); /* no more fit */
    assert_int_equal(lengths_of("The ___ is", 5, 0, NULL, 0, 2, l), 0);
    assert_int_equal(lengths_of("The ___ is", 5, 9, NULL, 0, 50, l), 1);
    assert_int_equal(l[0], 7);
    /* Three gaps, 8 combinations: 111, then 4, then 5 tokens, three of each at most. */
    static const int expected[8][3] = {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {1, 1, 2},
                                       {2, 2, 1}, {3, 1, 1}, {2, 1, 2}, {2, 2, 2}};
    assert_int_equal(lengths_of("___ ___ ___", 8, 0, NULL, 0, 50, l), 8);
    int sums[8] = {3, 4, 4, 4, 5, 5, 5, 6};
    for (int i = 0; i < 8; i++) assert_int_equal(l[3 * i] + l[3 * i + 1] + l[3 * i + 2], sums[i]);
    assert_memory_equal(l, expected, 5 * sizeof expected[0]);
    assert_memory_equal(l + 21, expected[7], sizeof expected[7]);
    /* All 6 spreads of 5 tokens, and no more. */
    assert_int_equal(lengths_of("___ ___ ___", 512, 5, NULL, 0, 50, l), 6);
    /* A predictor's likeliest total that has room for the template comes first. */
    float logits[10] = {9, 8, 0, 1, 5, 2, 3, -1, -2, -3};
    assert_int_equal(lengths_of("The ___ is", 4, 0, logits, 10, 50, l), 4);
    static const int likely[] = {3, 5, 4, 2}; /* totals 5, 7, 6, 4 */
    assert_memory_equal(l, likely, sizeof likely);
    assert_int_equal(lengths_of("The ___ is", 3, 0, logits, 2, 50, l), 3); /* it has none */
    assert_int_equal(l[0], 1);
}

/* ---- Texts. ---- */

/* What is given is repeated byte for byte, white space next to gaps included. */
static void texts_keep_what_is_given(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"The ___{1} is", "dog", "The dog is"},
        {"un___{1}able", "dog", "undogable"},
        {" a  ___{1}\tb ", "dog", " a  dog\tb "},
        {"___{1}.", "the", "the."},
        {"\xef\xac\x81 ___{1}\xe2\x98\x83", "the", "\xef\xac\x81 the\xe2\x98\x83"}, /* ligature */
        {"\\___ ___{1}", "the", "___ the"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Template t;
        Error err;
        Ids word = {0};
        char *text;
        int32_t canvas[64];
        int one = 1;
        assert_ok(template_read(&t, tokenizer, cases[i][0], &err), &err);
        assert_ok(tokenizer_encode(tokenizer, cases[i][1], strlen(cases[i][1]), &word, &err), &err);
        int32_t mask = tokenizer_mask_id(tokenizer);
        int length = template_length(&t, &one);
        assert_true(word.count == 1 && length <= 64 && length == template_least(&t));
        template_canvas(&t, &one, mask, canvas);
        for (int k = 0; k < length; k++)
            if (canvas[k] == mask) canvas[k] = word.ids[0];
        assert_ok(template_text(&t, tokenizer, &one, canvas, &text, &err), &err);
        assert_string_equal(text, cases[i][2]);
        free(text), ids_free(&word);
        template_free(&t);
    }
}

/* ---- Answers. ---- */

static void random_template(char *out, size_t size, TestRandom *random) {
    static const char *const parts[] = {"the",    " dog",  "ing",      " ",       ". ",
                                        "___",    " ___ ", "___",      "___{2} ", " ___{1}",
                                        "\\____", "\n",    "\xc3\xa4", " is"};
    out[0] = 0;
    for (int n = 1 + below(random, 7); n > 0; n--)
        strncat(out, parts[below(random, (int)(sizeof parts / sizeof *parts))],
                size - strlen(out) - 1);
    strncat(out, " ___", size - strlen(out) - 1);
}

/* The text must be the template's texts, in order, with something between them. */
static void assert_fills(const Template *t, const char *text) {
    bool gap = false;
    for (int i = 0; i < t->count; i++) {
        const char *part = t->parts[i].text;
        if (part) {
            const char *at = gap ? strstr(text, part) : text;
            if (!at || strncmp(at, part, strlen(part))) fail_msg("\"%s\" is not in %s", part, text);
            text = at + strlen(part);
        }
        gap = part == NULL;
    }
}

static void check_answers(const char *folder, AttentionPattern pattern, uint64_t seed) {
    enum { COUNT = 24 };
    Fixture f;
    char templates[COUNT][128];
    AnswerRequest requests[COUNT];
    TestRandom random = {seed};
    Answers answers;
    Error err;
    fixture_open(&f, folder, "f32");
    f.model.parts.attention = pattern;
    for (int i = 0; i < COUNT; i++) {
        random_template(templates[i], sizeof templates[i], &random);
        requests[i] = (AnswerRequest){.prompt = i % 3 ? "What is it?" : "",
                                      .image = below(&random, 3) - 1,
                                      .answer_template = templates[i]};
    }
    AnswerOptions options = answer_options_default();
    options.length_beam = 3, options.decode.seed = seed;
    options.decode.temperature = seed % 2 ? 0.7f : 0;
    Tensor image = golden_image_tokens(&f.golden);
    assert_ok(multimodal_answer(&f.model.parts, image, requests, COUNT, &options, &answers, &err),
              &err);
    int32_t mask = tokenizer_mask_id(f.model.tokenizer);
    for (int i = 0; i < COUNT; i++) {
        const Answer *a = &answers.items[i];
        if (a->error) fail_msg("%s: %s", templates[i], a->error);
        assert_fills(a->template, a->text);
        for (int h = a->first; h < a->first + a->count; h++) {
            const DecodeResult *r = &answers.results[h];
            const int32_t *fixed = answers.specs[h].fixed;
            for (int k = 0; k < r->length; k++)
                assert_true(fixed[k] == mask ? r->tokens[k] != mask : r->tokens[k] == fixed[k]);
        }
        /* None depends on the others. */
        Answers alone;
        assert_ok(multimodal_answer(&f.model.parts, image, &requests[i], 1, &options, &alone, &err),
                  &err);
        assert_string_equal(alone.items[0].text, a->text);
        answers_free(&alone);
    }
    answers_free(&answers);
    fixture_close(&f);
}

static void answers_fill_templates(void **state) {
    (void)state;
    static const char *const folders[] = {"tests/golden/models/tiny-base",
                                          "tests/golden/models/tiny-xl"};
    for (int i = 0; i < 4; i++)
        check_answers(folders[i % 2], i < 2 ? ATTENTION_FULL : ATTENTION_BLOCK_CAUSAL,
                      (uint64_t)(i + 5));
}

static void odd_requests_are_refused(void **state) {
    (void)state;
    Fixture f;
    fixture_open(&f, "tests/golden/models/tiny-base", "f32");
    static const struct {
        const char *prompt, *text, *word;
        int length;
    } cases[] = {
        {"What?", "", "template is empty", 0},
        {"What?", "none", "no gap", 0},
        {"What?", "___{99999}", "does not fit", 0},
        {"What?", "___{0}", "length of 0", 0},
        {"What?", "a\xff___", "UTF-8", 0},
        {" ", "___", "prompt is empty", 0},
        {"What?", "___{2}", "has 2 tokens, and an answer of 3", 3},
        {"What?", "the ___{2} ___", "at least 4 tokens, and an answer of 3", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        AnswerRequest r = {.prompt = cases[i].prompt,
                           .image = -1,
                           .length = cases[i].length,
                           .answer_template = cases[i].text};
        Error err;
        assert_refused(multimodal_check(&f.model.parts, &r, NULL, &err), &err, cases[i].word);
    }
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_found),
        cmocka_unit_test(odd_templates_are_refused),
        cmocka_unit_test(text_after_a_gap_continues_it),
        cmocka_unit_test(lengths_are_tried_in_order),
        cmocka_unit_test(texts_keep_what_is_given),
        cmocka_unit_test(answers_fill_templates),
        cmocka_unit_test(odd_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
