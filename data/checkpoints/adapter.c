/* From an adapter's tensors to the weights of a model's parts. */
#include "data/checkpoints/adapter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/checkpoints/lora.h"
#include "data/files/path.h"
#include "kernels/int8.h"

static const char outer[] = "base_model.model.";
static const char tails[2][16] = {".lora_A.weight", ".lora_B.weight"};

/* Values merged at a time. */
enum { PIECE = 1 << 22 };

/* ---- Opening. ---- */

static int weights_open(Adapter *a, Error *err) {
    static const char *const names[] = {ADAPTER_WEIGHTS, "adapter_model.bin"};
    int status = 1; /* not found */
    for (int i = 0; i < 2 && status > 0; i++) {
        char *path = path_join(a->folder, names[i], err);
        if (!path) return -1;
        if (access(path, F_OK) == 0) status = checkpoint_open(&a->weights, path, NULL, err);
        free(path);
    }
    if (status <= 0) return status;
    return error_set(err, "%s: has no %s, the adapter's weights", a->folder, names[0]);
}

static int open_parts(Adapter *a, const char *folder, Error *err) {
    a->folder = path_format(err, "%s", folder);
    a->config_path = path_join(folder, ADAPTER_CONFIG, err);
    if (!a->folder || !a->config_path) return -1;
    if (access(a->config_path, F_OK) != 0)
        return error_set(err,
                         "%s: no adapter (it has no %s): name the folder that PEFT's "
                         "save_pretrained or a training with LoRA wrote",
                         folder, ADAPTER_CONFIG);
    TRY(adapter_config_read(&a->config, a->config_path, err));
    return weights_open(a, err);
}

int adapter_open(Adapter *adapter, const char *folder, Error *err) {
    *adapter = (Adapter){.open = true};
    if (open_parts(adapter, folder, err) == 0) return 0;
    adapter_close(adapter);
    return -1;
}

void adapter_close(Adapter *a) {
    for (size_t i = 0; i < a->merged_count; i++) free(a->merged[i].values);
    free(a->merged);
    if (a->open) checkpoint_close(&a->weights);
    adapter_config_free(&a->config);
    free(a->folder), free(a->config_path);
    *a = (Adapter){0};
}

/* ---- Which matrix a tensor belongs to. ---- */

/* A module of the model, and its two matrices in the adapter. */
typedef struct Pair {
    char *module;
    Params *params;
    int index;
    const CheckpointTensor *a, *b;
} Pair;

typedef struct Merge {
    Adapter *adapter;
    Params *const *tables;
    int table_count;
    bool closed;
    Pair *pairs;
    size_t count;
} Merge;

static const char *path_of(const Merge *m) {
    return m->adapter->weights.path;
}

static bool ends(const char *text, const char *tail) {
    const size_t size = strlen(text), end = strlen(tail);
    return size >= end && !strcmp(text + size - end, tail);
}

static bool begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

/* The module's name in a vision tower, which files and versions of transformers put under different
 * ones. */
static const char *bare_vision(const char *module) {
    static const char *const stems[] = {"vision_model.", "vision_tower."};
    for (int i = 0; i < 2; i++)
        for (const char *at; (at = strstr(module, stems[i]));) module = at + strlen(stems[i]);
    return module;
}

static bool is_matrix_of(const Param *p, const char *module) {
    const size_t size = strlen(module);
    return !strncmp(p->name, module, size) && !strcmp(p->name + size, ".weight");
}

static bool find_param(const Merge *m, const char *module, Params **params, int *index) {
    for (int t = 0; t < m->table_count; t++)
        for (int i = 0; i < m->tables[t]->count; i++) {
            const Param *p = &m->tables[t]->items[i];
            const bool vision = begins(p->name, "vision_model.");
            const Param bare = {.name = p->name + (vision ? strlen("vision_model.") : 0)};
            if (!is_matrix_of(&bare, vision ? bare_vision(module) : module)) continue;
            *params = m->tables[t], *index = i;
            return true;
        }
    return false;
}

/* Whether it belongs to what gives a language model its sight. */
static bool of_sight(const char *module) {
    return strstr(module, "vision_model.") || strstr(module, "vision_tower.") ||
           strstr(module, "mm_projector.") || strstr(module, "multi_modal_projector.") ||
           begins(module, "encoder.layers.") || begins(module, "embeddings.patch_embedding");
}

static int refuse_tensor(const Merge *m, const char *name, Error *err) {
    const char *why = strstr(name, "lora_magnitude_vector") ? "DoRA is not supported"
                      : strstr(name, "lora_embedding_") ? "adapters of embeddings are not supported"
                      : strstr(name, "lora_")
                          ? "expected lora_A.weight and lora_B.weight"
                          : "it is no adapter's matrix: whole modules are not taken from one";
    return error_set(err, "%s: %s would not be used: %s", path_of(m), name, why);
}

static int refuse_module(const Merge *m, const char *name, Error *err) {
    return error_set(err,
                     "%s: %s belongs to no matrix of this model: the adapter is of another base "
                     "model",
                     path_of(m), name);
}

/* Adds the module of a tensor lora_A. */
static int add_pair(Merge *m, const CheckpointTensor *a, Error *err) {
    const size_t begin = strlen(outer), size = strlen(a->name) - begin - strlen(tails[0]);
    Pair *pair = &m->pairs[m->count];
    *pair = (Pair){.module = path_format(err, "%.*s", (int)size, a->name + begin), .a = a};
    if (!pair->module) return -1;
    m->count++; /* freed from here on */
    char *other = path_format(err, "%s%s%s", outer, pair->module, tails[1]);
    if (!other) return -1;
    pair->b = checkpoint_find(&m->adapter->weights, other);
    free(other);
    if (!pair->b)
        return error_set(err, "%s: %s is present without its lora_B", path_of(m), a->name);
    if (find_param(m, pair->module, &pair->params, &pair->index)) {
        const ParamRole role = pair->params->items[pair->index].role;
        if (role == PARAM_MATRIX) return 0;
        return error_set(err,
                         "%s: %s adapts an embedding, or a head that is tied to it, which is not "
                         "supported",
                         path_of(m), a->name);
    }
    if (!m->closed || !of_sight(pair->module)) return refuse_module(m, a->name, err);
    m->adapter->closed += 2;
    free(pair->module);
    m->count--;
    return 0;
}

static int check_half(const Merge *m, const char *b, Error *err) {
    const size_t stem = strlen(b) - strlen(tails[1]);
    char *other = path_format(err, "%.*s%s", (int)stem, b, tails[0]);
    if (!other) return -1;
    const bool whole = checkpoint_find(&m->adapter->weights, other) != NULL;
    free(other);
    return whole ? 0 : error_set(err, "%s: %s is present without its lora_A", path_of(m), b);
}

static int find_pairs(Merge *m, Error *err) {
    const Checkpoint *c = &m->adapter->weights;
    if (!c->count) return error_set(err, "%s: has no tensors", path_of(m));
    for (size_t i = 0; i < c->count; i++) {
        const char *name = c->tensors[i].name;
        const bool inner = begins(name, outer);
        if (inner && ends(name, tails[0]))
            TRY(add_pair(m, &c->tensors[i], err));
        else if (inner && ends(name, tails[1]))
            TRY(check_half(m, name, err));
        else
            return refuse_tensor(m, name, err);
    }
    return 0;
}

/* ---- Checks. ---- */

static int check_values(const Merge *m, const CheckpointTensor *t, Error *err) {
    if (!dtype_is_float(t->value.dtype))
        return error_set(err, "%s: %s has the type %s, expected F32, F16 or BF16", path_of(m),
                         t->name, t->type_text);
    const int64_t n = tensor_count(t->value);
    for (int64_t i = 0; i < n; i += 256) {
        float part[256];
        const int64_t here = n - i < 256 ? n - i : 256;
        tensor_values(part, DTYPE_F32, t->value, i, here);
        for (int64_t j = 0; j < here; j++)
            if (!isfinite(part[j]))
                return error_set(err, "%s: value %lld of %s is not finite", path_of(m),
                                 (long long)(i + j), t->name);
    }
    return 0;
}

/* Whether the matrices are [rank, K...] and [N, rank], the latter with dimensions of 1 for a
 * convolution. */
static bool shapes_fit(const Param *p, const Tensor *a, const Tensor *b, int rank) {
    if (a->ndim != p->ndim || b->ndim != p->ndim) return false;
    if (a->shape[0] != rank || b->shape[0] != p->shape[0] || b->shape[1] != rank) return false;
    for (int i = 1; i < p->ndim; i++)
        if (a->shape[i] != p->shape[i] || (i > 1 && b->shape[i] != 1)) return false;
    return p->ndim > 1;
}

static int check_pair(const Merge *m, const Pair *pair, Error *err) {
    const Param *p = &pair->params->items[pair->index];
    const int rank = adapter_module_rank(&m->adapter->config, pair->module);
    const Tensor *a = &pair->a->value, *b = &pair->b->value;
    if (!p->present) return error_set(err, "%s: the model has no values for it", p->name);
    char found[2][64], matrix[64];
    shape_text(found[0], sizeof found[0], a->ndim, a->shape);
    shape_text(found[1], sizeof found[1], b->ndim, b->shape);
    shape_text(matrix, sizeof matrix, p->ndim, p->shape);
    if (!shapes_fit(p, a, b, rank))
        return error_set(err,
                         "%s: %s has the shape %s and its lora_B %s, which do not fit the model's "
                         "matrix %s with the rank %d of %s",
                         path_of(m), pair->a->name, found[0], found[1], matrix, rank,
                         ADAPTER_CONFIG);
    const double scale = adapter_module_scale(&m->adapter->config, pair->module);
    if (!isfinite((float)scale))
        return error_set(err, "%s: the scale of %s is %g", m->adapter->config_path, pair->module,
                         scale);
    TRY(check_values(m, pair->a, err));
    return check_values(m, pair->b, err);
}

static bool is_target(const char *name, const char *target) {
    const size_t size = strlen(name) - strlen(".weight"), tail = strlen(target);
    return tail <= size && !strncmp(name + size - tail, target, tail) &&
           (tail == size || name[size - tail - 1] == '.');
}

static bool is_paired(const Merge *m, const Params *params, int index) {
    for (size_t i = 0; i < m->count; i++)
        if (m->pairs[i].params == params && (index < 0 || m->pairs[i].index == index)) return true;
    return false;
}

/* Every module of an adapted part that "target_modules" names must be adapted: a file may have been
 * cut short. */
static int check_targets(const Merge *m, Error *err) {
    size_t k;
    json_t *target;
    for (int t = 0; t < m->table_count; t++) {
        const Params *params = m->tables[t];
        if (!is_paired(m, params, -1)) continue;
        for (int i = 0; i < params->count; i++) {
            const Param *p = &params->items[i];
            if (p->role != PARAM_MATRIX || !ends(p->name, ".weight") || is_paired(m, params, i))
                continue;
            json_array_foreach((json_t *)m->adapter->config.targets, k, target) {
                if (is_target(p->name, json_string_value(target)))
                    return error_set(err,
                                     "%s: lacks the matrices of %s, which is among the "
                                     "\"target_modules\" (%.60s) of %s",
                                     path_of(m), p->name, json_string_value(target),
                                     ADAPTER_CONFIG);
            }
        }
    }
    return 0;
}

/* ---- Merging. ---- */

static float *whole_values(const Tensor value, Error *err) {
    const int64_t n = tensor_count(value);
    float *values = malloc((size_t)n * sizeof *values);
    if (values)
        tensor_values(values, DTYPE_F32, value, 0, n);
    else
        error_set(err, "out of memory: %lld values of an adapter", (long long)n);
    return values;
}

static int merge_into(void *to, Dtype dtype, const Tensor from, const Pair *pair, float scale,
                      Error *err) {
    const int64_t n = tensor_count(from), rank = pair->a->value.shape[0];
    const int64_t columns = n / from.shape[0], most = n < PIECE ? n : PIECE;
    float *a = whole_values(pair->a->value, err), *b = whole_values(pair->b->value, err);
    float *piece = malloc((size_t)most * sizeof *piece);
    int status = a && b ? 0 : -1;
    if (status == 0 && !piece) status = error_set(err, "out of memory to merge an adapter");
    for (int64_t i = 0; i < n && status == 0; i += most) {
        const int64_t here = n - i < most ? n - i : most;
        tensor_values(piece, DTYPE_F32, from, i, here);
        lora_merge(piece, i, here, a, b, rank, columns, scale);
        values_convert((char *)to + (size_t)i * dtype_size(dtype), dtype, piece, DTYPE_F32,
                       (size_t)here);
    }
    free(a), free(b), free(piece);
    return status;
}

static int merge_pair(Merge *m, const Pair *pair, AdapterMerge merge, Error *err) {
    Param *p = &pair->params->items[pair->index];
    Adapter *a = m->adapter;
    const bool wide = merge == ADAPTER_COMPUTED && pair->params->compute == DTYPE_F32;
    const Dtype stored = p->value.dtype == DTYPE_I8 ? DTYPE_BF16 : p->value.dtype;
    const Dtype dtype = wide ? DTYPE_F32 : stored;
    const size_t bytes = (size_t)tensor_count(p->value) * dtype_size(dtype);
    const float scale = (float)adapter_module_scale(&a->config, pair->module);
    void *values = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!values)
        return error_set(err, "%s: out of memory: %zu KiB with an adapter", p->name, bytes >> 10);
    a->merged[a->merged_count++] = (AdapterMerged){pair->params, pair->index, values};
    TRY(merge_into(values, dtype, p->value, pair, scale, err));
    p->value = tensor_nd(values, dtype, p->ndim, p->shape);
    return 0;
}

static int merge_all(Merge *m, AdapterMerge merge, Error *err) {
    TRY(find_pairs(m, err));
    for (size_t i = 0; i < m->count; i++) TRY(check_pair(m, &m->pairs[i], err));
    TRY(check_targets(m, err));
    if (merge == ADAPTER_CHECK || !m->count) return 0;
    m->adapter->merged = calloc(m->count, sizeof *m->adapter->merged);
    if (!m->adapter->merged) return error_set(err, "out of memory for an adapter");
    for (size_t i = 0; i < m->count; i++) {
        const Pair *pair = &m->pairs[i];
        if (merge == ADAPTER_COMPUTED && pair->params->items[pair->index].idle) continue;
        TRY(merge_pair(m, pair, merge, err));
    }
    return 0;
}

int adapter_merge(Adapter *adapter, Params *const *tables, int count, bool closed,
                  AdapterMerge merge, Error *err) {
    Merge m = {.adapter = adapter, .tables = tables, .table_count = count, .closed = closed};
    m.pairs = calloc(adapter->weights.count + 1, sizeof *m.pairs);
    int status =
        m.pairs ? merge_all(&m, merge, err) : error_set(err, "%s: out of memory", adapter->folder);
    for (size_t i = 0; i < m.count; i++) free(m.pairs[i].module);
    free(m.pairs);
    return status;
}

/* Whether nothing reads the values any more: they are packed, or in the masters of training. */
static bool is_elsewhere(const AdapterMerged *merged, bool packed) {
    const Param *p = &merged->params->items[merged->index];
    const Param *first = p->join < 0 ? p : &merged->params->items[p->join];
    return !p->value.data || (packed && first->packed);
}

void adapter_release(Adapter *a, bool packed) {
    for (size_t i = 0; i < a->merged_count; i++) {
        if (!is_elsewhere(&a->merged[i], packed)) continue;
        a->merged[i].params->items[a->merged[i].index].value.data = NULL;
        free(a->merged[i].values);
        a->merged[i].values = NULL;
    }
}
