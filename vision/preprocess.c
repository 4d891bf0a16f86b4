#include "vision/preprocess.h"

#include <math.h>
#include <stdlib.h>

#include "vision/formats.h"
#include "vision/resize.h"

PreprocessConfig preprocess_clip_default(void) {
    return (PreprocessConfig){
        .size = 224,
        .mean = {0.48145466f, 0.4578275f, 0.40821073f},
        .std = {0.26862954f, 0.26130258f, 0.27577711f},
    };
}

static int config_check(const PreprocessConfig *config, Error *err) {
    enum { MAX_SIZE = 1 << 14 };
    if (config->size < 1 || config->size > MAX_SIZE)
        return error_set(err, "image size %d in the preprocessing settings; expected 1 to %d",
                         config->size, MAX_SIZE);
    for (int c = 0; c < 3; c++)
        if (!isfinite(config->mean[c]) || !isfinite(config->std[c]) || !(config->std[c] > 0))
            return error_set(err,
                             "mean %g and std %g of channel %d in the preprocessing settings; "
                             "expected finite numbers and a std above 0",
                             config->mean[c], config->std[c], c);
    return 0;
}

/* The size of an image whose shortest edge is `size`, and the corner of its center square. */
typedef struct Resized {
    int width, height, left, top;
} Resized;

static int resized_size(Resized *r, int width, int height, int size, Error *err) {
    /* The reference divides in double and truncates. Integer division gives the same: a non-integer
     * quotient n / d is at least 1 / d away from the next integer, more than a double's rounding
     * error for n below 2^53. */
    int64_t wide = size, high = size;
    if (width > height)
        wide = (int64_t)size * width / height;
    else
        high = (int64_t)size * height / width;
    if (wide > INT32_MAX || high > INT32_MAX)
        return error_set(err, "an image of %dx%d pixels is too narrow to resize to %d", width,
                         height, size);
    *r = (Resized){(int)wide, (int)high, (int)(wide - size) / 2, (int)(high - size) / 2};
    return 0;
}

/* The resampler from an image of this size to the square; NULL on failure. */
static Resampler *square_new(int width, int height, const PreprocessConfig *config, Error *err) {
    if (config_check(config, err) != 0) return NULL;
    if (width < 1 || height < 1) {
        error_set(err, "cannot preprocess an empty image");
        return NULL;
    }
    const int size = config->size;
    if (config->pad && width != height) {
        int side = width > height ? width : height;
        Canvas square = {side, side, (side - width) / 2, (side - height) / 2, {0}};
        for (int c = 0; c < 3; c++) {
            int level = (int)(255.0 * config->mean[c]); /* truncated, not rounded, as in LLaVA */
            square.colour[c] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
        }
        return resampler_new(&square, width, height, size, size, 0, 0, size, size, err);
    }
    const Canvas whole = {.width = width, .height = height};
    Resized r;
    if (resized_size(&r, width, height, size, err) != 0) return NULL;
    return resampler_new(&whole, width, height, r.width, r.height, r.left, r.top, size, size, err);
}

int preprocess_crop(Image *out, const Image *in, const PreprocessConfig *config, Error *err) {
    *out = (Image){0};
    Resampler *r = square_new(in->pixels ? in->width : 0, in->height, config, err);
    if (!r) return -1;
    for (int y = 0; y < in->height; y++)
        resampler_row(r, y, in->pixels + (int64_t)y * in->width * 3);
    resampler_finish(r, out);
    resampler_free(r);
    return 0;
}

/* An image that is resampled to a square while it is read. */
typedef struct Reading {
    const PreprocessConfig *config;
    Resampler *resampler;
    int width, height;
} Reading;

static int reading_start(void *context, int width, int height, bool by_columns, Error *err) {
    Reading *r = context;
    r->width = width, r->height = height;
    r->resampler = square_new(width, height, r->config, err);
    if (!r->resampler) return -1;
    return by_columns ? resampler_use_columns(r->resampler, err) : 0;
}

static void reading_row(void *context, int y, const uint8_t *rgb) {
    resampler_row(((Reading *)context)->resampler, y, rgb);
}

static void reading_column(void *context, int x, const uint8_t *rgb) {
    resampler_column(((Reading *)context)->resampler, x, rgb);
}

int preprocess_read(Image *out, int *width, int *height, const char *path,
                    const PreprocessConfig *config, const ImageOptions *options, Error *err) {
    *out = (Image){0};
    TRY(config_check(config, err));
    Reading reading = {.config = config};
    const ImageSink sink = {reading_start, reading_row, reading_column, &reading};
    int result = image_read_into(&sink, path, options, err);
    if (result == 0) {
        resampler_finish(reading.resampler, out);
        if (width) *width = reading.width;
        if (height) *height = reading.height;
    }
    resampler_free(reading.resampler);
    return result;
}

int preprocess_map(PreprocessMap *map, int width, int height, const PreprocessConfig *config,
                   Error *err) {
    *map = (PreprocessMap){0};
    TRY(config_check(config, err));
    if (width < 1 || height < 1)
        return error_set(err, "cannot preprocess an image of %dx%d pixels", width, height);
    if (config->pad && width != height) {
        int side = width > height ? width : height;
        double scale = (double)side / config->size;
        *map = (PreprocessMap){-(side - width) / 2, -(side - height) / 2, scale, scale};
        return 0;
    }
    Resized r;
    TRY(resized_size(&r, width, height, config->size, err));
    double x = (double)width / r.width, y = (double)height / r.height;
    *map = (PreprocessMap){r.left * x, r.top * y, x, y};
    return 0;
}

int preprocess_image(float *out, const Image *in, const PreprocessConfig *config, Error *err) {
    Image crop;
    TRY(preprocess_crop(&crop, in, config, err));
    size_t plane = (size_t)config->size * (size_t)config->size;
    for (size_t c = 0; c < 3; c++) {
        /* There are only 256 levels. The factor 1 / 255 in double and one rounding to float before
         * the mean is subtracted: the reference's steps, so that the values are equal. */
        float level[256];
        for (int v = 0; v < 256; v++)
            level[v] = ((float)(v * (1.0 / 255)) - config->mean[c]) / config->std[c];
        for (size_t i = 0; i < plane; i++) out[c * plane + i] = level[crop.pixels[i * 3 + c]];
    }
    image_free(&crop);
    return 0;
}
