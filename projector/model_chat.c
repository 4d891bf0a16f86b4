#include "projector/model_chat.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/names.h"
#include "projector/model_paths.h"

#define NONE "none"

int model_check_chat(const json_t *settings, const char *path, Error *err) {
    const char *name;
    TRY(config_text(settings, "chat_template", path, NONE, &name, err));
    if (!strcmp(name, NONE) || names_find(chat_template_names, name) >= 0) return 0;
    return error_set(err,
                     "%s: \"chat_template\" is \"%.60s\", expected llada, dream, chatml, llama-3, "
                     "llama-3.1, llama-2 or none",
                     path, name);
}

static int chat_of_folder(Model *m, const ModelOptions *o, const char *weights, Error *err) {
    const int32_t begin = tokenizer_specials(m->tokenizer)->begin;
    char *folder = model_file_beside(weights, ".", err);
    if (!folder) return -1;
    int status = chat_template_read(&m->chat, &m->chats, folder,
                                    begin >= 0 ? tokenizer_piece(m->tokenizer, begin) : "", err);
    free(folder);
    if (status == 0) return 0;
    m->chat_unknown = true, m->chats = false;
    if (o->describe_only) return 0;
    return error_context(err, "%s",
                         "name the template in easyfirst.json (\"chat_template\", or \"none\")");
}

int model_chat_open(Model *m, const ModelOptions *o, const char *weights, Error *err) {
    const char *name = json_string_value(json_object_get(m->settings, "chat_template"));
    if (o->language || !name) return chat_of_folder(m, o, weights, err);
    const int kind = names_find(chat_template_names, name);
    m->chats = kind >= 0;
    if (m->chats) m->chat = (ChatTemplate)kind;
    return 0;
}

/* The text of an open conversation that is this message. */
static int message_text(const Model *m, const char *content, char **text, Error *err) {
    const ChatMessage message = {"user", content};
    return chat_template_text(m->chat, &message, 1, true, text, err);
}

/* What two conversations have in common before their first message's text. */
int model_chat_image_lead(Model *m, Error *err) {
    char *one = NULL, *other = NULL;
    if (!m->chats || !m->parts.projector || !m->tokenizer) return 0;
    int status = message_text(m, "A", &one, err);
    if (status == 0) status = message_text(m, "B", &other, err);
    size_t size = 0;
    while (status == 0 && one[size] && one[size] == other[size]) size++;
    if (status == 0) m->image_lead = strndup(one, size);
    free(one), free(other);
    if (status) return -1;
    if (!m->image_lead) return error_set(err, "out of memory for a chat template");
    TRY(tokenizer_encode(m->tokenizer, m->image_lead, size, &m->image_lead_ids, err));
    const int32_t begin = m->parts.language.begin;
    const bool begun = begin >= 0 && m->image_lead_ids.count && m->image_lead_ids.ids[0] == begin;
    m->parts.image_lead = m->image_lead;
    m->parts.image_lead_ids = m->image_lead_ids.ids + begun;
    m->parts.image_lead_count = (int)m->image_lead_ids.count - begun;
    return 0;
}

int model_chat_prompt(const Model *m, const RecordTurn *turns, size_t count, char **prompt,
                      Error *err) {
    if (!m->chats || !**prompt) return 0;
    ChatMessage *messages = calloc(2 * count + 1, sizeof *messages);
    char *text = NULL;
    if (!messages) return error_set(err, "out of memory for %zu turns", count);
    for (size_t i = 0; i < count; i++) {
        messages[2 * i] = (ChatMessage){"user", turns[i].prompt};
        messages[2 * i + 1] = (ChatMessage){"assistant", turns[i].response};
    }
    messages[2 * count] = (ChatMessage){"user", *prompt};
    int status = chat_template_text(m->chat, messages, 2 * count + 1, true, &text, err);
    free(messages);
    if (status) return -1;
    free(*prompt);
    *prompt = text;
    return 0;
}
