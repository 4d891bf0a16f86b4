/* json_kind.h - the type of a JSON value, for error messages. */
#ifndef EASYFIRST_DATA_FILES_JSON_KIND_H
#define EASYFIRST_DATA_FILES_JSON_KIND_H

#include <jansson.h>

static inline const char *json_kind(const json_t *value) {
    if (!value) return "missing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

#endif
