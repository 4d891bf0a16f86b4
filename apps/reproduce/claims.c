#include "apps/reproduce/claims.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/compare.h"
#include "data/files/path.h"

const char *const verdict_names[] = {"open", "confirmed", "contradicted", NULL};

/* ---- Differences. ---- */

/* "exact_match" of "score/files/0/exact_match". */
static const char *metric_of(const PlanCell *cell) {
    const char *slash = cell->value ? strrchr(cell->value, '/') : NULL;
    return slash ? slash + 1 : cell->value ? cell->value : "";
}

/* The folder of a step's result.json; the caller's to free. */
static char *folder_of(const Plan *p, const PlanCell *cell, Error *err) {
    return path_format(err, "%.*s",
                       (int)(strlen(p->steps[cell->step].result) - strlen("/result.json")),
                       p->steps[cell->step].result);
}

static bool is_evaluation(const Plan *p, const PlanCell *cell) {
    static const char ending[] = "/result.json";
    const char *result = p->steps[cell->step].result;
    const size_t size = strlen(result), end = sizeof ending - 1;
    return size > end && !strcmp(result + size - end, ending) && !cell->of && cell->scale == 1;
}

/* From the comparison's row of the metric over all questions; false if it has none. */
static bool take_row(Claim *claim, const Comparison *c) {
    for (int i = 0; i < c->row_count; i++) {
        const CompareRow *row = &c->rows[i];
        if (row->group || strcmp(c->sides[0].task->keys[row->metric], metric_of(claim->greater)))
            continue;
        claim->difference = row->paired.scores[1] - row->paired.scores[0];
        claim->low = row->paired.difference.low;
        claim->high = row->paired.difference.high;
        return !isnan(claim->low);
    }
    return false;
}

/* Whether both asked the same questions, so that they can be compared one by one. */
static bool compare_pair(const Plan *p, Claim *claim) {
    if (!is_evaluation(p, claim->greater) || !is_evaluation(p, claim->less) ||
        strcmp(metric_of(claim->greater), metric_of(claim->less)) != 0)
        return false;
    Error none;
    Comparison comparison;
    const ResampleOptions options = {0};
    char *less = folder_of(p, claim->less, &none), *greater = folder_of(p, claim->greater, &none);
    bool found = false;
    if (less && greater && !compare_open(&comparison, less, greater, true, &options, &none)) {
        found = take_row(claim, &comparison);
        compare_free(&comparison);
    }
    free(less), free(greater);
    return found;
}

static double half_width(const Outcome *o) {
    return (o->high - o->low) / 2;
}

static void judge(const Plan *p, const Outcome *outcomes, Claim *claim) {
    const Outcome *a = &outcomes[claim->greater - p->cells], *b = &outcomes[claim->less - p->cells];
    claim->difference = a->value - b->value;
    claim->low = claim->high = NAN;
    if (isnan(a->value) || isnan(b->value)) {
        claim->why = isnan(a->value) ? a->why : b->why;
        return;
    }
    claim->paired = compare_pair(p, claim);
    if (!claim->paired) {
        const double half = hypot(half_width(a), half_width(b));
        claim->low = claim->difference - half, claim->high = claim->difference + half;
    }
    if (claim->low > 0) claim->verdict = VERDICT_CONFIRMED;
    if (claim->high < 0) claim->verdict = VERDICT_CONTRADICTED;
}

/* ---- Of a plan. ---- */

static const PlanCell *find_cell(const Plan *p, const char *row, const char *size) {
    for (int i = 0; i < p->cell_count; i++)
        if (!strcmp(p->cells[i].row, row) && !strcmp(p->cells[i].of_size, size))
            return &p->cells[i];
    return NULL;
}

static int add_claim(Claims *claims, Claim claim, Error *err) {
    Claim *grown = realloc(claims->items, ((size_t)claims->count + 1) * sizeof *grown);
    if (!grown) return error_set(err, "out of memory for a table's claims");
    claims->items = grown;
    claims->items[claims->count++] = claim;
    return 0;
}

int claims_judge(Claims *claims, const Plan *p, const Outcome *outcomes, Error *err) {
    *claims = (Claims){NULL, 0};
    for (size_t i = 0; i < json_array_size(p->claims); i++) {
        const json_t *json = json_array_get(p->claims, i);
        const char *greater = json_string_value(json_object_get(json, "greater"));
        const char *less = json_string_value(json_object_get(json, "less"));
        for (int c = 0; c < p->cell_count; c++) {
            if (strcmp(p->cells[c].row, greater) != 0) continue;
            Claim claim = {.text = json_string_value(json_object_get(json, "text")),
                           .greater = &p->cells[c],
                           .less = find_cell(p, less, p->cells[c].of_size)};
            if (!claim.less) continue;
            judge(p, outcomes, &claim);
            TRY(add_claim(claims, claim, err));
        }
    }
    return 0;
}

void claims_free(Claims *claims) {
    free(claims->items);
    *claims = (Claims){NULL, 0};
}
