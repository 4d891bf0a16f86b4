/* loader_scenes.h - the steps of the stage `segment`: images with a class for each patch, instead
 * of texts. For loader.c.
 */
#ifndef EASYFIRST_APPS_TRAIN_LOADER_SCENES_H
#define EASYFIRST_APPS_TRAIN_LOADER_SCENES_H

#include "apps/train/loader_step.h"

/* loader_make_step for scene graphs. A micro-batch has images and pixels; its targets are all of
 * their patches, target_ids the classes (-1: none), all weights 1 / patches of the step that have a
 * class. Its tokens are the rows of the tower, its `smoothing` that of the noise. */
int loader_make_scenes(const LoaderConfig *config, const BatchPlan *plan, int64_t epoch,
                       int64_t index, LoaderStep *step, Error *err);

#endif
