/* Matmuls by cuBLASLt.
 *
 * cuBLASLt's matrices are column-major. A row-major matrix [r, c] in memory is to it the transposed
 * one, [c, r], and so d = a b is asked for as d^T = b^T a^T with b as its first operand and a as
 * its second, without moving data. A linear layer, whose weight [N, K] is multiplied transposed,
 * becomes its "TN" matmul, which has the fastest kernels on every generation of tensor cores; the
 * bias, one value for each column of d, is one for each row of d^T, as the bias epilogue requires.
 *
 * The algorithm for a shape is the first choice of cuBLASLt's heuristic, cached. Candidates are not
 * timed (autotuned): the winner of a close race, and with it the last bits of every result, would
 * depend on the load of the machine, and a seed would no longer reproduce a training run; training
 * batches have a new number of rows at every step, so tuning would never end; and each would make
 * the host wait for the GPU. (The same row in a batch of another shape may get different last
 * bits.)
 *
 * With split-K (few rows, long sums), the parts are added in f32: schemes that add them in the type
 * of d would round them to bf16.
 */
#include "kernels/cuda/matmul.h"

#include "kernels/cuda/values.cuh"

#include <stdlib.h>
#include <string.h>

/* For split-K and other temporaries of algorithms. 32 MiB is recommended for Hopper, less for
 * earlier generations. */
static const size_t WORKSPACE = (size_t)32 << 20;

/* The plan cache is set-associative with LRU eviction: SETS sets of WAYS plans. A forward and
 * backward pass has some 30 shapes; another number of rows, as many more. */
enum { SETS = 64, WAYS = 8 };

/* Everything that the choice of an algorithm depends on. Without padding, so that keys can be
 * compared as bytes. */
typedef struct Key {
    int64_t m, n, k; /* d [m, n], sums of k */
    int64_t a_ld, b_ld, d_ld;
    int32_t in, out; /* Dtype of a and b, of d */
    int32_t a_transposed, b_transposed;
    int32_t a_align, b_align, d_align; /* bytes, powers of two up to 256 */
    int32_t bias_align;                /* 0: without one */
} Key;

typedef struct Plan {
    Key key;
    uint64_t used; /* 0: empty; else the time of the last use */
    bool found;    /* false: no algorithm */
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
} Plan;

struct Matmuls {
    cublasLtHandle_t handle;
    void *workspace;
    uint64_t clock;
    Plan plans[SETS][WAYS];
};

static int failed(cublasStatus_t status, const char *call, Error *err) {
    const int name = (int)strcspn(call, "(");
    return error_set(err, "cuBLASLt: %.*s: %s", name, call, cublasLtGetStatusString(status));
}

#define LT_TRY(call, err)                                                               \
    do {                                                                                \
        cublasStatus_t lt_status_ = (call);                                             \
        if (lt_status_ != CUBLAS_STATUS_SUCCESS) return failed(lt_status_, #call, err); \
    } while (0)

int matmuls_open(struct Matmuls **matmuls, const cudaDeviceProp *properties, Error *err) {
    (void)properties;
    struct Matmuls *p = (struct Matmuls *)calloc(1, sizeof *p);
    if (!p) return error_set(err, "out of memory: %zu bytes requested", sizeof *p);
    *matmuls = p; /* the caller closes it, also after a failure below */
    LT_TRY(cublasLtCreate(&p->handle), err);
    CUDA_TRY(cudaMalloc(&p->workspace, WORKSPACE), err);
    return 0;
}

void matmuls_close(struct Matmuls *matmuls) {
    if (!matmuls) return;
    if (matmuls->handle) cublasLtDestroy(matmuls->handle);
    cudaFree(matmuls->workspace);
    free(matmuls);
}

/* ---- Plans. ---- */

/* The largest power of two, up to 256, that divides the address. */
static int32_t alignment(const void *address) {
    const uintptr_t bits = (uintptr_t)address | 256;
    return (int32_t)(bits & (~bits + 1));
}

/* The row stride; that of a single row is arbitrary. */
static int64_t distance(int64_t rows, int64_t columns, int64_t ld) {
    return rows > 1 ? ld : columns;
}

static Key key_of(const Tensor *d, const Operand *a, const Operand *b, const void *bias) {
    Key key;
    memset(&key, 0, sizeof key);
    key.m = d->shape[0], key.n = d->shape[1];
    key.k = a->transposed ? a->rows : a->columns;
    key.a_ld = distance(a->rows, a->columns, a->ld);
    key.b_ld = distance(b->rows, b->columns, b->ld);
    key.d_ld = distance(key.m, key.n, d->ld);
    key.in = a->dtype, key.out = d->dtype;
    key.a_transposed = a->transposed, key.b_transposed = b->transposed;
    key.a_align = alignment(a->data), key.b_align = alignment(b->data);
    key.d_align = alignment(d->data);
    key.bias_align = bias ? alignment(bias) : 0;
    return key;
}

static size_t key_hash(const Key *key) {
    uint64_t word[sizeof *key / sizeof(uint64_t)], hash = 0;
    static_assert(sizeof word == sizeof *key, "keys are whole words");
    memcpy(word, key, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        hash = (hash ^ word[i] ^ hash >> 29) * 0x9E3779B97F4A7C15u;
    return (size_t)(hash >> 32);
}

static cudaDataType_t type_of(int32_t dtype) {
    return dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix [rows, columns] as cuBLASLt sees it. */
static int layout_init(cublasLtMatrixLayout_t layout, int32_t dtype, int64_t rows, int64_t columns,
                       int64_t ld, Error *err) {
    LT_TRY(cublasLtMatrixLayoutInit(layout, type_of(dtype), (uint64_t)columns, (uint64_t)rows, ld),
           err);
    return 0;
}

static int plan_describe(Plan *plan, const void *bias, Error *err) {
    const Key *k = &plan->key;
    const cublasOperation_t first = k->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = k->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cublasLtMatmulDesc_t operation = &plan->operation;
    /* Plain f32, without TF32, which keeps 10 bits of each operand's mantissa. */
    LT_TRY(cublasLtMatmulDescInit(operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), err);
    LT_TRY(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                          sizeof first),
           err);
    LT_TRY(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                          sizeof second),
           err);
    LT_TRY(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                          sizeof epilogue),
           err);
    if (bias)
        LT_TRY(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                              sizeof bias),
               err);
    TRY(layout_init(&plan->a, k->in, k->a_transposed ? k->k : k->m, k->a_transposed ? k->m : k->k,
                    k->a_ld, err));
    TRY(layout_init(&plan->b, k->in, k->b_transposed ? k->n : k->k, k->b_transposed ? k->k : k->n,
                    k->b_ld, err));
    return layout_init(&plan->d, k->out, k->m, k->n, k->d_ld, err);
}

static int preference_set(cublasLtMatmulPreference_t preference,
                          cublasLtMatmulPreferenceAttributes_t attribute, int32_t value,
                          Error *err) {
    const uint32_t v = (uint32_t)value;
    LT_TRY(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &v, sizeof v), err);
    return 0;
}

/* Promises cuBLASLt the addresses' actual alignment: column slices of bf16 may begin at any even
 * address. */
static int plan_choose(struct Matmuls *matmuls, Plan *plan, Error *err) {
    cublasLtMatmulPreferenceOpaque_t space;
    cublasLtMatmulPreference_t preference = &space;
    const uint64_t workspace = WORKSPACE;
    const Key *k = &plan->key;
    LT_TRY(cublasLtMatmulPreferenceInit(preference), err);
    LT_TRY(cublasLtMatmulPreferenceSetAttribute(
               preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace),
           err);
    TRY(preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                       CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, err));
    TRY(preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k->b_align, err));
    TRY(preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k->a_align, err));
    TRY(preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k->d_align, err));
    TRY(preference_set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k->d_align, err));

    enum { CANDIDATES = 4 };
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int count = 0;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(matmuls->handle, &plan->operation, &plan->b, &plan->a,
                                       &plan->d, &plan->d, preference, CANDIDATES, results, &count);
    /* "Not supported" is a result, not a failure: the caller may have a fallback. */
    if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED)
        return failed(status, "cublasLtMatmulAlgoGetHeuristic", err);
    plan->found = false;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count && !plan->found; i++) {
        if (results[i].state != CUBLAS_STATUS_SUCCESS || results[i].workspaceSize > WORKSPACE)
            continue;
        plan->algorithm = results[i].algo;
        plan->workspace = results[i].workspaceSize;
        plan->found = true;
    }
    return 0;
}

/* The cached or new plan for a key. */
static int plan_get(struct Matmuls *matmuls, Plan **found, const Key *key, const void *bias,
                    Error *err) {
    Plan *set = matmuls->plans[key_hash(key) % SETS], *plan = set;
    for (int way = 0; way < WAYS; way++) {
        if (set[way].used && memcmp(&set[way].key, key, sizeof *key) == 0) {
            set[way].used = ++matmuls->clock;
            *found = &set[way];
            return 0;
        }
        if (set[way].used < plan->used) plan = &set[way];
    }
    plan->used = 0; /* in case of a failure below */
    plan->key = *key;
    TRY(plan_describe(plan, bias, err));
    TRY(plan_choose(matmuls, plan, err));
    plan->used = ++matmuls->clock;
    *found = plan;
    return 0;
}

/* ---- Running. ---- */

/* The fallback if cuBLASLt cannot add the bias: an elementwise pass over d. */
template <typename T>
__global__ void bias_add_kernel(T *d, int64_t ld, const T *bias, int64_t rows, int64_t columns) {
    const int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const float b = to_f32(bias[column]);
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        T *at = d + r * ld + column;
        from_f32(at, to_f32(*at) + b);
    }
}

static int bias_add(Device *device, Tensor d, const void *bias, Error *err) {
    const int64_t rows = d.shape[0], columns = d.shape[1], ld = d.ld;
    const dim3 grid(cuda_blocks(columns, 256, INT32_MAX), cuda_blocks(rows, 1, 1024));
    if (d.dtype == DTYPE_BF16)
        LAUNCH(device, bias_add_kernel<bf16>, grid, 256, 0, err, (bf16 *)d.data, ld,
               (const bf16 *)bias, rows, columns);
    else
        LAUNCH(device, bias_add_kernel<float>, grid, 256, 0, err, (float *)d.data, ld,
               (const float *)bias, rows, columns);
    return 0;
}

/* The kernels of the bias epilogue may read it 16 bytes at a time. Its alignment cannot be set as a
 * preference: the heuristic uses the address that the plan is made with. */
static bool bias_fits(const void *bias) {
    return bias && (uintptr_t)bias % 16 == 0;
}

int cuda_matmul(Device *device, Tensor d, Operand a, Operand b, const void *bias, bool accumulate,
                Error *err) {
    struct Matmuls *matmuls = cuda_state(device)->matmuls;
    const float one = 1, beta = accumulate ? 1 : 0;
    const void *within = bias_fits(bias) ? bias : NULL;
    Key key = key_of(&d, &a, &b, within);
    Plan *plan;
    TRY(plan_get(matmuls, &plan, &key, within, err));
    if (!plan->found && within) {
        within = NULL, key.bias_align = 0;
        TRY(plan_get(matmuls, &plan, &key, within, err));
    }
    if (!plan->found)
        return error_set(err,
                         "cuBLASLt has no algorithm for [%lld, %lld] x [%lld, %lld], %s to %s, "
                         "rows %lld, %lld and %lld apart",
                         (long long)key.m, (long long)key.k, (long long)key.k, (long long)key.n,
                         dtype_name(a.dtype), dtype_name(d.dtype), (long long)key.a_ld,
                         (long long)key.b_ld, (long long)key.d_ld);
    if (within)
        LT_TRY(cublasLtMatmulDescSetAttribute(&plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                              &within, sizeof within),
               err);
    LT_TRY(cublasLtMatmul(matmuls->handle, &plan->operation, &one, b.data, &plan->b, a.data,
                          &plan->a, &beta, d.data, &plan->d, d.data, &plan->d, &plan->algorithm,
                          matmuls->workspace, WORKSPACE, cuda_state(device)->stream),
           err);
    cuda_count_launch(device);
    return bias && !within ? bias_add(device, d, bias, err) : 0;
}
