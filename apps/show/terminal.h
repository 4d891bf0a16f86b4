/* terminal.h - the user's terminal: its size, its keys, and restoring its state.
 *
 * While a Terminal is open the cursor is hidden, keys arrive one by one without being echoed, and
 * signals that end or stop the program arrive as events; on one, call terminal_yield, which
 * restores the terminal, lets the signal act, and takes the terminal again if the program
 * continues. A crash (SIGSEGV, SIGABRT, ...) restores it, too; SIGKILL and SIGSTOP cannot be
 * caught. One may be open at a time.
 */
#ifndef EASYFIRST_APPS_SHOW_TERMINAL_H
#define EASYFIRST_APPS_SHOW_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#include "kernels/error.h"

/* Whether there is one to draw on: standard output is a terminal, TERM is set and not "dumb", and
 * NO_COLOR is not set (no-color.org: to anything but the empty text). */
bool terminal_usable(void);

typedef enum TerminalEvent {
    TERMINAL_NOTHING, /* timeout */
    TERMINAL_WOKEN,   /* terminal_wake was called */
    TERMINAL_RESIZED, /* redraw everything */
    TERMINAL_SIGNAL,  /* `signal` arrived: terminal_yield */
    TERMINAL_PLAY,    /* space: play or pause */
    TERMINAL_FORWARD, /* right, down, n, l: and so on as the names say */
    TERMINAL_BACK,
    TERMINAL_HOME,
    TERMINAL_END,
    TERMINAL_QUIT, /* q, Ctrl-D */
} TerminalEvent;

typedef struct Terminal {
    bool keys; /* standard input is the same terminal, and the program in its foreground */
    int signal;
    int colors; /* 256, or 8 */
    bool lost;  /* a write failed: the terminal is gone */
    struct termios before;
    unsigned char pending[64]; /* bytes of keys, not yet decoded */
    size_t pending_count;
} Terminal;

/* Takes standard output's terminal. The caller closes it if this succeeded, once. */
int terminal_open(Terminal *terminal, Error *err);

/* Shows the cursor and restores keys and signals. */
void terminal_close(Terminal *terminal);

/* In characters; 80 x 24 where the terminal does not report it. */
void terminal_size(int *columns, int *rows);

/* Writes all bytes, in one write where the terminal accepts it. */
void terminal_write(Terminal *terminal, const char *bytes, size_t size);

/* The next event within `seconds`; less than 0: no timeout. */
TerminalEvent terminal_wait(Terminal *terminal, double seconds);

/* After TERMINAL_SIGNAL, with the cursor at the end of the drawing: ends the program by the signal,
 * or stops it until it is continued. Then everything must be redrawn. */
void terminal_yield(Terminal *terminal);

/* Makes terminal_wait return in the thread that waits; from any thread, or none. */
void terminal_wake(void);

#endif
