/* questions.h - `ask --questions`: lines of JSON in, lines of JSON out.
 *
 *   {"image": path, "question": text, "id": any, "turns": [{"question": text, "answer": text}]}
 *
 * "question" is needed. A line that is not of JSON (it begins with none of { [ ") is a question itself.
 * A line without an image is asked about each image of the command line; an
 * "id" is given back with the answer. Lines are answered as they come, in order.
 */
#ifndef EASYFIRST_APPS_ASK_QUESTIONS_H
#define EASYFIRST_APPS_ASK_QUESTIONS_H

#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "data/files/text_list.h"
#include "projector/easyfirst.h"

typedef struct AskQuestions {
    const CommonOptions *common;
    ef_model *model;
    const ef_options *options;
    const double *threshold; /* of "sure" */
    TextList images;         /* of the command line */
    const char *path;        /* "-": standard input */
    Timings *timings;
} AskQuestions;

/* *bad: how many lines could not be answered (for some image); each is reported with its number. */
int ask_questions(const AskQuestions *questions, int64_t *bad, Error *err);

#endif
