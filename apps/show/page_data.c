#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/show/page_parts.h"
#include "apps/cli/report.h"
#include "apps/show/text.h"
#include "data/files/json_memory.h"

enum { DATA_DIGITS = 5, MASK_INDEX = -1 };
static const double least_score = -99.0; /* less likely tokens are not shown */

/* The texts that cells refer to by index. */
typedef struct Pieces {
    json_t *list;  /* of the texts */
    json_t *index; /* text: its index in the list */
} Pieces;

/* NULL: out of memory, as everything here. */
static json_t *piece_index(const Pieces *pieces, const char *piece) {
    char *text = harmless_text(piece);
    if (!text) return NULL;
    json_t *index = json_incref(json_object_get(pieces->index, text));
    if (!index) {
        index = json_integer((json_int_t)json_array_size(pieces->list));
        if (json_array_append_new(pieces->list, json_string(text)) ||
            json_object_set(pieces->index, text, index))
            json_decref(index), index = NULL;
    }
    free(text);
    return index;
}

/* NaN becomes the minimum, too. */
static json_t *score_number(double score) {
    return json_real(score > 0 ? 0 : score > least_score ? score : least_score);
}

/* ---- Steps. ---- */

/* Whether a cell is unchanged since the step before; `before` is NULL in the first. */
static bool cell_same(const TraceEntry *e, const TraceEntry *before) {
    if (!before || e->masked != before->masked ||
        e->alternative_count != before->alternative_count || e->proposal != before->proposal ||
        e->proposal_score != before->proposal_score)
        return false;
    if (!e->masked && (e->id != before->id || e->score != before->score)) return false;
    for (int i = 0; i < e->alternative_count; i++)
        if (e->alternatives[i].id != before->alternatives[i].id ||
            e->alternatives[i].score != before->alternatives[i].score)
            return false;
    return true;
}

/* A proposed token's text: what is written has the text that it is shown with. */
static json_t *proposed_index(const Pieces *pieces, const TraceEntry *e, int32_t id,
                              const char *piece) {
    return piece_index(pieces, !e->masked && id == e->id ? e->piece : piece);
}

static json_t *likely_json(const TraceEntry *e, const Pieces *pieces) {
    json_t *list = json_array();
    int bad =
        json_array_append_new(list, proposed_index(pieces, e, e->proposal, e->proposal_piece)) ||
        json_array_append_new(list, score_number(e->proposal_score));
    for (int i = 0; !bad && i < e->alternative_count; i++)
        if (e->alternatives[i].id != e->proposal)
            bad = json_array_append_new(list, proposed_index(pieces, e, e->alternatives[i].id,
                                                             e->alternatives[i].piece)) ||
                  json_array_append_new(list, score_number(e->alternatives[i].score));
    if (!bad) return list;
    json_decref(list);
    return NULL;
}

static json_t *cell_json(const TraceEntry *e, int position, const Pieces *pieces) {
    json_t *piece = e->masked ? json_integer(MASK_INDEX) : piece_index(pieces, e->piece);
    return json_pack("[i, o, o, o]", position, piece,
                     e->masked ? json_integer(0) : score_number(e->score), likely_json(e, pieces));
}

static json_t *step_json(const TraceHypothesis *h, int step, const Pieces *pieces) {
    const TraceEntry *now = trace_entries(h, step);
    const TraceEntry *before = step ? trace_entries(h, step - 1) : NULL;
    json_t *list = json_array();
    int bad = json_array_append_new(list, json_integer(h->evaluated[step] ? 1 : 0));
    for (int i = 0; !bad && i < h->length; i++)
        if (!cell_same(&now[i], before ? &before[i] : NULL))
            bad = json_array_append_new(list, cell_json(&now[i], i, pieces));
    if (!bad) return list;
    json_decref(list);
    return NULL;
}

static json_t *steps_json(const TraceHypothesis *h, const Pieces *pieces) {
    json_t *list = json_array();
    for (int s = 0; list && s < h->steps; s++)
        if (json_array_append_new(list, step_json(h, s, pieces))) json_decref(list), list = NULL;
    return list;
}

/* ---- Hypotheses. ---- */

static json_t *map_json(const float *map, int patches) {
    json_t *list = json_array();
    for (int k = 0; list && k < patches; k++)
        if (json_array_append_new(list, json_integer((json_int_t)lround(1e6 * (double)map[k]))))
            json_decref(list), list = NULL;
    return list;
}

static json_t *attention_json(const TraceHypothesis *h, int patches) {
    json_t *list = json_array();
    for (int i = 0; list && i < h->length; i++)
        if (json_array_append_new(list,
                                  map_json(h->attention + (size_t)i * (size_t)patches, patches)))
            json_decref(list), list = NULL;
    return list;
}

static json_t *harmless_json(char *text) {
    json_t *json = text ? json_string(text) : NULL;
    free(text);
    return json;
}

static json_t *fixed_json(const TraceHypothesis *h) {
    json_t *list = json_array();
    for (int i = 0; list && i < h->length; i++)
        if (h->fixed[i] && json_array_append_new(list, json_integer(i)))
            json_decref(list), list = NULL;
    return list;
}

static json_t *hypothesis_json(const TraceHypothesis *h, int patches, const Pieces *pieces) {
    json_t *o =
        json_pack("{s:o, s:i, s:i, s:o, s:i, s:o}", "text", harmless_json(harmless_text(h->text)),
                  "length", h->length, "sample", h->sample, "score", score_number(h->score),
                  "evaluations", h->evaluations, "steps", steps_json(h, pieces));
    if (o && h->fixed && json_object_set_new(o, "fixed", fixed_json(h))) json_decref(o), o = NULL;
    if (o && h->attention && json_object_set_new(o, "attention", attention_json(h, patches)))
        json_decref(o), o = NULL;
    return o;
}

/* ---- The whole. ---- */

char *page_name(const char *path, int folders) {
    size_t begin = strlen(path), end = begin;
    while (end > 0 && path[end - 1] == '/') end--; /* a folder's name may end in a slash */
    for (begin = end; begin > 0; begin--)
        if (path[begin - 1] == '/' && folders-- == 0) break;
    char *name = strndup(path + begin, end - begin), *text = name ? harmless_text(name) : NULL;
    free(name);
    return text;
}

static json_t *geometry_json(const TraceGeometry *p) {
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "width", p->width, "height",
                     p->height, "size", p->size, "grid", p->grid, "left", p->map.left, "top",
                     p->map.top, "scale_x", p->map.scale_x, "scale_y", p->map.scale_y);
}

static json_t *data_json(const Trace *trace, const Pieces *pieces) {
    int evaluations = 0, patches = trace->geometry.grid * trace->geometry.grid, bad = 0;
    json_t *o = json_object(), *hypotheses = json_array();
    for (int i = 0; !bad && i < trace->count; i++) {
        evaluations += trace->hypotheses[i].evaluations;
        bad = json_array_append_new(hypotheses,
                                    hypothesis_json(&trace->hypotheses[i], patches, pieces));
    }
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)trace->seed);
#define SET(name, value) bad |= json_object_set_new(o, name, value)
    SET("hypotheses", hypotheses);
    if (trace->image) SET("image", harmless_json(page_name(trace->image, 0)));
    if (trace->model) SET("model", harmless_json(page_name(trace->model, 1)));
    SET("question", harmless_json(harmless_text(trace_heading(trace))));
    if (trace->answer_template)
        SET("template", harmless_json(harmless_text(trace->answer_template)));
    SET("prompt", json_boolean(trace->is_prompt));
    SET("strategy", harmless_json(harmless_text(trace->strategy)));
    SET("seed", json_string(seed));
    SET("evaluations", json_integer(evaluations));
    SET("prompt_tokens", json_integer(trace->prompt_tokens));
    if (trace->dropped_tokens) SET("dropped_tokens", json_integer(trace->dropped_tokens));
    SET("best", json_integer(trace->best));
    SET("pieces", json_incref(pieces->list));
    if (trace->geometry.width) SET("geometry", geometry_json(&trace->geometry));
#undef SET
    if (!bad) return o;
    json_decref(o);
    return NULL;
}

/* Writes "<", ">" and "&" as JSON's \u003c, \u003e and \u0026. They occur only in its strings, so
 * its meaning is unchanged, and nothing in it looks like markup. */
static char *without_markup(const char *json) {
    size_t size = strlen(json), extra = 0;
    for (size_t i = 0; i < size; i++) extra += json[i] == '<' || json[i] == '>' || json[i] == '&';
    char *out = malloc(size + 5 * extra + 1), *to = out;
    if (!out) return NULL;
    for (size_t i = 0; i < size; i++) {
        if (json[i] == '<' || json[i] == '>' || json[i] == '&')
            to += sprintf(to, "\\u%04x", (unsigned)json[i]);
        else
            *to++ = json[i];
    }
    *to = 0;
    return out;
}

char *page_json(const Trace *trace, Error *err) {
    Pieces pieces = {json_array(), json_object()};
    json_t *object = pieces.list && pieces.index ? data_json(trace, &pieces) : NULL;
    /* ASCII only: U+2028 and U+2029 are line ends in scripts. */
    char *json = object
                     ? json_dumps_whole(object, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS |
                                                    JSON_REAL_PRECISION(DATA_DIGITS))
                     : NULL;
    char *text = json ? without_markup(json) : NULL;
    if (!text) error_set(err, "out of memory for the page's data");
    free(json);
    json_decref(object), json_decref(pieces.list), json_decref(pieces.index);
    return text;
}
