/* turns.h - the earlier turns of a conversation before a question: one prompt, for training
 * (examples.h) and for answers (requests.h) alike.
 *
 * The prompt is the text "question answer question answer ... question", joined by spaces and
 * tokenized as one, of as many complete last turns as fit.
 */
#ifndef EASYFIRST_PROJECTOR_TURNS_H
#define EASYFIRST_PROJECTOR_TURNS_H

#include "data/sets/records.h"
#include "language/tokenizer.h"

/* A larger text is not a sample but a whole file: it is not split into tokens. */
enum { TURNS_BYTES = 1 << 20 };

/* Texts joined by spaces. Zero-initialize; reusable. */
typedef struct JoinedText {
    char *text; /* terminated; NULL before anything was joined */
    size_t size, capacity;
} JoinedText;

/* The turns [first, end), each its prompt and its response, and then `last`. */
int turns_join(JoinedText *joined, const RecordTurn *turns, int first, int end, const char *last,
               Error *err);
void joined_text_free(JoinedText *joined);

/* ids[before ..] are those of the question. As many complete turns as fit into `room` tokens with
 * it go before it: sizes[i] is the number of tokens of turn i, -1 for one that cannot be used,
 * which ends the context. *first (may be NULL) is the first of the turns that were kept; `count`:
 * none. */
int turns_encode(JoinedText *joined, const Tokenizer *tokenizer, const RecordTurn *turns,
                 const int *sizes, int count, const char *question, int room, Ids *ids,
                 size_t before, int *first, Error *err);

/* Appends the ids of a prompt in a chat template whose image comes after `lead`, with which the
 * prompt begins: those of the rest, which begin with a line break, as LLaVA's. */
int prompt_after_image(const Tokenizer *tokenizer, const char *lead, const char *prompt, Ids *ids,
                       Error *err);

#endif
