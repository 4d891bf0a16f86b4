/* pieces.h - the lines or paragraphs of a text file, one after another, in bounded memory. */
#ifndef EASYFIRST_DATA_SETS_PIECES_H
#define EASYFIRST_DATA_SETS_PIECES_H

#include "data/files/file_window.h"

/* A line or paragraph without the white space around it, and so without line ends. Empty ones are
 * skipped; paragraphs are separated by blank lines. */
typedef struct Piece {
    const char *text; /* in the window: valid until the next one; NULL at the file's end */
    size_t size;
    int64_t offset; /* in the file */
    int64_t line;   /* its first one, from 1 */
    bool too_long;  /* more than WINDOW_MOST bytes; `text` has only the last ones */
} Piece;

typedef struct Pieces {
    FileWindow *window; /* at the file's start */
    size_t at;          /* index of the next piece: at first the file's begin, or after its BOM */
    bool paragraphs;
    int64_t line; /* lines that have been read; 0 at first */
} Pieces;

int pieces_next(Pieces *pieces, Piece *piece, Error *err);

#endif
