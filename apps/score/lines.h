/* lines.h - files of answers and references for `easyfirst score text`: plain lines, or lines
 * of JSON. */
#ifndef EASYFIRST_APPS_SCORE_LINES_H
#define EASYFIRST_APPS_SCORE_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "data/metrics/references.h"

/* Bytes of a line of JSON, and of one text, at most: more is no line of an answer. */
enum { SCORE_LINE_MOST = 32 << 20, SCORE_TEXT_MOST = 1 << 20 };

typedef struct ScoreLines {
    References texts; /* of each line: one if it is plain */
    int64_t errors;   /* answers that are an "error", scored as "" */
    char *bytes;      /* of the file */
    json_t **values;  /* [value_count] of a file of JSON */
    int64_t value_count;
} ScoreLines;

/* Reads a file or pipe, "-" being standard input. It is one of JSON if any line is a JSON object
 * with a text, or an array of texts, in the member that is looked for: of references "targets",
 * else "target" or "answer"; of answers "answer", else "prediction" or "text". Every line that is
 * not blank must be one then, with its text in the same member (blank ones are passed over); an
 * answer with an "error" in its place counts as "". Else every line is a text: a line end of two
 * bytes and a byte order mark are no part of it. Free with score_lines_free, failed or not.
 *
 * Errors, which name the line: mixed lines, bytes that are not UTF-8, a line or text that is too
 * long, JSON that takes too much memory (data/files/json_read.h), lines of JSON objects of which
 * none has the member, a pipe without a writer. */
int score_lines_read(ScoreLines *lines, const char *path, bool references, Error *err);
void score_lines_free(ScoreLines *lines);

#endif
