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

int answer_target_length(const Multimodal *m, const char *prompt, const char *target, int *length,
                         Error *err) {
    Ids ids = {0};
    const bool spaced = answer_after_space(&m->language, m->tokenizer, prompt);
    const bool ends = m->language.llama && m->attention != ATTENTION_CAUSAL;
    int status = answer_text_encode(m->tokenizer, spaced, target, strlen(target), &ids, err);
    if (status == 0) status = answer_pad(m, &ids, 0, err);
    *length = (ids.count ? (int)ids.count : 1) + ends;
    ids_free(&ids);
    return status;
}

int answer_pad(const Multimodal *m, Ids *ids, size_t begin, Error *err) {
    const int32_t end = m->language.end;
    while (end >= 0 && ids->count - begin < (size_t)m->pad_answers)
        TRY(ids_append(ids, &end, 1, err));
    return 0;
}
