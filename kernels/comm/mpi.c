#include "kernels/comm/mpi.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

static const char *const LIBRARY = "libmpi.so.40";

typedef struct Symbol {
    const char *name;
    size_t place; /* in Mpi */
} Symbol;

static const Symbol symbols[] = {
    {"MPI_Init_thread", offsetof(Mpi, Init_thread)},
    {"MPI_Finalize", offsetof(Mpi, Finalize)},
    {"MPI_Abort", offsetof(Mpi, Abort)},
    {"MPI_Comm_rank", offsetof(Mpi, Comm_rank)},
    {"MPI_Comm_size", offsetof(Mpi, Comm_size)},
    {"MPI_Comm_set_errhandler", offsetof(Mpi, Comm_set_errhandler)},
    {"MPI_Error_string", offsetof(Mpi, Error_string)},
    {"MPI_Test", offsetof(Mpi, Test)},
    {"MPI_Ibarrier", offsetof(Mpi, Ibarrier)},
    {"MPI_Ibcast", offsetof(Mpi, Ibcast)},
    {"MPI_Ireduce", offsetof(Mpi, Ireduce)},
    {"MPI_Iallgather", offsetof(Mpi, Iallgather)},
    {"MPI_Isend", offsetof(Mpi, Isend)},
    {"MPI_Irecv", offsetof(Mpi, Irecv)},
    {"ompi_mpi_comm_world", offsetof(Mpi, world)},
    {"ompi_mpi_byte", offsetof(Mpi, byte)},
    {"ompi_mpi_float", offsetof(Mpi, real)},
    {"ompi_mpi_double", offsetof(Mpi, wide)},
    {"ompi_mpi_op_sum", offsetof(Mpi, sum)},
    {"ompi_mpi_errors_return", offsetof(Mpi, errors_return)},
};

int mpi_find(Mpi *mpi, Error *err) {
    /* Global: its plugins look for its symbols. */
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        return error_set(err,
                         "several processes were started together, but Open MPI cannot be opened: "
                         "%s: install it on each machine (Debian: openmpi-bin), or start one "
                         "process, without mpirun",
                         dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *found = dlsym(library, symbols[i].name);
        if (!found)
            return error_set(err,
                             "%s has no %s: it is not the library of Open MPI, which is needed",
                             LIBRARY, symbols[i].name);
        memcpy((char *)mpi + symbols[i].place, &found, sizeof found);
    }
    return 0;
}
