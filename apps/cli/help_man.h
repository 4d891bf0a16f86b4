/* help_man.h - man pages (help_formats.h). */
#ifndef EASYFIRST_APPS_CLI_HELP_MAN_H
#define EASYFIRST_APPS_CLI_HELP_MAN_H

#include "apps/cli/option_table.h"

void help_man_command(const CommandHelp *help, const OptionGroup *groups, int group_count);
void help_man_program(const CommandSummary *commands, int count);

#endif
