/* Several test programs in one, so that a folder with them (make dist) has the kernels once. The
 * name that it is called by selects the program, or else its first argument:
 *
 *   easyfirst-tests NAME [WORD]    runs one; with a word, its tests whose names contain it
 *   easyfirst-tests                lists them
 *
 * TESTS is the list, from the Makefile: TEST(test_ops) TEST(test_linear) ...
 *
 * An error of a GPU (an illegal address, say) persists in its process: every later test there would
 * fail, too. So tests run in a child process, and after a failure the rest run in a new one. A test
 * has EASYFIRST_TEST_SECONDS (60), then its process is killed. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

#define TEST(name) int main_##name(void);
TESTS
#undef TEST

static const struct {
    const char *name;
    int (*run)(void);
} programs[] = {
#define TEST(name) {#name, main_##name},
    TESTS
#undef TEST
};
enum { COUNT = sizeof programs / sizeof programs[0] };

static const char *word = ""; /* part of the selected tests' names */

/* A child's results for its parent, in shared memory. */
typedef struct Progress {
    volatile size_t next; /* the running or next test */
    volatile int failed;
} Progress;

/* Runs tests from progress->next on, each as a separate group, up to the first failure. */
static void run_rest(const char *group, const struct CMUnitTest *tests, size_t count,
                     CMFixtureFunction setup, CMFixtureFunction teardown, Progress *progress) {
    const char *limit = getenv("EASYFIRST_TEST_SECONDS");
    for (; progress->next < count; progress->next++) {
        if (!strstr(tests[progress->next].name, word)) continue;
        alarm(limit && *limit ? (unsigned)atoi(limit) : 60);
        int failed = _cmocka_run_group_tests(group, tests + progress->next, 1, setup, teardown);
        alarm(0);
        if (!failed) continue;
        progress->failed++, progress->next++;
        return;
    }
}

/* Replaces cmocka's function in the test programs (Makefile). */
int run_group(const char *group, const struct CMUnitTest *tests, size_t count,
              CMFixtureFunction setup, CMFixtureFunction teardown);

int run_group(const char *group, const struct CMUnitTest *tests, size_t count,
              CMFixtureFunction setup, CMFixtureFunction teardown) {
    Progress *progress =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (progress == MAP_FAILED) return 1;
    while (progress->next < count) {
        fflush(NULL);
        pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            run_rest(group, tests, count, setup, teardown, progress);
            fflush(NULL);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (!WIFSIGNALED(status)) continue;
        printf("not ok 1 - %s # %s\n", tests[progress->next].name,
               WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
        progress->failed++, progress->next++;
    }
    int failed = progress->failed;
    munmap(progress, sizeof *progress);
    return failed;
}

static int find(const char *name) {
    int i = 0;
    while (i < COUNT && strcmp(programs[i].name, name)) i++;
    return i;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    int i = find(slash ? slash + 1 : argv[0]), words = 1;
    if (i == COUNT && argc > 1) i = find(argv[words++]);
    if (i < COUNT) {
        if (argc > words) word = argv[words];
        return programs[i].run();
    }
    if (argc > 1) fprintf(stderr, "there is no test program %s\n", argv[1]);
    for (i = 0; i < COUNT && argc < 2; i++) puts(programs[i].name);
    return argc > 1 ? 2 : 0;
}
