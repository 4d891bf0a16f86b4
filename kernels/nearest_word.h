/* nearest_word.h - what somebody meant who wrote a name that does not exist. */
#ifndef EASYFIRST_KERNELS_NEAREST_WORD_H
#define EASYFIRST_KERNELS_NEAREST_WORD_H

/* The word of `words` (NULL-terminated) that `word` was most likely meant to be; NULL if none is
 * near: at most a third of its letters, and two at least, may be wrong. */
const char *nearest_word(const char *word, const char *const *words);

#endif
