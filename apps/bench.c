/* bench.c - how fast this machine is, with models of the public sizes whose weights are random.
 *
 * Each case times one whole run of a network, and right after it, in turn, its matmuls
 * alone: the same packed weights, in the same order, on the same numbers of rows. What the first
 * takes longer is attention, norms, activations, and overhead. Both counts of operations are the
 * matmuls' only: 2 rows N K for each; attention's are not counted, so the rate is no
 * flattering one. A GPU is waited for before the clock is read.
 */
#include <stdlib.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "kernels/matmul_peak.h"

static const CommandHelp help = {
    .name = "bench",
    .usage = "[options]",
    .about =
        "Measures, with random weights: vit-l-14, CLIP's ViT-L/14 encoding an image of 224 px up\n"
        "to its last layer but one; xlmr-base, -large, -xl and -xxl, one evaluation of a whole\n"
        "sequence with the head on the answer's rows. Prints the times of a run, the speed of its\n"
        "matmuls, the time of these matmuls alone, and which share of a run they would\n"
        "be; with --json also the speed of one large matmul, and a GPU's launches and bytes.\n"
        "`bench train` measures a training step, `bench ops` each operation by itself, and\n"
        "`bench images` the decoding of images.",
    .examples = "easyfirst bench\n"
                "easyfirst bench --model-name xlmr-large --tokens 512 --rows 64 --dtype bf16\n"
                "easyfirst bench --threads 1 --runs 30 --json\n"
                "easyfirst bench --device cuda --model-name vit-l-14 --batch 64 --dtype bf16",
};

enum { VOCABULARY_PIECE = 4096 };

typedef struct Case {
    const char *name; /* for --model-name */
    const char *title;
    bool vision;
    VitConfig vit;
    XlmrConfig xlmr;
} Case;

static const BlockConfig block_vit = {.width = 1024,
                                      .heads = 16,
                                      .ffn = 4096,
                                      .pre_norm = true,
                                      .activation = ACTIVATION_QUICK_GELU,
                                      .eps = 1e-5f};
static const BlockConfig block_base = {
    .width = 768, .heads = 12, .ffn = 3072, .activation = ACTIVATION_GELU, .eps = 1e-5f};
static const BlockConfig block_large = {
    .width = 1024, .heads = 16, .ffn = 4096, .activation = ACTIVATION_GELU, .eps = 1e-5f};
static const BlockConfig block_xl = {.width = 2560,
                                     .heads = 32,
                                     .ffn = 10240,
                                     .pre_norm = true,
                                     .activation = ACTIVATION_GELU,
                                     .eps = 1e-5f};
static const BlockConfig block_xxl = {.width = 4096,
                                      .heads = 32,
                                      .ffn = 16384,
                                      .pre_norm = true,
                                      .activation = ACTIVATION_GELU,
                                      .eps = 1e-5f};

/* One matmul of a run. */
typedef struct Matmul {
    Tensor w;
    int64_t rows;
    struct Packed *own; /* packed for this list alone: freed with it */
} Matmul;

typedef struct Bench {
    TextList names;
    Dtype dtype;       /* DTYPE_NONE: f32, and bf16 where the device has it */
    const char *where; /* --device */
    int tokens, rows, batch, runs, threads;
    bool json, quiet;
    bool int8; /* weights of 8-bit integers */
    Device *device;
    double peak; /* rate of a large matmul in the arithmetic of the case */
    /* Of the case that is being measured: */
    const Case *what;
    Dtype compute;
    Params params;
    Vit vit;
    Xlmr xlmr;
    Arena arena;
    Tensor pixels, features; /* vision */
    XlmrBatch inputs;        /* language */
    AttentionSpan *spans;
    int32_t *ids, *positions, *picked, *proposed;
    float *scores;
    uint64_t *streams; /* all zero */
    int64_t *indices;
    Matmul *matmuls;
    int matmul_count;
    Tensor in, out; /* the matmuls' matrices, as flat memory */
} Bench;

/* ---- The matmuls. ---- */

/* Rows that go through the blocks. */
static int64_t network_rows(const Bench *b) {
    return (int64_t)b->batch * (b->what->vision ? vit_patches(&b->vit.config) + 1 : b->tokens);
}

static void add_matmul(Bench *b, Tensor w, int64_t rows) {
    b->matmuls[b->matmul_count++] = (Matmul){.w = w, .rows = rows};
}

/* The vocabulary's matrix is walked in pieces whose logits are looked at and forgotten. Here each
 * piece is a weight of its own, so that the matmul is timed and nothing else. */
static int add_vocabulary(Bench *b, Params *values, Error *err) {
    if (b->int8) { /* a copy of it could be too much for the memory */
        add_matmul(b, b->xlmr.vocab_w, (int64_t)b->rows * b->batch);
        return 0;
    }
    Tensor words = params_find(values, "roberta.embeddings.word_embeddings.weight")->value;
    for (int64_t first = 0; first < words.shape[0]; first += VOCABULARY_PIECE) {
        int64_t left = words.shape[0] - first;
        Tensor piece = tensor_rows(words, first, left < VOCABULARY_PIECE ? left : VOCABULARY_PIECE);
        struct Packed *own;
        TRY(pack_weight(b->device, &own, &piece, 1, b->compute, false, NULL, err));
        Tensor w = tensor_2d(NULL, b->compute, piece.shape[0], piece.shape[1]);
        w.packed = own;
        add_matmul(b, w, (int64_t)b->rows * b->batch);
        b->matmuls[b->matmul_count - 1].own = own;
    }
    return 0;
}

static int list_matmuls(Bench *b, Params *values, Error *err) {
    int layers = b->what->vision ? b->vit.depth : b->xlmr.config.layers;
    const Block *blocks = b->what->vision ? b->vit.blocks : b->xlmr.blocks;
    int64_t rows = network_rows(b);
    int64_t words = b->what->vision ? 0 : b->xlmr.config.vocab;
    b->matmul_count = 0;
    b->matmuls =
        calloc(4 * (size_t)layers + 3 + (size_t)(words / VOCABULARY_PIECE), sizeof *b->matmuls);
    if (!b->matmuls) return error_set(err, "out of memory");
    if (b->what->vision) add_matmul(b, b->vit.patch_w, rows - b->batch);
    for (int i = 0; i < layers; i++) {
        add_matmul(b, blocks[i].qkv_w, rows);
        add_matmul(b, blocks[i].out_w, rows);
        add_matmul(b, blocks[i].fc1_w, rows);
        add_matmul(b, blocks[i].fc2_w, rows);
    }
    if (b->what->vision) return 0;
    add_matmul(b, b->xlmr.head_w, (int64_t)b->rows * b->batch);
    return add_vocabulary(b, values, err);
}

static void free_matmuls(Bench *b) {
    for (int i = 0; i < b->matmul_count; i++) packed_free(b->device, b->matmuls[i].own);
    free(b->matmuls);
    b->matmuls = NULL, b->matmul_count = 0;
}

static double matmul_operations(const Bench *b) {
    double n = 0;
    for (int i = 0; i < b->matmul_count; i++) {
        const Matmul *p = &b->matmuls[i];
        n += 2.0 * (double)p->rows * (double)p->w.shape[0] * (double)p->w.shape[1];
    }
    return n;
}

static int run_matmuls(Bench *b, Error *err) {
    for (int i = 0; i < b->matmul_count; i++) {
        const Matmul *p = &b->matmuls[i];
        Tensor x = tensor_2d(b->in.data, b->compute, p->rows, p->w.shape[1]);
        Tensor y = tensor_2d(b->out.data, b->compute, p->rows, p->w.shape[0]);
        TRY(linear_forward(b->device, y, x, p->w, TENSOR_NONE, ACTIVATION_NONE, false, err));
    }
    return 0;
}

/* ---- The networks. ---- */

static int run_network(Bench *b, Error *err) {
    if (b->what->vision) return vit_forward(&b->vit, &b->arena, b->features, b->pixels, NULL, err);
    size_t mark = b->arena.used;
    Tensor hidden, features;
    TRY(xlmr_forward(&b->xlmr, &b->arena, &b->inputs, &hidden, NULL, err));
    TRY(xlmr_head(&b->xlmr, &b->arena, hidden, b->picked, b->rows * b->batch, &features, err));
    VocabChoice choice = {
        .banned = -1, .limit = b->xlmr.config.vocab, .stream = b->streams, .index = b->indices};
    TRY(vocab_propose(b->device, b->proposed, b->scores, features, b->xlmr.vocab_w, b->xlmr.vocab_b,
                      &choice, err));
    arena_reset(&b->arena, mark);
    return 0;
}

static int declare(const Case *what, Vit *vit, Xlmr *xlmr, Params *params, Error *err) {
    return what->vision ? vit_declare(vit, &what->vit, params, err)
                        : xlmr_declare(xlmr, &what->xlmr, params, err);
}

/* Random numbers around zero, for the inputs. */
static void fill(Tensor t) {
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor_count(t); i++) {
        state = state * 1664525u + 1013904223u;
        float v = (float)(state >> 8) * 0x1p-23f - 1;
        if (t.dtype == DTYPE_F32)
            ((float *)t.data)[i] = v;
        else
            ((uint16_t *)t.data)[i] = f32_to_bf16(v);
    }
}

static int take_filled(Bench *b, Tensor *t, Dtype dtype, int64_t rows, int64_t columns,
                       Error *err) {
    TRY(arena_take(&b->arena, t, dtype, rows, columns, err));
    Tensor host = tensor_2d(malloc(tensor_bytes(*t)), dtype, rows, columns);
    if (!host.data) return error_set(err, "out of memory for the inputs");
    fill(host);
    int status = device_upload(b->device, t->data, host.data, tensor_bytes(host), err);
    free(host.data);
    return status;
}

/* Sequences end to end; the answer is the last rows of each. */
static void take_sequences(Bench *b) {
    int tokens = b->tokens * b->batch;
    for (int i = 0; i < tokens; i++) {
        b->ids[i] = 5 + (int)((unsigned)i * 40503u % (unsigned)(b->xlmr.config.vocab - 6));
        b->positions[i] = XLMR_FIRST_POSITION + i % b->tokens;
    }
    for (int i = 0; i < b->rows * b->batch; i++)
        b->picked[i] = (i / b->rows + 1) * b->tokens - b->rows + i % b->rows;
    for (int i = 0; i < b->batch; i++) {
        int begin = i * b->tokens, end = begin + b->tokens;
        b->spans[i] = (AttentionSpan){begin, end, 1, {{begin, end}}};
    }
    b->inputs = (XlmrBatch){.tokens = tokens,
                            .ids = b->ids,
                            .positions = b->positions,
                            .plan = {.spans = b->spans, .span_count = b->batch}};
}

/* The inputs of the network and of its matmuls. */
static int take_inputs(Bench *b, Error *err) {
    bool vision = b->what->vision;
    int64_t in = 1, out = 1;
    for (int i = 0; i < b->matmul_count; i++) {
        const Matmul *p = &b->matmuls[i];
        if (p->rows * p->w.shape[1] > in) in = p->rows * p->w.shape[1];
        if (p->rows * p->w.shape[0] > out) out = p->rows * p->w.shape[0];
    }
    const VitConfig *v = &b->vit.config;
    int64_t side = v->image_size, rows = vision ? (int64_t)b->batch * vit_feature_rows(v) : 0;
    size_t work = vision ? vit_work_bytes(&b->vit, b->batch) +
                               arena_bytes(DTYPE_F32, b->batch, 3 * side * side) +
                               arena_bytes(DTYPE_F32, rows, v->block.width)
                         : xlmr_work_bytes(&b->xlmr, b->tokens * b->batch) +
                               xlmr_head_bytes(&b->xlmr, b->rows * b->batch);
    TRY(arena_open(&b->arena, b->device,
                   work + arena_bytes(b->compute, 1, in) + arena_bytes(DTYPE_F32, 1, out), err));
    TRY(take_filled(b, &b->in, b->compute, 1, in, err));
    TRY(arena_take(&b->arena, &b->out, DTYPE_F32, 1, out, err));
    if (vision) {
        TRY(take_filled(b, &b->pixels, DTYPE_F32, b->batch, 3 * side * side, err));
        b->pixels = tensor_nd(b->pixels.data, DTYPE_F32, 4, (int64_t[]){b->batch, 3, side, side});
        return arena_take(&b->arena, &b->features, b->compute, rows, v->block.width, err);
    }
    take_sequences(b);
    return 0;
}

/* ---- Measuring. ---- */

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *sorted, int n) {
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* `used` is of one run of the network. */
static int print_times(const Bench *b, double *whole, double *alone, DeviceCounters used,
                       Error *err) {
    int n = b->runs, rows = (int)network_rows(b);
    qsort(whole, (size_t)n, sizeof *whole, compare_times);
    qsort(alone, (size_t)n, sizeof *alone, compare_times);
    double ms = 1e3 * median(whole, n), matmul_ms = 1e3 * median(alone, n);
    double operations = matmul_operations(b), rate = 1e-6 * operations / ms;
    char dtype[32];
    snprintf(dtype, sizeof dtype, "%s%s", b->int8 ? "i8 " : "", dtype_name(b->compute));
    if (b->json) {
        json_t *line =
            json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
                      "s:I, s:I, s:I, s:s, s:I}",
                      "name", b->what->title, "dtype", dtype_name(b->compute), "device",
                      device_text(b->device), "threads", device_threads(b->device), "batch",
                      b->batch, "rows", rows, "runs", n, "ms_median", ms, "ms_min", 1e3 * whole[0],
                      "ms_max", 1e3 * whole[n - 1], "gflops", rate, "matmul_ms", matmul_ms,
                      "matmul_gflops", 1e-6 * operations / matmul_ms, "share", 100 * matmul_ms / ms,
                      "peak_gflops", 1e-9 * b->peak, "launches", (json_int_t)used.launches,
                      "bytes_up", (json_int_t)used.bytes_up, "bytes_down",
                      (json_int_t)used.bytes_down, "weights", b->int8 ? "i8" : "bf16",
                      "weight_bytes", (json_int_t)params_prepared_bytes(&b->params, b->compute));
        TRY(json_print_line(line, 6, err));
    } else {
        printf("%-19s %-7s %5d  %8.1f %8.1f %8.1f  %8.1f  %10.1f %8.1f  %5.1f %%\n", b->what->title,
               dtype, rows, ms, 1e3 * whole[0], 1e3 * whole[n - 1], rate, matmul_ms,
               1e-6 * operations / matmul_ms, 100 * matmul_ms / ms);
    }
    return report_flush(err);
}

/* One run, and what the device was given to do in it. */
static int time_network(Bench *b, double *seconds, DeviceCounters *used, Error *err) {
    DeviceCounters before = device_counters(b->device);
    double begin = clock_seconds();
    TRY(run_network(b, err));
    TRY(device_wait(b->device, err));
    *seconds = clock_seconds() - begin;
    *used = device_counters(b->device);
    used->launches -= before.launches;
    used->bytes_up -= before.bytes_up, used->bytes_down -= before.bytes_down;
    return 0;
}

static int time_alone(Bench *b, double *seconds, Error *err) {
    double begin = clock_seconds();
    TRY(run_matmuls(b, err));
    TRY(device_wait(b->device, err));
    *seconds = clock_seconds() - begin;
    return 0;
}

static int measure(Bench *b, Error *err) {
    DeviceCounters used = {0};
    double *whole = calloc((size_t)b->runs, sizeof *whole),
           *alone = calloc((size_t)b->runs, sizeof *alone);
    int status = whole && alone ? 0 : error_set(err, "out of memory");
    for (int i = 0; i < 2 && status == 0; i++) /* warm: primitives are compiled, pages touched */
        status = run_network(b, err) || run_matmuls(b, err) || device_wait(b->device, err);
    for (int i = 0; i < b->runs && status == 0; i++) {
        status = time_network(b, &whole[i], &used, err);
        if (status == 0) status = time_alone(b, &alone[i], err);
    }
    if (status == 0) status = print_times(b, whole, alone, used, err);
    free(whole), free(alone);
    return status ? -1 : 0;
}

static int prepare(Bench *b, Params *values, Error *err) {
    TRY(declare(b->what, &b->vit, &b->xlmr, &b->params, err));
    for (int i = 0; i < b->params.count; i++)
        TRY(params_set(&b->params.items[i], values->items[i].value, err));
    TRY(params_prepare(&b->params, b->compute, NULL, NULL, err));
    TRY(list_matmuls(b, values, err));
    return take_inputs(b, err);
}

/* One case in one arithmetic; `values` are its weights. */
static int run_case(Bench *b, Params *values, Dtype compute, Error *err) {
    b->compute = compute;
    params_init(&b->params, b->device);
    int status = b->json ? matmul_peak(b->device, compute, &b->peak, err) : 0;
    if (status == 0) status = prepare(b, values, err);
    if (status == 0) status = measure(b, err);
    arena_close(&b->arena);
    b->arena = (Arena){0};
    free_matmuls(b);
    params_free(&b->params);
    vit_free(&b->vit);
    xlmr_free(&b->xlmr);
    return status;
}

/* Random integers and their scales, which all matrices and tables of a model share: of a large one
 * there is memory for the packed weights only. */
typedef struct Int8Values {
    int8_t *integers;
    float *scales;
} Int8Values;

static int int8_values(Int8Values *made, Params *values, Error *err) {
    int64_t most = 0, rows = 0;
    for (int i = 0; i < values->count; i++) {
        const Param *p = &values->items[i];
        int64_t n = tensor_count(tensor_nd(NULL, DTYPE_I8, p->ndim, p->shape));
        if (n > most) most = n;
        if (p->shape[0] > rows) rows = p->shape[0];
    }
    made->integers = malloc((size_t)most);
    made->scales = malloc((size_t)rows * sizeof *made->scales);
    if (!made->integers || !made->scales) return error_set(err, "out of memory for the weights");
    uint32_t state = 1;
    for (int64_t i = 0; i < most; i++) {
        state = state * 1664525u + 1013904223u;
        made->integers[i] = (int8_t)((int)(state >> 24) % 255 - 127);
    }
    for (int64_t i = 0; i < rows; i++) made->scales[i] = 0.04f / 127;
    for (int i = 0; i < values->count; i++) {
        Param *p = &values->items[i];
        Tensor t = tensor_nd(made->integers, DTYPE_I8, p->ndim, p->shape);
        t.scale = made->scales;
        if (p->role != PARAM_VECTOR && p->ndim > 1 && p->shape[0] > 1) TRY(params_set(p, t, err));
    }
    return 0;
}

/* The weights are made once, in bf16 to take half the room; the arithmetic is another matter. */
static int run_dtypes(Bench *b, const Case *what, Error *err) {
    Vit vit = {0};
    Xlmr xlmr = {0};
    Params values;
    b->what = what;
    params_init(&values, b->device);
    if (!b->quiet) fprintf(stderr, "%s: random weights\n", what->name);
    int status = declare(what, &vit, &xlmr, &values, err);
    Int8Values int8 = {0};
    if (status == 0 && b->int8) status = int8_values(&int8, &values, err);
    if (status == 0) status = params_allocate(&values, DTYPE_BF16, err);
    if (status == 0) params_initialise(&values, 0);
    bool f32 = b->dtype != DTYPE_BF16;
    bool bf16 = b->dtype == DTYPE_NONE ? device_has_bf16(b->device) : b->dtype == DTYPE_BF16;
    if (status == 0 && f32) status = run_case(b, &values, DTYPE_F32, err);
    if (status == 0 && bf16) status = run_case(b, &values, DTYPE_BF16, err);
    params_free(&values);
    free(int8.integers), free(int8.scales);
    vit_free(&vit);
    xlmr_free(&xlmr);
    return status;
}

static int run(Bench *b, const Case *cases, const bool *wanted, int count, Error *err) {
    TRY(device_choose(&b->device, b->where, b->threads, err));
    if (b->dtype == DTYPE_BF16 && !device_has_bf16(b->device))
        return error_set(err, "this device (%s) has no bf16 arithmetic", device_text(b->device));
    size_t batch = (size_t)b->batch, tokens = (size_t)b->tokens * batch;
    size_t rows = (size_t)b->rows * batch;
    b->spans = calloc(batch, sizeof *b->spans);
    b->ids = calloc(tokens, sizeof *b->ids), b->positions = calloc(tokens, sizeof *b->positions);
    b->picked = calloc(rows, sizeof *b->picked), b->proposed = calloc(rows, sizeof *b->proposed);
    b->scores = calloc(rows, sizeof *b->scores), b->streams = calloc(rows, sizeof *b->streams);
    b->indices = calloc(rows, sizeof *b->indices);
    if (!b->spans || !b->ids || !b->positions || !b->picked || !b->proposed || !b->scores ||
        !b->streams || !b->indices)
        return error_set(err, "out of memory for %d tokens", b->tokens);
    if (!b->json) {
        printf("%s; %d runs\n", device_text(b->device), b->runs);
        printf("%-19s %-7s %5s  %8s %8s %8s  %8s  %10s %8s  %7s\n", "model", "dtype", "rows",
               "ms median", "min", "max", "GFLOP/s", "matmuls ms", "GFLOP/s", "share");
        TRY(report_flush(err));
    }
    for (int i = 0; i < count; i++)
        if (wanted[i]) TRY(run_dtypes(b, &cases[i], err));
    return 0;
}

static void bench_free(Bench *b) {
    free(b->ids), free(b->positions), free(b->picked), free(b->proposed);
    free(b->scores), free(b->streams), free(b->indices), free(b->spans);
    free(b->names.items);
    device_close(b->device);
}

int command_bench(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "train")) return command_bench_train(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "ops")) return command_bench_ops(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "images")) return command_bench_images(argc - 1, argv + 1);
    enum { CASES = 5, POSITIONS = 514, WORDS = 250002, WORDS_XL = 250880 };
    const Case cases[CASES] = {
        {.name = "vit-l-14",
         .title = "vit-l-14 encode",
         .vision = true,
         .vit = {.image_size = 224,
                 .patch = 14,
                 .layers = 24,
                 .block = block_vit,
                 .feature_layer = -2}},
        {.name = "xlmr-base",
         .title = "xlmr-base evaluate",
         .xlmr = {.vocab = WORDS, .layers = 12, .positions = POSITIONS, .block = block_base}},
        {.name = "xlmr-large",
         .title = "xlmr-large evaluate",
         .xlmr = {.vocab = WORDS, .layers = 24, .positions = POSITIONS, .block = block_large}},
        {.name = "xlmr-xl",
         .title = "xlmr-xl evaluate",
         .xlmr = {.vocab = WORDS_XL, .layers = 36, .positions = POSITIONS, .block = block_xl}},
        {.name = "xlmr-xxl",
         .title = "xlmr-xxl evaluate",
         .xlmr = {.vocab = WORDS_XL, .layers = 48, .positions = POSITIONS, .block = block_xxl}},
    };
    Bench b = {.tokens = 300, .rows = 8, .batch = 1, .runs = 10};
    OptionGroup group = {
        .title = "options",
        .options = {
            {"model-name", 0, OPTION_LIST, "NAME", &b.names,
             "vit-l-14, xlmr-base, -large, -xl or -xxl; may be given\n"
             "several times (default: the first two)"},
            {"tokens", 0, OPTION_INTEGER, "N", &b.tokens,
             "xlmr: tokens of the sequence (default 300)", 3, POSITIONS - XLMR_FIRST_POSITION},
            {"rows", 0, OPTION_INTEGER, "N", &b.rows, "xlmr: rows of the answer (default 8)", 1,
             POSITIONS - XLMR_FIRST_POSITION - 2},
            {"batch", 0, OPTION_INTEGER, "N", &b.batch, "images, or sequences, at once (default 1)",
             1, 4096},
            {"runs", 0, OPTION_INTEGER, "N", &b.runs,
             "runs that are timed, after two that are not (default 10)", 1, 100000},
            {"dtype", 0, OPTION_CHOICE, NULL, &b.dtype,
             "arithmetic (default: f32, and bf16 where the device has it)", DTYPE_F32,
             .names = dtype_choices},
            {"int8", 0, OPTION_FLAG, NULL, &b.int8, "weights of 8-bit integers"},
            device_option(&b.where),
            threads_option(&b.threads),
            {"json", 0, OPTION_FLAG, NULL, &b.json, "one JSON object a line"},
            {"quiet", 'q', OPTION_FLAG, NULL, &b.quiet, "nothing on standard error"}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status < 0 && first < argc)
        status = options_wrong(&help, "it takes options only, not \"%s\"", argv[first]);
    bool wanted[CASES] = {!b.names.count, !b.names.count};
    for (int i = 0; i < b.names.count && status < 0; i++) {
        bool known = false;
        for (int c = 0; c < CASES; c++)
            if (!strcmp(b.names.items[i], cases[c].name)) wanted[c] = known = true;
        if (!known)
            status = options_wrong(&help,
                                   "--model-name takes vit-l-14, xlmr-base, xlmr-large, xlmr-xl or "
                                   "xlmr-xxl, not \"%s\"",
                                   b.names.items[i]);
    }
    if (status < 0 && b.rows > b.tokens - 2)
        status = options_wrong(&help, "--rows %d of an answer do not fit into --tokens %d", b.rows,
                               b.tokens);
    if (status < 0) {
        Error err;
        status = run(&b, cases, wanted, CASES, &err) ? 1 : 0;
        if (status) report_failure(&err);
    }
    bench_free(&b);
    return status;
}
