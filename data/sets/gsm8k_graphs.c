#include "data/sets/gsm8k_graphs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_open.h"
#include "data/files/json_array.h"
#include "data/formats/formats.h"
#include "data/sets/calculations.h"

enum { LINE_MOST = 1 << 20 };

/* The line's object; NULL if it is none of GSM8K's. */
static json_t *line_object(const char *line, size_t size) {
    JsonFault fault;
    json_t *object = size <= LINE_MOST ? json_element(line, size, &fault) : NULL;
    if (object && json_is_object(object) && gsm8k_known(object)) return object;
    json_decref(object);
    return NULL;
}

/* 0: added; 1: it has no calculation or no number; -1. */
static int object_add(CausalGraphs *graphs, json_t *object, Error *err) {
    ObjectFault fault = {0};
    char *answer = NULL;
    TRY(causal_graphs_grow(graphs, err));
    json_t *pair = gsm8k_convert(object, NULL, &fault);
    if (!pair) return fault.memory ? error_set(err, "out of memory for a causal graph") : 1;
    const char *prompt = json_string_value(json_object_get(pair, "inputs"));
    int status = gsm8k_finish(&answer, json_string_value(json_object_get(object, "answer")), true);
    if (status < 0) error_set(err, "out of memory for a causal graph");
    if (status == 0)
        status = calculations_graph(&graphs->items[graphs->count], prompt, answer, err);
    graphs->count += status == 0;
    free(answer), json_decref(pair);
    return status;
}

static int lines_read(CausalGraphs *graphs, FILE *file, const char *path, Error *err) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    int status = 0;
    bool known = false;
    while (status == 0 && (size = getline(&line, &capacity, file)) >= 0) {
        if (line[strspn(line, " \t\r\n")] == 0 && strlen(line) == (size_t)size) continue;
        json_t *object = line_object(line, (size_t)size);
        if (!object && !known) {
            status = 1;
            break;
        }
        known = true;
        const int added = object ? object_add(graphs, object, err) : 1;
        graphs->left_out += added > 0;
        if (added < 0) status = error_context(err, "%s", path);
        json_decref(object);
    }
    if (status == 0 && ferror(file)) status = error_set(err, "%s: %s", path, strerror(errno));
    free(line);
    return status == 0 && !known ? 1 : status;
}

int gsm8k_graphs_read(CausalGraphs *graphs, const char *path, Error *err) {
    const int fd = file_open_input(path, NULL, NULL, err);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (fd < 0) return -1;
    if (!file) {
        error_set(err, "%s: %s", path, strerror(errno));
        close(fd);
        return -1;
    }
    int status = lines_read(graphs, file, path, err);
    fclose(file);
    if (status == 0 && !graphs->count)
        status =
            error_set(err,
                      "%s: GSM8K's questions, but none of their answers has a calculation, such as "
                      "48/2 = <<48/2=24>>24",
                      path);
    if (status < 0) causal_graphs_free(graphs);
    return status;
}
