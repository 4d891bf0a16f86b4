/* `train --lora-rank` writes an adapter: with the base model it is the merged model; commands take
 * it; a run that starts from an adapter. */
#include "data/checkpoints/adapter.h"
#include "projector/model.h"
#include "tests/matrix.h"
#include "tests/program.h"
#include "tests/server.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE "tests/golden/models/tiny-base"

static const char pairs[] = "{\"inputs\": \"red\", \"targets\": \"an apple\"}\n"
                            "{\"inputs\": \"blue\", \"targets\": \"the sky\"}\n";

typedef struct Opened {
    Device *device;
    Model model;
} Opened;

static void opened_open(Opened *o, const char *folder, const char *adapter) {
    Error err;
    const ModelOptions options = {.folder = folder,
                                  .adapter = adapter,
                                  .feature_layer = FEATURE_LAYER_UNSET,
                                  .describe_only = true};
    assert_ok(test_device_open(&o->device, &(DeviceOptions){0}, &err), &err);
    assert_ok(model_open(&o->model, &options, o->device, &err), &err);
}

static void opened_close(Opened *o) {
    model_close(&o->model);
    device_close(o->device);
}

/* Whether the language models have the same values, to the bit. */
static bool same_weights(const char *a, const char *a_adapter, const char *b,
                         const char *b_adapter) {
    Opened one, two;
    opened_open(&one, a, a_adapter), opened_open(&two, b, b_adapter);
    const Params *p = &one.model.language.params, *q = &two.model.language.params;
    bool same = true;
    assert_int_equal(p->count, q->count);
    for (int i = 0; i < p->count; i++) {
        if (!p->items[i].present) continue;
        const Tensor x = p->items[i].value, y = q->items[i].value;
        assert_int_equal(x.dtype, y.dtype);
        same &= !memcmp(x.data, y.data, tensor_bytes(x));
    }
    opened_close(&one), opened_close(&two);
    return same;
}

static char *answer(Run *r, char *model, char *adapter) {
    run(r, "text", "-m", model, "-q", "--json", "--length", "6", "red apple",
        adapter ? "--adapter" : NULL, adapter);
    expect(r, 0, NULL);
    return strdup(r->out);
}

/* The base model is stored as f32 or bf16; LoRA is on everything, and on some. */
static void check_trained(Run *r, char *base, char *name, char *data, char *targets,
                          const char *target) {
    char out[512], model[600], adapter[600], path[700], *texts[3];
    path_in(out, sizeof out, r, name);
    run(r, "train", "adapt", "-m", base, "--data", data, "--out", out, "--steps", "4", "--lr",
        "0.05", "--lora-rank", "3", "--lora-alpha", "7.25", "--lora-targets", targets,
        "--batch-tokens", "60", "-q");
    expect(r, 0, NULL);
    snprintf(model, sizeof model, "%s/model", out);
    snprintf(adapter, sizeof adapter, "%s/model/adapter", out);
    assert_true(same_weights(model, NULL, base, adapter));
    assert_false(same_weights(model, NULL, base, NULL));
    texts[0] = answer(r, model, NULL), texts[1] = answer(r, base, adapter);
    texts[2] = answer(r, base, NULL);
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    for (int i = 0; i < 3; i++) free(texts[i]);
    snprintf(path, sizeof path, "%s/adapter_config.json", adapter);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    assert_int_equal(json_integer_value(json_object_get(config, "r")), 3);
    assert_true(json_real_value(json_object_get(config, "lora_alpha")) == 7.25);
    const json_t *names = json_object_get(config, "target_modules");
    bool found = false;
    for (size_t i = 0; i < json_array_size(names); i++)
        found |= !strcmp(json_string_value(json_array_get(names, i)), target);
    assert_true(found);
    json_decref(config);
}

static void test_trained(void **state) {
    (void)state;
    Run r;
    char data[512];
    run_start(&r);
    write_file(&r, "pairs.jsonl", pairs, sizeof pairs - 1, data, sizeof data);
    check_trained(&r, BASE, "some", data, "query,value", "query");
    /* "dense" would be the head's, too. */
    check_trained(&r, BASE, "all", data, "all", "roberta.encoder.layer.1.attention.output.dense");
    check_trained(&r, "tests/golden/models/tiny-xl", "xl", data, "out,fc2",
                  "roberta.encoder.layer.0.output.dense");
    check_trained(&r, "tests/golden/llama/folders/llada", "llada", data, "fc1", "up_proj");
    run_end(&r);
}

/* A run of two steps with `--lora-rank RANK` or all weights ("0"). */
#define ADAPT(from, out, rank)                                                                  \
    "train", "adapt", "-m", from, "--data", data, "--out", out, "--steps", "2", "--lr", "0.01", \
        "--batch-tokens", "60", "-q", "--lora-rank", rank

/* Commands that read and write. */
static void test_commands(void **state) {
    (void)state;
    Run r;
    char data[512], out[512], model[600], adapter[600], small[2][512];
    run_start(&r);
    write_file(&r, "pairs.jsonl", pairs, sizeof pairs - 1, data, sizeof data);
    path_in(out, sizeof out, &r, "run");
    run(&r, ADAPT("tests/golden/models/tiny-xl", out, "3"));
    expect(&r, 0, NULL);
    snprintf(model, sizeof model, "%s/model", out);
    snprintf(adapter, sizeof adapter, "%s/model/adapter", out);
    path_in(small[0], sizeof small[0], &r, "small-0");
    path_in(small[1], sizeof small[1], &r, "small-1");
    run(&r, "quantize", "-m", model, "-q", small[0]);
    expect(&r, 0, NULL);
    run(&r, "quantize", "-m", "tests/golden/models/tiny-xl", "--adapter", adapter, "-q", small[1]);
    expect(&r, 0, NULL);
    assert_true(same_weights(small[0], NULL, small[1], NULL));
    run(&r, "info", "-m", "tests/golden/models/tiny-xl", "--adapter", adapter, "--json");
    expect(&r, 0, NULL);
    json_t *json = json_loads(r.out, 0, NULL);
    const json_t *told = json_object_get(json, "adapter");
    assert_int_equal(json_integer_value(json_object_get(told, "rank")), 3);
    assert_string_equal(json_string_value(json_object_get(told, "path")), adapter);
    json_decref(json);
    /* An evaluation's folder is of one adapter. */
    path_in(out, sizeof out, &r, "result");
    run(&r, "eval", "text", "--task", "exact", "-m", BASE, "--out", out, "--length", "4", "-q",
        "--adapter", "tests/golden/adapters/xlmr", data);
    assert_int_equal(r.status, 0);
    run(&r, "eval", "text", "--task", "exact", "-m", BASE, "--out", out, "--length", "4", "-q",
        data);
    assert_message(&r, 1, out, "adapter/adapter_config.json");
    run(&r, "info", "-m", BASE, "--adapter", "tests/golden/adapters/llama");
    assert_message(&r, 1, "llama/adapter_model.safetensors", "belongs to no matrix");
    run(&r, "text", "-m", BASE, "--adapter", small[0], "x");
    assert_message(&r, 1, small[0], "no adapter");
    run_end(&r);
}

/* A run from an adapter is one from the merged model, and a resumed run does not add it again. */
static void test_from_adapter(void **state) {
    (void)state;
    Run r;
    char data[512], first[512], model[600], adapter[600], out[3][512], trained[3][600];
    run_start(&r);
    write_file(&r, "pairs.jsonl", pairs, sizeof pairs - 1, data, sizeof data);
    path_in(first, sizeof first, &r, "first");
    run(&r, ADAPT(BASE, first, "3"));
    expect(&r, 0, NULL);
    snprintf(model, sizeof model, "%s/model", first);
    snprintf(adapter, sizeof adapter, "%s/model/adapter", first);
    for (int lora = 0; lora < 2; lora++) {
        char *rank = lora ? "2" : "0";
        for (int i = 0; i < 3; i++) {
            char name[16];
            snprintf(name, sizeof name, "run-%d-%d", lora, i);
            path_in(out[i], sizeof out[i], &r, name);
            snprintf(trained[i], sizeof trained[i], "%s/model", out[i]);
        }
        run(&r, ADAPT(model, out[0], rank));
        expect(&r, 0, NULL);
        run(&r, ADAPT(BASE, out[1], rank), "--adapter", adapter);
        expect(&r, 0, NULL);
        run(&r, ADAPT(BASE, out[2], rank), "--adapter", adapter, "--stop-after", "1");
        expect(&r, 0, NULL);
        run(&r, "train", "--resume", "--out", out[2], "-q");
        expect(&r, 0, NULL);
        assert_true(same_weights(trained[0], NULL, trained[1], NULL));
        assert_true(same_weights(trained[0], NULL, trained[2], NULL));
        assert_false(same_weights(trained[0], NULL, model, NULL));
    }
    run_end(&r);
}

/* ---- Several at once. ---- */

/* The text that the server's model `name` answers, and the name that it says. */
static char *served(const HttpServer *server, const char *name, char *model, size_t size) {
    char body[300];
    snprintf(body, sizeof body,
             "{\"model\": \"%s\", \"prompt\": \"red apple\", \"easyfirst\": {\"length\": 6}}",
             name);
    char *reply = server_ask(server, "POST /v1/completions", body);
    if (reply_status(reply) != 200) fail_msg("%s: %s", name, reply);
    json_t *json = json_loads(reply_body(reply), 0, NULL);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    char *text = strdup(json_string_value(json_object_get(choice, "text")));
    snprintf(model, size, "%s", json_string_value(json_object_get(json, "model")));
    json_decref(json);
    free(reply);
    return text;
}

static void plain_answer(Run *r, char *adapter, char *text, size_t size) {
    run(r, "text", "-m", BASE, "-q", "--length", "6", "red apple", adapter ? "--adapter" : NULL,
        adapter);
    expect(r, 0, NULL);
    snprintf(text, size, "%.*s", (int)strcspn(r->out, "\n"), r->out);
}

static void test_served(void **state) {
    (void)state;
    Run r;
    HttpServer server;
    char data[512], out[512], own[600], named[2][700], wanted[3][300], model[64];
    static const char *const names[] = {"tiny-base", "first", "second"};
    if (server_missing()) skip();
    run_start(&r);
    write_file(&r, "pairs.jsonl", pairs, sizeof pairs - 1, data, sizeof data);
    path_in(out, sizeof out, &r, "run");
    run(&r, ADAPT(BASE, out, "3"), "--lora-targets", "all", "--lr", "0.05");
    expect(&r, 0, NULL);
    snprintf(own, sizeof own, "%s/model/adapter", out);
    snprintf(named[0], sizeof named[0], "first=%s", own);
    snprintf(named[1], sizeof named[1], "second=tests/golden/adapters/xlmr");
    plain_answer(&r, NULL, wanted[0], sizeof wanted[0]);
    plain_answer(&r, own, wanted[1], sizeof wanted[1]);
    plain_answer(&r, "tests/golden/adapters/xlmr", wanted[2], sizeof wanted[2]);
    assert_string_not_equal(wanted[0], wanted[1]);
    assert_string_not_equal(wanted[1], wanted[2]);
    server_start(&server, &r, "-m", BASE, "--adapter", named[0], "--adapter", named[1]);
    for (int i = 5; i >= 0; i--) {
        char *text = served(&server, names[i % 3], model, sizeof model);
        assert_string_equal(model, names[i % 3]);
        if (strcmp(text, wanted[i % 3]))
            fail_msg("%s: \"%s\", expected \"%s\"", model, text, wanted[i % 3]);
        free(text);
    }
    char *reply = server_ask(&server, "GET /v1/models", "");
    json_t *json = json_loads(reply_body(reply), 0, NULL);
    assert_int_equal(json_array_size(json_object_get(json, "data")), 3);
    json_decref(json), free(reply);
    reply = server_ask(&server, "GET /v1/models/second", "");
    assert_int_equal(reply_status(reply), 200);
    free(reply);
    reply =
        server_ask(&server, "POST /v1/completions", "{\"model\": \"third\", \"prompt\": \"red\"}");
    assert_int_equal(reply_status(reply), 404);
    assert_non_null(strstr(reply, "its adapters"));
    free(reply);
    assert_int_equal(server_end(&server, SIGTERM), 0);
    run(&r, "serve", "--port", "0", "-m", BASE, "--adapter", named[1], "--adapter", named[1]);
    assert_message(&r, 1, "two models have the name \"second\"");
    run(&r, "serve", "--port", "0", "-m", BASE, "--adapter", own, "--adapter", own);
    assert_message(&r, 2, "have no names");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained), cmocka_unit_test(test_commands),
        cmocka_unit_test(test_from_adapter), cmocka_unit_test(test_served)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
