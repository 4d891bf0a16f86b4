/* compare_rows.c - the numbers of a comparison. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/compare.h"

/* ---- Whether both are about the same. ---- */

static bool same_text(const char *a, const char *b) {
    return !strcmp(a ? a : "", b ? b : "");
}

static int same_line(const ScoredLine *a, const ScoredLine *b, bool other_prompts, Error *err) {
    const bool prompt = other_prompts || same_text(a->prompt, b->prompt);
    const char *differs = !same_text(a->target, b->target) ? "target"
                          : !prompt                        ? "text"
                          : !same_text(a->image, b->image) ? "image"
                                                           : NULL;
    if (!differs) return 0;
    return error_set(err,
                     "question %.80s has another %s in the two evaluations: only answers to the "
                     "same questions can be compared",
                     a->id, differs);
}

/* Puts the second side's lines into the order of the first. */
static int pair_lines(Comparison *c, const char *first, const char *second, Error *err) {
    Scored *a = &c->sides[0], *b = &c->sides[1];
    TextTable ids = {0};
    int status = 0;
    for (int64_t i = 0; i < b->count && status == 0; i++) {
        bool fresh = false;
        status = text_table_add(&ids, b->lines[i].id, &(int32_t){0}, &fresh, err);
        if (status == 0 && !fresh)
            status =
                error_set(err, "%s: scored.jsonl has question %.80s twice", second, b->lines[i].id);
    }
    ScoredLine *lines = malloc(((size_t)a->count + 1) * sizeof *lines);
    if (!lines && status == 0) status = error_set(err, "out of memory for the questions");
    if (status == 0 && a->count != b->count)
        status = error_set(err,
                           "%s has %lld scored questions, %s has %lld: only answers to the same "
                           "questions can be compared",
                           first, (long long)a->count, second, (long long)b->count);
    for (int64_t i = 0; i < a->count && status == 0; i++) {
        int32_t at = text_table_find(&ids, a->lines[i].id);
        if (at < 0)
            status = error_set(err,
                               "question %.80s of %s is not in %s: only answers to the same "
                               "questions can be compared",
                               a->lines[i].id, first, second);
        else if ((status = same_line(&a->lines[i], &b->lines[at], c->other_prompts, err)) == 0)
            lines[i] = b->lines[at];
    }
    text_table_free(&ids);
    if (status == 0) {
        free(b->lines);
        b->lines = lines, b->capacity = b->count;
    } else {
        free(lines);
    }
    return status;
}

static int check_kinds(const Comparison *c, const char *first, const char *second, Error *err) {
    const Scored *a = &c->sides[0], *b = &c->sides[1];
    if (a->task != b->task)
        return error_set(err, "%s is an evaluation of %s, %s of %s: they cannot be compared", first,
                         a->task->name, second, b->task->name);
    const json_t *x = json_object_get(json_object_get(c->results[0], "score"), "tokenize");
    const json_t *y = json_object_get(json_object_get(c->results[1], "score"), "tokenize");
    if (!x == !y && (!x || json_equal((json_t *)x, (json_t *)y))) return 0;
    return error_set(err,
                     "BLEU has the tokenizer %.40s in %s and %.40s in %s: evaluate one of them "
                     "again, with the other's --tokenize (it asks nothing twice)",
                     json_string_value(x), first, json_string_value(y), second);
}

/* ---- Rows. ---- */

int compare_winner(const Comparison *c, int64_t i) {
    double a = c->sides[0].lines[i].values[0], b = c->sides[1].lines[i].values[0];
    if (isnan(a) || isnan(b)) return 0;
    return (b - a > 1e-9) - (a - b > 1e-9);
}

static bool counts(const Comparison *c, int64_t i, int metric) {
    return !isnan(c->sides[0].lines[i].values[metric]) ||
           !isnan(c->sides[1].lines[i].values[metric]);
}

static void count_winners(const Comparison *c, CompareRow *row, const Selection *s) {
    for (int64_t k = 0; k < s->count; k++) {
        int winner = compare_winner(c, s->lines[k]);
        row->count += counts(c, s->lines[k], row->metric);
        row->won += winner > 0, row->lost += winner < 0, row->same += winner == 0;
    }
}

/* A row of a metric, the mean over `count` selections. */
static int add_row(Comparison *c, const char *group, const char *name, int metric,
                   const Selection *selections, int count, const ResampleOptions *options,
                   Error *err) {
    CompareRow row = {.metric = metric, .p_holm = NAN};
    for (int i = 0; i < count; i++) count_winners(c, &row, &selections[i]);
    if (!row.count) return 0; /* the metric is absent */
    LineStats *stats[2] = {calloc((size_t)count + 1, sizeof **stats),
                           calloc((size_t)count + 1, sizeof **stats)};
    int status = stats[0] && stats[1] ? 0 : error_set(err, "out of memory for the comparison");
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < count && status == 0; i++)
            status = scored_stats(&c->sides[s], metric, &selections[i], &stats[s][i], err);
    if (status == 0) status = resample_pair(stats[0], stats[1], count, options, &row.paired, err);
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < count && stats[s]; i++) line_stats_free(&stats[s][i]);
        free(stats[s]);
    }
    CompareRow *grown =
        status ? NULL : realloc(c->rows, ((size_t)c->row_count + 1) * sizeof *grown);
    if (status == 0 && !grown) status = error_set(err, "out of memory for the comparison");
    if (status) return -1;
    c->rows = grown;
    TRY(scored_text(&row.group, group, err));
    TRY(scored_text(&row.name, name, err));
    c->rows[c->row_count++] = row;
    return 0;
}

static int by_p(const void *a, const void *b) {
    const double x = (*(CompareRow *const *)a)->paired.p_random;
    const double y = (*(CompareRow *const *)b)->paired.p_random;
    return (x > y) - (x < y);
}

/* Holm (1979): the smallest of m p values is multiplied by m, the next one by m - 1 and so on, and none is
 * below the one before it. The rows from `begin` on that are of this metric. */
static int correct_rows(Comparison *c, int begin, int metric, Error *err) {
    CompareRow **rows = calloc((size_t)c->row_count + 1, sizeof(CompareRow *));
    int count = 0;
    double least = 0;
    if (!rows) return error_set(err, "out of memory for the comparison");
    for (int i = begin; i < c->row_count; i++)
        if (c->rows[i].metric == metric && !isnan(c->rows[i].paired.p_random))
            rows[count++] = &c->rows[i];
    qsort(rows, (size_t)count, sizeof *rows, by_p);
    for (int i = 0; i < count; i++) {
        least = fmax(least, fmin(1, (count - i) * rows[i]->paired.p_random));
        rows[i]->p_holm = least;
    }
    free(rows);
    return 0;
}

/* The groups' own rows: files have all metrics, types the first one. */
static int group_rows(Comparison *c, int type, const ResampleOptions *options, Error *err) {
    const ScoredTask *task = c->sides[0].task;
    const char *group = type == SELECT_FILES ? "file" : task->types[type];
    Selection *selections;
    const int begin = c->row_count;
    int count, status = 0;
    TRY(scored_select(&c->sides[0], type, &selections, &count, err));
    const int metrics = type == SELECT_FILES ? scored_metric_count(task) : 1;
    for (int i = 0; i < count && (count > 1 || type != SELECT_FILES); i++)
        for (int m = 0; m < metrics && status == 0; m++)
            status = add_row(c, group, selections[i].name, m, &selections[i], 1, options, err);
    selections_free(selections, count);
    for (int m = 0; m < metrics && status == 0; m++) status = correct_rows(c, begin, m, err);
    return status;
}

/* All metrics of all questions; of several files their means, as in an evaluation. */
static int all_rows(Comparison *c, const ResampleOptions *options, Error *err) {
    const Scored *a = &c->sides[0];
    Selection *files,
        all = {.count = a->count, .lines = malloc(((size_t)a->count + 1) * sizeof(int64_t))};
    int count = 0, status = all.lines ? 0 : error_set(err, "out of memory for the comparison");
    for (int64_t i = 0; i < a->count && status == 0; i++) all.lines[i] = i;
    if (status == 0) status = scored_select(a, SELECT_FILES, &files, &count, err);
    for (int m = 0; m < scored_metric_count(a->task) && status == 0; m++)
        status = add_row(c, NULL, NULL, m, count > 1 ? files : &all, count > 1 ? count : 1, options,
                         err);
    if (count) selections_free(files, count);
    free(all.lines);
    return status;
}

static int compare_all(Comparison *c, const char *first, const char *second,
                       const ResampleOptions *options, Error *err) {
    const ScoredTask *task;
    TRY(scored_read(&c->sides[0], first, &c->results[0], err));
    TRY(scored_read(&c->sides[1], second, &c->results[1], err));
    TRY(check_kinds(c, first, second, err));
    TRY(pair_lines(c, first, second, err));
    for (int64_t i = 0; i < c->sides[0].count; i++) {
        int winner = compare_winner(c, i);
        c->won += winner > 0, c->lost += winner < 0, c->same += winner == 0;
    }
    TRY(all_rows(c, options, err));
    task = c->sides[0].task;
    TRY(group_rows(c, SELECT_FILES, options, err));
    for (int t = 0; t < SCORED_TYPES && task->types[t]; t++) TRY(group_rows(c, t, options, err));
    return 0;
}

int compare_open(Comparison *c, const char *first, const char *second, bool other_prompts,
                 const ResampleOptions *options, Error *err) {
    *c = (Comparison){.other_prompts = other_prompts};
    if (!compare_all(c, first, second, options, err)) return 0;
    compare_free(c);
    return -1;
}

void compare_free(Comparison *c) {
    for (int i = 0; i < c->row_count; i++) free(c->rows[i].group), free(c->rows[i].name);
    free(c->rows);
    for (int s = 0; s < 2; s++) scored_free(&c->sides[s]), json_decref(c->results[s]);
    *c = (Comparison){.row_count = 0};
}

const char *compare_model(const Comparison *c, int side) {
    const json_t *settings = json_object_get(c->results[side], "settings");
    const char *name =
        json_string_value(json_object_get(json_object_get(settings, "model"), "name"));
    return name ? name : "";
}
