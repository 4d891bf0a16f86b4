/* fuzz.h - fuzz targets: functions that give arbitrary bytes to one parser each.
 *
 * All targets are one program, built twice: with libFuzzer (`make fuzz`, tests/fuzz/libfuzzer.c),
 * where the environment's FUZZ_TARGET names the one to run, and into
 * tests/apps/test_fuzz_regressions.c, which gives them the inputs that once failed. A target ends
 * normally whatever the bytes are; it must keep nothing from one input to the next, so that an
 * input alone does what it does after others. */
#ifndef EASYFIRST_TESTS_FUZZ_FUZZ_H
#define EASYFIRST_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct FuzzTarget {
    const char *name;
    void (*run)(const uint8_t *data, size_t size);
    size_t longest; /* bytes of an input that the fuzzer makes */
} FuzzTarget;

/* Ends with a target whose name is NULL. */
extern const FuzzTarget fuzz_targets[];

const FuzzTarget *fuzz_target_find(const char *name); /* NULL if there is none */

/* ---- What targets use; everything ends the program where the system fails. ---- */

/* The path of a file in memory that holds these bytes, for functions that take paths. There are
 * FUZZ_FILES of them; a number's file is overwritten by the next call with it. */
enum { FUZZ_FILES = 8 };
const char *fuzz_file(int number, const uint8_t *data, size_t size);

/* A folder of this process (in memory where the system has such a place), removed at its end. */
const char *fuzz_folder(void);

/* Writes FOLDER/name; folders in `name` are made. Returns the path, valid until the next call with
 * the same `number` (below FUZZ_FILES). */
const char *fuzz_write(int number, const char *name, const void *data, size_t size);

/* Copies a tree of the sources (a folder below tests/golden) to FOLDER/name, once. */
const char *fuzz_tree(const char *from, const char *name);

/* A copy with a 0 after it, free() it; `exact` is a copy of just these bytes, so that a sanitizer
 * sees the first one read behind them. */
char *fuzz_text(const uint8_t *data, size_t size);
uint8_t *fuzz_exact(const uint8_t *data, size_t size);

/* Takes the bytes up to the next 0xFF (which is in no UTF-8 text) off the front of *data; what is
 * left of the last piece is empty. For inputs of several files. */
typedef struct FuzzPiece {
    const uint8_t *data;
    size_t size;
} FuzzPiece;
FuzzPiece fuzz_piece(const uint8_t **data, size_t *size);

/* Reads every byte, so that a sanitizer sees those that are not there. */
void fuzz_touch(const void *bytes, size_t size);

/* Ends the program: a property that every input must have does not hold. */
void fuzz_check(bool holds, const char *what);

/* After a call: it succeeded, or its message is one line that is not empty. */
void fuzz_result(int status, const Error *err);

/* ---- The targets, by file. ---- */

/* images.c */
void fuzz_png(const uint8_t *data, size_t size);
void fuzz_jpeg(const uint8_t *data, size_t size);
void fuzz_exif(const uint8_t *data, size_t size);
void fuzz_xmp(const uint8_t *data, size_t size);
/* checkpoints.c */
void fuzz_safetensors(const uint8_t *data, size_t size);
void fuzz_torch(const uint8_t *data, size_t size);
void fuzz_pickle(const uint8_t *data, size_t size);
void fuzz_zip(const uint8_t *data, size_t size);
void fuzz_index(const uint8_t *data, size_t size);
/* data.c */
void fuzz_json_array(const uint8_t *data, size_t size);
void fuzz_records(const uint8_t *data, size_t size);
void fuzz_ratio(const uint8_t *data, size_t size);
void fuzz_gqa_questions(const uint8_t *data, size_t size);
void fuzz_gqa_predictions(const uint8_t *data, size_t size);
void fuzz_gqa_score(const uint8_t *data, size_t size);
void fuzz_scene_graphs(const uint8_t *data, size_t size);
void fuzz_causal_graph(const uint8_t *data, size_t size);
void fuzz_order_prompts(const uint8_t *data, size_t size);
/* texts.c */
void fuzz_sentencepiece(const uint8_t *data, size_t size);
void fuzz_tokenizer(const uint8_t *data, size_t size);
void fuzz_vocabulary(const uint8_t *data, size_t size);
void fuzz_texts(const uint8_t *data, size_t size);
void fuzz_score_lines(const uint8_t *data, size_t size);
void fuzz_score_metrics(const uint8_t *data, size_t size);
/* programs.c */
void fuzz_config(const uint8_t *data, size_t size);
void fuzz_model(const uint8_t *data, size_t size);
void fuzz_trace(const uint8_t *data, size_t size);
void fuzz_settings(const uint8_t *data, size_t size);
void fuzz_options(const uint8_t *data, size_t size);
void fuzz_eval_store(const uint8_t *data, size_t size);
void fuzz_eval_text(const uint8_t *data, size_t size);
void fuzz_metrics(const uint8_t *data, size_t size);
void fuzz_state(const uint8_t *data, size_t size);

#endif
