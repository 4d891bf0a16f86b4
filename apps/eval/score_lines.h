/* score_lines.h - files of answers and references for `easyfirst score text`: plain lines, or lines
 * of JSON. */
#ifndef EASYFIRST_APPS_EVAL_SCORE_LINES_H
#define EASYFIRST_APPS_EVAL_SCORE_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "kernels/error.h"

typedef struct ScoreLines {
    const char ***columns; /* [column_count][count]: a line's texts, NULL where it has fewer */
    int column_count;      /* 1 for plain text */
    int64_t count;
    char *bytes;     /* of the file */
    json_t **values; /* [count] of a file of JSON, else NULL */
} ScoreLines;

/* Reads a file, "-" being standard input. If its first line that is not empty is a JSON object with
 * one of the members that are looked for, every line must be one (empty lines are passed over), and
 * the text is that member's: a text or an array of texts. Of references that is "targets", else
 * "target" or "answer"; of answers "answer", else "prediction" or "text", and an object that has
 * none of them, but an "error", has the answer "". Else every line is a text: a line end of two
 * bytes and a byte order mark are no part of it. Free with score_lines_free, failed or not. */
int score_lines_read(ScoreLines *lines, const char *path, bool references, Error *err);
void score_lines_free(ScoreLines *lines);

#endif
