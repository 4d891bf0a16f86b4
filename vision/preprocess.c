#include "vision/preprocess.h"

#include <math.h>
#include <stdlib.h>

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
        return error_set(err, "picture size %d in the preprocessing settings; expected 1 to %d",
                         config->size, MAX_SIZE);
    for (int c = 0; c < 3; c++)
        if (!isfinite(config->mean[c]) || !isfinite(config->std[c]) || !(config->std[c] > 0))
            return error_set(err,
                             "mean %g and std %g of channel %d in the preprocessing settings; "
                             "expected finite numbers and a std above 0",
                             config->mean[c], config->std[c], c);
    return 0;
}

int preprocess_crop(Image *out, const Image *in, const PreprocessConfig *config, Error *err) {
    *out = (Image){0};
    TRY(config_check(config, err));
    if (!in->pixels || in->width < 1 || in->height < 1)
        return error_set(err, "cannot preprocess an empty picture");
    const int size = config->size;
    if (config->pad && in->width != in->height) {
        int side = in->width > in->height ? in->width : in->height;
        Canvas square = {side, side, (side - in->width) / 2, (side - in->height) / 2, {0}};
        for (int c = 0; c < 3; c++) {
            int level = (int)(255.0 * config->mean[c]); /* cut off, not rounded, as LLaVA does */
            square.colour[c] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
        }
        return image_resize_on_canvas(out, in, &square, size, size, 0, 0, size, size, err);
    }
    /* The reference divides in double and cuts off. Dividing integers gives the same: a quotient
     * n / d that is no integer is at least 1 / d away from the next one, more than a double's
     * rounding can bridge for n below 2^53. */
    int64_t width = size, height = size;
    if (in->width > in->height)
        width = (int64_t)size * in->width / in->height;
    else
        height = (int64_t)size * in->height / in->width;
    if (width > INT32_MAX || height > INT32_MAX)
        return error_set(err, "a picture of %dx%d pixels is too narrow to resize to %d", in->width,
                         in->height, size);
    return image_resize_bicubic(out, in, (int)width, (int)height, (int)(width - size) / 2,
                                (int)(height - size) / 2, size, size, err);
}

int preprocess_image(float *out, const Image *in, const PreprocessConfig *config, Error *err) {
    Image crop;
    TRY(preprocess_crop(&crop, in, config, err));
    size_t plane = (size_t)config->size * (size_t)config->size;
    for (size_t c = 0; c < 3; c++) {
        /* There are only 256 levels. The factor 1 / 255 in double and one rounding to float before
         * the mean is taken off: the reference's steps, so that the values are equal to it. */
        float level[256];
        for (int v = 0; v < 256; v++)
            level[v] = ((float)(v * (1.0 / 255)) - config->mean[c]) / config->std[c];
        for (size_t i = 0; i < plane; i++) out[c * plane + i] = level[crop.pixels[i * 3 + c]];
    }
    image_free(&crop);
    return 0;
}
