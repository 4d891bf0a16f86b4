/* token_merges.c - see token_merges.h. */
#include "language/token_merges.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "language/sentencepiece.h"
#include "language/token_json.h"

static const char QWEN2_WORDS[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{"
                                  "N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                  "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

typedef struct Merges {
    const char *folder;
    json_t *vocabulary, *list, *config; /* config may be NULL */
    bool roberta, qwen2, prefix_space;
    Error *err;
} Merges;

/* ---- Files. ---- */

static int read_object(json_t **object, const char *folder, const char *name, bool needed,
                       Error *err) {
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return error_set(err, "%s: out of memory for its path", folder);
    int status = 0;
    if (needed || access(path, F_OK) == 0) status = token_json_read(object, path, err);
    free(path);
    return status;
}

static int add_line(json_t *list, char *line, size_t size, size_t number, const char *path,
                    Error *err) {
    while (size && (line[size - 1] == '\n' || line[size - 1] == '\r')) line[--size] = 0;
    if (size == 0 || (number == 1 && strncmp(line, "#version", 8) == 0)) return 0;
    const char *space = strchr(line, ' ');
    if (strlen(line) != size || !space || space == line || !space[1] || strchr(space + 1, ' ') ||
        utf8_valid_prefix(line, size) != size)
        return error_set(err, "%s: line %zu: expected two tokens with a space between them", path,
                         number);
    if (json_array_append_new(list, json_string(line)) == 0) return 0;
    return error_set(err, "%s: out of memory for its merges", path);
}

static int read_list(json_t *list, const char *path, Error *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return error_set(err, "%s: cannot open it (%s)", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    int status = 0;
    for (size_t number = 1; status == 0 && (size = getline(&line, &room, file)) > 0; number++)
        status = add_line(list, line, (size_t)size, number, path, err);
    if (status == 0 && ferror(file)) status = error_set(err, "%s: cannot be read", path);
    free(line);
    fclose(file);
    return status;
}

/* ---- What kind it is. ---- */

static bool in_words(const char *word, const char *const *words) {
    for (; *words; words++)
        if (strcmp(word, *words) == 0) return true;
    return false;
}

static int find_class(Merges *m) {
    static const char *const roberta[] = {"RobertaTokenizer", "RobertaTokenizerFast", NULL};
    static const char *const gpt2[] = {"GPT2Tokenizer", "GPT2TokenizerFast", NULL};
    static const char *const qwen2[] = {"Qwen2Tokenizer", "Qwen2TokenizerFast", "DreamTokenizer",
                                        NULL};
    const char *name = NULL;
    if (m->config) TRY(token_json_text(m->config, "tokenizer_class", &name, m->err));
    if (name && !in_words(name, roberta) && !in_words(name, gpt2) && !in_words(name, qwen2))
        return error_set(m->err,
                         "%s: tokenizer_class \"%.60s\" is not supported without a tokenizer.json; "
                         "known are those of GPT-2, RoBERTa, Qwen2 and Dream",
                         m->folder, name);
    m->qwen2 = name && in_words(name, qwen2);
    m->roberta =
        name ? in_words(name, roberta)
             : json_object_get(m->vocabulary, "<s>") && json_object_get(m->vocabulary, "<mask>");
    return m->config ? token_json_flag(m->config, "add_prefix_space", &m->prefix_space, m->err) : 0;
}

/* ---- Added tokens. ---- */

static json_t *added_token(const char *content, json_int_t id, bool left, const json_t *from) {
    static const char *const flags[] = {"lstrip", "rstrip", "single_word", "normalized", "special"};
    json_t *token =
        json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content, "lstrip",
                  left, "rstrip", 0, "single_word", 0, "normalized", 0, "special", 1);
    for (size_t i = 0; token && i < sizeof flags / sizeof flags[0]; i++) {
        json_t *value = json_object_get(from, flags[i]);
        if (value) json_object_set(token, flags[i], value);
    }
    return token;
}

static int by_id(const void *a, const void *b) {
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "id"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "id"));
    return (x > y) - (x < y);
}

/* "added_tokens_decoder" of tokenizer_config.json: {"151643": {"content": ...}}. */
static int add_configured(const Merges *m, json_t *list) {
    json_t *decoder = json_object_get(m->config, "added_tokens_decoder"), *token;
    const char *key;
    size_t count = 0, most = json_object_size(decoder);
    json_t **sorted = calloc(most ? most : 1, sizeof(json_t *));
    int status = sorted ? 0 : error_set(m->err, "%s: out of memory for added tokens", m->folder);
    json_object_foreach(decoder, key, token) {
        char *end;
        long long id = strtoll(key, &end, 10);
        const char *content = json_string_value(json_object_get(token, "content"));
        if (status == 0 && (*end || id < 0 || !content))
            status = error_set(m->err, "%s: added_tokens_decoder: \"%.60s\" has no content",
                               m->folder, key);
        if (status == 0 && !(sorted[count] = added_token(content, id, false, token)))
            status = error_set(m->err, "%s: out of memory for added tokens", m->folder);
        if (status == 0) count++;
    }
    if (count) qsort(sorted, count, sizeof *sorted, by_id);
    for (size_t i = 0; i < count; i++) json_array_append_new(list, sorted[i]);
    free(sorted);
    return status;
}

/* Without that: the special tokens that the vocabulary has by the names of its kind. */
static int add_usual(const Merges *m, json_t *list) {
    static const char *const names[] = {"<s>",    "<pad>",         "</s>", "<unk>",
                                        "<mask>", "<|endoftext|>", NULL};
    for (int i = 0; names[i]; i++) {
        json_t *id = json_object_get(m->vocabulary, names[i]);
        if (!json_is_integer(id)) continue;
        json_array_append_new(list, added_token(names[i], json_integer_value(id),
                                                strcmp(names[i], "<mask>") == 0, NULL));
    }
    return 0;
}

/* ---- The whole. ---- */

static json_t *splitter(const Merges *m) {
    if (!m->qwen2)
        return json_pack("{s:s, s:b}", "type", "ByteLevel", "add_prefix_space", m->prefix_space);
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}", "type", "Sequence",
                     "pretokenizers", "type", "Split", "pattern", "Regex", QWEN2_WORDS, "behavior",
                     "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space",
                     m->prefix_space, "use_regex", 0);
}

static json_t *make_root(const Merges *m, json_t *added) {
    json_t *root = json_pack("{s:{s:s, s:O, s:O}, s:O, s:{s:s}, s:o}", "model", "type", "BPE",
                             "vocab", m->vocabulary, "merges", m->list, "added_tokens", added,
                             "decoder", "type", "ByteLevel", "pre_tokenizer", splitter(m));
    if (root && m->qwen2)
        json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "NFC"));
    if (root && m->roberta)
        json_object_set_new(root, "post_processor",
                            json_pack("{s:s, s:[s, i], s:[s, i]}", "type", "RobertaProcessing",
                                      "sep", "</s>", 2, "cls", "<s>", 0));
    return root;
}

static int read_all(Merges *m, json_t *added) {
    char *path = NULL;
    TRY(read_object(&m->vocabulary, m->folder, "vocab.json", true, m->err));
    TRY(read_object(&m->config, m->folder, "tokenizer_config.json", false, m->err));
    if (asprintf(&path, "%s/merges.txt", m->folder) < 0)
        return error_set(m->err, "%s: out of memory for its path", m->folder);
    int status = read_list(m->list, path, m->err);
    free(path);
    if (status == 0) status = find_class(m);
    if (status) return -1;
    return json_object_size(json_object_get(m->config, "added_tokens_decoder"))
               ? add_configured(m, added)
               : add_usual(m, added);
}

json_t *token_merges_read(const char *folder, Error *err) {
    Merges m = {.folder = folder, .list = json_array(), .err = err};
    json_t *added = json_array(), *root = NULL;
    int status = m.list && added ? read_all(&m, added) : -1;
    if (status == 0) root = make_root(&m, added);
    if (!root && (status == 0 || !m.list || !added))
        error_write(err, "%s: out of memory for a tokenizer", folder);
    json_decref(m.vocabulary), json_decref(m.list), json_decref(m.config), json_decref(added);
    return root;
}
