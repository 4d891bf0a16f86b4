#include "tests/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/clock.h"

enum { WORDS_MOST = 40, START_SECONDS = 60 };

static void wait_a_moment(void) {
    usleep(10000);
}

bool server_missing(void) {
    Run r;
    run_start(&r);
    run(&r, "serve", "-m", "no/such/model");
    bool missing = strstr(r.err, "libmicrohttpd") != NULL;
    run_end(&r);
    return missing;
}

void server_missing_test(void **state) {
    (void)state;
    print_message("needs a build with libmicrohttpd\n");
    skip();
}

static void start_child(const HttpServer *s, char *const *args) {
    const char *program = getenv("EASYFIRST");
    char *words[WORDS_MOST] = {"easyfirst", "serve", "--port", "0"};
    int count = 4, log = open(s->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (*args && count < WORDS_MOST - 1) words[count++] = *args++;
    dup2(log, STDERR_FILENO);
    dup2(open("/dev/null", O_RDWR), STDOUT_FILENO);
    for (int fd = 3; fd < 256; fd++) close(fd);
    alarm(600); /* whatever becomes of the test */
    execv(program ? program : "build/easyfirst", words);
    _exit(127);
}

void server_start_with(HttpServer *s, const Run *r, char *const *args) {
    static int number;
    snprintf(s->log, sizeof s->log, "%s/server%d.log", r->folder, number++);
    unlink(s->log);
    s->port = 0;
    s->pid = fork();
    if (s->pid == 0) start_child(s, args);
    assert_true(s->pid > 0);
    double until = clock_seconds() + START_SECONDS;
    while (!s->port && clock_seconds() < until) {
        char *log = file_bytes(s->log, NULL);
        const char *at = log ? strstr(log, "at http://") : NULL;
        const char *colon = at && strchr(at, '\n') ? strrchr(strtok((char *)at, "\n"), ':') : NULL;
        if (colon) s->port = atoi(colon + 1);
        free(log);
        if (!s->port && waitpid(s->pid, NULL, WNOHANG) == s->pid) fail_msg("the server has ended");
        wait_a_moment();
    }
    assert_true(s->port > 0);
}

int server_end(HttpServer *s, int number) {
    int status = 0;
    double until = clock_seconds() + 60;
    kill(s->pid, number);
    while (waitpid(s->pid, &status, WNOHANG) == 0) {
        if (clock_seconds() > until) kill(s->pid, SIGKILL);
        wait_a_moment();
    }
    s->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int server_connect(const HttpServer *s) {
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)s->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address))
        fail_msg("cannot connect: %s", strerror(errno));
    return fd;
}

void socket_send(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n <= 0) return; /* it was refused; the reply says why */
        bytes += n, size -= (size_t)n;
    }
}

char *socket_read(int fd, double seconds) {
    size_t size = 0, room = 1 << 16;
    char *text = malloc(room);
    double until = clock_seconds() + seconds;
    assert_non_null(text);
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        double left = until - clock_seconds();
        if (left <= 0 || poll(&p, 1, (int)(1000 * left) + 1) <= 0) break;
        if (size + 1 == room) text = realloc(text, room *= 2);
        assert_non_null(text);
        ssize_t n = recv(fd, text + size, room - size - 1, 0);
        if (n <= 0) break;
        size += (size_t)n;
    }
    text[size] = 0;
    return text;
}

char *server_ask(const HttpServer *s, const char *head, const char *body) {
    size_t size = body ? strlen(body) : 0;
    char *request = malloc(strlen(head) + size + 512);
    assert_non_null(request);
    /* The first line ends where the head's other lines begin. */
    int first = (int)strcspn(head, "\r\n");
    const char *rest = head + first + strspn(head + first, "\r\n");
    int length = sprintf(request, "%.*s HTTP/1.1\r\nConnection: close\r\n%s", first, head, rest);
    if (!strstr(head, "Host:"))
        length += sprintf(request + length, "Host: localhost:%d\r\n", s->port);
    if (body && !strstr(head, "Content-Type:"))
        length += sprintf(request + length, "Content-Type: application/json\r\n");
    if (body && !strstr(head, "Content-Length:") && !strstr(head, "Transfer-Encoding:"))
        length += sprintf(request + length, "Content-Length: %zu\r\n", size);
    length += sprintf(request + length, "\r\n%s", body ? body : "");
    int fd = server_connect(s);
    socket_send(fd, request, (size_t)length);
    char *reply = socket_read(fd, 60);
    close(fd);
    free(request);
    return reply;
}

int reply_status(const char *reply) {
    return strncmp(reply, "HTTP/1.1 ", 9) ? 0 : atoi(reply + 9);
}

const char *reply_body(const char *reply) {
    const char *end = strstr(reply, "\r\n\r\n");
    return end ? end + 4 : "";
}

double server_metric(const HttpServer *s, const char *name) {
    char line[128];
    char *reply = server_ask(s, "GET /metrics", NULL);
    snprintf(line, sizeof line, "\neasyfirst_%s ", name);
    const char *at = strstr(reply, line);
    double value = at ? atof(at + strlen(line)) : -1;
    free(reply);
    return value;
}
