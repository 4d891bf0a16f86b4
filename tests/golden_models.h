/* golden_models.h - the tiny models of tests/golden/models with the reference's results, for the
 * tests that compare stages. See tests/reference/make_models.py for the names. */
#ifndef EASYFIRST_TESTS_GOLDEN_MODELS_H
#define EASYFIRST_TESTS_GOLDEN_MODELS_H

#include "projector/model.h"
#include "tests/test.h"

extern const char *const golden_folders[2]; /* post-LN, full attention; pre-LN, block-causal */

typedef struct Fixture {
    Device *device;
    Model model;
    Checkpoint golden; /* stages.safetensors */
    double limit;      /* of relative errors in this compute type */
} Fixture;

void fixture_open(Fixture *f, const char *folder, const char *dtype);
void fixture_close(Fixture *f);

/* A golden tensor, whose name has at most one %d; fails the test if there is none. */
Tensor golden(const Checkpoint *c, const char *format, int n);
int32_t *golden_ids(const Checkpoint *c, const char *format, int n, int *count); /* free() */

/* Compares a tensor of any float type with a golden one of as many values. */
void compare(Tensor got, Tensor want, double limit, const char *what, int n);

/* The image tokens that the reference computed, [images * rows, D]. */
Tensor golden_image_tokens(const Checkpoint *c);

/* Packed sequences. */
typedef struct Sequences {
    int32_t *ids, *begin, *image_rows, *positions;
    int tokens, count;
    int32_t *images, *ends; /* of "mm" sequences: [count], and [count, 3] the ends of their
                               blocks */
    AttentionSpan *spans;
    int span_count;
} Sequences;

/* The sequences `name`.ids / .begin of a golden file, with one span each, or one a block. */
Sequences sequences_open(const Checkpoint *c, const char *name, bool blocks, int image_rows);
void sequences_close(Sequences *s);

/* Hidden states (layer by layer where layer_names is given) and logits of the sequences `name`
 * against `result`.logits. */
void check_sequences(const Xlmr *m, Device *device, const Checkpoint *c, double limit,
                     int image_rows, const char *name, bool blocks, const char *result,
                     const char *layer_names);

#endif
