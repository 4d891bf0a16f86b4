#include "data/json_memory.h"

#include <stdlib.h>

static _Thread_local bool failed;

static void *watched_malloc(size_t size) {
    void *memory = malloc(size);
    if (!memory) failed = true;
    return memory;
}

void json_memory_watch(void) {
    json_set_alloc_funcs(watched_malloc, free);
}

void json_memory_begin(void) {
    failed = false;
}

bool json_memory_failed(void) {
    return failed;
}

char *json_dumps_whole(const json_t *json, size_t flags) {
    char *text = json_dumps(json, flags);
    bool whole = !failed;
    failed = false;
    if (whole) return text;
    free(text);
    return NULL;
}
