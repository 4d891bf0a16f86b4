/* train_settings.h - what a training run is configured with, and the papers' settings of each
 * stage. */
#ifndef EASYFIRST_PROJECTOR_TRAIN_SETTINGS_H
#define EASYFIRST_PROJECTOR_TRAIN_SETTINGS_H

#include <jansson.h>

#include "data/files/text_list.h"
#include "data/formats/prompt.h"
#include "kernels/optimizer.h"
#include "language/long_prompts.h"
#include "language/noise.h"
#include "projector/model.h"

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

extern const char *const stage_names[]; /* "adapt", ... */
const char *stage_name(TrainStage stage);

enum { ATTENTION_UNSET = -1 };

/* What says which model of a run is the best: its loss on held-out data, or the score of the answers
 * that it generates. */
typedef enum TrainBest {
    BEST_NONE,
    BEST_LOSS,
    BEST_BLEU,
    BEST_CHRF,
    BEST_ROUGE, /* Rouge-L */
    BEST_EXACT, /* equal without case and punctuation */
    BEST_F1,
    BEST_NUMBER, /* the last integer */
    BEST_CHOICE, /* the letter */
    BEST_COUNT
} TrainBest;

extern const char *const train_best_names[]; /* "none", "loss", "bleu", ... */

typedef struct TrainSettings {
    TrainStage stage;
    /* The model that training starts from, and where it goes. */
    ModelOptions model;
    const char *out;             /* folder of the run */
    bool resume;                 /* resume from the last complete checkpoint in `out` */
    ProjectorKind new_projector; /* a fresh one; PROJECTOR_NONE: the model's */
    /* Data. */
    TextList data;             /* files or folders */
    const char *images;        /* folder of images */
    const char *feature_cache; /* file for features of a frozen vision tower; NULL */
    Dtype feature_dtype;       /* of the features in it: DTYPE_BF16 or DTYPE_F32 */
    const char *valid;         /* held-out data in the same format; NULL: none */
    int valid_limit;           /* units of it that are used */
    int max_tokens;            /* of a sequence, 512 */
    bool context;              /* earlier turns before a question (full attention only) */
    bool plain;                /* leave the instruction out (align) */
    bool text_lines;           /* plain text: a document a line */
    const char *languages;     /* "en,fr": records in others are left out; NULL: none are */
    float max_bad_fraction;    /* more bad samples than this share stop the run; 0.01 */
    LongPrompts long_prompts;  /* text prompts that do not fit */
    int pad_answers; /* answers are filled up with end-of-text to so many tokens; 0: not; -1: as
                           * the model's folder says */
    float random_lengths; /* pretrain: the fraction of sequences whose length is random */
    /* Steps. */
    int epochs; /* used if steps is 0 */
    int steps;
    int batch_sequences; /* 0: by tokens */
    int batch_tokens;
    bool group;             /* steps of one modality and of similar lengths */
    int micro_batch_tokens; /* rows of one forward pass; more are accumulated. 0: 2048 */
    /* Optimiser. */
    float lr, vision_lr, projector_lr, language_lr; /* the parts' own: 0: `lr` */
    ScheduleKind schedule;
    float warmup_ratio; /* of all steps ... */
    int warmup_steps;   /* ... or this many, if not 0 */
    float decay_ratio;  /* SCHEDULE_WSD: of all steps, the last ones ... */
    int decay_steps;    /* ... or this many, if not 0 */
    OptimizerConfig optimizer;
    /* Objective. */
    NoiseConfig noise;
    float dropout;
    int attention; /* an AttentionPattern; ATTENTION_UNSET: as the model's folder says */
    /* What is trained. */
    bool train_vision;
    bool freeze_language;
    LoraConfig lora;
    bool recompute;
    /* Running. */
    Dtype save_dtype; /* DTYPE_NONE: as the model was stored; DTYPE_F32; DTYPE_BF16 */
    uint64_t seed;
    const char *device; /* as device_choose takes it */
    int threads;
    int image_threads; /* that decode the next step's images; 0: by the device */
    int log_every, valid_every, save_every; /* steps; 0: never (the end always saves) */
    int keep;                               /* checkpoints kept */
    int show_answers;                       /* decoded answers at each validation */
    TrainBest best_by;                      /* keeps the best model; needs `valid` */
    int valid_answers; /* that are decoded and scored at each validation; 0: 100 with best_by */
    int patience;      /* validations without a better one that end the run; 0: none does */
    int stop_after;    /* end the process after this many updates of this run, with a checkpoint;
                       0: not. The schedule is that of the whole run */
    bool quiet;
    PromptOptions prompt;         /* of data of other programs */
    ParallelFiles parallel;       /* training data besides `data` */
    ParallelFiles valid_parallel; /* held-out data instead of `valid` */
    /* Of several processes (ranks): what each has of the optimizer (ZeRO: 0 all, 1 its part of the
     * moments and masters, 2 of the gradients, 3 of blocks' weights, too). */
    int zero;
    int overlap;         /* TrainOverlap: exchanges beside the computation, from level 2 on */
    int rank, ranks;     /* this process's number, and how many; 0: alone */
    struct Share *share; /* kernels/comm/share.h; NULL: alone */
    json_t *file;        /* the config file's object, whose texts the fields above point to */
} TrainSettings;

/* By the device, or as the user says. */
typedef enum TrainOverlap { OVERLAP_AUTO, OVERLAP_ON, OVERLAP_OFF } TrainOverlap;
extern const char *const train_overlap_names[]; /* by TrainOverlap, up to NULL */

/* The papers' settings for a stage. */
void train_settings_default(TrainSettings *settings, TrainStage stage);

#endif
