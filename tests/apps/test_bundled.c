/* The bundled model, as a newcomer meets it: the program finds it without being told, it is as
 * small as is promised, and it answers. What it knows is measured elsewhere
 * (data/prep/README.md); here are questions that it must not get wrong. */
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program.h"

#define MODEL  "data/bundled/model"
#define IMAGES "data/bundled/images/"

/* Short answers, and what is to be seen in the images. */
static const struct {
    const char *image, *question, *answer;
} questions[] = {
    {"cat.jpg", "What animal is this?", "cat"},
    {"cat.jpg", "Is there a cat?", "Yes, there is a cat."},
    {"cat.jpg", "What does the image show?", "not sure; perhaps: cat"},
    {"tractor.jpg", "Where is the tractor?", "at the bottom right"},
    {"tractor.jpg", "What is on the left?", "octopus"},
    {"tractor.jpg", "Is there a house?", "no"},
    {"elephant.jpg", "Is the elephant above the handbag?", "yes"},
    {"elephant.jpg", "Where is the dress?", "at the bottom right"},
    {"sailboat.jpg", "Is there a boat?", "yes"},
    {"sailboat.jpg", "Is the sailboat left or right of the giraffe?", "left"},
    {"sailboat.jpg", "Is there a car?", "no"},
    {"sailboat.jpg", "What is at the top?", "bat"},
    {"sailboat.jpg", "Who painted this?", "I do not know."},
};

enum { QUESTION_COUNT = sizeof questions / sizeof questions[0] };

/* At most so many bytes of weights and words. */
enum { LARGEST = 45 * 1000 * 1000 };

static void test_size(void **state) {
    (void)state;
    static const char *const files[] = {MODEL "/vision/model.safetensors",
                                        MODEL "/language/model.safetensors",
                                        MODEL "/projector.safetensors", MODEL "/length.safetensors",
                                        MODEL "/language/sentencepiece.bpe.model"};
    long long total = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct stat info;
        if (stat(files[i], &info) != 0) fail_msg("%s is missing", files[i]);
        total += info.st_size;
    }
    if (total > LARGEST) fail_msg("%lld bytes, expected at most %d", total, LARGEST);
}

static void test_questions(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int i = 0; i < QUESTION_COUNT; i++) {
        char image[300], question[300], want[100];
        snprintf(image, sizeof image, IMAGES "%s", questions[i].image);
        snprintf(question, sizeof question, "%s", questions[i].question);
        snprintf(want, sizeof want, "%s\n", questions[i].answer);
        run(&r, "ask", "-m", MODEL, image, question);
        assert_int_equal(r.status, 0);
        if (strcmp(r.out, want))
            fail_msg("%s: %s: %s, expected %s", image, questions[i].question, r.out, want);
    }
    run_end(&r);
}

/* Of several lengths the surest answer is another one than that of the likeliest length; with the
 * lengths' own probabilities weighed in much, that wins: the answer that it has alone. */
static void test_length_weight(void **state) {
    (void)state;
    Run r;
    int changed = 0;
    run_start(&r);
    for (int i = 0; i < 3; i++) {
        static char *const images[] = {IMAGES "elephant.jpg", IMAGES "sailboat.jpg",
                                       IMAGES "tractor.jpg"};
        static char *const asked[] = {"What is at the top of the picture?", "What do you see?",
                                      "Describe the picture."};
        run(&r, "ask", "-q", "-m", MODEL, images[i], asked[i]);
        expect(&r, 0, NULL);
        char *alone = strdup(r.out);
        run(&r, "ask", "-q", "-m", MODEL, "--beam", "4", images[i], asked[i]);
        expect(&r, 0, NULL);
        changed += strcmp(r.out, alone) != 0;
        run(&r, "ask", "-q", "-m", MODEL, "--beam", "4", "--length-weight", "100", images[i],
            asked[i]);
        expect(&r, 0, alone);
        free(alone);
    }
    assert_true(changed > 0); /* or the weight has not been tried */
    run_end(&r);
}

/* Nothing names the model: the program finds it where `make install` puts both. */
static void test_found(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    const char *program = getenv("EASYFIRST");
    char *kept = strdup(program && *program ? program : "build/easyfirst");
    char path[400], place[400], *model = realpath(MODEL, NULL);
    size_t size;
    char *bytes = file_bytes(kept, &size);
    assert_non_null(bytes);
    assert_non_null(model);
    static const char *const folders[] = {"bin", "share", "share/easyfirst"};
    for (int i = 0; i < 3; i++) {
        path_in(path, sizeof path, &r, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    write_file(&r, "bin/easyfirst", bytes, size, path, sizeof path);
    assert_int_equal(chmod(path, 0700), 0);
    setenv("EASYFIRST", path, 1);
    static char image[] = IMAGES "tractor.jpg";
    for (int i = 0; i < 3; i++) {
        if (i == 0) run(&r, "info");
        if (i == 1) run(&r, "text", "a");
        if (i == 2) run(&r, "ask", image, "q");
        assert_int_equal(r.status, 2);
        assert_non_null(strstr(r.err, "no model is named"));
        assert_non_null(strstr(r.err, "-m FOLDER"));
        assert_non_null(strstr(r.err, "EASYFIRST_MODEL"));
    }
    path_in(place, sizeof place, &r, "share/easyfirst/model");
    assert_int_equal(symlink(model, place), 0);
    run(&r, "info");
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "width 384"));
    assert_int_equal(unlink(place), 0);
    setenv("EASYFIRST", kept, 1);
    free(kept), free(bytes), free(model);
    run_end(&r);
}

/* The tour of `make demo`, from its first line to its last. */
static void test_demo(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    char out[400];
    path_in(out, sizeof out, &r, "demo");
    char command[700];
    snprintf(command, sizeof command, "sh data/bundled/demo.sh > '%s' 2>&1", out);
    if (!getenv("EASYFIRST")) setenv("EASYFIRST", "build/easyfirst", 1);
    int status = system(command);
    char *said = file_bytes(out, NULL);
    if (status != 0) fail_msg("status %d: %s", status, said);
    int commands = 0, steps = 0;
    for (const char *line = said; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        commands += !strncmp(line, "$ easyfirst ", 12);
        steps += !strncmp(line, "step ", 5);
    }
    assert_int_equal(commands, 5);
    assert_true(steps >= 3);
    free(said);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),          cmocka_unit_test(test_questions),
        cmocka_unit_test(test_length_weight), cmocka_unit_test(test_found),
        cmocka_unit_test(test_demo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
