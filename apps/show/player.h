/* player.h - plays an answer being filled in, redrawn in the same lines of a terminal.
 *
 * Two threads, so that keys, a resized window and Ctrl-C are handled at once even where a step
 * takes seconds: the caller's thread computes and appends each step to a trace; the other one plays
 * that trace, no faster than the steps come and no faster than the given speed, and back and forth
 * within the steps so far. A finished trace is played by the same code on the caller's thread, so
 * that a replay shows what the live run showed.
 *
 * The drawing is on the normal screen, nothing above it is touched, and each frame is one write
 * without clearing first. Between frames the cursor (hidden) is at the upper left corner of the
 * drawing, where it remains when the window gets narrower and the terminal rewraps the lines. At
 * the end, or on q, the answer as plain text replaces the drawing; while the answer is still being
 * computed, a second q ends the program without it.
 *
 * Frames are folded (fold.h) with the steps so far: erased tokens stay until others replace them.
 */
#ifndef EASYFIRST_APPS_SHOW_PLAYER_H
#define EASYFIRST_APPS_SHOW_PLAYER_H

#include <pthread.h>

#include "apps/show/terminal.h"
#include "apps/trace/trace.h"

#define SHOW_SPEED 8.0F /* steps a second */

typedef struct ShowOptions {
    float speed;     /* steps a second that change something; others play ten times as fast */
    bool step;       /* begins paused */
    bool keep;       /* finish the answer in any case (for a file) */
    bool every_step; /* nothing is folded (fold.h) */
} ShowOptions;

/* Plays a finished trace. *quit (may be NULL) reports whether the user quit before its end. */
int show_play(const Trace *trace, const ShowOptions *options, bool *quit, Error *err);

/* A trace that is played while it is made. */
typedef struct ShowLive {
    Trace *trace;
    const Tokenizer *tokenizer;
    ShowOptions options;
    Terminal terminal;
    int expected; /* hypotheses at most */
    pthread_mutex_t lock;
    pthread_t thread;
    bool finished, failed;        /* under the lock, as the trace is */
    bool quit;                    /* after show_live_end */
    Error step_error, draw_error; /* of either thread; empty if all went well */
} ShowLive;

/* Takes the terminal and starts to play `trace`, which trace_begin made, and which belongs to this
 * until show_live_end. There will be up to `expected` hypotheses. Exactly one end for every begin
 * that succeeded. */
int show_live_begin(ShowLive *live, Trace *trace, const Tokenizer *tokenizer, int expected,
                    const ShowOptions *options, Error *err);

/* A DecodeCallback whose user is the ShowLive. */
void show_live_step(void *live, const DecodeStep *step);

/* With the answer to the request whose steps were shown: finishes the trace, and returns when all
 * is played. With NULL, after a failure: stops at once. A user who quits before that (without
 * options.keep) ends the program here, with status 0. */
int show_live_end(ShowLive *live, const Answers *answers, int index, Error *err);

#endif
