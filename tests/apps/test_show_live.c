/* `show`, `ask --show` and `text --show` with a model: live and again from a trace file, in a
 * terminal and as plain lines, with every kind of prompt; the README's samples; wrong usage. */
#include <sys/wait.h>

#include "tests/show.h"

#define BASE "tests/golden/models/tiny-base"
#define PIC0 "tests/golden/models/image0.png"

/* ---- Live, and again. ---- */

static void test_live_and_again(void **state) {
    (void)state;
    static char *const ways[3][6] = {{"--length", "9"},
                                     {"--beam", "3"},
                                     {"--length", "7", "--samples", "2", "--strategy", "cmlm"}};
    Run r;
    char path[512];
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    setenv("EASYFIRST_MODEL", BASE, 1);
    for (int w = 0; w < 3; w++)
        for (int plain = 0; plain < 2; plain++) {
            char *args[20] = {"show", "-q", "--json",  NULL,   PIC0,      "Where is it?",
                              "-s",   "3",  "--speed", "1000", "--steps", "50"};
            path_in(path, sizeof path, &r, "live.json");
            args[3] = path;
            for (int i = 0; i < 6; i++) args[12 + i] = ways[w][i];
            char *again[] = {"show", "--from", path, "--speed", "1000", NULL};
            if (plain) {
                run_files(&r, "/dev/null", NULL, args);
                expect(&r, 0, NULL);
                char *live = strdup(r.out);
                run_files(&r, "/dev/null", NULL, again);
                expect(&r, 0, live);
                /* `show --from --json` prints the file. */
                run(&r, "show", "--from", path, "--json");
                char *text = file_bytes(path, NULL);
                expect(&r, 0, text);
                free(live), free(text);
                continue;
            }
            tty_start(t, 50, 20, args);
            tty_end_ok(t);
            char *live = strdup(t->bytes);
            assert_true(t->screen.frames > 5);
            tty_free(t);
            tty_start(t, 50, 20, again);
            tty_end(t);
            assert_string_equal(t->bytes, live);
            free(live), tty_free(t);
        }
    free(t);
    run_end(&r);
}

/* Without a terminal, or with one that cannot draw: lines, the same on both. */
static void test_plain(void **state) {
    (void)state;
    static const char *const settings[][2] = {
        {"TERM", "dumb"}, {"TERM", ""}, {"NO_COLOR", "1"}, {"", "--steps-only"}, {"", "-a"}};
    Run r;
    char path[512];
    const char *story = story_ascii, *answer = answer_ascii;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    write_trace(&r, "plain.json", story, answer, path, sizeof path);
    run(&r, "show", "--from", path, "--every-step");
    expect(&r, 0,
           "step 1  1/4  [a] __ __ __\n"
           "step 2  3/4  a [word] __[.]\n"
           "step 3  3/4  __ [thing that].   erased: \"a\", \"word\"\n"
           "step 4  4/4  [a] thing [stands].   erased: \"that\"\n"
           "a thing stands.\n");
    run(&r, "show", "--from", path); /* "a" comes back, "word" stays until "thing" comes */
    expect(&r, 0,
           "step 1  1/4  [a] __ __ __\n"
           "step 2  3/4  a [word] __[.]\n"
           "step 3  4/4  a [thing that].   erased: \"word\"\n"
           "step 4  4/4  a thing [stands].   erased: \"that\"\n"
           "a thing stands.\n");
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const char *name = settings[i][0], *option = *name ? NULL : settings[i][1];
        char *before = *name && getenv(name) ? strdup(getenv(name)) : NULL;
        if (*name) setenv(name, settings[i][1], 1);
        run(&r, "show", "--from", path, (char *)option);
        tty_start(t, 80, 10, (char *[]){"show", "--from", path, (char *)option, NULL});
        tty_end(t);
        char *want = r.out, *got = t->bytes, *to = got;
        for (const char *p = got; *p; p++)
            if (*p != '\r') *to++ = *p;
        *to = 0;
        assert_string_equal(got, want);
        tty_free(t);
        if (*name && before) setenv(name, before, 1);
        if (*name && !before) unsetenv(name);
        free(before);
    }
    free(t);
    run_end(&r);
}

static void test_ask_show(void **state) {
    (void)state;
    Run r;
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    assert_non_null(t);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "-q", "--length", "4", PIC0, "What?", "Where?");
    char *first = strdup(strrchr(strtok(r.out, "\n"), '\t') + 1), *second;
    second = strdup(strrchr(strtok(NULL, "\n"), '\t') + 1);
    tty_start(t, 100, 20,
              (char *[]){"ask", "-q", "--show", "--steps", "9", "--length", "4", PIC0, "What?",
                         "Where?", NULL});
    tty_end_ok(t);
    assert_string_equal(screen_row(&t->screen, 0), PIC0 ": What?");
    assert_string_equal(screen_row(&t->screen, 2), PIC0 ": Where?");
    assert_int_equal(t->screen.y, 4);
    tty_free(t), free(t);
    run(&r, "ask", "-q", "--show", "--length", "4", PIC0, "What?");
    expect(&r, 0, NULL);
    assert_memory_equal(r.out, "step ", 5);
    assert_non_null(strstr(r.out, first));
    run(&r, "ask", "-q", "--show", "--length", "4", PIC0, "Where?");
    assert_non_null(strstr(r.out, second));
    run(&r, "ask", "--show", "--json", PIC0, "What?");
    assert_message(&r, 2, "--show", "--json");
    free(first), free(second);
    run_end(&r);
}

/* ---- The README. ---- */

/* The README's opening sample is what its command prints; no word is erased only to return, also
 * with the paper's 50 steps. */
static void test_readme_sample(void **state) {
    (void)state;
    static const char command[] = "$ easyfirst show ";
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    char *readme = file_bytes("README.md", NULL);
    assert_non_null(readme);
    char *image = strstr(readme, command); /* IMAGE "QUESTION" */
    assert_non_null(image);
    image += strlen(command);
    char *question = strchr(image, '"') + 1, *sample = strchr(image, '\n') + 1;
    question[-2] = 0, sample[-2] = 0;
    *strstr(sample, "```") = 0;
    for (int steps = 0; steps < 2; steps++) {
        run(&r, "show", image, question, steps ? "--steps" : NULL, "50");
        expect(&r, 0, steps ? NULL : sample);
        assert_true(count_lines(r.out) <= 10);
        assert_null(strstr(r.out, "erased"));
    }
    free(readme);
    run_end(&r);
}

/* So are all of its samples, run by a shell. */
static void test_readme_samples(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    const char *program = getenv("EASYFIRST");
    char *readme = file_bytes("README.md", NULL), *at = readme;
    int samples = 0;
    assert_non_null(readme);
    while ((at = strstr(at, "\n$ easyfirst "))) {
        char *line = at + strlen("\n$ easyfirst "), *sample = strchr(line, '\n'), *end;
        *sample++ = 0;
        end = strstr(sample, "```");
        char *next = strstr(sample, "$ easyfirst ");
        if (next && next < end) end = next;
        const char first = *end;
        *end = 0;
        char shell[2048], got[4096];
        snprintf(shell, sizeof shell, "\"%s\" %s 2>/dev/null </dev/null",
                 program && *program ? program : "build/easyfirst", line);
        FILE *pipe = popen(shell, "r");
        assert_non_null(pipe);
        got[fread(got, 1, sizeof got - 1, pipe)] = 0;
        assert_int_equal(pclose(pipe), 0);
        assert_string_equal(got, sample);
        samples++;
        *end = first;
        at = end - 1;
    }
    assert_int_equal(samples, 5);
    free(readme);
    run_end(&r);
}

/* ---- Prompts. ---- */

/* `show` with the prompt templates of `text`, and `text --show`. */
static void test_presets(void **state) {
    (void)state;
    static char *const asked[][6] = {{"translate", "--from", "de", "--to", "en", "Werkzeug"},
                                     {"summarize", "A library that reads images."}};
    Run r;
    char path[512];
    Tty *t = malloc(sizeof *t);
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    assert_non_null(t);
    path_in(path, sizeof path, &r, "kept.json");
    for (int i = 0; i < 2; i++) {
        char *const *a = asked[i];
        run(&r, "text", "-q", a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, NULL);
        char *answer = strdup(r.out);
        run(&r, "show", "-q", "--json", path, a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, NULL);
        size_t size = strlen(r.out), end = strlen(answer);
        assert_true(size > end);
        assert_string_equal(r.out + size - end, answer);
        char *shown = strdup(r.out);
        run(&r, "show", "--from", path);
        expect(&r, 0, shown);
        run(&r, "text", "-q", "--show", a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(&r, 0, shown);
        answer[strcspn(answer, "\n")] = 0;
        tty_start(
            t, 100, 20,
            (char *[]){"show", "-q", "--speed", "1000", a[0], a[1], a[2], a[3], a[4], a[5], NULL});
        tty_end(t);
        assert_true(t->screen.frames > 1);
        expect_answer(&t->screen, 0, answer);
        tty_free(t);
        free(answer), free(shown);
    }
    /* Invalid lines are reported on stderr; the rest are shown. */
    run_text(&r, "Werkzeug\n\xff\nSpiel\n", "text", "-q", "--show", "translate", "--from", "de",
             "--to", "en");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "line 2"));
    assert_memory_equal(r.out, "Werkzeug\nstep ", 14);
    assert_non_null(strstr(r.out, "Spiel\nstep "));
    run(&r, "text", "--show", "--json", "x");
    assert_message(&r, 2, "--show", "--json");
    run(&r, "show", "translate", "--to", "en", "x");
    assert_message(&r, 2, "translate needs --from and --to");
    run(&r, "show", "translat", "x");
    assert_message(&r, 2, "translat", "did you mean translate");
    run(&r, "show", "summarize", "a", "b");
    assert_message(&r, 2, "summarize takes one text");
    run(&r, "show", "summarize", "--text", "a", "b");
    assert_message(&r, 2, "--text", "summarize");
    run(&r, "show", "--to", "en", PIC0, "b");
    assert_message(&r, 2, "--to belongs to translate");
    free(t);
    run_end(&r);
}

/* A prompt that is too long is refused, or shortened, which is reported and in the trace. */
static void test_long_prompts(void **state) {
    (void)state;
    Run r;
    char text[4 * 700 + 1], path[512];
    for (int i = 0; i < 700; i++) memcpy(text + 4 * i, "and ", 4);
    text[sizeof text - 1] = 0;
    run_start(&r);
    setenv("EASYFIRST_MODEL", "data/bundled/model", 1);
    path_in(path, sizeof path, &r, "kept.json");
    run(&r, "show", "-q", "--text", text);
    assert_message(&r, 1, "tokens long", "fit");
    run(&r, "show", "-q", "--text", text, "--long-prompts", "keep-last", "--length", "3", "--json",
        path);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.err, "1 prompt shortened"));
    char *kept = file_bytes(path, NULL);
    assert_non_null(strstr(kept, "\"dropped_tokens\": "));
    run(&r, "show", "--from", path, "--json");
    expect(&r, 0, kept);
    free(kept);
    run(&r, "ask", "-q", "--show", "--length", "3", "data/bundled/images/tractor.jpg", text,
        "Is it?");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "question 1"));
    assert_non_null(strstr(r.out, "tractor.jpg: Is it?\nstep "));
    run_end(&r);
}

static void test_usage(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "show", "--from", "no/such.json");
    assert_message(&r, 1, "no/such.json", "No such file");
    run(&r, "show", "--from", "README.md");
    assert_message(&r, 1, "README.md: line 1", "expected one trace");
    run(&r, "show", "--from", "x", PIC0, "q");
    assert_message(&r, 2, "--from", PIC0);
    run(&r, "show", "--from", "x", "--text", "q");
    assert_message(&r, 2, "--from", "\"q\"");
    run(&r, "show", "--json=", PIC0, "q");
    assert_message(&r, 2, "--json= needs a FILE");
    run(&r, "show", "--json", PIC0);
    assert_message(&r, 2, "no question");
    run(&r, "show", "-q", "--json", "a", "b", PIC0, "q");
    assert_message(&r, 2, "one question at a time");
    run(&r, "show", "-q", "--json", "no/such/folder/t.json", PIC0, "q");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "no/such/folder"));
    run(&r, "show", "--speed", "0", PIC0, "q");
    assert_message(&r, 2, "--speed");
    run_end(&r);
}

/* The same in a real terminal, if tmux is installed. */
static void test_tmux(void **state) {
    (void)state;
    const char *program = getenv("EASYFIRST");
    char command[1024];
    snprintf(command, sizeof command, "sh tests/show_tmux.sh '%s' quick",
             program && *program ? program : "build/easyfirst");
    fflush(stdout);
    int status = system(command);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    show_environment();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live_and_again), cmocka_unit_test(test_plain),
        cmocka_unit_test(test_readme_sample),  cmocka_unit_test(test_readme_samples),
        cmocka_unit_test(test_ask_show),       cmocka_unit_test(test_presets),
        cmocka_unit_test(test_long_prompts),   cmocka_unit_test(test_usage),
        cmocka_unit_test(test_tmux),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
