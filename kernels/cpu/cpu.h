/* cpu.h - the CPU backend's state. Private to kernels/cpu/.
 *
 * Matmuls are oneDNN's; everything else is in kernels/cpu/isa/, compiled once for each instruction
 * set and called through CpuKernels.
 */
#ifndef EASYFIRST_KERNELS_CPU_CPU_H
#define EASYFIRST_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

struct Matmul;       /* oneDNN's engine, stream and primitives: matmul.h */
struct MatmulLayout; /* how a packed weight lies in memory */

typedef struct CpuMemory {
    void *data;
    size_t size;
} CpuMemory;

typedef struct CpuState {
    const CpuKernels *kernels;
    struct Matmul *matmul;
    CpuMemory workspace; /* scratch of one operation at a time */
    CpuMemory int8;      /* scratch of matmuls with i8 weights, which use no other */
} CpuState;

static inline CpuState *cpu_state(Device *device) {
    return device->state;
}

/* At least `bytes` of scratch, aligned to 64, valid until the next call. It only ever grows: a
 * decode allocates in its first step only. */
int cpu_workspace(Device *device, void **memory, size_t bytes, Error *err);

/* The same, of another block of scratch in the device's state. */
int cpu_memory(Device *device, CpuMemory *held, void **memory, size_t bytes, Error *err);

/* Rows of a vocabulary that are processed together: see vocab.c. */
enum { VOCAB_CHUNK = 4096 };

/* Packed.layout of this backend: of all chunks but the last, and of the last, which may be shorter
 * (the same object where it is not). Both are NULL for plain rows of i8. */
typedef struct PackedLayout {
    struct MatmulLayout *chunk, *last;
    int32_t *zero; /* [rows], of i8 that is multiplied: what a row's sum is for inputs of 0 */
} PackedLayout;

/* linear_forward with the weight rows [first, first + count) alone: y [T, count]. Of a packed
 * weight they are one chunk: first a multiple of chunk_rows, count that many or the remaining
 * rows. */
int cpu_linear_rows(Device *, Tensor y, Tensor x, Tensor w, Tensor b, int64_t first, int64_t count,
                    Activation, bool accumulate, Error *);

/* The same with a weight packed as i8 (int8.c). */
int cpu_int8_rows(Device *, Tensor y, Tensor x, Tensor w, Tensor b, int64_t first, int64_t count,
                  Activation, bool accumulate, Error *);

/* The operations: cpu_linear_forward and so on. */
#define CPU_OPERATION(op) OP_TYPE(op) cpu_##op;
OP_LIST(CPU_OPERATION)

int cpu_pack_weight(Device *, struct Packed **, const Tensor *pieces, int count, Dtype compute,
                    bool vocabulary, const PackProgress *, Error *);
void cpu_packed_free(Device *, struct Packed *);
size_t cpu_pack_size(Device *, int64_t rows, int64_t columns, Dtype stored, Dtype compute,
                     bool vocabulary);

int cpu_conv2d_pack(Device *, struct Packed **, const Conv2d *, Tensor w, Dtype compute, Error *);
void cpu_conv2d_free(Device *, struct Packed *);

/* The matmuls of a backward pass, with plain matrices: dx = dy w or dx += dy w; dw += dy^T x; and
 * db += the column sums of dy [.., n]. */
int cpu_matmul_dx(Device *, Tensor dx, Tensor dy, Tensor w, bool accumulate, Error *);
int cpu_matmul_dw(Device *, Tensor dw, Tensor dy, Tensor x, Error *);
void cpu_column_sums(Device *, float *db, Tensor dy);

#endif
