#include "apps/train/loader_scenes.h"

#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"

/* One image while its step is built. */
typedef struct Loaded {
    float *pixels; /* NULL: unusable */
    int32_t *labels;
    const char *kind; /* of the reason, if unusable */
    Error bad;
} Loaded;

static int grid_patches(const LoaderConfig *c) {
    return c->grid * c->grid;
}

/* The patch centers in the image's own pixels. */
static int label_scene(const LoaderConfig *c, const Scene *scene, Loaded *l, Error *err) {
    PreprocessMap map;
    double step = (double)c->preprocess.size / c->grid;
    TRY(preprocess_map(&map, scene->width, scene->height, &c->preprocess, err));
    SceneGrid grid = {.side = c->grid,
                      .left = map.left,
                      .top = map.top,
                      .step_x = step * map.scale_x,
                      .step_y = step * map.scale_y};
    l->labels = malloc((size_t)grid_patches(c) * sizeof *l->labels);
    if (!l->labels) return error_set(err, "out of memory for an image's classes");
    scene_labels(l->labels, c->dataset->scenes, scene, &grid);
    return 0;
}

static int load_scene(const LoaderConfig *c, int64_t unit, Loaded *l, Error *err) {
    const SceneGraphs *graphs = c->dataset->scenes;
    const Scene *scene = &graphs->scenes[c->dataset->units[unit].record];
    int width, height;
    l->kind = "unreadable image";
    char *path = path_join(graphs->images, scene->image, err);
    if (!path) return -1;
    int status = loader_image(c, path, &l->pixels, &width, &height, &l->bad, err);
    bool same = status == 0 && l->pixels && width == scene->width && height == scene->height;
    if (status == 0 && l->pixels && !same) {
        l->kind = "image of another size";
        error_set(&l->bad, "%s has %dx%d pixels, but its boxes are for %dx%d", path, width, height,
                  scene->width, scene->height);
    }
    free(path);
    if (same) return label_scene(c, scene, l, err);
    if (status || !l->pixels) return status;
    free(l->pixels);
    l->pixels = NULL;
    return 0;
}

static int load_all(const LoaderConfig *c, const int64_t *units, int64_t count, Loaded *loaded,
                    Error *err) {
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads > 0 ? c->threads : 1)
    for (int64_t i = 0; i < count; i++) {
        Error mine = {{0}};
        if (load_scene(c, units[i], &loaded[i], &mine)) {
#pragma omp critical(loader_scenes)
            if (!failed) {
                failed = 1;
                if (err) *err = mine;
            }
        }
    }
    return failed ? -1 : 0;
}

/* ---- Packing. ---- */

static int pass_build(const LoaderConfig *c, const Loaded *loaded, int images, float weight,
                      TrainBatch *pass, Error *err) {
    size_t patches = (size_t)grid_patches(c), count = (size_t)images * patches;
    size_t pixels = 3 * (size_t)c->preprocess.size * (size_t)c->preprocess.size;
    *pass = (TrainBatch){.tokens = images * ((int)patches + 1),
                         .images = images,
                         .targets = (int)count,
                         .smoothing = c->packing.noise.label_smoothing};
    pass->pixels = malloc((size_t)images * pixels * sizeof *pass->pixels);
    pass->target_ids = malloc(count * sizeof *pass->target_ids);
    pass->weights = malloc(count * sizeof *pass->weights);
    if (!pass->pixels || !pass->target_ids || !pass->weights)
        return error_set(err, "out of memory for %d images", images);
    for (size_t i = 0; i < (size_t)images; i++) {
        memcpy(pass->pixels + i * pixels, loaded[i].pixels, pixels * sizeof *pass->pixels);
        memcpy(pass->target_ids + i * patches, loaded[i].labels,
               patches * sizeof *pass->target_ids);
    }
    for (size_t i = 0; i < count; i++) pass->weights[i] = weight;
    return 0;
}

static int step_pack(const LoaderConfig *c, const Loaded *loaded, int count, LoaderStep *step,
                     Error *err) {
    int patches = grid_patches(c), most = c->pass.images > 0 ? c->pass.images : 1;
    step->passes = calloc((size_t)count + 1, sizeof *step->passes);
    if (!step->passes) return error_set(err, "out of memory for a training step");
    for (int i = 0; i < count; i++)
        for (int p = 0; p < patches; p++) step->targets += loaded[i].labels[p] >= 0;
    step->parts = step->targets, step->divisor = (double)step->targets;
    if (!step->targets) return 0; /* held-out images with unknown classes only */
    for (int first = 0; first < count; first += most) {
        int images = count - first < most ? count - first : most;
        TrainBatch *pass = &step->passes[step->pass_count++];
        TRY(pass_build(c, loaded + first, images, (float)(1.0 / (double)step->targets), pass, err));
        step->rows += pass->tokens;
        step->images += images;
    }
    return 0;
}

int loader_make_scenes(const LoaderConfig *c, const BatchPlan *plan, int64_t epoch, int64_t index,
                       LoaderStep *step, Error *err) {
    int64_t first, end;
    loader_units(c, plan, index, &first, &end);
    const int64_t count = end - first;
    *step = (LoaderStep){.epoch = epoch, .index = index, .steps = plan->steps};
    Loaded *loaded = calloc((size_t)count + 1, sizeof *loaded);
    int status = loaded ? load_all(c, plan->order + first, count, loaded, err)
                        : error_set(err, "out of memory for a training step");
    int used = 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        if (!loaded[i].pixels) {
            loader_count_bad(c->dataset, plan->order[first + i], &step->skipped, loaded[i].kind,
                             loaded[i].bad.text);
            continue;
        }
        Loaded good = loaded[i];
        loaded[i] = (Loaded){0};
        loaded[used++] = good;
    }
    step->sequences = used, step->tokens = (int64_t)used * grid_patches(c);
    if (status == 0) status = step_pack(c, loaded, used, step, err);
    for (int64_t i = 0; loaded && i < count; i++) free(loaded[i].pixels), free(loaded[i].labels);
    free(loaded);
    if (status) loader_step_free(step);
    return status;
}
