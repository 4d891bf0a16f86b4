#include "apps/eval/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/page_parts.h"
#include "apps/show/markup.h"

/* ---- Which answers. ---- */

typedef struct Ranked {
    double key;
    int64_t line;
} Ranked;

static int by_key(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->key != y->key) return (x->key > y->key) - (x->key < y->key);
    return (x->line > y->line) - (x->line < y->line);
}

/* The lines with the smallest keys (NaN: not these), `most` of them at most: *lines is the caller's
 * to free. */
static int pick(int64_t all, double (*key)(const void *user, int64_t line), const void *user,
                int most, int64_t **lines, int64_t *count, Error *err) {
    Ranked *ranked = malloc(((size_t)all + 1) * sizeof *ranked);
    int64_t n = 0;
    *lines = malloc(((size_t)most + 1) * sizeof **lines), *count = 0;
    for (int64_t i = 0; i < all && ranked; i++) {
        double value = key(user, i);
        if (!isnan(value)) ranked[n++] = (Ranked){value, i};
    }
    if (ranked) qsort(ranked, (size_t)n, sizeof *ranked, by_key);
    for (int64_t i = 0; i < n && i < most && ranked && *lines; i++)
        (*lines)[(*count)++] = ranked[i].line;
    int status = ranked && *lines ? 0 : error_set(err, "out of memory for the page's answers");
    free(ranked);
    return status;
}

/* ---- A comparison. ---- */

static double gain(const Comparison *c, int64_t i) {
    return c->sides[1].lines[i].values[0] - c->sides[0].lines[i].values[0];
}

static double lost_key(const void *user, int64_t i) {
    return compare_winner(user, i) < 0 ? gain(user, i) : NAN;
}

static double won_key(const void *user, int64_t i) {
    return compare_winner(user, i) > 0 ? -gain(user, i) : NAN;
}

static int put_changed(EvalPage *page, const Comparison *c, bool won, int most, Error *err) {
    int64_t *lines, count, all = won ? c->won : c->lost;
    TRY(pick(c->sides[0].count, won ? won_key : lost_key, c, most, &lines, &count, err));
    fprintf(page->out, "<h2>%s by the second: %lld</h2>\n", won ? "Won" : "Lost", (long long)all);
    if (count < all)
        fprintf(page->out, "<p class=\"note\">The %lld that changed most.</p>\n", (long long)count);
    int status =
        page_cards(page, c->sides[0].task, c->sides[0].lines, c->sides[1].lines, lines, count, err);
    free(lines);
    return status;
}

static int put_compare_row(FILE *out, const Comparison *c, const CompareRow *row, double most,
                           Error *err) {
    const Paired *p = &row->paired;
    fputs("<tr><td>", out);
    if (row->group) {
        fprintf(out, "%s ", row->group);
        TRY(page_text_put(out, row->name, err));
    }
    if (!row->group || !strcmp(row->group, "file"))
        fprintf(out, "%s%s", row->group ? ", " : "", c->sides[0].task->titles[row->metric]);
    fputs("</td>", out);
    fprintf(out, "<td>%.2f</td><td>%.2f</td><td>%+.2f</td><td>%+.2f to %+.2f</td><td>",
            p->scores[0], p->scores[1], p->scores[1] - p->scores[0], p->difference.low,
            p->difference.high);
    page_bar(out, p->difference.low, p->scores[1] - p->scores[0], p->difference.high, -most, most);
    fprintf(out, "</td><td>%.4f</td><td>%.4f</td><td>", p->p_bootstrap, p->p_random);
    if (!isnan(row->p_holm)) fprintf(out, "%.4f", row->p_holm);
    fprintf(out, "</td><td>%lld</td></tr>\n", (long long)row->count);
    return 0;
}

static int put_compare_table(FILE *out, const Comparison *c, Error *err) {
    double most = 0;
    for (int i = 0; i < c->row_count; i++) {
        const Interval *d = &c->rows[i].paired.difference;
        most = fmax(most, fmax(fabs(d->low), fabs(d->high)));
    }
    fputs("<div class=\"wide\"><table>\n<tr><th></th><th>first</th><th>second</th>"
          "<th>change</th><th>95 %</th><th></th><th>p, bootstrap</th><th>p, randomization</th>"
          "<th>p, Holm</th><th>questions</th></tr>\n",
          out);
    for (int i = 0; i < c->row_count; i++) TRY(put_compare_row(out, c, &c->rows[i], most, err));
    fputs("</table></div>\n<p class=\"note\">p, Holm: that of randomization, corrected by Holm's "
          "method for the number of files or types of its kind.</p>\n",
          out);
    return 0;
}

static int put_compare(EvalPage *page, const Comparison *c, const char *const folders[2],
                       const PageOptions *o, Error *err) {
    TRY(page_begin(page, "Two evaluations compared", err));
    for (int s = 0; s < 2; s++) {
        fprintf(page->out, "<p class=\"note\">%s: ", s ? "second" : "first");
        TRY(page_text_put(page->out, folders[s], err));
        fputs(", model ", page->out);
        TRY(page_text_put(page->out, compare_model(c, s), err));
        fputs("</p>\n", page->out);
    }
    fprintf(page->out,
            "<p>%lld questions: the second won %lld, lost %lld; %lld are the same, by %s.</p>\n",
            (long long)c->sides[0].count, (long long)c->won, (long long)c->lost, (long long)c->same,
            c->sides[0].task->titles[0]);
    TRY(put_compare_table(page->out, c, err));
    TRY(put_changed(page, c, false, o->answers, err));
    TRY(put_changed(page, c, true, o->answers, err));
    page_end(page);
    return 0;
}

int eval_page_compare(const Comparison *c, const char *const folders[2], const PageOptions *o,
                      const char *path, Error *err) {
    Markup markup;
    EvalPage page = {.images = page_images(o, c->results[0])};
    TRY(markup_begin(&markup, err));
    page.out = markup.out;
    TRY(markup_end(&markup, put_compare(&page, c, folders, o, err), err));
    return markup_write(markup.text, markup.size, path, err);
}

/* ---- One evaluation. ---- */

static double worst_key(const void *user, int64_t i) {
    const Scored *s = user;
    double value = s->lines[i].values[0];
    return value < 100 - 1e-9 ? value : NAN;
}

static int put_score_row(FILE *out, const Scored *s, const char *name, int metric,
                         const Selection *selection, Error *err) {
    LineStats stats;
    Interval interval;
    TRY(scored_stats(s, metric, selection, &stats, err));
    double score = line_stats_score(&stats);
    int status = isnan(score) ? 0 : resample_interval(&stats, 1, NULL, &interval, err);
    int64_t count = stats.count;
    line_stats_free(&stats);
    if (status || isnan(score)) return status; /* the metric is absent */
    fputs("<tr><td>", out);
    if (name) {
        TRY(page_text_put(out, name, err));
        fputs(", ", out);
    }
    fprintf(out, "%s</td><td>%.2f</td><td>%.2f to %.2f</td><td>", s->task->titles[metric], score,
            interval.low, interval.high);
    page_bar(out, interval.low, score, interval.high, 0, 100);
    fprintf(out, "</td><td>%lld</td></tr>\n", (long long)count);
    return 0;
}

/* The rows of the files or of a type. */
static int put_groups(FILE *out, const Scored *s, int type, Error *err) {
    Selection *selections;
    int count, status = 0;
    const int metrics = type == SELECT_FILES ? scored_metric_count(s->task) : 1;
    TRY(scored_select(s, type, &selections, &count, err));
    for (int i = 0; i < count; i++)
        for (int m = 0; m < metrics && status == 0; m++)
            status = put_score_row(out, s, selections[i].name, m, &selections[i], err);
    selections_free(selections, count);
    return status;
}

static int put_scores(FILE *out, const Scored *s, Error *err) {
    fputs("<div class=\"wide\"><table>\n<tr><th></th><th>score</th><th>95 %</th><th></th>"
          "<th>questions</th></tr>\n",
          out);
    const bool files = s->count && s->lines[0].file;
    for (int m = 0; m < scored_metric_count(s->task) && !files; m++)
        TRY(put_score_row(out, s, NULL, m, NULL, err));
    if (files) TRY(put_groups(out, s, SELECT_FILES, err));
    for (int t = 0; t < SCORED_TYPES && s->task->types[t]; t++) TRY(put_groups(out, s, t, err));
    fputs("</table></div>\n", out);
    return 0;
}

static int put_report(EvalPage *page, const Scored *s, const json_t *result, const char *folder,
                      const PageOptions *o, Error *err) {
    const json_t *settings = json_object_get(result, "settings");
    const json_t *model = json_object_get(json_object_get(settings, "model"), "name");
    int64_t *lines, count;
    TRY(page_begin(page, "An evaluation", err));
    fputs("<p class=\"note\">", page->out);
    TRY(page_text_put(page->out, folder, err));
    fputs(", model ", page->out);
    TRY(page_text_put(page->out, json_string_value(model), err));
    fprintf(page->out, ", %s</p>\n", s->task->name);
    TRY(put_scores(page->out, s, err));
    TRY(pick(s->count, worst_key, s, o->answers, &lines, &count, err));
    fprintf(page->out, "<h2>The %lld worst answers, by %s</h2>\n", (long long)count,
            s->task->titles[0]);
    int status = page_cards(page, s->task, s->lines, NULL, lines, count, err);
    free(lines);
    if (status == 0) page_end(page);
    return status;
}

int eval_page_report(const Scored *s, const json_t *result, const char *folder,
                     const PageOptions *o, const char *path, Error *err) {
    Markup markup;
    EvalPage page = {.images = page_images(o, result)};
    TRY(markup_begin(&markup, err));
    page.out = markup.out;
    TRY(markup_end(&markup, put_report(&page, s, result, folder, o, err), err));
    return markup_write(markup.text, markup.size, path, err);
}
