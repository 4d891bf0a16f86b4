/* Records repeated work as CUDA graphs.
 *
 * Why: an evaluation of XLM-R base is some 130 launches of a few microseconds each, and the host
 * takes about as long to launch one. As a graph they are one launch, and the GPU starts each next
 * kernel by itself. A decode with one hypothesis evaluates the same shapes at the same addresses up
 * to 50 times; a vision tower runs one batch size repeatedly.
 *
 * The first time a key comes its work is run directly: libraries choose algorithms, memory grows,
 * and work that is not repeated costs nothing more. The second time it is recorded. Recording does
 * not run anything, and it may fail (a library that synchronizes within a call, say): then the work
 * is run directly, and that key is not tried again.
 */
#include "kernels/cuda/replay.h"

#include <stdlib.h>
#include <string.h>

/* Graphs kept (the least recently used is evicted; each takes some 100 KiB of the device), and the
 * most recent keys that came once. */
enum { RECORDINGS = 32, SEEN = 128 };

/* A recording's copy of host values. */
typedef struct OwnCopy {
    struct OwnCopy *next;
    void *device;
    size_t bytes;
    char host[]; /* [bytes] */
} OwnCopy;

typedef struct Recording {
    ReplayKey key;
    uint64_t used;         /* 0: empty; else the time of the last use */
    cudaGraphExec_t graph; /* NULL: recording failed */
    OwnCopy *copies;
} Recording;

struct Replays {
    Recording recording[RECORDINGS];
    ReplayKey seen[SEEN];
    int seen_next;
    uint64_t clock;
    Recording *recording_now; /* NULL: nothing is being recorded */
};

static bool key_equal(ReplayKey a, ReplayKey b) {
    return a.low == b.low && a.high == b.high;
}

int replays_open(struct Replays **replays, Error *err) {
    *replays = (struct Replays *)calloc(1, sizeof **replays);
    return *replays ? 0 : error_set(err, "out of memory: %zu bytes requested", sizeof **replays);
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
    /* Otherwise the work's first run has grown the memory it needs, and it may be recorded at
     * once. */
    if (seen) memset(s->seen, 0, sizeof s->seen);
}

void replays_close(struct Replays *s) {
    if (!s) return;
    for (int i = 0; i < RECORDINGS; i++) recording_clear(&s->recording[i]);
    free(s);
}

bool replay_recording(const Device *device) {
    const CudaState *s = (const CudaState *)device->state;
    return s->replays && s->replays->recording_now;
}

int replay_host_copy(Device *device, const void **memory, const void *host, size_t bytes,
                     Error *err) {
    Recording *r = cuda_state(device)->replays->recording_now;
    for (OwnCopy *copy = r->copies; copy; copy = copy->next)
        if (copy->bytes == bytes && memcmp(copy->host, host, bytes) == 0) {
            *memory = copy->device;
            return 0;
        }
    OwnCopy *copy = (OwnCopy *)calloc(1, sizeof *copy + bytes);
    if (!copy) return error_set(err, "out of memory: %zu bytes requested", bytes);
    copy->next = r->copies, copy->bytes = bytes;
    memcpy(copy->host, host, bytes);
    r->copies = copy; /* freed with the recording, also after a failure below */
    CUDA_TRY(cudaMalloc(&copy->device, bytes ? bytes : 1), err);
    *memory = copy->device;
    return 0;
}

/* After recording: within it an upload would become part of the graph and be repeated each time. */
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

/* False the first time, then true. */
static bool key_seen(struct Replays *s, ReplayKey key) {
    for (int i = 0; i < SEEN; i++)
        if (key_equal(s->seen[i], key)) return true;
    s->seen[s->seen_next] = key;
    s->seen_next = (s->seen_next + 1) % SEEN;
    return false;
}

/* Records the work; after a failure r->graph is NULL. The relaxed capture mode allows calls that
 * the others forbid to protect other streams, of which there are none. */
static void record(Device *device, Recording *r, DeviceWork run, void *work) {
    CudaState *s = cuda_state(device);
    const uint64_t launches = device->counters.launches;
    cudaGraph_t graph = NULL;
    if (cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeRelaxed) == cudaSuccess) {
        s->replays->recording_now = r;
        const int status = run(work, NULL);
        s->replays->recording_now = NULL;
        const cudaError_t ended = cudaStreamEndCapture(s->stream, &graph);
        if (status != 0 || ended != cudaSuccess || !graph ||
            cudaGraphInstantiate(&r->graph, graph, 0) != cudaSuccess)
            r->graph = NULL;
        if (graph) cudaGraphDestroy(graph);
    }
    device->counters.launches = launches;
    cudaGetLastError(); /* the next call must not report a failed recording's error */
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
