#include "apps/serve/http.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "kernels/clock.h"

enum {
    IDLE_SECONDS = 60,       /* of a connection that nothing moves on */
    HEAD_BYTES = 32 << 10,   /* of a request's head */
    LINGER_BYTES = 64 << 20, /* of a refused body that are read and dropped */
    BACKLOG = 512
};
static const double linger_seconds = 2;

/* A connection; the server's mutex. */
typedef struct Connection {
    struct Connection *next, *previous;
    int fd;
    bool busy;    /* with an exchange, which has its own times */
    double since; /* it waits for a request's head */
} Connection;

/* ---- Connections. ---- */

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    Server *server = user;
    Connection *c = *context;
    pthread_mutex_lock(&server->mutex);
    if (code == MHD_CONNECTION_NOTIFY_STARTED && (*context = c = calloc(1, sizeof *c))) {
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->since = clock_seconds();
        c->next = server->connections;
        if (c->next) c->next->previous = c;
        server->connections = c;
        server->connection_count++;
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && c) {
        if (c->previous) c->previous->next = c->next;
        if (c->next) c->next->previous = c->previous;
        if (server->connections == c) server->connections = c->next;
        server->connection_count--;
        free(c);
        *context = NULL;
    }
    pthread_mutex_unlock(&server->mutex);
}

static void connection_busy(Server *server, struct MHD_Connection *connection, bool busy) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    Connection *c = info ? info->socket_context : NULL;
    if (!c) return;
    pthread_mutex_lock(&server->mutex);
    c->busy = busy, c->since = clock_seconds();
    pthread_mutex_unlock(&server->mutex);
}

/* ---- Replies. ---- */

static void stream_free(void *user) {
    exchange_leave(user);
}

/* Hands bytes of a stream to libmicrohttpd; without any the connection sleeps until there are. */
static ssize_t stream_read(void *user, uint64_t position, char *out, size_t most) {
    Exchange *e = user;
    ssize_t size = 0;
    (void)position;
    pthread_mutex_lock(&e->mutex);
    size_t waits = e->reply_size - e->reply_sent;
    if (e->broken) {
        size = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (waits) {
        size = (ssize_t)(waits < most ? waits : most);
        memcpy(out, e->reply + e->reply_sent, (size_t)size);
        e->reply_sent += (size_t)size;
    } else if (e->ended) {
        size = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (e->connection) {
        e->suspended = true;
        MHD_suspend_connection(e->connection);
    }
    pthread_mutex_unlock(&e->mutex);
    return size;
}

static struct MHD_Response *response_make(Exchange *e) {
    if (e->stream) {
        exchange_take(e);
        struct MHD_Response *stream =
            MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, e, stream_free);
        if (!stream) exchange_leave(e);
        return stream;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(
        e->reply_size, e->reply, e->reply_static ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
    if (response && !e->reply_static) e->reply = NULL; /* it is the response's */
    return response;
}

static void headers_add(const Exchange *e, struct MHD_Response *r) {
    static const char *const always[][2] = {
        {"X-Content-Type-Options", "nosniff"}, {"Cache-Control", "no-store"},
        {"Referrer-Policy", "no-referrer"},    {"X-Frame-Options", "DENY"},
        {"X-Accel-Buffering", "no"},           {"Cross-Origin-Opener-Policy", "same-origin"}};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        MHD_add_response_header(r, always[i][0], always[i][1]);
    if (e->type) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, e->type);
    if (e->extra) MHD_add_response_header(r, e->extra, e->extra_value);
    if (e->server->settings->origins.count) MHD_add_response_header(r, "Vary", "Origin");
    if (!e->origin) {
        MHD_add_response_header(r, "Cross-Origin-Resource-Policy", "same-origin");
        return;
    }
    MHD_add_response_header(r, "Access-Control-Allow-Origin", e->origin);
    if (e->route != ROUTE_PREFLIGHT) return;
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST");
    MHD_add_response_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}

/* Sends the reply if it is known; else the connection sleeps until it is. */
static enum MHD_Result proceed(Exchange *e, struct MHD_Connection *connection) {
    enum MHD_Result result = MHD_YES;
    pthread_mutex_lock(&e->mutex);
    if (!e->decided) {
        e->suspended = true;
        MHD_suspend_connection(connection);
    } else if (e->broken) {
        result = MHD_NO;
    } else {
        struct MHD_Response *response = response_make(e);
        result = MHD_NO;
        if (response) {
            headers_add(e, response);
            result = MHD_queue_response(connection, (unsigned)e->status, response);
            pthread_mutex_unlock(&e->mutex); /* it may be freed here */
            MHD_destroy_response(response);
            return result;
        }
    }
    pthread_mutex_unlock(&e->mutex);
    return result;
}

/* ---- Requests. ---- */

static Exchange *exchange_begin(Server *server, struct MHD_Connection *connection, const char *url,
                                const char *method) {
    Exchange *e = exchange_new(server, connection);
    if (!e) return NULL;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    e->fd = info->connect_fd;
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info && info->client_addr) address_text(e->client, sizeof e->client, info->client_addr);
    connection_busy(server, connection, true);
    guard_check(e, url, method);
    e->refused = e->decided && e->body_expected;
    return e;
}

static void route_take(Exchange *e);

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *size, void **context) {
    Exchange *e = *context;
    (void)version;
    if (!e) {
        if (!(*context = e = exchange_begin(user, connection, url, method))) return MHD_NO;
        return e->refused ? proceed(e, connection) : MHD_YES;
    }
    if (*size) {
        bool fits = e->body_size + *size <= e->body_expected;
        if (!e->decided && (!fits || !exchange_body(e, bytes, *size))) return MHD_NO;
        *size = 0;
        return MHD_YES;
    }
    if (!e->complete) {
        e->complete = true;
        e->deadline = clock_seconds() + e->server->settings->seconds;
        if (atomic_load(&e->server->stopping))
            exchange_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
        else
            route_take(e);
    }
    return proceed(e, connection);
}

static void log_request(const Exchange *e, double seconds) {
    if (e->server->settings->common.quiet) return;
    report_print(stderr, "%s %s %s %d %.3f s\n", e->client, e->method, e->path, e->status, seconds);
}

/* The socket is closed after this; what refuses a body keeps it for a moment. */
static void linger(Server *server, int fd) {
    pthread_mutex_lock(&server->mutex);
    int copy = server->lingerer_count < LINGERERS ? dup(fd) : -1;
    if (copy >= 0)
        server->lingerers[server->lingerer_count++] =
            (Lingerer){.fd = copy, .until = clock_seconds() + linger_seconds};
    pthread_mutex_unlock(&server->mutex);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code) {
    Server *server = user;
    Exchange *e = *context;
    if (!e) return;
    double seconds = clock_seconds() - e->begun;
    exchange_client_left(e); /* if it was not replied to */
    pthread_mutex_lock(&e->mutex);
    e->connection = NULL;
    bool cut = e->stream && code != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    if (cut) e->status = STATUS_CLIENT_LEFT;
    pthread_mutex_unlock(&e->mutex);
    if (e->refused) linger(server, e->fd);
    connection_busy(server, connection, false);
    log_request(e, seconds);
    metrics_request(&server->metrics, e->status, seconds, route_answers(e->route));
    *context = NULL;
    exchange_leave(e);
}

/* ---- Routes that need no worker. ---- */

static void health_take(Exchange *e) {
    bool draining = atomic_load(&e->server->draining);
    exchange_reply_json(e, draining ? 503 : 200,
                        json_pack("{s:s}", "status", draining ? "shutting down" : "ok"));
}

static void metrics_take(Exchange *e) {
    Server *s = e->server;
    size_t size = 0;
    pthread_mutex_lock(&s->mutex);
    int connections = s->connection_count, exchanges = s->exchange_count;
    pthread_mutex_unlock(&s->mutex);
    char *text = metrics_text(&s->metrics, &s->backends, connections, exchanges, &size);
    exchange_reply(e, 200, "text/plain; version=0.0.4", text, size);
}

static void route_take(Exchange *e) {
    switch (e->route) {
    case ROUTE_PAGE:
        e->extra = "Content-Security-Policy", e->extra_value = e->server->page.policy;
        exchange_reply_static(e, "text/html; charset=utf-8", e->server->page.page,
                              e->server->page.page_size);
        break;
    case ROUTE_HEALTH:
        health_take(e);
        break;
    case ROUTE_METRICS:
        metrics_take(e);
        break;
    case ROUTE_MODELS:
    case ROUTE_MODEL:
        api_models(e);
        break;
    case ROUTE_CHAT:
    case ROUTE_COMPLETIONS:
    case ROUTE_TRACE:
    case ROUTE_SHOWN:
        work_add_exchange(e->server, e);
        break;
    case ROUTE_PREFLIGHT:
        exchange_reply_static(e, NULL, "", 0);
        break;
    case ROUTE_NONE:
        break; /* refused */
    }
}

/* ---- Time. ---- */

/* Whether the client has closed its end: libmicrohttpd does not see it while a connection sleeps. */
static bool client_left(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLERR | POLLHUP | POLLNVAL));
}

static void exchange_tick(Exchange *e, double now) {
    double transfer = e->server->settings->transfer_seconds;
    bool left = false, late = false;
    pthread_mutex_lock(&e->mutex);
    if (e->connection && e->suspended) left = client_left(e->fd);
    if (e->connection && !e->ended && e->complete) late = now > e->deadline;
    /* A request that does not arrive, or a reply that is not read. */
    bool reads = !e->complete && e->connection && (now > e->begun + transfer || client_left(e->fd));
    bool writes =
        e->ended && now > e->decided_at + transfer && (!e->stream || now > e->deadline + transfer);
    if (e->connection && (reads || writes)) {
        if (writes) metrics_add(&e->server->metrics, &e->server->metrics.slow_readers);
        shutdown(e->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&e->mutex);
    if (left) exchange_client_left(e);
    if (!late || left) return;
    metrics_add(&e->server->metrics, &e->server->metrics.timeouts);
    exchange_cancel(e);
    exchange_fail(e, 504, "timeout", NULL, "no answer within %d seconds",
                  e->server->settings->seconds);
}

static void lingerers_tick(Server *server, double now) {
    static char dropped[65536];
    pthread_mutex_lock(&server->mutex);
    for (int i = 0; i < server->lingerer_count; i++) {
        Lingerer *l = &server->lingerers[i];
        ssize_t n = 1;
        while (l->bytes < LINGER_BYTES &&
               (n = recv(l->fd, dropped, sizeof dropped, MSG_DONTWAIT)) > 0)
            l->bytes += (size_t)n;
        if (n != 0 && now < l->until && l->bytes < LINGER_BYTES) continue;
        close(l->fd);
        *l = server->lingerers[--server->lingerer_count];
        i--;
    }
    pthread_mutex_unlock(&server->mutex);
}

void daemon_tick(Server *server) {
    double now = clock_seconds(), transfer = server->settings->transfer_seconds;
    pthread_mutex_lock(&server->mutex);
    for (Connection *c = server->connections; c; c = c->next)
        if (!c->busy && (now > c->since + transfer || client_left(c->fd)))
            shutdown(c->fd, SHUT_RDWR);
    int count = 0;
    Exchange **all = malloc((size_t)(server->exchange_count + 1) * sizeof *all);
    for (Exchange *e = server->exchanges; e && all; e = e->next) exchange_take(all[count++] = e);
    pthread_mutex_unlock(&server->mutex);
    for (int i = 0; i < count; i++) {
        exchange_tick(all[i], now);
        exchange_leave(all[i]);
    }
    free(all);
    lingerers_tick(server, now);
}

/* ---- Starting and stopping. ---- */

static int listen_at(const Server *server, const struct addrinfo *a, Error *err) {
    const ServeSettings *s = server->settings;
    int yes = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (!s->key && !address_is_loopback(a->ai_addr)) {
        if (fd >= 0) close(fd);
        return error_set(err,
                         "%s is not an address of this machine alone: whoever reaches it could use "
                         "the server; give it a key with --api-key-file FILE",
                         s->host);
    }
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
    error_set(err, "cannot listen on %s, port %d: %m", s->host, s->port);
    if (fd >= 0) close(fd);
    return -1;
}

/* The listening socket, or -1. */
static int listen_open(Server *server, Error *err) {
    const ServeSettings *s = server->settings;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char port[16], host[256];
    size_t size = strlen(s->host);
    bool brackets = size > 2 && s->host[0] == '[' && s->host[size - 1] == ']';
    snprintf(port, sizeof port, "%d", s->port);
    snprintf(host, sizeof host, "%.*s", (int)size - 2 * brackets, s->host + brackets);
    int status = getaddrinfo(host, port, &hints, &list), fd = -1;
    if (status) return error_set(err, "the address %s: %s", s->host, gai_strerror(status));
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = listen_at(server, a, err);
    freeaddrinfo(list);
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&address, &length)) return -1;
    server->port =
        ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                           : ((struct sockaddr_in6 *)&address)->sin6_port);
    return fd;
}

/* libmicrohttpd's messages are about clients: refused heads, resets. They are counted, not shown. */
static void on_message(void *user, const char *format, va_list arguments) {
    (void)user, (void)format, (void)arguments;
}

int daemon_start(Server *server, Error *err) {
    const ServeSettings *s = server->settings;
    TRY(serve_page_make(&server->page, err));
    int fd = listen_open(server, err);
    if (fd < 0) return -1;
    server->daemon = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
            MHD_USE_ERROR_LOG | MHD_USE_ITC,
        0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)s->client_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HEAD_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_END);
    if (server->daemon) return 0;
    close(fd);
    return error_set(err, "libmicrohttpd cannot start: too few files or threads may be open");
}

void daemon_quiesce(Server *server) {
    int fd = MHD_quiesce_daemon(server->daemon);
    if (fd >= 0) close(fd);
}

void daemon_stop(Server *server) {
    if (server->daemon) MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    lingerers_tick(server, clock_seconds() + 2 * linger_seconds);
    serve_page_free(&server->page);
}
