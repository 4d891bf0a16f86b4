/* text.h - text for a terminal: cleaned, measured, and broken into lines.
 *
 * No text of a model, a file name or a question can move the cursor, change colors or the writing
 * direction: all goes through clean_character (clean_text.h).
 *
 * Width is counted in columns, by grapheme clusters (UAX 29), which are never split: the sum of the
 * widths of their characters (UAX 11, as wcwidth), but 2 for those that are one emoji (joined by
 * U+200D, with a skin tone, a flag, or with U+FE0F). Terminals disagree on the latter: they are
 * marked, so that the caller can place the cursor explicitly. Lines are broken where UAX 14 allows
 * it, and inside of words that are wider than the line.
 */
#ifndef EASYFIRST_APPS_SHOW_TEXT_H
#define EASYFIRST_APPS_SHOW_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* Text with a style, a number of the caller's choice, for each byte. Zero-initialize; free with
 * styled_free. */
typedef struct StyledText {
    char *text; /* cleaned UTF-8, not terminated */
    uint8_t *styles;
    size_t size, capacity;
} StyledText;

/* Appends `size` bytes, cleaned. */
int styled_append(StyledText *text, const char *bytes, size_t size, uint8_t style, Error *err);
void styled_clear(StyledText *text); /* keeps the memory */
void styled_free(StyledText *text);

/* A cleaned text, terminated; the caller's to free. NULL: out of memory. */
char *harmless_text(const char *text);

typedef struct Cluster {
    size_t begin, size; /* bytes of the text */
    uint8_t width;      /* columns; 0 for what shows nothing */
    bool unsure;        /* terminals may take more or fewer columns */
    bool space;
    bool lone;   /* a mark without a letter: to be drawn on U+25CC, which is in its width */
    bool breaks; /* a line may be broken in front of it */
} Cluster;

typedef struct Line {
    size_t first, count; /* clusters */
    int width;
} Line;

/* A text as lines; zero-initialize; free with layout_free. */
typedef struct Layout {
    Cluster *clusters;
    size_t cluster_count, cluster_room;
    Line *lines;
    size_t line_count, line_room;
    char *breaks; /* scratch: where lines, and after them clusters, may begin */
    size_t break_room;
} Layout;

/* Breaks a text into lines of at most `columns` (1 at least). White space at a break is left out. A
 * cluster wider than the line is kept, alone in its line, with the line's width. There is at least
 * one line. Replaces the layout's contents. */
int layout_make(Layout *layout, const StyledText *text, int columns, Error *err);
void layout_free(Layout *layout);

/* Columns that a text takes, cleaned. */
int text_width(const char *text);

#endif
