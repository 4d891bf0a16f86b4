#include "projector/model_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/path.h"
#include "projector/model_paths.h"

/* Whether `path` is the folder `folder` or in it; both are real paths. */
static bool lies_in(const char *path, const char *folder) {
    size_t length = strlen(folder);
    if (length == 1) return true; /* "/" */
    return !strncmp(path, folder, length) && (path[length] == 0 || path[length] == '/');
}

int model_check_out(const char *out, const char *const *inputs, int count, Error *err) {
    struct stat info;
    if (lstat(out, &info) == 0)
        return error_set(err, "%s: exists already; a new model needs a name of its own", out);
    char *above = strndup(out, (size_t)(path_name(out) - out));
    char *real = above ? realpath(above[0] ? above : ".", NULL) : NULL;
    int status = 0;
    if (!real) status = error_set(err, "%s: cannot be made: %s", out, strerror(errno));
    for (int i = 0; i < count && status == 0; i++) {
        char *input = inputs[i] ? realpath(inputs[i], NULL) : NULL;
        if (input && stat(input, &info) == 0 && S_ISDIR(info.st_mode) && lies_in(real, input))
            status = error_set(err,
                               "%s: lies in the folder %s, which is read here; name a place "
                               "outside of it",
                               out, inputs[i]);
        free(input);
    }
    free(real);
    free(above);
    return status;
}

int model_write_subfolder(const char *folder, const char *name, Error *err) {
    char *path = path_join(folder, name, err);
    if (!path) return -1;
    int status =
        mkdir(path, 0777) == 0 ? 0 : error_set(err, "%s: cannot make this folder: %m", path);
    free(path);
    return status;
}

int model_write_json(json_t *json, const char *folder, const char *name, Error *err) {
    char *path = path_join(folder, name, err);
    int status = -1;
    if (path)
        status = json ? json_write(json, path, err) : error_set(err, "%s: out of memory", path);
    json_decref(json);
    free(path);
    return status;
}

int model_write_settings(const json_t *settings, AttentionPattern attention, const Tower *tower,
                         const char *folder, Error *err) {
    json_t *json = settings ? json_deep_copy(settings) : json_object();
    int failed = json ? 0 : -1;
    failed |= json_object_set_new(json, "format", json_integer(1));
    failed |= json_object_set_new(json, "attention", json_string(attention_name(attention)));
    if (tower && tower->vit)
        failed |= json_object_set_new(json, "feature_layer",
                                      json_integer(tower->vit->config.feature_layer));
    else if (tower) /* left from another tower */
        json_object_del(json, "feature_layer");
    if (tower) {
        failed |= json_object_set_new(json, "class_token", json_boolean(tower_class_row(tower)));
        failed |=
            json_object_set_new(json, "image_tokens", json_integer(tower_feature_rows(tower)));
    }
    if (failed) {
        json_decref(json);
        json = NULL;
    }
    return model_write_json(json, folder, MODEL_SETTINGS, err);
}

const char *model_config_dtype(Dtype dtype) {
    if (dtype == DTYPE_I8) dtype = DTYPE_BF16; /* no type of transformers': what it becomes there */
    return dtype == DTYPE_BF16 ? "bfloat16" : dtype == DTYPE_F16 ? "float16" : "float32";
}

int model_config_read(json_t **config, const char *path, Part part, Dtype dtype, Error *err) {
    static const char *const keys[] = {"torch_dtype", "dtype"};
    TRY(config_read(config, path, err));
    json_t *half = json_object_get(*config, "vision_config");
    int failed = 0;
    if (part == PART_VISION && json_is_object(half)) {
        json_incref(half);
        json_decref(*config);
        *config = half;
        failed |= json_object_set_new(half, "model_type", json_string("clip_vision_model"));
    }
    for (int i = 0; i < 2; i++)
        if (json_object_get(*config, keys[i]))
            failed |= json_object_set_new(*config, keys[i], json_string(model_config_dtype(dtype)));
    if (!failed) return 0;
    json_decref(*config);
    return error_set(err, "%s: out of memory", path);
}

int model_copy_file(const char *from, const char *folder, const char *name, Error *err) {
    if (access(from, F_OK) != 0) return 0;
    char *path = path_join(folder, name, err);
    int status = path ? file_copy(from, path, false, err) : -1;
    free(path);
    return status;
}

int model_copy_beside(const ModelPart *part, const char *file, const char *folder, const char *name,
                      Error *err) {
    char *from = model_file_beside(part->path, file, err);
    int status = from ? model_copy_file(from, folder, name, err) : -1;
    free(from);
    return status;
}

/* Whether a language model has a head of its own: other programs ask the configuration. */
static bool has_own_head(const ModelPart *part) {
    static const char end[] = "decoder.weight"; /* under "lm_head.", "cls.predictions.", or alone */
    for (int i = 0; i < part->params.count; i++) {
        const char *name = part->params.items[i].name, *at = strstr(name, end);
        if (at && !at[sizeof end - 1] && (at == name || at[-1] == '.')) return true;
    }
    return false;
}

int model_config_beside(json_t **config, const ModelPart *part, Error *err) {
    char *path = model_file_beside(part->path, "config.json", err);
    int status = path ? model_config_read(config, path, part->kind, part->stored, err) : -1;
    if (status == 0 && has_own_head(part) &&
        json_object_set_new(*config, "tie_word_embeddings", json_false()) != 0) {
        json_decref(*config);
        status = error_set(err, "%s: out of memory", path);
    }
    free(path);
    return status;
}

int model_write_part(const ModelPart *part, const char *folder, const char *name, Error *err) {
    if (!part->present) return 0;
    char *path = path_join(folder, name, err);
    int status = path ? part_write(&part->params, NULL, 0, path, DTYPE_NONE, err) : -1;
    free(path);
    return status;
}

int model_write_empty(const ModelPart *part, const char *folder, const char *name, Error *err) {
    const Params *p = &part->params;
    if (!part->present) return 0;
    CheckpointEntry *entries = calloc((size_t)p->count + 1, sizeof *entries);
    char *path = path_join(folder, name, err);
    int status = !path ? -1 : entries ? 0 : error_set(err, "%s: out of memory", path);
    for (int i = 0; i < p->count && status == 0; i++) {
        const Param *item = &p->items[i];
        const Tensor t = tensor_nd(NULL, part->stored, item->ndim, item->shape);
        entries[i] = (CheckpointEntry){item->name, t};
    }
    if (status == 0) status = checkpoint_write_empty(path, entries, (size_t)p->count, err);
    free(entries);
    free(path);
    return status;
}
