/* nccl.h - NCCL between the GPUs of several ranks: the backend's part of kernels/comm/. Its library
 * is opened when ranks train together; a machine without it exchanges through the host's memory. */
#ifndef EASYFIRST_KERNELS_CUDA_NCCL_H
#define EASYFIRST_KERNELS_CUDA_NCCL_H

#include "kernels/cuda/cuda.h"

/* See Backend. */
int nccl_name(Device *device, void *name, Error *err);
int nccl_join(Device *device, const void *name, int rank, int ranks, Error *err);
int nccl_group(Device *device, bool begin, Error *err);
int nccl_reduce(Device *device, float *values, int64_t count, int root, Error *err);
int nccl_broadcast(Device *device, void *data, size_t bytes, int root, Error *err);
int nccl_wait(Device *device, Error *err);
int nccl_send(Device *device, const void *data, size_t bytes, int to, Error *err);
int nccl_receive(Device *device, void *data, size_t bytes, int from, Error *err);

void nccl_close(struct Nccl *nccl); /* NULL is allowed */

#endif
