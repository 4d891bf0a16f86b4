#include "apps/show/frame.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "apps/show/lines.h"

/* ---- Styles: what a byte belongs to, and how sure the model was of it. ---- */

typedef enum Kind { PLAIN, DIM, MASK, WRITTEN, NEW, ERASED, FIXED } Kind;
enum { LEVELS = 5, STYLE_NONE = 255 };

static uint8_t style_of(Kind kind, float score) {
    double p = exp(score);
    int level = p >= 0.8 ? 4 : p >= 0.6 ? 3 : p >= 0.4 ? 2 : p >= 0.2 ? 1 : 0;
    return (uint8_t)((int)kind | level << 3);
}

/* Colors from "not sure" to "sure", all with a contrast of at least 3:1 (WCAG) to white and to
 * black, so that they are readable on both. */
static const int colors256[LEVELS] = {160, 166, 136, 64, 28};
static const int colors8[LEVELS] = {31, 31, 33, 33, 32};

static int put(Frame *frame, const char *bytes, size_t size, Error *err) {
    if (frame->size + size > frame->capacity) {
        size_t capacity = 2 * (frame->size + size) + 256;
        char *more = realloc(frame->bytes, capacity);
        if (!more) return error_set(err, "out of memory for drawing");
        frame->bytes = more, frame->capacity = capacity;
    }
    memcpy(frame->bytes + frame->size, bytes, size);
    frame->size += size;
    return 0;
}

static int __attribute__((format(printf, 3, 4)))
putf(Frame *frame, Error *err, const char *format, ...) {
    char text[64];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return put(frame, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, err);
}

static int put_style(Frame *frame, uint8_t style, Error *err) {
    int level = style >> 3, color = frame->colors >= 256 ? colors256[level] : colors8[level];
    const char *set = frame->colors >= 256 ? ";38;5;" : ";";
    switch ((Kind)(style & 7)) {
    case PLAIN:
        return putf(frame, err, "\033[0m");
    case DIM:
    case MASK:
        return putf(frame, err, "\033[0;2m");
    case WRITTEN:
        return putf(frame, err, "\033[0%s%dm", set, color);
    case NEW:
        return putf(frame, err, "\033[0;1%s%dm", set, color);
    case ERASED:
        return putf(frame, err, "\033[0;2;9m");
    case FIXED:
        return putf(frame, err, "\033[0;4m");
    }
    return 0;
}

/* ---- Lines. ---- */

static int line_begin(Frame *frame, Error *err) {
    if (frame->count == frame->room) {
        size_t room = 2 * frame->room + 16;
        FrameLine *more = realloc(frame->lines, room * sizeof *more);
        if (!more) return error_set(err, "out of memory for drawing");
        frame->lines = more, frame->room = room;
    }
    frame->lines[frame->count++] = (FrameLine){.begin = frame->size};
    return 0;
}

static void line_end(Frame *frame, int width) {
    FrameLine *line = &frame->lines[frame->count - 1];
    line->size = frame->size - line->begin;
    line->width = width;
}

/* Draws a cluster whose first column is `at` (from 0) in `width` columns. Where terminals disagree
 * on its width, its columns are blanked first, and the cursor is placed after it. */
static int put_cluster(Frame *frame, const Cluster *c, int at, int width, Error *err) {
    const char *bytes = frame->text.text + c->begin;
    if (!width) return 0;
    if (c->width > width) return put(frame, "?", 1, err); /* the window is too narrow for it */
    if (!c->unsure) return put(frame, bytes, c->size, err);
    for (int i = 0; i < width; i++) TRY(put(frame, " ", 1, err));
    TRY(putf(frame, err, "\033[%dG", at + 1));
    if (c->lone) TRY(put(frame, "\xe2\x97\x8c", 3, err)); /* U+25CC */
    TRY(put(frame, bytes, c->size, err));
    return putf(frame, err, "\033[%dG", at + width + 1);
}

static int put_line(Frame *frame, const Line *line, int indent, Error *err) {
    int at = indent, columns = frame->columns - indent;
    uint8_t style = STYLE_NONE;
    bool changed = false;
    for (size_t i = line->first; i < line->first + line->count; i++) {
        const Cluster *c = &frame->layout.clusters[i];
        uint8_t wanted = frame->text.styles[c->begin];
        int width = c->width < columns ? c->width : columns;
        changed |= (wanted & 7) == NEW || (wanted & 7) == ERASED;
        if (wanted != style) TRY(put_style(frame, style = wanted, err));
        TRY(put_cluster(frame, c, at, width, err));
        at += width;
    }
    if (style != STYLE_NONE && (style & 7) != PLAIN) TRY(put_style(frame, PLAIN, err));
    line_end(frame, at);
    frame->lines[frame->count - 1].changed = changed;
    return 0;
}

/* frame->text as lines, the first one after an ASCII label if there is room for it. */
static int put_text(Frame *frame, const char *label, Error *err) {
    int indent = (int)strlen(label);
    if (frame->columns < indent + 12) indent = 0;
    TRY(layout_make(&frame->layout, &frame->text, frame->columns - indent, err));
    for (size_t i = 0; i < frame->layout.line_count; i++) {
        TRY(line_begin(frame, err));
        if (indent) TRY(putf(frame, err, "%*s", indent, i ? "" : label));
        TRY(put_line(frame, &frame->layout.lines[i], indent, err));
    }
    return 0;
}

/* ---- What a frame shows. ---- */

int frame_total(const Trace *trace) {
    int total = 0;
    for (int i = 0; i < trace->count; i++)
        if (trace->hypotheses[i].planned > total) total = trace->hypotheses[i].planned;
    return total;
}

bool frame_changes(const Trace *trace, int number) {
    for (int i = 0; i < trace->count; i++)
        if (number <= trace->hypotheses[i].steps &&
            trace_changes(&trace->hypotheses[i], number - 1))
            return true;
    return false;
}

/* The state of a hypothesis in a frame: NULL is all masks. */
static const TraceEntry *state_at(const TraceHypothesis *h, int number) {
    int step = number < h->steps ? number : h->steps;
    return step > 0 ? trace_entries(h, step - 1) : NULL;
}

static int add_mask(StyledText *text, bool first, Error *err) {
    if (!first) TRY(styled_append(text, " ", 1, PLAIN, err));
    return styled_append(text, SHOW_MASK, strlen(SHOW_MASK), MASK, err);
}

/* A hypothesis's text in a frame, into frame->text. */
static int add_cells(Frame *frame, const TraceHypothesis *h, int number, Error *err) {
    StyledText *text = &frame->text;
    const TraceEntry *now = state_at(h, number), *before = state_at(h, number - 1);
    styled_clear(text);
    for (int i = 0; i < h->length; i++) {
        if (trace_fixed(h, i)) { /* in the first frame, too */
            TRY(styled_piece(text, h->entries[i].piece, "", i == 0, FIXED, err));
            continue;
        }
        bool masked = !now || now[i].masked, was = before && !before[i].masked;
        bool changed = number <= h->steps && now && (!was || masked || now[i].id != before[i].id);
        if (was && changed) TRY(styled_piece(text, before[i].piece, "", i == 0, ERASED, err));
        if (masked && !(was && changed))
            TRY(add_mask(text, i == 0, err));
        else if (!masked)
            TRY(styled_piece(text, now[i].piece, "", i == 0 && !(was && changed),
                             style_of(changed ? NEW : WRITTEN, now[i].score), err));
    }
    return 0;
}

/* "step 12/50 ######...... 5/8", shortened to the width of the window. */
static int put_status(Frame *frame, const Trace *trace, int number, Error *err) {
    int filled = 0, all = 0, total = frame_total(trace);
    for (int i = 0; i < trace->count; i++) {
        const TraceHypothesis *h = &trace->hypotheses[i];
        const TraceEntry *now = state_at(h, number);
        filled += now ? trace_filled(h, now) : 0;
        all += trace_open_count(h);
    }
    char left[48], right[48];
    snprintf(left, sizeof left, "step %*d/%d ", snprintf(NULL, 0, "%d", total), number, total);
    snprintf(right, sizeof right, " %*d/%d", snprintf(NULL, 0, "%d", all), filled, all);
    int used = (int)(strlen(left) + strlen(right)), bar = frame->columns - used;
    if (bar > 30) bar = 30;
    const char *skip = bar < 0 ? left + 5 : left; /* without "step " */
    TRY(line_begin(frame, err));
    TRY(putf(frame, err, "%.*s", frame->columns, skip));
    int width = (int)strlen(skip);
    int full = all && bar >= 4 ? (int)((int64_t)bar * filled / all) : 0;
    if (bar >= 4) {
        for (int i = 0; i < bar; i++) {
            if (i == full) TRY(put_style(frame, DIM, err));
            TRY(put(frame, i < full ? "\xe2\x96\x88" : "\xe2\x96\x91", 3, err)); /* U+2588, 2591 */
        }
        width += bar;
        TRY(putf(frame, err, "\033[0m\033[%dG", width + 1)); /* some terminals draw these two
                                                                columns wide */
    }
    int room = frame->columns - width;
    if (room >= (int)strlen(right)) {
        TRY(put(frame, right, strlen(right), err));
        width += (int)strlen(right);
    }
    line_end(frame, width < frame->columns ? width : frame->columns);
    return 0;
}

/* The first hint is the longest. */
static int put_hint(Frame *frame, const char *hints, Error *err) {
    int size = (int)strcspn(hints, "\n"), width;
    char hint[128];
    for (;;) {
        snprintf(hint, sizeof hint, "%.*s", size, hints);
        width = text_width(hint);
        if (width <= frame->columns) break;
        if (!hints[size]) return 0;
        hints += size + 1, size = (int)strcspn(hints, "\n");
    }
    TRY(line_begin(frame, err));
    TRY(put_style(frame, DIM, err));
    TRY(put(frame, hint, strlen(hint), err));
    TRY(put_style(frame, PLAIN, err));
    line_end(frame, width);
    frame->hint = true;
    return 0;
}

static void frame_clear(Frame *frame) {
    frame->size = frame->count = 0;
    frame->hint = false;
}

int frame_make(Frame *frame, const Trace *trace, int number, const char *hints, int columns,
               int colors, Error *err) {
    frame_clear(frame);
    frame->columns = columns, frame->colors = colors;
    TRY(put_status(frame, trace, number, err));
    for (int i = 0; i < trace->count; i++) {
        char label[32] = "";
        if (trace->count > 1)
            snprintf(label, sizeof label, "%*d  ", snprintf(NULL, 0, "%d", trace->count), i + 1);
        TRY(add_cells(frame, &trace->hypotheses[i], number, err));
        TRY(put_text(frame, label, err));
    }
    return *hints ? put_hint(frame, hints, err) : 0;
}

static int put_whole(Frame *frame, const char *text, Error *err) {
    char *harmless = harmless_text(text);
    int status = harmless ? put(frame, harmless, strlen(harmless), err)
                          : error_set(err, "out of memory for the answer");
    free(harmless);
    line_end(frame, 0);
    return status;
}

int frame_make_end(Frame *frame, const Trace *trace, Error *err) {
    frame_clear(frame);
    for (int i = 0; i < trace->count && trace->count > 1; i++) {
        const TraceHypothesis *h = &trace->hypotheses[i];
        TRY(line_begin(frame, err));
        TRY(putf(frame, err, "%c %*d  %7.3f  ", i == trace->best ? '*' : ' ',
                 snprintf(NULL, 0, "%d", trace->count), i + 1, h->score));
        TRY(put_whole(frame, h->text, err));
    }
    TRY(line_begin(frame, err));
    return put_whole(frame, trace->hypotheses[trace->best].text, err);
}

void frame_free(Frame *frame) {
    free(frame->bytes), free(frame->lines);
    styled_free(&frame->text), layout_free(&frame->layout);
    *frame = (Frame){0};
}
