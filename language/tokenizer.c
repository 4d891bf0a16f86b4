/* tokenizer.c - see tokenizer.h. */
#include "language/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "language/sentencepiece.h"
#include "language/token_pipeline.h"
#include "language/token_specials.h"
#include "language/token_text.h"
#include "language/token_xlmr.h"

struct Tokenizer {
    TokenXlmr *xlmr; /* one of these two */
    TokenPipeline *pipeline;
    TokenizerSpecials specials;
};

/* ---- Opening. ---- */

static const TokenizerSpecials unknown_specials = {-1, -1, -1, -1, -1, -1};

/* "<folder>/<name>" if there is such a file, NULL if not; *failed: out of memory. */
static char *file_in(const char *folder, const char *name, bool *failed) {
    char *path = NULL;
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    if (asprintf(&path, "%s%s%s", folder, slash, name) < 0) {
        *failed = true;
        return NULL;
    }
    if (access(path, F_OK) == 0) return path;
    free(path);
    return NULL;
}

/* XLM-R's special ids are fixed; those that the caller gives must be these. */
static int open_xlmr(Tokenizer *t, const char *file, Error *err) {
    TRY(token_xlmr_open(&t->xlmr, file, err));
    const int32_t mask = token_xlmr_mask_id(t->xlmr);
    const TokenizerSpecials *given = &t->specials;
    const TokenizerSpecials own = {TOKEN_BOS, TOKEN_EOS, TOKEN_PAD, TOKEN_UNK, mask, TOKEN_EOS};
    const int32_t pairs[][2] = {{given->begin, own.begin}, {given->end, own.end},
                                {given->pad, own.pad},     {given->unknown, own.unknown},
                                {given->mask, own.mask},   {given->turn_end, own.turn_end}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (pairs[i][0] >= 0 && pairs[i][0] != pairs[i][1])
            return error_set(err, "%s: special id %d is given, but XLM-R's is %d", file,
                             pairs[i][0], pairs[i][1]);
    t->specials = own;
    return 0;
}

/* The special tokens of what is open; `folder` may be NULL. */
static int finish_pipeline(Tokenizer *t, const char *folder, Error *err) {
    TRY(token_specials_read(&t->specials, folder, t->pipeline, err));
    const TokenizerSpecials *s = &t->specials;
    const int32_t ids[] = {s->begin, s->end, s->pad, s->unknown, s->mask};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        token_pipeline_make_special(t->pipeline, ids[i]);
    return 0;
}

static int open_folder(Tokenizer *t, const char *folder, Error *err) {
    bool failed = false;
    char *model = file_in(folder, "sentencepiece.bpe.model", &failed);
    char *json = file_in(folder, "tokenizer.json", &failed);
    char *merges = file_in(folder, "merges.txt", &failed);
    int status;
    if (failed) {
        status = error_set(err, "%s: out of memory for its path", folder);
    } else if (model) {
        status = open_xlmr(t, model, err);
    } else if (json) {
        status = token_pipeline_open(&t->pipeline, json, err);
    } else if (merges) {
        status = token_pipeline_open_merges(&t->pipeline, folder, err);
    } else {
        status = error_set(
            err,
            "%s/sentencepiece.bpe.model: No such file, and the folder has no tokenizer.json "
            "nor vocab.json and merges.txt either; they come with the checkpoint",
            folder);
    }
    if (status == 0 && t->pipeline) status = finish_pipeline(t, folder, err);
    free(model), free(json), free(merges);
    return status;
}

/* Whether a file is JSON: a SentencePiece model begins with the byte 10, a newline in JSON. */
static bool is_json(const char *path) {
    FILE *file = fopen(path, "rb");
    int c = file ? getc(file) : EOF;
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t') c = getc(file);
    if (file) fclose(file);
    return c == '{';
}

static bool has_name(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

/* The folder of a file. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int open_file(Tokenizer *t, const char *path, Error *err) {
    bool merges = has_name(path, "merges.txt") || has_name(path, "vocab.json");
    bool model = has_name(path, "sentencepiece.bpe.model");
    if (model || (!merges && !has_name(path, "tokenizer.json") && !is_json(path)))
        return open_xlmr(t, path, err);
    char *folder = folder_of(path);
    int status = folder ? 0 : error_set(err, "%s: out of memory for its path", path);
    if (status == 0)
        status = merges ? token_pipeline_open_merges(&t->pipeline, folder, err)
                        : token_pipeline_open(&t->pipeline, path, err);
    if (status == 0) status = finish_pipeline(t, folder, err);
    free(folder);
    return status;
}

int tokenizer_open_as(Tokenizer **tokenizer, const char *path, const TokenizerSpecials *given,
                      Error *err) {
    struct stat info;
    *tokenizer = NULL;
    Tokenizer *opened = calloc(1, sizeof *opened);
    if (!opened) return error_set(err, "%s: out of memory for a tokenizer", path);
    opened->specials = *given;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if ((folder ? open_folder : open_file)(opened, path, err) != 0) {
        tokenizer_close(opened);
        return -1;
    }
    *tokenizer = opened;
    return 0;
}

int tokenizer_open(Tokenizer **tokenizer, const char *path, Error *err) {
    return tokenizer_open_as(tokenizer, path, &unknown_specials, err);
}

void tokenizer_close(Tokenizer *tokenizer) {
    if (!tokenizer) return;
    token_xlmr_close(tokenizer->xlmr);
    token_pipeline_close(tokenizer->pipeline);
    free(tokenizer);
}

/* ---- What it is. ---- */

const char *tokenizer_kind(const Tokenizer *t) {
    return t->xlmr ? "sentencepiece" : token_pipeline_kind(t->pipeline);
}

const TokenizerSpecials *tokenizer_specials(const Tokenizer *t) {
    return &t->specials;
}

int32_t tokenizer_mask_id(const Tokenizer *t) {
    return t->specials.mask;
}

int32_t tokenizer_size(const Tokenizer *t) {
    return t->xlmr ? token_xlmr_mask_id(t->xlmr) + 1 : token_pipeline_size(t->pipeline);
}

int32_t tokenizer_find(const Tokenizer *t, const char *token) {
    if (!t->xlmr) return token_pipeline_id(t->pipeline, token);
    for (int32_t id = 0; id < tokenizer_size(t); id++)
        if (strcmp(token_xlmr_piece(t->xlmr, id), token) == 0) return id;
    return -1;
}

TokenizerFrame tokenizer_frame(const Tokenizer *t) {
    if (t->xlmr) return (TokenizerFrame){&t->specials.begin, &t->specials.end, 1, 1};
    const Ids *before = token_pipeline_before(t->pipeline);
    const Ids *after = token_pipeline_after(t->pipeline);
    return (TokenizerFrame){before->ids, after->ids, before->count, after->count};
}

const char *tokenizer_piece(const Tokenizer *t, int32_t id) {
    return t->xlmr ? token_xlmr_piece(t->xlmr, id) : token_pipeline_piece(t->pipeline, id);
}

/* ---- Ids. ---- */

/* Ensures capacity for `count` more. */
static int ids_reserve(Ids *list, size_t count, Error *err) {
    const size_t limit = SIZE_MAX / 2 / sizeof *list->ids;
    if (list->count > limit || count > limit - list->count)
        return error_set(err, "%zu ids cannot be added to %zu: more than memory can hold", count,
                         list->count);
    size_t needed = list->count + count;
    if (needed <= list->capacity) return 0;
    /* Below the limit, doubling the capacity does not overflow, in ids or in bytes. */
    size_t capacity = list->capacity > limit / 2 ? limit : 2 * list->capacity;
    if (capacity < needed) capacity = needed;
    if (capacity < 16) capacity = 16;
    int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
    if (!ids) return error_set(err, "out of memory for %zu ids", capacity);
    list->ids = ids;
    list->capacity = capacity;
    return 0;
}

int ids_append(Ids *list, const int32_t *ids, size_t count, Error *err) {
    if (count == 0) return 0;
    TRY(ids_reserve(list, count, err));
    memcpy(list->ids + list->count, ids, count * sizeof *ids);
    list->count += count;
    return 0;
}

void ids_free(Ids *list) {
    free(list->ids);
    *list = (Ids){0};
}

/* ---- White space. ---- */

/* Python's str.isspace, which strip() removes. */
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The length of `text` without the white space at its end. */
size_t tokenizer_strip_right(const char *text, size_t size) {
    while (size > 0) {
        size_t start = size - 1, length;
        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
        if (!is_space(token_character(text + start, &length))) break;
        size = start;
    }
    return size;
}

/* The white space at the start of `text`, in bytes. */
static size_t strip_left(const char *text, size_t size) {
    size_t start = 0, length;
    while (start < size && is_space(token_character(text + start, &length))) start += length;
    return start;
}

/* ---- Encoding and decoding. ---- */

int tokenizer_encode(const Tokenizer *t, const char *text, size_t size, Ids *out, Error *err) {
    if (size == 0) return 0;
    size_t valid = utf8_valid_prefix(text, size);
    if (valid < size)
        return error_set(err,
                         "text: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8 "
                         "first",
                         valid, (unsigned char)text[valid]);
    size_t before = out->count;
    int status = t->xlmr ? token_xlmr_encode(t->xlmr, text, size, out, err)
                         : token_pipeline_encode(t->pipeline, text, size, out, err);
    if (status) out->count = before;
    return status;
}

static bool id_has_piece(const Tokenizer *t, int32_t id) {
    if (id < 0 || id >= tokenizer_size(t)) return false;
    return t->xlmr || token_pipeline_has(t->pipeline, id);
}

int tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t count, char **text,
                     Error *err) {
    char *joined = NULL;
    size_t size = 0;
    *text = NULL;
    for (size_t i = 0; i < count; i++)
        if (!id_has_piece(t, ids[i]))
            return error_set(err, "id %d (number %zu of %zu) has no piece, expected 0 to %d",
                             ids[i], i, count, tokenizer_size(t) - 1);
    TRY(t->xlmr ? token_xlmr_decode(t->xlmr, ids, count, &joined, &size, err)
                : token_pipeline_decode(t->pipeline, ids, count, &joined, &size, err));
    size_t length = tokenizer_strip_right(joined, size);
    size_t start = strip_left(joined, length);
    memmove(joined, joined + start, length - start);
    joined[length - start] = 0;
    *text = joined;
    return 0;
}
