#include "tests/faults/snapshot.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/test.h"

enum { PATH_SIZE = 600 };

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

/* Skips what a run measures or draws ("run"), and the checksum over that, since it differs from run
 * to run. */
static uint64_t hash_json(uint64_t hash, json_t *json) {
    static const char *const measured[] = {"seconds",    "tokens_per_s", "rows_per_s",
                                           "peak_share", "run",          "sha256"};
    for (size_t i = 0; i < sizeof measured / sizeof measured[0]; i++)
        json_object_del(json, measured[i]);
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
    assert_non_null(text);
    hash = hash_bytes(hash, text, strlen(text));
    free(text);
    return hash;
}

static bool is_named(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return !strcmp(slash ? slash + 1 : path, name);
}

static uint64_t hash_file(const char *path, const char *bytes, size_t size) {
    const uint64_t begin = 0xcbf29ce484222325u;
    if (is_named(path, "loss.svg")) return begin; /* also drawn from measured times */
    bool lines = is_named(path, "metrics.jsonl");
    if (!lines && !is_named(path, "state.json") && !is_named(path, "run.json"))
        return hash_bytes(begin, bytes, size);
    uint64_t hash = begin;
    for (const char *at = bytes; at < bytes + size;) {
        const char *end = lines ? memchr(at, '\n', (size_t)(bytes + size - at)) : NULL;
        size_t length = end ? (size_t)(end + 1 - at) : (size_t)(bytes + size - at);
        json_t *json = json_loadb(at, length, 0, NULL);
        hash = json ? hash_json(hash, json) : hash_bytes(hash, at, length);
        json_decref(json);
        at += length;
    }
    return hash;
}

static void add(Snapshot *s, const char *name, uint64_t hash, size_t size) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 32;
        s->files = realloc(s->files, s->capacity * sizeof *s->files);
        assert_non_null(s->files);
    }
    SnapshotFile *file = &s->files[s->count++];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->hash = hash, file->size = size;
}

static void take(Snapshot *s, const char *folder, const char *below) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[PATH_SIZE], name[PATH_SIZE];
        struct stat info;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (!strcmp(entry->d_name, SNAPSHOT_MARKER) && !strstr(folder, ".partial-")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        snprintf(name, sizeof name, "%s%s", below, entry->d_name);
        assert_int_equal(lstat(path, &info), 0);
        if (S_ISDIR(info.st_mode)) {
            strncat(name, "/", sizeof name - strlen(name) - 1);
            add(s, name, 0, 0);
            take(s, path, name);
        } else {
            size_t size;
            char *bytes = file_bytes(path, &size);
            if (!bytes) fail_msg("%s cannot be read", path);
            add(s, name, hash_file(path, bytes, size), size);
            free(bytes);
        }
    }
    closedir(dir);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const SnapshotFile *)a)->name, ((const SnapshotFile *)b)->name);
}

Snapshot snapshot_take(const char *folder) {
    Snapshot s = {0};
    take(&s, folder, "");
    if (s.count) qsort(s.files, s.count, sizeof *s.files, by_name);
    return s;
}

void snapshot_free(Snapshot *s) {
    free(s->files);
    *s = (Snapshot){0};
}

const SnapshotFile *snapshot_find(const Snapshot *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->files[i].name, name)) return &s->files[i];
    return NULL;
}

bool snapshot_same(const Snapshot *found, const Snapshot *expected, char *why, size_t size) {
    for (size_t i = 0; i < expected->count; i++) {
        const SnapshotFile *want = &expected->files[i], *got = snapshot_find(found, want->name);
        if (!got) {
            snprintf(why, size, "%s is missing", want->name);
            return false;
        }
        if (got->hash != want->hash) {
            snprintf(why, size, "%s has other bytes (%zu, expected %zu)", want->name, got->size,
                     want->size);
            return false;
        }
    }
    for (size_t i = 0; i < found->count; i++)
        if (!snapshot_find(expected, found->files[i].name)) {
            snprintf(why, size, "%s should not be there", found->files[i].name);
            return false;
        }
    return true;
}

void folder_copy(const char *from, const char *to) {
    if (mkdir(to, 0700) != 0) fail_msg("cannot make %s", to);
    DIR *dir = opendir(from);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char a[PATH_SIZE], b[PATH_SIZE];
        struct stat info;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        assert_int_equal(stat(a, &info), 0);
        if (S_ISDIR(info.st_mode)) {
            folder_copy(a, b);
            continue;
        }
        size_t size;
        char *bytes = file_bytes(a, &size);
        FILE *out = fopen(b, "wb");
        assert_true(bytes && out && fwrite(bytes, 1, size, out) == size && fclose(out) == 0);
        free(bytes);
        const struct timespec times[2] = {info.st_atim, info.st_mtim};
        assert_int_equal(utimensat(AT_FDCWD, b, times, 0), 0); /* the same input, not a new one */
    }
    closedir(dir);
}
