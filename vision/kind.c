/* kind.c - what a file is, by its first bytes. Pictures are often not what their name says: GIF and
 * WebP files called .jpg, web pages saved where a download failed. */
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

PictureKind picture_kind(const uint8_t *bytes, size_t size) {
    if (HAS(0, PNG_SIGNATURE)) return PICTURE_PNG;
    if (HAS(0, "\xff\xd8\xff")) return PICTURE_JPEG;
    return PICTURE_OTHER;
}

/* The ISO media container: bytes 4..7 are "ftyp" and the brand after them tells what is inside.
 * mif1 and msf1 say only "pictures"; the compatible brands that follow the minor version then name
 * the codec. */
static const char *container_name(const uint8_t *bytes, size_t size) {
    if (size > 64) size = 64;
    for (size_t at = 8; at + 4 <= size; at += 4) {
        if (HAS(at, "avif") || HAS(at, "avis")) return "an AVIF picture";
        if (HAS(at, "heic") || HAS(at, "heix") || HAS(at, "hevc") || HAS(at, "heim") ||
            HAS(at, "heis") || HAS(at, "hevm") || HAS(at, "hevs"))
            return "a HEIC picture (the format of iPhone photos)";
    }
    if (HAS(8, "mif1") || HAS(8, "msf1")) return "a HEIF picture";
    return "an MP4 or QuickTime file";
}

/* Kinds of pictures that are known but not read; NULL if it is none of them. */
static const char *picture_name(const uint8_t *bytes, size_t size) {
    if (HAS(0, "GIF87a") || HAS(0, "GIF89a")) return "a GIF picture";
    if (HAS(0, "RIFF") && HAS(8, "WEBP")) return "a WebP picture";
    if (HAS(4, "ftyp")) return container_name(bytes, size);
    /* "BM" alone is too common: the four reserved bytes after the file's length must be zero. */
    if (HAS(0, "BM") && HAS(6, "\0\0\0\0")) return "a BMP picture";
    if (HAS(0, "II*\0") || HAS(0, "MM\0*") || HAS(0, "II+\0") || HAS(0, "MM\0+"))
        return "a TIFF picture (or a camera's raw file)";
    if (HAS(0, "\xff\x0a") || HAS(0, "\0\0\0\x0cJXL ")) return "a JPEG XL picture";
    if (HAS(0, "\0\0\0\x0cjP  ") || HAS(0, "\xff\x4f\xff\x51")) return "a JPEG 2000 picture";
    if (HAS(0, "8BPS")) return "a Photoshop file";
    if (HAS(0, "\0\0\1\0")) return "an icon (ICO)";
    if (size > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '7' &&
        (bytes[2] == ' ' || bytes[2] == '\n'))
        return "a PNM picture";
    return NULL;
}

static const char *document_name(const uint8_t *bytes, size_t size) {
    if (HAS(0, "%PDF")) return "a PDF document";
    if (HAS(0, "PK\3\4")) return "a ZIP archive";
    if (HAS(0, "\x1f\x8b")) return "a gzip archive";
    if (HAS(0, "ID3") || HAS(0, "OggS") || HAS(0, "RIFF") || HAS(0, "\x1a\x45\xdf\xa3"))
        return "a sound or video file";
    if (HAS(0, "\x7f"
               "ELF"))
        return "a program";
    return NULL;
}

/* Text is what has no control characters but white space; how its bytes are encoded beyond ASCII
 * does not matter here. */
static bool is_text(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size && i < PICTURE_HEAD; i++)
        if (bytes[i] < 0x20 && !strchr("\t\n\r\f\x1b", bytes[i])) return false;
    return true;
}

static bool starts_with_word(const uint8_t *bytes, size_t size, const char *word) {
    return strlen(word) <= size && strncasecmp((const char *)bytes, word, strlen(word)) == 0;
}

int picture_refuse(const uint8_t *bytes, size_t size, const char *name, Error *err) {
    static const char expected[] = "expected a PNG or JPEG picture";
    if (size == 0) return error_set(err, "%s: the file is empty; %s", name, expected);
    if (size < sizeof PNG_SIGNATURE - 1)
        return error_set(err, "%s: only %zu byte%s long, truncated or no picture; %s", name, size,
                         size == 1 ? "" : "s", expected);
    if (HAS(0, "\x89PNG") || HAS(0, "\xc2\x89PNG") || HAS(0, "\xef\xbf\xbdPNG"))
        return error_set(err,
                         "%s: a PNG picture damaged by a copy that took it for text; copy or "
                         "download it again",
                         name);
    const char *what = picture_name(bytes, size);
    if (what)
        return error_set(err, "%s: this is %s; %s: convert it first, whatever its name says", name,
                         what, expected);
    what = document_name(bytes, size);
    if (what) return error_set(err, "%s: this is %s; %s", name, what, expected);
    if (is_text(bytes, size)) {
        const uint8_t *text = bytes;
        size_t left = size;
        if (HAS(0, "\xef\xbb\xbf")) text += 3, left -= 3;
        while (left > 0 && strchr(" \t\r\n", *text)) text++, left--;
        if (starts_with_word(text, left, "version https://git-lfs"))
            return error_set(
                err, "%s: this is a Git LFS pointer; fetch the picture with git lfs pull", name);
        if (starts_with_word(text, left, "<!doctype html") || starts_with_word(text, left, "<html"))
            return error_set(err, "%s: this is a web page, as a failed download leaves behind; %s",
                             name, expected);
        what = starts_with_word(text, left, "<svg")    ? "an SVG drawing"
               : starts_with_word(text, left, "<?xml") ? "an XML or SVG file"
                                                       : "a text file";
        return error_set(err, "%s: this is %s; %s", name, what, expected);
    }
    char hex[3 * 8 + 1] = "";
    for (size_t i = 0; i < 8 && i < size; i++) snprintf(hex + 3 * i, 4, " %02x", bytes[i]);
    return error_set(err, "%s: unknown kind of file (first bytes%s); %s", name, hex, expected);
}
