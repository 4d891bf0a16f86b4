/* json.h - the JSON that the program prints. */
#ifndef EASYFIRST_APPS_CLI_JSON_H
#define EASYFIRST_APPS_CLI_JSON_H

#include <jansson.h>

#include "kernels/error.h"

enum { JSON_DIGITS = 9 }; /* give every float back */

/* A string; bytes that are no UTF-8 (in a file's name) become U+FFFD. NULL without memory. */
json_t *json_text(const char *text);

/* A log-probability; JSON has no infinity, and a masked position's is null. */
json_t *json_score(double score);

/* An object, which it takes over, as a line of text, the caller's to free; real numbers with so
 * many digits. What a terminal might obey is escaped: a reader gets the same strings. NULL without
 * memory, or if the object is NULL. */
char *json_line(json_t *object, int digits);

/* The same as a line on standard output. */
int json_print_line(json_t *object, int digits, Error *err);

#endif
