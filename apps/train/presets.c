#include "apps/train/presets.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/places.h"
#include "apps/cli/report.h"
#include "data/checkpoints/config.h"
#include "data/files/path.h"
#include "kernels/nearest_word.h"

static const char ending[] = ".json";

static char *presets_folder(Error *err) {
    char *folder = place_find("presets", "presets", "");
    if (!folder)
        error_set(err, "the presets are not installed with this program (share/easyfirst/presets)");
    return folder;
}

static int is_preset(const struct dirent *entry) {
    const size_t size = strlen(entry->d_name), end = sizeof ending - 1;
    return entry->d_name[0] != '.' && size > end && !strcmp(entry->d_name + size - end, ending);
}

/* The presets' names in alphabetical order, NULL-terminated. */
static char **preset_names(const char *folder, Error *err) {
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_preset, alphasort);
    if (count < 0) {
        error_set(err, "%s: cannot be read: %s", folder, strerror(errno));
        return NULL;
    }
    char **names = calloc((size_t)count + 1, sizeof *names);
    for (int i = 0; i < count; i++) {
        const size_t size = strlen(entries[i]->d_name) - (sizeof ending - 1);
        if (names) names[i] = strndup(entries[i]->d_name, size);
        free(entries[i]);
    }
    free(entries);
    if (!names) error_set(err, "out of memory for the presets' names");
    return names;
}

static void names_free(char **names) {
    for (char **name = names; name && *name; name++) free(*name);
    free(names);
}

/* The members that a preset has, no others. */
static int check_members(const json_t *preset, const char *path, Error *err) {
    static const char *const known[] = {"about",        "table", "model",    "note",
                                        "memory_bytes", "stage", "settings", NULL};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)preset, name, value) {
        int i = 0;
        while (known[i] && strcmp(known[i], name)) i++;
        if (!known[i]) return error_set(err, "%s: unknown key \"%.100s\"", path, name);
    }
    for (int i = 0; known[i]; i++)
        if (!json_object_get(preset, known[i]))
            return error_set(err, "%s: has no \"%s\"", path, known[i]);
    if (!json_is_object(json_object_get(preset, "settings")))
        return error_set(err, "%s: \"settings\" must be an object", path);
    return 0;
}

/* A preset's file; *path is the caller's to free. */
static int read_preset(const char *folder, const char *name, json_t **preset, char **path,
                       Error *err) {
    *path = path_format(err, "%s/%s%s", folder, name, ending);
    if (!*path || config_read(preset, *path, err)) {
        free(*path);
        return -1;
    }
    if (check_members(*preset, *path, err) == 0) return 0;
    json_decref(*preset);
    free(*path);
    return -1;
}

static int no_preset(const char *folder, const char *name, Error *err) {
    char **names = preset_names(folder, err);
    if (!names) return -1;
    const char *near = nearest_word(name, (const char *const *)names);
    error_set(err, "there is no preset \"%s\"%s%s%s; easyfirst train --preset list lists them",
              name, near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
    names_free(names);
    return -1;
}

static bool has_preset(const char *folder, const char *name) {
    Error err;
    char **names = preset_names(folder, &err);
    bool found = false;
    for (char **n = names; n && *n && !found; n++) found = !strcmp(*n, name);
    names_free(names);
    return found;
}

int preset_read(const char *name, json_t **settings, char **path, Error *err) {
    char *folder = presets_folder(err);
    json_t *preset;
    if (!folder) return -1;
    int status = has_preset(folder, name) ? read_preset(folder, name, &preset, path, err)
                                          : no_preset(folder, name, err);
    free(folder);
    TRY(status);
    *settings = json_incref(json_object_get(preset, "settings"));
    json_object_set(*settings, "stage", json_object_get(preset, "stage"));
    json_decref(preset);
    return 0;
}

static int print_preset(const char *folder, const char *name, Error *err) {
    json_t *preset;
    char *path;
    TRY(read_preset(folder, name, &preset, &path, err));
    double bytes;
    const char *about, *table, *stage;
    int status = config_real(preset, "memory_bytes", path, 0, &bytes, err);
    if (status == 0) status = config_text(preset, "about", path, "", &about, err);
    if (status == 0) status = config_text(preset, "table", path, "", &table, err);
    if (status == 0) status = config_text(preset, "stage", path, "", &stage, err);
    if (status == 0)
        report_print(stdout, "%-26s%-10s%6.*f GB  %s; %s\n", name, stage, bytes < 1e11 ? 1 : 0,
                     bytes * 1e-9, about, table);
    free(path);
    json_decref(preset);
    return status;
}

int presets_print(Error *err) {
    char *folder = presets_folder(err);
    char **names = folder ? preset_names(folder, err) : NULL;
    int status = names ? 0 : -1;
    for (char **name = names; name && *name && status == 0; name++)
        status = print_preset(folder, *name, err);
    names_free(names);
    free(folder);
    return status ? status : report_flush(err);
}
