#include "projector/model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "projector/model_chat.h"
#include "projector/model_config.h"
#include "projector/model_languages.h"
#include "projector/model_paths.h"
#include "projector/requests.h"
#include "data/files/file_kind.h"
#include "data/checkpoints/folder_hint.h"
#include "data/files/path.h"
#include "kernels/clock.h"
#include "kernels/int8.h"

static bool path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

static bool path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

const char *const model_pad_names[] = {
    [PAD_AS_MODEL] = "as the model", [PAD_ON] = "on", [PAD_OFF] = "off", NULL};

/* ---- Parts. ---- */

static Dtype arithmetic(const Model *m, const ModelOptions *o, Dtype stored, Error *err) {
    if (o->dtype == DTYPE_NONE) return device_compute_dtype(m->device, stored);
    if (o->dtype == DTYPE_F32) return DTYPE_F32;
    if (o->dtype != DTYPE_BF16) {
        error_set(err, "arithmetic \"%s\": expected auto, f32 or bf16", dtype_name(o->dtype));
        return DTYPE_NONE;
    }
    if (device_has_bf16(m->device)) return DTYPE_BF16;
    error_set(err, "this device (%s) has no bf16 arithmetic: use f32", device_text(m->device));
    return DTYPE_NONE;
}

static int refuse_adapter(const char *path, Error *err) {
    char *adapter = folder_adapter_hint(path);
    if (!adapter) return 0;
    error_set(err, "%s: %s", path, adapter);
    free(adapter);
    return -1;
}

static int checkpoint_add(Model *m, const char *path, const char *stem, const Checkpoint **c,
                          Error *err) {
    TRY(refuse_adapter(path, err));
    TRY(checkpoint_open(&m->checkpoints[m->checkpoint_count], path, stem, err));
    *c = &m->checkpoints[m->checkpoint_count++];
    return 0;
}

static void part_begin(Model *m, ModelPart *part, Part kind, const Checkpoint *c) {
    part->kind = kind;
    part->checkpoint = c;
    part->path = c->path;
    params_init(&part->params, m->device);
}

/* Values into the declared table. */
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
    return 0;
}

/* Which hidden state is the features: a setting, an option, else LLaVA's. */
static int vit_open(Model *m, const ModelOptions *o, const Checkpoint *c, const char *settings,
                    Error *err) {
    VitConfig config;
    TRY(model_vision_config(c, &config, err));
    TRY(config_integer(m->settings, "feature_layer", settings, -10000, 10000, config.feature_layer,
                       &config.feature_layer, err));
    if (o->feature_layer != FEATURE_LAYER_UNSET) config.feature_layer = o->feature_layer;
    TRY(config_flag(m->settings, "class_token", settings, config.class_token, &config.class_token,
                    err));
    part_begin(m, &m->vision, PART_VISION, c);
    if (vit_declare(&m->vit, &config, &m->vision.params, err))
        return error_context(err, "%s", c->path);
    m->tower = (Tower){.vit = &m->vit};
    return 0;
}

/* A convolutional tower has features of its last layer only. A folder's "feature_layer" is that of
 * its own tower. */
static int net_open(Model *m, const ModelOptions *o, const Checkpoint *c, const char *settings,
                    Error *err) {
    EfficientNetConfig config;
    TRY(model_efficientnet_config(c, &config, err));
    if (o->feature_layer != FEATURE_LAYER_UNSET ||
        (!o->vision && json_object_get(m->settings, "feature_layer")))
        return error_set(err,
                         "%s: a convolutional tower has no feature layers to choose from: leave "
                         "the feature layer out",
                         c->path);
    TRY(config_flag(m->settings, "class_token", settings, false, &config.class_token, err));
    part_begin(m, &m->vision, PART_VISION, c);
    if (efficientnet_declare(&m->net, &config, &m->vision.params, err))
        return error_context(err, "%s", c->path);
    m->tower = (Tower){.net = &m->net};
    return 0;
}

static int open_vision(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, NULL, &c, err));
    const char *settings = o->folder ? o->folder : "settings";
    bool convolutional = part_find(c, PART_VISION, "_conv_stem.weight") != NULL;
    TRY(convolutional ? net_open(m, o, c, settings, err) : vit_open(m, o, c, settings, err));
    TRY(part_finish(m, o, &m->vision, err));
    int told, rows = tower_feature_rows(&m->tower);
    TRY(config_integer(m->settings, "image_tokens", settings, 1, 1 << 20, rows, &told, err));
    if (told != rows)
        return error_set(err, "%s: \"image_tokens\" is %d, but the vision tower gives %d", settings,
                         told, rows);
    m->parts.tower = &m->tower;
    return 0;
}

/* Mean, deviation and padding. The size is the tower's own: preprocessor_config.json has had
 * several forms for it, and any other would not fit the tower. */
static int open_preprocess(Model *m, const ModelOptions *o, const char *path, Error *err) {
    PreprocessConfig p = preprocess_clip_default();
    p.size = tower_image_size(&m->tower);
    TRY(config_flag(m->settings, "pad", o->folder ? o->folder : "settings", true, &p.pad, err));
    if (o->pad != PAD_AS_MODEL) p.pad = o->pad == PAD_ON;
    TRY(model_preprocess_config(&p, path, err));
    m->parts.preprocess = p;
    return 0;
}

/* Models of XLM-R's kind have its special tokens, which RoBERTa has, too. */
static int check_specials(const Tokenizer *tokenizer, const char *file, Error *err) {
    const TokenizerSpecials *s = tokenizer_specials(tokenizer);
    if (s->begin == TOKEN_BOS && s->end == TOKEN_EOS && s->pad == TOKEN_PAD &&
        s->unknown == TOKEN_UNK && s->mask >= 0)
        return 0;
    return error_set(
        err,
        "%s: the ids of its tokens <s>, <pad>, </s>, <unk> and <mask> are %d, %d, %d, %d "
        "and %d, expected those of XLM-R or RoBERTa: %d, %d, %d, %d and a mask",
        file, s->begin, s->pad, s->end, s->unknown, s->mask, TOKEN_BOS, TOKEN_PAD, TOKEN_EOS,
        TOKEN_UNK);
}

int model_tokenizer_open(Tokenizer **tokenizer, const char *file, bool xlmr, Error *err) {
    if (tokenizer_open(tokenizer, file, err) == 0) {
        if (!xlmr || check_specials(*tokenizer, file, err) == 0) return 0;
        tokenizer_close(*tokenizer);
        *tokenizer = NULL;
        return -1;
    }
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const char *kind = fd < 0 ? NULL : file_kind_of(fd);
    if (fd >= 0) close(fd);
    return kind ? error_set(err, "%s: %s", file, kind) : -1;
}

/* The tokenizer's file next to a part's weights: the first that is there, else XLM-R's. */
char *model_tokenizer_file(const char *path, Error *err) {
    static const char *const names[] = {MODEL_TOKENIZER, "tokenizer.json", "merges.txt"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *file = model_file_beside(path, names[i], err);
        if (!file || path_exists(file)) return file;
        free(file);
    }
    return model_file_beside(path, MODEL_TOKENIZER, err);
}

/* Tokens that somebody added to the vocabulary are not in the tokenizer's own file. */
static int check_added_tokens(const char *weights, int size, Error *err) {
    char *file = model_file_beside(weights, "added_tokens.json", err);
    json_t *added = NULL, *id;
    const char *token;
    int status = file ? 0 : -1;
    if (file && path_exists(file)) status = config_read(&added, file, err);
    json_object_foreach(added, token, id) if (status == 0 && json_integer_value(id) >= size)
        status = error_set(err,
                           "%s: adds \"%.100s\" to the vocabulary, which the tokenizer's "
                           "file lacks; added tokens are not supported",
                           file, token);
    json_decref(added);
    free(file);
    return status;
}

static int open_tokenizer(Model *m, const ModelOptions *o, const char *file, const char *weights,
                          Error *err) {
    if (!path_exists(file) && o->describe_only) return 0;
    if (!path_exists(file))
        return error_set(
            err,
            "%s: missing; put XLM-R's tokenizer file, or a tokenizer.json, next to the "
            "weights",
            file);
    const Xlmr *xlmr = m->parts.language.xlmr;
    TRY(model_tokenizer_open(&m->tokenizer, file, xlmr && xlmr->config.kind == ENCODER_XLMR, err));
    int size = tokenizer_size(m->tokenizer), vocab = language_vocab(&m->parts.language);
    if (size > vocab)
        return error_set(err, "%s: the tokenizer has %d ids, but the model in %s only %d", file,
                         size, weights, vocab);
    m->parts.tokenizer = m->tokenizer;
    return check_added_tokens(weights, size, err);
}

/* Only predictions that are shifted can be those of the next token. */
static int check_causal(const Model *m, const ModelOptions *o, bool shifted, Error *err) {
    if (m->parts.attention != ATTENTION_CAUSAL || shifted) return 0;
    return error_set(
        err,
        "%s: \"attention\" is \"causal\", which needs a language model of LLaMA's kind "
        "whose predictions are shifted by one",
        o->folder);
}

/* Settings that XLM-R does not have are not passed over. */
static int check_xlmr_settings(const Model *m, const ModelOptions *o, EncoderKind kind,
                               Error *err) {
    static const char *const others[] = {"shifted", "chat_template", "context"};
    const size_t count = kind == ENCODER_MODERNBERT ? 2 : 3;
    for (size_t i = 0; i < count && !o->language; i++)
        if (json_object_get(m->settings, others[i]))
            return error_set(err,
                             "%s: \"%s\" is for language models of LLaMA's kind, and this one is "
                             "%s: leave it out",
                             o->folder, others[i], kind == ENCODER_XLMR ? "XLM-R's" : "an encoder");
    return 0;
}

/* Memory is taken for the longest sequence, and Dream's configuration, for one, says 131,072. */
enum { CONTEXT = 8192 };

static int take_context(const Model *m, const ModelOptions *o, int *positions, Error *err) {
    const int most = *positions, usual = most < CONTEXT ? most : CONTEXT;
    return config_integer(o->language ? NULL : m->settings, "context",
                          o->folder ? o->folder : "settings", 2, most, usual, positions, err);
}

static int open_xlmr(Model *m, const ModelOptions *o, const Checkpoint *c, Error *err) {
    XlmrConfig config;
    TRY(model_language_config(c, &config, !o->headers_only, err));
    TRY(check_xlmr_settings(m, o, config.kind, err));
    TRY(check_causal(m, o, false, err));
    if (config.kind == ENCODER_MODERNBERT) TRY(take_context(m, o, &config.positions, err));
    part_begin(m, &m->language, PART_LANGUAGE, c);
    if (xlmr_declare(&m->xlmr, &config, &m->language.params, err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->language, err));
    m->parts.language = language_of_xlmr(&m->xlmr);
    return 0;
}

/* Whether predictions are shifted is a setting of the folder, which is that of its own language
 * model; else as such models are published. */
static int open_llama(Model *m, const ModelOptions *o, const Checkpoint *c, Error *err) {
    LlamaConfig config;
    LanguageModel traits = language_of_llama(&m->llama);
    TRY(model_llama_config(c, &config, &traits, err));
    if (!o->language)
        TRY(config_flag(m->settings, "shifted", o->folder ? o->folder : "settings", traits.shifted,
                        &traits.shifted, err));
    TRY(take_context(m, o, &config.positions, err));
    TRY(check_causal(m, o, traits.shifted, err));
    part_begin(m, &m->language, PART_LANGUAGE, c);
    if (llama_declare(&m->llama, &config, &m->language.params, err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->language, err));
    m->parts.language = traits;
    return 0;
}

static void add_stop(LanguageModel *m, int32_t id) {
    for (int i = 0; i < m->stop_count; i++)
        if (m->stops[i] == id) return;
    if (id >= 0 && m->stop_count < LANGUAGE_STOPS) m->stops[m->stop_count++] = id;
}

/* The special tokens of a model of LLaMA's kind are its tokenizer's. */
static int take_specials(LanguageModel *m, const Tokenizer *tokenizer, const char *file,
                         Error *err) {
    const TokenizerFrame frame = tokenizer_frame(tokenizer);
    const TokenizerSpecials *specials = tokenizer_specials(tokenizer);
    if (frame.before_count > 1 || frame.after_count > 1)
        return error_set(err,
                         "%s: %zu special tokens before a text and %zu after it, expected at most "
                         "one each",
                         file, frame.before_count, frame.after_count);
    if (frame.before_count) m->begin = frame.before[0];
    if (frame.after_count) m->end = frame.after[0];
    add_stop(m, specials->end);
    add_stop(m, specials->turn_end);
    return 0;
}

/* BERT's [CLS] and [SEP], and what ModernBERT has instead. */
static int take_frame(LanguageModel *m, const Tokenizer *tokenizer, const char *file, Error *err) {
    const TokenizerFrame frame = tokenizer_frame(tokenizer);
    const TokenizerSpecials *specials = tokenizer_specials(tokenizer);
    m->begin = frame.before_count == 1 ? frame.before[0] : specials->begin;
    m->end = frame.after_count == 1 ? frame.after[0] : specials->end;
    if (frame.before_count < 2 && frame.after_count < 2 && m->begin >= 0 && m->end >= 0 &&
        specials->end == m->end && specials->mask >= 0)
        return 0;
    return error_set(err,
                     "%s: %zu special tokens before a text and %zu after it, the end of a text is "
                     "%d and the mask %d; expected one each, the last one the end, and a mask",
                     file, frame.before_count, frame.after_count, specials->end, specials->mask);
}

/* The most tokens of an autoregressive model's answer, which ends with a token of its own, where
 * the folder does not say it: not more than half of the sequence. */
enum { CAUSAL_ANSWER = 256 };

/* A model of LLaMA's kind without a token to mask is an autoregressive one, unless its folder says
 * otherwise. */
static void take_causal(Model *m, const ModelOptions *o) {
    Multimodal *parts = &m->parts;
    const bool told = !o->language && json_object_get(m->settings, "attention");
    if (!told && parts->language.shifted && tokenizer_mask_id(m->tokenizer) < 0)
        parts->attention = ATTENTION_CAUSAL;
    if (parts->attention != ATTENTION_CAUSAL || parts->answer_length) return;
    const int half = language_longest(&parts->language) / 2;
    parts->answer_length = half < CAUSAL_ANSWER ? half : CAUSAL_ANSWER;
}

/* An encoder that was trained with padded answers ends them itself. */
static int take_padding(const Model *m, Multimodal *parts, Error *err) {
    if (!parts->pad_answers) return 0;
    if (parts->language.end < 0)
        return error_set(
            err,
            "%s: the folder's easyfirst.json has \"pad_answers\", which is for encoders "
            "with </s>; use \"answer_length\"",
            m->language.path);
    add_stop(&parts->language, parts->language.end);
    return 0;
}

static int open_language(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, NULL, &c, err));
    TRY(model_is_llama(c) ? open_llama(m, o, c, err) : open_xlmr(m, o, c, err));
    char *file = model_tokenizer_file(path, err);
    if (!file) return -1;
    int status = open_tokenizer(m, o, file, c->path, err);
    if (status == 0 && m->tokenizer && m->parts.language.llama)
        status = take_specials(&m->parts.language, m->tokenizer, file, err);
    else if (status == 0 && m->tokenizer && m->xlmr.config.kind != ENCODER_XLMR)
        status = take_frame(&m->parts.language, m->tokenizer, file, err);
    if (status == 0) status = take_padding(m, &m->parts, err);
    if (status == 0 && m->tokenizer && m->parts.language.llama) {
        take_causal(m, o);
        status = model_chat_open(m, o, c->path, err);
    }
    free(file);
    return status;
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
    if (m->parts.language.llama)
        return error_set(err,
                         "%s: a length predictor is used with XLM-R only, and the language model "
                         "%s is of LLaMA's kind: leave it out, and give the answer's length",
                         c->path, m->language.path);
    const int64_t *classes = NULL;
    TRY(model_tensor_sizes(c, PART_LENGTH, "length_predictor.2.weight", 2, &classes, err));
    part_begin(m, &m->length, PART_LENGTH, c);
    if (length_declare(&m->length_model, &m->xlmr.config.block, (int)classes[0], &m->length.params,
                       err))
        return error_context(err, "%s", c->path);
    TRY(part_finish(m, o, &m->length, err));
    m->parts.length = &m->length_model;
    return 0;
}

/* The rows of an image, if the projector has positions; else 0. */
static int projector_rows(const Model *m, const Checkpoint *c, int *rows, Error *err) {
    const char *name = "model.mm_projector.position_embedding.weight";
    const int64_t *shape = NULL;
    *rows = 0;
    if (!part_find(c, PART_PROJECTOR, name)) return 0;
    TRY(model_tensor_sizes(c, PART_PROJECTOR, name, 2, &shape, err));
    if (m->vision.present && shape[0] != tower_feature_rows(&m->tower))
        return error_set(err,
                         "%s: the projector has positions of %lld rows, the vision tower %s gives "
                         "%d rows: they belong to different models",
                         c->path, (long long)shape[0], m->vision.path,
                         tower_feature_rows(&m->tower));
    *rows = (int)shape[0];
    return 0;
}

static int open_projector(Model *m, const ModelOptions *o, const char *path, Error *err) {
    const Checkpoint *c;
    TRY(checkpoint_add(m, path, "projector", &c, err));
    const char *first = "model.mm_projector.0.weight";
    bool two = part_find(c, PART_PROJECTOR, first) != NULL;
    const int64_t *shape = NULL;
    TRY(model_tensor_sizes(c, PART_PROJECTOR, two ? first : "model.mm_projector.weight", 2, &shape,
                           err));
    if (m->vision.present && shape[1] != tower_width(&m->tower))
        return error_set(
            err,
            "%s: the projector reads features of width %lld, the vision tower %s gives "
            "%d: they belong to different models",
            c->path, (long long)shape[1], m->vision.path, tower_width(&m->tower));
    if (m->language.present && shape[0] != language_block(&m->parts.language)->width)
        return error_set(
            err,
            "%s: the projector writes tokens of width %lld, the language model %s reads "
            "%d: it was trained for another one",
            c->path, (long long)shape[0], m->language.path,
            language_block(&m->parts.language)->width);
    int rows;
    TRY(projector_rows(m, c, &rows, err));
    part_begin(m, &m->projector, PART_PROJECTOR, c);
    TRY(projector_declare(&m->projector_model, two ? PROJECTOR_MLP2X_GELU : PROJECTOR_LINEAR,
                          (int)shape[1], (int)shape[0], rows, &m->projector.params, err));
    TRY(part_finish(m, o, &m->projector, err));
    m->parts.projector = &m->projector_model;
    return 0;
}

/* ---- The folder. ---- */

static int open_settings(Model *m, const ModelOptions *o, Error *err) {
    if (!o->folder) return 0;
    if (!path_is_folder(o->folder)) {
        char *hint = folder_hint(o->folder);
        if (hint)
            error_set(err, "%s: %s", o->folder, hint);
        else
            error_set(err, "%s: %s; expected a model folder (with language/, and vision/ to see)",
                      o->folder, path_exists(o->folder) ? "not a folder" : "no such folder");
        free(hint);
        return -1;
    }
    TRY(refuse_adapter(o->folder, err));
    ModelSettings settings;
    TRY(model_settings_read(&settings, o->folder, err));
    m->settings = settings.json;
    m->parts.attention = settings.attention;
    m->parts.answer_position = settings.answer_position;
    m->parts.answer_length = settings.answer_length;
    m->parts.pad_answers = settings.pad_answers;
    bool own = !o->vision && !o->language && !o->projector && !o->length && !o->adapter;
    if (own) m->calibration = settings.calibration;
    return 0;
}

/* The places of the parts: as named, else in the folder if they are there; NULL otherwise. */
typedef struct Places {
    const char *vision, *language, *projector, *length;
    char *own[4]; /* those in the folder, to be freed */
} Places;

static int find_place(const char **place, char **own, const char *named, const char *folder,
                      const char *name, Error *err) {
    *place = named;
    if (named || !folder) return 0;
    *own = path_join(folder, name, err);
    if (!*own) return -1;
    if (path_exists(*own)) *place = *own;
    return 0;
}

static int find_places(Places *p, const ModelOptions *o, Error *err) {
    TRY(find_place(&p->language, &p->own[0], o->language, o->folder, "language", err));
    TRY(find_place(&p->vision, &p->own[1], o->vision, o->folder, "vision", err));
    TRY(find_place(&p->length, &p->own[2], o->length, o->folder, "length.safetensors", err));
    TRY(find_place(&p->projector, &p->own[3], o->projector, o->folder, "projector.safetensors",
                   err));
    /* A plain Hugging Face folder of a language model is a model, too. */
    if (!p->language && !p->vision && o->folder) p->language = o->folder;
    if (p->language || p->vision || p->projector) return 0;
    return error_set(err, "no model is named: give a model folder, or a part of one");
}

static int open_places(Model *m, const ModelOptions *o, const Places *p, Error *err) {
    if (p->language) TRY(open_language(m, o, p->language, err));
    TRY(open_length(m, o, p->length, err));
    if (o->text_only) return 0;
    if (p->vision) {
        TRY(open_vision(m, o, p->vision, err));
        TRY(open_preprocess(m, o, p->vision, err));
    }
    if (p->projector) TRY(open_projector(m, o, p->projector, err));
    return model_chat_image_lead(m, err);
}

static int check_answers(const Model *m, const ModelOptions *o, Error *err) {
    if (!o->answers || !language_present(&m->parts.language)) return 0;
    if (m->tokenizer) TRY(multimodal_check_mask(&m->parts, err));
    if (!m->parts.length && !o->answer_length && !m->parts.answer_length)
        return error_set_code(err, ERROR_NO_LENGTH,
                              "this model has no length predictor: say how many tokens an answer "
                              "shall have, or name one");
    const int length =
        m->parts.length || o->answer_length ? o->answer_length : m->parts.answer_length;
    return multimodal_check_length(&m->parts, false, length, err);
}

/* What a file has besides must not change what its parts compute. */
static int check_unknown(const Model *m, Error *err) {
    const ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    for (int c = 0; c < m->checkpoint_count; c++) {
        PartSources sources[4];
        int count = 0;
        for (int i = 0; i < 4; i++)
            if (parts[i]->present && parts[i]->checkpoint == &m->checkpoints[c])
                sources[count++] = parts[i]->sources;
        TRY(part_check_unknown(sources, count, err));
    }
    return 0;
}

/* The adapter's matrices into the weights; of a model that opens without its vision tower, those of
 * the tower are left out. */
static int merge_adapter(Model *m, const ModelOptions *o, Error *err) {
    ModelPart *parts[] = {&m->vision, &m->projector, &m->language, &m->length};
    Params *tables[4];
    int count = 0;
    if (!o->adapter) return 0;
    TRY(adapter_open(&m->adapter, o->adapter, err));
    for (int i = 0; i < 4; i++)
        if (parts[i]->present) tables[count++] = &parts[i]->params;
    const AdapterMerge merge = o->headers_only    ? ADAPTER_CHECK
                               : o->describe_only ? ADAPTER_STORED
                                                  : ADAPTER_COMPUTED;
    return adapter_merge(&m->adapter, tables, count, o->text_only, merge, err);
}

/* ---- A language model that is spread over several ranks. ---- */

/* The bytes of the parts that the first rank has besides. */
static size_t other_bytes(const Model *m) {
    const ModelPart *parts[] = {&m->vision, &m->projector, &m->length};
    size_t bytes = 0;
    for (int i = 0; i < 3; i++)
        if (parts[i]->present) bytes += params_stored_bytes(&parts[i]->params);
    return bytes;
}

int model_spread_part(const Model *m, int number, int ranks, SpreadPart *part, Error *err) {
    const bool mapped = device_kind(m->device) == DEVICE_CPU;
    return spread_part(part, &m->parts.language, number, ranks, mapped, other_bytes(m), err);
}

static int spread_language(Model *m, const ModelOptions *o, Error *err) {
    SpreadPart part;
    if (o->layers_over < 2 || !m->language.present) return 0;
    TRY(model_spread_part(m, comm_rank(o->comm) % o->layers_over, o->layers_over, &part, err));
    spread_leave_out(&m->language.params, &m->parts.language, &part);
    TRY(spread_open(&m->spread, o->comm, &part, &m->parts.language, m->device, err));
    m->parts.language.spread = m->spread;
    return 0;
}

/* Bytes of weights from which on preparing them is worth a word, however busy the machine is. */
enum { LOADING_LEAST = 100 << 20 };

/* How far preparing is, told at most five times a second, and not for the first second. */
typedef struct Loading {
    const ModelOptions *o;
    const char *path;
    size_t done, all;
    double begun, told;
} Loading;

static void loading_tell(void *user, size_t bytes) {
    Loading *l = user;
    l->done += bytes;
    double now = clock_seconds();
    if (now - l->begun < 1 || now - l->told < 0.2) return;
    l->told = now;
    l->o->loading(l->o->loading_user, l->path, l->done, l->all);
}

static size_t bytes_to_prepare(const Params *params) {
    size_t bytes = 0;
    for (int i = 0; i < params->count; i++)
        if (!params->items[i].idle) bytes += tensor_stored_bytes(params->items[i].value);
    return bytes;
}

/* All weights into the device's form: what takes time, after everything was checked. */
static int prepare_parts(Model *m, const ModelOptions *o, Error *err) {
    ModelPart *parts[] = {&m->language, &m->length, &m->vision, &m->projector};
    Loading loading = {.o = o, .begun = clock_seconds()};
    const int count = m->spread && !spread_leads(m->spread) ? 1 : 4;
    for (int i = 0; i < count; i++)
        if (parts[i]->present) loading.all += bytes_to_prepare(&parts[i]->params);
    int status = 0;
    for (int i = 0; i < count && status == 0; i++) {
        if (!parts[i]->present) continue;
        loading.path = parts[i]->path;
        bool told = o->loading && loading.all >= LOADING_LEAST;
        PartProgress progress = {told ? loading_tell : NULL, &loading};
        status = part_prepare_with_progress(&parts[i]->sources, parts[i]->compute, progress, err);
    }
    if (status == 0) adapter_release(&m->adapter, true);
    m->prepare_s = clock_seconds() - loading.begun;
    if (loading.told > 0) o->loading(o->loading_user, NULL, loading.all, loading.all);
    return status;
}

static int open_parts(Model *m, const ModelOptions *o, Error *err) {
    Places places = {0};
    TRY(open_settings(m, o, err));
    int status = find_places(&places, o, err);
    if (status == 0 && o->from && o->to) /* the list is of the folder's own language model */
        status = model_check_pair(o->language || o->adapter ? NULL : m->settings, o->from, o->to,
                                  o->folder, err);
    if (status == 0) status = open_places(m, o, &places, err);
    for (int i = 0; i < 4; i++) free(places.own[i]);
    if (status == 0 && !o->headers_only) status = check_unknown(m, err);
    if (status == 0) status = check_answers(m, o, err);
    if (status == 0) status = spread_language(m, o, err);
    if (status == 0) status = merge_adapter(m, o, err);
    if (status || o->describe_only) return status;
    return prepare_parts(m, o, err);
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
    adapter_close(&m->adapter);
    spread_close(m->spread);
    vit_free(&m->vit);
    efficientnet_free(&m->net);
    xlmr_free(&m->xlmr);
    llama_free(&m->llama);
    tokenizer_close(m->tokenizer);
    json_decref(m->settings);
    free(m->image_lead), ids_free(&m->image_lead_ids);
    *m = (Model){0};
}
