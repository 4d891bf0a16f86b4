#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "projector/engine.h"

/* ---- Memory. ---- */

static int open_infill(ef_engine *e, Error *err) {
    const Multimodal *m = &e->model->model.parts;
    /* One request always fits, and with guidance it has two prompts. */
    int longest = 2 * language_longest(&m->language), rows = e->options.prefix_tokens;
    const InfillConfig config = {.model = m->language,
                                 .device = m->device,
                                 .pattern = m->attention,
                                 .answer_position = m->answer_position,
                                 .mask_id = tokenizer_mask_id(m->tokenizer),
                                 .vocab_limit = tokenizer_size(m->tokenizer),
                                 .batch_tokens = e->options.batch_tokens,
                                 .image_tokens = e->images.tokens,
                                 .image_rows = multimodal_image_rows(m),
                                 .keep_hidden = m->length != NULL,
                                 .slots = e->work_room,
                                 .prefix_rows = rows > longest ? rows : longest,
                                 .image_lead = m->image_lead_ids,
                                 .image_lead_count = m->image_lead_count};
    TRY(multimodal_check_mask(m, err));
    TRY(infill_open(&e->infill, &config, err));
    if (m->attention != ATTENTION_CAUSAL) return 0;
    return infill_causal_open_slots(&e->causal, e->infill, e->work_room,
                                    (int32_t)config.prefix_rows, err);
}

int engine_take(ef_engine *e, Error *err) {
    const Multimodal *m = &e->model->model.parts;
    size_t n = e->work_room = e->options.active,
           classes = m->length ? (size_t)m->length->classes : 0;
    e->works = calloc(n, sizeof(Work *));
    e->batches = calloc(n, sizeof *e->batches);
    e->slots = calloc(n, sizeof *e->slots);
    e->logits = calloc(n * classes + 1, sizeof *e->logits);
    if (!e->works || !e->batches || !e->slots || !e->logits)
        return error_set(err, "out of memory for %d requests", e->work_room);
    TRY(device_use(e->model->device, err));
    TRY(images_open(&e->images, m, e->options.image_cache, err));
    return open_infill(e, err);
}

void engine_give(ef_engine *e) {
    infill_causal_close(e->causal);
    infill_close(e->infill);
    images_close(&e->images);
    free(e->works), free(e->batches), free(e->slots), free(e->logits);
}

static void work_free(Work *w) {
    decoder_close(w->decoder);
    answers_free(&w->answers);
    free(w);
}

void work_fail(Work *w, const Error *why) {
    if (w->ended) return;
    w->ended = true, w->why = *why;
}

void work_release(ef_engine *e, Work *w) {
    if (w->kept) infill_causal_remove(e->causal, w->slot);
    if (w->slot >= 0) infill_remove(e->infill, w->slot);
    images_drop(&e->images, w->image);
    e->hypotheses -= w->job->beam;
    work_free(w);
}

/* ---- Taking jobs. ---- */

/* Space for a job's image and prompt, if its rows are not more than *budget, which they are taken
 * from, or it is the `first` of this step. */
static bool work_place(ef_engine *e, Work *w, bool first, int *budget) {
    const ef_job *job = w->job;
    InfillPrompt prompt = job->prompts.items[0];
    bool changed = false;
    if (job->image) w->image = images_take(&e->images, job, &changed);
    if (job->image && w->image < 0) return false;
    prompt.image = w->image;
    prompt.guided = job->how.decode.guidance > 0;
    if (changed) infill_forget_image(e->infill, w->image);
    int rows = infill_prefill_rows(e->infill, &prompt) + (changed ? e->images.rows : 0);
    if ((!first && rows > *budget) || !infill_place(e->infill, &prompt, &w->slot)) {
        images_drop(&e->images, w->image);
        return false;
    }
    e->images.hits += job->image && !changed;
    *budget -= rows;
    return true;
}

/* The next job, if it fits; NULL if it does not, or there is none. The mutex is held. */
static Work *take_job(ef_engine *e, bool first, int *budget) {
    ef_job *job = queue_peek(&e->queue);
    if (!job || e->work_count == e->work_room) return NULL;
    if (e->work_count && e->hypotheses + job->beam > e->options.active) return NULL;
    Work *w = calloc(1, sizeof *w);
    if (!w) return NULL; /* it waits until others have ended */
    w->job = job, w->image = w->slot = -1, w->start = clock_seconds();
    if (!work_place(e, w, first, budget)) {
        free(w);
        return NULL;
    }
    w->answers = (Answers){.items = job->answer, .count = 1};
    job->answer = NULL; /* taken over */
    e->hypotheses += job->beam;
    e->works[e->work_count++] = w;
    e->counts.active++;
    return queue_take(&e->queue) ? w : NULL;
}

/* ---- Before the first step. ---- */

/* The lengths of the works from `from` on that have none: work i's are at logits + row[i]. */
static int predict_lengths(ef_engine *e, int from, Error *err) {
    const Multimodal *m = &e->model->model.parts;
    int n = 0;
    for (int i = from; i < e->work_count; i++) {
        const Work *w = e->works[i];
        if (answer_predicts(m, w->answers.items, w->job->length)) e->slots[n++] = w->slot;
    }
    return n ? infill_lengths_of(e->infill, m->length, e->slots, n, e->logits, err) : 0;
}

static void work_step(void *user, const DecodeStep *step) {
    Work *w = user;
    DecodeStep told = *step;
    told.of_request = step->hypothesis;
    steps_tell(&w->job->teller, 0, &told);
}

/* Guidance evaluates pairs of canvases. */
static int check_pairs(const ef_engine *e, const Work *w, Error *err) {
    for (int i = 0; i < w->answers.result_count; i++) {
        const DecodeSpec *spec = &w->answers.specs[i];
        if (infill_pair_fits(e->infill, spec->request, spec->length)) continue;
        return error_set_code(err, ERROR_TOO_LONG,
                              "with guidance an answer of %d tokens takes two evaluations "
                              "together, which do not fit into the engine's batches of %d tokens: "
                              "shorten the prompt or the answer, or leave guidance out",
                              spec->length, e->options.batch_tokens);
    }
    return 0;
}

static int work_begin(ef_engine *e, Work *w, const float *logits, Error *err) {
    const Multimodal *m = &e->model->model.parts;
    Answer *a = w->answers.items;
    TRY(answer_decode_options(m, &w->job->how.decode, err));
    TRY(answers_take_specs(&w->answers, (size_t)w->job->beam, err));
    TRY(answer_specs(m, e->infill, w->slot, w->job->length, logits, &w->job->how, a, &w->answers,
                     err));
    if (a->error) return error_set_code(err, (ErrorCode)a->code, "%s", a->error);
    TRY(check_pairs(e, w, err));
    /* Without space whole sequences are evaluated. */
    w->kept =
        e->causal && infill_causal_place(e->causal, w->answers.specs, w->answers.result_count);
    DecodeRun run = {
        .options = &w->job->how.decode,
        .specs = w->answers.specs,
        .count = w->answers.result_count,
        .mask_id = tokenizer_mask_id(m->tokenizer),
        .callback = w->job->teller.on_step ? work_step : NULL,
        .user = w,
        .ends = {tokenizer_specials(m->tokenizer)->end, tokenizer_specials(m->tokenizer)->turn_end},
        .end_count = 2};
    run.stops = answer_stops(m, &run.stop_count);
    w->decoding = clock_seconds();
    return decoder_open(&w->decoder, &run, err);
}

void engine_admit(ef_engine *e) {
    const Multimodal *m = &e->model->model.parts;
    int from = e->work_count, budget = e->options.prefill_tokens, row = 0;
    Error why;
    pthread_mutex_lock(&e->mutex);
    while (take_job(e, e->work_count == from, &budget)) continue;
    pthread_mutex_unlock(&e->mutex);
    if (from == e->work_count) return;
    int status = images_encode(&e->images, &why);
    if (status == 0) status = infill_prefill(e->infill, &why);
    if (status == 0) status = predict_lengths(e, from, &why);
    for (int i = from; i < e->work_count; i++) {
        Work *w = e->works[i];
        const float *logits = NULL;
        if (answer_predicts(m, w->answers.items, w->job->length))
            logits = e->logits + (size_t)m->length->classes * (size_t)row++;
        Error own;
        if (status)
            work_fail(w, &why);
        else if (work_begin(e, w, logits, &own))
            work_fail(w, &own);
    }
}

/* ---- After the last step. ---- */

static int make_answers(const ef_engine *e, Work *w, ef_answers *out, Error *err) {
    const Model *model = &e->model->model;
    Answer *a = w->answers.items;
    if (w->job->teller.failed) return error_set(err, "out of memory to tell a step");
    w->answers.results = decoder_results(w->decoder);
    TRY(answer_choose(&model->parts, a, w->slot, &w->answers, err));
    if (a->error) return error_set_code(err, (ErrorCode)a->code, "%s", a->error);
    w->answers.prefix_s = w->decoding - w->start;
    w->answers.decode_s = clock_seconds() - w->decoding;
    work_add(&out->work, &w->answers);
    return item_fill(out->items, &w->answers, 0, model, w->job->task, err);
}

void work_complete(ef_engine *e, Work *w) {
    Error why;
    ef_answers *out = calloc(1, sizeof *out);
    if (out) out->items = calloc(1, sizeof *out->items);
    int status = -1;
    if (out && out->items) {
        out->count = 1;
        status = make_answers(e, w, out, &why);
    } else {
        error_write(&why, "out of memory for an answer");
    }
    if (status) {
        ef_answers_close(out);
        work_fail(w, &why);
        return;
    }
    w->ended = true, w->result = out;
}
