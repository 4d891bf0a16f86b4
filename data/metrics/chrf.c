/* chrf.c - chrF and chrF++, equal to sacrebleu's. */
#include <stdio.h>
#include <stdlib.h>

#include "data/metrics/chrf.h"
#include "data/metrics/ngrams.h"

/* One text: its characters, and with chrF++ its words as numbers. */
typedef struct Side {
    Codepoints text, characters, words;
} Side;

typedef struct Counts {
    int64_t hypothesis[CHRF_ORDERS], reference[CHRF_ORDERS], match[CHRF_ORDERS];
} Counts;

typedef struct Chrf {
    const ChrfOptions *options;
    int orders;
    Side hypothesis, reference;
    Words words;
    Grams grams;
} Chrf;

static void side_free(Side *side) {
    codepoints_free(&side->text);
    codepoints_free(&side->characters);
    codepoints_free(&side->words);
}

static int add_word(Chrf *c, Side *side, size_t begin, size_t end, Error *err) {
    uint32_t number;
    TRY(words_number(&c->words, side->text.items + begin, (end - begin) * sizeof *side->text.items,
                     &number, err));
    return codepoints_append(&side->words, number, err);
}

static int side_set(Chrf *c, Side *side, const char *line, Error *err) {
    Codepoints *text = &side->text;
    TRY(codepoints_decode(text, line, err));
    if (c->options->lowercase) TRY(codepoints_lower(text, err));
    side->characters.count = side->words.count = 0;
    for (size_t i = 0; i < text->count; i++)
        if (c->options->whitespace || !codepoint_is_space(text->items[i]))
            TRY(codepoints_append(&side->characters, text->items[i], err));
    if (!c->options->words) return 0;
    /* One punctuation mark at a word's end, or else at its beginning, is a word of its own. */
    for (size_t begin, end = 0; codepoints_next_word(text, &begin, &end);) {
        size_t cut = end;
        if (end - begin > 1 && codepoint_is_punctuation(text->items[end - 1]))
            cut = end - 1;
        else if (end - begin > 1 && codepoint_is_punctuation(text->items[begin]))
            cut = begin + 1;
        TRY(add_word(c, side, begin, cut, err));
        if (cut < end) TRY(add_word(c, side, cut, end, err));
    }
    return 0;
}

static int count_line(Chrf *c, Counts *counts, Error *err) {
    for (int i = 0; i < c->orders; i++) {
        bool words = i >= CHRF_CHAR_ORDER;
        const Codepoints *h = words ? &c->hypothesis.words : &c->hypothesis.characters;
        const Codepoints *r = words ? &c->reference.words : &c->reference.characters;
        int n = words ? i - CHRF_CHAR_ORDER + 1 : i + 1,
            bits = words ? GRAM_WORDS : GRAM_CHARACTERS;
        TRY(grams_begin(&c->grams, h->count + r->count, err));
        grams_add_reference(&c->grams, r, n, bits, 1);
        counts->match[i] = grams_match(&c->grams, h, n, bits);
        counts->reference[i] = gram_count(r->count, n);
        /* Without n-grams of the reference, the hypothesis's do not count. */
        counts->hypothesis[i] = counts->reference[i] ? gram_count(h->count, n) : 0;
    }
    return 0;
}

static int order_count(const ChrfOptions *options) {
    return options->words ? CHRF_ORDERS : CHRF_CHAR_ORDER;
}

/* The F-score of counts, 0..100, in sacrebleu's order of operations. */
static double f_score(const ChrfOptions *options, const Counts *counts) {
    const double eps = 1e-16, factor = CHRF_BETA * CHRF_BETA;
    double score = 0, precisions = 0, recalls = 0;
    int effective = 0;
    const int orders = order_count(options);
    for (int i = 0; i < orders; i++) {
        double h = (double)counts->hypothesis[i], r = (double)counts->reference[i];
        double match = (double)counts->match[i];
        double precision = h > 0 ? match / h : eps, recall = r > 0 ? match / r : eps;
        double denominator = factor * precision + recall;
        score += denominator > 0 ? (1 + factor) * precision * recall / denominator : eps;
        if (h > 0 && r > 0) precisions += precision, recalls += recall, effective++;
    }
    if (options->eps) return 100 * score / orders;
    if (effective) precisions /= effective, recalls /= effective;
    if (precisions + recalls == 0) return 0;
    return 100 * ((1 + factor) * precisions * recalls / (factor * precisions + recalls));
}

/* The counts against the reference that scores best. */
static int best_counts(Chrf *c, const References *references, int64_t line, Counts *best, int *used,
                       Error *err) {
    const char *const *texts;
    *best = (Counts){0};
    double best_f = -1;
    *used = references_of(references, line, &texts);
    for (int r = 0; r < *used; r++) {
        Counts counts;
        TRY(side_set(c, &c->reference, texts[r], err));
        TRY(count_line(c, &counts, err));
        double f = *used > 1 ? f_score(c->options, &counts) : 0;
        if (f > best_f) *best = counts, best_f = f;
    }
    if (!*used) return error_set(err, "chrF: line %lld has no reference", (long long)line + 1);
    return 0;
}

/* Takes a line's counts. */
typedef void (*TakeCounts)(void *user, int64_t line, const Counts *counts);

/* Counts all lines; *used is the number of references of each line, -1: differs. */
static int count_lines(const char *const *hypotheses, const References *references,
                       const ChrfOptions *options, int *used, TakeCounts take, void *user,
                       Error *err) {
    int64_t count = references->count;
    if (count < 1) return error_set(err, "chrF: nothing to score: %lld lines", (long long)count);
    Chrf c = {.options = options, .orders = order_count(options)};
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        Counts line;
        int texts = 0;
        status = side_set(&c, &c.hypothesis, hypotheses[i], err);
        if (status == 0) status = best_counts(&c, references, i, &line, &texts, err);
        if (i == 0) *used = texts;
        if (*used != texts) *used = -1;
        if (status == 0) take(user, i, &line);
    }
    side_free(&c.hypothesis);
    side_free(&c.reference);
    words_free(&c.words);
    grams_free(&c.grams);
    return status;
}

static void take_sum(void *user, int64_t line, const Counts *counts) {
    Counts *sums = user;
    (void)line;
    for (int i = 0; i < CHRF_ORDERS; i++) {
        sums->hypothesis[i] += counts->hypothesis[i];
        sums->reference[i] += counts->reference[i];
        sums->match[i] += counts->match[i];
    }
}

int chrf_corpus(const char *const *hypotheses, const References *references,
                const ChrfOptions *options, ChrfScore *score, Error *err) {
    Counts sums = {0};
    *score = (ChrfScore){0};
    TRY(count_lines(hypotheses, references, options, &score->references, take_sum, &sums, err));
    for (int i = 0; i < CHRF_ORDERS; i++) {
        score->hypothesis[i] = sums.hypothesis[i];
        score->reference[i] = sums.reference[i];
        score->match[i] = sums.match[i];
    }
    score->score = f_score(options, &sums);
    return 0;
}

/* ---- For resampling: of each order the hypothesis's n-grams, the reference's, and both's. ---- */

static void take_row(void *user, int64_t line, const Counts *counts) {
    const LineStats *stats = user;
    double *row = stats->rows + line * stats->width;
    for (int i = 0; i < stats->width / 3; i++) {
        row[3 * i] = (double)counts->hypothesis[i];
        row[3 * i + 1] = (double)counts->reference[i];
        row[3 * i + 2] = (double)counts->match[i];
    }
}

static double score_sums(const double *sums, const void *user) {
    const ChrfOptions *options = user;
    Counts counts = {0};
    for (int i = 0; i < order_count(options); i++) {
        counts.hypothesis[i] = (int64_t)sums[3 * i];
        counts.reference[i] = (int64_t)sums[3 * i + 1];
        counts.match[i] = (int64_t)sums[3 * i + 2];
    }
    return f_score(options, &counts);
}

int chrf_stats(const char *const *hypotheses, const References *references,
               const ChrfOptions *options, LineStats *stats, Error *err) {
    int used = 0;
    TRY(line_stats_open(stats, references->count, 3 * order_count(options), err));
    stats->score = score_sums, stats->user = options;
    if (!count_lines(hypotheses, references, options, &used, take_row, stats, err)) return 0;
    line_stats_free(stats);
    return -1;
}

const char *chrf_name(const ChrfOptions *options) {
    return options->words ? "chrF2++" : "chrF2";
}

void chrf_signature(const ChrfScore *score, const ChrfOptions *o, char out[CHRF_TEXT_SIZE]) {
    char references[16] = "var";
    if (score->references >= 0) snprintf(references, sizeof references, "%d", score->references);
    snprintf(out, CHRF_TEXT_SIZE, "nrefs:%s|case:%s|eff:%s|nc:%d|nw:%d|space:%s", references,
             o->lowercase ? "lc" : "mixed", o->eps ? "no" : "yes", CHRF_CHAR_ORDER,
             o->words ? CHRF_WORD_ORDER : 0, o->whitespace ? "yes" : "no");
}

void chrf_line(const ChrfScore *score, const ChrfOptions *options, char out[CHRF_TEXT_SIZE]) {
    snprintf(out, CHRF_TEXT_SIZE, "%s = %.2f", chrf_name(options), score->score);
}
