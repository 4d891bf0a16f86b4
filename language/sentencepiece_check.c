/* sentencepiece_check.c - is this file a SentencePiece model that the library will survive?
 *
 * The file is a protobuf message: fields of (number, wire type, value), some of them messages
 * again: 1 pieces, repeated {1 piece: string, 2 score: float, 3 type: enum} 2 trainer_spec {3
 * model_type: enum, ...} 3 normalizer_spec {2 precompiled_charsmap: bytes, ...} 4 self_test_data 5
 * denormalizer_spec, like 3 The charsmap is the dangerous part: the library follows its indices
 * without bounds.
 */
#include "language/sentencepiece.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_USER = 4, PIECE_LAST = 6 };
enum { MODEL_UNIGRAM = 1 };
/* The library collects the user-defined pieces that match at one place in a fixed array of 64. */
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
        /* The second byte's range is what rules out overlong forms (E0, F0), surrogates (ED) and
         * what lies above U+10FFFF (F4); C0, C1 and F5..FF start nothing. */
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

/* Bytes still to be read; `p` never passes `end`. */
typedef struct Cursor {
    const unsigned char *p, *end;
} Cursor;

typedef struct Field {
    uint64_t number;
    int wire;
    uint64_t value;             /* varint, fixed32, fixed64 */
    const unsigned char *bytes; /* WIRE_BYTES: `size` of them */
    size_t size;
} Field;

static bool varint_read(Cursor *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (in->p == in->end) return false;
        unsigned char byte = *in->p++;
        if (shift < 64) *value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool fixed_read(Cursor *in, size_t size, uint64_t *value) {
    if ((size_t)(in->end - in->p) < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; i++) *value |= (uint64_t)in->p[i] << (8 * i);
    in->p += size;
    return true;
}

/* The next field; false where the bytes are no field (groups, long out of use, count as none). */
static bool field_read(Cursor *in, Field *field) {
    uint64_t tag;
    memset(field, 0, sizeof *field);
    if (!varint_read(in, &tag) || tag > UINT32_MAX || tag >> 3 == 0) return false;
    field->number = tag >> 3;
    field->wire = (int)(tag & 7);
    switch (field->wire) {
    case WIRE_VARINT:
        return varint_read(in, &field->value);
    case WIRE_FIXED64:
        return fixed_read(in, 8, &field->value);
    case WIRE_FIXED32:
        return fixed_read(in, 4, &field->value);
    case WIRE_BYTES:
        if (!varint_read(in, &field->value) || field->value > (uint64_t)(in->end - in->p))
            return false;
        field->bytes = in->p;
        field->size = (size_t)field->value;
        in->p += field->size;
        return true;
    default:
        return false;
    }
}

typedef struct Check {
    const char *name;
    const unsigned char *start; /* of the file, for positions in messages */
    size_t pieces, user_pieces, unknown_pieces;
    uint32_t model_type;
    Error *err;
} Check;

static int framing_error(const Check *check, const Cursor *in) {
    return error_set(check->err,
                     "%s: not a SentencePiece model, or cut off or damaged (no protobuf field at "
                     "byte %zu); fetch it again",
                     check->name, (size_t)(in->p - check->start));
}

static int check_piece(Check *check, const Field *message) {
    Cursor in = {message->bytes, message->bytes + message->size};
    Field field, text = {0};
    float score = 0;
    uint32_t type = PIECE_NORMAL;
    while (in.p < in.end) {
        Cursor at = in;
        if (!field_read(&in, &field)) return framing_error(check, &at);
        if (field.number == 1 && field.wire == WIRE_BYTES) text = field;
        if (field.number == 2 && field.wire == WIRE_FIXED32) {
            uint32_t bits = (uint32_t)field.value;
            memcpy(&score, &bits, sizeof score);
        }
        /* As protobuf reads an enum: 32 bits of the varint; a value it does not know is left out.
         */
        if (field.number == 3 && field.wire == WIRE_VARINT) {
            uint32_t value = (uint32_t)field.value;
            if (value >= PIECE_NORMAL && value <= PIECE_LAST) type = value;
        }
    }
    if (text.size == 0)
        return error_set(check->err, "%s: piece %zu is empty", check->name, check->pieces);
    if (memchr(text.bytes, 0, text.size) ||
        utf8_valid_prefix((const char *)text.bytes, text.size) != text.size)
        return error_set(check->err, "%s: piece %zu is not UTF-8 text: the file is damaged",
                         check->name, check->pieces);
    if (!isfinite(score))
        return error_set(check->err,
                         "%s: the score of piece %zu is not finite: the file is damaged",
                         check->name, check->pieces);
    check->unknown_pieces += type == PIECE_UNKNOWN;
    check->user_pieces += type == PIECE_USER;
    check->pieces++;
    return 0;
}

static int check_trainer(Check *check, const Field *message) {
    Cursor in = {message->bytes, message->bytes + message->size};
    Field field;
    while (in.p < in.end) {
        Cursor at = in;
        if (!field_read(&in, &field)) return framing_error(check, &at);
        if (field.number == 3 && field.wire == WIRE_VARINT)
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
    unsigned char *most; /* 1 + the most leaves on any way down from a unit; 0: not known yet */
} Charsmap;

/* A way down is a rule's left side, a few characters; the library collects the leaves on it in a
 * fixed array of 32. The depth bounds our recursion and finds cycles. */
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

/* The most leaves on any way down from a unit, -1 where there are too many or a way does not end.
 */
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

/* Every step from any unit that is no leaf stays in the array, and every leaf reached names a
 * position inside the strings. A step goes to base ^ byte, so the base's 256-unit block must be
 * there whole; the caller has made sure that only whole blocks are. */
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

static int check_charsmap(const Check *check, const Field *bytes) {
    if (bytes->size == 0) return 0; /* no rules: text stays as it is */
    Charsmap map = {0};
    bool sound = false;
    if (bytes->size > 4) {
        const unsigned char *n = bytes->bytes;
        uint32_t array = n[0] | (uint32_t)n[1] << 8 | (uint32_t)n[2] << 16 | (uint32_t)n[3] << 24;
        size_t rest = bytes->size - 4;
        /* Blocks of 256 units; behind them at least one string, and the last one ends. */
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
            return error_set(check->err, "%s: no memory to check its normaliser", check->name);
    }
    if (!sound)
        return error_set(check->err,
                         "%s: the normaliser's table (precompiled_charsmap, %zu bytes) is damaged; "
                         "fetch the file again",
                         check->name, bytes->size);
    return 0;
}

static int check_normalizer(const Check *check, const Field *message) {
    Cursor in = {message->bytes, message->bytes + message->size};
    Field field;
    while (in.p < in.end) {
        Cursor at = in;
        if (!field_read(&in, &field)) return framing_error(check, &at);
        if (field.number == 2 && field.wire == WIRE_BYTES) TRY(check_charsmap(check, &field));
    }
    return 0;
}

static int check_field(Check *check, const Field *field) {
    if (field->wire != WIRE_BYTES) return 0; /* unknown to the library: passed over */
    switch (field->number) {
    case 1:
        return check_piece(check, field);
    case 2:
        return check_trainer(check, field);
    case 3:
    case 5:
        return check_normalizer(check, field);
    default:
        return 0;
    }
}

int sentencepiece_check(char *bytes, size_t *size, const char *name, Error *err) {
    unsigned char *start = (unsigned char *)bytes, *kept = start;
    Check check = {.name = name, .start = start, .model_type = MODEL_UNIGRAM, .err = err};
    Cursor in = {start, start + *size};
    while (in.p < in.end) {
        Cursor at = in;
        Field field;
        if (!field_read(&in, &field)) return framing_error(&check, &at);
        if (field.number == 4) continue; /* self tests */
        TRY(check_field(&check, &field));
        size_t length = (size_t)(in.p - at.p);
        memmove(kept, at.p, length);
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
