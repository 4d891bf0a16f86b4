#include "data/files/json_memory.h"

#include <stdio.h>
#include <stdlib.h>

static _Thread_local bool failed;

static json_malloc_t inner_malloc = malloc;

static void *watched_malloc(size_t size) {
    void *memory = inner_malloc(size);
    if (!memory) failed = true;
    return memory;
}

void json_memory_watch(void) {
    json_malloc_t now;
    json_free_t now_free;
    json_get_alloc_funcs(&now, &now_free);
    if (now == watched_malloc) return;
    inner_malloc = now;
    json_set_alloc_funcs(watched_malloc, now_free);
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
    json_error_t own;
    if (!error) error = &own;
    json_t *json = json_loadb(text, size, flags, error);
    bool whole = !failed && (json || error->text[0]); /* jansson has no words for most of these */
    failed |= before;
    if (whole) return json;
    json_decref(json);
    snprintf(error->text, sizeof error->text, "out of memory");
    error->text[sizeof error->text - 1] = (char)json_error_out_of_memory; /* json_error_code */
    return NULL;
}
