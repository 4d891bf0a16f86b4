#include "apps/serve/image_store.h"

#include <string.h>

#include <openssl/evp.h>

#include "projector/easyfirst_private.h"

void image_store_open(ImageStore *s) {
    *s = (ImageStore){0};
    pthread_mutex_init(&s->mutex, NULL);
}

static void drop_held(ImageStore *s, StoredImage *item) {
    s->bytes -= item->bytes;
    ef_image_close(item->image);
    *item = (StoredImage){0};
}

void image_store_close(ImageStore *s) {
    for (int i = 0; i < IMAGE_STORE_COUNT; i++)
        if (s->items[i].image) drop_held(s, &s->items[i]);
    pthread_mutex_destroy(&s->mutex);
}

bool image_store_digest(unsigned char digest[IMAGE_STORE_DIGEST], const char *sent) {
    unsigned size = 0;
    return EVP_Digest(sent, strlen(sent), digest, &size, EVP_sha256(), NULL) &&
           size == IMAGE_STORE_DIGEST;
}

static StoredImage *find_held(ImageStore *s, const unsigned char *digest) {
    for (int i = 0; i < IMAGE_STORE_COUNT; i++)
        if (s->items[i].image && !memcmp(s->items[i].digest, digest, IMAGE_STORE_DIGEST))
            return &s->items[i];
    return NULL;
}

ef_image *image_store_find(ImageStore *s, const unsigned char *digest) {
    pthread_mutex_lock(&s->mutex);
    StoredImage *item = find_held(s, digest);
    if (item) item->used = ++s->clock;
    ef_image *image = item ? (ef_image *)image_share(item->image) : NULL;
    pthread_mutex_unlock(&s->mutex);
    return image;
}

/* A place: an empty one, else the one that was not asked for the longest. */
static StoredImage *oldest_held(ImageStore *s) {
    StoredImage *oldest = &s->items[0];
    for (int i = 1; i < IMAGE_STORE_COUNT; i++)
        if (s->items[i].used < oldest->used) oldest = &s->items[i];
    return oldest;
}

static StoredImage *oldest_image_held(ImageStore *s) {
    StoredImage *oldest = NULL;
    for (int i = 0; i < IMAGE_STORE_COUNT; i++)
        if (s->items[i].image && (!oldest || s->items[i].used < oldest->used))
            oldest = &s->items[i];
    return oldest;
}

void image_store_add(ImageStore *s, const unsigned char *digest, const ef_image *image) {
    const Image *pixels = &image->image;
    const size_t bytes = (size_t)pixels->width * (size_t)pixels->height * 3;
    if (bytes > IMAGE_STORE_BYTES) return;
    pthread_mutex_lock(&s->mutex);
    if (!find_held(s, digest)) {
        while (s->bytes + bytes > IMAGE_STORE_BYTES) drop_held(s, oldest_image_held(s));
        StoredImage *item = oldest_held(s);
        if (item->image) drop_held(s, item);
        *item = (StoredImage){
            .image = (ef_image *)image_share(image), .bytes = bytes, .used = ++s->clock};
        memcpy(item->digest, digest, IMAGE_STORE_DIGEST);
        s->bytes += bytes;
    }
    pthread_mutex_unlock(&s->mutex);
}
