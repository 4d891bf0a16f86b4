/* token_added.c - see token_added.h. */
#include "language/token_added.h"

#include <stdlib.h>
#include <string.h>
#include <unictype.h>

#include "language/token_json.h"

typedef struct TokenAddedToken {
    int32_t id;
    bool single_word, left, right, normalized, special;
} TokenAddedToken;

/* ---- Reading. ---- */

/* The text that is looked for: of a normalized token its normal form. */
static int add_to_trie(TokenAdded *added, size_t index, const char *content,
                       const TokenNormalizer *normalizer, Error *err) {
    const TokenAddedToken *token = &added->tokens[index];
    TokenText text = {0}, spare = {0};
    TokenMatcher matcher = {0};
    bool first = true;
    int status = token_text_set(&text, content, strlen(content), err);
    if (status == 0 && token->normalized)
        status = token_normalize(normalizer, &matcher, &text, &spare, &first, err);
    if (status == 0 && text.size)
        status = token_trie_add(token->normalized ? &added->normalized : &added->raw, text.bytes,
                                text.size, (int32_t)index, err);
    token_text_free(&text), token_text_free(&spare);
    token_matcher_free(&matcher);
    return status;
}

/* A token of the vocabulary keeps its id; others follow it, one after the other: the libraries that
 * write these files give ids so, whatever the file says. */
static int check_id(const TokenTable *table, const char *content, int64_t id, int64_t *next,
                    Error *err) {
    int64_t expected = token_table_id(table, content, strlen(content));
    if (expected < 0) expected = (*next)++;
    if (id == expected) return 0;
    return error_set(err, "added token \"%.60s\" has the id %lld, expected %lld", content,
                     (long long)id, (long long)expected);
}

static int read_token(TokenAdded *added, const json_t *part, const TokenNormalizer *normalizer,
                      TokenTable *table, int64_t *next, Error *err) {
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    TokenAddedToken *token = &added->tokens[added->count];
    const char *content = NULL;
    int64_t id = -1;
    TRY(token_json_keys(part, "added token", keys, err));
    TRY(token_json_text(part, "content", &content, err));
    TRY(token_json_count(part, "id", &id, err));
    if (!content || !*content || id < 0)
        return error_set(err, "added token %zu: expected an id and a content", added->count);
    TRY(token_json_flag(part, "special", &token->special, err));
    token->normalized = !token->special;
    TRY(token_json_flag(part, "single_word", &token->single_word, err));
    TRY(token_json_flag(part, "lstrip", &token->left, err));
    TRY(token_json_flag(part, "rstrip", &token->right, err));
    TRY(token_json_flag(part, "normalized", &token->normalized, err));
    TRY(check_id(table, content, id, next, err));
    if (token_table_id(table, content, strlen(content)) < 0)
        TRY(token_table_add(table, content, strlen(content), id, err));
    token->id = (int32_t)id;
    return add_to_trie(added, added->count++, content, normalizer, err);
}

int token_added_open(TokenAdded *added, const json_t *list, const TokenNormalizer *normalizer,
                     TokenTable *table, Error *err) {
    *added = (TokenAdded){0};
    if (!list || json_is_null(list)) return 0;
    if (!json_is_array(list)) return error_set(err, "\"added_tokens\": expected a list");
    size_t count = json_array_size(list);
    added->tokens = calloc(count ? count : 1, sizeof *added->tokens);
    if (!added->tokens) return error_set(err, "out of memory for %zu added tokens", count);
    int64_t next = (int64_t)table->count;
    for (size_t i = 0; i < count; i++)
        TRY(read_token(added, json_array_get(list, i), normalizer, table, &next, err));
    return 0;
}

void token_added_close(TokenAdded *added) {
    free(added->tokens);
    token_trie_free(&added->raw);
    token_trie_free(&added->normalized);
    *added = (TokenAdded){0};
}

bool token_added_special(const TokenAdded *added, size_t i, int32_t *id) {
    *id = added->tokens[i].id;
    return added->tokens[i].special;
}

/* ---- Finding. ---- */

static bool is_word(uint32_t c) {
    return uc_is_property_alphabetic(c) || c == 0x200C || c == 0x200D ||
           uc_is_general_category_withtable(c, UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_Nd |
                                                   UC_CATEGORY_MASK_Pc);
}

/* Where the character before `at` begins. */
static size_t character_before(const char *text, size_t at) {
    do at--;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80);
    return at;
}

static bool is_single_word(const char *text, size_t size, size_t start, size_t end) {
    size_t length;
    bool before =
        start > 0 && is_word(token_character(text + character_before(text, start), &length));
    bool after = end < size && is_word(token_character(text + end, &length));
    return !before && !after;
}

static size_t spaces_before(const char *text, size_t least, size_t at) {
    while (at > least) {
        size_t start = character_before(text, at), length;
        if (!token_is_space(token_character(text + start, &length))) break;
        at = start;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t size, size_t at) {
    size_t length;
    while (at < size && token_is_space(token_character(text + at, &length))) at += length;
    return at;
}

int token_added_find(const TokenAdded *added, const TokenTrie *trie, const char *text, size_t size,
                     bool first, TokenPieces *out, Error *err) {
    size_t done = 0, length;
    for (size_t at = 0; trie->node_count && at < size;) {
        int32_t index = token_trie_longest(trie, text + at, size - at, &length);
        if (index == TRIE_NONE) {
            at++;
            continue;
        }
        const TokenAddedToken *token = &added->tokens[index];
        size_t start = at, end = at + length;
        at = end;
        if (token->single_word && !is_single_word(text, size, start, end)) continue;
        if (token->left) start = spaces_before(text, done, start);
        if (token->right) end = spaces_after(text, size, end);
        if (start > done)
            TRY(token_pieces_add(out, text + done, start - done, first && done == 0, err));
        TRY(token_pieces_add_id(out, token->id, err));
        if (end > done) done = end;
    }
    return size > done ? token_pieces_add(out, text + done, size - done, first && done == 0, err)
                       : 0;
}
