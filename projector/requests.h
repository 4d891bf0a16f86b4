/* requests.h - requests before anything is evaluated: the ids of their prompts, and which of them
 * can be answered.
 */
#ifndef EASYFIRST_PROJECTOR_REQUESTS_H
#define EASYFIRST_PROJECTOR_REQUESTS_H

#include "projector/multimodal.h"

/* Prompts of the requests that can be answered, without gaps. */
typedef struct Prompts {
    Ids ids;
    InfillPrompt *items; /* [count], point into ids */
    int *request;        /* [count]: which request each one is */
    int count;
    bool predict; /* some of them have no length */
} Prompts;

/* The prompts of all requests. One that cannot be answered is left out, its Answer says why; fails
 * only without memory. prompts_free is always allowed. `images` is how many image blocks
 * there are. */
int prompts_encode(Prompts *prompts, const Multimodal *model, const AnswerRequest *requests,
                   int count, int images, LongPrompts policy, Answer *answers, Error *err);
void prompts_free(Prompts *prompts);

/* Makes an answer one that says why there is none; fails only without memory. */
int answer_refuse(Answer *answer, const Error *why, Error *err);

#endif
