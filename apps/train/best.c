#include "apps/train/best.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/checkpoints/config.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"
#include "data/metrics/answers.h"
#include "data/metrics/bleu.h"
#include "data/metrics/chrf.h"
#include "data/metrics/rouge.h"
#include "projector/model_write.h"

#define NAME   "best"
#define MARKER "best.json"

/* ---- Scores. ---- */

static int answer_value(TrainBest by, const char *answer, const char *target, double *value,
                        Error *err) {
    switch (by) {
    case BEST_F1:
        return answer_f1(answer, target, value, err);
    case BEST_NUMBER:
        return answer_number(answer, target, value, err);
    case BEST_CHOICE:
        return answer_choice(answer, target, value, err);
    default:
        return answer_exact(ANSWER_PLAIN, answer, target, value, err);
    }
}

static int corpus_score(TrainBest by, const TrainAnswers *a, double *score, Error *err) {
    References references;
    const char *const *answers = (const char *const *)a->answers;
    const char *const *columns[] = {(const char *const *)a->targets};
    BleuScore bleu;
    ChrfScore chrf;
    RougeScore rouge;
    TRY(references_from_columns(&references, columns, 1, a->count, err));
    int status = 0;
    if (by == BEST_BLEU) {
        status = bleu_corpus(answers, &references, &(BleuOptions){0}, &bleu, err);
        *score = bleu.score;
    } else if (by == BEST_CHRF) {
        status = chrf_corpus(answers, &references, &(ChrfOptions){0}, &chrf, err);
        *score = chrf.score;
    } else {
        status = rouge_corpus(answers, &references, false, &rouge, err);
        *score = 100 * rouge.kinds[ROUGE_L].f;
    }
    references_free(&references);
    return status;
}

int train_best_score(TrainBest by, const TrainAnswers *a, double *score, Error *err) {
    double sum = 0, value;
    *score = NAN;
    if (!a->count) return 0;
    if (by == BEST_BLEU || by == BEST_CHRF || by == BEST_ROUGE)
        return corpus_score(by, a, score, err);
    for (int i = 0; i < a->count; i++) {
        TRY(answer_value(by, a->answers[i], a->targets[i], &value, err));
        sum += value;
    }
    *score = 100 * sum / a->count;
    return 0;
}

/* ---- The folder. ---- */

int train_best_check(const RunFolder *run, Error *err) {
    char *folder = run_folder_path(run, NAME, err);
    char *marker = folder ? path_join(folder, MARKER, err) : NULL;
    json_t *json = NULL;
    int status = marker ? 0 : -1;
    if (status == 0 && access(folder, F_OK) == 0) {
        const char *id = config_read(&json, marker, NULL)
                             ? NULL
                             : json_string_value(json_object_get(json, "run"));
        if (!id || strcmp(id, run->id))
            status = error_set(err, "%s: this run did not make it (%s): move it away", folder,
                               id ? "it is another run's" : "it has no " MARKER " of this run");
    }
    json_decref(json);
    free(folder), free(marker);
    return status;
}

static int fill(const TrainCheckpoints *c, const TrainModel *model, const TrainSettings *s,
                const TrainState *state, const char *to, Error *err) {
    TRY(train_checkpoint_model(c, model, s, to, err));
    return model_write_json(json_pack("{s:s, s:I, s:s, s:f}", "run", c->run->id, "step",
                                      (json_int_t)state->best_step, "by",
                                      train_best_names[s->best_by], "score", state->best_score),
                            to, MARKER, err);
}

int train_best_write(TrainCheckpoints *c, const TrainModel *model, const TrainSettings *s,
                     const TrainState *state, Error *err) {
    TRY(train_best_check(c->run, err));
    char *partial = run_folder_partial(c->run, NAME, true, err);
    if (!partial) return -1;
    int status = fill(c, model, s, state, partial, err);
    if (status == 0) status = run_folder_replace(c->run, partial, NAME, err);
    if (status) folder_discard(partial);
    free(partial);
    return status ? error_context(err, "the best model, of step %lld, was not written",
                                  (long long)state->best_step)
                  : 0;
}
