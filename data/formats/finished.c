/* finished.c - {"inputs", "targets"}: prompts that are finished, but for demonstrations and an
 * instruction; and what all objects share. */
#include <string.h>

#include "data/files/json_kind.h"
#include "data/formats/formats.h"

const char *object_text(const json_t *object, const char *key, ObjectFault *fault) {
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    if (!text)
        object_fault(fault, "wrong type", "\"%s\" is %s, expected a string", key, json_kind(value));
    else if (strlen(text) != json_string_length(value)) {
        object_fault(fault, "NUL byte", "\"%s\" has one, after %zu bytes: not a text file", key,
                     strlen(text));
        text = NULL;
    }
    return text;
}

bool finished_known(const json_t *object) {
    return json_object_get(object, "inputs") || json_object_get(object, "targets") ||
           json_object_get(object, "conversations");
}

json_t *finished_convert(json_t *object, const Prompting *prompting, ObjectFault *fault) {
    static const char *const without[] = {"inputs", "targets", NULL};
    if (!prompting || (!prompting->count && !prompting->options.instruction))
        return json_incref(object);
    if (json_object_get(object, "conversations"))
        return object_fault(
            fault, "conversation",
            "demonstrations and instructions go before single questions, not before "
            "conversations");
    const char *prompt = object_text(object, "inputs", fault);
    const char *answer = prompt ? object_text(object, "targets", fault) : NULL;
    if (!answer) return NULL;
    const Sample sample = {
        .instruction = "", .stem = prompt, .answer = answer, .between = "", .bare = true};
    return prompt_object(object, without, prompting, &sample, fault);
}
