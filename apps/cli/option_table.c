#include "apps/cli/option_table.h"

#include <assert.h>
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

int option_count(const OptionGroup *group) {
    int count = 0;
    while (count < OPTIONS_IN_GROUP && group->options[count].name) count++;
    return count;
}

void option_add(OptionGroup *group, Option option) {
    const int count = option_count(group);
    assert(count < OPTIONS_IN_GROUP);
    group->options[count] = option;
}
