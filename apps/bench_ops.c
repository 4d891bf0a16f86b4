/* bench_ops.c - `easyfirst bench ops`: the time of each operation by itself, beside what the device
 * could do at most.
 *
 * Two limits are measured first: the rate of a large matmul, and that of a large copy. An
 * operation takes at least the longer of the two times that its arithmetic and its bytes need at
 * these rates; its share is that time by its own.
 */
#include "apps/bench_ops.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "kernels/matmul_peak.h"
#include "kernels/nearest_word.h"

static const CommandHelp help = {
    .name = "bench ops",
    .usage = "[options]",
    .about =
        "Measures every operation of kernels/ops.h by itself, forward and backward, on the shapes\n"
        "of vit-l-14 (257 rows), xlmr-base and xlmr-xxl (--tokens rows). Prints the median time\n"
        "of a call, and the least; the bytes that it moves, each input read once and each output\n"
        "written once; the rates of these bytes and of its arithmetic; and its share of the\n"
        "device's measured limit, which is the rate of a large matmul (\"matmul\") or\n"
        "that of a large copy (\"memory\"), whichever takes the operation longer. What fits into\n"
        "a cache can exceed the rate of the copy. Linear layers are four: query, key and value;\n"
        "the output; the two of the feed-forward part. Logits are of 8 rows, the cross-entropy is\n"
        "of a quarter of the rows. Cases for which there is too little memory are named and left\n"
        "out.",
    .examples = "easyfirst bench ops --model-name xlmr-base\n"
                "easyfirst bench ops --op attention_forward --dtype bf16 --json\n"
                "easyfirst bench ops --device cuda --tokens 512",
};

/* ---- Measuring. ---- */

enum { CALLS_MOST = 1000, COPY_VALUES = 32 << 20, COPY_RUNS = 7 };
static const double SAMPLE_SECONDS = 2e-3; /* long beside the clock, and beside one launch */

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one of `calls` calls. */
static int time_calls(OpWork *work, const OpCase *c, int calls, double *seconds, Error *err) {
    const double begin = clock_seconds();
    for (int i = 0; i < calls; i++) TRY(c->run(work, err));
    TRY(device_wait(work->device, err));
    *seconds = (clock_seconds() - begin) / calls;
    return 0;
}

static int time_samples(OpWork *work, const OpCase *c, double *samples, int runs, Error *err) {
    double once = 0;
    for (int i = 0; i < 2; i++) TRY(time_calls(work, c, 1, &once, err)); /* the first one warms */
    const double calls = once > 0 ? SAMPLE_SECONDS / once + 1 : CALLS_MOST;
    for (int i = 0; i < runs; i++)
        TRY(time_calls(work, c, calls < CALLS_MOST ? (int)calls : CALLS_MOST, &samples[i], err));
    return 0;
}

static int time_work(OpResult *result, OpWork *work, const OpCase *c, int runs, Error *err) {
    TRY(op_work_open(work, c, err));
    double *samples = calloc((size_t)runs, sizeof *samples);
    if (!samples) return error_set(err, "out of memory");
    const int status = time_samples(work, c, samples, runs, err);
    qsort(samples, (size_t)runs, sizeof *samples, compare_times);
    result->ms = 1e3 * (samples[(runs - 1) / 2] + samples[runs / 2]) / 2;
    result->ms_min = 1e3 * samples[0], result->ms_max = 1e3 * samples[runs - 1];
    result->bytes = work->bytes, result->operations = work->operations;
    free(samples);
    return status;
}

/* Of the device; what packs take there is counted with what is on the host. */
static size_t memory_free(Device *device) {
    size_t free_bytes, total;
    if (device_memory(device, &free_bytes, &total)) return free_bytes;
    return (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

int op_case_time(OpResult *result, const OpCase *c, Device *device, const OpShapes *shapes,
                 Dtype compute, int variant, int runs, Error *err) {
    OpWork work;
    *result = (OpResult){0};
    int status = op_work_plan(&work, c, device, shapes, compute, variant, err);
    memcpy(result->shape, work.shape, sizeof result->shape);
    result->needed = work.memory + work.host_bytes;
    result->skipped = result->needed > memory_free(device) / 10 * 9;
    if (status == 0 && !result->skipped) status = time_work(result, &work, c, runs, err);
    op_work_close(&work);
    return status ? error_context(err, "%s", c->op) : 0;
}

static int copy_times(Device *device, Arena *arena, double *best, Error *err) {
    Tensor x, y;
    TRY(arena_take(arena, &x, DTYPE_F32, 1, COPY_VALUES, err));
    TRY(arena_take(arena, &y, DTYPE_F32, 1, COPY_VALUES, err));
    TRY(device_clear(device, x.data, tensor_bytes(x), err));
    for (int i = 0; i < COPY_RUNS; i++) {
        const double begin = clock_seconds();
        TRY(convert_forward(device, y, x, err));
        TRY(device_wait(device, err));
        const double seconds = clock_seconds() - begin;
        if (i == 1 || (i > 1 && seconds < *best)) *best = seconds; /* the first touches the pages */
    }
    return 0;
}

int op_copy_peak(Device *device, double *rate, Error *err) {
    Arena arena;
    double best = 0;
    TRY(arena_open(&arena, device, 2 * arena_bytes(DTYPE_F32, 1, COPY_VALUES), err));
    const int status = copy_times(device, &arena, &best, err);
    arena_close(&arena);
    if (status == 0) *rate = 2.0 * COPY_VALUES * sizeof(float) / best;
    return status;
}

/* ---- The command. ---- */

enum { MODELS = 3, VIT_ROWS = 257, POSITIONS = 512, WORDS = 250002, WORDS_XL = 250880 };

static const char *const model_names[MODELS + 1] = {"vit-l-14", "xlmr-base", "xlmr-xxl"};

typedef struct OpsBench {
    int model;   /* which of `model_names`; -1: all */
    Dtype dtype; /* DTYPE_NONE: both */
    const char *op, *where;
    int tokens, runs, threads;
    bool json;
    Device *device;
    double copy, matmul; /* the limits, bytes and operations a second */
} OpsBench;

static void print_result(const OpsBench *b, const OpCase *c, const OpShapes *shapes, Dtype compute,
                         const OpResult *r) {
    const double gb = 1e-6 * r->bytes / r->ms, gflop = 1e-6 * r->operations / r->ms;
    const double memory = 1e9 * gb / b->copy, matmuls = 1e9 * gflop / b->matmul;
    printf("%-10s %-22s %-5s %-20s  %9.4f %9.4f  %9.2f %8.1f %8.1f  %6.1f %% %s\n", shapes->name,
           c->op, dtype_name(compute), r->shape, r->ms, r->ms_min, 1e-6 * r->bytes, gb, gflop,
           100 * (memory > matmuls ? memory : matmuls), memory > matmuls ? "memory" : "matmul");
}

static int print_json(const OpsBench *b, const OpCase *c, const OpShapes *shapes, Dtype compute,
                      const OpResult *r, Error *err) {
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I}", "model", shapes->name, "op", c->op,
                  "dtype", dtype_name(compute), "shape", r->shape, "device", device_text(b->device),
                  "threads", device_threads(b->device), "memory_bytes", (json_int_t)r->needed);
    if (line && r->skipped) json_object_set_new(line, "skipped", json_string("memory"));
    if (line && !r->skipped) {
        const double gb = 1e-6 * r->bytes / r->ms, gflop = 1e-6 * r->operations / r->ms;
        const double memory = 1e9 * gb / b->copy, matmuls = 1e9 * gflop / b->matmul;
        json_t *times =
            json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "runs",
                      b->runs, "ms_median", r->ms, "ms_min", r->ms_min, "ms_max", r->ms_max,
                      "bytes", r->bytes, "operations", r->operations, "gb_per_s", gb, "gflops",
                      gflop, "peak_gb_per_s", 1e-9 * b->copy, "peak_gflops", 1e-9 * b->matmul,
                      "share", 100 * (memory > matmuls ? memory : matmuls), "limit",
                      memory > matmuls ? "memory" : "matmul");
        if (times) json_object_update(line, times);
        json_decref(times);
    }
    return json_print_line(line, 9, err);
}

static int run_case(OpsBench *b, const OpCase *c, const OpShapes *shapes, Dtype compute,
                    Error *err) {
    for (int variant = 0; variant < op_case_variants(c); variant++) {
        OpResult result;
        TRY(op_case_time(&result, c, b->device, shapes, compute, variant, b->runs, err));
        if (b->json)
            TRY(print_json(b, c, shapes, compute, &result, err));
        else if (result.skipped)
            printf("%-10s %-22s %-5s %-20s  left out: it takes %.1f GB of memory\n", shapes->name,
                   c->op, dtype_name(compute), result.shape, 1e-9 * (double)result.needed);
        else
            print_result(b, c, shapes, compute, &result);
        TRY(report_flush(err));
    }
    return 0;
}

static int run_dtype(OpsBench *b, const OpShapes *models, Dtype compute, Error *err) {
    TRY(matmul_peak(b->device, compute, &b->matmul, err));
    if (!b->json)
        printf("%s: at most %.1f GFLOP/s (%s matmul), %.1f GB/s (copy)\n", device_text(b->device),
               1e-9 * b->matmul, dtype_name(compute), 1e-9 * b->copy);
    for (const OpShapes *shapes = models; shapes < models + MODELS; shapes++) {
        if (b->model >= 0 && shapes != models + b->model) continue;
        for (const OpCase *c = op_cases; c->op; c++)
            if (op_case_applies(c, shapes) && (!b->op || !strcmp(b->op, c->op)))
                TRY(run_case(b, c, shapes, compute, err));
    }
    return 0;
}

static int run(OpsBench *b, const OpShapes *models, Error *err) {
    TRY(device_choose(&b->device, b->where, b->threads, err));
    const bool bf16 = b->dtype == DTYPE_NONE ? device_has_bf16(b->device) : b->dtype == DTYPE_BF16;
    if (bf16 && !device_has_bf16(b->device))
        return error_set(err, "this device (%s) has no bf16 arithmetic", device_text(b->device));
    TRY(op_copy_peak(b->device, &b->copy, err));
    if (!b->json)
        printf("%-10s %-22s %-5s %-20s  %9s %9s  %9s %8s %8s  %8s %s\n", "model", "operation",
               "dtype", "shape", "ms median", "min", "MB", "GB/s", "GFLOP/s", "share", "of");
    if (b->dtype != DTYPE_BF16) TRY(run_dtype(b, models, DTYPE_F32, err));
    return bf16 ? run_dtype(b, models, DTYPE_BF16, err) : 0;
}

#define NAME_OF(name) #name,

static int check_op(const OpsBench *b) {
    static const char *const names[] = {OP_LIST(NAME_OF) NULL};
    for (int i = 0; b->op && names[i]; i++)
        if (!strcmp(names[i], b->op)) return -1;
    if (!b->op) return -1;
    const char *near = nearest_word(b->op, names);
    return options_wrong(&help, "--op takes an operation of kernels/ops.h, not \"%s\"%s%s%s", b->op,
                         near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

int command_bench_ops(int argc, char **argv) {
    OpsBench b = {.model = -1, .tokens = 300, .runs = 10};
    OptionGroup group = {
        .title = "options",
        .options = {
            {"model-name", 0, OPTION_CHOICE, NULL, &b.model, "whose shapes (default: all three)",
             .names = model_names},
            {"op", 0, OPTION_TEXT, "NAME", &b.op, "this operation only, scale_forward, say"},
            {"tokens", 0, OPTION_INTEGER, "N", &b.tokens,
             "xlmr: rows, tokens of a sequence (default 300)", 1, POSITIONS},
            {"runs", 0, OPTION_INTEGER, "N", &b.runs, "samples of each case (default 10)", 1,
             100000},
            {"dtype", 0, OPTION_CHOICE, NULL, &b.dtype,
             "arithmetic (default: f32, and bf16 where the device has it)", DTYPE_F32,
             .names = dtype_choices},
            device_option(&b.where),
            threads_option(&b.threads),
            {"json", 0, OPTION_FLAG, NULL, &b.json, "one JSON object a line"}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status < 0 && first < argc)
        status = options_wrong(&help, "it takes options only, not \"%s\"", argv[first]);
    if (status < 0) status = check_op(&b);
    if (status >= 0) return status;
    const OpShapes models[MODELS] = {{.name = model_names[0],
                                      .rows = VIT_ROWS,
                                      .width = 1024,
                                      .heads = 16,
                                      .ffn = 4096,
                                      .activation = ACTIVATION_QUICK_GELU,
                                      .channels = 3,
                                      .side = 224,
                                      .patch = 14},
                                     {.name = model_names[1],
                                      .rows = b.tokens,
                                      .width = 768,
                                      .heads = 12,
                                      .ffn = 3072,
                                      .activation = ACTIVATION_GELU,
                                      .vocabulary = WORDS,
                                      .answers = 8},
                                     {.name = model_names[2],
                                      .rows = b.tokens,
                                      .width = 4096,
                                      .heads = 32,
                                      .ffn = 16384,
                                      .activation = ACTIVATION_GELU,
                                      .vocabulary = WORDS_XL,
                                      .answers = 8}};
    Error err;
    status = run(&b, models, &err) ? 1 : 0;
    if (status) report_failure(&err);
    device_close(b.device);
    return status;
}
