/* report_json.h - answers as JSON, with the denoising steps if they are asked for.
 *
 * One object a line:
 *
 *   image        the image's name, with `ask` and `show`
 *   question     (or "prompt" with `text`) as it was given; with `text` also "line", from 1
 *   template     with --template, as it was given
 *   answer       the best hypothesis as text
 *   score        mean log-probability of its tokens
 *   length       of it, in tokens
 *   probability, sure  that it is right, and whether that reaches the threshold; left out where
 *                the model has no calibration for the task (ef_answer_probability)
 *   tokens       [{"id", "piece", "score"}]; "▁" in a piece stands for the space in front of a word;
 *                those that the template gives have "fixed": true
 *   steps        that were taken
 *   evaluations  runs of the network for this request: at most steps x hypotheses
 *   strategy, seed, prompt_tokens
 *   approximate  true if the strategy is confidenceX or entropyX, or with "early_stop" or
 *                "prefix_cache", the steps of --early-stop and --prefix-cache; all left out else
 *   dropped_tokens  of the prompt, with --long-prompts keep-last; left out where it fits
 *   dropped_turns   of the conversation before the question; left out where all fit
 *   hypotheses   [{"text", "length", "sample", "score", "evaluations"}], all that were tried
 *   choices      [{"text", "probability", "score", "length_score", "length"}] in place of strategy,
 *                seed and hypotheses, where the answer was chosen from given ones: in their order,
 *                each with its log-likelihood, and of it that of its length (ef_choice)
 *   trace        if asked for: the steps of the best hypothesis; the object is then a whole trace,
 *                with the steps of the others, too, as apps/trace/trace.h describes it
 *   error        instead of all that follows the question, if it could not be answered
 */
#ifndef EASYFIRST_APPS_TRACE_REPORT_JSON_H
#define EASYFIRST_APPS_TRACE_REPORT_JSON_H

#include "apps/trace/trace.h"
#include "projector/easyfirst.h"

/* What was asked; `text` NULL: not known. */
typedef struct Asked {
    const char *image; /* NULL: none */
    const char *text;
    const char *text_key;        /* JSON's name for it: "question" or "prompt" */
    int64_t line;                /* 0: none */
    const json_t *id;            /* given back; NULL: none */
    const double *threshold;     /* of "sure"; NULL: "probability" and "sure" are left out */
    const char *answer_template; /* NULL: none */
} Asked;

/* The steps of a call's requests, kept for JSON. */
typedef struct StepTraces {
    Trace *items; /* [count] */
    int count;
    Error error; /* of a step */
    bool failed;
} StepTraces;

/* Begins an empty one for `most` requests; adds the next request; and the ef_step_callback, whose
 * user is the StepTraces. */
int step_traces_open(StepTraces *traces, int most, Error *err);
int step_traces_add(StepTraces *traces, const Asked *asked, const DecodeOptions *options,
                    Error *err);
void step_traces_step(void *traces, const ef_step *step);

/* Completes the trace of request i with its answer, so that it can be shown. */
int step_traces_finish(StepTraces *traces, const ef_answers *answers, size_t i, Error *err);
void step_traces_free(StepTraces *traces); /* zeroed is allowed */

/* Answer i as JSON, a line on standard output; `traces` are NULL, or the call's. */
int report_json(const Asked *asked, const ef_answers *answers, size_t i,
                const DecodeOptions *options, StepTraces *traces, Error *err);

/* In its place for a request that could not be answered (`error`), or had nothing to
 * answer (NULL). */
int report_json_none(const Asked *asked, const char *error, Error *err);

#endif
