#include "apps/train/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files/file_hash.h"
#include "data/files/path.h"

#define STATE_FILE "training/state.json"

enum { MOST_DEPTH = 4 }; /* of a model folder: deeper ones are not ours */

/* ---- Walking over files. ---- */

typedef struct Walk {
    const char *folder;
    int (*file)(struct Walk *walk, const char *name, const char *path, Error *err);
    bool hidden; /* are included */
    /* manifest_make */
    const char *before;
    const json_t *known;
    json_t *made;
    /* manifest_check */
    const json_t *wanted;
} Walk;

static int walk_folder(Walk *w, const char *within, int depth, Error *err);

static int walk_entry(Walk *w, const char *within, const char *entry, int depth, Error *err) {
    struct stat info;
    char *name = path_join(within, entry, err);
    char *path = name ? path_join(w->folder, name, err) : NULL;
    int status = path ? 0 : -1;
    if (status == 0 && lstat(path, &info))
        status = error_set(err, "%s: %s", path, strerror(errno));
    else if (status == 0 && S_ISDIR(info.st_mode) && depth < MOST_DEPTH)
        status = walk_folder(w, name, depth + 1, err);
    else if (status == 0 && strcmp(name, STATE_FILE))
        status = w->file(w, name, path, err);
    free(name), free(path);
    return status;
}

static int walk_folder(Walk *w, const char *within, int depth, Error *err) {
    char *path = path_join(w->folder, within, err);
    DIR *dir = path ? opendir(path) : NULL;
    int status = dir ? 0 : path ? error_set(err, "%s: %s", path, strerror(errno)) : -1;
    while (status == 0) {
        errno = 0;
        const struct dirent *e = readdir(dir);
        if (!e && errno) status = error_set(err, "%s: %s", path, strerror(errno));
        if (!e) break;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (e->d_name[0] == '.' && !w->hidden) continue;
        status = walk_entry(w, within, e->d_name, depth, err);
    }
    if (dir) closedir(dir);
    free(path);
    return status;
}

/* ---- Making. ---- */

/* The known hash of the same file (by inode) in the previous folder; NULL: none. */
static const char *hash_known(const Walk *w, const char *name, const struct stat *info) {
    struct stat old;
    const char *hash =
        json_string_value(json_object_get(json_object_get(w->known, name), "sha256"));
    if (!w->before || !hash) return NULL;
    char *path = path_join(w->before, name, NULL);
    bool same =
        path && lstat(path, &old) == 0 && old.st_dev == info->st_dev && old.st_ino == info->st_ino;
    free(path);
    return same ? hash : NULL;
}

static int add_file(Walk *w, const char *name, const char *path, Error *err) {
    struct stat info;
    char hash[FILE_HASH_SIZE];
    if (lstat(path, &info)) return error_set(err, "%s: %s", path, strerror(errno));
    const char *known = hash_known(w, name, &info);
    if (!known) TRY(file_hash(hash, path, err));
    json_t *file =
        json_pack("{s:I, s:s}", "size", (json_int_t)info.st_size, "sha256", known ? known : hash);
    if (!file || json_object_set_new(w->made, name, file))
        return error_set(err, "%s: out of memory for its hash", path);
    return 0;
}

json_t *manifest_make(const char *folder, const char *before, const json_t *known, Error *err) {
    Walk w = {.folder = folder,
              .file = add_file,
              .before = before,
              .known = known,
              .made = json_object()};
    if (!w.made) {
        error_set(err, "%s: out of memory for the hashes of its files", folder);
        return NULL;
    }
    if (walk_folder(&w, "", 0, err) == 0) return w.made;
    json_decref(w.made);
    return NULL;
}

/* ---- Checking. ---- */

static int check_file(const char *path, const json_t *file, Error *err) {
    struct stat info;
    char hash[FILE_HASH_SIZE];
    json_int_t size = json_integer_value(json_object_get(file, "size"));
    const char *wanted = json_string_value(json_object_get(file, "sha256"));
    if (lstat(path, &info)) {
        bool gone = errno == ENOENT || errno == ENOTDIR;
        error_set(err, "%s: %s", path, strerror(errno));
        return gone ? 1 : -1;
    }
    if (!S_ISREG(info.st_mode) || info.st_size != size) {
        error_set(err, "%s: %lld bytes, expected %lld", path, (long long)info.st_size,
                  (long long)size);
        return 1;
    }
    TRY(file_hash(hash, path, err));
    if (wanted && !strcmp(hash, wanted)) return 0;
    error_set(err, "%s: its SHA-256 is %.12s..., expected %.12s...: its contents have changed",
              path, hash, wanted ? wanted : "");
    return 1;
}

static int find_extra(Walk *w, const char *name, const char *path, Error *err) {
    if (json_object_get(w->wanted, name)) return 0;
    error_set(err, "%s: is not one of its files", path);
    return 1;
}

int manifest_check(const json_t *manifest, const char *folder, bool exact, Error *err) {
    const char *name;
    json_t *file;
    int status = 0;
    if (exact) {
        Walk w = {.folder = folder, .file = find_extra, .hidden = true, .wanted = manifest};
        status = walk_folder(&w, "", 0, err);
    }
    json_object_foreach((json_t *)manifest, name, file) {
        if (status) break;
        char *path = path_join(folder, name, err);
        status = path ? check_file(path, file, err) : -1;
        free(path);
    }
    return status;
}

json_t *manifest_of_model(const json_t *manifest) {
    const char *name;
    json_t *file, *model = json_object();
    json_object_foreach((json_t *)manifest, name, file) {
        if (!strncmp(name, "training/", strlen("training/"))) continue;
        if (!model || json_object_set(model, name, file)) {
            json_decref(model);
            return NULL;
        }
    }
    return model;
}
