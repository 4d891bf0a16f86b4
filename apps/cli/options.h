/* options.h - command lines: tables of options, from which both the reading and the help come.
 *
 * A command lists its options as rows that point to the variables they set; what --help prints,
 * what is accepted, and what is read from and written to JSON, can then never differ. Numbers are
 * read whole ("12abc" is refused) and must lie in the range of their row.
 */
#ifndef EASYFIRST_APPS_CLI_OPTIONS_H
#define EASYFIRST_APPS_CLI_OPTIONS_H

#include <stdbool.h>

#include <jansson.h>

#include "data/files/text_list.h"
#include "kernels/error.h"

typedef enum OptionKind {
    OPTION_FLAG,    /* bool: set to true */
    OPTION_SWITCH,  /* bool: "on" or "off"; for what is on unless it is turned off */
    OPTION_TEXT,    /* const char * */
    OPTION_CHOICE,  /* an enum (or int): one of `names` from number `least` on; below it: not set */
    OPTION_CHOICES, /* unsigned: bits 1 << number of `names`, with commas between, or "all" */
    OPTION_DEVICE,  /* const char *: a device's name, as device_choose takes it */
    OPTION_LIST,    /* TextList: may be given several times */
    OPTION_INTEGER, /* int, in [least, most] */
    OPTION_SEED,    /* uint64_t, from 0 to 2^63 - 1, which JSON readers take whole */
    OPTION_REAL,    /* float, in [least, most] */
} OptionKind;

typedef struct Option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    OptionKind kind;
    const char *argument; /* what the help calls it; NULL for a flag and a choice */
    void *target;
    const char *help; /* lines are separated by '\n' */
    double least, most;
    bool *given;              /* set to true when the option is set; NULL: nobody asks */
    const char *const *names; /* of a choice: the words of its enum, NULL-terminated */
} Option;

enum { OPTIONS_IN_GROUP = 16, OPTION_GROUPS = 8 };

typedef struct OptionGroup {
    const char *title; /* "model options" */
    Option options[OPTIONS_IN_GROUP];
    int count;
} OptionGroup;

/* What a command says of itself. */
typedef struct CommandHelp {
    const char *name;
    const char *usage; /* what follows the name; several forms are separated by '\n' */
    const char *about; /* what it does and prints, in lines */
    const char *examples;
} CommandHelp;

/* Reads the options; afterwards the other words are argv[*first..argc). Returns -1 to go on, or the
 * exit status: 0 when help was asked for and printed, 2 when the usage was wrong and that was said.
 * --help is understood without being in a group. */
int options_read(const CommandHelp *help, const OptionGroup *groups, int group_count, int argc,
                 char **argv, int *first);

enum { OPTION_ARGUMENT_SIZE = 256 };

/* What the help calls an option's argument: a choice's words with '|' between, else `argument`,
 * NULL for a flag. */
const char *option_argument(const Option *option, char out[OPTION_ARGUMENT_SIZE]);

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
 * a text is no UTF-8. */
json_t *options_to_json(const OptionGroup *groups, int group_count);

/* The double nearest to the shortest decimal number that reads back as this float: printed, it is
 * what a person wrote. */
double real_shortest(float value);

/* Says what is wrong with the command line, in one line on standard error, and returns 2. */
int options_wrong(const CommandHelp *help, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
