/* token_xlmr.h - XLM-R's tokenizer from sentencepiece.bpe.model.
 *
 * The pieces are segmented by the sentencepiece library; the ids are fairseq's, as in every XLM-R
 * checkpoint:
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
#ifndef EASYFIRST_LANGUAGE_TOKEN_XLMR_H
#define EASYFIRST_LANGUAGE_TOKEN_XLMR_H

#include "language/tokenizer.h"

typedef struct TokenXlmr TokenXlmr;

/* Opens a SentencePiece model file. Errors: missing, not a model, malformed, or a model whose first
 * pieces are not XLM-R's. */
int token_xlmr_open(TokenXlmr **tokenizer, const char *path, Error *err);
void token_xlmr_close(TokenXlmr *tokenizer);

int32_t token_xlmr_mask_id(const TokenXlmr *tokenizer); /* the highest id that has a piece */
const char *token_xlmr_piece(const TokenXlmr *tokenizer, int32_t id);

/* Appends the ids of a text of valid UTF-8. */
int token_xlmr_encode(const TokenXlmr *tokenizer, const char *text, size_t size, Ids *out,
                      Error *err);

/* The text of ids, each at most the mask's; white space at its ends stays. */
int token_xlmr_decode(const TokenXlmr *tokenizer, const int32_t *ids, size_t count, char **text,
                      size_t *length, Error *err);

/* The length of `text` without the white space at its end (tokenizer.c). */
size_t tokenizer_strip_right(const char *text, size_t size);

#endif
