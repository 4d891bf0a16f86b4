#include "apps/train/start.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "apps/cli/report.h"
#include "data/files/file_write.h"
#include "data/files/path.h"
#include "projector/model_mask.h"

int train_start_same_settings(const TrainSettings *s, Error *err) {
    char *path = path_join(s->out, "settings.json", err);
    json_t *now = NULL;
    int status = path ? config_read(&now, path, err) : -1;
    if (status == 0 && !json_equal(now, s->file))
        status = error_set(err, "%s: another process has just changed it: try again", path);
    json_decref(now);
    free(path);
    return status;
}

/* ---- Data. ---- */

RecordsOptions train_start_records(const TrainSettings *s) {
    static const char *const needs[STAGE_COUNT] = {[STAGE_ADAPT] = "train adapt",
                                                   [STAGE_INSTRUCT] = "train instruct",
                                                   [STAGE_ALIGN] = "train align",
                                                   [STAGE_TUNE] = "train tune",
                                                   [STAGE_LENGTH] = "train length"};
    return (RecordsOptions){.images = s->images,
                            .prompts_for = needs[s->stage],
                            .text_lines = s->text_lines,
                            .check_images = true,
                            .prompt = s->prompt,
                            .languages = s->languages};
}

static int check_parallel(const ParallelFiles *files, const RecordsOptions *options, Error *err) {
    RecordsOptions with = *options;
    const char *path;
    for (int i = 0; (path = parallel_entry(files, i, &with.prompt)) != NULL; i++)
        TRY(records_check(path, &with, err));
    return 0;
}

int train_start_files(const TrainSettings *s, Error *err) {
    const RecordsOptions options = train_start_records(s);
    if (s->stage == STAGE_SEGMENT) return 0;
    for (int i = 0; i < s->data.count; i++) TRY(records_check(s->data.items[i], &options, err));
    TRY(check_parallel(&s->parallel, &options, err));
    TRY(check_parallel(&s->valid_parallel, &options, err));
    return s->valid ? records_check(s->valid, &options, err) : 0;
}

static json_t *data_entry(const char *path, uint64_t print) {
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, print);
    json_t *name = json_text(path);
    return name ? json_pack("{s:o, s:s}", "path", name, "print", text) : NULL;
}

json_t *train_start_data(const Dataset *data) {
    json_t *list = json_array();
    int failed = list ? 0 : -1;
    for (int i = 0; i < data->read_count && !failed; i++)
        failed |= json_array_append_new(list, data_entry(data->read[i].path, data->read[i].hash));
    if (!failed) failed |= json_array_append_new(list, data_entry("", data->fingerprint));
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

/* Fails: entry i differs. */
static int data_differs(const json_t *a, const json_t *b, const char *folder, Error *err) {
    const char *path = json_string_value(json_object_get(b, "path"));
    const char *was = json_string_value(json_object_get(a, "path"));
    bool moved = path && was && strcmp(path, was);
    if (path && !*path)
        return error_set(
            err,
            "the files of --data are those that %s was trained on, but other records "
            "of them can be used (images were added or removed), or ratio.json has "
            "other weights: undo that, or start a new run with -m %s and another --out",
            folder, folder);
    return error_set(err,
                     "%s: its contents differ from the data that this run was started "
                     "with%s%s (fingerprint %s, expected %s): give it the same --data, or "
                     "start a new run with -m %s and another --out",
                     path ? path : "--data", moved ? ", " : "", moved ? was : "",
                     json_string_value(json_object_get(b, "print")),
                     json_string_value(json_object_get(a, "print")), folder);
}

int train_start_same_data(const json_t *before, const json_t *now, const char *folder, Error *err) {
    size_t count = json_array_size(now), wanted = json_array_size(before);
    if (count != wanted)
        return error_set(
            err,
            "--data has %zu files, but %s was trained on %zu: give it the same --data, "
            "or start a new run with -m %s and another --out",
            count - 1, folder, wanted > 0 ? wanted - 1 : 0, folder);
    for (size_t i = 0; i < count; i++) {
        const json_t *a = json_array_get(before, i), *b = json_array_get(now, i);
        if (json_equal(json_object_get(a, "print"), json_object_get(b, "print"))) continue;
        return data_differs(a, b, folder, err);
    }
    return 0;
}

/* ---- The disk. ---- */

int train_start_space(const RunFolder *run, const TrainModel *model, const TrainSettings *s,
                      bool first, Error *err) {
    struct statvfs disk;
    double needed = (double)train_checkpoint_bytes(model, s, first);
    if (statvfs(run->path, &disk)) return 0; /* writing will fail later */
    double left = (double)disk.f_bavail * (double)disk.f_frsize;
    if (left >= needed) return 0;
    return error_set(err,
                     "%s: a checkpoint of this run takes %.1f MB, but only %.1f MB are free there: "
                     "make room, or name another folder with --out",
                     run->path, 1e-6 * needed, 1e-6 * left);
}

/* ---- Memory. ---- */

/* Estimates the run's memory with a second model that is only declared: the run's own still has its
 * files' values. */
static int predict_memory(Device *device, const TrainSettings *s, const Dataset *data,
                          const TrainSizes *sizes, TrainMemory *memory, Error *err) {
    TrainModel m;
    TRY(train_model_open(&m, s, device, err));
    int status = 0;
    if (data->scenes)
        status = train_model_classes(&m, NULL, 0, NULL, data->scenes->class_count, err);
    if (status == 0) status = train_model_describe(&m, s, data->with_image > 0, err);
    if (status == 0) *memory = train_model_memory(&m, s, sizes);
    train_model_close(&m);
    return status;
}

int train_start_memory(Device *device, const TrainSettings *s, const Dataset *data,
                       const TrainSizes *sizes, Error *err) {
    size_t free_bytes, total;
    TrainMemory m;
    if (!device_memory(device, &free_bytes, &total)) return 0;
    TRY(predict_memory(device, s, data, sizes, &m, err));
    if (train_memory_sum(&m) <= free_bytes) return 0;
    return error_set(
        err,
        "this run takes %.0f MB (weights %.0f, gradients %.0f, moments %.0f, "
        "activations of %d rows %.0f), but of the %.0f MB of %s %.0f are free: "
        "fewer --micro-batch-tokens, --activation-checkpointing, --lora-rank 16, --dtype bf16 or "
        "--device cpu",
        1e-6 * (double)train_memory_sum(&m), 1e-6 * (double)m.weights, 1e-6 * (double)m.gradients,
        1e-6 * (double)m.moments, sizes->tokens, 1e-6 * (double)m.arena, 1e-6 * (double)total,
        device_text(device), 1e-6 * (double)free_bytes);
}

/* ---- Places. ---- */

/* The real path of the deepest existing folder of `path`, `path` itself included, followed by the
 * rest. */
static char *real_path(const char *path, Error *err) {
    char *head = path_format(err, "%s", path);
    size_t end = head ? strlen(head) : 0;
    char *real = NULL, *whole = NULL;
    while (head && !real) {
        real = realpath(end ? head : ".", NULL);
        if (real || !end) break;
        while (end > 0 && head[end - 1] == '/') end--;
        while (end > 0 && head[end - 1] != '/') end--;
        head[end] = 0;
    }
    if (real) whole = path_format(err, "%s%s%s", real, path[end] ? "/" : "", path + end);
    if (head && !real) error_set(err, "%s: %s", path, strerror(errno));
    free(head), free(real);
    return whole;
}

static bool lies_in(const char *path, const char *folder) {
    size_t n = strlen(folder);
    while (n > 0 && folder[n - 1] == '/') n--;
    return !strncmp(path, folder, n) && (!path[n] || path[n] == '/');
}

/* `real_out` is `out` without links. */
static int check_apart(const char *out, const char *real_out, const char *option, const char *path,
                       Error *err) {
    char *real = realpath(path, NULL);
    int status = 0;
    if (real && lies_in(real_out, real))
        status =
            error_set(err,
                      "--out %s is %s --%s %s, which this run reads: a run needs its own "
                      "folder",
                      out, strcmp(real_out, real) ? "in the folder" : "the folder", option, path);
    free(real);
    return status;
}

int train_start_apart(const TrainSettings *s, Error *err) {
    const struct {
        const char *option, *path;
    } inputs[] = {{"model", s->model.folder},
                  {"vision", s->model.vision},
                  {"language", s->model.language},
                  {"projector", s->model.projector},
                  {"length-predictor", s->model.length},
                  {"adapter", s->model.adapter}};
    char *out = real_path(s->out, err);
    int status = out ? 0 : -1;
    for (int i = 0; i < 6 && status == 0; i++)
        if (inputs[i].path)
            status = check_apart(s->out, out, inputs[i].option, inputs[i].path, err);
    free(out);
    return status;
}

/* ---- A mask token. ---- */

/* The part of a folder whose language model is replaced, if it is there and not given. */
static int keep_part(char **own, const char **path, const char *folder, const char *name,
                     Error *err) {
    if (*path || !folder) return 0;
    *own = path_join(folder, name, err);
    if (!*own) return -1;
    if (access(*own, F_OK) == 0) *path = *own;
    return 0;
}

int train_start_mask(TrainStart *start, TrainSettings *s, const RunFolder *run, Device *device,
                     Error *err) {
    ModelOptions *m = &s->model;
    if (!train_model_needs_mask(s, device)) return 0;
    *start = (TrainStart){.folder = run_folder_path(run, "start", err)};
    if (!start->folder) return -1;
    if (access(start->folder, F_OK) != 0) TRY(model_add_mask(m, device, start->folder, err));
    TRY(keep_part(&start->vision, &m->vision, m->folder, "vision", err));
    TRY(keep_part(&start->projector, &m->projector, m->folder, "projector.safetensors", err));
    m->folder = start->folder, m->language = m->adapter = NULL; /* merged */
    return 0;
}

void train_start_free(TrainStart *start) {
    free(start->folder), free(start->vision), free(start->projector);
    *start = (TrainStart){0};
}

/* ---- What may not be expected. ---- */

static const double SPEED_NOTED = 1.2; /* above what two measurements differ by */

void train_start_notes(const TrainSettings *s, const TrainModel *model, FILE *out) {
    const json_t *pad = json_object_get(model->model.settings, "pad");
    if (s->stage == STAGE_ALIGN && s->model.pad == PAD_OFF && json_is_true(pad))
        fputs("note       align crops images although the model's folder says \"pad\": true, as "
              "LLaVA does; --pad on pads them\n",
              out);
    const json_t *attention = json_object_get(model->model.settings, "attention");
    const bool was_causal =
        json_string_value(attention) && !strcmp(json_string_value(attention), "causal");
    if (was_causal && model->model.parts.attention != ATTENTION_CAUSAL)
        fprintf(out,
                "note       the model was autoregressive; it is trained as a masked-diffusion "
                "model, and its attention becomes %s (--objective ar keeps it)\n",
                attention_name(model->model.parts.attention));
    if (s->zero && s->ranks <= 1 && !s->resume)
        fprintf(out,
                "note       --zero %d divides nothing: this is one process; several are started by "
                "mpirun -n N easyfirst train\n",
                s->zero);
    for (int i = 0; s->valid && i < s->data.count; i++)
        if (file_same(s->valid, s->data.items[i]))
            fputs("note       --valid is also training data: its loss says nothing about new "
                  "examples\n",
                  out);
}

void train_start_speed(double bf16, double f32, FILE *out) {
    if (f32 > SPEED_NOTED * bf16)
        fputs("note       this processor multiplies f32 faster than bf16: --dtype f32 takes less "
              "time, and more memory\n",
              out);
}
