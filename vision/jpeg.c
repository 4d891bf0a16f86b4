/* jpeg.c - JPEG by libjpeg-turbo with its defaults, which are Pillow's: the accurate integer DCT
 * and smooth ("fancy") upsampling of the colour planes. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "vision/formats.h"

/* Everything that is alive while libjpeg runs; like PngDecoder, it belongs to the function above
 * the one that calls setjmp. */
typedef struct JpegDecoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    const Encoded *file;
    uint8_t *pixels;
    uint8_t *row; /* one row of CMYK, if the picture is CMYK */
    int width, height;
    int orientation;
    bool truncated; /* libjpeg asked for bytes beyond the end */
    bool refused;   /* *err is already written */
    Error *err;
    char message[JMSG_LENGTH_MAX]; /* libjpeg's own words */
    jmp_buf escape;
} JpegDecoder;

static void on_error(j_common_ptr jpeg) {
    JpegDecoder *d = jpeg->client_data;
    jpeg->err->format_message(jpeg, d->message);
    longjmp(d->escape, 1);
}

/* Warnings, as of stray bytes between markers, stop nothing: Pillow shows such pictures too. */
static void on_message(j_common_ptr jpeg, int level) {
    (void)jpeg, (void)level;
}

static void source_start(j_decompress_ptr jpeg) {
    (void)jpeg;
}

static void source_end(j_decompress_ptr jpeg) {
    (void)jpeg;
}

/* libjpeg's own memory source invents an end marker here and leaves the rest of the picture grey.
 * Pillow refuses, and so does this. */
static boolean source_fill(j_decompress_ptr jpeg) {
    JpegDecoder *d = jpeg->client_data;
    d->truncated = true;
    longjmp(d->escape, 1);
    return FALSE;
}

static void source_skip(j_decompress_ptr jpeg, long count) {
    if (count <= 0) return;
    if ((unsigned long)count > jpeg->src->bytes_in_buffer) source_fill(jpeg);
    jpeg->src->next_input_byte += count;
    jpeg->src->bytes_in_buffer -= (size_t)count;
}

/* Every scan of a progressive file passes over all coefficients, and an empty scan costs only a few
 * bytes: a small file could keep the decoder busy for hours. Encoders write about ten. */
static void on_progress(j_common_ptr jpeg) {
    enum { MAX_SCANS = 500 };
    JpegDecoder *d = jpeg->client_data;
    if (d->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(d->message, sizeof d->message, "more than %d scans", MAX_SCANS);
    longjmp(d->escape, 1);
}

static int jpeg_orientation(j_decompress_ptr jpeg) {
    static const char start[6] = "Exif\0"; /* and the second zero */
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length >= sizeof start &&
            memcmp(m->data, start, sizeof start) == 0)
            return exif_orientation(m->data + sizeof start, m->data_length - sizeof start);
    return 1;
}

/* Pillow's conversion, without colour profile: R = (1 - C) (1 - K). The stored values are inverted,
 * as Adobe's programs write them, so that they are 1 - C and 1 - K already; files of other programs
 * do the same, marked or not, and Pillow assumes so of all. (t + (t >> 8)) >> 8 with t = v + 128 is
 * v / 255 rounded to nearest. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, int width) {
    for (int x = 0; x < width; x++, rgb += 3, cmyk += 4)
        for (int c = 0; c < 3; c++) {
            int t = cmyk[c] * cmyk[3] + 128;
            rgb[c] = (uint8_t)((t + (t >> 8)) >> 8);
        }
}

static void decoder_start(JpegDecoder *d) {
    d->jpeg.err = jpeg_std_error(&d->errors);
    d->errors.error_exit = on_error;
    d->errors.emit_message = on_message;
    d->jpeg.client_data = d;
    jpeg_create_decompress(&d->jpeg);
    d->source = (struct jpeg_source_mgr){
        .next_input_byte = d->file->bytes,
        .bytes_in_buffer = d->file->size,
        .init_source = source_start,
        .fill_input_buffer = source_fill,
        .skip_input_data = source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = source_end,
    };
    d->jpeg.src = &d->source;
    d->progress.progress_monitor = on_progress;
    d->jpeg.progress = &d->progress;
    jpeg_save_markers(&d->jpeg, JPEG_APP0 + 1, 0xffff);
}

/* Runs libjpeg; anything but 0 means that it failed, or that *err is written. */
static int jpeg_run(JpegDecoder *d) {
    if (setjmp(d->escape)) return -1;
    decoder_start(d);
    j_decompress_ptr jpeg = &d->jpeg;
    jpeg_read_header(jpeg, TRUE);
    d->width = (int)jpeg->image_width, d->height = (int)jpeg->image_height;
    d->refused = true;
    TRY(encoded_check_size(d->file, "JPEG", d->width, d->height, d->err));
    int components = jpeg->num_components;
    if (components != 1 && components != 3 && components != 4)
        return error_set(d->err, "%s: a JPEG of %d components; expected 1 (grey), 3 or 4 (CMYK)",
                         d->file->name, components);
    size_t row_bytes = (size_t)d->width * 3;
    d->pixels = malloc(row_bytes * (size_t)d->height);
    d->row = components == 4 ? malloc((size_t)d->width * 4) : NULL;
    if (!d->pixels || (components == 4 && !d->row))
        return error_set(d->err, "%s: not enough memory for %dx%d pixels", d->file->name, d->width,
                         d->height);
    d->refused = false;

    d->orientation = jpeg_orientation(jpeg);
    jpeg->out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = d->pixels + jpeg->output_scanline * row_bytes;
        JSAMPROW rows[1] = {d->row ? d->row : to};
        jpeg_read_scanlines(jpeg, rows, 1);
        if (d->row) cmyk_to_rgb(to, d->row, d->width);
    }
    jpeg_finish_decompress(jpeg);
    return 0;
}

int jpeg_decode(Image *image, int *orientation, const Encoded *file, Error *err) {
    JpegDecoder decoder = {.file = file, .err = err, .orientation = 1}, *d = &decoder;
    int failed = jpeg_run(d);
    jpeg_destroy_decompress(&d->jpeg);
    free(d->row);
    if (failed) {
        free(d->pixels);
        if (d->refused) return -1;
        if (d->truncated)
            return error_set(err,
                             "%s: truncated JPEG: the file ends after %zu bytes, before the "
                             "picture does; copy or download it again",
                             file->name, file->size);
        return error_set(err, "%s: cannot decode this JPEG: %s; save it again as JPEG or PNG",
                         file->name, d->message);
    }
    *orientation = d->orientation;
    *image = (Image){d->width, d->height, d->pixels};
    return 0;
}
