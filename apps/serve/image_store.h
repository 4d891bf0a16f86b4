/* image_store.h - the images of the last requests as the model sees them, found by the bytes that
 * were sent: one that is asked about again is not decoded again. All functions may be called from
 * any thread.
 */
#ifndef EASYFIRST_APPS_SERVE_IMAGE_STORE_H
#define EASYFIRST_APPS_SERVE_IMAGE_STORE_H

#include <pthread.h>
#include <stdint.h>

#include "apps/cli/library.h"

enum {
    IMAGE_STORE_COUNT = 64,       /* images at most */
    IMAGE_STORE_BYTES = 16 << 20, /* of pixels */
    IMAGE_STORE_DIGEST = 32       /* SHA-256 */
};

typedef struct StoredImage {
    unsigned char digest[IMAGE_STORE_DIGEST];
    ef_image *image; /* NULL: none */
    size_t bytes;
    uint64_t used; /* when it was last asked for */
} StoredImage;

typedef struct ImageStore {
    pthread_mutex_t mutex;
    StoredImage items[IMAGE_STORE_COUNT];
    size_t bytes;
    uint64_t clock;
} ImageStore;

void image_store_open(ImageStore *store);
void image_store_close(ImageStore *store);

/* Of what was sent; false without SHA-256. */
bool image_store_digest(unsigned char digest[IMAGE_STORE_DIGEST], const char *sent);

/* The image, the caller's to close; NULL if there is none. */
ef_image *image_store_find(ImageStore *store, const unsigned char *digest);

/* Keeps an image, and drops those that were not asked for the longest. */
void image_store_add(ImageStore *store, const unsigned char *digest, const ef_image *image);

#endif
