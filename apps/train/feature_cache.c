#include "apps/train/feature_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "data/files/file_hash.h"

enum { HEADER = 256, HASH = FILE_HASH_SIZE - 1 };

/* Bytes of the disk that are left free. */
static const uint64_t RESERVE = (uint64_t)64 << 20;

struct FeatureCache {
    char *path;
    int fd;
    Dtype dtype;
    size_t bytes, record; /* of an image's features; of a whole record */
    int64_t count, damaged;
    int64_t *slots; /* hash table of record numbers + 1; 0: free */
    char (*keys)[FEATURE_KEY];
    int64_t slot_count; /* a power of two, at most half of them used */
    char *buffer;       /* of a record that is added */
    bool full;
    Error problem;
    pthread_mutex_t lock;
};

/* ---- What it is of. ---- */

/* One hash of the tower's weights and everything else that changes its features. */
static int tower_hash(char hex[FILE_HASH_SIZE], const Model *m, Error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return error_set(err, "out of memory for a tower's hash");
    const PreprocessConfig *p = &m->parts.preprocess;
    fprintf(out, "%d %d %d %d %d %d\n", tower_image_size(&m->tower), tower_width(&m->tower),
            tower_feature_rows(&m->tower), tower_class_row(&m->tower), p->size, p->pad);
    for (int c = 0; c < 3; c++) fprintf(out, "%a %a\n", (double)p->mean[c], (double)p->std[c]);
    if (m->tower.vit)
        fprintf(out, "vit %d %d %d %a\n", m->vit.depth, m->vit.config.patch,
                m->vit.config.block.heads, (double)m->vit.config.block.eps);
    for (int i = 0; m->tower.net && i < m->net.config.count; i++)
        fprintf(out, "%d ", m->net.config.block[i].stride);
    if (m->tower.net) fprintf(out, "%a\n", (double)m->net.config.eps);
    fprintf(out, "%s\n", dtype_name(m->vision.compute));
    int status = 0;
    for (int i = 0; i < m->vision.params.count && status == 0; i++) {
        const Param *param = &m->vision.params.items[i];
        char values[FILE_HASH_SIZE] = "none";
        if (param->present)
            status = bytes_hash(values, param->value.data, tensor_bytes(param->value), err);
        fprintf(out, "%s %s %s\n", param->name, dtype_name(param->value.dtype), values);
    }
    bool failed = fclose(out) != 0;
    if (status == 0)
        status = failed ? error_set(err, "out of memory for a tower's hash")
                        : bytes_hash(hex, text, size, err);
    free(text);
    return status;
}

static int header_make(char header[HEADER], const FeatureCache *c, const Model *m, Error *err) {
    char hex[FILE_HASH_SIZE];
    TRY(tower_hash(hex, m, err));
    memset(header, 0, HEADER);
    snprintf(header, HEADER, "easyfirst features 1\n%s %d %d\n%s\n", dtype_name(c->dtype),
             tower_feature_rows(&m->tower), tower_width(&m->tower), hex);
    return 0;
}

bool feature_cache_key(char key[FEATURE_KEY], const char *path) {
    struct stat s;
    char *text, hex[FILE_HASH_SIZE];
    if (stat(path, &s) != 0) return false;
    int length = asprintf(&text, "%lld %lld %ld %s", (long long)s.st_size,
                          (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec, path);
    if (length < 0) return false;
    bool ok = bytes_hash(hex, text, (size_t)length, NULL) == 0;
    free(text);
    if (ok) memcpy(key, hex, FEATURE_KEY);
    return ok;
}

/* ---- The index. ---- */

/* The slot of a key, or the free one where it belongs. */
static int64_t *slot_find(const FeatureCache *c, const char *key) {
    uint64_t at = 0xcbf29ce484222325u; /* FNV-1a */
    for (int i = 0; i < FEATURE_KEY; i++) at = (at ^ (unsigned char)key[i]) * 0x100000001b3u;
    for (;; at++) {
        int64_t *slot = &c->slots[at & (uint64_t)(c->slot_count - 1)];
        if (!*slot || !memcmp(c->keys[*slot - 1], key, FEATURE_KEY)) return slot;
    }
}

static int index_grow(FeatureCache *c, Error *err) {
    if (2 * (c->count + 1) <= c->slot_count) return 0;
    int64_t count = c->slot_count ? 2 * c->slot_count : 1024;
    int64_t *slots = calloc((size_t)count, sizeof *slots);
    void *keys = slots ? realloc(c->keys, (size_t)count / 2 * sizeof *c->keys) : NULL;
    if (!keys) {
        free(slots);
        return error_set(err, "%s: out of memory for %lld images", c->path, (long long)c->count);
    }
    free(c->slots);
    c->slots = slots, c->keys = keys, c->slot_count = count;
    for (int64_t i = 0; i < c->count; i++) *slot_find(c, c->keys[i]) = i + 1;
    return 0;
}

/* The next record's key. The later one of two counts: it replaces one that was damaged. */
static int index_add(FeatureCache *c, const char *key, Error *err) {
    TRY(index_grow(c, err));
    memcpy(c->keys[c->count], key, FEATURE_KEY);
    *slot_find(c, key) = ++c->count;
    return 0;
}

/* ---- Opening. ---- */

static int read_error(const FeatureCache *c, Error *err) {
    return error_set(err, "%s: cannot be read: %s", c->path, strerror(errno));
}

static int records_read(FeatureCache *c, off_t size, Error *err) {
    const int64_t whole = (int64_t)((size_t)(size - HEADER) / c->record);
    char key[FEATURE_KEY];
    for (int64_t i = 0; i < whole; i++) {
        off_t at = HEADER + (off_t)i * (off_t)c->record;
        if (pread(c->fd, key, FEATURE_KEY, at) != FEATURE_KEY) return read_error(c, err);
        TRY(index_add(c, key, err));
    }
    if (HEADER + whole * (int64_t)c->record == size) return 0;
    if (ftruncate(c->fd, HEADER + (off_t)whole * (off_t)c->record) == 0) return 0;
    return error_set(err, "%s: its last record is incomplete and cannot be cut off: %s", c->path,
                     strerror(errno));
}

static int header_check(const FeatureCache *c, const char want[HEADER], Error *err) {
    char found[HEADER];
    if (pread(c->fd, found, HEADER, 0) != HEADER) return read_error(c, err);
    if (!memcmp(found, want, HEADER)) return 0;
    if (memcmp(found, want, strlen("easyfirst features 1\n")))
        return error_set(err, "%s: not a feature cache; name another file with --feature-cache",
                         c->path);
    return error_set(
        err,
        "%s: made with another vision tower, preprocessing or type of features; delete "
        "it, or name another file with --feature-cache",
        c->path);
}

static int file_open(FeatureCache *c, const Model *m, Error *err) {
    char header[HEADER];
    struct stat info;
    TRY(header_make(header, c, m, err));
    c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (c->fd < 0 || fstat(c->fd, &info) != 0)
        return error_set(err, "%s: cannot be opened: %s", c->path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return error_set(err, "%s: not a regular file", c->path);
    if (flock(c->fd, LOCK_EX | LOCK_NB) != 0)
        return error_set(err, "%s: in use by another run; name a file of its own for this one",
                         c->path);
    if (fstat(c->fd, &info) != 0) return read_error(c, err);
    if (info.st_size == 0) {
        if (pwrite(c->fd, header, HEADER, 0) == HEADER) return 0;
        return error_set(err, "%s: cannot be written: %s", c->path, strerror(errno));
    }
    if (info.st_size < HEADER)
        return error_set(err, "%s: not a feature cache; name another file with --feature-cache",
                         c->path);
    TRY(header_check(c, header, err));
    return records_read(c, info.st_size, err);
}

int feature_cache_open(FeatureCache **cache, const char *path, const Model *model, Dtype dtype,
                       Error *err) {
    *cache = NULL;
    FeatureCache *c = calloc(1, sizeof *c);
    if (!c) return error_set(err, "out of memory for a feature cache");
    c->fd = -1, c->dtype = dtype;
    pthread_mutex_init(&c->lock, NULL);
    c->bytes = (size_t)tower_feature_rows(&model->tower) * (size_t)tower_width(&model->tower) *
               dtype_size(dtype);
    c->record = FEATURE_KEY + HASH + c->bytes;
    c->path = strdup(path);
    c->buffer = malloc(c->record);
    int status = c->path && c->buffer ? index_grow(c, err)
                                      : error_set(err, "out of memory for a feature cache");
    if (status == 0) status = file_open(c, model, err);
    if (status)
        feature_cache_close(c);
    else
        *cache = c;
    return status;
}

void feature_cache_close(FeatureCache *c) {
    if (!c) return;
    if (c->fd >= 0) close(c->fd);
    pthread_mutex_destroy(&c->lock);
    free(c->path), free(c->slots), free(c->keys), free(c->buffer);
    free(c);
}

Dtype feature_cache_dtype(const FeatureCache *c) {
    return c->dtype;
}

size_t feature_cache_bytes(const FeatureCache *c) {
    return c->bytes;
}

/* ---- Records. ---- */

static bool record_read(FeatureCache *c, int64_t number, void *features) {
    char hash[HASH], now[FILE_HASH_SIZE];
    off_t at = HEADER + (off_t)number * (off_t)c->record + FEATURE_KEY;
    return pread(c->fd, hash, HASH, at) == HASH &&
           pread(c->fd, features, c->bytes, at + HASH) == (ssize_t)c->bytes &&
           bytes_hash(now, features, c->bytes, NULL) == 0 && !memcmp(hash, now, HASH);
}

bool feature_cache_read(FeatureCache *c, const char key[FEATURE_KEY], void *features) {
    pthread_mutex_lock(&c->lock);
    int64_t number = *slot_find(c, key) - 1;
    pthread_mutex_unlock(&c->lock);
    if (number < 0) return false;
    if (record_read(c, number, features)) return true;
    pthread_mutex_lock(&c->lock);
    if (*slot_find(c, key) == number + 1) { /* to be computed again, and added */
        memset(c->keys[number], 0, FEATURE_KEY);
        memset(c->slots, 0, (size_t)c->slot_count * sizeof *c->slots);
        for (int64_t i = 0; i < c->count; i++)
            if (c->keys[i][0]) *slot_find(c, c->keys[i]) = i + 1;
        c->damaged++;
    }
    pthread_mutex_unlock(&c->lock);
    return false;
}

/* Writes the record in the buffer after all others; nothing of it stays if that fails. */
static bool record_write(FeatureCache *c) {
    struct statvfs disk;
    off_t end = HEADER + (off_t)c->count * (off_t)c->record;
    if (fstatvfs(c->fd, &disk) == 0 &&
        (uint64_t)disk.f_bavail * disk.f_frsize < RESERVE + c->record)
        return error_set(&c->problem,
                         "%s: the disk is full but for %d MB: no more features are kept", c->path,
                         (int)(RESERVE >> 20)) == 0;
    ssize_t n = pwrite(c->fd, c->buffer, c->record, end);
    if (n == (ssize_t)c->record) return true;
    error_set(&c->problem, "%s: cannot be written (%s): no more features are kept", c->path,
              n < 0 ? strerror(errno) : "the disk is full");
    if (ftruncate(c->fd, end) != 0) n = -1; /* cut off when it is opened again */
    return false;
}

void feature_cache_add(FeatureCache *c, const char key[FEATURE_KEY], const void *features) {
    char hash[FILE_HASH_SIZE];
    pthread_mutex_lock(&c->lock);
    if (!c->full && !*slot_find(c, key)) {
        Error err;
        bool ok = bytes_hash(hash, features, c->bytes, &c->problem) == 0;
        memcpy(c->buffer, key, FEATURE_KEY);
        memcpy(c->buffer + FEATURE_KEY, hash, HASH);
        memcpy(c->buffer + FEATURE_KEY + HASH, features, c->bytes);
        if (ok) ok = record_write(c);
        if (ok && index_add(c, key, &err)) ok = false, c->problem = err;
        c->full = !ok;
    }
    pthread_mutex_unlock(&c->lock);
}

int64_t feature_cache_count(const FeatureCache *c) {
    return c->count;
}

int64_t feature_cache_damaged(const FeatureCache *c) {
    return c->damaged;
}

const char *feature_cache_problem(const FeatureCache *c) {
    return c->full ? c->problem.text : NULL;
}
