/* ahead.h - a thread that makes the next thing while this one is used. One thing is ready at most:
 * the maker waits until it is taken, the user until it is there. */
#ifndef EASYFIRST_APPS_AHEAD_H
#define EASYFIRST_APPS_AHEAD_H

#include <stdbool.h>

#include "kernels/error.h"

typedef struct Ahead Ahead;

typedef struct AheadConfig {
    int (*make)(void *user, Ahead *ahead, Error *err); /* runs on the thread: makes things and hands
                                                          each over, until there are no more (0) */
    void (*drop)(void *thing);                         /* frees one that nobody took */
    void *user;                                        /* must outlive the thread */
    const char *what;                                  /* that are made: "pictures" */
} AheadConfig;

/* Starts the thread. *ahead is NULL on failure. */
int ahead_open(Ahead **ahead, const AheadConfig *config, Error *err);
void ahead_close(Ahead *ahead); /* NULL is allowed; stops the thread */

/* The next thing, waiting for it; the caller's. The thread's failure is one here, and so is that
 * there are no more. */
int ahead_next(Ahead *ahead, void **thing, Error *err);

/* For the maker. Hands a thing over (not NULL), waiting for room, and says
 * whether to go on; if not, it has been dropped. */
bool ahead_put(Ahead *ahead, void *thing);
bool ahead_stopped(Ahead *ahead); /* nobody wants more: what takes long may be left out */

#endif
