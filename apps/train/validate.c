/* validate.c - held-out loss, scores of generated answers, and the best model so far. */
#include <math.h>
#include <stdlib.h>

#include "apps/train/best.h"
#include "apps/train/trainer_state.h"
#include "kernels/clock.h"

bool trainer_out_of_patience(const Trainer *t) {
    const TrainSettings *s = t->settings;
    return s->patience > 0 && t->state.worse >= s->patience;
}

static int score_answers(Trainer *t, TrainValid *valid, Error *err) {
    const TrainSettings *s = t->settings;
    TrainAnswers answers;
    const int count = s->valid_answers ? s->valid_answers : BEST_ANSWERS;
    TRY(trainer_answers(&t->model, &t->valid_config, count, &answers, err));
    int status = train_best_score(s->best_by, &answers, &valid->score, err);
    train_answers_free(&answers);
    return status;
}

/* Work of the first rank, which evaluates the model. */
static int first_evaluates(Trainer *t, int (*work)(Trainer *t, TrainValid *valid, Error *err),
                           TrainValid *valid, Error *err) {
    Share *share = &t->ranks->share;
    TRY(share_lead(share, err));
    int status = ranks_is_first(t->ranks) ? work(t, valid, err) : 0;
    TRY(share_led(share, status ? NULL : err));
    return ranks_agree(t->ranks, status, err);
}

/* With --best-by: decodes held-out prompts and scores the answers, of several ranks on the first. */
static int measure_answers(Trainer *t, TrainValid *valid, Error *err) {
    if (t->settings->best_by <= BEST_LOSS) return 0;
    TRY(first_evaluates(t, score_answers, valid, err));
    return ranks_broadcast(t->ranks, &valid->score, sizeof valid->score, err);
}

static int write_best(void *user, Error *err) {
    Trainer *t = user;
    return train_best_write(&t->checkpoints, &t->model, t->settings, &t->state, err);
}

/* Writes RUN/best if this model is better than all before. The first of equals is kept. */
static int keep_best(Trainer *t, const TrainValid *valid, Error *err) {
    const TrainSettings *s = t->settings;
    TrainState *state = &t->state;
    if (s->best_by == BEST_NONE) return 0;
    double score = s->best_by == BEST_LOSS ? valid->loss : valid->score;
    bool first = state->best_step < 0;
    bool better = s->best_by == BEST_LOSS ? score < state->best_score : score > state->best_score;
    if (!isfinite(score) || (!first && !better)) {
        state->worse++;
        return 0;
    }
    state->best_step = state->step, state->best_score = score, state->worse = 0;
    return ranks_first_does(t->ranks, write_best, t, err);
}

static int answers_shown(const Trainer *t) {
    const bool answers = t->settings->stage != STAGE_LENGTH && !t->valid.scenes;
    return answers ? t->settings->show_answers : 0;
}

static int show_answers(Trainer *t, TrainValid *valid, Error *err) {
    (void)valid;
    if (t->settings->quiet) return 0;
    return trainer_show_answers(&t->model, &t->valid_config, answers_shown(t), stderr, err);
}

/* A step's passes; all ranks make the same number of them, or seem to. */
static int run_passes(Trainer *t, const LoaderStep *step, int rounds, double *loss,
                      SegmentScore *score, Error *err) {
    const TrainRun run = {.backward = false, .seed = t->settings->seed};
    t->passes_over = 0;
    int status = trainer_run_passes(t, step, run, loss, score, err);
    for (; t->passes_over < rounds; t->passes_over++)
        if (share_forward_over(&t->ranks->share, status ? NULL : err)) return -1;
    return status;
}

int trainer_validate(Trainer *t, const LoaderStep *at, Error *err) {
    double began = clock_seconds(), sum = 0;
    int64_t weight = 0; /* sequences, or patches: what a step's loss is the mean of */
    TrainValid valid = {.loss = NAN, .score = NAN};
    share_evaluate(&t->ranks->share, true);
    for (int64_t i = 0; i < t->valid_plan.steps; i++) {
        LoaderStep step;
        RanksStep all;
        double loss = 0;
        int status = loader_make_step(&t->valid_config, &t->valid_plan, 0, i, &step, err);
        TRY(ranks_step(t->ranks, status, &step, &all, err));
        trainer_report_skipped(t, &step.skipped);
        int64_t parts = t->valid.scenes ? step.targets : step.sequences;
        status =
            run_passes(t, &step, all.rounds, &loss, t->valid.scenes ? &valid.segment : NULL, err);
        status = ranks_loss(t->ranks, status, &loss, err);
        sum += loss * (double)parts;
        weight += parts;
        loader_step_free(&step);
        TRY(status);
    }
    TRY(ranks_sum(t->ranks, &valid.segment.patches, 4, err)); /* all of its counts */
    if (weight) {
        valid.loss = sum / (double)weight;
        TRY(measure_answers(t, &valid, err));
        TRY(trainer_tell_point(t, &valid, at, err));
        TRY(keep_best(t, &valid, err));
    } else {
        trainer_say(t, "no validation: none of its images could be used");
    }
    if (answers_shown(t)) TRY(first_evaluates(t, show_answers, &valid, err));
    share_evaluate(&t->ranks->share, false);
    t->sum.since += clock_seconds() - began; /* not counted as training time */
    return 0;
}
