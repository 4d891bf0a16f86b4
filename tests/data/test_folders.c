/* Folders that appear whole: unfinished ones are hidden from other runs, only a dead run's are
 * removed, of two at once one wins, and what is in the way stays. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/commands.h"
#include "projector/model_write.h"
#include "data/checkpoints/model_files.h"
#include "tests/checkpoint_files.h"

/* Entries of a folder, those whose names have `part` in them only (NULL: all). */
static int entries_with(const char *path, const char *part) {
    DIR *entries = opendir(path);
    int count = 0;
    assert_non_null(entries);
    for (const struct dirent *e; (e = readdir(entries));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            count += !part || strstr(e->d_name, part) != NULL;
    closedir(entries);
    return count;
}

static void check_text(const char *path, const char *want) {
    char *text = file_bytes(path, NULL);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

static void save_in(const char *folder, const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    save_text(path, text);
}

static void make(const char *folder, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

/* A run that ends without commit or discard, as if it were killed; its folder is copied to
 * `partial`. */
static void die_in_the_middle(const char *target, char *partial, size_t size) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        char path[512];
        if (folder_begin(path, sizeof path, target, NULL)) _exit(1);
        save_in(path, "file", "half");
        make(path, "deep");
        save_in(path, "deep/file", "half");
        if (write(ends[1], path, strlen(path)) < 0) _exit(1);
        _exit(0);
    }
    int status;
    close(ends[1]);
    ssize_t n = read(ends[0], partial, size - 1);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(status == 0 && n > 0);
    partial[n] = 0;
}

static void test_one(void **state) {
    (void)state;
    Error err;
    char partial[512], link[600], tiny[8];
    make(at(""), "one");
    char *place = strdup(at("one"));
    save_text(at("outside"), "stays");
    assert_ok(folder_begin(partial, sizeof partial, at("one/model/"), &err), &err);
    assert_non_null(strstr(partial, "/one/model.partial-"));
    assert_int_equal(strlen(strrchr(partial, '-')), 9);
    snprintf(link, sizeof link, "%s/out", partial);
    assert_int_equal(symlink("../outside", link), 0);
    save_in(partial, "file", "whole");
    make(partial, "deep");
    save_in(partial, "deep/file", "whole");
    assert_ok(folder_commit(partial, at("one/model/"), &err), &err);
    check_text(at("one/model/deep/file"), "whole");
    assert_int_equal(entries_with(place, NULL), 1);
    assert_int_equal(entries_with(at("one/model"), NULL), 3); /* no marker */

    /* What is in the way stays as it is, even an empty folder. */
    make(place, "two");
    assert_ok(folder_begin(partial, sizeof partial, at("one/two"), &err), &err);
    assert_refused(folder_commit(partial, at("one/two"), &err), &err, "one/two", "exists");
    assert_refused(folder_commit(partial, at("one/model"), &err), &err, "one/model", "exists");
    check_text(at("one/model/file"), "whole");
    folder_discard(partial);
    assert_int_equal(access(partial, F_OK), -1);

    assert_ok(folder_remove(at("one/model"), &err), &err);
    assert_ok(folder_remove(at("one/model"), &err), &err); /* nothing there */
    check_text(at("outside"), "stays");
    assert_int_equal(entries_with(place, NULL), 1);
    save_text(at("one/plain"), "");
    assert_refused(folder_remove(at("one/plain"), &err), &err, "plain", "Not a directory");
    assert_int_equal(symlink("two", at("one/link")), 0);
    assert_refused(folder_remove(at("one/link"), &err), &err, "link");
    assert_int_equal(access(at("one/two"), F_OK), 0);
    assert_refused(folder_commit(at("one/none"), at("one/x"), &err), &err, "none", "No such file");
    assert_refused(folder_begin(tiny, sizeof tiny, "longer name", &err), &err, "too long");
    assert_refused(folder_begin(partial, sizeof partial, at("no/such"), &err), &err, "no/such",
                   "No such file");
    free(place);
}

/* Only what a dead run of the same target left is removed. */
static void test_leftovers(void **state) {
    (void)state;
    Error err;
    char dead[512], dead_other[512], alive[512], mine[512];
    make(at(""), "left");
    char *place = strdup(at("left"));
    /* Somebody's own, with names like ours: without a marker nothing is ours. */
    make(place, "model.partial");
    save_text(at("left/model.partial/thesis"), "years");
    make(place, "model.partial-abcdefgh");
    save_text(at("left/model.partial-abcdefgh/thesis"), "years");
    save_text(at("left/model.partial-12345678"), "a file");
    die_in_the_middle(at("left/model"), dead, sizeof dead);
    die_in_the_middle(at("left/model2"), dead_other, sizeof dead_other);
    assert_ok(folder_begin(alive, sizeof alive, at("left/model"), &err), &err);
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(dead_other, F_OK), 0);
    save_in(alive, "file", "in the making");
    /* Another run of the same target leaves a living one alone. */
    assert_ok(folder_begin(mine, sizeof mine, at("left/model"), &err), &err);
    assert_string_not_equal(mine, alive);
    folder_clean(place, "model");
    assert_int_equal(access(alive, F_OK), 0);
    assert_int_equal(access(dead_other, F_OK), -1);
    assert_ok(folder_commit(mine, at("left/model"), &err), &err);
    assert_refused(folder_commit(alive, at("left/model"), &err), &err, "exists");
    folder_discard(alive);
    check_text(at("left/model.partial/thesis"), "years");
    check_text(at("left/model.partial-abcdefgh/thesis"), "years");
    check_text(at("left/model.partial-12345678"), "a file");
    assert_int_equal(entries_with(place, NULL), 4);
    free(place);
}

/* ---- Two at once. ---- */

static int race_folder(const char *target) {
    char partial[512];
    if (folder_begin(partial, sizeof partial, target, NULL)) return 2;
    for (int i = 0; i < 8; i++) {
        char name[8];
        snprintf(name, sizeof name, "f%d", i);
        save_in(partial, name, "x");
    }
    if (folder_commit(partial, target, NULL) == 0) return 0;
    folder_discard(partial);
    return 1;
}

static int race_new(const char *target) {
    char *args[] = {"new",
                    (char *)target,
                    "--tokenizer",
                    "tests/golden/models/tiny-base/"
                    "language/sentencepiece.bpe.model",
                    "--layers",
                    "1",
                    "--width",
                    "16",
                    "--heads",
                    "2",
                    "--ffn",
                    "16",
                    NULL};
    if (!freopen("/dev/null", "w", stderr)) return 9;
    return command_new(12, args);
}

/* Runs it twice at once: one succeeds, one fails with status 1, and one complete folder exists. */
static void race(int (*alternative)(const char *), const char *target, int files) {
    pid_t children[2];
    int statuses[2];
    for (int i = 0; i < 2; i++)
        if ((children[i] = fork()) == 0) _exit(alternative(target));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(waitpid(children[i], &statuses[i], 0), children[i]);
        assert_true(WIFEXITED(statuses[i]));
    }
    assert_int_equal(WEXITSTATUS(statuses[0]) + WEXITSTATUS(statuses[1]), 1);
    assert_int_equal(entries_with(target, NULL), files);
}

static void test_races(void **state) {
    (void)state;
    make(at(""), "race");
    char *place = strdup(at("race"));
    for (int i = 0; i < 15; i++) {
        char target[512];
        snprintf(target, sizeof target, "%s/m%d", place, i);
        race(race_folder, target, 8);
        if (i % 5) continue;
        snprintf(target, sizeof target, "%s/new%d", place, i);
        race(race_new, target, 3);
    }
    assert_int_equal(entries_with(place, NULL), 18);
    assert_int_equal(entries_with(place, "partial"), 0);
    free(place);
}

/* ---- Where a model may be made. ---- */

static void test_out(void **state) {
    (void)state;
    Error err;
    make(at(""), "out");
    make(at("out"), "model");
    make(at("out/model"), "language");
    char *model = strdup(at("out/model")), *inside = strdup(at("out/model/new"));
    const char *inputs[] = {NULL, model};
    assert_ok(model_check_out(at("out/model2"), inputs, 2, &err), &err);
    assert_refused(model_check_out(model, NULL, 0, &err), &err, "out/model", "exists already");
    assert_refused(model_check_out(inside, inputs, 2, &err), &err, "lies in the folder", "outside");
    assert_int_equal(symlink("model", at("out/alias")), 0);
    assert_refused(model_check_out(at("out/alias/language/new"), inputs, 2, &err), &err,
                   "lies in the folder");
    inputs[1] = "."; /* other files there are not an input folder */
    assert_ok(model_check_out(at("out/model2"), inputs, 2, &err), &err);
    assert_int_equal(symlink("nowhere", at("out/dangling")), 0);
    assert_refused(model_check_out(at("out/dangling"), NULL, 0, &err), &err, "exists already");
    assert_refused(model_check_out(at("out/no/such"), NULL, 0, &err), &err, "No such file");
    free(model), free(inside);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_out),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
