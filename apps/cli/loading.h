/* loading.h - a sign of life while a model's weights are loaded. */
#ifndef EASYFIRST_APPS_CLI_LOADING_H
#define EASYFIRST_APPS_CLI_LOADING_H

#include <stddef.h>

/* ModelOptions.loading: a line on standard error that a terminal shows again and again until it is
 * wiped at the end; where standard error is no terminal, a line every ten seconds. */
void loading_print(void *user, const char *path, size_t done, size_t all);

#endif
