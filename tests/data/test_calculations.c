/* Causal graphs of calculations: from GSM8K's marks, from plain answers, and from what only looks like
 * them. */
#include "tests/program.h"

#include <unistd.h>

#include "data/sets/calculations.h"

/* "idea 1=Words|formula 1=2 + 3 =|...; idea 1>formula 1 ..." */
static char *graph_text(const CausalGraph *g) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    for (int i = 0; i < g->segment_count; i++) {
        const CausalSegment *s = &g->segments[i];
        fprintf(out, "%s%s=%.*s", i ? "|" : "", s->name, (int)(s->end - s->begin),
                g->answer + s->begin);
    }
    for (int i = 0; i < g->edge_count; i++)
        fprintf(out, "%s%s>%s", i ? ", " : "; ", g->segments[g->edges[i].before].name,
                g->segments[g->edges[i].after].name);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_graph(const CausalGraph *g, const char *expected) {
    char *text = graph_text(g);
    assert_string_equal(text, expected);
    free(text);
}

static void assert_made(const char *answer, const char *expected) {
    CausalGraph g;
    Error err;
    const int none = calculations_graph(&g, "p", answer, &err);
    if (!expected) {
        if (none != 1) fail_msg("a calculation in: %s", answer);
        return;
    }
    if (none) fail_msg("no calculation in: %s", answer);
    assert_graph(&g, expected);
    causal_graph_free(&g);
}

/* ---- Files of GSM8K. ---- */

static void text_write(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static const char three[] =
    "{\"question\": \"A baker fills 3 trays of 12 rolls and sells half. Then she bakes 10 more. "
    "How many are there?\", "
    "\"answer\": \"She fills 3*12 = <<3*12=36>>36 trays.\\nShe keeps 36/2 = <<36/2=18>>18 "
    "rolls.\\nNow there are "
    "18+10 = <<18+10=28>>28 rolls.\\n#### 28\"}\n"
    "{\"question\": \"Tea costs $4 a box and rice $1,250 a ton. What do 2 boxes and 1 ton cost?\", "
    "\"answer\": \"The tea is $4 a box * 2 boxes = $<<4*2=8>>8.\\nIn all that is $8 + $1,250 = "
    "$<<8+1250=1258>>1,258.\\n#### 1,258\"}\n"
    "{\"question\": \"Is 7 odd?\", \"answer\": \"It is.\\n#### 1\"}\n";

static void test_gsm8k(void **state) {
    (void)state;
    char folder[] = "/tmp/calculations-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/three.jsonl", folder);
    text_write(path, three);
    CausalGraphs graphs;
    Error err;
    assert_ok(causal_graphs_read(&graphs, path, &err), &err);
    assert_int_equal(graphs.count, 2);
    assert_int_equal(graphs.left_out, 1);
    assert_string_equal(
        graphs.items[0].prompt,
        " Question:  A baker fills 3 trays of 12 rolls and sells half. Then she bakes 10 "
        "more. How many are there? Step-by-Step Answer: ");
    assert_string_equal(
        graphs.items[0].answer,
        "She fills 3*12 = 36 trays.\nShe keeps 36/2 = 18 rolls.\nNow there are 18+10 = 28 "
        "rolls.\nThe answer is 28.");
    assert_graph(&graphs.items[0],
                 "idea 1=She fills|formula 1=3*12 =|result 1=36|idea 2=She keeps|formula 2=36/2 =|"
                 "result 2=18|idea 3=Now there are|formula 3=18+10 =|result 3=28|answer=28; "
                 "idea 1>formula 1, formula 1>result 1, idea 2>formula 2, result 1>formula 2, "
                 "formula 2>result 2, idea 3>formula 3, result 2>formula 3, formula 3>result 3, "
                 "result 3>answer");
    assert_graph(
        &graphs.items[1],
        "idea 1=The tea is|formula 1=$4 a box * 2 boxes =|result 1=8|idea 2=In all that is|"
        "formula 2=$8 + $1,250 =|result 2=1,258|answer=1,258; idea 1>formula 1, formula 1>result "
        "1, "
        "idea 2>formula 2, result 1>formula 2, formula 2>result 2, result 2>answer");
    causal_graphs_free(&graphs);
    text_write(path, "{\"question\": \"Is 7 odd?\", \"answer\": \"It is.\\n#### 1\"}\n");
    assert_refused(causal_graphs_read(&graphs, path, &err), &err, "<<48/2=24>>");
    text_write(path, "{\"question\": \"Is 7 odd?\"}\n"); /* read as a graph: it lacks all */
    assert_refused(causal_graphs_read(&graphs, path, &err), &err, "answer");
    remove(path), rmdir(folder);
}

/* ---- Answers without marks. ---- */

static void test_plain(void **state) {
    (void)state;
    assert_made(
        "The box holds 4 * 6 = 24 eggs. Of these 24 - 5 = 19 stay whole. The final answer is 19.",
        "idea 1=The box holds|formula 1=4 * 6 =|result 1=24|idea 2=Of these|formula 2=24 - 5 =|"
        "result 2=19|answer=19; idea 1>formula 1, formula 1>result 1, idea 2>formula 2, "
        "result 1>formula 2, formula 2>result 2, result 2>answer");
    assert_made("2+2=4", "formula 1=2+2=|result 1=4; formula 1>result 1");
    /* Parentheses, decimals, a sign, a multiplication sign; a chain's end counts. */
    assert_made("(1.5 + 2) \xC3\x97 2 = 7",
                "formula 1=(1.5 + 2) \xC3\x97 2 =|result 1=7; formula 1>result 1");
    assert_made("In 2 days: 3 - 8 = -5. So -5.",
                "idea 1=In 2 days:|formula 1=3 - 8 =|result 1=-5|answer=5; idea 1>formula 1, "
                "formula 1>result 1, result 1>answer");
    assert_made("It is 2*3 + 4 = 6 + 4 = 10", "idea 1=It is 2*3 + 4|formula 1=6 + 4 =|result 1=10; "
                                              "idea 1>formula 1, formula 1>result 1");
    /* Two calculations that need each other's results not, and one that needs both. */
    assert_made("1+2=3, 4+5=9, 3+9=12",
                "formula 1=1+2=|result 1=3|formula 2=4+5=|result 2=9|formula 3=3+9=|result 3=12; "
                "formula 1>result 1, formula 2>result 2, result 2>formula 3, result 1>formula 3, "
                "formula 3>result 3");
    /* The numbers of a word, one number alone, no number. */
    assert_made("x = 5", NULL);
    assert_made("He has 5 = five.", NULL);
    assert_made("box2 + 3 = 5", NULL);
    assert_made("a+b=c", NULL);
    assert_made("", NULL);
    assert_made("=", NULL);
    assert_made("1+1=", NULL);
}

/* Marks decide: wrong ones, unfinished ones, those without numbers. */
static void test_marks(void **state) {
    (void)state;
    assert_made("Half of 48 clips, so <<48/2=24>>24, and 1+1=2.",
                "idea 1=Half of|formula 1=48 clips, so|result 1=24|answer=2; idea 1>formula 1, "
                "formula 1>result 1, result 1>answer");
    assert_made("That makes <<3+4=7>>7 apples.", "idea 1=That makes|result 1=7; idea 1>result 1");
    assert_made("<<>>", NULL);
    assert_made("<<1+1=2>>none", NULL);
    assert_made("1+1=<<1+1=2 2",
                "formula 1=1+1=|result 1=2|answer=2; formula 1>result 1, result 1>answer");
}

/* Very many calculations, operands and digits. */
static void test_large(void **state) {
    (void)state;
    enum { MANY = 300 };
    char *text = malloc(MANY * 16 + 400 * 2 + 600);
    assert_non_null(text);
    char *at = text;
    for (int i = 0; i < MANY; i++) at += sprintf(at, "%d+1=%d ", i, i + 1);
    CausalGraph g;
    Error err;
    assert_int_equal(calculations_graph(&g, "p", text, &err), 0);
    assert_int_equal(g.segment_count, 2 * CALCULATIONS_MOST + 1); /* and the answer */
    causal_graph_free(&g);
    at = text;
    for (int i = 0; i < 400; i++) at += sprintf(at, "1+");
    for (int i = 0; i < 500; i++) *at++ = '9';
    strcpy(at, "=2");
    assert_int_equal(calculations_graph(&g, "p", text, &err), 0);
    assert_int_equal(g.segment_count, 2);
    causal_graph_free(&g);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gsm8k),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
