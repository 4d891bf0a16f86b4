/* gqa_metric.c - one metric: its name, its value, or why it is absent. */
#include <stdio.h>

#include "data/metrics/gqa_state.h"

const char *gqa_metric_name(GqaMetricKind kind) {
    static const char *const names[GQA_METRICS] = {
        "binary",   "open",         "accuracy",  "exact_match",  "consistency",
        "validity", "plausibility", "grounding", "distribution",
    };
    return names[kind];
}

void gqa_absent(GqaScore *score, GqaMetricKind kind, const char *why) {
    score->metrics[kind] = (GqaMetric){.present = false};
    snprintf(score->metrics[kind].absent, sizeof score->metrics[kind].absent, "%s", why);
}

void gqa_mean(GqaScore *score, GqaMetricKind kind, double sum, int64_t count, const char *why) {
    GqaMetric *metric = &score->metrics[kind];
    if (count == 0 && why) {
        gqa_absent(score, kind, why);
        return;
    }
    *metric = (GqaMetric){.present = true, .count = count};
    if (count) metric->value = 100 * (sum / (double)count);
}
