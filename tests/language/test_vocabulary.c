/* test_vocabulary.c - pruned SentencePiece models: kept tokens are segmented as before. */
#include "tests/test.h"

#include <time.h>
#include <unistd.h>

#include "language/sentencepiece.h"
#include "language/sentencepiece_file.h"
#include "language/vocabulary.h"

#define MODEL "tests/golden/tokenizer/sentencepiece.bpe.model"

typedef struct Pruned {
    char folder[512], file[600];
    Tokenizer *from, *to;
    VocabularyMap map;
    bool *keep;
    int32_t count;
    Error err;
} Pruned;

static void pruned_begin(Pruned *p, const char *model) {
    *p = (Pruned){.from = NULL};
    temporary_folder(p->folder, sizeof p->folder);
    snprintf(p->file, sizeof p->file, "%s/pruned.model", p->folder);
    assert_ok(tokenizer_open(&p->from, model, &p->err), &p->err);
    p->count = tokenizer_size(p->from);
    p->keep = calloc((size_t)p->count, sizeof *p->keep);
    assert_non_null(p->keep);
}

static void pruned_make(Pruned *p, const char *model, bool characters) {
    tokenizer_close(p->to);
    vocabulary_map_free(&p->map);
    assert_ok(vocabulary_prune(model, p->file, p->keep, p->count, characters, &p->map, &p->err),
              &p->err);
    assert_ok(tokenizer_open(&p->to, p->file, &p->err), &p->err);
    assert_int_equal(tokenizer_size(p->to), p->map.new_count);
    assert_int_equal(p->map.old_count, p->count);
    for (int32_t id = 0; id < p->map.new_count; id++) {
        int32_t old = p->map.old_ids[id];
        assert_int_equal(p->map.new_ids[old], id);
        assert_string_equal(tokenizer_piece(p->to, id), tokenizer_piece(p->from, old));
    }
}

static void pruned_end(Pruned *p) {
    tokenizer_close(p->from);
    tokenizer_close(p->to);
    vocabulary_map_free(&p->map);
    free(p->keep);
    temporary_remove(p->folder);
}

static void mark(Pruned *p, const char *text) {
    assert_ok(vocabulary_mark(p->from, text, strlen(text), p->keep, &p->err), &p->err);
}

/* A text in both vocabularies: corresponding ids if all pieces are kept (true), else at least some
 * ids. */
static bool compare_text(Pruned *p, const char *text) {
    Ids from = {0}, to = {0};
    bool kept = true;
    assert_ok(tokenizer_encode(p->from, text, strlen(text), &from, &p->err), &p->err);
    assert_ok(tokenizer_encode(p->to, text, strlen(text), &to, &p->err), &p->err);
    for (size_t i = 0; i < from.count; i++) kept = kept && p->map.new_ids[from.ids[i]] >= 0;
    if (kept) {
        assert_int_equal(to.count, from.count);
        for (size_t i = 0; i < from.count; i++)
            assert_int_equal(to.ids[i], p->map.new_ids[from.ids[i]]);
    } else {
        assert_true(to.count > 0);
    }
    ids_free(&from);
    ids_free(&to);
    return kept;
}

/* The decoded text, which has all its words if characters were kept. */
static void compare_spelling(Pruned *p, const char *text) {
    Ids from = {0}, to = {0};
    char *before, *after;
    assert_ok(tokenizer_encode(p->from, text, strlen(text), &from, &p->err), &p->err);
    assert_ok(tokenizer_encode(p->to, text, strlen(text), &to, &p->err), &p->err);
    assert_ok(tokenizer_decode(p->from, from.ids, from.count, &before, &p->err), &p->err);
    assert_ok(tokenizer_decode(p->to, to.ids, to.count, &after, &p->err), &p->err);
    assert_string_equal(after, before);
    free(before);
    free(after);
    ids_free(&from);
    ids_free(&to);
}

/* The lines of a text file, from the last tab on. */
typedef struct Lines {
    char *bytes;
    char **items;
    int count;
} Lines;

static Lines lines_read(const char *path) {
    Lines lines = {.bytes = file_bytes(path, NULL)};
    assert_non_null(lines.bytes);
    for (char *line = strtok(lines.bytes, "\n"); line; line = strtok(NULL, "\n")) {
        lines.items = realloc(lines.items, (size_t)(lines.count + 1) * sizeof *lines.items);
        assert_non_null(lines.items);
        char *tab = strrchr(line, '\t');
        lines.items[lines.count++] = tab ? tab + 1 : line;
    }
    return lines;
}

static void lines_free(Lines *lines) {
    free(lines->bytes);
    free(lines->items);
}

/* Keeps the tokens of some of the lines and checks all of them. */
static void check_lines(const Lines *lines, int every, bool characters) {
    Pruned p;
    pruned_begin(&p, MODEL);
    TestRandom random = {(uint64_t)time(NULL) * 1000 + (uint64_t)every};
    bool *marked = calloc((size_t)lines->count, sizeof *marked);
    assert_non_null(marked);
    int same = 0, marks = 0;
    for (int i = 0; i < lines->count; i++) {
        marked[i] = test_random_next(&random) % (uint64_t)every == 0;
        marks += marked[i];
        if (marked[i]) mark(&p, lines->items[i]);
    }
    pruned_make(&p, MODEL, characters);
    for (int i = 0; i < lines->count; i++) {
        bool kept = compare_text(&p, lines->items[i]);
        assert_true(kept || !marked[i]);
        same += kept;
        if (characters) compare_spelling(&p, lines->items[i]);
    }
    printf("%d of %d ids, for %d of %d lines; %d lines are as before\n", p.map.new_count,
           p.map.old_count, marks, lines->count, same);
    free(marked);
    pruned_end(&p);
}

static void test_phrases(void **state) {
    (void)state;
    Lines lines = lines_read("tests/golden/tokenizer/phrases.txt");
    for (int every = 1; every <= 9; every += 4) {
        check_lines(&lines, every, false);
        check_lines(&lines, every, true);
    }
    lines_free(&lines);
}

static void test_shared(void **state) {
    (void)state;
    const char *path = shared_file("iwslt14/valid.deen.jsonl");
    if (!path) skip();
    Lines lines = lines_read(path);
    assert_int_equal(lines.count, 7283);
    check_lines(&lines, 20, false);
    check_lines(&lines, 50, true);
    lines_free(&lines);
}

/* Characters that were removed, or never existed, do not change the words around them. */
static void test_unknown(void **state) {
    (void)state;
    Pruned p;
    pruned_begin(&p, MODEL);
    mark(&p, "What colour is the dog? \xE2\x98\x83"); /* it has no piece, but U+2581 does */
    pruned_make(&p, MODEL, false);
    assert_true(p.map.new_count < 24);
    assert_true(compare_text(&p, "the dog colour<mask> is dog \xE2\x98\x83 the"));
    Ids ids = {0};
    const char *text = "the \xD0\x96 dog";
    assert_ok(tokenizer_encode(p.to, text, strlen(text), &ids, &p.err), &p.err);
    assert_true(ids.count >= 3);
    assert_string_equal(tokenizer_piece(p.to, ids.ids[0]), "\xE2\x96\x81the");
    assert_string_equal(tokenizer_piece(p.to, ids.ids[ids.count - 1]), "\xE2\x96\x81"
                                                                       "dog");
    bool unknown = false;
    for (size_t i = 0; i < ids.count; i++) unknown = unknown || ids.ids[i] == TOKEN_UNK;
    assert_true(unknown);
    ids_free(&ids);
    pruned_end(&p);
}

/* ---- The file. ---- */

typedef struct Bytes {
    unsigned char data[4096];
    size_t size;
} Bytes;

static void put(Bytes *to, const void *data, size_t size) {
    assert_true(size <= sizeof to->data - to->size);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void put_message(Bytes *to, int field, const void *data, size_t size) {
    assert_true(size < 0x80);
    put(to, (unsigned char[]){(unsigned char)(field << 3 | 2), (unsigned char)size}, 2);
    put(to, data, size);
}

static void put_piece(Bytes *to, const char *text, float score, unsigned char type) {
    Bytes piece = {.size = 0};
    put_message(&piece, 1, text, strlen(text));
    put(&piece, "\x15", 1);
    put(&piece, &score, sizeof score);
    put(&piece, (unsigned char[]){0x18, type}, 2);
    put_message(to, 1, piece.data, piece.size);
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* "pqc" is p + qc (-40), not pq + c (-51). Without c, and with the lowest remaining score as base
 * for unknown characters, pq and an unknown character (-1 - 20 - 10) would win. */
static void put_model(Bytes *to, const char *trainer, size_t trainer_size) {
    put_piece(to, "<unk>", 0, 2);
    put_piece(to, "<s>", 0, 3);
    put_piece(to, "</s>", 0, 3);
    put_message(to, 2, trainer, trainer_size);
    put_piece(to, "\xE2\x96\x81", -2, 1);
    put_piece(to, "p", -20, 1);
    put_piece(to, "pq", -1, 1);
    put_piece(to, "c", -50, 1);
    put_piece(to, "<extra>", 0, 4);
    put_piece(to, "qc", -20, 1);
    put_piece(to, "d", -60, 1);
    put_piece(to, "control", 0, 3);
    put_piece(to, "e", -59, 1);
    put(to,
        "\xFA\x07\x03"
        "abc",
        6); /* field 127, unknown */
}

static void test_small_model(void **state) {
    (void)state;
    char folder[512], model[600];
    temporary_folder(folder, sizeof folder);
    snprintf(model, sizeof model, "%s/model", folder);
    static const char trainer[] = "\x12\x02"
                                  "ab\x18\x01\x20\xE0\xA1\x0F\x2A\x00", /* 4: 250080 */
        pruned_trainer[] = "\x12\x02"
                           "ab\x18\x01\x20\x0A\x2A\x00";
    Bytes bytes = {.size = 0};
    put_model(&bytes, trainer, sizeof trainer - 1);
    put_message(&bytes, 4,
                "\x0A\x06\x0A\x01"
                "c\x12\x01"
                "c",
                8); /* a self test */
    write_file(model, bytes.data, bytes.size);
    Pruned p;
    pruned_begin(&p, model);
    assert_int_equal(p.count, 14);
    mark(&p, "pqc");
    pruned_make(&p, model, false);
    /* Removed: pq, c, e. */
    static const int32_t new_ids[14] = {0, 1, 2, 3, 4, 5, -1, -1, 6, 7, 8, 9, -1, 10};
    for (int i = 0; i < 14; i++) assert_int_equal(p.map.new_ids[i], new_ids[i]);
    assert_true(compare_text(&p, "pqc"));
    mark(&p, "pq");
    pruned_make(&p, model, false);
    assert_int_equal(p.map.new_count, 12);
    assert_true(compare_text(&p, "pqc pq p"));
    assert_true(compare_text(&p, "pqc"));
    assert_false(compare_text(&p, "c"));
    /* Byte for byte. */
    size_t size;
    char *written = file_bytes(p.file, &size);
    Bytes want = {.size = 0};
    put_model(&want, pruned_trainer, sizeof pruned_trainer - 1);
    static const char *const gone[] = {"c", "e"};
    for (int i = 0; i < 2; i++) { /* cut them out */
        Bytes piece = {.size = 0};
        put_piece(&piece, gone[i], i ? -59 : -50, 1);
        unsigned char *at = memmem(want.data, want.size, piece.data, piece.size);
        assert_non_null(at);
        want.size -= piece.size;
        memmove(at, at + piece.size, want.size - (size_t)(at - want.data));
    }
    assert_int_equal(size, want.size);
    assert_memory_equal(written, want.data, size);
    free(written);
    pruned_make(&p, model, true);
    assert_int_equal(p.map.new_count, 14);
    pruned_end(&p);
    temporary_remove(folder);
}

/* Pruning again changes nothing; keeping all gives the same file. */
static void test_again(void **state) {
    (void)state;
    Pruned p;
    pruned_begin(&p, MODEL);
    memset(p.keep, 1, (size_t)p.count);
    pruned_make(&p, MODEL, false);
    assert_int_equal(p.map.new_count, p.count);
    size_t size, size_again;
    char *bytes = file_bytes(MODEL, &size), *again = file_bytes(p.file, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, again, size);
    free(bytes);
    free(again);
    pruned_end(&p);
}

static void test_refusals(void **state) {
    (void)state;
    Pruned p;
    pruned_begin(&p, MODEL);
    VocabularyMap map;
    assert_refused(vocabulary_prune("no/such", p.file, p.keep, p.count, false, &map, &p.err),
                   &p.err, "no/such");
    assert_null(map.new_ids);
    assert_refused(vocabulary_prune("tests", p.file, p.keep, p.count, false, &map, &p.err), &p.err,
                   "tests: not a file");
    assert_refused(vocabulary_prune("tests/test.h", p.file, p.keep, p.count, false, &map, &p.err),
                   &p.err, "test.h", "SentencePiece");
    assert_refused(vocabulary_prune(MODEL, p.file, p.keep, p.count - 1, false, &map, &p.err),
                   &p.err, "6001 ids", "5999 pieces");
    bool *more = calloc((size_t)p.count + 1, sizeof *more);
    assert_refused(vocabulary_prune(MODEL, p.file, more, p.count + 1, false, &map, &p.err), &p.err,
                   "6003 ids");
    free(more);
    assert_refused(vocabulary_prune(MODEL, p.file, p.keep, 3, false, &map, &p.err), &p.err,
                   "3 ids");
    assert_refused(vocabulary_prune(MODEL, "no/such/file", p.keep, p.count, false, &map, &p.err),
                   &p.err, "no/such/file", "written");
    assert_null(map.new_ids);
    assert_refused(vocabulary_mark(p.from, "a\xFF", 2, p.keep, &p.err), &p.err, "UTF-8");
    assert_int_equal(access(p.file, F_OK), -1);
    pruned_end(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phrases), cmocka_unit_test(test_shared),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_small_model),
        cmocka_unit_test(test_again),   cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
