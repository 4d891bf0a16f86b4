/* token_decode.c - see token_decode.h. */
#include "language/token_decode.h"

#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"
#include "language/token_json.h"
#include "language/token_normalize.h"

typedef enum StepKind {
    STEP_BYTE_LEVEL,
    STEP_METASPACE,
    STEP_WORDPIECE,
    STEP_BPE,
    STEP_BYTE_FALLBACK,
    STEP_FUSE,
    STEP_STRIP,
    STEP_REPLACE,
    STEP_SEQUENCE
} StepKind;
static const char *const step_names[] = {"ByteLevel",    "Metaspace", "WordPiece", "BPEDecoder",
                                         "ByteFallback", "Fuse",      "Strip",     "Replace",
                                         "Sequence",     NULL};

enum { STEPS_MOST = 32 };

struct TokenDecodeStep {
    StepKind kind;
    char *string; /* what is looked for: Metaspace's mark, prefix, suffix, Strip's content */
    char *with;   /* Replace */
    TokenPattern *pattern; /* Replace: instead of a string */
    int64_t start, stop;   /* Strip */
    bool flag;             /* Metaspace: the first token loses its marks; WordPiece: cleanup */
};

/* ---- Reading. ---- */

static int copy(char **to, const char *text, Error *err) {
    *to = strdup(text);
    return *to ? 0 : error_set(err, "out of memory for a decoder");
}

static int read_metaspace(TokenDecodeStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {
        "type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep", NULL};
    const char *mark = "", *scheme = "always";
    bool prefix = true;
    TRY(token_json_keys(part, "decoder Metaspace", keys, err));
    TRY(token_json_text(part, "replacement", &mark, err));
    TRY(token_json_text(part, "prepend_scheme", &scheme, err));
    TRY(token_json_flag(part, "add_prefix_space", &prefix, err));
    if (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 &&
        strcmp(scheme, "never") != 0)
        return error_set(err, "prepend_scheme \"%.60s\" is not supported", scheme);
    if (!*mark) return error_set(err, "Metaspace: \"replacement\" is not a character");
    step->flag = prefix && strcmp(scheme, "never") != 0;
    return copy(&step->string, mark, err);
}

static int read_replace(TokenDecodeStep *step, const json_t *part, Error *err) {
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    const char *pattern, *with = NULL;
    bool regex;
    TRY(token_json_keys(part, "decoder Replace", keys, err));
    TRY(token_json_pattern(part, &pattern, &regex, err));
    TRY(token_json_text(part, "content", &with, err));
    if (!with || !*pattern) return error_set(err, "Replace: expected a pattern and a \"content\"");
    TRY(copy(&step->with, with, err));
    return regex ? token_pattern_open(&step->pattern, pattern, err)
                 : copy(&step->string, pattern, err);
}

static int read_step(TokenDecodeStep *step, const json_t *part, Error *err) {
    static const char *const type_only[] = {"type", NULL};
    static const char *const byte_level[] = {"type", "add_prefix_space", "trim_offsets",
                                             "use_regex", NULL};
    static const char *const wordpiece[] = {"type", "prefix", "cleanup", NULL};
    static const char *const bpe[] = {"type", "suffix", NULL};
    static const char *const strip[] = {"type", "content", "start", "stop", NULL};
    const char *text = "";
    switch (step->kind) {
    case STEP_BYTE_LEVEL:
        return token_json_keys(part, "decoder ByteLevel", byte_level, err);
    case STEP_METASPACE:
        return read_metaspace(step, part, err);
    case STEP_REPLACE:
        return read_replace(step, part, err);
    case STEP_WORDPIECE:
        text = "##", step->flag = true;
        TRY(token_json_keys(part, "decoder WordPiece", wordpiece, err));
        TRY(token_json_text(part, "prefix", &text, err));
        TRY(token_json_flag(part, "cleanup", &step->flag, err));
        return copy(&step->string, text, err);
    case STEP_BPE:
        text = "</w>";
        TRY(token_json_keys(part, "decoder BPEDecoder", bpe, err));
        TRY(token_json_text(part, "suffix", &text, err));
        return *text ? copy(&step->string, text, err) : error_set(err, "BPEDecoder: empty suffix");
    case STEP_STRIP:
        TRY(token_json_keys(part, "decoder Strip", strip, err));
        TRY(token_json_text(part, "content", &text, err));
        TRY(token_json_count(part, "start", &step->start, err));
        TRY(token_json_count(part, "stop", &step->stop, err));
        return *text ? copy(&step->string, text, err) : error_set(err, "Strip: empty content");
    default:
        return token_json_keys(part, "decoder", type_only, err);
    }
}

static int read_part(TokenDecoder *d, const json_t *part, int depth, Error *err) {
    static const char *const keys[] = {"type", "decoders", NULL};
    int kind = token_json_type(part, "decoder", step_names, err);
    if (kind < 0) return -1;
    if (kind == STEP_SEQUENCE) {
        const json_t *list = json_object_get(part, "decoders");
        TRY(token_json_keys(part, "decoder Sequence", keys, err));
        if (!json_is_array(list) || depth > 8)
            return error_set(err, "decoder Sequence: expected a list of decoders");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(read_part(d, json_array_get(list, i), depth + 1, err));
        return 0;
    }
    if (d->count == STEPS_MOST) return error_set(err, "decoder: more than %d steps", STEPS_MOST);
    TokenDecodeStep *step = &d->steps[d->count++];
    step->kind = (StepKind)kind;
    if (kind == STEP_BYTE_LEVEL) d->byte_level = true;
    return read_step(step, part, err);
}

int token_decoder_open(TokenDecoder *d, const json_t *part, Error *err) {
    *d = (TokenDecoder){0};
    if (!part || json_is_null(part)) return 0;
    d->present = true;
    d->steps = calloc(STEPS_MOST, sizeof *d->steps);
    if (!d->steps) return error_set(err, "out of memory for a decoder");
    return read_part(d, part, 0, err);
}

void token_decoder_close(TokenDecoder *d) {
    for (int i = 0; i < d->count; i++) {
        free(d->steps[i].string);
        free(d->steps[i].with);
        token_pattern_close(d->steps[i].pattern);
    }
    free(d->steps);
    *d = (TokenDecoder){0};
}

/* ---- Steps on all tokens. ---- */

/* The bytes of all tokens; a token with another character than bytes have is text. */
static int byte_level(const TokenPieces *in, TokenPieces *out, Error *err) {
    TokenText bytes = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < in->count; i++) {
        const char *text = in->text.bytes + in->list[i].start;
        size_t size = in->list[i].size, before = bytes.size, length;
        int byte = 0;
        for (size_t k = 0; status == 0 && byte >= 0 && k < size; k += length) {
            byte = token_byte_of(token_character(text + k, &length));
            if (byte >= 0) status = token_text_append(&bytes, (char[]){(char)byte}, 1, err);
        }
        if (byte >= 0 || status) continue;
        bytes.size = before;
        status = token_text_append(&bytes, text, size, err);
    }
    if (status == 0) status = token_text_append_lossy(&out->text, bytes.bytes, bytes.size, err);
    token_text_free(&bytes);
    return status ? -1 : token_pieces_end(out, 0, err);
}

/* The byte of a token like <0x0A>, -1 if it is another one. */
static int byte_token(const char *text, size_t size) {
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4])
        return -1;
    const char *high = strchr(digits, text[3]), *low = strchr(digits, text[4]);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

/* Bytes in a row as text, or U+FFFD for each of them if they are none. */
static int flush_bytes(TokenText *bytes, TokenPieces *out, Error *err) {
    size_t start = out->text.size;
    if (bytes->size == 0) return 0;
    if (utf8_valid_prefix(bytes->bytes, bytes->size) == bytes->size)
        TRY(token_text_append(&out->text, bytes->bytes, bytes->size, err));
    else
        for (size_t i = 0; i < bytes->size; i++)
            TRY(token_text_append_character(&out->text, 0xFFFD, err));
    bytes->size = 0;
    return token_pieces_end(out, start, err);
}

static int append_token(const TokenPieces *in, size_t i, TokenPieces *out, Error *err) {
    size_t start = out->text.size;
    TRY(token_text_append(&out->text, in->text.bytes + in->list[i].start, in->list[i].size, err));
    return token_pieces_end(out, start, err);
}

static int byte_fallback(const TokenPieces *in, TokenPieces *out, Error *err) {
    TokenText bytes = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < in->count; i++) {
        int byte = byte_token(in->text.bytes + in->list[i].start, in->list[i].size);
        if (byte >= 0) {
            status = token_text_append(&bytes, (char[]){(char)byte}, 1, err);
            continue;
        }
        status = flush_bytes(&bytes, out, err);
        if (status == 0) status = append_token(in, i, out, err);
    }
    if (status == 0) status = flush_bytes(&bytes, out, err);
    token_text_free(&bytes);
    return status;
}

/* ---- Steps on each token. ---- */

static int clean_up(TokenText *text, Error *err) {
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    TokenText spare = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < sizeof pairs / sizeof pairs[0]; i++) {
        spare.size = 0;
        status = token_replace(text->bytes, text->size, pairs[i][0], NULL, NULL, pairs[i][1],
                               &spare, err);
        TokenText swap = *text;
        *text = spare;
        spare = swap;
    }
    token_text_free(&spare);
    return status;
}

static int wordpiece(const TokenDecodeStep *step, const char *text, size_t size, size_t i,
                     TokenText *out, Error *err) {
    TokenText token = {0};
    size_t prefix = strlen(step->string);
    bool goes_on = i > 0 && size >= prefix && memcmp(text, step->string, prefix) == 0;
    int status = i > 0 && !goes_on ? token_text_append(&token, " ", 1, err) : 0;
    if (goes_on) text += prefix, size -= prefix;
    if (status == 0) status = token_text_append(&token, text, size, err);
    if (status == 0 && step->flag && token.size) status = clean_up(&token, err);
    if (status == 0) status = token_text_append(out, token.bytes, token.size, err);
    token_text_free(&token);
    return status;
}

static int strip(const TokenDecodeStep *step, const char *text, size_t size, TokenText *out,
                 Error *err) {
    size_t length = strlen(step->string);
    for (int64_t i = 0; i < step->start && size >= length; i++) {
        if (memcmp(text, step->string, length) != 0) break;
        text += length, size -= length;
    }
    for (int64_t i = 0; i < step->stop && size >= length; i++) {
        if (memcmp(text + size - length, step->string, length) != 0) break;
        size -= length;
    }
    return token_text_append(out, text, size, err);
}

static int each(const TokenDecodeStep *step, TokenMatcher *matcher, const TokenPieces *in,
                TokenPieces *out, Error *err) {
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.bytes + in->list[i].start;
        size_t size = in->list[i].size, start = out->text.size;
        bool last = i + 1 == in->count;
        int status = 0;
        if (step->kind == STEP_WORDPIECE)
            status = wordpiece(step, text, size, i, &out->text, err);
        else if (step->kind == STEP_STRIP)
            status = strip(step, text, size, &out->text, err);
        else if (step->kind == STEP_REPLACE)
            status = token_replace(text, size, step->string, step->pattern, matcher, step->with,
                                   &out->text, err);
        else if (step->kind == STEP_METASPACE)
            status = token_replace(text, size, step->string, NULL, NULL,
                                   i == 0 && step->flag ? "" : " ", &out->text, err);
        else
            status = token_replace(text, size, step->string, NULL, NULL, last ? "" : " ",
                                   &out->text, err);
        if (status) return -1;
        TRY(token_pieces_end(out, start, err));
    }
    return 0;
}

static int step_apply(const TokenDecodeStep *step, TokenMatcher *matcher, const TokenPieces *in,
                      TokenPieces *out, Error *err) {
    token_pieces_clear(out);
    switch (step->kind) {
    case STEP_BYTE_LEVEL:
        return byte_level(in, out, err);
    case STEP_BYTE_FALLBACK:
        return byte_fallback(in, out, err);
    case STEP_FUSE:
        for (size_t i = 0; i < in->count; i++)
            TRY(token_text_append(&out->text, in->text.bytes + in->list[i].start, in->list[i].size,
                                  err));
        return token_pieces_end(out, 0, err);
    default:
        return each(step, matcher, in, out, err);
    }
}

int token_decode(const TokenDecoder *d, TokenMatcher *matcher, TokenPieces *tokens,
                 TokenPieces *spare, TokenText *out, Error *err) {
    for (int i = 0; i < d->count; i++) {
        TRY(step_apply(&d->steps[i], matcher, tokens, spare, err));
        token_pieces_swap(tokens, spare);
    }
    for (size_t i = 0; i < tokens->count; i++) {
        if (i > 0 && !d->present) TRY(token_text_append(out, " ", 1, err));
        TRY(token_text_append(out, tokens->text.bytes + tokens->list[i].start, tokens->list[i].size,
                              err));
    }
    return 0;
}
