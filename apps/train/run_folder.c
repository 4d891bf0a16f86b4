#include "apps/train/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/train/manifest.h"
#include "data/checkpoints/config.h"
#include "data/files/file_write.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"

#define MARKER    "run.json"
#define OLD_MODEL "model-before" /* in the work folder */

enum { MARKER_FORMAT = 1 };

/* What a run writes besides checkpoints. */
static const char *const own_files[] = {MARKER,          "settings.json", "data.json",
                                        "metrics.jsonl", "loss.svg",      NULL};

char *run_folder_path(const RunFolder *run, const char *name, Error *err) {
    return path_join(run->path, name, err);
}

/* Whether the run's folder has an entry of this name, a dangling link included. */
static bool has(const RunFolder *run, const char *name) {
    struct stat info;
    char *path = run_folder_path(run, name, NULL);
    bool found = path && lstat(path, &info) == 0;
    free(path);
    return found;
}

/* ---- Opening. ---- */

static int make_folders(const char *path, bool *made, Error *err) {
    char *part = strdup(path);
    if (!part) return error_set(err, "%s: out of memory", path);
    int status = 0;
    for (size_t i = 1; status == 0 && path[0] && path[i - 1]; i++) {
        if (path[i] != '/' && path[i]) continue;
        part[i] = 0;
        *made = mkdir(part, 0777) == 0;
        if (*made)
            folder_sync_above(part);
        else if (errno != EEXIST)
            status = error_set(err, "%s: cannot create the run folder: %s", part, strerror(errno));
        part[i] = path[i];
    }
    free(part);
    return status;
}

/* The lock is released when the process ends. */
static int take_lock(RunFolder *run, Error *err) {
    run->lock = open(run->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->lock < 0)
        return error_set(err, "%s: %s; --out names a folder", run->path, strerror(errno));
    if (access(run->path, W_OK | X_OK))
        return error_set(err, "%s: cannot write there: %s", run->path, strerror(errno));
    if (flock(run->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return 0;
    return error_set(err, "%s: another process is training there: wait for its end, or stop it",
                     run->path);
}

static int marker_write(const RunFolder *run, Error *err) {
    char *path = run_folder_path(run, MARKER, err);
    json_t *json = json_pack("{s:i, s:s}", "format", MARKER_FORMAT, "run", run->id);
    int status = path && json ? 0 : error_set(err, "%s: out of memory", run->path);
    if (status == 0) status = json_object_set(json, "models", run->published);
    if (status == 0) status = json_write(json, path, err);
    json_decref(json);
    free(path);
    return status ? -1 : 0;
}

static int marker_read(RunFolder *run, Error *err) {
    char *path = run_folder_path(run, MARKER, err);
    json_t *json = NULL;
    const char *id = NULL;
    int format = 0, status = path ? config_read(&json, path, err) : -1;
    if (status == 0) status = config_integer(json, "format", path, 0, 1 << 20, 0, &format, err);
    if (status == 0) status = config_text(json, "run", path, NULL, &id, err);
    if (status == 0 && (format != MARKER_FORMAT || !id || strlen(id) != RUN_ID_SIZE - 1 ||
                        strspn(id, "0123456789abcdef") != RUN_ID_SIZE - 1))
        status = error_set(err, "%s: format %d, run \"%s\": not the marker of a training run", path,
                           format, id ? id : "");
    if (status == 0) {
        memcpy(run->id, id, RUN_ID_SIZE);
        json_t *models = json_object_get(json, "models");
        run->published = json_is_array(models) ? json_incref(models) : json_array();
        if (!run->published) status = error_set(err, "%s: out of memory", path);
    }
    json_decref(json);
    free(path);
    return status;
}

static int draw_id(RunFolder *run, Error *err) {
    unsigned char bytes[(RUN_ID_SIZE - 1) / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return error_set(err, "cannot get a random number for the run: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(run->id + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

/* The name of an existing file that this run would overwrite, or NULL. */
static const char *in_the_way(const RunFolder *run, char *name, size_t size) {
    for (int i = 0; own_files[i]; i++)
        if (has(run, own_files[i])) return own_files[i];
    if (has(run, "model")) return "model";
    if (has(run, "best")) return "best";
    const char *found = NULL;
    DIR *dir = opendir(run->path);
    for (const struct dirent *e; dir && !found && (e = readdir(dir));) {
        if (strncmp(e->d_name, "checkpoint-", strlen("checkpoint-"))) continue;
        snprintf(name, size, "%s", e->d_name);
        found = name;
    }
    if (dir) closedir(dir);
    return found;
}

/* A folder without a marker: it becomes this run's unless the run would overwrite files in it. */
static int adopt(RunFolder *run, bool resume, Error *err) {
    char name[300];
    const char *found = in_the_way(run, name, sizeof name);
    if (resume)
        return error_set(err,
                         "%s: no run to resume: it has no " MARKER " (runs of version 0.1 "
                         "cannot be resumed; -m %s/checkpoint-N starts from one of their models)",
                         run->path, run->path);
    if (found)
        return error_set(err,
                         "%s/%s exists, but no " MARKER " of a run that made it: "
                         "name another folder with --out",
                         run->path, found);
    TRY(draw_id(run, err));
    run->published = json_array();
    if (!run->published) return error_set(err, "%s: out of memory", run->path);
    TRY(marker_write(run, err));
    run->fresh = true;
    return 0;
}

/* Whether this run published model/; *why says what differs. */
static bool is_published(const RunFolder *run, const char *path, Error *why) {
    struct stat info;
    size_t i;
    json_t *manifest;
    error_set(why, "this run did not make it");
    if (lstat(path, &info) || !S_ISDIR(info.st_mode)) return false;
    json_array_foreach(run->published, i, manifest) {
        if (manifest_check(manifest, path, true, why) == 0) return true;
    }
    return false;
}

static int check_model(const RunFolder *run, bool resume, Error *err) {
    Error why = {{0}};
    if (!has(run, "model")) return 0;
    char *path = run_folder_path(run, "model", err);
    int status = path ? 0 : -1;
    if (path && !resume)
        status = error_set(err, "%s exists: name another folder with --out, or remove it", path);
    else if (path && !is_published(run, path, &why))
        status = error_set(err, "%s is not as this run left it (%s): move it away", path, why.text);
    free(path);
    return status;
}

/* Removes what a killed process of this run was writing or removing, and checks that the run's
 * files are writable. */
static int clean(RunFolder *run, Error *err) {
    for (int i = 0; own_files[i]; i++) {
        char *path = run_folder_path(run, own_files[i], err);
        if (!path) return -1;
        int removed = file_write_clean(path), refused = file_write_check(path, err);
        if (removed < 0)
            refused =
                error_set(err, "%s: left over from a killed process: %s", path, strerror(errno));
        free(path);
        if (refused) return -1;
    }
    char *model = run_folder_path(run, "model", err), *old = path_join(run->work, OLD_MODEL, err);
    int status = model && old ? 0 : -1;
    /* It ended between the two renames of change_places. */
    if (status == 0 && !has(run, "model") && rename(old, model) && errno != ENOENT)
        status = error_set(err, "%s: cannot rename it back: %s", model, strerror(errno));
    free(model), free(old);
    return status ? -1 : folder_remove(run->work, err);
}

static int open_locked(RunFolder *run, bool resume, Error *err) {
    if (has(run, MARKER))
        TRY(marker_read(run, err));
    else
        TRY(adopt(run, resume, err));
    run->work = path_format(err, "%s/partial-%s", run->path, run->id);
    if (!run->work) return -1;
    TRY(check_model(run, resume, err));
    return clean(run, err);
}

int run_folder_open(RunFolder *run, const char *path, bool resume, Error *err) {
    *run = (RunFolder){.lock = -1, .path = strdup(path)};
    int status = run->path ? 0 : error_set(err, "%s: out of memory", path);
    if (status == 0 && !resume) status = make_folders(path, &run->made, err);
    if (status == 0) status = take_lock(run, err);
    if (status == 0) status = open_locked(run, resume, err);
    if (status) run_folder_close(run);
    return status;
}

/* A run that ended before it began leaves nothing. */
static void take_back(const RunFolder *run) {
    char *marker = run_folder_path(run, MARKER, NULL);
    if (marker && run->fresh) unlink(marker);
    free(marker);
    if (run->made) rmdir(run->path); /* fails if not empty */
}

void run_folder_close(RunFolder *run) {
    if (run->path && run->lock >= 0) {
        if (run->work) rmdir(run->work);
        if ((run->fresh || run->made) && !has(run, "settings.json")) take_back(run);
    }
    if (run->path && run->lock >= 0) close(run->lock);
    json_decref(run->published);
    free(run->work), free(run->path);
    *run = (RunFolder){.lock = -1};
}

/* ---- The work folder. ---- */

char *run_folder_partial(RunFolder *run, const char *name, bool fresh, Error *err) {
    if (mkdir(run->work, 0777) && errno != EEXIST) {
        error_set(err, "%s: cannot create this folder: %s", run->work, strerror(errno));
        return NULL;
    }
    char *path = path_join(run->work, name, err);
    if (!path || folder_remove(path, err) == 0) {
        if (!path || !fresh || mkdir(path, 0777) == 0) return path;
        error_set(err, "%s: cannot create this folder: %s", path, strerror(errno));
    }
    free(path);
    return NULL;
}

int run_folder_remove(RunFolder *run, const char *path, Error *err) {
    char *partial = run_folder_partial(run, path_name(path), false, err);
    int status = partial ? 0 : -1;
    if (status == 0 && rename(path, partial))
        status = error_set(err, "%s: cannot be removed: %s", path, strerror(errno));
    if (status == 0) status = folder_remove(partial, err);
    free(partial);
    return status;
}

/* ---- The model to use. ---- */

/* Syncs the folders of a model before it gets its name; its files are synced already. */
static int sync_folders(const char *folder, Error *err) {
    static const char *const within[] = {"x", "language/x", "vision/x"};
    for (int i = 0; i < 3; i++) {
        char *path = path_join(folder, within[i], err);
        if (!path) return -1;
        int failed = folder_sync_above(path) && errno != ENOENT;
        if (failed) error_set(err, "%s: its folder cannot be synced: %s", path, strerror(errno));
        free(path);
        if (failed) return -1;
    }
    return 0;
}

/* Exchanges `partial` and `model`; then `partial` is the old one. */
static int change_places(RunFolder *run, const char *partial, const char *model, Error *err) {
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, model, RENAME_EXCHANGE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return error_set(err, "%s: cannot be replaced: %s", model, strerror(errno));
    char *old = run_folder_partial(run, OLD_MODEL, false, err);
    if (!old) return -1;
    int status = 0;
    if (rename(model, old) || rename(partial, model))
        status = error_set(err, "%s: cannot be replaced: %s", model, strerror(errno));
    free(old);
    return status;
}

/* Adds `manifest` to the published ones, or makes it the only one. */
static int tell_published(RunFolder *run, const json_t *manifest, bool alone, Error *err) {
    json_t *models = alone ? json_array() : json_deep_copy(run->published);
    if (!models || json_array_append(models, (json_t *)manifest)) {
        json_decref(models);
        return error_set(err, "%s: out of memory", run->path);
    }
    json_decref(run->published);
    run->published = models;
    return marker_write(run, err);
}

int run_folder_publish(RunFolder *run, const char *partial, const json_t *manifest, Error *err) {
    TRY(sync_folders(partial, err));
    TRY(check_model(run, true, err));
    bool replace = has(run, "model");
    char *model = run_folder_path(run, "model", err);
    if (!model) return -1;
    /* The marker lists both, whichever is there when the process ends. */
    int status = tell_published(run, manifest, !replace, err);
    if (status == 0)
        status =
            replace ? change_places(run, partial, model, err) : folder_commit(partial, model, err);
    if (status == 0 && replace) {
        folder_sync_above(model);
        status = tell_published(run, manifest, true, err);
        if (status == 0) status = folder_remove(partial, err);
    }
    free(model);
    return status;
}

int run_folder_replace(RunFolder *run, const char *partial, const char *name, Error *err) {
    TRY(sync_folders(partial, err));
    bool replace = has(run, name);
    char *path = run_folder_path(run, name, err);
    if (!path) return -1;
    int status =
        replace ? change_places(run, partial, path, err) : folder_commit(partial, path, err);
    if (status == 0 && replace) {
        folder_sync_above(path);
        status = folder_remove(partial, err);
    }
    free(path);
    return status;
}
