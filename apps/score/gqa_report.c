#include "apps/score/gqa_report.h"

#include <math.h>
#include <string.h>

#include "apps/cli/report.h"
#include "data/files/json_memory.h"

/* In the official script's names and order. */
static const char *const titles[GQA_METRICS] = {
    "Binary",   "Open",         "Accuracy",  "Exact match",  "Consistency",
    "Validity", "Plausibility", "Grounding", "Distribution",
};
static const char *const table_titles[GQA_TABLES] = {
    "Accuracy / structural type", "Accuracy / semantic type",       "Accuracy / steps number",
    "Accuracy / words number",    "Accuracy / words of the answer",
};

static void print_counts(FILE *out, const GqaScore *s) {
    fprintf(out, "questions     %lld scored", (long long)s->questions);
    if (s->unbalanced) fprintf(out, ", %lld others", (long long)s->unbalanced);
    fprintf(out, "\npredictions   %lld", (long long)s->predictions);
    if (s->unknown) fprintf(out, ", %lld of them for no question here", (long long)s->unknown);
    fprintf(out, "\nunanswered    %lld\n", (long long)s->unanswered);
    if (s->check != GQA_NOT_TESTDEV)
        fprintf(out, "testdev       %s%s\n",
                s->check == GQA_CHECK_EQUAL ? "matches the published type counts"
                                            : "differs from the published type counts: ",
                s->check_text);
}

static void print_metric(FILE *out, GqaMetricKind kind, const GqaMetric *m) {
    fprintf(out, "%-14s", titles[kind]);
    if (!m->present)
        fprintf(out, "absent: %s\n", m->absent);
    else if (kind == GQA_DISTRIBUTION)
        fprintf(out, "%6.2f  (lower is better; %lld questions)\n", m->value, (long long)m->count);
    else
        fprintf(out, "%6.2f%% (%s%lld questions", m->value,
                kind == GQA_EXACT_MATCH ? "without case and punctuation; " : "",
                (long long)m->count);
    if (m->present && kind != GQA_DISTRIBUTION && m->sure)
        fprintf(out, "; 95 %%: %.2f to %.2f", m->interval.low, m->interval.high);
    if (m->present && kind != GQA_DISTRIBUTION) fputs(")\n", out);
}

void gqa_report_text(FILE *out, const GqaScore *score) {
    print_counts(out, score);
    fputc('\n', out);
    for (int m = 0; m < GQA_METRICS; m++) print_metric(out, (GqaMetricKind)m, &score->metrics[m]);
    for (int t = 0; t < GQA_TABLES; t++) {
        const GqaTable *table = &score->tables[t];
        if (!table->count) continue;
        fprintf(out, "\n%s\n", table_titles[t]);
        for (int i = 0; i < table->count; i++) {
            fputs("  ", out);
            report_field(out, table->rows[i].name);
            fprintf(out, ": %.2f%% (%lld questions)\n", table->rows[i].value,
                    (long long)table->rows[i].count);
        }
    }
}

/* ---- JSON. ---- */

static json_t *json_metrics(const GqaScore *score, bool absent) {
    json_t *object = json_object();
    for (int k = 0; k < GQA_METRICS; k++) {
        const GqaMetric *m = &score->metrics[k];
        const char *name = gqa_metric_name((GqaMetricKind)k);
        if (!absent)
            json_object_set_new(object, name, m->present ? json_real(m->value) : json_null());
        else if (!m->present)
            json_object_set_new(object, name, json_text(m->absent));
    }
    return object;
}

static json_t *json_counts(const GqaScore *score) {
    json_t *object = json_object();
    for (int k = 0; k < GQA_METRICS; k++)
        if (score->metrics[k].present)
            json_object_set_new(object, gqa_metric_name((GqaMetricKind)k),
                                json_integer(score->metrics[k].count));
    return object;
}

/* The intervals; NULL: there are none. */
static json_t *json_confidence(const GqaScore *score) {
    json_t *object = NULL;
    for (int k = 0; k < GQA_METRICS; k++) {
        const GqaMetric *m = &score->metrics[k];
        if (!m->sure) continue;
        if (!object) object = json_object();
        json_object_set_new(object, gqa_metric_name((GqaMetricKind)k),
                            json_pack("{s:f, s:f, s:f}", "mean", m->interval.mean, "low",
                                      m->interval.low, "high", m->interval.high));
    }
    return object;
}

static json_t *json_table(const GqaTable *table) {
    json_t *object = json_object();
    for (int i = 0; i < table->count; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "accuracy", json_real(table->rows[i].value));
        json_object_set_new(row, "questions", json_integer(table->rows[i].count));
        json_object_set_new(object, table->rows[i].name, row);
    }
    return object;
}

static json_t *json_skipped(const Skipped *skipped) {
    json_t *object = json_object();
    for (int i = 0; i < skipped->kind_count; i++) {
        json_t *one = json_object();
        json_object_set_new(one, "count", json_integer(skipped->kinds[i].count));
        json_object_set_new(one, "first", json_text(skipped->kinds[i].first));
        json_object_set_new(object, skipped->kinds[i].kind, one);
    }
    return object;
}

static json_t *json_check(const GqaScore *score) {
    if (score->check == GQA_NOT_TESTDEV) return json_null();
    if (score->check == GQA_CHECK_EQUAL) return json_string("matches");
    return json_sprintf("differs: %s", score->check_text);
}

json_t *gqa_report_json(const GqaScore *score) {
    json_memory_begin();
    json_t *object = json_object(), *tables = json_object();
    json_object_set_new(object, "questions", json_integer(score->questions));
    json_object_set_new(object, "unbalanced", json_integer(score->unbalanced));
    json_object_set_new(object, "predictions", json_integer(score->predictions));
    json_object_set_new(object, "unanswered", json_integer(score->unanswered));
    json_object_set_new(object, "unknown", json_integer(score->unknown));
    json_object_set_new(object, "metrics", json_metrics(score, false));
    json_t *confidence = json_confidence(score);
    if (confidence) json_object_set_new(object, "confidence", confidence);
    json_object_set_new(object, "counts", json_counts(score));
    json_object_set_new(object, "absent", json_metrics(score, true));
    for (int t = 0; t < GQA_TABLES; t++)
        json_object_set_new(tables, gqa_table_name((GqaTableKind)t), json_table(&score->tables[t]));
    json_object_set_new(object, "tables", tables);
    json_object_set_new(object, "testdev", json_check(score));
    if (json_object_set_new(object, "skipped", json_skipped(&score->skipped)) ||
        json_memory_failed()) {
        json_decref(object);
        return NULL;
    }
    return object;
}

void gqa_report_skipped(const GqaScore *score, const char *const *except) {
    for (int i = 0; i < score->skipped.kind_count; i++) {
        const SkippedKind *p = &score->skipped.kinds[i];
        int e = 0;
        while (except && except[e] && strcmp(except[e], p->kind) != 0) e++;
        if (except && except[e]) continue;
        report_error("warning: %s: %lld (%s%s)", p->kind, (long long)p->count,
                     p->count > 1 ? "first: " : "", p->first);
    }
    if (score->check == GQA_CHECK_DIFFERENT)
        report_error("warning: these are as many questions as testdev_balanced has, but not of its "
                     "types: %s",
                     score->check_text);
}
