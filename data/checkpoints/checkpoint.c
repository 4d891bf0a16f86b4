/* Opening: finds the file, its format, and its shards. Each format has its own reader
 * (safetensors.c, torch_file.c). */
#include "data/checkpoints/checkpoint.h"

#include <dirent.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/checkpoints/checkpoint_store.h"
#include "data/files/file_kind.h"
#include "data/checkpoints/folder_hint.h"
#include "data/files/json_read.h"
#include "data/files/path.h"
#include "data/checkpoints/torch_legacy.h"

enum {
    INDEX_MAX = 16 << 20,     /* bytes of an index.json: about 150,000 tensors */
    INDEX_MEMORY = 256 << 20, /* ... and of its tree */
};

typedef enum FileKind { KIND_SAFETENSORS, KIND_TORCH, KIND_INDEX } FileKind;

static bool begins_with(const MappedFile *file, const void *bytes, size_t size) {
    return file->size >= size && memcmp(file->bytes, bytes, size) == 0;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), size = strlen(end);
    return length >= size && strcmp(text + length - size, end) == 0;
}

/* A safetensors file begins with a binary number and then '{'. JSON may have a '{' at that place
 * too, but never a zero byte or another control character than white space before it. */
static bool looks_like_safetensors(const MappedFile *file) {
    if (file->size < 9 || file->bytes[8] != '{') return false;
    for (int i = 0; i < 8; i++) {
        unsigned char c = file->bytes[i];
        if ((c < ' ' && c != '\n' && c != '\r' && c != '\t') || c >= 0x7f) return true;
    }
    return false;
}

static int recognize(const MappedFile *file, FileKind *kind, Error *err) {
    if (begins_with(file, "PK\3\4", 4) || torch_legacy_begins(file)) {
        *kind = KIND_TORCH;
        return 0;
    }
    if (looks_like_safetensors(file)) {
        *kind = KIND_SAFETENSORS;
        return 0;
    }
    const char *hint = file->bytes[0] == 0x80 ? NULL : file_kind_hint(file->bytes, file->size);
    if (hint)
        return error_set(err, "%s: %s%s", file->path, hint,
                         strchr(hint, ';') ? "" : "; expected safetensors or a PyTorch file");
    if (ends_with(file->path, ".safetensors")) { /* its reader reports what is wrong */
        *kind = KIND_SAFETENSORS;
        return 0;
    }
    if (file->bytes[0] == 0x80 && file->size >= 2 && file->bytes[1] <= 5)
        return error_set(err,
                         "%s: a bare pickle, not a file of torch.save; save model.state_dict() "
                         "with torch.save, or as safetensors",
                         file->path);
    size_t at = begins_with(file, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (at < file->size && file->bytes[at] && strchr(" \t\r\n", file->bytes[at])) at++;
    if (at < file->size && file->bytes[at] == '{') {
        *kind = KIND_INDEX;
        return 0;
    }
    return error_set(err,
                     "%s: begins with bytes %02x %02x, neither a safetensors file nor a PyTorch "
                     "zip; is it a checkpoint, and complete?",
                     file->path, file->bytes[0], file->size > 1 ? file->bytes[1] : 0);
}

static int tensor_compare(const void *a, const void *b) {
    return strcmp(((const CheckpointTensor *)a)->name, ((const CheckpointTensor *)b)->name);
}

/* Reads one file of tensors; an index was recognized before, and a shard may not be one. */
static int read_tensors(CheckpointStore *store, const MappedFile *file, FileKind kind, Error *err) {
    switch (kind) {
    case KIND_SAFETENSORS:
        return safetensors_read(store, file, err);
    case KIND_TORCH:
        return torch_file_read(store, file, err);
    default:
        return error_set(err, "%s: a JSON file, expected one with tensors", file->path);
    }
}

/* One line of an index: this tensor is in that file. Both strings are jansson's. */
typedef struct Assignment {
    const char *file, *tensor;
} Assignment;

static int assignment_compare(const void *a, const void *b) {
    return strcmp(((const Assignment *)a)->file, ((const Assignment *)b)->file);
}

/* Maps a file; the error says what it is instead. */
static int map_or_hint(CheckpointStore *store, const char *path, MappedFile *file, Error *err) {
    if (store_map(store, path, file, err) == 0) return 0;
    char *hint = folder_hint(path);
    if (hint) error_set(err, "%s: %s", path, hint);
    free(hint);
    return -1;
}

/* Reads the shard that all of these assignments name, and finds their tensors in it. */
static int read_shard(CheckpointStore *store, const char *index, const Assignment *assignments,
                      size_t count, Error *err) {
    const char *name = assignments[0].file;
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, "%s: names a shard \"%.200s\", expected a file of the same folder",
                         index, name);
    const char *slash = strrchr(index, '/');
    int above = slash ? (int)(slash - index) + 1 : 0;
    char *path = path_format(err, "%.*s%s", above, index, name);
    if (!path) return -1;

    size_t first = store->tensor_count;
    MappedFile file;
    FileKind kind;
    int failed = map_or_hint(store, path, &file, err);
    free(path);
    if (failed) return error_context(err, "%s: shard missing or unreadable", index);
    TRY(recognize(&file, &kind, err));
    TRY(read_tensors(store, &file, kind, err));

    size_t found = store->tensor_count - first;
    if (found) qsort(store->tensors + first, found, sizeof *store->tensors, tensor_compare);
    for (size_t i = 0; i < count; i++) {
        CheckpointTensor key = {.name = assignments[i].tensor};
        if (!found || !bsearch(&key, store->tensors + first, found, sizeof key, tensor_compare))
            return error_set(err,
                             "%s: tensor \"%.200s\" should be in %s, which does not have it: are "
                             "the files of one and the same model?",
                             index, key.name, file.path);
    }
    return 0;
}

static int read_weight_map(CheckpointStore *store, const char *index, const json_t *map,
                           Error *err) {
    size_t count = json_object_size(map), used = 0;
    if (!json_is_object(map) || count == 0)
        return error_set(
            err, "%s: JSON without a \"weight_map\" of tensors, not an index of shards", index);
    Assignment *assignments = malloc(count * sizeof *assignments);
    if (!assignments) return error_set(err, "%s: out of memory", index);
    int failed = 0;
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)map, tensor, file) {
        if (!json_is_string(file))
            failed = error_set(err, "%s: \"weight_map\" gives no file name for \"%.200s\"", index,
                               tensor);
        else
            assignments[used++] = (Assignment){json_string_value(file), tensor};
    }
    if (!failed) qsort(assignments, used, sizeof *assignments, assignment_compare);
    for (size_t first = 0, end; !failed && first < used; first = end) {
        end = first + 1;
        while (end < used && strcmp(assignments[end].file, assignments[first].file) == 0) end++;
        failed = read_shard(store, index, assignments + first, end - first, err);
    }
    free(assignments);
    return failed;
}

static int read_index(CheckpointStore *store, const MappedFile *file, Error *err) {
    if (file->size > INDEX_MAX)
        return error_set(err, "%s: a JSON file of %zu bytes, at most %d expected in an index",
                         file->path, file->size, INDEX_MAX);
    json_t *root;
    TRY(json_read_text(&root, (const char *)file->bytes, file->size, JSON_REJECT_DUPLICATES,
                       INDEX_MEMORY, file->path, err));
    int failed = read_weight_map(store, file->path, json_object_get(root, "weight_map"), err);
    json_decref(root);
    return failed;
}

static int read_path(CheckpointStore *store, const char *path, Error *err) {
    MappedFile file;
    FileKind kind;
    TRY(map_or_hint(store, path, &file, err));
    TRY(recognize(&file, &kind, err));
    return kind == KIND_INDEX ? read_index(store, &file, err)
                              : read_tensors(store, &file, kind, err);
}

static bool is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* Trainer files next to the weights that could be mistaken for them. */
static bool is_training_state(const char *name) {
    static const char *const names[] = {"training_args.",    "optimizer.", "scheduler.",
                                        "scaler.",           "rng_state",  "zero_pp_rank_",
                                        "bf16_zero_pp_rank_"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
    return false;
}

/* The only file of the folder with this ending. *path stays NULL if there is none; several are an
 * error that names the first two. */
static int find_only(const char *folder, const char *ending, char **path, Error *err) {
    DIR *dir = opendir(folder);
    if (!dir) return error_set(err, "%s: cannot read this folder", folder);
    char *names[2] = {NULL, NULL}; /* the first two in the order of strcmp */
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (name[0] == '.' || !ends_with(name, ending) || is_training_state(name)) continue;
        char *full = path_join(folder, name, NULL);
        bool counts = full && is_file(full);
        free(full);
        if (!counts) continue;
        count++;
        int place = !names[0] || strcmp(name, names[0]) < 0   ? 0
                    : !names[1] || strcmp(name, names[1]) < 0 ? 1
                                                              : 2;
        if (place == 2) continue;
        free(names[1]);
        names[1] = place == 0 ? names[0] : NULL;
        names[place] = strdup(name);
    }
    closedir(dir);
    int failed = 0;
    if (count > 1)
        failed = error_set(err,
                           "%s: %zu files end in %s (\"%.100s\", \"%.100s\"%s) and no "
                           "index.json joins them; name the one to use",
                           folder, count, ending, names[0] ? names[0] : "",
                           names[1] ? names[1] : "", count > 2 ? ", ..." : "");
    else if (count == 1 && !(*path = names[0] ? path_join(folder, names[0], NULL) : NULL))
        failed = error_set(err, "%s: out of memory", folder);
    free(names[0]);
    free(names[1]);
    return failed;
}

/* The file with a folder's weights; free it. */
static int find_in_folder(const char *folder, const char *stem, char **path, Error *err) {
    static const struct {
        const char *stem, *ending;
    } usual[] = {{"model", ".safetensors"},
                 {"model", ".safetensors.index.json"},
                 {"pytorch_model", ".bin"},
                 {"pytorch_model", ".bin.index.json"}};
    static const char *const endings[] = {".safetensors", ".bin", ".pt", ".pth"};
    *path = NULL;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        const char *slash = ends_with(folder, "/") ? "" : "/";
        char *full = path_format(err, "%s%s%s%s", folder, slash, stem ? stem : usual[i].stem,
                                 usual[i].ending);
        if (!full) return -1;
        if (is_file(full)) {
            *path = full;
            return 0;
        }
        struct stat info;
        char *hint = lstat(full, &info) == 0 && S_ISLNK(info.st_mode) ? folder_hint(full) : NULL;
        if (hint) error_set(err, "%s: %s", full, hint);
        bool dangling = hint != NULL;
        free(hint);
        free(full);
        if (dangling) return -1;
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings && !*path; i++)
        TRY(find_only(folder, endings[i], path, err));
    if (*path) return 0;
    char *hint = folder_hint(folder);
    if (hint) {
        error_set(err, "%s: %s", folder, hint);
        free(hint);
        return -1;
    }
    return error_set(err,
                     "%s: no weights in this folder; expected %s.safetensors or %s.bin (or their "
                     ".index.json with shards), or one .safetensors, .bin, .pt or .pth file",
                     folder, stem ? stem : "model", stem ? stem : "pytorch_model");
}

static int read_all(CheckpointStore *store, const char *path, const char *stem, Error *err) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        char *file;
        TRY(find_in_folder(path, stem, &file, err));
        int failed = read_path(store, file, err);
        free(file);
        if (failed) return -1;
    } else {
        TRY(read_path(store, path, err));
    }
    if (store->tensor_count)
        qsort(store->tensors, store->tensor_count, sizeof *store->tensors, tensor_compare);
    for (size_t i = 1; i < store->tensor_count; i++)
        if (tensor_compare(&store->tensors[i - 1], &store->tensors[i]) == 0)
            return error_set(err, "%s: two tensors named \"%.200s\"", path, store->tensors[i].name);
    return store_join_scales(store, path, err);
}

int checkpoint_open(Checkpoint *checkpoint, const char *path, const char *stem, Error *err) {
    *checkpoint = (Checkpoint){0};
    checkpoint->store = calloc(1, sizeof *checkpoint->store);
    checkpoint->path = strdup(path);
    int failed = checkpoint->store && checkpoint->path
                     ? read_all(checkpoint->store, path, stem, err)
                     : error_set(err, "%s: out of memory", path);
    if (failed) {
        checkpoint_close(checkpoint);
        return -1;
    }
    checkpoint->tensors = checkpoint->store->tensors;
    checkpoint->count = checkpoint->store->tensor_count;
    return 0;
}

void checkpoint_close(Checkpoint *checkpoint) {
    if (checkpoint->store) store_free(checkpoint->store);
    free(checkpoint->store);
    free(checkpoint->path);
    *checkpoint = (Checkpoint){0};
}

const char *checkpoint_file(const Checkpoint *checkpoint, size_t index) {
    const CheckpointStore *store = checkpoint->store;
    return store && index < store->file_count ? store->files[index].path : NULL;
}

const CheckpointTensor *checkpoint_find(const Checkpoint *checkpoint, const char *name) {
    if (checkpoint->count == 0) return NULL;
    CheckpointTensor key = {.name = name};
    return bsearch(&key, checkpoint->tensors, checkpoint->count, sizeof key, tensor_compare);
}

void checkpoint_release_pages(const Checkpoint *checkpoint, const void *data, size_t bytes) {
    if (!data || bytes == 0) return;
    for (size_t i = 0; i < checkpoint->store->file_count; i++)
        if (mapped_file_contains(&checkpoint->store->files[i], data, bytes)) {
            mapped_file_release(&checkpoint->store->files[i], data, bytes);
            return;
        }
}
