#include "projector/answer_inspect.h"

#include <stdlib.h>
#include <string.h>

#include "language/canvas_cache.h"

void answer_inspection_free(AnswerInspection *inspection) {
    free(inspection->step_canvas), free(inspection->written), free(inspection->alternatives);
    free(inspection->maps), free(inspection->layer_maps), free(inspection->answer_map);
    *inspection = (AnswerInspection){0};
}

const Proposal *answer_inspection_top_k(const AnswerInspection *inspection, int step,
                                        int position) {
    if (!inspection->alternatives || step < 1 || step > inspection->steps || position < 0 ||
        position >= inspection->length || inspection->step_canvas[step - 1] < 0)
        return NULL;
    size_t row =
        (size_t)inspection->step_canvas[step - 1] * (size_t)inspection->length + (size_t)position;
    return inspection->alternatives + row * (size_t)inspection->top_k;
}

/* All canvases to inspect, of all hypotheses, and where their rows' results go. */
typedef struct Work {
    const InspectOptions *options;
    const DecodeOptions *decode;
    int32_t mask_id;
    int image_rows, layers; /* of the model; layers 0 unless requested */
    DecodeCanvas *canvases;
    int32_t **tokens; /* each hypothesis's distinct canvases, end to end */
    InspectRow *rows;
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
        InspectRow *more = realloc(w->rows, n * sizeof *more);
        if (!more) return error_set(err, "out of memory for %zu rows to look at", n);
        w->rows = more, w->row_capacity = n;
    }
    return 0;
}

/* ---- What happened in a hypothesis. ---- */

static const TraceCell *cells_after(const DecodeResult *r, int step) {
    return r->trace + (size_t)(step - 1) * (size_t)r->length;
}

/* The step in which each final token was written; a fixed one counts for the first. */
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

/* The distinct canvases that the steps started from, into *tokens [canvases, length]. `fixed` is
 * the spec's. */
static int find_canvases(AnswerInspection *inspection, int32_t **tokens, const int32_t *fixed,
                         const DecodeResult *r, const Work *w, Error *err) {
    const int32_t mask = w->mask_id;
    size_t n = (size_t)r->length;
    CanvasCache cache;
    TRY(canvas_cache_take(&cache, (size_t)r->steps, (size_t)r->steps * n, err));
    int32_t *canvas = malloc(n * sizeof *canvas);
    for (int s = 1; canvas && s <= r->steps; s++) {
        bool complete = true, fresh;
        for (size_t i = 0; i < n; i++) {
            canvas[i] = s > 1 ? cells_after(r, s - 1)[i].token : fixed ? fixed[i] : mask;
            complete &= canvas[i] != mask;
        }
        inspection->step_canvas[s - 1] = -1;
        if (complete && decode_settled(w->decode, r->open, s, r->steps)) continue;
        inspection->step_canvas[s - 1] =
            (int)canvas_cache_find(&cache, 0, canvas, r->length, &fresh);
    }
    inspection->canvases = (int)cache.count;
    *tokens = canvas ? malloc((cache.used + 1) * sizeof **tokens) : NULL;
    /* A canvas cache's canvases are end to end, all of one length. */
    if (*tokens) memcpy(*tokens, cache.tokens, cache.used * sizeof **tokens);
    free(canvas);
    canvas_cache_free(&cache);
    return *tokens ? 0 : error_set(err, "out of memory for the canvases of an answer");
}

static int inspect_take(AnswerInspection *inspection, const Work *w, int grid, Error *err) {
    size_t n = (size_t)inspection->length, rows = (size_t)w->image_rows;
    bool complete = true;
    if (w->options->top_k > 0) {
        inspection->top_k = w->options->top_k;
        inspection->alternatives =
            calloc((size_t)inspection->canvases * n * (size_t)inspection->top_k,
                   sizeof *inspection->alternatives);
        complete &= inspection->alternatives != NULL;
    }
    if (grid > 0) {
        inspection->grid = grid, inspection->layers = w->layers;
        inspection->maps = calloc(n * rows, sizeof *inspection->maps);
        inspection->answer_map = calloc(rows, sizeof *inspection->answer_map);
        complete &= inspection->maps && inspection->answer_map;
        if (w->layers) {
            inspection->layer_maps =
                calloc(n * rows * (size_t)w->layers, sizeof *inspection->layer_maps);
            complete &= inspection->layer_maps != NULL;
        }
    }
    return complete ? 0 : error_set(err, "out of memory for the look at an answer");
}

/* Adds the canvases of one hypothesis that are needed to the list. */
static int work_add(Work *w, AnswerInspection *inspection, const DecodeSpec *spec,
                    const int32_t *tokens, Error *err) {
    size_t n = (size_t)inspection->length, k = (size_t)inspection->top_k;
    size_t map = (size_t)w->image_rows;
    TRY(work_grow(w, (size_t)inspection->canvases, (size_t)inspection->canvases * n, err));
    for (int c = 0; c < inspection->canvases; c++) {
        InspectRow *rows = w->rows + w->row_count;
        bool wanted = k > 0;
        for (size_t i = 0; i < n; i++) {
            rows[i] = (InspectRow){
                .alternatives = k ? inspection->alternatives + ((size_t)c * n + i) * k : NULL};
            if (!inspection->grid || !inspection->written[i] ||
                inspection->step_canvas[inspection->written[i] - 1] != c)
                continue;
            rows[i].map = inspection->maps + i * map;
            if (inspection->layers)
                rows[i].layers = inspection->layer_maps + i * (size_t)inspection->layers * map;
            wanted = true;
        }
        if (!wanted) continue;
        w->canvases[w->count++] = (DecodeCanvas){.request = spec->request,
                                                 .length = inspection->length,
                                                 .tokens = tokens + (size_t)c * n};
        w->row_count += n;
    }
    return 0;
}

/* Drops the values before the patches from maps of `rows` values each. */
static void maps_trim(float *maps, size_t count, size_t rows, size_t drop) {
    for (size_t m = 0; drop && m < count; m++)
        memmove(maps + m * (rows - drop), maps + m * rows + drop, (rows - drop) * sizeof *maps);
}

static void inspect_finish(AnswerInspection *inspection, int class_rows) {
    size_t n = (size_t)inspection->length,
           patches = (size_t)inspection->grid * (size_t)inspection->grid;
    size_t rows = patches + (size_t)class_rows;
    if (!inspection->grid) return;
    maps_trim(inspection->maps, n, rows, (size_t)class_rows);
    if (inspection->layers)
        maps_trim(inspection->layer_maps, n * (size_t)inspection->layers, rows, (size_t)class_rows);
    for (size_t p = 0; p < patches; p++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += inspection->maps[i * patches + p];
        inspection->answer_map[p] = (float)(sum / (double)n);
    }
}

static int inspect_prepare(Work *w, AnswerInspection *inspection, int32_t **tokens,
                           const DecodeSpec *spec, const DecodeResult *result, int grid,
                           Error *err) {
    *inspection = (AnswerInspection){.length = result->length, .steps = result->steps};
    inspection->written = calloc((size_t)result->length, sizeof *inspection->written);
    inspection->step_canvas = calloc((size_t)result->steps, sizeof *inspection->step_canvas);
    if (!inspection->written || !inspection->step_canvas)
        return error_set(err, "out of memory for the look at an answer");
    find_written(inspection->written, result, w->mask_id);
    TRY(find_canvases(inspection, tokens, spec->fixed, result, w, err));
    TRY(inspect_take(inspection, w, grid, err));
    return work_add(w, inspection, spec, *tokens, err);
}

int answers_inspect(AnswerInspection *inspections, Infill *infill, const DecodeSpec *specs,
                    const DecodeResult *results, const bool *wanted, int count, int32_t mask_id,
                    int grid, int class_rows, const DecodeOptions *decode,
                    const InspectOptions *options, Error *err) {
    Work w = {.options = options,
              .decode = decode,
              .mask_id = mask_id,
              .image_rows = grid * grid + class_rows,
              .layers = options->attention && options->layers ? infill_layers(infill) : 0,
              .tokens = calloc((size_t)count + 1, sizeof *w.tokens)};
    int status = w.tokens ? 0 : error_set(err, "out of memory for %d looks", count);
    memset(inspections, 0, (size_t)count * sizeof *inspections);
    for (int h = 0; h < count && status == 0; h++) {
        if (wanted && !wanted[h]) continue;
        int rows = options->attention ? infill_image_rows(infill, specs[h].request) : 0;
        if (rows > 0 && rows != w.image_rows)
            status = error_set(err, "%d rows of an image, but %d x %d patches and %d more", rows,
                               grid, grid, class_rows);
        else
            status = inspect_prepare(&w, &inspections[h], &w.tokens[h], &specs[h], &results[h],
                                     rows > 0 ? grid : 0, err);
    }
    if (status == 0 && w.count > 0)
        status = infill_inspect(infill, w.canvases, (int)w.count, w.rows, options->top_k, err);
    for (int h = 0; h < count && status == 0; h++) inspect_finish(&inspections[h], class_rows);
    for (int h = 0; h < count && status; h++) answer_inspection_free(&inspections[h]);
    for (int h = 0; h < count && w.tokens; h++) free(w.tokens[h]);
    free(w.tokens), free(w.canvases), free(w.rows);
    return status;
}
