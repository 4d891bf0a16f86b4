/* double_model.h - a language model and its length predictor in double precision, as plain loops:
 * what the tests compare likelihoods with. */
#ifndef EASYFIRST_TESTS_DOUBLE_MODEL_H
#define EASYFIRST_TESTS_DOUBLE_MODEL_H

#include "data/checkpoints/checkpoint.h"
#include "projector/multimodal.h"
#include "tests/test.h"

typedef struct DoubleModel {
    Checkpoint language, length; /* the weights */
    const Multimodal *model;     /* its configuration: attention, answer_position, lengths */
    const float *image_tokens;   /* [images * rows, D] */
    int image_rows;
    bool whole_vocabulary; /* <mask> and ids that are never proposed count in the softmax */
} DoubleModel;

/* The weights of a model folder; `length`: it has a length predictor. */
void double_model_open(DoubleModel *d, const char *folder, bool length);
void double_model_close(DoubleModel *d);

/* Log-probabilities [length, V] of the canvas's rows after a prompt, -infinity for <mask> and ids
 * that are never proposed; image -1: none. */
void double_canvas(const DoubleModel *d, double *out, int image, const int32_t *prompt, int count,
                   const int32_t *canvas, int length);

/* The log-probability of an answer's length. */
double double_length(const DoubleModel *d, int image, const int32_t *prompt, int count, int length);

#endif
