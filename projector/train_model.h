/* train_model.h - a model folder opened for training: which parts learn, in what form their weights
 * are held, the optimiser over them, and what all of it takes in memory.
 */
#ifndef EASYFIRST_PROJECTOR_TRAIN_MODEL_H
#define EASYFIRST_PROJECTOR_TRAIN_MODEL_H

#include "projector/train.h"
#include "projector/train_settings.h"
#include "vision/segment.h"

/* What a part does in a run. */
typedef enum PartDuty {
    DUTY_NONE,  /* not run: saved as it came */
    DUTY_RUN,   /* forward only: packed, as for answering */
    DUTY_PASS,  /* frozen, but gradients go through it: plain weights */
    DUTY_TRAIN, /* trained */
} PartDuty;

typedef struct TrainModel {
    Model model;
    PartDuty vision, projector, language, length;
    Params lora; /* the language model's, with rank > 0 */
    bool has_lora;
    bool fresh_projector; /* train_model_prepare scales it */
    /* The stage `segment`: its own layer over the tower. */
    SegmentHead head;
    Params head_params;
    Checkpoint head_file; /* that it goes on from, if there was one */
    json_t *classes;      /* their names; NULL: there is no such layer */
    TrainContext context;
    Optimizer optimizer;
} TrainModel;

/* Memory of a training run on a device, by what it is for. */
typedef struct TrainMemory {
    size_t weights; /* in the form that operations read: packed, plain, masters and copies */
    size_t gradients;
    size_t moments; /* of the optimiser, with Muon's workspace */
    size_t arena;   /* activations of one pass */
} TrainMemory;

static inline size_t train_memory_sum(const TrainMemory *m) {
    return m->weights + m->gradients + m->moments + m->arena;
}

/* Whether the settings' model has no token to mask and the objective needs one: model_add_mask
 * (model_mask.h) is due first. False, too, for a model that cannot be opened. */
bool train_model_needs_mask(const TrainSettings *settings, Device *device);

/* Opens the files and decides which parts do what in this stage. Missing parts that the stage needs
 * are errors that say what to do. On failure *t is empty. */
int train_model_open(TrainModel *t, const TrainSettings *settings, Device *device, Error *err);
void train_model_close(TrainModel *t);

/* For the stage `segment`, before one of the next two: gives it a layer for classes of these names
 * (NULL, for describing: so many). It is that of the model folder `from` (segment.safetensors, with
 * the names in segment.json) if its classes are the same, else, or with NULL, a fresh one. */
int train_model_classes(TrainModel *t, const char *from, uint64_t seed, const char *const *names,
                        int count, Error *err);

/* Once it is known whether the data have images: brings the weights into their forms and takes
 * gradients and moments. `compute` (may be NULL) are types recorded by the run that is resumed, for
 * vision, projector, language, length; DTYPE_NONE: as the settings say. */
int train_model_prepare(TrainModel *t, const TrainSettings *settings, bool images,
                        const Dtype *compute, Error *err);

/* In its place, for train_model_memory alone: takes nothing (params_train_describe). */
int train_model_describe(TrainModel *t, const TrainSettings *settings, bool images, Error *err);

/* The arena for passes of up to these sizes, of a prepared model or of a described one. */
size_t train_model_arena(const TrainModel *t, const TrainSettings *settings,
                         const TrainSizes *sizes);

/* What a prepared model has taken, or a described one would take, and the arena for passes of these
 * sizes. */
TrainMemory train_model_memory(const TrainModel *t, const TrainSettings *settings,
                               const TrainSizes *sizes);

/* Multiply-adds times two of the matmuls of a step, forward and, where there is one,
 * backward: rows through the language model, target rows through the head and the vocabulary,
 * images through the tower. Attention is not counted, nor is recomputation. */
double train_model_operations(const TrainModel *t, int64_t rows, int64_t targets, int64_t images);

/* A pass's limits: settings->micro_batch_tokens or the default, and never less than the largest unit
 * needs. */
TrainSizes train_model_sizes(const TrainSettings *settings, const TrainSizes *unit, int image_rows);

#endif
