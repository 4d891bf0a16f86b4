/* jpeg.c - JPEG by libjpeg-turbo with its defaults, which are Pillow's: the accurate integer DCT
 * and smooth ("fancy") upsampling of the color planes. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
/* after jpeglib.h, whose types it needs */
#include <jerror.h>

#include "vision/formats.h"

/* Images with more pixels than the limit, up to this many times, are decoded at half size. */
enum { MAX_TIMES = 4 };

/* All state while libjpeg runs; like PngDecoder, it belongs to the caller of the function that
 * calls setjmp. */
typedef struct JpegDecoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    Encoded *file;
    uint8_t *row;   /* one row as libjpeg gives it, RGB or CMYK */
    uint8_t *rgb;   /* the same as RGB, if it is CMYK */
    unsigned seen;  /* bit c: a scan with component c was started */
    bool truncated; /* libjpeg requested bytes beyond the end */
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

/* Whether libjpeg continues with made-up pixels after this warning. */
static bool loses_pixels(int warning) {
    return warning == JWRN_HIT_MARKER || warning == JWRN_HUFF_BAD_CODE ||
           warning == JWRN_ARITH_BAD_CODE || warning == JWRN_MUST_RESYNC;
}

/* Other warnings, such as stray bytes between markers, are ignored, as by Pillow. */
static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && loses_pixels(jpeg->err->msg_code)) on_error(jpeg);
}

static void source_start(j_decompress_ptr jpeg) {
    (void)jpeg;
}

static void source_end(j_decompress_ptr jpeg) {
    (void)jpeg;
}

/* libjpeg's own memory source inserts an end marker here and leaves the rest of the image gray.
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
    enum { MAX_SCANS = 100 };
    static const int64_t max_scanned = 4000000000;
    JpegDecoder *d = jpeg->client_data;
    int64_t pixels = (int64_t)d->jpeg.image_width * d->jpeg.image_height;
    int64_t allowed = max_scanned / pixels < MAX_SCANS ? max_scanned / pixels : MAX_SCANS;
    for (int i = 0; i < d->jpeg.comps_in_scan; i++)
        d->seen |= 1u << d->jpeg.cur_comp_info[i]->component_index;
    if (d->jpeg.input_scan_number <= allowed) return;
    snprintf(d->message, sizeof d->message, "more than %d scans, the most for %ux%u pixels",
             (int)allowed, d->jpeg.image_width, d->jpeg.image_height);
    longjmp(d->escape, 1);
}

/* Pillow's conversion, without color profile: R = (1 - C) (1 - K). The stored values are inverted,
 * as written by Adobe's programs, so they already are 1 - C and 1 - K; files of other programs are
 * the same, marked or not, and Pillow assumes it of all. (t + (t >> 8)) >> 8 with t = v + 128 is v
 * / 255 rounded to nearest. */
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
}

/* Files of several scans need all coefficients at once, 2 bytes each. */
static int check_coefficients(const JpegDecoder *d) {
    static const int64_t mib = 1 << 20;
    const struct jpeg_decompress_struct *jpeg = &d->jpeg;
    int64_t most = (int64_t)d->file->size * 64;
    if (most < 128 * mib) most = 128 * mib;
    if (most > 512 * mib) most = 512 * mib;
    int64_t bytes = 0;
    for (int c = 0; c < jpeg->num_components; c++)
        bytes += (int64_t)jpeg->comp_info[c].width_in_blocks * jpeg->comp_info[c].height_in_blocks *
                 DCTSIZE2 * 2;
    if (bytes <= most) return 0;
    return error_set(
        d->err,
        "%s: a progressive JPEG of %ux%u pixels in %zu bytes, which takes %lld MiB to "
        "decode; the limit is %lld: make the image smaller or save it as baseline JPEG",
        d->file->name, jpeg->image_width, jpeg->image_height, d->file->size,
        (long long)(bytes / mib), (long long)(most / mib));
}

/* Checks the header, sets the scale, and allocates the rows. */
static int jpeg_prepare(JpegDecoder *d) {
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    int64_t width = jpeg->image_width, height = jpeg->image_height;
    TRY(encoded_check_size(d->file, "JPEG", width, height, MAX_TIMES, d->err));
    int components = jpeg->num_components;
    if (components != 1 && components != 3 && components != 4)
        return error_set(d->err, "%s: a JPEG of %d components; expected 1 (gray), 3 or 4 (CMYK)",
                         d->file->name, components);
    if (jpeg_has_multiple_scans(&d->jpeg)) TRY(check_coefficients(d));
    jpeg->out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->scale_num = 1, jpeg->scale_denom = width * height > d->file->max_pixels ? 2 : 1;
    jpeg_calc_output_dimensions(jpeg);
    d->row = malloc((size_t)jpeg->output_width * (components == 4 ? 4 : 3));
    d->rgb = components == 4 ? malloc((size_t)jpeg->output_width * 3) : NULL;
    if (!d->row || (components == 4 && !d->rgb))
        return error_set(d->err, "%s: not enough memory for a row of %u pixels", d->file->name,
                         jpeg->output_width);
    return rows_start(d->file, (int)jpeg->output_width, (int)jpeg->output_height, d->err);
}

/* libjpeg accepts missing scans: components without one stay gray, and components without later
 * refinements stay coarse. */
static int check_scans(const JpegDecoder *d) {
    const struct jpeg_decompress_struct *jpeg = &d->jpeg;
    bool whole = true;
    for (int c = 0; c < jpeg->num_components; c++) {
        if (!(d->seen >> c & 1)) whole = false;
        for (int k = 0; jpeg->coef_bits && k < DCTSIZE2; k++) {
            int bits = jpeg->coef_bits[c][k]; /* missing at the lower end; -1: no scan had it */
            if (bits > 0 || (bits < 0 && k == 0)) whole = false;
        }
    }
    if (whole) return 0;
    return error_set(
        d->err,
        "%s: truncated JPEG: it ends after %d scans, before all of the image has come; "
        "copy or download it again",
        d->file->name, jpeg->input_scan_number);
}

/* Runs libjpeg; non-zero means that it failed, or that *err is written. */
static int jpeg_run(JpegDecoder *d) {
    if (setjmp(d->escape)) return -1;
    decoder_start(d);
    j_decompress_ptr jpeg = &d->jpeg;
    jpeg_read_header(jpeg, TRUE);
    d->refused = true;
    TRY(jpeg_prepare(d));
    d->refused = false;
    jpeg_start_decompress(jpeg);
    if (jpeg_has_multiple_scans(jpeg)) {
        d->refused = true;
        TRY(check_scans(d));
        d->refused = false;
    }
    while (jpeg->output_scanline < jpeg->output_height) {
        int y = (int)jpeg->output_scanline;
        jpeg_read_scanlines(jpeg, &d->row, 1);
        if (d->rgb) cmyk_to_rgb(d->rgb, d->row, (int)jpeg->output_width);
        rows_put(d->file, y, d->rgb ? d->rgb : d->row);
    }
    jpeg_finish_decompress(jpeg);
    return 0;
}

int jpeg_decode(Encoded *file, Error *err) {
    JpegDecoder decoder = {.file = file, .err = err}, *d = &decoder;
    int failed = jpeg_run(d), reason = d->errors.msg_code;
    jpeg_destroy_decompress(&d->jpeg);
    free(d->row);
    free(d->rgb);
    if (!failed) return 0;
    if (d->refused) return -1;
    if (d->truncated)
        return error_set(err,
                         "%s: truncated JPEG: the file ends after %zu bytes, before the "
                         "image does; copy or download it again",
                         file->name, file->size);
    if (loses_pixels(reason))
        return error_set(err,
                         "%s: damaged JPEG: pixels are missing (%s); copy or download it again",
                         file->name, d->message);
    return error_set(err, "%s: cannot decode this JPEG: %s; save it again as JPEG or PNG",
                     file->name, d->message);
}

bool jpeg_state(char *out, size_t size) {
#ifdef LIBJPEG_TURBO_VERSION
#define TEXT_OF(words) #words
#define TEXT(words)    TEXT_OF(words)
    snprintf(out, size, "libjpeg-turbo %s", TEXT(LIBJPEG_TURBO_VERSION));
#else
    snprintf(out, size, "libjpeg %d", JPEG_LIB_VERSION);
#endif
    return true;
}
