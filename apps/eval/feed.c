#include "apps/eval/feed.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/sets/prefetch.h"
#include "data/files/path.h"

struct EvalFeed {
    EvalFeedConfig config;
    Prefetch *prefetch; /* of Pictures */
};

/* Those of one batch. */
typedef struct Pictures {
    EvalPicture *items; /* [count] */
    int64_t count;
} Pictures;

void eval_pictures_free(EvalPicture *pictures, int64_t count) {
    for (int64_t i = 0; i < count && pictures; i++) image_free(&pictures[i].image);
    free(pictures);
}

static void picture_read(const EvalFeedConfig *c, const char *name, EvalPicture *p) {
    char *path = path_join(c->folder, name, &p->bad);
    int status = path ? preprocess_read(&p->image, &p->width, &p->height, path, &c->preprocess,
                                        NULL, &p->bad)
                      : -1;
    free(path);
    if (status == 0) p->bad.text[0] = 0;
}

static void drop_pictures(void *thing) {
    Pictures *p = thing;
    eval_pictures_free(p->items, p->count);
    free(p);
}

static int make_pictures(void *user, Prefetch *prefetch, Error *err) {
    const EvalFeedConfig *c = &((EvalFeed *)user)->config;
    int64_t first = 0;
    for (int64_t b = 0; b < c->batches; first = c->ends[b++]) {
        int64_t count = c->ends[b] - first;
        Pictures *p = calloc(1, sizeof *p);
        EvalPicture *pictures = calloc((size_t)count + 1, sizeof *pictures);
        if (!p || !pictures) {
            free(p), free(pictures);
            return error_set(err, "out of memory for %lld images", (long long)count);
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
        for (int64_t i = 0; i < count; i++)
            if (!prefetch_stopped(prefetch)) picture_read(c, c->names[first + i], &pictures[i]);
        *p = (Pictures){pictures, count};
        if (!prefetch_put(prefetch, p)) break;
    }
    return 0;
}

int eval_feed_open(EvalFeed **feed, const EvalFeedConfig *config, Error *err) {
    *feed = NULL;
    EvalFeed *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    const PrefetchConfig prefetch = {
        .make = make_pictures, .drop = drop_pictures, .user = f, .what = "pictures"};
    if (prefetch_open(&f->prefetch, &prefetch, err)) {
        free(f);
        return -1;
    }
    *feed = f;
    return 0;
}

int eval_feed_next(EvalFeed *f, EvalPicture **pictures, Error *err) {
    void *made;
    *pictures = NULL;
    TRY(prefetch_next(f->prefetch, &made, err));
    *pictures = ((Pictures *)made)->items;
    free(made);
    return 0;
}

void eval_feed_close(EvalFeed *f) {
    if (!f) return;
    prefetch_close(f->prefetch);
    free(f);
}
