#include "apps/eval/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/eval/loader.h"
#include "apps/eval/progress.h"
#include "apps/cli/signals.h"
#include "data/sets/image_file.h"
#include "projector/choices.h"
#include "vision/patch_map.h"

/* Default tokens of a batch. A CPU's matmuls reach full speed at some hundred rows and fall out of
 * its caches beyond some thousand; a GPU needs more, down to the last steps, when most answers are
 * settled. */
enum { BATCH_CPU = 4096, BATCH_GPU = 65536, BATCH_LEAST = 1024 };

/* Tokens of an answer whose length is not known yet, and of a choice, for the size of batches. */
enum { ANSWER_GUESS = 16, CHOICE_GUESS = 4 };

/* An image with its items, or one item without an image. */
typedef struct Unit {
    const char *image;    /* NULL: none */
    int64_t first, count; /* order[first .. first + count) */
    int64_t rows;
} Unit;

typedef struct Run {
    const EvalRunConfig *config;
    const Multimodal *model;
    AnswerOptions answer;
    EvalStore *store;
    EvalItems *items;
    int64_t *order; /* indices of the items to be asked, grouped by unit */
    Unit *units;
    int64_t unit_count, asked; /* to be asked: of `order` */
    int64_t *batch_ends;       /* [batch_count] in units */
    int64_t batch_count, batch_rows;
    const char **names; /* images of all units */
    int64_t *name_ends; /* [batch_count] */
    EvalLoader *loader;
    EvalProgress progress;
    Timings *timings;
} Run;

/* ---- What is to be asked. ---- */

/* Rows of an image, with what a chat template has before it. */
static int64_t image_rows(const Run *r) {
    return multimodal_image_rows(r->model) + r->model->image_lead_count;
}

/* Rows of an item alone, and of a unit for its image. */
static int64_t item_rows(const Run *r, const EvalItem *item) {
    int64_t hypotheses = (int64_t)r->answer.length_beam * r->answer.samples;
    int64_t canvas = (item->length > 0 ? item->length : ANSWER_GUESS) + 1;
    if (item->choice_count) hypotheses = (int64_t)item->choice_count, canvas = CHOICE_GUESS + 1;
    if (r->model->attention == ATTENTION_BLOCK_CAUSAL && !r->answer.no_kv_cache)
        return item->tokens + hypotheses * canvas;
    int64_t image = item->image ? image_rows(r) : 0;
    return hypotheses * (1 + image + item->tokens + canvas);
}

/* The number of each item's unit, in the order of their first items; items about one image share
 * one. */
static int number_units(const EvalItems *items, int64_t *unit, int64_t *count, Error *err) {
    TextTable images = {0};
    int64_t *of_image = malloc(((size_t)items->count + 1) * sizeof *of_image);
    int status = of_image ? 0 : error_set(err, "out of memory for the images' names");
    *count = 0;
    for (int64_t i = 0; i < items->count && status == 0; i++) {
        int32_t number = 0;
        bool fresh = true;
        const char *image = items->items[i].image;
        if (image) status = text_table_add(&images, image, &number, &fresh, err);
        if (status) break;
        if (image && fresh) of_image[number] = *count;
        unit[i] = image && !fresh ? of_image[number] : (*count)++;
    }
    text_table_free(&images);
    free(of_image);
    return status;
}

/* Copies what an answer reports of its request, except the text. */
static int item_answered(EvalItem *item, const Answer *answer, Error *err) {
    if (!answer->error) {
        item->dropped = answer->dropped_tokens;
        return 0;
    }
    item->skipped = answer->skipped && !item->kind;
    return eval_item_bad(item, answer->skipped ? EVAL_SKIPPED : "prompt that cannot be read", err,
                         "%s", answer->error);
}

/* Whether an item's choices can be scored; the length of the longest. */
static int item_choices(const Run *r, EvalItem *item, int *longest, Error *err) {
    Error why;
    const ChoiceRequest request = {
        .image = item->image ? 0 : -1, .choices = item->choices, .count = item->choice_count};
    if (choices_check(r->model, &request, longest, &why) == 0) return 0;
    return eval_item_bad(item, "choices that cannot be scored", err, "%s", why.text);
}

/* Whether an item can be asked: its prompt fits, its image file exists. */
static int item_check(const Run *r, EvalItem *item, Error *err) {
    Answer answer;
    char text[400];
    AnswerRequest request = {
        .prompt = item->prompt, .image = item->image ? 0 : -1, .length = item->length};
    if (item->kind) return 0;
    if (!item->prompt) return eval_item_bad(item, "no question", err, "there is nothing to answer");
    if (item->choice_count) TRY(item_choices(r, item, &request.length, err));
    if (item->kind) return 0;
    TRY(multimodal_check_long(r->model, &request, r->answer.long_prompts, &answer, err));
    item->tokens = answer.prompt_tokens - answer.dropped_tokens;
    int status = item_answered(item, &answer, err);
    free(answer.error);
    if (status || item->kind) return status;
    if (!item->image) return 0;
    if (image_leaves_folder(item->image))
        return eval_item_bad(item, "image outside of the folder", err, "%s", item->image);
    const char *kind = image_file_check(text, sizeof text, r->config->images, item->image);
    return kind ? eval_item_bad(item, kind, err, "%s", text) : 0;
}

/* Sorts the shard's unanswered items into units. */
static int make_units(Run *r, const int64_t *unit, int64_t count, Error *err) {
    const EvalItems *all = r->items;
    int64_t *place = calloc((size_t)count + 1, sizeof *place); /* of each unit's next item */
    r->order = malloc(((size_t)all->count + 1) * sizeof *r->order);
    r->units = calloc((size_t)count + 1, sizeof *r->units);
    if (!place || !r->order || !r->units) {
        free(place);
        return error_set(err, "out of memory for %lld %s", (long long)all->count, r->config->what);
    }
    for (int64_t i = 0; i < all->count; i++)
        if (!all->items[i].answer && !all->items[i].kind) place[unit[i]]++;
    for (int64_t u = 0; u < count; u++) {
        int64_t n = place[u];
        if (r->store->shards && u % r->store->shards != r->store->shard - 1) n = 0;
        place[u] = n ? r->asked : -1;
        r->asked += n;
    }
    int64_t used = 0;
    for (int64_t i = 0; i < all->count; i++)
        if (!all->items[i].answer && !all->items[i].kind && place[unit[i]] >= 0)
            r->order[place[unit[i]]++] = i;
    free(place);
    for (int64_t i = 0; i < r->asked; i++) {
        const EvalItem *item = &all->items[r->order[i]];
        if (i == 0 || unit[r->order[i]] != unit[r->order[i - 1]])
            r->units[used++] = (Unit){
                .image = item->image, .first = i, .rows = item->image ? image_rows(r) + 1 : 1};
        r->units[used - 1].count++;
        r->units[used - 1].rows += item_rows(r, item);
    }
    r->unit_count = used;
    return 0;
}

/* Bytes of a batch's row during the batch: with block-causal attention its keys, values and hidden
 * state. */
static int64_t batch_rows(const Run *r) {
    if (r->config->batch_tokens > 0) return r->config->batch_tokens;
    const LanguageModel *m = &r->model->language;
    bool gpu = device_kind(r->model->device) == DEVICE_CUDA;
    int64_t most = gpu ? BATCH_GPU : BATCH_CPU, width = language_block(m)->width;
    int64_t row = (2 * (int64_t)language_layers(m) + 2) * width * (int64_t)sizeof(float);
    size_t bytes = 0, total;
    if (!gpu)
        bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    else
        device_memory(r->model->device, &bytes, &total);
    int64_t fit = (int64_t)(bytes / 4) / row;
    return fit < BATCH_LEAST ? BATCH_LEAST : fit < most ? fit : most;
}

static int make_batches(Run *r, Error *err) {
    size_t n = (size_t)r->unit_count + 1;
    r->batch_ends = malloc(n * sizeof *r->batch_ends);
    r->name_ends = malloc(n * sizeof *r->name_ends);
    r->names = malloc(n * sizeof *r->names);
    if (!r->batch_ends || !r->name_ends || !r->names)
        return error_set(err, "out of memory for %lld batches", (long long)r->unit_count);
    r->batch_rows = batch_rows(r);
    int64_t rows = 0, names = 0;
    for (int64_t u = 0; u < r->unit_count; u++) {
        bool fits = rows + r->units[u].rows <= r->batch_rows;
        if (r->batch_count == 0 || !fits) r->batch_count++, rows = 0;
        rows += r->units[u].rows;
        if (r->units[u].image) r->names[names++] = r->units[u].image;
        r->batch_ends[r->batch_count - 1] = u + 1;
        r->name_ends[r->batch_count - 1] = names;
    }
    return 0;
}

/* Before the first answer: if no image exists, --images is wrong. */
static int check_images(const Run *r, Error *err) {
    const EvalItem *first = NULL;
    for (int64_t i = 0; i < r->items->count; i++) {
        const EvalItem *item = &r->items->items[i];
        if (!item->image) continue;
        bool missing = item->kind && !strcmp(item->kind, "no such image");
        if (item->answer || !missing) return 0;
        if (!first) first = item;
    }
    if (!first) return 0;
    return error_set(err, "%s: none of the images exists, not even %s: is --images right?",
                     r->config->images, first->image);
}

static int plan(Run *r, Error *err) {
    EvalItems *items = r->items;
    for (int64_t i = 0; i < items->count; i++)
        if (!items->items[i].answer) TRY(item_check(r, &items->items[i], err));
    TRY(check_images(r, err));
    int64_t *unit = malloc(((size_t)items->count + 1) * sizeof *unit), count;
    int status = unit ? number_units(items, unit, &count, err)
                      : error_set(err, "out of memory for the questions");
    if (status == 0) status = make_units(r, unit, count, err);
    free(unit);
    return status ? -1 : make_batches(r, err);
}

/* ---- Answering. ---- */

/* The image's attention in GQA's cells, which sum to 1. */
static int item_inspection(const Run *r, EvalItem *item, const AnswerInspection *inspection,
                           const EvalImage *p, Error *err) {
    PatchRectangle rectangle;
    double cells[GQA_MAP_CELLS];
    TRY(patch_rectangle(&rectangle, p->width, p->height, &r->model->preprocess, err));
    double sum = patch_map_cells(cells, GQA_MAP_SIDE, inspection->answer_map, inspection->grid,
                                 &rectangle, p->width, p->height);
    item->map = malloc(GQA_MAP_CELLS * sizeof *item->map);
    if (!item->map) return error_set(err, "out of memory for attention");
    for (int i = 0; i < GQA_MAP_CELLS; i++)
        item->map[i] = eval_map_value(sum > 0 ? cells[i] / sum : 1.0 / GQA_MAP_CELLS);
    return 0;
}

/* Denoises the answers of items order[0 .. count) in one call. */
static int denoise_items(Run *r, Tensor tokens, const AnswerRequest *requests,
                         const EvalImage *const *images, const int64_t *order, int64_t count,
                         Error *err) {
    Answers answers;
    if (multimodal_answer(r->model, tokens, requests, (int)count, &r->answer, &answers, err))
        return error_context(err, "batch of %lld %s (see --batch-tokens)", (long long)count,
                             r->config->what);
    timings_add(r->timings, &answers);
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        EvalItem *item = &r->items->items[order[i]];
        status = item_answered(item, &answers.items[i], err);
        item->answer = answers.items[i].text;
        if (item->answer) {
            const DecodeResult *best = &answers.results[answers.items[i].best];
            item->answer_length = best->length, item->score = eval_score_value(best->score);
        }
        answers.items[i].text = NULL;
        if (r->answer.inspection.attention && item->image && item->answer && status == 0)
            status = item_inspection(r, item, &answers.inspections[answers.items[i].best],
                                     images[requests[i].image], err);
    }
    answers_free(&answers);
    return status;
}

/* Chooses those of items that all have choices. */
static int choose_items(Run *r, Tensor tokens, const AnswerRequest *requests, const int64_t *order,
                        int64_t count, Error *err) {
    const ChoiceOptions options = answer_choice_options(&r->answer);
    Choices choices = {0};
    ChoiceRequest *asked = calloc((size_t)count, sizeof *asked);
    int status = asked ? 0 : error_set(err, "out of memory for the choices");
    for (int64_t i = 0; i < count && status == 0; i++) {
        const EvalItem *item = &r->items->items[order[i]];
        asked[i] = (ChoiceRequest){requests[i].prompt, requests[i].image, item->choices,
                                   item->choice_count};
    }
    if (status == 0)
        status = multimodal_choose(r->model, tokens, asked, (int)count, &options, &choices, err)
                     ? error_context(err, "batch of %lld %s (see --batch-tokens)", (long long)count,
                                     r->config->what)
                     : 0;
    if (status == 0) timings_add_choices(r->timings, &choices);
    for (int64_t i = 0; i < count && status == 0; i++) {
        EvalItem *item = &r->items->items[order[i]];
        const ChoiceAnswer *a = &choices.items[i];
        status = item_answered(item, &a->answer, err);
        if (status || a->answer.error) continue;
        const ChoiceScore *best = &a->scores[a->answer.best];
        double sum = best->score - best->length_score;
        item->answer = strdup(item->choices[a->answer.best]);
        if (!item->answer) status = error_set(err, "out of memory for an answer");
        item->answer_length = best->length, item->score = eval_score_value(sum / best->length);
    }
    choices_free(&choices);
    free(asked);
    return status;
}

/* Asks items order[0 .. count): those without choices in one call, those with choices in
 * another. */
static int answer_items(Run *r, Tensor tokens, const AnswerRequest *requests,
                        const EvalImage *const *images, const int64_t *order, int64_t count,
                        Error *err) {
    AnswerRequest *some = calloc((size_t)count, sizeof *some);
    int64_t *of = calloc((size_t)count, sizeof *of);
    int status = some && of ? 0 : error_set(err, "out of memory for a batch");
    for (int chosen = 0; chosen < 2 && status == 0; chosen++) {
        int64_t n = 0;
        for (int64_t i = 0; i < count; i++)
            if ((r->items->items[order[i]].choice_count > 0) == chosen)
                some[n] = requests[i], of[n++] = order[i];
        if (n)
            status = chosen ? choose_items(r, tokens, some, of, n, err)
                            : denoise_items(r, tokens, some, images, of, n, err);
    }
    free(some), free(of);
    return status;
}

/* Answers one batch; its readable images are encoded together. */
typedef struct Batch {
    Image *images;             /* [image_count]; the loader owns the pixels */
    const EvalImage **sources; /* [image_count] */
    int image_count;
    AnswerRequest *requests; /* [count] */
    int64_t *order;          /* [count] */
    int64_t count, gone;     /* items with a broken image are removed */
} Batch;

static void batch_free(Batch *b) {
    free(b->images), free(b->sources), free(b->requests), free(b->order);
}

static int batch_fill(Run *r, Batch *b, int64_t first, int64_t end, const EvalImage *read,
                      Error *err) {
    size_t units = (size_t)(end - first) + 1, items = 1;
    for (int64_t u = first; u < end; u++) items += (size_t)r->units[u].count;
    b->images = calloc(units, sizeof *b->images);
    b->sources = calloc(units, sizeof *b->sources);
    b->requests = calloc(items, sizeof *b->requests);
    b->order = calloc(items, sizeof *b->order);
    if (!b->images || !b->sources || !b->requests || !b->order)
        return error_set(err, "out of memory for a batch of %zu %s", items, r->config->what);
    for (int64_t u = first; u < end; u++) {
        const Unit *unit = &r->units[u];
        const EvalImage *image = unit->image ? read++ : NULL;
        bool bad = image && image->bad.text[0];
        for (int64_t i = unit->first; i < unit->first + unit->count; i++) {
            EvalItem *item = &r->items->items[r->order[i]];
            b->gone += bad;
            if (bad) TRY(eval_item_bad(item, "unreadable image", err, "%s", image->bad.text));
            if (bad) continue;
            b->order[b->count] = r->order[i];
            b->requests[b->count++] = (AnswerRequest){.prompt = item->prompt,
                                                      .image = image ? b->image_count : -1,
                                                      .length = item->length};
        }
        if (!image || bad) continue;
        b->sources[b->image_count] = image;
        b->images[b->image_count++] = image->image;
    }
    return 0;
}

/* Adds an answer to the score on the progress line. */
static int add_running(Run *r, int64_t index, Error *err) {
    const EvalRunning *running = &r->config->running;
    double score;
    if (!running->add || r->config->quiet) return 0;
    TRY(running->add(running->user, index, &score, err));
    eval_progress_score(&r->progress, running->name, score);
    return 0;
}

/* The answers of earlier parts of the run. */
static int add_earlier(Run *r, Error *err) {
    for (int64_t i = 0; i < r->items->count; i++)
        if (r->items->items[i].answer) TRY(add_running(r, i, err));
    return 0;
}

/* A unit larger than a batch is asked in several calls. */
static int batch_answer(Run *r, const Batch *b, Tensor tokens, Error *err) {
    for (int64_t first = 0, n; first < b->count; first += n) {
        int64_t rows = 0, image = -1;
        for (n = 0; first + n < b->count; n++) {
            rows += item_rows(r, &r->items->items[b->order[first + n]]);
            if (b->requests[first + n].image != image || n == 0)
                rows += 1 + (r->config->images ? image_rows(r) : 0);
            image = b->requests[first + n].image;
            if (n > 0 && rows > r->batch_rows) break;
        }
        const int64_t *order = b->order + first;
        TRY(answer_items(r, tokens, b->requests + first, b->sources, order, n, err));
        TRY(eval_store_append(r->store, r->items, order, n, err));
        for (int64_t i = 0; i < n; i++) TRY(add_running(r, order[i], err));
        eval_progress_add(&r->progress, n);
    }
    return 0;
}

static int batch_run(Run *r, int64_t first, int64_t end, const EvalImage *read, Error *err) {
    Batch b = {0};
    Tensor tokens = TENSOR_NONE;
    int status = batch_fill(r, &b, first, end, read, err);
    double start = clock_seconds();
    if (status == 0 && b.image_count)
        status = multimodal_encode(r->model, b.images, b.image_count, &tokens, err);
    if (status == 0 && b.image_count)
        status = device_wait(r->model->device, err); /* for the clock */
    r->timings->encode_s += clock_seconds() - start;
    r->timings->images += b.image_count;
    if (status == 0) status = batch_answer(r, &b, tokens, err);
    if (b.gone) eval_progress_add(&r->progress, b.gone);
    device_free(r->model->device, tokens.data);
    batch_free(&b);
    return status;
}

static int run_batches(Run *r, Error *err) {
    int64_t unit = 0, name = 0;
    for (int64_t i = 0; i < r->batch_count; i++) {
        EvalImage *images = NULL;
        int stop = signals_stop_asked();
        if (stop)
            return error_set(
                err,
                "stopped by %s: %lld of %lld %s were answered in this run and are kept "
                "in %s; the same command resumes",
                signals_name(stop), (long long)r->progress.done, (long long)r->asked,
                r->config->what, r->store->folder);
        if (r->loader) TRY(eval_loader_next(r->loader, &images, err));
        int status = batch_run(r, unit, r->batch_ends[i], images, err);
        eval_images_free(images, r->name_ends[i] - name);
        TRY(status);
        unit = r->batch_ends[i], name = r->name_ends[i];
    }
    return 0;
}

static int loader_start(Run *r, Error *err) {
    if (!r->batch_count || !r->name_ends[r->batch_count - 1]) return 0;
    /* A CPU that computes answers has one thread to spare for images; with a GPU it has more. */
    bool gpu = device_kind(r->model->device) == DEVICE_CUDA;
    int threads = gpu ? device_threads(r->model->device) : 1;
    EvalLoaderConfig config = {.folder = r->config->images,
                               .names = r->names,
                               .ends = r->name_ends,
                               .batches = r->batch_count,
                               .preprocess = r->model->preprocess,
                               .threads = threads};
    return eval_loader_open(&r->loader, &config, err);
}

int eval_run(const EvalRunConfig *config, EvalStore *store, EvalItems *items, Timings *timings,
             Error *err) {
    Run r = {.config = config,
             .model = &config->session->model.parts,
             .answer = config->answer,
             .store = store,
             .items = items,
             .timings = timings};
    if (r.answer.length_beam < 1) r.answer.length_beam = 1;
    if (r.answer.samples < 1) r.answer.samples = 1;
    int status = plan(&r, err);
    if (status == 0 && r.batch_rows < 4096) r.answer.batch_tokens = (int)r.batch_rows;
    if (status == 0) status = loader_start(&r, err);
    if (status == 0) {
        signals_catch_stop();
        eval_progress_begin(&r.progress, config->what, r.asked, config->quiet);
        status = add_earlier(&r, err);
        if (status == 0) status = run_batches(&r, err);
        eval_progress_end(&r.progress);
    }
    eval_loader_close(r.loader);
    free(r.order), free(r.units), free(r.batch_ends), free(r.name_ends), free(r.names);
    return status;
}
