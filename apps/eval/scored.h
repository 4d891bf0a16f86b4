/* scored.h - the questions of an evaluation with what came of each: scored.jsonl in its folder, what
 * intervals are made from, and what two evaluations are compared by.
 *
 * A line of scored.jsonl for each question that is scored, in their order:
 *
 *   {"question_id", "file", "prompt", "target", "answer", "image", "types": {"semantic": ...},
 *    "scores": {"accuracy": 1.0, ...}}
 *
 * "answer" is null where there is none; what a question does not have ("file", "image", a type, a
 * score that it does not count in) is missing. Scores are percentages; a translation's BLEU (with
 * effective order) and chrF are those of its line alone.
 */
#ifndef EASYFIRST_APPS_EVAL_SCORED_H
#define EASYFIRST_APPS_EVAL_SCORED_H

#include "apps/eval/store.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"

enum { SCORED_METRICS = 8, SCORED_TYPES = 3 };

typedef struct ScoredLine {
    char *id; /* owned, as all texts; NULL: none */
    char *file, *prompt, *target, *answer, *image;
    char *types[SCORED_TYPES];
    double values[SCORED_METRICS]; /* percent; NaN: it does not count */
} ScoredLine;

/* What is measured in a task. */
typedef struct ScoredTask {
    const char *name;                   /* "gqa", or one of eval_task_names */
    const char *keys[SCORED_METRICS];   /* of the scores in JSON; the first one decides who wins */
    const char *titles[SCORED_METRICS]; /* for people */
    const char *types[SCORED_TYPES];    /* of questions */
} ScoredTask;

typedef struct Scored {
    const ScoredTask *task;
    ScoredLine *lines; /* [count] */
    int64_t count, capacity;
    BleuOptions bleu; /* of translations */
    ChrfOptions chrf;
} Scored;

/* NULL: there is no such task. */
const ScoredTask *scored_task(const char *name);
int scored_metric_count(const ScoredTask *task);

/* A new line, all empty. NULL with a message. */
ScoredLine *scored_add(Scored *scored, Error *err);

/* Copies a text (NULL: none). */
int scored_text(char **to, const char *text, Error *err);

void scored_free(Scored *scored);

/* Sets the values of translations or summaries, line by line. */
int scored_translations(Scored *scored, Error *err);
int scored_summaries(Scored *scored, bool stem, Error *err);

/* scored.jsonl of an evaluation that is at its end. */
int scored_write(const Scored *scored, const EvalStore *store, Error *err);

/* Reads that of a finished evaluation with the task and options of its result.json, which is the
 * caller's to release. Errors: an evaluation that is not finished, or of another kind. */
int scored_read(Scored *scored, const char *folder, json_t **result, Error *err);

/* ---- Intervals. ---- */

/* A selection of lines: indices [count]. */
typedef struct Selection {
    char *name; /* owned; of a file, or a type's value */
    int64_t *lines;
    int64_t count, capacity;
} Selection;

/* The lines by their file, or by a type; lines without one are in none. In the order of their first
 * lines. */
enum { SELECT_FILES = -1 };
int scored_select(const Scored *scored, int type, Selection **selections, int *count, Error *err);
void selections_free(Selection *selections, int count);

/* The counts of the selected lines (NULL: all) of a metric, for resampling. */
int scored_stats(const Scored *scored, int metric, const Selection *selection, LineStats *stats,
                 Error *err);

/* Adds "confidence": {"accuracy": {"mean", "half_width", "low", "high"}} to the rows of
 * eval_text_score's object: the files, the mean over them, and "macro" of the subjects. */
int scored_confidence(const Scored *scored, json_t *scores, Error *err);

#endif
