#include "language/xlmr.h"

#include "language/llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const BlockNames post_names = {.query = "attention.self.query",
                                      .key = "attention.self.key",
                                      .value = "attention.self.value",
                                      .out = "attention.output.dense",
                                      .norm1 = "attention.output.LayerNorm",
                                      .fc1 = "intermediate.dense",
                                      .fc2 = "output.dense",
                                      .norm2 = "output.LayerNorm"};

static const BlockNames pre_names = {.query = "attention.self.query",
                                     .key = "attention.self.key",
                                     .value = "attention.self.value",
                                     .out = "attention.output.dense",
                                     .norm1 = "attention.self_attn_layer_norm",
                                     .fc1 = "intermediate.dense",
                                     .fc2 = "output.dense",
                                     .norm2 = "LayerNorm"};

/* A block of ModernBERT; the first has no norm1. */
static const BlockNames modern_names[2] = {
    {.qkv = "attn.Wqkv", .out = "attn.Wo", .fc1 = "mlp.Wi", .fc2 = "mlp.Wo", .norm2 = "mlp_norm"},
    {.qkv = "attn.Wqkv",
     .out = "attn.Wo",
     .norm1 = "attn_norm",
     .fc1 = "mlp.Wi",
     .fc2 = "mlp.Wo",
     .norm2 = "mlp_norm"}};

/* What is outside of the blocks; NULL: a kind lacks it. */
typedef struct EncoderNames {
    const char *words, *positions, *types, *first_norm, *layer, *last_norm;
    const char *dense, *head_norm, *head, *head_bias;
} EncoderNames;

static const EncoderNames names_of[] = {
    [ENCODER_XLMR] = {"roberta.embeddings.word_embeddings",
                      "roberta.embeddings.position_embeddings",
                      "roberta.embeddings.token_type_embeddings", "roberta.embeddings.LayerNorm",
                      "roberta.encoder.layer", "roberta.encoder.LayerNorm", "lm_head.dense",
                      "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"},
    [ENCODER_BERT] = {"bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings",
                      "bert.embeddings.token_type_embeddings", "bert.embeddings.LayerNorm",
                      "bert.encoder.layer", NULL, "cls.predictions.transform.dense",
                      "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
                      "cls.predictions.bias"},
    [ENCODER_MODERNBERT] = {"model.embeddings.tok_embeddings", NULL, NULL, "model.embeddings.norm",
                            "model.layers", "model.final_norm", "head.dense", "head.norm",
                            "decoder", "decoder.bias"},
};

const char *xlmr_words_name(EncoderKind kind) {
    return names_of[kind].words;
}

const char *xlmr_head_name(EncoderKind kind) {
    return names_of[kind].head;
}

const char *xlmr_bias_name(EncoderKind kind) {
    return names_of[kind].head_bias;
}

static int declare_table(Params *params, Tensor *slot, int64_t rows, int64_t columns,
                         const char *name, Error *err) {
    ParamSpec spec = {.slot = slot,
                      .role = PARAM_TABLE,
                      .init = INIT_NORMAL,
                      .init_std = params_init_std(columns),
                      .ndim = 2,
                      .shape = {rows, columns}};
    return params_declare(params, &spec, err, "%s.weight", name);
}

/* The vocabulary's matrix, as an embedding (`table`, may be NULL) and for matmuls. */
static int declare_vocabulary(Xlmr *m, Params *params, Tensor *table, const char *name,
                              Error *err) {
    ParamSpec spec = {.slot = &m->vocab_w,
                      .table_slot = table,
                      .role = PARAM_VOCABULARY,
                      .init = INIT_NORMAL,
                      .init_std = params_init_std(m->config.block.width),
                      .ndim = 2,
                      .shape = {m->config.vocab, m->config.block.width}};
    return params_declare(params, &spec, err, "%s.weight", name);
}

static int declare_norm(Xlmr *m, Params *params, Tensor *w, Tensor *b, const char *name,
                        Error *err) {
    const bool biased = !(m->config.block.unbiased & BLOCK_NORMS);
    return params_declare_norm(params, w, biased ? b : NULL, m->config.block.width, false, err,
                               "%s.", name);
}

static int declare_embeddings(Xlmr *m, const EncoderNames *names, Params *params, Error *err) {
    const XlmrConfig *c = &m->config;
    int64_t d = c->block.width;
    if (c->untied)
        TRY(declare_table(params, &m->words, c->vocab, d, names->words, err));
    else
        TRY(declare_vocabulary(m, params, &m->words, names->words, err));
    if (c->kind == ENCODER_MODERNBERT)
        return declare_norm(m, params, &m->first_w, &m->first_b, names->first_norm, err);
    TRY(declare_table(params, &m->positions, c->positions, d, names->positions, err));
    TRY(declare_table(params, &m->types, c->types ? c->types : 1, d, names->types, err));
    if (c->block.pre_norm) return 0;
    return declare_norm(m, params, &m->norm_w, &m->norm_b, names->first_norm, err);
}

static int declare_head(Xlmr *m, const EncoderNames *names, Params *params, Error *err) {
    const XlmrConfig *c = &m->config;
    int64_t d = c->block.width;
    int first = params->count;
    TRY(params_declare_linear(params, &m->head_w, c->unbiased & HEAD_DENSE ? NULL : &m->head_b, d,
                              d, false, err, "%s.", names->dense));
    params_mark_hidden(params, first);
    TRY(declare_norm(m, params, &m->head_norm_w, &m->head_norm_b, names->head_norm, err));
    if (c->untied) TRY(declare_vocabulary(m, params, NULL, names->head, err));
    if (c->unbiased & HEAD_VOCABULARY) return 0;
    ParamSpec bias = {.slot = &m->vocab_b, .role = PARAM_VECTOR, .ndim = 1, .shape = {c->vocab}};
    return params_declare(params, &bias, err, "%s", names->head_bias);
}

const BlockNames *xlmr_block_names(const XlmrConfig *config, int layer,
                                   char prefix[XLMR_PREFIX_SIZE]) {
    snprintf(prefix, XLMR_PREFIX_SIZE, "%s.%d", names_of[config->kind].layer, layer);
    if (config->kind == ENCODER_MODERNBERT) return &modern_names[layer > 0];
    return config->block.pre_norm ? &pre_names : &post_names;
}

/* ---- ModernBERT's angles. ---- */

size_t xlmr_turns_bytes(const XlmrConfig *c) {
    if (c->kind != ENCODER_MODERNBERT) return 0;
    return 2 * (size_t)c->positions * (size_t)block_head_width(&c->block) * sizeof(float);
}

static int make_turns(Xlmr *m, Error *err) {
    const XlmrConfig *c = &m->config;
    Device *device = m->params->device;
    const int width = block_head_width(&c->block);
    const size_t bytes = xlmr_turns_bytes(c) / 2;
    float *host = malloc(bytes);
    int status = host ? 0 : error_set(err, "out of memory for %d positions", c->positions);
    for (int i = 0; i < 2 && status == 0; i++) {
        const LlamaConfig angles = {
            .positions = c->positions, .block = c->block, .theta = i ? c->local_theta : c->theta};
        void *memory = NULL;
        llama_turns(&angles, host, c->positions);
        status = device_alloc(device, &memory, bytes, err);
        if (status) break;
        m->turns[i] = tensor_2d(memory, DTYPE_F32, c->positions, width);
        status = device_upload(device, memory, host, bytes, err);
    }
    free(host);
    return status;
}

Rotary xlmr_rotary(const Xlmr *m, const XlmrRows *rows, int local) {
    return (Rotary){m->turns[local], rows->positions};
}

static int check_config(const XlmrConfig *c, Error *err) {
    if (c->vocab < 6 || c->layers < 1 || xlmr_longest(c) < 1)
        return error_set(
            err, "language model: %d tokens, %d layers, %d positions; expected at least 6, 1, %d",
            c->vocab, c->layers, c->positions, 1 + xlmr_first_position(c));
    TRY(block_check(&c->block, "language model", err));
    const bool modern = c->kind == ENCODER_MODERNBERT;
    if (modern != c->block.rotary || (modern && !c->block.pre_norm) ||
        (c->kind == ENCODER_BERT && c->block.pre_norm))
        return error_set(err, "language model: its blocks are not those of its kind");
    if (!modern) return 0;
    if (c->theta > 0 && c->local_theta > 0 && isfinite(c->theta) && isfinite(c->local_theta))
        return 0;
    return error_set(err,
                     "language model: bases of %g and %g for its angles, expected positive numbers",
                     (double)c->theta, (double)c->local_theta);
}

int xlmr_declare(Xlmr *m, const XlmrConfig *config, Params *params, Error *err) {
    *m = (Xlmr){0};
    TRY(check_config(config, err));
    *m = (Xlmr){.config = *config, .params = params};
    const EncoderNames *names = &names_of[config->kind];
    m->blocks = calloc((size_t)config->layers, sizeof *m->blocks);
    if (!m->blocks) return error_set(err, "out of memory for %d layers", config->layers);
    if (config->block.rotary) TRY(make_turns(m, err));
    TRY(declare_embeddings(m, names, params, err));
    for (int i = 0; i < config->layers; i++) {
        char prefix[XLMR_PREFIX_SIZE];
        const BlockNames *block_names = xlmr_block_names(config, i, prefix);
        TRY(block_declare(&m->blocks[i], &config->block, block_names, params, false, prefix, err));
        if (config->block.pre_norm) block_scale_init(&m->blocks[i], params, config->layers);
    }
    if (config->block.pre_norm)
        TRY(declare_norm(m, params, &m->norm_w, &m->norm_b, names->last_norm, err));
    return declare_head(m, names, params, err);
}

void xlmr_free(Xlmr *m) {
    for (int i = 0; i < 2; i++)
        if (m->turns[i].data) device_free(m->params->device, m->turns[i].data);
    free(m->blocks);
    *m = (Xlmr){0};
}

bool xlmr_embedding_norm(const Xlmr *m, Tensor *w, Tensor *b) {
    const bool modern = m->config.kind == ENCODER_MODERNBERT;
    *w = modern ? m->first_w : m->norm_w;
    *b = modern ? m->first_b : m->norm_b;
    return modern || !m->config.block.pre_norm;
}

size_t xlmr_rows_bytes(int tokens) {
    return 4 * arena_bytes(DTYPE_I32, 1, tokens);
}

size_t xlmr_work_bytes(const Xlmr *m, int tokens) {
    return block_work_bytes(&m->config.block, tokens, m->params->compute) + xlmr_rows_bytes(tokens);
}

/* A single upload for all, since each has a latency in every step. */
static int upload_rows(Arena *arena, const XlmrBatch *batch, XlmrRows *rows, Error *err) {
    const size_t n = (size_t)batch->tokens;
    const int32_t *from[] = {batch->ids, batch->positions, NULL, batch->image_rows};
    Tensor *to[] = {&rows->ids, &rows->positions, &rows->types, &rows->image}, all;
    const size_t count = batch->image_rows ? 4 : 3;
    /* The stride in elements, for the alignment that xlmr_rows_bytes assumes. */
    const size_t apart = arena_bytes(DTYPE_I32, 1, batch->tokens) / sizeof(int32_t);
    int32_t *host = calloc(count * apart, sizeof *host);
    if (!host) return error_set(err, "out of memory for %d tokens", batch->tokens);
    for (size_t i = 0; i < count; i++)
        if (from[i]) memcpy(host + i * apart, from[i], n * sizeof *host); /* types are all 0 */
    int status = arena_upload(arena, &all, DTYPE_I32, (int64_t)(count * apart), host, err);
    free(host);
    for (size_t i = 0; status == 0 && i < count; i++)
        *to[i] = tensor_1d((int32_t *)all.data + i * apart, DTYPE_I32, batch->tokens);
    return status;
}

int xlmr_embed(const Xlmr *m, Arena *arena, const XlmrBatch *batch, Tensor x, XlmrRows *rows,
               Error *err) {
    *rows = (XlmrRows){.image = TENSOR_NONE};
    TRY(upload_rows(arena, batch, rows, err));
    /* In the order of Hugging Face's sums: (token + type) + position. */
    GatherTerm terms[4] = {{m->words, rows->ids}};
    int count = 1;
    if (batch->image_rows) terms[count++] = (GatherTerm){batch->image_tokens, rows->image};
    if (m->config.kind != ENCODER_MODERNBERT) {
        terms[count++] = (GatherTerm){m->types, rows->types};
        terms[count++] = (GatherTerm){m->positions, rows->positions};
    }
    if (m->words.parts) return parts_gather(arena, x, terms, count, batch->ids, err); /* [T, D] */
    return gather_forward(arena->device, x, terms, count, err);                       /* [T, D] */
}

/* Rows that rotary positions need stay in the arena. */
static int embed(const Xlmr *m, Arena *arena, const XlmrBatch *batch, BlockWork *work,
                 XlmrRows *rows, Error *err) {
    const BlockConfig *block = &m->config.block;
    Tensor w, b;
    size_t mark = arena->used;
    TRY(xlmr_embed(m, arena, batch, work->x, rows, err)); /* [T, D] */
    if (!block->rotary) arena_reset(arena, mark);
    if (xlmr_embedding_norm(m, &w, &b))
        TRY(layernorm_forward(arena->device, work->x, TENSOR_NONE, TENSOR_NONE, work->x, w, b,
                              block->eps, err));
    return block_begin(arena->device, block, work, err);
}

int xlmr_forward(const Xlmr *m, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                 const LayerHook *hook, Error *err) {
    const BlockConfig *block = &m->config.block;
    Device *device = arena->device;
    AttentionPlan plan = batch->plan;
    AttentionSpan *local;
    XlmrRows rows;
    BlockWork work;
    TRY(block_work_take(&work, block, arena, batch->tokens, m->params->compute, err));
    TRY(embed(m, arena, batch, &work, &rows, err)); /* [T, D] */
    TRY(block_local_spans(block, plan.spans, plan.span_count, &local, err));
    plan.local_spans = local;
    plan.rotary = xlmr_rotary(m, &rows, 0), plan.local_rotary = xlmr_rotary(m, &rows, 1);
    int status =
        blocks_forward(device, block, m->blocks, m->config.layers, &work, &plan, hook, err);
    free(local);
    if (status) return -1;
    if (block->pre_norm)
        TRY(layernorm_forward(device, work.h, TENSOR_NONE, TENSOR_NONE, work.x, m->norm_w,
                              m->norm_b, block->eps, err));
    *hidden = work.h; /* a post-LN block leaves its output here in the compute type */
    return 0;
}

size_t xlmr_head_bytes(const Xlmr *m, int rows) {
    int64_t d = m->config.block.width;
    return arena_bytes(DTYPE_I32, 1, rows) + arena_bytes(m->params->compute, rows, d) +
           arena_bytes(DTYPE_F32, rows, d);
}

int xlmr_head(const Xlmr *m, Arena *arena, Tensor hidden, const int32_t *rows, int count,
              Tensor *features, Error *err) {
    Device *device = arena->device;
    int64_t d = m->config.block.width;
    Tensor index, dense;
    TRY(arena_upload(arena, &index, DTYPE_I32, count, rows, err));
    TRY(arena_take(arena, features, m->params->compute, count, d, err));
    TRY(arena_take(arena, &dense, DTYPE_F32, count, d, err));
    GatherTerm picked = {hidden, index};
    TRY(gather_forward(device, *features, &picked, 1, err)); /* [R, D] */
    TRY(linear_forward(device, dense, *features, m->head_w, m->head_b, ACTIVATION_GELU, false,
                       err));
    return layernorm_forward(device, *features, TENSOR_NONE, TENSOR_NONE, dense, m->head_norm_w,
                             m->head_norm_b, m->config.block.eps, err); /* [R, D] */
}
