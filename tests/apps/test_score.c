/* `easyfirst score text` as a person uses it: files of lines and of JSON, options, wrong usage. The
 * values are sacrebleu's and rouge-score's (tests/golden/scores). */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

#define SCORES     "tests/golden/scores/"
#define ANSWERS    SCORES "answers.jsonl"
#define REFERENCES SCORES "references.jsonl"

enum { ARGS_MOST = 16, PATH = 512 };

static json_t *json_line(const char *text) {
    json_error_t problem;
    json_t *json = json_loads(text, JSON_DISABLE_EOF_CHECK, &problem);
    if (!json) fail_msg("bad JSON (%s): %.200s", problem.text, text);
    return json;
}

static void assert_value(const char *name, const json_t *mine, const json_t *theirs) {
    if (json_is_string(theirs)) {
        assert_string_equal(json_string_value(mine), json_string_value(theirs));
        return;
    }
    if (json_is_object(theirs) || json_is_array(theirs)) {
        const char *key;
        json_t *value;
        size_t index;
        json_object_foreach((json_t *)theirs, key, value)
            assert_value(key, json_object_get(mine, key), value);
        json_array_foreach(theirs, index, value)
            assert_value(name, json_array_get(mine, index), value);
        return;
    }
    if (!json_is_number(mine) || !json_is_number(theirs)) fail_msg("%s: no number", name);
    double a = json_number_value(mine), b = json_number_value(theirs);
    if (!(fabs(a - b) <= 1e-9 * fmax(fabs(b), 1e-9))) fail_msg("%s: %.17g, not %.17g", name, a, b);
}

/* The references' first texts, as lines of JSON. */
static void write_first(const Run *r, char *path, size_t size) {
    size_t bytes_size;
    char *bytes = file_bytes(REFERENCES, &bytes_size), *out = calloc(1, bytes_size + 1), *at = out;
    assert_non_null(bytes);
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *record = json_line(line), *targets = json_object_get(record, "targets");
        if (json_is_array(targets)) json_object_set(record, "targets", json_array_get(targets, 0));
        char *text = json_dumps(record, 0);
        at += sprintf(at, "%s\n\n", text); /* empty lines are passed over */
        free(text);
        json_decref(record);
    }
    write_file(r, "first.jsonl", out, (size_t)(at - out), path, size);
    free(bytes);
    free(out);
}

/* Every golden case through the program, as JSON, and the lines that people read. */
static void test_golden(void **state) {
    (void)state;
    Run r;
    char first[PATH];
    json_error_t problem;
    size_t index, i;
    json_t *expected = json_load_file(SCORES "expected.json", 0, &problem), *test, *option;
    assert_non_null(expected);
    run_start(&r);
    write_first(&r, first, sizeof first);
    json_array_foreach(json_object_get(expected, "cases"), index, test) {
        const char *metric = json_string_value(json_object_get(test, "metric"));
        bool one = json_integer_value(json_object_get(test, "references")) == 1;
        bool pairs = !strcmp(metric, "pairs"), line = metric[0] == 'b' || metric[0] == 'c';
        json_t *values = json_object_get(test, "values");
        char *args[ARGS_MOST] = {"score",    "text",
                                 "--metric", pairs ? "exact,number,f1" : (char *)metric,
                                 ANSWERS,    one ? first : REFERENCES};
        size_t count = 6;
        json_array_foreach(json_object_get(test, "options"), i, option) args[count++] =
            (char *)json_string_value(option);
        assert_true(count < ARGS_MOST - 1);
        if (line) {
            char text[512];
            const char *score = json_string_value(json_object_get(values, "line"));
            size_t name = strcspn(score, " ");
            run_files(&r, "/dev/null", NULL, args);
            snprintf(text, sizeof text, "%.*s|%s%s\n", (int)name, score,
                     json_string_value(json_object_get(values, "signature")), score + name);
            expect(&r, 0, text);
        }
        args[count] = "--json";
        run_files(&r, "/dev/null", NULL, args);
        expect(&r, 0, NULL);
        json_t *json = json_line(r.out);
        assert_value(metric, line ? json_object_get(json, metric) : json, values);
        json_decref(json);
    }
    json_decref(expected);
    run_end(&r);
}

static void put_text(const Run *r, const char *name, const char *text, char path[PATH]) {
    write_file(r, name, text, strlen(text), path, PATH);
}

static void test_lines(void **state) {
    (void)state;
    Run r;
    char answers[PATH], references[PATH], more[PATH];
    run_start(&r);
    put_text(&r, "a.txt", "\xef\xbb\xbfthe cat sat\r\n\nB", answers);
    put_text(&r, "b.txt", "the cat sat\n\n(B)\n", references);
    put_text(&r, "c.txt", "a cat sat\nx\nB\n", more);
    run(&r, "score", "text", "--metric", "exact,choice,number,f1", answers, references);
    expect(&r, 0,
           "exact = 66.67 (as it is)\n"
           "exact_plain = 100.00 (without case and punctuation)\n"
           "exact_squad = 100.00 (also without articles)\n"
           "number = 0.00 (the last integer)\n"
           "choice = 100.00 (the letter)\n"
           "f1 = 66.67 (of words, without case, punctuation and articles)\n");
    run(&r, "score", "text", answers, references, more);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "BLEU|nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp = "));
    assert_int_equal(count_lines(r.out), 2);
    /* No line has four words: the mean over the orders that there are, and over all four. */
    run_text(&r, "the cat sat\n\n(B)\n", "score", "text", "--metric", "bleu", "-", references);
    expect(&r, 0,
           "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp = 0.00 100.0/100.0/100.0/0.0 "
           "(BP = 1.000 ratio = 1.000 hyp_len = 6 ref_len = 6)\n");
    run_text(&r, "the cat sat\n\n(B)\n", "score", "text", "--metric", "bleu", "--effective-order",
             references, "-");
    expect(&r, 0,
           "BLEU|nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp = 100.00 100.0/100.0/100.0/0.0 "
           "(BP = 1.000 ratio = 1.000 hyp_len = 6 ref_len = 6)\n");
    /* An answer that begins like JSON is a text. */
    run_text(&r, "{\"x\": 1}\n\n(B)\n", "score", "text", "--metric", "rouge", "-", references);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 4);
    /* A prompt that could not be answered has an empty answer. */
    run_text(&r, "{\"answer\": \"the cat sat\"}\n{\"error\": \"no\"}\n{\"answer\": \"C\"}\n",
             "score", "text", "--metric", "choice", "-", references);
    expect(&r, 0, "choice = 66.67 (the letter)\n");
    run_end(&r);
}

static void test_wrong(void **state) {
    (void)state;
    Run r;
    char one[PATH], two[PATH], bad[PATH], nul[PATH], none[PATH], odd[PATH];
    run_start(&r);
    put_text(&r, "one.txt", "a\n", one);
    put_text(&r, "two.txt", "a\nb\n", two);
    put_text(&r, "bad.jsonl", "{\"targets\": \"a\"}\n{\"targets\": \n", bad);
    put_text(&r, "odd.jsonl", "{\"targets\": \"a\"}\n{\"targets\": 3}\n", odd);
    write_file(&r, "nul.txt", "a\0b\n", 4, nul, sizeof nul);
    put_text(&r, "none.txt", "", none);
    run(&r, "score");
    assert_message(&r, 2, "\"text\" or \"gqa\"", "--help");
    run(&r, "score", "texts", one, one);
    assert_message(&r, 2, "\"texts\"", "--help");
    run(&r, "score", "text", one);
    assert_message(&r, 2, "references", "--help");
    run(&r, "score", "text", "--metric", "bleu,rogue", one, one);
    assert_message(&r, 2, "rogue", "did you mean rouge");
    run(&r, "score", "text", "--metric", "bleu,", one, one);
    assert_message(&r, 2, "--metric");
    run(&r, "score", "text", "--metric", "zzzzzzzz", one, one);
    assert_message(&r, 2, "bleu|chrf|chrf++|rouge", "with commas between, or all");
    run(&r, "score", "text", "--version=1", one, one);
    assert_message(&r, 2, "--version takes no argument");
    run(&r, "score", "text", "--json=1", one, one);
    assert_message(&r, 2, "--json takes no argument");
    run(&r, "score", "text", "--tokenize", "14a", one, one);
    assert_message(&r, 2, "--tokenize", "13a|intl|none|char|zh");
    run(&r, "score", "text", "--smooth-value", "0.5", one, one);
    assert_message(&r, 2, "--smooth-value");
    run(&r, "score", "text", "-", "-");
    assert_message(&r, 2, "standard input");
    run(&r, "score", "text", one, two);
    assert_message(&r, 1, "one.txt", "1 lines", "two.txt", "2");
    run(&r, "score", "text", one, "no/such/file");
    assert_message(&r, 1, "no/such/file");
    run(&r, "score", "text", one, r.folder);
    assert_message(&r, 1, r.folder);
    run(&r, "score", "text", two, bad);
    assert_message(&r, 1, "bad.jsonl", "line 2");
    run(&r, "score", "text", two, odd);
    assert_message(&r, 1, "odd.jsonl", "line 2", "\"targets\"");
    run(&r, "score", "text", nul, one);
    assert_message(&r, 1, "nul.txt", "line 1", "NUL");
    run(&r, "score", "text", none, none);
    assert_message(&r, 1, "none.txt", "no lines");
    /* Lines of JSON without an answer are no plain text either. */
    run(&r, "score", "text", REFERENCES, ANSWERS);
    assert_message(&r, 1, "references.jsonl", "line 1", "\"answer\"");
    run(&r, "score", "--help");
    expect(&r, 0, NULL);
    run(&r, "score", "text", "--help");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "usage: easyfirst score text "));
    run_end(&r);
}

#define BYTES(text) (text), sizeof(text) - 1

/* What is not text, or not of one kind, never gets a score. */
static void test_misread(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *words[3];
    } files[] = {
        {BYTES("one\ntw\xff\n"), {"line 2", "byte 3", "UTF-8"}},
        {BYTES("one\n\xc3\n"), {"line 2", "UTF-8", NULL}},
        {BYTES("one\n\xed\xa0\x80\n"), {"line 2", "UTF-8", NULL}},
        {BYTES("one\ntwo\0\n"), {"line 2", "NUL", NULL}},
        {BYTES("\xff\xfeo\0n\0\n\0"), {"UTF-16", "iconv", NULL}},
        {BYTES("o\0n\0\n\0t\0"), {"UTF-16", NULL, NULL}},
        {BYTES("PAR1\xff\xff\xff"), {"Parquet", NULL, NULL}},
        {BYTES("{\"answer\": \"one\"}\ntwo\n"), {"line 2", "JSON object", NULL}},
        {BYTES("one\n{\"answer\": \"two\"}\n"), {"line 1", "JSON object", NULL}},
        {BYTES("{\"answer\": \"one\"}\n{\"answer\": \"tw"), {"line 2", "JSON object", NULL}},
        {BYTES("{\"answer\": \"one\n{\"answer\": \"two\n"), {"line 1", "JSON object", NULL}},
        {BYTES("{\"answer\": \"one\"}\n{\"text\": \"two\"}\n"), {"line 2", "\"text\"", "line 1"}},
        {BYTES("{\"answer\": \"one\"}\n{\"answer\": 2, \"text\": \"\"}\n"),
         {"line 2", "\"answer\"", NULL}},
        {BYTES("{\"answer\": \"one\"}\n{\"id\": 2}\n"), {"line 2", "no text", NULL}},
        {BYTES("{\"id\": 1}\n{\"id\": 2}\n"), {"line 1", "\"prediction\"", NULL}},
        {BYTES("{\"answer\": \"a\", \"answer\": \"b\"}\n{\"answer\": \"\"}"),
         {"line 1", "duplicate", NULL}},
        {BYTES("{\"error\": \"a\"}\n{\"error\": \"b\"}\n"), {"every one", "\"error\"", NULL}},
        {BYTES(" \n\t\n"), {"every one", "empty", NULL}},
    };
    Run r;
    char good[PATH], bad[PATH];
    run_start(&r);
    put_text(&r, "good.txt", "one\ntwo\n", good);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *const *w = files[i].words;
        write_file(&r, "bad", files[i].bytes, files[i].size, bad, sizeof bad);
        run(&r, "score", "text", bad, good);
        expect_message(&r, 1, (const char *const[]){"bad", w[0], w[1], w[1] ? w[2] : NULL, NULL});
        if (i > 6) continue; /* those below are about an answer's member */
        run(&r, "score", "text", good, bad);
        assert_message(&r, 1, "bad", w[0]);
        run(&r, "score", "text", bad, bad); /* equal nonsense was BLEU 100 */
        assert_message(&r, 1, "bad", w[0]);
    }
    /* Texts that begin as JSON does are texts among others. */
    put_text(&r, "code.txt", "{\"a\", \"b\"}\nint x[] = {1};\n", bad);
    run(&r, "score", "text", "--metric", "exact", "--json", bad, bad);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "\"exact\": 100.0"));
    /* Answers that are errors are counted. */
    put_text(&r, "some.jsonl", "{\"answer\": \"one\"}\n{\"error\": \"no\"}\n", bad);
    run(&r, "score", "text", "--metric", "exact", "--json", bad, good);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "\"errors\": 1"));
    assert_non_null(strstr(r.err, "1 of 2 answers are errors"));
    run_end(&r);
}

/* Long lines, many references, pipes. */
static void test_bounds(void **state) {
    (void)state;
    enum { LONG = 20000000, MANY = 8000 };
    Run r;
    char one[PATH], big[PATH], many[PATH], fifo[PATH];
    run_start(&r);
    char *text = malloc(LONG + 2);
    assert_non_null(text);
    for (size_t i = 0; i < LONG; i++) text[i] = i % 5 == 4 ? ' ' : 'w';
    text[LONG] = '\n';
    put_text(&r, "one.txt", "the cat\n", one);
    write_file(&r, "big.txt", text, LONG + 1, big, sizeof big);
    run(&r, "score", "text", big, one);
    assert_message(&r, 1, "big.txt", "line 1", "20000000 bytes");
    memset(text, '[', LONG); /* JSON that would take 900 MB */
    memcpy(text, "{\"answer\": ", 11);
    write_file(&r, "big.txt", text, LONG + 1, big, sizeof big);
    run(&r, "score", "text", big, one);
    assert_message(&r, 1, "big.txt", "line 1", "nested");
    free(text);
    run(&r, "score", "text", "/dev/zero", one);
    assert_message(&r, 1, "/dev/zero", "line 1", "MiB");
    /* 8,000 references of one of 8,000 lines: a column each would take half a gigabyte. */
    path_in(many, sizeof many, &r, "many.jsonl"), path_in(big, sizeof big, &r, "lines.txt");
    FILE *references = fopen(many, "w"), *answers = fopen(big, "w");
    assert_non_null(references), assert_non_null(answers);
    for (int i = 0; i < MANY; i++) {
        fprintf(answers, "the cat %d\n", i);
        fprintf(references, "{\"targets\": [\"the cat %d\"", i);
        for (int k = 0; i == 77 && k < MANY; k++) fprintf(references, ", \"a dog %d\"", k);
        fputs("]}\n", references);
    }
    fclose(references), fclose(answers);
    run(&r, "score", "text", "--metric", "exact,chrf", big, many);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "exact = 100.00"));
    assert_non_null(strstr(r.out, "nrefs:var"));
    /* A pipe is read where somebody writes, and not waited for where nobody does. */
    path_in(fifo, sizeof fifo, &r, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(fifo, O_WRONLY);
        _exit(fd < 0 || write(fd, "the cat\n", 8) != 8);
    }
    run(&r, "score", "text", "--metric", "exact", fifo, one);
    expect(&r, 0, NULL);
    waitpid(child, NULL, 0);
    run(&r, "score", "gqa", fifo, one);
    assert_message(&r, 1, "fifo", "pipe");
    run_end(&r);
}

/* With so many KiB of address space: the status. */
static int run_limited(Run *r, long limit, const char *answers, const char *references) {
    char text[32], out[PATH];
    const char *program = getenv("EASYFIRST");
    snprintf(text, sizeof text, "%ld", limit);
    char *args[] = {"sh",
                    "-c",
                    "ulimit -v \"$0\"; exec \"$@\"",
                    text,
                    (char *)(program && *program ? program : "build/easyfirst"),
                    "score",
                    "text",
                    "--metric",
                    "bleu,exact",
                    (char *)answers,
                    (char *)references,
                    NULL};
    path_in(out, sizeof out, r, "limited.out");
    pid_t child = fork();
    if (child == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_WRONLY);
        dup2(fd, 1), dup2(null, 2);
        execv("/bin/sh", args);
        _exit(126);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    free(r->out);
    r->out = file_bytes(out, NULL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* With too little memory there is no score, or the right one. */
static void test_memory(void **state) {
    (void)state;
    enum { LINES = 300, WORDS = 200, MOST = 1 << 20, STEPS = 24 };
    Run r;
    char answers[PATH], references[PATH];
    run_start(&r);
    path_in(answers, sizeof answers, &r, "a.jsonl");
    path_in(references, sizeof references, &r, "b.jsonl");
    FILE *a = fopen(answers, "w"), *b = fopen(references, "w");
    assert_non_null(a), assert_non_null(b);
    for (int i = 0; i < LINES; i++) {
        fputs("{\"answer\": \"", a), fputs("{\"targets\": \"", b);
        for (int w = 0; w < WORDS; w++) fprintf(a, "word%d ", i), fprintf(b, "other%d ", i);
        fputs("\"}\n", a), fputs("\"}\n", b);
    }
    fclose(a), fclose(b);
    if (run_limited(&r, MOST, answers, references) !=
        0) { /* a sanitizer's working copy is larger */
        run_end(&r);
        skip();
    }
    char *right = strdup(r.out);
    long low = 0, high = MOST; /* too little, enough */
    while (high - low > 256) {
        long middle = (low + high) / 2;
        *(run_limited(&r, middle, answers, references) == 0 ? &high : &low) = middle;
    }
    for (int i = 0; i < STEPS; i++) {
        int status = run_limited(&r, high - 200 * i, answers, references);
        assert_string_equal(r.out, status == 0 ? right : "");
    }
    free(right);
    run_end(&r);
}

static double member(const json_t *object, const char *group, const char *metric,
                     const char *name) {
    const json_t *row = json_object_get(json_object_get(object, group), metric);
    const json_t *value = json_object_get(row, name);
    if (!json_is_number(value)) fail_msg("no number %s.%s.%s", group, metric, name);
    return json_number_value(value);
}

/* Files of the systems and references of resample.json. */
static json_t *write_systems(const Run *r, char first[PATH], char second[PATH], char refs[PATH]) {
    json_error_t problem;
    json_t *golden = json_load_file(SCORES "resample.json", 0, &problem), *line;
    const char *const names[] = {"first", "second", "references"};
    char *const paths[] = {first, second, refs};
    assert_non_null(golden);
    for (int f = 0; f < 3; f++) {
        char *text = calloc(1, 65536), *at = text;
        size_t i;
        json_array_foreach(json_object_get(golden, names[f]), i, line) {
            json_t *record = json_pack("{s:O}", f < 2 ? "answer" : "targets", line);
            char *dumped = json_dumps(record, 0);
            at += sprintf(at, "%s\n", dumped);
            free(dumped);
            json_decref(record);
        }
        put_text(r, names[f], text, paths[f]);
        free(text);
    }
    return golden;
}

/* --confidence and --baseline: sacrebleu's numbers, and what is printed. */
static void test_sure(void **state) {
    (void)state;
    Run r;
    char first[PATH], second[PATH], refs[PATH], odd[PATH];
    run_start(&r);
    json_t *golden = write_systems(&r, first, second, refs);
    run(&r, "score", "text", "--metric", "all", "--json", "--baseline", first, second, refs);
    expect(&r, 0, NULL);
    json_t *json = json_line(r.out);
    static const char *const metrics[] = {"bleu", "chrf", "chrf++"};
    for (int m = 0; m < 3; m++) {
        const json_t *tests = json_object_get(json_object_get(golden, "paired"), metrics[m]);
        const json_t *bootstrap = json_array_get(tests, 0), *random = json_array_get(tests, 1);
        double half = json_number_value(json_object_get(bootstrap, "half"));
        assert_true(fabs(member(json, "confidence", metrics[m], "half_width") - half) < 1e-5);
        assert_true(member(json, "paired", metrics[m], "p_bootstrap") ==
                    json_number_value(json_object_get(bootstrap, "p")));
        assert_true(member(json, "paired", metrics[m], "p_randomization") ==
                    json_number_value(json_object_get(random, "p")));
    }
    static const char *const means[] = {"rouge1", "rougeL", "exact", "f1", "number", "choice"};
    for (int m = 0; m < 6; m++)
        assert_true(member(json, "confidence", means[m], "low") <=
                    member(json, "confidence", means[m], "high"));
    assert_true(member(json, "paired", "f1", "system") == member(json, "paired", "f1", "system"));
    json_decref(json);
    json_decref(golden);
    run(&r, "score", "text", "--confidence", "--metric", "chrf", first, refs);
    expect(&r, 0,
           "chrF2|nrefs:var|bs:1000|seed:12345|case:mixed|eff:yes|nc:6|nw:0|space:no = 48.16 "
           "(μ = 48.23 ± 4.32)\n");
    run(&r, "score", "text", "--baseline", first, "--trials", "99", "--samples", "50", "--seed",
        "3", "--metric", "exact", first, refs);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "difference = +0.00 (95 %: +0.00 to +0.00), p = 1.0000"));
    put_text(&r, "odd.txt", "{\"answer\": \"x\"}\n", odd);
    run(&r, "score", "text", "--baseline", odd, second, refs);
    expect_message(&r, 1, (const char *[]){"odd.txt has 1 lines, but", NULL});
    run(&r, "score", "text", "--trials", "5", second, refs);
    expect_message(&r, 2, (const char *[]){"--trials needs --baseline", NULL});
    run(&r, "score", "text", "--seed", "5", second, refs);
    expect_message(&r, 2, (const char *[]){"--seed needs --confidence or --baseline", NULL});
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_wrong),  cmocka_unit_test(test_misread),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_sure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
