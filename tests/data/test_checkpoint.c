/* Checkpoints: files that PyTorch and safetensors wrote, our own round trip, the choice of files in
 * a folder, broken safetensors files and indexes, and damage of every kind. What is special to
 * PyTorch's files is in test_torch_file.c. */
#include "tests/checkpoint_files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "data/files/json_memory.h"

enum { DAMAGED_COPIES = 2000 };

static void check_all_types(const char *path, const char *f8, const char *u16) {
    Checkpoint c;
    open_good(&c, path, NULL);
    assert_int_equal(c.count, 14);
    check_types(&c);
    check_tensor(&c, "scalar", DTYPE_F32, (int[]){-1});
    check_tensor(&c, "empty", DTYPE_F32, DIMS(0, 4));
    assert_null(checkpoint_find(&c, "f3"));
    assert_null(checkpoint_find(&c, ""));

    /* Types that are not computed with are listed all the same. */
    const char *names[] = {"other.f8", "other.u16"}, *types[] = {f8, u16};
    for (int i = 0; i < 2; i++) {
        const CheckpointTensor *t = checkpoint_find(&c, names[i]);
        assert_non_null(t);
        assert_int_equal(t->value.dtype, DTYPE_NONE);
        assert_null(t->value.data);
        assert_int_equal(t->value.shape[0], 3);
        assert_string_equal(t->type_text, types[i]);
    }
    /* Nothing to see but that the values come back. */
    for (size_t i = 0; i < c.count; i++)
        checkpoint_release_pages(&c, c.tensors[i].value.data, tensor_bytes(c.tensors[i].value));
    check_tensor(&c, "f32", DTYPE_F32, DIMS(2, 3));
    checkpoint_close(&c);
    checkpoint_close(&c);
}

static void test_types(void **state) {
    (void)state;
    check_all_types(GOLDEN "types.safetensors", "F8_E4M3", "U16");
    check_all_types(GOLDEN "types.bin", "float8_e4m3fn", "uint16");
    check_all_types(GOLDEN "protocol4.bin", "float8_e4m3fn", "uint16");
}

static void test_shards(void **state) {
    (void)state;
    const char *paths[] = {GOLDEN "sharded", GOLDEN "sharded/model.safetensors.index.json",
                           GOLDEN "sharded_bin/",
                           GOLDEN "sharded_bin/pytorch_model.bin.index.json"};
    for (int i = 0; i < 4; i++) {
        Checkpoint c;
        open_good(&c, paths[i], NULL);
        assert_int_equal(c.count, 5);
        for (int k = 0; k < 5; k++)
            check_tensor(&c, (char[]){(char)('a' + k), 0}, DTYPE_F32, DIMS(k + 2));
        checkpoint_close(&c);
    }
}

/* ---- writing ---- */

static void test_round_trip(void **state) {
    (void)state;
    Error err = {0};
    uint8_t bytes[64];
    for (int i = 0; i < 64; i++) bytes[i] = (uint8_t)(i * 37 + 11); /* NaNs too: bits must stay */
    const Dtype types[] = {DTYPE_U8,  DTYPE_F32, DTYPE_BOOL, DTYPE_BF16, DTYPE_I64,
                           DTYPE_F16, DTYPE_I8,  DTYPE_F64,  DTYPE_I32,  DTYPE_I16};
    const char *names[] = {
        "u8",  "f32", "a \"quoted\"\\ name", "gr\xc3\xbc\xc3\x9f", "i\n64", "f16", "", "f64",
        "i32", "i16"};
    CheckpointEntry entries[12];
    for (int i = 0; i < 10; i++)
        entries[i] = (CheckpointEntry){names[i], tensor_2d(bytes, types[i], 3, 1 + i % 2)};
    entries[10] = (CheckpointEntry){"empty", tensor_2d(NULL, DTYPE_F32, 0, 4)};
    entries[11] = (CheckpointEntry){"scalar", tensor_nd(bytes + 8, DTYPE_F32, 0, NULL)};

    const char *path = at("round.safetensors");
    assert_ok(checkpoint_write(path, entries, 12, &err), &err);
    assert_ok(checkpoint_write(path, entries, 12, &err), &err); /* over itself */
    Checkpoint c;
    open_good(&c, path, NULL);
    assert_int_equal(c.count, 12);
    for (int i = 0; i < 12; i++) {
        const CheckpointTensor *t = checkpoint_find(&c, entries[i].name);
        assert_non_null(t);
        assert_int_equal(t->value.dtype, entries[i].value.dtype);
        assert_true(tensor_same_shape(t->value, entries[i].value));
        if (tensor_count(t->value))
            assert_memory_equal(t->value.data, entries[i].value.data, tensor_bytes(t->value));
    }
    checkpoint_close(&c);

    size_t size;
    char *file = file_bytes(path, &size);
    uint64_t header;
    memcpy(&header, file, sizeof header);
    assert_int_equal((8 + header) % 64, 0);
    free(file);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(info.st_mode & 0777, 0666 & ~mask);

    assert_ok(checkpoint_write(at("none.safetensors"), NULL, 0, &err), &err);
    open_good(&c, at("none.safetensors"), NULL);
    assert_int_equal(c.count, 0);
    assert_null(checkpoint_find(&c, "x"));
    checkpoint_close(&c);
}

static void test_write_refused(void **state) {
    (void)state;
    Error err;
    float v[6] = {0};
    CheckpointEntry two[] = {{"x", tensor_1d(v, DTYPE_F32, 2)}, {"x", tensor_1d(v, DTYPE_F32, 2)}};
    const char *path = at("refused.safetensors");
    assert_refused(checkpoint_write(path, two, 2, &err), &err, path, "\"x\"", "twice");
    CheckpointEntry *one = two;
    CheckpointEntry reserved = {"__metadata__", tensor_1d(v, DTYPE_F32, 2)};
    assert_refused(checkpoint_write(path, &reserved, 1, &err), &err, "__metadata__", "reserved");
    CheckpointEntry slice = {"s", tensor_columns(tensor_2d(v, DTYPE_F32, 2, 3), 0, 2)};
    assert_refused(checkpoint_write(path, &slice, 1, &err), &err, path, "\"s\"", "column slice");
    CheckpointEntry absent = {"n", tensor_1d(NULL, DTYPE_F32, 2)};
    assert_refused(checkpoint_write(path, &absent, 1, &err), &err, "\"n\"", "no values");
    CheckpointEntry unknown = {"u", tensor_1d(v, DTYPE_NONE, 2)};
    assert_refused(checkpoint_write(path, &unknown, 1, &err), &err, "\"u\"", "type");
    CheckpointEntry latin = {"gr\xfc", tensor_1d(v, DTYPE_F32, 2)};
    assert_refused(checkpoint_write(path, &latin, 1, &err), &err, path, "UTF-8");
    assert_int_equal(access(path, F_OK), -1);
    assert_refused(checkpoint_write(at("no/such/file"), one, 1, &err), &err, "no/such/file",
                   "No such file");
    const char *taken = at("taken.safetensors");
    assert_int_equal(mkdir(taken, 0777), 0);
    assert_refused(checkpoint_write(taken, one, 1, &err), &err, taken, "Is a directory");
}

/* A disk that fills up: here, a limit on the size of files. The old file stays, and no other. */
static void test_write_disk_full(void **state) {
    (void)state;
    Error err = {0};
    char inside[512];
    snprintf(inside, sizeof inside, "%s", at("full"));
    assert_int_equal(mkdir(inside, 0777), 0);
    const char *path = at("full/model.safetensors");
    float *large = calloc(1 << 18, sizeof *large);
    CheckpointEntry small = {"x", tensor_1d(large, DTYPE_F32, 2)};
    CheckpointEntry big = {"x", tensor_1d(large, DTYPE_F32, 1 << 18)};
    assert_ok(checkpoint_write(path, &small, 1, &err), &err);

    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 1 << 16;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int failed = checkpoint_write(path, &big, 1, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    free(large);
    assert_int_equal(failed, -1);
    check_message(&err, "checkpoint_write", (const char *[]){path, "too large", "unchanged", NULL});

    Checkpoint c;
    open_good(&c, path, NULL);
    assert_int_equal(checkpoint_find(&c, "x")->value.shape[0], 2);
    checkpoint_close(&c);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(inside), 0); /* that is: nothing else was left in it */
}

/* ---- which file ---- */

static void test_folders(void **state) {
    (void)state;
    Error err = {0};
    float v[4] = {-1.5f, -1.0f, -0.5f, 0.0f};
    Checkpoint c;
    char inside[512];
    snprintf(inside, sizeof inside, "%s", at("model"));
    assert_int_equal(mkdir(inside, 0777), 0);
    assert_refused(open_path(inside, &err), &err, inside, "no weights", "model.safetensors");

    const char *order[] = {"model/only.safetensors", "model/projector.safetensors",
                           "model/model.safetensors"};
    for (int i = 0; i < 3; i++) {
        CheckpointEntry entry = {"w", tensor_1d(v, DTYPE_F32, i + 1)};
        assert_ok(checkpoint_write(at(order[i]), &entry, 1, &err), &err);
        save_text(at("model/training_args.bin"), "nothing to see");
        if (i == 1) {
            assert_refused(open_path(inside, &err), &err, inside, "2 files", "only.safetensors",
                           "projector.safetensors");
        } else {
            open_good(&c, inside, NULL);
            check_tensor(&c, "w", DTYPE_F32, DIMS(i + 1));
            checkpoint_close(&c);
        }
    }
    open_good(&c, inside, "projector");
    check_tensor(&c, "w", DTYPE_F32, DIMS(2));
    checkpoint_close(&c);
    assert_refused(checkpoint_open(&c, inside, "length", &err), &err, "3 files", ", ...");
}

static void test_wrong_files(void **state) {
    (void)state;
    Error err;
    assert_refused(open_path(at("absent.bin"), &err), &err, "absent.bin", "No such file");
    assert_refused(open_path("/dev/null", &err), &err, "/dev/null", "device");
    const struct {
        const char *bytes;
        size_t size;
        const char *words[2];
    } cases[] = {
        {"", 0, {"empty", "again"}},
        {"<!DOCTYPE html>", 15, {"HTML page", "download"}},
        {"version https://git-lfs.github.com/spec/v1\n", 43, {"Git LFS pointer", "git lfs pull"}},
        {"\x1f\x8b\x08", 3, {"gzip", "decompress"}},
        {"GGUF\3", 5, {"GGUF", "safetensors"}},
        {"hello", 5, {"begins with bytes 68 65", "complete"}},
        {"{\"a\": ", 6, {"line 1", "column"}},
        {" {\"a\": 1}", 9, {"weight_map", "index"}},
        {"PK\3\4", 4, {"no zip directory", "cut off"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = at("wrong.bin");
        save(path, cases[i].bytes, cases[i].size);
        assert_refused(open_path(path, &err), &err, path, cases[i].words[0], cases[i].words[1]);
    }
    char tar[512] = "weights/";
    memcpy(tar + 257, "ustar", 5);
    save(at("wrong.bin"), tar, sizeof tar);
    assert_refused(open_path(at("wrong.bin"), &err), &err, "tar archive", "extract");
    assert_refused(open_path(GOLDEN "compressed.bin", &err), &err, "module/", "compressed");
}

/* A header whose tree would take forty times its size is refused before the tree is made. */
static void test_heavy_header(void **state) {
    (void)state;
    static const char *const begins[] = {"[[]", "{\"a\":[[]"};
    enum { SIZE = 20 << 20 };
    Error err;
    char *bytes = malloc(8 + SIZE);
    uint64_t length = SIZE;
    memcpy(bytes, &length, 8);
    for (int i = 0; i < 2; i++) {
        size_t at_byte = 8 + strlen(begins[i]);
        memcpy(bytes + 8, begins[i], strlen(begins[i]));
        for (; at_byte + 3 <= 8 + SIZE; at_byte += 3) memcpy(bytes + at_byte, ",[]", 3);
        save(at("heavy.safetensors"), bytes, 8 + SIZE);
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        assert_refused(open_path(at("heavy.safetensors"), &err), &err, "heavy.safetensors",
                       "its header", "MiB");
        getrusage(RUSAGE_SELF, &after);
        assert_true(after.ru_maxrss - before.ru_maxrss < 64 << 10); /* the mapped header, in KiB */
    }
    free(bytes);
}

static void test_bad_indexes(void **state) {
    (void)state;
    Error err;
    float v[2] = {0};
    CheckpointEntry entry = {"a", tensor_1d(v, DTYPE_F32, 2)};
    Error ok;
    assert_ok(checkpoint_write(at("one.st"), &entry, 1, &ok), &ok);
    assert_ok(checkpoint_write(at("two.st"), &entry, 1, &ok), &ok);
    const struct {
        const char *map;
        const char *words[2];
    } cases[] = {
        {"{}", {"weight_map", "index"}},
        {"[]", {"weight_map", "index"}},
        {"{\"a\": 1}", {"no file name", "\"a\""}},
        {"{\"a\": \"/etc/passwd\"}", {"/etc/passwd", "same folder"}},
        {"{\"a\": \"../one.st\"}", {"../one.st", "same folder"}},
        {"{\"a\": \"..\"}", {"\"..\"", "same folder"}},
        {"{\"a\": \"\"}", {"\"\"", "same folder"}},
        {"{\"a\": \"none.st\"}", {"shard", "none.st"}},
        {"{\"a\": \"one.st\", \"b\": \"one.st\"}", {"\"b\"", "one.st"}},
        {"{\"a\": \"index.json\"}", {"index.json", "expected one with tensors"}},
        {"{\"a\": \"one.st\", \"a\": \"one.st\"}", {"line 2", "duplicate"}},
    };
    char text[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\n\"weight_map\": %s}", cases[i].map);
        save_text(at("index.json"), text);
        assert_refused(open_path(at("index.json"), &err), &err, "index.json", cases[i].words[0],
                       cases[i].words[1]);
    }
    /* Another shard with the same name, which the index does not list. */
    CheckpointEntry both[] = {entry, {"b", tensor_1d(v, DTYPE_F32, 2)}};
    assert_ok(checkpoint_write(at("two.st"), both, 2, &ok), &ok);
    save_text(at("index.json"), "{\"weight_map\": {\"a\": \"one.st\", \"b\": \"two.st\"}}");
    assert_refused(open_path(at("index.json"), &err), &err, "two tensors", "\"a\"");
}

/* ---- broken safetensors ---- */

static void save_safetensors(const char *path, const char *header, size_t data) {
    size_t length = strlen(header), size = 8 + length + data;
    char *bytes = calloc(1, size);
    memcpy(bytes, &(uint64_t){length}, 8);
    memcpy(bytes + 8, header, length);
    save(path, bytes, size);
    free(bytes);
}

#define ENTRY(type, shape, offsets) \
    "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_bad_safetensors(void **state) {
    (void)state;
    const struct {
        const char *header;
        const char *words[3];
    } cases[] = {
        {"{\"a\":", {"bad JSON", "byte 5", "header"}},
        {"{\"a\\u0000b\":{}}", {"bad JSON", "NUL"}},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[4,8]") "}",
         {"bad JSON", "duplicate"}},
        {"{\"a\":{}}", {"\"a\"", "no \"dtype\""}},
        {"{\"a\":3}", {"\"a\"", "not a JSON object"}},
        {"{\"a\":{\"dtype\":\"F32\"}}", {"\"a\"", "no \"shape\""}},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", {"\"a\"", "data_offsets"}},
        {"{\"a\":" ENTRY("F32", "[1]", "[0]") "}", {"\"a\"", "data_offsets"}},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4.5]") "}", {"\"a\"", "data_offsets"}},
        {"{\"a\":" ENTRY("F32", "[1]", "[8,4]") "}", {"\"a\"", "[8, 4]", "not a range"}},
        {"{\"a\":" ENTRY("F32", "[1]", "[-4,0]") "}", {"\"a\"", "[-4, 0]", "not a range"}},
        {"{\"a\":" ENTRY("F32", "[5]", "[0,20]") "}", {"ends at byte 20", "only 16", "cut off"}},
        {"{\"a\":" ENTRY("F32", "[3]", "[0,16]") "}", {"shape [3]", "needs 12 bytes", "hold 16"}},
        {"{\"a\":" ENTRY("F8_E4M3", "[3]", "[0,4]") "}", {"F8_E4M3", "needs 3 bytes", "hold 4"}},
        {"{\"a\":" ENTRY("F32", "[-1]", "[0,4]") "}", {"dimension 0", "not an integer"}},
        {"{\"a\":" ENTRY("F32", "[1.0]", "[0,4]") "}", {"dimension 0", "not an integer"}},
        {"{\"a\":" ENTRY("F32", "[99999999999999999999]", "[0,4]") "}", {"bad JSON", "big"}},
        {"{\"a\":" ENTRY("F32", "[4294967296,4294967296]", "[0,0]") "}", {"impossibly large"}},
        {"{\"a\":" ENTRY("F32", "[4611686018427387904,4,0]", "[0,0]") "}", {"impossibly large"}},
        {"{\"a\":" ENTRY("U8", "[4611686018427387904]", "[0,0]") "}", {"impossibly large"}},
        {"{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", {"9 dimensions", "8"}},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[4,12]") "}",
         {"\"a\"", "\"b\"", "overlap"}},
        {"{\"a\":" ENTRY("F32", "[4]", "[0,16]") ",\"b\":" ENTRY("ODD", "[2]", "[4,8]") "}",
         {"\"a\"", "\"b\"", "overlap"}},
        {"{\"a\\u001b[31m\\n\":{}}", {"a?[31m?", "dtype"}},
        {"[]", {"not a JSON object"}},
    };
    Error err;
    const char *path = at("bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_safetensors(path, cases[i].header, 16);
        assert_refused(open_path(path, &err), &err, path, cases[i].words[0], cases[i].words[1],
                       cases[i].words[1] ? cases[i].words[2] : NULL);
    }
    save(path, "\x10\0\0\0\0\0\0\0{}", 10);
    assert_refused(open_path(path, &err), &err, path, "header of 16 bytes", "only 10", "cut off");
    save(path, "\0\0\0\0\0\0\0\x80{}", 10);
    assert_refused(open_path(path, &err), &err, path, "header of 9223372036854775808 bytes",
                   "at most 100000000");
    save(path, "\1\0\0", 3);
    assert_refused(open_path(path, &err), &err, path, "only 3 bytes");
    char *deep = calloc(1, 100001); /* 100,000 lists in one another */
    memset(deep, '[', 100000);
    memcpy(deep, "{\"a\":", 5);
    save_safetensors(path, deep, 0);
    free(deep);
    assert_refused(open_path(path, &err), &err, path, "its header", "levels deep");
}

static int allocations_left;

static void *scarce_malloc(size_t size) {
    return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* Memory that runs out while the header is read says nothing about the file. */
static void test_header_without_memory(void **state) {
    (void)state;
    Error err;
    const char *path = at("scarce.safetensors");
    save_safetensors(path, "{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 4);
    int failed = 0;
    for (int most = 0; most < 100; most++) {
        allocations_left = most;
        json_set_alloc_funcs(scarce_malloc, free);
        json_memory_watch();
        int status = open_path(path, &err);
        json_set_alloc_funcs(malloc, free);
        json_memory_begin();
        if (status == 0) break;
        if (!strstr(err.text, "out of memory") || strstr(err.text, "damaged"))
            fail_msg("after %d allocations: %s", most, err.text);
        failed++;
    }
    assert_true(failed > 5 && failed < 100);
}

/* A header of a length that puts every value at an odd address, as old writers left it. */
static void test_misaligned_safetensors(void **state) {
    (void)state;
    const char *path = at("odd.safetensors");
    const char header[] = "{\"a\":" ENTRY("F32", "[2]", "[1,9]") ",\"e\":" ENTRY(
        "F64", "[0]",
        "[3,3]") ",\"b\":" ENTRY("BF16", "[2]",
                                 "[9,13]") ",\"z\":" ENTRY("ODD", "[7]",
                                                           "[13,14]") ",\"__metadata__\":{\"x\":"
                                                                      "\"y\"}}";
    for (int pad = 0; pad < 4; pad++) {
        char text[sizeof header + 4];
        snprintf(text, sizeof text, "%s%*s", header, pad, "");
        save_safetensors(path, text, 14);
        FILE *f = fopen(path, "r+b");
        fseek(f, 8 + (long)strlen(text) + 1, SEEK_SET);
        fwrite((float[]){-1.5f, -1.0f}, 4, 2, f);
        fwrite((uint16_t[]){f32_to_bf16(-1.5f), f32_to_bf16(-1.0f)}, 2, 2, f);
        fclose(f);
        Checkpoint c;
        open_good(&c, path, NULL);
        assert_int_equal(c.count, 4);
        check_tensor(&c, "a", DTYPE_F32, DIMS(2));
        check_tensor(&c, "b", DTYPE_BF16, DIMS(2));
        check_tensor(&c, "e", DTYPE_F64, DIMS(0));
        assert_string_equal(checkpoint_find(&c, "z")->type_text, "ODD");
        Tensor a = checkpoint_find(&c, "a")->value;
        checkpoint_release_pages(&c, a.data, tensor_bytes(a));
        check_tensor(&c, "a", DTYPE_F32, DIMS(2));
        checkpoint_close(&c);
    }
}

static void test_many_tensors(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    Error err = {0};
    float value = -1.5f;
    CheckpointEntry *entries = calloc(COUNT, sizeof *entries);
    char(*names)[16] = calloc(COUNT, sizeof *names);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "layer.%d", i);
        entries[i] = (CheckpointEntry){names[i], tensor_1d(&value, DTYPE_F32, 1)};
    }
    assert_ok(checkpoint_write(at("many.safetensors"), entries, COUNT, &err), &err);
    Checkpoint c;
    open_good(&c, at("many.safetensors"), NULL);
    assert_int_equal(c.count, COUNT);
    for (int i = 0; i < COUNT; i++) check_tensor(&c, names[i], DTYPE_F32, DIMS(1));
    checkpoint_close(&c);
    free(names);
    free(entries);
}
/* ---- damaged files of every kind ---- */

/* Opens what may be broken. If it opens, every value listed must be there to read. */
static bool survives(const char *path) {
    Error err = {0};
    Checkpoint c;
    if (checkpoint_open(&c, path, NULL, &err) != 0) {
        check_message(&err, path, (const char *[]){NULL});
        return false;
    }
    volatile unsigned sum = 0;
    for (size_t i = 0; i < c.count; i++) {
        const unsigned char *bytes = c.tensors[i].value.data;
        for (size_t k = 0; bytes && k < tensor_bytes(c.tensors[i].value); k++) sum += bytes[k];
        sum += (unsigned)strlen(c.tensors[i].name);
    }
    checkpoint_close(&c);
    return true;
}

static const char *const victims[] = {GOLDEN "types.safetensors", GOLDEN "module.bin",
                                      GOLDEN "views.bin",
                                      GOLDEN "sharded/model.safetensors.index.json"};

/* The file is truncated and overwritten in place: rewriting it each time costs ten times more. */
static void test_truncated(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        size_t size;
        char *bytes = file_bytes(victims[i], &size);
        const char *path = at("cut");
        assert_non_null(bytes);
        save(path, bytes, size);
        assert_true(survives(path));
        while (size-- > 0) {
            assert_int_equal(truncate(path, (off_t)size), 0);
            if (survives(path)) fail_msg("%s opens when cut at %zu", victims[i], size);
        }
        free(bytes);
    }
}

/* What to write over a byte. A digit often becomes another digit: a wrong number gets further into
 * a reader than a wrong letter. */
static char damage_byte(char old, uint64_t bits) {
    if (old >= '0' && old <= '9' && bits & 1) return (char)('0' + (bits >> 8) % 10);
    if (bits & 2) return (char)(bits >> 8);
    return bits & 4 ? '\xff' : '\0';
}

static void test_mutated(void **state) {
    (void)state;
    TestRandom random = {20240607};
    for (int i = 0; i < 4; i++) {
        size_t size;
        char *bytes = file_bytes(victims[i], &size);
        const char *path = at("mutated");
        assert_non_null(bytes);
        save(path, bytes, size);
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        for (int copy = 0; copy < DAMAGED_COPIES; copy++) {
            size_t places[4];
            int changes = 1 + (int)(test_random_next(&random) % 4);
            for (int k = 0; k < changes; k++) {
                uint64_t bits = test_random_next(&random);
                places[k] = (size_t)(bits >> 20) % size;
                char new = damage_byte(bytes[places[k]], bits);
                assert_int_equal(pwrite(fd, &new, 1, (off_t)places[k]), 1);
            }
            survives(path);
            while (changes-- > 0)
                assert_int_equal(pwrite(fd, bytes + places[changes], 1, (off_t)places[changes]), 1);
        }
        close(fd);
        assert_true(survives(path) || i == 3); /* the index has no shards next to it here */
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_write_disk_full),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_heavy_header),
        cmocka_unit_test(test_bad_indexes),
        cmocka_unit_test(test_bad_safetensors),
        cmocka_unit_test(test_header_without_memory),
        cmocka_unit_test(test_misaligned_safetensors),
        cmocka_unit_test(test_many_tensors),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_mutated),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
