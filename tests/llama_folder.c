#include "tests/llama_folder.h"

#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/path.h"

/* A link in the folder to a file of the tree, if there is one. */
static void link_file(const char *folder, const char *name, const char *from, const char *file) {
    char here[512];
    Error err;
    assert_non_null(getcwd(here, sizeof here));
    char *target = path_format(&err, "%s/%s%s", here, from, file);
    char *path = path_format(&err, "%s/%s", folder, name);
    assert_true(target && path);
    if (access(target, F_OK) == 0) assert_int_equal(symlink(target, path), 0);
    free(target), free(path);
}

/* config.json of the kind, for 700 positions. */
static void write_config(const char *folder, const LlamaFolder *what, const char *from) {
    Error err;
    char *path = path_format(&err, "%s/config.json", from);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    free(path);
    if (!strcmp(what->kind, "qwen2"))
        json_object_set_new(config, "model_type", json_string("qwen2"));
    const char *key =
        strcmp(what->kind, "llada") ? "max_position_embeddings" : "max_sequence_length";
    json_object_set_new(config, key, json_integer(700));
    path = path_format(&err, "%s/language/config.json", folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    free(path);
    json_decref(config);
}

static void link_images(const char *folder, const LlamaFolder *what) {
    char name[64];
    snprintf(name, sizeof name, "vision-%d", what->side);
    link_file(folder, "vision", LLAMA_IMAGES, name);
    snprintf(name, sizeof name, "projector-%s.safetensors",
             strcmp(what->kind, "qwen2") ? what->kind : "dream");
    link_file(folder, "projector.safetensors", LLAMA_IMAGES, name);
}

void llama_folder_make(const Run *r, const LlamaFolder *what, char *folder, size_t size) {
    static const char *const names[] = {"model.safetensors",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors",
                                        "model.safetensors.index.json",
                                        "tokenizer.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer_config.json"};
    static int number;
    Error err;
    char name[64], from[128];
    snprintf(name, sizeof name, "llama-folder%d", number++);
    path_in(folder, size, r, name);
    assert_int_equal(mkdir(folder, 0755), 0);
    char *language = path_format(&err, "%s/language", folder);
    assert_int_equal(mkdir(language, 0755), 0);
    snprintf(from, sizeof from, LLAMA_FOLDERS "%s/",
             strcmp(what->kind, "qwen2") ? what->kind : "dream");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        link_file(language, names[i], from, names[i]);
    free(language);
    write_config(folder, what, from);
    if (what->side) link_images(folder, what);
    if (!what->settings) return;
    char *path = path_format(&err, "%s/easyfirst.json", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(what->settings, file);
    assert_int_equal(fclose(file), 0);
    free(path);
}

uint8_t *llama_image_pixels(int side) {
    uint8_t *pixels = malloc(3 * (size_t)side * (size_t)side), *at = pixels;
    assert_non_null(pixels);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++)
                *at++ = (uint8_t)((x * (c + 3) + y * (5 - c) + x * y / 64) % 256);
    return pixels;
}

void llama_image_write(const Run *r, int side, const char *name, char *path, size_t size) {
    char head[64];
    uint8_t *pixels = llama_image_pixels(side);
    size_t n = 3 * (size_t)side * (size_t)side;
    int at = snprintf(head, sizeof head, "P6\n%d %d\n255\n", side, side);
    char *file = malloc((size_t)at + n);
    assert_non_null(file);
    memcpy(file, head, (size_t)at);
    memcpy(file + at, pixels, n);
    write_file(r, name, file, (size_t)at + n, path, size);
    free(file), free(pixels);
}
