/* The order in which answers are written: steps, ranks, words, sets and causal graphs against what
 * scipy and all permutations give (tests/reference/make_order.py) and against cases done by hand. */
#include <math.h>
#include <sys/stat.h>

#include <jansson.h>

#include "data/metrics/order_graph.h"
#include "data/metrics/order_summary.h"
#include "data/metrics/order_words.h"
#include "tests/json_values.h"
#include "tests/program.h"

#define CAUSAL "data/causal/"
#define IMAGES "data/bundled/images"

static json_t *golden(void) {
    json_error_t wrong;
    json_t *root = json_load_file("tests/golden/order/order.json", 0, &wrong);
    if (!root) fail_msg("tests/golden/order/order.json: %s", wrong.text);
    return root;
}

static int *integers(const json_t *list) {
    int *items = calloc(json_array_size(list) + 1, sizeof *items);
    assert_non_null(items);
    for (size_t i = 0; i < json_array_size(list); i++)
        items[i] = (int)json_integer_value(json_array_get(list, i));
    return items;
}

/* ---- Steps. ---- */

static void test_count(void **state) {
    (void)state;
    enum { M = ORDER_MASKED };
    static const int32_t tokens[6][5] = {
        {7, M, M, M, M}, /* 0 is written */
        {M, 8, M, M, M}, /* 0 erased */
        {7, 8, M, M, M}, /* 0 the same again */
        {7, 9, 5, M, 4}, /* 1 written over; two others */
        {7, M, 5, 3, 4}, /* 1 erased */
        {7, 8, 5, 3, M}, /* 1 something else than was erased; 4 stays empty */
    };
    OrderSteps steps = {.steps = 6, .length = 5, .tokens = &tokens[0][0]};
    OrderToken t[5];
    OrderCounts c = {0};
    order_count(&steps, t, &c);
    static const OrderToken expected[5] = {{1, 3, 2, 1, 1, 1},
                                           {2, 6, 3, 2, 2, 0},
                                           {4, 4, 1, 0, 0, 0},
                                           {5, 5, 1, 0, 0, 0},
                                           {4, 0, 1, 1, 0, 0}};
    assert_memory_equal(t, expected, sizeof t);
    OrderCounts sums = {.places = 5,
                        .written = 5,
                        .unfinished = 1,
                        .erased = 3,
                        .writes = 8,
                        .erasures = 4,
                        .rewrites = 3,
                        .returns = 1,
                        .steps = 6,
                        .writing_steps = 6,
                        .several_steps = 1};
    assert_memory_equal(&c, &sums, sizeof c);
    order_count(&steps, t, &c); /* added, not set */
    assert_int_equal(c.places, 10);
    assert_int_equal(c.several_steps, 2);
}

static void test_correlations(void **state) {
    (void)state;
    json_t *root = golden(), *cases = json_object_get(root, "correlations"), *one;
    size_t i;
    int undefined = 0;
    json_array_foreach(cases, i, one) {
        json_t *x_list = json_object_get(one, "x");
        int n = (int)json_array_size(x_list), *x = integers(x_list);
        int *y = integers(json_object_get(one, "y"));
        double kendall = order_kendall(x, y, n), spearman = order_spearman(x, y, n);
        if (json_is_null(json_object_get(one, "kendall"))) {
            undefined++;
            assert_true(isnan(kendall) && isnan(spearman));
        } else {
            assert_near(kendall, number(one, "kendall"), 1e-14, "Kendall");
            assert_near(spearman, number(one, "spearman"), 1e-14, "Spearman");
        }
        free(x), free(y);
    }
    assert_true(i >= 40 && undefined >= 5);
    json_decref(root);
    int up[] = {1, 2, 3, 4}, down[] = {9, 4, 2, -5}, flat[] = {3, 3, 3, 3};
    assert_true(order_kendall(up, down, 4) == -1 && order_spearman(up, down, 4) == -1);
    assert_true(order_kendall(up, up, 4) == 1 && order_spearman(up, up, 4) == 1);
    assert_true(isnan(order_kendall(up, flat, 4)) && isnan(order_spearman(flat, up, 4)));
    assert_true(isnan(order_kendall(up, up, 1)) && isnan(order_spearman(up, up, 0)));
}

static void test_interval(void **state) {
    (void)state;
    enum { N = 400 };
    Error err;
    OrderInterval a, b;
    double sums[N], ones[N];
    for (int i = 0; i < N; i++) sums[i] = i % 4 == 0, ones[i] = 1;
    /* The normal approximation: 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 400). */
    assert_ok(order_interval(sums, ones, N, 0, &a, &err), &err);
    assert_near(a.low, 0.25 - 0.0424, 0.004, "low");
    assert_near(a.high, 0.25 + 0.0424, 0.004, "high");
    assert_ok(order_interval(sums, ones, N, 0, &b, &err), &err);
    assert_memory_equal(&a, &b, sizeof a);
    for (int i = 0; i < N; i++) sums[i] += 1e-3 * i; /* shares of 400 might be the same */
    assert_ok(order_interval(sums, ones, N, 0, &a, &err), &err);
    assert_ok(order_interval(sums, ones, N, 9, &b, &err), &err);
    assert_true(a.low != b.low || a.high != b.high);
    /* A ratio of sums, not a mean of ratios: weights differ, the ratio of each item does not. */
    for (int i = 0; i < N; i++) ones[i] = 1 + i, sums[i] = 0.5 * ones[i];
    assert_ok(order_interval(sums, ones, N, 0, &a, &err), &err);
    assert_true(a.low == 0.5 && a.high == 0.5);
    assert_ok(order_interval(sums, ones, 1, 0, &a, &err), &err);
    assert_true(isnan(a.low) && isnan(a.high));
}

/* ---- Words. ---- */

static void check_words(const char *text, const char *const *forms) {
    Error err;
    OrderWords words;
    assert_ok(order_words(&words, text, &err), &err);
    int n = 0;
    for (; forms[n]; n++) {
        if (n >= words.count) fail_msg("\"%s\" has %d words only", text, words.count);
        assert_string_equal(words.items[n].form, forms[n]);
        assert_true(words.items[n].begin < words.items[n].end);
    }
    assert_int_equal(words.count, n);
    order_words_free(&words);
}

#define assert_words(text, ...) check_words((text), (const char *const[]){__VA_ARGS__, NULL})

static void test_words(void **state) {
    (void)state;
    Error err;
    OrderWords words;
    assert_words(" The dog's 3.5 kg, isn't it?", "the", "dog's", "3.5", "kg", "isn't", "it");
    assert_words("STRASSE Straße", "strasse", "strasse");
    assert_words("\xEF\xBC\xA1\xEF\xBC\xA2 \xC3\x84", "ab", "\xC3\xA4"); /* full width */
    assert_words("\xE6\x88\x91\xE7\x88\xB1", "\xE6\x88\x91", "\xE7\x88\xB1");
    assert_words("... -- ()", NULL);
    assert_words("", NULL);
    assert_words("\xF0\x9F\x98\x80 x", "x"); /* an emoji is no word */
    assert_refused(order_words(&words, "ab\xFFz", &err), &err, "UTF-8", "byte 2");
    assert_int_equal(words.count, 0);
}

static void test_text(void **state) {
    (void)state;
    Error err;
    char *text;
    size_t ends[4];
    const char *const pieces[] = {"\u2581The", "\u2581", "", "dog\u2581a"};
    assert_ok(order_text(&text, ends, pieces, 4, &err), &err);
    assert_string_equal(text, " The dog a");
    assert_true(ends[0] == 4 && ends[1] == 5 && ends[2] == 5 && ends[3] == 10);
    static const struct {
        size_t begin, end;
        int first, behind;
    } cases[] = {{0, 1, 0, 1}, {1, 4, 0, 1}, {3, 5, 0, 2},
                 {4, 5, 1, 2}, {5, 8, 3, 4}, {9, 10, 3, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int first, behind;
        order_places(ends, 4, cases[i].begin, cases[i].end, &first, &behind);
        /* A piece without bytes may be passed over or counted; it stands nowhere. */
        if (first == 2) first = 3;
        assert_int_equal(first, cases[i].first);
        assert_int_equal(behind, cases[i].behind);
    }
    free(text);
}

/* ---- Sets. ---- */

/* Adds an answer of the reference's: {"steps", "pieces", "prompt"}. */
static void add_answer(OrderSet *set, const json_t *answer) {
    Error err;
    const json_t *steps = json_object_get(answer, "steps"),
                 *list = json_object_get(answer, "pieces");
    size_t n = json_array_size(list), count = json_array_size(steps);
    int32_t *tokens = malloc(n * count * sizeof *tokens);
    float *scores = malloc(n * count * sizeof *scores);
    const char **pieces = malloc(n * sizeof *pieces);
    assert_true(tokens && scores && pieces);
    for (size_t i = 0; i < n * count; i++) {
        tokens[i] =
            (int32_t)json_integer_value(json_array_get(json_array_get(steps, i / n), i % n));
        scores[i] = tokens[i] < 0 ? -INFINITY : logf(0.25f);
    }
    for (size_t i = 0; i < n; i++) pieces[i] = json_string_value(json_array_get(list, i));
    OrderSteps s = {.steps = (int)count, .length = (int)n, .tokens = tokens};
    const char *prompt = json_string_value(json_object_get(answer, "prompt"));
    assert_ok(order_set_add(set, &s, scores, pieces, prompt, &err), &err);
    free(tokens), free(scores), free(pieces);
}

static void check_answer(const OrderAnswer *a, const json_t *expected) {
    const json_t *places = json_object_get(expected, "places");
    assert_int_equal(a->length, json_array_size(places));
    for (int i = 0; i < a->length; i++) {
        const json_t *p = json_array_get(places, (size_t)i);
        OrderToken t = {whole(p, "first"),    whole(p, "last"),     whole(p, "writes"),
                        whole(p, "erasures"), whole(p, "rewrites"), whole(p, "returns")};
        assert_memory_equal(&a->tokens[i], &t, sizeof t);
    }
    assert_int_equal(a->counts.writing_steps, whole(expected, "writing_steps"));
    assert_int_equal(a->counts.several_steps, whole(expected, "several_steps"));
    if (json_is_null(json_object_get(expected, "kendall")))
        assert_true(isnan(a->kendall));
    else
        assert_near(a->kendall, number(expected, "kendall"), 1e-14, "Kendall of an answer");
}

static void check_pairs(const json_t *pairs, const char *name, const OrderRatio *ratio,
                        double chance) {
    const json_t *pair = json_object_get(pairs, name);
    double sum = json_number_value(json_array_get(pair, 0));
    double count = json_number_value(json_array_get(pair, 1));
    assert_near(ratio->sum, sum, 1e-9, name);
    assert_near(ratio->weight, count, 0, name);
    assert_near(ratio->value, sum / count, 1e-14, name);
    /* Both have drawn: the reference 1000 orders of each answer, the program 200. */
    assert_near(chance, json_number_value(json_array_get(pair, 2)) / count, 0.02, name);
    assert_true(ratio->interval.low <= ratio->value && ratio->value <= ratio->interval.high);
}

static void test_set(void **state) {
    (void)state;
    Error err;
    OrderSet set = {0};
    OrderSummary s;
    json_t *root = golden(), *all = json_object_get(root, "set"), *one;
    const json_t *expected = json_object_get(all, "expected"),
                 *pairs = json_object_get(all, "pairs");
    size_t i;
    json_array_foreach(json_object_get(all, "answers"), i, one) add_answer(&set, one);
    assert_true(i >= 20);
    assert_ok(order_set_finish(&set, 1, 0, &err), &err); /* another share first: nothing may stay */
    assert_ok(order_set_finish(&set, number(all, "fixed_share"), 5, &err), &err);
    for (i = 0; i < set.count; i++) check_answer(&set.answers[i], json_array_get(expected, i));
    assert_ok(order_summary(&set, 0, &s, &err), &err);
    check_pairs(pairs, "fixed", &s.numbers[ORDER_FIXED_FIRST], s.chance[EASY_FIXED]);
    check_pairs(pairs, "copied", &s.numbers[ORDER_COPIED_FIRST], s.chance[EASY_COPIED]);
    check_pairs(pairs, "both", &s.numbers[ORDER_EASY_FIRST], s.chance[EASY_BOTH]);
    check_pairs(pairs, "seen", &s.numbers[ORDER_SEEN_FIRST], s.seen_chance);
    int64_t answers = 0, defined = s.numbers[ORDER_KENDALL].answers;
    for (int b = 0; b < ORDER_BINS; b++) answers += s.bins[b];
    assert_true(answers == defined && defined > 10 && defined < (int64_t)set.count);
    assert_true(s.points[s.point_count - 1].filled == 1);
    assert_near(s.points[s.point_count - 1].confidence, 0.25, 1e-6, "confidence");
    order_summary_free(&s);
    order_set_free(&set);
    json_decref(root);
}

static void test_set_curve(void **state) {
    (void)state;
    Error err;
    OrderSet set = {0};
    OrderSummary s;
    const int32_t first[] = {-1, -1, 5, -1, 5, 6, 5, 6}, second[] = {4};
    const float scores[] = {0, 0, logf(0.5f), 0, logf(0.5f), logf(0.25f), logf(0.5f), logf(0.125f)};
    const char *const pieces[] = {"\u2581a", "\u2581b"};
    assert_ok(order_set_add(&set, &(OrderSteps){4, 2, first}, scores, pieces, "?", &err), &err);
    assert_ok(order_set_add(&set, &(OrderSteps){1, 1, second}, (float[]){0}, pieces, "?", &err),
              &err);
    assert_ok(order_set_finish(&set, 0.2, 0, &err), &err);
    assert_ok(order_summary(&set, 0, &s, &err), &err);
    static const double filled[] = {0.5, 0.75, 1, 1};
    static const double confidence[] = {1, 0.75, (1 + 0.375) / 2, (1 + 0.3125) / 2};
    assert_int_equal(s.point_count, 4);
    for (int p = 0; p < 4; p++) {
        assert_near(s.points[p].filled, filled[p], 1e-12, "filled");
        assert_near(s.points[p].confidence, confidence[p], 1e-6, "confidence");
        assert_int_equal(s.points[p].answers, p ? 1 : 2);
    }
    assert_true(isnan(s.numbers[ORDER_KENDALL].value)); /* two tokens are too few */
    assert_int_equal(s.classes[ORDER_FIXED], 2);        /* "a" in both answers */
    assert_int_equal(s.classes[ORDER_CONTENT], 1);
    /* "a" in step 2, "b" in step 3: the one pair. */
    assert_true(s.numbers[ORDER_FIXED_FIRST].value == 1 && s.pairs[EASY_BOTH] == 1);
    assert_true(isnan(s.numbers[ORDER_COPIED_FIRST].value));
    order_summary_free(&s);
    order_set_free(&set);
}

/* Places that stay empty, a share that is met exactly, and a chance that can be counted. */
static void test_set_holes(void **state) {
    (void)state;
    enum { M = ORDER_MASKED };
    Error err;
    OrderSet set = {0};
    OrderSummary s;
    const int32_t steps[4][4] = {{9, 5, M, M}, {M, 5, 5, M}, {M, 5, 5, 5}, {M, 6, 6, 6}};
    const float scores[16] = {0};
    const char *const pieces[] = {"", "\u2581the", "\u2581co", "ld"};
    const char *const hole[] = {"\u2581wa", "", "er"}, *const the[] = {"\u2581The"};
    const char *const dog[] = {"\u2581dog"};
    const int32_t holed[] = {1, M, 1}, one[] = {1};
    const OrderSteps single = {1, 1, one};
    assert_ok(order_set_add(&set, &(OrderSteps){4, 4, &steps[0][0]}, scores, pieces, "", &err),
              &err);
    assert_ok(order_set_add(&set, &(OrderSteps){1, 3, holed}, scores, hole, "water", &err), &err);
    assert_ok(order_set_add(&set, &single, scores, the, "", &err), &err);
    assert_ok(order_set_add(&set, &single, scores, dog, "", &err), &err);
    assert_int_equal(set.answers[1].word_count, 0);
    assert_ok(order_set_finish(&set, 2.0 / 3, 4, &err), &err);
    assert_ok(order_summary(&set, 0, &s, &err), &err);
    assert_int_equal(set.with_words, 3);
    assert_int_equal(s.classes[ORDER_FIXED], 2);
    assert_int_equal(s.classes[ORDER_CONTENT], 2);
    assert_int_equal(s.counts.unfinished, 2);
    /* All are written in step 4: always a tie. First seen in 1, and 2 and 3; dealt out to the three
     * places, the single token is before the later of the other two in two of three cases. */
    assert_true(s.numbers[ORDER_EASY_FIRST].value == 0.5 && s.chance[EASY_BOTH] == 0.5);
    assert_true(s.numbers[ORDER_SEEN_FIRST].value == 1 && s.ties[EASY_FIXED] == 1);
    assert_near(s.seen_chance, 2.0 / 3, 0.1, "chance of being seen first");
    assert_true(s.seen_ties == 0 && s.pairs[EASY_COPIED] == 0 && isnan(s.chance[EASY_COPIED]));
    order_summary_free(&s);
    order_set_free(&set);
}

/* ---- Causal graphs. ---- */

#define GRAPH(segments, edges)                                                       \
    "{\"prompt\": \"p\", \"answer\": \"a b c a3 3\", \"segments\": [" segments "], " \
    "\"edges\": [" edges "]}"
#define A "{\"name\": \"A\", \"text\": \"a\"}"
#define B "{\"name\": \"B\", \"text\": \"b\"}"
#define C "{\"name\": \"C\", \"text\": \"c\"}"

static void test_graph_read(void **state) {
    (void)state;
    static const struct {
        const char *json;
        const char *words[4];
    } wrong[] = {
        {"", {"empty"}},
        {"[]", {"no causal graph"}},
        {"[3]", {"graph 1", "not an object"}},
        {"{\"prompt\": \"p\", \"prompt\": \"q\"}", {"duplicate"}},
        {"{\"answer\": \"a\"}", {"\"prompt\" is missing"}},
        {"{\"prompt\": 4}", {"\"prompt\" is not a string"}},
        {"{\"prompt\": \"p\", \"question\": \"q\"}", {"both"}},
        {"{\"prompt\": \"p\", \"image\": \"q\"}", {"\"image\"", "question"}},
        {"{\"prompt\": \"p\", \"answer\": \"\"}", {"\"answer\" is an empty string"}},
        {"{\"prompt\": \"a\\u0000b\"}", {"line 1"}},
        {GRAPH(A, "[\"A\", \"A\"]"), {"\"segments\"", "two"}},
        {GRAPH(A "," B, ""), {"\"edges\"", "one"}},
        {GRAPH(A "," A, "[\"A\", \"B\"]"), {"segment 2 \"A\"", "does not occur"}},
        {GRAPH(A ",{\"name\":\"A\",\"text\":\"b\"}", "[\"A\", \"B\"]"), {"segment 2", "twice"}},
        {GRAPH(A ",{\"name\":\"\"}", "[\"A\", \"B\"]"), {"segment 2", "\"name\""}},
        {GRAPH(A ",{\"name\":\"B\"}", "[\"A\", \"B\"]"), {"segment 2 \"B\"", "either"}},
        {GRAPH(A ",{\"name\":\"B\",\"text\":\"b\",\"end\":2}", "[\"A\",\"B\"]"), {"either"}},
        {GRAPH(A ",{\"name\":\"B\",\"text\":\"\"}", "[\"A\",\"B\"]"), {"\"text\""}},
        {GRAPH(A ",{\"name\":\"B\",\"begin\":3,\"end\":3}", "[\"A\",\"B\"]"), {"begin < end"}},
        {GRAPH(A ",{\"name\":\"B\",\"begin\":-1,\"end\":3}", "[\"A\",\"B\"]"), {"begin < end"}},
        {GRAPH(A ",{\"name\":\"B\",\"begin\":3.5,\"end\":4}", "[\"A\",\"B\"]"), {"whole"}},
        {GRAPH(A ",{\"name\":\"B\",\"begin\":3,\"end\":99}", "[\"A\",\"B\"]"), {"99", "after"}},
        {GRAPH(A ",{\"name\":\"B\",\"begin\":0,\"end\":3}", "[\"A\",\"B\"]"),
         {"overlaps", "\"A\""}},
        {GRAPH(A "," B, "[\"A\", \"X\"]"), {"edge 1", "unknown segment \"X\""}},
        {GRAPH(A "," B, "[\"A\"]"), {"edge 1", "before"}},
        {GRAPH(A "," B, "[\"A\", 3]"), {"edge 1"}},
        {GRAPH(A "," B, "3"), {"edge 1"}},
        {GRAPH(A "," B, "[\"A\", \"B\"], [\"A\", \"B\"]"), {"edges 1 and 2", "same"}},
        {GRAPH(A "," B, "[\"A\", \"A\"]"), {"cycle", "\"A\" depends on \"A\""}},
        {GRAPH(A "," B "," C, "[\"A\",\"B\"],[\"B\",\"C\"],[\"C\",\"B\"]"),
         {"cycle", "depends on \"B\"", "depends on \"C\""}},
        {"[" GRAPH(A "," B, "[\"A\",\"B\"]") "," GRAPH(A "," B, "[\"A\",\"Z\"]") "]", {"graph 2"}},
    };
    Run r;
    Error err;
    CausalGraphs graphs;
    char path[512];
    run_start(&r);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_file(&r, "graph.json", wrong[i].json, strlen(wrong[i].json), path, sizeof path);
        err.text[0] = 0;
        if (causal_graphs_read(&graphs, path, &err) == 0) fail_msg("accepted: %s", wrong[i].json);
        check_message(&err, wrong[i].json, (const char **)wrong[i].words);
        check_message(&err, wrong[i].json, (const char *[]){"graph.json", NULL});
        assert_null(graphs.items);
    }
    assert_refused(causal_graphs_read(&graphs, "no/such/file", &err), &err, "no/such/file");
    run_end(&r);
}

static void check_span(const CausalGraph *g, const char *answer, const char *const *texts) {
    size_t begins[16], ends[16];
    assert_int_equal(causal_graph_match(g, answer, begins, ends), -1);
    for (int i = 0; i < g->segment_count; i++) {
        size_t size = strlen(texts[i]);
        assert_int_equal(ends[i] - begins[i], size);
        assert_memory_equal(answer + begins[i], texts[i], size);
    }
}

static void test_graph_match(void **state) {
    (void)state;
    static const char json[] =
        "{\"prompt\": \"p\", \"answer\": \" Ä 13 is 3, and 3.\", \"segments\": ["
        "{\"name\": \"last\", \"begin\": 16, \"end\": 17}, {\"name\": \"A\", \"begin\": 1, "
        "\"end\": 2},"
        "{\"name\": \"three\", \"text\": \"3\"}], \"edges\": [[\"A\", \"last\"]]}";
    Run r;
    Error err;
    CausalGraphs graphs;
    char path[512];
    run_start(&r);
    write_file(&r, "graph.json", json, strlen(json), path, sizeof path);
    assert_ok(causal_graphs_read(&graphs, path, &err), &err);
    const CausalGraph *g = &graphs.items[0];
    size_t begins[3], ends[3];
    const char *const texts[] = {"3", "Ä", "3"};
    /* "3" by its text is not within 13. */
    assert_int_equal(g->segments[2].begin, strlen(" Ä 13 is "));
    assert_int_equal(g->segments[0].begin, strlen(" Ä 13 is 3, and "));
    check_span(g, " Ä 13 is 3, and 3.", texts);
    check_span(g, "Ä 13 is 3, and 3. \n", texts);
    assert_int_equal(causal_graph_match(g, "  Ä 13 is 3, and 3.", begins, ends), -1);
    assert_int_equal(begins[0], strlen("  Ä 13 is 3, and "));
    check_span(g, "So, Ä makes 13, 3 and then 3", texts);
    assert_int_equal(causal_graph_match(g, "So, Ä makes 13 and then 3", begins, ends), 0);
    assert_int_equal(causal_graph_match(g, "3 Ä 33", begins, ends), 2);
    assert_int_equal(causal_graph_match(g, "", begins, ends), 1);
    causal_graphs_free(&graphs);
    run_end(&r);
}

/* A graph over an answer "a b c ..." of one letter a token, with the reference's segments. */
static void make_graph(CausalGraph *g, const json_t *one, char *answer) {
    const json_t *segments = json_object_get(one, "segments"),
                 *edges = json_object_get(one, "edges");
    *g = (CausalGraph){.answer = answer,
                       .segment_count = (int)json_array_size(segments),
                       .edge_count = (int)json_array_size(edges)};
    g->segments = calloc((size_t)g->segment_count, sizeof *g->segments);
    g->edges = calloc((size_t)g->edge_count, sizeof *g->edges);
    for (int i = 0; i < g->segment_count; i++) {
        int *span = integers(json_array_get(segments, (size_t)i));
        g->segments[i].begin = (size_t)(2 * span[0]),
        g->segments[i].end = (size_t)(2 * span[1] - 1);
        free(span);
    }
    for (int i = 0; i < g->edge_count; i++) {
        int *pair = integers(json_array_get(edges, (size_t)i));
        g->edges[i] = (CausalEdge){pair[0], pair[1]};
        free(pair);
    }
}

static void test_graph_order(void **state) {
    (void)state;
    Error err;
    json_t *root = golden(), *one;
    size_t i;
    json_array_foreach(json_object_get(root, "graphs"), i, one) {
        const json_t *list = json_object_get(one, "lasts");
        int length = (int)json_array_size(list), *lasts = integers(list);
        char answer[64] = "";
        size_t ends[32];
        for (int t = 0; t < length; t++) {
            answer[2 * t] = (char)('a' + t), answer[2 * t + 1] = t + 1 < length ? ' ' : 0;
            ends[t] = (size_t)(2 * t + 1);
        }
        CausalGraph g;
        OrderGraphResult r;
        make_graph(&g, one, answer);
        assert_ok(order_graph(&g, answer, ends, lasts, length, 3, &r, &err), &err);
        assert_int_equal(r.missing, -1);
        assert_false(r.unfinished);
        int strict = whole(one, "strict"), lax = whole(one, "lax");
        assert_int_equal(r.strict, strict);
        assert_int_equal(r.lax, lax);
        assert_int_equal(r.sort_strict, strict == g.edge_count);
        assert_int_equal(r.sort_lax, lax == g.edge_count);
        /* 2000 draws: four standard errors of a share are 0.045, of a sum of e shares e
         * times that. */
        assert_near(r.chance_strict, number(one, "chance_strict"), 0.045 * g.edge_count, "strict");
        assert_near(r.chance_lax, number(one, "chance_lax"), 0.045 * g.edge_count, "lax");
        assert_near(r.chance_sort_strict, number(one, "chance_sort_strict"), 0.045, "sorts");
        assert_near(r.chance_sort_lax, number(one, "chance_sort_lax"), 0.045, "lax sorts");
        free(r.times);
        lasts[length - 1] = 0; /* the last token was never written */
        assert_ok(order_graph(&g, answer, ends, lasts, length, 3, &r, &err), &err);
        assert_true(r.unfinished);
        assert_int_equal(r.missing, g.segment_count - 1);
        free(r.times), free(lasts), free(g.segments), free(g.edges);
    }
    assert_true(i >= 10);
    json_decref(root);
}

/* Written from left to right, each of the shipped examples is in order; from right to left, not. */
static void test_shipped(void **state) {
    (void)state;
    static const char *const files[] = {CAUSAL "arithmetic.json", CAUSAL "translation.json"};
    Error err;
    CausalGraphs graphs;
    assert_ok(causal_graphs_read(&graphs, CAUSAL "images.json", &err), &err);
    assert_true(graphs.count == 3 && graphs.items[0].is_question);
    causal_graphs_free(&graphs);
    for (int f = 0; f < 2; f++) {
        assert_ok(causal_graphs_read(&graphs, files[f], &err), &err);
        for (size_t i = 0; i < graphs.count; i++) {
            const CausalGraph *g = &graphs.items[i];
            int length = (int)strlen(g->answer); /* each byte a token */
            size_t *ends = malloc((size_t)length * sizeof *ends);
            int *lasts = malloc((size_t)length * sizeof *lasts);
            for (int direction = 0; direction < 2; direction++) {
                OrderGraphResult r;
                for (int t = 0; t < length; t++)
                    ends[t] = (size_t)t + 1, lasts[t] = direction ? length - t : t + 1;
                assert_ok(order_graph(g, g->answer, ends, lasts, length, 0, &r, &err), &err);
                if (f == 0 || direction) assert_int_equal(r.sort_strict, !direction);
                free(r.times);
            }
            free(ends), free(lasts);
        }
        causal_graphs_free(&graphs);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),       cmocka_unit_test(test_correlations),
        cmocka_unit_test(test_interval),    cmocka_unit_test(test_words),
        cmocka_unit_test(test_text),        cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_curve),   cmocka_unit_test(test_set_holes),
        cmocka_unit_test(test_graph_read),  cmocka_unit_test(test_graph_match),
        cmocka_unit_test(test_graph_order), cmocka_unit_test(test_shipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
