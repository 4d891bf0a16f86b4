/* Attention of whole sequences by cuDNN's fused kernels, through its backend API (cudnn_graph.h).
 *
 * Sequences stay packed. For cuDNN q is [sequences, heads, longest, width] with ragged offsets: the
 * element where each sequence begins. Their lengths are passed as a padding mask. Both are in
 * device memory, filled once for each batch, so that one plan serves all batches of similar sizes.
 *
 * A plan takes cuDNN up to a second, since it compiles a kernel. So the number of sequences and the
 * longest length are rounded up (round_coarsely), which leaves a few plans for a whole training
 * run: padding sequences have length 0, and their blocks exit at once.
 *
 * Newer versions also have attention as a single operation. Its backward does not support packed
 * sequences yet, so both directions are graphs of many operations (attention_cudnn.cuh). */
#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/attention_cudnn.cuh"
#include "kernels/cuda/values.cuh"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* On Hopper: sequences of length 0, and ragged log-sum-exps. */
    HOPPER_SINCE = 90800,
    /* Ragged offsets on the other architectures. */
    OTHERS_SINCE = 91801,
    /* Earlier, the backward graph had to mask twice. */
    BACKWARD_SINCE = 91002,
    /* The versions between these two have bugs in attention. */
    FAULTY_FIRST = 91000,
    FAULTY_LAST = 91001
};

/* Minimum multiply-adds of each matmul. In training a call of this size saves about 20 microseconds
 * (rows of 1024: 32 sequences of 256, or 8 of 512), which pays for a plan within a thousand steps.
 * Shorter sequences are bound by reading q, k and v, where our own kernels are as fast. Inference
 * makes fewer calls. */
static const int64_t TRAINING_WORK_MIN = (int64_t)1 << 31, INFERENCE_WORK_MIN = (int64_t)1 << 35;

/* ---- Plans. ---- */

typedef struct Plan {
    Shape shape;
    Graph graph;                   /* what the plan was made from; must outlive it */
    cudnnBackendDescriptor_t plan; /* NULL: no plan for this shape */
    int64_t workspace;             /* bytes that cuDNN needs */
} Plan;

struct FusedAttention {
    cudnnHandle_t handle;
    size_t version;
    int arch;              /* 90: Hopper */
    int64_t workspace_max; /* maximum bytes for a plan */
    float masked;          /* the score of a missing key */
    Plan **plans;
    int plan_count, plan_capacity, refused_count;
    /* Lengths and offsets of the batch: the same in every layer, so one copy for each direction. */
    HostCopy forward_batch, backward_batch;
    char *batch; /* buffer to prepare the same */
    size_t batch_capacity;
    char reason[320], note[400]; /* of the last refused shape; for messages */
};

/* Whether an engine's results are deterministic. */
static bool config_repeats(cudnnBackendDescriptor_t config) {
    cudnnBackendDescriptor_t engine = NULL;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS)
        return false;
    cudnnBackendNumericalNote_t notes[64];
    int64_t count = 0;
    bool repeats =
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &count, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, 64, &count,
                                 notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; repeats && i < count && i < 64; i++)
        repeats = notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    cudnnBackendDestroyDescriptor(engine);
    return repeats;
}

/* The configurations that cuDNN proposes, best first; returns their number. */
enum { CONFIGS_MAX = 8 };
static int configs_ask(Graph *g, cudnnBackendDescriptor_t operations,
                       cudnnBackendDescriptor_t configs[CONFIGS_MAX]) {
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t heuristics = descriptor_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    descriptor_attach(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    attribute_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    descriptor_finish(g, heuristics, "heuristics");
    for (int i = 0; i < CONFIGS_MAX; i++)
        configs[i] = descriptor_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    int64_t count = 0;
    if (g->status == CUDNN_STATUS_SUCCESS)
        graph_good(g,
                   cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS_MAX, &count,
                                            configs),
                   "configurations");
    return g->status != CUDNN_STATUS_SUCCESS ? 0 : count < CONFIGS_MAX ? (int)count : CONFIGS_MAX;
}

/* The plan of a configuration, unless it needs more memory than allowed. */
static bool plan_from(struct FusedAttention *f, Plan *p, cudnnBackendDescriptor_t config) {
    Graph *g = &p->graph;
    g->status = CUDNN_STATUS_SUCCESS; /* clear the previous attempt's status */
    cudnnBackendDescriptor_t plan = descriptor_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    attribute_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &f->handle);
    descriptor_attach(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    descriptor_finish(g, plan, "plan");
    int64_t count = 0;
    if (g->status == CUDNN_STATUS_SUCCESS)
        graph_good(g,
                   cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                            CUDNN_TYPE_INT64, 1, &count, &p->workspace),
                   "workspace size");
    if (g->status != CUDNN_STATUS_SUCCESS) return false;
    if (p->workspace > f->workspace_max) {
        g->status = CUDNN_STATUS_NOT_SUPPORTED;
        snprintf(g->reason, sizeof g->reason, "it needs %lld MiB of workspace",
                 (long long)(p->workspace >> 20));
        return false;
    }
    p->plan = plan;
    return true;
}

/* On failure p->plan stays NULL, with the reason in the graph. */
static void plan_make(struct FusedAttention *f, Plan *p) {
    Graph *g = &p->graph;
    const Shape *s = &p->shape;
    g->sequences = s->sequences, g->heads = s->heads;
    g->longest = s->longest, g->width = s->width;
    g->next_id = FIRST_VIRTUAL;
    if (s->backward)
        describe_backward(g, s);
    else
        describe_forward(g, s);
    cudnnBackendDescriptor_t operations =
        descriptor_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    attribute_set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                  &f->handle);
    attribute_set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                  g->operation_count, g->operation);
    descriptor_finish(g, operations, "graph");
    cudnnBackendDescriptor_t configs[CONFIGS_MAX];
    const int count = configs_ask(g, operations, configs);
    if (g->status == CUDNN_STATUS_SUCCESS)
        snprintf(g->reason, sizeof g->reason, "no engine%s",
                 count ? " that gives the same each time" : "");
    for (int i = 0; i < count && !p->plan; i++)
        if (!s->backward || config_repeats(configs[i])) plan_from(f, p, configs[i]);
    if (!p->plan) graph_free(g);
}

static void plan_refuse(struct FusedAttention *f, Plan *p, const char *reason) {
    const Shape *s = &p->shape;
    p->plan = NULL;
    f->refused_count++;
    snprintf(f->reason, sizeof f->reason, "%s, %d sequences of up to %d, %d heads of %d: %s",
             s->backward ? "backward" : "forward", s->sequences, s->longest, s->heads, s->width,
             reason);
    cudaGetLastError(); /* the next launch must not report it */
}

/* The cached or new plan for a shape; NULL if there is none. */
static Plan *plan_of(struct FusedAttention *f, const Shape *shape) {
    for (int i = 0; i < f->plan_count; i++)
        if (memcmp(&f->plans[i]->shape, shape, sizeof *shape) == 0)
            return f->plans[i]->plan ? f->plans[i] : NULL;
    if (f->plan_count == f->plan_capacity) {
        const int capacity = f->plan_capacity ? 2 * f->plan_capacity : 16;
        void *more = realloc(f->plans, (size_t)capacity * sizeof *f->plans);
        if (!more) return NULL;
        f->plans = (Plan **)more, f->plan_capacity = capacity;
    }
    Plan *p = (Plan *)calloc(1, sizeof *p);
    if (!p) return NULL;
    p->shape = *shape;
    f->plans[f->plan_count++] = p;
    plan_make(f, p);
    if (!p->plan) plan_refuse(f, p, p->graph.reason);
    return p->plan ? p : NULL;
}

/* ---- Batches. ---- */

/* Rounds n up to a multiple of `least` and of the power of two below n, divided by `parts`. */
static int32_t round_coarsely(int32_t n, int32_t least, int32_t parts) {
    int32_t step = 1;
    while (step <= n / 2) step *= 2;
    step /= parts;
    if (step < least) step = least;
    return (n + step - 1) / step * step;
}

/* Whether the spans are consecutive whole sequences that cover all rows; if so, sets their rounded
 * number, the rounded longest length, and their cost: the sum of squared lengths. */
static bool sequences_of(Shape *s, int64_t *squares, const AttentionSpan *spans, int count,
                         int64_t rows, int64_t key_rows) {
    int32_t end = 0, sequences = 0, longest = 0;
    *squares = 0;
    for (int i = 0; i < count; i++) {
        const AttentionSpan *span = &spans[i];
        const int32_t length = span->q_end - span->q_begin;
        if (length == 0) continue;
        if (span->range_count != 1 || span->causal || span->window || span->q_begin != end ||
            span->range[0].begin != span->q_begin || span->range[0].end != span->q_end)
            return false;
        end = span->q_end;
        sequences++;
        if (length > longest) longest = length;
        *squares += (int64_t)length * length;
    }
    if (sequences == 0 || end != rows || end != key_rows) return false;
    /* At most 50 % more: an empty sequence costs a few blocks that exit at once. The kernels'
     * blocks are 64 and 128 rows. */
    s->sequences = round_coarsely(sequences, 1, 2);
    s->longest = round_coarsely(longest, 128, 4);
    return true;
}

/* A batch's lengths and offsets on the device. */
typedef struct Batch {
    const char *memory; /* the lengths come first */
    size_t offsets[RAGGED_END];
} Batch;

static size_t round_to(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Lengths and, for each row stride of a tensor, the offsets. */
static bool batch_send(Device *device, Batch *b, HostCopy *copy, const Shape *s,
                       const AttentionSpan *spans, int count) {
    struct FusedAttention *f = cuda_state(device)->fused;
    const size_t one = round_to(((size_t)s->sequences + 1) * sizeof(int64_t), 16);
    size_t bytes = round_to((size_t)s->sequences * sizeof(int32_t), 16);
    if (bytes + RAGGED_END * one > f->batch_capacity) {
        void *more = realloc(f->batch, bytes + RAGGED_END * one);
        if (!more) return false;
        f->batch = (char *)more, f->batch_capacity = bytes + RAGGED_END * one;
    }
    memset(f->batch, 0, f->batch_capacity);
    int32_t *lengths = (int32_t *)f->batch, n = 0;
    for (int i = 0; i < count; i++)
        if (spans[i].q_end > spans[i].q_begin) lengths[n++] = spans[i].q_end - spans[i].q_begin;
    for (int id = 0; id < RAGGED_END; id++) {
        if (s->ld[id] == 0) continue;
        int same = 0;
        while (s->ld[same] != s->ld[id]) same++;
        b->offsets[id] = same < id ? b->offsets[same] : bytes;
        if (same < id) continue;
        int64_t *offsets = (int64_t *)(f->batch + bytes);
        for (int i = 0; i < s->sequences; i++) offsets[i + 1] = offsets[i] + lengths[i] * s->ld[id];
        bytes += one;
    }
    Error err;
    const void *memory;
    if (cuda_host_copy(device, copy, &memory, f->batch, bytes, &err) != 0) return false;
    b->memory = (const char *)memory;
    return true;
}

/* ---- Calls. ---- */

/* The tensors of a plan's run. */
typedef struct Binding {
    int64_t id[FIRST_VIRTUAL];
    void *memory[FIRST_VIRTUAL];
    int count;
} Binding;

static void binding_add(Binding *b, int64_t id, const void *memory) {
    b->id[b->count] = id;
    b->memory[b->count++] = (void *)memory;
}

static void binding_add_ragged(Binding *b, int64_t id, const void *memory, const Batch *batch) {
    binding_add(b, id, memory);
    binding_add(b, OFFSETS + id, batch->memory + batch->offsets[id]);
}

static bool plan_run(Device *device, Plan *p, const Binding *b, void *workspace) {
    struct FusedAttention *f = cuda_state(device)->fused;
    Graph call = {};
    cudnnBackendDescriptor_t pack = descriptor_new(&call, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    attribute_set(&call, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, b->count,
                  b->id);
    attribute_set(&call, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, b->count,
                  b->memory);
    attribute_set(&call, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                  &workspace);
    descriptor_finish(&call, pack, "pack");
    if (call.status == CUDNN_STATUS_SUCCESS)
        graph_good(&call, cudnnBackendExecute(f->handle, p->plan, pack), "execution");
    graph_free(&call);
    cuda_count_launch(device);
    if (call.status != CUDNN_STATUS_SUCCESS) plan_refuse(f, p, call.reason);
    return call.status == CUDNN_STATUS_SUCCESS;
}

/* The requirements of both directions; sets the common part of the shape. */
static bool call_fits(const struct FusedAttention *f, Shape *s, Tensor q, Tensor k, Tensor v,
                      Tensor out, Tensor lse, int heads, float scale, const AttentionSpan *spans,
                      int count, const Dropout *dropout, bool backward) {
    const int64_t width = q.shape[1] / heads, width_max = f->arch == 90 && !backward ? 256 : 128;
    memset(s, 0, sizeof *s);
    s->backward = backward, s->stats = tensor_present(lse);
    /* cuDNN's random bits differ. */
    if (q.dtype != DTYPE_BF16 || (dropout && dropout->p > 0)) return false;
    if (!(scale > 0)) return false;             /* the maximum may be taken before scaling */
    if (k.shape[1] != q.shape[1]) return false; /* heads that share keys */
    if (width % 8 || width > width_max) return false;
    if (s->stats && f->arch / 10 != 9 && f->arch / 10 != 10) return false;
    if (backward && (f->arch / 10 != 9 || f->version < BACKWARD_SINCE)) return false;
    if (!rows_aligned(q, 8) || !rows_aligned(k, 8) || !rows_aligned(v, 8) || !rows_aligned(out, 8))
        return false;
    if (s->stats && (uintptr_t)lse.data % 16) return false; /* the alignment of all descriptors */
    int64_t squares;
    if (!sequences_of(s, &squares, spans, count, q.shape[0], k.shape[0])) return false;
    if (squares * q.shape[1] < (s->stats ? TRAINING_WORK_MIN : INFERENCE_WORK_MIN)) return false;
    s->heads = heads, s->width = (int32_t)width;
    s->ld[ID_Q] = q.ld, s->ld[ID_K] = k.ld, s->ld[ID_V] = v.ld, s->ld[ID_OUT] = out.ld;
    if (s->stats) s->ld[ID_LSE] = lse.ld;
    return true;
}

/* Binds the call's tensors. */
static void call_bind(Binding *b, const Batch *batch, const struct FusedAttention *f, Tensor q,
                      Tensor k, Tensor v, Tensor out, Tensor lse, const float *scale) {
    binding_add_ragged(b, ID_Q, q.data, batch);
    binding_add_ragged(b, ID_K, k.data, batch);
    binding_add_ragged(b, ID_V, v.data, batch);
    binding_add_ragged(b, ID_OUT, out.data, batch);
    if (tensor_present(lse)) binding_add_ragged(b, ID_LSE, lse.data, batch);
    binding_add(b, ID_Q_LENGTHS, batch->memory);
    binding_add(b, ID_K_LENGTHS, batch->memory);
    binding_add(b, ID_SCALE, scale);
    binding_add(b, ID_MASKED, &f->masked);
}

bool fused_attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             int heads, float scale, const AttentionSpan *spans, int count,
                             const Dropout *dropout) {
    struct FusedAttention *f = cuda_state(device)->fused;
    Shape shape;
    if (!f || !call_fits(f, &shape, q, k, v, out, lse, heads, scale, spans, count, dropout, false))
        return false;
    Plan *plan = plan_of(f, &shape);
    Batch batch;
    if (!plan || !batch_send(device, &batch, &f->forward_batch, &shape, spans, count)) return false;
    Error err;
    void *workspace;
    if (cuda_workspace(device, &workspace, (size_t)plan->workspace + 1, &err) != 0) {
        plan_refuse(f, plan, "no memory for its workspace");
        return false;
    }
    Binding b = {};
    call_bind(&b, &batch, f, q, k, v, out, lse, &scale);
    return plan_run(device, plan, &b, workspace);
}

/* dk += from's left half, dv += from's right half; blockIdx.y selects which. Memory-bound: with dk
 * and dv in f32, 10 bytes a value. A block takes whole rows, 8 values (16 bytes of `from`) a
 * thread: 128 threads are one row of 1024. */
enum { ADD_THREADS = 128 };
template <typename T>
__global__ void __launch_bounds__(ADD_THREADS)
    halves_add(T *dk, int64_t dk_ld, T *dv, int64_t dv_ld, const bf16 *from, int64_t rows,
               int columns) {
    T *to = blockIdx.y == 0 ? dk : dv;
    const int64_t to_ld = blockIdx.y == 0 ? dk_ld : dv_ld;
    from += blockIdx.y * (int64_t)columns;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x)
        for (int i = 8 * threadIdx.x; i < columns; i += 8 * ADD_THREADS) {
            float sum[8], more[8];
            values_read(more, from + 2 * row * columns + i);
            values_read(sum, to + row * to_ld + i);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += more[j];
            values_write(to + row * to_ld + i, sum);
        }
}

static int gradients_add(Device *device, Tensor dk, Tensor dv, const bf16 *from, Error *err) {
    const int64_t rows = dk.shape[0];
    const int columns = (int)dk.shape[1];
    const dim3 grid(cuda_blocks(rows, 1, 4096), 2);
    if (dk.dtype == DTYPE_F32)
        LAUNCH(device, halves_add<float>, grid, ADD_THREADS, 0, err, (float *)dk.data, dk.ld,
               (float *)dv.data, dv.ld, from, rows, columns);
    else
        LAUNCH(device, halves_add<bf16>, grid, ADD_THREADS, 0, err, (bf16 *)dk.data, dk.ld,
               (bf16 *)dv.data, dv.ld, from, rows, columns);
    return 0;
}

/* cuDNN overwrites dk and dv, in bf16, but the interface adds to them, mostly in f32: so cuDNN
 * writes to a temporary, which is then added. Each value has one summand, so rounding it to bf16
 * first costs no more than storing it in bf16. */
bool fused_attention_backward(Device *device, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                              Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, int heads,
                              float scale, const AttentionSpan *spans, int count,
                              const Dropout *dropout) {
    struct FusedAttention *f = cuda_state(device)->fused;
    Shape shape;
    if (!f || !call_fits(f, &shape, q, k, v, out, lse, heads, scale, spans, count, dropout, true))
        return false;
    if (dq.dtype != DTYPE_BF16 || dk.dtype != dv.dtype || !rows_aligned(dq, 8) ||
        !rows_aligned(dk, 8) || !rows_aligned(dv, 8) || !rows_aligned(dout, 8))
        return false;
    const int64_t d = q.shape[1];
    shape.ld[ID_DOUT] = dout.ld, shape.ld[ID_DQ] = dq.ld;
    shape.ld[ID_DK] = shape.ld[ID_DV] = 2 * d;
    Plan *plan = plan_of(f, &shape);
    Batch batch;
    if (!plan || !batch_send(device, &batch, &f->backward_batch, &shape, spans, count))
        return false;

    const size_t dot_bytes =
        round_to((size_t)shape.sequences * shape.heads * shape.longest * 4, 256);
    const size_t halves_bytes = round_to((size_t)q.shape[0] * 2 * d * sizeof(bf16), 256);
    Error err;
    void *memory;
    if (cuda_workspace(device, &memory, dot_bytes + halves_bytes + (size_t)plan->workspace + 1,
                       &err) != 0) {
        plan_refuse(f, plan, "no memory for its workspace");
        return false;
    }
    bf16 *halves = (bf16 *)((char *)memory + dot_bytes);
    const float one = 1;
    Binding b = {};
    call_bind(&b, &batch, f, q, k, v, out, lse, &scale);
    binding_add_ragged(&b, ID_DOUT, dout.data, &batch);
    binding_add_ragged(&b, ID_DQ, dq.data, &batch);
    binding_add_ragged(&b, ID_DK, halves, &batch);
    binding_add_ragged(&b, ID_DV, halves + d, &batch);
    binding_add(&b, ID_DOT, memory);
    binding_add(&b, ID_ONE, &one);
    return plan_run(device, plan, &b, (char *)halves + halves_bytes) &&
           gradients_add(device, dk, dv, halves, &err) == 0;
}

/* ---- Opening and closing. ---- */

static bool version_serves(size_t version, int arch) {
    if (version >= FAULTY_FIRST && version <= FAULTY_LAST) return false;
    if (arch / 10 == 9) return version >= HOPPER_SINCE;
    return (arch / 10 == 8 || arch / 10 == 10) && version >= OTHERS_SINCE;
}

int fused_attention_open(struct FusedAttention **fused, cudaStream_t stream,
                         const cudaDeviceProp *properties, Error *err) {
    *fused = NULL;
    const size_t version = cudnnGetVersion();
    const int arch = properties->major * 10 + properties->minor;
    if (!version_serves(version, arch)) return 0;
    struct FusedAttention *f = (struct FusedAttention *)calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory: %zu bytes requested", sizeof *f);
    f->version = version;
    f->arch = arch;
    /* A batch with very different lengths requests many times what it uses; this is 2.5 GiB of
     * 80. */
    f->workspace_max = (int64_t)(properties->totalGlobalMem / 32);
    f->masked = version < 91000 ? -FLT_MAX : -INFINITY; /* older kernels turn infinity into NaN */
    if (cudnnCreate(&f->handle) != CUDNN_STATUS_SUCCESS ||
        cudnnSetStream(f->handle, stream) != CUDNN_STATUS_SUCCESS)
        fused_attention_close(f);
    else
        *fused = f;
    cudaGetLastError(); /* an unusable cuDNN is not an error of the device */
    return 0;
}

void fused_attention_close(struct FusedAttention *f) {
    if (!f) return;
    for (int i = 0; i < f->plan_count; i++) {
        graph_free(&f->plans[i]->graph);
        free(f->plans[i]);
    }
    if (f->handle) cudnnDestroy(f->handle);
    free(f->forward_batch.host), cudaFree(f->forward_batch.device);
    free(f->backward_batch.host), cudaFree(f->backward_batch.device);
    free(f->plans), free(f->batch);
    free(f);
}

const char *fused_attention_note(struct FusedAttention *f) {
    if (!f) return "attention without cuDNN";
    const int made = f->plan_count - f->refused_count;
    snprintf(f->note, sizeof f->note, "attention by cuDNN %zu.%zu.%zu: %d plan%s%s%s",
             f->version / 10000, f->version / 100 % 100, f->version % 100, made,
             made == 1 ? "" : "s", f->refused_count ? "; not taken: " : "", f->reason);
    return f->note;
}
