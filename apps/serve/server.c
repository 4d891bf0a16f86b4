#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "apps/cli/signals.h"
#include "apps/serve/http.h"
#include "data/files/path.h"

enum { MMAP_BYTES = 256 << 10 };       /* allocations from here on are returned to the system */
static const double flush_seconds = 5; /* for replies to be read, at the end */

/* ---- Reloading, in a thread of its own. ---- */

typedef struct Reload {
    Server *server;
    pthread_t thread;
    bool running, again;
    atomic_bool done;
} Reload;

static void *reload_run(void *user) {
    Reload *r = user;
    Server *s = r->server;
    Error err;
    int status = backends_reload(&s->backends, s->settings, &err);
    metrics_add(&s->metrics, status ? &s->metrics.reload_failures : &s->metrics.reloads);
    if (status)
        report_error("SIGHUP: the model was not reloaded, the old one stays: %s", err.text);
    else
        report_error("SIGHUP: the model was reloaded");
    atomic_store(&r->done, true);
    return NULL;
}

static void reload_start(Reload *r) {
    r->again = r->running;
    if (r->running) return;
    atomic_store(&r->done, false);
    r->running = pthread_create(&r->thread, NULL, reload_run, r) == 0;
    if (!r->running) report_error("SIGHUP: the model was not reloaded: no more threads");
}

/* With `wait`, until it has ended. */
static void reload_tick(Reload *r, bool wait) {
    if (!r->running || (!wait && !atomic_load(&r->done))) return;
    pthread_join(r->thread, NULL);
    r->running = false;
    if (r->again && !wait) reload_start(r);
}

/* ---- Signals. ---- */

static void signals_block(sigset_t *set) {
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(set);
    sigaddset(set, SIGINT), sigaddset(set, SIGTERM), sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

/* The second one ends the process, as it would without us. */
static void end_now(int number) {
    sigset_t set;
    signal(number, SIG_DFL);
    sigemptyset(&set), sigaddset(&set, number);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    _exit(1);
}

static bool all_replied(Server *server) {
    bool replied = true;
    pthread_mutex_lock(&server->mutex);
    for (Exchange *e = server->exchanges; e && replied; e = e->next) {
        pthread_mutex_lock(&e->mutex);
        replied = e->ended || !e->complete;
        pthread_mutex_unlock(&e->mutex);
    }
    pthread_mutex_unlock(&server->mutex);
    return replied;
}

static bool all_gone(Server *server) {
    pthread_mutex_lock(&server->mutex);
    bool gone = server->exchange_count == 0;
    pthread_mutex_unlock(&server->mutex);
    return gone;
}

static void drain_begin(Server *server, int number) {
    report_error("%s: no new requests are taken; those that run are answered (a second signal ends "
                 "at once)",
                 signals_name(number));
    atomic_store(&server->draining, true);
    daemon_quiesce(server);
}

/* Until a signal, and after it until everything is answered. */
static void serve_loop(Server *server, const sigset_t *set) {
    const struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};
    Reload reload = {.server = server};
    double replied_at = 0;
    for (bool draining = false;;) {
        int number = sigtimedwait(set, NULL, &tick);
        if (number == SIGHUP && !draining) reload_start(&reload);
        if (number == SIGINT || number == SIGTERM) {
            if (draining) end_now(number);
            draining = true;
            drain_begin(server, number);
        }
        daemon_tick(server);
        reload_tick(&reload, false);
        backends_sweep(&server->backends);
        if (!draining || !all_replied(server)) continue;
        double now = clock_seconds();
        if (!replied_at) replied_at = now;
        if (all_gone(server) || now > replied_at + flush_seconds) break;
    }
    /* libmicrohttpd must not end while a connection sleeps. */
    atomic_store(&server->stopping, true);
    while (!all_replied(server)) {
        int number = sigtimedwait(set, NULL, &tick);
        if (number == SIGINT || number == SIGTERM) end_now(number);
        daemon_tick(server);
    }
    reload_tick(&reload, true);
}

/* ---- The server. ---- */

/* What the API calls the model: the folder's name, unless it is named. */
static int model_name(Server *server, Error *err) {
    const ServeSettings *s = server->settings;
    const ModelOptions *m = &s->common.model;
    const char *path = m->folder ? m->folder : m->language;
    const char *name = s->model_id                     ? s->model_id
                       : s->common.bundled[0] || !path ? "easyfirst"
                                                       : path_name(path);
    snprintf(server->model_id, sizeof server->model_id, "%.*s", (int)strcspn(name, "/"), name);
    if (!server->model_id[0] || server->model_id[0] == '.')
        snprintf(server->model_id, sizeof server->model_id, "easyfirst");
    if (!RAND_bytes((unsigned char *)&server->identity, sizeof server->identity))
        return error_set(err, "libcrypto has no random numbers: check its installation");
    unsigned size = 0;
    if (s->key && !EVP_Digest(s->key, strlen(s->key), server->key, &size, EVP_sha256(), NULL))
        return error_set(err, "libcrypto cannot compute SHA-256: check its installation");
    return 0;
}

/* The names of all models, each once. */
static int name_models(Server *server, Error *err) {
    const TextList *adapters = &server->settings->adapters;
    for (int i = 0; i <= adapters->count; i++) {
        const char *adapter = i ? adapters->items[i - 1] : NULL;
        char *name = adapter ? path_format(err, "%.*s", (int)adapter_name_size(adapter), adapter)
                             : path_format(err, "%s", server->model_id);
        if (!name) return -1;
        server->model_names[i] = name;
        for (int j = 0; j < i; j++)
            if (!strcmp(server->model_names[j], name))
                return error_set(err, "--adapter: two models have the name \"%s\"", name);
    }
    return 0;
}

static int server_run(Server *server, const sigset_t *set, Error *err) {
    TRY(model_name(server, err));
    TRY(name_models(server, err));
    TRY(backends_open(&server->backends, server->settings, err));
    int status = work_start(server, err);
    if (status == 0) status = daemon_start(server, err);
    if (status == 0) {
        report_print(stderr, "easyfirst: serving %s (%s) at http://%s:%d\n", server->model_id,
                     ef_model_device(server->backends.now[0]->model), server->settings->host,
                     server->port);
        serve_loop(server, set);
    }
    daemon_stop(server);
    work_stop(server);
    backends_close(&server->backends);
    return status;
}

/* Memory that stays the same however long it serves. The C library would keep ever larger blocks
 * in its heaps, whose holes between long-lived ones then grow. And the kernels keep what oneDNN has
 * compiled, some 500 matmuls: its own cache of 1024 more would fill within some thousand requests.
 * Called before there are other threads; whoever sets the variables is left alone. */
static void memory_bound(void) {
#ifdef __GLIBC__
    if (!getenv("MALLOC_MMAP_THRESHOLD_")) mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
#endif
    if (!getenv("DNNL_PRIMITIVE_CACHE_CAPACITY"))
        setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64", false);
}

int serve(const ServeSettings *settings, Error *err) {
    Server *server = calloc(1, sizeof *server);
    sigset_t set;
    if (!server) return error_set(err, "out of memory for a server");
    memory_bound();
    server->settings = settings;
    server->started = (long long)time(NULL);
    metrics_init(&server->metrics);
    pthread_mutex_init(&server->mutex, NULL);
    signals_block(&set);
    int status = server_run(server, &set, err);
    for (int i = 0; i < BACKENDS_MOST; i++) free(server->model_names[i]);
    free(server);
    return status;
}
