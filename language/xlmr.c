#include "language/xlmr.h"

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

static int declare_table(Params *params, Tensor *slot, int64_t rows, int64_t columns,
                         const char *name, Error *err) {
    ParamSpec spec = {.slot = slot,
                      .role = PARAM_TABLE,
                      .init = INIT_NORMAL,
                      .init_std = params_init_std(columns),
                      .ndim = 2,
                      .shape = {rows, columns}};
    return params_declare(params, &spec, err, "roberta.embeddings.%s.weight", name);
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

static int declare_embeddings(Xlmr *m, Params *params, Error *err) {
    const XlmrConfig *c = &m->config;
    int64_t d = c->block.width;
    if (c->untied)
        TRY(declare_table(params, &m->words, c->vocab, d, "word_embeddings", err));
    else
        TRY(declare_vocabulary(m, params, &m->words, "roberta.embeddings.word_embeddings", err));
    TRY(declare_table(params, &m->positions, c->positions, d, "position_embeddings", err));
    TRY(declare_table(params, &m->types, 1, d, "token_type_embeddings", err));
    if (c->block.pre_norm) return 0;
    return params_declare_norm(params, &m->norm_w, &m->norm_b, d, false, err,
                               "roberta.embeddings.LayerNorm.");
}

static int declare_head(Xlmr *m, Params *params, Error *err) {
    const XlmrConfig *c = &m->config;
    int64_t d = c->block.width;
    int first = params->count;
    TRY(params_declare_linear(params, &m->head_w, &m->head_b, d, d, false, err, "lm_head.dense."));
    params_mark_hidden(params, first);
    TRY(params_declare_norm(params, &m->head_norm_w, &m->head_norm_b, d, false, err,
                            "lm_head.layer_norm."));
    if (c->untied) TRY(declare_vocabulary(m, params, NULL, "lm_head.decoder", err));
    ParamSpec bias = {.slot = &m->vocab_b, .role = PARAM_VECTOR, .ndim = 1, .shape = {c->vocab}};
    return params_declare(params, &bias, err, "lm_head.bias");
}

const BlockNames *xlmr_block_names(const XlmrConfig *config, int layer,
                                   char prefix[XLMR_PREFIX_SIZE]) {
    snprintf(prefix, XLMR_PREFIX_SIZE, "roberta.encoder.layer.%d", layer);
    return config->block.pre_norm ? &pre_names : &post_names;
}

int xlmr_declare(Xlmr *m, const XlmrConfig *config, Params *params, Error *err) {
    if (config->vocab < 6 || config->layers < 1 || config->positions <= XLMR_FIRST_POSITION)
        return error_set(
            err, "language model: %d tokens, %d layers, %d positions; expected at least 6, 1, 3",
            config->vocab, config->layers, config->positions);
    if (config->block.heads < 1 || config->block.width < 1 ||
        config->block.width % config->block.heads)
        return error_set(err, "language model: width %d is not a multiple of its %d heads",
                         config->block.width, config->block.heads);
    *m = (Xlmr){.config = *config, .params = params};
    m->blocks = calloc((size_t)config->layers, sizeof *m->blocks);
    if (!m->blocks) return error_set(err, "out of memory for %d layers", config->layers);
    TRY(declare_embeddings(m, params, err));
    for (int i = 0; i < config->layers; i++) {
        char prefix[XLMR_PREFIX_SIZE];
        const BlockNames *names = xlmr_block_names(config, i, prefix);
        TRY(block_declare(&m->blocks[i], &config->block, names, params, false, prefix, err));
        if (config->block.pre_norm) block_scale_init(&m->blocks[i], params, config->layers);
    }
    if (config->block.pre_norm)
        TRY(params_declare_norm(params, &m->norm_w, &m->norm_b, config->block.width, false, err,
                                "roberta.encoder.LayerNorm."));
    return declare_head(m, params, err);
}

void xlmr_free(Xlmr *m) {
    free(m->blocks);
    *m = (Xlmr){0};
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
    terms[count++] = (GatherTerm){m->types, rows->types};
    terms[count++] = (GatherTerm){m->positions, rows->positions};
    return gather_forward(arena->device, x, terms, count, err); /* [T, D] */
}

static int embed(const Xlmr *m, Arena *arena, const XlmrBatch *batch, BlockWork *work, Error *err) {
    const BlockConfig *block = &m->config.block;
    XlmrRows rows;
    size_t mark = arena->used;
    TRY(xlmr_embed(m, arena, batch, work->x, &rows, err)); /* [T, D] */
    arena_reset(arena, mark);
    if (!block->pre_norm)
        TRY(layernorm_forward(arena->device, work->x, TENSOR_NONE, TENSOR_NONE, work->x, m->norm_w,
                              m->norm_b, block->eps, err));
    return block_begin(arena->device, block, work, err);
}

int xlmr_forward(const Xlmr *m, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                 const LayerHook *hook, Error *err) {
    const BlockConfig *block = &m->config.block;
    Device *device = arena->device;
    BlockWork work;
    TRY(block_work_take(&work, block, arena, batch->tokens, m->params->compute, err));
    TRY(embed(m, arena, batch, &work, err)); /* [T, D] */
    TRY(blocks_forward(device, block, m->blocks, m->config.layers, &work, &batch->plan, hook, err));
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
