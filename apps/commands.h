/* commands.h - the commands of the program, one file each.
 *
 * A command gets the command line from its own name on (argv[0] is "ask", say) and returns the exit
 * status: 0, 1 for a failure, 2 for wrong usage. Results go to standard output, everything else to
 * standard error.
 */
#ifndef EASYFIRST_APPS_COMMANDS_H
#define EASYFIRST_APPS_COMMANDS_H

int command_ask(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_text(int argc, char **argv);
int command_fill(int argc, char **argv);
int command_show(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_info(int argc, char **argv);
int command_train(int argc, char **argv);
int command_new(int argc, char **argv);
int command_prune(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_score(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_reproduce(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_bench_train(int argc, char **argv);  /* argv[0] is "train" */
int command_bench_ops(int argc, char **argv);    /* argv[0] is "ops" */
int command_bench_images(int argc, char **argv); /* argv[0] is "images" */

#endif
