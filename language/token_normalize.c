/* token_normalize.c - see token_normalize.h. */
#include "language/token_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>

#include "kernels/names.h"
#include "language/token_charsmap.h"
#include "language/token_json.h"

typedef enum StepKind {
    STEP_NFC,
    STEP_NFD,
    STEP_NFKC,
    STEP_NFKD,
    STEP_LOWERCASE,
    STEP_STRIP_ACCENTS,
    STEP_STRIP,
    STEP_REPLACE,
    STEP_PREPEND,
    STEP_PRECOMPILED,
    STEP_NMT,
    STEP_BERT,
    STEP_BYTE_LEVEL,
    STEP_SEQUENCE
} StepKind;
static const char *const step_names[] = {"NFC",       "NFD",          "NFKC",  "NFKD",
                                         "Lowercase", "StripAccents", "Strip", "Replace",
                                         "Prepend",   "Precompiled",  "Nmt",   "BertNormalizer",
                                         "ByteLevel", "Sequence",     NULL};

enum { STEPS_MOST = 64 };

struct TokenNormalizeStep {
    StepKind kind;
    char *string, *with;                     /* Replace; Prepend has `with` alone */
    TokenPattern *pattern;                   /* Replace */
    TokenCharsmap map;                       /* Precompiled */
    bool left, right;                        /* Strip */
    bool clean, chinese, accents, lowercase; /* BertNormalizer */
};

/* ---- Reading. ---- */

static int copy(char **to, const char *text, Error *err) {
    *to = strdup(text);
    return *to ? 0 : error_set(err, "out of memory for a normalizer");
}

static int read_replace(TokenNormalizeStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    const char *pattern, *with = NULL;
    bool regex;
    TRY(token_json_keys(part, "normalizer Replace", keys, err));
    TRY(token_json_pattern(part, &pattern, &regex, err));
    TRY(token_json_text(part, "content", &with, err));
    if (!with || !*pattern) return error_set(err, "Replace: expected a pattern and a \"content\"");
    TRY(copy(&step->with, with, err));
    return regex ? token_pattern_open(&step->pattern, pattern, err)
                 : copy(&step->string, pattern, err);
}

static int read_bert(TokenNormalizeStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {"type",          "clean_text", "handle_chinese_chars",
                                       "strip_accents", "lowercase",  NULL};
    TRY(token_json_keys(part, "normalizer BertNormalizer", keys, err));
    step->clean = step->chinese = step->lowercase = true;
    TRY(token_json_flag(part, "clean_text", &step->clean, err));
    TRY(token_json_flag(part, "handle_chinese_chars", &step->chinese, err));
    TRY(token_json_flag(part, "lowercase", &step->lowercase, err));
    step->accents = step->lowercase;
    return token_json_flag(part, "strip_accents", &step->accents, err);
}

static int read_step(TokenNormalizeStep *step, const json_t *part, Error *err) {
    static const char *const type_only[] = {"type", NULL};
    static const char *const strip[] = {"type", "strip_left", "strip_right", NULL};
    static const char *const prepend[] = {"type", "prepend", NULL};
    static const char *const precompiled[] = {"type", "precompiled_charsmap", NULL};
    const char *text = "";
    switch (step->kind) {
    case STEP_REPLACE:
        return read_replace(step, part, err);
    case STEP_BERT:
        return read_bert(step, part, err);
    case STEP_STRIP:
        TRY(token_json_keys(part, "normalizer Strip", strip, err));
        TRY(token_json_flag(part, "strip_left", &step->left, err));
        return token_json_flag(part, "strip_right", &step->right, err);
    case STEP_PREPEND:
        TRY(token_json_keys(part, "normalizer Prepend", prepend, err));
        TRY(token_json_text(part, "prepend", &text, err));
        return copy(&step->with, text, err);
    case STEP_PRECOMPILED:
        TRY(token_json_keys(part, "normalizer Precompiled", precompiled, err));
        TRY(token_json_text(part, "precompiled_charsmap", &text, err));
        return token_charsmap_open(&step->map, text, err);
    default:
        return token_json_keys(part, "normalizer", type_only, err);
    }
}

static int read_part(TokenNormalizer *n, const json_t *part, int depth, Error *err) {
    static const char *const keys[] = {"type", "normalizers", NULL};
    int kind = token_json_type(part, "normalizer", step_names, err);
    if (kind < 0) return -1;
    if (kind == STEP_SEQUENCE) {
        const json_t *list = json_object_get(part, "normalizers");
        TRY(token_json_keys(part, "normalizer Sequence", keys, err));
        if (!json_is_array(list) || depth > 8)
            return error_set(err, "normalizer Sequence: expected a list of normalizers");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(read_part(n, json_array_get(list, i), depth + 1, err));
        return 0;
    }
    if (n->count == STEPS_MOST) return error_set(err, "normalizer: more than %d steps", STEPS_MOST);
    TokenNormalizeStep *step = &n->steps[n->count++];
    step->kind = (StepKind)kind;
    return read_step(step, part, err);
}

int token_normalizer_open(TokenNormalizer *n, const json_t *part, Error *err) {
    *n = (TokenNormalizer){0};
    if (!part || json_is_null(part)) return 0;
    n->steps = calloc(STEPS_MOST, sizeof *n->steps);
    if (!n->steps) return error_set(err, "out of memory for a normalizer");
    return read_part(n, part, 0, err);
}

void token_normalizer_close(TokenNormalizer *n) {
    for (int i = 0; i < n->count; i++) {
        free(n->steps[i].string);
        free(n->steps[i].with);
        token_pattern_close(n->steps[i].pattern);
        token_charsmap_close(&n->steps[i].map);
    }
    free(n->steps);
    *n = (TokenNormalizer){0};
}

/* ---- Steps that change each character alone. ---- */

static bool is_ascii(const TokenText *text) {
    for (size_t i = 0; i < text->size; i++)
        if (text->bytes[i] & 0x80) return false;
    return true;
}

static int each(const TokenText *text, int (*change)(uint32_t c, TokenText *out, Error *err),
                TokenText *out, Error *err) {
    for (size_t i = 0, length; i < text->size; i += length)
        TRY(change(token_character(text->bytes + i, &length), out, err));
    return 0;
}

/* Rust's char::to_lowercase: of single characters, so that a final sigma is as any other. */
static int lower(uint32_t c, TokenText *out, Error *err) {
    if (c >= 'A' && c <= 'Z') c += 32;
    if (c == 0x130) { /* the only one that becomes two */
        TRY(token_text_append_character(out, 'i', err));
        return token_text_append_character(out, 0x307, err);
    }
    return token_text_append_character(out, c < 0x80 ? c : uc_tolower(c), err);
}

static int drop_marks(uint32_t c, TokenText *out, Error *err) {
    if (c >= 0x80 && uc_is_general_category(c, UC_MARK)) return 0;
    return token_text_append_character(out, c, err);
}

static int drop_nonspacing(uint32_t c, TokenText *out, Error *err) {
    if (c >= 0x80 && uc_is_general_category(c, UC_NON_SPACING_MARK)) return 0;
    return token_text_append_character(out, c, err);
}

static int bert_clean(uint32_t c, TokenText *out, Error *err) {
    bool space = token_is_space(c);
    if (c == '\t' || c == '\n' || c == '\r') return token_text_append_character(out, ' ', err);
    if (c == 0 || c == 0xFFFD) return 0;
    const uint32_t control =
        UC_CATEGORY_MASK_Cc | UC_CATEGORY_MASK_Cf | UC_CATEGORY_MASK_Cs | UC_CATEGORY_MASK_Co;
    if (uc_is_general_category_withtable(c, control)) return 0;
    return token_text_append_character(out, space ? ' ' : c, err);
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static int bert_chinese(uint32_t c, TokenText *out, Error *err) {
    bool alone = is_chinese(c);
    if (alone) TRY(token_text_append_character(out, ' ', err));
    TRY(token_text_append_character(out, c, err));
    return alone ? token_text_append_character(out, ' ', err) : 0;
}

static int nmt(uint32_t c, TokenText *out, Error *err) {
    if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
        c == 0x9F)
        return 0;
    bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 ||
                 (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xFEFF || c == 0xFFFD;
    return token_text_append_character(out, space ? ' ' : c, err);
}

/* ---- Steps on the whole. ---- */

static int compose(uninorm_t form, TokenText *text, TokenText *spare, Error *err) {
    size_t size;
    if (is_ascii(text)) return token_text_set(spare, text->bytes, text->size, err);
    uint8_t *done = u8_normalize(form, (const uint8_t *)text->bytes, text->size, NULL, &size);
    if (!done) return error_set(err, "text: out of memory to normalize %zu bytes", text->size);
    int status = token_text_set(spare, (const char *)done, size, err);
    free(done);
    return status;
}

static int strip(const TokenNormalizeStep *step, const TokenText *text, TokenText *out, bool *first,
                 Error *err) {
    size_t start = 0, end = text->size, length;
    while (step->left && start < end &&
           token_is_space(token_character(text->bytes + start, &length)))
        start += length;
    while (step->right && end > start) {
        size_t last = end - 1;
        while (last > start && ((unsigned char)text->bytes[last] & 0xC0) == 0x80) last--;
        if (!token_is_space(token_character(text->bytes + last, &length))) break;
        end = last;
    }
    if (start) *first = false;
    return end > start ? token_text_append(out, text->bytes + start, end - start, err) : 0;
}

/* The next occurrence: of a pattern, or of a string. */
static int next_match(const char *text, size_t size, size_t from, const char *string,
                      const TokenPattern *pattern, TokenMatcher *matcher, size_t *start,
                      size_t *end, Error *err) {
    if (pattern) return token_pattern_find(pattern, matcher, text, size, from, start, end, err);
    size_t length = strlen(string);
    const char *found = memmem(text + from, size - from, string, length);
    *start = found ? (size_t)(found - text) : SIZE_MAX;
    *end = *start + length;
    return 0;
}

int token_replace(const char *text, size_t size, const char *string, const TokenPattern *pattern,
                  TokenMatcher *matcher, const char *with, TokenText *out, Error *err) {
    size_t done = 0, start, end, from = 0;
    if (size == 0) return 0;
    while (from < size) {
        TRY(next_match(text, size, from, string, pattern, matcher, &start, &end, err));
        if (start == SIZE_MAX) break;
        TRY(token_text_append(out, text + done, start - done, err));
        TRY(token_text_append(out, with, strlen(with), err));
        done = from = end;
        if (end == start && from < size) { /* an empty match: the character after it stays */
            size_t length;
            token_character(text + from, &length);
            from += length;
        }
    }
    return token_text_append(out, text + done, size - done, err);
}

/* Lets `change` rewrite *text. */
static int rewrite(TokenText *text, TokenText *spare,
                   int (*change)(uint32_t c, TokenText *out, Error *err), Error *err) {
    spare->size = 0;
    TRY(each(text, change, spare, err));
    TokenText swap = *text;
    *text = *spare;
    *spare = swap;
    return 0;
}

/* The last of its changes is left for the caller to swap. */
static int bert(const TokenNormalizeStep *step, TokenText *text, TokenText *spare, Error *err) {
    if (step->clean) TRY(rewrite(text, spare, bert_clean, err));
    if (step->chinese && !is_ascii(text)) TRY(rewrite(text, spare, bert_chinese, err));
    if (step->accents && !is_ascii(text)) {
        TRY(compose(UNINORM_NFD, text, spare, err));
        TRY(rewrite(spare, text, drop_nonspacing, err));
        TRY(token_text_set(text, spare->bytes, spare->size, err));
    }
    spare->size = 0;
    return step->lowercase ? each(text, lower, spare, err)
                           : token_text_append(spare, text->bytes, text->size, err);
}

static int step_apply(const TokenNormalizeStep *step, TokenMatcher *matcher, TokenText *text,
                      TokenText *out, bool *first, Error *err) {
    switch (step->kind) {
    case STEP_NFC:
        return compose(UNINORM_NFC, text, out, err);
    case STEP_NFD:
        return compose(UNINORM_NFD, text, out, err);
    case STEP_NFKC:
        return compose(UNINORM_NFKC, text, out, err);
    case STEP_NFKD:
        return compose(UNINORM_NFKD, text, out, err);
    case STEP_LOWERCASE:
        return each(text, lower, out, err);
    case STEP_STRIP_ACCENTS:
        return each(text, drop_marks, out, err);
    case STEP_NMT:
        return each(text, nmt, out, err);
    case STEP_STRIP:
        return strip(step, text, out, first, err);
    case STEP_REPLACE:
        return token_replace(text->bytes, text->size, step->string, step->pattern, matcher,
                             step->with, out, err);
    case STEP_PREPEND:
        TRY(token_text_append(out, step->with, strlen(step->with), err));
        return token_text_append(out, text->bytes, text->size, err);
    case STEP_PRECOMPILED:
        return token_charsmap_apply(&step->map, text->bytes, text->size, out, err);
    case STEP_BERT:
        return bert(step, text, out, err);
    case STEP_BYTE_LEVEL:
        return token_text_append_mapped(out, text->bytes, text->size, err);
    case STEP_SEQUENCE:
        break; /* its steps are in the list */
    }
    return 0;
}

int token_normalize(const TokenNormalizer *n, TokenMatcher *matcher, TokenText *text,
                    TokenText *spare, bool *first, Error *err) {
    for (int i = 0; i < n->count && text->size; i++) {
        spare->size = 0;
        TRY(step_apply(&n->steps[i], matcher, text, spare, first, err));
        TokenText swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return 0;
}
