/* length.h - how many tokens the answer will have (arXiv 2308.12219, the released code's layout).
 *
 * The language model's last hidden states over the prompt alone go through one post-LN block with
 * ReLU (torch's TransformerEncoderLayer), their mean through Linear, tanh, Linear. Class c means
 * c + 1 tokens. The best b classes make the length beam.
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

/* The same up to the last layer, *features [S, ffn] c, which stays in the arena with everything on
 * the way (the caller resets it): logits are features class_w^T + class_b. */
int length_features(const LengthPredictor *length, Arena *arena, Tensor *features, Tensor hidden,
                    const int32_t *begin, int segments, Error *err);

/* Each prompt's rows see each other: [segments] spans, the caller's to free; NULL if there is no
 * memory for them. */
AttentionSpan *length_spans(const int32_t *begin, int segments);

/* The `beam` most likely lengths of one prompt, best first, each at most `longest`: classes beyond
 * it are not considered, so that all lengths differ. Returns how many there are (fewer than beam
 * only if longest is smaller). logits on the host. */
int length_choose(int *lengths, int beam, const float *logits, int classes, int longest);

/* The log-probability of a length under the softmax over all classes. */
double length_log_probability(const float *logits, int classes, int length);

#endif
