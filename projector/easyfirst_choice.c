/* easyfirst_choice.c - the public library: answers that are chosen from given ones. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "projector/easyfirst_private.h"

int request_length(const ef_model *m, const ef_request *r, int *length, Error *why) {
    *length = r->length;
    if (!r->choices && !r->choice_count) return 0;
    const ChoiceRequest request = {.image = r->image || r->task == EF_ASK ? 0 : -1,
                                   .choices = r->choices,
                                   .count = r->choice_count};
    return choices_check(&m->model.parts, &request, length, why);
}

/* ---- What came of a request. ---- */

/* The tokens of a choice and their mean log-probability. */
static ef_token *choice_tokens(const ChoiceScore *s, const Tokenizer *tokenizer, double *mean) {
    float *scores = malloc((size_t)s->length * sizeof *scores);
    *mean = 0;
    if (!scores) return NULL;
    for (int i = 0; i < s->length; i++) {
        scores[i] = (float)s->scores[i];
        *mean += s->scores[i] / s->length;
    }
    ef_token *tokens = tokens_make(tokenizer, s->tokens, scores, NULL, s->length);
    free(scores);
    return tokens;
}

static int choice_fill(ef_choice *choice, const ChoiceScore *s, const char *text,
                       const Tokenizer *tokenizer, Error *err) {
    double mean;
    choice->text = strdup(text);
    choice->tokens = choice_tokens(s, tokenizer, &mean);
    choice->probability = s->probability, choice->score = s->score;
    choice->length_score = s->length_score, choice->length = s->length;
    return choice->text && choice->tokens ? 0 : error_set(err, "out of memory for a choice");
}

/* The chosen one as the only hypothesis. */
static int chosen_fill(AnswerItem *item, const ChoiceAnswer *a, const Tokenizer *tokenizer,
                       Error *err) {
    const ef_choice *chosen = &item->choices[a->answer.best];
    ef_hypothesis *h = item->hypotheses = calloc(1, sizeof *h);
    item->text = strdup(chosen->text);
    if (!h || !item->text) return error_set(err, "out of memory for a choice");
    item->count = 1, item->best = 0, item->chosen = a->answer.best;
    item->probability = NAN;
    h->text = strdup(chosen->text);
    h->tokens = choice_tokens(&a->scores[a->answer.best], tokenizer, &h->score);
    h->length = h->steps = chosen->length;
    h->evaluations = a->evaluations;
    return h->text && h->tokens ? 0 : error_set(err, "out of memory for a choice");
}

static int item_choose(AnswerItem *item, const ChoiceAnswer *a, const ChoiceRequest *given,
                       const Tokenizer *tokenizer, Error *err) {
    item->prompt_tokens = a->answer.prompt_tokens;
    item->dropped_tokens = a->answer.dropped_tokens;
    item->dropped_turns = a->answer.dropped_turns;
    if (a->answer.error) return item_refuse(item, a->answer.error, a->answer.code, err);
    item->best = -1;
    item->choices = calloc(given->count, sizeof *item->choices);
    if (!item->choices) return error_set(err, "out of memory for %zu choices", given->count);
    item->choice_count = given->count;
    for (size_t i = 0; i < given->count; i++)
        TRY(choice_fill(&item->choices[i], &a->scores[i], given->choices[i], tokenizer, err));
    return chosen_fill(item, a, tokenizer, err);
}

void item_choices_free(AnswerItem *item) {
    for (size_t i = 0; i < item->choice_count; i++) {
        free((char *)item->choices[i].text);
        free((ef_token *)item->choices[i].tokens);
    }
    free(item->choices);
}

static void work_add_choices(ef_work *w, const Choices *choices) {
    w->prefix_seconds += choices->tokenize_s + choices->prefix_s;
    w->decode_seconds += choices->decode_s;
    for (int i = 0; i < choices->count; i++) {
        const ChoiceAnswer *a = &choices->items[i];
        w->answered += a->answer.error == NULL;
        w->skipped += a->answer.skipped;
        w->shortened += a->answer.dropped_tokens > 0;
        w->dropped_tokens += a->answer.dropped_tokens;
        w->evaluations += a->evaluations;
        for (int k = 0; k < a->answer.count; k++) w->steps += a->scores[k].length;
    }
    w->forwards += choices->counts.inspection_forwards;
    w->canvases += choices->counts.inspections;
    w->rows += choices->counts.inspection_rows, w->prefix_rows += choices->counts.prefix_rows;
}

int requests_choose(ef_model *model, const ChoiceRequest *requests, const size_t *batch, int count,
                    const AnswerOptions *o, ef_answers *answers, Error *err) {
    const ChoiceOptions options = answer_choice_options(o);
    Choices choices;
    TRY(multimodal_choose(&model->model.parts, model->images.tokens, requests, count, &options,
                          &choices, err));
    work_add_choices(&answers->work, &choices);
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = item_choose(&answers->items[batch[i]], &choices.items[i], &requests[i],
                             model->model.tokenizer, err);
    choices_free(&choices);
    return status;
}
