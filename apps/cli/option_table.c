#include "apps/cli/option_table.h"

#include <stdio.h>

const char *option_argument(const Option *o, char out[OPTION_ARGUMENT_SIZE]) {
    if (o->kind != OPTION_CHOICE) return o->argument;
    size_t used = 0;
    out[0] = 0;
    for (int i = (int)o->least; o->names[i] && used < OPTION_ARGUMENT_SIZE; i++) {
        int n =
            snprintf(out + used, OPTION_ARGUMENT_SIZE - used, "%s%s", used ? "|" : "", o->names[i]);
        used += (size_t)n;
    }
    return out;
}
