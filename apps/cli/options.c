#include "apps/cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/help_formats.h"
#include "apps/cli/report.h"
#include "kernels/device.h"
#include "kernels/names.h"
#include "kernels/nearest_word.h"
#include "projector/easyfirst.h"

enum {
    OPTIONS_MOST = OPTIONS_IN_GROUP * OPTION_GROUPS,
    FIRST_VALUE = 1000,
    HELP_VALUE = 999,
    VERSION_VALUE = 998
};

/* ---- Wrong usage. ---- */

int options_wrong(const CommandHelp *help, const char *format, ...) {
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args); /* of any length: report_error keeps both ends */
    va_end(args);
    report_error("%s: %s; see easyfirst %s --help", help->name, length < 0 ? format : text,
                 help->name);
    if (length >= 0) free(text);
    return 2;
}

/* ---- Values. ---- */

static bool read_whole(const char *text, int64_t least, int64_t most, int64_t *value) {
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (!digits[0] || digits[strspn(digits, "0123456789")]) return false;
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno || v < least || v > most) return false;
    *value = v;
    return true;
}

static bool read_real(const char *text, double least, double most, double *value) {
    char *end;
    if (!text[0] || text[strspn(text, "0123456789.eE+-")]) return false; /* no hex, inf, nan */
    double v = strtod(text, &end);
    if (*end || !isfinite(v) || !(v >= least && v <= most)) return false;
    *value = v;
    return true;
}

static int choice_set(const Option *o, const char *label, const char *word, Error *err) {
    char words[OPTION_ARGUMENT_SIZE];
    int value = names_find(o->names, word);
    if (value < (int)o->least)
        return error_set(err, "%s takes %s, not \"%s\"", label, option_argument(o, words), word);
    *(int *)o->target = value;
    return 0;
}

/* No word of a list of choices: the nearest one, or all of them. */
static int no_choice(const Option *o, const char *label, const char *word, Error *err) {
    char words[OPTION_ARGUMENT_SIZE];
    const char *near = nearest_word(word, o->names);
    if (near) return error_set(err, "%s: there is no \"%s\": did you mean %s?", label, word, near);
    Option one = *o;
    one.kind = OPTION_CHOICE;
    return error_set(err, "%s: there is no \"%s\": it takes %s, with commas between, or all", label,
                     word, option_argument(&one, words));
}

/* "query,value" to bits. */
static int choices_set(const Option *o, const char *label, const char *text, Error *err) {
    unsigned bits = 0;
    bool all = !strcmp(text, "all");
    for (int i = 0; all && o->names[i]; i++) bits |= 1u << i;
    for (const char *at = text; !all; at++) {
        size_t size = strcspn(at, ",");
        char *word = strndup(at, size);
        if (!word) return error_set(err, "out of memory for %s", label);
        int value = names_find(o->names, word);
        int status = value < 0 ? no_choice(o, label, word, err) : 0;
        free(word);
        if (status) return -1;
        bits |= 1u << value;
        at += size;
        if (!*at) break;
    }
    *(unsigned *)o->target = bits;
    return 0;
}

/* NULL without memory. */
static json_t *choices_json(const Option *o) {
    unsigned bits = *(const unsigned *)o->target, all = 0;
    char text[OPTION_ARGUMENT_SIZE] = "";
    size_t used = 0;
    for (int i = 0; o->names[i]; i++) all |= 1u << i;
    for (int i = 0; o->names[i] && used < sizeof text; i++)
        if (bits >> i & 1)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? "," : "",
                                     o->names[i]);
    return json_string(bits == all ? "all" : text);
}

static bool is_device(const char *name) {
    DeviceOptions options;
    bool automatic;
    return device_name_read(name, &options, &automatic);
}

static int list_add(TextList *list, const char *text) {
    const char **items = realloc(list->items, ((size_t)list->count + 1) * sizeof *items);
    if (!items) return -1;
    list->items = items;
    list->items[list->count++] = text;
    return 0;
}

/* Sets an option's variable. `label` is what messages call the option. */
static int option_set(const Option *o, const char *label, const char *value, Error *err) {
    int64_t whole;
    double real;
    if (o->given) *o->given = true;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->target = true;
        return 0;
    case OPTION_SWITCH:
        if (strcmp(value, "on") && strcmp(value, "off"))
            return error_set(err, "%s takes on or off, not \"%s\"", label, value);
        *(bool *)o->target = !strcmp(value, "on");
        return 0;
    case OPTION_TEXT:
        if (!value[0]) return error_set(err, "%s needs a %s, not \"\"", label, o->argument);
        *(const char **)o->target = value;
        return 0;
    case OPTION_CHOICE:
        return choice_set(o, label, value, err);
    case OPTION_CHOICES:
        return choices_set(o, label, value, err);
    case OPTION_DEVICE:
        if (!is_device(value))
            return error_set(err, "%s takes cpu, cuda, cuda:N or auto, not \"%s\"", label, value);
        *(const char **)o->target = value;
        return 0;
    case OPTION_LIST:
        return list_add(o->target, value) ? error_set(err, "out of memory for %s", label) : 0;
    case OPTION_INTEGER:
        if (!read_whole(value, (int64_t)o->least, (int64_t)o->most, &whole))
            return error_set(err, "%s takes a whole number from %.0f to %.0f, not \"%s\"", label,
                             o->least, o->most, value);
        *(int *)o->target = (int)whole;
        return 0;
    case OPTION_SEED:
        if (!read_whole(value, 0, INT64_MAX, &whole))
            return error_set(err, "%s takes a whole number from 0 to %lld, not \"%s\"", label,
                             (long long)INT64_MAX, value);
        *(uint64_t *)o->target = (uint64_t)whole;
        return 0;
    case OPTION_REAL:
        if (!read_real(value, o->least, o->most, &real))
            return error_set(err, "%s takes a number from %g to %g, not \"%s\"", label, o->least,
                             o->most, value);
        *(float *)o->target = (float)real;
        return 0;
    }
    return 0;
}

/* ---- JSON. ---- */

/* Settings files have texts and lists; everything else goes through option_set as a text. */
static int option_from_json(const Option *o, const char *label, const json_t *value, Error *err) {
    char number[64];
    bool numeric = false, right = false;
    const char *wanted = "a text";
    switch (o->kind) {
    case OPTION_FLAG:
    case OPTION_SWITCH:
        wanted = "true or false";
        if (!json_is_boolean(value)) break;
        if (o->given) *o->given = true;
        *(bool *)o->target = json_is_true(value);
        return 0;
    case OPTION_TEXT:
    case OPTION_CHOICE:
    case OPTION_CHOICES:
    case OPTION_DEVICE:
        right = json_is_string(value);
        break;
    case OPTION_LIST:
        wanted = "an array of texts";
        if (!json_is_array(value)) break;
        right = true;
        for (size_t i = 0; i < json_array_size(value); i++)
            right = right && json_is_string(json_array_get(value, i));
        break;
    case OPTION_INTEGER:
    case OPTION_SEED:
        wanted = "a whole number";
        right = numeric = json_is_integer(value);
        break;
    case OPTION_REAL:
        wanted = "a number";
        right = numeric = json_is_number(value);
        break;
    }
    if (!right) return error_set(err, "%s must be %s", label, wanted);
    if (o->kind == OPTION_LIST) {
        ((TextList *)o->target)->count = 0;
        for (size_t i = 0; i < json_array_size(value); i++)
            TRY(option_set(o, label, json_string_value(json_array_get(value, i)), err));
        return 0;
    }
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (numeric)
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    return option_set(o, label, numeric ? number : json_string_value(value), err);
}

static int unknown_key(const OptionGroup *groups, int group_count, const char *const *except,
                       const char *key, const char *file, Error *err) {
    const char *names[OPTIONS_MOST + 9] = {NULL};
    int n = 0;
    for (int i = 0; except && except[i] && n < 8; i++) names[n++] = except[i];
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++) names[n++] = groups[g].options[i].name;
    const char *near = nearest_word(key, names);
    if (near)
        return error_set(err, "%s: there is no setting \"%s\": did you mean \"%s\"?", file, key,
                         near);
    return error_set(err, "%s: there is no setting \"%s\"", file, key);
}

int options_from_json(const OptionGroup *groups, int group_count, const json_t *object,
                      const char *const *except, const char *file, Error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool known = false;
        for (int i = 0; except && except[i] && !known; i++) known = !strcmp(except[i], key);
        for (int g = 0; g < group_count && !known; g++)
            for (int i = 0; i < option_count(&groups[g]) && !known; i++) {
                const Option *o = &groups[g].options[i];
                if (strcmp(o->name, key)) continue;
                char label[80];
                snprintf(label, sizeof label, "\"%s\"", key);
                if (option_from_json(o, label, value, err)) return error_context(err, "%s", file);
                known = true;
            }
        if (!known) return unknown_key(groups, group_count, except, key, file, err);
    }
    return 0;
}

double real_shortest(float value) {
    char text[64];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) return strtod(text, NULL);
    }
    return (double)value;
}

/* NULL: not set (*failed stays), or a failure (*failed is set). */
static json_t *option_to_json(const Option *o, bool *failed) {
    json_t *json = NULL;
    switch (o->kind) {
    case OPTION_FLAG:
    case OPTION_SWITCH:
        json = json_boolean(*(const bool *)o->target);
        break;
    case OPTION_CHOICE: {
        int value = *(const int *)o->target;
        if (value < (int)o->least) return NULL;
        json = json_string(names_get(o->names, value));
        break;
    }
    case OPTION_CHOICES:
        if (!*(const unsigned *)o->target) return NULL;
        json = choices_json(o);
        break;
    case OPTION_TEXT:
    case OPTION_DEVICE:
        if (!*(const char **)o->target) return NULL;
        json = json_string(*(const char **)o->target);
        break;
    case OPTION_LIST: {
        const TextList *list = o->target;
        if (!list->count) return NULL;
        json = json_array();
        for (int i = 0; i < list->count; i++)
            if (json_array_append_new(json, json_string(list->items[i]))) *failed = true;
        break;
    }
    case OPTION_INTEGER: {
        int value = *(const int *)o->target;
        if (!(value >= o->least && value <= o->most)) return NULL;
        json = json_integer(value);
        break;
    }
    case OPTION_SEED: {
        const uint64_t *seed = o->target;
        json = json_integer((json_int_t)*seed);
        break;
    }
    case OPTION_REAL: {
        double value = real_shortest(*(const float *)o->target);
        if (!(value >= o->least && value <= o->most)) return NULL;
        json = json_real(value);
        break;
    }
    }
    if (!json) *failed = true;
    return json;
}

json_t *options_to_json(const OptionGroup *groups, int group_count) {
    json_t *object = json_object();
    bool failed = !object;
    for (int g = 0; g < group_count && !failed; g++)
        for (int i = 0; i < option_count(&groups[g]) && !failed; i++) {
            json_t *value = option_to_json(&groups[g].options[i], &failed);
            if (failed)
                json_decref(value);
            else if (value && json_object_set_new(object, groups[g].options[i].name, value))
                failed = true;
        }
    if (!failed) return object;
    json_decref(object);
    return NULL;
}

/* ---- Help. ---- */

/* Lines of text, each after `indent` spaces but the first. */
static void print_lines(const char *text, int indent) {
    for (; *text; text++) {
        putchar(*text);
        if (*text == '\n' && text[1]) printf("%*s", indent, "");
    }
    putchar('\n');
}

static void print_option(const Option *o) {
    enum { COLUMN = 28 };
    char left[64 + OPTION_ARGUMENT_SIZE], letter[8] = "    ", words[OPTION_ARGUMENT_SIZE];
    const char *argument = option_argument(o, words);
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, o->name, argument ? " " : "",
             argument ? argument : "");
    if (strlen(left) + 2 > COLUMN)
        printf("%s\n%*s", left, COLUMN, "");
    else
        printf("%-*s", COLUMN, left);
    print_lines(o->help, COLUMN);
}

static int print_help(const CommandHelp *help, const OptionGroup *groups, int group_count) {
    const char *start = "usage: ";
    for (const char *form = help->usage; form; start = "       ") {
        int size = (int)strcspn(form, "\n");
        printf("%seasyfirst %s %.*s\n", start, help->name, size, form);
        form = form[size] ? form + size + 1 : NULL;
    }
    printf("\n%s\n", help->about);
    for (int g = 0; g < group_count; g++) {
        printf("\n%s:\n", groups[g].title);
        for (int i = 0; i < option_count(&groups[g]); i++) print_option(&groups[g].options[i]);
    }
    printf("\nexamples:\n  ");
    print_lines(help->examples, 2);
    return fflush(stdout) ? 1 : 0;
}

/* --help=FORMAT */
static int print_as(const char *name, const CommandHelp *help, const OptionGroup *groups,
                    int group_count) {
    HelpFormat format = help_format_find(name);
    if (format == HELP_FORMATS)
        return options_wrong(help, "--help takes man, bash, zsh or fish, not \"%s\"", name);
    help_print_as(format, help, groups, group_count);
    return fflush(stdout) ? 1 : 0;
}

/* ---- Reading. ---- */

typedef struct Table {
    const Option *options[OPTIONS_MOST];
    struct option longs[OPTIONS_MOST + 3];
    char letters[2 * OPTIONS_MOST + 8];
    int count;
} Table;

static void table_make(Table *t, const OptionGroup *groups, int group_count) {
    *t = (Table){0};
    strcpy(t->letters, ":h"); /* ':' first: a missing argument is told from an unknown option */
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++) {
            const Option *o = &groups[g].options[i];
            int has_argument = o->kind == OPTION_FLAG ? no_argument : required_argument;
            t->options[t->count] = o;
            t->longs[t->count] =
                (struct option){o->name, has_argument, NULL, FIRST_VALUE + t->count};
            t->count++;
            if (!o->letter) continue;
            size_t n = strlen(t->letters);
            t->letters[n] = o->letter;
            if (has_argument) t->letters[n + 1] = ':';
        }
    t->longs[t->count] = (struct option){"help", optional_argument, NULL, HELP_VALUE};
    t->longs[t->count + 1] = (struct option){"version", no_argument, NULL, VERSION_VALUE};
}

static int unknown_option(const CommandHelp *help, const Table *t, const char *word) {
    const char *names[OPTIONS_MOST + 3] = {NULL};
    for (int i = 0; i <= t->count + 1; i++) names[i] = t->longs[i].name;
    if (optopt == VERSION_VALUE) return options_wrong(help, "--version takes no argument");
    if (optopt >= FIRST_VALUE)
        return options_wrong(help, "--%s takes no argument", t->longs[optopt - FIRST_VALUE].name);
    if (optopt) return options_wrong(help, "there is no option -%c", optopt);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    int starts = 0; /* how many options begin so: getopt takes a beginning that only one has */
    for (int i = 0; i <= t->count + 1; i++) starts += !strncmp(names[i], name, strlen(name));
    if (starts > 1) return options_wrong(help, "--%s may mean several options", name);
    const char *near = nearest_word(name, names);
    if (near) return options_wrong(help, "there is no option --%s: did you mean --%s?", name, near);
    return options_wrong(help, "there is no option --%s", name);
}

int words_after_dashes(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--")) return argc - i - 1;
    return 0;
}

int options_read(const CommandHelp *help, const OptionGroup *groups, int group_count, int argc,
                 char **argv, int *first) {
    Table t;
    char words[OPTION_ARGUMENT_SIZE];
    table_make(&t, groups, group_count);
    opterr = 0; /* messages are ours */
    optind = 0; /* from the beginning, whatever was read before */
    for (;;) {
        int at = optind > 0 ? optind : 1;
        int value = getopt_long(argc, argv, t.letters, t.longs, NULL);
        if (value == -1) break;
        if (value == VERSION_VALUE) {
            puts("easyfirst " EF_VERSION);
            return fflush(stdout) ? 1 : 0;
        }
        if (value == HELP_VALUE && optarg) return print_as(optarg, help, groups, group_count);
        if (value == HELP_VALUE || value == 'h') return print_help(help, groups, group_count);
        if (value == ':') {
            /* optopt is the letter, or the long option's value. */
            for (int i = 0; i < t.count; i++)
                if (optopt == t.options[i]->letter || optopt == FIRST_VALUE + i)
                    return options_wrong(help, "--%s needs a %s", t.options[i]->name,
                                         option_argument(t.options[i], words));
        }
        if (value == '?') {
            /* The word is the one before optind, or, inside a cluster of letters, unimportant. */
            const char *word = argv[optind - 1];
            return unknown_option(help, &t, strncmp(word, "--", 2) ? argv[at] : word);
        }
        const Option *o = NULL;
        for (int i = 0; i < t.count; i++)
            if (value == FIRST_VALUE + i || (t.options[i]->letter && value == t.options[i]->letter))
                o = t.options[i];
        if (!o) return options_wrong(help, "there is no option -%c", value);
        char label[80];
        Error err;
        snprintf(label, sizeof label, "--%s", o->name);
        if (option_set(o, label, optarg, &err)) return options_wrong(help, "%s", err.text);
    }
    *first = optind;
    return -1;
}
