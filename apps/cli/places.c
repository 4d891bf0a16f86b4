#include "apps/cli/places.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/path.h"

/* Below the program's folder; build/asan/easyfirst is one folder deeper. */
static const struct {
    const char *folder;
    int installed;
} places[] = {{"../share/easyfirst", 1}, {"../data", 0}, {"../../data", 0}};

char *place_find(const char *tree, const char *installed, const char *probe) {
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return NULL;
    program[length] = 0;
    char *name = strrchr(program, '/');
    if (!name) return NULL;
    *name = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char *path = path_format(NULL, "%s/%s/%s", program, places[i].folder,
                                 places[i].installed ? installed : tree);
        char *inside = path ? path_join(path, probe, NULL) : NULL;
        const int found = inside && access(inside, R_OK) == 0;
        free(inside);
        char *real = found ? realpath(path, NULL) : NULL;
        free(path);
        if (real) return real;
    }
    return NULL;
}
