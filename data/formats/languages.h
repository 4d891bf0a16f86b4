/* languages.h - the languages of texts, by CLD2, to keep those of some languages only. A build may lack
 * it.
 */
#ifndef EASYFIRST_DATA_FORMATS_LANGUAGES_H
#define EASYFIRST_DATA_FORMATS_LANGUAGES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/error.h"

/* Those that are kept. */
typedef struct Languages Languages;

/* `list` has codes with commas between them: "en,fr" are these alone, "not-de,not-fr" all but these. Errors:
 * a code that CLD2 does not know, both kinds, a build without it. *languages is NULL on failure. */
int languages_open(Languages **languages, const char *list, Error *err);
void languages_close(Languages *languages); /* NULL is allowed */

/* What is known of a record's texts; zero-initialize. */
typedef struct LanguageShares {
    double kept, other; /* bytes in the languages, and in others */
    char code[16];      /* the other language with the longest sentence */
    double longest;
} LanguageShares;

/* Adds a text, sentence by sentence; those that are too short to tell do not count. */
void languages_add(LanguageShares *shares, const Languages *languages, const char *text);

/* Whether over a fifth of what was recognized is in other languages. */
bool languages_exclude(const LanguageShares *shares);

#ifdef __cplusplus
}
#endif

#endif
