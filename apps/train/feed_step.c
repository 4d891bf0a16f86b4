#include "apps/train/feed_step.h"

#include <stdlib.h>

int feed_picture(const FeedConfig *c, const char *path, float **pixels, int *width, int *height,
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

void feed_problem(const Dataset *dataset, int64_t unit, Problems *problems, const char *kind,
                  const char *what) {
    unsigned char *counted = &dataset->counted[dataset->units[unit].record];
    if (*counted & RECORD_MET) return;
    (*counted & RECORD_BAD ? problems_more : problems_add)(problems, kind, "%s", what);
    *counted |= RECORD_BAD | RECORD_MET;
}

void feed_step_free(FeedStep *step) {
    for (int i = 0; i < step->pass_count; i++) learn_batch_free(&step->passes[i]);
    free(step->passes);
    *step = (FeedStep){0};
}
