/* orientation.c - finds the blocks of a PNG, JPEG or WebP that store its orientation. They are searched
 * in the bytes before decoding, so that each row can be put in place as it comes. Only the first
 * block of each kind counts. */
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "vision/formats.h"

/* Blocks are small (an EXIF block at most 64 KiB); a compressed one is read only up to this. */
enum { MAX_BLOCK = 1 << 20 };

/* The orientations found so far. */
typedef struct Found {
    bool exif_seen, xmp_seen;
    int raw_profiles;
    bool exif_found; /* the EXIF block has the tag, so XMP does not count */
    int exif, xmp;   /* xmp: 0 if there is none */
} Found;

static int found_result(const Found *s) {
    return s->exif_found ? s->exif : s->xmp ? s->xmp : 1;
}

static void found_exif(Found *s, const uint8_t *block, size_t size) {
    if (s->exif_seen) return;
    s->exif_seen = true;
    s->exif = exif_orientation(block, size, &s->exif_found);
}

static void found_xmp(Found *s, const uint8_t *text, size_t size) {
    if (s->xmp_seen) return;
    s->xmp_seen = true;
    s->xmp = xmp_orientation(text, size < MAX_BLOCK ? size : MAX_BLOCK);
}

static uint32_t big_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- PNG. ---- */

/* A chunk's data, or the rest of it. */
typedef struct Part {
    const uint8_t *bytes;
    size_t size;
} Part;

/* Returns the text up to the next zero byte and moves past that; false if there is none. */
static bool part_word(Part *p, Part *word) {
    const uint8_t *zero = p->size ? memchr(p->bytes, 0, p->size) : NULL;
    if (!zero) return false;
    *word = (Part){p->bytes, (size_t)(zero - p->bytes)};
    p->bytes = zero + 1, p->size -= word->size + 1;
    return true;
}

static bool part_is(Part p, const char *word) {
    return p.size == strlen(word) && memcmp(p.bytes, word, p.size) == 0;
}

/* Inflates at most MAX_BLOCK bytes of a zlib stream; NULL if out of memory. */
static uint8_t *inflated(Part packed, size_t *size) {
    uint8_t *bytes = malloc(MAX_BLOCK);
    z_stream z = {.next_in = (uint8_t *)packed.bytes, .next_out = bytes, .avail_out = MAX_BLOCK};
    z.avail_in = packed.size < MAX_BLOCK ? (uInt)packed.size : MAX_BLOCK;
    if (!bytes || inflateInit(&z) != Z_OK) {
        free(bytes);
        return NULL;
    }
    (void)inflate(&z, Z_FINISH); /* output before an error may suffice */
    *size = MAX_BLOCK - z.avail_out;
    inflateEnd(&z);
    return bytes;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* ImageMagick's raw profile text: "\nexif\n 1234\n" and then lines of hexadecimal digits. Returns
 * the block's bytes (the caller frees them), NULL if out of memory. */
static uint8_t *raw_profile(Part text, size_t *size) {
    for (int line = 0; line < 3; line++) {
        const uint8_t *newline = text.size ? memchr(text.bytes, '\n', text.size) : NULL;
        if (!newline) text.size = 0;
        if (newline) text.size -= (size_t)(newline + 1 - text.bytes), text.bytes = newline + 1;
    }
    uint8_t *bytes = malloc(text.size / 2 + 1);
    size_t digits = 0;
    int first = 0;
    for (size_t i = 0; bytes && i < text.size; i++) {
        int digit = hex_digit(text.bytes[i]);
        if (digit < 0) continue;
        if (digits % 2) bytes[digits / 2] = (uint8_t)(first << 4 | digit);
        first = digit, digits++;
    }
    *size = digits / 2;
    return bytes;
}

/* An APP1 segment's data: EXIF or XMP, each with its own prefix. */
static void found_app1(Found *s, const uint8_t *bytes, size_t size) {
    static const char exif[6] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    if (size >= sizeof exif && memcmp(bytes, exif, sizeof exif) == 0)
        found_exif(s, bytes, size);
    else if (size >= sizeof xmp && memcmp(bytes, xmp, sizeof xmp) == 0)
        found_xmp(s, bytes + sizeof xmp, size - sizeof xmp);
}

static void found_raw_profile(Found *s, Part text, bool xmp) {
    size_t size;
    uint8_t *block = raw_profile(text, &size);
    if (block && xmp)
        found_xmp(s, block, size);
    else if (block && size >= 4 && (memcmp(block, "II", 2) == 0 || memcmp(block, "MM", 2) == 0))
        found_exif(s, block, size);
    else if (block)
        found_app1(s, block, size);
    free(block);
}

/* A text under a keyword that may hold an orientation. */
static void found_text(Found *s, Part keyword, Part text, bool packed) {
    enum { MAX_RAW_PROFILES = 4 };
    bool xmp = part_is(keyword, "XML:com.adobe.xmp");
    bool raw_xmp = part_is(keyword, "Raw profile type xmp");
    bool raw = part_is(keyword, "Raw profile type exif") ||
               part_is(keyword, "Raw profile type APP1") || raw_xmp;
    if ((!xmp && !raw) || (xmp && s->xmp_seen)) return;
    if (raw && s->raw_profiles++ >= MAX_RAW_PROFILES) return;
    uint8_t *unpacked = NULL;
    if (packed) {
        unpacked = inflated(text, &text.size);
        if (!unpacked) return;
        text.bytes = unpacked;
    }
    if (text.size > MAX_BLOCK) text.size = MAX_BLOCK;
    if (xmp)
        found_xmp(s, text.bytes, text.size);
    else
        found_raw_profile(s, text, raw_xmp);
    free(unpacked);
}

static void found_png_text(Found *s, const char *kind, Part data) {
    Part keyword, ignored;
    if (!part_word(&data, &keyword)) return;
    bool packed = false;
    if (memcmp(kind, "zTXt", 4) == 0) {
        if (data.size < 1 || data.bytes[0] != 0) return; /* the only method, deflate */
        packed = true, data.bytes++, data.size--;
    } else if (memcmp(kind, "iTXt", 4) == 0) {
        if (data.size < 2 || (data.bytes[0] == 1 && data.bytes[1] != 0)) return;
        packed = data.bytes[0] == 1, data.bytes += 2, data.size -= 2;
        /* the language, and the keyword in that language */
        if (!part_word(&data, &ignored) || !part_word(&data, &ignored)) return;
    }
    found_text(s, keyword, data, packed);
}

static bool chunk_is_whole(const uint8_t *chunk, uint32_t length) {
    return crc32(0, chunk + 4, length + 4) == big_u32(chunk + 8 + length);
}

/* Iterates over the chunks, as long as their lengths are valid. An eXIf chunk takes precedence over
 * a raw profile in any order, so texts are read in a second pass. */
static void png_walk(Found *s, const uint8_t *bytes, size_t size, bool texts) {
    for (size_t at = 8; size >= 12 && at <= size - 12;) {
        const uint8_t *chunk = bytes + at;
        const char *kind = (const char *)chunk + 4;
        uint32_t length = big_u32(chunk);
        if (length > size - at - 12 || memcmp(kind, "IEND", 4) == 0) return;
        Part data = {chunk + 8, length};
        bool text = memcmp(kind, "tEXt", 4) == 0 || memcmp(kind, "zTXt", 4) == 0 ||
                    memcmp(kind, "iTXt", 4) == 0;
        bool exif = memcmp(kind, "eXIf", 4) == 0;
        if (texts && text && chunk_is_whole(chunk, length)) found_png_text(s, kind, data);
        if (!texts && exif && chunk_is_whole(chunk, length)) found_exif(s, data.bytes, data.size);
        at += (size_t)length + 12;
    }
}

int png_orientation(const uint8_t *bytes, size_t size) {
    Found found = {0};
    png_walk(&found, bytes, size, false);
    if (!found.exif_found) png_walk(&found, bytes, size, true);
    return found_result(&found);
}

/* ---- JPEG. ---- */

/* Iterates over the segments up to the first scan; bytes between them are skipped, as by
 * libjpeg. */
int jpeg_orientation(const uint8_t *bytes, size_t size) {
    enum { APP1 = 0xe1, SOS = 0xda, EOI = 0xd9, RST0 = 0xd0, SOI = 0xd8, TEM = 1 };
    Found found = {0};
    for (size_t at = 2; at < size;) {
        const uint8_t *mark = memchr(bytes + at, 0xff, size - at);
        if (!mark) break;
        at = (size_t)(mark - bytes);
        while (at < size && bytes[at] == 0xff) at++;
        if (at >= size) break;
        uint8_t marker = bytes[at++];
        if (marker == 0 || marker == TEM || (marker >= RST0 && marker <= SOI)) continue;
        if (marker == SOS || marker == EOI || size - at < 2) break;
        size_t length = (size_t)bytes[at] << 8 | bytes[at + 1];
        if (length < 2 || length > size - at) break;
        if (marker == APP1) found_app1(&found, bytes + at + 2, length - 2);
        at += length;
    }
    return found_result(&found);
}

/* ---- WebP. ---- */

static uint32_t little_u32(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* Iterates over the chunks, which are padded to even sizes. */
int webp_orientation(const uint8_t *bytes, size_t size) {
    enum { FIRST = 12, HEADER = 8 };
    Found found = {0};
    for (size_t at = FIRST; size >= HEADER && at <= size - HEADER;) {
        const uint8_t *chunk = bytes + at, *data = chunk + HEADER;
        size_t length = little_u32(chunk + 4);
        if (length > size - at - HEADER) break;
        if (memcmp(chunk, "EXIF", 4) == 0) found_exif(&found, data, length);
        if (memcmp(chunk, "XMP ", 4) == 0) found_xmp(&found, data, length);
        at += HEADER + length + length % 2;
    }
    return found_result(&found);
}
