/* eval.h - what `easyfirst eval` measures, a file each. As commands.h: argv[0] is "gqa", say. */
#ifndef EASYFIRST_APPS_EVAL_EVAL_H
#define EASYFIRST_APPS_EVAL_EVAL_H

int eval_gqa(int argc, char **argv);
int eval_text(int argc, char **argv);
int eval_order(int argc, char **argv);

#endif
