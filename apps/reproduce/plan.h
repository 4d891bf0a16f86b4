/* plan.h - what reproduces a table of a paper: which files, which commands, which number of which
 * command's output goes where.
 *
 * A table is a JSON file of data/reproduce, installed with the program:
 *
 *   {"title": ..., "source": "arXiv ..., table 7", "note": ..., "sizes": ["base", "large"],
 *    "plot": true,
 *    "rows": [{"label": "IWSLT14 de-en, length beam 10", "metric": "BLEU",
 *              "value": "score/files/0/bleu", "paper": {"base": 34.1, "large": 37.33},
 *              "full": {"step": "iwslt14-{size}-beam"},
 *              "small": {"why": "no comparable data"}}],
 *    "claims": [{"text": "Longer beams help", "greater": LABEL, "less": LABEL}],
 *    "full": {"about": ...,
 *             "files": {"test": {"path": "iwslt14/test.de", "what": ..., "from": ...}},
 *             "steps": [{"name": "iwslt14-{size}-beam", "after": ["iwslt14-{size}-length"],
 *                        "files": ["test"], "run": ["eval", "text", "-m", "{runs}/..."]}]},
 *    "small": {"about": ..., "vars": {"layers": {"base": "2", "large": "4"}}, "steps": [...]}}
 *
 * A step is a command line of easyfirst, or of "program". It makes the folder or file {runs}/NAME.
 * Its result is {runs}/NAME/result.json; "result": "stdout" is what it prints, and any other a path
 * in {runs}/NAME. "value" leads to a number in it, by members and indices; "of" to one that divides
 * it, and "scale" multiplies it. A row has "why" in place of "step" where nothing can be run. {size}, {runs}, {files}, {bundled},
 * {causal} and the form's "vars" are replaced in all texts of steps and files. "use": the files and
 * steps of that table come before these; "sizes" of a row or a form: only these. Only the steps that
 * rows need are run, in the order of the list.
 */
#ifndef EASYFIRST_APPS_REPRODUCE_PLAN_H
#define EASYFIRST_APPS_REPRODUCE_PLAN_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/error.h"

typedef struct PlanOptions {
    bool small;
    const char *sizes; /* with commas between; NULL: all */
    const char *files; /* folder of the user's files */
    const char *out;   /* folder of everything that is made */
    int limit, steps;  /* for trials: --limit of evaluations, --steps of training; 0: as they are */
} PlanOptions;

typedef struct PlanFile {
    char *id, *path, *what, *from;
    bool model, length_predictor; /* is a model; has to have a length predictor */
    double parameters;            /* of a model's language part; 0: not known */
    double memory;                /* bytes that answering takes, set by files_check; 0: not known */
} PlanFile;

typedef struct PlanStep {
    char *name;
    char **words; /* NULL-terminated; of an easyfirst command without "easyfirst" */
    int word_count;
    char *program;      /* NULL: easyfirst */
    char *result;       /* path of its JSON */
    int *after, *files; /* indices */
    int after_count, file_count;
    bool needed;
} PlanStep;

typedef struct PlanCell {
    const char *label, *metric, *size; /* size "": the table has none */
    const char *row, *of_size; /* label in the table, and size even of a row with only one */
    const char *value, *of;    /* paths in the step's result; of: NULL, or divides it */
    double scale, paper;       /* paper: NaN where it is not known */
    int step;                  /* -1: none, and `why` says why */
    const char *why;
} PlanCell;

typedef struct Plan {
    const char *name; /* "table7" */
    const char *title, *source, *note, *about;
    bool plot;
    PlanOptions options;
    PlanFile *files;
    PlanStep *steps;
    PlanCell *cells;
    int file_count, step_count, cell_count;
    const json_t *claims; /* array, checked; NULL: none (claims.h) */
    json_t *texts;        /* owns what the cells point to */
} Plan;

/* The names of all tables in alphabetical order, NULL-terminated; free with plan_names_free. */
char **plan_names(Error *err);
void plan_names_free(char **names);

/* Reads and expands a table; plan_free is due in any case. Errors name the table and the member. */
int plan_read(Plan *plan, const char *name, const PlanOptions *options, Error *err);
void plan_free(Plan *plan);

/* A table's title, as a line of text; the caller's to free. */
char *plan_title(const char *name, Error *err);

#endif
