#include "apps/show/lines.h"

#include <stdlib.h>
#include <string.h>

int styled_piece(StyledText *text, const char *piece, const char *mark, bool first, uint8_t style,
                 Error *err) {
    static const char space[] = "\xe2\x96\x81";
    if (!strncmp(piece, space, 3)) {
        if (!first) TRY(styled_append(text, " ", 1, 0, err));
        piece += 3;
    }
    TRY(styled_append(text, mark, strlen(mark), style, err));
    while (*piece) {
        const char *next = strstr(piece, space);
        size_t n = next ? (size_t)(next - piece) : strlen(piece);
        TRY(styled_append(text, piece, n, style, err));
        if (next) TRY(styled_append(text, " ", 1, style, err));
        piece += n + (next ? 3 : 0);
    }
    return 0;
}

static int add_cells(StyledText *line, const TraceHypothesis *h, const TraceEntry *now,
                     const TraceEntry *before, Error *err) {
    bool open = false; /* a [ is */
    for (int i = 0; i < h->length; i++) {
        bool written =
            !now[i].masked && !trace_fixed(h, i) && (!before || now[i].id != before[i].id);
        if (open && !written) TRY(styled_append(line, "]", 1, 0, err));
        if (open && !written) open = false;
        if (now[i].masked && i) TRY(styled_append(line, " ", 1, 0, err));
        if (now[i].masked)
            TRY(styled_append(line, SHOW_MASK, strlen(SHOW_MASK), 0, err));
        else
            TRY(styled_piece(line, now[i].piece, written && !open ? "[" : "", i == 0, 0, err));
        open |= written;
    }
    return open ? styled_append(line, "]", 1, 0, err) : 0;
}

static int add_erased(StyledText *line, const TraceEntry *now, const TraceEntry *before, int n,
                      Error *err) {
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (before[i].masked || before[i].id == now[i].id) continue;
        const char *start = count++ ? ", \"" : "   erased: \"";
        TRY(styled_append(line, start, strlen(start), 0, err));
        TRY(styled_piece(line, before[i].piece, "", true, 0, err));
        TRY(styled_append(line, "\"", 1, 0, err));
    }
    return 0;
}

int show_line(FILE *out, const TraceHypothesis *h, int step, bool all, Error *err) {
    if (!all && !trace_changes(h, step)) return 0;
    int n = trace_open_count(h), digits = snprintf(NULL, 0, "%d", n);
    const TraceEntry *now = trace_entries(h, step);
    const TraceEntry *before = step ? trace_entries(h, step - 1) : NULL;
    StyledText line = {0};
    int status = add_cells(&line, h, now, before, err);
    if (status == 0 && before) status = add_erased(&line, now, before, h->length, err);
    if (status == 0) {
        fprintf(out, "step %*d  %*d/%d  ", snprintf(NULL, 0, "%d", h->planned), step + 1, digits,
                trace_filled(h, now), n);
        fwrite(line.text, 1, line.size, out);
        putc('\n', out);
    }
    styled_free(&line);
    return status;
}

int show_answer_line(FILE *out, const Trace *trace, Error *err) {
    char *answer = harmless_text(trace->hypotheses[trace->best].text);
    if (!answer) return error_set(err, "out of memory for the answer");
    fprintf(out, "%s\n", answer);
    free(answer);
    return 0;
}

int show_lines(FILE *out, const Trace *trace, bool all, Error *err) {
    const TraceHypothesis *best = &trace->hypotheses[trace->best];
    for (int s = 0; s < best->steps; s++) TRY(show_line(out, best, s, all, err));
    return show_answer_line(out, trace, err);
}
