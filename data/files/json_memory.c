#include "data/files/json_memory.h"

#include <stdio.h>
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

json_t *json_loadb_whole(const char *text, size_t size, size_t flags, json_error_t *error) {
    bool before = failed;
    failed = false;
    json_t *json = json_loadb(text, size, flags, error);
    bool whole = !failed;
    failed |= before;
    if (whole) return json;
    json_decref(json);
    if (error) {
        snprintf(error->text, sizeof error->text, "out of memory");
        error->text[sizeof error->text - 1] = (char)json_error_out_of_memory; /* json_error_code */
    }
    return NULL;
}
