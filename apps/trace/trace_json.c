#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/json.h"
#include "apps/trace/trace_parts.h"
#include "data/files/file_write.h"
#include "data/files/json_kind.h"
#include "data/files/json_read.h"
#include "data/files/json_memory.h"

enum { TRACE_BYTES = 1 << 28, READ_BLOCK = 1 << 16 };
enum { LENGTH_MOST = 1000000, STEPS_MOST = 1000000, GRID_MOST = 1024, EDGE_MOST = 1 << 20 };

/* ---- Writing. Members that jansson has no memory for make the whole object NULL. ---- */

static json_t *entry_json(const TraceEntry *e) {
    json_t *cell =
        json_pack("{s:i, s:o, s:o, s:b, s:i, s:o, s:o}", "id", (int)e->id, "piece",
                  json_text(e->piece), "score", json_score(e->score), "masked", (int)e->masked,
                  "proposal", (int)e->proposal, "proposal_piece", json_text(e->proposal_piece),
                  "proposal_score", json_score(e->proposal_score));
    if (!cell || !e->alternative_count) return cell;
    json_t *alternatives = json_array();
    for (int i = 0; alternatives && i < e->alternative_count; i++) {
        const TraceAlternative *r = &e->alternatives[i];
        json_t *one = json_pack("{s:i, s:o, s:o}", "id", (int)r->id, "piece", json_text(r->piece),
                                "score", json_score(r->score));
        if (json_array_append_new(alternatives, one))
            json_decref(alternatives), alternatives = NULL;
    }
    if (json_object_set_new(cell, "top_k", alternatives)) json_decref(cell), cell = NULL;
    return cell;
}

static json_t *steps_json(const TraceHypothesis *h) {
    json_t *list = json_array();
    for (int s = 0; list && s < h->steps; s++) {
        json_t *cells = json_array();
        for (int i = 0; cells && i < h->length; i++)
            if (json_array_append_new(cells, entry_json(&trace_entries(h, s)[i])))
                json_decref(cells), cells = NULL;
        json_t *step = json_pack("{s:i, s:b, s:o}", "step", s + 1, "evaluated",
                                 (int)h->evaluated[s], "cells", cells);
        if (json_array_append_new(list, step)) json_decref(list), list = NULL;
    }
    return list;
}

static json_t *attention_json(const TraceHypothesis *h, int patches) {
    json_t *list = json_array();
    for (int i = 0; list && i < h->length; i++) {
        json_t *row = json_array();
        for (int k = 0; row && k < patches; k++)
            if (json_array_append_new(
                    row, json_real(h->attention[(size_t)i * (size_t)patches + (size_t)k])))
                json_decref(row), row = NULL;
        if (json_array_append_new(list, row)) json_decref(list), list = NULL;
    }
    return list;
}

static json_t *fixed_json(const TraceHypothesis *h) {
    json_t *list = json_array();
    for (int i = 0; list && i < h->length; i++)
        if (h->fixed[i] && json_array_append_new(list, json_integer(i)))
            json_decref(list), list = NULL;
    return list;
}

static json_t *hypothesis_json(const Trace *trace, int index) {
    const TraceHypothesis *h = &trace->hypotheses[index];
    json_t *object = json_pack("{s:o, s:i, s:i, s:o, s:i}", "text", json_text(h->text), "length",
                               h->length, "sample", h->sample, "score", json_score(h->score),
                               "evaluations", h->evaluations);
    int bad = !object;
    if (!bad && index != trace->best) bad = json_object_set_new(object, "trace", steps_json(h));
    if (!bad && h->fixed) bad = json_object_set_new(object, "fixed", fixed_json(h));
    if (!bad && h->attention)
        bad = json_object_set_new(object, "attention",
                                  attention_json(h, trace->geometry.grid * trace->geometry.grid));
    if (!bad) return object;
    json_decref(object);
    return NULL;
}

static json_t *hypotheses_json(const Trace *trace) {
    json_t *list = json_array();
    for (int i = 0; list && i < trace->count; i++)
        if (json_array_append_new(list, hypothesis_json(trace, i))) json_decref(list), list = NULL;
    return list;
}

static json_t *tokens_json(const TraceHypothesis *h) {
    json_t *list = json_array();
    const TraceEntry *last = trace_entries(h, h->steps - 1);
    for (int i = 0; list && i < h->length; i++) {
        json_t *token = json_pack("{s:i, s:o, s:o}", "id", (int)last[i].id, "piece",
                                  json_text(last[i].piece), "score", json_score(last[i].score));
        if ((trace_fixed(h, i) && json_object_set_new(token, "fixed", json_true())) ||
            json_array_append_new(list, token))
            json_decref(list), list = NULL;
    }
    return list;
}

static json_t *geometry_json(const TraceGeometry *p) {
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "width", p->width, "height",
                     p->height, "size", p->size, "grid", p->grid, "left", p->map.left, "top",
                     p->map.top, "scale_x", p->map.scale_x, "scale_y", p->map.scale_y);
}

json_t *trace_json(const Trace *trace) {
    const TraceHypothesis *best = &trace->hypotheses[trace->best];
    int evaluations = 0, bad = 0;
    for (int i = 0; i < trace->count; i++) evaluations += trace->hypotheses[i].evaluations;
    json_t *o = json_object();
    if (!o) return NULL;
#define SET(name, value) bad |= json_object_set_new(o, name, value)
    if (trace->image) SET("image", json_text(trace->image));
    SET(trace->is_prompt ? "prompt" : "question", json_text(trace->question));
    if (trace->answer_template) SET("template", json_text(trace->answer_template));
    SET("answer", json_text(best->text));
    SET("score", json_score(best->score));
    SET("length", json_integer(best->length));
    SET("tokens", tokens_json(best));
    SET("steps", json_integer(best->steps));
    SET("evaluations", json_integer(evaluations));
    SET("strategy", json_text(trace->strategy));
    SET("seed", json_integer((json_int_t)trace->seed));
    SET("prompt_tokens", json_integer(trace->prompt_tokens));
    if (trace->dropped_tokens) SET("dropped_tokens", json_integer(trace->dropped_tokens));
    SET("hypotheses", hypotheses_json(trace));
    if (trace->model) SET("model", json_text(trace->model));
    SET("best", json_integer(trace->best));
    if (trace->geometry.width) SET("geometry", geometry_json(&trace->geometry));
    SET("trace", steps_json(best));
#undef SET
    if (!bad) return o;
    json_decref(o);
    return NULL;
}

int trace_write_json(const Trace *trace, const char *path, Error *err) {
    json_t *object = trace_json(trace);
    if (!strcmp(path, "-")) return json_print_line(object, JSON_DIGITS, err);
    char *line = json_line(object, JSON_DIGITS);
    if (!line) return error_set(err, "%s: out of memory for the trace", path);
    size_t size = strlen(line);
    line[size] = '\n'; /* replaces the terminating 0 */
    int status = file_write_all(path, line, size + 1, err);
    free(line);
    return status;
}

/* ---- Reading. ---- */

typedef struct Reader {
    const char *path;
    char where[96]; /* "hypotheses[1].trace[3].cells[2]", "" for the whole */
    Trace *trace;
    Error *err;
} Reader;

/* "FILE: PLACE: "NAME" is ..., expected ...". */
static int wrong(const Reader *r, const char *name, const char *found, const char *expected) {
    return error_set(r->err,
                     "%s: %s%s\"%s\" is %s, expected %s: is it a trace that easyfirst show --json "
                     "wrote?",
                     r->path, r->where, r->where[0] ? ": " : "", name, found, expected);
}

static int read_whole(const Reader *r, const json_t *object, const char *name, json_int_t least,
                      json_int_t most, json_int_t *out) {
    const json_t *value = json_object_get(object, name);
    char expected[96], found[32];
    snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)least,
             (long long)most);
    if (!json_is_integer(value)) return wrong(r, name, json_kind(value), expected);
    *out = json_integer_value(value);
    if (*out >= least && *out <= most) return 0;
    snprintf(found, sizeof found, "%lld", (long long)*out);
    return wrong(r, name, found, expected);
}

static int read_int(const Reader *r, const json_t *object, const char *name, int least, int most,
                    int *out) {
    json_int_t value;
    TRY(read_whole(r, object, name, least, most, &value));
    *out = (int)value;
    return 0;
}

/* A finite number. */
static int read_real(const Reader *r, const json_t *object, const char *name, double *out) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) return wrong(r, name, json_kind(value), "a number");
    *out = json_number_value(value);
    return isfinite(*out) ? 0 : wrong(r, name, "too large", "a number");
}

/* A log-probability, or null for one of 0. */
static int read_score(const Reader *r, const json_t *object, const char *name, double *out) {
    *out = -INFINITY;
    if (json_is_null(json_object_get(object, name))) return 0;
    TRY(read_real(r, object, name, out));
    return fabs(*out) <= 1e30 ? 0 : wrong(r, name, "too large", "a log-probability");
}

static int read_flag(const Reader *r, const json_t *object, const char *name, bool *out) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_boolean(value)) return wrong(r, name, json_kind(value), "true or false");
    *out = json_is_true(value);
    return 0;
}

static int read_text(const Reader *r, const json_t *object, const char *name, const char **out) {
    const json_t *value = json_object_get(object, name);
    *out = json_string_value(value);
    if (!*out) return wrong(r, name, json_kind(value), "a string");
    if (strlen(*out) != json_string_length(value))
        return wrong(r, name, "a string with a NUL byte", "one without");
    return 0;
}

/* A string of the trace; NULL if it is missing and optional. */
static int copy_text(const Reader *r, const json_t *object, const char *name, bool needed,
                     char **out) {
    const char *text;
    if (!needed && !json_object_get(object, name)) return 0;
    TRY(read_text(r, object, name, &text));
    free(*out);
    *out = strdup(text);
    return *out ? 0 : error_set(r->err, "%s: out of memory", r->path);
}

/* A list of `count` elements, or of any number from 1 on if that is -1. */
static int read_list(const Reader *r, const json_t *object, const char *name, json_int_t count,
                     const json_t **out) {
    const json_t *value = json_object_get(object, name);
    char found[48], expected[64];
    *out = value;
    if (count < 0)
        snprintf(expected, sizeof expected, "an array that is not empty");
    else
        snprintf(expected, sizeof expected, "an array of %lld", (long long)count);
    if (!json_is_array(value)) return wrong(r, name, json_kind(value), expected);
    size_t n = json_array_size(value);
    if (count < 0 ? n > 0 : n == (size_t)count) return 0;
    snprintf(found, sizeof found, "an array of %zu", n);
    return wrong(r, name, found, expected);
}

static int read_piece(const Reader *r, const json_t *object, const char *id_name,
                      const char *piece_name, int32_t *id, const char **piece) {
    const char *text;
    const char *piece_text = json_string_value(json_object_get(object, piece_name));
    const bool no_token = piece_text && !strcmp(piece_text, "<mask>"); /* may have no id */
    TRY(read_int(r, object, id_name, no_token ? -1 : 0, INT32_MAX, id));
    TRY(read_text(r, object, piece_name, &text));
    *piece = trace_piece(r->trace, *id, text, r->err);
    if (!*piece) return -1;
    if (!strcmp(*piece, text)) return 0;
    return error_set(
        r->err, "%s: %s: token %d is \"%.40s\", but was \"%.40s\" before: a token has one text",
        r->path, r->where, (int)*id, text, *piece);
}

static int read_alternatives(const Reader *r, const json_t *cell, TraceEntry *entry) {
    const json_t *list, *one;
    if (!json_object_get(cell, "top_k")) return 0;
    TRY(read_list(r, cell, "top_k", -1, &list));
    size_t n = json_array_size(list), i;
    if (n > 1000) return wrong(r, "top_k", "longer than 1000", "a shorter list");
    entry->alternatives = calloc(n, sizeof *entry->alternatives);
    if (!entry->alternatives) return error_set(r->err, "%s: out of memory", r->path);
    entry->alternative_count = (int)n;
    json_array_foreach(list, i, one) {
        TraceAlternative *alternative = &entry->alternatives[i];
        double score;
        TRY(read_piece(r, one, "id", "piece", &alternative->id, &alternative->piece));
        TRY(read_score(r, one, "score", &score));
        alternative->score = (float)score;
    }
    return 0;
}

static int read_entry(const Reader *r, const json_t *cell, TraceEntry *entry) {
    double score, proposal_score;
    TRY(read_piece(r, cell, "id", "piece", &entry->id, &entry->piece));
    TRY(read_piece(r, cell, "proposal", "proposal_piece", &entry->proposal,
                   &entry->proposal_piece));
    TRY(read_flag(r, cell, "masked", &entry->masked));
    TRY(read_score(r, cell, "score", &score));
    TRY(read_score(r, cell, "proposal_score", &proposal_score));
    if (entry->masked && isfinite(score))
        return wrong(r, "score", "a number", "null, because the cell is masked");
    entry->score = (float)score, entry->proposal_score = (float)proposal_score;
    return read_alternatives(r, cell, entry);
}

static int read_steps(Reader *r, const json_t *holder, const char *prefix, TraceHypothesis *h) {
    const json_t *list, *step, *cells, *cell;
    size_t s, i;
    TRY(read_list(r, holder, "trace", -1, &list));
    if (json_array_size(list) > STEPS_MOST)
        return wrong(r, "trace", "longer than 1000000", "a shorter list");
    h->planned = (int)json_array_size(list);
    json_array_foreach(list, s, step) {
        snprintf(r->where, sizeof r->where, "%strace[%zu]", prefix, s);
        int number = (int)s + 1;
        TRY(read_int(r, step, "step", number, number, &number));
        TRY(read_list(r, step, "cells", h->length, &cells));
        TRY(trace_room(h, r->err));
        TRY(read_flag(r, step, "evaluated", &h->evaluated[s]));
        TraceEntry *entries = h->entries + s * (size_t)h->length;
        memset(entries, 0, (size_t)h->length * sizeof *entries);
        h->steps++; /* from here on its entries are freed */
        json_array_foreach(cells, i, cell) {
            snprintf(r->where, sizeof r->where, "%strace[%zu].cells[%zu]", prefix, s, i);
            TRY(read_entry(r, cell, &entries[i]));
        }
    }
    return 0;
}

static int read_fixed(const Reader *r, const json_t *object, TraceHypothesis *h) {
    const json_t *list, *value;
    size_t i;
    json_int_t last = -1;
    if (!json_object_get(object, "fixed")) return 0;
    TRY(read_list(r, object, "fixed", -1, &list));
    json_array_foreach(list, i, value) {
        json_int_t position = json_is_integer(value) ? json_integer_value(value) : -1;
        if (position <= last || position >= h->length)
            return wrong(r, "fixed", "an array with other values",
                         "positions from 0 on, below \"length\", ascending");
        TRY(trace_fix(h, (int)position, r->err));
        last = position;
    }
    return 0;
}

/* A fixed token is there from the first step to the last. */
static int check_fixed(const Reader *r, const TraceHypothesis *h) {
    for (int s = 0; s < h->steps; s++)
        for (int i = 0; i < h->length; i++) {
            const TraceEntry *e = &trace_entries(h, s)[i];
            if (trace_fixed(h, i) && (e->masked || e->id != h->entries[i].id))
                return wrong(r, "fixed", "of a position whose token changes", "others");
        }
    return 0;
}

static int read_attention(Reader *r, const json_t *object, TraceHypothesis *h) {
    const json_t *list, *row, *value;
    size_t i, k, patches = (size_t)r->trace->geometry.grid * (size_t)r->trace->geometry.grid;
    if (!json_object_get(object, "attention")) return 0;
    if (!patches) return wrong(r, "attention", "there", "none without \"geometry\"");
    TRY(read_list(r, object, "attention", h->length, &list));
    json_array_foreach(list, i, row) {
        if (!json_is_array(row) || json_array_size(row) != patches)
            return wrong(r, "attention", "an array of another shape",
                         "one list for each position, with a number for each patch");
    }
    h->attention = malloc((size_t)h->length * patches * sizeof *h->attention);
    if (!h->attention) return error_set(r->err, "%s: out of memory", r->path);
    json_array_foreach(list, i, row) {
        json_array_foreach(row, k, value) {
            double weight = json_is_number(value) ? json_number_value(value) : NAN;
            if (!(weight >= 0 && weight <= 1e30))
                return wrong(r, "attention", "an array with other values",
                             "numbers from 0 on only");
            h->attention[i * patches + k] = (float)weight;
        }
    }
    return 0;
}

static int read_geometry(Reader *r, const json_t *root) {
    const json_t *object = json_object_get(root, "geometry");
    TraceGeometry p = {0};
    if (!object) return 0;
    if (!json_is_object(object)) return wrong(r, "geometry", json_kind(object), "an object");
    snprintf(r->where, sizeof r->where, "geometry");
    TRY(read_int(r, object, "width", 1, EDGE_MOST, &p.width));
    TRY(read_int(r, object, "height", 1, EDGE_MOST, &p.height));
    TRY(read_int(r, object, "size", 1, EDGE_MOST, &p.size));
    TRY(read_int(r, object, "grid", 1, GRID_MOST, &p.grid));
    TRY(read_real(r, object, "left", &p.map.left));
    TRY(read_real(r, object, "top", &p.map.top));
    TRY(read_real(r, object, "scale_x", &p.map.scale_x));
    TRY(read_real(r, object, "scale_y", &p.map.scale_y));
    r->trace->geometry = p;
    return 0;
}

static int read_hypotheses(Reader *r, const json_t *root) {
    Trace *trace = r->trace;
    const json_t *list, *one;
    size_t i;
    TRY(read_list(r, root, "hypotheses", -1, &list));
    if (json_array_size(list) > 1000000)
        return wrong(r, "hypotheses", "longer than 1000000", "a shorter list");
    TRY(trace_hypotheses(trace, (int)json_array_size(list), r->err));
    double best = -INFINITY;
    json_array_foreach(list, i, one) {
        TraceHypothesis *h = &trace->hypotheses[i];
        snprintf(r->where, sizeof r->where, "hypotheses[%zu]", i);
        if (!json_is_object(one)) return wrong(r, r->where, json_kind(one), "an object");
        TRY(copy_text(r, one, "text", true, &h->text));
        TRY(read_int(r, one, "length", 1, LENGTH_MOST, &h->length));
        TRY(read_int(r, one, "sample", 0, INT32_MAX, &h->sample));
        TRY(read_int(r, one, "evaluations", 0, INT32_MAX, &h->evaluations));
        TRY(read_score(r, one, "score", &h->score));
        TRY(read_fixed(r, one, h));
        TRY(read_attention(r, one, h));
        if (trace->best < 0 || h->score > best) trace->best = (int)i, best = h->score;
    }
    r->where[0] = 0;
    if (json_object_get(root, "best"))
        TRY(read_int(r, root, "best", 0, trace->count - 1, &trace->best));
    for (int k = 0; k < trace->count; k++) {
        char prefix[48] = "";
        if (k != trace->best) snprintf(prefix, sizeof prefix, "hypotheses[%d].", k);
        snprintf(r->where, sizeof r->where, "%.*s", prefix[0] ? (int)strlen(prefix) - 1 : 0,
                 prefix);
        TRY(read_steps(r, k == trace->best ? root : json_array_get(list, (size_t)k), prefix,
                       &trace->hypotheses[k]));
        snprintf(r->where, sizeof r->where, "hypotheses[%d]", k);
        TRY(check_fixed(r, &trace->hypotheses[k]));
        r->where[0] = 0;
    }
    return 0;
}

/* Redundant values must agree. */
static int read_best(Reader *r, const json_t *root) {
    const TraceHypothesis *h = &r->trace->hypotheses[r->trace->best];
    const char *answer;
    int number;
    TRY(read_text(r, root, "answer", &answer));
    if (strcmp(answer, h->text))
        return wrong(r, "answer", "another text", "that of the best hypothesis");
    TRY(read_int(r, root, "length", h->length, h->length, &number));
    return read_int(r, root, "steps", h->steps, h->steps, &number);
}

static int read_root(Reader *r, const json_t *root) {
    Trace *trace = r->trace;
    json_int_t seed;
    if (!json_is_object(root))
        return error_set(r->err,
                         "%s: is %s, expected an object: is it a trace that easyfirst show "
                         "--json wrote?",
                         r->path, json_kind(root));
    const json_t *failed = json_object_get(root, "error");
    if (json_is_string(failed))
        return error_set(r->err, "%s: has no answer, but an error: %.200s", r->path,
                         json_string_value(failed));
    trace->is_prompt = !json_object_get(root, "question") && json_object_get(root, "prompt");
    TRY(copy_text(r, root, trace->is_prompt ? "prompt" : "question", true, &trace->question));
    TRY(copy_text(r, root, "template", false, &trace->answer_template));
    TRY(copy_text(r, root, "image", false, &trace->image));
    TRY(copy_text(r, root, "model", false, &trace->model));
    TRY(copy_text(r, root, "strategy", true, &trace->strategy));
    TRY(read_whole(r, root, "seed", 0, INT64_MAX, &seed));
    trace->seed = (uint64_t)seed;
    TRY(read_int(r, root, "prompt_tokens", 0, INT32_MAX, &trace->prompt_tokens));
    if (json_object_get(root, "dropped_tokens"))
        TRY(read_int(r, root, "dropped_tokens", 0, INT32_MAX, &trace->dropped_tokens));
    TRY(read_geometry(r, root));
    r->where[0] = 0;
    TRY(read_hypotheses(r, root));
    TRY(read_best(r, root));
    trace->finished = true;
    return 0;
}

/* Opening a named pipe would wait for a writer, perhaps forever: without one it is empty. */
static FILE *open_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return NULL;
    fcntl(fd, F_SETFL, 0);
    return fdopen(fd, "rb");
}

/* Reads the whole file; *bytes is the caller's. */
static int read_bytes(const char *path, char **bytes, size_t *size, Error *err) {
    bool standard = !strcmp(path, "-");
    FILE *in = standard ? stdin : open_file(path);
    size_t used = 0, capacity = 0, n = 0;
    *bytes = NULL, *size = 0;
    if (!in) return error_set(err, "%s: %s", path, strerror(errno));
    do {
        if (used + READ_BLOCK > capacity) {
            capacity = capacity ? 2 * capacity : 4 * READ_BLOCK;
            char *more = realloc(*bytes, capacity);
            if (!more) break;
            *bytes = more;
        }
        errno = 0;
        n = fread(*bytes + used, 1, READ_BLOCK, in);
        used += n;
    } while (n && used <= TRACE_BYTES);
    int status = 0;
    if (ferror(in))
        status = error_set(err, "%s: %s", path, errno ? strerror(errno) : "cannot be read");
    else if (used > TRACE_BYTES)
        status = error_set(err, "%s: has more than %d MiB, which is too much for a trace", path,
                           TRACE_BYTES >> 20);
    else if (n)
        status = error_set(err, "%s: out of memory", path);
    else if (!used)
        status =
            error_set(err, "%s: is empty, expected a trace that easyfirst show --json wrote", path);
    if (!standard) fclose(in);
    if (status) free(*bytes), *bytes = NULL;
    *size = used;
    return status;
}

int trace_read_json(Trace *trace, const char *path, Error *err) {
    char *bytes, why[160];
    size_t size;
    json_error_t error;
    *trace = (Trace){.best = -1};
    TRY(read_bytes(path, &bytes, &size, err));
    /* A trace takes up to 16 times its text, brackets alone 69 times. */
    size_t most = size > JSON_MEMORY_MOST / 24 ? 24 * size : JSON_MEMORY_MOST;
    if (json_too_heavy(bytes, size, most, why, sizeof why)) {
        free(bytes);
        return error_set(err, "%s: %s", path, why);
    }
    json_t *root = json_loadb_whole(bytes, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    free(bytes);
    if (!root) {
        bool more = json_error_code(&error) == json_error_end_of_input_expected;
        return error_set(err,
                         "%s: line %d, column %d: %s, expected one trace that easyfirst show "
                         "--json wrote%s",
                         path, error.line, error.column, error.text,
                         more ? " and nothing after it" : "");
    }
    Reader r = {.path = path, .trace = trace, .err = err};
    int status = trace_open(trace, err);
    if (status == 0) status = read_root(&r, root);
    json_decref(root);
    if (status) trace_free(trace);
    return status;
}
