/* loader_step.h - a training step's data, and what making it takes of every kind of data:
 * loader.c's texts and images, loader_scenes.c's scene graphs.
 */
#ifndef EASYFIRST_APPS_TRAIN_LOADER_STEP_H
#define EASYFIRST_APPS_TRAIN_LOADER_STEP_H

#include "apps/train/dataset.h"
#include "projector/packing.h"

typedef struct LoaderConfig {
    const Dataset *dataset;
    BatchConfig batches;
    PackingConfig packing;
    PreprocessConfig preprocess;
    int grid;                     /* of scene graphs: patches of an image in each direction */
    TrainSizes pass;              /* a pass's rows, target rows, images and prompts at most */
    int64_t first_step, end_step; /* steps to be made, counted from 0 */
    int64_t epoch, index;         /* where the first one stands: see LoaderStep */
    int64_t noise_epoch; /* added to the epoch for the noise: -1 for validation, whose noise
                            is its own and never changes */
    int threads;         /* for decoding images */
} LoaderConfig;

/* Everything of one training step. */
typedef struct LoaderStep {
    int64_t step;
    int64_t epoch, index; /* its place: step `index` of `steps` in epoch `epoch`, from 0 */
    int64_t steps;
    TrainBatch *passes; /* [pass_count] */
    int pass_count;
    int64_t sequences, tokens; /* that go in, copies not counted */
    int64_t rows, targets, images;
    Skipped skipped; /* images that could not be decoded: their units were left out. A record
                          is counted when the first of its units is met, and then no more, in
                          whichever step or epoch (Dataset.counted) */
} LoaderStep;

void loader_step_free(LoaderStep *step);

/* Counts what is wrong with a unit, if its record is not counted yet. */
void loader_problem(const Dataset *dataset, int64_t unit, Skipped *skipped, const char *kind,
                    const char *what);

/* An image's file as the tower reads it: *pixels [3, S, S], the caller's to free, and its own
 * size. What is wrong with the file is no error, but told in *bad (its text is else empty; *pixels
 * is then NULL). */
int loader_picture(const LoaderConfig *config, const char *path, float **pixels, int *width,
                   int *height, Error *bad, Error *err);

#endif
