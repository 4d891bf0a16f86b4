/* Values of JSON objects in tests; what is not there fails the test. */
#ifndef EASYFIRST_TESTS_JSON_VALUES_H
#define EASYFIRST_TESTS_JSON_VALUES_H

#include <math.h>

#include <jansson.h>

#include "tests/test.h"

static inline double number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number \"%s\"", name);
    return json_number_value(value);
}

static inline int whole(const json_t *object, const char *name) {
    return (int)json_integer_value(json_object_get(object, name));
}

/* NaN never is. */
static inline void assert_near(double a, double b, double limit, const char *what) {
    if (!(fabs(a - b) <= limit)) fail_msg("%s: %.17g, expected %.17g", what, a, b);
}

#endif
