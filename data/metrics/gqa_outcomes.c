/* gqa_outcomes.c - what came of each question, and how sure the means over them are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/metrics/gqa.h"
#include "data/metrics/gqa_state.h"

static int copy_text(char **to, const TextTable *table, int32_t number, Error *err) {
    if (number < 0) return 0;
    *to = strdup(text_table_get(table, number));
    return *to ? 0 : error_set(err, "out of memory for what came of the questions");
}

/* A question's values; those of absent metrics do not count. */
static void fill_values(const GqaState *s, const GqaScored *q, bool open, float *values) {
    const GqaIdState *id = &s->states[q->id];
    const float right = gqa_right(id);
    values[GQA_BINARY] = q->structural < 0 || open ? NAN : right;
    values[GQA_OPEN] = q->structural >= 0 && open ? right : NAN;
    values[GQA_ACCURACY] = right;
    values[GQA_EXACT_MATCH] = q->exact;
    values[GQA_CONSISTENCY] = (float)q->entailed;
    values[GQA_VALIDITY] = q->valid == GQA_UNKNOWN ? NAN : q->valid;
    values[GQA_PLAUSIBILITY] = q->plausible == GQA_UNKNOWN ? NAN : q->plausible;
    const bool seen = s->scenes && q->image >= 0 && s->scenes[q->image].known;
    values[GQA_GROUNDING] = !seen ? NAN : q->grounded ? (float)q->grounding : 0;
    values[GQA_DISTRIBUTION] = NAN;
    for (int k = 0; k < GQA_METRICS; k++)
        if (!s->score->metrics[k].present) values[k] = NAN;
}

int gqa_keep_outcomes(GqaState *s, Error *err) {
    GqaScore *score = s->score;
    int32_t query = text_table_find(&s->names, "query");
    score->outcomes = calloc((size_t)score->questions + 1, sizeof *score->outcomes);
    if (!score->outcomes)
        return error_set(err, "out of memory for %lld questions", (long long)score->questions);
    for (size_t i = 0; i < s->scored_count; i++) {
        const GqaScored *q = &s->scored[i];
        if (!q->live) continue;
        GqaOutcome *o = &score->outcomes[score->outcome_count++];
        TRY(copy_text(&o->id, &s->ids, q->id, err));
        TRY(copy_text(&o->structural, &s->names, q->structural, err));
        TRY(copy_text(&o->semantic, &s->names, q->semantic, err));
        TRY(copy_text(&o->detailed, &s->names, q->detailed, err));
        TRY(copy_text(&o->gold, &s->answers, s->states[q->id].gold, err));
        TRY(copy_text(&o->prediction, &s->answers, s->states[q->id].prediction, err));
        fill_values(s, q, q->structural == query, o->values);
    }
    return 0;
}

int gqa_confidence(GqaScore *score, const ResampleOptions *options, Error *err) {
    for (int k = 0; k < GQA_METRICS; k++) {
        LineStats stats;
        GqaMetric *m = &score->metrics[k];
        if (!m->present || k == GQA_DISTRIBUTION) continue;
        TRY(mean_stats_open(&stats, (int64_t)score->outcome_count, err));
        for (size_t i = 0; i < score->outcome_count; i++)
            mean_stats_set(&stats, (int64_t)i, (double)score->outcomes[i].values[k]);
        int status = resample_interval(&stats, 1, options, &m->interval, err);
        line_stats_free(&stats);
        TRY(status);
        m->sure = !isnan(m->interval.mean);
    }
    return 0;
}
