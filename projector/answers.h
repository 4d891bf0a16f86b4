/* answers.h - prompts in, answers out: the whole model at work.
 *
 * The tokenizer's ids and the image tokens of multimodal_encode become one packed sequence
 *
 *   <s> image tokens, prompt, answer, </s>    (language/infill.h);
 *
 * the length predictor proposes the answer's length, and the decoder denoises it
 * (language/decode.h). Requests that cannot be answered are refused first (requests.h).
 */
#ifndef EASYFIRST_PROJECTOR_ANSWERS_H
#define EASYFIRST_PROJECTOR_ANSWERS_H

#include "language/decode.h"
#include "projector/answer_inspect.h"
#include "projector/choices.h"
#include "projector/requests.h"

typedef struct AnswerOptions {
    DecodeOptions decode;
    int length_beam;     /* lengths tried for each request without a given length; 0: 1, or, of a
                            template, TEMPLATE_BEAM combinations of its gaps' lengths */
    float length_weight; /* what a predicted length's log-probability counts beside an answer's mean
                            one when hypotheses are compared; 0, the paper: nothing */
    int samples;         /* hypotheses for each length (mbr); 0: 1 */
    int batch_tokens;    /* see InfillConfig */
    bool no_kv_cache;
    bool trace;              /* keep every step of every hypothesis */
    DecodeCallback callback; /* called at each step of the hypotheses; may be NULL */
    void *user;
    const int *cancel; /* see DecodeRun; may be NULL */
    InspectOptions
        inspection;           /* what to look at again once the answers are there; all 0: nothing */
    LongPrompts long_prompts; /* what becomes of a prompt that does not fit; 0: an error. One whose
                                 first tokens are dropped leaves room for the given length, else
                                 for as many tokens as may be predicted, at most a quarter of what
                                                                     the model reads */
    ChoiceBy choose_by;       /* of requests with choices, which multimodal_answer does not take */
    int likelihood_samples;   /* ... by likelihood; 0: LIKELIHOOD_SAMPLES */
} AnswerOptions;

/* How choices are scored with these. */
ChoiceOptions answer_choice_options(const AnswerOptions *options);

AnswerOptions answer_options_default(void);

/* How a model's answers are decoded: as the options say, but an autoregressive model from left to
 * right, which is an error if they name a strategy that is not the usual one. */
int answer_decode_options(const Multimodal *model, DecodeOptions *options, Error *err);

/* The tokens that end an autoregressive model's answer; *count is 0 for others. */
const int32_t *answer_stops(const Multimodal *model, int *count);

/* How many lengths are tried for a request without a given one, with a template or without. */
int answer_beam(const AnswerOptions *options, bool has_template);

/* How many requests, `most` at most, are well answered by one call: memory grows with their
 * hypotheses and steps. */
int answer_at_once(const AnswerOptions *options, int most);

typedef struct Answers {
    Answer *items; /* in the order of the requests */
    int count;
    DecodeSpec *specs;  /* [result_count] */
    int32_t **canvases; /* [result_count], of templates: the spec's fixed tokens, then the lengths
                           of the template's gaps; NULL for the others */
    DecodeResult *results;
    int result_count;
    AnswerInspection
        *inspections; /* [result_count], beside the results; NULL if none was asked for */
    InfillCounts counts;
    double tokenize_s, prefix_s, decode_s; /* seconds: ids; keys and values and lengths; filling */
    double inspect_s;                      /* ... and looking */
    LanguageModel language;                /* whose answers they are */
} Answers;

/* Answers all requests, in packed batches; none depends on what else is asked. A request that
 * cannot be answered has its own Answer.error, and the others are answered as without it. The call
 * itself fails only for what concerns all of them: memory, the device, a model that
 * cannot write. */
int multimodal_answer(const Multimodal *model, Tensor image_tokens, const AnswerRequest *requests,
                      int count, const AnswerOptions *options, Answers *answers, Error *err);
void answers_free(Answers *answers);

/* The text of a result, an index in results, of answer i; the caller frees it. */
int answers_text(const Answers *answers, int i, int result, const Tokenizer *tokenizer, char **text,
                 Error *err);

/* ---- Parts of multimodal_answer, for engines. ---- */

/* Memory for the specs of up to `most` hypotheses. */
int answers_take_specs(Answers *answers, size_t most, Error *err);

/* Whether lengths are to be predicted for a request, whose length may be given. */
bool answer_predicts(const Multimodal *model, const Answer *answer, int given);

/* Appends the specs of a request, whose prompt is number `prompt` of the Infill; `logits` are the
 * length predictor's, NULL if the length is not to be predicted. Where they are not finite, the
 * answer has an error. */
int answer_specs(const Multimodal *model, Infill *infill, int prompt, int given,
                 const float *logits, const AnswerOptions *options, Answer *answer,
                 Answers *answers, Error *err);

/* Chooses the best of a request's hypotheses, whose specs bear the number `request`, and makes its
 * text; or its error. */
int answer_choose(const Multimodal *model, Answer *answer, int request, const Answers *answers,
                  Error *err);

#endif
