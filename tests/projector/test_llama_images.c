/* Images before a question to LLaDA-, Dream- and LLaMA-type models: 256 and 576 image tokens after
 * a chat template's beginning, logits against torch's (tests/reference/make_llama_images.py). */
#include "language/llama_train.h"
#include "projector/model_chat.h"
#include "projector/requests.h"
#include "tests/golden_models.h"
#include "tests/llama_folder.h"
#include "tests/matrix.h"

#include <math.h>

enum { MASK = 423, VOCAB = 431, TOKENS = 5, WIDTH = 16 };
#define QUESTION "Who are you?"

/* A folder, opened, and an image's tokens. */
typedef struct Asking {
    Run run;
    char folder[512];
    Device *device;
    Model model;
    Checkpoint golden;
    Tensor image;
} Asking;

static const char *chat_of(const char *kind, const char *attention) {
    static char settings[128];
    snprintf(settings, sizeof settings, "{\"chat_template\": \"%s\", \"attention\": \"%s\"}",
             strcmp(kind, "dream") ? "llama-3" : "dream", attention);
    return settings;
}

static void asking_open(Asking *a, const char *kind, int side, const char *settings) {
    Error err;
    char path[128];
    run_start(&a->run);
    llama_folder_make(&a->run, &(LlamaFolder){kind, settings, side}, a->folder, sizeof a->folder);
    snprintf(path, sizeof path, LLAMA_IMAGES "%s-golden.safetensors", kind);
    assert_ok(checkpoint_open(&a->golden, path, NULL, &err), &err);
    const ModelOptions options = {
        .folder = a->folder, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(test_device_open(&a->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&a->model, &options, a->device, &err), &err);
    uint8_t *pixels = llama_image_pixels(side);
    const Image image = {side, side, pixels};
    assert_ok(multimodal_encode(&a->model.parts, &image, 1, &a->image, &err), &err);
    free(pixels);
}

static void asking_close(Asking *a) {
    device_free(a->device, a->image.data);
    checkpoint_close(&a->golden);
    model_close(&a->model);
    device_close(a->device);
    run_end(&a->run);
}

static InfillConfig config_of(const Asking *a, const InfillPrompt *prompts, int count) {
    const Multimodal *m = &a->model.parts;
    return (InfillConfig){.model = m->language,
                          .device = a->device,
                          .pattern = m->attention,
                          .mask_id = MASK,
                          .vocab_limit = tokenizer_size(m->tokenizer),
                          .prompts = prompts,
                          .prompt_count = count,
                          .image_tokens = a->image,
                          .image_rows = multimodal_image_rows(m),
                          .image_lead = m->image_lead_ids,
                          .image_lead_count = m->image_lead_count};
}

/* The prompt's ids, and the lead's. */
static Prompts encoded(const Asking *a, Answer *answer) {
    Error err;
    Prompts prompts;
    char *prompt = strdup(QUESTION);
    assert_ok(model_chat_prompt(&a->model, NULL, 0, &prompt, &err), &err);
    const AnswerRequest r = {.prompt = prompt, .length = TOKENS};
    assert_ok(
        prompts_encode(&prompts, &a->model.parts, &r, 1, 1, LONG_PROMPTS_REFUSE, answer, &err),
        &err);
    if (answer->error) fail_msg("%s", answer->error);
    free(prompt);
    return prompts;
}

static void check_ids(const Checkpoint *c, const char *name, const int32_t *ids, int count) {
    int n;
    int32_t *want = golden_ids(c, name, 0, &n);
    assert_int_equal(count, n);
    assert_memory_equal(ids, want, (size_t)n * sizeof *ids);
    free(want);
}

/* Log-probabilities without the mask against those of torch's logits. */
static void check_scores(const double *scores, const float *logits, int limit) {
    double most = -INFINITY, sum = 0;
    for (int v = 0; v < limit; v++)
        if (v != MASK && (double)logits[v] > most) most = (double)logits[v];
    for (int v = 0; v < limit; v++)
        if (v != MASK) sum += exp((double)logits[v] - most);
    for (int v = 0; v < limit; v++) {
        if (v == MASK) continue;
        double want = (double)logits[v] - most - log(sum);
        if (fabs(scores[v] - want) > 1e-5 * (1 + fabs(want)))
            fail_msg("token %d: %.9g, expected %.9g", v, scores[v], want);
    }
}

/* Where a map is known, it is that; always shares. */
static void check_map(const Asking *a, const char *name, const float *map, int row, int rows) {
    const bool known = checkpoint_find(&a->golden, "map") &&
                       (a->model.parts.language.llama->config.tied == !strcmp(name, "blocks"));
    double share = 0;
    for (int p = 0; p < rows; p++) share += (double)map[p];
    assert_true(share > 0.01 && share < 1);
    if (!known) return;
    const float *want = (const float *)golden(&a->golden, "map", 0).data + row * rows;
    for (int p = 0; p < rows; p++) assert_true(fabsf(map[p] - want[p]) < 1e-5f * (1e-3f + want[p]));
}

/* The canvas of the golden file, with attention maps. */
static void check_logits(const Asking *a, const InfillConfig *config, const char *name) {
    Error err;
    Infill *infill;
    int n;
    int32_t *canvas = golden_ids(&a->golden, "canvas", 0, &n), all[VOCAB];
    const float *want = golden(&a->golden, name, 0).data;
    static double scores[TOKENS][VOCAB];
    static float maps[TOKENS][576];
    InspectRow rows[TOKENS];
    Proposal proposals[TOKENS];
    assert_int_equal(n, TOKENS);
    for (int v = 0; v < VOCAB; v++) all[v] = v;
    for (int i = 0; i < n; i++)
        rows[i] = (InspectRow){.given = all,
                               .given_count = config->vocab_limit,
                               .given_scores = scores[i],
                               .map = maps[i]};
    const DecodeCanvas c = {.length = n, .tokens = canvas};
    assert_ok(infill_open(&infill, config, &err), &err);
    assert_ok(infill_reserve(infill, n, n + 1, &err), &err);
    assert_ok(infill_inspect(infill, &c, 1, rows, 0, &err), &err);
    assert_ok(infill_evaluate(infill, &c, 1, 0, 0, proposals, &err), &err);
    for (int i = 0; i < n; i++) {
        check_scores(scores[i], want + i * VOCAB, config->vocab_limit);
        assert_true(fabs((double)proposals[i].score - scores[i][proposals[i].token]) < 1e-5);
        check_map(a, name, maps[i], i, config->image_rows);
    }
    infill_close(infill);
    free(canvas);
}

static void check_kind(const char *kind, int side, int32_t begin) {
    static const char *const patterns[] = {"full", "block-causal"}, *const names[] = {"full",
                                                                                      "blocks"};
    for (int p = 0; p < 2; p++) {
        Asking a;
        Answer answer;
        asking_open(&a, kind, side, chat_of(kind, patterns[p]));
        const Multimodal *m = &a.model.parts;
        assert_int_equal(m->language.begin, begin);
        check_ids(&a.golden, "lead", m->image_lead_ids, m->image_lead_count);
        Prompts prompts = encoded(&a, &answer);
        check_ids(&a.golden, "prompt", prompts.items[0].ids, prompts.items[0].count);
        assert_int_equal(a.image.shape[0], side / 14 * (side / 14));
        compare(tensor_rows(a.image, 0, 1), golden(&a.golden, "image", 0), 1e-5, "image", 0);
        InfillConfig config = config_of(&a, prompts.items, 1);
        check_logits(&a, &config, names[p]);
        config.no_kv_cache = true;
        check_logits(&a, &config, names[p]);
        prompts_free(&prompts);
        asking_close(&a);
    }
}

static void test_llada(void **state) {
    (void)state;
    check_kind("llada", 224, 420);
}

static void test_dream(void **state) {
    (void)state;
    check_kind("dream", 336, -1);
}

static void test_llama(void **state) {
    (void)state;
    check_kind("llama", 336, 420);
}

/* The rows of a prompt about the image and the canvas, which one span sees. */
typedef struct Packed {
    int32_t ids[700], image_rows[700], positions[700];
    int count;
} Packed;

static void pack(Packed *p, const int32_t *ids, int count, int image_rows) {
    for (int i = 0; i < count + image_rows; i++, p->count++) {
        p->ids[p->count] = i < count ? ids[i] : -1;
        p->image_rows[p->count] = i < count ? -1 : i - count;
        p->positions[p->count] = p->count;
    }
}

/* The loss's gradient reaches the image tokens of a frozen language model, as in the stage that trains
 * a projector. */
static void check_gradient(const char *kind, int side) {
    Asking a;
    Answer answer;
    Error err;
    Arena arena;
    Packed p = {.count = 0};
    int n;
    asking_open(&a, kind, side, chat_of(kind, "full"));
    const Multimodal *m = &a.model.parts;
    Model frozen; /* the language model again, for a backward pass */
    const ModelOptions options = {.folder = a.folder,
                                  .dtype = DTYPE_F32,
                                  .feature_layer = FEATURE_LAYER_UNSET,
                                  .describe_only = true};
    assert_ok(model_open(&frozen, &options, a.device, &err), &err);
    params_freeze(&frozen.language.params, true);
    assert_ok(params_train(&frozen.language.params, DTYPE_F32, &err), &err);
    const Llama *llama = frozen.parts.language.llama;
    Prompts prompts = encoded(&a, &answer);
    int32_t *canvas = golden_ids(&a.golden, "canvas", 0, &n);
    if (m->language.begin >= 0) pack(&p, &m->language.begin, 1, 0);
    const int rows = multimodal_image_rows(m);
    pack(&p, m->image_lead_ids, m->image_lead_count, rows);
    pack(&p, prompts.items[0].ids, prompts.items[0].count, 0);
    const int first = p.count - m->language.shifted;
    pack(&p, canvas, n, 0);
    AttentionSpan span = {.q_end = p.count, .range_count = 1, .range = {{0, p.count}}};
    const XlmrBatch batch = {.tokens = p.count,
                             .ids = p.ids,
                             .image_rows = p.image_rows,
                             .positions = p.positions,
                             .image_tokens = a.image,
                             .plan = {.spans = &span, .span_count = 1}};
    const int32_t picked[] = {first, first + 2, first + 4}, ids[] = {11, 25, 39};
    const float weights[] = {1 / 3.0f, 1 / 3.0f, 1 / 3.0f};
    const XlmrTargets targets = {.count = 3, .rows = picked, .ids = ids, .weights = weights};
    const TrainRun run = {.backward = true};
    float losses[3], *grad = calloc((size_t)rows * WIDTH, sizeof *grad), ends[8 * WIDTH];
    Tensor dimage = tensor_2d(NULL, DTYPE_F32, rows, WIDTH);
    assert_ok(device_alloc(a.device, &dimage.data, tensor_bytes(dimage), &err), &err);
    assert_ok(device_upload(a.device, dimage.data, grad, tensor_bytes(dimage), &err), &err);
    assert_ok(arena_open(&arena, a.device, llama_loss_bytes(llama, p.count, 3, &run, true), &err),
              &err);
    assert_ok(llama_check_batch(llama, &batch, &err), &err);
    assert_ok(llama_loss(llama, &arena, &batch, &targets, &run, losses, dimage, &err), &err);
    assert_ok(device_download(a.device, grad, dimage.data, tensor_bytes(dimage), &err), &err);
    double norm = 0, loss = 0;
    for (int i = 0; i < rows * WIDTH; i++) norm += (double)grad[i] * (double)grad[i];
    for (int i = 0; i < 3; i++) loss += (double)losses[i];
    memcpy(ends, grad, 4 * WIDTH * sizeof *ends);
    memcpy(ends + 4 * WIDTH, grad + (rows - 4) * WIDTH, 4 * WIDTH * sizeof *ends);
    compare(tensor_2d(ends, DTYPE_F32, 8, WIDTH), golden(&a.golden, "dimage", 0), 2e-5, kind, 0);
    const float want_norm = *(const float *)golden(&a.golden, "norm", 0).data,
                want_loss = *(const float *)golden(&a.golden, "loss", 0).data;
    assert_true(fabs(sqrt(norm) / (double)want_norm - 1) < 2e-5);
    assert_true(fabs(loss / (double)want_loss - 1) < 1e-5);
    device_free(a.device, dimage.data);
    arena_close(&arena);
    model_close(&frozen);
    free(grad), free(canvas);
    prompts_free(&prompts);
    asking_close(&a);
}

static void test_gradient(void **state) {
    (void)state;
    check_gradient("llada", 224);
    check_gradient("dream", 336);
    check_gradient("llama", 336);
}

/* Prompts that an image cannot be put into, that do not fit, and whose beginning is dropped. */
static void test_requests(void **state) {
    (void)state;
    Asking a;
    Error err;
    int tokens;
    asking_open(&a, "dream", 336, chat_of("dream", "full"));
    const Multimodal *m = &a.model.parts;
    AnswerRequest r = {.prompt = "Who?", .length = 4};
    assert_int_equal(multimodal_check(m, &r, &tokens, &err), -1);
    assert_non_null(strstr(err.text, "chat template"));
    r.image = -1; /* without an image it is a prompt like others */
    assert_ok(multimodal_check(m, &r, &tokens, &err), &err);
    char *prompt = calloc(1, 400);
    memset(prompt, 'x', 300);
    assert_ok(model_chat_prompt(&a.model, NULL, 0, &prompt, &err), &err);
    r = (AnswerRequest){.prompt = prompt, .length = 4};
    assert_int_equal(multimodal_check(m, &r, &tokens, &err), -1);
    assert_int_equal(err.code, ERROR_TOO_LONG);
    Answer answer;
    assert_ok(multimodal_check_long(m, &r, LONG_PROMPTS_KEEP_LAST, &answer, &err), &err);
    assert_null(answer.error);
    assert_int_equal(answer.prompt_tokens - answer.dropped_tokens,
                     700 - 4 - 576 - m->image_lead_count);
    free(prompt);
    asking_close(&a);
}

/* Without a template the image is before the prompt, as XLM-R's. */
static void test_no_template(void **state) {
    (void)state;
    Asking a;
    asking_open(&a, "llada", 224, "{\"chat_template\": \"none\"}");
    assert_null(a.model.parts.image_lead);
    assert_int_equal(a.model.parts.image_lead_count, 0);
    asking_close(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llada),       cmocka_unit_test(test_dream),
        cmocka_unit_test(test_llama),       cmocka_unit_test(test_requests),
        cmocka_unit_test(test_no_template), cmocka_unit_test(test_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
