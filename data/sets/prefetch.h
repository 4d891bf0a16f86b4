/* prefetch.h - a thread that makes the next thing while this one is used. One thing is ready at
 * most: the maker waits until it is taken, the user until it is there. */
#ifndef EASYFIRST_DATA_SETS_PREFETCH_H
#define EASYFIRST_DATA_SETS_PREFETCH_H

#include <stdbool.h>

#include "kernels/error.h"

typedef struct Prefetch Prefetch;

typedef struct PrefetchConfig {
    int (*make)(void *user, Prefetch *prefetch,
                Error *err);   /* runs on the thread: makes things and hands
                            each over, until there are no more (0) */
    void (*drop)(void *thing); /* frees one that nobody took */
    void *user;                /* must outlive the thread */
    const char *what;          /* that are made: "images" */
} PrefetchConfig;

/* Starts the thread. *prefetch is NULL on failure. */
int prefetch_open(Prefetch **prefetch, const PrefetchConfig *config, Error *err);
void prefetch_close(Prefetch *prefetch); /* NULL is allowed; stops the thread */

/* The next thing, waiting for it; the caller's. The thread's failure is one here, and so is that
 * there are no more. */
int prefetch_next(Prefetch *prefetch, void **thing, Error *err);

/* For the maker. Hands a thing over (not NULL), waiting for room, and says whether to go on; if
 * not, it has been dropped. */
bool prefetch_put(Prefetch *prefetch, void *thing);
bool prefetch_stopped(Prefetch *prefetch); /* nobody wants more: what takes long may be left out */

#endif
