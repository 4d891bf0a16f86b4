/* feed_step.h - a training step's data, and what making it takes of every kind of data: feed.c's
 * texts and pictures, feed_scenes.c's scene graphs.
 */
#ifndef EASYFIRST_APPS_TRAIN_FEED_STEP_H
#define EASYFIRST_APPS_TRAIN_FEED_STEP_H

#include "apps/train/dataset.h"
#include "projector/packing.h"

typedef struct FeedConfig {
    const Dataset *dataset;
    BatchConfig batches;
    PackingConfig packing;
    PreprocessConfig preprocess;
    int grid;                     /* of scene graphs: patches of a picture in each direction */
    LearnSizes pass;              /* a pass's rows, target rows, pictures and prompts at most */
    int64_t first_step, end_step; /* steps to be made, counted from 0 */
    int64_t epoch, index;         /* where the first one stands: see FeedStep */
    int64_t noise_epoch; /* added to the epoch for the noise: -1 for validation, whose noise
                            is its own and never changes */
    int threads;         /* for decoding pictures */
} FeedConfig;

/* Everything of one training step. */
typedef struct FeedStep {
    int64_t step;
    int64_t epoch, index; /* its place: step `index` of `steps` in epoch `epoch`, from 0 */
    int64_t steps;
    LearnBatch *passes; /* [pass_count] */
    int pass_count;
    int64_t sequences, tokens; /* that go in, copies not counted */
    int64_t rows, targets, pictures;
    Problems problems; /* pictures that could not be decoded: their units were left out. A record
                          is counted when the first of its units is met, and then no more, in
                          whichever step or epoch (Dataset.counted) */
} FeedStep;

void feed_step_free(FeedStep *step);

/* Counts what is wrong with a unit, if its record is not counted yet. */
void feed_problem(const Dataset *dataset, int64_t unit, Problems *problems, const char *kind,
                  const char *what);

/* A picture's file as the tower reads it: *pixels [3, S, S], the caller's to free, and its own
 * size. What is wrong with the file is no error, but told in *bad (its text is else empty; *pixels
 * is then NULL). */
int feed_picture(const FeedConfig *config, const char *path, float **pixels, int *width,
                 int *height, Error *bad, Error *err);

#endif
