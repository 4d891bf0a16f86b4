#include "apps/show/fold.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/names.h"

/* Tokens that end a text or a turn fill the rest of a canvas: shown as dots, apart from each other. */
static const char *const ends[] = {"</s>",       "<|endoftext|>", "<|end_of_text|>",
                                   "<|eot_id|>", "<|im_end|>",    NULL};
static const char dot[] = "\xe2\x96\x81\xc2\xb7"; /* U+2581, a word's space; U+00B7 */

/* Replaces the cell of `to` by that of `from`. */
static void stay(TraceEntry *to, const TraceEntry *from) {
    to->id = from->id, to->piece = from->piece, to->score = from->score, to->masked = from->masked;
}

static TraceEntry *entry_at(const TraceHypothesis *h, int step, int position) {
    return h->entries + (size_t)step * (size_t)h->length + position;
}

static bool has_word(const TraceEntry *e, int32_t id) {
    return !e->masked && e->id == id;
}

/* The last step from `step` on that has its token, or, if another token replaces it, the step
 * before that. */
static int last_step(const TraceHypothesis *h, int step, int position) {
    int32_t id = entry_at(h, step, position)->id;
    int last = step, next;
    for (int s = step + 1; s < h->steps; s++)
        if (has_word(entry_at(h, s, position), id)) last = s;
    for (next = last + 1; next < h->steps && entry_at(h, next, position)->masked;) next++;
    bool ends_masked = next == h->steps && h->steps >= h->planned;
    return ends_masked ? last : next - 1;
}

static void fold_position(TraceHypothesis *h, int position) {
    for (int s = 0; s < h->steps; s++) {
        const TraceEntry *word = entry_at(h, s, position);
        if (word->masked) continue;
        for (int last = last_step(h, s, position); s < last; s++) {
            TraceEntry *next = entry_at(h, s + 1, position);
            if (has_word(next, word->id))
                word = next; /* with its current probability */
            else
                stay(next, word);
        }
    }
}

static int fold_hypothesis(TraceHypothesis *h, Error *err) {
    size_t bytes = (size_t)h->steps * (size_t)h->length * sizeof *h->entries;
    TraceEntry *entries = malloc(bytes ? bytes : 1);
    if (!entries) return error_set(err, "out of memory for the trace to be shown");
    if (bytes) memcpy(entries, h->entries, bytes);
    h->entries = entries;
    for (int i = 0; i < h->length; i++) fold_position(h, i);
    for (int i = 0; i < h->steps * h->length; i++)
        if (!entries[i].masked && names_find(ends, entries[i].piece) >= 0) entries[i].piece = dot;
    return 0;
}

int fold_make(Trace *shown, const Trace *trace, Error *err) {
    size_t bytes = (size_t)trace->count * sizeof *trace->hypotheses;
    *shown = *trace;
    shown->count = 0;
    shown->hypotheses = malloc(bytes ? bytes : 1);
    if (!shown->hypotheses) return error_set(err, "out of memory for the trace to be shown");
    if (bytes) memcpy(shown->hypotheses, trace->hypotheses, bytes);
    for (int i = 0; i < trace->count; i++) {
        if (fold_hypothesis(&shown->hypotheses[i], err)) {
            fold_free(shown);
            return -1;
        }
        shown->count++;
    }
    return 0;
}

void fold_free(Trace *shown) {
    for (int i = 0; i < shown->count; i++) free(shown->hypotheses[i].entries);
    free(shown->hypotheses);
    *shown = (Trace){.best = -1};
}
