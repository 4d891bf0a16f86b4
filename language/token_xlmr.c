/* token_xlmr.c - see token_xlmr.h. */
#include "language/token_xlmr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"

static const char SPACE_MARK[] = "\xE2\x96\x81"; /* U+2581, sentencepiece's space */
enum { SPACE_MARK_SIZE = 3 };

/* fairseq's ids begin with <s>, <pad>, </s>, <unk>, the model's pieces with <unk>, <s>, </s>: four
 * ids for three pieces, hence the offset of 1. */
enum { SPECIAL_COUNT = 4, SPECIAL_PIECES = 3, ID_MINUS_PIECE = SPECIAL_COUNT - SPECIAL_PIECES };

struct TokenXlmr {
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

static int pieces_open(TokenXlmr *tokenizer, const char *path, Error *err) {
    TRY(sentencepiece_open(&tokenizer->model, path, err));
    TRY(model_is_xlmr(tokenizer->model, path, err));
    tokenizer->pieces = sentencepiece_count(tokenizer->model);
    return 0;
}

int token_xlmr_open(TokenXlmr **tokenizer, const char *path, Error *err) {
    *tokenizer = NULL;
    TokenXlmr *opened = calloc(1, sizeof *opened);
    if (!opened) return error_set(err, "%s: out of memory for a tokenizer", path);
    if (pieces_open(opened, path, err) != 0) {
        token_xlmr_close(opened);
        return -1;
    }
    *tokenizer = opened;
    return 0;
}

void token_xlmr_close(TokenXlmr *tokenizer) {
    if (!tokenizer) return;
    if (tokenizer->model) sentencepiece_close(tokenizer->model);
    free(tokenizer);
}

int32_t token_xlmr_mask_id(const TokenXlmr *tokenizer) {
    return tokenizer->pieces + ID_MINUS_PIECE;
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

static int encode_piece(const TokenXlmr *tokenizer, const char *text, size_t size, Ids *out,
                        Error *err) {
    int32_t *ids;
    size_t count;
    TRY(sentencepiece_encode(tokenizer->model, text, size, &ids, &count, err));
    for (size_t i = 0; i < count; i++) ids[i] = piece_to_id(ids[i]);
    int failed = ids_append(out, ids, count, err);
    free(ids);
    return failed;
}

static int encode_plain(const TokenXlmr *tokenizer, const char *text, size_t size, Ids *out,
                        Error *err) {
    do { /* the library refuses a text that is too long as a whole */
        size_t piece = size > SENTENCEPIECE_LONGEST_TEXT ? size : piece_end(text, size);
        TRY(encode_piece(tokenizer, text, piece, out, err));
        text += piece, size -= piece;
    } while (size);
    return 0;
}

/* The special token at text[0]; its size is 0 if there is none. */
static SpecialWord special_at(const TokenXlmr *tokenizer, const char *text, size_t size) {
    SpecialWord mask = {MASK_WORD, sizeof MASK_WORD - 1, token_xlmr_mask_id(tokenizer)};
    if (size >= mask.size && memcmp(text, mask.text, mask.size) == 0) return mask;
    for (int i = 0; i < SPECIAL_COUNT; i++) {
        const SpecialWord *word = &SPECIAL_WORDS[i];
        if (size >= word->size && memcmp(text, word->text, word->size) == 0) return *word;
    }
    return (SpecialWord){0};
}

static int encode_all(const TokenXlmr *tokenizer, const char *text, size_t size, Ids *out,
                      Error *err) {
    const char *end = text + size, *plain = text, *p = text;
    while (p < end && (p = memchr(p, '<', (size_t)(end - p))) != NULL) {
        SpecialWord word = special_at(tokenizer, p, (size_t)(end - p));
        if (word.size == 0) {
            p++;
            continue;
        }
        size_t length = (size_t)(p - plain);
        if (word.id == token_xlmr_mask_id(tokenizer)) length = tokenizer_strip_right(plain, length);
        TRY(encode_plain(tokenizer, plain, length, out, err));
        TRY(ids_append(out, &word.id, 1, err));
        plain = p += word.size;
    }
    return encode_plain(tokenizer, plain, (size_t)(end - plain), out, err);
}

int token_xlmr_encode(const TokenXlmr *tokenizer, const char *text, size_t size, Ids *out,
                      Error *err) {
    return encode_all(tokenizer, text, size, out, err);
}

const char *token_xlmr_piece(const TokenXlmr *tokenizer, int32_t id) {
    if (id == token_xlmr_mask_id(tokenizer)) return MASK_WORD;
    if (id < 0 || id > token_xlmr_mask_id(tokenizer)) return "";
    if (id < SPECIAL_COUNT) return SPECIAL_WORDS[id].text;
    return sentencepiece_piece(tokenizer->model, id - ID_MINUS_PIECE);
}

/* The piece of an id as text: "" for special tokens. */
static const char *decoded_piece(const TokenXlmr *tokenizer, int32_t id) {
    if (id < SPECIAL_COUNT || id == token_xlmr_mask_id(tokenizer)) return "";
    return token_xlmr_piece(tokenizer, id);
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

int token_xlmr_decode(const TokenXlmr *tokenizer, const int32_t *ids, size_t count, char **text,
                      size_t *length, Error *err) {
    size_t size = 1;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(size, strlen(decoded_piece(tokenizer, ids[i])), &size))
            return error_set(err, "the text of %zu ids is more than memory can hold", count);
    char *joined = malloc(size);
    if (!joined) return error_set(err, "out of memory for a text of %zu bytes", size);
    char *end = joined;
    for (size_t i = 0; i < count; i++) end = piece_write(end, decoded_piece(tokenizer, ids[i]));
    *length = (size_t)(end - joined);
    *text = joined;
    return 0;
}
