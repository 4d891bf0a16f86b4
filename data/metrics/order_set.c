#include "data/metrics/order_set.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"
#include "data/metrics/order_words.h"
#include "kernels/random.h"

const char *order_class_name(OrderClass class) {
    static const char *const names[ORDER_CLASSES] = {"fixed", "copied", "content"};
    return names[class];
}

static void answer_free(OrderAnswer *a) {
    free(a->text), free(a->ends), free(a->tokens), free(a->filled), free(a->confidence);
    free(a->words);
    *a = (OrderAnswer){0};
}

void order_set_free(OrderSet *set) {
    for (size_t i = 0; i < set->count; i++) answer_free(&set->answers[i]);
    free(set->answers), free(set->form_answers);
    text_table_free(&set->forms);
    *set = (OrderSet){0};
}

/* ---- One answer. ---- */

static void answer_curves(OrderAnswer *a, const OrderSteps *steps, const float *scores) {
    for (int s = 0; s < a->steps; s++) {
        size_t row = (size_t)s * (size_t)a->length;
        int standing = 0;
        double sum = 0;
        for (int i = 0; i < a->length; i++) {
            if (steps->tokens[row + (size_t)i] == ORDER_MASKED) continue;
            standing++, sum += exp((double)scores[row + (size_t)i]);
        }
        a->filled[s] = (double)standing / a->length;
        a->confidence[s] = standing ? sum / standing : NAN;
    }
}

/* Correlations over the places that are not masked at the end. */
static int answer_correlations(OrderAnswer *a, Error *err) {
    int *places = malloc(2 * (size_t)a->length * sizeof *places), n = 0;
    if (!places) return error_set(err, "out of memory for an answer's order");
    int *times = places + a->length;
    for (int i = 0; i < a->length; i++)
        if (a->tokens[i].last) places[n] = i, times[n++] = a->tokens[i].last;
    a->kendall = n < 3 ? NAN : order_kendall(places, times, n);
    a->spearman = n < 3 ? NAN : order_spearman(places, times, n);
    free(places);
    return 0;
}

static bool words_have(const OrderWords *words, const char *form) {
    for (int i = 0; i < words->count; i++)
        if (!strcmp(words->items[i].form, form)) return true;
    return false;
}

/* When a word was written and first seen, from the steps of its tokens. */
static void word_times(OrderSetWord *word, const int *lasts, const int *firsts) {
    word->time = word->seen = 0;
    for (int i = word->begin; i < word->end; i++) {
        if (lasts[i] > word->time) word->time = lasts[i];
        if (firsts[i] > word->seen) word->seen = firsts[i];
    }
}

/* Whether no place of a word is masked at the end. */
static bool word_whole(const OrderAnswer *a, const OrderSetWord *word) {
    for (int i = word->begin; i < word->end; i++)
        if (!a->tokens[i].last) return false;
    return word->begin < word->end;
}

/* The steps of all tokens, [2 * length]: lasts, firsts. NULL: out of memory. */
static int *answer_steps(const OrderAnswer *a) {
    int *steps = malloc(2 * (size_t)a->length * sizeof *steps);
    for (int i = 0; i < a->length && steps; i++)
        steps[i] = a->tokens[i].last, steps[a->length + i] = a->tokens[i].first;
    return steps;
}

static int answer_words(OrderSet *set, OrderAnswer *a, const char *prompt, Error *err) {
    OrderWords words = {0}, asked = {0};
    int *steps = answer_steps(a);
    int status = steps ? 0 : error_set(err, "out of memory for an answer's words");
    if (status == 0) status = order_words(&words, a->text, err);
    if (status == 0) status = order_words(&asked, prompt, err);
    if (status == 0) {
        a->words = calloc((size_t)words.count + 1, sizeof *a->words);
        if (!a->words) status = error_set(err, "out of memory for an answer's words");
    }
    for (int i = 0; i < words.count && status == 0; i++) {
        const OrderWord *found = &words.items[i];
        OrderSetWord word = {.prompted = words_have(&asked, found->form)};
        order_places(a->ends, a->length, found->begin, found->end, &word.begin, &word.end);
        if (!word_whole(a, &word)) continue;
        word_times(&word, steps, steps + a->length);
        status = text_table_add(&set->forms, found->form, &word.form, NULL, err);
        if (status == 0) a->words[a->word_count++] = word;
    }
    order_words_free(&words), order_words_free(&asked);
    free(steps);
    return status;
}

int order_set_add(OrderSet *set, const OrderSteps *steps, const float *scores,
                  const char *const *pieces, const char *prompt, Error *err) {
    if (set->count == set->capacity) {
        OrderAnswer *more = array_grow(set->answers, &set->capacity, sizeof *more);
        if (!more) return error_set(err, "out of memory for answers");
        set->answers = more;
    }
    OrderAnswer a = {.length = steps->length, .steps = steps->steps};
    size_t length = (size_t)a.length, count = (size_t)a.steps;
    a.ends = malloc(length * sizeof *a.ends);
    a.tokens = malloc(length * sizeof *a.tokens);
    a.filled = malloc(count * sizeof *a.filled);
    a.confidence = malloc(count * sizeof *a.confidence);
    int status = 0;
    if (!a.ends || !a.tokens || !a.filled || !a.confidence)
        status = error_set(err, "out of memory for an answer's order");
    if (status == 0) {
        order_count(steps, a.tokens, &a.counts);
        answer_curves(&a, steps, scores);
        status = answer_correlations(&a, err);
    }
    if (status == 0) status = order_text(&a.text, a.ends, pieces, a.length, err);
    if (status == 0) status = answer_words(set, &a, prompt, err);
    if (status)
        answer_free(&a);
    else
        set->answers[set->count++] = a;
    return status;
}

/* ---- The set. ---- */

/* The number of answers with each form, each answer counted once. */
static int count_forms(OrderSet *set, Error *err) {
    size_t forms = set->forms.count;
    size_t *seen = calloc(forms + 1, sizeof *seen); /* number of the last answer, from 1 */
    free(set->form_answers);
    set->form_answers = calloc(forms + 1, sizeof *set->form_answers);
    set->with_words = 0;
    if (!seen || !set->form_answers) {
        free(seen);
        return error_set(err, "out of memory for the words of %zu answers", set->count);
    }
    for (size_t i = 0; i < set->count; i++) {
        const OrderAnswer *a = &set->answers[i];
        set->with_words += a->word_count > 0;
        for (int w = 0; w < a->word_count; w++) {
            size_t form = (size_t)a->words[w].form;
            set->form_answers[form] += seen[form] != i + 1;
            seen[form] = i + 1;
        }
    }
    free(seen);
    return 0;
}

static void pair_add(OrderPairs *pairs, int easy, int content) {
    pairs->pairs++;
    pairs->ties += easy == content;
    pairs->first += easy < content ? 1 : easy == content ? 0.5 : 0;
}

/* Counts the pairs of words [count] with their times. */
static void count_pairs(const OrderSetWord *words, int count, OrderPairs *pairs,
                        OrderPairs *seen_pairs) {
    for (int e = 0; e < count; e++) {
        const OrderSetWord *easy = &words[e];
        if (easy->class == ORDER_CONTENT) continue;
        OrderPairs *of_class = &pairs[easy->class == ORDER_FIXED ? EASY_FIXED : EASY_COPIED];
        for (int c = 0; c < count; c++) {
            const OrderSetWord *content = &words[c];
            if (content->class != ORDER_CONTENT) continue;
            pair_add(of_class, easy->time, content->time);
            pair_add(&pairs[EASY_BOTH], easy->time, content->time);
            pair_add(seen_pairs, easy->seen, content->seen);
        }
    }
}

/* The steps of the places that are written at the end, permuted randomly over these places. */
static void deal_steps(const OrderAnswer *a, int *order, int *steps, uint64_t seed,
                       uint64_t stream) {
    int n = 0;
    for (int i = 0; i < a->length; i++)
        if (a->tokens[i].last) order[n++] = i;
    order_shuffle(order, n, seed, stream);
    n = 0;
    for (int i = 0; i < a->length; i++) {
        if (!a->tokens[i].last) continue;
        const OrderToken *from = &a->tokens[order[n++]];
        steps[i] = from->last, steps[a->length + i] = from->first;
    }
}

static int answer_pairs(OrderAnswer *a, uint64_t seed, uint64_t number, Error *err) {
    memset(a->pairs, 0, sizeof a->pairs);
    a->seen_pairs = (OrderPairs){0};
    count_pairs(a->words, a->word_count, a->pairs, &a->seen_pairs);
    if (!a->pairs[EASY_BOTH].pairs) return 0;
    int *steps = answer_steps(a), *order = malloc((size_t)a->length * sizeof *order);
    OrderSetWord *words = malloc((size_t)a->word_count * sizeof *words);
    OrderPairs pairs[EASY_COUNT] = {{0}}, seen_pairs = {0};
    int status =
        steps && order && words ? 0 : error_set(err, "out of memory for an answer's words");
    if (status == 0) memcpy(words, a->words, (size_t)a->word_count * sizeof *words);
    for (int r = 0; r < ORDER_SET_SHUFFLES && status == 0; r++) {
        deal_steps(a, order, steps, seed, random_stream(number, (uint64_t)r, 2, 0));
        for (int w = 0; w < a->word_count; w++) word_times(&words[w], steps, steps + a->length);
        count_pairs(words, a->word_count, pairs, &seen_pairs);
    }
    for (int e = 0; e < EASY_COUNT; e++) a->pairs[e].chance = pairs[e].first / ORDER_SET_SHUFFLES;
    a->seen_pairs.chance = seen_pairs.first / ORDER_SET_SHUFFLES;
    free(steps), free(order), free(words);
    return status;
}

int order_set_finish(OrderSet *set, double fixed_share, uint64_t seed, Error *err) {
    TRY(count_forms(set, err));
    for (size_t i = 0; i < set->count; i++) {
        OrderAnswer *a = &set->answers[i];
        for (int w = 0; w < a->word_count; w++) {
            int64_t answers = set->form_answers[a->words[w].form];
            bool fixed = answers >= 2 && (double)answers >= fixed_share * (double)set->with_words;
            a->words[w].class = fixed                  ? ORDER_FIXED
                                : a->words[w].prompted ? ORDER_COPIED
                                                       : ORDER_CONTENT;
        }
        TRY(answer_pairs(a, seed, i, err));
    }
    return 0;
}
