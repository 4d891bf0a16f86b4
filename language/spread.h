/* spread.h - a language model that is spread over several ranks by layers (kernels/comm/comm.h), so
 * that one that no device can hold is evaluated.
 *
 *   first rank     embeddings, the first blocks, the last norm, the head's dense layer; all decoding
 *   others         the blocks that follow, and their keys and values
 *   last rank      also the vocabulary's matrix
 *
 * A forward pass goes from rank to rank and returns to the first: hidden states [T, D] f32 after each
 * one's blocks. Features of the rows that predict go to the last rank, and what was chosen, logits or
 * losses come back. So the first rank runs what it runs alone; the others answer its messages
 * (spread_serve), each of which goes down the line of ranks. Results are the same to the bit.
 *
 * One rank computes at a time: this is for memory, not for speed.
 */
#ifndef EASYFIRST_LANGUAGE_SPREAD_H
#define EASYFIRST_LANGUAGE_SPREAD_H

#include "kernels/comm/comm.h"
#include "language/language.h"

typedef struct Spread Spread;

/* Which of `ranks` parts of a model a rank has. */
typedef struct SpreadPart {
    int part, ranks;
    int first, end; /* its blocks */
} SpreadPart;

/* Divides the blocks so that the stored bytes of the parts are about equal, each with what else it
 * has: the vocabulary's matrix on the last, the token embeddings on the first (unless `mapped`: a
 * CPU reads them in the file) beside `first_bytes` of other parts of the model. */
int spread_part(SpreadPart *part, const LanguageModel *model, int number, int ranks, bool mapped,
                size_t first_bytes, Error *err);

/* Makes params_prepare leave out the parameters that other ranks have; before it. */
void spread_leave_out(Params *params, const LanguageModel *model, const SpreadPart *part);

/* The ranks of `comm` in groups of part->ranks, each of which has a whole model; this rank's is that
 * of its number. `model` is copied, its parts must stay. */
int spread_open(Spread **spread, Comm *comm, const SpreadPart *part, const LanguageModel *model,
                Device *device, Error *err);

/* On the first rank, when all have opened the model: the others see that theirs is the same. */
int spread_hello(Spread *spread, Error *err);

/* On the first rank, when it needs the model no more: spread_serve of the others returns. */
int spread_end(Spread *spread, Error *err);

/* On the others: answers the first rank's messages until spread_end. After a failure the other ranks
 * must be ended (comm_abort). */
int spread_serve(Spread *spread, Error *err);

void spread_close(Spread *spread); /* NULL is allowed */

int spread_first(const Spread *spread);
int spread_own(const Spread *spread); /* the number of this rank's blocks */
bool spread_leads(const Spread *spread);

/* ---- For language.c and kv_cache.c, on the first rank. ---- */

int spread_forward(Spread *spread, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                   const LayerHook *hook, Error *err);
int spread_propose(Spread *spread, int32_t *tokens, float *scores, Tensor features,
                   const VocabChoice *choice, Error *err);
int spread_logits(Spread *spread, float *logits, Tensor features, Error *err);
int spread_losses(Spread *spread, float *losses, Tensor features, const int32_t *targets,
                  Error *err);

int spread_cache_open(Spread *spread, KvCache *cache, Error *err);
void spread_cache_close(Spread *spread, const KvCache *cache);
int spread_cache_copy(Spread *spread, const KvCache *to, int64_t to_row, const KvCache *from,
                      int64_t from_row, int64_t count, Error *err);

#endif
