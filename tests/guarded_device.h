/* guarded_device.h - a device whose memory the host cannot access, for code that must go through
 * the device as with a GPU: the CPU's operations, on pages that are accessible only while one of
 * them runs. It reports itself as a GPU and counts its bytes.
 */
#ifndef EASYFIRST_TESTS_GUARDED_DEVICE_H
#define EASYFIRST_TESTS_GUARDED_DEVICE_H

#include "kernels/device.h"

Device *guarded_open(void);
void guarded_close(Device *device); /* fails the test if memory has not been freed */

/* Bytes allocated and not freed, as requested. */
size_t guarded_bytes(void);

/* Whether the address lies in memory of the device. */
bool guarded_owns(const void *address);

/* The allocation after `count` more of them fails; -1: none does. */
void guarded_fail_after(int count);

#endif
