/* player.h - an answer being filled in, drawn again and again in the same lines of a
 * terminal.
 *
 * Two threads, so that keys, a changed window and Ctrl-C are answered at once even where a step of
 * the network takes seconds: the caller's thread computes and appends each step to a trace as it
 * happens; the other one plays that trace, never faster than the network and never faster than the
 * given speed, and back and forth within what has happened. A finished trace is played by the same
 * code on the caller's thread, so that a replay shows what the live run showed.
 *
 * What is drawn stays in the normal screen, nothing above it is touched, and each image of it is
 * one write without clearing anything first. Between two the cursor (hidden) stands at the upper
 * left corner of what is drawn: there it stays with it when the window is made narrower and the
 * terminal breaks the lines again. At the end the drawing gives way to the answer as plain text, as
 * it does when a person has seen enough (q); with the answer still being computed, a second q ends
 * the program without it.
 *
 * What is drawn is folded (fold.h) with the steps that are known by then: words that are taken back
 * stand until others take their places.
 */
#ifndef EASYFIRST_APPS_SHOW_PLAYER_H
#define EASYFIRST_APPS_SHOW_PLAYER_H

#include <pthread.h>

#include "apps/show/terminal.h"
#include "apps/show/trace.h"

#define SHOW_SPEED 8.0F /* steps a second */

typedef struct ShowOptions {
    float speed;     /* steps a second that change something; others pass ten times as fast */
    bool step;       /* begins paused */
    bool keep;       /* the answer is to be finished in any case (for a file) */
    bool every_step; /* nothing is folded (fold.h) */
} ShowOptions;

/* Plays a finished trace. *quit (may be NULL) tells whether the person had enough before
 * its end. */
int show_play(const Trace *trace, const ShowOptions *options, bool *quit, Error *err);

/* A trace that is being made and watched. */
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

/* With the answer to the request whose steps were shown: finishes the trace, and comes back when
 * all is played. With NULL, after a failure: stops at once. A person who quits before (and not
 * options.keep) ends the program here, with status 0. */
int show_live_end(ShowLive *live, const Answers *answers, int index, Error *err);

#endif
