/* feed.h - training data on its way: a thread that makes the next step's passes while this one is
 * computed.
 *
 * A step is a pure function of the data, the settings and its number: records are read, tokenized,
 * masked; pictures are decoded and preprocessed; all of it is packed into passes of limited size.
 * So a run that is taken up again at step n sees what the unbroken one would have seen.
 */
#ifndef EASYFIRST_APPS_TRAIN_FEED_H
#define EASYFIRST_APPS_TRAIN_FEED_H

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

typedef struct Feed Feed;

/* Starts the thread. *feed is NULL on failure. The configuration's pointers must outlive it. */
int feed_open(Feed **feed, const FeedConfig *config, Error *err);
void feed_close(Feed *feed); /* NULL is allowed; stops the thread */

/* The next step, waiting for it; after the last one an error. *step is the caller's:
 * feed_step_free. */
int feed_next(Feed *feed, FeedStep *step, Error *err);
void feed_step_free(FeedStep *step);

/* Counts what is wrong with a unit, if its record is not counted yet. */
void feed_problem(const Dataset *dataset, int64_t unit, Problems *problems, const char *kind,
                  const char *what);

/* A picture's file as the tower reads it: *pixels [3, S, S], the caller's to free, and its own
 * size. What is wrong with the file is no error, but told in *bad (its text is else empty; *pixels
 * is then NULL). */
int feed_picture(const FeedConfig *config, const char *path, float **pixels, int *width,
                 int *height, Error *bad, Error *err);

/* One step made at once, without a thread: of an epoch's plan. */
int feed_make_step(const FeedConfig *config, const BatchPlan *plan, int64_t epoch, int64_t index,
                   FeedStep *step, Error *err);

/* The largest pass that a unit of this data can need by itself. */
LearnSizes feed_unit_sizes(const Dataset *dataset, const PackingConfig *packing);

#endif
