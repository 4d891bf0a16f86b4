#include "projector/model_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/checkpoints/config.h"
#include "data/files/path.h"
#include "kernels/names.h"
#include "projector/config_values.h"
#include "projector/model_chat.h"
#include "projector/model_languages.h"
#include "projector/model_paths.h"
#include "projector/model_prompt.h"

int model_tensor_sizes(const Checkpoint *c, Part part, const char *name, int ndim,
                       const int64_t **shape, Error *err) {
    const CheckpointTensor *t = part_find(c, part, name);
    if (!t) return part_missing(c, part, err);
    if (t->value.ndim == 1 && t->value.shape[0] == 0)
        return error_set(err,
                         "%s: %s is empty: a DeepSpeed ZeRO-3 stub? Put the weights together with "
                         "zero_to_fp32.py of its checkpoint",
                         c->path, t->name);
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

/* ---- The vision tower. ---- */

enum { LARGEST_SIDE = 1 << 16 }; /* pixels of a side that a tower may want */

static int vision_sizes(const Checkpoint *c, VitConfig *v, Error *err) {
    const int64_t *patch = NULL, *positions = NULL, *fc1 = NULL;
    TRY(model_tensor_sizes(c, PART_VISION, "vision_model.embeddings.patch_embedding.weight", 4,
                           &patch, err));
    TRY(model_tensor_sizes(c, PART_VISION, "vision_model.embeddings.position_embedding.weight", 2,
                           &positions, err));
    TRY(model_tensor_sizes(c, PART_VISION, "vision_model.encoder.layers.0.mlp.fc1.weight", 2, &fc1,
                           err));
    int side = 1;
    while ((int64_t)side * side < positions[0] - 1) side++;
    v->patch = (int)patch[2];
    if (v->patch > LARGEST_SIDE / side)
        return error_set(err,
                         "%s: %d positions in a row of patches of %d pixels, at most %d pixels are "
                         "expected: a damaged file",
                         c->path, side, v->patch, LARGEST_SIDE);
    v->image_size = side * v->patch;
    v->layers = count_layers(c, PART_VISION, "vision_model.encoder.layers.%d.mlp.fc1.weight");
    v->block = (BlockConfig){.width = (int)patch[0], .ffn = (int)fc1[0], .pre_norm = true};
    return 0;
}

/* LLaVA's configuration says which features its projector was trained with. */
static int llava_features(const Config *c, VitConfig *v) {
    const char *strategy;
    TRY(config_integer(c->whole, "vision_feature_layer", c->path, -10000, 10000, -2,
                       &v->feature_layer, c->err));
    TRY(config_text(c->whole, "vision_feature_select_strategy", c->path, "default", &strategy,
                    c->err));
    v->class_token = !strcmp(strategy, "full");
    if (!v->class_token && strcmp(strategy, "default"))
        return error_set(c->err,
                         "%s: \"vision_feature_select_strategy\" is \"%s\", expected default or "
                         "full",
                         c->path, strategy);
    Config whole = *c;
    whole.json = c->whole;
    return check_text(&whole, "projector_hidden_act", TEXTS("gelu"),
                      "projectors with another activation are not supported");
}

static int vision_read(const Config *c, VitConfig *v) {
    TRY(llava_features(c, v));
    TRY(read_activation(c, ACTIVATION_QUICK_GELU, &v->block.activation));
    TRY(read_block(c, &v->block, v->layers, 12, "layer_norm_eps", 1e-5));
    TRY(check_size(c, "image_size", v->image_size));
    TRY(check_size(c, "patch_size", v->patch));
    return check_integer(c, "num_channels", 3, "images have three");
}

int model_vision_config(const Checkpoint *checkpoint, VitConfig *v, Error *err) {
    Config c;
    if (!part_present(checkpoint, PART_VISION)) return part_missing(checkpoint, PART_VISION, err);
    TRY(config_open(&c, checkpoint->path, "vision_config", err));
    /* The kind first: other towers have other tensors, and no message about these would help. */
    int status = check_text(&c, "model_type", TEXTS("clip_vision_model", "clip"),
                            "other vision towers, such as SigLIP's, are not supported");
    if (!status) status = vision_sizes(checkpoint, v, err);
    if (!status) status = vision_read(&c, v);
    config_close(&c);
    return status;
}

/* ---- A convolutional vision tower. ---- */

static int block_sizes(const Checkpoint *c, int index, int in, EfficientNetBlock *block,
                       Error *err) {
    const int64_t *depthwise = NULL, *project = NULL;
    char name[64];
    snprintf(name, sizeof name, "_blocks.%d._depthwise_conv.weight", index);
    TRY(model_tensor_sizes(c, PART_VISION, name, 4, &depthwise, err));
    snprintf(name, sizeof name, "_blocks.%d._project_conv.weight", index);
    TRY(model_tensor_sizes(c, PART_VISION, name, 4, &project, err));
    *block = (EfficientNetBlock){.kernel = (int)depthwise[2],
                                 .stride = 1,
                                 .in = in,
                                 .wide = (int)depthwise[0],
                                 .out = (int)project[0]};
    return 0;
}

static int efficientnet_sizes(const Checkpoint *c, EfficientNetConfig *net, Error *err) {
    const int64_t *stem = NULL, *head = NULL;
    TRY(model_tensor_sizes(c, PART_VISION, "_conv_stem.weight", 4, &stem, err));
    TRY(model_tensor_sizes(c, PART_VISION, "_conv_head.weight", 4, &head, err));
    net->stem = (int)stem[0], net->stem_kernel = (int)stem[2], net->width = (int)head[0];
    net->count = count_layers(c, PART_VISION, "_blocks.%d._project_conv.weight");
    if (net->count < 1 || net->count > EFFICIENTNET_BLOCKS)
        return error_set(err,
                         "%s: %d blocks (_blocks.0._project_conv.weight and so on), expected "
                         "1 to %d",
                         c->path, net->count, EFFICIENTNET_BLOCKS);
    for (int i = 0; i < net->count; i++)
        TRY(block_sizes(c, i, i ? net->block[i - 1].out : net->stem, &net->block[i], err));
    return 0;
}

enum { STAGES = 32 };

/* Up to STAGES positive integers; *count stays as it is if there are none. */
static int read_stages(const Config *c, const char *name, int values[STAGES], int *count) {
    const json_t *list = json_object_get(c->json, name), *value;
    size_t i;
    if (!list || json_is_null(list)) return 0;
    if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > STAGES)
        return error_set(c->err, "%s: \"%s\" must be a list of 1 to %d numbers", c->path, name,
                         STAGES);
    json_array_foreach(list, i, value) {
        if (!json_is_integer(value) || json_integer_value(value) < 1 ||
            json_integer_value(value) > EFFICIENTNET_BLOCKS)
            return error_set(c->err, "%s: number %zu of \"%s\" must be an integer of 1 to %d",
                             c->path, i + 1, name, EFFICIENTNET_BLOCKS);
        values[i] = (int)json_integer_value(value);
    }
    *count = (int)json_array_size(list);
    return 0;
}

/* The stride of a stage is that of its first block. */
static int read_strides(const Config *c, EfficientNetConfig *net) {
    int strides[STAGES] = {1, 2, 2, 2, 1, 2, 1}, stride_count = 7;
    int repeats[STAGES], stages = 0, first = 0;
    TRY(read_stages(c, "strides", strides, &stride_count));
    TRY(read_stages(c, "num_block_repeats", repeats, &stages));
    for (int i = 0; i < net->count && !json_is_array(json_object_get(c->json, "num_block_repeats"));
         i++) {
        bool same = i && net->block[i].out == net->block[i - 1].out;
        if (!same && stages == STAGES)
            return error_set(c->err, "%s: more than %d stages", c->path, STAGES);
        if (!same) repeats[stages++] = 0;
        repeats[stages - 1]++;
    }
    if (stages != stride_count)
        return error_set(c->err,
                         "%s: %d \"strides\", but the blocks have %d stages: give one for "
                         "each",
                         c->path, stride_count, stages);
    for (int s = 0; s < stages; first += repeats[s++])
        if (first < net->count) net->block[first].stride = strides[s];
    if (first == net->count) return 0;
    return error_set(c->err, "%s: \"num_block_repeats\" are %d blocks, but the tensors have %d",
                     c->path, first, net->count);
}

static int efficientnet_read(const Config *c, EfficientNetConfig *net) {
    double eps;
    TRY(config_integer(c->json, "image_size", c->path, 1, 1 << 14, 224, &net->image_size, c->err));
    TRY(config_real(c->json, "batch_norm_eps", c->path, 1e-3, &eps, c->err));
    net->eps = (float)eps;
    TRY(check_text(c, "hidden_act", TEXTS("relu6"), "EfficientNet-Lite has ReLU6"));
    TRY(check_size(c, "hidden_dim", net->width));
    TRY(check_integer(c, "num_channels", 3, "images have three"));
    TRY(check_absent(c, c->json, "quantization_config",
                     "quantized weights are not read; take the model's full weights"));
    return read_strides(c, net);
}

int model_efficientnet_config(const Checkpoint *checkpoint, EfficientNetConfig *net, Error *err) {
    Config c;
    *net = (EfficientNetConfig){0};
    TRY(config_open(&c, checkpoint->path, NULL, err));
    int status = check_text(&c, "model_type", TEXTS("efficientnet-lite"),
                            "of convolutional towers, EfficientNet-Lite is supported");
    if (!status) status = efficientnet_sizes(checkpoint, net, err);
    if (!status) status = efficientnet_read(&c, net);
    config_close(&c);
    return status;
}

/* ---- Language models of LLaMA's kind. ---- */

/* The names by which sizes are read. */
typedef struct LlamaProbe {
    const char *words, *head, *layer, *query, *key, *gate;
    const char *width, *heads, *key_heads, *layers, *ffn, *vocab, *positions,
        *tied; /* config.json */
} LlamaProbe;

static const LlamaProbe llama_probes[] = {
    [LLAMA_NAMES] = {"model.embed_tokens.weight", "lm_head.weight",
                     "model.layers.%d.mlp.gate_proj.weight",
                     "model.layers.0.self_attn.q_proj.weight",
                     "model.layers.0.self_attn.k_proj.weight",
                     "model.layers.0.mlp.gate_proj.weight", "hidden_size", "num_attention_heads",
                     "num_key_value_heads", "num_hidden_layers", "intermediate_size", "vocab_size",
                     "max_position_embeddings", "tie_word_embeddings"},
    [LLADA_NAMES] = {"model.transformer.wte.weight", "model.transformer.ff_out.weight",
                     "model.transformer.blocks.%d.ff_proj.weight",
                     "model.transformer.blocks.0.q_proj.weight",
                     "model.transformer.blocks.0.k_proj.weight",
                     "model.transformer.blocks.0.ff_proj.weight", "d_model", "n_heads",
                     "n_kv_heads", "n_layers", "mlp_hidden_size", "embedding_size",
                     "max_sequence_length", "weight_tying"},
};

static LlamaNaming llama_naming(const Checkpoint *c) {
    return part_find(c, PART_LANGUAGE, llama_probes[LLADA_NAMES].words) ? LLADA_NAMES : LLAMA_NAMES;
}

bool model_is_llama(const Checkpoint *c) {
    return part_find(c, PART_LANGUAGE, llama_probes[LLAMA_NAMES].words) ||
           part_find(c, PART_LANGUAGE, llama_probes[LLADA_NAMES].words);
}

/* What the tensors tell; heads come from the configuration. */
static int llama_sizes(const Config *c, const Checkpoint *checkpoint, LlamaConfig *l) {
    const LlamaProbe *p = &llama_probes[l->naming];
    const int64_t *words = NULL, *query = NULL, *key = NULL, *gate = NULL;
    int heads, key_heads;
    TRY(model_tensor_sizes(checkpoint, PART_LANGUAGE, p->words, 2, &words, c->err));
    TRY(model_tensor_sizes(checkpoint, PART_LANGUAGE, p->query, 2, &query, c->err));
    TRY(model_tensor_sizes(checkpoint, PART_LANGUAGE, p->key, 2, &key, c->err));
    TRY(model_tensor_sizes(checkpoint, PART_LANGUAGE, p->gate, 2, &gate, c->err));
    TRY(config_integer(c->json, p->heads, c->path, 1, 4096, 32, &heads, c->err));
    TRY(config_integer(c->json, p->key_heads, c->path, 1, 4096, heads, &key_heads, c->err));
    int64_t head_width = query[0] / heads;
    if (query[0] % heads)
        return error_set(c->err, "%s: \"%s\" is %d, but the tensors' queries are %lld wide",
                         c->path, p->heads, heads, (long long)query[0]);
    if (key[0] != key_heads * head_width)
        return error_set(
            c->err, "%s: \"%s\" is %d, but the tensors' keys are %lld wide, heads of %lld", c->path,
            p->key_heads, key_heads, (long long)key[0], (long long)head_width);
    l->vocab = (int)words[0];
    l->layers = count_layers(checkpoint, PART_LANGUAGE, p->layer);
    l->block = llama_block((int)words[1], heads, key_heads, (int)gate[0], 0);
    if (head_width * heads != words[1]) l->block.head_width = (int)head_width;
    TRY(check_size(c, "head_dim", head_width));
    TRY(check_size(c, p->width, words[1]));
    TRY(check_size(c, p->ffn, gate[0]));
    TRY(check_size(c, p->layers, l->layers));
    return check_size(c, p->vocab, l->vocab);
}

static int positive_real(const Config *c, const json_t *json, const char *name, double fallback,
                         double *value) {
    TRY(config_real(json, name, c->path, fallback, value, c->err));
    if (*value > 0 && isfinite(*value)) return 0;
    return error_set(c->err, "%s: \"%s\" is %g, expected a positive number", c->path, name, *value);
}

/* "rope_theta" and "rope_scaling", or both in "rope_parameters". */
static int llama_rope(const Config *c, LlamaConfig *l) {
    const json_t *both = json_object_get(c->json, "rope_parameters");
    const json_t *scaling = json_object_get(c->json, "rope_scaling");
    double theta, factor, low, high;
    const char *type;
    if (json_is_object(both)) scaling = both;
    const bool inside = json_is_object(both) && json_object_get(both, "rope_theta");
    TRY(positive_real(c, inside ? both : c->json, "rope_theta", 10000, &theta));
    l->theta = (float)theta;
    if (!scaling || json_is_null(scaling)) return 0;
    if (!json_is_object(scaling))
        return error_set(c->err, "%s: \"rope_scaling\" must be an object", c->path);
    TRY(config_text(scaling, "type", c->path, "default", &type, c->err));
    TRY(config_text(scaling, "rope_type", c->path, type, &type, c->err));
    if (!strcmp(type, "default")) return 0;
    if (strcmp(type, "llama3") != 0)
        return error_set(c->err, "%s: \"rope_scaling\" is \"%s\", expected llama3 or default",
                         c->path, type);
    TRY(positive_real(c, scaling, "factor", 8, &factor));
    TRY(positive_real(c, scaling, "low_freq_factor", 1, &low));
    TRY(positive_real(c, scaling, "high_freq_factor", 4, &high));
    TRY(config_integer(scaling, "original_max_position_embeddings", c->path, 1, 1 << 24, 8192,
                       &l->scaling.original, c->err));
    l->scaling.factor = (float)factor, l->scaling.low = (float)low, l->scaling.high = (float)high;
    return 0;
}

/* Whether the head is the token embeddings. A file that has a head all the same must have the same
 * values there, which is not looked at: both are then used. */
static int llama_tied(const Config *c, const Checkpoint *checkpoint, LlamaConfig *l) {
    const LlamaProbe *p = &llama_probes[l->naming];
    bool head = part_find(checkpoint, PART_LANGUAGE, p->head) != NULL, tied;
    TRY(config_flag(c->json, p->tied, c->path, !head, &tied, c->err));
    if (tied && head)
        return error_set(c->err,
                         "%s: \"%s\" is true, but there is a tensor %s: set it to false to use it, "
                         "or remove the tensor",
                         c->path, p->tied, p->head);
    if (!tied && !head)
        return error_set(c->err, "%s: \"%s\" is false, but there is no tensor %s", c->path, p->tied,
                         p->head);
    l->tied = tied;
    return 0;
}

/* "eos_token_id": a number or a list of them. */
static int llama_stops(const Config *c, LanguageModel *m) {
    const json_t *ids = json_object_get(c->json, "eos_token_id"), *id;
    const size_t count = json_is_array(ids) ? json_array_size(ids) : ids && !json_is_null(ids);
    for (size_t i = 0; i < count; i++) {
        id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX || m->stop_count >= LANGUAGE_STOPS - 2)
            return error_set(c->err, "%s: \"eos_token_id\" must be an id, or a list of at most %d",
                             c->path, LANGUAGE_STOPS - 2);
        m->stops[m->stop_count++] = (int32_t)json_integer_value(id);
    }
    return 0;
}

static int llada_check(const Config *c) {
    static const char why[] = "blocks as LLaDA's published ones are supported";
    TRY(check_text(c, "block_type", TEXTS("llama"), why));
    TRY(check_text(c, "layer_norm_type", TEXTS("rms"), why));
    TRY(check_text(c, "activation_type", TEXTS("silu"), why));
    TRY(check_flag(c, "rope", true, why));
    TRY(check_flag(c, "alibi", false, why));
    TRY(check_flag(c, "include_bias", false, why));
    TRY(check_flag(c, "include_qkv_bias", false, why));
    TRY(check_flag(c, "attention_layer_norm", false, why));
    TRY(check_flag(c, "bias_for_layer_norm", false, why));
    TRY(check_flag(c, "input_emb_norm", false, why));
    TRY(check_flag(c, "scale_logits", false, why));
    return check_flag(c, "layer_norm_with_affine", true, why);
}

static int llama_biases(const Config *c, const char *type, LlamaConfig *l) {
    bool qwen = strcmp(type, "llama") != 0, attention, ffn;
    TRY(check_text(c, "hidden_act", TEXTS("silu"), "LLaMA's blocks have a SiLU"));
    if (qwen) {
        l->block.unbiased = BLOCK_OUT | BLOCK_FFN;
        return check_flag(c, "use_sliding_window", false, "sliding windows are not supported");
    }
    TRY(config_flag(c->json, "attention_bias", c->path, false, &attention, c->err));
    TRY(config_flag(c->json, "mlp_bias", c->path, false, &ffn, c->err));
    l->block.unbiased = (attention ? 0 : BLOCK_QKV | BLOCK_OUT) | (ffn ? 0 : BLOCK_FFN);
    return 0;
}

static int llama_read(const Config *c, const Checkpoint *checkpoint, LlamaConfig *l,
                      LanguageModel *m) {
    static const char packed[] = "quantized weights are not read; take the model's full weights";
    const bool llada = l->naming == LLADA_NAMES;
    const char *type;
    double eps;
    TRY(llada ? check_text(c, "model_type", TEXTS("llada"), "its tensors have LLaDA's names")
              : check_text(c, "model_type", TEXTS("llama", "qwen2", "Dream"),
                           "other kinds with LLaMA's names are not supported"));
    TRY(config_text(c->json, "model_type", c->path, llada ? "llada" : "llama", &type, c->err));
    TRY(check_absent(c, c->json, "quantization_config", packed));
    TRY(llama_sizes(c, checkpoint, l));
    TRY(llada ? llada_check(c) : llama_biases(c, type, l));
    TRY(llama_rope(c, l));
    TRY(positive_real(c, c->json, "rms_norm_eps", llada ? 1e-5 : 1e-6, &eps));
    l->block.eps = (float)eps;
    TRY(config_integer(c->json, llama_probes[l->naming].positions, c->path, 2, 1 << 22,
                       llada ? 1024 : 2048, &l->positions, c->err));
    m->shifted = !llada;
    TRY(llama_stops(c, m));
    return llama_tied(c, checkpoint, l);
}

int model_llama_config(const Checkpoint *checkpoint, LlamaConfig *l, LanguageModel *m, Error *err) {
    Config c;
    *l = (LlamaConfig){.naming = llama_naming(checkpoint)};
    TRY(config_open(&c, checkpoint->path, NULL, err));
    int status = llama_read(&c, checkpoint, l, m);
    config_close(&c);
    return status;
}

/* ---- Preprocessing. ---- */

static int read_numbers(const Config *c, const char *name, bool positive, float out[3]) {
    const json_t *list = json_object_get(c->json, name);
    if (!list || json_is_null(list)) return 0;
    for (size_t i = 0; i < 3; i++) {
        const json_t *number = json_array_get(list, i);
        double value = json_number_value(number);
        if (json_array_size(list) != 3 || !json_is_number(number) || (positive && value <= 0))
            return error_set(c->err, "%s: \"%s\" must be three numbers%s", c->path, name,
                             positive ? " above 0" : "");
        out[i] = (float)value;
    }
    return 0;
}

/* "size" and "crop_size": 224, {"shortest_edge": 224} or {"height": 224, "width": 224}. */
static int check_side(const Config *c, const char *name, const PreprocessConfig *p) {
    static const char *const keys[] = {"shortest_edge", "height", "width"};
    const json_t *size = json_object_get(c->json, name);
    if (!size || json_is_null(size)) return 0;
    int sides = 0;
    if (json_is_object(size)) {
        Config inner = *c;
        inner.json = size;
        for (int i = 0; i < 3; i++) {
            if (!json_object_get(size, keys[i])) continue;
            sides++;
            TRY(check_integer(&inner, keys[i], p->size, "the vision tower's image size"));
        }
        if (sides != (int)json_object_size(size) || !sides)
            return error_set(c->err, "%s: \"%s\" is given in an unknown way", c->path, name);
        if (!strcmp(name, "size") && json_object_get(size, "height") && !p->pad)
            return error_set(c->err,
                             "%s: \"size\" has \"height\" and \"width\": the image would be "
                             "squeezed into a square, which easyfirst does not do; pad it to one "
                             "(\"pad\": true in easyfirst.json, or the option pad \"on\")",
                             c->path);
        return 0;
    }
    return check_integer(c, name, p->size, "the vision tower's image size");
}

static int preprocessor_read(const Config *c, PreprocessConfig *p) {
    static const char clip[] = "only CLIP's preprocessing is supported";
    double factor;
    TRY(check_text(c, "image_processor_type", TEXTS("CLIPImageProcessor", "CLIPImageProcessorFast"),
                   clip));
    TRY(check_text(c, "feature_extractor_type", TEXTS("CLIPFeatureExtractor", "CLIPImageProcessor"),
                   clip));
    TRY(check_flag(c, "do_resize", true, clip));
    TRY(check_side(c, "size", p));
    TRY(check_integer(c, "resample", 3, "images are resized with the bicubic filter"));
    if (!p->pad) TRY(check_flag(c, "do_center_crop", true, "images are cropped to a square"));
    TRY(check_side(c, "crop_size", p));
    TRY(check_flag(c, "do_rescale", true, clip));
    TRY(config_real(c->json, "rescale_factor", c->path, 1.0 / 255, &factor, c->err));
    if (!(fabs(factor * 255 - 1) < 1e-6))
        return error_set(c->err, "%s: \"rescale_factor\" is %g, expected 1/255: %s", c->path,
                         factor, clip);
    TRY(check_flag(c, "do_normalize", true, clip));
    TRY(read_numbers(c, "image_mean", false, p->mean));
    return read_numbers(c, "image_std", true, p->std);
}

int model_preprocess_config(PreprocessConfig *p, const char *path, Error *err) {
    Config c = {.err = err};
    c.path = model_file_beside(path, "preprocessor_config.json", err);
    if (!c.path) return -1;
    int status = 0;
    if (access(c.path, F_OK) == 0) {
        status = config_read(&c.whole, c.path, err);
        c.json = c.whole;
        if (!status) status = preprocessor_read(&c, p);
    }
    config_close(&c);
    return status;
}

/* ---- easyfirst.json. ---- */

static int settings_check(ModelSettings *s, const char *path, Error *err) {
    static const char *const keys[] = {
        "format",        "attention",   "answer_position", "feature_layer",
        "class_token",   "pad",         "image_tokens",    "prompts",
        "languages",     "calibration", "shifted",         "answer_length",
        "chat_template", "context",     "pad_answers",     NULL};
    int format, context; /* open_llama takes it, and "shifted" */
    bool shifted;
    const char *attention, *key;
    json_t *value;
    TRY(config_integer(s->json, "format", path, 1, 1, 1, &format, err));
    json_object_foreach(s->json, key, value) if (names_find(keys, key) < 0) return error_set(
        err, "%s: unknown setting \"%.100s\"", path, key);
    TRY(model_check_prompts(s->json, path, err));
    TRY(model_check_languages(s->json, path, err));
    TRY(calibration_read(&s->calibration, s->json, path, err));
    TRY(model_check_chat(s->json, path, err));
    TRY(config_integer(s->json, "context", path, 2, 1 << 22, 2, &context, err));
    TRY(config_integer(s->json, "answer_length", path, 1, 1 << 20, 0, &s->answer_length, err));
    TRY(config_integer(s->json, "pad_answers", path, 1, 1 << 20, 0, &s->pad_answers, err));
    TRY(config_flag(s->json, "shifted", path, false, &shifted, err));
    TRY(config_text(s->json, "attention", path, "full", &attention, err));
    if (!attention_find(attention, &s->attention))
        return error_set(err,
                         "%s: \"attention\" is \"%s\", expected \"full\", \"block-causal\" or "
                         "\"causal\"",
                         path, attention);
    return config_integer(s->json, "answer_position", path, 0, 1 << 20, 0, &s->answer_position,
                          err);
}

int model_settings_read(ModelSettings *s, const char *folder, Error *err) {
    *s = (ModelSettings){0};
    char *path = path_join(folder, MODEL_SETTINGS, err);
    if (!path) return -1;
    int status = access(path, F_OK) == 0 ? config_read(&s->json, path, err) : 0;
    if (s->json && status == 0) status = settings_check(s, path, err);
    free(path);
    if (status == 0) return 0;
    json_decref(s->json);
    *s = (ModelSettings){0};
    return -1;
}
