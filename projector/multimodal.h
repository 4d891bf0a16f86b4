/* multimodal.h - the whole model: pictures and prompts in, filled answers out.
 *
 * This is where the parts meet: the vision tower and the projector turn pictures into image tokens,
 * the tokenizer's ids and the image tokens become one packed sequence <s> image tokens, prompt,
 * answer,
 * </s> (language/infill.h), the length predictor says how long the answer may be, and the decoder
 * fills it (language/decode.h). Everything works for text alone, too: then there is no picture.
 */
#ifndef EASYFIRST_PROJECTOR_MULTIMODAL_H
#define EASYFIRST_PROJECTOR_MULTIMODAL_H

#include "language/infill.h"
#include "language/tokenizer.h"
#include "projector/answer_look.h"
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

/* Rows that a picture takes in a sequence; 0 without a vision tower. */
int multimodal_picture_rows(const Multimodal *model);

/* Pictures to image tokens: [count * picture_rows, D] f32 on the device, freed by the caller with
 * device_free(tokens->data). Each is as if encoded alone. */
int multimodal_encode(const Multimodal *model, const Image *images, int count, Tensor *tokens,
                      Error *err);

typedef struct AnswerRequest {
    const char *prompt; /* UTF-8, terminated; the whole wording, as the model was trained */
    int picture;        /* row block of the image tokens, -1 for none */
    int length;         /* answer length N in tokens; 0: by the length predictor */
} AnswerRequest;

typedef struct AnswerOptions {
    DecodeOptions decode;
    int length_beam;     /* lengths tried for each request without a given length; 0: 1 */
    float length_weight; /* what a predicted length's log-probability counts beside an answer's mean
                            one when hypotheses are compared; 0, the paper: nothing */
    int samples;         /* hypotheses for each length (mbr); 0: 1 */
    int batch_tokens;    /* see InfillConfig */
    bool no_reuse;
    bool trace;        /* keep every step of every hypothesis */
    DecodeWatch watch; /* told each step of the hypotheses; may be NULL */
    void *user;
    LookOptions look; /* what to look at again once the answers are there; all 0: nothing */
} AnswerOptions;

AnswerOptions answer_options_default(void);

/* The answer to one request. */
typedef struct Answer {
    char *text;        /* of the best hypothesis */
    int first, count;  /* its hypotheses are answers.results[first .. first + count) */
    int best;          /* index in results */
    int prompt_tokens; /* of the prompt's wording, without <s> and picture */
} Answer;

typedef struct Answers {
    Answer *items; /* in the order of the requests */
    int count;
    DecodeSpec *specs; /* [result_count] */
    DecodeResult *results;
    int result_count;
    AnswerLook *looks; /* [result_count], beside the results; NULL if none was asked for */
    InfillCounts counts;
    double tokenize_s, prefix_s, decode_s; /* seconds: ids; keys and values and lengths; filling */
    double look_s;                         /* ... and looking */
} Answers;

/* Answers all requests, in packed batches; none depends on what else is asked. On failure nothing
 * is answered, and the message names the request by its number from 1. */
int multimodal_answer(const Multimodal *model, Tensor image_tokens, const AnswerRequest *requests,
                      int count, const AnswerOptions *options, Answers *answers, Error *err);
void answers_free(Answers *answers);

/* Whether a request by itself can be answered: its prompt is not empty, is UTF-8, and leaves room
 * for the answer. *tokens (may be NULL) takes the number of its prompt's ids. */
int multimodal_check(const Multimodal *model, const AnswerRequest *request, int *tokens,
                     Error *err);

#endif
