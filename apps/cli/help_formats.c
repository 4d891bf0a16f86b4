#include "apps/cli/help_formats.h"

#include <stdio.h>
#include <string.h>

#include "apps/cli/help_man.h"

HelpFormat help_format_find(const char *name) {
    static const char *const names[HELP_FORMATS] = {"man", "bash", "zsh", "fish"};
    int format = 0;
    while (format < HELP_FORMATS && strcmp(names[format], name)) format++;
    return (HelpFormat)format;
}

/* What can be completed after an option. */
typedef enum Value { VALUE_NONE, VALUE_WORDS, VALUE_FOLDER, VALUE_FILE, VALUE_OTHER } Value;

/* *words are separated by '|'; those of a choice are put into `out`. */
static Value option_value(const Option *o, const char **words, char out[OPTION_ARGUMENT_SIZE]) {
    switch (o->kind) {
    case OPTION_FLAG:
        return VALUE_NONE;
    case OPTION_SWITCH:
        *words = "on|off";
        return VALUE_WORDS;
    case OPTION_CHOICE:
        *words = option_argument(o, out);
        return VALUE_WORDS;
    case OPTION_DEVICE:
        *words = "cpu|cuda|auto";
        return VALUE_WORDS;
    case OPTION_TEXT:
    case OPTION_LIST:
        if (!strcmp(o->argument, "FOLDER") || !strcmp(o->argument, "RUN")) return VALUE_FOLDER;
        if (!strcmp(o->argument, "FILE") || !strcmp(o->argument, "PATH") ||
            !strcmp(o->argument, "IMAGE"))
            return VALUE_FILE;
        return VALUE_OTHER;
    default:
        return VALUE_OTHER;
    }
}

/* Words with spaces instead of '|'. */
static void put_words(const char *words) {
    for (; *words; words++) putchar(*words == '|' ? ' ' : *words);
}

/* Text inside of single quotes, in one line; the characters in `special` get a backslash. */
static void put_quoted(const char *text, const char *special, const char *quote) {
    for (; *text; text++) {
        if (*text == '\'') {
            fputs(quote, stdout);
            continue;
        }
        if (strchr(special, *text)) putchar('\\');
        putchar(*text == '\n' ? ' ' : *text);
    }
}

static const char shell_quote[] = "'\\''", fish_quote[] = "\\'";

/* ---- bash ---- */

static void bash_value(const Option *o) {
    char choice[OPTION_ARGUMENT_SIZE];
    const char *words = NULL;
    Value value = option_value(o, &words, choice);
    if (value == VALUE_NONE) return;
    printf("        --%s", o->name);
    if (o->letter) printf(" | -%c", o->letter);
    fputs(") kind=", stdout);
    switch (value) {
    case VALUE_WORDS:
        fputs("words words='", stdout);
        put_words(words);
        puts("' ;;");
        break;
    case VALUE_FOLDER:
        puts("folder ;;");
        break;
    case VALUE_FILE:
        puts("file ;;");
        break;
    default:
        puts("other ;;");
    }
}

static void bash_command(const CommandHelp *help, const OptionGroup *groups, int group_count) {
    printf("    '%s')\n        options='", help->name);
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++)
            printf("--%s ", groups[g].options[i].name);
    puts("--help --version'\n        case $3 in");
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++) bash_value(&groups[g].options[i]);
    puts("        esac\n        ;;");
}

/* 'score text' | 'score gqa'; returns how many. */
static int put_pairs(const CommandSummary *commands, int count, const char *between) {
    int n = 0;
    for (int i = 0; i < count; i++)
        for (const char *kind = commands[i].kinds; kind && *kind;) {
            int size = (int)strcspn(kind, "|");
            printf("%s'%s %.*s'", n++ ? between : "", commands[i].name, size, kind);
            kind += size + (kind[size] != 0);
        }
    return n;
}

static void bash_start(const CommandSummary *commands, int count) {
    puts("# bash completion for easyfirst; made by `easyfirst --help=bash`\n"
         "_easyfirst() {\n"
         "    local command=${COMP_WORDS[1]} kind='' words='' options='' second=''");
    fputs("    if [ \"$COMP_CWORD\" = 1 ]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W '",
          stdout);
    for (int i = 0; i < count; i++) printf("%s ", commands[i].name);
    puts("help --help --version' -- \"$2\")\n"
         "        return\n"
         "    fi\n"
         "    case $command in");
    for (int i = 0; i < count; i++) {
        if (!commands[i].kinds) continue;
        printf("    %s) second='", commands[i].name);
        put_words(commands[i].kinds);
        puts("' ;;");
    }
    puts("    esac\n"
         "    if [ \"$COMP_CWORD\" -gt 2 ]; then\n"
         "        second=''\n"
         "        case \"$command ${COMP_WORDS[2]}\" in");
    fputs("        ", stdout);
    put_pairs(commands, count, " | ");
    puts(") command=\"$command ${COMP_WORDS[2]}\" ;;\n"
         "        esac\n"
         "    fi\n"
         "    case $command in");
}

static const char bash_end[] =
    "    esac\n"
    "    case $kind in\n"
    "    words) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$2\") ;;\n"
    "    folder) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- \"$2\") ;;\n"
    "    file) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- \"$2\") ;;\n"
    "    other) COMPREPLY=() ;;\n"
    "    *)\n"
    "        case $2 in\n"
    "        -*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$2\") ;;\n"
    "        *)\n"
    "            compopt -o filenames\n"
    "            mapfile -t COMPREPLY < <(compgen -W \"$second\" -- \"$2\"; compgen -f -- \"$2\")\n"
    "            ;;\n"
    "        esac\n"
    "        ;;\n"
    "    esac\n"
    "}\n"
    "complete -F _easyfirst easyfirst\n";

/* ---- zsh ---- */

static void zsh_option(const Option *o) {
    char choice[OPTION_ARGUMENT_SIZE];
    const char *words = NULL, *equals = o->kind == OPTION_FLAG ? "" : "=";
    Value value = option_value(o, &words, choice);
    const char *argument = option_argument(o, choice);
    fputs("            '", stdout);
    if (o->kind == OPTION_LIST) putchar('*');
    if (o->letter && o->kind != OPTION_LIST) printf("(-%c --%s)", o->letter, o->name);
    if (o->letter)
        printf("'{-%c,--%s%s}'[", o->letter, o->name, equals);
    else
        printf("--%s%s[", o->name, equals);
    put_quoted(o->help, "[]:\\", shell_quote);
    putchar(']');
    if (value != VALUE_NONE) {
        putchar(':');
        put_quoted(argument ? argument : "value", "[]:\\", shell_quote);
        putchar(':');
    }
    if (value == VALUE_FOLDER) fputs("_files -/", stdout);
    if (value == VALUE_FILE) fputs("_files", stdout);
    if (value == VALUE_WORDS) {
        putchar('(');
        put_words(words);
        putchar(')');
    }
    puts("' \\");
}

static void zsh_command(const CommandHelp *help, const OptionGroup *groups, int group_count) {
    printf("    '%s')\n        _arguments -S \\\n", help->name);
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++) zsh_option(&groups[g].options[i]);
    puts("            '(-h --help)'{-h,--help}'[print the options and stop]' \\\n"
         "            '--version[print the version of the program and stop]' \\\n"
         "            '*:argument:_files'\n"
         "        ;;");
}

static void zsh_start(const CommandSummary *commands, int count) {
    puts("#compdef easyfirst\n"
         "# made by `easyfirst --help=zsh`\n"
         "_easyfirst() {\n"
         "    local command=$words[2]\n"
         "    local -a commands\n"
         "    commands=(");
    for (int i = 0; i < count; i++) {
        printf("        '%s:", commands[i].name);
        put_quoted(commands[i].about, ":\\", shell_quote);
        puts("'");
    }
    puts("    )\n"
         "    if (( CURRENT == 2 )); then\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    if (( CURRENT == 3 )); then\n"
         "        case $command in");
    for (int i = 0; i < count; i++) {
        if (!commands[i].kinds) continue;
        printf("        %s) compadd ", commands[i].name);
        put_words(commands[i].kinds);
        puts(" ;;");
    }
    puts("        esac\n"
         "    else\n"
         "        case \"$words[2] $words[3]\" in");
    fputs("        ", stdout);
    put_pairs(commands, count, " | ");
    puts(")\n"
         "            command=\"$words[2] $words[3]\"\n"
         "            shift words\n"
         "            (( CURRENT-- ))\n"
         "            ;;\n"
         "        esac\n"
         "    fi\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $command in");
}

static const char zsh_end[] = "    esac\n"
                              "}\n"
                              "_easyfirst \"$@\"\n";

/* ---- fish ---- */

static void fish_command(const CommandHelp *help, const OptionGroup *groups, int group_count) {
    for (int g = 0; g < group_count; g++)
        for (int i = 0; i < option_count(&groups[g]); i++) {
            const Option *o = &groups[g].options[i];
            char choice[OPTION_ARGUMENT_SIZE];
            const char *words = NULL;
            Value value = option_value(o, &words, choice);
            printf("complete -c easyfirst -n '__easyfirst_command %s' -l %s", help->name, o->name);
            if (o->letter) printf(" -s %c", o->letter);
            if (value == VALUE_FILE) fputs(" -r -F", stdout);
            if (value == VALUE_FOLDER) fputs(" -x -a '(__fish_complete_directories)'", stdout);
            if (value == VALUE_OTHER) fputs(" -x", stdout);
            if (value == VALUE_WORDS) {
                fputs(" -x -a '", stdout);
                put_words(words);
                putchar('\'');
            }
            fputs(" -d '", stdout);
            put_quoted(o->help, "\\", fish_quote);
            puts("'");
        }
}

static void fish_start(const CommandSummary *commands, int count) {
    puts("# fish completion for easyfirst; made by `easyfirst --help=fish`\n"
         "function __easyfirst_command\n"
         "    set -l words (commandline -opc)\n"
         "    set -l command $words[2]");
    fputs("    if contains -- \"$words[2] $words[3]\" ", stdout);
    put_pairs(commands, count, " ");
    puts("\n        set command \"$words[2] $words[3]\"\n"
         "    end\n"
         "    test \"$command\" = \"$argv\"\n"
         "end");
    for (int i = 0; i < count; i++) {
        printf("complete -c easyfirst -n __fish_use_subcommand -f -a %s -d '", commands[i].name);
        put_quoted(commands[i].about, "\\", fish_quote);
        puts("'");
        if (!commands[i].kinds) continue;
        printf("complete -c easyfirst -n '__easyfirst_command %s' -a '", commands[i].name);
        put_words(commands[i].kinds);
        puts("'");
    }
    puts("complete -c easyfirst -l help -s h -d 'print the options and stop'\n"
         "complete -c easyfirst -l version -d 'print the version of the program and stop'");
}

/* ---- All of them. ---- */

void help_print_as(HelpFormat format, const CommandHelp *help, const OptionGroup *groups,
                   int group_count) {
    if (format == HELP_MAN) help_man_command(help, groups, group_count);
    if (format == HELP_BASH) bash_command(help, groups, group_count);
    if (format == HELP_ZSH) zsh_command(help, groups, group_count);
    if (format == HELP_FISH) fish_command(help, groups, group_count);
}

void help_print_program(const CommandSummary *commands, int count) {
    help_man_program(commands, count);
}

void help_script_start(HelpFormat format, const CommandSummary *commands, int count) {
    if (format == HELP_BASH) bash_start(commands, count);
    if (format == HELP_ZSH) zsh_start(commands, count);
    if (format == HELP_FISH) fish_start(commands, count);
}

void help_script_end(HelpFormat format) {
    if (format == HELP_BASH) fputs(bash_end, stdout);
    if (format == HELP_ZSH) fputs(zsh_end, stdout);
}
