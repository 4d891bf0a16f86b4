/* multimodal.h - the whole model: its parts together, and images to image tokens.
 *
 * The vision tower and the projector turn images into image tokens, which the language model reads
 * as embeddings. answers.h has prompts in and answers out; train.h trains the same parts.
 * Everything works for text alone, too: then there is no image.
 */
#ifndef EASYFIRST_PROJECTOR_MULTIMODAL_H
#define EASYFIRST_PROJECTOR_MULTIMODAL_H

#include "language/infill.h"
#include "language/tokenizer.h"
#include "projector/projector.h"
#include "vision/patch_map.h"
#include "vision/preprocess.h"
#include "vision/tower.h"

/* The parts; NULL for one that a model lacks. Owned by whoever opened them. */
typedef struct Multimodal {
    Device *device;
    const Tower *tower;
    const Projector *projector;
    LanguageModel language;
    const LengthPredictor *length;
    const Tokenizer *tokenizer;
    PreprocessConfig preprocess;
    AttentionPattern attention;
    int answer_position; /* see InfillConfig */
    int answer_length;   /* of answers whose length is neither given nor predicted; 0: not known */
    int pad_answers;     /* a shorter answer is followed by end-of-text tokens up to so many tokens,
                            besides the one after every canvas; 0: none is */
    const char *image_lead; /* how a prompt about an image begins in the model's chat template: the
                               image is after it; NULL: the image is before the prompt */
    const int32_t *image_lead_ids; /* [image_lead_count]: its tokens, without the one that begins
                                      every sequence */
    int image_lead_count;
} Multimodal;

/* Fails for a model whose tokenizer has no <mask>, but whose attention is not causal. */
int multimodal_check_mask(const Multimodal *model, Error *err);

/* Rows that an image takes in a sequence; 0 without a vision tower. The rows of image_lead are not
 * counted. */
int multimodal_image_rows(const Multimodal *model);

/* Images to image tokens: [count * image_rows, D] f32 on the device, freed by the caller with
 * device_free(tokens->data). Each is as if encoded alone. */
int multimodal_encode(const Multimodal *model, const Image *images, int count, Tensor *tokens,
                      Error *err);

#endif
