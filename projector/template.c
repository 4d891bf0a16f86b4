#include "projector/template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/memory_stream.h"
#include "language/sentencepiece.h"
#include "projector/answer_text.h"

#define MASK_WORD "<mask>"

enum { LEAST_UNDERSCORES = 3, LONGEST_GAP = 1000000 };

/* ---- Reading. ---- */

static int part_add(Template *t, TemplatePart part, Error *err) {
    if ((t->count & (t->count - 1)) == 0) { /* full: a power of two, or none yet */
        size_t capacity = t->count ? 2 * (size_t)t->count : 1;
        TemplatePart *more = realloc(t->parts, capacity * sizeof *more);
        if (!more) return error_set(err, "out of memory for a template of %d parts", t->count);
        t->parts = more;
    }
    t->parts[t->count++] = part;
    return 0;
}

/* Adds the text of a piece, if any, and begins a new one. */
static int text_add(Template *t, FILE **out, char **text, size_t *size, Error *err) {
    int failed = fclose(*out);
    *out = NULL;
    if (failed) return error_set(err, "out of memory for a template");
    if (*text && **text) {
        if (part_add(t, (TemplatePart){.text = *text}, err)) return -1;
        *text = NULL;
    }
    free(*text);
    *out = memory_stream_open(text, size);
    return *out ? 0 : error_set(err, "out of memory for a template");
}

/* The length "{N}" after a gap, if there is one; moves *at behind it. */
static int gap_length(const Template *t, const char **at, int *length, Error *err) {
    *length = 0;
    if (**at != '{') return 0;
    const char *digits = *at + 1, *end = digits + strspn(digits, "0123456789");
    if (*end == '}' && end > digits) {
        long value = end - digits > 9 ? LONGEST_GAP + 1L : strtol(digits, NULL, 10);
        if (value >= 1 && value <= LONGEST_GAP) {
            *length = (int)value, *at = end + 1;
            return 0;
        }
        return error_set(err, "the template's gap %d has a length of %.*s tokens, 1 to %d expected",
                         t->gaps + 1, (int)(end - digits), digits, LONGEST_GAP);
    }
    return error_set(err,
                     "the template's gap %d is followed by \"%.12s\", a number of tokens expected "
                     "as in ___{3}; a brace that is text is written \\{",
                     t->gaps + 1, *at);
}

static int gap_add(Template *t, int length, Error *err) {
    t->gaps++, t->open_gaps += length == 0, t->tokens += length;
    if (t->tokens > LONGEST_GAP)
        return error_set(err, "the template's gaps have more than %d tokens", LONGEST_GAP);
    return part_add(t, (TemplatePart){.tokens = length}, err);
}

/* Backslashes and underscores at *at: writes what of them is text; whether a gap begins. */
static bool gap_at(const char **at, FILE *out) {
    size_t slashes = strspn(*at, "\\"), underscores = strspn(*at + slashes, "_");
    bool marks = underscores >= LEAST_UNDERSCORES, gap = marks && slashes % 2 == 0;
    fwrite(*at, 1, marks ? slashes / 2 : slashes, out);
    if (!gap) fwrite(*at + slashes, 1, underscores, out);
    *at += slashes + underscores;
    return gap;
}

/* The parts, without tokens. The stream that is left open writes to *piece and *size. */
static int parts_read(Template *t, const char *text, FILE **out, char **piece, size_t *size,
                      Error *err) {
    *out = memory_stream_open(piece, size);
    if (!*out) return error_set(err, "out of memory for a template");
    for (const char *p = text; *p;) {
        int length = 1;
        bool is_mask = !strncmp(p, MASK_WORD, sizeof MASK_WORD - 1);
        if (is_mask) {
            p += sizeof MASK_WORD - 1;
        } else if (*p != '_' && *p != '\\') {
            fputc(*p++, *out);
            continue;
        } else if (!gap_at(&p, *out)) {
            continue;
        } else {
            TRY(gap_length(t, &p, &length, err));
        }
        TRY(text_add(t, out, piece, size, err));
        TRY(gap_add(t, length, err));
        if (p[0] == '\\' && p[1] == '{') p++;
    }
    return text_add(t, out, piece, size, err);
}

/* ---- Tokens. ---- */

/* A character that no piece contains: what follows it is split into tokens as the rest of a
 * word. */
#define WORD_BEFORE "\xF4\x8F\xBF\xBD" /* U+10FFFD */

static size_t first_unknown(const Tokenizer *tokenizer, const Ids *ids) {
    const int32_t unknown = tokenizer_specials(tokenizer)->unknown;
    size_t at = 0;
    while (at < ids->count && ids->ids[at] != unknown) at++;
    return at;
}

/* Whether a text begins with a character that no piece contains. */
static int begins_unknown(const Tokenizer *tokenizer, const char *text, bool *unknown, Error *err) {
    Ids first = {0};
    size_t size = 1;
    while (((unsigned char)text[size] & 0xC0) == 0x80) size++;
    int status = tokenizer_encode(tokenizer, text, size, &first, err);
    *unknown = first_unknown(tokenizer, &first) < first.count;
    ids_free(&first);
    return status;
}

/* The tokens of a text that continues a word. */
static int encode_rest(const Tokenizer *tokenizer, const char *text, Ids *ids, Error *err) {
    size_t size = strlen(text);
    Ids whole = {0};
    bool unknown;
    TRY(begins_unknown(tokenizer, text, &unknown, err));
    char *after = malloc(sizeof WORD_BEFORE + size);
    if (!after) return error_set(err, "out of memory for a template");
    stpcpy(stpcpy(after, WORD_BEFORE), text);
    int status = tokenizer_encode(tokenizer, after, strlen(after), &whole, err);
    free(after);
    /* A text that itself begins with such a character shares one <unk> with the mark. */
    size_t mark = first_unknown(tokenizer, &whole), skip = mark + !unknown;
    if (status == 0 && mark == whole.count) /* bytes know every character */
        status = tokenizer_encode(tokenizer, text, size, ids, err);
    else if (status == 0 && skip < whole.count)
        status = ids_append(ids, whole.ids + skip, whole.count - skip, err);
    ids_free(&whole);
    return status;
}

static bool begins_with_space(const char *text) {
    static const char *const spaces[] = {
        " ", "\t", "\n", "\r", "\v", "\f", "\xC2\xA0", "\xE3\x80\x80", "\xC2\x85", "\xE2\x80\xA8"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (!strncmp(text, spaces[i], strlen(spaces[i]))) return true;
    return false;
}

static int parts_encode(Template *t, const Tokenizer *tokenizer, bool spaced, Error *err) {
    for (int i = 0; i < t->count; i++) {
        TemplatePart *part = &t->parts[i];
        size_t before = t->ids.count;
        if (!part->text) continue;
        if (i > 0 && !begins_with_space(part->text))
            TRY(encode_rest(tokenizer, part->text, &t->ids, err));
        else
            TRY(answer_text_encode(tokenizer, spaced && i == 0, part->text, strlen(part->text),
                                   &t->ids, err));
        part->tokens = (int)(t->ids.count - before);
        t->tokens += part->tokens;
    }
    return 0;
}

static int check_text(const char *text, Error *err) {
    size_t size = strlen(text), valid = utf8_valid_prefix(text, size);
    if (!size) return error_set(err, "the template is empty: there is nothing to fill in");
    if (valid == size) return 0;
    return error_set(err,
                     "template: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8 "
                     "first",
                     valid, (unsigned char)text[valid]);
}

int template_parse(Template *t, const char *text, Error *err) {
    FILE *out = NULL;
    char *piece = NULL;
    size_t size = 0;
    *t = (Template){0};
    TRY(check_text(text, err));
    int status = parts_read(t, text, &out, &piece, &size, err);
    if (out) fclose(out);
    free(piece);
    if (status) template_free(t);
    return status;
}

int template_read_after(Template *t, const Tokenizer *tokenizer, bool spaced, const char *text,
                        Error *err) {
    TRY(template_parse(t, text, err));
    int status = 0;
    if (!t->gaps)
        status = error_set(err, "the template has no gap, so that there is nothing to fill in: "
                                "mark gaps with ___ (or ___{3} for 3 tokens)");
    if (status == 0) status = parts_encode(t, tokenizer, spaced, err);
    if (status) template_free(t);
    return status;
}

int template_read(Template *t, const Tokenizer *tokenizer, const char *text, Error *err) {
    return template_read_after(t, tokenizer, false, text, err);
}

void template_free(Template *t) {
    for (int i = 0; i < t->count; i++) free(t->parts[i].text);
    free(t->parts);
    ids_free(&t->ids);
    *t = (Template){0};
}

/* ---- Lengths. ---- */

int template_least(const Template *t) {
    return t->tokens + t->open_gaps;
}

/* Numbers of tokens of the open gaps together, in the order in which they are tried. */
typedef struct Totals {
    const float *logits; /* of `least` tokens and more; NULL: in ascending order */
    int least, most;
    bool *taken; /* [most - least + 1] */
} Totals;

/* The next one, 0 after the last. */
static int totals_next(Totals *totals) {
    int best = -1;
    for (int i = 0; i <= totals->most - totals->least; i++)
        if (!totals->taken[i] &&
            (best < 0 || (totals->logits && totals->logits[i] > totals->logits[best])))
            best = i;
    if (best < 0) return 0;
    totals->taken[best] = true;
    return totals->least + best;
}

static bool spread_known(const int *spreads, int count, int gaps, const int *spread) {
    for (int i = 0; i < count; i++)
        if (!memcmp(spreads + (size_t)i * (size_t)gaps, spread, (size_t)gaps * sizeof *spread))
            return true;
    return false;
}

/* Up to `most` ways to give `total` tokens to `gaps` gaps, [most, gaps]: evenly, then by moving one
 * token at a time. One more row is used. Returns how many. */
static int spreads_make(int *spreads, int most, int gaps, int total) {
    size_t row = (size_t)gaps;
    for (int i = 0; i < gaps; i++) spreads[i] = total / gaps + (i < total % gaps);
    int count = 1;
    for (int at = 0; at < count && count < most; at++)
        for (int from = gaps - 1; from >= 0; from--) {
            if (spreads[(size_t)at * row + (size_t)from] < 2) continue;
            for (int to = 0; to < gaps && count < most; to++) {
                int *next = spreads + (size_t)count * row;
                memcpy(next, spreads + (size_t)at * row, row * sizeof *next);
                next[from]--, next[to]++;
                count += !spread_known(spreads, count, gaps, next);
            }
        }
    return count;
}

/* A combination: the given lengths, and those of the open gaps. */
static void lengths_put(const Template *t, const int *open, int *lengths) {
    for (int i = 0; i < t->count; i++) {
        const TemplatePart *part = &t->parts[i];
        if (!part->text) *lengths++ = part->tokens ? part->tokens : *open++;
    }
}

static int lengths_fill(const Template *t, int beam, Totals *totals, int *spreads, int *lengths) {
    int count = 0, root = (int)ceil(sqrt(beam));
    int each = t->open_gaps == 1 ? 1 : (beam + root - 1) / root;
    for (int total; count < beam && (total = totals_next(totals));) {
        int left = beam - count;
        int n = spreads_make(spreads, each < left ? each : left, t->open_gaps, total);
        for (int i = 0; i < n; i++, count++)
            lengths_put(t, spreads + (size_t)i * (size_t)t->open_gaps,
                        lengths + (size_t)count * (size_t)t->gaps);
    }
    return count;
}

int template_lengths(const Template *t, int beam, int total, const float *logits, int classes,
                     int longest, int *lengths, Error *err) {
    int least = template_least(t);
    if (least > longest || total > longest || (total && total < least)) return 0;
    if (!t->open_gaps) {
        if (total && total != least) return 0;
        lengths_put(t, NULL, lengths);
        return 1;
    }
    Totals totals = {.least = t->open_gaps, .most = longest - t->tokens};
    if (total) {
        totals.least = totals.most = total - t->tokens;
    } else if (logits && classes >= least) {
        if (classes < longest) totals.most = classes - t->tokens;
        totals.logits = logits + least - 1;
    }
    totals.taken = calloc((size_t)(totals.most - totals.least) + 1, sizeof *totals.taken);
    int *spreads = calloc(((size_t)beam + 1) * (size_t)t->open_gaps, sizeof *spreads);
    int count = totals.taken && spreads
                    ? lengths_fill(t, beam, &totals, spreads, lengths)
                    : error_set(err, "out of memory for the lengths of %d gaps", t->gaps);
    free(totals.taken), free(spreads);
    return count;
}

/* ---- Canvases. ---- */

int template_length(const Template *t, const int *lengths) {
    int length = 0;
    for (int i = 0; i < t->count; i++) length += t->parts[i].text ? t->parts[i].tokens : *lengths++;
    return length;
}

void template_canvas(const Template *t, const int *lengths, int32_t mask, int32_t *canvas) {
    const int32_t *ids = t->ids.ids;
    for (int i = 0; i < t->count; i++) {
        int n = t->parts[i].text ? t->parts[i].tokens : *lengths++;
        for (int k = 0; k < n; k++) *canvas++ = t->parts[i].text ? *ids++ : mask;
    }
}

int template_text(const Template *t, const Tokenizer *tokenizer, const int *lengths,
                  const int32_t *tokens, char **text, Error *err) {
    size_t size;
    FILE *out = memory_stream_open(text, &size);
    int status = out ? 0 : error_set(err, "out of memory for an answer");
    for (int i = 0; i < t->count && status == 0;) {
        if (t->parts[i].text) {
            fputs(t->parts[i].text, out);
            tokens += t->parts[i++].tokens;
            continue;
        }
        int n = 0; /* gaps with nothing between them are one text */
        for (; i < t->count && !t->parts[i].text; i++) n += *lengths++;
        char *gap = NULL;
        status = tokenizer_decode(tokenizer, tokens, (size_t)n, &gap, err);
        if (status == 0) fputs(gap, out);
        free(gap);
        tokens += n;
    }
    if (out && fclose(out) && status == 0) status = error_set(err, "out of memory for an answer");
    if (status) free(*text), *text = NULL;
    return status;
}
