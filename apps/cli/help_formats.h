/* help_formats.h - what --help says, for other readers: man pages and shells' completions.
 *
 * `easyfirst COMMAND --help=man` prints the command's man page; --help=bash, zsh and fish print its
 * part of a completion script. `easyfirst --help=FORMAT` prints the page of the program or the
 * whole script. Both come from the tables that the options are read with, so neither can be out of
 * date.
 */
#ifndef EASYFIRST_APPS_CLI_HELP_FORMATS_H
#define EASYFIRST_APPS_CLI_HELP_FORMATS_H

#include "apps/cli/option_table.h"

typedef enum HelpFormat { HELP_MAN, HELP_BASH, HELP_ZSH, HELP_FISH, HELP_FORMATS } HelpFormat;

/* HELP_FORMATS when there is none of that name. */
HelpFormat help_format_find(const char *name);

/* A command's page, or its part of a script, on standard output. */
void help_print_as(HelpFormat format, const CommandHelp *help, const OptionGroup *groups,
                   int group_count);

/* The program's man page. */
void help_print_program(const CommandSummary *commands, int count);

/* What comes before and after the commands' parts of a script. */
void help_script_start(HelpFormat format, const CommandSummary *commands, int count);
void help_script_end(HelpFormat format);

#endif
