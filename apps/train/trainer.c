#include "apps/train/trainer_state.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/processes.h"
#include "apps/cli/report.h"
#include "apps/cli/signals.h"
#include "apps/train/best.h"
#include "apps/train/dataset_files.h"
#include "apps/train/finite.h"
#include "apps/train/ranks.h"
#include "apps/train/settings.h"
#include "apps/train/start.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"
#include "kernels/clock.h"
#include "kernels/matmul_peak.h"
#include "kernels/random.h"

enum {
    VALID_SEQUENCES = 32,
    MOST_SKIPPED = 20,           /* updates in a row without a finite norm: the run has diverged */
    DROPOUT_STREAM = 0x64726f70, /* "drop" */
};

void trainer_say(Trainer *t, const char *format, ...) {
    char *line;
    va_list args;
    va_start(args, format);
    int length = t->settings->quiet ? -1 : vasprintf(&line, format, args);
    va_end(args);
    if (length < 0) return;
    train_report_line(&t->report, line);
    free(line);
}

static void tell_scan(void *user, const char *path, int64_t done, int64_t all) {
    const Trainer *t = user;
    if (t->settings->quiet || !isatty(STDERR_FILENO)) return;
    fputc('\r', stderr);
    report_print(stderr, "%.60s: %" PRId64 " of %" PRId64 " records read%s", path, done, all,
                 done == all ? "\n" : "");
}

static int open_dataset(Trainer *t, Dataset *dataset, const char *const *paths, int count,
                        const ParallelFiles *parallel, int64_t limit, Error *err) {
    const TrainSettings *s = t->settings;
    DatasetOptions options = {.records = train_start_records(s),
                              .example = trainer_examples(&t->model, s),
                              .parallel = *parallel,
                              .max_bad_fraction = s->max_bad_fraction,
                              .limit = limit,
                              .progress = tell_scan,
                              .user = t};
    TRY(dataset_open(dataset, paths, count, &options, err));
    if (!dataset->with_image || t->model.model.parts.projector) return 0;
    return error_set(err,
                     "%s has images, but the model has no vision tower: name one that has "
                     "(--vision, with --projector or --new-projector)",
                     dataset->read[0].path);
}

/* Whether there are held-out data. */
static bool has_valid(const TrainSettings *s) {
    return s->valid || s->valid_parallel.source;
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
    return dataset_open_scenes(dataset, paths, count, &options, patches, s->max_bad_fraction, err);
}

/* What a GPU leaves to the processor's cores; a model that is trained on these needs them itself. */
static int image_threads(const Trainer *t) {
    const TrainSettings *s = t->settings;
    if (s->image_threads) return s->image_threads;
    if (device_kind(t->device) == DEVICE_CPU) return 1;
    const int given = s->threads ? s->threads : t->ranks->threads;
    return given ? given : omp_get_max_threads();
}

static void configure_loader(Trainer *t, LoaderConfig *c, const Dataset *dataset) {
    const TrainSettings *s = t->settings;
    *c = (LoaderConfig){.dataset = dataset,
                        .batches = {.tokens = s->batch_sequences > 0 ? 0 : s->batch_tokens,
                                    .sequences = s->batch_sequences,
                                    .mixed = !s->group,
                                    .seed = s->seed,
                                    .weights = dataset->weights,
                                    .sources = dataset->sources},
                        .preprocess = t->model.model.parts.preprocess,
                        .pass = t->sizes,
                        .features = t->features,
                        .threads = image_threads(t),
                        .rank = s->rank,
                        .ranks = s->ranks};
    if (dataset->scenes)
        c->grid = tower_grid(&t->model.model.tower), c->packing.noise = s->noise;
    else
        c->packing = trainer_packing(&t->model, s);
}

static void configure_valid(Trainer *t) {
    configure_loader(t, &t->valid_config, &t->valid);
    t->valid_config.batches.tokens = 0;
    t->valid_config.batches.sequences = VALID_SEQUENCES;
    t->valid_config.batches.in_order = true;
    t->valid_config.batches.weights = NULL;
    t->valid_config.packing.noise.label_smoothing = 0;
    t->valid_config.noise_epoch = -1;
}

/* Validation data first: it is smaller, so errors in it are found sooner. */
static int open_texts(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    if (has_valid(s))
        TRY(open_dataset(t, &t->valid, &s->valid, s->valid != NULL, &s->valid_parallel,
                         s->valid_limit, err));
    TRY(open_dataset(t, &t->data, s->data.items, s->data.count, &s->parallel, 0, err));
    PackingConfig packing = trainer_packing(&t->model, s);
    TrainSizes unit = loader_unit_sizes(&t->data, &packing);
    if (has_valid(s)) {
        if (t->valid.with_image && !t->data.with_image)
            return error_set(err,
                             "--valid %s has images, but nothing in the training data has: "
                             "this run does not use the vision tower",
                             t->valid.read[0].path);
        TrainSizes other = loader_unit_sizes(&t->valid, &packing);
        if (other.tokens > unit.tokens) unit.tokens = other.tokens;
        if (other.images > unit.images) unit.images = other.images;
    }
    t->sizes = train_model_sizes(s, &unit, packing.image_rows);
    return 0;
}

static int open_graphs(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(open_scenes(t, &t->data, s->data.items, s->data.count, 0, NULL, err));
    const SceneGraphs *g = t->data.scenes;
    if (s->valid) TRY(open_scenes(t, &t->valid, &s->valid, 1, s->valid_limit, g, err));
    t->sizes = train_model_sizes(s, &(TrainSizes){0}, vit_patches(&t->model.model.vit.config));
    /* A run that is taken up has the layer's values in its checkpoint. */
    return train_model_classes(&t->model, t->state.step > 0 ? NULL : s->model.folder, s->seed,
                               (const char *const *)g->classes, g->class_count, err);
}

static int open_features(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    Dtype dtype = trainer_kept_dtype(&t->model, s);
    if (dtype == DTYPE_NONE) return 0;
    t->model.context.feature_dtype = dtype;
    char *own = t->ranks->rank ? path_format(err, "%s.%d", s->feature_cache, t->ranks->rank) : NULL;
    if (t->ranks->rank && !own) return -1;
    int status =
        feature_cache_open(&t->features, own ? own : s->feature_cache, &t->model.model, dtype, err);
    free(own);
    TRY(status);
    if (feature_cache_count(t->features))
        trainer_say(t, "features   of %" PRId64 " images are in %s",
                    feature_cache_count(t->features), s->feature_cache);
    return 0;
}

static int open_data(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(open_features(t, err));
    TRY(s->stage == STAGE_SEGMENT ? open_graphs(t, err) : open_texts(t, err));
    configure_loader(t, &t->loader_config, &t->data);
    if (!has_valid(s)) return 0;
    configure_valid(t);
    return batches_plan(&t->valid_plan, t->valid.units, t->valid.count, &t->valid_config.batches, 0,
                        err);
}

/* ---- Beginning, or going on. ---- */

/* A resumed run's model is its checkpoint's; with LoRA the frozen weights are those at the run's
 * start, since the checkpoint has them merged. */
static TrainSettings model_settings(const Trainer *t, bool resumed, const char *folder) {
    TrainSettings changed = *t->settings;
    if (!resumed || changed.lora.rank > 0) return changed;
    changed.model.folder = folder;
    changed.model.vision = changed.model.language = changed.model.projector = changed.model.length =
        changed.model.adapter = NULL; /* merged */
    changed.new_projector = PROJECTOR_NONE;
    return changed;
}

static int open_model(Trainer *t, bool resumed, const char *folder, Error *err) {
    TrainSettings changed = model_settings(t, resumed, folder);
    TRY(train_model_open(&t->model, &changed, t->device, err));
    t->model_open = true;
    return 0;
}

static int prepare(Trainer *t, bool resumed, const char *folder, Error *err) {
    TrainModel *m = &t->model;
    TRY(train_model_prepare(m, t->settings, t->data.with_image > 0,
                            resumed ? t->state.compute : NULL, err));
    const ModelPart *parts[4] = {&m->model.vision, &m->model.projector, &m->model.language,
                                 &m->model.length};
    for (int i = 0; i < 4; i++)
        t->state.compute[i] = parts[i]->present ? parts[i]->compute : DTYPE_NONE;
    if (resumed) {
        TRY(train_checkpoint_read(m, folder, err));
        m->optimizer.step = t->state.step - t->state.skipped;
    }
    TRY(arena_open(&t->arena, t->device, train_model_arena(m, t->settings, &t->sizes), err));
    int most = t->sizes.targets > t->sizes.prompts ? t->sizes.targets : t->sizes.prompts;
    t->losses = malloc(((size_t)most + 1) * sizeof *t->losses);
    return t->losses ? 0 : error_set(err, "out of memory for %d losses", most);
}

/* Reports the loading of large weights. */
static void tell_loading(Trainer *t, const char *from) {
    const Model *m = &t->model.model;
    size_t bytes =
        params_stored_bytes(&m->vision.params) + params_stored_bytes(&m->language.params);
    if (bytes > 200000000)
        trainer_say(t, "loading    %s, %.0f MB of weights", from, 1e-6 * (double)bytes);
}

static void tell_kinds(Trainer *t, const Skipped *skipped, const char *where) {
    for (int i = 0; i < skipped->kind_count; i++) {
        const SkippedKind *p = &skipped->kinds[i];
        trainer_say(t, "%s %s%" PRId64 " x %s, the first: %s",
                    p->note ? "note      " : "left out  ", where, p->count, p->kind, p->first);
    }
}

static void tell_start(Trainer *t, const char *resumed_from) {
    const TrainSettings *s = t->settings;
    const Dataset *d = &t->data;
    if (s->quiet) return;
    train_settings_print(s, stderr);
    fputc('\n', stderr);
    if (d->scenes)
        trainer_say(t,
                    "data       %" PRId64 " images with %" PRId64 " objects of %d classes; %d "
                    "patches an image",
                    d->count, d->scenes->box_count, d->scenes->class_count - 1, d->longest);
    else
        trainer_say(t,
                    "data       %" PRId64 " examples, %" PRId64 " of them with an image, %" PRId64
                    " tokens, the longest %d",
                    d->count, d->with_image, d->tokens, d->longest);
    if (t->model.head_file.count)
        trainer_say(t, "classes    their layer continues from %s", t->model.head_file.path);
    tell_kinds(t, &d->skipped, "");
    if (has_valid(s)) tell_kinds(t, &t->valid.skipped, "--valid: ");
    TrainMemory m = train_model_memory(&t->model, s, &t->sizes);
    trainer_say(t,
                "memory     %.0f MB: weights %.0f, gradients %.0f, moments %.0f, activations of %d "
                "rows %.0f",
                (double)train_memory_sum(&m) / 1e6, (double)m.weights / 1e6,
                (double)m.gradients / 1e6, (double)m.moments / 1e6, t->sizes.tokens,
                (double)m.arena / 1e6);
    trainer_say(t, "device     %s; matmuls at most %.0f GFLOP/s", device_text(t->device),
                t->peak / 1e9);
    trainer_say(t, "steps      %" PRId64 ", the first %" PRId64 " to warm up", t->schedule.steps,
                t->schedule.warmup);
    fputc('\n', stderr);
    train_start_notes(s, &t->model, stderr);
    if (t->peak_f32 > 0) train_start_speed(t->peak, t->peak_f32, stderr);
    if (resumed_from) trainer_say(t, "resumes from %s", resumed_from);
}

/* ---- Steps. ---- */

/* Features that a pass has computed. */
static void keep_features(Trainer *t, const TrainBatch *pass) {
    const size_t bytes = feature_cache_bytes(t->features);
    for (int i = 0; i < pass->images; i++)
        if (!pass->known[i])
            feature_cache_add(t->features, pass->keys[i],
                              (const char *)pass->features + (size_t)i * bytes);
    const char *problem = feature_cache_problem(t->features);
    if (problem && !t->features_told) trainer_say(t, "note       %s", problem);
    t->features_told = problem != NULL;
}

static int run_pass(Trainer *t, const TrainBatch *pass, const TrainRun *run, SegmentScore *score,
                    Error *err) {
    const TrainModel *m = &t->model;
    if (!m->classes) {
        TRY(train_micro_batch(&m->context, &t->arena, pass, run, t->losses, err));
        if (pass->known && (pass->targets || pass->prompts)) keep_features(t, pass);
        return 0;
    }
    SegmentBatch batch = {.images = pass->images,
                          .pixels = pass->pixels,
                          .labels = pass->target_ids,
                          .weight = pass->weights[0],
                          .smoothing = pass->smoothing};
    SegmentRun how = {.backward = run->backward, .recompute = run->recompute, .score = score};
    return segment_pass(&m->model.vit, &m->head, &t->arena, &batch, &how, t->losses, err);
}

int trainer_run_passes(Trainer *t, const LoaderStep *step, TrainRun run, double *loss,
                       SegmentScore *score, Error *err) {
    const uint64_t rank = (uint64_t)t->ranks->rank;
    *loss = 0;
    for (int i = 0; i < step->pass_count; i++) {
        const TrainBatch *pass = &step->passes[i];
        if (pass->tokens == 0) continue; /* no copy of any sequence has a mask */
        run.stream = random_stream(DROPOUT_STREAM, (uint64_t)step->step, (uint64_t)i, rank);
        TRY(run_pass(t, pass, &run, score, err));
        TRY(run.backward ? share_pass_over(&t->ranks->share, err)
                         : share_forward_over(&t->ranks->share, err));
        t->passes_over++;
        int n = pass->prompts ? pass->prompts : pass->targets;
        for (int j = 0; j < n; j++) *loss += t->losses[j];
    }
    return 0;
}

/* A step's passes; all ranks make the same number of them, or seem to. */
static int train_passes(Trainer *t, const LoaderStep *step, int rounds, double *loss, Error *err) {
    const TrainSettings *s = t->settings;
    TrainRun run = {.dropout = s->dropout,
                    .seed = s->seed,
                    .recompute = s->recompute,
                    .backward = true,
                    .left = {share_left, &t->ranks->share}};
    t->passes_over = 0, t->rounds += rounds;
    int status = trainer_run_passes(t, step, run, loss, NULL, err);
    for (; t->passes_over < rounds; t->passes_over++)
        if (share_pass_over(&t->ranks->share, status ? NULL : err)) return -1;
    return status;
}

void trainer_report_skipped(Trainer *t, const Skipped *found) {
    for (int i = 0; i < found->kind_count; i++) {
        Skipped *reported = &t->reported;
        int before = reported->kind_count;
        skipped_add(reported, found->kinds[i].kind, "%s", found->kinds[i].first);
        if (reported->kind_count == before) continue;
        trainer_say(t, "left out   %s, the first: %s", found->kinds[i].kind, found->kinds[i].first);
    }
}

static int check_skipped(Trainer *t, const LoaderStep *step, int64_t found, Error *err) {
    if (step->skipped.kind_count == 0 && found == 0) return 0;
    trainer_report_skipped(t, &step->skipped);
    skipped_merge(&t->skipped, &step->skipped);
    Skipped all = t->data.skipped;
    skipped_merge(&all, &t->skipped);
    /* Of all parts of the run; a step over the limit is not done, and will be repeated. */
    int64_t bad = t->state.bad_samples + found;
    all.total = t->data.skipped.total + bad;
    TRY(skipped_check(&all, t->data.samples, t->settings->max_bad_fraction, err));
    t->state.bad_samples = bad;
    return 0;
}

/* At the first skipped update: are the weights not finite, or only the gradients? */
static int check_finite(void *user, Error *err) {
    Trainer *t = user;
    bool found;
    TRY(train_model_check_finite(&t->model, t->checkpoints.last, &found, err));
    t->diverged = found;
    return found ? -1 : 0;
}

static int streak_begins(Trainer *t, double loss, Error *err) {
    const int status = ranks_first_does(t->ranks, check_finite, t, err);
    if (status && !ranks_is_first(t->ranks)) t->diverged = true;
    TRY(status);
    trainer_say(t,
                "skipped    the update of step %" PRId64 ": the %s not finite, all weights are; "
                "a lower --lr helps if this continues",
                t->state.step + 1, isfinite(loss) ? "gradient is" : "loss is");
    return 0;
}

static int streak_goes_on(Trainer *t, double loss, Error *err) {
    if (t->skipped_in_a_row == 0) TRY(streak_begins(t, loss, err));
    if (++t->skipped_in_a_row <= MOST_SKIPPED) return 0;
    t->diverged = true;
    return error_set(err,
                     "the run has diverged: %d updates in a row had non-finite gradients (loss %g) "
                     "and were skipped, though all weights are finite; restart with a lower "
                     "--lr, from %s",
                     MOST_SKIPPED, loss,
                     t->checkpoints.last ? t->checkpoints.last : "the same model");
}

/* A step without targets moves the weights by momentum alone, if it has micro-batches; it does not
 * affect a streak, during which the weights do not change. */
static int update(Trainer *t, const LoaderStep *step, const RanksStep *all, double loss,
                  Error *err) {
    double rate = schedule_rate(&t->schedule, t->state.step + 1), norm = 0;
    bool targets = all->targets; /* by chance no token may be masked */
    bool made = all->passes && (targets || t->skipped_in_a_row == 0);
    if (made) TRY(optimizer_step(&t->model.optimizer, rate, &norm, err));
    bool skipped = !made || !isfinite(norm);
    if (!isfinite(norm))
        TRY(streak_goes_on(t, loss, err));
    else if (targets)
        t->skipped_in_a_row = 0;
    t->state.skipped += skipped;
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

int trainer_tell_point(Trainer *t, const TrainValid *valid, const LoaderStep *step, Error *err) {
    const SegmentScore none = {0}, *score = valid ? &valid->segment : &none;
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
                        .valid_loss = valid ? valid->loss : NAN,
                        .valid_score = valid ? valid->score : NAN,
                        .valid_accuracy = share(score->right, score->patches),
                        .valid_object_accuracy = share(score->objects_right, score->objects),
                        .skipped = t->state.skipped};
    if (!valid) {
        point.loss = t->state.open_loss / n, point.norm = t->state.open_norm / n;
        point.rate = schedule_rate(&t->schedule, t->state.step);
        point.tokens_per_s = (double)t->sum.tokens / seconds;
        point.rows_per_s = (double)t->sum.rows / seconds;
        /* Above 1 the peak was measured on a busy machine. */
        double reached = t->sum.operations / seconds;
        const double peak = t->peak * t->ranks->size;
        if (peak > 0 && reached <= peak) point.peak_share = reached / peak;
        t->state.open_loss = t->state.open_norm = 0, t->state.open_steps = 0;
        memset(&t->sum, 0, sizeof t->sum);
        t->sum.since = now;
    }
    return ranks_is_first(t->ranks) ? train_report_point(&t->report, &point, err) : 0;
}

/* ---- Checkpoints. ---- */

/* A failure to write the curve does not stop the run. */
static int save_curve(Trainer *t, bool last, Error *err) {
    Error why = {{0}};
    char *title = path_format(err, "easyfirst train %s, %s", stage_name(t->settings->stage),
                              t->settings->out);
    if (!title) return -1;
    int status = train_report_svg(&t->report, title, &why);
    free(title);
    if (status == 0) return 0;
    if (last) return error_set(err, "%s", why.text);
    trainer_say(t, "%s", why.text);
    return 0;
}

/* A checkpoint of the state after the last applied update: while updates are skipped, weights and
 * moments do not change, and the skipped steps are repeated on resume. */
static int save_first(void *user, Error *err) {
    Trainer *t = user;
    const TrainState *state = t->skipped_in_a_row ? &t->good : &t->state;
    TRY(train_report_sync(&t->report, err));
    return train_checkpoint_write(&t->checkpoints, &t->model, t->settings, state, err);
}

static int save(Trainer *t, bool last, Error *err) {
    double began = clock_seconds();
    TRY(ranks_agree(t->ranks, share_check(&t->ranks->share, err), err));
    TRY(ranks_first_does(t->ranks, save_first, t, err));
    if (ranks_is_first(t->ranks)) TRY(save_curve(t, last, err));
    t->save_owed = false;
    t->sum.since += clock_seconds() - began;
    return 0;
}

/* Whether the run is at its end. */
static bool is_done(const Trainer *t) {
    return t->state.step == t->schedule.steps || trainer_out_of_patience(t);
}

static bool is_due(int64_t step, int every) {
    return every > 0 && step % every == 0;
}

static int one_step(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    LoaderStep step;
    RanksStep all;
    double loss = 0;
    int status = loader_next(t->loader, &step, err);
    TRY(ranks_step(t->ranks, status, &step, &all, err));
    status = check_skipped(t, &step, all.bad, err);
    if (status == 0) {
        status = train_passes(t, &step, all.rounds, &loss, err);
        status = ranks_loss(t->ranks, status, &loss, err) || update(t, &step, &all, loss, err);
    } else {
        t->ranks->agreed = true; /* each finds the same */
    }
    t->sum.tokens += step.tokens, t->sum.rows += step.rows;
    t->sum.operations += train_model_operations(&t->model, step.rows, step.targets, step.images);
    int64_t done = t->state.step;
    bool last = done == t->schedule.steps;
    if (status == 0 && (is_due(done, s->log_every) || last) && t->state.open_steps > 0)
        status = trainer_tell_point(t, NULL, &step, err);
    if (status == 0 && has_valid(s) && (is_due(done, s->valid_every) || last))
        status = trainer_validate(t, &step, err);
    if (status == 0) t->save_owed |= is_due(done, s->save_every) && !last;
    if (status == 0 && t->skipped_in_a_row == 0) {
        t->good = t->state;
        if (t->save_owed) status = save(t, false, err);
    }
    loader_step_free(&step);
    return status ? -1 : 0;
}

/* Applied updates, before this process, too. */
static int64_t updates(const TrainState *state) {
    return state->step - state->skipped;
}

/* The signal that asks for the end; of several ranks, one that all know of. */
static int stop_asked(const Trainer *t) {
    return t->ranks->size > 1 ? t->ranks->signal : signals_stop_asked();
}

static int loop(Trainer *t, int64_t end, Error *err) {
    int64_t first = t->state.step;
    t->good = t->state;
    signals_catch_stop();
    int status = 0;
    while (status == 0 && t->state.step < end && !trainer_out_of_patience(t) && !stop_asked(t))
        status = one_step(t, err);
    if (status == 0) return 0;
    /* On an error such as too many bad samples: saves a checkpoint, unless the run has diverged,
     * when an older one is better. The message stays that of the cause. */
    const bool together = ranks_agreed(t->ranks);
    Error why = {{0}};
    if (t->good.step > first && !t->diverged && together) save(t, false, &why);
    return -1;
}

static int train(Trainer *t, Error *err) {
    const TrainSettings *s = t->settings;
    LoaderConfig *c = &t->loader_config;
    c->first_step = t->state.step, c->end_step = t->schedule.steps;
    c->epoch = t->state.epoch, c->index = t->state.index;
    t->started = clock_seconds() - t->state.seconds;
    t->sum.since = clock_seconds();
    if (!is_done(t)) TRY(loader_open(&t->loader, c, err));
    int64_t end = t->schedule.steps, first = t->state.step, before = updates(&t->state);
    if (s->stop_after > 0 && first + s->stop_after < end) end = first + s->stop_after;
    /* The initial validation loss; a resumed run has it already. */
    if (has_valid(s) && first == 0 && s->valid_every > 0)
        TRY(trainer_validate(t, &(LoaderStep){0}, err));
    TRY(loop(t, end, err));
    if (updates(&t->state) > 0) TRY(save(t, true, err));
    t->made = updates(&t->state) - before;
    TRY(trainer_check_end(&t->state, is_done(t), t->made, t->skipped_in_a_row, t->checkpoints.last,
                          err));
    if (!is_done(t)) return 0;
    int status = ranks_is_first(t->ranks) ? train_checkpoint_publish(&t->checkpoints, err) : 0;
    return ranks_agree(t->ranks, status, err);
}

static void tell_end(Trainer *t) {
    const TrainSettings *s = t->settings;
    if (t->state.bad_samples)
        trainer_say(t, "left out   %" PRId64 " records whose image could not be decoded",
                    t->state.bad_samples);
    size_t free_bytes, total;
    char *ranks = ranks_text(t->ranks, t->made, t->rounds);
    if (ranks) trainer_say(t, "%s", ranks);
    free(ranks);
    trainer_say(t, "memory     %.0f MB at its peak", (double)peak_memory() / 1e6);
    if (device_memory(t->device, &free_bytes, &total))
        trainer_say(t, "gpu        %.0f MB in use at the end, of %.0f MB",
                    1e-6 * (double)(total - free_bytes), 1e-6 * (double)total);
    if (trainer_out_of_patience(t) && t->state.step < t->schedule.steps)
        trainer_say(t,
                    "early stop after step %" PRId64 " of %" PRId64
                    ": %d validations in a row without a better one",
                    t->state.step, t->schedule.steps, s->patience);
    if (t->state.best_step >= 0)
        trainer_say(t, "best       the model after step %" PRId64 ", %s %.4g: %s/best",
                    t->state.best_step, train_best_names[s->best_by], t->state.best_score, s->out);
    if (is_done(t))
        trainer_say(t, "done: the model is %s/model, the curve %s/loss.svg", s->out, s->out);
    else
        trainer_say(t,
                    "stopped after step %" PRId64 " of %" PRId64
                    "; resume with: easyfirst train --resume --out %s",
                    t->state.step, t->schedule.steps, s->out);
}

/* ---- A run. ---- */

/* Repairs are reported in quiet runs, too. */
static void note(void *user, bool progress, const char *text) {
    if (progress)
        trainer_say(user, "%s", text);
    else
        report_error("train: %s", text);
}

/* The folder is locked before anything in it is read. */
static int open_run(Trainer *t, Error *err) {
    TrainSettings *s = t->settings;
    TRY(run_folder_open(&t->run, s->out, s->resume, err));
    int64_t newest = train_checkpoints_newest(&t->run);
    if (newest >= 0 && !s->resume)
        return error_set(err,
                         "%s/checkpoint-%08" PRId64 " exists already: resume with --resume, or "
                         "name another folder with --out",
                         s->out, newest);
    if (s->resume) TRY(train_start_same_settings(s, err));
    t->state.best_step = -1;
    TRY(train_checkpoints_open(&t->checkpoints, &t->run, note, t, &t->state, err));
    return s->best_by ? train_best_check(&t->run, err) : 0;
}

/* Checks before the weights are loaded. */
static int check_start(Trainer *t, Error *err) {
    const char *folder = t->checkpoints.last;
    json_t *before = t->state.data;
    t->state.data = train_start_data(&t->data);
    int status = t->state.data ? 0 : error_set(err, "out of memory");
    if (status == 0 && folder && before)
        status = train_start_same_data(before, t->state.data, folder, err);
    json_decref(before);
    TRY(status);
    if (ranks_is_first(t->ranks))
        TRY(train_start_space(&t->run, &t->model, t->settings, !folder, err));
    TrainSettings changed = model_settings(t, folder, folder);
    return train_start_memory(t->device, &changed, &t->data, &t->sizes, err);
}

/* The folder is rank 0's; the others have its path. */
static int open_first(Trainer *t, Error *err) {
    TrainSettings *s = t->settings;
    if (ranks_is_first(t->ranks)) {
        TRY(open_run(t, err));
    } else {
        t->run.path = path_format(err, "%s", s->out);
        if (!t->run.path) return -1;
    }
    TRY(train_start_files(s, err));
    char *own = processes_device(s->device);
    const int threads = s->threads ? s->threads : t->ranks->threads;
    int status = device_choose(&t->device, own ? own : s->device, threads, err);
    free(own);
    if (status == 0 && ranks_is_first(t->ranks))
        status = train_start_mask(&t->start, s, &t->run, t->device, err);
    return status;
}

static int open_reports(Trainer *t, const char *folder, Error *err) {
    const TrainSettings *s = t->settings;
    TRY(trainer_save_settings(&t->run, s, err));
    TRY(dataset_files_write(&t->data, has_valid(s) ? &t->valid : NULL, s->out, err));
    if (folder) train_checkpoints_trim(&t->checkpoints, s->keep);
    TRY(train_report_open(&t->report, s->out, t->state.step, t->schedule.steps, s->quiet, err));
    t->report_open = true;
    t->report.score = s->best_by > BEST_LOSS ? train_best_names[s->best_by] : NULL;
    if (t->report.dropped)
        trainer_say(t, "left out   %d damaged line%s at the end of %s, left by a crash",
                    t->report.dropped, t->report.dropped == 1 ? "" : "s", t->report.path);
    return 0;
}

static int open_rest(Trainer *t, Error *err) {
    TrainSettings *s = t->settings;
    const char *folder = t->checkpoints.last;
    if (!ranks_is_first(t->ranks)) TRY(train_start_mask(&t->start, s, &t->run, t->device, err));
    if (t->start.folder)
        trainer_say(t, "mask       the model has no mask token: %s is the same with one",
                    t->start.folder);
    TRY(open_model(t, folder, folder, err));
    TRY(open_data(t, err));
    TRY(check_start(t, err));
    tell_loading(t, folder ? folder : s->model.folder ? s->model.folder : "the model");
    TRY(prepare(t, folder, folder, err));
    TRY(trainer_schedule(&t->schedule, s, &t->data, &t->loader_config.batches, err));
    const Model *m = &t->model.model;
    const Dtype compute = t->data.scenes ? m->vision.compute : m->language.compute;
    TRY(matmul_peak(t->device, compute, &t->peak, err));
    /* Not every processor that has instructions for bf16 gains by them. Between two looks at bf16,
     * since other programs may have been busy during one. */
    if (compute == DTYPE_BF16 && device_kind(t->device) == DEVICE_CPU && ranks_is_first(t->ranks)) {
        double again;
        TRY(matmul_peak(t->device, DTYPE_F32, &t->peak_f32, err));
        TRY(matmul_peak(t->device, compute, &again, err));
        t->peak = fmax(t->peak, again);
    }
    tell_start(t, folder);
    return ranks_is_first(t->ranks) ? open_reports(t, folder, err) : 0;
}

static int open_all(Trainer *t, Error *err) {
    TRY(ranks_agree(t->ranks, open_first(t, err), err));
    if (t->ranks->comm) TRY(comm_use(t->ranks->comm, t->device, err));
    TRY(ranks_state(t->ranks, &t->checkpoints.last, &t->state, err));
    return ranks_agree(t->ranks, open_rest(t, err), err);
}

static int run_all(Trainer *t, Error *err) {
    TRY(open_all(t, err));
    TRY(train(t, err));
    int stopped = stop_asked(t);
    if (stopped && !is_done(t)) {
        error_set(err,
                  "stopped by %s after step %" PRId64 " of %" PRId64
                  "%s; resume with: easyfirst train --resume --out %s",
                  signals_name(stopped), t->state.step, t->schedule.steps,
                  t->checkpoints.last ? ", with a checkpoint" : "", t->settings->out);
        t->ranks->agreed = true;
        if (!ranks_is_first(t->ranks)) *err = (Error){{0}};
        return TRAINER_STOPPED; /* jobs that wait for the model must not continue */
    }
    tell_end(t);
    return 0;
}

int trainer_run(TrainSettings *settings, Ranks *ranks, Error *err) {
    Trainer *t = calloc(1, sizeof *t);
    if (!t) return error_set(err, "out of memory");
    t->settings = settings, t->ranks = ranks;
    t->run.lock = -1;
    int status = run_all(t, err);
    loader_close(t->loader);
    feature_cache_close(t->features);
    if (t->report_open) train_report_close(&t->report);
    batches_free(&t->valid_plan);
    dataset_close(&t->data);
    dataset_close(&t->valid);
    free(t->losses);
    arena_close(&t->arena);
    if (t->model_open) train_model_close(&t->model);
    device_close(t->device);
    train_start_free(&t->start);
    json_decref(t->state.data);
    train_checkpoints_close(&t->checkpoints);
    run_folder_close(&t->run);
    free(t);
    return status;
}
