/* replay.h - work that comes again, recorded as CUDA graphs. Private to kernels/cuda/.
 *
 * What a key means, and when a recording is made, is told at device_replay (kernels/device.h). A
 * recording holds addresses: those that the caller's tensors had, which its key covers, and those
 * of the backend's own memory, for which this file answers. The workspace may move when it grows:
 * then all recordings are forgotten. Copies of host values (cuda_host_copy) change from batch to
 * batch: a recording has its own, which stay as they are.
 */
#ifndef EASYFIRST_KERNELS_CUDA_REPLAY_H
#define EASYFIRST_KERNELS_CUDA_REPLAY_H

#include "kernels/cuda/cuda.h"

int replays_open(struct Replays **replays, Error *err);
void replays_close(struct Replays *replays); /* NULL is allowed */

int cuda_replay(Device *device, ReplayKey key, DeviceWork run, void *work, Error *err);

/* Whether what is launched now is being recorded, not run. */
bool replay_recording(const Device *device);

/* The recording's own copy of host values, on the device; filled before the recording is started
 * for the first time. */
int replay_host_copy(Device *device, const void **memory, const void *host, size_t bytes,
                     Error *err);

/* Nothing recorded is valid from here on: memory of the backend has moved. With `seen`, work that
 * comes again is also done once more as it is before it is recorded. */
void replays_forget(Device *device, bool seen);

#endif
