/* gif.c - the first frame of a GIF on its canvas, by giflib. */
#ifdef EASYFIRST_GIF
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

#include "vision/formats.h"

typedef struct GifDecoder {
    Encoded *file;
    size_t at;      /* bytes passed to giflib so far */
    bool truncated; /* giflib requested bytes beyond the end */
    GifFileType *gif;
    int transparent;   /* color of the palette, or -1 */
    int width, height; /* of the canvas */
    uint8_t colors[256][3];
    int color_count;
    uint8_t *indices; /* a row of the frame */
    uint8_t *rgb;     /* a row of the canvas */
    Error *err;
} GifDecoder;

static int on_read(GifFileType *gif, GifByteType *to, int count) {
    GifDecoder *d = gif->UserData;
    size_t left = d->file->size - d->at, n = (size_t)count < left ? (size_t)count : left;
    if (n < (size_t)count) d->truncated = true;
    memcpy(to, d->file->bytes + d->at, n);
    d->at += n;
    return (int)n;
}

/* What giflib complains of. */
static int failed(const GifDecoder *d, int reason) {
    if (d->truncated)
        return error_set(d->err,
                         "%s: truncated GIF: the file ends after %zu bytes, before the image does; "
                         "copy or download it again",
                         d->file->name, d->file->size);
    const char *words = GifErrorString(reason);
    return error_set(d->err, "%s: broken GIF: %s; copy or download it again", d->file->name,
                     words ? words : "giflib fails without a reason");
}

/* An extension block; of these the transparent color matters. */
static int read_extension(GifDecoder *d) {
    int kind;
    GifByteType *block; /* its length comes first */
    if (DGifGetExtension(d->gif, &kind, &block) != GIF_OK) return failed(d, d->gif->Error);
    GraphicsControlBlock control;
    if (kind == GRAPHICS_EXT_FUNC_CODE && block &&
        DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK)
        d->transparent = control.TransparentColor;
    while (block)
        if (DGifGetExtensionNext(d->gif, &block) != GIF_OK) return failed(d, d->gif->Error);
    return 0;
}

/* Moves to the first frame. */
static int find_frame(GifDecoder *d) {
    for (;;) {
        GifRecordType record;
        if (DGifGetRecordType(d->gif, &record) != GIF_OK) return failed(d, d->gif->Error);
        if (record == TERMINATE_RECORD_TYPE)
            return error_set(d->err, "%s: broken GIF: it holds no image; copy or download it again",
                             d->file->name);
        if (record == EXTENSION_RECORD_TYPE) TRY(read_extension(d));
        if (record != IMAGE_DESC_RECORD_TYPE) continue;
        return DGifGetImageDesc(d->gif) == GIF_OK ? 0 : failed(d, d->gif->Error);
    }
}

/* Without any palette, values are gray, as in Pillow. */
static void read_palette(GifDecoder *d) {
    const ColorMapObject *map = d->gif->Image.ColorMap;
    if (!map) map = d->gif->SColorMap;
    d->color_count = map ? map->ColorCount : 256;
    for (int i = 0; i < d->color_count && i < 256; i++) {
        uint8_t *to = d->colors[i];
        if (map)
            to[0] = map->Colors[i].Red, to[1] = map->Colors[i].Green, to[2] = map->Colors[i].Blue;
        else
            memset(to, i, 3);
    }
    if (d->transparent >= 0 && d->transparent < 256) memset(d->colors[d->transparent], 255, 3);
}

/* The canvas grows to hold the frame, as in Pillow. Around the frame it has the transparent color,
 * or color 0. */
static int start(GifDecoder *d) {
    const GifImageDesc *frame = &d->gif->Image;
    if (frame->Width < 1 || frame->Height < 1)
        return error_set(d->err,
                         "%s: broken GIF: a first frame of %dx%d pixels; copy or download it again",
                         d->file->name, frame->Width, frame->Height);
    int64_t right = (int64_t)frame->Left + frame->Width, width = d->gif->SWidth;
    int64_t bottom = (int64_t)frame->Top + frame->Height, height = d->gif->SHeight;
    if (right > width) width = right;
    if (bottom > height) height = bottom;
    TRY(encoded_check_size(d->file, "GIF", width, height, 1, d->err));
    d->width = (int)width, d->height = (int)height;
    read_palette(d);
    d->indices = malloc((size_t)frame->Width);
    d->rgb = malloc((size_t)width * 3);
    if (!d->indices || !d->rgb)
        return error_set(d->err, "%s: not enough memory for a row of %d pixels", d->file->name,
                         d->width);
    const uint8_t *around = d->colors[d->transparent >= 0 ? d->transparent : 0];
    for (int x = 0; x < d->width; x++) memcpy(d->rgb + (size_t)x * 3, around, 3);
    return rows_start(d->file, d->width, d->height, d->err);
}

/* Decodes the frame's next row, which is row y of the canvas. */
static int read_row(GifDecoder *d, int y) {
    const GifImageDesc *frame = &d->gif->Image;
    if (DGifGetLine(d->gif, d->indices, frame->Width) != GIF_OK) return failed(d, d->gif->Error);
    uint8_t *to = d->rgb + (size_t)frame->Left * 3;
    for (int x = 0; x < frame->Width; x++, to += 3) {
        int index = d->indices[x];
        if (index >= d->color_count && index != d->transparent)
            return error_set(d->err,
                             "%s: broken GIF: a pixel has color %d of a palette of %d; copy or "
                             "download it again",
                             d->file->name, index, d->color_count);
        memcpy(to, d->colors[index], 3);
    }
    rows_put(d->file, y, d->rgb);
    return 0;
}

/* Rows above and below the frame first: they need the row buffer as it is. */
static int read_rows(GifDecoder *d) {
    static const int first[] = {0, 4, 2, 1}, step[] = {8, 8, 4, 2};
    const GifImageDesc *frame = &d->gif->Image;
    for (int y = 0; y < frame->Top; y++) rows_put(d->file, y, d->rgb);
    for (int y = frame->Top + frame->Height; y < d->height; y++) rows_put(d->file, y, d->rgb);
    for (int pass = 0; pass < (frame->Interlace ? 4 : 1); pass++)
        for (int y = first[pass]; y < frame->Height; y += frame->Interlace ? step[pass] : 1)
            TRY(read_row(d, frame->Top + y));
    return 0;
}

int gif_decode(Encoded *file, Error *err) {
    GifDecoder d = {.file = file, .err = err, .transparent = NO_TRANSPARENT_COLOR};
    int reason = 0;
    d.gif = DGifOpen(&d, on_read, &reason);
    if (!d.gif) return failed(&d, reason);
    int result = find_frame(&d);
    if (result == 0) result = start(&d);
    if (result == 0) result = read_rows(&d);
    DGifCloseFile(d.gif, &reason);
    free(d.indices);
    free(d.rgb);
    return result;
}

bool gif_state(char *out, size_t size) {
    snprintf(out, size, "giflib %d.%d.%d", GIFLIB_MAJOR, GIFLIB_MINOR, GIFLIB_RELEASE);
    return true;
}
#endif
