#include "apps/reproduce/draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "data/files/file_write.h"
#include "data/files/path.h"
#include "kernels/random.h"

/* ---- Files. ---- */

int draft_begin(Draft *d, Error *err) {
    *d = (Draft){0};
    d->out = open_memstream(&d->text, &d->size);
    return d->out ? 0 : error_set(err, "out of memory for data");
}

int draft_end(Draft *d, const char *folder, const char *name, Error *err) {
    int status = fclose(d->out) == 0 ? 0 : error_set(err, "out of memory for data");
    char *path = status == 0 ? path_join(folder, name, err) : NULL;
    status = path ? file_write_all(path, d->text, d->size, err) : -1;
    free(path);
    free(d->text);
    return status;
}

int data_folder_make(const char *folder, Error *err) {
    if (mkdir(folder, 0777) == 0 || errno == EEXIST) return 0;
    return error_set(err, "%s: cannot be made: %s", folder, strerror(errno));
}

/* ---- Numbers by chance. ---- */

int draw(Draw *d, int count) {
    return (int)(random_uniform(19, d->stream, d->index++) * count);
}

Draw draw_for(int set, int record) {
    return (Draw){random_stream((uint64_t)set, (uint64_t)record, 0, 0), 0};
}

void draw_order(Draw *d, int *numbers, int count) {
    for (int i = 0; i < count; i++) {
        const int other = draw(d, i + 1);
        if (other < i) numbers[i] = numbers[other];
        numbers[other] = i;
    }
}

/* ---- Tokenizers. ---- */

static const char END[] = "<|endoftext|>", MASK[] = "<|mask|>", SPACE[] = "\u0120";

static void add_token(json_t *vocabulary, const char *text) {
    if (!json_object_get(vocabulary, text))
        json_object_set_new(vocabulary, text,
                            json_integer((json_int_t)json_object_size(vocabulary)));
}

static json_t *vocabulary_of(const char *const *words, int count, bool after_space) {
    json_t *vocabulary = json_object();
    add_token(vocabulary, END), add_token(vocabulary, MASK);
    for (char letter[2] = "!"; letter[0] <= '~'; letter[0]++) add_token(vocabulary, letter);
    add_token(vocabulary, SPACE);
    for (int i = 0; i < count; i++) {
        char word[64];
        snprintf(word, sizeof word, "%s%s", after_space ? SPACE : "", words[i]);
        add_token(vocabulary, word);
    }
    return vocabulary;
}

static json_t *byte_level(bool after_space) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", after_space,
                     "trim_offsets", 1, "use_regex", 1);
}

static json_t *special_token(int id, const char *text) {
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", text,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

static json_t *tokenizer_json(const char *const *words, int count, bool after_space) {
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", 1, "vocab",
                  vocabulary_of(words, count, after_space), "merges");
    return json_pack("{s:s, s:n, s:n, s:[o,o], s:n, s:o, s:n, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", special_token(0, END),
                     special_token(1, MASK), "normalizer", "pre_tokenizer", byte_level(after_space),
                     "post_processor", "decoder", byte_level(after_space), "model", model);
}

/* Takes the value. */
static int write_value(json_t *value, const char *folder, const char *name, Error *err) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    char *path = text ? path_join(folder, name, err) : NULL;
    int status = !text  ? error_set(err, "out of memory for a tokenizer")
                 : path ? file_write_all(path, text, strlen(text), err)
                        : -1;
    free(path);
    free(text);
    json_decref(value);
    return status;
}

int word_tokenizer_write(const char *folder, const char *name, const char *const *words, int count,
                         bool after_space, Error *err) {
    char *inside = path_join(folder, name, err);
    int status = inside ? data_folder_make(inside, err) : -1;
    if (status == 0)
        status =
            write_value(tokenizer_json(words, count, after_space), inside, "tokenizer.json", err);
    if (status == 0)
        status =
            write_value(json_pack("{s:s}", "eos_token", END), inside, "tokenizer_config.json", err);
    free(inside);
    return status;
}
