#include "apps/eval/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "apps/cli/report.h"
#include "kernels/clock.h"

/* Seconds between two updates of a bar, and between two lines. */
#define BAR_EVERY  0.2
#define LINE_EVERY 30.0

void eval_progress_begin(EvalProgress *p, const char *what, int64_t total, bool quiet) {
    *p = (EvalProgress){.what = what,
                        .total = total,
                        .quiet = quiet,
                        .terminal = isatty(STDERR_FILENO),
                        .start = clock_seconds()};
    p->shown = p->start;
}

void eval_progress_score(EvalProgress *p, const char *name, double score) {
    if (isnan(score)) return;
    p->score_name = name, p->score = score;
}

/* "1,200 of 12,578 questions  accuracy 57.1 so far  95.2/s  2 min left" */
static void state_text(char *out, size_t size, const EvalProgress *p, double now) {
    char done[REPORT_NUMBER_SIZE], total[REPORT_NUMBER_SIZE], left[REPORT_NUMBER_SIZE];
    double rate = now > p->start ? (double)p->done / (now - p->start) : 0;
    report_number(done, p->done), report_number(total, p->total);
    int n = snprintf(out, size, "%s of %s %s", done, total, p->what);
    if (p->score_name && n >= 0 && (size_t)n < size)
        n += snprintf(out + n, size - (size_t)n, "  %s %.1f so far", p->score_name, p->score);
    if (!(rate > 0) || n < 0 || (size_t)n >= size) return;
    report_duration(left, (double)(p->total - p->done) / rate);
    snprintf(out + n, size - (size_t)n, "  %.*f/s  %s left", rate < 9.95 ? 2 : rate < 99.5, rate,
             left);
}

static void draw(EvalProgress *p, double now) {
    enum { BAR = 24 };
    char text[200];
    struct winsize window;
    state_text(text, sizeof text, p, now);
    int width = 80, size = (int)strlen(text);
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) width = window.ws_col;
    fputs("\r\x1b[K", stderr);
    int bar =
        width - size - 5 < BAR ? width - size - 5 : BAR; /* a line that wraps cannot be redrawn */
    if (bar >= 4) {
        int full = p->total ? (int)(bar * p->done / p->total) : 0;
        fprintf(stderr, "[%.*s%*s] ", full, "########################", bar - full, "");
    }
    fprintf(stderr, "%.*s", width > 1 ? width - 1 : 0, text);
    fflush(stderr);
    p->drawn = true;
}

void eval_progress_add(EvalProgress *p, int64_t count) {
    p->done += count;
    double now = clock_seconds();
    bool last = p->done >= p->total;
    if (p->quiet || (now - p->shown < (p->terminal ? BAR_EVERY : LINE_EVERY) && !last)) return;
    p->shown = now;
    if (p->terminal) {
        draw(p, now);
        return;
    }
    char text[200];
    state_text(text, sizeof text, p, now);
    fprintf(stderr, "%s\n", text);
}

void eval_progress_end(EvalProgress *p) {
    if (p->drawn) fputc('\n', stderr);
    p->drawn = false;
}
