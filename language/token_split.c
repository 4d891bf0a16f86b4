/* token_split.c - see token_split.h. */
#include "language/token_split.h"

#include <stdlib.h>
#include <string.h>
#include <unictype.h>

#include "kernels/names.h"
#include "language/token_json.h"
#include "language/token_normalize.h"

typedef enum StepKind {
    STEP_BYTE_LEVEL,
    STEP_SPLIT,
    STEP_METASPACE,
    STEP_BERT,
    STEP_WHITESPACE,
    STEP_WHITESPACE_SPLIT,
    STEP_PUNCTUATION,
    STEP_DIGITS,
    STEP_DELIMITER,
    STEP_SEQUENCE
} StepKind;
static const char *const step_names[] = {"ByteLevel",        "Split",      "Metaspace",
                                         "BertPreTokenizer", "Whitespace", "WhitespaceSplit",
                                         "Punctuation",      "Digits",     "CharDelimiterSplit",
                                         "Sequence",         NULL};

typedef enum Behavior { REMOVED, ISOLATED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT } Behavior;
static const char *const behavior_names[] = {
    "Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext", NULL};

typedef enum Prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } Prepend;
static const char *const prepend_names[] = {"always", "first", "never", NULL};

enum { STEPS_MOST = 32 };

struct TokenSplitStep {
    StepKind kind;
    TokenPattern *pattern; /* ByteLevel, Split, Whitespace */
    char *string;          /* Split: instead of a pattern; Metaspace: for a space */
    Behavior behavior;
    bool invert;       /* what matches is kept, what is between is the delimiter */
    bool prefix_space; /* ByteLevel */
    bool split;        /* Metaspace */
    bool single;       /* Digits: each on its own */
    Prepend prepend;
    uint32_t delimiter;
};

/* ---- Reading. ---- */

static const char GPT2_WORDS[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static int copy(char **to, const char *text, Error *err) {
    *to = strdup(text);
    return *to ? 0 : error_set(err, "out of memory for a pre-tokenizer");
}

static int read_behavior(TokenSplitStep *step, const json_t *part, Error *err) {
    const char *name = behavior_names[ISOLATED];
    TRY(token_json_text(part, "behavior", &name, err));
    int behavior = names_find(behavior_names, name);
    if (behavior < 0) return error_set(err, "behavior \"%.60s\" is not supported", name);
    step->behavior = (Behavior)behavior;
    return 0;
}

static int read_byte_level(TokenSplitStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                       NULL};
    bool regex = true;
    TRY(token_json_keys(part, "pre_tokenizer ByteLevel", keys, err));
    step->prefix_space = true;
    step->behavior = ISOLATED;
    TRY(token_json_flag(part, "add_prefix_space", &step->prefix_space, err));
    TRY(token_json_flag(part, "use_regex", &regex, err));
    return regex ? token_pattern_open(&step->pattern, GPT2_WORDS, err) : 0;
}

static int read_split(TokenSplitStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    const char *text;
    bool regex;
    TRY(token_json_keys(part, "pre_tokenizer Split", keys, err));
    TRY(token_json_pattern(part, &text, &regex, err));
    TRY(read_behavior(step, part, err));
    TRY(token_json_flag(part, "invert", &step->invert, err));
    if (regex) return token_pattern_open(&step->pattern, text, err);
    return *text ? copy(&step->string, text, err) : error_set(err, "Split: an empty pattern");
}

static int read_metaspace(TokenSplitStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {
        "type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep", NULL};
    const char *mark = NULL, *scheme = prepend_names[PREPEND_ALWAYS];
    bool prefix = true;
    TRY(token_json_keys(part, "pre_tokenizer Metaspace", keys, err));
    TRY(token_json_text(part, "replacement", &mark, err));
    TRY(token_json_text(part, "prepend_scheme", &scheme, err));
    TRY(token_json_flag(part, "add_prefix_space", &prefix, err));
    step->split = true;
    TRY(token_json_flag(part, "split", &step->split, err));
    size_t length = 0;
    if (mark && *mark) token_character(mark, &length);
    if (!length || mark[length])
        return error_set(err, "Metaspace: \"replacement\" is not a character");
    int prepend = names_find(prepend_names, scheme);
    if (prepend < 0) return error_set(err, "prepend_scheme \"%.60s\" is not supported", scheme);
    step->prepend = prefix ? (Prepend)prepend : PREPEND_NEVER;
    step->behavior = WITH_NEXT;
    return copy(&step->string, mark, err);
}

static int read_step(TokenSplitStep *step, const json_t *part, Error *err) {
    static const char *const type_only[] = {"type", NULL};
    static const char *const punctuation[] = {"type", "behavior", NULL};
    static const char *const digits[] = {"type", "individual_digits", NULL};
    static const char *const delimiter[] = {"type", "delimiter", NULL};
    const char *text = "";
    size_t length = 0;
    switch (step->kind) {
    case STEP_BYTE_LEVEL:
        return read_byte_level(step, part, err);
    case STEP_SPLIT:
        return read_split(step, part, err);
    case STEP_METASPACE:
        return read_metaspace(step, part, err);
    case STEP_PUNCTUATION:
        TRY(token_json_keys(part, "pre_tokenizer Punctuation", punctuation, err));
        return read_behavior(step, part, err);
    case STEP_DIGITS:
        TRY(token_json_keys(part, "pre_tokenizer Digits", digits, err));
        TRY(token_json_flag(part, "individual_digits", &step->single, err));
        step->behavior = step->single ? ISOLATED : CONTIGUOUS;
        return 0;
    case STEP_DELIMITER:
        TRY(token_json_keys(part, "pre_tokenizer CharDelimiterSplit", delimiter, err));
        TRY(token_json_text(part, "delimiter", &text, err));
        if (*text) step->delimiter = token_character(text, &length);
        step->behavior = REMOVED;
        return length && !text[length] ? 0 : error_set(err, "\"delimiter\" is not a character");
    case STEP_WHITESPACE:
        step->behavior = REMOVED;
        step->invert = true;
        TRY(token_json_keys(part, "pre_tokenizer", type_only, err));
        return token_pattern_open(&step->pattern,
                                  "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+", err);
    default:
        step->behavior = REMOVED;
        return token_json_keys(part, "pre_tokenizer", type_only, err);
    }
}

static int read_part(TokenSplitter *s, const json_t *part, int depth, Error *err) {
    static const char *const keys[] = {"type", "pretokenizers", NULL};
    int kind = token_json_type(part, "pre_tokenizer", step_names, err);
    if (kind < 0) return -1;
    if (kind == STEP_SEQUENCE) {
        const json_t *list = json_object_get(part, "pretokenizers");
        TRY(token_json_keys(part, "pre_tokenizer Sequence", keys, err));
        if (!json_is_array(list) || depth > 8)
            return error_set(err, "pre_tokenizer Sequence: expected a list of pre-tokenizers");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(read_part(s, json_array_get(list, i), depth + 1, err));
        return 0;
    }
    if (s->count == STEPS_MOST)
        return error_set(err, "pre_tokenizer: more than %d steps", STEPS_MOST);
    TokenSplitStep *step = &s->steps[s->count++];
    step->kind = (StepKind)kind;
    if (kind == STEP_BYTE_LEVEL) s->byte_level = true;
    return read_step(step, part, err);
}

int token_splitter_open(TokenSplitter *s, const json_t *part, Error *err) {
    *s = (TokenSplitter){0};
    if (!part || json_is_null(part)) return 0;
    s->steps = calloc(STEPS_MOST, sizeof *s->steps);
    if (!s->steps) return error_set(err, "out of memory for a pre-tokenizer");
    return read_part(s, part, 0, err);
}

void token_splitter_close(TokenSplitter *s) {
    for (int i = 0; i < s->count; i++) {
        free(s->steps[i].string);
        token_pattern_close(s->steps[i].pattern);
    }
    free(s->steps);
    *s = (TokenSplitter){0};
}

/* ---- Dividing: a text is spans that alternately match and do not. ---- */

typedef struct Cutter {
    const TokenSplitStep *step;
    TokenMatcher *matcher;
    const char *text;
    size_t size;
    bool first, mapped; /* the text's piece; its parts become bytes' characters */
    TokenPieces *out;
    size_t start, end; /* the piece that is being put together */
    bool open, before; /* there is one; the last span matched */
    bool (*is)(uint32_t c);
    Error *err;
} Cutter;

static int emit(Cutter *c, size_t start, size_t end) {
    bool first = c->first && start == 0;
    if (!c->mapped) return token_pieces_add(c->out, c->text + start, end - start, first, c->err);
    size_t at = c->out->text.size;
    TRY(token_text_append_mapped(&c->out->text, c->text + start, end - start, c->err));
    return token_pieces_close(c->out, at, first, c->err);
}

static int flush(Cutter *c) {
    if (!c->open) return 0;
    c->open = false;
    return emit(c, c->start, c->end);
}

static int open_piece(Cutter *c, size_t start, size_t end) {
    TRY(flush(c));
    c->start = start, c->end = end, c->open = true;
    return 0;
}

/* Whether a span joins the piece before it. With the next: a match begins a piece that what follows
 * joins; of matches in a row each but the last is a piece. */
static bool joins(const Cutter *c, bool match) {
    if (!c->open) return false;
    switch (c->step->behavior) {
    case CONTIGUOUS:
        return match == c->before;
    case WITH_PREVIOUS:
        return match && !c->before;
    case WITH_NEXT:
        return !match && c->before;
    default:
        return false;
    }
}

static int span(Cutter *c, size_t start, size_t end, bool match) {
    match ^= c->step->invert;
    if (c->step->behavior == ISOLATED) return emit(c, start, end);
    if (c->step->behavior == REMOVED) return match ? 0 : emit(c, start, end);
    int status = 0;
    if (joins(c, match))
        c->end = end;
    else
        status = open_piece(c, start, end);
    c->before = match;
    return status;
}

static int cut_by_pattern(Cutter *c) {
    size_t done = 0, from = 0, start, end;
    while (from < c->size) {
        TRY(token_pattern_find(c->step->pattern, c->matcher, c->text, c->size, from, &start, &end,
                               c->err));
        if (start == SIZE_MAX) break;
        if (done < start) TRY(span(c, done, start, false));
        if (start < end) TRY(span(c, start, end, true));
        done = from = end;
        if (start == end && from < c->size) {
            size_t length;
            token_character(c->text + from, &length);
            from += length;
        }
    }
    if (done < c->size) TRY(span(c, done, c->size, false));
    return flush(c);
}

static int cut_by_string(Cutter *c, const char *string) {
    size_t done = 0, length = strlen(string);
    const char *found;
    while ((found = memmem(c->text + done, c->size - done, string, length)) != NULL) {
        size_t start = (size_t)(found - c->text);
        if (done < start) TRY(span(c, done, start, false));
        TRY(span(c, start, start + length, true));
        done = start + length;
    }
    if (done < c->size) TRY(span(c, done, c->size, false));
    return flush(c);
}

static int cut_by_character(Cutter *c) {
    size_t done = 0;
    for (size_t i = 0, length; i < c->size; i += length) {
        uint32_t character = token_character(c->text + i, &length);
        bool match = c->is ? c->is(character) : character == c->step->delimiter;
        if (!match) continue;
        if (done < i) TRY(span(c, done, i, false));
        TRY(span(c, i, i + length, true));
        done = i + length;
    }
    if (done < c->size) TRY(span(c, done, c->size, false));
    return flush(c);
}

static bool is_punctuation(uint32_t c) {
    if (c < 0x80)
        return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
               (c >= 0x7B && c <= 0x7E);
    return uc_is_general_category(c, UC_PUNCTUATION);
}

static bool is_number(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    return uc_is_general_category(c, UC_NUMBER);
}

/* BERT's: words between white space, in which punctuation is on its own. */
static int cut_bert(Cutter *c) {
    size_t word = 0;
    for (size_t i = 0, length; i < c->size; i += length) {
        uint32_t character = token_character(c->text + i, &length);
        bool space = token_is_space(character);
        if (!space && !is_punctuation(character)) continue;
        TRY(emit(c, word, i));
        if (!space) TRY(emit(c, i, i + length));
        word = i + length;
    }
    return emit(c, word, c->size);
}

/* ---- Steps. ---- */

/* The text of a piece with a space in front; *room holds it. */
static int with_prefix(Cutter *c, TokenText *room) {
    if (c->size == 0 || c->text[0] == ' ') return 0;
    TRY(token_text_set(room, " ", 1, c->err));
    TRY(token_text_append(room, c->text, c->size, c->err));
    c->text = room->bytes, c->size = room->size;
    return 0;
}

static int with_marks(Cutter *c, TokenText *room) {
    const char *mark = c->step->string;
    size_t length = strlen(mark);
    room->size = 0;
    bool begins = c->text[0] == ' ' || (c->size >= length && memcmp(c->text, mark, length) == 0);
    Prepend when = c->step->prepend;
    if (!begins && (when == PREPEND_ALWAYS || (when == PREPEND_FIRST && c->first)))
        TRY(token_text_append(room, mark, length, c->err));
    TRY(token_replace(c->text, c->size, " ", NULL, c->matcher, mark, room, c->err));
    c->text = room->bytes, c->size = room->size;
    return 0;
}

static int cut(Cutter *c, TokenText *room) {
    const TokenSplitStep *step = c->step;
    switch (step->kind) {
    case STEP_BYTE_LEVEL:
        if (step->prefix_space) TRY(with_prefix(c, room));
        c->mapped = true;
        return step->pattern ? cut_by_pattern(c) : emit(c, 0, c->size);
    case STEP_METASPACE:
        TRY(with_marks(c, room));
        return step->split ? cut_by_string(c, step->string) : emit(c, 0, c->size);
    case STEP_SPLIT:
    case STEP_WHITESPACE:
        return step->pattern ? cut_by_pattern(c) : cut_by_string(c, step->string);
    case STEP_BERT:
        return cut_bert(c);
    case STEP_WHITESPACE_SPLIT:
        c->is = token_is_space;
        return cut_by_character(c);
    case STEP_PUNCTUATION:
        c->is = is_punctuation;
        return cut_by_character(c);
    case STEP_DIGITS:
        c->is = is_number;
        return cut_by_character(c);
    case STEP_DELIMITER:
        return cut_by_character(c);
    case STEP_SEQUENCE:
        break; /* its steps are in the list */
    }
    return 0;
}

static int step_apply(const TokenSplitStep *step, TokenMatcher *matcher, const TokenPieces *in,
                      TokenPieces *out, TokenText *room, Error *err) {
    token_pieces_clear(out);
    for (size_t i = 0; i < in->count; i++) {
        const TokenPiece *piece = &in->list[i];
        if (piece->id >= 0) {
            TRY(token_pieces_add_id(out, piece->id, err));
            continue;
        }
        Cutter c = {.step = step,
                    .matcher = matcher,
                    .text = in->text.bytes + piece->start,
                    .size = piece->size,
                    .first = piece->first,
                    .out = out,
                    .err = err};
        TRY(cut(&c, room));
    }
    return 0;
}

int token_split(const TokenSplitter *s, TokenMatcher *matcher, TokenPieces *pieces,
                TokenPieces *spare, Error *err) {
    TokenText room = {0};
    int status = 0;
    for (int i = 0; status == 0 && i < s->count; i++) {
        status = step_apply(&s->steps[i], matcher, pieces, spare, &room, err);
        if (status == 0) token_pieces_swap(pieces, spare);
    }
    token_text_free(&room);
    return status;
}
