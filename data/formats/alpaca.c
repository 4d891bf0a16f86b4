/* alpaca.c - Alpaca's {"instruction", "input", "output"}: the prompt is the instruction and, on a line of
 * its own, the input if there is one. */
#include <stdlib.h>

#include "data/files/path.h"
#include "data/formats/formats.h"

bool alpaca_known(const json_t *object) {
    return json_object_get(object, "instruction") && json_object_get(object, "output");
}

json_t *alpaca_convert(json_t *object, const Prompting *prompting, ObjectFault *fault) {
    static const char *const without[] = {"instruction", "input", "output", NULL};
    const json_t *input = json_object_get(object, "input");
    const char *instruction = object_text(object, "instruction", fault), *output = NULL;
    const char *more = "";
    if (instruction) output = object_text(object, "output", fault);
    if (output && input && !json_is_null(input)) more = object_text(object, "input", fault);
    if (!output || !more) return NULL;
    char *stem = path_format(NULL, "%s%s%s", instruction, more[0] ? "\n" : "", more);
    json_t *pair = NULL;
    fault->memory = !stem;
    if (stem)
        pair = prompt_object(
            object, without, prompting,
            &(Sample){
                .instruction = "", .stem = stem, .answer = output, .between = "", .bare = true},
            fault);
    free(stem);
    return pair;
}
