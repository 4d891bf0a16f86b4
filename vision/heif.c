/* heif.c - AVIF and HEIC by libheif, which is opened when the first such image comes: it brings ten
 * libraries, which would slow down every start of a program. It decodes all pixels at once, and
 * applies the file's rotations, mirrors and crops; an orientation in EXIF then does not count. */
#ifdef EASYFIRST_HEIF
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libheif/heif.h>

#include "vision/formats.h"

/* The functions used, under their own names. */
#define HEIF_FUNCTIONS(DO)                         \
    DO(heif_context_alloc)                         \
    DO(heif_context_free)                          \
    DO(heif_context_get_primary_image_handle)      \
    DO(heif_context_read_from_memory_without_copy) \
    DO(heif_decode_image)                          \
    DO(heif_decoding_options_alloc)                \
    DO(heif_decoder_descriptor_get_id_name)        \
    DO(heif_decoding_options_free)                 \
    DO(heif_get_decoder_descriptors)               \
    DO(heif_get_version)                           \
    DO(heif_have_decoder_for_format)               \
    DO(heif_image_get_decoding_warnings)           \
    DO(heif_image_get_height)                      \
    DO(heif_image_get_plane_readonly)              \
    DO(heif_image_get_width)                       \
    DO(heif_image_handle_get_height)               \
    DO(heif_image_handle_get_ispe_height)          \
    DO(heif_image_handle_get_ispe_width)           \
    DO(heif_image_handle_get_width)                \
    DO(heif_image_handle_has_alpha_channel)        \
    DO(heif_image_handle_is_premultiplied_alpha)   \
    DO(heif_image_handle_release)                  \
    DO(heif_image_release)                         \
    DO(heif_init)

typedef struct HeifLibrary {
#define DECLARE(name) __typeof__(name) *name;
    HEIF_FUNCTIONS(DECLARE)
#undef DECLARE
    char missing[300]; /* why it cannot be used; empty: it can */
} HeifLibrary;

static HeifLibrary library;
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

/* It stays open. */
static void library_open(void) {
    void *opened = dlopen("libheif.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!opened) {
        snprintf(library.missing, sizeof library.missing, "%s", dlerror());
        return;
    }
#define FIND(name)                                                                \
    if (!(*(void **)&library.name = dlsym(opened, #name)) && !library.missing[0]) \
        snprintf(library.missing, sizeof library.missing,                         \
                 "libheif.so.1 has no " #name " and is too old");
    HEIF_FUNCTIONS(FIND)
#undef FIND
    if (!library.missing[0]) library.heif_init(NULL); /* loads its plugins */
}

typedef struct HeifDecoder {
    Encoded *file;
    const char *format; /* "AVIF" */
    enum heif_compression_format codec;
    struct heif_context *context;
    struct heif_image_handle *handle;
    struct heif_decoding_options *options;
    struct heif_image *image;
    int channels; /* 3, or 4 with transparency */
    Error *err;
} HeifDecoder;

/* A short word for the plugins of Debian's that a codec needs. */
static const char *codec_plugins(enum heif_compression_format codec) {
    return codec == heif_compression_AV1 ? "AV1 (libheif-plugin-dav1d or libheif-plugin-aomdec)"
                                         : "HEVC (libheif-plugin-libde265)";
}

static uint64_t big_number(const uint8_t *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value = value << 8 | bytes[i];
    return value;
}

/* Whether the file ends inside of a box; libheif then complains of what it misses. */
static bool ends_early(const Encoded *file) {
    enum { HEADER = 8, LONG_HEADER = 16 }; /* a size, of 64 bits if that of 32 is 1, and a kind */
    for (size_t at = 0; at < file->size;) {
        const uint8_t *box = file->bytes + at;
        size_t left = file->size - at;
        if (left < HEADER) return true;
        uint64_t size = big_number(box, 4);
        if (size == 0) return false; /* up to the end of the file */
        if (size == 1 && left < LONG_HEADER) return true;
        if (size == 1) size = big_number(box + HEADER, 8);
        if (size > left) return true;
        if (size < HEADER) return false;
        at += (size_t)size;
    }
    return false;
}

static int failed(const HeifDecoder *d, struct heif_error reason) {
    const char *name = d->file->name;
    if (reason.subcode == heif_suberror_End_of_data || ends_early(d->file))
        return error_set(d->err,
                         "%s: truncated %s: the file ends after %zu bytes, before the image does; "
                         "copy or download it again",
                         name, d->format, d->file->size);
    if (reason.code == heif_error_Memory_allocation_error)
        return error_set(d->err, "%s: not enough memory to decode this %s: %s", name, d->format,
                         reason.message);
    if (reason.code == heif_error_Unsupported_feature ||
        reason.code == heif_error_Unsupported_filetype)
        return error_set(d->err,
                         "%s: libheif %s cannot decode this %s: %s; convert it first, as with "
                         "magick FILE out.png",
                         name, library.heif_get_version(), d->format, reason.message);
    return error_set(d->err, "%s: broken %s: %s; copy or download it again", name, d->format,
                     reason.message);
}

static int check_library(HeifDecoder *d) {
    pthread_once(&library_once, library_open);
    if (library.missing[0])
        return error_set(d->err,
                         "%s: this is the %s format, and libheif cannot be used (%s); install it "
                         "(Debian: libheif1), or convert the image first, as with magick FILE "
                         "out.png",
                         d->file->name, d->format, library.missing);
    if (library.heif_have_decoder_for_format(d->codec)) return 0;
    return error_set(
        d->err,
        "%s: this is the %s format, and libheif %s lacks a decoder for %s; install that, "
        "or convert the image first, as with magick FILE out.png",
        d->file->name, d->format, library.heif_get_version(), codec_plugins(d->codec));
}

/* Boxes tell the size before any pixel is decoded. */
static int open_boxes(HeifDecoder *d) {
    const Encoded *file = d->file;
    d->context = library.heif_context_alloc();
    if (!d->context) return error_set(d->err, "%s: not enough memory for libheif", file->name);
    struct heif_error e = library.heif_context_read_from_memory_without_copy(
        d->context, file->bytes, file->size, NULL);
    if (e.code == heif_error_Ok)
        e = library.heif_context_get_primary_image_handle(d->context, &d->handle);
    if (e.code != heif_error_Ok) return failed(d, e);
    bool stored = file->as_stored;
    int width = stored ? library.heif_image_handle_get_ispe_width(d->handle)
                       : library.heif_image_handle_get_width(d->handle);
    int height = stored ? library.heif_image_handle_get_ispe_height(d->handle)
                        : library.heif_image_handle_get_height(d->handle);
    d->channels = library.heif_image_handle_has_alpha_channel(d->handle) ? 4 : 3;
    return encoded_check_size(file, d->format, width, height, 1, d->err);
}

/* A decoder that had to make pixels up leaves a warning. All are fetched: older versions write as
 * many as there are, not as many as fit. */
static int check_warnings(HeifDecoder *d) {
    int count = library.heif_image_get_decoding_warnings(d->image, 0, NULL, 0);
    if (count <= 0) return 0;
    struct heif_error *warnings = calloc((size_t)count, sizeof *warnings);
    if (!warnings) return error_set(d->err, "%s: not enough memory for libheif", d->file->name);
    count = library.heif_image_get_decoding_warnings(d->image, 0, warnings, count);
    int result = 0;
    for (int i = 0; i < count && result == 0; i++)
        if (warnings[i].code == heif_error_Decoder_plugin_error ||
            warnings[i].subcode == heif_suberror_End_of_data)
            result = failed(d, warnings[i]);
    free(warnings);
    return result;
}

/* Of the decoders of AV1 that libheif may have, aom refuses damaged images in silence, while dav1d
 * prints, and loses 40 bytes. NULL: libheif chooses, as it always does for alpha. */
static const char *quiet_decoder(enum heif_compression_format codec) {
    enum { MOST = 8 };
    const struct heif_decoder_descriptor *found[MOST];
    int count = library.heif_get_decoder_descriptors(codec, found, MOST);
    for (int i = 0; i < count && i < MOST; i++) {
        const char *name = library.heif_decoder_descriptor_get_id_name(found[i]);
        if (name && strcmp(name, "aom") == 0) return "aom";
    }
    return NULL;
}

static int decode_pixels(HeifDecoder *d) {
    d->options = library.heif_decoding_options_alloc();
    if (!d->options) return error_set(d->err, "%s: not enough memory for libheif", d->file->name);
    d->options->ignore_transformations = d->file->as_stored;
    if (d->options->version >= 2) d->options->convert_hdr_to_8bit = 1;
    if (d->options->version >= 4) d->options->decoder_id = quiet_decoder(d->codec);
    enum heif_chroma chroma =
        d->channels == 4 ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB;
    struct heif_error e =
        library.heif_decode_image(d->handle, &d->image, heif_colorspace_RGB, chroma, d->options);
    return e.code == heif_error_Ok ? check_warnings(d) : failed(d, e);
}

/* Colors that are already multiplied by alpha only lack the white. */
static void premultiplied_over_white(uint8_t *to, const uint8_t *from, int width) {
    for (int x = 0; x < width; x++, from += 4, to += 3)
        for (int c = 0; c < 3; c++) {
            int value = from[c] + 255 - from[3];
            to[c] = (uint8_t)(value > 255 ? 255 : value);
        }
}

static int put_rows(HeifDecoder *d) {
    int stride = 0, width = library.heif_image_get_width(d->image, heif_channel_interleaved);
    int height = library.heif_image_get_height(d->image, heif_channel_interleaved);
    const uint8_t *pixels =
        library.heif_image_get_plane_readonly(d->image, heif_channel_interleaved, &stride);
    if (!pixels || width < 1 || height < 1 || stride < width * d->channels)
        return error_set(d->err,
                         "%s: libheif %s gives no pixels; convert the image first, as with "
                         "magick FILE out.png",
                         d->file->name, library.heif_get_version());
    TRY(encoded_check_size(d->file, d->format, width, height, 1, d->err));
    TRY(rows_start(d->file, width, height, d->err));
    uint8_t *row = malloc((size_t)width * 3);
    if (!row)
        return error_set(d->err, "%s: not enough memory for a row of %d pixels", d->file->name,
                         width);
    bool premultiplied =
        d->channels == 4 && library.heif_image_handle_is_premultiplied_alpha(d->handle);
    for (int y = 0; y < height; y++, pixels += stride) {
        if (premultiplied)
            premultiplied_over_white(row, pixels, width);
        else if (d->channels == 4)
            rgba_over_white(row, pixels, width);
        rows_put(d->file, y, d->channels == 4 ? row : pixels);
    }
    free(row);
    return 0;
}

static int heif_decode(Encoded *file, const char *format, enum heif_compression_format codec,
                       Error *err) {
    HeifDecoder d = {.file = file, .format = format, .codec = codec, .err = err};
    TRY(check_library(&d));
    int result = open_boxes(&d);
    if (result == 0) result = decode_pixels(&d);
    if (result == 0) result = put_rows(&d);
    if (d.image) library.heif_image_release(d.image);
    if (d.options) library.heif_decoding_options_free(d.options);
    if (d.handle) library.heif_image_handle_release(d.handle);
    if (d.context) library.heif_context_free(d.context);
    return result;
}

int avif_decode(Encoded *file, Error *err) {
    return heif_decode(file, "AVIF", heif_compression_AV1, err);
}

int heic_decode(Encoded *file, Error *err) {
    return heif_decode(file, "HEIC", heif_compression_HEVC, err);
}

static bool heif_state(enum heif_compression_format codec, char *out, size_t size) {
    pthread_once(&library_once, library_open);
    if (library.missing[0]) {
        snprintf(out, size, "libheif cannot be used: %s", library.missing);
        return false;
    }
    bool can = library.heif_have_decoder_for_format(codec);
    if (can)
        snprintf(out, size, "libheif %s", library.heif_get_version());
    else
        snprintf(out, size, "libheif %s lacks a decoder for %s", library.heif_get_version(),
                 codec_plugins(codec));
    return can;
}

bool avif_state(char *out, size_t size) {
    return heif_state(heif_compression_AV1, out, size);
}

bool heic_state(char *out, size_t size) {
    return heif_state(heif_compression_HEVC, out, size);
}
#endif
