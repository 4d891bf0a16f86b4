/* params.h - the one table of a model's parameters.
 *
 * A model declares each parameter once: name (as in the public Hugging Face checkpoints), shape,
 * role, initialisation, trainable or not, and the slot, a Tensor in the model's own struct, in
 * which it wants to find it. The same table then loads, allocates, initialises, saves, counts, and
 * tells `info` what is needed; gradients and optimiser state are laid out like it.
 *
 * The order of events: declare everything; give every parameter its values, either from a
 * checkpoint (params_set, memory-mapped, used in the file's own type) or by allocation
 * (params_allocate and params_initialise); params_prepare, which brings the values into the form
 * the operations want (matrices packed for the device's matmul, vectors as f32) and fills the
 * slots.
 */
#ifndef EASYFIRST_KERNELS_PARAMS_H
#define EASYFIRST_KERNELS_PARAMS_H

#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

typedef enum ParamRole {
    PARAM_MATRIX,     /* [N, K], the weight of a linear: packed; the slot has `packed` */
    PARAM_VECTOR,     /* [N], a bias or a LayerNorm's weight: f32 */
    PARAM_TABLE,      /* [R, D], rows are looked up (gather): stays in its own type, in the file */
    PARAM_VOCABULARY, /* [V, D], looked up and multiplied with: both forms, two slots */
} ParamRole;

typedef enum ParamInit { INIT_ZERO, INIT_ONE, INIT_NORMAL } ParamInit;

typedef struct Param {
    char *name;
    ParamRole role;
    int ndim;
    int64_t shape[4]; /* as in the checkpoint, e.g. a convolution's [1024, 3, 14, 14]; a matrix is
                         [shape[0], the rest] */
    ParamInit init;
    float init_std; /* INIT_NORMAL */
    bool optional;  /* a checkpoint may lack it: its values are then all zero */
    bool trainable;
    bool idle;          /* kept with the model but not computed with: never prepared */
    int hidden;         /* matrices stacked in it that turn activations into activations */
    Tensor value;       /* the values as given: in a memory map, or in the table's block */
    bool present;       /* has values */
    Tensor *slot;       /* where the model wants it; one slot for all members of a joined group */
    Tensor *table_slot; /* PARAM_VOCABULARY: where the table for gather goes */
    int join;           /* members of a group of joined matrices or vectors: index of the first one,
                           else -1 */
    struct Packed *packed; /* of the first of a joined group for all of it */
    int64_t offset; /* params_train: the place of its first value in the flat tables; -1: frozen */
} Param;

typedef struct Params {
    Device *device;
    Param *items;
    int count, capacity;
    void *block; /* params_allocate: all values */
    size_t block_size;
    void *vectors; /* params_prepare: all vectors, f32, on the device */
    Dtype compute; /* set by params_prepare and params_train */
    /* params_train, all on the device: */
    int64_t flat;  /* values in each of the flat tables, the gaps of the alignment among them */
    float *master; /* [flat], the trainable parameters in f32 */
    float *grad;   /* [flat], their gradients; zero at first, and the gaps always */
    void *working; /* [flat] in the compute type, what operations read; NULL in f32: the masters */
    void *plain;   /* frozen matrices and tables that could not be used where they are; of
                      params_prepare, the tables' copies on a GPU */
} Params;

void params_init(Params *params, Device *device);
void params_free(Params *params);

/* How one parameter is declared. `slot` must outlive the table. */
typedef struct ParamSpec {
    Tensor *slot, *table_slot;
    ParamRole role;
    ParamInit init;
    float init_std;
    bool optional;
    bool frozen; /* not trainable */
    bool idle;   /* loaded (if there) and saved with the model, but no operation uses it */
    bool joined; /* shares the slot with the parameter declared before it: their rows are stacked in
                    the order of declaration, into one matrix or vector */
    int ndim;
    int64_t shape[4];
} ParamSpec;

/* Declares a parameter under a printf-style name. */
int params_declare(Params *params, const ParamSpec *spec, Error *err, const char *name_format, ...)
    __attribute__((format(printf, 4, 5)));

/* The standard deviation for fresh matrices [rows, columns] and embeddings: that of BERT and XLM-R,
 * 0.02, at their width of 768 columns, and in proportion to 1 / sqrt(columns) at others, so that
 * matmuls are as large in a model of any width. (0.02 throughout makes narrow models learn half as
 * fast: NOTES.md.) */
float params_init_std(int64_t columns);

/* Multiplies the deviation with which a declared matrix will be initialised, found by its slot. */
void params_scale_init(Params *params, const Tensor *slot, float factor);

/* The two pairs that models are made of, under "<stem>weight" and "<stem>bias": a linear layer's
 * matrix [rows, columns] (INIT_NORMAL) and vector [rows] (zero), and a LayerNorm's two vectors
 * [width] (one, zero). `stem` is printf-style and brings its own dot. */
int params_declare_linear(Params *params, Tensor *w, Tensor *b, int64_t rows, int64_t columns,
                          bool idle, Error *err, const char *stem_format, ...)
    __attribute__((format(printf, 8, 9)));
int params_declare_norm(Params *params, Tensor *w, Tensor *b, int64_t width, bool idle, Error *err,
                        const char *stem_format, ...) __attribute__((format(printf, 7, 8)));

/* Marks the matrices declared from number `first` (params->count before they were) on as hidden
 * ones: those within transformer blocks and projectors, from activations to activations, which Muon
 * may update (optimizer.h). Word and position tables, vocabularies, patch embeddings, classes,
 * LoRA's thin matrices and all vectors are not: what is not marked is AdamW's. */
void params_mark_hidden(Params *params, int first);

/* NULL if there is none of this name. */
Param *params_find(Params *params, const char *name);

/* Gives a parameter its values: `value` must have the shape declared (a trailing or leading 1 more
 * or less is allowed) and a float type, and stay valid until params_prepare, or as long as the
 * table for PARAM_TABLE and PARAM_VOCABULARY. */
int params_set(Param *param, Tensor value, Error *err);

/* Allocates one block for all parameters that have no values yet, each aligned to 256 bytes except
 * that members of a joined group follow each other directly, and zeroes it. */
int params_allocate(Params *params, Dtype dtype, Error *err);

/* Fills what params_allocate made with the declared initialisation; each value is a pure function
 * of the seed, the parameter's name and its place. */
void params_initialise(Params *params, uint64_t seed);

/* Packs, converts, fills the slots. `release` (may be NULL) is told which rows of a parameter's
 * given values are no longer needed, so that their pages in a file can be let go. */
typedef void (*ParamsRelease)(void *user, const Param *param, int64_t first, int64_t rows);
int params_prepare(Params *params, Dtype compute, ParamsRelease release, void *user, Error *err);

/* ---- Training. ----
 *
 * In place of params_prepare. All trainable parameters move into one flat f32 table of masters,
 * each aligned to 256 bytes (64 values) but for the members of a joined group, which adjoin; their
 * gradients, the optimiser's moments and, in bf16, the copy that operations read have the same
 * layout, so that an update, a norm, an all-reduce is one pass over memory. Weights are plain rows,
 * not packed: forward and both backward matmuls read the same values, and the slots carry `grad`.
 * Frozen parameters take no part in the flat tables and have no gradient: they stay where they are
 * if of the right type there, else they are copied once, plain. (A part through which no gradient
 * has to flow is better served by params_prepare.) Vectors are f32, as always. */

/* Marks all parameters frozen, or trainable again (idle ones never are); before params_train. */
void params_freeze(Params *params, bool frozen);

/* A group of joined parameters must be frozen or trainable as a whole. Afterwards the given values
 * of a trainable parameter are not looked at any more: its value.data is NULL (the masters may be
 * on a GPU; params_fetch reads them), value.dtype still says in which type they came, and an
 * optional one without values has some now, zeros. The block of params_allocate is freed if nothing
 * else lies in it. Values of frozen and idle parameters must stay where they are. Once for each
 * table; after a failure only params_free is left. */
int params_train(Params *params, Dtype compute, Error *err);

/* Lays out what params_train would, but takes no memory: `flat`, `compute`, the offsets, and slots
 * with types and shapes whose data is NULL. A trainable one's `grad` is not NULL, and must not be
 * touched. For questions about a pass's memory (stack_tape_bytes and the like) before any is taken;
 * afterwards only params_free is left. Errors are those of params_train. */
int params_train_describe(Params *params, Dtype compute, Error *err);

/* A parameter's present values, in `dtype`, to host memory: the masters of a trainable one, what
 * was given of any other, zeros where nothing was. The second form takes values [first, first +
 * count) of them only. */
int params_fetch(const Params *params, const Param *param, void *host, Dtype dtype, Error *err);
int params_fetch_part(const Params *params, const Param *param, int64_t first, int64_t count,
                      void *host, Dtype dtype, Error *err);

/* Other values for a parameter that params_train has laid out: all of them, from host memory, to
 * the masters and to the working copy. */
int params_store(Params *params, const Param *param, const float *host, Error *err);

int64_t params_trainable_count(const Params *params); /* numbers in trainable parameters */
/* What params_train will take on this device, once the values are given: masters, working copy,
 * gradients, frozen vectors and copies. */
size_t params_training_bytes(const Params *params, Dtype compute);

/* The name of the first parameter without values that is not optional; NULL if all have theirs. */
const char *params_missing(const Params *params);

int64_t params_count(const Params *params);       /* numbers, all parameters */
size_t params_stored_bytes(const Params *params); /* as given */
/* What params_prepare will take in memory of its own, on this device. */
size_t params_prepared_bytes(const Params *params, Dtype compute);

#endif
