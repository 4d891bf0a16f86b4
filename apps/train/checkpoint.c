#include "apps/train/checkpoint.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/model_write.h"

#define CHECKPOINT_NAME "checkpoint-"
#define PARTIAL_END     ".partial" /* of one that is being removed */

enum { STATE_FORMAT = 1, PATH_SIZE = MODEL_PATH_SIZE };

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* The step in a checkpoint's name; -1 for other names, those of unfinished ones among them. */
static int64_t name_step(const char *name) {
    size_t n = strlen(CHECKPOINT_NAME);
    if (strncmp(name, CHECKPOINT_NAME, n)) return -1;
    const char *digits = name + n;
    if (!digits[0] || digits[strspn(digits, "0123456789")] || strlen(digits) > 15) return -1;
    return strtoll(digits, NULL, 10);
}

static void step_folder(char *path, size_t size, const char *run, int64_t step) {
    snprintf(path, size, "%s/" CHECKPOINT_NAME "%08" PRId64, run, step);
}

/* The steps of all checkpoints of a run, in no order; *count of them. Free the result. */
static int64_t *list_steps(const char *run, int *count) {
    int64_t *steps = NULL;
    int capacity = 0;
    *count = 0;
    DIR *dir = opendir(run);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        int64_t step = name_step(e->d_name);
        if (step < 0) continue;
        if (*count == capacity) {
            int64_t *grown =
                realloc(steps, (size_t)(capacity = capacity ? 2 * capacity : 16) * sizeof *steps);
            if (!grown) break;
            steps = grown;
        }
        steps[(*count)++] = step;
    }
    if (dir) closedir(dir);
    return steps;
}

/* ---- state.json. ---- */

static const char *const part_keys[4] = {"vision", "projector", "language", "length"};

static json_t *state_json(const TrainState *s) {
    json_t *types = json_object();
    for (int i = 0; i < 4; i++)
        json_object_set_new(types, part_keys[i], json_string(dtype_name(s->compute[i])));
    char print[24], open_loss[32], open_norm[32];
    snprintf(print, sizeof print, "%016" PRIx64, s->fingerprint);
    /* As text with all their digits: what comes back must be the same number. */
    snprintf(open_loss, sizeof open_loss, "%.17g", s->open_loss);
    snprintf(open_norm, sizeof open_norm, "%.17g", s->open_norm);
    return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s, s:I, s:I, s:s, s:o}",
                     "format", STATE_FORMAT, "step", (json_int_t)s->step, "epoch",
                     (json_int_t)s->epoch, "index", (json_int_t)s->index, "skipped",
                     (json_int_t)s->skipped, "sequences", (json_int_t)s->sequences, "tokens",
                     (json_int_t)s->tokens, "seconds", s->seconds, "open_loss", open_loss,
                     "open_norm", open_norm, "open_steps", (json_int_t)s->open_steps, "bad_samples",
                     (json_int_t)s->bad_samples, "data", print, "compute", types);
}

static Dtype dtype_named(const char *name) {
    for (int d = DTYPE_F32; d < DTYPE_COUNT; d++)
        if (name && !strcmp(name, dtype_name((Dtype)d))) return (Dtype)d;
    return DTYPE_NONE;
}

static int state_read(const char *folder, TrainState *s, Error *err) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/training/state.json", folder);
    json_t *json, *types = NULL;
    TRY(config_read(&json, path, err));
    int format = 0;
    json_int_t step = -1, epoch = 0, index = 0, skipped = 0, sequences = 0, tokens = 0, bad = 0;
    json_int_t open_steps = 0;
    const char *print = "";
    const char *open_loss = "", *open_norm = "";
    double seconds = 0;
    *s = (TrainState){0};
    json_error_t e;
    int status = json_unpack_ex(
        json, &e, 0, "{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:F, s:s, s:s, s:I, s:I, s:s, s:o}",
        "format", &format, "step", &step, "epoch", &epoch, "index", &index, "skipped", &skipped,
        "sequences", &sequences, "tokens", &tokens, "seconds", &seconds, "open_loss", &open_loss,
        "open_norm", &open_norm, "open_steps", &open_steps, "bad_samples", &bad, "data", &print,
        "compute", &types);
    if (status)
        status = error_set(err, "%s: not the state of a training run: %s", path, e.text);
    else if (format != STATE_FORMAT || step < 0 || epoch < 0 || index < 0)
        status = error_set(err, "%s: format %d, step %lld: expected format %d and no negative step",
                           path, format, (long long)step, STATE_FORMAT);
    else {
        *s = (TrainState){.step = step,
                          .epoch = epoch,
                          .index = index,
                          .skipped = skipped,
                          .sequences = sequences,
                          .tokens = tokens,
                          .seconds = seconds,
                          .open_loss = strtod(open_loss, NULL),
                          .open_norm = strtod(open_norm, NULL),
                          .open_steps = open_steps,
                          .bad_samples = bad,
                          .fingerprint = strtoull(print, NULL, 16)};
        for (int i = 0; i < 4; i++)
            s->compute[i] = dtype_named(json_string_value(json_object_get(types, part_keys[i])));
    }
    json_decref(json);
    return status;
}

int train_checkpoint_find(const char *run, char *folder, size_t size, TrainState *state,
                          bool *found, Error *err) {
    int count;
    int64_t *steps = list_steps(run, &count), last = -1;
    for (int i = 0; i < count; i++)
        if (steps[i] > last) last = steps[i];
    free(steps);
    *found = last >= 0;
    if (!*found) return 0;
    step_folder(folder, size, run, last);
    TRY(state_read(folder, state, err));
    if (state->step == last) return 0;
    return error_set(err, "%s: its state is that of step %" PRId64 ": the folder was renamed",
                     folder, state->step);
}

/* ---- The tables of numbers. ---- */

/* What the optimiser walks over, each in a file of its own. */
static const char *table_name(const TrainModel *t, const Params *params) {
    const Model *m = &t->model;
    return params == &m->vision.params      ? "vision"
           : params == &m->projector.params ? "projector"
           : params == &m->length.params    ? "length"
           : params == &t->lora             ? "lora"
           : params == &t->head_params      ? MODEL_SEGMENT
                                            : "language";
}

int train_checkpoint_read(TrainModel *t, const char *folder, Error *err) {
    for (int i = 0; i < t->optimizer.part_count; i++) {
        OptimizerPart *p = &t->optimizer.parts[i];
        char path[PATH_SIZE];
        if (p->params->flat == 0) continue;
        snprintf(path, sizeof path, "%s/training/%s.safetensors", folder, table_name(t, p->params));
        TRY(training_state_read(p->params, p->m, p->v, path, err));
    }
    return 0;
}

static int tables_write(const TrainModel *t, const char *folder, Error *err) {
    for (int i = 0; i < t->optimizer.part_count; i++) {
        const OptimizerPart *p = &t->optimizer.parts[i];
        char path[PATH_SIZE];
        if (p->params->flat == 0) continue;
        snprintf(path, sizeof path, "%s/training/%s.safetensors", folder, table_name(t, p->params));
        TRY(training_state_write(p->params, p->m, p->v, path, err));
    }
    return 0;
}

/* ---- The model. ---- */

typedef struct Writing {
    const TrainModel *t;
    const TrainSettings *settings;
    const char *to;
    char before[PATH_SIZE]; /* the checkpoint before, "" if there is none */
} Writing;

/* The file `name` of a part: that of the checkpoint before, since the one that a resumed run was
 * opened from is removed in time, or else the one beside the part's weights. */
static void beside(char *out, size_t size, const Writing *w, const ModelPart *part,
                   const char *folder, const char *name) {
    if (w->before[0]) {
        snprintf(out, size, "%s/%s/%s", w->before, folder, name);
        if (exists(out)) return;
    }
    model_path_beside(out, size, part->path, name);
}

static Dtype saved_type(const TrainSettings *s, const TrainModel *t, const ModelPart *part,
                        PartDuty duty) {
    bool merged = part == &t->model.language && t->has_lora;
    if (duty != DUTY_LEARN && !merged) return DTYPE_NONE; /* as it came */
    if (!strcmp(s->save_dtype, "f32")) return DTYPE_F32;
    if (!strcmp(s->save_dtype, "bf16")) return DTYPE_BF16;
    return part->checkpoint ? part->stored : t->model.language.stored;
}

/* A part's weights. One that does not change is written once, and then it is the same file under
 * several names. */
static int weights_write(const Writing *w, const ModelPart *part, PartDuty duty, const char *name,
                         Error *err) {
    char path[PATH_SIZE], before[PATH_SIZE + 32];
    Dtype dtype = saved_type(w->settings, w->t, part, duty);
    snprintf(path, sizeof path, "%s/%s", w->to, name);
    snprintf(before, sizeof before, "%s/%s", w->before, name);
    if (dtype == DTYPE_NONE && w->before[0] && exists(before))
        return file_copy(before, path, true, err);
    const TrainModel *t = w->t;
    bool merged = part == &t->model.language && t->has_lora;
    const LoraConfig *lora = &t->model.xlmr.config.block.lora;
    return part_write(&part->params, merged ? &t->lora : NULL,
                      merged ? (double)lora->alpha / lora->rank : 0, path, dtype, err);
}

/* vision/ or language/: a plain Hugging Face folder. */
static int folder_write(const Writing *w, const ModelPart *part, PartDuty duty, const char *folder,
                        Error *err) {
    static const char *const others[] = {"preprocessor_config.json", MODEL_TOKENIZER};
    char path[PATH_SIZE], name[64];
    json_t *config;
    TRY(model_write_subfolder(w->to, folder, err));
    Dtype dtype = saved_type(w->settings, w->t, part, duty);
    if (dtype == DTYPE_NONE) dtype = part->stored;
    beside(path, sizeof path, w, part, folder, "config.json");
    TRY(model_config_read(&config, path, part->kind, dtype, err));
    snprintf(name, sizeof name, "%s/config.json", folder);
    TRY(model_write_json(config, w->to, name, err));
    for (int i = 0; i < 2; i++) {
        beside(path, sizeof path, w, part, folder, others[i]);
        snprintf(name, sizeof name, "%s/%s", folder, others[i]);
        TRY(model_copy_file(path, w->to, name, err));
    }
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    return weights_write(w, part, duty, name, err);
}

/* What the stage `segment` trains over the tower. */
static int head_write(const Writing *w, Error *err) {
    char path[PATH_SIZE + 32];
    const TrainModel *t = w->t;
    bool narrow = !strcmp(w->settings->save_dtype, "bf16");
    snprintf(path, sizeof path, "%s/" MODEL_SEGMENT ".safetensors", w->to);
    TRY(part_write(&t->head_params, NULL, 0, path, narrow ? DTYPE_BF16 : DTYPE_F32, err));
    return model_write_json(json_pack("{s:i, s:O}", "format", STATE_FORMAT, "classes", t->classes),
                            w->to, MODEL_SEGMENT ".json", err);
}

static int model_write(const Writing *w, Error *err) {
    const TrainModel *t = w->t;
    const Model *m = &t->model;
    TRY(model_write_settings(m->settings, m->parts.attention,
                             m->vision.present ? &m->vit.config : NULL, w->to, err));
    if (m->language.present) TRY(folder_write(w, &m->language, t->language, "language", err));
    if (m->vision.present) TRY(folder_write(w, &m->vision, t->vision, "vision", err));
    if (m->projector.present)
        TRY(weights_write(w, &m->projector, t->projector, "projector.safetensors", err));
    if (m->length.present) TRY(weights_write(w, &m->length, t->length, "length.safetensors", err));
    return t->classes ? head_write(w, err) : 0;
}

/* ---- A checkpoint. ---- */

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* What was being written, or removed, when a process ended. */
static void remove_partial(const char *run) {
    DIR *dir = opendir(run);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[PATH_SIZE + 256], name[256];
        const char *end = strstr(e->d_name, PARTIAL_END);
        if (!end || end[strlen(PARTIAL_END)]) continue;
        snprintf(name, sizeof name, "%.*s", (int)(end - e->d_name), e->d_name);
        snprintf(path, sizeof path, "%s/%s", run, e->d_name);
        if (name_step(name) >= 0) folder_remove(path, NULL);
    }
    if (dir) closedir(dir);
    folder_clean(run, CHECKPOINT_NAME);
}

/* Removes all checkpoints but the `keep` newest; that one cannot be removed is no reason to stop.
 * Each loses its name first: one that has it is whole. */
static void remove_old(const char *run, int keep) {
    int count;
    int64_t *steps = list_steps(run, &count);
    if (steps) qsort(steps, (size_t)count, sizeof *steps, descending);
    for (int i = keep; i < count; i++) {
        char path[PATH_SIZE], partial[PATH_SIZE + 16];
        step_folder(path, sizeof path, run, steps[i]);
        snprintf(partial, sizeof partial, "%s" PARTIAL_END, path);
        rename(path, partial);
    }
    free(steps);
    remove_partial(run);
}

static int checkpoint_fill(const Writing *w, const TrainState *state, Error *err) {
    TRY(model_write(w, err));
    TRY(model_write_subfolder(w->to, "training", err));
    TRY(tables_write(w->t, w->to, err));
    return model_write_json(state_json(state), w->to, "training/state.json", err);
}

int train_checkpoint_write(const TrainModel *t, const TrainSettings *settings,
                           const TrainState *state, Error *err) {
    char folder[PATH_SIZE], partial[PATH_SIZE];
    TrainState before;
    bool found;
    step_folder(folder, sizeof folder, settings->out, state->step);
    if (exists(folder)) return 0; /* a run that is taken up where it ended */
    TRY(folder_begin(partial, sizeof partial, folder, err));
    Writing w = {.t = t, .settings = settings, .to = partial};
    if (train_checkpoint_find(settings->out, w.before, sizeof w.before, &before, &found, NULL) ||
        !found)
        w.before[0] = 0;
    int status = checkpoint_fill(&w, state, err);
    if (status == 0) status = folder_commit(partial, folder, err);
    if (status) {
        folder_discard(partial);
        return error_context(err, "the checkpoint of step %" PRId64 " was not written",
                             state->step);
    }
    remove_old(settings->out, settings->keep > 0 ? settings->keep : 1);
    return 0;
}

/* ---- The model to use. ---- */

static int publish_folder(const char *from, const char *to, int depth, Error *err) {
    DIR *dir = opendir(from);
    if (!dir) return error_set(err, "%s: %m", from);
    int status = 0;
    for (struct dirent *e; status == 0 && (e = readdir(dir));) {
        char source[PATH_SIZE + 256], target[PATH_SIZE + 256];
        struct stat info;
        if (e->d_name[0] == '.' || !strcmp(e->d_name, "training")) continue;
        snprintf(source, sizeof source, "%s/%s", from, e->d_name);
        snprintf(target, sizeof target, "%s/%s", to, e->d_name);
        if (stat(source, &info))
            status = error_set(err, "%s: %m", source);
        else if (!S_ISDIR(info.st_mode))
            status = file_copy(source, target, true, err);
        else if (depth > 0)
            status = model_write_subfolder(to, e->d_name, err) ||
                     publish_folder(source, target, depth - 1, err);
    }
    closedir(dir);
    return status ? -1 : 0;
}

int train_checkpoint_publish(const TrainSettings *settings, Error *err) {
    char from[PATH_SIZE], to[PATH_SIZE], partial[PATH_SIZE];
    TrainState state;
    bool found;
    TRY(train_checkpoint_find(settings->out, from, sizeof from, &state, &found, err));
    if (!found) return error_set(err, "%s: no checkpoint in it", settings->out);
    snprintf(to, sizeof to, "%s/model", settings->out);
    TRY(folder_begin(partial, sizeof partial, to, err));
    int status = publish_folder(from, partial, 1, err);
    if (status == 0) status = folder_remove(to, err);
    if (status == 0) status = folder_commit(partial, to, err);
    if (status) folder_discard(partial);
    return status;
}
