/* finite.h - finds the source of non-finite numbers. */
#ifndef EASYFIRST_APPS_TRAIN_FINITE_H
#define EASYFIRST_APPS_TRAIN_FINITE_H

#include "apps/train/checkpoint.h"

/* Checks all weights that a prepared model computes with. *found: one of them is NaN or infinite,
 * and *err names the tensor and its file (`resumed` is the checkpoint that the run was resumed
 * from; NULL: none) and counts them. Errors: weights that cannot be read. */
int train_model_check_finite(const TrainModel *model, const char *resumed, bool *found, Error *err);

#endif
