/* Recordings of work that comes again, as CUDA graphs.
 *
 * Why: an evaluation of XLM-R base is some 130 launches of a few microseconds each, and the host
 * takes about as long to launch one. As a graph they are one launch, and the GPU goes from one
 * kernel to the next by itself. A decode with one hypothesis evaluates the same shapes at the same
 * addresses up to 50 times; a tower sees one batch size again and again.
 *
 * The first time a key comes its work is done as it is: libraries choose algorithms, memory grows,
 * and what comes only once costs nothing more. The second time it is recorded. Recording does not
 * run anything, and it may fail (a library that synchronises within a call, say): then the work is
 * done as it is, and that key is never tried again.
 */
#include "kernels/cuda/replay.h"

#include <stdlib.h>
#include <string.h>

/* Graphs kept: the one started longest ago goes. Each holds some 100 KiB of the device. SEEN are
 * the keys that came last, once each. */
enum { RECORDINGS = 32, SEEN = 128 };

/* Host values as a recording needs them. */
typedef struct OwnCopy {
    struct OwnCopy *next;
    void *device;
    size_t bytes;
    char host[]; /* [bytes] */
} OwnCopy;

typedef struct Recording {
    ReplayKey key;
    uint64_t used;         /* 0: empty; else when last */
    cudaGraphExec_t graph; /* NULL: it cannot be recorded */
    OwnCopy *copies;
} Recording;

struct Replays {
    Recording recording[RECORDINGS];
    ReplayKey seen[SEEN];
    int seen_next;
    uint64_t clock;
    Recording *under_way; /* NULL: nothing is being recorded */
};

static bool key_equal(ReplayKey a, ReplayKey b) {
    return a.low == b.low && a.high == b.high;
}

int replays_open(struct Replays **replays, Error *err) {
    *replays = (struct Replays *)calloc(1, sizeof **replays);
    return *replays ? 0 : error_set(err, "out of memory: %zu bytes asked", sizeof **replays);
}

static void recording_clear(Recording *r) {
    if (r->graph) cudaGraphExecDestroy(r->graph);
    for (OwnCopy *copy = r->copies; copy;) {
        OwnCopy *next = copy->next;
        cudaFree(copy->device);
        free(copy);
        copy = next;
    }
    *r = Recording{};
}

void replays_forget(Device *device, bool seen) {
    struct Replays *s = cuda_state(device)->replays;
    for (int i = 0; i < RECORDINGS; i++) recording_clear(&s->recording[i]);
    /* Else what was seen grew the memory that it needs, and may be recorded at once. */
    if (seen) memset(s->seen, 0, sizeof s->seen);
}

void replays_close(struct Replays *s) {
    if (!s) return;
    for (int i = 0; i < RECORDINGS; i++) recording_clear(&s->recording[i]);
    free(s);
}

bool replay_recording(const Device *device) {
    const CudaState *s = (const CudaState *)device->state;
    return s->replays && s->replays->under_way;
}

int replay_host_copy(Device *device, const void **memory, const void *host, size_t bytes,
                     Error *err) {
    Recording *r = cuda_state(device)->replays->under_way;
    for (OwnCopy *copy = r->copies; copy; copy = copy->next)
        if (copy->bytes == bytes && memcmp(copy->host, host, bytes) == 0) {
            *memory = copy->device;
            return 0;
        }
    OwnCopy *copy = (OwnCopy *)calloc(1, sizeof *copy + bytes);
    if (!copy) return error_set(err, "out of memory: %zu bytes asked", bytes);
    copy->next = r->copies, copy->bytes = bytes;
    memcpy(copy->host, host, bytes);
    r->copies = copy; /* freed with the recording, whatever comes */
    CUDA_TRY(cudaMalloc(&copy->device, bytes ? bytes : 1), err);
    *memory = copy->device;
    return 0;
}

/* Not while it is recorded: an upload would become a part of the graph, and be done every time. */
static int copies_send(Device *device, Recording *r, Error *err) {
    for (OwnCopy *copy = r->copies; copy; copy = copy->next)
        TRY(device->backend->upload(device, copy->device, copy->host, copy->bytes, err));
    return 0;
}

static Recording *recording_find(struct Replays *s, ReplayKey key) {
    for (int i = 0; i < RECORDINGS; i++)
        if (s->recording[i].used && key_equal(s->recording[i].key, key)) return &s->recording[i];
    return NULL;
}

static Recording *recording_oldest(struct Replays *s) {
    Recording *oldest = &s->recording[0];
    for (int i = 1; i < RECORDINGS; i++)
        if (s->recording[i].used < oldest->used) oldest = &s->recording[i];
    return oldest;
}

/* True the second time that it is asked. */
static bool key_seen(struct Replays *s, ReplayKey key) {
    for (int i = 0; i < SEEN; i++)
        if (key_equal(s->seen[i], key)) return true;
    s->seen[s->seen_next] = key;
    s->seen_next = (s->seen_next + 1) % SEEN;
    return false;
}

/* Records the work; without success r->graph stays NULL. Relaxed: operations may call what another
 * kind of capture forbids this thread for the sake of others' streams, and there are none. */
static void record(Device *device, Recording *r, DeviceWork run, void *work) {
    CudaState *s = cuda_state(device);
    const uint64_t launches = device->counters.launches;
    cudaGraph_t graph = NULL;
    if (cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeRelaxed) == cudaSuccess) {
        s->replays->under_way = r;
        const int status = run(work, NULL);
        s->replays->under_way = NULL;
        const cudaError_t ended = cudaStreamEndCapture(s->stream, &graph);
        if (status != 0 || ended != cudaSuccess || !graph ||
            cudaGraphInstantiate(&r->graph, graph, 0) != cudaSuccess)
            r->graph = NULL;
        if (graph) cudaGraphDestroy(graph);
    }
    device->counters.launches = launches;
    cudaGetLastError(); /* what a recording fails of is no fault of what comes next */
}

int cuda_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err) {
    struct Replays *s = cuda_state(device)->replays;
    Recording *r = recording_find(s, key);
    if (!r) {
        if (!key_seen(s, key)) return run(work, err);
        r = recording_oldest(s);
        recording_clear(r);
        r->key = key;
        record(device, r, run, work);
        if (r->graph && copies_send(device, r, err) != 0) {
            recording_clear(r);
            return -1;
        }
    }
    r->used = ++s->clock;
    if (!r->graph) return run(work, err);
    CUDA_TRY(cudaGraphLaunch(r->graph, cuda_state(device)->stream), err);
    cuda_count_launch(device);
    return 0;
}
