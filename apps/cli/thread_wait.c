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
 * OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
 *
 * Beside other work a thread that wakes up also waits for its turn, while the rest of its loop
 * waits for it. Linux (from 6.12 on) gives a thread that asks for short time slices its turn
 * sooner, with the same share of the processor: 0.1 ms, the least there is. (Measurements:
 * kernels/NOTES.md.)
 */
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN "GOMP_SPINCOUNT="

static int begins(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

/* It would lose hold of the program. */
static int is_valgrind(const char *variable) {
    return begins(variable, "LD_PRELOAD=") && strstr(variable, "vgpreload_");
}

/* The system's struct sched_attr, as far as it is needed here; older C libraries lack it. */
typedef struct Scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice; /* ns; its name is runtime */
    uint64_t deadline, period;
} Scheduling;

/* Of this process and the threads that it will start. What fails changes nothing. */
__attribute__((no_sanitize("address", "undefined"))) static void ask_for_short_slices(void) {
    Scheduling s = {.size = sizeof s};
    if (syscall(SYS_sched_getattr, 0, &s, sizeof s, 0) != 0 || s.policy != 0 /* SCHED_OTHER */)
        return;
    s.slice = 100000;
    syscall(SYS_sched_setattr, 0, &s, 0);
}

/* Nothing is set up yet, sanitizers included. */
__attribute__((no_sanitize("address", "undefined"))) static void wait_briefly(int argc, char **argv,
                                                                              char **environment) {
    (void)argc;
    ask_for_short_slices();
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
