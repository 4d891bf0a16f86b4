/* Runs the threads of a block in turn, each on a stack of its own. See README.md. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

enum State { READY, AT_BLOCK, AT_WARP, DONE };
enum { STACK = 256 << 10, SLOT = 64 };
/* Stacks begin at different lines of a page, to avoid conflicts in the processor's cache. */
enum { COLOURS = 61, LINES = 3 * 64 };

struct Fiber {
    State state;
    uint3 index;
    unsigned mask; /* of the warp operation that it waits for */
    unsigned turn; /* which of its two slots is next */
    void *stack;
    size_t size; /* of it */
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<char> slots; /* [warp][turn][lane][SLOT] */
    std::vector<uint64_t> shared;
    const std::function<void()> *body;
    unsigned threads, current;
#ifdef __x86_64__
    void *scheduler;
#else
    ucontext_t scheduler;
#endif
} block;

[[noreturn]] void stuck(const char *what) {
    fprintf(stderr, "emulator: block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, what);
    abort();
}

/* ---- Changing stacks. ---- */

void run_body() {
    (*block.body)();
    block.fibers[block.current].state = DONE;
}

#ifdef __x86_64__
/* Saves the registers that a call must keep, changes stacks, restores the other's. */
extern "C" void emulator_switch(void **save, void *to);
asm(".text\n"
    ".globl emulator_switch\n"
    "emulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

void leave() {
    emulator_switch(&block.fibers[block.current].sp, block.scheduler);
}

void entry() {
    run_body();
    leave();
    abort();
}

void prepare(Fiber &f) {
    void **top = reinterpret_cast<void **>(static_cast<char *>(f.stack) + f.size);
    *--top = nullptr; /* the stack is aligned to 16 when entry is jumped to as if called */
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.sp = top;
}

void enter(Fiber &f) {
    emulator_switch(&block.scheduler, f.sp);
}
#else
void leave() {
    swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

void entry() {
    run_body();
}

void prepare(Fiber &f) {
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = f.size;
    f.context.uc_link = &block.scheduler;
    makecontext(&f.context, entry, 0);
}

void enter(Fiber &f) {
    swapcontext(&block.scheduler, &f.context);
}
#endif

/* ---- One block. ---- */

/* Releases the lanes of a warp once every lane in its mask that has not returned waits with the
 * same mask. */
bool release_warp(unsigned warp) {
    unsigned first = warp * 32, end = first + 32 < block.threads ? first + 32 : block.threads;
    bool any = false;
    for (unsigned t = first; t < end; t++) {
        const Fiber &f = block.fibers[t];
        if (f.state != AT_WARP) continue;
        bool all = true;
        for (unsigned o = first; o < end; o++) {
            const Fiber &other = block.fibers[o];
            if (!(f.mask >> (o - first) & 1) || other.state == DONE) continue;
            if (other.state != AT_WARP || other.mask != f.mask) all = false;
        }
        if (!all) continue;
        unsigned mask = f.mask;
        for (unsigned o = first; o < end; o++)
            if ((mask >> (o - first) & 1) && block.fibers[o].state == AT_WARP)
                block.fibers[o].state = READY;
        any = true;
    }
    return any;
}

void run_block() {
    for (unsigned t = 0; t < block.threads; t++) {
        Fiber &f = block.fibers[t];
        f.state = READY, f.turn = 0;
        f.index.x = t % blockDim.x;
        f.index.y = t / blockDim.x % blockDim.y;
        f.index.z = t / blockDim.x / blockDim.y;
        prepare(f);
    }
    for (auto &word : block.shared) word = 0x7ff8dead7fc0deadu; /* NaN in every type */
    for (;;) {
        unsigned done = 0, at_block = 0;
        bool moved = false;
        for (unsigned t = 0; t < block.threads; t++) {
            Fiber &f = block.fibers[t];
            if (f.state == READY) {
                block.current = t;
                threadIdx = f.index;
                enter(f);
                moved = true;
            }
            done += f.state == DONE, at_block += f.state == AT_BLOCK;
        }
        if (done == block.threads) return;
        if (done + at_block == block.threads) {
            if (done) stuck("some threads have returned, others wait at a barrier");
            for (unsigned t = 0; t < block.threads; t++) block.fibers[t].state = READY;
            continue;
        }
        for (unsigned warp = 0; warp * 32 < block.threads; warp++)
            if (release_warp(warp)) moved = true;
        if (!moved) stuck("threads wait at different barriers, or for lanes that do not come");
    }
}

} // namespace

/* The graph being recorded; NULL: none. */
static CUgraph_st *recording;
struct CUgraph_st {
    std::vector<std::function<void()>> works;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> works;
};

void emulator_do(const std::function<void()> &work) {
    if (recording)
        recording->works.push_back(work);
    else
        work();
}

static void launch_now(dim3 grid, dim3 threads, size_t shared, const std::function<void()> &body);

void emulator_launch(dim3 grid, dim3 threads, size_t shared, const std::function<void()> &body) {
    emulator_do([=] { launch_now(grid, threads, shared, body); });
}

static void launch_now(dim3 grid, dim3 threads, size_t shared, const std::function<void()> &body) {
    unsigned n = threads.x * threads.y * threads.z;
    if (n < 1 || n > 1024) stuck("a block has 1 to 1024 threads");
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        stuck("a grid has 1 to 65535 blocks in y and z");
    if (shared > 227 << 10) stuck("a block has at most 227 KiB of shared memory");
    while (block.fibers.size() < n) { /* kept for later launches */
        Fiber f = {};
        f.size = STACK - block.fibers.size() % COLOURS * LINES;
        f.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (f.stack == MAP_FAILED) stuck("out of memory for stacks");
        block.fibers.push_back(f);
    }
    block.threads = n;
    block.slots.assign(size_t((n + 31) / 32) * 2 * 32 * SLOT, 0);
    block.shared.assign((shared + 7) / 8 + 16, 0);
    block.body = &body;
    blockDim = threads, gridDim = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block();
            }
}

void *emulator_shared() {
    /* Aligned for any vector type. */
    return reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(block.shared.data()) + 127) &
                                    ~uintptr_t(127));
}

void emulator_block_barrier() {
    block.fibers[block.current].state = AT_BLOCK;
    leave();
}

const void *emulator_warp_exchange(unsigned mask, const void *mine, size_t bytes) {
    Fiber &f = block.fibers[block.current];
    unsigned lane = block.current % 32, warp = block.current / 32;
    if (!(mask >> lane & 1)) stuck("a lane takes part in a warp operation whose mask lacks it");
    if (bytes > SLOT) stuck("a warp operation exchanges at most 64 bytes");
    /* Two slots in turn: no lane is two operations ahead of one that has yet to read. */
    char *all = block.slots.data() + (size_t(warp) * 2 + f.turn) * 32 * SLOT;
    f.turn ^= 1;
    memcpy(all + lane * SLOT, mine, bytes);
    f.mask = mask, f.state = AT_WARP;
    leave();
    return all;
}

/* ---- The runtime. ---- */

const char *cudaGetErrorString(cudaError_t status) {
    return status == cudaSuccess                 ? "no error"
           : status == cudaErrorMemoryAllocation ? "out of memory"
           : status == cudaErrorNoDevice         ? "no CUDA-capable device is detected"
                                                 : "invalid argument";
}
const char *cudaGetErrorName(cudaError_t status) {
    return status == cudaSuccess                 ? "cudaSuccess"
           : status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
           : status == cudaErrorNoDevice         ? "cudaErrorNoDevice"
                                                 : "cudaErrorInvalidValue";
}
cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
/* An empty CUDA_VISIBLE_DEVICES hides it, like a GPU. */
cudaError_t cudaGetDeviceCount(int *count) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *count = !visible || *visible;
    return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int index) {
    return index == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated on the CPU");
    properties->totalGlobalMem = size_t(4) << 30;
    properties->sharedMemPerBlockOptin = 227 << 10;
    properties->major = 9, properties->multiProcessorCount = 4, properties->l2CacheSize = 1 << 20;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = size_t(4) << 30;
    return cudaSuccess;
}
/* The allocations of cudaMalloc and their sizes. Each is followed by guard bytes, and freed
 * addresses are never reused: a use after free crashes. */
static std::map<const char *, size_t> device_memory;
enum { GUARD = 256, GUARD_BYTE = 0xa5, PAGE = 4096 };

static size_t pages_of(size_t bytes) {
    return (bytes + GUARD + PAGE - 1) / PAGE * PAGE;
}
cudaError_t cudaMalloc(void **memory, size_t bytes) {
    if (bytes > size_t(4) << 30) return cudaErrorMemoryAllocation;
    void *taken = mmap(nullptr, pages_of(bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (taken == MAP_FAILED) return cudaErrorMemoryAllocation;
    memset(static_cast<char *>(taken) + bytes, GUARD_BYTE, GUARD);
    device_memory[static_cast<char *>(taken)] = bytes;
    *memory = taken;
    return cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
    auto found = device_memory.find(static_cast<char *>(memory));
    if (!memory) return cudaSuccess;
    if (found == device_memory.end()) return cudaErrorInvalidValue;
    const size_t bytes = found->second;
    for (size_t i = bytes; i < bytes + GUARD; i++)
        if (static_cast<unsigned char *>(memory)[i] != GUARD_BYTE)
            stuck("something was written past an allocation of cudaMalloc");
    device_memory.erase(found);
    mmap(memory, pages_of(bytes), PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    if (bytes > size_t(4) << 30) return cudaErrorMemoryAllocation;
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *memory) {
    free(memory);
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *memory) {
    const char *at = static_cast<const char *>(memory);
    auto next = device_memory.upper_bound(at);
    bool inside = next != device_memory.begin() && (--next, at < next->first + next->second);
    attributes->type = inside ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
/* A recorded copy runs whenever the graph is launched: host memory may be freed by then. */
static void check_recorded(const void *memory) {
    cudaPointerAttributes attributes;
    cudaPointerGetAttributes(&attributes, memory);
    if (recording && attributes.type != cudaMemoryTypeDevice)
        stuck("a graph that is being recorded would copy from memory of the host, or to it");
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
    check_recorded(to), check_recorded(from);
    emulator_do([=] { memmove(to, from, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t) {
    check_recorded(to), check_recorded(from);
    emulator_do([=] {
        for (size_t i = 0; i < height; i++)
            memcpy(static_cast<char *>(to) + i * to_pitch,
                   static_cast<const char *>(from) + i * from_pitch, width);
    });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t) {
    check_recorded(memory);
    emulator_do([=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

/* ---- Graphs. ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    if (recording) stuck("a recording within a recording");
    recording = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
    *graph = recording;
    recording = nullptr;
    return *graph ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = new CUgraphExec_st{graph->works};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
    if (recording) stuck("a graph is started within a recording");
    for (const auto &work : exec->works) work();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}

/* ---- Streams. ---- */

/* What is put off (emulator_exchange) is done when something waits for it; all else at once. */
struct CUstream_st {
    std::deque<std::function<void()>> late;
    size_t done; /* of those that were put off */
    bool waited; /* for another stream, since the last exchange ended */
};
struct CUevent_st {
    cudaStream_t stream;
    size_t count; /* that were put off before it */
};

static void catch_up(cudaStream_t stream, size_t count) {
    for (; stream->done < count; stream->done++) {
        stream->late.front()();
        stream->late.pop_front();
    }
}

void emulator_exchange(cudaStream_t stream, const std::function<void()> &work) {
    if (!stream->waited) stuck("an exchange does not wait for the device's work");
    stream->late.push_back(work);
    if (!getenv("EMULATED_LATE")) catch_up(stream, stream->done + stream->late.size());
}

void emulator_exchanged(cudaStream_t stream) {
    stream->waited = false;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = new CUstream_st();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (recording) stuck("something waits for a stream that is being recorded");
    catch_up(stream, stream->done + stream->late.size());
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    if (event->stream) catch_up(event->stream, event->count);
    stream->waited = true;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new CUevent_st();
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    *event = {stream, stream->done + stream->late.size()};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->stream) catch_up(event->stream, event->count);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
