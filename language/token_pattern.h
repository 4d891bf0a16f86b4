/* token_pattern.h - regular expressions of tokenizer.json, run by PCRE2.
 *
 * The files' expressions are Oniguruma's (Ruby's syntax). What both write alike is passed on; \s,
 * \w, \u and names of scripts are rewritten to mean the same; what PCRE2 would read differently (\h,
 * \b, {1,2}+, sets inside brackets) is refused. Characters have the properties of the library's
 * version of Unicode. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_PATTERN_H
#define EASYFIRST_LANGUAGE_TOKEN_PATTERN_H

#include "language/token_text.h"

typedef struct TokenPattern TokenPattern;

/* What a thread needs to match; zero-initialize, free with token_matcher_free. */
typedef struct TokenMatcher {
    void *data, *context, *stack;
} TokenMatcher;

/* *pattern is NULL on failure. Errors: not an expression, or one that is not supported. */
int token_pattern_open(TokenPattern **pattern, const char *expression, Error *err);
void token_pattern_close(TokenPattern *pattern);
void token_matcher_free(TokenMatcher *matcher);

/* The first match in text [size] from `from` on: *start is SIZE_MAX if there is none. Errors: out of
 * memory, or an expression that needs too many steps. */
int token_pattern_find(const TokenPattern *pattern, TokenMatcher *matcher, const char *text,
                       size_t size, size_t from, size_t *start, size_t *end, Error *err);

#endif
