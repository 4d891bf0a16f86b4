#include "apps/show/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernels/clock.h"

/* State of the signal handlers. Each signal's number goes through a pipe to terminal_wait; 0 is
 * terminal_wake's. */
static int wake_pipe[2] = {-1, -1};

static const int caught[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1,
                             SIGUSR2, SIGXCPU, SIGXFSZ, SIGTSTP, SIGCONT, SIGWINCH};
enum { CAUGHT = sizeof caught / sizeof caught[0] };
static struct sigaction handled_before[CAUGHT];

static void catch_signal(int number) {
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t n = write(wake_pipe[1], &byte, 1); /* a full pipe wakes the reader anyway */
    (void)n;
    errno = saved;
}

void terminal_wake(void) {
    catch_signal(0);
}

/* Fatal ones: their handler itself restores the terminal, as nothing runs after it. */
static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { FATAL = sizeof fatal / sizeof fatal[0] };
static struct sigaction fatal_before[FATAL];

static const char hide_cursor[] = "\033[?25l", show_cursor[] = "\033[?25h";
static volatile sig_atomic_t is_taken, is_raw; /* the cursor is hidden; restore `cooked` */
static struct termios cooked;

static void catch_fatal(int number, siginfo_t *info, void *context) {
    static const char plain[] = "\033[0m\033[?7h\033[?25h\r\n";
    if (is_taken && write(STDOUT_FILENO, plain, sizeof plain - 1) < 0) is_taken = 0;
    if (is_raw) tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
    for (int i = 0; i < FATAL; i++) { /* the previous handler, or the end */
        if (fatal[i] != number) continue;
        sigaction(number, &fatal_before[i], NULL);
        if (fatal_before[i].sa_flags & SA_SIGINFO)
            fatal_before[i].sa_sigaction(number, info, context);
        else
            raise(number);
    }
}

static void handlers_set(void) {
    for (int i = 0; i < CAUGHT; i++) {
        struct sigaction action = {.sa_handler = catch_signal, .sa_flags = SA_RESTART};
        sigemptyset(&action.sa_mask);
        sigaction(caught[i], NULL, &handled_before[i]);
        /* Signals that a shell or nohup ignores stay ignored. */
        if (handled_before[i].sa_handler != SIG_IGN) sigaction(caught[i], &action, NULL);
    }
    for (int i = 0; i < FATAL; i++) {
        struct sigaction action = {.sa_sigaction = catch_fatal, .sa_flags = SA_SIGINFO};
        sigfillset(&action.sa_mask);
        sigaction(fatal[i], &action, &fatal_before[i]);
    }
}

static void handlers_restore(void) {
    for (int i = 0; i < CAUGHT; i++) sigaction(caught[i], &handled_before[i], NULL);
    for (int i = 0; i < FATAL; i++) sigaction(fatal[i], &fatal_before[i], NULL);
}

bool terminal_usable(void) {
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") &&
           !(no_color && *no_color);
}

void terminal_size(int *columns, int *rows) {
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    *columns = known && size.ws_col ? size.ws_col : 80;
    *rows = known && size.ws_row ? size.ws_row : 24;
}

void terminal_write(Terminal *terminal, const char *bytes, size_t size) {
    while (size && !terminal->lost) {
        ssize_t n = write(STDOUT_FILENO, bytes, size);
        if (n > 0) bytes += n, size -= (size_t)n;
        if (n > 0 || errno == EINTR) continue;
        struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
        if (errno != EAGAIN || poll(&out, 1, 1000) < 0) terminal->lost = true;
    }
}

/* ---- Taking and giving back. ---- */

static int colors_of_terminal(void) {
    static const char *const many[] = {"256color", "direct",  "kitty",  "alacritty",
                                       "foot",     "ghostty", "wezterm"};
    const char *term = getenv("TERM"), *colorterm = getenv("COLORTERM");
    if (colorterm && *colorterm) return 256;
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        if (strstr(term ? term : "", many[i])) return 256;
    return 8;
}

/* `save`: save the terminal's state to restore. */
static void take(Terminal *terminal, bool save) {
    /* In the background, changing the terminal would stop the program: no keys then. */
    terminal->keys = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() &&
                     (!save || tcgetattr(STDIN_FILENO, &terminal->before) == 0);
    if (terminal->keys) {
        struct termios raw = terminal->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* Ctrl-C and Ctrl-Z stay signals */
        raw.c_cc[VMIN] = 0, raw.c_cc[VTIME] = 0;
        cooked = terminal->before, is_raw = 1;
        terminal->keys = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    }
    is_taken = 1;
    terminal_write(terminal, hide_cursor, sizeof hide_cursor - 1);
}

static void give(Terminal *terminal) {
    terminal_write(terminal, show_cursor, sizeof show_cursor - 1);
    /* Keys pressed during playback must not reach the shell. */
    if (is_raw) tcsetattr(STDIN_FILENO, TCSAFLUSH, &cooked);
    is_taken = is_raw = 0;
}

int terminal_open(Terminal *terminal, Error *err) {
    *terminal = (Terminal){.colors = colors_of_terminal()};
    /* Opened once and never closed: another thread may still call terminal_wake. */
    if (wake_pipe[0] < 0 && pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK))
        return error_set(err, "cannot catch the terminal's signals: %s", strerror(errno));
    handlers_set(); /* first: from now on any signal restores the terminal */
    take(terminal, true);
    return 0;
}

void terminal_close(Terminal *terminal) {
    give(terminal);
    handlers_restore();
    unsigned char byte;
    while (read(wake_pipe[0], &byte, 1) == 1) /* signals that came too late to be events */
        if (byte && byte != SIGCONT && byte != SIGWINCH) raise(byte);
}

void terminal_yield(Terminal *terminal) {
    int number = terminal->signal;
    struct sigaction normal = {.sa_handler = SIG_DFL}, ours, resumed;
    sigemptyset(&normal.sa_mask);
    if (number != SIGCONT) { /* after an uncatchable stop there is nothing to restore */
        give(terminal);
        sigaction(SIGCONT, &normal, &resumed); /* continuing after our own stop is not an event */
        sigaction(number, &normal, &ours);
        raise(number); /* ends, or stops until SIGCONT */
        sigaction(number, &ours, NULL);
        sigaction(SIGCONT, &resumed, NULL);
    }
    terminal->pending_count = 0;
    take(terminal, number != SIGCONT);
}

/* ---- Keys. ---- */

typedef struct Key {
    const char *bytes;
    TerminalEvent event;
} Key;

static const Key keys[] = {
    {" ", TERMINAL_PLAY},         {"p", TERMINAL_BACK},         {"n", TERMINAL_FORWARD},
    {"h", TERMINAL_BACK},         {"l", TERMINAL_FORWARD},      {"q", TERMINAL_QUIT},
    {"Q", TERMINAL_QUIT},         {"\x04", TERMINAL_QUIT},      {"\033[C", TERMINAL_FORWARD},
    {"\033OC", TERMINAL_FORWARD}, {"\033[D", TERMINAL_BACK},    {"\033OD", TERMINAL_BACK},
    {"\033[B", TERMINAL_FORWARD}, {"\033OB", TERMINAL_FORWARD}, {"\033[A", TERMINAL_BACK},
    {"\033OA", TERMINAL_BACK},    {"\033[H", TERMINAL_HOME},    {"\033OH", TERMINAL_HOME},
    {"\033[1~", TERMINAL_HOME},   {"\033[7~", TERMINAL_HOME},   {"g", TERMINAL_HOME},
    {"\033[F", TERMINAL_END},     {"\033OF", TERMINAL_END},     {"\033[4~", TERMINAL_END},
    {"\033[8~", TERMINAL_END},    {"G", TERMINAL_END},
};

/* Size of the escape sequence of an unknown key (Page Up, for example) at the front: ESC, one byte
 * or an introducer, parameters, and a last byte. 0: it is incomplete. */
static size_t unknown_key(const unsigned char *bytes, size_t count) {
    if (bytes[0] != 033 || count == 1) return count > 1 || bytes[0] != 033;
    if (bytes[1] != '[' && bytes[1] != 'O') return 1;
    for (size_t i = 2; i < count; i++)
        if (bytes[i] >= 0x40 && bytes[i] <= 0x7E) return i + 1;
    return 0;
}

/* The next event in the bytes read; TERMINAL_NOTHING if there is none (yet). */
static TerminalEvent next_key(Terminal *t) {
    while (t->pending_count) {
        TerminalEvent event = TERMINAL_NOTHING;
        size_t size = 0;
        for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !size; i++) {
            size_t n = strlen(keys[i].bytes);
            if (n <= t->pending_count && !memcmp(t->pending, keys[i].bytes, n))
                event = keys[i].event, size = n;
        }
        if (!size) size = unknown_key(t->pending, t->pending_count);
        if (!size && t->pending_count == sizeof t->pending) size = t->pending_count;
        if (!size) break;
        t->pending_count -= size;
        memmove(t->pending, t->pending + size, t->pending_count);
        if (event != TERMINAL_NOTHING) return event;
    }
    return TERMINAL_NOTHING;
}

/* The next event from the pipe; signals that end or stop the program come first. */
static TerminalEvent next_signal(Terminal *t) {
    unsigned char byte;
    TerminalEvent event = TERMINAL_NOTHING;
    while (event != TERMINAL_SIGNAL && read(wake_pipe[0], &byte, 1) == 1) {
        if (byte == SIGWINCH)
            event = TERMINAL_RESIZED;
        else if (byte)
            event = TERMINAL_SIGNAL, t->signal = byte;
        else if (event == TERMINAL_NOTHING)
            event = TERMINAL_WOKEN;
    }
    return event;
}

TerminalEvent terminal_wait(Terminal *t, double seconds) {
    double until = clock_seconds() + seconds;
    for (;;) {
        TerminalEvent event = next_signal(t);
        if (event == TERMINAL_NOTHING) event = next_key(t);
        if (event != TERMINAL_NOTHING) return event;
        double left = until - clock_seconds();
        if (seconds >= 0 && left <= 0) return TERMINAL_NOTHING;
        struct pollfd from[2] = {{.fd = wake_pipe[0], .events = POLLIN},
                                 {.fd = t->keys ? STDIN_FILENO : -1, .events = POLLIN}};
        int wait = seconds < 0 ? -1 : left < 3600 ? (int)(1e3 * left) + 1 : 3600000;
        if (poll(from, 2, wait) <= 0 || !from[1].revents) continue;
        ssize_t n =
            read(STDIN_FILENO, t->pending + t->pending_count, sizeof t->pending - t->pending_count);
        if (n > 0) t->pending_count += (size_t)n;
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) t->keys = false; /* gone */
    }
}
