/* settings.h - everything that a training run is told, in one place: from the stage's
 * defaults (the papers'), a config file, and the command line, in this order.
 */
#ifndef EASYFIRST_APPS_TRAIN_SETTINGS_H
#define EASYFIRST_APPS_TRAIN_SETTINGS_H

#include <jansson.h>

#include "projector/model.h"
#include "apps/cli/options.h"
#include "kernels/optimizer.h"
#include "language/long_prompts.h"
#include "language/noise.h"

typedef enum TrainStage {
    STAGE_ADAPT,    /* text pairs: a masked language model becomes a diffusion language model */
    STAGE_INSTRUCT, /* the same on a mixture of instruction data */
    STAGE_ALIGN,    /* images and captions: the projector alone */
    STAGE_TUNE,     /* images and conversations: projector and language model */
    STAGE_LENGTH,   /* the length predictor */
    STAGE_PRETRAIN, /* plain text, everything masked: LLaDA's recipe */
    STAGE_SEGMENT,  /* images and where their objects are: the vision tower alone */
    STAGE_COUNT
} TrainStage;

const char *stage_name(TrainStage stage); /* "adapt", ... */

typedef struct TrainSettings {
    TrainStage stage;
    /* The model that training starts from, and where it goes. */
    ModelOptions model;
    const char *out;           /* folder of the run */
    bool resume;               /* go on from the last whole checkpoint in `out` */
    const char *new_projector; /* "linear" or "mlp2x_gelu": a fresh one instead of the model's */
    /* Data. */
    TextList data;          /* files or folders */
    const char *images;     /* folder of images */
    const char *valid;      /* held-out data in the same format; NULL: none */
    int valid_limit;        /* units of it that are used */
    int max_tokens;         /* of a sequence, 512 */
    bool context;           /* earlier turns before a question (full attention only) */
    bool plain;             /* leave the instruction out (align) */
    bool text_lines;        /* plain text: a document a line */
    float max_bad_fraction; /* more bad samples than this share stop the run; 0.01 */
    /* Text prompts that do not fit: name of a LongPrompts. */
    const char *long_prompts;
    /* Steps. */
    int epochs; /* used if steps is 0 */
    int steps;
    int batch_sequences; /* 0: by tokens */
    int batch_tokens;
    bool group;             /* steps of one modality and of similar lengths */
    int micro_batch_tokens; /* rows of one forward pass; more are accumulated. 0: 2048 */
    /* Optimiser. */
    float lr, vision_lr, projector_lr, language_lr; /* the parts' own: 0: `lr` */
    const char *schedule;                           /* name of a ScheduleKind */
    float warmup_ratio;                             /* of all steps ... */
    int warmup_steps;                               /* ... or this many, if not 0 */
    const char *update;                             /* "adamw", "muon" */
    OptimizerConfig optimizer;
    /* Objective. */
    const char *objective; /* "rdm", "llada" */
    NoiseConfig noise;     /* objective, timesteps, weighting, smoothing, complementary */
    const char *weighting; /* "linear", "constant" */
    float dropout;
    const char *attention; /* "full", "block-causal"; NULL: as the model's folder says */
    /* What is trained. */
    bool train_vision;
    bool freeze_language;
    LoraConfig lora;
    const char *lora_targets; /* "query,value" */
    bool recompute;
    /* Running. */
    const char *save_dtype; /* "auto": as the model was stored; "f32", "bf16" */
    uint64_t seed;
    const char *device; /* as device_choose takes it */
    int threads;
    int log_every, valid_every, save_every; /* steps; 0: never (the end always saves) */
    int keep;                               /* checkpoints kept */
    int show_answers;                       /* decoded answers at each validation */
    int stop_after; /* end the process after this many updates of this run, with a checkpoint;
                       0: not. The schedule is that of the whole run */
    bool quiet;
    json_t *file; /* the config file's object, whose texts the fields above point to */
} TrainSettings;

/* The papers' settings for a stage. */
void train_settings_default(TrainSettings *settings, TrainStage stage);

/* Reads `easyfirst train STAGE ...`: argv[0] is "train". Options override those of --config FILE, a
 * JSON object whose keys are the long options' names ("batch-tokens": 4096; flags and switches true
 * or false; lists as arrays) and "stage", wherever --config stands; these override the stage's
 * defaults. With --resume the file is OUT/settings.json. Of two settings that say one thing in two
 * ways (steps and epochs, tokens and sequences of a batch, ratio and steps of the warmup) the one
 * given later puts the other to 0. The default of `context` follows the attention. Returns -1 to go
 * on, or the exit status after saying why. Free with train_settings_free, whatever it returned. */
int train_settings_read(TrainSettings *settings, int argc, char **argv);
void train_settings_free(TrainSettings *settings);

/* Checks what rows of options cannot; fills `noise`, `lora.targets` and `optimizer.muon` from their
 * texts. */
int train_settings_check(TrainSettings *settings, Error *err);

/* All settings as a JSON object that --config reads back to the same settings; without `resume` and
 * `stop_after`, which belong to one start of the program. NULL without memory, or if a text is no
 * UTF-8. */
json_t *train_settings_json(const TrainSettings *settings);

/* The table of settings for people: two columns, in groups, on `out`; without those that do nothing
 * in this run. */
void train_settings_print(const TrainSettings *settings, FILE *out);

#endif
