/* objects.c - arrays and lines of objects of any kind, one after another. */
#include <string.h>

#include "data/files/json_array.h"
#include "data/formats/formats.h"
#include "data/formats/table.h"

static int take_object(FormatInput *input, json_t *object, int64_t number, Error *err) {
    ObjectFault fault = {0};
    json_t *pair = format_object(object, input->prompting, &fault);
    if (!pair && fault.memory) return error_set(err, "%s: out of memory", input->path);
    const char *inputs = json_string_value(json_object_get(pair, "inputs"));
    const char *targets = json_string_value(json_object_get(pair, "targets"));
    int status = 0;
    if (!pair)
        sample_reject(input, number, fault.kind, "%s", fault.why);
    else if (!inputs || !targets)
        sample_reject(input, number, "no pair",
                      "not one prompt with its answer, such as {\"inputs\", \"targets\"}");
    else
        status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = inputs,
                                       .answer = targets,
                                       .between = "",
                                       .finished = true,
                                       .number = number},
                             err);
    json_decref(pair);
    return status;
}

static int visit_element(void *user, const JsonElement *element, Error *err) {
    FormatInput *input = user;
    if (element->value) return take_object(input, element->value, element->number, err);
    sample_reject(input, element->number, element->kind, "%s", element->why);
    return 0;
}

static int take_line(void *user, FormatInput *input, const Csv *row, Error *err) {
    (void)user;
    JsonFault fault;
    json_t *value = json_element(row->fields[0], row->sizes[0], &fault);
    if (!value && fault.kind == JSON_FAULT_MEMORY)
        return error_set(err, "%s: out of memory", input->path);
    if (!value) sample_reject(input, row->first, json_fault_name(&fault), "%s", fault.why);
    int status = value ? take_object(input, value, row->first, err) : 0;
    json_decref(value);
    return status;
}

int objects_read(FormatInput *input, Error *err) {
    FileWindow window = {.path = input->path, .fd = input->fd};
    int status = window_more(&window, 0, err);
    size_t at = window.size >= 3 && !memcmp(window.bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (at < window.size && strchr(" \t\r\n", window.bytes[at]) && window.bytes[at]) at++;
    bool array = at < window.size && window.bytes[at] == '[';
    if (status == 0 && array) status = json_array_walk(&window, at, visit_element, input, err);
    window_free(&window);
    if (status == 0 && !array) status = table_walk(input, CSV_LINES, take_line, NULL, err);
    return status < 0 ? -1 : 0;
}
