/* pickle.h - reads the part of Python's pickle format that a state dict needs.
 *
 * A pickle is a program for a small stack machine whose GLOBAL, REDUCE and BUILD instructions make
 * Python call any function by name. Here the names are a fixed table (in pickle.c), nothing is
 * called, and what comes out is a graph of plain objects for the caller to read: a tensor stays the
 * argument list it would be rebuilt from.
 *
 * Hostile input ends in an error: objects, stack and memo have limits, objects are shared by
 * reference and never copied (no "billion laughs"), and nothing here recurses. A graph may contain
 * cycles, though, so a walk must count its steps.
 */
#ifndef EASYFIRST_DATA_CHECKPOINTS_PICKLE_H
#define EASYFIRST_DATA_CHECKPOINTS_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"
#include "kernels/tensor.h"

typedef uint32_t PickleRef; /* an object, as its index in Pickle.objects */

typedef enum PickleKind {
    PICKLE_OTHER, /* None, a float, bytes, an integer of more than 64 bits, ...: not needed */
    PICKLE_INT,   /* an integer or a bool */
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT, /* an ordered dict too */
    PICKLE_GLOBAL,
    PICKLE_STORAGE, /* items: "storage", its type (a global), key, location, count of elements */
    PICKLE_TENSOR,  /* items: storage, offset, shape, strides, ..., as rebuilt by `made_by` */
} PickleKind;

typedef enum GlobalKind {
    GLOBAL_DICT,
    GLOBAL_TENSOR,       /* rebuilds a tensor; its type is the storage's */
    GLOBAL_TYPED_TENSOR, /* the same with the type as argument 6 */
    GLOBAL_PARAMETER,    /* a tensor (argument 0) with training flags */
    GLOBAL_SHAPE,        /* a tuple (argument 0) */
    GLOBAL_OTHER,        /* a call that is ignored */
    GLOBAL_STORAGE,      /* the type of a storage, with dtype and size */
    GLOBAL_DTYPE,        /* the type of a tensor, with dtype and size */
} GlobalKind;

typedef struct PickleGlobal {
    const char *module, *name;
    GlobalKind kind;
    Dtype dtype; /* DTYPE_NONE: not computed with */
    size_t size; /* bytes of one element */
} PickleGlobal;

typedef struct PickleObject {
    PickleKind kind;
    uint32_t count;    /* of items (a dict: keys and values by turns), or bytes of text */
    uint32_t capacity; /* of items; 0: they belong to another object or there are none */
    union {
        int64_t integer;
        const char *text; /* in the pickle, not terminated, any bytes */
        PickleRef *items;
        const PickleGlobal *global;
    };
    const PickleGlobal *made_by; /* of a tensor */
} PickleObject;

typedef struct Pickle {
    PickleObject *objects;
    size_t count, capacity;
    PickleRef top; /* the pickled object */
} Pickle;

/* Reads `size` bytes, which must outlive the Pickle. `name` is the file, for messages. On failure
 * *pickle is empty. */
int pickle_read(Pickle *pickle, const unsigned char *bytes, size_t size, const char *name,
                Error *err);

/* The same for a pickle followed by other data: *used is its size. */
int pickle_read_first(Pickle *pickle, const unsigned char *bytes, size_t size, size_t *used,
                      const char *name, Error *err);
void pickle_free(Pickle *pickle);

static inline const PickleObject *pickle_object(const Pickle *pickle, PickleRef ref) {
    return &pickle->objects[ref];
}

#endif
