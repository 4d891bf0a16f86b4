/* tokenizer.h - text to ids and back, for every kind of language model.
 *
 * A tokenizer is opened from the model's folder, or from one of its files:
 *   sentencepiece.bpe.model      XLM-R's, by the sentencepiece library (token_xlmr.h)
 *   tokenizer.json               transformers' fast tokenizers: byte-level BPE (GPT-2, LLaMA 3,
 *                                Qwen2), BPE with byte fallback (LLaMA 2), Unigram (XLM-R),
 *                                WordPiece (BERT) (token_pipeline.h)
 *   vocab.json and merges.txt    GPT-2's, RoBERTa's and Qwen2's (Dream) older files (token_merges.h)
 * The first of these that the folder has is used. What a file describes and is not supported is
 * refused by its name.
 *
 * Special tokens in a text ("<mask>", "<|im_end|>") are these tokens, also inside a word.
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

/* The ids of XLM-R and RoBERTa; other tokenizers have others: tokenizer_specials. */
enum { TOKEN_BOS = 0, TOKEN_PAD = 1, TOKEN_EOS = 2, TOKEN_UNK = 3 };

typedef struct Tokenizer Tokenizer;

/* The ids of tokens with a meaning of their own, -1 for those that a tokenizer lacks. */
typedef struct TokenizerSpecials {
    int32_t begin, end, pad, unknown, mask;
    int32_t turn_end; /* ends a turn of a conversation: <|eot_id|>, <|im_end|>; else as `end` */
} TokenizerSpecials;

/* Opens a tokenizer (see the head of this file). *tokenizer is NULL on failure. A tokenizer is
 * read-only once open and may be used by several threads. Errors: missing, damaged, or a kind that
 * is not supported. */
int tokenizer_open(Tokenizer **tokenizer, const char *path, Error *err);

/* The same with special ids that the caller knows; -1 where the files decide: tokenizer_config.json,
 * special_tokens_map.json and config.json in the folder, and, for the mask, the added tokens
 * "<|mdm_mask|>" (LLaDA), "<|mask|>" (Dream), "<mask>" and "[MASK]". XLM-R's are fixed. */
int tokenizer_open_as(Tokenizer **tokenizer, const char *path, const TokenizerSpecials *given,
                      Error *err);
void tokenizer_close(Tokenizer *tokenizer); /* NULL is allowed */

/* What it is: "sentencepiece", "byte-level BPE", "BPE with byte fallback", "BPE", "Unigram",
 * "WordPiece". */
const char *tokenizer_kind(const Tokenizer *tokenizer);

const TokenizerSpecials *tokenizer_specials(const Tokenizer *tokenizer);
int32_t tokenizer_mask_id(const Tokenizer *tokenizer); /* -1 if it has none */
int32_t tokenizer_size(const Tokenizer *tokenizer);    /* the highest id that has a piece, + 1 */

/* The id of a token as the file writes it ("<|eot_id|>", "\u2581dog"); -1 if there is none. */
int32_t tokenizer_find(const Tokenizer *tokenizer, const char *token);

/* The special tokens that the model expects before and after a text (<s> and </s> for XLM-R).
 * Owned by the tokenizer; the counts may be 0. */
typedef struct TokenizerFrame {
    const int32_t *before, *after;
    size_t before_count, after_count;
} TokenizerFrame;
TokenizerFrame tokenizer_frame(const Tokenizer *tokenizer);

/* A growable list of ids; zero-initialize, free with ids_free. `ids` must not point into the list
 * itself. A failure (out of memory, an overflowing count) leaves the list unchanged. */
typedef struct Ids {
    int32_t *ids;
    size_t count, capacity;
} Ids;
int ids_append(Ids *list, const int32_t *ids, size_t count, Error *err);
void ids_free(Ids *list);

/* Appends the ids of `text` (`size` bytes of UTF-8, NUL bytes are text) to *out, without the special
 * tokens around it. Errors: invalid UTF-8, with the byte's position (from 0); a character for which
 * the tokenizer has no token; *out is then unchanged.
 * XLM-R: a text that is empty or all white space gives no ids; newlines and tabs are spaces. */
int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                     Error *err);

/* The text of the ids: special tokens (including the unknown one) are dropped, white space at the
 * ends is stripped, bytes that are not UTF-8 become U+FFFD. *text is owned by the caller (free),
 * NULL on failure. An id that has no piece is an error. */
int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     Error *err);

/* The piece of one id for display, as in the file ("\u2581dog", "<mask>"); pieces of byte-level
 * tokenizers are shown as text, a space as U+2581 and what is not text as its bytes (<0x0A>). "" if
 * none. Owned by the tokenizer. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id);

#endif
