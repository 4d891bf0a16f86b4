/* fuzz.h - fuzz targets: functions that pass arbitrary bytes to one parser each.
 *
 * All targets are one program, built twice: with libFuzzer (`make fuzz`, tests/fuzz/libfuzzer.c),
 * where the environment's FUZZ_TARGET names the one to run, and into
 * tests/apps/test_fuzz_regressions.c, which runs them on the inputs that once failed. A target
 * returns normally for any bytes; it must keep no state between inputs, so that each is
 * reproducible alone. */
#ifndef EASYFIRST_TESTS_FUZZ_FUZZ_H
#define EASYFIRST_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

typedef struct FuzzTarget {
    const char *name;
    void (*run)(const uint8_t *data, size_t size);
    size_t longest; /* maximum bytes of a generated input */
} FuzzTarget;

/* Ends with a target whose name is NULL. */
extern const FuzzTarget fuzz_targets[];

const FuzzTarget *fuzz_target_find(const char *name); /* NULL if there is none */

/* ---- Helpers for targets; all abort if the system fails. ---- */

/* The path of a file in memory that holds these bytes, for functions that take paths. There are
 * FUZZ_FILES of them; the next call with the same number overwrites the file. */
enum { FUZZ_FILES = 8 };
const char *fuzz_file(int number, const uint8_t *data, size_t size);

/* A folder of this process (in memory if the system supports it), removed at its end. */
const char *fuzz_folder(void);

/* Writes FOLDER/name; folders in `name` are made. Returns the path, valid until the next call with
 * the same `number` (below FUZZ_FILES). */
const char *fuzz_write(int number, const char *name, const void *data, size_t size);

/* Copies a folder below tests/golden to FOLDER/name, once. */
const char *fuzz_tree(const char *from, const char *name);

/* A copy with a terminating 0, free() it; `exact` is a copy of exactly these bytes, so that a
 * sanitizer detects the first read past the end. */
char *fuzz_text(const uint8_t *data, size_t size);
uint8_t *fuzz_exact(const uint8_t *data, size_t size);

/* Removes the bytes up to the next 0xFF (which no UTF-8 text contains) from the front of *data;
 * pieces after the last are empty. For inputs of several files. */
typedef struct FuzzPiece {
    const uint8_t *data;
    size_t size;
} FuzzPiece;
FuzzPiece fuzz_piece(const uint8_t **data, size_t *size);

/* Reads every byte, so that a sanitizer detects invalid ones. */
void fuzz_touch(const void *bytes, size_t size);

/* Aborts unless a property that every input must have holds. */
void fuzz_check(bool holds, const char *what);

/* After a call: it succeeded, or its message is one line and not empty. */
void fuzz_result(int status, const Error *err);

/* ---- The targets, by file. ---- */

/* images.c */
void fuzz_png(const uint8_t *data, size_t size);
void fuzz_jpeg(const uint8_t *data, size_t size);
void fuzz_webp(const uint8_t *data, size_t size);
void fuzz_gif(const uint8_t *data, size_t size);
void fuzz_bmp(const uint8_t *data, size_t size);
void fuzz_avif(const uint8_t *data, size_t size);
void fuzz_heic(const uint8_t *data, size_t size);
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
void fuzz_formats(const uint8_t *data, size_t size);
void fuzz_archive(const uint8_t *data, size_t size);
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
void fuzz_tokenizer_json(const uint8_t *data, size_t size);
void fuzz_merges(const uint8_t *data, size_t size);
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
