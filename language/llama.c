#include "language/llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const BlockNames llama_names = {.query = "self_attn.q_proj",
                                       .key = "self_attn.k_proj",
                                       .value = "self_attn.v_proj",
                                       .out = "self_attn.o_proj",
                                       .norm1 = "input_layernorm",
                                       .fc1 = "mlp.gate_proj",
                                       .up = "mlp.up_proj",
                                       .fc2 = "mlp.down_proj",
                                       .norm2 = "post_attention_layernorm"};

static const BlockNames llada_names = {.query = "q_proj",
                                       .key = "k_proj",
                                       .value = "v_proj",
                                       .out = "attn_out",
                                       .norm1 = "attn_norm",
                                       .fc1 = "ff_proj",
                                       .up = "up_proj",
                                       .fc2 = "ff_out",
                                       .norm2 = "ff_norm"};

/* What is outside of the blocks. */
typedef struct LlamaNames {
    const char *words, *layer, *norm, *head;
} LlamaNames;

static const LlamaNames names_of[] = {
    [LLAMA_NAMES] = {"model.embed_tokens", "model.layers", "model.norm", "lm_head"},
    [LLADA_NAMES] = {"model.transformer.wte", "model.transformer.blocks", "model.transformer.ln_f",
                     "model.transformer.ff_out"},
};

const BlockNames *llama_block_names(const LlamaConfig *config, int layer,
                                    char prefix[LLAMA_PREFIX_SIZE]) {
    snprintf(prefix, LLAMA_PREFIX_SIZE, "%s.%d", names_of[config->naming].layer, layer);
    return config->naming == LLADA_NAMES ? &llada_names : &llama_names;
}

BlockConfig llama_block(int width, int heads, int key_heads, int ffn, float eps) {
    return (BlockConfig){.width = width,
                         .heads = heads,
                         .ffn = ffn,
                         .pre_norm = true,
                         .activation = ACTIVATION_SILU,
                         .eps = eps,
                         .rms_norm = true,
                         .gated = true,
                         .rotary = true,
                         .unbiased = BLOCK_QKV | BLOCK_OUT | BLOCK_FFN,
                         .key_heads = key_heads};
}

/* ---- The turns. ---- */

/* Of pair i, in radians for each position. */
static float frequency(const LlamaConfig *c, int i) {
    const double width = block_head_width(&c->block);
    const double f = (float)(1 / pow((double)c->theta, 2 * i / width));
    const RopeScaling *s = &c->scaling;
    if (!(s->factor > 0)) return (float)f;
    const double waves = s->original * f / (2 * M_PI); /* within the original positions */
    if (waves < (double)s->low) return (float)(f / (double)s->factor);
    if (waves > (double)s->high) return (float)f;
    const double smooth = (waves - (double)s->low) / ((double)s->high - (double)s->low);
    return (float)((1 - smooth) * f / (double)s->factor + smooth * f);
}

void llama_turns(const LlamaConfig *c, float *to, int count) {
    const int width = block_head_width(&c->block), half = width / 2;
    for (int i = 0; i < half; i++) {
        const float f = frequency(c, i);
        for (int p = 0; p < count; p++) {
            const float angle = (float)p * f;
            to[(size_t)p * (size_t)width + (size_t)i] = (float)cos((double)angle);
            to[(size_t)p * (size_t)width + (size_t)(half + i)] = (float)sin((double)angle);
        }
    }
}

size_t llama_turns_bytes(const LlamaConfig *c) {
    return (size_t)c->positions * (size_t)block_head_width(&c->block) * sizeof(float);
}

static int make_turns(Llama *m, Error *err) {
    const LlamaConfig *c = &m->config;
    const size_t bytes = llama_turns_bytes(c);
    Device *device = m->params->device;
    float *host = malloc(bytes);
    void *memory;
    if (!host) return error_set(err, "out of memory for %d positions", c->positions);
    llama_turns(c, host, c->positions);
    int status = device_alloc(device, &memory, bytes, err);
    if (status == 0) {
        m->turns = tensor_2d(memory, DTYPE_F32, c->positions, block_head_width(&c->block));
        status = device_upload(device, memory, host, bytes, err);
    }
    free(host);
    return status;
}

/* ---- Parameters. ---- */

static int check_config(const LlamaConfig *c, Error *err) {
    const RopeScaling *s = &c->scaling;
    if (c->vocab < 2 || c->layers < 1 || c->positions < 1)
        return error_set(err,
                         "language model: %d tokens, %d layers, %d positions; expected at least "
                         "2, 1, 1",
                         c->vocab, c->layers, c->positions);
    if (!(c->theta > 0) || !isfinite(c->theta))
        return error_set(err, "language model: rope_theta is %g, expected a positive number",
                         (double)c->theta);
    if (s->factor != 0 && (!(s->factor >= 1) || !(s->low > 0) || !(s->high > s->low) ||
                           s->original < 1 || !isfinite(s->factor) || !isfinite(s->high)))
        return error_set(err,
                         "language model: rope_scaling with factor %g, low_freq_factor %g, "
                         "high_freq_factor %g and %d original positions, expected a factor from 1 "
                         "on and low below high",
                         (double)s->factor, (double)s->low, (double)s->high, s->original);
    if (c->naming != LLAMA_NAMES && c->naming != LLADA_NAMES)
        return error_set(err, "language model: naming %d is unknown", (int)c->naming);
    if (!c->block.pre_norm || !c->block.rms_norm || !c->block.rotary || !c->block.gated)
        return error_set(err, "language model: its blocks are not LLaMA's (llama_block)");
    return block_check(&c->block, "language model", err);
}

static int declare_vocabulary(Llama *m, Params *params, Tensor *table, const char *name,
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

static int declare_words(Llama *m, Params *params, const char *name, Error *err) {
    if (m->config.tied) return declare_vocabulary(m, params, &m->words, name, err);
    ParamSpec spec = {.slot = &m->words,
                      .role = PARAM_TABLE,
                      .init = INIT_NORMAL,
                      .init_std = params_init_std(m->config.block.width),
                      .ndim = 2,
                      .shape = {m->config.vocab, m->config.block.width}};
    return params_declare(params, &spec, err, "%s.weight", name);
}

int llama_declare(Llama *m, const LlamaConfig *config, Params *params, Error *err) {
    *m = (Llama){0};
    TRY(check_config(config, err));
    *m = (Llama){.config = *config, .params = params};
    const LlamaNames *names = &names_of[config->naming];
    m->blocks = calloc((size_t)config->layers, sizeof *m->blocks);
    if (!m->blocks) return error_set(err, "out of memory for %d layers", config->layers);
    TRY(make_turns(m, err));
    TRY(declare_words(m, params, names->words, err));
    for (int i = 0; i < config->layers; i++) {
        char prefix[LLAMA_PREFIX_SIZE];
        const BlockNames *block_names = llama_block_names(config, i, prefix);
        TRY(block_declare(&m->blocks[i], &config->block, block_names, params, false, prefix, err));
        block_scale_init(&m->blocks[i], params, config->layers);
    }
    TRY(params_declare_norm(params, &m->norm_w, NULL, config->block.width, false, err, "%s.",
                            names->norm));
    return config->tied ? 0 : declare_vocabulary(m, params, NULL, names->head, err);
}

void llama_free(Llama *m) {
    if (m->turns.data) device_free(m->params->device, m->turns.data);
    free(m->blocks);
    *m = (Llama){0};
}

/* ---- Forward. ---- */

size_t llama_rows_bytes(int tokens) {
    return 3 * arena_bytes(DTYPE_I32, 1, tokens);
}

size_t llama_work_bytes(const Llama *m, int tokens) {
    return block_work_bytes(&m->config.block, tokens, m->params->compute) +
           llama_rows_bytes(tokens);
}

int llama_embed(const Llama *m, Arena *arena, const XlmrBatch *batch, Tensor x, XlmrRows *rows,
                Error *err) {
    *rows = (XlmrRows){.types = TENSOR_NONE, .image = TENSOR_NONE};
    TRY(arena_upload(arena, &rows->ids, DTYPE_I32, batch->tokens, batch->ids, err));
    TRY(arena_upload(arena, &rows->positions, DTYPE_I32, batch->tokens, batch->positions, err));
    GatherTerm terms[2] = {{m->words, rows->ids}};
    if (batch->image_rows) {
        TRY(arena_upload(arena, &rows->image, DTYPE_I32, batch->tokens, batch->image_rows, err));
        terms[1] = (GatherTerm){batch->image_tokens, rows->image};
    }
    const int count = batch->image_rows ? 2 : 1;
    if (m->words.parts) return parts_gather(arena, x, terms, count, batch->ids, err); /* [T, D] */
    return gather_forward(arena->device, x, terms, count, err);                       /* [T, D] */
}

int llama_forward(const Llama *m, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                  const LayerHook *hook, Error *err) {
    const BlockConfig *block = &m->config.block;
    Device *device = arena->device;
    AttentionPlan plan = batch->plan;
    XlmrRows rows;
    BlockWork work;
    TRY(block_work_take(&work, block, arena, batch->tokens, m->params->compute, err));
    TRY(llama_embed(m, arena, batch, work.x, &rows, err)); /* [T, D] */
    plan.rotary = (Rotary){m->turns, rows.positions};
    TRY(blocks_forward(device, block, m->blocks, m->config.layers, &work, &plan, hook, err));
    TRY(rmsnorm_forward(device, work.h, TENSOR_NONE, TENSOR_NONE, work.x, m->norm_w, block->eps,
                        err));
    *hidden = work.h;
    return 0;
}

size_t llama_head_bytes(const Llama *m, int rows) {
    return arena_bytes(DTYPE_I32, 1, rows) +
           arena_bytes(m->params->compute, rows, m->config.block.width);
}

int llama_head(const Llama *m, Arena *arena, Tensor hidden, const int32_t *rows, int count,
               Tensor *features, Error *err) {
    Tensor index;
    TRY(arena_upload(arena, &index, DTYPE_I32, count, rows, err));
    TRY(arena_take(arena, features, m->params->compute, count, m->config.block.width, err));
    GatherTerm picked = {hidden, index};
    return gather_forward(arena->device, *features, &picked, 1, err); /* [R, D] */
}
