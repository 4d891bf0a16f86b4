/* settings.h - a run's settings from a config file and the command line, as JSON and as a table.
 */
#ifndef EASYFIRST_APPS_TRAIN_SETTINGS_H
#define EASYFIRST_APPS_TRAIN_SETTINGS_H

#include <stdio.h>

#include "projector/train_settings.h"

/* Reads `easyfirst train STAGE ...`: argv[0] is "train". Options override those of --config FILE, a
 * JSON object whose keys are the long options' names ("batch-tokens": 4096; flags and switches true
 * or false; lists as arrays) and "stage", wherever --config stands; these override the stage's
 * defaults. With --resume the file is OUT/settings.json. Of two settings that say one thing in two
 * ways (steps and epochs, tokens and sequences of a batch, ratio and steps of the warmup) the one
 * given later puts the other to 0. The default of `context` follows the attention. Returns -1 to go
 * on, or the exit status after saying why. Free with train_settings_free, whatever it returned. */
int train_settings_read(TrainSettings *settings, int argc, char **argv);
void train_settings_free(TrainSettings *settings);

/* Checks what rows of options cannot. */
int train_settings_check(const TrainSettings *settings, Error *err);

/* Whether attention is block-causal, as the settings or else the model's folder say. A folder that
 * cannot be read is reported when the model is opened. */
bool train_settings_block_causal(const TrainSettings *settings);

/* All settings as a JSON object that --config reads back to the same settings; without `resume` and
 * `stop_after`, which belong to one start of the program. NULL without memory, or if a text is no
 * UTF-8. */
json_t *train_settings_json(const TrainSettings *settings);

/* The table of settings for people: two columns, in groups, on `out`; without those that do nothing
 * in this run. */
void train_settings_print(const TrainSettings *settings, FILE *out);

#endif
