/* content_hash.h - a 64-bit hash of a stream of bytes, to tell whether a file is still the same.
 *
 * Some gigabytes a second, so that data can be hashed while they are read anyway. Each step is a
 * bijection of the state: two streams of one length that differ in one word of 8 bytes never have
 * the same hash. Not cryptographic: it tells changes, not forgeries.
 */
#ifndef EASYFIRST_DATA_FILES_CONTENT_HASH_H
#define EASYFIRST_DATA_FILES_CONTENT_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct ContentHash { /* zero-initialise */
    uint64_t state, size;    /* size: bytes so far */
    unsigned char tail[8];   /* [size % 8] bytes that are no whole word yet */
} ContentHash;

/* However the bytes are divided over the calls, the value is the same. */
void content_hash_add(ContentHash *hash, const void *bytes, size_t size);
uint64_t content_hash_value(const ContentHash *hash);

#endif
