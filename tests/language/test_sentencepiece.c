/* test_sentencepiece.c - valid model files open, damaged ones are refused or harmless. */
#include "tests/test.h"

#include "language/sentencepiece.h"
#include "language/tokenizer.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#define FOLDER "tests/golden/tokenizer"
#define MODEL  FOLDER "/sentencepiece.bpe.model"

enum { MASK = 6001 };

/* A model file under construction: protobuf fields appended to a buffer. */
typedef struct Bytes {
    unsigned char data[1 << 14];
    size_t size;
} Bytes;

static void put(Bytes *to, const void *data, size_t size) {
    assert_true(size <= sizeof to->data - to->size);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void put_varint(Bytes *to, uint64_t value) {
    do {
        unsigned char byte = (unsigned char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        put(to, &byte, 1);
        value >>= 7;
    } while (value);
}

static void put_number(Bytes *to, int field, uint64_t value) {
    put_varint(to, (uint64_t)field << 3);
    put_varint(to, value);
}

static void put_message(Bytes *to, int field, const void *data, size_t size) {
    put_varint(to, (uint64_t)field << 3 | 2);
    put_varint(to, size);
    put(to, data, size);
}

static void put_piece(Bytes *to, const char *text, float score, int type) {
    static const unsigned char score_tag = 2 << 3 | 5;
    Bytes piece = {.size = 0};
    put_message(&piece, 1, text, strlen(text));
    put(&piece, &score_tag, 1);
    put(&piece, &score, sizeof score);
    if (type != 1) put_number(&piece, 3, (uint64_t)type);
    put_message(to, 1, piece.data, piece.size);
}

/* The smallest model: XLM-R's three special pieces and a few letters. */
static void put_small_model(Bytes *to) {
    to->size = 0;
    put_piece(to, "<unk>", 0, 2);
    put_piece(to, "<s>", 0, 3);
    put_piece(to, "</s>", 0, 3);
    put_piece(to, "\xE2\x96\x81", -2, 1);
    put_piece(to, "a", -3, 1);
    put_piece(to, "b", -4, 1);
}

/* A normalizer's table of one block of 256 units with one rule from 'a' to a string. */
typedef struct Table {
    uint32_t units[256];
    char strings[8];
} Table;

/* Leaf units are marked by bit 31; else bits 0..7: label, bit 8: has a leaf, bits 10..: the offset,
 * which is index ^ base. The unit for byte c is at base ^ c. */
static Table small_table(void) {
    Table table = {.strings = "b"};
    for (uint32_t i = 0; i < 256; i++) table.units[i] = i ^ 0x80; /* nothing leads to base 0x80 */
    table.units[0] = 1u << 10;                                    /* root, base 1 */
    table.units[1 ^ 'a'] = 'a' | 1u << 8 | (1u ^ 'a' ^ 2) << 10;  /* base 2, has a leaf */
    table.units[2] = 1u << 31;                                    /* the leaf: position 0 */
    return table;
}

static void put_table(Bytes *to, const Table *table, uint32_t array, size_t strings) {
    Bytes map = {.size = 0}, spec = {.size = 0};
    put(&map, &array, 4);
    put(&map, table->units, sizeof table->units);
    put(&map, table->strings, strings);
    put_message(&spec, 2, map.data, map.size);
    put_message(to, 3, spec.data, spec.size);
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* Redirects standard error to a file while a model is opened: the library must not write to it. */
typedef struct Quiet {
    int saved, file;
} Quiet;

static Quiet quiet_begin(const char *folder) {
    char path[600];
    snprintf(path, sizeof path, "%s/stderr", folder);
    fflush(stderr);
    Quiet quiet = {.saved = dup(2), .file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600)};
    assert_true(quiet.saved >= 0 && quiet.file >= 0);
    assert_true(dup2(quiet.file, 2) == 2);
    return quiet;
}

static void quiet_end(Quiet quiet) {
    fflush(stderr);
    assert_true(dup2(quiet.saved, 2) == 2);
    off_t written = lseek(quiet.file, 0, SEEK_END);
    close(quiet.saved), close(quiet.file);
    if (written != 0) fail_msg("%lld bytes were written to standard error", (long long)written);
}

typedef struct Place {
    char folder[512], file[600];
} Place;

static Place place_make(void) {
    Place place;
    temporary_folder(place.folder, sizeof place.folder);
    snprintf(place.file, sizeof place.file, "%s/sentencepiece.bpe.model", place.folder);
    return place;
}

static void refuse_bytes(const Place *place, const void *data, size_t size, const char *word) {
    Error err = {.text = ""};
    Tokenizer *tokenizer;
    write_file(place->file, data, size);
    Quiet quiet = quiet_begin(place->folder);
    int result = tokenizer_open(&tokenizer, place->file, &err);
    quiet_end(quiet);
    if (result == 0) fail_msg("should have been refused (%s)", word);
    assert_null(tokenizer);
    check_message(&err, "tokenizer_open", (const char *[]){place->file, word, NULL});
}

/* Opens a valid model; returns the sum of the ids of "aab". */
static int32_t accept_bytes(const Place *place, const void *data, size_t size) {
    Error err = {.text = ""};
    Tokenizer *tokenizer;
    write_file(place->file, data, size);
    Quiet quiet = quiet_begin(place->folder);
    int result = tokenizer_open(&tokenizer, place->file, &err);
    quiet_end(quiet);
    if (result != 0) fail_msg("%s", err.text);
    Ids ids = {0};
    assert_ok(tokenizer_encode(tokenizer, "aab", 3, &ids, &err), &err);
    int32_t sum = 0;
    for (size_t i = 0; i < ids.count; i++) sum += ids.ids[i];
    ids_free(&ids);
    tokenizer_close(tokenizer);
    return sum;
}

static void test_open_paths(void **state) {
    (void)state;
    Error err;
    Tokenizer *tokenizer;
    Place place = place_make();
    char slash[520];
    assert_refused(tokenizer_open(&tokenizer, "no/such/file.model", &err), &err,
                   "no/such/file.model", "No such file", "checkpoint");
    assert_null(tokenizer);
    assert_refused(tokenizer_open(&tokenizer, place.folder, &err), &err, place.file,
                   "No such file");
    assert_refused(tokenizer_open(&tokenizer, "/dev/null", &err), &err, "/dev/null", "regular");
    assert_int_equal(tokenizer_open(&tokenizer, "no/such/file.model", NULL), -1);
    snprintf(slash, sizeof slash, "%s/", place.folder);
    Bytes model;
    put_small_model(&model);
    write_file(place.file, model.data, model.size);
    assert_ok(tokenizer_open(&tokenizer, slash, &err), &err);
    tokenizer_close(tokenizer);
    assert_ok(tokenizer_open(&tokenizer, FOLDER, &err), &err);
    assert_int_equal(tokenizer_mask_id(tokenizer), MASK);
    tokenizer_close(tokenizer);
    temporary_remove(place.folder);
}

static void test_not_a_model(void **state) {
    (void)state;
    Place place = place_make();
    refuse_bytes(&place, "", 0, "empty file");
    const char *texts[] = {"{\"model_max_length\": 512}\n",
                           "version https://git-lfs",
                           "<!DOCTYPE html>",
                           "\x08\x01",
                           "\x0B\x0C",
                           "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        refuse_bytes(&place, texts[i], strlen(texts[i]), "not a SentencePiece model");
    TestRandom random = {7};
    unsigned char noise[777];
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (unsigned char)test_random_next(&random);
        refuse_bytes(&place, noise, sizeof noise, "");
    }
    temporary_remove(place.folder);
}

static void test_wrong_models(void **state) {
    (void)state;
    Place place = place_make();
    Bytes model;
    put_small_model(&model);
    size_t small = model.size;
    assert_int_equal(accept_bytes(&place, model.data, model.size), 4 + 5 + 5 + 6);

    const struct {
        const char *text;
        float score;
        int type;
        const char *word;
    } pieces[] = {{"", -1, 1, "piece 6 is empty"},   {"\xFF", -1, 1, "not UTF-8"},
                  {"c", NAN, 1, "not finite"},       {"c", -INFINITY, 1, "not finite"},
                  {"<unk2>", 0, 2, "2 pieces"},      {"a", -1, 1, "already defined"},
                  {"<0x41>", -1, 6, "byte_fallback"}};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        model.size = small;
        put_piece(&model, pieces[i].text, pieces[i].score, pieces[i].type);
        refuse_bytes(&place, model.data, model.size, pieces[i].word);
    }
    model.size = small;
    put_message(&model, 1, "\x0A\x03x\0y", 5); /* a piece with a NUL byte */
    refuse_bytes(&place, model.data, model.size, "not UTF-8");
    model.size = small;
    for (int i = 0; i < 65; i++) {
        char text[16];
        snprintf(text, sizeof text, "user%d", i);
        put_piece(&model, text, 0, 4);
    }
    refuse_bytes(&place, model.data, model.size, "65 user-defined");
    model.size = small;
    put_message(&model, 2, "\x18\x02", 2); /* trainer_spec.model_type: BPE */
    refuse_bytes(&place, model.data, model.size, "type 2, expected 1");
    model.size = small;
    put_message(&model, 2, "\x1A\x7F", 2); /* a field longer than its message */
    refuse_bytes(&place, model.data, model.size, "damaged");

    /* Valid, but not XLM-R's: <s> and </s> swapped; too few pieces. */
    model.size = 0;
    put_piece(&model, "<unk>", 0, 2);
    put_piece(&model, "</s>", 0, 3);
    put_piece(&model, "<s>", 0, 3);
    put_piece(&model, "a", -1, 1);
    refuse_bytes(&place, model.data, model.size, "piece 1 is \"</s>\", expected \"<s>\"");
    model.size = 0;
    put_piece(&model, "<unk>", 0, 2);
    put_piece(&model, "a", -1, 1);
    refuse_bytes(&place, model.data, model.size, "a model of 2 pieces");
    temporary_remove(place.folder);
}

/* A failing self test makes the library log and refuse the model; we remove self tests. */
static void test_self_tests_are_left_out(void **state) {
    (void)state;
    Place place = place_make();
    Bytes model = {.size = 0}, sample = {.size = 0}, samples = {.size = 0}, pieces;
    put_message(&sample, 1, "aab", 3);
    put_message(&sample, 2, "wrong", 5);
    put_message(&samples, 1, sample.data, sample.size);
    put_small_model(&pieces);
    put_message(&model, 4, samples.data, samples.size);
    put(&model, pieces.data, pieces.size);
    put_message(&model, 4, samples.data, samples.size);
    assert_int_equal(accept_bytes(&place, model.data, model.size), 4 + 5 + 5 + 6);
    temporary_remove(place.folder);
}

static void refuse_table(const Place *place, const Table *table, uint32_t array, size_t strings) {
    Bytes model;
    put_small_model(&model);
    put_table(&model, table, array, strings);
    refuse_bytes(place, model.data, model.size, "normaliser's table");
}

/* The library follows this table without bounds checks: each of these would read outside it, or
 * never end. */
static void test_normaliser_tables(void **state) {
    (void)state;
    Place place = place_make();
    Bytes model;
    Table good = small_table(), bad;
    put_small_model(&model);
    put_table(&model, &good, sizeof good.units, 2);
    assert_int_equal(accept_bytes(&place, model.data, model.size),
                     4 + 6 + 6 + 6); /* it became "bbb" */

    refuse_table(&place, &good, sizeof good.units, 0);     /* no strings */
    refuse_table(&place, &good, sizeof good.units, 1);     /* string without an end */
    refuse_table(&place, &good, 0, 2);                     /* no array */
    refuse_table(&place, &good, 512, 2);                   /* half a block */
    refuse_table(&place, &good, 2 * sizeof good.units, 2); /* longer than the table */
    refuse_table(&place, &good, UINT32_MAX - 1023, 2);
    bad = good, bad.units[0] = 1u << 31; /* the root is a leaf */
    refuse_table(&place, &bad, sizeof bad.units, 2);
    bad = good, bad.units[0] = 256u << 10; /* base past the array */
    refuse_table(&place, &bad, sizeof bad.units, 2);
    bad = good, bad.units[0] = 0x1FFFFFu << 10 | 1u << 9; /* far past it */
    refuse_table(&place, &bad, sizeof bad.units, 2);
    bad = good, bad.units[2] = 1u << 31 | 2; /* position past the strings */
    refuse_table(&place, &bad, sizeof bad.units, 2);
    /* 'a' leads back to the same unit: a match for every 'a', more than the library's array
     * holds. */
    bad = good, bad.units[1] = 1u << 31;
    bad.units[1 ^ 'a'] = 'a' | 1u << 8 | (1u ^ 'a' ^ 1) << 10;
    refuse_table(&place, &bad, sizeof bad.units, 2);
    /* The root again, below itself. */
    bad = good, bad.units[1 ^ 'a'] = 'a' | (1u ^ 'a') << 10;
    refuse_table(&place, &bad, sizeof bad.units, 2);
    temporary_remove(place.folder);
}

/* Encodes with a model that was damaged and still opened. */
static void use_damaged(const Tokenizer *tokenizer) {
    static const char text[] =
        "The dog\xE2\x80\xA6 \xEF\xBC\xA1\xEF\xBD\xB6\xEF\xBE\x9E \xC3\xA9 "
        "e\xCC\x81 \xE7\x8A\xAC \xF0\x9F\x98\x80 aaaaaaaaaaaaaaaaaaaaaaaa\0b";
    Ids ids = {0};
    char *decoded;
    if (tokenizer_encode(tokenizer, text, sizeof text - 1, &ids, NULL) == 0 &&
        tokenizer_decode(tokenizer, ids.ids, ids.count, &decoded, NULL) == 0)
        free(decoded);
    ids_free(&ids);
}

/* Writes `size` bytes and opens them; counts refusals without a message. */
static int try_damaged(const Place *place, const char *bytes, size_t size, int *opened) {
    Error err = {.text = ""};
    Tokenizer *tokenizer;
    write_file(place->file, bytes, size);
    if (tokenizer_open(&tokenizer, place->file, &err) != 0)
        return tokenizer != NULL || !strstr(err.text, place->file);
    (*opened)++;
    use_damaged(tokenizer);
    tokenizer_close(tokenizer);
    return 0;
}

static void test_truncated(void **state) {
    (void)state;
    Place place = place_make();
    size_t size;
    int opened = 0, wrong = 0;
    char *bytes = file_bytes(MODEL, &size);
    Quiet quiet = quiet_begin(place.folder);
    for (size_t i = 0; i < 48; i++) wrong += try_damaged(&place, bytes, i, &opened);
    assert_int_equal(opened, 0);
    /* Truncated between two pieces the file is a valid, smaller model. */
    for (size_t i = 1; i < 24; i++) wrong += try_damaged(&place, bytes, size * i / 24, &opened);
    wrong += try_damaged(&place, bytes, size - 1, &opened);
    quiet_end(quiet);
    assert_int_equal(wrong, 0);
    assert_true(opened <= 3);
    free(bytes);
    temporary_remove(place.folder);
}

/* Flips bits anywhere in the file: refused with a message, or usable without a crash. */
static void test_flipped_bits(void **state) {
    (void)state;
    Place place = place_make();
    TestRandom random = {42};
    size_t size;
    int opened = 0, wrong = 0;
    char *bytes = file_bytes(MODEL, &size);
    Quiet quiet = quiet_begin(place.folder);
    for (int round = 0; round < 100; round++) {
        size_t at[4];
        int flips = 1 + round % 4;
        for (int i = 0; i < flips; i++) {
            at[i] = test_random_next(&random) % size;
            bytes[at[i]] ^= (char)(1 << (round / 4 + i) % 8);
        }
        wrong += try_damaged(&place, bytes, size, &opened);
        for (int i = 0; i < flips; i++) bytes[at[i]] ^= (char)(1 << (round / 4 + i) % 8);
    }
    quiet_end(quiet);
    assert_int_equal(wrong, 0);
    assert_true(opened > 0 && opened < 100);
    free(bytes);
    temporary_remove(place.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_paths),        cmocka_unit_test(test_not_a_model),
        cmocka_unit_test(test_wrong_models),      cmocka_unit_test(test_self_tests_are_left_out),
        cmocka_unit_test(test_normaliser_tables), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
