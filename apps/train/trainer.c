#include "apps/train/trainer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/report.h"
#include "apps/train/dataset_files.h"
#include "data/model_files.h"
#include "kernels/clock.h"
#include "kernels/random.h"

enum {
    DEFAULT_PASS_TOKENS = 2048,
    PICTURES_IN_PASS = 8,
    VALID_SEQUENCES = 32,
    MOST_SKIPPED = 20,           /* updates in a row without a finite norm: the run has diverged */
    DROPOUT_STREAM = 0x64726f70, /* "drop" */
    PATH_SIZE = 1400
};

typedef struct Trainer {
    TrainSettings *settings;
    Device *device;
    TrainModel model;
    bool model_open;
    Dataset data, valid;
    FeedConfig feed_config, valid_config;
    BatchPlan valid_plan;
    Feed *feed;
    Arena arena;
    LearnSizes sizes;
    float *losses; /* of one pass */
    Schedule schedule;
    TrainState state;
    TrainReport report;
    bool report_open;
    Problems problems; /* of pictures, each record once; see feed.h */
    Problems told;     /* kinds of them that were told */
    double peak;       /* operations per second; 0: unknown */
    double started;    /* the clock when this part of the run began, earlier parts taken off */
    int skipped_in_a_row;
    int lock; /* the run's folder */
    struct {  /* since the last point; losses and norms are in `state` */
        double operations, since;
        int64_t tokens, rows;
    } sum;
} Trainer;

/* ---- Stopping. ---- */

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number) {
    (void)signal_number;
    stop_asked = 1;
}

/* The second signal ends the process at once, as if it had not been caught. */
static void catch_signals(void) {
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    stop_asked = 0;
}

/* ---- How data become batches. ---- */

ExampleConfig trainer_examples(const TrainModel *t, const TrainSettings *s) {
    const Multimodal *m = &t->model.parts;
    int longest = xlmr_longest(&m->xlmr->config);
    bool blocks = m->attention == ATTENTION_BLOCKS;
    return (ExampleConfig){.tokenizer = m->tokenizer,
                           .longest = s->max_tokens < longest ? s->max_tokens : longest,
                           .positions = longest,
                           .answer_position = m->answer_position,
                           .picture_rows = multimodal_picture_rows(m),
                           .context = s->context,
                           .together = blocks && !s->context && s->stage != STAGE_LENGTH,
                           .plain = s->plain,
                           .long_prompts = (LongPrompts)long_prompts_find(s->long_prompts),
                           .whole = s->stage == STAGE_PRETRAIN};
}

PackingConfig trainer_packing(const TrainModel *t, const TrainSettings *s) {
    const Multimodal *m = &t->model.parts;
    return (PackingConfig){.pattern = m->attention,
                           .answer_position = m->answer_position,
                           .picture_rows = multimodal_picture_rows(m),
                           .image_size = m->vit ? m->vit->config.image_size : 0,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .noise = s->noise,
                           .seed = s->seed,
                           .lengths = s->stage == STAGE_LENGTH,
                           .classes = m->length ? m->length->classes : 0};
}

/* Whole pictures, each with its class token's row. */
static LearnSizes segment_sizes(const TrainSettings *s, int picture_rows) {
    int rows = s->pass_tokens > 0 ? s->pass_tokens : DEFAULT_PASS_TOKENS;
    int pictures = rows / (picture_rows + 1);
    if (s->batch_sequences > 0 && pictures > s->batch_sequences) pictures = s->batch_sequences;
    if (pictures < 1) pictures = 1;
    return (LearnSizes){.tokens = pictures * (picture_rows + 1),
                        .targets = pictures * picture_rows,
                        .pictures = pictures};
}

LearnSizes trainer_sizes(const TrainSettings *s, const LearnSizes *unit, int picture_rows) {
    if (s->stage == STAGE_SEGMENT) return segment_sizes(s, picture_rows);
    LearnSizes sizes = {.tokens = s->pass_tokens > 0 ? s->pass_tokens : DEFAULT_PASS_TOKENS};
    if (sizes.tokens < unit->tokens) sizes.tokens = unit->tokens;
    sizes.targets = s->stage == STAGE_LENGTH ? 0 : sizes.tokens;
    if (unit->pictures > 0) {
        sizes.pictures = sizes.tokens / (picture_rows + 1) + 1;
        if (sizes.pictures > PICTURES_IN_PASS) sizes.pictures = PICTURES_IN_PASS;
    }
    sizes.prompts = s->stage == STAGE_LENGTH ? sizes.tokens : 0;
    return sizes;
}

static void tell_scan(void *user, const char *path, int64_t done, int64_t all) {
    const Trainer *t = user;
    if (t->settings->quiet || !isatty(STDERR_FILENO)) return;
    fputc('\r', stderr);
    report_print(stderr, "%.60s: %" PRId64 " of %" PRId64 " records read%s", path, done, all,
                 done == all ? "\n" : "");
}

static RecordsOptions records_options(const TrainSettings *s) {
    static const char *const needs[STAGE_COUNT] = {[STAGE_ADAPT] = "train adapt",
                                                   [STAGE_INSTRUCT] = "train instruct",
                                                   [STAGE_ALIGN] = "train align",
                                                   [STAGE_TUNE] = "train tune",
                                                   [STAGE_LENGTH] = "train length"};
    return (RecordsOptions){.images = s->images,
                            .prompts_for = needs[s->stage],
                            .text_lines = s->text_lines,
                            .check_images = true};
}

/* What is wrong with the kind of the data is told before the model is loaded. */
static int check_files(const Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    const RecordsOptions options = records_options(s);
    if (s->stage == STAGE_SEGMENT) return 0;
    for (int i = 0; i < s->data.count; i++) TRY(records_check(s->data.items[i], &options, err));
    return s->valid ? records_check(s->valid, &options, err) : 0;
}

static int open_dataset(Trainer *t, Dataset *dataset, const char *const *paths, int count,
                        int64_t limit, Error *err) {
    const TrainSettings *s = t->settings;
    DatasetOptions options = {.records = records_options(s),
                              .example = trainer_examples(&t->model, s),
                              .bad_share = s->bad_share,
                              .limit = limit,
                              .progress = tell_scan,
                              .user = t};
    TRY(dataset_open(dataset, paths, count, &options, err));
    if (!dataset->with_picture || t->model.model.parts.projector) return 0;
    return error_set(err,
                     "%s has pictures, but the model cannot see: name one with a vision tower "
                     "and a projector (--vision, --projector or --new-projector)",
                     paths[0]);
}

/* `table` has the classes; NULL: the data's own. */
static int open_scenes(Trainer *t, Dataset *dataset, const char *const *paths, int count,
                       int64_t limit, const SceneGraphs *table, Error *err) {
    const TrainSettings *s = t->settings;
    SceneGraphsOptions options = {.images = s->images,
                                  .classes = table ? (const char *const *)table->classes : NULL,
                                  .class_count = table ? table->class_count : 0,
                                  .limit = limit};
    int patches = vit_patches(&t->model.model.vit.config);
    return dataset_open_scenes(dataset, paths, count, &options, patches, s->bad_share, err);
}

static void configure_feed(Trainer *t, FeedConfig *c, const Dataset *dataset) {
    const TrainSettings *s = t->settings;
    *c = (FeedConfig){.dataset = dataset,
                      .batches = {.tokens = s->batch_sequences > 0 ? 0 : s->batch_tokens,
                                  .sequences = s->batch_sequences,
                                  .mixed = !s->group,
                                  .seed = s->seed,
                                  .weights = dataset->weights,
                                  .sources = dataset->sources},
                      .preprocess = t->model.model.parts.preprocess,
                      .pass = t->sizes,
                      .threads = 1};
    const VitConfig *vit = &t->model.model.vit.config;
    if (dataset->scenes)
        c->grid = vit->image_size / vit->patch, c->packing.noise = s->noise;
    else
        c->packing = trainer_packing(&t->model, s);
    /* LLaVA pads in its second stage and for answering, but not in the first. */
    if (s->stage == STAGE_ALIGN && !s->model.pad) c->preprocess.pad = false;
}

static void configure_valid(Trainer *t) {
    configure_feed(t, &t->valid_config, &t->valid);
    t->valid_config.batches.tokens = 0;
    t->valid_config.batches.sequences = VALID_SEQUENCES;
    t->valid_config.batches.in_order = true;
    t->valid_config.batches.weights = NULL;
    t->valid_config.packing.noise.label_smoothing = 0;
    t->valid_config.noise_epoch = -1;
}

static int open_texts(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(open_dataset(t, &t->data, s->data.items, s->data.count, 0, err));
    PackingConfig packing = trainer_packing(&t->model, s);
    LearnSizes unit = feed_unit_sizes(&t->data, &packing);
    if (s->valid) {
        TRY(open_dataset(t, &t->valid, &s->valid, 1, s->valid_limit, err));
        if (t->valid.with_picture && !t->data.with_picture)
            return error_set(err,
                             "--valid %s has pictures, but nothing in the training data has: "
                             "the model's eyes stay closed in this run",
                             s->valid);
        LearnSizes other = feed_unit_sizes(&t->valid, &packing);
        if (other.tokens > unit.tokens) unit.tokens = other.tokens;
        if (other.pictures > unit.pictures) unit.pictures = other.pictures;
    }
    t->sizes = trainer_sizes(s, &unit, packing.picture_rows);
    return 0;
}

static int open_graphs(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(open_scenes(t, &t->data, s->data.items, s->data.count, 0, NULL, err));
    const SceneGraphs *g = t->data.scenes;
    if (s->valid) TRY(open_scenes(t, &t->valid, &s->valid, 1, s->valid_limit, g, err));
    t->sizes = trainer_sizes(s, &(LearnSizes){0}, vit_patches(&t->model.model.vit.config));
    /* A run that is taken up has the layer's values in its checkpoint. */
    return train_model_classes(&t->model, t->state.step > 0 ? NULL : s->model.folder, s->seed,
                               (const char *const *)g->classes, g->class_count, err);
}

static int open_data(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(s->stage == STAGE_SEGMENT ? open_graphs(t, err) : open_texts(t, err));
    configure_feed(t, &t->feed_config, &t->data);
    if (!s->valid) return 0;
    configure_valid(t);
    return batches_plan(&t->valid_plan, t->valid.units, t->valid.count, &t->valid_config.batches, 0,
                        err);
}

/* ---- Beginning, or going on. ---- */

static int make_run_folder(const char *path, Error *err) {
    char part[PATH_SIZE];
    if (strlen(path) >= sizeof part) return error_set(err, "%.100s...: too long a name", path);
    for (size_t i = 1; path[i - 1]; i++) {
        if (path[i] != '/' && path[i]) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return error_set(err, "%s: cannot make the folder of the run: %m", part);
    }
    return 0;
}

/* Two processes in one folder would overwrite each other's checkpoints. The lock goes with the
 * process, however it ends; a file system without locks is used as it is. */
static int lock_run_folder(Trainer *t, const char *path, Error *err) {
    t->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0) return error_set(err, "%s: %m; --out names a folder", path);
    if (access(path, W_OK | X_OK)) return error_set(err, "%s: cannot write there: %m", path);
    if (flock(t->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return 0;
    return error_set(err, "%s: another process is training there: wait for its end, or stop it",
                     path);
}

/* A resumed run's model is that of its checkpoint; with LoRA the frozen weights are those that the
 * run began with, since the checkpoint has them merged. */
static TrainSettings model_settings(const Trainer *t, bool resumed, const char *folder) {
    TrainSettings changed = *t->settings;
    if (!resumed || changed.lora.rank > 0) return changed;
    changed.model.folder = folder;
    changed.model.vision = changed.model.language = changed.model.projector = changed.model.length =
        NULL;
    changed.new_projector = NULL;
    return changed;
}

static int open_model(Trainer *t, bool resumed, const char *folder, Error *err) {
    TrainSettings changed = model_settings(t, resumed, folder);
    TRY(train_model_open(&t->model, &changed, t->device, err));
    t->model_open = true;
    return 0;
}

/* What the run will take, from a second model that is only described: the run's own is still as its
 * files have it. */
static int predict_memory(const Trainer *t, const TrainSettings *s, TrainMemory *memory,
                          Error *err) {
    TrainModel m;
    TRY(train_model_open(&m, s, t->device, err));
    int status = 0;
    if (t->data.scenes)
        status = train_model_classes(&m, NULL, 0, NULL, t->data.scenes->class_count, err);
    if (status == 0) status = train_model_describe(&m, s, t->data.with_picture > 0, err);
    if (status == 0) *memory = train_model_memory(&m, s, &t->sizes);
    train_model_close(&m);
    return status;
}

/* Before anything is taken: a GPU's memory is counted, and a run that cannot fit is told at once.
 */
static int check_memory(const Trainer *t, bool resumed, const char *folder, Error *err) {
    size_t free_bytes, total;
    TrainMemory m;
    if (!device_memory(t->device, &free_bytes, &total)) return 0;
    TrainSettings changed = model_settings(t, resumed, folder);
    TRY(predict_memory(t, &changed, &m, err));
    if (train_memory_sum(&m) <= free_bytes) return 0;
    return error_set(err,
                     "this run takes %.0f MB (weights %.0f, gradients %.0f, moments %.0f, "
                     "activations of %d rows %.0f), but of the %.0f MB of %s %.0f are free: "
                     "fewer --pass-tokens, --recompute, --lora-rank 16, --dtype bf16 or "
                     "--device cpu",
                     1e-6 * (double)train_memory_sum(&m), 1e-6 * (double)m.weights,
                     1e-6 * (double)m.gradients, 1e-6 * (double)m.moments, t->sizes.tokens,
                     1e-6 * (double)m.arena, 1e-6 * (double)total, device_text(t->device),
                     1e-6 * (double)free_bytes);
}

static int check_resumed(const Trainer *t, const char *folder, Error *err) {
    if (t->state.fingerprint == t->data.fingerprint) return 0;
    Error why;
    dataset_files_differ(&t->data, t->settings->out, &why);
    return error_set(err,
                     "%s; a run is resumed with the data that it was begun with: give them with "
                     "--data, or begin a new run with -m %s and another --out",
                     why.text, folder);
}

static int prepare(Trainer *t, bool resumed, const char *folder, Error *err) {
    TrainModel *m = &t->model;
    TRY(train_model_prepare(m, t->settings, t->data.with_picture > 0,
                            resumed ? t->state.compute : NULL, err));
    const ModelPart *parts[4] = {&m->model.vision, &m->model.projector, &m->model.language,
                                 &m->model.length};
    for (int i = 0; i < 4; i++)
        t->state.compute[i] = parts[i]->present ? parts[i]->compute : DTYPE_NONE;
    t->state.fingerprint = t->data.fingerprint;
    if (resumed) {
        TRY(train_checkpoint_read(m, folder, err));
        m->optimizer.step = t->state.step - t->state.skipped;
    }
    TRY(arena_open(&t->arena, t->device, train_model_arena(m, t->settings, &t->sizes), err));
    int most = t->sizes.targets > t->sizes.prompts ? t->sizes.targets : t->sizes.prompts;
    t->losses = malloc(((size_t)most + 1) * sizeof *t->losses);
    return t->losses ? 0 : error_set(err, "out of memory for %d losses", most);
}

static int plan_steps(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    int64_t steps = s->steps;
    if (steps <= 0) { /* an epoch has as many steps as the first one */
        BatchPlan plan;
        TRY(batches_plan(&plan, t->data.units, t->data.count, &t->feed_config.batches, 0, err));
        steps = plan.steps * (s->epochs > 0 ? s->epochs : 1);
        batches_free(&plan);
    }
    static const ScheduleKind kinds[] = {SCHEDULE_CONSTANT, SCHEDULE_INVERSE_SQRT, SCHEDULE_COSINE,
                                         SCHEDULE_LINEAR};
    t->schedule = (Schedule){.rate = s->rate, .steps = steps};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(s->schedule, schedule_name(kinds[i]))) t->schedule.kind = kinds[i];
    t->schedule.warmup = s->warmup_steps > 0
                             ? s->warmup_steps
                             : (int64_t)ceil((double)s->warmup_ratio * (double)steps);
    return 0;
}

static void tell_start(const Trainer *t, const char *resumed_from) {
    const TrainSettings *s = t->settings;
    const Dataset *d = &t->data;
    if (s->quiet) return;
    train_settings_print(s, stderr);
    if (d->scenes)
        fprintf(stderr,
                "\ndata       %" PRId64 " pictures with %" PRId64 " objects of %d classes; %d "
                "patches a picture\n",
                d->count, d->scenes->box_count, d->scenes->class_count - 1, d->longest);
    else
        fprintf(stderr,
                "\ndata       %" PRId64 " examples, %" PRId64 " of them with a picture, %" PRId64
                " tokens, the longest %d\n",
                d->count, d->with_picture, d->tokens, d->longest);
    if (t->model.head_file.count)
        report_print(stderr, "classes    their layer goes on from %s\n", t->model.head_file.path);
    for (int i = 0; i < d->problems.kind_count; i++)
        report_print(stderr, "%s %" PRId64 " x %s, the first: %s\n",
                     d->problems.kinds[i].note ? "note      " : "left out  ",
                     d->problems.kinds[i].count, d->problems.kinds[i].kind,
                     d->problems.kinds[i].first);
    TrainMemory m = train_model_memory(&t->model, s, &t->sizes);
    fprintf(stderr,
            "memory     %.0f MB: weights %.0f, gradients %.0f, moments %.0f, activations of %d "
            "rows %.0f\n",
            (double)train_memory_sum(&m) / 1e6, (double)m.weights / 1e6, (double)m.gradients / 1e6,
            (double)m.moments / 1e6, t->sizes.tokens, (double)m.arena / 1e6);
    fprintf(stderr, "device     %s; products at most %.0f GFLOP/s\n", device_text(t->device),
            t->peak / 1e9);
    fprintf(stderr, "steps      %" PRId64 ", the first %" PRId64 " to warm up\n\n",
            t->schedule.steps, t->schedule.warmup);
    if (resumed_from) report_print(stderr, "goes on from %s\n", resumed_from);
}

/* ---- Steps. ---- */

static int run_pass(Trainer *t, const LearnBatch *pass, const TrainRun *run, SegmentScore *score,
                    Error *err) {
    const TrainModel *m = &t->model;
    if (!m->classes) return learn_pass(&m->learner, &t->arena, pass, run, t->losses, err);
    SegmentBatch batch = {.pictures = pass->pictures,
                          .pixels = pass->pixels,
                          .labels = pass->target_ids,
                          .weight = pass->weights[0],
                          .smoothing = pass->smoothing};
    SegmentRun how = {.backward = run->backward, .recompute = run->recompute, .score = score};
    return segment_pass(&m->model.vit, &m->head, &t->arena, &batch, &how, t->losses, err);
}

/* Sum of the losses of all passes; their gradients are added up. `score` (may be NULL) is the stage
 * segment's. */
static int run_passes(Trainer *t, const FeedStep *step, TrainRun run, double *loss,
                      SegmentScore *score, Error *err) {
    *loss = 0;
    for (int i = 0; i < step->pass_count; i++) {
        const LearnBatch *pass = &step->passes[i];
        if (pass->tokens == 0) continue; /* no copy of any sequence has a mask */
        run.stream = random_stream(DROPOUT_STREAM, (uint64_t)step->step, (uint64_t)i, 0);
        TRY(run_pass(t, pass, &run, score, err));
        int n = pass->prompts ? pass->prompts : pass->targets;
        for (int j = 0; j < n; j++) *loss += t->losses[j];
    }
    return 0;
}

/* The first of each kind that is met. */
static void tell_problems(Trainer *t, const Problems *found) {
    for (int i = 0; i < found->kind_count; i++) {
        Problems *told = &t->told;
        int before = told->kind_count;
        problems_add(told, found->kinds[i].kind, "%s", found->kinds[i].first);
        if (told->kind_count == before || t->settings->quiet) continue;
        if (t->report.pending) fputc('\n', stderr);
        t->report.pending = false;
        report_print(stderr, "left out   %s, the first: %s\n", found->kinds[i].kind,
                     found->kinds[i].first);
    }
}

static int check_problems(Trainer *t, const FeedStep *step, Error *err) {
    if (step->problems.total == 0) return 0;
    tell_problems(t, &step->problems);
    problems_merge(&t->problems, &step->problems);
    t->state.bad_samples += step->problems.total;
    Problems all = t->data.problems;
    problems_merge(&all, &t->problems);
    return problems_check(&all, t->data.samples, t->settings->bad_share, err);
}

static int update(Trainer *t, const FeedStep *step, double loss, Error *err) {
    double rate = schedule_rate(&t->schedule, t->state.step + 1), norm = 0;
    if (step->pass_count > 0) TRY(optimizer_step(&t->model.optimizer, rate, &norm, err));
    bool skipped = step->pass_count == 0 || !isfinite(norm);
    t->skipped_in_a_row = skipped ? t->skipped_in_a_row + 1 : 0;
    t->state.skipped += skipped;
    if (t->skipped_in_a_row > MOST_SKIPPED)
        return error_set(err,
                         "the run has diverged: %d updates in a row had gradients that are no "
                         "numbers (loss %g); lower --rate and take it up at a checkpoint",
                         MOST_SKIPPED, loss);
    t->state.step++;
    t->state.epoch = step->epoch, t->state.index = step->index + 1;
    t->state.sequences += step->sequences, t->state.tokens += step->tokens;
    t->state.seconds = clock_seconds() - t->started;
    if (skipped) return 0;
    t->state.open_loss += loss, t->state.open_norm += norm, t->state.open_steps++;
    return 0;
}

static double share(int64_t part, int64_t all) {
    return all > 0 ? (double)part / (double)all : NAN;
}

/* A point of training, or with a loss one of validation. */
static int tell_point(Trainer *t, double valid_loss, const SegmentScore *score,
                      const FeedStep *step, Error *err) {
    double now = clock_seconds(), seconds = now - t->sum.since;
    double n = (double)t->state.open_steps;
    TrainPoint point = {.step = t->state.step,
                        .epoch = step->steps ? (double)step->epoch +
                                                   (double)(step->index + 1) / (double)step->steps
                                             : 0,
                        .loss = NAN,
                        .norm = NAN,
                        .rate = NAN,
                        .tokens_per_s = NAN,
                        .rows_per_s = NAN,
                        .peak_share = NAN,
                        .seconds = t->state.seconds,
                        .valid_loss = valid_loss,
                        .valid_accuracy = share(score->right, score->patches),
                        .valid_object_accuracy = share(score->objects_right, score->objects),
                        .skipped = t->state.skipped};
    if (isnan(valid_loss)) {
        point.loss = t->state.open_loss / n, point.norm = t->state.open_norm / n;
        point.rate = schedule_rate(&t->schedule, t->state.step);
        point.tokens_per_s = (double)t->sum.tokens / seconds;
        point.rows_per_s = (double)t->sum.rows / seconds;
        if (t->peak > 0) point.peak_share = t->sum.operations / seconds / t->peak;
        t->state.open_loss = t->state.open_norm = 0, t->state.open_steps = 0;
        memset(&t->sum, 0, sizeof t->sum);
        t->sum.since = now;
    }
    return train_report_point(&t->report, &point, err);
}

/* ---- Validation, checkpoints. ---- */

static int validate(Trainer *t, const FeedStep *at, Error *err) {
    double began = clock_seconds(), sum = 0;
    int64_t weight = 0; /* sequences, or patches: what a step's loss is the mean of */
    SegmentScore score = {0};
    TrainRun run = {.backward = false, .seed = t->settings->seed};
    for (int64_t i = 0; i < t->valid_plan.steps; i++) {
        FeedStep step;
        double loss;
        TRY(feed_make_step(&t->valid_config, &t->valid_plan, 0, i, &step, err));
        int64_t parts = t->valid.scenes ? step.targets : step.sequences;
        int status = run_passes(t, &step, run, &loss, t->valid.scenes ? &score : NULL, err);
        sum += loss * (double)parts;
        weight += parts;
        feed_step_free(&step);
        TRY(status);
    }
    if (weight)
        TRY(tell_point(t, sum / (double)weight, &score, at, err));
    else if (!t->settings->quiet)
        fprintf(stderr, "no validation: none of its pictures could be used\n");
    bool answers = t->settings->stage != STAGE_LENGTH && !t->valid.scenes;
    int shown = answers ? t->settings->show_answers : 0;
    if (shown > 0 && !t->settings->quiet)
        TRY(trainer_show_answers(&t->model, &t->valid_config, shown, stderr, err));
    t->sum.since += clock_seconds() - began; /* it does not count as training time */
    return 0;
}

static int save(Trainer *t, Error *err) {
    double began = clock_seconds();
    char title[256];
    snprintf(title, sizeof title, "easyfirst train %s, %s", stage_name(t->settings->stage),
             t->settings->out);
    TRY(train_checkpoint_write(&t->model, t->settings, &t->state, err));
    TRY(train_report_svg(&t->report, title, err));
    t->sum.since += clock_seconds() - began;
    return 0;
}

static bool is_due(int64_t step, int every) {
    return every > 0 && step % every == 0;
}

static int one_step(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    FeedStep step;
    double loss = 0;
    TRY(feed_next(t->feed, &step, err));
    TrainRun run = {
        .dropout = s->dropout, .seed = s->seed, .recompute = s->recompute, .backward = true};
    int status = check_problems(t, &step, err) || run_passes(t, &step, run, &loss, NULL, err) ||
                 update(t, &step, loss, err);
    t->sum.tokens += step.tokens, t->sum.rows += step.rows;
    t->sum.operations += train_model_operations(&t->model, step.rows, step.targets, step.pictures);
    int64_t done = t->state.step;
    bool last = done == t->schedule.steps;
    if (status == 0 && (is_due(done, s->log_every) || last) && t->state.open_steps > 0)
        status = tell_point(t, NAN, &(SegmentScore){0}, &step, err);
    if (status == 0 && s->valid && (is_due(done, s->valid_every) || last))
        status = validate(t, &step, err);
    if (status == 0 && is_due(done, s->save_every) && !last) status = save(t, err);
    feed_step_free(&step);
    return status ? -1 : 0;
}

static int train(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    FeedConfig *c = &t->feed_config;
    c->first_step = t->state.step, c->end_step = t->schedule.steps;
    c->epoch = t->state.epoch, c->index = t->state.index;
    t->started = clock_seconds() - t->state.seconds;
    t->sum.since = clock_seconds();
    if (t->state.step < t->schedule.steps) TRY(feed_open(&t->feed, c, err));
    int64_t end = t->schedule.steps, first = t->state.step;
    if (s->stop_after > 0 && first + s->stop_after < end) end = first + s->stop_after;
    /* The loss to begin with; a run that is taken up has it. */
    if (s->valid && first == 0 && s->valid_every > 0) TRY(validate(t, &(FeedStep){0}, err));
    catch_signals();
    int status = 0;
    while (status == 0 && t->state.step < end && !stop_asked) status = one_step(t, err);
    if (status) {
        /* Too many bad samples, say: what was learned is kept, unless it has diverged, when an
         * older checkpoint is the better one. The message stays that of the cause. */
        if (t->state.step > first && t->skipped_in_a_row <= MOST_SKIPPED) save(t, NULL);
        return -1;
    }
    TRY(save(t, err));
    if (t->state.step == t->schedule.steps) TRY(train_checkpoint_publish(s, err));
    return 0;
}

static void tell_end(const Trainer *t) {
    const TrainSettings *s = t->settings;
    if (s->quiet) return;
    if (t->state.bad_samples)
        report_print(stderr, "left out   %" PRId64 " times a picture that could not be decoded\n",
                     t->state.bad_samples);
    size_t free_bytes, total;
    fprintf(stderr, "memory     %.0f MB at its peak\n", (double)peak_memory() / 1e6);
    if (device_memory(t->device, &free_bytes, &total))
        fprintf(stderr, "gpu        %.0f MB in use at the end, of %.0f MB\n",
                1e-6 * (double)(total - free_bytes), 1e-6 * (double)total);
    if (t->state.step == t->schedule.steps)
        report_print(stderr, "done: the model is %s/model, the curve %s/loss.svg\n", s->out,
                     s->out);
    else
        report_print(stderr,
                     "stopped after step %" PRId64 " of %" PRId64
                     "; go on with: easyfirst train --resume --out %s\n",
                     t->state.step, t->schedule.steps, s->out);
}

/* ---- A run. ---- */

static int save_settings(const TrainSettings *s, Error *err) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/settings.json", s->out);
    json_t *json = train_settings_json(s);
    if (!json) return error_set(err, "out of memory");
    int status = json_write(json, path, err);
    json_decref(json);
    return status;
}

static int run_all(Trainer *t, Error *err) {
    TrainSettings *s = t->settings;
    char folder[PATH_SIZE] = "";
    bool found = false;
    TRY(make_run_folder(s->out, err));
    TRY(lock_run_folder(t, s->out, err));
    TRY(train_checkpoint_find(s->out, folder, sizeof folder, &t->state, &found, err));
    if (found && !s->resume)
        return error_set(err,
                         "%s is there already: go on with --resume, or name another folder with "
                         "--out",
                         folder);
    TRY(check_files(t, err));
    TRY(device_choose(&t->device, s->device, s->threads, err));
    TRY(open_model(t, found, folder, err));
    TRY(open_data(t, err));
    if (found) TRY(check_resumed(t, folder, err));
    TRY(check_memory(t, found, folder, err));
    TRY(prepare(t, found, folder, err));
    TRY(plan_steps(t, err));
    const Model *m = &t->model.model;
    TRY(train_peak(t->device, t->data.scenes ? m->vision.compute : m->language.compute, &t->peak,
                   err));
    tell_start(t, found ? folder : NULL);
    TRY(save_settings(s, err));
    TRY(dataset_files_write(&t->data, s->out, err));
    TRY(train_report_open(&t->report, s->out, t->state.step, t->schedule.steps, s->quiet, err));
    t->report_open = true;
    TRY(train(t, err));
    if (stop_asked &&
        t->state.step < t->schedule.steps) /* what waits for the model must not go on */
        return error_set(err,
                         "stopped by a signal after step %" PRId64 " of %" PRId64
                         ", with a checkpoint; go on with: easyfirst train --resume --out %s",
                         t->state.step, t->schedule.steps, s->out);
    tell_end(t);
    return 0;
}

int trainer_run(TrainSettings *settings, Error *err) {
    Trainer *t = calloc(1, sizeof *t);
    if (!t) return error_set(err, "out of memory");
    t->settings = settings;
    t->lock = -1;
    int status = run_all(t, err);
    feed_close(t->feed);
    if (t->report_open) train_report_close(&t->report);
    batches_free(&t->valid_plan);
    dataset_close(&t->data);
    dataset_close(&t->valid);
    free(t->losses);
    arena_close(&t->arena);
    if (t->model_open) train_model_close(&t->model);
    device_close(t->device);
    if (t->lock >= 0) close(t->lock);
    free(t);
    return status;
}
