#include "apps/cli/layers.h"

#include <stdlib.h>
#include <unistd.h>

#include "apps/cli/processes.h"
#include "apps/cli/report.h"
#include "apps/cli/session.h"

/* What the first rank says before anything else. */
enum { NOTHING_TO_DO, OPEN_IT };

static int tell_others(Layers *l, int what, Error *err) {
    if (l->asked) return 0;
    l->asked = true;
    for (int rank = 1; rank < comm_size(l->comm); rank++)
        TRY(comm_send(l->comm, &what, sizeof what, rank, err));
    return 0;
}

int layers_before(Layers *l, Error *err) {
    return l ? tell_others(l, OPEN_IT, err) : 0;
}

int layers_meet(Layers *l, Error *err) {
    TRY(comm_use(l->comm, l->device, err));
    return spread_leads(l->spread) ? spread_hello(l->spread, err) : 0;
}

int layers_after(Layers *l, int status, Error *err) {
    bool agreed;
    if (!l) return status;
    TRY(processes_agree(l->comm, status, &agreed, err));
    return layers_meet(l, err);
}

int layers_work(Layers *l, int (*work)(void *user, Error *err), void *user, Error *err) {
    Error why;
    if (!spread_leads(l->spread)) return spread_serve(l->spread, err);
    const int status = work(user, err);
    if (spread_end(l->spread, &why) == 0) return status;
    if (!status) *err = why;
    return -1;
}

/* ---- A whole command. ---- */

/* mpirun ends all: what went wrong is not known to all. */
static void end_all(Layers *l, Error *err) {
    if (err->text[0]) {
        error_context(err, "rank %d of %d", comm_rank(l->comm), comm_size(l->comm));
        report_failure(err);
    }
    comm_abort(l->comm, 1);
    _exit(1);
}

static int serve(Layers *l, const CommonOptions *o, Error *err) {
    CommonOptions mine = *o;
    Session session = {0};
    int what;
    mine.quiet = mine.no_answers = true;
    if (comm_receive(l->comm, &what, sizeof what, 0, err)) end_all(l, err);
    if (what == NOTHING_TO_DO) return 0;
    int status = session_open(&session, &mine, err);
    status = layers_after(l, status, err);
    if (status == 0 && spread_serve(l->spread, err)) end_all(l, err);
    session_close(&session);
    return status;
}

static int lead(Layers *l, int (*run)(void *user, Error *err), void *user, Error *err) {
    Error why = {{0}};
    const int status = run(user, err);
    int ended = tell_others(l, NOTHING_TO_DO, &why);
    if (ended == 0 && l->spread) ended = spread_end(l->spread, &why);
    if (ended || comm_broken(l->comm)) end_all(l, status ? err : &why);
    return status;
}

static int together(CommonOptions *o, int (*run)(void *user, Error *err), void *user, Error *err) {
    Layers l = {0};
    TRY(comm_open(&l.comm, err));
    char *device = processes_device(o->device);
    l.over = comm_size(l.comm);
    if (device) o->device = device;
    if (!o->threads) o->threads = processes_threads();
    o->layers = &l;
    const int status = comm_rank(l.comm) ? serve(&l, o, err) : lead(&l, run, user, err);
    if (status && err->text[0]) report_failure(err);
    o->layers = NULL, o->device = NULL;
    comm_close(l.comm);
    free(device);
    return status;
}

int layers_command(CommonOptions *o, int (*run)(void *user, Error *err), void *user) {
    Error err = {{0}};
    if (comm_started()) return together(o, run, user, &err);
    const int status = run(user, &err);
    if (status) report_failure(&err);
    return status;
}
