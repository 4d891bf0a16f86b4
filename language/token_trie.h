/* token_trie.h - a set of byte strings with a number each, for the longest and all prefixes of a
 * text: the vocabulary of Unigram and WordPiece, added tokens.
 *
 * A transition (node, byte) is an entry of one hash table, so that a step is one look-up however
 * many children a node has. Read-only once built. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_TRIE_H
#define EASYFIRST_LANGUAGE_TOKEN_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum { TRIE_NONE = -1 };

typedef struct TokenTrie {
    uint64_t *slots; /* (node << 8 | byte) + 1, and the child: node 0 is the root */
    uint32_t *children;
    size_t slot_count;
    int32_t *values; /* of each node, TRIE_NONE if no string ends there */
    uint32_t node_count, node_capacity;
} TokenTrie;

/* Adds a string that is not empty; the last value of a string counts. */
int token_trie_add(TokenTrie *trie, const char *bytes, size_t size, int32_t value, Error *err);
void token_trie_free(TokenTrie *trie);

/* The child of a node (0: the root), or 0 if there is none. */
uint32_t token_trie_step(const TokenTrie *trie, uint32_t node, unsigned char byte);

/* The value of the longest string that `bytes` begins with, and its size (0: none, TRIE_NONE). */
int32_t token_trie_longest(const TokenTrie *trie, const char *bytes, size_t size, size_t *length);

#endif
