#include "data/checkpoints/part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A naming scheme: the canonical prefix `from` is `to` in such files, after the prefixes of
 * wrappers. */
typedef struct Naming {
    const char *from, *to;
} Naming;

enum { NAMINGS = 8, NAME_SIZE = 1200, UNNEEDED = 16, PROBES = 6 };

static const struct {
    const char *name;
    const char *probe[PROBES]; /* a file that has one of these, renamed, uses the scheme */
    Naming namings[NAMINGS];
    /* Tensors in public files of this part that have no effect: full names, or prefixes that end in
     * '.'. */
    const char *unneeded[UNNEEDED];
} part_table[] = {
    [PART_VISION] = {"vision tower",
                     {"vision_model.embeddings.patch_embedding.weight", "_conv_stem.weight"},
                     {{"vision_model.", "vision_model."},
                      {"vision_model.", ""},
                      {"vision_model.", "vision_tower.vision_tower.vision_model."},
                      {"vision_model.", "vision_tower.vision_model."},
                      {"vision_model.", "vision_tower."},
                      {"_", "_"}}, /* EfficientNet-Lite */
                     {"text_model.", "text_projection.", "visual_projection.", "logit_scale",
                      "language_model.", "embed_tokens.", "layers.", "norm.", "lm_head.",
                      "classifier.", "_fc."}},
    [PART_LANGUAGE] = {"language model",
                       {"roberta.embeddings.word_embeddings.weight", "model.embed_tokens.weight",
                        "model.transformer.wte.weight", "bert.embeddings.word_embeddings.weight",
                        "model.embeddings.tok_embeddings.weight"},
                       {{"", ""}},
                       {"roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids",
                        "roberta.pooler.", "lm_head.decoder.weight", "lm_head.decoder.bias",
                        "lm_head.bias", "fake_layer.", "bert.pooler.", "cls.seq_relationship.",
                        "cls.predictions.decoder.weight", "cls.predictions.decoder.bias",
                        "decoder.weight"}},
    [PART_PROJECTOR] = {"projector",
                        {"model.mm_projector.weight", "model.mm_projector.0.weight"},
                        {{"model.mm_projector.", "mm_projector."},
                         {"model.mm_projector.", "multi_modal_projector."}},
                        {"language_model.", "embed_tokens.", "layers.", "norm.", "lm_head."}},
    [PART_LENGTH] = {"length predictor", {"length_predictor.0.weight"}, {{"", ""}}, {NULL}},
};
enum { PARTS = sizeof part_table / sizeof *part_table };

/* Prefixes of each part's names in files, after the wrappers: tensors of a part that is not loaded
 * from a file are expected in it. */
static const char *const beginnings[PARTS][4] = {
    [PART_VISION] = {"vision_model.", "vision_tower."},
    [PART_LANGUAGE] = {"roberta.", "lm_head.", "bert.", "cls."},
    [PART_PROJECTOR] = {"mm_projector.", "multi_modal_projector."},
    [PART_LENGTH] = {"length_predictor.", "length_trm."},
};

/* Prefixes of data parallelism, torch.compile, PEFT and larger models. */
static const char *const wrappers[] = {"module.", "_orig_mod.", "base_model.", "model."};

const char *part_name(Part part) {
    return part_table[part].name;
}

static bool begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

/* The name without its wrappers. */
static const char *unwrapped(const char *name) {
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++)
        if (begins(name, wrappers[i])) return unwrapped(name + strlen(wrappers[i]));
    return name;
}

/* A file's naming of a part. */
typedef struct FileNaming {
    const Naming *naming; /* NULL: the file has no such part */
    char prefix[64];      /* of wrappers */
} FileNaming;

/* Hugging Face's LLaVA names the two layers linear_1 and linear_2, LLaVA itself 0 and 2 (a
 * Sequential). */
static void rename_layers(char *name, size_t size) {
    static const char *const pairs[][2] = {{"projector.0.", "projector.linear_1."},
                                           {"projector.2.", "projector.linear_2."}};
    for (int i = 0; i < 2; i++) {
        char *at = strstr(name, pairs[i][0]);
        if (!at) continue;
        char rest[64];
        snprintf(rest, sizeof rest, "%s", at + strlen(pairs[i][0]));
        snprintf(at, size - (size_t)(at - name), "%s%s", pairs[i][1], rest);
    }
}

/* The first BERTs call a LayerNorm's weight and bias gamma and beta. */
static bool rename_norm(char *name) {
    static const char *const pairs[][2] = {{".LayerNorm.weight", "gamma"},
                                           {".LayerNorm.bias", "beta"}};
    for (int i = 0; i < 2; i++) {
        const size_t length = strlen(name), size = strlen(pairs[i][0]);
        if (length < size || strcmp(name + length - size, pairs[i][0]) != 0) continue;
        strcpy(strrchr(name, '.') + 1, pairs[i][1]); /* shorter */
        return true;
    }
    return false;
}

static const CheckpointTensor *find_named(const Checkpoint *checkpoint, const FileNaming *naming,
                                          const char *name) {
    char file_name[NAME_SIZE];
    if (!naming->naming || !begins(name, naming->naming->from)) return NULL;
    snprintf(file_name, sizeof file_name, "%s%s%s", naming->prefix, naming->naming->to,
             name + strlen(naming->naming->from));
    const CheckpointTensor *t = checkpoint_find(checkpoint, file_name);
    if (!t && rename_norm(file_name)) return checkpoint_find(checkpoint, file_name);
    if (t || !strstr(file_name, "multi_modal")) return t;
    rename_layers(file_name, sizeof file_name);
    return checkpoint_find(checkpoint, file_name);
}

/* The wrappers before the tensor `probe` in this naming; the first of a sorted list. */
static bool find_prefix(const Checkpoint *checkpoint, const Naming *naming, const char *probe,
                        FileNaming *found) {
    char names[2][NAME_SIZE];
    snprintf(names[0], NAME_SIZE, "%s%s", naming->to, probe + strlen(naming->from));
    snprintf(names[1], NAME_SIZE, "%s", names[0]);
    rename_layers(names[1], NAME_SIZE);
    for (size_t i = 0; i < checkpoint->count; i++) {
        const char *name = checkpoint->tensors[i].name, *rest = unwrapped(name);
        if (strcmp(rest, unwrapped(names[0])) && strcmp(rest, unwrapped(names[1]))) continue;
        /* A scheme's own name may begin as a wrapper does: "model.". */
        const size_t own = strlen(rest) + strlen(names[0]) - strlen(unwrapped(names[0]));
        if (own > strlen(name)) continue;
        const size_t size = strlen(name) - own;
        if (size >= sizeof found->prefix) continue;
        found->naming = naming;
        snprintf(found->prefix, sizeof found->prefix, "%.*s", (int)size, name);
        return true;
    }
    return false;
}

static FileNaming find_naming(const Checkpoint *checkpoint, Part part) {
    FileNaming found = {0};
    for (int i = 0; i < NAMINGS && part_table[part].namings[i].from; i++)
        for (int p = 0; p < PROBES && part_table[part].probe[p]; p++)
            if (begins(part_table[part].probe[p], part_table[part].namings[i].from) &&
                find_prefix(checkpoint, &part_table[part].namings[i], part_table[part].probe[p],
                            &found))
                return found;
    return found;
}

bool part_present(const Checkpoint *checkpoint, Part part) {
    return find_naming(checkpoint, part).naming != NULL;
}

static bool all_zero(const CheckpointTensor *t) {
    const unsigned char *bytes = t->value.data;
    size_t n = tensor_bytes(t->value);
    for (size_t i = 0; i < n; i++)
        if (bytes[i]) return false;
    return true;
}

/* XLM-R's and BERT's heads. */
static const struct {
    const char *bias, *decoder_bias, *decoder, *words;
} heads[] = {
    {"lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight",
     "roberta.embeddings.word_embeddings.weight"},
    {"cls.predictions.bias", "cls.predictions.decoder.bias", "cls.predictions.decoder.weight",
     "bert.embeddings.word_embeddings.weight"},
    {NULL, NULL, "decoder.weight", "model.embeddings.tok_embeddings.weight"}, /* ModernBERT's */
};
enum { HEADS = sizeof heads / sizeof *heads };

/* The vocabulary bias is named lm_head.bias, lm_head.decoder.bias, or both, of which one may be an
 * unused zero. */
static const CheckpointTensor *find_vocab_bias(const Checkpoint *checkpoint,
                                               const FileNaming *naming, int head) {
    const CheckpointTensor *own = find_named(checkpoint, naming, heads[head].bias);
    const CheckpointTensor *decoder = find_named(checkpoint, naming, heads[head].decoder_bias);
    if (own && decoder) return all_zero(own) ? decoder : own;
    return own ? own : decoder;
}

/* Both, nonzero and different: ambiguous. */
static int check_vocab_bias(const Checkpoint *checkpoint, const FileNaming *naming, int head,
                            Error *err) {
    if (!heads[head].bias) return 0;
    const CheckpointTensor *own = find_named(checkpoint, naming, heads[head].bias);
    const CheckpointTensor *decoder = find_named(checkpoint, naming, heads[head].decoder_bias);
    if (!own || !decoder || own->value.data == decoder->value.data || all_zero(own) ||
        all_zero(decoder))
        return 0;
    if (own->value.dtype == decoder->value.dtype && tensor_same_shape(own->value, decoder->value) &&
        !memcmp(own->value.data, decoder->value.data, tensor_bytes(own->value)))
        return 0;
    return error_set(err, "%s: %s and %s differ, and only one bias can be used; remove the other",
                     checkpoint->path, own->name, decoder->name);
}

static const CheckpointTensor *find_in(const Checkpoint *checkpoint, Part part,
                                       const FileNaming *naming, const char *name) {
    for (int i = 0; i < HEADS && part == PART_LANGUAGE; i++)
        if (heads[i].bias && !strcmp(name, heads[i].bias))
            return find_vocab_bias(checkpoint, naming, i);
    return find_named(checkpoint, naming, name);
}

const CheckpointTensor *part_find(const Checkpoint *checkpoint, Part part, const char *name) {
    FileNaming naming = find_naming(checkpoint, part);
    return find_in(checkpoint, part, &naming, name);
}

bool part_head_untied(const Checkpoint *checkpoint, bool thorough) {
    const CheckpointTensor *head = NULL, *words = NULL;
    for (int i = 0; i < HEADS && !words; i++) {
        head = part_find(checkpoint, PART_LANGUAGE, heads[i].decoder);
        words = part_find(checkpoint, PART_LANGUAGE, heads[i].words);
    }
    if (!head || !words || tensor_count(head->value) == 0) return false;
    if (head->value.data == words->value.data) return false;
    if (head->value.dtype != words->value.dtype || !tensor_same_shape(head->value, words->value))
        return true;
    const float *scales[] = {head->value.scale, words->value.scale};
    size_t scale_bytes = scales[0] ? (size_t)head->value.shape[0] * sizeof(float) : 0;
    if (!scales[0] != !scales[1] || (scales[0] && memcmp(scales[0], scales[1], scale_bytes)))
        return true;
    const char *a = head->value.data, *b = words->value.data;
    size_t size = tensor_bytes(head->value), step = thorough || size < 1 << 20 ? size : size / 16;
    size_t part = thorough || size < 1 << 20 ? size : 4096;
    for (size_t at = 0; at + part <= size; at += step)
        if (memcmp(a + at, b + at, part)) return true;
    return false;
}

static bool any_name(const Checkpoint *c, const char *piece) {
    for (size_t i = 0; i < c->count; i++)
        if (strstr(c->tensors[i].name, piece)) return true;
    return false;
}

/* PEFT's names of the tensors it adds to matrices. */
static bool is_adapted(const Checkpoint *c) {
    return any_name(c, "lora_A.") || any_name(c, "lora_B.") || any_name(c, "lora_embedding_");
}

static int adapter_error(const Checkpoint *c, Error *err) {
    return error_set(
        err,
        "%s: holds a LoRA adapter: name its base model as the model, and the folder as its "
        "adapter",
        c->path);
}

static int missing(const Params *params, const PartSources *sources, const Checkpoint *checkpoint,
                   Part part, Error *err) {
    int count = 0;
    const char *first = NULL;
    for (int i = 0; i < params->count; i++) {
        if (sources->tensors[i] || params->items[i].optional) continue;
        if (!first) first = params->items[i].name;
        count++;
    }
    if (!count) return 0;
    if (is_adapted(checkpoint)) return adapter_error(checkpoint, err);
    if (count == 1)
        return error_set(err, "%s: the %s lacks the tensor %s", checkpoint->path, part_name(part),
                         first);
    return error_set(err, "%s: the %s lacks the tensor %s and %d more of %d", checkpoint->path,
                     part_name(part), first, count - 1, params->count);
}

int part_load(Params *params, const Checkpoint *checkpoint, Part part, PartSources *sources,
              Error *err) {
    *sources = (PartSources){.part = part, .checkpoint = checkpoint, .params = params};
    FileNaming naming = find_naming(checkpoint, part);
    if (!naming.naming) return part_missing(checkpoint, part, err);
    sources->tensors = calloc((size_t)params->count + 1, sizeof *sources->tensors);
    if (!sources->tensors) return error_set(err, "out of memory for %d tensors", params->count);
    int status = 0;
    for (int i = 0; i < HEADS && part == PART_LANGUAGE && status == 0; i++)
        status = check_vocab_bias(checkpoint, &naming, i, err);
    for (int i = 0; i < params->count && status == 0; i++) {
        const CheckpointTensor *t = find_in(checkpoint, part, &naming, params->items[i].name);
        sources->tensors[i] = t;
        if (t && t->value.dtype == DTYPE_NONE)
            status = error_set(err, "%s: %s has the type %s, expected F32, F16 or BF16",
                               checkpoint->path, t->name, t->type_text);
        else if (t && tensor_count(t->value) == 0)
            status = error_set(err,
                               "%s: %s is empty: a DeepSpeed ZeRO-3 stub? Put the weights together "
                               "with zero_to_fp32.py of its checkpoint",
                               checkpoint->path, t->name);
        else if (t && params_set(&params->items[i], t->value, err))
            status = error_context(err, "%s", checkpoint->path);
    }
    if (status == 0) status = missing(params, sources, checkpoint, part, err);
    if (status) part_sources_free(sources);
    return status;
}

void part_sources_free(PartSources *sources) {
    free(sources->tensors);
    *sources = (PartSources){0};
}

/* State while a part is prepared. */
typedef struct Preparing {
    const PartSources *sources;
    PartProgress progress;
} Preparing;

static void release_rows(void *user, const Param *param, int64_t first, int64_t rows) {
    const Preparing *p = user;
    const PartSources *s = p->sources;
    const CheckpointTensor *t = s->tensors[param - s->params->items];
    if (!t) return;
    size_t row_bytes = tensor_bytes(param->value) / (size_t)param->shape[0];
    if (param->value.data == t->value.data) /* not those that an adapter was merged into */
        checkpoint_release_pages(s->checkpoint,
                                 (const char *)t->value.data + (size_t)first * row_bytes,
                                 (size_t)rows * row_bytes);
    if (p->progress.tell) p->progress.tell(p->progress.user, (size_t)rows * row_bytes);
}

int part_prepare_with_progress(PartSources *sources, Dtype compute, PartProgress progress,
                               Error *err) {
    Preparing preparing = {sources, progress};
    if (params_prepare(sources->params, compute, release_rows, &preparing, err))
        return error_context(err, "%s", sources->checkpoint->path);
    return 0;
}

int part_prepare(PartSources *sources, Dtype compute, Error *err) {
    return part_prepare_with_progress(sources, compute, (PartProgress){0}, err);
}

/* ---- What is in a file besides. ---- */

static bool has_begin(const char *name, const char *const *list, int most) {
    for (int i = 0; i < most && list[i]; i++) {
        bool whole = list[i][strlen(list[i]) - 1] != '.';
        if (whole ? !strcmp(name, list[i]) : begins(name, list[i])) return true;
    }
    return false;
}

static bool ends(const char *name, const char *end) {
    size_t length = strlen(name), size = strlen(end);
    return length >= size && !strcmp(name + length - size, end);
}

/* Whether an unused tensor may be ignored: it is known to have no effect, or it belongs to a part
 * that is not loaded from this file. */
static bool known_unneeded(const char *full_name, const bool taken[PARTS]) {
    const char *name = unwrapped(full_name);
    if (ends(name, "embeddings.position_ids")) return true; /* 0, 1, 2, ... */
    if (ends(name, ".rotary_emb.inv_freq")) return true;    /* of its theta */
    if (ends(name, ".num_batches_tracked")) return true;    /* of a batch norm, for its training */
    for (int p = 0; p < PARTS; p++) {
        if (taken[p] && has_begin(name, part_table[p].unneeded, UNNEEDED)) return true;
        if (!taken[p] && has_begin(name, beginnings[p], 4)) return true;
    }
    return false;
}

int part_unknown(const Checkpoint *checkpoint, const PartSources *sources, int source_count,
                 void (*write)(void *user, const CheckpointTensor *tensor), void *user) {
    int count = 0;
    bool parts[PARTS] = {false};
    bool *taken = calloc(checkpoint->count + 1, sizeof *taken);
    if (!taken) return 0;
    for (int s = 0; s < source_count; s++) {
        if (sources[s].checkpoint == checkpoint && sources[s].params) parts[sources[s].part] = true;
        for (int i = 0; sources[s].params && i < sources[s].params->count; i++) {
            const CheckpointTensor *t = sources[s].tensors[i];
            if (t >= checkpoint->tensors && t < checkpoint->tensors + checkpoint->count)
                taken[t - checkpoint->tensors] = true;
        }
    }
    for (size_t i = 0; i < checkpoint->count; i++)
        if (!taken[i] && !known_unneeded(checkpoint->tensors[i].name, parts)) {
            if (write) write(user, &checkpoint->tensors[i]);
            count++;
        }
    free(taken);
    return count;
}

static void keep_first(void *user, const CheckpointTensor *tensor) {
    const CheckpointTensor **first = user;
    if (!*first) *first = tensor;
}

int part_check_unknown(const PartSources *sources, int count, Error *err) {
    const CheckpointTensor *first = NULL;
    if (!count) return 0;
    const Checkpoint *c = sources[0].checkpoint;
    int unknown = part_unknown(c, sources, count, keep_first, &first);
    if (!unknown) return 0;
    if (is_adapted(c)) return adapter_error(c, err);
    char more[48] = "";
    if (unknown > 1) snprintf(more, sizeof more, " and %d more tensors", unknown - 1);
    return error_set(err,
                     "%s: %s%s would not be used: this %s was trained with more than easyfirst "
                     "computes; `easyfirst info` lists its tensors",
                     c->path, first->name, more, part_name(sources[0].part));
}

/* ---- What a file has instead. ---- */

int part_missing(const Checkpoint *c, Part part, Error *err) {
    if (is_adapted(c)) return adapter_error(c, err);
    if (part == PART_LANGUAGE &&
        (any_name(c, "embeddings.word_embeddings.weight") ||
         any_name(c, "embeddings.tok_embeddings.weight")) &&
        !any_name(c, "bert.") && !any_name(c, "lm_head."))
        return error_set(err,
                         "%s: an encoder without a language model's head (no tensor lm_head.*), as "
                         "in models for embeddings of texts: it cannot generate; take the XLM-R "
                         "(or other masked "
                         "language model) that it was made from",
                         c->path);
    return error_set(err,
                     "%s: no %s in it (no tensor %s under any known name; the first of %zu is "
                     "%s)",
                     c->path, part_name(part), part_table[part].probe[0], c->count,
                     c->count ? c->tensors[0].name : "none");
}
