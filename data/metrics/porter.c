/* porter.c - Porter's stemmer with NLTK's extensions.
 *
 * M. F. Porter, An algorithm for suffix stripping, 1980. A word is a row of consonants and vowels
 * (a, e, i, o, u, and y after a consonant; digits are consonants), its measure m the number of
 * times a vowel is followed by a consonant. Each step takes the first ending of its list that the
 * word has, and replaces it if a condition on the part before it (the stem) holds. NLTK's default
 * mode adds irregular words, -ied and -ies of short words, another rule for -y, and some of
 * Porter's own later changes.
 */
#include <stdbool.h>
#include <string.h>

#include "data/metrics/porter.h"

typedef struct Stem {
    char *word;
    size_t size;
} Stem;

/* ---- What is said of words. ---- */

static bool is_vowel(char c) {
    return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u';
}

/* Whether letter i is a consonant: in a row of y every second one is. */
static bool is_consonant(const char *word, size_t i) {
    if (word[i] != 'y') return !is_vowel(word[i]);
    size_t first = i;
    while (first > 0 && word[first] == 'y') first--;
    bool consonant = !is_vowel(word[first]);
    return (i - first) % 2 ? !consonant : consonant;
}

/* The measure of the first `size` letters. */
static int measure(const char *word, size_t size) {
    int m = 0;
    bool before = true;
    for (size_t i = 0; i < size; i++) {
        bool consonant = word[i] == 'y' ? i == 0 || !before : !is_vowel(word[i]);
        m += i > 0 && consonant && !before;
        before = consonant;
    }
    return m;
}

static bool has_vowel(const char *word, size_t size) {
    /* In front of the first vowel all are consonants, so that a y that follows one is a vowel. */
    for (size_t i = 0; i < size; i++)
        if (is_vowel(word[i]) || (word[i] == 'y' && i > 0)) return true;
    return false;
}

static bool ends_double_consonant(const char *word, size_t size) {
    return size >= 2 && word[size - 1] == word[size - 2] && is_consonant(word, size - 1);
}

/* Consonant, vowel, consonant but w, x, y; or a word of a vowel and a consonant. */
static bool ends_cvc(const char *word, size_t size) {
    if (size == 2) return !is_consonant(word, 0) && is_consonant(word, 1);
    if (size < 3) return false;
    char last = word[size - 1];
    return is_consonant(word, size - 3) && !is_consonant(word, size - 2) &&
           is_consonant(word, size - 1) && last != 'w' && last != 'x' && last != 'y';
}

/* ---- Endings. ---- */

static bool ends(const Stem *s, const char *ending) {
    size_t size = strlen(ending);
    return s->size >= size && !memcmp(s->word + s->size - size, ending, size);
}

static void append(Stem *s, const char *ending) {
    size_t size = strlen(ending);
    memcpy(s->word + s->size, ending, size);
    s->size += size;
}

typedef struct Rule {
    const char *ending, *replacement;
} Rule;

/* Replaces the first of the endings that the word has, if the stem's measure is more
 * than `more`. */
static void apply(Stem *s, const Rule *rules, size_t count, int more) {
    for (size_t i = 0; i < count; i++) {
        if (!ends(s, rules[i].ending)) continue;
        size_t stem = s->size - strlen(rules[i].ending);
        if (measure(s->word, stem) <= more) return;
        s->size = stem;
        append(s, rules[i].replacement);
        return;
    }
}

/* ---- The steps. ---- */

static void step_1a(Stem *s) {
    if (ends(s, "ies"))
        s->size -= s->size == 4 ? 1 : 2; /* dies: die; flies: fli */
    else if (ends(s, "sses"))
        s->size -= 2;
    else if (ends(s, "s") && !ends(s, "ss"))
        s->size--;
}

static void step_1b(Stem *s) {
    if (ends(s, "ied")) {
        s->size -= s->size == 4 ? 1 : 2;
        return;
    }
    if (ends(s, "eed")) {
        if (measure(s->word, s->size - 3) > 0) s->size--;
        return;
    }
    if (ends(s, "ed") && has_vowel(s->word, s->size - 2))
        s->size -= 2;
    else if (ends(s, "ing") && has_vowel(s->word, s->size - 3))
        s->size -= 3;
    else
        return;
    char last = s->word[s->size - 1];
    if (ends(s, "at") || ends(s, "bl") || ends(s, "iz"))
        append(s, "e");
    else if (ends_double_consonant(s->word, s->size))
        s->size -= last != 'l' && last != 's' && last != 'z';
    else if (measure(s->word, s->size) == 1 && ends_cvc(s->word, s->size))
        append(s, "e");
}

static void step_1c(Stem *s) {
    if (ends(s, "y") && s->size > 2 && is_consonant(s->word, s->size - 2))
        s->word[s->size - 1] = 'i';
}

static void step_2(Stem *s) {
    static const Rule rules[] = {
        {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
        {"izer", "ize"},    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"},
        {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},
        {"ator", "ate"},    {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"},
        {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"},
        {"fulli", "ful"},
    };
    if (ends(s, "alli") && measure(s->word, s->size - 4) > 0) s->size -= 2;
    if (ends(s, "logi")) { /* the l belongs to the stem here */
        s->size -= measure(s->word, s->size - 3) > 0;
        return;
    }
    apply(s, rules, sizeof rules / sizeof rules[0], 0);
}

static void step_3(Stem *s) {
    static const Rule rules[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                                 {"ical", "ic"},  {"ful", ""},   {"ness", ""}};
    apply(s, rules, sizeof rules / sizeof rules[0], 0);
}

static void step_4(Stem *s) {
    static const Rule rules[] = {
        {"al", ""},   {"ance", ""}, {"ence", ""},  {"er", ""},   {"ic", ""},  {"able", ""},
        {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""},
        {"ism", ""},  {"ate", ""},  {"iti", ""},   {"ous", ""},  {"ive", ""}, {"ize", ""}};
    if (ends(s, "ion")) {
        char last = s->size > 3 ? s->word[s->size - 4] : 0;
        if ((last == 's' || last == 't') && measure(s->word, s->size - 3) > 1) s->size -= 3;
        return;
    }
    apply(s, rules, sizeof rules / sizeof rules[0], 1);
}

static void step_5(Stem *s) {
    if (ends(s, "e")) {
        int m = measure(s->word, s->size - 1);
        if (m > 1 || (m == 1 && !ends_cvc(s->word, s->size - 1))) s->size--;
    }
    if (ends(s, "ll") && measure(s->word, s->size - 1) > 1) s->size--;
}

/* Irregular words. */
static bool irregular(Stem *s) {
    static const Rule words[] = {
        {"sky", "sky"},         {"skies", "sky"},        {"dying", "die"},
        {"lying", "lie"},       {"tying", "tie"},        {"news", "news"},
        {"innings", "inning"},  {"inning", "inning"},    {"outings", "outing"},
        {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
        {"howe", "howe"},       {"proceed", "proceed"},  {"exceed", "exceed"},
        {"succeed", "succeed"},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (s->size == strlen(words[i].ending) && ends(s, words[i].ending)) {
            s->size = 0;
            append(s, words[i].replacement);
            return true;
        }
    return false;
}

size_t porter_stem(char *word, size_t size) {
    Stem s = {word, size};
    if (irregular(&s) || size <= 2) return s.size;
    step_1a(&s);
    step_1b(&s);
    step_1c(&s);
    step_2(&s);
    step_3(&s);
    step_4(&s);
    step_5(&s);
    return s.size;
}
