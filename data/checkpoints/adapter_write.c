/* Writing an adapter as PEFT does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/checkpoints/adapter.h"
#include "data/checkpoints/model_files.h"
#include "data/files/path.h"

static const char outer[] = "base_model.model.", tail[] = ".lora_A.weight", weight[] = ".weight";

/* The module's name in a parameter's, up to *size; NULL: `p` is no lora_A. */
static const char *module_of(const Param *p, size_t *size) {
    const size_t length = strlen(p->name), begin = strlen(outer), end = strlen(tail);
    if (length <= begin + end || strcmp(p->name + length - end, tail) != 0) return NULL;
    *size = length - begin - end;
    return p->name + begin;
}

static bool is_adapted(const Params *lora, const char *name, size_t size) {
    for (int i = 0; i < lora->count; i++) {
        size_t own;
        const char *module = module_of(&lora->items[i], &own);
        if (module && own == size && !strncmp(module, name, size)) return true;
    }
    return false;
}

static bool ends_in(const char *name, size_t size, const char *last, size_t last_size) {
    return size >= last_size && !strncmp(name + size - last_size, last, last_size) &&
           (size == last_size || name[size - last_size - 1] == '.');
}

/* Whether all matrices of the model whose names end so are adapted. */
static bool names_all(const Params *model, const Params *lora, const char *last, size_t last_size) {
    for (int i = 0; i < model->count; i++) {
        const Param *p = &model->items[i];
        const size_t length = strlen(p->name), end = strlen(weight);
        if (p->ndim < 2 || length <= end || strcmp(p->name + length - end, weight) != 0) continue;
        if (ends_in(p->name, length - end, last, last_size) &&
            !is_adapted(lora, p->name, length - end))
            return false;
    }
    return true;
}

static int add_target(json_t *targets, const char *name, size_t size) {
    size_t i;
    json_t *known;
    json_array_foreach(targets, i, known) {
        const char *text = json_string_value(known);
        if (strlen(text) == size && !strncmp(text, name, size)) return 0;
    }
    return json_array_append_new(targets, json_stringn(name, size));
}

/* The last part of each module's name where that names no other matrix, else the whole name. */
static json_t *list_targets(const Params *model, const Params *lora) {
    json_t *targets = json_array();
    int failed = targets ? 0 : -1;
    for (int i = 0; i < lora->count && !failed; i++) {
        size_t size;
        const char *module = module_of(&lora->items[i], &size);
        if (!module) continue;
        size_t last = size;
        while (last > 0 && module[last - 1] != '.') last--;
        const bool enough = names_all(model, lora, module + last, size - last);
        failed = enough ? add_target(targets, module + last, size - last)
                        : add_target(targets, module, size);
    }
    if (!failed) return targets;
    json_decref(targets);
    return NULL;
}

static json_t *alpha_json(float alpha) {
    if (alpha == floorf(alpha) && fabsf(alpha) < 1e6f) return json_integer((json_int_t)alpha);
    return json_real((double)alpha);
}

static int config_write(const char *folder, const Params *model, const Params *lora,
                        const LoraConfig *config, const char *base, Error *err) {
    json_t *json =
        json_pack("{s:s, s:n, s:s?, s:b, s:i, s:o, s:f, s:s, s:b, s:b, s:b, s:o?}", "peft_type",
                  "LORA", "task_type", "base_model_name_or_path", base, "inference_mode", 1, "r",
                  config->rank, "lora_alpha", alpha_json(config->alpha), "lora_dropout", 0.0,
                  "bias", "none", "fan_in_fan_out", 0, "use_rslora", 0, "init_lora_weights", 1,
                  "target_modules", list_targets(model, lora));
    if (!json_object_get(json, "target_modules")) {
        json_decref(json);
        return error_set(err,
                         "%s: %s cannot be made: a name is not valid UTF-8, or there is no "
                         "memory",
                         folder, ADAPTER_CONFIG);
    }
    char *path = path_join(folder, ADAPTER_CONFIG, err);
    int status = path ? json_write(json, path, err) : -1;
    free(path);
    json_decref(json);
    return status;
}

int adapter_write(const char *folder, const Params *model, const Params *lora,
                  const LoraConfig *config, const char *base, Error *err) {
    char *path = path_join(folder, ADAPTER_WEIGHTS, err);
    int status = path ? part_write(lora, NULL, 0, path, DTYPE_F32, err) : -1;
    free(path);
    return status ? status : config_write(folder, model, lora, config, base, err);
}
