/* token_pattern.c - see token_pattern.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "language/token_pattern.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct TokenPattern {
    pcre2_code *code;
};

/* ---- Ruby's syntax to Perl's. ---- */

typedef struct Rewrite {
    const char *at, *end;
    TokenText out;
    bool bracket;
    Error *err;
} Rewrite;

static int put(Rewrite *r, const char *text) {
    return token_text_append(&r->out, text, strlen(text), r->err);
}

static int refuse(const Rewrite *r, const char *what) {
    return error_set(r->err, "%s in an expression is not supported", what);
}

/* A property: \p{L} and other classes of one or two letters are the same; longer names are scripts
 * (in PCRE2 a plain name would also match the characters that scripts share). */
static int rewrite_property(Rewrite *r) {
    const char *name = r->at + 3, *close = memchr(name, '}', (size_t)(r->end - name));
    if (!close) return refuse(r, "\\p without a closing brace");
    size_t size = (size_t)(close - name), negated = *name == '^';
    TRY(token_text_append(&r->out, r->at, 3 + negated, r->err));
    name += negated, size -= negated;
    if (size > 2) TRY(put(r, "sc:"));
    TRY(token_text_append(&r->out, name, size, r->err));
    r->at = close + 1;
    return put(r, "}");
}

static int rewrite_code_point(Rewrite *r) {
    for (int i = 2; i < 6; i++)
        if (r->end - r->at < 6 || !strchr("0123456789abcdefABCDEF", r->at[i]))
            return refuse(r, "\\u without four hexadecimal digits");
    TRY(put(r, "\\x{"));
    TRY(token_text_append(&r->out, r->at + 2, 4, r->err));
    r->at += 6;
    return put(r, "}");
}

static int rewrite_escape(Rewrite *r) {
    char c = r->end - r->at > 1 ? r->at[1] : 0;
    char name[] = {'\\', c, 0};
    if (c && strchr("pP", c) && r->end - r->at > 3 && r->at[2] == '{') return rewrite_property(r);
    if (c == 'u') return rewrite_code_point(r);
    const char *same = NULL;
    if (c == 's') same = "\\p{White_Space}";
    if (c == 'S') same = "\\P{White_Space}";
    if (c == 'w')
        same = r->bracket ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
                          : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    if (c == 'W' && !r->bracket) same = "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    if (c == 'd') same = "\\p{Nd}";
    if (c == 'D') same = "\\P{Nd}";
    if (same) {
        r->at += 2;
        return put(r, same);
    }
    bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!c || (letter && !strchr("nrtfvaexAz", c)) || (c == 'x' && r->bracket && !r->at[2]))
        return refuse(r, name);
    TRY(token_text_append(&r->out, r->at, 2, r->err));
    r->at += 2;
    return 0;
}

/* In brackets Ruby knows sets and intersections; outside, "}+" repeats what is already repeated. */
static int rewrite_plain(Rewrite *r) {
    size_t left = (size_t)(r->end - r->at);
    char c = *r->at;
    if (r->bracket && c == '[') return refuse(r, "a set inside brackets");
    if (r->bracket && c == '&' && left > 1 && r->at[1] == '&') return refuse(r, "&&");
    if (!r->bracket && c == '}' && left > 1 && r->at[1] == '+') return refuse(r, "}+");
    if (!r->bracket && c == '(' && left > 2 && r->at[1] == '?' && !strchr("i:=!<>", r->at[2]))
        return refuse(r, "an option other than (?i");
    if (!r->bracket && c == '(' && left > 1 && r->at[1] == '*') return refuse(r, "(*");
    size_t size = 1;
    if (c == '[') {
        r->bracket = true;
        if (left > 1 && r->at[1] == '^') size++;
        if (left > size && r->at[size] == ']') return refuse(r, "] at the start of brackets");
    } else if (c == ']') {
        r->bracket = false;
    }
    TRY(token_text_append(&r->out, r->at, size, r->err));
    r->at += size;
    return 0;
}

static int rewrite(Rewrite *r) {
    while (r->at < r->end) TRY(*r->at == '\\' ? rewrite_escape(r) : rewrite_plain(r));
    return 0;
}

/* ---- Matching. ---- */

static int compile(TokenPattern *pattern, const TokenText *expression, Error *err) {
    int code;
    size_t at;
    pattern->code = pcre2_compile((PCRE2_SPTR)expression->bytes, expression->size,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                  &code, &at, NULL);
    if (!pattern->code) {
        char message[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return error_set(err, "not an expression that PCRE2 reads: %s", message);
    }
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* without it the library interprets */
    return 0;
}

int token_pattern_open(TokenPattern **pattern, const char *expression, Error *err) {
    Rewrite r = {.at = expression, .end = expression + strlen(expression), .err = err};
    *pattern = NULL;
    if (r.at == r.end) return error_set(err, "an empty expression");
    TokenPattern *opened = calloc(1, sizeof *opened);
    int status = opened ? rewrite(&r) : error_set(err, "out of memory for an expression");
    if (status == 0) status = compile(opened, &r.out, err);
    token_text_free(&r.out);
    if (status) {
        token_pattern_close(opened);
        return error_context(err, "\"%.200s\"", expression);
    }
    *pattern = opened;
    return 0;
}

void token_pattern_close(TokenPattern *pattern) {
    if (!pattern) return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

void token_matcher_free(TokenMatcher *matcher) {
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    pcre2_jit_stack_free(matcher->stack);
    *matcher = (TokenMatcher){0};
}

static int matcher_prepare(TokenMatcher *matcher, Error *err) {
    if (matcher->data) return 0;
    matcher->context = pcre2_match_context_create(NULL);
    matcher->stack = pcre2_jit_stack_create(32 << 10, 1 << 20, NULL);
    if (matcher->context) matcher->data = pcre2_match_data_create(1, NULL);
    if (!matcher->data) return error_set(err, "out of memory to match an expression");
    if (matcher->stack) pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    return 0;
}

int token_pattern_find(const TokenPattern *pattern, TokenMatcher *matcher, const char *text,
                       size_t size, size_t from, size_t *start, size_t *end, Error *err) {
    *start = *end = SIZE_MAX;
    TRY(matcher_prepare(matcher, err));
    /* A linear expression steps a few times for each character that it passes. */
    size_t steps = 1000000 + 16 * (size - from);
    pcre2_set_match_limit(matcher->context, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, size, from, options, matcher->data,
                            matcher->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(pattern->code, (PCRE2_SPTR)text, size, from, options | PCRE2_NO_JIT,
                            matcher->data, matcher->context);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    if (found < 0) {
        char message[128] = "";
        pcre2_get_error_message(found, (PCRE2_UCHAR *)message, sizeof message);
        return error_set(err, "text: the tokenizer's expression fails at byte %zu: %s", from,
                         message);
    }
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(matcher->data);
    *start = bounds[0];
    *end = bounds[1] < bounds[0] ? bounds[0] : bounds[1];
    return 0;
}
