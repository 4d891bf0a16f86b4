/* mpi.h - the functions of Open MPI that are used, found in its library when a program needs them.
 * Private to kernels/comm/.
 *
 * Nothing is linked and no header is needed: a program that mpirun did not start never opens the
 * library. Handles are pointers, as in every version of libmpi.so.40 (Open MPI 3 to 5); the library
 * of another MPI is refused.
 */
#ifndef EASYFIRST_KERNELS_COMM_MPI_H
#define EASYFIRST_KERNELS_COMM_MPI_H

#include "kernels/error.h"

typedef void *MpiHandle; /* a communicator, type, operation, request, error handler */

enum { MPI_OK = 0, MPI_FUNNELED = 1, MPI_TEXT = 256 };

typedef struct Mpi {
    int (*Init_thread)(int *argc, char ***argv, int wanted, int *given);
    int (*Finalize)(void);
    int (*Abort)(MpiHandle comm, int status);
    int (*Comm_rank)(MpiHandle comm, int *rank);
    int (*Comm_size)(MpiHandle comm, int *size);
    int (*Comm_set_errhandler)(MpiHandle comm, MpiHandle handler);
    int (*Error_string)(int code, char *text, int *length);
    int (*Test)(MpiHandle *request, int *done, void *status);
    int (*Ibarrier)(MpiHandle comm, MpiHandle *request);
    int (*Ibcast)(void *data, int count, MpiHandle type, int root, MpiHandle comm,
                  MpiHandle *request);
    int (*Ireduce)(const void *from, void *to, int count, MpiHandle type, MpiHandle sum, int root,
                   MpiHandle comm, MpiHandle *request);
    int (*Iallgather)(const void *from, int count, MpiHandle type, void *to, int each,
                      MpiHandle type_to, MpiHandle comm, MpiHandle *request);
    int (*Isend)(const void *data, int count, MpiHandle type, int to, int tag, MpiHandle comm,
                 MpiHandle *request);
    int (*Irecv)(void *data, int count, MpiHandle type, int from, int tag, MpiHandle comm,
                 MpiHandle *request);
    MpiHandle world, byte, real, wide, sum, errors_return; /* predefined: real is a float, wide a
                                                              double */
} Mpi;

/* The two arguments that are constants: where data are already, and no status. */
#define MPI_PLACE     ((void *)1)
#define MPI_NO_STATUS ((void *)0)

/* Opens the library and finds all of it. It stays open. */
int mpi_find(Mpi *mpi, Error *err);

#endif
