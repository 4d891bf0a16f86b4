#include "language/long_prompts.h"

#include <string.h>

static const char *const names[] = {"refuse", "skip", "keep-last"};
enum { COUNT = sizeof names / sizeof names[0] };

const char *long_prompts_name(LongPrompts what) {
    return names[what];
}

int long_prompts_find(const char *name) {
    for (int i = 0; i < COUNT; i++)
        if (!strcmp(name, names[i])) return i;
    return -1;
}
