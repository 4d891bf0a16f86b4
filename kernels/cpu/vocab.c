/* Proposals over a large vocabulary.
 *
 * The head's weight is processed in chunks of VOCAB_CHUNK rows: the logits of some rows and one
 * chunk are computed into the workspace and scanned while they are in the cache, and only a
 * VocabRow of each row is kept. For few rows the time is that of reading the weight once (V D
 * values); all row blocks use a chunk before the next, so that it is read from memory once for any
 * number of rows.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

/* Logits in the workspace at a time: 256 rows of a chunk, 4 MiB. */
enum { BLOCK_ROWS = 256 };

/* Fewer logits than this are scanned by the calling thread: waking the others takes some
 * microseconds, about as long as scanning this many. */
enum { PARALLEL_LOGITS = 65536 };

/* log p of the chosen token. A NaN logit makes the sum NaN; a row without any choice gets the
 * lowest id and a NaN score, which no caller mistakes for a proposal. */
static void row_finish(const VocabRow *row, int32_t *token, float *score) {
    *token = row->best_token < 0 ? 0 : row->best_token;
    *score =
        row->best_token < 0 ? NAN : (float)((double)row->best_logit - row->max - log(row->sum));
}

int cpu_vocab_propose(Device *device, int32_t *tokens, float *scores, Tensor x, Tensor w, Tensor b,
                      const VocabChoice *choice, Error *err) {
    const CpuKernels *kernels = cpu_state(device)->kernels;
    int64_t rows = x.shape[0], vocabulary = w.shape[0];
    int64_t chunk = w.packed ? w.packed->chunk_rows : VOCAB_CHUNK;
    if (chunk > vocabulary) chunk = vocabulary;
    int64_t block = rows < BLOCK_ROWS ? rows : BLOCK_ROWS;

    size_t logits_bytes = ((size_t)(block * chunk) * sizeof(float) + 63) / 64 * 64;
    void *workspace;
    TRY(cpu_workspace(device, &workspace, logits_bytes + (size_t)rows * sizeof(VocabRow), err));
    float *logits = workspace;
    VocabRow *state = (VocabRow *)((char *)workspace + logits_bytes);
    for (int64_t r = 0; r < rows; r++) state[r] = vocab_row_empty();

    for (int64_t first = 0; first < vocabulary; first += chunk) {
        int64_t count = vocabulary - first < chunk ? vocabulary - first : chunk;
        for (int64_t top = 0; top < rows; top += block) {
            int64_t here = rows - top < block ? rows - top : block;
            Tensor y = tensor_2d(logits, DTYPE_F32, here, count);
            TRY(cpu_linear_rows(device, y, tensor_rows(x, top, here), w, b, first, count,
                                ACTIVATION_NONE, false, err));
#pragma omp parallel for schedule(static) \
    num_threads(device->threads) if (here > 1 && here * count >= PARALLEL_LOGITS)
            for (int64_t i = 0; i < here; i++) {
                int64_t r = top + i;
                kernels->vocab_scan(&state[r], logits + i * count, NULL, (int32_t)first, count,
                                    choice, choice->stream ? choice->stream[r] : 0,
                                    choice->index ? choice->index[r] : 0);
            }
        }
    }
    for (int64_t r = 0; r < rows; r++) row_finish(&state[r], &tokens[r], &scores[r]);
    return 0;
}

int cpu_vocab_logits(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, Error *err) {
    return cpu_linear_forward(device, y, x, w, b, ACTIVATION_NONE, false, err);
}
