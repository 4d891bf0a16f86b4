#include "data/checkpoints/config.h"

#include "data/files/json_read.h"

enum { LARGEST = 16 << 20 };

int config_read(json_t **json, const char *path, Error *err) {
    TRY(json_read_file(json, path, LARGEST, JSON_REJECT_DUPLICATES, 0, err));
    if (json_is_object(*json)) return 0;
    json_decref(*json);
    *json = NULL;
    return error_set(err, "%s: not a JSON object {...}", path);
}

static const json_t *member(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

int config_integer(const json_t *object, const char *name, const char *path, int least, int most,
                   int fallback, int *value, Error *err) {
    const json_t *v = member(object, name);
    *value = fallback;
    if (!v) return 0;
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return error_set(err, "%s: \"%s\" must be a whole number from %d to %d", path, name, least,
                         most);
    *value = (int)json_integer_value(v);
    return 0;
}

int config_real(const json_t *object, const char *name, const char *path, double fallback,
                double *value, Error *err) {
    const json_t *v = member(object, name);
    *value = fallback;
    if (!v) return 0;
    if (!json_is_number(v)) return error_set(err, "%s: \"%s\" must be a number", path, name);
    *value = json_number_value(v);
    return 0;
}

int config_text(const json_t *object, const char *name, const char *path, const char *fallback,
                const char **value, Error *err) {
    const json_t *v = member(object, name);
    *value = fallback;
    if (!v) return 0;
    if (!json_is_string(v)) return error_set(err, "%s: \"%s\" must be a text", path, name);
    *value = json_string_value(v);
    return 0;
}

int config_flag(const json_t *object, const char *name, const char *path, bool fallback,
                bool *value, Error *err) {
    const json_t *v = member(object, name);
    *value = fallback;
    if (!v) return 0;
    if (!json_is_boolean(v)) return error_set(err, "%s: \"%s\" must be true or false", path, name);
    *value = json_is_true(v);
    return 0;
}
