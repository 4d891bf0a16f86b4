/* moments.h - a table's AdamW moments in 8 bits (Dettmers et al., ICLR 2022, "8-bit Optimizers via
 * Block-wise Quantization").
 *
 * Matrices of at least MOMENTS8_LEAST values have each moment as one byte a value and a scale for
 * each block of MOMENT_BLOCK values of the matrix (adamw8_step). Embeddings, vocabularies, vectors
 * and small matrices keep theirs in f32: an embedding's gradients differ by orders of magnitude from
 * row to row.
 *
 * The maps are bitsandbytes' dynamic ones of 8 bits: 0, 1, and in each of seven decades below 1 the
 * centers of 1, 2, 4, ... 64 equal intervals of 0.1 to 1, with both signs; without a sign, twice as
 * many.
 */
#ifndef EASYFIRST_KERNELS_MOMENTS_H
#define EASYFIRST_KERNELS_MOMENTS_H

#include "kernels/params.h"

typedef enum MomentKind { MOMENTS_32BIT, MOMENTS_8BIT } MomentKind;

extern const char *const moment_names[]; /* "32bit", "8bit" */

enum { MOMENTS8_LEAST = 4096 };

/* The tables of one table of parameters, on the device. A parameter's values are in one of two, in
 * the order of the parameters. */
typedef struct MomentTables {
    Device *device;
    int64_t *place; /* [params->count], the first value's index in its table, for bytes a multiple
                       of MOMENT_BLOCK; -1: frozen */
    Tensor m, v;    /* f32 */
    Moments8 bytes;
    void *memory[7];
} MomentTables;

/* Whether a parameter's moments are bytes. */
bool moments_narrow(const Param *param);

/* After params_train; the moments are zero. After a failure, call close. */
int moments_open(MomentTables *tables, const Params *params, Error *err);
void moments_close(MomentTables *tables); /* an empty one may be closed, too */

/* The bytes that moments_open allocates on the device; before or after params_train. */
size_t moments_bytes(const Params *params);

/* The moments of parameter `index`: as bytes, or as f32 in *m and *v. */
Moments8 moments_bytes_of(const MomentTables *tables, const Params *params, int index);
void moments_values_of(const MomentTables *tables, const Params *params, int index, Tensor *m,
                       Tensor *v);

/* maps of adamw8_step, [4, MOMENT_BLOCK]. */
void moments_maps(float *maps);

#endif
