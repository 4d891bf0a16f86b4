#include "data/checkpoints/folder_hint.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/checkpoints/config.h"
#include "data/files/path.h"

static bool begins(const char *name, const char *with) {
    return !strncmp(name, with, strlen(with));
}

static bool ends(const char *name, const char *end) {
    size_t length = strlen(name), size = strlen(end);
    return length >= size && !strcmp(name + length - size, end);
}

static bool has(const char *folder, const char *name) {
    char *path = path_join(folder, name, NULL);
    bool found = path && access(path, F_OK) == 0;
    free(path);
    return found;
}

/* The last entry of a folder, in the order of strcmp, with this beginning and ending (both may be
 * ""); *count of them. Free it; NULL if there is none. */
static char *last_entry(const char *folder, const char *begin, const char *end, int *count) {
    DIR *entries = opendir(folder);
    char *last = NULL;
    *count = 0;
    for (const struct dirent *e; entries && (e = readdir(entries));) {
        if (e->d_name[0] == '.' || !begins(e->d_name, begin) || !ends(e->d_name, end)) continue;
        (*count)++;
        if (last && strcmp(e->d_name, last) < 0) continue;
        free(last);
        last = strdup(e->d_name);
    }
    if (entries) closedir(entries);
    return last;
}

static bool any_entry(const char *folder, const char *begin, const char *end) {
    int count;
    free(last_entry(folder, begin, end, &count));
    return count > 0;
}

/* ---- Paths that are not there. ---- */

static char *link_hint(const char *path) {
    char target[512];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0) return NULL;
    target[n] = 0;
    return path_format(NULL,
                       "a symbolic link to %s, which does not exist: was the download completed, "
                       "and the whole cache copied?",
                       target);
}

/* Whether it is "owner/name", like a repository. */
static bool looks_like_repository(const char *path) {
    const char *slash = strchr(path, '/');
    if (!slash || slash == path || !slash[1] || strchr(slash + 1, '/')) return false;
    for (const char *p = path; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("/-_.", *p)) return false;
    return path[0] != '.';
}

static char *absent_hint(const char *path) {
    char *hint = link_hint(path);
    if (hint) return hint;
    if (!looks_like_repository(path)) return NULL;
    return path_format(NULL,
                       "no such file or folder; if this is a repository of the Hugging Face Hub, "
                       "download it first and name the folder that it was put into");
}

/* ---- Folders. ---- */

static const char *const adapter_files[] = {"adapter_config.json", "adapter_model.safetensors",
                                            "adapter_model.bin"};

/* "base_model_name_or_path" of an adapter_config.json; release *config after use. NULL if
 * missing. */
static const char *base_model(const char *folder, json_t **config) {
    char *file = path_join(folder, adapter_files[0], NULL);
    *config = NULL;
    if (!file || config_read(config, file, NULL)) *config = NULL;
    free(file);
    return json_string_value(json_object_get(*config, "base_model_name_or_path"));
}

char *folder_adapter_hint(const char *path) {
    for (size_t i = 0; i < sizeof adapter_files / sizeof *adapter_files; i++) {
        if (!has(path, adapter_files[i])) continue;
        json_t *config;
        const char *base = base_model(path, &config);
        char *hint =
            path_format(NULL,
                        "holds a LoRA adapter (%s): name its base model%s%.200s as the model, and "
                        "this folder as its adapter",
                        adapter_files[i], base && base[0] ? " " : "", base ? base : "");
        json_decref(config);
        return hint;
    }
    return NULL;
}

static char *cache_hint(const char *path) {
    if (!has(path, "snapshots") || (!has(path, "blobs") && !has(path, "refs"))) return NULL;
    char *snapshots = path_join(path, "snapshots", NULL);
    int count = 0;
    char *last = snapshots ? last_entry(snapshots, "", "", &count) : NULL;
    char *hint = count == 1 ? path_format(NULL, "the root of a download cache; the model is %s/%s",
                                          snapshots, last)
                            : path_format(NULL, "the root of a download cache; name one of the "
                                                "folders in its snapshots/");
    free(last);
    free(snapshots);
    return hint;
}

static char *run_hint(const char *path) {
    int count;
    if (has(path, "model/easyfirst.json"))
        return path_format(NULL, "the folder of a training run; its model is %s/model", path);
    char *last = last_entry(path, "checkpoint-", "", &count), *hint = NULL;
    if (last)
        hint = path_format(NULL, "the folder of a training run; its last checkpoint is %s/%s", path,
                           last);
    free(last);
    return hint;
}

static char *format_hint(const char *path) {
    if (any_entry(path, "global_step", "") || any_entry(path, "zero_pp_rank_", "") ||
        any_entry(path, "mp_rank_", "") || any_entry(path, "bf16_zero_pp_rank_", ""))
        return path_format(NULL, "a DeepSpeed checkpoint; put the weights together with the "
                                 "zero_to_fp32.py that lies in it");
    if (any_entry(path, "", ".distcp"))
        return path_format(NULL, "a distributed PyTorch checkpoint (.distcp); convert it with "
                                 "torch.distributed.checkpoint.format_utils");
    static const char *const others[][2] = {{".gguf", "GGUF"},
                                            {".h5", "TensorFlow (.h5)"},
                                            {".msgpack", "Flax (.msgpack)"},
                                            {".onnx", "ONNX"},
                                            {".ckpt.index", "TensorFlow (.ckpt)"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (any_entry(path, "", others[i][0]))
            return path_format(NULL,
                               "has weights as %s only; expected safetensors or PyTorch files",
                               others[i][1]);
    return NULL;
}

char *folder_hint(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) return errno == ENOENT ? absent_hint(path) : NULL;
    if (!S_ISDIR(info.st_mode)) return NULL;
    char *hint = folder_adapter_hint(path);
    if (!hint) hint = cache_hint(path);
    if (!hint) hint = run_hint(path);
    return hint ? hint : format_hint(path);
}
