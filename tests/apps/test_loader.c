/* Data on their way into training: the same steps from wherever a run is taken up, bad units left
 * out, and passes that add up. */
#include "apps/train/settings.h"
#include "apps/train/trainer.h"
#include "tests/llava_set.h"

#include <math.h>

#define MODEL "tests/golden/models/tiny-base"

/* A model as `easyfirst train tune` opens it, and one dataset. */
typedef struct Bench {
    char folder[256];
    LlavaSet set;
    TrainSettings settings;
    Device *device;
    TrainModel model;
    Dataset data;
    LoaderConfig config;
} Bench;

static void bench_open(Bench *b, const char *attention) {
    Error err;
    *b = (Bench){0};
    temporary_folder(b->folder, sizeof b->folder);
    llava_set_make(&b->set, b->folder, 20);
    char *argv[] = {"train",
                    "tune",
                    "-m",
                    MODEL,
                    "--data",
                    b->set.conversations,
                    "--images",
                    b->set.images,
                    "--out",
                    b->folder,
                    "--attention",
                    (char *)attention,
                    "--dtype",
                    "f32",
                    "--dropout",
                    "0",
                    "--new-projector",
                    "mlp2x_gelu",
                    "--batch-sequences",
                    "14"};
    assert_int_equal(train_settings_read(&b->settings, sizeof argv / sizeof argv[0], argv), -1);
    assert_ok(train_settings_check(&b->settings, &err), &err);
    assert_ok(device_open(&b->device, &(DeviceOptions){.kind = DEVICE_CPU, .threads = 1}, &err),
              &err);
    assert_ok(train_model_open(&b->model, &b->settings, b->device, &err), &err);
}

static DatasetOptions dataset_options(const Bench *b, double max_bad_fraction) {
    return (DatasetOptions){.records = {.images = b->set.images, .check_images = true},
                            .example = trainer_examples(&b->model, &b->settings),
                            .max_bad_fraction = max_bad_fraction};
}

static void bench_data(Bench *b, const char *path, double max_bad_fraction) {
    Error err;
    DatasetOptions options = dataset_options(b, max_bad_fraction);
    assert_ok(dataset_open(&b->data, &path, 1, &options, &err), &err);
    b->config = (LoaderConfig){.dataset = &b->data,
                               .batches = {.sequences = b->settings.batch_sequences, .seed = 3},
                               .packing = trainer_packing(&b->model, &b->settings),
                               .preprocess = b->model.model.parts.preprocess};
    TrainSizes unit = loader_unit_sizes(&b->data, &b->config.packing);
    b->config.pass = train_model_sizes(&b->settings, &unit, b->config.packing.image_rows);
}

static void bench_close(Bench *b) {
    dataset_close(&b->data);
    train_model_close(&b->model);
    device_close(b->device);
    train_settings_free(&b->settings);
    temporary_remove(b->folder);
}

static void assert_same_step(const LoaderStep *a, const LoaderStep *b) {
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->sequences, b->sequences);
    assert_int_equal(a->pass_count, b->pass_count);
    for (int i = 0; i < a->pass_count; i++) {
        const TrainBatch *x = &a->passes[i], *y = &b->passes[i];
        size_t n = (size_t)x->tokens * sizeof(int32_t), t = (size_t)x->targets;
        assert_int_equal(x->tokens, y->tokens);
        assert_int_equal(x->targets, y->targets);
        assert_int_equal(x->images, y->images);
        assert_memory_equal(x->ids, y->ids, n);
        assert_memory_equal(x->positions, y->positions, n);
        assert_memory_equal(x->rows, y->rows, t * sizeof(int32_t));
        assert_memory_equal(x->target_ids, y->target_ids, t * sizeof(int32_t));
        assert_memory_equal(x->weights, y->weights, t * sizeof(float));
        if (x->images)
            assert_memory_equal(x->pixels, y->pixels,
                                (size_t)x->images * 3 * 28 * 28 * sizeof(float));
    }
}

/* Steps over three epochs; then again from every one of them on. */
static void test_same_steps(void **state) {
    (void)state;
    enum { STEPS = 11 };
    Bench b;
    Error err;
    Loader *loader;
    LoaderStep first[STEPS], again;
    bench_open(&b, "full");
    bench_data(&b, b.set.conversations, 0);
    b.config.end_step = STEPS;
    assert_ok(loader_open(&loader, &b.config, &err), &err);
    for (int i = 0; i < STEPS; i++) assert_ok(loader_next(loader, &first[i], &err), &err);
    assert_refused(loader_next(loader, &again, &err), &err, "no more");
    loader_close(loader);
    assert_true(first[STEPS - 1].epoch >= 2);
    const TrainBatch *x = &first[0].passes[0], *y = &first[1].passes[0];
    assert_false(x->tokens == y->tokens &&
                 !memcmp(x->ids, y->ids, (size_t)x->tokens * sizeof(int32_t)));
    for (int from = 0; from < STEPS; from += 3) {
        LoaderConfig config = b.config;
        config.first_step = from;
        /* As a checkpoint has it: after step n stands index + 1, in its epoch. */
        if (from > 0)
            config.epoch = first[from - 1].epoch, config.index = first[from - 1].index + 1;
        config.threads = from % 2 + 1;
        assert_ok(loader_open(&loader, &config, &err), &err);
        for (int i = from; i < STEPS && i < from + 4; i++) {
            assert_ok(loader_next(loader, &again, &err), &err);
            assert_same_step(&first[i], &again);
            loader_step_free(&again);
        }
        loader_close(loader); /* with steps that were not taken */
    }
    for (int i = 0; i < STEPS; i++) loader_step_free(&first[i]);
    bench_close(&b);
}

/* The GIF that is called a JPEG is found when it is decoded: its step goes on without it. */
static void test_bad_units(void **state) {
    (void)state;
    Bench b;
    Error err;
    BatchPlan plan;
    bench_open(&b, "full");
    bench_data(&b, b.set.broken, 1);
    assert_ok(batches_plan(&plan, b.data.units, b.data.count, &b.config.batches, 0, &err), &err);
    int64_t sequences = 0, bad = 0;
    for (int64_t i = 0; i < plan.steps; i++) {
        LoaderStep step;
        assert_ok(loader_make_step(&b.config, &plan, 0, i, &step, &err), &err);
        sequences += step.sequences, bad += step.skipped.total;
        if (step.skipped.total && !strstr(step.skipped.kinds[0].first, "gif.jpg"))
            fail_msg("the image is not named: %s", step.skipped.kinds[0].first);
        loader_step_free(&step);
    }
    assert_int_equal(bad, 1);
    assert_int_equal(sequences, b.data.count - 1);
    /* The scan names file and record of what it left out. */
    bool named = false;
    for (int i = 0; i < b.data.skipped.kind_count; i++)
        named |= strstr(b.data.skipped.kinds[i].first, "broken.json: ") != NULL;
    assert_true(named);
    batches_free(&plan);
    bench_close(&b);
}

/* Conversations over images that cannot be decoded: each record counts when it is met first, not
 * with each turn or in each epoch, and not again if it was counted for an empty answer. */
static void test_counted_once(void **state) {
    (void)state;
    Bench b;
    Error err;
    char path[400];
    bench_open(&b, "full");
    FILE *f = fopen(strcat(strcpy(path, b.folder), "/turns.json"), "w");
    assert_non_null(f);
    for (int i = 0; i < 9; i++)
        fprintf(
            f,
            "%s{\"id\": %d, \"image\": \"shapes/%s\", \"conversations\": [{\"from\": \"human\","
            "\"value\": \"<image>What?\"}, {\"from\": \"gpt\", \"value\": \"red\"}, {\"from\": "
            "\"human\", \"value\": \"And?\"}, {\"from\": \"gpt\", \"value\": \"%s\"}, {\"from\": "
            "\"human\", \"value\": \"So?\"}, {\"from\": \"gpt\", \"value\": \"blue\"}]}",
            i ? "," : "[", i, i % 3 ? "00001.png" : "gif.jpg", i == 3 || i == 4 ? " " : "sky");
    fputs("]", f);
    assert_int_equal(fclose(f), 0);
    bench_data(&b, path, 1);
    assert_int_equal(b.data.samples, 9);
    assert_int_equal(b.data.skipped.total, 2); /* 3 and 4, for their empty answers */
    assert_int_equal(b.data.count, 9 * 3 - 2);
    Skipped all = {0};
    for (int epoch = 0; epoch < 3; epoch++) {
        BatchPlan plan;
        assert_ok(batches_plan(&plan, b.data.units, b.data.count, &b.config.batches, epoch, &err),
                  &err);
        for (int64_t i = 0; i < plan.steps; i++) {
            LoaderStep step;
            assert_ok(loader_make_step(&b.config, &plan, epoch, i, &step, &err), &err);
            skipped_merge(&all, &step.skipped);
            loader_step_free(&step);
        }
        batches_free(&plan);
        assert_int_equal(all.total, 2); /* 0 and 6; 3 is counted already */
        assert_int_equal(all.kind_count, 1);
        assert_int_equal(all.kinds[0].count, 3);
    }
    bench_close(&b);
}

/* A run that is taken up counts what its earlier part has not met, and names the rest. */
static void test_counted_once_resumed(void **state) {
    (void)state;
    enum { STEPS = 6 };
    Bench b;
    Error err;
    double weights[] = {1};
    bench_open(&b, "full");
    for (int weighted = 0; weighted < 2; weighted++)
        for (int from = 0; from <= STEPS; from++) {
            Skipped parts[2] = {{.total = 0}, {.total = 0}};
            int64_t epoch = 0, index = 0;
            for (int part = 0; part < 2; part++) {
                Loader *loader;
                bench_data(&b, b.set.broken, 1);
                b.config.batches.sequences = 14;
                b.config.batches.weights = weighted ? weights : NULL;
                b.config.batches.sources = weighted;
                b.config.first_step = part ? from : 0, b.config.end_step = part ? STEPS : from;
                b.config.epoch = epoch, b.config.index = index;
                assert_ok(loader_open(&loader, &b.config, &err), &err);
                for (int64_t i = b.config.first_step; i < b.config.end_step; i++) {
                    LoaderStep step;
                    assert_ok(loader_next(loader, &step, &err), &err);
                    skipped_merge(&parts[part], &step.skipped);
                    epoch = step.epoch, index = step.index + 1;
                    loader_step_free(&step);
                }
                loader_close(loader);
                dataset_close(&b.data);
            }
            assert_true(epoch >= 1); /* all were met */
            assert_int_equal(parts[0].total + parts[1].total, 1);
        }
    bench_close(&b);
}

/* ---- Passes. ---- */

typedef struct Sum {
    double loss;
    float *grad[4];
    size_t flat[4];
    int passes;
} Sum;

static void run_step(Bench *b, Arena *arena, int micro_batch_tokens, int64_t index, Sum *sum) {
    Error err;
    BatchPlan plan;
    LoaderStep step;
    static float losses[4096];
    LoaderConfig config = b->config;
    if (micro_batch_tokens > 0)
        config.pass = (TrainSizes){micro_batch_tokens, micro_batch_tokens, 1, 0};
    assert_ok(batches_plan(&plan, b->data.units, b->data.count, &config.batches, 0, &err), &err);
    assert_ok(loader_make_step(&config, &plan, 0, index, &step, &err), &err);
    TrainRun run = {.backward = true};
    *sum = (Sum){.passes = step.pass_count};
    for (int i = 0; i < step.pass_count; i++) {
        if (step.passes[i].tokens == 0) continue;
        assert_true(step.passes[i].targets <= 4096);
        assert_ok(train_micro_batch(&b->model.context, arena, &step.passes[i], &run, losses, &err),
                  &err);
        for (int t = 0; t < step.passes[i].targets; t++) sum->loss += losses[t];
    }
    Optimizer *o = &b->model.optimizer;
    for (int i = 0; i < o->part_count; i++) {
        size_t n = sum->flat[i] = (size_t)o->parts[i].params->flat;
        sum->grad[i] = malloc(n * sizeof(float) + 1);
        assert_ok(device_download(b->device, sum->grad[i], o->parts[i].params->grad,
                                  n * sizeof(float), &err),
                  &err);
        assert_ok(device_clear(b->device, o->parts[i].params->grad, n * sizeof(float), &err), &err);
    }
    loader_step_free(&step);
    batches_free(&plan);
}

/* One pass, or one for each unit: the same loss, the same gradients. */
static void passes_add_up(const char *attention) {
    Bench b;
    Error err;
    Arena arena = {0};
    Sum whole, parts;
    bench_open(&b, attention);
    bench_data(&b, b.set.conversations, 0);
    assert_ok(train_model_prepare(&b.model, &b.settings, true, NULL, &err), &err);
    TrainRun run = {.backward = true};
    assert_ok(
        arena_open(&arena, b.device, train_bytes(&b.model.context, &b.config.pass, &run), &err),
        &err);
    run_step(&b, &arena, 0, 1, &whole);
    run_step(&b, &arena, 1, 1, &parts);
    if (parts.passes < 4 * whole.passes)
        fail_msg("%s: %d passes and %d", attention, whole.passes, parts.passes);
    double error = fabs(parts.loss - whole.loss) / fabs(whole.loss);
    if (!(error <= 1e-6)) fail_msg("%s: loss %.9g, %.9g", attention, whole.loss, parts.loss);
    for (int i = 0; i < b.model.optimizer.part_count; i++) {
        assert_close(parts.grad[i], whole.grad[i], whole.flat[i], 1e-6, attention);
        free(parts.grad[i]), free(whole.grad[i]);
    }
    arena_close(&arena);
    bench_close(&b);
}

static void test_passes_full(void **state) {
    (void)state;
    passes_add_up("full");
}

static void test_passes_blocks(void **state) {
    (void)state;
    passes_add_up("block-causal");
}

/* Under block attention an image's turns are one packed sequence; each turn as a sequence of its
 * own has the same loss and the same gradients. With one timestep all of an answer is masked, so
 * that both see the same noise. */
static void test_turns_packed(void **state) {
    (void)state;
    Bench b;
    Error err;
    Sum sum[2];
    Arena arena = {0};
    bench_open(&b, "block-causal");
    b.settings.noise.timesteps = 1;
    assert_ok(train_model_prepare(&b.model, &b.settings, true, NULL, &err), &err);
    for (int alone = 0; alone < 2; alone++) {
        const char *path = b.set.conversations;
        bench_data(&b, path, 0);
        dataset_close(&b.data);
        DatasetOptions options = dataset_options(&b, 0);
        assert_true(options.example.together);
        options.example.together = !alone;
        assert_ok(dataset_open(&b.data, &path, 1, &options, &err), &err);
        b.config.batches.sequences = 1000;
        b.config.batches.in_order = true;
        TrainRun run = {.backward = true};
        size_t bytes = train_bytes(&b.model.context, &b.config.pass, &run);
        assert_ok(arena_open(&arena, b.device, bytes, &err), &err);
        run_step(&b, &arena, 0, 0, &sum[alone]);
        arena_close(&arena);
        print_message("note: %s: %lld units\n", alone ? "turns alone" : "turns packed",
                      (long long)b.data.count);
        dataset_close(&b.data);
    }
    double error = fabs(sum[1].loss - sum[0].loss) / fabs(sum[1].loss);
    if (!(error <= 1e-6)) fail_msg("loss %.9g packed, %.9g alone", sum[0].loss, sum[1].loss);
    for (int i = 0; i < b.model.optimizer.part_count; i++) {
        assert_close(sum[0].grad[i], sum[1].grad[i], sum[1].flat[i], 1e-6, "turns packed");
        free(sum[0].grad[i]), free(sum[1].grad[i]);
    }
    bench_close(&b);
}

/* ---- Large records, and limits. ---- */

static FILE *file_in(const Bench *b, const char *name, char *path, size_t size) {
    snprintf(path, size, "%s/%s", b->folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    return f;
}

/* An image with hundreds of questions becomes several units that a pass of usual size can take. */
static void test_many_turns(void **state) {
    (void)state;
    enum { TURNS = 300 };
    Bench b;
    Error err;
    char path[400];
    bench_open(&b, "block-causal");
    FILE *f = file_in(&b, "many.json", path, sizeof path);
    fputs("[{\"id\": 1, \"image\": \"shapes/00001.png\", \"conversations\": [", f);
    for (int i = 0; i < TURNS; i++)
        fprintf(f,
                "%s{\"from\": \"human\", \"value\": \"What colour is it?\"}, {\"from\": \"gpt\", "
                "\"value\": \"red\"}",
                i ? ", " : "");
    fputs("]}]", f);
    assert_int_equal(fclose(f), 0);
    bench_data(&b, path, 0);
    int longest = trainer_examples(&b.model, &b.settings).longest, turns = 0;
    assert_true(b.data.count > 1);
    for (int64_t i = 0; i < b.data.count; i++) {
        Record record = {0};
        Examples examples = {0};
        const Example *example;
        assert_true(b.data.units[i].tokens <= 2 * longest);
        assert_ok(dataset_unit(&b.data, i, &record, &examples, &example, &err), &err);
        assert_int_equal(example->tokens, b.data.units[i].tokens);
        assert_int_equal(example->count, b.data.units[i].sequences);
        turns += example->count;
        record_free(&record), examples_free(&examples);
    }
    assert_int_equal(turns, TURNS);
    TrainSizes unit = loader_unit_sizes(&b.data, &b.config.packing);
    assert_true(unit.tokens <= 4 * longest);
    bench_close(&b);
}

/* Bad records are weighed against all of the file, not only against what is used of it. */
static void test_limited(void **state) {
    (void)state;
    Bench b;
    Error err;
    char name[400];
    const char *path = name;
    bench_open(&b, "full");
    FILE *f = file_in(&b, "some.jsonl", name, sizeof name);
    for (int i = 0; i < 300; i++)
        fputs(i % 150 == 149 ? "{\"inputs\": 7, \"targets\": \"b\"}\n"
                             : "{\"inputs\": \"a dog\", \"targets\": \"b\"}\n",
              f);
    assert_int_equal(fclose(f), 0);
    DatasetOptions options = dataset_options(&b, 0.01);
    options.limit = 10;
    assert_ok(dataset_open(&b.data, &path, 1, &options, &err), &err);
    assert_int_equal(b.data.count, 10);
    dataset_close(&b.data);
    options.max_bad_fraction = 0.005;
    assert_refused(dataset_open(&b.data, &path, 1, &options, &err), &err, "some.jsonl", "300");
    bench_close(&b);
}

static double weights_of(const LoaderStep *step) {
    double sum = 0;
    for (int i = 0; i < step->pass_count; i++)
        for (int k = 0; k < step->passes[i].targets; k++) sum += (double)step->passes[i].weights[k];
    return sum;
}

/* Ranks divide a step: every unit once, in order, the same weights, whatever their number. */
static void test_ranks(void **state) {
    (void)state;
    Bench b;
    Error err;
    BatchPlan plan;
    bench_open(&b, "full");
    bench_data(&b, b.set.conversations, 0);
    assert_ok(batches_plan(&plan, b.data.units, b.data.count, &b.config.batches, 0, &err), &err);
    for (int ranks = 1; ranks <= 9; ranks += 2) {
        LoaderConfig config = b.config;
        const int64_t index = ranks % plan.steps;
        int64_t at = plan.step_begin[index], sequences = 0, tokens = 0;
        double weights = 0;
        LoaderStep whole, part;
        assert_ok(loader_make_step(&config, &plan, 0, index, &whole, &err), &err);
        config.ranks = ranks;
        for (config.rank = 0; config.rank < ranks; config.rank++) {
            int64_t first, end;
            loader_units(&config, &plan, index, &first, &end);
            if (first < end) assert_int_equal(first, at);
            if (first < end) at = end;
            assert_ok(loader_make_step(&config, &plan, 0, index, &part, &err), &err);
            sequences += part.sequences, tokens += part.tokens, weights += weights_of(&part);
            assert_true(part.divisor == (double)whole.sequences);
            loader_step_free(&part);
        }
        assert_int_equal(at, plan.step_begin[index + 1]);
        assert_int_equal(sequences, whole.sequences);
        assert_int_equal(tokens, whole.tokens);
        assert_true(fabs(weights - weights_of(&whole)) <= 1e-9 * weights);
        loader_step_free(&whole);
    }
    batches_free(&plan);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_steps),
        cmocka_unit_test(test_bad_units),
        cmocka_unit_test(test_passes_full),
        cmocka_unit_test(test_passes_blocks),
        cmocka_unit_test(test_turns_packed),
        cmocka_unit_test(test_many_turns),
        cmocka_unit_test(test_limited),
        cmocka_unit_test(test_counted_once),
        cmocka_unit_test(test_counted_once_resumed),
        cmocka_unit_test(test_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
