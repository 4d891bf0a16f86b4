/* Strategies of decode.h: defaults, names, the number of steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "language/decode.h"

DecodeOptions decode_options_default(void) {
    return (DecodeOptions){
        .strategy = DECODE_REPARAM, .schedule = DECODE_COSINE, .iterations = DECODE_STEPS};
}

/* A part of a name up to the next '-' or the end. */
typedef struct NamePart {
    const char *text;
    int length;
} NamePart;

static NamePart name_part(const char **rest) {
    NamePart part = {*rest, (int)strcspn(*rest, "-")};
    *rest += part.length;
    if (**rest == '-') ++*rest;
    return part;
}

static bool part_is(NamePart part, const char *word) {
    return (size_t)part.length == strlen(word) && memcmp(part.text, word, strlen(word)) == 0;
}

/* The number after a word such as "stochastic": digits and a point only, which excludes "nan",
 * "inf", signs and hexadecimal. */
static bool part_number(NamePart part, const char *word, float *number) {
    int skip = (int)strlen(word);
    char digits[64];
    int length = part.length - skip;
    if (length < 1 || length >= (int)sizeof digits || memcmp(part.text, word, (size_t)skip) != 0)
        return false;
    memcpy(digits, part.text + skip, (size_t)length);
    digits[length] = 0;
    if (strspn(digits, "0123456789.") != (size_t)length) return false;
    char *end;
    *number = strtof(digits, &end);
    return *end == 0 && isfinite(*number);
}

static int reparam_parse(DecodeOptions *options, const char *name, const char *rest, Error *err) {
    NamePart condition = name_part(&rest), ranking = name_part(&rest), schedule = name_part(&rest);
    if (part_is(condition, "cond"))
        options->conditional = true;
    else if (!part_is(condition, "uncond"))
        return error_set(err, "strategy \"%s\": the second part is \"%.*s\", not uncond or cond",
                         name, condition.length, condition.text);
    if (part_number(ranking, "stochastic", &options->tau))
        options->stochastic = true;
    else if (!part_is(ranking, "deterministic"))
        return error_set(err,
                         "strategy \"%s\": the third part is \"%.*s\", not deterministic or "
                         "stochastic with a number >= 0 (as in stochastic0.5)",
                         name, ranking.length, ranking.text);
    if (part_is(schedule, "linear"))
        options->schedule = DECODE_LINEAR;
    else if (!part_is(schedule, "cosine"))
        return error_set(err, "strategy \"%s\": the fourth part is \"%.*s\", not linear or cosine",
                         name, schedule.length, schedule.text);
    if (rest != schedule.text + schedule.length || *rest)
        return error_set(err, "strategy \"%s\": nothing may follow \"%.*s\"", name, schedule.length,
                         schedule.text);
    return 0;
}

int decode_strategy_parse(DecodeOptions *options, const char *name, Error *err) {
    DecodeOptions parsed = *options;
    parsed.conditional = parsed.stochastic = false;
    parsed.tau = parsed.bound = 0;
    parsed.schedule = DECODE_COSINE;
    const char *rest = name;
    NamePart kind = name_part(&rest), whole = {name, (int)strlen(name)};
    if (strcmp(name, "cmlm") == 0) {
        parsed.strategy = DECODE_CMLM;
    } else if (strcmp(name, "ar") == 0) {
        parsed.strategy = DECODE_AR;
    } else if (part_number(whole, "confidence", &parsed.bound) && parsed.bound <= 1) {
        parsed.strategy = DECODE_CONFIDENCE;
    } else if (part_number(whole, "entropy", &parsed.bound)) {
        parsed.strategy = DECODE_ENTROPY;
    } else if (part_is(kind, "reparam")) {
        parsed.strategy = DECODE_REPARAM;
        TRY(reparam_parse(&parsed, name, rest, err));
    } else {
        return error_set(err,
                         "strategy \"%s\": unknown; expected reparam-<uncond|cond>-<deterministic|"
                         "stochasticTAU>-<linear|cosine>, cmlm, ar, confidenceX with a "
                         "probability or entropyX",
                         name);
    }
    *options = parsed;
    return 0;
}

/* "stochastic0.5": the fewest decimals that parse to the same float; without exponent, whose '-'
 * would begin the next part. The smallest float needs 45. */
static void number_name(char *out, size_t size, const char *word, float value) {
    char number[64] = "0";
    for (int decimals = 0; decimals <= 45; decimals++) {
        snprintf(number, sizeof number, "%.*f", decimals, (double)value);
        if (strtof(number, NULL) == value) break;
    }
    snprintf(out, size, "%s%s", word, number);
}

void decode_strategy_name(char *out, size_t size, const DecodeOptions *options) {
    switch (options->strategy) {
    case DECODE_REPARAM:
        break;
    case DECODE_CMLM:
    case DECODE_AR:
        snprintf(out, size, "%s", options->strategy == DECODE_CMLM ? "cmlm" : "ar");
        return;
    case DECODE_CONFIDENCE:
    case DECODE_ENTROPY:
        number_name(out, size, options->strategy == DECODE_ENTROPY ? "entropy" : "confidence",
                    options->bound);
        return;
    }
    char ranking[80] = "deterministic";
    if (options->stochastic) number_name(ranking, sizeof ranking, "stochastic", options->tau);
    snprintf(out, size, "reparam-%s-%s-%s", options->conditional ? "cond" : "uncond", ranking,
             options->schedule == DECODE_LINEAR ? "linear" : "cosine");
}

bool decode_approximate(const DecodeOptions *options) {
    return options->strategy == DECODE_CONFIDENCE || options->strategy == DECODE_ENTROPY ||
           options->early_stop > 0 || options->prefix_cache > 0;
}

int decode_steps(const DecodeOptions *options, int open) {
    if (options->strategy == DECODE_AR || options->strategy == DECODE_CONFIDENCE ||
        options->strategy == DECODE_ENTROPY)
        return open;
    if (options->iterations > 0) return options->iterations;
    if (open < DECODE_LEAST_STEPS) return DECODE_LEAST_STEPS;
    return open < DECODE_STEPS ? open : DECODE_STEPS;
}
