/* tokenizer.h - XLM-R's tokenizer: text to ids and back.
 *
 * The pieces come from a SentencePiece model file (sentencepiece.bpe.model), segmented by the
 * sentencepiece library; the ids are fairseq's, as in every XLM-R checkpoint:
 *   <s> 0, <pad> 1, </s> 2, <unk> 3, then piece p (p >= 3) is p + 1, and <mask> is pieces + 1.
 * Piece 0, the model's own <unk>, becomes 3. The word "<mask>" in a text is the mask token and takes
 * the space in front of it along; "<s>", "<pad>", "</s>" and "<unk>" in a text are those tokens.
 */
#ifndef EASYFIRST_LANGUAGE_TOKENIZER_H
#define EASYFIRST_LANGUAGE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum { TOKEN_BOS = 0, TOKEN_PAD = 1, TOKEN_EOS = 2, TOKEN_UNK = 3 };

typedef struct Tokenizer Tokenizer;

/* Opens a SentencePiece model file, or a folder that holds sentencepiece.bpe.model. *tokenizer is
 * NULL on failure. A tokenizer is read-only once open and may be used by several threads. */
int tokenizer_open(Tokenizer **tokenizer, const char *path, Error *err);
void tokenizer_close(Tokenizer *tokenizer);

int32_t tokenizer_mask_id(const Tokenizer *tokenizer); /* also the highest id that has a piece */
int32_t tokenizer_size(const Tokenizer *tokenizer);    /* number of ids: mask id + 1 */

/* A growable list of ids; zero-initialise, free with ids_free. */
typedef struct Ids {
    int32_t *ids;
    size_t count, capacity;
} Ids;
int ids_append(Ids *list, const int32_t *ids, size_t count, Error *err);
void ids_free(Ids *list);

/* Appends the ids of `text` (`size` bytes of UTF-8) to *out, without <s> and </s>. Errors: invalid
 * UTF-8, with the byte's position. */
int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                     Error *err);

/* The text of the ids: special tokens dropped, U+2581 becomes a space, the ends stripped. *text is
 * owned by the caller (free). An id that has no piece is an error. */
int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     Error *err);

/* The piece of one id as it stands in the model ("\u2581dog", "<mask>"), for traces; "" if none. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id);

#endif
