#include "language/train_checks.h"

#include "kernels/random.h"

static int check_number(const char *what, int at, int64_t value, int64_t first, int64_t end,
                        Error *err) {
    if (value >= first && value < end) return 0;
    return error_set(err, "training batch: %s %d is %lld, expected %lld to %lld", what, at,
                     (long long)value, (long long)first, (long long)end - 1);
}

int train_check_batch(const XlmrBatch *b, int vocab, int positions, Error *err) {
    if (b->plan.cache) return error_set(err, "training batch: expected no cache of keys");
    int64_t image_rows = b->image_rows && b->image_tokens.data ? b->image_tokens.shape[0] : 0;
    for (int i = 0; i < b->tokens; i++) {
        TRY(check_number("id", i, b->ids[i], -1, vocab, err));
        TRY(check_number("position", i, b->positions[i], 0, positions, err));
        if (b->image_rows) TRY(check_number("image row", i, b->image_rows[i], -1, image_rows, err));
    }
    return 0;
}

int train_check_targets(const XlmrBatch *b, const XlmrTargets *t, int vocab, Tensor dimage_tokens,
                        Error *err) {
    for (int i = 0; i < t->count; i++) {
        TRY(check_number("target row", i, t->rows[i], 0, b->tokens, err));
        TRY(check_number("target id", i, t->ids[i], 0, vocab, err));
    }
    if (dimage_tokens.data && !tensor_same_shape(dimage_tokens, b->image_tokens))
        return error_set(err, "training batch: the image tokens' gradient is of another shape");
    return 0;
}

/* random_stream(stream, block, place, 0) are the blocks'. */
Dropout train_embedding_dropout(const TrainRun *run) {
    return (Dropout){run->dropout, run->seed, random_stream(run->stream, 0, 0, 1)};
}
