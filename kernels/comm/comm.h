/* comm.h - communication of the processes that train one model together: the ranks of an MPI job,
 * 0 to size - 1.
 *
 * The tables are those of params.h: one flat table for all gradients, one for all weights. Each
 * rank owns a contiguous part of a table, values [bounds[r], bounds[r + 1]):
 *
 *   reduce-scatter   every rank's own part becomes the sum over all ranks
 *   all-gather       every rank gets the other ranks' own parts
 *   all-reduce       both, so that all ranks have the same sum, bit for bit
 *
 * All ranks must make the same calls in the same order. While it waits a rank sleeps, so that ranks
 * that share cores do not slow each other. Sums are added in an order that depends only on the
 * number of ranks and of values.
 */
#ifndef EASYFIRST_KERNELS_COMM_COMM_H
#define EASYFIRST_KERNELS_COMM_COMM_H

#include "kernels/device.h"

typedef struct Comm Comm;

/* Bytes of tables that this rank has moved: of its own sums it sends nothing, of its own part it
 * receives nothing. For a table of n bytes in N equal parts (N - 1) / N n each: what a ring, too,
 * sends. */
typedef struct CommCounts {
    uint64_t sent;     /* by reduce-scatter */
    uint64_t received; /* by all-gather */
    double waited;     /* seconds in which this rank did nothing else; not by NCCL */
} CommCounts;

/* How the program was started, by what mpirun and srun set in the environment, without MPI: whether
 * with others, and this one's number (0 if alone), also among those on the same machine, and their
 * number. */
bool comm_started(void);
int comm_started_rank(void);
int comm_local_rank(void);
int comm_local_size(void);

/* Joins the others; once in a process. *comm is NULL for a program that was started alone. */
int comm_open(Comm **comm, Error *err);

/* The normal end, for which all ranks wait for each other; NULL is allowed. */
void comm_close(Comm *comm);

/* Makes mpirun (srun) end all ranks, from one of them, which should end then. */
void comm_abort(Comm *comm, int status);

int comm_rank(const Comm *comm);
int comm_size(const Comm *comm);
CommCounts comm_counts(const Comm *comm);

/* Whether an exchange has failed: then no other can be relied on, and comm_abort is due. */
bool comm_broken(const Comm *comm);

/* The device on which the tables lie, from now on. GPUs exchange by NCCL, if every rank has it and
 * a GPU of its own, else through their hosts' memory. */
int comm_use(Comm *comm, Device *device, Error *err);
bool comm_direct(const Comm *comm); /* by NCCL */

/* ---- On the host. ---- */

int comm_barrier(Comm *comm, Error *err);
int comm_broadcast(Comm *comm, void *data, size_t bytes, int root, Error *err);
/* all[r * count + i] is rank r's mine[i]. */
int comm_share(Comm *comm, const double *mine, int count, double *all, Error *err);
/* From one rank to another; the receiver must expect this many bytes. */
int comm_send(Comm *comm, const void *data, size_t bytes, int to, Error *err);
int comm_receive(Comm *comm, void *data, size_t bytes, int from, Error *err);

/* ---- On the device, from one rank to another, in the order of the device's work. ---- */

int comm_hand_on(Comm *comm, const void *data, size_t bytes, int to, Error *err);
int comm_take_over(Comm *comm, void *data, size_t bytes, int from, Error *err);

/* ---- Tables on the device. `bounds` [size + 1] count from the table's first value, ascending. ---- */

int comm_reduce_scatter(Comm *comm, float *table, const int64_t *bounds, Error *err);
int comm_all_gather(Comm *comm, void *table, Dtype dtype, const int64_t *bounds, Error *err);
int comm_all_reduce(Comm *comm, float *table, int64_t count, Error *err);

/* The first two beside operations: one of each kind may be under way from its start to its finish,
 * and the part of the table is left alone until then. GPUs exchange in a stream of its own (through
 * the host's memory: at the start); on CPUs MPI moves data whenever an operation begins. */
typedef enum CommKind { COMM_REDUCE, COMM_GATHER } CommKind;
int comm_start(Comm *comm, CommKind kind, void *table, Dtype dtype, const int64_t *bounds,
               Error *err);
int comm_finish(Comm *comm, CommKind kind, Error *err);

#endif
