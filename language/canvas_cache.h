/* canvas_cache.h - what the network said about the canvases it has seen.
 *
 * A canvas is a request's answer partly filled: (request, tokens). With proposals by argmax the
 * network's output is a pure function of it, so it needs to be asked once. The cache is exact: the
 * hash only finds a place to look, the canvases themselves are compared.
 *
 * Canvases and proposals lie end to end in the order in which they were added. The new ones of one
 * step are therefore one run of proposals, which the evaluation writes straight into place.
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
    Proposal *proposals;  /* [cells], beside tokens */
    size_t *slots;        /* [slot_mask + 1], open addressing: an entry's index + 1, or 0 if free */
    size_t count, capacity, used, cells, slot_mask;
} CanvasCache;

/* Takes all memory, for at most `canvases` canvases of `cells` positions together. It is not
 * touched before it is used. */
int canvas_cache_take(CanvasCache *cache, size_t canvases, size_t cells, Error *err);
void canvas_cache_free(CanvasCache *cache);

/* The index of this canvas's entry. *fresh tells that it was added just now: the caller then owes
 * its proposals. tokens: [length], copied. */
size_t canvas_cache_find(CanvasCache *cache, int request, const int32_t *tokens, int length,
                         bool *fresh);

/* Adds a canvas without looking, and without it ever being found: a place for one evaluation. */
size_t canvas_cache_add(CanvasCache *cache, int request, const int32_t *tokens, int length);

/* Forgets canvases that were put in by canvas_cache_add only. */
void canvas_cache_rewind(CanvasCache *cache);

#endif
