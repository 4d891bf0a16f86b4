/* run_child.h - this program, or another one, as a child process. */
#ifndef EASYFIRST_APPS_REPRODUCE_RUN_CHILD_H
#define EASYFIRST_APPS_REPRODUCE_RUN_CHILD_H

#include "kernels/error.h"

/* Runs `words` (NULL-terminated; of easyfirst itself if `program` is NULL) with standard input from
 * /dev/null and standard output in the file `output`; standard error in `errors` (NULL: it
 * stays). A signal
 * that asks to stop (signals.h) is passed on. *status is the exit status, or 128 + the signal. */
int run_child(const char *program, char *const *words, const char *output, const char *errors,
              int *status, Error *err);

/* A command as one can type it, the words quoted where the shell wants it; the caller's to free. */
char *command_line_text(const char *program, char *const *words, Error *err);

#endif
