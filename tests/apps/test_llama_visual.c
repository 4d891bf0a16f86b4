/* Training with images before models of LLaMA's kind: rows, positions and attention are those of
 * answering, and align and tune teach what ask then answers. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/train/trainer.h"
#include "language/infill_causal.h"
#include "language/infill_private.h"
#include "projector/model_chat.h"
#include "projector/requests.h"
#include "tests/images.h"
#include "tests/llama_folder.h"
#include "tests/matrix.h"
#include "tests/train_setup.h"

enum { TURNS = 3, MASK = 423, SEEN = 700 };

static const RecordTurn conversation[TURNS] = {
    {"  What is it?", "A dog, brown."},
    {"And why so?", "I do not know"},
    {"How old is it?", "three"},
};

/* ---- Rows. ---- */

typedef struct Family {
    const char *kind, *chat, *attention;
    int side;
} Family;

static const Family families[] = {
    {"llada", "llada", "full", 224},           {"llada", "llama-3.1", "block-causal", 224},
    {"dream", "dream", "block-causal", 224},   {"dream", "chatml", "full", 224},
    {"llama", "llama-2", "block-causal", 224}, {"llama", "none", "full", 336},
};

typedef struct Trained {
    Run run;
    Device *device;
    TrainSettings settings;
    TrainModel model;
} Trained;

static void trained_open(Trained *t, const Family *f, bool fresh) {
    Error err;
    char settings[200], folder[512];
    run_start(&t->run);
    snprintf(settings, sizeof settings,
             "{\"chat_template\": \"%s\", \"attention\": \"%s\", \"answer_length\": 6}", f->chat,
             f->attention);
    llama_folder_make(&t->run, &(LlamaFolder){f->kind, settings, f->side}, folder, sizeof folder);
    if (fresh) {
        char projector[600];
        snprintf(projector, sizeof projector, "%s/projector.safetensors", folder);
        assert_int_equal(unlink(projector), 0);
    }
    train_settings_default(&t->settings, STAGE_TUNE);
    t->settings.model.folder = folder;
    t->settings.max_tokens = SEEN;
    t->settings.noise.objective = OBJECTIVE_LLADA;
    if (fresh) t->settings.new_projector = PROJECTOR_LINEAR;
    assert_ok(test_device_open(&t->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(train_model_open(&t->model, &t->settings, t->device, &err), &err);
    t->settings.model.folder = NULL;
}

static void trained_close(Trained *t) {
    train_model_close(&t->model);
    device_close(t->device);
    run_end(&t->run);
}

static void make(Examples *examples, const Record *record, const ExampleConfig *config) {
    Error err;
    Skipped skipped = {0};
    assert_ok(examples_make(examples, record, config, "a record", &skipped, &err), &err);
    if (skipped.total) fail_msg("%s", skipped.kinds[0].first);
}

/* The ids of a question about an image, after the turns [first, turn), as answering makes them. */
static Prompts asked(const Trained *t, int first, int turn, int image, const char *question) {
    Error err;
    Answer answer;
    Prompts prompts;
    const Model *m = &t->model.model;
    char *prompt = strdup(question ? question : conversation[turn].prompt);
    AnswerRequest request = {.image = image, .length = 6};
    if (m->chats)
        assert_ok(model_chat_prompt(m, conversation + first, (size_t)(turn - first), &prompt, &err),
                  &err);
    else
        request.turns = conversation + first, request.turn_count = turn - first;
    request.prompt = prompt;
    assert_ok(
        prompts_encode(&prompts, &m->parts, &request, 1, 1, LONG_PROMPTS_REFUSE, &answer, &err),
        &err);
    if (answer.error) fail_msg("%s", answer.error);
    free(prompt);
    return prompts;
}

/* Spans before the first turn's: with block-causal attention that of what is before all turns. */
static int head_spans(const Trained *t, const Example *e) {
    const Multimodal *m = &t->model.model.parts;
    return m->attention == ATTENTION_BLOCK_CAUSAL && (m->language.begin >= 0 || e->image);
}

/* A batch of one example in which every turn has a masked token. */
static TrainBatch packed(const Trained *t, const Example *e) {
    Error err;
    TrainBatch b;
    PackingConfig c = trainer_packing(&t->model, &t->settings);
    const size_t pixels = 3 * (size_t)c.image_size * (size_t)c.image_size;
    float *image = calloc(pixels, sizeof *image);
    const bool blocks = c.pattern == ATTENTION_BLOCK_CAUSAL;
    for (uint64_t stream = 0;; stream++) {
        const PackingItem item = {
            .example = e, .stream = stream, .pixels = e->image ? image : NULL};
        assert_ok(packing_build(&b, &c, &item, 1, 1, &err), &err);
        if (b.span_count == head_spans(t, e) + (1 + blocks) * e->count) break;
        train_batch_free(&b);
        assert_true(stream < 1000);
    }
    assert_true(b.tokens <= packing_rows(&c, e));
    free(image);
    return b;
}

static const AttentionSpan *span_of(const AttentionSpan *spans, int row) {
    while (row >= spans->q_end) spans++;
    return spans;
}

static bool sees(const AttentionSpan *s, int row) {
    for (int r = 0; r < s->range_count; r++)
        if (row >= s->range[r].begin && row < s->range[r].end) return true;
    return false;
}

/* The rows that a span of the batch sees are the sequence that answering assembles, in content,
 * position and in what each of them sees. */
static void check_sequence(const Trained *t, const TrainBatch *b, const AttentionSpan *copy,
                           const Prompts *prompts) {
    static const float nothing[1];
    Error err;
    int at[SEEN], count = 0;
    const Multimodal *m = &t->model.model.parts;
    for (int row = 0; row < b->tokens; row++)
        if (sees(copy, row)) at[count++] = row;
    Infill *f;
    const InfillConfig config = {.model = m->language,
                                 .device = t->device,
                                 .pattern = m->attention,
                                 .no_kv_cache = true,
                                 .mask_id = MASK,
                                 .prompts = prompts->items,
                                 .prompt_count = 1,
                                 .image_tokens = tensor_2d((void *)(uintptr_t)nothing, DTYPE_F32,
                                                           multimodal_image_rows(m), 16),
                                 .image_rows = multimodal_image_rows(m),
                                 .image_lead = m->image_lead_ids,
                                 .image_lead_count = m->image_lead_count};
    assert_ok(infill_open(&f, &config, &err), &err);
    const int prefix = infill_prefix_length(f, 0), length = count - prefix;
    assert_true(length > 0);
    assert_ok(infill_reserve(f, length, length + 1, &err), &err);
    int32_t canvas[SEEN];
    for (int i = 0; i < length; i++) canvas[i] = b->ids[at[prefix + i]];
    const DecodeCanvas decoded = {.tokens = canvas, .length = length};
    rows_clear(&f->rows);
    push_sequence(f, 0, &decoded);
    assert_int_equal(f->rows.count, count);
    for (int i = 0; i < count; i++) {
        const int row = at[i], image = b->image_rows ? b->image_rows[row] : -1;
        assert_int_equal(f->rows.ids[i], b->ids[row]);
        assert_int_equal(f->rows.positions[i], b->positions[row]);
        assert_int_equal(f->rows.image_rows[i], image);
        const AttentionSpan *answering = span_of(f->rows.spans, i);
        const AttentionSpan *training = span_of(b->spans, row);
        for (int k = 0; k < count; k++) assert_int_equal(sees(answering, k), sees(training, at[k]));
    }
    infill_close(f);
}

static void check_turns(const Trained *t, const Example *e, int first, int turn, bool context,
                        bool plain) {
    TrainBatch b = packed(t, e);
    const bool blocks = t->model.model.parts.attention == ATTENTION_BLOCK_CAUSAL;
    for (int k = 0; k < e->count; k++) {
        const int asking = turn + k;
        Prompts prompts =
            asked(t, context ? first : asking, asking, e->image ? 0 : -1, plain ? "" : NULL);
        assert_int_equal(prompts.items[0].count, e->turns[k].prompt_count);
        if (e->turns[k].prompt_count)
            assert_memory_equal(prompts.items[0].ids, e->turns[k].prompt,
                                (size_t)e->turns[k].prompt_count * sizeof(int32_t));
        check_sequence(t, &b, &b.spans[head_spans(t, e) + (1 + blocks) * k + blocks], &prompts);
        prompts_free(&prompts);
    }
    train_batch_free(&b);
}

/* With and without an image, turns alone, together (block-causal) and after each other. */
static void test_rows(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        Trained t;
        Examples examples = {0};
        trained_open(&t, &families[f], f % 2);
        const Multimodal *m = &t.model.model.parts;
        assert_int_equal(m->image_lead != NULL, strcmp(families[f].chat, "none") != 0);
        for (int way = 0; way < 4; way++) {
            const bool context = way & 1, image = way & 2;
            const Record record = {.id = "1",
                                   .image = image ? (char *)"x.png" : NULL,
                                   .turns = (RecordTurn *)conversation,
                                   .count = TURNS};
            t.settings.context = context;
            ExampleConfig config = trainer_examples(&t.model, &t.settings);
            make(&examples, &record, &config);
            int turn = 0;
            for (int i = 0; i < examples.count; i++) {
                const Example *e = &examples.items[i];
                assert_int_equal(e->image, image);
                check_turns(&t, e, 0, turn, context, false);
                turn += e->count;
            }
            assert_int_equal(turn, TURNS);
            if (!context && config.together && image) assert_int_equal(examples.count, 1);
        }
        examples_free(&examples);
        trained_close(&t);
    }
}

/* Captions without a question: the image has the same place. */
static void test_captions(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        Trained t;
        Examples examples = {0};
        trained_open(&t, &families[f], false);
        t.settings.plain = true;
        ExampleConfig config = trainer_examples(&t.model, &t.settings);
        const Record record = {
            .id = "1", .image = (char *)"x.png", .turns = (RecordTurn *)conversation, .count = 1};
        make(&examples, &record, &config);
        const Example *e = &examples.items[0];
        const Multimodal *m = &t.model.model.parts;
        assert_int_equal(e->turns[0].prompt_count, 0);
        assert_int_equal(e->tokens, (m->language.begin >= 0) + m->image_lead_count +
                                        multimodal_image_rows(m) + e->turns[0].answer_count);
        if (m->attention == ATTENTION_FULL) check_turns(&t, e, 0, 0, false, true);
        examples_free(&examples);
        trained_close(&t);
    }
}

/* As many turns as fit beside the image, which is before the first of those. */
static void test_room(void **state) {
    (void)state;
    Trained t;
    Examples all = {0}, some = {0};
    trained_open(&t, &families[1], false);
    t.settings.context = true;
    const Record record = {
        .id = "1", .image = (char *)"x.png", .turns = (RecordTurn *)conversation, .count = TURNS};
    ExampleConfig config = trainer_examples(&t.model, &t.settings);
    make(&all, &record, &config);
    const Example *last = &all.items[TURNS - 1];
    config.longest = last->tokens;
    make(&some, &record, &config);
    assert_int_equal(some.items[TURNS - 1].tokens, last->tokens);
    config.longest--;
    make(&some, &record, &config);
    assert_true(some.items[TURNS - 1].tokens < last->tokens);
    check_turns(&t, &some.items[TURNS - 1], 1, TURNS - 1, true, false);
    Skipped skipped = {0};
    Error err;
    config.longest = 1 + config.image_rows + config.image_lead_count + 4;
    assert_ok(examples_make(&some, &record, &config, "a record", &skipped, &err), &err);
    assert_true(skipped.total == 1 && some.count == 0);
    examples_free(&all), examples_free(&some);
    trained_close(&t);
}

/* ---- Autoregressive answers. ---- */

/* What ask reports is what it does. */
static void check_strategy(Run *r, const char *folder) {
    char image[512];
    uint8_t *pixels = llama_image_pixels(32);
    path_in(image, sizeof image, r, "image.png");
    image_write(image, pixels, 32, 32);
    free(pixels);
    run(r, "ask", "-m", (char *)folder, "--length", "3", image, "What is it?");
    if (r->status) fail_msg("%s", r->err);
    if (!strstr(r->err, "by      ar,")) fail_msg("no strategy: %s", r->err);
    run(r, "ask", "--json", "-m", (char *)folder, "--length", "3", image, "What is it?");
    assert_int_equal(r->status, 0);
    run(r, "ask", "-m", (char *)folder, "--length", "3", "--strategy", "cmlm", image,
        "What is it?");
    assert_message(r, 1, "autoregressive", "cmlm");
}

/* The next token after an image by the cache of written tokens is that of whole sequences. */
static void test_causal(void **state) {
    (void)state;
    static const Family causal[] = {{"llama", "llama-2", "causal", 224},
                                    {"dream", "dream", "causal", 224}};
    for (int f = 0; f < 2; f++) {
        Run r;
        Error err;
        char settings[160], folder[512];
        Device *device;
        Model model;
        run_start(&r);
        snprintf(settings, sizeof settings,
                 "{\"chat_template\": \"%s\", \"attention\": \"causal\"}", causal[f].chat);
        llama_folder_make(&r, &(LlamaFolder){causal[f].kind, settings, 224}, folder, sizeof folder);
        const ModelOptions options = {
            .folder = folder, .dtype = DTYPE_F32, .feature_layer = FEATURE_LAYER_UNSET};
        check_strategy(&r, folder);
        assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
        assert_ok(model_open(&model, &options, device, &err), &err);
        const Multimodal *m = &model.parts;
        assert_true(m->image_lead_count > 0);
        uint8_t *pixels = llama_image_pixels(224);
        const Image image = {224, 224, pixels};
        Tensor tokens;
        assert_ok(multimodal_encode(m, &image, 1, &tokens, &err), &err);
        free(pixels);
        const int32_t ids[] = {40, 51, 62};
        const InfillPrompt prompt = {.ids = ids, .count = 3, .image = 0};
        const InfillConfig config = {.model = m->language,
                                     .device = device,
                                     .pattern = m->attention,
                                     .mask_id = MASK,
                                     .vocab_limit = tokenizer_size(m->tokenizer),
                                     .prompts = &prompt,
                                     .prompt_count = 1,
                                     .image_tokens = tokens,
                                     .image_rows = multimodal_image_rows(m),
                                     .image_lead = m->image_lead_ids,
                                     .image_lead_count = m->image_lead_count};
        Infill *infill;
        InfillCausal *kept;
        const DecodeSpec spec = {.length = 4};
        assert_ok(infill_open(&infill, &config, &err), &err);
        assert_ok(infill_reserve(infill, 4, 5, &err), &err);
        assert_ok(infill_causal_open(&kept, infill, &spec, 1, &err), &err);
        int32_t canvas[4] = {MASK, MASK, MASK, MASK};
        for (int i = 0; i < 4; i++) {
            Proposal whole[4], next[4];
            const DecodeCanvas c = {.tokens = canvas, .length = 4};
            assert_ok(infill_evaluate(infill, &c, 1, 0, 0, whole, &err), &err);
            assert_ok(infill_causal_evaluate(kept, &c, 1, 0, 0, next, &err), &err);
            assert_int_equal(next[i].token, whole[i].token);
            assert_true(fabsf(next[i].score - whole[i].score) < 1e-5F);
            canvas[i] = 30 + i;
        }
        infill_causal_close(kept);
        infill_close(infill);
        device_free(device, tokens.data);
        model_close(&model);
        device_close(device);
        run_end(&r);
    }
}

/* ---- Training. ---- */

#define QUESTION "What is it?"
#define AGAIN    "And how?"

/* Two images, each with a caption and a conversation. */
static void write_set(const Run *r, char *images, char *captions, char *talks) {
    static uint8_t pixels[2][8 * 8 * 3];
    char path[340];
    path_in(images, 300, r, "images");
    assert_int_equal(mkdir(images, 0755), 0);
    for (int i = 0; i < 2; i++) {
        memset(pixels[i], i ? 250 : 5, sizeof pixels[i]);
        snprintf(path, sizeof path, "%s/%d.png", images, i);
        image_write(path, pixels[i], 8, 8);
    }
    write_text_in(
        r, "captions.json",
        "[{\"id\": \"0\", \"image\": \"0.png\", \"conversations\": [{\"from\": \"human\", "
        "\"value\": \"<image>\\nSay.\"}, {\"from\": \"gpt\", \"value\": \"no\"}]},"
        "{\"id\": \"1\", \"image\": \"1.png\", \"conversations\": [{\"from\": \"human\", "
        "\"value\": \"<image>\\nSay.\"}, {\"from\": \"gpt\", \"value\": \"yes\"}]}]",
        captions);
    write_text_in(
        r, "talks.json",
        "[{\"id\": \"0\", \"image\": \"0.png\", \"conversations\": [{\"from\": \"human\", "
        "\"value\": \"<image>\\n" QUESTION "\"}, {\"from\": \"gpt\", \"value\": \"no\"}, "
        "{\"from\": \"human\", \"value\": \"" AGAIN "\"}, {\"from\": \"gpt\", \"value\": "
        "\"so\"}]},"
        "{\"id\": \"1\", \"image\": \"1.png\", \"conversations\": [{\"from\": \"human\", "
        "\"value\": \"<image>\\n" QUESTION "\"}, {\"from\": \"gpt\", \"value\": \"yes\"}, "
        "{\"from\": \"human\", \"value\": \"" AGAIN "\"}, {\"from\": \"gpt\", \"value\": "
        "\"so\"}]}]",
        talks);
}

static void check_lower(const Run *r, const char *name, double share) {
    double losses[400];
    const int last = read_losses(r, name, "valid_loss", losses, 400);
    if (!(losses[last] < share * losses[0]))
        fail_msg("%s: loss %g at first, %g at last", name, losses[0], losses[last]);
}

static const struct Stages {
    const char *kind, *chat, *attention, *context;
} stages[] = {
    {"llada", "llada", "full", "on"},
    {"dream", "dream", "block-causal", "off"},
};

static void train_stages(const struct Stages *s) {
    Run r;
    char folder[512], images[300], captions[300], talks[300], align[300], tune[300], model[340];
    char settings[160], image[340];
    run_start(&r);
    snprintf(settings, sizeof settings, "{\"chat_template\": \"%s\"}", s->chat);
    llama_folder_make(&r, &(LlamaFolder){s->kind, settings, 224}, folder, sizeof folder);
    write_set(&r, images, captions, talks);
    path_in(align, sizeof align, &r, "align"), path_in(tune, sizeof tune, &r, "tune");
    run_ok(&r, "train", "align", "-m", folder, "--data", captions, "--images", images, "--out",
           align, "--steps", "60", "--batch-sequences", "2", "--lr", "1e-2", "--new-projector",
           "mlp2x_gelu", "--attention", (char *)s->attention, "--valid", captions, "-q");
    check_lower(&r, "align/metrics.jsonl", 0.95);
    snprintf(model, sizeof model, "%s/model", align);
    run_ok(&r, "train", "tune", "-m", model, "--data", talks, "--images", images, "--out", tune,
           "--steps", "140", "--batch-sequences", "4", "--lr", "1e-2", "--dropout", "0",
           "--pad-answers", "4", "--context", (char *)s->context, "--valid", talks, "--valid-every",
           "1000");
    check_lower(&r, "tune/metrics.jsonl", 0.3);
    if (!strstr(r.err, "wanted")) fail_msg("no answers were shown: %s", r.err);
    snprintf(model, sizeof model, "%s/model", tune);
    for (int i = 0; i < 2; i++) {
        snprintf(image, sizeof image, "%s/%d.png", images, i);
        run(&r, "ask", "-q", "-m", model, image, QUESTION);
        expect(&r, 0, i ? "yes\n" : "no\n");
    }
    run_end(&r);
}

static void test_stages_full(void **state) {
    (void)state;
    train_stages(&stages[0]);
}

static void test_stages_block_causal(void **state) {
    (void)state;
    train_stages(&stages[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_captions),
        cmocka_unit_test(test_room),        cmocka_unit_test(test_causal),
        cmocka_unit_test(test_stages_full), cmocka_unit_test(test_stages_block_causal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
