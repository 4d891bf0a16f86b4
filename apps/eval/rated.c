#include "apps/eval/rated.h"

#include <stdlib.h>
#include <string.h>

#include "data/metrics/gqa_text.h"

typedef enum Verdict { VERDICT_UNKNOWN, VERDICT_WRONG, VERDICT_RIGHT } Verdict;

typedef struct Judging {
    const GqaQuestions *questions;
    const EvalItem *items;
    int64_t asked;
    unsigned char *verdicts; /* [asked], of Verdict */
} Judging;

static int judge(void *user, const GqaQuestion *q, Error *err) {
    Judging *j = user;
    int64_t index = q->balanced && q->answer ? gqa_find(j->questions, q->id) : -1;
    if (index < 0 || index >= j->asked || !j->items[index].answer) return 0;
    char *plain = gqa_prediction_plain(j->items[index].answer);
    if (!plain) return error_set(err, "out of memory for comparing answers");
    j->verdicts[index] = strcmp(plain, q->answer) ? VERDICT_WRONG : VERDICT_RIGHT;
    free(plain);
    return 0;
}

static void take(Rated *r, const EvalItem *item, Verdict verdict) {
    r->unanswered += !item->answer;
    if (!item->answer) return;
    r->unscored += !item->answer_length;
    r->unknown += verdict == VERDICT_UNKNOWN;
    if (!item->answer_length || verdict == VERDICT_UNKNOWN) return;
    r->answers[r->count++] = (CalibrationAnswer){
        .score = item->score, .length = item->answer_length, .right = verdict == VERDICT_RIGHT};
}

int rated_read(Rated *r, const GqaQuestions *questions, const EvalItem *items, int64_t asked,
               const char *path, Error *err) {
    Judging j = {.questions = questions, .items = items, .asked = asked};
    Skipped skipped = {0}; /* they are known since the questions were read */
    int64_t bad;
    *r = (Rated){.answers = malloc(((size_t)asked + 1) * sizeof *r->answers)};
    j.verdicts = calloc((size_t)asked + 1, 1);
    int status = r->answers && j.verdicts
                     ? gqa_questions_walk(path, judge, &j, &skipped, &bad, err)
                     : error_set(err, "out of memory for %lld answers", (long long)asked);
    for (int64_t i = 0; i < asked && status == 0; i++) take(r, &items[i], (Verdict)j.verdicts[i]);
    free(j.verdicts);
    if (status) rated_free(r);
    return status;
}

void rated_free(Rated *r) {
    free(r->answers);
    *r = (Rated){0};
}
