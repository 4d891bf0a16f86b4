/* `eval likelihood`, `--by likelihood` and `--guidance` as a person uses them. */
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program.h"

#define MODELS "tests/golden/models/"
#define LLAMA  "tests/golden/llama/folders/"
#define PIC    MODELS "image0.png"

static const char *const models[] = {MODELS "tiny-base", MODELS "tiny-xl", LLAMA "llada",
                                     LLAMA "dream", "data/bundled/model"};
enum { MODEL_COUNT = sizeof models / sizeof models[0] };

static json_t *json_of(const char *text) {
    json_t *json = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    if (!json) fail_msg("no JSON: %s", text);
    return json;
}

static double number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("%s is not a number", name);
    return json_number_value(value);
}

static const char lines[] =
    "a dog\nthe dog is on the left of the black dog and the red car\n\nno\n";
static const char pairs[] =
    "{\"inputs\": \"Is it?\", \"targets\": \"yes\"}\n"
    "{\"inputs\": \"Is it a dog?\", \"targets\": \"no, a cat and a car\"}\n";

/* The sums of likelihoods.jsonl. */
static void sum_texts(const char *folder, double *nats, double *tokens, int *count) {
    char path[600];
    size_t size;
    snprintf(path, sizeof path, "%s/likelihoods.jsonl", folder);
    char *bytes = file_bytes(path, &size), *line = bytes;
    assert_non_null(bytes);
    *nats = *tokens = 0, *count = 0;
    for (; *line; line = strchr(line, '\n') + 1, (*count)++) {
        json_t *text = json_of(line);
        *nats += number(text, "nats"), *tokens += number(text, "tokens");
        assert_true(number(text, "standard_error") >= 0);
        json_decref(text);
    }
    free(bytes);
}

static void check_file(Run *r, const char *model, const char *path, const char *name, int texts) {
    char out[400];
    double nats, tokens;
    int count;
    path_in(out, sizeof out, r, name);
    run(r, "eval", "likelihood", "-q", "--json", "--samples", "24", "--out", out, "-m",
        (char *)model, (char *)path);
    assert_int_equal(r->status, 0);
    json_t *result = json_of(r->out), *score = json_object_get(result, "score");
    char *first = strdup(r->out);
    assert_int_equal(number(result, "texts"), texts);
    sum_texts(out, &nats, &tokens, &count);
    assert_int_equal(count, texts);
    assert_true(tokens == number(score, "tokens"));
    assert_true(fabs(number(score, "bits_per_byte") - nats / number(score, "bytes") / M_LN2) <
                1e-6);
    assert_true(fabs(log(number(score, "perplexity")) - nats / tokens) < 1e-6);
    assert_true(number(score, "mask_error") >= 0 && number(score, "bits_per_byte_error") > 0);
    assert_true(json_is_true(json_object_get(score, "upper_bound")));
    /* The same once more; the same result with other batches; another one with another seed. */
    run(r, "eval", "likelihood", "-q", "--json", "--samples", "24", "--out", out, "-m",
        (char *)model, (char *)path);
    expect(r, 0, first);
    run(r, "eval", "likelihood", "-q", "--samples", "24", "--batch-tokens", "40", "-m",
        (char *)model, (char *)path);
    char line[64];
    snprintf(line, sizeof line, "bits per byte  %.3f", number(score, "bits_per_byte"));
    assert_int_equal(r->status, 0);
    const char *printed = strstr(r->out, "bits per byte  ");
    assert_non_null(printed);
    assert_true(fabs(strtod(printed + 15, NULL) - number(score, "bits_per_byte")) <
                2e-2 * number(score, "bits_per_byte"));
    assert_non_null(strstr(r->out, "an upper bound"));
    run(r, "eval", "likelihood", "-q", "--json", "--samples", "24", "--seed", "5", "--out", out,
        "-m", (char *)model, (char *)path);
    assert_message(r, 1, "seed");
    free(first);
    json_decref(result);
}

static void files(void **state) {
    (void)state;
    for (int m = 0; m < MODEL_COUNT; m++) {
        Run r;
        char text[400], json[400];
        run_start(&r);
        write_file(&r, "lines.txt", lines, strlen(lines), text, sizeof text);
        write_file(&r, "pairs.jsonl", pairs, strlen(pairs), json, sizeof json);
        check_file(&r, models[m], text, "out-lines", 3);
        check_file(&r, models[m], json, "out-pairs", 2);
        run_end(&r);
    }
}

static void left_out(void **state) {
    (void)state;
    Run r;
    char path[400], big[4000] = "yes\n", missing[400];
    run_start(&r);
    for (int i = 0; i < 600; i++) strcat(big, "dog ");
    strcat(big, "\nno <mask>\n");
    write_file(&r, "lines.txt", big, strlen(big), path, sizeof path);
    run(&r, "eval", "likelihood", "-m", (char *)models[0], path);
    assert_int_equal(r.status, 1);
    assert_non_null(strstr(r.out, "texts          1,"));
    assert_non_null(strstr(r.err, "left out: text that does not fit: 1"));
    assert_non_null(strstr(r.err, "contains <mask>"));
    run(&r, "eval", "likelihood", "-q", "--samples", "1", "--json", "-m", (char *)models[0],
        "--limit", "1", path);
    assert_int_equal(r.status, 0);
    json_t *result = json_of(r.out), *score = json_object_get(result, "score");
    assert_true(json_is_null(json_object_get(score, "bits_per_byte_error"))); /* of one text */
    json_decref(result);
    run(&r, "eval", "likelihood", "-m", (char *)models[0]);
    assert_message(&r, 2, "no file");
    path_in(missing, sizeof missing, &r, "none.txt");
    run(&r, "eval", "likelihood", "-m", (char *)models[0], missing);
    assert_message(&r, 1, "none.txt");
    run(&r, "eval", "likelihood", "-m", (char *)models[0], "--samples", "0", path);
    assert_int_equal(r.status, 2);
    run_end(&r);
}

/* LLaDA's folder with a tokenizer without <mask>, and shifted predictions. */
static void autoregressive(void **state) {
    (void)state;
    static const char config[] =
        "{\"model_type\": \"llada\", \"d_model\": 16, \"n_heads\": 2, \"n_kv_heads\": 2,"
        " \"n_layers\": 2, \"mlp_hidden_size\": 9, \"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-5,"
        " \"embedding_size\": 431, \"vocab_size\": 431, \"max_sequence_length\": 60,"
        " \"weight_tying\": false, \"block_type\": \"llama\", \"layer_norm_type\": \"rms\","
        " \"activation_type\": \"silu\", \"rope\": true, \"eos_token_id\": 0}\n";
    static const char settings[] = "{\"format\": 1, \"shifted\": true}\n";
    Run r;
    char folder[400], language[500], here[512], target[1200], file[1200], text[400], out[400];
    run_start(&r);
    path_in(folder, sizeof folder, &r, "ar");
    snprintf(language, sizeof language, "%s/language", folder);
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_int_equal(mkdir(language, 0777), 0);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(target, sizeof target, "%s/" LLAMA "llada/%s", here, "model.safetensors");
    snprintf(file, sizeof file, "%s/%s", language, "model.safetensors");
    assert_int_equal(symlink(target, file), 0);
    snprintf(target, sizeof target, "%s/tests/golden/tokenizers/gpt2/tokenizer.json", here);
    snprintf(file, sizeof file, "%s/tokenizer.json", language);
    assert_int_equal(symlink(target, file), 0);
    write_file(&r, "ar/language/config.json", config, strlen(config), file, sizeof file);
    write_file(&r, "ar/easyfirst.json", settings, strlen(settings), file, sizeof file);
    write_file(&r, "pairs.jsonl", pairs, strlen(pairs), text, sizeof text);
    path_in(out, sizeof out, &r, "out");
    run(&r, "eval", "likelihood", "-q", "--json", "-m", folder, "--out", out, text);
    if (r.status) fail_msg("%s", r.err);
    json_t *result = json_of(r.out), *score = json_object_get(result, "score");
    assert_true(json_is_false(json_object_get(score, "upper_bound")));
    assert_int_equal(number(score, "evaluations"), 2);
    assert_true(number(score, "mask_error") == 0 && number(score, "perplexity") > 1);
    json_decref(result);
    write_file(&r, "lines.txt", lines, strlen(lines), text, sizeof text);
    run(&r, "eval", "likelihood", "-m", folder, text); /* no token begins a text */
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.err, "the first token of each of 3 texts"));
    write_file(&r, "lines.txt", "!\n?\n", 4, text, sizeof text);
    run(&r, "eval", "likelihood", "-q", "-m", folder, text);
    assert_message(&r, 1, "no token");
    write_file(&r, "paragraphs.txt", "one\ntwo\n\nthree four\nfive\n", 25, text, sizeof text);
    run(&r, "eval", "likelihood", "-q", "--paragraphs", "-m", folder, text);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.out, "texts          2,"));
    run_end(&r);
}

/* ---- Choices. ---- */

static void chosen_by_likelihood(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int m = 0; m < MODEL_COUNT; m++) {
        run(&r, "text", "-q", "-m", (char *)models[m], "--one-of", "yes,no,a red car", "--by",
            "likelihood", "--json", "Is it?");
        assert_int_equal(r.status, 0);
        json_t *json = json_of(r.out), *choices = json_object_get(json, "choices");
        double sum = 0;
        for (size_t i = 0; i < 3; i++) sum += number(json_array_get(choices, i), "probability");
        assert_true(fabs(sum - 1) < 1e-6);
        json_decref(json);
    }
    setenv("EASYFIRST_MODEL", models[0], 1);
    run(&r, "ask", "-q", "--one-of", "left,right", "--by", "likelihood", "--samples", "9", PIC,
        "Where?");
    assert_int_equal(r.status, 0);
    run(&r, "text", "--by", "likelihood", "Is it?");
    assert_message(&r, 2, "--by needs");
    run(&r, "text", "--one-of", "yes,no", "--samples", "3", "Is it?");
    assert_message(&r, 2, "--samples");
    run(&r, "text", "--one-of", "yes,no", "--guidance", "1", "Is it?");
    assert_message(&r, 2, "--guidance");
    run(&r, "text", "--one-of", "yes,no", "--by", "chance", "Is it?");
    assert_int_equal(r.status, 2);
    run_end(&r);
}

/* ---- Guidance. ---- */

static void guided(void **state) {
    (void)state;
    Run r;
    char file[400];
    run_start(&r);
    for (int m = 0; m < MODEL_COUNT; m++) {
        run(&r, "text", "-q", "--json", "-n", "5", "-m", (char *)models[m], "--guidance", "1.5",
            "Is it?");
        assert_int_equal(r.status, 0);
        json_t *json = json_of(r.out);
        assert_true(number(json, "guidance") == 1.5);
        assert_int_equal((int)number(json, "evaluations") % 2, 0);
        json_decref(json);
    }
    setenv("EASYFIRST_MODEL", models[0], 1);
    run(&r, "text", "-n", "5", "--guidance", "1.5", "Is it?");
    assert_non_null(strstr(r.err, ", guidance 1.5"));
    run(&r, "text", "-n", "5", "--guidance", "1", "--prefix-cache", "2", "Is it?");
    assert_message(&r, 2, "--guidance", "--prefix-cache");
    run(&r, "text", "-n", "5", "--guidance", "-1", "Is it?");
    assert_int_equal(r.status, 2);
    path_in(file, sizeof file, &r, "trace.json");
    run(&r, "show", "-q", "-n", "5", "--guidance", "1", "--json", file, "--text", "Is it?");
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.err, "no alternatives"));
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),          cmocka_unit_test(left_out),
        cmocka_unit_test(autoregressive), cmocka_unit_test(chosen_by_likelihood),
        cmocka_unit_test(guided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
