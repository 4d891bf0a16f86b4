/* What a run makes of its settings, and whether its end is a good one (trainer.h). */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "apps/train/settings.h"
#include "apps/train/trainer.h"
#include "data/checkpoints/model_files.h"

/* ---- How data become batches. ---- */

ExampleConfig trainer_examples(const TrainModel *t, const TrainSettings *s) {
    const Multimodal *m = &t->model.parts;
    int longest = language_longest(&m->language);
    bool blocks = m->attention == ATTENTION_BLOCK_CAUSAL;
    return (ExampleConfig){.tokenizer = m->tokenizer,
                           .longest = s->max_tokens < longest ? s->max_tokens : longest,
                           .positions = longest,
                           .answer_position = m->answer_position,
                           .image_rows = multimodal_image_rows(m),
                           .context = s->context,
                           .together = blocks && !s->context && s->stage != STAGE_LENGTH,
                           .plain = s->plain,
                           .long_prompts = s->long_prompts,
                           .whole = s->stage == STAGE_PRETRAIN,
                           .language = m->language,
                           .chats = t->model.chats,
                           .chat = t->model.chat,
                           .pad_answers = s->pad_answers >= 0 ? s->pad_answers : m->pad_answers,
                           .random_lengths = s->random_lengths,
                           .seed = s->seed,
                           .image_lead = m->image_lead,
                           .image_lead_count = m->image_lead_count};
}

/* The type of the features that are kept. */
Dtype trainer_kept_dtype(const TrainModel *t, const TrainSettings *s) {
    if (!s->feature_cache || !t->model.parts.tower || !t->model.parts.projector) return DTYPE_NONE;
    return s->feature_dtype == DTYPE_NONE ? DTYPE_BF16 : s->feature_dtype;
}

PackingConfig trainer_packing(const TrainModel *t, const TrainSettings *s) {
    const Multimodal *m = &t->model.parts;
    return (PackingConfig){.language = m->language,
                           .pattern = m->attention,
                           .answer_position = m->answer_position,
                           .image_rows = multimodal_image_rows(m),
                           .image_size = m->tower ? tower_image_size(m->tower) : 0,
                           .feature_dtype = trainer_kept_dtype(t, s),
                           .feature_width = m->tower ? tower_width(m->tower) : 0,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .noise = s->noise,
                           .seed = s->seed,
                           .lengths = s->stage == STAGE_LENGTH,
                           .classes = m->length ? m->length->classes : 0,
                           .image_lead = m->image_lead_ids,
                           .image_lead_count = m->image_lead_count};
}

/* ---- Steps. ---- */

int trainer_schedule(Schedule *schedule, const TrainSettings *s, const Dataset *data,
                     const BatchConfig *batches, Error *err) {
    int64_t steps = s->steps;
    if (steps <= 0) { /* an epoch has as many steps as the first one */
        BatchPlan plan;
        TRY(batches_plan(&plan, data->units, data->count, batches, 0, err));
        steps = plan.steps * (s->epochs > 0 ? s->epochs : 1);
        batches_free(&plan);
    }
    *schedule = (Schedule){.kind = s->schedule, .rate = s->lr, .steps = steps};
    schedule->warmup = s->warmup_steps > 0 ? s->warmup_steps
                                           : (int64_t)ceil((double)s->warmup_ratio * (double)steps);
    schedule->decay =
        s->decay_steps > 0 ? s->decay_steps : (int64_t)ceil((double)s->decay_ratio * (double)steps);
    return 0;
}

int trainer_save_settings(const RunFolder *run, const TrainSettings *s, Error *err) {
    char *path = run_folder_path(run, "settings.json", err);
    json_t *json = train_settings_json(s);
    int status = path && json ? json_write(json, path, err) : error_set(err, "out of memory");
    json_decref(json);
    free(path);
    return status;
}

/* ---- The end. ---- */

/* A run that ends without any update, or in the middle of a streak, has failed. */
int trainer_check_end(const TrainState *state, bool done, int64_t made, int streak,
                      const char *last, Error *err) {
    if (streak && (done || made == 0))
        return error_set(err,
                         "the last %d updates had non-finite gradients and were skipped: the run "
                         "has not reached its end, and no model is published; %s%s; a lower --lr "
                         "helps",
                         streak,
                         last ? "its state before them is "
                              : "there is no "
                                "checkpoint",
                         last ? last : "");
    if (done && state->step == state->skipped)
        return error_set(err,
                         "no update was made in %" PRId64 " steps: no batch had a token to predict",
                         state->step);
    return 0;
}
