#include "kernels/comm/comm.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/comm/mpi.h"

enum {
    PIECE = 1 << 22,         /* bytes of a part that are under way at once */
    MESSAGE_PIECE = 1 << 24, /* bytes of a message */
    TAG = 20,                /* of all messages */
    SPINS = 200,             /* looks before a wait sleeps, */
    TABLE_SPINS = 1000000,   /* for a table: it only lets others run in between, */
    TABLE_LOOKS = 16,        /* after so many looks, each of which may move a segment, */
    BUSY = 500000,     /* unless others then keep the core for so long: who sleeps comes sooner; */
    FIRST_NAP = 20000, /* this long at first, */
    LONGEST_NAP = 1000000, /* and at most; nanoseconds */
    BESIDE = 2,            /* rounds that are under way beside operations, */
    POKES = 8,             /* and looks after them before each */
};

/* A table in rounds: in each, a piece of every rank's part is under way, each towards its owner or
 * from it, so that all ranks send and receive at once. */
typedef struct Round {
    char *table;
    size_t value; /* bytes of one */
    const int64_t *bounds;
    int64_t at, most; /* values of each part that are done, and of a piece */
    bool reduce;      /* else gather */
} Round;

/* A table that is exchanged beside operations. */
typedef struct Beside {
    Round round;           /* the first that is not under way */
    int64_t *bounds;       /* [size + 1] */
    MpiHandle *requests;   /* [size * BESIDE] */
    int count, done, code; /* requests, in this order, and what MPI has said */
} Beside;

struct Comm {
    Mpi mpi;
    int rank, size;
    Device *device;
    bool direct; /* its backend exchanges with the other ranks' */
    CommCounts counts;
    bool broken;         /* a call of MPI has failed */
    MpiHandle *requests; /* [size] */
    char *host;          /* [size * PIECE], for the tables of a GPU */
    Beside beside[2];    /* by CommKind */
};

/* ---- How the program was started. ---- */

static int number(const char *name, int none) {
    const char *text = getenv(name);
    return text && text[0] ? atoi(text) : none;
}

/* mpirun's, PMIx's under srun, PMI's. */
static int started_size(void) {
    const int size = number("OMPI_COMM_WORLD_SIZE", number("PMI_SIZE", 0));
    if (size > 0) return size;
    return getenv("PMIX_RANK") ? number("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS", 1)) : 1;
}

bool comm_started(void) {
    return started_size() > 1;
}

int comm_started_rank(void) {
    if (!comm_started()) return 0;
    return number("OMPI_COMM_WORLD_RANK", number("PMIX_RANK", number("PMI_RANK", 0)));
}

int comm_local_rank(void) {
    if (!comm_started()) return 0;
    return number("OMPI_COMM_WORLD_LOCAL_RANK", number("SLURM_LOCALID", 0));
}

int comm_local_size(void) {
    if (!comm_started()) return 1;
    const int size = number("OMPI_COMM_WORLD_LOCAL_SIZE", number("SLURM_NTASKS_PER_NODE", 1));
    return size > 0 ? size : 1;
}

/* ---- Waiting. ---- */

static int failed(Comm *comm, int code, const char *what, Error *err) {
    char text[MPI_TEXT + 1] = "";
    int length = 0;
    if (code == MPI_OK) return 0;
    comm->broken = true;
    comm->mpi.Error_string(code, text, &length);
    return error_set(err, "rank %d of %d: %s: %s", comm->rank, comm->size, what, text);
}

static void nap(long nanoseconds) {
    const struct timespec time = {.tv_nsec = nanoseconds};
    nanosleep(&time, NULL);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Lets others run; whether that took long. */
static bool give_way(void) {
    const int64_t before = now();
    sched_yield();
    return now() - before > BUSY;
}

/* MPI moves data only while it is called: `table` pieces are looked after often. */
static int wait_until_done(Comm *comm, MpiHandle *request, bool table, const char *what,
                           Error *err) {
    long sleep = FIRST_NAP;
    bool busy = false;
    for (int64_t looks = 0;; looks++) {
        int done = 0;
        TRY(failed(comm, comm->mpi.Test(request, &done, MPI_NO_STATUS), what, err));
        if (done) return 0;
        if (looks < SPINS || (table && looks % TABLE_LOOKS)) continue;
        if (table && !busy && looks < TABLE_SPINS)
            busy = give_way();
        else
            nap(sleep);
        if (!table && sleep < LONGEST_NAP) sleep += sleep / 4;
    }
}

static int wait_for(Comm *comm, MpiHandle *request, bool table, const char *what, Error *err) {
    const int64_t before = now();
    const int status = wait_until_done(comm, request, table, what, err);
    if (table) comm->counts.waited += (double)(now() - before) / 1e9;
    return status;
}

/* ---- Opening and closing. ---- */

static int join(Comm *comm, Error *err) {
    int given;
    TRY(mpi_find(&comm->mpi, err));
    if (comm->mpi.Init_thread(NULL, NULL, MPI_FUNNELED, &given) != MPI_OK)
        return error_set(err, "Open MPI cannot be started");
    comm->mpi.Comm_set_errhandler(comm->mpi.world, comm->mpi.errors_return);
    comm->mpi.Comm_rank(comm->mpi.world, &comm->rank);
    comm->mpi.Comm_size(comm->mpi.world, &comm->size);
    const size_t size = (size_t)comm->size;
    comm->requests = calloc(size, sizeof *comm->requests);
    bool all = comm->requests != NULL;
    for (int i = 0; i < 2; i++) {
        comm->beside[i].bounds = calloc(size + 1, sizeof *comm->beside[i].bounds);
        comm->beside[i].requests = calloc(size * BESIDE, sizeof *comm->beside[i].requests);
        all = all && comm->beside[i].bounds && comm->beside[i].requests;
    }
    return all ? 0 : error_set(err, "out of memory for %d ranks", comm->size);
}

static void comm_free(Comm *comm) {
    for (int i = 0; i < 2; i++) free(comm->beside[i].bounds), free(comm->beside[i].requests);
    free(comm->requests), free(comm->host), free(comm);
}

int comm_open(Comm **comm, Error *err) {
    *comm = NULL;
    if (!comm_started()) return 0;
    Comm *c = calloc(1, sizeof *c);
    if (!c) return error_set(err, "out of memory");
    if (join(c, err)) {
        comm_free(c);
        return -1;
    }
    *comm = c;
    return 0;
}

void comm_close(Comm *comm) {
    if (!comm) return;
    comm->mpi.Finalize();
    comm_free(comm);
}

void comm_abort(Comm *comm, int status) {
    comm->mpi.Abort(comm->mpi.world, status);
}

int comm_rank(const Comm *comm) {
    return comm ? comm->rank : 0;
}

int comm_size(const Comm *comm) {
    return comm ? comm->size : 1;
}

CommCounts comm_counts(const Comm *comm) {
    return comm ? comm->counts : (CommCounts){0};
}

bool comm_broken(const Comm *comm) {
    return comm && comm->broken;
}

bool comm_direct(const Comm *comm) {
    return comm && comm->direct;
}

/* ---- On the host. ---- */

int comm_barrier(Comm *comm, Error *err) {
    MpiHandle request;
    TRY(failed(comm, comm->mpi.Ibarrier(comm->mpi.world, &request), "waiting for all ranks", err));
    return wait_for(comm, &request, false, "waiting for all ranks", err);
}

int comm_broadcast(Comm *comm, void *data, size_t bytes, int root, Error *err) {
    const char *what = "a broadcast";
    for (size_t at = 0; at < bytes; at += MESSAGE_PIECE) {
        const size_t n = bytes - at < MESSAGE_PIECE ? bytes - at : MESSAGE_PIECE;
        MpiHandle request;
        TRY(failed(comm,
                   comm->mpi.Ibcast((char *)data + at, (int)n, comm->mpi.byte, root,
                                    comm->mpi.world, &request),
                   what, err));
        TRY(wait_for(comm, &request, false, what, err));
    }
    return 0;
}

int comm_share(Comm *comm, const double *mine, int count, double *all, Error *err) {
    const Mpi *mpi = &comm->mpi;
    const char *what = "an exchange of numbers";
    MpiHandle request;
    TRY(failed(comm,
               mpi->Iallgather(mine, count, mpi->wide, all, count, mpi->wide, mpi->world, &request),
               what, err));
    return wait_for(comm, &request, false, what, err);
}

int comm_send(Comm *comm, const void *data, size_t bytes, int to, Error *err) {
    for (size_t at = 0; at < bytes; at += MESSAGE_PIECE) {
        const size_t n = bytes - at < MESSAGE_PIECE ? bytes - at : MESSAGE_PIECE;
        MpiHandle request;
        TRY(failed(comm,
                   comm->mpi.Isend((const char *)data + at, (int)n, comm->mpi.byte, to, TAG,
                                   comm->mpi.world, &request),
                   "sending", err));
        TRY(wait_for(comm, &request, false, "sending", err));
    }
    return 0;
}

int comm_receive(Comm *comm, void *data, size_t bytes, int from, Error *err) {
    for (size_t at = 0; at < bytes; at += MESSAGE_PIECE) {
        const size_t n = bytes - at < MESSAGE_PIECE ? bytes - at : MESSAGE_PIECE;
        MpiHandle request;
        TRY(failed(comm,
                   comm->mpi.Irecv((char *)data + at, (int)n, comm->mpi.byte, from, TAG,
                                   comm->mpi.world, &request),
                   "receiving", err));
        TRY(wait_for(comm, &request, false, "receiving", err));
    }
    return 0;
}

/* ---- The backend's own exchange. ---- */

/* Whether something worked on all ranks. */
static int all_have(Comm *comm, bool mine, bool *all, Error *err) {
    const double worked = mine;
    double *each = malloc((size_t)comm->size * sizeof *each);
    if (!each) return error_set(err, "out of memory for %d ranks", comm->size);
    int status = comm_share(comm, &worked, 1, each, err);
    *all = true;
    for (int i = 0; i < comm->size && status == 0; i++) *all &= each[i] != 0;
    free(each);
    return status;
}

int comm_use(Comm *comm, Device *device, Error *err) {
    const Backend *b = device->backend;
    char name[COMM_NAME] = {0};
    bool all;
    comm->device = device;
    TRY(all_have(comm, b->comm_name && b->comm_name(device, name, NULL) == 0, &all, err));
    if (!all) return 0;
    TRY(comm_broadcast(comm, name, sizeof name, 0, err));
    const bool joined = b->comm_join(device, name, comm->rank, comm->size, NULL) == 0;
    return all_have(comm, joined, &comm->direct, err);
}

/* ---- From one rank to another. ---- */

/* Host memory that stands in for a GPU's; freed by the caller. NULL: the device's own is used. */
static int host_copy(const Comm *comm, size_t bytes, void **copy, Error *err) {
    *copy = NULL;
    if (!comm->device || device_kind(comm->device) == DEVICE_CPU) return 0;
    *copy = malloc(bytes);
    return *copy ? 0 : error_set(err, "out of memory for a message of %zu bytes", bytes);
}

int comm_hand_on(Comm *comm, const void *data, size_t bytes, int to, Error *err) {
    void *copy;
    if (!bytes) return 0;
    if (comm->direct) return comm->device->backend->comm_send(comm->device, data, bytes, to, err);
    TRY(host_copy(comm, bytes, &copy, err));
    int status = copy ? device_download(comm->device, copy, data, bytes, err) : 0;
    if (status == 0) status = comm_send(comm, copy ? copy : data, bytes, to, err);
    free(copy);
    return status;
}

int comm_take_over(Comm *comm, void *data, size_t bytes, int from, Error *err) {
    void *copy;
    if (!bytes) return 0;
    if (comm->direct)
        return comm->device->backend->comm_receive(comm->device, data, bytes, from, err);
    TRY(host_copy(comm, bytes, &copy, err));
    int status = comm_receive(comm, copy ? copy : data, bytes, from, err);
    if (status == 0 && copy) status = device_upload(comm->device, data, copy, bytes, err);
    free(copy);
    return status;
}

/* ---- Tables. ---- */

static const char *work_name(const Round *r) {
    return r->reduce ? "summing gradients" : "gathering weights";
}

/* The values of rank r's piece in this round. */
static int64_t piece_values(const Round *r, int rank) {
    const int64_t left = r->bounds[rank + 1] - r->bounds[rank] - r->at;
    return left < 0 ? 0 : left < r->most ? left : r->most;
}

static bool is_staged(const Comm *comm) {
    return comm->device && !comm->direct && device_kind(comm->device) != DEVICE_CPU;
}

static char *piece_on_device(const Round *r, int rank) {
    return r->table + (size_t)(r->bounds[rank] + r->at) * r->value;
}

static char *piece_on_host(const Comm *comm, const Round *r, int rank) {
    return is_staged(comm) ? comm->host + (size_t)rank * PIECE : piece_on_device(r, rank);
}

/* Brings a GPU's pieces to the host, those that this rank gives, or the ones that it got back. */
static int stage(Comm *comm, const Round *r, bool down, Error *err) {
    for (int i = 0; i < comm->size && is_staged(comm); i++) {
        const size_t bytes = (size_t)piece_values(r, i) * r->value;
        const bool own = i == comm->rank;
        char *device = piece_on_device(r, i), *host = piece_on_host(comm, r, i);
        if (down && (r->reduce || own))
            TRY(device_download(comm->device, host, device, bytes, err));
        if (!down && r->reduce == own) TRY(device_upload(comm->device, device, host, bytes, err));
    }
    return 0;
}

static int piece_start(Comm *comm, const Round *r, int owner, MpiHandle *request, Error *err) {
    const Mpi *mpi = &comm->mpi;
    const int64_t n = piece_values(r, owner);
    const bool own = owner == comm->rank;
    char *data = piece_on_host(comm, r, owner);
    if (r->reduce)
        return failed(comm,
                      mpi->Ireduce(own ? MPI_PLACE : data, data, (int)n, mpi->real, mpi->sum, owner,
                                   mpi->world, request),
                      work_name(r), err);
    return failed(
        comm,
        mpi->Ibcast(data, (int)(n * (int64_t)r->value), mpi->byte, owner, mpi->world, request),
        work_name(r), err);
}

static void count_piece(Comm *comm, const Round *r, int owner) {
    if (owner == comm->rank) return;
    *(r->reduce ? &comm->counts.sent : &comm->counts.received) +=
        (uint64_t)piece_values(r, owner) * r->value;
}

/* The same by the backend. */
static int direct_run(Comm *comm, const Round *r, Error *err) {
    const Backend *b = comm->device->backend;
    TRY(b->comm_group(comm->device, true, err));
    for (int i = 0; i < comm->size; i++) {
        const int64_t n = piece_values(r, i);
        char *data = piece_on_device(r, i);
        if (!n) continue;
        TRY(r->reduce ? b->comm_reduce(comm->device, (float *)data, n, i, err)
                      : b->comm_broadcast(comm->device, data, (size_t)n * r->value, i, err));
        count_piece(comm, r, i);
    }
    return b->comm_group(comm->device, false, err);
}

static int round_run(Comm *comm, const Round *r, Error *err) {
    if (comm->direct) return direct_run(comm, r, err);
    TRY(stage(comm, r, true, err));
    for (int i = 0; i < comm->size; i++)
        if (piece_values(r, i)) TRY(piece_start(comm, r, i, &comm->requests[i], err));
    for (int i = 0; i < comm->size; i++) {
        if (!piece_values(r, i)) continue;
        TRY(wait_for(comm, &comm->requests[i], true, work_name(r), err));
        count_piece(comm, r, i);
    }
    return stage(comm, r, false, err);
}

/* Values of the longest part. */
static int64_t longest_part(const Comm *comm, const Round *r) {
    int64_t longest = 0;
    for (int i = 0; i < comm->size; i++)
        if (r->bounds[i + 1] - r->bounds[i] > longest) longest = r->bounds[i + 1] - r->bounds[i];
    return longest;
}

/* The rounds from r->at on. */
static int run_rounds(Comm *comm, Round *r, Error *err) {
    const int64_t longest = longest_part(comm, r);
    if (is_staged(comm) && !comm->host) {
        comm->host = malloc((size_t)comm->size * PIECE);
        if (!comm->host)
            return error_set(err, "out of memory for the pieces of %d ranks", comm->size);
    }
    if (comm->device && !comm->direct) TRY(device_wait(comm->device, err));
    for (; r->at < longest; r->at += r->most) TRY(round_run(comm, r, err));
    return 0;
}

static Round first_round(void *table, Dtype dtype, const int64_t *bounds, bool reduce) {
    const size_t value = dtype_size(dtype);
    return (Round){.table = table,
                   .value = value,
                   .bounds = bounds,
                   .most = PIECE / (int64_t)value,
                   .reduce = reduce};
}

static int exchange(Comm *comm, Round round, Error *err) {
    TRY(run_rounds(comm, &round, err));
    return comm->direct ? comm->device->backend->comm_wait(comm->device, err) : 0;
}

int comm_reduce_scatter(Comm *comm, float *table, const int64_t *bounds, Error *err) {
    return exchange(comm, first_round(table, DTYPE_F32, bounds, true), err);
}

int comm_all_gather(Comm *comm, void *table, Dtype dtype, const int64_t *bounds, Error *err) {
    return exchange(comm, first_round(table, dtype, bounds, false), err);
}

int comm_all_reduce(Comm *comm, float *table, int64_t count, Error *err) {
    int64_t *bounds = malloc(((size_t)comm->size + 1) * sizeof *bounds);
    if (!bounds) return error_set(err, "out of memory for %d ranks", comm->size);
    for (int i = 0; i <= comm->size; i++) bounds[i] = count / comm->size * i;
    bounds[comm->size] = count;
    int status = comm_reduce_scatter(comm, table, bounds, err);
    if (status == 0) status = comm_all_gather(comm, table, DTYPE_F32, bounds, err);
    free(bounds);
    return status;
}

/* ---- Tables, beside operations. ---- */

/* Before an operation: MPI moves what is under way. A failure is said at the end. */
static void poke(void *user) {
    Comm *comm = user;
    for (int look = 0; look < POKES; look++)
        for (int i = 0; i < 2; i++) {
            Beside *b = &comm->beside[i];
            int done = 1;
            while (b->done < b->count && b->code == MPI_OK && done) {
                b->code = comm->mpi.Test(&b->requests[b->done], &done, MPI_NO_STATUS);
                b->done += b->code == MPI_OK && done;
            }
        }
}

static void set_poke(Comm *comm) {
    const bool busy = comm->beside[COMM_REDUCE].count || comm->beside[COMM_GATHER].count;
    comm->device->poke = busy ? poke : NULL, comm->device->poke_user = comm;
}

/* Starts as many rounds as may be under way. */
static int start_rounds(Comm *comm, Beside *b, Error *err) {
    Round *r = &b->round;
    const int64_t longest = longest_part(comm, r);
    for (int round = 0; round < BESIDE && r->at < longest; round++, r->at += r->most)
        for (int i = 0; i < comm->size; i++) {
            if (!piece_values(r, i)) continue;
            TRY(piece_start(comm, r, i, &b->requests[b->count], err));
            b->count++;
            count_piece(comm, r, i);
        }
    set_poke(comm);
    return 0;
}

int comm_start(Comm *comm, CommKind kind, void *table, Dtype dtype, const int64_t *bounds,
               Error *err) {
    Beside *b = &comm->beside[kind];
    memcpy(b->bounds, bounds, ((size_t)comm->size + 1) * sizeof *bounds);
    b->round = first_round(table, dtype, b->bounds, kind == COMM_REDUCE);
    b->count = b->done = 0, b->code = MPI_OK;
    if (!comm->device || comm->direct || is_staged(comm)) return run_rounds(comm, &b->round, err);
    return start_rounds(comm, b, err);
}

int comm_finish(Comm *comm, CommKind kind, Error *err) {
    Beside *b = &comm->beside[kind];
    if (comm->direct) return comm->device->backend->comm_wait(comm->device, err);
    TRY(failed(comm, b->code, work_name(&b->round), err));
    for (; b->done < b->count; b->done++)
        TRY(wait_for(comm, &b->requests[b->done], true, work_name(&b->round), err));
    b->count = b->done = 0;
    if (comm->device) set_poke(comm);
    return run_rounds(comm, &b->round, err); /* what is left */
}
