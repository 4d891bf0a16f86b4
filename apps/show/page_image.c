#include "apps/show/page_image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <openssl/evp.h>
#include <png.h>

#include "vision/resize.h"

enum { JPEG_QUALITY = 88, ENCODED_MOST = 1 << 30 };

/* ---- JPEG. ---- */

/* The state while libjpeg runs; owned by the caller of the function that calls setjmp. */
typedef struct JpegEncoder {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes;
    unsigned long size;
    char message[JMSG_LENGTH_MAX];
    jmp_buf escape;
} JpegEncoder;

static void on_error(j_common_ptr jpeg) {
    JpegEncoder *e = jpeg->client_data;
    jpeg->err->format_message(jpeg, e->message);
    longjmp(e->escape, 1);
}

static int jpeg_rows(JpegEncoder *e, const Image *pixels, Error *err) {
    if (setjmp(e->escape))
        return error_set(err, "the image cannot be embedded in the page: JPEG: %s", e->message);
    struct jpeg_compress_struct *jpeg = &e->jpeg;
    jpeg_create_compress(jpeg);
    jpeg_mem_dest(jpeg, &e->bytes, &e->size);
    jpeg->image_width = (JDIMENSION)pixels->width;
    jpeg->image_height = (JDIMENSION)pixels->height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, JPEG_QUALITY, TRUE);
    jpeg->optimize_coding = TRUE;
    for (int i = 0; i < 3; i++) /* chroma at full size: drawings have sharp edges */
        jpeg->comp_info[i].h_samp_factor = jpeg->comp_info[i].v_samp_factor = 1;
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = pixels->pixels + (size_t)jpeg->next_scanline * (size_t)pixels->width * 3;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return 0;
}

/* *bytes is the caller's to free. */
static int jpeg_encode(const Image *pixels, unsigned char **bytes, size_t *size, Error *err) {
    JpegEncoder e = {0};
    e.jpeg.err = jpeg_std_error(&e.errors);
    e.errors.error_exit = on_error;
    e.jpeg.client_data = &e;
    int status = jpeg_rows(&e, pixels, err);
    jpeg_destroy_compress(&e.jpeg);
    if (status) free(e.bytes), e.bytes = NULL;
    *bytes = e.bytes, *size = e.size;
    return status;
}

/* ---- PNG. ---- */

static int png_encode(const Image *pixels, unsigned char **bytes, size_t *size, Error *err) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)pixels->width,
                       .height = (png_uint_32)pixels->height,
                       .format = PNG_FORMAT_RGB};
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
    *bytes = malloc(room);
    if (!*bytes) return error_set(err, "out of memory for the page's image");
    if (png_image_write_to_memory(&image, *bytes, &room, 0, pixels->pixels, 0, NULL)) {
        *size = room;
        return 0;
    }
    error_set(err, "the image cannot be embedded in the page: PNG: %s", image.message);
    png_image_free(&image);
    free(*bytes), *bytes = NULL;
    return -1;
}

/* ---- Both. ---- */

static char *address(const char *kind, const unsigned char *bytes, size_t size, Error *err) {
    size_t head = strlen(kind);
    char *text = size < ENCODED_MOST ? malloc(head + (size + 2) / 3 * 4 + 1) : NULL;
    if (!text) {
        error_set(err, "out of memory for the page's image of %zu bytes", size);
        return NULL;
    }
    memcpy(text, kind, head);
    EVP_EncodeBlock((unsigned char *)text + head, bytes, (int)size);
    return text;
}

static char *encode(const Image *pixels, Error *err) {
    unsigned char *jpeg = NULL, *png = NULL;
    size_t jpeg_size, png_size;
    char *text = NULL;
    if (jpeg_encode(pixels, &jpeg, &jpeg_size, err) == 0 &&
        png_encode(pixels, &png, &png_size, err) == 0)
        text = png_size <= jpeg_size ? address("data:image/png;base64,", png, png_size, err)
                                     : address("data:image/jpeg;base64,", jpeg, jpeg_size, err);
    free(jpeg), free(png);
    return text;
}

static int scaled(int length, double scale) {
    int to = (int)(length * scale + 0.5);
    return to > 0 ? to : 1;
}

char *image_address(const Image *pixels, int edge, Error *err) {
    int longest = pixels->width > pixels->height ? pixels->width : pixels->height;
    if (longest <= edge) return encode(pixels, err);
    double scale = (double)edge / longest;
    int width = scaled(pixels->width, scale), height = scaled(pixels->height, scale);
    Image small;
    if (image_resize_bicubic(&small, pixels, width, height, 0, 0, width, height, err)) return NULL;
    char *text = encode(&small, err);
    image_free(&small);
    return text;
}
