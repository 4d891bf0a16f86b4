/* text.h - text for a terminal: made harmless, measured, and broken into lines.
 *
 * Whatever a model, a file's name or a question holds, nothing of it can move the cursor, change
 * colours or turn the direction of writing: all goes through clean_character (clean_text.h).
 *
 * Width is counted in columns, by grapheme clusters (UAX 29), which are never torn apart: the sum
 * of the widths of their characters (UAX 11, as wcwidth), but 2 for those that are one emoji
 * (joined by U+200D, with a skin colour, a flag, or with U+FE0F). Terminals do not agree on the
 * latter: they are marked, so that whoever draws can put the cursor where it has to be. Lines are
 * broken where UAX 14 allows it, and inside of words that are wider than the line.
 */
#ifndef EASYFIRST_APPS_SHOW_TEXT_H
#define EASYFIRST_APPS_SHOW_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* Text of which each byte has a style, a number that is the caller's. Zero-initialise; free with
 * styled_free. */
typedef struct StyledText {
    char *text; /* harmless UTF-8, not terminated */
    uint8_t *styles;
    size_t size, capacity;
} StyledText;

/* Appends `size` bytes, made harmless. */
int styled_append(StyledText *text, const char *bytes, size_t size, uint8_t style, Error *err);
void styled_clear(StyledText *text); /* keeps the memory */
void styled_free(StyledText *text);

/* A text made harmless, terminated; the caller's to free. NULL without memory. */
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

/* A text as lines; zero-initialise; free with layout_free. */
typedef struct Layout {
    Cluster *clusters;
    size_t cluster_count, cluster_room;
    Line *lines;
    size_t line_count, line_room;
    char *breaks; /* scratch: where lines, and behind them clusters, may begin */
    size_t break_room;
} Layout;

/* Breaks a text into lines of at most `columns` (1 at least). White space at a break is left out. A
 * cluster wider than the line is kept, alone in its line, with the line's width. There is one line
 * at least. What was in the layout before is gone. */
int layout_make(Layout *layout, const StyledText *text, int columns, Error *err);
void layout_free(Layout *layout);

/* Columns that a text takes, made harmless. */
int text_width(const char *text);

#endif
