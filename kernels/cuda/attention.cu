/* Attention forward: chooses the kernel for a call. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_cudnn.h"

/* The number of pieces of up to `rows` query rows that the spans are split into. */
static int64_t pieces_in(const AttentionSpan *spans, int count, int rows) {
    int64_t pieces = 0;
    for (int s = 0; s < count; s++) pieces += (spans[s].q_end - spans[s].q_begin + rows - 1) / rows;
    return pieces;
}

bool attention_on_units(Tensor t, int heads) {
    const int64_t width = t.shape[1] / heads;
    return t.dtype == DTYPE_BF16 && width % 8 == 0 && width <= WIDTH_MOST && rows_aligned(t, 8);
}

/* With few rows, 16 a block with the keys divided among its warps, as long as all blocks run at
 * once; else as many rows a block as leave two blocks for each multiprocessor. */
static int attend_on_units(Device *device, ForwardArgs *args, const AttentionSpan *spans, int count,
                           Error *err) {
    const int processors = cuda_state(device)->properties.multiProcessorCount;
    const bool narrow = !args->drop.on && pieces_in(spans, count, 16) * args->heads <= processors;
    int rows = narrow ? 16 : attention_wide_rows(args->width, args->drop.on);
    if (rows > 64 && pieces_in(spans, count, rows) * args->heads < 2 * processors) rows = 64;
    AttentionPlan plan;
    TRY(attention_plan(device, &plan, spans, count, rows, 0, err));
    args->items = plan.items;
    if (plan.item_count == 0) return 0;
    return narrow ? attention_narrow(device, &plan, args, err)
                  : attention_wide(device, &plan, args, rows, err);
}

/* If heads are wider than a block's part of the output, several blocks read q, which `out` may
 * alias and another block overwrite: so they read a copy. */
static int attend_plainly(Device *device, ForwardArgs *args, Tensor q, const AttentionSpan *spans,
                          int count, Error *err) {
    const int processors = cuda_state(device)->properties.multiProcessorCount;
    const int rows = pieces_in(spans, count, 64) * args->heads < processors ? 16 : 64;
    if (args->width > 2 * 64) {
        const size_t row = (size_t)q.shape[1] * dtype_size(q.dtype);
        const size_t pitch = (size_t)q.ld * dtype_size(q.dtype);
        TRY(cuda_workspace(device, &args->q.data, row * (size_t)q.shape[0], err));
        CUDA_TRY(cudaMemcpy2DAsync(args->q.data, row, q.data, pitch, row, (size_t)q.shape[0],
                                   cudaMemcpyDeviceToDevice, cuda_state(device)->stream),
                 err);
        cuda_count_launch(device);
        args->q.ld = q.shape[1];
        args->q.aligned = args->q.aligned && q.shape[1] % 4 == 0;
    }
    AttentionPlan plan;
    TRY(attention_plan(device, &plan, spans, count, rows, 0, err));
    args->items = plan.items;
    if (plan.item_count == 0) return 0;
    return attention_plain(device, &plan, args, rows, err);
}

int cuda_attention_forward(Device *device, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                           int heads, float scale, const AttentionSpan *spans, int count,
                           const Dropout *dropout, Error *err) {
    if (fused_attention_forward(device, out, lse, q, k, v, heads, scale, spans, count, dropout))
        return 0;
    ForwardArgs args = {};
    const int key_heads = (int)(k.shape[1] / (q.shape[1] / heads));
    args.out = head_matrix(out, heads), args.q = head_matrix(q, heads);
    args.k = head_matrix(k, key_heads), args.v = head_matrix(v, key_heads);
    args.lse = (float *)lse.data, args.lse_ld = lse.ld;
    args.heads = heads, args.shared = heads / key_heads, args.width = (int)(q.shape[1] / heads);
    args.scale = scale;
    args.drop = attention_drop(dropout);
    const bool units = !attention_windowed(spans, count) && attention_on_units(out, heads) &&
                       attention_on_units(q, heads) && attention_on_units(k, key_heads) &&
                       attention_on_units(v, key_heads);
    /* A positive scale preserves the order of the scores, which those kernels rely on. */
    if (units && scale > 0) return attend_on_units(device, &args, spans, count, err);
    return attend_plainly(device, &args, q, spans, count, err);
}
