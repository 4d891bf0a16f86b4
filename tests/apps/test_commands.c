/* The command line of the built program: help, wrong usage, what is refused, and a full disk. */
#include <unistd.h>

#include "projector/easyfirst.h"
#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define BASE   MODELS "tiny-base"
#define XL     MODELS "tiny-xl"
#define PIC0   MODELS "image0.png"

static const char *const commands[] = {"ask",   "text",  "fill",  "show",      "info",
                                       "train", "new",   "prune", "quantize",  "eval",
                                       "score", "bench", "serve", "reproduce", NULL};

/* ---- Help and wrong usage. ---- */

static void test_help(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run_files(&r, "/dev/null", NULL, (char *[]){NULL});
    assert_int_equal(r.status, 2);
    assert_non_null(strstr(r.err, "usage: easyfirst COMMAND"));
    assert_string_equal(r.out, "");
    run(&r, "--help");
    expect(&r, 0, NULL);
    for (int i = 0; commands[i]; i++) assert_non_null(strstr(r.out, commands[i]));
    run(&r, "--version");
    assert_int_equal(r.status, 0);
    assert_memory_equal(r.out, "easyfirst ", 10);
    for (int i = 0; commands[i]; i++) {
        char usage[64];
        snprintf(usage, sizeof usage, "usage: easyfirst %s ", commands[i]);
        run(&r, (char *)commands[i], "--version");
        expect(&r, 0, "easyfirst " EF_VERSION "\n");
        run(&r, (char *)commands[i], "--help");
        expect(&r, 0, NULL);
        assert_string_equal(r.err, "");
        assert_memory_equal(r.out, usage, strlen(usage));
        assert_non_null(strstr(r.out, "\nexamples:\n  easyfirst "));
        char *text = strdup(r.out);
        run(&r, "help", (char *)commands[i]);
        expect(&r, 0, text);
        free(text);
        for (const char *line = r.out; line;
             line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
            if (strcspn(line, "\n") > 100) fail_msg("a line of help is too wide: %.120s", line);
    }
    run_end(&r);
}

static void test_usage(void **state) {
    (void)state;
    static const struct {
        const char *args[8];
        const char *words[4];
    } wrong[] = {
        {{"aks"}, {"command \"aks\"", "did you mean ask"}},
        {{"--hlep"}, {"option \"--hlep\""}},
        {{"zzzzzz"}, {"command \"zzzzzz\""}},
        {{"ask"}, {"no image"}},
        {{"ask", PIC0}, {"no question"}},
        {{"ask", "--image", PIC0}, {"no question"}},
        {{"ask", "q", "--image", "-", "--image", "-"}, {"standard input", "one image"}},
        {{"ask", "-", "-", "q"}, {"standard input", "one image"}},
        {{"ask", "--lenght", "3", PIC0, "q"}, {"--lenght", "did you mean --length"}},
        {{"ask", "--qqqqqqqq", PIC0, "q"}, {"--qqqqqqqq"}},
        {{"ask", "-Z", PIC0, "q"}, {"-Z"}},
        {{"ask", PIC0, "q", "--length"}, {"--length needs"}},
        {{"ask", PIC0, "q", "-m"}, {"--model needs"}},
        {{"ask", "--json=1", PIC0, "q"}, {"--json", "no argument"}},
        {{"ask", "--no", PIC0, "q"}, {"--no", "several"}},
        {{"ask", "--length", "12abc", PIC0, "q"}, {"--length", "whole number", "12abc"}},
        {{"ask", "--length", "0", PIC0, "q"}, {"--length", "from 1 to"}},
        {{"ask", "--length", "", PIC0, "q"}, {"--length"}},
        {{"ask", "--length", " 3", PIC0, "q"}, {"--length"}},
        {{"ask", "--length", "99999999999999999999", PIC0, "q"}, {"--length"}},
        {{"ask", "--steps", "1.5", PIC0, "q"}, {"--steps", "1.5"}},
        {{"ask", "--threads", "-2", PIC0, "q"}, {"--threads", "from 1 to"}},
        {{"ask", "--seed", "-1", PIC0, "q"}, {"--seed"}},
        {{"ask", "--seed", "9223372036854775808", PIC0, "q"}, {"--seed"}},
        {{"ask", "--temperature", "hot", PIC0, "q"}, {"--temperature", "hot"}},
        {{"ask", "--temperature", "nan", PIC0, "q"}, {"--temperature"}},
        {{"ask", "--temperature", "1e999", PIC0, "q"}, {"--temperature"}},
        {{"ask", "--temperature", "0x1p3", PIC0, "q"}, {"--temperature"}},
        {{"ask", "--dtype", "f16", PIC0, "q"}, {"--dtype", "auto|f32|bf16", "f16"}},
        {{"ask", "--pad", "", PIC0, "q"}, {"--pad", "on|off"}},
        {{"ask", "--strategy", "random", PIC0, "q"}, {"--strategy", "random"}},
        {{"ask", "--trace", PIC0, "q"}, {"--trace needs --json"}},
        {{"ask", "-m", "", PIC0, "q"}, {"--model needs"}},
        {{"text", "--from", "de", "a"}, {"--from", "translate"}},
        {{"text", "translate", "--from", "de", "a"}, {"--from and --to"}},
        {{"text", "--file", "x", "a"}, {"--file"}},
        {{"text", "--batch", "65", "a"}, {"--batch", "64"}},
        {{"show", PIC0}, {"no question"}},
        {{"show", PIC0, "q", "q2"}, {"q2"}},
        {{"show", "--text", "q", "q2"}, {"q2"}},
        {{"info", "a", "b"}, {"\"b\""}},
        {{"serve", "a"}, {"\"a\""}},
        {{"serve", "--port", "65536"}, {"--port", "65535"}},
        {{"serve", "--cors", "example.org"}, {"--cors", "https://example.org"}},
        {{"serve", "--json"}, {"--json"}},
        {{"serve", "--api-key", "a", "--api-key-file", "b"}, {"--api-key-file"}},
        {{"info", "a", "-m", "b"}, {"two models"}},
        {{"bench", "x"}, {"\"x\""}},
        {{"bench", "--model-name", "gpt"}, {"gpt", "vit-l-14"}},
        {{"bench", "--rows", "9", "--tokens", "10"}, {"--rows 9"}},
    };
    Run r;
    run_start(&r);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        run_files(&r, "/dev/null", NULL, (char *const *)wrong[i].args);
        expect_message(&r, 2, wrong[i].words);
        assert_non_null(strstr(r.err, "--help"));
    }
    run_end(&r);
}

/* ---- What cannot be answered. ---- */

static void test_models_refused(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run(&r, "ask", "-m", "no/such/folder", PIC0, "q");
    assert_message(&r, 1, "no/such/folder", "no such folder");
    run(&r, "ask", "-m", PIC0, PIC0, "q");
    assert_message(&r, 1, PIC0, "not a folder");
    run(&r, "ask", "-m", BASE, "--language", "no/such", PIC0, "q");
    assert_message(&r, 1, "no/such");
    run(&r, "ask", "--language", BASE "/language", "--length", "2", PIC0, "q");
    assert_message(&r, 1, "no vision tower", "--vision");
    run(&r, "ask", "-n", "2", "--language", BASE "/language", "--vision", BASE "/vision", PIC0,
        "q");
    assert_message(&r, 1, "no projector", "--projector");
    run(&r, "ask", "-m", BASE, "--projector", XL "/projector.safetensors", PIC0, "q");
    assert_message(&r, 1, "projector", "width 32");
    run(&r, "text", "--language", BASE "/language", "a dog");
    assert_message(&r, 1, "no length predictor", "--length");
    run(&r, "text", "--vision", BASE "/vision", "a dog");
    assert_int_equal(r.status, 1);
    char path[512];
    write_file(&r, "bad.safetensors", "\x10\0\0\0\0\0\0\0{\"a\":", 13, path, sizeof path);
    run(&r, "info", path);
    assert_message(&r, 1, "bad.safetensors");
    run(&r, "info", "README.md");
    assert_message(&r, 1, "README.md");
    run(&r, "info", "no/such");
    assert_message(&r, 1, "no/such");
    run_end(&r);
}

static void test_images_refused(void **state) {
    (void)state;
    Run r;
    char text[512], empty[512], cut[512];
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    size_t size;
    char *png = file_bytes(PIC0, &size);
    assert_non_null(png);
    write_file(&r, "text.png", "this is a text\n", 15, text, sizeof text);
    write_file(&r, "empty.jpg", "", 0, empty, sizeof empty);
    write_file(&r, "cut.png", png, size / 2, cut, sizeof cut);
    run(&r, "ask", "no/such.png", "What is this?");
    assert_message(&r, 1, "no/such.png", "no such file");
    run(&r, "ask", text, "What is this?");
    assert_message(&r, 1, "text.png", "text", "PNG, JPEG");
    run(&r, "ask", empty, "What is this?");
    assert_message(&r, 1, "empty.jpg", "empty");
    run(&r, "ask", cut, "What is this?");
    assert_message(&r, 1, "cut.png");
    run(&r, "ask", MODELS "tiny-base", "What is this?");
    assert_message(&r, 1, MODELS "tiny-base", "a folder without images");
    run(&r, "ask", "-", "What is this?");
    assert_message(&r, 1, "standard input", "empty");
    run(&r, "show", cut, "What is this?");
    assert_message(&r, 1, "cut.png");
    free(png);
    run_end(&r);
}

static void test_questions_refused(void **state) {
    (void)state;
    Run r;
    char words[2048] = "";
    for (int i = 0; i < 300; i++) strcat(words, "dog ");
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", PIC0, "");
    assert_message(&r, 1, "question 1", "empty");
    run(&r, "ask", PIC0, " \t ");
    assert_message(&r, 1, "question 1", "empty");
    run(&r, "ask", PIC0, "a\xff");
    assert_message(&r, 1, "question 1", "UTF-8");
    run(&r, "ask", PIC0, words);
    assert_message(&r, 1, "question 1", "tokens long", " fit");
    run(&r, "ask", "--length", "120", PIC0, "What?");
    assert_message(&r, 1, "an answer of 120 tokens", "does not fit");
    run(&r, "show", PIC0, "");
    assert_message(&r, 1, "empty");
    run(&r, "show", "--text", words);
    assert_message(&r, 1, "tokens long");
    run(&r, "text", " ");
    expect(&r, 1, "\n");
    assert_non_null(strstr(r.err, "prompt 1: it is empty"));
    run(&r, "text", "--length", "3", ""); /* no prompt at all */
    assert_int_equal(r.status, 0);
    run(&r, "text", words, "-q");
    expect(&r, 1, "\n");
    assert_non_null(strstr(r.err, "prompt 1: the prompt is"));
    run_end(&r);
}

static void test_full_disk(void **state) {
    (void)state;
    if (access("/dev/full", W_OK)) skip();
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    static char *const runs[][6] = {{"ask", "-q", PIC0, "What?"},
                                    {"ask", "-q", "--json", PIC0, "What?"},
                                    {"text", "-q", "What?"},
                                    {"show", "-q", PIC0, "What?"},
                                    {"info"},
                                    {"info", "--json"}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        run_files(&r, "/dev/null", "/dev/full", runs[i]);
        assert_message(&r, 1, "standard output", "No space left");
    }
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_models_refused),
        cmocka_unit_test(test_images_refused),
        cmocka_unit_test(test_questions_refused),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
