/* row_choice.h - a proposal from a row of logits on the host, where more is needed than
 * vocab_propose gives: its confidence, or a second id that is never proposed. */
#ifndef EASYFIRST_LANGUAGE_ROW_CHOICE_H
#define EASYFIRST_LANGUAGE_ROW_CHOICE_H

#include "language/decode.h"

typedef struct RowChoice {
    DecodeChoice how;
    int32_t banned, limit; /* as in VocabChoice */
    float temperature;
    uint64_t seed, stream;
    int64_t index; /* id v draws with index + v */
} RowChoice;

/* The proposal of vocab_propose: ties go to the lowest id; a row with a NaN logit, or without any
 * choice, gets token 0 or more and a NaN score. *confidence is the measure, 0 without one; it may
 * be NULL. */
Proposal row_choose(const float *logits, const RowChoice *choice, float *confidence);

#endif
