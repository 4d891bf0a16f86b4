/* signals.h - what signals do to a command, in one place.
 *
 *   SIGXFSZ             ignored by every command: a file that may not grow is a failed write
 * (EFBIG), with a message and clean-up, like a full disk SIGPIPE             ends a command whose
 * product is standard output (ask, text, score, ...), as it ends any filter; ignored by those whose
 * product is files: losing their progress output is no failure SIGHUP, SIGINT,     with
 * signals_catch_stop (train) ask for the end: what was done is saved. Any SIGTERM, SIGUSR1 second
 * one ends the process at once. One that was ignored when the program started (nohup, a background
 * job's SIGINT) stays ignored.
 */
#ifndef EASYFIRST_APPS_CLI_SIGNALS_H
#define EASYFIRST_APPS_CLI_SIGNALS_H

#include <stdbool.h>

/* First in main: SIGXFSZ; and standard input, output and error that were closed are opened, so that
 * no file of ours takes their numbers: reading or writing them fails. `keeps_files`: the command's
 * product is files. */
void signals_start(bool keeps_files);

/* From here on a signal asks to stop. */
void signals_catch_stop(void);

/* The signal that asked; 0: none yet. */
int signals_stop_asked(void);

/* "SIGTERM" */
const char *signals_name(int number);

#endif
