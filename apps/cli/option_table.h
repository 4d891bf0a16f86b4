/* option_table.h - what a command says of itself: its help and the tables of its options.
 *
 * A command lists its options as rows that point to the variables they set. The command line and
 * settings files are read by these rows (options.h), and --help, man pages and completions
 * (help_formats.h) are printed from them, so none can differ from the others.
 */
#ifndef EASYFIRST_APPS_CLI_OPTION_TABLE_H
#define EASYFIRST_APPS_CLI_OPTION_TABLE_H

#include <stdbool.h>

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
    bool *given;              /* set to true when the option is set; or NULL */
    const char *const *names; /* of a choice: the words of its enum, NULL-terminated */
} Option;

enum { OPTIONS_IN_GROUP = 24, OPTION_GROUPS = 9 };

typedef struct OptionGroup {
    const char *title;                /* "model options" */
    Option options[OPTIONS_IN_GROUP]; /* up to the first without a name */
} OptionGroup;

int option_count(const OptionGroup *group);
void option_add(OptionGroup *group, Option option);

/* What a command says of itself. */
typedef struct CommandHelp {
    const char *name;
    const char *usage; /* what follows the name; several forms are separated by '\n' */
    const char *about; /* what it does and prints, in lines */
    const char *examples;
} CommandHelp;

/* One command in the program's own man page and completion scripts. */
typedef struct CommandSummary {
    const char *name;
    const char *about;
    const char *kinds; /* words that may follow it with options of their own: "text|gqa"; or NULL */
} CommandSummary;

enum { OPTION_ARGUMENT_SIZE = 256 };

/* What the help calls an option's argument: a choice's words with '|' between, else `argument`,
 * NULL for a flag. */
const char *option_argument(const Option *option, char out[OPTION_ARGUMENT_SIZE]);

#endif
