#include "tests/screen.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>
#include <wchar.h>

/* ---- The screen. ---- */

static void blank(Screen *s, int row, int column) {
    strcpy(s->cells[row][column], " ");
    s->struck[row][column] = s->dim[row][column] = s->bold[row][column] = false;
}

void screen_clear(Screen *s, int columns, int rows) {
    assert_true(columns <= SCREEN_COLUMNS && rows <= SCREEN_ROWS);
    memset(s, 0, sizeof *s);
    s->columns = columns, s->rows = rows, s->cursor = s->wrap = true;
    for (int y = 0; y < SCREEN_ROWS; y++)
        for (int x = 0; x < SCREEN_COLUMNS; x++) blank(s, y, x);
}

static void line_feed(Screen *s) {
    if (s->y + 1 < s->rows) {
        s->y++;
        return;
    }
    for (int y = 0; y + 1 < s->rows; y++) {
        memcpy(s->cells[y], s->cells[y + 1], sizeof s->cells[y]);
        memcpy(s->struck[y], s->struck[y + 1], sizeof s->struck[y]);
        memcpy(s->dim[y], s->dim[y + 1], sizeof s->dim[y]);
        memcpy(s->bold[y], s->bold[y + 1], sizeof s->bold[y]);
    }
    for (int x = 0; x < s->columns; x++) blank(s, s->rows - 1, x);
    s->scrolled++;
}

/* Erases half of a wide character if the other half is overwritten. */
static void unpair(Screen *s, int x) {
    if (x > 0 && !s->cells[s->y][x][0]) blank(s, s->y, x - 1);
    if (x + 1 < s->columns && !s->cells[s->y][x + 1][0]) blank(s, s->y, x + 1);
}

static void letter(Screen *s, const char *bytes, size_t size, wchar_t c) {
    int width = wcwidth(c), x = s->x;
    if (width == 0 && (x || s->pending)) { /* combines with the previous character */
        int to = s->pending ? x : x - 1;
        if (!s->cells[s->y][to][0] && to) to--;
        if (strlen(s->cells[s->y][to]) + size < SCREEN_CELL) strcat(s->cells[s->y][to], bytes);
        return;
    }
    if (width < 0) fail_msg("U+%04X is not printable, but reached the terminal", (unsigned)c);
    if (!width) return;
    if (s->pending || x + width > s->columns) {
        if (!s->wrap && s->clips) return;
        if (!s->wrap) fail_msg("\"%s\" is beyond column %d", bytes, s->columns);
        s->x = x = 0, s->pending = false;
        line_feed(s);
    }
    for (int i = 0; i < width; i++) {
        unpair(s, x + i);
        snprintf(s->cells[s->y][x + i], SCREEN_CELL, "%s", i ? "" : bytes);
        s->struck[s->y][x + i] = s->strike_on, s->dim[s->y][x + i] = s->dim_on;
        s->bold[s->y][x + i] = s->bold_on;
    }
    s->x += width;
    if (s->x == s->columns) s->x--, s->pending = true;
}

static void colours(Screen *s, const char *numbers) {
    for (const char *p = numbers; *p != 'm' && *p;) {
        int n = (int)strtol(p, (char **)&p, 10);
        if (*p == ';') p++;
        if (n == 0) s->strike_on = s->dim_on = s->bold_on = false;
        if (n == 1) s->bold_on = true;
        if (n == 2) s->dim_on = true;
        if (n == 9) s->strike_on = true;
        if (n == 38) {
            assert_memory_equal(p, "5;", 2);
            assert_in_range(strtol(p + 2, (char **)&p, 10), 0, 255);
            if (*p == ';') p++;
        } else if (n > 9 && (n < 30 || n > 37)) {
            fail_msg("the colour %d is not expected", n);
        }
    }
}

/* "ESC [ numbers letter". */
static void control(Screen *s, const char *text) {
    char last = text[strlen(text) - 1];
    int n = atoi(text + 2) ? atoi(text + 2) : 1;
    s->pending = s->pending && strchr("mhlK", last);
    if (!strcmp(text, "\033[?25l") || !strcmp(text, "\033[?25h")) {
        s->cursor = last == 'h';
    } else if (!strcmp(text, "\033[?7l") || !strcmp(text, "\033[?7h")) {
        s->wrap = last == 'h';
        s->frames += s->wrap;
    } else if (last == 'm') {
        colours(s, text + 2);
    } else if (last == 'A') {
        s->y = s->y > n ? s->y - n : 0;
    } else if (last == 'B') {
        s->y = s->y + n < s->rows ? s->y + n : s->rows - 1;
    } else if (last == 'G') {
        s->x = n <= s->columns ? n - 1 : s->columns - 1;
        s->pending = n == s->columns + 1; /* there is none after the last column */
    } else if (!strcmp(text, "\033[K") || !strcmp(text, "\033[J")) {
        for (int x = s->x; x < s->columns; x++) blank(s, s->y, x);
        for (int y = s->y + 1; y < s->rows && last == 'J'; y++)
            for (int x = 0; x < s->columns; x++) blank(s, y, x);
    } else {
        fail_msg("ESC%s reached the terminal", text + 1);
    }
}

static void feed_byte(Screen *s, char byte) {
    char *text = s->sequence;
    if (s->sequence_size + 1 >= sizeof s->sequence) fail_msg("an endless sequence");
    text[s->sequence_size++] = byte, text[s->sequence_size] = 0;
    if (text[0] == '\033') {
        bool ended = s->sequence_size > 2 && byte >= 0x40 && byte <= 0x7E;
        if (s->sequence_size == 2 && byte != '[') fail_msg("ESC %c reached the terminal", byte);
        if (!ended) return;
        control(s, text);
    } else if (text[0] == '\r') {
        s->x = 0, s->pending = false;
    } else if (text[0] == '\n') {
        line_feed(s), s->pending = false;
    } else {
        wchar_t c;
        size_t n = mbrtowc(&c, text, s->sequence_size, &(mbstate_t){0});
        if (n == (size_t)-2) return;
        if (n == (size_t)-1 || !n)
            fail_msg("a byte 0x%02x that is not valid UTF-8", (unsigned char)byte);
        letter(s, text, s->sequence_size, c);
    }
    s->sequence_size = 0;
}

void screen_feed(Screen *s, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) feed_byte(s, bytes[i]);
}

const char *screen_row(const Screen *s, int row) {
    static char text[SCREEN_COLUMNS * SCREEN_CELL];
    size_t size = 0, end = 0;
    for (int x = 0; x < s->columns; x++) {
        size_t n = strlen(s->cells[row][x]);
        memcpy(text + size, s->cells[row][x], n);
        size += n;
        if (n && strcmp(s->cells[row][x], " ")) end = size;
    }
    text[end] = 0;
    return text;
}

void screen_dense(const Screen *s, int first, int last, char *out, size_t size) {
    size_t used = 0;
    for (int y = first; y < last; y++)
        for (const char *p = screen_row(s, y); *p && used + 1 < size; p++)
            if (*p != ' ') out[used++] = *p;
    out[used] = 0;
}

/* ---- The program. ---- */

void tty_start(Tty *t, int columns, int rows, char *const *args) {
    memset(t, 0, sizeof *t);
    if (!setlocale(LC_CTYPE, "C.UTF-8")) fail_msg("there is no locale C.UTF-8");
    screen_clear(&t->screen, columns, rows);
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    assert_int_equal(openpty(&t->master, &t->slave, NULL, NULL, &size), 0);
    assert_int_equal(tcgetattr(t->slave, &t->before), 0);
    assert_int_equal(fcntl(t->master, F_SETFD, FD_CLOEXEC), 0);
    const char *program = getenv("EASYFIRST");
    char *argv[64] = {(char *)(program && *program ? program : "build/easyfirst")};
    for (int i = 0; i < 62 && args[i]; i++) argv[i + 1] = args[i];
    t->child = fork();
    assert_true(t->child >= 0);
    if (t->child == 0) {
        /* As a shell starts a foreground program. Tests in the background may ignore Ctrl-C, and
         * ignored signals are inherited. */
        const int signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU};
        for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) signal(signals[i], SIG_DFL);
        if (login_tty(t->slave) == 0) execv(argv[0], argv);
        _exit(127);
    }
}

void tty_keys(Tty *t, const char *keys) {
    assert_int_equal(write(t->master, keys, strlen(keys)), strlen(keys));
}

void tty_resize(Tty *t, int columns, int rows) {
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    screen_clear(&t->screen, columns, rows);
    assert_int_equal(ioctl(t->master, TIOCSWINSZ, &size), 0);
}

/* Reads available output; false if the program has ended and nothing is left. */
static bool tty_read(Tty *t) {
    struct pollfd from = {.fd = t->master, .events = POLLIN};
    if (!t->ended && waitpid(t->child, &t->status, WNOHANG | WUNTRACED) == t->child) {
        t->stopped = WIFSTOPPED(t->status);
        t->ended = !t->stopped;
    }
    if (poll(&from, 1, t->ended ? 0 : 20) <= 0 || !(from.revents & POLLIN)) return !t->ended;
    if (t->size + 65536 > t->capacity) {
        t->capacity = 2 * t->capacity + 131072;
        t->bytes = realloc(t->bytes, t->capacity);
        assert_non_null(t->bytes);
    }
    ssize_t n = read(t->master, t->bytes + t->size, 65535);
    assert_true(n > 0);
    screen_feed(&t->screen, t->bytes + t->size, (size_t)n);
    t->size += (size_t)n, t->bytes[t->size] = 0;
    return true;
}

static bool screen_has(const Screen *s, const char *text) {
    for (int y = 0; y < s->rows; y++)
        if (strstr(screen_row(s, y), text)) return true;
    return false;
}

void tty_until(Tty *t, const char *text) {
    time_t start = time(NULL);
    while (!text || !screen_has(&t->screen, text)) {
        if (time(NULL) - start > 15) {
            kill(t->child, SIGKILL);
            for (int y = 0; y < t->screen.rows; y++)
                if (*screen_row(&t->screen, y))
                    print_message("%3d |%s|\n", y, screen_row(&t->screen, y));
            fail_msg("\"%s\" did not come", text ? text : "the end");
        }
        if (tty_read(t)) continue;
        if (!text || screen_has(&t->screen, text)) return;
        fail_msg("the program ended (%#x) without \"%s\"", (unsigned)t->status, text);
    }
}

void tty_until_hidden(Tty *t) {
    time_t start = time(NULL);
    while (t->screen.cursor) {
        if (!tty_read(t)) fail_msg("the program ended (%#x) with its cursor", (unsigned)t->status);
        if (time(NULL) - start > 15) fail_msg("the cursor was not hidden");
    }
}

void tty_until_frame(Tty *t, int number) {
    time_t start = time(NULL);
    while (t->screen.frames < number) {
        if (!tty_read(t))
            fail_msg("the program ended (%#x) before frame %d", (unsigned)t->status, number);
        if (time(NULL) - start > 15) fail_msg("frame %d did not come", number);
    }
}

void tty_until_stopped(Tty *t) {
    time_t start = time(NULL);
    while (!t->stopped && time(NULL) - start <= 15)
        if (!tty_read(t)) break;
    assert_true(t->stopped);
    while (tty_read(t) && time(NULL) - start <= 15) {
        struct pollfd from = {.fd = t->master, .events = POLLIN};
        if (poll(&from, 1, 0) <= 0) break;
    }
}

void tty_end(Tty *t) {
    struct termios after;
    tty_until(t, NULL);
    assert_true(t->screen.cursor && t->screen.wrap);
    assert_false(t->screen.strike_on || t->screen.dim_on || t->screen.bold_on);
    assert_int_equal(tcgetattr(t->slave, &after), 0);
    assert_true(after.c_lflag == t->before.c_lflag && after.c_iflag == t->before.c_iflag &&
                after.c_oflag == t->before.c_oflag);
    assert_memory_equal(after.c_cc, t->before.c_cc, sizeof after.c_cc);
}

void tty_free(Tty *t) {
    close(t->master), close(t->slave);
    free(t->bytes);
}
