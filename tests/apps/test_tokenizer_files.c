/* test_tokenizer_files.c - a model folder with a tokenizer.json, or one that its model cannot use. */
#include "tests/program.h"

#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN "tests/golden/models/tiny-base/language"

/* A language model's folder in the run's: links to the weights and configuration of tiny-base. */
static void language_folder(const Run *r, char *folder, size_t size) {
    char here[512], from[1024], to[600];
    static const char *const names[] = {"config.json", "model.safetensors"};
    assert_non_null(getcwd(here, sizeof here));
    path_in(folder, size, r, "language");
    assert_int_equal(mkdir(folder, 0755), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/" GOLDEN "/%s", here, names[i]);
        snprintf(to, sizeof to, "%s/%s", folder, names[i]);
        assert_int_equal(symlink(from, to), 0);
    }
}

static void write_tokenizer(const Run *r, const char *json) {
    char path[512];
    write_file(r, "language/tokenizer.json", json, strlen(json), path, sizeof path);
}

static void test_info(void **state) {
    (void)state;
    Run r;
    char folder[400];
    run_start(&r);
    language_folder(&r, folder, sizeof folder);
    write_tokenizer(&r, "{\"added_tokens\":[{\"id\":5,\"content\":\"<mask>\",\"special\":true}],"
                        "\"model\":{\"type\":\"BPE\",\"merges\":[],\"unk_token\":\"<unk>\","
                        "\"vocab\":{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4}}}");
    run(&r, "info", "--language", folder);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "tokenizer:  6 ids, BPE"));
    run(&r, "info", "--json", "--language", folder);
    assert_non_null(strstr(r.out, "\"tokenizer\""));
    run_end(&r);
}

static void test_other_specials(void **state) {
    (void)state;
    Run r;
    char folder[400];
    run_start(&r);
    language_folder(&r, folder, sizeof folder);
    write_tokenizer(&r, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"<s>\":0,\"a\":1,"
                        "\"b\":2,\"c\":3}}}");
    run(&r, "info", "--language", folder);
    assert_message(&r, 1, "tokenizer.json", "<mask>", "-1", "RoBERTa");
    write_tokenizer(&r, "{\"model\":{\"type\":\"WordLevel\"}}");
    run(&r, "info", "--language", folder);
    assert_message(&r, 1, "tokenizer.json", "WordLevel");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_other_specials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
