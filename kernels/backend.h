/* backend.h - what stands behind ops.h: one table of functions for each kind of device. Private to
 * kernels/.
 *
 * ops.c checks the arguments of every operation once, for all backends, and then calls through this
 * table; a backend may rely on shapes, types and ranges being right. An entry that is NULL is an
 * operation that the backend does not have, and ops.c says so.
 */
#ifndef EASYFIRST_KERNELS_BACKEND_H
#define EASYFIRST_KERNELS_BACKEND_H

#include "kernels/ops.h"

typedef struct Backend {
    const char *name;

    void (*close)(Device *);
    int (*alloc)(Device *, void **memory, size_t bytes, Error *);
    void (*free)(Device *, void *memory);
    int (*upload)(Device *, void *to, const void *from, size_t bytes, Error *);
    int (*download)(Device *, void *to, const void *from, size_t bytes, Error *);
    int (*clear)(Device *, void *memory, size_t bytes, Error *);
    /* Both may be NULL: memory that is not counted, work that is done when its call returns. */
    bool (*memory)(Device *, size_t *free_bytes, size_t *total);
    int (*wait)(Device *, Error *);
    /* NULL: the work is simply done. */
    int (*replay)(Device *, ReplayKey, DeviceWork, void *work, Error *);

    int (*pack_weight)(Device *, struct Packed **, const Tensor *pieces, int count, Dtype compute,
                       bool vocabulary, const PackWatch *, Error *);
    void (*packed_free)(Device *, struct Packed *);
    size_t (*pack_size)(Device *, int64_t rows, int64_t columns, Dtype compute, bool vocabulary);

    int (*linear_forward)(Device *, Tensor y, Tensor x, Tensor w, Tensor b, Activation,
                          bool accumulate, Error *);
    int (*linear_backward)(Device *, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x, Tensor w,
                           bool accumulate_dx, Error *);
    int (*activation_forward)(Device *, Tensor y, Tensor x, Activation, Error *);
    int (*activation_backward)(Device *, Tensor dx, Tensor dy, Tensor x, Activation, Error *);
    int (*layernorm_forward)(Device *, Tensor y, Tensor copy, Tensor stats, Tensor x, Tensor w,
                             Tensor b, float eps, Error *);
    int (*layernorm_backward)(Device *, Tensor dx, Tensor dw, Tensor db, Tensor dy, Tensor x,
                              Tensor w, Tensor stats, bool accumulate_dx, Error *);
    int (*attention_forward)(Device *, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             int heads, float scale, const AttentionSpan *, int count,
                             const Dropout *, Error *);
    int (*attention_backward)(Device *, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                              Tensor lse, Tensor q, Tensor k, Tensor v, int heads, float scale,
                              const AttentionSpan *, int count, const Dropout *, Error *);
    int (*gather_forward)(Device *, Tensor y, const GatherTerm *, int count, Error *);
    int (*gather_backward)(Device *, Tensor dtable, Tensor dy, Tensor index, Error *);
    int (*convert_forward)(Device *, Tensor y, Tensor x, Error *);
    int (*patches_forward)(Device *, Tensor y, Tensor x, int channels, int side, int patch,
                           Error *);
    int (*segment_mean_forward)(Device *, Tensor y, Tensor x, const int32_t *begin, int segments,
                                Error *);
    int (*segment_mean_backward)(Device *, Tensor dx, Tensor dy, const int32_t *begin, int segments,
                                 Error *);
    int (*vocab_propose)(Device *, int32_t *tokens, float *scores, Tensor x, Tensor w, Tensor b,
                         const VocabChoice *, Error *);
    int (*vocab_logits)(Device *, Tensor y, Tensor x, Tensor w, Tensor b, Error *);
    int (*vocab_cross_entropy)(Device *, Tensor loss, Tensor dx, Tensor dw, Tensor db, Tensor x,
                               Tensor w, Tensor b, Tensor target, Tensor weight, float smoothing,
                               Tensor smoothing_weight, Error *);
    int (*dropout_forward)(Device *, Tensor y, Tensor x, Dropout, bool accumulate, Error *);
    int (*scale_forward)(Device *, Tensor y, Tensor x, float scale, Error *);
    int (*adamw_step)(Device *, Tensor p, Tensor copy, Tensor m, Tensor v, Tensor g, const AdamW *,
                      Error *);
    int (*square_sum)(Device *, double *sum, Tensor x, Error *);
} Backend;

struct Device {
    const Backend *backend;
    DeviceKind kind;
    int threads;
    bool bf16;      /* matmuls of bf16 in hardware */
    char text[128]; /* device_text */
    DeviceCounters counters;
    void *state; /* the backend's own */
};

/* A weight in a backend's layout. The matrix [rows, columns] is cut into chunks of chunk_rows rows
 * (one chunk, unless packed for a vocabulary), each packed by itself, chunk_bytes apart. */
struct Packed {
    int64_t rows, columns, chunk_rows;
    size_t chunk_bytes, bytes;
    Dtype dtype; /* of the packed values, and of the inputs they are multiplied with */
    void *data;
    void *layout; /* the backend's description of a chunk */
};

/* Opens the CPU (kernels/cpu/device.c): sets everything in *device. */
int cpu_open(Device *device, const DeviceOptions *options, Error *err);

/* The CUDA backend is a library of its own, libeasyfirst-cuda.so, which device.c opens when a GPU
 * is wanted: a program that is linked with CUDA's libraries takes a tenth of a second and 200 MB to
 * start, and does not start at all where they are missing. This is the one symbol that it exports.
 */
typedef struct CudaLibrary {
    uint64_t built_with; /* CUDA_LIBRARY_BUILD; another number: not of this program */
    int (*open)(Device *device, const DeviceOptions *options, Error *err);
    int (*count)(void); /* of GPUs */
} CudaLibrary;
extern const CudaLibrary easyfirst_cuda_library;

/* Changes with what program and library hand each other. The first factor is raised by hand when a
 * struct changes but keeps its size. */
#define CUDA_LIBRARY_BUILD                                                             \
    (1u + 16u * (uint64_t)sizeof(Backend) + 65536u * (uint64_t)sizeof(struct Device) + \
     ((uint64_t)sizeof(Tensor) << 32))

#endif
