#include "data/sets/causal_graph.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "data/files/array_grow.h"
#include "data/files/json_read.h"
#include "data/files/text_space.h"
#include "data/sets/gsm8k_graphs.h"

enum { FILE_MOST = 16 << 20, SEGMENTS_MOST = 1000, EDGES_MOST = 10000 };

void causal_graph_free(CausalGraph *g) {
    for (int i = 0; i < g->segment_count; i++) free(g->segments[i].name);
    free(g->segments), free(g->edges), free(g->prompt), free(g->image), free(g->answer);
    *g = (CausalGraph){0};
}

void causal_graphs_free(CausalGraphs *graphs) {
    for (size_t i = 0; i < graphs->count; i++) causal_graph_free(&graphs->items[i]);
    free(graphs->items);
    *graphs = (CausalGraphs){0};
}

int causal_graphs_grow(CausalGraphs *graphs, Error *err) {
    if (graphs->count < graphs->capacity) return 0;
    CausalGraph *more = array_grow(graphs->items, &graphs->capacity, sizeof *more);
    if (!more) return error_set(err, "out of memory for %zu causal graphs", graphs->count + 1);
    graphs->items = more;
    return 0;
}

/* ---- Texts in an answer. ---- */

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* The first occurrence from `from` on of a text of `size` >= 1 bytes that neither begins nor ends
 * within an ASCII word or a number. SIZE_MAX: none. */
static size_t text_find(const char *answer, size_t from, const char *text, size_t size) {
    size_t length = strlen(answer);
    for (size_t at = from; at + size <= length; at++) {
        if (memcmp(answer + at, text, size) != 0) continue;
        bool inside = at > 0 && is_word(answer[at - 1]) && is_word(text[0]);
        inside |= is_word(text[size - 1]) && is_word(answer[at + size]);
        if (!inside) return at;
    }
    return SIZE_MAX;
}

/* ---- Reading. ---- */

/* A copy of a nonempty string member. */
static int text_member(char **out, const json_t *object, const char *name, Error *err) {
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    if (!text || !text[0])
        return error_set(err, "\"%s\" is %s, but must be a nonempty string", name,
                         !value ? "missing"
                         : text ? "an empty string"
                                : "not a string");
    *out = strdup(text);
    return *out ? 0 : error_set(err, "out of memory for a causal graph");
}

/* The byte at which character `index` begins; SIZE_MAX if there are fewer. */
static size_t character_byte(const char *text, json_int_t index) {
    size_t at = 0;
    for (; index > 0 && text[at]; index--) {
        at++;
        while (((unsigned char)text[at] & 0xc0) == 0x80) at++;
    }
    return index == 0 ? at : SIZE_MAX;
}

static int segment_span(CausalSegment *s, const json_t *value, const char *answer, size_t from,
                        Error *err) {
    const json_t *text = json_object_get(value, "text");
    const json_t *begin = json_object_get(value, "begin"), *end = json_object_get(value, "end");
    if (!text == (!begin && !end))
        return error_set(err, "it must have either \"text\" or \"begin\" and \"end\"");
    if (text) {
        const char *words = json_string_value(text);
        if (!words || !words[0]) return error_set(err, "\"text\" must be a nonempty string");
        s->begin = text_find(answer, from, words, strlen(words));
        s->end = s->begin + strlen(words);
        if (s->begin != SIZE_MAX) return 0;
        return error_set(err, "\"%s\" does not occur as a whole word in the answer%s", words,
                         from ? " after the segment before it in the list" : "");
    }
    if (!json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) <= json_integer_value(begin))
        return error_set(err, "\"begin\" and \"end\" must be whole numbers, 0 <= begin < end");
    s->begin = character_byte(answer, json_integer_value(begin));
    s->end = character_byte(answer, json_integer_value(end));
    if (s->begin != SIZE_MAX && s->end != SIZE_MAX) return 0;
    return error_set(err, "it ends at character %lld, after the answer's end",
                     (long long)json_integer_value(end));
}

static int segment_find(const CausalGraph *g, const char *name) {
    for (int i = 0; i < g->segment_count; i++)
        if (!strcmp(g->segments[i].name, name)) return i;
    return -1;
}

/* Checks the name and span of the last segment, which is new, against the others. */
static int segment_check(const CausalGraph *g, Error *err) {
    int last = g->segment_count - 1;
    const CausalSegment *s = &g->segments[last];
    if (segment_find(g, s->name) != last) return error_set(err, "its name occurs twice");
    for (int i = 0; i < last; i++)
        if (s->begin < g->segments[i].end && g->segments[i].begin < s->end)
            return error_set(err, "it overlaps segment \"%s\"", g->segments[i].name);
    return 0;
}

static int segments_read(CausalGraph *g, const json_t *list, Error *err) {
    size_t count = json_array_size(list), from = 0;
    if (count < 2 || count > SEGMENTS_MOST)
        return error_set(err, "\"segments\" must be a list of two or more, at most %d",
                         SEGMENTS_MOST);
    g->segments = calloc(count, sizeof *g->segments);
    if (!g->segments) return error_set(err, "out of memory for a causal graph");
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        CausalSegment *s = &g->segments[i];
        if (text_member(&s->name, value, "name", err))
            return error_context(err, "segment %zu", i + 1);
        g->segment_count++;
        if (segment_span(s, value, g->answer, from, err) || segment_check(g, err))
            return error_context(err, "segment %zu \"%s\"", i + 1, s->name);
        from = s->end;
    }
    return 0;
}

static int edges_read(CausalGraph *g, const json_t *list, Error *err) {
    size_t count = json_array_size(list);
    if (count < 1 || count > EDGES_MOST)
        return error_set(err, "\"edges\" must be a list of one or more, at most %d", EDGES_MOST);
    g->edges = calloc(count, sizeof *g->edges);
    if (!g->edges) return error_set(err, "out of memory for a causal graph");
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(list, i);
        CausalEdge edge = {-1, -1};
        for (size_t end = 0; end < 2; end++) {
            const char *name = json_string_value(json_array_get(pair, end));
            if (!name || json_array_size(pair) != 2)
                return error_set(err, "edge %zu is not [\"before\", \"after\"]", i + 1);
            int segment = segment_find(g, name);
            if (segment < 0)
                return error_set(err, "edge %zu has an unknown segment \"%s\"", i + 1, name);
            *(end ? &edge.after : &edge.before) = segment;
        }
        for (int e = 0; e < g->edge_count; e++)
            if (g->edges[e].before == edge.before && g->edges[e].after == edge.after)
                return error_set(err, "edges %d and %zu are the same", e + 1, i + 1);
        g->edges[g->edge_count++] = edge;
    }
    return 0;
}

/* Names the segments of a cycle among those that are not `free_of` one: following edges backwards
 * among them must return to one. */
static int cycle_error(const CausalGraph *g, const bool *free_of, Error *err) {
    int at = 0;
    char text[512] = "";
    while (free_of[at]) at++;
    for (int pass = 0, start = -1; pass < 2; pass++) {
        /* The first pass gets into a cycle, the second goes around it once. */
        size_t used = 0;
        for (int n = 0; pass == 0 ? n < g->segment_count : at != start || n == 0; n++) {
            int e = 0;
            while (g->edges[e].after != at || free_of[g->edges[e].before]) e++;
            if (pass && used < sizeof text)
                used += (size_t)snprintf(text + used, sizeof text - used, " depends on \"%s\"",
                                         g->segments[g->edges[e].before].name);
            at = g->edges[e].before;
        }
        start = at;
    }
    return error_set(err, "the edges make a cycle: \"%s\"%s", g->segments[at].name, text);
}

/* Removes segments that depend on none of the rest, until none is left (Kahn 1962). */
static int cycle_check(const CausalGraph *g, Error *err) {
    int count = g->segment_count, taken = 0;
    bool *gone = calloc((size_t)count, sizeof *gone);
    int *needs = calloc((size_t)count, sizeof *needs); /* edges that end in a segment */
    int status = gone && needs ? 0 : error_set(err, "out of memory for a causal graph");
    for (int e = 0; e < g->edge_count && status == 0; e++) needs[g->edges[e].after]++;
    for (int s = 0; s < count && status == 0; s++) {
        if (gone[s] || needs[s]) continue;
        gone[s] = true, taken++;
        for (int e = 0; e < g->edge_count; e++)
            if (g->edges[e].before == s) needs[g->edges[e].after]--;
        s = -1; /* an earlier one may have become free */
    }
    if (status == 0 && taken < count) status = cycle_error(g, gone, err);
    free(gone), free(needs);
    return status;
}

static int graph_read(CausalGraph *g, const json_t *object, Error *err) {
    if (!json_is_object(object)) return error_set(err, "it is not an object");
    const json_t *image = json_object_get(object, "image");
    g->is_question = json_object_get(object, "question") != NULL;
    if (g->is_question && json_object_get(object, "prompt"))
        return error_set(err, "it has both \"prompt\" and \"question\"");
    if (image && !g->is_question) return error_set(err, "\"image\" needs a \"question\"");
    TRY(text_member(&g->prompt, object, g->is_question ? "question" : "prompt", err));
    if (image) TRY(text_member(&g->image, object, "image", err));
    TRY(text_member(&g->answer, object, "answer", err));
    TRY(segments_read(g, json_object_get(object, "segments"), err));
    TRY(edges_read(g, json_object_get(object, "edges"), err));
    return cycle_check(g, err);
}

static int graphs_fill(CausalGraphs *graphs, const json_t *root, Error *err) {
    size_t count = json_is_array(root) ? json_array_size(root) : 1;
    if (!count) return error_set(err, "no causal graph in it");
    graphs->items = calloc(count, sizeof *graphs->items);
    if (!graphs->items) return error_set(err, "out of memory for %zu causal graphs", count);
    for (; graphs->count < count; graphs->count++) {
        const json_t *object = json_is_array(root) ? json_array_get(root, graphs->count) : root;
        if (graph_read(&graphs->items[graphs->count], object, err) == 0) continue;
        error_context(err, "graph %zu", graphs->count + 1);
        graphs->count++; /* so that it is freed, too */
        return -1;
    }
    return 0;
}

int causal_graphs_read(CausalGraphs *graphs, const char *path, Error *err) {
    json_t *root;
    *graphs = (CausalGraphs){0};
    const int lines = gsm8k_graphs_read(graphs, path, err);
    if (lines <= 0) return lines;
    TRY(json_read_file(&root, path, FILE_MOST, JSON_REJECT_DUPLICATES, 0, err));
    int status = graphs_fill(graphs, root, err);
    json_decref(root);
    if (status == 0) return 0;
    causal_graphs_free(graphs);
    return error_context(err, "%s", path);
}

/* ---- Matching. ---- */

int causal_graph_match(const CausalGraph *g, const char *answer, size_t *begins, size_t *ends) {
    size_t size = strlen(answer), blank = text_space_begin(answer, size);
    size_t known = strlen(g->answer), skip = text_space_begin(g->answer, known);
    size_t body = size == blank ? 0 : size - blank - text_space_end(answer, size);
    bool same = known > skip && body == known - skip - text_space_end(g->answer, known) &&
                !memcmp(answer + blank, g->answer + skip, body);
    if (same) {
        for (int i = 0; i < g->segment_count; i++) {
            begins[i] = g->segments[i].begin - skip + blank;
            ends[i] = g->segments[i].end - skip + blank;
        }
        return -1;
    }
    size_t from = 0, last_end = 0;
    for (int found = 0; found < g->segment_count; found++) {
        int next = -1; /* in the order of the annotated answer */
        for (int i = 0; i < g->segment_count; i++)
            if (g->segments[i].begin >= last_end &&
                (next < 0 || g->segments[i].begin < g->segments[next].begin))
                next = i;
        const CausalSegment *s = &g->segments[next];
        begins[next] = text_find(answer, from, g->answer + s->begin, s->end - s->begin);
        if (begins[next] == SIZE_MAX) return next;
        from = ends[next] = begins[next] + (s->end - s->begin);
        last_end = s->end;
    }
    return -1;
}
