/* unicode.h - texts as code points, as Python sees them.
 *
 * The metrics of this folder are defined by Python programs, so white space, the decoding of
 * invalid UTF-8, and lower case follow Python's str: bytes.decode(errors="replace"), str.isspace,
 * str.lower (libunistring, Unicode 14 in Debian 12, as Python 3.11).
 */
#ifndef EASYFIRST_DATA_METRICS_UNICODE_H
#define EASYFIRST_DATA_METRICS_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* A text of code points; zero-initialize; may be reused for the next text. */
typedef struct Codepoints {
    uint32_t *items;
    size_t count, capacity;
} Codepoints;

void codepoints_free(Codepoints *text);

/* Replaces the content by the text; invalid UTF-8 becomes U+FFFD, one for each maximal subpart, as
 * the Unicode standard recommends. */
int codepoints_decode(Codepoints *text, const char *utf8, Error *err);

/* The reverse; the caller's to free. */
int codepoints_encode(const Codepoints *text, char **utf8, Error *err);

int codepoints_append(Codepoints *text, uint32_t c, Error *err);

/* Lower case in place, including context (the final sigma) and growth (U+0130). */
int codepoints_lower(Codepoints *text, Error *err);

/* Remove white space at the end, or at both ends. */
void codepoints_strip_end(Codepoints *text);
void codepoints_strip(Codepoints *text);

bool codepoint_is_space(uint32_t c);       /* str.isspace */
bool codepoint_is_punctuation(uint32_t c); /* ASCII's 32: string.punctuation */

/* Iterates over the words [*begin, *end) between white space, like str.split(): start with *end =
 * 0, call until it returns false. */
bool codepoints_next_word(const Codepoints *text, size_t *begin, size_t *end);

#endif
