#include "apps/serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

/* ---- Addresses. ---- */

/* An IPv4 address in an IPv6 one (::ffff:127.0.0.1) is that. */
static const unsigned char *ipv4_bytes(const struct sockaddr *address) {
    if (address->sa_family == AF_INET)
        return (const unsigned char *)&((const struct sockaddr_in *)(const void *)address)
            ->sin_addr;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    return IN6_IS_ADDR_V4MAPPED(six) ? six->s6_addr + 12 : NULL;
}

bool address_is_loopback(const struct sockaddr *address) {
    const unsigned char *four = ipv4_bytes(address);
    if (four) return four[0] == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

void address_text(char *out, size_t size, const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "?";
    const unsigned char *four = ipv4_bytes(address);
    if (four)
        inet_ntop(AF_INET, four, text, sizeof text);
    else
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, text,
                  sizeof text);
    snprintf(out, size, four ? "%s" : "[%s]", text);
}

/* ---- Header fields. ---- */

typedef struct Field {
    const char *name, *value;
    int count;
} Field;

static enum MHD_Result field_see(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value) {
    Field *field = user;
    (void)kind;
    if (!field->name || !strcasecmp(name, field->name)) field->value = value, field->count++;
    return MHD_YES;
}

static Field field_of(const Exchange *e, const char *name) {
    Field field = {.name = name};
    MHD_get_connection_values(e->connection, MHD_HEADER_KIND, field_see, &field);
    return field;
}

/* ---- Checks; false after a refusal. ---- */

#define REFUSE(...) return exchange_fail(__VA_ARGS__), false

/* The name in "name:port"; [::1] keeps its brackets. */
static bool host_name(const char *host, char *name, size_t size) {
    const char *end = host[0] == '[' ? strchr(host, ']') : strchr(host, ':');
    if (host[0] == '[' && !end) return false;
    size_t length = end ? (size_t)(end - host) + (host[0] == '[') : strlen(host);
    const char *port = host + length;
    if (*port && (*port != ':' || port[1 + strspn(port + 1, "0123456789")])) return false;
    if (length == 0 || length >= size) return false;
    memcpy(name, host, length);
    name[length] = 0;
    return true;
}

/* The address on which the client has reached us, which no name stands for. */
static void local_address(const Exchange *e, char *out, size_t size) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    out[0] = 0;
    if (getsockname(e->fd, (struct sockaddr *)&address, &length) == 0)
        address_text(out, size, (const struct sockaddr *)&address);
}

static bool host_is_ours(const Exchange *e, const char *name) {
    static const char *const always[] = {"localhost", "127.0.0.1", "[::1]"};
    const ServeSettings *s = e->server->settings;
    char local[80];
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        if (!strcasecmp(name, always[i])) return true;
    for (int i = 0; i < s->host_names.count; i++)
        if (!strcasecmp(name, s->host_names.items[i])) return true;
    local_address(e, local, sizeof local);
    return !strcasecmp(name, s->host) || (local[0] && !strcasecmp(name, local));
}

/* A page of another site may have its name point here (DNS rebinding): its requests name it. */
static bool check_host(Exchange *e) {
    Field host = field_of(e, "Host");
    char name[256];
    if (host.count != 1 || !host.value || !host_name(host.value, name, sizeof name))
        REFUSE(e, 400, "bad_host", NULL,
               "expected one Host header field, a name and perhaps a port");
    if (!host_is_ours(e, name))
        REFUSE(e, 421, "unknown_host", NULL,
               "this server is not known as the host that was asked for; --host-name names another "
               "one");
    return true;
}

/* Whether an origin is this server itself, as the request names it. */
static bool same_origin(const char *origin, const char *host) {
    const char *name = !strncmp(origin, "http://", 7)    ? origin + 7
                       : !strncmp(origin, "https://", 8) ? origin + 8
                                                         : NULL;
    return name && !strcasecmp(name, host);
}

static bool check_origin(Exchange *e) {
    const ServeSettings *s = e->server->settings;
    Field origin = field_of(e, "Origin");
    if (!origin.count) return true;
    for (int i = 0; i < s->origins.count && origin.value; i++)
        if (!strcmp(origin.value, s->origins.items[i])) e->origin = s->origins.items[i];
    if (origin.count == 1 && origin.value &&
        (e->origin || same_origin(origin.value, field_of(e, "Host").value)))
        return true;
    REFUSE(e, 403, "cross_origin", NULL,
           "pages of other origins may not use this server; --cors allows one");
}

/* In the same time whatever the key is: digests are compared. */
static bool key_is(const Exchange *e, const char *given) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    return EVP_Digest(given, strlen(given), digest, &size, EVP_sha256(), NULL) &&
           size == SERVE_DIGEST && CRYPTO_memcmp(digest, e->server->key, SERVE_DIGEST) == 0;
}

static bool check_key(Exchange *e) {
    Field field = field_of(e, "Authorization");
    if (!e->server->settings->key || e->route == ROUTE_PAGE || e->route == ROUTE_HEALTH ||
        e->route == ROUTE_PREFLIGHT)
        return true;
    if (field.count == 1 && field.value && !strncasecmp(field.value, "Bearer ", 7) &&
        key_is(e, field.value + 7))
        return true;
    e->extra = MHD_HTTP_HEADER_WWW_AUTHENTICATE, e->extra_value = "Bearer";
    REFUSE(e, 401, "invalid_api_key", NULL,
           field.count ? "the API key is not the server's"
                       : "an API key is needed: \"Authorization: Bearer KEY\"");
}

/* A form of another site cannot send JSON. */
static bool check_type(Exchange *e) {
    Field type = field_of(e, "Content-Type");
    size_t size = type.value ? strcspn(type.value, "; \t") : 0;
    if (type.count == 1 && size == 16 && !strncasecmp(type.value, "application/json", size))
        return true;
    REFUSE(e, 415, "unsupported_media_type", NULL, "expected Content-Type: application/json");
}

/* The size is known before the body is read. */
static bool check_length(Exchange *e) {
    Field length = field_of(e, "Content-Length"), encoding = field_of(e, "Transfer-Encoding");
    unsigned long long most = (unsigned long long)e->server->settings->body_mb << 20, size;
    char *end;
    bool posts = route_answers(e->route);
    if (encoding.count || (posts && !length.count))
        REFUSE(e, 411, "length_required", NULL,
               "expected a Content-Length, and no Transfer-Encoding");
    if (!length.count) return true;
    errno = 0;
    size = length.value ? strtoull(length.value, &end, 10) : 0;
    if (length.count != 1 || !length.value || length.value[0] < '0' || length.value[0] > '9' ||
        *end || errno)
        REFUSE(e, 400, "bad_length", NULL, "the Content-Length is not a number");
    e->body_expected = (size_t)size;
    if (!posts && size)
        REFUSE(e, 400, "unexpected_body", NULL, "a %s request has no body here", e->method);
    if (size > most)
        REFUSE(e, 413, "request_too_large", NULL,
               "the request has %llu bytes, %llu are allowed: send a smaller image", size, most);
    return true;
}

/* ---- Routes. ---- */

static const struct {
    const char *path;
    Route route;
    bool post;
} routes[] = {{"/", ROUTE_PAGE, false},
              {"/health", ROUTE_HEALTH, false},
              {"/metrics", ROUTE_METRICS, false},
              {"/v1/models", ROUTE_MODELS, false},
              {"/v1/chat/completions", ROUTE_CHAT, true},
              {"/v1/completions", ROUTE_COMPLETIONS, true},
              {"/v1/easyfirst/trace", ROUTE_TRACE, true},
              {"/v1/easyfirst/page", ROUTE_SHOWN, true}};

enum { ROUTES = sizeof routes / sizeof routes[0] };
static const char models_folder[] = "/v1/models/";

static bool check_route(Exchange *e, const char *url) {
    bool get = !strcmp(e->method, "GET") || !strcmp(e->method, "HEAD"), post = false;
    Field query = {0};
    Route route = ROUTE_NONE;
    for (int i = 0; i < ROUTES; i++)
        if (!strcmp(url, routes[i].path)) route = routes[i].route, post = routes[i].post;
    if (!strncmp(url, models_folder, strlen(models_folder))) route = ROUTE_MODEL;
    if (route == ROUTE_NONE) REFUSE(e, 404, "not_found", NULL, "there is nothing at this path");
    if (!strcmp(e->method, "OPTIONS") && e->origin) {
        e->route = ROUTE_PREFLIGHT;
        return true;
    }
    if (post ? strcmp(e->method, "POST") != 0 : !get) {
        e->extra = MHD_HTTP_HEADER_ALLOW, e->extra_value = post ? "POST" : "GET, HEAD";
        REFUSE(e, 405, "method_not_allowed", NULL, "expected %s", e->extra_value);
    }
    MHD_get_connection_values(e->connection, MHD_GET_ARGUMENT_KIND, field_see, &query);
    if (query.count && route != ROUTE_PAGE)
        REFUSE(e, 400, "unexpected_query", NULL, "nothing after a ? is expected here");
    e->route = route;
    return true;
}

/* Whether so many requests may wait; sees those of the same client, too. */
static bool check_queue(Exchange *e) {
    Server *server = e->server;
    const ServeSettings *s = server->settings;
    int all = 0, own = 0;
    if (!route_answers(e->route)) return true;
    pthread_mutex_lock(&server->mutex);
    for (Exchange *other = server->exchanges; other; other = other->next) {
        pthread_mutex_lock(&other->mutex);
        bool waits = route_answers(other->route) && !other->ended;
        pthread_mutex_unlock(&other->mutex);
        if (!waits) continue;
        all++;
        own += !strcmp(other->client, e->client);
    }
    size_t bytes = server->body_bytes;
    pthread_mutex_unlock(&server->mutex);
    e->extra = MHD_HTTP_HEADER_RETRY_AFTER, e->extra_value = "1";
    if (atomic_load(&server->draining))
        REFUSE(e, 503, "shutting_down", NULL, "the server is shutting down");
    if (own > s->client_queue)
        REFUSE(e, 429, "too_many_requests", NULL,
               "this client has %d requests that are not answered yet; try again later",
               s->client_queue);
    if (all > s->queue || bytes + e->body_expected > ((size_t)s->body_mb << 20) * 4)
        REFUSE(e, 503, "overloaded", NULL, "the server has too many requests; try again later");
    e->extra = NULL;
    return true;
}

void guard_check(Exchange *e, const char *url, const char *method) {
    snprintf(e->method, sizeof e->method, "%s", method);
    snprintf(e->path, sizeof e->path, "%s", url);
    (void)(check_host(e) && check_origin(e) && check_route(e, url) && check_key(e) &&
           check_length(e) && (!route_answers(e->route) || check_type(e)) && check_queue(e));
}
