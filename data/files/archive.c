#include "data/files/archive.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zip.h>

#include "data/files/path.h"
#include "data/files/spool.h"

enum { ARCHIVES_OPEN = 8, BLOCK = 1 << 16, BOMB_RATIO = 200 };
static const uint64_t BOMB_BYTES = 64 << 20;

typedef struct Archive {
    char *path;
    struct stat info;
    zip_t *zip;
    uint64_t used; /* when, in calls */
} Archive;

/* Those that are open, which all threads share: libzip reads one member of an archive at a time. */
static struct {
    pthread_mutex_t mutex;
    Archive archives[ARCHIVES_OPEN];
    uint64_t calls;
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool is_zip(const char *path, struct stat *info) {
    unsigned char head[4] = {0};
    if (stat(path, info) || !S_ISREG(info->st_mode)) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool zip = fd >= 0 && pread(fd, head, 4, 0) == 4 && !memcmp(head, "PK", 2) &&
               (!memcmp(head + 2, "\3\4", 2) || !memcmp(head + 2, "\5\6", 2));
    if (fd >= 0) close(fd);
    return zip;
}

/* The archive's part of a path, and the member's in *member ("": the archive itself); the caller frees
 * it. NULL: the path leads through none. */
static char *split(const char *path, const char **member, struct stat *info) {
    char *copy = strdup(path);
    for (size_t at = 1; copy && at <= strlen(path); at++) {
        if (path[at] && path[at] != '/') continue;
        copy[at] = 0;
        struct stat found;
        if (stat(copy, &found) || !S_ISDIR(found.st_mode)) {
            *member = path + at + strspn(path + at, "/");
            if (is_zip(copy, info)) return copy;
            break;
        }
        copy[at] = path[at];
    }
    free(copy);
    return NULL;
}

bool archive_path(const char *path) {
    const char *member;
    struct stat info;
    char *archive = split(path, &member, &info);
    const bool found = archive != NULL;
    free(archive);
    return found;
}

/* ---- Opening. ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(zip_t *zip, const char *path, Error *err) {
    zip_int64_t count = zip_get_num_entries(zip, 0);
    const char **names = calloc((size_t)count + 1, sizeof *names);
    int status = names ? 0 : error_set(err, "%s: out of memory for its names", path);
    for (zip_int64_t i = 0; i < count && status == 0; i++) {
        names[i] = zip_get_name(zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        if (!names[i]) status = error_set(err, "%s: %s", path, zip_strerror(zip));
    }
    if (status == 0) qsort(names, (size_t)count, sizeof *names, by_name);
    for (zip_int64_t i = 1; i < count && status == 0; i++)
        if (!strcmp(names[i - 1], names[i]))
            status = error_set(err, "%s: two of its members are named %.200s", path, names[i]);
    free(names);
    return status;
}

static zip_t *zip_read(const char *path, Error *err) {
    int code = 0;
    zip_t *zip = zip_open(path, ZIP_RDONLY, &code);
    if (!zip) {
        zip_error_t why;
        zip_error_init_with_code(&why, code);
        error_set(err, "%s: a zip archive that cannot be read: %s", path, zip_error_strerror(&why));
        zip_error_fini(&why);
        return NULL;
    }
    if (check_names(zip, path, err) == 0) return zip;
    zip_discard(zip);
    return NULL;
}

static void archive_close(Archive *a) {
    if (a->zip) zip_discard(a->zip);
    free(a->path);
    *a = (Archive){.zip = NULL};
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The open archive of a path, which is taken over; the mutex is held. */
static zip_t *archive_find(char *path, const struct stat *info, Error *err) {
    Archive *oldest = &cache.archives[0];
    cache.calls++;
    for (int i = 0; i < ARCHIVES_OPEN; i++) {
        Archive *a = &cache.archives[i];
        if (a->zip && !strcmp(a->path, path) && same_file(&a->info, info)) {
            free(path);
            a->used = cache.calls;
            return a->zip;
        }
        if (a->used < oldest->used) oldest = a;
    }
    archive_close(oldest);
    zip_t *zip = zip_read(path, err);
    if (!zip) {
        free(path);
        return NULL;
    }
    *oldest = (Archive){.path = path, .info = *info, .zip = zip, .used = cache.calls};
    return zip;
}

static int take_names(zip_t *zip, const char *path, char ***names, int *count, Error *err) {
    const zip_int64_t all = zip_get_num_entries(zip, 0);
    *names = calloc((size_t)all + 1, sizeof **names);
    if (!*names) return error_set(err, "%s: out of memory for its names", path);
    for (zip_int64_t i = 0; i < all; i++) {
        const char *name = zip_get_name(zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        if (!name || !*name || name[strlen(name) - 1] == '/') continue;
        char *joined = path_join(path, name, err);
        if (!joined) return -1;
        (*names)[(*count)++] = joined;
    }
    return 0;
}

int archive_names(const char *path, char ***names, int *count, Error *err) {
    struct stat info;
    *names = NULL, *count = 0;
    if (!is_zip(path, &info)) return error_set(err, "%s: no zip archive", path);
    char *copy = strdup(path);
    if (!copy) return error_set(err, "%s: out of memory", path);
    pthread_mutex_lock(&cache.mutex);
    zip_t *zip = archive_find(copy, &info, err);
    int status = zip ? take_names(zip, path, names, count, err) : -1;
    pthread_mutex_unlock(&cache.mutex);
    if (status) {
        for (int i = 0; i < *count; i++) free((*names)[i]);
        free(*names);
        *names = NULL, *count = 0;
    }
    return status;
}

static bool leaves(const char *member) {
    for (const char *part = member; part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && !strncmp(part, "..", 2)) return true;
        part = part[size] ? part + size + 1 : NULL;
    }
    return false;
}

/* ---- Members. ---- */

typedef int (*MemberVisit)(void *user, zip_t *zip, const zip_stat_t *info, const char *path,
                           Error *err);

/* Calls `visit` with the member that the path leads to. */
static int member_visit(const char *path, MemberVisit visit, void *user, Error *err) {
    const char *member;
    struct stat info;
    zip_stat_t found;
    char *archive = split(path, &member, &info);
    if (!archive) return error_set(err, "%s: no such file", path);
    if (!*member || leaves(member)) {
        free(archive);
        return error_set(err, "%s: %s", path,
                         *member ? "a path that leaves the archive"
                                 : "a zip archive; name one of its files: ARCHIVE/NAME");
    }
    pthread_mutex_lock(&cache.mutex);
    zip_t *zip = archive_find(archive, &info, err);
    int status = zip ? 0 : -1;
    zip_int64_t index = zip ? zip_name_locate(zip, member, ZIP_FL_ENC_RAW) : -1;
    if (zip && (index < 0 || zip_stat_index(zip, (zip_uint64_t)index, 0, &found) ||
                !(found.valid & ZIP_STAT_SIZE)))
        status = error_set(err, "%s: no such file in the archive", path);
    if (status == 0) status = visit(user, zip, &found, path, err);
    pthread_mutex_unlock(&cache.mutex);
    return status;
}

static int take_size(void *user, zip_t *zip, const zip_stat_t *info, const char *path, Error *err) {
    (void)zip, (void)path, (void)err;
    *(int64_t *)user = (int64_t)info->size;
    return 0;
}

int archive_size(const char *path, int64_t *size, Error *err) {
    return member_visit(path, take_size, size, err);
}

/* Reads a member in blocks; more or fewer bytes than the directory says are an error. */
static int read_blocks(zip_t *zip, const zip_stat_t *info, const char *path,
                       int (*put)(void *user, const void *bytes, size_t size, Error *err),
                       void *user, Error *err) {
    unsigned char *block = malloc(BLOCK);
    zip_file_t *file = block ? zip_fopen_index(zip, info->index, 0) : NULL;
    uint64_t done = 0;
    int status = 0;
    if (!file)
        status = error_set(err, "%s: cannot be read from its archive: %s", path, zip_strerror(zip));
    while (status == 0) {
        zip_int64_t got = zip_fread(file, block, BLOCK);
        if (got < 0)
            status =
                error_set(err, "%s: damaged in its archive: %s", path, zip_file_strerror(file));
        if (got <= 0) break;
        done += (uint64_t)got;
        status = done > info->size ? error_set(err, "%s: longer than its archive says", path)
                                   : put(user, block, (size_t)got, err);
    }
    if (status == 0 && done < info->size)
        status = error_set(err, "%s: shorter than its archive says", path);
    if (file) zip_fclose(file);
    free(block);
    return status;
}

typedef struct Bytes {
    size_t most, size;
    uint8_t *bytes;
} Bytes;

static int put_bytes(void *user, const void *bytes, size_t size, Error *err) {
    Bytes *b = user;
    (void)err;
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return 0;
}

static int take_bytes(void *user, zip_t *zip, const zip_stat_t *info, const char *path,
                      Error *err) {
    Bytes *b = user;
    if (info->size > b->most)
        return error_set(err, "%s: %llu bytes, more than %zu", path, (unsigned long long)info->size,
                         b->most);
    b->bytes = malloc((size_t)info->size + 1);
    if (!b->bytes) return error_set(err, "%s: not enough memory to read it", path);
    return read_blocks(zip, info, path, put_bytes, b, err);
}

int archive_read(const char *path, size_t most, uint8_t **bytes, size_t *size, Error *err) {
    Bytes b = {.most = most};
    int status = member_visit(path, take_bytes, &b, err);
    if (status) free(b.bytes);
    *bytes = status ? NULL : b.bytes;
    *size = status ? 0 : b.size;
    return status;
}

static int put_spool(void *user, const void *bytes, size_t size, Error *err) {
    return spool_write(*(int *)user, bytes, size, err);
}

static int take_spool(void *user, zip_t *zip, const zip_stat_t *info, const char *path,
                      Error *err) {
    if (info->size > BOMB_BYTES && info->size / BOMB_RATIO > info->comp_size)
        return error_set(err, "%s: it unpacks to more than %d times its size", path, BOMB_RATIO);
    return read_blocks(zip, info, path, put_spool, user, err);
}

int archive_open(const char *path, Error *err) {
    int spool = spool_open(err);
    if (spool < 0) return -1;
    if (member_visit(path, take_spool, &spool, err) == 0 && lseek(spool, 0, SEEK_SET) == 0)
        return spool;
    close(spool);
    return -1;
}
