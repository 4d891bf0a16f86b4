/* calibration.h - how sure a model is of an answer: the entry "calibration" of easyfirst.json.
 *
 *   "calibration": {"slope": 3.1, "offset": 2.4, "length": -0.05, "threshold": 0.31,
 *                   "longest": 8, "prompts": ["ask", "gqa"]}
 *
 * The probability that an answer is right is sigmoid(slope * score + offset + length * tokens),
 * where the score is the mean log-probability of its tokens. "length" is 0 where it is missing.
 * Below "threshold" an answer is not sure. "longest" is the number of tokens of the longest answer
 * that it was fitted to; it says nothing of longer ones, which descriptions are. "prompts" are the
 * prompt templates whose answers it was fitted to; without it those of questions about images.
 * `easyfirst calibrate` writes it.
 */
#ifndef EASYFIRST_PROJECTOR_CALIBRATION_H
#define EASYFIRST_PROJECTOR_CALIBRATION_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/error.h"

typedef struct Calibration {
    bool present;
    double slope, offset, length, threshold;
    int longest;      /* in tokens; 0: not limited */
    unsigned prompts; /* bits 1 << number in calibration_prompts */
} Calibration;

/* "ask", "gqa", "translate", "summarize"; NULL-terminated. */
extern const char *const calibration_prompts[];

/* From a model's settings (NULL or without the entry: not present); `path` is for messages. */
int calibration_read(Calibration *calibration, const json_t *settings, const char *path,
                     Error *err);

/* Whether it holds for answers to this prompt template. */
bool calibration_holds(const Calibration *calibration, const char *prompt);

/* NaN where it does not hold, of longer answers, too, or there is no score. */
double calibration_probability(const Calibration *calibration, const char *prompt, double score,
                               int length);

#endif
