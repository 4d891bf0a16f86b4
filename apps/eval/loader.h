/* loader.h - image prefetch: a thread reads, decodes and crops the next batch's images while the
 * questions of this one are answered. */
#ifndef EASYFIRST_APPS_EVAL_LOADER_H
#define EASYFIRST_APPS_EVAL_LOADER_H

#include <stdint.h>

#include "vision/preprocess.h"

/* One image, cropped to the square that the vision tower reads (preprocess_crop, which is
 * idempotent). */
typedef struct EvalImage {
    Image image;
    int width, height; /* of the file */
    Error bad;         /* why it cannot be used; else its text is empty */
} EvalImage;

typedef struct EvalLoaderConfig {
    const char *folder;
    const char *const *names; /* [count] files within it */
    const int64_t *ends;      /* [batches]: batch b has the names [ends[b - 1], ends[b]) */
    int64_t batches;
    PreprocessConfig preprocess;
    int threads; /* that decode images */
} EvalLoaderConfig;

typedef struct EvalLoader EvalLoader;

/* Starts the thread. *loader is NULL on failure. The configuration's pointers must outlive it. */
int eval_loader_open(EvalLoader **loader, const EvalLoaderConfig *config, Error *err);
void eval_loader_close(EvalLoader *loader); /* NULL is allowed; stops the thread */

/* Waits for the images of the next batch; [count], the caller's: eval_images_free. */
int eval_loader_next(EvalLoader *loader, EvalImage **images, Error *err);
void eval_images_free(EvalImage *images, int64_t count);

#endif
