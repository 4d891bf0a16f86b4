#include "apps/eval/items.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "apps/cli/report.h"
#include "kernels/clean_text.h"

void eval_items_free(EvalItems *items) {
    for (int64_t i = 0; i < items->count && items->items; i++) {
        EvalItem *item = &items->items[i];
        free(item->prompt), free(item->answer), free(item->map), free(item->why);
    }
    free(items->items);
    *items = (EvalItems){0};
}

float eval_map_value(double value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.6f", value);
    return strtof(digits, NULL);
}

double eval_score_value(double score) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.4f", score);
    return strtod(digits, NULL) + 0; /* -0 becomes 0 */
}

int eval_item_bad(EvalItem *item, const char *kind, Error *err, const char *format, ...) {
    if (item->kind) return 0;
    va_list args;
    va_start(args, format);
    int size = vasprintf(&item->why, format, args);
    va_end(args);
    if (size < 0) {
        item->why = NULL;
        return error_set(err, "out of memory for a message");
    }
    clean_text(item->why);
    item->kind = kind;
    return 0;
}

int64_t eval_items_skipped(const EvalItems *items, Skipped *skipped) {
    int64_t unanswered = 0;
    for (int64_t i = 0; i < items->count; i++) {
        const EvalItem *item = &items->items[i];
        if (item->skipped) continue;
        unanswered += !item->answer;
        if (item->kind) skipped_add(skipped, item->kind, "%s: %s", item->id, item->why);
    }
    return unanswered;
}

EvalLong eval_items_long(const EvalItems *items) {
    EvalLong all = {0};
    for (int64_t i = 0; i < items->count; i++) {
        const EvalItem *item = &items->items[i];
        if (!item->skipped && !item->dropped) continue;
        if (!all.first) all.first = item;
        all.skipped += item->skipped;
        all.shortened += item->dropped > 0;
        all.dropped += item->dropped;
    }
    return all;
}

json_t *eval_skipped_json(const Skipped *skipped) {
    json_t *object = json_object();
    for (int i = 0; i < skipped->kind_count && object; i++) {
        const SkippedKind *p = &skipped->kinds[i];
        json_t *one =
            json_pack("{s:I, s:o}", "count", (json_int_t)p->count, "first", json_text(p->first));
        if (!one || json_object_set_new(object, p->kind, one)) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}
