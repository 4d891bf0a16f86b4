#include "projector/answer_look.h"

#include <stdlib.h>
#include <string.h>

#include "language/canvas_cache.h"

void answer_look_free(AnswerLook *look) {
    free(look->step_canvas), free(look->written), free(look->runners);
    free(look->maps), free(look->layer_maps), free(look->answer_map);
    *look = (AnswerLook){0};
}

const Proposal *answer_look_runners(const AnswerLook *look, int step, int position) {
    if (!look->runners || step < 1 || step > look->steps || position < 0 ||
        position >= look->length || look->step_canvas[step - 1] < 0)
        return NULL;
    size_t row = (size_t)look->step_canvas[step - 1] * (size_t)look->length + (size_t)position;
    return look->runners + row * (size_t)look->runners_up;
}

/* All canvases that are to be looked into, of all hypotheses, and where their rows' results go. */
typedef struct Work {
    const LookOptions *options;
    const DecodeOptions *decode;
    int32_t mask_id;
    int picture_rows, layers; /* of the model; layers 0 unless they are wanted */
    DecodeCanvas *canvases;
    int32_t **tokens; /* each hypothesis's different canvases, end to end */
    LookRow *rows;
    size_t count, capacity, row_count, row_capacity;
} Work;

static int work_grow(Work *w, size_t canvases, size_t rows, Error *err) {
    if (w->count + canvases > w->capacity) {
        size_t n = 2 * w->capacity + canvases;
        DecodeCanvas *more = realloc(w->canvases, n * sizeof *more);
        if (!more) return error_set(err, "out of memory for %zu canvases to look into", n);
        w->canvases = more, w->capacity = n;
    }
    if (w->row_count + rows > w->row_capacity) {
        size_t n = 2 * w->row_capacity + rows;
        LookRow *more = realloc(w->rows, n * sizeof *more);
        if (!more) return error_set(err, "out of memory for %zu rows to look at", n);
        w->rows = more, w->row_capacity = n;
    }
    return 0;
}

/* ---- What happened in a hypothesis. ---- */

static const TraceCell *cells_after(const DecodeResult *r, int step) {
    return r->trace + (size_t)(step - 1) * (size_t)r->length;
}

/* The step in which each word that stands in the end was written. */
static void find_written(int *written, const DecodeResult *r, int32_t mask_id) {
    for (int i = 0; i < r->length; i++) {
        int32_t before = mask_id;
        for (int s = 1; s <= r->steps; s++) {
            int32_t token = cells_after(r, s)[i].token;
            if (token != before) written[i] = s;
            before = token;
        }
        if (before == mask_id) written[i] = 0;
    }
}

/* The different canvases that the steps started from, into *tokens [canvases, length]. */
static int find_canvases(AnswerLook *look, int32_t **tokens, const DecodeResult *r, const Work *w,
                         Error *err) {
    size_t n = (size_t)r->length;
    CanvasCache cache;
    TRY(canvas_cache_take(&cache, (size_t)r->steps, (size_t)r->steps * n, err));
    int32_t *canvas = malloc(n * sizeof *canvas);
    for (int s = 1; canvas && s <= r->steps; s++) {
        bool complete = true, fresh;
        for (size_t i = 0; i < n; i++) {
            canvas[i] = s == 1 ? w->mask_id : cells_after(r, s - 1)[i].token;
            complete &= canvas[i] != w->mask_id;
        }
        look->step_canvas[s - 1] = -1;
        if (complete && decode_settled(w->decode, r->length, s, r->steps)) continue;
        look->step_canvas[s - 1] = (int)canvas_cache_find(&cache, 0, canvas, r->length, &fresh);
    }
    look->canvases = (int)cache.count;
    *tokens = canvas ? malloc((cache.used + 1) * sizeof **tokens) : NULL;
    /* A cache's canvases lie end to end, and all of these have one length. */
    if (*tokens) memcpy(*tokens, cache.tokens, cache.used * sizeof **tokens);
    free(canvas);
    canvas_cache_free(&cache);
    return *tokens ? 0 : error_set(err, "out of memory for the canvases of an answer");
}

static int look_take(AnswerLook *look, const Work *w, int grid, Error *err) {
    size_t n = (size_t)look->length, rows = (size_t)w->picture_rows;
    bool complete = true;
    if (w->options->runners_up > 0) {
        look->runners_up = w->options->runners_up;
        look->runners =
            calloc((size_t)look->canvases * n * (size_t)look->runners_up, sizeof *look->runners);
        complete &= look->runners != NULL;
    }
    if (grid > 0) {
        look->grid = grid, look->layers = w->layers;
        look->maps = calloc(n * rows, sizeof *look->maps);
        look->answer_map = calloc(rows, sizeof *look->answer_map);
        complete &= look->maps && look->answer_map;
        if (w->layers) {
            look->layer_maps = calloc(n * rows * (size_t)w->layers, sizeof *look->layer_maps);
            complete &= look->layer_maps != NULL;
        }
    }
    return complete ? 0 : error_set(err, "out of memory for the look at an answer");
}

/* Puts the canvases of one hypothesis that have something to tell on the list. */
static int work_add(Work *w, AnswerLook *look, const DecodeSpec *spec, const int32_t *tokens,
                    Error *err) {
    size_t n = (size_t)look->length, k = (size_t)look->runners_up;
    size_t map = (size_t)w->picture_rows;
    TRY(work_grow(w, (size_t)look->canvases, (size_t)look->canvases * n, err));
    for (int c = 0; c < look->canvases; c++) {
        LookRow *rows = w->rows + w->row_count;
        bool wanted = k > 0;
        for (size_t i = 0; i < n; i++) {
            rows[i] = (LookRow){.runners = k ? look->runners + ((size_t)c * n + i) * k : NULL};
            if (!look->grid || !look->written[i] || look->step_canvas[look->written[i] - 1] != c)
                continue;
            rows[i].map = look->maps + i * map;
            if (look->layers) rows[i].layers = look->layer_maps + i * (size_t)look->layers * map;
            wanted = true;
        }
        if (!wanted) continue;
        w->canvases[w->count++] = (DecodeCanvas){
            .request = spec->request, .length = look->length, .tokens = tokens + (size_t)c * n};
        w->row_count += n;
    }
    return 0;
}

/* Drops what stands in front of the patches from maps of `rows` numbers each. */
static void maps_trim(float *maps, size_t count, size_t rows, size_t drop) {
    for (size_t m = 0; drop && m < count; m++)
        memmove(maps + m * (rows - drop), maps + m * rows + drop, (rows - drop) * sizeof *maps);
}

static void look_finish(AnswerLook *look, int class_rows) {
    size_t n = (size_t)look->length, patches = (size_t)look->grid * (size_t)look->grid;
    size_t rows = patches + (size_t)class_rows;
    if (!look->grid) return;
    maps_trim(look->maps, n, rows, (size_t)class_rows);
    if (look->layers)
        maps_trim(look->layer_maps, n * (size_t)look->layers, rows, (size_t)class_rows);
    for (size_t p = 0; p < patches; p++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += look->maps[i * patches + p];
        look->answer_map[p] = (float)(sum / (double)n);
    }
}

static int look_prepare(Work *w, AnswerLook *look, int32_t **tokens, const DecodeSpec *spec,
                        const DecodeResult *result, int grid, Error *err) {
    *look = (AnswerLook){.length = result->length, .steps = result->steps};
    look->written = calloc((size_t)result->length, sizeof *look->written);
    look->step_canvas = calloc((size_t)result->steps, sizeof *look->step_canvas);
    if (!look->written || !look->step_canvas)
        return error_set(err, "out of memory for the look at an answer");
    find_written(look->written, result, w->mask_id);
    TRY(find_canvases(look, tokens, result, w, err));
    TRY(look_take(look, w, grid, err));
    return work_add(w, look, spec, *tokens, err);
}

int answer_looks_make(AnswerLook *looks, Infill *infill, const DecodeSpec *specs,
                      const DecodeResult *results, const bool *wanted, int count, int32_t mask_id,
                      int grid, int class_rows, const DecodeOptions *decode,
                      const LookOptions *options, Error *err) {
    Work w = {.options = options,
              .decode = decode,
              .mask_id = mask_id,
              .picture_rows = grid * grid + class_rows,
              .layers = options->attention && options->layers ? infill_layers(infill) : 0,
              .tokens = calloc((size_t)count + 1, sizeof *w.tokens)};
    int status = w.tokens ? 0 : error_set(err, "out of memory for %d looks", count);
    memset(looks, 0, (size_t)count * sizeof *looks);
    for (int h = 0; h < count && status == 0; h++) {
        if (wanted && !wanted[h]) continue;
        int rows = options->attention ? infill_picture_rows(infill, specs[h].request) : 0;
        if (rows > 0 && rows != w.picture_rows)
            status = error_set(err, "%d rows of an image, but %d x %d patches and %d more", rows,
                               grid, grid, class_rows);
        else
            status = look_prepare(&w, &looks[h], &w.tokens[h], &specs[h], &results[h],
                                  rows > 0 ? grid : 0, err);
    }
    if (status == 0 && w.count > 0)
        status = infill_look(infill, w.canvases, (int)w.count, w.rows, options->runners_up, err);
    for (int h = 0; h < count && status == 0; h++) look_finish(&looks[h], class_rows);
    for (int h = 0; h < count && status; h++) answer_look_free(&looks[h]);
    for (int h = 0; h < count && w.tokens; h++) free(w.tokens[h]);
    free(w.tokens), free(w.canvases), free(w.rows);
    return status;
}
