#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"

/* A message that is being read: a role and a text, the caller's to free. */
typedef struct Message {
    const char *role;
    char *text;
    bool image;
} Message;

static bool text_add(char **text, const char *more) {
    size_t before = *text ? strlen(*text) : 0, size = strlen(more);
    char *longer = realloc(*text, before + size + 2);
    if (!longer) return false;
    if (before) longer[before++] = '\n';
    memcpy(longer + before, more, size + 1);
    *text = longer;
    return true;
}

/* {"type": "text", "text"} or {"type": "image_url", "image_url": {"url", "detail"}} */
static bool part_read(Asked *a, const json_t *part, Message *m, const char *param) {
    const char *type = json_string_value(json_object_get(part, "type"));
    const char *text = json_string_value(json_object_get(part, "text"));
    const json_t *image = json_object_get(part, "image_url");
    const char *url = json_string_value(json_object_get(image, "url"));
    if (type && !strcmp(type, "text") && text)
        return text_add(&m->text, text) || ASKED_WRONG(a, param, "out of memory");
    if (type && !strcmp(type, "image_url") && url) {
        if (strcmp(m->role, "user"))
            return ASKED_WRONG(a, param, "only the user's messages have images");
        m->image = true;
        return api_image_read(a, url, param);
    }
    return ASKED_WRONG(a, param,
                       "expected {\"type\": \"text\", \"text\": ...} or {\"type\": \"image_url\", "
                       "\"image_url\": {\"url\": \"data:...\"}}");
}

static bool content_read(Asked *a, const json_t *content, Message *m, const char *param) {
    size_t i;
    json_t *part;
    if (json_is_string(content))
        return text_add(&m->text, json_string_value(content)) ||
               ASKED_WRONG(a, param, "out of memory");
    if (!json_is_array(content) || !json_array_size(content))
        return ASKED_WRONG(a, param, "the content is neither a text nor a list of parts");
    json_array_foreach(content, i, part) if (!part_read(a, part, m, param)) return false;
    return m->text || ASKED_WRONG(a, param, "the message has no text");
}

static bool message_read(Asked *a, const json_t *message, Message *m, const char *param) {
    const char *key;
    json_t *value;
    m->role = json_string_value(json_object_get(message, "role"));
    if (!m->role) return ASKED_WRONG(a, param, "a message is {\"role\": ..., \"content\": ...}");
    json_object_foreach(
        (json_t *)message, key,
        value) if (strcmp(key, "role") && strcmp(key, "content") && strcmp(key, "name") &&
                   !json_is_null(value)) return ASKED_WRONG(a, param,
                                                            "a message has no \"%s\" here", key);
    if (strcmp(m->role, "user") && strcmp(m->role, "assistant"))
        return ASKED_WRONG(a, param,
                           "messages are from \"user\" and \"assistant\"; this kind of model was "
                           "not trained with \"%s\"",
                           m->role);
    return content_read(a, json_object_get(message, "content"), m, param);
}

/* Message i of `count`: questions and answers take turns, and a question is the last. */
static bool message_take(Asked *a, Message *m, size_t i, size_t count, const char *param) {
    bool question = i % 2 == 0;
    if (strcmp(m->role, question ? "user" : "assistant"))
        return ASKED_WRONG(a, param, "messages of user and assistant take turns, the user's first");
    if (i + 1 == count) {
        a->text = m->text;
    } else if (question) {
        a->turns[i / 2].question = m->text;
    } else {
        a->turns[i / 2].answer = m->text;
        a->turn_count = i / 2 + 1;
    }
    m->text = NULL;
    return true;
}

bool api_messages_read(Asked *a) {
    const json_t *messages = json_object_get(a->body, "messages");
    size_t count = json_array_size(messages);
    if (!json_is_array(messages) || !count || count > API_MESSAGES)
        return ASKED_WRONG(a, "messages", "expected a list of 1 to %d messages", API_MESSAGES);
    if (count % 2 == 0)
        return ASKED_WRONG(a, "messages",
                           "messages of user and assistant take turns, and the user's is the last");
    a->turn_room = count / 2;
    a->turns = calloc(a->turn_room + 1, sizeof *a->turns);
    if (!a->turns) return ASKED_WRONG(a, "messages", "out of memory");
    for (size_t i = 0; i < count; i++) {
        char param[64];
        Message m = {0};
        snprintf(param, sizeof param, "messages[%zu]", i);
        bool read = message_read(a, json_array_get(messages, i), &m, param) &&
                    message_take(a, &m, i, count, param);
        free(m.text);
        if (!read) return false;
    }
    return true;
}
