/* params.h - the table of a model's parameters.
 *
 * A model declares each parameter once: name (as in the public Hugging Face checkpoints), shape,
 * role, initialization, trainable or not, and the slot, a Tensor in the model's struct through
 * which it reads it. The same table then loads, allocates, initializes, saves and counts the
 * parameters and predicts memory for `info`; gradients and optimizer state have the same layout.
 *
 * The order of calls: declare everything; give every parameter its values, either from a checkpoint
 * (params_set, memory-mapped, used in the file's own type) or by allocation (params_allocate and
 * params_initialise); params_prepare, which converts the values to the form that operations read
 * (matrices packed for the device's matmul, vectors as f32) and fills the slots.
 */
#ifndef EASYFIRST_KERNELS_PARAMS_H
#define EASYFIRST_KERNELS_PARAMS_H

#include "kernels/device.h"
#include "kernels/error.h"
#include "kernels/ops.h"
#include "kernels/parts.h"
#include "kernels/tensor.h"

typedef enum ParamRole {
    PARAM_MATRIX,     /* [N, K], the weight of a linear layer: packed; the slot has `packed` */
    PARAM_VECTOR,     /* [N], a bias or a LayerNorm's weight: f32 */
    PARAM_TABLE,      /* [R, D], an embedding (gather): keeps its type, stays in the mapped file */
    PARAM_VOCABULARY, /* [V, D], embedding and output matrix: both forms, two slots */
    PARAM_FOLDED, /* never trained, has no slot: the model itself makes what it needs of the values,
                     when they are prepared (Params.fold), from batch norms, say */
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
    bool idle;          /* loaded and saved but not used in computation: never prepared */
    int hidden;         /* number of hidden matrices stacked in it (params_mark_hidden) */
    Tensor value;       /* the values as set: in a memory map, or in the table's block */
    bool present;       /* has values */
    Tensor *slot;       /* where the model reads it; one slot for all members of a joined group */
    Tensor *table_slot; /* PARAM_VOCABULARY: where the table for gather goes */
    int join;           /* members of a group of joined matrices or vectors: index of the first one,
                           else -1 */
    struct Packed *packed; /* of the first of a joined group for all of it */
    int64_t offset; /* params_train: index of its first value in the flat tables; -1: frozen */
    int64_t place;  /* of its first gradient in `grad`: `offset`, unless gradients are shared out */
} Param;

/* A model's part of params_prepare, after all else; `bytes` is what it allocates on the device. */
typedef struct ParamsFold {
    int (*run)(void *model, Error *err); /* NULL: none */
    size_t (*bytes)(const void *model);
    void *model;
} ParamsFold;

struct Params;

/* The flat tables of several processes, ranks, that train one model (comm/share.h): which values of
 * them this rank updates, and what it has of them (ZeRO; Rajbhandari et al., 2020). Set before
 * params_train. */
typedef struct ParamsShare {
    int rank, ranks; /* all 0: one process */
    int level;       /* 0: every rank has and updates everything; 1: its own values' moments, and
                        masters where there is a working copy; 2: their gradients, too; 3: and the
                        weights of blocks, gathered for a block at a time */
    bool whole;      /* hidden matrices (Muon's) are not divided */
    int unit; /* parts of a matrix begin at multiples of so many of its values; 0: anywhere */
    /* From level 2 on: the blocks of a stack (struct Block), into which slots point. Their gradients
     * are reduced block by block and share the memory of the largest one's; at level 3 their weights
     * do, too. */
    const void *blocks;
    size_t block_bytes;
    int block_count;
    /* At level 3: slots of embeddings and vocabularies, whose weights and gradients come in parts
     * (parts.h), each treated like a block's. */
    const Tensor *tables[2];
    /* Blocks and parts that follow each other have different memory, twice that of the largest, so
     * that one can be exchanged while the other is computed. */
    bool overlap;
    /* Copies values of all ranks to the host; kind 0: masters, else a MomentPiece (moments.h). Of
     * this rank's own alone without it. */
    int (*fetch)(void *user, const struct Params *params, int kind, int64_t first, int64_t count,
                 void *host, Error *err);
    void *user;
} ParamsShare;

/* From level 2 on: values [begin, end) of the flat tables have gradients at `place` of `grad`, and at
 * level 3 weights at `place` of `working`. */
typedef struct ParamsRun {
    int64_t begin, end, place;
    int block;   /* of the stack, or from block_count on a part of a table; -1: gradients of none,
                    added up until the end of the step, where this rank's own sums stay */
    int64_t own; /* of a block: of the first own value in own_grad and own_working */
} ParamsRun;

/* At level 3: a parameter that comes in parts, the runs of the blocks `first` and following. */
typedef struct ParamsTable {
    TensorParts parts; /* `enter` and `user` are the ranks' */
    int item, first;
} ParamsTable;

typedef struct Params {
    Device *device;
    ParamsFold fold; /* for PARAM_FOLDED; set by the model when it has declared them */
    Param *items;
    int count, capacity;
    void *block; /* params_allocate: all values */
    size_t block_size;
    void *vectors; /* params_prepare: all vectors, f32, on the device */
    Dtype compute; /* set by params_prepare and params_train */
    /* params_train, all on the device: */
    int64_t flat;  /* values in each of the flat tables, alignment gaps included */
    float *master; /* [flat], the trainable parameters in f32 */
    float *grad;   /* [flat], their gradients; zero at first, gaps always zero */
    void *working; /* [flat] in the compute type, what operations read; NULL in f32: the masters. At
                      ZeRO's level 3 [grad_values], in f32, too. */
    void *own_working; /* level 3, not in f32: [own_values], this rank's part of the blocks' */
    /* Set before params_train: in bf16 there are no masters. Matrices and tables are in `working`
     * alone, which updates round stochastically (adamw_step), vectors in own_vectors. */
    bool masterless;
    void *plain; /* copies of frozen matrices and tables that could not be used in place; after
                      params_prepare, the tables' copies on a GPU */
    ParamsShare share;
    int64_t own_begin, own_end; /* the values that this process updates: all, if it is alone */
    float *own_vectors; /* [vectors], where masters are shared out, or there are none: the trainable
                           vectors, whole */
    int64_t vector_values;
    ParamsRun *runs; /* from level 2 on, in the order of the flat tables; else NULL */
    int run_count;
    int64_t grad_values;   /* in `grad`: `flat`, unless gradients are shared out */
    int64_t own_values;    /* from level 2 on: of the blocks' values, how many are own */
    float *own_grad;       /* from level 2 on: [own_values], their sums */
    ParamsTable tables[2]; /* level 3 */
    int table_count;
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
    bool idle;   /* loaded (if present) and saved with the model, but no operation uses it */
    bool joined; /* shares the slot with the parameter declared before it: their rows are stacked in
                    the order of declaration, into one matrix or vector */
    int ndim;
    int64_t shape[4];
} ParamSpec;

/* Declares a parameter under a printf-style name. */
int params_declare(Params *params, const ParamSpec *spec, Error *err, const char *name_format, ...)
    __attribute__((format(printf, 4, 5)));

/* The standard deviation for fresh matrices [rows, columns] and embeddings: that of BERT and XLM-R,
 * 0.02, at their width of 768 columns, and proportional to 1 / sqrt(columns) at others, so that the
 * results of matmuls have the same scale at any width. (With 0.02 throughout, narrow models learn
 * half as fast: NOTES.md.) */
float params_init_std(int64_t columns);

/* Multiplies the initialization's standard deviation of a declared matrix, found by its slot. */
void params_scale_init(Params *params, const Tensor *slot, float factor);

/* Weight and bias of the two usual layers, under "<stem>weight" and "<stem>bias": a linear layer's
 * matrix [rows, columns] (INIT_NORMAL) and vector [rows] (zero), and a LayerNorm's two vectors
 * [width] (one, zero). `b` NULL: without the second. `stem` is printf-style and ends with its own
 * dot. */
int params_declare_linear(Params *params, Tensor *w, Tensor *b, int64_t rows, int64_t columns,
                          bool idle, Error *err, const char *stem_format, ...)
    __attribute__((format(printf, 8, 9)));
int params_declare_norm(Params *params, Tensor *w, Tensor *b, int64_t width, bool idle, Error *err,
                        const char *stem_format, ...) __attribute__((format(printf, 7, 8)));

/* Marks the matrices declared from index `first` (params->count before they were declared) on as
 * hidden: those from activations to activations, within transformer blocks and projectors, which
 * Muon may update (optimizer.h). Token and position embeddings, vocabularies, patch embeddings,
 * class tokens, LoRA matrices and all vectors are not hidden: AdamW updates what is not marked. */
void params_mark_hidden(Params *params, int first);

/* NULL if there is no parameter of this name. */
Param *params_find(Params *params, const char *name);

/* Gives a parameter its values: `value` must have the shape declared (up to a leading or trailing
 * dimension of 1) and a float type, or be i8 with scales (all but vectors), and stay valid until params_prepare, or, for PARAM_TABLE and
 * PARAM_VOCABULARY, as long as the table. */
int params_set(Param *param, Tensor value, Error *err);

/* Allocates one block for all parameters that have no values yet, each aligned to 256 bytes except
 * that members of a joined group follow each other directly, and zeroes it. */
int params_allocate(Params *params, Dtype dtype, Error *err);

/* Initializes the parameters of params_allocate as declared; each value is a pure function of the
 * seed, the parameter's name and the value's index. */
void params_initialise(Params *params, uint64_t seed);

/* Packs, converts, fills the slots. `release` (may be NULL) is called with the rows of a
 * parameter's values that are no longer needed, so that the file's pages can be released. */
typedef void (*ParamsRelease)(void *user, const Param *param, int64_t first, int64_t rows);
int params_prepare(Params *params, Dtype compute, ParamsRelease release, void *user, Error *err);

/* ---- Training. ----
 *
 * Instead of params_prepare. All trainable parameters move into one flat f32 table of master
 * weights, each aligned to 256 bytes (64 values), except that the members of a joined group are
 * contiguous; their gradients, the optimizer's moments and, in bf16, the working copy that
 * operations read have the same layout, so that an update, a norm or an all-reduce is one pass over
 * memory. Weights are plain rows, not packed: forward and both backward matmuls read the same
 * values, and the slots carry `grad`. Frozen parameters are not in the flat tables and have no
 * gradient: they are used in place if they have the right type, else copied once, unpacked. (Use
 * params_prepare for a part of the model that needs no backward pass.) Vectors are f32, as
 * always. */

/* Marks all parameters frozen, or trainable again (idle ones never are); before params_train. */
void params_freeze(Params *params, bool frozen);

/* A group of joined parameters must be frozen or trainable as a whole. Afterwards the values set
 * for a trainable parameter are not used any more: its value.data is NULL (the masters may be on a
 * GPU; params_fetch reads them), value.dtype is still their original type, and an optional one
 * without values is now zero. The block of params_allocate is freed if it holds nothing else.
 * Values of frozen and idle parameters must stay valid. Call once for each table; after a failure
 * only params_free may be called. */
int params_train(Params *params, Dtype compute, Error *err);

/* The layout of params_train without allocating: sets `flat`, `compute`, the offsets, and slots
 * with types and shapes whose data is NULL. The `grad` of a trainable one is not NULL, and must not
 * be dereferenced. For predicting the memory of training (stack_tape_bytes and the like);
 * afterwards only params_free may be called. Errors are those of params_train. */
int params_train_describe(Params *params, Dtype compute, Error *err);

/* Copies a parameter's current values, as `dtype`, to host memory: the masters of a trainable one,
 * the values set for any other, zeros where none were. The second form copies values [first, first
 * + count) only. */
int params_fetch(const Params *params, const Param *param, void *host, Dtype dtype, Error *err);
int params_fetch_part(const Params *params, const Param *param, int64_t first, int64_t count,
                      void *host, Dtype dtype, Error *err);

/* Replaces all values of a parameter that params_train has laid out, from host memory, in the
 * masters and the working copy. */
int params_store(Params *params, const Param *param, const float *host, Error *err);

/* ---- Several processes. ---- */

static inline bool params_divided(const Params *params) {
    return params->share.ranks > 1 && params->share.level > 0;
}

/* Where the values of rank r begin; that of `ranks` is the end. After params_train. */
int64_t params_bound(const Params *params, int rank);

/* A value's address: its master, NULL if another rank has it or there is none; the sum of its
 * gradients, if it is an own value. */
float *params_master_at(const Params *params, int64_t value);

/* What an update changes of parameter `index`, own values [first, first + count) of it: masters or,
 * without them, the weights themselves. */
Tensor params_updated(const Params *params, int index, int64_t first, int64_t count);

/* Where an update writes the copy in the compute type of own values from `value` on; NULL: it makes
 * none. */
void *params_copy_at(const Params *params, int64_t value);

/* Level 3: what the ranks gather the own values from `value` on from. */
const void *params_gathered_from(const Params *params, int64_t value);

float *params_grad_at(const Params *params, int64_t value);

/* The run of a block, or of a table's part; NULL: it has none. */
const ParamsRun *params_run_of(const Params *params, int block);

/* Makes operations read a table that comes in parts from `whole`, all rows in the compute type; NULL:
 * in parts again. */
void params_table_place(const Params *params, const ParamsTable *table, void *whole);

/* Copies values [first, first + count) of a moment (kind 1 or 2), of which `own` has this rank's,
 * to the host; and the host's to `own`, as far as they are this rank's. */
int params_fetch_moment(const Params *params, Tensor own, int kind, int64_t first, int64_t count,
                        float *host, Error *err);
int params_store_moment(const Params *params, Tensor own, int64_t first, int64_t count,
                        const float *host, Error *err);

/* Where own_vectors are several ranks', after an update: copies this rank's own values of vectors to
 * own_vectors, and clears the others there, so that a sum over all ranks completes them. */
int params_own_vectors(const Params *params, Error *err);

int64_t params_trainable_count(const Params *params); /* values in trainable parameters */
/* The bytes that params_train will allocate on this device, once the values are set: masters,
 * working copy, gradients, frozen vectors and copies. */
size_t params_training_bytes(const Params *params, Dtype compute);

/* The name of the first parameter without values that is not optional; NULL if all have theirs. */
const char *params_missing(const Params *params);

int64_t params_count(const Params *params);       /* values in all parameters */
size_t params_stored_bytes(const Params *params); /* in the types as set */
/* The bytes that params_prepare will allocate on this device. */
size_t params_prepared_bytes(const Params *params, Dtype compute);

#endif
