/* replay.h - repeated work recorded as CUDA graphs. Private to kernels/cuda/.
 *
 * For what a key means, and when a recording is made, see device_replay (kernels/device.h). A
 * recording holds addresses: those of the caller's tensors, which its key covers, and those of the
 * backend's own memory, which are this file's responsibility. The workspace may move when it grows:
 * then all recordings are discarded. Copies of host values (cuda_host_copy) change from batch to
 * batch: a recording has its own copies, which do not change.
 */
#ifndef EASYFIRST_KERNELS_CUDA_REPLAY_H
#define EASYFIRST_KERNELS_CUDA_REPLAY_H

#include "kernels/cuda/cuda.h"

int replays_open(struct Replays **replays, Error *err);
void replays_close(struct Replays *replays); /* NULL is allowed */

int cuda_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err);

/* Whether launches are currently being recorded, not run. */
bool replay_recording(const Device *device);

/* The recording's own copy of host values, on the device; filled before the graph is first
 * launched. */
int replay_host_copy(Device *device, const void **memory, const void *host, size_t bytes,
                     Error *err);

/* Discards all recordings, because memory of the backend has moved. With `seen`, also forgets which
 * keys have come once, so that work runs again before it is recorded. */
void replays_forget(Device *device, bool seen);

#endif
