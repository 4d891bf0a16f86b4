#include "vision/segment.h"

#include <stdlib.h>

int segment_declare(SegmentHead *head, int width, int classes, Params *params, Error *err) {
    *head = (SegmentHead){.classes = classes, .params = params};
    if (classes < 2)
        return error_set(err,
                         "segmentation: %d classes, expected at least 2: the background and "
                         "an object",
                         classes);
    return params_declare_linear(params, &head->w, &head->b, classes, width, false, err,
                                 "segment.");
}

/* The rows of the features, each image's class token first if it is kept. */
typedef struct Rows {
    int64_t count;
    int skip;             /* rows before an image's first patch */
    int32_t *target;      /* [count] */
    float *weight, *even; /* [count]; the factor of the smoothed term */
    float *loss;          /* [count] */
    int32_t *found;       /* [count] */
} Rows;

static void rows_close(Rows *rows) {
    free(rows->target), free(rows->weight), free(rows->even), free(rows->loss), free(rows->found);
}

static int rows_open(Rows *rows, const Vit *vit, const SegmentHead *head, const SegmentBatch *batch,
                     Error *err) {
    int patches = vit_patches(&vit->config), each = vit_feature_rows(&vit->config);
    int64_t n = (int64_t)batch->images * each;
    *rows = (Rows){.count = n, .skip = each - patches};
    rows->target = calloc((size_t)n, sizeof *rows->target);
    rows->weight = calloc((size_t)n, sizeof *rows->weight);
    rows->even = calloc((size_t)n, sizeof *rows->even);
    rows->loss = calloc((size_t)n, sizeof *rows->loss);
    rows->found = calloc((size_t)n, sizeof *rows->found);
    if (!rows->target || !rows->weight || !rows->even || !rows->loss || !rows->found)
        return error_set(err, "out of memory for the patches of %d images", batch->images);
    for (int p = 0; p < batch->images; p++)
        for (int i = 0; i < patches; i++) {
            int32_t label = batch->labels[p * patches + i];
            int64_t row = (int64_t)p * each + rows->skip + i;
            if (label < -1 || label >= head->classes)
                return error_set(err,
                                 "segmentation: patch %d of image %d has the class %d, expected "
                                 "0 to %d, or -1 for none",
                                 i, p, label, head->classes - 1);
            if (label < 0) continue;
            rows->target[row] = label;
            rows->weight[row] = batch->weight;
            rows->even[row] = batch->smoothing;
        }
    return 0;
}

/* Copies values of rows to patches. */
static void rows_read(const Rows *rows, const SegmentBatch *batch, int patches, float *losses,
                      SegmentScore *score) {
    int each = patches + rows->skip;
    for (int p = 0; p < batch->images; p++)
        for (int i = 0; i < patches; i++) {
            int64_t row = (int64_t)p * each + rows->skip + i;
            int32_t label = batch->labels[p * patches + i];
            losses[p * patches + i] = rows->loss[row];
            if (!score || label < 0) continue;
            bool right = rows->found[row] == label;
            score->patches++, score->right += right;
            if (label > 0) score->objects++, score->objects_right += right;
        }
}

/* ---- Forward and backward pass. ---- */

/* Arena bytes of the loss. */
static size_t loss_bytes(int64_t rows) {
    return arena_bytes(DTYPE_I32, 1, rows) + 3 * arena_bytes(DTYPE_F32, 1, rows);
}

size_t segment_bytes(const Vit *vit, const SegmentHead *head, int images, bool recompute) {
    int64_t rows = (int64_t)images * vit_feature_rows(&vit->config);
    int64_t side = vit->config.image_size, d = vit->config.block.width;
    size_t features = arena_bytes(head->params->compute, rows, d);
    size_t back = vit_backward_bytes(vit, images, recompute), loss = loss_bytes(rows);
    size_t learn = features + vit_tape_bytes(vit, images, recompute) + (back > loss ? back : loss);
    size_t work = vit_work_bytes(vit, images);
    size_t alone = work > loss ? work : loss;
    return arena_bytes(DTYPE_F32, 1, images * 3 * side * side) + features +
           (learn > alone ? learn : alone);
}

/* Losses and, if requested, the gradient of the features and the predicted classes. */
static int head_pass(const SegmentHead *head, Arena *arena, Rows *rows, float smoothing,
                     const SegmentRun *run, Tensor features, Tensor dfeatures, Error *err) {
    Device *device = arena->device;
    size_t mark = arena->used;
    Tensor target, weight, even, loss;
    TRY(arena_upload(arena, &target, DTYPE_I32, rows->count, rows->target, err));
    TRY(arena_upload(arena, &weight, DTYPE_F32, rows->count, rows->weight, err));
    TRY(arena_upload(arena, &even, DTYPE_F32, rows->count, rows->even, err));
    TRY(arena_take(arena, &loss, DTYPE_F32, 1, rows->count, err));
    loss = tensor_1d(loss.data, DTYPE_F32, rows->count);
    bool back = run->backward;
    TRY(vocab_cross_entropy(device, loss, dfeatures, back ? tensor_grad(head->w) : TENSOR_NONE,
                            back ? tensor_grad(head->b) : TENSOR_NONE, features, head->w, head->b,
                            target, weight, smoothing, even, err)); /* [R] */
    TRY(device_download(device, rows->loss, loss.data, tensor_bytes(loss), err));
    if (run->score) {
        VocabChoice choice = {.banned = -1, .limit = head->classes};
        TRY(vocab_propose(device, rows->found, rows->weight, features, head->w, head->b, &choice,
                          err));
    }
    arena_reset(arena, mark);
    return 0;
}

static int pass_run(const Vit *vit, const SegmentHead *head, Arena *arena,
                    const SegmentBatch *batch, const SegmentRun *run, Rows *rows, VitTape *tape,
                    Error *err) {
    int64_t side = vit->config.image_size, n = batch->images * 3 * side * side;
    int64_t d = vit->config.block.width;
    Dtype compute = head->params->compute;
    Tensor pixels, features, dfeatures = TENSOR_NONE;
    TRY(arena_upload(arena, &pixels, DTYPE_F32, n, batch->pixels, err));
    pixels = tensor_nd(pixels.data, DTYPE_F32, 4, (int64_t[]){batch->images, 3, side, side});
    TRY(arena_take(arena, &features, compute, rows->count, d, err));
    if (!run->backward) {
        TRY(vit_forward(vit, arena, features, pixels, NULL, err)); /* [R, D] */
        return head_pass(head, arena, rows, batch->smoothing, run, features, dfeatures, err);
    }
    TRY(arena_take(arena, &dfeatures, compute, rows->count, d, err));
    TRY(vit_train_forward(vit, arena, features, pixels, run->recompute, tape, err)); /* [R, D] */
    tape->stack.left = run->left;
    TRY(head_pass(head, arena, rows, batch->smoothing, run, features, dfeatures, err));
    return vit_train_backward(vit, arena, tape, dfeatures, err);
}

int segment_pass(const Vit *vit, const SegmentHead *head, Arena *arena, const SegmentBatch *batch,
                 const SegmentRun *run, float *losses, Error *err) {
    if (batch->images < 1) return 0;
    size_t mark = arena->used;
    Rows rows;
    VitTape tape = {0};
    int status = rows_open(&rows, vit, head, batch, err);
    if (status == 0) status = pass_run(vit, head, arena, batch, run, &rows, &tape, err);
    if (status == 0) rows_read(&rows, batch, vit_patches(&vit->config), losses, run->score);
    vit_tape_free(&tape);
    rows_close(&rows);
    arena_reset(arena, mark);
    return status;
}
