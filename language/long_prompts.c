#include "language/long_prompts.h"

#include <stddef.h>

const char *const long_prompts_names[] = {
    [LONG_PROMPTS_REFUSE] = "refuse",
    [LONG_PROMPTS_SKIP] = "skip",
    [LONG_PROMPTS_KEEP_LAST] = "keep-last",
    NULL,
};
