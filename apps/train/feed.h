/* feed.h - training data on its way: a thread that makes the next step's passes while this one is
 * computed.
 *
 * A step is a pure function of the data, the settings and its number: records are read, tokenized,
 * masked; pictures are decoded and preprocessed; all of it is packed into passes of limited size.
 * So a run that is taken up again at step n sees what the unbroken one would have seen.
 */
#ifndef EASYFIRST_APPS_TRAIN_FEED_H
#define EASYFIRST_APPS_TRAIN_FEED_H

#include "apps/train/feed_step.h"

typedef struct Feed Feed;

/* Starts the thread. *feed is NULL on failure. The configuration's pointers must outlive it. What
 * comes before the first step counts as met: a run that is resumed counts no record again. */
int feed_open(Feed **feed, const FeedConfig *config, Error *err);
void feed_close(Feed *feed); /* NULL is allowed; stops the thread */

/* The next step, waiting for it; after the last one an error. *step is the caller's:
 * feed_step_free. */
int feed_next(Feed *feed, FeedStep *step, Error *err);

/* One step made at once, without a thread: of an epoch's plan. */
int feed_make_step(const FeedConfig *config, const BatchPlan *plan, int64_t epoch, int64_t index,
                   FeedStep *step, Error *err);

/* The largest pass that a unit of this data can need by itself. */
LearnSizes feed_unit_sizes(const Dataset *dataset, const PackingConfig *packing);

#endif
