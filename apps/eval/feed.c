#include "apps/eval/feed.h"

#include <stdio.h>
#include <stdlib.h>

#include "apps/ahead.h"
#include "data/path.h"

struct EvalFeed {
    EvalFeedConfig config;
    Ahead *ahead; /* of Pictures */
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
    Image image;
    char *path = path_join(c->folder, name, &p->bad);
    int status = path ? image_read(&image, path, NULL, &p->bad) : -1;
    free(path);
    if (status) return;
    p->width = image.width, p->height = image.height;
    if (preprocess_crop(&p->image, &image, &c->preprocess, &p->bad))
        error_context(&p->bad, "%s", name);
    else
        p->bad.text[0] = 0;
    image_free(&image);
}

static void drop_pictures(void *thing) {
    Pictures *p = thing;
    eval_pictures_free(p->items, p->count);
    free(p);
}

static int make_pictures(void *user, Ahead *ahead, Error *err) {
    const EvalFeedConfig *c = &((EvalFeed *)user)->config;
    int64_t first = 0;
    for (int64_t b = 0; b < c->batches; first = c->ends[b++]) {
        int64_t count = c->ends[b] - first;
        Pictures *p = calloc(1, sizeof *p);
        EvalPicture *pictures = calloc((size_t)count + 1, sizeof *pictures);
        if (!p || !pictures) {
            free(p), free(pictures);
            return error_set(err, "out of memory for %lld pictures", (long long)count);
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
        for (int64_t i = 0; i < count; i++)
            if (!ahead_stopped(ahead)) picture_read(c, c->names[first + i], &pictures[i]);
        *p = (Pictures){pictures, count};
        if (!ahead_put(ahead, p)) break;
    }
    return 0;
}

int eval_feed_open(EvalFeed **feed, const EvalFeedConfig *config, Error *err) {
    *feed = NULL;
    EvalFeed *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    const AheadConfig ahead = {
        .make = make_pictures, .drop = drop_pictures, .user = f, .what = "pictures"};
    if (ahead_open(&f->ahead, &ahead, err)) {
        free(f);
        return -1;
    }
    *feed = f;
    return 0;
}

int eval_feed_next(EvalFeed *f, EvalPicture **pictures, Error *err) {
    void *made;
    *pictures = NULL;
    TRY(ahead_next(f->ahead, &made, err));
    *pictures = ((Pictures *)made)->items;
    free(made);
    return 0;
}

void eval_feed_close(EvalFeed *f) {
    if (!f) return;
    ahead_close(f->ahead);
    free(f);
}
