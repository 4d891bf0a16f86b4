/* GQA: the golden set's numbers, which are the official script's; every other form of its files;
 * entries that are wrong; hostile files; what is written can be read. */
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "data/sets/gqa.h"
#include "data/sets/gqa_answers.h"
#include "data/metrics/gqa.h"
#include "data/metrics/gqa_text.h"
#include "tests/program.h"

#define CASES  "tests/golden/cases/10-score-gqa/"
#define GOLDEN "tests/golden/gqa/"

static const GqaFiles golden = {.predictions = GOLDEN "predictions.json",
                                .questions = GOLDEN "all_questions.json",
                                .choices = GOLDEN "choices.json",
                                .scene_graphs = GOLDEN "scenes.json",
                                .attentions = GOLDEN "attentions.json"};

/* ---- The golden set. ---- */

static void check_number(const char *what, double found, double expected) {
    if (!(fabs(found - expected) <= 1e-9))
        fail_msg("%s is %.17g, not %.17g", what, found, expected);
}

/* All metrics and tables of an object as the golden one; how many numbers those are. */
static int check_golden(const json_t *metrics, const json_t *tables) {
    json_t *all = json_load_file(GOLDEN "expected.json", 0, NULL), *value, *rows;
    const char *name, *key;
    int looked = 0;
    assert_non_null(all);
    json_object_foreach(json_object_get(all, "metrics"), name, value) {
        const json_t *found = json_object_get(metrics, name);
        assert_true(json_is_number(found));
        check_number(name, json_number_value(found), json_number_value(value));
        looked++;
    }
    json_object_foreach(json_object_get(all, "tables"), name, rows) {
        const json_t *table = json_object_get(tables, name);
        assert_int_equal(json_object_size(table), json_object_size(rows));
        json_object_foreach(rows, key, value) {
            const json_t *row = json_object_get(table, key);
            check_number(key, json_number_value(json_object_get(row, "accuracy")),
                         json_number_value(json_object_get(value, "accuracy")));
            assert_int_equal(json_integer_value(json_object_get(row, "questions")),
                             json_integer_value(json_object_get(value, "questions")));
            looked++;
        }
    }
    json_decref(all);
    return looked;
}

static void test_golden(void **state) {
    Run *r = *state;
    run(r, "score", "gqa", GOLDEN "predictions.json", GOLDEN "all_questions.json", "--choices",
        GOLDEN "choices.json", "--scene-graphs", GOLDEN "scenes.json", "--attentions",
        GOLDEN "attentions.json", "--json");
    assert_int_equal(r->status, 0);
    json_t *ours = json_loads(r->out, 0, NULL);
    assert_non_null(ours);
    assert_true(check_golden(json_object_get(ours, "metrics"), json_object_get(ours, "tables")) >
                25);
    assert_int_equal(json_integer_value(json_object_get(ours, "questions")) +
                         json_integer_value(json_object_get(ours, "unbalanced")),
                     90);
    assert_true(json_integer_value(json_object_get(ours, "unanswered")) > 0);
    json_decref(ours);
    static const char *const told[] = {
        "question that was answered twice", "question that occurs twice",
        "question without a prediction",    "entailed question that does not exist",
        "region without an object",         "question without attention"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        assert_non_null(strstr(r->err, told[i]));
    run(r, "score", "gqa", GOLDEN "predictions.json", GOLDEN "all_questions.json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "Accuracy / structural type\n"));
    assert_non_null(strstr(r->out, "Validity      absent: no choices file\n"));
    assert_non_null(strstr(r->out, "Grounding     absent: no attentions"));
    assert_null(strstr(r->out, "testdev"));
}

/* A folder of parts, with the balanced questions alone in the first file, is the same set. */
static void test_forms(void **state) {
    Run *r = *state;
    Error err;
    GqaScore a, b;
    json_t *all = json_load_file(GOLDEN "all_questions.json", 0, NULL), *value;
    json_t *balanced = json_object(), *parts[2] = {json_object(), json_object()};
    char path[300], whole[300], part[300];
    const char *id;
    int n = 0;
    json_object_foreach(all, id, value) {
        json_object_set(parts[n++ % 2], id, value);
        if (json_is_true(json_object_get(value, "isBalanced")))
            json_object_set(balanced, id, value);
    }
    path_in(whole, sizeof whole, r, "balanced.json");
    assert_int_equal(json_dump_file(balanced, whole, JSON_INDENT(3)), 0);
    path_in(path, sizeof path, r, "parts.d");
    assert_int_equal(mkdir(path, 0777), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(part, sizeof part, "%s/train_all_questions_%d.json", path, i);
        assert_int_equal(json_dump_file(parts[i], part, 0), 0);
        json_decref(parts[i]);
    }
    GqaFiles files = golden;
    assert_ok(gqa_score(&a, &files, &err), &err);
    files.questions = whole, files.all_questions = path;
    assert_ok(gqa_score(&b, &files, &err), &err);
    for (int m = 0; m < GQA_METRICS; m++) {
        assert_true(a.metrics[m].present && b.metrics[m].present);
        check_number(gqa_metric_name((GqaMetricKind)m), b.metrics[m].value, a.metrics[m].value);
        assert_int_equal(a.metrics[m].count, b.metrics[m].count);
    }
    gqa_score_free(&b);
    files.all_questions = NULL;
    assert_ok(gqa_score(&b, &files, &err), &err);
    assert_false(b.metrics[GQA_CONSISTENCY].present);
    assert_true(b.metrics[GQA_GROUNDING].present && b.unknown > 0);
    gqa_score_free(&b);
    /* LLaVA's lines: capitals and periods at the end are forgiven, so more is right. */
    files = golden, files.predictions = GOLDEN "answers.jsonl";
    assert_ok(gqa_score(&b, &files, &err), &err);
    assert_true(b.metrics[GQA_ACCURACY].value > a.metrics[GQA_ACCURACY].value);
    check_number("exact match", b.metrics[GQA_EXACT_MATCH].value, a.metrics[GQA_EXACT_MATCH].value);
    gqa_score_free(&b);
    gqa_score_free(&a);
    json_decref(all), json_decref(balanced);
}

/* ---- Small sets, by hand. ---- */

static const char official[] =
    "{\"1\": {\"question\": \"Is it a dog?\", \"imageId\": \"5\", \"answer\": \"yes\","
    " \"isBalanced\": true, \"groups\": {\"global\": null}, \"entailed\": [\"1\", \"3\"],"
    " \"types\": {\"structural\": \"verify\", \"semantic\": \"obj\", \"detailed\": \"x\"},"
    " \"annotations\": {\"question\": {\"3\": \"77\"}, \"fullAnswer\": {}},"
    " \"semantic\": [{\"operation\": \"select\", \"argument\": \"dog\"},"
    " {\"operation\": \"exist\", \"argument\": \"?\"}]},\n"
    "\"2\": 17,\n"
    "\"3\": {\"question\": \"Which?\", \"imageId\": \"a/5.png\", \"answer\": \"a cat\","
    " \"isBalanced\": false, \"groups\": {\"global\": \"g\"}, \"entailed\": [],"
    " \"types\": {\"structural\": \"query\", \"semantic\": \"obj\", \"detailed\": \"x\"},"
    " \"annotations\": {\"question\": {}, \"fullAnswer\": {}}, \"semantic\": []},\n"
    "\"4\": {\"question\": \" \", \"imageId\": \"../up\", \"isBalanced\": true},\n"
    "\"5\": {\"question\": \"\\ud800\"}}";

static int64_t kind_count(const Skipped *skipped, const char *kind) {
    for (int i = 0; i < skipped->kind_count; i++)
        if (!strcmp(skipped->kinds[i].kind, kind)) return skipped->kinds[i].count;
    return 0;
}

static void test_entries(void **state) {
    Run *r = *state;
    Error err;
    GqaQuestions q;
    Skipped skipped = {.total = 0};
    char path[300], answers[300];
    write_file(r, "some.json", official, sizeof official - 1, path, sizeof path);
    assert_ok(gqa_questions_read(&q, path, false, &skipped, &err), &err);
    assert_int_equal(q.count, 4); /* 1, 2, 4, 5: without "isBalanced" a question is asked */
    assert_string_equal(gqa_image(&q, 0), "5.jpg");
    assert_string_equal(gqa_text(&q, 0), "Is it a dog?");
    assert_null(gqa_text(&q, 1));
    assert_null(gqa_image(&q, 2));
    assert_int_equal(gqa_find(&q, "4"), 2);
    assert_int_equal(gqa_find(&q, "3"), -1);
    assert_int_equal(kind_count(&skipped, "question that is not an object"), 2);
    assert_int_equal(kind_count(&skipped, "image outside of the folder"), 1);
    assert_int_equal(kind_count(&skipped, "question without a text"), 1);
    gqa_questions_free(&q);
    assert_ok(gqa_questions_read(&q, path, true, &skipped, &err), &err);
    assert_int_equal(q.count, 5);
    assert_string_equal(gqa_image(&q, 2), "a/5.png");
    gqa_questions_free(&q);
    /* Four are scored, one is right; what it entails was answered, too. */
    static const char text[] =
        "{\"question_id\": 1, \"text\": \"Yes..\"}\n\nnonsense\n"
        "{\"question_id\": \"3\", \"text\": \"A CAT\"}\n{\"text\": \"no\"}\n"
        "{\"question_id\": \"99\", \"text\": \"no\"}\n{\"question_id\": \"4\", ";
    write_file(r, "some.jsonl", text, sizeof text - 1, answers, sizeof answers);
    GqaFiles files = {.predictions = answers, .questions = path};
    GqaScore score;
    assert_ok(gqa_score(&score, &files, &err), &err);
    assert_int_equal(score.questions, 4);
    assert_int_equal(score.unanswered, 3);
    assert_int_equal(score.unknown, 1);
    check_number("accuracy", score.metrics[GQA_ACCURACY].value, 25);
    check_number("consistency", score.metrics[GQA_CONSISTENCY].value, 100);
    check_number("binary", score.metrics[GQA_BINARY].value, 100);
    assert_int_equal(score.metrics[GQA_BINARY].count, 1);
    assert_int_equal(score.tables[GQA_BY_STEPS].count, 1);
    assert_string_equal(score.tables[GQA_BY_STEPS].rows[0].name, "1");
    assert_false(score.metrics[GQA_DISTRIBUTION].present);
    assert_int_equal(kind_count(&score.skipped, "prediction that is not a JSON object"), 2);
    assert_int_equal(kind_count(&score.skipped, "prediction without an id"), 1);
    gqa_score_free(&score);
}

/* The last entry of an id says whether it is scored; where none says it, it is. */
static void test_twice(void **state) {
    Run *r = *state;
    Error err;
    GqaScore score;
    char path[300], answers[300];
    static const char twice[] = "{\"1\": {\"answer\": \"a\", \"isBalanced\": true},"
                                " \"1\": {\"answer\": \"a\", \"isBalanced\": false},"
                                " \"2\": {\"answer\": \"b\"},"
                                " \"3\": {\"answer\": \"b\", \"isBalanced\": false},"
                                " \"3\": {\"answer\": \"c\", \"isBalanced\": true}}";
    static const char given[] = "[{\"questionId\": 2, \"prediction\": \"b\"},"
                                " {\"questionId\": \"3\", \"prediction\": \"b\"}]";
    write_file(r, "twice.json", twice, sizeof twice - 1, path, sizeof path);
    write_file(r, "given.json", given, sizeof given - 1, answers, sizeof answers);
    GqaFiles files = {.predictions = answers, .questions = path};
    assert_ok(gqa_score(&score, &files, &err), &err);
    assert_int_equal(score.questions, 2);
    assert_int_equal(score.unbalanced, 1);
    assert_int_equal(score.unanswered, 0);
    check_number("accuracy", score.metrics[GQA_ACCURACY].value, 50);
    assert_int_equal(kind_count(&score.skipped, "question that occurs twice"), 2);
    gqa_score_free(&score);
}

/* LLaVA's questions have neither answers nor types: no metric, and no zero either. */
static void test_llava(void **state) {
    Run *r = *state;
    char path[300], answers[300];
    static const char lines[] =
        "\xEF\xBB\xBF{\"question_id\": \"7\", \"image\": \"n1.jpg\", \"text\": \"Is "
        "it?\\nAnswer.\", "
        "\"category\": \"default\"}\n{\"image\": \"n2.jpg\", \"text\": \"no id\"}\n"
        "{\"question_id\": 8, \"image\": \"n2.jpg\", \"text\": \"Why not?\\nAnswer.\"}\n"
        "{\"question_id\": \"7\", \"image\": \"n3.jpg\", \"text\": \"Or?\\nAnswer.\"}";
    static const char given[] = "[{\"questionId\": \"7\", \"prediction\": \"no\"}]";
    GqaQuestions q;
    Skipped skipped = {.total = 0};
    Error err;
    write_file(r, "l.jsonl", lines, sizeof lines - 1, path, sizeof path);
    write_file(r, "g.json", given, sizeof given - 1, answers, sizeof answers);
    assert_ok(gqa_questions_read(&q, path, false, &skipped, &err), &err);
    assert_true(q.llava);
    assert_int_equal(q.count, 2);
    assert_int_equal(q.bad, 1);
    assert_string_equal(gqa_image(&q, 0), "n3.jpg");
    assert_string_equal(gqa_id(&q, 1), "8");
    assert_int_equal(kind_count(&skipped, "question that occurs twice"), 1);
    gqa_questions_free(&q);
    run(r, "score", "gqa", answers, path, "--json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "\"accuracy\": null"));
    assert_non_null(strstr(r->out, "\"unanswered\": 1"));
    const char *sample = shared_file("gqa/llava_gqa_testdev_balanced.head300.jsonl");
    if (!sample) return;
    skipped = (Skipped){.total = 0};
    assert_ok(gqa_questions_read(&q, sample, false, &skipped, &err), &err);
    assert_int_equal(q.count, 300);
    assert_int_equal(skipped.total, 0);
    gqa_questions_free(&q);
}

/* Predictions of which none can be used have no score: 0.00 % would be one. */
static void test_unusable(void **state) {
    Run *r = *state;
    static const char *const texts[] = {
        "", "[]", "[{\"questionId\": \"77\", \"prediction\": \"red\"}]",
        "{\"question_id\": \"1\", \"answer\": \"red\"}\n", "{\"question_id\": \"1\", \"te"};
    char path[300];
    for (int i = -2; i < 5; i++) {
        if (i >= 0)
            write_file(r, "p.jsonl", texts[i], strlen(texts[i]), path, sizeof path);
        else
            snprintf(path, sizeof path, CASES "%s", i == -2 ? "dict.json" : "lmms.jsonl");
        for (int json = 0; json < 2; json++) {
            run(r, "score", "gqa", path, CASES "questions.json", json ? "--json" : NULL);
            expect(r, 1, "");
            assert_non_null(strstr(r->err, i == 2 ? "none of its 1 predictions is for one of the 4"
                                                  : "no prediction in it that could be read"));
        }
    }
    /* One that can be used is scored, and the others are reported. */
    static const char one[] = "{\"1\": \"red\"}\n{\"question_id\": \"1\", \"text\": \"Red.\"}\n";
    write_file(r, "p.jsonl", one, sizeof one - 1, path, sizeof path);
    run(r, "score", "gqa", path, CASES "questions.json", "--json");
    expect(r, 0, NULL);
    assert_non_null(strstr(r->out, "\"accuracy\": 25.0"));
    assert_non_null(strstr(r->err, "prediction without an id: 1"));
}

/* A file with the published counts of testdev_balanced, and one with a question of another type. */
static void test_testdev(void **state) {
    Run *r = *state;
    static const char *const structural[] = {"choose", "compare", "logical", "verify", "query"};
    static const char *const semantic[] = {"attr", "cat", "global", "obj", "rel"};
    static const int per_structural[] = {1129, 589, 1803, 2252, 6805};
    static const int per_semantic[] = {5186, 1149, 157, 778, 5308};
    char path[300], answers[300];
    static const char given[] = "[{\"questionId\": \"0\", \"prediction\": \"c\"}]";
    write_file(r, "given.json", given, sizeof given - 1, answers, sizeof answers);
    for (int wrong = 0; wrong < 2; wrong++) {
        path_in(path, sizeof path, r, "testdev.json");
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        int a = 0, b = 0, left_a = per_structural[0], left_b = per_semantic[0];
        for (int i = 0; i < 12578; i++) {
            while (!left_a) left_a = per_structural[++a];
            while (!left_b) left_b = per_semantic[++b];
            left_a--, left_b--;
            fprintf(
                f,
                "%c\"%d\": {\"question\": \"a\", \"imageId\": \"b\", \"answer\": \"c\", "
                "\"isBalanced\": true, \"groups\": {\"global\": null}, \"entailed\": [], "
                "\"types\": {\"structural\": \"%s\", \"semantic\": \"%s\", \"detailed\": \"\"}, "
                "\"annotations\": {\"question\": {}, \"fullAnswer\": {}}, \"semantic\": []}",
                i ? ',' : '{', i, wrong && i == 5 ? "query" : structural[a], semantic[b]);
        }
        fputs("}\n", f);
        fclose(f);
        run(r, "score", "gqa", answers, path);
        assert_int_equal(r->status, 0);
        assert_non_null(strstr(r->out, wrong
                                           ? "differs from the published type counts: choose 1128,"
                                             " not 1129; query 6806, not 6805"
                                           : "matches the published type counts"));
        assert_int_equal(strstr(r->err, "warning: these are as many") != NULL, wrong);
        assert_non_null(strstr(r->out, "unanswered    12577"));
    }
}

/* ---- Texts. ---- */

static void test_texts(void **state) {
    (void)state;
    static const char *const plain[][2] = {
        {"Yes.", "yes"}, {"NO...", "no"}, {"a. b.", "a. b"}, {"\xC3\x84PFEL", "\xC3\xA4pfel"},
        {"", ""},        {".", ""},       {"x. ", "x. "},    {"\xC4\xB0", "i\xCC\x87"},
    };
    static const char *const normal[][2] = {
        {"T-Shirt!", "tshirt"}, {" (no) ", "no"}, {"a, b", "a b"}, {"...", ""}, {"\xC2\xA0x", "x"},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        char *text = gqa_prediction_plain(plain[i][0]);
        assert_string_equal(text, plain[i][1]);
        free(text);
    }
    for (size_t i = 0; i < sizeof normal / sizeof *normal; i++) {
        char *text = gqa_normal(normal[i][0]);
        assert_string_equal(text, normal[i][1]);
        free(text);
    }
    assert_int_equal(gqa_words(" a\tb\xC2\xA0"
                               "c\n d ",
                               false),
                     4);
    assert_int_equal(gqa_words("a b\nAnswer it.", true), 2);
    assert_int_equal(gqa_words("a b", true), 2);
    assert_int_equal(gqa_words("", false), 0);
}

/* ---- Writing. ---- */

typedef struct Back {
    int count;
    double sum;
    char last[80];
} Back;

static int take_back(void *user, const char *id, const char *text, bool llava, Error *err) {
    Back *back = user;
    (void)err;
    snprintf(back->last, sizeof back->last, "%s=%s%s", id, text, llava ? " (llava)" : "");
    back->count++;
    return 0;
}

static int take_map(void *user, const char *id, const double *map, Error *err) {
    Back *back = user;
    (void)err;
    for (int i = 0; i < GQA_MAP_CELLS; i++) {
        if ((float)map[i] != (float)(i * i) / 7.0f) fail_msg("%s: cell %d is %g", id, i, map[i]);
        back->sum += map[i];
    }
    back->count++;
    return 0;
}

static void test_written(void **state) {
    Run *r = *state;
    Error err;
    GqaArrayWriter writer;
    Skipped skipped = {.total = 0};
    Back back = {.count = 0};
    char path[300], id[20], *line;
    float map[GQA_MAP_CELLS];
    path_in(path, sizeof path, r, "written.json");
    for (int count = 0; count < 5000; count = 5 * count + 1) {
        assert_ok(gqa_array_begin(&writer, path, &err), &err);
        for (int i = 0; i < count; i++) {
            snprintf(id, sizeof id, "%d", i);
            assert_ok(gqa_array_prediction(&writer, id, "a \"\\\n\xC3\xA4\xFF", &err), &err);
        }
        assert_ok(gqa_array_end(&writer, 0, &err), &err);
        back = (Back){.count = 0};
        assert_ok(gqa_predictions_walk(path, take_back, &back, &skipped, &err), &err);
        assert_int_equal(back.count, count);
    }
    assert_non_null(strstr(back.last, "=a \"\\\n\xC3\xA4\xEF\xBF\xBD"));
    for (int i = 0; i < GQA_MAP_CELLS; i++) map[i] = (float)(i * i) / 7.0f;
    assert_ok(gqa_array_begin(&writer, path, &err), &err);
    for (int i = 0; i < 300; i++) assert_ok(gqa_array_attention(&writer, "x", map, &err), &err);
    map[3] = NAN;
    assert_refused(gqa_array_attention(&writer, "bad", map, &err), &err, "bad", "finite");
    assert_ok(gqa_array_end(&writer, 0, &err), &err);
    back = (Back){.count = 0};
    assert_ok(gqa_attentions_walk(path, take_map, &back, &skipped, &err), &err);
    assert_int_equal(back.count, 300);
    assert_int_equal(skipped.total, 0);
    /* A failure leaves the old file. */
    assert_ok(gqa_array_begin(&writer, path, &err), &err);
    assert_int_equal(gqa_array_end(&writer, error_set(&err, "no"), &err), -1);
    assert_ok(gqa_attentions_walk(path, take_map, &back, &skipped, &err), &err);
    line = gqa_answer_line("5", "Why?\nAnswer", "So.", NULL);
    assert_string_equal(
        line, "{\"question_id\": \"5\", \"prompt\": \"Why?\\nAnswer\", \"text\": \"So.\"}");
    write_file(r, "line.jsonl", line, strlen(line), path, sizeof path);
    free(line);
    assert_ok(gqa_predictions_walk(path, take_back, &back, &skipped, &err), &err);
    assert_string_equal(back.last, "5=So. (llava)");
}

/* ---- What is refused. ---- */

static void test_refused(void **state) {
    Run *r = *state;
    char path[300], ok[300];
    write_file(r, "ok.json", "[]", 2, ok, sizeof ok);
    run(r, "score", "gqa", ok);
    assert_message(r, 2, "PREDICTIONS", "QUESTIONS");
    run(r, "score", "gqa", ok, "/nowhere/q.json");
    assert_message(r, 1, "/nowhere/q.json", "No such file");
    run(r, "score", "gqa", ok, ok);
    assert_message(r, 1, "ok.json", "JSON array");
    static const char *const bad[][2] = {
        {"{}", "no questions"},
        {"", "empty"},
        {"hello", "no JSON"},
        {"{\"1\": {\"question\": ", "truncated"},
        {"{\"1\": {\"isBalanced\": false}}", "balanced"},
        {"{\"1\": {} \"2\": {}}", "comma"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(r, "bad.json", bad[i][0], strlen(bad[i][0]), path, sizeof path);
        run(r, "score", "gqa", ok, path);
        assert_message(r, 1, "bad.json", bad[i][1]);
    }
    run(r, "score", "gqa", GOLDEN "predictions.json", GOLDEN "all_questions.json", "--choices", ok);
    assert_message(r, 1, "ok.json", "valid");
    run(r, "score", "gqa", r->folder, GOLDEN "all_questions.json");
    assert_message(r, 1, r->folder, "a folder");
}

/* Files with changed or missing bytes: a score, or a message of one line. */
static void test_hostile(void **state) {
    Run *r = *state;
    const char *const names[] = {golden.predictions,  golden.questions,  golden.choices,
                                 golden.scene_graphs, golden.attentions, GOLDEN "answers.jsonl"};
    TestRandom random = {8};
    int scored = 0, refused = 0;
    char path[300];
    for (int round = 0; round < 240; round++) {
        int which = round % 6;
        size_t size;
        char *bytes = file_bytes(names[which], &size);
        assert_non_null(bytes);
        for (int i = 0; i < 1 + round % 4; i++) {
            size_t at = test_random_next(&random) % size;
            static const char often[] = "\"{}[],:\\0n \n\xFF-";
            bytes[at] = often[test_random_next(&random) % (sizeof often - 1)];
        }
        if (round % 7 == 0) size = test_random_next(&random) % size;
        write_file(r, "hostile.json", bytes, size, path, sizeof path);
        free(bytes);
        GqaFiles files = golden;
        const char **fields[] = {&files.predictions,  &files.questions,  &files.choices,
                                 &files.scene_graphs, &files.attentions, &files.predictions};
        *fields[which] = path;
        GqaScore score;
        Error err = {.text = ""};
        if (gqa_score(&score, &files, &err) == 0) {
            for (int m = 0; m < GQA_METRICS; m++)
                assert_true(!score.metrics[m].present || isfinite(score.metrics[m].value));
            gqa_score_free(&score);
            scored++;
        } else {
            assert_non_null(strstr(err.text, "hostile.json"));
            assert_null(strchr(err.text, '\n'));
            refused++;
        }
    }
    assert_true(scored > 30 && refused > 30);
}

static int start(void **state) {
    static Run r;
    run_start(&r);
    *state = &r;
    return 0;
}

static int stop(void **state) {
    run_end(*state);
    return 0;
}

/* The outcomes of the questions have the metrics as their means, and these lie within their
 * intervals. */
static void test_outcomes(void **state) {
    (void)state;
    Error err;
    GqaScore score;
    GqaFiles files = golden;
    files.outcomes = true;
    assert_ok(gqa_score(&score, &files, &err), &err);
    assert_ok(gqa_confidence(&score, NULL, &err), &err);
    assert_int_equal(score.outcome_count, score.questions);
    for (int k = 0; k < GQA_METRICS; k++) {
        const GqaMetric *m = &score.metrics[k];
        double sum = 0;
        int64_t count = 0;
        assert_true(m->present && m->sure == (k != GQA_DISTRIBUTION));
        for (size_t i = 0; i < score.outcome_count; i++) {
            double value = (double)score.outcomes[i].values[k];
            if (!isnan(value)) sum += value, count++;
        }
        if (!m->sure) continue;
        assert_int_equal(count, m->count);
        assert_true(fabs(100 * sum / (double)count - m->value) < 1e-4);
        assert_true(m->interval.low <= m->value && m->value <= m->interval.high);
    }
    gqa_score_free(&score);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_forms),
        cmocka_unit_test(test_entries), cmocka_unit_test(test_twice),
        cmocka_unit_test(test_llava),   cmocka_unit_test(test_testdev),
        cmocka_unit_test(test_texts),   cmocka_unit_test(test_written),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_unusable),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_outcomes),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
