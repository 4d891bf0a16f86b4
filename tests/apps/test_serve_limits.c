/* `easyfirst serve` against clients that mean harm, are slow, or leave; and signals. */
#include "tests/server.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/clock.h"

#define BASE     "tests/golden/models/tiny-base"
#define KEY      "correct-horse-battery"
#define CHAT     "POST /v1/chat/completions"
#define COMPLETE "POST /v1/completions"
#define PROMPT   "{\"prompt\": \"a dog\"}"
/* Takes seconds. */
#define LONG                                                                                    \
    "{\"prompt\": \"a dog\", \"n\": 128, \"temperature\": 1, \"easyfirst\": {\"steps\": 1000, " \
    "\"length\": 24}}"
#define LONG_STREAM                                                              \
    "{\"prompt\": \"a dog\", \"n\": 128, \"temperature\": 1, \"stream\": true, " \
    "\"easyfirst_steps\": true, \"easyfirst\": {\"steps\": 1000, \"length\": 24}}"

static Run r;

static int set_up(void **state) {
    (void)state;
    run_start(&r);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    run_end(&r);
    return 0;
}

static void expect_status(const HttpServer *s, const char *head, const char *body, int status,
                          const char *word) {
    char *reply = server_ask(s, head, body);
    if (reply_status(reply) != status || (word && !strstr(reply, word)))
        fail_msg("%s: expected %d, %s\n%s", head, status, word ? word : "", reply);
    free(reply);
}

/* Waits until a metric has a value; fails after `seconds`. */
static void expect_metric(const HttpServer *s, const char *name, double value, double seconds) {
    double until = clock_seconds() + seconds, now;
    while ((now = server_metric(s, name)) != value) {
        if (clock_seconds() > until) fail_msg("%s is %g, not %g", name, now, value);
        usleep(20000);
    }
}

/* Sends a request for an answer, and does not wait. */
static int send_request(const HttpServer *s, const char *body) {
    char request[1024];
    int fd = server_connect(s);
    int size = snprintf(request, sizeof request,
                        "%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        COMPLETE, strlen(body), body);
    socket_send(fd, request, (size_t)size);
    return fd;
}

/* ---- Access. ---- */

static void test_key(void **state) {
    (void)state;
    HttpServer s;
    char path[512];
    write_file(&r, "key.txt", KEY "\n", sizeof KEY, path, sizeof path);
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--api-key-file", path, "--host", "0.0.0.0");
    static const char *const paths[] = {"GET /v1/models", "GET /metrics", COMPLETE, CHAT};
    for (size_t i = 0; i < 4; i++) {
        char head[256];
        const char *body = i < 2 ? NULL : PROMPT;
        expect_status(&s, paths[i], body, 401, "WWW-Authenticate: Bearer");
        snprintf(head, sizeof head, "%s\r\nAuthorization: Bearer " KEY "x\r\n", paths[i]);
        expect_status(&s, head, body, 401, "invalid_api_key");
        snprintf(head, sizeof head, "%s\r\nAuthorization: Basic " KEY "\r\n", paths[i]);
        expect_status(&s, head, body, 401, NULL);
        snprintf(head, sizeof head, "%s\r\nAuthorization: Bearer " KEY "\r\n", paths[i]);
        expect_status(&s, head, body, i == 3 ? 400 : 200, NULL);
    }
    expect_status(&s, "GET /", NULL, 200, NULL);
    expect_status(&s, "GET /health", NULL, 200, NULL);
    assert_int_equal(server_end(&s, SIGTERM), 0);
    char *log = file_bytes(s.log, NULL);
    assert_null(strstr(log, KEY));
    assert_non_null(strstr(log, "127.0.0.1 POST /v1/completions 401 "));
    free(log);
    run(&r, "serve", "-m", BASE, "--port", "0", "--host", "0.0.0.0");
    assert_message(&r, 1, "0.0.0.0", "--api-key-file");
}

static void test_origins(void **state) {
    (void)state;
    HttpServer s;
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--cors", "https://a.example", "--host-name",
                 "box.lan");
    static const struct {
        const char *head, *body;
        int status;
        const char *word;
    } cases[] = {
        {"GET /health\r\nHost: evil.example\r\n", NULL, 421, "unknown_host"},
        {"GET /\r\nHost: evil.example:80\r\n", NULL, 421, NULL},
        {"GET /health\r\nHost: localhost.evil.example\r\n", NULL, 421, NULL},
        {"GET /health\r\nHost: 127.0.0.1.evil.example\r\n", NULL, 421, NULL},
        {"GET /health\r\nHost: localhost@evil.example\r\n", NULL, 421, NULL},
        {"GET /health\r\nHost: localhost:99:1\r\n", NULL, 400, NULL},
        {"GET /health\r\nHost: localhost\r\nHost: evil.example\r\n", NULL, 400, NULL},
        {"GET /health\r\nHost: \r\n", NULL, 400, NULL},
        {"GET /health\r\nHost: LOCALHOST:1234\r\n", NULL, 200, NULL},
        {"GET /health\r\nHost: [::1]:8080\r\n", NULL, 200, NULL},
        {"GET /health\r\nHost: box.lan\r\n", NULL, 200, NULL},
        {COMPLETE "\r\nOrigin: https://evil.example\r\n", PROMPT, 403, "cross_origin"},
        {COMPLETE "\r\nOrigin: null\r\n", PROMPT, 403, NULL},
        {COMPLETE "\r\nHost: box.lan\r\nOrigin: http://box.lan\r\n", PROMPT, 200, NULL},
        {COMPLETE "\r\nOrigin: https://a.example\r\n", PROMPT, 200,
         "Access-Control-Allow-Origin: https://a.example"},
        {COMPLETE "\r\nOrigin: https://a.example.evil\r\n", PROMPT, 403, NULL},
        {"OPTIONS /v1/completions\r\nOrigin: https://a.example\r\n", NULL, 200,
         "Access-Control-Allow-Headers"},
        {"OPTIONS /v1/completions", NULL, 405, "Allow: POST"},
        {COMPLETE "\r\nContent-Type: text/plain\r\n", PROMPT, 415, NULL},
        {COMPLETE "\r\nContent-Type: application/x-www-form-urlencoded\r\n", PROMPT, 415, NULL},
        {COMPLETE "\r\nContent-Type: application/json; charset=utf-8\r\n", PROMPT, 200, NULL},
        {"GET /v1/completions", NULL, 405, NULL},
        {"DELETE /v1/models", NULL, 405, "Allow: GET, HEAD"},
        {"GET /../../etc/passwd", NULL, 404, NULL},
        {"GET /%2e%2e/%2e%2e/etc/passwd", NULL, 404, NULL},
        {"GET /..%2f..%2fetc%2fpasswd", NULL, 404, NULL},
        {"GET //etc/passwd", NULL, 404, NULL},
        {"GET /v1/models/../../etc/passwd", NULL, 404, NULL},
        {"GET /health?x=1", NULL, 400, "unexpected_query"},
        {"GET /v1/models\r\nContent-Length: 5\r\n", "abcde", 400, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_status(&s, cases[i].head, cases[i].body, cases[i].status, cases[i].word);
    char *reply = server_ask(&s, "GET /", NULL);
    assert_null(strstr(reply, "Access-Control"));
    assert_non_null(strstr(reply, "Content-Security-Policy: default-src 'none'"));
    free(reply);
    assert_int_equal(server_end(&s, SIGINT), 0);
}

/* ---- Size and time. ---- */

static void test_bodies(void **state) {
    (void)state;
    HttpServer s;
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--body-mb", "1");
    double start = clock_seconds();
    expect_status(&s, COMPLETE "\r\nContent-Length: 1073741824\r\n", "{", 413, "request_too_large");
    expect_status(&s, COMPLETE "\r\nContent-Length: 99999999999999999999\r\n", "{", 413, NULL);
    expect_status(&s, COMPLETE "\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", 411,
                  NULL);
    assert_true(clock_seconds() - start < 20);
    /* A client that sends all of a large body before it reads still sees why. */
    char *large = calloc(1, (8 << 20) + 1);
    memset(large, 'a', 8 << 20);
    expect_status(&s, COMPLETE, large, 413, "request_too_large");
    large[1 << 20] = 0; /* exactly what is allowed */
    expect_status(&s, COMPLETE, large, 400, "invalid_json");
    /* Deep and heavy JSON. */
    memset(large, '[', 1 << 20);
    expect_status(&s, COMPLETE, large, 400, NULL);
    for (size_t i = 0; i + 1 < 1 << 20; i += 2) memcpy(large + i, "1,", 2);
    large[0] = '[';
    expect_status(&s, COMPLETE, large, 400, NULL);
    free(large);
    assert_int_equal(server_end(&s, SIGTERM), 0);
}

static void test_slow_clients(void **state) {
    (void)state;
    HttpServer s;
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--transfer-timeout", "1", "--client-queue",
                 "2");
    /* Connections that say nothing, half of a head, and half of a body, are closed. */
    static const char *const parts[] = {
        "", "GET /health HTTP/1.1\r\nHost: loc",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{\"prompt\""};
    int fds[3];
    double start = clock_seconds();
    for (size_t i = 0; i < 3; i++) {
        fds[i] = server_connect(&s);
        socket_send(fds[i], parts[i], strlen(parts[i]));
    }
    for (size_t i = 0; i < 3; i++) {
        char *reply = socket_read(fds[i], 30);
        assert_string_equal(reply, "");
        assert_true(clock_seconds() - start < 10);
        free(reply), close(fds[i]);
    }
    /* A stream that is not read is broken off, and its job cancelled. */
    int small = 4096, fd = send_request(&s, LONG_STREAM);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    expect_metric(&s, "slow_readers_total", 1, 20);
    expect_metric(&s, "jobs_cancelled_total", 1, 20);
    close(fd);
    assert_int_equal(server_end(&s, SIGTERM), 0);
}

static void test_leaving_clients(void **state) {
    (void)state;
    HttpServer s;
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--timeout", "1", "--client-queue", "2");
    int fd = send_request(&s, LONG);
    expect_metric(&s, "jobs_active", 1, 20);
    close(fd);
    expect_metric(&s, "disconnects_total", 1, 20);
    expect_metric(&s, "jobs_cancelled_total", 1, 20);
    fd = send_request(&s, LONG_STREAM);
    bool begun = false;
    for (double end = clock_seconds() + 20; !begun && clock_seconds() < end;) {
        char *some = socket_read(fd, 0.3);
        begun = strstr(some, "data: ") != NULL;
        free(some);
    }
    assert_true(begun);
    close(fd);
    expect_metric(&s, "jobs_cancelled_total", 2, 20);
    /* One that waits is answered in time, though not with an answer. */
    expect_status(&s, COMPLETE, LONG, 504, "timeout");
    /* Of one client two requests may wait. */
    int first = send_request(&s, LONG), second = send_request(&s, LONG);
    usleep(200000);
    expect_status(&s, COMPLETE, PROMPT, 429, "Retry-After: 1");
    close(first), close(second);
    expect_metric(&s, "jobs_active", 0, 20);
    expect_status(&s, COMPLETE, PROMPT, 200, NULL);
    assert_int_equal(server_end(&s, SIGTERM), 0);
}

/* ---- Signals. ---- */

static void test_reload_and_drain(void **state) {
    (void)state;
    HttpServer s;
    char folder[300], command[1000];
    path_in(folder, sizeof folder, &r, "model");
    snprintf(command, sizeof command, "cp -r " BASE " '%s'", folder);
    assert_int_equal(system(command), 0);
    server_start(&s, &r, "-m", folder, "--threads", "1");
    kill(s.pid, SIGHUP);
    expect_metric(&s, "reloads_total", 1, 20);
    expect_status(&s, COMPLETE, PROMPT, 200, NULL);
    snprintf(command, sizeof command, "mv '%s/language' '%s/gone'", folder, folder);
    assert_int_equal(system(command), 0);
    kill(s.pid, SIGHUP);
    expect_metric(&s, "reload_failures_total", 1, 20);
    expect_status(&s, COMPLETE, PROMPT, 200, NULL);
    /* What runs is answered before the end; new connections are not taken. */
    int fd = send_request(&s, "{\"prompt\": \"a dog\", \"n\": 16, \"temperature\": 1, "
                              "\"easyfirst\": {\"steps\": 200, \"length\": 24}}");
    expect_metric(&s, "jobs_active", 1, 20);
    kill(s.pid, SIGTERM);
    char *reply = socket_read(fd, 60);
    assert_int_equal(reply_status(reply), 200);
    assert_non_null(strstr(reply, "\"index\":15"));
    free(reply), close(fd);
    assert_int_equal(server_end(&s, 0), 0);
    char *log = file_bytes(s.log, NULL);
    assert_non_null(strstr(log, "not reloaded, the old one stays"));
    free(log);
}

static void test_second_signal(void **state) {
    (void)state;
    HttpServer s;
    server_start(&s, &r, "-m", BASE, "--threads", "1");
    int fd = send_request(&s, LONG);
    expect_metric(&s, "jobs_active", 1, 20);
    kill(s.pid, SIGINT);
    usleep(300000);
    assert_int_equal(server_end(&s, SIGINT), -SIGINT);
    close(fd);
}

/* ---- Noise. ---- */

/* By hand: FUZZ_REQUESTS=1000000 in the environment. */
#ifdef __SANITIZE_ADDRESS__ /* what was freed is kept for a while */
enum { FUZZ_REQUESTS = 2000, FUZZ_GROWTH = 400 << 20 };
#else
enum { FUZZ_REQUESTS = 10000, FUZZ_GROWTH = 24 << 20 };
#endif

static const char *const seeds[] = {
    "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/models/x HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Content-Length: 19\r\n\r\n" PROMPT,
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Content-Length: 59\r\n\r\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"n\": "
    "2}",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{}{}\r\n0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nOrigin: http://localhost\r\nCookie: a=b\r\n\r\n"};

/* A seed with a few changes: bytes set, removed, doubled, cut, or another seed after it. */
static size_t fuzz_make(TestRandom *random, char out[2048]) {
    const char *seed = seeds[test_random_next(random) % 6];
    size_t size = strlen(seed);
    memcpy(out, seed, size);
    for (uint64_t n = test_random_next(random) % 6; n > 0 && size; n--) {
        size_t at = test_random_next(random) % size, length = test_random_next(random) % 20;
        if (length > size - at) length = size - at;
        switch (test_random_next(random) % 5) {
        case 0:
            out[at] = (char)test_random_next(random);
            break;
        case 1:
            memmove(out + at, out + at + length, size - at - length), size -= length;
            break;
        case 2:
            if (size + length > 1500) break;
            memmove(out + at + length, out + at, size - at), size += length;
            break;
        case 3:
            size = at;
            break;
        default:
            seed = seeds[test_random_next(random) % 6];
            if (size + strlen(seed) > 1500) break;
            memcpy(out + size, seed, strlen(seed)), size += strlen(seed);
        }
    }
    return size;
}

static void test_noise(void **state) {
    (void)state;
    HttpServer s;
    const char *wanted = getenv("FUZZ_REQUESTS");
    int count = wanted ? atoi(wanted) : FUZZ_REQUESTS;
    TestRandom random = {.state = 20260117};
    double before = 0;
    server_start(&s, &r, "-m", BASE, "--threads", "1", "--quiet", "--transfer-timeout", "2",
                 "--connections", "64");
    for (int i = 0; i < count; i++) {
        char request[2048];
        size_t size = fuzz_make(&random, request);
        int fd = server_connect(&s);
        socket_send(fd, request, size);
        if (i % 500 == 0) { /* the others leave at once */
            shutdown(fd, SHUT_WR);
            free(socket_read(fd, 3));
        }
        close(fd);
        if (i == count / 5) before = server_metric(&s, "resident_memory_bytes");
    }
    expect_metric(&s, "jobs_active", 0, 20);
    expect_status(&s, COMPLETE, PROMPT, 200, NULL);
    double after = server_metric(&s, "resident_memory_bytes");
    print_message("note: %d requests of noise; memory %.1f MB, then %.1f MB\n", count, before / 1e6,
                  after / 1e6);
    assert_true(before > 0 && after - before < FUZZ_GROWTH);
    assert_int_equal(server_end(&s, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_slow_clients),
        cmocka_unit_test(test_leaving_clients),
        cmocka_unit_test(test_reload_and_drain),
        cmocka_unit_test(test_second_signal),
        cmocka_unit_test(test_noise),
    };
    const struct CMUnitTest missing[] = {cmocka_unit_test(server_missing_test)};
    if (server_missing()) return cmocka_run_group_tests(missing, NULL, NULL);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
