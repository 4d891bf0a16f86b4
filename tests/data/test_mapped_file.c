/* A file that is cut while it is mapped: the file is named, and the status is 1. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/cli/bus_error.h"
#include "data/files/mapped_file.h"
#include "tests/checkpoint_files.h"

static void test_registry(void **state) {
    (void)state;
    Error err;
    MappedFile files[3];
    char text[3 * 5000];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 3; i++) {
        const char *path = at((const char *[]){"a", "b", "c"}[i]);
        save(path, text, (size_t)(i + 1) * 5000);
        assert_ok(mapped_file_open(&files[i], path, &err), &err);
    }
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(mapped_file_at(files[i].bytes), files[i].path);
        assert_ptr_equal(mapped_file_at(files[i].bytes + files[i].size - 1), files[i].path);
    }
    assert_null(mapped_file_at(text));
    assert_null(mapped_file_at(NULL));
    const unsigned char *was = files[1].bytes;
    mapped_file_close(&files[1]);
    assert_null(mapped_file_at(was));
    assert_ptr_equal(mapped_file_at(files[2].bytes + 9000), files[2].path);
    /* More than there are places for: they work all the same. */
    enum { MANY = 1100 };
    MappedFile *many = calloc(MANY, sizeof *many);
    for (int i = 0; i < MANY; i++) assert_ok(mapped_file_open(&many[i], at("a"), &err), &err);
    for (int i = 0; i < MANY; i++) mapped_file_close(&many[i]);
    assert_ptr_equal(mapped_file_at(files[0].bytes), files[0].path);
    free(many);
    mapped_file_close(&files[0]);
    mapped_file_close(&files[2]);
}

/* What a handler does that has its own clean-up to do (apps/show/terminal.c). */
static struct sigaction before;

static void hand_on(int number, siginfo_t *info, void *context) {
    sigaction(number, &before, NULL);
    before.sa_sigaction(number, info, context);
}

/* Touches a page of a file that is gone; standard error goes to the file "said". */
static int touch_cut(bool mapped, bool handed_on) {
    MappedFile file;
    char text[20000] = "x";
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    save(at("cut\x1b[31m"), text, sizeof text);
    if (!freopen(at("said"), "w", stderr) || mapped_file_open(&file, at("cut\x1b[31m"), NULL))
        return 9;
    volatile const unsigned char *bytes = file.bytes;
    if (!mapped) {
        FILE *f = fopen(at("cut\x1b[31m"), "r");
        bytes = mmap(NULL, sizeof text, PROT_READ, MAP_PRIVATE, fileno(f), 0);
    }
    bus_error_catch();
    struct sigaction other = {.sa_sigaction = hand_on, .sa_flags = SA_SIGINFO};
    sigfillset(&other.sa_mask);
    if (handed_on) sigaction(SIGBUS, &other, &before);
    if (truncate(at("cut\x1b[31m"), 100)) return 8;
    return bytes[16000] ? 7 : 6;
}

static void test_cut(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++) {
        int status;
        bool mapped = way & 1;
        pid_t child = fork();
        if (child == 0) _exit(touch_cut(mapped, way & 2));
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!mapped) { /* no mapped file: as without a handler (a sanitizer has its own) */
            assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 1);
            continue;
        }
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        char *said = file_bytes(at("said"), NULL);
        assert_non_null(strstr(said, "cut?[31m: was shortened while it was read"));
        assert_int_equal(said[strlen(said) - 1], '\n');
        free(said);
    }
}

/* A SIGBUS sent by a process ends the program as before. */
static void test_sent(void **state) {
    (void)state;
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        bus_error_catch();
        kill(getpid(), SIGBUS);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_sent),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
