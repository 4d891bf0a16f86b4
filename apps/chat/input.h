/* input.h - the lines that are typed: edited with libedit and remembered in a history on a
 * terminal, read as they are from a pipe, a file, and a terminal without cursor movement.
 */
#ifndef EASYFIRST_APPS_CHAT_INPUT_H
#define EASYFIRST_APPS_CHAT_INPUT_H

#include <stdbool.h>

#include "apps/cli/lines.h"
#include "kernels/error.h"

typedef struct ChatInput ChatInput;

typedef enum ChatEvent {
    CHAT_LINE,
    CHAT_INTERRUPTED, /* Ctrl-C: the line is dropped */
    CHAT_END          /* Ctrl-D, the end of the input, or a signal that ends the program */
} ChatEvent;

/* `history`: keep one, in $XDG_STATE_HOME/easyfirst/chat_history (else ~/.local/state/...), which
 * only the user may read. One that cannot be read or written is reported in *note (empty: all is
 * well), and left alone. */
int chat_input_open(ChatInput **input, bool history, Error *note, Error *err);

/* Whether a person types: standard input and output are a terminal. */
bool chat_input_typed(const ChatInput *input);

/* The next line, terminated, without its end: the caller's to free, NULL unless it is a CHAT_LINE.
 * A line that is not a text (too long, a NUL byte, not UTF-8) is one, and *why says so; else *why
 * is empty. */
int chat_input_next(ChatInput *input, ChatEvent *event, char **line, Error *why, Error *err);

/* The signal that ended the input, which the caller raises again after its clean-up; 0: none. */
int chat_input_signal(const ChatInput *input);

void chat_input_close(ChatInput *input); /* NULL is allowed */

#endif
