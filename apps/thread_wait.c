/* thread_wait.c - how long a thread of OpenMP's that waits for the others keeps a core busy.
 *
 * GNU's OpenMP lets it spin for about 4 ms (GOMP_SPINCOUNT 300,000) before it sleeps. On an idle
 * machine most waits end in microseconds. On a busy one the thread that is waited for may not run
 * at all while the waiting one burns its core, in each of the thousands of parallel loops of an
 * answer: the same command then took 5 to 30 times as long. A thousand turns, about 15
 * microseconds, are as quick on an idle machine, and never hold a core for long.
 *
 * The library reads its environment when it is loaded, before any code of this program runs, and
 * has no other way to be told. So the program starts itself once more with the variable set, from
 * .preinit_array, before any library is initialised: this takes 2 to 3 ms. Whoever sets
 * OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone. (Measurements: kernels/NOTES.md.)
 */
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define SPIN "GOMP_SPINCOUNT="

static int begins(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

/* It would lose hold of the program. */
static int is_valgrind(const char *variable) {
    return begins(variable, "LD_PRELOAD=") && strstr(variable, "vgpreload_");
}

/* Nothing is set up yet, sanitizers included. */
__attribute__((no_sanitize("address", "undefined"))) static void wait_briefly(int argc, char **argv,
                                                                              char **environment) {
    (void)argc;
    /* Started by way of ld.so, as `ld.so easyfirst`, /proc/self/exe is that, and has no
     * interpreter. */
    if (!getauxval(AT_BASE)) return;
    int count = 0;
    for (; environment[count]; count++)
        if (begins(environment[count], SPIN) || begins(environment[count], "OMP_WAIT_POLICY=") ||
            is_valgrind(environment[count]))
            return;
    char *with[count + 2];
    memcpy(with, environment, (size_t)count * sizeof *with);
    with[count] = (char[]){SPIN "1000"};
    with[count + 1] = NULL;
    /* By its own path, which is what the system then calls the process. Where it fails, all works
     * as it did. */
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    execve(path, argv, with);
}

__attribute__((section(".preinit_array"),
               used)) static void (*const at_start)(int, char **, char **) = wait_briefly;
