/* settings_check.c - what rows of options cannot check: settings that belong together, to the stage,
 * and to the files that are there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/cli/options.h"
#include "apps/cli/prompt_options.h"
#include "apps/train/settings.h"
#include "apps/train/start.h"
#include "data/files/archive.h"
#include "data/files/path.h"

static int check_path(const char *option, const char *path, Error *err) {
    if (access(path, R_OK) == 0) return 0;
    if (errno == ENOTDIR && archive_path(path)) return 0;
    (void)access(path, R_OK); /* errno again */
    return error_set(err, "--%s %s: %s", option, path, strerror(errno));
}

static int check_folder(const char *option, const char *path, Error *err) {
    struct stat found;
    TRY(check_path(option, path, err));
    if (archive_path(path)) return 0;
    if (stat(path, &found) || !S_ISDIR(found.st_mode))
        return error_set(err, "--%s %s: not a folder", option, path);
    return access(path, R_OK | X_OK) ? error_set(err, "--%s %s: %s", option, path, strerror(errno))
                                     : 0;
}

/* Shows the language model images. */
static bool sees(TrainStage stage) {
    return stage == STAGE_ALIGN || stage == STAGE_TUNE;
}

static int check_data(const TrainSettings *s, Error *err) {
    const char *stage = stage_name(s->stage);
    const ParallelFiles *p = &s->parallel, *v = &s->valid_parallel;
    if (!s->data.count && !p->source && !p->pairs)
        return error_set(err, "there is nothing to train on: name files or folders with --data, or "
                              "parallel files with --source and --target");
    TRY(prompt_options_check(&s->prompt, p, err));
    if ((v->source != NULL) != (v->target != NULL) || (v->source && s->valid))
        return error_set(err,
                         "held-out data are either --valid, or --valid-source and --valid-target");
    if (s->stage == STAGE_SEGMENT && (p->source || p->pairs || v->source))
        return error_set(err, "parallel files: segment learns from scene graphs");
    if (!s->out) return error_set(err, "no folder for the run is named: --out RUN");
    for (int i = 0; i < s->data.count; i++) TRY(check_path("data", s->data.items[i], err));
    if (s->images) TRY(check_folder("images", s->images, err));
    if (s->valid) TRY(check_path("valid", s->valid, err));
    bool segment = s->stage == STAGE_SEGMENT;
    if (s->images && !sees(s->stage) && s->stage != STAGE_LENGTH && !segment)
        return error_set(err,
                         "--images: %s trains on text alone; images are for align and tune, "
                         "and segment",
                         stage);
    if (segment && !s->images)
        return error_set(err, "segment learns from images: name their folder with --images");
    if (s->plain && s->stage != STAGE_ALIGN)
        return error_set(err, "--plain belongs to align, where captions have no instruction of "
                              "their own");
    if (s->text_lines && s->stage != STAGE_PRETRAIN)
        return error_set(err,
                         "--text-lines: plain text is for pretrain; %s needs prompts and answers: "
                         "lines of {\"inputs\": ..., \"targets\": ...}, or LLaVA's records",
                         stage);
    if (s->languages && segment)
        return error_set(err, "--languages: segment learns from images, which have no text");
    if (s->long_prompts != LONG_PROMPTS_KEEP_LAST && (segment || s->stage == STAGE_PRETRAIN))
        return error_set(err, "--long-prompts: %s has no prompts", stage);
    if (s->random_lengths > 0 && s->stage != STAGE_PRETRAIN)
        return error_set(err,
                         "--random-lengths: only pretrain has texts that may be divided "
                         "anywhere; %s has answers",
                         stage);
    if (s->pad_answers > 0 && (segment || s->stage == STAGE_PRETRAIN))
        return error_set(err, "--pad-answers: %s has no answers to fill up", stage);
    if (s->context && train_settings_block_causal(s))
        return error_set(err,
                         "--context on needs full attention: with block-causal attention a turn "
                         "sees the image and itself; leave it out, or use --attention full");
    if (!(s->max_bad_fraction >= 0 && s->max_bad_fraction <= 1))
        return error_set(err, "--max-bad-fraction is %g, expected a fraction from 0 to 1",
                         (double)s->max_bad_fraction);
    return 0;
}

/* A program may have set what no option lets through. */
static int check_enum(const char *option, const char *const *names, int value, Error *err) {
    const Option row = {.kind = OPTION_CHOICE, .names = names};
    char words[OPTION_ARGUMENT_SIZE];
    for (int i = 0; names[i]; i++)
        if (i == value) return 0;
    return error_set(err, "--%s is number %d, expected %s", option, value,
                     option_argument(&row, words));
}

static int check_enums(const TrainSettings *s, Error *err) {
    TRY(check_enum("optimizer", optimizer_names, (int)s->optimizer.kind, err));
    TRY(check_enum("moments", moment_names, (int)s->optimizer.moments, err));
    if (s->optimizer.kind == OPTIMIZER_MUON && s->optimizer.moments == MOMENTS_8BIT)
        return error_set(err, "--moments 8bit is of adamw: muon's are in 32 bits");
    TRY(check_enum("master-weights", master_names, (int)s->optimizer.masters, err));
    if (s->optimizer.kind == OPTIMIZER_MUON && s->optimizer.masters == MASTERS_NONE)
        return error_set(err, "--master-weights none is of adamw: muon's are in f32");
    TRY(check_enum("schedule", schedule_names, (int)s->schedule, err));
    TRY(check_enum("objective", objective_names, (int)s->noise.objective, err));
    return check_enum("weighting", weighting_names, (int)s->noise.weighting, err);
}

static int check_optimizer(const TrainSettings *s, Error *err) {
    const OptimizerConfig *o = &s->optimizer;
    if (!(o->muon_momentum >= 0 && o->muon_momentum < 1))
        return error_set(err, "--muon-momentum is %g, expected at least 0 and less than 1",
                         (double)o->muon_momentum);
    if (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1) || !(o->eps > 0) ||
        !(o->weight_decay >= 0) || !(o->clip >= 0))
        return error_set(err,
                         "the optimizer's beta1 %g, beta2 %g, eps %g, decay %g, clip %g make "
                         "no sense",
                         (double)o->beta1, (double)o->beta2, (double)o->eps,
                         (double)o->weight_decay, (double)o->clip);
    return 0;
}

/* The stage's own default may be the one that is too long. */
static int check_warmup(const TrainSettings *s, Error *err) {
    TrainSettings usual;
    if (!s->steps || s->warmup_steps <= s->steps) return 0;
    train_settings_default(&usual, s->stage);
    bool own = s->warmup_steps == usual.warmup_steps;
    return error_set(
        err,
        "--warmup-steps %d%s%s%s is more than --steps %d: give --warmup-steps, at most "
        "%d, or --warmup-ratio",
        s->warmup_steps, own ? " (the default of " : "", own ? stage_name(s->stage) : "",
        own ? ")" : "", s->steps, s->steps);
}

static int check_steps(const TrainSettings *s, Error *err) {
    if (s->steps < 0 || s->epochs < 0 || (!s->steps && !s->epochs))
        return error_set(err, "how long to train is not said: --steps N, or --epochs N");
    if (s->batch_tokens < 0 || s->batch_sequences < 0 || (!s->batch_tokens && !s->batch_sequences))
        return error_set(err, "the size of a batch is not said: --batch-tokens N, or "
                              "--batch-sequences N");
    if (s->batch_tokens && s->batch_sequences)
        return error_set(err, "a batch is measured in tokens or in sequences, not in both");
    if (!(s->lr > 0))
        return error_set(err, "--lr is %g: nothing would be learned; expected a number above 0",
                         (double)s->lr);
    TRY(check_warmup(s, err));
    if (s->decay_steps && s->schedule != SCHEDULE_WSD)
        return error_set(err,
                         "--decay-steps: only the schedule wsd has a decay of its own; "
                         "--schedule %s falls over all steps after the warmup",
                         schedule_name(s->schedule));
    return check_optimizer(s, err);
}

static int check_objective(const TrainSettings *s, Error *err) {
    bool llada = s->noise.objective == OBJECTIVE_LLADA, ar = s->noise.objective == OBJECTIVE_AR;
    bool constant = s->noise.weighting == WEIGHTING_CONSTANT;
    if (ar && (constant || s->noise.complementary))
        return error_set(err,
                         "--%s belongs to masked diffusion: with the objective ar every token "
                         "has a loss of weight 1",
                         constant ? "weighting" : "complementary");
    if (ar && s->stage == STAGE_LENGTH)
        return error_set(err, "--objective ar: the length predictor has none; leave it out");
    if (ar && s->attention != ATTENTION_UNSET && s->attention != ATTENTION_CAUSAL)
        return error_set(err, "--attention %s: --objective ar has causal attention; leave it out",
                         attention_name((AttentionPattern)s->attention));
    if (!ar && s->attention == ATTENTION_CAUSAL)
        return error_set(err, "--attention causal is for --objective ar: masked diffusion needs "
                              "full or block-causal attention");
    if (llada && constant)
        return error_set(err, "--weighting belongs to the objective rdm: llada weighs a masked "
                              "token by 1 / its probability");
    if (!llada && s->noise.complementary)
        return error_set(err, "--complementary belongs to the objective llada: rdm has two coupled "
                              "copies of its own");
    if (!(s->dropout >= 0 && s->dropout < 1))
        return error_set(err, "--dropout is %g, expected a share from 0 to below 1",
                         (double)s->dropout);
    return 0;
}

static int check_lora(const TrainSettings *s, Error *err) {
    if (!s->lora.rank) return 0;
    if (!(s->lora.alpha > 0)) return error_set(err, "--lora-alpha must be above 0");
    if (s->stage == STAGE_ALIGN || s->stage == STAGE_LENGTH)
        return error_set(err, "--lora-rank is of the language model, which %s does not train",
                         stage_name(s->stage));
    if (s->freeze_language)
        return error_set(err, "--lora-rank trains the language model, --freeze-language does not: "
                              "leave one out");
    return 0;
}

/* Whether the model's folder has an entry of this name. */
static bool in_model(const TrainSettings *s, const char *name) {
    if (!s->model.folder) return false;
    char *path = path_join(s->model.folder, name, NULL);
    bool found = path && access(path, F_OK) == 0;
    free(path);
    return found;
}

/* Refuses settings that the stage does not use: they would have no effect. */
static int check_segment(const TrainSettings *s, Error *err) {
    const ModelOptions *m = &s->model;
    const char *idle = s->train_vision                      ? "train-vision"
                       : s->freeze_language                 ? "freeze-language"
                       : s->new_projector != PROJECTOR_NONE ? "new-projector"
                       : s->lora.rank                       ? "lora-rank"
                       : s->dropout > 0                     ? "dropout"
                                                            : NULL;
    if (idle)
        return error_set(err,
                         "--%s: segment trains the vision tower, which has no dropout, and nothing "
                         "else; leave it out",
                         idle);
    if (m->vision || in_model(s, "vision")) return 0;
    return error_set(err, "segment needs a vision tower: name one with --vision PATH");
}

static int check_parts(const TrainSettings *s, Error *err) {
    const ModelOptions *m = &s->model;
    const char *stage = stage_name(s->stage);
    if (!m->folder && !m->language && !(m->vision && s->stage == STAGE_SEGMENT))
        return error_set(err, "no model is named to start from: give its folder with -m FOLDER or "
                              "in the environment as EASYFIRST_MODEL (train does not take the "
                              "bundled one by itself), or its parts with --language and so on");
    if (m->folder) TRY(check_path("model", m->folder, err));
    if (s->out) TRY(train_start_apart(s, err));
    if (s->feature_cache && !sees(s->stage) && s->stage != STAGE_LENGTH)
        return error_set(err, "--feature-cache: %s needs no features of images: leave it out",
                         stage);
    if (s->feature_cache && s->train_vision)
        return error_set(err,
                         "--feature-cache: the features of a tower that is trained change with "
                         "each step; leave it out, or --train-vision");
    if (s->feature_dtype != DTYPE_NONE && !s->feature_cache)
        return error_set(err, "--feature-dtype: no features are kept without --feature-cache FILE");
    if (s->stage == STAGE_SEGMENT) return check_segment(s, err);
    if (s->train_vision && s->stage != STAGE_TUNE)
        return error_set(err, "--train-vision belongs to tune: %s leaves the vision tower as it is",
                         stage);
    if (s->freeze_language && !sees(s->stage))
        return error_set(err, "--freeze-language: %s would have nothing to train", stage);
    if (s->new_projector != PROJECTOR_NONE && !sees(s->stage))
        return error_set(err, "--new-projector belongs to align and tune: %s uses no projector",
                         stage);
    if (!sees(s->stage)) return 0;
    if (!m->vision && !in_model(s, "vision"))
        return error_set(err, "%s needs a vision tower: name one with --vision PATH", stage);
    if (s->new_projector != PROJECTOR_NONE && m->projector)
        return error_set(err, "--projector and --new-projector are both given: start with one");
    if (s->new_projector == PROJECTOR_NONE && !m->projector &&
        !in_model(s, "projector.safetensors"))
        return error_set(err, "this model has no projector: --new-projector mlp2x_gelu starts with "
                              "a fresh one");
    return 0;
}

/* Which model is the best. */
static int check_best(const TrainSettings *s, Error *err) {
    const char *stage = stage_name(s->stage);
    TRY(check_enum("best-by", train_best_names, (int)s->best_by, err));
    const char *idle = s->valid_answers ? "valid-answers" : s->patience ? "patience" : NULL;
    if (!s->best_by && idle)
        return error_set(err, "--%s: nothing says which model is the best: add --best-by", idle);
    if (!s->best_by) return 0;
    if (!s->valid && !s->valid_parallel.source)
        return error_set(err, "--best-by needs held-out data: name a file with --valid");
    if (s->best_by == BEST_LOSS && s->valid_answers)
        return error_set(err, "--valid-answers: --best-by loss decodes no answers");
    const bool answers =
        s->stage != STAGE_LENGTH && s->stage != STAGE_SEGMENT && s->stage != STAGE_PRETRAIN;
    if (s->best_by != BEST_LOSS && !answers)
        return error_set(err, "--best-by %s: %s has no answers to prompts; --best-by loss",
                         train_best_names[s->best_by], stage);
    return 0;
}

int train_settings_check(const TrainSettings *s, Error *err) {
    TRY(check_enums(s, err));
    TRY(check_parts(s, err));
    TRY(check_data(s, err));
    TRY(check_steps(s, err));
    TRY(check_objective(s, err));
    TRY(check_lora(s, err));
    TRY(check_best(s, err));
    TRY(check_enum("overlap", train_overlap_names, s->overlap, err));
    if (s->overlap == OVERLAP_ON && s->zero < 2)
        return error_set(err,
                         "--overlap on: with --zero %d nothing is exchanged block by block; "
                         "expected --zero 2 or 3, or --overlap auto",
                         s->zero);
    json_t *json = train_settings_json(s);
    if (!json)
        return error_set(err, "the settings cannot be kept as JSON: a file's name is no "
                              "UTF-8, or there is no memory");
    json_decref(json);
    return 0;
}
