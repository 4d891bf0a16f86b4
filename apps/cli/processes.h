/* processes.h - commands that mpirun or srun starts as several processes (kernels/comm): what they
 * print, and which device each has. Started alone, every function here does nothing. */
#ifndef EASYFIRST_APPS_CLI_PROCESSES_H
#define EASYFIRST_APPS_CLI_PROCESSES_H

#include "kernels/comm/comm.h"

/* What all processes find wrong is printed by the first alone: what the others print on standard
 * error between these two is dropped. If they then end (`failed`) they wait a moment for the first,
 * as mpirun ends all when one ends. */
int processes_mute(void);
void processes_unmute(int muted, bool failed);

/* The name of the device of this process: of several GPUs, one for each process of a machine. Free
 * it; NULL: `name`. */
char *processes_device(const char *name);

/* Threads of a process that has no cores of its own, if nothing says how many; 0: as if alone. */
int processes_threads(void);

/* Fails for all if one has failed (`status`); the first that failed keeps its message, with its
 * number, and the others' is emptied. *agreed: all know it. */
int processes_agree(Comm *comm, int status, bool *agreed, Error *err);

#endif
