#include "apps/eval/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apps/cli/json.h"
#include "data/checkpoints/config.h"
#include "data/files/file_write.h"
#include "data/files/json_memory.h"
#include "data/files/path.h"

#define SETTINGS "settings.json"

/* How long to wait for another process's lock, and the interval of tries. */
enum { LOCK_SECONDS = 60, LOCK_TRIES_A_SECOND = 50 };

/* ---- Whether it is ours. ---- */

/* The temporary file of settings.json (data/files/file_write.h), which may be all that a run killed
 * at its start left. */
static bool is_begun(const char *name) {
    static const char begin[] = SETTINGS ".part-";
    size_t size = sizeof begin - 1;
    return !strncmp(name, begin, size) && strlen(name) == size + 16 &&
           strspn(name + size, "0123456789abcdef") == 16;
}

/* The name of a file in the folder, on the heap; NULL: the folder is empty. */
static int find_content(const char *path, char **name, Error *err) {
    DIR *folder = opendir(path);
    *name = NULL;
    if (!folder) return error_set(err, "%s: %s", path, strerror(errno));
    int status = 0;
    for (const struct dirent *entry; !*name && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || is_begun(entry->d_name)) continue;
        *name = strdup(entry->d_name);
        if (!*name) status = error_set(err, "out of memory for a name");
        if (status) break;
    }
    closedir(folder);
    return status;
}

/* Whether eval_settings_json made the settings.json. */
static int settings_are_ours(const char *path, const char *file, Error *err) {
    json_t *settings;
    TRY(config_read(&settings, file, err));
    const char *command = json_string_value(json_object_get(settings, "command"));
    bool ours = command && !strncmp(command, "eval ", 5);
    json_decref(settings);
    if (ours) return 0;
    return error_set(err,
                     "%s: its settings.json is not that of an evaluation: name a new or empty "
                     "folder with --out",
                     path);
}

static int folder_is_ours(const char *path, Error *err) {
    char *content, *file = NULL;
    TRY(find_content(path, &content, err));
    if (!content) return 0;
    int status = (file = path_join(path, SETTINGS, err)) ? 0 : -1;
    if (status == 0 && access(file, F_OK) == 0)
        status = settings_are_ours(path, file, err);
    else if (status == 0)
        status = error_set(err,
                           "%s is not empty, and no evaluation made it: it has \"%s\", but no "
                           "settings.json; name a new or empty folder with --out",
                           path, content);
    free(content), free(file);
    return status;
}

/* The folder in which a path that does not exist yet would be made; on the heap. */
static char *folder_above(const char *path, Error *err) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    while (end > 0 && path[end - 1] != '/') end--;
    while (end > 1 && path[end - 1] == '/') end--;
    char *above = end ? strndup(path, end) : strdup(".");
    if (!above) error_set(err, "out of memory for a name");
    return above;
}

int eval_folder_check(const char *path, Error *err) {
    struct stat info;
    if (stat(path, &info) == 0) {
        if (!S_ISDIR(info.st_mode))
            return error_set(err, "%s: a folder was expected for --out, but this is a file", path);
        TRY(folder_is_ours(path, err));
        if (access(path, W_OK | X_OK) == 0) return 0;
        return error_set(err, "%s: cannot write there: %s", path, strerror(errno));
    }
    if (errno != ENOENT) return error_set(err, "%s: %s", path, strerror(errno));
    char *above = folder_above(path, err);
    if (!above) return -1;
    int status = 0;
    if (access(above, W_OK | X_OK))
        status =
            error_set(err, "%s: cannot create the folder: %s: %s", path, above, strerror(errno));
    free(above);
    return status;
}

/* ---- The lock. ---- */

static int lock_folder(int fd, const char *path, Error *err) {
    for (int i = 0; i < LOCK_SECONDS * LOCK_TRIES_A_SECOND; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return 0;
        if (errno != EWOULDBLOCK && errno != EINTR) return 0; /* a file system without locks */
        usleep(1000000 / LOCK_TRIES_A_SECOND);
    }
    return error_set(err, "%s: another easyfirst has kept this folder locked for %d s", path,
                     LOCK_SECONDS);
}

int eval_folder_enter(int *lock, const char *path, Error *err) {
    *lock = -1;
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return error_set(err, "%s: cannot create the folder: %s", path, strerror(errno));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return error_set(err, "%s: %s", path, strerror(errno));
    *lock = fd;
    int status = lock_folder(fd, path, err);
    if (status == 0) status = eval_folder_check(path, err);
    if (status) eval_folder_leave(lock);
    return status;
}

void eval_folder_leave(int *lock) {
    if (*lock >= 0) close(*lock);
    *lock = -1;
}

/* ---- Settings. ---- */

static char *value_text(const json_t *value) {
    return value ? json_dumps_whole(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(JSON_DIGITS))
                 : NULL;
}

static const json_t *member(const json_t *object, const char *key) {
    return json_object_get(object, key);
}

/* Fails with the first member in which two objects differ, nested ones included. */
static int settings_compare(const char *folder, const json_t *then, const json_t *now, Error *err) {
    const json_t *sides[2] = {then, now};
    for (int side = 0; side < 2; side++) {
        void *at = json_object_iter((json_t *)sides[side]);
        for (; at; at = json_object_iter_next((json_t *)sides[side], at)) {
            const char *key = json_object_iter_key(at);
            const json_t *a = member(then, key), *b = member(now, key);
            if (json_equal((json_t *)a, (json_t *)b)) continue;
            if (json_is_object(a) && json_is_object(b)) {
                TRY(settings_compare(folder, a, b, err));
                continue;
            }
            char *before = value_text(a), *after = value_text(b);
            int status =
                error_set(err,
                          "%s has answers of a run with other settings: \"%s\" was %.200s, now it "
                          "is %.200s: name another folder with --out, or remove that one",
                          folder, key, before ? before : "not set", after ? after : "not set");
            free(before), free(after);
            return status;
        }
    }
    return 0;
}

int eval_folder_settings(const char *path, const json_t *settings, Error *err) {
    char *file = path_join(path, SETTINGS, err);
    if (!file) return -1;
    json_t *then = NULL;
    int status;
    if (access(file, F_OK) != 0)
        status = eval_folder_json(path, SETTINGS, settings, err);
    else if ((status = config_read(&then, file, err)) == 0)
        status = settings_compare(path, then, settings, err);
    json_decref(then);
    free(file);
    return status;
}

/* ---- Files. ---- */

int eval_folder_json(const char *path, const char *name, const json_t *object, Error *err) {
    FileWriter writer;
    char *file = path_join(path, name, err);
    if (!file) return -1;
    char *text = json_dumps_whole(object, JSON_INDENT(2) | JSON_REAL_PRECISION(JSON_DIGITS));
    int status = text ? 0 : error_set(err, "out of memory for %s", name);
    if (status == 0) {
        size_t size = strlen(text);
        text[size] = '\n'; /* replaces the terminating 0 */
        status = file_write_begin(&writer, file, 0, err);
        if (status == 0)
            status = file_write_end(&writer, file_write_bytes(&writer, text, size + 1, err), err);
    }
    free(text), free(file);
    return status;
}

int eval_folder_clean(const char *path, Error *err) {
    static const char *const names[] = {
        SETTINGS,           "answers.jsonl",   "unanswered.jsonl", "result.json",
        "predictions.json", "attentions.json", "questions.json",   "questions.jsonl",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *file = path_join(path, names[i], err);
        if (!file) return -1;
        int removed = file_write_clean(file);
        int status = removed < 0 ? error_set(err,
                                             "%s: what a killed run left of it cannot be "
                                             "removed: %s",
                                             file, strerror(errno))
                                 : 0;
        free(file);
        if (status) return -1;
    }
    return 0;
}
