#include "kernels/cpu/matmul.h"
#include "kernels/cpu/dnnl_compat.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdlib.h>
#include <string.h>

/* The number of rows for which oneDNN chooses the layout of the weights. The layouts for few rows
 * are slow for many, but not the other way round: at 4 rows the layout chosen at 256 is within
 * noise of the best one, and 3 to 4 times faster than plain rows. */
enum { LAYOUT_ROWS = 256 };

/* Compiled matmuls kept, some 200 kB each. A language model has about ten shapes for each number of
 * rows, and each prompt may add a new number. oneDNN itself caches the latest 1024 of the process,
 * so that one evicted here is often found there in a fraction of the time. */
enum { CACHE_ENTRIES = 512, CACHE_BUCKETS = 1024 };

enum { SCRATCH_ALIGN = 4096 };

/* Everything that a primitive is compiled for; compared as bytes, so cleared before it is
 * filled. */
typedef struct Key {
    int64_t m, n, k, x_ld, w_ld, y_ld;
    uint8_t dtype, y_dtype, activation;
    bool x_transposed, w_transposed, packed, bias, accumulate;
} Key;

typedef struct Entry {
    Key key;
    uint64_t used; /* time of the latest run; 0: the entry is free */
    int next;      /* in the bucket's chain; -1 ends it */
    dnnl_primitive_t primitive;
    dnnl_memory_t x, w, bias, y, scratch; /* bias and scratch may be NULL */
    size_t scratch_bytes;
} Entry;

struct Matmul {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    uint64_t clock;
    char *scratch; /* scratchpad of the running primitive, then its copies of slices */
    size_t scratch_bytes;
    int bucket[CACHE_BUCKETS]; /* first entry, -1: none */
    Entry entry[CACHE_ENTRIES];
};

struct MatmulLayout {
    int64_t n, k;
    Dtype dtype;
    dnnl_memory_desc_t desc;
};

/* ---- Differences between oneDNN 2 and 3: memory descriptors (a struct by value in 2, an owned
 * object in 3), the creation of primitive descriptors, and the arguments of post-ops. Here a
 * descriptor is always a dnnl_memory_desc_t to be freed by desc_free; all zeros means none. ---- */

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t matmul_describe(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                     const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w,
                                     const dnnl_memory_desc_t *bias, const dnnl_memory_desc_t *y,
                                     const_dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(pd, engine, *x, *w, *bias, *y, attr);
}

#else

static dnnl_status_t matmul_describe(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                     const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w,
                                     const dnnl_memory_desc_t *bias, const dnnl_memory_desc_t *y,
                                     const_dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, x, w, bias->ndims ? bias : NULL, y);
    return status != dnnl_success ? status
                                  : dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
}

#endif

static dnnl_data_type_t data_type(Dtype dtype) {
    switch (dtype) {
    case DTYPE_BF16:
        return dnnl_bf16;
    case DTYPE_I8:
        return dnnl_s8;
    case DTYPE_U8:
        return dnnl_u8;
    case DTYPE_I32:
        return dnnl_s32;
    default:
        return dnnl_f32;
    }
}

/* oneDNN takes the number of threads from OpenMP, when it compiles and when it runs. It is set for
 * the duration of a call, so that devices do not affect each other. Setting it costs nanoseconds;
 * threads are started only when more than before are used. */
static int threads_lend(int threads) {
    int before = omp_get_max_threads();
    if (before != threads) omp_set_num_threads(threads);
    return before;
}

static void threads_return(int before) {
    if (before != omp_get_max_threads()) omp_set_num_threads(before);
}

/* Threads for a matmul: one thread does a million multiply-adds in some 10 microseconds, and
 * waiting for others costs as much, far more on a busy machine. */
static int matmul_threads(const Matmul *matmul, int64_t m, int64_t n, int64_t k) {
    return m * n * k < 1000000 ? 1 : matmul->threads;
}

/* ---- Opening and closing. ---- */

static void entry_clear(Entry *e) {
    if (e->primitive) dnnl_primitive_destroy(e->primitive);
    dnnl_memory_t memories[] = {e->x, e->w, e->bias, e->y, e->scratch};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    memset(e, 0, sizeof *e);
}

int matmul_open(Matmul **matmul, int threads, Error *err) {
    Matmul *m = calloc(1, sizeof *m);
    if (!m) return error_set(err, "out of memory: %zu bytes requested", sizeof *m);
    m->threads = threads;
    for (int i = 0; i < CACHE_BUCKETS; i++) m->bucket[i] = -1;
    int before = threads_lend(m->threads);
    dnnl_status_t status = dnnl_engine_create(&m->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&m->stream, m->engine, dnnl_stream_default_flags);
    threads_return(before);
    if (status != dnnl_success) {
        matmul_close(m);
        return error_set(err, "oneDNN does not start: %s", dnnl_status2str(status));
    }
    *matmul = m;
    return 0;
}

void matmul_close(Matmul *matmul) {
    if (!matmul) return;
    for (int i = 0; i < CACHE_ENTRIES; i++) entry_clear(&matmul->entry[i]);
    if (matmul->stream) dnnl_stream_destroy(matmul->stream);
    if (matmul->engine) dnnl_engine_destroy(matmul->engine);
    free(matmul->scratch);
    free(matmul);
}

struct dnnl_engine *matmul_engine(const Matmul *matmul) {
    return matmul->engine;
}

struct dnnl_stream *matmul_stream(const Matmul *matmul) {
    return matmul->stream;
}

bool matmul_has_bf16(void) {
    /* The sets are bit masks: one with AMX includes that of AVX-512 with bf16. Processors other
     * than x86-64 report 0. */
    unsigned want = dnnl_cpu_isa_avx512_core_bf16;
    return ((unsigned)dnnl_get_effective_cpu_isa() & want) == want;
}

bool matmul_has_int8(void) {
    unsigned want = dnnl_cpu_isa_avx512_core_vnni;
    return ((unsigned)dnnl_get_effective_cpu_isa() & want) == want;
}

/* ---- Describing a matmul to oneDNN. ---- */

static dnnl_status_t attributes_create(dnnl_primitive_attr_t *attr, const Key *key) {
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(attr);
    if (s != dnnl_success) return s;
    s = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    /* f32 is computed in f32, even if oneDNN's environment variables say otherwise. */
    if (s == dnnl_success) s = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
    if (s == dnnl_success) s = dnnl_post_ops_create(&ops);
    if (s == dnnl_success && key->accumulate) s = append_sum(ops);
    if (s == dnnl_success) switch (key->activation) {
        case ACTIVATION_GELU:
            s = append_eltwise(ops, dnnl_eltwise_gelu_erf, 0, 0);
            break;
        case ACTIVATION_QUICK_GELU:
            s = append_eltwise(ops, dnnl_eltwise_swish, 1.702f, 0);
            break;
        case ACTIVATION_RELU:
            s = append_eltwise(ops, dnnl_eltwise_relu, 0, 0);
            break;
        case ACTIVATION_SILU:
            s = append_eltwise(ops, dnnl_eltwise_swish, 1, 0);
            break;
        case ACTIVATION_TANH:
            s = append_eltwise(ops, dnnl_eltwise_tanh, 0, 0);
            break;
        default:
            break;
        }
    if (s == dnnl_success) s = dnnl_primitive_attr_set_post_ops(*attr, ops);
    if (ops) dnnl_post_ops_destroy(ops);
    return s;
}

/* A logical matrix of `rows` x `columns`, stored by rows or (transposed) by columns. */
static dnnl_status_t matrix_describe(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns,
                                     Dtype dtype, int64_t ld, bool transposed) {
    dnnl_dims_t dims = {rows, columns}, strides = {ld, 1};
    if (transposed) strides[0] = 1, strides[1] = ld;
    return desc_strided(desc, 2, dims, data_type(dtype), strides);
}

/* The primitive descriptor of a matmul. The weights are as in the key, or in the layout, or, with
 * `any_layout`, in the one that oneDNN prefers. */
static dnnl_status_t describe(Matmul *matmul, dnnl_primitive_desc_t *pd, const Key *key,
                              const MatmulLayout *layout, bool any_layout) {
    dnnl_memory_desc_t x, w, bias, y;
    memset(&x, 0, sizeof x), memset(&w, 0, sizeof w);
    memset(&bias, 0, sizeof bias), memset(&y, 0, sizeof y);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t w_dims = {key->k, key->n}, bias_dims = {1, key->n}, bias_strides = {key->n, 1};

    Dtype x_dtype = key->dtype == DTYPE_I8 ? DTYPE_U8 : (Dtype)key->dtype;
    dnnl_status_t s = matrix_describe(&x, key->m, key->k, x_dtype, key->x_ld, key->x_transposed);
    if (s == dnnl_success) {
        if (any_layout)
            s = desc_any(&w, 2, w_dims, data_type(key->dtype));
        else if (layout)
            s = desc_copy(&w, desc_argument(&layout->desc));
        else /* [n, k] by rows is the matmul's [k, n] by columns */
            s = matrix_describe(&w, key->k, key->n, key->dtype, key->w_ld, !key->w_transposed);
    }
    if (s == dnnl_success && key->bias)
        s = desc_strided(&bias, 2, bias_dims, dnnl_f32, bias_strides);
    if (s == dnnl_success) s = matrix_describe(&y, key->m, key->n, key->y_dtype, key->y_ld, false);
    if (s == dnnl_success) s = attributes_create(&attr, key);
    if (s == dnnl_success) s = matmul_describe(pd, matmul->engine, &x, &w, &bias, &y, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    desc_free(&x), desc_free(&w), desc_free(&bias), desc_free(&y);
    return s;
}

static DescArgument desc_of(const_dnnl_primitive_desc_t pd, int argument) {
    return dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, argument);
}

static dnnl_status_t memory_create(Matmul *matmul, dnnl_memory_t *memory, DescArgument desc) {
    return dnnl_memory_create(memory, desc, matmul->engine, DNNL_MEMORY_NONE);
}

static int matmul_error(const Key *key, dnnl_status_t status, Error *err) {
    return error_set(err, "matmul [%lld, %lld] x [%lld, %lld], %s to %s: oneDNN says %s",
                     (long long)key->m, (long long)key->k, (long long)key->k, (long long)key->n,
                     dtype_name(key->dtype), dtype_name(key->y_dtype), dnnl_status2str(status));
}

static dnnl_status_t entry_create(Matmul *matmul, Entry *e, const Key *key,
                                  const MatmulLayout *layout) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = describe(matmul, &pd, key, layout, false);
    if (s != dnnl_success) return s;
    e->key = *key;
    e->scratch_bytes = dnnl_memory_desc_get_size(desc_of(pd, DNNL_ARG_SCRATCHPAD));
    e->scratch_bytes = (e->scratch_bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    s = dnnl_primitive_create(&e->primitive, pd);
    if (s == dnnl_success) s = memory_create(matmul, &e->x, desc_of(pd, DNNL_ARG_SRC));
    if (s == dnnl_success) s = memory_create(matmul, &e->w, desc_of(pd, DNNL_ARG_WEIGHTS));
    if (s == dnnl_success) s = memory_create(matmul, &e->y, desc_of(pd, DNNL_ARG_DST));
    if (s == dnnl_success && key->bias)
        s = memory_create(matmul, &e->bias, desc_of(pd, DNNL_ARG_BIAS));
    if (s == dnnl_success && e->scratch_bytes)
        s = memory_create(matmul, &e->scratch, desc_of(pd, DNNL_ARG_SCRATCHPAD));
    dnnl_primitive_desc_destroy(pd);
    if (s != dnnl_success) entry_clear(e);
    return s;
}

/* ---- The cache of compiled matmuls. ---- */

static unsigned key_bucket(const Key *key) {
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return (unsigned)((hash ^ hash >> 32) % CACHE_BUCKETS);
}

/* A free entry, or else the least recently used, removed from its bucket. The search takes about a
 * microsecond, before half a millisecond of compiling. */
static Entry *entry_take(Matmul *matmul) {
    Entry *oldest = matmul->entry;
    for (int i = 1; i < CACHE_ENTRIES; i++)
        if (matmul->entry[i].used < oldest->used) oldest = &matmul->entry[i];
    if (!oldest->used) return oldest;
    int *link = &matmul->bucket[key_bucket(&oldest->key)];
    while (&matmul->entry[*link] != oldest) link = &matmul->entry[*link].next;
    *link = oldest->next;
    entry_clear(oldest);
    return oldest;
}

static int entry_find(Matmul *matmul, Entry **entry, const Key *key, const MatmulLayout *layout,
                      Error *err) {
    unsigned bucket = key_bucket(key);
    for (int i = matmul->bucket[bucket]; i >= 0; i = matmul->entry[i].next)
        if (memcmp(&matmul->entry[i].key, key, sizeof *key) == 0) {
            *entry = &matmul->entry[i];
            return 0;
        }
    Entry *e = entry_take(matmul);
    dnnl_status_t status = entry_create(matmul, e, key, layout);
    if (status != dnnl_success) return matmul_error(key, status, err);
    e->used = ++matmul->clock;
    e->next = matmul->bucket[bucket];
    matmul->bucket[bucket] = (int)(e - matmul->entry);
    *entry = e;
    return 0;
}

static int scratch_grow(Matmul *matmul, size_t bytes, Error *err) {
    if (bytes <= matmul->scratch_bytes) return 0;
    free(matmul->scratch);
    matmul->scratch_bytes = 0;
    if (!(matmul->scratch = aligned_alloc(SCRATCH_ALIGN, bytes)))
        return error_set(err, "out of memory: %zu bytes requested for a matmul", bytes);
    matmul->scratch_bytes = bytes;
    return 0;
}

/* ---- Running. ---- */

static dnnl_status_t entry_run(Matmul *matmul, const Entry *e, const MatmulTask *task) {
    /* oneDNN's handles are not const, but it only writes to y and the scratchpad. */
    const struct {
        int argument;
        dnnl_memory_t memory;
        const void *data;
    } operands[] = {
        {DNNL_ARG_SRC, e->x, task->x},
        {DNNL_ARG_WEIGHTS, e->w, task->w},
        {DNNL_ARG_DST, e->y, task->y},
        {DNNL_ARG_BIAS, e->bias, task->bias},
        {DNNL_ARG_SCRATCHPAD, e->scratch, matmul->scratch},
    };
    dnnl_exec_arg_t args[sizeof operands / sizeof *operands];
    int count = 0;
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++) {
        if (!operands[i].memory) continue;
        dnnl_status_t s =
            dnnl_memory_set_data_handle(operands[i].memory, (void *)(uintptr_t)operands[i].data);
        if (s != dnnl_success) return s;
        args[count++] = (dnnl_exec_arg_t){operands[i].argument, operands[i].memory};
    }
    dnnl_status_t s = dnnl_primitive_execute(e->primitive, matmul->stream, count, args);
    return s != dnnl_success ? s : dnnl_stream_wait(matmul->stream);
}

static Key key_make(const MatmulTask *task) {
    Key key;
    memset(&key, 0, sizeof key);
    key.m = task->m, key.n = task->n, key.k = task->k;
    key.x_ld = task->x_ld, key.y_ld = task->y_ld;
    key.dtype = (uint8_t)task->dtype, key.y_dtype = (uint8_t)task->y_dtype;
    key.activation = (uint8_t)task->activation;
    key.x_transposed = task->x_transposed;
    /* Weights of one shape and type have one layout: it need not be in the key, and the layers of a
     * model share their primitives. */
    key.packed = task->layout != NULL;
    if (!key.packed) key.w_ld = task->w_ld, key.w_transposed = task->w_transposed;
    key.bias = task->bias != NULL;
    key.accumulate = task->accumulate;
    return key;
}

/* A matrix with gaps between its rows, and the memory for a copy without them. */
typedef struct Slice {
    char *data, *dense;
    int64_t rows;
    size_t row_bytes, step; /* step: from row to row in `data`; 0: there are no gaps, no copy */
} Slice;

/* Sets *copy_bytes to the size of a copy, if one is needed. */
static Slice slice_plan(const void *data, Dtype dtype, int64_t rows, int64_t columns, int64_t ld,
                        size_t *copy_bytes) {
    size_t size = dtype_size(dtype);
    Slice s = {.data = (char *)(uintptr_t)data, .rows = rows, .row_bytes = (size_t)columns * size};
    if (rows == 1 || ld == columns) return s;
    s.step = (size_t)ld * size;
    *copy_bytes = ((size_t)rows * s.row_bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    return s;
}

static void slice_copy(const Matmul *matmul, const Slice *s, bool back) {
#pragma omp parallel for schedule(static) \
    num_threads(matmul->threads) if ((size_t)s->rows * s->row_bytes > 1 << 18)
    for (int64_t r = 0; r < s->rows; r++) {
        char *data = s->data + (size_t)r * s->step, *dense = s->dense + (size_t)r * s->row_bytes;
        memcpy(back ? data : dense, back ? dense : data, s->row_bytes);
    }
}

/* oneDNN's fast kernels (of 2.6 and 3.2 at least) need contiguous rows of x and y: a slice with a
 * packed weight would get its reference loops. Such slices are copied into the scratch memory and
 * back, m (k + n) values against m k n multiplications. Plain weights with slices have a fast
 * kernel. */
static int task_run(Matmul *matmul, MatmulTask task, Error *err) {
    int64_t x_rows = task.x_transposed ? task.k : task.m;
    int64_t x_columns = task.x_transposed ? task.m : task.k;
    /* A single row has no gaps. */
    if (x_rows == 1) task.x_ld = x_columns;
    if (task.m == 1) task.y_ld = task.n;

    size_t x_bytes = 0, y_bytes = 0;
    Slice x = {0}, y = {0};
    if (task.layout) {
        x = slice_plan(task.x, task.dtype, x_rows, x_columns, task.x_ld, &x_bytes);
        y = slice_plan(task.y, task.y_dtype, task.m, task.n, task.y_ld, &y_bytes);
        task.x_ld = x_columns, task.y_ld = task.n;
    }
    Key key = key_make(&task);
    Entry *e = NULL;
    TRY(entry_find(matmul, &e, &key, task.layout, err));
    TRY(scratch_grow(matmul, e->scratch_bytes + x_bytes + y_bytes, err));
    if (x.step) {
        task.x = x.dense = matmul->scratch + e->scratch_bytes;
        slice_copy(matmul, &x, false);
    }
    if (y.step) {
        task.y = y.dense = matmul->scratch + e->scratch_bytes + x_bytes;
        if (task.accumulate) slice_copy(matmul, &y, false);
    }

    e->used = ++matmul->clock;
    dnnl_status_t status = entry_run(matmul, e, &task);
    if (status != dnnl_success) return matmul_error(&key, status, err);
    if (y.step) slice_copy(matmul, &y, true);
    return 0;
}

/* Rows of the next oneDNN call for a matmul of `rows` rows. Compiling takes about a millisecond, a
 * thousand times as long as a small matmul itself, and decoding has a different number of rows in
 * nearly every step: so matmuls with small weights are split into powers of two and a remainder
 * below PIECE_ROWS, and some forty compiled ones serve any number. A row's bits are the same. Large
 * weights would be read from memory again for each piece; for them each number of rows is
 * compiled. */
static int64_t piece_rows(const MatmulTask *task, int64_t rows) {
    enum { PIECE_ROWS = 32, SMALL_WEIGHT = 1 << 19 };
    if (rows <= PIECE_ROWS || task->n * task->k > SMALL_WEIGHT || task->x_transposed) return rows;
    int64_t piece = PIECE_ROWS;
    while (2 * piece <= rows) piece *= 2;
    return piece;
}

int matmul_run(Matmul *matmul, const MatmulTask *task, Error *err) {
    int before = threads_lend(matmul_threads(matmul, task->m, task->n, task->k));
    MatmulTask part = *task;
    int result = 0;
    for (int64_t done = 0; done < task->m && result == 0; done += part.m) {
        part.m = piece_rows(task, task->m - done);
        part.x = (const char *)task->x + (size_t)(done * task->x_ld) * dtype_size(task->dtype);
        part.y = (char *)task->y + (size_t)(done * task->y_ld) * dtype_size(task->y_dtype);
        result = task_run(matmul, part, err);
    }
    threads_return(before);
    return result;
}

/* ---- Layouts. ---- */

int matmul_layout_open(Matmul *matmul, MatmulLayout **layout, int64_t n, int64_t k, Dtype dtype,
                       Error *err) {
    Key key;
    memset(&key, 0, sizeof key);
    key.m = LAYOUT_ROWS, key.n = n, key.k = k, key.x_ld = k, key.y_ld = n;
    key.dtype = (uint8_t)dtype;
    key.y_dtype = (uint8_t)(dtype == DTYPE_I8 ? DTYPE_I32 : dtype);
    MatmulLayout *l = calloc(1, sizeof *l);
    if (!l) return error_set(err, "out of memory: %zu bytes requested", sizeof *l);
    l->n = n, l->k = k, l->dtype = dtype;

    int before = threads_lend(matmul->threads);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = describe(matmul, &pd, &key, NULL, true);
    if (s == dnnl_success) {
        s = desc_copy(&l->desc, desc_of(pd, DNNL_ARG_WEIGHTS));
        dnnl_primitive_desc_destroy(pd);
    }
    threads_return(before);
    if (s != dnnl_success) {
        matmul_layout_close(l);
        return matmul_error(&key, s, err);
    }
    *layout = l;
    return 0;
}

void matmul_layout_close(MatmulLayout *layout) {
    if (!layout) return;
    desc_free(&layout->desc);
    free(layout);
}

size_t matmul_layout_bytes(const MatmulLayout *layout) {
    return dnnl_memory_desc_get_size(desc_argument(&layout->desc));
}

int matmul_layout_fill(Matmul *matmul, const MatmulLayout *layout, void *to, const void *from,
                       int64_t ld, Error *err) {
    dnnl_memory_desc_t plain;
    memset(&plain, 0, sizeof plain);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t source = NULL, target = NULL;
    int before = threads_lend(matmul->threads);
    dnnl_status_t s = matrix_describe(&plain, layout->k, layout->n, layout->dtype, ld, true);
    DescArgument a = desc_argument(&plain), b = desc_argument(&layout->desc);
    if (s == dnnl_success)
        s = dnnl_reorder_primitive_desc_create(&pd, a, matmul->engine, b, matmul->engine, NULL);
    if (s == dnnl_success) s = dnnl_primitive_create(&reorder, pd);
    if (s == dnnl_success)
        s = dnnl_memory_create(&source, a, matmul->engine, (void *)(uintptr_t)from);
    if (s == dnnl_success) s = dnnl_memory_create(&target, b, matmul->engine, to);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
    if (s == dnnl_success) s = dnnl_primitive_execute(reorder, matmul->stream, 2, args);
    if (s == dnnl_success) s = dnnl_stream_wait(matmul->stream);
    if (source) dnnl_memory_destroy(source);
    if (target) dnnl_memory_destroy(target);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    desc_free(&plain);
    threads_return(before);
    if (s == dnnl_success) return 0;
    return error_set(err, "packing a weight [%lld, %lld] %s: oneDNN says %s", (long long)layout->n,
                     (long long)layout->k, dtype_name(layout->dtype), dnnl_status2str(s));
}
