/* `ask` and `text`: what becomes of requests that cannot be answered, and of words that could be
 * taken for something else. */
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define BASE   MODELS "tiny-base"
#define PIC0   MODELS "image0.png"
#define PIC1   MODELS "image1.png"

static void start(Run *r) {
    run_start(r);
    setenv("EASYFIRST_MODEL", BASE, 1);
}

/* The n-th line, from 0, as JSON. */
static json_t *json_line(const char *text, int n) {
    for (; n > 0 && text; n--) text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL;
    json_t *json = text ? json_loads(text, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (!json) fail_msg("no JSON: %s", text ? text : "no such line");
    return json;
}

static int whole(const json_t *object, const char *name) {
    return (int)json_integer_value(json_object_get(object, name));
}

static void assert_says(const char *text, const char *words) {
    if (!strstr(text, words)) fail_msg("\"%s\" is not in: %s", words, text);
}

/* "dog dog ...": too long for the model's 128 tokens. */
static void long_text(char out[2048]) {
    out[0] = 0;
    for (int i = 0; i < 300; i++) strcat(out, "dog ");
}

/* ---- Approximate decoding. ---- */

static void prefix_cache(void **state) {
    (void)state;
    static const char lines[] = "What?\nWho is it, and where?\n";
    Run r;
    start(&r);
    run_text(&r, lines, "text", "-q", "-n", "9", "--json", "--prefix-cache", "4");
    assert_int_equal(r.status, 0);
    for (int i = 0; i < 2; i++) {
        json_t *answer = json_line(r.out, i);
        assert_true(json_is_true(json_object_get(answer, "approximate")));
        assert_int_equal(whole(answer, "prefix_cache"), 4);
        json_decref(answer);
    }
    run_text(&r, lines, "text", "-n", "9", "--prefix-cache", "1");
    assert_says(r.err, ", approximate");
    char *each = strdup(r.out);
    run_text(&r, lines, "text", "-q", "-n", "9", "--prefix-cache", "0");
    expect(&r, 0, each);
    free(each);
    run_text(&r, "What?\n", "text", "-q", "-n", "3", "--prefix-cache", "2", "--no-kv-cache");
    assert_message(&r, 1, "prefix cache", "no KV cache");
    run_text(&r, "What?\n", "text", "-q", "-n", "3", "--prefix-cache", "2", "-m", MODELS "tiny-xl");
    assert_message(&r, 1, "prefix cache", "block-causal");
    run_end(&r);
}

/* ---- Long prompts. ---- */

static void text_long_prompts(void **state) {
    (void)state;
    static char words[2048], lines[8192];
    Run r;
    start(&r);
    long_text(words);
    snprintf(lines, sizeof lines, "What?\n%s\n\na\xff\nWho?\n%s\n", words, words);
    run_text(&r, "What?\nWho?\n", "text", "-q", "-n", "3");
    char *first = strndup(r.out, strcspn(r.out, "\n")), *second = strdup(strchr(r.out, '\n') + 1);
    char expected[512];
    snprintf(expected, sizeof expected, "%s\n\n\n\n%s\n", first, second);
    run_text(&r, lines, "text", "-q", "-n", "3");
    expect(&r, 1, expected);
    assert_says(r.err, "line 2: the prompt is");
    assert_says(r.err, "line 4: text: byte 1 (0xFF) is not valid UTF-8");
    assert_says(r.err, "line 6: the prompt is");
    assert_int_equal(count_lines(r.err), 3);
    run_text(&r, lines, "text", "-q", "-n", "3", "--long-prompts", "skip");
    expect(&r, 1, expected); /* the UTF-8 */
    assert_says(r.err, "2 prompts skipped");
    assert_int_equal(count_lines(r.err), 2);
    snprintf(lines, sizeof lines, "What?\n%s\nWho?\n", words);
    run_text(&r, lines, "text", "-q", "-n", "3", "--long-prompts", "skip", "--json");
    expect(&r, 0, NULL);
    json_t *json = json_line(r.out, 1);
    assert_says(json_string_value(json_object_get(json, "error")), "tokens long");
    assert_null(json_object_get(json, "answer"));
    json_decref(json);
    for (int trace = 0; trace < 2; trace++) {
        run_text(&r, lines, "text", "-q", "-n", "3", "--long-prompts", "keep-last", "--json",
                 trace ? "--trace" : NULL);
        expect(&r, 0, NULL);
        assert_says(r.err, "1 prompt shortened");
        json = json_line(r.out, 1);
        assert_true(whole(json, "dropped_tokens") > 100);
        assert_int_equal(whole(json, "prompt_tokens") - whole(json, "dropped_tokens"),
                         128 - 2 - 3); /* <s>, </s>, the answer */
        json_decref(json);
    }
    run_text(&r, lines, "text", "--long-prompts", "cut");
    assert_message(&r, 2, "--long-prompts takes refuse|skip|keep-last");
    free(first), free(second);
    run_end(&r);
}

static void ask_long_questions(void **state) {
    (void)state;
    static char words[2048];
    Run r;
    start(&r);
    long_text(words);
    run(&r, "ask", "-q", "-n", "3", PIC0, PIC1, "What?", words, "Who?");
    assert_int_equal(r.status, 1);
    assert_int_equal(count_lines(r.out), 4);
    assert_says(r.err, "question 2: the prompt is");
    run(&r, "ask", "-q", "-n", "3", "--long-prompts", "skip", PIC0, "What?", words, "Who?");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 2);
    assert_says(r.err, "1 prompt skipped");
    run(&r, "ask", "-q", "-n", "3", "--long-prompts", "keep-last", PIC0, "What?", words, "Who?");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 3);
    assert_says(r.err, "1 prompt shortened");
    run(&r, "ask", "--show", "-q", "-n", "3", PIC0, "What?", words, "Who?");
    assert_int_equal(r.status, 1);
    assert_says(r.err, "question 2");
    assert_says(r.out, "Who?");
    run_end(&r);
}

/* Two files of which version 0.1 answered nothing with a model whose answers stand behind their
 * prompts (tests/golden/cases): one long answer left no room for it behind another's prompt. */
static void cases_as_found(void **state) {
    (void)state;
    static char tokenizer[] = "data/bundled/model/language/sentencepiece.bpe.model";
    if (access(tokenizer, R_OK)) skip();
    Run r;
    char model[512], out[512];
    start(&r);
    path_in(model, sizeof model, &r, "model"), path_in(out, sizeof out, &r, "out");
    run(&r, "new", model, "--tokenizer", tokenizer, "--width", "24", "--heads", "3", "--layers",
        "1", "--ffn", "40", "--seed", "2");
    assert_int_equal(r.status, 0);
    run(&r, "text", "-q", "-m", model, "--steps", "2", "-f",
        "tests/golden/cases/text_20_lines.txt");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 20);
    assert_null(strstr(r.out, "\n\n"));
    run(&r, "eval", "text", "-m", model, "--task", "exact", "--lengths", "target", "--steps", "2",
        "--out", out, "tests/golden/cases/batch_longest_answer.jsonl");
    assert_int_equal(r.status, 0);
    assert_says(r.out, "batch_longest_answer       2           0");
    run_end(&r);
}

/* ---- Lines. ---- */

static void long_lines(void **state) {
    (void)state;
    enum { SIZE = 3 << 20 };
    Run r;
    char *text = malloc(SIZE + 64), path[512];
    start(&r);
    for (int i = 0; i < SIZE; i++) text[i] = "word "[i % 5];
    strcpy(text + SIZE, "\r\nWhat?\nWho?");
    for (int bom = 0; bom < 2; bom++) {
        if (bom) memcpy(text, "\xef\xbb\xbf", 3);
        write_file(&r, "long.txt", text, strlen(text), path, sizeof path);
        run(&r, "text", "-q", "-n", "3", "-f", path);
        assert_int_equal(r.status, 1);
        assert_int_equal(count_lines(r.out), 3);
        assert_true(r.out[0] == '\n' && strlen(r.out) > 5);
        assert_says(r.err, "long.txt: line 1: it has 3,145,7");
        assert_says(r.err, "at most 1,048,576");
    }
    /* Of JSON a line that was not kept has its beginning. */
    run(&r, "text", "-q", "-n", "3", "-f", path, "--json", "--long-prompts", "skip");
    assert_int_equal(r.status, 0);
    json_t *json = json_line(r.out, 0);
    assert_int_equal(strlen(json_string_value(json_object_get(json, "prompt"))), 256);
    json_decref(json);
    free(text);
    run(&r, "text", "-f", r.folder);
    assert_message(&r, 1, "a folder");
    write_file(&r, "wide.txt", "\xff\xfeW\0h\0", 6, path, sizeof path);
    run(&r, "text", "-f", path);
    assert_message(&r, 1, "wide.txt", "UTF-16", "iconv");
    write_file(&r, "bom.txt", "\xef\xbb\xbfWhat?\r\nWhat?", 15, path, sizeof path);
    run(&r, "text", "-q", "-n", "3", "-f", path);
    assert_int_equal(r.status, 0);
    assert_memory_equal(r.out, strchr(r.out, '\n') + 1, strlen(r.out) / 2);
    write_file(&r, "none.txt", "", 0, path, sizeof path);
    run(&r, "text", "-q", "-f", path);
    expect(&r, 0, "");
    run_end(&r);
}

/* A line that comes alone, into a FIFO that stays open, is answered before the next one
 * is there. */
static void fifo_is_a_stream(void **state) {
    (void)state;
    Run r;
    char path[512], bytes[4096];
    int out[2];
    start(&r);
    path_in(path, sizeof path, &r, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pipe(out), 0);
    const char *program = getenv("EASYFIRST");
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1), close(out[0]), close(out[1]);
        execl(program && *program ? program : "build/easyfirst", "easyfirst", "text", "-q", "-n",
              "3", "-f", path, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    int to = open(path, O_WRONLY);
    for (int line = 0; line < 3; line++) {
        struct pollfd wait = {.fd = out[0], .events = POLLIN};
        assert_int_equal(write(to, "What is it?\n", 12), 12);
        if (poll(&wait, 1, 60000) != 1) fail_msg("line %d had to wait for the next", line + 1);
        ssize_t n = read(out[0], bytes, sizeof bytes - 1);
        assert_true(n > 0 && bytes[n - 1] == '\n');
    }
    int status;
    close(to);
    assert_int_equal(read(out[0], bytes, sizeof bytes), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(out[0]);
    run_end(&r);
}

/* ---- Words. ---- */

static void near_presets(void **state) {
    (void)state;
    Run r;
    start(&r);
    run(&r, "text", "-n", "3", "summarise", "A text.");
    assert_message(&r, 2, "\"summarise\"", "summarize", "--");
    run(&r, "text", "-n", "3", "translte", "--from", "de", "--to", "en", "Ein Text.");
    assert_message(&r, 2, "\"translte\"", "did you mean translate");
    run_text(&r, "A text.\n", "text", "summarise");
    assert_message(&r, 2, "summarize");
    run(&r, "text", "-q", "-n", "3", "--", "summarise", "A text.");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 2);
    char *prompts = strdup(r.out);
    run(&r, "text", "-q", "-n", "3", "--raw", "summarise", "A text.");
    expect(&r, 0, prompts);
    run(&r, "text", "-q", "-n", "3", "--", "summarize", "A text.");
    assert_int_equal(count_lines(r.out), 2);
    run(&r, "text", "-q", "-n", "3", "summarize", "--", "-a text");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 1);
    run(&r, "text", "-q", "-n", "3", "template", "transistor");
    assert_int_equal(r.status, 0);
    free(prompts);
    run_end(&r);
}

static void leading_files_are_images(void **state) {
    (void)state;
    Run r;
    start(&r);
    run(&r, "ask", "-q", "-n", "3", PIC0, PIC1, "What?");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 2);
    assert_says(r.out, PIC1 "\tWhat?\t");
    char *both = strdup(r.out);
    run(&r, "ask", "-q", "-n", "3", "--image", PIC0, "--image", PIC1, "What?");
    expect(&r, 0, both);
    run(&r, "ask", PIC0, PIC1);
    assert_message(&r, 2, "no question", "all 2 arguments", "--");
    run(&r, "ask", PIC0, "What?", PIC1);
    assert_message(&r, 2, PIC1, "images come first", "--");
    run(&r, "ask", "--image", PIC0, PIC1, "What?");
    assert_message(&r, 2, PIC1, "--image");
    /* One that is not there is no question, either. */
    run(&r, "ask", "-q", "-n", "3", PIC0, "missing.JPG", "What?");
    assert_int_equal(r.status, 1);
    assert_int_equal(count_lines(r.out), 1);
    assert_says(r.err, "missing.JPG: ");
    assert_says(r.err, "no such file");
    run(&r, "ask", "-q", "-n", "3", PIC0, "--", PIC1, "missing.jpg");
    expect(&r, 0, NULL);
    assert_says(r.out, PIC0 "\t" PIC1 "\t");
    assert_says(r.out, "\tmissing.jpg\t");
    char name[1200];
    memset(name, 'n', sizeof name), strcpy(name + sizeof name - 5, ".png");
    run(&r, "ask", PIC0, "What?", name);
    assert_message(&r, 2, "nnn", ".png\" is an image's name", "put --", "--help");
    run(&r, "ask", "-q", "-n", "3", PIC0, "What is in dog.jpg?");
    assert_int_equal(r.status, 0);
    free(both);
    run_end(&r);
}

/* What can be known first is said before a model is opened: here there is none. */
static void checked_before_the_model(void **state) {
    (void)state;
    Run r;
    start(&r);
    setenv("EASYFIRST_MODEL", "missing-model", 1);
    run(&r, "ask", "missing.png", "What?");
    assert_message(&r, 1, "missing.png", "no such file");
    run(&r, "ask", "missing.png", "What?", "--json");
    assert_int_equal(r.status, 1);
    json_t *json = json_line(r.out, 0);
    assert_says(json_string_value(json_object_get(json, "error")), "no such file");
    json_decref(json);
    run(&r, "text", "-f", "missing.txt");
    assert_message(&r, 1, "missing.txt", "No such file");
    setenv("EASYFIRST_MODEL", BASE, 1);
    run_text(&r, "What?\nWho?\n", "text", "-n", "127");
    assert_message(&r, 1, "127 tokens", "reads 128");
    run(&r, "ask", "-n", "111", PIC0, "What?", "Who?");
    assert_message(&r, 1, "111 tokens", "image takes 16");
    run_end(&r);
}

/* ---- Many questions, and steps. ---- */

/* More questions than go in one call: each has its own line, in order, and its own answer. */
static void many_questions(void **state) {
    (void)state;
    enum { COUNT = 90 };
    Run r;
    char questions[COUNT][32], *args[COUNT + 8] = {"ask", "-q", PIC0, PIC1};
    start(&r);
    for (int i = 0; i < COUNT; i++) {
        snprintf(questions[i], sizeof questions[i], "What is %d?", i);
        args[4 + i] = questions[i];
    }
    run_files(&r, "/dev/null", NULL, args);
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 2 * COUNT);
    const char *line = r.out;
    char start[128], last[256] = "";
    for (int i = 0; i < 2 * COUNT; i++, line = strchr(line, '\n') + 1) {
        snprintf(start, sizeof start, "%s\t%s\t", i < COUNT ? PIC0 : PIC1, questions[i % COUNT]);
        assert_memory_equal(line, start, strlen(start));
        snprintf(last, sizeof last, "%.*s", (int)strcspn(line, "\n"), line);
    }
    run(&r, "ask", "-q", PIC1, questions[COUNT - 1]);
    assert_memory_equal(strrchr(last, '\t') + 1, r.out, strlen(r.out) - 1);
    run_end(&r);
}

static void steps_follow_the_length(void **state) {
    (void)state;
    static const struct {
        char *length, *steps;
        int want;
    } cases[] = {
        {"1", NULL, 10}, {"17", NULL, 17}, {"60", NULL, 50}, {"7", "50", 50}, {"60", "3", 3}};
    Run r;
    start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run(&r, "text", "--json", "--trace", "-n", cases[i].length, "What?",
            cases[i].steps ? "--steps" : NULL, cases[i].steps);
        expect(&r, 0, NULL);
        json_t *json = json_line(r.out, 0);
        assert_int_equal(whole(json, "steps"), cases[i].want);
        assert_int_equal(json_array_size(json_object_get(json, "trace")), cases[i].want);
        assert_says(r.err, cases[i].steps ? " steps, seed" : "a step for each token");
        json_decref(json);
    }
    /* Hypotheses of different lengths have different numbers of steps. */
    run(&r, "text", "-q", "--json", "--trace", "--beam", "3", "What?");
    expect(&r, 0, NULL);
    json_t *json = json_line(r.out, 0), *hypothesis;
    size_t i, others = 0;
    json_array_foreach(json_object_get(json, "hypotheses"), i, hypothesis) {
        const json_t *trace = json_object_get(hypothesis, "trace");
        int length = whole(hypothesis, "length");
        if (trace) assert_int_equal(json_array_size(trace), length < 10 ? 10 : length);
        others += trace != NULL;
    }
    assert_int_equal(others, 2);
    json_decref(json);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefix_cache),
        cmocka_unit_test(prefix_cache),
        cmocka_unit_test(text_long_prompts),
        cmocka_unit_test(ask_long_questions),
        cmocka_unit_test(cases_as_found),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(fifo_is_a_stream),
        cmocka_unit_test(near_presets),
        cmocka_unit_test(leading_files_are_images),
        cmocka_unit_test(checked_before_the_model),
        cmocka_unit_test(many_questions),
        cmocka_unit_test(steps_follow_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
