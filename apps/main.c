/* main.c - picks the command. */
#include <stdio.h>
#include <string.h>

#include "apps/cli/bus_error.h"
#include "apps/commands.h"
#include "apps/cli/help_formats.h"
#include "apps/cli/json.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/cli/signals.h"
#include "apps/cli/terminate.h"
#include "projector/easyfirst.h"
#include "data/files/json_memory.h"
#include "kernels/nearest_word.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
    bool keeps_files;  /* its product is files: standard output may close */
    const char *kinds; /* words that may follow it, with options of their own */
} commands[] = {
    {"ask", command_ask, "answer questions about images", false, NULL},
    {"chat", command_chat, "talk about an image, turn by turn", false, NULL},
    {"text", command_text, "answer text prompts; translate and summarize, line by line", false,
     NULL},
    {"fill", command_fill, "fill in the gaps of a document", false, NULL},
    {"show", command_show, "show how an answer is denoised, step by step", false, NULL},
    {"serve", command_serve, "serve answers over HTTP: a page, and OpenAI's API", true, NULL},
    {"info", command_info, "describe a model: parts, tensors, parameters, memory", false, NULL},
    {"train", command_train, "train a model: text, images, lengths", true, NULL},
    {"new", command_new, "make a model folder with fresh weights", true, NULL},
    {"prune", command_prune, "keep only the vocabulary that some data use", true, NULL},
    {"quantize", command_quantize, "store weights as 8-bit integers, and back", true, NULL},
    {"eval", command_eval, "measure a model: GQA, translation, summaries, choices", true,
     "gqa|text|order|likelihood|compare|report"},
    {"score", command_score, "score files of answers: texts, GQA", false, "text|gqa"},
    {"calibrate", command_calibrate, "fit how sure a model may be of its answers", true, NULL},
    {"reproduce", command_reproduce, "the tables of the papers, each by one command", true, NULL},
    {"bench", command_bench, "measure the speed of this machine", false, "train|ops|images"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out) {
    fputs("easyfirst: a masked-diffusion language model that sees, and fills in the easy words "
          "first\n"
          "\n"
          "usage: easyfirst COMMAND [options] ...\n"
          "\n"
          "commands:\n",
          out);
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-11s%s\n", commands[i].name, commands[i].about);
    fputs("\n"
          "`easyfirst COMMAND --help` lists the options of a command, with examples.\n"
          "\n"
          "  --help     this text\n"
          "  --version  the version of the program, also after a command\n"
          "\n"
          "A model is a folder: name it with -m FOLDER, or once for all in the environment as\n"
          "EASYFIRST_MODEL. Without either it is the small bundled model. Answers go to\n"
          "standard output, everything else to standard error. The exit status is 0, 1 when\n"
          "something failed, 2 for wrong usage, 3 when training was interrupted by a signal.\n",
          out);
}

/* Runs "NAME KIND --help=FORMAT", which prints and computes nothing. */
static int command_help_as(int at, const char *kind, int kind_size, const char *format) {
    char option[32], word[32];
    snprintf(option, sizeof option, "--help=%s", format);
    snprintf(word, sizeof word, "%.*s", kind_size, kind ? kind : "");
    char *argv[] = {(char *)commands[at].name, kind ? word : option, kind ? option : NULL, NULL};
    return commands[at].run(kind ? 3 : 2, argv);
}

/* For a program that reads the list: every command that has a page, "score text", too. */
static void print_commands(void) {
    for (int i = 0; i < COMMAND_COUNT; i++) {
        puts(commands[i].name);
        for (const char *kind = commands[i].kinds; kind && *kind;) {
            int size = (int)strcspn(kind, "|");
            printf("%s %.*s\n", commands[i].name, size, kind);
            kind += size + (kind[size] != 0);
        }
    }
}

/* easyfirst --help=FORMAT */
static int print_help_as(const char *name) {
    CommandSummary all[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++)
        all[i] = (CommandSummary){commands[i].name, commands[i].about, commands[i].kinds};
    HelpFormat format = help_format_find(name);
    int status = 0;
    if (!strcmp(name, "commands")) {
        print_commands();
    } else if (format == HELP_MAN) {
        help_print_program(all, COMMAND_COUNT);
    } else if (format == HELP_FORMATS) {
        report_error("--help takes man, bash, zsh, fish or commands, not \"%s\"", name);
        return 2;
    } else {
        help_script_start(format, all, COMMAND_COUNT);
        for (int i = 0; i < COMMAND_COUNT && !status; i++) {
            status = command_help_as(i, NULL, 0, name);
            for (const char *kind = commands[i].kinds; kind && *kind && !status;) {
                int size = (int)strcspn(kind, "|");
                status = command_help_as(i, kind, size, name);
                kind += size + (kind[size] != 0);
            }
        }
        help_script_end(format);
    }
    return fflush(stdout) ? 1 : status;
}

static int unknown_command(const char *name) {
    const char *names[COMMAND_COUNT + 1] = {NULL};
    for (int i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i].name;
    const char *near = nearest_word(name, names);
    report_error("there is no %s \"%s\"%s%s%s; see easyfirst --help",
                 name[0] == '-' ? "option" : "command", name, near ? ": did you mean " : "",
                 near ? near : "", near ? "?" : "");
    return 2;
}

int main(int argc, char **argv) {
    bus_error_catch();
    terminate_with_message();
    json_memory_watch();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || (!strcmp(name, "help") && argc < 3)) {
        print_help(stdout);
        return fflush(stdout) ? 1 : 0;
    }
    if (!strncmp(name, "--help=", 7)) return print_help_as(name + 7);
    if (!strcmp(name, "--version")) {
        puts("easyfirst " EF_VERSION);
        return fflush(stdout) ? 1 : 0;
    }
    bool help = !strcmp(name, "help"); /* `easyfirst help ask` */
    if (help) name = argv[2];
    char *help_argv[] = {name, "--help", NULL};
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(name, commands[i].name)) {
            signals_start(commands[i].keeps_files && !help);
            return help ? commands[i].run(2, help_argv) : commands[i].run(argc - 1, argv + 1);
        }
    return unknown_command(name);
}
