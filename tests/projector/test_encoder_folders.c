/* Model folders of RoBERTa's, BERT's and ModernBERT's kind: what infill computes for a prompt and a
 * canvas against transformers' logits (tests/reference/make_encoders.py), the tokens around a
 * sequence, the commands, and wrong folders. */
#include "projector/requests.h"
#include "tests/golden_models.h"
#include "tests/matrix.h"
#include "tests/opened.h"
#include "tests/program.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDERS "tests/golden/encoders/"
enum { TOKENS = 9, MOST = 800 };

typedef struct Kind {
    const char *name, *begin, *end, *mask; /* pieces */
} Kind;

static const Kind kinds[] = {{"roberta", "<s>", "</s>", "<mask>"},
                             {"bert", "[CLS]", "[SEP]", "[MASK]"},
                             {"modernbert", "[CLS]", "[SEP]", "[MASK]"}};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---- Logits. ---- */

/* Log-probabilities without the mask, of all ids below `limit`. */
static void log_softmax(const float *logits, int limit, int mask, double *out) {
    double most = -INFINITY, sum = 0;
    for (int v = 0; v < limit; v++)
        if (v != mask && (double)logits[v] > most) most = (double)logits[v];
    for (int v = 0; v < limit; v++)
        if (v != mask) sum += exp((double)logits[v] - most);
    for (int v = 0; v < limit; v++) out[v] = (double)logits[v] - most - log(sum);
}

static void check_canvas(Infill *infill, const Checkpoint *golden_file, int limit, int mask) {
    int n;
    Error err;
    int32_t *canvas = golden_ids(golden_file, "canvas", 0, &n), all[MOST];
    const Tensor want = golden(golden_file, "logits", 0);
    static double scores[TOKENS][MOST], expected[MOST];
    InspectRow rows[TOKENS];
    assert_int_equal(n, TOKENS);
    assert_true(limit < MOST && want.shape[1] == limit + 1);
    for (int v = 0; v < limit; v++) all[v] = v;
    for (int i = 0; i < n; i++)
        rows[i] = (InspectRow){.given = all, .given_count = limit, .given_scores = scores[i]};
    const DecodeCanvas c = {.length = n, .tokens = canvas};
    assert_ok(infill_inspect(infill, &c, 1, rows, 0, &err), &err);
    for (int i = 0; i < n; i++) {
        log_softmax((const float *)want.data + i * want.shape[1], limit, mask, expected);
        for (int v = 0; v < limit; v++)
            if (v != mask)
                assert_true(fabs(scores[i][v] - expected[v]) <= 1e-5 * (1 + fabs(expected[v])));
    }
    free(canvas);
}

static void test_logits(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        Opened o;
        Error err;
        char path[128];
        Checkpoint golden_file;
        snprintf(path, sizeof path, FOLDERS "%s", kinds[k].name);
        opened_open(&o, path);
        snprintf(path, sizeof path, FOLDERS "%s-golden.safetensors", kinds[k].name);
        assert_ok(checkpoint_open(&golden_file, path, NULL, &err), &err);
        const Multimodal *m = &o.model.parts;
        const Tokenizer *t = m->tokenizer;
        const int mask = tokenizer_mask_id(t);
        assert_string_equal(tokenizer_piece(t, m->language.begin), kinds[k].begin);
        assert_string_equal(tokenizer_piece(t, m->language.end), kinds[k].end);
        assert_string_equal(tokenizer_piece(t, mask), kinds[k].mask);
        assert_int_equal(language_longest(&m->language), 64);
        assert_false(m->language.shifted);
        int count;
        int32_t *prompt = golden_ids(&golden_file, "prompt", 0, &count);
        const InfillPrompt prompts[] = {{prompt, count, -1}};
        const InfillConfig config = {.model = m->language,
                                     .device = o.device,
                                     .mask_id = mask,
                                     .vocab_limit = tokenizer_size(t),
                                     .prompts = prompts,
                                     .prompt_count = 1};
        Infill *infill;
        assert_ok(infill_open(&infill, &config, &err), &err);
        assert_ok(infill_reserve(infill, TOKENS, 2 * (TOKENS + 1), &err), &err);
        check_canvas(infill, &golden_file, tokenizer_size(t), mask);
        infill_close(infill);
        free(prompt);
        checkpoint_close(&golden_file);
        opened_close(&o);
    }
}

/* ---- The commands. ---- */

/* The loss in a line of metrics.jsonl that holds `step`. */
static double loss_at(const char *metrics, int step) {
    char word[32];
    double loss = NAN;
    snprintf(word, sizeof word, "\"step\": %d,", step);
    const char *line = strstr(metrics, word);
    if (!line) fail_msg("no %s in metrics.jsonl: %s", word, metrics);
    const char *at = strstr(line, "\"loss\": ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"loss\": %lf", &loss), 1);
    return loss;
}

static void check_training(const Run *r, const char *run_folder) {
    char path[600];
    size_t size;
    (void)r;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run_folder);
    char *metrics = file_bytes(path, &size);
    assert_non_null(metrics);
    const double first = loss_at(metrics, 1), last = loss_at(metrics, 40);
    if (!(last < 0.75 * first)) fail_msg("the loss went from %g to %g", first, last);
    free(metrics);
}

/* The trained folder has the configuration and tokenizer of the original, whose class transformers
 * then takes, and all of its tensors under the same names. */
static void check_written(const char *run_folder, const char *kind) {
    char path[600], from[128];
    Error err;
    Checkpoint old, new;
    snprintf(path, sizeof path, "%s/model/language", run_folder);
    snprintf(from, sizeof from, FOLDERS "%s", kind);
    assert_ok(checkpoint_open(&old, from, NULL, &err), &err);
    assert_ok(checkpoint_open(&new, path, NULL, &err), &err);
    assert_int_equal(old.count, new.count);
    for (size_t i = 0; i < old.count; i++) {
        const CheckpointTensor *t = checkpoint_find(&new, old.tensors[i].name);
        if (!t) fail_msg("%s lacks %s", path, old.tensors[i].name);
        assert_true(tensor_same_shape(t->value, old.tensors[i].value));
    }
    checkpoint_close(&old), checkpoint_close(&new);
    strcat(path, "/config.json");
    strcat(from, "/config.json");
    json_t *a = json_load_file(path, 0, NULL), *b = json_load_file(from, 0, NULL);
    json_object_del(a, "dtype"), json_object_del(a, "torch_dtype");
    assert_true(json_equal(a, b));
    json_decref(a), json_decref(b);
}

static void test_commands(void **state) {
    (void)state;
    Run r;
    char path[512], out[512], name[64];
    static const char lines[] = "{\"inputs\": \"red\", \"targets\": \"an apple\"}\n"
                                "{\"inputs\": \"blue\", \"targets\": \"the sky\"}\n";
    static const char *const tokenizers[] = {"byte-level BPE", "WordPiece", "byte-level BPE"};
    static const char *const sizes[] = {"post-norm, gelu\n", "BERT's\n",
                                        "all but every 3. see 3 tokens to either side"};
    run_start(&r);
    write_file(&r, "pairs.jsonl", lines, sizeof lines - 1, path, sizeof path);
    for (int k = 0; k < KINDS; k++) {
        char folder[128], *text;
        snprintf(folder, sizeof folder, FOLDERS "%s", kinds[k].name);
        run(&r, "info", folder);
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, "sequences of at most 64"));
        assert_non_null(strstr(r.out, tokenizers[k]));
        assert_non_null(strstr(r.out, sizes[k]));
        assert_null(strstr(r.out, "unknown"));
        run(&r, "text", "-m", folder, "--dtype", "f32", "--length", "6", "red");
        assert_int_equal(r.status, 0);
        text = strdup(r.out);
        run(&r, "show", "-m", folder, "--dtype", "f32", "--length", "6", "--json", "--text", "red");
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, "\"step\""));
        run(&r, "text", "-m", folder, "--template", "ab ___{2} cd ___", "red");
        assert_int_equal(r.status, 0);
        assert_true(!strncmp(r.out, "ab", 2) && strstr(r.out, "cd"));
        snprintf(name, sizeof name, "quantized-%s", kinds[k].name);
        path_in(out, sizeof out, &r, name);
        run(&r, "quantize", "-q", "-m", folder, out);
        assert_int_equal(r.status, 0);
        run(&r, "text", "-m", out, "--length", "6", "red");
        assert_int_equal(r.status, 0);
        snprintf(name, sizeof name, "full-%s", kinds[k].name);
        char full[512];
        path_in(full, sizeof full, &r, name);
        run(&r, "quantize", "-q", "-m", out, "--dequantize", "--dtype", "f32", full);
        assert_int_equal(r.status, 0);
        snprintf(name, sizeof name, "eval-%s", kinds[k].name);
        path_in(out, sizeof out, &r, name);
        run(&r, "eval", "text", "-m", folder, "--length", "4", "--task", "exact", path, "--out",
            out);
        assert_int_equal(r.status, 0);
        snprintf(name, sizeof name, "run-%s", kinds[k].name);
        path_in(out, sizeof out, &r, name);
        run(&r, "train", "adapt", "-m", folder, "--data", path, "--out", out, "--steps", "40",
            "--batch-sequences", "8", "--lr", "3e-3", "--schedule", "constant", "--dropout", "0",
            "--log-every", "1", "--seed", "3");
        if (r.status) fail_msg("%s", r.err);
        check_training(&r, out);
        check_written(out, kinds[k].name);
        strcat(out, "/model");
        run(&r, "text", "-m", out, "--dtype", "f32", "--length", "6", "red");
        assert_int_equal(r.status, 0);
        assert_string_not_equal(r.out, text);
        free(text);
    }
    run_end(&r);
}

/* Other stages and options: plain text, a length predictor, LoRA, block-causal attention. */
static void test_stages(void **state) {
    (void)state;
    Run r;
    char pairs[512], text[512], out[512], name[64];
    run_start(&r);
    write_file(&r, "a.jsonl", "{\"inputs\": \"red\", \"targets\": \"apple\"}\n", 38, pairs,
               sizeof pairs);
    write_file(&r, "a.txt", "red apples\n\nblue skies\n", 23, text, sizeof text);
    for (int k = 0; k < KINDS; k++) {
        char folder[128];
        snprintf(folder, sizeof folder, FOLDERS "%s", kinds[k].name);
        snprintf(name, sizeof name, "pretrain%d", k);
        path_in(out, sizeof out, &r, name);
        run(&r, "train", "pretrain", "-m", folder, "--data", text, "--out", out, "--steps", "2",
            "--warmup-steps", "1", "--attention", "full");
        if (r.status) fail_msg("%s", r.err);
        snprintf(name, sizeof name, "length%d", k);
        path_in(out, sizeof out, &r, name);
        run(&r, "train", "length", "-m", folder, "--data", pairs, "--out", out, "--epochs", "1");
        if (r.status) fail_msg("%s", r.err);
        strcat(out, "/model");
        run(&r, "text", "-m", out, "red");
        assert_int_equal(r.status, 0);
        snprintf(name, sizeof name, "lora%d", k);
        path_in(out, sizeof out, &r, name);
        run(&r, "train", "adapt", "-m", folder, "--data", pairs, "--out", out, "--steps", "2",
            "--lora-rank", "2", "--lora-targets", "out,fc1,fc2", "--attention", "block-causal");
        if (r.status) fail_msg("%s", r.err);
        strcat(out, "/model");
        run(&r, "text", "-m", out, "--length", "3", "red");
        assert_int_equal(r.status, 0);
        snprintf(name, sizeof name, "pruned%d", k);
        path_in(out, sizeof out, &r, name);
        run(&r, "prune", "-m", folder, "--data", pairs, out);
        assert_message(&r, 1, "only vocabularies of XLM-R's kind", k == 1 ? "WordPiece" : "BPE");
    }
    run_end(&r);
}

/* ---- Other files. ---- */

/* A folder of links to another's files, but for config.json, which is its text with `from` replaced
 * by `to`. */
static void changed_folder(const Run *r, const char *kind, const char *from, const char *to,
                           char *folder, size_t size) {
    static const char *const names[] = {"model.safetensors", "tokenizer.json", "vocab.json",
                                        "merges.txt", "tokenizer_config.json"};
    static int number;
    char here[512], old[1024], new_path[1024], name[64];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(name, sizeof name, "changed%d", number++);
    path_in(folder, size, r, name);
    assert_int_equal(mkdir(folder, 0755), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(old, sizeof old, "%s/" FOLDERS "%s/%s", here, kind, names[i]);
        snprintf(new_path, sizeof new_path, "%s/%s", folder, names[i]);
        if (access(old, F_OK) == 0) assert_int_equal(symlink(old, new_path), 0);
    }
    size_t length;
    char changed[4096];
    snprintf(old, sizeof old, FOLDERS "%s/config.json", kind);
    char *text = file_bytes(old, &length);
    const char *at = strstr(text, from);
    if (!at) fail_msg("no %s in %s", from, old);
    int count = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to,
                         at + strlen(from));
    free(text);
    snprintf(new_path, sizeof new_path, "%s/config.json", name);
    write_file(r, new_path, changed, (size_t)count, old, sizeof old);
}

static int open_described(Model *model, Device **device, const char *folder, Error *err) {
    Error opened;
    assert_ok(test_device_open(device, &(DeviceOptions){0}, &opened), &opened);
    const ModelOptions options = {
        .folder = folder, .feature_layer = FEATURE_LAYER_UNSET, .describe_only = true};
    return model_open(model, &options, *device, err);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *kind, *from, *to, *words[2];
    } cases[] = {
        {"roberta", "\"roberta\"", "\"camembert\"", {"camembert", "token ids"}},
        {"roberta", "\"bos_token_id\": 0", "\"bos_token_id\": 5", {"bos_token_id", "5"}},
        {"roberta",
         "\"hidden_act\": \"gelu\"",
         "\"hidden_act\": \"gelu\", \"position_embedding_type\": \"relative_key_query\"",
         {"position_embedding_type", "relative"}},
        {"roberta", "\"gelu\"", "\"gelu_new\"", {"hidden_act", "gelu_new"}},
        {"bert", "\"bert\"", "\"electra\"", {"model_type", "electra"}},
        {"bert", "\"gelu\"", "\"relu\"", {"hidden_act", "relu"}},
        {"bert",
         "\"hidden_act\": \"gelu\"",
         "\"hidden_act\": \"gelu\", \"position_embedding_type\": \"relative_key\"",
         {"position_embedding_type", "relative_key"}},
        {"bert", "\"num_attention_heads\": 3", "\"num_attention_heads\": 5", {"5 heads"}},
        {"modernbert", "\"modernbert\"", "\"modernbert-decoder\"", {"modernbert-decoder"}},
        {"modernbert",
         "\"hidden_activation\": \"gelu\"",
         "\"hidden_activation\": \"silu\"",
         {"hidden_activation", "silu"}},
        {"modernbert",
         "\"classifier_activation\": \"gelu\"",
         "\"classifier_activation\": \"relu\"",
         {"classifier_activation", "relu"}},
        {"modernbert", "\"full_attention\",\n", "\"sliding_attention\",\n", {"layer_types", "0"}},
        {"modernbert", "\"sliding_attention\",", "\"chunked_attention\",", {"chunked", "layer 1"}},
        {"modernbert", "\"full_attention\",", "", {"layer_types", "list of 4"}},
        {"modernbert", "\"local_attention\": 6", "\"local_attention\": 1", {"local_attention"}},
        {"modernbert",
         "\"rope_type\": \"default\"",
         "\"rope_type\": \"yarn\"",
         {"yarn", "default"}},
        {"modernbert", "\"rope_theta\": 500.0", "\"rope_theta\": 0", {"rope_theta", "full_att"}},
        {"modernbert",
         "\"norm_eps\": 1e-05",
         "\"norm_eps\": 1e-05, \"rope_scaling\": {\"factor\": 2}",
         {"rope_scaling", "not supported"}},
        {"modernbert", "\"norm_eps\": 1e-05", "\"norm_eps\": 2", {"norm_eps", "2"}},
        {"modernbert", "\"norm_bias\": false", "\"norm_bias\": true", {"lacks", "norm.bias"}},
        {"modernbert",
         "\"decoder_bias\": true",
         "\"decoder_bias\": false",
         {"decoder.bias", "would not be used"}},
        {"modernbert",
         "\"tie_word_embeddings\": true",
         "\"tie_word_embeddings\": false",
         {"tie_word", "no tensor decoder.weight"}},
        {"modernbert",
         "\"intermediate_size\": 25",
         "\"intermediate_size\": 50",
         {"tensors have 25"}},
    };
    Run r;
    char folder[400];
    run_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err;
        Model model;
        Device *device;
        changed_folder(&r, cases[i].kind, cases[i].from, cases[i].to, folder, sizeof folder);
        if (open_described(&model, &device, folder, &err) == 0)
            fail_msg("case %zu, %s, should have been refused", i, cases[i].to);
        for (int w = 0; w < 2 && cases[i].words[w]; w++)
            if (!strstr(err.text, cases[i].words[w]))
                fail_msg("case %zu: no \"%s\" in: %s", i, cases[i].words[w], err.text);
        assert_null(strchr(err.text, '\n'));
        device_close(device);
    }
    run_end(&r);
}

/* Published configurations of ModernBERT are older: bases by other names, no list of layers; and
 * mmBERT's local base is its global one. */
static void test_older_config(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"model_type\": \"modernbert\", \"num_attention_heads\": 3, \"global_rope_theta\": "
        "700.0, \"local_rope_theta\": 30.0, \"global_attn_every_n_layers\": 2, "
        "\"local_attention\": 10, \"layer_norm_eps\": 0.5, \"position_embedding_type\": "
        "\"absolute\"}",
        "{\"model_type\": \"modernbert\", \"num_attention_heads\": 3, \"local_rope_theta\": null}",
        "{\"model_type\": \"modernbert\", \"num_attention_heads\": 3, \"layer_types\": "
        "[\"full_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]}"};
    static const float theta[] = {700, 160000, 160000}, local[] = {30, 160000, 10000};
    static const int window[] = {5, 64, 0}, every[] = {2, 3, 1};
    Run r;
    char folder[400], path[512];
    run_start(&r);
    changed_folder(&r, "modernbert", "{", "{", folder, sizeof folder);
    for (int i = 0; i < 3; i++) {
        Error err;
        Model model;
        Device *device;
        char name[64];
        snprintf(name, sizeof name, "%s/config.json", strrchr(folder, '/') + 1);
        write_file(&r, name, texts[i], strlen(texts[i]), path, sizeof path);
        assert_ok(open_described(&model, &device, folder, &err), &err);
        const XlmrConfig *c = &model.xlmr.config;
        assert_true(c->theta == theta[i] && c->local_theta == local[i]);
        assert_int_equal(c->block.window, window[i]);
        assert_int_equal(c->block.global_every, every[i]);
        assert_int_equal(c->positions, 8192);
        assert_true(c->block.eps == 1e-5f);
        model_close(&model);
        device_close(device);
    }
    run_end(&r);
}

/* The first BERTs call the values of a LayerNorm gamma and beta, and have a pooler and a second
 * head, which are not used. */
static void test_old_names(void **state) {
    (void)state;
    Run r;
    Error err;
    char folder[400], path[512], names[64][128];
    Checkpoint c;
    CheckpointEntry entries[64];
    size_t count = 0;
    static const float values[48] = {0};
    run_start(&r);
    changed_folder(&r, "bert", "{", "{", folder, sizeof folder);
    assert_ok(checkpoint_open(&c, FOLDERS "bert", NULL, &err), &err);
    for (; count < c.count; count++) {
        char *name = names[count];
        snprintf(name, sizeof names[0], "%s", c.tensors[count].name);
        char *weight = strstr(name, "LayerNorm.weight"), *bias = strstr(name, "LayerNorm.bias");
        if (weight) strcpy(weight, "LayerNorm.gamma");
        if (bias) strcpy(bias, "LayerNorm.beta");
        entries[count] = (CheckpointEntry){name, c.tensors[count].value};
    }
    const Tensor two = tensor_2d((float *)(uintptr_t)values, DTYPE_F32, 2, 24);
    entries[count++] = (CheckpointEntry){"cls.seq_relationship.weight", two};
    entries[count++] = (CheckpointEntry){"bert.pooler.dense.weight", two};
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(unlink(path), 0);
    assert_ok(checkpoint_write(path, entries, count, &err), &err);
    checkpoint_close(&c);
    run(&r, "text", "-m", FOLDERS "bert", "--length", "6", "red");
    assert_int_equal(r.status, 0);
    char *want = strdup(r.out);
    run(&r, "text", "-m", folder, "--length", "6", "red");
    expect(&r, 0, want);
    free(want);
    run_end(&r);
}

/* "context" limits ModernBERT's sequences; BERT's are those of its table. */
static void test_context(void **state) {
    (void)state;
    Run r;
    char here[512], folder[400], from[1024], to[1024], path[512];
    run_start(&r);
    assert_non_null(getcwd(here, sizeof here));
    for (int k = 1; k < KINDS; k++) {
        path_in(folder, sizeof folder, &r, kinds[k].name);
        assert_int_equal(mkdir(folder, 0755), 0);
        snprintf(from, sizeof from, "%s/" FOLDERS "%s", here, kinds[k].name);
        snprintf(to, sizeof to, "%s/language", folder);
        assert_int_equal(symlink(from, to), 0);
        snprintf(to, sizeof to, "%s/easyfirst.json", kinds[k].name);
        write_file(&r, to, "{\"context\": 40}", 15, path, sizeof path);
        run(&r, "info", folder);
        if (k == 1)
            assert_message(&r, 1, "\"context\"", "an encoder");
        else
            assert_non_null(strstr(r.out, "sequences of at most 40"));
    }
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),       cmocka_unit_test(test_commands),
        cmocka_unit_test(test_stages),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_older_config), cmocka_unit_test(test_old_names),
        cmocka_unit_test(test_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
