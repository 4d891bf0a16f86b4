/* server.h - runs `easyfirst serve` on a free port, and speaks HTTP to it by plain sockets. */
#ifndef EASYFIRST_TESTS_SERVER_H
#define EASYFIRST_TESTS_SERVER_H

#include <sys/types.h>

#include "tests/program.h"

typedef struct HttpServer {
    pid_t pid;
    int port;
    char log[300]; /* the file of its standard error */
} HttpServer;

/* Whether this build has no server; a test that says so, and is skipped. */
bool server_missing(void);
void server_missing_test(void **state);

/* Starts it with these arguments, after "serve --port 0", and waits until it listens. */
void server_start_with(HttpServer *s, const Run *r, char *const *args);
#define server_start(s, r, ...) server_start_with((s), (r), (char *[]){__VA_ARGS__, NULL})

/* Sends a signal, waits for the end (a minute at most) and returns the exit status; -number where a
 * signal ended it. */
int server_end(HttpServer *s, int number);

/* A connection; sends all of it; reads until the end, or for `seconds`; the caller's to free. */
int server_connect(const HttpServer *s);
void socket_send(int fd, const char *bytes, size_t size);
char *socket_read(int fd, double seconds);

/* A whole request with "Connection: close" in `head` ("METHOD /path", or with further lines): the
 * reply, the caller's to free. */
char *server_ask(const HttpServer *s, const char *head, const char *body);

/* The status of a reply (0: none), and its body. */
int reply_status(const char *reply);
const char *reply_body(const char *reply);

/* Of /metrics. -1: not there. */
double server_metric(const HttpServer *s, const char *name);

#endif
