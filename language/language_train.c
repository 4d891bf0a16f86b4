#include "language/language_train.h"

#include "language/llama_train.h"

int language_check_batch(const LanguageModel *m, const XlmrBatch *batch, Error *err) {
    return m->llama ? llama_check_batch(m->llama, batch, err)
                    : xlmr_check_batch(m->xlmr, batch, err);
}

int language_loss(const LanguageModel *m, Arena *arena, const XlmrBatch *batch,
                  const XlmrTargets *targets, const TrainRun *run, float *losses,
                  Tensor dimage_tokens, Error *err) {
    return m->llama ? llama_loss(m->llama, arena, batch, targets, run, losses, dimage_tokens, err)
                    : xlmr_loss(m->xlmr, arena, batch, targets, run, losses, dimage_tokens, err);
}

size_t language_loss_bytes(const LanguageModel *m, int tokens, int targets, const TrainRun *run,
                           bool image) {
    return m->llama ? llama_loss_bytes(m->llama, tokens, targets, run, image)
                    : xlmr_loss_bytes(m->xlmr, tokens, targets, run, image);
}
