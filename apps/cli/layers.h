/* layers.h - a command whose language model is spread over mpirun's processes by layers
 * (language/spread.h): the first of them runs it, the others open their part and answer its messages.
 */
#ifndef EASYFIRST_APPS_CLI_LAYERS_H
#define EASYFIRST_APPS_CLI_LAYERS_H

#include "apps/cli/common.h"

/* Of CommonOptions; NULL there: the model is not spread. */
typedef struct Layers {
    Comm *comm;
    int over; /* the ranks of a model */
    Spread *spread;
    Device *device; /* ... once the model is open */
    bool asked;     /* layers_command: the first rank has asked the others to open it */
} Layers;

/* Runs a command that has a model of its own, which it opens with library_open, on the first rank,
 * and what the others do, and says what failed: 0 or -1. Started alone it is run(user). What `run`
 * opened must be open still when it returns. */
int layers_command(CommonOptions *o, int (*run)(void *user, Error *err), void *user);

/* For what opens the model of `layers`, on the first rank before and on all after it (`status`): then
 * all know whether all have it. */
int layers_before(Layers *layers, Error *err);
int layers_after(Layers *layers, int status, Error *err);

/* The second part of that: once all have opened it. */
int layers_meet(Layers *layers, Error *err);

/* What a rank does with its open model: `work` on the first of a group, which then ends the others'
 * part; else it serves. */
int layers_work(Layers *layers, int (*work)(void *user, Error *err), void *user, Error *err);

#endif
