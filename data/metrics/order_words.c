#include "data/metrics/order_words.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>
#include <uniwbrk.h>

#include "data/files/array_grow.h"

void order_words_free(OrderWords *words) {
    for (int i = 0; i < words->count; i++) free(words->items[i].form);
    free(words->items);
    *words = (OrderWords){0};
}

static bool has_letter(const uint8_t *text, size_t size) {
    for (size_t at = 0; at < size;) {
        ucs4_t c;
        int n = u8_mbtouc(&c, text + at, size - at);
        if (n < 1) return false;
        if (uc_is_general_category_withtable(c, UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_N))
            return true;
        at += (size_t)n;
    }
    return false;
}

static char *folded(const uint8_t *text, size_t size) {
    size_t length;
    uint8_t *form = u8_casefold(text, size, NULL, UNINORM_NFKC, NULL, &length);
    char *out = form ? malloc(length + 1) : NULL;
    if (out) memcpy(out, form, length), out[length] = 0;
    free(form);
    return out;
}

static int words_collect(OrderWords *words, const uint8_t *text, size_t size, const char *breaks,
                         Error *err) {
    size_t capacity = 0;
    for (size_t begin = 0, end; begin < size; begin = end) {
        for (end = begin + 1; end < size && !breaks[end];) end++;
        if (!has_letter(text + begin, end - begin)) continue;
        if ((size_t)words->count == capacity) {
            OrderWord *more = array_grow(words->items, &capacity, sizeof *more);
            if (!more) return error_set(err, "out of memory for words");
            words->items = more;
        }
        char *form = folded(text + begin, end - begin);
        if (!form) return error_set(err, "out of memory for words");
        words->items[words->count++] = (OrderWord){begin, end, form};
    }
    return 0;
}

int order_words(OrderWords *words, const char *text, Error *err) {
    const uint8_t *bytes = (const uint8_t *)text;
    size_t size = strlen(text);
    *words = (OrderWords){0};
    const uint8_t *wrong = u8_check(bytes, size);
    if (wrong)
        return error_set(err,
                         "a text is not valid UTF-8 at byte %zu, its words cannot be separated",
                         (size_t)(wrong - bytes));
    char *breaks = malloc(size + 1);
    if (!breaks) return error_set(err, "out of memory for words");
    u8_wordbreaks(bytes, size, breaks);
    int status = words_collect(words, bytes, size, breaks, err);
    free(breaks);
    if (status) order_words_free(words);
    return status;
}

int order_text(char **text, size_t *ends, const char *const *pieces, int count, Error *err) {
    static const char space[] = "\xe2\x96\x81"; /* U+2581 */
    size_t size = 0;
    for (int i = 0; i < count; i++) size += strlen(pieces[i]);
    *text = malloc(size + 1);
    if (!*text) return error_set(err, "out of memory for a text");
    char *to = *text;
    for (int i = 0; i < count; i++) {
        for (const char *from = pieces[i]; *from;) {
            bool blank = !strncmp(from, space, 3);
            *to++ = blank ? ' ' : *from;
            from += blank ? 3 : 1;
        }
        ends[i] = (size_t)(to - *text);
    }
    *to = 0;
    return 0;
}

void order_places(const size_t *ends, int count, size_t begin, size_t end, int *first, int *after) {
    int i = 0;
    while (i < count && ends[i] <= begin) i++;
    *first = i;
    while (i < count && (i ? ends[i - 1] : 0) < end) i++;
    *after = i;
}
