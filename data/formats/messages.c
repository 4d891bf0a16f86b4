/* messages.c - chats as {"messages": [{"role", "content"}]}, of user and assistant, perhaps with a system
 * prompt: LLaVA's conversations under other names. */
#include <string.h>

#include "data/files/json_kind.h"
#include "data/formats/formats.h"

bool messages_known(const json_t *object) {
    return json_is_array(json_object_get(object, "messages"));
}

/* The text of a content: a string, or a list of one part {"type": "text", "text"}. */
static const json_t *content_text(const json_t *content) {
    if (!json_is_array(content)) return content;
    const json_t *part = json_array_size(content) == 1 ? json_array_get(content, 0) : NULL;
    const char *type = json_string_value(json_object_get(part, "type"));
    return type && !strcmp(type, "text") ? json_object_get(part, "text") : NULL;
}

/* A message as a part of a conversation; NULL with the fault. */
static json_t *part_of(const json_t *message, size_t place, ObjectFault *fault) {
    static const char *const unread[] = {"tool_calls", "function_call", "tool_call_id", "weight",
                                         "audio",      "name",          "images"};
    const json_t *role = json_object_get(message, "role");
    const json_t *text = content_text(json_object_get(message, "content"));
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        const json_t *value = json_object_get(message, unread[i]);
        if (value && !json_is_null(value))
            return object_fault(fault, "field that is not read", "message %zu has \"%s\"", place,
                                unread[i]);
    }
    if (!json_is_string(role) || !json_is_string(text))
        return object_fault(fault, "wrong type",
                            "message %zu has no \"role\" and \"content\" that are texts", place);
    json_t *part = json_pack("{s:O, s:O}", "from", role, "value", text);
    fault->memory = !part;
    return part;
}

/* A question and its answer become a pair. */
static json_t *convert_one(json_t *object, json_t *parts, const Prompting *prompting,
                           ObjectFault *fault) {
    static const char *const without[] = {"messages", NULL};
    const char *prompt = object_text(json_array_get(parts, 0), "value", fault);
    const char *answer = prompt ? object_text(json_array_get(parts, 1), "value", fault) : NULL;
    const Sample sample = {
        .instruction = "", .stem = prompt, .answer = answer, .between = "", .bare = true};
    return answer ? prompt_object(object, without, prompting, &sample, fault) : NULL;
}

static bool is_from(const json_t *parts, size_t place, const char *role) {
    return !strcmp(json_string_value(json_object_get(json_array_get(parts, place), "from")), role);
}

static json_t *convert_parts(json_t *object, json_t *parts, const Prompting *prompting,
                             ObjectFault *fault) {
    if (json_array_size(parts) == 2 && is_from(parts, 0, "user") && is_from(parts, 1, "assistant"))
        return convert_one(object, parts, prompting, fault);
    if (prompting && (prompting->count || prompting->options.instruction))
        return object_fault(
            fault, "conversation",
            "demonstrations and instructions go before single questions, not before "
            "conversations");
    json_t *copy = json_copy(object);
    fault->memory =
        !copy || json_object_del(copy, "messages") || json_object_set(copy, "conversations", parts);
    if (!fault->memory) return copy;
    json_decref(copy);
    return NULL;
}

json_t *messages_convert(json_t *object, const Prompting *prompting, ObjectFault *fault) {
    json_t *messages = json_object_get(object, "messages"), *parts = json_array(), *message;
    size_t i;
    bool whole = parts;
    fault->memory = !parts;
    json_array_foreach(messages, i, message) {
        json_t *part = whole ? part_of(message, i + 1, fault) : NULL;
        if (whole && part && json_array_append_new(parts, part)) fault->memory = true;
        whole = whole && part && !fault->memory;
    }
    json_t *made = whole ? convert_parts(object, parts, prompting, fault) : NULL;
    json_decref(parts);
    return made;
}
