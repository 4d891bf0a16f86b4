/* answers.c - see answers.h. */
#include <stdlib.h>
#include <string.h>

#include <unictype.h>

#include "data/metrics/answers.h"
#include "data/metrics/ngrams.h"

/* ---- Forms. ---- */

/* What the pattern \w matches in Python: letters, numbers, and the underscore, which is removed
 * with the punctuation before. */
static bool is_word_character(uint32_t c) {
    return uc_is_general_category(c, UC_CATEGORY_L) || uc_is_general_category(c, UC_CATEGORY_N);
}

static bool is_article(const uint32_t *word, size_t size) {
    static const char *const articles[] = {"a", "an", "the"};
    for (int i = 0; i < 3; i++) {
        size_t same = 0;
        while (same < size && articles[i][same] && word[same] == (unsigned char)articles[i][same])
            same++;
        if (same == size && !articles[i][same]) return true;
    }
    return false;
}

/* Articles between characters that are not \w become a space; then white space becomes single
 * spaces. In place: nothing grows. */
static void squad_words(Codepoints *text) {
    for (size_t i = 0, end; i < text->count; i = end) {
        end = i + 1;
        if (!is_word_character(text->items[i])) continue;
        while (end < text->count && is_word_character(text->items[end])) end++;
        if (is_article(text->items + i, end - i))
            for (size_t k = i; k < end; k++) text->items[k] = ' ';
    }
    size_t count = 0;
    for (size_t begin, end = 0; codepoints_next_word(text, &begin, &end);) {
        if (count) text->items[count++] = ' ';
        memmove(text->items + count, text->items + begin, (end - begin) * sizeof *text->items);
        count += end - begin;
    }
    text->count = count;
}

static int normalize(AnswerRule rule, const char *utf8, Codepoints *text, Error *err) {
    TRY(codepoints_decode(text, utf8, err));
    codepoints_strip(text);
    if (rule == ANSWER_AS_IS) return 0;
    TRY(codepoints_lower(text, err));
    size_t count = 0;
    for (size_t i = 0; i < text->count; i++)
        if (!codepoint_is_punctuation(text->items[i])) text->items[count++] = text->items[i];
    text->count = count;
    if (rule == ANSWER_SQUAD) squad_words(text);
    return 0;
}

int answer_normalize(AnswerRule rule, const char *text, char **out, Error *err) {
    Codepoints points = {0};
    int status = normalize(rule, text, &points, err);
    if (status == 0) status = codepoints_encode(&points, out, err);
    codepoints_free(&points);
    return status;
}

int answer_exact(AnswerRule rule, const char *prediction, const char *target, double *equal,
                 Error *err) {
    Codepoints p = {0}, t = {0};
    int status = normalize(rule, prediction, &p, err);
    if (status == 0) status = normalize(rule, target, &t, err);
    *equal = status == 0 && p.count == t.count &&
             (p.count == 0 || !memcmp(p.items, t.items, p.count * sizeof *p.items));
    codepoints_free(&p);
    codepoints_free(&t);
    return status;
}

/* ---- F1. ---- */

typedef struct F1 {
    Codepoints text, prediction, target;
    Words words;
    Grams grams;
} F1;

static int f1_score(F1 *f, const char *prediction, const char *target, double *f1, Error *err) {
    *f1 = 0;
    TRY(normalize(ANSWER_SQUAD, prediction, &f->text, err));
    TRY(words_number_all(&f->words, &f->text, &f->prediction, err));
    TRY(normalize(ANSWER_SQUAD, target, &f->text, err));
    TRY(words_number_all(&f->words, &f->text, &f->target, err));
    TRY(grams_begin(&f->grams, f->prediction.count + f->target.count, err));
    grams_add_reference(&f->grams, &f->target, 1, GRAM_WORDS, 1);
    int64_t same = grams_match(&f->grams, &f->prediction, 1, GRAM_WORDS);
    if (same == 0) return 0;
    double precision = (double)same / (double)f->prediction.count;
    double recall = (double)same / (double)f->target.count;
    *f1 = 2 * precision * recall / (precision + recall);
    return 0;
}

int answer_f1(const char *prediction, const char *target, double *f1, Error *err) {
    F1 f = {0};
    int status = f1_score(&f, prediction, target, f1, err);
    codepoints_free(&f.text);
    codepoints_free(&f.prediction);
    codepoints_free(&f.target);
    words_free(&f.words);
    grams_free(&f.grams);
    return status;
}

/* ---- Numbers. ---- */

/* The value of a decimal digit of any script, -1 for others. */
static int digit_value(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9' ? (int)(c - '0') : -1;
    return uc_decimal_value(c);
}

/* The end of the integer that begins at i: digits, and commas between two of them. */
static size_t integer_end(const Codepoints *text, size_t i) {
    while (i < text->count) {
        bool comma = text->items[i] == ',' && i + 1 < text->count;
        if (digit_value(text->items[comma ? i + 1 : i]) < 0) break;
        i++;
    }
    return i;
}

int answer_last_integer(const char *utf8, char **out, Error *err) {
    Codepoints text = {0};
    size_t begin = 0, end = 0;
    *out = NULL;
    TRY(codepoints_decode(&text, utf8, err));
    for (size_t i = 0; i < text.count;) {
        if (digit_value(text.items[i]) < 0) {
            i++;
            continue;
        }
        begin = i, end = i = integer_end(&text, i);
    }
    int status = 0;
    if (begin < end && !(*out = malloc(end - begin + 1)))
        status = error_set(err, "out of memory for a number of %zu digits", end - begin);
    if (*out) {
        char *at = *out;
        for (size_t i = begin; i < end; i++) {
            int digit = digit_value(text.items[i]);
            if (digit > 0 || (digit == 0 && at > *out)) *at++ = (char)('0' + digit);
        }
        if (at == *out) *at++ = '0';
        *at = 0;
    }
    codepoints_free(&text);
    return status;
}

int answer_number(const char *prediction, const char *target, double *equal, Error *err) {
    char *p = NULL, *t = NULL;
    int status = answer_last_integer(prediction, &p, err);
    if (status == 0) status = answer_last_integer(target, &t, err);
    *equal = status == 0 && p && t && !strcmp(p, t);
    free(p);
    free(t);
    return status;
}

/* ---- Choices. ---- */

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char upper(char c) {
    return c >= 'a' && c <= 'z' ? (char)(c + 'A' - 'a') : c;
}

/* The letter that a text begins with, in brackets, or followed by its end or a delimiter. */
static char first_letter(const char *text) {
    char close = text[0] == '(' ? ')' : text[0] == '[' ? ']' : 0;
    const char *letter = text + (close != 0);
    if (!is_letter(letter[0])) return 0;
    if (close) return letter[1] == close ? upper(letter[0]) : 0;
    bool alone = letter[1 + strspn(letter + 1, " \t\r\n")] == 0;
    return alone || strchr(").:,", letter[1]) ? upper(letter[0]) : 0;
}

/* The last letter in round brackets. */
static char last_in_brackets(const char *text) {
    char found = 0;
    for (const char *at = text; (at = strchr(at, '(')); at++)
        if (is_letter(at[1]) && at[2] == ')') found = upper(at[1]);
    return found;
}

/* The last word, if it is a capital letter, perhaps with a period after it. */
static char last_letter(const char *text) {
    size_t size = strlen(text);
    while (size && strchr(" \t\r\n.", text[size - 1])) size--;
    bool alone = size && (size == 1 || strchr(" \t\r\n:", text[size - 2]));
    return alone && text[size - 1] >= 'A' && text[size - 1] <= 'Z' ? text[size - 1] : 0;
}

char answer_letter(const char *text) {
    text += strspn(text, " \t\r\n");
    char letter = first_letter(text);
    if (!letter) letter = last_in_brackets(text);
    return letter ? letter : last_letter(text);
}

int answer_choice(const char *prediction, const char *target, double *equal, Error *err) {
    char letter = answer_letter(target);
    if (!letter) return answer_exact(ANSWER_PLAIN, prediction, target, equal, err);
    *equal = answer_letter(prediction) == letter;
    return 0;
}
