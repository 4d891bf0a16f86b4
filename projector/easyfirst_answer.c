/* easyfirst_answer.c - the public library: requests to answers. ef_answer is its main road:
 * requests to prompts, images to tokens in groups, the requests of a group to answers.
 */
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"
#include "projector/easyfirst_private.h"
#include "projector/model_chat.h"
#include "projector/model_languages.h"
#include "projector/model_prompt.h"

enum { IMAGES_AT_ONCE = 8, REQUESTS_AT_ONCE = 64, CHOICES_AT_ONCE = 8192, NO_IMAGE = -1 };

/* A call on its way. */
typedef struct Call {
    ef_model *model;
    const ef_request *requests;
    size_t count;
    ef_options options;
    AnswerOptions how;
    char **prompts;          /* [count]; NULL: its answer has an error */
    RecordTurn **turns;      /* [count] */
    int *image;              /* [count]: index in images, or NO_IMAGE */
    const ef_image **images; /* [image_count], each once */
    int image_count;
    ef_answers *answers;
    size_t batch[REQUESTS_AT_ONCE]; /* the requests that are being answered */
    bool choosing;                  /* ... which are those with choices */
    StepTeller teller;
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

static LongPrompts long_prompts_of(ef_long_prompts what) {
    return what == EF_LONG_SKIP        ? LONG_PROMPTS_SKIP
           : what == EF_LONG_KEEP_LAST ? LONG_PROMPTS_KEEP_LAST
                                       : LONG_PROMPTS_REFUSE;
}

int answer_options_take(ef_options *o, AnswerOptions *a, const ef_options *given, Error *err) {
    *o = ef_options_default();
    TRY(options_take(o, sizeof *o, given, "ef_options_default", err));
    TRY(check_range("steps", o->steps, 1000000, err));
    TRY(check_range("beam", o->beam, 512, err));
    TRY(check_range("samples", o->samples, 1024, err));
    TRY(check_real("length_weight", (double)o->length_weight, err));
    TRY(check_real("temperature", (double)o->temperature, err));
    TRY(check_range("early_stop", o->early_stop, 1000000, err));
    TRY(check_range("prefix_cache", o->prefix_cache, 1000000, err));
    TRY(check_range("batch_tokens", o->batch_tokens, 1 << 20, err));
    TRY(check_real("guidance", (double)o->guidance, err));
    TRY(check_range("likelihood_samples", o->likelihood_samples, LIKELIHOOD_MOST, err));
    if ((unsigned)o->choose_by > EF_BY_LIKELIHOOD)
        return error_set(err, "choose_by is %d: expected EF_BY_DENOISING or EF_BY_LIKELIHOOD",
                         (int)o->choose_by);
    if (o->guidance > 0 && o->prefix_cache)
        return error_set(err, "guidance and prefix_cache exclude each other: use one of them");
    if ((unsigned)o->long_prompts > EF_LONG_KEEP_LAST)
        return error_set(err,
                         "long_prompts is %d: expected EF_LONG_REFUSE, EF_LONG_SKIP or "
                         "EF_LONG_KEEP_LAST",
                         (int)o->long_prompts);
    *a = answer_options_default();
    if (o->strategy && decode_strategy_parse(&a->decode, o->strategy, err))
        return error_context(err, "strategy");
    a->decode.iterations = o->steps;
    a->decode.temperature = o->temperature;
    a->decode.seed = o->seed;
    a->decode.early_stop = o->early_stop, a->decode.prefix_cache = o->prefix_cache;
    a->decode.guidance = o->guidance;
    a->choose_by = o->choose_by == EF_BY_LIKELIHOOD ? CHOICE_BY_LIKELIHOOD : CHOICE_BY_DENOISING;
    a->likelihood_samples = o->likelihood_samples;
    a->length_beam = o->beam, a->samples = o->samples, a->length_weight = o->length_weight;
    a->batch_tokens = o->batch_tokens;
    a->no_kv_cache = o->no_kv_cache != 0, a->decode.no_canvas_cache = o->no_canvas_cache != 0;
    a->long_prompts = long_prompts_of(o->long_prompts);
    if (o->cancellation) a->cancel = &o->cancellation->cancelled;
    return 0;
}

/* ---- Requests. ---- */

static int check_vision(const ef_model *m, Error *why) {
    if (ef_model_has_vision(m)) return 0;
    return error_set_code(why, ERROR_MISSING_PART,
                          "%s: this model has no %s, so that it cannot be asked about images",
                          m->folder, m->model.parts.tower ? "projector" : "vision tower");
}

/* Whether two models' preprocessing makes the same square of an image. */
static bool same_square(const PreprocessConfig *a, const PreprocessConfig *b) {
    bool same = a->size == b->size && a->pad == b->pad;
    for (size_t i = 0; i < sizeof a->mean / sizeof *a->mean; i++) same &= a->mean[i] == b->mean[i];
    return same;
}

static int check_image(const ef_model *m, const ef_image *image, Error *why) {
    const PreprocessConfig *config = &m->model.parts.preprocess, *seen = &image->seen;
    PreprocessMap map;
    TRY(check_vision(m, why));
    if (seen->size && !same_square(seen, config))
        return error_set(why, "the image was opened for a model that sees images otherwise; open "
                              "it with ef_image_open, or for this one");
    return preprocess_map(&map, image->image.width, image->image.height, config, why);
}

static int check_turns(const ef_request *r, Error *why) {
    if (!r->turn_count) return 0;
    if (r->task != EF_ASK && r->task != EF_COMPLETE)
        return error_set(why, "turns are given, which only EF_ASK and EF_COMPLETE take");
    if (r->turn_count > INT32_MAX)
        return error_set(why, "%zu turns: %d at most", r->turn_count, INT32_MAX);
    if (!r->turns) return error_set(why, "no turns are given (NULL), but their number");
    for (size_t i = 0; i < r->turn_count; i++) {
        const char *const texts[] = {r->turns[i].question, r->turns[i].answer};
        for (int t = 0; t < 2; t++) {
            const char *what = t ? "answer" : "question";
            if (!texts[t]) return error_set(why, "turn %zu has no %s (NULL)", i + 1, what);
            size_t size = strlen(texts[t]), valid = utf8_valid_prefix(texts[t], size);
            if (valid < size)
                return error_set(why,
                                 "turn %zu: byte %zu (0x%02X) of the %s is not valid UTF-8; "
                                 "convert the text to UTF-8 first",
                                 i + 1, valid, (unsigned char)texts[t][valid], what);
        }
    }
    return 0;
}

/* What is wrong with a request, but for its text. */
static int check_rest(const ef_request *r, Error *why) {
    if (r->length < 0)
        return error_set(why,
                         "an answer of %d tokens: expected 1 or more, or 0 for the predicted "
                         "length",
                         r->length);
    if (r->length && (r->choices || r->choice_count))
        return error_set(why, "a length of %d tokens is given with choices, which have their own",
                         r->length);
    if (r->answer_template && (r->choices || r->choice_count))
        return error_set(why,
                         "an answer_template is given with choices: an answer has one of these");
    if (r->task == EF_TRANSLATE && (!r->from || !r->to))
        return error_set(why, "the languages to translate from and to are not given (NULL)");
    if (r->task != EF_TRANSLATE && (r->from || r->to))
        return error_set(why, "languages (from, to) are given, which only EF_TRANSLATE takes");
    return check_turns(r, why);
}

static int check_words(const ef_request *r, Error *why) {
    bool may_be_empty = r->task == EF_COMPLETE;
    if (!r->text && may_be_empty && r->answer_template) return check_rest(r, why);
    if (!r->text) return error_set(why, "no text is given (NULL)");
    size_t size = strlen(r->text);
    if (!(may_be_empty && size == 0) && r->text[strspn(r->text, " \t\r\n\v\f")] == 0)
        return error_set(why, "the text is empty: there is nothing to answer");
    size_t valid = size <= PROMPT_BYTES ? utf8_valid_prefix(r->text, size) : size;
    if (valid < size)
        return error_set(why,
                         "text: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8 "
                         "first",
                         valid, (unsigned char)r->text[valid]);
    return check_rest(r, why);
}

static int prompt_word(const ef_model *m, const ef_request *r, char **prompt, Error *why) {
    *prompt = NULL;
    switch (r->task) {
    case EF_COMPLETE:
        *prompt = strdup(r->text ? r->text : "");
        return *prompt ? 0 : error_set(why, "out of memory for a prompt");
    case EF_ASK:
        return model_prompt(m->model.settings, "ask", r->text, NULL, NULL, prompt, why);
    case EF_TRANSLATE:
        TRY(model_check_pair(m->own_language ? m->model.settings : NULL, r->from, r->to, m->folder,
                             why));
        return model_prompt(m->model.settings, "translate", r->text, language_name(r->from),
                            language_name(r->to), prompt, why);
    case EF_SUMMARIZE:
        return model_prompt(m->model.settings, "summarize", r->text, NULL, NULL, prompt, why);
    }
    return error_set(why, "there is no task %d", (int)r->task);
}

void request_turns_free(RecordTurn *turns, size_t count) {
    for (size_t i = 0; i < count && turns; i++) free((char *)turns[i].prompt);
    free(turns);
}

static int turns_make(const ef_model *m, const ef_request *r, RecordTurn **turns, Error *why) {
    *turns = NULL;
    if (!r->turn_count) return 0;
    RecordTurn *made = calloc(r->turn_count, sizeof *made);
    int status = made ? 0 : error_set(why, "out of memory for %zu turns", r->turn_count);
    for (size_t i = 0; i < r->turn_count && status == 0; i++) {
        char *question;
        const ef_request asked = {.task = r->task, .text = r->turns[i].question};
        status = prompt_word(m, &asked, &question, why);
        made[i] = (RecordTurn){question, r->turns[i].answer};
    }
    if (status) request_turns_free(made, r->turn_count);
    if (status == 0) *turns = made;
    return status;
}

int request_prompt(const ef_model *m, const ef_request *r, char **prompt, Error *why) {
    TRY(check_words(r, why));
    if (r->image) TRY(check_image(m, r->image, why));
    RecordTurn *turns = NULL;
    int status = prompt_word(m, r, prompt, why);
    if (status || !m->model.chats) return status;
    status = turns_make(m, r, &turns, why);
    if (status == 0)
        status = model_chat_prompt(&m->model, turns, turns ? r->turn_count : 0, prompt, why);
    request_turns_free(turns, r->turn_count);
    if (status == 0) return 0;
    free(*prompt);
    *prompt = NULL;
    return -1;
}

/* In a chat template the turns are a part of the prompt. */
int request_turns(const ef_model *m, const ef_request *r, RecordTurn **turns, Error *why) {
    *turns = NULL;
    return m->model.chats ? 0 : turns_make(m, r, turns, why);
}

int request_word(const ef_model *m, const ef_request *r, char **prompt, Error *why) {
    TRY(request_prompt(m, r, prompt, why));
    if (r->task != EF_ASK || r->image) return 0;
    free(*prompt);
    *prompt = NULL;
    return error_set(why, "no image is given to ask about: EF_COMPLETE takes a text alone");
}

/* The index of a request's image among the call's, which it joins if it is new. */
static int image_index(Call *c, const ef_image *image) {
    for (int i = c->image_count - 1; i >= 0; i--) /* most requests have the last one's */
        if (c->images[i]->key.low == image->key.low && c->images[i]->key.high == image->key.high)
            return i;
    c->images[c->image_count] = image;
    return c->image_count++;
}

static int request_drop(Call *c, size_t i, const Error *why, Error *err) {
    free(c->prompts[i]);
    c->prompts[i] = NULL;
    c->answers->items[i].dropped_turns = (int)c->requests[i].turn_count;
    return item_refuse(&c->answers->items[i], why->text, why->code, err);
}

static int requests_word(Call *c, Error *err) {
    for (size_t i = 0; i < c->count; i++) {
        const ef_request *r = &c->requests[i];
        Error why;
        c->image[i] = NO_IMAGE;
        if (request_word(c->model, r, &c->prompts[i], &why) ||
            request_turns(c->model, r, &c->turns[i], &why))
            TRY(request_drop(c, i, &why, err));
        else if (r->image)
            c->image[i] = image_index(c, r->image);
    }
    return 0;
}

/* ---- Steps. ---- */

void steps_tell(StepTeller *t, size_t request, const DecodeStep *step) {
    const int32_t mask = tokenizer_mask_id(t->tokenizer);
    if (step->length > t->token_room) {
        ef_token *tokens = realloc(t->tokens, 2 * (size_t)step->length * sizeof *tokens);
        t->failed |= !tokens;
        if (!tokens) return;
        t->tokens = tokens, t->token_room = step->length;
    }
    ef_token *proposals = t->tokens + step->length;
    for (int i = 0; i < step->length; i++) {
        const TraceCell *cell = &step->cells[i];
        const Proposal *proposal = &cell->proposal;
        bool fixed = step->fixed && step->fixed[i] != mask;
        t->tokens[i] = token_make(cell->token, tokenizer_piece(t->tokenizer, cell->token),
                                  cell->score, cell->token == mask, fixed);
        proposals[i] = token_make(proposal->token, tokenizer_piece(t->tokenizer, proposal->token),
                                  proposal->score, proposal->token == mask, fixed);
    }
    const ef_step told = {.request = request,
                          .hypothesis = step->of_request,
                          .step = step->step,
                          .steps = step->steps,
                          .length = step->length,
                          .tokens = t->tokens,
                          .proposals = proposals,
                          .evaluated = step->evaluated};
    t->on_step(t->user, &told);
}

static void step_tell(void *user, const DecodeStep *step) {
    Call *c = user;
    steps_tell(&c->teller, c->batch[step->request], step);
}

/* ---- Answering. ---- */

static int cancel_check(const Call *c, Error *err) {
    return ef_cancelled(c->options.cancellation) ? error_set_code(err, ERROR_CANCELLED, "cancelled")
                                                 : 0;
}

static bool has_choices(const ef_request *r) {
    return r->choices || r->choice_count;
}

static int image_block(const Call *c, size_t request, int first, const int *blocks) {
    return c->image[request] == NO_IMAGE ? -1 : blocks[c->image[request] - first];
}

/* The requests of c->batch, all with choices. */
static int batch_choose(Call *c, int n, int first, const int *blocks, Error *err) {
    ChoiceRequest requests[REQUESTS_AT_ONCE];
    TRY(cancel_check(c, err));
    for (int i = 0; i < n; i++) {
        size_t at = c->batch[i];
        requests[i] =
            (ChoiceRequest){.prompt = c->prompts[at],
                            .image = image_block(c, at, first, blocks),
                            .choices = c->requests[at].choices,
                            .count = c->requests[at].choice_count,
                            .turns = c->turns[at],
                            .turn_count = c->turns[at] ? (int)c->requests[at].turn_count : 0};
    }
    return requests_choose(c->model, requests, c->batch, n, &c->how, c->answers, err);
}

/* The requests of c->batch, all without choices; blocks[i] is where the tokens of the call's image first + i are. */
static int batch_answer(Call *c, int n, int first, const int *blocks, Error *err) {
    AnswerRequest requests[REQUESTS_AT_ONCE];
    Answers answers;
    TRY(cancel_check(c, err));
    for (int i = 0; i < n; i++) {
        size_t at = c->batch[i];
        requests[i] =
            request_of(&c->requests[at], c->prompts[at], image_block(c, at, first, blocks));
        request_set_turns(&requests[i], &c->requests[at], c->turns[at]);
    }
    TRY(multimodal_answer(&c->model->model.parts, c->model->images.tokens, requests, n, &c->how,
                          &answers, err));
    work_add(&c->answers->work, &answers);
    int status = c->teller.failed ? error_set(err, "out of memory to tell a step") : 0;
    for (int i = 0; i < n && status == 0; i++)
        status = item_fill(&c->answers->items[c->batch[i]], &answers, i, &c->model->model,
                           c->requests[c->batch[i]].task, err);
    answers_free(&answers);
    return status;
}

static int batch_run(Call *c, int n, int first, const int *blocks, Error *err) {
    if (!n) return 0;
    return c->choosing ? batch_choose(c, n, first, blocks, err)
                       : batch_answer(c, n, first, blocks, err);
}

/* All requests about the images first .. first + count, or, where first is NO_IMAGE, about none,
 * that have choices (c->choosing), or have none. */
static int group_run(Call *c, int first, int count, const int *blocks, Error *err) {
    int n = 0, most = c->choosing ? REQUESTS_AT_ONCE : answer_at_once(&c->how, REQUESTS_AT_ONCE);
    size_t choices = 0;
    for (size_t i = 0; i < c->count; i++) {
        int image = c->image[i];
        if (!c->prompts[i] || has_choices(&c->requests[i]) != c->choosing ||
            (count ? image < first || image >= first + count : image >= 0))
            continue;
        choices += c->requests[i].choice_count;
        c->batch[n++] = i;
        if (n < most && choices < CHOICES_AT_ONCE) continue;
        TRY(batch_run(c, n, first, blocks, err));
        n = 0, choices = 0;
    }
    return batch_run(c, n, first, blocks, err);
}

static int group_answer(Call *c, int first, int count, Error *err) {
    int blocks[IMAGES_AT_ONCE];
    TRY(cancel_check(c, err));
    if (count) TRY(model_see(c->model, c->images + first, count, blocks, &c->answers->work, err));
    for (int choosing = 0; choosing < 2; choosing++) {
        c->choosing = choosing;
        TRY(group_run(c, first, count, blocks, err));
    }
    return 0;
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
    c->turns = calloc(n, sizeof *c->turns);
    c->image = calloc(n, sizeof *c->image);
    c->images = calloc(n, sizeof *c->images);
    if (!c->answers || !c->answers->items || !c->prompts || !c->turns || !c->image || !c->images)
        return error_set(err, "out of memory for %zu requests", c->count);
    c->answers->count = c->count;
    if (c->options.on_step) c->how.callback = step_tell, c->how.user = c;
    c->teller = (StepTeller){.tokenizer = c->model->model.tokenizer,
                             .on_step = c->options.on_step,
                             .user = c->options.user};
    return 0;
}

static void call_free(Call *c) {
    for (size_t i = 0; i < c->count && c->prompts; i++) free(c->prompts[i]);
    for (size_t i = 0; i < c->count && c->turns; i++)
        request_turns_free(c->turns[i], c->requests[i].turn_count);
    free(c->prompts), free(c->turns), free(c->image), free(c->images), free(c->teller.tokens);
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
    TRY(answer_options_take(&call.options, &call.how, options, err));
    if (!model_lock(model))
        return error_set(err, "this model is at work: a step callback cannot use it");
    if (call.options.cancellation)
        device_cancel_by(model->device, &call.options.cancellation->cancelled);
    int status = call_take(&call, err);
    if (status == 0) status = call_answer(&call, err);
    device_cancel_by(model->device, NULL);
    model_unlock(model);
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
    error_mark(error_of(error), (ErrorCode)ef_answer_code(*answers, 0));
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

int ef_choose(ef_model *model, const ef_image *image, const char *text, const char *const *choices,
              size_t count, const ef_options *options, ef_answers **answers, ef_error *error) {
    static const char *const none[1];
    const ef_request r = {.task = image ? EF_ASK : EF_COMPLETE,
                          .text = text,
                          .image = image,
                          .choices = choices ? choices : none,
                          .choice_count = choices ? count : 0};
    return answer_one(model, &r, options, answers, error);
}

/* ---- Before anything is computed. ---- */

int ef_check(const ef_model *model, const ef_request *request, const ef_options *options,
             int *tokens, ef_error *error) {
    Error *err = error_of(error);
    Call call = {0};
    char *prompt;
    if (tokens) *tokens = 0;
    if (!model) return error_set(err, "ef_check: no model is given (NULL)");
    if (!request) return error_set(err, "ef_check: no request is given (NULL)");
    TRY(answer_options_take(&call.options, &call.how, options, err));
    if (request->task == EF_ASK) TRY(check_vision(model, err));
    TRY(request_prompt(model, request, &prompt, err));
    bool image = request->image || request->task == EF_ASK;
    AnswerRequest r = request_of(request, prompt, image ? 0 : -1);
    Answer answer = {0};
    RecordTurn *turns = NULL;
    int status = request_length(model, request, &r.length, err);
    if (status == 0) status = request_turns(model, request, &turns, err);
    request_set_turns(&r, request, turns);
    if (status == 0)
        status =
            multimodal_check_long(&model->model.parts, &r, call.how.long_prompts, &answer, err);
    request_turns_free(turns, request->turn_count);
    free(prompt);
    if (tokens) *tokens = answer.prompt_tokens;
    if (status == 0 && answer.error)
        status = error_set_code(err, (ErrorCode)answer.code, "%s", answer.error);
    free(answer.error);
    return status;
}

int ef_check_task(const ef_model *model, ef_task task, int length, ef_error *error) {
    Error *err = error_of(error);
    if (!model) return error_set(err, "ef_check_task: no model is given (NULL)");
    if ((unsigned)task > EF_SUMMARIZE) return error_set(err, "there is no task %d", (int)task);
    if (length < 0)
        return error_set(err, "an answer of %d tokens: expected 1 or more, or 0 for predicted",
                         length);
    if (task == EF_ASK) TRY(check_vision(model, err));
    if (!length && !model->model.parts.length && !model->model.parts.answer_length)
        return error_set_code(err, ERROR_NO_LENGTH,
                              "this model has no length predictor: say how many tokens an answer "
                              "shall have, or name one");
    if (!length && !model->model.parts.length) length = model->model.parts.answer_length;
    return multimodal_check_length(&model->model.parts, task == EF_ASK, length, err);
}
