#include "apps/show/player.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/show/fold.h"
#include "apps/show/frame.h"
#include "apps/show/terminal.h"
#include "kernels/clock.h"

static const char hints_playing[] = "space pause  \xe2\x86\x90 \xe2\x86\x92 step  q quit\n"
                                    "space pause  q quit\nq quit";
static const char hints_paused[] =
    "paused  \xe2\x86\x90 \xe2\x86\x92 step  home end  space play  q quit\n"
    "paused  space play  q quit\nspace play\nq quit";
static const char hints_finishing[] = "finishing the answer  q quit without it\nfinishing  q quit";
static const char hints_kept[] = "finishing the answer\nfinishing";

/* Steps that change nothing are drawn only if there are at most this many. */
enum { IDLE_FRAMES = 200 };

typedef struct Player {
    const Trace *trace;
    Trace folded;   /* as of the last update */
    ShowLive *live; /* NULL: the trace is finished */
    ShowOptions options;
    Terminal *terminal; /* open; closed at the end */
    Frame frame;
    char *out; /* the output of the next write */
    size_t size, capacity;
    int current;   /* the frame on screen; -1: none yet */
    int drawn;     /* lines on the screen */
    size_t scroll; /* lines of text scrolled off above the window */
    bool paused, resized;
    bool enough; /* q: only print the answer */
    bool quit;   /* q again: not even that */
    double due;  /* when the next frame is due */
} Player;

/* ---- Drawing. ---- */

static int out_add(Player *p, const char *bytes, size_t size, Error *err) {
    if (p->size + size > p->capacity) {
        size_t capacity = 2 * (p->size + size) + 1024;
        char *more = realloc(p->out, capacity);
        if (!more) return error_set(err, "out of memory for drawing");
        p->out = more, p->capacity = capacity;
    }
    memcpy(p->out + p->size, bytes, size);
    p->size += size;
    return 0;
}

static int out_text(Player *p, const char *text, Error *err) {
    return out_add(p, text, strlen(text), err);
}

/* "ESC [ number letter"; nothing for 0. */
static int out_move(Player *p, int number, char letter, Error *err) {
    char text[32];
    if (number <= 0) return 0;
    snprintf(text, sizeof text, "\033[%d%c", number, letter);
    return out_text(p, text, err);
}

static void out_write(Player *p) {
    terminal_write(p->terminal, p->out, p->size);
    p->size = 0;
}

/* Scrolls the lines of text so that the changed ones are visible. */
static void choose_lines(Player *p, size_t text_lines, size_t room) {
    const FrameLine *lines = p->frame.lines + 1;
    size_t first = text_lines, last = 0;
    for (size_t i = 0; i < text_lines; i++) {
        if (!lines[i].changed) continue;
        if (first == text_lines) first = i;
        last = i;
    }
    if (text_lines <= room) {
        p->scroll = 0;
        return;
    }
    if (first < text_lines && last >= p->scroll + room) p->scroll = last - room + 1;
    if (first < p->scroll) p->scroll = first;
    if (p->scroll + room > text_lines) p->scroll = text_lines - room;
}

static int out_line(Player *p, size_t index, int columns, bool last, Error *err) {
    const FrameLine *line = &p->frame.lines[index];
    TRY(out_add(p, p->frame.bytes + line->begin, line->size, err));
    /* A full line leaves the cursor on its last column, which must not be erased. */
    if (line->width < columns) TRY(out_text(p, "\033[K", err));
    return last ? 0 : out_text(p, "\r\n", err);
}

/* The trace as shown. Called with the lock held, as steps may still be appended. */
static const Trace *shown(const Player *p) {
    return p->options.every_step ? p->trace : &p->folded;
}

static int steps_of(const Trace *trace) {
    int steps = trace->finished;
    for (int i = 0; i < trace->count; i++) steps += trace->hypotheses[i].steps;
    return steps;
}

/* Updates it. */
static int inspection(Player *p, Error *err) {
    const Trace *now = p->trace;
    if (p->options.every_step ||
        (p->folded.count == now->count && steps_of(&p->folded) == steps_of(now)))
        return 0;
    Trace folded;
    TRY(fold_make(&folded, now, err));
    fold_free(&p->folded);
    p->folded = folded;
    return 0;
}

static const char *hints_of(const Player *p) {
    if (!p->terminal->keys) return "";
    if (p->enough) return p->options.keep ? hints_kept : hints_finishing;
    return p->paused ? hints_paused : hints_playing;
}

/* Draws the current frame over the old one. `left`: for the last time, without hints. */
static int draw(Player *p, bool left, Error *err) {
    int columns, rows;
    terminal_size(&columns, &rows);
    TRY(inspection(p, err));
    TRY(frame_make(&p->frame, shown(p), p->current, left ? "" : hints_of(p), columns,
                   p->terminal->colors, err));
    /* In a window lower than the frame, hint and status are dropped first, then lines of text. */
    size_t count = p->frame.count, hint = p->frame.hint, status = rows > 1;
    size_t text = count - 1 - hint;
    if (hint && status + text + hint > (size_t)rows) hint = 0;
    size_t room = (size_t)rows - status - hint;
    choose_lines(p, text, room);
    size_t shown = text < room ? text : room, lines = status + shown + hint;
    TRY(out_text(p, "\033[?7l\r", err));
    if (p->resized) TRY(out_text(p, "\033[J", err));
    if (status) TRY(out_line(p, 0, columns, lines == 1, err));
    for (size_t i = 0; i < shown; i++)
        TRY(out_line(p, 1 + p->scroll + i, columns, status + i + 1 == lines, err));
    if (hint) TRY(out_line(p, count - 1, columns, true, err));
    int spare = p->resized ? 0 : p->drawn - (int)lines; /* old lines below */
    for (int i = 0; i < spare; i++) TRY(out_text(p, "\r\n\033[K", err));
    TRY(out_move(p, (int)lines - 1 + (spare > 0 ? spare : 0), 'A', err));
    TRY(out_text(p, "\r\033[?7h", err));
    out_write(p);
    p->drawn = (int)lines, p->resized = false;
    return 0;
}

/* Leaves the drawing and puts the cursor below it. */
static int leave(Player *p, Error *err) {
    if (p->current < 0) return 0;
    TRY(draw(p, true, err));
    TRY(out_move(p, p->drawn - 1, 'B', err));
    TRY(out_text(p, "\r\n", err));
    out_write(p);
    p->drawn = 0;
    return 0;
}

/* Replaces the drawing by the answer. */
static int draw_end(Player *p, Error *err) {
    TRY(frame_make_end(&p->frame, p->trace, err));
    TRY(out_text(p, "\r\033[J", err));
    for (size_t i = 0; i < p->frame.count; i++) {
        const FrameLine *line = &p->frame.lines[i];
        TRY(out_add(p, p->frame.bytes + line->begin, line->size, err));
        TRY(out_text(p, "\r\n", err));
    }
    out_write(p);
    p->drawn = 0;
    return 0;
}

/* ---- Playing. The trace grows meanwhile if it is live: its lock is held while it is looked at.
 * ----
 */

static void player_lock(Player *p) {
    if (p->live) pthread_mutex_lock(&p->live->lock);
}

static void player_unlock(Player *p) {
    if (p->live) pthread_mutex_unlock(&p->live->lock);
}

/* The last frame that can be shown, -1 for none yet. A frame is complete when all hypotheses have
 * made its step; all hypotheses are known once one has made its second step. */
static int available(const Player *p) {
    const Trace *t = p->trace;
    if (!p->live || p->live->finished) return frame_total(t);
    int least = frame_total(t), most = 0;
    for (int i = 0; i < t->count; i++) {
        const TraceHypothesis *h = &t->hypotheses[i];
        if (h->steps < h->planned && h->steps < least) least = h->steps;
        if (h->steps > most) most = h->steps;
    }
    return t->count >= p->live->expected || most > 1 ? least : -1;
}

/* Whether playback shows a frame: not each of very many that change nothing. */
static bool is_drawn(const Player *p, int number) {
    int64_t total = frame_total(p->trace);
    return number == 0 || number == total || total <= IDLE_FRAMES ||
           frame_changes(shown(p), number) ||
           number * IDLE_FRAMES / total != (number - 1) * IDLE_FRAMES / total;
}

static int show_frame(Player *p, int number, Error *err) {
    p->current = number;
    double pause = 1 / (double)p->options.speed;
    if (number > 0 && !frame_changes(shown(p), number)) pause /= 10;
    p->due = clock_seconds() + pause;
    return draw(p, false, err);
}

static int on_event(Player *p, TerminalEvent event, Error *err) {
    int last = available(p), to = p->current;
    if (event == TERMINAL_QUIT) p->quit = p->enough && !p->options.keep, p->enough = true;
    if (event == TERMINAL_SIGNAL) {
        if (p->terminal->signal == SIGCONT)
            p->drawn = 0; /* other output was written since: the cursor is below it */
        else
            TRY(leave(p, err));
        player_unlock(p); /* the network may continue while only this thread waits */
        terminal_yield(p->terminal);
        player_lock(p);
    }
    if (event == TERMINAL_RESIZED) p->resized = true;
    if (p->current < 0 || event == TERMINAL_WOKEN) return 0;
    if (p->enough) return p->live && !p->live->finished ? draw(p, false, err) : 0;
    if (event == TERMINAL_PLAY) p->paused = !p->paused;
    if (event >= TERMINAL_FORWARD && event <= TERMINAL_END) p->paused = true;
    if (event == TERMINAL_FORWARD) do
            to += to < last;
        while (to < last && !is_drawn(p, to));
    if (event == TERMINAL_BACK) do
            to -= to > 0;
        while (to > 0 && !is_drawn(p, to));
    if (event == TERMINAL_HOME) to = 0;
    if (event == TERMINAL_END) to = last;
    if (to != p->current) return show_frame(p, to, err);
    return draw(p, false, err);
}

/* One action at a time: a frame that is due, else an event. *done: nothing is left to do. Called
 * with the lock held. */
static int player_turn(Player *p, bool *done, Error *err) {
    TRY(inspection(p, err));
    int last = available(p);
    bool finished = !p->live || p->live->finished;
    bool more = p->current < last, ended = finished && p->current >= last;
    double left = p->due - clock_seconds();
    *done = p->quit || p->terminal->lost || (p->live && p->live->failed) || (p->enough && finished);
    if (*done) return 0;
    if (p->paused && !p->terminal->keys) p->paused = false; /* the user could not end it */
    bool starts = p->current < 0 && last >= 0;
    if (!p->enough && (starts || (!p->paused && more && left <= 0))) {
        int to = p->current + 1;
        while (to < last && !is_drawn(p, to)) to++;
        return show_frame(p, to, err);
    }
    if (!p->enough && !p->paused && ended && left <= 0) {
        *done = true;
        return 0;
    }
    bool wait = !p->enough && !p->paused && (more || ended);
    player_unlock(p);
    TerminalEvent event = terminal_wait(p->terminal, wait ? left : -1);
    player_lock(p);
    return event == TERMINAL_NOTHING ? 0 : on_event(p, event, err);
}

static int player_run(Player *p, Error *err) {
    bool done = false;
    int status = 0;
    p->current = -1, p->paused = p->options.step;
    player_lock(p);
    while (!done && status == 0) status = player_turn(p, &done, err);
    bool ended = p->trace->finished && (p->enough || p->current == frame_total(p->trace));
    if (status == 0) status = ended ? draw_end(p, err) : leave(p, err);
    player_unlock(p);
    terminal_close(p->terminal);
    frame_free(&p->frame);
    if (p->folded.hypotheses) fold_free(&p->folded);
    free(p->out);
    return status;
}

int show_play(const Trace *trace, const ShowOptions *options, bool *quit, Error *err) {
    Terminal terminal;
    TRY(terminal_open(&terminal, err));
    Player p = {.trace = trace, .options = *options, .terminal = &terminal};
    int status = player_run(&p, err);
    if (quit) *quit = p.enough;
    return status;
}

/* ---- Live. ---- */

static void *live_thread(void *user) {
    ShowLive *live = user;
    Player p = {
        .trace = live->trace, .live = live, .options = live->options, .terminal = &live->terminal};
    player_run(&p, &live->draw_error);
    pthread_mutex_lock(&live->lock);
    live->quit = p.enough;
    bool finished = live->finished || live->failed;
    pthread_mutex_unlock(&live->lock);
    /* The answer is no longer wanted. _exit, because the other thread still computes with what
     * atexit's functions would free. */
    if (p.quit && !finished) _exit(1);
    return NULL;
}

int show_live_begin(ShowLive *live, Trace *trace, const Tokenizer *tokenizer, int expected,
                    const ShowOptions *options, Error *err) {
    *live = (ShowLive){
        .trace = trace, .tokenizer = tokenizer, .options = *options, .expected = expected};
    fflush(stdout);
    TRY(terminal_open(&live->terminal, err));
    pthread_mutex_init(&live->lock, NULL);
    if (pthread_create(&live->thread, NULL, live_thread, live) == 0) return 0;
    pthread_mutex_destroy(&live->lock);
    terminal_close(&live->terminal);
    return error_set(err, "no thread for drawing: try --steps-only");
}

void show_live_step(void *user, const DecodeStep *step) {
    ShowLive *live = user;
    pthread_mutex_lock(&live->lock);
    if (!live->failed && trace_step(live->trace, live->tokenizer, step, &live->step_error))
        live->failed = true;
    pthread_mutex_unlock(&live->lock);
    terminal_wake();
}

int show_live_end(ShowLive *live, const Answers *answers, int index, Error *err) {
    pthread_mutex_lock(&live->lock);
    if (!answers) live->failed = true;
    if (!live->failed &&
        trace_finish(live->trace, answers, index, live->tokenizer, &live->step_error))
        live->failed = true;
    live->finished = !live->failed;
    pthread_mutex_unlock(&live->lock);
    terminal_wake();
    pthread_join(live->thread, NULL);
    pthread_mutex_destroy(&live->lock);
    const Error *wrong = live->step_error.text[0] ? &live->step_error : &live->draw_error;
    return wrong->text[0] ? error_set(err, "%s", wrong->text) : 0;
}
