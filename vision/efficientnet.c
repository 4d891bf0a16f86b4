#include "vision/efficientnet.h"
#include "kernels/int8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Images that are computed together: a few on a CPU, whose caches the activations of many leave. */
enum { TOGETHER_CPU = 4, TOGETHER_GPU = 64 };

/* What the layers compute in, whatever the type of the features: some fifty layers that round to
 * bf16 change the features by 3 to 4 % (NOTES.md). */
static const Dtype LAYERS = DTYPE_F32;

typedef enum LayerKind { LAYER_STEM, LAYER_WIDEN, LAYER_DEPTHWISE, LAYER_NARROW, LAYER_HEAD } Kind;

struct EfficientNetLayer {
    Kind kind;
    bool skip; /* its result is added to the block's input */
    Conv2d conv;
    int param; /* its weight's index in the table; then gamma, beta, mean, variance */
    struct Packed *packed;
    Tensor bias;
};

static int64_t places_of(const EfficientNetLayer *l) {
    return (int64_t)conv2d_places(&l->conv, l->conv.height) *
           conv2d_places(&l->conv, l->conv.width);
}

/* ---- The table. ---- */

static int config_check(const EfficientNetConfig *c, Error *err) {
    enum { SIDE = 1 << 14, CHANNELS = 1 << 14, KERNEL = 31 };
    if (c->image_size < 1 || c->image_size > SIDE)
        return error_set(err, "vision tower: image size %d, expected 1 to %d", c->image_size, SIDE);
    if (c->count < 1 || c->count > EFFICIENTNET_BLOCKS)
        return error_set(err, "vision tower: %d blocks, expected 1 to %d", c->count,
                         EFFICIENTNET_BLOCKS);
    if (c->stem < 1 || c->stem > CHANNELS || c->width < 1 || c->width > CHANNELS)
        return error_set(err,
                         "vision tower: %d channels at the start and %d at the end, expected 1 "
                         "to %d",
                         c->stem, c->width, CHANNELS);
    if (c->stem_kernel < 1 || c->stem_kernel > KERNEL)
        return error_set(err, "vision tower: a first filter of side %d, expected 1 to %d",
                         c->stem_kernel, KERNEL);
    if (!(c->eps >= 0 && c->eps < 1))
        return error_set(err, "vision tower: batch norm epsilon %g, expected a small number",
                         (double)c->eps);
    for (int i = 0; i < c->count; i++) {
        const EfficientNetBlock *b = &c->block[i];
        if (b->kernel < 1 || b->kernel > KERNEL || b->stride < 1 || b->stride > 4 || b->wide < 1 ||
            b->wide > CHANNELS || b->out < 1 || b->out > CHANNELS)
            return error_set(err,
                             "vision tower: block %d has filters of side %d, stride %d, %d and "
                             "%d channels",
                             i, b->kernel, b->stride, b->wide, b->out);
        if (b->in != (i ? c->block[i - 1].out : c->stem))
            return error_set(err, "vision tower: block %d reads %d channels, but gets %d", i, b->in,
                             i ? c->block[i - 1].out : c->stem);
    }
    return 0;
}

/* TensorFlow's padding: ceil(side / stride) places, the odd zero at the end. */
static Conv2d conv_same(int side, int channels, int out, int kernel, int stride) {
    int places = (side + stride - 1) / stride, zeros = (places - 1) * stride + kernel - side;
    if (zeros < 0) zeros = 0;
    return (Conv2d){.height = side,
                    .width = side,
                    .channels = channels,
                    .out = out,
                    .kernel = kernel,
                    .stride = stride,
                    .before = zeros / 2,
                    .after = zeros - zeros / 2};
}

/* Declares the next layer under its convolution's name and that of its batch norm; *side is the
 * image's, and then the result's. */
static int layer_declare(EfficientNet *net, Kind kind, Conv2d conv, int *side, Error *err,
                         const char *prefix, const char *name, const char *norm) {
    static const char *const vectors[] = {"weight", "bias", "running_mean", "running_var"};
    EfficientNetLayer *l = &net->layers[net->count++];
    *l = (EfficientNetLayer){.kind = kind, .conv = conv, .param = net->params->count};
    l->conv.depthwise = kind == LAYER_DEPTHWISE;
    l->conv.relu6 = kind != LAYER_NARROW;
    const int64_t in = l->conv.depthwise ? 1 : conv.channels;
    ParamSpec spec = {.role = PARAM_FOLDED,
                      .init = INIT_NORMAL,
                      .init_std = sqrtf(2.0f / (float)(in * conv.kernel * conv.kernel)),
                      .ndim = 4,
                      .shape = {conv.out, in, conv.kernel, conv.kernel}};
    TRY(params_declare(net->params, &spec, err, "%s%s.weight", prefix, name));
    for (int i = 0; i < 4; i++) {
        spec = (ParamSpec){.role = PARAM_FOLDED,
                           .init = i == 0 || i == 3 ? INIT_ONE : INIT_ZERO,
                           .ndim = 1,
                           .shape = {conv.out}};
        TRY(params_declare(net->params, &spec, err, "%s%s.%s", prefix, norm, vectors[i]));
    }
    *side = conv2d_places(&conv, *side);
    const int64_t values = places_of(l) * conv.out;
    int64_t *most = kind == LAYER_STEM || kind == LAYER_NARROW ? &net->narrow : &net->wide;
    if (values > *most) *most = values;
    return 0;
}

static int block_declare(EfficientNet *net, int index, int *side, Error *err) {
    const EfficientNetBlock *b = &net->config.block[index];
    char prefix[32];
    snprintf(prefix, sizeof prefix, "_blocks.%d.", index);
    if (b->wide != b->in)
        TRY(layer_declare(net, LAYER_WIDEN, conv_same(*side, b->in, b->wide, 1, 1), side, err,
                          prefix, "_expand_conv", "_bn0"));
    TRY(layer_declare(net, LAYER_DEPTHWISE,
                      conv_same(*side, b->wide, b->wide, b->kernel, b->stride), side, err, prefix,
                      "_depthwise_conv", "_bn1"));
    TRY(layer_declare(net, LAYER_NARROW, conv_same(*side, b->wide, b->out, 1, 1), side, err, prefix,
                      "_project_conv", "_bn2"));
    net->layers[net->count - 1].skip = b->stride == 1 && b->in == b->out;
    return 0;
}

static int layers_fold(void *model, Error *err);
static size_t layers_bytes(const void *model);

int efficientnet_declare(EfficientNet *net, const EfficientNetConfig *config, Params *params,
                         Error *err) {
    TRY(config_check(config, err));
    *net = (EfficientNet){.config = *config, .params = params, .device = params->device};
    net->layers = calloc(3 * (size_t)config->count + 2, sizeof *net->layers);
    if (!net->layers) return error_set(err, "out of memory for %d blocks", config->count);
    int side = config->image_size;
    TRY(layer_declare(net, LAYER_STEM, conv_same(side, 3, config->stem, config->stem_kernel, 2),
                      &side, err, "", "_conv_stem", "_bn0"));
    for (int i = 0; i < config->count; i++) TRY(block_declare(net, i, &side, err));
    const int last = config->block[config->count - 1].out;
    TRY(layer_declare(net, LAYER_HEAD, conv_same(side, last, config->width, 1, 1), &side, err, "",
                      "_conv_head", "_bn1"));
    net->grid = side;
    params->fold = (ParamsFold){.run = layers_fold, .bytes = layers_bytes, .model = net};
    return 0;
}

void efficientnet_free(EfficientNet *net) {
    for (int i = 0; i < net->count; i++) packed_free(net->device, net->layers[i].packed);
    if (net->biases) device_free(net->device, net->biases);
    free(net->layers);
    *net = (EfficientNet){0};
}

/* ---- Batch norms, folded. ---- */

enum { BIAS_ALIGNMENT = 64 }; /* values: 256 bytes */

static int64_t bias_values(const EfficientNetLayer *l) {
    return (l->conv.out + BIAS_ALIGNMENT - 1) / BIAS_ALIGNMENT * BIAS_ALIGNMENT;
}

static size_t biases_bytes(const EfficientNet *net) {
    int64_t n = 0;
    for (int i = 0; i < net->count; i++) n += bias_values(&net->layers[i]);
    return (size_t)n * sizeof(float);
}

static size_t layers_bytes(const void *model) {
    const EfficientNet *net = model;
    size_t bytes = biases_bytes(net);
    for (int i = 0; i < net->count; i++)
        bytes += (size_t)tensor_count(net->params->items[net->layers[i].param].value) *
                 dtype_size(LAYERS);
    return bytes;
}

/* A parameter's values as f32; NULL with the error set. Variances are at least 0. */
static float *values_take(const Param *p, bool variance, Error *err) {
    const size_t n = (size_t)tensor_count(p->value);
    float *values = malloc(n * sizeof *values);
    if (!values) {
        error_set(err, "out of memory for %zu values", n);
        return NULL;
    }
    tensor_values(values, DTYPE_F32, p->value, 0, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i]) && !(variance && values[i] < 0)) continue;
        error_set(err, "%s: value %zu is %g, expected a finite number%s: a damaged file", p->name,
                  i, (double)values[i], variance ? ", at least 0" : "");
        free(values);
        return NULL;
    }
    return values;
}

/* v: weight, gamma, beta, mean, variance; the first two become the folded weight and bias. */
static int norm_fold(const EfficientNet *net, const EfficientNetLayer *l, float *const v[5],
                     Error *err) {
    const Param *p = &net->params->items[l->param];
    const int64_t each = tensor_count(p->value) / l->conv.out;
    for (int o = 0; o < l->conv.out; o++) {
        double scale = v[1][o] / sqrt((double)v[4][o] + net->config.eps);
        double bias = v[2][o] - v[3][o] * scale, largest = 0;
        for (int64_t i = o * each; i < (o + 1) * each; i++) {
            v[0][i] = (float)(v[0][i] * scale);
            if (!(fabsf(v[0][i]) <= largest)) largest = fabsf(v[0][i]);
        }
        v[1][o] = (float)bias;
        if (!isfinite(largest) || !isfinite(v[1][o]))
            return error_set(err,
                             "%s: with its batch norm, channel %d is not finite (variance %g): a "
                             "damaged file",
                             p->name, o, (double)v[4][o]);
    }
    return 0;
}

static int layer_fold(EfficientNet *net, EfficientNetLayer *l, float *bias, Error *err) {
    const Param *p = &net->params->items[l->param];
    float *v[5] = {NULL};
    int status = 0;
    for (int i = 0; i < 5 && status == 0; i++)
        if (!(v[i] = values_take(&p[i], i == 4, err))) status = -1;
    if (status == 0) status = norm_fold(net, l, v, err);
    if (status == 0) {
        for (int o = 0; o < l->conv.out; o++) bias[o] = v[1][o];
        Tensor w = tensor_nd(v[0], DTYPE_F32, 4, p->shape);
        packed_free(net->device, l->packed);
        l->packed = NULL;
        status = conv2d_pack(net->device, &l->packed, &l->conv, w, LAYERS, err);
        if (status) error_context(err, "%s", p->name);
    }
    for (int i = 0; i < 5; i++) free(v[i]);
    return status;
}

static int layers_fold(void *model, Error *err) {
    EfficientNet *net = model;
    const size_t bytes = biases_bytes(net);
    float *host = calloc(1, bytes);
    if (!host) return error_set(err, "out of memory for the biases of %d layers", net->count);
    int status = net->biases ? 0 : device_alloc(net->device, &net->biases, bytes, err);
    int64_t at = 0;
    for (int i = 0; i < net->count && status == 0; i++) {
        EfficientNetLayer *l = &net->layers[i];
        l->bias = tensor_1d((float *)net->biases + at, DTYPE_F32, l->conv.out);
        status = layer_fold(net, l, host + at, err);
        at += bias_values(l);
    }
    if (status == 0) status = device_upload(net->device, net->biases, host, bytes, err);
    free(host);
    return status;
}

/* ---- Forward. ---- */

int efficientnet_feature_rows(const EfficientNet *net) {
    return net->grid * net->grid + (net->config.class_token ? 1 : 0);
}

double efficientnet_operations(const EfficientNet *net) {
    double sum = 0;
    for (int i = 0; i < net->count; i++) {
        const Conv2d *c = &net->layers[i].conv;
        sum += 2.0 * (double)places_of(&net->layers[i]) * c->out * c->kernel * c->kernel *
               (c->depthwise ? 1 : c->channels);
    }
    return sum;
}

static int together(const EfficientNet *net, int images) {
    int most = device_kind(net->device) == DEVICE_CPU ? TOGETHER_CPU : TOGETHER_GPU;
    return images < most ? images : most;
}

size_t efficientnet_work_bytes(const EfficientNet *net, int images) {
    const EfficientNetConfig *c = &net->config;
    const int64_t n = together(net, images), places = n * net->grid * net->grid;
    return arena_bytes(LAYERS, n * c->image_size * c->image_size, 3) +
           2 * arena_bytes(LAYERS, n, net->narrow) + 2 * arena_bytes(LAYERS, n, net->wide) +
           arena_bytes(DTYPE_F32, n, c->width) + 2 * arena_bytes(DTYPE_I32, 1, places + n);
}

/* The buffers of a group of images: results within a block are in `wide`, those between blocks in
 * `narrow`, at first in narrow[0]. */
typedef struct Buffers {
    Tensor pixels, narrow[2], wide[2];
} Buffers;

static int buffers_take(Buffers *b, const EfficientNet *net, Arena *arena, int64_t n, Error *err) {
    const int side = net->config.image_size;
    TRY(arena_take(arena, &b->pixels, LAYERS, n * side * side, 3, err));
    for (int i = 0; i < 2; i++) {
        TRY(arena_take(arena, &b->narrow[i], LAYERS, n, net->narrow, err));
        TRY(arena_take(arena, &b->wide[i], LAYERS, n, net->wide, err));
    }
    return 0;
}

/* All layers; *x is then the last one's result. */
static int layers_run(const EfficientNet *net, Buffers *b, int64_t n, Tensor *x, Error *err) {
    int now = 1; /* which of narrow has the block's input */
    *x = b->pixels;
    for (int i = 0; i < net->count; i++) {
        const EfficientNetLayer *l = &net->layers[i];
        bool between = l->kind == LAYER_STEM || l->kind == LAYER_NARROW;
        if (between && !l->skip) now = 1 - now;
        void *to = between ? b->narrow[now].data : b->wide[l->kind == LAYER_DEPTHWISE].data;
        Tensor y = tensor_2d(to, x->dtype, n * places_of(l), l->conv.out), w = TENSOR_NONE;
        w.packed = l->packed;
        TRY(conv2d_forward(net->device, y, *x, w, l->bias, l->skip, err));
        *x = y;
        TRY(device_cancelled(net->device, err));
    }
    return 0;
}

/* Each image's mean, then its places. */
static int rows_join(const EfficientNet *net, Arena *arena, Tensor features, Tensor places, int n,
                     Error *err) {
    const int each = net->grid * net->grid, rows = n * (each + 1);
    Tensor means, mean_index, place_index;
    int32_t *index = malloc((2 * (size_t)rows + (size_t)n + 1) * sizeof *index);
    if (!index) return error_set(err, "out of memory for the rows of %d images", n);
    int32_t *mean = index, *place = index + rows, *begin = place + rows;
    for (int r = 0; r < rows; r++) {
        int image = r / (each + 1), at = r % (each + 1);
        mean[r] = at == 0 ? image : -1, place[r] = at == 0 ? -1 : image * each + at - 1;
    }
    for (int i = 0; i <= n; i++) begin[i] = i * each;
    int status = arena_take(arena, &means, DTYPE_F32, n, net->config.width, err);
    if (status == 0) status = arena_upload(arena, &mean_index, DTYPE_I32, rows, mean, err);
    if (status == 0) status = arena_upload(arena, &place_index, DTYPE_I32, rows, place, err);
    if (status == 0) status = segment_mean_forward(net->device, means, places, begin, n, err);
    free(index);
    if (status) return status;
    GatherTerm terms[] = {{means, mean_index}, {places, place_index}};
    return gather_forward(net->device, features, terms, 2, err);
}

static int group_forward(const EfficientNet *net, Arena *arena, Tensor features, Tensor planes,
                         Error *err) {
    const int n = (int)planes.shape[0];
    Buffers b;
    Tensor x;
    TRY(buffers_take(&b, net, arena, n, err));
    /* Patches of one pixel: planes to pixels. */
    TRY(patches_forward(net->device, b.pixels, planes, 3, net->config.image_size, 1, err));
    TRY(layers_run(net, &b, n, &x, err)); /* [B*G*G, D] */
    if (net->config.class_token) return rows_join(net, arena, features, x, n, err);
    return convert_forward(net->device, features, x, err);
}

int efficientnet_forward(const EfficientNet *net, Arena *arena, Tensor features, Tensor pixels,
                         Error *err) {
    const int64_t side = net->config.image_size;
    if (pixels.ndim != 4 || pixels.shape[1] != 3 || pixels.shape[2] != side ||
        pixels.shape[3] != side)
        return error_set(err, "vision tower: pixels must be [B, 3, %lld, %lld]", (long long)side,
                         (long long)side);
    const int64_t images = pixels.shape[0], rows = efficientnet_feature_rows(net);
    const int at_once = together(net, (int)images);
    Tensor planes = tensor_2d(pixels.data, DTYPE_F32, images, 3 * side * side);
    const size_t mark = arena->used;
    int status = 0;
    for (int64_t i = 0; i < images && status == 0; i += at_once) {
        const int64_t n = images - i < at_once ? images - i : at_once;
        status = group_forward(net, arena, tensor_rows(features, i * rows, n * rows),
                               tensor_rows(planes, i, n), err);
        arena_reset(arena, mark);
    }
    return status;
}
