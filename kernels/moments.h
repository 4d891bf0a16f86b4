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

/* What a parameter has: moments in f32, or bytes and the scales of their blocks. */
typedef enum MomentPiece {
    MOMENT_M = 1,
    MOMENT_V,
    MOMENT_M8,
    MOMENT_V8,
    MOMENT_M_SCALE,
    MOMENT_V_SCALE
} MomentPiece;

/* Whether a parameter's moments are bytes. */
bool moments_narrow(const Param *param);

/* After params_train; the moments are zero. After a failure, call close. */
int moments_open(MomentTables *tables, const Params *params, Error *err);
void moments_close(MomentTables *tables); /* an empty one may be closed, too */

/* The bytes that moments_open allocates on the device; before or after params_train. */
size_t moments_bytes(const Params *params);

/* Of several ranks (params.h; with MOMENT_BLOCK as the unit) the tables have this one's own values:
 * of parameter `index` `count` from `first` on, which for bytes is the beginning of a block. */
void moments_own(const Params *params, int index, int64_t *first, int64_t *count);

/* The own moments of parameter `index`: as bytes, or as f32 in *m and *v. */
Moments8 moments_bytes_of(const MomentTables *tables, const Params *params, int index);
void moments_values_of(const MomentTables *tables, const Params *params, int index, Tensor *m,
                       Tensor *v);

/* Values of a piece in so many values of a parameter, and their bytes. */
int64_t moments_piece_values(MomentPiece piece, int64_t values);
size_t moments_piece_bytes(MomentPiece piece, int64_t values);

/* Copies `count` of the piece's values to the host, those of other ranks by ParamsShare.fetch; and
 * all of the host's to the tables, as far as they are this rank's. */
int moments_fetch(const MomentTables *tables, const Params *params, int index, MomentPiece piece,
                  int64_t first, int64_t count, void *host, Error *err);
int moments_store(const MomentTables *tables, const Params *params, int index, MomentPiece piece,
                  const void *host, Error *err);

/* maps of adamw8_step, [4, MOMENT_BLOCK]. */
void moments_maps(float *maps);

#endif
