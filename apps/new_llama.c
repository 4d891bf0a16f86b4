#include "apps/new_llama.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apps/cli/report.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"
#include "projector/model.h"
#include "projector/model_paths.h"
#include "projector/model_write.h"

const char *const new_kind_names[] = {
    [NEW_XLMR] = "xlm-r", [NEW_LLAMA] = "llama", [NEW_LLADA] = "llada", NULL};

typedef struct Making {
    const NewLlama *what;
    LlamaConfig config;
    AttentionPattern attention;
    Model model;
    char *tokenizer_file;
    const TokenizerSpecials *specials;
} Making;

/* ---- Checks. ---- */

static int open_tokenizer(Making *m, Error *err) {
    struct stat info;
    const char *path = m->what->tokenizer;
    const bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    m->tokenizer_file = folder ? model_tokenizer_file(path, err) : path_format(err, "%s", path);
    if (!m->tokenizer_file) return -1;
    TRY(model_tokenizer_open(&m->model.tokenizer, m->tokenizer_file, false, err));
    m->specials = tokenizer_specials(m->model.tokenizer);
    if (m->specials->end >= 0) return 0;
    return error_set(err,
                     "%s: no end-of-text token is known, with which answers end: name it "
                     "(\"eos_token\") in tokenizer_config.json next to it",
                     m->tokenizer_file);
}

static int settle_attention(Making *m, Error *err) {
    const NewLlama *w = m->what;
    const bool mask = m->specials->mask >= 0;
    m->attention = w->attention_given             ? w->attention
                   : mask || w->kind == NEW_LLADA ? ATTENTION_FULL
                                                  : ATTENTION_CAUSAL;
    if (m->attention == ATTENTION_CAUSAL && w->kind == NEW_LLADA)
        return error_set(err, "--attention causal: a model of LLaDA's kind has no predictions "
                              "shifted by one; take --kind llama");
    if (m->attention != ATTENTION_CAUSAL && !mask)
        return error_set(err,
                         "%s: no mask token (\"<|mask|>\"), which masked diffusion needs: add one, "
                         "or take --kind llama --attention causal",
                         m->tokenizer_file);
    return 0;
}

static int settle_sizes(Making *m, Error *err) {
    const NewLlama *w = m->what;
    const int size = tokenizer_size(m->model.tokenizer);
    if (w->vocab && w->vocab < size)
        return error_set(err, "%s: the tokenizer has %d ids, the language model only %d",
                         m->tokenizer_file, size, w->vocab);
    m->config =
        (LlamaConfig){.vocab = w->vocab ? w->vocab : size,
                      .layers = w->layers,
                      .positions = w->positions,
                      .block = llama_block(w->width, w->heads,
                                           w->key_heads ? w->key_heads : w->heads, w->ffn, 1e-5f),
                      .theta = w->kind == NEW_LLADA ? 500000 : 10000,
                      .naming = w->kind == NEW_LLADA ? LLADA_NAMES : LLAMA_NAMES};
    return 0;
}

/* ---- Files. ---- */

static void set_ids(json_t *json, const TokenizerSpecials *s) {
    const struct {
        const char *name;
        int32_t id;
    } ids[] = {{"bos_token_id", s->begin},
               {"eos_token_id", s->end},
               {"pad_token_id", s->pad >= 0 ? s->pad : s->end},
               {"mask_token_id", s->mask}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= 0) json_object_set_new(json, ids[i].name, json_integer(ids[i].id));
}

static json_t *llama_json(const LlamaConfig *c) {
    return json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:s}",
                     "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_size",
                     c->block.width, "num_attention_heads", c->block.heads, "num_key_value_heads",
                     c->block.key_heads, "num_hidden_layers", c->layers, "intermediate_size",
                     c->block.ffn, "vocab_size", c->vocab, "max_position_embeddings", c->positions,
                     "rope_theta", (double)c->theta, "rms_norm_eps", 1e-5, "tie_word_embeddings", 0,
                     "hidden_act", "silu");
}

static json_t *llada_json(const LlamaConfig *c) {
    return json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:s, "
                     "s:s, s:s, s:b, s:b, s:b, s:b}",
                     "architectures", "LLaDAModelLM", "model_type", "llada", "d_model",
                     c->block.width, "n_heads", c->block.heads, "n_kv_heads", c->block.key_heads,
                     "n_layers", c->layers, "mlp_hidden_size", c->block.ffn, "vocab_size", c->vocab,
                     "embedding_size", c->vocab, "max_sequence_length", c->positions, "rope_theta",
                     (double)c->theta, "rms_norm_eps", 1e-5, "weight_tying", 0, "block_type",
                     "llama", "layer_norm_type", "rms", "activation_type", "silu", "rope", 1,
                     "alibi", 0, "include_bias", 0, "include_qkv_bias", 0);
}

static int write_config(const Making *m, const char *folder, Error *err) {
    json_t *json = m->what->kind == NEW_LLADA ? llada_json(&m->config) : llama_json(&m->config);
    if (json) {
        set_ids(json, m->specials);
        json_object_set_new(json, "torch_dtype", json_string(model_config_dtype(m->what->dtype)));
    }
    return model_write_json(json, folder, "config.json", err);
}

/* The tokenizer's file and what belongs to it. */
static int copy_tokenizer(const Making *m, const char *folder, Error *err) {
    static const char *const beside[] = {"tokenizer_config.json", "special_tokens_map.json",
                                         "chat_template.jinja", "vocab.json", "merges.txt"};
    const char *name = path_name(m->tokenizer_file);
    const bool merges = !strcmp(name, "merges.txt");
    char *from = strndup(m->tokenizer_file, (size_t)(name - m->tokenizer_file));
    int status = from ? 0 : error_set(err, "out of memory for a path");
    if (status == 0) status = model_copy_file(m->tokenizer_file, folder, name, err);
    for (int i = 0; i < (merges ? 4 : 3) && status == 0; i++) {
        char *path = path_format(err, "%s%s", from, beside[i]);
        status = path ? model_copy_file(path, folder, beside[i], err) : -1;
        free(path);
    }
    free(from);
    return status;
}

static int write_folder(Making *m, const char *partial, Error *err) {
    TRY(model_write_subfolder(partial, "language", err));
    char *folder = path_join(partial, "language", err);
    int status = folder ? write_config(m, folder, err) : -1;
    if (status == 0) status = copy_tokenizer(m, folder, err);
    if (status == 0)
        status = m->what->empty
                     ? model_write_empty(&m->model.language, folder, "model.safetensors", err)
                     : model_write_part(&m->model.language, folder, "model.safetensors", err);
    free(folder);
    TRY(status);
    json_t *settings = json_object();
    status = model_write_settings(settings, m->attention, NULL, partial, err);
    json_decref(settings);
    return status;
}

static int make_weights(Making *m, Error *err) {
    ModelPart *part = &m->model.language;
    *part = (ModelPart){
        .kind = PART_LANGUAGE, .path = "a fresh language model", .stored = m->what->dtype};
    params_init(&part->params, m->model.device);
    TRY(llama_declare(&m->model.llama, &m->config, &part->params, err));
    part->present = true;
    if (m->what->empty) return 0;
    TRY(params_allocate(&part->params, m->what->dtype, err));
    params_initialise(&part->params, m->what->seed);
    return 0;
}

static int make_folder(Making *m, Error *err) {
    const NewLlama *w = m->what;
    char partial[PATH_MAX + 64];
    TRY(open_tokenizer(m, err));
    TRY(settle_attention(m, err));
    TRY(settle_sizes(m, err));
    TRY(folder_begin(partial, sizeof partial, w->out, err));
    int status = make_weights(m, err);
    if (status == 0) status = write_folder(m, partial, err);
    if (status == 0) status = folder_commit(partial, w->out, err);
    if (status) {
        folder_discard(partial);
        return -1;
    }
    report_print(stderr,
                 "  language   %14lld  parameters, in %s: %s, %d layers, width %d, %d heads, "
                 "feed-forward %d, %d tokens, attention %s\n",
                 (long long)params_count(&m->model.language.params), w->out,
                 new_kind_names[w->kind], w->layers, w->width, w->heads, w->ffn, m->config.vocab,
                 attention_name(m->attention));
    return 0;
}

int new_llama(const NewLlama *what, Device *device, Error *err) {
    Making m = {.what = what, .model = {.device = device, .parts = {.device = device}}};
    int status = make_folder(&m, err);
    free(m.tokenizer_file);
    model_close(&m.model);
    return status;
}
