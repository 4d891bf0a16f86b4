#include "apps/train/report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "apps/cli/report.h"
#include "data/files/file_write.h"
#include "data/files/json_memory.h"
#include "data/files/memory_stream.h"
#include "data/files/path.h"
#include "kernels/clean_text.h"

/* ---- Points as lines. ---- */

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
    {"epoch", offsetof(TrainPoint, epoch)},
    {"loss", offsetof(TrainPoint, loss)},
    {"norm", offsetof(TrainPoint, norm)},
    {"rate", offsetof(TrainPoint, rate)},
    {"tokens_per_s", offsetof(TrainPoint, tokens_per_s)},
    {"rows_per_s", offsetof(TrainPoint, rows_per_s)},
    {"peak_share", offsetof(TrainPoint, peak_share)},
    {"seconds", offsetof(TrainPoint, seconds)},
    {"valid_loss", offsetof(TrainPoint, valid_loss)},
    {"valid_score", offsetof(TrainPoint, valid_score)},
    {"valid_accuracy", offsetof(TrainPoint, valid_accuracy)},
    {"valid_object_accuracy", offsetof(TrainPoint, valid_object_accuracy)},
};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static double *number_at(TrainPoint *p, int i) {
    return (double *)((char *)p + numbers[i].offset);
}

/* Non-finite numbers are left out: JSON cannot represent them. */
static char *point_line(const TrainPoint *point) {
    TrainPoint p = *point;
    json_t *object = json_object();
    int failed = json_object_set_new(object, "step", json_integer(p.step));
    for (int i = 0; i < NUMBERS; i++)
        if (isfinite(*number_at(&p, i)))
            failed |= json_object_set_new(object, numbers[i].name, json_real(*number_at(&p, i)));
    failed |= json_object_set_new(object, "skipped", json_integer(p.skipped));
    char *line = failed ? NULL : json_dumps_whole(object, JSON_REAL_PRECISION(9));
    json_decref(object);
    return line;
}

static int point_read(TrainPoint *p, const char *line, size_t size) {
    json_t *object = json_loadb_whole(line, size, 0, NULL);
    const json_t *step = json_object_get(object, "step");
    *p = (TrainPoint){.step = json_integer_value(step),
                      .skipped = json_integer_value(json_object_get(object, "skipped"))};
    for (int i = 0; i < NUMBERS; i++) {
        const json_t *value = json_object_get(object, numbers[i].name);
        *number_at(p, i) = json_is_number(value) ? json_number_value(value) : (double)NAN;
    }
    bool good = json_is_integer(step);
    json_decref(object);
    return good ? 0 : -1;
}

static int point_add(TrainReport *r, const TrainPoint *point, Error *err) {
    if (r->count == r->capacity) {
        int capacity = r->capacity ? 2 * r->capacity : 256;
        TrainPoint *points = realloc(r->points, (size_t)capacity * sizeof *points);
        if (!points) return error_set(err, "out of memory for %d points of the curve", capacity);
        r->points = points, r->capacity = capacity;
    }
    r->points[r->count++] = *point;
    return 0;
}

/* ---- Opening. ---- */

/* What a crash leaves: an incomplete last line, or bytes that never reached the disk. */
static bool is_torn(const char *line, size_t size) {
    return !size || line[size - 1] != '\n' || memchr(line, 0, size);
}

/* The lines of an earlier part of the run, for steps up to `step`, into `kept`. */
static int metrics_read(TrainReport *r, FILE *in, int64_t step, FILE *kept, Error *err) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    int status = 0;
    for (int64_t number = 1; status == 0 && (size = getline(&line, &capacity, in)) >= 0; number++) {
        TrainPoint p;
        bool whole = size && line[size - 1] == '\n';
        if (point_read(&p, line, (size_t)size)) {
            r->dropped++;
            if (!is_torn(line, (size_t)size))
                status = error_set(err,
                                   "%s: line %lld is not a line of metrics; repair it, or move "
                                   "the file away",
                                   r->path, (long long)number);
            continue;
        }
        if (p.step > step) continue;
        fwrite(line, 1, (size_t)size, kept);
        if (!whole) fputc('\n', kept);
        status = point_add(r, &p, err);
    }
    if (status == 0 && ferror(in)) status = error_set(err, "%s: %s", r->path, strerror(errno));
    free(line);
    return status;
}

static int metrics_trim(TrainReport *r, int64_t step, Error *err) {
    FILE *in = fopen(r->path, "rb");
    if (!in && errno == ENOENT) return 0;
    if (!in) return error_set(err, "%s: %s", r->path, strerror(errno));
    char *text = NULL;
    size_t size = 0;
    FILE *kept = memory_stream_open(&text, &size);
    int status = kept ? 0 : error_set(err, "out of memory for %s", r->path);
    if (status == 0 && step > 0) status = metrics_read(r, in, step, kept, err);
    fclose(in);
    if (kept && fclose(kept) && status == 0)
        status = error_set(err, "out of memory for %s", r->path);
    if (status == 0) status = file_write_all(r->path, text, size, err);
    if (status == 0) r->size = (int64_t)size;
    free(text);
    return status;
}

static int metrics_open(TrainReport *r, int64_t step, Error *err) {
    TRY(metrics_trim(r, step, err));
    r->metrics = open(r->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    return r->metrics >= 0 ? 0 : error_set(err, "%s: %s", r->path, strerror(errno));
}

int train_report_open(TrainReport *r, const char *folder, int64_t step, int64_t steps, bool quiet,
                      Error *err) {
    *r = (TrainReport){
        .metrics = -1, .steps = steps, .quiet = quiet, .terminal = isatty(STDERR_FILENO)};
    r->path = path_join(folder, "metrics.jsonl", err);
    r->curve = r->path ? path_join(folder, "loss.svg", err) : NULL;
    int status = r->curve ? metrics_open(r, step, err) : -1;
    if (status) train_report_close(r);
    return status;
}

/* ---- Appending. ---- */

/* Appends all of `text` or nothing. */
static int append(TrainReport *r, const char *text) {
    size_t size = strlen(text);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(r->metrics, text + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            int reason = errno;
            if (done && ftruncate(r->metrics, r->size)) reason = errno;
            errno = reason;
            return -1;
        }
        done += (size_t)n;
    }
    r->size += (int64_t)size;
    return 0;
}

static int write_kept(TrainReport *r) {
    if (!r->unwritten) return 0;
    if (append(r, r->unwritten)) return -1;
    free(r->unwritten);
    r->unwritten = NULL;
    return 0;
}

static int keep_line(TrainReport *r, const char *line, Error *err) {
    char *both = path_format(err, "%s%s\n", r->unwritten ? r->unwritten : "", line);
    if (!both) return -1;
    free(r->unwritten);
    r->unwritten = both;
    return 0;
}

int train_report_sync(TrainReport *r, Error *err) {
    if (write_kept(r) == 0 && fsync(r->metrics) == 0) return 0;
    return error_set(err, "%s: %s", r->path, strerror(errno));
}

void train_report_close(TrainReport *r) {
    if (r->path && r->metrics >= 0) {
        write_kept(r);
        close(r->metrics);
    }
    if (r->pending) fputc('\n', stderr);
    free(r->points), free(r->path), free(r->curve), free(r->unwritten);
    *r = (TrainReport){.metrics = -1};
}

/* ---- The progress line. ---- */

/* Appends text to a line; what does not fit is cut. */
static void add(char *line, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add(char *line, size_t size, const char *format, ...) {
    size_t used = strlen(line);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, size - used, format, args);
    va_end(args);
}

/* Seconds for the remaining steps, at the pace of the last points; NaN: unknown. */
static double time_left(const TrainReport *r) {
    enum { LOOK_BACK = 20 };
    if (!r->count) return NAN;
    const TrainPoint *last = &r->points[r->count - 1];
    TrainPoint first = {0}; /* the start of the run */
    if (r->count > LOOK_BACK) first = r->points[r->count - 1 - LOOK_BACK];
    double steps = (double)(last->step - first.step), seconds = last->seconds - first.seconds;
    if (!(steps > 0) || !(seconds >= 0)) return NAN;
    return seconds / steps * (double)(r->steps - last->step);
}

static void line_make(char *line, size_t size, const TrainReport *r, const TrainPoint *p) {
    line[0] = 0;
    add(line, size, "step %lld/%lld ep %.2f", (long long)p->step, (long long)r->steps, p->epoch);
    if (!isnan(p->loss)) add(line, size, "  loss %.4g", p->loss);
    if (!isnan(p->valid_loss)) add(line, size, "  valid %.4g", p->valid_loss);
    if (!isnan(p->valid_score))
        add(line, size, "  %s %.2f", r->score ? r->score : "score", p->valid_score);
    if (!isnan(p->valid_accuracy))
        add(line, size, "  patches right %.1f%%", 100 * p->valid_accuracy);
    if (!isnan(p->valid_object_accuracy))
        add(line, size, ", of objects %.1f%%", 100 * p->valid_object_accuracy);
    if (!isnan(p->norm)) add(line, size, "  norm %.3g", p->norm);
    if (!isnan(p->rate)) add(line, size, "  lr %.2g", p->rate);
    if (p->tokens_per_s >= 999.5)
        add(line, size, "  %.*fk tok/s", p->tokens_per_s < 99950, p->tokens_per_s / 1000);
    else if (!isnan(p->tokens_per_s))
        add(line, size, "  %.0f tok/s", p->tokens_per_s);
    if (!isnan(p->peak_share)) add(line, size, "  %.0f%% of peak", 100 * p->peak_share);
    if (p->skipped) add(line, size, "  %lld skipped", (long long)p->skipped);
    double left = time_left(r);
    if (!isnan(left) && p->step < r->steps) {
        char duration[REPORT_NUMBER_SIZE];
        report_duration(duration, left);
        add(line, size, "  ETA %s", duration);
    }
}

/* In place on a terminal, where a line that wraps could not be rewritten; a validation's line
 * stays. */
static void line_print(TrainReport *r, const TrainPoint *p) {
    char line[256];
    line_make(line, sizeof line, r, p);
    if (!r->terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 20 &&
        window.ws_col < sizeof line)
        line[window.ws_col - 1] = 0;
    r->pending = isnan(p->valid_loss);
    fprintf(stderr, "\r\x1b[K%s%s", line, r->pending ? "" : "\n");
}

void train_report_line(TrainReport *r, char *text) {
    if (r->pending) fputc('\n', stderr);
    r->pending = false;
    clean_text(text);
    fprintf(stderr, "%s\n", text);
}

int train_report_point(TrainReport *r, const TrainPoint *point, Error *err) {
    TRY(point_add(r, point, err));
    char *line = point_line(point);
    int status =
        line ? keep_line(r, line, err) : error_set(err, "out of memory for a line of metrics");
    free(line);
    TRY(status);
    bool written = write_kept(r) == 0;
    int reason = errno;
    if (!r->quiet) line_print(r, point);
    if (!written && !r->reported) {
        if (r->pending) fputc('\n', stderr);
        r->pending = false;
        report_error("train: %s: %s: its lines are kept, and written when that is possible",
                     r->path, strerror(reason));
        r->reported = true;
    }
    return 0;
}

/* ---- The curve. ---- */

/* Pixels of the figure, of the plot of losses, and of the plot of learning rates below it. */
enum {
    WIDTH = 960,
    HEIGHT = 600,
    LEFT = 74,
    RIGHT = 936,
    LOSS_TOP = 64,
    LOSS_BOTTOM = 420,
    RATE_TOP = 456,
    RATE_BOTTOM = 548
};

/* Maximum points of a path: more are indistinguishable, and the file would grow with the run. */
enum { PATH_POINTS = 1000, VALID_POINTS = 200, TICKS = 16 };

typedef struct Series {
    double *x, *y;
    int count;
} Series;

static void series_free(Series *s) {
    free(s->x), free(s->y);
    *s = (Series){0};
}

/* The points with a value at `offset`, averaged over neighbors to at most `most`. */
static int series_make(Series *s, const TrainReport *r, size_t offset, int most, Error *err) {
    *s = (Series){0};
    int n = 0;
    for (int i = 0; i < r->count; i++)
        n += isfinite(*(const double *)((const char *)&r->points[i] + offset));
    int bins = n < most ? n : most;
    s->x = calloc((size_t)bins + 1, sizeof *s->x);
    s->y = calloc((size_t)bins + 1, sizeof *s->y);
    if (!s->x || !s->y) {
        series_free(s);
        return error_set(err, "out of memory for the curve of %d points", n);
    }
    s->count = bins;
    for (int i = 0, k = 0; i < r->count; i++) {
        double y = *(const double *)((const char *)&r->points[i] + offset);
        if (!isfinite(y)) continue;
        int b = (int)((int64_t)k * bins / n);
        /* Point k is in bin b, which begins at point `first`. */
        int64_t first = ((int64_t)b * n + bins - 1) / bins;
        int64_t end = ((int64_t)(b + 1) * n + bins - 1) / bins;
        s->x[b] += (double)r->points[i].step / (double)(end - first);
        s->y[b] += y / (double)(end - first);
        k++;
    }
    return 0;
}

/* Means over a centered window of a twenty-fifth of the curve, shorter at the ends. */
static int series_smooth(Series *out, const Series *in, Error *err) {
    *out = (Series){.x = calloc((size_t)in->count + 1, sizeof *out->x),
                    .y = calloc((size_t)in->count + 1, sizeof *out->y),
                    .count = in->count};
    if (!out->x || !out->y) {
        series_free(out);
        return error_set(err, "out of memory for the curve of %d points", in->count);
    }
    int half = in->count / 50;
    for (int i = 0; i < in->count; i++) {
        int first = i < half ? 0 : i - half;
        int end = in->count - i <= half ? in->count : i + half + 1;
        for (int k = first; k < end; k++) out->y[i] += in->y[k] / (end - first);
        out->x[i] = in->x[i];
    }
    return 0;
}

/* A linear map of numbers to pixels. */
typedef struct Axis {
    double low, high; /* numbers ... */
    double from, to;  /* ... and their pixels */
} Axis;

static double place(const Axis *a, double value) {
    double at = a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from);
    return at < -9999 ? -9999 : at > 9999 ? 9999 : at; /* values far outside are clipped here */
}

static void axis_reach(Axis *a, const double *values, int count) {
    for (int i = 0; i < count; i++) {
        if (values[i] < a->low) a->low = values[i];
        if (values[i] > a->high) a->high = values[i];
    }
}

/* Adds a margin, and makes an empty range nonempty. */
static void axis_widen(Axis *a) {
    bool positive = a->low >= 0;
    double room = (a->high - a->low) * 0.05;
    if (!(room > 0)) room = fabs(a->high) > 0 ? fabs(a->high) * 0.1 : 1;
    a->low -= room, a->high += room;
    if (positive && a->low < 0) a->low = 0;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The loss axis: the validations, and all points without outliers, which would flatten the rest.
 */
static int loss_axis(Axis *a, const Series *points, const Series *valid, Error *err) {
    *a = (Axis){INFINITY, -INFINITY, LOSS_BOTTOM, LOSS_TOP};
    axis_reach(a, valid->y, valid->count);
    int n = points->count;
    if (n) {
        double *sorted = malloc((size_t)n * sizeof *sorted);
        if (!sorted) return error_set(err, "out of memory for the curve of %d points", n);
        memcpy(sorted, points->y, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, compare_doubles);
        double likely[2] = {sorted[n / 200], sorted[n - 1 - n / 200]};
        free(sorted);
        axis_reach(a, likely, 2);
    }
    if (!(a->high >= a->low)) a->low = 0, a->high = 1;
    axis_widen(a);
    return 0;
}

/* Round numbers, 1, 2 or 5 times a power of ten apart, about `wanted` of them. */
static int axis_ticks(const Axis *a, int wanted, double ticks[TICKS]) {
    double rough = (a->high - a->low) / wanted, power = pow(10, floor(log10(rough)));
    double step = rough <= power       ? power
                  : rough <= 2 * power ? 2 * power
                  : rough <= 5 * power ? 5 * power
                                       : 10 * power;
    int count = 0;
    for (double k = ceil(a->low / step); k * step <= a->high && count < TICKS; k++)
        ticks[count++] = k * step;
    return count;
}

static const char *steps_text(char *out, size_t size, double steps) {
    if (steps >= 1e6)
        snprintf(out, size, "%.6gM", steps * 1e-6);
    else if (steps >= 1e4)
        snprintf(out, size, "%.6gk", steps * 1e-3);
    else
        snprintf(out, size, "%.6g", steps);
    return out;
}

static void svg_text(FILE *out, const char *text) {
    json_t *clean = json_text(text); /* valid UTF-8 */
    for (const char *p = clean ? json_string_value(clean) : ""; *p; p++) {
        if (*p == '&')
            fputs("&amp;", out);
        else if (*p == '<')
            fputs("&lt;", out);
        else if (*p == '>')
            fputs("&gt;", out);
        else
            fputc((unsigned char)*p < 32 ? '?' : *p, out);
    }
    json_decref(clean);
}

static void svg_head(FILE *out, const char *title) {
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" role=\"img\">\n<title>",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    svg_text(out, title);
    fprintf(
        out,
        "</title>\n<style>\n"
        /* Literal colors, as not every viewer supports CSS variables. */
        ".paper{fill:#ffffff}\n"
        "text{fill:#68707c;font-family:system-ui,sans-serif;font-size:13px}\n"
        ".title{font-size:18px;font-weight:600}.title,.name{fill:#24292f}\n"
        ".end{text-anchor:end}.middle{text-anchor:middle}\n"
        ".grid{stroke:#e3e6ea;stroke-width:1;fill:none}\n"
        ".points{stroke:#2563c9;stroke-width:1;stroke-opacity:.28;fill:none}\n"
        ".mean{stroke:#2563c9;stroke-width:2.2;fill:none;stroke-linejoin:round}\n"
        ".valid{stroke:#c2410c;stroke-width:1.6;fill:none}\n"
        ".dot{fill:#c2410c;stroke:#ffffff;stroke-width:1}\n"
        ".score{stroke:#7c3aed;stroke-width:1.6;fill:none}"
        ".high{fill:#7c3aed;stroke:#ffffff;stroke-width:1}\n"
        ".rate{stroke:#2d7d46;stroke-width:1.8;fill:none}\n"
        "@media (prefers-color-scheme:dark){.paper{fill:#15181d}text{fill:#98a2b0}"
        ".title,.name{fill:#e6e9ee}.grid{stroke:#2c323b}.points,.mean{stroke:#6ea8fe}"
        ".score{stroke:#b794f6}.high{fill:#b794f6;stroke:#15181d}"
        ".valid{stroke:#fb923c}.dot{fill:#fb923c;stroke:#15181d}.rate{stroke:#5fc27e}}\n"
        "</style>\n"
        "<clipPath id=\"plot\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>\n"
        "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n"
        "<text class=\"title\" x=\"%d\" y=\"28\">",
        LEFT, LOSS_TOP, RIGHT - LEFT, LOSS_BOTTOM - LOSS_TOP, WIDTH, HEIGHT, LEFT);
    svg_text(out, title);
    fputs("</text>\n", out);
}

/* Lines across a plot with their numbers, and its name on top. */
static void svg_grid(FILE *out, const Axis *x, const Axis *y, int wanted, const char *name) {
    double ticks[TICKS];
    int n = axis_ticks(y, wanted, ticks);
    for (int i = 0; i < n; i++) {
        double at = place(y, ticks[i]);
        fprintf(out,
                "<path class=\"grid\" d=\"M%d,%.1fH%d\"/><text class=\"end\" x=\"%d\" "
                "y=\"%.1f\">%.6g</text>\n",
                LEFT, at, RIGHT, LEFT - 8, at + 4, fabs(ticks[i]) < 1e-15 ? 0 : ticks[i]);
    }
    n = axis_ticks(x, 8, ticks);
    for (int i = 0; i < n; i++)
        fprintf(out, "<path class=\"grid\" d=\"M%.1f,%.0fV%.0f\"/>\n", place(x, ticks[i]), y->to,
                y->from);
    if (name)
        fprintf(out, "<text class=\"name\" x=\"%d\" y=\"%.0f\">%s</text>\n", LEFT, y->to - 8, name);
}

static void svg_steps(FILE *out, const Axis *x) {
    double ticks[TICKS];
    char text[32];
    int n = axis_ticks(x, 8, ticks);
    for (int i = 0; i < n; i++)
        fprintf(out, "<text class=\"middle\" x=\"%.1f\" y=\"%d\">%s</text>\n", place(x, ticks[i]),
                RATE_BOTTOM + 20, steps_text(text, sizeof text, ticks[i]));
    fprintf(out, "<text class=\"name middle\" x=\"%d\" y=\"%d\">step</text>\n", (LEFT + RIGHT) / 2,
            RATE_BOTTOM + 42);
}

static void svg_path(FILE *out, const Series *s, const Axis *x, const Axis *y, const char *kind) {
    if (!s->count) return;
    fprintf(out, "<path class=\"%s\" clip-path=\"%s\" d=\"", kind,
            y->to == LOSS_TOP ? "url(#plot)" : "none");
    for (int i = 0; i < s->count; i++)
        fprintf(out, "%c%.1f,%.1f", i ? 'L' : 'M', place(x, s->x[i]), place(y, s->y[i]));
    fputs("\"/>\n", out);
}

static void svg_legend(FILE *out, const Series *mean, const Series *valid) {
    int x = RIGHT - 250;
    if (valid->count) {
        fprintf(out,
                "<path class=\"valid\" d=\"M%d,50h26\"/><circle class=\"dot\" cx=\"%d\" cy=\"50\" "
                "r=\"4\"/><text class=\"name\" x=\"%d\" y=\"54\">validation loss, %.4g at "
                "last</text>\n",
                x, x + 13, x + 34, valid->y[valid->count - 1]);
        x -= 280;
    }
    if (mean->count)
        fprintf(out,
                "<path class=\"points\" d=\"M%d,44h26\"/><path class=\"mean\" d=\"M%d,50h26\"/>"
                "<text class=\"name\" x=\"%d\" y=\"54\">training loss and its mean, %.4g</text>\n",
                x, x, x + 34, mean->y[mean->count - 1]);
}

/* The score of generated answers: its curve, the numbers of its axis at the right, and its legend. */
static void svg_score(FILE *out, const TrainReport *r, const Series *score, const Axis *x) {
    if (!score->count) return;
    const char *name = r->score ? r->score : "score";
    Axis y = {score->y[0], score->y[0], LOSS_BOTTOM, LOSS_TOP};
    double ticks[TICKS];
    int best = 0, left = RIGHT - 810;
    axis_reach(&y, score->y, score->count);
    axis_widen(&y);
    int n = axis_ticks(&y, 6, ticks);
    for (int i = 0; i < n; i++)
        fprintf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">%.6g</text>\n", RIGHT - 4,
                place(&y, ticks[i]) - 3, fabs(ticks[i]) < 1e-15 ? 0 : ticks[i]);
    svg_path(out, score, x, &y, "score");
    for (int i = 0; i < score->count; i++) {
        if (score->y[i] > score->y[best]) best = i;
        fprintf(out,
                "<circle class=\"high\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>step %.0f: %s "
                "%.4g</title></circle>\n",
                place(x, score->x[i]), place(&y, score->y[i]), score->x[i], name, score->y[i]);
    }
    fprintf(out,
            "<path class=\"score\" d=\"M%d,50h26\"/><circle class=\"high\" cx=\"%d\" cy=\"50\" "
            "r=\"4\"/><text class=\"name\" x=\"%d\" y=\"54\">%s of answers (right axis), best "
            "%.4g</text>\n",
            left, left + 13, left + 34, name, score->y[best]);
}

static void svg_write(FILE *out, const TrainReport *r, const char *title, const Series *score,
                      const Series *points, const Series *mean, const Series *valid,
                      const Series *rate, const Axis *x, const Axis *loss, const Axis *rates) {
    svg_head(out, title);
    svg_grid(out, x, loss, 6, "loss");
    svg_grid(out, x, rates, 2, "learning rate");
    svg_steps(out, x);
    svg_legend(out, mean, valid);
    svg_path(out, points, x, loss, "points");
    svg_path(out, mean, x, loss, "mean");
    svg_path(out, valid, x, loss, "valid");
    for (int i = 0; i < valid->count; i++)
        fprintf(
            out,
            "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>step %.0f: validation "
            "loss %.5g</title></circle>\n",
            place(x, valid->x[i]), place(loss, valid->y[i]), valid->x[i], valid->y[i]);
    svg_score(out, r, score, x);
    svg_path(out, rate, x, rates, "rate");
    if (!mean->count && !valid->count)
        fprintf(out, "<text class=\"middle\" x=\"%d\" y=\"%d\">no points yet</text>\n",
                (LEFT + RIGHT) / 2, (LOSS_TOP + LOSS_BOTTOM) / 2);
    fputs("</svg>\n", out);
}

int train_report_svg(const TrainReport *r, const char *title, Error *err) {
    Series points = {0}, mean = {0}, valid = {0}, rate = {0}, score = {0};
    Axis x = {0, 1, LEFT, RIGHT}, loss, rates = {0, 0, RATE_BOTTOM, RATE_TOP};
    char *text = NULL;
    size_t size = 0;
    for (int i = 0; i < r->count; i++)
        if ((double)r->points[i].step > x.high) x.high = (double)r->points[i].step;
    int status = series_make(&points, r, offsetof(TrainPoint, loss), PATH_POINTS, err) ||
                 series_make(&valid, r, offsetof(TrainPoint, valid_loss), VALID_POINTS, err) ||
                 series_make(&score, r, offsetof(TrainPoint, valid_score), VALID_POINTS, err) ||
                 series_make(&rate, r, offsetof(TrainPoint, rate), PATH_POINTS / 2, err) ||
                 series_smooth(&mean, &points, err) || loss_axis(&loss, &points, &valid, err);
    FILE *out = status ? NULL : memory_stream_open(&text, &size);
    if (out) {
        axis_reach(&rates, rate.y, rate.count);
        axis_widen(&rates);
        svg_write(out, r, title, &score, &points, &mean, &valid, &rate, &x, &loss, &rates);
        if (fclose(out)) status = error_set(err, "out of memory for the curve");
    } else if (!status) {
        status = error_set(err, "out of memory for the curve");
    }
    if (!status) status = file_write_all(r->curve, text, size, err);
    free(text);
    series_free(&points), series_free(&mean), series_free(&valid), series_free(&rate);
    series_free(&score);
    return status ? -1 : 0;
}
