#include "projector/calibration.h"

#include <math.h>

#include "data/checkpoints/config.h"
#include "kernels/names.h"

const char *const calibration_prompts[] = {"ask", "gqa", "translate", "summarize", NULL};
enum { ASK = 1u << 0, GQA = 1u << 1 };

/* A number of the entry, in [least, most]; `fallback` where it is missing, NaN: it must not be. */
static int read_number(const json_t *entry, const char *name, const char *path, double least,
                       double most, double fallback, double *value, Error *err) {
    TRY(config_real(entry, name, path, fallback, value, err));
    if (isnan(*value))
        return error_set(err, "%s: \"calibration\" has no \"%s\"; `easyfirst calibrate` writes it",
                         path, name);
    if (*value >= least && *value <= most) return 0;
    return error_set(err, "%s: \"calibration\": \"%s\" is %g, expected %g to %g", path, name,
                     *value, least, most);
}

static int read_prompts(Calibration *c, const json_t *entry, const char *path, Error *err) {
    const json_t *list = json_object_get(entry, "prompts"), *name;
    size_t i;
    c->prompts = ASK | GQA;
    if (!list || json_is_null(list)) return 0;
    if (!json_is_array(list) || !json_array_size(list))
        return error_set(err,
                         "%s: \"calibration\": \"prompts\" must be a list of ask, gqa, translate "
                         "or summarize",
                         path);
    c->prompts = 0;
    json_array_foreach((json_t *)list, i, name) {
        int number = names_find(calibration_prompts, json_string_value(name));
        if (number < 0)
            return error_set(err,
                             "%s: \"calibration\": \"prompts\" has %s%.100s%s, expected ask, gqa, "
                             "translate or summarize",
                             path, json_is_string(name) ? "\"" : "",
                             json_is_string(name) ? json_string_value(name) : "no text",
                             json_is_string(name) ? "\"" : "");
        c->prompts |= 1u << number;
    }
    return 0;
}

int calibration_read(Calibration *c, const json_t *settings, const char *path, Error *err) {
    static const char *const keys[] = {"slope",   "offset",  "length", "threshold",
                                       "longest", "prompts", NULL};
    const double most = 1e6; /* of a weight: far beyond any that a fit gives */
    const json_t *entry = json_object_get(settings, "calibration");
    const char *key;
    json_t *value;
    *c = (Calibration){0};
    if (!entry || json_is_null(entry)) return 0;
    if (!json_is_object(entry))
        return error_set(err,
                         "%s: \"calibration\" must be an object with \"slope\", \"offset\" "
                         "and \"threshold\"",
                         path);
    json_object_foreach(
        (json_t *)entry, key,
        value) if (names_find(keys, key) <
                   0) return error_set(err, "%s: \"calibration\" has an unknown setting \"%.100s\"",
                                       path, key);
    TRY(read_number(entry, "slope", path, -most, most, NAN, &c->slope, err));
    TRY(read_number(entry, "offset", path, -most, most, NAN, &c->offset, err));
    TRY(read_number(entry, "length", path, -most, most, 0, &c->length, err));
    TRY(read_number(entry, "threshold", path, 0, 1, NAN, &c->threshold, err));
    TRY(config_integer(entry, "longest", path, 1, 1 << 20, 0, &c->longest, err));
    TRY(read_prompts(c, entry, path, err));
    c->present = true;
    return 0;
}

bool calibration_holds(const Calibration *c, const char *prompt) {
    int number = names_find(calibration_prompts, prompt);
    return c->present && number >= 0 && (c->prompts >> number & 1);
}

double calibration_probability(const Calibration *c, const char *prompt, double score, int length) {
    if (!calibration_holds(c, prompt) || !isfinite(score)) return NAN;
    if (c->longest && length > c->longest) return NAN;
    return 1 / (1 + exp(-(c->slope * score + c->offset + c->length * length)));
}
