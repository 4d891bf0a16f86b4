/* tokenizer.c - see tokenizer.h. */
#include "language/tokenizer.h"

#include "language/sentencepiece.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char MODEL_FILE[] = "sentencepiece.bpe.model";
static const char SPACE_MARK[] = "\xE2\x96\x81"; /* U+2581, sentencepiece's space */
enum { SPACE_MARK_SIZE = 3 };

/* fairseq's ids begin with <s>, <pad>, </s>, <unk>, the model's pieces with <unk>, <s>, </s>: four
 * ids for three pieces, hence the offset of 1. */
enum { SPECIAL_COUNT = 4, SPECIAL_PIECES = 3, ID_MINUS_PIECE = SPECIAL_COUNT - SPECIAL_PIECES };

struct Tokenizer {
    SentencePiece *model;
    int32_t pieces;
};

typedef struct SpecialWord {
    const char *text;
    size_t size;
    int32_t id;
} SpecialWord;

static const SpecialWord SPECIAL_WORDS[SPECIAL_COUNT] = {
    {"<s>", 3, TOKEN_BOS},
    {"<pad>", 5, TOKEN_PAD},
    {"</s>", 4, TOKEN_EOS},
    {"<unk>", 5, TOKEN_UNK},
};
static const char MASK_WORD[] = "<mask>";

/* Checks that the model's first pieces are XLM-R's; else all ids would be wrong. */
static int model_is_xlmr(const SentencePiece *model, const char *path, Error *err) {
    static const char *const expected[SPECIAL_PIECES] = {"<unk>", "<s>", "</s>"};
    int32_t count = sentencepiece_count(model);
    if (count <= SPECIAL_PIECES || count > INT32_MAX - 2)
        return error_set(err, "%s: a model of %d pieces, expected XLM-R's (250000)", path, count);
    for (int32_t i = 0; i < SPECIAL_PIECES; i++) {
        const char *piece = sentencepiece_piece(model, i);
        if (strcmp(piece, expected[i]) != 0)
            return error_set(err,
                             "%s: piece %d is \"%s\", expected \"%s\": not the model of an XLM-R "
                             "checkpoint",
                             path, i, piece, expected[i]);
    }
    return 0;
}

static int pieces_open(Tokenizer *tokenizer, const char *path, Error *err) {
    TRY(sentencepiece_open(&tokenizer->model, path, err));
    TRY(model_is_xlmr(tokenizer->model, path, err));
    tokenizer->pieces = sentencepiece_count(tokenizer->model);
    return 0;
}

int tokenizer_open(Tokenizer **tokenizer, const char *path, Error *err) {
    struct stat info;
    char *file = NULL;
    *tokenizer = NULL;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        size_t length = strlen(path);
        const char *slash = length && path[length - 1] == '/' ? "" : "/";
        if (asprintf(&file, "%s%s%s", path, slash, MODEL_FILE) < 0)
            return error_set(err, "%s: out of memory for its path", path);
    }
    Tokenizer *opened = calloc(1, sizeof *opened);
    int failed = opened ? pieces_open(opened, file ? file : path, err)
                        : error_set(err, "%s: out of memory for a tokenizer", path);
    free(file);
    if (failed) {
        tokenizer_close(opened);
        return -1;
    }
    *tokenizer = opened;
    return 0;
}

void tokenizer_close(Tokenizer *tokenizer) {
    if (!tokenizer) return;
    if (tokenizer->model) sentencepiece_close(tokenizer->model);
    free(tokenizer);
}

int32_t tokenizer_mask_id(const Tokenizer *tokenizer) {
    return tokenizer->pieces + ID_MINUS_PIECE;
}

int32_t tokenizer_size(const Tokenizer *tokenizer) {
    return tokenizer_mask_id(tokenizer) + 1;
}

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

/* Python's str.isspace, which strip() removes. */
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The character at text[0] and its length; the text is valid UTF-8 and not empty. */
static uint32_t character_at(const char *text, size_t *length) {
    const unsigned char *s = (const unsigned char *)text;
    *length = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = *length == 1 ? s[0] : s[0] & (0xFFu >> (*length + 1));
    for (size_t i = 1; i < *length; i++) c = c << 6 | (s[i] & 0x3F);
    return c;
}

/* The length of `text` without the white space at its end. */
static size_t strip_right(const char *text, size_t size) {
    while (size > 0) {
        size_t start = size - 1, length;
        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
        if (!is_space(character_at(text + start, &length))) break;
        size = start;
    }
    return size;
}

/* The white space at the start of `text`, in bytes. */
static size_t strip_left(const char *text, size_t size) {
    size_t start = 0, length;
    while (start < size && is_space(character_at(text + start, &length))) start += length;
    return start;
}

static int32_t piece_to_id(int32_t piece) {
    /* Pieces 1 and 2 are <s> and </s>; sentencepiece never produces them. */
    static const int32_t special[SPECIAL_PIECES] = {TOKEN_UNK, TOKEN_BOS, TOKEN_EOS};
    return piece < SPECIAL_PIECES ? special[piece] : piece + ID_MINUS_PIECE;
}

/* ---- Text without special tokens. ---- */
/* The library needs about 120 bytes of memory for each byte of text: a long text is segmented in
 * chunks of about PIECE_BYTES, or, without a space to split at, of PIECE_MOST. */
enum { PIECE_BYTES = 1 << 16, PIECE_MOST = 1 << 20 };

/* Where the chunk at the start of a text ends: at a space between ASCII words, where the library's
 * segmentation also restarts; else at any space; else between two characters. */
static size_t piece_end(const char *text, size_t size) {
    if (size <= PIECE_BYTES) return size;
    size_t most = size < PIECE_MOST ? size : PIECE_MOST, space = 0;
    for (size_t i = PIECE_BYTES; i + 1 < most; i++) {
        if (text[i] != ' ' && text[i] != '\n') continue;
        if ((text[i - 1] & 0x80) == 0 && (text[i + 1] & 0x80) == 0) return i;
        if (!space) space = i;
    }
    if (most == size) return size;
    if (space) return space;
    while (most > PIECE_BYTES && ((unsigned char)text[most] & 0xC0) == 0x80) most--;
    return most;
}

static int encode_piece(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                        Error *err) {
    int32_t *ids;
    size_t count;
    TRY(sentencepiece_encode(tokenizer->model, text, size, &ids, &count, err));
    for (size_t i = 0; i < count; i++) ids[i] = piece_to_id(ids[i]);
    int failed = ids_append(out, ids, count, err);
    free(ids);
    return failed;
}

static int encode_plain(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                        Error *err) {
    do { /* the library refuses a text that is too long as a whole */
        size_t piece = size > SENTENCEPIECE_LONGEST_TEXT ? size : piece_end(text, size);
        TRY(encode_piece(tokenizer, text, piece, out, err));
        text += piece, size -= piece;
    } while (size);
    return 0;
}

/* The special token at text[0]; its size is 0 if there is none. */
static SpecialWord special_at(const Tokenizer *tokenizer, const char *text, size_t size) {
    SpecialWord mask = {MASK_WORD, sizeof MASK_WORD - 1, tokenizer_mask_id(tokenizer)};
    if (size >= mask.size && memcmp(text, mask.text, mask.size) == 0) return mask;
    for (int i = 0; i < SPECIAL_COUNT; i++) {
        const SpecialWord *word = &SPECIAL_WORDS[i];
        if (size >= word->size && memcmp(text, word->text, word->size) == 0) return *word;
    }
    return (SpecialWord){0};
}

static int encode_all(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                      Error *err) {
    const char *end = text + size, *plain = text, *p = text;
    while (p < end && (p = memchr(p, '<', (size_t)(end - p))) != NULL) {
        SpecialWord word = special_at(tokenizer, p, (size_t)(end - p));
        if (word.size == 0) {
            p++;
            continue;
        }
        size_t length = (size_t)(p - plain);
        if (word.id == tokenizer_mask_id(tokenizer)) length = strip_right(plain, length);
        TRY(encode_plain(tokenizer, plain, length, out, err));
        TRY(ids_append(out, &word.id, 1, err));
        plain = p += word.size;
    }
    return encode_plain(tokenizer, plain, (size_t)(end - plain), out, err);
}

int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, Ids *out,
                     Error *err) {
    if (size == 0) return 0;
    size_t valid = utf8_valid_prefix(text, size);
    if (valid < size)
        return error_set(err,
                         "text: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8 "
                         "first",
                         valid, (unsigned char)text[valid]);
    size_t before = out->count;
    if (encode_all(tokenizer, text, size, out, err) != 0) {
        out->count = before;
        return -1;
    }
    return 0;
}

const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id) {
    if (id == tokenizer_mask_id(tokenizer)) return MASK_WORD;
    if (id < 0 || id > tokenizer_mask_id(tokenizer)) return "";
    if (id < SPECIAL_COUNT) return SPECIAL_WORDS[id].text;
    return sentencepiece_piece(tokenizer->model, id - ID_MINUS_PIECE);
}

/* The piece of an id as text: "" for special tokens, NULL for an invalid id. */
static const char *decoded_piece(const Tokenizer *tokenizer, int32_t id) {
    if (id < 0 || id >= tokenizer_size(tokenizer)) return NULL;
    if (id < SPECIAL_COUNT || id == tokenizer_mask_id(tokenizer)) return "";
    return tokenizer_piece(tokenizer, id);
}

/* Writes a piece with its space marks as spaces; returns the end of the output. */
static char *piece_write(char *to, const char *piece) {
    while (*piece) {
        if (strncmp(piece, SPACE_MARK, SPACE_MARK_SIZE) == 0) {
            *to++ = ' ';
            piece += SPACE_MARK_SIZE;
        } else {
            *to++ = *piece++;
        }
    }
    return to;
}

int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     Error *err) {
    *text = NULL;
    size_t size = 1;
    for (size_t i = 0; i < count; i++) {
        const char *piece = decoded_piece(tokenizer, ids[i]);
        if (!piece)
            return error_set(err, "id %d (number %zu of %zu) has no piece, expected 0 to %d",
                             ids[i], i, count, tokenizer_mask_id(tokenizer));
        if (__builtin_add_overflow(size, strlen(piece), &size))
            return error_set(err, "the text of %zu ids is more than memory can hold", count);
    }
    char *joined = malloc(size);
    if (!joined) return error_set(err, "out of memory for a text of %zu bytes", size);
    char *end = joined;
    for (size_t i = 0; i < count; i++) end = piece_write(end, decoded_piece(tokenizer, ids[i]));
    size_t length = strip_right(joined, (size_t)(end - joined));
    size_t start = strip_left(joined, length);
    memmove(joined, joined + start, length - start);
    joined[length - start] = 0;
    *text = joined;
    return 0;
}
