/* vocabulary.h - a smaller vocabulary for a model of one task (Ye et al., 2023: task-specific
 * models keep only the embedding rows of tokens seen in training).
 *
 * What is taken away are pieces of the SentencePiece model and, by the caller, rows of tables; the
 * text that is kept is read as before: the segmentation of a text is the path of the highest score
 * through all pieces that fit, and taking away pieces that are not on that path leaves it the
 * highest. For one thing more has to be cared: the library scores a character without a piece by
 * the lowest score of all pieces, less 10. So the piece of the lowest score stays, too; then a
 * character whose piece was taken away is always worse than it was, and no new path can win.
 */
#ifndef EASYFIRST_LANGUAGE_VOCABULARY_H
#define EASYFIRST_LANGUAGE_VOCABULARY_H

#include "language/tokenizer.h"

/* Which id became which. */
typedef struct VocabularyMap {
    int32_t *new_ids; /* [old_count], -1 for what is gone */
    int32_t *old_ids; /* [new_count], rising: the rows to keep, in order */
    int32_t old_count, new_count;
} VocabularyMap;

void vocabulary_map_free(VocabularyMap *map);

/* Marks the ids of a text (`size` bytes of UTF-8) in keep [tokenizer_size(tokenizer)]. */
int vocabulary_mark(const Tokenizer *tokenizer, const char *text, size_t size, bool *keep,
                    Error *err);

/* Writes the SentencePiece model file `model` to `out` with the marked pieces only: keep is indexed
 * by token id, [count], count == tokenizer_size. Special tokens, pieces that are no plain text
 * (control, user-defined, bytes) and the piece of the lowest score stay in any case, with
 * `characters` all pieces of a single character, too, so that any word can still be spelled. All
 * other fields are as they were, byte for byte, but for the number of pieces in the trainer's
 * settings and self tests, which need not hold any more and are left out.
 * *map is empty on failure. Errors: no such file, not a model, a wrong count, a failed write (the
 * file is then removed). */
int vocabulary_prune(const char *model, const char *out, const bool *keep, int32_t count,
                     bool characters, VocabularyMap *map, Error *err);

#endif
