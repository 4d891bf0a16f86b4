#include "apps/eval/loader.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/sets/prefetch.h"
#include "data/files/path.h"

struct EvalLoader {
    EvalLoaderConfig config;
    Prefetch *prefetch; /* of Images */
};

/* Those of one batch. */
typedef struct Images {
    EvalImage *items; /* [count] */
    int64_t count;
} Images;

void eval_images_free(EvalImage *images, int64_t count) {
    for (int64_t i = 0; i < count && images; i++) image_free(&images[i].image);
    free(images);
}

static void read_image(const EvalLoaderConfig *c, const char *name, EvalImage *p) {
    char *path = path_join(c->folder, name, &p->bad);
    int status = path ? preprocess_read(&p->image, &p->width, &p->height, path, &c->preprocess,
                                        NULL, &p->bad)
                      : -1;
    free(path);
    if (status == 0) p->bad.text[0] = 0;
}

static void drop_images(void *thing) {
    Images *p = thing;
    eval_images_free(p->items, p->count);
    free(p);
}

static int make_images(void *user, Prefetch *prefetch, Error *err) {
    const EvalLoaderConfig *c = &((EvalLoader *)user)->config;
    int64_t first = 0;
    for (int64_t b = 0; b < c->batches; first = c->ends[b++]) {
        int64_t count = c->ends[b] - first;
        Images *p = calloc(1, sizeof *p);
        EvalImage *images = calloc((size_t)count + 1, sizeof *images);
        if (!p || !images) {
            free(p), free(images);
            return error_set(err, "out of memory for %lld images", (long long)count);
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
        for (int64_t i = 0; i < count; i++)
            if (!prefetch_stopped(prefetch)) read_image(c, c->names[first + i], &images[i]);
        *p = (Images){images, count};
        if (!prefetch_put(prefetch, p)) break;
    }
    return 0;
}

int eval_loader_open(EvalLoader **loader, const EvalLoaderConfig *config, Error *err) {
    *loader = NULL;
    EvalLoader *f = calloc(1, sizeof *f);
    if (!f) return error_set(err, "out of memory");
    f->config = *config;
    const PrefetchConfig prefetch = {
        .make = make_images, .drop = drop_images, .user = f, .what = "images"};
    if (prefetch_open(&f->prefetch, &prefetch, err)) {
        free(f);
        return -1;
    }
    *loader = f;
    return 0;
}

int eval_loader_next(EvalLoader *f, EvalImage **images, Error *err) {
    void *made;
    *images = NULL;
    TRY(prefetch_next(f->prefetch, &made, err));
    *images = ((Images *)made)->items;
    free(made);
    return 0;
}

void eval_loader_close(EvalLoader *f) {
    if (!f) return;
    prefetch_close(f->prefetch);
    free(f);
}
