/* A training run's report: lines of metrics and their resumption, the progress line, the loss curve
 * (SVG). */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "apps/train/report.h"
#include "apps/train/start.h"
#include "tests/train_setup.h"

typedef struct Place {
    char folder[256], metrics[300], curve[300], message[300];
} Place;

static void place_start(Place *p) {
    temporary_folder(p->folder, sizeof p->folder);
    snprintf(p->metrics, sizeof p->metrics, "%s/metrics.jsonl", p->folder);
    snprintf(p->curve, sizeof p->curve, "%s/loss.svg", p->folder);
    snprintf(p->message, sizeof p->message, "%s/stderr", p->folder);
}

static TrainPoint point_none(int64_t step) {
    return (TrainPoint){.step = step,
                        .loss = NAN,
                        .norm = NAN,
                        .rate = NAN,
                        .tokens_per_s = NAN,
                        .rows_per_s = NAN,
                        .peak_share = NAN,
                        .valid_loss = NAN,
                        .valid_score = NAN,
                        .valid_accuracy = NAN,
                        .valid_object_accuracy = NAN};
}

/* Numbers that 9 digits give back exactly: eighths. */
static double eighths(TestRandom *r, double most) {
    return floor(test_random_uniform(r) * most * 8) / 8;
}

static TrainPoint point_random(TestRandom *r, int64_t step) {
    TrainPoint p = point_none(step);
    bool valid = test_random_uniform(r) < 0.2;
    p.epoch = eighths(r, 10), p.seconds = (double)step;
    p.skipped = (int64_t)(test_random_next(r) % 4);
    if (valid) {
        p.valid_loss = eighths(r, 12);
        if (test_random_uniform(r) < 0.5)
            p.valid_accuracy = eighths(r, 1), p.valid_object_accuracy = eighths(r, 1);
        return p;
    }
    p.loss = eighths(r, 12), p.norm = eighths(r, 9), p.rate = eighths(r, 2);
    p.tokens_per_s = eighths(r, 1e5), p.rows_per_s = eighths(r, 1e5);
    if (test_random_uniform(r) < 0.5) p.peak_share = eighths(r, 1);
    return p;
}

static void assert_number(const json_t *object, const char *name, double value) {
    const json_t *found = json_object_get(object, name);
    if (isnan(value) ? found != NULL : !json_is_number(found) || json_number_value(found) != value)
        fail_msg("%s: expected %g", name, value);
}

static void test_metrics(void **state) {
    (void)state;
    enum { POINTS = 50 };
    Place p;
    Error err;
    TestRandom r = {99};
    TrainReport report;
    TrainPoint points[POINTS];
    place_start(&p);
    assert_ok(train_report_open(&report, p.folder, 0, 1000, true, &err), &err);
    for (int i = 0; i < POINTS; i++) {
        points[i] = point_random(&r, 7 * (i + 1));
        assert_ok(train_report_point(&report, &points[i], &err), &err);
    }
    assert_int_equal(report.count, POINTS);
    /* Every line is written before the report is closed. */
    FILE *in = fopen(p.metrics, "rb");
    for (int i = 0; i < POINTS; i++) {
        json_t *line = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(line);
        assert_number(line, "step", (double)points[i].step);
        assert_number(line, "epoch", points[i].epoch);
        assert_number(line, "loss", points[i].loss);
        assert_number(line, "norm", points[i].norm);
        assert_number(line, "rate", points[i].rate);
        assert_number(line, "tokens_per_s", points[i].tokens_per_s);
        assert_number(line, "rows_per_s", points[i].rows_per_s);
        assert_number(line, "peak_share", points[i].peak_share);
        assert_number(line, "seconds", points[i].seconds);
        assert_number(line, "valid_loss", points[i].valid_loss);
        assert_number(line, "valid_accuracy", points[i].valid_accuracy);
        assert_number(line, "valid_object_accuracy", points[i].valid_object_accuracy);
        assert_number(line, "skipped", (double)points[i].skipped);
        assert_int_equal(fgetc(in), '\n');
        json_decref(line);
    }
    assert_int_equal(fgetc(in), EOF);
    fclose(in);
    train_report_close(&report);
    train_report_close(&report); /* an empty one may be closed again */
    assert_refused(train_report_open(&report, "/nonexistent-folder", 0, 9, true, &err), &err,
                   "metrics.jsonl", "No such file");
    temporary_remove(p.folder);
}

static int count_of(const char *text, char letter) {
    int n = 0;
    for (; *text; text++) n += *text == letter;
    return n;
}

/* A file that was cut anywhere and resumed from a checkpoint is the same as that of a run without a
 * break, and so is the curve. */
static void test_resume(void **state) {
    (void)state;
    enum { POINTS = 40, EVERY = 5 };
    Place p;
    Error err;
    TestRandom r = {5};
    TrainReport report;
    TrainPoint points[POINTS];
    char *curve[2];
    place_start(&p);
    assert_ok(train_report_open(&report, p.folder, 0, 200, true, &err), &err);
    for (int i = 0; i < POINTS; i++) {
        points[i] = point_random(&r, EVERY * (i + 1));
        assert_ok(train_report_point(&report, &points[i], &err), &err);
    }
    assert_ok(train_report_svg(&report, "run", &err), &err);
    curve[0] = file_bytes(p.curve, NULL);
    train_report_close(&report);
    size_t size, size2;
    char *whole = file_bytes(p.metrics, &size);
    for (int round = 0; round < 60; round++) {
        /* Killed at any byte; the checkpoint is of a step whose lines are whole. */
        size_t cut = test_random_next(&r) % (size + 1);
        if (round == 0) cut = size;
        int lines = 0;
        for (size_t i = 0; i < cut; i++) lines += whole[i] == '\n';
        int kept = lines ? (int)(test_random_next(&r) % (uint64_t)(lines + 1)) : 0;
        write_bytes(p.metrics, whole, cut);
        /* Between two logged steps, now and then. */
        int64_t step = EVERY * kept + (kept ? (int64_t)(test_random_next(&r) % EVERY) : 0);
        assert_ok(train_report_open(&report, p.folder, step, 200, true, &err), &err);
        assert_int_equal(report.count, kept);
        for (int i = kept; i < POINTS; i++)
            assert_ok(train_report_point(&report, &points[i], &err), &err);
        assert_ok(train_report_svg(&report, "run", &err), &err);
        train_report_close(&report);
        char *again = file_bytes(p.metrics, &size2);
        assert_int_equal(size2, size);
        assert_memory_equal(again, whole, size);
        curve[1] = file_bytes(p.curve, NULL);
        assert_string_equal(curve[0], curve[1]);
        free(again), free(curve[1]);
    }
    /* No partial file is left. */
    char partial[320];
    snprintf(partial, sizeof partial, "%s.partial", p.metrics);
    assert_int_not_equal(access(partial, F_OK), 0);
    snprintf(partial, sizeof partial, "%s.partial", p.curve);
    assert_int_not_equal(access(partial, F_OK), 0);
    /* A run that starts at step 0 removes the lines of an earlier one. */
    assert_ok(train_report_open(&report, p.folder, 0, 200, true, &err), &err);
    train_report_close(&report);
    free(file_bytes(p.metrics, &size2));
    assert_int_equal(size2, 0);
    /* A run may lack its file; damage in the middle is reported. */
    unlink(p.metrics);
    assert_ok(train_report_open(&report, p.folder, 50, 200, true, &err), &err);
    train_report_close(&report);
    write_bytes(p.metrics, "{\"step\": 1}\n{\"st\n{\"step\": 3}\n", 29);
    assert_refused(train_report_open(&report, p.folder, 50, 200, true, &err), &err, "line 2",
                   "metrics.jsonl");
    /* Lines torn by a crash (bytes that never came to the disk) are dropped and counted. */
    static const char torn[] = "{\"step\": 1}\n\0\0\0\0\n{\"step\": 3}\n{\"ste\0\0\0\0\0";
    write_bytes(p.metrics, torn, sizeof torn - 1);
    assert_ok(train_report_open(&report, p.folder, 50, 200, true, &err), &err);
    assert_int_equal(report.dropped, 2);
    assert_int_equal(report.count, 2);
    train_report_close(&report);
    char *mended = file_bytes(p.metrics, &size2);
    assert_string_equal(mended, "{\"step\": 1}\n{\"step\": 3}\n");
    free(mended);
    free(whole), free(curve[0]);
    temporary_remove(p.folder);
}

/* Lines that do not fit on the disk are kept and written later; until then no checkpoint may be
 * written. */
static void test_disk_full(void **state) {
    (void)state;
    Place p;
    Error err;
    TestRandom r = {9};
    TrainReport report, whole;
    struct rlimit before, limit;
    place_start(&p);
    assert_ok(train_report_open(&whole, p.folder, 0, 1000, true, &err), &err);
    TrainPoint points[6];
    for (int i = 0; i < 6; i++) {
        points[i] = point_random(&r, i + 1);
        assert_ok(train_report_point(&whole, &points[i], &err), &err);
    }
    train_report_close(&whole);
    char *wanted = file_bytes(p.metrics, NULL);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    assert_ok(train_report_open(&report, p.folder, 0, 1000, true, &err), &err);
    for (int i = 0; i < 6; i++) {
        /* From the third line on until the last one: in the middle of it. */
        limit = (struct rlimit){i >= 2 && i < 5
                                    ? (rlim_t)(strchr(strchr(wanted, '\n') + 1, '\n') - wanted + 20)
                                    : before.rlim_cur,
                                before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_ok(train_report_point(&report, &points[i], &err), &err);
        if (i == 3)
            assert_refused(train_report_sync(&report, &err), &err, "metrics.jsonl", "large");
        char *now = file_bytes(p.metrics, NULL);
        assert_int_equal(count_of(now, '\n'), i < 2 ? i + 1 : i < 5 ? 2 : 6);
        assert_int_equal(strncmp(now, wanted, strlen(now)), 0);
        free(now);
    }
    assert_ok(train_report_sync(&report, &err), &err);
    train_report_close(&report);
    signal(SIGXFSZ, handler);
    char *all = file_bytes(p.metrics, NULL);
    assert_string_equal(all, wanted);
    free(all), free(wanted);
    temporary_remove(p.folder);
}

/* ---- The progress line. ---- */

static void test_line(void **state) {
    (void)state;
    Place p;
    Error err;
    TrainReport report;
    place_start(&p);
    int saved = capture_begin(p.message);
    assert_ok(train_report_open(&report, p.folder, 0, 5000, false, &err), &err);
    TrainPoint point = {.step = 120,
                        .epoch = 0.0249,
                        .loss = 3.21436,
                        .norm = 1.08,
                        .rate = 4.1e-5,
                        .tokens_per_s = 8312,
                        .rows_per_s = 16000,
                        .peak_share = 0.7149,
                        .seconds = 106.5,
                        .valid_loss = NAN,
                        .valid_score = NAN,
                        .valid_accuracy = NAN,
                        .valid_object_accuracy = NAN};
    assert_ok(train_report_point(&report, &point, &err), &err);
    point.step = 130, point.seconds = 115.375, point.skipped = 2, point.peak_share = NAN;
    point.tokens_per_s = 512;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point = point_none(5000);
    point.valid_loss = 2.5, point.seconds = 9000;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point.valid_accuracy = 0.9126, point.valid_object_accuracy = 0.5;
    assert_ok(train_report_point(&report, &point, &err), &err);
    train_report_close(&report);
    char *text = capture_end(saved, p.message);
    assert_string_equal(text,
                        "step 120/5000 ep 0.02  loss 3.214  norm 1.08  lr 4.1e-05  8.3k tok/s  71% "
                        "of peak  ETA 1 h 12 min\n"
                        "step 130/5000 ep 0.02  loss 3.214  norm 1.08  lr 4.1e-05  512 tok/s  2 "
                        "skipped  ETA 1 h 12 min\n"
                        "step 5000/5000 ep 0.00  valid 2.5\n"
                        "step 5000/5000 ep 0.00  valid 2.5  patches right 91.3%, of objects "
                        "50.0%\n");
    free(text);
    /* On a terminal the line is written over, and a validation's stays. */
    saved = capture_begin(p.message);
    assert_ok(train_report_open(&report, p.folder, 0, 10, false, &err), &err);
    report.terminal = true;
    point = point_none(1);
    point.loss = 2, point.seconds = 1;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point.loss = NAN, point.valid_loss = 3;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point.step = 2, point.loss = 1, point.valid_loss = NAN, point.seconds = 2;
    assert_ok(train_report_point(&report, &point, &err), &err);
    train_report_close(&report);
    text = capture_end(saved, p.message);
    assert_string_equal(text, "\r\x1b[Kstep 1/10 ep 0.00  loss 2  ETA 9 s"
                              "\r\x1b[Kstep 1/10 ep 0.00  valid 3  ETA 9 s\n"
                              "\r\x1b[Kstep 2/10 ep 0.00  loss 1  ETA 8 s\n");
    free(text);
    /* A quiet one prints nothing. */
    saved = capture_begin(p.message);
    assert_ok(train_report_open(&report, p.folder, 0, 10, true, &err), &err);
    assert_ok(train_report_point(&report, &point, &err), &err);
    train_report_close(&report);
    text = capture_end(saved, p.message);
    assert_string_equal(text, "");
    free(text);
    temporary_remove(p.folder);
}

/* ---- The curve. ---- */

/* Elements are closed in the order in which they were opened, attributes are quoted, and no
 * number is NaN or infinite. Returns the number of elements named `name`. */
static int check_svg(const char *svg, const char *name) {
    char stack[16][32];
    int depth = 0, found = 0;
    assert_memory_equal(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\"", 38);
    for (const char *p = svg; *p; p++) {
        if (*p == '&' && strncmp(p, "&amp;", 5) && strncmp(p, "&lt;", 4) && strncmp(p, "&gt;", 4))
            fail_msg("a bare &: %.40s", p);
        if (*p != '<') continue;
        char word[32];
        bool closing = p[1] == '/';
        snprintf(word, sizeof word, "%.*s", (int)strcspn(p + 1 + closing, " />\n"),
                 p + 1 + closing);
        const char *end = strchr(p, '>');
        assert_non_null(end);
        int quotes = 0;
        for (const char *q = p; q < end; q++) quotes += *q == '"';
        if (quotes % 2) fail_msg("quotes: %.60s", p);
        if (memchr(p + 1, '<', (size_t)(end - p - 1))) fail_msg("a < in a tag: %.60s", p);
        for (const char *q = p; q + 3 <= end; q++)
            if (!strncmp(q, "nan", 3) || !strncmp(q, "inf", 3)) fail_msg("not a number: %.200s", p);
        if (closing) {
            if (!depth || strcmp(stack[depth - 1], word)) fail_msg("</%s> closes nothing", word);
            depth--;
        } else {
            found += !strcmp(word, name);
            if (end[-1] != '/') {
                assert_true(depth < 16);
                snprintf(stack[depth++], sizeof stack[0], "%s", word);
            }
        }
        p = end;
        if (depth == 0) {
            assert_string_equal(p + 1, "\n"); /* svg is closed, and the file ends */
            return found;
        }
    }
    fail_msg("%d elements are still open", depth);
    return 0;
}

static char *curve_of(Place *p, TrainReport *report, const char *title) {
    Error err;
    size_t size;
    assert_ok(train_report_svg(report, title, &err), &err);
    char *svg = file_bytes(p->curve, &size);
    assert_int_equal(strlen(svg), size);
    assert_true(size < 200000);
    return svg;
}

static void test_svg(void **state) {
    (void)state;
    Place p;
    Error err;
    TrainReport report;
    place_start(&p);
    assert_ok(train_report_open(&report, p.folder, 0, 100, true, &err), &err);
    char *svg = curve_of(&p, &report, "nothing & <none> \"yet\" \x01\xff");
    assert_int_equal(check_svg(svg, "circle"), 0);
    assert_non_null(strstr(svg, "nothing &amp; &lt;none&gt; \"yet\" ?\xef\xbf\xbd</title>"));
    assert_non_null(strstr(svg, "no points yet"));
    free(svg);
    /* One point; equal ones; non-finite ones. */
    TrainPoint point = point_none(10);
    point.loss = 3, point.rate = 0;
    for (int i = 0; i < 3; i++) {
        assert_ok(train_report_point(&report, &point, &err), &err);
        svg = curve_of(&p, &report, "t");
        check_svg(svg, "circle");
        free(svg);
        point.step += 10;
    }
    point.loss = INFINITY, point.rate = -INFINITY;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point.loss = 1e300, point.rate = 1e-300;
    assert_ok(train_report_point(&report, &point, &err), &err);
    point = point_none(60);
    point.valid_loss = 2.75;
    assert_ok(train_report_point(&report, &point, &err), &err);
    svg = curve_of(&p, &report, "t");
    assert_int_equal(check_svg(svg, "circle"), 2); /* the point, and the legend's */
    assert_non_null(strstr(svg, "<title>step 60: validation loss 2.75</title>"));
    assert_non_null(strstr(svg, "prefers-color-scheme:dark"));
    free(svg);
    train_report_close(&report);
    temporary_remove(p.folder);
}

/* The y of the first or last point of the first path of a class, and how many points it has. */
static int path_points(const char *svg, const char *kind, double *first, double *last) {
    char word[64];
    snprintf(word, sizeof word, "<path class=\"%s\" clip", kind);
    const char *p = strstr(svg, word);
    assert_non_null(p);
    p = strstr(p, " d=\"") + 4;
    int n = 0;
    for (; *p == 'M' || *p == 'L'; n++) {
        double x, y;
        int used;
        assert_int_equal(sscanf(p + 1, "%lf,%lf%n", &x, &y, &used), 2);
        if (n == 0) *first = y;
        *last = y;
        p += used + 1;
    }
    assert_int_equal(*p, '"');
    return n;
}

/* A long run's SVG file is no larger, its curve falls as the loss does, and one outlier does not
 * flatten it. */
static void test_long(void **state) {
    (void)state;
    enum { POINTS = 100000 };
    Place p;
    TrainReport report;
    Error err;
    TestRandom r = {3};
    place_start(&p);
    assert_ok(train_report_open(&report, p.folder, 0, POINTS, true, &err), &err);
    report.points = malloc((POINTS + POINTS / 100) * sizeof *report.points);
    for (int i = 1; i <= POINTS; i++) {
        TrainPoint point = point_none(i);
        point.loss = 2 + 8 * exp(-i / 20000.0) + 0.1 * (double)test_random_normal(&r);
        point.rate = 1e-4 / i;
        if (i == POINTS / 2) point.loss = 1e6;
        report.points[report.count++] = point;
        if (i % 100) continue;
        point = point_none(i);
        point.valid_loss = 2.5 + 8 * exp(-i / 20000.0);
        report.points[report.count++] = point;
    }
    char *svg = curve_of(&p, &report, "long");
    int circles = check_svg(svg, "circle");
    assert_in_range(circles, 100, 201);
    double first, last;
    assert_int_equal(path_points(svg, "points", &first, &last), 1000);
    assert_int_equal(path_points(svg, "mean", &first, &last), 1000);
    assert_true(last > first + 250); /* pixels are counted downwards */
    assert_in_range(path_points(svg, "rate", &first, &last), 2, 1000);
    free(svg);
    train_report_close(&report);
    temporary_remove(p.folder);
}

static void test_speed_note(void **state) {
    (void)state;
    static const struct {
        double bf16, f32;
        const char *words;
    } cases[] = {
        {1.5e11, 3.3e11, "f32 faster"}, {8e11, 4e11, NULL}, {4e11, 4.4e11, NULL}, {0, 0, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        assert_non_null(out);
        train_start_speed(cases[i].bf16, cases[i].f32, out);
        assert_int_equal(fclose(out), 0);
        if (cases[i].words) {
            assert_non_null(strstr(text, cases[i].words));
            assert_non_null(strstr(text, "--dtype f32"));
        } else {
            assert_string_equal(text, "");
        }
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),    cmocka_unit_test(test_resume),
        cmocka_unit_test(test_disk_full),  cmocka_unit_test(test_line),
        cmocka_unit_test(test_svg),        cmocka_unit_test(test_long),
        cmocka_unit_test(test_speed_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
