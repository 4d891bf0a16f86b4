/* The instructions are those of https://docs.python.org/3/library/pickletools.html. */
#include "data/checkpoints/pickle.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"

/* Far above any state dict (about eight objects, of 32 bytes, and three memo entries for each
 * tensor), but a hostile pickle costs some hundred megabytes at most. */
enum { BYTES_MAX = 64 << 20, OBJECTS_MAX = 4 << 20, MEMO_MAX = 4 << 20, STACK_MAX = 1 << 20 };

#define NO_REF UINT32_MAX

/* Shared objects: None and the like, and (). */
enum { REF_OTHER, REF_EMPTY_TUPLE };

/* The instructions a state dict uses, by Python's names. */
enum Opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_NONE = 'N',
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_BINFLOAT = 'G',
    OP_SHORT_BINSTRING = 'U',
    OP_BINSTRING = 'T',
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE = 'X',
    OP_BINUNICODE8 = 0x8d,
    OP_SHORT_BINBYTES = 'C',
    OP_BINBYTES = 'B',
    OP_EMPTY_TUPLE = ')',
    OP_EMPTY_LIST = ']',
    OP_EMPTY_DICT = '}',
    OP_TUPLE = 't',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_APPEND = 'a',
    OP_APPENDS = 'e',
    OP_SETITEM = 's',
    OP_SETITEMS = 'u',
    OP_GLOBAL = 'c',
    OP_STACK_GLOBAL = 0x93,
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_NEWOBJ = 0x81,
    OP_BUILD = 'b',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_MEMOIZE = 0x94,
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_PROTO = 0x80,
    OP_FRAME = 0x95,
};

static const PickleGlobal globals[] = {
    {"collections", "OrderedDict", GLOBAL_DICT, DTYPE_NONE, 0},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_TENSOR, DTYPE_NONE, 0},
    {"torch._utils", "_rebuild_tensor_v3", GLOBAL_TYPED_TENSOR, DTYPE_NONE, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, DTYPE_NONE, 0},
    {"torch._utils", "_rebuild_parameter_with_state", GLOBAL_PARAMETER, DTYPE_NONE, 0},
    {"torch", "Size", GLOBAL_SHAPE, DTYPE_NONE, 0},
    {"torch", "device", GLOBAL_OTHER, DTYPE_NONE, 0},
    {"torch", "FloatStorage", GLOBAL_STORAGE, DTYPE_F32, 4},
    {"torch", "HalfStorage", GLOBAL_STORAGE, DTYPE_F16, 2},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, DTYPE_BF16, 2},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, DTYPE_F64, 8},
    {"torch", "LongStorage", GLOBAL_STORAGE, DTYPE_I64, 8},
    {"torch", "IntStorage", GLOBAL_STORAGE, DTYPE_I32, 4},
    {"torch", "ShortStorage", GLOBAL_STORAGE, DTYPE_I16, 2},
    {"torch", "CharStorage", GLOBAL_STORAGE, DTYPE_I8, 1},
    {"torch", "ByteStorage", GLOBAL_STORAGE, DTYPE_U8, 1},
    {"torch", "BoolStorage", GLOBAL_STORAGE, DTYPE_BOOL, 1},
    {"torch", "ComplexFloatStorage", GLOBAL_STORAGE, DTYPE_NONE, 8},
    {"torch", "ComplexDoubleStorage", GLOBAL_STORAGE, DTYPE_NONE, 16},
    {"torch.storage", "UntypedStorage", GLOBAL_STORAGE, DTYPE_U8, 1},
    {"torch", "UntypedStorage", GLOBAL_STORAGE, DTYPE_U8, 1},
    {"torch", "float32", GLOBAL_DTYPE, DTYPE_F32, 4},
    {"torch", "float16", GLOBAL_DTYPE, DTYPE_F16, 2},
    {"torch", "bfloat16", GLOBAL_DTYPE, DTYPE_BF16, 2},
    {"torch", "float64", GLOBAL_DTYPE, DTYPE_F64, 8},
    {"torch", "int64", GLOBAL_DTYPE, DTYPE_I64, 8},
    {"torch", "int32", GLOBAL_DTYPE, DTYPE_I32, 4},
    {"torch", "int16", GLOBAL_DTYPE, DTYPE_I16, 2},
    {"torch", "int8", GLOBAL_DTYPE, DTYPE_I8, 1},
    {"torch", "uint8", GLOBAL_DTYPE, DTYPE_U8, 1},
    {"torch", "bool", GLOBAL_DTYPE, DTYPE_BOOL, 1},
    {"torch", "uint16", GLOBAL_DTYPE, DTYPE_NONE, 2},
    {"torch", "uint32", GLOBAL_DTYPE, DTYPE_NONE, 4},
    {"torch", "uint64", GLOBAL_DTYPE, DTYPE_NONE, 8},
    {"torch", "float8_e4m3fn", GLOBAL_DTYPE, DTYPE_NONE, 1},
    {"torch", "float8_e4m3fnuz", GLOBAL_DTYPE, DTYPE_NONE, 1},
    {"torch", "float8_e5m2", GLOBAL_DTYPE, DTYPE_NONE, 1},
    {"torch", "float8_e5m2fnuz", GLOBAL_DTYPE, DTYPE_NONE, 1},
    {"torch", "float8_e8m0fnu", GLOBAL_DTYPE, DTYPE_NONE, 1},
};
enum { GLOBAL_COUNT = sizeof globals / sizeof *globals };

typedef struct Machine {
    const unsigned char *bytes;
    size_t size, at; /* at: the next byte */
    size_t begin;    /* where the current instruction begins, for messages */
    Pickle *pickle;
    PickleRef *stack;
    size_t depth, stack_capacity;
    size_t *marks; /* stack depths of the marks */
    size_t mark_count, mark_capacity;
    PickleRef *memo; /* [memo_size], NO_REF if unset */
    size_t memo_size, memo_capacity, memo_used;
    const char *name;
    Error *err;
} Machine;

/* Both return a literal -1, which lets the compiler see what callers rely on. */
static int fail(Machine *m, const char *what) {
    error_set(m->err, "%s: pickle byte %zu: %s; the file is damaged or not a state dict", m->name,
              m->begin, what);
    return -1;
}

static int fail_memory(Machine *m) {
    error_set(m->err, "%s: out of memory", m->name);
    return -1;
}

/* The next `count` bytes; NULL, with a message, if the pickle ends before. */
static const unsigned char *take(Machine *m, size_t count) {
    if (count > m->size - m->at) {
        fail(m, "it ends in the middle of an instruction");
        return NULL;
    }
    const unsigned char *bytes = m->bytes + m->at;
    m->at += count;
    return bytes;
}

static int take_number(Machine *m, size_t count, uint64_t *value) {
    const unsigned char *bytes = take(m, count);
    if (!bytes) return -1;
    *value = 0;
    for (size_t i = 0; i < count; i++) *value |= (uint64_t)bytes[i] << (8 * i);
    return 0;
}

static int push(Machine *m, PickleRef ref) {
    if (m->depth == m->stack_capacity) {
        if (m->depth >= STACK_MAX) return fail(m, "its stack is too large");
        void *stack = array_grow(m->stack, &m->stack_capacity, sizeof *m->stack);
        if (!stack) return fail_memory(m);
        m->stack = stack;
    }
    m->stack[m->depth++] = ref;
    return 0;
}

/* Pops the last `count` values; nothing below the topmost mark may be popped. *values points at
 * them until the next push. */
static int pop(Machine *m, size_t count, const PickleRef **values) {
    size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth - floor < count) return fail(m, "it pops a value from an empty stack");
    m->depth -= count;
    *values = m->stack + m->depth;
    return 0;
}

/* Pops the topmost mark and the values above it. */
static int pop_mark(Machine *m, const PickleRef **values, size_t *count) {
    if (m->mark_count == 0) return fail(m, "it pops a mark that was never set");
    size_t floor = m->marks[--m->mark_count];
    *count = m->depth - floor;
    *values = m->stack + floor;
    m->depth = floor;
    return 0;
}

static PickleObject *object_of(const Machine *m, PickleRef ref) {
    return &m->pickle->objects[ref];
}

static int object_new(Machine *m, PickleObject object, PickleRef *ref) {
    Pickle *p = m->pickle;
    if (p->count == p->capacity) {
        if (p->count >= OBJECTS_MAX) return fail(m, "it has more objects than any state dict");
        void *objects = array_grow(p->objects, &p->capacity, sizeof *p->objects);
        if (!objects) return fail_memory(m);
        p->objects = objects;
    }
    *ref = (PickleRef)p->count;
    p->objects[p->count++] = object;
    return 0;
}

static int push_new(Machine *m, PickleObject object) {
    PickleRef ref;
    TRY(object_new(m, object, &ref));
    return push(m, ref);
}

static int push_int(Machine *m, int64_t value) {
    return push_new(m, (PickleObject){.kind = PICKLE_INT, .integer = value});
}

/* A length of `width` bytes, then that many bytes of text. */
static int push_text(Machine *m, size_t width, PickleKind kind) {
    uint64_t length;
    TRY(take_number(m, width, &length));
    if (length > m->size) length = m->size; /* take refuses that, and it fits 32 bits */
    const unsigned char *text = take(m, (size_t)length);
    if (!text) return -1;
    if (kind == PICKLE_OTHER) return push(m, REF_OTHER);
    return push_new(
        m,
        (PickleObject){.kind = PICKLE_TEXT, .count = (uint32_t)length, .text = (const char *)text});
}

/* A signed little-endian integer of any length. */
static int push_long(Machine *m, size_t width) {
    uint64_t length, value = 0;
    TRY(take_number(m, width, &length));
    if (length > m->size) length = m->size;
    const unsigned char *bytes = take(m, (size_t)length);
    if (!bytes) return -1;
    if (length > 8) return push(m, REF_OTHER);
    for (size_t i = 0; i < length; i++) value |= (uint64_t)bytes[i] << (8 * i);
    if (length > 0 && length < 8 && bytes[length - 1] & 0x80) value |= UINT64_MAX << (8 * length);
    return push_int(m, (int64_t)value);
}

static int append(Machine *m, PickleRef to, const PickleRef *values, size_t count) {
    PickleObject *object = object_of(m, to);
    size_t needed = object->count + count;
    if (needed > object->capacity) {
        size_t capacity = needed > 2u * object->capacity ? needed : 2u * object->capacity;
        if (capacity > UINT32_MAX) return fail(m, "one of its lists is too large");
        PickleRef *items = realloc(object->items, capacity * sizeof *items);
        if (!items) return fail_memory(m);
        object->items = items;
        object->capacity = (uint32_t)capacity;
    }
    memcpy(object->items + object->count, values, count * sizeof *values);
    object->count = (uint32_t)needed;
    return 0;
}

static int push_tuple(Machine *m, const PickleRef *values, size_t count) {
    if (count == 0) return push(m, REF_EMPTY_TUPLE);
    PickleRef tuple;
    TRY(object_new(m, (PickleObject){.kind = PICKLE_TUPLE}, &tuple));
    TRY(append(m, tuple, values, count));
    return push(m, tuple);
}

/* Appends to the list or dict that is now on top of the stack. */
static int append_top(Machine *m, PickleKind kind, const PickleRef *values, size_t count) {
    size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth == floor) return fail(m, "it adds items to nothing");
    PickleRef top = m->stack[m->depth - 1];
    if (object_of(m, top)->kind != kind || (kind == PICKLE_DICT && count % 2 != 0))
        return fail(m, "it adds items to an object that is not a list or dict");
    return count ? append(m, top, values, count) : 0;
}

static int memo_put(Machine *m, uint64_t index) {
    size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth == floor) return fail(m, "it memoizes a value of an empty stack");
    if (index >= MEMO_MAX) return fail(m, "its memo is too large");
    while (index >= m->memo_capacity) {
        void *memo = array_grow(m->memo, &m->memo_capacity, sizeof *m->memo);
        if (!memo) return fail_memory(m);
        m->memo = memo;
    }
    while (m->memo_size <= index) m->memo[m->memo_size++] = NO_REF;
    if (m->memo[index] == NO_REF) m->memo_used++;
    m->memo[index] = m->stack[m->depth - 1];
    return 0;
}

static int memo_get(Machine *m, size_t width) {
    uint64_t index;
    TRY(take_number(m, width, &index));
    if (index >= m->memo_size || m->memo[index] == NO_REF)
        return fail(m, "it gets a value that was never memoized");
    return push(m, m->memo[index]);
}

static bool bytes_equal(const char *text, const char *bytes, size_t length) {
    return strlen(text) == length && memcmp(text, bytes, length) == 0;
}

static int push_global(Machine *m, const char *module, size_t module_length, const char *name,
                       size_t name_length) {
    for (int i = 0; i < GLOBAL_COUNT; i++)
        if (bytes_equal(globals[i].module, module, module_length) &&
            bytes_equal(globals[i].name, name, name_length))
            return push_new(m, (PickleObject){.kind = PICKLE_GLOBAL, .global = &globals[i]});
    return error_set(m->err,
                     "%s: its pickle asks for \"%.*s.%.*s\", which no state dict needs (nothing "
                     "was executed); save model.state_dict() alone, or as safetensors",
                     m->name, (int)(module_length < 100 ? module_length : 100), module,
                     (int)(name_length < 100 ? name_length : 100), name);
}

/* GLOBAL: module and name as two lines. */
static int push_global_lines(Machine *m) {
    const char *lines[2];
    size_t lengths[2];
    for (int i = 0; i < 2; i++) {
        lines[i] = (const char *)m->bytes + m->at;
        const char *end = memchr(lines[i], '\n', m->size - m->at);
        if (!end) return fail(m, "it ends in the middle of a name");
        lengths[i] = (size_t)(end - lines[i]);
        m->at += lengths[i] + 1;
    }
    return push_global(m, lines[0], lengths[0], lines[1], lengths[1]);
}

static int push_global_stack(Machine *m) {
    const PickleRef *names;
    TRY(pop(m, 2, &names));
    const PickleObject *module = object_of(m, names[0]), *name = object_of(m, names[1]);
    if (module->kind != PICKLE_TEXT || name->kind != PICKLE_TEXT)
        return fail(m, "it gets a global by something that is not a name");
    return push_global(m, module->text, module->count, name->text, name->count);
}

/* A storage is a persistent id outside of the pickle: a tuple ("storage", type, key, ...). */
static int push_storage(Machine *m) {
    const PickleRef *id;
    TRY(pop(m, 1, &id));
    const PickleObject *tuple = object_of(m, *id);
    if (tuple->kind != PICKLE_TUPLE || tuple->count < 5)
        return fail(m, "it names a storage in an unknown way");
    return push_new(
        m, (PickleObject){.kind = PICKLE_STORAGE, .count = tuple->count, .items = tuple->items});
}

/* REDUCE and NEWOBJ: callable and arguments, in Python a call, here one of the table's meanings or
 * an error. */
static int push_call(Machine *m) {
    const PickleRef *call;
    TRY(pop(m, 2, &call));
    const PickleObject *callable = object_of(m, call[0]), *args = object_of(m, call[1]);
    if (callable->kind != PICKLE_GLOBAL || args->kind != PICKLE_TUPLE)
        return fail(m, "it calls something that is not a function");
    const PickleGlobal *global = callable->global;
    PickleKind first = args->count ? object_of(m, args->items[0])->kind : PICKLE_OTHER;
    size_t needed = global->kind == GLOBAL_TENSOR ? 6 : 7;
    switch (global->kind) {
    case GLOBAL_DICT:
        if (args->count) return fail(m, "it makes an ordered dict from something");
        return push_new(m, (PickleObject){.kind = PICKLE_DICT});
    case GLOBAL_TENSOR:
    case GLOBAL_TYPED_TENSOR:
        if (args->count < needed || first != PICKLE_STORAGE)
            return fail(m, "it rebuilds a tensor from something other than a storage");
        return push_new(m, (PickleObject){.kind = PICKLE_TENSOR,
                                          .count = args->count,
                                          .items = args->items,
                                          .made_by = global});
    case GLOBAL_PARAMETER:
        if (first != PICKLE_TENSOR)
            return fail(m, "it makes a parameter of something that is not a tensor");
        return push(m, args->items[0]);
    case GLOBAL_SHAPE:
        if (first != PICKLE_TUPLE)
            return fail(m, "it makes a shape of something that is not a tuple");
        return push(m, args->items[0]);
    case GLOBAL_OTHER:
        return push(m, REF_OTHER);
    default:
        return fail(m, "it calls a type as if it were a function");
    }
}

/* BUILD: gives an object attributes; those of an ordered dict (its "_metadata") are dropped. */
static int drop_state(Machine *m) {
    const PickleRef *state;
    TRY(pop(m, 1, &state));
    size_t floor = m->mark_count ? m->marks[m->mark_count - 1] : 0;
    if (m->depth == floor || object_of(m, m->stack[m->depth - 1])->kind != PICKLE_DICT)
        return fail(m, "it sets attributes of an object that has none");
    return 0;
}

static int set_mark(Machine *m) {
    if (m->mark_count == m->mark_capacity) {
        if (m->mark_count >= STACK_MAX) return fail(m, "it is nested too deeply");
        void *marks = array_grow(m->marks, &m->mark_capacity, sizeof *m->marks);
        if (!marks) return fail_memory(m);
        m->marks = marks;
    }
    m->marks[m->mark_count++] = m->depth;
    return 0;
}

/* Instructions that push a constant. 1: it was none of them. */
static int step_constant(Machine *m, unsigned char opcode) {
    uint64_t value;
    switch (opcode) {
    case OP_NONE:
        return push(m, REF_OTHER);
    case OP_NEWTRUE:
        return push_int(m, 1);
    case OP_NEWFALSE:
        return push_int(m, 0);
    case OP_BININT1:
    case OP_BININT2:
        TRY(take_number(m, opcode == OP_BININT1 ? 1 : 2, &value));
        return push_int(m, (int64_t)value);
    case OP_BININT:
        TRY(take_number(m, 4, &value));
        return push_int(m, (int32_t)(uint32_t)value);
    case OP_LONG1:
        return push_long(m, 1);
    case OP_LONG4:
        return push_long(m, 4);
    case OP_BINFLOAT:
        TRY(take_number(m, 8, &value));
        return push(m, REF_OTHER);
    case OP_SHORT_BINUNICODE:
    case OP_SHORT_BINSTRING:
        return push_text(m, 1, PICKLE_TEXT);
    case OP_BINUNICODE:
    case OP_BINSTRING:
        return push_text(m, 4, PICKLE_TEXT);
    case OP_BINUNICODE8:
        return push_text(m, 8, PICKLE_TEXT);
    case OP_SHORT_BINBYTES:
        return push_text(m, 1, PICKLE_OTHER);
    case OP_BINBYTES:
        return push_text(m, 4, PICKLE_OTHER);
    case OP_EMPTY_TUPLE:
        return push(m, REF_EMPTY_TUPLE);
    case OP_EMPTY_LIST:
        return push_new(m, (PickleObject){.kind = PICKLE_LIST});
    case OP_EMPTY_DICT:
        return push_new(m, (PickleObject){.kind = PICKLE_DICT});
    default:
        return 1;
    }
}

/* Instructions that combine what is on the stack. 1: it was none of them. */
static int step_combine(Machine *m, unsigned char opcode) {
    const PickleRef *values;
    size_t count = 0;
    switch (opcode) {
    case OP_MARK:
        return set_mark(m);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        count = (size_t)(opcode - OP_TUPLE1 + 1);
        TRY(pop(m, count, &values));
        return push_tuple(m, values, count);
    case OP_TUPLE:
        TRY(pop_mark(m, &values, &count));
        return push_tuple(m, values, count);
    case OP_APPEND:
        TRY(pop(m, 1, &values));
        return append_top(m, PICKLE_LIST, values, 1);
    case OP_APPENDS:
        TRY(pop_mark(m, &values, &count));
        return append_top(m, PICKLE_LIST, values, count);
    case OP_SETITEM:
        TRY(pop(m, 2, &values));
        return append_top(m, PICKLE_DICT, values, 2);
    case OP_SETITEMS:
        TRY(pop_mark(m, &values, &count));
        return append_top(m, PICKLE_DICT, values, count);
    case OP_GLOBAL:
        return push_global_lines(m);
    case OP_STACK_GLOBAL:
        return push_global_stack(m);
    case OP_BINPERSID:
        return push_storage(m);
    case OP_REDUCE:
    case OP_NEWOBJ:
        return push_call(m);
    case OP_BUILD:
        return drop_state(m);
    default:
        return 1;
    }
}

/* The memo and the framing; every other instruction is refused. */
static int step_rest(Machine *m, unsigned char opcode) {
    uint64_t value;
    switch (opcode) {
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        TRY(take_number(m, opcode == OP_BINPUT ? 1 : 4, &value));
        return memo_put(m, value);
    case OP_MEMOIZE:
        return memo_put(m, m->memo_used);
    case OP_BINGET:
        return memo_get(m, 1);
    case OP_LONG_BINGET:
        return memo_get(m, 4);
    case OP_PROTO:
        TRY(take_number(m, 1, &value));
        return value <= 5 ? 0 : fail(m, "it is of a later pickle protocol than 5");
    case OP_FRAME: /* a hint for reading ahead */
        return take_number(m, 8, &value);
    default:
        return error_set(m->err,
                         "%s: pickle byte %zu: instruction 0x%02x, which no state dict needs; save "
                         "model.state_dict() alone, or as safetensors",
                         m->name, m->begin, opcode);
    }
}

static int run(Machine *m) {
    TRY(push_new(m, (PickleObject){.kind = PICKLE_OTHER}));
    TRY(push_new(m, (PickleObject){.kind = PICKLE_TUPLE}));
    m->depth = 0; /* they stay as objects REF_OTHER and REF_EMPTY_TUPLE */
    for (;;) {
        m->begin = m->at;
        const unsigned char *opcode = take(m, 1);
        if (!opcode) return -1;
        if (*opcode == OP_STOP) break;
        int status = step_constant(m, *opcode);
        if (status == 1) status = step_combine(m, *opcode);
        if (status == 1) status = step_rest(m, *opcode);
        if (status != 0) return -1;
    }
    const PickleRef *top;
    TRY(pop(m, 1, &top));
    m->pickle->top = *top;
    return 0;
}

int pickle_read_first(Pickle *pickle, const unsigned char *bytes, size_t size, size_t *used,
                      const char *name, Error *err) {
    *pickle = (Pickle){0};
    if (size > BYTES_MAX) size = BYTES_MAX;
    Machine m = {.bytes = bytes, .size = size, .pickle = pickle, .name = name, .err = err};
    int failed = run(&m);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    *used = m.at;
    if (failed) pickle_free(pickle);
    return failed;
}

int pickle_read(Pickle *pickle, const unsigned char *bytes, size_t size, const char *name,
                Error *err) {
    size_t used;
    *pickle = (Pickle){0};
    if (size > BYTES_MAX)
        return error_set(err, "%s: a pickle of %zu bytes, at most %d expected in a state dict",
                         name, size, BYTES_MAX);
    return pickle_read_first(pickle, bytes, size, &used, name, err);
}

void pickle_free(Pickle *pickle) {
    for (size_t i = 0; i < pickle->count; i++)
        if (pickle->objects[i].capacity) free(pickle->objects[i].items);
    free(pickle->objects);
    *pickle = (Pickle){0};
}
