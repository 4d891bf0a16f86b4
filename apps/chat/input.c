/* input.c - see input.h.
 *
 * While a line is edited the terminal sends no signals: Ctrl-C and Ctrl-Z arrive as characters
 * that are bound to functions, so that libedit never returns from the middle of a signal handler.
 */
#include "apps/chat/input.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/show/terminal.h"
#include "apps/show/text.h"
#include "data/files/path.h"
#include "language/sentencepiece.h"

#define PROMPT "> "

enum { HISTORY_LINES = 1000, LINE_BYTES = 1 << 20 };

struct ChatInput {
    bool typed;
    EditLine *editor; /* NULL: lines as they are */
    History *history; /* NULL: none */
    char *path;       /* of its file; NULL: it is not kept */
    bool interrupted, at_end;
    Lines lines;
};

/* ---- Signals. ---- */

static volatile sig_atomic_t resized, ended;

static void on_signal(int number) {
    if (number == SIGWINCH)
        resized = 1;
    else
        ended = number;
}

static const int watched[] = {SIGWINCH, SIGTERM, SIGHUP};
enum { WATCHED = sizeof watched / sizeof watched[0] };

/* Only while a line is edited; `before` takes the other handlers. */
static void signals_watch(struct sigaction before[WATCHED]) {
    const struct sigaction action = {.sa_handler = on_signal};
    for (int i = 0; i < WATCHED; i++) {
        sigaction(watched[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) sigaction(watched[i], &action, NULL);
    }
}

static void signals_restore(const struct sigaction before[WATCHED]) {
    for (int i = 0; i < WATCHED; i++) sigaction(watched[i], &before[i], NULL);
}

int chat_input_signal(const ChatInput *in) {
    return in && in->editor ? ended : 0;
}

/* ---- Editing. ---- */

static ChatInput *input_of(EditLine *editor) {
    void *input = NULL;
    el_get(editor, EL_CLIENTDATA, &input);
    return input;
}

static char *prompt_of(EditLine *editor) {
    static char prompt[] = PROMPT;
    (void)editor;
    return prompt;
}

/* Draws the line again in a window of another width, from where the terminal has rewrapped its begin
 * to. */
static void redraw(EditLine *editor) {
    const LineInfo *line = el_line(editor);
    char before[LINES_KEPT];
    int columns, rows, size = (int)(line->cursor - line->buffer);
    snprintf(before, sizeof before, PROMPT "%.*s", size, line->buffer);
    terminal_size(&columns, &rows);
    const int up = text_width(before) / columns;
    if (up) printf("\033[%dA", up);
    fputs("\r\033[J", stdout);
    fflush(stdout);
    resized = 0;
    el_resize(editor);
    el_set(editor, EL_REFRESH);
}

/* A byte; 0: no more will come. */
static int read_byte(EditLine *editor, unsigned char *byte) {
    for (;;) {
        ssize_t n = read(STDIN_FILENO, byte, 1);
        if (n >= 0 || errno != EINTR || ended) return n == 1;
        if (resized) redraw(editor);
    }
}

/* libedit's source of characters: UTF-8 whatever the locale; U+FFFD for what is not valid. */
static int read_character(EditLine *editor, wchar_t *out) {
    unsigned char byte;
    if (!read_byte(editor, &byte)) return 0;
    int more = byte < 0x80   ? 0
               : byte < 0xC2 ? -1
               : byte < 0xE0 ? 1
               : byte < 0xF0 ? 2
               : byte < 0xF5 ? 3
                             : -1;
    *out = more < 0 ? 0xFFFD : more ? byte & (0x3F >> more) : byte;
    for (; more > 0; more--) {
        if (!read_byte(editor, &byte)) return 0;
        if ((byte & 0xC0) != 0x80) {
            *out = 0xFFFD;
            break;
        }
        *out = *out << 6 | (byte & 0x3F);
    }
    return 1;
}

static unsigned char on_interrupt(EditLine *editor, int character) {
    (void)character;
    input_of(editor)->interrupted = true;
    return CC_NEWLINE;
}

static unsigned char on_suspend(EditLine *editor, int character) {
    (void)character;
    el_set(editor, EL_PREP_TERM, 0);
    kill(0, SIGTSTP); /* all of the job, as the terminal would */
    el_set(editor, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
}

static int editor_open(ChatInput *in, Error *err) {
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8")) setlocale(LC_CTYPE, "C.UTF-8");
    in->editor = el_init("easyfirst", stdin, stdout, stderr);
    if (!in->editor) return error_set(err, "out of memory for editing lines");
    el_set(in->editor, EL_CLIENTDATA, in);
    el_set(in->editor, EL_SIGNAL, 0);
    el_set(in->editor, EL_EDITOR, "emacs");
    el_set(in->editor, EL_PROMPT, prompt_of);
    el_set(in->editor, EL_GETCFN, read_character);
    el_set(in->editor, EL_SETTY, "-d", "-isig", NULL);
    el_set(in->editor, EL_ADDFN, "easyfirst-interrupt", "drop the line", on_interrupt);
    el_set(in->editor, EL_ADDFN, "easyfirst-suspend", "stop the program", on_suspend);
    el_set(in->editor, EL_BIND, "^C", "easyfirst-interrupt", NULL);
    el_set(in->editor, EL_BIND, "^Z", "easyfirst-suspend", NULL);
    el_set(in->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return 0;
}

/* ---- History. ---- */

/* Makes the folder of a path, and those above it, for the user alone. */
static int make_folders(char *path) {
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        int failed = mkdir(path, 0700) && errno != EEXIST;
        *p = '/';
        if (failed) return -1;
    }
    return 0;
}

/* NULL with a message in *note, or without one where there is no such place. */
static char *history_path(Error *note) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && state[0] == '/') return path_format(note, "%s/easyfirst/chat_history", state);
    if (!home || home[0] != '/') return NULL;
    return path_format(note, "%s/.local/state/easyfirst/chat_history", home);
}

static void history_give_up(ChatInput *in) {
    free(in->path);
    in->path = NULL;
}

static void history_open(ChatInput *in, Error *note) {
    HistEvent event;
    in->history = history_init();
    if (!in->history) return;
    history(in->history, &event, H_SETSIZE, HISTORY_LINES);
    history(in->history, &event, H_SETUNIQUE, 1);
    el_set(in->editor, EL_HIST, history, in->history);
    if (!(in->path = history_path(note))) return;
    if (access(in->path, F_OK) == 0 && history(in->history, &event, H_LOAD, in->path) < 0)
        error_write(note, "%s: not a history that can be read; nothing is added to it", in->path);
    else if (make_folders(in->path))
        error_write(note, "%s: %s; no history is kept", in->path, strerror(errno));
    if (note->text[0]) history_give_up(in);
}

/* Keeps the history as it is now, for the user alone: a complete file is put in place of the old
 * one. */
static void history_save(ChatInput *in) {
    HistEvent event;
    Error err;
    if (!in->path) return;
    char *temporary = path_format(&err, "%s.%ld", in->path, (long)getpid());
    if (!temporary) return;
    const mode_t before = umask(077);
    if (history(in->history, &event, H_SAVE, temporary) < 0 || rename(temporary, in->path))
        unlink(temporary);
    umask(before);
    free(temporary);
}

static void history_add(ChatInput *in, const char *line) {
    HistEvent event;
    if (!in->history || !line[strspn(line, " \t\r\n")]) return;
    history(in->history, &event, H_ENTER, line);
    history_save(in);
}

/* ---- Both. ---- */

/* Whether lines can be edited: standard input and output are a terminal that moves its cursor. */
static bool can_edit(void) {
    const char *term = getenv("TERM");
    return term && *term && strcmp(term, "dumb");
}

int chat_input_open(ChatInput **input, bool history, Error *note, Error *err) {
    ChatInput *in = calloc(1, sizeof *in);
    note->text[0] = 0;
    *input = in;
    if (!in) return error_set(err, "out of memory for reading lines");
    in->typed = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (!in->typed || !can_edit()) return lines_open(&in->lines, "-", LINE_BYTES, err);
    TRY(editor_open(in, err));
    if (history) history_open(in, note);
    return 0;
}

bool chat_input_typed(const ChatInput *in) {
    return in && in->typed;
}

static int line_edited(ChatInput *in, ChatEvent *event, char **line, size_t *size, Error *err) {
    struct sigaction before[WATCHED];
    int count = 0;
    in->interrupted = false;
    signals_watch(before);
    const char *text = el_gets(in->editor, &count);
    signals_restore(before);
    *event = in->interrupted                ? CHAT_INTERRUPTED
             : !text || count <= 0 || ended ? CHAT_END
                                            : CHAT_LINE;
    if (*event != CHAT_LINE) fputs(in->interrupted ? "^C\033[J\n" : "\n", stdout);
    if (*event != CHAT_LINE) return 0;
    *line = strdup(text);
    if (!*line) return error_set(err, "out of memory for a line");
    (*line)[strcspn(*line, "\r\n")] = 0;
    *size = strlen(*line);
    history_add(in, *line);
    return 0;
}

static int line_read(ChatInput *in, ChatEvent *event, char **line, size_t *size, Error *err) {
    if (in->typed) fputs(PROMPT, stdout), fflush(stdout);
    TRY(lines_next(&in->lines, line, size, err));
    *event = *line ? CHAT_LINE : CHAT_END;
    if (in->typed && !*line) fputs("\n", stdout);
    return 0;
}

int chat_input_next(ChatInput *in, ChatEvent *event, char **line, Error *why, Error *err) {
    size_t size = 0;
    *line = NULL, why->text[0] = 0;
    TRY(in->editor ? line_edited(in, event, line, &size, err)
                   : line_read(in, event, line, &size, err));
    if (*event != CHAT_LINE) return 0;
    size_t valid = size <= LINE_BYTES ? utf8_valid_prefix(*line, size) : size;
    if (size > LINE_BYTES)
        error_write(why, "a line of %zu bytes: at most %d are read", size, LINE_BYTES);
    else if (strlen(*line) != size)
        error_write(why, "a line with a NUL byte, at %zu: not a text", strlen(*line));
    else if (valid < size)
        error_write(why, "byte %zu of the line (0x%02X) is not valid UTF-8; convert it first",
                    valid, (unsigned char)(*line)[valid]);
    return 0;
}

void chat_input_close(ChatInput *in) {
    if (!in) return;
    if (in->editor) el_end(in->editor);
    if (in->history) history_end(in->history);
    lines_close(&in->lines);
    free(in->path);
    free(in);
}
