#include "projector/model_fresh.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"

static void part_begin(Model *m, ModelPart *part, Part kind, Dtype stored, Dtype compute) {
    params_free(&part->params);
    part_sources_free(&part->sources);
    *part = (ModelPart){.present = true, .kind = kind, .stored = stored, .compute = compute};
    static const char *const names[] = {[PART_VISION] = "a fresh vision tower",
                                        [PART_LANGUAGE] = "a fresh language model",
                                        [PART_PROJECTOR] = "a fresh projector",
                                        [PART_LENGTH] = "a fresh length predictor"};
    part->path = names[kind];
    params_init(&part->params, m->device);
}

static int part_fill(ModelPart *part, FreshWeights fresh, Error *err) {
    if (fresh.empty) return 0;
    TRY(params_allocate(&part->params, fresh.dtype, err));
    params_initialise(&part->params, fresh.seed);
    return 0;
}

int model_fresh_vision(Model *m, const VitConfig *config, FreshWeights fresh, Error *err) {
    part_begin(m, &m->vision, PART_VISION, fresh.dtype,
               device_compute_dtype(m->device, fresh.dtype));
    TRY(vit_declare(&m->vit, config, &m->vision.params, err));
    m->tower = (Tower){.vit = &m->vit};
    m->parts.tower = &m->tower;
    return part_fill(&m->vision, fresh, err);
}

int model_fresh_language(Model *m, const XlmrConfig *config, FreshWeights fresh, Error *err) {
    part_begin(m, &m->language, PART_LANGUAGE, fresh.dtype,
               device_compute_dtype(m->device, fresh.dtype));
    TRY(xlmr_declare(&m->xlmr, config, &m->language.params, err));
    m->parts.language = language_of_xlmr(&m->xlmr);
    return part_fill(&m->language, fresh, err);
}

int model_fresh_projector(Model *m, ProjectorKind kind, FreshWeights fresh, Error *err) {
    part_begin(m, &m->projector, PART_PROJECTOR, fresh.dtype, m->vision.compute);
    TRY(projector_declare(&m->projector_model, kind, tower_width(&m->tower),
                          language_block(&m->parts.language)->width,
                          m->tower.net ? tower_feature_rows(&m->tower) : 0, &m->projector.params,
                          err));
    m->parts.projector = &m->projector_model;
    return part_fill(&m->projector, fresh, err);
}

int model_fresh_length(Model *m, int classes, FreshWeights fresh, Error *err) {
    part_begin(m, &m->length, PART_LENGTH, fresh.dtype, m->language.compute);
    TRY(length_declare(&m->length_model, &m->xlmr.config.block, classes, &m->length.params, err));
    m->parts.length = &m->length_model;
    return part_fill(&m->length, fresh, err);
}

/* ---- The scale of words. ---- */

/* Sum of squares of a tensor's row; the row is a host's, of any float type. */
static double row_squares(const Tensor *t, int64_t row, float *values) {
    int64_t width = t->shape[1];
    const char *from = (const char *)t->data + (size_t)(row * width) * dtype_size(t->dtype);
    double sum = 0;
    values_convert(values, DTYPE_F32, from, t->dtype, (size_t)width);
    for (int64_t i = 0; i < width; i++) sum += (double)values[i] * (double)values[i];
    return sum;
}

/* <s>, <pad>, </s>, <unk> and <mask>, and rows beyond the vocabulary; of other encoders those that
 * are never a word. */
static bool is_special(const Model *m, int64_t row) {
    if (!m->tokenizer) return !m->parts.language.llama && row < 4;
    if (!m->parts.language.llama && m->xlmr.config.kind != ENCODER_XLMR)
        return row >= tokenizer_size(m->tokenizer) || row == tokenizer_mask_id(m->tokenizer);
    if (!m->parts.language.llama) return row < 4 || row >= tokenizer_mask_id(m->tokenizer);
    const TokenizerSpecials *s = tokenizer_specials(m->tokenizer);
    return row >= tokenizer_size(m->tokenizer) || row == s->begin || row == s->end ||
           row == s->pad || row == s->unknown || row == s->mask || row == s->turn_end;
}

static void words_name(const Model *m, char *name, size_t size) {
    const LanguageModel *l = &m->parts.language;
    if (!l->llama)
        snprintf(name, size, "%s.weight", xlmr_words_name(m->xlmr.config.kind));
    else
        snprintf(name, size, "%s",
                 l->llama->config.naming == LLADA_NAMES ? "model.transformer.wte.weight"
                                                        : "model.embed_tokens.weight");
}

/* The root mean square of the word embeddings, special ones left out. Each row's sum has its own
 * place, so that the result does not depend on the number of threads. */
static int words_rms(const Model *m, double *rms, Error *err) {
    char name[96];
    words_name(m, name, sizeof name);
    const Param *p = params_find((Params *)&m->language.params, name);
    if (!p || !p->present || !dtype_is_float(p->value.dtype))
        return error_set(err,
                         "%s: no word embeddings of a float type, whose scale a fresh "
                         "projector's output gets",
                         m->language.path);
    const Tensor *t = &p->value;
    int64_t rows = t->shape[0], width = t->shape[1], counted = 0;
    double *sums = malloc((size_t)rows * sizeof *sums), sum = 0;
    if (!sums) return error_set(err, "out of memory for %lld rows", (long long)rows);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *values = malloc((size_t)width * sizeof *values);
        failed = !values;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) sums[r] = values ? row_squares(t, r, values) : 0;
        free(values);
    }
    for (int64_t r = 0; r < rows; r++)
        if (!is_special(m, r)) sum += sums[r], counted++;
    free(sums);
    if (failed) return error_set(err, "out of memory for rows of %lld values", (long long)width);
    *rms = counted ? sqrt(sum / (double)counted / (double)width) : 0;
    if (*rms > 0 && isfinite(*rms)) return 0;
    return error_set(err,
                     "%s: the word embeddings' root mean square is %g, a number above 0 "
                     "expected: damaged weights?",
                     m->language.path, *rms);
}

/* ---- Images to try it with. ---- */

enum { TRIAL_IMAGES = 4, TRIAL_BLOBS = 6 };

/* What a synthetic image is made of: colors at its corners, blobs of one color each, and noise. */
typedef struct Trial {
    double corners[4][3]; /* RGB, 0 to 255 */
    double x[TRIAL_BLOBS], y[TRIAL_BLOBS], radius[TRIAL_BLOBS], color[TRIAL_BLOBS][3];
    int blobs;
    double noise; /* its share of a pixel: 0 to 1 */
    uint64_t seed, stream;
} Trial;

/* Image 0 is a gradient, 1 has blobs, 2 is noise, 3 all of it. */
static Trial trial_make(uint64_t seed, int number) {
    static const double noise[TRIAL_IMAGES] = {0, 0, 1, 0.15};
    Trial t = {.blobs = number & 1 ? TRIAL_BLOBS : 0,
               .noise = noise[number],
               .seed = seed,
               .stream = random_stream(0x7472, (uint64_t)number, 0, 0)};
    uint64_t index = 0, stream = random_stream(0x7472, (uint64_t)number, 1, 0);
    for (int k = 0; k < 4; k++)
        for (int c = 0; c < 3; c++) t.corners[k][c] = 255 * random_uniform(seed, stream, index++);
    for (int b = 0; b < t.blobs; b++) {
        t.x[b] = random_uniform(seed, stream, index++);
        t.y[b] = random_uniform(seed, stream, index++);
        t.radius[b] = 0.05 + 0.2 * random_uniform(seed, stream, index++);
        for (int c = 0; c < 3; c++) t.color[b][c] = 255 * random_uniform(seed, stream, index++);
    }
    return t;
}

/* Color `c` at (x, y), each from 0 to 1. */
static double trial_color(const Trial *t, double x, double y, int c) {
    double value = (1 - y) * ((1 - x) * t->corners[0][c] + x * t->corners[1][c]) +
                   y * ((1 - x) * t->corners[2][c] + x * t->corners[3][c]);
    for (int b = 0; b < t->blobs; b++) {
        double dx = (x - t->x[b]) / t->radius[b], dy = (y - t->y[b]) / t->radius[b];
        double share = exp(-0.5 * (dx * dx + dy * dy));
        value += share * (t->color[b][c] - value);
    }
    return value;
}

static void trial_row(const Trial *t, uint8_t *row, int y, int side) {
    for (int x = 0; x < side; x++)
        for (int c = 0; c < 3; c++) {
            double value = trial_color(t, (x + 0.5) / side, (y + 0.5) / side, c);
            uint64_t index = 3 * ((uint64_t)y * (uint64_t)side + (uint64_t)x) + (uint64_t)c;
            double noise = t->noise > 0 ? 255 * random_uniform(t->seed, t->stream, index) : 0;
            row[3 * x + c] = (uint8_t)lround((1 - t->noise) * value + t->noise * noise);
        }
}

/* ---- A projector's output. ---- */

/* A tower and a projector of the model, prepared a second time, so that the model's own parts are
 * still free to be prepared for training. */
typedef struct Seeing {
    Tower tower; /* one of the next two */
    Vit vit;
    EfficientNet net;
    Projector projector;
    Params tower_params, projector_params;
    Multimodal parts;
} Seeing;

/* The same values: both tables declare the same parameters in the same order. */
static void share_values(Params *to, const Params *from) {
    for (int i = 0; i < to->count; i++)
        to->items[i].value = from->items[i].value, to->items[i].present = from->items[i].present;
}

/* On failure seeing_close is due, too. */
static int seeing_open(Seeing *s, const Model *m, Error *err) {
    const Projector *p = &m->projector_model;
    *s = (Seeing){.parts = m->parts};
    params_init(&s->tower_params, m->device);
    params_init(&s->projector_params, m->device);
    if (m->tower.net) {
        TRY(efficientnet_declare(&s->net, &m->net.config, &s->tower_params, err));
        s->tower.net = &s->net;
    } else {
        TRY(vit_declare(&s->vit, &m->vit.config, &s->tower_params, err));
        s->tower.vit = &s->vit;
    }
    share_values(&s->tower_params, &m->vision.params);
    TRY(params_prepare(&s->tower_params, m->vision.compute, NULL, NULL, err));
    TRY(projector_declare(&s->projector, p->kind, p->in, p->out, p->rows, &s->projector_params,
                          err));
    share_values(&s->projector_params, &m->projector.params);
    TRY(params_prepare(&s->projector_params, m->vision.compute, NULL, NULL, err));
    s->parts.tower = &s->tower, s->parts.projector = &s->projector;
    if (s->parts.preprocess.size) return 0;
    s->parts.preprocess = preprocess_clip_default(); /* a fresh tower's */
    s->parts.preprocess.size = tower_image_size(&m->tower);
    return 0;
}

static void seeing_close(Seeing *s) {
    params_free(&s->projector_params);
    params_free(&s->tower_params);
    vit_free(&s->vit), efficientnet_free(&s->net);
}

/* Adds the squares of the image tokens of one trial image. */
static int add_squares(const Seeing *s, const Trial *t, double *sum, int64_t *count, Error *err) {
    int side = s->parts.preprocess.size;
    Image image = {side, side, malloc(3 * (size_t)side * (size_t)side)};
    if (!image.pixels) return error_set(err, "out of memory for an image of %d pixels", side);
    for (int y = 0; y < side; y++)
        trial_row(t, image.pixels + 3 * (size_t)y * (size_t)side, y, side);
    Tensor tokens;
    int status = multimodal_encode(&s->parts, &image, 1, &tokens, err);
    free(image.pixels);
    if (status) return -1;
    int64_t n = tensor_count(tokens);
    float *values = malloc((size_t)n * sizeof *values);
    status = values
                 ? device_download(s->parts.device, values, tokens.data, tensor_bytes(tokens), err)
                 : error_set(err, "out of memory for image tokens");
    for (int64_t i = 0; i < n && status == 0; i++) *sum += (double)values[i] * (double)values[i];
    *count += n;
    free(values);
    device_free(s->parts.device, tokens.data);
    return status;
}

/* The root mean square of what a model's projector makes of the trial images. */
static int output_rms(const Model *m, uint64_t seed, double *rms, Error *err) {
    Seeing s;
    double sum = 0;
    int64_t count = 0;
    int status = seeing_open(&s, m, err);
    for (int i = 0; i < TRIAL_IMAGES && status == 0; i++) {
        Trial t = trial_make(seed, i);
        status = add_squares(&s, &t, &sum, &count, err);
    }
    seeing_close(&s);
    if (status) return error_context(err, "to scale a fresh projector");
    *rms = sqrt(sum / (double)count);
    if (*rms > 0 && isfinite(*rms)) return 0;
    return error_set(
        err,
        "%s: the root mean square of a fresh projector's output for its features is %g, a "
        "number above 0 expected: damaged weights?",
        m->vision.path, *rms);
}

/* Multiplies the values of a fresh parameter. */
static void param_scale(const Param *p, double factor) {
    enum { AT_ONCE = 1024 };
    float values[AT_ONCE];
    int64_t n = tensor_count(p->value);
    for (int64_t first = 0; first < n; first += AT_ONCE) {
        size_t part = (size_t)(n - first < AT_ONCE ? n - first : AT_ONCE);
        char *at = (char *)p->value.data + (size_t)first * dtype_size(p->value.dtype);
        values_convert(values, DTYPE_F32, at, p->value.dtype, part);
        for (size_t i = 0; i < part; i++) values[i] = (float)((double)values[i] * factor);
        values_convert(at, p->value.dtype, values, DTYPE_F32, part);
    }
}

int model_fresh_projector_scale(Model *m, uint64_t seed, Error *err) {
    const Projector *p = &m->projector_model;
    const Tensor *last = p->kind == PROJECTOR_LINEAR ? &p->w1 : &p->w2;
    double words, output;
    TRY(words_rms(m, &words, err));
    TRY(output_rms(m, seed, &output, err));
    for (int i = 0; i < m->projector.params.count; i++)
        if (m->projector.params.items[i].slot == last)
            param_scale(&m->projector.params.items[i], words / output);
    return 0;
}
