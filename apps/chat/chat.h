/* chat.h - a conversation: `chat`, and `ask IMAGE` without a question on a terminal. */
#ifndef EASYFIRST_APPS_CHAT_CHAT_H
#define EASYFIRST_APPS_CHAT_CHAT_H

#include "apps/cli/common.h"
#include "data/files/text_list.h"

/* How it begins. */
typedef struct ChatStart {
    CommonOptions *common;
    TextList images;    /* the first one is talked about first */
    const char *load;   /* a file of /save; NULL: none */
    bool context;       /* earlier turns are part of the prompt ... */
    bool context_given; /* ... as the user said; else as the model's attention was trained */
    bool no_history;
} ChatStart;

/* Until the input ends. *failed: a question of a script had no answer. */
int chat_run(const ChatStart *start, bool *failed, Error *err);

#endif
