/* porter.h - Porter's stemmer (1980) with NLTK's extensions, which rouge-score uses. */
#ifndef EASYFIRST_DATA_METRICS_PORTER_H
#define EASYFIRST_DATA_METRICS_PORTER_H

#include <stddef.h>

/* Removes the suffixes of a word of a-z and 0-9, in place; returns the new length, which is never
 * more than the old one. No terminating 0 is read or written. */
size_t porter_stem(char *word, size_t size);

#endif
