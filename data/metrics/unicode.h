/* unicode.h - texts as code points, as Python sees them.
 *
 * The metrics of this folder are defined by Python programs, so what is white space, how bytes that
 * are no UTF-8 are read, and what lower case is, follow Python's str:
 * bytes.decode(errors="replace"), str.isspace, str.lower (libunistring, Unicode 14 in Debian 12, as
 * Python 3.11).
 */
#ifndef EASYFIRST_DATA_METRICS_UNICODE_H
#define EASYFIRST_DATA_METRICS_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* A text of code points; zero-initialise, and use again for the next text. */
typedef struct Codepoints {
    uint32_t *items;
    size_t count, capacity;
} Codepoints;

void codepoints_free(Codepoints *text);

/* Replaces the content by the text; bytes that are no UTF-8 become U+FFFD, one for each maximal
 * part of a sequence, as the Unicode standard recommends. */
int codepoints_decode(Codepoints *text, const char *utf8, Error *err);

/* The other way; the caller's to free. */
int codepoints_encode(const Codepoints *text, char **utf8, Error *err);

int codepoints_append(Codepoints *text, uint32_t c, Error *err);

/* Lower case in place, with what depends on neighbours (the final sigma) and what
 * grows (U+0130). */
int codepoints_lower(Codepoints *text, Error *err);

/* White space away at the end, or at both. */
void codepoints_strip_end(Codepoints *text);
void codepoints_strip(Codepoints *text);

bool codepoint_is_space(uint32_t c);       /* str.isspace */
bool codepoint_is_punctuation(uint32_t c); /* ASCII's 32: string.punctuation */

/* What is between white space: calls of codepoints_next_word, beginning with *end = 0, give the
 * words [*begin, *end) until the value is false. str.split(). */
bool codepoints_next_word(const Codepoints *text, size_t *begin, size_t *end);

#endif
