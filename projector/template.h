/* template.h - texts with gaps, the canvases of infilling.
 *
 *     The ___ is on the ___{2}.
 *
 *   ___       three or more underscores: a gap, whose length is found by trying several
 *   ___{3}    a gap of 3 tokens
 *   <mask>    a gap of 1 token, as in other programs
 *   \___      no gap, but underscores; \\___ is a backslash before a gap, ___\{ a gap before a brace
 *
 * Backslashes elsewhere are text. What is not a gap is fixed: its tokens never change, and in the
 * answer's text it is repeated byte for byte, even where the tokenizer would write it otherwise.
 *
 * White space at a gap. Each piece of text is split into tokens by itself. If it begins with white
 * space, or the template begins with it, its first token begins a word; else it continues the gap's
 * last word ("un___able", "___."). In the answer's text there is white space next to a gap where the
 * template has some, and none where it has none, whatever the gap's own tokens begin with.
 */
#ifndef EASYFIRST_PROJECTOR_TEMPLATE_H
#define EASYFIRST_PROJECTOR_TEMPLATE_H

#include "language/tokenizer.h"

typedef struct TemplatePart {
    char *text; /* of a piece of text; NULL: a gap */
    int tokens; /* of the text; of a gap, its length, 0 if that is not given */
} TemplatePart;

typedef struct Template {
    TemplatePart *parts; /* [count] */
    int count;
    Ids ids;       /* of the texts, end to end */
    int gaps;      /* how many parts are gaps */
    int open_gaps; /* ... of which so many have no length */
    int tokens;    /* of the texts and of the gaps with a length */
} Template;

/* Combinations of lengths that are tried for gaps without a length, unless the caller says how
 * many. */
enum { TEMPLATE_BEAM = 8 };

/* Reads a template and splits its texts into tokens. Errors: no gap, a length that is not a number
 * of at least 1, invalid UTF-8, no memory; the template is then empty. */
int template_read(Template *t, const Tokenizer *tokenizer, const char *text, Error *err);
void template_free(Template *t);

/* The same of one that is after a prompt; `spaced` as in answer_text.h. */
int template_read_after(Template *t, const Tokenizer *tokenizer, bool spaced, const char *text,
                        Error *err);

/* The same without tokens, also of a text without gaps. */
int template_parse(Template *t, const char *text, Error *err);

/* The fewest tokens of a canvas: each open gap has one. */
int template_least(const Template *t);

/* Chooses lengths of all gaps: up to `beam` combinations into lengths [beam, t->gaps], the
 * likeliest first; returns how many (0 if there is none that fits).
 *
 * A canvas has `total` tokens, or, where that is 0, totals are tried: the likeliest ones of a
 * length predictor that looked at the prompt (its logits of 1 to `classes` tokens), or without
 * logits the smallest; `longest` is the limit. What a total leaves for the open gaps is spread evenly over them first, then with
 * one token moved from one gap to another, and so on. With several open gaps about sqrt(beam)
 * totals are tried, each with about as many spreads; with one, `beam` totals. The cost of a beam is
 * that of so many hypotheses. -1: out of memory. */
int template_lengths(const Template *t, int beam, int total, const float *logits, int classes,
                     int longest, int *lengths, Error *err);

/* The length of a canvas whose gaps have these lengths [t->gaps], and the canvas itself: the given
 * tokens, and `mask` in the gaps. */
int template_length(const Template *t, const int *lengths);
void template_canvas(const Template *t, const int *lengths, int32_t mask, int32_t *canvas);

/* The text of a filled canvas, the caller's to free. */
int template_text(const Template *t, const Tokenizer *tokenizer, const int *lengths,
                  const int32_t *tokens, char **text, Error *err);

#endif
