/* bench_train.c - `easyfirst bench train`: the time of a training step of XLM-R base or large with
 * random weights, and its memory.
 *
 * full    everything is trained: forward, backward, the update of all weights
 * frozen  the weights are not: the first 256 rows of every sequence are an image's, and only their
 *         gradient is asked for, as when a projector is trained
 *
 * A step is a few sequences of equal length in one pass, a quarter of whose tokens are masked.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "kernels/matmul_peak.h"
#include "kernels/optimizer.h"
#include "language/xlmr_train.h"

static const CommandHelp help = {
    .name = "bench train",
    .usage = "[options]",
    .about =
        "Measures a training step of XLM-R with random weights: \"full\" trains everything,\n"
        "\"frozen\" only propagates gradients to an image's 256 rows, as when a projector is\n"
        "trained. Prints the median time of a step, tokens a second, the speed of its\n"
        "matmuls, and the memory: predicted for weights, gradients, moments and activations,\n"
        "and the peak that the system counted, or on a GPU what was taken of it. With --json also\n"
        "the speed of one large matmul, and a GPU's launches and bytes in a step.",
    .examples = "easyfirst bench train\n"
                "easyfirst bench train --model-name xlmr-large --dtype bf16 "
                "--activation-checkpointing",
};

enum { WORDS = 250002, POSITIONS = 514, IMAGE_ROWS = 256, MASKED = 4 /* one in so many */ };

typedef enum TrainBenchModel { MODEL_BASE, MODEL_LARGE } TrainBenchModel;

static const char *const model_names[] = {"xlmr-base", "xlmr-large", NULL};
static const char *const what_names[] = {"full", "frozen", NULL};

typedef struct TrainBench {
    TrainBenchModel model;
    Dtype dtype;
    int what; /* 0 full, 1 frozen; -1: both */
    const char *where;
    int tokens, sequences, runs, threads;
    bool json, recompute;
    Device *device;
    Xlmr xlmr;
    Params params;
    Optimizer optimizer;
    Arena arena;
    XlmrBatch batch;
    XlmrTargets targets;
    int32_t *ids, *positions, *image_rows, *rows, *target_ids;
    float *weights, *losses;
    AttentionSpan *spans;
    Tensor image_tokens, dimage_tokens;
    size_t predicted;
    size_t free_before; /* of a GPU's memory */
    double peak;        /* rate of a large matmul */
} TrainBench;

static int open_network(TrainBench *b, bool frozen, Error *err) {
    bool large = b->model == MODEL_LARGE;
    XlmrConfig config = {.vocab = WORDS,
                         .layers = large ? 24 : 12,
                         .positions = POSITIONS,
                         .block = {.width = large ? 1024 : 768,
                                   .heads = large ? 16 : 12,
                                   .ffn = large ? 4096 : 3072,
                                   .activation = ACTIVATION_GELU,
                                   .eps = 1e-5f}};
    Dtype compute = b->dtype;
    params_init(&b->params, b->device);
    TRY(xlmr_declare(&b->xlmr, &config, &b->params, err));
    TRY(params_allocate(&b->params, compute, err));
    params_initialise(&b->params, 0);
    params_freeze(&b->params, frozen);
    TRY(params_train(&b->params, compute, err));
    b->predicted = params_training_bytes(&b->params, compute) + optimizer_bytes(&b->params);
    if (device_kind(b->device) == DEVICE_CPU) b->predicted += b->params.block_size;
    OptimizerConfig adamw = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .clip = 1};
    TRY(optimizer_open(&b->optimizer, b->device, &adamw, err));
    return optimizer_add(&b->optimizer, &b->params, 1, err);
}

static int make_batch(TrainBench *b, bool frozen, Error *err) {
    int n = b->tokens * b->sequences, masked = 0;
    size_t size = (size_t)n;
    b->ids = calloc(size, sizeof *b->ids), b->positions = calloc(size, sizeof *b->positions);
    b->image_rows = calloc(size, sizeof *b->image_rows), b->rows = calloc(size, sizeof *b->rows);
    b->target_ids = calloc(size, sizeof *b->target_ids);
    b->weights = calloc(size, sizeof *b->weights), b->losses = calloc(size, sizeof *b->losses);
    b->spans = calloc((size_t)b->sequences, sizeof *b->spans);
    if (!b->ids || !b->positions || !b->image_rows || !b->rows || !b->target_ids || !b->weights ||
        !b->losses || !b->spans)
        return error_set(err, "out of memory for %d tokens", n);
    for (int i = 0; i < n; i++) {
        int place = i % b->tokens;
        bool image = frozen && place < IMAGE_ROWS;
        int32_t word = 5 + (int)((unsigned)i * 40503u % (unsigned)(WORDS - 6));
        b->image_rows[i] = image ? i / b->tokens * IMAGE_ROWS + place : -1;
        b->positions[i] = XLMR_FIRST_POSITION + place;
        b->ids[i] = image ? -1 : word;
        /* The end of each sequence, so that as many are masked in both kinds. */
        if (place < b->tokens - b->tokens / MASKED) continue;
        b->ids[i] = WORDS - 1;
        b->rows[masked] = i, b->target_ids[masked] = word;
        b->weights[masked++] = 1e-3f;
    }
    for (int s = 0; s < b->sequences; s++) {
        int begin = s * b->tokens, end = begin + b->tokens;
        b->spans[s] = (AttentionSpan){begin, end, 1, {{begin, end}}};
    }
    b->batch = (XlmrBatch){.tokens = n,
                           .ids = b->ids,
                           .positions = b->positions,
                           .plan = {.spans = b->spans, .span_count = b->sequences}};
    b->targets = (XlmrTargets){
        .count = masked, .rows = b->rows, .ids = b->target_ids, .weights = b->weights};
    return 0;
}

static int take_memory(TrainBench *b, bool frozen, const TrainRun *run, Error *err) {
    int64_t d = b->xlmr.config.block.width, images = frozen ? b->sequences * IMAGE_ROWS : 0;
    size_t bytes = xlmr_loss_bytes(&b->xlmr, b->batch.tokens, b->targets.count, run, frozen) +
                   2 * arena_bytes(DTYPE_F32, images, d);
    TRY(arena_open(&b->arena, b->device, bytes, err));
    b->predicted += bytes;
    if (!frozen) return 0;
    TRY(arena_take(&b->arena, &b->image_tokens, DTYPE_F32, images, d, err));
    TRY(arena_take(&b->arena, &b->dimage_tokens, DTYPE_F32, images, d, err));
    b->batch.image_rows = b->image_rows;
    b->batch.image_tokens = b->image_tokens;
    return device_clear(b->device, b->image_tokens.data, tensor_bytes(b->image_tokens), err);
}

static int one_step(TrainBench *b, bool frozen, TrainRun run, uint64_t step, Error *err) {
    double norm;
    run.stream = step;
    if (frozen)
        TRY(device_clear(b->device, b->dimage_tokens.data, tensor_bytes(b->dimage_tokens), err));
    TRY(xlmr_loss(&b->xlmr, &b->arena, &b->batch, &b->targets, &run, b->losses, b->dimage_tokens,
                  err));
    return frozen ? 0 : optimizer_step(&b->optimizer, 1e-5, &norm, err);
}

/* Matmuls: forward, gradients of rows, and in "full" of weights. */
static double operations(const TrainBench *b, bool frozen) {
    const XlmrConfig *c = &b->xlmr.config;
    double d = c->block.width, f = c->block.ffn;
    double blocks = (double)b->batch.tokens * (4 * d * d + 2 * d * f) * c->layers;
    double head = (double)b->targets.count * (d * d + d * c->vocab);
    return 2 * (frozen ? 2 : 3) * (blocks + head);
}

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the process, or of the GPU, where nothing that a step takes is given back before its end. */
static size_t memory_taken(const TrainBench *b) {
    size_t free_bytes, total;
    if (!device_memory(b->device, &free_bytes, &total)) return peak_memory();
    return b->free_before > free_bytes ? b->free_before - free_bytes : 0;
}

/* `used` is of one step. */
static int print_times(const TrainBench *b, bool frozen, double *times, DeviceCounters used,
                       Error *err) {
    int n = b->runs;
    size_t taken = memory_taken(b);
    qsort(times, (size_t)n, sizeof *times, compare_times);
    double s = n % 2 ? times[n / 2] : (times[n / 2 - 1] + times[n / 2]) / 2;
    double tokens = (double)b->batch.tokens / s, rate = 1e-9 * operations(b, frozen) / s;
    const char *what = what_names[frozen], *dtype = dtype_name(b->params.compute);
    char name[64];
    snprintf(name, sizeof name, "%s train %s", model_names[b->model], what);
    if (b->json) {
        json_t *line = json_pack(
            "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, "
            "s:I}",
            "name", name, "dtype", dtype, "device", device_text(b->device), "threads",
            device_threads(b->device), "tokens", b->tokens, "sequences", b->sequences, "runs", n,
            "ms_median", 1e3 * s, "ms_min", 1e3 * times[0], "ms_max", 1e3 * times[n - 1],
            "tokens_per_s", tokens, "gflops", rate, "peak_gflops", 1e-9 * b->peak, "predicted_mb",
            1e-6 * (double)b->predicted, "peak_mb", 1e-6 * (double)taken, "launches",
            (json_int_t)used.launches, "bytes_up", (json_int_t)used.bytes_up, "bytes_down",
            (json_int_t)used.bytes_down);
        TRY(json_print_line(line, 6, err));
    } else {
        printf("%-24s %-5s %5d  %9.1f %9.1f %9.1f  %9.1f  %8.1f  %9.0f  %8.0f\n", name, dtype,
               b->batch.tokens, 1e3 * s, 1e3 * times[0], 1e3 * times[n - 1], tokens, rate,
               1e-6 * (double)b->predicted, 1e-6 * (double)taken);
    }
    return report_flush(err);
}

static int measure(TrainBench *b, bool frozen, Error *err) {
    TrainRun run = {.dropout = 0.1f, .seed = 1, .recompute = b->recompute, .backward = true};
    DeviceCounters before = {0}, used;
    TRY(open_network(b, frozen, err));
    TRY(make_batch(b, frozen, err));
    TRY(take_memory(b, frozen, &run, err));
    double *times = calloc((size_t)b->runs, sizeof *times);
    int status = times ? 0 : error_set(err, "out of memory");
    for (int i = -1; i < b->runs && status == 0;
         i++) { /* the first one compiles and touches pages */
        before = device_counters(b->device);
        double t0 = clock_seconds();
        status = one_step(b, frozen, run, (uint64_t)(i + 1), err) || device_wait(b->device, err);
        if (i >= 0) times[i] = clock_seconds() - t0;
    }
    used = device_counters(b->device);
    used.launches -= before.launches;
    used.bytes_up -= before.bytes_up, used.bytes_down -= before.bytes_down;
    if (status == 0) status = print_times(b, frozen, times, used, err);
    free(times);
    return status;
}

static void bench_close(TrainBench *b) {
    arena_close(&b->arena);
    optimizer_close(&b->optimizer);
    params_free(&b->params);
    xlmr_free(&b->xlmr);
    free(b->ids), free(b->positions), free(b->image_rows), free(b->rows), free(b->target_ids);
    free(b->weights), free(b->losses), free(b->spans);
    device_close(b->device);
}

static int run(TrainBench *b, bool frozen, Error *err) {
    size_t total;
    int status = device_choose(&b->device, b->where, b->threads, err);
    if (status == 0 && b->dtype == DTYPE_BF16 && !device_has_bf16(b->device))
        status = error_set(err, "this device (%s) has no bf16 arithmetic", device_text(b->device));
    if (status == 0 && b->json) status = matmul_peak(b->device, b->dtype, &b->peak, err);
    if (status == 0) {
        device_memory(b->device, &b->free_before, &total);
        status = measure(b, frozen, err);
    }
    bench_close(b);
    return status;
}

int command_bench_train(int argc, char **argv) {
    TrainBench b = {.dtype = DTYPE_F32, .what = -1, .tokens = 512, .sequences = 4, .runs = 5};
    OptionGroup group = {
        .title = "options",
        .options = {
            {"model-name", 0, OPTION_CHOICE, NULL, &b.model, "which sizes (default xlmr-base)",
             .names = model_names},
            {"what", 0, OPTION_CHOICE, NULL, &b.what, "one of the two (default: both)",
             .names = what_names},
            {"tokens", 0, OPTION_INTEGER, "N", &b.tokens, "of a sequence (default 512)",
             IMAGE_ROWS + IMAGE_ROWS / 2, POSITIONS - XLMR_FIRST_POSITION},
            {"sequences", 0, OPTION_INTEGER, "N", &b.sequences, "in a step (default 4)", 1, 1024},
            {"runs", 0, OPTION_INTEGER, "N", &b.runs,
             "steps that are timed, after one that is not (default 5)", 1, 100000},
            {"dtype", 0, OPTION_CHOICE, NULL, &b.dtype, "arithmetic (default f32)", DTYPE_F32,
             .names = dtype_choices},
            {"activation-checkpointing", 0, OPTION_FLAG, NULL, &b.recompute,
             "keep the blocks' inputs only, and run them again for the\nbackward"},
            device_option(&b.where),
            threads_option(&b.threads),
            {"json", 0, OPTION_FLAG, NULL, &b.json, "one JSON object a line"}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status < 0 && first < argc)
        status = options_wrong(&help, "it takes options only, not \"%s\"", argv[first]);
    if (status >= 0) return status;
    if (!b.json)
        printf("%-24s %-5s %5s  %9s %9s %9s  %9s  %8s  %9s  %8s\n", "step", "dtype", "rows",
               "ms median", "min", "max", "tokens/s", "GFLOP/s", "predicted", "peak MB");
    Error err;
    status = 0;
    /* The smaller one first: the peak of a process never falls. */
    for (int frozen = 1; frozen >= 0 && status == 0; frozen--) {
        TrainBench one = b;
        if (b.what >= 0 && frozen != b.what) continue;
        status = run(&one, frozen, &err);
    }
    if (status) report_failure(&err);
    return status ? 1 : 0;
}
