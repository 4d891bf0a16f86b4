/* bus_error.h - what happens when a file is cut while the program reads it in place. */
#ifndef EASYFIRST_APPS_CLI_BUS_ERROR_H
#define EASYFIRST_APPS_CLI_BUS_ERROR_H

/* From now on a SIGBUS in a mapped file (data/files/mapped_file.h) ends the program with status 1
 * and a line that names the file. Any other SIGBUS ends it as before. */
void bus_error_catch(void);

#endif
