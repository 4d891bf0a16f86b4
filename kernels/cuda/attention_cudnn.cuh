/* attention_cudnn.cuh - attention, forward and backward, described to cuDNN. For
 * attention_cudnn.cu.
 *
 * cuDNN takes a graph of small operations; its engines match whole patterns and run them as one
 * kernel: scores are never stored. The graphs here are the patterns that those engines expect,
 * operation by operation, with tensors of four dimensions: sequences, heads, rows and columns.
 */
#ifndef EASYFIRST_KERNELS_CUDA_ATTENTION_CUDNN_CUH
#define EASYFIRST_KERNELS_CUDA_ATTENTION_CUDNN_CUH

#include <cudnn.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if CUDNN_VERSION < 90000
#error "cuDNN 9 or later is needed"
#endif

/* ---- Descriptors. After the first failure nothing more is done. ---- */

enum { OPERATIONS_MAX = 32, DESCRIPTORS_MAX = 160 };

typedef struct Graph {
    int64_t sequences, heads, longest, width;
    int64_t next_id;
    int operation_count, descriptor_count;
    cudnnBackendDescriptor_t operation[OPERATIONS_MAX], descriptor[DESCRIPTORS_MAX];
    cudnnStatus_t status;
    char reason[160];
} Graph;

static bool graph_good(Graph *g, cudnnStatus_t status, const char *what) {
    if (g->status == CUDNN_STATUS_SUCCESS && status != CUDNN_STATUS_SUCCESS) {
        char more[96] = "";
        cudnnGetLastErrorString(more, sizeof more);
        g->status = status;
        snprintf(g->reason, sizeof g->reason, "%s: %s%s%s", what, cudnnGetErrorString(status),
                 more[0] ? ": " : "", more);
    }
    return g->status == CUDNN_STATUS_SUCCESS;
}

static cudnnBackendDescriptor_t descriptor_new(Graph *g, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = NULL;
    if (g->status != CUDNN_STATUS_SUCCESS) return NULL;
    if (g->descriptor_count == DESCRIPTORS_MAX) {
        graph_good(g, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
        return NULL;
    }
    if (!graph_good(g, cudnnBackendCreateDescriptor(type, &d), "create")) return NULL;
    return g->descriptor[g->descriptor_count++] = d;
}

static void attribute_set(Graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (g->status != CUDNN_STATUS_SUCCESS) return;
    const cudnnStatus_t status = cudnnBackendSetAttribute(d, name, type, count, values);
    if (status == CUDNN_STATUS_SUCCESS) return;
    char what[32];
    snprintf(what, sizeof what, "attribute %d", (int)name);
    graph_good(g, status, what);
}

static void descriptor_attach(Graph *g, cudnnBackendDescriptor_t d,
                              cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    attribute_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void descriptor_finish(Graph *g, cudnnBackendDescriptor_t d, const char *what) {
    if (g->status == CUDNN_STATUS_SUCCESS) graph_good(g, cudnnBackendFinalize(d), what);
}

static void graph_free(Graph *g) {
    while (g->descriptor_count > 0)
        cudnnBackendDestroyDescriptor(g->descriptor[--g->descriptor_count]);
}

/* ---- Tensors. ---- */

/* The ids of the graph's inputs and outputs. Each ragged tensor has its offsets at OFFSETS + its
 * id. */
enum {
    ID_Q = 1,
    ID_K,
    ID_V,
    ID_OUT,
    ID_LSE,
    ID_DOUT,
    ID_DQ,
    ID_DK,
    ID_DV,
    RAGGED_END,
    ID_DOT = RAGGED_END, /* dot product of each row's dout and out */
    ID_Q_LENGTHS,
    ID_K_LENGTHS,
    ID_SCALE,
    ID_MASKED,
    ID_ONE,
    OFFSETS = 32,
    FIRST_VIRTUAL = 64
};

typedef enum TensorKind { TENSOR_REAL, TENSOR_VIRTUAL, TENSOR_ON_HOST } TensorKind;

typedef struct Value {
    cudnnBackendDescriptor_t tensor, offsets; /* offsets: NULL if not ragged */
    int64_t dims[4], strides[4];
} Value;

static Value value_new(Graph *g, int64_t id, TensorKind kind, cudnnDataType_t type,
                       const int64_t dims[4], const int64_t strides[4],
                       cudnnBackendDescriptor_t offsets) {
    Value v = {};
    memcpy(v.dims, dims, sizeof v.dims), memcpy(v.strides, strides, sizeof v.strides);
    const int64_t alignment = 16;
    const bool yes = true;
    v.offsets = offsets;
    v.tensor = descriptor_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (kind == TENSOR_VIRTUAL)
        attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (kind == TENSOR_ON_HOST)
        attribute_set(g, v.tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (offsets) descriptor_attach(g, v.tensor, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets);
    descriptor_finish(g, v.tensor, "tensor");
    return v;
}

/* Row-major without gaps. */
static Value value_dense(Graph *g, int64_t id, TensorKind kind, cudnnDataType_t type, int64_t a,
                         int64_t b, int64_t c, int64_t d) {
    const int64_t dims[4] = {a, b, c, d}, strides[4] = {b * c * d, c * d, d, 1};
    return value_new(g, id, kind, type, dims, strides, NULL);
}

static Value value_virtual(Graph *g, cudnnDataType_t type, const int64_t dims[4]) {
    return value_dense(g, g->next_id++, TENSOR_VIRTUAL, type, dims[0], dims[1], dims[2], dims[3]);
}

static Value value_scalar(Graph *g, int64_t id) {
    return value_dense(g, id, TENSOR_ON_HOST, CUDNN_DATA_FLOAT, 1, 1, 1, 1);
}

static Value value_lengths(Graph *g, int64_t id) {
    return value_dense(g, id, TENSOR_REAL, CUDNN_DATA_INT32, g->sequences, 1, 1, 1);
}

/* A matrix of rows `ld` apart, with `columns` for each head. The stride from sequence to sequence
 * is that of the longest, but only the offsets matter. */
static Value value_ragged(Graph *g, int64_t id, cudnnDataType_t type, int64_t columns, int64_t ld,
                          bool transposed) {
    const Value offsets =
        value_dense(g, OFFSETS + id, TENSOR_REAL, CUDNN_DATA_INT64, g->sequences + 1, 1, 1, 1);
    const int64_t dims[4] = {g->sequences, g->heads, transposed ? columns : g->longest,
                             transposed ? g->longest : columns};
    const int64_t strides[4] = {g->longest * ld, columns, transposed ? 1 : ld, transposed ? ld : 1};
    return value_new(g, id, TENSOR_REAL, type, dims, strides, offsets.tensor);
}

static Value value_matrix(Graph *g, int64_t id, int64_t ld) {
    return value_ragged(g, id, CUDNN_DATA_BFLOAT16, g->width, ld, false);
}

/* The same memory with rows and columns swapped: k and v as the second operand of a matmul. */
static Value value_transposed(Graph *g, int64_t id, int64_t ld) {
    return value_ragged(g, id, CUDNN_DATA_BFLOAT16, g->width, ld, true);
}

static Value value_lse(Graph *g, int64_t ld) {
    return value_ragged(g, ID_LSE, CUDNN_DATA_FLOAT, 1, ld, false);
}

/* ---- Operations. ---- */

static void operation_finish(Graph *g, cudnnBackendDescriptor_t operation, const char *what) {
    descriptor_finish(g, operation, what);
    if (g->status != CUDNN_STATUS_SUCCESS) return;
    if (g->operation_count == OPERATIONS_MAX)
        graph_good(g, CUDNN_STATUS_INTERNAL_ERROR, "too many operations");
    else
        g->operation[g->operation_count++] = operation;
}

/* y = mode(x), mode(x, b) or, for a selection, t ? x : b. `axis` is GEN_INDEX's. */
static void pointwise_into(Graph *g, Value y, cudnnPointwiseMode_t mode, cudnnDataType_t compute,
                           Value x, const Value *b, const Value *t, int64_t axis) {
    cudnnBackendDescriptor_t how = descriptor_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    attribute_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    attribute_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    if (mode == CUDNN_POINTWISE_GEN_INDEX)
        attribute_set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    descriptor_finish(g, how, "pointwise");
    cudnnBackendDescriptor_t o = descriptor_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.tensor);
    if (b) descriptor_attach(g, o, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b->tensor);
    if (t) descriptor_attach(g, o, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t->tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.tensor);
    operation_finish(g, o, "pointwise operation");
}

/* f32, of x's dimensions. */
static Value value_map(Graph *g, cudnnPointwiseMode_t mode, Value x) {
    const Value y = value_virtual(g, CUDNN_DATA_FLOAT, x.dims);
    pointwise_into(g, y, mode, CUDNN_DATA_FLOAT, x, NULL, NULL, 0);
    return y;
}
static Value value_combine(Graph *g, cudnnPointwiseMode_t mode, Value x, Value b) {
    const Value y = value_virtual(g, CUDNN_DATA_FLOAT, x.dims);
    pointwise_into(g, y, mode, CUDNN_DATA_FLOAT, x, &b, NULL, 0);
    return y;
}

static Value value_place(Graph *g, Value x, int64_t axis) {
    const Value y = value_virtual(g, CUDNN_DATA_INT32, x.dims);
    pointwise_into(g, y, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, x, NULL, NULL, axis);
    return y;
}

static Value value_condition(Graph *g, cudnnPointwiseMode_t mode, Value x, Value b) {
    const Value y = value_virtual(g, CUDNN_DATA_BOOLEAN, x.dims);
    pointwise_into(g, y, mode, CUDNN_DATA_BOOLEAN, x, &b, NULL, 0);
    return y;
}

/* Sets scores of rows and keys beyond a sequence's length to `masked`. */
static Value value_mask(Graph *g, Value scores, Value q_lengths, Value k_lengths) {
    const Value row = value_place(g, scores, 2), column = value_place(g, scores, 3);
    const Value is_row = value_condition(g, CUDNN_POINTWISE_CMP_LT, row, q_lengths);
    const Value is_column = value_condition(g, CUDNN_POINTWISE_CMP_LT, column, k_lengths);
    const Value is = value_condition(g, CUDNN_POINTWISE_LOGICAL_AND, is_row, is_column);
    const Value other = value_scalar(g, ID_MASKED);
    const Value y = value_virtual(g, CUDNN_DATA_FLOAT, scores.dims);
    pointwise_into(g, y, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, scores, &other, &is, 0);
    return y;
}

/* Over the last dimension. */
static Value value_reduce(Graph *g, cudnnReduceTensorOp_t how, Value x) {
    const int64_t dims[4] = {x.dims[0], x.dims[1], x.dims[2], 1};
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const Value y = value_virtual(g, CUDNN_DATA_FLOAT, dims);
    cudnnBackendDescriptor_t r = descriptor_new(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    attribute_set(g, r, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    attribute_set(g, r, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    descriptor_finish(g, r, "reduction");
    cudnnBackendDescriptor_t o = descriptor_new(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, r);
    operation_finish(g, o, "reduction operation");
    return y;
}

/* c = a b. Those of its dimensions m (rows of c), n (columns of c) and k (summed over) that are
 * passed have each sequence's length. */
static void multiply_into(Graph *g, Value c, Value a, Value b, const Value *m, const Value *n,
                          const Value *k) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const double padding = 0;
    cudnnBackendDescriptor_t how = descriptor_new(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    attribute_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    attribute_set(g, how, CUDNN_ATTR_MATMUL_PADDING_VALUE, CUDNN_TYPE_DOUBLE, 1, &padding);
    descriptor_finish(g, how, "matmul");
    cudnnBackendDescriptor_t o = descriptor_new(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    if (m) descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m->tensor);
    if (n) descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n->tensor);
    if (k) descriptor_attach(g, o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k->tensor);
    operation_finish(g, o, "matmul operation");
}

static Value multiply_scores(Graph *g, Value a, Value b, Value q_lengths, Value k_lengths) {
    const int64_t dims[4] = {g->sequences, g->heads, g->longest, g->longest};
    const Value c = value_virtual(g, CUDNN_DATA_FLOAT, dims);
    multiply_into(g, c, a, b, &q_lengths, &k_lengths, NULL);
    return c;
}

/* x with its last two dimensions swapped, without copying. */
static Value value_exchange(Graph *g, Value x, cudnnDataType_t type) {
    const int64_t dims[4] = {x.dims[0], x.dims[1], x.dims[3], x.dims[2]};
    const int64_t strides[4] = {x.strides[0], x.strides[1], x.strides[3], x.strides[2]};
    const Value y = value_new(g, g->next_id++, TENSOR_VIRTUAL, type, dims, strides, x.offsets);
    cudnnBackendDescriptor_t o = descriptor_new(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.tensor);
    descriptor_attach(g, o, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.tensor);
    operation_finish(g, o, "exchange");
    return y;
}

/* ---- The two graphs. ---- */

/* The key of a plan. Compared as bytes, so without padding. */
typedef struct Shape {
    int32_t backward, stats, heads, width, sequences, longest;
    int64_t ld[RAGGED_END]; /* of each ragged tensor, by its id; 0: not in the graph */
} Shape;

static void describe_forward(Graph *g, const Shape *s) {
    const Value q = value_matrix(g, ID_Q, s->ld[ID_Q]), k = value_transposed(g, ID_K, s->ld[ID_K]);
    const Value v = value_matrix(g, ID_V, s->ld[ID_V]);
    const Value out = value_matrix(g, ID_OUT, s->ld[ID_OUT]);
    const Value q_lengths = value_lengths(g, ID_Q_LENGTHS);
    const Value k_lengths = value_lengths(g, ID_K_LENGTHS);

    Value scores = multiply_scores(g, q, k, q_lengths, k_lengths); /* [B, H, S, S] */
    scores = value_combine(g, CUDNN_POINTWISE_MUL, scores, value_scalar(g, ID_SCALE));
    scores = value_mask(g, scores, q_lengths, k_lengths);
    const Value largest = value_reduce(g, CUDNN_REDUCE_TENSOR_MAX, scores); /* [B, H, S, 1] */
    const Value e =
        value_map(g, CUDNN_POINTWISE_EXP, value_combine(g, CUDNN_POINTWISE_SUB, scores, largest));
    const Value sum = value_reduce(g, CUDNN_REDUCE_TENSOR_ADD, e);
    const Value log_sum = value_map(g, CUDNN_POINTWISE_LOG, sum);
    const Value lse =
        s->stats ? value_lse(g, s->ld[ID_LSE]) : value_virtual(g, CUDNN_DATA_FLOAT, sum.dims);
    pointwise_into(g, lse, CUDNN_POINTWISE_ADD, CUDNN_DATA_FLOAT, largest, &log_sum, NULL, 0);
    const Value p = value_virtual(g, CUDNN_DATA_BFLOAT16, e.dims);
    pointwise_into(g, p, CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, e, &sum, NULL, 0);
    multiply_into(g, out, p, v, &q_lengths, NULL, &k_lengths);
}

/* dq is one matmul over all keys, from a matrix of d scores that cuDNN stores in between (its
 * alternative sums dq by atomic additions, which is not deterministic). */
static void describe_backward(Graph *g, const Shape *s) {
    const Value q = value_matrix(g, ID_Q, s->ld[ID_Q]), k = value_transposed(g, ID_K, s->ld[ID_K]);
    const Value v = value_transposed(g, ID_V, s->ld[ID_V]);
    const Value out = value_matrix(g, ID_OUT, s->ld[ID_OUT]);
    const Value dout = value_matrix(g, ID_DOUT, s->ld[ID_DOUT]);
    const Value dq = value_matrix(g, ID_DQ, s->ld[ID_DQ]),
                dk = value_matrix(g, ID_DK, s->ld[ID_DK]);
    const Value dv = value_matrix(g, ID_DV, s->ld[ID_DV]);
    const Value lse = value_lse(g, s->ld[ID_LSE]);
    const Value q_lengths = value_lengths(g, ID_Q_LENGTHS);
    const Value k_lengths = value_lengths(g, ID_K_LENGTHS);
    const Value scale = value_scalar(g, ID_SCALE), one = value_scalar(g, ID_ONE);

    /* dot = sum over a head of dout out, which equals the sum over keys of p dp; in f32. */
    const Value dot_sum =
        value_reduce(g, CUDNN_REDUCE_TENSOR_ADD, value_combine(g, CUDNN_POINTWISE_MUL, dout, out));
    const Value dot = value_dense(g, ID_DOT, TENSOR_REAL, CUDNN_DATA_FLOAT, g->sequences, g->heads,
                                  g->longest, 1);
    pointwise_into(g, dot, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, dot_sum, &one, NULL, 0);

    /* Recomputes p from the scores and their log-sum-exp; dv = p^T dout. */
    Value scores = multiply_scores(g, q, k, q_lengths, k_lengths);
    scores = value_combine(g, CUDNN_POINTWISE_MUL, scores, scale);
    scores = value_combine(g, CUDNN_POINTWISE_SUB, scores, lse);
    scores = value_mask(g, scores, q_lengths, k_lengths);
    const Value p = value_map(g, CUDNN_POINTWISE_EXP, scores);
    multiply_into(g, dv, value_exchange(g, p, CUDNN_DATA_BFLOAT16), dout, &k_lengths, NULL,
                  &q_lengths);

    /* ds = p (dout v^T - dot) scale; dk = ds^T q, dq = ds k. */
    Value ds = multiply_scores(g, dout, v, q_lengths, k_lengths);
    ds = value_combine(g, CUDNN_POINTWISE_SUB, ds, dot);
    ds = value_combine(g, CUDNN_POINTWISE_MUL, ds, p);
    ds = value_combine(g, CUDNN_POINTWISE_MUL, ds, scale);
    multiply_into(g, dk, value_exchange(g, ds, CUDNN_DATA_BFLOAT16), q, &k_lengths, NULL,
                  &q_lengths);
    multiply_into(g, dq, ds, value_exchange(g, k, CUDNN_DATA_FLOAT), &q_lengths, NULL, &k_lengths);
}

#endif
