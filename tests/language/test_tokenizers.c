/* test_tokenizers.c - tokenizer.json and older files of every kind: ids and texts as the
 * `tokenizers` library has them (tests/reference/make_tokenizers.py). */
#include "tests/test.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "language/sentencepiece_file.h"
#include "language/tokenizer.h"

#define FOLDER        "tests/golden/tokenizers"
#define SENTENCEPIECE "tests/golden/tokenizer/sentencepiece.bpe.model"

static uint64_t fnv(const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint64_t digest = 0xCBF29CE484222325u;
    for (size_t i = 0; i < size; i++) digest = (digest ^ bytes[i]) * 0x100000001B3u;
    return digest;
}

/* The lines of a file. */
typedef struct Lines {
    char *bytes, *rest;
} Lines;

static Lines lines_open(const char *folder, const char *name) {
    char path[512];
    assert_true((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path);
    Lines lines = {.bytes = file_bytes(path, NULL)};
    if (!lines.bytes) fail_msg("%s: missing", path);
    lines.rest = lines.bytes;
    return lines;
}

static char *lines_next(Lines *lines) {
    char *line = strsep(&lines->rest, "\n");
    return line && (*line || lines->rest) ? line : NULL;
}

/* Compares one text with its line of ids.tsv; returns whether both the ids and the decoded text are
 * as expected. */
static bool same_as(const Tokenizer *t, const json_t *text, const char *expected, const char *kind,
                    int number) {
    Error err;
    Ids ids = {0};
    char *back, found[128];
    assert_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &err),
              &err);
    assert_ok(tokenizer_decode(t, ids.ids, ids.count, &back, &err), &err);
    snprintf(found, sizeof found, "%zu\t%016llx\t", ids.count,
             (unsigned long long)fnv(ids.ids, ids.count * sizeof *ids.ids));
    bool same = strncmp(found, expected, strlen(found)) == 0;
    if (!same) print_message("%s, text %d: ids are %sexpected %s\n", kind, number, found, expected);
    /* A decoded NUL ends a C string: such texts are compared by their ids alone. */
    if (same && !memchr(json_string_value(text), 0, json_string_length(text))) {
        snprintf(found, sizeof found, "%016llx", (unsigned long long)fnv(back, strlen(back)));
        same = strcmp(found, strrchr(expected, '\t') + 1) == 0;
        if (!same) print_message("%s, text %d: decoded \"%s\"\n", kind, number, back);
    }
    free(back);
    ids_free(&ids);
    return same;
}

/* Compares all texts; returns how many there are. */
static int compare(const Tokenizer *t, const char *texts_folder, const char *folder) {
    Lines texts = lines_open(texts_folder, "texts.jsonl"), ids = lines_open(folder, "ids.tsv");
    char *text, *expected;
    int count = 0, wrong = 0;
    while ((text = lines_next(&texts)) && (expected = lines_next(&ids))) {
        json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(value);
        wrong += !same_as(t, value, expected, folder, count++);
        json_decref(value);
    }
    assert_null(text);
    assert_null(lines_next(&ids));
    free(texts.bytes), free(ids.bytes);
    if (wrong) fail_msg("%s: %d of %d texts differ", folder, wrong, count);
    return count;
}

static Tokenizer *open_kind(const char *kind) {
    Error err;
    Tokenizer *t;
    char path[512];
    snprintf(path, sizeof path, FOLDER "/%s", kind);
    assert_ok(tokenizer_open(&t, path, &err), &err);
    return t;
}

/* ---- Every kind. ---- */

typedef struct Kind {
    const char *name, *kind;
    const char *begin, *end, *pad, *mask; /* pieces, "" for none */
} Kind;

static const Kind kinds[] = {
    {"gpt2", "byte-level BPE", "", "", "", ""},
    {"roberta", "byte-level BPE", "<s>", "</s>", "<pad>", "<mask>"},
    {"qwen2", "byte-level BPE", "", "", "", "<|mask|>"},
    {"dream", "byte-level BPE", "", "<|endoftext|>", "<|endoftext|>", "<|mask|>"},
    {"llama3", "byte-level BPE", "<|begin_of_text|>", "", "", "<|mdm_mask|>"},
    {"llama2", "BPE with byte fallback", "<s>", "", "", ""},
    {"llama2-metaspace", "BPE with byte fallback", "", "", "", ""},
    {"unigram", "Unigram", "", "", "", "<mask>"},
    {"bert", "WordPiece", "[CLS]", "[SEP]", "[PAD]", "[MASK]"},
    {"bert-cased", "WordPiece", "[CLS]", "[SEP]", "[PAD]", "[MASK]"},
    {"clip", "BPE", "", "", "", ""},
    {"modernbert", "byte-level BPE", "[CLS]", "[SEP]", "[PAD]", "[MASK]"},
    {"mmbert", "BPE with byte fallback", "<bos>", "<eos>", "<pad>", "<mask>"},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void test_ids(void **state) {
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        char folder[512];
        Tokenizer *t = open_kind(kinds[i].name);
        snprintf(folder, sizeof folder, FOLDER "/%s", kinds[i].name);
        assert_int_equal(compare(t, FOLDER, folder), 200);
        tokenizer_close(t);
    }
}

static void test_specials(void **state) {
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        Tokenizer *t = open_kind(kinds[i].name);
        const TokenizerSpecials *s = tokenizer_specials(t);
        assert_string_equal(tokenizer_kind(t), kinds[i].kind);
        assert_string_equal(tokenizer_piece(t, s->begin), kinds[i].begin);
        assert_string_equal(tokenizer_piece(t, s->end), kinds[i].end);
        assert_string_equal(tokenizer_piece(t, s->pad), kinds[i].pad);
        assert_string_equal(tokenizer_piece(t, s->mask), kinds[i].mask);
        assert_int_equal(tokenizer_mask_id(t), s->mask);
        if (s->mask >= 0) assert_int_equal(tokenizer_find(t, kinds[i].mask), s->mask);
        tokenizer_close(t);
    }
}

static void test_frame(void **state) {
    (void)state;
    Tokenizer *bert = open_kind("bert"), *llama = open_kind("llama3"), *gpt2 = open_kind("gpt2");
    TokenizerFrame frame = tokenizer_frame(bert);
    assert_int_equal(frame.before_count, 1);
    assert_int_equal(frame.after_count, 1);
    assert_string_equal(tokenizer_piece(bert, frame.before[0]), "[CLS]");
    assert_string_equal(tokenizer_piece(bert, frame.after[0]), "[SEP]");
    frame = tokenizer_frame(llama);
    assert_int_equal(frame.before_count, 1);
    assert_int_equal(frame.after_count, 0);
    frame = tokenizer_frame(gpt2);
    assert_int_equal(frame.before_count + frame.after_count, 0);
    assert_string_equal(tokenizer_piece(llama, tokenizer_specials(llama)->turn_end), "<|eot_id|>");
    tokenizer_close(bert), tokenizer_close(llama), tokenizer_close(gpt2);
}

static void test_given_specials(void **state) {
    (void)state;
    Error err;
    Tokenizer *t;
    TokenizerSpecials given = {-1, 7, -1, -1, 300, -1};
    assert_ok(tokenizer_open_as(&t, FOLDER "/gpt2", &given, &err), &err);
    assert_int_equal(tokenizer_mask_id(t), 300);
    assert_int_equal(tokenizer_specials(t)->end, 7);
    assert_int_equal(tokenizer_specials(t)->turn_end, 7);
    char *text; /* special tokens are not part of a decoded text */
    assert_ok(tokenizer_decode(t, (int32_t[]){7, 300}, 2, &text, &err), &err);
    assert_string_equal(text, "");
    free(text);
    tokenizer_close(t);
    given.mask = 70000;
    assert_refused(tokenizer_open_as(&t, FOLDER "/gpt2", &given, &err), &err, "70000",
                   "vocabulary");
    given.mask = 3;
    assert_refused(tokenizer_open_as(&t, SENTENCEPIECE, &given, &err), &err, "special id");
}

/* Pieces are text: a space is U+2581, bytes that are none are named. */
static void test_display(void **state) {
    (void)state;
    Tokenizer *t = open_kind("gpt2");
    bool space = false, byte = false;
    for (int32_t id = 0; id < tokenizer_size(t); id++) {
        const char *piece = tokenizer_piece(t, id);
        space |= strncmp(piece, "\u2581", 3) == 0 && piece[3] > ' ';
        byte |= strcmp(piece, "<0xE2>") == 0;
        for (const char *c = piece; *c; c++) assert_true((unsigned char)*c > ' ');
    }
    assert_true(space && byte);
    assert_string_equal(tokenizer_piece(t, -1), "");
    assert_string_equal(tokenizer_piece(t, tokenizer_size(t)), "");
    tokenizer_close(t);
}

/* ---- XLM-R's tokenizer.json, made of the sentencepiece model. ---- */

static json_t *piece_of(const char *text, double score) {
    return json_pack("[s, f]", text, score);
}

static json_t *added(int id, const char *content, bool left) {
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content,
                     "single_word", 0, "lstrip", left, "rstrip", 0, "normalized", 0, "special", 1);
}

static char *base64(const unsigned char *bytes, size_t size) {
    char *text = malloc(size / 3 * 4 + 8);
    assert_non_null(text);
    EVP_EncodeBlock((unsigned char *)text, bytes, (int)size);
    return text;
}

static json_t *xlmr_json(void) {
    size_t size;
    char *bytes = file_bytes(SENTENCEPIECE, &size), *charsmap = NULL;
    assert_non_null(bytes);
    ProtoCursor in = {(unsigned char *)bytes, (unsigned char *)bytes + size};
    ProtoField field, inner;
    json_t *vocab = json_pack("[[s, f], [s, f], [s, f], [s, f]]", "<s>", 0.0, "<pad>", 0.0, "</s>",
                              0.0, "<unk>", 0.0);
    for (int count = 0; proto_next(&in, &field);) {
        ProtoCursor inside = proto_inside(&field);
        PieceFields piece;
        if (field.number == MODEL_PIECE && count++ >= 3) {
            char text[256];
            assert_null(piece_read(&field, &piece));
            snprintf(text, sizeof text, "%.*s", (int)piece.size, (const char *)piece.text);
            json_array_append_new(vocab, piece_of(text, (double)piece.score));
        }
        while (field.number == MODEL_NORMALIZER && proto_next(&inside, &inner))
            if (inner.number == 2 && inner.wire == WIRE_BYTES)
                charsmap = base64(inner.bytes, inner.size);
    }
    assert_non_null(charsmap);
    json_array_append_new(vocab, piece_of("<mask>", 0));
    int mask = (int)json_array_size(vocab) - 1;
    json_t *space = json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", "\u2581",
                              "prepend_scheme", "always", "split", 1);
    json_t *root = json_pack(
        "{s:{s:s, s:i, s:o, s:b}, s:[o, o, o, o, o], s:{s:s, s:s}, s:O, s:o}", "model", "type",
        "Unigram", "unk_id", 3, "vocab", vocab, "byte_fallback", 0, "added_tokens",
        added(0, "<s>", false), added(1, "<pad>", false), added(2, "</s>", false),
        added(3, "<unk>", false), added(mask, "<mask>", true), "normalizer", "type", "Precompiled",
        "precompiled_charsmap", charsmap, "pre_tokenizer", space, "decoder", space);
    assert_non_null(root);
    free(charsmap), free(bytes);
    return root;
}

static void write_json(json_t *root, const char *path) {
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
}

static void test_xlmr(void **state) {
    (void)state;
    Error err;
    Tokenizer *t, *own;
    char folder[256], path[300];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    write_json(xlmr_json(), path);
    assert_ok(tokenizer_open(&t, folder, &err), &err);
    assert_ok(tokenizer_open(&own, SENTENCEPIECE, &err), &err);
    assert_int_equal(compare(t, FOLDER, FOLDER "/xlmr"), 200);
    assert_int_equal(tokenizer_size(t), tokenizer_size(own));
    assert_int_equal(tokenizer_mask_id(t), tokenizer_mask_id(own));
    for (int32_t id = 0; id < tokenizer_size(t); id++)
        assert_string_equal(tokenizer_piece(t, id), tokenizer_piece(own, id));
    tokenizer_close(t), tokenizer_close(own);
    temporary_remove(folder);
}

/* ---- Real vocabularies, where they are. ---- */

static void test_real(void **state) {
    (void)state;
    const char *all = getenv("EASYFIRST_TOKENIZERS");
    static const char *const names[] = {"gpt2", "roberta", "qwen2",     "qwen_json", "llama3",
                                        "xlmr", "claude",  "deepseek2", "llama2",    "bert"};
    if (!all) {
        print_message("EASYFIRST_TOKENIZERS names no folder of real vocabularies\n");
        skip();
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Error err;
        Tokenizer *t;
        char folder[512];
        snprintf(folder, sizeof folder, "%s/%s", all, names[i]);
        if (access(folder, F_OK) != 0) continue;
        assert_ok(tokenizer_open(&t, folder, &err), &err);
        assert_int_equal(compare(t, folder, folder), 2000);
        tokenizer_close(t);
    }
}

/* ---- Threads, long texts. ---- */

static void *encode_again(void *argument) {
    const Tokenizer *t = argument;
    for (int i = 0; i < 20; i++) compare(t, FOLDER, FOLDER "/llama3");
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    Tokenizer *t = open_kind("llama3");
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again, t), 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    tokenizer_close(t);
}

/* A word of 1 MB is as fast as other text, with every kind; so are white space and marks. */
static void test_long_words(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (int i = 0; i < KINDS; i++) {
        Tokenizer *t = open_kind(kinds[i].name);
        for (int filler = 0; filler < 3; filler++) {
            Error err;
            Ids ids = {0};
            for (size_t k = 0; k < SIZE; k += 2) memcpy(text + k, filler == 2 ? "\u0301" : "aa", 2);
            if (filler == 1) memset(text, ' ', SIZE);
            clock_t start = clock();
            assert_ok(tokenizer_encode(t, text, SIZE, &ids, &err), &err);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 8) fail_msg("%s: %.1f s for 1 MB", kinds[i].name, seconds);
            ids_free(&ids);
        }
        tokenizer_close(t);
    }
    free(text);
}

/* ---- Refusals. ---- */

static void test_bad_text(void **state) {
    (void)state;
    Error err;
    Ids ids = {0};
    for (int i = 0; i < KINDS; i++) {
        Tokenizer *t = open_kind(kinds[i].name);
        assert_refused(tokenizer_encode(t, "ab\xFF", 3, &ids, &err), &err, "byte 2", "UTF-8");
        char *text;
        assert_refused(tokenizer_decode(t, (int32_t[]){1 << 20}, 1, &text, &err), &err, "1048576");
        tokenizer_close(t);
    }
    assert_int_equal(ids.count, 0);
    ids_free(&ids);
}

/* A small tokenizer.json with one part replaced. */
static int open_changed(const char *part, const char *json, Error *err) {
    char folder[256], path[300];
    Tokenizer *t;
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    json_t *root = json_load_file(FOLDER "/llama3/tokenizer.json", 0, NULL);
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(root);
    if (!value) fail_msg("not JSON: %s", json);
    json_object_set_new(root, part, value);
    write_json(root, path);
    int status = tokenizer_open(&t, folder, err);
    tokenizer_close(t);
    temporary_remove(folder);
    return status;
}

static void test_refused(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"normalizer", "{\"type\":\"Lowercase\",\"locale\":\"tr\"}", "locale"},
        {"normalizer", "{\"type\":\"Titlecase\"}", "Titlecase"},
        {"normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}", "damaged"},
        {"pre_tokenizer", "{\"type\":\"UnicodeScripts\"}", "UnicodeScripts"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(\"},\"behavior\":\"Isolated\"}", "PCRE2"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h+\"},\"behavior\":\"Isolated\"}",
         "\\h"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\"}", "&&"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{1,2}+\"},\"behavior\":\"Isolated\"}",
         "}+"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Dropped\"}", "Dropped"},
        {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", "replacement"},
        {"decoder", "{\"type\":\"CTC\"}", "CTC"},
        {"decoder", "[]", "type"},
        {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[]}", "no text"},
        {"post_processor",
         "{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",2],\"cls\":[\"<s>\",0]}", "<s>"},
        {"model", "{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}", "WordLevel"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}", "merge 0"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}",
         "dropout"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}", "the id 0"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}", "-1"},
        {"model", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}", "unk_id 1"},
        {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}", "[UNK]"},
        {"added_tokens", "[{\"id\":9000,\"content\":\"<x>\"}]", "9000"},
        {"added_tokens", "[{\"id\":3}]", "content"},
        {"surprise", "1", "surprise"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Error err;
        assert_refused(open_changed(cases[i][0], cases[i][1], &err), &err, "tokenizer.json",
                       cases[i][2]);
    }
}

/* A character that has no token, where there is no unknown one, is not dropped in silence. */
static void test_no_token(void **state) {
    (void)state;
    Error err;
    Tokenizer *t;
    Ids ids = {0};
    char folder[256], path[300];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    write_json(
        json_pack("{s:{s:s, s:{s:i}, s:[]}}", "model", "type", "BPE", "vocab", "a", 0, "merges"),
        path);
    assert_ok(tokenizer_open(&t, folder, &err), &err);
    assert_ok(tokenizer_encode(t, "aa", 2, &ids, &err), &err);
    assert_int_equal(ids.count, 2);
    assert_refused(tokenizer_encode(t, "ab", 2, &ids, &err), &err, "U+0062", "no token");
    assert_int_equal(ids.count, 2);
    ids_free(&ids);
    tokenizer_close(t);
    temporary_remove(folder);
    assert_refused(tokenizer_open(&t, "tests/golden", &err), &err, "tests/golden/sentencepiece",
                   "tokenizer.json", "merges.txt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_frame),      cmocka_unit_test(test_given_specials),
        cmocka_unit_test(test_display),    cmocka_unit_test(test_xlmr),
        cmocka_unit_test(test_real),       cmocka_unit_test(test_threads),
        cmocka_unit_test(test_long_words), cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_no_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
