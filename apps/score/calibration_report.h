/* calibration_report.h - prints how well a model is calibrated (data/metrics/calibration.h). */
#ifndef EASYFIRST_APPS_SCORE_CALIBRATION_REPORT_H
#define EASYFIRST_APPS_SCORE_CALIBRATION_REPORT_H

#include <stdio.h>

#include <jansson.h>

#include "data/metrics/calibration.h"

void calibration_report_text(FILE *out, const CalibrationReport *report);

/* {"answers", "right", "brier", "ece", "threshold", "unsure", "right_unsure", "wrong_unsure",
 * "sure_accuracy", "bins": [{"answers", "probability", "right"}]}: shares from 0 to 1, null where
 * they are shares of nothing; bins that are empty have 0 "answers" alone. */
json_t *calibration_report_json(const CalibrationReport *report);

#endif
