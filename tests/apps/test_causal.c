/* Autoregressive models, and masked diffusion with shifted targets: trained as torch trains them,
 * written as transformers writes (tests/reference/make_causal.py); adapted from one to the other;
 * runs that are resumed. */
#include "tests/opened.h"
#include "tests/train_setup.h"
#include "tests/matrix.h"

#include <math.h>
#include <unistd.h>

#include "projector/answers.h"
#include "projector/model.h"
#include "projector/model_mask.h"

#define GOLDEN  "tests/golden/causal"
#define FOLDERS "tests/golden/llama/folders"
enum { MOST = 64, PAIRS = 5, NEW_TOKENS = 20 };

static const char *const kinds[] = {"llama", "qwen2"};
static json_t *golden_json;

static int golden_open(void **state) {
    (void)state;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* fsync costs nothing */
    golden_json = json_load_file(GOLDEN "/golden.json", 0, NULL);
    return golden_json ? 0 : -1;
}

static int golden_close(void **state) {
    (void)state;
    json_decref(golden_json);
    return 0;
}

static const json_t *golden_of(const char *kind, const char *name) {
    const json_t *value = json_object_get(json_object_get(golden_json, kind), name);
    if (!value) fail_msg("golden.json has no %s of %s", name, kind);
    return value;
}

/* The settings of the golden runs: all data in each step, no dropout, a constant rate. */
#define AS_GOLDEN                                                                           \
    "--lr", "3e-3", "--schedule", "constant", "--warmup-ratio", "0", "--warmup-steps", "0", \
        "--dropout", "0", "--beta2", "0.95", "--weight-decay", "0.1", "--log-every", "1", "-q"

static void assert_losses(const Run *r, const char *name, const json_t *want) {
    double losses[MOST];
    char metrics[300];
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", name);
    const int steps = read_losses(r, metrics, "loss", losses, MOST);
    assert_int_equal(steps, json_array_size(want));
    for (int i = 1; i <= steps; i++) {
        const double expected = json_number_value(json_array_get(want, (size_t)i - 1));
        if (!(fabs(losses[i] - expected) <= 1e-6 * expected))
            fail_msg("%s: the loss of step %d is %.9g, expected %.9g", name, i, losses[i],
                     expected);
    }
}

/* ---- Training. ---- */

static void test_autoregressive(void **state) {
    (void)state;
    Run r;
    char out[300], folder[128];
    run_start(&r);
    for (int k = 0; k < 2; k++) {
        path_in(out, sizeof out, &r, kinds[k]);
        snprintf(folder, sizeof folder, GOLDEN "/%s", kinds[k]);
        run_ok(&r, "train", "instruct", "--objective", "ar", "-m", folder, "--data",
               GOLDEN "/pairs.jsonl", "--out", out, "--steps", "20", "--batch-sequences", "5",
               "--dtype", "f32", AS_GOLDEN, k ? "--micro-batch-tokens" : NULL, "20");
        assert_losses(&r, kinds[k], golden_of(kinds[k], "losses"));
        json_t *settings =
            read_json(&r, k ? "qwen2/model/easyfirst.json" : "llama/model/easyfirst.json");
        assert_string_equal(json_string_value(json_object_get(settings, "attention")), "causal");
        json_decref(settings);
    }
    run_end(&r);
}

static void test_shifted_diffusion(void **state) {
    (void)state;
    Run r;
    char out[300], data[300], name[32];
    run_start(&r);
    write_text_in(&r, "one.jsonl",
                  "{\"inputs\": \"How are you today?\", \"targets\": \"fine, and how do you "
                  "do?\"}\n",
                  data);
    for (int i = 0; i < 4; i++) {
        char *objective = i / 2 ? "llada" : "rdm", *attention = i % 2 ? "block-causal" : "full";
        char key[64];
        snprintf(key, sizeof key, "%s %s", objective, attention);
        snprintf(name, sizeof name, "run%d", i);
        path_in(out, sizeof out, &r, name);
        run_ok(&r, "train", "adapt", "--objective", objective, "--attention", attention, "-m",
               FOLDERS "/dream", "--data", data, "--out", out, "--steps", "12", "--batch-sequences",
               "1", "--dtype", "f32", AS_GOLDEN);
        assert_losses(&r, name, golden_of("dream", key));
    }
    run_end(&r);
}

/* ---- Writing. ---- */

static json_t *read_pairs(Run *r) {
    (void)r;
    FILE *file = fopen(GOLDEN "/pairs.jsonl", "r");
    json_t *list = json_array(), *pair;
    assert_non_null(file);
    while ((pair = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)))
        json_array_append_new(list, pair);
    fclose(file);
    assert_int_equal(json_array_size(list), PAIRS);
    return list;
}

static void ask(const Opened *o, const json_t *pairs, const AnswerOptions *how, Answers *answers) {
    Error err;
    AnswerRequest requests[PAIRS];
    for (int i = 0; i < PAIRS; i++)
        requests[i] = (AnswerRequest){.prompt = json_string_value(json_object_get(
                                          json_array_get(pairs, (size_t)i), "inputs")),
                                      .image = -1,
                                      .length = NEW_TOKENS};
    assert_ok(multimodal_answer(&o->model.parts, TENSOR_NONE, requests, PAIRS, how, answers, &err),
              &err);
}

/* The tokens are transformers', and after the end token there is nothing else. */
static void check_answers(const Answers *answers, const json_t *want, int32_t end) {
    for (int i = 0; i < PAIRS; i++) {
        const DecodeResult *result = &answers->results[answers->items[i].best];
        const json_t *tokens = json_array_get(want, (size_t)i);
        const int count = (int)json_array_size(tokens);
        assert_int_equal(result->length, NEW_TOKENS);
        for (int t = 0; t < NEW_TOKENS; t++)
            assert_int_equal(result->tokens[t],
                             t < count ? json_integer_value(json_array_get(tokens, (size_t)t))
                                       : end);
        assert_int_equal(result->evaluations, count);
    }
}

static void test_greedy(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    json_t *pairs = read_pairs(&r);
    for (int k = 0; k < 2; k++) {
        Opened o;
        Answers answers;
        char folder[128];
        snprintf(folder, sizeof folder, GOLDEN "/%s", kinds[k]);
        opened_open(&o, folder);
        assert_int_equal(o.model.parts.attention, ATTENTION_CAUSAL);
        assert_int_equal(o.model.parts.answer_length, 24); /* half of the sequence */
        for (int batch = 0; batch < 3; batch++) {
            AnswerOptions how = answer_options_default();
            how.no_kv_cache = batch == 2;
            how.batch_tokens = batch == 1 ? 7 : 0;
            ask(&o, pairs, &how, &answers);
            check_answers(&answers, golden_of(kinds[k], "answers"), k ? 0 : 2);
            /* With the cache each written token is evaluated once: rows of prompts and answers. */
            if (batch != 2) {
                int64_t rows = 0;
                for (int i = 0; i < PAIRS; i++)
                    rows += answers.items[i].prompt_tokens + !k - 1 +
                            answers.results[answers.items[i].best].evaluations;
                assert_int_equal(answers.counts.rows, rows);
            }
            answers_free(&answers);
        }
        opened_close(&o);
    }
    json_decref(pairs);
    run_end(&r);
}

/* Drawn tokens are the same with and without the cache, and for any batch. */
static void test_drawn(void **state) {
    (void)state;
    Run r;
    Opened o;
    Answers answers[3];
    run_start(&r);
    json_t *pairs = read_pairs(&r);
    opened_open(&o, GOLDEN "/qwen2");
    for (int i = 0; i < 3; i++) {
        AnswerOptions how = answer_options_default();
        how.decode.temperature = 0.9f, how.decode.seed = 12, how.samples = 2;
        how.no_kv_cache = i == 1, how.batch_tokens = i == 2 ? 9 : 0;
        ask(&o, pairs, &how, &answers[i]);
    }
    int differ = 0;
    for (int h = 0; h < answers[0].result_count; h++)
        for (int t = 0; t < NEW_TOKENS; t++) {
            for (int i = 1; i < 3; i++)
                assert_int_equal(answers[i].results[h].tokens[t], answers[0].results[h].tokens[t]);
            differ +=
                h % 2 && answers[0].results[h].tokens[t] != answers[0].results[h - 1].tokens[t];
        }
    assert_true(differ > 10);
    for (int i = 0; i < 3; i++) answers_free(&answers[i]);
    json_decref(pairs);
    opened_close(&o);
    run_end(&r);
}

static void test_not_for_causal(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    run(&r, "text", "-m", GOLDEN "/llama", "--strategy", "cmlm", "one");
    assert_message(&r, 1, "autoregressive", "cmlm");
    run(&r, "text", "-m", GOLDEN "/llama", "--guidance", "2", "one");
    assert_message(&r, 1, "guidance", "autoregressive");
    run(&r, "text", "-m", GOLDEN "/llama", "--early-stop", "2", "one");
    assert_message(&r, 1, "early stop", "autoregressive");
    run(&r, "text", "-m", GOLDEN "/llama", "--template", "a ___", "-q", "one");
    assert_int_equal(r.status, 1); /* the prompt has an empty line of output */
    assert_non_null(strstr(r.err, "template is given, and this model is autoregressive"));
    run(&r, "text", "-m", GOLDEN "/llama", "--one-of", "a,b", "-q", "one");
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "autoregressive"));
    run(&r, "text", "-m", GOLDEN "/qwen2", "--length", "3", "-q", ""); /* nothing to begin with */
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.err, "needs a prompt"));
    run(&r, "text", "-m", GOLDEN "/llama", "--length", "3", "-q", "");
    assert_int_equal(r.status, 0);
    run_end(&r);
}

/* What shows steps shows those, too: masks have no id of their own where there is none. */
static void test_shown(void **state) {
    (void)state;
    Run r;
    char trace[300], page[300];
    run_start(&r);
    path_in(trace, sizeof trace, &r, "trace.json"), path_in(page, sizeof page, &r, "page.html");
    run(&r, "show", "-m", GOLDEN "/llama", "--text", "one two three", "--length", "4", "--json",
        trace, "--html", page, "-q");
    assert_int_equal(r.status, 0);
    char *shown = strdup(r.out);
    assert_int_equal(count_lines(shown), 5); /* a line a step, and the answer */
    assert_true(has_file(&r, "page.html"));
    run(&r, "show", "--from", trace);
    expect(&r, 0, shown);
    free(shown);
    run_text(&r, "one two\nx\n", "chat", "-m", GOLDEN "/llama", "--context", "off", "--length", "3",
             "-q");
    assert_int_equal(r.status, 0);
    assert_int_equal(count_lines(r.out), 2);
    run_end(&r);
}

/* ---- Perplexity. ---- */

static void test_perplexity(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int k = 0; k < 2; k++) {
        char folder[128];
        snprintf(folder, sizeof folder, GOLDEN "/%s", kinds[k]);
        run(&r, "eval", "likelihood", "-m", folder, "--dtype", "f32", "--json", GOLDEN "/text.txt",
            "--batch-tokens", k ? "50" : "4096");
        expect(&r, 0, NULL);
        assert_true((strstr(r.err, "first token of each of") != NULL) == k);
        json_t *json = json_loads(r.out, 0, NULL), *score = json_object_get(json, "score");
        const double nats = json_number_value(json_object_get(score, "nats"));
        const double want = json_number_value(golden_of(kinds[k], "nats"));
        const double tokens = (double)json_integer_value(golden_of(kinds[k], "tokens"));
        assert_int_equal(json_integer_value(json_object_get(score, "tokens")), (int)tokens);
        assert_true(json_is_false(json_object_get(score, "upper_bound")));
        assert_true(json_integer_value(json_object_get(score, "evaluations")) >
                    json_integer_value(json_object_get(json, "texts"))); /* windows */
        assert_true(fabs(nats - want) < 1e-6 * want);
        const double perplexity = json_number_value(json_object_get(score, "perplexity"));
        assert_true(fabs(perplexity / exp(want / tokens) - 1) < 1e-5);
        const double bits = json_number_value(json_object_get(score, "bits_per_byte"));
        assert_true(fabs(bits - want / log(2) / 205) < 1e-5);
        json_decref(json);
    }
    run(&r, "eval", "perplexity");
    assert_message(&r, 2, "unknown evaluation");
    run_end(&r);
}

/* ---- Runs. ---- */

/* Stopped and resumed, in micro-batches, with validation: the same losses and the same weights. */
static void check_resumed(Run *r, const char *name, char *const *what) {
    char whole[300], part[300], file[128];
    char *args[48] = {"train"};
    snprintf(file, sizeof file, "%s-whole", name), path_in(whole, sizeof whole, r, file);
    snprintf(file, sizeof file, "%s-part", name), path_in(part, sizeof part, r, file);
    int n = 1;
    while (*what) args[n++] = *what++;
    char *const rest[] = {"--data",
                          GOLDEN "/pairs.jsonl",
                          "--valid",
                          GOLDEN "/pairs.jsonl",
                          "--steps",
                          "9",
                          "--batch-sequences",
                          "2",
                          "--micro-batch-tokens",
                          "16",
                          "--lr",
                          "3e-3",
                          "--schedule",
                          "wsd",
                          "--decay-steps",
                          "4",
                          "--warmup-steps",
                          "2",
                          "--dropout",
                          "0.1",
                          "--save-every",
                          "3",
                          "--valid-every",
                          "4",
                          "--log-every",
                          "1",
                          "-q"};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) args[n++] = rest[i];
    args[n++] = "--out", args[n] = whole;
    run_files(r, "/dev/null", NULL, args);
    expect(r, 0, "");
    args[n++] = part, args[n++] = "--stop-after", args[n++] = "5";
    run_files(r, "/dev/null", NULL, args);
    expect(r, 0, "");
    run_ok(r, "train", "--resume", "--out", part, "-q");
    char a[128], b[128];
    snprintf(a, sizeof a, "%s-whole", name), snprintf(b, sizeof b, "%s-part", name);
    assert_same_run(r, a, b, 9);
}

static void test_resumed(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    check_resumed(&r, "ar",
                  (char *[]){"instruct", "--objective", "ar", "-m", GOLDEN "/qwen2", NULL});
    check_resumed(&r, "adapted", (char *[]){"adapt", "-m", GOLDEN "/llama", NULL});
    check_resumed(&r, "lora",
                  (char *[]){"instruct", "-m", FOLDERS "/llada", "--objective", "llada",
                             "--lora-rank", "2", "--lora-targets", "all", NULL});
    run_end(&r);
}

/* From a causal model: its attention becomes full (or block-causal), its vocabulary gets a mask,
 * the loss falls, and what was learned is written. */
static void check_adapted(Run *r, const char *kind, char *attention) {
    char out[300], folder[128], name[64], model[340], text[64];
    double losses[MOST * 4];
    snprintf(name, sizeof name, "%s-%s", kind, attention ? attention : "default");
    path_in(out, sizeof out, r, name);
    snprintf(folder, sizeof folder, GOLDEN "/%s", kind);
    run_ok(r, "train", "adapt", "-m", folder, "--data", GOLDEN "/pairs.jsonl", "--out", out,
           "--steps", "150", "--batch-sequences", "5", "--lr", "1e-2", "--schedule", "wsd",
           "--warmup-steps", "5", "--dropout", "0", "--log-every", "5", "--save-dtype", "f32", "-q",
           attention ? "--attention" : NULL, attention);
    snprintf(model, sizeof model, "%s/metrics.jsonl", name);
    const int last = read_losses(r, model, "loss", losses, MOST * 4);
    assert_int_equal(last, 150);
    assert_true(losses[150] < 0.3 * losses[5]);
    snprintf(model, sizeof model, "%s/model", out);
    Opened o;
    opened_open(&o, model);
    const Multimodal *m = &o.model.parts;
    const bool grown = !strcmp(kind, "llama");
    assert_int_equal(m->attention, attention ? ATTENTION_BLOCK_CAUSAL : ATTENTION_FULL);
    assert_true(m->language.shifted);
    assert_int_equal(tokenizer_mask_id(m->tokenizer), grown ? 700 : 420);
    assert_int_equal(language_vocab(&m->language), grown ? 701 : 424);
    assert_string_equal(tokenizer_piece(m->tokenizer, tokenizer_mask_id(m->tokenizer)), MODEL_MASK);
    opened_close(&o);
    run(r, "text", "-m", model, "--length", "5", "-q", "one two three");
    snprintf(text, sizeof text, "four\n");
    expect(r, 0, text);
}

static void test_adapted(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    check_adapted(&r, "llama", NULL);
    check_adapted(&r, "qwen2", NULL);
    check_adapted(&r, "llama", "block-causal");
    run_end(&r);
}

/* The row of a new mask token is the mean of the others; all else is as before. */
static void test_mask_row(void **state) {
    (void)state;
    Run r;
    Error err;
    Device *device;
    char out[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "masked");
    assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
    const ModelOptions from = {
        .folder = GOLDEN "/llama", .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    ModelOptions to = from;
    to.folder = out;
    assert_ok(model_add_mask(&from, device, out, &err), &err);
    Model a, b;
    assert_ok(model_open(&a, &from, device, &err), &err);
    assert_ok(model_open(&b, &to, device, &err), &err);
    assert_int_equal(a.language.params.count, b.language.params.count);
    for (int i = 0; i < a.language.params.count; i++) {
        const Param *p = &a.language.params.items[i], *q = &b.language.params.items[i];
        assert_string_equal(p->name, q->name);
        assert_memory_equal(p->value.data, q->value.data, tensor_bytes(p->value));
        if (p->shape[0] != 700) continue;
        assert_int_equal(q->shape[0], 701);
        const uint16_t *rows = q->value.data;
        for (int64_t c = 0; c < p->shape[1]; c++) {
            double sum = 0;
            for (int64_t t = 0; t < 700; t++) sum += (double)bf16_to_f32(rows[t * p->shape[1] + c]);
            assert_true(fabs((double)bf16_to_f32(rows[700 * p->shape[1] + c]) - sum / 700) < 1e-3);
        }
    }
    assert_refused(model_add_mask(&to, device, out, &err), &err, "has a mask");
    model_close(&a), model_close(&b);
    device_close(device);
    run_end(&r);
}

static void test_pretrain(void **state) {
    (void)state;
    Run r;
    char out[300], losses_name[64];
    double losses[MOST];
    run_start(&r);
    for (int ar = 0; ar < 2; ar++) {
        char *name = ar ? "ar" : "llada";
        path_in(out, sizeof out, &r, name);
        run_ok(&r, "train", "pretrain", "-m", ar ? GOLDEN "/qwen2" : FOLDERS "/llada", "--data",
               GOLDEN "/text.txt", "--text-lines", "--out", out, "--steps", "30", "--objective",
               name, "--batch-tokens", "300", "--lr", "1e-2", "--schedule", "wsd", "--warmup-steps",
               "3", "--random-lengths", "0.3", "--max-tokens", "40", "--log-every", "1", "-q");
        snprintf(losses_name, sizeof losses_name, "%s/metrics.jsonl", name);
        assert_int_equal(read_losses(&r, losses_name, "loss", losses, MOST), 30);
        double first = 0, last = 0; /* LLaDA's loss varies with the noise */
        for (int i = 0; i < 8; i++) first += losses[1 + i], last += losses[30 - i];
        assert_true(last < 0.8 * first);
    }
    run_end(&r);
}

/* What a model says to the prompts of pairs.jsonl is what it was trained on. */
static void assert_learned(Run *r, char *model) {
    json_t *pairs = read_pairs(r), *pair;
    char questions[600] = "", want[600] = "";
    size_t i;
    json_array_foreach(pairs, i, pair) {
        const char *texts[] = {json_string_value(json_object_get(pair, "inputs")),
                               json_string_value(json_object_get(pair, "targets"))};
        snprintf(questions + strlen(questions), 120, "%s\n", texts[0]);
        snprintf(want + strlen(want), 120, "%s\n", texts[1]);
    }
    run_text(r, questions, "text", "-m", model, "-q");
    expect(r, 0, want);
    json_decref(pairs);
}

/* From nothing: an autoregressive model; LLaDA's recipe with padded answers, whose length the folder
 * then says. */
static void test_from_scratch(void **state) {
    (void)state;
    Run r;
    char model[300], first[300], second[300], path[340];
    run_start(&r);
#define SIZES                                                                            \
    "--layers", "2", "--width", "32", "--heads", "4", "--key-heads", "2", "--ffn", "64", \
        "--positions", "64"
#define FINE                                                                                 \
    "--data", GOLDEN "/pairs.jsonl", "--batch-sequences", "5", "--lr", "1e-2", "--schedule", \
        "wsd", "--warmup-steps", "5", "--dropout", "0", "-q"
    path_in(model, sizeof model, &r, "ar"), path_in(first, sizeof first, &r, "ar-run");
    run_ok(&r, "new", model, "--kind", "llama", "--tokenizer", GOLDEN "/qwen2", SIZES);
    run_ok(&r, "train", "instruct", "--objective", "ar", "-m", model, "--out", first, "--steps",
           "100", FINE);
    snprintf(path, sizeof path, "%s/model", first);
    assert_learned(&r, path);
    path_in(model, sizeof model, &r, "llada"), path_in(first, sizeof first, &r, "llada-run");
    path_in(second, sizeof second, &r, "llada-fine");
    run_ok(&r, "new", model, "--kind", "llada", "--tokenizer", FOLDERS "/llada", SIZES);
    run_ok(&r, "train", "pretrain", "-m", model, "--data", GOLDEN "/text.txt", "--text-lines",
           "--out", first, "--steps", "20", "--batch-tokens", "300", "--schedule", "wsd",
           "--warmup-steps", "2", "--random-lengths", "0.01", "-q");
    snprintf(path, sizeof path, "%s/model", first);
    run_ok(&r, "train", "instruct", "--objective", "llada", "-m", path, "--out", second, "--steps",
           "500", "--pad-answers", "30", "--complementary", "--decay-ratio", "0.5", FINE);
    json_t *settings = read_json(&r, "llada-fine/model/easyfirst.json");
    assert_int_equal(json_integer_value(json_object_get(settings, "answer_length")), 30);
    json_decref(settings);
    snprintf(path, sizeof path, "%s/model", second);
    assert_learned(&r, path);
#undef SIZES
#undef FINE
    run(&r, "new", "x", "--kind", "llada", "--attention", "causal", "--tokenizer",
        FOLDERS "/llada");
    assert_message(&r, 1, "causal", "llama");
    run(&r, "new", "x", "--kind", "llada", "--tokenizer", GOLDEN "/qwen2");
    assert_message(&r, 1, "mask token");
    run(&r, "new", "x", "--attention", "causal", "--tokenizer", TOKENIZER);
    assert_message(&r, 2, "--attention causal", "llama");
    run(&r, "new", "x", "--kind", "llama", "--pre-norm", "--tokenizer", TOKENIZER);
    assert_message(&r, 2, "--pre-norm");
    run_end(&r);
}

static void test_refused(void **state) {
    (void)state;
    Run r;
    char out[300];
    run_start(&r);
    path_in(out, sizeof out, &r, "out");
#define TRAIN(stage, model, ...)                                                                   \
    run(&r, "train", stage, "-m", model, "--data", GOLDEN "/pairs.jsonl", "--out", out, "--steps", \
        "2", "-q", __VA_ARGS__)
    TRAIN("adapt", TINY_BASE, "--objective", "ar");
    assert_message(&r, 1, "autoregressive objective", "can be causal", "XLM-R");
    TRAIN("adapt", FOLDERS "/llada", "--objective", "ar");
    assert_message(&r, 1, "autoregressive objective", "can be causal", "not shifted");
    TRAIN("adapt", GOLDEN "/llama", "--objective", "ar", "--attention", "full");
    assert_message(&r, 2, "--attention full", "causal");
    TRAIN("adapt", GOLDEN "/llama", "--attention", "causal");
    assert_message(&r, 2, "--attention causal", "ar");
    TRAIN("adapt", GOLDEN "/llama", "--objective", "ar", "--complementary");
    assert_message(&r, 2, "--complementary", "masked diffusion");
    TRAIN("adapt", GOLDEN "/llama", "--decay-steps", "3");
    assert_message(&r, 2, "--decay-steps", "wsd");
    TRAIN("adapt", GOLDEN "/llama", "--random-lengths", "0.1");
    assert_message(&r, 2, "--random-lengths", "pretrain");
    TRAIN("pretrain", GOLDEN "/llama", "--warmup-steps", "0", "--pad-answers", "9");
    assert_message(&r, 2, "--pad-answers", "pretrain");
    TRAIN("length", FOLDERS "/llada", "--batch-sequences", "2");
    assert_message(&r, 1, "length", "LLaMA's");
#undef TRAIN
    run_end(&r);
}

/* A folder can be called causal only if it can be. */
static void test_causal_folders(void **state) {
    (void)state;
    Run r;
    Opened o;
    Error err;
    char folder[300], path[1200], here[600];
    run_start(&r);
    assert_non_null(getcwd(here, sizeof here));
    path_in(folder, sizeof folder, &r, "model");
    static const struct {
        const char *from, *settings, *words; /* NULL: it is opened */
    } cases[] = {
        {FOLDERS "/llada", "{\"format\": 1, \"attention\": \"causal\"}", "shifted"},
        {TINY_BASE "/language", "{\"format\": 1, \"attention\": \"causal\"}", "shifted"},
        {FOLDERS "/dream", "{\"format\": 1, \"attention\": \"causal\"}", NULL},
        {GOLDEN "/llama", "{\"format\": 1, \"attention\": \"cause\"}", "causal"},
    };
    test_device_open(&o.device, &(DeviceOptions){0}, &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        shell("rm -rf %s && mkdir %s && ln -s %s/%s %s/language", folder, folder, here,
              cases[i].from, folder);
        write_text_in(&r, "model/easyfirst.json", cases[i].settings, NULL);
        const ModelOptions options = {.folder = folder, .feature_layer = FEATURE_LAYER_UNSET};
        if (cases[i].words) {
            assert_refused(model_open(&o.model, &options, o.device, &err), &err, cases[i].words);
            continue;
        }
        assert_ok(model_open(&o.model, &options, o.device, &err), &err);
        assert_int_equal(o.model.parts.attention, ATTENTION_CAUSAL);
        model_close(&o.model);
        snprintf(path, sizeof path, "%s", folder);
        run(&r, "text", "-m", path, "--length", "4", "-q", "one two");
        assert_int_equal(r.status, 0);
    }
    device_close(o.device);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_autoregressive), cmocka_unit_test(test_shifted_diffusion),
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_drawn),
        cmocka_unit_test(test_not_for_causal), cmocka_unit_test(test_shown),
        cmocka_unit_test(test_perplexity),     cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_adapted),        cmocka_unit_test(test_mask_row),
        cmocka_unit_test(test_pretrain),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_causal_folders), cmocka_unit_test(test_from_scratch),
    };
    return cmocka_run_group_tests(tests, golden_open, golden_close);
}
