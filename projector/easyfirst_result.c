/* easyfirst_result.c - the public library: answers, and what is asked of them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "projector/easyfirst_private.h"

/* ---- Making. ---- */

ef_token token_make(int32_t id, const char *piece, float score, bool masked, bool fixed) {
    return (ef_token){.id = id,
                      .piece = id < 0 ? "<mask>" : piece, /* the vocabulary has none */
                      .probability = masked ? 0 : fminf(expf(score), 1),
                      .score = masked ? -INFINITY : score,
                      .masked = masked,
                      .fixed = fixed};
}

int item_refuse(AnswerItem *item, const char *why, int code, Error *err) {
    item->error = strdup(why);
    item->code = code, item->best = -1, item->probability = NAN;
    return item->error ? 0 : error_set(err, "out of memory for a message");
}

ef_token *tokens_make(const Tokenizer *tokenizer, const int32_t *ids, const float *scores,
                      const int32_t *fixed, int length) {
    size_t size = (size_t)length * sizeof(ef_token);
    for (int i = 0; i < length; i++) size += strlen(tokenizer_piece(tokenizer, ids[i])) + 1;
    ef_token *tokens = malloc(size);
    if (!tokens) return NULL;
    const int32_t mask = tokenizer_mask_id(tokenizer);
    char *piece = (char *)(tokens + length);
    for (int i = 0; i < length; i++) {
        tokens[i] = token_make(ids[i], piece, scores[i], ids[i] == mask, fixed && fixed[i] != mask);
        piece = stpcpy(piece, tokenizer_piece(tokenizer, ids[i])) + 1;
    }
    return tokens;
}

static int hypothesis_fill(ef_hypothesis *h, const Answers *answers, int index, int result,
                           const Tokenizer *tokenizer, Error *err) {
    const DecodeResult *r = &answers->results[result];
    const DecodeSpec *spec = &answers->specs[result];
    char *text;
    TRY(answers_text(answers, index, result, tokenizer, &text, err));
    h->text = text;
    h->tokens = tokens_make(tokenizer, r->tokens, r->scores, spec->fixed, r->length);
    if (!h->tokens) return error_set(err, "out of memory for an answer");
    h->score = r->score, h->length = r->length, h->sample = spec->sample, h->steps = r->steps;
    h->evaluations = r->evaluations;
    return 0;
}

/* The prompt template of a task; NULL: its text is the prompt. */
static const char *template_of(ef_task task) {
    return task == EF_ASK         ? "ask"
           : task == EF_TRANSLATE ? "translate"
           : task == EF_SUMMARIZE ? "summarize"
                                  : NULL;
}

int item_fill(AnswerItem *item, Answers *answers, int index, const Model *model, ef_task task,
              Error *err) {
    Answer *a = &answers->items[index];
    item->prompt_tokens = a->prompt_tokens, item->dropped_tokens = a->dropped_tokens;
    item->dropped_turns = a->dropped_turns;
    if (a->error) return item_refuse(item, a->error, a->code, err);
    item->text = a->text;
    a->text = NULL; /* taken over */
    item->hypotheses = calloc((size_t)a->count, sizeof *item->hypotheses);
    if (!item->hypotheses) return error_set(err, "out of memory for %d hypotheses", a->count);
    item->count = a->count, item->best = a->best - a->first;
    for (int h = 0; h < a->count; h++)
        TRY(hypothesis_fill(&item->hypotheses[h], answers, index, a->first + h, model->tokenizer,
                            err));
    const ef_hypothesis *best = &item->hypotheses[item->best];
    item->probability =
        calibration_probability(&model->calibration, template_of(task), best->score, best->length);
    return 0;
}

void work_add(ef_work *w, const Answers *answers) {
    w->prefix_seconds += answers->tokenize_s + answers->prefix_s;
    w->decode_seconds += answers->decode_s;
    for (int i = 0; i < answers->count; i++) {
        const Answer *a = &answers->items[i];
        w->answered += a->error == NULL;
        w->skipped += a->skipped;
        w->shortened += a->dropped_tokens > 0, w->dropped_tokens += a->dropped_tokens;
    }
    for (int i = 0; i < answers->result_count; i++) {
        w->steps += answers->results[i].steps;
        w->evaluations += answers->results[i].evaluations;
    }
    w->forwards += answers->counts.forwards, w->canvases += answers->counts.canvases;
    w->rows += answers->counts.rows, w->prefix_rows += answers->counts.prefix_rows;
}

static void item_free(AnswerItem *item) {
    for (int h = 0; h < item->count; h++) {
        free((char *)item->hypotheses[h].text);
        free((ef_token *)item->hypotheses[h].tokens);
    }
    free(item->hypotheses), free(item->text), free(item->error);
    item_choices_free(item);
}

void ef_answers_close(ef_answers *answers) {
    if (!answers) return;
    for (size_t i = 0; i < answers->count && answers->items; i++) item_free(&answers->items[i]);
    free(answers->items);
    free(answers);
}

/* ---- Asking. ---- */

size_t ef_answers_count(const ef_answers *answers) {
    return answers ? answers->count : 0;
}

const ef_work *ef_answers_work(const ef_answers *answers) {
    return answers ? &answers->work : NULL;
}

static const AnswerItem *item_at(const ef_answers *answers, size_t i) {
    static const AnswerItem none = {.best = -1, .probability = NAN};
    return answers && i < answers->count ? &answers->items[i] : &none;
}

/* Of answer i; without one an empty hypothesis. */
static const ef_hypothesis *best_of(const ef_answers *answers, size_t i) {
    static const ef_hypothesis none = {.score = -INFINITY};
    const AnswerItem *item = item_at(answers, i);
    return item->count ? &item->hypotheses[item->best] : &none;
}

const char *ef_answer_text(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->text;
}

const char *ef_answer_error(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->error;
}

ef_code ef_answer_code(const ef_answers *answers, size_t i) {
    return (ef_code)item_at(answers, i)->code;
}

double ef_answer_score(const ef_answers *answers, size_t i) {
    return best_of(answers, i)->score;
}

double ef_answer_probability(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->probability;
}

int ef_answer_length(const ef_answers *answers, size_t i) {
    return best_of(answers, i)->length;
}

const ef_token *ef_answer_tokens(const ef_answers *answers, size_t i) {
    return best_of(answers, i)->tokens;
}

int ef_answer_prompt_tokens(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->prompt_tokens;
}

int ef_answer_dropped_tokens(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->dropped_tokens;
}

int ef_answer_dropped_turns(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->dropped_turns;
}

int ef_answer_evaluations(const ef_answers *answers, size_t i) {
    const AnswerItem *item = item_at(answers, i);
    int evaluations = 0;
    for (int h = 0; h < item->count; h++) evaluations += item->hypotheses[h].evaluations;
    return evaluations;
}

int ef_answer_hypotheses(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->count;
}

const ef_hypothesis *ef_answer_hypothesis(const ef_answers *answers, size_t i, int h) {
    const AnswerItem *item = item_at(answers, i);
    return h >= 0 && h < item->count ? &item->hypotheses[h] : NULL;
}

int ef_answer_best(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->best;
}

size_t ef_answer_choices(const ef_answers *answers, size_t i) {
    return item_at(answers, i)->choice_count;
}

const ef_choice *ef_answer_choice(const ef_answers *answers, size_t i, size_t c) {
    const AnswerItem *item = item_at(answers, i);
    return c < item->choice_count ? &item->choices[c] : NULL;
}

int ef_answer_chosen(const ef_answers *answers, size_t i) {
    const AnswerItem *item = item_at(answers, i);
    return item->choice_count ? item->chosen : -1;
}
