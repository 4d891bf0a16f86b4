/* train_setup.h - what the tests of `easyfirst train` share: a tiny model, a small task, runs that
 * are started and stopped, and the files that a run leaves. */
#ifndef EASYFIRST_TESTS_TRAIN_SETUP_H
#define EASYFIRST_TESTS_TRAIN_SETUP_H

#include <sys/resource.h>
#include <sys/types.h>

#include <jansson.h>

#include "tests/llava_set.h"
#include "tests/program.h"

#define TINY_BASE "tests/golden/models/tiny-base" /* full attention, with every part */
#define TINY_XL   "tests/golden/models/tiny-xl"   /* block-causal attention */
#define TOKENIZER TINY_BASE "/language/sentencepiece.bpe.model"

typedef struct TrainSetup {
    Run run;
    LlavaSet set;
    char model[300], pairs[300], valid[300]; /* a model with a vision tower; text data */
    char whole[300], out[300]; /* run folders to be made: of a run without a break, of another */
} TrainSetup;

void train_setup(TrainSetup *t);
void train_setup_end(TrainSetup *t);

/* Twelve steps, with a checkpoint every four. */
#define ADAPT(t, out)                                                                          \
    "train", "adapt", "-m", (t)->model, "--data", (t)->pairs, "--out", (out), "--steps", "12", \
        "--batch-sequences", "6", "--lr", "2e-3", "--warmup-steps", "3", "--save-every", "4",  \
        "--log-every", "1", "--valid", (t)->valid, "--valid-every", "5", "-q"

/* Runs the program, which must succeed and print nothing on standard output. */
#define run_ok(r, ...)       \
    do {                     \
        run(r, __VA_ARGS__); \
        expect(r, 0, "");    \
    } while (0)

/* ---- The task. ---- */

/* Numbers in words (apps/reproduce/number_words.h): German says the ones before the tens, so a model has to
 * attend to later words. */

/* Training data: every `step`-th number from `first` on; or, with `rest`, all numbers but those
 * with the remainder 3. */
void write_pairs(const char *path, int first, int end, int step, bool rest);

/* ---- Files. ---- */

void write_bytes(const char *path, const char *bytes, size_t size);
void write_text(const char *path, const char *text);

/* The same in the run's folder; the path goes to `path`, of 300 bytes, unless that is NULL. */
void write_text_in(const Run *r, const char *name, const char *text, char *path);

/* A file of the run's folder, which must exist; free the text, release the JSON. */
char *read_text(const Run *r, const char *name);
json_t *read_json(const Run *r, const char *name);
bool has_file(const Run *r, const char *name);

/* Entries of a folder whose names begin with `prefix`; lines of a file (0 if there is none). */
int count_entries(const char *folder, const char *prefix);
int lines_in(const Run *r, const char *name);

/* A command of the shell, which must succeed. */
void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- What a run leaves. ---- */

/* The value `key` of each line of metrics.jsonl by step; NaN where a step has none. Returns the
 * last step that has one. */
int read_losses(const Run *r, const char *name, const char *key, double *losses, int most);

void assert_same_file(const Run *r, const char *a, const char *b);

/* Two runs' metrics up to `steps`, and their models. */
void assert_same_run(const Run *r, const char *a, const char *b, int steps);

/* ---- Processes. ---- */

/* Starts the program, whose standard error is the file "stderr"; SIGXFSZ is ignored or not, and
 * files may have `limit` bytes. */
pid_t start_program(const Run *r, rlim_t limit, bool ignore, char *const *args);

/* Until a file has so many lines; fails if the program ends before. */
void wait_for_lines(const Run *r, pid_t child, const char *name, int lines);

/* Sends a signal, waits for the end, and returns the status. */
int end_program(pid_t child, int signal);

/* Standard error of this process goes to a file between these two; the second returns its text,
 * which the caller frees. `saved` is what the first returned. */
int capture_begin(const char *path);
char *capture_end(int saved, const char *path);

#endif
