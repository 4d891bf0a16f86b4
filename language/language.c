#include "language/language.h"

#include <stdlib.h>
#include <string.h>

#include "language/spread.h"
#include "language/tokenizer.h"

LanguageModel language_of_xlmr(const Xlmr *xlmr) {
    if (xlmr->config.kind != ENCODER_XLMR)
        return (LanguageModel){.xlmr = xlmr, .begin = -1, .end = -1};
    return (LanguageModel){.xlmr = xlmr, .begin = TOKEN_BOS, .end = TOKEN_EOS};
}

LanguageModel language_of_llama(const Llama *llama) {
    return (LanguageModel){.llama = llama, .begin = -1, .end = -1};
}

int language_text_length(const LanguageModel *m, const int32_t *tokens, int count) {
    for (int i = 0; i < count; i++)
        for (int s = 0; s < m->stop_count; s++)
            if (tokens[i] == m->stops[s]) return i;
    return count;
}

void language_drop_begin(const LanguageModel *m, int32_t *ids, size_t *count) {
    if (!m->llama || m->begin < 0 || *count == 0 || ids[0] != m->begin) return;
    memmove(ids, ids + 1, --*count * sizeof *ids);
}

int language_frame_rows(const LanguageModel *m) {
    return (m->begin >= 0) + (m->end >= 0);
}

const BlockConfig *language_block(const LanguageModel *m) {
    return m->llama ? &m->llama->config.block : &m->xlmr->config.block;
}

int language_layers(const LanguageModel *m) {
    return m->llama ? m->llama->config.layers : m->xlmr->config.layers;
}

int language_vocab(const LanguageModel *m) {
    return m->llama ? m->llama->config.vocab : m->xlmr->config.vocab;
}

int language_longest(const LanguageModel *m) {
    return m->llama ? m->llama->config.positions : xlmr_longest(&m->xlmr->config);
}

int language_first_position(const LanguageModel *m) {
    return m->llama ? 0 : m->xlmr ? xlmr_first_position(&m->xlmr->config) : XLMR_FIRST_POSITION;
}

const Params *language_params(const LanguageModel *m) {
    return m->llama ? m->llama->params : m->xlmr->params;
}

Tensor language_vocab_weights(const LanguageModel *m) {
    return m->llama ? m->llama->vocab_w : m->xlmr->vocab_w;
}

Tensor language_vocab_bias(const LanguageModel *m) {
    return m->llama ? TENSOR_NONE : m->xlmr->vocab_b;
}

size_t language_work_bytes(const LanguageModel *m, int tokens) {
    return m->llama ? llama_work_bytes(m->llama, tokens) : xlmr_work_bytes(m->xlmr, tokens);
}

size_t language_head_bytes(const LanguageModel *m, int rows) {
    return m->llama ? llama_head_bytes(m->llama, rows) : xlmr_head_bytes(m->xlmr, rows);
}

int language_forward(const LanguageModel *m, Arena *arena, const XlmrBatch *batch, Tensor *hidden,
                     const LayerHook *hook, Error *err) {
    if (m->spread) return spread_forward(m->spread, arena, batch, hidden, hook, err);
    return m->llama ? llama_forward(m->llama, arena, batch, hidden, hook, err)
                    : xlmr_forward(m->xlmr, arena, batch, hidden, hook, err);
}

int language_head(const LanguageModel *m, Arena *arena, Tensor hidden, const int32_t *rows,
                  int count, Tensor *features, Error *err) {
    return m->llama ? llama_head(m->llama, arena, hidden, rows, count, features, err)
                    : xlmr_head(m->xlmr, arena, hidden, rows, count, features, err);
}

int language_propose(const LanguageModel *m, Device *device, int32_t *tokens, float *scores,
                     Tensor features, const VocabChoice *choice, Error *err) {
    if (m->spread) return spread_propose(m->spread, tokens, scores, features, choice, err);
    return vocab_propose(device, tokens, scores, features, language_vocab_weights(m),
                         language_vocab_bias(m), choice, err);
}

int language_logits(const LanguageModel *m, Device *device, float *logits, Tensor y,
                    Tensor features, Error *err) {
    if (m->spread) return spread_logits(m->spread, logits, features, err);
    TRY(vocab_logits(device, y, features, language_vocab_weights(m), language_vocab_bias(m), err));
    return device_download(device, logits, y.data, tensor_bytes(y), err);
}

size_t language_losses_bytes(int rows) {
    return arena_bytes(DTYPE_I32, 1, rows) + 2 * arena_bytes(DTYPE_F32, 1, rows);
}

int language_losses(const LanguageModel *m, Arena *arena, float *losses, Tensor features,
                    const int32_t *targets, Error *err) {
    const int64_t count = features.shape[0];
    const size_t mark = arena->used;
    Tensor target, weight, loss;
    if (m->spread) return spread_losses(m->spread, losses, features, targets, err);
    for (int64_t i = 0; i < count; i++) losses[i] = 1;
    TRY(arena_upload(arena, &target, DTYPE_I32, count, targets, err));
    TRY(arena_upload(arena, &weight, DTYPE_F32, count, losses, err));
    TRY(arena_take(arena, &loss, DTYPE_F32, 1, count, err));
    loss = tensor_1d(loss.data, DTYPE_F32, count);
    TRY(vocab_cross_entropy(arena->device, loss, TENSOR_NONE, TENSOR_NONE, TENSOR_NONE, features,
                            language_vocab_weights(m), language_vocab_bias(m), target, weight, 0,
                            TENSOR_NONE, err));
    arena_reset(arena, mark);
    return device_download(arena->device, losses, loss.data, tensor_bytes(loss), err);
}
