/* tokenize.c - sacrebleu's tokenizers.
 *
 * They are defined by regular expressions that are replaced one after the other over the whole
 * line; each is one pass here, from one array into the other. A replaced pair of characters is
 * skipped as a whole, which is why the passes cannot be joined: in "1..a" the second period belongs
 * to the first pair.
 */
#include <string.h>

#include <unictype.h>

#include "data/metrics/tokenize.h"
#include "data/metrics/unicode_newer.h"
#include "kernels/names.h"

const char *const tokenize_names[] = {"13a", "intl", "none", "char", "zh", NULL};

const char *tokenize_name(Tokenize tokenize) {
    return names_get(tokenize_names, (int)tokenize);
}

bool tokenize_find(const char *name, Tokenize *tokenize) {
    int value = names_find(tokenize_names, name);
    if (value >= 0) *tokenize = (Tokenize)value;
    return value >= 0;
}

/* ---- Classes of characters. ---- */

static bool is_digit(uint32_t c) {
    return c >= '0' && c <= '9';
}

static bool is_no_digit(uint32_t c) {
    return !is_digit(c);
}

static bool is_stop(uint32_t c) {
    return c == '.' || c == ',';
}

static bool is_dash(uint32_t c) {
    return c == '-';
}

/* ASCII's punctuation and the space, but for ' , - and . */
static bool is_apart(uint32_t c) {
    return c == ' ' ||
           (codepoint_is_punctuation(c) && c != '\'' && c != ',' && c != '-' && c != '.');
}

static bool in_ranges(uint32_t c, const uint32_t ranges[][2], size_t count) {
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

/* Of a general category; `newer` has the characters that libunistring does not know. */
static bool is_of(uint32_t c, uc_general_category_t category, const uint32_t newer[][2],
                  size_t count) {
    if (uc_is_general_category(c, category)) return true;
    return c >= newer[0][0] && uc_is_general_category(c, UC_CATEGORY_Cn) &&
           in_ranges(c, newer, count);
}

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool is_punctuation(uint32_t c) {
    return is_of(c, UC_CATEGORY_P, newer_punctuation, COUNT(newer_punctuation));
}

static bool is_symbol(uint32_t c) {
    return is_of(c, UC_CATEGORY_S, newer_symbol, COUNT(newer_symbol));
}

static bool is_no_number(uint32_t c) {
    return !is_of(c, UC_CATEGORY_N, newer_number, COUNT(newer_number));
}

/* Characters that sacrebleu's zh treats as Chinese. Its lists were made for UTF-16 strings, and
 * with code points two of them are not what was intended: the ranges of extension B and of the
 * compatibility supplement became U+2001..2A6D (with the dashes and quotes) and U+2F81..2FA1. */
static bool is_chinese(uint32_t c) {
    static const uint32_t ranges[][2] = {
        {0x2001, 0x2a6d}, {0x2e80, 0x2fdf}, {0x2ff0, 0x303f}, {0x3100, 0x312f}, {0x31a0, 0x31bf},
        {0x31c0, 0x31ef}, {0x3200, 0x33ff}, {0x3400, 0x4db5}, {0x4e00, 0x9fbb}, {0xf900, 0xfa2d},
        {0xfa30, 0xfa6a}, {0xfa70, 0xfad9}, {0xfe10, 0xfe1f}, {0xfe30, 0xfe4f}, {0xff00, 0xffef},
    };
    return in_ranges(c, ranges, COUNT(ranges));
}

static bool is_any(uint32_t c) {
    (void)c;
    return true;
}

/* ---- Passes. ---- */

typedef bool CharacterTest(uint32_t c);

static void codepoints_swap(Codepoints *a, Codepoints *b) {
    Codepoints c = *a;
    *a = *b;
    *b = c;
}

/* Spaces around every character of a class. */
static int separate(CharacterTest *test, Codepoints *text, Codepoints *scratch, Error *err) {
    scratch->count = 0;
    for (size_t i = 0; i < text->count; i++) {
        bool apart = test(text->items[i]);
        if (apart) TRY(codepoints_append(scratch, ' ', err));
        TRY(codepoints_append(scratch, text->items[i], err));
        if (apart) TRY(codepoints_append(scratch, ' ', err));
    }
    codepoints_swap(text, scratch);
    return 0;
}

/* Spaces around the first (with `before`) or second character of every pair of two classes. */
static int separate_pairs(CharacterTest *first, CharacterTest *second, bool before,
                          Codepoints *text, Codepoints *scratch, Error *err) {
    scratch->count = 0;
    for (size_t i = 0; i < text->count; i++) {
        const uint32_t *pair = text->items + i;
        if (i + 1 == text->count || !first(pair[0]) || !second(pair[1])) {
            TRY(codepoints_append(scratch, pair[0], err));
            continue;
        }
        if (before) TRY(codepoints_append(scratch, ' ', err));
        TRY(codepoints_append(scratch, pair[0], err));
        TRY(codepoints_append(scratch, ' ', err));
        TRY(codepoints_append(scratch, pair[1], err));
        if (!before) TRY(codepoints_append(scratch, ' ', err));
        i++;
    }
    codepoints_swap(text, scratch);
    return 0;
}

static int replace(const char *what, const char *with, Codepoints *text, Codepoints *scratch,
                   Error *err) {
    size_t size = strlen(what);
    scratch->count = 0;
    for (size_t i = 0; i < text->count; i++) {
        size_t same = 0;
        while (same < size && i + same < text->count &&
               text->items[i + same] == (unsigned char)what[same])
            same++;
        if (same < size) {
            TRY(codepoints_append(scratch, text->items[i], err));
            continue;
        }
        for (const char *c = with; *c; c++) TRY(codepoints_append(scratch, (unsigned char)*c, err));
        i += size - 1;
    }
    codepoints_swap(text, scratch);
    return 0;
}

/* Shared by 13a and zh. */
static int tokenize_western(Codepoints *text, Codepoints *scratch, Error *err) {
    TRY(separate(is_apart, text, scratch, err));
    TRY(separate_pairs(is_no_digit, is_stop, false, text, scratch, err));
    TRY(separate_pairs(is_stop, is_no_digit, true, text, scratch, err));
    return separate_pairs(is_digit, is_dash, false, text, scratch, err);
}

static int tokenize_13a(Codepoints *text, Codepoints *scratch, Error *err) {
    static const char *const replaced[][2] = {{"<skipped>", ""}, {"-\n", ""},    {"\n", " "},
                                              {"&quot;", "\""},  {"&amp;", "&"}, {"&lt;", "<"},
                                              {"&gt;", ">"}};
    bool entities = false, other = false;
    for (size_t i = 0; i < text->count; i++) {
        entities |= text->items[i] == '&';
        other |= text->items[i] == '<' || text->items[i] == '\n';
    }
    for (int i = 0; i < 7; i++)
        if (i < 3 ? other : entities)
            TRY(replace(replaced[i][0], replaced[i][1], text, scratch, err));
    /* A space at both ends, so that a period there is next to a non-digit. */
    scratch->count = 0;
    TRY(codepoints_append(scratch, ' ', err));
    for (size_t i = 0; i < text->count; i++) TRY(codepoints_append(scratch, text->items[i], err));
    TRY(codepoints_append(scratch, ' ', err));
    codepoints_swap(text, scratch);
    return tokenize_western(text, scratch, err);
}

static int tokenize_intl(Codepoints *text, Codepoints *scratch, Error *err) {
    TRY(separate_pairs(is_no_number, is_punctuation, false, text, scratch, err));
    TRY(separate_pairs(is_punctuation, is_no_number, true, text, scratch, err));
    return separate(is_symbol, text, scratch, err);
}

int tokenize_codepoints(Tokenize tokenize, Codepoints *text, Codepoints *scratch, Error *err) {
    codepoints_strip_end(text);
    switch (tokenize) {
    case TOKENIZE_13A:
        return tokenize_13a(text, scratch, err);
    case TOKENIZE_INTL:
        return tokenize_intl(text, scratch, err);
    case TOKENIZE_CHAR:
        return separate(is_any, text, scratch, err);
    case TOKENIZE_ZH:
        codepoints_strip(text);
        TRY(separate(is_chinese, text, scratch, err));
        return tokenize_western(text, scratch, err);
    default:
        return 0;
    }
}

int tokenize_line(Tokenize tokenize, bool lowercase, const char *line, char **words, Error *err) {
    Codepoints text = {0}, out = {0};
    size_t begin, end = 0;
    int status = codepoints_decode(&text, line, err);
    if (status == 0 && lowercase) status = codepoints_lower(&text, err);
    if (status == 0) status = tokenize_codepoints(tokenize, &text, &out, err);
    out.count = 0;
    while (status == 0 && codepoints_next_word(&text, &begin, &end)) {
        if (out.count) status = codepoints_append(&out, ' ', err);
        for (size_t i = begin; i < end && status == 0; i++)
            status = codepoints_append(&out, text.items[i], err);
    }
    if (status == 0) status = codepoints_encode(&out, words, err);
    codepoints_free(&text);
    codepoints_free(&out);
    return status;
}
