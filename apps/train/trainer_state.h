/* trainer_state.h - what the files of the training loop share: trainer.c, and validate.c, which
 * measures the model on held-out data and keeps the best. */
#ifndef EASYFIRST_APPS_TRAIN_TRAINER_STATE_H
#define EASYFIRST_APPS_TRAIN_TRAINER_STATE_H

#include "apps/train/start.h"
#include "apps/train/trainer.h"

typedef struct Trainer {
    TrainSettings *settings;
    Ranks *ranks; /* of several processes */
    Device *device;
    TrainModel model;
    bool model_open;
    Dataset data, valid;
    LoaderConfig loader_config, valid_config;
    BatchPlan valid_plan;
    Loader *loader;
    FeatureCache *features; /* NULL: none are kept */
    bool features_told;     /* that nothing can be added any more */
    Arena arena;
    TrainSizes sizes;
    float *losses; /* of one micro-batch */
    Schedule schedule;
    TrainState state;
    TrainState good; /* as it was after the last update that was not skipped */
    RunFolder run;
    TrainCheckpoints checkpoints;
    TrainReport report;
    bool report_open;
    Skipped skipped;      /* bad images, each record once: loader.h */
    Skipped reported;     /* their kinds already reported */
    TrainStart start;     /* a model that got a mask token */
    double peak;          /* operations per second; 0: unknown */
    double peak_f32;      /* the same in f32, where bf16 is computed in on a CPU; 0: unknown */
    double started;       /* clock at the start of this part of the run, minus earlier parts */
    int skipped_in_a_row; /* consecutive updates with a non-finite norm; steps without any target
                             neither lengthen nor end a streak */
    bool diverged;        /* the current model is not worth a checkpoint */
    bool save_owed;       /* a checkpoint was due within a streak */
    int passes_over;      /* in this step */
    int64_t made, rounds; /* updates of this process, and passes in them */
    struct {              /* since the last point; losses and norms are in `state` */
        double operations, since;
        int64_t tokens, rows;
    } sum;
} Trainer;

/* A line for the user that is not part of the progress line. */
void trainer_say(Trainer *trainer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reports the first of each kind of what is wrong with images. */
void trainer_report_skipped(Trainer *trainer, const Skipped *found);

/* Sum of the losses of all micro-batches; their gradients accumulate. `score` (may be NULL) is the
 * stage segment's. */
int trainer_run_passes(Trainer *trainer, const LoaderStep *step, TrainRun run, double *loss,
                       SegmentScore *score, Error *err);

/* What a validation found; NaN: nothing. */
typedef struct TrainValid {
    double loss;
    double score; /* of generated answers, percent */
    SegmentScore segment;
} TrainValid;

/* Logs a point of training, or (`valid` not NULL) of validation. */
int trainer_tell_point(Trainer *trainer, const TrainValid *valid, const LoaderStep *step,
                       Error *err);

/* Loss and, with --best-by, score of the held-out data; a model that is the best so far is written
 * to RUN/best. */
int trainer_validate(Trainer *trainer, const LoaderStep *at, Error *err);

/* Whether --patience has run out. */
bool trainer_out_of_patience(const Trainer *trainer);

#endif
