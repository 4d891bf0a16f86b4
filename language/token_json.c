/* token_json.c - see token_json.h. */
#include "language/token_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/names.h"

static const long long LARGEST_FILE = 512LL << 20;

int token_json_read(json_t **object, const char *path, Error *err) {
    json_error_t why;
    struct stat info;
    *object = NULL;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0) {
        int reason = errno;
        if (file) fclose(file);
        return error_set(err, "%s: cannot open it (%s)", path, strerror(reason));
    }
    int status = 0;
    if (!S_ISREG(info.st_mode))
        status = error_set(err, "%s: not a regular file", path);
    else if (info.st_size > LARGEST_FILE)
        status = error_set(err, "%s: %lld bytes, expected at most %lld", path,
                           (long long)info.st_size, LARGEST_FILE);
    if (status == 0 && !(*object = json_loadf(file, JSON_REJECT_DUPLICATES, &why)))
        status = error_set(err, "%s: line %d: not JSON: %s", path, why.line, why.text);
    fclose(file);
    if (status == 0 && !json_is_object(*object)) {
        json_decref(*object);
        *object = NULL;
        status = error_set(err, "%s: expected a JSON object", path);
    }
    return status;
}

int token_json_keys(const json_t *object, const char *what, const char *const *known, Error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(object)) return error_set(err, "%s: expected an object", what);
    json_object_foreach((json_t *)object, key,
                        value) if (names_find(known, key) <
                                   0) return error_set(err, "%s: \"%.60s\" is not supported", what,
                                                       key);
    return 0;
}

static json_t *present(const json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

int token_json_flag(const json_t *object, const char *key, bool *value, Error *err) {
    const json_t *found = present(object, key);
    if (!found) return 0;
    if (!json_is_boolean(found)) return error_set(err, "\"%s\": expected true or false", key);
    *value = json_is_true(found);
    return 0;
}

int token_json_text(const json_t *object, const char *key, const char **value, Error *err) {
    const json_t *found = present(object, key);
    if (!found) return 0;
    if (!json_is_string(found)) return error_set(err, "\"%s\": expected a string", key);
    *value = json_string_value(found);
    return 0;
}

int token_json_count(const json_t *object, const char *key, int64_t *value, Error *err) {
    const json_t *found = present(object, key);
    if (!found) return 0;
    if (!json_is_integer(found) || json_integer_value(found) < 0)
        return error_set(err, "\"%s\": expected a number from 0", key);
    *value = json_integer_value(found);
    return 0;
}

int token_json_type(const json_t *part, const char *what, const char *const *words, Error *err) {
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type) return error_set(err, "%s: expected an object with a \"type\"", what);
    int found = names_find(words, type);
    return found >= 0 ? found : error_set(err, "%s: \"%.60s\" is not supported", what, type);
}

int token_json_pattern(const json_t *part, const char **text, bool *regex, Error *err) {
    const json_t *pattern = json_object_get(part, "pattern");
    *regex = json_object_get(pattern, "Regex") != NULL;
    *text = json_string_value(json_object_get(pattern, *regex ? "Regex" : "String"));
    if (!*text || json_object_size(pattern) != 1)
        return error_set(err, "\"pattern\": expected {\"String\": ...} or {\"Regex\": ...}");
    return 0;
}
