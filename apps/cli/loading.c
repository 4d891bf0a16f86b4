#include "apps/cli/loading.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "kernels/clock.h"

enum { SECONDS = 10 };

void loading_print(void *user, const char *path, size_t done, size_t all) {
    (void)user;
    static double last; /* when the line of a log was written */
    double percent = all ? 100.0 * (double)done / (double)all : 100;
    if (isatty(STDERR_FILENO)) {
        if (path)
            fprintf(stderr, "\rloading weights: %3.0f %% of %.1f GB", percent, 1e-9 * (double)all);
        else
            fputs("\r\033[K", stderr);
        fflush(stderr);
        return;
    }
    double now = clock_seconds();
    if (!path || (last > 0 && now - last < SECONDS)) return;
    last = now;
    fprintf(stderr, "loading weights: %.0f %% of %.1f GB\n", percent, 1e-9 * (double)all);
}
