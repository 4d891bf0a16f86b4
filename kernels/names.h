/* names.h - the words of an enum: one table, NULL-terminated and in the enum's order, in the module
 * that owns the enum. Its name function, messages, files and the program's options all read it.
 */
#ifndef EASYFIRST_KERNELS_NAMES_H
#define EASYFIRST_KERNELS_NAMES_H

/* The value of a word; -1 if it is none of them (or NULL). */
int names_find(const char *const *names, const char *word);

/* The word of a value; "unknown" if there is none. */
const char *names_get(const char *const *names, int value);

#endif
