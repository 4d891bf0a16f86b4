#include "apps/train/loader_step.h"

#include <stdlib.h>

int loader_image(const LoaderConfig *c, const char *path, float **pixels, int *width, int *height,
                 Error *bad, Error *err) {
    Image image;
    *pixels = NULL;
    *bad = (Error){{0}};
    if (preprocess_read(&image, width, height, path, &c->preprocess, NULL, bad)) return 0;
    size_t plane = (size_t)c->preprocess.size * (size_t)c->preprocess.size;
    *pixels = malloc(3 * plane * sizeof **pixels);
    int status = *pixels ? 0 : error_set(err, "out of memory for an image");
    if (status == 0 && preprocess_image(*pixels, &image, &c->preprocess, bad)) {
        free(*pixels);
        *pixels = NULL;
    }
    image_free(&image);
    return status;
}

/* Rows that a unit takes, roughly. */
static int64_t unit_cost(const LoaderConfig *c, int64_t unit) {
    const BatchUnit *u = &c->dataset->units[unit];
    return 1 + u->tokens + u->sequences + (u->image ? c->packing.image_rows : 0);
}

void loader_units(const LoaderConfig *c, const BatchPlan *plan, int64_t index, int64_t *first,
                  int64_t *end) {
    int64_t sum = 0, before = 0, i = plan->step_begin[index];
    *first = i, *end = plan->step_begin[index + 1];
    if (c->ranks <= 1) return;
    for (int64_t k = i; k < *end; k++) sum += unit_cost(c, plan->order[k]);
    /* A unit belongs to the rank in whose share of the cost its middle lies. */
    const int64_t last = *end;
    *first = *end = last;
    for (; i < last; i++) {
        const int64_t cost = unit_cost(c, plan->order[i]);
        const int64_t rank = (2 * before + cost) * c->ranks / (2 * sum);
        if (rank >= c->rank && *first == last) *first = i;
        if (rank > c->rank) {
            *end = i;
            break;
        }
        before += cost;
    }
    if (*first > *end) *first = *end;
}

void loader_count_bad(const Dataset *dataset, int64_t unit, Skipped *skipped, const char *kind,
                      const char *what) {
    unsigned char *counted = &dataset->counted[dataset->units[unit].record];
    if (*counted & RECORD_MET) return;
    (*counted & RECORD_BAD ? skipped_more : skipped_add)(skipped, kind, "%s", what);
    *counted |= RECORD_BAD | RECORD_MET;
}

void loader_step_free(LoaderStep *step) {
    for (int i = 0; i < step->pass_count; i++) train_batch_free(&step->passes[i]);
    free(step->passes);
    *step = (LoaderStep){0};
}
