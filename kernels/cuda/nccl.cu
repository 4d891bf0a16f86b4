#include "kernels/cuda/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* What is used of NCCL's interface, which has been the same since its version 2.0 (sending since
 * 2.7): no header is needed to build. */
struct NcclName {
    char text[COMM_NAME];
};
typedef struct ncclComm *NcclComm;
enum { NCCL_OK = 0, NCCL_BYTES = 0, NCCL_FLOATS = 7, NCCL_SUM = 0 };

extern "C" {
typedef int NcclGetUniqueId(NcclName *);
typedef int NcclCommInitRank(NcclComm *, int ranks, NcclName, int rank);
typedef int NcclCommDestroy(NcclComm);
typedef int NcclGroup(void);
typedef int NcclReduce(const void *, void *, size_t, int type, int op, int root, NcclComm,
                       cudaStream_t);
typedef int NcclBroadcast(const void *, void *, size_t, int type, int root, NcclComm, cudaStream_t);
typedef int NcclSend(const void *, size_t, int type, int to, NcclComm, cudaStream_t);
typedef int NcclReceive(void *, size_t, int type, int from, NcclComm, cudaStream_t);
typedef const char *NcclGetErrorString(int);
#ifdef EASYFIRST_EMULATED
NcclGetUniqueId ncclGetUniqueId;
NcclCommInitRank ncclCommInitRank;
NcclCommDestroy ncclCommDestroy;
NcclGroup ncclGroupStart, ncclGroupEnd;
NcclReduce ncclReduce;
NcclBroadcast ncclBroadcast;
NcclSend ncclSend;
NcclReceive ncclRecv;
NcclGetErrorString ncclGetErrorString;
#endif
}

struct Nccl {
    NcclComm comm;
    cudaStream_t stream;     /* of groups, in their order, */
    cudaEvent_t ready, done; /* after the device's work so far; and what they have done */
    NcclGetUniqueId *get_name;
    NcclCommInitRank *join;
    NcclCommDestroy *destroy;
    NcclGroup *group_start, *group_end;
    NcclReduce *reduce;
    NcclBroadcast *broadcast;
    NcclSend *send;
    NcclReceive *receive;
    NcclGetErrorString *error_text;
};

#ifdef EASYFIRST_EMULATED
static int find_all(Nccl *n, Error *err) {
    (void)err;
    *n = Nccl{nullptr,          nullptr,         nullptr,        nullptr,           ncclGetUniqueId,
              ncclCommInitRank, ncclCommDestroy, ncclGroupStart, ncclGroupEnd,      ncclReduce,
              ncclBroadcast,    ncclSend,        ncclRecv,       ncclGetErrorString};
    return 0;
}
#else
template <typename F> static bool find(void *library, const char *name, F **function) {
    *function = (F *)dlsym(library, name);
    return *function != nullptr;
}

static int find_all(Nccl *n, Error *err) {
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return error_set(err, "NCCL cannot be opened: %s", dlerror());
    if (find(library, "ncclGetUniqueId", &n->get_name) &&
        find(library, "ncclCommInitRank", &n->join) &&
        find(library, "ncclCommDestroy", &n->destroy) &&
        find(library, "ncclGroupStart", &n->group_start) &&
        find(library, "ncclGroupEnd", &n->group_end) && find(library, "ncclReduce", &n->reduce) &&
        find(library, "ncclBroadcast", &n->broadcast) && find(library, "ncclSend", &n->send) &&
        find(library, "ncclRecv", &n->receive) &&
        find(library, "ncclGetErrorString", &n->error_text))
        return 0;
    return error_set(err, "libnccl.so.2 lacks a function of NCCL 2.7");
}
#endif

static int failed(const Nccl *n, int code, const char *what, Error *err) {
    return code == NCCL_OK ? 0 : error_set(err, "NCCL: %s: %s", what, n->error_text(code));
}

static int nccl_find(Device *device, Nccl **found, Error *err) {
    CudaState *s = cuda_state(device);
    if (!s->nccl) {
        Nccl *n = (Nccl *)calloc(1, sizeof *n);
        if (!n) return error_set(err, "out of memory");
        if (find_all(n, err)) {
            free(n);
            return -1;
        }
        s->nccl = n;
    }
    *found = s->nccl;
    return 0;
}

int nccl_name(Device *device, void *name, Error *err) {
    Nccl *n = nullptr;
    NcclName made;
    TRY(nccl_find(device, &n, err));
    TRY(failed(n, n->get_name(&made), "a name for the ranks", err));
    memcpy(name, &made, sizeof made);
    return 0;
}

int nccl_join(Device *device, const void *name, int rank, int ranks, Error *err) {
    Nccl *n = nullptr;
    NcclName given;
    TRY(nccl_find(device, &n, err));
    memcpy(&given, name, sizeof given);
    CUDA_TRY(cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking), err);
    CUDA_TRY(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming), err);
    CUDA_TRY(cudaEventCreateWithFlags(&n->done, cudaEventDisableTiming), err);
    return failed(n, n->join(&n->comm, ranks, given, rank), "joining the ranks", err);
}

int nccl_group(Device *device, bool begin, Error *err) {
    const CudaState *s = cuda_state(device);
    const Nccl *n = s->nccl;
    if (begin) {
        CUDA_TRY(cudaEventRecord(n->ready, s->stream), err);
        CUDA_TRY(cudaStreamWaitEvent(n->stream, n->ready, 0), err);
        return failed(n, n->group_start(), "an exchange", err);
    }
    TRY(failed(n, n->group_end(), "an exchange", err));
    CUDA_TRY(cudaEventRecord(n->done, n->stream), err);
    return 0;
}

int nccl_wait(Device *device, Error *err) {
    const CudaState *s = cuda_state(device);
    CUDA_TRY(cudaStreamWaitEvent(s->stream, s->nccl->done, 0), err);
    return 0;
}

int nccl_reduce(Device *device, float *values, int64_t count, int root, Error *err) {
    const Nccl *n = cuda_state(device)->nccl;
    return failed(
        n,
        n->reduce(values, values, (size_t)count, NCCL_FLOATS, NCCL_SUM, root, n->comm, n->stream),
        "summing gradients", err);
}

int nccl_broadcast(Device *device, void *data, size_t bytes, int root, Error *err) {
    const Nccl *n = cuda_state(device)->nccl;
    return failed(n, n->broadcast(data, data, bytes, NCCL_BYTES, root, n->comm, n->stream),
                  "gathering weights", err);
}

int nccl_send(Device *device, const void *data, size_t bytes, int to, Error *err) {
    const CudaState *s = cuda_state(device);
    const Nccl *n = s->nccl;
    return failed(n, n->send(data, bytes, NCCL_BYTES, to, n->comm, s->stream), "sending", err);
}

int nccl_receive(Device *device, void *data, size_t bytes, int from, Error *err) {
    const CudaState *s = cuda_state(device);
    const Nccl *n = s->nccl;
    return failed(n, n->receive(data, bytes, NCCL_BYTES, from, n->comm, s->stream), "receiving",
                  err);
}

void nccl_close(Nccl *n) {
    if (!n) return;
    if (n->stream) cudaStreamSynchronize(n->stream);
    if (n->comm) n->destroy(n->comm);
    if (n->ready) cudaEventDestroy(n->ready);
    if (n->done) cudaEventDestroy(n->done);
    if (n->stream) cudaStreamDestroy(n->stream);
    free(n);
}
