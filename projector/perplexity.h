/* perplexity.h - how well an autoregressive model predicts texts: the sum of -log p over their
 * tokens, each from those before it.
 *
 * A text longer than the model's sequence is read in windows of that length, each half a window
 * after the one before, of which the tokens that are new count. A first token, before which there is
 * none (not even one that begins every sequence), is not predicted.
 */
#ifndef EASYFIRST_PROJECTOR_PERPLEXITY_H
#define EASYFIRST_PROJECTOR_PERPLEXITY_H

#include "projector/multimodal.h"

typedef struct Perplexity {
    double nats;             /* sum of -log p */
    int64_t tokens;          /* that were predicted */
    int64_t texts, bytes;    /* that were added */
    int64_t windows, unseen; /* sequences; first tokens that were not predicted */
} Perplexity;

typedef struct PerplexityRun PerplexityRun;

/* For a prepared model with causal attention; other models are an error. Windows of several texts
 * are evaluated together, up to `batch_tokens` rows at a time (0: 4096). */
int perplexity_open(PerplexityRun **run, const Multimodal *model, int batch_tokens, Error *err);

/* Adds a text, `size` bytes of UTF-8. */
int perplexity_add(PerplexityRun *run, const char *text, size_t size, Error *err);

/* The sums over all texts that were added. */
int perplexity_sums(PerplexityRun *run, Perplexity *sums, Error *err);
void perplexity_close(PerplexityRun *run); /* NULL is allowed */

#endif
