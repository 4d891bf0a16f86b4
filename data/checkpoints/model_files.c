#include "data/checkpoints/model_files.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/checkpoints/lora.h"
#include "data/files/file_write.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"

/* ---- A part, with what LoRA learned added to its matrices. ---- */

/* The two LoRA matrices of a matrix; NULL: none. */
typedef struct LoraPair {
    const Param *a, *b; /* [rank, K], [N, rank] */
} LoraPair;

typedef struct PartWriting {
    const Params *params, *lora;
    float scale;
    const Param **written;    /* [entries] */
    CheckpointEntry *entries; /* [count] */
    LoraPair *pairs;          /* [entries] */
    char **names;             /* [entries] of scales, owned; else NULL */
    size_t count;
    /* of the matrix being written */
    const Param *current;
    float *a, *b;
} PartWriting;

static const Param *lora_find(const Params *lora, const Param *p, char letter) {
    char name[320];
    size_t stem = strlen(p->name), tail = strlen(".weight");
    if (p->role != PARAM_MATRIX || stem < tail || strcmp(p->name + stem - tail, ".weight"))
        return NULL;
    snprintf(name, sizeof name, "base_model.model.%.*s.lora_%c.weight", (int)(stem - tail), p->name,
             letter);
    for (int i = 0; i < lora->count; i++)
        if (!strcmp(lora->items[i].name, name)) return &lora->items[i];
    return NULL;
}

static int pair_find(LoraPair *pair, const Params *lora, const Param *p, Error *err) {
    *pair = (LoraPair){lora_find(lora, p, 'A'), lora_find(lora, p, 'B')};
    const Param *a = pair->a, *b = pair->b;
    if (!a && !b) return 0;
    if (!a || !b)
        return error_set(err, "%s is present without its other half", a ? a->name : b->name);
    int64_t columns = tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape)) / p->shape[0];
    if (a->ndim == 2 && b->ndim == 2 && a->shape[0] == b->shape[1] && a->shape[1] == columns &&
        b->shape[0] == p->shape[0])
        return 0;
    char found[2][64], matrix[128];
    shape_text(found[0], sizeof found[0], a->ndim, a->shape);
    shape_text(found[1], sizeof found[1], b->ndim, b->shape);
    shape_text(matrix, sizeof matrix, p->ndim, p->shape);
    return error_set(err, "%s %s and lora_B %s do not fit %s %s", a->name, found[0], found[1],
                     p->name, matrix);
}

/* Every LoRA matrix must belong to a matrix: else training would be lost. */
static int pairs_check(const PartWriting *w, Error *err) {
    for (int i = 0; i < w->lora->count; i++) {
        const Param *p = &w->lora->items[i];
        bool used = false;
        for (size_t k = 0; k < w->count && !used; k++)
            used = w->pairs[k].a == p || w->pairs[k].b == p;
        if (!used) return error_set(err, "%s belongs to no matrix of this model", p->name);
    }
    return 0;
}

static float *fetch_whole(const Params *params, const Param *p, Error *err) {
    float *values = malloc((size_t)tensor_count(tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape)) *
                           sizeof *values);
    if (!values) {
        error_set(err, "%s: out of memory", p->name);
        return NULL;
    }
    if (params_fetch(params, p, values, DTYPE_F32, err) == 0) return values;
    free(values);
    return NULL;
}

static int fetch_merged(PartWriting *w, size_t entry, int64_t first, int64_t count, void *bytes,
                        Error *err) {
    const Param *p = w->written[entry];
    const LoraPair *pair = &w->pairs[entry];
    Dtype dtype = w->entries[entry].value.dtype;
    if (w->current != p) {
        free(w->a), free(w->b);
        w->b = NULL;
        w->a = fetch_whole(w->lora, pair->a, err);
        if (w->a) w->b = fetch_whole(w->lora, pair->b, err);
        if (!w->b) return -1;
        w->current = p;
    }
    float *values = dtype == DTYPE_F32 ? bytes : malloc((size_t)count * sizeof *values);
    if (!values) return error_set(err, "%s: out of memory", p->name);
    int status = params_fetch_part(w->params, p, first, count, values, DTYPE_F32, err);
    if (status == 0) {
        lora_merge(values, first, count, w->a, w->b, pair->a->shape[0], pair->a->shape[1],
                   w->scale);
        if (dtype != DTYPE_F32) values_convert(bytes, dtype, values, DTYPE_F32, (size_t)count);
    }
    if (dtype != DTYPE_F32) free(values);
    return status;
}

static int fetch_value(void *user, size_t entry, int64_t first, int64_t count, void *bytes,
                       Error *err) {
    PartWriting *w = user;
    if (w->pairs[entry].a) return fetch_merged(w, entry, first, count, bytes, err);
    return params_fetch_part(w->params, w->written[entry], first, count, bytes,
                             w->entries[entry].value.dtype, err);
}

/* An i8 value as it is, the entry listed last, and its scales. */
static int list_int8(PartWriting *w, const Param *p, Error *err) {
    char *name = path_format(err, "%s" CHECKPOINT_SCALE, p->name);
    if (!name) return -1;
    w->entries[w->count - 1].value.data = p->value.data;
    w->names[w->count] = name;
    w->entries[w->count++] = (CheckpointEntry){
        name, tensor_1d((float *)(uintptr_t)p->value.scale, DTYPE_F32, p->shape[0])};
    return 0;
}

static int list_values(PartWriting *w, Dtype dtype, Error *err) {
    for (int i = 0; i < w->params->count; i++) {
        const Param *p = &w->params->items[i];
        if (!p->present) continue;
        Dtype own = dtype == DTYPE_NONE ? p->value.dtype : dtype;
        if (w->lora) TRY(pair_find(&w->pairs[w->count], w->lora, p, err));
        bool merged = w->lora && w->pairs[w->count].a;
        if (own == DTYPE_I8 && merged) own = DTYPE_BF16;
        w->written[w->count] = p;
        w->entries[w->count++] =
            (CheckpointEntry){p->name, tensor_nd(NULL, own, p->ndim, p->shape)};
        if (own == DTYPE_I8) TRY(list_int8(w, p, err));
    }
    return w->lora ? pairs_check(w, err) : 0;
}

int part_write(const Params *params, const Params *lora, double lora_scale, const char *path,
               Dtype dtype, Error *err) {
    if (dtype != DTYPE_NONE && !dtype_is_float(dtype))
        return error_set(err, "%s: to be written as %s, expected f32, f16 or bf16", path,
                         dtype_name(dtype));
    if (lora && !isfinite(lora_scale))
        return error_set(err, "%s: the scale of LoRA is %g", path, lora_scale);
    size_t most = 2 * (size_t)params->count + 1;
    PartWriting w = {.params = params, .lora = lora, .scale = (float)lora_scale};
    w.written = calloc(most, sizeof *w.written);
    w.entries = calloc(most, sizeof *w.entries);
    w.pairs = calloc(most, sizeof *w.pairs);
    w.names = calloc(most, sizeof *w.names);
    int status = -1;
    if (!w.written || !w.entries || !w.pairs || !w.names)
        error_set(err, "%s: out of memory", path);
    else if (list_values(&w, dtype, err) != 0)
        error_context(err, "%s", path);
    else
        status = checkpoint_write_stream(path, w.entries, w.count, fetch_value, &w, err);
    free(w.a), free(w.b);
    for (size_t i = 0; w.names && i < w.count; i++) free(w.names[i]);
    free(w.written), free(w.entries), free(w.pairs), free(w.names);
    return status;
}

/* ---- The state of training: masters and moments. ---- */

enum { KINDS = 3 }; /* the value, its first and second moment */

static const char *const kind_suffix[KINDS] = {"", ".m", ".v"};

typedef struct StateWriting {
    const Params *params;
    const Param **written; /* [entries / KINDS] */
    Tensor moments[KINDS]; /* the value has no suffix */
} StateWriting;

static int check_moments(const Params *params, Tensor m, Tensor v, const char *path, Error *err) {
    if (m.ndim == 1 && v.ndim == 1 && m.dtype == DTYPE_F32 && v.dtype == DTYPE_F32 &&
        m.shape[0] == params->own_end - params->own_begin && v.shape[0] == m.shape[0])
        return 0;
    return error_set(err, "%s: the moments are not laid out like the parameters (%lld values)",
                     path, (long long)(params->own_end - params->own_begin));
}

static int fetch_state(void *user, size_t entry, int64_t first, int64_t count, void *bytes,
                       Error *err) {
    const StateWriting *s = user;
    const Param *p = s->written[entry / KINDS];
    size_t kind = entry % KINDS;
    if (kind == 0) return params_fetch_part(s->params, p, first, count, bytes, DTYPE_F32, err);
    return params_fetch_moment(s->params, s->moments[kind], (int)kind, p->offset + first, count,
                               bytes, err);
}

static char *state_name(const Param *p, int kind) {
    size_t size = strlen(p->name) + 4;
    char *name = malloc(size);
    if (name) snprintf(name, size, "%s%s", p->name, kind_suffix[kind]);
    return name;
}

int training_state_write(const Params *params, Tensor m, Tensor v, const char *path, Error *err) {
    TRY(check_moments(params, m, v, path, err));
    size_t most = (size_t)params->count * KINDS + 1, count = 0;
    StateWriting s = {.params = params, .moments = {TENSOR_NONE, m, v}};
    CheckpointEntry *entries = calloc(most, sizeof *entries);
    s.written = calloc((size_t)params->count + 1, sizeof *s.written);
    bool complete = entries && s.written;
    for (int i = 0; i < params->count && complete; i++) {
        const Param *p = &params->items[i];
        if (p->offset < 0) continue;
        s.written[count / KINDS] = p;
        for (int k = 0; k < KINDS; k++) {
            entries[count].name = state_name(p, k);
            entries[count].value = tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape);
            complete = entries[count++].name && complete;
        }
    }
    int status = complete ? checkpoint_write_stream(path, entries, count, fetch_state, &s, err)
                          : error_set(err, "%s: out of memory", path);
    for (size_t i = 0; i < count; i++) free((char *)entries[i].name);
    free(entries);
    free(s.written);
    return status;
}

/* The file's tensor for this parameter, checked; NULL on failure. */
static const CheckpointTensor *state_find(const Checkpoint *c, const Param *p, int kind,
                                          Error *err) {
    char name[320], want[128], found[128];
    snprintf(name, sizeof name, "%s%s", p->name, kind_suffix[kind]);
    const CheckpointTensor *t = checkpoint_find(c, name);
    if (!t) {
        error_set(err, "%s: the state of another training run: it has no %s", c->path, name);
        return NULL;
    }
    if (t->value.dtype == DTYPE_F32 &&
        tensor_same_shape(t->value, tensor_nd(NULL, DTYPE_F32, p->ndim, p->shape)))
        return t;
    shape_text(found, sizeof found, t->value.ndim, t->value.shape);
    shape_text(want, sizeof want, p->ndim, p->shape);
    error_set(err, "%s: the state of another training run: %s is %s %s, expected F32 %s", c->path,
              name, t->type_text, found, want);
    return NULL;
}

static int check_state(const Checkpoint *c, const Params *params, Error *err) {
    size_t known = 0;
    for (int i = 0; i < params->count; i++)
        for (int k = 0; k < KINDS && params->items[i].offset >= 0; k++, known++)
            if (!state_find(c, &params->items[i], k, err)) return -1;
    if (known == c->count) return 0;
    for (size_t i = 0; i < c->count; i++) {
        bool ours = false;
        for (int j = 0; j < params->count && !ours; j++) {
            const Param *p = &params->items[j];
            size_t stem = strlen(p->name);
            if (p->offset < 0 || strncmp(c->tensors[i].name, p->name, stem)) continue;
            for (int k = 0; k < KINDS && !ours; k++)
                ours = !strcmp(c->tensors[i].name + stem, kind_suffix[k]);
        }
        if (!ours)
            return error_set(
                err,
                "%s: the state of another training run: it has %s, which is not trained "
                "here",
                c->path, c->tensors[i].name);
    }
    return 0;
}

static int load_state(const Checkpoint *c, Params *params, Tensor m, Tensor v, Error *err) {
    const Tensor moments[KINDS] = {TENSOR_NONE, m, v};
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        for (int k = 0; k < KINDS && p->offset >= 0; k++) {
            const CheckpointTensor *t = state_find(c, p, k, err);
            if (!t) return -1;
            if (k == 0)
                TRY(params_store(params, p, t->value.data, err));
            else
                TRY(params_store_moment(params, moments[k], p->offset, tensor_count(t->value),
                                        t->value.data, err));
            checkpoint_release_pages(c, t->value.data, tensor_bytes(t->value));
        }
    }
    return 0;
}

int training_state_read(Params *params, Tensor m, Tensor v, const char *path, Error *err) {
    TRY(check_moments(params, m, v, path, err));
    Checkpoint c;
    TRY(checkpoint_open(&c, path, NULL, err));
    int status = check_state(&c, params, err); /* checked completely before anything is changed */
    if (status == 0) status = load_state(&c, params, m, v, err);
    checkpoint_close(&c);
    return status;
}

/* ---- Other files. ---- */

static int write_text(const char *path, const char *text, size_t size, Error *err) {
    FileWriter file;
    TRY(file_write_begin(&file, path, size, err));
    return file_write_end(&file, file_write_bytes(&file, text, size, err), err);
}

int json_write(const json_t *json, const char *path, Error *err) {
    char *text = json_dumps_whole(json, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (!text) return error_set(err, "%s: no JSON object to write, or out of memory", path);
    size_t size = strlen(text);
    text[size] = '\n'; /* replaces the 0 */
    int status = write_text(path, text, size + 1, err);
    free(text);
    return status;
}

static int copy_bytes(FileWriter *to, int from, const char *name, Error *err) {
    enum { PIECE = 1 << 20 };
    char *piece = malloc(PIECE);
    if (!piece) return error_set(err, "%s: out of memory", name);
    int failed = 0;
    while (!failed) {
        ssize_t n = read(from, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) failed = error_set(err, "%s: reading failed: %s", name, strerror(errno));
        if (n <= 0) break;
        failed = file_write_bytes(to, piece, (size_t)n, err);
    }
    free(piece);
    return failed;
}

int file_copy(const char *from, const char *to, bool link, Error *err) {
    if (link && file_link(from, to) == 0) return 0;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, "%s: cannot be read: %s", from, strerror(errno));
    struct stat info;
    FileWriter file;
    int failed = -1;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        error_set(err, "%s: is not a regular file, cannot be copied", from);
    else
        failed = file_write_begin(&file, to, (uint64_t)info.st_size, err);
    if (!failed) failed = file_write_end(&file, copy_bytes(&file, fd, from, err), err);
    close(fd);
    return failed;
}
