/* png.c - PNG of every color type and depth, by libpng, blended over white where transparent. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vision/formats.h"

/* All state while libpng runs. It belongs to the caller of the function that calls setjmp, so that
 * after a longjmp no local variable of the latter is read. */
typedef struct PngDecoder {
    Encoded *file;
    size_t at; /* bytes passed to libpng so far */
    png_structp png;
    png_infop info;
    uint8_t *row;                /* one row from libpng */
    uint8_t *rgb;                /* the same as RGB, or rows of an interlaced file's passes */
    int width, height, channels; /* channels: 3 or 4 */
    bool truncated;              /* libpng requested bytes beyond the end */
    bool damaged;                /* the checksum of all pixels is wrong */
    bool complete;               /* all pixels are read */
    bool refused;                /* *err is already written */
    Error *err;
    char message[160]; /* libpng's own words */
    jmp_buf escape;
} PngDecoder;

static void on_error(png_structp png, png_const_charp message) {
    PngDecoder *d = png_get_error_ptr(png);
    snprintf(d->message, sizeof d->message, "%s", message);
    longjmp(d->escape, 1);
}

/* libpng's warnings do not affect the pixels, except zlib's about their checksum. */
static void on_warning(png_structp png, png_const_charp message) {
    PngDecoder *d = png_get_error_ptr(png);
    if (strstr(message, "incorrect data check")) d->damaged = true;
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

/* Skips chunks that change no pixel here: color profiles and texts can be large or malformed, and
 * gamma is not applied, as in Pillow. Of the others only tRNS matters (orientation.c reads the
 * texts and eXIf). Names of 4 letters, each with the terminator that libpng requires. */
static void skip_needless_chunks(png_structp png) {
    static const png_byte names[] = "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0"
                                    "pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0tEXt\0tIME\0zTXt";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, names, (int)(sizeof names / 5));
}

/* Requests 8-bit RGB from libpng, or RGBA with any kind of transparency. */
static void request_rgb(png_structp png, png_infop info, int depth, int colour) {
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    /* A transparent color is compared at full depth, before the lower bytes are dropped. */
    if (png_get_valid(png, info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(png);
    /* v >> 8, as in Pillow for color; Pillow clips 16-bit gray at 255 instead, which turns nearly
     * every such image white, so gray is treated like color here. */
    if (depth == 16) png_set_strip_16(png);
    if (!(colour & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
}

/* Writes the row's pixels as RGB, `step` pixels apart. */
static void row_to_rgb(const PngDecoder *d, uint8_t *to, int step, uint32_t count) {
    const uint8_t *from = d->row;
    if (d->channels == 3)
        for (uint32_t i = 0; i < count; i++, from += 3, to += 3 * step)
            to[0] = from[0], to[1] = from[1], to[2] = from[2];
    else
        for (uint32_t i = 0; i < count; i++, from += 4, to += 3 * step) {
            uint8_t r = from[0], g = from[1], b = from[2], a = from[3];
            to[0] = over_white(r, a), to[1] = over_white(g, a), to[2] = over_white(b, a);
        }
}

static void read_rows(PngDecoder *d) {
    for (int y = 0; y < d->height; y++) {
        png_read_row(d->png, d->row, NULL);
        if (d->channels == 4) row_to_rgb(d, d->rgb, 1, (uint32_t)d->width);
        rows_put(d->file, y, d->channels == 4 ? d->rgb : d->row);
    }
}

/* Adam7's passes, each a small image of its own. The first five hold every second pixel of the even
 * rows: a quarter of all, kept until the sixth has the pixels between them. The seventh is the odd
 * rows. (libpng's own deinterlacing needs all pixels at once.) */
static void read_interlaced_rows(PngDecoder *d) {
    uint32_t width = (uint32_t)d->width, height = (uint32_t)d->height;
    size_t kept_bytes = ((size_t)width + 1) / 2 * 3;
    uint8_t *kept = d->rgb, *whole = d->rgb + kept_bytes * ((height + 1) / 2);
    for (int pass = 0; pass < 7; pass++) {
        uint32_t columns = PNG_PASS_COLS(width, pass), rows = PNG_PASS_ROWS(height, pass);
        /* With one column, the even rows are complete after the fifth pass; the sixth is empty. */
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t y = PNG_ROW_FROM_PASS_ROW(r, pass), x = PNG_PASS_START_COL(pass);
            if (columns > 0) png_read_row(d->png, d->row, NULL);
            if (pass < 5) {
                int step = 1 << PNG_PASS_COL_SHIFT(pass) >> 1;
                row_to_rgb(d, kept + y / 2 * kept_bytes + x / 2 * 3, step, columns);
                continue;
            }
            for (uint32_t i = 0; pass == 5 && i < (width + 1) / 2; i++)
                memcpy(whole + (size_t)i * 6, kept + y / 2 * kept_bytes + (size_t)i * 3, 3);
            row_to_rgb(d, whole + x * 3, pass == 5 ? 2 : 1, columns);
            rows_put(d->file, (int)y, whole);
        }
    }
}

static int rows_allocate(PngDecoder *d, bool interlaced) {
    size_t width = (size_t)d->width, kept = (width + 1) / 2 * (((size_t)d->height + 1) / 2);
    d->row = malloc(width * (size_t)d->channels);
    d->rgb = malloc((width + (interlaced ? kept : 0)) * 3);
    if (!d->row || !d->rgb)
        return error_set(d->err, "%s: not enough memory for rows of %dx%d pixels", d->file->name,
                         d->width, d->height);
    return rows_start(d->file, d->width, d->height, d->err);
}

/* Runs libpng; non-zero means that it failed, or that *err is written. */
static int png_run(PngDecoder *d) {
    if (setjmp(d->escape)) return -1;
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    if (!d->png) return -1;
    d->info = png_create_info_struct(d->png);
    if (!d->info) return -1;
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* encoded_check_size limits */
    png_set_benign_errors(d->png, 1);
    skip_needless_chunks(d->png);
    png_read_info(d->png, d->info);

    png_uint_32 width, height;
    int depth, colour, interlace;
    png_get_IHDR(d->png, d->info, &width, &height, &depth, &colour, &interlace, NULL, NULL);
    d->refused = true;
    TRY(encoded_check_size(d->file, "PNG", width, height, 1, d->err));
    d->refused = false;
    request_rgb(d->png, d->info, depth, colour);
    png_read_update_info(d->png, d->info);
    d->width = (int)width, d->height = (int)height;
    d->channels = png_get_channels(d->png, d->info);
    if (d->channels != 3 && d->channels != 4) png_error(d->png, "unexpected channels");
    d->refused = true;
    TRY(rows_allocate(d, interlace == PNG_INTERLACE_ADAM7));
    d->refused = false;
    if (interlace == PNG_INTERLACE_ADAM7)
        read_interlaced_rows(d);
    else
        read_rows(d);
    d->complete = true;
    png_read_end(d->png, NULL); /* for the checksums of the data */
    return 0;
}

/* After the pixels only the checksums of their data matter. */
static bool png_is_whole(const PngDecoder *d) {
    return d->complete && !d->damaged && (d->truncated || strncmp(d->message, "IDAT", 4) != 0);
}

int png_decode(Encoded *file, Error *err) {
    PngDecoder decoder = {.file = file, .err = err}, *d = &decoder;
    /* Not a valid PNG in spite of its signature: the first chunk is not IHDR, or the pixels do not
     * match the header. */
    if (file->size >= 16 && memcmp(file->bytes + 12, "CgBI", 4) == 0)
        return error_set(
            err,
            "%s: this is Apple's CgBI variant of PNG, made by Xcode; expected a PNG or "
            "JPEG image: convert it back with xcrun pngcrush "
            "-revert-iphone-optimizations in.png out.png",
            file->name);
    (void)png_run(d);
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->row);
    free(d->rgb);
    if (png_is_whole(d)) return 0;
    if (d->refused) return -1;
    if (d->truncated)
        return error_set(err,
                         "%s: truncated PNG: the file ends after %zu bytes, before the image "
                         "does; copy or download it again",
                         file->name, file->size);
    return error_set(err, "%s: broken PNG: %s; copy or download it again", file->name,
                     d->damaged      ? "the checksum of its pixels is wrong"
                     : d->message[0] ? d->message
                                     : "libpng cannot start");
}

bool png_state(char *out, size_t size) {
    snprintf(out, size, "libpng %s", png_get_libpng_ver(NULL));
    return true;
}
