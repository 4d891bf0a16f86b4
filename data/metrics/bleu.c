/* bleu.c - corpus BLEU, equal to sacrebleu's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/metrics/bleu.h"
#include "data/metrics/ngrams.h"
#include "kernels/names.h"

typedef struct Bleu {
    const BleuOptions *options;
    Codepoints text, scratch;
    Codepoints hypothesis, *references; /* words as numbers */
    int reference_count, capacity;      /* of this line; of `references` */
    Words words;
    Grams grams;
} Bleu;

static int line_words(Bleu *b, const char *line, Codepoints *words, Error *err) {
    TRY(codepoints_decode(&b->text, line, err));
    if (b->options->lowercase) TRY(codepoints_lower(&b->text, err));
    TRY(tokenize_codepoints(b->options->tokenize, &b->text, &b->scratch, err));
    return words_number_all(&b->words, &b->text, words, err);
}

/* Adds the counts of one line, whose words are set. */
static int add_line(Bleu *b, BleuScore *score, Error *err) {
    int64_t hyp_len = (int64_t)b->hypothesis.count, ref_len = 0;
    size_t most = b->hypothesis.count;
    for (int r = 0; r < b->reference_count; r++) {
        int64_t n = (int64_t)b->references[r].count;
        int64_t nearer = llabs(hyp_len - ref_len) - llabs(hyp_len - n);
        if (r == 0 || nearer > 0 || (nearer == 0 && n < ref_len)) ref_len = n;
        most += b->references[r].count;
    }
    score->hyp_len += hyp_len;
    score->ref_len += ref_len;
    for (int n = 1; n <= BLEU_ORDER; n++) {
        TRY(grams_begin(&b->grams, most, err));
        for (int r = 0; r < b->reference_count; r++)
            grams_add_reference(&b->grams, &b->references[r], n, GRAM_WORDS, r + 1);
        score->counts[n - 1] += grams_match(&b->grams, &b->hypothesis, n, GRAM_WORDS);
        score->totals[n - 1] += gram_count(b->hypothesis.count, n);
    }
    return 0;
}

/* The score from the counts, in sacrebleu's order of operations. */
static void finish(BleuScore *s, const BleuOptions *o) {
    s->bp = 1;
    if (s->hyp_len < s->ref_len)
        s->bp = s->hyp_len ? exp(1 - (double)s->ref_len / (double)s->hyp_len) : 0;
    s->ratio = s->ref_len ? (double)s->hyp_len / (double)s->ref_len : 0;
    s->score = 0;
    int64_t matches = 0;
    for (int n = 0; n < BLEU_ORDER; n++) s->precisions[n] = 0, matches += s->counts[n];
    if (!matches) return;
    double value = o->smooth_value;
    if (value == 0) value = o->smooth == BLEU_FLOOR ? 0.1 : 1;
    double halving = 1;
    int orders = BLEU_ORDER;
    for (int n = 0; n < BLEU_ORDER; n++) {
        double add = o->smooth == BLEU_ADD_K && n > 0 ? value : 0;
        double count = (double)s->counts[n] + add, total = (double)s->totals[n] + add;
        if (total == 0) break;
        if (o->effective_order) orders = n + 1;
        if (count != 0) {
            s->precisions[n] = 100 * count / total;
        } else if (o->smooth == BLEU_EXP) {
            halving *= 2;
            s->precisions[n] = 100 / (halving * total);
        } else if (o->smooth == BLEU_FLOOR) {
            s->precisions[n] = 100 * value / total;
        }
    }
    double sum = 0;
    for (int n = 0; n < orders; n++)
        sum += s->precisions[n] == 0 ? -9999999999.0 : log(s->precisions[n]);
    s->score = s->bp * exp(sum / orders);
}

/* The words of a line and of its references. */
static int take_line(Bleu *b, const char *hypothesis, const References *references, int64_t line,
                     Error *err) {
    const char *const *texts;
    int count = references_of(references, line, &texts);
    if (!count) return error_set(err, "BLEU: line %lld has no reference", (long long)line + 1);
    if (count > b->capacity) {
        Codepoints *more = realloc(b->references, (size_t)count * sizeof *more);
        if (!more) return error_set(err, "out of memory for %d references", count);
        b->references = more;
        for (; b->capacity < count; b->capacity++) more[b->capacity] = (Codepoints){0};
    }
    b->reference_count = count;
    TRY(line_words(b, hypothesis, &b->hypothesis, err));
    for (int r = 0; r < count; r++) TRY(line_words(b, texts[r], &b->references[r], err));
    return 0;
}

/* Takes a line's counts. */
typedef void (*TakeCounts)(void *user, int64_t line, const BleuScore *counts);

/* Counts all lines; *used is the number of references of each line, -1: differs. */
static int count_lines(const char *const *hypotheses, const References *references,
                       const BleuOptions *options, int *used, TakeCounts take, void *user,
                       Error *err) {
    int64_t count = references->count;
    if (count < 1) return error_set(err, "BLEU: nothing to score: %lld lines", (long long)count);
    Bleu b = {.options = options};
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        BleuScore line = {0};
        status = take_line(&b, hypotheses[i], references, i, err);
        if (i == 0) *used = b.reference_count;
        if (*used != b.reference_count) *used = -1;
        if (status == 0) status = add_line(&b, &line, err);
        if (status == 0) take(user, i, &line);
    }
    for (int r = 0; r < b.capacity; r++) codepoints_free(&b.references[r]);
    free(b.references);
    codepoints_free(&b.text);
    codepoints_free(&b.scratch);
    codepoints_free(&b.hypothesis);
    words_free(&b.words);
    grams_free(&b.grams);
    return status;
}

static void take_sum(void *user, int64_t line, const BleuScore *counts) {
    BleuScore *sum = user;
    (void)line;
    sum->hyp_len += counts->hyp_len, sum->ref_len += counts->ref_len;
    for (int n = 0; n < BLEU_ORDER; n++)
        sum->counts[n] += counts->counts[n], sum->totals[n] += counts->totals[n];
}

int bleu_corpus(const char *const *hypotheses, const References *references,
                const BleuOptions *options, BleuScore *score, Error *err) {
    *score = (BleuScore){0};
    TRY(count_lines(hypotheses, references, options, &score->references, take_sum, score, err));
    finish(score, options);
    return 0;
}

/* ---- For resampling. ---- */

enum { STAT_COUNTS = 2, STAT_TOTALS = STAT_COUNTS + BLEU_ORDER, STATS = STAT_TOTALS + BLEU_ORDER };

static void take_row(void *user, int64_t line, const BleuScore *counts) {
    const LineStats *stats = user;
    double *row = stats->rows + line * STATS;
    row[0] = (double)counts->hyp_len, row[1] = (double)counts->ref_len;
    for (int n = 0; n < BLEU_ORDER; n++) {
        row[STAT_COUNTS + n] = (double)counts->counts[n];
        row[STAT_TOTALS + n] = (double)counts->totals[n];
    }
}

static double score_sums(const double *sums, const void *user) {
    BleuScore score = {.hyp_len = (int64_t)sums[0], .ref_len = (int64_t)sums[1]};
    for (int n = 0; n < BLEU_ORDER; n++) {
        score.counts[n] = (int64_t)sums[STAT_COUNTS + n];
        score.totals[n] = (int64_t)sums[STAT_TOTALS + n];
    }
    finish(&score, user);
    return score.score;
}

int bleu_stats(const char *const *hypotheses, const References *references,
               const BleuOptions *options, LineStats *stats, Error *err) {
    int used = 0;
    TRY(line_stats_open(stats, references->count, STATS, err));
    stats->score = score_sums, stats->user = options;
    if (!count_lines(hypotheses, references, options, &used, take_row, stats, err)) return 0;
    line_stats_free(stats);
    return -1;
}

const char *const bleu_smooth_names[] = {"exp", "none", "floor", "add-k", NULL};

bool bleu_smooth_find(const char *name, BleuSmooth *smooth) {
    int value = names_find(bleu_smooth_names, name);
    if (value >= 0) *smooth = (BleuSmooth)value;
    return value >= 0;
}

void bleu_signature(const BleuScore *score, const BleuOptions *o, char out[SIGNATURE_SIZE]) {
    char references[16] = "var", value[32] = "";
    if (score->references >= 0) snprintf(references, sizeof references, "%d", score->references);
    if (o->smooth == BLEU_FLOOR || o->smooth == BLEU_ADD_K)
        snprintf(value, sizeof value, "[%.2f]",
                 o->smooth_value != 0      ? o->smooth_value
                 : o->smooth == BLEU_FLOOR ? 0.1
                                           : 1);
    snprintf(out, SIGNATURE_SIZE, "nrefs:%s|case:%s|eff:%s|tok:%s|smooth:%s%s", references,
             o->lowercase ? "lc" : "mixed", o->effective_order ? "yes" : "no",
             tokenize_name(o->tokenize), bleu_smooth_names[o->smooth], value);
}

void bleu_line(const BleuScore *s, char out[BLEU_LINE_SIZE]) {
    snprintf(out, BLEU_LINE_SIZE,
             "BLEU = %.2f %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = %lld "
             "ref_len = %lld)",
             s->score, s->precisions[0], s->precisions[1], s->precisions[2], s->precisions[3],
             s->bp, s->ratio, (long long)s->hyp_len, (long long)s->ref_len);
}
