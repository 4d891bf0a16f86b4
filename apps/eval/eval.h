/* eval.h - the subcommands of `easyfirst eval`, a file each. As in commands.h, argv[0] is the name
 * ("gqa"). */
#ifndef EASYFIRST_APPS_EVAL_EVAL_H
#define EASYFIRST_APPS_EVAL_EVAL_H

int eval_gqa(int argc, char **argv);
int eval_text(int argc, char **argv);
int eval_order(int argc, char **argv);
int eval_likelihood(int argc, char **argv);
int eval_compare(int argc, char **argv);
int eval_report(int argc, char **argv);

#endif
