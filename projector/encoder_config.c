/* encoder_config.c - the configuration of an encoder: XLM-R, RoBERTa, BERT, ModernBERT. */
#include "projector/config_values.h"
#include "projector/model_config.h"

/* The names by which sizes are read, and what config.json calls such models. */
typedef struct EncoderProbe {
    const char *layer, *fc1, *dense;
    const char *const *types;
} EncoderProbe;

static const EncoderProbe probes[] = {
    [ENCODER_XLMR] = {"roberta.encoder.layer.%d.intermediate.dense.weight",
                      "roberta.encoder.layer.0.intermediate.dense.weight", "lm_head.dense.weight",
                      TEXTS("xlm-roberta", "xlm-roberta-xl", "roberta")},
    [ENCODER_BERT] = {"bert.encoder.layer.%d.intermediate.dense.weight",
                      "bert.encoder.layer.0.intermediate.dense.weight",
                      "cls.predictions.transform.dense.weight", TEXTS("bert")},
    [ENCODER_MODERNBERT] = {"model.layers.%d.mlp.Wi.weight", "model.layers.0.mlp.Wi.weight",
                            "head.dense.weight", TEXTS("modernbert")},
};
enum { KINDS = sizeof probes / sizeof *probes };

static const CheckpointTensor *find_words(const Checkpoint *c, EncoderKind kind) {
    char name[96];
    snprintf(name, sizeof name, "%s.weight", xlmr_words_name(kind));
    return part_find(c, PART_LANGUAGE, name);
}

/* XLM-R's if there is none, whose names are then in the message. */
static EncoderKind kind_of(const Checkpoint *c) {
    for (int k = 1; k < KINDS; k++)
        if (find_words(c, (EncoderKind)k)) return (EncoderKind)k;
    return ENCODER_XLMR;
}

static int read_sizes(const Checkpoint *c, XlmrConfig *x, bool thorough, Error *err) {
    const EncoderProbe *probe = &probes[x->kind];
    const int64_t *words = NULL, *positions = NULL, *types = NULL, *fc1 = NULL;
    char name[96];
    snprintf(name, sizeof name, "%s.weight", xlmr_words_name(x->kind));
    TRY(model_tensor_sizes(c, PART_LANGUAGE, name, 2, &words, err));
    if (x->kind != ENCODER_MODERNBERT) {
        const char *prefix = x->kind == ENCODER_BERT ? "bert" : "roberta";
        snprintf(name, sizeof name, "%s.embeddings.position_embeddings.weight", prefix);
        TRY(model_tensor_sizes(c, PART_LANGUAGE, name, 2, &positions, err));
        snprintf(name, sizeof name, "%s.embeddings.token_type_embeddings.weight", prefix);
        TRY(model_tensor_sizes(c, PART_LANGUAGE, name, 2, &types, err));
        x->positions = (int)positions[0], x->types = (int)types[0];
    }
    TRY(model_tensor_sizes(c, PART_LANGUAGE, probe->fc1, 2, &fc1, err));
    if (!part_find(c, PART_LANGUAGE, probe->dense))
        return error_set(err,
                         "%s: an encoder without a language model's head (no tensor %s): it cannot "
                         "write; take the %s that it was made from",
                         c->path, probe->dense,
                         x->kind == ENCODER_XLMR ? "XLM-R" : "masked language model");
    x->vocab = (int)words[0];
    x->layers = count_layers(c, PART_LANGUAGE, probe->layer);
    x->untied = part_head_untied(c, thorough);
    x->block = (BlockConfig){.width = (int)words[1], .ffn = (int)fc1[0]};
    x->block.pre_norm = part_find(c, PART_LANGUAGE, "roberta.encoder.LayerNorm.weight") != NULL;
    return 0;
}

/* Whether the head has a matrix of its own: what is in the file must be what is said of it. */
static int check_tied(const Config *c, const Checkpoint *checkpoint, const XlmrConfig *x) {
    const json_t *tie = json_object_get(c->json, "tie_word_embeddings");
    char name[96];
    snprintf(name, sizeof name, "%s.weight", xlmr_head_name(x->kind));
    if (tie && !json_is_boolean(tie) && !json_is_null(tie))
        return error_set(c->err, "%s: \"tie_word_embeddings\" must be true or false", c->path);
    if (json_is_true(tie) && x->untied)
        return error_set(c->err,
                         "%s: \"tie_word_embeddings\" is true, but %s differs from the word "
                         "embeddings: set it to false to use both, or remove that tensor",
                         c->path, name);
    if (json_is_false(tie) && !part_find(checkpoint, PART_LANGUAGE, name))
        return error_set(c->err, "%s: \"tie_word_embeddings\" is false, but there is no tensor %s",
                         c->path, name);
    return 0;
}

/* ---- XLM-R, RoBERTa and BERT. ---- */

static int read_xlmr(const Config *c, XlmrConfig *x) {
    static const char ids[] = "easyfirst works with XLM-R's special tokens, <s> 0, <pad> 1, </s> 2";
    const bool pre = x->block.pre_norm, bert = x->kind == ENCODER_BERT;
    if (!bert) {
        TRY(check_integer(c, "bos_token_id", 0, ids));
        TRY(check_integer(c, "pad_token_id", 1, ids));
        TRY(check_integer(c, "eos_token_id", 2, ids));
    }
    TRY(check_text(c, "position_embedding_type", TEXTS("absolute"),
                   "relative positions are not supported"));
    if (bert) /* the head's, too */
        TRY(check_text(c, "hidden_act", TEXTS("gelu"),
                       "BERT's other activations are not supported"));
    TRY(read_activation(c, ACTIVATION_GELU, &x->block.activation));
    TRY(read_block(c, &x->block, x->layers, pre ? 32 : 12, "layer_norm_eps", pre ? 1e-5 : 1e-12));
    return check_size(c, "max_position_embeddings", x->positions);
}

/* ---- ModernBERT. ---- */

/* Which layers are global, from "layer_types", else "global_attn_every_n_layers": the first and
 * every n-th after it. */
static int read_layers(const Config *c, XlmrConfig *x) {
    static const char global[] = "full_attention", local[] = "sliding_attention";
    const json_t *types = json_object_get(c->json, "layer_types");
    int every;
    TRY(config_integer(c->json, "global_attn_every_n_layers", c->path, 1, 10000, 3, &every,
                       c->err));
    if (types && !json_is_null(types)) {
        if (!json_is_array(types) || json_array_size(types) != (size_t)x->layers)
            return error_set(c->err, "%s: \"layer_types\" must be a list of %d, one for each layer",
                             c->path, x->layers);
        every = 1;
        while (every < x->layers) {
            const char *type = json_string_value(json_array_get(types, (size_t)every));
            if (type && !strcmp(type, global)) break;
            every++;
        }
        for (int i = 0; i < x->layers; i++) {
            const char *type = json_string_value(json_array_get(types, (size_t)i));
            const char *expected = i % every ? local : global;
            if (!type || strcmp(type, expected) != 0)
                return error_set(c->err,
                                 "%s: \"layer_types\" has \"%s\" for layer %d, expected \"%s\": "
                                 "supported are the first and every n-th after it as %s, the "
                                 "others as %s",
                                 c->path, type ? type : "no text", i, expected, global, local);
        }
    }
    int width;
    TRY(config_integer(c->json, "local_attention", c->path, 2, 1 << 24, 128, &width, c->err));
    x->block.window = every == 1 ? 0 : width / 2;
    x->block.global_every = every;
    return 0;
}

/* The base of one kind of layers: in "rope_parameters" by its name, else under its older one. */
static int read_theta(const Config *c, const char *layers, const char *older, double usual,
                      float *theta) {
    const json_t *all = json_object_get(c->json, "rope_parameters"),
                 *own = json_object_get(all, layers), *old = json_object_get(c->json, older);
    const char *type;
    double value = usual;
    if (old && !json_is_null(old)) TRY(config_real(c->json, older, c->path, usual, &value, c->err));
    if (json_is_object(own)) {
        TRY(config_text(own, "rope_type", c->path, "default", &type, c->err));
        if (strcmp(type, "default") != 0)
            return error_set(c->err, "%s: \"rope_type\" of %s is \"%s\", expected default", c->path,
                             layers, type);
        TRY(config_real(own, "rope_theta", c->path, value, &value, c->err));
    }
    if (!(value > 0))
        return error_set(c->err, "%s: \"rope_theta\" of %s is %g, expected a positive number",
                         c->path, layers, value);
    *theta = (float)value;
    return 0;
}

/* Whose biases there are. */
static int read_biases(const Config *c, XlmrConfig *x) {
    static const struct {
        const char *name;
        bool usual;
        unsigned block, head; /* what is without them if it is false */
    } flags[] = {{"norm_bias", false, BLOCK_NORMS, 0},
                 {"attention_bias", false, BLOCK_QKV | BLOCK_OUT, 0},
                 {"mlp_bias", false, BLOCK_FFN, 0},
                 {"classifier_bias", false, 0, HEAD_DENSE},
                 {"decoder_bias", true, 0, HEAD_VOCABULARY}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool biased;
        TRY(config_flag(c->json, flags[i].name, c->path, flags[i].usual, &biased, c->err));
        if (biased) continue;
        x->block.unbiased |= flags[i].block, x->unbiased |= flags[i].head;
    }
    return 0;
}

static int read_modern(const Config *c, XlmrConfig *x) {
    static const char gelu[] = "ModernBERT's other activations are not supported";
    x->block.pre_norm = x->block.gated = x->block.joined = x->block.rotary = true;
    x->block.activation = ACTIVATION_GELU;
    if (x->block.ffn % 2)
        return error_set(c->err,
                         "%s: the tensors have gates and values of %d rows, expected an even "
                         "number",
                         c->path, x->block.ffn);
    x->block.ffn /= 2;
    TRY(check_text(c, "hidden_activation", TEXTS("gelu"), gelu));
    TRY(check_text(c, "classifier_activation", TEXTS("gelu"), gelu));
    TRY(check_text(c, "position_embedding_type", TEXTS("absolute", "rope", "sans_pos"),
                   "relative positions are not supported"));
    TRY(check_absent(c, c->json, "rope_scaling", "scaled rotary positions are not supported"));
    TRY(read_block(c, &x->block, x->layers, 12, "norm_eps", 1e-5));
    TRY(config_integer(c->json, "max_position_embeddings", c->path, 2, 1 << 22, 8192, &x->positions,
                       c->err));
    TRY(read_biases(c, x));
    TRY(read_layers(c, x));
    TRY(read_theta(c, "full_attention", "global_rope_theta", 160000, &x->theta));
    /* Older configurations write null for "as the global one". */
    const json_t *old = json_object_get(c->json, "local_rope_theta");
    const double usual = json_is_null(old) ? (double)x->theta : 10000;
    return read_theta(c, "sliding_attention", "local_rope_theta", usual, &x->local_theta);
}

static int read_config(const Config *c, const Checkpoint *checkpoint, XlmrConfig *x) {
    TRY(check_flag(c, "is_decoder", false, "a causal decoder is not supported"));
    TRY(check_flag(c, "add_cross_attention", false, "cross-attention is not supported"));
    TRY(x->kind == ENCODER_MODERNBERT ? read_modern(c, x) : read_xlmr(c, x));
    TRY(check_size(c, "vocab_size", x->vocab));
    return check_tied(c, checkpoint, x);
}

int model_language_config(const Checkpoint *checkpoint, XlmrConfig *x, bool thorough, Error *err) {
    Config c;
    *x = (XlmrConfig){.kind = kind_of(checkpoint)};
    if (!part_present(checkpoint, PART_LANGUAGE))
        return part_missing(checkpoint, PART_LANGUAGE, err);
    TRY(config_open(&c, checkpoint->path, NULL, err));
    int status = check_text(&c, "model_type", probes[x->kind].types,
                            x->kind == ENCODER_XLMR ? "its token ids are not XLM-R's"
                                                    : "its tensors have other names");
    if (!status) status = read_sizes(checkpoint, x, thorough, err);
    if (!status) status = read_config(&c, checkpoint, x);
    config_close(&c);
    return status;
}
