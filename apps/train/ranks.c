#include "apps/train/ranks.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/processes.h"
#include "apps/cli/report.h"
#include "apps/cli/signals.h"
#include "data/files/path.h"

enum { PATH_MOST = 4096 };

bool ranks_is_first(const Ranks *r) {
    return r->rank == 0;
}

bool ranks_agreed(const Ranks *r) {
    return r->size == 1 || (r->agreed && !comm_broken(r->comm));
}

/* ---- Opening and closing. ---- */

int ranks_open(Ranks *r, TrainSettings *s, Error *err) {
    *r = (Ranks){.size = 1};
    TRY(comm_open(&r->comm, err));
    if (!r->comm) return 0;
    r->rank = comm_rank(r->comm), r->size = comm_size(r->comm);
    r->threads = processes_threads();
    share_open(&r->share, r->comm, s->zero);
    s->rank = r->rank, s->ranks = r->size;
    s->share = &r->share;
    if (r->rank > 0) s->quiet = true;
    return 0;
}

void ranks_close(Ranks *r, int status, const Error *err) {
    share_close(&r->share);
    if (status && !ranks_agreed(r)) {
        report_error("train: rank %d of %d: %s; all ranks end", r->rank, r->size, err->text);
        comm_abort(r->comm, 1);
        _exit(1);
    }
    comm_close(r->comm);
    *r = (Ranks){0};
}

/* ---- Exchanges. ---- */

/* Every rank's `count` numbers; free them. */
static double *exchange(Ranks *r, const double *mine, int count, Error *err) {
    double *all = malloc((size_t)(r->size * count) * sizeof *all);
    if (!all) {
        error_set(err, "out of memory for %d ranks", r->size);
        return NULL;
    }
    if (comm_share(r->comm, mine, count, all, err) == 0) return all;
    free(all);
    return NULL;
}

/* all[r * count + place] is 1 for the ranks that failed. */
static int settle(Ranks *r, const double *all, int count, int place, Error *err) {
    int first = 0;
    while (first < r->size && all[first * count + place] == 0) first++;
    if (first == r->size) return 0;
    r->agreed = true;
    if (first != r->rank && err) *err = (Error){.code = err->code};
    if (first == r->rank && first > 0) error_context(err, "rank %d of %d", r->rank, r->size);
    return -1;
}

int ranks_agree(Ranks *r, int status, Error *err) {
    if (r->size == 1 || (status && comm_broken(r->comm))) return status;
    const double mine = status != 0;
    Error why = {{0}};
    double *all = exchange(r, &mine, 1, &why);
    if (!all) {
        if (err && !status) *err = why;
        return -1;
    }
    const int result = settle(r, all, 1, 0, err);
    free(all);
    return result;
}

int ranks_state(Ranks *r, char **last, TrainState *state, Error *err) {
    char path[PATH_MOST] = "";
    if (r->size == 1) return 0;
    if (r->rank == 0 && *last) {
        if (strlen(*last) >= sizeof path) return error_set(err, "%s: too long a path", *last);
        strcpy(path, *last);
    }
    json_t *data = state->data;
    TRY(comm_broadcast(r->comm, path, sizeof path, 0, err));
    TRY(comm_broadcast(r->comm, state, sizeof *state, 0, err));
    state->data = data;
    if (r->rank == 0 || !path[0]) return 0;
    *last = strdup(path);
    return *last ? 0 : error_set(err, "out of memory");
}

int ranks_sum(Ranks *r, int64_t *counts, int count, Error *err) {
    double mine[8] = {0};
    if (r->size == 1) return 0;
    if (count > 8) return error_set(err, "%d counts, expected at most 8", count);
    for (int i = 0; i < count; i++) mine[i] = (double)counts[i];
    double *all = exchange(r, mine, count, err);
    if (!all) return -1;
    for (int i = 0; i < count; i++) {
        double sum = 0;
        for (int k = 0; k < r->size; k++) sum += all[k * count + i];
        counts[i] = (int64_t)sum;
    }
    free(all);
    return 0;
}

int ranks_broadcast(Ranks *r, void *bytes, size_t count, Error *err) {
    return r->size == 1 ? 0 : comm_broadcast(r->comm, bytes, count, 0, err);
}

/* ---- A step. ---- */

static void pass_scale(TrainBatch *pass, double factor) {
    for (int i = 0; i < pass->targets; i++) {
        pass->weights[i] = (float)(pass->weights[i] * factor);
        if (pass->smoothing_weights)
            pass->smoothing_weights[i] = (float)(pass->smoothing_weights[i] * factor);
    }
    pass->prompt_weight = (float)(pass->prompt_weight * factor);
}

/* The numbers of a step that ranks exchange. */
enum { FAILED, PASSES, ROUNDS, BAD, SEQUENCES, TOKENS, ROWS, TARGETS, IMAGES, PARTS, NUMBERS };

static int rounds_of(const LoaderStep *step) {
    int rounds = 0;
    for (int i = 0; i < step->pass_count; i++) rounds += step->passes[i].tokens > 0;
    return rounds;
}

static void add_up(const Ranks *r, const double *all, LoaderStep *step, RanksStep *sum) {
    int64_t counts[NUMBERS] = {0};
    *sum = (RanksStep){0};
    for (int k = 0; k < r->size; k++) {
        const double *one = all + k * NUMBERS;
        for (int i = 0; i < NUMBERS; i++) counts[i] += (int64_t)one[i];
        if (one[ROUNDS] > sum->rounds) sum->rounds = (int)one[ROUNDS];
    }
    sum->passes = counts[PASSES] > 0, sum->targets = counts[ROUNDS] > 0, sum->bad = counts[BAD];
    step->sequences = counts[SEQUENCES], step->tokens = counts[TOKENS];
    step->rows = counts[ROWS], step->targets = counts[TARGETS], step->images = counts[IMAGES];
    /* Weights were divided by what this rank expected of the whole batch, or has of its own. */
    if (counts[PARTS] > 0 && step->divisor > 0 && step->divisor != (double)counts[PARTS])
        for (int i = 0; i < step->pass_count; i++)
            pass_scale(&step->passes[i], step->divisor / (double)counts[PARTS]);
}

int ranks_step(Ranks *r, int status, LoaderStep *step, RanksStep *sum, Error *err) {
    if (status) *step = (LoaderStep){0};
    const int rounds = rounds_of(step);
    *sum = (RanksStep){.passes = step->pass_count > 0,
                       .targets = rounds > 0,
                       .bad = step->skipped.total,
                       .rounds = rounds};
    if (r->size == 1 || (status && comm_broken(r->comm))) return status;
    const double mine[NUMBERS] = {status != 0,        step->pass_count,        rounds,
                                  (double)sum->bad,   (double)step->sequences, (double)step->tokens,
                                  (double)step->rows, (double)step->targets,   (double)step->images,
                                  (double)step->parts};
    Error why = {{0}};
    double *all = exchange(r, mine, NUMBERS, &why);
    if (!all) {
        if (err && !status) *err = why;
        return -1;
    }
    status = settle(r, all, NUMBERS, FAILED, err);
    if (status == 0) add_up(r, all, step, sum);
    free(all);
    return status;
}

int ranks_loss(Ranks *r, int status, double *loss, Error *err) {
    if (r->size == 1 || (status && comm_broken(r->comm))) return status;
    const double mine[3] = {status != 0, status ? 0 : *loss, signals_stop_asked()};
    Error why = {{0}};
    double *all = exchange(r, mine, 3, &why);
    if (!all) {
        if (err && !status) *err = why;
        return -1;
    }
    *loss = 0;
    for (int i = 0; i < r->size; i++) {
        *loss += all[3 * i + 1];
        if (!r->signal) r->signal = (int)all[3 * i + 2];
    }
    status = settle(r, all, 3, 0, err);
    free(all);
    return status;
}

int ranks_first_does(Ranks *r, int (*work)(void *user, Error *err), void *user, Error *err) {
    if (r->size == 1) return work(user, err);
    int status = 0;
    if (r->rank == 0) {
        status = work(user, err);
        Error why = {{0}};
        if (share_served(&r->share, &why) && !status) {
            if (err) *err = why;
            return -1;
        }
    } else {
        TRY(share_serve(&r->share, err));
    }
    return ranks_agree(r, status, err);
}

/* ---- What is reported. ---- */

/* Values by how they are exchanged (comm/share.h). */
typedef struct Values {
    int64_t all, blocks, parts, vectors; /* of blocks; of tables in parts; summed into place */
} Values;

static Values exchanged_values(const Share *share) {
    Values sum = {0};
    for (int i = 0; i < share->count; i++) {
        const Params *p = share->tables[i].params;
        sum.all += p->flat, sum.vectors += p->own_vectors ? p->vector_values : 0;
        for (int k = 0; k < p->run_count; k++) {
            const ParamsRun *run = &p->runs[k];
            if (run->block < 0) continue;
            *(run->block < p->share.block_count ? &sum.blocks : &sum.parts) +=
                run->end - run->begin;
        }
    }
    return sum;
}

char *ranks_text(Ranks *r, int64_t updates, int64_t rounds) {
    const CommCounts own = comm_counts(r->comm);
    int64_t all[2] = {(int64_t)own.sent, (int64_t)own.received};
    if (r->size == 1 || ranks_sum(r, all, 2, NULL)) return NULL;
    const Values v = exchanged_values(&r->share);
    char waited[64] = "";
    if (!comm_direct(r->comm))
        snprintf(waited, sizeof waited, "; this one waited %.3f s for them", own.waited);
    return path_format(NULL,
                       "ranks      %d, ZeRO %d%s; %" PRId64 " values, %" PRId64
                       " of them block by block, %" PRId64 " in parts of embeddings, and %" PRId64
                       " of vectors; between all ranks %" PRId64 " bytes of gradients and %" PRId64
                       " of sums and weights, in %" PRId64 " updates of %" PRId64 " passes%s",
                       r->size, r->share.level, comm_direct(r->comm) ? ", by NCCL" : "", v.all,
                       v.blocks, v.parts, v.vectors, all[0], all[1], updates, rounds, waited);
}
