/* format_table.c - the formats with their decoders: those of this build. */
#include <stdio.h>

#include "vision/formats.h"

typedef struct Format {
    const char *name;
    int (*decode)(Encoded *file, Error *err); /* NULL: not in this build */
    int (*orientation)(const uint8_t *bytes,
                       size_t size); /* NULL: the format has none, or its own */
    bool (*state)(char *out, size_t size);
    const char *library, *package; /* what a build without it lacks */
} Format;

#ifdef EASYFIRST_WEBP
#define WEBP(function) webp_##function
#else
#define WEBP(function) NULL
#endif
#ifdef EASYFIRST_GIF
#define GIF(function) gif_##function
#else
#define GIF(function) NULL
#endif
#ifdef EASYFIRST_HEIF
#define HEIF(function) function
#else
#define HEIF(function) NULL
#endif

static const Format formats_known[IMAGE_FORMATS] = {
    [IMAGE_PNG - 1] = {"PNG", png_decode, png_orientation, png_state, NULL, NULL},
    [IMAGE_JPEG - 1] = {"JPEG", jpeg_decode, jpeg_orientation, jpeg_state, NULL, NULL},
    [IMAGE_WEBP - 1] = {"WebP", WEBP(decode), webp_orientation, WEBP(state), "libwebp",
                        "libwebp-dev"},
    [IMAGE_GIF - 1] = {"GIF", GIF(decode), NULL, GIF(state), "giflib", "libgif-dev"},
    [IMAGE_BMP - 1] = {"BMP", bmp_decode, NULL, bmp_state, NULL, NULL},
    [IMAGE_AVIF - 1] = {"AVIF", HEIF(avif_decode), NULL, HEIF(avif_state), "libheif",
                        "libheif-dev"},
    [IMAGE_HEIC - 1] = {"HEIC", HEIF(heic_decode), NULL, HEIF(heic_state), "libheif",
                        "libheif-dev"},
};

int format_decode(ImageKind kind, Encoded *file, Error *err) {
    const Format *format = &formats_known[kind - 1];
    if (!format->decode)
        return error_set(err,
                         "%s: this is %s %s image, and this program was built without %s; build it "
                         "with that (Debian: %s), or convert the image first, as with magick FILE "
                         "out.png",
                         file->name, kind == IMAGE_AVIF ? "an" : "a", format->name, format->library,
                         format->package);
    if (format->orientation && !file->as_stored)
        file->orientation = format->orientation(file->bytes, file->size);
    return format->decode(file, err);
}

void image_formats(ImageFormat formats[IMAGE_FORMATS]) {
    for (int i = 0; i < IMAGE_FORMATS; i++) {
        const Format *known = &formats_known[i];
        ImageFormat *f = &formats[i];
        *f = (ImageFormat){.name = known->name, .readable = known->decode != NULL};
        if (known->state)
            f->readable = known->state(f->library, sizeof f->library);
        else
            snprintf(f->library, sizeof f->library, "built without %s (Debian: %s)", known->library,
                     known->package);
    }
}
