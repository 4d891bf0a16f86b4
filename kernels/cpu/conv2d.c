/* Convolutions by oneDNN, versions 2 and 3.
 *
 * Images have their channels together (NHWC): the rows of our matrices, and the layout in which
 * oneDNN's kernels for convolutions of one pixel are matmuls, so that nothing is reordered between
 * layers. Only weights get a layout of oneDNN's own, once. A primitive is compiled for each number
 * of images; the latest few are kept with the weight. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dnnl_compat.h"
#include "kernels/cpu/matmul.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS = 4, ARGUMENTS = 5 };

typedef struct Plan {
    int64_t images; /* 0: free */
    bool accumulate;
    bool slow;     /* oneDNN has only its reference loops, hundreds of times slower */
    uint64_t used; /* time of the latest run */
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[ARGUMENTS]; /* NULL: not needed */
    size_t scratch_bytes;
} Plan;

static const int arguments[ARGUMENTS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS,
                                         DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};

/* Packed.layout of a convolution's weight. */
typedef struct ConvLayout {
    dnnl_memory_desc_t weight;
    uint64_t clock;
    Plan plan[PLANS];
} ConvLayout;

/* ---- Differences between oneDNN 2 and 3 (others: dnnl_compat.h). ---- */

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t conv_describe(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                   const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w,
                                   const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *y,
                                   const Conv2d *c, const_dnnl_primitive_attr_t attr) {
    const dnnl_dims_t strides = {c->stride, c->stride}, dilations = {0, 0};
    const dnnl_dims_t before = {c->before, c->before}, after = {c->after, c->after};
    return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_inference,
                                                          dnnl_convolution_direct, *x, *w, *b, *y,
                                                          strides, dilations, before, after, attr);
}

#else

static dnnl_status_t conv_describe(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                   const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w,
                                   const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *y,
                                   const Conv2d *c, const_dnnl_primitive_attr_t attr) {
    const dnnl_dims_t strides = {c->stride, c->stride};
    const dnnl_dims_t before = {c->before, c->before}, after = {c->after, c->after};
    dnnl_convolution_desc_t desc;
    dnnl_status_t s = dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_convolution_direct, x, w, b, y, strides, before, after);
    return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
}

#endif

static int conv_error(const Conv2d *c, int64_t images, dnnl_status_t status, Error *err) {
    return error_set(err,
                     "convolution %d x %d%s of %lld images %d x %d, %d channels to %d: oneDNN says "
                     "%s",
                     c->kernel, c->kernel, c->depthwise ? ", depthwise," : "", (long long)images,
                     c->width, c->height, c->channels, c->out, dnnl_status2str(status));
}

/* ---- Describing a convolution. ---- */

static dnnl_data_type_t data_type(Dtype dtype) {
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* Dimensions of images are always in the order [images, channels, height, width]. */
static dnnl_status_t images_describe(dnnl_memory_desc_t *desc, int64_t images, int64_t channels,
                                     int64_t height, int64_t width, Dtype dtype) {
    const dnnl_dims_t dims = {images, channels, height, width};
    const dnnl_dims_t strides = {height * width * channels, 1, width * channels, channels};
    return desc_strided(desc, 4, dims, data_type(dtype), strides);
}

/* Of a weight: [groups, out, in, kernel, kernel] if depthwise, else without groups. */
static int weight_dims(dnnl_dims_t dims, const Conv2d *c) {
    int n = 0;
    if (c->depthwise) dims[n++] = c->out;
    dims[n++] = c->depthwise ? 1 : c->out, dims[n++] = c->depthwise ? 1 : c->channels;
    dims[n++] = c->kernel, dims[n++] = c->kernel;
    return n;
}

static dnnl_status_t attributes_create(dnnl_primitive_attr_t *attr, bool relu6, bool accumulate) {
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(attr);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success) s = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
    if (s == dnnl_success) s = dnnl_post_ops_create(&ops);
    if (s == dnnl_success && accumulate) s = append_sum(ops);
    if (s == dnnl_success && relu6) s = append_eltwise(ops, dnnl_eltwise_clip, 0, 6);
    if (s == dnnl_success) s = dnnl_primitive_attr_set_post_ops(*attr, ops);
    if (ops) dnnl_post_ops_destroy(ops);
    return s;
}

/* With `weight` the weights have that layout, else the one that oneDNN prefers. */
static dnnl_status_t describe(dnnl_engine_t engine, dnnl_primitive_desc_t *pd, const Conv2d *c,
                              Dtype dtype, int64_t images, bool accumulate,
                              const dnnl_memory_desc_t *weight) {
    dnnl_memory_desc_t x, w, b, y;
    memset(&x, 0, sizeof x), memset(&w, 0, sizeof w);
    memset(&b, 0, sizeof b), memset(&y, 0, sizeof y);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t dims = {0}, bias = {c->out}, one = {1};
    const int n = weight_dims(dims, c);
    dnnl_status_t s = images_describe(&x, images, c->channels, c->height, c->width, dtype);
    if (s == dnnl_success)
        s = images_describe(&y, images, c->out, conv2d_places(c, c->height),
                            conv2d_places(c, c->width), dtype);
    if (s == dnnl_success)
        s = weight ? desc_copy(&w, desc_argument(weight)) : desc_any(&w, n, dims, data_type(dtype));
    if (s == dnnl_success) s = desc_strided(&b, 1, bias, dnnl_f32, one);
    if (s == dnnl_success) s = attributes_create(&attr, c->relu6, accumulate);
    if (s == dnnl_success) s = conv_describe(pd, engine, &x, &w, &b, &y, c, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    desc_free(&x), desc_free(&w), desc_free(&b), desc_free(&y);
    return s;
}

/* ---- Plans: a primitive with its arguments. ---- */

static void plan_clear(Plan *plan) {
    if (plan->primitive) dnnl_primitive_destroy(plan->primitive);
    for (int i = 0; i < ARGUMENTS; i++)
        if (plan->memory[i]) dnnl_memory_destroy(plan->memory[i]);
    memset(plan, 0, sizeof *plan);
}

static dnnl_status_t plan_make(dnnl_engine_t engine, Plan *plan, const struct Packed *packed,
                               int64_t images, bool accumulate) {
    const ConvLayout *layout = packed->layout;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s =
        describe(engine, &pd, &packed->conv, packed->dtype, images, accumulate, &layout->weight);
    if (s != dnnl_success) return s;
    const char *kind = NULL;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &kind) == dnnl_success && kind)
        plan->slow = !strncmp(kind, "ref", 3);
    s = dnnl_primitive_create(&plan->primitive, pd);
    for (int i = 0; i < ARGUMENTS && s == dnnl_success; i++) {
        size_t bytes = dnnl_memory_desc_get_size(
            dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[i]));
        if (arguments[i] == DNNL_ARG_SCRATCHPAD) plan->scratch_bytes = bytes;
        if (bytes)
            s = dnnl_memory_create(
                &plan->memory[i],
                dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[i]), engine,
                DNNL_MEMORY_NONE);
    }
    dnnl_primitive_desc_destroy(pd);
    plan->images = images, plan->accumulate = accumulate;
    if (s != dnnl_success) plan_clear(plan);
    return s;
}

/* The plan for this number of images; the least recently used one makes place for a new one. */
static dnnl_status_t plan_find(dnnl_engine_t engine, Plan **found, const struct Packed *packed,
                               int64_t images, bool accumulate) {
    ConvLayout *layout = packed->layout;
    Plan *oldest = layout->plan;
    for (Plan *p = layout->plan; p < layout->plan + PLANS; p++) {
        *found = p;
        if (p->images == images && p->accumulate == accumulate) return dnnl_success;
        if (p->used < oldest->used) oldest = p;
    }
    plan_clear(oldest);
    *found = oldest;
    return plan_make(engine, oldest, packed, images, accumulate);
}

static int images_run(Device *device, Tensor y, Tensor x, const struct Packed *packed, Tensor b,
                      int64_t images, Plan *plan, Error *err) {
    ConvLayout *layout = packed->layout;
    dnnl_stream_t stream = matmul_stream(cpu_state(device)->matmul);
    void *scratch = NULL;
    if (plan->scratch_bytes) TRY(cpu_workspace(device, &scratch, plan->scratch_bytes, err));
    void *const data[ARGUMENTS] = {x.data, packed->data, b.data, y.data, scratch};
    dnnl_exec_arg_t args[ARGUMENTS];
    dnnl_status_t s = dnnl_success;
    int count = 0;
    for (int i = 0; i < ARGUMENTS && s == dnnl_success; i++) {
        if (!plan->memory[i]) continue;
        s = dnnl_memory_set_data_handle(plan->memory[i], data[i]);
        args[count++] = (dnnl_exec_arg_t){arguments[i], plan->memory[i]};
    }
    plan->used = ++layout->clock;
    if (s == dnnl_success) s = dnnl_primitive_execute(plan->primitive, stream, count, args);
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    return s == dnnl_success ? 0 : conv_error(&packed->conv, images, s, err);
}

/* All images at once, or one by one. The weight has the layout of the best kernel for one image;
 * that for several may want another one, and oneDNN would fall back to its reference loops. And for
 * one image of one pixel it has another kernel than for several, with other roundings. */
static int conv_run(Device *device, Tensor y, Tensor x, const struct Packed *packed, Tensor b,
                    bool accumulate, Error *err) {
    const Conv2d *c = &packed->conv;
    dnnl_engine_t engine = matmul_engine(cpu_state(device)->matmul);
    const int64_t pixels = (int64_t)c->height * c->width, images = x.shape[0] / pixels;
    const int64_t places = y.shape[0] / images;
    Plan *plan = NULL;
    int64_t at_once = pixels == 1 ? 1 : images;
    dnnl_status_t s = plan_find(engine, &plan, packed, at_once, accumulate);
    if (s == dnnl_success && plan->slow && at_once > 1) {
        plan->used = ++((ConvLayout *)packed->layout)->clock;
        s = plan_find(engine, &plan, packed, at_once = 1, accumulate);
    }
    if (s != dnnl_success) return conv_error(c, at_once, s, err);
    for (int64_t i = 0; i < images; i += at_once)
        TRY(images_run(device, tensor_rows(y, i * places, at_once * places),
                       tensor_rows(x, i * pixels, at_once * pixels), packed, b, at_once, plan,
                       err));
    return 0;
}

int cpu_conv2d_forward(Device *device, Tensor y, Tensor x, Tensor w, Tensor b, bool accumulate,
                       Error *err) {
    const int before = omp_get_max_threads(); /* oneDNN takes OpenMP's, as in matmul.c */
    if (before != device->threads) omp_set_num_threads(device->threads);
    int status = conv_run(device, y, x, w.packed, b, accumulate, err);
    if (before != device->threads) omp_set_num_threads(before);
    return status;
}

/* ---- The weight. ---- */

void cpu_conv2d_free(Device *device, struct Packed *packed) {
    ConvLayout *layout = packed->layout;
    for (int i = 0; i < PLANS; i++) plan_clear(&layout->plan[i]);
    desc_free(&layout->weight);
    free(layout);
    device_free(device, packed->data);
    free(packed);
}

static dnnl_status_t layout_find(dnnl_engine_t engine, ConvLayout *layout, const Conv2d *conv,
                                 Dtype dtype) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = describe(engine, &pd, conv, dtype, 1, false, NULL);
    if (s != dnnl_success) return s;
    s = desc_copy(&layout->weight,
                  dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, DNNL_ARG_WEIGHTS));
    dnnl_primitive_desc_destroy(pd);
    return s;
}

/* Plain values [out, in, kernel, kernel] f32 into the layout. */
static dnnl_status_t weight_fill(const Matmul *onednn, const struct Packed *packed, Tensor w) {
    const ConvLayout *layout = packed->layout;
    dnnl_engine_t engine = matmul_engine(onednn);
    dnnl_memory_desc_t plain;
    memset(&plain, 0, sizeof plain);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_dims_t dims = {0}, strides = {0};
    const int n = weight_dims(dims, &packed->conv);
    for (int64_t i = n - 1, step = 1; i >= 0; step *= dims[i--]) strides[i] = step;
    dnnl_status_t s = desc_strided(&plain, n, dims, dnnl_f32, strides);
    if (s == dnnl_success)
        s = dnnl_reorder_primitive_desc_create(&pd, desc_argument(&plain), engine,
                                               desc_argument(&layout->weight), engine, NULL);
    if (s == dnnl_success) s = dnnl_primitive_create(&reorder, pd);
    if (s == dnnl_success) s = dnnl_memory_create(&from, desc_argument(&plain), engine, w.data);
    if (s == dnnl_success)
        s = dnnl_memory_create(&to, desc_argument(&layout->weight), engine, packed->data);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    if (s == dnnl_success) s = dnnl_primitive_execute(reorder, matmul_stream(onednn), 2, args);
    if (s == dnnl_success) s = dnnl_stream_wait(matmul_stream(onednn));
    if (from) dnnl_memory_destroy(from);
    if (to) dnnl_memory_destroy(to);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    desc_free(&plain);
    return s;
}

int cpu_conv2d_pack(Device *device, struct Packed **packed, const Conv2d *conv, Tensor w,
                    Dtype compute, Error *err) {
    const Matmul *onednn = cpu_state(device)->matmul;
    struct Packed *p = calloc(1, sizeof *p);
    ConvLayout *layout = calloc(1, sizeof *layout);
    if (!p || !layout) {
        free(p), free(layout);
        return error_set(err, "out of memory: %zu bytes requested", sizeof *p + sizeof *layout);
    }
    p->layout = layout, p->conv = *conv, p->dtype = compute;
    p->rows = p->chunk_rows = conv->out, p->columns = tensor_count(w) / conv->out;
    int status = 0;
    dnnl_status_t s = layout_find(matmul_engine(onednn), layout, conv, compute);
    if (s == dnnl_success) {
        p->bytes = p->chunk_bytes = dnnl_memory_desc_get_size(desc_argument(&layout->weight));
        status = device_alloc(device, &p->data, p->bytes, err);
        if (status == 0) s = weight_fill(onednn, p, w);
    }
    if (s == dnnl_success && status == 0) {
        *packed = p;
        return 0;
    }
    cpu_conv2d_free(device, p);
    return status ? status : conv_error(conv, 1, s, err);
}
