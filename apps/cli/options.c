#include "apps/cli/options.h"

#include "apps/cli/loading.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/cli/help_formats.h"
#include "apps/cli/report.h"
#include "kernels/nearest_word.h"

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

static bool is_choice(const char *word, const char *choices) {
    size_t size = strlen(word);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strcspn(c, "|") == size && !strncmp(c, word, size)) return size > 0;
    return false;
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
        if (!is_choice(value, "on|off"))
            return error_set(err, "%s takes on or off, not \"%s\"", label, value);
        *(bool *)o->target = !strcmp(value, "on");
        return 0;
    case OPTION_TEXT:
        if (!value[0]) return error_set(err, "%s needs a %s, not \"\"", label, o->argument);
        *(const char **)o->target = value;
        return 0;
    case OPTION_CHOICE:
        if (!is_choice(value, o->argument))
            return error_set(err, "%s takes %s, not \"%s\"", label, o->argument, value);
        *(const char **)o->target = value;
        return 0;
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
        for (int i = 0; i < groups[g].count; i++) names[n++] = groups[g].options[i].name;
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
            for (int i = 0; i < groups[g].count && !known; i++) {
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
    case OPTION_TEXT:
    case OPTION_CHOICE:
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
        for (int i = 0; i < groups[g].count && !failed; i++) {
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
    char left[64], letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, o->name, o->argument ? " " : "",
             o->argument ? o->argument : "");
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
        for (int i = 0; i < groups[g].count; i++) print_option(&groups[g].options[i]);
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
        for (int i = 0; i < groups[g].count; i++) {
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
    table_make(&t, groups, group_count);
    opterr = 0; /* messages are ours */
    optind = 0; /* from the beginning, whatever was read before */
    for (;;) {
        int at = optind > 0 ? optind : 1;
        int value = getopt_long(argc, argv, t.letters, t.longs, NULL);
        if (value == -1) break;
        if (value == VERSION_VALUE) {
            puts("easyfirst " EASYFIRST_VERSION);
            return fflush(stdout) ? 1 : 0;
        }
        if (value == HELP_VALUE && optarg) return print_as(optarg, help, groups, group_count);
        if (value == HELP_VALUE || value == 'h') return print_help(help, groups, group_count);
        if (value == ':') {
            /* optopt is the letter, or the long option's value. */
            for (int i = 0; i < t.count; i++)
                if (optopt == t.options[i]->letter || optopt == FIRST_VALUE + i)
                    return options_wrong(help, "--%s needs a %s", t.options[i]->name,
                                         t.options[i]->argument);
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

/* ---- What several commands share. ---- */

void common_init(CommonOptions *o) {
    *o = (CommonOptions){.model = {.feature_layer = FEATURE_LAYER_UNSET},
                         .answer = answer_options_default(),
                         .long_prompts = long_prompts_name(LONG_PROMPTS_REFUSE)};
}

static void group_add(OptionGroup *group, Option option) {
    group->options[group->count++] = option;
}

Option device_option(const char **device) {
    return (Option){"device",
                    0,
                    OPTION_DEVICE,
                    "NAME",
                    device,
                    "where to compute: cpu, cuda, cuda:N for one of several GPUs, or\n"
                    "auto (default: a GPU if there is one)"};
}

Option threads_option(int *threads) {
    return (Option){
        "threads", 't', OPTION_INTEGER, "N", threads, "processor threads (default: all)", 1, 1024};
}

void model_group(ModelOptions *m, const char **device, int *threads, OptionGroup *group) {
    *group = (OptionGroup){.title = "model options"};
    group_add(group, (Option){"model", 'm', OPTION_TEXT, "FOLDER", &m->folder,
                              "the model's folder; else $EASYFIRST_MODEL, else the bundled one"});
    group_add(group, (Option){"vision", 0, OPTION_TEXT, "PATH", &m->vision,
                              "a CLIP vision tower, folder or file, instead of the folder's"});
    group_add(group, (Option){"language", 0, OPTION_TEXT, "PATH", &m->language,
                              "an XLM-R or XLM-R-XL, folder or file, instead"});
    group_add(group, (Option){"projector", 0, OPTION_TEXT, "PATH", &m->projector,
                              "a projector, file or folder, instead"});
    group_add(group, (Option){"length-predictor", 0, OPTION_TEXT, "PATH", &m->length,
                              "a length predictor, file or folder, instead"});
    group_add(group, (Option){"dtype", 0, OPTION_CHOICE, "auto|f32|bf16", &m->dtype,
                              "arithmetic; auto: bf16 for bf16 weights where the processor\n"
                              "has it, else f32"});
    group_add(group, (Option){"feature-layer", 0, OPTION_INTEGER, "N", &m->feature_layer,
                              "the vision tower's layer to take features from; -1 is the last\n"
                              "(default: as the model's folder says, else -2)",
                              -999, 999});
    group_add(group, (Option){"pad", 0, OPTION_CHOICE, "on|off", &m->pad,
                              "put images into a square instead of cropping them to one\n"
                              "(default: as the model's folder says, else on)"});
    group_add(group, device_option(device));
    group_add(group, threads_option(threads));
}

void common_answer_group(CommonOptions *o, OptionGroup *group) {
    AnswerOptions *a = &o->answer;
    *group = (OptionGroup){.title = "answer options"};
    group_add(group,
              (Option){"steps", 0, OPTION_INTEGER, "T", &a->decode.iterations,
                       a->decode.iterations
                           ? "denoising steps (default 50)"
                           : "denoising steps (default: as many as the answer has tokens, 10 to\n"
                             "50; the paper's evaluations take 50)",
                       1, 1000000});
    group_add(group, (Option){"strategy", 0, OPTION_TEXT, "NAME", &o->strategy,
                              "reparam-uncond-deterministic-cosine (the default) with cond,\n"
                              "stochasticTAU, linear; cmlm; ar"});
    group_add(group, (Option){"length", 'n', OPTION_INTEGER, "N", &o->length,
                              "the answer's length in tokens (default: predicted)", 1, 1000000});
    group_add(group,
              (Option){"beam", 'b', OPTION_INTEGER, "B", &a->length_beam,
                       "try the B likeliest lengths, keep the best answer (default 1)", 1, 512});
    group_add(group, (Option){"length-weight", 0, OPTION_REAL, "X", &a->length_weight,
                              "with --beam: the answers' scores count, and X times the\n"
                              "lengths' log-probabilities (default 0: scores alone)",
                              0, 100});
    group_add(group, (Option){"samples", 0, OPTION_INTEGER, "M", &a->samples,
                              "fill each length M times, keep the best (default 1)", 1, 1024});
    group_add(group,
              (Option){"temperature", 0, OPTION_REAL, "X", &a->decode.temperature,
                       "sample tokens at this temperature (default 0: the likeliest)", 0, 100});
    group_add(group, (Option){"seed", 's', OPTION_SEED, "N", &a->decode.seed,
                              "seed of everything random (default 0)"});
    group_add(group, (Option){"no-canvas-cache", 0, OPTION_FLAG, NULL, &a->decode.no_canvas_cache,
                              "evaluate every step, known or not: the same answer, slower"});
    group_add(group, (Option){"no-kv-cache", 0, OPTION_FLAG, NULL, &a->no_kv_cache,
                              "block-causal models: keep no keys and values; same answer, slower"});
    group_add(group,
              (Option){"long-prompts", 0, OPTION_CHOICE, LONG_PROMPTS_CHOICES, &o->long_prompts,
                       o->long_prompts && !strcmp(o->long_prompts, "skip")
                           ? "a prompt that leaves no room for its answer is an error, is\n"
                             "left out, or loses its first tokens (default skip)"
                           : "a prompt that leaves no room for its answer is an error, is\n"
                             "left out, or loses its first tokens (default refuse)"});
    group_add(group, (Option){"json", 0, OPTION_FLAG, NULL, &o->json,
                              "JSON, one object a line, instead of plain text"});
    group_add(group,
              (Option){"quiet", 'q', OPTION_FLAG, NULL, &o->quiet, "no timings on standard error"});
}

/* The model that comes with the program: in the source tree beside the folder of the build, or
 * where `make install` puts it. NULL if there is none. */
static const char *bundled_model(char *path, size_t size) {
    static const char *const places[] = {"../data/bundled/model", "../share/easyfirst/model"};
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return NULL;
    program[length] = 0;
    char *name = strrchr(program, '/');
    if (!name) return NULL;
    *name = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int n = snprintf(path, size, "%s/%s/easyfirst.json", program, places[i]);
        if (n < 0 || (size_t)n >= size || access(path, R_OK) != 0) continue;
        *strrchr(path, '/') = 0;
        return path;
    }
    return NULL;
}

int common_check(const CommandHelp *help, CommonOptions *o) {
    ModelOptions *m = &o->model;
    Error err;
    if (o->strategy && decode_strategy_parse(&o->answer.decode, o->strategy, &err))
        return options_wrong(help, "--strategy: %s", err.text);
    o->answer.long_prompts = (LongPrompts)long_prompts_find(o->long_prompts);
    const char *folder = getenv("EASYFIRST_MODEL");
    if (!m->folder && folder && folder[0]) m->folder = folder;
    if (!m->folder && !m->vision && !m->language && !m->projector && !m->length)
        m->folder = bundled_model(o->bundled, sizeof o->bundled);
    if (!m->folder && !m->vision && !m->language && !m->projector && !m->length)
        return options_wrong(help,
                             "no model is named: give its folder with -m FOLDER or in the "
                             "environment as EASYFIRST_MODEL, or its parts with --language and "
                             "so on");
    return -1;
}

int common_at_once(const CommonOptions *o, int most) {
    return answer_at_once(&o->answer, most);
}

int session_open(Session *session, const CommonOptions *o, Error *err) {
    *session = (Session){0};
    double start = clock_seconds();
    TRY(device_choose(&session->device, o->device, o->threads, err));
    ModelOptions model = o->model;
    model.answers = !model.describe_only;
    model.answer_length = o->length;
    if (!o->quiet) model.loading = loading_print;
    TRY(model_open(&session->model, &model, session->device, err));
    session->open = true;
    TRY(device_wait(session->device, err));
    session->load_s = clock_seconds() - start;
    return 0;
}

void session_close(Session *session) {
    if (session->open) model_close(&session->model);
    device_close(session->device);
    *session = (Session){0};
}
