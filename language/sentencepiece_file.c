#include "language/sentencepiece_file.h"

#include <string.h>

static bool varint_read(ProtoCursor *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (in->p == in->end) return false;
        unsigned char byte = *in->p++;
        if (shift < 64) *value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

static bool fixed_read(ProtoCursor *in, size_t size, uint64_t *value) {
    if ((size_t)(in->end - in->p) < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; i++) *value |= (uint64_t)in->p[i] << (8 * i);
    in->p += size;
    return true;
}

static bool value_read(ProtoCursor *in, ProtoField *field) {
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

bool proto_next(ProtoCursor *in, ProtoField *field) {
    ProtoCursor at = *in;
    uint64_t tag;
    memset(field, 0, sizeof *field);
    if (!varint_read(&at, &tag) || tag > UINT32_MAX || tag >> 3 == 0) return false;
    field->number = tag >> 3;
    field->wire = (int)(tag & 7);
    if (!value_read(&at, field)) return false;
    *in = at;
    return true;
}

const unsigned char *piece_read(const ProtoField *message, PieceFields *piece) {
    ProtoCursor in = proto_inside(message);
    ProtoField field;
    *piece = (PieceFields){.type = PIECE_NORMAL};
    while (in.p < in.end) {
        if (!proto_next(&in, &field)) return in.p;
        if (field.number == 1 && field.wire == WIRE_BYTES) {
            piece->text = field.bytes;
            piece->size = field.size;
        }
        if (field.number == 2 && field.wire == WIRE_FIXED32) {
            uint32_t bits = (uint32_t)field.value;
            memcpy(&piece->score, &bits, sizeof piece->score);
        }
        /* An enum is 32 bits of the varint. */
        if (field.number == 3 && field.wire == WIRE_VARINT) {
            uint32_t value = (uint32_t)field.value;
            if (value >= PIECE_NORMAL && value <= PIECE_LAST) piece->type = value;
        }
    }
    return NULL;
}
