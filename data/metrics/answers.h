/* answers.h - scores of short answers: exact match, normalized match, F1, the last number, the
 * choice's letter.
 *
 * All functions take one prediction and one target, and 0 or 1 is a double, for means. Published
 * numbers use: MMLU, BBH and TyDiQA of the diffusion models' paper ANSWER_AS_IS, its GSM8K and MGSM
 * answer_number, lmms-eval's GQA ANSWER_PLAIN, SQuAD's and most others' TyDiQA ANSWER_SQUAD and
 * answer_f1.
 */
#ifndef EASYFIRST_DATA_METRICS_ANSWERS_H
#define EASYFIRST_DATA_METRICS_ANSWERS_H

#include <stdbool.h>

#include "kernels/error.h"

typedef enum AnswerRule {
    ANSWER_AS_IS, /* byte by byte, but for white space at both ends */
    ANSWER_PLAIN, /* lower case, without ASCII punctuation: lmms-eval's exact_match of GQA */
    ANSWER_SQUAD, /* also without a, an, the, and with single spaces: SQuAD 1.1, TyDiQA */
    ANSWER_RULES,
} AnswerRule;

/* The normalized text; the caller's to free. */
int answer_normalize(AnswerRule rule, const char *text, char **out, Error *err);

/* 1 if both are equal after normalization. */
int answer_exact(AnswerRule rule, const char *prediction, const char *target, double *equal,
                 Error *err);

/* F1 of the words that both have after ANSWER_SQUAD, counted with multiplicity; 0 if there is none,
 * even if both are empty (SQuAD 1.1's script, which TyDiQA's gold passages are scored by). */
int answer_f1(const char *prediction, const char *target, double *f1, Error *err);

/* 1 if the last integers of both are the same; 0 if one of them has none. */
int answer_number(const char *prediction, const char *target, double *equal, Error *err);

/* The last integer of a text in ASCII digits, without leading zeros; *out is NULL if there is none,
 * and the caller's to free. An integer is what the pattern \d+(,\d+)* matches, the commas removed,
 * as in the released script of the diffusion models' authors: digits of all scripts count, signs do
 * not, and of "12.50" the last integer is 50. */
int answer_last_integer(const char *text, char **out, Error *err);

/* 1 if prediction and target name the same choice ("B", "(B)", "B) a dog", "the answer is (b).");
 * if the target names none, 1 if both are equal under ANSWER_PLAIN ("yes", "no"). See
 * answer_letter. */
int answer_choice(const char *prediction, const char *target, double *equal, Error *err);

/* The letter 'A'..'Z' of the choice that a text names, 0 if none: a letter that the text begins
 * with, alone or followed by one of ) . : , or in brackets; else the last one in round brackets;
 * else the last word, if it is a single capital letter. */
char answer_letter(const char *text);

#endif
