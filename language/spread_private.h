/* spread_private.h - a Spread, for the files that implement spread.h: the first rank's part and the
 * others' (spread_serve.c). */
#ifndef EASYFIRST_LANGUAGE_SPREAD_PRIVATE_H
#define EASYFIRST_LANGUAGE_SPREAD_PRIVATE_H

#include "language/spread.h"

/* What the first rank asks of the others. */
typedef enum SpreadCall {
    SPREAD_END,
    SPREAD_HELLO,
    SPREAD_FORWARD,
    SPREAD_PROPOSE,
    SPREAD_LOGITS,
    SPREAD_LOSSES,
    SPREAD_CACHE_OPEN,
    SPREAD_CACHE_CLOSE,
    SPREAD_CACHE_COPY
} SpreadCall;

/* A message: this, and then `bytes` of what the call has besides. */
typedef struct SpreadMessage {
    int64_t call, bytes;
    int64_t rows, spans;        /* of a batch; of features; of a cache */
    int64_t cache, cache_begin; /* a cache's number, 0: none */
    int64_t from, from_begin;   /* SPREAD_CACHE_COPY */
    VocabChoice choice;
} SpreadMessage;

struct Spread {
    Comm *comm;
    SpreadPart part;
    LanguageModel model;
    Device *device;
    BlocksHere here;
    int leader; /* the first rank of the group, among all */
    /* The first rank's: */
    int numbers; /* of caches, so far */
    bool failed; /* a message was not answered */
    /* The others': */
    Arena arena;
    KvCache *caches; /* [cache_count]; those of number 0 are closed */
    int cache_count;
    char *body; /* [body_size], what a message has besides */
    size_t body_size;
};

static inline int spread_rank(const Spread *s, int part) {
    return s->leader + part;
}

static inline int spread_last(const Spread *s) {
    return spread_rank(s, s->part.ranks - 1);
}

static inline const Block *spread_blocks(const LanguageModel *m) {
    return m->llama ? m->llama->blocks : m->xlmr->blocks;
}

/* What the next rank compares with what it has. */
SpreadMessage spread_greeting(const Spread *spread);

/* Space for `bytes` of a message's body. */
int spread_body(Spread *spread, size_t bytes, Error *err);

/* A message and the body, if any, to the next rank. */
int spread_tell(Spread *spread, const SpreadMessage *message, Error *err);

#endif
