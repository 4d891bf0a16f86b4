/* PyTorch's files: views and dicts as PyTorch saves them, and broken and hostile zips and pickles,
 * each with a message of its own. */
#include "tests/checkpoint_files.h"

static void test_views(void **state) {
    (void)state;
    Checkpoint c;
    open_good(&c, GOLDEN "views.bin", NULL);
    assert_int_equal(c.count, 9);
    check_views(&c);
    const float *tied = checkpoint_find(&c, "tied")->value.data;
    assert_ptr_equal(checkpoint_find(&c, "tied_too")->value.data, tied);
    assert_ptr_equal(checkpoint_find(&c, "tied_rows")->value.data, tied + 3);
    const Tensor *expanded = &checkpoint_find(&c, "expanded")->value;
    assert_int_equal(tensor_count(*expanded), 6);
    for (size_t i = 0; i < 6; i++) assert_true(value_at(expanded, i) == -1.5);
    for (size_t i = 0; i < c.count; i++)
        checkpoint_release_pages(&c, c.tensors[i].value.data, tensor_bytes(c.tensors[i].value));
    check_tensor(&c, "transposed", DTYPE_F32, DIMS(3, 4));
    checkpoint_close(&c);
}

static void test_nested_dicts(void **state) {
    (void)state;
    Checkpoint c;
    open_good(&c, GOLDEN "module.bin", NULL); /* an ordered dict with attributes */
    assert_int_equal(c.count, 2);
    check_tensor(&c, "weight", DTYPE_F32, DIMS(2, 3));
    check_tensor(&c, "bias", DTYPE_F32, DIMS(2));
    checkpoint_close(&c);

    open_good(&c, GOLDEN "trainer.pt", NULL); /* its "state_dict" alone */
    assert_int_equal(c.count, 2);
    check_tensor(&c, "a", DTYPE_F32, DIMS(2));
    check_tensor(&c, "b.c", DTYPE_F32, DIMS(3));
    checkpoint_close(&c);

    open_good(&c, GOLDEN "nested.pt", NULL);
    assert_int_equal(c.count, 4);
    check_tensor(&c, "encoder.w", DTYPE_F32, DIMS(2));
    check_tensor(&c, "list.0", DTYPE_F32, DIMS(1));
    check_tensor(&c, "list.1", DTYPE_F32, DIMS(2));
    check_tensor(&c, "7.w", DTYPE_F32, DIMS(3));
    checkpoint_close(&c);
}

/* ---- hostile and broken PyTorch files ---- */

typedef struct Part {
    const char *name;
    const void *bytes;
    size_t size;
} Part;

typedef struct Buffer {
    unsigned char *bytes;
    size_t size, capacity;
} Buffer;

static void put(Buffer *b, const void *bytes, size_t size) {
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size);
        b->bytes = realloc(b->bytes, b->capacity);
        assert_non_null(b->bytes);
    }
    if (size) memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
}

static void put_number(Buffer *b, uint64_t value, size_t width) {
    put(b, &value, width);
}

/* A zip of stored entries. With `wide` the directory holds its sizes as 64-bit numbers in an extra
 * field, as in files of more than 4 GB. No padding: values lie at any address. */
static void save_zip(const char *path, const Part *parts, size_t count, bool wide) {
    Buffer zip = {0}, directory = {0};
    for (size_t i = 0; i < count; i++) {
        size_t offset = zip.size, name = strlen(parts[i].name);
        put(&zip, "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0", 18);
        put_number(&zip, parts[i].size, 4);
        put_number(&zip, parts[i].size, 4);
        put_number(&zip, name, 4);
        put(&zip, parts[i].name, name);
        put(&zip, parts[i].bytes, parts[i].size);

        put(&directory, "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
        put_number(&directory, wide ? UINT32_MAX : parts[i].size, 4);
        put_number(&directory, wide ? UINT32_MAX : parts[i].size, 4);
        put_number(&directory, name, 2);
        put_number(&directory, wide ? 4 + 5 + 4 + 24 : 0, 2);
        put_number(&directory, 0, 8);
        put_number(&directory, 0, 2);
        put_number(&directory, wide ? UINT32_MAX : offset, 4);
        put(&directory, parts[i].name, name);
        if (!wide) continue;
        put(&directory, "XX\5\0other\1\0\30\0", 13); /* another field before the wanted one */
        put_number(&directory, parts[i].size, 8);
        put_number(&directory, parts[i].size, 8);
        put_number(&directory, offset, 8);
    }
    size_t offset = zip.size;
    put(&zip, directory.bytes, directory.size);
    put(&zip, "PK\5\6\0\0\0\0", 8);
    put_number(&zip, count, 2);
    put_number(&zip, count, 2);
    put_number(&zip, directory.size, 4);
    put_number(&zip, offset, 4);
    put(&zip, "\7\0comment", 9);
    save(path, zip.bytes, zip.size);
    free(zip.bytes);
    free(directory.bytes);
}

static const float storage_values[4] = {-1.5f, -1.0f, -0.5f, 0.0f};

static void save_pickle(const char *path, const void *pickle, size_t size, bool wide) {
    Part parts[] = {{"x/data.pkl", pickle, size},
                    {"x/byteorder", "little", 6},
                    {"x/data/0", storage_values, sizeof storage_values}};
    save_zip(path, parts, 3, wide);
}

/* Pieces of pickles; octal escapes, which unlike \x never swallow the letters after them. */
#define STORAGE_AS(type, key, count) \
    "(X\7\0\0\0storagec" type "\nX\1\0\0\0" key "X\3\0\0\0cpuK" count "tQ"
#define STORAGE                     STORAGE_AS("torch\nFloatStorage", "0", "\4")
#define REBUILD                     "ctorch._utils\n_rebuild_tensor_v2\n"
#define VIEW(offset, shape, stride) offset shape stride "\211}"
#define TENSOR_AS(storage, view)    REBUILD "(" storage view "tR"
#define FOUR                        VIEW("K\0", "K\4\205", "K\1\205")
#define TENSOR                      TENSOR_AS(STORAGE, FOUR)
#define DICT_OF(tensor)             "\200\2}X\1\0\0\0a" tensor "s."
#define LARGEST                     "\212\10\377\377\377\377\377\377\377\177" /* INT64_MAX */

static void test_made_pickles(void **state) {
    (void)state;
    const char plain[] = DICT_OF(TENSOR);
    const char typed[] = DICT_OF("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE_AS(
        "torch.storage\nUntypedStorage", "0", "\20") FOUR "ctorch\nfloat32\ntR");
    const char framed[] = "\200\4\225\0\0\0\0\0\0\0\0}\224\214\1a\214\14torch._utils\214\22"
                          "_rebuild_tensor_v2\223(" STORAGE FOUR "tRs.";
    const char stride[] = DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "K\1K\4\206", LARGEST "K\1\206")));
    const Part pickles[] = {{"plain", plain, sizeof plain - 1},
                            {"typed", typed, sizeof typed - 1},
                            {"framed", framed, sizeof framed - 1},
                            {"stride", stride, sizeof stride - 1}};
    const char *path = at("made.pt");
    for (int i = 0; i < 8; i++) {
        save_pickle(path, pickles[i / 2].bytes, pickles[i / 2].size, i % 2);
        Checkpoint c;
        open_good(&c, path, NULL);
        assert_int_equal(c.count, 1);
        if (i / 2 == 3)
            check_tensor(&c, "a", DTYPE_F32, DIMS(1, 4));
        else
            check_tensor(&c, "a", DTYPE_F32, DIMS(4));
        checkpoint_close(&c);
    }
}

#define PICKLE(text) text, sizeof text - 1
#define PIECE(text) \
    { "", text, sizeof text - 1 }

static void test_bad_pickles(void **state) {
    (void)state;
    const struct {
        const char *pickle;
        size_t size;
        const char *words[2];
    } cases[] = {
        {PICKLE("cposix\nsystem\n(X\2\0\0\0idtR."), {"\"posix.system\"", "nothing was executed"}},
        {PICKLE("\200\4\214\2os\214\6system\223."), {"\"os.system\"", "state_dict"}},
        {PICKLE("ccollections\nOrderedDictX\n."), {"OrderedDictX"}},
        {PICKLE("K\1K\2\223."), {"pickle byte 4", "not a name"}},
        {PICKLE("cposix"), {"middle of a name"}},
        {PICKLE(""), {"ends in the middle"}},
        {PICKLE("\200\2"), {"ends in the middle"}},
        {PICKLE("X\377\377\377\377a."), {"ends in the middle"}},
        {PICKLE("\215\377\377\377\377\377\377\377\377a."), {"ends in the middle"}},
        {PICKLE("\213\377\377\377\377a."), {"ends in the middle"}},
        {PICKLE("\200\11}."), {"pickle protocol"}},
        {PICKLE("I1\n."), {"instruction 0x49", "safetensors"}},
        {PICKLE("."), {"empty stack"}},
        {PICKLE("}(."), {"empty stack"}},
        {PICKLE("}(\205."), {"empty stack"}},
        {PICKLE("q\0."), {"memoizes", "empty stack"}},
        {PICKLE("}h\7."), {"never memoized"}},
        {PICKLE("}q\7h\6."), {"never memoized"}},
        {PICKLE("}j\377\377\377\377."), {"never memoized"}},
        {PICKLE("}r\377\377\377\377."), {"memo is too large"}},
        {PICKLE("t."), {"mark that was never set"}},
        {PICKLE("K\1K\2a."), {"not a list or dict"}},
        {PICKLE("}(K\1u."), {"not a list or dict"}},
        {PICKLE("(K\1e."), {"adds items to nothing"}},
        {PICKLE("]]b."), {"sets attributes"}},
        {PICKLE("]b."), {"sets attributes"}},
        {PICKLE("K\1)R."), {"not a function"}},
        {PICKLE("ctorch\nFloatStorage\n)R."), {"calls a type"}},
        {PICKLE("ccollections\nOrderedDict\nK\1\205R."), {"ordered dict from something"}},
        {PICKLE(REBUILD ")R."), {"rebuilds a tensor"}},
        {PICKLE("ctorch._utils\n_rebuild_parameter\n)R."), {"parameter"}},
        {PICKLE("ctorch\nSize\n)R."), {"shape"}},
        {PICKLE("K\1Q."), {"names a storage"}},
        {PICKLE(")Q."), {"names a storage"}},
        {PICKLE("K\1."), {"no dict of tensors", "state_dict"}},
        {PICKLE(TENSOR "."), {"no dict of tensors"}},
        {PICKLE("}."), {"holds no tensors"}},
        {PICKLE("}q\0X\1\0\0\0ah\0s."), {"nested too deep"}},
        {PICKLE("}X\3\0\0\0a\0b" TENSOR "s."), {"zero byte"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE_AS("torch\nfloat32", "0", "\4"), FOUR))),
         {"\"a\"", "unknown description"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE_AS("torch\nFloatStorage", "9", "\4"), FOUR))),
         {"\"x/data/9\"", "not in the file"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE_AS("torch\nFloatStorage", "0", "\5"), FOUR))),
         {"5 elements of 4 bytes", "16 bytes"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\1", "K\4\205", "K\1\205")))),
         {"\"a\" of shape [4] at element 1", "16 bytes"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("J\377\377\377\377", "K\4\205", "K\1\205")))),
         {"at element -1", "beyond"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "K\2\205", LARGEST "\205")))), {"beyond"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\1", "K\3\205", LARGEST "\205")))), {"beyond"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", LARGEST "\205", "K\0\205")))), {"beyond"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "J\0\0\0\177\205", "K\0\205")))),
         {"repeats values"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "J\377\377\377\377\205", "K\1\205")))),
         {"other than integers"}},
        {PICKLE(
             DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "\212\11\0\0\0\0\0\0\0\0\1\205", "K\1\205")))),
         {"other than integers"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "K\4\205", ")")))), {"unknown type"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("N", "K\4\205", "K\1\205")))), {"unknown type"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "K\4", "K\1\205")))), {"not a tuple"}},
        {PICKLE(DICT_OF(TENSOR_AS(STORAGE, VIEW("K\0", "(NNNNNNNNNt", "K\1\205")))),
         {"9 dimensions", "8"}},
        {PICKLE(DICT_OF("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE FOUR "NtR")),
         {"not a type"}},
    };
    Error err;
    const char *path = at("bad.pt");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_pickle(path, cases[i].pickle, cases[i].size, false);
        assert_refused(open_path(path, &err), &err, path, cases[i].words[0], cases[i].words[1]);
    }
}

/* Small files that would take all memory or time of a careless reader. */
static void test_bombs(void **state) {
    (void)state;
    const struct {
        Part begin, unit;
        const char *end;
        size_t times;
        const char *words;
    } cases[] = {
        {PIECE(""), PIECE("N"), ".", 1 << 21, "stack is too large"},
        {PIECE("}"), PIECE("}K\1"), ".", 1 << 21, "stack is too large"},
        {PIECE(""), PIECE("("), ".", 1 << 21, "nested too deeply"},
        {PIECE("]"), PIECE("]a"), ".", 5 << 20, "more objects"},
        /* Lists in one another, each holding the last one nine times: 9^25 in all. */
        {PIECE("]q\1"), PIECE("](h\1h\1h\1h\1h\1h\1h\1h\1h\1eq\1"), ".", 25, "repeat in it"},
        {PIECE("]q\1"), PIECE("](h\1eq\1"), ".", 100000, "nested too deep"},
        {PIECE("](" TENSOR "q\1"), PIECE("h\1"), "e.", 200000, "too often"},
    };
    Error err;
    const char *path = at("bomb.pt");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Buffer pickle = {0};
        put(&pickle, cases[i].begin.bytes, cases[i].begin.size);
        for (size_t k = 0; k < cases[i].times; k++)
            put(&pickle, cases[i].unit.bytes, cases[i].unit.size);
        put(&pickle, cases[i].end, strlen(cases[i].end));
        save_pickle(path, pickle.bytes, pickle.size, false);
        free(pickle.bytes);
        assert_refused(open_path(path, &err), &err, path, cases[i].words);
    }
    char name[2000] = "}X\0\6\0\0"; /* a key of 1,536 bytes */
    memset(name + 6, 'n', 1536);
    memcpy(name + 6 + 1536, TENSOR "s.", sizeof TENSOR "s.");
    save_pickle(path, name, 6 + 1536 + sizeof TENSOR "s." - 1, false);
    assert_refused(open_path(path, &err), &err, path, "longer than any");
}

static void test_bad_zips(void **state) {
    (void)state;
    Error err;
    const char *path = at("bad.zip");
    const char good[] = DICT_OF(TENSOR);
    Part pickle = {"data.pkl", good, sizeof good - 1};
    Part values = {"data/0", storage_values, sizeof storage_values};

    save_zip(path, (Part[]){pickle, values}, 2, false); /* without a folder, and byte order */
    assert_int_equal(open_path(path, &err), 0);
    save_zip(path, (Part[]){values}, 1, false);
    assert_refused(open_path(path, &err), &err, path, "without data.pkl", "unpack");
    save_zip(path, (Part[]){pickle, values, {"x/data.pkl", "", 0}}, 3, false);
    assert_refused(open_path(path, &err), &err, path, "more than one data.pkl");
    save_zip(path, (Part[]){pickle, values, values}, 3, false);
    assert_refused(open_path(path, &err), &err, path, "two zip entries", "data/0");
    save_zip(path, (Part[]){pickle, values, {"byteorder", "big", 3}}, 3, false);
    assert_refused(open_path(path, &err), &err, path, "\"big\"", "little");

    /* Byte by byte: offset, new value, message. The first entry's header is at 0, its name at 30;
     * the directory follows the two entries. */
    save_zip(path, (Part[]){pickle, values}, 2, false);
    size_t size, second = 30 + 8 + pickle.size, directory = second + 30 + 6 + values.size;
    char *bytes = file_bytes(path, &size);
    assert_non_null(bytes);
    const struct {
        size_t at;
        unsigned char value;
        const char *words[2];
    } cases[] = {
        {second, 'X', {"data/0", "not where the directory says"}},
        {second + 26, 7, {"data/0", "another name"}},
        {second + 30, 'D', {"data/0", "another name"}},
        {second + 29, 0xff, {"data/0", "ends after the file"}},
        {directory, 'X', {"entry 0", "damaged"}},
        {directory + 8, 1, {"data.pkl", "encrypted"}},
        {directory + 10, 8, {"data.pkl", "compressed"}},
        {directory + 20, 1, {"data.pkl", "not where"}},
        {directory + 29, 0xff, {"entry 0", "damaged"}},
        {directory + 45, 0x7f, {"data.pkl", "not where"}},
        {size - 9 - 8 + 2, 0xff, {"zip directory", "not in the file"}},
        {size - 9 - 4 + 3, 0xff, {"zip directory", "not in the file"}},
        {size - 9 - 10, 0xff, {"zip directory", "not in the file"}},
        {size - 9, 8, {"no zip directory", "cut off"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char saved = bytes[cases[i].at];
        bytes[cases[i].at] = (char)cases[i].value;
        save(path, bytes, size);
        bytes[cases[i].at] = saved;
        assert_refused(open_path(path, &err), &err, path, cases[i].words[0], cases[i].words[1]);
    }
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),        cmocka_unit_test(test_nested_dicts),
        cmocka_unit_test(test_made_pickles), cmocka_unit_test(test_bad_pickles),
        cmocka_unit_test(test_bombs),        cmocka_unit_test(test_bad_zips),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
