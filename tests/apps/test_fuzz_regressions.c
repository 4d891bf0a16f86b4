/* test_fuzz_regressions.c - the fuzz targets without a fuzzer: each gets the inputs that once
 * failed (tests/fuzz/regressions/TARGET), a few that fail most easily, and shortened and changed
 * forms of all. */
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "projector/model.h"
#include "tests/fuzz/fuzz.h"

/* Targets print what the program would (help, progress): not among the results. */
static int silence(int saved[2]) {
    fflush(stdout), fflush(stderr);
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    saved[0] = dup(1), saved[1] = dup(2);
    return nowhere >= 0 && dup2(nowhere, 1) == 1 && dup2(nowhere, 2) == 2 && close(nowhere) == 0;
}

static void speak(int saved[2]) {
    fflush(stdout), fflush(stderr);
    dup2(saved[0], 1), dup2(saved[1], 2);
    close(saved[0]), close(saved[1]);
}

static void try_forms(const FuzzTarget *target, const char *bytes, size_t size) {
    target->run((const uint8_t *)bytes, size);
    if (size < 2) return;
    target->run((const uint8_t *)bytes, size / 2);
    target->run((const uint8_t *)bytes, size - 1);
    char *changed = malloc(size);
    assert_non_null(changed);
    memcpy(changed, bytes, size);
    TestRandom random = {size};
    for (int i = 0; i < 8; i++) {
        changed[test_random_next(&random) % size] ^= (char)(1 << test_random_next(&random) % 8);
        target->run((const uint8_t *)changed, size);
    }
    free(changed);
}

static int try_folder(const FuzzTarget *target) {
    char folder[256], path[600];
    int count = 0;
    snprintf(folder, sizeof folder, "tests/fuzz/regressions/%s", target->name);
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        size_t size;
        char *bytes = file_bytes(path, &size);
        assert_non_null(bytes);
        try_forms(target, bytes, size);
        free(bytes);
        count++;
    }
    closedir(dir);
    return count;
}

static void test_target(void **state) {
    static const char *const texts[] = {"",
                                        "\n",
                                        "{}",
                                        "[]",
                                        "[[]]",
                                        "{\"a\": {}}",
                                        "\x01{\"\": []}",
                                        "\xff",
                                        "\xef\xbb\xbf",
                                        "null",
                                        "\x01\n{\"a\": \"\\u0000\"}",
                                        "[{}, 1e999, \"\\ud800\"]",
                                        "--\xff-\xff--=\xff-n",
                                        "\t \t"};
    const FuzzTarget *target = *state;
    int saved[2];
    assert_true(silence(saved));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        try_forms(target, texts[i], strlen(texts[i]));
    try_forms(target, "\0\0\0\0\0\0\0\0{\"a\":0}", 16);
    try_folder(target);
    speak(saved);
}

/* Too large for a regression file: positions and patches whose product is no int. */
static void test_tower_too_large(void **state) {
    (void)state;
    static const char header[] =
        "{\"vision_model.embeddings.patch_embedding.weight\":{\"dtype\":\"U8\",\"shape\":"
        "[1,1,16777216,1],\"data_offsets\":[0,16777216]},"
        "\"vision_model.embeddings.position_embedding.weight\":{\"dtype\":\"U8\",\"shape\":"
        "[40001,1],\"data_offsets\":[16777216,16817217]},"
        "\"vision_model.encoder.layers.0.mlp.fc1.weight\":{\"dtype\":\"U8\",\"shape\":[1,1],"
        "\"data_offsets\":[16817217,16817218]}}";
    char bytes[sizeof header + 7];
    uint64_t size = sizeof header - 1;
    memcpy(bytes, &size, 8), memcpy(bytes + 8, header, sizeof header - 1);
    const char *path = fuzz_write(0, "large/model.safetensors", bytes, sizeof bytes);
    fuzz_write(1, "large/config.json", "{}", 2);
    assert_int_equal(truncate(path, (off_t)sizeof bytes + 16817218), 0); /* a hole */
    Device *device;
    Model model;
    Error err;
    ModelOptions options = {
        .vision = path, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    assert_ok(device_open(&device, &(DeviceOptions){.threads = 1}, &err), &err);
    assert_refused(model_open(&model, &options, device, &err), &err, path);
    device_close(device);
}

int main(void) {
    enum { MOST = 64 };
    struct CMUnitTest tests[MOST];
    size_t count = 0;
    for (const FuzzTarget *t = fuzz_targets; t->name && count + 1 < MOST; t++)
        tests[count++] = (struct CMUnitTest){
            .name = t->name, .test_func = test_target, .initial_state = (void *)(uintptr_t)t};
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_tower_too_large);
    return _cmocka_run_group_tests("fuzz regressions", tests, count, NULL, NULL);
}
