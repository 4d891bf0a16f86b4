/* help_man.c - man pages. */
#include "apps/cli/help_man.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "projector/easyfirst.h"

/* One character of text, so that groff prints it as it is. */
static void put_char(char c) {
    switch (c) {
    case '\\':
        fputs("\\e", stdout);
        break;
    case '-':
        fputs("\\-", stdout);
        break;
    case '\'':
        fputs("\\(aq", stdout);
        break;
    case '`':
        fputs("\\(ga", stdout);
        break;
    case '^':
        fputs("\\(ha", stdout);
        break;
    case '~':
        fputs("\\(ti", stdout);
        break;
    default:
        putchar(c);
    }
}

static void put_text(const char *text, size_t size) {
    if (size && text[0] == '.') fputs("\\&", stdout);
    for (size_t i = 0; i < size; i++) put_char(text[i]);
}

static void put_upper(const char *text) {
    for (; *text; text++) putchar(*text == ' ' ? '-' : toupper((unsigned char)*text));
}

/* Lines of text: those that begin with a space are a table and stay as they are, an empty one ends
 * a paragraph, the others are filled. `apart` is the macro for the end of a paragraph. */
static void put_lines(const char *text, const char *apart) {
    bool table = false, gap = false;
    while (*text) {
        size_t size = strcspn(text, "\n");
        bool wanted = text[0] == ' ';
        if (size && table && !wanted) puts(".fi");
        if (size && gap) puts(apart);
        if (size && !table && wanted) puts(".nf");
        if (size) {
            table = wanted;
            put_text(text, size);
            putchar('\n');
        }
        gap = !size;
        text += size + (text[size] != 0);
    }
    if (table) puts(".fi");
}

static void put_heading(const char *name) {
    fputs(".TH EASYFIRST", stdout);
    if (name) putchar('-');
    put_upper(name ? name : "");
    puts(" 1 \"\" \"easyfirst " EF_VERSION "\" \"User Commands\"\n.SH NAME");
}

/* "easyfirst\-score\-text" */
static void put_page_name(const char *name) {
    fputs("easyfirst\\-", stdout);
    for (; *name; name++) put_char(*name == ' ' ? '-' : *name);
}

/* The first sentence, with its lines joined, without its end. */
static void put_sentence(const char *text) {
    for (const char *c = text; *c && *c != ';' && *c != ':'; c++) {
        if (*c == '.' && (!c[1] || isspace((unsigned char)c[1]))) break;
        if (*c == '\n')
            putchar(' ');
        else
            put_char(c == text ? (char)tolower((unsigned char)*c) : *c);
    }
    putchar('\n');
}

static void put_usage(const CommandHelp *help) {
    puts(".SH SYNOPSIS");
    for (const char *form = help->usage; *form;) {
        size_t size = strcspn(form, "\n");
        printf(".B easyfirst %s\n", help->name);
        put_text(form, size);
        form += size;
        if (*form) puts("\n.br");
        if (*form) form++;
    }
    putchar('\n');
}

static void put_option(const Option *o) {
    puts(".TP");
    if (o->letter) printf("\\fB\\-%c\\fR, ", o->letter);
    fputs("\\fB\\-\\-", stdout);
    put_text(o->name, strlen(o->name));
    fputs("\\fR", stdout);
    char words[OPTION_ARGUMENT_SIZE];
    const char *argument = option_argument(o, words);
    if (argument) {
        fputs(" \\fI", stdout);
        put_text(argument, strlen(argument));
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put_lines(o->help, ".IP");
}

static const char general[] = ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\n"
                              "print the options and stop\n"
                              ".TP\n\\fB\\-\\-version\\fR\n"
                              "print the version of the program and stop\n";

void help_man_command(const CommandHelp *help, const OptionGroup *groups, int group_count) {
    put_heading(help->name);
    put_page_name(help->name);
    fputs(" \\- ", stdout);
    put_sentence(help->about);
    put_usage(help);
    puts(".SH DESCRIPTION");
    put_lines(help->about, ".PP");
    puts(".SH OPTIONS");
    for (int g = 0; g < group_count; g++) {
        fputs(".SS ", stdout);
        put_text(groups[g].title, strlen(groups[g].title));
        putchar('\n');
        for (int i = 0; i < option_count(&groups[g]); i++) put_option(&groups[g].options[i]);
    }
    puts(".SS general options");
    fputs(general, stdout);
    puts(".SH EXAMPLES\n.nf");
    put_lines(help->examples, ".PP");
    puts(".fi\n.SH SEE ALSO\n.BR easyfirst (1)");
}

void help_man_program(const CommandSummary *commands, int count) {
    put_heading(NULL);
    puts("easyfirst \\- a masked\\-diffusion language model with vision\n"
         ".SH SYNOPSIS\n"
         ".B easyfirst\n"
         "COMMAND [options] ...\n"
         ".SH DESCRIPTION\n"
         "Answers questions about images, translates and summarizes with a language model that\n"
         "fills masked tokens in, the easy ones first; trains and evaluates such models.\n"
         "A model is a folder: name it with\n"
         ".B \\-m\n"
         "FOLDER or in the environment.\n"
         ".SH COMMANDS");
    for (int i = 0; i < count; i++) {
        printf(".TP\n\\fBeasyfirst\\-%s\\fR(1)\n", commands[i].name);
        put_lines(commands[i].about, ".IP");
        for (const char *kind = commands[i].kinds; kind && *kind;) {
            int size = (int)strcspn(kind, "|");
            printf(".br\nSee also \\fBeasyfirst\\-%s\\-%.*s\\fR(1).\n", commands[i].name, size,
                   kind);
            kind += size + (kind[size] != 0);
        }
    }
    puts(".SH OPTIONS");
    fputs(general, stdout);
    puts(".SH ENVIRONMENT\n"
         ".TP\n"
         ".B EASYFIRST_MODEL\n"
         "the model's folder when no option names one; without either it is the bundled model\n"
         ".SH EXIT STATUS\n"
         "0 on success, 1 when something failed, 2 for wrong usage.");
}
