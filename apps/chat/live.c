/* live.c - see live.h.
 *
 * The calling thread computes and draws; the other one waits for what the terminal sends. Between
 * drawings the cursor is at the upper left corner, where it remains when the window gets narrower.
 */
#include "apps/chat/live.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/show/lines.h"
#include "data/files/memory_stream.h"

enum { STYLE_PLAIN, STYLE_MASK };

/* ---- Drawing. ---- */

static void put_line(FILE *out, const Live *live, const Line *line) {
    int style = STYLE_PLAIN;
    for (size_t i = line->first; i < line->first + line->count; i++) {
        const Cluster *c = &live->layout.clusters[i];
        const int next = live->text.styles[c->begin];
        if (next != style) fputs(next == STYLE_MASK ? "\033[2m" : "\033[0m", out);
        style = next;
        if (c->lone) fputs("\xe2\x97\x8c", out);
        fwrite(live->text.text + c->begin, 1, c->size, out);
    }
    if (style != STYLE_PLAIN) fputs("\033[0m", out);
}

/* The lines as far as the window has room. Autowrap is off: a terminal that takes more columns for
 * a character than we do cuts the line. */
static void draw(Live *live) {
    int columns, rows;
    Error err;
    char *bytes;
    size_t size;
    terminal_size(&columns, &rows);
    if (layout_make(&live->layout, &live->text, columns, &err)) return;
    FILE *out = memory_stream_open(&bytes, &size);
    if (!out) return;
    int lines = (int)live->layout.line_count < rows ? (int)live->layout.line_count : rows;
    fputs("\033[?7l\r\033[J", out);
    for (int i = 0; i < lines; i++) {
        put_line(out, live, &live->layout.lines[i]);
        if (i + 1 < lines) fputs("\r\n", out);
    }
    if (lines > 1) fprintf(out, "\033[%dA", lines - 1);
    fputs("\r\033[?7h", out);
    if (fclose(out) == 0) terminal_write(&live->terminal, bytes, size);
    free(bytes);
    live->drawn = lines;
}

/* Puts the cursor below the drawing, which stays. */
static void leave(Live *live) {
    for (int i = 0; i < live->drawn; i++) terminal_write(&live->terminal, "\r\n", 2);
    live->drawn = 0;
}

static int take_step(Live *live, const ef_step *step, Error *err) {
    styled_clear(&live->text);
    for (int i = 0; i < step->length; i++) {
        const ef_token *token = &step->tokens[i];
        if (!token->masked) {
            TRY(styled_piece(&live->text, token->piece, "", i == 0, STYLE_PLAIN, err));
            continue;
        }
        if (i) TRY(styled_append(&live->text, " ", 1, STYLE_PLAIN, err));
        TRY(styled_append(&live->text, SHOW_MASK, strlen(SHOW_MASK), STYLE_MASK, err));
    }
    return 0;
}

void live_step(Live *live, const ef_step *step) {
    Error err; /* without memory for it a step is not drawn */
    if (step->hypothesis) return;
    pthread_mutex_lock(&live->lock);
    if (take_step(live, step, &err) == 0) draw(live);
    pthread_mutex_unlock(&live->lock);
}

/* ---- Events. ---- */

/* Ctrl-C cancels; what else ends or stops the program does so, with the terminal as it was. */
static void on_signal(Live *live) {
    if (live->terminal.signal == SIGINT) {
        ef_cancel(live->cancellation);
        return;
    }
    if (live->terminal.signal == SIGCONT)
        live->drawn = 0; /* others wrote meanwhile */
    else
        leave(live);
    terminal_yield(&live->terminal);
    draw(live);
}

static void *wait_for_events(void *user) {
    Live *live = user;
    bool done = false;
    while (!done) {
        TerminalEvent event = terminal_wait(&live->terminal, -1);
        pthread_mutex_lock(&live->lock);
        done = live->done || live->terminal.lost;
        if (event == TERMINAL_SIGNAL) on_signal(live);
        if (event == TERMINAL_RESIZED && live->drawn) draw(live);
        pthread_mutex_unlock(&live->lock);
    }
    return NULL;
}

int live_begin(Live *live, ef_cancellation *cancellation, Error *err) {
    *live = (Live){.cancellation = cancellation};
    fflush(stdout);
    TRY(terminal_open(&live->terminal, err));
    pthread_mutex_init(&live->lock, NULL);
    int failed = pthread_create(&live->thread, NULL, wait_for_events, live);
    if (!failed) return 0;
    terminal_close(&live->terminal);
    pthread_mutex_destroy(&live->lock);
    return error_set(err, "cannot start a thread: %s", strerror(failed));
}

void live_end(Live *live) {
    pthread_mutex_lock(&live->lock);
    live->done = true;
    pthread_mutex_unlock(&live->lock);
    terminal_wake();
    pthread_join(live->thread, NULL);
    if (live->drawn) terminal_write(&live->terminal, "\r\033[J", 4);
    terminal_close(&live->terminal);
    pthread_mutex_destroy(&live->lock);
    styled_free(&live->text);
    layout_free(&live->layout);
}
