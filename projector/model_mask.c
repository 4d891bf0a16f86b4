#include "projector/model_mask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/checkpoints/model_files.h"
#include "data/files/path.h"
#include "projector/model_paths.h"
#include "projector/model_write.h"

/* ---- Weights. ---- */

/* The rows [0, count) of a matrix of a float type, of which the last one is the mean of the others
 * and those from the old ones on are zero but for it. NULL without memory. */
static void *rows_with_mean(const Tensor *from, int64_t rows, int64_t mask) {
    const int64_t width = from->shape[1], old = from->shape[0];
    const size_t row = (size_t)width * dtype_size(from->dtype);
    char *to = calloc((size_t)rows, row);
    double *sum = calloc((size_t)width, sizeof *sum);
    float *values = malloc((size_t)width * sizeof *values);
    if (to && sum && values) {
        memcpy(to, from->data, (size_t)(old < rows ? old : rows) * row);
        for (int64_t r = 0; r < mask; r++) {
            values_convert(values, DTYPE_F32, to + (size_t)r * row, from->dtype, (size_t)width);
            for (int64_t i = 0; i < width; i++) sum[i] += (double)values[i];
        }
        for (int64_t i = 0; i < width; i++) values[i] = (float)(sum[i] / (double)mask);
        values_convert(to + (size_t)mask * row, from->dtype, values, DTYPE_F32, (size_t)width);
    } else {
        free(to);
        to = NULL;
    }
    free(sum), free(values);
    return to;
}

/* The embeddings and the head; their new values are listed in `taken`, to be freed. */
static int grow(ModelPart *part, int64_t mask, void *taken[2], Error *err) {
    int count = 0;
    for (int i = 0; i < part->params.count; i++) {
        Param *p = &part->params.items[i];
        if (p->role != PARAM_TABLE && p->role != PARAM_VOCABULARY) continue;
        if (!dtype_is_float(p->value.dtype))
            return error_set(err,
                             "%s: a mask token cannot be added to 8-bit embeddings (%s): take the "
                             "model's full weights",
                             part->path, p->name);
        const int64_t rows = p->shape[0] > mask ? p->shape[0] : mask + 1;
        void *values = count < 2 ? rows_with_mean(&p->value, rows, mask) : NULL;
        if (!values) return error_set(err, "%s: out of memory for %s", part->path, p->name);
        taken[count++] = values;
        p->shape[0] = rows;
        p->value = tensor_2d(values, p->value.dtype, rows, p->value.shape[1]);
    }
    return 0;
}

/* ---- Files. ---- */

static json_t *mask_token(int64_t mask, bool id) {
    json_t *token =
        json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", MODEL_MASK, "single_word", 0,
                  "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    if (token && id) json_object_set_new(token, "id", json_integer(mask));
    return token;
}

static void add_to_tokenizer(json_t *json, int64_t mask) {
    json_t *added = json_object_get(json, "added_tokens");
    if (!json_is_array(added)) {
        added = json_array();
        json_object_set_new(json, "added_tokens", added);
    }
    json_array_append_new(added, mask_token(mask, true));
}

static void add_to_config(json_t *json, int64_t mask) {
    char id[24];
    json_t *decoder = json_object_get(json, "added_tokens_decoder");
    json_object_set_new(json, "mask_token", json_string(MODEL_MASK));
    if (!decoder) return; /* it is in tokenizer.json */
    snprintf(id, sizeof id, "%lld", (long long)mask);
    json_object_set_new(decoder, id, mask_token(mask, false));
}

static void set_sizes(json_t *json, int64_t mask) {
    static const char *const keys[] = {"vocab_size", "embedding_size"};
    for (int i = 0; i < 2; i++)
        if (json_integer_value(json_object_get(json, keys[i])) == mask)
            json_object_set_new(json, keys[i], json_integer(mask + 1));
    json_object_set_new(json, "mask_token_id", json_integer(mask));
}

/* A JSON file next to the weights, changed, to the new folder; one that is missing is left out. */
static int change_file(const ModelPart *part, const char *folder, const char *name,
                       void (*change)(json_t *json, int64_t mask), int64_t mask, Error *err) {
    char *from = model_file_beside(part->path, name, err);
    json_t *json = NULL;
    int status = from ? 0 : -1;
    if (status == 0 && access(from, F_OK) == 0) status = config_read(&json, from, err);
    if (status == 0 && json) {
        change(json, mask);
        status = model_write_json(json, folder, name, err);
    } else {
        json_decref(json);
    }
    free(from);
    return status;
}

/* Without a tokenizer.json tokens are added in tokenizer_config.json alone. */
static int write_merges_config(const ModelPart *part, const char *folder, int64_t mask,
                               Error *err) {
    char *whole = model_file_beside(part->path, "tokenizer.json", err);
    char *path = path_join(folder, "tokenizer_config.json", err);
    int status = whole && path ? 0 : -1;
    json_t *json = NULL;
    if (status == 0 && access(whole, F_OK) != 0) {
        if (access(path, F_OK) == 0) status = config_read(&json, path, err);
        if (status == 0 && !json) json = json_object();
        if (status == 0 && !json_object_get(json, "added_tokens_decoder"))
            json_object_set_new(json, "added_tokens_decoder", json_object());
        if (status == 0) {
            add_to_config(json, mask);
            status = json_write(json, path, err);
        }
    }
    json_decref(json);
    free(whole), free(path);
    return status;
}

static int write_language(ModelPart *part, const char *folder, int64_t mask, Error *err) {
    static const char *const copied[] = {"vocab.json", "merges.txt", "special_tokens_map.json",
                                         "chat_template.jinja"};
    TRY(change_file(part, folder, "config.json", set_sizes, mask, err));
    TRY(change_file(part, folder, "tokenizer.json", add_to_tokenizer, mask, err));
    TRY(change_file(part, folder, "tokenizer_config.json", add_to_config, mask, err));
    TRY(write_merges_config(part, folder, mask, err));
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        TRY(model_copy_beside(part, copied[i], folder, copied[i], err));
    void *taken[2] = {NULL, NULL};
    int status = grow(part, mask, taken, err);
    if (status == 0) status = model_write_part(part, folder, "model.safetensors", err);
    free(taken[0]), free(taken[1]);
    return status;
}

static int write_folder(Model *m, const ModelOptions *o, const char *partial, Error *err) {
    const int64_t mask = tokenizer_size(m->tokenizer);
    TRY(model_write_subfolder(partial, "language", err));
    char *language = path_join(partial, "language", err);
    int status = language ? write_language(&m->language, language, mask, err) : -1;
    free(language);
    TRY(status);
    if (!m->settings || o->language) return 0;
    return model_write_json(json_incref(m->settings), partial, MODEL_SETTINGS, err);
}

static int check_model(const Model *m, Error *err) {
    if (!m->language.present || !m->tokenizer || !m->parts.language.llama)
        return error_set(err, "a mask token is added to models of LLaMA's kind with a tokenizer");
    if (m->adapter.closed)
        return error_set(err,
                         "%s: adapts a vision tower or projector, too: a model that gets its mask "
                         "token here takes an adapter of its language model only",
                         m->adapter.folder);
    if (tokenizer_mask_id(m->tokenizer) < 0) return 0;
    return error_set(err, "%s: it has a mask token, %d", m->language.path,
                     tokenizer_mask_id(m->tokenizer));
}

int model_add_mask(const ModelOptions *options, Device *device, const char *out, Error *err) {
    Model m;
    char partial[4096];
    ModelOptions o = *options;
    o.describe_only = o.text_only = true;
    TRY(model_open(&m, &o, device, err));
    int status = check_model(&m, err);
    if (status == 0) status = folder_begin(partial, sizeof partial, out, err);
    if (status == 0) {
        status = write_folder(&m, &o, partial, err);
        if (status == 0) status = folder_commit(partial, out, err);
        if (status) folder_discard(partial);
    }
    model_close(&m);
    return status;
}
