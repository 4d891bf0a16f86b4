#include "data/files/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The mapped files, for a signal handler: that is why they are global, and lock-free. `size` is set
 * last and cleared first. */
enum { SLOTS = 1024 };
static struct {
    _Atomic(const unsigned char *) begin; /* NULL: free */
    _Atomic(const char *) path;
    atomic_size_t size;
} slots[SLOTS];

static void slot_take(const MappedFile *file) {
    for (int i = 0; i < SLOTS; i++) {
        const unsigned char *none = NULL;
        if (!atomic_compare_exchange_strong(&slots[i].begin, &none, file->bytes)) continue;
        atomic_store(&slots[i].path, file->path);
        atomic_store(&slots[i].size, file->size);
        return;
    }
}

static void slot_free(const MappedFile *file) {
    for (int i = 0; i < SLOTS; i++) {
        if (atomic_load(&slots[i].begin) != file->bytes) continue;
        atomic_store(&slots[i].size, 0);
        atomic_store(&slots[i].path, NULL);
        atomic_store(&slots[i].begin, NULL);
        return;
    }
}

const char *mapped_file_at(const void *address) {
    for (int i = 0; i < SLOTS; i++) {
        uintptr_t begin = (uintptr_t)atomic_load(&slots[i].begin), at = (uintptr_t)address;
        size_t size = atomic_load(&slots[i].size);
        if (begin && at >= begin && at - begin < size) return atomic_load(&slots[i].path);
    }
    return NULL;
}

static int map_descriptor(MappedFile *file, int fd, const char *path, Error *err) {
    struct stat info;
    if (fstat(fd, &info) != 0) return error_set(err, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return error_set(err, "%s: a folder, expected a file", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, "%s: a device or pipe, expected a file on disk", path);
    if (info.st_size == 0)
        return error_set(err, "%s: empty (0 bytes); copy or download it again", path);
    if ((uintmax_t)info.st_size > PTRDIFF_MAX)
        return error_set(err, "%s: too large for this system's memory addresses", path);

    size_t size = (size_t)info.st_size;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return error_set(err, "%s: cannot be mapped into memory: %s", path, strerror(errno));
    *file = (MappedFile){.path = strdup(path), .bytes = bytes, .size = size};
    if (!file->path) {
        mapped_file_close(file);
        return error_set(err, "%s: out of memory", path);
    }
    slot_take(file);
    return 0;
}

int mapped_file_open(MappedFile *file, const char *path, Error *err) {
    *file = (MappedFile){0};
    /* O_NONBLOCK: opening a named pipe would otherwise wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(err, "%s: cannot be opened: %s", path, strerror(errno));
    int failed = map_descriptor(file, fd, path, err);
    close(fd); /* the mapping keeps the file */
    return failed;
}

void mapped_file_close(MappedFile *file) {
    if (file->bytes) slot_free(file);
    if (file->bytes) munmap((void *)file->bytes, file->size);
    free(file->path);
    *file = (MappedFile){0};
}

bool mapped_file_contains(const MappedFile *file, const void *begin, size_t size) {
    uintptr_t first = (uintptr_t)file->bytes, at = (uintptr_t)begin;
    return file->bytes && at >= first && at - first <= file->size &&
           size <= file->size - (at - first);
}

void mapped_file_prefetch(const MappedFile *file, size_t offset, size_t size) {
    if (offset >= file->size) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), first = offset / page * page;
    size_t length = size < file->size - offset ? offset - first + size : file->size - first;
    madvise((void *)(file->bytes + first), length, MADV_WILLNEED); /* a hint: it may fail */
}

void mapped_file_release(const MappedFile *file, const void *begin, size_t size) {
    /* Rounded inwards: the first and last page may hold the ends of neighbors still in use. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t first = (size_t)((const unsigned char *)begin - file->bytes), last = first + size;
    first = (first + page - 1) / page * page;
    last = last / page * page;
    /* A mapping that is never written to has nothing to lose. A failure costs memory only. */
    if (last > first) madvise((void *)(file->bytes + first), last - first, MADV_DONTNEED);
}
