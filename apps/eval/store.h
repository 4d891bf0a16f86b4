/* store.h - the folder of an evaluation: what was asked with which settings, and the answers
 * as they come, so that a run which was cut off anywhere goes on where it was.
 *
 *   settings.json            model, data, options: everything that answers depend on
 *   answers.jsonl            an answer a line, LLaVA's keys: {"question_id", "prompt", "text",
 *                            "answer_id", "model_id", "metadata": {"attention" if asked for,
 *                            "dropped_tokens" of a prompt that was shortened}}; in the order in
 *                            which they come, at the end in the order of the questions
 *   answers-2-of-4.jsonl     those of a shard, until a run without --shard joins them
 *   unanswered.jsonl         {"question_id", "image", "problem", "error"} of what has no answer,
 *                            skipped or not
 *
 * Answers are appended a batch at a time in one write, and synced. A process that is killed leaves
 * whole lines and at most a torn one, which is cut off by the next run. A file belongs to one
 * process at a time (a lock).
 */
#ifndef EASYFIRST_APPS_EVAL_STORE_H
#define EASYFIRST_APPS_EVAL_STORE_H

#include "apps/eval/items.h"
#include "data/sets/text_table.h"

typedef struct EvalStore {
    const char *folder; /* the caller's */
    char *path;         /* of the file that is appended to; owned */
    int fd;             /* of it, locked; -1 */
    int shard, shards;  /* from 1; 0: the whole */
    const char *model;  /* "model_id"; the caller's */
    int64_t size;       /* bytes of whole lines */
    TextTable ids;      /* of the items: the number of an id is its index */
} EvalStore;

/* Makes the folder if it is not there and, while it is locked (apps/eval/folder.h), compares
 * `settings` with those of an earlier run, or writes them, and locks the file of answers. Errors: a
 * folder that no evaluation made, other settings (the first that differs is named), a run that is
 * still going on, a folder that cannot be written. *store is empty on failure. */
int eval_store_open(EvalStore *store, const char *folder, int shard, int shards,
                    const json_t *settings, const char *model, Error *err);

/* Gives the items the answers that are in the folder. Errors: ids that occur twice among the
 * items, lines that no run has written. */
int eval_store_load(EvalStore *store, EvalItems *items, Error *err);

/* Appends the answers of items[order[0 .. count)], those that have one. After a failure (a full
 * disk, say) the file is as it was. */
int eval_store_append(EvalStore *store, const EvalItems *items, const int64_t *order, int64_t count,
                      Error *err);

/* Writes answers.jsonl and unanswered.jsonl in the order of the items, whole or not at all, and
 * removes the files of shards. */
int eval_store_finish(EvalStore *store, const EvalItems *items, Error *err);
void eval_store_close(EvalStore *store);

/* A file of the folder that is made line by line: `line` gives the bytes of item `index` (NULL with
 * *failed = false: none), without line end, on the heap. */
typedef char *(*EvalLine)(void *user, int64_t index, bool *failed);
int eval_store_lines(const EvalStore *store, const char *name, EvalLine line, void *user,
                     int64_t count, Error *err);

/* A JSON object (taken over; NULL: there was no memory) as a file of the folder. */
int eval_store_json(const EvalStore *store, const char *name, json_t *object, Error *err);

#endif
