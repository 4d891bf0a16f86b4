/* adapter_config.json: what it says, and what of it is not done here. */
#include <math.h>
#include <string.h>

#include "data/checkpoints/adapter.h"
#include "data/checkpoints/config.h"

/* What has no effect once an adapter is trained, or is of the base model; the tensors say which
 * modules are adapted. */
static const char *const without_effect[] = {"auto_mapping",
                                             "base_model_name_or_path",
                                             "exclude_modules",
                                             "inference_mode",
                                             "layers_pattern",
                                             "layers_to_transform",
                                             "lora_dropout",
                                             "megatron_core",
                                             "peft_version",
                                             "qalora_group_size",
                                             "revision",
                                             "runtime_config",
                                             "task_type",
                                             "eva_config",
                                             "loftq_config",
                                             "corda_config",
                                             "lora_ga_config",
                                             "ensure_weight_tying",
                                             NULL};

static const char *const used[] = {"peft_type",
                                   "r",
                                   "lora_alpha",
                                   "use_rslora",
                                   "bias",
                                   "rank_pattern",
                                   "alpha_pattern",
                                   "target_modules",
                                   "fan_in_fan_out",
                                   "init_lora_weights",
                                   NULL};

static bool in_list(const char *name, const char *const *list) {
    for (int i = 0; list[i]; i++)
        if (!strcmp(name, list[i])) return true;
    return false;
}

static bool is_off(const json_t *value) {
    return json_is_null(value) || json_is_false(value) ||
           ((json_is_object(value) || json_is_array(value)) && json_object_size(value) == 0 &&
            json_array_size(value) == 0);
}

/* Whatever else is set would change the result. */
static int check_rest(const json_t *json, const char *path, Error *err) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)json, name, value) {
        if (in_list(name, without_effect) || in_list(name, used) || is_off(value)) continue;
        return error_set(err,
                         "%s: \"%.60s\" is set, which is not supported: merge the adapter into its "
                         "base model with PEFT (merge_and_unload, save_pretrained) and name the "
                         "result",
                         path, name);
    }
    return 0;
}

/* Initializations that subtract something from the base model's weights: without doing that again
 * the sum would be another model. */
static int check_start(const json_t *json, const char *path, Error *err) {
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", NULL};
    const json_t *start = json_object_get(json, "init_lora_weights");
    const char *name = json_string_value(start);
    if (!start || json_is_null(start) || json_is_boolean(start) ||
        (name && in_list(name, harmless)))
        return 0;
    return error_set(err,
                     "%s: \"init_lora_weights\" is \"%.40s\", which changes the base model's "
                     "weights: convert the adapter to an ordinary one (save_pretrained with "
                     "path_initial_model_for_weight_conversion)",
                     path, name ? name : "(no text)");
}

static int check_fixed(const json_t *json, const char *path, Error *err) {
    const char *type, *bias;
    bool turned;
    TRY(config_text(json, "peft_type", path, "LORA", &type, err));
    if (strcmp(type, "LORA") != 0)
        return error_set(err, "%s: \"peft_type\" is \"%.40s\", expected LORA", path, type);
    TRY(config_text(json, "bias", path, "none", &bias, err));
    if (strcmp(bias, "none") != 0)
        return error_set(err,
                         "%s: \"bias\" is \"%.40s\", expected none: trained biases are not in an "
                         "adapter's matrices",
                         path, bias);
    TRY(config_flag(json, "fan_in_fan_out", path, false, &turned, err));
    if (turned)
        return error_set(err,
                         "%s: \"fan_in_fan_out\" is true, which is for models with transposed "
                         "weights (GPT-2's); expected false",
                         path);
    return check_start(json, path, err);
}

/* Patterns are regular expressions in PEFT. Names of modules, the only ones in use, are ones that
 * match themselves; their '.' matches any character, which no two modules' names differ in. */
static bool plain_pattern(const char *pattern) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    if (*pattern == '^') pattern++;
    return *pattern && strspn(pattern, letters) == strlen(pattern);
}

static int take_patterns(const json_t *json, const char *name, bool whole, const char *path,
                         const json_t **patterns, Error *err) {
    const char *pattern;
    json_t *value;
    *patterns = json_object_get(json, name);
    if (*patterns && is_off(*patterns)) *patterns = NULL;
    if (!*patterns) return 0;
    if (!json_is_object(*patterns))
        return error_set(err, "%s: \"%s\" must be an object of names of modules", path, name);
    json_object_foreach((json_t *)*patterns, pattern, value) {
        if (!plain_pattern(pattern))
            return error_set(err,
                             "%s: \"%s\" has the pattern \"%.100s\", expected names of modules",
                             path, name, pattern);
        const double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number) ||
            (whole && !(json_is_integer(value) && number >= 1 && number <= 1 << 20)))
            return error_set(err, "%s: \"%s\" of \"%.100s\" must be a number%s", path, name,
                             pattern, whole ? ", 1 or more" : "");
    }
    return 0;
}

/* A list of names, unless only some layers' modules of these names are meant. */
static int take_targets(AdapterConfig *c, const char *path, Error *err) {
    const json_t *targets = json_object_get(c->json, "target_modules"), *name;
    size_t i;
    if (!targets || json_is_null(targets) || json_is_string(targets)) return 0;
    if (!json_is_array(targets))
        return error_set(err, "%s: \"target_modules\" must be a list of names", path);
    json_array_foreach((json_t *)targets, i, name) {
        if (!json_is_string(name))
            return error_set(err, "%s: \"target_modules\" must be a list of names", path);
    }
    const json_t *layers = json_object_get(c->json, "layers_to_transform");
    const json_t *others = json_object_get(c->json, "exclude_modules");
    if ((!layers || json_is_null(layers)) && (!others || is_off(others))) c->targets = targets;
    return 0;
}

static int take(AdapterConfig *c, const char *path, Error *err) {
    TRY(check_fixed(c->json, path, err));
    TRY(check_rest(c->json, path, err));
    if (!json_is_integer(json_object_get(c->json, "r")))
        return error_set(err, "%s: \"r\", the rank of its matrices, must be a whole number", path);
    TRY(config_integer(c->json, "r", path, 1, 1 << 20, 8, &c->rank, err));
    TRY(config_real(c->json, "lora_alpha", path, 8, &c->alpha, err));
    TRY(config_flag(c->json, "use_rslora", path, false, &c->root, err));
    TRY(take_patterns(c->json, "rank_pattern", true, path, &c->ranks, err));
    TRY(take_patterns(c->json, "alpha_pattern", false, path, &c->alphas, err));
    return take_targets(c, path, err);
}

int adapter_config_read(AdapterConfig *config, const char *path, Error *err) {
    *config = (AdapterConfig){0};
    TRY(config_read(&config->json, path, err));
    if (take(config, path, err) == 0) return 0;
    adapter_config_free(config);
    return -1;
}

void adapter_config_free(AdapterConfig *config) {
    json_decref(config->json);
    *config = (AdapterConfig){0};
}

/* The value of the first pattern that is the module's name or its end after a dot; '^' allows the
 * whole name only. */
static const json_t *find_pattern(const json_t *patterns, const char *module) {
    const char *pattern;
    json_t *value;
    json_object_foreach((json_t *)patterns, pattern, value) {
        const bool whole = *pattern == '^';
        const char *text = pattern + whole;
        const size_t size = strlen(module), tail = strlen(text);
        if (tail > size || strcmp(module + size - tail, text) != 0) continue;
        if (tail == size || (!whole && module[size - tail - 1] == '.')) return value;
    }
    return NULL;
}

int adapter_module_rank(const AdapterConfig *config, const char *module) {
    const json_t *own = find_pattern(config->ranks, module);
    return own ? (int)json_integer_value(own) : config->rank;
}

double adapter_module_scale(const AdapterConfig *config, const char *module) {
    const json_t *own = find_pattern(config->alphas, module);
    const double alpha = own ? json_number_value(own) : config->alpha;
    const double rank = adapter_module_rank(config, module);
    return alpha / (config->root ? sqrt(rank) : rank);
}
