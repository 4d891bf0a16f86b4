#include "apps/eval/running.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/metrics/gqa_text.h"
#include "data/metrics/rouge.h"

void running_texts(Running *r, const EvalTextSet *set, const EvalTextOptions *options) {
    *r = (Running){.items = &set->items, .set = set, .options = options};
}

typedef struct Golds {
    Running *running;
    const GqaQuestions *questions;
} Golds;

static int take_gold(void *user, const GqaQuestion *q, Error *err) {
    const Golds *g = user;
    int64_t index = q->balanced && q->answer ? gqa_find(g->questions, q->id) : -1;
    if (index < 0 || index >= g->running->gold_count) return 0;
    free(g->running->golds[index]);
    g->running->golds[index] = strdup(q->answer);
    return g->running->golds[index] ? 0 : error_set(err, "out of memory for the answers");
}

int running_gqa(Running *r, const EvalItems *items, const GqaQuestions *questions, int64_t asked,
                const char *path, Error *err) {
    Skipped skipped = {0}; /* they are known since the questions were read */
    int64_t bad;
    *r = (Running){
        .items = items, .golds = calloc((size_t)asked + 1, sizeof *r->golds), .gold_count = asked};
    Golds golds = {r, questions};
    int status = r->golds ? gqa_questions_walk(path, take_gold, &golds, &skipped, &bad, err)
                          : error_set(err, "out of memory for the answers");
    if (status) running_free(r);
    return status;
}

void running_free(Running *r) {
    for (int64_t i = 0; i < r->gold_count && r->golds; i++) free(r->golds[i]);
    free(r->golds);
    *r = (Running){0};
}

/* ---- The score so far. ---- */

static double add_value(Running *r, double value) {
    r->sums[0] += value, r->sums[1]++;
    return 100 * r->sums[0] / r->sums[1];
}

static int add_gqa(Running *r, int64_t index, double *score, Error *err) {
    const char *gold = index < r->gold_count ? r->golds[index] : NULL;
    *score = r->sums[1] > 0 ? 100 * r->sums[0] / r->sums[1] : NAN;
    if (!gold) return 0;
    char *plain = gqa_prediction_plain(r->items->items[index].answer);
    if (!plain) return error_set(err, "out of memory for comparing answers");
    *score = add_value(r, !strcmp(plain, gold));
    free(plain);
    return 0;
}

/* Corpus BLEU: the counts of this line are added to those of the others. */
static int add_bleu(Running *r, const char *answer, const References *references, double *score,
                    Error *err) {
    BleuOptions options = {.tokenize = r->options->tokenize};
    LineStats stats;
    TRY(bleu_stats(&answer, references, &options, &stats, err));
    for (int c = 0; c < stats.width; c++) r->sums[c] += stats.rows[c];
    *score = stats.score(r->sums, stats.user);
    line_stats_free(&stats);
    return 0;
}

static int add_corpus(Running *r, const char *answer, const char *target, double *score,
                      Error *err) {
    const char *const column[] = {target};
    const char *const *columns[] = {column};
    References references;
    RougeScore rouge;
    TRY(references_from_columns(&references, columns, 1, 1, err));
    int status = r->options->task == EVAL_TRANSLATION
                     ? add_bleu(r, answer, &references, score, err)
                     : rouge_lines(&answer, &references, r->options->stem, &rouge, err);
    references_free(&references);
    if (status == 0 && r->options->task != EVAL_TRANSLATION)
        *score = add_value(r, rouge.kinds[ROUGE_1].f);
    return status;
}

static int add_item(void *user, int64_t index, double *score, Error *err) {
    Running *r = user;
    const char *answer = r->items->items[index].answer;
    double values[EVAL_TEXT_VALUES];
    *score = NAN;
    if (!answer) return 0;
    if (!r->set) return add_gqa(r, index, score, err);
    const char *target = r->set->targets[index];
    if (r->options->task == EVAL_TRANSLATION || r->options->task == EVAL_SUMMARY)
        return add_corpus(r, answer, target, score, err);
    TRY(eval_text_values(r->options->task, answer, target, values, err));
    *score = add_value(r, values[0]);
    return 0;
}

EvalRunning running_callback(Running *r) {
    const ScoredTask *task = scored_task(r->set ? eval_task_names[r->options->task] : "gqa");
    return (EvalRunning){.name = task->titles[0], .add = add_item, .user = r};
}
