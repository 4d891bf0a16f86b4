#include "apps/eval/together.h"

#include <stdlib.h>
#include <unistd.h>

#include "apps/cli/processes.h"
#include "apps/cli/signals.h"

static int alone(const EvalTogether *t, Error *err) {
    TRY(t->open(t->user, err));
    TRY(t->answer(t->user, err));
    return t->options->shards ? 0 : t->finish(t->user, err);
}

/* A part as --shard names it, on a device of its own. */
static int take_part(EvalOptions *o, char **device, Error *err) {
    if (o->shard)
        return error_set(err,
                         "--shard %s: mpirun's processes divide the work themselves: leave "
                         "out --shard, or mpirun",
                         o->shard);
    o->shards = comm_size(o->comm), o->shard_index = comm_rank(o->comm) + 1;
    if (o->shard_index > 1) o->common.quiet = true;
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
    error_context(err, "rank %d of %d", comm_rank(t->options->comm), t->options->shards);
    report_failure(err);
    comm_abort(t->options->comm, 1);
    _exit(1);
}

/* The first joins all parts: what has no answer then is asked once more. */
static int join(const EvalTogether *t, Error *err) {
    if (comm_rank(t->options->comm) > 0) return 0;
    t->options->shards = t->options->shard_index = 0;
    TRY(t->answer(t->user, err));
    return t->finish(t->user, err);
}

static int divided(const EvalTogether *t, int muted, bool *agreed, Error *err) {
    EvalOptions *o = t->options;
    char *device = NULL;
    int status = take_part(o, &device, err);
    if (status == 0) status = t->open(t->user, err);
    status = processes_agree(o->comm, status, agreed, err);
    if (status == 0) {
        status = t->answer(t->user, err);
        check_part(t, status, muted, err);
        status = processes_agree(o->comm, status, agreed, err);
    }
    if (status == 0) status = processes_agree(o->comm, join(t, err), agreed, err);
    free(device);
    return status;
}

int eval_together(const EvalTogether *t) {
    Error err = {{0}};
    EvalOptions *o = t->options;
    if (!comm_started()) {
        const int status = alone(t, &err);
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
