/* Proposals that are chosen on the host: those of canvases with a DecodeChoice. */
#include <stdlib.h>

#include "language/infill_private.h"
#include "language/row_choice.h"

enum {
    AT_ONCE = 64
}; /* even: pairs stay together; rows of logits: 37 MiB of a vocabulary of 152,064 */

/* u + (W + 1) (c - u) in place of c. */
static void guide(float *logits, const float *unconditional, int64_t vocab, float guidance) {
    for (int64_t v = 0; v < vocab; v++)
        logits[v] = unconditional[v] + (guidance + 1) * (logits[v] - unconditional[v]);
}

static void choose_rows(Infill *f, const RowsTarget *target, float *logits, int first, int count) {
    Rows *r = &f->rows;
    int64_t vocab = language_vocab(&f->config.model);
    const float guidance = target->canvas->choice->guidance;
    const int step = guidance > 0 ? 2 : 1; /* pairs of rows */
#pragma omp parallel for schedule(static) num_threads(device_threads(f->config.device))
    for (int i = 0; i < count; i += step) {
        int row = first + i;
        if (step == 2) guide(logits + i * vocab, logits + (i + 1) * vocab, vocab, guidance);
        const RowChoice choice = {.how = *target->canvas->choice,
                                  .banned = f->config.mask_id,
                                  .limit = f->config.vocab_limit,
                                  .temperature = target->temperature,
                                  .seed = target->seed,
                                  .stream = r->stream[row],
                                  .index = r->noise_index[row]};
        Proposal proposal = row_choose(logits + i * vocab, &choice, &r->confidences[row]);
        r->tokens[row] = proposal.token, r->scores[row] = proposal.score;
    }
}

int infill_choose(Infill *f, Tensor features, const RowsTarget *target, int begin, int rows,
                  Error *err) {
    const LanguageModel *m = &f->config.model;
    const int vocab = language_vocab(m);
    Device *device = f->config.device;
    int at_once = rows < AT_ONCE ? rows : AT_ONCE;
    Tensor logits = tensor_2d(NULL, DTYPE_F32, at_once, vocab);
    float *host = malloc(tensor_bytes(logits));
    if (!host) return error_set(err, "out of memory for the scores of %d tokens", vocab);
    int status = device_alloc(device, &logits.data, tensor_bytes(logits), err);
    for (int first = 0, n; status == 0 && first < rows; first += n) {
        n = rows - first < at_once ? rows - first : at_once;
        Tensor part = tensor_rows(logits, 0, n);
        status =
            language_logits(m, device, host, part, tensor_rows(features, begin + first, n), err);
        if (status == 0) choose_rows(f, target, host, begin + first, n);
    }
    device_free(device, logits.data);
    free(host);
    return status;
}
