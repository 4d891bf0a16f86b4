/* tokenize.h - how BLEU cuts a line into words: sacrebleu's tokenisers.
 *
 *   13a    mteval-v13a's: four entities (&quot; &amp; &lt; &gt;) are undone, "<skipped>" goes, a
 *          line end after '-' joins and others are spaces; ASCII punctuation stands alone, periods
 *          and commas unless between digits, a dash after a digit.
 *   intl   mteval-v14's: every character of Unicode's categories P (unless between numbers: N) and
 *          S stands alone. The categories are those that the `regex` package has, by which
 *          sacrebleu finds them (unicode_newer.h).
 *   char   every character that is no white space.
 *   zh     Chinese characters (sacrebleu's own ranges) stand alone, the rest as in 13a without
 *          what is done to entities and line ends.
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

/* Tokenises in place, using `scratch` (its content is lost): afterwards the words are what is
 * between white space. White space at the line's end goes first, as sacrebleu does it. */
int tokenize_codepoints(Tokenize tokenize, Codepoints *text, Codepoints *scratch, Error *err);

/* A line's words, single spaces between them; the caller's to free. */
int tokenize_line(Tokenize tokenize, bool lowercase, const char *line, char **words, Error *err);

#endif
