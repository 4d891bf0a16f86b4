#include "tests/mirror_device.h"

#include "kernels/backend.h"
#include "tests/test.h"

enum { MOST = 32, MARGIN = 256, ALIGN = 256 };

static struct {
    Backend backend;
    const Backend *gpu;
} mirror;

/* ---- The memory of one call. ---- */

typedef struct Range {
    char *begin, *end;   /* on the host */
    bool written;        /* the operation may write there */
    void *memory;        /* on the GPU: margin, offset within ALIGN, values, margin */
    size_t before, size; /* bytes before the values, and in total */
    char *image;         /* what was sent */
} Range;

typedef struct Moved {
    Device *device;
    Range range[MOST];
    int count;
    Tensor *tensor[MOST]; /* which get the GPU's addresses while it computes */
    char *host[MOST];
    int tensors;
} Moved;

/* From the first value to the last, with the gaps between rows. */
static void tensor_range(Tensor t, char **begin, char **end) {
    int64_t rows = tensor_row_count(t), columns = t.ndim ? t.shape[t.ndim - 1] : 1;
    int64_t ld = t.ndim < 2 ? columns : t.ld;
    *begin = t.data;
    *end = *begin + (rows ? (size_t)((rows - 1) * ld + columns) * dtype_size(t.dtype) : 0);
}

/* Adds a range; those that it overlaps are merged. Adjacent tensors stay separate, to detect
 * overruns. */
static void add_range(Moved *m, Range added) {
    for (int i = 0; i < m->count;) {
        const Range *r = &m->range[i];
        if (added.begin >= r->end || r->begin >= added.end) {
            i++;
            continue;
        }
        if (r->begin < added.begin) added.begin = r->begin;
        if (r->end > added.end) added.end = r->end;
        added.written |= r->written;
        m->range[i] = m->range[--m->count];
        i = 0; /* it has grown */
    }
    assert_in_range(m->count, 0, MOST - 1);
    m->range[m->count++] = added;
}

static void add(Moved *m, Tensor *t, bool written) {
    if (!t->data) return;
    Range r = {.written = written};
    tensor_range(*t, &r.begin, &r.end);
    if (r.begin == r.end) return;
    assert_in_range(m->tensors, 0, MOST - 1);
    m->host[m->tensors] = t->data;
    m->tensor[m->tensors++] = t;
    add_range(m, r);
    if (!t->scale) return;
    char *scales = (char *)(uintptr_t)t->scale;
    add_range(m, (Range){.begin = scales, .end = scales + t->shape[0] * (int64_t)sizeof(float)});
}

static bool in_range(const Range *r, const void *at) {
    return (const char *)at >= r->begin && (const char *)at < r->end;
}

/* The margins are 0xff, NaN in every floating type. */
static void send_range(Device *device, Range *r) {
    const char *how = getenv("EASYFIRST_MIRROR");
    Error err;
    size_t margin = how && !strcmp(how, "exact") ? 0 : MARGIN, values = (size_t)(r->end - r->begin);
    r->before = margin + (uintptr_t)r->begin % ALIGN;
    r->size = r->before + values + margin;
    r->image = malloc(r->size);
    assert_non_null(r->image);
    memset(r->image, 0xff, r->size);
    memcpy(r->image + r->before, r->begin, values);
    assert_ok(mirror.gpu->alloc(device, &r->memory, r->size, &err), &err);
    assert_ok(mirror.gpu->upload(device, r->memory, r->image, r->size, &err), &err);
}

static void send(Moved *m) {
    for (int i = 0; i < m->count; i++) send_range(m->device, &m->range[i]);
    for (int t = 0; t < m->tensors; t++) {
        const char *scales = (const char *)m->tensor[t]->scale;
        for (int i = 0; i < m->count; i++) {
            const Range *r = &m->range[i];
            char *image = (char *)r->memory + r->before;
            if (in_range(r, m->host[t])) m->tensor[t]->data = image + (m->host[t] - r->begin);
            if (in_range(r, scales))
                m->tensor[t]->scale = (const float *)(image + (scales - r->begin));
        }
    }
}

static void check_unwritten(const char *op, const Range *r, const char *now, size_t from, size_t to,
                            const char *what) {
    for (size_t i = from; i < to; i++)
        if (now[i] != r->image[i])
            fail_msg("%s: wrote %s, byte %lld of %zu", op, what,
                     (long long)i - (long long)r->before, r->size);
}

static void fetch_range(Device *device, Range *r, const char *op) {
    size_t values = (size_t)(r->end - r->begin);
    Error err;
    char *now = malloc(r->size);
    assert_non_null(now);
    assert_ok(mirror.gpu->download(device, now, r->memory, r->size, &err), &err);
    check_unwritten(op, r, now, 0, r->before, "in front of a tensor");
    check_unwritten(op, r, now, r->before + values, r->size, "after a tensor");
    if (r->written)
        memcpy(r->begin, now + r->before, values);
    else
        check_unwritten(op, r, now, r->before, r->before + values, "into what it only reads");
    free(now), free(r->image);
    mirror.gpu->free(device, r->memory);
}

static void fetch(Moved *m, const char *op) {
    for (int i = 0; i < m->count; i++) fetch_range(m->device, &m->range[i], op);
}

/* The backend's operation on the ranges of `m`. Packing and scratch use the device's table, which
 * is the GPU's meanwhile. Asynchronous failures are reported by the wait. */
#define MIRRORED(m, op, ...)                                         \
    do {                                                             \
        send(&(m));                                                  \
        (m).device->backend = mirror.gpu;                            \
        int status = mirror.gpu->op(__VA_ARGS__);                    \
        if (status == 0) status = mirror.gpu->wait((m).device, err); \
        (m).device->backend = &mirror.backend;                       \
        fetch(&(m), #op);                                            \
        return status;                                               \
    } while (0)

/* ---- Memory, on the host. ---- */

static int mirror_alloc(Device *device, void **memory, size_t bytes, Error *err) {
    (void)device;
    if (bytes > PTRDIFF_MAX - ALIGN)
        return error_set(err, "out of memory: %zu bytes requested", bytes);
    void *taken = aligned_alloc(ALIGN, (bytes / ALIGN + 1) * ALIGN);
    if (!taken) return error_set(err, "out of memory: %zu bytes requested", bytes);
    memset(taken, 0xff, bytes); /* new memory is not zero */
    *memory = taken;
    return 0;
}

static void mirror_free(Device *device, void *memory) {
    (void)device;
    free(memory);
}

static int mirror_copy(Device *device, void *to, const void *from, size_t bytes, Error *err) {
    (void)device, (void)err;
    memmove(to, from, bytes);
    return 0;
}

static int mirror_clear(Device *device, void *memory, size_t bytes, Error *err) {
    (void)device, (void)err;
    memset(memory, 0, bytes);
    return 0;
}

static void mirror_close(Device *device) {
    device->backend = mirror.gpu;
    mirror.gpu->close(device);
}

static int mirror_wait(Device *device, Error *err) {
    return mirror.gpu->wait(device, err);
}

/* ---- Weights: the pieces may be anywhere, the pack is on the GPU. ---- */

static int mirror_pack(Device *device, struct Packed **packed, const Tensor *pieces, int count,
                       Dtype compute, bool vocabulary, const PackProgress *progress, Error *err) {
    device->backend = mirror.gpu;
    int status =
        mirror.gpu->pack_weight(device, packed, pieces, count, compute, vocabulary, progress, err);
    if (status == 0) status = mirror.gpu->wait(device, err);
    device->backend = &mirror.backend;
    return status;
}

static void mirror_packed_free(Device *device, struct Packed *packed) {
    device->backend = mirror.gpu;
    mirror.gpu->packed_free(device, packed);
    device->backend = &mirror.backend;
}

static size_t mirror_pack_size(Device *device, int64_t rows, int64_t columns, Dtype stored,
                               Dtype compute, bool vocabulary) {
    return mirror.gpu->pack_size(device, rows, columns, stored, compute, vocabulary);
}

static int mirror_conv2d_pack(Device *device, struct Packed **packed, const Conv2d *conv, Tensor w,
                              Dtype compute, Error *err) {
    device->backend = mirror.gpu;
    int status = mirror.gpu->conv2d_pack(device, packed, conv, w, compute, err);
    if (status == 0) status = mirror.gpu->wait(device, err);
    device->backend = &mirror.backend;
    return status;
}

/* ---- Operations. ---- */

#define READ(t)  add(&m, &(t), false)
#define WRITE(t) add(&m, &(t), true)

static int mirror_linear_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b,
                                 Activation activation, bool accumulate, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x), READ(b);
    if (!w.packed) READ(w);
    MIRRORED(m, linear_forward, device, y, x, w, b, activation, accumulate, err);
}

static int mirror_linear_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy,
                                  Tensor x, Tensor w, bool accumulate_dx, Error *err) {
    Moved m = {.device = device};
    WRITE(dx), WRITE(dw), WRITE(db), READ(dy), READ(x), READ(w);
    MIRRORED(m, linear_backward, device, dx, dw, db, dy, x, w, accumulate_dx, err);
}

static int mirror_activation_backward(Device *device, Tensor dx, Tensor dy, Tensor x,
                                      Activation activation, Error *err) {
    Moved m = {.device = device};
    WRITE(dx), READ(dy), READ(x);
    MIRRORED(m, activation_backward, device, dx, dy, x, activation, err);
}

static int mirror_layernorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x,
                                    Tensor w, Tensor b, float eps, Error *err) {
    Moved m = {.device = device};
    WRITE(y), WRITE(copy), WRITE(stats), READ(x), READ(w), READ(b);
    MIRRORED(m, layernorm_forward, device, y, copy, stats, x, w, b, eps, err);
}

static int mirror_layernorm_backward(Device *device, Tensor dx, Tensor dw, Tensor db, Tensor dy,
                                     Tensor x, Tensor w, Tensor stats, bool accumulate_dx,
                                     Error *err) {
    Moved m = {.device = device};
    WRITE(dx), WRITE(dw), WRITE(db), READ(dy), READ(x), READ(w), READ(stats);
    MIRRORED(m, layernorm_backward, device, dx, dw, db, dy, x, w, stats, accumulate_dx, err);
}

static int mirror_rmsnorm_forward(Device *device, Tensor y, Tensor copy, Tensor stats, Tensor x,
                                  Tensor w, float eps, Error *err) {
    Moved m = {.device = device};
    WRITE(y), WRITE(copy), WRITE(stats), READ(x), READ(w);
    MIRRORED(m, rmsnorm_forward, device, y, copy, stats, x, w, eps, err);
}

static int mirror_rmsnorm_backward(Device *device, Tensor dx, Tensor dw, Tensor dy, Tensor x,
                                   Tensor w, Tensor stats, bool accumulate_dx, Error *err) {
    Moved m = {.device = device};
    WRITE(dx), WRITE(dw), READ(dy), READ(x), READ(w), READ(stats);
    MIRRORED(m, rmsnorm_backward, device, dx, dw, dy, x, w, stats, accumulate_dx, err);
}

static int mirror_rotary_forward(Device *device, Tensor y, Tensor x, Tensor table, Tensor index,
                                 bool back, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x), READ(table), READ(index);
    MIRRORED(m, rotary_forward, device, y, x, table, index, back, err);
}

static int mirror_gated_forward(Device *device, Tensor y, Tensor x, Activation activation,
                                Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x);
    MIRRORED(m, gated_forward, device, y, x, activation, err);
}

static int mirror_gated_backward(Device *device, Tensor dx, Tensor dy, Tensor x,
                                 Activation activation, Error *err) {
    Moved m = {.device = device};
    WRITE(dx), READ(dy), READ(x);
    MIRRORED(m, gated_backward, device, dx, dy, x, activation, err);
}

static int mirror_attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k,
                                    Tensor v, int heads, float scale, const AttentionSpan *spans,
                                    int count, const Dropout *dropout, Error *err) {
    Moved m = {.device = device};
    WRITE(out), WRITE(lse), READ(q), READ(k), READ(v);
    MIRRORED(m, attention_forward, device, out, lse, q, k, v, heads, scale, spans, count, dropout,
             err);
}

static int mirror_attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                                     Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                     int heads, float scale, const AttentionSpan *spans, int count,
                                     const Dropout *dropout, Error *err) {
    Moved m = {.device = device};
    WRITE(dq), WRITE(dk), WRITE(dv), READ(dout), READ(out), READ(lse), READ(q), READ(k), READ(v);
    MIRRORED(m, attention_backward, device, dq, dk, dv, dout, out, lse, q, k, v, heads, scale,
             spans, count, dropout, err);
}

static int mirror_gather_forward(Device *device, Tensor y, const GatherTerm *terms, int count,
                                 Error *err) {
    Moved m = {.device = device};
    GatherTerm moved[MOST / 2];
    assert_in_range(count, 0, MOST / 2 - 1);
    WRITE(y);
    for (int i = 0; i < count; i++) {
        moved[i] = terms[i];
        READ(moved[i].table), READ(moved[i].index);
    }
    MIRRORED(m, gather_forward, device, y, moved, count, err);
}

static int mirror_gather_backward(Device *device, Tensor dtable, Tensor dy, Tensor index,
                                  Error *err) {
    Moved m = {.device = device};
    WRITE(dtable), READ(dy), READ(index);
    MIRRORED(m, gather_backward, device, dtable, dy, index, err);
}

static int mirror_convert_forward(Device *device, Tensor y, Tensor x, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x);
    MIRRORED(m, convert_forward, device, y, x, err);
}

static int mirror_patches_forward(Device *device, Tensor y, Tensor x, int channels, int side,
                                  int patch, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x);
    MIRRORED(m, patches_forward, device, y, x, channels, side, patch, err);
}

static int mirror_conv2d_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b,
                                 bool accumulate, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x), READ(b);
    MIRRORED(m, conv2d_forward, device, y, x, w, b, accumulate, err);
}

static int mirror_segment_mean_forward(Device *device, Tensor y, Tensor x, const int32_t *begin,
                                       int segments, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x);
    MIRRORED(m, segment_mean_forward, device, y, x, begin, segments, err);
}

static int mirror_segment_mean_backward(Device *device, Tensor dx, Tensor dy, const int32_t *begin,
                                        int segments, Error *err) {
    Moved m = {.device = device};
    WRITE(dx), READ(dy);
    MIRRORED(m, segment_mean_backward, device, dx, dy, begin, segments, err);
}

static int mirror_vocab_propose(Device *device, int32_t *tokens, float *scores, Tensor x, Tensor w,
                                Tensor b, const VocabChoice *choice, Error *err) {
    Moved m = {.device = device};
    READ(x), READ(b);
    if (!w.packed) READ(w);
    MIRRORED(m, vocab_propose, device, tokens, scores, x, w, b, choice, err);
}

static int mirror_vocab_logits(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x), READ(b);
    if (!w.packed) READ(w);
    MIRRORED(m, vocab_logits, device, y, x, w, b, err);
}

static int mirror_vocab_cross_entropy(Device *device, Tensor loss, Tensor dx, Tensor dw, Tensor db,
                                      Tensor x, Tensor w, Tensor b, Tensor target, Tensor weight,
                                      float smoothing, Tensor smoothing_weight, Error *err) {
    Moved m = {.device = device};
    WRITE(loss), WRITE(dx), WRITE(dw), WRITE(db);
    READ(x), READ(b), READ(target), READ(weight), READ(smoothing_weight);
    if (w.data) READ(w);
    MIRRORED(m, vocab_cross_entropy, device, loss, dx, dw, db, x, w, b, target, weight, smoothing,
             smoothing_weight, err);
}

static int mirror_dropout_forward(Device *device, Tensor y, Tensor x, Dropout dropout,
                                  bool accumulate, Error *err) {
    Moved m = {.device = device};
    WRITE(y), READ(x);
    MIRRORED(m, dropout_forward, device, y, x, dropout, accumulate, err);
}

static int mirror_adamw_step(Device *device, Tensor p, Tensor copy, Tensor first, Tensor second,
                             Tensor g, const AdamW *adamw, Error *err) {
    Moved m = {.device = device};
    WRITE(p), WRITE(copy), WRITE(first), WRITE(second), READ(g);
    MIRRORED(m, adamw_step, device, p, copy, first, second, g, adamw, err);
}

static int mirror_adamw8_step(Device *device, Tensor p, Tensor copy, const Moments8 *moments,
                              Tensor g, const AdamW *adamw, Error *err) {
    Moved m = {.device = device};
    Moments8 q = *moments;
    WRITE(p), WRITE(copy), WRITE(q.m), WRITE(q.v), WRITE(q.m_scale), WRITE(q.v_scale);
    READ(q.maps), READ(g);
    MIRRORED(m, adamw8_step, device, p, copy, &q, g, adamw, err);
}

static int mirror_square_sum(Device *device, double *sum, Tensor x, Error *err) {
    Moved m = {.device = device};
    READ(x);
    MIRRORED(m, square_sum, device, sum, x, err);
}

#define MIRROR_ELEMENTWISE(X, name, type, parameter)                                       \
    static int mirror_##name##_forward(Device *device, Tensor y, Tensor x, type parameter, \
                                       Error *err) {                                       \
        Moved m = {.device = device};                                                      \
        WRITE(y), READ(x);                                                                 \
        MIRRORED(m, name##_forward, device, y, x, parameter, err);                         \
    }
ELEMENTWISE_LIST(MIRROR_ELEMENTWISE, )

/* ---- Opening. ---- */

#define MIRROR_ENTRY(op) .op = mirror_##op,

int mirror_open(Device **device, int gpu, Error *err) {
    TRY(device_open(device, &(DeviceOptions){.kind = DEVICE_CUDA, .index = gpu}, err));
    mirror.gpu = (*device)->backend;
    mirror.backend = (Backend){.name = "mirrored CUDA",
                               .close = mirror_close,
                               .alloc = mirror_alloc,
                               .free = mirror_free,
                               .upload = mirror_copy,
                               .download = mirror_copy,
                               .clear = mirror_clear,
                               .wait = mirror_wait,
                               .pack_weight = mirror_pack,
                               .packed_free = mirror_packed_free,
                               .pack_size = mirror_pack_size,
                               .conv2d_pack = mirror_conv2d_pack,
                               OP_LIST(MIRROR_ENTRY)};
    (*device)->backend = &mirror.backend;
    return 0;
}
