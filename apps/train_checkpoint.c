#include "apps/train_checkpoint.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/model_files.h"

#define CHECKPOINT_NAME "checkpoint-"

enum { STATE_FORMAT = 1, PATH_SIZE = 1400 };

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static int make_folder(const char *path, Error *err) {
    if (mkdir(path, 0777) == 0) return 0;
    return error_set(err, "%s: cannot make this folder: %m", path);
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
    char print[24];
    snprintf(print, sizeof print, "%016" PRIx64, s->fingerprint);
    return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:s, s:o}", "format",
                     STATE_FORMAT, "step", (json_int_t)s->step, "epoch", (json_int_t)s->epoch,
                     "index", (json_int_t)s->index, "skipped", (json_int_t)s->skipped, "sequences",
                     (json_int_t)s->sequences, "tokens", (json_int_t)s->tokens, "seconds",
                     s->seconds, "bad_samples", (json_int_t)s->bad_samples, "data", print,
                     "compute", types);
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
    const char *print = "";
    double seconds = 0;
    *s = (TrainState){0};
    json_error_t e;
    int status =
        json_unpack_ex(json, &e, 0, "{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:F, s:I, s:s, s:o}",
                       "format", &format, "step", &step, "epoch", &epoch, "index", &index,
                       "skipped", &skipped, "sequences", &sequences, "tokens", &tokens, "seconds",
                       &seconds, "bad_samples", &bad, "data", &print, "compute", &types);
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

/* The file `name` beside a part's weights. */
static void beside(char *out, size_t size, const ModelPart *part, const char *name) {
    const char *slash = strrchr(part->path, '/');
    struct stat info;
    if (stat(part->path, &info) == 0 && S_ISDIR(info.st_mode))
        snprintf(out, size, "%s/%s", part->path, name);
    else if (slash)
        snprintf(out, size, "%.*s/%s", (int)(slash - part->path), part->path, name);
    else
        snprintf(out, size, "%s", name);
}

/* A part's config.json, the vision half of a two-tower one, telling the type of the new file. */
static int config_write(const ModelPart *part, Dtype dtype, const char *to, Error *err) {
    char path[PATH_SIZE];
    json_t *config;
    beside(path, sizeof path, part, "config.json");
    TRY(config_read(&config, path, err));
    json_t *half = json_object_get(config, "vision_config");
    if (part->kind == PART_VISION && json_is_object(half)) {
        json_incref(half);
        json_decref(config);
        config = half;
        json_object_set_new(config, "model_type", json_string("clip_vision_model"));
    }
    const char *type = dtype == DTYPE_BF16  ? "bfloat16"
                       : dtype == DTYPE_F16 ? "float16"
                                            : "float32";
    static const char *const keys[] = {"torch_dtype", "dtype"};
    for (int i = 0; i < 2; i++)
        if (json_object_get(config, keys[i]))
            json_object_set_new(config, keys[i], json_string(type));
    int status = json_write(config, to, err);
    json_decref(config);
    return status;
}

static Dtype saved_type(const TrainSettings *s, const TrainModel *t, const ModelPart *part,
                        PartDuty duty) {
    bool merged = part == &t->model.language && t->has_lora;
    if (duty != DUTY_LEARN && !merged) return DTYPE_NONE; /* as it came */
    if (!strcmp(s->save_dtype, "f32")) return DTYPE_F32;
    if (!strcmp(s->save_dtype, "bf16")) return DTYPE_BF16;
    return part->checkpoint ? part->stored : t->model.language.stored;
}

typedef struct Writing {
    const TrainModel *t;
    const TrainSettings *settings;
    const char *to;
    char before[PATH_SIZE]; /* the checkpoint before, "" if there is none */
} Writing;

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

static int copy_beside(const Writing *w, const ModelPart *part, const char *folder,
                       const char *name, Error *err) {
    char from[PATH_SIZE], to[PATH_SIZE];
    beside(from, sizeof from, part, name);
    snprintf(to, sizeof to, "%s/%s/%s", w->to, folder, name);
    return exists(from) ? file_copy(from, to, false, err) : 0;
}

/* vision/ or language/: a plain Hugging Face folder. */
static int folder_write(const Writing *w, const ModelPart *part, PartDuty duty, const char *folder,
                        Error *err) {
    char path[PATH_SIZE], name[64];
    snprintf(path, sizeof path, "%s/%s", w->to, folder);
    TRY(make_folder(path, err));
    snprintf(path, sizeof path, "%s/%s/config.json", w->to, folder);
    Dtype dtype = saved_type(w->settings, w->t, part, duty);
    TRY(config_write(part, dtype == DTYPE_NONE ? part->stored : dtype, path, err));
    TRY(copy_beside(w, part, folder, "preprocessor_config.json", err));
    TRY(copy_beside(w, part, folder, "sentencepiece.bpe.model", err));
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    return weights_write(w, part, duty, name, err);
}

static int settings_write(const Writing *w, Error *err) {
    const Model *m = &w->t->model;
    char path[PATH_SIZE];
    json_t *json = m->settings ? json_deep_copy(m->settings) : json_object();
    if (!json) return error_set(err, "out of memory");
    json_object_set_new(json, "format", json_integer(1));
    json_object_set_new(json, "attention",
                        json_string(m->parts.attention == ATTENTION_BLOCKS ? "blocks" : "full"));
    if (m->vision.present) {
        const VitConfig *v = &m->vit.config;
        json_object_set_new(json, "feature_layer", json_integer(v->feature_layer));
        json_object_set_new(json, "class_token", json_boolean(v->class_token));
        json_object_set_new(json, "image_tokens", json_integer(vit_feature_rows(v)));
    }
    snprintf(path, sizeof path, "%s/easyfirst.json", w->to);
    int status = json_write(json, path, err);
    json_decref(json);
    return status;
}

static int model_write(const Writing *w, Error *err) {
    const TrainModel *t = w->t;
    const Model *m = &t->model;
    TRY(settings_write(w, err));
    TRY(folder_write(w, &m->language, t->language, "language", err));
    if (m->vision.present) TRY(folder_write(w, &m->vision, t->vision, "vision", err));
    if (m->projector.present)
        TRY(weights_write(w, &m->projector, t->projector, "projector.safetensors", err));
    if (m->length.present) TRY(weights_write(w, &m->length, t->length, "length.safetensors", err));
    return 0;
}

/* ---- A checkpoint. ---- */

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* Removes all checkpoints but the `keep` newest; that one cannot be removed is no reason to stop.
 */
static void remove_old(const char *run, int keep) {
    int count;
    int64_t *steps = list_steps(run, &count);
    if (steps) qsort(steps, (size_t)count, sizeof *steps, descending);
    for (int i = keep; i < count; i++) {
        char path[PATH_SIZE];
        step_folder(path, sizeof path, run, steps[i]);
        folder_remove(path, NULL);
    }
    free(steps);
}

static int checkpoint_fill(const Writing *w, const TrainState *state, Error *err) {
    char path[PATH_SIZE];
    TRY(model_write(w, err));
    snprintf(path, sizeof path, "%s/training", w->to);
    TRY(make_folder(path, err));
    TRY(tables_write(w->t, w->to, err));
    snprintf(path, sizeof path, "%s/training/state.json", w->to);
    json_t *json = state_json(state);
    if (!json) return error_set(err, "out of memory");
    int status = json_write(json, path, err);
    json_decref(json);
    return status;
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
            status = make_folder(target, err) || publish_folder(source, target, depth - 1, err);
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
