/* loader.h - training data on its way: a thread that makes the next step's passes while this one is
 * computed.
 *
 * A step is a pure function of the data, the settings and its number: records are read, tokenized,
 * masked; images are decoded and preprocessed; all of it is packed into passes of limited size.
 * So a run that is taken up again at step n sees what the unbroken one would have seen.
 */
#ifndef EASYFIRST_APPS_TRAIN_LOADER_H
#define EASYFIRST_APPS_TRAIN_LOADER_H

#include "apps/train/loader_step.h"

typedef struct Loader Loader;

/* Starts the thread. *loader is NULL on failure. The configuration's pointers must outlive it.
 * What comes before the first step counts as met: a run that is resumed counts no record again. */
int loader_open(Loader **loader, const LoaderConfig *config, Error *err);
void loader_close(Loader *loader); /* NULL is allowed; stops the thread */

/* The next step, waiting for it; after the last one an error. *step is the caller's:
 * loader_step_free. */
int loader_next(Loader *loader, LoaderStep *step, Error *err);

/* One step made at once, without a thread: of an epoch's plan. */
int loader_make_step(const LoaderConfig *config, const BatchPlan *plan, int64_t epoch,
                     int64_t index, LoaderStep *step, Error *err);

/* The largest pass that a unit of this data can need by itself. */
TrainSizes loader_unit_sizes(const Dataset *dataset, const PackingConfig *packing);

#endif
