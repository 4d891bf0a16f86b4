/* `chat` through a pipe, saved and loaded, its history, and in tmux; a model tuned on conversations
 * of two turns. tests/chat_tmux.sh has what is typed. */
#include <math.h>
#include <sys/wait.h>

#include "data/files/path.h"
#include "projector/easyfirst.h"
#include "tests/train_setup.h"

#define PHOTO "data/bundled/images/tractor.jpg"
#define OTHER "data/bundled/images/sailboat.jpg"

/* What the library answers to the last question after the others and their answers. */
static char *expected(ef_model *model, const char *path, const char *const *questions, int count) {
    ef_error err;
    ef_image *image = NULL;
    ef_turn turns[8];
    char *texts[8];
    if (path && ef_image_open(path, &image, &err)) fail_msg("%s", err.text);
    bool unsure = false; /* of the last answer; the turns have answers alone */
    for (int i = 0; i < count; i++) {
        ef_answers *a;
        const ef_request r = {.task = image ? EF_ASK : EF_COMPLETE,
                              .text = questions[i],
                              .image = image,
                              .length = 6,
                              .turns = turns,
                              .turn_count = (size_t)i};
        if (ef_answer(model, &r, 1, NULL, &a, &err)) fail_msg("%s", err.text);
        assert_null(ef_answer_error(a, 0));
        texts[i] = strdup(ef_answer_text(a, 0));
        turns[i] = (ef_turn){questions[i], texts[i]};
        unsure = ef_answer_probability(a, 0) < ef_model_sure_threshold(model);
        ef_answers_close(a);
    }
    char *line = path_format(NULL, "%s%s", unsure ? "not sure; perhaps: " : "", texts[count - 1]);
    for (int i = 0; i < count; i++) free(texts[i]);
    ef_image_close(image);
    return line;
}

static ef_model *open_bundled(void) {
    ef_error err;
    ef_model *model;
    ef_model_options o = ef_model_options_default();
    o.device = "cpu";
    if (ef_model_open("data/bundled/model", &o, &model, &err)) fail_msg("%s", err.text);
    return model;
}

/* Answers depend on the turns before them, and on those about the same image only; /clear forgets
 * them; saved and loaded, the conversation continues as it would have; an image is encoded once. */
static void test_pipe(void **state) {
    (void)state;
    static const char *const questions[] = {"What is this?", "What color is it?", "And the sky?"};
    Run r;
    char path[512], text[2048];
    run_start(&r);
    path_in(path, sizeof path, &r, "talk.json");
    ef_model *model = open_bundled();
    char *first = expected(model, PHOTO, questions, 1),
         *second = expected(model, PHOTO, questions, 2);
    char *third = expected(model, PHOTO, questions, 3),
         *other = expected(model, OTHER, questions, 1);
    char *alone = expected(model, PHOTO, questions + 1, 1),
         *none = expected(model, NULL, questions, 2);
    snprintf(text, sizeof text,
             "%s\n%s\n/save %s\n/image " OTHER "\n\n%s\n/image 1\n%s\n/clear\n%s", questions[0],
             questions[1], path, questions[0], questions[2], questions[1]);
    run_text(&r, text, "chat", "--context", "on", "--length", "6", PHOTO);
    snprintf(text, sizeof text, "%s\n%s\n%s\n%s\n%s\n", first, second, other, third, alone);
    expect(&r, 0, text);
    assert_non_null(strstr(r.err, "saved: "));
    assert_non_null(strstr(r.err, "3 images")); /* the photo, the other, the photo again */
    run_text(&r, questions[2], "chat", "-q", "--context", "on", "--length", "6", "--load", path);
    snprintf(text, sizeof text, "%s\n", third);
    expect(&r, 0, text);
    snprintf(text, sizeof text, "%s\n%s\n", questions[0], questions[1]);
    run_text(&r, text, "chat", "-q", "--context", "on", "--length", "6");
    assert_non_null(strstr(r.out, none));
    run_text(&r, text, "chat", "-q", "--length", "6", PHOTO);
    snprintf(text, sizeof text, "%s\n%s\n", first, alone);
    expect(&r, 0, text);
    free(first), free(second), free(third), free(other), free(alone), free(none);
    ef_model_close(model);
    run_end(&r);
}

/* More turns than fit: it is said how many, and every question has its line. */
static void test_full(void **state) {
    (void)state;
    Run r;
    char text[8192] = "";
    run_start(&r);
    for (int i = 0; i < 30; i++)
        strcat(text, "Which of all the things in the picture is the largest one, and why?\n");
    run_text(&r, text, "chat", "-q", "--context", "on", "--length", "9", PHOTO);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 30);
    assert_non_null(strstr(r.err, "the first 1 of"));
    assert_non_null(strstr(r.err, "the first 2 of"));
    run_text(&r, text, "chat", "-q", "--context", "on", "--length", "9", "--json", PHOTO);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "\"dropped_turns\": 2"));
    run_end(&r);
}

static void test_commands(void **state) {
    (void)state;
    static const char *const lines[][2] = {
        {"/imgae x.jpg", "there is no command /imgae: did you mean /image?"},
        {"/image no/such.jpg", "no/such.jpg"},
        {"/length x", "not \"x\""},
        {"/length -1", "not \"-1\""},
        {"/length 100000", "100000"},
        {"/show", "there is no answer yet"},
        {"/save", "the name of a file"},
        {"/save " PHOTO, PHOTO},
        {"/save /no/such/folder/x", "/no/such/folder"},
        {"/quit now", "/quit takes nothing"},
        {"/image\xff", "byte 6"},
    };
    Run r;
    char model[512], text[600];
    run_start(&r);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        run_text(&r, lines[i][0], "chat", "-q", PHOTO);
        if (r.status != 1 || count_lines(r.err) != 1 || !strstr(r.err, lines[i][1]))
            fail_msg("%s: %d, %s", lines[i][0], r.status, r.err);
    }
    /* The model is not overwritten: a copy of it, for a program that would. */
    path_in(model, sizeof model, &r, "model");
    shell("cp -r data/bundled/model '%s'", model);
    snprintf(text, sizeof text, "/save %s/easyfirst.json", model);
    run_text(&r, text, "chat", "-q", "-m", model, PHOTO);
    assert_message(&r, 1, "easyfirst.json");
    run_text(&r, "/help\n/quit\nnot asked\n", "chat", "-q", PHOTO);
    expect(&r, 0, "");
    assert_non_null(strstr(r.err, "/length"));
    /* A question that cannot be asked has an empty line; the next one is answered. */
    run_text(&r, "/length 2\n\xff\nWhat?\n/show\n", "chat", "-q", PHOTO);
    assert_int_equal(r.status, 1);
    assert_int_equal(r.out[0], '\n');
    assert_non_null(strstr(r.out, "step "));
    run(&r, "chat", "-q", "-");
    assert_message(&r, 2, "standard input has the questions");
    run(&r, "chat", "-q", "no/such.jpg");
    assert_message(&r, 1, "no/such.jpg");
    run_end(&r);
}

static void test_bad_files(void **state) {
    (void)state;
    static const char *const files[][2] = {
        {"", "empty"},
        {"[]", "not saved conversations"},
        {"{\"format\": 2, \"current\": 0, \"conversations\": [1]}", "not saved conversations"},
        {"{\"format\": 1, \"current\": 1, \"conversations\": [{\"image\": null, \"turns\": []}]}",
         "\"current\" is 1"},
        {"{\"format\": 1, \"current\": 0, \"conversations\": [{\"image\": 3, \"turns\": []}]}",
         "conversation 1"},
        {"{\"format\": 1, \"current\": 0, \"conversations\": [{\"image\": null, \"turns\": [{}]}]}",
         "turn 1"},
        {"{\"format\": 1, \"current\": 0, \"conversations\": [{\"image\": \"nope\", \"turns\": "
         "[]}]}",
         "nope"},
    };
    Run r;
    char path[512];
    run_start(&r);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        write_file(&r, "bad.json", files[i][0], strlen(files[i][0]), path, sizeof path);
        run_text(&r, "What?", "chat", "-q", "--load", path);
        assert_message(&r, 1, "bad.json", files[i][1]);
    }
    run_end(&r);
}

/* ---- A model that was tuned on two turns. ---- */

enum { NAMES = 16, TELLS = 4, ASKS = 2, HELD_OUT = 32 };

static const char *const names[NAMES] = {
    "picture", "square", "circle", "window", "Bild",   "Fenster", "two",     "trees",
    "wall",    "war",    "dog",    "Hund",   "German", "shape",   "English", "word"};
static const char *const tells[TELLS] = {"My name is %s.", "I am %s.", "Call me %s, please.",
                                         "They call me %s."};
static const char *const asks[ASKS] = {"What is my name?", "Who am I?"};

/* Conversation `i` of all, each once, in an order without order. */
typedef struct Case {
    const char *name, *ask;
    char tell[64];
} Case;

static Case case_of(int i) {
    const int k = (i * 53 + 11) % (NAMES * TELLS * ASKS);
    Case c = {.name = names[k % NAMES], .ask = asks[k / NAMES % ASKS]};
    const char *tell = tells[k / (NAMES * ASKS)], *place = strstr(tell, "%s");
    snprintf(c.tell, sizeof c.tell, "%.*s%s%s", (int)(place - tell), tell, c.name, place + 2);
    return c;
}

static void write_conversations(const Run *r, int first, int end, char *path, size_t size) {
    char *text = malloc((size_t)(end - first) * 400 + 10);
    assert_non_null(text);
    size_t n = (size_t)sprintf(text, "[");
    for (int i = first; i < end; i++) {
        const Case c = case_of(i);
        n += (size_t)sprintf(text + n,
                             "%s{\"id\": \"%d\", \"conversations\": ["
                             "{\"from\": \"human\", \"value\": \"%s\"},"
                             "{\"from\": \"gpt\", \"value\": \"night\"},"
                             "{\"from\": \"human\", \"value\": \"%s\"},"
                             "{\"from\": \"gpt\", \"value\": \"%s\"}]}",
                             i > first ? "," : "", i, c.tell, c.ask, c.name);
    }
    n += (size_t)sprintf(text + n, "]");
    write_file(r, "talks.json", text, n, path, size);
    free(text);
}

static int right_answers(ef_model *model, bool history) {
    int right = 0;
    for (int i = 0; i < HELD_OUT; i++) {
        ef_error err;
        ef_answers *a;
        const Case c = case_of(i);
        const ef_turn turn = {c.tell, "night"};
        const ef_request r = {
            .task = EF_COMPLETE, .text = c.ask, .length = 1, .turns = &turn, .turn_count = history};
        if (ef_answer(model, &r, 1, NULL, &a, &err)) fail_msg("%s", err.text);
        right += !strcmp(ef_answer_text(a, 0), c.name);
        ef_answers_close(a);
    }
    return right;
}

/* The second turn needs the first one's words. On conversations that were held out, the model is
 * right at least 20 points more often with the first turn than without it, and than the best
 * guess, which is one name of sixteen. */
static void test_second_turn(void **state) {
    (void)state;
    Run r;
    char model_path[512], data[512], out[512];
    run_start(&r);
    path_in(model_path, sizeof model_path, &r, "model");
    path_in(out, sizeof out, &r, "out");
    write_conversations(&r, HELD_OUT, NAMES * TELLS * ASKS, data, sizeof data);
    run(&r, "new", model_path, "--tokenizer", TOKENIZER, "--layers", "2", "--width", "64",
        "--heads", "4", "--ffn", "128", "--positions", "66", "--pre-norm");
    assert_int_equal(r.status, 0);
    run(&r, "train", "instruct", "-m", model_path, "--data", data, "--context", "on", "--out", out,
        "--steps", "140", "--batch-sequences", "32", "--lr", "1e-2", "--optimizer", "muon",
        "--warmup-steps", "10", "--dropout", "0", "-q");
    if (r.status) fail_msg("%s", r.err);
    ef_error err;
    ef_model *model;
    ef_model_options o = ef_model_options_default();
    o.device = "cpu";
    strcat(out, "/model");
    if (ef_model_open(out, &o, &model, &err)) fail_msg("%s", err.text);
    const int with = right_answers(model, true), without = right_answers(model, false);
    print_message("second turn: %d of %d with history, %d without\n", with, HELD_OUT, without);
    assert_true(100 * (with - without) >= 20 * HELD_OUT);
    assert_true(100 * (with - HELD_OUT / NAMES) >= 20 * HELD_OUT);
    ef_model_close(model);
    run_end(&r);
}

/* Typed, in a real terminal, if tmux is installed. */
static void test_tmux(void **state) {
    (void)state;
    const char *program = getenv("EASYFIRST");
    char command[1024];
    snprintf(command, sizeof command, "sh tests/chat_tmux.sh '%s'",
             program && *program ? program : "build/easyfirst");
    fflush(stdout);
    int status = system(command);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipe),        cmocka_unit_test(test_full),
        cmocka_unit_test(test_commands),    cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_second_turn), cmocka_unit_test(test_tmux),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
