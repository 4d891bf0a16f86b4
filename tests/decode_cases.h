/* decode_cases.h - a synthetic network, and the reference's cases of decoding: shared by the tests of
 * language/decode.h.
 *
 * The network is the same as in tests/reference/decode_reference.py: logits from integer hashes,
 * exact in float. */
#ifndef EASYFIRST_TESTS_DECODE_CASES_H
#define EASYFIRST_TESTS_DECODE_CASES_H

#include "language/decode.h"
#include "tests/test.h"

enum { KIND_RANDOM, KIND_COARSE, KIND_PEAKED, KIND_WEIGHTS, KINDS };

typedef struct Synthetic {
    int kind, vocabulary;
    int32_t mask_id;
    uint64_t seed;
    bool distinct;   /* no canvas may come twice in one call */
    int fail_call;   /* the call (from 1) that fails, or 0 */
    int poison_call; /* the call whose first proposal is replaced by `poison`, or 0 */
    Proposal poison;
    int calls, canvases; /* so far */
} Synthetic;

/* A DecodeEvaluate, whose model is a Synthetic. */
int synthetic_evaluate(void *user, const DecodeCanvas *canvases, int count, float temperature,
                       uint64_t seed, Proposal *out, Error *err);

DecodeOptions options_named(const char *name);
DecodeRun run_of(Synthetic *model, const DecodeOptions *options, const DecodeSpec *specs,
                 int count);
DecodeResult *decode_all(Synthetic *model, const DecodeOptions *options, const DecodeSpec *specs,
                         int count);

/* The same to the last bit: answer, scores, every step. (Not the evaluations.) */
void assert_same(const DecodeResult *a, const DecodeResult *b);

enum { STRATEGIES = 14 };
extern const char *const strategies[STRATEGIES];

int random_below(TestRandom *random, int n);

/* A case of the reference (tests/reference/make_decode.py). */
typedef struct GoldenHeader {
    char strategy[64];
    int32_t kind, vocabulary, mask, length, iterations, request, sample, steps, evaluations;
    uint32_t seed;
    float temperature, score;
} GoldenHeader;

/* Decodes it, with `fixed` tokens (NULL: none), and compares every step. */
void golden_case(const GoldenHeader *header, const int32_t *fixed, const TraceCell *cells);

#endif
