/* common.h - options that several commands share: the model and its parts, the device, how answers
 * are decoded. */
#ifndef EASYFIRST_APPS_CLI_COMMON_H
#define EASYFIRST_APPS_CLI_COMMON_H

#include <limits.h>

#include "apps/cli/options.h"
#include "projector/answers.h"
#include "projector/model.h"

typedef struct CommonOptions {
    ModelOptions model;
    AnswerOptions answer;
    const char *strategy;      /* as decode_strategy_parse takes it */
    float confidence, entropy; /* --confidence-threshold, --entropy-bound */
    bool confidence_given, entropy_given, samples_given;
    int length;                  /* tokens of the answer; 0: predicted */
    const char *answer_template; /* the answer's text with gaps; NULL: none */
    const char *device;
    int threads;
    bool json, quiet;
    bool no_answers;        /* none are wanted: any language model will do */
    struct Layers *layers;  /* a model that is spread over several processes (layers.h); NULL */
    char bundled[PATH_MAX]; /* the bundled model's folder, where it is used */
} CommonOptions;

/* The rows of --device and --threads, for every command that computes. */
Option device_option(const char **device);
Option threads_option(int *threads);

/* The rows that name a model and its parts; `folder_help` says what is taken without -m. */
void model_parts_group(ModelOptions *model, const char *folder_help, OptionGroup *group);
/* These, how it computes, and those two. */
void model_group(ModelOptions *model, const char **device, int *threads, OptionGroup *group);

/* Defaults; then a group of what is said of answers. It points into `o`, which must stay. A command
 * that wants another default sets it in between; decode.iterations 0 lets the steps follow the
 * answer's length. */
void common_init(CommonOptions *o);
void common_answer_group(CommonOptions *o, OptionGroup *group);

/* Checks what the rows cannot: the name of the strategy, and that a model is named, by
 * $EASYFIRST_MODEL if nowhere else; without that it is the bundled one. Returns -1 to go on, or the
 * exit status. */
int common_check(const CommandHelp *help, CommonOptions *o);

/* Tokens that an answer has at least, 0 where that needs a length predictor: a template does not. */
int common_least_length(const CommonOptions *o);

/* How many requests go into one call: `most`, fewer where each has many hypotheses or steps, so
 * that one that fits by itself does not fail for memory because of those beside it. */
int common_at_once(const CommonOptions *o, int most);

#endif
