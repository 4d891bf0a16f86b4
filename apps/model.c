#include "apps/model.h"
#include "data/memory_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/clock.h"

static bool path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

static bool path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

void model_path_beside(char *out, size_t size, const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    if (path_is_folder(path))
        snprintf(out, size, "%s/%s", path, name);
    else if (slash)
        snprintf(out, size, "%.*s/%s", (int)(slash - path), path, name);
    else
        snprintf(out, size, "%s", name);
}

/* ---- Configurations: what tensors cannot tell comes from config.json. ---- */

/* config.json beside the weights; for CLIP's two-tower configurations the vision half. */
static int config_open(json_t **config, char *path, size_t size, const char *weights,
                       const char *half, Error *err) {
    model_path_beside(path, size, weights, "config.json");
    if (!path_exists(path))
        return error_set(err, "%s: missing; put the model's config.json beside its weights", path);
    TRY(config_read(config, path, err));
    json_t *inner = half ? json_object_get(*config, half) : NULL;
    if (json_is_object(inner)) {
        json_incref(inner);
        json_decref(*config);
        *config = inner;
    }
    return 0;
}

/* A size that both the configuration and the tensors tell: they must agree. */
static int config_size(const json_t *config, const char *name, const char *path, int64_t found,
                       Error *err) {
    int told;
    TRY(config_integer(config, name, path, 1, 1 << 24, (int)found, &told, err));
    if (told == found) return 0;
    return error_set(err, "%s: \"%s\" is %d, but the tensors have %lld", path, name, told,
                     (long long)found);
}

static int config_activation(const json_t *config, const char *path, Activation fallback,
                             Activation *activation, Error *err) {
    const char *name;
    TRY(config_text(config, "hidden_act", path, NULL, &name, err));
    *activation = fallback;
    if (!name) return 0;
    static const struct {
        const char *name;
        Activation activation;
    } known[] = {{"gelu", ACTIVATION_GELU},
                 {"quick_gelu", ACTIVATION_QUICK_GELU},
                 {"relu", ACTIVATION_RELU}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(name, known[i].name)) {
            *activation = known[i].activation;
            return 0;
        }
    return error_set(err, "%s: \"hidden_act\" is \"%s\", expected gelu, quick_gelu or relu", path,
                     name);
}

/* The shape of a tensor that must be there, to read sizes from. */
static int tensor_sizes(const Checkpoint *c, Part part, const char *name, int ndim,
                        const int64_t **shape, Error *err) {
    const CheckpointTensor *t = part_find(c, part, name);
    if (!t)
        return error_set(err, "%s: no %s in it (no tensor %s under any known name)", c->path,
                         part_name(part), name);
    if (t->value.ndim != ndim)
        return error_set(err, "%s: %s has %d dimensions, expected %d", c->path, t->name,
                         t->value.ndim, ndim);
    for (int i = 0; i < ndim; i++)
        if (t->value.shape[i] < 1 || t->value.shape[i] > 1 << 24) {
            char text[128];
            shape_text(text, sizeof text, ndim, t->value.shape);
            return error_set(err, "%s: %s has the shape %s", c->path, t->name, text);
        }
    *shape = t->value.shape;
    return 0;
}

/* How many layers there are: `format` has one %d. */
static int count_layers(const Checkpoint *c, Part part, const char *format) {
    char name[160];
    for (int n = 0;; n++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof name, format, n);
#pragma GCC diagnostic pop
        if (n == 10000 || !part_find(c, part, name)) return n;
    }
}

static int vision_config(const Checkpoint *c, VitConfig *v, Error *err) {
    json_t *config;
    char path[1024];
    const int64_t *patch = NULL, *positions = NULL, *fc1 = NULL;
    TRY(tensor_sizes(c, PART_VISION, "vision_model.embeddings.patch_embedding.weight", 4, &patch,
                     err));
    TRY(tensor_sizes(c, PART_VISION, "vision_model.embeddings.position_embedding.weight", 2,
                     &positions, err));
    TRY(tensor_sizes(c, PART_VISION, "vision_model.encoder.layers.0.mlp.fc1.weight", 2, &fc1, err));
    TRY(config_open(&config, path, sizeof path, c->path, "vision_config", err));
    int side = 1;
    while ((int64_t)side * side < positions[0] - 1) side++;
    v->patch = (int)patch[2];
    v->image_size = side * v->patch;
    v->layers = count_layers(c, PART_VISION, "vision_model.encoder.layers.%d.mlp.fc1.weight");
    v->block = (BlockConfig){.width = (int)patch[0], .ffn = (int)fc1[0], .pre_norm = true};
    double eps = 1e-5;
    int status =
        config_integer(config, "num_attention_heads", path, 1, 4096,
                       v->block.width > 64 ? v->block.width / 64 : 1, &v->block.heads, err) ||
        config_activation(config, path, ACTIVATION_QUICK_GELU, &v->block.activation, err) ||
        config_real(config, "layer_norm_eps", path, 1e-5, &eps, err) ||
        config_size(config, "image_size", path, v->image_size, err) ||
        config_size(config, "patch_size", path, v->patch, err) ||
        config_size(config, "hidden_size", path, v->block.width, err) ||
        config_size(config, "intermediate_size", path, v->block.ffn, err) ||
        config_size(config, "num_hidden_layers", path, v->layers, err);
    v->block.eps = (float)eps;
    json_decref(config);
    return status ? -1 : 0;
}

/* Base and large are told from XL and XXL by their tensors: one stored XXL configuration has the
 * model type of the smaller ones. */
static int language_config(const Checkpoint *c, XlmrConfig *x, bool thorough, Error *err) {
    json_t *config;
    char path[1024];
    const int64_t *words = NULL, *positions = NULL, *fc1 = NULL;
    TRY(tensor_sizes(c, PART_LANGUAGE, "roberta.embeddings.word_embeddings.weight", 2, &words,
                     err));
    TRY(tensor_sizes(c, PART_LANGUAGE, "roberta.embeddings.position_embeddings.weight", 2,
                     &positions, err));
    TRY(tensor_sizes(c, PART_LANGUAGE, "roberta.encoder.layer.0.intermediate.dense.weight", 2, &fc1,
                     err));
    TRY(config_open(&config, path, sizeof path, c->path, NULL, err));
    x->vocab = (int)words[0];
    x->positions = (int)positions[0];
    x->layers =
        count_layers(c, PART_LANGUAGE, "roberta.encoder.layer.%d.intermediate.dense.weight");
    x->untied = part_head_untied(c, thorough);
    x->block = (BlockConfig){.width = (int)words[1], .ffn = (int)fc1[0]};
    x->block.pre_norm = part_find(c, PART_LANGUAGE, "roberta.encoder.LayerNorm.weight") != NULL;
    double eps = 1e-5;
    int status =
        config_integer(config, "num_attention_heads", path, 1, 4096,
                       x->block.width > 64 ? x->block.width / 64 : 1, &x->block.heads, err) ||
        config_activation(config, path, ACTIVATION_GELU, &x->block.activation, err) ||
        config_real(config, "layer_norm_eps", path, 1e-5, &eps, err) ||
        config_size(config, "vocab_size", path, x->vocab, err) ||
        config_size(config, "hidden_size", path, x->block.width, err) ||
        config_size(config, "intermediate_size", path, x->block.ffn, err) ||
        config_size(config, "num_hidden_layers", path, x->layers, err) ||
        config_size(config, "max_position_embeddings", path, x->positions, err);
    x->block.eps = (float)eps;
    json_decref(config);
    return status ? -1 : 0;
}

/* ---- Parts. ---- */

static Dtype arithmetic(const Model *m, const ModelOptions *o, Dtype stored, Error *err) {
    if (!o->dtype || !strcmp(o->dtype, "auto")) return device_compute_dtype(m->device, stored);
    if (!strcmp(o->dtype, "f32")) return DTYPE_F32;
    if (strcmp(o->dtype, "bf16")) {
        error_set(err, "arithmetic \"%s\": expected auto, f32 or bf16", o->dtype);
        return DTYPE_NONE;
    }
    if (device_has_bf16(m->device)) return DTYPE_BF16;
    error_set(err, "this device (%s) has no bf16 arithmetic: use f32", device_text(m->device));
    return DTYPE_NONE;
}

static int checkpoint_add(Model *m, const char *path, const char *stem, const Checkpoint **c,
                          Error *err) {
    TRY(checkpoint_open(&m->checkpoints[m->checkpoint_count], path, stem, err));
    *c = &m->checkpoints[m->checkpoint_count++];
    return 0;
}

static void part_begin(Model *m, ModelPart *part, Part kind, const Checkpoint *c) {
    part->kind = kind;
    part->checkpoint = c;
    snprintf(part->path, sizeof part->path, "%s", c->path);
    params_init(&part->params, m->device);
}

/* Values into the declared table, then (unless only described) into the device's form. */
static int part_finish(Model *m, const ModelOptions *o, ModelPart *part, Error *err) {
    TRY(part_load(&part->params, part->checkpoint, part->kind, &part->sources, err));
    part->present = true;
    int64_t largest = -1;
    for (int i = 0; i < part->params.count; i++) {
        const Param *p = &part->params.items[i];
        if (!p->present || tensor_count(p->value) <= largest) continue;
        largest = tensor_count(p->value), part->stored = p->value.dtype;
    }
    /* What hands its activations on decides for both. */
    if (part->kind == PART_PROJECTOR && m->vision.present)
        part->compute = m->vision.compute;
    else if (part->kind == PART_LENGTH)
        part->compute = m->language.compute;
    else
        part->compute = arithmetic(m, o, part->stored, err);
    if (part->compute == DTYPE_NONE) return -1;
    part->params.compute = part->compute;
    if (o->describe_only) return 0;
    double t0 = clock_seconds();
    int status = part_prepare(&part->sources, part->compute, err);
    m->prepare_s += clock_seconds() - t0;
    return status;
}

static int open_vision(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, NULL, &c, err));
    VitConfig config;
    TRY(vision_config(c, &config, err));
    const char *settings = o->folder ? o->folder : "settings";
    TRY(config_integer(m->settings, "feature_layer", settings, -10000, 10000, -2,
                       &config.feature_layer, err));
    if (o->feature_layer != FEATURE_LAYER_UNSET) config.feature_layer = o->feature_layer;
    TRY(config_flag(m->settings, "class_token", settings, false, &config.class_token, err));
    part_begin(m, &m->vision, PART_VISION, c);
    if (vit_declare(&m->vit, &config, &m->vision.params, err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->vision, err));
    int told, rows = vit_feature_rows(&config);
    TRY(config_integer(m->settings, "image_tokens", settings, 1, 1 << 20, rows, &told, err));
    if (told != rows)
        return error_set(err, "%s: \"image_tokens\" is %d, but the vision tower gives %d", settings,
                         told, rows);
    m->parts.vit = &m->vit;
    return 0;
}

/* Mean, deviation and padding. The size is the tower's own: preprocessor_config.json has had
 * several forms for it, and any other would not fit the tower. */
static int open_preprocess(Model *m, const ModelOptions *o, const char *path, Error *err) {
    PreprocessConfig p = preprocess_clip_default();
    p.size = m->vit.config.image_size;
    TRY(config_flag(m->settings, "pad", o->folder ? o->folder : "settings", true, &p.pad, err));
    if (o->pad) p.pad = !strcmp(o->pad, "on");
    char file[1024];
    model_path_beside(file, sizeof file, path, "preprocessor_config.json");
    if (path_exists(file)) {
        json_t *config;
        TRY(config_read(&config, file, err));
        static const char *const names[2] = {"image_mean", "image_std"};
        float *values[2] = {p.mean, p.std};
        int status = 0;
        for (int i = 0; i < 2 && status == 0; i++) {
            json_t *list = json_object_get(config, names[i]);
            for (int j = 0; list && j < 3 && status == 0; j++) {
                json_t *number = json_array_get(list, (size_t)j);
                if (!json_is_number(number) || (i == 1 && json_number_value(number) <= 0))
                    status = error_set(err, "%s: \"%s\" must be three numbers", file, names[i]);
                else
                    values[i][j] = (float)json_number_value(number);
            }
        }
        json_decref(config);
        TRY(status);
    }
    m->parts.preprocess = p;
    return 0;
}

static int open_language(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, NULL, &c, err));
    XlmrConfig config;
    TRY(language_config(c, &config, !o->describe_only, err));
    part_begin(m, &m->language, PART_LANGUAGE, c);
    if (xlmr_declare(&m->xlmr, &config, &m->language.params, err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->language, err));
    m->parts.xlmr = &m->xlmr;
    char file[1024];
    model_path_beside(file, sizeof file, path, MODEL_TOKENIZER);
    if (!path_exists(file) && o->describe_only) return 0;
    if (!path_exists(file))
        return error_set(err, "%s: missing; put XLM-R's tokenizer file beside the weights", file);
    TRY(tokenizer_open(&m->tokenizer, file, err));
    if (tokenizer_size(m->tokenizer) > config.vocab)
        return error_set(err, "%s: the tokenizer has %d ids, but the model in %s only %d", file,
                         tokenizer_size(m->tokenizer), c->path, config.vocab);
    m->parts.tokenizer = m->tokenizer;
    return 0;
}

static int open_length(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c = NULL;
    if (path)
        TRY(checkpoint_add(m, path, "length", &c, err));
    else if (m->language.present && part_present(m->language.checkpoint, PART_LENGTH))
        c = m->language.checkpoint;
    if (!c) return 0;
    if (!m->language.present)
        return error_set(err, "%s: a length predictor needs its language model", path);
    const int64_t *classes = NULL;
    TRY(tensor_sizes(c, PART_LENGTH, "length_predictor.2.weight", 2, &classes, err));
    part_begin(m, &m->length, PART_LENGTH, c);
    if (length_declare(&m->length_model, &m->xlmr.config.block, (int)classes[0], &m->length.params,
                       err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->length, err));
    m->parts.length = &m->length_model;
    return 0;
}

static int open_projector(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, "projector", &c, err));
    const char *first = "model.mm_projector.0.weight";
    bool two = part_find(c, PART_PROJECTOR, first) != NULL;
    const int64_t *shape = NULL;
    TRY(tensor_sizes(c, PART_PROJECTOR, two ? first : "model.mm_projector.weight", 2, &shape, err));
    if (m->vision.present && shape[1] != m->vit.config.block.width)
        return error_set(
            err,
            "%s: the projector reads features of width %lld, the vision tower %s gives "
            "%d: they belong to different models",
            c->path, (long long)shape[1], m->vision.path, m->vit.config.block.width);
    if (m->language.present && shape[0] != m->xlmr.config.block.width)
        return error_set(
            err,
            "%s: the projector writes tokens of width %lld, the language model %s reads "
            "%d: it was trained for another one",
            c->path, (long long)shape[0], m->language.path, m->xlmr.config.block.width);
    part_begin(m, &m->projector, PART_PROJECTOR, c);
    TRY(projector_declare(&m->projector_model, two ? PROJECTOR_MLP2X_GELU : PROJECTOR_LINEAR,
                          (int)shape[1], (int)shape[0], &m->projector.params, err));
    TRY(part_finish(m, o, &m->projector, err));
    m->parts.projector = &m->projector_model;
    return 0;
}

/* ---- The folder. ---- */

static int open_settings(Model *m, const ModelOptions *o, Error *err) {
    if (!o->folder) return 0;
    if (!path_is_folder(o->folder))
        return error_set(err,
                         "%s: %s; expected a model folder (with language/, and vision/ to see)",
                         o->folder, path_exists(o->folder) ? "not a folder" : "no such folder");
    char path[1024];
    snprintf(path, sizeof path, "%s/easyfirst.json", o->folder);
    if (!path_exists(path)) return 0;
    TRY(config_read(&m->settings, path, err));
    int format;
    const char *attention;
    TRY(config_integer(m->settings, "format", path, 1, 1, 1, &format, err));
    TRY(config_text(m->settings, "attention", path, "full", &attention, err));
    if (strcmp(attention, "full") && strcmp(attention, "blocks"))
        return error_set(err, "%s: \"attention\" is \"%s\", expected full or blocks", path,
                         attention);
    m->parts.attention = strcmp(attention, "blocks") ? ATTENTION_FULL : ATTENTION_BLOCKS;
    return config_integer(m->settings, "answer_position", path, 0, 1 << 20, 0,
                          &m->parts.answer_position, err);
}

/* Where a part is: as named, else in the folder if it is there; NULL otherwise. */
static const char *part_path(char *out, size_t size, const char *named, const char *folder,
                             const char *name) {
    if (named) return named;
    if (!folder) return NULL;
    snprintf(out, size, "%s/%s", folder, name);
    return path_exists(out) ? out : NULL;
}

static int open_parts(Model *m, const ModelOptions *o, Error *err) {
    char text[1024], see[1024], length[1024], projector[1024];
    TRY(open_settings(m, o, err));
    const char *language = part_path(text, sizeof text, o->language, o->folder, "language");
    const char *vision = part_path(see, sizeof see, o->vision, o->folder, "vision");
    const char *lengths =
        part_path(length, sizeof length, o->length, o->folder, "length.safetensors");
    const char *project =
        part_path(projector, sizeof projector, o->projector, o->folder, "projector.safetensors");
    /* A plain Hugging Face folder of a language model is a model, too. */
    if (!language && !vision && o->folder) language = o->folder;
    if (!language && !vision && !project)
        return error_set(err, "no model is named: give a model folder, or a part of one");
    if (language) TRY(open_language(m, o, language, err));
    TRY(open_length(m, o, lengths, err));
    if (o->text_only) return 0;
    if (vision) {
        TRY(open_vision(m, o, vision, err));
        TRY(open_preprocess(m, o, vision, err));
    }
    return project ? open_projector(m, o, project, err) : 0;
}

int model_open(Model *model, const ModelOptions *options, Device *device, Error *err) {
    *model = (Model){.device = device, .parts = {.device = device}};
    double t0 = clock_seconds();
    int status = open_parts(model, options, err);
    model->open_s = clock_seconds() - t0 - model->prepare_s;
    if (status) model_close(model);
    return status;
}

void model_close(Model *m) {
    ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    for (int i = 0; i < 4; i++) {
        params_free(&parts[i]->params);
        part_sources_free(&parts[i]->sources);
    }
    for (int i = 0; i < m->checkpoint_count; i++) checkpoint_close(&m->checkpoints[i]);
    vit_free(&m->vit);
    xlmr_free(&m->xlmr);
    tokenizer_close(m->tokenizer);
    json_decref(m->settings);
    *m = (Model){0};
}

/* ---- Wordings. ---- */

static const char *default_wording(const char *preset) {
    static const char *const table[][2] = {
        {"ask", "{question}"},
        {"gqa", "{question}\nAnswer the question using a single word or phrase."},
        {"translate", "Translate the sentences into {to}.  {from}: {text} {to}: "},
        {"summarize", "Write a short summary of the text.  Text: {text} Summary: "},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (!strcmp(preset, table[i][0])) return table[i][1];
    return NULL;
}

static const char *field_value(const char *name, size_t size, const char *text, const char *from,
                               const char *to) {
    const struct {
        const char *name, *value;
    } fields[] = {{"question", text}, {"text", text}, {"from", from}, {"to", to}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i].name) == size && !strncmp(name, fields[i].name, size))
            return fields[i].value ? fields[i].value : "";
    return NULL;
}

int model_prompt(const Model *model, const char *preset, const char *text, const char *from,
                 const char *to, char **prompt, Error *err) {
    *prompt = NULL;
    const char *wording =
        json_string_value(json_object_get(json_object_get(model->settings, "prompts"), preset));
    if (!wording) wording = default_wording(preset);
    if (!wording) return error_set(err, "no wording for \"%s\" is known", preset);
    size_t size = 0;
    FILE *out = memory_stream_open(prompt, &size);
    if (!out) return error_set(err, "out of memory for a prompt");
    int status = 0;
    for (const char *p = wording; *p && status == 0;) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        if (!end) {
            fputc(*p++, out);
            continue;
        }
        const char *value = field_value(p + 1, (size_t)(end - p - 1), text, from, to);
        if (value)
            fputs(value, out);
        else
            status = error_set(err, "the wording of \"%s\" has an unknown field %.*s", preset,
                               (int)(end - p + 1), p);
        p = end + 1;
    }
    if (fclose(out) && status == 0) status = error_set(err, "out of memory for a prompt");
    if (status) {
        free(*prompt);
        *prompt = NULL;
    }
    return status;
}

const char *language_name(const char *code) {
    static const char *const table[][2] = {
        {"af", "Afrikaans"},  {"ar", "Arabic"},     {"bg", "Bulgarian"},  {"bn", "Bengali"},
        {"ca", "Catalan"},    {"cs", "Czech"},      {"cy", "Welsh"},      {"da", "Danish"},
        {"de", "German"},     {"el", "Greek"},      {"en", "English"},    {"eo", "Esperanto"},
        {"es", "Spanish"},    {"et", "Estonian"},   {"eu", "Basque"},     {"fa", "Persian"},
        {"fi", "Finnish"},    {"fr", "French"},     {"ga", "Irish"},      {"gl", "Galician"},
        {"he", "Hebrew"},     {"hi", "Hindi"},      {"hr", "Croatian"},   {"hu", "Hungarian"},
        {"hy", "Armenian"},   {"id", "Indonesian"}, {"is", "Icelandic"},  {"it", "Italian"},
        {"ja", "Japanese"},   {"ka", "Georgian"},   {"ko", "Korean"},     {"la", "Latin"},
        {"lt", "Lithuanian"}, {"lv", "Latvian"},    {"mk", "Macedonian"}, {"mr", "Marathi"},
        {"ms", "Malay"},      {"nl", "Dutch"},      {"no", "Norwegian"},  {"pl", "Polish"},
        {"pt", "Portuguese"}, {"ro", "Romanian"},   {"ru", "Russian"},    {"sk", "Slovak"},
        {"sl", "Slovenian"},  {"sq", "Albanian"},   {"sr", "Serbian"},    {"sv", "Swedish"},
        {"sw", "Swahili"},    {"ta", "Tamil"},      {"te", "Telugu"},     {"th", "Thai"},
        {"tr", "Turkish"},    {"uk", "Ukrainian"},  {"ur", "Urdu"},       {"vi", "Vietnamese"},
        {"zh", "Chinese"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (!strcmp(code, table[i][0])) return table[i][1];
    return code;
}
