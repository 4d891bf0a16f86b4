/* answer_text.c - see answer_text.h. */
#include "projector/answer_text.h"

#include <stdlib.h>
#include <string.h>

static bool is_white(char c) {
    return c && strchr(" \t\r\n\v\f", c);
}

bool answer_after_space(const LanguageModel *m, const Tokenizer *tokenizer, const char *prompt) {
    if (m->llama || !prompt || !*prompt || is_white(prompt[strlen(prompt) - 1])) return false;
    return !strcmp(tokenizer_kind(tokenizer), "byte-level BPE");
}

int answer_text_encode(const Tokenizer *tokenizer, bool spaced, const char *text, size_t size,
                       Ids *ids, Error *err) {
    if (!spaced || !size || is_white(*text))
        return tokenizer_encode(tokenizer, text, size, ids, err);
    char *after = malloc(size + 1);
    if (!after) return error_set(err, "out of memory for an answer of %zu bytes", size);
    after[0] = ' ';
    memcpy(after + 1, text, size);
    int status = tokenizer_encode(tokenizer, after, size + 1, ids, err);
    free(after);
    return status;
}

int answer_target_length(const LanguageModel *m, const Tokenizer *tokenizer, bool causal,
                         const char *prompt, const char *target, int *length, Error *err) {
    Ids ids = {0};
    const bool spaced = answer_after_space(m, tokenizer, prompt);
    int status = answer_text_encode(tokenizer, spaced, target, strlen(target), &ids, err);
    *length = (ids.count ? (int)ids.count : 1) + (m->llama && !causal);
    ids_free(&ids);
    return status;
}
