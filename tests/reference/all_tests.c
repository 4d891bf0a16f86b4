/* Several test programs as one, so that a folder with them (make dist) has the kernels once. Which
 * one it is to be is the name that it is called by, or else its first word:
 *
 *   easyfirst-tests NAME    runs one
 *   easyfirst-tests         lists them
 *
 * TESTS is the list, from the Makefile: TEST(test_ops) TEST(test_linear) ... */
#include <stdio.h>
#include <string.h>

#define TEST(name) int main_##name(void);
TESTS
#undef TEST

static const struct {
    const char *name;
    int (*run)(void);
} tests[] = {
#define TEST(name) {#name, main_##name},
    TESTS
#undef TEST
};
enum { COUNT = sizeof tests / sizeof tests[0] };

static int find(const char *name) {
    int i = 0;
    while (i < COUNT && strcmp(tests[i].name, name)) i++;
    return i;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    int i = find(slash ? slash + 1 : argv[0]);
    if (i == COUNT && argc > 1) i = find(argv[1]);
    if (i < COUNT) return tests[i].run();
    if (argc > 1) fprintf(stderr, "there is no test program %s\n", argv[1]);
    for (i = 0; i < COUNT && argc < 2; i++) puts(tests[i].name);
    return argc > 1 ? 2 : 0;
}
