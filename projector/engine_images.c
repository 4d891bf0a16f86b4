#include "projector/engine.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_IMAGES = 8, MOST_IMAGES = 4096 };

static size_t image_bytes(const ImageCache *c) {
    return (size_t)c->rows * (size_t)c->tokens.shape[1] * sizeof(float);
}

int images_open(ImageCache *c, const Multimodal *model, size_t bytes, Error *err) {
    *c = (ImageCache){.model = model, .tokens = TENSOR_NONE};
    if (!model->tower || !model->projector) return 0;
    c->rows = multimodal_image_rows(model);
    c->tokens = tensor_2d(NULL, DTYPE_F32, 0, model->projector->out);
    size_t fit = bytes / image_bytes(c);
    c->count = fit < LEAST_IMAGES ? LEAST_IMAGES : fit > MOST_IMAGES ? MOST_IMAGES : (int)fit;
    c->tokens.shape[0] = (int64_t)c->count * c->rows;
    c->entries = calloc((size_t)c->count, sizeof *c->entries);
    if (!c->entries) return error_set(err, "out of memory for %d images", c->count);
    return device_alloc(model->device, &c->tokens.data, tensor_bytes(c->tokens), err);
}

void images_close(ImageCache *c) {
    if (c->tokens.data) device_free(c->model->device, c->tokens.data);
    free(c->entries);
    *c = (ImageCache){0};
}

/* The entry with that hash, else one that was never used, else the one that has not been for the
 * longest time. */
static int find_entry(const ImageCache *c, const uint8_t *hash) {
    int oldest = -1;
    for (int i = 0; i < c->top; i++) {
        const ImageEntry *e = &c->entries[i];
        if (e->present && memcmp(e->hash, hash, IMAGE_HASH) == 0) return i;
        if (!e->users && (oldest < 0 || e->used < c->entries[oldest].used)) oldest = i;
    }
    return c->top < c->count ? c->top : oldest;
}

int images_take(ImageCache *c, const ef_job *job, bool *changed) {
    int i = find_entry(c, job->hash);
    if (i < 0) return -1;
    ImageEntry *e = &c->entries[i];
    *changed = !e->present || memcmp(e->hash, job->hash, IMAGE_HASH) != 0;
    if (i == c->top) c->top++;
    if (*changed) {
        c->present += !e->present;
        *e = (ImageEntry){.present = true, .image = job->image};
        memcpy(e->hash, job->hash, IMAGE_HASH);
    }
    e->users++;
    e->used = ++c->clock;
    return i;
}

void images_drop(ImageCache *c, int entry) {
    if (entry < 0) return;
    ImageEntry *e = &c->entries[entry];
    if (--e->users || e->encoded) return;
    *e = (ImageEntry){0};
    c->present--;
}

static int encode_entries(ImageCache *c, const int *which, const Image *pixels, int count,
                          Error *err) {
    Tensor tokens;
    TRY(multimodal_encode(c->model, pixels, count, &tokens, err));
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = convert_forward(c->model->device,
                                 tensor_rows(c->tokens, (int64_t)which[i] * c->rows, c->rows),
                                 tensor_rows(tokens, (int64_t)i * c->rows, c->rows), err);
    if (status == 0) status = device_wait(c->model->device, err);
    device_free(c->model->device, tokens.data);
    for (int i = 0; i < count && status == 0; i++)
        c->entries[which[i]].encoded = true, c->entries[which[i]].image = NULL;
    c->encodings += status == 0 ? count : 0;
    return status;
}

int images_encode(ImageCache *c, Error *err) {
    enum { AT_ONCE = 8 };
    Image pixels[AT_ONCE];
    int which[AT_ONCE], n = 0;
    for (int i = 0; i < c->top; i++) {
        const ImageEntry *e = &c->entries[i];
        if (!e->present || e->encoded) continue;
        which[n] = i, pixels[n++] = e->image->image; /* borrowed */
        if (n < AT_ONCE) continue;
        TRY(encode_entries(c, which, pixels, n, err));
        n = 0;
    }
    return n ? encode_entries(c, which, pixels, n, err) : 0;
}

size_t images_bytes(const ImageCache *c) {
    return c->present ? (size_t)c->present * image_bytes(c) : 0;
}
