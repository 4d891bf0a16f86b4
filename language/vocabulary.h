/* vocabulary.h - prunes the vocabulary for a model of one task (Ye et al., 2023: task-specific
 * models keep only the embedding rows of tokens seen in training).
 *
 * Pieces of the SentencePiece model are removed and, by the caller, rows of tables. Texts whose
 * pieces are kept are tokenized as before: the segmentation of a text is the path of the highest
 * score through all pieces that fit, and removing pieces that are not on that path leaves it the
 * highest. But the library scores a character without a piece by the lowest score of all pieces,
 * less 10. So the piece of the lowest score is kept, too; then a character whose piece was removed
 * always scores lower than before, and no new path can win.
 */
#ifndef EASYFIRST_LANGUAGE_VOCABULARY_H
#define EASYFIRST_LANGUAGE_VOCABULARY_H

#include "language/tokenizer.h"

/* Maps old ids to new ones and back. */
typedef struct VocabularyMap {
    int32_t *new_ids; /* [old_count], -1 for removed ids */
    int32_t *old_ids; /* [new_count], ascending: the rows to keep, in order */
    int32_t old_count, new_count;
} VocabularyMap;

void vocabulary_map_free(VocabularyMap *map);

/* Marks the ids of a text (`size` bytes of UTF-8) in keep [tokenizer_size(tokenizer)]. */
int vocabulary_mark(const Tokenizer *tokenizer, const char *text, size_t size, bool *keep,
                    Error *err);

/* Adds to counts [tokenizer_size(tokenizer)] how often each id occurs in a text. */
int vocabulary_count(const Tokenizer *tokenizer, const char *text, size_t size, int64_t *counts,
                     Error *err);

/* Writes the SentencePiece model file `model` to `out` with the marked pieces only: keep is indexed
 * by token id, [count], count == tokenizer_size. Special tokens, pieces that are not plain text
 * (control, user-defined, bytes) and the piece of the lowest score are always kept, with
 * `characters` also all pieces of a single character, so that any word can still be spelled. All
 * other fields are copied byte for byte, except the number of pieces in the trainer's settings, and
 * self tests, which may no longer hold and are dropped. *map is empty on failure. Errors: no such
 * file, not a model, a wrong count, a failed write (the file is then removed). */
int vocabulary_prune(const char *model, const char *out, const bool *keep, int32_t count,
                     bool characters, VocabularyMap *map, Error *err);

#endif
