#include "apps/eval/order_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/eval/items.h"
#include "apps/cli/report.h"
#include "data/files/json_memory.h"

/* Totals of causal graphs. */
typedef struct GraphTotals {
    int64_t answers, matched, edges, strict, lax, sorts_strict, sorts_lax;
    double chance_strict, chance_lax, chance_sort_strict, chance_sort_lax;
} GraphTotals;

static bool item_matched(const OrderItem *item) {
    return item->graph >= 0 && item->result.missing < 0 && !item->result.unfinished;
}

static GraphTotals graph_totals(const OrderReport *r) {
    GraphTotals t = {0};
    for (size_t i = 0; i < r->set->count; i++) {
        const OrderGraphResult *g = &r->items[i].result;
        t.answers += r->items[i].graph >= 0;
        if (!item_matched(&r->items[i])) continue;
        t.matched++, t.edges += r->graphs->items[r->items[i].graph].edge_count;
        t.strict += g->strict, t.lax += g->lax;
        t.sorts_strict += g->sort_strict, t.sorts_lax += g->sort_lax;
        t.chance_strict += g->chance_strict, t.chance_lax += g->chance_lax;
        t.chance_sort_strict += g->chance_sort_strict, t.chance_sort_lax += g->chance_sort_lax;
    }
    return t;
}

/* ---- Fixed words. ---- */

typedef struct FixedWord {
    const char *word;
    int64_t answers;
} FixedWord;

static int compare_words(const void *a, const void *b) {
    const FixedWord *x = a, *y = b;
    if (x->answers != y->answers) return x->answers < y->answers ? 1 : -1;
    return strcmp(x->word, y->word);
}

/* The commonest first; the caller's to free. NULL: out of memory. */
static FixedWord *fixed_words(const OrderReport *r, size_t *count) {
    const OrderSet *set = r->set;
    bool *seen = calloc(set->forms.count + 1, sizeof *seen);
    FixedWord *words = calloc(set->forms.count + 1, sizeof *words);
    *count = 0;
    for (size_t i = 0; i < set->count && seen && words; i++)
        for (int w = 0; w < set->answers[i].word_count; w++) {
            const OrderSetWord *word = &set->answers[i].words[w];
            if (word->class != ORDER_FIXED || seen[word->form]) continue;
            seen[word->form] = true;
            words[(*count)++] =
                (FixedWord){text_table_get(&set->forms, word->form), set->form_answers[word->form]};
        }
    bool failed = !seen || !words;
    free(seen);
    if (failed) return free(words), NULL;
    qsort(words, *count, sizeof *words, compare_words);
    return words;
}

/* ---- The table. ---- */

static void print_ratio(FILE *out, const char *name, const OrderRatio *r, double scale,
                        const char *unit) {
    if (isnan(r->value)) {
        fprintf(out, "  %-34s %9s\n", name, "-");
        return;
    }
    fprintf(out, "  %-34s %9.*f%s", name, scale > 1 ? 1 : 3, scale * r->value, unit);
    if (isnan(r->interval.low))
        fprintf(out, "  %-18s", "");
    else
        fprintf(out, "  [%7.*f, %7.*f]", scale > 1 ? 1 : 3, scale * r->interval.low,
                scale > 1 ? 1 : 3, scale * r->interval.high);
}

/* A ratio with what it was counted over. */
static void print_line(FILE *out, const char *name, const OrderRatio *r, double scale,
                       const char *unit, const char *of) {
    char weight[REPORT_NUMBER_SIZE];
    print_ratio(out, name, r, scale, unit);
    if (isnan(r->value)) return;
    report_number(weight, (int64_t)r->weight);
    fprintf(out, "  %10s %s\n", weight, of);
}

static void print_pairs(FILE *out, const char *name, const OrderRatio *r, double chance,
                        int64_t ties) {
    char pairs[REPORT_NUMBER_SIZE];
    print_ratio(out, name, r, 1, "  ");
    if (isnan(r->value)) return;
    report_number(pairs, (int64_t)r->weight);
    fprintf(out, "  %6.3f  %10s pairs, %.1f %% ties, %lld answers\n", chance, pairs,
            100.0 * (double)ties / r->weight, (long long)r->answers);
}

static int print_easy(FILE *out, const OrderReport *r, Error *err) {
    enum { SHOWN = 16 };
    const OrderSummary *s = r->summary;
    const OrderRatio *n = s->numbers;
    size_t count;
    FixedWord *fixed = fixed_words(r, &count);
    if (!fixed) return error_set(err, "out of memory for the fixed words");
    fputs("written before a content word (1: always)                            random\n", out);
    print_pairs(out, "a fixed or copied word", &n[ORDER_EASY_FIRST], s->chance[EASY_BOTH],
                s->ties[EASY_BOTH]);
    print_pairs(out, "  a fixed word", &n[ORDER_FIXED_FIRST], s->chance[EASY_FIXED],
                s->ties[EASY_FIXED]);
    print_pairs(out, "  a copied word", &n[ORDER_COPIED_FIRST], s->chance[EASY_COPIED],
                s->ties[EASY_COPIED]);
    print_pairs(out, "a fixed or copied word, first seen", &n[ORDER_SEEN_FIRST], s->seen_chance,
                s->seen_ties);
    fprintf(out, "  words: %lld fixed, %lld copied, %lld content\n",
            (long long)s->classes[ORDER_FIXED], (long long)s->classes[ORDER_COPIED],
            (long long)s->classes[ORDER_CONTENT]);
    fprintf(out, "  fixed (in %g %% of the answers or more):", 100 * r->fixed_share);
    for (size_t i = 0; i < count && i < SHOWN; i++) {
        putc(' ', out);
        report_field(out, fixed[i].word);
    }
    fputs(count > SHOWN ? " ...\n" : count ? "\n" : " none\n", out);
    free(fixed);
    return 0;
}

static void print_histogram(FILE *out, const OrderSummary *s) {
    int64_t most = 1;
    for (int b = 0; b < ORDER_BINS; b++)
        if (s->bins[b] > most) most = s->bins[b];
    fputs("\nKendall's tau-b of place and step, answers\n", out);
    for (int b = 0; b < ORDER_BINS; b++) {
        fprintf(out, "  %5.1f to %4.1f %7lld  ", -1 + b * 2.0 / ORDER_BINS,
                -1 + (b + 1) * 2.0 / ORDER_BINS, (long long)s->bins[b]);
        int length = (int)((50 * s->bins[b] + most - 1) / most);
        for (int i = 0; i < length; i++) putc('#', out);
        putc('\n', out);
    }
}

/* At most a dozen evenly spaced steps, always with the last one. */
static void print_points(FILE *out, const OrderSummary *s) {
    enum { ROWS = 12 };
    fputs("\n  step   answers   filled   mean probability of written tokens\n", out);
    int rows = s->point_count < ROWS ? s->point_count : ROWS;
    for (int row = 1; row <= rows; row++) {
        int step = (int)((int64_t)s->point_count * row / rows);
        const OrderPoint *p = &s->points[step - 1];
        fprintf(out, "%6d %9lld %6.1f %%", step, (long long)p->answers, 100 * p->filled);
        if (isnan(p->confidence))
            fputs("   -\n", out);
        else
            fprintf(out, "   %.3f\n", p->confidence);
    }
}

static double share(double part, int64_t whole) {
    return 100 * part / (double)whole;
}

static void print_missing(FILE *out, const OrderReport *r) {
    enum { SHOWN = 10 };
    int shown = 0;
    for (size_t i = 0; i < r->set->count; i++) {
        const OrderItem *item = &r->items[i];
        if (item->graph < 0 || item_matched(item)) continue;
        if (shown++ == SHOWN) {
            fputs("  ...\n", out);
            return;
        }
        fputs("  not matched: ", out);
        report_field(out, item->id);
        if (item->result.missing >= 0) {
            fputs(" has no \"", out);
            const CausalGraph *g = &r->graphs->items[item->graph];
            report_field(out, g->segments[item->result.missing].name);
            fputs("\": \"", out);
        } else {
            fputs(" has empty places: \"", out);
        }
        report_field(out, item->answer), fputs("\"\n", out);
    }
}

static void print_graphs(FILE *out, const OrderReport *r) {
    GraphTotals t = graph_totals(r);
    if (r->own_graphs)
        fprintf(out,
                "\ncausal graphs of the answers' own calculations: %zu; answers without: %zu\n",
                r->graphs->count, r->graphs->left_out);
    else
        fprintf(out, "\ncausal graphs: %zu in the file; answers to them: %lld, matched: %lld\n",
                r->graphs->count, (long long)t.answers, (long long)t.matched);
    if (!r->own_graphs && r->graphs->left_out)
        fprintf(out, "  %zu lines of the file have no calculation\n", r->graphs->left_out);
    if (t.matched) {
        fputs("                                 strictly   random   or at once   random\n", out);
        fprintf(out, "  edges respected    %9lld %8.1f %% %6.1f %% %10.1f %% %6.1f %%\n",
                (long long)t.edges, share((double)t.strict, t.edges),
                share(t.chance_strict, t.edges), share((double)t.lax, t.edges),
                share(t.chance_lax, t.edges));
        fprintf(out, "  topological sorts  %9lld %8.1f %% %6.1f %% %10.1f %% %6.1f %%\n",
                (long long)t.matched, share((double)t.sorts_strict, t.matched),
                share(t.chance_sort_strict, t.matched), share((double)t.sorts_lax, t.matched),
                share(t.chance_sort_lax, t.matched));
        fprintf(out, "  written in an order that their graphs allow: %lld of %lld answers\n",
                (long long)t.sorts_lax, (long long)t.matched);
    }
    print_missing(out, r);
}

/* The strategy, if all answers have the same. */
static const char *strategies(const OrderReport *r) {
    for (size_t i = 1; i < r->set->count; i++)
        if (strcmp(r->items[i].strategy, r->items[0].strategy)) return "several strategies";
    return r->set->count ? r->items[0].strategy : "";
}

int order_report_text(FILE *out, const OrderReport *r, Error *err) {
    const OrderSummary *s = r->summary;
    const OrderRatio *n = s->numbers;
    char answers[REPORT_NUMBER_SIZE], tokens[REPORT_NUMBER_SIZE];
    report_number(answers, (int64_t)r->set->count), report_number(tokens, s->counts.places);
    fprintf(out, "%s answer%s of %s tokens, %s; in brackets 95 %% intervals\n\n", answers,
            r->set->count == 1 ? "" : "s", tokens, strategies(r));
    TRY(print_easy(out, r, err));
    fputs("\nerased\n", out);
    print_line(out, "places erased at least once", &n[ORDER_ERASED], 100, " %", "places");
    print_line(out, "answers with an erasure", &n[ORDER_WITH_ERASURE], 100, " %", "answers");
    print_line(out, "erasures an answer", &n[ORDER_ERASURES], 1, "  ", "answers");
    print_line(out, "the same token came back", &n[ORDER_RETURNS], 100, " %", "erasures");
    fputs("\nfrom left to right (1), from right to left (-1)\n", out);
    print_line(out, "Kendall's tau-b", &n[ORDER_KENDALL], 1, "  ", "answers");
    print_line(out, "Spearman's rho", &n[ORDER_SPEARMAN], 1, "  ", "answers");
    fputs("\nat once\n", out);
    print_line(out, "steps that wrote several places", &n[ORDER_SEVERAL], 100, " %",
               "steps that wrote");
    print_line(out, "places written in a step", &n[ORDER_STEP_WRITES], 1, "  ", "steps that wrote");
    if (s->counts.unfinished)
        fprintf(out, "\n%lld places that are empty at the end\n", (long long)s->counts.unfinished);
    print_histogram(out, s);
    print_points(out, s);
    if (r->graphs) print_graphs(out, r);
    return 0;
}

/* ---- JSON. ---- */

static json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *json_ratio(const OrderRatio *r) {
    return json_pack("{s:o, s:o, s:o, s:f, s:f, s:I}", "value", json_number(r->value), "low",
                     json_number(r->interval.low), "high", json_number(r->interval.high), "sum",
                     r->sum, "of", r->weight, "answers", (json_int_t)r->answers);
}

static json_t *json_counts(const OrderCounts *c) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "places",
                     (json_int_t)c->places, "written", (json_int_t)c->written, "unfinished",
                     (json_int_t)c->unfinished, "erased", (json_int_t)c->erased, "writes",
                     (json_int_t)c->writes, "erasures", (json_int_t)c->erasures, "rewrites",
                     (json_int_t)c->rewrites, "returns", (json_int_t)c->returns, "steps",
                     (json_int_t)c->steps, "writing_steps", (json_int_t)c->writing_steps,
                     "several_steps", (json_int_t)c->several_steps);
}

static json_t *json_summary(const OrderSummary *s) {
    static const char *const names[ORDER_NUMBERS] = {
        "easy_first",   "fixed_first", "copied_first", "seen_first", "erased",  "erasures",
        "with_erasure", "returns",     "kendall",      "spearman",   "several", "writes_a_step"};
    static const char *const easy[EASY_COUNT] = {"fixed", "copied", "fixed_or_copied"};
    json_t *object = json_object(), *words = json_object(), *pairs = json_object();
    json_t *bins = json_array(), *points = json_array();
    for (int n = 0; n < ORDER_NUMBERS; n++)
        json_object_set_new(object, names[n], json_ratio(&s->numbers[n]));
    for (int c = 0; c < ORDER_CLASSES; c++)
        json_object_set_new(words, order_class_name((OrderClass)c), json_integer(s->classes[c]));
    for (int e = 0; e < EASY_COUNT; e++)
        json_object_set_new(pairs, easy[e],
                            json_pack("{s:I, s:I, s:o}", "pairs", (json_int_t)s->pairs[e], "ties",
                                      (json_int_t)s->ties[e], "chance", json_number(s->chance[e])));
    json_object_set_new(pairs, "seen",
                        json_pack("{s:I, s:I, s:o}", "pairs", (json_int_t)s->pairs[EASY_BOTH],
                                  "ties", (json_int_t)s->seen_ties, "chance",
                                  json_number(s->seen_chance)));
    json_object_set_new(object, "counts", json_counts(&s->counts));
    json_object_set_new(object, "words", words);
    json_object_set_new(object, "pairs", pairs);
    json_object_set_new(object, "kendall_histogram", bins);
    json_object_set_new(object, "by_step", points);
    return object;
}

static json_t *json_words(const OrderSet *set, const OrderAnswer *a) {
    json_t *list = json_array();
    for (int w = 0; w < a->word_count; w++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "word",
                                              text_table_get(&set->forms, a->words[w].form),
                                              "class", order_class_name(a->words[w].class), "step",
                                              a->words[w].time, "seen", a->words[w].seen));
    return list;
}

static json_t *json_places(const OrderAnswer *a) {
    json_t *list = json_array();
    for (int i = 0; i < a->length; i++) {
        size_t begin = i ? a->ends[i - 1] : 0;
        json_array_append_new(list,
                              json_pack("{s:o, s:i, s:i, s:i}", "text",
                                        json_stringn(a->text + begin, a->ends[i] - begin), "first",
                                        a->tokens[i].first, "last", a->tokens[i].last, "erasures",
                                        a->tokens[i].erasures));
    }
    return list;
}

static json_t *json_graph_result(const OrderReport *r, const OrderItem *item) {
    const CausalGraph *g = &r->graphs->items[item->graph];
    const OrderGraphResult *result = &item->result;
    json_t *object =
        json_pack("{s:i, s:b}", "graph", item->graph + 1, "matched", item_matched(item));
    if (result->missing >= 0)
        json_object_set_new(object, "missing", json_string(g->segments[result->missing].name));
    if (!item_matched(item)) return object;
    json_t *times = json_array(), *against = json_array();
    for (int s = 0; s < g->segment_count; s++)
        json_array_append_new(times, json_pack("{s:s, s:i}", "segment", g->segments[s].name, "step",
                                               result->times[s]));
    for (int e = 0; e < g->edge_count; e++) {
        CausalEdge edge = g->edges[e];
        if (result->times[edge.before] < result->times[edge.after]) continue;
        json_array_append_new(against,
                              json_pack("{s:s, s:s, s:b}", "before", g->segments[edge.before].name,
                                        "after", g->segments[edge.after].name, "same_step",
                                        result->times[edge.before] == result->times[edge.after]));
    }
    json_object_set_new(object, "segments", times);
    json_object_set_new(object, "not_in_order", against);
    json_object_update_new(
        object,
        json_pack("{s:i, s:i, s:i, s:b, s:b, s:f, s:f, s:f, s:f}", "edges", g->edge_count, "strict",
                  result->strict, "lax", result->lax, "sort_strict", result->sort_strict,
                  "sort_lax", result->sort_lax, "chance_strict", result->chance_strict,
                  "chance_lax", result->chance_lax, "chance_sort_strict",
                  result->chance_sort_strict, "chance_sort_lax", result->chance_sort_lax));
    return object;
}

static json_t *json_item(const OrderReport *r, size_t index) {
    const OrderItem *item = &r->items[index];
    const OrderAnswer *a = &r->set->answers[index];
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "id", json_text(item->id), "prompt",
        json_text(item->prompt), "answer", json_text(item->answer), "strategy", item->strategy,
        "counts", json_counts(&a->counts), "kendall", json_number(a->kendall), "spearman",
        json_number(a->spearman), "tokens", json_places(a), "words", json_words(r->set, a));
    if (item->image) json_object_set_new(object, "image", json_text(item->image));
    if (item->graph >= 0) json_object_set_new(object, "causal_graph", json_graph_result(r, item));
    return object;
}

static json_t *json_graph_totals(const OrderReport *r) {
    GraphTotals t = graph_totals(r);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "graphs",
                     (json_int_t)r->graphs->count, "left_out", (json_int_t)r->graphs->left_out,
                     "answers", (json_int_t)t.answers, "matched", (json_int_t)t.matched, "edges",
                     (json_int_t)t.edges, "strict", (json_int_t)t.strict, "lax", (json_int_t)t.lax,
                     "sorts_strict", (json_int_t)t.sorts_strict, "sorts_lax",
                     (json_int_t)t.sorts_lax, "chance_strict", t.chance_strict, "chance_lax",
                     t.chance_lax, "chance_sorts_strict", t.chance_sort_strict, "chance_sorts_lax",
                     t.chance_sort_lax);
}

json_t *order_report_json(const OrderReport *r, json_t *settings) {
    json_memory_begin();
    size_t count;
    FixedWord *fixed = fixed_words(r, &count);
    json_t *words = json_array(), *items = json_array();
    for (size_t i = 0; i < count && fixed; i++)
        json_array_append_new(words, json_pack("{s:s, s:I}", "word", fixed[i].word, "answers",
                                               (json_int_t)fixed[i].answers));
    free(fixed);
    for (size_t i = 0; i < r->set->count; i++) json_array_append_new(items, json_item(r, i));
    json_t *object = json_pack(
        "{s:o, s:I, s:o, s:f, s:o, s:o, s:o}", "settings", settings, "answers",
        (json_int_t)r->set->count, "skipped", eval_skipped_json(r->skipped), "fixed_share",
        r->fixed_share, "fixed_words", words, "summary", json_summary(r->summary), "items", items);
    if (r->graphs && object) json_object_set_new(object, "causal_graphs", json_graph_totals(r));
    if (json_memory_failed()) {
        json_decref(object);
        return NULL;
    }
    return object;
}
