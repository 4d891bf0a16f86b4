/* gqa_text.h - the forms in which GQA's scorers compare texts. */
#ifndef EASYFIRST_DATA_METRICS_GQA_TEXT_H
#define EASYFIRST_DATA_METRICS_GQA_TEXT_H

#include <stdbool.h>

/* What becomes of LLaVA's answer text in the official file, as in LLaVA's own conversion: all
 * periods at its end are dropped, and it is lower-cased. On the heap; NULL without memory. */
char *gqa_prediction_plain(const char *text);

/* The normal form that lmms-eval compares: lower case, without ASCII's punctuation; here without
 * white space at the ends, too. On the heap; NULL without memory. */
char *gqa_normal(const char *text);

/* Words as Python's str.split() counts them; -1 without memory. Of LLaVA's questions, whose last
 * line is the instruction, only what is before that line. */
int gqa_words(const char *text, bool instruction);

#endif
