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

/* Whether the next part is this word, which is then passed. */
static bool part_next(const char **rest, const char *word) {
    const char *after = *rest;
    if (!**rest || !part_is(name_part(&after), word)) return false;
    *rest = after;
    return true;
}

/* A name may not end in '-', which name_part passes. */
static int name_ended(const char *name, const char *rest, Error *err) {
    if (!*rest && rest[-1] != '-') return 0;
    return error_set(err, "strategy \"%s\": \"%s\" is not expected here", name, *rest ? rest : "-");
}

/* "block32": a whole number from 1 to 1000000. */
static bool part_block(NamePart part, int *block) {
    float number;
    if (!part_number(part, "block", &number) || memchr(part.text, '.', (size_t)part.length) ||
        number < 1 || number > 1000000)
        return false;
    *block = (int)number;
    return true;
}

static int llada_parse(DecodeOptions *options, const char *name, const char *rest, Error *err) {
    NamePart part = name_part(&rest);
    if (part_block(part, &options->block)) part = name_part(&rest);
    options->random_remasking = part_is(part, "random");
    if (!options->random_remasking && !part_is(part, "lowconf"))
        return error_set(err,
                         "strategy \"%s\": \"%.*s\" is not %slowconf or random (as in "
                         "llada-block32-lowconf)",
                         name, part.length, part.text,
                         options->block ? "" : "blockN with N from 1 to 1000000, ");
    options->end_never = part_next(&rest, "noend");
    options->end_last = part_next(&rest, "endlast");
    return name_ended(name, rest, err);
}

static const char *const dream_names[] = {[DREAM_ORIGIN] = "origin",
                                          [DREAM_MASKGIT_PLUS] = "maskgit_plus",
                                          [DREAM_TOPK_MARGIN] = "topk_margin",
                                          [DREAM_ENTROPY] = "entropy"};

static int dream_parse(DecodeOptions *options, const char *name, const char *rest, Error *err) {
    NamePart part = name_part(&rest);
    int dream = DREAM_ORIGIN;
    while (dream <= DREAM_ENTROPY && !part_is(part, dream_names[dream])) dream++;
    if (dream > DREAM_ENTROPY)
        return error_set(err,
                         "strategy \"%s\": the second part is \"%.*s\", not origin, maskgit_plus, "
                         "topk_margin or entropy",
                         name, part.length, part.text);
    options->dream = (DecodeDream)dream;
    const char *after = rest;
    if (dream != DREAM_ORIGIN && *rest &&
        part_number(name_part(&after), "stochastic", &options->tau)) {
        options->stochastic = true;
        rest = after;
    }
    return name_ended(name, rest, err);
}

int decode_strategy_parse(DecodeOptions *options, const char *name, Error *err) {
    DecodeOptions parsed = *options;
    parsed.conditional = parsed.stochastic = false;
    parsed.tau = parsed.bound = 0;
    parsed.schedule = DECODE_COSINE;
    parsed.block = 0;
    parsed.random_remasking = parsed.end_never = parsed.end_last = false;
    parsed.dream = DREAM_ORIGIN;
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
    } else if (part_is(kind, "llada")) {
        parsed.strategy = DECODE_LLADA;
        TRY(llada_parse(&parsed, name, rest, err));
    } else if (part_is(kind, "dream")) {
        parsed.strategy = DECODE_DREAM;
        TRY(dream_parse(&parsed, name, rest, err));
    } else {
        return error_set(err,
                         "strategy \"%s\": unknown; expected reparam-<uncond|cond>-<deterministic|"
                         "stochasticTAU>-<linear|cosine>, cmlm, ar, confidenceX with a "
                         "probability, entropyX, llada-[blockN-]<lowconf|random>[-noend]"
                         "[-endlast] or dream-<origin|maskgit_plus|topk_margin|entropy>"
                         "[-stochasticTAU]",
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

static void llada_name(char *out, size_t size, const DecodeOptions *options) {
    char block[32] = "";
    if (options->block) snprintf(block, sizeof block, "block%d-", options->block);
    snprintf(out, size, "llada-%s%s%s%s", block, options->random_remasking ? "random" : "lowconf",
             options->end_never ? "-noend" : "", options->end_last ? "-endlast" : "");
}

static void dream_name(char *out, size_t size, const DecodeOptions *options) {
    char ranking[80] = "";
    if (options->stochastic) number_name(ranking, sizeof ranking, "-stochastic", options->tau);
    snprintf(out, size, "dream-%s%s", dream_names[options->dream], ranking);
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
    case DECODE_LLADA:
        llada_name(out, size, options);
        return;
    case DECODE_DREAM:
        dream_name(out, size, options);
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

/* As many as an answer has tokens, within bounds, unless they are given. */
static int steps_wanted(const DecodeOptions *options, int open) {
    if (options->iterations > 0) return options->iterations;
    if (open < DECODE_LEAST_STEPS) return DECODE_LEAST_STEPS;
    return open < DECODE_STEPS ? open : DECODE_STEPS;
}

int decode_steps(const DecodeOptions *options, int open) {
    if (options->strategy == DECODE_AR || options->strategy == DECODE_CONFIDENCE ||
        options->strategy == DECODE_ENTROPY)
        return open;
    int steps = steps_wanted(options, open), blocks = 1;
    if (options->strategy == DECODE_LLADA && options->block > 0)
        blocks = open / options->block + (open % options->block > 0);
    return steps < blocks ? blocks : steps;
}
