/* Model folders of LLaDA's and Dream's kind: what infill computes for a prompt and a canvas against
 * torch's logits (tests/reference/make_llama_folders.py), the tokens around a sequence, and wrong
 * folders. */
#include "projector/requests.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "tests/opened.h"
#include "tests/program.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDERS "tests/golden/llama/folders/"
enum { MASK = 423, VOCAB = 431, TOKENS = 9 };

/* Log-probabilities without the mask, of all ids below `limit`. */
static void log_softmax(const float *logits, int limit, double *out) {
    double most = -INFINITY, sum = 0;
    for (int v = 0; v < limit; v++)
        if (v != MASK && (double)logits[v] > most) most = (double)logits[v];
    for (int v = 0; v < limit; v++)
        if (v != MASK) sum += exp((double)logits[v] - most);
    for (int v = 0; v < limit; v++) out[v] = (double)logits[v] - most - log(sum);
}

static void check_canvas(Infill *infill, const Checkpoint *golden_file, int limit) {
    int n;
    Error err;
    int32_t *canvas = golden_ids(golden_file, "canvas", 0, &n), all[VOCAB];
    const float *want = golden(golden_file, "logits", 0).data;
    double scores[TOKENS][VOCAB], expected[VOCAB];
    InspectRow rows[TOKENS];
    assert_int_equal(n, TOKENS);
    for (int v = 0; v < limit; v++) all[v] = v;
    for (int i = 0; i < n; i++)
        rows[i] = (InspectRow){.given = all, .given_count = limit, .given_scores = scores[i]};
    const DecodeCanvas c = {.request = 0, .length = n, .tokens = canvas};
    assert_ok(infill_inspect(infill, &c, 1, rows, 0, &err), &err);
    for (int i = 0; i < n; i++) {
        log_softmax(want + i * VOCAB, limit, expected);
        int best = 0;
        for (int v = 0; v < limit; v++) {
            if (v == MASK) continue;
            assert_true(fabs(scores[i][v] - expected[v]) <= 1e-5 * (1 + fabs(expected[v])));
            if (best == MASK || expected[v] > expected[best]) best = v;
        }
        Proposal proposals[TOKENS];
        assert_ok(infill_evaluate(infill, &c, 1, 0, 0, proposals, &err), &err);
        assert_int_equal(proposals[i].token, best);
        assert_true(fabs((double)proposals[i].score - expected[best]) < 1e-4);
    }
    free(canvas);
}

static void check_folder(const char *kind, int32_t begin, bool shifted, int longest) {
    Opened o;
    Error err;
    char folder[128], path[128];
    Checkpoint golden_file;
    snprintf(folder, sizeof folder, FOLDERS "%s", kind);
    snprintf(path, sizeof path, FOLDERS "%s-golden.safetensors", kind);
    opened_open(&o, folder);
    assert_ok(checkpoint_open(&golden_file, path, NULL, &err), &err);
    const Multimodal *m = &o.model.parts;
    assert_int_equal(m->language.begin, begin);
    assert_int_equal(m->language.end, -1);
    assert_int_equal(m->language.shifted, shifted);
    assert_int_equal(m->attention, ATTENTION_FULL);
    assert_int_equal(language_longest(&m->language), longest);
    assert_int_equal(tokenizer_mask_id(m->tokenizer), MASK);
    int count;
    int32_t *prompt = golden_ids(&golden_file, "prompt", 0, &count);
    const InfillPrompt prompts[] = {{prompt, count, -1}, {prompt, 2, -1}};
    const int limit = tokenizer_size(m->tokenizer);
    const InfillConfig config = {.model = m->language,
                                 .device = o.device,
                                 .mask_id = MASK,
                                 .vocab_limit = limit,
                                 .prompts = prompts,
                                 .prompt_count = 2};
    Infill *infill;
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_int_equal(infill_longest_answer(infill, 0), longest - count - (begin >= 0));
    assert_ok(infill_reserve(infill, TOKENS, 2 * (TOKENS + 1), &err), &err);
    check_canvas(infill, &golden_file, limit);
    infill_close(infill);
    free(prompt);
    checkpoint_close(&golden_file);
    opened_close(&o);
}

static void test_llada(void **state) {
    (void)state;
    check_folder("llada", 420, false, 60);
}

static void test_dream(void **state) {
    (void)state;
    check_folder("dream", -1, true, 70);
}

/* Without a prompt and <s>, a shifted model's first row predicts itself, too. */
static void test_no_prompt(void **state) {
    (void)state;
    Opened o;
    Error err;
    opened_open(&o, FOLDERS "dream");
    const Multimodal *m = &o.model.parts;
    const AnswerRequest none = {.prompt = "", .image = -1, .length = 69};
    int tokens;
    assert_ok(multimodal_check(m, &none, &tokens, &err), &err);
    const InfillPrompt prompt = {.image = -1};
    const AttentionPattern patterns[] = {ATTENTION_FULL, ATTENTION_BLOCK_CAUSAL};
    for (int p = 0; p < 2; p++) {
        InfillConfig config = {.model = m->language,
                               .device = o.device,
                               .pattern = patterns[p],
                               .mask_id = MASK,
                               .vocab_limit = tokenizer_size(m->tokenizer),
                               .prompts = &prompt,
                               .prompt_count = 1};
        config.model.shifted = true; /* with the cache, too: a head without rows */
        Infill *infill;
        const int32_t canvas[] = {MASK, MASK};
        const DecodeCanvas c = {.length = 1, .tokens = canvas},
                           longer = {.length = 2, .tokens = canvas};
        Proposal one, two[2];
        assert_ok(infill_open(&infill, &config, &err), &err);
        assert_ok(infill_reserve(infill, 2, 3, &err), &err);
        assert_ok(infill_evaluate(infill, &c, 1, 0, 0, &one, &err), &err);
        assert_ok(infill_evaluate(infill, &longer, 1, 0, 0, two, &err), &err);
        assert_true(one.token >= 0 && one.token < config.vocab_limit && isfinite(one.score));
        assert_true(two[0].token == two[1].token && two[0].score == two[1].score);
        infill_close(infill);
    }
    opened_close(&o);
}

/* After a prefix that was kept for the same canvas, proposals are those of the whole sequence: the
 * row before a shifted model's first token is evaluated again. */
static void test_kept_prefix(void **state) {
    (void)state;
    Opened o;
    Error err;
    opened_open(&o, FOLDERS "dream");
    const Multimodal *m = &o.model.parts;
    const int32_t ids[] = {40, 50, 60}, tokens[] = {MASK, 70, MASK, MASK};
    const InfillPrompt prompts[] = {{ids, 3, -1}, {ids, 1, -1}, {NULL, 0, -1}};
    const InfillConfig config = {.model = m->language,
                                 .device = o.device,
                                 .mask_id = MASK,
                                 .vocab_limit = tokenizer_size(m->tokenizer),
                                 .prompts = prompts,
                                 .prompt_count = 3};
    Infill *infill;
    DecodeSpec specs[3];
    DecodeCanvas canvases[3];
    Proposal whole[12], after[12];
    for (int i = 0; i < 3; i++) {
        specs[i] = (DecodeSpec){.request = i, .length = 4};
        canvases[i] = (DecodeCanvas){.request = i, .hypothesis = i, .length = 4, .tokens = tokens};
    }
    assert_ok(infill_open(&infill, &config, &err), &err);
    assert_ok(infill_reserve(infill, 4, 15, &err), &err);
    assert_ok(infill_keep_prefixes(infill, specs, 3, &err), &err);
    assert_ok(infill_evaluate(infill, canvases, 3, 0, 0, whole, &err), &err);
    const int64_t rows = infill_counts(infill).rows;
    assert_int_equal(rows, 3 + 1 + 12);
    for (int i = 0; i < 3; i++) canvases[i].after_kept = true;
    assert_ok(infill_evaluate(infill, canvases, 3, 0, 0, after, &err), &err);
    assert_int_equal(infill_counts(infill).rows - rows, 2 + 12);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(after[i].token, whole[i].token);
        assert_true(fabsf(after[i].score - whole[i].score) < 1e-5f);
    }
    infill_close(infill);
    opened_close(&o);
}

static void test_stops(void **state) {
    (void)state;
    LanguageModel m = {.stops = {7, 3}, .stop_count = 2};
    const int32_t tokens[] = {5, 6, 3, 7};
    assert_int_equal(language_text_length(&m, tokens, 4), 2);
    assert_int_equal(language_text_length(&m, tokens, 2), 2);
    m.stop_count = 1;
    assert_int_equal(language_text_length(&m, tokens, 4), 3);
    Opened o;
    opened_open(&o, FOLDERS "llada"); /* <|end_of_text|> of config.json, <|eot_id|> */
    assert_int_equal(o.model.parts.language.stop_count, 2);
    assert_int_equal(o.model.parts.language.stops[0], 421);
    assert_int_equal(o.model.parts.language.stops[1], 422);
    opened_close(&o);
}

/* ---- Wrong folders. ---- */

/* A folder of links to another's files, but for config.json, which is its text with `from` replaced
 * by `to`. */
static void changed_folder(const Run *r, const char *kind, const char *from, const char *to,
                           char *folder, size_t size) {
    static const char *const names[] = {"model.safetensors",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors",
                                        "model.safetensors.index.json",
                                        "tokenizer.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer_config.json"};
    static int number;
    char here[512], old[1024], new_path[1024], text[4096] = "", changed[4096], name[64];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(name, sizeof name, "changed%d", number++);
    path_in(folder, size, r, name);
    assert_int_equal(mkdir(folder, 0755), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(old, sizeof old, "%s/" FOLDERS "%s/%s", here, kind, names[i]);
        snprintf(new_path, sizeof new_path, "%s/%s", folder, names[i]);
        if (access(old, F_OK) == 0) assert_int_equal(symlink(old, new_path), 0);
    }
    snprintf(old, sizeof old, FOLDERS "%s/config.json", kind);
    FILE *file = fopen(old, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    const char *at = strstr(text, from);
    assert_non_null(at);
    int count = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to,
                         at + strlen(from));
    snprintf(new_path, sizeof new_path, "%s/config.json", name);
    write_file(r, new_path, changed, (size_t)count, old, sizeof old);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *kind, *from, *to, *words[2];
    } cases[] = {
        {"llada", "\"llama\"", "\"sequential\"", {"block_type", "sequential"}},
        {"llada", "\"llada\"", "\"olmo\"", {"model_type", "olmo"}},
        {"llada", "\"n_heads\": 2", "\"n_heads\": 3", {"n_heads", "16 wide"}},
        {"llada", "\"n_kv_heads\": 2", "\"n_kv_heads\": 1", {"n_kv_heads", "16 wide"}},
        {"llada", "\"alibi\": false", "\"alibi\": true", {"alibi", "true"}},
        {"llada", "\"rope\": true", "\"bias_for_layer_norm\": true", {"bias_for_layer", "true"}},
        {"llada", "\"weight_tying\": false", "\"weight_tying\": true", {"weight_tying", "ff_out"}},
        {"llada", "\"rope_theta\": 10000.0", "\"rope_theta\": -1", {"rope_theta", "-1"}},
        {"llada", "\"eos_token_id\": 421", "\"eos_token_id\": 4210", {"eos_token_id", "4210"}},
        {"dream", "\"Dream\"", "\"mistral\"", {"model_type", "mistral"}},
        {"dream",
         "\"intermediate_size\": 9",
         "\"intermediate_size\": 8",
         {"intermediate_size", "9"}},
        {"dream", "\"use_sliding_window\": false", "\"use_sliding_window\": true", {"use_sliding"}},
        {"dream",
         "\"rope_scaling\": null",
         "\"rope_scaling\": {\"type\": \"yarn\"}",
         {"yarn", "llama3"}},
        {"dream", "\"silu\"", "\"gelu\"", {"hidden_act", "gelu"}},
        {"dream", "\"vocab_size\": 431", "\"vocab_size\": 430", {"vocab_size", "431"}},
    };
    Run r;
    char folder[400];
    run_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        changed_folder(&r, cases[i].kind, cases[i].from, cases[i].to, folder, sizeof folder);
        Error err;
        Model model;
        Device *device;
        assert_ok(test_device_open(&device, &(DeviceOptions){0}, &err), &err);
        const ModelOptions options = {.folder = folder, .feature_layer = FEATURE_LAYER_UNSET};
        assert_int_equal(model_open(&model, &options, device, &err), -1);
        for (int w = 0; w < 2 && cases[i].words[w]; w++)
            if (!strstr(err.text, cases[i].words[w]))
                fail_msg("case %zu: no \"%s\" in: %s", i, cases[i].words[w], err.text);
        assert_null(strchr(err.text, '\n'));
        device_close(device);
    }
    run_end(&r);
}

/* ---- The commands. ---- */

static void test_commands(void **state) {
    (void)state;
    Run r;
    char path[512], out[512];
    static const char lines[] = "{\"inputs\": \"2 + 3 =\", \"targets\": \"5\"}\n";
    run_start(&r);
    write_file(&r, "sums.jsonl", lines, sizeof lines - 1, path, sizeof path);
    for (int k = 0; k < 2; k++) {
        const char *folder = k ? FOLDERS "dream" : FOLDERS "llada";
        run(&r, "info", (char *)folder);
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, k ? "sequences of at most 70" : "sequences of at most 60"));
        assert_non_null(strstr(r.out, "attention:  full"));
        run(&r, "text", "-m", (char *)folder, "--length", "6", "--json", "Who are you?");
        assert_int_equal(r.status, 0);
        assert_int_equal(count_lines(r.out), 1);
        assert_non_null(strstr(r.out, "\"text\""));
        run(&r, "text", "-m", (char *)folder, "Who are you?");
        assert_message(&r, 1, "length");
        run(&r, "show", "-m", (char *)folder, "--length", "5", "--json", "--text", "Who are you?");
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, "\"step\""));
        path_in(out, sizeof out, &r, k ? "out-dream" : "out-llada");
        run(&r, "eval", "text", "-m", (char *)folder, "--length", "4", "--task", "exact", path,
            "--out", out);
        assert_int_equal(r.status, 0);
        run(&r, "text", "-m", (char *)folder, "--one-of", "yes,no", "Is it?");
        assert_int_equal(r.status, 0);
        assert_true(!strcmp(r.out, "yes\n") || !strcmp(r.out, "no\n"));
        run(&r, "text", "-m", (char *)folder, "--template", "A ___{2}B is ___", "Is it?");
        assert_int_equal(r.status, 0);
        assert_true(!strncmp(r.out, "A ", 2) && strstr(r.out, "B is "));
    }
    run_end(&r);
}

/* What is XLM-R's only says so. */
static void test_not_for_llama(void **state) {
    (void)state;
    Run r;
    char text[512], out[512];
    run_start(&r);
    write_file(&r, "lines.jsonl", "{\"text\": \"a b\"}\n", 16, text, sizeof text);
    path_in(out, sizeof out, &r, "run");
    run(&r, "new", "--language", FOLDERS "dream", "--length-classes", "9", out);
    assert_message(&r, 1, "XLM-R");
    run(&r, "prune", "-m", FOLDERS "dream", "--data", text, out);
    assert_message(&r, 1, "XLM-R");
    run_end(&r);
}

/* ---- Settings of the folder. ---- */

/* A model folder whose language part is a link to `kind`'s, with these settings. */
static void settings_folder(const Run *r, const char *kind, const char *settings, char *folder,
                            size_t size) {
    char here[512], from[1024], to[1024], name[64], path[512];
    static int number;
    snprintf(name, sizeof name, "settings%d", number++);
    path_in(folder, size, r, name);
    assert_int_equal(mkdir(folder, 0755), 0);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(from, sizeof from, "%s/" FOLDERS "%s", here, kind);
    snprintf(to, sizeof to, "%s/language", folder);
    assert_int_equal(symlink(from, to), 0);
    snprintf(to, sizeof to, "%s/easyfirst.json", name);
    write_file(r, to, settings, strlen(settings), path, sizeof path);
}

/* "answer_length" is for answers without --length, which overrides it. */
static void test_answer_length(void **state) {
    (void)state;
    Run r;
    char folder[400], *long_answer;
    run_start(&r);
    settings_folder(&r, "dream", "{\"format\": 1, \"answer_length\": 6}", folder, sizeof folder);
    run(&r, "text", "-m", folder, "--length", "6", "--json", "Who are you?");
    assert_int_equal(r.status, 0);
    long_answer = strdup(r.out);
    run(&r, "text", "-m", folder, "--json", "Who are you?");
    expect(&r, 0, long_answer);
    run(&r, "text", "-m", folder, "--length", "2", "--json", "Who are you?");
    assert_int_equal(r.status, 0);
    assert_string_not_equal(r.out, long_answer);
    free(long_answer);
    settings_folder(&r, "dream", "{\"answer_length\": 0}", folder, sizeof folder);
    run(&r, "text", "-m", folder, "Who are you?");
    assert_message(&r, 1, "answer_length");
    settings_folder(&r, "dream", "{\"answer_length\": 70}", folder, sizeof folder);
    run(&r, "text", "-m", folder, "Who are you?");
    assert_message(&r, 1, "70 tokens");
    run_end(&r);
}

/* A prompt in a template is the template's text, whose first token is not doubled. */
static void test_chat(void **state) {
    (void)state;
    Run r;
    char folder[400], raw[400], *want;
    run_start(&r);
    settings_folder(&r, "llada", "{\"chat_template\": \"llama-2\"}", folder, sizeof folder);
    settings_folder(&r, "llada", "{\"chat_template\": \"none\"}", raw, sizeof raw);
    run(&r, "info", folder);
    assert_non_null(strstr(r.out, "chat:       llama-2"));
    static char begun[] = "<|begin_of_text|>Hi", text[] = "Hi";
    run(&r, "text", "-m", raw, "--length", "5", text);
    assert_int_equal(r.status, 0);
    want = strdup(r.out);
    run(&r, "text", "-m", raw, "--length", "5", begun);
    expect(&r, 0, want);
    free(want);
    const ChatMessage message = {"user", "Hi"};
    char *whole;
    Error err;
    assert_ok(chat_template_text(CHAT_LLAMA2, &message, 1, true, &whole, &err), &err);
    static const char *const commands[] = {"text", "show"};
    for (int c = 0; c < 2; c++) {
        char *name = (char *)commands[c], *way = c ? "--text" : "--quiet";
        run(&r, name, "-m", raw, "--length", "5", way, whole);
        assert_int_equal(r.status, 0);
        want = strdup(r.out);
        run(&r, name, "-m", folder, "--length", "5", way, text);
        expect(&r, 0, want);
        run(&r, name, "-m", raw, "--length", "5", way, text);
        assert_int_equal(r.status, 0);
        assert_string_not_equal(r.out, want);
        free(want);
    }
    free(whole);
    settings_folder(&r, "llada", "{\"chat_template\": \"alpaca\"}", folder, sizeof folder);
    run(&r, "text", "-m", folder, "--length", "5", text);
    assert_message(&r, 1, "chat_template", "alpaca");
    run_end(&r);
}

/* "context" limits a sequence. */
static void test_context(void **state) {
    (void)state;
    Run r;
    char folder[400];
    run_start(&r);
    settings_folder(&r, "dream", "{\"context\": 20}", folder, sizeof folder);
    run(&r, "info", folder);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "sequences of at most 20"));
    run(&r, "text", "-m", folder, "--length", "20", "Hi");
    assert_message(&r, 1, "20 tokens");
    settings_folder(&r, "../../models/tiny-base/language", "{\"context\": 20}", folder,
                    sizeof folder);
    run(&r, "info", folder);
    assert_message(&r, 1, "context", "XLM-R");
    settings_folder(&r, "dream", "{\"context\": 71}", folder, sizeof folder);
    run(&r, "info", folder);
    assert_message(&r, 1, "context", "70");
    run_end(&r);
}

/* "shifted" changes what is predicted. */
static void test_shifted(void **state) {
    (void)state;
    Opened o;
    Run r;
    char folder[400];
    run_start(&r);
    for (int k = 0; k < 2; k++) {
        settings_folder(&r, k ? "dream" : "llada",
                        k ? "{\"shifted\": false}" : "{\"shifted\": true}", folder, sizeof folder);
        opened_open(&o, folder);
        assert_int_equal(o.model.parts.language.shifted, k == 0);
        opened_close(&o);
    }
    run(&r, "text", "-m", folder, "--length", "4", "Hi");
    assert_int_equal(r.status, 0);
    run(&r, "text", "-m", FOLDERS "dream", "--length", "4", "--prefix-cache", "2", "Hi");
    assert_int_equal(r.status, 0);
    run_end(&r);
}

/* 8-bit weights of such a model. */
static void test_quantized(void **state) {
    (void)state;
    Run r;
    char out[400], raw[400];
    run_start(&r);
    for (int k = 0; k < 2; k++) {
        settings_folder(&r, k ? "dream" : "llada", "{\"answer_length\": 4}", raw, sizeof raw);
        path_in(out, sizeof out, &r, k ? "q1" : "q0");
        run(&r, "quantize", "-m", raw, out);
        assert_int_equal(r.status, 0);
        run(&r, "text", "-m", out, "Hi");
        assert_int_equal(r.status, 0);
        assert_int_equal(count_lines(r.out), 1);
        run(&r, "info", out);
        assert_non_null(strstr(r.out, "stored as i8"));
    }
    run_end(&r);
}

/* A tokenizer without a mask token: an autoregressive model, which is described but not asked. */
static void test_no_mask(void **state) {
    (void)state;
    Run r;
    char folder[400], file[600], here[512], target[1024];
    run_start(&r);
    changed_folder(&r, "llada",
                   "\"mask_token_id\": 423,\n \"eos_token_id\": 421,\n \"pad_token_id\": 421",
                   "\"eos_token_id\": 0", folder, sizeof folder);
    snprintf(file, sizeof file, "%s/tokenizer.json", folder);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(target, sizeof target, "%s/tests/golden/tokenizers/gpt2/tokenizer.json", here);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(symlink(target, file), 0);
    run(&r, "info", folder);
    assert_int_equal(r.status, 0);
    run(&r, "text", "-m", folder, "--length", "3", "Who?");
    assert_message(&r, 1, "no mask token", "autoregressive");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llada),         cmocka_unit_test(test_dream),
        cmocka_unit_test(test_no_prompt),     cmocka_unit_test(test_stops),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_commands),
        cmocka_unit_test(test_no_mask),       cmocka_unit_test(test_not_for_llama),
        cmocka_unit_test(test_kept_prefix),   cmocka_unit_test(test_context),
        cmocka_unit_test(test_answer_length), cmocka_unit_test(test_chat),
        cmocka_unit_test(test_shifted),       cmocka_unit_test(test_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
