#include "language/length.h"

#include <math.h>
#include <stdlib.h>

static const BlockNames torch_names = {.in_proj = "self_attn.in_proj",
                                       .out = "self_attn.out_proj",
                                       .norm1 = "norm1",
                                       .fc1 = "linear1",
                                       .fc2 = "linear2",
                                       .norm2 = "norm2"};

int length_declare(LengthPredictor *m, const BlockConfig *language, int classes, Params *params,
                   Error *err) {
    if (classes < 1) return error_set(err, "length predictor: %d classes", classes);
    *m = (LengthPredictor){.config = *language, .classes = classes, .params = params};
    m->config.pre_norm = false;
    m->config.activation = ACTIVATION_RELU;
    m->config.eps = 1e-5f; /* torch's default */
    /* What ModernBERT's blocks have besides. */
    m->config.gated = m->config.joined = m->config.rotary = false;
    m->config.unbiased = 0, m->config.window = 0;
    TRY(block_declare(&m->block, &m->config, &torch_names, params, false, "length_trm.layers.0",
                      err));
    int first = params->count;
    TRY(params_declare_linear(params, &m->hidden_w, &m->hidden_b, m->config.ffn, m->config.width,
                              false, err, "length_predictor.0."));
    params_mark_hidden(params, first);
    return params_declare_linear(params, &m->class_w, &m->class_b, classes, m->config.ffn, false,
                                 err, "length_predictor.2.");
}

size_t length_work_bytes(const LengthPredictor *m, int tokens, int segments) {
    Dtype compute = m->params->compute;
    return block_work_bytes(&m->config, tokens, compute) +
           arena_bytes(compute, segments, m->config.width) +
           arena_bytes(compute, segments, m->config.ffn);
}

AttentionSpan *length_spans(const int32_t *begin, int segments) {
    AttentionSpan *spans = malloc((size_t)segments * sizeof *spans);
    for (int s = 0; spans && s < segments; s++)
        spans[s] = (AttentionSpan){begin[s], begin[s + 1], 1, {{begin[s], begin[s + 1]}}};
    return spans;
}

int length_features(const LengthPredictor *m, Arena *arena, Tensor *features, Tensor hidden,
                    const int32_t *begin, int segments, Error *err) {
    Device *device = arena->device;
    Dtype compute = m->params->compute;
    BlockWork work;
    Tensor mean;
    TRY(block_work_take(&work, &m->config, arena, hidden.shape[0], compute, err));
    TRY(arena_take(arena, &mean, compute, segments, m->config.width, err));
    TRY(arena_take(arena, features, compute, segments, m->config.ffn, err));
    AttentionSpan *spans = length_spans(begin, segments);
    if (!spans) return error_set(err, "out of memory for %d prompts", segments);
    AttentionPlan plan = {.spans = spans, .span_count = segments};
    int status = convert_forward(device, work.x, hidden, err) || /* [T, D] */
                 block_begin(device, &m->config, &work, err) ||
                 blocks_forward(device, &m->config, &m->block, 1, &work, &plan, NULL, err) ||
                 segment_mean_forward(device, mean, work.x, begin, segments, err) || /* [S, D] */
                 linear_forward(device, *features, mean, m->hidden_w, m->hidden_b, ACTIVATION_TANH,
                                false, err); /* [S, F] */
    free(spans);
    return status ? -1 : 0;
}

int length_forward(const LengthPredictor *m, Arena *arena, Tensor logits, Tensor hidden,
                   const int32_t *begin, int segments, Error *err) {
    size_t mark = arena->used;
    Tensor features;
    int status = length_features(m, arena, &features, hidden, begin, segments, err);
    if (status == 0)
        status = linear_forward(arena->device, logits, features, m->class_w, m->class_b, 0, false,
                                err); /* [S, classes] */
    arena_reset(arena, mark);
    return status;
}

int length_choose(int *lengths, int beam, const float *logits, int classes, int longest) {
    int usable = classes < longest ? classes : longest;
    int count = 0;
    while (count < beam && count < usable) {
        int best = -1;
        for (int c = 0; c < usable; c++) {
            bool taken = false;
            for (int i = 0; i < count; i++) taken |= lengths[i] == c + 1;
            if (!taken && (best < 0 || logits[c] > logits[best])) best = c;
        }
        lengths[count++] = best + 1;
    }
    return count;
}

double length_log_probability(const float *logits, int classes, int length) {
    double most = logits[0], sum = 0;
    for (int c = 1; c < classes; c++)
        if (logits[c] > most) most = logits[c];
    for (int c = 0; c < classes; c++) sum += exp(logits[c] - most);
    return logits[length - 1] - most - log(sum);
}
