/* new.c - a model folder with fresh weights: to train from nothing, or to put a projector and a
 * length predictor to public parts. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apps/commands.h"
#include "apps/new_llama.h"
#include "projector/model_fresh.h"
#include "projector/model_paths.h"
#include "projector/model_write.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "data/files/path.h"

static const CommandHelp help = {
    .name = "new",
    .usage = "OUT --tokenizer FILE [options]\n"
             "OUT --language PATH [--vision PATH] [options]",
    .about =
        "Makes a model folder OUT whose parts are freshly initialized, ready to be trained. The\n"
        "language model is as large as the options say, by themselves an XLM-R base; there is a\n"
        "vision tower if one of its options is given. Parts that exist are taken along with\n"
        "--language and --vision, so that a public XLM-R and a public CLIP get a new projector\n"
        "and a new length predictor. Both folders are plain Hugging Face ones. A LLaDA, Dream,\n"
        "LLaMA or Qwen2 is taken along likewise, without a length predictor. --kind llama and\n"
        "--kind llada make language models of these kinds, to train from nothing (`train\n"
        "pretrain`), autoregressive ones or of masked diffusion. A new projector's\n"
        "output for a few synthetic images has the scale of the word embeddings.",
    .examples =
        "easyfirst new model --tokenizer sentencepiece.bpe.model --layers 6 --width 512 --heads 8\n"
        "easyfirst new model --language xlm-roberta-base --vision clip-vit-large-patch14\n"
        "easyfirst new small --kind llada --tokenizer tokenizer.json --layers 8 --width 512 \\\n"
        "    --heads 8 --ffn 1376 --positions 1024\n"
        "easyfirst new tiny --tokenizer spm.model --width 64 --heads 4 --layers 2 --ffn 128 \\\n"
        "    --image-size 56 --vision-width 32 --vision-heads 2 --vision-layers 2 --vision-ffn 64",
};

/* What --projector offers: the kinds of projectors, and none at all. */
enum { NEW_NONE = PROJECTOR_MLP2X_GELU + 1 };

typedef struct New {
    char out[PATH_MAX], partial[PATH_MAX + 64];
    const char *tokenizer, *language_path, *vision_path;
    int answer_position;
    int projector; /* a ProjectorKind, or NEW_NONE */
    const char *projector_names[NEW_NONE + 2];
    AttentionPattern attention;
    NewKind kind;
    int key_heads; /* of LLaMA's kind; 0: as many as heads */
    bool attention_given, key_heads_given;
    XlmrConfig xlmr;
    VitConfig vit;
    int classes; /* of the length predictor; 0: none */
    uint64_t seed;
    bool xlmr_given, vit_given, classes_given, projector_given, layer_given; /* by options */
    Dtype dtype;
    bool empty;
    Device *device;
    Model model; /* the parts that exist, then the fresh ones, too */
    char *tokenizer_file;
    const char *tokenizer_name; /* in the new folder */
} New;

static bool is_llama(const New *n) {
    return n->model.parts.language.llama != NULL;
}

/* ---- Checks. ---- */

static int take_parts(New *n, Error *err) {
    n->model = (Model){.device = n->device, .parts = {.device = n->device}};
    if (!n->language_path && !n->vision_path) return 0;
    ModelOptions options = {.language = n->language_path,
                            .vision = n->vision_path,
                            .feature_layer =
                                n->layer_given ? n->vit.feature_layer : FEATURE_LAYER_UNSET,
                            .describe_only = true};
    TRY(model_open(&n->model, &options, n->device, err));
    if (n->language_path && !is_llama(n)) n->xlmr = n->model.xlmr.config;
    if (n->model.tower.vit) n->vit = n->model.vit.config;
    return 0;
}

/* A language model of LLaMA's kind has its tokenizer's files, and no length predictor. */
static int check_llama(const New *n, Error *err) {
    if (n->tokenizer)
        return error_set(err, "%s: --tokenizer is for models of XLM-R's kind; %s has its own",
                         n->tokenizer, n->language_path);
    if (!n->model.tokenizer)
        return error_set(err, "%s: has no tokenizer.json (or vocab.json and merges.txt)",
                         n->language_path);
    if (n->classes_given && n->classes > 0)
        return error_set(err,
                         "--length-classes %d: a length predictor is used with XLM-R only, "
                         "and %s is of LLaMA's kind",
                         n->classes, n->language_path);
    return 0;
}

/* Which file it is, and whether the vocabulary has room for its words. */
static int check_tokenizer(New *n, Error *err) {
    if (is_llama(n)) return check_llama(n, err);
    struct stat info;
    const char *folder = n->tokenizer ? n->tokenizer : n->language_path;
    if (!n->tokenizer || (stat(folder, &info) == 0 && S_ISDIR(info.st_mode)))
        n->tokenizer_file = model_tokenizer_file(folder, err);
    else
        n->tokenizer_file = path_format(err, "%s", n->tokenizer);
    if (!n->tokenizer_file) return -1;
    Tokenizer *tokenizer;
    TRY(model_tokenizer_open(&tokenizer, n->tokenizer_file, true, err));
    int size = tokenizer_size(tokenizer);
    n->tokenizer_name = strcmp(tokenizer_kind(tokenizer), "sentencepiece") == 0 ? MODEL_TOKENIZER
                                                                                : "tokenizer.json";
    tokenizer_close(tokenizer);
    if (strcmp(path_name(n->tokenizer_file), "merges.txt") == 0 ||
        strcmp(path_name(n->tokenizer_file), "vocab.json") == 0)
        return error_set(err, "%s: `new` takes sentencepiece.bpe.model or tokenizer.json",
                         n->tokenizer_file);
    if (!n->xlmr.vocab) n->xlmr.vocab = size;
    if (n->xlmr.vocab >= size) return 0;
    return error_set(err, "%s: the tokenizer has %d ids, the language model only %d",
                     n->tokenizer_file, size, n->xlmr.vocab);
}

static bool has_vision(const New *n) {
    return n->vit_given || n->vision_path;
}

static int check_sizes(const New *n, Error *err) {
    if (!has_vision(n)) return 0;
    const VitConfig *v = &n->vit;
    const Tower *taken = n->vision_path ? &n->model.tower : NULL;
    int longest = is_llama(n) ? language_longest(&n->model.parts.language) : xlmr_longest(&n->xlmr);
    if (taken && taken->net) {
        if (tower_feature_rows(taken) + 4 <= longest) return 0;
        return error_set(err,
                         "an image takes %d tokens, but the language model reads only %d: take "
                         "another tower, or more --positions",
                         tower_feature_rows(taken), longest);
    }
    if (v->patch < 1 || v->image_size % v->patch)
        return error_set(err, "--image-size %d is not a multiple of --patch %d", v->image_size,
                         v->patch);
    int rows = vit_feature_rows(v);
    if (rows + 4 > longest)
        return error_set(err,
                         "an image of %d px in patches of %d takes %d tokens, but the language "
                         "model reads only %d: take smaller images, larger patches, or more "
                         "--positions",
                         v->image_size, v->patch, rows, longest);
    return 0;
}

/* ---- Parts. ---- */

/* What is not taken along is made. */
static int make_parts(New *n, Error *err) {
    Model *m = &n->model;
    FreshWeights fresh = {.dtype = n->dtype, .seed = n->seed, .empty = n->empty};
    if (!n->language_path) TRY(model_fresh_language(m, &n->xlmr, fresh, err));
    if (n->vit_given) TRY(model_fresh_vision(m, &n->vit, fresh, err));
    if (m->vision.present && n->projector != NEW_NONE) {
        TRY(model_fresh_projector(m, (ProjectorKind)n->projector, fresh, err));
        if (!n->empty) TRY(model_fresh_projector_scale(m, n->seed, err));
    }
    /* A language model that comes with a length predictor keeps it, unless another is asked for. */
    if (is_llama(n) || (m->length.present && !n->classes_given)) return 0;
    if (!n->classes_given) n->classes = n->xlmr.positions;
    if (n->classes > 0) return model_fresh_length(m, n->classes, fresh, err);
    m->length.present = false;
    return 0;
}

static int write_part(const New *n, const ModelPart *part, const char *name, Error *err) {
    if (n->empty && !part->checkpoint) return model_write_empty(part, n->partial, name, err);
    return model_write_part(part, n->partial, name, err);
}

static json_t *language_json(const New *n) {
    const XlmrConfig *x = &n->xlmr;
    bool pre = x->block.pre_norm;
    return json_pack(
        "{s:[s], s:s, s:f, s:i, s:i, s:s, s:f, s:i, s:f, s:i, s:f, s:i, s:i, s:i, s:i, s:b, "
        "s:s, s:i, s:i}",
        "architectures", pre ? "XLMRobertaXLForMaskedLM" : "XLMRobertaForMaskedLM", "model_type",
        pre ? "xlm-roberta-xl" : "xlm-roberta", "attention_probs_dropout_prob", 0.1, "bos_token_id",
        0, "eos_token_id", 2, "hidden_act", "gelu", "hidden_dropout_prob", 0.1, "hidden_size",
        x->block.width, "initializer_range", 0.02, "intermediate_size", x->block.ffn,
        "layer_norm_eps", 1e-5, "max_position_embeddings", x->positions, "num_attention_heads",
        x->block.heads, "num_hidden_layers", x->layers, "pad_token_id", 1, "tie_word_embeddings", 1,
        "torch_dtype", model_config_dtype(n->dtype), "type_vocab_size", 1, "vocab_size", x->vocab);
}

/* A part's config.json: its own, or for a fresh part `json`. */
static int write_config(const New *n, const ModelPart *part, json_t *json, const char *name,
                        Error *err) {
    if (part->checkpoint) TRY(model_config_beside(&json, part, err));
    return model_write_json(json, n->partial, name, err);
}

static int copy_tokenizer(const New *n, Error *err) {
    static const char *const files[] = {MODEL_TOKENIZER_FILES, "added_tokens.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *name = path_join("language", files[i], err);
        int status =
            name ? model_copy_beside(&n->model.language, files[i], n->partial, name, err) : -1;
        free(name);
        TRY(status);
    }
    return 0;
}

static int write_language(const New *n, Error *err) {
    const ModelPart *part = &n->model.language;
    json_t *json = part->checkpoint ? NULL : language_json(n);
    TRY(write_config(n, part, json, "language/config.json", err));
    if (is_llama(n)) {
        TRY(copy_tokenizer(n, err));
        return model_write_part(part, n->partial, "language/model.safetensors", err);
    }
    char *name = path_join("language", n->tokenizer_name, err);
    int copied = name ? model_copy_file(n->tokenizer_file, n->partial, name, err) : -1;
    free(name);
    TRY(copied);
    return write_part(n, part, "language/model.safetensors", err);
}

static json_t *vision_json(const New *n) {
    const VitConfig *v = &n->vit;
    return json_pack("{s:[s], s:s, s:f, s:s, s:i, s:i, s:i, s:f, s:i, s:i, s:i, s:i, s:i, s:s}",
                     "architectures", "CLIPVisionModel", "model_type", "clip_vision_model",
                     "attention_dropout", 0.0, "hidden_act", "quick_gelu", "hidden_size",
                     v->block.width, "image_size", v->image_size, "intermediate_size", v->block.ffn,
                     "layer_norm_eps", 1e-5, "num_attention_heads", v->block.heads, "num_channels",
                     3, "num_hidden_layers", v->layers, "patch_size", v->patch, "projection_dim",
                     v->block.width, "torch_dtype", model_config_dtype(n->dtype));
}

/* What Hugging Face's image processor has to know; here the tower's size and CLIP's own mean and
 * deviation are used anyway. */
static json_t *preprocess_json(int size) {
    PreprocessConfig p = preprocess_clip_default();
    json_t *mean = json_array(), *std = json_array();
    for (int i = 0; i < 3; i++) {
        json_array_append_new(mean, json_real(real_shortest(p.mean[i])));
        json_array_append_new(std, json_real(real_shortest(p.std[i])));
    }
    return json_pack("{s:s, s:b, s:{s:i}, s:i, s:b, s:{s:i, s:i}, s:b, s:f, s:b, s:o, s:o, s:b}",
                     "image_processor_type", "CLIPImageProcessor", "do_resize", 1, "size",
                     "shortest_edge", size, "resample", 3 /* bicubic */, "do_center_crop", 1,
                     "crop_size", "height", size, "width", size, "do_rescale", 1, "rescale_factor",
                     1.0 / 255, "do_normalize", 1, "image_mean", mean, "image_std", std,
                     "do_convert_rgb", 1);
}

static int write_vision(const New *n, Error *err) {
    const ModelPart *part = &n->model.vision;
    static const char preprocess[] = "vision/preprocessor_config.json";
    json_t *json = part->checkpoint ? NULL : vision_json(n);
    TRY(write_config(n, part, json, "vision/config.json", err));
    TRY(model_write_json(preprocess_json(tower_image_size(&n->model.tower)), n->partial, preprocess,
                         err));
    if (part->checkpoint)
        TRY(model_copy_beside(part, "preprocessor_config.json", n->partial, preprocess, err));
    return write_part(n, part, "vision/model.safetensors", err);
}

static int write_settings(const New *n, Error *err) {
    bool see = n->model.vision.present;
    json_t *json = see ? json_pack("{s:b}", "pad", 1) : json_object();
    if (json && n->answer_position)
        json_object_set_new(json, "answer_position", json_integer(n->answer_position));
    int status =
        model_write_settings(json, n->attention, see ? &n->model.tower : NULL, n->partial, err);
    json_decref(json);
    return status;
}

static int write_parts(const New *n, Error *err) {
    const Model *m = &n->model;
    TRY(model_write_subfolder(n->partial, "language", err));
    TRY(write_language(n, err));
    if (m->vision.present) {
        TRY(model_write_subfolder(n->partial, "vision", err));
        TRY(write_vision(n, err));
    }
    TRY(write_part(n, &m->projector, "projector.safetensors", err));
    TRY(write_part(n, &m->length, "length.safetensors", err));
    return write_settings(n, err);
}

/* ---- The command. ---- */

static void part_words(const New *n, Part kind, char *out, size_t size) {
    const Model *m = &n->model;
    const XlmrConfig *x = &n->xlmr;
    const VitConfig *v = &n->vit;
    const Projector *p = &m->projector_model;
    switch (kind) {
    case PART_LANGUAGE:
        if (is_llama(n)) {
            const BlockConfig *b = language_block(&m->parts.language);
            snprintf(out, size, "%d layers, width %d, %d heads, feed-forward %d, %d tokens",
                     language_layers(&m->parts.language), b->width, b->heads, b->ffn,
                     language_vocab(&m->parts.language));
            break;
        }
        snprintf(out, size, "%d layers, width %d, %d heads, feed-forward %d, %s-norm, %d tokens",
                 x->layers, x->block.width, x->block.heads, x->block.ffn,
                 x->block.pre_norm ? "pre" : "post", x->vocab);
        break;
    case PART_VISION:
        if (m->tower.net) {
            snprintf(out, size, "%d px to a grid of %d, %d convolutions, width %d",
                     m->net.config.image_size, m->net.grid, m->net.count, m->net.config.width);
            break;
        }
        snprintf(out, size,
                 "%d px in patches of %d, %d layers, width %d, %d heads, feed-forward %d",
                 v->image_size, v->patch, v->layers, v->block.width, v->block.heads, v->block.ffn);
        break;
    case PART_PROJECTOR:
        snprintf(out, size, "%s, from width %d to %d", projector_kind_name(p->kind), p->in, p->out);
        break;
    case PART_LENGTH:
        snprintf(out, size, "lengths up to %d", m->length_model.classes);
        break;
    }
}

static void print_parts(const New *n) {
    const Model *m = &n->model;
    const ModelPart *parts[] = {&m->language, &m->vision, &m->projector, &m->length};
    static const char *const names[] = {"language", "vision", "projector", "length"};
    int64_t all = 0;
    for (int i = 0; i < 4; i++) {
        char words[160];
        if (!parts[i]->present) continue;
        int64_t parameters = params_count(&parts[i]->params);
        part_words(n, parts[i]->kind, words, sizeof words);
        fprintf(stderr, "  %-10s %14lld  %s  %s\n", names[i], (long long)parameters,
                parts[i]->checkpoint ? "taken" : "new  ", words);
        all += parameters;
    }
    report_print(stderr, "  %-10s %14lld  parameters, in %s\n", "", (long long)all, n->out);
}

static int run_llama(New *n, Error *err) {
    const XlmrConfig *x = &n->xlmr;
    const NewLlama what = {.out = n->out,
                           .tokenizer = n->tokenizer,
                           .kind = n->kind,
                           .layers = x->layers,
                           .width = x->block.width,
                           .heads = x->block.heads,
                           .key_heads = n->key_heads,
                           .ffn = x->block.ffn,
                           .positions = x->positions,
                           .vocab = x->vocab,
                           .attention_given = n->attention_given,
                           .attention = n->attention,
                           .dtype = n->dtype,
                           .seed = n->seed,
                           .empty = n->empty};
    return new_llama(&what, n->device, err);
}

static int run(New *n, Error *err) {
    const char *const inputs[] = {n->language_path, n->vision_path};
    TRY(model_check_out(n->out, inputs, 2, err));
    TRY(device_open(&n->device, &(DeviceOptions){0}, err));
    if (n->kind != NEW_XLMR) return run_llama(n, err);
    TRY(take_parts(n, err));
    TRY(check_tokenizer(n, err));
    TRY(check_sizes(n, err));
    TRY(folder_begin(n->partial, sizeof n->partial, n->out, err)); /* fails before the work */
    int status = make_parts(n, err);
    if (status == 0) status = write_parts(n, err);
    if (status == 0) status = folder_commit(n->partial, n->out, err);
    if (status)
        folder_discard(n->partial);
    else
        print_parts(n);
    return status;
}

static void groups_make(New *n, OptionGroup groups[3]) {
    XlmrConfig *x = &n->xlmr;
    VitConfig *v = &n->vit;
    for (int i = 0; i < NEW_NONE; i++) n->projector_names[i] = projector_kind_names[i];
    n->projector_names[NEW_NONE] = "none";
    bool *text = &n->xlmr_given, *see = &n->vit_given;
    groups[0] = (OptionGroup){
        "options",
        {{"tokenizer", 0, OPTION_TEXT, "FILE", &n->tokenizer,
          "sentencepiece.bpe.model (default: that of --language)"},
         {"language", 0, OPTION_TEXT, "PATH", &n->language_path,
          "an XLM-R, XLM-R-XL, LLaDA, Dream, LLaMA or Qwen2, folder or file, that\n"
          "is copied"},
         {"vision", 0, OPTION_TEXT, "PATH", &n->vision_path,
          "a CLIP vision tower or EfficientNet-Lite, folder or file, that is copied"},
         {"projector", 0, OPTION_CHOICE, NULL, &n->projector,
          "between tower and language model (default mlp2x_gelu)", .given = &n->projector_given,
          .names = n->projector_names},
         {"length-classes", 0, OPTION_INTEGER, "N", &n->classes,
          "lengths that the length predictor tells apart; 0: no predictor\n"
          "(default: the language model's positions)",
          0, 1 << 20, &n->classes_given},
         {"attention", 0, OPTION_CHOICE, NULL, &n->attention,
          "how the model will be trained (default full; llama without a mask\n"
          "token: causal)",
          .given = &n->attention_given, .names = attention_names},
         {"answer-position", 0, OPTION_INTEGER, "N", &n->answer_position,
          "answers count their positions from N, wherever the prompt ends: a new\n"
          "model then learns to translate sooner (default 0: from the prompt's end)",
          0, 1 << 20},
         {"feature-layer", 0, OPTION_INTEGER, "N", &v->feature_layer,
          "CLIP's layer to take features from (default -2)", -999, 999, &n->layer_given},
         {"dtype", 0, OPTION_CHOICE, NULL, &n->dtype, "type of the new weights (default f32)",
          DTYPE_F32, .names = dtype_choices},
         {"seed", 's', OPTION_SEED, "N", &n->seed, "seed of the new weights (default 1)"},
         {"empty", 0, OPTION_FLAG, NULL, &n->empty,
          "new weights that are all zero and take no space on the disk: for info\n"
          "and reproduce --check, before a large model is downloaded"}}};
    groups[1] = (OptionGroup){
        "a new language model",
        {{"kind", 0, OPTION_CHOICE, NULL, &n->kind,
          "llama: LLaMA's blocks, predictions shifted by one, for autoregressive\n"
          "models and those of Dream's kind; llada: LLaDA's (default xlm-r)",
          .given = text, .names = new_kind_names},
         {"key-heads", 0, OPTION_INTEGER, "N", &n->key_heads,
          "llama, llada: heads of keys and values (default: as many as --heads)", 1, 4096,
          &n->key_heads_given},
         {"layers", 0, OPTION_INTEGER, "N", &x->layers, "(default 12)", 1, 9999, text},
         {"width", 0, OPTION_INTEGER, "N", &x->block.width, "(default 768)", 1, 1 << 16, text},
         {"heads", 0, OPTION_INTEGER, "N", &x->block.heads, "(default 12)", 1, 4096, text},
         {"ffn", 0, OPTION_INTEGER, "N", &x->block.ffn, "width inside of a block (default 3072)", 1,
          1 << 20, text},
         {"pre-norm", 0, OPTION_FLAG, NULL, &x->block.pre_norm,
          "norms in front, as in XLM-R-XL and XXL", .given = text},
         {"positions", 0, OPTION_INTEGER, "N", &x->positions,
          "2 more than the longest sequence (default 514)", 8, 1 << 20, text},
         {"vocabulary", 0, OPTION_INTEGER, "N", &x->vocab,
          "tokens (default: as many as the tokenizer has)", 6, 1 << 24, text}}};
    groups[2] = (OptionGroup){
        "a new vision tower",
        {{"image-size", 0, OPTION_INTEGER, "PX", &v->image_size, "(default 224)", 1, 16384, see},
         {"patch", 0, OPTION_INTEGER, "PX", &v->patch, "(default 14)", 1, 1024, see},
         {"vision-layers", 0, OPTION_INTEGER, "N", &v->layers, "(default 24)", 1, 9999, see},
         {"vision-width", 0, OPTION_INTEGER, "N", &v->block.width, "(default 1024)", 1, 1 << 16,
          see},
         {"vision-heads", 0, OPTION_INTEGER, "N", &v->block.heads, "(default 16)", 1, 4096, see},
         {"vision-ffn", 0, OPTION_INTEGER, "N", &v->block.ffn, "(default 4096)", 1, 1 << 20, see}}};
}

/* What rows of options cannot say. */
static int check_usage(New *n, int count, char **words) {
    if (count != 1)
        return options_wrong(&help,
                             count ? "one folder at a time; \"%s\" is one too many"
                                   : "the name of the new folder is missing%s",
                             count ? words[1] : "");
    if (!words[0][0] || snprintf(n->out, sizeof n->out, "%s", words[0]) >= (int)sizeof n->out)
        return options_wrong(&help, "the name of the new folder is %s",
                             words[0][0] ? "too long" : "empty");
    for (size_t size = strlen(n->out); size > 1 && n->out[size - 1] == '/';) n->out[--size] = 0;
    if (!n->tokenizer && !n->language_path)
        return options_wrong(&help, "a language model needs words: --tokenizer FILE, or --language "
                                    "PATH of a model that has one");
    if (n->language_path && n->xlmr_given)
        return options_wrong(&help,
                             "sizes of a new language model are given, and --language %s, "
                             "which has its own: leave one out",
                             n->language_path);
    if (n->vision_path && n->vit_given)
        return options_wrong(&help,
                             "sizes of a new vision tower are given, and --vision %s, which "
                             "has its own: leave one out",
                             n->vision_path);
    if (n->kind != NEW_XLMR &&
        (has_vision(n) || n->classes_given || n->answer_position || n->xlmr.block.pre_norm))
        return options_wrong(&help,
                             "--kind %s makes a language model alone, whose answers end with a "
                             "token: leave out vision tower, length predictor, --answer-position "
                             "and --pre-norm",
                             new_kind_names[n->kind]);
    if (n->kind == NEW_XLMR && (n->key_heads_given || n->attention == ATTENTION_CAUSAL))
        return options_wrong(&help, "%s is for --kind llama",
                             n->key_heads_given ? "--key-heads" : "--attention causal");
    if (n->projector_given && n->projector != NEW_NONE && !has_vision(n))
        return options_wrong(&help, "--projector needs a vision tower: --vision PATH, or a new one "
                                    "with --image-size and so on");
    return -1;
}

int command_new(int argc, char **argv) {
    New n = {.projector = PROJECTOR_MLP2X_GELU,
             .dtype = DTYPE_F32,
             .seed = 1,
             .xlmr = {.layers = 12,
                      .positions = 514,
                      .block = {.width = 768,
                                .heads = 12,
                                .ffn = 3072,
                                .activation = ACTIVATION_GELU,
                                .eps = 1e-5f}},
             .vit = {.image_size = 224,
                     .patch = 14,
                     .layers = 24,
                     .feature_layer = -2,
                     .block = {.width = 1024,
                               .heads = 16,
                               .ffn = 4096,
                               .pre_norm = true,
                               .activation = ACTIVATION_QUICK_GELU,
                               .eps = 1e-5f}}};
    OptionGroup groups[3];
    groups_make(&n, groups);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = check_usage(&n, argc - first, argv + first);
    if (status < 0) {
        Error err;
        status = run(&n, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    free(n.tokenizer_file);
    if (n.device) model_close(&n.model);
    device_close(n.device);
    return status;
}
