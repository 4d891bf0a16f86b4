/* config_values.h - values of a part's config.json: what must agree with the tensors, and what must
 * be as easyfirst computes it. Private to model_config.c and encoder_config.c. */
#ifndef EASYFIRST_PROJECTOR_CONFIG_VALUES_H
#define EASYFIRST_PROJECTOR_CONFIG_VALUES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/checkpoints/config.h"
#include "data/checkpoints/part.h"
#include "kernels/block.h"
#include "projector/model_paths.h"

/* How many layers there are: `format` has one %d. */
static inline int count_layers(const Checkpoint *c, Part part, const char *format) {
    char name[160];
    for (int n = 0;; n++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof name, format, n);
#pragma GCC diagnostic pop
        if (n == 10000 || !part_find(c, part, name)) return n;
    }
}

/* One file, or the half of it that is meant. */
typedef struct Config {
    json_t *whole;
    const json_t *json; /* in `whole` */
    char *path;
    Error *err;
} Config;

static inline void config_close(Config *c) {
    json_decref(c->whole);
    free(c->path);
}

/* config.json beside the weights; for two-part configurations the `half`. On failure there is
 * nothing to close. */
static inline int config_open(Config *c, const char *weights, const char *half, Error *err) {
    *c = (Config){.err = err};
    c->path = model_file_beside(weights, "config.json", err);
    if (!c->path) return -1;
    int status = 0;
    if (access(c->path, F_OK) != 0)
        status =
            error_set(err, "%s: missing; put the model's config.json next to its weights", c->path);
    else
        status = config_read(&c->whole, c->path, err);
    if (status) {
        config_close(c);
        return -1;
    }
    const json_t *inner = half ? json_object_get(c->whole, half) : NULL;
    c->json = json_is_object(inner) ? inner : c->whole;
    return 0;
}

/* A size that both the configuration and the tensors tell: they must agree. */
static inline int check_size(const Config *c, const char *name, int64_t found) {
    int told;
    TRY(config_integer(c->json, name, c->path, 1, 1 << 24, (int)found, &told, c->err));
    if (told == found) return 0;
    return error_set(c->err, "%s: \"%s\" is %d, but the tensors have %lld", c->path, name, told,
                     (long long)found);
}

/* A value that must be this one, if it is there at all. */
static inline int check_integer(const Config *c, const char *name, int wanted, const char *why) {
    int told;
    TRY(config_integer(c->json, name, c->path, INT32_MIN, INT32_MAX, wanted, &told, c->err));
    if (told == wanted) return 0;
    return error_set(c->err, "%s: \"%s\" is %d, expected %d: %s", c->path, name, told, wanted, why);
}

static inline int check_flag(const Config *c, const char *name, bool wanted, const char *why) {
    bool told;
    TRY(config_flag(c->json, name, c->path, wanted, &told, c->err));
    if (told == wanted) return 0;
    return error_set(c->err, "%s: \"%s\" is %s, expected %s: %s", c->path, name,
                     told ? "true" : "false", wanted ? "true" : "false", why);
}

/* A text that must be one of these (NULL-terminated), if it is there. */
static inline int check_text(const Config *c, const char *name, const char *const *wanted,
                             const char *why) {
    const char *told;
    TRY(config_text(c->json, name, c->path, NULL, &told, c->err));
    if (!told) return 0;
    for (int i = 0; wanted[i]; i++)
        if (!strcmp(told, wanted[i])) return 0;
    return error_set(c->err, "%s: \"%s\" is \"%s\", expected %s%s%s: %s", c->path, name, told,
                     wanted[0], wanted[1] ? " or " : "", wanted[1] ? wanted[1] : "", why);
}
#define TEXTS(...)          \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }

/* What must not be there, whatever it holds; null, {} and [] are nothing. */
static inline int check_absent(const Config *c, const json_t *json, const char *name,
                               const char *why) {
    const json_t *value = json_object_get(json, name);
    if (!value || json_is_null(value) || (json_is_object(value) && !json_object_size(value)) ||
        (json_is_array(value) && !json_array_size(value)))
        return 0;
    return error_set(c->err, "%s: has a \"%s\": %s", c->path, name, why);
}

static inline int read_activation(const Config *c, Activation fallback, Activation *activation) {
    static const struct {
        const char *name;
        Activation activation;
    } known[] = {{"gelu", ACTIVATION_GELU},
                 {"quick_gelu", ACTIVATION_QUICK_GELU},
                 {"relu", ACTIVATION_RELU}};
    const char *name;
    TRY(config_text(c->json, "hidden_act", c->path, NULL, &name, c->err));
    *activation = fallback;
    if (!name) return 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(name, known[i].name)) {
            *activation = known[i].activation;
            return 0;
        }
    return error_set(c->err, "%s: \"hidden_act\" is \"%s\", expected gelu, quick_gelu or relu",
                     c->path, name);
}

/* What all blocks have; eps, of the given name, and heads as transformers assumes where they are
 * missing. */
static inline int read_block(const Config *c, BlockConfig *block, int layers, int heads,
                             const char *eps_name, double eps) {
    double value;
    TRY(config_integer(c->json, "num_attention_heads", c->path, 1, 4096, heads, &block->heads,
                       c->err));
    TRY(config_real(c->json, eps_name, c->path, eps, &value, c->err));
    if (!(value >= 0 && value < 1))
        return error_set(c->err, "%s: \"%s\" is %g, expected a small number", c->path, eps_name,
                         value);
    block->eps = (float)value;
    TRY(check_size(c, "hidden_size", block->width));
    TRY(check_size(c, "intermediate_size", block->ffn));
    TRY(check_size(c, "num_hidden_layers", layers));
    static const char packed[] = "quantized weights are not read; take the model's full weights";
    TRY(check_absent(c, c->whole, "quantization_config", packed));
    TRY(check_absent(c, c->json, "quantization_config", packed));
    return check_absent(c, c->json, "pruned_heads",
                        "attention heads that were pruned are not supported");
}

#endif
