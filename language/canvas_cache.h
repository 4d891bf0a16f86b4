/* canvas_cache.h - the network's proposals for the canvases that it has evaluated.
 *
 * A canvas is a request's partly filled answer: (request, tokens). With proposals by argmax the
 * network's output is a pure function of it, so one evaluation is enough. Where it depends on what
 * else was kept (prefix_cache), a number of that takes the request's place. The cache is exact: the
 * hash only selects a slot, the canvases themselves are compared.
 *
 * Canvases and proposals are contiguous in the order in which they were added. So the new ones of a
 * step are one run of proposals, which the evaluation writes in place.
 */
#ifndef EASYFIRST_LANGUAGE_CANVAS_CACHE_H
#define EASYFIRST_LANGUAGE_CANVAS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"
#include "language/decode.h"

typedef struct CanvasEntry {
    uint64_t hash;
    size_t start; /* its first cell in tokens and proposals */
    int request, length;
} CanvasEntry;

typedef struct CanvasCache {
    CanvasEntry *entries; /* [capacity], the first `count` in use */
    int32_t *tokens;      /* [cells], the first `used` in use */
    Proposal *proposals;  /* [cells], parallel to tokens */
    size_t *slots;        /* [slot_mask + 1], open addressing: an entry's index + 1, or 0 if free */
    size_t count, capacity, used, cells, slot_mask;
} CanvasCache;

/* Allocates all memory, for at most `canvases` canvases of `cells` positions in total. Its pages
 * are not touched before they are used. */
int canvas_cache_take(CanvasCache *cache, size_t canvases, size_t cells, Error *err);
void canvas_cache_free(CanvasCache *cache);

/* The index of this canvas's entry. If *fresh, it was added just now, and the caller must fill in
 * its proposals. tokens: [length], copied. */
size_t canvas_cache_find(CanvasCache *cache, int request, const int32_t *tokens, int length,
                         bool *fresh);

/* Adds a canvas without a lookup, and never to be found by one: space for one evaluation. */
size_t canvas_cache_add(CanvasCache *cache, int request, const int32_t *tokens, int length);

/* Removes all canvases; only if all were added by canvas_cache_add. */
void canvas_cache_rewind(CanvasCache *cache);

#endif
