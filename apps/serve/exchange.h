/* exchange.h - one HTTP request and its reply.
 *
 * An exchange is read, perhaps worked at, and replied to: at once, or as a stream of events. It
 * belongs to whoever holds a reference: the connection, a worker, a job of the engine. The first
 * call of exchange_reply or exchange_close decides its reply; later ones do nothing. All functions
 * may be called from any thread.
 */
#ifndef EASYFIRST_APPS_SERVE_EXCHANGE_H
#define EASYFIRST_APPS_SERVE_EXCHANGE_H

#include <jansson.h>

#include "apps/serve/serve.h"

struct MHD_Connection;

/* What is asked for. */
typedef enum Route {
    ROUTE_NONE,
    ROUTE_PAGE,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_CHAT,
    ROUTE_COMPLETIONS,
    ROUTE_TRACE,    /* the steps of an answer, as `show --json` has them */
    ROUTE_SHOWN,    /* the page that `show --html` makes of them */
    ROUTE_PREFLIGHT /* OPTIONS, of CORS */
} Route;

enum {
    STREAM_ROOM = 1 << 20,   /* bytes of a stream that wait for a slow reader at most */
    STATUS_CLIENT_LEFT = 499 /* in the log */
};

typedef struct Exchange {
    Server *server;
    atomic_int users;
    struct Exchange *next, *previous; /* of the server's list; its mutex */
    struct Exchange *next_work;

    /* Set when the request's head was read. */
    Route route;
    char method[16], path[128];
    char client[64];        /* the address of the peer */
    const char *origin;     /* of CORS, the settings'; NULL: none */
    double begun, deadline; /* clock; of the answer */

    /* The connection's thread alone. */
    char *body;
    size_t body_size, body_room, body_expected;
    bool complete; /* the request was read */
    bool refused;  /* before its body was read */

    pthread_mutex_t mutex;             /* of what follows */
    struct MHD_Connection *connection; /* NULL: closed */
    int fd;
    bool suspended;
    bool decided; /* the reply is known, or begins */
    bool ended;   /* nothing is added to it any more */
    bool broken;  /* a stream ends without its end */
    bool stream;
    int status;
    double decided_at;
    const char *type, *extra, *extra_value; /* of the content; another header field; static */
    char *reply;
    size_t reply_size, reply_room, reply_sent;
    bool reply_static;             /* the reply is the program's or server's */
    ef_job *job;                   /* to be cancelled when the client leaves */
    ef_cancellation *cancellation; /* ... of what a worker computes */
    int cancelled;                 /* atomic */
} Exchange;

/* Whether it asks for an answer. */
static inline bool route_answers(Route route) {
    return route == ROUTE_CHAT || route == ROUTE_COMPLETIONS || route == ROUTE_TRACE ||
           route == ROUTE_SHOWN;
}

Exchange *exchange_new(Server *server, struct MHD_Connection *connection);
void exchange_take(Exchange *e);
void exchange_leave(Exchange *e);

/* Another `size` bytes of the body. False: out of memory. */
bool exchange_body(Exchange *e, const char *bytes, size_t size);
void exchange_body_free(Exchange *e);

/* ---- Replies. ---- */

/* The whole reply; takes over the text (NULL: out of memory, which becomes a status 500). */
void exchange_reply(Exchange *e, int status, const char *type, char *text, size_t size);

/* The same for a text that lives as long as the server. */
void exchange_reply_static(Exchange *e, const char *type, const char *text, size_t size);

/* An object, which it takes over, as JSON. */
void exchange_reply_json(Exchange *e, int status, json_t *object);

/* What is wrong, in OpenAI's form; in a stream that has begun the last event. `param` and `code`
 * may be NULL. */
void exchange_fail(Exchange *e, int status, const char *code, const char *param, const char *format,
                   ...) __attribute__((format(printf, 5, 6)));

/* Begins a stream of events; false if there is a reply already. */
bool exchange_stream(Exchange *e);

/* An event of the stream: an object, which it takes over. If too much waits to be read, the stream
 * is broken off and the job cancelled. */
void exchange_event(Exchange *e, json_t *object);

/* The end of the stream. */
void exchange_stream_end(Exchange *e);

/* Cancels what computes for it; the job that comes later is cancelled, too. */
void exchange_cancel(Exchange *e);

/* Nobody reads the reply any more. */
void exchange_client_left(Exchange *e);

#endif
