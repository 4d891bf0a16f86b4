/* answer_text.h - the tokens of a given answer's text: in training, of choices, of texts whose
 * likelihood is asked for, and at the beginning of a template.
 *
 * Prompt and answer are encoded separately. Byte-level BPE has a space within the token of the word
 * after it, so that the first word of an answer by itself would have the tokens of the rest of a
 * word. To encoders with such a tokenizer (RoBERTa, ModernBERT) an answer therefore is after a space,
 * unless there is no prompt or it ends in white space; what is decoded loses the space again.
 * Models of LLaMA's kind read a prompt and its continuation as they are.
 */
#ifndef EASYFIRST_PROJECTOR_ANSWER_TEXT_H
#define EASYFIRST_PROJECTOR_ANSWER_TEXT_H

#include "language/language.h"
#include "language/tokenizer.h"
#include "projector/multimodal.h"

/* Whether an answer is after a space; `prompt` may be NULL for none. */
bool answer_after_space(const LanguageModel *model, const Tokenizer *tokenizer, const char *prompt);

/* Appends the ids of text [size], with a space before it if `spaced` and it begins with none; an
 * empty text has none. */
int answer_text_encode(const Tokenizer *tokenizer, bool spaced, const char *text, size_t size,
                       Ids *ids, Error *err);

/* The length of an answer that is `target`, after `prompt`: its tokens, at least 1, and for masked
 * diffusion of LLaMA's kind the end-of-text token, which is part of the canvas there (an encoder's
 * </s> is after it, and an autoregressive model ends by itself); an encoder's at least
 * pad_answers. */
int answer_target_length(const Multimodal *model, const char *prompt, const char *target,
                         int *length, Error *err);

/* Fills ids[begin, ids->count), an answer's, up to the model's pad_answers with end-of-text tokens,
 * as in training: of an encoder, that was trained with them. */
int answer_pad(const Multimodal *model, Ids *ids, size_t begin, Error *err);

#endif
