/* Inspecting evaluations: attention against plain sums in double and against transformers
 * (tests/reference/make_inspect.py), alternatives, and whole answers. */
#include <math.h>

#include "projector/answers.h"
#include "tests/golden_models.h"
#include "tests/guarded_device.h"
#include "tests/matrix.h"
#include "vision/patch_map.h"

/* ---- One layer, in memory that the host cannot access. ---- */

enum { WIDTH = 24, HEADS = 3, LAYERS = 2, IMAGE = 5, KEYS = 31, QUERIES = 9, SEQUENCES = 3 };

/* Queries and keys as the columns of one matrix [KEYS, 2 * WIDTH], as blocks have them. */
typedef struct LayerCase {
    Dtype dtype;
    float values[LAYERS][KEYS][2 * WIDTH]; /* as stored, rounded */
    Tensor device[LAYERS];
    AttentionSpan spans[SEQUENCES];
    InspectSequence sequences[SEQUENCES];
    InspectRow rows[SEQUENCES][4];
    float map[SEQUENCES][4][IMAGE], layers[SEQUENCES][4][LAYERS][IMAGE];
} LayerCase;

static void layer_case_make(LayerCase *c, Device *device, Dtype dtype, uint64_t seed) {
    Error err;
    TestRandom random = {seed};
    *c = (LayerCase){.dtype = dtype};
    static uint16_t narrow[KEYS * 2 * WIDTH];
    for (int l = 0; l < LAYERS; l++) {
        float *values = &c->values[l][0][0];
        for (int i = 0; i < KEYS * 2 * WIDTH; i++) values[i] = 1.5f * test_random_normal(&random);
        const void *from = values;
        if (dtype == DTYPE_BF16) {
            values_convert(narrow, DTYPE_BF16, values, DTYPE_F32, KEYS * 2 * WIDTH);
            values_convert(values, DTYPE_F32, narrow, DTYPE_BF16, KEYS * 2 * WIDTH);
            from = narrow;
        }
        c->device[l] = tensor_2d(NULL, dtype, KEYS, 2 * WIDTH);
        size_t bytes = tensor_bytes(c->device[l]);
        assert_ok(device_alloc(device, &c->device[l].data, bytes, &err), &err);
        assert_ok(device_upload(device, c->device[l].data, from, bytes, &err), &err);
    }
    /* Ranges that are shared, that have the same begin, and one that contains everything. */
    c->spans[0] = (AttentionSpan){0, 3, 3, {{12, 14}, {4, 10}, {20, 23}}};
    c->spans[1] = (AttentionSpan){3, 5, 2, {{4, 11}, {20, 23}}};
    c->spans[2] = (AttentionSpan){5, 9, 1, {{0, KEYS}}};
    static const int32_t image[SEQUENCES] = {5, 5, 26};
    for (int s = 0; s < SEQUENCES; s++) {
        int n = c->spans[s].q_end - c->spans[s].q_begin;
        c->sequences[s] =
            (InspectSequence){c->spans[s].q_begin, n, &c->spans[s], image[s], c->rows[s]};
        for (int i = 0; i < n; i++) {
            c->rows[s][i] = (InspectRow){.map = c->map[s][i], .layers = &c->layers[s][i][0][0]};
            for (int p = 0; p < IMAGE; p++) c->map[s][i][p] = 77; /* the old value */
        }
    }
    c->rows[0][1] = (InspectRow){0};
    c->rows[1][0].layers = NULL;
}

/* The weights of one row over all keys that it attends to, mean over the heads, in double. */
static void plain_weights(const LayerCase *c, const BlockConfig *block, int layer,
                          const AttentionSpan *span, int query, double *weights) {
    const bool local = block_is_local(block, layer);
    const int own = attention_keys(span) - (span->q_end - query); /* the query's own key */
    int columns = WIDTH / HEADS;
    for (int t = 0; t < KEYS; t++) weights[t] = 0;
    for (int h = 0; h < HEADS; h++) {
        double e[KEYS] = {0}, sum = 0;
        int place = 0;
        for (int r = 0; r < span->range_count; r++)
            for (int t = span->range[r].begin; t < span->range[r].end; t++) {
                double dot = 0;
                if (local && abs(place++ - own) > block->window) continue;
                for (int d = h * columns; d < (h + 1) * columns; d++)
                    dot += (double)c->values[layer][query][d] * c->values[layer][t][WIDTH + d];
                sum += e[t] = exp(dot / sqrt(columns));
            }
        for (int t = 0; t < KEYS; t++) weights[t] += e[t] / sum / HEADS;
    }
}

static void check_layers(Device *device, Dtype dtype, int window) {
    static LayerCase c;
    Error err;
    Inspector inspector;
    BlockConfig block = {.width = WIDTH, .heads = HEADS, .window = window, .global_every = 2};
    layer_case_make(&c, device, dtype, 5 + (uint64_t)dtype);
    assert_ok(inspector_open(&inspector, device, &block, LAYERS, IMAGE, SEQUENCES, &err), &err);
    for (int run = 0; run < 2; run++) { /* a second batch starts from nothing */
        inspector.count = SEQUENCES;
        memcpy(inspector.sequences, c.sequences, sizeof c.sequences);
        for (int l = 0; l < LAYERS; l++)
            assert_ok(
                inspector_layer(&inspector, l,
                                tensor_columns(tensor_rows(c.device[l], 0, QUERIES), 0, WIDTH),
                                tensor_columns(c.device[l], WIDTH, WIDTH), &err),
                &err);
    }
    inspector_close(&inspector);
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0; i < c.sequences[s].length; i++) {
            double mean[IMAGE] = {0}, weights[KEYS];
            for (int l = 0; l < LAYERS; l++) {
                plain_weights(&c, &block, l, &c.spans[s], c.spans[s].q_begin + i, weights);
                for (int p = 0; p < IMAGE; p++) {
                    double want = weights[c.sequences[s].image + p];
                    mean[p] += want / LAYERS;
                    double got = (double)c.layers[s][i][l][p];
                    if (c.rows[s][i].layers)
                        assert_true(fabs(got - want) <= 1e-6);
                    else
                        assert_true(got == 0);
                }
            }
            for (int p = 0; p < IMAGE; p++) {
                double got = (double)c.map[s][i][p];
                if (c.rows[s][i].map)
                    assert_true(fabs(got - mean[p]) <= 1e-6);
                else
                    assert_true(got == 77); /* not requested, so unchanged */
            }
        }
    for (int l = 0; l < LAYERS; l++) device_free(device, c.device[l].data);
}

static void test_layers(void **state) {
    (void)state;
    Device *device = guarded_open();
    check_layers(device, DTYPE_F32, 0);
    check_layers(device, DTYPE_BF16, 0);
    check_layers(device, DTYPE_F32, 4);
    assert_int_equal(guarded_bytes(), 0);
    guarded_close(device);
}

/* If the "image" is all keys, the shares sum to 1. */
static void test_shares(void **state) {
    (void)state;
    Device *device = guarded_open();
    static LayerCase c;
    Error err;
    Inspector inspector;
    float map[KEYS];
    BlockConfig block = {.width = WIDTH, .heads = HEADS};
    layer_case_make(&c, device, DTYPE_F32, 3);
    InspectRow row = {.map = map};
    assert_ok(inspector_open(&inspector, device, &block, 1, KEYS, 1, &err), &err);
    inspector.count = 1;
    inspector.sequences[0] = (InspectSequence){2, 1, &c.spans[2], 0, &row};
    Tensor q = tensor_columns(tensor_rows(c.device[0], 0, QUERIES), 0, WIDTH);
    Tensor k = tensor_columns(c.device[0], WIDTH, WIDTH);
    assert_ok(inspector_layer(&inspector, 0, q, k, &err), &err);
    double sum = 0;
    for (int t = 0; t < KEYS; t++) sum += (double)map[t];
    assert_true(fabs(sum - 1) <= 1e-6);
    /* An image that the row does not attend to, and out of memory. */
    inspector.sequences[0].span = &c.spans[1];
    assert_refused(inspector_layer(&inspector, 0, q, k, &err), &err, "not among");
    inspector_close(&inspector);
    assert_ok(inspector_open(&inspector, device, &block, 1, KEYS, 1, &err), &err);
    inspector.count = 1;
    inspector.sequences[0] = (InspectSequence){2, 1, &c.spans[2], 0, &row};
    guarded_fail_after(0);
    assert_refused(inspector_layer(&inspector, 0, q, k, &err), &err, "memory");
    guarded_fail_after(-1);
    /* NaN must not result in a map. */
    float nan_row[2 * WIDTH];
    for (int i = 0; i < 2 * WIDTH; i++) nan_row[i] = NAN;
    assert_ok(device_upload(device, c.device[0].data, nan_row, sizeof nan_row, &err), &err);
    assert_refused(inspector_layer(&inspector, 0, q, k, &err), &err, "attention of layer 1");
    inspector_close(&inspector);
    for (int l = 0; l < LAYERS; l++) device_free(device, c.device[l].data);
    guarded_close(device);
}

/* ---- Alternatives. ---- */

static void check_alternatives(TestRandom *random, int vocab, int limit, int banned, int k,
                               bool ties) {
    Error err;
    float *logits = malloc((size_t)vocab * sizeof *logits);
    Proposal *got = malloc((size_t)k * sizeof *got);
    bool *taken = calloc((size_t)vocab, sizeof *taken);
    for (int v = 0; v < vocab; v++) {
        logits[v] = 4 * test_random_normal(random);
        if (ties) logits[v] = roundf(logits[v]);
    }
    double sum = 0;
    for (int v = 0; v < limit; v++)
        if (v != banned) sum += exp((double)logits[v]);
    assert_ok(top_k_choose(got, k, logits, limit, banned, &err), &err);
    for (int i = 0; i < k; i++) {
        int best = -1;
        for (int v = 0; v < limit; v++)
            if (v != banned && !taken[v] && (best < 0 || logits[v] > logits[best])) best = v;
        assert_int_equal(got[i].token, best);
        if (best < 0) {
            assert_true(isinf(got[i].score) && got[i].score < 0);
            continue;
        }
        taken[best] = true;
        assert_true(fabs((double)got[i].score - ((double)logits[best] - log(sum))) <= 1e-5);
    }
    free(logits), free(got), free(taken);
}

static void test_alternatives(void **state) {
    (void)state;
    TestRandom random = {9};
    check_alternatives(&random, 1, 1, -1, 1, false);
    check_alternatives(&random, 2, 2, 0, 3, false); /* a single candidate */
    check_alternatives(&random, 5, 3, 4, 5, false);
    for (int i = 0; i < 20; i++) {
        check_alternatives(&random, 200, 190 - i, 3 * i, 1 + i % 7, false);
        check_alternatives(&random, 60, 55, i, 9, true);
    }
    Error err;
    Proposal out[2];
    float logits[4] = {0, NAN, -INFINITY, 1};
    assert_refused(top_k_choose(out, 2, logits, 4, -1, &err), &err, "token 1");
    assert_ok(top_k_choose(out, 2, logits, 4, 1, &err), &err); /* which may be the banned one */
    assert_int_equal(out[0].token, 3);
    logits[1] = INFINITY;
    assert_refused(top_k_choose(out, 2, logits, 4, -1, &err), &err, "finite");
}

/* ---- Canvases against the reference. ---- */

static Checkpoint reference_open(int model) {
    Checkpoint c;
    Error err;
    assert_ok(checkpoint_open(&c,
                              model ? "tests/golden/inspect/tiny-xl.safetensors"
                                    : "tests/golden/inspect/tiny-base.safetensors",
                              NULL, &err),
              &err);
    return c;
}

/* Alternatives [rows, k] against the reference's [rows, 4]: tokens must agree where the reference's
 * neighbors differ by more than rounding errors. */
static void compare_alternatives(const Proposal *got, int k, Tensor tokens, Tensor scores,
                                 double limit) {
    const int64_t *ids = tokens.data;
    const float *want = scores.data;
    for (int64_t r = 0; r < tensor_row_count(tokens); r++)
        for (int i = 0; i < k; i++) {
            const Proposal *p = &got[r * k + i];
            double w = (double)want[r * 4 + i], wide = limit * (1 + fabs(w));
            if (!(fabs((double)p->score - w) <= wide))
                fail_msg("row %d, rank %d: %g, expected %g", (int)r, i, (double)p->score, w);
            bool clear = (double)want[r * 4 + i + 1] < w - 2 * wide &&
                         (i == 0 || (double)want[r * 4 + i - 1] > w + 2 * wide);
            if (clear) assert_int_equal(p->token, ids[r * 4 + i]);
        }
}

typedef struct Case {
    int32_t *prompt, *image, *canvases, *written, *step_canvas;
    int prompt_count, length, count; /* canvases */
} Case;

static Case case_open(const Fixture *f, const Checkpoint *c, int k) {
    int n;
    Case out = {.prompt = golden_ids(&f->golden, "decode.%d.prompt", k, &out.prompt_count)};
    out.image = golden_ids(&f->golden, "decode.%d.image", k, &n);
    out.written = golden_ids(c, "%d.written", k, &out.length);
    out.step_canvas = golden_ids(c, "%d.step_canvas", k, &n);
    out.canvases = golden_ids(c, "%d.canvases", k, &n);
    out.count = n / out.length;
    return out;
}

static void case_close(Case *c) {
    free(c->prompt), free(c->image), free(c->canvases), free(c->written), free(c->step_canvas);
}

/* All canvases of a case in one call, with the requests of answer_inspection.c. */
static void check_case(Fixture *f, const Checkpoint *reference, int k, AttentionPattern pattern,
                       bool no_kv_cache, int batch_tokens) {
    enum { K = 3 };
    Error err;
    Case c = case_open(f, reference, k);
    const Multimodal *m = &f->model.parts;
    int rows = multimodal_image_rows(m), layers = m->language.xlmr->config.layers, n = c.length;
    Tensor image = golden_image_tokens(&f->golden);
    InfillPrompt prompts[2] = {{c.prompt, c.prompt_count, -1},
                               {c.prompt, c.prompt_count, c.image[0]}};
    InfillConfig config = {.model = m->language,
                           .device = f->device,
                           .pattern = pattern,
                           .no_kv_cache = no_kv_cache,
                           .mask_id = tokenizer_mask_id(m->tokenizer),
                           .vocab_limit = tokenizer_size(m->tokenizer),
                           .batch_tokens = batch_tokens,
                           .prompts = prompts,
                           .prompt_count = 2,
                           .image_tokens = image,
                           .image_rows = rows};
    Infill *infill;
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, n, n + 1, &err), &err);
    DecodeCanvas *canvases = calloc((size_t)c.count, sizeof *canvases);
    InspectRow *wanted = calloc((size_t)(c.count * n), sizeof *wanted);
    Proposal *alternatives = calloc((size_t)(c.count * n * K), sizeof *alternatives);
    Proposal *proposals = calloc((size_t)(c.count * n), sizeof *proposals);
    float *maps = calloc((size_t)(n * rows), sizeof *maps);
    float *each = calloc((size_t)(n * rows * layers), sizeof *each);
    for (int i = 0; i < c.count; i++)
        canvases[i] = (DecodeCanvas){.request = 1, .length = n, .tokens = c.canvases + i * n};
    for (int i = 0; i < c.count * n; i++) wanted[i].alternatives = alternatives + i * K;
    for (int i = 0; i < n; i++) {
        InspectRow *row = &wanted[c.step_canvas[c.written[i] - 1] * n + i];
        row->map = maps + i * rows, row->layers = each + i * rows * layers;
    }
    assert_ok(infill_inspect(infill, canvases, c.count, wanted, K, &err), &err);
    assert_int_equal(infill_counts(infill).inspections, c.count);
    assert_int_equal(infill_counts(infill).canvases, 0);
    /* The same evaluation without inspection gives the first of them. */
    assert_ok(infill_evaluate(infill, canvases, c.count, 0, 0, proposals, &err), &err);
    for (int i = 0; i < c.count * n; i++) {
        assert_int_equal(alternatives[i * K].token, proposals[i].token);
        assert_true(fabs((double)alternatives[i * K].score - proposals[i].score) <=
                    1e-5 * (1 + fabs((double)proposals[i].score)));
    }
    bool blocks = pattern == ATTENTION_BLOCK_CAUSAL;
    Tensor layer_maps = golden(reference, blocks ? "%d.blocks.layers" : "%d.full.layers", k);
    assert_close(each, layer_maps.data, (size_t)(n * rows * layers), f->limit, "layers");
    for (int i = 0; i < n * rows; i++) {
        double sum = 0;
        for (int l = 0; l < layers; l++)
            sum += (double)each[(i / rows * layers + l) * rows + i % rows];
        assert_true(fabs(sum / layers - (double)maps[i]) <= 1e-6);
    }
    compare_alternatives(alternatives, K,
                         golden(reference, blocks ? "%d.blocks.tokens" : "%d.full.tokens", k),
                         golden(reference, blocks ? "%d.blocks.scores" : "%d.full.scores", k),
                         f->limit > 1e-3 ? 0.15 : 2e-5);
    infill_close(infill);
    free(canvases), free(wanted), free(alternatives), free(proposals), free(maps), free(each);
    case_close(&c);
}

static const int image_cases[] = {0, 1, 4, 6};
enum { IMAGE_CASES = 4 };

static void check_reference(const char *dtype) {
    for (int model = 0; model < 2; model++) {
        Fixture f;
        fixture_open(&f, golden_folders[model], dtype);
        Checkpoint reference = reference_open(model);
        for (int i = 0; i < IMAGE_CASES; i++)
            for (int batch = 0; batch <= 90; batch += 45) {
                check_case(&f, &reference, image_cases[i], ATTENTION_FULL, false, batch);
                check_case(&f, &reference, image_cases[i], ATTENTION_BLOCK_CAUSAL, false, batch);
                check_case(&f, &reference, image_cases[i], ATTENTION_BLOCK_CAUSAL, true, batch);
            }
        checkpoint_close(&reference);
        fixture_close(&f);
    }
}

static void test_reference_f32(void **state) {
    (void)state;
    check_reference("f32");
}

static void test_reference_bf16(void **state) {
    (void)state;
    Device *device;
    Error err;
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    bool has = device_has_bf16(device);
    device_close(device);
    if (!has) skip();
    check_reference("bf16");
}

/* ---- Whole answers. ---- */

static AnswerRequest request_of(const json_t *entry) {
    return (AnswerRequest){
        .prompt = json_string_value(json_object_get(entry, "prompt")),
        .image = (int)json_integer_value(json_object_get(entry, "image")),
        .length = (int)json_integer_value(json_object_get(entry, "length")),
    };
}

/* Checks that hold for every inspection of a result with a trace. */
static void check_inspection(const AnswerInspection *inspection, const DecodeResult *r, int k,
                             bool pure) {
    assert_int_equal(inspection->length, r->length);
    assert_int_equal(inspection->steps, r->steps);
    assert_int_equal(inspection->top_k, k);
    for (int s = 1; s <= r->steps; s++) {
        const TraceCell *cells = r->trace + (s - 1) * r->length;
        bool settled = inspection->step_canvas[s - 1] < 0;
        if (settled) assert_false(r->evaluated[s - 1]);
        for (int i = 0; i < r->length; i++) {
            const Proposal *best = answer_inspection_top_k(inspection, s, i);
            if (settled || !k) {
                assert_null(best);
                continue;
            }
            for (int j = 1; j < k; j++) assert_true(best[j].score <= best[j - 1].score);
            if (pure) assert_int_equal(best->token, cells[i].proposal.token);
            if (s == inspection->written[i] && pure) {
                assert_int_equal(best->token, r->tokens[i]);
                assert_true(fabs((double)best->score - r->scores[i]) <=
                            1e-4 * (1 + fabs((double)best->score)));
            }
        }
    }
    size_t patches = (size_t)inspection->grid * (size_t)inspection->grid;
    for (size_t p = 0; p < patches; p++) {
        double mean = 0;
        for (int i = 0; i < r->length; i++)
            mean += (double)inspection->maps[(size_t)i * patches + p];
        assert_true(fabs(mean / r->length - (double)inspection->answer_map[p]) <= 1e-6);
    }
    for (int i = 0; i < r->length && patches; i++) {
        double sum = 0;
        for (size_t p = 0; p < patches; p++)
            sum += (double)inspection->maps[(size_t)i * patches + p];
        assert_true(sum > 0.01 && sum < 0.99);
    }
}

/* The reference's answers, requested in one batch with others: written, canvases and maps. */
static void check_answers(int model, int batch_tokens) {
    Fixture f;
    Error err;
    json_error_t where;
    char path[256];
    fixture_open(&f, golden_folders[model], "f32");
    Checkpoint reference = reference_open(model);
    snprintf(path, sizeof path, "%s/decode.json", golden_folders[model]);
    json_t *list = json_load_file(path, 0, &where);
    assert_non_null(list);
    Tensor image = golden_image_tokens(&f.golden);
    for (int i = 0; i < IMAGE_CASES; i++) {
        const json_t *entry = json_array_get(list, (size_t)image_cases[i]);
        AnswerOptions options = answer_options_default();
        options.decode.iterations = (int)json_integer_value(json_object_get(entry, "iterations"));
        options.batch_tokens = batch_tokens;
        options.trace = true;
        options.inspection = (InspectOptions){.top_k = 3, .attention = true, .layers = true};
        assert_ok(decode_strategy_parse(
                      &options.decode, json_string_value(json_object_get(entry, "strategy")), &err),
                  &err);
        AnswerRequest requests[3] = {
            {.prompt = "Is it night?", .image = -1, .length = 4},
            request_of(entry),
            {.prompt = "Wo ist der Hund?", .image = 1 - request_of(entry).image, .length = 3}};
        Answers answers;
        assert_ok(multimodal_answer(&f.model.parts, image, requests, 3, &options, &answers, &err),
                  &err);
        for (int r = 0; r < 3; r++)
            check_inspection(&answers.inspections[r], &answers.results[r], 3, true);
        assert_int_equal(answers.inspections[0].grid, 0);
        assert_null(answers.inspections[0].maps);
        const AnswerInspection *inspection = &answers.inspections[1];
        Case c = case_open(&f, &reference, image_cases[i]);
        assert_int_equal(inspection->canvases, c.count);
        for (int n = 0; n < c.length; n++) assert_int_equal(inspection->written[n], c.written[n]);
        for (int s = 0; s < inspection->steps; s++)
            assert_int_equal(inspection->step_canvas[s], c.step_canvas[s]);
        Tensor want =
            golden(&reference, model ? "%d.blocks.layers" : "%d.full.layers", image_cases[i]);
        assert_int_equal(inspection->grid, 4);
        assert_int_equal(inspection->layers, want.shape[1]);
        assert_close(inspection->layer_maps, want.data, (size_t)tensor_count(want), 1e-5,
                     "layer_maps");
        case_close(&c);
        answers_free(&answers);
    }
    json_decref(list);
    checkpoint_close(&reference);
    fixture_close(&f);
}

static void test_answers(void **state) {
    (void)state;
    check_answers(0, 0);
    check_answers(1, 0);
    check_answers(0, 40);
    check_answers(1, 40);
}

/* Exactly what is requested is returned, and inspection changes no answer. */
static void test_options(void **state) {
    (void)state;
    for (int model = 0; model < 2; model++) {
        Fixture f;
        Error err;
        fixture_open(&f, golden_folders[model], "f32");
        Tensor image = golden_image_tokens(&f.golden);
        AnswerRequest requests[2] = {{.prompt = "Where is the blue square?", .image = 1},
                                     {.prompt = "Is the sky clear?", .image = 0, .length = 5}};
        for (int variant = 0; variant < 8; variant++) {
            Answers plain, looked;
            AnswerOptions options = answer_options_default();
            options.decode.iterations = 12;
            options.length_beam = 3, options.samples = 2;
            if (variant & 1) options.decode.temperature = 0.8f;
            if (variant == 6) decode_strategy_parse(&options.decode, "cmlm", &err);
            if (variant == 7) decode_strategy_parse(&options.decode, "ar", &err);
            assert_ok(multimodal_answer(&f.model.parts, image, requests, 2, &options, &plain, &err),
                      &err);
            assert_null(plain.inspections);
            assert_int_equal(plain.counts.inspections, 0);
            options.inspection.top_k = variant & 2 ? 2 : 0;
            options.inspection.attention = variant & 2 ? variant & 4 : true;
            options.inspection.all = variant & 4;
            options.trace = variant >= 4;
            assert_ok(
                multimodal_answer(&f.model.parts, image, requests, 2, &options, &looked, &err),
                &err);
            assert_int_equal(plain.result_count, looked.result_count);
            assert_true(looked.counts.inspections > 0);
            assert_int_equal(plain.counts.canvases, looked.counts.canvases);
            for (int h = 0; h < plain.result_count; h++) {
                const DecodeResult *a = &plain.results[h], *b = &looked.results[h];
                const AnswerInspection *inspection = &looked.inspections[h];
                assert_int_equal(a->length, b->length);
                assert_memory_equal(a->tokens, b->tokens, (size_t)a->length * sizeof *a->tokens);
                assert_memory_equal(a->scores, b->scores, (size_t)a->length * sizeof *a->scores);
                assert_int_equal(b->trace != NULL, options.trace);
                bool best = h == looked.items[looked.specs[h].request].best;
                if (!options.inspection.all && !best) {
                    assert_int_equal(inspection->length, 0);
                    continue;
                }
                assert_int_equal(inspection->grid, options.inspection.attention ? 4 : 0);
                assert_null(inspection->layer_maps);
                if (options.trace)
                    check_inspection(inspection, b, options.inspection.top_k,
                                     options.decode.temperature == 0);
            }
            answers_free(&plain), answers_free(&looked);
        }
        fixture_close(&f);
    }
}

/* A tower that keeps its class token: the maps are of the patches, without that first row. */
static void test_class_token(void **state) {
    (void)state;
    Fixture f;
    Error err;
    fixture_open(&f, golden_folders[1], "f32");
    Vit vit = f.model.vit;
    Multimodal parts = f.model.parts;
    vit.config.class_token = true;
    Tower tower = {.vit = &vit};
    parts.tower = &tower;
    Tensor image = golden_image_tokens(&f.golden);
    /* 34 rows are two images of 17. */
    int64_t width = image.shape[1];
    float *rows = calloc((size_t)(34 * width), sizeof *rows);
    memcpy(rows, image.data, (size_t)(32 * width) * sizeof *rows);
    memcpy(rows + 32 * width, image.data, (size_t)(2 * width) * sizeof *rows);
    AnswerRequest request = {.prompt = "Is it red?", .image = 1, .length = 4};
    AnswerOptions options = answer_options_default();
    options.decode.iterations = 1;
    options.inspection = (InspectOptions){.attention = true, .layers = true};
    Answers answers;
    Tensor tokens = tensor_2d(rows, DTYPE_F32, 34, width);
    assert_ok(multimodal_answer(&parts, tokens, &request, 1, &options, &answers, &err), &err);
    const AnswerInspection *inspection = &answers.inspections[0];
    assert_int_equal(inspection->grid, 4);
    /* The same by hand. */
    Ids ids = {0};
    assert_ok(tokenizer_encode(parts.tokenizer, request.prompt, strlen(request.prompt), &ids, &err),
              &err);
    InfillPrompt prompt = {ids.ids, (int)ids.count, 1};
    InfillConfig config = {.model = parts.language,
                           .device = f.device,
                           .pattern = parts.attention,
                           .mask_id = tokenizer_mask_id(parts.tokenizer),
                           .vocab_limit = tokenizer_size(parts.tokenizer),
                           .prompts = &prompt,
                           .prompt_count = 1,
                           .image_tokens = tokens,
                           .image_rows = 17};
    Infill *infill;
    float maps[4][17];
    InspectRow wanted[4];
    int32_t masks[4];
    for (int i = 0; i < 4; i++) masks[i] = config.mask_id, wanted[i] = (InspectRow){.map = maps[i]};
    DecodeCanvas canvas = {.request = 0, .length = 4, .tokens = masks};
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, 4, 5, &err), &err);
    assert_ok(infill_inspect(infill, &canvas, 1, wanted, 0, &err), &err);
    for (int i = 0; i < 4; i++)
        for (int p = 0; p < 16; p++) {
            assert_true(fabs((double)maps[i][1 + p] - (double)inspection->maps[i * 16 + p]) <=
                        1e-6);
            double mean = 0;
            for (int l = 0; l < inspection->layers; l++)
                mean += (double)inspection->layer_maps[(i * inspection->layers + l) * 16 + p];
            assert_true(fabs(mean / inspection->layers - (double)maps[i][1 + p]) <= 1e-6);
        }
    /* NaN ends the inspection, with attention and without. */
    for (int64_t i = 0; i < 34 * width; i++) rows[i] = NAN;
    infill_close(infill);
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, 4, 5, &err), &err);
    assert_refused(infill_inspect(infill, &canvas, 1, wanted, 0, &err), &err, "layer 1",
                   "not a number");
    Proposal alternative;
    memset(wanted, 0, sizeof wanted);
    wanted[2].alternatives = &alternative;
    assert_refused(infill_inspect(infill, &canvas, 1, wanted, 1, &err), &err, "logit", "nan");
    infill_close(infill);
    ids_free(&ids);
    answers_free(&answers);
    free(rows);
    fixture_close(&f);
}

/* ---- The position of patches. ---- */

static void test_rectangle(void **state) {
    (void)state;
    Error err;
    PatchRectangle r;
    PreprocessConfig config = preprocess_clip_default();
    assert_ok(patch_rectangle(&r, 640, 480, &config, &err), &err);
    /* 640x480 becomes 298x224, of which columns 37 to 261 are kept. */
    assert_true(fabs(r.left - 37 * 640.0 / 298) < 1e-9 && fabs(r.right - 261 * 640.0 / 298) < 1e-9);
    assert_true(r.top == 0 && fabs(r.bottom - 480) < 1e-9);
    config.pad = true;
    assert_ok(patch_rectangle(&r, 640, 480, &config, &err), &err);
    assert_true(r.left == 0 && fabs(r.right - 640) < 1e-9);
    assert_true(r.top == -80 && fabs(r.bottom - 560) < 1e-9);
    assert_ok(patch_rectangle(&r, 101, 300, &config, &err), &err);
    assert_true(r.left == -99 && fabs(r.right - 201) < 1e-9 && r.top == 0);
    assert_refused(patch_rectangle(&r, 0, 300, &config, &err), &err, "0x300");
}

static void test_cells(void **state) {
    (void)state;
    double out[9 * 9];
    float map[16 * 16];
    PatchRectangle whole = {0, 0, 70, 140};
    for (int i = 0; i < 49; i++) map[i] = (float)i;
    /* One patch, one cell, transposed. */
    assert_true(fabs(patch_map_cells(out, 7, map, 7, &whole, 70, 140) - 48 * 49 / 2) < 1e-9);
    for (int x = 0; x < 7; x++)
        for (int y = 0; y < 7; y++) assert_true(fabs(out[x * 7 + y] - (y * 7 + x)) < 1e-9);
    /* Four patches, nine cells: a corner patch gives its cell 1 / 1.5^2 of itself. */
    float four[4] = {9, 0, 0, 0};
    assert_true(fabs(patch_map_cells(out, 3, four, 2, &whole, 70, 140) - 9) < 1e-9);
    assert_true(fabs(out[0] - 4) < 1e-9 && fabs(out[1] - 2) < 1e-9 && fabs(out[3] - 2) < 1e-9 &&
                fabs(out[4] - 1) < 1e-9 && out[8] == 0);
    /* Random: 16 to 7 keeps the sum; each patch's share agrees with a fine grid of points. */
    TestRandom random = {4};
    double sum = 0;
    for (int i = 0; i < 256; i++) sum += (double)(map[i] = (float)test_random_uniform(&random));
    assert_true(fabs(patch_map_cells(out, 7, map, 16, &whole, 70, 140) - sum) < 1e-6);
    /* Padded above and below by a quarter of the square each: half is dropped; cropped: outer cells
     * are empty. */
    for (int i = 0; i < 256; i++) map[i] = 1;
    PatchRectangle padded = {0, -50, 200, 150}, cropped = {50, 0, 150, 100};
    assert_true(fabs(patch_map_cells(out, 7, map, 16, &padded, 200, 100) - 128) < 1e-9);
    for (int i = 0; i < 49; i++) assert_true(fabs(out[i] - 128.0 / 49) < 1e-9);
    assert_true(fabs(patch_map_cells(out, 4, map, 16, &cropped, 200, 100) - 256) < 1e-9);
    for (int y = 0; y < 4; y++)
        assert_true(out[y] == 0 && fabs(out[4 + y] - 32) < 1e-9 && fabs(out[8 + y] - 32) < 1e-9 &&
                    out[12 + y] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_CPU(test_layers),
        ON_CPU(test_shares),
        cmocka_unit_test(test_alternatives),
        cmocka_unit_test(test_reference_f32),
        cmocka_unit_test(test_reference_bf16),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_class_token),
        cmocka_unit_test(test_rectangle),
        cmocka_unit_test(test_cells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
