#include "apps/train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "projector/model_paths.h"
#include "projector/model_write.h"
#include "apps/train/manifest.h"
#include "data/checkpoints/adapter.h"
#include "data/checkpoints/optimizer_files.h"
#include "data/files/file_hash.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"

#define CHECKPOINT_NAME "checkpoint-"
#define STATE_NAME      "training/state.json"

enum { STATE_FORMAT = 2, CLASSES_FORMAT = 1 };

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* The step in a checkpoint's name; -1 for other names, including partial ones. */
static int64_t name_step(const char *name) {
    size_t n = strlen(CHECKPOINT_NAME);
    if (strncmp(name, CHECKPOINT_NAME, n)) return -1;
    const char *digits = name + n;
    if (!digits[0] || digits[strspn(digits, "0123456789")] || strlen(digits) > 15) return -1;
    return strtoll(digits, NULL, 10);
}

static char *step_folder(const char *run, int64_t step, Error *err) {
    return path_format(err, "%s/" CHECKPOINT_NAME "%08" PRId64, run, step);
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* The steps of all checkpoints in a folder, the highest first; *count of them. Free the result. */
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
    if (steps) qsort(steps, (size_t)*count, sizeof *steps, descending);
    return steps;
}

/* ---- state.json. ---- */

static const char *const part_keys[4] = {"vision", "projector", "language", "length"};

/* The hash of its other members. */
static int state_hash(char hex[FILE_HASH_SIZE], const json_t *state, Error *err) {
    json_t *rest = json_copy((json_t *)state);
    if (rest) json_object_del(rest, "sha256");
    char *text = rest ? json_dumps_whole(rest, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    int status = text ? bytes_hash(hex, text, strlen(text), err)
                      : error_set(err, "out of memory for the state of the run");
    free(text);
    json_decref(rest);
    return status;
}

/* The best model so far; checkpoints of runs without --best-by have none. */
static void best_unpack(const json_t *json, TrainState *s) {
    const json_t *best = json_object_get(json, "best");
    const char *score = json_string_value(json_object_get(best, "score"));
    s->best_step = -1;
    if (!json_is_object(best) || !score) return;
    s->best_step = json_integer_value(json_object_get(best, "step"));
    s->best_score = strtod(score, NULL);
    s->worse = json_integer_value(json_object_get(best, "worse"));
}

/* NULL: there is none, or no memory. */
static json_t *best_json(const TrainState *s) {
    char score[32];
    if (s->best_step < 0) return NULL;
    snprintf(score, sizeof score, "%.17g", s->best_score);
    return json_pack("{s:I, s:s, s:I}", "step", (json_int_t)s->best_step, "score", score, "worse",
                     (json_int_t)s->worse);
}

static json_t *state_json(const TrainState *s, const char *run, const json_t *files) {
    json_t *types = json_object();
    for (int i = 0; i < 4; i++)
        json_object_set_new(types, part_keys[i], json_string(dtype_name(s->compute[i])));
    char seconds[32], open_loss[32], open_norm[32], hash[FILE_HASH_SIZE];
    snprintf(seconds, sizeof seconds, "%.17g", s->seconds);
    /* As text with all digits, to restore the same numbers. */
    snprintf(open_loss, sizeof open_loss, "%.17g", s->open_loss);
    snprintf(open_norm, sizeof open_norm, "%.17g", s->open_norm);
    json_t *json = json_pack(
        "{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:O, s:o, s:O}",
        "format", STATE_FORMAT, "run", run, "step", (json_int_t)s->step, "epoch",
        (json_int_t)s->epoch, "index", (json_int_t)s->index, "skipped", (json_int_t)s->skipped,
        "sequences", (json_int_t)s->sequences, "tokens", (json_int_t)s->tokens, "seconds", seconds,
        "open_loss", open_loss, "open_norm", open_norm, "open_steps", (json_int_t)s->open_steps,
        "bad_samples", (json_int_t)s->bad_samples, "data", s->data, "compute", types, "files",
        files);
    bool kept = s->best_step < 0 || json_object_set_new(json, "best", best_json(s)) == 0;
    if (json && (!kept || state_hash(hash, json, NULL) ||
                 json_object_set_new(json, "sha256", json_string(hash)))) {
        json_decref(json);
        json = NULL;
    }
    return json;
}

static Dtype dtype_named(const char *name) {
    for (int d = DTYPE_F32; d < DTYPE_COUNT; d++)
        if (name && !strcmp(name, dtype_name((Dtype)d))) return (Dtype)d;
    return DTYPE_NONE;
}

static int state_unpack(const json_t *json, TrainState *s, const char **run, json_t **files,
                        Error *err) {
    int format = 0;
    json_int_t step = -1, epoch = 0, index = 0, skipped = 0, sequences = 0, tokens = 0, bad = 0;
    json_int_t open_steps = 0;
    const char *seconds = "", *open_loss = "", *open_norm = "";
    json_t *types = NULL, *data = NULL;
    json_error_t e;
    if (json_unpack_ex((json_t *)json, &e, 0, "{s:i}", "format", &format) || format != STATE_FORMAT)
        return error_set(err, "format %d, expected %d", format, STATE_FORMAT);
    if (json_unpack_ex(
            (json_t *)json, &e, 0,
            "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "run",
            run, "step", &step, "epoch", &epoch, "index", &index, "skipped", &skipped, "sequences",
            &sequences, "tokens", &tokens, "seconds", &seconds, "open_loss", &open_loss,
            "open_norm", &open_norm, "open_steps", &open_steps, "bad_samples", &bad, "data", &data,
            "compute", &types, "files", files))
        return error_set(err, "%s", e.text);
    if (step < 0 || epoch < 0 || index < 0 || skipped < 0 || skipped > step)
        return error_set(err, "step %lld, expected 0 or more", (long long)step);
    *s = (TrainState){.step = step,
                      .epoch = epoch,
                      .index = index,
                      .skipped = skipped,
                      .sequences = sequences,
                      .tokens = tokens,
                      .seconds = strtod(seconds, NULL),
                      .open_loss = strtod(open_loss, NULL),
                      .open_norm = strtod(open_norm, NULL),
                      .open_steps = open_steps,
                      .bad_samples = bad,
                      .data = data};
    best_unpack(json, s);
    for (int i = 0; i < 4; i++)
        s->compute[i] = dtype_named(json_string_value(json_object_get(types, part_keys[i])));
    return 0;
}

/* Reads the state of a checkpoint; the caller releases its JSON. */
static int state_read(const char *folder, json_t **json, TrainState *s, const char **run,
                      json_t **files, Error *err) {
    char hash[FILE_HASH_SIZE];
    char *path = path_join(folder, STATE_NAME, err);
    *json = NULL;
    int status = path ? config_read(json, path, err) : -1;
    const char *wanted = json_string_value(json_object_get(*json, "sha256"));
    if (status == 0 && state_unpack(*json, s, run, files, err))
        status = error_context(err, "%s: not the state of a training run", path);
    if (status == 0) status = state_hash(hash, *json, err);
    if (status == 0 && (!wanted || strcmp(wanted, hash)))
        status = error_set(err, "%s: damaged: its SHA-256 differs from the one it holds", path);
    if (status) {
        json_decref(*json);
        *json = NULL;
    }
    free(path);
    return status;
}

/* ---- Which one to resume from. ---- */

/* Reading all of a large checkpoint takes a while. */
static void tell_check(const TrainCheckpoints *c, const char *folder, const json_t *files) {
    const char *name;
    json_t *file;
    double bytes = 0;
    json_object_foreach((json_t *)files, name, file) {
        bytes += (double)json_integer_value(json_object_get(file, "size"));
    }
    if (bytes < 1e9 || !c->note) return;
    char *text = path_format(NULL, "checking   %s, %.0f MB", folder, 1e-6 * bytes);
    if (text) c->note(c->user, true, text);
    free(text);
}

/* Verifies a checkpoint. 0: it is intact; 1: it is damaged (*err says how); -1: an error. */
static int inspect_through(TrainCheckpoints *c, const char *folder, int64_t step, TrainState *state,
                           Error *err) {
    json_t *json, *files;
    const char *run = "";
    if (state_read(folder, &json, state, &run, &files, err)) {
        *state = (TrainState){.best_step = -1};
        return 1;
    }
    int status = 0;
    if (strcmp(run, c->run->id))
        status = error_set(err, "%s: it is of another run (%.8s..., this is %.8s...): move it away",
                           folder, run, c->run->id);
    else if (state->step != step) {
        error_set(err, "%s: its state is that of step %" PRId64 ": the folder was renamed", folder,
                  state->step);
        status = 1;
    } else {
        tell_check(c, folder, files);
        status = manifest_check(files, folder, false, err);
    }
    if (status == 0) {
        c->files = json_incref(files);
        json_incref(state->data);
    } else {
        *state = (TrainState){.best_step = -1};
    }
    json_decref(json);
    return status;
}

/* Renames a damaged checkpoint, since another one of its step will be written. */
static int set_aside(TrainCheckpoints *c, int64_t step, const Error *why, Error *err) {
    char *folder = step_folder(c->run->path, step, err), *to = NULL;
    int status = folder ? 0 : -1;
    for (int i = 1; status == 0 && !to; i++) {
        char number[16] = "";
        if (i > 1) snprintf(number, sizeof number, "-%d", i);
        to = path_format(err, "%s.damaged%s", folder, number);
        if (!to) status = -1;
        if (to && renameat2(AT_FDCWD, folder, AT_FDCWD, to, RENAME_NOREPLACE) == 0) break;
        if (to && errno != EEXIST) status = error_set(err, "%s: %s", folder, strerror(errno));
        free(to);
        to = NULL;
    }
    if (status == 0 && c->note) {
        char *text =
            path_format(NULL, "%s; the checkpoint is now %s, an older one is used", why->text, to);
        if (text) c->note(c->user, false, text);
        free(text);
    }
    free(folder), free(to);
    return status;
}

/* The newest undamaged one of `steps`, into c->last; *at is its index, `count` if there is none. */
static int choose(TrainCheckpoints *c, const int64_t *steps, int count, TrainState *state,
                  Error *why, int *at, Error *err) {
    int status = 1;
    for (*at = 0; *at < count; ++*at) {
        char *folder = step_folder(c->run->path, steps[*at], err);
        status = folder ? inspect_through(c, folder, steps[*at], state, &why[*at]) : -1;
        if (status == 0) c->last = folder;
        if (status < 0 && folder && err) *err = why[*at];
        if (status) free(folder);
        if (status <= 0) return status;
    }
    return 0;
}

int train_checkpoints_open(TrainCheckpoints *c, RunFolder *run, TrainNote note, void *user,
                           TrainState *state, Error *err) {
    int count, at = 0;
    *c = (TrainCheckpoints){.run = run, .note = note, .user = user};
    int64_t *steps = list_steps(run->path, &count);
    Error *why = calloc((size_t)count + 1, sizeof *why);
    int status = why ? choose(c, steps, count, state, why, &at, err)
                     : error_set(err, "%s: out of memory", run->path);
    if (status == 0 && count > 0 && at == count)
        status = error_set(err, "%s; no undamaged checkpoint to resume from", why[0].text);
    for (int i = 0; status == 0 && i < at; i++) status = set_aside(c, steps[i], &why[i], err);
    free(steps), free(why);
    if (status) train_checkpoints_close(c);
    return status;
}

void train_checkpoints_close(TrainCheckpoints *c) {
    free(c->last);
    json_decref(c->files);
    *c = (TrainCheckpoints){0};
}

int64_t train_checkpoints_newest(const RunFolder *run) {
    int count;
    int64_t *steps = list_steps(run->path, &count), newest = count ? steps[0] : -1;
    free(steps);
    return newest;
}

/* ---- The tables of numbers. ---- */

/* The parameter tables of the optimizer, each in its own file. */
static const char *table_name(const TrainModel *t, const Params *params) {
    const Model *m = &t->model;
    return params == &m->vision.params      ? "vision"
           : params == &m->projector.params ? "projector"
           : params == &m->length.params    ? "length"
           : params == &t->lora             ? "lora"
           : params == &t->head_params      ? MODEL_SEGMENT
                                            : "language";
}

char *train_checkpoint_table(const TrainModel *t, const Params *params, const char *folder,
                             Error *err) {
    return path_format(err, "%s/training/%s.safetensors", folder, table_name(t, params));
}

int train_checkpoint_read(TrainModel *t, const char *folder, Error *err) {
    for (int i = 0; i < t->optimizer.part_count; i++) {
        OptimizerPart *p = &t->optimizer.parts[i];
        if (p->params->flat == 0) continue;
        char *path = train_checkpoint_table(t, p->params, folder, err);
        int status = path ? optimizer_part_read(p, path, err) : -1;
        free(path);
        TRY(status);
    }
    return 0;
}

static int tables_write(const TrainModel *t, const char *folder, Error *err) {
    for (int i = 0; i < t->optimizer.part_count; i++) {
        const OptimizerPart *p = &t->optimizer.parts[i];
        if (p->params->flat == 0) continue;
        char *path = train_checkpoint_table(t, p->params, folder, err);
        int status = path ? optimizer_part_write(p, path, err) : -1;
        free(path);
        TRY(status);
    }
    return 0;
}

/* ---- The model. ---- */

typedef struct Writing {
    const TrainModel *t;
    const TrainSettings *settings;
    const char *to;
    const char *before; /* the previous checkpoint; NULL: none */
} Writing;

/* The file `name` of a part: that of the checkpoint before, since the one that a resumed run was
 * opened from is removed in time, or else the one beside the part's weights. */
static char *beside(const Writing *w, const ModelPart *part, const char *folder, const char *name,
                    Error *err) {
    if (w->before) {
        char *path = path_format(err, "%s/%s/%s", w->before, folder, name);
        if (!path || exists(path)) return path;
        free(path);
    }
    return model_file_beside(part->path, name, err);
}

static int config_write(const Writing *w, const ModelPart *part, Dtype dtype, const char *folder,
                        Error *err) {
    json_t *config;
    char *path = beside(w, part, folder, "config.json", err);
    char *name = path_join(folder, "config.json", err);
    int status = path && name ? model_config_read(&config, path, part->kind, dtype, err) : -1;
    if (status == 0) status = model_write_json(config, w->to, name, err);
    free(path), free(name);
    return status;
}

static int copy_beside(const Writing *w, const ModelPart *part, const char *folder,
                       const char *file, Error *err) {
    char *path = beside(w, part, folder, file, err), *name = path_join(folder, file, err);
    int status = path && name ? model_copy_file(path, w->to, name, err) : -1;
    free(path), free(name);
    return status;
}

static Dtype saved_type(const TrainSettings *s, const TrainModel *t, const ModelPart *part,
                        PartDuty duty) {
    bool merged = part == &t->model.language && t->has_lora;
    if (duty != DUTY_TRAIN && !merged) return DTYPE_NONE; /* as it came */
    if (s->save_dtype != DTYPE_NONE) return s->save_dtype;
    Dtype stored = part->checkpoint ? part->stored : t->model.language.stored;
    return stored == DTYPE_I8 ? DTYPE_BF16
                              : stored; /* an update is smaller than an integer's step */
}

/* A part's weights. A frozen part is written once and then hard-linked. */
static int weights_write(const Writing *w, const ModelPart *part, PartDuty duty, const char *name,
                         Error *err) {
    Dtype dtype = saved_type(w->settings, w->t, part, duty);
    char *path = path_join(w->to, name, err);
    char *before = w->before && path ? path_join(w->before, name, err) : NULL;
    const TrainModel *t = w->t;
    bool merged = part == &t->model.language && t->has_lora;
    const LoraConfig *lora = merged ? &language_block(&t->model.parts.language)->lora : NULL;
    int status = path && (before || !w->before) ? 0 : -1;
    if (status == 0 && dtype == DTYPE_NONE && before && exists(before))
        status = file_copy(before, path, true, err);
    else if (status == 0)
        status = part_write(&part->params, merged ? &t->lora : NULL,
                            merged ? (double)lora->alpha / lora->rank : 0, path, dtype, err);
    free(path), free(before);
    return status;
}

/* vision/ or language/: a plain Hugging Face folder. */
static int folder_write(const Writing *w, const ModelPart *part, PartDuty duty, const char *folder,
                        Error *err) {
    static const char *const others[] = {"preprocessor_config.json", MODEL_TOKENIZER_FILES};
    TRY(model_write_subfolder(w->to, folder, err));
    Dtype dtype = saved_type(w->settings, w->t, part, duty);
    if (dtype == DTYPE_NONE) dtype = part->stored;
    TRY(config_write(w, part, dtype, folder, err));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        TRY(copy_beside(w, part, folder, others[i], err));
    char *name = path_join(folder, "model.safetensors", err);
    int status = name ? weights_write(w, part, duty, name, err) : -1;
    free(name);
    return status;
}

/* What LoRA learned, by itself, too: language/ has it merged. */
static int lora_write(const Writing *w, Error *err) {
    const TrainModel *t = w->t;
    const ModelPart *language = &t->model.language;
    TRY(model_write_subfolder(w->to, ADAPTER_FOLDER, err));
    char *folder = path_join(w->to, ADAPTER_FOLDER, err);
    int status =
        folder ? adapter_write(folder, &language->params, &t->lora,
                               &language_block(&t->model.parts.language)->lora, language->path, err)
               : -1;
    free(folder);
    return status;
}

/* The layer that the stage `segment` trains on top of the tower. */
static int head_write(const Writing *w, Error *err) {
    const TrainModel *t = w->t;
    bool narrow = w->settings->save_dtype == DTYPE_BF16;
    char *path = path_join(w->to, MODEL_SEGMENT ".safetensors", err);
    int status =
        path ? part_write(&t->head_params, NULL, 0, path, narrow ? DTYPE_BF16 : DTYPE_F32, err)
             : -1;
    free(path);
    TRY(status);
    return model_write_json(
        json_pack("{s:i, s:O}", "format", CLASSES_FORMAT, "classes", t->classes), w->to,
        MODEL_SEGMENT ".json", err);
}

/* Bytes of a part in a checkpoint: saved weights, masters in f32 and two moments. */
static uint64_t part_bytes(const TrainSettings *s, const TrainModel *t, const ModelPart *part,
                           PartDuty duty, bool first) {
    if (!part->present) return 0;
    Dtype dtype = saved_type(s, t, part, duty);
    uint64_t trained = (uint64_t)params_trainable_count(&part->params);
    if (dtype == DTYPE_NONE) return first ? params_stored_bytes(&part->params) : 0;
    const uint64_t weights = (uint64_t)params_count(&part->params) * dtype_size(dtype);
    if (duty != DUTY_TRAIN) return weights;
    return weights + sizeof(float) * trained + optimizer_moment_bytes(&s->optimizer, &part->params);
}

uint64_t train_checkpoint_bytes(const TrainModel *t, const TrainSettings *s, bool first) {
    const Model *m = &t->model;
    return part_bytes(s, t, &m->vision, t->vision, first) +
           part_bytes(s, t, &m->projector, t->projector, first) +
           part_bytes(s, t, &m->language, t->language, first) +
           part_bytes(s, t, &m->length, t->length, first) +
           2 * sizeof(float) * (uint64_t)params_trainable_count(&t->lora) +
           optimizer_moment_bytes(&s->optimizer, &t->lora);
}

static int model_write(const Writing *w, Error *err) {
    const TrainModel *t = w->t;
    const Model *m = &t->model;
    /* Training may have changed the languages it translates, and how sure it may be. */
    if (t->language == DUTY_TRAIN || t->has_lora) json_object_del(m->settings, "languages");
    json_object_del(m->settings, "calibration");
    TRY(model_write_settings(m->settings, m->parts.attention, m->vision.present ? &m->tower : NULL,
                             w->to, err));
    if (m->language.present) TRY(folder_write(w, &m->language, t->language, "language", err));
    if (m->vision.present) TRY(folder_write(w, &m->vision, t->vision, "vision", err));
    if (m->projector.present)
        TRY(weights_write(w, &m->projector, t->projector, "projector.safetensors", err));
    if (m->length.present) TRY(weights_write(w, &m->length, t->length, "length.safetensors", err));
    if (t->has_lora) TRY(lora_write(w, err));
    return t->classes ? head_write(w, err) : 0;
}

/* ---- A checkpoint. ---- */

/* Whether a checkpoint belongs to this run; an unreadable one does not. */
static bool is_own(const RunFolder *run, const char *folder) {
    json_t *json, *files;
    TrainState state;
    const char *id;
    if (state_read(folder, &json, &state, &id, &files, NULL)) return false;
    bool own = !strcmp(id, run->id);
    json_decref(json);
    return own;
}

void train_checkpoints_trim(TrainCheckpoints *c, int keep) {
    int count, own = 0;
    int64_t *steps = list_steps(c->run->path, &count);
    for (int i = 0; i < count; i++) {
        char *folder = step_folder(c->run->path, steps[i], NULL);
        if (folder && is_own(c->run, folder) && ++own > (keep > 0 ? keep : 1)) {
            Error why = {{0}};
            if (run_folder_remove(c->run, folder, &why) && c->note)
                c->note(c->user, false, why.text);
        }
        free(folder);
    }
    free(steps);
}

/* The state is the last file to be written. */
static int checkpoint_fill(const TrainCheckpoints *c, const Writing *w, const TrainState *state,
                           json_t **files, Error *err) {
    TRY(model_write(w, err));
    TRY(model_write_subfolder(w->to, "training", err));
    TRY(tables_write(w->t, w->to, err));
    *files = manifest_make(w->to, c->last, c->files, err);
    if (!*files) return -1;
    return model_write_json(state_json(state, c->run->id, *files), w->to, STATE_NAME, err);
}

static int write_new(TrainCheckpoints *c, Writing *w, const TrainState *state, const char *folder,
                     Error *err) {
    json_t *files = NULL;
    char *partial = run_folder_partial(c->run, path_name(folder), true, err);
    char *last = partial ? strdup(folder) : NULL;
    int status = last ? 0 : partial ? error_set(err, "%s: out of memory", folder) : -1;
    w->to = partial;
    if (status == 0) status = checkpoint_fill(c, w, state, &files, err);
    if (status == 0) status = folder_commit(partial, folder, err);
    if (status == 0) {
        free(c->last);
        json_decref(c->files);
        c->last = last, c->files = files;
        last = NULL, files = NULL;
    } else if (partial) {
        folder_discard(partial);
    }
    json_decref(files);
    free(partial), free(last);
    return status;
}

int train_checkpoint_write(TrainCheckpoints *c, const TrainModel *t, const TrainSettings *settings,
                           const TrainState *state, Error *err) {
    Writing w = {.t = t, .settings = settings, .before = c->last};
    char *folder = step_folder(c->run->path, state->step, err);
    if (!folder) return -1;
    int status = 0;
    /* A run resumed at its end already has its last checkpoint. */
    if (!c->last || strcmp(c->last, folder)) status = write_new(c, &w, state, folder, err);
    free(folder);
    if (status)
        return error_context(err, "the checkpoint of step %" PRId64 " was not written",
                             state->step);
    train_checkpoints_trim(c, settings->keep);
    return 0;
}

int train_checkpoint_model(const TrainCheckpoints *c, const TrainModel *t,
                           const TrainSettings *settings, const char *to, Error *err) {
    return model_write(&(Writing){.t = t, .settings = settings, .before = c->last, .to = to}, err);
}

/* ---- The model to use. ---- */

static int publish_file(const char *from, const char *to, const char *name, Error *err) {
    char *source = path_join(from, name, err);
    char *target = source ? path_join(to, name, err) : NULL;
    int status = target ? file_copy(source, target, true, err) : -1;
    free(source), free(target);
    return status;
}

/* Copies the files of the manifest, as hard links where possible. */
static int publish_files(const char *from, const char *to, const json_t *model, Error *err) {
    static const char *const folders[] = {"language", "vision", ADAPTER_FOLDER};
    const char *name;
    json_t *file;
    for (int i = 0; i < 3; i++) {
        bool used = false;
        json_object_foreach((json_t *)model, name, file) {
            size_t n = strlen(folders[i]);
            used |= !strncmp(name, folders[i], n) && name[n] == '/';
        }
        if (used) TRY(model_write_subfolder(to, folders[i], err));
    }
    json_object_foreach((json_t *)model, name, file) {
        TRY(publish_file(from, to, name, err));
    }
    return 0;
}

int train_checkpoint_publish(TrainCheckpoints *c, Error *err) {
    if (!c->last) return error_set(err, "%s: no checkpoint in it", c->run->path);
    json_t *model = manifest_of_model(c->files);
    if (!model) return error_set(err, "%s: out of memory", c->last);
    char *to = run_folder_path(c->run, "model", err), *partial = NULL;
    int status = to ? 0 : -1;
    if (status || manifest_check(model, to, true, NULL) != 0) {
        if (status == 0) partial = run_folder_partial(c->run, "model", true, err);
        if (!partial) status = -1;
        if (status == 0) status = publish_files(c->last, partial, model, err);
        if (status == 0) status = run_folder_publish(c->run, partial, model, err);
        if (status && partial) folder_discard(partial);
    }
    json_decref(model);
    free(partial), free(to);
    return status ? -1 : 0;
}
