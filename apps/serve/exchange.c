#include "apps/serve/exchange.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "data/files/json_memory.h"
#include "kernels/clock.h"

static const char out_of_memory[] =
    "{\"error\": {\"message\": \"out of memory\", \"type\": \"server_error\", \"param\": null, "
    "\"code\": null}}\n";

Exchange *exchange_new(Server *server, struct MHD_Connection *connection) {
    Exchange *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->server = server, e->connection = connection;
    e->begun = clock_seconds();
    e->deadline = e->begun + server->settings->seconds;
    atomic_init(&e->users, 1);
    pthread_mutex_init(&e->mutex, NULL);
    pthread_mutex_lock(&server->mutex);
    e->next = server->exchanges;
    if (e->next) e->next->previous = e;
    server->exchanges = e;
    server->exchange_count++;
    pthread_mutex_unlock(&server->mutex);
    return e;
}

void exchange_take(Exchange *e) {
    atomic_fetch_add(&e->users, 1);
}

/* The last reference is dropped with the list locked, so that whoever walks it may take one. */
void exchange_leave(Exchange *e) {
    Server *server = e->server;
    pthread_mutex_lock(&server->mutex);
    bool last = atomic_fetch_sub(&e->users, 1) == 1;
    if (last) {
        if (e->previous) e->previous->next = e->next;
        if (e->next) e->next->previous = e->previous;
        if (server->exchanges == e) server->exchanges = e->next;
        server->exchange_count--;
        server->body_bytes -= e->body_room;
    }
    pthread_mutex_unlock(&server->mutex);
    if (!last) return;
    free(e->body);
    if (!e->reply_static) free(e->reply);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

/* ---- The body. ---- */

enum { BODY_ROOM = 4096 };

bool exchange_body(Exchange *e, const char *bytes, size_t size) {
    size_t needed = e->body_size + size + 1;
    if (needed > e->body_room) {
        size_t room = e->body_room ? 2 * e->body_room : BODY_ROOM;
        while (room < needed) room *= 2;
        if (room > e->body_expected + 1 && e->body_expected + 1 >= needed)
            room = e->body_expected + 1;
        char *body = realloc(e->body, room);
        if (!body) return false;
        pthread_mutex_lock(&e->server->mutex);
        e->server->body_bytes += room - e->body_room;
        pthread_mutex_unlock(&e->server->mutex);
        e->body = body, e->body_room = room;
    }
    memcpy(e->body + e->body_size, bytes, size);
    e->body_size += size;
    e->body[e->body_size] = 0;
    return true;
}

void exchange_body_free(Exchange *e) {
    pthread_mutex_lock(&e->server->mutex);
    e->server->body_bytes -= e->body_room;
    pthread_mutex_unlock(&e->server->mutex);
    free(e->body);
    e->body = NULL, e->body_size = e->body_room = 0;
}

/* ---- Replies; the mutex is held where a name ends in _held. ---- */

static void wake_held(Exchange *e) {
    if (!e->suspended) return;
    e->suspended = false;
    if (e->connection) MHD_resume_connection(e->connection);
}

static void decide_held(Exchange *e, int status, const char *type) {
    e->decided = true;
    e->decided_at = clock_seconds();
    e->status = status, e->type = type;
}

static void reply_held(Exchange *e, int status, const char *type, char *text, size_t size) {
    decide_held(e, text ? status : MHD_HTTP_INTERNAL_SERVER_ERROR,
                text ? type : "application/json");
    e->reply_static = !text;
    e->reply = text ? text : (char *)(uintptr_t)out_of_memory;
    e->reply_size = text ? size : sizeof out_of_memory - 1;
    e->ended = true;
    wake_held(e);
}

void exchange_reply(Exchange *e, int status, const char *type, char *text, size_t size) {
    pthread_mutex_lock(&e->mutex);
    if (!e->decided)
        reply_held(e, status, type, text, size);
    else
        free(text);
    pthread_mutex_unlock(&e->mutex);
}

void exchange_reply_static(Exchange *e, const char *type, const char *text, size_t size) {
    pthread_mutex_lock(&e->mutex);
    if (!e->decided) {
        reply_held(e, MHD_HTTP_OK, type, (char *)(uintptr_t)text, size);
        e->reply_static = true;
    }
    pthread_mutex_unlock(&e->mutex);
}

/* An object, which it takes over, as compact JSON; NULL without memory. */
static char *json_bytes(json_t *object, size_t *size) {
    char *text =
        object ? json_dumps_whole(object, JSON_COMPACT | JSON_REAL_PRECISION(JSON_DIGITS)) : NULL;
    json_decref(object);
    *size = text ? strlen(text) : 0;
    return text;
}

/* For a terminal, in place of the text's terminator. */
static void line_end(char *text, size_t *size) {
    if (text) text[(*size)++] = '\n';
}

void exchange_reply_json(Exchange *e, int status, json_t *object) {
    size_t size;
    char *text = json_bytes(object, &size);
    line_end(text, &size);
    exchange_reply(e, status, "application/json", text, size);
}

/* ---- Streams. ---- */

bool exchange_stream(Exchange *e) {
    pthread_mutex_lock(&e->mutex);
    bool begins = !e->decided;
    if (begins) {
        decide_held(e, MHD_HTTP_OK, "text/event-stream");
        e->stream = true;
        wake_held(e);
    }
    pthread_mutex_unlock(&e->mutex);
    return begins;
}

static void cancel_held(Exchange *e) {
    __atomic_store_n(&e->cancelled, 1, __ATOMIC_RELAXED);
    ef_job_cancel(e->job);
    if (e->cancellation) ef_cancel(e->cancellation);
}

static void break_held(Exchange *e) {
    e->broken = e->ended = true;
    cancel_held(e);
    wake_held(e);
}

/* Room for `size` more bytes of a stream, after what was sent is dropped. */
static bool stream_room_held(Exchange *e, size_t size) {
    if (e->reply_sent) memmove(e->reply, e->reply + e->reply_sent, e->reply_size - e->reply_sent);
    e->reply_size -= e->reply_sent, e->reply_sent = 0;
    size_t needed = e->reply_size + size;
    if (needed <= e->reply_room) return true;
    size_t room = needed > 2 * e->reply_room ? needed : 2 * e->reply_room;
    char *reply = realloc(e->reply, room);
    if (!reply) return false;
    e->reply = reply, e->reply_room = room;
    return true;
}

/* "data: TEXT", an event. An answer that is longer than the room is still sent to a reader who has
 * read all before it. */
static void event_held(Exchange *e, const char *text, size_t size) {
    size_t waits = e->reply_size - e->reply_sent;
    if (!e->stream || e->ended) return;
    if (!text || (waits && waits + size > STREAM_ROOM) || !stream_room_held(e, size + 8)) {
        if (text) metrics_add(&e->server->metrics, &e->server->metrics.slow_readers);
        break_held(e);
        return;
    }
    char *to = e->reply + e->reply_size;
    memcpy(to, "data: ", 6), memcpy(to + 6, text, size), memcpy(to + 6 + size, "\n\n", 2);
    e->reply_size += size + 8;
    wake_held(e);
}

void exchange_event(Exchange *e, json_t *object) {
    size_t size;
    char *text = json_bytes(object, &size);
    pthread_mutex_lock(&e->mutex);
    event_held(e, text, size);
    pthread_mutex_unlock(&e->mutex);
    free(text);
}

void exchange_stream_end(Exchange *e) {
    pthread_mutex_lock(&e->mutex);
    event_held(e, "[DONE]", 6);
    e->ended = true;
    wake_held(e);
    pthread_mutex_unlock(&e->mutex);
}

/* ---- Failures. ---- */

/* OpenAI's word for the kind of an error. */
static const char *error_type(int status) {
    return status == 401   ? "authentication_error"
           : status == 403 ? "permission_error"
           : status == 429 ? "rate_limit_error"
           : status >= 500 ? "server_error"
                           : "invalid_request_error";
}

void exchange_fail(Exchange *e, int status, const char *code, const char *param, const char *format,
                   ...) {
    char message[1200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    json_t *object = json_pack("{s:{s:o, s:s, s:o*, s:s?}}", "error", "message", json_text(message),
                               "type", error_type(status), "param",
                               param ? json_text(param) : json_null(), "code", code);
    size_t size;
    char *text = json_bytes(object, &size);
    pthread_mutex_lock(&e->mutex);
    if (!e->decided) {
        line_end(text, &size);
        reply_held(e, status, "application/json", text, size);
        text = NULL;
    } else if (e->stream && !e->ended) {
        event_held(e, text, size);
        e->ended = true;
        wake_held(e);
    }
    pthread_mutex_unlock(&e->mutex);
    free(text);
}

void exchange_cancel(Exchange *e) {
    pthread_mutex_lock(&e->mutex);
    cancel_held(e);
    pthread_mutex_unlock(&e->mutex);
}

void exchange_client_left(Exchange *e) {
    pthread_mutex_lock(&e->mutex);
    cancel_held(e);
    if (!e->decided) {
        decide_held(e, STATUS_CLIENT_LEFT, "text/plain");
        e->reply_static = true, e->reply = (char *)(uintptr_t)out_of_memory;
        e->broken = e->ended = true;
        metrics_add(&e->server->metrics, &e->server->metrics.disconnects);
    } else if (e->stream && !e->ended) {
        e->broken = e->ended = true;
        metrics_add(&e->server->metrics, &e->server->metrics.disconnects);
    }
    wake_held(e);
    pthread_mutex_unlock(&e->mutex);
}
