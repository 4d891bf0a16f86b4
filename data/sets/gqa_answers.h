/* gqa_answers.h - reads and writes answers to GQA's questions and their attention maps.
 *
 *   official predictions:  [{"questionId": "20", "prediction": "no"}, ...]
 *   LLaVA's answers:       {"question_id": "20", "prompt": "...", "text": "No.", ...}, one a line
 *   official attentions:   [{"questionId": "20", "attention": [[7 numbers], ... 7 of them]}, ...]
 *
 * attention[x][y]: the first index runs from left to right, the second from top to bottom, as in
 * the official script.
 */
#ifndef EASYFIRST_DATA_SETS_GQA_ANSWERS_H
#define EASYFIRST_DATA_SETS_GQA_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

#include "data/files/file_write.h"
#include "data/sets/skipped.h"
#include "kernels/error.h"

enum { GQA_MAP_SIDE = 7, GQA_MAP_CELLS = GQA_MAP_SIDE * GQA_MAP_SIDE };

/* Returns 0 to continue, -1 for an error. `text` as in the file; `llava`: it is from LLaVA's
 * answers, of which gqa_prediction_plain is scored (data/metrics/gqa_text.h). */
typedef int (*GqaPredictionVisit)(void *user, const char *id, const char *text, bool llava,
                                  Error *err);

/* Visits all predictions of a file of either kind in its order. Entries without an id or a text,
 * and lines that are not JSON (the last one of a killed run, for example), are counted and named,
 * and not visited. Errors: no such file, malformed JSON in an official file; an empty file of lines
 * has no predictions, which is no error. */
int gqa_predictions_walk(const char *path, GqaPredictionVisit visit, void *user, Skipped *skipped,
                         Error *err);

/* One of LLaVA's lines, without its line end; keys in a fixed order: question_id, prompt, text,
 * model_id (each but the id left out where NULL). Invalid UTF-8 becomes U+FFFD. On the heap; NULL:
 * out of memory. */
char *gqa_answer_line(const char *id, const char *prompt, const char *text, const char *model);

/* ---- Writing official files, atomically. ---- */

typedef struct GqaArrayWriter {
    FileWriter file;
    char *buffer;
    size_t used;
    int64_t count;
} GqaArrayWriter;

/* begin; then one call for each entry; then end, also after a failure (`failed`, whose message is
 * in *err already). The prediction is written as given: apply gqa_prediction_plain before. */
int gqa_array_begin(GqaArrayWriter *writer, const char *path, Error *err);
int gqa_array_prediction(GqaArrayWriter *writer, const char *id, const char *prediction,
                         Error *err);
/* map [GQA_MAP_CELLS]: map[GQA_MAP_SIDE * x + y]. Numbers that are not finite are refused. */
int gqa_array_attention(GqaArrayWriter *writer, const char *id, const float *map, Error *err);
int gqa_array_end(GqaArrayWriter *writer, int failed, Error *err);

/* map [GQA_MAP_CELLS] as above, in the file's precision. */
typedef int (*GqaAttentionVisit)(void *user, const char *id, const double *map, Error *err);

/* Visits all maps of an official attentions file. Maps that are not 7 x 7 finite numbers are
 * counted and named, and not visited. */
int gqa_attentions_walk(const char *path, GqaAttentionVisit visit, void *user, Skipped *skipped,
                        Error *err);

#endif
