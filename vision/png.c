/* png.c - PNG of every colour type and depth, by libpng, blended over white where transparent. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vision/formats.h"

/* Everything that is alive while libpng runs. It belongs to the function above the one that calls
 * setjmp, so that after a longjmp no local variable of the latter is looked at. */
typedef struct PngDecoder {
    const Encoded *file;
    size_t at; /* bytes handed to libpng so far */
    png_structp png;
    png_infop info;
    uint8_t *pixels;
    int width, height, channels; /* channels: 3 or 4 */
    int orientation;
    bool truncated; /* libpng asked for bytes beyond the end */
    bool complete;  /* all pixels are there */
    bool refused;   /* *err is already written */
    Error *err;
    char message[160]; /* libpng's own words */
    jmp_buf escape;
} PngDecoder;

static void on_error(png_structp png, png_const_charp message) {
    PngDecoder *d = png_get_error_ptr(png);
    snprintf(d->message, sizeof d->message, "%s", message);
    longjmp(d->escape, 1);
}

/* libpng warns of oddities that leave the pixels as they are. */
static void on_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

static void on_read(png_structp png, png_bytep to, size_t count) {
    PngDecoder *d = png_get_io_ptr(png);
    if (count > d->file->size - d->at) {
        d->truncated = true;
        png_error(png, "truncated");
    }
    memcpy(to, d->file->bytes + d->at, count);
    d->at += count;
}

/* Chunks that change no pixel here are passed over unread: colour profiles and texts can be large
 * or malformed, and no gamma is applied because Pillow applies none. Of the others, tRNS and eXIf
 * matter. Names of 4 letters, each with the terminator that libpng wants. */
static void skip_needless_chunks(png_structp png) {
    static const png_byte names[] = "bKGD\0cHRM\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0"
                                    "sBIT\0sCAL\0sPLT\0sRGB\0tEXt\0tIME\0zTXt";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, names, (int)(sizeof names / 5));
}

/* Asks libpng for 8-bit RGB, or RGBA where there is any kind of transparency. */
static void request_rgb(png_structp png, png_infop info, int depth, int colour) {
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    /* A transparent colour is compared at full depth, before the lower bytes are dropped. */
    if (png_get_valid(png, info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(png);
    /* v >> 8, as Pillow does for colour; it clips 16-bit grey at 255 instead, which turns nearly
     * every such picture white, so grey is treated like colour here. */
    if (depth == 16) png_set_strip_16(png);
    if (!(colour & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
}

/* Runs libpng; anything but 0 means that it failed, or that *err is written. */
static int png_run(PngDecoder *d) {
    if (setjmp(d->escape)) return -1;
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    if (!d->png) return -1;
    d->info = png_create_info_struct(d->png);
    if (!d->info) return -1;
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* max_pixels is the limit */
    png_set_benign_errors(d->png, 1);
    skip_needless_chunks(d->png);
    png_read_info(d->png, d->info);

    png_uint_32 width, height;
    int depth, colour;
    png_get_IHDR(d->png, d->info, &width, &height, &depth, &colour, NULL, NULL, NULL);
    if (encoded_check_size(d->file, "PNG", width, height, d->err) != 0) {
        d->refused = true;
        return -1;
    }
    request_rgb(d->png, d->info, depth, colour);
    int passes = png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
    d->width = (int)width, d->height = (int)height;
    d->channels = png_get_channels(d->png, d->info);
    if (d->channels != 3 && d->channels != 4) png_error(d->png, "unexpected channels");
    size_t row_bytes = (size_t)width * (size_t)d->channels;
    d->pixels = malloc(row_bytes * height);
    if (!d->pixels) {
        d->refused = true;
        return error_set(d->err, "%s: not enough memory for %dx%d pixels", d->file->name, d->width,
                         d->height);
    }
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < height; y++) png_read_row(d->png, d->pixels + y * row_bytes, NULL);
    d->complete = true;

    /* An eXIf chunk may follow the pixels. Whatever is wrong back there costs no pixel. */
    png_read_end(d->png, d->info);
    return 0;
}

static int png_orientation(const PngDecoder *d) {
#ifdef PNG_eXIf_SUPPORTED
    png_uint_32 size = 0;
    png_bytep block = NULL;
    if (png_get_eXIf_1(d->png, d->info, &size, &block) != 0 && block)
        return exif_orientation(block, size);
#endif
    (void)d;
    return 1;
}

/* round(v * a / 255 + 255 * (255 - a) / 255) with exact rounding, as Pillow's paste: for t below
 * 65536, (t + 128 + ((t + 128) >> 8)) >> 8 is t / 255 rounded to nearest. */
static uint8_t over_white(uint32_t v, uint32_t a) {
    uint32_t t = v * a + 255 * (255 - a) + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* RGBA to RGB in place: the write position never overtakes the read position. */
static void blend_over_white(uint8_t *pixels, size_t count) {
    const uint8_t *from = pixels;
    uint8_t *to = pixels;
    for (size_t i = 0; i < count; i++, from += 4, to += 3) {
        uint8_t r = from[0], g = from[1], b = from[2], a = from[3];
        to[0] = over_white(r, a), to[1] = over_white(g, a), to[2] = over_white(b, a);
    }
}

int png_decode(Image *image, int *orientation, const Encoded *file, Error *err) {
    PngDecoder decoder = {.file = file, .err = err}, *d = &decoder;
    int failed = png_run(d);
    if (d->complete) *orientation = png_orientation(d);
    png_destroy_read_struct(&d->png, &d->info, NULL);
    if (failed && !d->complete) {
        free(d->pixels);
        if (d->refused) return -1;
        if (d->truncated)
            return error_set(err,
                             "%s: truncated PNG: the file ends after %zu bytes, before the picture "
                             "does; copy or download it again",
                             file->name, file->size);
        return error_set(err, "%s: broken PNG: %s; copy or download it again", file->name,
                         d->message[0] ? d->message : "libpng cannot start");
    }
    size_t count = (size_t)d->width * (size_t)d->height;
    if (d->channels == 4) {
        blend_over_white(d->pixels, count);
        uint8_t *smaller = realloc(d->pixels, count * 3);
        if (smaller) d->pixels = smaller;
    }
    *image = (Image){d->width, d->height, d->pixels};
    return 0;
}
