/* easyfirst_private.h - what stands behind the types of easyfirst.h, for the two files that
 * implement it.
 */
#ifndef EASYFIRST_PROJECTOR_EASYFIRST_PRIVATE_H
#define EASYFIRST_PROJECTOR_EASYFIRST_PRIVATE_H

#include <pthread.h>

#include "projector/easyfirst.h"
#include "projector/model.h"

/* Image tokens on the device, and whose they are. */
typedef struct ImageBatch {
    Tensor tokens; /* [count * image_rows, D] */
    ReplayKey *keys;
    int count;
} ImageBatch;

struct ef_model {
    pthread_mutex_t mutex; /* held while something is computed */
    Device *device;
    Model model;
    char *folder;      /* as messages call it */
    bool own_language; /* the folder's: its list of languages holds */
    ImageBatch images; /* of the last call; under the mutex */
};

struct ef_image {
    Image image;
    ReplayKey key; /* of its size and pixels */
};

struct ef_cancellation {
    int cancelled; /* atomic */
};

/* Error and ef_error are the same to the bit. */
static inline Error *error_of(ef_error *err) {
    _Static_assert(sizeof(ef_error) == sizeof(Error), "one line of text each");
    return (Error *)(void *)err;
}

/* Copies a caller's structure of options, whose first member is its size, over the defaults: the
 * caller may know fewer members than this library, but not more. */
int options_take(void *options, size_t size, const void *given, const char *maker, Error *err);

/* Makes the model's images those of `keys` unless it has them all already; *blocks[i] is where the
 * tokens of image i are then. The mutex is held. */
int model_see(ef_model *model, const ef_image *const *images, int count, int *blocks, Error *err);

#endif
