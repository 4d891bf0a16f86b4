#include "apps/train/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/sets/prefetch.h"
#include "apps/train/loader_scenes.h"
#include "kernels/random.h"

enum { NOISE_STREAM = 0x6e6f6973 /* "nois": a step's noise has its own streams */ };

/* One unit while its step is built. */
typedef struct Loaded {
    Record record;
    Examples examples;
    const Example *example;
    float *pixels;
    void *features; /* if they are kept already */
    char key[FEATURE_KEY];
    uint64_t stream;
    bool bad;
    char kind[64], text[400]; /* if bad */
} Loaded;

static void loaded_free(Loaded *l) {
    record_free(&l->record);
    examples_free(&l->examples);
    free(l->pixels), free(l->features);
}

/* ---- One step. ---- */

static void loaded_bad(Loaded *l, const char *kind, const Error *err) {
    l->bad = true;
    snprintf(l->kind, sizeof l->kind, "%s", kind);
    snprintf(l->text, sizeof l->text, "%.399s", err->text);
}

/* Whether the image's features are kept: then it is not decoded. */
static int load_features(const LoaderConfig *c, const char *path, Loaded *l, Error *err) {
    if (!c->features || !feature_cache_key(l->key, path)) return 0;
    void *features = malloc(feature_cache_bytes(c->features));
    if (!features) return error_set(err, "out of memory for an image's features");
    if (feature_cache_read(c->features, l->key, features))
        l->features = features;
    else
        free(features);
    return 0;
}

/* A bad image affects only its unit. */
static int load_image(const LoaderConfig *c, int64_t unit, Loaded *l, Error *err) {
    char path[4096]; /* PATH_MAX: longer paths cannot be opened */
    int width, height;
    Error bad = {{0}};
    if (!records_image_path(dataset_file(c->dataset, unit), &l->record, path, sizeof path, &bad)) {
        TRY(load_features(c, path, l, err));
        if (!l->features) TRY(loader_image(c, path, &l->pixels, &width, &height, &bad, err));
    }
    if (!l->pixels && !l->features) loaded_bad(l, "unreadable image", &bad);
    return 0;
}

static int load_unit(const LoaderConfig *c, int64_t unit, Loaded *l, Error *err) {
    Error bad = {{0}};
    if (dataset_unit(c->dataset, unit, &l->record, &l->examples, &l->example, &bad)) {
        loaded_bad(l, "unreadable record", &bad);
        return 0;
    }
    return l->example->image ? load_image(c, unit, l, err) : 0;
}

static int load_units(const LoaderConfig *c, const BatchPlan *plan, int64_t epoch, int64_t first,
                      Loaded *loaded, int64_t count, Error *err) {
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
    for (int64_t i = 0; i < count; i++) {
        Error mine = {{0}};
        loaded[i].stream = random_stream(NOISE_STREAM, (uint64_t)(epoch + c->noise_epoch),
                                         (uint64_t)(first + i), 0);
        if (load_unit(c, plan->order[first + i], &loaded[i], &mine)) {
#pragma omp critical(loader_load)
            if (!failed) {
                failed = 1;
                if (err) *err = mine;
            }
        }
    }
    return failed ? -1 : 0;
}

/* Returns how many of the items [first, ...) fit into one micro-batch. */
static int pass_length(const LoaderConfig *c, const PackingItem *items, int count, int first) {
    TrainSizes sum = {0};
    int n = 0;
    for (; first + n < count; n++) {
        const Example *e = items[first + n].example;
        sum.tokens += packing_rows(&c->packing, e);
        sum.targets += packing_targets(&c->packing, e);
        sum.images += e->image;
        sum.prompts += c->packing.lengths ? e->count : 0;
        bool fits = sum.tokens <= c->pass.tokens && sum.targets <= c->pass.targets &&
                    sum.images <= c->pass.images && sum.prompts <= c->pass.prompts;
        if (!fits && n > 0) break;
    }
    return n;
}

static int step_pack(const LoaderConfig *c, const PackingItem *items, int count, LoaderStep *step,
                     Error *err) {
    step->passes = calloc((size_t)count + 1, sizeof *step->passes);
    if (!step->passes) return error_set(err, "out of memory for a training step");
    for (int first = 0; first < count;) {
        int n = pass_length(c, items, count, first);
        TrainBatch *pass = &step->passes[step->pass_count++];
        TRY(packing_build(pass, &c->packing, items + first, n, step->divisor, err));
        step->rows += pass->tokens;
        step->targets += pass->targets + pass->prompts;
        step->images += pass->images;
        first += n;
    }
    return 0;
}

/* Of all ranks, if no record is bad. */
static double planned_sequences(const LoaderConfig *c, const BatchPlan *plan, int64_t index) {
    int64_t sum = 0;
    for (int64_t i = plan->step_begin[index]; i < plan->step_begin[index + 1]; i++)
        sum += c->dataset->units[plan->order[i]].sequences;
    return (double)sum;
}

int loader_make_step(const LoaderConfig *c, const BatchPlan *plan, int64_t epoch, int64_t index,
                     LoaderStep *step, Error *err) {
    int64_t first, end;
    loader_units(c, plan, index, &first, &end);
    const int64_t count = end - first;
    if (c->dataset->scenes) return loader_make_scenes(c, plan, epoch, index, step, err);
    *step = (LoaderStep){.epoch = epoch, .index = index, .steps = plan->steps};
    Loaded *loaded = calloc((size_t)count + 1, sizeof *loaded);
    PackingItem *items = calloc((size_t)count + 1, sizeof *items);
    int status = loaded && items ? load_units(c, plan, epoch, first, loaded, count, err)
                                 : error_set(err, "out of memory for a training step");
    int used = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        const Loaded *l = &loaded[i];
        if (l->bad) {
            loader_count_bad(c->dataset, plan->order[first + i], &step->skipped, l->kind, l->text);
            continue;
        }
        items[used++] = (PackingItem){.example = l->example,
                                      .pixels = l->pixels,
                                      .features = l->features,
                                      .key = c->features ? l->key : NULL,
                                      .stream = l->stream};
        step->sequences += l->example->count;
        step->tokens += l->example->tokens;
    }
    step->parts = step->sequences;
    step->divisor = c->ranks > 1 ? planned_sequences(c, plan, index) : (double)step->sequences;
    if (status == 0) status = step_pack(c, items, used, step, err);
    for (int64_t i = 0; loaded && i < count; i++) loaded_free(&loaded[i]);
    free(loaded), free(items);
    if (status) loader_step_free(step);
    return status;
}

TrainSizes loader_unit_sizes(const Dataset *d, const PackingConfig *packing) {
    TrainSizes sizes = {.images = d->with_image > 0, .prompts = 1};
    bool shared = packing->pattern == ATTENTION_BLOCK_CAUSAL && !packing->lengths;
    int copies = packing->lengths ? 1 : noise_copies(&packing->noise);
    for (int64_t i = 0; i < d->count; i++) {
        const BatchUnit *u = &d->units[i];
        int head = 1 + (u->image ? packing->image_lead_count + packing->image_rows : 0);
        /* Turns that do not share their head have one each; see packing_rows. */
        int rows = copies * (u->tokens + (shared ? 0 : (u->sequences - 1) * head));
        if (rows > sizes.tokens) sizes.tokens = rows;
        if (u->sequences > sizes.prompts) sizes.prompts = u->sequences;
    }
    sizes.targets = sizes.tokens;
    return sizes;
}

/* ---- The thread. ---- */

struct Loader {
    LoaderConfig config;
    Prefetch *prefetch; /* of LoaderStep */
};

static void drop_step(void *thing) {
    loader_step_free(thing);
    free(thing);
}

static int make_steps(void *user, Prefetch *prefetch, Error *err) {
    const LoaderConfig *c = &((Loader *)user)->config;
    int64_t epoch = c->epoch, index = c->index;
    BatchPlan plan = {0};
    int status = 0;
    for (int64_t n = c->first_step; n < c->end_step && status == 0; n++) {
        /* Plans are made on demand; epochs without a remaining step are skipped. */
        while (status == 0 && (!plan.order || index >= plan.steps)) {
            if (plan.order) epoch++, index = 0;
            batches_free(&plan);
            status =
                batches_plan(&plan, c->dataset->units, c->dataset->count, &c->batches, epoch, err);
        }
        LoaderStep *step = calloc(1, sizeof *step);
        if (!step) status = error_set(err, "out of memory for a step");
        if (status == 0) status = loader_make_step(c, &plan, epoch, index, step, err);
        if (status) {
            free(step);
            break;
        }
        step->step = n;
        index++;
        if (!prefetch_put(prefetch, step)) break;
    }
    batches_free(&plan);
    return status;
}

/* Records before the first step were counted by the earlier part of the run: a bad one is named
 * now, and not counted again. */
static int mark_met(const LoaderConfig *c, Error *err) {
    const Dataset *d = c->dataset;
    bool all = c->epoch > 0 && !c->batches.weights; /* each unit once an epoch */
    for (int64_t i = 0; i < d->count && all; i++) d->counted[d->units[i].record] |= RECORD_BAD;
    for (int64_t epoch = 0; epoch <= c->epoch && !all; epoch++) {
        BatchPlan plan;
        if (epoch == c->epoch && c->index == 0) break;
        TRY(batches_plan(&plan, d->units, d->count, &c->batches, epoch, err));
        int64_t steps = epoch < c->epoch || c->index > plan.steps ? plan.steps : c->index;
        for (int64_t i = 0; i < plan.step_begin[steps]; i++)
            d->counted[d->units[plan.order[i]].record] |= RECORD_BAD;
        batches_free(&plan);
    }
    return 0;
}

int loader_open(Loader **loader, const LoaderConfig *config, Error *err) {
    *loader = NULL;
    TRY(mark_met(config, err));
    Loader *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    const PrefetchConfig prefetch = {
        .make = make_steps, .drop = drop_step, .user = f, .what = "training steps"};
    if (prefetch_open(&f->prefetch, &prefetch, err)) {
        free(f);
        return -1;
    }
    *loader = f;
    return 0;
}

int loader_next(Loader *f, LoaderStep *step, Error *err) {
    void *made;
    TRY(prefetch_next(f->prefetch, &made, err));
    *step = *(LoaderStep *)made;
    free(made);
    return 0;
}

void loader_close(Loader *f) {
    if (!f) return;
    prefetch_close(f->prefetch);
    free(f);
}
