/* easyfirst_answer.c - the public library: requests to answers. ef_answer is its main road:
 * requests to prompts, images to tokens in groups, the requests of a group to answers.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"
#include "projector/easyfirst_private.h"
#include "projector/model_prompt.h"

enum { IMAGES_AT_ONCE = 8, REQUESTS_AT_ONCE = 64, NO_IMAGE = -1 };

typedef struct AnswerItem {
    char *text, *error; /* one of them */
    double score;
    int length;
    ef_token *tokens; /* [length] */
    char *pieces;     /* what they point into */
} AnswerItem;

struct ef_answers {
    AnswerItem *items;
    size_t count;
};

/* A call on its way. */
typedef struct Call {
    ef_model *model;
    const ef_request *requests;
    size_t count;
    ef_options options;
    AnswerOptions how;
    char **prompts;          /* [count]; NULL: its answer has an error */
    int *image;              /* [count]: index in images, or NO_IMAGE */
    const ef_image **images; /* [image_count], each once */
    int image_count;
    ef_answers *answers;
    size_t batch[REQUESTS_AT_ONCE]; /* the requests that are being answered */
    ef_token *tokens;               /* of a step on its way to the callback */
    int token_room;
    bool failed; /* to tell a step: out of memory */
} Call;

/* ---- Options. ---- */

static int check_range(const char *what, int value, int most, Error *err) {
    if (value >= 0 && value <= most) return 0;
    return error_set(err, "%s is %d: expected 0 to %d", what, value, most);
}

/* Not NaN either. */
static int check_real(const char *what, double value, Error *err) {
    if (value >= 0 && value <= 100) return 0;
    return error_set(err, "%s is %g: expected 0 to 100", what, value);
}

static int call_options(Call *c, const ef_options *given, Error *err) {
    ef_options *o = &c->options;
    *o = ef_options_default();
    TRY(options_take(o, sizeof *o, given, "ef_options_default", err));
    TRY(check_range("steps", o->steps, 1000000, err));
    TRY(check_range("beam", o->beam, 512, err));
    TRY(check_range("samples", o->samples, 1024, err));
    TRY(check_real("length_weight", (double)o->length_weight, err));
    TRY(check_real("temperature", (double)o->temperature, err));
    AnswerOptions *a = &c->how;
    *a = answer_options_default();
    if (o->strategy && decode_strategy_parse(&a->decode, o->strategy, err))
        return error_context(err, "strategy");
    a->decode.iterations = o->steps;
    a->decode.temperature = o->temperature;
    a->decode.seed = o->seed;
    a->length_beam = o->beam, a->samples = o->samples, a->length_weight = o->length_weight;
    a->long_prompts = o->keep_last ? LONG_PROMPTS_KEEP_LAST : LONG_PROMPTS_REFUSE;
    if (o->cancellation) a->cancel = &o->cancellation->cancelled;
    return 0;
}

/* ---- Requests. ---- */

static int check_image(const ef_model *m, const ef_request *r, Error *why) {
    PreprocessMap map;
    if (r->task == EF_ASK && !r->image)
        return error_set(why, "no image is given to ask about: EF_COMPLETE takes a text alone");
    if (!r->image) return 0;
    if (!ef_model_has_vision(m))
        return error_set(why, "%s: this model has no %s, so that it cannot be asked about images",
                         m->folder, m->model.parts.vit ? "projector" : "vision tower");
    return preprocess_map(&map, r->image->image.width, r->image->image.height,
                          &m->model.parts.preprocess, why);
}

static int check_words(const ef_request *r, Error *why) {
    if (!r->text) return error_set(why, "no text is given (NULL)");
    size_t size = strlen(r->text);
    if (r->text[strspn(r->text, " \t\r\n\v\f")] == 0)
        return error_set(why, "the text is empty: there is nothing to answer");
    size_t valid = size <= PROMPT_BYTES ? utf8_valid_prefix(r->text, size) : size;
    if (valid < size)
        return error_set(why, "text: byte %zu (0x%02X) is not valid UTF-8", valid,
                         (unsigned char)r->text[valid]);
    if (r->length < 0)
        return error_set(why,
                         "an answer of %d tokens: expected 1 or more, or 0 for the predicted "
                         "length",
                         r->length);
    if (r->task == EF_TRANSLATE && (!r->from || !r->to))
        return error_set(why, "the languages to translate from and to are not given (NULL)");
    if (r->task != EF_TRANSLATE && (r->from || r->to))
        return error_set(why, "languages (from, to) are given, which only EF_TRANSLATE takes");
    return 0;
}

/* A request in the prompt template of the model's prompt template. */
static int request_word(const ef_model *m, const ef_request *r, char **prompt, Error *why) {
    TRY(check_words(r, why));
    TRY(check_image(m, r, why));
    switch (r->task) {
    case EF_COMPLETE:
        *prompt = strdup(r->text);
        return *prompt ? 0 : error_set(why, "out of memory for a prompt");
    case EF_ASK:
        return model_prompt(&m->model, "ask", r->text, NULL, NULL, prompt, why);
    case EF_TRANSLATE:
        TRY(model_check_pair(m->own_language ? m->model.settings : NULL, r->from, r->to, m->folder,
                             why));
        return model_prompt(&m->model, "translate", r->text, language_name(r->from),
                            language_name(r->to), prompt, why);
    case EF_SUMMARIZE:
        return model_prompt(&m->model, "summarize", r->text, NULL, NULL, prompt, why);
    }
    return error_set(why, "there is no task %d", (int)r->task);
}

static int item_refuse(AnswerItem *item, const char *why, Error *err) {
    item->error = strdup(why);
    item->score = -INFINITY;
    return item->error ? 0 : error_set(err, "out of memory for a message");
}

/* The index of a request's image among the call's, which it joins if it is new. */
static int image_index(Call *c, const ef_image *image) {
    for (int i = c->image_count - 1; i >= 0; i--) /* most requests have the last one's */
        if (c->images[i]->key.low == image->key.low && c->images[i]->key.high == image->key.high)
            return i;
    c->images[c->image_count] = image;
    return c->image_count++;
}

static int requests_word(Call *c, Error *err) {
    for (size_t i = 0; i < c->count; i++) {
        const ef_request *r = &c->requests[i];
        Error why;
        c->image[i] = NO_IMAGE;
        if (request_word(c->model, r, &c->prompts[i], &why))
            TRY(item_refuse(&c->answers->items[i], why.text, err));
        else if (r->image)
            c->image[i] = image_index(c, r->image);
    }
    return 0;
}

/* ---- Steps. ---- */

static float probability(float score) {
    return fminf(expf(score), 1);
}

static void step_tell(void *user, const DecodeStep *step) {
    Call *c = user;
    const Tokenizer *tokenizer = c->model->model.tokenizer;
    if (step->length > c->token_room) {
        ef_token *tokens = realloc(c->tokens, (size_t)step->length * sizeof *tokens);
        c->failed |= !tokens;
        if (!tokens) return;
        c->tokens = tokens, c->token_room = step->length;
    }
    for (int i = 0; i < step->length; i++) {
        const TraceCell *cell = &step->cells[i];
        bool masked = cell->token == tokenizer_mask_id(tokenizer);
        c->tokens[i] = (ef_token){.id = cell->token,
                                  .piece = tokenizer_piece(tokenizer, cell->token),
                                  .probability = masked ? 0 : probability(cell->score),
                                  .masked = masked};
    }
    const ef_step told = {.request = c->batch[step->request],
                          .hypothesis = step->of_request,
                          .step = step->step,
                          .steps = step->steps,
                          .length = step->length,
                          .tokens = c->tokens};
    c->options.on_step(c->options.user, &told);
}

/* ---- Answering. ---- */

/* Tokens with pieces of their own, which outlive the model. */
static int item_tokens(AnswerItem *item, const DecodeResult *r, const Tokenizer *tokenizer,
                       Error *err) {
    size_t size = 0;
    for (int i = 0; i < r->length; i++)
        size += strlen(tokenizer_piece(tokenizer, r->tokens[i])) + 1;
    item->tokens = calloc((size_t)r->length, sizeof *item->tokens);
    item->pieces = malloc(size);
    if (!item->tokens || !item->pieces) return error_set(err, "out of memory for an answer");
    char *at = item->pieces;
    for (int i = 0; i < r->length; i++) {
        const char *piece = tokenizer_piece(tokenizer, r->tokens[i]);
        bool masked = r->tokens[i] == tokenizer_mask_id(tokenizer);
        item->tokens[i] = (ef_token){.id = r->tokens[i],
                                     .piece = at,
                                     .probability = masked ? 0 : probability(r->scores[i]),
                                     .masked = masked};
        at = stpcpy(at, piece) + 1;
    }
    item->length = r->length;
    item->score = r->score;
    return 0;
}

static int item_fill(AnswerItem *item, const Answers *answers, int index,
                     const Tokenizer *tokenizer, Error *err) {
    Answer *a = &answers->items[index];
    if (a->error) return item_refuse(item, a->error, err);
    item->text = a->text;
    a->text = NULL; /* taken over */
    return item_tokens(item, &answers->results[a->best], tokenizer, err);
}

static int cancel_check(const Call *c, Error *err) {
    return ef_cancelled(c->options.cancellation) ? error_set(err, "cancelled") : 0;
}

/* The requests of c->batch; blocks[i] is where the tokens of the call's image first + i are. */
static int batch_answer(Call *c, int n, int first, const int *blocks, Error *err) {
    AnswerRequest requests[REQUESTS_AT_ONCE];
    Answers answers;
    TRY(cancel_check(c, err));
    for (int i = 0; i < n; i++) {
        size_t at = c->batch[i];
        requests[i] =
            (AnswerRequest){.prompt = c->prompts[at],
                            .image = c->image[at] == NO_IMAGE ? -1 : blocks[c->image[at] - first],
                            .length = c->requests[at].length};
    }
    TRY(multimodal_answer(&c->model->model.parts, c->model->images.tokens, requests, n, &c->how,
                          &answers, err));
    int status = c->failed ? error_set(err, "out of memory to tell a step") : 0;
    for (int i = 0; i < n && status == 0; i++)
        status =
            item_fill(&c->answers->items[c->batch[i]], &answers, i, c->model->model.tokenizer, err);
    answers_free(&answers);
    return status;
}

/* All requests about the images first .. first + count, or, where first is NO_IMAGE, about none. */
static int group_answer(Call *c, int first, int count, Error *err) {
    int blocks[IMAGES_AT_ONCE], n = 0, most = answer_at_once(&c->how, REQUESTS_AT_ONCE);
    TRY(cancel_check(c, err));
    if (count) TRY(model_see(c->model, c->images + first, count, blocks, err));
    for (size_t i = 0; i < c->count; i++) {
        int image = c->image[i];
        if (!c->prompts[i] || (count ? image < first || image >= first + count : image >= 0))
            continue;
        c->batch[n++] = i;
        if (n < most) continue;
        TRY(batch_answer(c, n, first, blocks, err));
        n = 0;
    }
    return n ? batch_answer(c, n, first, blocks, err) : 0;
}

static int call_answer(Call *c, Error *err) {
    TRY(device_use(c->model->device, err));
    TRY(requests_word(c, err));
    for (int i = 0; i < c->image_count; i += IMAGES_AT_ONCE) {
        int left = c->image_count - i;
        TRY(group_answer(c, i, left < IMAGES_AT_ONCE ? left : IMAGES_AT_ONCE, err));
    }
    return group_answer(c, NO_IMAGE, 0, err);
}

static int call_take(Call *c, Error *err) {
    size_t n = c->count + 1;
    c->answers = calloc(1, sizeof *c->answers);
    if (c->answers) c->answers->items = calloc(n, sizeof *c->answers->items);
    c->prompts = calloc(n, sizeof *c->prompts);
    c->image = calloc(n, sizeof *c->image);
    c->images = calloc(n, sizeof *c->images);
    if (!c->answers || !c->answers->items || !c->prompts || !c->image || !c->images)
        return error_set(err, "out of memory for %zu requests", c->count);
    c->answers->count = c->count;
    if (c->options.on_step) c->how.callback = step_tell, c->how.user = c;
    return 0;
}

static void call_free(Call *c) {
    for (size_t i = 0; i < c->count && c->prompts; i++) free(c->prompts[i]);
    free(c->prompts), free(c->image), free(c->images), free(c->tokens);
    ef_answers_close(c->answers);
}

int ef_answer(ef_model *model, const ef_request *requests, size_t count, const ef_options *options,
              ef_answers **answers, ef_error *error) {
    Error *err = error_of(error);
    Call call = {.model = model, .requests = requests, .count = count};
    if (!answers) return error_set(err, "ef_answer: no place for the answers (NULL)");
    *answers = NULL;
    if (!model) return error_set(err, "ef_answer: no model is given (NULL)");
    if (count && !requests) return error_set(err, "ef_answer: no requests are given (NULL)");
    if (count > INT32_MAX) return error_set(err, "%zu requests: %d at most", count, INT32_MAX);
    TRY(call_options(&call, options, err));
    if (pthread_mutex_lock(&model->mutex) == EDEADLK)
        return error_set(err, "this model is at work: a step callback cannot use it");
    int status = call_take(&call, err);
    if (status == 0) status = call_answer(&call, err);
    pthread_mutex_unlock(&model->mutex);
    if (status == 0) *answers = call.answers, call.answers = NULL;
    call_free(&call);
    return status;
}

/* ---- One request. ---- */

static int answer_one(ef_model *model, const ef_request *request, const ef_options *options,
                      ef_answers **answers, ef_error *error) {
    TRY(ef_answer(model, request, 1, options, answers, error));
    const char *why = ef_answer_error(*answers, 0);
    if (!why) return 0;
    error_write(error_of(error), "%s", why);
    ef_answers_close(*answers);
    *answers = NULL;
    return -1;
}

int ef_ask(ef_model *model, const ef_image *image, const char *question, const ef_options *options,
           ef_answers **answers, ef_error *error) {
    const ef_request r = {.task = EF_ASK, .text = question, .image = image};
    return answer_one(model, &r, options, answers, error);
}

int ef_complete(ef_model *model, const char *prompt, int length, const ef_options *options,
                ef_answers **answers, ef_error *error) {
    const ef_request r = {.task = EF_COMPLETE, .text = prompt, .length = length};
    return answer_one(model, &r, options, answers, error);
}

int ef_translate(ef_model *model, const char *text, const char *from, const char *to,
                 const ef_options *options, ef_answers **answers, ef_error *error) {
    const ef_request r = {.task = EF_TRANSLATE, .text = text, .from = from, .to = to};
    return answer_one(model, &r, options, answers, error);
}

int ef_summarize(ef_model *model, const char *text, const ef_options *options, ef_answers **answers,
                 ef_error *error) {
    const ef_request r = {.task = EF_SUMMARIZE, .text = text};
    return answer_one(model, &r, options, answers, error);
}

/* ---- Answers. ---- */

void ef_answers_close(ef_answers *answers) {
    if (!answers) return;
    for (size_t i = 0; i < answers->count && answers->items; i++) {
        AnswerItem *item = &answers->items[i];
        free(item->text), free(item->error), free(item->tokens), free(item->pieces);
    }
    free(answers->items);
    free(answers);
}

size_t ef_answers_count(const ef_answers *answers) {
    return answers ? answers->count : 0;
}

static const AnswerItem *item_at(const ef_answers *answers, size_t i) {
    static const AnswerItem none = {.score = -INFINITY};
    return answers && i < answers->count ? &answers->items[i] : &none;
}

const char *ef_answer_text(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->text;
}

const char *ef_answer_error(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->error;
}

double ef_answer_score(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->score;
}

int ef_answer_length(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->length;
}

const ef_token *ef_answer_tokens(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->tokens;
}
