#include "apps/show/text.h"

#include <stdlib.h>
#include <string.h>

#include <unictype.h>
#include <unigbrk.h>
#include <unilbrk.h>
#include <unistr.h>
#include <uniwidth.h>

#include "kernels/clean_text.h"

enum { JOINER = 0x200D, EMOJI_STYLE = 0xFE0F, FLAG_FIRST = 0x1F1E6, FLAG_LAST = 0x1F1FF };

/* ---- Styled text. ---- */

int styled_append(StyledText *text, const char *bytes, size_t size, uint8_t style, Error *err) {
    size_t need = text->size + 3 * size + 4; /* a byte becomes three at most */
    if (need > text->capacity) {
        size_t capacity = need + need / 2;
        char *more = realloc(text->text, capacity);
        if (more) text->text = more;
        uint8_t *styles = realloc(text->styles, capacity);
        if (styles) text->styles = styles;
        if (!more || !styles) return error_set(err, "out of memory for a text of %zu bytes", size);
        text->capacity = capacity;
    }
    for (size_t used, i = 0; i < size; i += used) {
        size_t n = clean_character(text->text + text->size, bytes + i, size - i, &used);
        memset(text->styles + text->size, style, n);
        text->size += n;
    }
    return 0;
}

void styled_clear(StyledText *text) {
    text->size = 0;
}

void styled_free(StyledText *text) {
    free(text->text), free(text->styles);
    *text = (StyledText){0};
}

char *harmless_text(const char *text) {
    StyledText styled = {0};
    if (styled_append(&styled, text, strlen(text), 0, NULL)) {
        styled_free(&styled);
        return NULL;
    }
    free(styled.styles);
    styled.text[styled.size] = 0; /* there is room for 4 more bytes than the text took */
    return styled.text;
}

/* ---- Clusters. ---- */

/* Combined properties of one cluster's characters. */
static void cluster_measure(Cluster *cluster, const uint8_t *bytes) {
    int sum = 0, characters = 0, flags = 0, wide = 0;
    bool emoji = false, mark = false, unknown = false;
    const uint8_t *end = bytes + cluster->size;
    for (const uint8_t *p = bytes; p < end; characters++) {
        ucs4_t c;
        int n = u8_mbtoucr(&c, p, (size_t)(end - p));
        int width = uc_width(c, "UTF-8");
        p += n > 0 ? n : 1;
        if (c == JOINER || c == EMOJI_STYLE || (c >= 0x1F3FB && c <= 0x1F3FF))
            emoji |= characters > 0;
        if (c >= FLAG_FIRST && c <= FLAG_LAST) flags++;
        if (characters == 0) mark = uc_is_general_category(c, UC_CATEGORY_M);
        unknown |= c >= 0x1F000 || uc_is_general_category(c, UC_CATEGORY_Cn) ||
                   uc_is_general_category(c, UC_CATEGORY_Co);
        wide |= width == 2;
        sum += width > 0 ? width : 0;
    }
    /* U+200D also joins letters of Indic and Arabic scripts: only wide clusters or those with emoji
     * presentation are emoji. */
    emoji = flags == 2 || (emoji && (wide || memmem(bytes, cluster->size, "\xef\xb8\x8f", 3)));
    cluster->lone = sum == 0 && mark;
    sum += cluster->lone;
    cluster->width = (uint8_t)(emoji ? 2 : sum < 250 ? sum : 250);
    cluster->unsure = emoji || unknown || characters > 1 || cluster->lone;
    cluster->space = characters == 1 && *bytes == ' ';
}

static int layout_room(Layout *layout, const StyledText *text, Error *err) {
    if (text->size >= layout->cluster_room) {
        size_t room = text->size + text->size / 2 + 16;
        Cluster *clusters = realloc(layout->clusters, room * sizeof *clusters);
        if (clusters) layout->clusters = clusters;
        Line *lines = realloc(layout->lines, room * sizeof *lines); /* one cluster each at least */
        if (lines) layout->lines = lines;
        char *breaks = realloc(layout->breaks, 2 * room);
        if (breaks) layout->breaks = breaks;
        if (!clusters || !lines || !breaks)
            return error_set(err, "out of memory for a text of %zu bytes", text->size);
        layout->cluster_room = layout->line_room = layout->break_room = room;
    }
    return 0;
}

static void find_clusters(Layout *layout, const StyledText *text) {
    const uint8_t *bytes = (const uint8_t *)text->text, *end = bytes + text->size;
    layout->cluster_count = 0;
    if (!text->size) return;
    char *breaks = layout->breaks, *starts = breaks + layout->break_room;
    u8_possible_linebreaks(bytes, text->size, "UTF-8", breaks);
    u8_grapheme_breaks(bytes, text->size, starts);
    for (const uint8_t *p = bytes, *next; p < end; p = next) {
        for (next = p + 1; next < end && !starts[next - bytes];) next++;
        Cluster *c = &layout->clusters[layout->cluster_count++];
        *c = (Cluster){.begin = (size_t)(p - bytes), .size = (size_t)(next - p)};
        c->breaks = breaks[c->begin] == UC_BREAK_POSSIBLE;
        cluster_measure(c, p);
    }
}

/* ---- Lines. ---- */

static int width_in(const Cluster *c, int columns) {
    return c->width < columns ? c->width : columns;
}

/* The end of the line that begins at cluster `first`; *next is the start of the following one. */
static size_t line_end(const Layout *layout, size_t first, int columns, size_t *next) {
    const Cluster *c = layout->clusters;
    size_t n = layout->cluster_count, at = first, last = 0;
    int width = 0;
    for (; at < n; at++) {
        if (at > first && c[at].breaks) last = at;
        if (width + width_in(&c[at], columns) > columns) break;
        width += width_in(&c[at], columns);
    }
    size_t end = at;
    if (at < n && !c[at].space && last > first) end = last;
    if (end == first && first < n) end = first + 1;
    *next = end;
    if (end == n) return end;
    while (*next < n && c[*next].space) ++*next;
    while (end > first && c[end - 1].space) end--;
    return end;
}

int layout_make(Layout *layout, const StyledText *text, int columns, Error *err) {
    TRY(layout_room(layout, text, err));
    find_clusters(layout, text);
    layout->line_count = 0;
    size_t first = 0, next;
    do {
        size_t end = line_end(layout, first, columns, &next);
        Line *line = &layout->lines[layout->line_count++];
        *line = (Line){.first = first, .count = end - first};
        for (size_t i = first; i < end; i++) line->width += width_in(&layout->clusters[i], columns);
        first = next;
    } while (first < layout->cluster_count);
    return 0;
}

void layout_free(Layout *layout) {
    free(layout->clusters), free(layout->lines), free(layout->breaks);
    *layout = (Layout){0};
}

int text_width(const char *text) {
    StyledText styled = {0};
    Layout layout = {0};
    int width = 0;
    if (styled_append(&styled, text, strlen(text), 0, NULL) == 0 &&
        layout_room(&layout, &styled, NULL) == 0) {
        find_clusters(&layout, &styled);
        for (size_t i = 0; i < layout.cluster_count; i++) width += layout.clusters[i].width;
    }
    styled_free(&styled), layout_free(&layout);
    return width;
}
