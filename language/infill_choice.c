/* Proposals that are chosen on the host: those of canvases with a DecodeChoice. */
#include <stdlib.h>

#include "language/infill_private.h"
#include "language/row_choice.h"

enum { AT_ONCE = 64 }; /* rows of logits: 37 MiB of a vocabulary of 152,064 */

static void choose_rows(Infill *f, const RowsTarget *target, const float *logits, int first,
                        int count) {
    Rows *r = &f->rows;
    int64_t vocab = language_vocab(&f->config.model);
#pragma omp parallel for schedule(static) num_threads(device_threads(f->config.device))
    for (int i = 0; i < count; i++) {
        int row = first + i;
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
        status = vocab_logits(device, part, tensor_rows(features, begin + first, n),
                              language_vocab_weights(m), language_vocab_bias(m), err);
        if (status == 0) status = device_download(device, host, part.data, tensor_bytes(part), err);
        if (status == 0) choose_rows(f, target, host, begin + first, n);
    }
    device_free(device, logits.data);
    free(host);
    return status;
}
