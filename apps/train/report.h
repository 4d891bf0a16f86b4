/* report.h - the reports of a training run: a progress line, metrics.jsonl, and loss.svg.
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
    double valid_score;  /* of generated answers, percent; NaN: none */
    /* The stage `segment`, of validation: share of the patches with the right class, of all and of
     * those that an object covers; NaN: none. */
    double valid_accuracy, valid_object_accuracy;
    int64_t skipped; /* updates skipped since the start because the norm was not finite */
} TrainPoint;

typedef struct TrainReport {
    int metrics;     /* the open file; lines are appended to it */
    char *path;      /* its name */
    char *curve;     /* loss.svg */
    int64_t size;    /* bytes of complete lines in it */
    char *unwritten; /* lines that could not be written yet (disk full, for example) */
    bool reported;   /* such lines were reported */
    int dropped;     /* damaged lines dropped when the file was opened */
    TrainPoint *points;
    int count, capacity;
    const char *score; /* what valid_score is, for people: "bleu"; NULL: there is none */
    int64_t steps;     /* of the whole run, for the ETA */
    bool quiet;
    bool terminal; /* standard error is one: the line is rewritten in place ... */
    bool pending;  /* ... and has no end yet */
} TrainReport;

/* Opens FOLDER/metrics.jsonl to append. With `step` > 0 (a resumed run) lines of later steps are
 * dropped first, atomically, and the earlier ones read for the curve: the file ends up as that of
 * an uninterrupted run. What a crash leaves is dropped, too, and counted in `dropped`: a truncated
 * last line, and lines with NUL bytes. Any other invalid line is an error. */
int train_report_open(TrainReport *report, const char *folder, int64_t step, int64_t steps,
                      bool quiet, Error *err);
void train_report_close(TrainReport *report);

/* Appends a line to metrics.jsonl and prints the progress line on standard error:
 *
 *   step 120/5000 ep 0.02  loss 3.214  norm 1.08  lr 4.1e-05  8.3k tok/s  71% of peak  ETA 12 min
 *
 * A line that cannot be written is kept and written with the next one; this is reported once. */
int train_report_point(TrainReport *report, const TrainPoint *point, Error *err);

/* Prints a line on standard error, below the progress line, with control characters replaced.
 * `report` need not be open yet. `text` is cleaned in place. */
void train_report_line(TrainReport *report, char *text);

/* Syncs all lines, those that were kept first: call it before a checkpoint depends on them. */
int train_report_sync(TrainReport *report, Error *err);

/* Writes FOLDER/loss.svg: training loss (each point faint, a moving mean bold) and validation loss
 * over steps, the score of generated answers on an axis of its own, learning rate below; light and dark by the viewer's color scheme. Self-contained,
 * below 200 KB for any number of points. Atomic. */
int train_report_svg(const TrainReport *report, const char *title, Error *err);

#endif
