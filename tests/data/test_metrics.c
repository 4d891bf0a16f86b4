/* The metrics against what sacrebleu, rouge-score, NLTK and Python give (tests/golden/scores, made
 * by tests/reference/check_scores.py), and properties that hold for any text. */
#include <math.h>

#include <jansson.h>

#include "data/metrics/answers.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/porter.h"
#include "data/metrics/rouge.h"
#include "tests/test.h"

/* The metrics with references in columns: columns[c][i] is one of line i, NULL where it
 * has fewer. */

#define WITH_COLUMNS(call)                                               \
    References r;                                                        \
    TRY(references_from_columns(&r, columns, column_count, count, err)); \
    int status = call;                                                   \
    references_free(&r);                                                 \
    return status

static int bleu_columns(const char *const *hypotheses, const char *const *const *columns,
                        int column_count, int64_t count, const BleuOptions *options,
                        BleuScore *score, Error *err) {
    WITH_COLUMNS(bleu_corpus(hypotheses, &r, options, score, err));
}

static int chrf_columns(const char *const *hypotheses, const char *const *const *columns,
                        int column_count, int64_t count, const ChrfOptions *options,
                        ChrfScore *score, Error *err) {
    WITH_COLUMNS(chrf_corpus(hypotheses, &r, options, score, err));
}

static int rouge_columns(const char *const *hypotheses, const char *const *const *columns,
                         int column_count, int64_t count, bool stem, RougeScore *score,
                         Error *err) {
    WITH_COLUMNS(rouge_corpus(hypotheses, &r, stem, score, err));
}

static int rouge_lines_columns(const char *const *hypotheses, const char *const *const *columns,
                               int column_count, int64_t count, bool stem, RougeScore *scores,
                               Error *err) {
    WITH_COLUMNS(rouge_lines(hypotheses, &r, stem, scores, err));
}

#define SCORES "tests/golden/scores/"

enum { LINES_MOST = 256 };

typedef struct Golden {
    json_t *expected, *answers[LINES_MOST], *references[LINES_MOST];
    const char *hypotheses[LINES_MOST];
    const char *columns[2][LINES_MOST];
    const char *const *columns_of[2];
    int64_t count;
} Golden;

static json_t *json_file(const char *path) {
    json_error_t problem;
    json_t *json = json_load_file(path, 0, &problem);
    if (!json) fail_msg("%s: %s", path, problem.text);
    return json;
}

static int64_t read_records(const char *path, json_t **records) {
    FILE *file = fopen(path, "r");
    int64_t count = 0;
    if (!file) fail_msg("%s: not there", path);
    while (count < LINES_MOST && (records[count] = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)))
        count++;
    fclose(file);
    return count;
}

static int golden_setup(void **state) {
    Golden *g = calloc(1, sizeof *g);
    g->expected = json_file(SCORES "expected.json");
    g->count = read_records(SCORES "answers.jsonl", g->answers);
    assert_int_equal(read_records(SCORES "references.jsonl", g->references), g->count);
    assert_true(g->count > 50 && g->count < LINES_MOST);
    for (int64_t i = 0; i < g->count; i++) {
        json_t *targets = json_object_get(g->references[i], "targets");
        g->hypotheses[i] = json_string_value(json_object_get(g->answers[i], "answer"));
        g->columns[0][i] = json_is_array(targets) ? json_string_value(json_array_get(targets, 0))
                                                  : json_string_value(targets);
        g->columns[1][i] = json_string_value(json_array_get(targets, 1));
        assert_non_null(g->hypotheses[i]);
        assert_non_null(g->columns[0][i]);
    }
    for (int c = 0; c < 2; c++) g->columns_of[c] = g->columns[c];
    *state = g;
    return 0;
}

static int golden_teardown(void **state) {
    Golden *g = *state;
    for (int64_t i = 0; i < g->count; i++)
        json_decref(g->answers[i]), json_decref(g->references[i]);
    json_decref(g->expected);
    free(g);
    return 0;
}

static void assert_number(const char *what, double mine, const json_t *theirs) {
    if (!json_is_number(theirs)) fail_msg("%s: no number in the golden file", what);
    double value = json_number_value(theirs);
    if (!(fabs(mine - value) <= 1e-9 * fmax(fabs(value), 1e-9)))
        fail_msg("%s: %.17g, not %.17g", what, mine, value);
}

static bool has_option(const json_t *test, const char *name) {
    size_t index;
    json_t *option;
    json_array_foreach(json_object_get(test, "options"), index,
                       option) if (!strcmp(json_string_value(option), name)) return true;
    return false;
}

/* The argument of an option. */
static const char *option_value(const json_t *test, const char *name) {
    size_t index;
    json_t *option, *options = json_object_get(test, "options");
    json_array_foreach(
        options, index,
        option) if (!strcmp(json_string_value(option),
                            name)) return json_string_value(json_array_get(options, index + 1));
    return NULL;
}

/* ---- Golden values. ---- */

static void check_bleu(const Golden *g, const json_t *test, const json_t *values, int references) {
    BleuOptions options = {.lowercase = has_option(test, "--lowercase"),
                           .effective_order = has_option(test, "--effective-order")};
    const char *tokenize = option_value(test, "--tokenize"),
               *smooth = option_value(test, "--smooth");
    const char *value = option_value(test, "--smooth-value");
    if (tokenize) assert_true(tokenize_find(tokenize, &options.tokenize));
    if (smooth) assert_true(bleu_smooth_find(smooth, &options.smooth));
    if (value) options.smooth_value = strtod(value, NULL);
    BleuScore s;
    Error err;
    char text[BLEU_LINE_SIZE];
    assert_ok(bleu_columns(g->hypotheses, g->columns_of, references, g->count, &options, &s, &err),
              &err);
    assert_number("score", s.score, json_object_get(values, "score"));
    assert_number("bp", s.bp, json_object_get(values, "bp"));
    assert_number("ratio", s.ratio, json_object_get(values, "ratio"));
    assert_number("hyp_len", (double)s.hyp_len, json_object_get(values, "hyp_len"));
    assert_number("ref_len", (double)s.ref_len, json_object_get(values, "ref_len"));
    for (size_t n = 0; n < BLEU_ORDER; n++)
        assert_number("precision", s.precisions[n],
                      json_array_get(json_object_get(values, "precisions"), n));
    bleu_line(&s, text);
    assert_string_equal(text, json_string_value(json_object_get(values, "line")));
    bleu_signature(&s, &options, text);
    assert_string_equal(text, json_string_value(json_object_get(values, "signature")));
}

static void check_chrf(const Golden *g, const json_t *test, const json_t *values, int references) {
    const char *metric = json_string_value(json_object_get(test, "metric"));
    ChrfOptions options = {.words = !strcmp(metric, "chrf++"),
                           .lowercase = has_option(test, "--lowercase"),
                           .whitespace = has_option(test, "--chrf-whitespace"),
                           .eps = has_option(test, "--chrf-eps-smoothing")};
    ChrfScore s;
    Error err;
    char text[CHRF_TEXT_SIZE];
    assert_ok(chrf_columns(g->hypotheses, g->columns_of, references, g->count, &options, &s, &err),
              &err);
    assert_number("score", s.score, json_object_get(values, "score"));
    chrf_line(&s, &options, text);
    assert_string_equal(text, json_string_value(json_object_get(values, "line")));
    chrf_signature(&s, &options, text);
    assert_string_equal(text, json_string_value(json_object_get(values, "signature")));
}

static void check_rouge(const Golden *g, const json_t *test, const json_t *values, int references) {
    bool stem = has_option(test, "--stem");
    RougeScore s, *lines = calloc((size_t)g->count, sizeof *lines);
    Error err;
    assert_ok(rouge_columns(g->hypotheses, g->columns_of, references, g->count, stem, &s, &err),
              &err);
    assert_ok(
        rouge_lines_columns(g->hypotheses, g->columns_of, references, g->count, stem, lines, &err),
        &err);
    for (int k = 0; k < ROUGE_KINDS; k++) {
        const char *name = rouge_name((RougeKind)k);
        const json_t *value = json_object_get(values, name);
        assert_number(name, 100 * s.kinds[k].f, json_object_get(value, "f"));
        assert_number(name, 100 * s.kinds[k].precision, json_object_get(value, "precision"));
        assert_number(name, 100 * s.kinds[k].recall, json_object_get(value, "recall"));
        double sum = 0;
        for (int64_t i = 0; i < g->count; i++) sum += lines[i].kinds[k].f;
        assert_number(name, 100 * sum / (double)g->count, json_object_get(value, "f"));
    }
    free(lines);
}

static int pair_value(const char *name, const char *answer, const char *target, double *value,
                      Error *err) {
    if (!strcmp(name, "exact")) return answer_exact(ANSWER_AS_IS, answer, target, value, err);
    if (!strcmp(name, "exact_plain")) return answer_exact(ANSWER_PLAIN, answer, target, value, err);
    if (!strcmp(name, "exact_squad")) return answer_exact(ANSWER_SQUAD, answer, target, value, err);
    if (!strcmp(name, "number")) return answer_number(answer, target, value, err);
    assert_string_equal(name, "f1");
    return answer_f1(answer, target, value, err);
}

static void check_pairs(const Golden *g, const json_t *values, int references) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)values, name, value) {
        double sum = 0;
        for (int64_t i = 0; i < g->count; i++) {
            double best = 0;
            for (int r = 0; r < references; r++) {
                double one;
                Error err;
                if (!g->columns[r][i]) continue;
                assert_ok(pair_value(name, g->hypotheses[i], g->columns[r][i], &one, &err), &err);
                if (one > best) best = one;
            }
            sum += best;
        }
        assert_number(name, 100 * sum / (double)g->count, value);
    }
}

static void test_golden(void **state) {
    const Golden *g = *state;
    const json_t *cases = json_object_get(g->expected, "cases");
    size_t index;
    json_t *test;
    assert_true(json_array_size(cases) >= 40);
    json_array_foreach(cases, index, test) {
        const char *metric = json_string_value(json_object_get(test, "metric"));
        const json_t *values = json_object_get(test, "values");
        int references = (int)json_integer_value(json_object_get(test, "references"));
        if (!strcmp(metric, "bleu"))
            check_bleu(g, test, values, references);
        else if (!strncmp(metric, "chrf", 4))
            check_chrf(g, test, values, references);
        else if (!strcmp(metric, "rouge"))
            check_rouge(g, test, values, references);
        else
            check_pairs(g, values, references);
    }
}

/* Each line by itself: smoothing, and the nearest of two references, show there. */
static void test_single_lines(void **state) {
    const Golden *g = *state;
    size_t index;
    json_t *scores;
    assert_true(json_array_size(json_object_get(g->expected, "lines")) > 40);
    json_array_foreach(json_object_get(g->expected, "lines"), index, scores) {
        const char *const *columns[] = {g->columns[0] + index, g->columns[1] + index};
        ChrfScore chrf;
        Error err;
        char what[64];
        snprintf(what, sizeof what, "line %zu", index + 1);
        for (size_t k = 0; k < 2 * BLEU_SMOOTH_COUNT; k++) {
            BleuOptions options = {.smooth = (BleuSmooth)(k / 2), .effective_order = k % 2};
            BleuScore bleu;
            assert_ok(bleu_columns(g->hypotheses + index, columns, 2, 1, &options, &bleu, &err),
                      &err);
            assert_number(what, bleu.score, json_array_get(scores, k));
        }
        assert_ok(chrf_columns(g->hypotheses + index, columns, 2, 1, &(ChrfOptions){.words = true},
                               &chrf, &err),
                  &err);
        assert_number(what, chrf.score, json_array_get(scores, 2 * BLEU_SMOOTH_COUNT));
    }
}

static void test_tokens(void **state) {
    const Golden *g = *state;
    const char *name;
    json_t *lines, *line;
    int kinds = 0;
    json_object_foreach(json_object_get(g->expected, "tokens"), name, lines) {
        Tokenize tokenize;
        size_t index;
        assert_true(tokenize_find(name, &tokenize));
        assert_string_equal(tokenize_name(tokenize), name);
        kinds++;
        json_array_foreach(lines, index, line) {
            char *words;
            Error err;
            assert_ok(tokenize_line(tokenize, false, g->hypotheses[index], &words, &err), &err);
            if (strcmp(words, json_string_value(line)))
                fail_msg("%s, line %zu: \"%s\", not \"%s\"", name, index + 1, words,
                         json_string_value(line));
            free(words);
        }
    }
    assert_int_equal(kinds, TOKENIZE_COUNT);
}

static void test_stems(void **state) {
    const Golden *g = *state;
    const char *word;
    json_t *stem;
    assert_true(json_object_size(json_object_get(g->expected, "stems")) > 500);
    json_object_foreach(json_object_get(g->expected, "stems"), word, stem) {
        char text[128];
        snprintf(text, sizeof text, "%s", word);
        text[porter_stem(text, strlen(text))] = 0;
        if (strcmp(text, json_string_value(stem)))
            fail_msg("%s: \"%s\", not \"%s\"", word, text, json_string_value(stem));
    }
}

/* Invalid UTF-8 is decoded like Python's errors="replace". */
static void test_broken(void **state) {
    const Golden *g = *state;
    size_t index;
    json_t *pair;
    json_array_foreach(json_object_get(g->expected, "broken"), index, pair) {
        const char *hex = json_string_value(json_array_get(pair, 0));
        char bytes[64], *text;
        size_t size = 0;
        for (; hex[2 * size]; size++) {
            unsigned byte;
            assert_int_equal(sscanf(hex + 2 * size, "%2x", &byte), 1);
            bytes[size] = (char)byte;
        }
        bytes[size] = 0;
        Codepoints points = {0};
        Error err;
        assert_ok(codepoints_decode(&points, bytes, &err), &err);
        assert_ok(codepoints_encode(&points, &text, &err), &err);
        assert_string_equal(text, json_string_value(json_array_get(pair, 1)));
        codepoints_free(&points);
        free(text);
    }
}

/* ---- By hand. ---- */

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        char letter;
    } letters[] = {
        {"B", 'B'},
        {"(b)", 'B'},
        {" [C] x", 'C'},
        {"d) a dog", 'D'},
        {"A.", 'A'},
        {"A: yes", 'A'},
        {"the answer is (e).", 'E'},
        {"So it is C.", 'C'},
        {"", 0},
        {"A man a plan", 0},
        {"yes", 0},
        {"(A) is wrong, (B)", 'A'},
        {"not (A), (B)", 'B'},
        {"it is b", 0},
        {"(", 0},
        {"(A", 0},
        {"word (AB)", 0},
        {".", 0},
        {"a", 'A'},
        {"answer:D", 'D'},
    };
    for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++)
        if (answer_letter(letters[i].text) != letters[i].letter)
            fail_msg("\"%s\": '%c'", letters[i].text, answer_letter(letters[i].text));
    static const char *const integers[][2] = {
        {"30,012", "30012"},
        {"007", "7"},
        {"-5", "5"},
        {"12.50", "50"},
        {"0,0", "0"},
        {"1,,2", "2"},
        {"7,", "7"},
        {",8", "8"},
        {"x", NULL},
        {"", NULL},
        {"\u0967\u0968", "12"},
        {"# # 18", "18"},
        {"1 2 3", "3"},
        {"99999999999999999999999", "99999999999999999999999"},
    };
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        char *out;
        Error err;
        assert_ok(answer_last_integer(integers[i][0], &out, &err), &err);
        if (integers[i][1] ? !out || strcmp(out, integers[i][1]) : out != NULL)
            fail_msg("\"%s\": %s", integers[i][0], out ? out : "none");
        free(out);
    }
    double value;
    Error err;
    char *text;
    assert_ok(answer_choice("(b) x", "B", &value, &err), &err);
    assert_true(value == 1);
    assert_ok(answer_choice("", "B", &value, &err), &err);
    assert_true(value == 0);
    assert_ok(answer_choice("YES!", "yes", &value, &err), &err);
    assert_true(value == 1);
    assert_ok(answer_number("none", "none", &value, &err), &err);
    assert_true(value == 0);
    assert_ok(answer_normalize(ANSWER_SQUAD,
                               " The  cat, an 'a' la_the theatre a1 2the \u096ba a\u0301 ", &text,
                               &err),
              &err);
    assert_string_equal(text, "cat lathe theatre a1 2the \u096ba \u0301");
    free(text);
}

/* Two references that score the same, nothing: the first one's n-grams are counted (sacrebleu's
 * values). */
static void test_equal_references(void **state) {
    (void)state;
    static const char *const hypotheses[] = {"xyz", "abcd"}, *const one[] = {"ab", "abcd"},
                             *const other[] = {"defghijkl", "abcd"};
    const char *const *orders[2][2] = {{one, other}, {other, one}};
    static const double scores[2] = {84.11577702203165, 27.27518967829605};
    for (int i = 0; i < 2; i++) {
        ChrfScore chrf;
        Error err;
        assert_ok(chrf_columns(hypotheses, orders[i], 2, 2, &(ChrfOptions){0}, &chrf, &err), &err);
        assert_true(fabs(chrf.score - scores[i]) < 1e-9);
    }
}

static void test_refused(void **state) {
    (void)state;
    const char *hypotheses[] = {"a", "b"}, *references[] = {"a", NULL};
    const char *const *columns[] = {references};
    BleuScore bleu;
    ChrfScore chrf;
    RougeScore rouge;
    Error err;
    assert_refused(bleu_columns(hypotheses, columns, 1, 0, &(BleuOptions){0}, &bleu, &err), &err,
                   "nothing to score", "0 lines");
    assert_refused(bleu_columns(hypotheses, columns, 1, 2, &(BleuOptions){0}, &bleu, &err), &err,
                   "line 2", "no reference");
    assert_refused(chrf_columns(hypotheses, columns, 0, 2, &(ChrfOptions){0}, &chrf, &err), &err,
                   "line 1", "no reference");
    assert_refused(chrf_columns(hypotheses, columns, 1, 2, &(ChrfOptions){0}, &chrf, &err), &err,
                   "line 2", "no reference");
    assert_refused(rouge_columns(hypotheses, columns, 1, 0, false, &rouge, &err), &err,
                   "nothing to score");
    assert_refused(rouge_columns(hypotheses, columns, 1, 2, false, &rouge, &err), &err, "line 2",
                   "no reference");
    Tokenize tokenize;
    BleuSmooth smooth;
    assert_false(tokenize_find("13A", &tokenize));
    assert_false(bleu_smooth_find("", &smooth));
}

/* Random texts, most of them no UTF-8: against itself a text scores 100, against another between 0
 * and 100, and a score does not depend on the lines' order. */
static void test_random(void **state) {
    (void)state;
    enum { LINES = 40, SIZE = 120 };
    static const char pieces[] = "aab  the.,;-1$\n\t\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\xff\xe2";
    static char bytes[2 * LINES][SIZE + 1];
    TestRandom random = {77};
    const char *a[LINES], *b[LINES], *a2[LINES], *b2[LINES];
    for (int i = 0; i < 2 * LINES; i++) {
        int size = (int)(test_random_next(&random) % SIZE);
        for (int k = 0; k < size; k++)
            bytes[i][k] = pieces[test_random_next(&random) % (sizeof pieces - 1)];
        bytes[i][size] = 0;
        if (i < LINES)
            a[i] = bytes[i], a2[LINES - 1 - i] = bytes[i];
        else
            b[i - LINES] = bytes[i], b2[2 * LINES - 1 - i] = bytes[i];
    }
    const char *const *as[] = {a}, *const * bs[] = {b}, *const * b2s[] = {b2};
    for (int kind = 0; kind < 2 * TOKENIZE_COUNT; kind++) {
        BleuOptions bleu = {.tokenize = (Tokenize)(kind / 2), .lowercase = kind % 2};
        ChrfOptions chrf = {.words = kind % 2, .whitespace = kind / 2 % 2};
        BleuScore same, s, turned;
        ChrfScore c_same, c, c_turned;
        Error err;
        assert_ok(bleu_columns(a, as, 1, LINES, &bleu, &same, &err), &err);
        assert_ok(bleu_columns(a, bs, 1, LINES, &bleu, &s, &err), &err);
        assert_ok(bleu_columns(a2, b2s, 1, LINES, &bleu, &turned, &err), &err);
        assert_true(fabs(same.score - 100) < 1e-9);
        assert_true(s.score >= 0 && s.score < 100 && s.score == turned.score);
        assert_ok(chrf_columns(a, as, 1, LINES, &chrf, &c_same, &err), &err);
        assert_ok(chrf_columns(a, bs, 1, LINES, &chrf, &c, &err), &err);
        assert_ok(chrf_columns(a2, b2s, 1, LINES, &chrf, &c_turned, &err), &err);
        assert_true(fabs(c_same.score - 100) < 1e-9);
        assert_true(c.score > 0 && c.score < 100 && c.score == c_turned.score);
    }
    RougeScore lines[LINES];
    Error err;
    assert_ok(rouge_lines_columns(a, as, 1, LINES, true, lines, &err), &err);
    for (int i = 0; i < LINES; i++)
        for (int k = 0; k < ROUGE_KINDS; k++)
            assert_true(lines[i].kinds[k].f == 0 || fabs(lines[i].kinds[k].f - 1) < 1e-12);
    for (int i = 0; i < LINES; i++) {
        double value;
        assert_ok(answer_exact(ANSWER_SQUAD, a[i], a[i], &value, &err), &err);
        assert_true(value == 1);
        assert_ok(answer_f1(a[i], b[i], &value, &err), &err);
        assert_true(value >= 0 && value <= 1);
    }
}

/* One line of 200,000 words, which the tables must grow for. */
static void test_long(void **state) {
    (void)state;
    enum { WORDS = 200000 };
    char *text = malloc(WORDS * 8), *at = text;
    for (int i = 0; i < WORDS; i++) at += sprintf(at, "w%d ", i % 5000);
    const char *line = text;
    const char *const *column = &line, *const * columns[] = {column};
    BleuScore bleu;
    ChrfScore chrf;
    Error err;
    assert_ok(bleu_columns(&line, columns, 1, 1, &(BleuOptions){0}, &bleu, &err), &err);
    assert_true(fabs(bleu.score - 100) < 1e-9);
    assert_int_equal(bleu.counts[3], WORDS - 3);
    assert_ok(chrf_columns(&line, columns, 1, 1, &(ChrfOptions){.words = true}, &chrf, &err), &err);
    assert_true(fabs(chrf.score - 100) < 1e-9);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),           cmocka_unit_test(test_single_lines),
        cmocka_unit_test(test_tokens),           cmocka_unit_test(test_stems),
        cmocka_unit_test(test_broken),           cmocka_unit_test(test_answers),
        cmocka_unit_test(test_equal_references), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random),           cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, golden_setup, golden_teardown);
}
