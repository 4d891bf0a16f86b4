/* report.h - what a training run tells while it runs: a progress line, metrics.jsonl, and
 * loss.svg.
 */
#ifndef EASYFIRST_APPS_TRAIN_REPORT_H
#define EASYFIRST_APPS_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/error.h"

/* One logged point: means since the point before. */
typedef struct TrainPoint {
    int64_t step;
    double epoch;        /* 1.25: a quarter into the second */
    double loss;         /* the objective; NaN if this is a validation point */
    double norm, rate;   /* of the gradients before clipping; learning rate */
    double tokens_per_s; /* of sequences, copies not counted */
    double rows_per_s;   /* rows through the network */
    double peak_share;   /* of the measured peak of the device's matmuls; NaN: unknown */
    double seconds;      /* since the start of the run, earlier parts of a resumed one included */
    double valid_loss;   /* NaN: none at this step */
    /* The stage `segment`, of validation: share of the patches whose class was found, and of those
     * of them that an object covers; NaN: none. */
    double valid_accuracy, valid_object_accuracy;
    int64_t skipped; /* updates left out since the start because the norm was no number */
} TrainPoint;

typedef struct TrainReport {
    int metrics;     /* the open file; lines are appended to it */
    char *path;      /* its name */
    char *curve;     /* loss.svg */
    int64_t size;    /* bytes of whole lines in it */
    char *unwritten; /* lines that could not be written yet: the disk is full, say */
    bool told;       /* that there are such lines */
    int dropped;     /* damaged lines that were left out when the file was opened */
    TrainPoint *points;
    int count, capacity;
    int64_t steps; /* of the whole run, for the ETA */
    bool quiet;
    bool terminal; /* standard error is one: the line is rewritten in place ... */
    bool pending;  /* ... and has no end yet */
} TrainReport;

/* Opens FOLDER/metrics.jsonl to append. With `step` > 0 (a resumed run) lines of later steps are
 * dropped first, atomically, and the earlier ones read for the curve: the file ends up as that of
 * an unbroken run. What a crash leaves is dropped, too, and counted in `dropped`: a last line that
 * was cut short, and lines with NUL bytes. Any other line that is none is an error. */
int train_report_open(TrainReport *report, const char *folder, int64_t step, int64_t steps,
                      bool quiet, Error *err);
void train_report_close(TrainReport *report);

/* Appends a line to metrics.jsonl and prints the progress line on standard error:
 *
 *   step 120/5000 ep 0.02  loss 3.214  norm 1.08  lr 4.1e-05  8.3k tok/s  71% of peak  ETA 12 min
 *
 * A line that cannot be written is kept and written with the next one; this is said once. */
int train_report_point(TrainReport *report, const TrainPoint *point, Error *err);

/* A line on standard error, whatever the names in it hold, below the progress line. `report` may be
 * one that is not open yet. `text` is cleaned in place. */
void train_report_line(TrainReport *report, char *text);

/* Makes all lines last, those that were kept first: before a checkpoint counts on them. */
int train_report_sync(TrainReport *report, Error *err);

/* Writes FOLDER/loss.svg: training loss (each point faint, a moving mean bold) and validation loss
 * over steps, learning rate beneath; axes with round numbers, labels, light and dark by the
 * viewer's scheme. Self-contained, below 200 KB whatever the number of points. Atomic. */
int train_report_svg(const TrainReport *report, const char *title, Error *err);

#endif
