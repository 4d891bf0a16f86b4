#include "apps/reproduce/number_words.h"

#include <stdio.h>
#include <string.h>

static const char *const english[20] = {"zero",    "one",     "two",       "three",    "four",
                                        "five",    "six",     "seven",     "eight",    "nine",
                                        "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                                        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const english_tens[10] = {"",      "",      "twenty",  "thirty", "forty",
                                             "fifty", "sixty", "seventy", "eighty", "ninety"};
static const char *const german[20] = {"null",     "eins",     "zwei",     "drei",     "vier",
                                       "fünf",     "sechs",    "sieben",   "acht",     "neun",
                                       "zehn",     "elf",      "zwölf",    "dreizehn", "vierzehn",
                                       "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"};
static const char *const german_tens[10] = {"",        "",        "zwanzig", "dreißig", "vierzig",
                                            "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"};

/* Appends a word, after a space if there is one before it. */
static void add(char *out, const char *word) {
    const size_t used = strlen(out);
    snprintf(out + used, NUMBER_WORDS_SIZE - used, "%s%s", used ? " " : "", word);
}

void number_english(char out[NUMBER_WORDS_SIZE], int n) {
    const int below = n % 100;
    out[0] = 0;
    if (n >= 1000) add(out, english[n / 1000]), add(out, "thousand");
    if (n / 100 % 10) add(out, english[n / 100 % 10]), add(out, "hundred");
    if (below >= 20) add(out, english_tens[below / 10]);
    if (below >= 20 && below % 10) add(out, english[below % 10]);
    if (below < 20 && (below || n == 0)) add(out, english[below]);
}

/* "ein hundert", "ein und zwanzig", but "eins" at the end. */
static const char *german_unit(int n) {
    return n == 1 ? "ein" : german[n];
}

void number_german(char out[NUMBER_WORDS_SIZE], int n) {
    const int below = n % 100;
    out[0] = 0;
    if (n >= 1000) add(out, german_unit(n / 1000)), add(out, "tausend");
    if (n / 100 % 10) add(out, german_unit(n / 100 % 10)), add(out, "hundert");
    if (below >= 20 && below % 10) add(out, german_unit(below % 10)), add(out, "und");
    if (below >= 20) add(out, german_tens[below / 10]);
    if (below < 20 && (below || n == 0)) add(out, german[below]);
}
