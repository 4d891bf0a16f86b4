#include "projector/train_model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "language/llama_train.h"
#include "projector/model_chat.h"
#include "projector/model_fresh.h"
#include "projector/model_paths.h"
#include "data/files/path.h"

enum {
    DEFAULT_LENGTH_CLASSES = 514, /* as the released length predictors have */
    DEFAULT_PASS_TOKENS = 2048,
    IMAGES_IN_PASS = 8,
};

/* ---- Opening. ---- */

static FreshWeights fresh_weights(const TrainSettings *s) {
    return (FreshWeights){.dtype = DTYPE_F32, .seed = s->seed};
}

static int fresh_projector(TrainModel *t, const TrainSettings *s, Error *err) {
    Model *m = &t->model;
    if (!m->vision.present || !m->language.present)
        return error_set_code(err, ERROR_MISSING_PART,
                              "a fresh projector needs a vision tower and a language model to go "
                              "between");
    t->fresh_projector = true;
    TRY(model_fresh_projector(m, s->new_projector, fresh_weights(s), err));
    return m->image_lead ? 0 : model_chat_image_lead(m, err);
}

static void duties(TrainModel *t, const TrainSettings *s) {
    Model *m = &t->model;
    bool lengths = s->stage == STAGE_LENGTH, align = s->stage == STAGE_ALIGN;
    bool see = m->vision.present && m->projector.present;
    bool segment = s->stage == STAGE_SEGMENT;
    t->vision = !see ? DUTY_NONE : s->train_vision ? DUTY_TRAIN : DUTY_RUN;
    t->projector = !see                              ? DUTY_NONE
                   : align || s->stage == STAGE_TUNE ? DUTY_TRAIN
                   : s->train_vision                 ? DUTY_PASS
                                                     : DUTY_RUN;
    t->language = lengths                                      ? DUTY_RUN
                  : align || s->freeze_language || t->has_lora ? DUTY_PASS
                                                               : DUTY_TRAIN;
    t->length = lengths ? DUTY_TRAIN : DUTY_NONE;
    if (segment) t->vision = DUTY_TRAIN, t->projector = t->language = DUTY_NONE;
    params_freeze(&t->model.vision.params, t->vision != DUTY_TRAIN);
    params_freeze(&t->model.projector.params, t->projector != DUTY_TRAIN);
    params_freeze(&t->model.language.params, t->language != DUTY_TRAIN);
    params_freeze(&t->model.length.params, t->length != DUTY_TRAIN);
}

static int check_stage(const TrainModel *t, const TrainSettings *s, Error *err) {
    const Model *m = &t->model;
    const char *stage = stage_name(s->stage);
    bool segment = s->stage == STAGE_SEGMENT;
    if (!segment && (!m->language.present || !m->tokenizer))
        return error_set_code(err, ERROR_MISSING_PART,
                              "train %s needs a language model with its tokenizer", stage);
    if (s->stage == STAGE_LENGTH && m->parts.language.llama)
        return error_set(err,
                         "%s: train length is for models of XLM-R's kind; one of LLaMA's has no "
                         "length predictor: its answers end with a token",
                         m->language.path);
    if (s->stage != STAGE_ALIGN && s->stage != STAGE_TUNE && !segment) return 0;
    if (!m->vision.present)
        return error_set_code(err, ERROR_MISSING_PART,
                              "train %s needs a vision tower (openai/clip-vit-large-patch14, say)",
                              stage);
    if (m->tower.net && (segment || s->train_vision))
        return error_set(
            err, "%s: a convolutional tower is used as it is, it cannot be trained: %s",
            m->vision.path, segment ? "train segment needs CLIP's kind" : "it has to stay frozen");
    if (!m->projector.present && !segment)
        return error_set_code(err, ERROR_MISSING_PART,
                              "train %s needs a projector, a fresh one or a trained one", stage);
    return 0;
}

/* What masked diffusion is trained with: an autoregressive model's attention becomes full. */
static int diffusion_attention(TrainModel *t, const TrainSettings *s, Error *err) {
    Multimodal *m = &t->model.parts;
    if (s->attention == ATTENTION_CAUSAL)
        return error_set(err, "causal attention is for the autoregressive objective: masked "
                              "diffusion needs full or block-causal attention");
    if (s->attention != ATTENTION_UNSET) m->attention = (AttentionPattern)s->attention;
    if (m->attention == ATTENTION_CAUSAL) m->attention = ATTENTION_FULL;
    return 0;
}

static int causal_attention(TrainModel *t, const TrainSettings *s, Error *err) {
    Multimodal *m = &t->model.parts;
    if (!m->language.llama || !m->language.shifted)
        return error_set(err,
                         "%s: the autoregressive objective needs a model that can be causal, of "
                         "LLaMA's kind with predictions shifted by one, and this one is %s",
                         t->model.language.path,
                         m->language.llama ? "not shifted" : "of XLM-R's kind");
    if (s->attention != ATTENTION_UNSET && s->attention != ATTENTION_CAUSAL)
        return error_set(err, "%s attention: the autoregressive objective has causal attention",
                         attention_name((AttentionPattern)s->attention));
    m->attention = ATTENTION_CAUSAL;
    return 0;
}

static int settle_attention(TrainModel *t, const TrainSettings *s, Error *err) {
    if (s->stage == STAGE_SEGMENT || s->stage == STAGE_LENGTH) {
        if (s->attention != ATTENTION_UNSET)
            t->model.parts.attention = (AttentionPattern)s->attention;
        return 0;
    }
    if (s->noise.objective == OBJECTIVE_AR) return causal_attention(t, s, err);
    return diffusion_attention(t, s, err);
}

bool train_model_needs_mask(const TrainSettings *s, Device *device) {
    Model m;
    ModelOptions options = s->model;
    options.describe_only = options.text_only = true;
    if (s->noise.objective == OBJECTIVE_AR || s->stage == STAGE_SEGMENT ||
        s->stage == STAGE_LENGTH || model_open(&m, &options, device, NULL))
        return false;
    const bool needs = m.parts.language.llama && m.tokenizer && tokenizer_mask_id(m.tokenizer) < 0;
    model_close(&m);
    return needs;
}

static int settle_setting(Model *m, const char *name, int value, int *field, Error *err) {
    if (!m->settings) m->settings = json_object();
    if (json_object_set_new(m->settings, name, json_integer(value)))
        return error_set(err, "out of memory");
    *field = value;
    return 0;
}

/* A folder that was trained with padded answers says how long they are, which without a length
 * predictor is the length of all; one trained without them does not. */
static int settle_padding(Model *m, const TrainSettings *s, Error *err) {
    if (s->pad_answers < 0) return 0;
    if (!s->pad_answers) {
        if (m->settings) json_object_del(m->settings, "pad_answers");
        m->parts.pad_answers = 0;
        return 0;
    }
    if (m->parts.language.end >= 0)
        TRY(settle_setting(m, "pad_answers", s->pad_answers, &m->parts.pad_answers, err));
    if (m->length.present || m->parts.answer_length) return 0;
    return settle_setting(m, "answer_length", s->pad_answers, &m->parts.answer_length, err);
}

static int declare_lora(TrainModel *t, const TrainSettings *s, Error *err) {
    Model *m = &t->model;
    if (m->parts.language.llama) {
        m->llama.config.block.lora = s->lora;
        TRY(llama_declare_lora(&m->llama, &t->lora, err));
    } else {
        m->xlmr.config.block.lora = s->lora;
        TRY(xlmr_declare_lora(&m->xlmr, &t->lora, err));
    }
    TRY(params_allocate(&t->lora, DTYPE_F32, err));
    params_initialise(&t->lora, s->seed);
    t->has_lora = true;
    return 0;
}

int train_model_open(TrainModel *t, const TrainSettings *s, Device *device, Error *err) {
    *t = (TrainModel){0};
    ModelOptions options = s->model;
    options.describe_only = true;
    TRY(model_open(&t->model, &options, device, err));
    Model *m = &t->model;
    int status = 0;
    params_init(&t->lora, device);
    params_init(&t->head_params, device);
    if (s->new_projector != PROJECTOR_NONE) status = fresh_projector(t, s, err);
    if (status == 0) status = check_stage(t, s, err);
    if (status == 0 && s->stage == STAGE_LENGTH && !m->length.present)
        status = model_fresh_length(m, DEFAULT_LENGTH_CLASSES, fresh_weights(s), err);
    if (status == 0) status = settle_attention(t, s, err);
    if (status == 0) status = settle_padding(m, s, err);
    if (status == 0 && s->lora.rank > 0) status = declare_lora(t, s, err);
    duties(t, s);
    t->context = (TrainContext){.model = m->parts};
    if (status) train_model_close(t);
    return status;
}

static int same_classes(const TrainModel *t, const char *path, bool *same, Error *err) {
    json_t *json = NULL;
    TRY(config_read(&json, path, err));
    *same = json_equal(json_object_get(json, "classes"), t->classes);
    json_decref(json);
    return 0;
}

static int head_set(TrainModel *t, Error *err) {
    const char *path = t->head_file.path;
    for (int i = 0; i < t->head_params.count; i++) {
        Param *p = &t->head_params.items[i];
        const CheckpointTensor *c = checkpoint_find(&t->head_file, p->name);
        if (!c) return error_set(err, "%s: there is no %s in it", path, p->name);
        if (params_set(p, c->value, err)) return error_context(err, "%s", path);
    }
    return 0;
}

/* Whether `folder` has a layer for the same classes: then its values are taken. */
static int head_load(TrainModel *t, const char *folder, bool *found, Error *err) {
    *found = false;
    char *names = path_join(folder, MODEL_SEGMENT ".json", err);
    char *weights = path_join(folder, MODEL_SEGMENT ".safetensors", err);
    int status = names && weights ? 0 : -1;
    if (status == 0 && access(names, F_OK) == 0) status = same_classes(t, names, found, err);
    if (status == 0 && *found) status = checkpoint_open(&t->head_file, weights, NULL, err);
    if (status == 0 && *found) status = head_set(t, err);
    free(names), free(weights);
    return status;
}

int train_model_classes(TrainModel *t, const char *from, uint64_t seed, const char *const *names,
                        int count, Error *err) {
    bool found = false;
    t->classes = json_array();
    int failed = t->classes ? 0 : -1;
    for (int i = 0; names && i < count; i++)
        failed |= json_array_append_new(t->classes, json_string(names[i]));
    if (failed) return error_set(err, "out of memory for the names of %d classes", count);
    TRY(segment_declare(&t->head, t->model.vit.config.block.width, count, &t->head_params, err));
    if (names && from) TRY(head_load(t, from, &found, err));
    if (found) return 0;
    TRY(params_allocate(&t->head_params, DTYPE_F32, err));
    params_initialise(&t->head_params, seed);
    return 0;
}

void train_model_close(TrainModel *t) {
    optimizer_close(&t->optimizer);
    params_free(&t->lora);
    params_free(&t->head_params);
    checkpoint_close(&t->head_file);
    json_decref(t->classes);
    model_close(&t->model);
    *t = (TrainModel){0};
}

/* ---- Weights in their forms. ---- */

/* Pages of the file that a copied weight came from are not needed any more. */
static void release_pages(const ModelPart *part, bool in_place) {
    if (in_place || !part->checkpoint) return;
    for (int i = 0; part->sources.tensors && i < part->params.count; i++) {
        const CheckpointTensor *source = part->sources.tensors[i];
        if (source && !part->params.items[i].idle)
            checkpoint_release_pages(part->checkpoint, source->value.data,
                                     tensor_bytes(source->value));
    }
}

static int prepare_part(TrainModel *t, ModelPart *part, PartDuty duty, float rate, Error *err) {
    if (duty == DUTY_NONE) return 0;
    if (duty == DUTY_RUN) {
        if (part->checkpoint) return part_prepare(&part->sources, part->compute, err);
        return params_prepare(&part->params, part->compute, NULL, NULL, err);
    }
    if (params_train(&part->params, part->compute, err))
        return error_context(err, "%s", part->path);
    release_pages(part, duty == DUTY_PASS);
    return optimizer_add(&t->optimizer, &part->params, rate, err);
}

/* Duties and types, once it is known whether there are images. */
static int settle(TrainModel *t, const TrainSettings *s, bool images, const Dtype *compute,
                  Error *err) {
    Model *m = &t->model;
    if (!images) t->vision = t->projector = DUTY_NONE;
    if (s->stage == STAGE_SEGMENT && !t->classes)
        return error_set(err, "train segment: no classes are given");
    if (s->stage == STAGE_ALIGN && !images)
        return error_set(err, "train align: no record of the data has an image, and only what "
                              "turns images into tokens is trained");
    ModelPart *parts[4] = {&m->vision, &m->projector, &m->language, &m->length};
    for (int i = 0; compute && i < 4; i++)
        if (compute[i] != DTYPE_NONE) parts[i]->compute = compute[i];
    m->projector.compute = m->vision.present ? m->vision.compute : m->projector.compute;
    m->length.compute = m->language.compute;
    return 0;
}

/* Whether anything is trained in bf16. */
static bool trains_bf16(const TrainModel *t, const TrainSettings *s) {
    const Model *m = &t->model;
    const ModelPart *parts[4] = {&m->vision, &m->projector, &m->language, &m->length};
    const PartDuty duty[4] = {t->vision, t->projector, t->language, t->length};
    if (t->has_lora && m->language.compute == DTYPE_BF16) return true;
    if (s->stage == STAGE_SEGMENT && m->vision.compute == DTYPE_BF16) return true;
    for (int i = 0; i < 4; i++)
        if (duty[i] == DUTY_TRAIN && parts[i]->compute == DTYPE_BF16) return true;
    return false;
}

/* What the tables have: without masters or with them, and which part of it is this process's. */
static int set_tables(TrainModel *t, const TrainSettings *s, Error *err) {
    Model *m = &t->model;
    Params *tables[] = {
        &m->vision.params, &m->projector.params, &m->language.params, &m->length.params,
        &t->lora,          &t->head_params};
    const bool masterless = s->optimizer.masters == MASTERS_NONE;
    const bool gpu = device_kind(m->device) != DEVICE_CPU;
    if (masterless && !trains_bf16(t, s))
        return error_set(err, "training in f32 without master weights: they are the weights; "
                              "expected compute type bf16");
    for (int i = 0; i < 6; i++) tables[i]->masterless = masterless;
    if (s->ranks <= 1) return 0;
    for (int i = 0; i < 6; i++)
        tables[i]->share = (ParamsShare){
            .rank = s->rank,
            .ranks = s->ranks,
            .level = s->zero,
            .whole = s->optimizer.kind == OPTIMIZER_MUON,
            .overlap = s->overlap == OVERLAP_AUTO ? gpu && s->zero == 3 : s->overlap == OVERLAP_ON,
            .unit = s->optimizer.moments == MOMENTS_8BIT ? MOMENT_BLOCK : 0};
    const bool llama = m->parts.language.llama != NULL;
    ParamsShare *vision = &tables[0]->share, *language = &tables[2]->share;
    vision->block_bytes = language->block_bytes = sizeof(Block);
    vision->blocks = m->vit.blocks;
    vision->block_count = m->vit.blocks ? m->vit.depth : 0;
    language->blocks = llama ? m->llama.blocks : m->xlmr.blocks;
    language->block_count = llama              ? m->llama.config.layers
                            : language->blocks ? m->xlmr.config.layers
                                               : 0;
    language->tables[0] = llama ? &m->llama.words : &m->xlmr.words;
    language->tables[1] = llama ? &m->llama.vocab_w : &m->xlmr.vocab_w;
    return 0;
}

int train_model_prepare(TrainModel *t, const TrainSettings *s, bool images, const Dtype *compute,
                        Error *err) {
    Model *m = &t->model;
    TRY(settle(t, s, images, compute, err));
    if (t->fresh_projector) TRY(model_fresh_projector_scale(m, s->seed, err));
    OptimizerConfig config = s->optimizer;
    config.seed = s->seed;
    TRY(optimizer_open(&t->optimizer, m->device, &config, err));
    t->optimizer.share = s->share;
    TRY(set_tables(t, s, err));
    ModelPart *parts[4] = {&m->vision, &m->projector, &m->language, &m->length};
    const PartDuty duty[4] = {t->vision, t->projector, t->language, t->length};
    const float own[4] = {s->vision_lr, s->projector_lr, s->language_lr, 0};
    for (int i = 0; i < 4; i++)
        TRY(prepare_part(t, parts[i], duty[i], own[i] > 0 ? own[i] / s->lr : 1, err));
    adapter_release(&m->adapter, false);
    if (s->stage == STAGE_SEGMENT) {
        TRY(params_train(&t->head_params, m->vision.compute, err));
        return optimizer_add(&t->optimizer, &t->head_params, 1, err);
    }
    if (!t->has_lora) return 0;
    TRY(params_train(&t->lora, m->language.compute, err));
    return optimizer_add(&t->optimizer, &t->lora, s->language_lr > 0 ? s->language_lr / s->lr : 1,
                         err);
}

int train_model_describe(TrainModel *t, const TrainSettings *s, bool images, Error *err) {
    Model *m = &t->model;
    TRY(settle(t, s, images, NULL, err));
    TRY(set_tables(t, s, err));
    ModelPart *parts[4] = {&m->vision, &m->projector, &m->language, &m->length};
    const PartDuty duty[4] = {t->vision, t->projector, t->language, t->length};
    for (int i = 0; i < 4; i++) {
        Params *params = &parts[i]->params;
        if (duty[i] == DUTY_NONE) continue;
        if (duty[i] == DUTY_RUN)
            params->compute = parts[i]->compute; /* of the rest nothing is asked */
        else if (params_train_describe(params, parts[i]->compute, err))
            return error_context(err, "%s", parts[i]->path);
    }
    if (s->stage == STAGE_SEGMENT)
        return params_train_describe(&t->head_params, m->vision.compute, err);
    return t->has_lora ? params_train_describe(&t->lora, m->language.compute, err) : 0;
}

/* ---- What it takes. ---- */

/* Whole images, each with its class token's row. */
static TrainSizes segment_sizes(const TrainSettings *s, int image_rows) {
    int rows = s->micro_batch_tokens > 0 ? s->micro_batch_tokens : DEFAULT_PASS_TOKENS;
    int images = rows / (image_rows + 1);
    if (s->batch_sequences > 0 && images > s->batch_sequences) images = s->batch_sequences;
    if (images < 1) images = 1;
    return (TrainSizes){
        .tokens = images * (image_rows + 1), .targets = images * image_rows, .images = images};
}

TrainSizes train_model_sizes(const TrainSettings *s, const TrainSizes *unit, int image_rows) {
    if (s->stage == STAGE_SEGMENT) return segment_sizes(s, image_rows);
    TrainSizes sizes = {.tokens = s->micro_batch_tokens > 0 ? s->micro_batch_tokens
                                                            : DEFAULT_PASS_TOKENS};
    if (sizes.tokens < unit->tokens) sizes.tokens = unit->tokens;
    sizes.targets = s->stage == STAGE_LENGTH ? 0 : sizes.tokens;
    if (unit->images > 0) {
        sizes.images = sizes.tokens / (image_rows + 1) + 1;
        if (sizes.images > IMAGES_IN_PASS) sizes.images = IMAGES_IN_PASS;
    }
    sizes.prompts = s->stage == STAGE_LENGTH ? sizes.tokens : 0;
    return sizes;
}

static void add_memory(TrainMemory *sum, const ModelPart *part, PartDuty duty,
                       const OptimizerConfig *optimizer) {
    const Params *p = &part->params;
    if (duty == DUTY_NONE) return;
    if (duty == DUTY_RUN) {
        sum->weights += params_prepared_bytes(p, part->compute);
        return;
    }
    size_t gradients = 0;
    if (duty == DUTY_TRAIN) gradients = (size_t)params_trainable_count(p) * sizeof(float);
    if (params_divided(p))
        gradients = (size_t)p->grad_values * sizeof(float) + (size_t)p->own_values * sizeof(float);
    sum->weights += params_training_bytes(p, part->compute) - gradients;
    /* What is frozen and used where it lies in the file; a GPU has copies, counted already. */
    if (duty == DUTY_PASS && device_kind(p->device) == DEVICE_CPU)
        sum->weights += params_stored_bytes(p);
    sum->gradients += gradients;
    if (duty == DUTY_TRAIN) sum->moments += optimizer_moment_bytes(optimizer, p);
}

/* The optimiser has one workspace for the tables of all parts that learn. */
static size_t work_bytes(const TrainModel *t, const TrainSettings *s) {
    const Model *m = &t->model;
    const ModelPart *parts[4] = {&m->vision, &m->projector, &m->language, &m->length};
    const PartDuty duty[4] = {t->vision, t->projector, t->language, t->length};
    size_t most = t->has_lora ? optimizer_work_bytes(&s->optimizer, &t->lora) : 0;
    for (int i = 0; i < 4; i++) {
        if (duty[i] != DUTY_TRAIN) continue;
        size_t bytes = optimizer_work_bytes(&s->optimizer, &parts[i]->params);
        if (bytes > most) most = bytes;
    }
    return most;
}

size_t train_model_arena(const TrainModel *t, const TrainSettings *s, const TrainSizes *sizes) {
    if (s->stage == STAGE_SEGMENT)
        return segment_bytes(&t->model.vit, &t->head, sizes->images, s->recompute);
    TrainRun run = {.dropout = s->dropout, .recompute = s->recompute, .backward = true};
    return train_bytes(&t->context, sizes, &run);
}

TrainMemory train_model_memory(const TrainModel *t, const TrainSettings *s,
                               const TrainSizes *sizes) {
    const Model *m = &t->model;
    TrainMemory sum = {0};
    add_memory(&sum, &m->vision, t->vision, &s->optimizer);
    add_memory(&sum, &m->projector, t->projector, &s->optimizer);
    add_memory(&sum, &m->language, t->language, &s->optimizer);
    add_memory(&sum, &m->length, t->length, &s->optimizer);
    if (t->has_lora) {
        ModelPart lora = {.params = t->lora, .compute = m->language.compute};
        add_memory(&sum, &lora, DUTY_TRAIN, &s->optimizer);
    }
    sum.moments += work_bytes(t, s);
    if (t->classes) {
        ModelPart head = {.params = t->head_params, .compute = m->vision.compute};
        add_memory(&sum, &head, DUTY_TRAIN, &s->optimizer);
    }
    sum.arena = train_model_arena(t, s, sizes);
    return sum;
}

/* Forward, gradients of activations, gradients of weights: each is one matmul of that size. */
static int matmuls(PartDuty duty) {
    return duty == DUTY_TRAIN ? 3 : duty == DUTY_PASS ? 2 : duty == DUTY_RUN ? 1 : 0;
}

static double block_weights(const BlockConfig *c) {
    double d = c->width, f = c->ffn, keys = block_key_width(c);
    double queries = (double)block_head_width(c) * c->heads;
    return 2 * d * queries + 2 * d * keys + (c->gated ? 3 : 2) * d * f;
}

double train_model_operations(const TrainModel *t, int64_t rows, int64_t targets, int64_t images) {
    const Model *m = &t->model;
    const LanguageModel *l = &m->parts.language;
    const bool language = language_present(l);
    double d = language ? language_block(l)->width : 0, sum = 0;
    double dense = l->llama ? 0 : d * d, vocab = language ? language_vocab(l) : 0;
    if (language)
        sum += 2.0 * (double)rows * block_weights(language_block(l)) * language_layers(l) *
               matmuls(t->language);
    if (t->length == DUTY_TRAIN)
        sum += 2.0 * (double)rows * block_weights(&m->length_model.config) * 3;
    else
        sum += 2.0 * (double)targets * (dense + d * vocab) * matmuls(t->language);
    if (t->vision == DUTY_NONE || !images) return sum;
    double patches = (double)images * tower_grid(&m->tower) * tower_grid(&m->tower);
    double seen = tower_width(&m->tower);
    sum += tower_operations(&m->tower, images) * matmuls(t->vision);
    if (t->classes) sum += 2.0 * (double)targets * seen * t->head.classes * 3;
    double projector = seen * d + (m->projector_model.kind == PROJECTOR_LINEAR ? 0 : d * d);
    return sum + 2.0 * patches * projector * matmuls(t->projector);
}
