/* sentencepiece_check.c - refuses files that are not SentencePiece models or might crash the
 * library.
 *
 * The format is in sentencepiece_file.h. The charsmap is the dangerous part: the library follows
 * its indices without bounds checks.
 */
#include "language/sentencepiece.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece_file.h"

enum { MODEL_UNIGRAM = 1 };
/* The library collects the user-defined pieces that match at one position in a fixed array of
 * 64. */
enum { USER_PIECES_MAX = 64 };

size_t utf8_valid_prefix(const char *text, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < size) {
        unsigned char c = s[i];
        if (c < 0x80) {
            i++;
            continue;
        }
        /* The second byte's range excludes overlong forms (E0, F0), surrogates (ED) and code points
         * above U+10FFFF (F4); C0, C1 and F5..FF are never valid. */
        size_t length = c >= 0xC2 && c <= 0xDF   ? 2
                        : c >= 0xE0 && c <= 0xEF ? 3
                        : c >= 0xF0 && c <= 0xF4 ? 4
                                                 : 0;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
        unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (length == 0 || length > size - i || s[i + 1] < low || s[i + 1] > high) return i;
        for (size_t k = 2; k < length; k++)
            if ((s[i + k] & 0xC0) != 0x80) return i;
        i += length;
    }
    return i;
}

typedef struct Check {
    const char *name;
    const unsigned char *start; /* of the file, for positions in messages */
    size_t pieces, user_pieces, unknown_pieces;
    uint32_t model_type;
    Error *err;
} Check;

static int framing_error(const Check *check, const unsigned char *at) {
    return error_set(check->err,
                     "%s: not a SentencePiece model, or cut off or damaged (no protobuf field at "
                     "byte %zu); fetch it again",
                     check->name, (size_t)(at - check->start));
}

static int check_piece(Check *check, const ProtoField *message) {
    PieceFields piece;
    const unsigned char *broken = piece_read(message, &piece);
    if (broken) return framing_error(check, broken);
    if (piece.size == 0)
        return error_set(check->err, "%s: piece %zu is empty", check->name, check->pieces);
    if (memchr(piece.text, 0, piece.size) ||
        utf8_valid_prefix((const char *)piece.text, piece.size) != piece.size)
        return error_set(check->err, "%s: piece %zu is not UTF-8 text: the file is damaged",
                         check->name, check->pieces);
    if (!isfinite(piece.score))
        return error_set(check->err,
                         "%s: the score of piece %zu is not finite: the file is damaged",
                         check->name, check->pieces);
    check->unknown_pieces += piece.type == PIECE_UNKNOWN;
    check->user_pieces += piece.type == PIECE_USER;
    check->pieces++;
    return 0;
}

static int check_trainer(Check *check, const ProtoField *message) {
    ProtoCursor in = proto_inside(message);
    ProtoField field;
    while (in.p < in.end) {
        if (!proto_next(&in, &field)) return framing_error(check, in.p);
        if (field.number == TRAINER_MODEL_TYPE && field.wire == WIRE_VARINT)
            check->model_type = (uint32_t)field.value;
    }
    return 0;
}

/* The charsmap: a little-endian uint32 n, a double array of n bytes, then NUL-terminated strings.
 * A unit of the double array (the layout of darts-clone):
 *   bit 31       set in a leaf, whose other bits are a value, here the position of a string
 *   bits 0..7    label: the byte that leads here
 *   bit 8        has a leaf, at the base itself
 *   bits 10..30  offset, shifted by another 8 bits where bit 9 is set; base = index ^ offset
 * and the unit for byte c after a unit with base b is at b ^ c. */
typedef struct Charsmap {
    const unsigned char *units; /* 4 bytes each, not aligned */
    uint32_t count;
    size_t strings_size;
    /* The units below base b: first[b] - 1, then next[unit] - 1, until a 0. */
    uint32_t *first, *next;
    unsigned char *most; /* 1 + the most leaves on any path from a unit; 0: not known yet */
} Charsmap;

/* A path is a rule's left side, a few characters; the library collects the leaves on it in a fixed
 * array of 32. The depth limits our recursion and detects cycles. */
enum { WAY_LEAVES = 32, WAY_DEPTH = 256 };

static uint32_t unit_at(const Charsmap *map, uint32_t index) {
    const unsigned char *u = map->units + 4 * (size_t)index;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static uint32_t unit_base(const Charsmap *map, uint32_t index) {
    uint32_t unit = unit_at(map, index);
    return index ^ (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

static bool unit_is_leaf(const Charsmap *map, uint32_t index) {
    return unit_at(map, index) >> 31;
}

/* The most leaves on any path from a unit, -1 if there are too many or a path does not end. */
static int way_leaves(Charsmap *map, uint32_t index, int depth) {
    if (depth > WAY_DEPTH) return -1;
    if (map->most[index]) return map->most[index] - 1;
    int below = 0;
    for (uint32_t i = map->first[unit_base(map, index)]; i; i = map->next[i - 1]) {
        int leaves = way_leaves(map, i - 1, depth + 1);
        if (leaves < 0) return -1;
        if (leaves > below) below = leaves;
    }
    int leaves = below + (int)(unit_at(map, index) >> 8 & 1);
    if (leaves > WAY_LEAVES) return -1;
    map->most[index] = (unsigned char)(leaves + 1);
    return leaves;
}

/* Whether every transition from a unit that is not a leaf stays in the array, and every leaf holds
 * a position inside the strings. A transition goes to base ^ byte, so the base's block of 256 units
 * must be complete; the caller has checked that all blocks are. */
static bool charsmap_bounded(const Charsmap *map) {
    if (unit_is_leaf(map, 0)) return false;
    for (uint32_t i = 0; i < map->count; i++) {
        if (unit_is_leaf(map, i)) continue;
        uint32_t base = unit_base(map, i);
        if (base >= map->count) return false;
        bool has_leaf = unit_at(map, i) >> 8 & 1;
        if (has_leaf && (unit_at(map, base) & 0x7FFFFFFF) >= map->strings_size) return false;
    }
    return true;
}

static bool charsmap_sound(Charsmap *map) {
    if (!charsmap_bounded(map)) return false;
    for (uint32_t i = 0; i < map->count; i++) {
        if (unit_is_leaf(map, i)) continue;
        uint32_t base = i ^ (unit_at(map, i) & 0xFF);
        map->next[i] = map->first[base];
        map->first[base] = i + 1;
    }
    return way_leaves(map, 0, 0) >= 0;
}

static int check_charsmap(const Check *check, const ProtoField *bytes) {
    if (bytes->size == 0) return 0; /* no rules: text is not changed */
    Charsmap map = {0};
    bool sound = false;
    if (bytes->size > 4) {
        const unsigned char *n = bytes->bytes;
        uint32_t array = n[0] | (uint32_t)n[1] << 8 | (uint32_t)n[2] << 16 | (uint32_t)n[3] << 24;
        size_t rest = bytes->size - 4;
        /* Blocks of 256 units, then at least one string, the last one terminated. */
        sound = array && array % 1024 == 0 && array < rest && bytes->bytes[bytes->size - 1] == 0;
        map.units = bytes->bytes + 4;
        map.count = array / 4;
        map.strings_size = sound ? rest - array : 0;
    }
    if (sound) {
        map.first = calloc(map.count, sizeof *map.first);
        map.next = calloc(map.count, sizeof *map.next);
        map.most = calloc(map.count, 1);
        bool memory = map.first && map.next && map.most;
        sound = memory && charsmap_sound(&map);
        free(map.first);
        free(map.next);
        free(map.most);
        if (!memory)
            return error_set(check->err, "%s: out of memory to check its normaliser", check->name);
    }
    if (!sound)
        return error_set(check->err,
                         "%s: the normaliser's table (precompiled_charsmap, %zu bytes) is damaged; "
                         "fetch the file again",
                         check->name, bytes->size);
    return 0;
}

static int check_normalizer(const Check *check, const ProtoField *message) {
    ProtoCursor in = proto_inside(message);
    ProtoField field;
    while (in.p < in.end) {
        if (!proto_next(&in, &field)) return framing_error(check, in.p);
        if (field.number == 2 && field.wire == WIRE_BYTES) TRY(check_charsmap(check, &field));
    }
    return 0;
}

static int check_field(Check *check, const ProtoField *field) {
    if (field->wire != WIRE_BYTES) return 0; /* unknown to the library, which ignores it */
    switch (field->number) {
    case MODEL_PIECE:
        return check_piece(check, field);
    case MODEL_TRAINER:
        return check_trainer(check, field);
    case MODEL_NORMALIZER:
    case MODEL_DENORMALIZER:
        return check_normalizer(check, field);
    default:
        return 0;
    }
}

int sentencepiece_check(char *bytes, size_t *size, const char *name, Error *err) {
    unsigned char *start = (unsigned char *)bytes, *kept = start;
    Check check = {.name = name, .start = start, .model_type = MODEL_UNIGRAM, .err = err};
    ProtoCursor in = {start, start + *size};
    while (in.p < in.end) {
        const unsigned char *at = in.p;
        ProtoField field;
        if (!proto_next(&in, &field)) return framing_error(&check, at);
        if (field.number == MODEL_SELF_TEST) continue;
        TRY(check_field(&check, &field));
        size_t length = (size_t)(in.p - at);
        memmove(kept, at, length);
        kept += length;
    }
    if (check.pieces == 0)
        return error_set(err, "%s: holds no pieces: not a SentencePiece model", name);
    if (check.model_type != MODEL_UNIGRAM)
        return error_set(err,
                         "%s: a SentencePiece model of type %u, expected 1 (Unigram), as XLM-R's "
                         "sentencepiece.bpe.model is despite its name",
                         name, check.model_type);
    if (check.unknown_pieces != 1)
        return error_set(err, "%s: %zu pieces for the unknown, expected 1", name,
                         check.unknown_pieces);
    if (check.user_pieces > USER_PIECES_MAX)
        return error_set(err, "%s: %zu user-defined pieces, at most %d are supported (XLM-R: none)",
                         name, check.user_pieces, USER_PIECES_MAX);
    *size = (size_t)(kept - start);
    return 0;
}
