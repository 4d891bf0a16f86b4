/* projector.h - maps the vision tower's features to image tokens of the language model (LLaVA, Liu
 * et al., 2023): one linear layer, or two with a GELU between.
 *
 * A convolutional tower's features, unlike a ViT's, do not say where in the image they are: a
 * projector for one adds a learned vector to each row of an image, under the name
 * "model.mm_projector.position_embedding.weight". LLaVA's projectors have none.
 */
#ifndef EASYFIRST_PROJECTOR_PROJECTOR_H
#define EASYFIRST_PROJECTOR_PROJECTOR_H

#include "kernels/params.h"

typedef enum ProjectorKind {
    PROJECTOR_NONE = -1, /* no projector is asked for */
    PROJECTOR_LINEAR,
    PROJECTOR_MLP2X_GELU,
} ProjectorKind;

/* LLaVA's words, "linear" and "mlp2x_gelu". */
extern const char *const projector_kind_names[];
const char *projector_kind_name(ProjectorKind kind);

typedef struct Projector {
    ProjectorKind kind;
    int in, out; /* the vision tower's width, the language model's */
    int rows;    /* of an image, where each has a position; 0: none */
    Params *params;
    Tensor w1, b1, w2, b2; /* [out, in], [out], [out, out], [out] */
    Tensor positions;      /* [rows, out] */
} Projector;

/* Declares the parameters under LLaVA's names, "model.mm_projector...". */
int projector_declare(Projector *projector, ProjectorKind kind, int in, int out, int rows,
                      Params *params, Error *err);

size_t projector_work_bytes(const Projector *projector, int64_t rows);

/* features [R, in] c, of whole images where there are positions, to image tokens [R, out] f32. The
 * arena is left as it was. */
int projector_forward(const Projector *projector, Arena *arena, Tensor tokens, Tensor features,
                      Error *err);

/* ---- Training. ---- */

/* Arena bytes that the forward pass keeps (while it runs it needs projector_work_bytes more), and
 * that the backward pass needs in addition. */
size_t projector_tape_bytes(const Projector *projector, int64_t rows);
size_t projector_backward_bytes(const Projector *projector, int64_t rows);

/* projector_forward that keeps what the backward pass needs in *hidden: [R, out] f32, before the
 * GELU, owned by the arena; no tensor for a linear projector. */
int projector_train_forward(const Projector *projector, Arena *arena, Tensor tokens,
                            Tensor features, Tensor *hidden, Error *err);

/* Adds to the gradients of the trainable parameters; dtokens [R, out] f32. dfeatures [R, in] c or
 * f32, overwritten, or no tensor where the vision tower is frozen. The arena is left as it was. */
int projector_train_backward(const Projector *projector, Arena *arena, Tensor dfeatures,
                             Tensor dtokens, Tensor features, Tensor hidden, Error *err);

#endif
