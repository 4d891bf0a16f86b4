/* bbh.c - BIG-Bench Hard's JSON: {"examples": [{"input", "target"}]}. Options of an input, a line each,
 * follow the question as in MMLU's prompts; their targets "(B)" become "B". */
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "data/formats/document.h"
#include "data/formats/formats.h"

static const char OPTIONS[] = "\nOptions:\n(";

bool bbh_known(FormatInput *input) {
    return document_has(input, "examples", "\"input\"");
}

/* "Q?\nOptions:\n(A) x\n(B) y" to "Q? (A) x (B) y", in place. */
static void join_options(char *text) {
    char *options = strstr(text, OPTIONS), *to;
    if (!options) return;
    to = options;
    for (const char *from = options + sizeof OPTIONS - 3; *from; from++)
        *to++ = *from == '\n' ? ' ' : *from;
    *to = 0;
}

static int take_example(FormatInput *input, const json_t *example, int64_t number, Error *err) {
    const char *text = json_string_value(json_object_get(example, "input"));
    const char *target = json_string_value(json_object_get(example, "target"));
    if (!text || !target) {
        sample_reject(input, number, "wrong type", "no text \"%s\"", text ? "target" : "input");
        return 0;
    }
    bool letter = target[0] == '(' && target[1] && target[2] == ')' && !target[3];
    if (strstr(text, OPTIONS) && !letter) {
        sample_reject(input, number, "wrong letter", "\"%.20s\", expected one of its options, (A)",
                      target);
        return 0;
    }
    const char choice[2] = {letter ? target[1] : 0, 0};
    char *stem = path_format(err, "Q: %s A:", text);
    if (!stem) return -1;
    join_options(stem);
    int status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = stem,
                                       .answer = letter ? choice : target,
                                       .between = "",
                                       .number = number},
                             err);
    free(stem);
    return status;
}

int bbh_read(FormatInput *input, Error *err) {
    json_t *whole = document_read(input, err), *example;
    if (!whole) return -1;
    int status = 0;
    size_t i;
    json_array_foreach(json_object_get(whole, "examples"), i, example) {
        if (status == 0) status = take_example(input, example, (int64_t)i + 1, err);
    }
    json_decref(whole);
    return status < 0 ? -1 : 0;
}
