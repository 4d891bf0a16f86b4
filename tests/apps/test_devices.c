/* Where the program computes: --device, and the same answers on a GPU as on the processor. In a
 * build with the emulator the GPU is that. */
#include <libgen.h>
#include <math.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/matrix.h"
#include "tests/program.h"

#define MODEL "data/bundled/model"
#define IMAGE "data/bundled/images/tractor.jpg"
#define BASE  "tests/golden/models/tiny-base"

/* The programs of the emulated tests run beside those of the plain ones: theirs is another. */
static int set_program(void **state) {
    (void)state;
#ifdef EASYFIRST_EMULATED
    char self[512], program[600];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return -1;
    self[n] = 0;
    snprintf(program, sizeof program, "%s/../../easyfirst", dirname(self));
    setenv("EASYFIRST", program, 1);
#endif
    return 0;
}

/* The environment of these runs hides all GPUs. */
static void no_gpu(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "-q", "--length", "3", IMAGE, "What?");
    expect(&r, 0, NULL);
    char *answer = strdup(r.out);
    for (int i = 0; i < 2; i++) {
        run(&r, "ask", "--device", i ? "auto" : "cpu", "--length", "3", IMAGE, "What?");
        expect(&r, 0, answer);
        assert_non_null(strstr(r.err, "CPU, "));
    }
    free(answer);
    static char *const asked[][3] = {{"ask", IMAGE, "What?"},
                                     {"show", IMAGE, "What?"},
                                     {"text", "What?", "-q"},
                                     {"info", BASE, "--json"},
                                     {"bench", "train", "--json"}};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        char *const *c = asked[i];
        run(&r, c[0], c[1], c[2], "--device", i % 2 ? "cuda:1" : "cuda");
        assert_message(&r, 1, "--device cpu");
        run(&r, c[0], c[1], c[2], "--device", "cuda:");
        assert_message(&r, 2, "--device takes cpu, cuda, cuda:N or auto, not \"cuda:\"");
    }
    run_end(&r);
}

/* The output's lines of JSON, and what standard error said of the device. */
static json_t *answers(Run *r, const char *device, char *const *args) {
    char *all[32];
    int n = 0;
    for (; args[n]; n++) all[n] = args[n];
    all[n++] = "--json", all[n++] = "--device", all[n++] = (char *)device, all[n] = NULL;
    run_files(r, "/dev/null", NULL, all);
    expect(r, 0, NULL);
    if (!strstr(r->err, strcmp(device, "cpu") ? "GPU 0" : "CPU")) fail_msg("not on %s", device);
    json_t *list = json_array();
    char *rest = NULL;
    for (char *line = strtok_r(r->out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        json_array_append_new(list, object);
    }
    return list;
}

/* Words and steps as on the processor; scores within 1e-4 of it in f32, what sums in another order
 * come to. */
static void compare(Run *r, char *const *args) {
    json_t *cpu = answers(r, "cpu", args), *gpu = answers(r, "cuda", args);
    assert_true(json_array_size(cpu) > 0);
    assert_int_equal(json_array_size(cpu), json_array_size(gpu));
    for (size_t i = 0; i < json_array_size(cpu); i++) {
        const json_t *a = json_array_get(cpu, i), *b = json_array_get(gpu, i);
        static const char *const same[] = {"answer", "length", "steps", "evaluations"};
        for (size_t j = 0; j < sizeof same / sizeof *same; j++)
            if (!json_equal(json_object_get(a, same[j]), json_object_get(b, same[j])))
                fail_msg("%s differs: \"%s\" on the processor, \"%s\" on the GPU", same[j],
                         json_string_value(json_object_get(a, "answer")),
                         json_string_value(json_object_get(b, "answer")));
        const double x = json_number_value(json_object_get(a, "score"));
        const double y = json_number_value(json_object_get(b, "score"));
        if (!(fabs(x - y) <= 1e-4 * (1 + fabs(x)))) fail_msg("score %.9g, not %.9g", y, x);
    }
    json_decref(cpu), json_decref(gpu);
}

static void same_answers(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", MODEL, 1);
    /* Of questions whose dots are not almost equally sure: their order, and so the number of
     * evaluations, is then a matter of rounding. */
    compare(&r, (char *[]){"ask", "--dtype", "f32", IMAGE, "Where is the tractor?",
                           "Which thing is at the bottom of the picture?", NULL});
    compare(&r, (char *[]){"text", "translate", "--dtype", "f32", "--from", "German", "--to",
                           "English", "Werkzeug zum Bearbeiten von Bildern", NULL});
    compare(&r, (char *[]){"text", "--dtype", "f32", "--length", "4", "--temperature", "0.7",
                           "--samples", "2", "--seed", "3", "Is there a cat?", NULL});
    setenv("EASYFIRST_MODEL", BASE, 1);
    compare(&r, (char *[]){"ask", "--length", "5", IMAGE, "What is this?", NULL});
    run_end(&r);
}

/* A GPU that is not there, and memory that is. */
static void messages(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    setenv("EASYFIRST_MODEL", BASE, 1);
    run(&r, "ask", "--device", "cuda:99", "--length", "3", IMAGE, "What?");
    assert_message(&r, 1, "GPU 99 was asked for");
    run(&r, "info", "--device", "cuda", MODEL);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "fits"));
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_CPU(no_gpu),
        ON_GPU(same_answers),
        ON_GPU(messages),
    };
    return cmocka_run_group_tests(tests, set_program, NULL);
}
