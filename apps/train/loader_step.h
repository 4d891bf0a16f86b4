/* loader_step.h - a training step's data, and what loader.c (texts and images) and loader_scenes.c
 * (scene graphs) share in making it.
 */
#ifndef EASYFIRST_APPS_TRAIN_LOADER_STEP_H
#define EASYFIRST_APPS_TRAIN_LOADER_STEP_H

#include "apps/train/dataset.h"
#include "apps/train/feature_cache.h"
#include "projector/packing.h"

typedef struct LoaderConfig {
    const Dataset *dataset;
    BatchConfig batches;
    PackingConfig packing;
    PreprocessConfig preprocess;
    int grid;                     /* of scene graphs: patches of an image in each direction */
    TrainSizes pass;              /* limits of a micro-batch: rows, target rows, images and
                                     prompts */
    int64_t first_step, end_step; /* steps to make, counted from 0 */
    int64_t epoch, index;         /* place of the first one: see LoaderStep */
    int64_t noise_epoch; /* added to the epoch for the noise: -1 for validation, whose noise never
                            changes */
    int threads;         /* for decoding images */
    FeatureCache *features; /* where images' features are kept; NULL */
    int rank, ranks;        /* of several processes: steps are this one's part of them */
} LoaderConfig;

/* Everything of one training step. */
typedef struct LoaderStep {
    int64_t step;
    int64_t epoch, index; /* its place: step `index` of `steps` in epoch `epoch`, from 0 */
    int64_t steps;
    TrainBatch *passes; /* [pass_count] */
    int pass_count;
    int64_t sequences, tokens; /* without copies */
    int64_t rows, targets, images;
    Skipped skipped; /* images that could not be decoded: their units were left out. A record is
                        counted at the first of its units, and then no more, in any step or epoch
                        (Dataset.counted) */
    /* The losses' weights are divided by `divisor`: the sequences of the whole step, other ranks'
     * included, or the targets of this part of it; `parts` are those that it has. */
    double divisor;
    int64_t parts;
} LoaderStep;

void loader_step_free(LoaderStep *step);

/* The units of a step, [*first, *end) of the plan's order: of several ranks this one's part, about
 * equal by tokens. */
void loader_units(const LoaderConfig *config, const BatchPlan *plan, int64_t index, int64_t *first,
                  int64_t *end);

/* Counts what is wrong with a unit, if its record is not counted yet. */
void loader_count_bad(const Dataset *dataset, int64_t unit, Skipped *skipped, const char *kind,
                      const char *what);

/* Reads an image file as the vision tower's input: *pixels [3, S, S], the caller's to free, and the
 * file's size in pixels. A bad file is not an error: *bad has the reason (else empty) and *pixels
 * is NULL. */
int loader_image(const LoaderConfig *config, const char *path, float **pixels, int *width,
                 int *height, Error *bad, Error *err);

#endif
