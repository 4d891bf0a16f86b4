#include "apps/serve/serve.h"

#include <stdlib.h>
#include <string.h>

static int backend_open(Backend **backend, const ServeSettings *settings, const char *adapter,
                        Error *err) {
    ef_engine_options options = ef_engine_options_default();
    Timings timings = {0};
    Backend *b = calloc(1, sizeof *b);
    *backend = NULL;
    if (!b) return error_set(err, "out of memory for a model");
    atomic_init(&b->users, 1);
    image_store_open(&b->images);
    options.queue = settings->queue;
    options.image_cache = (size_t)settings->image_cache_mb << 20;
    CommonOptions common = settings->common;
    if (adapter) common.model.adapter = adapter + adapter_name_size(adapter) + 1;
    int status = library_open(&b->model, &common, &timings, err);
    if (status == 0) status = ef_engine_open(b->model, &options, &b->engine, library_error(err));
    if (status == 0) {
        *backend = b;
        return 0;
    }
    image_store_close(&b->images);
    ef_model_close(b->model);
    free(b);
    return -1;
}

static void backend_close(Backend *b) {
    ef_engine_close(b->engine);
    image_store_close(&b->images);
    ef_model_close(b->model);
    free(b);
}

static void close_all(Backend **list, int count) {
    for (int i = 0; i < count; i++) {
        if (list[i]) backend_close(list[i]);
        list[i] = NULL;
    }
}

static int open_all(Backend **list, int count, const ServeSettings *settings, Error *err) {
    for (int i = 0; i < count; i++) list[i] = NULL;
    for (int i = 0; i < count; i++) {
        if (backend_open(&list[i], settings, i ? settings->adapters.items[i - 1] : NULL, err) == 0)
            continue;
        close_all(list, count);
        return -1;
    }
    return 0;
}

int backends_open(Backends *b, const ServeSettings *settings, Error *err) {
    pthread_mutex_init(&b->mutex, NULL);
    b->count = 1 + settings->adapters.count;
    return open_all(b->now, b->count, settings, err);
}

int backends_reload(Backends *b, const ServeSettings *settings, Error *err) {
    Backend *fresh[BACKENDS_MOST], *old[BACKENDS_MOST];
    TRY(open_all(fresh, b->count, settings, err));
    pthread_mutex_lock(&b->mutex);
    for (int i = 0; i < b->count; i++) {
        old[i] = b->now[i];
        b->now[i] = fresh[i];
        old[i]->next = b->old;
        b->old = old[i];
    }
    pthread_mutex_unlock(&b->mutex);
    for (int i = 0; i < b->count; i++) backend_leave(old[i]);
    return 0;
}

Backend *backend_take(Backends *b, int model) {
    pthread_mutex_lock(&b->mutex);
    Backend *now = b->now[model];
    atomic_fetch_add(&now->users, 1);
    pthread_mutex_unlock(&b->mutex);
    return now;
}

void backend_leave(Backend *backend) {
    atomic_fetch_sub(&backend->users, 1);
}

void backends_sweep(Backends *b) {
    Backend *done = NULL;
    pthread_mutex_lock(&b->mutex);
    for (Backend **at = &b->old; *at;) {
        Backend *old = *at;
        if (atomic_load(&old->users) == 0)
            *at = old->next, old->next = done, done = old;
        else
            at = &old->next;
    }
    pthread_mutex_unlock(&b->mutex);
    for (Backend *next; done; done = next) {
        next = done->next;
        backend_close(done);
    }
}

void backends_close(Backends *b) {
    for (Backend *next; b->old; b->old = next) {
        next = b->old->next;
        backend_close(b->old);
    }
    close_all(b->now, b->count);
    pthread_mutex_destroy(&b->mutex);
}
