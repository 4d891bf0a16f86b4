/* The folder of `easyfirst eval --out`: what is somebody else's is never touched, two runs at once
 * never mix, a run that is stopped or killed resumes, and what can be known before the model is
 * loaded is said before. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/program.h"

#define TOKENIZER "data/bundled/model/language/sentencepiece.bpe.model"

enum { PATH = 512, LINES = 40 };

/* A small model with full attention, and lines to answer. */
typedef struct Set {
    Run r;
    char model[PATH], lines[PATH], out[PATH];
} Set;

static void set_make(Set *s) {
    run_start(&s->r);
    path_in(s->model, PATH, &s->r, "model");
    path_in(s->out, PATH, &s->r, "out");
    run(&s->r, "new", s->model, "--tokenizer", TOKENIZER, "--width", "32", "--heads", "2",
        "--layers", "2", "--ffn", "64");
    assert_int_equal(s->r.status, 0);
    char *bytes;
    size_t size;
    FILE *f = open_memstream(&bytes, &size);
    for (int i = 0; i < LINES; i++)
        fprintf(f, "{\"inputs\": \"How many are %d and %d?\", \"targets\": \"%d\"}\n", i, 7 * i,
                8 * i);
    fclose(f);
    write_file(&s->r, "sums.jsonl", bytes, size, s->lines, PATH);
    free(bytes);
}

#define eval_text(set, folder, ...)                                                           \
    run(&(set)->r, "eval", "text", "-q", "-m", (set)->model, "--task", "exact", (set)->lines, \
        "--length", "3", "--out", (folder), ##__VA_ARGS__)

static bool exists(const char *folder, const char *name) {
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void put(const char *folder, const char *name, const char *text) {
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    char path[2 * PATH];
    size_t sizes[2];
    char *bytes[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", i ? b : a, name);
        bytes[i] = file_bytes(path, &sizes[i]);
        if (!bytes[i]) fail_msg("%s is missing", path);
    }
    if (sizes[0] != sizes[1] || memcmp(bytes[0], bytes[1], sizes[0]) != 0)
        fail_msg("%s differs in %s and %s", name, a, b);
    free(bytes[0]), free(bytes[1]);
}

/* ---- Whose folder it is. ---- */

static void test_foreign(void **state) {
    (void)state;
    static const char *const files[][2] = {
        {"thesis.part-1.tex", "words"},
        {"notes.part-0123456789abcdef", "words"},
        {"answers.jsonl", "{}\n"},
        {"settings.json", "{\"command\": \"train align\", \"version\": \"1\"}"},
        {"settings.json", "{\"lr\": 1}"},
        {"settings.json", "not JSON"},
        {"settings.json.part-12-0", "{"},
    };
    Set s;
    set_make(&s);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char folder[PATH], name[32];
        snprintf(name, sizeof name, "foreign-%zu", i);
        path_in(folder, sizeof folder, &s.r, name);
        assert_int_equal(mkdir(folder, 0700), 0);
        put(folder, files[i][0], files[i][1]);
        eval_text(&s, folder);
        assert_message(&s.r, 1, name, i == 5 ? "settings.json" : "--out");
        /* Nothing has come to it, nothing has gone. */
        char path[2 * PATH];
        snprintf(path, sizeof path, "%s/%s", folder, files[i][0]);
        char *text = file_bytes(path, NULL);
        assert_string_equal(text, files[i][1]);
        free(text);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(folder), 0);
    }
    eval_text(&s, s.lines);
    assert_message(&s.r, 1, "sums.jsonl", "--out", "a folder was expected");
    run_end(&s.r);
}

/* Folders that are as good as empty; what others put beside the files of a run stays; what a killed
 * run left goes; files in the folder are no input. */
static void test_own(void **state) {
    (void)state;
    Set s;
    set_make(&s);
    assert_int_equal(mkdir(s.out, 0700), 0);
    put(s.out, ".gitkeep", "");
    put(s.out, "settings.json.part-0123456789abcdef", "{");
    eval_text(&s, s.out);
    assert_int_equal(s.r.status, 0);
    assert_false(exists(s.out, "settings.json.part-0123456789abcdef"));
    static const char *const left[] = {"answers.jsonl.part-00112233445566ff",
                                       "result.json.part-00112233445566ff"};
    static const char *const others[] = {"readme.txt", "my.part-00112233445566ff",
                                         "result.json.part-xyz", "answers.part-1"};
    for (int i = 0; i < 2; i++) put(s.out, left[i], "{");
    for (int i = 0; i < 4; i++) put(s.out, others[i], "mine");
    char slash[PATH + 2], copy[2 * PATH];
    snprintf(slash, sizeof slash, "%s/", s.out);
    eval_text(&s, slash);
    assert_int_equal(s.r.status, 0);
    for (int i = 0; i < 2; i++) assert_false(exists(s.out, left[i]));
    for (int i = 0; i < 4; i++) assert_true(exists(s.out, others[i]));
    snprintf(copy, sizeof copy, "%s/sums.jsonl", s.out);
    assert_int_equal(link(s.lines, copy), 0);
    run(&s.r, "eval", "text", "-q", "-m", s.model, "--task", "exact", copy, "--out", s.out);
    assert_message(&s.r, 1, "sums.jsonl", "folder of --out");
    run_end(&s.r);
}

/* ---- Two at once. ---- */

static pid_t start(const Set *s, const char *steps, const char *shard) {
    char *argv[] = {(char *)"build/easyfirst",
                    "eval",
                    "text",
                    "-q",
                    "-m",
                    (char *)s->model,
                    "--task",
                    "exact",
                    (char *)s->lines,
                    "--length",
                    "3",
                    "--out",
                    (char *)s->out,
                    "--batch-tokens",
                    "1",
                    "--steps",
                    (char *)steps,
                    (char *)(shard ? "--shard" : NULL),
                    (char *)shard,
                    NULL};
    const char *name = getenv("EASYFIRST");
    if (name && *name) argv[0] = (char *)name;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    pid_t child;
    assert_int_equal(posix_spawn(&child, argv[0], &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    return child;
}

static int wait_for(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static json_int_t steps_in(const Set *s) {
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/settings.json", s->out);
    json_t *settings = json_load_file(path, 0, NULL);
    assert_non_null(settings);
    json_int_t steps =
        json_integer_value(json_object_get(json_object_get(settings, "answer"), "steps"));
    json_decref(settings);
    return steps;
}

static void test_two_settings(void **state) {
    (void)state;
    Set s;
    set_make(&s);
    for (int round = 0; round < 6; round++) {
        bool shards = round % 2;
        snprintf(s.out, sizeof s.out, "%s/two-%d", s.r.folder, round);
        pid_t a = start(&s, "2", shards ? "1/2" : NULL), b = start(&s, "3", shards ? "2/2" : NULL);
        int first = wait_for(a), second = wait_for(b);
        /* One has the folder, with its settings; the other one is refused. */
        assert_true((first == 0) != (second == 0));
        assert_true(first >= 0 && second >= 0);
        assert_int_equal(steps_in(&s), first == 0 ? 2 : 3);
    }
    run_end(&s.r);
}

/* Two of the same: one answers, the other one is told to wait (or finds all done). */
static void test_two_alike(void **state) {
    (void)state;
    Set s;
    char base[PATH];
    set_make(&s);
    path_in(base, sizeof base, &s.r, "base");
    eval_text(&s, base, "--steps", "2");
    assert_int_equal(s.r.status, 0);
    for (int round = 0; round < 4; round++) {
        snprintf(s.out, sizeof s.out, "%s/alike-%d", s.r.folder, round);
        pid_t a = start(&s, "2", NULL), b = start(&s, "2", NULL);
        int first = wait_for(a), second = wait_for(b);
        assert_true(first == 0 || second == 0);
        assert_true(first >= 0 && second >= 0);
        assert_same_file(base, s.out, "answers.jsonl");
        assert_same_file(base, s.out, "result.json");
    }
    run_end(&s.r);
}

/* ---- Stopped. ---- */

static int answers_in(const Set *s) {
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/answers.jsonl", s->out);
    char *bytes = file_bytes(path, NULL);
    int n = bytes ? count_lines(bytes) : 0;
    free(bytes);
    return n;
}

static void test_signals(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    Set s;
    char base[PATH];
    set_make(&s);
    path_in(base, sizeof base, &s.r, "base");
    eval_text(&s, base, "--steps", "40");
    assert_int_equal(s.r.status, 0);
    int stopped = 0;
    for (int i = 0; i < 4; i++) {
        snprintf(s.out, sizeof s.out, "%s/stopped-%d", s.r.folder, i);
        pid_t child = start(&s, "40", NULL);
        while (answers_in(&s) < 2 && waitpid(child, NULL, WNOHANG) == 0) usleep(200);
        kill(child, signals[i]);
        int status = 0;
        if (waitpid(child, &status, 0) == child) {
            assert_true(WIFEXITED(status));
            stopped += WEXITSTATUS(status) == 1 && answers_in(&s) < LINES;
        }
        eval_text(&s, s.out, "--steps", "40");
        assert_int_equal(s.r.status, 0);
        assert_same_file(base, s.out, "answers.jsonl");
        assert_same_file(base, s.out, "result.json");
    }
    assert_true(stopped > 0); /* else nothing was tested */
    run_end(&s.r);
}

/* A file that may not grow is an error, not the end by SIGXFSZ. */
static void test_file_limit(void **state) {
    (void)state;
    Set s;
    char base[PATH];
    set_make(&s);
    path_in(base, sizeof base, &s.r, "base");
    eval_text(&s, base, "--steps", "50");
    assert_int_equal(s.r.status, 0);
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before, low.rlim_cur = 3000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    pid_t child = start(&s, "50", NULL);
    int status = wait_for(child);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, 1);
    assert_true(answers_in(&s) > 0 && answers_in(&s) < LINES);
    char path[2 * PATH];
    snprintf(path, sizeof path, "%s/answers.jsonl", s.out);
    /* Half a line, or bytes that never reached the disk, after a loss of power. */
    int fd = open(path, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "\0\0\0\0\0\0\0", 7), 7);
    close(fd);
    eval_text(&s, s.out, "--steps", "50");
    assert_int_equal(s.r.status, 0);
    assert_same_file(base, s.out, "answers.jsonl");
    run_end(&s.r);
}

/* ---- Before the work. ---- */

/* There is no model at all: what is wrong with the files is said first. */
static void test_first(void **state) {
    (void)state;
    Set s;
    char images[PATH], fifo[PATH], pairs[PATH], locked[PATH];
    set_make(&s);
    path_in(images, sizeof images, &s.r, "images"), path_in(fifo, sizeof fifo, &s.r, "fifo");
    path_in(locked, sizeof locked, &s.r, "no/such/out");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    static const char question[] = "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"A?\"}\n";
    write_file(&s.r, "q.jsonl", question, sizeof question - 1, pairs, sizeof pairs);
    const struct {
        const char *args[10], *words[2];
    } wrong[] = {
        {{pairs, "--images", images, "--out", s.out}, {"--images", "No such file"}},
        {{pairs, "--images", pairs, "--out", s.out}, {"q.jsonl", "a folder of images"}},
        {{pairs, "--images", s.r.folder, "--out", locked},
         {"no/such/out", "cannot create the folder"}},
        {{fifo, "--images", s.r.folder, "--out", s.out}, {"fifo", "pipe"}},
        {{pairs, "--images", s.r.folder, "--out", s.out, "--choices", "no.json"},
         {"--choices", "no.json"}},
        {{pairs, "--images", s.r.folder, "--out", s.out, "--scene-graphs", fifo, "--attention"},
         {"--scene-graphs", "pipe"}},
        {{pairs, "--images", s.r.folder, "--out", s.out, "--all-questions", "no.json"},
         {"--all-questions", "no.json"}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *args[16] = {"eval", "gqa", "-q", "-m", "no/such/model"};
        memcpy(args + 5, wrong[i].args, sizeof wrong[i].args);
        run_files(&s.r, "/dev/null", NULL, (char *const *)args);
        assert_message(&s.r, 1, wrong[i].words[0], wrong[i].words[1]);
        assert_false(exists(s.out, ""));
    }
    run(&s.r, "eval", "gqa", pairs, "--images", images, "--out", s.out, "--scene-graphs", pairs);
    assert_message(&s.r, 2, "--attention");
    run(&s.r, "eval", "text", "-m", "no/such/model", "--task", "exact", fifo, "--out", s.out);
    assert_message(&s.r, 1, "fifo", "pipe");
    run(&s.r, "eval", "order", "-m", "no/such/model", s.lines, "--json", s.lines);
    assert_message(&s.r, 1, "sums.jsonl", "--json");
    run(&s.r, "eval", "order", "-m", "no/such/model", pairs, "--images", pairs);
    assert_message(&s.r, 1, "q.jsonl", "--images");
    /* What the model lacks, from its headers. */
    run(&s.r, "eval", "gqa", "-m", s.model, pairs, "--images", s.r.folder, "--out", s.out);
    assert_message(&s.r, 1, "no vision tower");
    char language[PATH];
    snprintf(language, sizeof language, "%s/language", s.model);
    run(&s.r, "eval", "text", "--language", language, "--task", "exact", s.lines, "--out", s.out);
    assert_message(&s.r, 1, "no length predictor", "--length");
    assert_false(exists(s.out, ""));
    run_end(&s.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign),      cmocka_unit_test(test_own),
        cmocka_unit_test(test_two_settings), cmocka_unit_test(test_two_alike),
        cmocka_unit_test(test_signals),      cmocka_unit_test(test_file_limit),
        cmocka_unit_test(test_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
