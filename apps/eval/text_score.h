/* text_score.h - files of {"inputs", "targets"}, or of another format that gives such, and the scores
 * of their answers. */
#ifndef EASYFIRST_APPS_EVAL_TEXT_SCORE_H
#define EASYFIRST_APPS_EVAL_TEXT_SCORE_H

#include <stdio.h>

#include <jansson.h>

#include "apps/eval/scored.h"
#include "apps/eval/store.h"
#include "data/formats/format.h"
#include "data/metrics/tokenize.h"

typedef enum EvalTask {
    EVAL_TRANSLATION,
    EVAL_SUMMARY,
    EVAL_CHOICE,
    EVAL_EXACT,
    EVAL_NUMBER,
    EVAL_TASKS
} EvalTask;

extern const char *const eval_task_names[]; /* "translation", ... */

typedef struct EvalTextOptions {
    EvalTask task;
    Tokenize tokenize; /* translation */
    bool stem;         /* summary */
} EvalTextOptions;

typedef struct EvalTextFile {
    char *name;         /* without folders and ".jsonl"; no two are the same */
    int64_t first, end; /* its items */
    int64_t usable;     /* lines with both texts */
} EvalTextFile;

typedef struct EvalTextSet {
    EvalTextFile *files; /* [file_count] */
    int file_count;
    EvalItems items;
    char **ids, **inputs; /* [items.count]; an input may be NULL */
    char **targets;       /* [items.count] "" where there is none */
    char **subjects;      /* [items.count], or NULL */
    size_t capacity;
    PromptOptions prompt; /* the caller's, before reading */
    Skipped rejected;     /* records of tables that were left out */
} EvalTextSet;

/* Reads the files, of each the first `limit` records (0: all). A record is a line that is not
 * empty; one that is unusable, or has a target that `task` cannot score, is an item that cannot be
 * answered; of tables and other files that prompts are built from, unusable records are counted in
 * `rejected`. Errors: a file that cannot be read or has no usable record, two files of one name. */
int eval_text_read(EvalTextSet *set, char *const *paths, int count, int64_t limit, EvalTask task,
                   Error *err);
void eval_text_free(EvalTextSet *set);

/* Reads a JSON list with a subject for each record of the only file; *spare is the number of
 * further subjects (with --limit). */
int eval_text_subjects(EvalTextSet *set, const char *path, int64_t *spare, Error *err);

/* Writes NAME.answers.txt and NAME.targets.txt, a record a line, without those that
 * were skipped. */
int eval_text_files(const EvalTextSet *set, const EvalStore *store, Error *err);

enum { EVAL_TEXT_VALUES = 3 };

/* The values in 0..1 of one answer (NULL: none) for the scores of a task that are means. */
int eval_text_values(EvalTask task, const char *answer, const char *target,
                     double values[EVAL_TEXT_VALUES], Error *err);

/* What came of each record that is scored. */
int eval_text_scored(const EvalTextSet *set, const EvalTextOptions *options, Scored *scored,
                     Error *err);

/* {"task", "files": [{"file", "lines", "unanswered", "skipped", scores}], "mean": {...},
 * "subjects": ...}; NULL with a message. A missing answer is scored as an empty one, which is never
 * right; skipped records are not scored, and a file with only skipped ones has no scores. */
json_t *eval_text_score(const EvalTextSet *set, const EvalTextOptions *options, Error *err);

/* The same as a table. */
void eval_text_print(FILE *out, const json_t *scores);

#endif
