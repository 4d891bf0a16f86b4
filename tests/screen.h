/* screen.h - the program run in a terminal that the test holds the other end of, and a small model
 * of what such a terminal shows. */
#ifndef EASYFIRST_TESTS_SCREEN_H
#define EASYFIRST_TESTS_SCREEN_H

#include <sys/types.h>
#include <termios.h>

#include "tests/test.h"

enum { SCREEN_COLUMNS = 200, SCREEN_ROWS = 60, SCREEN_CELL = 64 };

/* One screen, which knows what a drawing may use: text (wide, combining), CR, LF, moves up, down
 * and to a column, erasing to the end of the line or screen, colors, cursor and autowrap on and
 * off. Everything else fails the test, as does text beyond the right edge where lines may
 * not wrap. */
typedef struct Screen {
    int columns, rows, x, y;
    bool clips;                 /* what is beyond the edge is lost instead of failing the test */
    bool cursor, wrap, pending; /* pending: the last column is written, the next letter wraps */
    int scrolled, frames;       /* lines that went out at the top; frames that were drawn */
    char cells[SCREEN_ROWS][SCREEN_COLUMNS][SCREEN_CELL]; /* "" in the second half of wide ones */
    bool struck[SCREEN_ROWS][SCREEN_COLUMNS], dim[SCREEN_ROWS][SCREEN_COLUMNS];
    bool bold[SCREEN_ROWS][SCREEN_COLUMNS];
    bool strike_on, dim_on, bold_on;
    char sequence[64]; /* what of a character or escape sequence has come so far */
    size_t sequence_size;
} Screen;

void screen_clear(Screen *s, int columns, int rows);
void screen_feed(Screen *s, const char *bytes, size_t size);

/* A row without the blanks at its end; in a buffer that the next call overwrites. */
const char *screen_row(const Screen *s, int row);

/* Rows [first, last) one after the other, without any blanks. */
void screen_dense(const Screen *s, int first, int last, char *out, size_t size);

/* A program in a terminal. */
typedef struct Tty {
    pid_t child;
    int master,
        slave; /* the slave is held open, so that the terminal's settings can be looked at */
    struct termios before;
    Screen screen;
    char *bytes; /* all that came, terminated */
    size_t size, capacity;
    bool ended, stopped; /* stopped: once, by a signal; the test takes it back */
    int status;
} Tty;

/* Starts the built program with the arguments, in a terminal of that size. */
void tty_start(Tty *t, int columns, int rows, char *const *args);
void tty_keys(Tty *t, const char *keys);
void tty_resize(Tty *t, int columns, int rows);

/* Reads until the screen shows `text` somewhere, or (NULL) until the program has ended; fails after
 * a quarter of a minute. */
void tty_until(Tty *t, const char *text);

/* Reads until the cursor is hidden. */
void tty_until_hidden(Tty *t);

/* Reads until so many frames were drawn since the screen was cleared. */
void tty_until_frame(Tty *t, int number);

/* Reads until the program is stopped. */
void tty_until_stopped(Tty *t);

/* Waits for the end; the cursor and the terminal's settings must be as they were. */
void tty_end(Tty *t);
void tty_free(Tty *t);

#endif
