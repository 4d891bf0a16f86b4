/* scored_select.c - scored questions by file or type, and the intervals of an evaluation of texts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/scored.h"
#include "apps/score/sure.h"
#include "data/files/json_memory.h"

static int selection_add(Selection *s, int64_t line, Error *err) {
    if (s->count == s->capacity) {
        int64_t capacity = s->capacity ? 2 * s->capacity : 64;
        int64_t *lines = realloc(s->lines, (size_t)capacity * sizeof *lines);
        if (!lines) return error_set(err, "out of memory for %lld questions", (long long)capacity);
        s->lines = lines, s->capacity = capacity;
    }
    s->lines[s->count++] = line;
    return 0;
}

void selections_free(Selection *selections, int count) {
    for (int i = 0; i < count; i++) free(selections[i].name), free(selections[i].lines);
    free(selections);
}

static int select_all(const Scored *s, int type, TextTable *names, Selection **selections,
                      int *count, Error *err) {
    for (int64_t i = 0; i < s->count; i++) {
        const ScoredLine *line = &s->lines[i];
        const char *name = type == SELECT_FILES ? line->file : line->types[type];
        int32_t number;
        bool fresh;
        if (!name) continue;
        TRY(text_table_add(names, name, &number, &fresh, err));
        if (fresh) {
            Selection *grown = realloc(*selections, ((size_t)*count + 1) * sizeof *grown);
            if (!grown) return error_set(err, "out of memory for %d kinds of questions", *count);
            *selections = grown;
            grown[(*count)++] = (Selection){0};
            TRY(scored_text(&grown[number].name, name, err));
        }
        TRY(selection_add(&(*selections)[number], i, err));
    }
    return 0;
}

int scored_select(const Scored *s, int type, Selection **selections, int *count, Error *err) {
    TextTable names = {0};
    *selections = NULL, *count = 0;
    int status = select_all(s, type, &names, selections, count, err);
    text_table_free(&names);
    if (status == 0) return 0;
    selections_free(*selections, *count);
    *selections = NULL, *count = 0;
    return -1;
}

/* ---- Intervals. ---- */

/* The interval of the mean over some selections. */
static int selection_interval(const Scored *s, int metric, const Selection *selections, int count,
                              Interval *interval, Error *err) {
    LineStats *stats = calloc((size_t)count + 1, sizeof *stats);
    int status = stats ? 0 : error_set(err, "out of memory for %d kinds of questions", count);
    for (int i = 0; i < count && status == 0; i++)
        status = scored_stats(s, metric, &selections[i], &stats[i], err);
    if (status == 0) status = resample_interval(stats, count, NULL, interval, err);
    for (int i = 0; i < count && stats; i++) line_stats_free(&stats[i]);
    free(stats);
    return status;
}

/* Adds the intervals of all metrics to a row. */
static int row_confidence(const Scored *s, const Selection *selections, int count, json_t *row,
                          Error *err) {
    json_t *all = json_object();
    int status = 0;
    for (int m = 0; m < scored_metric_count(s->task) && status == 0; m++) {
        Interval interval;
        status = selection_interval(s, m, selections, count, &interval, err);
        if (status == 0 && !isnan(interval.mean))
            json_object_set_new(all, s->task->keys[m], interval_json(&interval));
    }
    if (json_object_set_new(row, "confidence", all) && status == 0)
        status = error_set(err, "out of memory for the scores");
    return status;
}

static int files_confidence(const Scored *s, const Selection *files, int count, json_t *scores,
                            Error *err) {
    json_t *rows = json_object_get(scores, "files"), *row, *mean = json_object_get(scores, "mean");
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *name = json_string_value(json_object_get(row, "file"));
        for (int f = 0; f < count; f++)
            if (name && !strcmp(name, files[f].name))
                TRY(row_confidence(s, &files[f], 1, row, err));
    }
    return mean && count ? row_confidence(s, files, count, mean, err) : 0;
}

static int macro_confidence(const Scored *s, json_t *scores, Error *err) {
    Selection *subjects;
    Interval interval;
    int count;
    if (!json_object_get(scores, "macro")) return 0;
    TRY(scored_select(s, 0, &subjects, &count, err));
    int status = count ? selection_interval(s, 0, subjects, count, &interval, err) : 0;
    selections_free(subjects, count);
    if (status == 0 && count &&
        json_object_set_new(scores, "macro_confidence", interval_json(&interval)))
        status = error_set(err, "out of memory for the scores");
    return status;
}

int scored_confidence(const Scored *s, json_t *scores, Error *err) {
    Selection *files;
    int count;
    TRY(scored_select(s, SELECT_FILES, &files, &count, err));
    int status = files_confidence(s, files, count, scores, err);
    selections_free(files, count);
    return status ? status : macro_confidence(s, scores, err);
}
