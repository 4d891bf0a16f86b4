/* quantize.c - a model with weights of 8-bit integers, and back. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "projector/model_paths.h"
#include "projector/model_write.h"
#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "data/files/path.h"

static const CommandHelp help = {
    .name = "quantize",
    .usage = "-m MODEL [options] OUT",
    .about =
        "Writes a model folder OUT whose matrices, convolutions and embeddings are 8-bit integers\n"
        "with one scale for each row: half as large as bf16, on disk and in memory, and faster\n"
        "where the processor multiplies such integers. Each weight changes by at most 1/254 of\n"
        "its row's largest. All commands open such a folder; training from it dequantizes, and\n"
        "writes what it trained as bf16. Next to a tensor NAME of type I8 there is NAME_scale,\n"
        "F32, one scale for each row; a weight is its integer times its row's scale.\n"
        "transformers does not read it: --dequantize writes a folder that it reads.",
    .examples = "easyfirst quantize -m model small\n"
                "easyfirst quantize -m small --dequantize back\n"
                "easyfirst quantize --language xlm-roberta-xxl xxl",
};

typedef struct Quantize {
    ModelOptions options;
    bool dequantize, quiet;
    Dtype dtype; /* of what is dequantized */
    int threads;
    char out[PATH_MAX]; /* without slashes at the end */
    char partial[PATH_MAX + 64];
    Device *device;
    Model model;
    bool open;
} Quantize;

static int write_part(const Quantize *q, const ModelPart *part, const char *name, Error *err) {
    if (!part->present) return 0;
    char *path = path_join(q->partial, name, err);
    if (!path) return -1;
    int status = q->dequantize ? part_write_dequantized(&part->params, path, q->dtype, err)
                               : part_write_int8(&part->params, path, err);
    free(path);
    return status;
}

/* config.json, with the type of the weights, and the files of that name next to it. */
static int write_folder(const Quantize *q, const ModelPart *part, const char *folder,
                        const char *const *files, Error *err) {
    if (!part->present) return 0;
    ModelPart written = *part;
    if (q->dequantize) written.stored = q->dtype;
    json_t *config;
    char *name = path_join(folder, "config.json", err);
    int status = name ? model_write_subfolder(q->partial, folder, err) : -1;
    if (status == 0) status = model_config_beside(&config, &written, err);
    if (status == 0) status = model_write_json(config, q->partial, name, err);
    free(name);
    for (; *files && status == 0; files++) {
        name = path_join(folder, *files, err);
        status = name ? model_copy_beside(part, *files, q->partial, name, err) : -1;
        free(name);
    }
    return status;
}

static int write_parts(const Quantize *q, Error *err) {
    static const char *const language[] = {MODEL_TOKENIZER_FILES, "added_tokens.json", NULL};
    static const char *const vision[] = {"preprocessor_config.json", NULL};
    const Model *m = &q->model;
    TRY(write_folder(q, &m->language, "language", language, err));
    TRY(write_part(q, &m->language, "language/model.safetensors", err));
    TRY(write_part(q, &m->length, "length.safetensors", err));
    TRY(write_part(q, &m->projector, "projector.safetensors", err));
    TRY(write_folder(q, &m->vision, "vision", vision, err));
    TRY(write_part(q, &m->vision, "vision/model.safetensors", err));
    if (!m->settings) return 0;
    return model_write_settings(m->settings, m->parts.attention,
                                m->vision.present ? &m->tower : NULL, q->partial, err);
}

/* ---- The command. ---- */

static void count_params(const Params *params, int64_t *all, int64_t *quantized, size_t *bytes) {
    *all += params_count(params);
    *bytes += params_stored_bytes(params);
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        if (p->present && (p->value.dtype == DTYPE_I8 || param_quantized(p)))
            *quantized += tensor_count(p->value);
    }
}

static void print_written(const Quantize *q) {
    const Model *m = &q->model;
    const ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    int64_t all = 0, quantized = 0;
    size_t bytes = 0;
    for (int i = 0; i < 4; i++)
        if (parts[i]->present) count_params(&parts[i]->params, &all, &quantized, &bytes);
    if (q->dequantize)
        report_print(stderr, "%s: %lld parameters, those of 8 bits now %s\n", q->out,
                     (long long)all, dtype_name(q->dtype));
    else
        report_print(stderr, "%s: %lld of %lld parameters in 8 bits; the weights were %.1f MB\n",
                     q->out, (long long)quantized, (long long)all, 1e-6 * (double)bytes);
}

/* Whether there is anything to dequantize. */
static int check_quantized(const Model *m, Error *err) {
    const ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    for (int i = 0; i < 4; i++)
        for (int k = 0; parts[i]->present && k < parts[i]->params.count; k++)
            if (parts[i]->params.items[k].value.dtype == DTYPE_I8) return 0;
    return error_set(err, "no weight of this model is in 8 bits: there is nothing to dequantize");
}

static int open_model(Quantize *q, Error *err) {
    q->options.describe_only = true;
    TRY(device_open(&q->device, &(DeviceOptions){.threads = q->threads}, err));
    TRY(model_open(&q->model, &q->options, q->device, err));
    q->open = true;
    return q->dequantize ? check_quantized(&q->model, err) : 0;
}

static int run(Quantize *q, Error *err) {
    const ModelOptions *o = &q->options;
    const char *const inputs[] = {o->folder,    o->vision, o->language,
                                  o->projector, o->length, o->adapter};
    TRY(model_check_out(q->out, inputs, 6, err));
    TRY(open_model(q, err));
    TRY(folder_begin(q->partial, sizeof q->partial, q->out, err));
    int status = write_parts(q, err);
    if (status == 0) status = folder_commit(q->partial, q->out, err);
    if (status) {
        folder_discard(q->partial);
        return -1;
    }
    if (!q->quiet) print_written(q);
    return 0;
}

static int check_usage(Quantize *q, int count, char **words) {
    ModelOptions *o = &q->options;
    const char *folder = getenv("EASYFIRST_MODEL");
    if (!o->folder && folder && folder[0]) o->folder = folder;
    if (!o->folder && !o->language && !o->vision && !o->projector)
        return options_wrong(&help, "no model is named: give its folder with -m FOLDER or in the "
                                    "environment as EASYFIRST_MODEL, or a part");
    if (q->dtype != DTYPE_NONE && !q->dequantize)
        return options_wrong(&help, "--dtype is the type of --dequantize, which is not given");
    if (count != 1 || !words[0][0])
        return options_wrong(&help,
                             count > 1 ? "one folder at a time; \"%s\" is one too many"
                                       : "the name of the new folder is missing%s",
                             count > 1 ? words[1] : "");
    if (strlen(words[0]) >= sizeof q->out)
        return options_wrong(&help, "the name of the new folder is too long");
    memcpy(q->out, words[0], strlen(words[0]) + 1);
    for (size_t size = strlen(q->out); size > 1 && q->out[size - 1] == '/';) q->out[--size] = 0;
    if (q->dtype == DTYPE_NONE) q->dtype = DTYPE_BF16;
    return -1;
}

int command_quantize(int argc, char **argv) {
    Quantize q = {.options = {.feature_layer = FEATURE_LAYER_UNSET}};
    ModelOptions *m = &q.options;
    OptionGroup groups[2] = {
        {.title = "options",
         .options = {
             {"dequantize", 0, OPTION_FLAG, NULL, &q.dequantize,
              "the other way: 8-bit weights become floating-point numbers"},
             {"dtype", 0, OPTION_CHOICE, NULL, &q.dtype,
              "... of this type (default bf16; f32 keeps them exactly)", DTYPE_F32,
              .names = dtype_choices},
             {"quiet", 'q', OPTION_FLAG, NULL, &q.quiet, "do not print what was written"}}}};
    model_parts_group(m, "the model's folder; else $EASYFIRST_MODEL", &groups[1]);
    option_add(&groups[1], threads_option(&q.threads));
    int first, status = options_read(&help, groups, 2, argc, argv, &first);
    if (status < 0) status = check_usage(&q, argc - first, argv + first);
    if (status < 0) {
        Error err;
        status = run(&q, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    if (q.open) model_close(&q.model);
    device_close(q.device);
    return status;
}
