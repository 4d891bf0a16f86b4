/* chat_template.h - the texts that models of conversations were trained on: messages to one text.
 *
 * Models describe theirs in Jinja ("chat_template" in tokenizer_config.json). That is not run: the
 * few that are needed are here by name, and a file's template is recognized by what is in it. */
#ifndef EASYFIRST_LANGUAGE_CHAT_TEMPLATE_H
#define EASYFIRST_LANGUAGE_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

typedef enum ChatTemplate {
    CHAT_LLADA,   /* LLaMA 3's, after <|startoftext|> */
    CHAT_DREAM,   /* ChatML with a system message if there is none (Dream, Qwen2) */
    CHAT_CHATML,  /* <|im_start|>role ... <|im_end|> */
    CHAT_LLAMA3,  /* <|start_header_id|>role<|end_header_id|> ... <|eot_id|> */
    CHAT_LLAMA31, /* the same with two dates in the system message */
    CHAT_LLAMA2   /* [INST] ... [/INST] */
} ChatTemplate;
extern const char *const chat_template_names[]; /* NULL-terminated, in the enum's order */

typedef struct ChatMessage {
    const char *role, *content; /* role: "system" (the first only), "user", "assistant" */
} ChatMessage;

/* The text of a conversation, with its special tokens, also the one that begins it. With `open` it
 * ends where the model's next answer begins. *text is owned by the caller (free), NULL on failure.
 * Errors: no messages, an unknown role, roles in an order that the template lacks. */
int chat_template_text(ChatTemplate kind, const ChatMessage *messages, size_t count, bool open,
                       char **text, Error *err);

/* Recognizes a template in Jinja; `begin` is the token that begins a text ("" if none). An unknown
 * one is an error that names those that are known. */
int chat_template_recognize(ChatTemplate *kind, const char *jinja, const char *begin, Error *err);

/* Recognizes that of a model's folder: chat_template.jinja, or "chat_template" in
 * tokenizer_config.json. *present is false if there is none. */
int chat_template_read(ChatTemplate *kind, bool *present, const char *folder, const char *begin,
                       Error *err);

#endif
