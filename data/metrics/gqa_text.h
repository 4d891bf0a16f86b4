/* gqa_text.h - text normalization of GQA's scorers. */
#ifndef EASYFIRST_DATA_METRICS_GQA_TEXT_H
#define EASYFIRST_DATA_METRICS_GQA_TEXT_H

#include <stdbool.h>

/* LLaVA's answer text as its conversion script writes it to the official file: without periods at
 * its end, in lower case. On the heap; NULL: out of memory. */
char *gqa_prediction_plain(const char *text);

/* The normal form that lmms-eval compares: lower case, without ASCII's punctuation; here without
 * white space at the ends, too. On the heap; NULL: out of memory. */
char *gqa_normal(const char *text);

/* Words as Python's str.split() counts them; -1: out of memory. With `instruction`, without the
 * last line (LLaVA's questions). */
int gqa_words(const char *text, bool instruction);

#endif
