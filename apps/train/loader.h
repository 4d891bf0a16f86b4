/* loader.h - the data loader: a thread prefetches the next step's micro-batches while this one is
 * computed.
 *
 * A step is a pure function of the data, the settings and its number: records are read, tokenized,
 * masked; images are decoded and preprocessed; and packed into micro-batches of limited size. So a
 * run resumed at step n sees the same data as an uninterrupted one.
 */
#ifndef EASYFIRST_APPS_TRAIN_LOADER_H
#define EASYFIRST_APPS_TRAIN_LOADER_H

#include "apps/train/loader_step.h"

typedef struct Loader Loader;

/* Starts the thread. *loader is NULL on failure. The configuration's pointers must outlive it. Bad
 * records of the steps before the first one count as met: a resumed run counts no record again. */
int loader_open(Loader **loader, const LoaderConfig *config, Error *err);
void loader_close(Loader *loader); /* NULL is allowed; stops the thread */

/* Waits for the next step; after the last one an error. *step is the caller's: loader_step_free. */
int loader_next(Loader *loader, LoaderStep *step, Error *err);

/* Makes one step of an epoch's plan, without a thread. */
int loader_make_step(const LoaderConfig *config, const BatchPlan *plan, int64_t epoch,
                     int64_t index, LoaderStep *step, Error *err);

/* The largest micro-batch that a single unit of this data can need. */
TrainSizes loader_unit_sizes(const Dataset *dataset, const PackingConfig *packing);

#endif
