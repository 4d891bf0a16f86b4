/* options.h - command lines: tables of options, from which both the reading and the help come, and
 * the options that several commands share.
 *
 * A command lists its options as rows that point to the variables they set; what --help prints,
 * what is accepted, and what is read from and written to JSON, can then never differ. Numbers are
 * read whole ("12abc" is refused) and must lie in the range of their row.
 */
#ifndef EASYFIRST_APPS_CLI_OPTIONS_H
#define EASYFIRST_APPS_CLI_OPTIONS_H

#include <jansson.h>
#include <limits.h>

#include "projector/model.h"

typedef enum OptionKind {
    OPTION_FLAG,    /* bool: set to true */
    OPTION_SWITCH,  /* bool: "on" or "off"; for what is on unless it is turned off */
    OPTION_TEXT,    /* const char * */
    OPTION_CHOICE,  /* const char *: one of the words in `argument`, which '|' separates */
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
    const char *argument; /* what the help calls it; NULL for a flag */
    void *target;
    const char *help; /* lines are separated by '\n' */
    double least, most;
    bool *given; /* set to true when the option is set; NULL: nobody asks */
} Option;

enum { OPTIONS_IN_GROUP = 16, OPTION_GROUPS = 8 };

typedef struct OptionGroup {
    const char *title; /* "model options" */
    Option options[OPTIONS_IN_GROUP];
    int count;
} OptionGroup;

/* The words of an OPTION_LIST, in their order; the texts are argv's or a JSON object's. Free
 * `items`. */
typedef struct TextList {
    const char **items;
    int count;
} TextList;

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

/* ---- What several commands share. ---- */

typedef struct CommonOptions {
    ModelOptions model;
    AnswerOptions answer;
    const char *strategy;
    const char *long_prompts; /* a LongPrompts by its name; common_check puts it into `answer` */
    int length;               /* tokens of the answer; 0: predicted */
    const char *device;
    int threads;
    bool json, quiet;
    char bundled[PATH_MAX]; /* the bundled model's folder, where it is used */
} CommonOptions;

/* The rows of --device and --threads, for every command that computes. */
Option device_option(const char **device);
Option threads_option(int *threads);

/* The rows that name a model and its parts, and those two. */
void model_group(ModelOptions *model, const char **device, int *threads, OptionGroup *group);

/* Defaults; then a group of what is said of answers. It points into `o`, which must stay. A command
 * that wants another default sets it in between; decode.iterations 0 lets the steps follow the
 * answer's length. */
void common_init(CommonOptions *o);
void common_answer_group(CommonOptions *o, OptionGroup *group);

/* Checks what the rows cannot: the name of the strategy, and that a model is named, by
 * $EASYFIRST_MODEL if nowhere else; without that it is the bundled one. Returns -1 to go on, or the
 * exit status. */
int common_check(const CommandHelp *help, CommonOptions *o);

/* How many requests go into one call: `most`, fewer where each has many hypotheses or steps, so
 * that one that fits by itself does not fail for memory because of those beside it. */
int common_at_once(const CommonOptions *o, int most);

/* A device and an open model. Exactly one close for every open, failed or not. A model that is to
 * answer, but neither knows lengths nor was given one, is refused here, not line by line. */
typedef struct Session {
    Device *device;
    Model model;
    bool open; /* the model is */
    double load_s;
} Session;

int session_open(Session *session, const CommonOptions *o, Error *err);
void session_close(Session *session);

#endif
