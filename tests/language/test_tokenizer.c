/* test_tokenizer.c - the tokenizer against reference ids. */
#include "tests/test.h"

#include "language/sentencepiece.h"
#include "language/tokenizer.h"

#include <jansson.h>
#include <pthread.h>

#define FOLDER "tests/golden/tokenizer"
#define MODEL  FOLDER "/sentencepiece.bpe.model"

enum { PIECES = 6000, MASK = PIECES + 1 };

static int open_model(void **state) {
    Error err;
    Tokenizer *tokenizer;
    assert_ok(tokenizer_open(&tokenizer, MODEL, &err), &err);
    *state = tokenizer;
    return 0;
}

static int close_model(void **state) {
    tokenizer_close(*state);
    return 0;
}

static Ids encode(const Tokenizer *tokenizer, const char *text, size_t size) {
    Error err;
    Ids ids = {0};
    assert_ok(tokenizer_encode(tokenizer, text, size, &ids, &err), &err);
    return ids;
}

static bool same_ids(const Ids *a, const Ids *b) {
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->ids, b->ids, a->count * sizeof *a->ids) == 0);
}

static void assert_same_encoding(const Tokenizer *tokenizer, const char *a, const char *b) {
    Ids x = encode(tokenizer, a, strlen(a)), y = encode(tokenizer, b, strlen(b));
    if (!same_ids(&x, &y))
        fail_msg("\"%s\" and \"%s\" differ (%zu and %zu ids)", a, b, x.count, y.count);
    ids_free(&x), ids_free(&y);
}

/* ---- reference ids ---- */

/* One line of golden.tsv: ids TAB text TAB decoded text, the texts being JSON strings. */
typedef struct Golden {
    Ids ids;
    json_t *text, *decoded;
} Golden;

static Golden golden_parse(char *line, int number) {
    Golden golden = {0};
    char *text = strchr(line, '\t'), *decoded = text ? strchr(text + 1, '\t') : NULL;
    if (!decoded) fail_msg("golden.tsv line %d: no three columns", number);
    *text++ = *decoded++ = 0;
    for (char *p = line; *p;) {
        int32_t id = (int32_t)strtol(p, &p, 10);
        assert_int_equal(ids_append(&golden.ids, &id, 1, NULL), 0);
        while (*p == ' ') p++;
    }
    golden.text = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    golden.decoded = json_loads(decoded, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!golden.text || !golden.decoded) fail_msg("golden.tsv line %d: bad JSON", number);
    return golden;
}

static void golden_free(Golden *golden) {
    ids_free(&golden->ids);
    json_decref(golden->text), json_decref(golden->decoded);
}

/* Calls `check` with every line; returns their number. */
static int golden_each(const Tokenizer *tokenizer,
                       void (*check)(const Tokenizer *, const Golden *, int line)) {
    char *bytes = file_bytes(FOLDER "/golden.tsv", NULL), *rest = bytes, *line;
    assert_non_null(bytes);
    int lines = 0;
    while ((line = strsep(&rest, "\n")) != NULL && (*line || rest)) {
        Golden golden = golden_parse(line, ++lines);
        check(tokenizer, &golden, lines);
        golden_free(&golden);
    }
    free(bytes);
    return lines;
}

static void check_ids(const Tokenizer *tokenizer, const Golden *golden, int line) {
    const char *text = json_string_value(golden->text);
    Ids ids = encode(tokenizer, text, json_string_length(golden->text));
    for (size_t i = 0; i < ids.count && i < golden->ids.count; i++)
        if (ids.ids[i] != golden->ids.ids[i])
            fail_msg("golden.tsv line %d, \"%s\": id %zu is %d, expected %d", line, text, i,
                     ids.ids[i], golden->ids.ids[i]);
    if (ids.count != golden->ids.count)
        fail_msg("golden.tsv line %d, \"%s\": %zu ids, expected %zu", line, text, ids.count,
                 golden->ids.count);
    ids_free(&ids);
}

static void test_golden_ids(void **state) {
    int lines = golden_each(*state, check_ids);
    assert_true(lines >= 520);
}

static void check_decoded(const Tokenizer *tokenizer, const Golden *golden, int line) {
    Error err;
    char *text;
    assert_ok(tokenizer_decode(tokenizer, golden->ids.ids, golden->ids.count, &text, &err), &err);
    size_t size = json_string_length(golden->decoded);
    if (strlen(text) != size || memcmp(text, json_string_value(golden->decoded), size) != 0)
        fail_msg("golden.tsv line %d: \"%s\", expected \"%s\"", line, text,
                 json_string_value(golden->decoded));
    free(text);
}

static void test_golden_decode(void **state) {
    golden_each(*state, check_decoded);
}

/* Decoded text is stable: encoding and decoding it again gives the same (unknown characters are
 * lost the first time; lines with special tokens are not text). */
static void check_round_trip(const Tokenizer *tokenizer, const Golden *golden, int line) {
    Error err;
    char *again;
    const char *decoded = json_string_value(golden->decoded);
    for (size_t i = 0; i < golden->ids.count; i++)
        if (golden->ids.ids[i] <= TOKEN_UNK || golden->ids.ids[i] == MASK) return;
    Ids ids = encode(tokenizer, decoded, json_string_length(golden->decoded));
    assert_ok(tokenizer_decode(tokenizer, ids.ids, ids.count, &again, &err), &err);
    if (strcmp(again, decoded) != 0)
        fail_msg("golden.tsv line %d: \"%s\" became \"%s\"", line, decoded, again);
    if (!same_ids(&ids, &golden->ids))
        fail_msg("golden.tsv line %d: \"%s\": other ids", line, decoded);
    free(again), ids_free(&ids);
}

static void test_round_trip(void **state) {
    golden_each(*state, check_round_trip);
}

static uint64_t digest_ids(uint64_t digest, const Ids *ids) {
    for (size_t i = 0; i < ids->count; i++)
        for (int shift = 0; shift < 32; shift += 8)
            digest = (digest ^ ((uint32_t)ids->ids[i] >> shift & 0xFF)) * 0x100000001B3u;
    return digest;
}

/* One line of shared.tsv. */
typedef struct Shared {
    char name[256];
    size_t lines, ids;
    unsigned long long digest;
    const char *left_out; /* line numbers, ascending, separated by spaces */
} Shared;

/* The prompt of one record: "inputs", or "text" in the GQA file. */
static Ids encode_record(const Tokenizer *tokenizer, const char *line, const char *path) {
    json_t *record = json_loads(line, JSON_ALLOW_NUL, NULL);
    json_t *text = json_object_get(record, "inputs");
    if (!text) text = json_object_get(record, "text");
    if (!json_is_string(text)) fail_msg("%s: no prompt in %s", path, line);
    Ids ids = encode(tokenizer, json_string_value(text), json_string_length(text));
    json_decref(record);
    return ids;
}

/* All prompts of one jsonl file, except those left out. */
static void check_shared_file(const Tokenizer *tokenizer, const char *path,
                              const Shared *expected) {
    char *bytes = file_bytes(path, NULL), *rest = bytes, *line, *left_out;
    assert_non_null(bytes);
    long number = 0, next_left_out = strtol(expected->left_out, &left_out, 10);
    size_t lines = 0, count = 0;
    uint64_t digest = 0xCBF29CE484222325u;
    while ((line = strsep(&rest, "\n")) != NULL) {
        if (!*line) continue;
        if (++number == next_left_out) {
            next_left_out = strtol(left_out, &left_out, 10);
            continue;
        }
        Ids ids = encode_record(tokenizer, line, path);
        digest = digest_ids(digest, &ids);
        lines++, count += ids.count;
        ids_free(&ids);
    }
    free(bytes);
    if (lines != expected->lines || count != expected->ids || digest != expected->digest)
        fail_msg("%s: %zu lines, %zu ids, digest %016llx; expected %zu, %zu, %016llx", path, lines,
                 count, (unsigned long long)digest, expected->lines, expected->ids,
                 expected->digest);
}

static void test_shared_prompts(void **state) {
    char *bytes = file_bytes(FOLDER "/shared.tsv", NULL), *rest = bytes, *line;
    assert_non_null(bytes);
    int files = 0, absent = 0;
    while ((line = strsep(&rest, "\n")) != NULL) {
        Shared expected;
        int end = 0;
        if (!*line) continue;
        assert_int_equal(sscanf(line, "%255s %zu %zu %llx\t%n", expected.name, &expected.lines,
                                &expected.ids, &expected.digest, &end),
                         4);
        assert_true(end > 0);
        expected.left_out = line + end;
        const char *path = shared_file(expected.name);
        if (path) check_shared_file(*state, path, &expected);
        files++, absent += !path;
    }
    free(bytes);
    assert_true(files >= 8);
    if (absent) skip();
}

/* ---- ids, special words, spaces ---- */

static void test_id_mapping(void **state) {
    const Tokenizer *tokenizer = *state;
    Error err;
    SentencePiece *model;
    assert_ok(sentencepiece_open(&model, MODEL, &err), &err);
    assert_int_equal(sentencepiece_count(model), PIECES);
    assert_int_equal(tokenizer_mask_id(tokenizer), MASK);
    assert_int_equal(tokenizer_size(tokenizer), MASK + 1);
    assert_string_equal(tokenizer_piece(tokenizer, 0), "<s>");
    assert_string_equal(tokenizer_piece(tokenizer, 1), "<pad>");
    assert_string_equal(tokenizer_piece(tokenizer, 2), "</s>");
    assert_string_equal(tokenizer_piece(tokenizer, 3), "<unk>");
    assert_string_equal(tokenizer_piece(tokenizer, MASK), "<mask>");
    for (int32_t piece = 3; piece < PIECES; piece++)
        assert_string_equal(tokenizer_piece(tokenizer, piece + 1),
                            sentencepiece_piece(model, piece));
    const int32_t outside[] = {-1, INT32_MIN, MASK + 1, INT32_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_string_equal(tokenizer_piece(tokenizer, outside[i]), "");
        assert_null(sentencepiece_piece(model, outside[i]));
    }
    assert_null(sentencepiece_piece(model, PIECES));
    sentencepiece_close(model);
    tokenizer_close(NULL);
}

static void test_special_words(void **state) {
    const Tokenizer *tokenizer = *state;
    const char *words[] = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"};
    const int32_t word_ids[] = {0, 1, 2, 3, MASK};
    Ids a = encode(tokenizer, "The dog", 7), b = encode(tokenizer, "barks", 5);
    for (int i = 0; i < 5; i++) {
        /* Text between special tokens is segmented separately. */
        char text[64];
        snprintf(text, sizeof text, "The dog%sbarks", words[i]);
        Ids whole = encode(tokenizer, text, strlen(text)), joined = {0};
        assert_int_equal(ids_append(&joined, a.ids, a.count, NULL), 0);
        assert_int_equal(ids_append(&joined, &word_ids[i], 1, NULL), 0);
        assert_int_equal(ids_append(&joined, b.ids, b.count, NULL), 0);
        assert_true(same_ids(&whole, &joined));
        ids_free(&whole), ids_free(&joined);
    }
    ids_free(&a), ids_free(&b);
    assert_same_encoding(tokenizer, "a<mask>b", "a <mask> b");
    assert_same_encoding(tokenizer, "a<mask>b", "a\t \xE3\x80\x80\xC2\xA0\n<mask>\n b");
    assert_same_encoding(tokenizer, "a</s>b", "a </s> b");
    /* Every character that Python's strip() takes, right in front of <mask>. A few of them
     * sentencepiece would keep: U+0085 and the separators U+001C..1F. */
    const char *spaces[] = {
        "\t",           "\n",           "\v",           "\f",           "\r",
        "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
        "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x8A",
        "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        char text[32];
        snprintf(text, sizeof text, "dog%s%s<mask>", spaces[i], spaces[i]);
        assert_same_encoding(tokenizer, text, "dog<mask>");
    }
}

static void test_spaces(void **state) {
    const Tokenizer *tokenizer = *state;
    Error err;
    const char *nothing[] = {"", " ", "\n", "\t \r\n", "\xE3\x80\x80"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        Ids ids = encode(tokenizer, nothing[i], strlen(nothing[i]));
        assert_int_equal(ids.count, 0);
        ids_free(&ids);
    }
    Ids ids = {0};
    assert_ok(tokenizer_encode(tokenizer, NULL, 0, &ids, &err), &err);
    assert_int_equal(ids.count, 0);
    assert_same_encoding(tokenizer, "one\ntwo", "one two");
    assert_same_encoding(tokenizer, "  one \t two\n", "one two");
}

static void test_encode_appends(void **state) {
    Error err;
    Ids ids = {0}, once = encode(*state, "Two dogs.", 9);
    int32_t first = TOKEN_BOS;
    assert_ok(ids_append(&ids, &first, 1, &err), &err);
    assert_ok(tokenizer_encode(*state, "Two dogs.", 9, &ids, &err), &err);
    assert_int_equal(ids.count, once.count + 1);
    assert_int_equal(ids.ids[0], TOKEN_BOS);
    assert_memory_equal(ids.ids + 1, once.ids, once.count * sizeof *once.ids);
    ids_free(&ids), ids_free(&once);
}

static void test_nul_bytes(void **state) {
    const char text[] = "a\0b\0\0<mask>\0";
    Ids ids = encode(*state, text, sizeof text - 1);
    assert_true(ids.count >= 3);
    size_t masks = 0;
    for (size_t i = 0; i < ids.count; i++) masks += ids.ids[i] == MASK;
    assert_int_equal(masks, 1);
    ids_free(&ids);
}

static void test_invalid_utf8(void **state) {
    const struct {
        const char *text;
        size_t size, at;
    } bad[] = {
        {"abc\xFF", 4, 3},                       /* a byte that starts nothing */
        {"\x80", 1, 0},                          /* a continuation alone */
        {"ab\xC0\xAF", 4, 2},                    /* overlong '/' */
        {"\xC1\xBF", 2, 0},                      /* overlong U+007F */
        {"\xE0\x80\x80", 3, 0},                  /* overlong NUL */
        {"x\xE0\x9F\xBF", 4, 1},                 /* overlong U+07FF */
        {"\xF0\x8F\xBF\xBF", 4, 0},              /* overlong U+FFFF */
        {"\xC3\xA9\xED\xA0\x80", 5, 2},          /* surrogate U+D800 */
        {"\xED\xBF\xBF", 3, 0},                  /* surrogate U+DFFF */
        {"\xF4\x90\x80\x80", 4, 0},              /* U+110000 */
        {"\xF5\x80\x80\x80", 4, 0},              /* beyond */
        {"dog \xE7\x8A", 6, 4},                  /* truncated */
        {"dog \xF0\x9F\x98", 7, 4},              /* truncated */
        {"\xC3", 1, 0},                          /* truncated */
        {"\xC3(", 2, 0},                         /* no continuation */
        {"\xE7\x8A(", 3, 0},                     /* no second continuation */
        {"\xF0\x9F\x98(", 4, 0},                 /* no third continuation */
        {"The <mask> is \xFE and more", 24, 14}, /* after a special token */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error err;
        Ids ids = {0};
        int32_t first = TOKEN_BOS;
        char position[32];
        /* Exactly as large as the text, so that a sanitizer detects a read past it. */
        char *copy = malloc(bad[i].size);
        memcpy(copy, bad[i].text, bad[i].size);
        assert_int_equal(ids_append(&ids, &first, 1, NULL), 0);
        snprintf(position, sizeof position, "byte %zu ", bad[i].at);
        assert_refused(tokenizer_encode(*state, copy, bad[i].size, &ids, &err), &err, position,
                       "UTF-8");
        assert_int_equal(ids.count, 1);
        free(copy), ids_free(&ids);
    }
    const char good[] = "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"
                        "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
    assert_int_equal(utf8_valid_prefix(good, sizeof good - 1), sizeof good - 1);
    Ids ids = encode(*state, good, sizeof good - 1);
    ids_free(&ids);
}

static void test_text_too_long(void **state) {
    Error err;
    Ids ids = {0};
    size_t size = (size_t)SENTENCEPIECE_LONGEST_TEXT + 1;
    char *text = malloc(size);
    memset(text, 'a', size);
    assert_refused(tokenizer_encode(*state, text, size, &ids, &err), &err, "67108865", "split");
    /* Long, but allowed; and one word. */
    assert_ok(tokenizer_encode(*state, text, 200000, &ids, &err), &err);
    assert_true(ids.count > 1000);
    free(text), ids_free(&ids);
}

/* A long text is segmented in chunks: its ids are those of its words, one after another. */
static void test_long_texts(void **state) {
    enum { SIZE = 400000 };
    static const char *const words[] = {"Hund", "größere", "Übermorgen", "the", "château", "dog"};
    static const int first[] = {0, 0, 1}, last[] = {5, 0, 2}; /* both kinds, ASCII, none of it */
    Error err;
    Ids whole = {0}, single = {0};
    TestRandom random = {17};
    char *text = malloc(SIZE + 100);
    assert_non_null(text);
    for (int round = 0; round < 3; round++) {
        char *p = text;
        whole.count = single.count = 0;
        while (p < text + SIZE) {
            unsigned kinds = (unsigned)(last[round] - first[round] + 1);
            const char *word = words[first[round] + (int)(test_random_next(&random) % kinds)];
            assert_ok(tokenizer_encode(*state, word, strlen(word), &single, &err), &err);
            p += sprintf(p, "%s%s", word, test_random_next(&random) % 3 ? " " : "\n");
        }
        assert_ok(tokenizer_encode(*state, text, (size_t)(p - text), &whole, &err), &err);
        assert_int_equal(whole.count, single.count);
        assert_memory_equal(whole.ids, single.ids, whole.count * sizeof *whole.ids);
    }
    free(text), ids_free(&whole), ids_free(&single);
}

static void test_decode(void **state) {
    const Tokenizer *tokenizer = *state;
    Error err;
    char *text;
    assert_ok(tokenizer_decode(tokenizer, NULL, 0, &text, &err), &err);
    assert_string_equal(text, "");
    free(text);
    const int32_t special[] = {0, 1, 2, 3, MASK};
    assert_ok(tokenizer_decode(tokenizer, special, 5, &text, &err), &err);
    assert_string_equal(text, "");
    free(text);
    Ids ids = encode(tokenizer, "<s> Two <mask> dogs</s><pad>", 28);
    assert_ok(tokenizer_decode(tokenizer, ids.ids, ids.count, &text, &err), &err);
    assert_string_equal(text, "Two dogs");
    free(text), ids_free(&ids);

    const int32_t high[] = {4, MASK + 1}, low[] = {-1};
    assert_refused(tokenizer_decode(tokenizer, high, 2, &text, &err), &err, "id 6002", "0 to 6001");
    assert_null(text);
    assert_refused(tokenizer_decode(tokenizer, low, 1, &text, &err), &err, "id -1");
    assert_null(text);
}

static void test_ids_append(void **state) {
    (void)state;
    Error err;
    Ids list = {0};
    for (int32_t i = 0; i < 5000; i++) assert_ok(ids_append(&list, &i, 1, &err), &err);
    assert_int_equal(list.count, 5000);
    assert_true(list.capacity >= list.count);
    for (int32_t i = 0; i < 5000; i++) assert_int_equal(list.ids[i], i);
    assert_ok(ids_append(&list, NULL, 0, &err), &err);
    const size_t too_many[] = {SIZE_MAX, SIZE_MAX - 4999, SIZE_MAX / 2, SIZE_MAX / 4, SIZE_MAX / 8};
    for (size_t i = 0; i < sizeof too_many / sizeof *too_many; i++) {
        assert_refused(ids_append(&list, list.ids, too_many[i], &err), &err, "ids");
        assert_int_equal(list.count, 5000);
    }
    ids_free(&list);
    assert_null(list.ids);
    assert_int_equal(list.count + list.capacity, 0);
    ids_free(&list);
}

/* ---- threads ---- */

typedef struct Worker {
    pthread_t thread;
    const Tokenizer *tokenizer;
    const char *text;
    size_t size;
    uint64_t digest;
    int failures;
} Worker;

static void *worker_run(void *argument) {
    Worker *worker = argument;
    worker->digest = 0xCBF29CE484222325u;
    for (size_t i = 0, next; i < worker->size; i = next + 1) {
        const char *end = memchr(worker->text + i, '\n', worker->size - i);
        next = end ? (size_t)(end - worker->text) : worker->size;
        Ids ids = {0};
        char *text = NULL;
        worker->failures +=
            tokenizer_encode(worker->tokenizer, worker->text + i, next - i, &ids, NULL) != 0 ||
            tokenizer_decode(worker->tokenizer, ids.ids, ids.count, &text, NULL) != 0;
        worker->digest = digest_ids(worker->digest, &ids);
        free(text), ids_free(&ids);
    }
    return NULL;
}

static void test_threads(void **state) {
    enum { WORKERS = 6 };
    Worker workers[WORKERS];
    size_t size;
    char *text = file_bytes(FOLDER "/phrases.txt", &size);
    assert_non_null(text);
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (Worker){.tokenizer = *state, .text = text, .size = size};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    Worker alone = {.tokenizer = *state, .text = text, .size = size};
    worker_run(&alone);
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(workers[i].failures, 0);
        assert_true(workers[i].digest == alone.digest);
    }
    free(text);
}

#define WITH_MODEL(test) cmocka_unit_test_setup_teardown(test, open_model, close_model)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_MODEL(test_golden_ids),    WITH_MODEL(test_golden_decode),
        WITH_MODEL(test_round_trip),    WITH_MODEL(test_shared_prompts),
        WITH_MODEL(test_id_mapping),    WITH_MODEL(test_special_words),
        WITH_MODEL(test_spaces),        WITH_MODEL(test_encode_appends),
        WITH_MODEL(test_nul_bytes),     WITH_MODEL(test_invalid_utf8),
        WITH_MODEL(test_text_too_long), WITH_MODEL(test_long_texts),
        WITH_MODEL(test_decode),        cmocka_unit_test(test_ids_append),
        WITH_MODEL(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
