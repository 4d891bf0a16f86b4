/* `easyfirst reproduce`: every table is well-formed and its commands are ones of the program, small
 * runs give the numbers that their commands wrote, what is finished is not repeated; missing files,
 * stand-ins of the true shapes, broken tables, wrong usage. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/train_setup.h"

static const char *const tables[] = {
    "figure3", "figure5", "figure6", "figure7", "figure8", "llada-reversal", "llada-scaling",
    "table1",  "table2",  "table3",  "table4",  "table7",  "table8",         NULL};

/* ---- The tables. ---- */

enum { MOST_COMMANDS = 32, MOST_WORDS = 128 };

/* The help of the commands that have been asked for. */
typedef struct Helps {
    Run run;
    char *names[MOST_COMMANDS], *texts[MOST_COMMANDS];
    int count, options;
} Helps;

static const char *help_of(Helps *h, const char *command, const char *kind) {
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", command, kind ? " " : "", kind ? kind : "");
    for (int i = 0; i < h->count; i++)
        if (!strcmp(h->names[i], name)) return h->texts[i];
    assert_true(h->count < MOST_COMMANDS);
    run(&h->run, (char *)command, (char *)(kind ? kind : "--help"), kind ? "--help" : NULL);
    expect(&h->run, 0, NULL);
    h->names[h->count] = strdup(name);
    h->texts[h->count] = strdup(h->run.out);
    return h->texts[h->count++];
}

/* A line that the program printed, "easyfirst COMMAND ...": its options are that command's. */
static void check_line(Helps *h, char *line) {
    char *words[MOST_WORDS];
    int count = 0;
    for (char *w = strtok(line, " "); w && count < MOST_WORDS; w = strtok(NULL, " "))
        words[count++] = w;
    assert_true(count >= 3 && count < MOST_WORDS);
    assert_string_equal(words[0], "easyfirst");
    const bool eval = !strcmp(words[1], "eval");
    const char *help = help_of(h, words[1], eval ? words[2] : NULL);
    for (int i = 2; i < count; i++) {
        char option[64];
        if (strncmp(words[i], "--", 2)) continue;
        snprintf(option, sizeof option, "%s ", words[i]);
        const char *found = strstr(help, option);
        snprintf(option, sizeof option, "%s\n", words[i]);
        if (!found && !strstr(help, option))
            fail_msg("easyfirst %s %s has no %s", words[1], words[2], words[i]);
        h->options++;
    }
}

/* Both forms, all sizes: what --check prints. */
static void test_tables(void **state) {
    (void)state;
    static Helps h;
    run_start(&h.run);
    run(&h.run, "reproduce", "list");
    expect(&h.run, 0, NULL);
    assert_int_equal(count_lines(h.run.out), 13);
    for (int i = 0; tables[i]; i++) assert_non_null(strstr(h.run.out, tables[i]));
    for (int i = 0; tables[i]; i++) {
        for (int small = 0; small < 2; small++) {
            Run r;
            run_start(&r);
            run(&r, "reproduce", (char *)tables[i], "--check", "--files", "no/such/folder",
                small ? "--small" : NULL);
            const bool missing = strstr(r.out, "\nmissing   no/such/folder/") != NULL;
            assert_int_equal(r.status, missing ? 1 : 0);
            assert_string_equal(r.err, "");
            if (small) assert_false(missing);
            char *state_of = NULL, *text = strdup(r.out);
            for (char *line = strtok_r(text, "\n", &state_of); line;
                 line = strtok_r(NULL, "\n", &state_of))
                if (!strncmp(line, "easyfirst ", 10)) check_line(&h, line);
            free(text);
            run_end(&r);
        }
    }
    assert_true(h.options > 1000);
    for (int i = 0; i < h.count; i++) free(h.names[i]), free(h.texts[i]);
    run_end(&h.run);
}

/* The paper's numbers that the reports print. */
static void test_paper(void **state) {
    (void)state;
    static const struct {
        const char *table, *label, *size;
        double paper;
    } wanted[] = {
        {"table7", "IWSLT14 de-en, length beam 10", "base", 34.10},
        {"table7", "IWSLT14 de-en, length beam 10", "xxl", 38.57},
        {"table7", "IWSLT14 de-en, oracle length", "large", 38.84},
        {"table7", "Gigaword-10K, length beam 10", "xl", 31.42},
        {"table7", "WMT14 en-de, length beam 10", "xxl", 30.34},
        {"table2", "Strict Flan 2021, 0-shot, oracle length", "xl", 27.27},
        {"table3", "one demonstration", "xxl", 19.16},
        {"table8", "MMLU, 0-shot", "xxl", 42.13},
        {"table8", "GSM8K, 0-shot", "xxl", 4.4},
        {"table8", "TyDiQA, 0-shot, oracle length", "xxl", 52.06},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char path[100];
        bool found = false;
        snprintf(path, sizeof path, "data/reproduce/%s.json", wanted[i].table);
        json_t *table = json_load_file(path, 0, NULL);
        const json_t *rows = json_object_get(table, "rows");
        for (size_t r = 0; r < json_array_size(rows); r++) {
            const json_t *row = json_array_get(rows, r);
            if (strcmp(json_string_value(json_object_get(row, "label")), wanted[i].label)) continue;
            const json_t *paper = json_object_get(json_object_get(row, "paper"), wanted[i].size);
            assert_true(json_number_value(paper) == wanted[i].paper);
            found = true;
        }
        json_decref(table);
        if (!found) fail_msg("%s has no row \"%s\"", wanted[i].table, wanted[i].label);
    }
}

/* ---- Small runs. ---- */

static double at(const json_t *json, const char *name) {
    const json_t *value = json_object_get(json, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Every row with a step has the number that its command's result has. */
static void check_rows(const Run *r, const char *name, int wanted) {
    json_t *report = read_json(r, name);
    const json_t *rows = json_object_get(report, "rows");
    int numbers = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *path = json_string_value(json_object_get(row, "result"));
        if (!path) {
            assert_true(json_string_length(json_object_get(row, "why")) > 10);
            assert_true(json_is_null(json_object_get(row, "ours")));
            continue;
        }
        char way[200], *state = NULL;
        json_t *result = json_load_file(path, 0, NULL);
        const json_t *value = result;
        snprintf(way, sizeof way, "%s", json_string_value(json_object_get(row, "value")));
        for (char *step = strtok_r(way, "/", &state); step; step = strtok_r(NULL, "/", &state))
            value = json_is_array(value) ? json_array_get(value, (size_t)atoi(step))
                                         : json_object_get(value, step);
        assert_true(json_is_number(value));
        assert_true(fabs(at(row, "ours") - json_number_value(value)) < 1e-6);
        assert_true(at(row, "low") <= at(row, "ours") && at(row, "ours") <= at(row, "high"));
        json_decref(result);
        numbers++;
    }
    assert_int_equal(numbers, wanted);
    json_decref(report);
}

/* A table with training, and one with images. */
static void test_small(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char out[300], path[600];
    struct stat before, after;
    path_in(out, sizeof out, &r, "out");
    char *trial[] = {"reproduce", "llada-scaling",
                     "--small",   "--size",
                     "base",      "--train-steps",
                     "6",         "--limit",
                     "4",         "--out",
                     out,         "-q",
                     "--threads", "2",
                     NULL};
    run_files(&r, "/dev/null", NULL, trial);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| diffusion (upper bound), base | bits per byte | - | "));
    check_rows(&r, "out/llada-scaling.json", 2);
    char *page = read_text(&r, "out/llada-scaling.html");
    assert_non_null(strstr(page, "This is a trial"));
    assert_null(strstr(page, "<script"));
    free(page);
    char *text = read_text(&r, "out/llada-scaling.md");
    assert_non_null(strstr(text, "easyfirst train pretrain --objective ar -m "));
    assert_non_null(strstr(text, " --steps 6   # "));
    free(text);
    /* Again: nothing is run. */
    snprintf(path, sizeof path, "%s/steps/scaling-ar-base.json", out);
    assert_int_equal(stat(path, &before), 0);
    run_files(&r, "/dev/null", NULL, trial);
    expect(&r, 0, NULL);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_mtime == after.st_mtime);
    /* A training run whose end was not recorded resumes, and a made model is taken. */
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/steps/new-llada-base.json", out);
    assert_int_equal(unlink(path), 0);
    run_files(&r, "/dev/null", NULL, trial);
    expect(&r, 0, NULL);
    check_rows(&r, "out/llada-scaling.json", 2);
    /* The same folder with other options. */
    trial[8] = "5";
    run_files(&r, "/dev/null", NULL, trial);
    assert_message(&r, 1, "scaling-diffusion-base-likelihood", "another command", "--out");
    /* Another table shares the folder, and the step `data`. */
    run(&r, "reproduce", "table4", "--small", "--out", out, "-q");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| the bundled model | exact match | 39.93 | "));
    check_rows(&r, "out/table4.json", 1);
    run_end(&r);
}

/* Star graphs and facts: both kinds of models, in both directions, and a table that uses another's. */
static void test_planning(void **state) {
    (void)state;
    static const struct {
        char *table, *row;
        int rows;
    } trials[] = {
        {"figure7", "| the figure's graph, diffusion | exact path | - | ", 4},
        {"figure8", "| degree 4, diffusion, seed 3 | exact path | - | ", 8},
        {"llada-reversal", "| the other way round, autoregressive | % | - | ", 6},
    };
    Run r;
    run_start(&r);
    char out[300], path[200];
    path_in(out, sizeof out, &r, "out");
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
        run(&r, "reproduce", trials[i].table, "--small", "--train-steps", "3", "--limit", "3",
            "--out", out, "-q", "--threads", "2");
        expect(&r, 0, NULL);
        assert_non_null(strstr(r.out, trials[i].row));
        snprintf(path, sizeof path, "out/%s.json", trials[i].table);
        check_rows(&r, path, trials[i].rows);
    }
    /* The tokenizers have a word for each node, and for each word of the facts. */
    char *text = read_text(&r, "out/runs/data/star-tokenizer/tokenizer.json");
    assert_non_null(strstr(text, "\"13\":"));
    free(text);
    run_end(&r);
}

/* The made-up data: the same bytes twice, and no test record in training. */
static void test_data(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char a[300], b[300];
    path_in(a, sizeof a, &r, "a"), path_in(b, sizeof b, &r, "b");
    run_ok(&r, "reproduce", "data", a);
    run_ok(&r, "reproduce", "data", b);
    shell("diff -r %s %s", a, b);
    assert_int_equal(lines_in(&r, "a/numbers-train.de"), 2500);
    assert_int_equal(lines_in(&r, "a/numbers-test.en"), 200);
    shell("cd %s && for pair in numbers-train.de:numbers-test.de numbers-train.en:numbers-valid.en "
          "news-train.tgt:news-test.tgt problems-train.jsonl:problems-test.jsonl "
          "text.txt:text-test.txt star-2x4-train.txt:star-2x4-test.txt "
          "star-4x3-train.txt:star-4x3-test.txt facts-train.jsonl:facts-reversed.jsonl; do ! grep "
          "-Fxqf ${pair%%%%:*} ${pair#*:} || exit 1; done",
          a);
    char *text = read_text(&r, "a/numbers-test.de");
    assert_true(strstr(text, " und ") != NULL);
    free(text);
    assert_int_equal(lines_in(&r, "a/star-4x4-test.txt"), 2000);
    shell("cd %s && test $(sort -u star-2x4-test.txt | wc -l) -gt 1990", a);
    /* Facts learned one way are in training with the name or the book first, and asked by the other;
     * the rest are in training twice. */
    assert_int_equal(lines_in(&r, "a/facts-train.jsonl"), 200 + 2 * 400);
    assert_int_equal(lines_in(&r, "a/facts-both.jsonl"), 2 * 400);
    shell("cd %s && sed 's/.*inputs\": \"\\([^\"]*\\).*/\\1/' facts-reversed.jsonl >asked && "
          "test $(wc -l <asked) = 200 && ! grep -Fqf asked facts-train.jsonl && "
          "sed 's/.*inputs\": \"\\([^\"]*\\).*/\\1/' facts-learned.jsonl >asked && "
          "test $(grep -Fcf asked facts-train.jsonl) = 200",
          a);
    run_end(&r);
}

/* ---- Files of a full run. ---- */

static void put_files(const Run *r) {
    static const struct {
        const char *name, *text;
    } files[] = {
        {"iwslt14/test.de", "Hund\n"},
        {"iwslt14/test.en", "dog\n"},
        {"iwslt14/demonstrations.tsv", "Katze\tcat\nKuh\tcow\n"},
        {"mmlu/val/law_val.csv", "Is it?,yes,no,may be,never,A\n"},
        {"bbh/x.json", "{\"examples\": [{\"input\": \"Is it?\", \"target\": \"yes\"}]}\n"},
        {"tydiqa/tydiqa-goldp-v1.1-dev.json", "{}\n"},
        {"tydiqa/tydiqa-goldp-v1.1-train.json", "{}\n"},
        {"mgsm/mgsm_de.tsv", "Wie viele?\t3\n"},
        {"gsm8k/test.jsonl", "{}\n"},
        {"gsm8k/train.jsonl", "{}\n"},
    };
    shell("cd %s && mkdir -p iwslt14 mmlu/val bbh tydiqa mgsm gsm8k", r->folder);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_text_in(r, files[i].name, files[i].text, NULL);
}

/* Stand-ins of the true shape and name: nothing is missing. Of another size: refused. */
static void test_check(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char model[300];
    path_in(model, sizeof model, &r, "model");
    put_files(&r);
    run(&r, "reproduce", "table8", "--size", "xxl", "--files", r.folder, "--check");
    expect(&r, 1, NULL);
    assert_non_null(strstr(r.out, "/flan_v2.xxl.length: Flan-XLM-R, size xxl"));
    assert_non_null(strstr(r.out, "yegcjs/diffusion_llm: flan_v2.xxl.length.tar.gz"));
    assert_null(strstr(r.out, "/gsm8k/test.jsonl: "));
    run(&r, "reproduce", "table8", "--size", "xxl", "--files", r.folder);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "1 files are missing"));
    run_ok(&r, "new", model, "--empty", "--tokenizer", TOKENIZER, "--pre-norm", "--vocabulary",
           "250880", "--layers", "48", "--width", "4096", "--heads", "32", "--ffn", "16384");
    shell("mv %s/language %s/flan_v2.xxl.length", model, r.folder);
    run(&r, "reproduce", "table8", "--size", "xxl", "--files", r.folder, "--check");
    expect(&r, 1, NULL);
    assert_non_null(strstr(r.out, "/flan_v2.xxl.length: has no length predictor; expected Flan"));
    /* The released files have both parts: here as the two shards of one folder. */
    shell("cd %s/flan_v2.xxl.length && mv model.safetensors model-00001-of-00002.safetensors && "
          "mv %s/length.safetensors model-00002-of-00002.safetensors && echo '{\"weight_map\": "
          "{\"roberta.embeddings.word_embeddings.weight\": \"model-00001-of-00002.safetensors\", "
          "\"length_predictor.0.weight\": \"model-00002-of-00002.safetensors\"}}' "
          ">model.safetensors.index.json",
          r.folder, model);
    run(&r, "reproduce", "table8", "--size", "xxl", "--files", r.folder, "--check");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "/flan_v2.xxl.length: 10713 M parameters"));
    assert_null(strstr(r.out, "missing"));
    assert_non_null(strstr(r.out, "easyfirst eval text --language "));
    shell("mv %s/flan_v2.xxl.length %s/flan_v2.xl.length", r.folder, r.folder);
    run(&r, "reproduce", "table8", "--size", "xl", "--files", r.folder, "--check");
    expect(&r, 1, NULL);
    assert_non_null(strstr(r.out, "unusable"));
    assert_non_null(strstr(r.out, "of 10713 M parameters, expected Flan-XLM-R, size xl"));
    run_end(&r);
}

/* ---- Tables of an installed copy. ---- */

/* The program in r's folder, with one table of its own. */
static char *installed_begin(const Run *r) {
    char program[600];
    const char *built = getenv("EASYFIRST") ? getenv("EASYFIRST") : "build/easyfirst";
    snprintf(program, sizeof program, "%s/bin/easyfirst", r->folder);
    shell("mkdir -p %s/bin %s/share/easyfirst/reproduce && cp %s %s", r->folder, r->folder, built,
          program);
    char *was = getenv("EASYFIRST") ? strdup(getenv("EASYFIRST")) : NULL;
    setenv("EASYFIRST", program, 1);
    return was;
}

/* ... with one table more, "own", and a result that its step copies. `out` gets the folder to run in. */
static char *own_begin(const Run *r, char out[300], const char *result, const char *table) {
    char *was = installed_begin(r);
    path_in(out, 300, r, "out");
    shell("mkdir -p %s/made", r->folder);
    write_text_in(r, "made/result.json", result, NULL);
    write_text_in(r, "share/easyfirst/reproduce/own.json", table, NULL);
    return was;
}

static void installed_end(char *was) {
    if (was)
        setenv("EASYFIRST", was, 1);
    else
        unsetenv("EASYFIRST");
    free(was);
}

#define TABLE(rows, full)                                                                     \
    "{\"title\": \"T\", \"source\": \"S\", \"sizes\": [\"a\", \"b\"], \"rows\": [" rows "], " \
    "\"full\": {\"about\": \"A\", " full "}, \"small\": {\"about\": \"A\"}}"
#define ROW(full)                                                             \
    "{\"label\": \"L\", \"metric\": \"M\", \"value\": \"v\", \"full\": " full \
    ", \"small\": {\"why\": \"none\"}}"

static void test_broken_tables(void **state) {
    (void)state;
    static const struct {
        const char *text, *words[3];
    } bad[] = {
        {"[]", {"own.json", "not a JSON object"}},
        {"{\"title\": \"T\"}", {"own.json", "\"source\""}},
        {"{\"title\": \"T\", \"colour\": 1}", {"own.json", "unknown key \"colour\""}},
        {TABLE("", "\"steps\": []"), {"own.json", "no rows"}},
        {TABLE(ROW("{\"step\": \"x\"}"), "\"steps\": []"), {"the step x", "does not exist"}},
        {TABLE(ROW("{}"), "\"steps\": []"), {"\"L\"", "either \"step\" or \"why\""}},
        {TABLE(ROW("{\"step\": \"x\", \"why\": \"y\"}"), "\"steps\": []"), {"either"}},
        {TABLE(ROW("{\"why\": \"y\", \"z\": 1}"), "\"steps\": []"), {"unknown key \"z\""}},
        {TABLE(ROW("{\"why\": \"y\"}"), "\"steps\": [{\"name\": \"x\"}]"),
         {"no command in \"run\""}},
        {TABLE(ROW("{\"why\": \"y\"}"), "\"steps\": [{\"name\": \"x\", \"run\": [\"{what}\"]}]"),
         {"{what}", "has no value"}},
        {TABLE(ROW("{\"why\": \"y\"}"),
               "\"vars\": {\"v\": {\"a\": \"1\"}}, \"steps\": [{\"name\": \"x-{size}\", \"run\": "
               "[\"{v}\"]}]"),
         {"{v}", "size b"}},
        {TABLE(ROW("{\"why\": \"y\"}"),
               "\"steps\": [{\"name\": \"x\", \"run\": [\"info\"], \"after\": [\"z\"]}]"),
         {"the step x is after z"}},
        {TABLE(ROW("{\"why\": \"y\"}"),
               "\"steps\": [{\"name\": \"x\", \"run\": [\"info\"], \"files\": [\"z\"]}]"),
         {"the file \"z\"", "not listed"}},
        {TABLE(ROW("{\"why\": \"y\"}"), "\"use\": \"own\", \"steps\": []"), {"own", "circle"}},
        {"{\"title\": \"T\", \"source\": \"S\", \"claims\": [{\"text\": \"C\", \"greater\": \"L\", "
         "\"less\": \"M\"}], \"rows\": [" ROW(
             "{\"why\": \"y\"}") "], \"full\": {\"about\": \"A\", \"steps\": []}}",
         {"the claim \"C\"", "the row \"M\""}},
        {TABLE(ROW("{\"why\": \"y\"}"), "\"use\": \"others\", \"steps\": []"), {"others"}},
    };
    Run r;
    run_start(&r);
    char *was = installed_begin(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text_in(&r, "share/easyfirst/reproduce/own.json", bad[i].text, NULL);
        run(&r, "reproduce", "own", "--check");
        expect_message(&r, 1, bad[i].words);
    }
    installed_end(was);
    run_end(&r);
}

/* A full run from a person's files: first answers, a step that fails, one that it blocks, a value
 * that its result lacks. */
static void test_own_table(void **state) {
    (void)state;
    static const char own[] =
        "{\"title\": \"T\", \"source\": \"S\", \"rows\": ["
        "{\"label\": \"good\", \"metric\": \"exact\", \"paper\": 50, \"value\": "
        "\"score/files/0/exact_match\", \"full\": {\"step\": \"good\"}, \"small\": {\"why\": "
        "\"-\"}},"
        "{\"label\": \"bad\", \"metric\": \"exact\", \"value\": \"x\", \"full\": {\"step\": "
        "\"after\"}, \"small\": {\"why\": \"-\"}}],"
        "\"full\": {\"about\": \"A\", \"files\": {\"m\": {\"path\": \"tiny\", \"what\": \"a "
        "model\", "
        "\"from\": \"here\", \"model\": true}, \"t\": {\"path\": \"t.jsonl\", \"what\": \"lines\", "
        "\"from\": \"here\"}}, \"steps\": ["
        "{\"name\": \"good\", \"files\": [\"m\", \"t\"], \"run\": [\"eval\", \"text\", \"-m\", "
        "\"{files}/tiny\", \"--task\", \"exact\", \"{files}/*.jsonl\", \"--length\", \"2\", "
        "\"--out\", \"{runs}/good\"]},"
        "{\"name\": \"fails\", \"run\": [\"info\", \"no/such/model\"]},"
        "{\"name\": \"after\", \"after\": [\"fails\"], \"run\": [\"info\"], \"result\": "
        "\"stdout\"}]}, \"small\": {\"about\": \"A\"}}";
    Run r;
    run_start(&r);
    char out[300], checked[600], *was = installed_begin(&r);
    path_in(out, sizeof out, &r, "out");
    write_text_in(&r, "share/easyfirst/reproduce/own.json", own, NULL);
    write_text_in(&r, "t.jsonl",
                  "{\"inputs\": \"Is it?\", \"targets\": \"no\"}\n"
                  "{\"inputs\": \"Is she?\", \"targets\": \"yes\"}\n",
                  NULL);
    shell("cp -r " TINY_BASE " %s/tiny", r.folder);
    run(&r, "reproduce", "own", "--files", r.folder, "--check", "--limit", "1", "--out", out, "-q");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| good | exact | 50.00 | 0.00 |"));
    assert_non_null(strstr(r.out, "| bad | exact | - | needs training first |"));
    snprintf(checked, sizeof checked, "%s/check/runs/good/result.json", out);
    assert_int_equal(access(checked, F_OK), 0);
    run(&r, "reproduce", "own", "--files", r.folder, "--out", out, "-q");
    expect(&r, 1, NULL);
    assert_non_null(strstr(r.out, "| good | exact | 50.00 | 0.00 |"));
    assert_non_null(strstr(r.out, "| bad | exact | - | a command before it failed |"));
    assert_non_null(strstr(r.err, "the step fails ended with status 1"));
    json_t *report = read_json(&r, "out/own.json");
    const json_t *steps = json_object_get(report, "steps");
    assert_int_equal(json_array_size(steps), 3);
    assert_true(json_is_true(json_object_get(json_array_get(steps, 0), "done")));
    assert_true(json_is_false(json_object_get(json_array_get(steps, 1), "done")));
    json_decref(report);
    installed_end(was);
    run_end(&r);
}

/* ---- Claims. ---- */

enum { QUESTIONS = 60, SIDES = 4 };

/* Evaluations that are made up, of which three asked the same questions. */
static const struct {
    const char *name;
    int begin, right; /* the first question's number; a question is right if its number is below */
} sides[SIDES] = {{"weak", 0, 20}, {"strong", 0, 40}, {"same", 0, 41}, {"others", 1000, 1010}};

static void make_side(const Run *r, int side) {
    char name[100], result[500], lines[QUESTIONS * 120], *end = lines;
    const double share = 100.0 * (sides[side].right - sides[side].begin) / QUESTIONS;
    shell("mkdir -p %s/made/%s", r->folder, sides[side].name);
    snprintf(
        result, sizeof result,
        "{\"settings\": {\"command\": \"eval text\"}, \"score\": {\"task\": \"exact\", "
        "\"files\": [{\"exact_match\": %.8g, \"confidence\": {\"exact_match\": {\"low\": %.8g, "
        "\"high\": %.8g}}}]}}",
        share, share - 10, share + 10);
    snprintf(name, sizeof name, "made/%s/result.json", sides[side].name);
    write_text_in(r, name, result, NULL);
    for (int q = sides[side].begin; q < sides[side].begin + QUESTIONS; q++)
        end += sprintf(end,
                       "{\"question_id\": \"q%d\", \"prompt\": \"p\", \"target\": \"t\", "
                       "\"answer\": \"a\", \"scores\": {\"exact_match\": %d}}\n",
                       q, q < sides[side].right ? 100 : 0);
    snprintf(name, sizeof name, "made/%s/scored.jsonl", sides[side].name);
    write_text_in(r, name, lines, NULL);
}

/* A table whose steps copy them, with four claims. */
static void make_claims_table(const Run *r) {
    static const char *const claims[][2] = {
        {"strong", "weak"}, {"weak", "strong"}, {"same", "strong"}, {"strong", "others"}};
    char text[8000], *end = text;
    end += sprintf(end, "{\"title\": \"T\", \"source\": \"S\", \"rows\": [");
    for (int i = 0; i < SIDES; i++)
        end += sprintf(end,
                       "%s{\"label\": \"%s\", \"metric\": \"exact\", \"value\": "
                       "\"score/files/0/exact_match\", \"full\": {\"step\": \"%s\"}, \"small\": "
                       "{\"why\": \"none\"}}",
                       i ? "," : "", sides[i].name, sides[i].name);
    end += sprintf(end, "], \"claims\": [");
    for (int i = 0; i < 4; i++)
        end += sprintf(end, "%s{\"text\": \"<%d>\", \"greater\": \"%s\", \"less\": \"%s\"}",
                       i ? "," : "", i, claims[i][0], claims[i][1]);
    end += sprintf(end, "], \"full\": {\"about\": \"A\", \"steps\": [");
    for (int i = 0; i < SIDES; i++)
        end += sprintf(end,
                       "%s{\"name\": \"%s\", \"program\": \"cp\", \"run\": [\"-r\", "
                       "\"{files}/made/%s\", \"{runs}/%s\"]}",
                       i ? "," : "", sides[i].name, sides[i].name, sides[i].name);
    sprintf(end, "]}, \"small\": {\"about\": \"A\"}}");
    write_text_in(r, "share/easyfirst/reproduce/own.json", text, NULL);
}

/* Confirmed, contradicted, open; paired where both asked the same. */
static void test_claims(void **state) {
    (void)state;
    static const struct {
        const char *verdict;
        bool paired;
    } wanted[] = {
        {"confirmed", true}, {"contradicted", true}, {"open", true}, {"confirmed", false}};
    Run r;
    run_start(&r);
    char out[300], *was = installed_begin(&r);
    path_in(out, sizeof out, &r, "out");
    for (int i = 0; i < SIDES; i++) make_side(&r, i);
    make_claims_table(&r);
    run(&r, "reproduce", "own", "--files", r.folder, "--out", out, "-q");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| <0> | 33.33 | "));
    assert_non_null(strstr(r.out, ", not paired | confirmed |"));
    json_t *report = read_json(&r, "out/own.json");
    const json_t *said = json_object_get(report, "claims");
    assert_int_equal(json_array_size(said), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *claim = json_array_get(said, i);
        assert_string_equal(json_string_value(json_object_get(claim, "verdict")),
                            wanted[i].verdict);
        assert_int_equal(json_is_true(json_object_get(claim, "paired")), wanted[i].paired);
        assert_true(at(claim, "low") <= at(claim, "difference"));
        assert_true(at(claim, "high") >= at(claim, "difference"));
    }
    /* 20 of 60 differ: the deviation of the mean difference is 6.1 points. */
    const json_t *first = json_array_get(said, 0), *last = json_array_get(said, 3);
    assert_true(fabs(at(first, "low") - (33.33 - 1.96 * 6.09)) < 2.5);
    assert_true(fabs(at(last, "low") - (50 - sqrt(200))) < 1e-3);
    json_decref(report);
    char *page = read_text(&r, "out/own.html"), *markdown = read_text(&r, "out/own.md");
    assert_non_null(strstr(page, "&lt;1&gt;"));
    assert_non_null(strstr(page, "<td>contradicted</td>"));
    assert_non_null(strstr(markdown, "| contradicted |"));
    free(page), free(markdown);
    installed_end(was);
    run_end(&r);
}

/* A step that counted nothing fails a run, but no trial. */
static void test_nothing_counted(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char out[300];
    char *was =
        own_begin(&r, out, "{\"v\": null}",
                  "{\"title\": \"T\", \"source\": \"S\", \"rows\": [" ROW(
                      "{\"step\": \"x\"}") "], \"full\": {\"about\": \"A\", \"steps\": [{\"name\": "
                                           "\"x\", \"program\": \"cp\", \"run\": [\"-r\", "
                                           "\"{files}/made\", \"{runs}/x\"]}]}}");
    run(&r, "reproduce", "own", "--files", r.folder, "--out", out, "-q", "--limit", "2");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| its command gave no number |"));
    run(&r, "reproduce", "own", "--files", r.folder, "--out", out, "-q");
    expect(&r, 1, NULL);
    installed_end(was);
    run_end(&r);
}

/* Three of four: Wilson's interval; a row whose form is null is left out, the others have no size where
 * the form has a label. */
static void test_shares(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char out[300];
    char *was = own_begin(
        &r, out, "{\"v\": 3, \"n\": 4}",
        "{\"title\": \"T\", \"source\": \"S\", \"sizes\": [\"base\", \"large\"], \"rows\": ["
        "{\"label\": \"R\", \"metric\": \"%\", \"value\": \"v\", \"of\": \"n\", \"scale\": 100, "
        "\"full\": {\"step\": \"x\", \"label\": \"own\"}, \"small\": {\"why\": \"none\"}}, "
        "{\"label\": \"Q\", \"metric\": \"%\", \"full\": null, \"small\": {\"why\": \"none\"}}], "
        "\"full\": {\"about\": \"A\", \"steps\": [{\"name\": \"x\", \"program\": \"cp\", "
        "\"run\": [\"-r\", \"{files}/made\", \"{runs}/x\"]}]}, \"small\": {\"about\": \"A\"}}");
    run(&r, "reproduce", "own", "--size", "large", "--files", r.folder, "--out", out, "-q");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| own | % | - | 75.00 | 30.06 to 95.44 |"));
    assert_null(strstr(r.out, "| Q"));
    run(&r, "reproduce", "own", "--small", "--size", "large", "--out", out, "-q");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "| Q, large | % | - | none |"));
    installed_end(was);
    run_end(&r);
}

/* ---- Usage. ---- */

static void test_usage(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run(&r, "reproduce");
    assert_message(&r, 2, "name a table", "reproduce list");
    run(&r, "reproduce", "tabel7");
    assert_message(&r, 1, "tabel7", "did you mean table7");
    run(&r, "reproduce", "../reproduce/table7");
    assert_message(&r, 1, "there is no table");
    run(&r, "reproduce", "table7", "table8");
    assert_message(&r, 2, "table8", "one word too many");
    run(&r, "reproduce", "data");
    assert_message(&r, 2, "data needs the folder");
    run(&r, "reproduce", "table7", "--size", "base,huge", "--check");
    assert_message(&r, 1, "huge", "[\"base\",\"large\",\"xl\",\"xxl\"]");
    run(&r, "reproduce", "table7", "--limit", "0");
    assert_message(&r, 2, "--limit", "from 1 to");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),        cmocka_unit_test(test_paper),
        cmocka_unit_test(test_small),         cmocka_unit_test(test_planning),
        cmocka_unit_test(test_data),          cmocka_unit_test(test_check),
        cmocka_unit_test(test_broken_tables), cmocka_unit_test(test_own_table),
        cmocka_unit_test(test_claims),        cmocka_unit_test(test_nothing_counted),
        cmocka_unit_test(test_shares),        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
