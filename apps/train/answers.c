/* Decodes answers to held-out prompts during training. */
#include <stdlib.h>

#include "apps/cli/report.h"
#include "apps/train/trainer.h"
#include "projector/answers.h"

enum { ANSWER_STEPS = 10 }; /* enough to see progress; inference uses 50 */

/* The first turns of some units, ready to be decoded. */
typedef struct Held {
    int count, image_count;
    Record *records;
    Examples *examples;
    InfillPrompt *prompts;
    DecodeSpec *specs;
    const ExampleTurn **turns;
    Image *images;
} Held;

static void held_close(Held *h) {
    for (int i = 0; i < h->count; i++) {
        if (h->records) record_free(&h->records[i]);
        if (h->examples) examples_free(&h->examples[i]);
    }
    for (int i = 0; i < h->image_count; i++) image_free(&h->images[i]);
    free(h->records), free(h->examples), free(h->prompts), free(h->specs), free(h->turns);
    free(h->images);
}

static int held_image(const LoaderConfig *c, int64_t unit, Held *h, int i, Error *err) {
    char path[4096];
    TRY(records_image_path(dataset_file(c->dataset, unit), &h->records[i], path, sizeof path, err));
    TRY(preprocess_read(&h->images[h->image_count], NULL, NULL, path, &c->preprocess, NULL, err));
    h->prompts[i].image = h->image_count++;
    return 0;
}

/* Adds one, unless its record or image can no longer be read. */
static int held_unit(const LoaderConfig *c, int64_t unit, Held *h, Error *err) {
    const LanguageModel *language = &c->dataset->options.example.language;
    int i = h->count;
    const Example *example;
    TRY(dataset_unit(c->dataset, unit, &h->records[i], &h->examples[i], &example, err));
    const ExampleTurn *turn = h->turns[i] = &example->turns[0];
    h->prompts[i] = (InfillPrompt){.ids = turn->prompt, .count = turn->prompt_count, .image = -1};
    /* </s> is not part of the canvas; what ends an answer of LLaMA's kind is, unless it ends every
     * sequence. */
    const int end = language->end >= 0;
    h->specs[i] = (DecodeSpec){.length = turn->answer_count > end ? turn->answer_count - end : 1};
    if (example->image) TRY(held_image(c, unit, h, i, err));
    h->count++;
    return 0;
}

static int held_open(const LoaderConfig *c, int count, Held *h, Error *err) {
    size_t n = (size_t)count + 1;
    h->records = calloc(n, sizeof *h->records), h->examples = calloc(n, sizeof *h->examples);
    h->prompts = calloc(n, sizeof *h->prompts), h->specs = calloc(n, sizeof *h->specs);
    h->turns = calloc(n, sizeof *h->turns), h->images = calloc(n, sizeof *h->images);
    if (!h->records || !h->examples || !h->prompts || !h->specs || !h->turns || !h->images)
        return error_set(err, "out of memory");
    int64_t all = c->dataset->count, shown = count < all ? count : all;
    for (int64_t i = 0; i < shown; i++) {
        int64_t unit = (2 * i + 1) * all / (2 * shown); /* evenly spread */
        int place = h->count;
        if (held_unit(c, unit, h, NULL) == 0) continue;
        record_free(&h->records[place]), examples_free(&h->examples[place]);
    }
    return 0;
}

static int print_ids(const Tokenizer *tokenizer, const char *title, const int32_t *ids, int count,
                     FILE *out, Error *err) {
    char *text;
    TRY(tokenizer_decode(tokenizer, ids, (size_t)count, &text, err));
    fprintf(out, "  %-7s ", title);
    report_field(out, text), fputc('\n', out);
    free(text);
    return 0;
}

/* One at a time: there are few. */
static int held_decode(const Multimodal *m, const Held *h, int i, Tensor image_tokens,
                       DecodeResult **results, Error *err) {
    InfillConfig config = {.model = m->language,
                           .device = m->device,
                           .pattern = m->attention,
                           .answer_position = m->answer_position,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .vocab_limit = tokenizer_size(m->tokenizer),
                           .prompts = &h->prompts[i],
                           .prompt_count = 1,
                           .image_tokens = image_tokens,
                           .image_rows = multimodal_image_rows(m),
                           .image_lead = m->image_lead_ids,
                           .image_lead_count = m->image_lead_count};
    DecodeOptions options = decode_options_default();
    TRY(answer_decode_options(m, &options, err));
    options.iterations = ANSWER_STEPS;
    Infill *infill;
    TRY(infill_open(&infill, &config, err));
    DecodeRun run = {.options = &options,
                     .specs = &h->specs[i],
                     .count = 1,
                     .mask_id = config.mask_id,
                     .evaluate = infill_evaluate,
                     .model = infill};
    run.stops = answer_stops(m, &run.stop_count);
    int length = h->specs[i].length;
    int status = infill_reserve(infill, length, length + 1, err);
    if (status == 0) status = decode_run(&run, results, err);
    if (status == 0 && (*results)->error) {
        status = error_set(err, "%s", (*results)->error);
        decode_results_free(*results, 1);
    }
    infill_close(infill);
    return status;
}

static int held_show(const Multimodal *m, const Held *h, int i, Tensor image_tokens, FILE *out,
                     Error *err) {
    const ExampleTurn *turn = h->turns[i];
    DecodeResult *result;
    TRY(held_decode(m, h, i, image_tokens, &result, err));
    int status = 0;
    if (turn->prompt_count > 0)
        status = print_ids(m->tokenizer, "prompt", turn->prompt, turn->prompt_count, out, err);
    if (status == 0)
        status = print_ids(m->tokenizer, "wanted", turn->answer, turn->answer_count, out, err);
    if (status == 0)
        status = print_ids(m->tokenizer, "answer", result->tokens, result->length, out, err);
    decode_results_free(result, 1);
    return status;
}

/* Calls `take` for each of some evenly spread units. */
typedef int (*TakeHeld)(const Multimodal *m, const Held *held, int i, Tensor image_tokens,
                        void *user, Error *err);

static int held_each(const TrainModel *t, const LoaderConfig *config, int count, TakeHeld take,
                     void *user, Error *err) {
    const Multimodal *m = &t->model.parts;
    Held held = {0};
    Tensor tokens = TENSOR_NONE;
    int status = held_open(config, count, &held, err);
    if (status == 0 && held.image_count)
        status = multimodal_encode(m, held.images, held.image_count, &tokens, err);
    for (int i = 0; i < held.count && status == 0; i++)
        status = take(m, &held, i, tokens, user, err);
    device_free(m->device, tokens.data);
    held_close(&held);
    return status;
}

static int take_show(const Multimodal *m, const Held *h, int i, Tensor tokens, void *user,
                     Error *err) {
    return held_show(m, h, i, tokens, user, err);
}

int trainer_show_answers(const TrainModel *t, const LoaderConfig *config, int count, FILE *out,
                         Error *err) {
    return held_each(t, config, count, take_show, out, err);
}

static int take_answer(const Multimodal *m, const Held *h, int i, Tensor tokens, void *user,
                       Error *err) {
    TrainAnswers *a = user;
    const ExampleTurn *turn = h->turns[i];
    DecodeResult *result;
    TRY(tokenizer_decode(m->tokenizer, turn->answer, (size_t)turn->answer_count,
                         &a->targets[a->count], err));
    int status = held_decode(m, h, i, tokens, &result, err);
    if (status == 0) {
        status = tokenizer_decode(m->tokenizer, result->tokens, (size_t)result->length,
                                  &a->answers[a->count], err);
        decode_results_free(result, 1);
    }
    if (status) {
        free(a->targets[a->count]);
        return -1;
    }
    a->count++;
    return 0;
}

int trainer_answers(const TrainModel *t, const LoaderConfig *config, int count,
                    TrainAnswers *answers, Error *err) {
    *answers = (TrainAnswers){.answers = calloc((size_t)count + 1, sizeof *answers->answers),
                              .targets = calloc((size_t)count + 1, sizeof *answers->targets)};
    int status = answers->answers && answers->targets
                     ? held_each(t, config, count, take_answer, answers, err)
                     : error_set(err, "out of memory for %d answers", count);
    if (status) train_answers_free(answers);
    return status;
}

void train_answers_free(TrainAnswers *a) {
    for (int i = 0; i < a->count; i++) free(a->answers[i]), free(a->targets[i]);
    free(a->answers), free(a->targets);
    *a = (TrainAnswers){0};
}
