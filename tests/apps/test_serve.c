/* `easyfirst serve`: OpenAI's API, streams, and that answers are those of the command line. */
#include "tests/server.h"

#include <signal.h>

#include <jansson.h>
#include <openssl/evp.h>

#define BASE "tests/golden/models/tiny-base"
#define PIC0 "tests/golden/models/image0.png"

static Run r;
static HttpServer server;

static int set_up(void **state) {
    (void)state;
    run_start(&r);
    server_start(&server, &r, "-m", BASE, "--threads", "1", "--model-name", "tiny");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    assert_int_equal(server_end(&server, SIGTERM), 0);
    run_end(&r);
    return 0;
}

/* ---- Helpers. ---- */

/* The body of a reply with this status as JSON, to be released. */
static json_t *ask_json(const char *head, const char *body, int status) {
    char *reply = server_ask(&server, head, body);
    if (reply_status(reply) != status) fail_msg("%s\n%s\n%s", head, body ? body : "", reply);
    json_t *json = json_loads(reply_body(reply), 0, NULL);
    if (!json) fail_msg("no JSON: %s", reply);
    free(reply);
    return json;
}

static const char *text_at(const json_t *json, const char *path) {
    char key[64];
    while (*path && json) {
        size_t size = strcspn(path, "/");
        snprintf(key, sizeof key, "%.*s", (int)size, path);
        json = json_is_array(json) ? json_array_get(json, (size_t)atoi(key))
                                   : json_object_get(json, key);
        path += size + (path[size] == '/');
    }
    return json_string_value(json);
}

/* A refusal in OpenAI's form, whose message has this word. */
static void assert_wrong(const char *head, const char *body, int status, const char *word) {
    json_t *json = ask_json(head, body, status);
    const json_t *error = json_object_get(json, "error");
    const char *message = text_at(json, "error/message");
    if (!message || !strstr(message, word))
        fail_msg("%s: \"%s\" without %s", body ? body : head, message ? message : "", word);
    assert_non_null(text_at(json, "error/type"));
    assert_non_null(json_object_get(error, "param"));
    assert_non_null(json_object_get(error, "code"));
    json_decref(json);
}

/* A data URI of a file, the caller's to free. */
static char *data_uri(const char *path) {
    size_t size;
    char *bytes = file_bytes(path, &size);
    char *uri = malloc(size / 3 * 4 + 64);
    assert_non_null(bytes);
    assert_non_null(uri);
    int head = sprintf(uri, "data:image/png;base64,");
    EVP_EncodeBlock((unsigned char *)uri + head, (unsigned char *)bytes, (int)size);
    free(bytes);
    return uri;
}

/* A question about the image, with further fields (", \"n\": 2"); the caller's to free. */
static char *image_question(const char *question, const char *more) {
    char *uri = data_uri(PIC0), *body = NULL;
    size_t size;
    FILE *out = open_memstream(&body, &size);
    fprintf(out,
            "{\"model\": \"tiny\", \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
            "\"text\", \"text\": \"%s\"}, {\"type\": \"image_url\", \"image_url\": {\"url\": "
            "\"%s\"}}]}]%s}",
            question, uri, more);
    fclose(out);
    free(uri);
    return body;
}

#define CHAT     "POST /v1/chat/completions"
#define COMPLETE "POST /v1/completions"

/* What a command prints, without the end of its line. */
static const char *printed(void) {
    assert_int_equal(r.status, 0);
    r.out[strcspn(r.out, "\n")] = 0;
    return r.out;
}

/* ---- Answers. ---- */

static void test_models(void **state) {
    (void)state;
    json_t *json = ask_json("GET /health", NULL, 200);
    assert_string_equal(text_at(json, "status"), "ok");
    json_decref(json);
    json = ask_json("GET /v1/models", NULL, 200);
    assert_string_equal(text_at(json, "data/0/id"), "tiny");
    json_decref(json);
    json = ask_json("GET /v1/models/tiny", NULL, 200);
    assert_string_equal(text_at(json, "object"), "model");
    const json_t *own = json_object_get(json, "easyfirst");
    assert_true(json_is_boolean(json_object_get(own, "turns")));
    json_decref(json);
    assert_wrong("GET /v1/models/gpt", NULL, 404, "tiny");
    char *reply = server_ask(&server, "HEAD /health", NULL);
    assert_int_equal(reply_status(reply), 200);
    assert_string_equal(reply_body(reply), "");
    free(reply);
}

static void test_texts(void **state) {
    (void)state;
    static const char *const prompts[] = {"a dog on a bench", "Warum? \xc3\xa4", "x"};
    for (size_t i = 0; i < 3; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"model\": \"tiny\", \"prompt\": \"%s\"}", prompts[i]);
        json_t *json = ask_json(COMPLETE, body, 200);
        run(&r, "text", "-q", "--raw", "-m", BASE, (char *)prompts[i]);
        assert_string_equal(text_at(json, "choices/0/text"), printed());
        json_decref(json);
        snprintf(body, sizeof body,
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}], \"easyfirst\": "
                 "{\"length\": 5, \"steps\": 7}, \"temperature\": 0.8, \"seed\": 11}",
                 prompts[i]);
        json = ask_json(CHAT, body, 200);
        run(&r, "text", "-q", "--raw", "-m", BASE, "--length", "5", "--steps", "7", "--temperature",
            "0.8", "--seed", "11", (char *)prompts[i]);
        assert_string_equal(text_at(json, "choices/0/message/content"), printed());
        assert_int_equal(json_integer_value(
                             json_object_get(json_object_get(json, "usage"), "completion_tokens")),
                         5);
        json_decref(json);
    }
}

/* Earlier turns are read as the text that they are. */
static void test_turns(void **state) {
    (void)state;
    json_t *json = ask_json(CHAT,
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"a dog\"}, "
                            "{\"role\": \"assistant\", \"content\": \"on a bench\"}, "
                            "{\"role\": \"user\", \"content\": \"in the sun\"}], \"easyfirst\": "
                            "{\"length\": 5}}",
                            200);
    run(&r, "text", "-q", "--raw", "-m", BASE, "--length", "5", "a dog on a bench in the sun");
    assert_string_equal(text_at(json, "choices/0/message/content"), printed());
    assert_null(json_object_get(json_object_get(json, "easyfirst"), "dropped_turns"));
    json_decref(json);
    static char body[40000];
    int at = snprintf(body, sizeof body, "{\"messages\": [");
    for (int i = 0; i < 60; i++)
        at += snprintf(body + at, sizeof body - (size_t)at,
                       "{\"role\": \"user\", \"content\": \"a dog and a dog\"}, "
                       "{\"role\": \"assistant\", \"content\": \"on a bench %d\"}, ",
                       i);
    snprintf(body + at, sizeof body - (size_t)at,
             "{\"role\": \"user\", \"content\": \"in the sun\"}], \"easyfirst\": {\"length\": "
             "5}}");
    json = ask_json(CHAT, body, 200);
    json_int_t dropped =
        json_integer_value(json_object_get(json_object_get(json, "easyfirst"), "dropped_turns"));
    assert_in_range(dropped, 1, 60);
    json_decref(json);
}

static void test_image(void **state) {
    (void)state;
    char *body = image_question("What is it?", ", \"easyfirst\": {\"beam\": 3}");
    json_t *json = ask_json(CHAT, body, 200);
    run(&r, "ask", "-q", "-m", BASE, "--beam", "3", PIC0, "What is it?");
    assert_string_equal(text_at(json, "choices/0/message/content"), printed());
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(json, "easyfirst"), "hypotheses")), 3);
    json_decref(json);
    free(body);
}

static void test_choices(void **state) {
    (void)state;
    json_t *json = ask_json(COMPLETE,
                            "{\"prompt\": \"a dog\", \"n\": 5, \"temperature\": 2, \"seed\": 3, "
                            "\"easyfirst\": {\"length\": 6}}",
                            200);
    const json_t *choices = json_object_get(json, "choices");
    int different = 0;
    assert_int_equal(json_array_size(choices), 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *choice = json_array_get(choices, i);
        assert_int_equal(json_integer_value(json_object_get(choice, "index")), i);
        different += strcmp(text_at(choice, "text"), text_at(choices, "0/text")) != 0;
    }
    assert_true(different > 0);
    json_decref(json);
    /* max_tokens cuts, and says so. */
    json =
        ask_json(COMPLETE,
                 "{\"prompt\": \"a dog\", \"max_tokens\": 2, \"easyfirst\": {\"length\": 6}}", 200);
    assert_string_equal(text_at(json, "choices/0/finish_reason"), "length");
    json_decref(json);
}

/* What the server says of given choices is what `ask` and `text` say, to the last digit. */
static void assert_given(const json_t *own) {
    static const char *const fields[] = {"text", "probability", "score", "length"};
    assert_int_equal(r.status, 0);
    json_t *wanted = json_loads(r.out, 0, NULL);
    const json_t *given = json_object_get(wanted, "choices"),
                 *got = json_object_get(own, "choices");
    assert_int_equal(json_array_size(got), json_array_size(given));
    for (size_t i = 0; i < json_array_size(got); i++)
        for (size_t f = 0; f < 4; f++)
            assert_true(json_equal(json_object_get(json_array_get(got, i), fields[f]),
                                   json_object_get(json_array_get(given, i), fields[f])));
    json_decref(wanted);
}

static void test_given_choices(void **state) {
    (void)state;
    static const char *const ways[] = {"\"structured_outputs\": {\"choice\": %s, \"json\": null}",
                                       "\"guided_choice\": %s"};
    for (int way = 0; way < 2; way++) {
        char given[128], fields[256];
        snprintf(given, sizeof given, ways[way], "[\"a\", \"the dog\", \"a dog on\"]");
        snprintf(fields, sizeof fields, ", \"seed\": 4, \"temperature\": 0, \"n\": 1, %s", given);
        char *body = image_question("What is it?", fields);
        json_t *json = ask_json(CHAT, body, 200);
        run(&r, "ask", "-q", "-m", BASE, "--json", "--one-of", "a,the dog,a dog on", PIC0,
            "What is it?");
        assert_given(json_object_get(json, "easyfirst"));
        json_t *wanted = json_loads(r.out, 0, NULL);
        assert_string_equal(text_at(json, "choices/0/message/content"), text_at(wanted, "answer"));
        json_decref(wanted), json_decref(json);
        free(body);
    }
    json_t *json = ask_json(COMPLETE,
                            "{\"prompt\": \"a dog\", \"stream\": false, \"max_tokens\": 9, "
                            "\"guided_choice\": [\"the dog\", \"a\"]}",
                            200);
    run(&r, "text", "-q", "--raw", "-m", BASE, "--json", "--one-of", "the dog,a", "a dog");
    assert_given(json_object_get(json, "easyfirst"));
    assert_string_equal(text_at(json, "choices/0/finish_reason"), "stop");
    json_decref(json);
}

/* The answer in one piece, the choices in the last event. */
static void test_given_choices_stream(void **state) {
    (void)state;
    char *reply = server_ask(&server, COMPLETE,
                             "{\"prompt\": \"a dog\", \"stream\": true, \"structured_outputs\": "
                             "{\"choice\": [\"the dog\", \"a\"]}}");
    assert_int_equal(reply_status(reply), 200);
    run(&r, "text", "-q", "--raw", "-m", BASE, "--one-of", "the dog,a", "a dog");
    assert_non_null(strstr(reply, printed()));
    const char *last = strstr(reply, "\"probability\"");
    assert_non_null(last);
    assert_non_null(strstr(last, "data: [DONE]"));
    free(reply);
}

static void test_infilling(void **state) {
    (void)state;
    json_t *json = ask_json(COMPLETE,
                            "{\"prompt\": \"the ___ \\\\___ \", \"suffix\": \"{2} on a bench.\", "
                            "\"easyfirst\": {\"length\": 3}}",
                            200);
    const char *whole = text_at(json, "easyfirst/hypotheses/0/text");
    const char *gap = text_at(json, "choices/0/text");
    char expected[256];
    snprintf(expected, sizeof expected, "the ___ \\___ %s{2} on a bench.", gap);
    assert_string_equal(whole, expected);
    json_decref(json);
    json = ask_json(CHAT,
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"a dog\"}], \"easyfirst\": "
                    "{\"template\": \"a ___{2} dog\"}}",
                    200);
    run(&r, "text", "-q", "--raw", "-m", BASE, "--template", "a ___{2} dog", "a dog");
    assert_string_equal(text_at(json, "choices/0/message/content"), printed());
    json_decref(json);
}

/* ---- Streams. ---- */

/* Event i of a stream as JSON, to be released; NULL: it is not JSON, or there are fewer. */
static json_t *event_at(const char *reply, int i) {
    const char *at = reply;
    for (; at && i >= 0; i--) at = (at = strstr(at, "data: ")) ? at + 6 : NULL;
    return at ? json_loads(at, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
}

static void test_stream(void **state) {
    (void)state;
    char *plain = image_question("What is it?", "");
    char *streamed = image_question("What is it?", ", \"stream\": true, \"easyfirst_steps\": true, "
                                                   "\"stream_options\": {\"include_usage\": true}");
    json_t *whole = ask_json(CHAT, plain, 200);
    char *reply = server_ask(&server, CHAT, streamed), answer[512] = "";
    assert_int_equal(reply_status(reply), 200);
    assert_non_null(strstr(reply, "text/event-stream"));
    assert_non_null(strstr(reply, "data: [DONE]\n\n"));
    int events = 0, steps = 0, usage = 0;
    for (json_t *e; (e = event_at(reply, events)); events++) {
        const char *content = text_at(e, "choices/0/delta/content");
        if (content) strcat(answer, content);
        const json_t *own = json_object_get(e, "easyfirst");
        steps += json_object_get(own, "tokens") != NULL;
        usage += json_is_object(json_object_get(e, "usage"));
        json_decref(e);
    }
    assert_string_equal(answer, text_at(whole, "choices/0/message/content"));
    assert_int_equal(
        steps,
        json_integer_value(json_object_get(
            json_array_get(json_object_get(json_object_get(whole, "easyfirst"), "hypotheses"), 0),
            "steps")));
    assert_int_equal(usage, 1);
    json_decref(whole);
    free(plain), free(streamed), free(reply);
}

static void test_trace(void **state) {
    (void)state;
    char path[512];
    char *body = image_question("What is it?", ""), *trace;
    json_t *json = ask_json("POST /v1/easyfirst/trace", body, 200);
    path_in(path, sizeof path, &r, "trace.json");
    run(&r, "show", "-q", "-m", BASE, "--json", path, PIC0, "What is it?");
    assert_int_equal(r.status, 0);
    json_t *shown = json_loads(trace = file_bytes(path, NULL), 0, NULL);
    static const char *const same[] = {"answer",   "trace",  "hypotheses", "attention",
                                       "geometry", "tokens", "steps",      "evaluations"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (!json_equal(json_object_get(json, same[i]), json_object_get(shown, same[i])) &&
            json_object_get(shown, same[i]))
            fail_msg("the trace has another \"%s\"", same[i]);
    json_decref(json), json_decref(shown);
    char *reply = server_ask(&server, "POST /v1/easyfirst/page", body);
    assert_int_equal(reply_status(reply), 200);
    assert_non_null(strstr(reply, "Content-Security-Policy: sandbox"));
    assert_non_null(strstr(reply, "data:image/"));
    free(trace), free(body), free(reply);
}

/* ---- What is refused. ---- */

static void test_wrong_fields(void **state) {
    (void)state;
#define GIVEN "\"guided_choice\": [\"a\", \"the\"]"
#define TEXT  "\"prompt\": \"a dog\""
#define USER  "{\"role\": \"user\", \"content\": \"a dog\"}"
    static const struct {
        const char *path, *body;
        int status;
        const char *word;
    } wrong[] = {
        {COMPLETE, "", 400, "empty"},
        {COMPLETE, "[]", 400, "object"},
        {COMPLETE, "{", 400, "line 1"},
        {COMPLETE, "{}", 400, "prompt"},
        {COMPLETE, "{" TEXT ", " TEXT "}", 400, "duplicate"},
        {COMPLETE, "{" TEXT ", \"promt\": 1}", 400, "promt"},
        {COMPLETE, "{\"prompt\": [\"a\"]}", 400, "text"},
        {COMPLETE, "{\"prompt\": \" \\n\"}", 400, "empty"},
        {COMPLETE, "{" TEXT ", \"model\": \"gpt-4\"}", 404, "tiny"},
        {COMPLETE, "{" TEXT ", \"stop\": \".\"}", 400, "stop"},
        {COMPLETE, "{" TEXT ", \"top_p\": 0.5}", 400, "top_p"},
        {COMPLETE, "{" TEXT ", \"n\": 0}", 400, "n is"},
        {COMPLETE, "{" TEXT ", \"n\": 1.5}", 400, "n is"},
        {COMPLETE, "{" TEXT ", \"n\": 1000000}", 400, "n is"},
        {COMPLETE, "{" TEXT ", \"temperature\": -1}", 400, "temperature"},
        {COMPLETE, "{" TEXT ", \"temperature\": 1e99}", 400, "temperature"},
        {COMPLETE, "{" TEXT ", \"seed\": -1}", 400, "seed"},
        {COMPLETE, "{" TEXT ", \"max_tokens\": \"9\"}", 400, "max_tokens"},
        {COMPLETE, "{" TEXT ", \"stream\": 1}", 400, "stream"},
        {COMPLETE, "{" TEXT ", \"easyfirst_steps\": true}", 400, "stream"},
        {COMPLETE, "{" TEXT ", \"stream_options\": {}}", 400, "stream_options"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": 1}", 400, "object"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": {\"bean\": 1}}", 400, "beam"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": {\"strategy\": \"x\"}}", 400, "strategy"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": {\"length\": 100000}}", 400, "100000"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": {\"task\": \"sing\"}}", 400, "task"},
        {COMPLETE, "{" TEXT ", \"easyfirst\": {\"task\": \"translate\"}}", 400, "languages"},
        {COMPLETE, "{" TEXT ", \"suffix\": \"_\"}", 400, "underscore"},
        {COMPLETE, "{" TEXT ", \"guided_choice\": []}", 400, "1 to 1000"},
        {COMPLETE, "{" TEXT ", \"guided_choice\": \"a\"}", 400, "list"},
        {COMPLETE, "{" TEXT ", \"guided_choice\": [1]}", 400, "texts"},
        {COMPLETE, "{" TEXT ", \"guided_choice\": [\"a\", \"\"]}", 400, "choice 2"},
        {COMPLETE, "{" TEXT ", \"guided_choice\": [\"a\", \"a\"]}", 400, "same"},
        {COMPLETE, "{" TEXT ", \"structured_outputs\": [\"a\"]}", 400, "object"},
        {COMPLETE, "{" TEXT ", \"structured_outputs\": {\"regex\": \"a\"}}", 400, "regex"},
        {COMPLETE,
         "{" TEXT ", \"structured_outputs\": {\"choice\": [\"a\"]}, \"guided_choice\": [\"a\"]}",
         400, "same"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"temperature\": 0.5}", 400, "temperature"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"n\": 2}", 400, "n is"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"easyfirst\": {\"beam\": 2}}", 400, "beam"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"easyfirst\": {\"length\": 2}}", 400, "length"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"suffix\": \"b\"}", 400, "template"},
        {COMPLETE, "{" TEXT ", " GIVEN ", \"stream\": true, \"easyfirst_steps\": true}", 400,
         "steps"},
        {"POST /v1/easyfirst/trace", "{\"messages\": [" USER "], " GIVEN "}", 400, "steps"},
        {CHAT, "{\"messages\": []}", 400, "messages"},
        {CHAT, "{\"messages\": [{\"role\": \"system\", \"content\": \"Be.\"}]}", 400, "system"},
        {CHAT, "{\"messages\": [" USER ", " USER ", " USER "]}", 400, "turns"},
        {CHAT, "{\"messages\": [" USER ", " USER "]}", 400, "turns"},
        {CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": []}]}", 400, "content"},
        {CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"audio\"}]}]}", 400,
         "expected"},
        {CHAT, "{\"messages\": [" USER "], \"tools\": []}", 400, "tools"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_wrong(wrong[i].path, wrong[i].body, wrong[i].status, wrong[i].word);
}

static void test_wrong_images(void **state) {
    (void)state;
    static const struct {
        const char *url, *word;
    } wrong[] = {{"http://169.254.169.254/latest", "nothing is fetched"},
                 {"https://example.org/a.png", "nothing is fetched"},
                 {"file:///etc/passwd", "nothing is fetched"},
                 {"/etc/passwd", "nothing is fetched"},
                 {"data:text/plain;base64,AAAA", "nothing is fetched"},
                 {"data:image/png,AAAA", "nothing is fetched"},
                 {"data:image/png;base64,", "base64"},
                 {"data:image/png;base64,AA=A", "base64"},
                 {"data:image/png;base64,AAA", "base64"},
                 {"data:image/png;base64,A A=", "base64"},
                 {"data:image/png;base64,AAAA", "image"},
                 {"data:image/png;base64,iVBORw0KGgo=", "image"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char body[512];
        snprintf(body, sizeof body,
                 "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", "
                 "\"text\": \"What?\"}, {\"type\": \"image_url\", \"image_url\": {\"url\": "
                 "\"%s\"}}]}]}",
                 wrong[i].url);
        assert_wrong(CHAT, body, 400, wrong[i].word);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_turns),         cmocka_unit_test(test_image),
        cmocka_unit_test(test_given_choices), cmocka_unit_test(test_given_choices_stream),
        cmocka_unit_test(test_choices),       cmocka_unit_test(test_infilling),
        cmocka_unit_test(test_stream),        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_wrong_fields),  cmocka_unit_test(test_wrong_images),
    };
    const struct CMUnitTest missing[] = {cmocka_unit_test(server_missing_test)};
    if (server_missing()) return cmocka_run_group_tests(missing, NULL, NULL);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
