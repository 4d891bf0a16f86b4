/* order_report.h - the decoding order as a table and as JSON.
 *
 * JSON, one object; undefined values are null:
 *
 *   settings       what it was measured with (apps/eval/result.h), of --from little
 *   answers        how many
 *   skipped        {kind: {"count", "first"}} of what was left out
 *   long_prompts   {"skipped", "shortened"}: prompts that were too long
 *   fixed_share    from which share of the answers on a word is fixed
 *   fixed_words    [{"word", "answers"}], the commonest first
 *   summary        the numbers of order_summary.h: easy_first, fixed_first, copied_first,
 *                  seen_first, erased, erasures, with_erasure, returns, kendall, spearman,
 *                  several, writes_a_step, each {"value", "low", "high", "sum", "of",
 *                  "answers"}; and their totals: counts, words, pairs
 *     kendall_histogram  20 bins of [-1, 1]
 *     by_step      [{"step", "answers", "filled", "confidence"}]
 *   items          for each answer {"id", "prompt", "image", "answer", "strategy", "counts",
 *                  "kendall", "spearman"}, and
 *     tokens       [{"text", "first", "last", "erasures"}], steps from 1 (order.h)
 *     words        [{"word", "class", "step", "seen"}] (order_set.h)
 *     causal_graph {"graph": its number in the file, "matched", "missing": a segment}; if
 *                  matched, order_graph.h's numbers, "segments": [{"segment", "step"}] and
 *                  "not_in_order": [{"before", "after", "same_step"}]
 *   causal_graphs  these, added up; only with --graphs or --calculations. "left_out": of GSM8K's lines
 *                  or of the answers, those without a calculation
 */
#ifndef EASYFIRST_APPS_EVAL_ORDER_REPORT_H
#define EASYFIRST_APPS_EVAL_ORDER_REPORT_H

#include <stdio.h>

#include <jansson.h>

#include "data/metrics/order_graph.h"
#include "data/metrics/order_summary.h"
#include "data/sets/skipped.h"

/* What is known of an answer in addition to the set's numbers. */
typedef struct OrderItem {
    char *id, *prompt, *image; /* image may be NULL */
    char *answer;
    char *strategy;
    int graph;               /* index of its causal graph; -1: it has none */
    OrderGraphResult result; /* of it */
} OrderItem;

typedef struct OrderReport {
    const OrderSet *set;
    const OrderSummary *summary;
    const OrderItem *items;     /* [set->count] */
    const CausalGraphs *graphs; /* NULL: none were given */
    bool own_graphs;            /* the answers' own, by --calculations */
    double fixed_share;         /* 0 to 1 */
    const Skipped *skipped;
} OrderReport;

/* Lines on `out`. */
int order_report_text(FILE *out, const OrderReport *report, Error *err);

/* Everything, with each answer's tokens and words. Takes ownership of `settings`. NULL: out of
 * memory. */
json_t *order_report_json(const OrderReport *report, json_t *settings);

#endif
