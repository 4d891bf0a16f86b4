/* decode_step.h - one step of one hypothesis, for the files that implement decode.h. */
#ifndef EASYFIRST_LANGUAGE_DECODE_STEP_H
#define EASYFIRST_LANGUAGE_DECODE_STEP_H

#include "kernels/random.h"
#include "language/decode.h"

/* A strategy's view of a hypothesis in step t of T. A position is noisy if and only if it is
 * masked: the header's rules for noisy' make it true exactly where they write <mask>, and a
 * proposal is never <mask>. So the tokens contain that flag. */
typedef struct Canvas {
    int32_t *tokens;      /* [length] */
    float *scores;        /* [length] */
    const int32_t *fixed; /* [length], or NULL */
    int length, open, sample, step, steps;
    int32_t mask_id;
    const int32_t *ends; /* [end_count] */
    int end_count;
    const int32_t *stops; /* [stop_count]: ar ends with one of them */
    int stop_count;
} Canvas;

static inline bool canvas_fixed(const Canvas *canvas, int position) {
    return canvas->fixed && canvas->fixed[position] != canvas->mask_id;
}

static inline uint64_t canvas_stream(const Canvas *canvas, DecodeNoise purpose) {
    return random_stream((uint64_t)canvas->length, (uint64_t)canvas->sample, (uint64_t)canvas->step,
                         (uint64_t)purpose);
}

static inline bool canvas_complete(const Canvas *canvas) {
    for (int i = 0; i < canvas->length; i++)
        if (canvas->tokens[i] == canvas->mask_id) return false;
    return true;
}

static inline void canvas_write(Canvas *canvas, int position, Proposal proposal) {
    canvas->tokens[position] = proposal.token;
    canvas->scores[position] = proposal.score;
}

/* What is proposed for position i of a canvas; of a fixed one, its token. */
static inline Proposal canvas_proposal(const Canvas *canvas, const Proposal *proposals, int i) {
    return canvas_fixed(canvas, i) ? (Proposal){canvas->tokens[i], canvas->scores[i]}
                                   : proposals[i];
}

/* Whether no step from this one on can change it. */
bool canvas_settled(const Canvas *canvas, const DecodeOptions *options);

/* What a step sees: proposals, their confidences (NULL: not measured), scratch. All [length]. */
typedef struct StepInput {
    const Proposal *proposals;
    const float *confidence;
    double *ranks, *sorted;
} StepInput;

/* One step of the options' strategy. */
void canvas_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input);

/* Those of LLaDA and Dream (decode_models.c). */
void llada_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input);
void dream_step(Canvas *canvas, const DecodeOptions *options, const StepInput *input);

/* How the options' strategy needs the proposals to be chosen; whether that is not as usual. */
bool canvas_choice(DecodeChoice *choice, const DecodeOptions *options, const int32_t *ends);

#endif
