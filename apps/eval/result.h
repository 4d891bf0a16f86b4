/* result.h - what a result was measured with: model, data and options in JSON, without times, so
 * that the same command gives the same bytes. */
#ifndef EASYFIRST_APPS_EVAL_RESULT_H
#define EASYFIRST_APPS_EVAL_RESULT_H

#include <jansson.h>

#include "apps/eval/items.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "data/files/file_write.h"

/* The options that all commands of `easyfirst eval` share. */
typedef struct EvalOptions {
    CommonOptions common;
    const char *out;   /* folder */
    const char *shard; /* "2/4" as given; NULL */
    int shard_index, shards;
    int limit;         /* 0: all */
    int batch_tokens;  /* 0: as many as fit into memory */
    char model[256];   /* "model_id" */
    int layers_over;   /* processes of each model; 0: one */
    struct Comm *comm; /* of several processes (together.h) */
} EvalOptions;

/* The rows --out, --limit, --shard, --layers-over and --batch-tokens, appended to a group. */
void eval_group_add(EvalOptions *options, OptionGroup *group);

/* Checks --out and --shard, then common_check. Returns -1 to continue, or the exit status. */
int eval_options_check(const CommandHelp *help, EvalOptions *options);

/* The "model_id" of answers: the last part of the model's folder. Also set in `options`. */
const char *eval_model_name(EvalOptions *options);

/* Of a folder of parts (its .json files): {"folder": its name, "sha256": {file: hash}}. NULL with a
 * message. */
json_t *eval_parts_json(const char *folder, Error *err);

/* From the headers of the model's files, before any weights are read: that it has a language model,
 * for `images` a vision tower and a projector, and lengths (o->length, or a predictor). */
int eval_check_model(const CommonOptions *o, bool images, Error *err);

/* {"file": its name without folders, "sha256"}. NULL with a message. */
json_t *eval_file_json(const char *path, Error *err);

/* Everything that answers depend on: "version", `command`, `data` (takes ownership), the model
 * (name and hash of each file, attention), decoding options, device and compute type. NULL with a
 * message. */
json_t *eval_settings_json(const EvalOptions *options, const Session *session, const char *command,
                           json_t *data, Error *err);

/* Adds how choices are scored, unless by denoising. */
void eval_choice_json(json_t *data, const AnswerOptions *answer);

/* {"easyfirst": version, "settings", "questions", "answered", "unanswered", "left_out",
 * "long_prompts": {"skipped", "shortened", "dropped_tokens"}, "skipped", "score"}, which takes
 * ownership of `settings` and `score`. `left_out` are entries of the files that are not items; may
 * be NULL. NULL with a message. */
json_t *eval_result_json(json_t *settings, const EvalItems *items, const Skipped *left_out,
                         json_t *score, Error *err);

/* Reports on standard error what could not be answered, and, unless quiet, the timings; for a
 * shard, how to join the shards. Sets *failed if an item of this run has no answer and was not
 * skipped. */
void eval_end(const EvalOptions *options, const EvalItems *items, const Skipped *left_out,
              const Timings *timings, Device *device, bool *failed);

/* A line on standard error for each kind: "what: kind: count (the first: ...)". */
void eval_skipped_print(const char *what, const Skipped *skipped);

/* Checks, before anything else, that `out` can be the folder of this evaluation, and that the files
 * to be read (folders are not checked) exist, are not pipes, and are not in it. */
int eval_check_files(const char *out, const FileRole *inputs, int count, Error *err);

#endif
