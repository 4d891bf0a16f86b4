/* unigram.c - see unigram.h. */
#include "language/unigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "language/token_json.h"

/* The best way to the end of a character. */
typedef struct UnigramNode {
    double score;
    int32_t id, start; /* start: -1 while no way is known; after backtracking, the next end */
} UnigramNode;

enum { WORD_LONGEST = 1 << 29 };
static const double UNKNOWN_PENALTY = 10;

int unigram_read_vocabulary(const json_t *model, TokenTable *table, Error *err) {
    const json_t *list = json_object_get(model, "vocab");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return error_set(err, "\"vocab\": expected a list of pieces with their scores");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *piece = json_string_value(json_array_get(entry, 0));
        double score = json_number_value(json_array_get(entry, 1));
        if (json_array_size(entry) != 2 || !piece || !json_is_number(json_array_get(entry, 1)) ||
            !isfinite(score))
            return error_set(err, "\"vocab\": entry %zu is not [piece, score]", i);
        TRY(token_table_add(table, piece, strlen(piece), (int64_t)i, err));
    }
    return 0;
}

static int read_pieces(Unigram *u, const json_t *list, Error *err) {
    double least = INFINITY;
    u->scores = malloc(json_array_size(list) * sizeof *u->scores);
    if (!u->scores) return error_set(err, "out of memory for %zu scores", json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *piece = json_string_value(json_array_get(entry, 0));
        u->scores[i] = json_number_value(json_array_get(entry, 1));
        least = fmin(least, u->scores[i]);
        TRY(token_trie_add(&u->trie, piece, strlen(piece), (int32_t)i, err));
    }
    u->unknown_score = least - UNKNOWN_PENALTY;
    return 0;
}

int unigram_open(Unigram *u, const json_t *model, const TokenTable *table, Error *err) {
    static const char *const keys[] = {"type", "unk_id", "vocab", "byte_fallback", NULL};
    int64_t unknown = -1;
    *u = (Unigram){.table = table};
    TRY(token_json_keys(model, "model Unigram", keys, err));
    TRY(token_json_flag(model, "byte_fallback", &u->fallback, err));
    TRY(token_json_count(model, "unk_id", &unknown, err));
    if (unknown >= (int64_t)json_array_size(json_object_get(model, "vocab")))
        return error_set(err, "unk_id %lld is beyond the vocabulary", (long long)unknown);
    u->unknown = (int32_t)unknown;
    for (int i = 0; i < 256; i++) {
        char name[8];
        int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        u->bytes[i] = token_table_id(table, name, (size_t)size);
    }
    return read_pieces(u, json_object_get(model, "vocab"), err);
}

void unigram_close(Unigram *u) {
    token_trie_free(&u->trie);
    free(u->scores);
    *u = (Unigram){0};
}

/* ---- Encoding. ---- */

static void reach(UnigramNode *node, double score, int32_t id, size_t start) {
    if (node->start >= 0 && !(score > node->score)) return;
    *node = (UnigramNode){score, id, (int32_t)start};
}

static int forward(const Unigram *u, UnigramNode *nodes, const char *word, size_t size,
                   Error *err) {
    for (size_t at = 0, length; at < size; at += length) {
        token_character(word + at, &length);
        double here = nodes[at].score;
        bool single = false;
        uint32_t node = 0;
        for (size_t i = at; i < size; i++) {
            node = token_trie_step(&u->trie, node, (unsigned char)word[i]);
            if (!node) break;
            int32_t id = u->trie.values[node];
            if (id == TRIE_NONE) continue;
            reach(&nodes[i + 1], here + u->scores[id], id, at);
            if (i + 1 - at == length) single = true;
        }
        if (single) continue;
        if (u->unknown < 0)
            return error_set(err, "text: \"%.*s\" has no piece, and the tokenizer no unknown token",
                             (int)length, word + at);
        reach(&nodes[at + length], here + u->unknown_score, u->unknown, at);
    }
    return 0;
}

/* Turns the links around, so that `start` of each node on the path is the end of the next piece. */
static size_t turn_around(UnigramNode *nodes, size_t size) {
    size_t end = size, next = 0;
    int32_t id = 0;
    for (;;) {
        size_t start = (size_t)nodes[end].start;
        int32_t piece = nodes[end].id;
        nodes[end].start = (int32_t)next;
        nodes[end].id = id;
        if (end == 0) return (size_t)nodes[0].start;
        next = end, id = piece;
        end = start;
    }
}

/* Unknown characters in a row are one token, of their bytes if these have tokens. */
static int append_unknown(const Unigram *u, const char *text, size_t size, Ids *out, Error *err) {
    int32_t id = token_table_id(u->table, text, size);
    bool bytes = id < 0 && u->fallback;
    for (size_t i = 0; bytes && i < size; i++) bytes = u->bytes[(unsigned char)text[i]] >= 0;
    if (!bytes) return ids_append(out, id >= 0 ? &id : &u->unknown, 1, err);
    for (size_t i = 0; i < size; i++)
        TRY(ids_append(out, &u->bytes[(unsigned char)text[i]], 1, err));
    return 0;
}

static int append_path(const Unigram *u, UnigramNode *nodes, const char *word, size_t size,
                       Ids *out, Error *err) {
    size_t at = 0, unknown = 0;
    bool pending = false;
    turn_around(nodes, size);
    while (at < size) {
        size_t end = (size_t)nodes[at].start;
        int32_t id = nodes[at].id;
        bool is_unknown = id == u->unknown;
        if (is_unknown && !pending) unknown = at;
        if (!is_unknown && pending) TRY(append_unknown(u, word + unknown, at - unknown, out, err));
        if (!is_unknown) TRY(ids_append(out, &id, 1, err));
        pending = is_unknown;
        at = end;
    }
    return pending ? append_unknown(u, word + unknown, size - unknown, out, err) : 0;
}

int unigram_encode(const Unigram *u, UnigramWork *work, const char *word, size_t size, Ids *out,
                   Error *err) {
    if (size > WORD_LONGEST)
        return error_set(err,
                         "text: %zu bytes without a break, at most %d can be encoded; split it",
                         size, WORD_LONGEST);
    if (size + 1 > work->capacity) {
        size_t capacity = size + 1 < 256 ? 256 : size + 1;
        UnigramNode *nodes = realloc(work->nodes, capacity * sizeof *nodes);
        if (!nodes) return error_set(err, "text: out of memory for a word of %zu bytes", size);
        work->nodes = nodes;
        work->capacity = capacity;
    }
    for (size_t i = 0; i <= size; i++) work->nodes[i] = (UnigramNode){0, 0, -1};
    TRY(forward(u, work->nodes, word, size, err));
    return append_path(u, work->nodes, word, size, out, err);
}

void unigram_work_free(UnigramWork *work) {
    free(work->nodes);
    *work = (UnigramWork){0};
}
