/* gqa_report.h - GQA's scores as a table for people and as JSON. */
#ifndef EASYFIRST_APPS_SCORE_GQA_REPORT_H
#define EASYFIRST_APPS_SCORE_GQA_REPORT_H

#include <stdio.h>

#include <jansson.h>

#include "data/metrics/gqa.h"

/* The table; absent metrics with the reason. */
void gqa_report_text(FILE *out, const GqaScore *score);

/* {"questions", "unanswered", ..., "metrics": {"accuracy": 57.1, ...} (null: absent), "confidence":
 * {"accuracy": {"mean", "low", "high"}} if there are intervals, "absent": {"validity": "no choices file"}, "tables": {"structural": {"query": {"accuracy",
 * "questions"}}}, "testdev": "matches" | "differs: ..." | null, "problems": {kind: {"count",
 * "first"}}}. NULL without memory. */
json_t *gqa_report_json(const GqaScore *score);

/* Prints on standard error what was wrong with single entries, but for the kinds in `except`
 * (NULL-terminated; NULL: none), and the warning of the self-check. */
void gqa_report_skipped(const GqaScore *score, const char *const *except);

#endif
