/* sentencepiece.h - a C interface to the sentencepiece library (C++).
 *
 * It handles pieces, not token ids or special tokens: the mapping to XLM-R's ids is in tokenizer.h.
 * The library trusts its model files: it looks characters up in a table of the file without bounds
 * checks, and a malformed file can crash it while it encodes. So our own bounds-checked code
 * validates a file first (sentencepiece_check.c). No function throws, prints or exits.
 */
#ifndef EASYFIRST_LANGUAGE_SENTENCEPIECE_H
#define EASYFIRST_LANGUAGE_SENTENCEPIECE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" { /* error.h is C, too */
#endif

#include "kernels/error.h"

typedef struct SentencePiece SentencePiece;

/* Maximum bytes for sentencepiece_encode: the library counts in int, and its normalizer can expand
 * a character to 18. */
enum { SENTENCEPIECE_LONGEST_TEXT = 1 << 26 };

/* Opens a Unigram model file. *model is NULL on failure. Read-only once open: several threads may
 * use it. Errors: no such file, empty, not a model, truncated or malformed. */
int sentencepiece_open(SentencePiece **model, const char *path, Error *err);
void sentencepiece_close(SentencePiece *model);

int32_t sentencepiece_count(const SentencePiece *model);

/* A piece as in the model, with U+2581 for a space; NULL outside 0..count-1. Owned by the model;
 * UTF-8 without NUL bytes. */
const char *sentencepiece_piece(const SentencePiece *model, int32_t piece);

/* Normalizes `size` bytes of UTF-8 (NUL bytes are text) and segments them. *pieces is owned by the
 * caller (free), NULL where *count is 0. Errors: a text longer than SENTENCEPIECE_LONGEST_TEXT. */
int sentencepiece_encode(const SentencePiece *model, const char *text, size_t size,
                         int32_t **pieces, size_t *count, Error *err);

/* Refuses a model file that might crash the library; `name` is the file's name for the message.
 * Checks the protobuf framing, the pieces (UTF-8, finite scores, no NUL), the model's type and the
 * normalizer's table. Removes the self tests from `bytes` and *size, since the library logs to
 * stderr while it runs them. */
int sentencepiece_check(char *bytes, size_t *size, const char *name, Error *err);

/* The length of the longest prefix of `text` that is valid UTF-8 (no overlong forms, no surrogates,
 * nothing above U+10FFFF): `size` if all of it is. */
size_t utf8_valid_prefix(const char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
