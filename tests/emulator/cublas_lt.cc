/* cuBLASLt's matmuls on a CPU, in double. Everything that the real one would refuse, or compute
 * wrongly without an error, is refused here, with the reason on stderr: mismatched shapes,
 * overlapping rows, mixed types, addresses less aligned than promised, an algorithm used for
 * another matmul than it was chosen for, a workspace that is too small. */
#include "cublasLt.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" {
#include "kernels/tensor.h"
}

struct cublasLtContext {
    int open;
};

namespace {

cublasStatus_t refused(const char *why) {
    fprintf(stderr, "emulated cuBLASLt: %s\n", why);
    return CUBLAS_STATUS_INVALID_VALUE;
}

bool is(const cublasLtMatrixLayoutOpaque_t &a, const cublasLtMatrixLayoutOpaque_t &b) {
    return a.type == b.type && a.rows == b.rows && a.cols == b.cols && a.ld == b.ld;
}

/* Checks a problem for any algorithm. */
cublasStatus_t check(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
    if (op->compute != CUBLAS_COMPUTE_32F || op->scale != CUDA_R_32F)
        return refused("sums and factors are f32 here");
    const bool ta = op->transa == CUBLAS_OP_T, tb = op->transb == CUBLAS_OP_T;
    const uint64_t m = ta ? a->cols : a->rows, k = ta ? a->rows : a->cols;
    const uint64_t k_of_b = tb ? b->cols : b->rows, n = tb ? b->rows : b->cols;
    if (k != k_of_b) return refused("op(A) and op(B) do not fit together");
    if (m != d->rows || n != d->cols) return refused("op(A) op(B) has not the shape of D");
    if (!is(*c, *d)) return refused("C and D differ, but share their memory");
    if (a->type != b->type) return refused("A and B are of different types");
    if (a->type != CUDA_R_32F && a->type != CUDA_R_16BF)
        return refused("A is neither f32 nor bf16");
    if (d->type != CUDA_R_32F && d->type != a->type)
        return refused("D is neither f32 nor of A's type");
    if (op->epilogue == CUBLASLT_EPILOGUE_BIAS && !op->bias)
        return refused("the bias epilogue has no bias");
    return CUBLAS_STATUS_SUCCESS;
}

double value_at(const void *data, cudaDataType type, uint64_t i) {
    return type == CUDA_R_32F ? static_cast<const float *>(data)[i]
                              : bf16_to_f32(static_cast<const uint16_t *>(data)[i]);
}

void value_put(void *data, cudaDataType type, uint64_t i, double v) {
    if (type == CUDA_R_32F)
        static_cast<float *>(data)[i] = float(v);
    else
        static_cast<uint16_t *>(data)[i] = f32_to_bf16(float(v));
}

/* Element (i, j) of op(X) at [i * columns + j], rows x columns being op(X)'s. */
std::vector<double> gather(const void *x, const cublasLtMatrixLayoutOpaque_t &l, bool transposed) {
    const uint64_t rows = transposed ? l.cols : l.rows, columns = transposed ? l.rows : l.cols;
    std::vector<double> out(rows * columns);
    for (uint64_t j = 0; j < l.cols; j++)
        for (uint64_t i = 0; i < l.rows; i++)
            out[transposed ? j * columns + i : i * columns + j] =
                value_at(x, l.type, j * uint64_t(l.ld) + i);
    return out;
}

} // namespace

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS         ? "success"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported"
                                                   : "invalid value";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = new cublasLtContext{1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type,
                                        uint64_t rows, uint64_t cols, int64_t ld) {
    if (!rows || !cols) return refused("a matrix without rows or columns");
    if (ld < 0 || uint64_t(ld) < rows) return refused("columns of a matrix overlap");
    *layout = {type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t op, cublasComputeType_t compute,
                                      cudaDataType_t scale) {
    *op = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    const size_t expected = attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : 4;
    if (!value || bytes != expected) return refused("an attribute of another size");
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        memcpy(&op->transa, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        memcpy(&op->transb, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        memcpy(&op->epilogue, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        memcpy(&op->bias, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    }
    return refused("an unknown attribute of a matmul");
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
    *preference = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    const bool wide = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (!value || bytes != (wide ? 8u : 4u)) return refused("a preference of another size");
    if (wide)
        memcpy(&preference->workspace, value, bytes);
    else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        memcpy(&preference->schemes, value, bytes);
    else
        memcpy(&preference->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
               bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *count) {
    if (!handle || !handle->open) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (asked < 1) return refused("no algorithm asked for");
    cublasStatus_t status = check(op, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (d->type == CUDA_R_16BF && preference->schemes & (CUBLASLT_REDUCTION_SCHEME_INPLACE |
                                                         CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE))
        return refused("parts of sums may be added up in bf16");
    for (uint32_t align : preference->align)
        if (!align || align & (align - 1) || align > 256)
            return refused("an alignment that is not a power of two");
    *count = 0;
    /* Some matmuls are supported without a bias only: here, those with odd rows of D. So the
     * fallback is tested too. */
    if (op->epilogue == CUBLASLT_EPILOGUE_BIAS && d->ld % 2) return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasLtMatmulHeuristicResult_t &r = results[0];
    r.algo = {*a, *b, *d, op->transa, op->transb, op->epilogue, {}, 0};
    memcpy(r.algo.align, preference->align, sizeof r.algo.align);
    r.algo.workspace = preference->workspace < 1000 ? size_t(preference->workspace) : 1000;
    r.workspaceSize = r.algo.workspace, r.state = CUBLAS_STATUS_SUCCESS, r.wavesCount = 1;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* d = factor op(a) op(b) + kept c; everything by value, since it may run later. */
static void multiply(cublasLtMatmulDescOpaque_t op, const void *a, cublasLtMatrixLayoutOpaque_t la,
                     const void *b, cublasLtMatrixLayoutOpaque_t lb, const void *c, void *d,
                     cublasLtMatrixLayoutOpaque_t ld, double factor, double kept) {
    const uint64_t m = ld.rows, n = ld.cols;
    const bool bias = op.epilogue == CUBLASLT_EPILOGUE_BIAS;
    const std::vector<double> x = gather(a, la, op.transa == CUBLAS_OP_T); /* [m][k] */
    const std::vector<double> y = gather(b, lb, op.transb == CUBLAS_OP_N); /* [n][k] */
    const uint64_t k = x.size() / m;
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t i = 0; i < m; i++) {
            double sum = 0;
            for (uint64_t l = 0; l < k; l++) sum += x[i * k + l] * y[j * k + l];
            sum *= factor;
            const uint64_t at = j * uint64_t(ld.ld) + i;
            if (kept != 0) sum += kept * value_at(c, ld.type, at); /* with 0, C is not read */
            if (bias) sum += value_at(op.bias, ld.type, i);
            value_put(d, ld.type, at, sum);
        }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t) {
    if (!handle || !handle->open) return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = check(op, la, lb, lc, ld);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (!algo || !is(algo->a, *la) || !is(algo->b, *lb) || !is(algo->d, *ld) ||
        algo->transa != op->transa || algo->transb != op->transb || algo->epilogue != op->epilogue)
        return refused("an algorithm that was chosen for another matmul");
    const void *const operands[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (!operands[i] || reinterpret_cast<uintptr_t>(operands[i]) % algo->align[i])
            return refused("an address less aligned than promised");
    if (c != d) return refused("C is elsewhere than D");
    const bool bias = op->epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (bias && reinterpret_cast<uintptr_t>(op->bias) % 16)
        return refused("a bias that is not aligned to 16 bytes");
    if (workspace_bytes < algo->workspace || (algo->workspace && !workspace) ||
        reinterpret_cast<uintptr_t>(workspace) % 256)
        return refused("too small a workspace, or not aligned");
    const double factor = *static_cast<const float *>(alpha);
    const double kept = *static_cast<const float *>(beta);
    const size_t scratch = algo->workspace;
    emulator_do([=, op = *op, la = *la, lb = *lb, ld = *ld] {
        memset(workspace, 0xff, scratch); /* data kept there becomes NaN */
        multiply(op, a, la, b, lb, c, d, ld, factor, kept);
    });
    return CUBLAS_STATUS_SUCCESS;
}
