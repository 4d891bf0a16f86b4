#include "kernels/optimizer.h"

#include "kernels/muon.h"
#include "kernels/names.h"
#include "kernels/params_private.h"
#include "kernels/random.h"

#include <math.h>

enum { ROUND_STREAM = 0x726f756e /* "roun" */ };

const char *const master_names[] = {[MASTERS_F32] = "f32", [MASTERS_NONE] = "none", NULL};

const char *const optimizer_names[] = {
    [OPTIMIZER_ADAMW] = "adamw", [OPTIMIZER_MUON] = "muon", NULL};

static int check_config(const OptimizerConfig *c, Error *err) {
    const struct {
        const char *name;
        float value;
    } betas[] = {{"beta1", c->beta1}, {"beta2", c->beta2}, {"Muon's momentum", c->muon_momentum}};
    for (int i = 0; i < (c->kind == OPTIMIZER_MUON ? 3 : 2); i++)
        if (!(betas[i].value >= 0 && betas[i].value < 1))
            return error_set(err, "optimizer: %s is %g, expected at least 0 and less than 1",
                             betas[i].name, (double)betas[i].value);
    /* With eps 0 a weight whose gradient has always been 0 would become 0 / 0. */
    if (!(c->eps > 0 && c->eps <= 1))
        return error_set(err, "optimizer: eps is %g, expected more than 0 (1e-8, say)",
                         (double)c->eps);
    if (!(c->weight_decay >= 0 && isfinite(c->weight_decay)))
        return error_set(err, "optimizer: weight decay is %g, expected 0 or more",
                         (double)c->weight_decay);
    if (c->kind == OPTIMIZER_MUON && c->moments != MOMENTS_32BIT)
        return error_set(err, "optimizer: moments in 8 bits are AdamW's, Muon's are in 32 bits");
    if (c->kind == OPTIMIZER_MUON && c->masters != MASTERS_F32)
        return error_set(err,
                         "optimizer: an update without master weights is AdamW's, Muon has them");
    if (!(c->clip >= 0))
        return error_set(
            err, "optimizer: the largest norm is %g, expected more than 0, or 0 for no clipping",
            (double)c->clip);
    return 0;
}

int optimizer_open(Optimizer *optimizer, Device *device, const OptimizerConfig *config,
                   Error *err) {
    *optimizer = (Optimizer){.device = device, .config = *config};
    return check_config(config, err);
}

void optimizer_close(Optimizer *optimizer) {
    for (int i = 0; i < optimizer->part_count; i++) {
        device_free(optimizer->device, optimizer->parts[i].m.data);
        device_free(optimizer->device, optimizer->parts[i].v.data);
        moments_close(&optimizer->parts[i].moments);
    }
    arena_close(&optimizer->work);
    *optimizer = (Optimizer){0};
}

size_t optimizer_bytes(const Params *params) {
    return 2 * (size_t)(params->own_end - params->own_begin) * sizeof(float);
}

size_t optimizer_moment_bytes(const OptimizerConfig *config, const Params *params) {
    if (config->moments == MOMENTS_8BIT) return moments_bytes(params);
    if (params->flat) return optimizer_bytes(params); /* with gaps */
    return 2 * (size_t)params_trainable_count(params) * sizeof(float);
}

/* The number of matrices stacked in a parameter that Muon updates; 0: AdamW updates it. */
static int muon_matrices(const OptimizerConfig *config, const Param *p) {
    return config->kind == OPTIMIZER_MUON && p->trainable ? p->hidden : 0;
}

size_t optimizer_work_bytes(const OptimizerConfig *config, const Params *params) {
    size_t most = 0;
    for (int i = 0; i < params->count; i++) {
        const Param *p = &params->items[i];
        int stacked = muon_matrices(config, p);
        if (!stacked) continue;
        size_t bytes = muon_work_bytes(params->device, param_rows(p) / stacked, param_columns(p));
        if (bytes > most) most = bytes;
    }
    return most;
}

static int take_work(Optimizer *optimizer, const Params *params, Error *err) {
    size_t bytes = optimizer_work_bytes(&optimizer->config, params);
    if (bytes <= optimizer->work.size) return 0;
    arena_close(&optimizer->work);
    return arena_open(&optimizer->work, optimizer->device, bytes, err);
}

static int take_moment(Device *device, Tensor *moment, int64_t flat, Error *err) {
    *moment = tensor_1d(NULL, DTYPE_F32, flat);
    if (!flat) return 0;
    TRY(device_alloc(device, &moment->data, tensor_bytes(*moment), err));
    return device_clear(device, moment->data, tensor_bytes(*moment), err);
}

static int take_moments(Optimizer *optimizer, OptimizerPart *part, Error *err) {
    const Params *params = part->params;
    part->narrow = optimizer->config.moments == MOMENTS_8BIT;
    if (part->narrow) return moments_open(&part->moments, params, err);
    const int64_t own = params->own_end - params->own_begin;
    TRY(take_moment(optimizer->device, &part->m, own, err));
    return take_moment(optimizer->device, &part->v, own, err);
}

int optimizer_add(Optimizer *optimizer, Params *params, float rate, Error *err) {
    if (optimizer->part_count == OPTIMIZER_PARTS)
        return error_set(err, "optimizer: more than %d tables of parameters", OPTIMIZER_PARTS);
    if (!(rate >= 0 && isfinite(rate)))
        return error_set(
            err,
            "optimizer: a table's learning rate is %g times the schedule's, expected 0 or more",
            (double)rate);
    OptimizerPart *part = &optimizer->parts[optimizer->part_count++]; /* close frees it from here */
    *part = (OptimizerPart){.params = params, .rate = rate};
    if (take_moments(optimizer, part, err)) return error_context(err, "moments of the optimizer");
    if (optimizer->share)
        TRY(share_add(optimizer->share, params, part->m, part->v,
                      part->narrow ? &part->moments : NULL, err));
    if (take_work(optimizer, params, err)) return error_context(err, "workspace of the optimizer");
    return 0;
}

static Tensor flat_run(void *table, Dtype dtype, int64_t first, int64_t count) {
    return table ? tensor_1d((char *)table + (size_t)first * dtype_size(dtype), dtype, count)
                 : TENSOR_NONE;
}

/* AdamW on values [first, end) of a part's tables, which share all settings, as far as they are this
 * process's. */
static int update_run(const Optimizer *optimizer, const OptimizerPart *part, const AdamW *adamw,
                      int64_t first, int64_t end, Error *err) {
    const Params *p = part->params;
    if (first < p->own_begin) first = p->own_begin;
    if (end > p->own_end) end = p->own_end;
    const int64_t n = end - first, own = first - p->own_begin;
    if (n <= 0) return 0;
    return adamw_step(optimizer->device, flat_run(params_master_at(p, first), DTYPE_F32, 0, n),
                      flat_run(params_copy_at(p, first), p->compute, 0, n),
                      flat_run(part->m.data, DTYPE_F32, own, n),
                      flat_run(part->v.data, DTYPE_F32, own, n),
                      flat_run(params_grad_at(p, first), DTYPE_F32, 0, n), adamw, err);
}

static Tensor flat_matrix(void *table, Dtype dtype, int64_t first, int64_t rows, int64_t columns) {
    Tensor run = flat_run(table, dtype, first, rows * columns);
    return table ? tensor_2d(run.data, dtype, rows, columns) : TENSOR_NONE;
}

/* Muon on the matrices of a hidden parameter, one after the other. */
static int update_hidden(Optimizer *optimizer, const OptimizerPart *part, const Param *item,
                         const AdamW *adamw, Error *err) {
    const OptimizerConfig *c = &optimizer->config;
    const Params *p = part->params;
    const MuonStep step = {.rate = adamw->lr,
                           .momentum = c->muon_momentum,
                           .weight_decay = c->weight_decay,
                           .grad_scale = adamw->grad_scale};
    int64_t rows = param_rows(item) / item->hidden, columns = param_columns(item);
    for (int i = 0; i < item->hidden; i++) {
        int64_t at = item->offset + i * rows * columns, own = at - p->own_begin;
        if (own < 0 || at >= p->own_end) continue; /* another rank's, as a whole */
        TRY(muon_step(&optimizer->work,
                      flat_matrix(params_master_at(p, at), DTYPE_F32, 0, rows, columns),
                      flat_matrix(params_copy_at(p, at), p->compute, 0, rows, columns),
                      flat_matrix(part->m.data, DTYPE_F32, own, rows, columns),
                      flat_matrix(params_grad_at(p, at), DTYPE_F32, 0, rows, columns), &step, err));
    }
    return 0;
}

/* AdamW on one parameter, with its moments in 8 or 32 bits. */
static int update_item(const Optimizer *optimizer, const OptimizerPart *part, int index,
                       AdamW adamw, Error *err) {
    const Params *p = part->params;
    const Param *item = &p->items[index];
    int64_t first, n;
    moments_own(p, index, &first, &n);
    if (!n) return 0;
    const Tensor weights = params_updated(p, index, first, n);
    adamw.first = first += item->offset;
    const Tensor copy = flat_run(params_copy_at(p, first), p->compute, 0, n);
    const Tensor gradients = flat_run(params_grad_at(p, first), DTYPE_F32, 0, n);
    if (part->narrow && moments_narrow(item)) {
        const Moments8 moments = moments_bytes_of(&part->moments, p, index);
        return adamw8_step(optimizer->device, weights, copy, &moments, gradients, &adamw, err);
    }
    Tensor m = flat_run(part->m.data, DTYPE_F32, first - p->own_begin, n);
    Tensor v = flat_run(part->v.data, DTYPE_F32, first - p->own_begin, n);
    if (part->narrow) moments_values_of(&part->moments, p, index, &m, &v);
    return adamw_step(optimizer->device, weights, copy, m, v, gradients, &adamw, err);
}

static float own_decay(const OptimizerConfig *c, const Param *item) {
    return item->role == PARAM_VECTOR && !c->decay_vectors ? 0 : c->weight_decay;
}

/* Parameter by parameter. */
static int update_items(Optimizer *optimizer, const OptimizerPart *part, AdamW adamw, Error *err) {
    const Params *p = part->params;
    adamw.seed = optimizer->config.seed;
    adamw.stream =
        random_stream(ROUND_STREAM, (uint64_t)adamw.step, (uint64_t)(part - optimizer->parts), 0);
    for (int i = 0; i < p->count; i++) {
        if (p->items[i].offset < 0) continue;
        adamw.weight_decay = own_decay(&optimizer->config, &p->items[i]);
        TRY(muon_matrices(&optimizer->config, &p->items[i])
                ? update_hidden(optimizer, part, &p->items[i], &adamw, err)
                : update_item(optimizer, part, i, adamw, err));
    }
    return 0;
}

/* Goes through the flat table in order. Gaps belong to the run before them: being zero, they stay
 * zero. */
static int update_part(Optimizer *optimizer, const OptimizerPart *part, AdamW adamw, Error *err) {
    const OptimizerConfig *c = &optimizer->config;
    const Params *p = part->params;
    int64_t first = 0;
    float decay = 0;
    bool open = false;
    for (int i = 0; i < p->count; i++) {
        const Param *item = &p->items[i];
        if (item->offset < 0) continue;
        float own = own_decay(c, item);
        bool hidden = muon_matrices(c, item) > 0;
        if (open && own == decay && !hidden) continue;
        adamw.weight_decay = decay;
        if (open) TRY(update_run(optimizer, part, &adamw, first, item->offset, err));
        if (hidden) TRY(update_hidden(optimizer, part, item, &adamw, err));
        first = item->offset, decay = own, open = !hidden;
    }
    adamw.weight_decay = decay;
    return open ? update_run(optimizer, part, &adamw, first, p->flat, err) : 0;
}

/* Adds the sum of the squares of gradients. */
static int add_squares(const Params *p, double *total, const float *gradients, int64_t count,
                       Error *err) {
    double sum = 0;
    const Tensor values = tensor_1d((float *)(uintptr_t)gradients, DTYPE_F32, count);
    if (count > 0) TRY(square_sum(p->device, &sum, values, err));
    *total += sum;
    return 0;
}

/* Of this process's own values: the blocks' sums are in a table of their own from ZeRO 2 on. */
static int own_squares(const Params *p, double *total, Error *err) {
    if (!p->runs)
        return add_squares(p, total, p->grad + p->own_begin, p->own_end - p->own_begin, err);
    TRY(add_squares(p, total, p->own_grad, p->own_values, err));
    for (int i = 0; i < p->run_count; i++) {
        const ParamsRun *run = &p->runs[i];
        const int64_t first = run->begin > p->own_begin ? run->begin : p->own_begin;
        const int64_t end = run->end < p->own_end ? run->end : p->own_end;
        if (run->block < 0 && first < end)
            TRY(add_squares(p, total, params_grad_at(p, first), end - first, err));
    }
    return 0;
}

static int gradient_norm(const Optimizer *optimizer, double *norm, Error *err) {
    double total = 0;
    for (int i = 0; i < optimizer->part_count; i++) {
        double sum = 0;
        TRY(own_squares(optimizer->parts[i].params, &sum, err));
        total += sum;
    }
    if (optimizer->share) TRY(share_sum(optimizer->share, &total, err));
    *norm = sqrt(total);
    return 0;
}

static int clear_gradients(const Optimizer *optimizer, Error *err) {
    for (int i = 0; i < optimizer->part_count; i++) {
        const Params *p = optimizer->parts[i].params;
        TRY(device_clear(optimizer->device, p->grad, (size_t)p->grad_values * sizeof(float), err));
        if (p->own_grad)
            TRY(device_clear(optimizer->device, p->own_grad, (size_t)p->own_values * sizeof(float),
                             err));
    }
    return 0;
}

int optimizer_step(Optimizer *optimizer, double rate, double *norm, Error *err) {
    const OptimizerConfig *c = &optimizer->config;
    if (optimizer->share) TRY(share_reduce(optimizer->share, err));
    TRY(gradient_norm(optimizer, norm, err));
    if (isfinite(*norm)) {
        /* 1e-6 as in torch, so that the two can be compared. */
        double scale = c->clip > 0 ? c->clip / (*norm + 1e-6) : 1;
        for (int i = 0; i < optimizer->part_count; i++) {
            const OptimizerPart *part = &optimizer->parts[i];
            AdamW adamw = {.lr = (float)(rate * part->rate),
                           .beta1 = c->beta1,
                           .beta2 = c->beta2,
                           .eps = c->eps,
                           .grad_scale = scale < 1 ? (float)scale : 1,
                           .step = optimizer->step + 1};
            TRY(part->narrow || params_without_masters(part->params) || part->params->runs
                    ? update_items(optimizer, part, adamw, err)
                    : update_part(optimizer, part, adamw, err));
        }
        optimizer->step++;
        if (optimizer->share) TRY(share_gather(optimizer->share, err));
    }
    return clear_gradients(optimizer, err);
}

const char *const schedule_names[] = {
    [SCHEDULE_CONSTANT] = "constant", [SCHEDULE_INVERSE_SQRT] = "inverse-sqrt",
    [SCHEDULE_COSINE] = "cosine",     [SCHEDULE_LINEAR] = "linear",
    [SCHEDULE_WSD] = "wsd",           NULL,
};

const char *schedule_name(ScheduleKind kind) {
    return names_get(schedule_names, (int)kind);
}

/* The fraction of the steps after the first `flat` ones that is done, from 0 to 1. */
static double progress(const Schedule *s, int64_t flat, int64_t step) {
    int64_t done = step - 1 - flat, all = s->steps - flat;
    if (done <= 0) return 0;
    return done < all ? (double)done / (double)all : 1;
}

double schedule_rate(const Schedule *schedule, int64_t step) {
    const Schedule *s = schedule;
    if (step <= s->warmup) return s->rate * (double)step / (double)s->warmup;
    switch (s->kind) {
    case SCHEDULE_INVERSE_SQRT:
        return s->rate * sqrt((double)(s->warmup > 1 ? s->warmup : 1) / (double)step);
    case SCHEDULE_COSINE:
        return s->rate * (1 + cos(3.14159265358979323846 * progress(s, s->warmup, step))) / 2;
    case SCHEDULE_LINEAR:
        return s->rate * (1 - progress(s, s->warmup, step));
    case SCHEDULE_WSD: {
        const int64_t flat = s->steps - s->decay;
        return s->rate * (1 - progress(s, flat > s->warmup ? flat : s->warmup, step));
    }
    default:
        return s->rate;
    }
}
