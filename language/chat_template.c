/* chat_template.c - see chat_template.h. */
#include "language/chat_template.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "language/token_json.h"
#include "language/token_text.h"

const char *const chat_template_names[] = {"llada",     "dream",   "chatml", "llama-3",
                                           "llama-3.1", "llama-2", NULL};

typedef enum Style { STYLE_HEADERS, STYLE_CHATML, STYLE_INST } Style;

/* What distinguishes a template from the others. */
typedef struct Template {
    Style style;
    const char *begin;
    const char *system;       /* the message if there is none; NULL: none then */
    const char *system_start; /* before the contents of the system message */
    const char *landmarks[6]; /* all are in its Jinja text */
    const char *absent[4];    /* none of these is */
} Template;

#define DATES "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

static const Template templates[] = {
    [CHAT_LLADA] = {STYLE_HEADERS,
                    "<|startoftext|>",
                    NULL,
                    "",
                    {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "trim", "bos_token"},
                    {"Cutting Knowledge", "tools", "[INST]"}},
    [CHAT_DREAM] = {STYLE_CHATML,
                    "",
                    "You are a helpful assistant.",
                    "",
                    {"<|im_start|>", "<|im_end|>", "You are a helpful assistant."},
                    {"You are Qwen", "<think>", "bos_token"}},
    [CHAT_CHATML] = {STYLE_CHATML,
                     "",
                     NULL,
                     "",
                     {"<|im_start|>", "<|im_end|>"},
                     {"You are ", "<think>", "bos_token", "tools"}},
    [CHAT_LLAMA3] = {STYLE_HEADERS,
                     "<|begin_of_text|>",
                     NULL,
                     "",
                     {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "trim",
                      "bos_token"},
                     {"Cutting Knowledge", "tools", "[INST]"}},
    [CHAT_LLAMA31] = {STYLE_HEADERS,
                      "<|begin_of_text|>",
                      "",
                      DATES,
                      {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date: December 2023",
                       "26 Jul 2024"},
                      {"strftime_now"}},
    [CHAT_LLAMA2] = {STYLE_INST,
                     "<s>",
                     NULL,
                     "",
                     {"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "bos_token", "eos_token"},
                     {"<|im_start|>", "<|eot_id|>"}},
};

/* ---- Texts. ---- */

static int put(TokenText *out, const char *text, Error *err) {
    return token_text_append(out, text, strlen(text), err);
}

/* A text without the white space at its ends. */
static int put_trimmed(TokenText *out, const char *text, Error *err) {
    size_t start = 0, end = strlen(text), length;
    while (start < end && token_is_space(token_character(text + start, &length))) start += length;
    while (end > start) {
        size_t last = end - 1;
        while (last > start && ((unsigned char)text[last] & 0xC0) == 0x80) last--;
        if (!token_is_space(token_character(text + last, &length))) break;
        end = last;
    }
    return token_text_append(out, text + start, end - start, err);
}

static int put_header(TokenText *out, const char *role, Error *err) {
    TRY(put(out, "<|start_header_id|>", err));
    TRY(put(out, role, err));
    return put(out, "<|end_header_id|>\n\n", err);
}

static int put_message(const Template *t, const char *role, const char *content, TokenText *out,
                       Error *err) {
    const char *start = strcmp(role, "system") == 0 ? t->system_start : "";
    if (t->style == STYLE_HEADERS) {
        TRY(put_header(out, role, err));
        TRY(put(out, start, err));
        TRY(put_trimmed(out, content, err));
        return put(out, "<|eot_id|>", err);
    }
    TRY(put(out, "<|im_start|>", err));
    TRY(put(out, role, err));
    TRY(put(out, "\n", err));
    TRY(put(out, content, err));
    return put(out, "<|im_end|>\n", err);
}

static int put_messages(const Template *t, const ChatMessage *messages, size_t count, bool open,
                        TokenText *out, Error *err) {
    TRY(put(out, t->begin, err));
    if (t->system && strcmp(messages[0].role, "system") != 0)
        TRY(put_message(t, "system", t->system, out, err));
    for (size_t i = 0; i < count; i++)
        TRY(put_message(t, messages[i].role, messages[i].content, out, err));
    if (!open) return 0;
    return t->style == STYLE_HEADERS ? put_header(out, "assistant", err)
                                     : put(out, "<|im_start|>assistant\n", err);
}

/* LLaMA 2's: the system message is a part of the first question. */
static int put_question(const Template *t, const char *system, const char *content, TokenText *out,
                        Error *err) {
    TokenText whole = {0};
    int status = put(out, t->begin, err);
    if (status == 0) status = put(out, "[INST] ", err);
    if (status == 0 && system) {
        status = put(&whole, "<<SYS>>\n", err);
        if (status == 0) status = put(&whole, system, err);
        if (status == 0) status = put(&whole, "\n<</SYS>>\n\n", err);
    }
    if (status == 0) status = put(&whole, content, err);
    if (status == 0) status = token_text_append(&whole, "", 1, err);
    if (status == 0) status = put_trimmed(out, whole.bytes, err);
    token_text_free(&whole);
    return status ? -1 : put(out, " [/INST]", err);
}

static int put_turns(const Template *t, const ChatMessage *messages, size_t count, bool open,
                     TokenText *out, Error *err) {
    const char *system = strcmp(messages[0].role, "system") == 0 ? messages[0].content : NULL;
    const size_t first = system ? 1 : 0;
    for (size_t i = first; i < count; i++) {
        bool question = (i - first) % 2 == 0;
        if (strcmp(messages[i].role, question ? "user" : "assistant") != 0)
            return error_set(err,
                             "message %zu is of \"%.60s\", expected %s: in this chat template "
                             "user and assistant alternate",
                             i, messages[i].role, question ? "user" : "assistant");
        if (question) {
            TRY(put_question(t, i == first ? system : NULL, messages[i].content, out, err));
            continue;
        }
        TRY(put(out, " ", err));
        TRY(put_trimmed(out, messages[i].content, err));
        TRY(put(out, " </s>", err));
    }
    if ((count - first) % 2 != (open ? 1 : 0))
        return error_set(err, open ? "the last message is not the user's: no answer can follow it"
                                   : "the last message is not the assistant's");
    return 0;
}

static int check_messages(const ChatMessage *messages, size_t count, Error *err) {
    if (count == 0) return error_set(err, "a conversation without messages");
    for (size_t i = 0; i < count; i++) {
        const char *role = messages[i].role;
        bool system = strcmp(role, "system") == 0;
        if (!system && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
            return error_set(err,
                             "message %zu has the role \"%.60s\", expected system, user or "
                             "assistant",
                             i, role);
        if (system && i > 0)
            return error_set(err, "message %zu is a system message, expected it first", i);
    }
    return 0;
}

int chat_template_text(ChatTemplate kind, const ChatMessage *messages, size_t count, bool open,
                       char **text, Error *err) {
    const Template *t = &templates[kind];
    TokenText out = {0};
    *text = NULL;
    TRY(check_messages(messages, count, err));
    int status =
        (t->style == STYLE_INST ? put_turns : put_messages)(t, messages, count, open, &out, err);
    if (status == 0) status = token_text_append(&out, "", 1, err);
    if (status) token_text_free(&out);
    *text = out.bytes;
    return status;
}

/* ---- Recognizing. ---- */

static bool fits(const Template *t, const char *jinja) {
    for (size_t i = 0; i < sizeof t->landmarks / sizeof t->landmarks[0] && t->landmarks[i]; i++)
        if (!strstr(jinja, t->landmarks[i])) return false;
    for (size_t i = 0; i < sizeof t->absent / sizeof t->absent[0] && t->absent[i]; i++)
        if (strstr(jinja, t->absent[i])) return false;
    return true;
}

int chat_template_recognize(ChatTemplate *kind, const char *jinja, const char *begin, Error *err) {
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        const Template *t = &templates[i];
        /* LLaDA's is LLaMA 3's but for the token that begins it. */
        if (!fits(t, jinja) || (*begin && *t->begin && strcmp(begin, t->begin) != 0)) continue;
        *kind = (ChatTemplate)i;
        return 0;
    }
    return error_set(err,
                     "the chat template \"%.60s\" is not known; known are llada, dream, "
                     "chatml, llama-3, llama-3.1 and llama-2",
                     jinja);
}

/* The text of a template: a string, or the default one of a list. */
static const char *template_of(const json_t *value) {
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(entry, "template"));
    }
    return json_string_value(value);
}

enum { LONGEST_TEMPLATE = 1 << 20 };

/* A file's text; NULL with status 0 if there is no such file. */
static int read_text(char **text, const char *path, Error *err) {
    *text = NULL;
    FILE *file = fopen(path, "rb");
    if (!file && errno == ENOENT) return 0;
    if (!file) return error_set(err, "%s: cannot open it (%s)", path, strerror(errno));
    *text = calloc(1, LONGEST_TEMPLATE + 1);
    size_t size = *text ? fread(*text, 1, LONGEST_TEMPLATE, file) : 0;
    int status = !*text         ? error_set(err, "%s: out of memory for a chat template", path)
                 : ferror(file) ? error_set(err, "%s: cannot be read", path)
                 : size == 0    ? error_set(err, "%s: empty, expected a chat template", path)
                                : 0;
    fclose(file);
    if (status) {
        free(*text);
        *text = NULL;
    }
    return status;
}

static int read_config(ChatTemplate *kind, bool *present, const char *path, const char *begin,
                       Error *err) {
    json_t *config = NULL;
    if (access(path, F_OK) != 0) return 0;
    TRY(token_json_read(&config, path, err));
    const json_t *value = json_object_get(config, "chat_template");
    const char *jinja = template_of(value);
    int status = 0;
    *present = value && !json_is_null(value);
    if (*present && !jinja)
        status = error_set(err, "\"chat_template\": expected a text");
    else if (*present)
        status = chat_template_recognize(kind, jinja, begin, err);
    json_decref(config);
    return status ? error_context(err, "%s", path) : 0;
}

int chat_template_read(ChatTemplate *kind, bool *present, const char *folder, const char *begin,
                       Error *err) {
    char *jinja_path = NULL, *config_path = NULL, *jinja = NULL;
    *present = false;
    int status = asprintf(&jinja_path, "%s/chat_template.jinja", folder) < 0 ||
                         asprintf(&config_path, "%s/tokenizer_config.json", folder) < 0
                     ? error_set(err, "%s: out of memory for its path", folder)
                     : read_text(&jinja, jinja_path, err);
    if (status == 0 && jinja) {
        *present = true;
        status = chat_template_recognize(kind, jinja, begin, err);
        if (status) status = error_context(err, "%s", jinja_path);
    } else if (status == 0) {
        status = read_config(kind, present, config_path, begin, err);
    }
    free(jinja), free(jinja_path), free(config_path);
    return status;
}
