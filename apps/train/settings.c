#include "apps/train/settings.h"

#include <stdlib.h>
#include <string.h>

#include "apps/cli/common.h"
#include "apps/cli/prompt_options.h"
#include "apps/cli/report.h"
#include "apps/train/presets.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"
#include "kernels/names.h"
#include "kernels/nearest_word.h"
#include "projector/model_config.h"

/* STAGE_COUNT if there is none of that name. */
static TrainStage stage_find(const char *name) {
    int stage = names_find(stage_names, name);
    return stage < 0 ? STAGE_COUNT : (TrainStage)stage;
}

static const CommandHelp help = {
    .name = "train",
    .usage = "STAGE --data FILE... -m MODEL --out RUN [options]\n"
             "[STAGE] --config FILE | --preset NAME [options]\n"
             "--preset list\n"
             "--resume --out RUN",
    .about =
        "Trains a model and writes checkpoints, each a model folder, into the folder RUN, with\n"
        "settings.json, metrics.jsonl and loss.svg. The stages and their\n"
        "defaults (the papers' settings):\n"
        "\n"
        "  adapt     a masked language model learns to fill in whole answers: text pairs;\n"
        "            32768 tokens a batch, lr 5e-5, inverse-sqrt, 150000 steps, dropout 0.1\n"
        "  instruct  the same on instructions, a mixture of files:\n"
        "            512 sequences a batch, lr 1e-5, inverse-sqrt, 70000 steps, dropout 0.1\n"
        "  align     images and captions train the projector alone:\n"
        "            256 sequences, lr 1e-3, cosine, 1 epoch, no dropout, no weight decay\n"
        "  tune      images and conversations train projector and language model:\n"
        "            128 sequences, lr 2e-5, cosine, 1 epoch, dropout 0.1, no weight decay\n"
        "  length    the length predictor, from prompts and the lengths of their answers:\n"
        "            512 sequences, lr 1e-4, cosine, 1 epoch, dropout 0.1\n"
        "  pretrain  plain text, everything may be masked (the objective llada):\n"
        "            131072 tokens, lr 4e-4, cosine, 100000 steps, weight decay 0.1\n"
        "  segment   the vision tower alone, from images with the boxes of their objects (GQA's\n"
        "            scene graphs): which object covers each patch; 64 images, lr 1e-3,\n"
        "            cosine, 10 epochs, weight decay 0.05\n"
        "\n"
        "A settings file (--config) is a JSON object: the long options' names with their values,\n"
        "and \"stage\". Command-line options override the file. Relative paths are relative to\n"
        "the current directory. RUN/settings.json is such a file; --resume reads it, so that only\n"
        "RUN has to be named. A preset (--preset) has the settings of one of the papers' runs;\n"
        "`train --preset list` lists them with the memory that they need. On resume, only\n"
        "settings that do not affect the result may change:\n"
        "device, threads, logging, how much is kept. A damaged newest checkpoint is set aside,\n"
        "and the one before it is used.\n"
        "\n"
        "SIGINT, SIGTERM, SIGHUP and SIGUSR1 end the run after the step under way, with a\n"
        "checkpoint and exit status 3 (a second one ends it at once).\n"
        "\n"
        "mpirun -n N easyfirst train ... trains with N processes, each on its part of every\n"
        "batch: the same result as with one. Send SIGUSR1 to mpirun for an orderly end.",
    .examples = "easyfirst train adapt --data pairs.jsonl -m xlm-roberta-base --out run\n"
                "easyfirst train adapt --config run/settings.json --lr 1e-4 --out run2\n"
                "easyfirst train --preset iwslt14-base -m xlm-roberta-base --source train.de \\\n"
                "    --target train.en --out run\n"
                "easyfirst train align --data blip.json --images images -m model \\\n"
                "    --new-projector mlp2x_gelu --out aligned\n"
                "easyfirst train --resume --out run",
};

/* ---- The table of options. ---- */

/* Settings of which one replaces the other, and one with a default that depends on the model: which
 * of them a file or a command line has given. */
typedef struct Given {
    bool steps, epochs, batch_tokens, batch_sequences, warmup_ratio, warmup_steps, decay_ratio,
        decay_steps, context;
} Given;

enum { SETTING_GROUPS = 8, GROUPS, MOST = 1 << 30 };

typedef struct Table {
    OptionGroup groups[GROUPS]; /* the last one is of this process, not of the run */
    Given given;
    const char *config, *preset;
} Table;

static void data_group(TrainSettings *s, Table *t, OptionGroup *group) {
    *group = (OptionGroup){
        "data",
        {{"data", 'd', OPTION_LIST, "PATH", &s->data,
          "training data: pairs, conversations, tables and more (data/README.md),\n"
          "for pretrain plain text too, or a folder with ratio.json; may be given\n"
          "several times"},
         {"images", 0, OPTION_TEXT, "FOLDER", &s->images,
          "folder of the images, or a zip archive of them"},
         {"image-threads", 0, OPTION_INTEGER, "N", &s->image_threads,
          "processor threads that decode the next step's images (default 0: 1, with\n"
          "a GPU as many as --threads)",
          0, 1024},
         {"feature-cache", 0, OPTION_TEXT, "FILE", &s->feature_cache,
          "keep the frozen vision tower's features of each image in this file, for\n"
          "later epochs and runs"},
         {"feature-dtype", 0, OPTION_CHOICE, NULL, &s->feature_dtype,
          "type of the features in it; auto: bf16", .names = dtype_choices},
         {"valid", 0, OPTION_TEXT, "PATH", &s->valid, "held-out data in the same format"},
         {"valid-limit", 0, OPTION_INTEGER, "N", &s->valid_limit,
          "examples of it that are used (default 500)", 1, MOST},
         {"max-tokens", 0, OPTION_INTEGER, "N", &s->max_tokens,
          "tokens of a sequence (default 512)", 8, 1 << 20},
         {"context", 0, OPTION_SWITCH, "on|off", &s->context,
          "earlier turns of a conversation before a question (default: on\n"
          "in tune, if attention is full)",
          .given = &t->given.context},
         {"plain", 0, OPTION_SWITCH, "on|off", &s->plain,
          "align: leave the instruction out, from image to caption\n"
          "(default on)"},
         {"text-lines", 0, OPTION_FLAG, NULL, &s->text_lines,
          "pretrain: a document a line of plain text, not a paragraph"},
         {"languages", 0, OPTION_TEXT, "LIST", &s->languages,
          "leave out, and count, records with more than a few words of other\n"
          "languages than these (en,fr), or of these (not-de,not-fr)"},
         {"long-prompts", 0, OPTION_CHOICE, NULL, &s->long_prompts,
          "text prompts that do not fit: keep the last tokens, skip the pair, or\n"
          "refuse it as a skipped record (default keep-last); their number is\n"
          "reported",
          .names = long_prompts_names},
         {"pad-answers", 0, OPTION_INTEGER, "N", &s->pad_answers,
          "fill answers up to N tokens with end-of-text tokens that are learned,\n"
          "too, as LLaDA's fine-tuning does (0: not; default -1: as the model's\n"
          "folder says, else not)",
          -1, 1 << 20},
         {"random-lengths", 0, OPTION_REAL, "X", &s->random_lengths,
          "pretrain: this fraction of the sequences has a random length (LLaDA:\n"
          "0.01; default 0)",
          0, 1},
         {"max-bad-fraction", 0, OPTION_REAL, "X", &s->max_bad_fraction,
          "stop if more than this fraction of the records is skipped (default\n"
          "0.01)",
          0, 1}}};
}

static void steps_group(TrainSettings *s, Table *t, OptionGroup *group) {
    Given *g = &t->given;
    *group = (OptionGroup){
        "steps",
        {{"steps", 0, OPTION_INTEGER, "N", &s->steps, "updates of the weights", 0, MOST, &g->steps},
         {"epochs", 0, OPTION_INTEGER, "N", &s->epochs, "or so many epochs of the data", 0, 1000000,
          &g->epochs},
         {"batch-tokens", 0, OPTION_INTEGER, "N", &s->batch_tokens, "tokens of one update", 0, MOST,
          &g->batch_tokens},
         {"batch-sequences", 0, OPTION_INTEGER, "N", &s->batch_sequences,
          "or so many sequences, whatever their length", 0, 1 << 24, &g->batch_sequences},
         {"group", 0, OPTION_SWITCH, "on|off", &s->group,
          "a batch has images or none, and similar lengths (default on); off: all\n"
          "kinds of data in each update"},
         {"micro-batch-tokens", 0, OPTION_INTEGER, "N", &s->micro_batch_tokens,
          "tokens of one forward and backward pass; a batch takes as many\n"
          "micro-batches as it needs (default 0: 2048), and at least one unit of\n"
          "the data goes through whole",
          0, 1 << 24}}};
}

static void optimizer_group(TrainSettings *s, Table *t, OptionGroup *group) {
    Given *g = &t->given;
    OptimizerConfig *o = &s->optimizer;
    *group = (OptionGroup){
        "optimizer",
        {{"optimizer", 0, OPTION_CHOICE, NULL, &o->kind,
          "muon: orthogonalized momentum for the matrices of transformer\n"
          "blocks and projector, AdamW for all else (default adamw)",
          .names = optimizer_names},
         {"muon-momentum", 0, OPTION_REAL, "X", &o->muon_momentum,
          "decay of Muon's mean gradient (default 0.95)", 0, 0.999999},
         {"moments", 0, OPTION_CHOICE, NULL, &o->moments,
          "AdamW's moments: in 8 bits they take a quarter of the memory, but\n"
          "those of embeddings, vectors and small matrices (default 32bit)",
          .names = moment_names},
         {"master-weights", 0, OPTION_CHOICE, NULL, &o->masters,
          "with bf16: none keeps weights in bf16 alone and rounds AdamW's updates\n"
          "stochastically, in 2 instead of 6 bytes a weight (default f32)",
          .names = master_names},
         {"lr", 0, OPTION_REAL, "X", &s->lr, "learning rate, the highest", 0, 100},
         {"language-lr", 0, OPTION_REAL, "X", &s->language_lr,
          "of the language model, if another (default 0: --lr)", 0, 100},
         {"projector-lr", 0, OPTION_REAL, "X", &s->projector_lr, "of the projector", 0, 100},
         {"vision-lr", 0, OPTION_REAL, "X", &s->vision_lr, "of the vision tower", 0, 100},
         {"schedule", 0, OPTION_CHOICE, NULL, &s->schedule,
          "how the learning rate falls after the warmup (wsd: stays, and falls\n"
          "linearly in the last steps)",
          .names = schedule_names},
         {"warmup-ratio", 0, OPTION_REAL, "X", &s->warmup_ratio,
          "share of the steps in which the learning rate rises", 0, 1, &g->warmup_ratio},
         {"warmup-steps", 0, OPTION_INTEGER, "N", &s->warmup_steps, "or so many steps", 0, MOST,
          &g->warmup_steps},
         {"decay-ratio", 0, OPTION_REAL, "X", &s->decay_ratio,
          "wsd: share of the steps in which the learning rate falls (default 0.1)", 0, 1,
          &g->decay_ratio},
         {"decay-steps", 0, OPTION_INTEGER, "N", &s->decay_steps, "or so many steps", 0, MOST,
          &g->decay_steps},
         {"beta1", 0, OPTION_REAL, "X", &o->beta1, "decay of the mean gradient", 0, 0.999999},
         {"beta2", 0, OPTION_REAL, "X", &o->beta2, "decay of its square", 0, 0.999999},
         {"adam-eps", 0, OPTION_REAL, "X", &o->eps, "added to the root of the square", 1e-30, 1},
         {"weight-decay", 0, OPTION_REAL, "X", &o->weight_decay,
          "decoupled, times the learning rate", 0, 1},
         {"decay-vectors", 0, OPTION_SWITCH, "on|off", &o->decay_vectors,
          "biases and norms decay, too (default on)"},
         {"clip", 0, OPTION_REAL, "X", &o->clip,
          "largest norm of all gradients together; 0: no clipping (default 1)", 0, 1e6}}};
}

static void objective_group(TrainSettings *s, OptionGroup *group) {
    NoiseConfig *n = &s->noise;
    *group = (OptionGroup){
        "objective",
        {{"objective", 0, OPTION_CHOICE, NULL, &n->objective,
          "reparameterized diffusion, two coupled timesteps of an answer;\n"
          "LLaDA's continuous time; or ar: the next token, with causal attention",
          .names = objective_names},
         {"timesteps", 0, OPTION_INTEGER, "T", &n->timesteps, "rdm: timesteps (default 50)", 1,
          100000},
         {"weighting", 0, OPTION_CHOICE, NULL, &n->weighting,
          "rdm: weight of a masked token, T - (t - 1) or T (default linear)",
          .names = weighting_names},
         {"mask-floor", 0, OPTION_REAL, "X", &n->eps,
          "llada: the least probability of a mask (default 0.001)", 1e-9, 0.5},
         {"complementary", 0, OPTION_FLAG, NULL, &n->complementary,
          "llada: a second copy with the other tokens masked"},
         {"label-smoothing", 0, OPTION_REAL, "X", &n->label_smoothing,
          "share of the target that goes to all tokens (default 0)", 0, 0.9},
         {"dropout", 0, OPTION_REAL, "X", &s->dropout, "dropout, 0.1 or none by the stage", 0, 0.9},
         {"attention", 0, OPTION_CHOICE, NULL, &s->attention,
          "every token sees every other, or only its own block and those\n"
          "before it (default: as the model's folder says)",
          .names = attention_names}}};
}

static void trained_group(TrainSettings *s, OptionGroup *group) {
    *group = (OptionGroup){
        "what is trained",
        {{"new-projector", 0, OPTION_CHOICE, NULL, &s->new_projector,
          "start with a fresh projector instead of the model's", .names = projector_kind_names},
         {"train-vision", 0, OPTION_FLAG, NULL, &s->train_vision, "tune: the vision tower, too"},
         {"freeze-language", 0, OPTION_FLAG, NULL, &s->freeze_language,
          "tune: not the language model"},
         {"lora-rank", 0, OPTION_INTEGER, "R", &s->lora.rank,
          "thin matrices of this rank instead of the language model's own\n"
          "weights (default 0: the weights)",
          0, 4096},
         {"lora-alpha", 0, OPTION_REAL, "X", &s->lora.alpha,
          "their scale is alpha / rank (default 16)", 0, 1e6},
         {"lora-targets", 0, OPTION_CHOICES, "LIST", &s->lora.targets,
          "query, key, value, out, fc1, fc2 with commas between, or all\n"
          "(default query,value)",
          .names = lora_target_names},
         {"activation-checkpointing", 0, OPTION_FLAG, NULL, &s->recompute,
          "keep each block's input only and compute its activations again in the\n"
          "backward pass: less memory, slower, the same result"}}};
}

static void running_group(TrainSettings *s, OptionGroup *group) {
    *group = (OptionGroup){
        "running",
        {{"out", 'o', OPTION_TEXT, "RUN", &s->out, "the folder of the run"},
         {"save-dtype", 0, OPTION_CHOICE, NULL, &s->save_dtype,
          "type of the weights in checkpoints; auto: as the model was stored",
          .names = dtype_choices},
         {"seed", 's', OPTION_SEED, "N", &s->seed, "seed of everything random (default 1)"},
         {"log-every", 0, OPTION_INTEGER, "N", &s->log_every,
          "steps of a logged point (default 10; 0: at the end only)", 0, MOST},
         {"valid-every", 0, OPTION_INTEGER, "N", &s->valid_every,
          "steps between validations (default 500; 0: at the end only)", 0, MOST},
         {"save-every", 0, OPTION_INTEGER, "N", &s->save_every,
          "steps between checkpoints (default 1000; 0: at the end only)", 0, MOST},
         {"keep", 0, OPTION_INTEGER, "N", &s->keep, "checkpoints that are kept (default 2)", 1,
          1000000},
         {"show-answers", 0, OPTION_INTEGER, "N", &s->show_answers,
          "answers that are shown at each validation (default 3)", 0, 1000},
         {"best-by", 0, OPTION_CHOICE, NULL, &s->best_by,
          "keep the best model in RUN/best: by the loss on --valid, or by the score\n"
          "of answers that it generates to its prompts, with the targets' lengths",
          .names = train_best_names},
         {"valid-answers", 0, OPTION_INTEGER, "N", &s->valid_answers,
          "so many of them at each validation (default 0: 100 with --best-by)", 0, MOST},
         {"patience", 0, OPTION_INTEGER, "K", &s->patience,
          "end the run after K validations in a row without a better one (default\n"
          "0: not)",
          0, MOST},
         {"quiet", 'q', OPTION_FLAG, NULL, &s->quiet, "no progress on standard error"},
         {"zero", 0, OPTION_INTEGER, "N", &s->zero,
          "with mpirun: what is divided among the processes: 0 nothing, 1 the\n"
          "optimizer's state and bf16's masters, 2 gradients, too, 3 the weights\n"
          "of blocks, too (default 0)",
          0, 3},
         {"overlap", 0, OPTION_CHOICE, NULL, &s->overlap,
          "--zero 2 and 3: blocks are computed while others' gradients and weights\n"
          "are exchanged, for the memory of one more block (default auto: with\n"
          "--zero 3 on GPUs)",
          .names = train_overlap_names}}};
}

static void prompts_group(TrainSettings *s, OptionGroup *group) {
    ParallelFiles *v = &s->valid_parallel;
    prompt_group(&s->prompt, &s->parallel, group);
    group->title = "parallel files and prompts";
    option_add(group, (Option){"valid-source", 0, OPTION_TEXT, "FILE", &v->source,
                               "held-out parallel files, for --valid"});
    option_add(group,
               (Option){"valid-target", 0, OPTION_TEXT, "FILE", &v->target, "and their answers"});
}

/* Where a run's model options mean something else than those of the commands that answer. */
static void model_help(Option *o) {
    if (!strcmp(o->name, "model"))
        o->help = "the model to start from, a folder; else $EASYFIRST_MODEL (the\n"
                  "bundled one only if it is named)";
    if (!strcmp(o->name, "pad"))
        o->help = "put images into a square instead of cropping them to one\n"
                  "(default: off in align, whatever the model's folder says, as LLaVA\n"
                  "does; elsewhere as the folder says, else on)";
}

/* The table of a run's settings; its rows point into `s` and `t`, which must stay. */
static void table_make(Table *t, TrainSettings *s) {
    *t = (Table){0};
    model_group(&s->model, &s->device, &s->threads, &t->groups[0]);
    t->groups[0].title = "model";
    for (int i = 0; i < option_count(&t->groups[0]); i++) model_help(&t->groups[0].options[i]);
    data_group(s, t, &t->groups[1]);
    steps_group(s, t, &t->groups[2]);
    optimizer_group(s, t, &t->groups[3]);
    objective_group(s, &t->groups[4]);
    trained_group(s, &t->groups[5]);
    running_group(s, &t->groups[6]);
    prompts_group(s, &t->groups[7]);
    t->groups[SETTING_GROUPS] = (OptionGroup){
        "this start of the program",
        {{"config", 'c', OPTION_TEXT, "FILE", &t->config, "settings from a JSON file"},
         {"preset", 0, OPTION_TEXT, "NAME", &t->preset,
          "settings of one of the papers' runs; `--preset list` lists them"},
         {"resume", 0, OPTION_FLAG, NULL, &s->resume,
          "resume from the last checkpoint in --out, with its settings"},
         {"stop-after", 0, OPTION_INTEGER, "N", &s->stop_after,
          "end after so many updates, with a checkpoint to resume from; the\n"
          "schedule stays that of the whole run",
          1, MOST}}};
}

/* ---- Reading. ---- */

/* Of two settings that say the same in two ways, the one that is given puts the other to rest. */
static int settle(bool a_given, bool b_given, double *a, double *b, const char *names, Error *err) {
    bool a_set = a_given && *a != 0, b_set = b_given && *b != 0;
    if (a_set && b_set) return error_set(err, "%s are both given: one of them is enough", names);
    if (a_set) *b = 0;
    if (b_set) *a = 0;
    return 0;
}

static int settle_pairs(TrainSettings *s, Given *g, Error *err) {
    double steps = s->steps, epochs = s->epochs, tokens = s->batch_tokens;
    double sequences = s->batch_sequences, ratio = s->warmup_ratio, warmup = s->warmup_steps;
    double decay_ratio = s->decay_ratio, decay = s->decay_steps;
    TRY(settle(g->steps, g->epochs, &steps, &epochs, "\"steps\" and \"epochs\"", err));
    TRY(settle(g->batch_tokens, g->batch_sequences, &tokens, &sequences,
               "\"batch-tokens\" and \"batch-sequences\"", err));
    TRY(settle(g->warmup_ratio, g->warmup_steps, &ratio, &warmup,
               "\"warmup-ratio\" and \"warmup-steps\"", err));
    TRY(settle(g->decay_ratio, g->decay_steps, &decay_ratio, &decay,
               "\"decay-ratio\" and \"decay-steps\"", err));
    s->steps = (int)steps, s->epochs = (int)epochs, s->batch_tokens = (int)tokens;
    s->batch_sequences = (int)sequences, s->warmup_ratio = (float)ratio;
    s->warmup_steps = (int)warmup;
    s->decay_ratio = (float)decay_ratio, s->decay_steps = (int)decay;
    bool context = g->context;
    *g = (Given){.context = context};
    return 0;
}

/* The command line into `t`'s settings; *stage is STAGE_COUNT if it names none. */
static int read_line(Table *t, int argc, char **argv, TrainStage *stage) {
    int first, status = options_read(&help, t->groups, GROUPS, argc, argv, &first);
    *stage = STAGE_COUNT;
    if (status >= 0 || first == argc) return status;
    *stage = stage_find(argv[first]);
    const char *near = nearest_word(argv[first], stage_names);
    if (*stage == STAGE_COUNT)
        return options_wrong(&help, "there is no stage \"%s\"%s%s%s", argv[first],
                             near ? ": did you mean "
                                  : ", expected adapt, instruct, align, tune, "
                                    "length, pretrain or segment",
                             near ? near : "", near ? "?" : "");
    if (argc - first > 1)
        return options_wrong(&help, "\"%s\" is one word too many: files are named with --data",
                             argv[first + 1]);
    return -1;
}

/* The stage that a settings file names; STAGE_COUNT if none. */
static int file_stage(const json_t *file, const char *path, TrainStage *stage, Error *err) {
    const char *name;
    *stage = STAGE_COUNT;
    TRY(config_text(file, "stage", path, NULL, &name, err));
    if (!name) return 0;
    *stage = stage_find(name);
    if (*stage == STAGE_COUNT)
        return error_set(err,
                         "%s: \"stage\" is \"%s\", expected adapt, instruct, align, tune, length, "
                         "pretrain or segment",
                         path, name);
    return 0;
}

bool train_settings_block_causal(const TrainSettings *s) {
    ModelSettings model;
    if (s->attention != ATTENTION_UNSET) return s->attention == ATTENTION_BLOCK_CAUSAL;
    if (!s->model.folder || model_settings_read(&model, s->model.folder, NULL)) return false;
    json_decref(model.json);
    return model.attention == ATTENTION_BLOCK_CAUSAL;
}

/* What may change when a run is resumed: where things are, and what does not affect the weights. */
/* clang-format off */
static const char *const free_settings[] = {
    "model", "vision", "language", "projector", "length-predictor", "adapter", "device", "threads", "data",
    "images", "valid", "source", "target", "pairs", "valid-source", "valid-target", "valid-limit", "max-bad-fraction", "activation-checkpointing", "out",
    "save-dtype", "log-every", "valid-every", "save-every", "keep", "show-answers", "quiet", "zero", "overlap", "image-threads", NULL};
/* clang-format on */

/* `before` are the settings that were read from `file`. */
static int check_kept(const TrainSettings *s, const json_t *before, const json_t *file,
                      Error *err) {
    json_t *now = train_settings_json(s), *value;
    const char *name;
    int status = now && before ? 0 : error_set(err, "out of memory");
    json_object_foreach(now, name, value) {
        const json_t *kept = json_object_get(file, name) ? json_object_get(before, name) : NULL;
        int i = 0;
        while (free_settings[i] && strcmp(free_settings[i], name)) i++;
        /* Which model is the best depends on what it is measured by, and when. */
        const bool measured = !strcmp(name, "valid-every") || !strcmp(name, "valid-limit");
        const bool is_free = free_settings[i] && !(s->best_by && measured);
        if (status || is_free || !kept || json_equal(kept, value)) continue;
        char *text = json_dumps_whole(kept, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        status = error_set(err,
                           "--%s: the run in %s has %s and keeps it; for another one begin a new "
                           "run at its last checkpoint (-m) with another --out",
                           name, s->out, text ? text : "another value");
        free(text);
    }
    json_decref(now);
    return status;
}

/* The command line's settings over those that are there already. */
static int read_words(TrainSettings *s, Table *table, int argc, char **argv) {
    Error err;
    TrainStage stage;
    TextList data = s->data;
    s->data = (TextList){0};
    int status = read_line(table, argc, argv, &stage);
    if (s->data.count)
        free(data.items);
    else
        s->data = data;
    if (status < 0 && settle_pairs(s, &table->given, &err))
        return options_wrong(&help, "%s", err.text);
    return status;
}

/* Defaults, the file's settings, the command line's, each over the one before. */
static int read_layers(TrainSettings *s, TrainStage stage, json_t *file, const char *path, int argc,
                       char **argv) {
    Error err;
    Table table;
    train_settings_default(s, stage);
    s->file = file;
    table_make(&table, s);
    if (file && (options_from_json(table.groups, SETTING_GROUPS, file,
                                   (const char *const[]){"stage", NULL}, path, &err) ||
                 (settle_pairs(s, &table.given, &err) && error_context(&err, "%s", path))))
        return options_wrong(&help, "%s", err.text);
    json_t *before = file ? train_settings_json(s) : NULL;
    int status = read_words(s, &table, argc, argv);
    ModelOptions *m = &s->model;
    const char *folder = getenv("EASYFIRST_MODEL");
    if (!m->folder && !m->language && !m->vision && folder && folder[0]) m->folder = folder;
    if (status < 0 && !table.given.context && train_settings_block_causal(s)) s->context = false;
    if (status < 0 && s->resume && check_kept(s, before, file, &err))
        status = options_wrong(&help, "%s", err.text);
    json_decref(before);
    return status;
}

/* The settings file at `path` (NULL: none; `file`: it is read already), the stage that it or the
 * command line names, and all layers. `look` is the first look at the command line. Takes
 * `file`. */
static int read_all(TrainSettings *s, const TrainSettings *look, TrainStage stage, const char *path,
                    json_t *file, int argc, char **argv) {
    const bool preset = file != NULL;
    TrainStage told = STAGE_COUNT;
    Error err;
    int status = -1;
    if (path && !file && config_read(&file, path, &err)) {
        if (look->resume) error_context(&err, "there is no run to resume");
        report_error("train: %s", err.text);
        return 1;
    }
    if (file && file_stage(file, path, &told, &err)) status = options_wrong(&help, "%s", err.text);
    if (status < 0 && look->resume && stage != STAGE_COUNT && stage != told)
        status =
            options_wrong(&help, "the run in %s is of the stage %s, not %s", look->out,
                          told == STAGE_COUNT ? "(none)" : stage_name(told), stage_name(stage));
    if (status < 0 && preset && stage != STAGE_COUNT && stage != told)
        status =
            options_wrong(&help, "the preset is of the stage %s, not %s",
                          told == STAGE_COUNT ? "(none)" : stage_name(told), stage_name(stage));
    if (stage == STAGE_COUNT) stage = told;
    if (status < 0 && stage == STAGE_COUNT)
        status = options_wrong(&help, "no stage is named: adapt, instruct, align, tune, length, "
                                      "pretrain or segment");
    if (status < 0) return read_layers(s, stage, file, path, argc, argv);
    json_decref(file);
    return status;
}

/* --preset NAME, or its list. */
static int read_preset_layers(TrainSettings *s, const TrainSettings *look, TrainStage stage,
                              const char *name, int argc, char **argv) {
    Error err;
    json_t *file;
    char *path;
    if (!strcmp(name, "list")) {
        if (!presets_print(&err)) return 0;
        report_error("train: %s", err.text);
        return 1;
    }
    if (preset_read(name, &file, &path, &err)) return options_wrong(&help, "%s", err.text);
    int status = read_all(s, look, stage, path, file, argc, argv);
    free(path);
    return status;
}

int train_settings_read(TrainSettings *s, int argc, char **argv) {
    /* A first look at the command line: whose defaults, which file? */
    TrainSettings look;
    Table table;
    TrainStage stage;
    *s = (TrainSettings){0};
    train_settings_default(&look, STAGE_ADAPT);
    table_make(&table, &look);
    int status = read_line(&table, argc, argv, &stage);
    free(look.data.items);
    if (status >= 0) return status;
    if (look.resume && !look.out)
        return options_wrong(&help, "--resume needs the folder of the run: --out RUN");
    if (look.resume && table.config)
        return options_wrong(&help,
                             "--resume takes the settings of the run in %s, not those of %s: leave "
                             "one of the two out",
                             look.out, table.config);
    if (table.preset && (look.resume || table.config))
        return options_wrong(&help, "--preset and --%s exclude each other",
                             look.resume ? "resume" : "config");
    if (table.preset) return read_preset_layers(s, &look, stage, table.preset, argc, argv);
    Error err;
    char *own = look.resume ? path_join(look.out, "settings.json", &err) : NULL;
    if (look.resume && !own) {
        report_error("train: %s", err.text);
        return 1;
    }
    status = read_all(s, &look, stage, own ? own : table.config, NULL, argc, argv);
    free(own);
    return status;
}

void train_settings_free(TrainSettings *s) {
    free(s->data.items);
    json_decref(s->file);
    *s = (TrainSettings){0};
}

/* ---- Writing. ---- */

json_t *train_settings_json(const TrainSettings *settings) {
    /* The table points to variables that could be set; here they are only read. */
    Table table;
    table_make(&table, (TrainSettings *)settings);
    json_t *all = options_to_json(table.groups, SETTING_GROUPS);
    json_t *object = json_pack("{s:s}", "stage", stage_name(settings->stage));
    if (!all || !object || json_object_update(object, all)) {
        json_decref(object);
        object = NULL;
    }
    json_decref(all);
    return object;
}

static void print_value(const json_t *value, FILE *out) {
    if (json_is_boolean(value)) fputs(json_is_true(value) ? "yes" : "no", out);
    if (json_is_integer(value)) fprintf(out, "%lld", (long long)json_integer_value(value));
    if (json_is_real(value)) fprintf(out, "%.9g", json_real_value(value));
    if (json_is_string(value)) report_field(out, json_string_value(value));
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (i) fputs(", ", out);
        print_value(json_array_get(value, i), out);
    }
}

/* Settings that do nothing in this run: 0 where 0 means that another one counts, and those of the
 * other objective, or of LoRA or Muon without it. */
static bool is_idle(const TrainSettings *s, const char *name, const json_t *value) {
    static const char *const zeros[] = {
        "steps",         "epochs",       "batch-tokens", "batch-sequences", "micro-batch-tokens",
        "language-lr",   "projector-lr", "vision-lr",    "warmup-ratio",    "warmup-steps",
        "decay-ratio",   "decay-steps",  "pad-answers",  "random-lengths",  "lora-rank",
        "valid-answers", "patience",     "zero",         "image-threads",   NULL};
    static const char *const rdm[] = {"timesteps", "weighting", NULL};
    static const char *const llada[] = {"mask-floor", "complementary", NULL};
    static const char *const diffusion[] = {"timesteps", "weighting", "mask-floor", "complementary",
                                            NULL};
    static const char *const wsd[] = {"decay-ratio", "decay-steps", NULL};
    static const char *const lora[] = {"lora-alpha", "lora-targets", NULL};
    static const char *const texts[] = {"max-tokens",      "context",
                                        "plain",           "text-lines",
                                        "long-prompts",    "language-lr",
                                        "objective",       "timesteps",
                                        "weighting",       "mask-floor",
                                        "complementary",   "dropout",
                                        "pad-answers",     "random-lengths",
                                        "attention",       "new-projector",
                                        "freeze-language", "projector-lr",
                                        "train-vision",    "lora-alpha",
                                        "show-answers",    NULL};
    static const char *const unset[] = {"shots", NULL};
    static const char *const muon[] = {"muon-momentum", NULL}, *const adamw[] = {"moments",
                                                                                 "master-weights",
                                                                                 NULL};
    static const char *const cache[] = {"feature-dtype", NULL};
    static const char *const beside[] = {"overlap", NULL};
    bool is_llada = s->noise.objective == OBJECTIVE_LLADA;
    const char *const *lists[] = {json_number_value(value) == 0 ? zeros : NULL,
                                  s->noise.objective == OBJECTIVE_AR ? diffusion
                                  : is_llada                         ? rdm
                                                                     : llada,
                                  s->schedule == SCHEDULE_WSD ? NULL : wsd,
                                  s->lora.rank ? NULL : lora,
                                  s->optimizer.kind == OPTIMIZER_MUON ? adamw : muon,
                                  s->stage == STAGE_SEGMENT ? texts : NULL,
                                  s->feature_cache ? NULL : cache,
                                  s->zero >= 2 ? NULL : beside,
                                  s->prompt.shots ? NULL : unset};
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
        for (int i = 0; lists[l] && lists[l][i]; i++)
            if (!strcmp(name, lists[l][i])) return true;
    return false;
}

void train_settings_print(const TrainSettings *settings, FILE *out) {
    Table table;
    table_make(&table, (TrainSettings *)settings);
    json_t *all = options_to_json(table.groups, SETTING_GROUPS);
    fprintf(out, "%-22s%s\n", "stage", stage_name(settings->stage));
    for (int g = 0; g < SETTING_GROUPS; g++) {
        fprintf(out, "%s\n", table.groups[g].title);
        for (int i = 0; i < option_count(&table.groups[g]); i++) {
            const char *name = table.groups[g].options[i].name;
            const json_t *value = json_object_get(all, name);
            if (!value || is_idle(settings, name, value)) continue;
            fprintf(out, "  %-20s", name);
            print_value(value, out);
            fputc('\n', out);
        }
    }
    json_decref(all);
}
