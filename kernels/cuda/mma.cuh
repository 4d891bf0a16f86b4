/* mma.cuh - tensor core and asynchronous copy instructions (Ampere and later) as functions. Private
 * to kernels/cuda/.
 *
 * A fragment is the share of a small matrix that a lane of a warp holds. With g = lane / 4 and
 * t = lane % 4, two bf16 to a register, the lower column or row in the lower half:
 *     a [16, 16]: {(g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)}, pairs along the row
 *     b [16, 8]:  {(2t, g), (2t + 8, g)}, pairs along the column
 *     c [16, 8]:  {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)}, f32
 * so that two adjacent c fragments are, rounded to bf16, the a fragment of a following matmul.
 *
 * All 32 lanes take part in a call. Each has a version for tests/emulator; there, an asynchronous
 * copy destroys its target at once and writes it only when it is waited for, which reveals a kernel
 * that reads too early or overwrites data that others still read.
 */
#ifndef EASYFIRST_KERNELS_CUDA_MMA_CUH
#define EASYFIRST_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/values.cuh"

#ifdef EASYFIRST_EMULATED
#include <cstdlib>
#include <deque>
#include <vector>
#endif

/* Two values packed into a register of a fragment. */
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&both);
}
static __device__ __forceinline__ float2 unpack_bf16(uint32_t both) {
    return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
}

#ifndef EASYFIRST_EMULATED

/* c += a b, sums in f32. */
static __device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint32_t shared_address(const void *at) {
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* Loads four 8 x 8 matrices of bf16 from shared memory (ldmatrix): lane l passes the address of row
 * l % 8 of matrix l / 8, 16 aligned bytes, and gets the pair (g, 2t), (g, 2t + 1) of matrix i in
 * to[i]. */
static __device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const bf16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
}
/* The same of their transposes: (2t, g), (2t + 1, g) in memory. */
static __device__ __forceinline__ void load_matrices_turned(uint32_t (&to)[4], const bf16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row)));
}

/* Copies BYTES (4, 8 or 16, both addresses aligned to it) asynchronously into shared memory
 * (cp.async), without registers; unless `there`, writes zeros and reads nothing, but `from` must
 * still be a valid address. 16 bytes bypass the L1 cache. */
template <int BYTES>
static __device__ __forceinline__ void copy_async(void *to, const void *from, bool there) {
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                     "l"(from), "r"(there ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)),
                     "l"(from), "n"(BYTES), "r"(there ? BYTES : 0)
                     : "memory");
}
/* Ends a group of this thread's copies. */
static __device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits for this thread's groups except the last PENDING ones; other threads see the data after a
 * barrier. */
template <int PENDING> static __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* 2^x, within 2 units in the last place; results below 2^-126 become 0. NaN stays NaN. */
static __device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else /* tests/emulator */

static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Share {
        uint32_t a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const char *all =
        static_cast<const char *>(emulator_warp_exchange(FULL_WARP, &mine, sizeof mine));
    const unsigned lane = emulator_lane(), g = lane / 4, t = lane % 4;
    for (unsigned k = 0; k < 16; k += 2) {
        const unsigned pair = k % 8 / 2, half = k / 8;
        Share of_row, of_column[2];
        memcpy(&of_row, all + 64 * (4 * g + pair), sizeof of_row);
        for (unsigned j = 0; j < 2; j++)
            memcpy(&of_column[j], all + 64 * (4 * (2 * t + j) + pair), sizeof of_column[j]);
        for (unsigned i = 0; i < 4; i++) {
            const float2 x = unpack_bf16(of_row.a[2 * half + i / 2]);
            const float2 y = unpack_bf16(of_column[i % 2].b[half]);
            c[i] += x.x * y.x;
            c[i] += x.y * y.y;
        }
    }
}

static inline void load_matrices_as(uint32_t (&to)[4], const bf16 *row, bool turned) {
    if (reinterpret_cast<uintptr_t>(row) % 16) abort(); /* as the instruction would fail */
    const char *all = static_cast<const char *>(emulator_warp_exchange(FULL_WARP, row, 16));
    const unsigned lane = emulator_lane(), g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (unsigned j = 0; j < 2; j++) {
            const unsigned r = turned ? 2 * t + j : g, column = turned ? g : 2 * t + j;
            memcpy(&pair[j], all + 64 * (8 * i + r) + 2 * column, sizeof pair[j]);
        }
        to[i] = pair[0] | (uint32_t)pair[1] << 16;
    }
}
static inline void load_matrices(uint32_t (&to)[4], const bf16 *row) {
    load_matrices_as(to, row, false);
}
static inline void load_matrices_turned(uint32_t (&to)[4], const bf16 *row) {
    load_matrices_as(to, row, true);
}

/* The pending copies of each thread of the block, by group. */
struct EmulatedCopy {
    void *to;
    const void *from;
    size_t bytes;
};
static inline std::deque<std::vector<EmulatedCopy>> &emulated_copies() {
    static std::deque<std::vector<EmulatedCopy>> copies[1024];
    auto &mine = copies[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
    if (mine.empty()) mine.emplace_back();
    return mine;
}
template <int BYTES> static inline void copy_async(void *to, const void *from, bool there) {
    if (reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % BYTES)
        abort();
    memset(to, 0xff, BYTES);
    emulated_copies().back().push_back({to, there ? from : nullptr, BYTES});
}
static inline void copy_commit() {
    emulated_copies().emplace_back();
}
template <int PENDING> static inline void copy_wait() {
    auto &groups = emulated_copies();
    while (groups.size() > PENDING + 1) {
        for (const EmulatedCopy &c : groups.front()) {
            if (c.from)
                memcpy(c.to, c.from, c.bytes);
            else
                memset(c.to, 0, c.bytes);
        }
        groups.pop_front();
    }
}

static inline float exp2_fast(float x) {
    return exp2f(x);
}

#endif

#endif
