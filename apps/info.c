/* info.c - what a model is and needs, from the headers of its files: nothing is loaded. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apps/commands.h"
#include "apps/cli/session.h"
#include "apps/cli/report.h"
#include "data/files/path.h"
#include "data/sets/scene_graphs.h"
#include "projector/model_languages.h"
#include "projector/train_model.h"
#include "vision/image.h"

static const CommandHelp help = {
    .name = "info",
    .usage = "[options] [FOLDER | FILE]",
    .about =
        "Describes a model folder, a plain Hugging Face folder of a CLIP vision tower or an\n"
        "XLM-R, or a single file of tensors: parts, sizes, types, memory, and whether a GPU has\n"
        "as much. Without an argument it is the model of -m, $EASYFIRST_MODEL and the options\n"
        "that name parts. Only the files' headers are read, whatever their size.",
    .examples = "easyfirst info model\n"
                "easyfirst info --tensors clip-vit-large-patch14/model.safetensors\n"
                "easyfirst info --language xlm-roberta-base --vision clip-vit-large-patch14\n"
                "easyfirst info --train tune model\n"
                "easyfirst info --json model\n"
                "easyfirst info --formats",
};

enum { PART_COUNT = 4, ANSWER_TOKENS = 64, DEFAULT_CLASSES = 1000, RANKS_MOST = 256 };

typedef struct Info {
    CommonOptions common;
    const char *path;
    bool tensors, formats;
    int train;               /* a TrainStage whose memory is asked for; -1: none */
    OptimizerKind optimizer; /* ... with this one */
    MomentKind moments;
    MasterKind masters;
    int lora_rank;
    int ranks, zero;       /* ... on each of so many processes */
    int overlap;           /* ... a TrainOverlap */
    unsigned lora_targets; /* 0: the default ones */
    int micro_batch_tokens;
    int classes;               /* of the stage segment */
    int layers_over;           /* processes over which the language model is spread; 0: one */
    size_t spread[RANKS_MOST]; /* memory of each of them */
    bool recompute;
    Session session;
} Info;

/* The numbers of one part, for both forms of output. */
typedef struct PartNumbers {
    const ModelPart *part;
    char sizes[256];  /* "24 layers, width 1024, ..." */
    const char *kind; /* of file */
    int tensors;      /* that the part takes from its file */
    int64_t parameters;
    size_t stored, prepared, activations; /* bytes */
} PartNumbers;

/* ---- Words. ---- */

static const char *bytes_text(char *out, size_t size, double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 999.5 && unit < 4) bytes /= 1000, unit++;
    snprintf(out, size,
             bytes < 9.995 && unit   ? "%.2f %s"
             : bytes < 99.95 && unit ? "%.1f %s"
                                     : "%.0f %s",
             bytes, units[unit]);
    return out;
}

static const char *count_text(char *out, size_t size, int64_t n) {
    if (n < 1000000)
        snprintf(out, size, "%lld", (long long)n);
    else if (n < 1000000000)
        snprintf(out, size, "%.1f M", 1e-6 * (double)n);
    else
        snprintf(out, size, "%.2f B", 1e-9 * (double)n);
    return out;
}

/* Each reader of a file keeps the file's own words for types: "F32" or "FloatStorage". */
static const char *file_kind(const Checkpoint *c) {
    for (size_t i = 0; i < c->count; i++)
        if (strstr(c->tensors[i].type_text, "Storage")) return "PyTorch";
    return "safetensors";
}

static void block_words(char *out, size_t size, int layers, const BlockConfig *b) {
    snprintf(out, size, "%d layer%s, width %d, %d heads, feed-forward %d, %s-norm, %s", layers,
             layers == 1 ? "" : "s", b->width, b->heads, b->ffn, b->pre_norm ? "pre" : "post",
             activation_name(b->activation));
}

/* The encoders but XLM-R and RoBERTa, whose configurations tell them apart. */
static void encoder_words(char *out, size_t size, const Xlmr *m) {
    const BlockConfig *b = &m->config.block;
    out[0] = 0;
    if (m->config.kind == ENCODER_BERT) snprintf(out, size, ", BERT's");
    if (m->config.kind != ENCODER_MODERNBERT) return;
    if (b->window)
        snprintf(out, size, ", ModernBERT's: all but every %d. see %d tokens to either side",
                 b->global_every, b->window);
    else
        snprintf(out, size, ", ModernBERT's");
}

/* A classifier in the file is named: it is known, but no part of the tower. */
static void net_words(char *out, size_t size, const EfficientNet *net, const Checkpoint *c) {
    const CheckpointTensor *classifier = c ? part_find(c, PART_VISION, "_fc.weight") : NULL;
    int used = snprintf(out, size,
                        "%d px to a grid of %d x %d, %d convolutions in %d blocks, width "
                        "%d",
                        net->config.image_size, net->grid, net->grid, net->count, net->config.count,
                        net->config.width);
    if (classifier && classifier->value.ndim == 2 && used > 0 && (size_t)used < size)
        snprintf(out + used, size - (size_t)used,
                 "; its classifier of %lld classes (_fc) is not used",
                 (long long)classifier->value.shape[0]);
}

/* ---- Numbers. ---- */

static void part_sizes(const Model *m, PartNumbers *n) {
    char block[160];
    switch (n->part->kind) {
    case PART_VISION: {
        n->activations = tower_work_bytes(&m->tower, 1);
        if (m->tower.net) {
            net_words(n->sizes, sizeof n->sizes, &m->net, n->part->checkpoint);
            break;
        }
        const VitConfig *v = &m->vit.config;
        block_words(block, sizeof block, v->layers, &v->block);
        snprintf(n->sizes, sizeof n->sizes, "%d px in patches of %d, %s, features of layer %d",
                 v->image_size, v->patch, block, v->feature_layer);
        break;
    }
    case PART_LANGUAGE: {
        const LanguageModel *l = &m->parts.language;
        const BlockConfig *b = language_block(l);
        int longest = language_longest(l);
        block_words(block, sizeof block, language_layers(l), b);
        char kind[80] = "";
        if (l->xlmr) encoder_words(kind, sizeof kind, l->xlmr);
        snprintf(n->sizes, sizeof n->sizes, "%d tokens, sequences of at most %d, %s%s",
                 language_vocab(l), longest, block, kind);
        n->activations = language_work_bytes(l, longest) + language_head_bytes(l, ANSWER_TOKENS);
        n->activations +=
            l->llama ? llama_turns_bytes(&l->llama->config) : xlmr_turns_bytes(&l->xlmr->config);
        if (m->parts.attention == ATTENTION_BLOCK_CAUSAL) /* the keys and values that are kept */
            n->activations += (size_t)longest * 2 * (size_t)block_key_width(b) *
                              (size_t)language_layers(l) * dtype_size(n->part->compute);
        break;
    }
    case PART_PROJECTOR:
        snprintf(n->sizes, sizeof n->sizes, "%s, from width %d to %d",
                 projector_kind_name(m->projector_model.kind), m->projector_model.in,
                 m->projector_model.out);
        n->activations =
            projector_work_bytes(&m->projector_model, multimodal_image_rows(&m->parts));
        break;
    case PART_LENGTH:
        block_words(block, sizeof block, 1, &m->length_model.config);
        snprintf(n->sizes, sizeof n->sizes, "lengths up to %d, %s", m->length_model.classes, block);
        n->activations =
            length_work_bytes(&m->length_model, language_longest(&m->parts.language), 1);
        break;
    }
}

static int model_numbers(const Model *m, PartNumbers *numbers) {
    const ModelPart *parts[PART_COUNT] = {&m->vision, &m->projector, &m->language, &m->length};
    int count = 0;
    for (int i = 0; i < PART_COUNT; i++) {
        const ModelPart *p = parts[i];
        if (!p->present) continue;
        PartNumbers *n = &numbers[count++];
        *n = (PartNumbers){.part = p,
                           .kind = file_kind(p->checkpoint),
                           .parameters = params_count(&p->params),
                           .stored = params_stored_bytes(&p->params),
                           .prepared = params_prepared_bytes(&p->params, p->compute)};
        for (int j = 0; j < p->params.count; j++) n->tensors += p->sources.tensors[j] != NULL;
        part_sizes(m, n);
    }
    return count;
}

/* What decoding one question about one image takes beside the files' own pages: all prepared
 * weights, and the activations of the part that needs most, since the parts run one
 * after another. */
static size_t memory_needed(const PartNumbers *numbers, int count) {
    size_t weights = 0, most = 0;
    for (int i = 0; i < count; i++) {
        weights += numbers[i].prepared;
        if (numbers[i].activations > most) most = numbers[i].activations;
    }
    return weights + most;
}

/* The same of process `number` of those over which the language model is spread. */
static int spread_memory(const Info *info, const PartNumbers *numbers, int count, int number,
                         size_t *bytes, Error *err) {
    const Model *m = &info->session.model;
    Params params = m->language.params;
    const size_t items = (size_t)params.count * sizeof *params.items;
    SpreadPart part;
    TRY(model_spread_part(m, number, info->layers_over, &part, err));
    if (!(params.items = malloc(items))) return error_set(err, "out of memory");
    memcpy(params.items, m->language.params.items, items);
    spread_leave_out(&params, &m->parts.language, &part);
    *bytes = 0;
    size_t most = 0;
    for (int i = 0; i < count; i++) {
        const bool language = numbers[i].part == &m->language;
        if (!language && number) continue;
        *bytes +=
            language ? params_prepared_bytes(&params, m->language.compute) : numbers[i].prepared;
        if (numbers[i].activations > most) most = numbers[i].activations;
    }
    *bytes += most;
    free(params.items);
    return 0;
}

static int spread_all(Info *info, const PartNumbers *numbers, int count, Error *err) {
    if (info->layers_over && !info->session.model.language.present)
        return error_set(err, "--layers-over: this model has no language model");
    for (int i = 0; i < info->layers_over; i++)
        TRY(spread_memory(info, numbers, count, i, &info->spread[i], err));
    return 0;
}

static void print_spread(const Info *info) {
    char text[32];
    for (int i = 0; i < info->layers_over; i++)
        printf("%s%s",
               i ? ", " : "spread:     ", bytes_text(text, sizeof text, (double)info->spread[i]));
    if (info->layers_over) printf(" on each of %d processes\n", info->layers_over);
}

/* How many tensors of a file no part takes, though they are known (a text tower, say). */
static int tensors_unused(const Checkpoint *c, const PartSources *sources, int count) {
    int taken = 0;
    for (size_t i = 0; i < c->count; i++) {
        bool used = false;
        for (int s = 0; s < count && !used; s++)
            for (int j = 0; j < sources[s].params->count && !used; j++)
                used = sources[s].tensors[j] == &c->tensors[i];
        taken += used;
    }
    return (int)c->count - taken - part_unknown(c, sources, count, NULL, NULL);
}

static int model_sources(const Model *m, PartSources sources[PART_COUNT]) {
    const ModelPart *parts[PART_COUNT] = {&m->vision, &m->projector, &m->language, &m->length};
    int count = 0;
    for (int i = 0; i < PART_COUNT; i++)
        if (parts[i]->present) sources[count++] = parts[i]->sources;
    return count;
}

/* ---- Plain. ---- */

static void print_tensor(void *indent, const CheckpointTensor *t) {
    char shape[160];
    shape_text(shape, sizeof shape, t->value.ndim, t->value.shape);
    report_print(stdout, "%s%-8s %-20s %s\n", (const char *)indent, t->type_text, shape, t->name);
}

static void print_part(const PartNumbers *n) {
    char parameters[32], stored[32], prepared[32], activations[32];
    count_text(parameters, sizeof parameters, n->parameters);
    bytes_text(stored, sizeof stored, (double)n->stored);
    bytes_text(prepared, sizeof prepared, (double)n->prepared);
    bytes_text(activations, sizeof activations, (double)n->activations);
    report_print(stdout, "\n%s: %s (%s)\n", part_name(n->part->kind), n->part->path, n->kind);
    printf("  %s\n", n->sizes);
    printf("  %d tensors, %s parameters, stored as %s (%s), arithmetic in %s\n", n->tensors,
           parameters, dtype_name(n->part->stored), stored, dtype_name(n->part->compute));
    printf("  memory: %s of weights, %s of activations\n", prepared, activations);
}

/* Whether what is needed is there, where a device's memory is counted. */
static void print_gpu_memory(Device *device, size_t needed, const char *what) {
    char all[32], left[32];
    size_t free_bytes, total;
    if (!device_memory(device, &free_bytes, &total)) return;
    bytes_text(left, sizeof left, (double)free_bytes);
    bytes_text(all, sizeof all, (double)total);
    printf("gpu memory: %s of %s are free: the %s %s\n", left, all, what,
           needed <= free_bytes ? "fits" : "does not fit");
}

static void print_model(const Info *info, const PartNumbers *numbers, int count) {
    const Model *m = &info->session.model;
    PartSources sources[PART_COUNT];
    int source_count = model_sources(m, sources);
    char memory[32], parameters[32];
    int64_t all = 0;
    for (int i = 0; i < count; i++) all += numbers[i].parameters;
    bytes_text(memory, sizeof memory, (double)memory_needed(numbers, count));
    printf("device:     %s\n", device_text(info->session.device));
    printf("parameters: %s\n", count_text(parameters, sizeof parameters, all));
    printf("memory:     %s for one question, besides the mapped files\n", memory);
    print_gpu_memory(info->session.device, memory_needed(numbers, count), "model");
    print_spread(info);
    if (language_present(&m->parts.language))
        printf("attention:  %s\n", attention_name(m->parts.attention));
    if (m->parts.tokenizer)
        printf("tokenizer:  %d ids, %s\n", tokenizer_size(m->parts.tokenizer),
               tokenizer_kind(m->parts.tokenizer));
    if (m->parts.language.shifted) printf("predicts:   each token from the row before it\n");
    if (m->chats || m->chat_unknown)
        printf("chat:       %s\n",
               m->chats ? chat_template_names[m->chat] : "a template that is not known");
    if (m->adapter.open)
        report_print(stdout, "adapter:    %s, of rank %d, %zu tensors\n", m->adapter.folder,
                     m->adapter.config.rank, m->adapter.weights.count);
    char pairs[400];
    model_pairs_text(pairs, sizeof pairs, m->settings);
    if (pairs[0]) printf("translates: %s\n", pairs);
    if (m->parts.tower) {
        printf("image:      %d tokens", multimodal_image_rows(&m->parts));
        if (language_present(&m->parts.language))
            printf(" of %d", language_longest(&m->parts.language));
        printf(", %s\n", m->parts.preprocess.pad ? "padded to a square" : "cropped to a square");
    }
    for (int i = 0; i < count; i++) print_part(&numbers[i]);
    for (int i = 0; i < m->checkpoint_count; i++) {
        const Checkpoint *c = &m->checkpoints[i];
        int unused = tensors_unused(c, sources, source_count);
        int unknown = part_unknown(c, sources, source_count, NULL, NULL);
        if (unused || unknown || info->tensors)
            report_print(stdout, "\n%s: %zu tensors\n", c->path, c->count);
        if (unused) printf("  %d are known and not needed\n", unused);
        if (unknown) printf("  %d are unknown: other commands refuse this file:\n", unknown);
        part_unknown(c, sources, source_count, print_tensor, "    ");
        if (info->tensors && (unused || unknown)) printf("  all:\n");
        for (size_t t = 0; info->tensors && t < c->count; t++) print_tensor("    ", &c->tensors[t]);
    }
}

/* ---- JSON. ---- */

static json_t *json_tensor(const CheckpointTensor *t) {
    json_t *shape = json_array();
    for (int i = 0; i < t->value.ndim; i++)
        json_array_append_new(shape, json_integer(t->value.shape[i]));
    return json_pack("{s:o, s:o, s:o}", "name", json_text(t->name), "type", json_text(t->type_text),
                     "shape", shape);
}

static void add_name(void *list, const CheckpointTensor *t) {
    json_array_append_new(list, json_text(t->name));
}

static json_t *json_part(const PartNumbers *n) {
    return json_pack(
        "{s:s, s:o, s:s, s:s, s:i, s:I, s:s, s:s, s:I, s:I, s:I}", "part", part_name(n->part->kind),
        "path", json_text(n->part->path), "kind", n->kind, "sizes", n->sizes, "tensors", n->tensors,
        "parameters", (json_int_t)n->parameters, "stored", dtype_name(n->part->stored),
        "arithmetic", dtype_name(n->part->compute), "stored_bytes", (json_int_t)n->stored,
        "weight_bytes", (json_int_t)n->prepared, "activation_bytes", (json_int_t)n->activations);
}

static json_t *json_file(const Info *info, const Checkpoint *c, const PartSources *sources,
                         int count) {
    json_t *file = json_object(), *unknown = json_array();
    json_object_set_new(file, "path", json_text(c->path));
    json_object_set_new(file, "kind", json_string(file_kind(c)));
    json_object_set_new(file, "tensors", json_integer((json_int_t)c->count));
    json_object_set_new(file, "unused",
                        json_integer(count ? tensors_unused(c, sources, count) : 0));
    if (count) part_unknown(c, sources, count, add_name, unknown);
    json_object_set_new(file, "unknown", unknown);
    if (!info->tensors) return file;
    json_t *list = json_array();
    for (size_t i = 0; i < c->count; i++) json_array_append_new(list, json_tensor(&c->tensors[i]));
    json_object_set_new(file, "list", list);
    return file;
}

static json_t *json_training(const TrainMemory *m) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "weights", (json_int_t)m->weights, "gradients",
                     (json_int_t)m->gradients, "moments", (json_int_t)m->moments, "activations",
                     (json_int_t)m->arena, "sum", (json_int_t)train_memory_sum(m));
}

static int json_model(const Info *info, const PartNumbers *numbers, int count,
                      const TrainMemory *training, Error *err) {
    const Model *m = &info->session.model;
    PartSources sources[PART_COUNT];
    int source_count = model_sources(m, sources);
    json_t *object = json_object(), *parts = json_array(), *files = json_array();
    int64_t all = 0;
    for (int i = 0; i < count; i++) {
        json_array_append_new(parts, json_part(&numbers[i]));
        all += numbers[i].parameters;
    }
    for (int i = 0; i < m->checkpoint_count; i++)
        json_array_append_new(files, json_file(info, &m->checkpoints[i], sources, source_count));
    json_object_set_new(object, "device", json_text(device_text(info->session.device)));
    json_object_set_new(object, "parameters", json_integer(all));
    json_object_set_new(object, "memory_bytes",
                        json_integer((json_int_t)memory_needed(numbers, count)));
    size_t free_bytes, total;
    if (device_memory(info->session.device, &free_bytes, &total)) {
        json_object_set_new(object, "gpu_free_bytes", json_integer((json_int_t)free_bytes));
        json_object_set_new(object, "gpu_bytes", json_integer((json_int_t)total));
    }
    if (language_present(&m->parts.language)) {
        json_object_set_new(object, "attention", json_string(attention_name(m->parts.attention)));
        json_object_set_new(object, "longest", json_integer(language_longest(&m->parts.language)));
    }
    if (m->parts.language.llama)
        json_object_set_new(object, "shifted", json_boolean(m->parts.language.shifted));
    if (m->chats)
        json_object_set_new(object, "chat_template", json_string(chat_template_names[m->chat]));
    if (m->parts.tokenizer) {
        json_object_set_new(object, "tokenizer_ids",
                            json_integer(tokenizer_size(m->parts.tokenizer)));
        json_object_set_new(object, "tokenizer", json_string(tokenizer_kind(m->parts.tokenizer)));
    }
    if (m->parts.tower) {
        json_object_set_new(object, "image_tokens", json_integer(multimodal_image_rows(&m->parts)));
        json_object_set_new(object, "pad", json_boolean(m->parts.preprocess.pad));
    }
    if (m->adapter.open)
        json_object_set_new(object, "adapter",
                            json_pack("{s:o, s:i, s:I}", "path", json_text(m->adapter.folder),
                                      "rank", m->adapter.config.rank, "tensors",
                                      (json_int_t)m->adapter.weights.count));
    json_t *spread = info->layers_over ? json_array() : NULL;
    for (int i = 0; i < info->layers_over; i++)
        json_array_append_new(spread, json_integer((json_int_t)info->spread[i]));
    if (spread) json_object_set_new(object, "spread_bytes", spread);
    if (training) json_object_set_new(object, "training_bytes", json_training(training));
    json_object_set_new(object, "parts", parts);
    json_object_set_new(object, "files", files);
    return json_print_line(object, JSON_DIGITS, err);
}

/* ---- A file of tensors by itself. ---- */

static int print_file(const Info *info, const Checkpoint *c, Error *err) {
    if (info->common.json) return json_print_line(json_file(info, c, NULL, 0), JSON_DIGITS, err);
    int64_t numbers = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < c->count; i++) {
        numbers += tensor_count(c->tensors[i].value);
        bytes += tensor_bytes(c->tensors[i].value);
    }
    char numbers_text[32], memory[32];
    report_print(stdout, "%s: %s, %zu tensors, %s numbers, %s\n", c->path, file_kind(c), c->count,
                 count_text(numbers_text, sizeof numbers_text, numbers),
                 bytes_text(memory, sizeof memory, (double)bytes));
    for (int p = PART_VISION; p <= PART_LENGTH; p++)
        if (part_present(c, (Part)p)) printf("  has a %s\n", part_name((Part)p));
    for (size_t i = 0; i < c->count; i++) print_tensor("  ", &c->tensors[i]);
    return 0;
}

static bool in_folder(const char *folder, const char *name) {
    char *path = path_join(folder, name, NULL);
    struct stat found;
    bool there = path && stat(path, &found) == 0;
    free(path);
    return there;
}

/* What the path is: a model folder, which goes to the options; a folder of one part, likewise; or
 * something else with tensors, whose description is printed (*done). */
static int take_path(Info *info, bool *done, Error *err) {
    static const char *const names[] = {"easyfirst.json", "language", "vision",
                                        "projector.safetensors"};
    ModelOptions *o = &info->common.model;
    const char *path = info->path;
    struct stat found;
    bool folder = stat(path, &found) == 0 && S_ISDIR(found.st_mode);
    for (size_t i = 0; folder && i < sizeof names / sizeof names[0]; i++)
        if (in_folder(path, names[i])) {
            o->folder = path;
            return 0;
        }
    Checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, path, NULL, err));
    o->folder = NULL;
    bool whole = folder && in_folder(path, "config.json");
    if (whole && part_present(&checkpoint, PART_LANGUAGE))
        o->language = path;
    else if (whole && part_present(&checkpoint, PART_VISION))
        o->vision = path;
    else
        *done = true;
    int status = *done ? print_file(info, &checkpoint, err) : 0;
    checkpoint_close(&checkpoint);
    return status;
}

static int check_training(const Info *info, Error *err) {
    const TrainStage stage = (TrainStage)info->train;
    if (info->lora_rank &&
        (stage == STAGE_ALIGN || stage == STAGE_LENGTH || stage == STAGE_SEGMENT))
        return error_set(err, "--lora-rank is of the language model, which %s does not train",
                         stage_name(stage));
    if (info->moments == MOMENTS_8BIT && info->optimizer == OPTIMIZER_MUON)
        return error_set(err, "--moments 8bit is of adamw: muon's are in 32 bits");
    if (info->masters == MASTERS_NONE && info->optimizer == OPTIMIZER_MUON)
        return error_set(err, "--master-weights none is of adamw: muon's are in f32");
    return 0;
}

/* Of one process of several, or of one alone. */
static int rank_memory(const Info *info, const TrainSettings *settings, TrainMemory *memory,
                       int *rows, Error *err) {
    const Model *m = &info->session.model;
    const TrainStage stage = settings->stage;
    const bool segment = stage == STAGE_SEGMENT;
    const bool images = stage == STAGE_ALIGN || stage == STAGE_TUNE || segment;
    TrainModel model;
    TRY(train_model_open(&model, settings, info->session.device, err));
    TrainSizes unit = {.images = images};
    int rows_each =
        segment && m->tower.vit ? vit_patches(&m->vit.config) : multimodal_image_rows(&m->parts);
    TrainSizes sizes = train_model_sizes(settings, &unit, rows_each);
    int status = segment ? train_model_classes(&model, NULL, 0, NULL, info->classes, err) : 0;
    if (status == 0) status = train_model_describe(&model, settings, images, err);
    if (status == 0) *memory = train_model_memory(&model, settings, &sizes);
    *rows = sizes.tokens;
    train_model_close(&model);
    return status;
}

/* What a stage of training would take with its default settings, without taking it: of several
 * processes, the one that takes most. */
static int training_memory(Info *info, TrainMemory *memory, int *rows, Error *err) {
    TrainSettings settings;
    TrainStage stage = (TrainStage)info->train;
    TRY(check_training(info, err));
    train_settings_default(&settings, stage);
    settings.model = info->common.model;
    settings.micro_batch_tokens = info->micro_batch_tokens;
    settings.recompute = info->recompute;
    settings.optimizer.kind = info->optimizer;
    settings.optimizer.moments = info->moments;
    settings.optimizer.masters = info->masters;
    settings.lora.rank = info->lora_rank;
    settings.ranks = info->ranks, settings.zero = info->zero, settings.overlap = info->overlap;
    if (info->lora_targets) settings.lora.targets = info->lora_targets;
    bool images = stage == STAGE_ALIGN || stage == STAGE_TUNE;
    if (images && !info->session.model.projector.present)
        settings.new_projector = PROJECTOR_MLP2X_GELU;
    *memory = (TrainMemory){0};
    for (; settings.rank < (info->zero ? info->ranks : 1); settings.rank++) {
        TrainMemory one;
        TRY(rank_memory(info, &settings, &one, rows, err));
        if (train_memory_sum(&one) > train_memory_sum(memory)) *memory = one;
    }
    return 0;
}

static void print_training(const Info *info, const TrainMemory *m, int rows) {
    char text[5][32];
    bytes_text(text[0], sizeof text[0], (double)train_memory_sum(m));
    bytes_text(text[1], sizeof text[1], (double)m->weights);
    bytes_text(text[2], sizeof text[2], (double)m->gradients);
    bytes_text(text[3], sizeof text[3], (double)m->moments);
    bytes_text(text[4], sizeof text[4], (double)m->arena);
    char each[64] = "";
    if (info->ranks > 1)
        snprintf(each, sizeof each, " on each of %d processes, ZeRO %d", info->ranks, info->zero);
    printf("train %s: %s of memory%s: weights %s, gradients %s, moments %s, activations of %d rows "
           "%s\n",
           stage_names[info->train], text[0], each, text[1], text[2], text[3], rows, text[4]);
    print_gpu_memory(info->session.device, train_memory_sum(m), "training");
}

static int describe(Info *info, Error *err) {
    PartNumbers numbers[PART_COUNT];
    TrainMemory training;
    int rows = 0;
    info->common.model.describe_only = info->common.model.headers_only = true;
    TRY(session_open(&info->session, &info->common, err));
    int count = model_numbers(&info->session.model, numbers);
    TRY(spread_all(info, numbers, count, err));
    if (info->train >= 0) TRY(training_memory(info, &training, &rows, err));
    if (info->common.json)
        return json_model(info, numbers, count, info->train >= 0 ? &training : NULL, err);
    print_model(info, numbers, count);
    if (info->train >= 0) print_training(info, &training, rows);
    return 0;
}

/* ---- Image formats. ---- */

static int print_formats(const Info *info, Error *err) {
    ImageFormat formats[IMAGE_FORMATS];
    json_t *list = json_array();
    image_formats(formats);
    for (int i = 0; i < IMAGE_FORMATS; i++) {
        const ImageFormat *f = &formats[i];
        if (info->common.json)
            json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "format", f->name, "readable",
                                                  f->readable, "library", json_text(f->library)));
        else
            report_print(stdout, "%-5s %-3s  %s\n", f->name, f->readable ? "yes" : "no",
                         f->library);
    }
    if (info->common.json) return json_print_line(json_pack("{s:o}", "formats", list), 0, err);
    json_decref(list);
    return 0;
}

static int run(Info *info, Error *err) {
    bool done = false;
    if (info->formats) {
        TRY(print_formats(info, err));
        return report_flush(err);
    }
    if (info->path) TRY(take_path(info, &done, err));
    if (!done) TRY(describe(info, err));
    return report_flush(err);
}

int command_info(int argc, char **argv) {
    Info info = {.train = -1, .classes = DEFAULT_CLASSES, .ranks = 1};
    OptionGroup groups[2] = {
        {.title = "options",
         .options = {{"tensors", 0, OPTION_FLAG, NULL, &info.tensors,
                      "list every tensor of a model's files"},
                     {"train", 0, OPTION_CHOICE, NULL, &info.train,
                      "the memory that this stage of training takes, too", .names = stage_names},
                     {"micro-batch-tokens", 0, OPTION_INTEGER, "N", &info.micro_batch_tokens,
                      "... with micro-batches of so many tokens", 16, 1 << 24},
                     {"activation-checkpointing", 0, OPTION_FLAG, NULL, &info.recompute,
                      "... with activation checkpointing"},
                     {"optimizer", 0, OPTION_CHOICE, NULL, &info.optimizer,
                      "... with this optimizer (default adamw)", .names = optimizer_names},
                     {"moments", 0, OPTION_CHOICE, NULL, &info.moments,
                      "... with AdamW's moments in 8 bits (default 32bit)", .names = moment_names},
                     {"master-weights", 0, OPTION_CHOICE, NULL, &info.masters,
                      "... in bf16 without master weights (default f32: with them)",
                      .names = master_names},
                     {"lora-rank", 0, OPTION_INTEGER, "R", &info.lora_rank,
                      "... with LoRA of this rank (default 0: all weights)", 0, 4096},
                     {"lora-targets", 0, OPTION_CHOICES, "LIST", &info.lora_targets,
                      "... on these matrices (default query,value)", .names = lora_target_names},
                     {"ranks", 0, OPTION_INTEGER, "N", &info.ranks,
                      "... on each of N processes (mpirun -n N; default 1)", 1, RANKS_MOST},
                     {"zero", 0, OPTION_INTEGER, "N", &info.zero,
                      "... that divide: 1 the optimizer's state and bf16's masters,\n"
                      "2 gradients, too, 3 the weights of blocks, too (default 0: nothing)",
                      0, 3},
                     {"overlap", 0, OPTION_CHOICE, NULL, &info.overlap,
                      "... and exchange blocks while others are computed (default auto: with\n"
                      "--zero 3 on GPUs)",
                      .names = train_overlap_names},
                     {"layers-over", 0, OPTION_INTEGER, "N", &info.layers_over,
                      "the memory of each of N processes over which mpirun spreads the\n"
                      "language model's layers (text, ask, eval)",
                      2, RANKS_MOST},
                     {"classes", 0, OPTION_INTEGER, "N", &info.classes,
                      "... segment: with the background so many classes (default 1000)", 2,
                      SCENE_CLASSES_MOST},
                     {"formats", 0, OPTION_FLAG, NULL, &info.formats,
                      "instead list the image formats that can be read, and by which library"},
                     {"json", 0, OPTION_FLAG, NULL, &info.common.json,
                      "one JSON object instead of plain text"}}}};
    common_init(&info.common);
    model_group(&info.common.model, &info.common.device, &info.common.threads, &groups[1]);
    int first, status = options_read(&help, groups, 2, argc, argv, &first);
    if (status < 0 && argc - first > 1)
        status = options_wrong(&help, "one folder or file at a time; \"%s\" is one too many",
                               argv[first + 1]);
    const bool idle =
        info.train < 0 && (info.moments || info.masters || info.lora_rank || info.lora_targets);
    if (status < 0 && idle)
        status = options_wrong(&help,
                               "--moments, --master-weights, --lora-rank and --lora-targets are of "
                               "--train");
    if (status < 0 && info.train < 0 && (info.ranks > 1 || info.zero))
        status = options_wrong(&help, "--ranks and --zero are of --train");
    if (status < 0 && info.zero && info.ranks == 1)
        status = options_wrong(&help, "--zero %d divides among several processes: give --ranks",
                               info.zero);
    if (status < 0 && info.overlap && info.zero < 2)
        status = options_wrong(&help, "--overlap is of --zero 2 and 3");
    if (status < 0 && info.layers_over && info.train >= 0)
        status = options_wrong(&help, "--layers-over is not of --train: give --ranks and --zero");
    if (status < 0 && info.formats && argc > first)
        status =
            options_wrong(&help, "--formats describes no model, but \"%s\" is given", argv[first]);
    if (status < 0 && info.formats &&
        (info.tensors || info.train >= 0 || info.layers_over || info.common.model.folder ||
         info.common.model.vision || info.common.model.language || info.common.model.projector ||
         info.common.model.length))
        status = options_wrong(&help, "--formats describes no model; only --json goes with it");
    if (status < 0 && argc - first == 1) {
        info.path = argv[first];
        if (!info.path[0]) status = options_wrong(&help, "the name of the folder or file is empty");
        if (status < 0 && info.common.model.folder)
            status = options_wrong(&help, "two models are named: %s and %s", info.path,
                                   info.common.model.folder);
    } else if (status < 0) {
        status = common_check(&help, &info.common);
    }
    if (status < 0) {
        Error err;
        status = run(&info, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    session_close(&info.session);
    return status;
}
