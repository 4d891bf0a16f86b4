/* files.h - the files of a person that a table needs. */
#ifndef EASYFIRST_APPS_REPRODUCE_FILES_H
#define EASYFIRST_APPS_REPRODUCE_FILES_H

#include "apps/reproduce/plan.h"

/* Prints a line for each file that the needed steps read: whether it exists, and of a missing one
 * what it is and where it comes from. Models are opened (their headers), and the size of their
 * language model compared, and their `memory` is set. *missing counts those that cannot be used. */
int files_check(Plan *plan, int *missing, Error *err);

#endif
