/* live.h - an answer on the terminal while it is denoised: its lines are redrawn at each step, and
 * disappear at the end. Ctrl-C cancels it.
 */
#ifndef EASYFIRST_APPS_CHAT_LIVE_H
#define EASYFIRST_APPS_CHAT_LIVE_H

#include <pthread.h>

#include "apps/show/terminal.h"
#include "apps/show/text.h"
#include "projector/easyfirst.h"

typedef struct Live {
    Terminal terminal;
    ef_cancellation *cancellation;
    pthread_mutex_t lock;
    pthread_t thread; /* waits for signals and keys */
    bool done;        /* under the lock, as what follows */
    StyledText text;  /* of the last step */
    Layout layout;
    int drawn; /* lines on the screen; the cursor is at the first one's begin */
} Live;

/* Takes the terminal (terminal_usable). One live_end for each begin that succeeded. */
int live_begin(Live *live, ef_cancellation *cancellation, Error *err);

/* Draws a step of the first hypothesis; others are left out. */
void live_step(Live *live, const ef_step *step);

/* Erases the drawing and restores the terminal. */
void live_end(Live *live);

#endif
