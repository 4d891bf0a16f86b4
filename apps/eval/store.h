/* store.h - the folder of an evaluation: its settings and the answers so far, so that a run that
 * was interrupted anywhere can be resumed.
 *
 *   settings.json            model, data, options: everything that answers depend on
 *   answers.jsonl            an answer a line, LLaVA's keys: {"question_id", "prompt", "text",
 *                            "answer_id", "model_id", "metadata": {"score" and "length" of the
 *                            answer, "attention" if asked for, "dropped_tokens" of a prompt that
 *                            was shortened}}; as they are answered, at the end in the order of the
 *                            questions
 *   answers-2-of-4.jsonl     those of a shard, until a run without --shard joins them
 *   unanswered.jsonl         {"question_id", "image", "reason", "error"} of what has no answer,
 *                            skipped or not
 *
 * Answers are appended a batch at a time in one write, and synced. A killed process leaves complete
 * lines and at most one partial line, which the next run removes. One process at a time holds the
 * lock of a file.
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
    int64_t size;       /* bytes of complete lines */
    TextTable ids;      /* of the items: an id's number is the item's index */
} EvalStore;

/* Makes the folder if it does not exist and, while it is locked (apps/eval/folder.h), compares
 * `settings` with those of an earlier run, or writes them, and locks the file of answers. Errors: a
 * folder that no evaluation made, other settings (the first that differs is named), a run that is
 * still active, a folder that cannot be written. *store is empty on failure. */
int eval_store_open(EvalStore *store, const char *folder, int shard, int shards,
                    const json_t *settings, const char *model, Error *err);

/* Gives the items the answers stored in the folder. Errors: duplicate ids among the items, lines
 * that no run has written. */
int eval_store_load(EvalStore *store, EvalItems *items, Error *err);

/* Takes "score" and "length" of an answer's line from its "metadata"; nothing unless both are
 * there. */
void eval_item_score(EvalItem *item, const json_t *metadata);

/* Appends the answers of items[order[0 .. count)], those that have one. After a failure (disk full,
 * for example) the file is unchanged. */
int eval_store_append(EvalStore *store, const EvalItems *items, const int64_t *order, int64_t count,
                      Error *err);

/* Writes answers.jsonl and unanswered.jsonl in the order of the items, atomically, and removes the
 * files of shards. */
int eval_store_finish(EvalStore *store, const EvalItems *items, Error *err);
void eval_store_close(EvalStore *store);

/* Writes a file of the folder line by line: `line` returns the text of item `index` without line
 * end, on the heap (NULL with *failed = false: no line). */
typedef char *(*EvalLine)(void *user, int64_t index, bool *failed);
int eval_store_lines(const EvalStore *store, const char *name, EvalLine line, void *user,
                     int64_t count, Error *err);

/* Writes a JSON object (takes ownership; NULL: out of memory) to a file of the folder. */
int eval_store_json(const EvalStore *store, const char *name, json_t *object, Error *err);

#endif
