#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/evp.h>

#include "apps/serve/api.h"
#include "projector/easyfirst_private.h"

enum { URL_SHOWN = 40 };
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Base64 to bytes, the caller's to free; NULL: it is not base64, or no memory. */
static unsigned char *base64_read(const char *text, size_t *size) {
    size_t length = strlen(text), digits = strspn(text, alphabet), pads = length - digits;
    if (!length || length > INT32_MAX || length % 4 || pads > 2 ||
        strspn(text + digits, "=") != pads)
        return NULL;
    unsigned char *bytes = malloc(length / 4 * 3 + 1);
    if (!bytes || EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)length) < 0) {
        free(bytes);
        return NULL;
    }
    *size = length / 4 * 3 - pads;
    return bytes;
}

/* What follows "data:image/...;base64,"; NULL: not such an address. */
static const char *data_of(const char *url) {
    static const char begin[] = "data:image/", end[] = ";base64";
    if (strncasecmp(url, begin, strlen(begin))) return NULL;
    const char *comma = memchr(url, ',', strnlen(url, 128));
    size_t head = comma ? (size_t)(comma - url) : 0;
    if (head < strlen(begin) + strlen(end) || strncasecmp(comma - strlen(end), end, strlen(end)))
        return NULL;
    return comma + 1;
}

/* The square that the model sees is all that is kept: what waits takes little memory, and the
 * answer is the same to the bit. */
static bool image_take(Asked *a, Image *pixels, const char *param) {
    const ef_model *model = a->backend->model;
    Error err;
    Image square;
    if (preprocess_crop(&square, pixels, &model->model.parts.preprocess, &err))
        return ASKED_WRONG(a, param, "%s", err.text);
    int status = ef_image_from_pixels(square.pixels, square.width, square.height, 0, &a->image,
                                      library_error(&err));
    image_free(&square);
    return status == 0 || ASKED_WRONG(a, param, "%s", err.text);
}

/* The image of base64 data; its pixels are kept where the request says so. */
static bool image_read_data(Asked *a, const char *data, const char *param) {
    const ImageOptions options = {.max_pixels =
                                      (int64_t)a->exchange->server->settings->megapixels * 1000000};
    Error err;
    Image pixels;
    size_t size;
    unsigned char *bytes = base64_read(data, &size);
    if (!bytes) return ASKED_WRONG(a, param, "the image's data are not base64");
    int status = image_decode(&pixels, bytes, size, "image", &options, &err);
    free(bytes);
    if (status) return ASKED_WRONG(a, param, "%s", err.text);
    bool taken = image_take(a, &pixels, param);
    if (a->keep_pixels && taken)
        a->pixels = pixels;
    else
        image_free(&pixels);
    return taken;
}

/* Clients send an image with each question about it: it is decoded once. */
static bool image_find(Asked *a, const char *data, const char *param) {
    unsigned char digest[IMAGE_STORE_DIGEST];
    if (a->keep_pixels || !image_store_digest(digest, data)) return image_read_data(a, data, param);
    a->image = image_store_find(&a->backend->images, digest);
    if (a->image) return true;
    if (!image_read_data(a, data, param)) return false;
    image_store_add(&a->backend->images, digest, a->image);
    return true;
}

bool api_image_read(Asked *a, const char *url, const char *param) {
    const char *data = data_of(url);
    if (a->image) return ASKED_WRONG(a, param, "there is more than one image: send one");
    if (!ef_model_has_vision(a->backend->model))
        return ASKED_WRONG(a, param, "this model cannot be asked about images");
    if (!data)
        return ASKED_WRONG(a, param,
                           "an image is a data URI, as data:image/jpeg;base64,...; nothing is "
                           "fetched from \"%.*s\"",
                           URL_SHOWN, url);
    return image_find(a, data, param);
}
