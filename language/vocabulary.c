#include "language/vocabulary.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "language/sentencepiece.h"
#include "language/sentencepiece_file.h"

/* Pieces 0 to 2 are <unk>, <s>, </s>; piece p from 3 on is id p + 1; <mask> follows the last. */
enum { SPECIAL_PIECES = 3, SPECIAL_IDS = 4, ID_MINUS_PIECE = 1, IDS_MORE = 2 };
enum { LARGEST_FILE = 256 << 20 };

/* The bytes of the new file. */
typedef struct Output {
    unsigned char *bytes;
    size_t size, capacity;
} Output;

void vocabulary_map_free(VocabularyMap *map) {
    free(map->new_ids);
    free(map->old_ids);
    *map = (VocabularyMap){0};
}

int vocabulary_mark(const Tokenizer *tokenizer, const char *text, size_t size, bool *keep,
                    Error *err) {
    Ids ids = {0};
    int status = tokenizer_encode(tokenizer, text, size, &ids, err);
    for (size_t i = 0; i < ids.count; i++) keep[ids.ids[i]] = true;
    ids_free(&ids);
    return status;
}

int vocabulary_count(const Tokenizer *tokenizer, const char *text, size_t size, int64_t *counts,
                     Error *err) {
    Ids ids = {0};
    int status = tokenizer_encode(tokenizer, text, size, &ids, err);
    for (size_t i = 0; i < ids.count; i++) counts[ids.ids[i]]++;
    ids_free(&ids);
    return status;
}

/* ---- Files. ---- */

static int read_stream(FILE *file, const char *path, char **bytes, size_t *size, Error *err) {
    struct stat info;
    if (fstat(fileno(file), &info) != 0) return error_set(err, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size > LARGEST_FILE)
        return error_set(err, "%s: not a file of 1 to %d bytes, expected a SentencePiece model",
                         path, LARGEST_FILE);
    *bytes = malloc((size_t)info.st_size);
    if (!*bytes)
        return error_set(err, "%s: out of memory for its %lld bytes", path,
                         (long long)info.st_size);
    *size = fread(*bytes, 1, (size_t)info.st_size, file);
    if (*size == (size_t)info.st_size) return 0;
    return error_set(err, "%s: read %zu of %lld bytes", path, *size, (long long)info.st_size);
}

/* Reads and checks a model file. The caller frees *bytes, also after an error. */
static int read_model(const char *path, char **bytes, size_t *size, Error *err) {
    *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return error_set(err, "%s: %s", path, strerror(errno));
    int status = read_stream(file, path, bytes, size, err);
    fclose(file);
    return status ? -1 : sentencepiece_check(*bytes, size, path, err);
}

static int write_model(const char *path, const Output *output, Error *err) {
    FILE *file = fopen(path, "wb");
    if (!file) return error_set(err, "%s: cannot be written: %s", path, strerror(errno));
    bool failed = fwrite(output->bytes, 1, output->size, file) != output->size ||
                  fflush(file) != 0 || fsync(fileno(file)) != 0;
    int problem = errno;
    if (fclose(file) != 0 && !failed) failed = true, problem = errno;
    if (!failed) return 0;
    unlink(path);
    return error_set(err, "%s: writing failed: %s", path, strerror(problem));
}

static int put(Output *out, const void *bytes, size_t size, Error *err) {
    if (size > out->capacity - out->size) {
        size_t capacity = 2 * out->capacity + size + 64;
        unsigned char *grown = realloc(out->bytes, capacity);
        if (!grown)
            return error_set(err, "out of memory for a SentencePiece model of %zu bytes", capacity);
        out->bytes = grown;
        out->capacity = capacity;
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
    return 0;
}

static int put_varint(Output *out, uint64_t value, Error *err) {
    unsigned char bytes[10];
    size_t size = 0;
    for (; value > 0x7F; value >>= 7) bytes[size++] = (unsigned char)(value | 0x80);
    bytes[size++] = (unsigned char)value;
    return put(out, bytes, size, err);
}

/* ---- The pieces to keep. ---- */

static bool is_character(const PieceFields *piece) {
    size_t characters = 0;
    for (size_t i = 0; i < piece->size; i++) characters += (piece->text[i] & 0xC0) != 0x80;
    return characters == 1;
}

/* The next piece of a checked model; false at the end. */
static bool next_piece(ProtoCursor *in, ProtoField *field, PieceFields *piece) {
    while (proto_next(in, field))
        if (field->number == MODEL_PIECE && field->wire == WIRE_BYTES)
            return piece_read(field, piece) == NULL;
    return false;
}

/* Numbers the kept ids; the others remain -1. */
static void number_ids(VocabularyMap *map) {
    int32_t next = 0;
    for (int32_t id = 0; id < map->old_count; id++) {
        if (map->new_ids[id] < 0) continue;
        map->old_ids[next] = id;
        map->new_ids[id] = next++;
    }
    map->new_count = next;
}

static int choose_ids(const char *path, ProtoCursor in, const bool *keep, int32_t count,
                      bool characters, VocabularyMap *map, Error *err) {
    ProtoField field;
    PieceFields piece;
    int32_t p = 0, lowest = -1, pieces = count - IDS_MORE;
    float least = 0;
    if (pieces <= SPECIAL_PIECES) return error_set(err, "%s: no vocabulary of %d ids", path, count);
    map->new_ids = malloc((size_t)count * sizeof *map->new_ids);
    map->old_ids = malloc((size_t)count * sizeof *map->old_ids);
    if (!map->new_ids || !map->old_ids)
        return error_set(err, "%s: out of memory for %d ids", path, count);
    map->old_count = count;
    for (; p < pieces && next_piece(&in, &field, &piece); p++) {
        int32_t id = p + ID_MINUS_PIECE;
        if (p < SPECIAL_PIECES) continue;
        bool stays = keep[id] || piece.type != PIECE_NORMAL || (characters && is_character(&piece));
        map->new_ids[id] = stays ? 0 : -1;
        if (piece.type == PIECE_NORMAL && (lowest < 0 || piece.score < least)) {
            lowest = id;
            least = piece.score;
        }
    }
    if (p < pieces || next_piece(&in, &field, &piece))
        return error_set(err, "%s: not the model of a vocabulary of %d ids, which has %d pieces",
                         path, count, pieces);
    if (lowest >= 0) map->new_ids[lowest] = 0;
    for (int32_t id = 0; id < SPECIAL_IDS; id++) map->new_ids[id] = 0;
    map->new_ids[count - 1] = 0; /* <mask> */
    number_ids(map);
    return 0;
}

/* ---- Writing. ---- */

/* The trainer's settings with the new number of pieces. */
static int put_trainer(Output *out, const ProtoField *message, int32_t pieces, Error *err) {
    Output inside = {0};
    ProtoCursor in = proto_inside(message);
    ProtoField field;
    int status = 0;
    while (status == 0 && in.p < in.end) {
        const unsigned char *at = in.p;
        if (!proto_next(&in, &field)) break; /* not in a checked model */
        if (field.number == TRAINER_VOCAB_SIZE && field.wire == WIRE_VARINT)
            status = put_varint(&inside, TRAINER_VOCAB_SIZE << 3 | WIRE_VARINT, err) ||
                     put_varint(&inside, (uint64_t)pieces, err);
        else
            status = put(&inside, at, (size_t)(in.p - at), err);
    }
    if (status == 0)
        status = put_varint(out, MODEL_TRAINER << 3 | WIRE_BYTES, err) ||
                 put_varint(out, inside.size, err) ||
                 (inside.size && put(out, inside.bytes, inside.size, err));
    free(inside.bytes);
    return status ? -1 : 0;
}

static int put_model(Output *out, ProtoCursor in, const VocabularyMap *map, Error *err) {
    ProtoField field;
    int32_t p = 0;
    while (in.p < in.end) {
        const unsigned char *at = in.p;
        if (!proto_next(&in, &field)) break; /* not in a checked model */
        bool piece = field.number == MODEL_PIECE && field.wire == WIRE_BYTES;
        if (piece && p >= SPECIAL_PIECES && map->new_ids[p + ID_MINUS_PIECE] < 0) {
            p++;
            continue;
        }
        p += piece;
        if (field.number == MODEL_TRAINER && field.wire == WIRE_BYTES)
            TRY(put_trainer(out, &field, map->new_count - IDS_MORE, err));
        else
            TRY(put(out, at, (size_t)(in.p - at), err));
    }
    return 0;
}

int vocabulary_prune(const char *model, const char *out, const bool *keep, int32_t count,
                     bool characters, VocabularyMap *map, Error *err) {
    *map = (VocabularyMap){0};
    Output output = {0};
    char *bytes;
    size_t size = 0;
    int status = read_model(model, &bytes, &size, err);
    ProtoCursor all = {0};
    if (status == 0) all = (ProtoCursor){(unsigned char *)bytes, (unsigned char *)bytes + size};
    if (status == 0) status = choose_ids(model, all, keep, count, characters, map, err);
    if (status == 0) status = put_model(&output, all, map, err);
    if (status == 0) status = write_model(out, &output, err);
    free(output.bytes);
    free(bytes);
    if (status) vocabulary_map_free(map);
    return status;
}
