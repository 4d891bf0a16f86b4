/* options.h - reads command lines and settings files by a command's tables (option_table.h).
 *
 * Numbers are read whole ("12abc" is refused) and must lie in the range of their row.
 */
#ifndef EASYFIRST_APPS_CLI_OPTIONS_H
#define EASYFIRST_APPS_CLI_OPTIONS_H

#include <jansson.h>

#include "apps/cli/option_table.h"
#include "data/files/text_list.h"
#include "kernels/error.h"

/* Reads the options; afterwards the other words are argv[*first..argc). Returns -1 to go on, or the
 * exit status: 0 when help was asked for and printed, 2 when the usage was wrong and that was said.
 * --help is understood without being in a group. */
int options_read(const CommandHelp *help, const OptionGroup *groups, int group_count, int argc,
                 char **argv, int *first);

/* How many words follow a `--`: they are what they are, whatever they look like. 0 without one. To
 * be called before options_read, which reorders argv. */
int words_after_dashes(int argc, char **argv);

/* Sets options from a JSON object whose keys are their long names, as the command line would with
 * the same ranges: true or false for flags and switches, numbers, texts, lists as arrays of texts,
 * which replace what was in the list. Keys in `except` (NULL-terminated) are left to the caller.
 * Texts stay the object's. Errors name the key (the nearest known one for an unknown key), and
 * `file`. */
int options_from_json(const OptionGroup *groups, int group_count, const json_t *object,
                      const char *const *except, const char *file, Error *err);

/* The other way: a member for every option that has a value. Texts that are NULL, empty lists, and
 * numbers outside their row's range, which mean "not set", are left out. NULL without memory, or if
 * a text is not valid UTF-8. */
json_t *options_to_json(const OptionGroup *groups, int group_count);

/* The double nearest to the shortest decimal number that reads back as this float: printed, it is
 * what a person wrote. */
double real_shortest(float value);

/* Says what is wrong with the command line, in one line on standard error, and returns 2. */
int options_wrong(const CommandHelp *help, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
