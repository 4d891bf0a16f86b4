/* sentencepiece_file.h - a bounds-checked protobuf reader for SentencePiece model files; for
 * sentencepiece_check.c and vocabulary.c.
 *
 * The file is a protobuf message: fields of (number, wire type, value), some of them nested
 * messages:
 *   1 pieces, repeated: {1 piece: string, 2 score: float, 3 type: enum}
 *   2 trainer_spec: {3 model_type: enum, 4 vocab_size: int32, ...}
 *   3 normalizer_spec: {2 precompiled_charsmap: bytes, ...}
 *   4 self_test_data
 *   5 denormalizer_spec, like 3
 */
#ifndef EASYFIRST_LANGUAGE_SENTENCEPIECE_FILE_H
#define EASYFIRST_LANGUAGE_SENTENCEPIECE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum {
    MODEL_PIECE = 1,
    MODEL_TRAINER = 2,
    MODEL_NORMALIZER = 3,
    MODEL_SELF_TEST = 4,
    MODEL_DENORMALIZER = 5
};
enum { TRAINER_MODEL_TYPE = 3, TRAINER_VOCAB_SIZE = 4 };
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_USER = 4, PIECE_LAST = 6 };

/* Bytes still to be read; `p` never passes `end`. */
typedef struct ProtoCursor {
    const unsigned char *p, *end;
} ProtoCursor;

typedef struct ProtoField {
    uint64_t number;
    int wire;
    uint64_t value;             /* varint, fixed32, fixed64 */
    const unsigned char *bytes; /* WIRE_BYTES: `size` of them */
    size_t size;
} ProtoField;

/* The next field; false, with the cursor unmoved, at the end or if the bytes are not a valid field
 * (groups, long deprecated, are not accepted). */
bool proto_next(ProtoCursor *in, ProtoField *field);

/* The contents of a field of WIRE_BYTES. */
static inline ProtoCursor proto_inside(const ProtoField *message) {
    return (ProtoCursor){message->bytes, message->bytes + message->size};
}

typedef struct PieceFields {
    const unsigned char *text; /* [size], not terminated */
    size_t size;
    float score;
    uint32_t type; /* PIECE_* */
} PieceFields;

/* The fields of a piece, as protobuf reads them: the last of each counts, an unknown type is
 * ignored. Returns NULL, or the position of an invalid field. */
const unsigned char *piece_read(const ProtoField *message, PieceFields *piece);

#endif
