/* feed_scenes.h - the steps of the stage `segment`: pictures with a class for each patch, instead
 * of texts. For feed.c.
 */
#ifndef EASYFIRST_APPS_TRAIN_FEED_SCENES_H
#define EASYFIRST_APPS_TRAIN_FEED_SCENES_H

#include "apps/train/feed_step.h"

/* feed_make_step of scene graphs. A pass has pictures and pixels; its targets are all of their
 * patches, target_ids the classes (-1: none), weights one for all of them: 1 / patches of the step
 * that have a class. Its tokens are the rows of the tower, its `smoothing` that of the noise. */
int feed_make_scenes(const FeedConfig *config, const BatchPlan *plan, int64_t epoch, int64_t index,
                     FeedStep *step, Error *err);

#endif
