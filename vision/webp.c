/* webp.c - WebP by libwebp: an image, or the first frame of an animation on its canvas. libwebp
 * decodes all pixels of a frame at once. */
#ifdef EASYFIRST_WEBP
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "vision/formats.h"

typedef struct WebpDecoder {
    Encoded *file;
    WebPDemuxer *demuxer;
    WebPIterator frame;
    int width, height; /* of the canvas */
    int channels;      /* 3, or 4 with transparency */
    uint8_t *pixels;   /* [frame.height, frame.width, channels] */
    uint8_t *row;      /* [width, 3] */
    Error *err;
} WebpDecoder;

static int truncated(const WebpDecoder *d) {
    return error_set(d->err,
                     "%s: truncated WebP: the file ends after %zu bytes, before the image does; "
                     "copy or download it again",
                     d->file->name, d->file->size);
}

static int broken(const WebpDecoder *d, const char *what) {
    return error_set(d->err, "%s: broken WebP: %s; copy or download it again", d->file->name, what);
}

/* Parses the chunks, and reads the size from them before any pixel. */
static int open_chunks(WebpDecoder *d) {
    const WebPData data = {d->file->bytes, d->file->size};
    WebPDemuxState state;
    d->demuxer = WebPDemuxPartial(&data, &state);
    if (state == WEBP_DEMUX_PARSE_ERROR || (!d->demuxer && state == WEBP_DEMUX_DONE))
        return broken(d, "its chunks are not as the format demands");
    if (!d->demuxer || state != WEBP_DEMUX_DONE) return truncated(d);
    int64_t width = WebPDemuxGetI(d->demuxer, WEBP_FF_CANVAS_WIDTH);
    int64_t height = WebPDemuxGetI(d->demuxer, WEBP_FF_CANVAS_HEIGHT);
    TRY(encoded_check_size(d->file, "WebP", width, height, 1, d->err));
    d->width = (int)width, d->height = (int)height;
    d->channels = WebPDemuxGetI(d->demuxer, WEBP_FF_FORMAT_FLAGS) & ALPHA_FLAG ? 4 : 3;
    if (!WebPDemuxGetFrame(d->demuxer, 1, &d->frame)) return broken(d, "it holds no image");
    if (!d->frame.complete) return truncated(d);
    return 0;
}

static int decode_frame(WebpDecoder *d) {
    size_t row = (size_t)d->frame.width * (size_t)d->channels;
    size_t size = row * (size_t)d->frame.height;
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) return broken(d, "libwebp is of another version");
    d->pixels = malloc(size);
    d->row = malloc((size_t)d->width * 3);
    if (!d->pixels || !d->row)
        return error_set(d->err, "%s: not enough memory for %dx%d pixels", d->file->name,
                         d->frame.width, d->frame.height);
    config.output.colorspace = d->channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA = (WebPRGBABuffer){d->pixels, (int)row, size};
    const WebPData *coded = &d->frame.fragment;
    VP8StatusCode status = WebPDecode(coded->bytes, coded->size, &config);
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OK) return 0;
    if (status == VP8_STATUS_NOT_ENOUGH_DATA) return truncated(d);
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return error_set(d->err, "%s: not enough memory to decode %dx%d pixels", d->file->name,
                         d->frame.width, d->frame.height);
    return broken(d, "its pixels cannot be decoded");
}

/* Around the first frame of an animation the canvas is transparent, thus white; it is black where
 * the file has no transparency, as in Pillow. */
static int put_rows(WebpDecoder *d) {
    TRY(rows_start(d->file, d->width, d->height, d->err));
    memset(d->row, d->channels == 4 ? 255 : 0, (size_t)d->width * 3);
    int top = d->frame.y_offset, bottom = top + d->frame.height;
    for (int y = 0; y < d->height; y++)
        if (y < top || y >= bottom) rows_put(d->file, y, d->row);
    uint8_t *to = d->row + (size_t)d->frame.x_offset * 3;
    size_t width = (size_t)d->frame.width, each = width * (size_t)d->channels;
    for (int y = top; y < bottom; y++) {
        const uint8_t *from = d->pixels + (size_t)(y - top) * each;
        if (d->channels == 4)
            rgba_over_white(to, from, (int)width);
        else
            memcpy(to, from, each);
        rows_put(d->file, y, d->row);
    }
    return 0;
}

int webp_decode(Encoded *file, Error *err) {
    WebpDecoder d = {.file = file, .err = err};
    int result = open_chunks(&d);
    if (result == 0) result = decode_frame(&d);
    if (result == 0) result = put_rows(&d);
    WebPDemuxReleaseIterator(&d.frame);
    WebPDemuxDelete(d.demuxer);
    free(d.pixels);
    free(d.row);
    return result;
}

bool webp_state(char *out, size_t size) {
    int v = WebPGetDecoderVersion();
    snprintf(out, size, "libwebp %d.%d.%d", v >> 16, v >> 8 & 255, v & 255);
    return true;
}
#endif
