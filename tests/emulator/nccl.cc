/* A stand-in for NCCL: ranks, processes or threads of one machine, exchange through a file in shared
 * memory, one call after the other: at once or, with EMULATED_LATE in the environment, when something
 * waits for it. Calls that real NCCL would refuse end the program. */
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cuda_runtime.h>

namespace {

enum { NAME = 128, SLOT = 8 << 20 };

struct Name {
    char text[NAME];
};

enum { RANKS = 8, LETTER = 1 << 20 };

/* Of a pair of ranks: the bytes of a letter that waits for its reader, 0 if none does. */
struct Meeting {
    int arrived, turn, left;
    size_t letters[RANKS][RANKS];
};

__thread bool in_group;
__thread cudaStream_t used; /* by the group */

} // namespace

struct ncclComm {
    Meeting *meeting;
    char *slots;
    int rank, ranks;
    size_t bytes;
    char file[NAME];
};

static void meet(ncclComm *c) {
    const int turn = __atomic_load_n(&c->meeting->turn, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&c->meeting->arrived, 1, __ATOMIC_ACQ_REL) == c->ranks) {
        __atomic_store_n(&c->meeting->arrived, 0, __ATOMIC_RELEASE);
        __atomic_add_fetch(&c->meeting->turn, 1, __ATOMIC_ACQ_REL);
        return;
    }
    while (__atomic_load_n(&c->meeting->turn, __ATOMIC_ACQUIRE) == turn) {
        const timespec moment = {0, 20000};
        nanosleep(&moment, nullptr);
    }
}

static void wait_letter(const size_t *letter, bool there) {
    while ((__atomic_load_n(letter, __ATOMIC_ACQUIRE) != 0) != there) {
        const timespec moment = {0, 20000};
        nanosleep(&moment, nullptr);
    }
}

static char *letter_box(ncclComm *c, int from, int to) {
    return c->slots + (size_t)c->ranks * SLOT + ((size_t)from * c->ranks + to) * LETTER;
}

static void require(bool right, const char *what) {
    if (right) return;
    fprintf(stderr, "NCCL's stand-in: %s\n", what);
    abort();
}

extern "C" {

int ncclGetUniqueId(Name *name) {
    static int made;
    if (getenv("EMULATED_WITHOUT_NCCL")) return 2;
    memset(name, 0, sizeof *name);
    snprintf(name->text, sizeof name->text, "/easyfirst-nccl-%d-%d", (int)getpid(), ++made);
    return 0;
}

int ncclCommInitRank(ncclComm **comm, int ranks, Name name, int rank) {
    require(rank >= 0 && rank < ranks, "a rank that does not exist");
    ncclComm *c = (ncclComm *)calloc(1, sizeof *c);
    c->rank = rank, c->ranks = ranks,
    c->bytes = 4096 + (size_t)ranks * SLOT + (size_t)ranks * ranks * LETTER;
    require(ranks <= RANKS, "too many ranks");
    memcpy(c->file, name.text, sizeof c->file);
    const int file = shm_open(c->file, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, (off_t)c->bytes)) return 2;
    void *memory = mmap(nullptr, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return 2;
    c->meeting = (Meeting *)memory, c->slots = (char *)memory + 4096;
    *comm = c;
    meet(c);
    shm_unlink(c->file);
    return 0;
}

int ncclCommDestroy(ncclComm *c) {
    munmap(c->meeting, c->bytes);
    free(c);
    return 0;
}

int ncclGroupStart(void) {
    require(!in_group, "a group within a group");
    in_group = true;
    return 0;
}

int ncclGroupEnd(void) {
    require(in_group, "the end of no group");
    in_group = false;
    if (used) emulator_exchanged(used);
    used = nullptr;
    return 0;
}

static void reduce(const void *from, void *to, size_t count, int root, ncclComm *c) {
    const size_t bytes = count * sizeof(float);
    memcpy(c->slots + (size_t)c->rank * SLOT, from, bytes);
    meet(c);
    for (int r = 0; r < c->ranks && c->rank == root; r++) {
        const float *values = (const float *)(c->slots + (size_t)r * SLOT);
        float *sum = (float *)to;
        for (size_t i = 0; i < count; i++) sum[i] = r ? sum[i] + values[i] : values[i];
    }
    meet(c);
}

int ncclReduce(const void *from, void *to, size_t count, int type, int op, int root, ncclComm *c,
               cudaStream_t stream) {
    require(type == 7 && op == 0 && root < c->ranks && count * sizeof(float) <= SLOT,
            "an odd reduction");
    used = stream;
    emulator_exchange(stream, [=] { reduce(from, to, count, root, c); });
    return 0;
}

static void broadcast(const void *from, void *to, size_t count, int root, ncclComm *c) {
    if (c->rank == root) memcpy(c->slots, from, count);
    meet(c);
    if (c->rank != root) memcpy(to, c->slots, count);
    meet(c);
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, ncclComm *c,
                  cudaStream_t stream) {
    require(type == 0 && root < c->ranks && count <= SLOT, "an odd broadcast");
    used = stream;
    emulator_exchange(stream, [=] { broadcast(from, to, count, root, c); });
    return 0;
}

int ncclSend(const void *from, size_t count, int type, int to, ncclComm *c, cudaStream_t) {
    require(type == 0 && to >= 0 && to < c->ranks && to != c->rank, "an odd sending");
    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < LETTER ? count - at : (size_t)LETTER;
        size_t *letter = &c->meeting->letters[c->rank][to];
        wait_letter(letter, false);
        memcpy(letter_box(c, c->rank, to), (const char *)from + at, n);
        __atomic_store_n(letter, n, __ATOMIC_RELEASE);
    }
    return 0;
}

int ncclRecv(void *to, size_t count, int type, int from, ncclComm *c, cudaStream_t) {
    require(type == 0 && from >= 0 && from < c->ranks && from != c->rank, "an odd receiving");
    for (size_t at = 0, n; at < count; at += n) {
        size_t *letter = &c->meeting->letters[from][c->rank];
        wait_letter(letter, true);
        n = *letter;
        require(n <= count - at, "more bytes than are received");
        memcpy((char *)to + at, letter_box(c, from, c->rank), n);
        __atomic_store_n(letter, 0, __ATOMIC_RELEASE);
    }
    return 0;
}

const char *ncclGetErrorString(int) {
    return "the stand-in's shared memory";
}
}
