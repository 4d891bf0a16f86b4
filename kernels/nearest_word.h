/* nearest_word.h - "did you mean": the closest valid name to a misspelled one. */
#ifndef EASYFIRST_KERNELS_NEAREST_WORD_H
#define EASYFIRST_KERNELS_NEAREST_WORD_H

/* The word of `words` (NULL-terminated) with the smallest edit distance to `word`; NULL if none is
 * close: the distance may be a third of the length of `word`, or 2 if that is more. */
const char *nearest_word(const char *word, const char *const *words);

#endif
