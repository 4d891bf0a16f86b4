/* tokenize.h - sacrebleu's tokenizers for BLEU.
 *
 *   13a    mteval-v13a's: four entities (&quot; &amp; &lt; &gt;) are unescaped, "<skipped>" is
 *          removed, a line end after '-' joins and others are spaces; ASCII punctuation is
 *          separated, periods and commas unless between digits, a dash after a digit.
 *   intl   mteval-v14's: every character of Unicode's categories P (unless between numbers: N) and
 *          S is separated. The categories are those of the `regex` package, which sacrebleu uses
 *          (unicode_newer.h).
 *   char   every character that is not white space.
 *   zh     Chinese characters (sacrebleu's own ranges) are separated, the rest as in 13a without
 *          its changes to entities and line ends.
 *   none   words between white space.
 */
#ifndef EASYFIRST_DATA_METRICS_TOKENIZE_H
#define EASYFIRST_DATA_METRICS_TOKENIZE_H

#include "data/metrics/unicode.h"

typedef enum Tokenize {
    TOKENIZE_13A,
    TOKENIZE_INTL,
    TOKENIZE_NONE,
    TOKENIZE_CHAR,
    TOKENIZE_ZH,
    TOKENIZE_COUNT,
} Tokenize;

/* "13a", "intl", "none", "char", "zh": what a signature calls it. */
extern const char *const tokenize_names[];
const char *tokenize_name(Tokenize tokenize);
bool tokenize_find(const char *name, Tokenize *tokenize);

/* Tokenizes in place, using `scratch` (its content is lost): afterwards white space separates the
 * words. White space at the line's end is removed first, as in sacrebleu. */
int tokenize_codepoints(Tokenize tokenize, Codepoints *text, Codepoints *scratch, Error *err);

/* A line's words, single spaces between them; the caller's to free. */
int tokenize_line(Tokenize tokenize, bool lowercase, const char *line, char **words, Error *err);

#endif
