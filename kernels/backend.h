/* backend.h - the backends of ops.h: one table of functions for each kind of device. Private to
 * kernels/.
 *
 * ops.c checks the arguments of every operation once, for all backends, and then calls through this
 * table; a backend may rely on shapes, types and ranges being right. A NULL entry is an operation
 * that the backend does not have; ops.c reports it as an error.
 */
#ifndef EASYFIRST_KERNELS_BACKEND_H
#define EASYFIRST_KERNELS_BACKEND_H

#include "kernels/op_list.h"

#define BACKEND_ENTRY(op) OP_TYPE(op) * op;

typedef struct Backend {
    const char *name;

    void (*close)(Device *);
    int (*alloc)(Device *, void **memory, size_t bytes, Error *);
    void (*free)(Device *, void *memory);
    int (*upload)(Device *, void *to, const void *from, size_t bytes, Error *);
    int (*download)(Device *, void *to, const void *from, size_t bytes, Error *);
    int (*clear)(Device *, void *memory, size_t bytes, Error *);
    /* device_use; NULL: any thread may use the device. */
    int (*use)(Device *, Error *);
    /* Both may be NULL: memory is not counted; work is complete when its call returns. */
    bool (*memory)(Device *, size_t *free_bytes, size_t *total);
    int (*wait)(Device *, Error *);
    /* NULL: the work is always run directly. */
    int (*replay)(Device *, ReplayKey, DeviceWork, void *work, Error *);

    int (*pack_weight)(Device *, struct Packed **, const Tensor *pieces, int count, Dtype compute,
                       bool vocabulary, const PackProgress *, Error *);
    void (*packed_free)(Device *, struct Packed *);
    size_t (*pack_size)(Device *, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                        bool vocabulary);
    int (*conv2d_pack)(Device *, struct Packed **, const Conv2d *, Tensor w, Dtype compute,
                       Error *);

    /* Exchanges with the same kind of device of other ranks (comm/comm.h); all NULL: through the
     * host's memory. `name`, made by one rank, is that of the ranks that join. Between the
     * beginning and the end of a group are the pieces that are exchanged at once, after all work so
     * far and beside what follows; reduce leaves the sum with `root`, broadcast sends what it has.
     * send and receive are of two ranks, in order with all other work. */
    int (*comm_name)(Device *, void *name, Error *); /* [COMM_NAME] */
    int (*comm_join)(Device *, const void *name, int rank, int ranks, Error *);
    int (*comm_group)(Device *, bool begin, Error *);
    int (*comm_reduce)(Device *, float *values, int64_t count, int root, Error *);
    int (*comm_broadcast)(Device *, void *data, size_t bytes, int root, Error *);
    int (*comm_wait)(Device *, Error *); /* work that follows waits for the groups so far */
    int (*comm_send)(Device *, const void *data, size_t bytes, int to, Error *);
    int (*comm_receive)(Device *, void *data, size_t bytes, int from, Error *);

    OP_LIST(BACKEND_ENTRY)
} Backend;

enum { COMM_NAME = 128 };

struct Device {
    const Backend *backend;
    DeviceKind kind;
    int threads;
    bool bf16;      /* matmuls of bf16 in hardware */
    char text[128]; /* device_text */
    DeviceCounters counters;
    const int *cancel; /* device_cancel_by */
    void *state;       /* the backend's own */
    /* Called between operations: exchanges that are under way then go on (comm/comm.c). */
    void (*poke)(void *user); /* NULL: there are none */
    void *poke_user;
};

static inline void device_poke(const Device *device) {
    if (device->poke) device->poke(device->poke_user);
}

/* A weight in a backend's layout. The matrix [rows, columns] is cut into chunks of chunk_rows rows
 * (one chunk, unless packed for a vocabulary), each packed by itself, chunk_bytes apart. */
struct Packed {
    int64_t rows, columns, chunk_rows;
    size_t chunk_bytes, bytes;
    Dtype dtype;  /* of the inputs they are multiplied with, and of the values without scales */
    float *scale; /* [rows], on the device: the values are i8, each row with its scale; else NULL */
    Conv2d conv;  /* kernel 0: a matrix; else a convolution's weight, in one chunk */
    void *data;
    void *layout; /* the backend's description of a chunk */
};

/* Opens the CPU (kernels/cpu/device.c): sets everything in *device. */
int cpu_open(Device *device, const DeviceOptions *options, Error *err);

/* The CUDA backend is a library of its own, libeasyfirst-cuda.so, which device.c opens when a GPU
 * is requested: a program linked with CUDA's libraries takes a tenth of a second and 200 MB to
 * start, and does not start at all where they are missing. This is the only symbol that it
 * exports. */
typedef struct CudaLibrary {
    uint64_t built_with; /* CUDA_LIBRARY_BUILD; another value: built for another version */
    int (*open)(Device *device, const DeviceOptions *options, Error *err);
    int (*count)(void); /* of GPUs */
} CudaLibrary;
extern const CudaLibrary easyfirst_cuda_library;

/* Identifies the binary interface between program and library. Increment the first term when a
 * struct changes but keeps its size. */
#define CUDA_LIBRARY_BUILD                                                             \
    (1u + 16u * (uint64_t)sizeof(Backend) + 65536u * (uint64_t)sizeof(struct Device) + \
     ((uint64_t)sizeof(Tensor) << 32))

#endif
