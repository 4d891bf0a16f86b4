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

/* With --best-by: decodes held-out prompts and scores the answers. */
static int measure_answers(Trainer *t, TrainValid *valid, Error *err) {
    const TrainSettings *s = t->settings;
    TrainAnswers answers;
    if (s->best_by <= BEST_LOSS) return 0;
    const int count = s->valid_answers ? s->valid_answers : BEST_ANSWERS;
    TRY(trainer_answers(&t->model, &t->valid_config, count, &answers, err));
    int status = train_best_score(s->best_by, &answers, &valid->score, err);
    train_answers_free(&answers);
    return status;
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
    return train_best_write(&t->checkpoints, &t->model, s, state, err);
}

int trainer_validate(Trainer *t, const LoaderStep *at, Error *err) {
    double began = clock_seconds(), sum = 0;
    int64_t weight = 0; /* sequences, or patches: what a step's loss is the mean of */
    TrainValid valid = {.loss = NAN, .score = NAN};
    TrainRun run = {.backward = false, .seed = t->settings->seed};
    for (int64_t i = 0; i < t->valid_plan.steps; i++) {
        LoaderStep step;
        double loss;
        TRY(loader_make_step(&t->valid_config, &t->valid_plan, 0, i, &step, err));
        trainer_report_skipped(t, &step.skipped);
        int64_t parts = t->valid.scenes ? step.targets : step.sequences;
        int status =
            trainer_run_passes(t, &step, run, &loss, t->valid.scenes ? &valid.segment : NULL, err);
        sum += loss * (double)parts;
        weight += parts;
        loader_step_free(&step);
        TRY(status);
    }
    if (weight) {
        valid.loss = sum / (double)weight;
        TRY(measure_answers(t, &valid, err));
        TRY(trainer_tell_point(t, &valid, at, err));
        TRY(keep_best(t, &valid, err));
    } else {
        trainer_say(t, "no validation: none of its images could be used");
    }
    bool answers = t->settings->stage != STAGE_LENGTH && !t->valid.scenes;
    int shown = answers ? t->settings->show_answers : 0;
    if (shown > 0 && !t->settings->quiet)
        TRY(trainer_show_answers(&t->model, &t->valid_config, shown, stderr, err));
    t->sum.since += clock_seconds() - began; /* not counted as training time */
    return 0;
}
