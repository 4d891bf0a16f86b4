#include "data/part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A way of naming: the canonical beginning `from` is written `to` in such files. */
typedef struct Naming {
    const char *from, *to;
} Naming;

enum { NAMINGS = 8 };

static const struct {
    const char *name;
    const char *probe[2]; /* a file that has one of these, renamed, uses the naming */
    Naming namings[NAMINGS];
} part_table[] = {
    [PART_VISION] = {"vision tower",
                     {"vision_model.embeddings.patch_embedding.weight"},
                     {{"vision_model.", "vision_model."},
                      {"vision_model.", ""},
                      {"vision_model.", "model.vision_tower.vision_tower.vision_model."},
                      {"vision_model.", "model.vision_tower.vision_model."},
                      {"vision_model.", "vision_tower.vision_model."},
                      {"vision_model.", "vision_tower."}}},
    [PART_LANGUAGE] = {"language model",
                       {"roberta.embeddings.word_embeddings.weight"},
                       {{"", ""}, {"", "model."}, {"", "module."}, {"", "module.model."}}},
    [PART_PROJECTOR] = {"projector",
                        {"model.mm_projector.weight", "model.mm_projector.0.weight"},
                        {{"model.mm_projector.", "model.mm_projector."},
                         {"model.mm_projector.", "mm_projector."},
                         {"model.mm_projector.", "multi_modal_projector."},
                         {"model.mm_projector.", "model.multi_modal_projector."}}},
    [PART_LENGTH] = {"length predictor",
                     {"length_predictor.0.weight"},
                     {{"", ""}, {"", "model."}, {"", "module."}, {"", "module.model."}}},
};

const char *part_name(Part part) {
    return part_table[part].name;
}

/* Hugging Face's LLaVA calls the two layers linear_1 and linear_2 where LLaVA itself counts the
 * modules of a Sequential, 0 and 2. */
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

static const CheckpointTensor *find_named(const Checkpoint *checkpoint, const Naming *naming,
                                          const char *name) {
    char file_name[512];
    size_t n = strlen(naming->from);
    if (strncmp(name, naming->from, n)) return NULL;
    snprintf(file_name, sizeof file_name, "%s%s", naming->to, name + n);
    const CheckpointTensor *t = checkpoint_find(checkpoint, file_name);
    if (t || !strstr(file_name, "multi_modal")) return t;
    rename_layers(file_name, sizeof file_name);
    return checkpoint_find(checkpoint, file_name);
}

static const Naming *find_naming(const Checkpoint *checkpoint, Part part) {
    for (int i = 0; i < NAMINGS && part_table[part].namings[i].from; i++)
        for (int p = 0; p < 2 && part_table[part].probe[p]; p++)
            if (find_named(checkpoint, &part_table[part].namings[i], part_table[part].probe[p]))
                return &part_table[part].namings[i];
    return NULL;
}

bool part_present(const Checkpoint *checkpoint, Part part) {
    return find_naming(checkpoint, part) != NULL;
}

static bool all_zero(const CheckpointTensor *t) {
    const unsigned char *bytes = t->value.data;
    size_t n = tensor_bytes(t->value);
    for (size_t i = 0; i < n; i++)
        if (bytes[i]) return false;
    return true;
}

/* The bias of the vocabulary stands as lm_head.bias, as lm_head.decoder.bias, or as both, of which
 * one may be an unused zero. */
static const CheckpointTensor *find_vocab_bias(const Checkpoint *checkpoint, const Naming *naming) {
    const CheckpointTensor *own = find_named(checkpoint, naming, "lm_head.bias");
    const CheckpointTensor *decoder = find_named(checkpoint, naming, "lm_head.decoder.bias");
    if (own && decoder) return all_zero(own) ? decoder : own;
    return own ? own : decoder;
}

static const CheckpointTensor *find_in(const Checkpoint *checkpoint, Part part,
                                       const Naming *naming, const char *name) {
    if (!naming) return NULL;
    if (part == PART_LANGUAGE && !strcmp(name, "lm_head.bias"))
        return find_vocab_bias(checkpoint, naming);
    return find_named(checkpoint, naming, name);
}

const CheckpointTensor *part_find(const Checkpoint *checkpoint, Part part, const char *name) {
    return find_in(checkpoint, part, find_naming(checkpoint, part), name);
}

bool part_head_untied(const Checkpoint *checkpoint, bool thorough) {
    const CheckpointTensor *head = part_find(checkpoint, PART_LANGUAGE, "lm_head.decoder.weight");
    const CheckpointTensor *words =
        part_find(checkpoint, PART_LANGUAGE, "roberta.embeddings.word_embeddings.weight");
    if (!head || !words || tensor_count(head->value) == 0) return false;
    if (head->value.data == words->value.data) return false;
    if (head->value.dtype != words->value.dtype || !tensor_same_shape(head->value, words->value))
        return true;
    const char *a = head->value.data, *b = words->value.data;
    size_t size = tensor_bytes(head->value), step = thorough || size < 1 << 20 ? size : size / 16;
    size_t part = thorough || size < 1 << 20 ? size : 4096;
    for (size_t at = 0; at + part <= size; at += step)
        if (memcmp(a + at, b + at, part)) return true;
    return false;
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
    if (count == 1)
        return error_set(err, "%s: the %s lacks the tensor %s", checkpoint->path, part_name(part),
                         first);
    return error_set(err, "%s: the %s lacks the tensor %s and %d more of %d", checkpoint->path,
                     part_name(part), first, count - 1, params->count);
}

int part_load(Params *params, const Checkpoint *checkpoint, Part part, PartSources *sources,
              Error *err) {
    *sources = (PartSources){.checkpoint = checkpoint, .params = params};
    const Naming *naming = find_naming(checkpoint, part);
    if (!naming)
        return error_set(err, "%s: no %s in it (no tensor %s under any known name)",
                         checkpoint->path, part_name(part), part_table[part].probe[0]);
    sources->tensors = calloc((size_t)params->count + 1, sizeof *sources->tensors);
    if (!sources->tensors) return error_set(err, "out of memory for %d tensors", params->count);
    int status = 0;
    for (int i = 0; i < params->count && status == 0; i++) {
        const CheckpointTensor *t = find_in(checkpoint, part, naming, params->items[i].name);
        sources->tensors[i] = t;
        if (t && t->value.dtype == DTYPE_NONE)
            status = error_set(err, "%s: %s has the type %s, expected F32, F16 or BF16",
                               checkpoint->path, t->name, t->type_text);
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

static void release_rows(void *user, const Param *param, int64_t first, int64_t rows) {
    const PartSources *s = user;
    const CheckpointTensor *t = s->tensors[param - s->params->items];
    if (!t) return;
    size_t row_bytes = tensor_bytes(param->value) / (size_t)param->shape[0];
    checkpoint_release_pages(s->checkpoint, (const char *)t->value.data + (size_t)first * row_bytes,
                             (size_t)rows * row_bytes);
}

int part_prepare(PartSources *sources, Dtype compute, Error *err) {
    if (params_prepare(sources->params, compute, release_rows, sources, err))
        return error_context(err, "%s", sources->checkpoint->path);
    return 0;
}

/* Parts of public checkpoints that this program has no use for. */
static bool known_unneeded(const char *name) {
    static const char *const words[] = {
        "position_ids", "pooler",           "text_model.",  "text_projection", "visual_projection",
        "logit_scale",  "lm_head.decoder.", "lm_head.bias", "fake_layer",      "language_model."};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strstr(name, words[i])) return true;
    return false;
}

int part_unknown(const Checkpoint *checkpoint, const PartSources *sources, int source_count,
                 void (*write)(void *user, const CheckpointTensor *tensor), void *user) {
    int count = 0;
    bool *taken = calloc(checkpoint->count + 1, sizeof *taken);
    if (!taken) return 0;
    for (int s = 0; s < source_count; s++)
        for (int i = 0; sources[s].params && i < sources[s].params->count; i++) {
            const CheckpointTensor *t = sources[s].tensors[i];
            if (t >= checkpoint->tensors && t < checkpoint->tensors + checkpoint->count)
                taken[t - checkpoint->tensors] = true;
        }
    for (size_t i = 0; i < checkpoint->count; i++)
        if (!taken[i] && !known_unneeded(checkpoint->tensors[i].name)) {
            if (write) write(user, &checkpoint->tensors[i]);
            count++;
        }
    free(taken);
    return count;
}
