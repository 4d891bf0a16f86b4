/* The commands with a model of each family - LLaDA, Dream, adapted LLaMA, Qwen2 - that sees, and with one
 * that does not: info, quantize, new, ask, text, eval, show, chat, serve. */
#include <jansson.h>
#include <openssl/evp.h>
#include <signal.h>
#include <unistd.h>

#include "tests/llama_folder.h"
#include "tests/server.h"

#define MODELS   "tests/golden/models"
#define PIC      MODELS "/image0.png"
#define QUESTION "What is it?"
#define LENGTH   4

typedef struct Family {
    const char *kind, *chat, *attention;
    int side;
} Family;

static const Family families[] = {
    {"llada", "llama-3", "full", 224},
    {"dream", "dream", "block-causal", 224},
    {"llama", "llama-2", "block-causal", 224},
    {"qwen2", "chatml", "full", 336},
};
enum { FAMILIES = sizeof families / sizeof *families };

static void family_make(const Run *r, const Family *f, bool sees, char *folder, size_t size) {
    char settings[200];
    snprintf(settings, sizeof settings,
             "{\"chat_template\": \"%s\", \"attention\": \"%s\", \"answer_length\": %d}", f->chat,
             f->attention, LENGTH);
    llama_folder_make(r, &(LlamaFolder){f->kind, settings, sees ? f->side : 0}, folder, size);
}

/* The text that a command printed as the value of "text" in a line of JSON; the caller's to free. */
static char *answered(const Run *r) {
    if (r->status) fail_msg("%s", r->err);
    json_t *json = json_loads(r->out, JSON_DISABLE_EOF_CHECK, NULL);
    const char *text = json_string_value(json_object_get(json, "text"));
    if (!text) text = json_string_value(json_object_get(json, "answer"));
    if (!text) fail_msg("no text: %s", r->out);
    char *copy = strdup(text);
    json_decref(json);
    return copy;
}

static void ask(Run *r, const char *folder, char **text) {
    run(r, "ask", "-q", "--json", "-m", (char *)folder, PIC, QUESTION);
    *text = answered(r);
}

static void check_info(Run *r, const Family *f, const char *folder) {
    char line[64];
    run(r, "info", (char *)folder);
    assert_int_equal(r->status, 0);
    snprintf(line, sizeof line, "image:      %d tokens of 700", f->side / 14 * (f->side / 14));
    assert_non_null(strstr(r->out, line));
    snprintf(line, sizeof line, "attention:  %s\n", f->attention);
    assert_non_null(strstr(r->out, line));
    snprintf(line, sizeof line, "chat:       %s\n", f->chat);
    assert_non_null(strstr(r->out, line));
    assert_int_equal(strstr(r->out, "predicts:   each token from the row before") != NULL,
                     strcmp(f->kind, "llada") != 0);
    assert_non_null(strstr(r->out, "projector: "));
}

/* The same answer from each command; `want` is its text. */
static void check_answers(Run *r, const char *folder, const char *want) {
    static const char line[] = QUESTION "\n";
    char *text, page[512];
    run(r, "ask", "-q", "-m", (char *)folder, PIC, QUESTION);
    assert_int_equal(r->status, 0);
    char *printed = strdup(r->out);
    run(r, "show", "--quiet", "-m", (char *)folder, PIC, QUESTION);
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, printed));   /* after its steps */
    path_in(page, sizeof page, r, "page.html"); /* with attention */
    run(r, "show", "--quiet", "--html", page, "-m", (char *)folder, PIC, QUESTION);
    if (r->status) fail_msg("%s", r->err);
    assert_int_equal(access(page, R_OK), 0);
    assert_int_equal(unlink(page), 0);
    run_text(r, line, "chat", "-q", "-m", (char *)folder, PIC);
    assert_int_equal(r->status, 0);
    if (!strstr(r->out, printed)) fail_msg("\"%s\" without \"%s\"", r->out, printed);
    free(printed);
    run(r, "ask", "-q", "--json", "--no-kv-cache", "-m", (char *)folder, PIC, QUESTION);
    text = answered(r);
    assert_string_equal(text, want);
    free(text);
    run(r, "ask", "-q", "-m", (char *)folder, "--one-of", "yes,no", PIC, QUESTION);
    assert_int_equal(r->status, 0);
    assert_true(!strcmp(r->out, "yes\n") || !strcmp(r->out, "no\n"));
}

/* The text of the first of eval's answers. */
static void check_line(const Run *r, const char *name, const char *want) {
    char path[512];
    path_in(path, sizeof path, r, name);
    char *file = file_bytes(path, NULL);
    assert_non_null(file);
    json_t *line = json_loads(file, JSON_DISABLE_EOF_CHECK, NULL);
    const char *got = json_string_value(json_object_get(line, "text"));
    assert_non_null(got);
    assert_string_equal(got, want);
    json_decref(line);
    free(file);
}

/* eval puts the question into its own prompt template and that into the chat template. */
static void check_eval(Run *r, const char *folder, int number) {
    static const char questions[] =
        "{\"1\": {\"question\": \"" QUESTION "\", \"imageId\": \"image0\", \"answer\": \"no\", "
        "\"isBalanced\": true, \"groups\": {\"global\": \"things\", \"local\": null}, "
        "\"entailed\": [], "
        "\"equivalent\": [], \"types\": {\"structural\": \"verify\", \"semantic\": \"obj\", "
        "\"detailed\": \"existTrue\"}, \"semantic\": [], \"annotations\": {}}}";
    static const char asked[] = QUESTION "\nAnswer the question using a single word or phrase.";
    char path[512], out[512], name[32];
    write_file(r, "questions.json", questions, sizeof questions - 1, path, sizeof path);
    snprintf(name, sizeof name, "eval%d", number);
    path_in(out, sizeof out, r, name);
    if (number == 0) { /* GQA's images are JPEG by name; what a file is, is looked at */
        char *from = realpath(PIC, NULL), to[512];
        path_in(to, sizeof to, r, "image0.jpg");
        assert_non_null(from);
        assert_int_equal(symlink(from, to), 0);
        free(from);
    }
    run(r, "eval", "gqa", "-q", path, "--images", r->folder, "--out", out, "-m", (char *)folder);
    if (r->status) fail_msg("%s", r->err);
    run(r, "ask", "-q", "--json", "-m", (char *)folder, PIC, (char *)asked);
    char *want = answered(r);
    snprintf(name, sizeof name, "eval%d/answers.jsonl", number);
    check_line(r, name, want);
    free(want);
}

static void check_quantized(Run *r, const char *folder, int number) {
    char out[512], name[32], *text;
    snprintf(name, sizeof name, "quantized%d", number);
    path_in(out, sizeof out, r, name);
    run(r, "quantize", "-q", "-m", (char *)folder, out);
    if (r->status) fail_msg("%s", r->err);
    run(r, "info", out);
    assert_non_null(strstr(r->out, "stored as i8"));
    ask(r, out, &text);
    free(text);
}

static void test_sees(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int i = 0; i < FAMILIES; i++) {
        char folder[512], *text, *whole;
        family_make(&r, &families[i], true, folder, sizeof folder);
        check_info(&r, &families[i], folder);
        ask(&r, folder, &text);
        whole = strdup(r.out);
        check_answers(&r, folder, text);
        run(&r, "ask", "-q", "--json", "-m", folder, MODELS "/image1.png", QUESTION);
        assert_int_equal(r.status, 0);
        assert_string_not_equal(r.out, whole); /* in its scores at least */
        check_eval(&r, folder, i);
        check_quantized(&r, folder, i);
        free(text), free(whole);
    }
    run_end(&r);
}

/* A language model and a tower of separate folders become a model with a fresh projector. */
static void test_new(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int i = 0; i < FAMILIES; i++) {
        char folder[512], language[600], out[512], name[32], line[64], *text;
        family_make(&r, &families[i], true, folder, sizeof folder);
        snprintf(language, sizeof language, "%s/language", folder);
        snprintf(name, sizeof name, "new%d", i);
        path_in(out, sizeof out, &r, name);
        run(&r, "new", out, "--language", language, "--vision", LLAMA_IMAGES "vision-336",
            "--attention", "block-causal");
        if (r.status) fail_msg("%s", r.err);
        assert_non_null(strstr(r.err, "mlp2x_gelu, from width 8 to 16"));
        run(&r, "info", out);
        assert_int_equal(r.status, 0);
        snprintf(line, sizeof line, "image:      576 tokens of 700");
        assert_non_null(strstr(r.out, line));
        run(&r, "ask", "-q", "--json", "-m", out, "--length", "4", PIC, QUESTION);
        text = answered(&r);
        free(text);
    }
    char out[512];
    path_in(out, sizeof out, &r, "not");
    run(&r, "new", out, "--language", LLAMA_FOLDERS "llada", "--vision", LLAMA_IMAGES "vision-224");
    assert_message(&r, 1, "256 tokens", "60");
    run(&r, "new", out, "--language", LLAMA_FOLDERS "llada", "--tokenizer",
        LLAMA_FOLDERS "llada/tokenizer.json");
    assert_message(&r, 1, "--tokenizer");
    run_end(&r);
}

/* ---- The server. ---- */

static char *data_uri(const char *path) {
    size_t size;
    char *bytes = file_bytes(path, &size);
    char *uri = malloc(size / 3 * 4 + 64);
    assert_true(bytes && uri);
    int head = sprintf(uri, "data:image/png;base64,");
    EVP_EncodeBlock((unsigned char *)uri + head, (unsigned char *)bytes, (int)size);
    free(bytes);
    return uri;
}

/* The answer's text; the caller's to free. */
static char *server_text(const HttpServer *s, const char *path, const char *body) {
    char head[64];
    snprintf(head, sizeof head, "POST /v1/%s", path);
    char *reply = server_ask(s, head, body);
    if (reply_status(reply) != 200) fail_msg("%s: %s", body, reply);
    json_t *json = json_loads(reply_body(reply), 0, NULL);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    const char *text = json_string_value(
        json_object_get(message ? message : choice, message ? "content" : "text"));
    assert_non_null(text);
    char *copy = strdup(text);
    json_decref(json);
    free(reply);
    return copy;
}

static void check_served(Run *r, const HttpServer *s, const char *folder) {
    char *got = server_text(s, "completions", "{\"prompt\": \"" QUESTION "\"}");
    run(r, "text", "-q", "--json", "-m", (char *)folder, QUESTION);
    char *want = answered(r);
    assert_string_equal(got, want);
    free(got);
    got = server_text(s, "chat/completions",
                      "{\"messages\": [{\"role\": \"user\", \"content\": \"" QUESTION "\"}]}");
    assert_string_equal(got, want);
    free(got), free(want);
    char *uri = data_uri(PIC), *body;
    assert_true(asprintf(&body,
                         "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", "
                         "\"text\": \"" QUESTION "\"}, {\"type\": \"image_url\", \"image_url\": "
                         "{\"url\": \"%s\"}}]}]}",
                         uri) > 0);
    ask(r, folder, &want);
    for (int again = 0; again < 2; again++) {
        got = server_text(s, "chat/completions", body);
        assert_string_equal(got, want);
        free(got);
    }
    free(want), free(uri), free(body);
}

static void test_served(void **state) {
    (void)state;
    Run r;
    run_start(&r);
    for (int i = 0; i < FAMILIES; i++) {
        char folder[512];
        HttpServer server;
        family_make(&r, &families[i], true, folder, sizeof folder);
        server_start(&server, &r, "-m", folder, "--threads", "1");
        check_served(&r, &server, folder);
        assert_int_equal(server_end(&server, SIGTERM), 0);
    }
    run_end(&r);
}

/* ---- Without images. ---- */

static void test_text_only(void **state) {
    (void)state;
    static const char set[] = "{\"inputs\": \"2 + 3 =\", \"targets\": \"5\"}\n";
    Run r;
    run_start(&r);
    for (int i = 0; i < FAMILIES; i++) {
        char folder[512], path[512], out[512], name[32], *text;
        family_make(&r, &families[i], false, folder, sizeof folder);
        run(&r, "text", "-q", "--json", "-m", folder, "2 + 3 =");
        text = answered(&r);
        run_text(&r, "2 + 3 =\n", "chat", "-q", "-m", folder);
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, text));
        write_file(&r, "sums.jsonl", set, sizeof set - 1, path, sizeof path);
        snprintf(name, sizeof name, "sums%d", i);
        path_in(out, sizeof out, &r, name);
        run(&r, "eval", "text", "-q", "-m", folder, "--length", "4", "--task", "exact", path,
            "--out", out);
        if (r.status) fail_msg("%s", r.err);
        snprintf(name, sizeof name, "sums%d/answers.jsonl", i);
        check_line(&r, name, text);
        free(text);
        run(&r, "ask", "-m", folder, PIC, QUESTION);
        assert_message(&r, 1, "vision tower");
    }
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sees),
        cmocka_unit_test(test_new),
        cmocka_unit_test(test_text_only),
        cmocka_unit_test(test_served),
    };
    const struct CMUnitTest fewer[] = {
        cmocka_unit_test(test_sees),
        cmocka_unit_test(test_new),
        cmocka_unit_test(test_text_only),
        cmocka_unit_test(server_missing_test),
    };
    if (server_missing()) return cmocka_run_group_tests(fewer, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
