/* wordpiece.c - see wordpiece.h. */
#include "language/wordpiece.h"

#include <string.h>

#include "language/token_json.h"

static int add_piece(WordPiece *w, const char *text, size_t size, int32_t id, const char *prefix,
                     Error *err) {
    size_t skip = strlen(prefix);
    TRY(token_trie_add(&w->first, text, size, id, err));
    if (size <= skip || memcmp(text, prefix, skip) != 0) return 0;
    return token_trie_add(&w->next, text + skip, size - skip, id, err);
}

int wordpiece_open(WordPiece *w, const json_t *model, const TokenTable *table, Error *err) {
    static const char *const keys[] = {
        "type",  "unk_token", "continuing_subword_prefix", "max_input_chars_per_word",
        "vocab", NULL};
    const char *unknown = "[UNK]", *prefix = "##";
    *w = (WordPiece){.longest = 100};
    TRY(token_json_keys(model, "model WordPiece", keys, err));
    TRY(token_json_text(model, "unk_token", &unknown, err));
    TRY(token_json_text(model, "continuing_subword_prefix", &prefix, err));
    TRY(token_json_count(model, "max_input_chars_per_word", &w->longest, err));
    w->unknown = token_table_id(table, unknown, strlen(unknown));
    if (w->unknown < 0)
        return error_set(err, "unk_token \"%.60s\" is not in the vocabulary", unknown);
    for (int32_t id = 0; id < table->limit; id++) {
        size_t size;
        const char *text = token_table_text(table, id, &size);
        if (text && size) TRY(add_piece(w, text, size, id, prefix, err));
    }
    return 0;
}

void wordpiece_close(WordPiece *w) {
    token_trie_free(&w->first);
    token_trie_free(&w->next);
    *w = (WordPiece){0};
}

int wordpiece_encode(const WordPiece *w, const char *word, size_t size, Ids *out, Error *err) {
    size_t before = out->count, length;
    int64_t characters = 0;
    for (size_t i = 0; i < size; i++) characters += ((unsigned char)word[i] & 0xC0) != 0x80;
    bool known = characters <= w->longest;
    for (size_t at = 0; known && at < size; at += length) {
        int32_t id = token_trie_longest(at ? &w->next : &w->first, word + at, size - at, &length);
        known = id != TRIE_NONE;
        if (known) TRY(ids_append(out, &id, 1, err));
    }
    if (known) return 0;
    out->count = before;
    return ids_append(out, &w->unknown, 1, err);
}
