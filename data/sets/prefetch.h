/* prefetch.h - a thread that prepares the next item while this one is used. At most one item is
 * ready: the producer waits until it is taken, the consumer until it is ready. */
#ifndef EASYFIRST_DATA_SETS_PREFETCH_H
#define EASYFIRST_DATA_SETS_PREFETCH_H

#include <stdbool.h>

#include "kernels/error.h"

typedef struct Prefetch Prefetch;

typedef struct PrefetchConfig {
    int (*make)(void *user, Prefetch *prefetch,
                Error *err);   /* runs on the thread: makes items and puts each, until there are no
                                  more (0) */
    void (*drop)(void *thing); /* frees an item that was not taken */
    void *user;                /* must outlive the thread */
    const char *what;          /* name of the items: "images" */
} PrefetchConfig;

/* Starts the thread. *prefetch is NULL on failure. */
int prefetch_open(Prefetch **prefetch, const PrefetchConfig *config, Error *err);
void prefetch_close(Prefetch *prefetch); /* NULL is allowed; stops the thread */

/* Waits for the next item; the caller's. A failure of the thread is reported here, and no more
 * items are an error. */
int prefetch_next(Prefetch *prefetch, void **thing, Error *err);

/* For the producer. Hands an item over (not NULL), waiting until it can, and returns whether to
 * continue; if not, the item was dropped. */
bool prefetch_put(Prefetch *prefetch, void *thing);
bool prefetch_stopped(Prefetch *prefetch); /* the consumer has stopped: skip long work */

#endif
