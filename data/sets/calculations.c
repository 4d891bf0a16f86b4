#include "data/sets/calculations.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"

enum { OPERANDS_MOST = 16 };

typedef struct Calculation {
    size_t idea_begin, idea_end; /* equal: none */
    size_t formula_begin, formula_end;
    size_t result_begin, result_end;
    double operands[OPERANDS_MOST], result;
    int operand_count;
} Calculation;

/* A mark, and where it was. */
typedef struct Mark {
    size_t at; /* in the text without marks */
    const char *text;
    size_t size;
} Mark;

typedef struct Text {
    char *clean; /* without marks */
    size_t size;
    Mark marks[CALCULATIONS_MOST];
    int mark_count;
    Calculation found[CALCULATIONS_MOST];
    int count;
} Text;

/* ---- Numbers. ---- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (unsigned char)c >= 0x80;
}

/* The end of the number that begins at `at`: digits with points and commas between them; `at` if
 * there is none. *value is its value. */
static size_t number_end(const char *text, size_t at, size_t size, double *value) {
    char digits[64];
    size_t n = 0;
    bool point = false;
    for (; at < size; at++) {
        const bool inside = at + 1 < size && is_digit(text[at + 1]);
        if (is_digit(text[at]) || (text[at] == '.' && inside && !point)) {
            point |= text[at] == '.';
            if (n + 1 < sizeof digits) digits[n++] = text[at];
        } else if (text[at] != ',' || !inside || !n) {
            break;
        }
    }
    digits[n] = 0;
    *value = strtod(digits, NULL);
    return at;
}

/* The begin of the number that ends at `end`; `end` if there is none. */
static size_t number_begin(const char *text, size_t begin, size_t end) {
    size_t at = end;
    while (at > begin && (is_digit(text[at - 1]) ||
                          (at < end && at - 1 > begin &&
                           (text[at - 1] == '.' || text[at - 1] == ',') && is_digit(text[at - 2]))))
        at--;
    /* ".5" */
    if (at < end && at > begin && text[at - 1] == '.' && (at - 1 == begin || text[at - 2] == ' '))
        at--;
    return at;
}

static bool same_number(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(1, fmax(fabs(a), fabs(b)));
}

static void operand_add(Calculation *c, double value) {
    if (c->operand_count < OPERANDS_MOST) c->operands[c->operand_count++] = value;
}

/* ---- The text without its marks. ---- */

static int text_open(Text *t, const char *answer, Error *err) {
    t->clean = malloc(strlen(answer) + 1);
    if (!t->clean) return error_set(err, "out of memory for a causal graph");
    for (const char *from = answer; *from;) {
        const char *end = !strncmp(from, "<<", 2) ? strstr(from, ">>") : NULL;
        if (!end) {
            t->clean[t->size++] = *from++;
            continue;
        }
        if (t->mark_count < CALCULATIONS_MOST)
            t->marks[t->mark_count++] = (Mark){t->size, from + 2, (size_t)(end - from) - 2};
        from = end + 2;
    }
    t->clean[t->size] = 0;
    return 0;
}

/* ---- Formulas. ---- */

static size_t skip_back(const char *text, size_t begin, size_t at, const char *which) {
    while (at > begin && strchr(which, text[at - 1])) at--;
    return at;
}

/* The begin of the operator that ends at `end`; `end`: none. */
static size_t operator_begin(const char *text, size_t begin, size_t end) {
    if (end > begin && strchr("+-*/x", text[end - 1])) {
        const bool word = text[end - 1] == 'x' && end > begin + 1 && is_letter(text[end - 2]);
        return word ? end : end - 1;
    }
    const bool times = end >= begin + 2 && text[end - 2] == '\xC3' &&
                       (text[end - 1] == '\x97' || text[end - 1] == '\xB7');
    return times ? end - 2 : end;
}

/* Reads a formula backwards from its end: numbers with operators between them, in parentheses.
 * Its begin; `end` if it has fewer than two numbers. */
static size_t formula_parse(const char *text, size_t begin, size_t end, Calculation *c) {
    size_t at = end, first = end;
    int depth = 0;
    for (;;) {
        double value;
        at = skip_back(text, begin, at, " %");
        for (; at > begin && text[at - 1] == ')'; depth++)
            at = skip_back(text, begin, at - 1, " %");
        const size_t number = number_begin(text, begin, at);
        if (number == at || (number > begin && is_letter(text[number - 1]))) break;
        number_end(text, number, at, &value);
        operand_add(c, value);
        at = number - (number > begin && text[number - 1] == '$');
        for (; depth && at > begin && text[at - 1] == '('; depth--) at--;
        first = at;
        at = skip_back(text, begin, at, " ");
        const size_t sign = operator_begin(text, begin, at);
        if (sign == at) break;
        at = sign;
    }
    return c->operand_count >= 2 ? first : end;
}

/* The operands of a mark, and where the first of them is in the text before it, from right to left
 * while its numbers are the mark's; `end`: nowhere. */
static size_t formula_marked(const char *text, size_t begin, size_t end, const Mark *mark,
                             Calculation *c) {
    bool used[OPERANDS_MOST] = {false};
    const char *equals = memchr(mark->text, '=', mark->size);
    const size_t size = equals ? (size_t)(equals - mark->text) : mark->size;
    for (size_t at = 0; at < size;) {
        double value;
        const size_t next = number_end(mark->text, at, size, &value);
        if (next > at) operand_add(c, value);
        at = next > at ? next : at + 1;
    }
    size_t first = end;
    for (size_t at = end; at > begin;) {
        const size_t number = number_begin(text, begin, at);
        if (number == at) {
            at--;
            continue;
        }
        double value;
        int same = -1;
        number_end(text, number, at, &value);
        for (int i = c->operand_count - 1; i >= 0 && same < 0; i--)
            if (!used[i] && same_number(value, c->operands[i])) same = i;
        if (same < 0) break;
        used[same] = true;
        at = number - (number > begin && text[number - 1] == '$');
        at = first = at - (at > begin && text[at - 1] == '(');
    }
    return first;
}

/* Where the sentence or the part after the calculation before begins that ends at `end`. */
static size_t idea_begin(const char *text, size_t begin, size_t end) {
    for (size_t at = end; at > begin + 1; at--)
        if (text[at - 1] == '\n' || (strchr(" \t", text[at - 1]) && strchr(".!?", text[at - 2]))) {
            begin = at;
            break;
        }
    while (begin < end && strchr(" \t\n\r,.;:)", text[begin])) begin++;
    return begin;
}

static void idea_find(Calculation *c, const char *text, size_t begin, size_t end) {
    end = skip_back(text, begin, end, " \t\n\r=$(");
    c->idea_begin = idea_begin(text, begin, end), c->idea_end = end;
    for (size_t i = c->idea_begin; i < end; i++)
        if (is_letter(text[i])) return;
    c->idea_end = c->idea_begin; /* no words */
}

/* ---- Calculations. ---- */

/* Whether a number is followed by an operator or "=": the text goes on calculating. */
static bool goes_on(const Text *t, size_t at) {
    while (at < t->size && t->clean[at] == ' ') at++;
    if (at == t->size) return false;
    if (t->clean[at] != '-') return strchr("+*/=", t->clean[at]) != NULL;
    for (at++; at < t->size && t->clean[at] == ' ';) at++;
    return at < t->size && is_digit(t->clean[at]);
}

/* Adds the calculation whose result begins at `at`, or after a currency or a sign, if it is one. */
static void calculation_add(Text *t, size_t at, const Mark *mark) {
    const char *text = t->clean;
    const size_t before = t->count ? t->found[t->count - 1].result_end : 0;
    Calculation c = {0};
    while (at < t->size && strchr(" $", text[at])) at++;
    const bool minus = at < t->size && text[at] == '-';
    c.result_begin = at;
    c.result_end = number_end(text, at + minus, t->size, &c.result);
    if (minus) c.result = -c.result;
    if (c.result_end == at + minus || at < before || t->count == CALCULATIONS_MOST) return;
    if (!mark && goes_on(t, c.result_end)) return; /* "2 * 3 + 4 = 6 + 4 = 10" */
    const size_t end = skip_back(text, before, at, " $=");
    const char *equals = memchr(text + end, '=', at - end);
    c.formula_begin =
        mark ? formula_marked(text, before, end, mark, &c) : formula_parse(text, before, end, &c);
    c.formula_end = equals ? (size_t)(equals - text) + 1 : end;
    if (c.formula_begin == end) {
        if (!mark) return;
        c.formula_begin = c.formula_end = at;
    }
    idea_find(&c, text, before, c.formula_begin);
    t->found[t->count++] = c;
}

static void calculations_find(Text *t) {
    for (int m = 0; m < t->mark_count; m++) calculation_add(t, t->marks[m].at, &t->marks[m]);
    for (size_t at = 0; at < t->size && !t->mark_count; at++)
        if (t->clean[at] == '=') calculation_add(t, at + 1, NULL);
}

/* The last number after the last calculation; false: none. */
static bool answer_find(const Text *t, size_t *begin, size_t *end) {
    const size_t from = t->found[t->count - 1].result_end;
    for (size_t at = t->size; at > from; at--) {
        *begin = number_begin(t->clean, from, at);
        *end = at;
        if (*begin < at) return true;
    }
    return false;
}

/* ---- The graph. ---- */

static int segment_add(CausalGraph *g, const char *name, int number, size_t begin, size_t end,
                       Error *err) {
    CausalSegment *s = &g->segments[g->segment_count];
    *s = (CausalSegment){number ? path_format(err, "%s %d", name, number) : strdup(name), begin,
                         end};
    if (!s->name) return error_set(err, "out of memory for a causal graph");
    return g->segment_count++;
}

static void edge_add(CausalGraph *g, int before, int after) {
    for (int e = 0; e < g->edge_count; e++)
        if (g->edges[e].before == before && g->edges[e].after == after) return;
    if (before >= 0) g->edges[g->edge_count++] = (CausalEdge){before, after};
}

/* The latest calculation before n with this result; -1: none. */
static int result_of(const Text *t, int n, double value) {
    while (--n >= 0 && !same_number(t->found[n].result, value)) continue;
    return n;
}

/* Adds calculation n; results[n] is its result's segment. */
static int calculation_segments(CausalGraph *g, const Text *t, int n, int *results, Error *err) {
    const Calculation *c = &t->found[n];
    int idea = -1, formula = -1;
    if (c->idea_end > c->idea_begin &&
        (idea = segment_add(g, "idea", n + 1, c->idea_begin, c->idea_end, err)) < 0)
        return -1;
    if (c->formula_end > c->formula_begin &&
        (formula = segment_add(g, "formula", n + 1, c->formula_begin, c->formula_end, err)) < 0)
        return -1;
    results[n] = segment_add(g, "result", n + 1, c->result_begin, c->result_end, err);
    if (results[n] < 0) return -1;
    const int needing = formula >= 0 ? formula : results[n];
    edge_add(g, idea, needing);
    for (int i = 0; i < c->operand_count; i++) {
        const int from = result_of(t, n, c->operands[i]);
        if (from >= 0) edge_add(g, results[from], needing);
    }
    edge_add(g, formula, results[n]);
    return 0;
}

static int graph_make(CausalGraph *g, Text *t, const char *prompt, Error *err) {
    const size_t segments = 3 * (size_t)t->count + 1;
    const size_t edges = (2 + OPERANDS_MOST) * (size_t)t->count + 1;
    int results[CALCULATIONS_MOST];
    size_t begin, end;
    g->prompt = strdup(prompt);
    g->segments = calloc(segments, sizeof *g->segments);
    g->edges = calloc(edges, sizeof *g->edges);
    if (!g->prompt || !g->segments || !g->edges)
        return error_set(err, "out of memory for a causal graph");
    for (int n = 0; n < t->count; n++) TRY(calculation_segments(g, t, n, results, err));
    if (answer_find(t, &begin, &end)) {
        const int answer = segment_add(g, "answer", 0, begin, end, err);
        if (answer < 0) return -1;
        edge_add(g, results[t->count - 1], answer);
    }
    g->answer = t->clean, t->clean = NULL;
    return 0;
}

int calculations_graph(CausalGraph *graph, const char *prompt, const char *answer, Error *err) {
    Text *t = calloc(1, sizeof *t);
    *graph = (CausalGraph){0};
    if (!t) return error_set(err, "out of memory for a causal graph");
    int status = text_open(t, answer, err);
    if (status == 0) calculations_find(t);
    const bool none = t->count == 0;
    if (status == 0 && !none) status = graph_make(graph, t, prompt, err);
    const bool useless = status == 0 && (none || graph->edge_count == 0);
    if (status || useless) causal_graph_free(graph);
    free(t->clean), free(t);
    return status ? -1 : useless;
}
