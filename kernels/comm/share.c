#include "kernels/comm/share.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "kernels/params_private.h"

enum { END = -1, PIECE = 1 << 18 /* values sent or checked at once */ };

/* What rank 0 asks another rank for. */
typedef struct Request {
    int32_t table, kind;
    int64_t first, count;
} Request;

static int fetch(void *user, const Params *params, int kind, int64_t first, int64_t count,
                 void *host, Error *err);

void share_open(Share *share, Comm *comm, int level) {
    *share = (Share){.comm = comm, .level = comm ? level : 0, .pending = -1, .reducing = -1};
}

void share_close(Share *share) {
    for (int i = 0; i < share->count; i++) free(share->tables[i].bounds);
    free(share->steps);
    *share = (Share){0};
}

static int enter_block(void *user, const Block *block, Error *err);
static int enter_part(void *user, const TensorParts *parts, PartsUse use, int part, Error *err);

/* The blocks and parts of a table have these called. */
static void enter_blocks(Share *share, Params *params) {
    const ParamsShare *s = &params->share;
    Block *blocks = (Block *)(uintptr_t)s->blocks;
    if (share->level < 3) return;
    share->enter = (BlockEnter){enter_block, share};
    for (int i = 0; blocks && i < s->block_count; i++) blocks[i].enter = &share->enter;
    for (int i = 0; i < params->table_count; i++)
        params->tables[i].parts.enter = enter_part, params->tables[i].parts.user = share;
}

/* ---- The steps of a pass. ---- */

static int block_count(const ShareTable *t) {
    return t->params->share.blocks ? t->params->share.block_count : 0;
}

static void add_step(Share *share, int table, int block, ShareUse use) {
    if (share->steps)
        share->steps[share->step_count] = (ShareStep){.table = table, .block = block, .use = use};
    share->step_count++;
}

/* Of the embeddings or of the vocabularies of a table. */
static void add_parts(Share *share, int table, ShareUse use) {
    const Params *p = share->tables[table].params;
    for (int i = 0; i < p->table_count; i++) {
        const ParamsTable *t = &p->tables[i];
        const Param *item = &p->items[t->item];
        const bool looked_up = item->role == PARAM_TABLE || item->table_slot;
        const bool scanned = item->role == PARAM_VOCABULARY;
        if (use == SHARE_LOOKUP || use == SHARE_LOOKED_UP ? !looked_up : !scanned) continue;
        for (int k = 0; k < t->parts.count; k++) add_step(share, table, t->first + k, use);
    }
}

/* The backward pass reaches the tables in the opposite order. */
static void list_steps(Share *share) {
    const bool gathered = share->level >= 3;
    share->step_count = 0;
    for (int i = 0; i < share->count && gathered; i++) {
        add_parts(share, i, SHARE_LOOKUP);
        for (int k = 0; k < block_count(&share->tables[i]); k++)
            add_step(share, i, k, SHARE_FORWARD);
    }
    for (int i = 0; i < share->count; i++) add_parts(share, i, SHARE_SCAN);
    share->forward_count = share->step_count;
    for (int i = 0; i < share->count; i++) add_parts(share, i, SHARE_GRADIENT);
    for (int i = share->count - 1; i >= 0; i--) {
        for (int k = block_count(&share->tables[i]) - 1; k >= 0; k--)
            add_step(share, i, k, SHARE_BACKWARD);
        add_parts(share, i, SHARE_LOOKED_UP);
    }
}

static int make_steps(Share *share, Error *err) {
    free(share->steps);
    share->steps = NULL;
    if (share->level < 2) return 0;
    list_steps(share); /* counts */
    share->steps = calloc((size_t)share->step_count + 1, sizeof *share->steps);
    if (!share->steps) return error_set(err, "out of memory for %d steps", share->step_count);
    list_steps(share);
    return 0;
}

/* Its place among the steps; step_count: it is none. */
static int step_of(const Share *share, int table, int block, ShareUse use) {
    int i = 0;
    for (; i < share->step_count; i++) {
        const ShareStep *s = &share->steps[i];
        if (s->table == table && s->block == block && s->use == use) break;
    }
    return i;
}

static const ParamsRun *step_run(const Share *share, int step) {
    const ShareStep *s = &share->steps[step];
    return params_run_of(share->tables[s->table].params, s->block);
}

int share_add(Share *share, Params *params, Tensor m, Tensor v, const MomentTables *moments,
              Error *err) {
    if (!share->comm || !params->flat) return 0;
    const int size = comm_size(share->comm);
    if (share->count == SHARE_TABLES)
        return error_set(err, "more than %d tables are shared by ranks", SHARE_TABLES);
    if (params->share.ranks != size || params->share.level != share->level)
        return error_set(err, "a table for %d ranks at level %d, expected %d at level %d",
                         params->share.ranks, params->share.level, size, share->level);
    ShareTable *t = &share->tables[share->count];
    *t = (ShareTable){.params = params, .m = m, .v = v, .moments = moments};
    t->bounds = malloc(((size_t)size + 1) * sizeof *t->bounds);
    if (!t->bounds) return error_set(err, "out of memory for %d ranks", size);
    for (int i = 0; i <= size; i++) t->bounds[i] = params_bound(params, i);
    params->share.fetch = fetch, params->share.user = share;
    enter_blocks(share, params);
    share->count++;
    return make_steps(share, err);
}

/* ---- Gradients. ---- */

/* The ranks' parts of a run, from its beginning; free them. */
static int64_t *run_bounds(const Share *share, const ShareTable *t, const ParamsRun *run,
                           Error *err) {
    const int size = comm_size(share->comm);
    int64_t *bounds = malloc(((size_t)size + 1) * sizeof *bounds);
    if (!bounds) {
        error_set(err, "out of memory for %d ranks", size);
        return NULL;
    }
    for (int i = 0; i <= size; i++) {
        int64_t at = t->bounds[i] < run->end ? t->bounds[i] : run->end;
        bounds[i] = at > run->begin ? at - run->begin : 0;
    }
    return bounds;
}

/* Reduces a run's gradients, or begins to. */
static int reduce_start(Share *share, const ShareTable *t, const ParamsRun *run, bool begin,
                        Error *err) {
    float *grad = t->params->grad + run->place;
    int64_t *bounds = run_bounds(share, t, run, err);
    if (!bounds) return -1;
    int status = begin ? comm_start(share->comm, COMM_REDUCE, grad, DTYPE_F32, bounds, err)
                       : comm_reduce_scatter(share->comm, grad, bounds, err);
    free(bounds);
    return status;
}

/* Then: into the sums of their owners. */
static int reduce_add(const ShareTable *t, const ParamsRun *run, Error *err) {
    const Params *p = t->params;
    float *grad = p->grad + run->place;
    if (run->block < 0) return 0; /* where they are; cleared with the rest of grad */
    const int64_t first = p->own_begin > run->begin ? p->own_begin : run->begin;
    const int64_t n = (p->own_end < run->end ? p->own_end : run->end) - first;
    if (n > 0) {
        Tensor sum = tensor_2d(params_grad_at(p, first), DTYPE_F32, 1, n);
        Tensor mine = tensor_2d(grad + (first - run->begin), DTYPE_F32, 1, n);
        TRY(dropout_forward(p->device, sum, mine, (Dropout){0}, true, err)); /* adds */
    }
    return device_clear(p->device, grad, (size_t)(run->end - run->begin) * sizeof *grad, err);
}

static int reduce_run(Share *share, const ShareTable *t, const ParamsRun *run, Error *err) {
    TRY(reduce_start(share, t, run, false, err));
    return reduce_add(t, run, err);
}

static int reduce_table(Share *share, const ShareTable *t, Error *err) {
    const Params *p = t->params;
    if (share->level == 0) return comm_all_reduce(share->comm, p->grad, p->flat, err);
    if (share->level == 1) return comm_reduce_scatter(share->comm, p->grad, t->bounds, err);
    for (int i = 0; i < p->run_count; i++)
        if (p->runs[i].block < 0) TRY(reduce_run(share, t, &p->runs[i], err));
    return 0;
}

int share_reduce(Share *share, Error *err) {
    for (int i = 0; i < share->count; i++) TRY(reduce_table(share, &share->tables[i], err));
    return 0;
}

int share_sum(Share *share, double *value, Error *err) {
    if (!share->comm || share->level == 0) return 0;
    const int size = comm_size(share->comm);
    double *all = malloc((size_t)size * sizeof *all), sum = 0;
    if (!all) return error_set(err, "out of memory for %d ranks", size);
    int status = comm_share(share->comm, value, 1, all, err);
    for (int i = 0; i < size && status == 0; i++) sum += all[i];
    free(all);
    if (status == 0) *value = sum;
    return status;
}

/* ---- Steps. ---- */

/* Brings a run's weights from their owners, or begins to. */
static int gather_run(Share *share, const ShareTable *t, const ParamsRun *run, bool begin,
                      Error *err) {
    const Params *p = t->params;
    const size_t size = dtype_size(p->compute);
    char *weights = (char *)p->working + (size_t)run->place * size;
    int64_t *bounds = run_bounds(share, t, run, err);
    if (!bounds) return -1;
    const int64_t first = bounds[comm_rank(share->comm)];
    const int64_t n = bounds[comm_rank(share->comm) + 1] - first;
    int status = 0;
    void *from = n ? (void *)(uintptr_t)params_gathered_from(p, run->begin + first) : NULL;
    if (n && from != weights + (size_t)first * size) {
        status =
            convert_forward(p->device, tensor_2d(weights + (size_t)first * size, p->compute, 1, n),
                            tensor_2d(from, p->compute, 1, n), err);
    }
    if (status == 0)
        status = begin ? comm_start(share->comm, COMM_GATHER, weights, p->compute, bounds, err)
                       : comm_all_gather(share->comm, weights, p->compute, bounds, err);
    free(bounds);
    return status;
}

static const ShareTable *step_table(const Share *share, int step) {
    return &share->tables[share->steps[step].table];
}

/* Whether the runs of two steps have the same memory. */
static bool same_memory(const Share *share, int a, int b) {
    const ParamsRun *first = step_run(share, a), *second = step_run(share, b);
    return first && second && step_table(share, a) == step_table(share, b) &&
           first->place == second->place;
}

static int gather_step(Share *share, int step, Error *err) {
    const ParamsRun *run = step_run(share, step);
    if (!run || run == share->current) return 0;
    share->current = run, share->held = step;
    if (run != share->ahead) return gather_run(share, step_table(share, step), run, false, err);
    share->ahead = NULL;
    return comm_finish(share->comm, COMM_GATHER, err);
}

static bool gathers(const Share *share, int step) {
    return share->level >= 3 && share->steps[step].use != SHARE_LOOKED_UP;
}

static int steps_of_pass(const Share *share) {
    return share->forward ? share->forward_count : share->step_count;
}

/* While the current weights are in use the next step's come. */
static int gather_ahead(Share *share, int step, Error *err) {
    if (step >= steps_of_pass(share) || !gathers(share, step) || share->ahead) return 0;
    const ParamsRun *run = step_run(share, step);
    const ShareTable *t = step_table(share, step);
    if (!run || !t->params->share.overlap || run == share->current) return 0;
    if (share->current && same_memory(share, share->held, step)) return 0;
    share->ahead = run;
    return gather_run(share, t, run, true, err);
}

static int finish_reducing(Share *share, Error *err) {
    const int step = share->reducing;
    share->reducing = -1;
    if (step < 0) return 0;
    TRY(comm_finish(share->comm, COMM_REDUCE, err));
    return reduce_add(step_table(share, step), step_run(share, step), err);
}

/* What the last step has left to do; with overlap it only begins. */
static int finish_step(Share *share, Error *err) {
    const int step = share->pending;
    share->pending = -1;
    const ParamsRun *run = step < 0 ? NULL : step_run(share, step);
    if (!run) return 0;
    const ShareTable *t = step_table(share, step);
    if (!t->params->share.overlap) return reduce_run(share, t, run, err);
    TRY(finish_reducing(share, err));
    share->reducing = step;
    return reduce_start(share, t, run, true, err);
}

static int take_step(Share *share, Error *err) {
    const int step = share->next++;
    const ShareUse use = share->steps[step].use;
    TRY(finish_step(share, err));
    if (use == SHARE_GRADIENT || use == SHARE_BACKWARD || use == SHARE_LOOKED_UP) {
        share->pending = step;
        if (share->reducing >= 0 && same_memory(share, share->reducing, step))
            TRY(finish_reducing(share, err));
    }
    if (gathers(share, step)) TRY(gather_step(share, step, err));
    return gather_ahead(share, step + 1, err);
}

/* All steps before it, which this rank may have had no rows for, and this one. */
static int go_to(Share *share, int step, Error *err) {
    const int count = steps_of_pass(share);
    if (step < share->next || step >= count)
        return error_set(err, "weights are entered again in one pass, step %d of %d", step, count);
    while (share->next <= step) TRY(take_step(share, err));
    return 0;
}

/* The table with this block, and its number in it; count: none. */
static int table_of(const Share *share, const void *block, int *number) {
    int i = 0;
    for (; i < share->count; i++) {
        const ParamsShare *s = &share->tables[i].params->share;
        const uintptr_t at = (uintptr_t)block, first = (uintptr_t)s->blocks;
        if (!first || at < first || at >= first + s->block_bytes * (size_t)s->block_count) continue;
        *number = (int)((at - first) / s->block_bytes);
        break;
    }
    return i;
}

int share_left(void *user, const void *block, Error *err) {
    Share *share = user;
    int number = 0;
    if (share->level < 2) return 0;
    const int table = table_of(share, block, &number);
    if (table == share->count) return 0; /* frozen */
    const int step = step_of(share, table, number, SHARE_BACKWARD);
    if (share->next <= step) TRY(go_to(share, step, err));
    return finish_step(share, err);
}

/* Rank 0's step for all, or with END the end. */
static int lead(Share *share, int step, Error *err) {
    int32_t told = step;
    TRY(comm_broadcast(share->comm, &told, sizeof told, 0, err));
    return step == END ? 0 : gather_step(share, step, err);
}

static int enter_block(void *user, const Block *block, Error *err) {
    Share *share = user;
    int number = 0;
    const int table = table_of(share, block, &number);
    const int there = step_of(share, table, number, SHARE_FORWARD);
    const int back = step_of(share, table, number, SHARE_BACKWARD);
    if (share->leading) return lead(share, there, err);
    if (share->next == there + 1 || share->next == back + 1) return 0; /* it is in memory */
    return go_to(share, share->next <= there ? there : back, err);
}

static int enter_part(void *user, const TensorParts *parts, PartsUse use, int part, Error *err) {
    Share *share = user;
    for (int i = 0; i < share->count; i++) {
        const Params *p = share->tables[i].params;
        for (int k = 0; k < p->table_count; k++)
            if (&p->tables[k].parts == parts)
                return go_to(share, step_of(share, i, p->tables[k].first + part, (ShareUse)use),
                             err);
    }
    return error_set(err, "parts of a weight of no rank");
}

void share_evaluate(Share *share, bool forward) {
    share->forward = forward, share->next = 0;
}

int share_forward_over(Share *share, Error *err) {
    if (share->level < 3) return 0;
    while (share->next < share->forward_count) TRY(take_step(share, err));
    share->next = 0;
    return 0;
}

int share_pass_over(Share *share, Error *err) {
    if (share->level < 2) return 0;
    while (share->next < share->step_count) TRY(take_step(share, err));
    share->next = 0;
    TRY(finish_step(share, err));
    return finish_reducing(share, err);
}

/* ---- Rank 0 alone. ---- */

/* Brings a table's rows to `whole`, where it is not NULL. */
static int gather_whole(Share *share, const ShareTable *t, const ParamsTable *table, char *whole,
                        Error *err) {
    const Params *p = t->params;
    for (int k = 0; k < table->parts.count; k++) {
        const ParamsRun *run = params_run_of(p, table->first + k);
        const int64_t n = run->end - run->begin;
        const size_t size = dtype_size(p->compute);
        share->current = run;
        TRY(gather_run(share, t, run, false, err));
        if (!whole) continue;
        Tensor rows = tensor_2d((char *)p->working + (size_t)run->place * size, p->compute, 1, n);
        TRY(convert_forward(p->device, tensor_2d(whole, p->compute, 1, n), rows, err));
        whole += (size_t)n * size;
    }
    return 0;
}

/* Rank 0 gets whole tables. */
static int take_whole(Share *share, Error *err) {
    int taken = 0;
    for (int i = 0; i < share->count; i++) {
        const ShareTable *t = &share->tables[i];
        const Params *p = t->params;
        for (int k = 0; k < p->table_count; k++) {
            void **whole = &share->whole[taken++];
            const ParamsTable *table = &p->tables[k];
            int64_t values = 0;
            for (int j = 0; j < table->parts.count; j++) {
                const ParamsRun *run = params_run_of(p, table->first + j);
                values += run->end - run->begin;
            }
            if (comm_rank(share->comm) == 0)
                TRY(device_alloc(p->device, whole, (size_t)values * dtype_size(p->compute), err));
            TRY(gather_whole(share, t, table, *whole, err));
            if (*whole) params_table_place(p, table, *whole);
        }
    }
    return 0;
}

static void drop_whole(Share *share) {
    int taken = 0;
    for (int i = 0; i < share->count; i++) {
        const Params *p = share->tables[i].params;
        for (int k = 0; k < p->table_count; k++) {
            void **whole = &share->whole[taken++];
            if (!*whole) continue;
            params_table_place(p, &p->tables[k], NULL);
            device_free(p->device, *whole);
            *whole = NULL;
        }
    }
}

int share_lead(Share *share, Error *err) {
    if (share->level < 3) return 0;
    TRY(take_whole(share, err));
    share->leading = true;
    for (int32_t step = 0; comm_rank(share->comm) > 0 && step != END;) {
        TRY(comm_broadcast(share->comm, &step, sizeof step, 0, err));
        if (step != END) TRY(gather_step(share, step, err));
    }
    return 0;
}

int share_led(Share *share, Error *err) {
    if (share->level < 3) return 0;
    share->leading = false;
    drop_whole(share);
    return comm_rank(share->comm) == 0 ? lead(share, END, err) : 0;
}

/* ---- Weights. ---- */

static int gather_table(Share *share, const ShareTable *t, Error *err) {
    Params *p = t->params;
    if (share->level >= 3) {
        for (int i = 0; i < p->run_count; i++)
            if (p->runs[i].block < 0) TRY(gather_run(share, t, &p->runs[i], false, err));
        TRY(params_own_vectors(p, err));
        return comm_all_reduce(share->comm, p->own_vectors, p->vector_values, err);
    }
    if (!p->working) return comm_all_gather(share->comm, p->master, DTYPE_F32, t->bounds, err);
    TRY(comm_all_gather(share->comm, p->working, p->compute, t->bounds, err));
    TRY(params_own_vectors(p, err));
    return comm_all_reduce(share->comm, p->own_vectors, p->vector_values, err);
}

int share_gather(Share *share, Error *err) {
    share->current = NULL; /* its weights have changed */
    for (int i = 0; i < share->count && share->level > 0; i++)
        TRY(gather_table(share, &share->tables[i], err));
    return 0;
}

/* ---- Values of other ranks. ---- */

/* Bytes of so many values of a kind. */
static size_t kind_bytes(int kind, int64_t values) {
    return kind ? moments_piece_bytes((MomentPiece)kind, values) : (size_t)values * sizeof(float);
}

/* The parameter with this value; count: none. */
static int item_with(const Params *p, int64_t value) {
    int i = 0;
    while (i < p->count && (p->items[i].offset < 0 || value < p->items[i].offset ||
                            value >= p->items[i].offset + param_elements(&p->items[i])))
        i++;
    return i;
}

static int own_pieces(const ShareTable *t, MomentPiece piece, int64_t first, int64_t count,
                      void *host, Error *err) {
    const Params *p = t->params;
    const int i = item_with(p, first);
    if (i == p->count) return error_set(err, "value %lld has no moments", (long long)first);
    return moments_fetch(t->moments, p, i, piece,
                         moments_piece_values(piece, first - p->items[i].offset),
                         moments_piece_values(piece, count), host, err);
}

static int own_values(const ShareTable *t, int kind, int64_t first, int64_t count, void *host,
                      Error *err) {
    if (kind && t->moments) return own_pieces(t, (MomentPiece)kind, first, count, host, err);
    if (kind)
        return params_fetch_moment(t->params, kind == 1 ? t->m : t->v, kind, first, count, host,
                                   err);
    const Params *p = t->params;
    const int i = item_with(p, first);
    if (i == p->count) return error_set(err, "value %lld is no weight", (long long)first);
    return params_fetch_part(p, &p->items[i], first - p->items[i].offset, count, host, DTYPE_F32,
                             err);
}

static int fetch_from(Share *share, int table, int rank, Request ask, void *host, Error *err) {
    ask.table = table;
    if (rank == comm_rank(share->comm))
        return own_values(&share->tables[table], ask.kind, ask.first, ask.count, host, err);
    TRY(comm_send(share->comm, &ask, sizeof ask, rank, err));
    for (int64_t at = 0; at < ask.count; at += PIECE) { /* as `answer` sends them */
        const int64_t n = ask.count - at < PIECE ? ask.count - at : PIECE;
        TRY(comm_receive(share->comm, (char *)host + kind_bytes(ask.kind, at),
                         kind_bytes(ask.kind, n), rank, err));
    }
    return 0;
}

static int fetch(void *user, const Params *params, int kind, int64_t first, int64_t count,
                 void *host, Error *err) {
    Share *share = user;
    int table = 0;
    while (table < share->count && share->tables[table].params != params) table++;
    if (table == share->count || comm_rank(share->comm) != 0)
        return error_set(err, "these values are other ranks': rank 0 alone can have all of them");
    const int64_t *bounds = share->tables[table].bounds, end = first + count;
    for (int r = 0; r < comm_size(share->comm); r++) {
        int64_t from = bounds[r] > first ? bounds[r] : first;
        int64_t to = bounds[r + 1] < end ? bounds[r + 1] : end;
        Request ask = {.kind = kind, .first = from, .count = to - from};
        if (from < to)
            TRY(fetch_from(share, table, r, ask, (char *)host + kind_bytes(kind, from - first),
                           err));
    }
    return 0;
}

static int answer(Share *share, const Request *ask, float *piece, Error *err) {
    for (int64_t at = 0; at < ask->count; at += PIECE) {
        const int64_t n = ask->count - at < PIECE ? ask->count - at : PIECE;
        TRY(own_values(&share->tables[ask->table], ask->kind, ask->first + at, n, piece, err));
        TRY(comm_send(share->comm, piece, kind_bytes(ask->kind, n), 0, err));
    }
    return 0;
}

int share_serve(Share *share, Error *err) {
    if (share->level == 0) return 0;
    float *piece = malloc(PIECE * sizeof *piece);
    int status = piece ? 0 : error_set(err, "out of memory for a piece of the moments");
    Request ask = {0};
    while (status == 0) {
        status = comm_receive(share->comm, &ask, sizeof ask, 0, err);
        if (status || ask.table == END) break;
        status = answer(share, &ask, piece, err);
    }
    free(piece);
    return status;
}

int share_served(Share *share, Error *err) {
    const Request end = {.table = END};
    for (int r = 1; share->level > 0 && r < comm_size(share->comm); r++)
        TRY(comm_send(share->comm, &end, sizeof end, r, err));
    return 0;
}

/* ---- The same weights everywhere. ---- */

static uint64_t add_bits(uint64_t sum, const uint32_t *bits, int64_t count) {
    for (int64_t i = 0; i < count; i++) sum = (sum ^ bits[i]) * 0x100000001b3u;
    return sum;
}

/* Of what operations read: 32 bits at a time, so that every value counts. */
static int weights_sum(const ShareTable *t, uint32_t *piece, uint64_t *sum, Error *err) {
    const Params *p = t->params;
    const char *table = p->working ? p->working : (const void *)p->master;
    const int64_t words = (params_weights_divided(p) ? p->grad_values : p->flat) *
                          (int64_t)dtype_size(p->working ? p->compute : DTYPE_F32) /
                          (int64_t)sizeof *piece;
    for (int64_t at = 0; at < words; at += PIECE) {
        const int64_t n = words - at < PIECE ? words - at : PIECE;
        TRY(device_download(p->device, piece, table + at * (int64_t)sizeof *piece,
                            (size_t)n * sizeof *piece, err));
        *sum = add_bits(*sum, piece, n);
    }
    return 0;
}

int share_check(Share *share, Error *err) {
    if (!share->comm) return 0;
    const int size = comm_size(share->comm);
    uint64_t sum = 0xcbf29ce484222325u;
    uint32_t *piece = malloc(PIECE * sizeof *piece);
    double *all = malloc(2 * (size_t)size * sizeof *all);
    int status = piece && all ? 0 : error_set(err, "out of memory for checking the weights");
    for (int i = 0; i < share->count && status == 0; i++)
        status = weights_sum(&share->tables[i], piece, &sum, err);
    const double mine[2] = {(double)(sum >> 32), (double)(sum & 0xffffffffu)};
    if (status == 0) status = comm_share(share->comm, mine, 2, all, err);
    for (int i = 1; i < size && status == 0; i++)
        if (all[2 * i] != all[0] || all[2 * i + 1] != all[1])
            status = error_set(err,
                               "rank %d has other weights than rank 0: a machine's memory or its "
                               "processor is at fault, or they are of different kinds",
                               i);
    free(piece), free(all);
    return status;
}
