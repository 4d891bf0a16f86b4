/* Names and texts that would take over a terminal (escape sequences, C1 controls, bidirectional
 * controls, ends of lines, 1 MB without end), given to every command by every way in: nothing of
 * them may come out on standard output or standard error. */
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "kernels/clean_text.h"
#include "tests/llava_set.h"
#include "tests/program.h"

#define IMAGE "tests/golden/models/image0.png"

/* As a name of a file, an id, a question. As JSON it must be UTF-8: without the lone bytes. */
#define EVIL_UTF8                                                    \
    "\033[31mred\033]0;title\007\302\2332J\302\205\177\u202ertl\r\n" \
    "\b\t\u2028\u2066end"
#define EVIL EVIL_UTF8 "\2331m\200\377"

/* Something was printed, and nothing in it that a terminal would obey. */
static void expect_clean(const Run *r, const char *what) {
    const char *const texts[] = {r->out, r->err};
    for (int i = 0; i < 2; i++)
        for (const char *p = texts[i]; *p;) {
            unsigned code = 0;
            size_t size = utf8_next(p, &code);
            if (!size || (is_control_character(code) && code != '\n' && code != '\t'))
                fail_msg("%s: byte 0x%02x at %td of standard %s", what, (unsigned char)*p,
                         p - texts[i], i ? "error" : "output");
            p += size;
        }
    if (!*r->out && !*r->err) fail_msg("%s: printed nothing", what);
}

#define check(r, ...)                    \
    do {                                 \
        run((r), __VA_ARGS__);           \
        expect_clean((r), #__VA_ARGS__); \
    } while (0)

static void copy(const Run *r, const char *from, const char *name, char *path, size_t size) {
    size_t bytes;
    char *text = file_bytes(from, &bytes);
    assert_non_null(text);
    write_file(r, name, text, bytes, path, size);
    free(text);
}

/* A text of `size` bytes that begins with the evil one; the caller's to free. */
static char *long_evil(size_t size) {
    char *text = malloc(size + 1);
    assert_non_null(text);
    memset(text, 'a', size), text[size] = 0;
    memcpy(text, EVIL_UTF8, sizeof EVIL_UTF8 - 1);
    return text;
}

/* An object or a list as a file of one line; released. */
static void write_json(const Run *r, const char *name, json_t *value, char *path, size_t size) {
    char *text = json_dumps(value, 0);
    assert_non_null(text);
    write_file(r, name, text, strlen(text), path, size);
    free(text);
    json_decref(value);
}

/* The program finds its bundled model by itself only where it was built. */
static void start(Run *r) {
    run_start(r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
}

/* ---- Words of the command line. ---- */

static void words(void **state) {
    (void)state;
    static char *const commands[] = {"ask", "text",  "show", "info",  "train",
                                     "new", "prune", "eval", "score", "bench"};
    Run r;
    start(&r);
    char *evil = long_evil(100000);
    check(&r, EVIL);
    check(&r, "--" EVIL);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        check(&r, commands[i], "--" EVIL);
        check(&r, commands[i], "-" EVIL);
        check(&r, commands[i], "--device", EVIL, "x", "y");
        check(&r, commands[i], "-m", EVIL, EVIL, EVIL);
        check(&r, commands[i], evil, "--threads", evil);
    }
    free(evil);
    run_end(&r);
}

/* ---- Tensors. ---- */

static void tensors(void **state) {
    (void)state;
    Run r;
    char path[600], folder[600];
    start(&r);
    json_t *header = json_object();
    char *name = long_evil(1 << 20);
    json_object_set_new(
        header, EVIL_UTF8,
        json_pack("{s:s, s:[i], s:[i, i]}", "dtype", "F32", "shape", 1, "data_offsets", 0, 4));
    json_object_set_new(
        header, name,
        json_pack("{s:s, s:[i], s:[i, i]}", "dtype", "F32", "shape", 1, "data_offsets", 4, 8));
    free(name);
    char *text = json_dumps(header, 0);
    size_t size = strlen(text);
    char *bytes = calloc(1, size + 16);
    for (int i = 0; i < 8; i++) bytes[i] = (char)(size >> 8 * i);
    memcpy(bytes + 8, text, size);
    write_file(&r, "model.safetensors", bytes, size + 16, path, sizeof path);
    check(&r, "info", path);
    check(&r, "info", "--tensors", path);
    assert_non_null(strstr(r.out, "[31mred"));
    assert_int_equal(count_lines(r.out), 3); /* a name is no more than its line */
    check(&r, "info", "--tensors", "--json", path);
    json_t *read = json_loads(r.out, 0, NULL); /* escaped, not changed */
    assert_non_null(read);
    const char *first = json_string_value(
        json_object_get(json_array_get(json_object_get(read, "list"), 0), "name"));
    assert_non_null(first);
    assert_non_null(strstr(first, EVIL_UTF8));
    json_decref(read);
    path_in(folder, sizeof folder, &r, EVIL);
    assert_int_equal(mkdir(folder, 0777), 0);
    write_file(&r, EVIL "/model.safetensors", bytes, size + 16, path, sizeof path);
    check(&r, "info", "--tensors", folder);
    check(&r, "info", "-m", folder);
    check(&r, "ask", "-m", folder, IMAGE, "Q");
    check(&r, "ask", "--language", path, IMAGE, "Q");
    check(&r, "text", "--length-predictor", path, "Q");
    json_decref(header);
    free(text), free(bytes);
    run_end(&r);
}

/* ---- Questions, images, answers. ---- */

static void answers(void **state) {
    (void)state;
    Run r;
    char image[600], lines[600], lost[600], broken[600], trace[600];
    start(&r);
    char *evil = long_evil(100000), *line = long_evil(1 << 20);
    line[1 << 19] = '\n';
    copy(&r, IMAGE, EVIL ".png", image, sizeof image);
    write_file(&r, EVIL ".txt", line, 1 << 20, lines, sizeof lines);
    write_file(&r, "broken" EVIL, "no image", 10, broken, sizeof broken);
    path_in(lost, sizeof lost, &r, EVIL "lost.png");
    check(&r, "ask", "--steps", "2", "--length", "3", image, "What\033[2J is it?", EVIL, evil);
    check(&r, "ask", "--steps", "2", "--length", "3", "--json", image, "What is\302\2332J it?");
    json_t *read = json_loads(r.out, 0, NULL);
    assert_non_null(read);
    assert_string_equal(json_string_value(json_object_get(read, "question")),
                        "What is\302\2332J it?");
    json_decref(read);
    check(&r, "ask", "--show", "--steps", "2", "--length", "3", image, EVIL, "What is it?");
    check(&r, "ask", lost, "What is it?");
    check(&r, "ask", broken, "What is it?");
    check(&r, "text", "--steps", "2", "--length", "3", EVIL, "\xff\xfe", evil);
    check(&r, "text", "--steps", "2", "--length", "3", "--json", "Hello\302\2332J");
    check(&r, "text", "--steps", "2", "--length", "3", "-f", lines);
    check(&r, "text", "-f", lost);
    check(&r, "text", "translate", "--from", EVIL, "--to", EVIL, "x");
    path_in(trace, sizeof trace, &r, "trace.json");
    check(&r, "show", "--steps", "2", "--length", "3", "--json", trace, image, "It\033[2J is");
    check(&r, "show", "--from", trace);
    check(&r, "show", "--from", trace, "--json");
    check(&r, "show", "--from", trace, "--html", "-");
    check(&r, "show", "--from", trace, "--svg", "-");
    check(&r, "show", "--from", trace, "--svg", lost, "--html", broken);
    check(&r, "show", "--from", lines);
    check(&r, "show", "--from", lost);
    check(&r, "show", "--text", EVIL, "--steps", "2", "--length", "3");
    free(evil), free(line);
    run_end(&r);
}

/* ---- Evaluation and scores. ---- */

static json_t *item(const char *id, const char *image, const char *text) {
    return json_pack("{s:s, s:s, s:s}", "question_id", id, "image", image, "text", text);
}

static void evaluation(void **state) {
    (void)state;
    Run r;
    char image[600], questions[600], bad[600], out[600], gqa[600], predictions[600], lost[600];
    start(&r);
    copy(&r, IMAGE, EVIL_UTF8 ".png", image, sizeof image);
    char *jsonl = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&jsonl, &size);
    const char *const images[] = {EVIL_UTF8 ".png", EVIL_UTF8 "lost.png"};
    for (int i = 0; i < 4; i++) { /* two of one id, one without its image */
        json_t *o = item(i == 1 ? EVIL_UTF8 "1" : EVIL_UTF8, images[i == 1], EVIL_UTF8);
        char *text = json_dumps(o, 0);
        fprintf(f, "%s\n", text);
        free(text);
        json_decref(o);
    }
    fputs(EVIL "\n", f);
    fclose(f);
    write_file(&r, EVIL ".jsonl", jsonl, size, questions, sizeof questions);
    path_in(out, sizeof out, &r, EVIL "out");
    path_in(lost, sizeof lost, &r, EVIL "lost");
    check(&r, "eval", "gqa", questions, "--images", r.folder, "--out", out);
    check(&r, "eval", "gqa", lost, "--images", r.folder, "--out", out);
    check(&r, "eval", "text", "--task", "exact", questions, "--out", out);
    check(&r, "eval", "text", "--task", "exact", lost, "--out", out);
    check(&r, "eval", "order", questions, "--images", r.folder);
    write_json(&r, EVIL "gqa.json",
               json_pack("{s:{s:s, s:s, s:s, s:b, s:{s:s, s:s, s:s}}}", EVIL_UTF8, "question",
                         EVIL_UTF8, "imageId", EVIL_UTF8, "answer", EVIL_UTF8, "isBalanced", 1,
                         "types", "structural", EVIL_UTF8, "semantic", EVIL_UTF8, "detailed",
                         EVIL_UTF8),
               gqa, sizeof gqa);
    write_json(&r, EVIL "predictions.json",
               json_pack("[{s:s, s:s}, {s:s, s:s}]", "questionId", EVIL_UTF8, "prediction",
                         EVIL_UTF8, "questionId", EVIL_UTF8 "2", "prediction", "x"),
               predictions, sizeof predictions);
    check(&r, "score", "gqa", predictions, gqa);
    check(&r, "score", "gqa", "--json", predictions, gqa);
    check(&r, "score", "gqa", lost, gqa);
    write_file(&r, EVIL "bad", EVIL, sizeof EVIL - 1, bad, sizeof bad);
    check(&r, "score", "gqa", predictions, bad);
    check(&r, "score", "text", "--metric", "bleu", questions, bad);
    check(&r, "score", "text", "--metric", "bleu", lost, bad);
    check(&r, "score", "text", "--metric", EVIL, bad, bad);
    free(jsonl);
    run_end(&r);
}

/* ---- Training, vocabularies. ---- */

static void training(void **state) {
    (void)state;
    Run r;
    char data[600], out[600], lost[600], config[600];
    start(&r);
    json_t *list = json_array();
    for (int i = 0; i < 30; i++) {
        char id[200];
        snprintf(id, sizeof id, EVIL_UTF8 "%d", i);
        json_t *turns =
            json_pack("[{s:s, s:s}, {s:s, s:s}]", "from", "human", "value", EVIL_UTF8 " Why?",
                      "from", i == 7 ? EVIL_UTF8 : "gpt", "value", EVIL_UTF8 " So it is.");
        json_array_append_new(list,
                              i == 5 ? json_pack("{s:s, s:s}", "id", id, "image", id)
                                     : json_pack("{s:s, s:o}", "id", id, "conversations", turns));
        if (i == 5) json_decref(turns);
    }
    char *text = json_dumps(list, 0);
    json_decref(list);
    write_file(&r, EVIL_UTF8 ".json", text, strlen(text), data, sizeof data);
    path_in(out, sizeof out, &r, EVIL_UTF8 "run");
    path_in(lost, sizeof lost, &r, EVIL_UTF8 "lost");
    check(&r, "train", "instruct", "-m", "data/bundled/model", "--data", data, "--out", out,
          "--max-bad-fraction", "0.5", "--steps", "2", "--batch-sequences", "4", "--show-answers",
          "2", "--valid", data);
    assert_int_equal(r.status, 0);
    check(&r, "train", "instruct", "-m", "data/bundled/model", "--data", data, "--out", lost,
          "--max-bad-fraction", "0", "--steps", "1", "--batch-sequences", "4");
    assert_int_equal(r.status, 1);
    check(&r, "train", "instruct", "-m", "data/bundled/model", "--data", lost, "--out", out);
    check(&r, "train", EVIL);
    write_file(&r, EVIL "config", "{\"" EVIL "\": 1}", strlen("{\"" EVIL "\": 1}"), config,
               sizeof config);
    check(&r, "train", "--config", config, "--out", out);
    path_in(lost, sizeof lost, &r, EVIL_UTF8 "pruned");
    check(&r, "prune", "-m", "data/bundled/model", "--data", data, lost);
    assert_non_null(strstr(r.err, "left out"));
    check(&r, "new", "--tokenizer", lost, out);
    free(text);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),      cmocka_unit_test(tensors),  cmocka_unit_test(answers),
        cmocka_unit_test(evaluation), cmocka_unit_test(training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
