/* bmp.c - BMP: Windows' headers of all versions and OS/2's, 1 to 32 bits a pixel, palettes, bit
 * fields and run lengths. Debian has no small library for these. The colors are Pillow's, whose
 * conversions of 5 and 6 bits to 8 truncate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vision/formats.h"

enum { FILE_HEADER = 14, OS2_HEADER = 12, INFO_HEADER = 40, V2_HEADER = 52, V3_HEADER = 56 };

typedef enum Compression {
    BMP_RAW,
    BMP_RLE8,
    BMP_RLE4,
    BMP_BITFIELDS,
    BMP_JPEG,
    BMP_PNG,
    BMP_ALPHABITFIELDS
} Compression;

/* One color of a pixel: (pixel >> shift & most) * 255 / most; most 0: it has none. */
typedef struct Field {
    int shift;
    uint32_t most;
} Field;

typedef struct BmpDecoder {
    Encoded *file;
    size_t header; /* bytes of the second header */
    int width, height, bits;
    bool top_down;
    uint32_t compression;
    Field fields[4];      /* red, green, blue, alpha */
    uint32_t colors_used; /* as stored; 0: all */
    int colors;           /* of the palette */
    uint8_t palette[256][3];
    size_t data;      /* position of the pixels */
    uint8_t *indices; /* [width] */
    uint8_t *rgb;     /* [width, 3] */
    Error *err;
} BmpDecoder;

static uint32_t little_u16(const uint8_t *p) {
    return (uint32_t)p[1] << 8 | p[0];
}

static uint32_t little_u32(const uint8_t *p) {
    return little_u16(p + 2) << 16 | little_u16(p);
}

static int truncated(const BmpDecoder *d) {
    return error_set(d->err,
                     "%s: truncated BMP: the file ends after %zu bytes, before the image does; "
                     "copy or download it again",
                     d->file->name, d->file->size);
}

/* ---- Headers. ---- */

static bool is_header_size(size_t size) {
    return size == OS2_HEADER || size == INFO_HEADER || size == V2_HEADER || size == V3_HEADER ||
           size == 64 || size == 108 || size == 124;
}

bool bmp_has_header(const uint8_t *bytes, size_t size) {
    return size >= FILE_HEADER + 4 && memcmp(bytes, "BM", 2) == 0 &&
           is_header_size(little_u32(bytes + FILE_HEADER));
}

static int field_set(const BmpDecoder *d, Field *field, uint32_t mask) {
    *field = (Field){0, mask};
    if (mask == 0) return 0;
    while (!(field->most & 1)) field->most >>= 1, field->shift++;
    if ((field->most & (field->most + 1)) == 0) return 0;
    return error_set(d->err,
                     "%s: broken BMP: the mask %08x of a color has gaps; save it again as PNG",
                     d->file->name, mask);
}

/* The masks of a pixel of 16 to 32 bits. Without bit fields the fourth byte of 32 bits is unused;
 * with masks that are all zero it is alpha, as in Pillow. */
static int read_fields(BmpDecoder *d) {
    static const uint32_t of_16[4] = {0x7c00, 0x3e0, 0x1f, 0};
    static const uint32_t of_32[4] = {0xff0000, 0xff00, 0xff, 0};
    uint32_t masks[4] = {0};
    memcpy(masks, d->bits == 16 ? of_16 : of_32, sizeof masks);
    if (d->compression != BMP_RAW) {
        bool with_alpha = d->header >= V3_HEADER || d->compression == BMP_ALPHABITFIELDS;
        size_t count = with_alpha ? 4 : 3;
        if (FILE_HEADER + INFO_HEADER + count * 4 > d->file->size) return truncated(d);
        for (size_t i = 0; i < count; i++)
            masks[i] = little_u32(d->file->bytes + FILE_HEADER + INFO_HEADER + i * 4);
        if (d->bits == 32 && !masks[0] && !masks[1] && !masks[2] && !masks[3])
            masks[0] = 0xff0000, masks[1] = 0xff00, masks[2] = 0xff, masks[3] = 0xff000000;
    }
    for (int i = 0; i < 4; i++) TRY(field_set(d, &d->fields[i], masks[i]));
    if (d->fields[0].most && d->fields[1].most && d->fields[2].most) return 0;
    return error_set(d->err, "%s: broken BMP: a color has no mask; save it again as PNG",
                     d->file->name);
}

static int check_compression(const BmpDecoder *d) {
    bool fits = false;
    switch (d->compression) {
    case BMP_RAW:
        fits = true;
        break;
    case BMP_RLE8:
        fits = d->bits == 8;
        break;
    case BMP_RLE4:
        fits = d->bits == 4;
        break;
    case BMP_BITFIELDS:
    case BMP_ALPHABITFIELDS:
        fits = d->bits >= 16 && d->header != 64;
        break;
    default:
        break;
    }
    if (fits) return 0;
    const char *what = d->compression == BMP_JPEG  ? " (a JPEG inside of a BMP)"
                       : d->compression == BMP_PNG ? " (a PNG inside of a BMP)"
                                                   : "";
    return error_set(d->err,
                     "%s: a BMP of %d bits a pixel with compression %u%s; expected none, run "
                     "lengths (1, 2) or bit fields (3): save it again as PNG",
                     d->file->name, d->bits, d->compression, what);
}

static void read_sizes(BmpDecoder *d, int64_t *width, int64_t *height) {
    const uint8_t *h = d->file->bytes + FILE_HEADER;
    if (d->header == OS2_HEADER) {
        *width = little_u16(h + 4), *height = little_u16(h + 6);
        d->bits = (int)little_u16(h + 10);
        return;
    }
    *width = (int32_t)little_u32(h + 4), *height = (int32_t)little_u32(h + 8);
    d->top_down = *height < 0;
    if (d->top_down) *height = -*height;
    d->bits = (int)little_u16(h + 14);
    d->compression = little_u32(h + 16);
    d->colors_used = little_u32(h + 32);
}

/* Reads the headers up to the palette. */
static int read_headers(BmpDecoder *d) {
    const Encoded *file = d->file;
    if (file->size < FILE_HEADER + 4) return truncated(d);
    d->header = little_u32(file->bytes + FILE_HEADER);
    if (!is_header_size(d->header))
        return error_set(d->err,
                         "%s: broken BMP: a header of %zu bytes; expected 12, 40, 52, 56, 64, 108 "
                         "or 124: copy or download it again",
                         file->name, d->header);
    if (file->size < FILE_HEADER + d->header) return truncated(d);
    int64_t width = 0, height = 0;
    read_sizes(d, &width, &height);
    TRY(encoded_check_size(file, "BMP", width, height, 1, d->err));
    d->width = (int)width, d->height = (int)height;
    int bits = d->bits;
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return error_set(d->err,
                         "%s: a BMP of %d bits a pixel; expected 1, 4, 8, 16, 24 or 32: save it "
                         "again as PNG",
                         file->name, bits);
    TRY(check_compression(d));
    return bits >= 16 ? read_fields(d) : 0;
}

/* The palette comes after the header, blue first, with a fourth byte except in OS/2's; then the
 * pixels, unless the file header says where they are. Files exist that name the palette's position
 * as theirs, which Pillow mends, too. */
static int read_palette(BmpDecoder *d) {
    const Encoded *file = d->file;
    size_t each = d->header == OS2_HEADER ? 3 : 4, at = FILE_HEADER + d->header;
    size_t stored = d->colors_used ? d->colors_used : (size_t)1 << d->bits;
    if (stored > 65536)
        return error_set(d->err,
                         "%s: broken BMP: a palette of %zu colors; expected %d at most: copy or "
                         "download it again",
                         file->name, stored, 1 << d->bits);
    d->colors = stored < (size_t)1 << d->bits ? (int)stored : 1 << d->bits;
    if (file->size - at < (size_t)d->colors * each) return truncated(d);
    for (int i = 0; i < d->colors; i++) {
        const uint8_t *from = file->bytes + at + (size_t)i * each;
        for (int c = 0; c < 3; c++) d->palette[i][c] = from[2 - c];
    }
    if (d->data == at || d->data == 0) d->data = at + stored * each;
    return 0;
}

static int find_data(BmpDecoder *d) {
    size_t after = FILE_HEADER + d->header;
    d->data = little_u32(d->file->bytes + 10);
    if (d->bits <= 8) return read_palette(d);
    if (d->compression != BMP_RAW && d->header == INFO_HEADER)
        after += d->compression == BMP_ALPHABITFIELDS ? 16 : 12;
    if (d->data == 0) d->data = after;
    return 0;
}

/* ---- Rows. ---- */

static void put(const BmpDecoder *d, int y) {
    rows_put(d->file, d->top_down ? y : d->height - 1 - y, d->rgb);
}

/* The row of `indices` as colors. */
static int put_indices(const BmpDecoder *d, int y) {
    uint8_t *to = d->rgb;
    for (int x = 0; x < d->width; x++, to += 3) {
        int index = d->indices[x];
        if (index >= d->colors)
            return error_set(d->err,
                             "%s: broken BMP: a pixel has color %d of a palette of %d; copy or "
                             "download it again",
                             d->file->name, index, d->colors);
        memcpy(to, d->palette[index], 3);
    }
    put(d, y);
    return 0;
}

static int put_packed(const BmpDecoder *d, int y, const uint8_t *row) {
    int per_byte = 8 / d->bits, most = (1 << d->bits) - 1;
    for (int x = 0; x < d->width; x++) {
        int shift = 8 - d->bits * (x % per_byte + 1);
        d->indices[x] = (uint8_t)(row[x / per_byte] >> shift & most);
    }
    return put_indices(d, y);
}

static uint32_t pixel_at(const uint8_t *from, int bytes) {
    uint32_t pixel = little_u16(from);
    if (bytes >= 3) pixel |= (uint32_t)from[2] << 16;
    if (bytes >= 4) pixel |= (uint32_t)from[3] << 24;
    return pixel;
}

static uint8_t field_value(Field f, uint32_t pixel) {
    uint64_t value = pixel >> f.shift & f.most;
    return (uint8_t)(f.most == 255 ? value : value * 255 / f.most);
}

static void put_pixels(const BmpDecoder *d, int y, const uint8_t *row) {
    int bytes = d->bits / 8;
    const Field *f = d->fields;
    uint8_t *to = d->rgb;
    for (int x = 0; x < d->width; x++, to += 3, row += bytes) {
        uint32_t pixel = pixel_at(row, bytes);
        for (int c = 0; c < 3; c++) to[c] = field_value(f[c], pixel);
        if (!f[3].most) continue;
        uint8_t alpha = field_value(f[3], pixel);
        for (int c = 0; c < 3; c++) to[c] = over_white(to[c], alpha);
    }
    put(d, y);
}

/* Programs write a mask of alpha and leave alpha 0 everywhere: such an image is opaque. */
static void drop_empty_alpha(BmpDecoder *d, size_t stride) {
    int bytes = d->bits / 8;
    for (int y = 0; d->fields[3].most && y < d->height; y++) {
        const uint8_t *row = d->file->bytes + d->data + (size_t)y * stride;
        for (int x = 0; x < d->width; x++)
            if (field_value(d->fields[3], pixel_at(row + (size_t)x * (size_t)bytes, bytes))) return;
    }
    d->fields[3].most = 0;
}

/* Rows of whole 32-bit words; the last one may lack its padding. */
static int read_rows(BmpDecoder *d) {
    size_t row_bits = (size_t)d->width * (size_t)d->bits, used = (row_bits + 7) / 8;
    size_t stride = (row_bits + 31) / 32 * 4;
    if (d->data > d->file->size || (d->file->size - d->data) / stride < (size_t)d->height - 1 ||
        d->file->size - d->data - stride * ((size_t)d->height - 1) < used)
        return truncated(d);
    if (d->bits >= 16) drop_empty_alpha(d, stride);
    TRY(rows_start(d->file, d->width, d->height, d->err));
    for (int y = 0; y < d->height; y++) {
        const uint8_t *row = d->file->bytes + d->data + (size_t)y * stride;
        if (d->bits <= 8)
            TRY(put_packed(d, y, row));
        else
            put_pixels(d, y, row);
    }
    return 0;
}

/* ---- Run lengths. ---- */

/* Where the next pixel goes, and the file's next byte. Pixels beyond the end of a row are dropped,
 * as in Pillow; pixels that are skipped have color 0. */
typedef struct Runs {
    size_t at;
    int x, y;
} Runs;

/* Finishes rows, this one first, until the current one is `y`, or the last is done. */
static int runs_row(BmpDecoder *d, Runs *r, int64_t y) {
    for (; r->y < y && r->y < d->height; r->y++) {
        TRY(put_indices(d, r->y));
        memset(d->indices, 0, (size_t)d->width);
    }
    return 0;
}

static void runs_pixel(BmpDecoder *d, Runs *r, int index) {
    if (r->x < d->width) d->indices[r->x++] = (uint8_t)index;
}

/* The nibble `i` of these bytes, or the byte: 4 bits or 8 a pixel. */
static int run_index(const BmpDecoder *d, const uint8_t *bytes, int i) {
    if (d->compression == BMP_RLE8) return bytes[i];
    return i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
}

/* After a zero byte: `code` pixels one by one, padded to 16 bits. */
static int runs_absolute(BmpDecoder *d, Runs *r, int code) {
    size_t bytes = d->compression == BMP_RLE8 ? (size_t)code : ((size_t)code + 1) / 2;
    if (d->file->size - r->at < bytes) return truncated(d);
    for (int i = 0; i < code; i++) runs_pixel(d, r, run_index(d, d->file->bytes + r->at, i));
    r->at += bytes + bytes % 2;
    if (r->at > d->file->size) r->at = d->file->size;
    return 0;
}

static int runs_delta(BmpDecoder *d, Runs *r) {
    if (d->file->size - r->at < 2) return truncated(d);
    int right = d->file->bytes[r->at], up = d->file->bytes[r->at + 1];
    r->at += 2;
    TRY(runs_row(d, r, (int64_t)r->y + up));
    r->x = right < d->width - r->x ? r->x + right : d->width;
    return 0;
}

static int read_runs(BmpDecoder *d) {
    enum { END_OF_ROW, END_OF_IMAGE, DELTA };
    const Encoded *file = d->file;
    Runs r = {.at = d->data};
    if (d->data > file->size) return truncated(d);
    TRY(rows_start(d->file, d->width, d->height, d->err));
    while (r.y < d->height) {
        if (file->size - r.at < 2) {
            /* All pixels are there: only the end marker is missing. */
            if (r.y == d->height - 1 && r.x == d->width) return runs_row(d, &r, d->height);
            return truncated(d);
        }
        int count = file->bytes[r.at], code = file->bytes[r.at + 1];
        r.at += 2;
        if (count > 0) {
            const uint8_t pair[2] = {(uint8_t)code, (uint8_t)code};
            for (int i = 0; i < count; i++) runs_pixel(d, &r, run_index(d, pair, i % 2));
        } else if (code == END_OF_ROW) {
            TRY(runs_row(d, &r, (int64_t)r.y + 1));
            r.x = 0;
        } else if (code == END_OF_IMAGE) {
            TRY(runs_row(d, &r, d->height));
        } else if (code == DELTA) {
            TRY(runs_delta(d, &r));
        } else {
            TRY(runs_absolute(d, &r, code));
        }
    }
    return 0;
}

static int decode(BmpDecoder *d) {
    TRY(read_headers(d));
    TRY(find_data(d));
    d->indices = calloc((size_t)d->width, 1);
    d->rgb = malloc((size_t)d->width * 3);
    if (!d->indices || !d->rgb)
        return error_set(d->err, "%s: not enough memory for a row of %d pixels", d->file->name,
                         d->width);
    bool runs = d->compression == BMP_RLE8 || d->compression == BMP_RLE4;
    return runs ? read_runs(d) : read_rows(d);
}

int bmp_decode(Encoded *file, Error *err) {
    BmpDecoder d = {.file = file, .err = err};
    int result = decode(&d);
    free(d.indices);
    free(d.rgb);
    return result;
}

bool bmp_state(char *out, size_t size) {
    snprintf(out, size, "built in");
    return true;
}
