/* easyfirst_private.h - the types of easyfirst.h, for the files that implement it, and for the
 * program where it looks further than the library offers (how an answer is shown).
 */
#ifndef EASYFIRST_PROJECTOR_EASYFIRST_PRIVATE_H
#define EASYFIRST_PROJECTOR_EASYFIRST_PRIVATE_H

#include <pthread.h>

#include "projector/answers.h"
#include "projector/choices.h"
#include "projector/easyfirst.h"
#include "projector/model.h"

/* Image tokens on the device, and whose they are. */
typedef struct ImageBatch {
    Tensor tokens; /* [count * image_rows, D] */
    ReplayKey *keys;
    int count;
} ImageBatch;

/* Held while something is computed; those who wait get it in the order in which they came. */
typedef struct ModelLock {
    pthread_mutex_t mutex;
    pthread_cond_t turn;
    uint64_t next, serving; /* the number that the next one draws, and whose turn it is */
    bool held;
    pthread_t holder;
} ModelLock;

struct ef_model {
    ModelLock lock;
    Device *device;
    Model model;
    char *folder;   /* as messages call it */
    char *parts[4]; /* ef_model_part */
    double load_seconds;
    bool own_language; /* the folder's: its list of languages holds */
    ImageBatch images; /* of the last call; under the lock */
};

struct ef_image {
    int users; /* atomic: the caller, and the jobs that are about it */
    Image image;
    ReplayKey key;         /* of its size and pixels */
    int width, height;     /* of the whole image */
    PreprocessConfig seen; /* size > 0: `image` is the square of models that see images so */
};

struct ef_cancellation {
    int cancelled; /* atomic */
};

/* Error and ef_error are the same to the bit. */
static inline Error *error_of(ef_error *err) {
    _Static_assert(sizeof(ef_error) == sizeof(Error) &&
                       offsetof(ef_error, code) == offsetof(Error, code),
                   "one line of text and a code each");
    _Static_assert((int)EF_FAILED == (int)ERROR_OTHER && (int)EF_TIMEOUT == (int)ERROR_TIMEOUT,
                   "the same codes");
    return (Error *)(void *)err;
}

/* ef_model_open of a model that is spread over several ranks, as ModelOptions says. */
int model_open_spread(const char *folder, const ef_model_options *options, int layers_over,
                      Comm *comm, ef_model **model, Error *err);

/* Waits for the model; false, without it, in a thread that has it already (in a callback). */
bool model_lock(ef_model *model);
void model_unlock(ef_model *model);

/* Copies a caller's structure of options, whose first member is its size, over the defaults: the
 * caller may know fewer members than this library, but not more. */
int options_take(void *options, size_t size, const void *given, const char *maker, Error *err);

/* Makes the model's images these unless it has them all already; blocks[i] is where the tokens of
 * image i are then. Adds to *work. The lock is held. */
int model_see(ef_model *model, const ef_image *const *images, int count, int *blocks, ef_work *work,
              Error *err);

/* The image once more, for a user who closes it in turn; NULL is allowed. */
const ef_image *image_share(const ef_image *image);

/* ef_image_open_for, to which "-" is standard input. */
int image_open_for(const ef_model *model, const char *path, ef_image **image, Error *err);

/* The prompt of a request in the model's prompt template, the caller's to free. */
int request_prompt(const ef_model *model, const ef_request *request, char **prompt, Error *why);

/* A request's turns in the model's prompt template, NULL for none; request_turns_free frees them.
 * They point into the request. */
int request_turns(const ef_model *model, const ef_request *request, RecordTurn **turns, Error *why);
void request_turns_free(RecordTurn *turns, size_t count);

/* The same, with what ef_check leaves to the answering: an EF_ASK has an image. */
int request_word(const ef_model *model, const ef_request *request, char **prompt, Error *why);

/* A request with its prompt, about image number `image` or (-1) none. Its turns are the caller's to
 * set. */
static inline AnswerRequest request_of(const ef_request *r, const char *prompt, int image) {
    return (AnswerRequest){.prompt = prompt,
                           .image = image,
                           .length = r->length,
                           .answer_template = r->answer_template};
}

/* Its turns (request_turns), whose number is r->turn_count, or NULL. */
static inline void request_set_turns(AnswerRequest *request, const ef_request *r,
                                     const RecordTurn *turns) {
    request->turns = turns, request->turn_count = turns ? (int)r->turn_count : 0;
}

/* Checked options over the defaults, as the caller gives them, and what they mean. */
int answer_options_take(ef_options *options, AnswerOptions *how, const ef_options *given,
                        Error *err);

/* Steps on their way to a callback. */
typedef struct StepTeller {
    const Tokenizer *tokenizer;
    ef_step_callback on_step;
    void *user;
    ef_token *tokens; /* of a step, and after them the proposals; whose they are frees them */
    int token_room;
    bool failed; /* out of memory */
} StepTeller;

void steps_tell(StepTeller *teller, size_t request, const DecodeStep *step);

/* ---- Answers (easyfirst_result.c). ---- */

typedef struct AnswerItem {
    char *text, *error; /* one of them */
    int code, prompt_tokens, dropped_tokens, dropped_turns;
    int best, count;           /* -1 and 0 without an answer */
    double probability;        /* that it is right; NaN: not known */
    ef_hypothesis *hypotheses; /* [count] */
    ef_choice *choices;        /* [choice_count]; their texts and tokens are owned */
    size_t choice_count;
    int chosen;
} AnswerItem;

struct ef_answers {
    AnswerItem *items;
    size_t count;
    ef_work work;
};

/* What a position of an answer is, `masked` where the token is <mask>, `fixed` where a template
 * gives it. */
ef_token token_make(int32_t id, const char *piece, float score, bool masked, bool fixed);

/* Takes over answer `index` of a request for `task`, and without one its error. */
int item_fill(AnswerItem *item, Answers *answers, int index, const Model *model, ef_task task,
              Error *err);
int item_refuse(AnswerItem *item, const char *why, int code, Error *err);

/* Tokens with pieces of their own, in one allocation: they outlive the model. NULL without
 * memory. */
ef_token *tokens_make(const Tokenizer *tokenizer, const int32_t *ids, const float *scores,
                      const int32_t *fixed, int length);

/* Adds what a batch did. */
void work_add(ef_work *work, const Answers *answers);

/* ---- Choices (easyfirst_choice.c). ---- */

/* Sees that a request's choices can be written; *length is that of the longest one, or, of a
 * request without choices, the request's. */
int request_length(const ef_model *model, const ef_request *request, int *length, Error *why);

/* Scores the choices of `count` requests, the answers' items batch[i]. */
int requests_choose(ef_model *model, const ChoiceRequest *requests, const size_t *batch, int count,
                    const AnswerOptions *options, ef_answers *answers, Error *err);

void item_choices_free(AnswerItem *item);

#endif
