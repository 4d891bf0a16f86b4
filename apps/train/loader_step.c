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
