/* terminate.h - the end of the program where a C++ library gives up. */
#ifndef EASYFIRST_APPS_CLI_TERMINATE_H
#define EASYFIRST_APPS_CLI_TERMINATE_H

#ifdef __cplusplus
extern "C" {
#endif

/* From now on an uncaught exception (oneDNN and protobuf throw them out of their C
 * functions, or end the program themselves, when an allocation fails) ends the program with a
 * message and status 1 instead of an abort. */
void terminate_with_message(void);

#ifdef __cplusplus
}
#endif

#endif
