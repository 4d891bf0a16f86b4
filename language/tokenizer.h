/* tokenizer.h - XLM-R's tokenizer: text to ids and back.
 *
 * The pieces come from a SentencePiece model file (sentencepiece.bpe.model), segmented by the
 * sentencepiece library; the ids are fairseq's, as in every XLM-R checkpoint:
 *   <s> 0, <pad> 1, </s> 2, <unk> 3, then piece p (p >= 3) is p + 1, and <mask> is pieces + 1.
 * Piece 0, the model's own <unk>, becomes 3. XL and XXL have rows for ids beyond <mask>, too: these
 * have no piece and are never produced.
 *
 * Special tokens in a text. "<mask>", "<s>", "<pad>", "</s>" and "<unk>" are those tokens anywhere,
 * also inside a word ("a<mask>b"). "<mask>" absorbs all white space before it. The text between two
 * of them is segmented on its own, as if it were the whole text: it begins a new word (U+2581), and
 * white space at its ends is dropped, so that "a<mask>b" and "a <mask> b" give the same ids. This
 * is the behavior of transformers' XLMRobertaTokenizer up to version 4, which calls sentencepiece
 * as the original work did; the tests compare with it. XLMRobertaTokenizerFast, a reimplementation,
 * sometimes differs from both: it leaves a lone U+2581 after more than one space before <mask>,
 * finds special tokens in full-width letters too, composes fewer letters with combining marks, and
 * breaks ties between segmentations differently.
 *
 * Texts over 64 KiB are segmented in chunks, split at a space, so that memory stays small; the ids
 * are those of the whole (for millions of words even better: the library sums scores in single
 * precision). A text without a space for 1 MiB is split between two characters.
 *
 * White space is what Python's str.strip removes: in addition to ASCII's, U+001C..1F, U+0085,
 * U+00A0, U+1680, U+2000..200A, U+2028, U+2029, U+202F, U+205F and U+3000.
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
 * NULL on failure. A tokenizer is read-only once open and may be used by several threads. Errors:
 * missing, not a model, malformed, or a model whose first pieces are not XLM-R's. */
int tokenizer_open(Tokenizer **tokenizer, const char *path, Error *err);
void tokenizer_close(Tokenizer *tokenizer); /* NULL is allowed */

int32_t tokenizer_mask_id(const Tokenizer *tokenizer); /* also the highest id that has a piece */
int32_t tokenizer_size(const Tokenizer *tokenizer);    /* number of ids: mask id + 1 */

/* A growable list of ids; zero-initialize, free with ids_free. `ids` must not point into the list
 * itself. A failure (out of memory, an overflowing count) leaves the list unchanged. */
typedef struct Ids {
    int32_t *ids;
    size_t count, capacity;
} Ids;
int ids_append(Ids *list, const int32_t *ids, size_t count, Error *err);
void ids_free(Ids *list);

/* Appends the ids of `text` (`size` bytes of UTF-8, NUL bytes are text) to *out, without <s> and
 * </s> around it. A text that is empty or all white space gives no ids; newlines and tabs are
 * spaces. Errors: invalid UTF-8, with the byte's position (from 0); *out is then unchanged. */
int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                     Error *err);

/* The text of the ids: special tokens (including <unk>) are dropped, U+2581 becomes a space, white
 * space at the ends is stripped. *text is owned by the caller (free), NULL on failure. An id that
 * has no piece is an error. */
int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     Error *err);

/* The piece of one id as in the model ("\u2581dog", "<mask>"), for traces; "" if none. Owned by the
 * tokenizer. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id);

#endif
