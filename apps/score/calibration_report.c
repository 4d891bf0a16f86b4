#include "apps/score/calibration_report.h"

#include <math.h>

/* NaN: a share of nothing. */
static double share(int64_t part, int64_t all) {
    return all ? (double)part / (double)all : NAN;
}

static double right_unsure(const CalibrationReport *r) {
    return share(r->unsure_right, r->right);
}

static double wrong_unsure(const CalibrationReport *r) {
    return share(r->unsure - r->unsure_right, r->count - r->right);
}

static double sure_accuracy(const CalibrationReport *r) {
    return share(r->right - r->unsure_right, r->count - r->unsure);
}

/* `width` digits, with the point. */
static void print_share(FILE *out, int width, double value) {
    if (isnan(value))
        fprintf(out, "%*s", width + 1, "-");
    else
        fprintf(out, "%*.2f%%", width, 100 * value);
}

void calibration_report_text(FILE *out, const CalibrationReport *r) {
    const double base = share(r->right, r->count);
    fprintf(out, "Brier score   %7.4f  (%.4f if each had the share of right answers)\n", r->brier,
            r->count ? base * (1 - base) : 0);
    fprintf(out, "ECE           %7.4f  (expected calibration error, %d bins)\n", r->ece,
            CALIBRATION_BINS);
    fputs("unsure        ", out), print_share(out, 6, share(r->unsure, r->count));
    fprintf(out, " of %lld answers, those below %g: ", (long long)r->count, r->threshold);
    print_share(out, 0, right_unsure(r)), fputs(" of the right ones, ", out);
    print_share(out, 0, wrong_unsure(r)), fputs(" of the wrong ones\n", out);
    fputs("sure          ", out), print_share(out, 6, sure_accuracy(r));
    fputs(" of them are right; of all answers ", out), print_share(out, 0, base);
    fputs("\n\nprobability    answers  mean probability    right\n", out);
    for (int b = 0; b < CALIBRATION_BINS; b++) {
        const CalibrationBin *bin = &r->bins[b];
        fprintf(out, "  %.1f to %.1f %10lld", (double)b / CALIBRATION_BINS,
                (double)(b + 1) / CALIBRATION_BINS, (long long)bin->count);
        if (bin->count)
            fprintf(out, "           %6.2f%%  %6.2f%%", 100 * bin->probability, 100 * bin->right);
        fputc('\n', out);
    }
}

static json_t *json_share(double value) {
    return isnan(value) ? json_null() : json_real(value);
}

static json_t *json_bins(const CalibrationReport *r) {
    json_t *list = json_array();
    for (int b = 0; b < CALIBRATION_BINS; b++) {
        const CalibrationBin *bin = &r->bins[b];
        json_t *object = json_object();
        json_object_set_new(object, "answers", json_integer(bin->count));
        if (bin->count) {
            json_object_set_new(object, "probability", json_real(bin->probability));
            json_object_set_new(object, "right", json_real(bin->right));
        }
        json_array_append_new(list, object);
    }
    return list;
}

json_t *calibration_report_json(const CalibrationReport *r) {
    json_t *object = json_object();
    json_object_set_new(object, "answers", json_integer(r->count));
    json_object_set_new(object, "right", json_share(share(r->right, r->count)));
    json_object_set_new(object, "brier", json_real(r->brier));
    json_object_set_new(object, "ece", json_real(r->ece));
    json_object_set_new(object, "threshold", json_real(r->threshold));
    json_object_set_new(object, "unsure", json_share(share(r->unsure, r->count)));
    json_object_set_new(object, "right_unsure", json_share(right_unsure(r)));
    json_object_set_new(object, "wrong_unsure", json_share(wrong_unsure(r)));
    json_object_set_new(object, "sure_accuracy", json_share(sure_accuracy(r)));
    json_object_set_new(object, "bins", json_bins(r));
    return object;
}
