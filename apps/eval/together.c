#include "apps/eval/together.h"

#include <stdlib.h>
#include <unistd.h>

#include "apps/cli/layers.h"
#include "apps/cli/processes.h"
#include "apps/cli/signals.h"

static int alone(const EvalTogether *t, Error *err) {
    TRY(t->open(t->user, err));
    TRY(t->answer(t->user, err));
    return t->options->shards ? 0 : t->finish(t->user, err);
}

/* A part as --shard names it, on a device of its own, or of several, each with layers of the model. */
static int take_part(EvalOptions *o, Layers *layers, char **device, Error *err) {
    const int over = o->layers_over > 1 ? o->layers_over : 1, rank = comm_rank(o->comm);
    if (o->shard)
        return error_set(err,
                         "--shard %s: mpirun's processes divide the work themselves: leave "
                         "out --shard, or mpirun",
                         o->shard);
    if (comm_size(o->comm) % over)
        return error_set(err, "%d processes are no groups of %d (--layers-over): start a multiple",
                         comm_size(o->comm), over);
    o->shards = comm_size(o->comm) / over, o->shard_index = rank / over + 1;
    if (rank > 0) o->common.quiet = true;
    *layers = (Layers){.comm = o->comm, .over = over};
    if (over > 1) o->common.layers = layers;
    *device = processes_device(o->common.device);
    if (*device) o->common.device = *device;
    if (!o->common.threads) o->common.threads = processes_threads();
    return 0;
}

/* A failure of one process in the middle of its part ends all: answers so far are kept. A signal has
 * come to all. */
static void check_part(const EvalTogether *t, int status, int muted, Error *err) {
    if (status == 0 || signals_stop_asked()) return;
    processes_unmute(muted, false);
    error_context(err, "rank %d of %d", comm_rank(t->options->comm), comm_size(t->options->comm));
    report_failure(err);
    comm_abort(t->options->comm, 1);
    _exit(1);
}

/* With the ranks that have layers of this one's model. */
static int work(const EvalTogether *t, int (*step)(void *user, Error *err), void *user,
                Error *err) {
    Layers *layers = t->options->common.layers;
    return layers ? layers_work(layers, step, user, err) : step(user, err);
}

static int answer_and_finish(void *user, Error *err) {
    const EvalTogether *t = user;
    TRY(t->answer(t->user, err));
    return t->finish(t->user, err);
}

/* The first group joins all parts: what has no answer then is asked once more. */
static int join(const EvalTogether *t, int muted, Error *err) {
    EvalOptions *o = t->options;
    if (o->shard_index > 1) return 0;
    o->shards = o->shard_index = 0;
    const int status = work(t, answer_and_finish, (void *)t, err);
    if (o->common.layers) check_part(t, status, muted, err);
    return status;
}

static int divided(const EvalTogether *t, int muted, bool *agreed, Error *err) {
    EvalOptions *o = t->options;
    Layers layers;
    char *device = NULL;
    int status = take_part(o, &layers, &device, err);
    if (status == 0) status = t->open(t->user, err);
    status = processes_agree(o->comm, status, agreed, err);
    if (status == 0) {
        if (o->common.layers) status = layers_meet(&layers, err);
        if (status == 0) status = work(t, t->answer, t->user, err);
        check_part(t, status, muted, err);
        status = processes_agree(o->comm, status, agreed, err);
    }
    if (status == 0) status = processes_agree(o->comm, join(t, muted, err), agreed, err);
    o->common.layers = NULL;
    free(device);
    return status;
}

int eval_together(const EvalTogether *t) {
    Error err = {{0}};
    EvalOptions *o = t->options;
    if (!comm_started()) {
        const int status =
            o->layers_over > 1
                ? error_set(&err, "--layers-over %d: start as many processes with mpirun",
                            o->layers_over)
                : alone(t, &err);
        if (status) report_failure(&err);
        return status;
    }
    bool agreed = false;
    const int muted = processes_mute();
    int status = comm_open(&o->comm, &err);
    if (status == 0) status = divided(t, muted, &agreed, &err);
    processes_unmute(muted, false);
    if (status && err.text[0]) report_failure(&err);
    if (status && !agreed && o->comm) {
        comm_abort(o->comm, 1);
        _exit(1);
    }
    comm_close(o->comm);
    o->comm = NULL;
    return status;
}
