#include "kernels/names.h"

#include <string.h>

int names_find(const char *const *names, const char *word) {
    for (int i = 0; word && names[i]; i++)
        if (!strcmp(names[i], word)) return i;
    return -1;
}

const char *names_get(const char *const *names, int value) {
    for (int i = 0; names[i]; i++)
        if (i == value) return names[i];
    return "unknown";
}
