#include <string.h>

#include "vision/formats.h"

/* A TIFF block is in the byte order of the camera that wrote it. Its offsets are untrusted: every
 * read is checked against the block's end and gives 0 beyond it. */
typedef struct Tiff {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
} Tiff;

static uint32_t tiff_u16(const Tiff *t, size_t at) {
    if (at > t->size || t->size - at < 2) return 0;
    const uint8_t *p = t->bytes + at;
    return t->big_endian ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}

static uint32_t tiff_u32(const Tiff *t, size_t at) {
    uint32_t first = tiff_u16(t, at), second = tiff_u16(t, at + 2);
    return t->big_endian ? first << 16 | second : second << 16 | first;
}

static bool tiff_open(Tiff *t, const uint8_t *block, size_t size) {
    static const char prefix[6] = "Exif\0"; /* and the second zero */
    while (size >= sizeof prefix && memcmp(block, prefix, sizeof prefix) == 0)
        block += sizeof prefix, size -= sizeof prefix;
    *t = (Tiff){block, size, false};
    if (size < 8) return false;
    t->big_endian = block[0] == 'M' && block[1] == 'M';
    if (!t->big_endian && (block[0] != 'I' || block[1] != 'I')) return false;
    return tiff_u16(t, 2) == 42;
}

int exif_orientation(const uint8_t *block, size_t size, bool *found) {
    enum { ENTRY = 12, TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };
    Tiff t;
    bool ignored;
    if (!found) found = &ignored;
    *found = false;
    if (!tiff_open(&t, block, size)) return 1;

    /* Only the first directory describes the image; the next is the thumbnail's, whose orientation
     * may differ. */
    size_t directory = tiff_u32(&t, 4);
    uint32_t entries = tiff_u16(&t, directory);
    for (uint32_t i = 0; i < entries; i++) {
        size_t entry = directory + 2 + (size_t)i * ENTRY;
        if (entry + ENTRY > t.size) return 1;
        if (tiff_u16(&t, entry) != TAG_ORIENTATION) continue;
        *found = true;
        /* A 16-bit value is in the first half of the 32-bit field, in either byte order. The tag
         * should be such a short, but some programs write a long. */
        uint32_t type = tiff_u16(&t, entry + 2), value = 0;
        if (tiff_u32(&t, entry + 4) != 1) return 1;
        if (type == TYPE_SHORT) value = tiff_u16(&t, entry + 8);
        if (type == TYPE_LONG) value = tiff_u32(&t, entry + 8);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}
