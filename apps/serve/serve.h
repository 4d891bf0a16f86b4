/* serve.h - `easyfirst serve`: its settings, and the parts that the files of this folder share.
 *
 * Threads. libmicrohttpd's one thread reads requests and writes replies, and computes nothing. A
 * complete request that asks for an answer goes to one of a few workers (work.h), which read its
 * JSON and its image and submit it to the engine (easyfirst.h). The engine's thread calls back with
 * steps and with the answer, which become the exchange's reply (exchange.h). The main thread waits
 * for signals, and ten times a second looks for exchanges that take too long and for clients that
 * have left.
 *
 * Nothing is read from or written to files while it serves, but for the model when it is opened.
 */
#ifndef EASYFIRST_APPS_SERVE_SERVE_H
#define EASYFIRST_APPS_SERVE_SERVE_H

#include <pthread.h>
#include <stdatomic.h>

#include "apps/cli/common.h"
#include "apps/cli/library.h"
#include "apps/serve/image_store.h"

enum { SERVE_PORT = 8080, SERVE_DIGEST = 32 };

typedef struct ServeSettings {
    CommonOptions common;
    const char *host;     /* address to listen on */
    int port;             /* 0: any free one */
    const char *key;      /* NULL: none is asked for */
    TextList origins;     /* CORS: that may read answers, as "https://example.org" */
    TextList host_names;  /* of this server, besides the address and localhost */
    const char *model_id; /* as the API calls the model; NULL: the folder's name */
    int body_mb;          /* of a request's body, at most */
    int megapixels;       /* of an image, at most */
    int seconds;          /* that an answer may take */
    int transfer_seconds; /* that reading a request may take, and writing a reply */
    int connections, client_connections;
    int queue, client_queue; /* requests that wait or are answered, at most: of all, of a client */
    int image_cache_mb;
    TextList adapters; /* "NAME=FOLDER" each: further models, the base with an adapter */
} ServeSettings;

/* ---- The model (backend.c). ---- */

/* An open model with its engine. It lives until nothing uses it any more: after a reload, running
 * answers end with the old one. */
typedef struct Backend {
    ef_model *model;
    ef_engine *engine;
    ImageStore images;
    atomic_int users;
    struct Backend *next; /* of those that were replaced */
} Backend;

/* The model itself, and with each adapter. */
enum { BACKENDS_MOST = 1 + 32 };

/* The present ones and those that are on their way out. */
typedef struct Backends {
    pthread_mutex_t mutex;
    Backend *now[BACKENDS_MOST], *old;
    int count;
} Backends;

int backends_open(Backends *b, const ServeSettings *settings, Error *err);

/* Opens the model again, with all adapters, and replaces the present ones if that succeeds. Takes as
 * long as loading does; requests are answered meanwhile. */
int backends_reload(Backends *b, const ServeSettings *settings, Error *err);

/* The length of the name in "NAME=FOLDER"; 0: it has none. */
static inline size_t adapter_name_size(const char *adapter) {
    const size_t size = strcspn(adapter, "=");
    return adapter[size] && !memchr(adapter, '/', size) ? size : 0;
}

/* The present one of a model, 0 or 1 + an adapter's index, for as long as it is needed. */
Backend *backend_take(Backends *b, int model);
void backend_leave(Backend *backend);

/* Closes those that nothing uses any more. Not in a callback of an engine. */
void backends_sweep(Backends *b);

/* Closes all; nothing uses them. */
void backends_close(Backends *b);

/* ---- Counts (metrics.c). ---- */

enum { METRIC_BUCKETS = 12, METRIC_STATUSES = 24 };

typedef struct Metrics {
    pthread_mutex_t mutex;
    double begun;                      /* clock */
    int64_t requests[METRIC_STATUSES]; /* by status: see metrics.c */
    int64_t answers, prompt_tokens, answer_tokens, evaluations;
    int64_t seconds_buckets[METRIC_BUCKETS]; /* of requests for answers */
    double seconds_sum;
    int64_t seconds_count, slow_readers, timeouts, disconnects, reloads, reload_failures;
} Metrics;

void metrics_init(Metrics *m);
void metrics_request(Metrics *m, int status, double seconds, bool answering);
void metrics_answer(Metrics *m, const ef_answers *answers);
void metrics_add(Metrics *m, int64_t *counter);

/* Prometheus' text; the caller's to free, NULL without memory. `connections` and `exchanges` are
 * those of now. */
char *metrics_text(Metrics *m, Backends *backends, int connections, int exchanges, size_t *size);

/* ---- The page (page.c). ---- */

/* The page and the Content-Security-Policy of its header, made once. */
typedef struct ServePage {
    char *page, *policy;
    size_t page_size;
} ServePage;

int serve_page_make(ServePage *page, Error *err);
void serve_page_free(ServePage *page);

/* ---- The server (server.c). ---- */

struct Exchange;
struct Connection;

/* A socket whose request was refused before its body was read. Closing it at once would reset the
 * connection, and the client might not see why: what it sends is dropped for a moment. */
typedef struct Lingerer {
    int fd;
    double until;
    size_t bytes;
} Lingerer;
enum { LINGERERS = 64 };

/* A queue of exchanges whose requests are to be read by workers (work.c). */
typedef struct Work {
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    struct Exchange *first, *last;
    pthread_t threads[8];
    int thread_count;
    bool end;
} Work;

typedef struct Server {
    const ServeSettings *settings;
    Backends backends;
    Metrics metrics;
    Work work;
    struct MHD_Daemon *daemon;
    int port; /* that it listens on */
    char model_id[256];
    char *model_names[BACKENDS_MOST]; /* of all models; the first is model_id's */
    ServePage page;
    unsigned char key[SERVE_DIGEST]; /* SHA-256 of the key */
    long long started;               /* seconds since 1970 */
    uint64_t identity;               /* random, in the ids of answers */
    pthread_mutex_t mutex;           /* of what follows */
    struct Exchange *exchanges;      /* all */
    struct Connection *connections;
    int exchange_count, connection_count;
    Lingerer lingerers[LINGERERS];
    int lingerer_count;
    size_t body_bytes;    /* that all bodies take */
    atomic_bool draining; /* no new requests for answers */
    atomic_bool stopping; /* none at all: what arrives now is refused */
    atomic_ullong next_id;
} Server;

/* Opens the model, listens, and serves until a signal ends it (0) or it cannot (-1). */
int serve(const ServeSettings *settings, Error *err);

#endif
