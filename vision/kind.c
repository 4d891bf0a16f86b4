/* kind.c - detects a file's type by its first bytes. File names of images are often wrong: GIF and
 * WebP files called .jpg, web pages saved by a failed download. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vision/formats.h"

static const char PNG_SIGNATURE[] = "\x89PNG\r\n\x1a\n";

static bool has(const uint8_t *bytes, size_t size, size_t at, const char *magic, size_t length) {
    return at + length <= size && memcmp(bytes + at, magic, length) == 0;
}
/* For magic numbers given as string literals, which may hold zero bytes. */
#define HAS(at, magic) has(bytes, size, at, magic, sizeof(magic) - 1)

/* The ISO media container: bytes 4..7 are "ftyp", followed by the brand. mif1 and msf1 only mean
 * "images"; then the compatible brands after the minor version name the codec. */
static ImageKind container_kind(const uint8_t *bytes, size_t size) {
    if (size > 64) size = 64;
    for (size_t at = 8; at + 4 <= size; at += 4) {
        if (HAS(at, "avif") || HAS(at, "avis")) return IMAGE_AVIF;
        if (HAS(at, "heic") || HAS(at, "heix") || HAS(at, "hevc") || HAS(at, "heim") ||
            HAS(at, "heis") || HAS(at, "hevm") || HAS(at, "hevs"))
            return IMAGE_HEIC;
    }
    return HAS(8, "mif1") || HAS(8, "msf1") ? IMAGE_HEIC : IMAGE_OTHER;
}

ImageKind image_kind(const uint8_t *bytes, size_t size) {
    if (HAS(0, PNG_SIGNATURE)) return IMAGE_PNG;
    if (HAS(0, "\xff\xd8\xff")) return IMAGE_JPEG;
    if (HAS(0, "RIFF") && HAS(8, "WEBP")) return IMAGE_WEBP;
    if (HAS(0, "GIF87a") || HAS(0, "GIF89a")) return IMAGE_GIF;
    if (HAS(4, "ftyp")) return container_kind(bytes, size);
    /* "BM" alone is too common: a known header must follow, or the four reserved bytes be zero. */
    if (bmp_has_header(bytes, size) || (HAS(0, "BM") && HAS(6, "\0\0\0\0"))) return IMAGE_BMP;
    return IMAGE_OTHER;
}

/* The name of a known but unsupported image format; NULL for anything else. */
static const char *unread_image_name(const uint8_t *bytes, size_t size) {
    if (HAS(4, "ftyp") && size < 12) return "the beginning of an image or film, truncated";
    if (HAS(4, "ftyp")) return "an MP4 or QuickTime file";
    if (HAS(0, "II*\0") || HAS(0, "MM\0*") || HAS(0, "II+\0") || HAS(0, "MM\0+"))
        return "a TIFF image (or a camera's raw file)";
    if (HAS(0, "\xff\x0a") || HAS(0, "\0\0\0\x0cJXL ")) return "a JPEG XL image";
    if (HAS(0, "\0\0\0\x0cjP  ") || HAS(0, "\xff\x4f\xff\x51")) return "a JPEG 2000 image";
    if (HAS(0, "8BPS")) return "a Photoshop file";
    if (HAS(0, "\0\0\1\0")) return "an icon (ICO)";
    if (HAS(0, "icns")) return "an icon of macOS (ICNS)";
    if (HAS(0, "qoif")) return "a QOI image";
    if (HAS(0, "DDS ")) return "a DDS texture";
    if (HAS(0, "\x76\x2f\x31\x01")) return "an OpenEXR image";
    if (HAS(0, "#?RADIANCE")) return "a Radiance HDR image";
    if (HAS(0, "\x8aMNG\r\n") || HAS(0, "\x8bJNG\r\n")) return "an MNG image";
    if (HAS(0, "gimp xcf")) return "a GIMP file";
    if (HAS(0, "FUJIFILMCCD-RAW")) return "a camera's raw file";
    if (HAS(0, "\xd7\xcd\xc6\x9a") || (HAS(0, "\1\0\0\0") && HAS(40, " EMF")))
        return "a Windows metafile";
    if (size > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '7' &&
        (bytes[2] == ' ' || bytes[2] == '\n'))
        return "a PNM image";
    return NULL;
}

static const char *document_name(const uint8_t *bytes, size_t size) {
    if (HAS(0, "%PDF")) return "a PDF document";
    if (HAS(0, "PK\3\4")) return "a ZIP archive";
    if (HAS(0, "\x1f\x8b")) return "a gzip archive";
    if (HAS(0, "BZh")) return "a bzip2 archive";
    if (HAS(0, "\xfd\x37zXZ\0")) return "an xz archive";
    if (HAS(0, "\x28\xb5\x2f\xfd")) return "a Zstandard archive";
    if (HAS(0, "7z\xbc\xaf\x27\x1c")) return "a 7-Zip archive";
    if (HAS(0, "Rar!\x1a\x07")) return "a RAR archive";
    if (HAS(257, "ustar")) return "a tar archive";
    if (HAS(0, "\xd0\xcf\x11\xe0")) return "an old Office document";
    if (HAS(0, "PAR1")) return "a Parquet table";
    if (HAS(0, "RIFF") && size < 12)
        return "the beginning of a WebP, sound or video file, truncated";
    if (HAS(0, "ID3") || HAS(0, "OggS") || HAS(0, "RIFF") || HAS(0, "\x1a\x45\xdf\xa3"))
        return "a sound or video file";
    if (HAS(0, "\x7f"
               "ELF"))
        return "a program";
    return NULL;
}

/* Text has no control characters except white space; its encoding does not matter here. */
static bool is_text(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size && i < IMAGE_HEAD; i++)
        if (bytes[i] < 0x20 && !strchr("\t\n\r\f\x1b", bytes[i])) return false;
    return true;
}

static bool starts_with_word(const uint8_t *bytes, size_t size, const char *word) {
    return strlen(word) <= size && strncasecmp((const char *)bytes, word, strlen(word)) == 0;
}

static const char *text_name(const uint8_t *text, size_t size) {
    if (starts_with_word(text, size, "<svg") || memmem(text, size, "<svg", 4))
        return "an SVG drawing; render it first, as with rsvg-convert -o out.png in.svg";
    if (starts_with_word(text, size, "<?xml")) return "an XML file";
    if (starts_with_word(text, size, "%!PS")) return "a PostScript file";
    if (starts_with_word(text, size, "data:image/") ||
        starts_with_word(text, size, "iVBORw0KGgo") || starts_with_word(text, size, "/9j/"))
        return "an image in base64; decode it first, as with base64 -d in > out.png (what follows "
               "\"base64,\", if it begins with data:)";
    if (starts_with_word(text, size, "{") || starts_with_word(text, size, "["))
        return "JSON, as servers answer with errors";
    return "a text file";
}

static int refuse_text(const uint8_t *text, size_t size, const char *name, const char *expected,
                       Error *err) {
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, size -= 3;
    while (size > 0 && strchr(" \t\r\n", *text)) text++, size--;
    if (starts_with_word(text, size, "version https://git-lfs"))
        return error_set(err, "%s: this is a Git LFS pointer; fetch the image with git lfs pull",
                         name);
    static const char *const pages[] = {"<!doctype html", "<html", "<head", "<body", "<!--"};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (starts_with_word(text, size, pages[i]))
            return error_set(err, "%s: this is a web page, as a failed download leaves behind; %s",
                             name, expected);
    if (size > IMAGE_HEAD) size = IMAGE_HEAD;
    return error_set(err, "%s: %s; this is %s", name, expected, text_name(text, size));
}

static bool all_zero(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size && i < IMAGE_HEAD; i++)
        if (bytes[i]) return false;
    return true;
}

int image_refuse(const uint8_t *bytes, size_t size, const char *name, Error *err) {
    static const char expected[] = "expected an image (PNG, JPEG, WebP, GIF, BMP, AVIF, HEIC)";
    if (size == 0) return error_set(err, "%s: the file is empty; %s", name, expected);
    if (size < sizeof PNG_SIGNATURE - 1)
        return error_set(err, "%s: only %zu byte%s long, truncated or no image; %s", name, size,
                         size == 1 ? "" : "s", expected);
    if (HAS(0, "\x89PNG") || HAS(0, "\xc2\x89PNG") || HAS(0, "\xef\xbf\xbdPNG"))
        return error_set(err,
                         "%s: a PNG image damaged by a copy that took it for text; copy or "
                         "download it again",
                         name);
    if (all_zero(bytes, size))
        return error_set(err,
                         "%s: begins with nothing but zero bytes, as a copy that failed leaves "
                         "behind; copy or download it again",
                         name);
    const char *what = unread_image_name(bytes, size);
    if (what)
        return error_set(err,
                         "%s: this is %s, despite its name; %s: convert it first, as with "
                         "magick FILE out.png",
                         name, what, expected);
    what = document_name(bytes, size);
    if (what) return error_set(err, "%s: this is %s; %s", name, what, expected);
    if (HAS(0, "BM") && size < 18 && memchr(bytes, 0, size))
        return error_set(
            err, "%s: the beginning of a BMP image, truncated; copy or download it again", name);
    if (is_text(bytes, size)) return refuse_text(bytes, size, name, expected, err);
    char hex[3 * 8 + 1] = "";
    for (size_t i = 0; i < 8 && i < size; i++) snprintf(hex + 3 * i, 4, " %02x", bytes[i]);
    return error_set(err, "%s: unknown kind of file (first bytes%s); %s", name, hex, expected);
}
