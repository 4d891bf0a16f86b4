/* requests.h - requests for answers, and whether they can be answered: what is found before
 * anything is evaluated.
 */
#ifndef EASYFIRST_PROJECTOR_REQUESTS_H
#define EASYFIRST_PROJECTOR_REQUESTS_H

#include "language/long_prompts.h"
#include "projector/multimodal.h"
#include "projector/template.h"
#include "projector/turns.h"

typedef struct AnswerRequest {
    const char *prompt; /* UTF-8, terminated; the whole prompt template, as the model was trained;
                           "": none, the answer is a text without a prompt */
    int image;          /* row block of the image tokens, -1 for none; with Multimodal.image_lead
                           the prompt begins with it, if there is one */
    int length;         /* answer length N in tokens; 0: by the length predictor, or, of a
                           template, by trying */
    const RecordTurn *turns; /* [turn_count] earlier turns of the conversation, the last ones of
                                which go before the prompt as far as they fit (turns.h) */
    int turn_count;
    const char *answer_template; /* the answer's text with gaps (template.h); NULL: it is all gap */
} AnswerRequest;

/* The length that is given for an answer, by the request or, where none is predicted, by the model;
 * 0: none. */
int answer_given_length(const Multimodal *model, const AnswerRequest *request);

/* The longest prompt that is looked at, in bytes; a longer one is refused without being split into
 * tokens, since tokens can be of any length (runs of white space, of unknown characters). */
enum { PROMPT_BYTES = 1 << 20 };

/* The answer to one request (answers.h), or why it has none. */
typedef struct Answer {
    char *text;         /* of the best hypothesis; NULL without an answer */
    char *error;        /* why there is no answer, one line; NULL if there is one */
    int code;           /* ... and its ErrorCode; 0 if there is one */
    bool skipped;       /* the error is that of a long prompt, under LONG_PROMPTS_SKIP */
    int first, count;   /* its hypotheses are answers.results[first .. first + count); count 0
                           without an answer */
    int best;           /* index in results; -1 without an answer */
    int prompt_tokens;  /* of the prompt, without <s>, image and what is before it, as far as they
                           are known */
    int dropped_tokens; /* ... of which so many, the first ones, were not read
                           (LONG_PROMPTS_KEEP_LAST) */
    int dropped_turns;  /* of the request's turns, the first ones: they did not fit */
    Template *template; /* of the answer, owned; NULL: none */
} Answer;

/* Whether a request by itself can be answered, as multimodal_answer would find before it evaluates
 * anything: its prompt is not blank, is valid UTF-8, and leaves room for the answer, whose
 * template, if there is one, has gaps. *tokens (may
 * be NULL) takes the number of its prompt's ids. Long prompts are refused; multimodal_check_long
 * takes the policy, and counts in *answer (error, skipped, prompt_tokens, dropped_tokens; the error
 * is the caller's to free) where the first has a message: -1 is for lack of memory only. Images are
 * not looked for. */
int multimodal_check(const Multimodal *model, const AnswerRequest *request, int *tokens,
                     Error *err);
int multimodal_check_long(const Multimodal *model, const AnswerRequest *request, LongPrompts policy,
                          Answer *answer, Error *err);

/* Whether there is a prompt, about an image or not, that can have an answer of so many tokens (0:
 * of any length). */
int multimodal_check_length(const Multimodal *model, bool image, int length, Error *err);

/* ---- For answers.c. ---- */

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

/* Whether a length predictor (NULL: none) says how long a template's answer is: it needs a prompt
 * to look at. */
bool template_predicted(const Template *t, const LengthPredictor *length, const Answer *answer);

/* Frees a template that was allocated; NULL is allowed. */
void answer_template_free(Template *template);

/* Makes an answer one that says why there is none; fails only without memory. */
int answer_refuse(Answer *answer, const Error *why, Error *err);

#endif
