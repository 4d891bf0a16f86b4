#include "apps/cli/processes.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/path.h"

enum { UNTIL_FIRST = 500000 /* microseconds */ };

int processes_mute(void) {
    if (comm_started_rank() == 0) return -1;
    const int kept = dup(STDERR_FILENO), none = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (kept >= 0 && none >= 0) dup2(none, STDERR_FILENO);
    if (none >= 0) close(none);
    return kept;
}

void processes_unmute(int muted, bool failed) {
    if (muted < 0) return;
    dup2(muted, STDERR_FILENO);
    close(muted);
    if (failed) usleep(UNTIL_FIRST);
}

/* Processes that are not bound to cores would all use all of them. */
int processes_threads(void) {
    cpu_set_t cores;
    const long all = sysconf(_SC_NPROCESSORS_ONLN);
    const int local = comm_local_size();
    if (getenv("OMP_NUM_THREADS") || sched_getaffinity(0, sizeof cores, &cores)) return 0;
    if (CPU_COUNT(&cores) < all || local <= 1) return 0;
    return all > local ? (int)(all / local) : 1;
}

char *processes_device(const char *name) {
    const int gpus = comm_started() && (!name || strcmp(name, "cpu")) ? device_gpu_count() : 0;
    const bool any = !name || !strcmp(name, "auto") || !strcmp(name, "cuda");
    return gpus > 0 && any ? path_format(NULL, "cuda:%d", comm_local_rank() % gpus) : NULL;
}

int processes_agree(Comm *comm, int status, bool *agreed, Error *err) {
    *agreed = true;
    if (!comm) return status;
    const int size = comm_size(comm), rank = comm_rank(comm);
    const double mine = status != 0;
    double *all = malloc((size_t)size * sizeof *all);
    Error why = {{0}};
    int first = 0;
    *agreed = all && comm_share(comm, &mine, 1, all, &why) == 0;
    while (*agreed && first < size && all[first] == 0) first++;
    free(all);
    if (!*agreed) {
        if (!status) *err = why;
        return -1;
    }
    if (first == size) return 0;
    if (first != rank) *err = (Error){.code = err->code};
    if (first == rank && first > 0) error_context(err, "rank %d of %d", rank, size);
    return -1;
}
