#include "data/sets/pieces.h"

#include <string.h>

#include "data/files/text_space.h"

/* Indices into the window, which move when it does. */
typedef struct Place {
    size_t begin;  /* of the piece; bytes before it are no longer needed */
    size_t line;   /* of the current line */
    size_t end;    /* of the piece's last line with words */
    bool too_long; /* the line is too long, and its beginning was dropped */
} Place;

/* Reads on, dropping the bytes before the piece, or all of it if it is too long. */
static int read_on(FileWindow *window, Place *place, size_t *from, Error *err) {
    if (window->size - place->begin > WINDOW_MOST) {
        place->too_long = true;
        place->begin = place->line = place->end = *from = window->size;
    }
    size_t done = place->begin;
    TRY(window_more(window, done, err));
    place->begin = 0;
    place->line -= done;
    place->end -= place->end > done ? done : place->end;
    *from -= done;
    return 0;
}

/* The index of the '\n' at the line's end; the window's size if the file ends first. */
static int line_end(FileWindow *window, Place *place, size_t *end, Error *err) {
    for (size_t from = place->line;;) {
        const char *found =
            window->size > from ? memchr(window->bytes + from, '\n', window->size - from) : NULL;
        *end = found ? (size_t)(found - window->bytes) : window->size;
        if (found || window->end) return 0;
        from = window->size;
        TRY(read_on(window, place, &from, err));
    }
}

int pieces_next(Pieces *pieces, Piece *piece, Error *err) {
    FileWindow *w = pieces->window;
    Place place = {.begin = pieces->at, .line = pieces->at, .end = pieces->at};
    bool any = false;
    *piece = (Piece){0};
    for (;;) {
        size_t end;
        place.too_long = false;
        TRY(line_end(w, &place, &end, err));
        if (end == w->size && place.line == w->size) break; /* the file ends with the last '\n' */
        pieces->line++;
        size_t size = end - place.line;
        bool blank = !place.too_long && text_space_begin(w->bytes + place.line, size) == size;
        if (!blank && !any) {
            any = true;
            piece->line = pieces->line;
        }
        if (!blank) place.end = end;
        piece->too_long |= place.too_long;
        place.line = end < w->size ? end + 1 : end;
        if (any && (blank || !pieces->paragraphs)) break;
        if (!any) place.begin = place.line;
    }
    pieces->at = place.line;
    if (!any) return 0;
    const char *text = w->bytes + place.begin;
    size_t size = place.end - place.begin;
    size_t space = text_space_begin(text, size);
    piece->text = text + space;
    piece->size = size - space - text_space_end(text + space, size - space);
    piece->offset = w->offset + (int64_t)(place.begin + space);
    return 0;
}
