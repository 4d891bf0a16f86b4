/* length.h - predicts the answer's length in tokens (arXiv 2308.12219, the released code's layout).
 *
 * The language model's last hidden states over the prompt alone go through one post-LN block with
 * ReLU (torch's TransformerEncoderLayer), their mean through Linear, tanh, Linear. Class c means c
 * + 1 tokens. The b most likely classes are the length beam.
 */
#ifndef EASYFIRST_LANGUAGE_LENGTH_H
#define EASYFIRST_LANGUAGE_LENGTH_H

#include "kernels/block.h"

typedef struct LengthPredictor {
    BlockConfig config;
    int classes;
    Params *params;
    Block block;
    Tensor hidden_w, hidden_b, class_w, class_b;
} LengthPredictor;

/* `language` is the language model's own block: width, heads and FFN width are the same. */
int length_declare(LengthPredictor *length, const BlockConfig *language, int classes,
                   Params *params, Error *err);

size_t length_work_bytes(const LengthPredictor *length, int tokens, int segments);

/* hidden [T, D] c, the prompts end to end, prompt s being rows [begin[s], begin[s+1]) (host), to
 * logits [S, classes] f32 on the device. */
int length_forward(const LengthPredictor *length, Arena *arena, Tensor logits, Tensor hidden,
                   const int32_t *begin, int segments, Error *err);

/* The same up to the last layer, *features [S, ffn] c, which stays in the arena with all
 * intermediate results (the caller resets it): logits are features class_w^T + class_b. */
int length_features(const LengthPredictor *length, Arena *arena, Tensor *features, Tensor hidden,
                    const int32_t *begin, int segments, Error *err);

/* One span for each prompt, whose rows attend to each other: [segments], the caller frees them;
 * NULL if out of memory. */
AttentionSpan *length_spans(const int32_t *begin, int segments);

/* The `beam` most likely lengths of one prompt, best first, each at most `longest`: classes beyond
 * it are excluded, so that all lengths differ. Returns their number (less than beam only if longest
 * is smaller). logits on the host. */
int length_choose(int *lengths, int beam, const float *logits, int classes, int longest);

/* The log-probability of a length under the softmax over all classes. */
double length_log_probability(const float *logits, int classes, int length);

#endif
