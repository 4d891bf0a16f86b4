/* bpe.c - see bpe.h. */
#include "language/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "language/token_json.h"

typedef struct BpeSymbol {
    int32_t id; /* -1: merged into one before it */
    int32_t before, next;
} BpeSymbol;

typedef struct BpeEntry {
    int32_t rank, at, id; /* the merge, the left symbol, what becomes of both */
} BpeEntry;

/* Maximum bytes of a word: positions are int32. */
enum { WORD_LONGEST = 1 << 29 };

/* ---- Merges. ---- */

static BpeMerge *merge_slot(const Bpe *bpe, uint64_t pair) {
    size_t slot = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 20) & (bpe->slot_count - 1);
    while (bpe->merges[slot].pair && bpe->merges[slot].pair != pair)
        slot = (slot + 1) & (bpe->slot_count - 1);
    return &bpe->merges[slot];
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
}

static const BpeMerge *merge_find(const Bpe *bpe, int32_t left, int32_t right) {
    const BpeMerge *merge = merge_slot(bpe, pair_of(left, right));
    return merge->pair ? merge : NULL;
}

/* The two sides of a merge: ["a", "b"], or "a b" in older files. */
static bool merge_sides(const json_t *merge, const char *sides[2], size_t sizes[2]) {
    const char *text = json_string_value(merge);
    if (text) {
        const char *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        sides[0] = text, sizes[0] = (size_t)(space - text);
        sides[1] = space + 1, sizes[1] = strlen(space + 1);
        return true;
    }
    if (json_array_size(merge) != 2) return false;
    for (size_t i = 0; i < 2; i++) {
        sides[i] = json_string_value(json_array_get(merge, i));
        if (!sides[i]) return false;
        sizes[i] = strlen(sides[i]);
    }
    return true;
}

static int merge_add(Bpe *bpe, const json_t *merge, size_t rank, TokenText *joined, Error *err) {
    const char *sides[2];
    size_t sizes[2], prefix = bpe->prefix ? strlen(bpe->prefix) : 0;
    if (!merge_sides(merge, sides, sizes))
        return error_set(err, "merge %zu: expected two tokens", rank);
    int32_t left = token_table_id(bpe->table, sides[0], sizes[0]);
    int32_t right = token_table_id(bpe->table, sides[1], sizes[1]);
    if (left < 0 || right < 0 || sizes[1] < prefix)
        return error_set(err, "merge %zu: \"%.*s\" is not in the vocabulary", rank,
                         (int)sizes[left < 0 ? 0 : 1], sides[left < 0 ? 0 : 1]);
    TRY(token_text_set(joined, sides[0], sizes[0], err));
    TRY(token_text_append(joined, sides[1] + prefix, sizes[1] - prefix, err));
    int32_t id = token_table_id(bpe->table, joined->bytes, joined->size);
    if (id < 0)
        return error_set(err, "merge %zu: \"%.*s\" is not in the vocabulary", rank,
                         joined->size > 60 ? 60 : (int)joined->size, joined->bytes);
    BpeMerge *slot = merge_slot(bpe, pair_of(left, right));
    *slot = (BpeMerge){pair_of(left, right), (int32_t)rank, id};
    return 0;
}

static int read_merges(Bpe *bpe, const json_t *list, Error *err) {
    TokenText joined = {0};
    size_t count = json_array_size(list);
    if (!json_is_array(list)) return error_set(err, "\"merges\": expected a list");
    if (count > TOKEN_ID_MOST) return error_set(err, "\"merges\": %zu of them", count);
    bpe->slot_count = 64;
    while (bpe->slot_count < 2 * count) bpe->slot_count *= 2;
    bpe->merges = calloc(bpe->slot_count, sizeof *bpe->merges);
    if (!bpe->merges) return error_set(err, "out of memory for %zu merges", count);
    int status = 0;
    for (size_t i = 0; status == 0 && i < count; i++)
        status = merge_add(bpe, json_array_get(list, i), i, &joined, err);
    token_text_free(&joined);
    return status;
}

/* ---- Reading. ---- */

static int copy_affix(char **to, const json_t *model, const char *key, Error *err) {
    const char *text = NULL;
    TRY(token_json_text(model, key, &text, err));
    if (!text || !*text) return 0;
    *to = strdup(text);
    return *to ? 0 : error_set(err, "out of memory for \"%s\"", key);
}

static int read_settings(Bpe *bpe, const json_t *model, Error *err) {
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "continuing_subword_prefix",
                                       "vocab",
                                       "merges",
                                       "end_of_word_suffix",
                                       "ignore_merges",
                                       NULL};
    const char *unknown = NULL;
    TRY(token_json_keys(model, "model BPE", keys, err));
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return error_set(err, "BPE with dropout is not supported: ids would be random");
    TRY(token_json_flag(model, "fuse_unk", &bpe->fuse_unknown, err));
    TRY(token_json_flag(model, "byte_fallback", &bpe->fallback, err));
    TRY(token_json_flag(model, "ignore_merges", &bpe->ignore_merges, err));
    TRY(copy_affix(&bpe->prefix, model, "continuing_subword_prefix", err));
    TRY(copy_affix(&bpe->suffix, model, "end_of_word_suffix", err));
    TRY(token_json_text(model, "unk_token", &unknown, err));
    bpe->unknown = -1;
    if (unknown) bpe->unknown = token_table_id(bpe->table, unknown, strlen(unknown));
    if (unknown && bpe->unknown < 0)
        return error_set(err, "unk_token \"%.60s\" is not in the vocabulary", unknown);
    return 0;
}

int bpe_open(Bpe *bpe, const json_t *model, const TokenTable *table, Error *err) {
    *bpe = (Bpe){.table = table};
    TRY(read_settings(bpe, model, err));
    for (int i = 0; i < 256; i++) {
        char name[8];
        int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        bpe->bytes[i] = token_table_id(table, name, (size_t)size);
    }
    for (uint32_t c = 0; c < 0x144; c++) {
        char letter[4];
        bpe->letters[c] = token_table_id(table, letter, token_character_write(letter, c));
    }
    return read_merges(bpe, json_object_get(model, "merges"), err);
}

void bpe_close(Bpe *bpe) {
    free(bpe->merges);
    free(bpe->prefix);
    free(bpe->suffix);
    *bpe = (Bpe){0};
}

/* ---- The characters of a word. ---- */

/* The token of a character; with an affix it is another one. */
static int32_t letter_id(const Bpe *bpe, const char *text, size_t length, bool first, bool last) {
    const char *prefix = bpe->prefix && !first ? bpe->prefix : "";
    const char *suffix = bpe->suffix && last ? bpe->suffix : "";
    if (!*prefix && !*suffix) {
        size_t used;
        uint32_t c = token_character(text, &used);
        return c < 0x144 ? bpe->letters[c] : token_table_id(bpe->table, text, length);
    }
    char *whole = NULL;
    int size = asprintf(&whole, "%s%.*s%s", prefix, (int)length, text, suffix);
    int32_t id = size < 0 ? -1 : token_table_id(bpe->table, whole, (size_t)size);
    if (size >= 0) free(whole);
    return id;
}

/* The tokens of a character's bytes (with its affixes there are none). */
static bool bytes_known(const Bpe *bpe, const char *text, size_t length, bool first, bool last) {
    if (!bpe->fallback || (bpe->prefix && !first) || (bpe->suffix && last)) return false;
    for (size_t i = 0; i < length; i++)
        if (bpe->bytes[(unsigned char)text[i]] < 0) return false;
    return true;
}

static void push_symbol(BpeWork *work, size_t *count, int32_t id) {
    int32_t at = (int32_t)*count;
    work->symbols[(*count)++] = (BpeSymbol){id, at - 1, at + 1};
}

static int no_token(const char *text, size_t length, Error *err) {
    size_t used;
    return error_set(err,
                     "text: the character U+%04X (%.*s) has no token, and the tokenizer has no "
                     "unknown token",
                     (unsigned)token_character(text, &used), (int)length, text);
}

/* An unknown character, which may join those before it. A token that was pending is written when a
 * known character comes: the library that is compared with writes bytes' tokens before it. */
static int take_letters(const Bpe *bpe, BpeWork *work, const char *word, size_t size, size_t *count,
                        Error *err) {
    bool pending = false;
    for (size_t i = 0, length; i < size; i += length) {
        token_character(word + i, &length);
        bool first = i == 0, last = i + length == size;
        int32_t id = letter_id(bpe, word + i, length, first, last);
        if (id >= 0) {
            if (pending) push_symbol(work, count, bpe->unknown);
            pending = false;
            push_symbol(work, count, id);
        } else if (bytes_known(bpe, word + i, length, first, last)) {
            for (size_t k = 0; k < length; k++)
                push_symbol(work, count, bpe->bytes[(unsigned char)word[i + k]]);
        } else if (bpe->unknown < 0) {
            return no_token(word + i, length, err);
        } else {
            if (pending && !bpe->fuse_unknown) push_symbol(work, count, bpe->unknown);
            pending = true;
        }
    }
    if (pending) push_symbol(work, count, bpe->unknown);
    if (*count) work->symbols[*count - 1].next = -1;
    return 0;
}

/* ---- Merging. ---- */

static bool sooner(const BpeEntry *a, const BpeEntry *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void queue_push(BpeWork *work, BpeEntry entry) {
    size_t at = work->queue_count++;
    while (at > 0) {
        size_t up = (at - 1) / 4;
        if (!sooner(&entry, &work->queue[up])) break;
        work->queue[at] = work->queue[up];
        at = up;
    }
    work->queue[at] = entry;
}

static BpeEntry queue_pop(BpeWork *work) {
    BpeEntry top = work->queue[0], last = work->queue[--work->queue_count];
    size_t at = 0, count = work->queue_count;
    for (;;) {
        size_t least = 4 * at + 1;
        if (least >= count) break;
        for (size_t k = least + 1; k < 4 * at + 5 && k < count; k++)
            if (sooner(&work->queue[k], &work->queue[least])) least = k;
        if (!sooner(&work->queue[least], &last)) break;
        work->queue[at] = work->queue[least];
        at = least;
    }
    work->queue[at] = last;
    return top;
}

static void offer(const Bpe *bpe, BpeWork *work, int32_t left) {
    int32_t right = left < 0 ? -1 : work->symbols[left].next;
    if (right < 0) return;
    const BpeMerge *merge = merge_find(bpe, work->symbols[left].id, work->symbols[right].id);
    if (merge) queue_push(work, (BpeEntry){merge->rank, left, merge->id});
}

static void merge_all(const Bpe *bpe, BpeWork *work, size_t count) {
    work->queue_count = 0;
    for (size_t i = 0; i + 1 < count; i++) offer(bpe, work, (int32_t)i);
    while (work->queue_count) {
        BpeEntry top = queue_pop(work);
        BpeSymbol *left = &work->symbols[top.at];
        if (left->id < 0 || left->next < 0) continue;
        BpeSymbol *right = &work->symbols[left->next];
        const BpeMerge *merge = merge_find(bpe, left->id, right->id);
        if (!merge || merge->id != top.id) continue; /* the pair is another one by now */
        left->id = top.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) work->symbols[left->next].before = top.at;
        offer(bpe, work, left->before);
        offer(bpe, work, top.at);
    }
}

/* A word has at most as many symbols as bytes; each merge adds two pairs for one symbol less. */
static int work_reserve(BpeWork *work, size_t size, Error *err) {
    if (size > work->symbol_capacity) {
        size_t capacity = size < 256 ? 256 : size;
        BpeSymbol *symbols = realloc(work->symbols, capacity * sizeof *symbols);
        if (symbols) work->symbols = symbols;
        BpeEntry *queue = realloc(work->queue, 3 * capacity * sizeof *queue);
        if (queue) work->queue = queue;
        if (!symbols || !queue)
            return error_set(err, "text: out of memory for a word of %zu bytes", size);
        work->symbol_capacity = capacity;
    }
    return 0;
}

int bpe_encode(const Bpe *bpe, BpeWork *work, const char *word, size_t size, Ids *out, Error *err) {
    if (size > WORD_LONGEST)
        return error_set(err,
                         "text: %zu bytes without a break, at most %d can be encoded; split it",
                         size, WORD_LONGEST);
    if (bpe->ignore_merges) {
        int32_t id = token_table_id(bpe->table, word, size);
        if (id >= 0) return ids_append(out, &id, 1, err);
    }
    size_t count = 0;
    TRY(work_reserve(work, size, err));
    TRY(take_letters(bpe, work, word, size, &count, err));
    merge_all(bpe, work, count);
    for (int32_t i = count ? 0 : -1; i >= 0; i = work->symbols[i].next)
        TRY(ids_append(out, &work->symbols[i].id, 1, err));
    return 0;
}

void bpe_work_free(BpeWork *work) {
    free(work->symbols);
    free(work->queue);
    *work = (BpeWork){0};
}
