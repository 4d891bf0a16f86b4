/* rouge.c - see rouge.h. */
#include <stdlib.h>
#include <string.h>

#include "data/metrics/ngrams.h"
#include "data/metrics/porter.h"
#include "data/metrics/rouge.h"

/* The words of a text as numbers; sentence k is words[ends[k - 1], ends[k]). */
typedef struct Side {
    Codepoints words, ends;
} Side;

typedef struct Rouge {
    bool stem;
    Side hypothesis, reference;
    Words words;
    Grams grams;
    char *word; /* being read */
    size_t word_size;
    uint32_t *row; /* of the table of common subsequences */
    size_t row_size;
    unsigned char *left; /* [reference's words x hypothesis's words], of two sentences */
    size_t left_size;
    Codepoints union_of; /* per word of a sentence: whether it is in a common subsequence */
} Rouge;

const char *rouge_name(RougeKind kind) {
    static const char *const names[ROUGE_KINDS] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};
    return names[kind];
}

/* ---- Words. ---- */

/* The letter or digit at s in lower case, 0 if there is none; *size is its length in bytes. Two
 * characters beyond ASCII have an ASCII letter as their lower case: the Kelvin sign U+212A, and the
 * I with a dot U+0130 (with a combining dot after the i, which ends the word). */
static char word_letter(const unsigned char *s, size_t *size, bool *ends) {
    *size = 1, *ends = false;
    if ((s[0] >= 'a' && s[0] <= 'z') || (s[0] >= '0' && s[0] <= '9')) return (char)s[0];
    if (s[0] >= 'A' && s[0] <= 'Z') return (char)(s[0] + 'a' - 'A');
    if (s[0] == 0xe2 && s[1] == 0x84 && s[2] == 0xaa) {
        *size = 3;
        return 'k';
    }
    if (s[0] == 0xc4 && s[1] == 0xb0) {
        *size = 2, *ends = true;
        return 'i';
    }
    return 0;
}

static int word_end(Rouge *rouge, Side *side, size_t *length, Error *err) {
    uint32_t number;
    size_t size = *length;
    *length = 0;
    if (size > 3 && rouge->stem) size = porter_stem(rouge->word, size);
    if (size == 0) return 0;
    TRY(words_number(&rouge->words, rouge->word, size, &number, err));
    return codepoints_append(&side->words, number, err);
}

static int side_set(Rouge *rouge, Side *side, const char *text, Error *err) {
    side->words.count = side->ends.count = 0;
    size_t length = 0, size, all = strlen(text) + 1;
    if (all > rouge->word_size) {
        char *word = realloc(rouge->word, all);
        if (!word) return error_set(err, "out of memory for a text of %zu bytes", all);
        rouge->word = word, rouge->word_size = all;
    }
    for (const unsigned char *s = (const unsigned char *)text;; s += size) {
        bool last;
        char letter = word_letter(s, &size, &last);
        if (letter) rouge->word[length++] = letter;
        if (length && (!letter || last)) TRY(word_end(rouge, side, &length, err));
        if (*s == '\n' || *s == 0) {
            if (side->words.count > UINT32_MAX) return error_set(err, "a text of too many words");
            TRY(codepoints_append(&side->ends, (uint32_t)side->words.count, err));
        }
        if (*s == 0) return 0;
    }
}

/* Words [*begin, *end) of a sentence. */
static void sentence(const Side *side, size_t index, size_t *begin, size_t *end) {
    *begin = index ? side->ends.items[index - 1] : 0;
    *end = side->ends.items[index];
}

/* ---- Scores of one pair. ---- */

static RougeValues values(int64_t match, int64_t hypothesis, int64_t reference) {
    RougeValues v = {(double)match / (double)(hypothesis > 0 ? hypothesis : 1),
                     (double)match / (double)(reference > 0 ? reference : 1), 0};
    if (v.precision + v.recall > 0) v.f = 2 * v.precision * v.recall / (v.precision + v.recall);
    return v;
}

static int score_ngrams(Rouge *rouge, int n, RougeValues *out, Error *err) {
    const Codepoints *h = &rouge->hypothesis.words, *r = &rouge->reference.words;
    TRY(grams_begin(&rouge->grams, h->count + r->count, err));
    grams_add_reference(&rouge->grams, r, n, GRAM_WORDS, 1);
    int64_t match = grams_match(&rouge->grams, h, n, GRAM_WORDS);
    *out = values(match, gram_count(h->count, n), gram_count(r->count, n));
    return 0;
}

/* One row of the table of the longest common subsequences' lengths, in place: row[j] is that of the
 * rows' words so far and the first j of `b`. In left[j - 1] (unless NULL): whether the way back
 * from there goes to the left, not up. */
static void lcs_row(uint32_t *row, uint32_t word, const uint32_t *b, size_t count,
                    unsigned char *left) {
    uint32_t diagonal = 0; /* of the row before */
    for (size_t j = 1; j <= count; j++) {
        uint32_t up = row[j];
        if (left) left[j - 1] = row[j - 1] > up;
        row[j] = word == b[j - 1] ? diagonal + 1 : up > row[j - 1] ? up : row[j - 1];
        diagonal = up;
    }
}

static int row_begin(Rouge *rouge, size_t count, Error *err) {
    if (count + 1 > rouge->row_size) {
        uint32_t *row = realloc(rouge->row, 2 * (count + 1) * sizeof *row);
        if (!row) return error_set(err, "out of memory for %zu words", count);
        rouge->row = row, rouge->row_size = 2 * (count + 1);
    }
    memset(rouge->row, 0, (count + 1) * sizeof *rouge->row);
    return 0;
}

static int score_lcs(Rouge *rouge, RougeValues *out, Error *err) {
    const Codepoints *h = &rouge->hypothesis.words, *r = &rouge->reference.words;
    if (h->count && r->count > ROUGE_PAIRS_MOST / h->count)
        return error_set(err, "Rouge: texts of %zu and %zu words are too long to be compared",
                         h->count, r->count);
    TRY(row_begin(rouge, h->count, err));
    for (size_t i = 0; i < r->count; i++)
        lcs_row(rouge->row, r->items[i], h->items, h->count, NULL);
    *out = values(rouge->row[h->count], (int64_t)h->count, (int64_t)r->count);
    return 0;
}

/* Marks the words of a reference's sentence that are in one of its longest common subsequences with
 * a hypothesis's. Which one, where there are several, decides the score: the way back goes up
 * unless the left is longer, as in rouge-score. */
static int mark_lcs(Rouge *rouge, const uint32_t *r, size_t r_count, const uint32_t *h,
                    size_t h_count, Error *err) {
    if (!r_count || !h_count) return 0;
    if (r_count * h_count > rouge->left_size) {
        unsigned char *left = realloc(rouge->left, r_count * h_count);
        if (!left)
            return error_set(err, "out of memory for Rouge-Lsum of sentences of %zu and %zu words",
                             r_count, h_count);
        rouge->left = left, rouge->left_size = r_count * h_count;
    }
    TRY(row_begin(rouge, h_count, err));
    for (size_t i = 0; i < r_count; i++)
        lcs_row(rouge->row, r[i], h, h_count, rouge->left + i * h_count);
    for (size_t i = r_count, j = h_count; i > 0 && j > 0;) {
        if (r[i - 1] == h[j - 1])
            rouge->union_of.items[i - 1] = 1, i--, j--;
        else if (rouge->left[(i - 1) * h_count + j - 1])
            j--;
        else
            i--;
    }
    return 0;
}

/* A word counts at most as often as it is in the whole hypothesis. (At most as often as in the
 * reference holds anyway: every place of the reference counts once.) */
static int score_lsum(Rouge *rouge, RougeValues *out, Error *err) {
    const Side *h = &rouge->hypothesis, *r = &rouge->reference;
    int64_t hits = 0;
    TRY(grams_begin(&rouge->grams, h->words.count + r->words.count, err));
    grams_add_reference(&rouge->grams, &h->words, 1, GRAM_WORDS, 1);
    for (size_t i = 0; i < r->ends.count; i++) {
        size_t begin, end, h_begin, h_end;
        sentence(r, i, &begin, &end);
        rouge->union_of.count = 0;
        for (size_t k = begin; k < end; k++) TRY(codepoints_append(&rouge->union_of, 0, err));
        for (size_t j = 0; j < h->ends.count; j++) {
            sentence(h, j, &h_begin, &h_end);
            if (begin == end || h_begin == h_end) continue; /* there may be no words at all */
            TRY(mark_lcs(rouge, r->words.items + begin, end - begin, h->words.items + h_begin,
                         h_end - h_begin, err));
        }
        for (size_t k = begin; k < end; k++) {
            Codepoints word = {.items = &r->words.items[k], .count = 1};
            if (rouge->union_of.items[k - begin])
                hits += grams_match(&rouge->grams, &word, 1, GRAM_WORDS);
        }
    }
    *out = values(hits, (int64_t)h->words.count, (int64_t)r->words.count);
    return 0;
}

static int score_pair(Rouge *rouge, RougeScore *score, Error *err) {
    TRY(score_ngrams(rouge, 1, &score->kinds[ROUGE_1], err));
    TRY(score_ngrams(rouge, 2, &score->kinds[ROUGE_2], err));
    TRY(score_lcs(rouge, &score->kinds[ROUGE_L], err));
    if (rouge->hypothesis.ends.count > 1 || rouge->reference.ends.count > 1)
        return score_lsum(rouge, &score->kinds[ROUGE_LSUM], err);
    score->kinds[ROUGE_LSUM] = score->kinds[ROUGE_L]; /* the same for single sentences */
    return 0;
}

/* ---- All lines. ---- */

static int score_line(Rouge *rouge, const char *hypothesis, const References *references,
                      int64_t line, RougeScore *best, Error *err) {
    const char *const *texts;
    int count = references_of(references, line, &texts);
    if (!count) return error_set(err, "Rouge: line %lld has no reference", (long long)line + 1);
    TRY(side_set(rouge, &rouge->hypothesis, hypothesis, err));
    for (int r = 0; r < count; r++) {
        RougeScore score;
        TRY(side_set(rouge, &rouge->reference, texts[r], err));
        if (score_pair(rouge, &score, err))
            return error_context(err, "line %lld", (long long)line + 1);
        for (int k = 0; k < ROUGE_KINDS; k++)
            if (r == 0 || score.kinds[k].f > best->kinds[k].f) best->kinds[k] = score.kinds[k];
    }
    return 0;
}

/* Scores every line into scores[], or, where that is NULL, adds them up in *sum. */
static int score_lines(const char *const *hypotheses, const References *references, bool stem,
                       RougeScore *scores, RougeScore *sum, Error *err) {
    int64_t count = references->count;
    if (count < 1) return error_set(err, "Rouge: nothing to score: %lld lines", (long long)count);
    Rouge rouge = {.stem = stem};
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        RougeScore line;
        status = score_line(&rouge, hypotheses[i], references, i, &line, err);
        if (status == 0 && scores) scores[i] = line;
        for (int k = 0; k < ROUGE_KINDS && status == 0 && sum; k++) {
            sum->kinds[k].precision += line.kinds[k].precision;
            sum->kinds[k].recall += line.kinds[k].recall;
            sum->kinds[k].f += line.kinds[k].f;
        }
    }
    Side *sides[] = {&rouge.hypothesis, &rouge.reference};
    for (int i = 0; i < 2; i++) codepoints_free(&sides[i]->words), codepoints_free(&sides[i]->ends);
    codepoints_free(&rouge.union_of);
    words_free(&rouge.words);
    grams_free(&rouge.grams);
    free(rouge.word);
    free(rouge.row);
    free(rouge.left);
    return status;
}

int rouge_lines(const char *const *hypotheses, const References *references, bool stem,
                RougeScore *scores, Error *err) {
    return score_lines(hypotheses, references, stem, scores, NULL, err);
}

int rouge_corpus(const char *const *hypotheses, const References *references, bool stem,
                 RougeScore *score, Error *err) {
    int64_t count = references->count;
    *score = (RougeScore){0};
    TRY(score_lines(hypotheses, references, stem, NULL, score, err));
    for (int k = 0; k < ROUGE_KINDS; k++) {
        score->kinds[k].precision /= (double)count;
        score->kinds[k].recall /= (double)count;
        score->kinds[k].f /= (double)count;
    }
    return 0;
}
