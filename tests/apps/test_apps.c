/* The program as a user runs it (the built `easyfirst`, or the one that the environment's
 * EASYFIRST names), with models: what `ask`, `text`, `show` and `info` answer, against the
 * reference's values and each other. These tests run on a GPU, too (gpu_check.sh); test_commands.c
 * has the rest. */
#include <math.h>

#include <jansson.h>

#include "data/checkpoints/checkpoint.h"
#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define BASE   MODELS "tiny-base"
#define XL     MODELS "tiny-xl"
#define PIC0   MODELS "image0.png"
#define PIC1   MODELS "image1.png"

static json_t *json_line(const char *text) {
    json_error_t problem;
    json_t *json = json_loads(text, JSON_DISABLE_EOF_CHECK, &problem);
    if (!json) fail_msg("bad JSON (%s): %.200s", problem.text, text);
    return json;
}

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    if (!text) fail_msg("no text \"%s\" in the JSON", name);
    return text;
}

static double number_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number \"%s\" in the JSON", name);
    return json_number_value(value);
}

/* ---- Answers, against the reference's. ---- */

static const char *const folders[2] = {BASE, XL};

static json_t *golden_list(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *list = json_load_file(path, 0, NULL);
    if (!json_is_array(list)) fail_msg("%s: no list in it", path);
    return list;
}

/* Every case with a given length or a beam, through `ask`, in f32 as the reference computed. */
static void test_golden_answers(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int m = 0; m < 2; m++) {
        json_t *list = golden_list(folders[m], "answers.json"), *want;
        size_t i;
        json_array_foreach(list, i, want) {
            char image[512], steps[16], number[16], plain[256];
            const json_t *beam = json_object_get(want, "beam");
            const json_t *scores = json_object_get(want, "hypothesis_scores");
            snprintf(image, sizeof image, MODELS "%s", text_of(want, "image"));
            snprintf(steps, sizeof steps, "%d", (int)number_of(want, "iterations"));
            snprintf(
                number, sizeof number, "%d",
                (int)json_integer_value(json_is_integer(beam)
                                            ? beam
                                            : json_array_get(json_object_get(want, "lengths"), 0)));
            char *args[] = {"ask",
                            "-m",
                            (char *)folders[m],
                            "--dtype",
                            "f32",
                            "--steps",
                            steps,
                            "--strategy",
                            (char *)text_of(want, "strategy"),
                            json_is_integer(beam) ? "--beam" : "--length",
                            number,
                            image,
                            (char *)text_of(want, "question"),
                            "--json",
                            NULL};
            run_files(&r, "/dev/null", NULL, args);
            expect(&r, 0, NULL);
            json_t *got = json_line(r.out);
            assert_string_equal(text_of(got, "answer"), text_of(want, "answer"));
            assert_true(fabs(number_of(got, "score") - number_of(want, "score")) < 1e-4);
            const json_t *ids = json_object_get(want, "ids"),
                         *tokens = json_object_get(got, "tokens");
            assert_int_equal(json_array_size(tokens), json_array_size(ids));
            for (size_t j = 0; j < json_array_size(ids); j++)
                assert_int_equal((int)number_of(json_array_get(tokens, j), "id"),
                                 (int)json_integer_value(json_array_get(ids, j)));
            const json_t *hypotheses = json_object_get(got, "hypotheses");
            assert_int_equal(json_array_size(hypotheses), json_array_size(scores));
            for (size_t j = 0; j < json_array_size(scores); j++) {
                double expected = json_number_value(json_array_get(scores, j));
                double found = number_of(json_array_get(hypotheses, j), "score");
                if (!(fabs(found - expected) < 1e-4))
                    fail_msg("%s, case %zu, hypothesis %zu: score %g, expected %g", folders[m], i,
                             j, found, expected);
            }
            json_decref(got);
            snprintf(plain, sizeof plain, "%s\n", text_of(want, "answer"));
            args[13] = "-q"; /* and as plain text, with an empty standard error */
            run_files(&r, "/dev/null", NULL, args);
            expect(&r, 0, plain);
            assert_string_equal(r.err, "");
        }
        json_decref(list);
    }
    run_end(&r);
}

/* A trace in JSON against the reference's [steps, length] tokens and scores. */
static void check_trace(const json_t *got, const Checkpoint *golden, size_t number) {
    char name[64];
    snprintf(name, sizeof name, "decode.%zu.tokens", number);
    const CheckpointTensor *tokens = checkpoint_find(golden, name);
    snprintf(name, sizeof name, "decode.%zu.scores", number);
    const CheckpointTensor *scores = checkpoint_find(golden, name);
    assert_non_null(tokens), assert_non_null(scores);
    assert_int_equal(tokens->value.dtype, DTYPE_I64);
    const json_t *trace = json_object_get(got, "trace"), *step;
    assert_int_equal(json_array_size(trace), tokens->value.shape[0]);
    int evaluated = 0, n = (int)tokens->value.shape[1];
    size_t s;
    json_array_foreach(trace, s, step) {
        assert_int_equal((int)number_of(step, "step"), s + 1);
        evaluated += json_is_true(json_object_get(step, "evaluated"));
        const json_t *cells = json_object_get(step, "cells");
        assert_int_equal(json_array_size(cells), n);
        for (int i = 0; i < n; i++) {
            const json_t *cell = json_array_get(cells, (size_t)i);
            size_t at = s * (size_t)n + (size_t)i;
            assert_int_equal((int)number_of(cell, "id"), ((const int64_t *)tokens->value.data)[at]);
            bool masked = json_is_true(json_object_get(cell, "masked"));
            assert_int_equal(masked, !strcmp(text_of(cell, "piece"), "<mask>"));
            assert_int_equal(masked, json_is_null(json_object_get(cell, "score")));
            if (!masked)
                assert_true(fabs(number_of(cell, "score") -
                                 ((const float *)scores->value.data)[at]) < 1e-3);
            number_of(cell, "proposal_score"), text_of(cell, "proposal_piece");
        }
    }
    assert_int_equal(evaluated, (int)number_of(got, "evaluations"));
    assert_true(evaluated < (int)number_of(got, "steps") || n > 20);
}

/* Every strategy's case, step by step, through `show --json` and `text --json --trace`. */
static void test_golden_traces(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int m = 0; m < 2; m++) {
        Error err;
        Checkpoint golden;
        char path[512];
        snprintf(path, sizeof path, "%s/stages.safetensors", folders[m]);
        assert_ok(checkpoint_open(&golden, path, NULL, &err), &err);
        json_t *list = golden_list(folders[m], "decode.json"), *want;
        size_t i;
        json_array_foreach(list, i, want) {
            char image[512], steps[16], length[16];
            int number = (int)number_of(want, "image");
            snprintf(image, sizeof image, MODELS "image%d.png", number);
            snprintf(steps, sizeof steps, "%d", (int)number_of(want, "iterations"));
            snprintf(length, sizeof length, "%d", (int)number_of(want, "length"));
            char *strategy = (char *)text_of(want, "strategy");
            char *prompt = (char *)text_of(want, "prompt"), *folder = (char *)folders[m];
            if (number >= 0)
                run(&r, "show", "-q", "--json", "-m", folder, "--dtype", "f32", "--steps", steps,
                    "--length", length, "--strategy", strategy, image, prompt);
            else
                run(&r, "text", "-q", "--json", "--trace", "-m", folder, "--dtype", "f32",
                    "--steps", steps, "--length", length, "--strategy", strategy, prompt);
            expect(&r, 0, NULL);
            json_t *got = json_line(r.out);
            check_trace(got, &golden, i);
            json_decref(got);
        }
        json_decref(list);
        checkpoint_close(&golden);
    }
    run_end(&r);
}

static void test_many_images(void **state) {
    (void)state;
    static char *const images[2] = {PIC0, PIC1};
    static char *const questions[2] = {"What colour is the circle?", "Is the sky clear or cloudy?"};
    Run r;
    char lines[2048] = "", begin[256];
    run_start(&r);
    setenv("EASYFIRST_MODEL", XL, 1);
    for (int p = 0; p < 2; p++)
        for (int q = 0; q < 2; q++) {
            run(&r, "ask", "-q", images[p], questions[q]);
            expect(&r, 0, NULL);
            size_t n = strlen(lines);
            snprintf(lines + n, sizeof lines - n, "%s\t%s\t%s", images[p], questions[q], r.out);
        }
    run(&r, "ask", "-q", "--image", PIC0, questions[0], "--image", PIC1, questions[1]);
    expect(&r, 0, lines);
    /* An unreadable image or an empty question among them: the rest are answered. */
    run(&r, "ask", "-q", "--image", PIC0, "--image", "no/such.png", "--image", PIC1, questions[0],
        "", questions[1]);
    expect(&r, 1, lines);
    assert_non_null(strstr(r.err, "no/such.png"));
    assert_non_null(strstr(r.err, "question 2"));
    assert_int_equal(count_lines(r.err), 2);
    run(&r, "ask", "-q", "--json", "--image", "no/such.png", "--image", PIC1, questions[0]);
    expect(&r, 1, NULL);
    assert_int_equal(count_lines(r.out), 2);
    json_t *first = json_line(r.out), *second = json_line(strchr(r.out, '\n') + 1);
    assert_non_null(strstr(text_of(first, "error"), "no/such.png"));
    assert_null(json_object_get(first, "answer"));
    assert_string_equal(text_of(second, "image"), PIC1);
    text_of(second, "answer");
    json_decref(first), json_decref(second);
    /* Standard input; a tab in a name or question does not add a field. */
    size_t size;
    char *png = file_bytes(PIC0, &size);
    run_input(&r, png, size, (char *[]){"ask", "-q", "-", questions[0], "What\tcolour?", NULL});
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 2);
    snprintf(begin, sizeof begin, "-\t%s\t", questions[0]);
    assert_memory_equal(r.out, begin, strlen(begin));
    assert_non_null(strstr(r.out, "-\tWhat colour?\t"));
    run_input(&r, png, size, (char *[]){"ask", "-q", "-", questions[0], NULL});
    assert_int_equal(r.status, 0);
    lines[strcspn(lines, "\n") + 1] = 0; /* the first image's first question */
    assert_string_equal(r.out, strrchr(lines, '\t') + 1);
    free(png);
    run_end(&r);
}

static void test_json(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "--json", "--trace", "--beam", "3", "--seed", "7", "--steps", "50", PIC0,
        "What is \"this\"?");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.err, "decode")); /* timings */
    json_t *got = json_line(r.out);
    assert_string_equal(text_of(got, "image"), PIC0);
    assert_string_equal(text_of(got, "question"), "What is \"this\"?");
    assert_string_equal(text_of(got, "strategy"), "reparam-uncond-deterministic-cosine");
    assert_int_equal((int)number_of(got, "seed"), 7);
    assert_int_equal((int)number_of(got, "steps"), 50);
    assert_int_equal((int)number_of(got, "length"),
                     json_array_size(json_object_get(got, "tokens")));
    assert_int_equal(json_array_size(json_object_get(got, "trace")), 50);
    assert_true(number_of(got, "evaluations") > 0 && number_of(got, "prompt_tokens") > 0);
    const json_t *list = json_object_get(got, "hypotheses"), *one;
    assert_int_equal(json_array_size(list), 3);
    double best = -INFINITY;
    size_t i;
    json_array_foreach(list, i, one) {
        text_of(one, "text");
        best = fmax(best, number_of(one, "score"));
    }
    assert_true(best == number_of(got, "score"));
    json_decref(got);
    /* A name that is not valid UTF-8 does not break the JSON. */
    char name[512];
    size_t size;
    char *png = file_bytes(PIC0, &size);
    write_file(&r, "\xe9t\xe9.png", png, size, name, sizeof name);
    free(png);
    run(&r, "ask", "-q", "--json", name, "What?");
    expect(&r, 0, NULL);
    got = json_line(r.out);
    assert_non_null(strstr(text_of(got, "image"), "\xef\xbf\xbdt\xef\xbf\xbd.png"));
    json_decref(got);
    run_end(&r);
}

/* ---- Text, line by line. ---- */

static void test_text_lines(void **state) {
    (void)state;
    static const char input[] = "What colour is the dog?\n"
                                "\n"
                                "Where is the circle?\r\n"
                                "bad \xff bytes\n"
                                "%s\n"
                                "nul ";
    static const char tail[] = "\0byte\nHow many?"; /* a format cannot hold the NUL byte */
    Run r;
    char words[2048] = "", text[4096], want[1024];
    for (int i = 0; i < 300; i++) strcat(words, "dog ");
    int n = snprintf(text, sizeof text, input, words);
    memcpy(text + n, tail, sizeof tail - 1);
    n += (int)sizeof tail - 1;
    run_start(&r);
    setenv("EASYFIRST_MODEL", XL, 1);
    want[0] = 0;
    static char *const prompts[7] = {
        [0] = "What colour is the dog?", [2] = "Where is the circle?", [6] = "How many?"};
    for (int i = 0; i < 7; i++) {
        if (prompts[i]) run(&r, "text", "-q", prompts[i]);
        if (prompts[i]) expect(&r, 0, NULL);
        strcat(want, prompts[i] ? r.out : "\n");
    }
    assert_int_equal(count_lines(want), 7);
    static char *const batches[] = {"1", "3", "64"};
    for (int i = 0; i < 3; i++) {
        run_input(&r, text, (size_t)n, (char *[]){"text", "-q", "--batch", batches[i], NULL});
        expect(&r, 1, want);
        assert_int_equal(count_lines(r.err), 3);
        assert_non_null(strstr(r.err, "line 4: "));
        assert_non_null(strstr(r.err, "UTF-8"));
        assert_non_null(strstr(r.err, "line 5: the prompt is"));
        assert_non_null(strstr(r.err, "line 6: it has a NUL"));
    }
    char file[512];
    write_file(&r, "prompts.txt", text, (size_t)n, file, sizeof file);
    run(&r, "text", "-q", "--file", file);
    expect(&r, 1, want);
    assert_non_null(strstr(r.err, "prompts.txt: line 4: "));
    run(&r, "text", "-q", "--json", "--file", file);
    expect(&r, 1, NULL);
    assert_int_equal(count_lines(r.out), 7);
    const char *line = r.out;
    for (int i = 0; i < 7; i++, line = strchr(line, '\n') + 1) {
        json_t *got = json_line(line);
        assert_int_equal((int)number_of(got, "line"), i + 1);
        if (prompts[i]) assert_string_equal(text_of(got, "prompt"), prompts[i]);
        assert_int_equal(json_object_get(got, "error") != NULL, i >= 3 && i <= 5);
        json_decref(got);
    }
    run_text(&r, "", "text");
    expect(&r, 0, "");
    run(&r, "text", "--file", "no/such.txt");
    assert_message(&r, 1, "no/such.txt");
    run(&r, "text", "--file", "tests");
    assert_message(&r, 1, "tests");
    run_end(&r);
}

static void test_text_presets(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "text", "-q",
        "Translate the sentences into English.  German: Wo ist der Hund? English: ");
    expect(&r, 0, NULL);
    char *want = strdup(r.out);
    run(&r, "text", "-q", "translate", "--from", "de", "--to", "en", "Wo ist der Hund?");
    expect(&r, 0, want);
    run_text(&r, "Wo ist der Hund?\n", "text", "translate", "-q", "--to", "English", "--from",
             "German");
    expect(&r, 0, want);
    free(want);
    run(&r, "text", "-q", "Summarize: a dog. Summary: ", "summarize");
    expect(&r, 0, NULL); /* not the first word: a prompt */
    want = strndup(r.out, strcspn(r.out, "\n") + 1);
    run(&r, "text", "-q", "summarize", "a dog.");
    expect(&r, 0, want);
    free(want);
    run(&r, "text", "-q", "--raw", "summarize", "a dog.");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 2);
    run_end(&r);
}

/* ---- The same run again. ---- */

/* Runs twice, the second time with two more arguments, and compares all but the timings. */
static void test_same_again(void **state) {
    (void)state;
    static const struct {
        const char *folder;
        const char *options[6]; /* of both runs */
        const char *more[2];    /* of the second */
        bool same;
    } cases[] = {
        {BASE, {"--temperature", "1"}, {"--seed", "0"}, true},
        {BASE, {"--temperature", "1"}, {"--seed", "1"}, false},
        {BASE, {"--strategy", "reparam-uncond-stochastic1-cosine"}, {"--seed", "0"}, true},
        {BASE, {"--threads", "1"}, {"--threads", "2"}, true},
        {XL, {"--threads", "1"}, {"--threads", "2"}, true},
        {BASE, {"--strategy", "cmlm", "--samples", "3"}, {"--threads", "1"}, true},
        {BASE, {"--length", "9"}, {"--no-canvas-cache"}, true},
        {XL, {"--length", "9"}, {"--no-kv-cache"}, true},
        {XL, {"--length", "9"}, {"--no-kv-cache", "--no-canvas-cache"}, true},
    };
    Run r;
    run_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *args[16] = {
            "ask", "-q", "-m", (char *)cases[i].folder, PIC0, "What is on the left side?"};
        int n = 6;
        for (int j = 0; j < 6 && cases[i].options[j]; j++) args[n++] = (char *)cases[i].options[j];
        run_files(&r, "/dev/null", NULL, args);
        expect(&r, 0, NULL);
        char *first = strdup(r.out);
        for (int j = 0; j < 2 && cases[i].more[j]; j++) args[n++] = (char *)cases[i].more[j];
        run_files(&r, "/dev/null", NULL, args);
        expect(&r, 0, NULL);
        if (cases[i].same) assert_string_equal(r.out, first);
        if (!cases[i].same) assert_string_not_equal(r.out, first);
        free(first);
    }
    run_end(&r);
}

/* ---- The other commands. ---- */

static void test_show(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "-q", "--steps", "50", "--length", "8", PIC0, "What is on the left side?");
    char *answer = strdup(r.out);
    run(&r, "show", "-q", "--steps", "50", "--length", "8", PIC0, "What is on the left side?");
    expect(&r, 0, NULL);
    assert_memory_equal(r.out, "step ", 5);
    assert_string_equal(r.out + strlen(r.out) - strlen(answer), answer);
    assert_non_null(strstr(r.out, "  8/8  "));
    assert_non_null(strstr(r.out, "__"));
    assert_non_null(strstr(r.out, "erased: \""));
    int changes = count_lines(r.out);
    assert_true(changes > 8 && changes < 51);
    char *live = strdup(r.out);
    run(&r, "show", "-q", "--steps", "50", "--length", "8", "--all-steps", PIC0,
        "What is on the left side?");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 51);
    /* The best of several samples is printed afterwards, in the same lines. */
    run(&r, "show", "-q", "--steps", "50", "--length", "8", "--samples", "2", PIC0,
        "What is on the left side?");
    expect(&r, 0, live);
    free(live), free(answer);
    run(&r, "show", "-q", "--text", "What?", "--strategy", "ar", "--length", "4");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 5);
    run_end(&r);
}

static void test_info(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int m = 0; m < 2; m++) {
        run(&r, "info", (char *)folders[m]);
        expect(&r, 0, NULL);
        assert_string_equal(r.err, "");
        static const char *const words[] = {
            "vision tower:",    "language model:", "projector:", "length predictor:",
            "16 tokens of 128", "memory:",         "parameters"};
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (!strstr(r.out, words[i])) fail_msg("info lacks \"%s\": %s", words[i], r.out);
        assert_non_null(strstr(r.out, m ? "attention:  block-causal" : "attention:  full"));
    }
    run(&r, "info", "--json", "-m", BASE);
    expect(&r, 0, NULL);
    json_t *got = json_line(r.out);
    assert_int_equal(json_array_size(json_object_get(got, "parts")), 4);
    assert_int_equal((int)number_of(got, "image_tokens"), 16);
    assert_true(number_of(got, "memory_bytes") > 0);
    json_decref(got);
    run(&r, "info", "--tensors", BASE);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "roberta.encoder.layer.1.attention.self.query.weight"));
    run(&r, "info", BASE "/projector.safetensors");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "has a projector"));
    assert_non_null(strstr(r.out, "model.mm_projector.weight"));
    run(&r, "info", MODELS "variants/clip-full");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "are known and not needed"));
    run(&r, "info", MODELS "variants/released");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "length predictor:"));
    assert_non_null(strstr(r.out, "(PyTorch)"));
    run_end(&r);
}

static void test_info_formats(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run(&r, "info", "--formats");
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 7);
    assert_non_null(strstr(r.out, "PNG   yes  libpng "));
    assert_non_null(strstr(r.out, "BMP   yes  built in"));
    run(&r, "info", "--formats", "--json");
    expect(&r, 0, NULL);
    json_t *got = json_line(r.out), *list = json_object_get(got, "formats");
    assert_int_equal(json_array_size(list), 7);
    bool bmp = false, gif = false;
    for (size_t i = 0; i < 7; i++) {
        const json_t *f = json_array_get(list, i);
        bool readable = json_is_true(json_object_get(f, "readable"));
        const char *name = json_string_value(json_object_get(f, "format"));
        bmp |= readable && !strcmp(name, "BMP");
        gif |= readable && !strcmp(name, "GIF");
    }
    json_decref(got);
    assert_true(bmp);
    run(&r, "info", "--formats", BASE);
    expect(&r, 2, NULL);
    run(&r, "info", "--formats", "--tensors");
    expect(&r, 2, NULL);

    /* Of these the program reads what it lists. */
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "tests/golden/formats/fields565.bmp", "What is this?");
    expect(&r, 0, NULL);
    run(&r, "ask", "tests/golden/formats/animated.gif", "What is this?");
    expect(&r, gif ? 0 : 1, NULL);
    unsetenv("EASYFIRST_MODEL");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_answers), cmocka_unit_test(test_golden_traces),
        cmocka_unit_test(test_many_images),    cmocka_unit_test(test_json),
        cmocka_unit_test(test_text_lines),     cmocka_unit_test(test_text_presets),
        cmocka_unit_test(test_same_again),     cmocka_unit_test(test_show),
        cmocka_unit_test(test_info),           cmocka_unit_test(test_info_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
