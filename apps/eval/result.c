#include "apps/eval/result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/eval/folder.h"
#include "apps/eval/order_input.h"
#include "apps/cli/report.h"
#include "data/files/file_hash.h"
#include "data/files/file_open.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"
#include "projector/easyfirst.h"
#include "projector/model_paths.h"

/* ---- Options. ---- */

void eval_group_add(EvalOptions *o, OptionGroup *group) {
    const Option rows[] = {
        {"out", 'o', OPTION_TEXT, "FOLDER", &o->out,
         "answers, scores and settings; the same command resumes"},
        {"limit", 0, OPTION_INTEGER, "N", &o->limit, "only the first N of each file", 1, INT_MAX},
        {"shard", 0, OPTION_TEXT, "I/N", &o->shard,
         "answer the I-th of N parts only; afterwards the same command\n"
         "without --shard joins them (mpirun -n N does both)"},
        {"layers-over", 0, OPTION_INTEGER, "N", &o->layers_over,
         "mpirun: spread the language model's layers over N processes\n"
         "each; the groups divide the work (default 1)",
         1, 1000000},
        {"batch-tokens", 0, OPTION_INTEGER, "N", &o->batch_tokens,
         "tokens computed together (default: as memory allows);\n"
         "answers do not depend on it",
         1, 1 << 24},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) option_add(group, rows[i]);
}

int eval_options_check(const CommandHelp *help, EvalOptions *o) {
    int end = 0;
    if (!o->out) return options_wrong(help, "no folder for the answers: name one with --out");
    if (o->shard &&
        (sscanf(o->shard, "%d/%d%n", &o->shard_index, &o->shards, &end) != 2 || o->shard[end] ||
         o->shard_index < 1 || o->shards > 1000000 || o->shard_index > o->shards))
        return options_wrong(help, "--shard is \"%s\", expected a part and their number, as in 2/4",
                             o->shard);
    return common_check(help, &o->common);
}

const char *eval_model_name(EvalOptions *o) {
    const ModelOptions *m = &o->common.model;
    const char *path = m->folder ? m->folder : m->language;
    if (!path) path = "model";
    if (path == o->common.bundled) path = "bundled";
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    snprintf(o->model, sizeof o->model, "%.*s", (int)(end - begin), path + begin);
    return o->model;
}

/* ---- Files. ---- */

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Whether a file is in a folder, by device and inode, not by name. */
static bool lies_in(const char *file, const char *folder) {
    struct stat a, b;
    char *path = realpath(file, NULL), *slash = path ? strrchr(path, '/') : NULL;
    if (slash) slash[slash == path] = 0;
    bool lies = slash && stat(path, &a) == 0 && stat(folder, &b) == 0 && a.st_dev == b.st_dev &&
                a.st_ino == b.st_ino;
    free(path);
    return lies;
}

int eval_check_files(const char *out, const FileRole *inputs, int count, Error *err) {
    TRY(eval_folder_check(out, err));
    for (int i = 0; i < count; i++) {
        struct stat info;
        const char *path = inputs[i].path;
        if (!path || (stat(path, &info) == 0 && S_ISDIR(info.st_mode))) continue;
        int fd = file_open_input(
            path, "evaluation data are read more than once: save them to a file", NULL, err);
        if (fd < 0) return error_context(err, "%s", inputs[i].role);
        close(fd);
        if (lies_in(path, out))
            return error_set(err,
                             "%s: %s is in the folder of --out, whose files are replaced: name "
                             "another folder",
                             path, inputs[i].role);
    }
    return 0;
}

/* Checks that the model has the parts to answer. */
static int check_parts(const Model *m, bool images, bool lengths, Error *err) {
    if (!m->language.present)
        return error_set(err, "this model has no language model: name one with --language");
    if (images && (!m->vision.present || !m->projector.present))
        return error_set(err, "this model cannot answer questions about images: it has no %s",
                         m->vision.present ? "projector" : "vision tower");
    if (lengths && !m->length.present && !m->parts.answer_length)
        return error_set(
            err, "this model has no length predictor: give the tokens of an answer (--length N), "
                 "or name one (--length-predictor PATH)");
    return 0;
}

int eval_check_model(const CommonOptions *o, bool images, Error *err) {
    Device *device;
    Model model;
    ModelOptions options = o->model;
    options.describe_only = true;
    options.text_only = !images;
    TRY(device_open(&device, &(DeviceOptions){.threads = 1}, err));
    int status = model_open(&model, &options, device, err);
    if (status == 0) {
        status = check_parts(&model, images, !o->length, err);
        model_close(&model);
    }
    device_close(device);
    return status;
}

json_t *eval_file_json(const char *path, Error *err) {
    char hex[FILE_HASH_SIZE];
    if (file_hash(hex, path, err)) return NULL;
    json_t *object = json_pack("{s:o, s:s}", "file", json_text(file_name(path)), "sha256", hex);
    if (!object) error_set(err, "out of memory");
    return object;
}

/* Adds "part/name": hash. */
static int add_file(json_t *files, const char *part, const char *path, Error *err) {
    char hex[FILE_HASH_SIZE];
    TRY(file_hash(hex, path, err));
    char *key = path_join(part, file_name(path), err);
    if (!key) return -1;
    int failed = json_object_set_new(files, key, json_string(hex));
    free(key);
    return failed ? error_set(err, "%s: its name is not valid UTF-8", path) : 0;
}

json_t *eval_parts_json(const char *folder, Error *err) {
    char **paths;
    int count;
    if (order_paths(&paths, &count, folder, err)) return NULL;
    json_t *files = json_object();
    int status = files ? 0 : error_set(err, "out of memory");
    for (int i = 0; i < count && status == 0; i++) status = add_file(files, NULL, paths[i], err);
    order_paths_free(paths, count);
    json_t *object =
        status ? NULL : json_pack("{s:o, s:O}", "folder", json_text(folder), "sha256", files);
    if (!object && status == 0) error_set(err, "out of memory");
    json_decref(files);
    return object;
}

/* The files of one part: its weights, and the files next to them. */
static int add_part(json_t *files, const char *name, const ModelPart *part, Error *err) {
    static const char *const others[] = {"config.json", "preprocessor_config.json",
                                         MODEL_TOKENIZER_FILES};
    if (!part->present) return 0;
    const char *path;
    for (size_t i = 0; (path = checkpoint_file(part->checkpoint, i)); i++)
        TRY(add_file(files, name, path, err));
    bool config = part->kind == PART_VISION || part->kind == PART_LANGUAGE;
    for (size_t i = 0; config && i < sizeof others / sizeof others[0]; i++) {
        char *file = model_file_beside(part->path, others[i], err);
        int status = file ? 0 : -1;
        if (file && access(file, R_OK) == 0) status = add_file(files, name, file, err);
        free(file);
        TRY(status);
    }
    return 0;
}

static int add_model(json_t *files, const EvalOptions *o, const Model *m, Error *err) {
    const struct {
        const char *name;
        const ModelPart *part;
    } parts[] = {{"vision", &m->vision},
                 {"projector", &m->projector},
                 {"language", &m->language},
                 {"length", &m->length}};
    if (m->settings) {
        char *path = path_join(o->common.model.folder, MODEL_SETTINGS, err);
        int status = path ? add_file(files, "", path, err) : -1;
        free(path);
        if (status) return -1;
    }
    for (int i = 0; i < 4; i++) {
        bool shared = i == 3 && m->length.checkpoint == m->language.checkpoint;
        if (!shared) TRY(add_part(files, parts[i].name, parts[i].part, err));
    }
    if (!m->adapter.open) return 0;
    TRY(add_file(files, "adapter", m->adapter.config_path, err));
    return add_file(files, "adapter", m->adapter.weights.path, err);
}

/* ---- Settings. ---- */

/* The decoding options that an answer depends on. */
static json_t *answer_json(const EvalOptions *o) {
    static const char *const not_these[] = {"json",
                                            "quiet",
                                            "no-canvas-cache",
                                            "no-kv-cache",
                                            "confidence-threshold", /* the */
                                            "entropy-bound",        /* strategy has these two */
                                            NULL};
    CommonOptions copy = o->common;
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, &copy.answer.decode);
    copy.strategy = strategy;
    OptionGroup group;
    common_answer_group(&copy, &group);
    json_t *json = options_to_json(&group, 1);
    for (int i = 0; not_these[i] && json; i++) json_object_del(json, not_these[i]);
    return json;
}

json_t *eval_settings_json(const EvalOptions *o, const Session *session, const char *command,
                           json_t *data, Error *err) {
    const Model *m = &session->model;
    json_memory_begin();
    json_t *files = json_object();
    int status = files ? add_model(files, o, m, err) : error_set(err, "out of memory");
    json_t *model = json_pack("{s:s, s:o, s:s}", "name", o->model, "sha256", files, "attention",
                              attention_name(m->parts.attention));
    if (m->parts.tower) {
        if (m->tower.vit)
            json_object_set_new(model, "feature_layer", json_integer(m->vit.config.feature_layer));
        json_object_set_new(model, "pad", json_boolean(m->parts.preprocess.pad));
    }
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:s, s:i}", "version", EF_VERSION, "command",
                  command, "model", model, "data", data, "answer", answer_json(o), "device",
                  device_kind(session->device) == DEVICE_CUDA ? "cuda" : "cpu", "dtype",
                  dtype_name(m->language.compute), "limit", o->limit);
    if ((!json || json_memory_failed()) && status == 0)
        status = error_set(err, "out of memory for the settings");
    if (status == 0) return json;
    json_decref(json);
    return NULL;
}

void eval_choice_json(json_t *data, const AnswerOptions *a) {
    if (a->choose_by == CHOICE_BY_DENOISING) return;
    json_object_set_new(data, "by", json_string(choice_by_names[a->choose_by]));
    json_object_set_new(
        data, "likelihood_samples",
        json_integer(a->likelihood_samples ? a->likelihood_samples : LIKELIHOOD_SAMPLES));
}

json_t *eval_result_json(json_t *settings, const EvalItems *items, const Skipped *left_out,
                         json_t *score, Error *err) {
    Skipped skipped = {0};
    if (left_out) skipped = *left_out;
    int64_t unanswered = eval_items_skipped(items, &skipped);
    EvalLong lengthy = eval_items_long(items);
    json_t *json = json_pack(
        "{s:s, s:o, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:o, s:o}", "easyfirst", EF_VERSION,
        "settings", settings, "questions", (json_int_t)items->count, "answered",
        (json_int_t)(items->count - unanswered - lengthy.skipped), "unanswered",
        (json_int_t)unanswered, "left_out", (json_int_t)(left_out ? left_out->total : 0),
        "long_prompts", "skipped", (json_int_t)lengthy.skipped, "shortened",
        (json_int_t)lengthy.shortened, "dropped_tokens", (json_int_t)lengthy.dropped, "skipped",
        eval_skipped_json(&skipped), "score", score);
    if (!json) error_set(err, "out of memory for the result");
    return json;
}

/* Reports the prompts that were too long, skipped or shortened. */
static void long_print(const EvalItems *items) {
    EvalLong lengthy = eval_items_long(items);
    if (lengthy.skipped)
        report_error("skipped, not scored: %lld of %lld prompts leave no room for their answers "
                     "(the first: %s: %s); --long-prompts refuse counts them as wrong",
                     (long long)lengthy.skipped, (long long)items->count, lengthy.first->id,
                     lengthy.first->why);
    if (lengthy.shortened)
        report_error("shortened: %lld of %lld prompts lost their first tokens, %lld in total "
                     "(the first: %s: %d tokens)",
                     (long long)lengthy.shortened, (long long)items->count,
                     (long long)lengthy.dropped, lengthy.first->id, lengthy.first->dropped);
}

void eval_skipped_print(const char *what, const Skipped *skipped) {
    for (int i = 0; i < skipped->kind_count; i++)
        report_error("%s: %s: %lld (%s%s)", skipped->kinds[i].note ? "note" : what,
                     skipped->kinds[i].kind, (long long)skipped->kinds[i].count,
                     skipped->kinds[i].count > 1 ? "the first: " : "", skipped->kinds[i].first);
}

void eval_end(const EvalOptions *o, const EvalItems *items, const Skipped *left_out,
              const Timings *timings, Device *device, bool *failed) {
    Skipped skipped = {0};
    int64_t unanswered = eval_items_skipped(items, &skipped);
    *failed |= skipped.total > 0 || (left_out && left_out->total > 0);
    if (left_out) eval_skipped_print("left out", left_out);
    long_print(items);
    eval_skipped_print("unanswered", &skipped);
    if (o->common.quiet) return;
    if (timings->answers) timings_print(timings, device, &o->common.answer.decode);
    if (o->shards)
        fprintf(stderr,
                "shard   %d of %d is done; %lld of all %lld have answers in %s; the same command "
                "without --shard joins them\n",
                o->shard_index, o->shards,
                (long long)(items->count - unanswered - eval_items_long(items).skipped),
                (long long)items->count, o->out);
}
