/* train_bench.h - what the tests of `easyfirst train` share: a tiny model, a small task, and looks
 * at what a run leaves. */
#ifndef EASYFIRST_TESTS_TRAIN_BENCH_H
#define EASYFIRST_TESTS_TRAIN_BENCH_H

#include <sys/resource.h>
#include <sys/types.h>

#include "tests/llava_set.h"
#include "tests/program.h"

#define TOKENIZER "tests/golden/models/tiny-base/language/sentencepiece.bpe.model"

typedef struct Bench {
    Run run;
    LlavaSet set;
    char model[300], pairs[300], valid[300];
} Bench;

/* A number below 1000 in words; German says the ones before the tens: a model has to look ahead. */
void english_number(char *out, size_t size, int n);
void german_number(char *out, size_t size, int n);

/* Every `step`-th number from `first` on; or, with `rest`, all but the ones that 3 begins. */
void write_pairs(const char *path, int first, int end, int step, bool rest);

/* A tiny model that reads and sees, and data of every format. */
void bench_start(Bench *b);
void bench_end(Bench *b);

/* A file of the run's folder, which must be there; whether one is. */
char *text_of(const Run *r, const char *name);
bool there(const Run *r, const char *name);

/* The "loss" of each line of metrics.jsonl by step; NaN where a step has none. Returns the highest
 * step. */
int read_losses(const Run *r, const char *name, const char *key, double *losses, int most);

void assert_same_file(const Run *r, const char *a, const char *b);

/* Two runs' metrics up to `steps`, and their models. */
void assert_same_run(const Run *r, const char *a, const char *b, int steps);

/* Starts the program, whose standard error is the file "stderr"; SIGXFSZ is left as `ignore` says,
 * and files may have `limit` bytes. */
pid_t start(const Run *r, rlim_t limit, bool ignore, char *const *args);

/* Entries of a folder whose names begin with `prefix`; lines of a file. */
int count_entries(const char *folder, const char *prefix);
int lines_in(const Run *r, const char *name);

/* Twelve steps, with a checkpoint every four. */
#define ADAPT(b, out)                                                                          \
    "train", "adapt", "-m", (b)->model, "--data", (b)->pairs, "--out", (out), "--steps", "12", \
        "--batch-sequences", "6", "--lr", "2e-3", "--warmup-steps", "3", "--save-every", "4",  \
        "--log-every", "1", "--valid", (b)->valid, "--valid-every", "5", "-q"

#endif
