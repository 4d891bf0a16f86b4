/* file_check.c - checks that outputs can be written and do not overwrite inputs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_target.h"
#include "data/files/file_write.h"
#include "data/files/path.h"

static int cannot(const char *path, const char *reason, Error *err) {
    return error_set(err, "%s: cannot be written: %s", path, reason);
}

static int check_folder(const char *path, const char *target, Error *err) {
    char *folder = file_folder(target);
    if (!folder) return error_set(err, "%s: out of memory", path);
    struct stat info;
    int failed = 0;
    if (stat(folder, &info) != 0)
        failed = error_set(err, "%s: cannot be written: its folder %s: %s", path, folder,
                           strerror(errno));
    else if (!S_ISDIR(info.st_mode))
        failed = error_set(err, "%s: cannot be written: %s is not a folder", path, folder);
    else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) != 0)
        failed = error_set(err, "%s: cannot be written: its folder %s: %s", path, folder,
                           strerror(errno));
    free(folder);
    return failed;
}

int file_write_check(const char *path, Error *err) {
    FileTarget t;
    if (file_target(&t, path) != 0) return cannot(path, strerror(errno), err);
    int failed = 0;
    if (t.found && S_ISDIR(t.info.st_mode))
        failed = cannot(path, "it is a folder", err);
    else if (t.found && t.own_fd < 0 && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        failed = cannot(path, strerror(errno), err);
    else if (t.path && t.path[strlen(t.path) - 1] == '/')
        failed = cannot(path, "it is the name of a folder", err);
    if (t.path && !failed) failed = check_folder(path, t.path, err);
    file_target_free(&t);
    return failed;
}

/* ---- Outputs that are inputs. ---- */

static bool same_inode(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Two paths that do not exist yet. */
static bool same_place(const char *a, const char *b) {
    char *above_a = file_folder(a), *above_b = file_folder(b);
    struct stat in_a, in_b;
    bool same = above_a && above_b && stat(above_a, &in_a) == 0 && stat(above_b, &in_b) == 0 &&
                same_inode(&in_a, &in_b) && !strcmp(path_name(a), path_name(b));
    free(above_a);
    free(above_b);
    return same;
}

bool file_same(const char *a, const char *b) {
    FileTarget at_a, at_b;
    bool same = false;
    if (file_target(&at_a, a) != 0) return false;
    if (file_target(&at_b, b) == 0) {
        if (at_a.found && at_b.found)
            same = S_ISREG(at_a.info.st_mode) && same_inode(&at_a.info, &at_b.info);
        else if (!at_a.found && !at_b.found && at_a.path && at_b.path)
            same = same_place(at_a.path, at_b.path);
        file_target_free(&at_b);
    }
    file_target_free(&at_a);
    return same;
}

static bool ends_in(const char *text, const char *end) {
    size_t length = strlen(text), size = strlen(end);
    return length >= size && !strcmp(text + length - size, end);
}

static bool is_model_file(const char *path) {
    static const char *const ends[] = {".safetensors",  ".bin",
                                       ".pt",           ".pth",
                                       ".model",        ".index.json",
                                       "config.json",   "easyfirst.json",
                                       "segment.json",  "added_tokens.json",
                                       "settings.json", "state.json"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_in(path, ends[i])) return true;
    return false;
}

/* Whether `path`, an existing file, is in `folder` or a subfolder. */
static bool lies_in(const char *path, const char *folder) {
    struct stat wanted, info;
    char *at = realpath(path, NULL);
    bool found = false;
    if (!at || stat(folder, &wanted) != 0 || !S_ISDIR(wanted.st_mode)) {
        free(at);
        return false;
    }
    for (char *slash; !found && (slash = strrchr(at, '/')) && slash > at;) {
        *slash = 0;
        found = stat(at, &info) == 0 && same_inode(&info, &wanted);
    }
    free(at);
    return found;
}

static const char *standard(const char *path, const char *name) {
    return path && !strcmp(path, "-") ? name : path;
}

static int check_inputs(const FileRole *output, const char *path, const FileRole *inputs, int count,
                        Error *err) {
    for (int i = 0; i < count; i++) {
        const char *in = standard(inputs[i].path, "/dev/stdin");
        if (!in) continue;
        if (file_same(path, in))
            return error_set(err,
                             "%s: %s would overwrite this file, which %s reads: name another file",
                             output->path, output->role, inputs[i].role);
        if ((inputs[i].whole || is_model_file(path)) && lies_in(path, in))
            return error_set(err,
                             "%s: %s would overwrite this file in the folder that %s reads: name "
                             "another file",
                             output->path, output->role, inputs[i].role);
    }
    return 0;
}

int file_roles_check(const FileRole *outputs, int output_count, const FileRole *inputs,
                     int input_count, Error *err) {
    for (int i = 0; i < output_count; i++) {
        const char *path = standard(outputs[i].path, "/dev/stdout");
        if (!path) continue;
        TRY(check_inputs(&outputs[i], path, inputs, input_count, err));
        for (int j = 0; j < i; j++) {
            const char *other = standard(outputs[j].path, "/dev/stdout");
            if (other && file_same(path, other))
                return error_set(err, "%s: %s and %s would write the same file: name two",
                                 outputs[i].path, outputs[j].role, outputs[i].role);
        }
        if (strcmp(outputs[i].path, "-")) TRY(file_write_check(path, err));
    }
    return 0;
}
