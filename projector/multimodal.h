/* multimodal.h - the whole model: images and prompts in, answers out.
 *
 * This is where the parts meet: the vision tower and the projector turn images into image tokens;
 * the tokenizer's ids and the image tokens become one packed sequence
 *
 *   <s> image tokens, prompt, answer, </s>    (language/infill.h);
 *
 * the length predictor proposes the answer's length, and the decoder denoises it
 * (language/decode.h). Everything works for text alone, too: then there is no image.
 */
#ifndef EASYFIRST_PROJECTOR_MULTIMODAL_H
#define EASYFIRST_PROJECTOR_MULTIMODAL_H

#include "language/infill.h"
#include "language/long_prompts.h"
#include "language/tokenizer.h"
#include "projector/answer_inspect.h"
#include "projector/projector.h"
#include "vision/patch_map.h"
#include "vision/vit.h"

/* The parts; NULL for one that a model lacks. Owned by whoever opened them. */
typedef struct Multimodal {
    Device *device;
    const Vit *vit;
    const Projector *projector;
    const Xlmr *xlmr;
    const LengthPredictor *length;
    const Tokenizer *tokenizer;
    PreprocessConfig preprocess;
    AttentionPattern attention;
    int answer_position; /* see InfillConfig */
} Multimodal;

/* Rows that an image takes in a sequence; 0 without a vision tower. */
int multimodal_image_rows(const Multimodal *model);

/* Images to image tokens: [count * image_rows, D] f32 on the device, freed by the caller with
 * device_free(tokens->data). Each is as if encoded alone. */
int multimodal_encode(const Multimodal *model, const Image *images, int count, Tensor *tokens,
                      Error *err);

typedef struct AnswerRequest {
    const char *prompt; /* UTF-8, terminated; the whole prompt template, as the model was trained */
    int image;          /* row block of the image tokens, -1 for none */
    int length;         /* answer length N in tokens; 0: by the length predictor */
} AnswerRequest;

typedef struct AnswerOptions {
    DecodeOptions decode;
    int length_beam;     /* lengths tried for each request without a given length; 0: 1 */
    float length_weight; /* what a predicted length's log-probability counts beside an answer's mean
                            one when hypotheses are compared; 0, the paper: nothing */
    int samples;         /* hypotheses for each length (mbr); 0: 1 */
    int batch_tokens;    /* see InfillConfig */
    bool no_kv_cache;
    bool trace;              /* keep every step of every hypothesis */
    DecodeCallback callback; /* told each step of the hypotheses; may be NULL */
    void *user;
    const int *cancel; /* see DecodeRun; may be NULL */
    InspectOptions
        inspection;           /* what to look at again once the answers are there; all 0: nothing */
    LongPrompts long_prompts; /* what becomes of a prompt that does not fit; 0: an error. One whose
                                 first tokens are dropped leaves room for the given length, else
                                 for as many tokens as may be predicted, at most a quarter of what
                                 the model reads */
} AnswerOptions;

AnswerOptions answer_options_default(void);

/* How many requests, `most` at most, are well answered by one call: memory grows with their
 * hypotheses and steps. */
int answer_at_once(const AnswerOptions *options, int most);

/* The answer to one request, or why it has none. */
typedef struct Answer {
    char *text;         /* of the best hypothesis; NULL without an answer */
    char *error;        /* why there is no answer, one line; NULL if there is one */
    int code;           /* ... and its ErrorCode; 0 if there is one */
    bool skipped;       /* the error is that of a long prompt, under LONG_PROMPTS_SKIP */
    int first, count;   /* its hypotheses are answers.results[first .. first + count); count 0
                           without an answer */
    int best;           /* index in results; -1 without an answer */
    int prompt_tokens;  /* of the prompt, without <s> and image, as far as they are known */
    int dropped_tokens; /* ... of which so many, the first ones, were not read
                           (LONG_PROMPTS_KEEP_LAST) */
} Answer;

typedef struct Answers {
    Answer *items; /* in the order of the requests */
    int count;
    DecodeSpec *specs; /* [result_count] */
    DecodeResult *results;
    int result_count;
    AnswerInspection
        *inspections; /* [result_count], beside the results; NULL if none was asked for */
    InfillCounts counts;
    double tokenize_s, prefix_s, decode_s; /* seconds: ids; keys and values and lengths; filling */
    double inspect_s;                      /* ... and looking */
} Answers;

/* Answers all requests, in packed batches; none depends on what else is asked. A request that
 * cannot be answered has its own Answer.error, and the others are answered as without it. The call
 * itself fails only for what concerns all of them: memory, the device, a model that
 * cannot write. */
int multimodal_answer(const Multimodal *model, Tensor image_tokens, const AnswerRequest *requests,
                      int count, const AnswerOptions *options, Answers *answers, Error *err);
void answers_free(Answers *answers);

/* Whether a request by itself can be answered, as multimodal_answer would find before it evaluates
 * anything: its prompt is not empty, is valid UTF-8, and leaves room for the answer. *tokens (may
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

/* The longest prompt that is looked at, in bytes; a longer one is refused without being split into
 * tokens, since tokens can be of any length (runs of white space, of unknown characters). */
enum { PROMPT_BYTES = 1 << 20 };

#endif
