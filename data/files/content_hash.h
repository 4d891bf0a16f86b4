/* content_hash.h - a 64-bit hash of a byte stream, to detect whether a file has changed.
 *
 * Runs at some gigabytes a second, so data is hashed while it is read. Each step is a bijection of
 * the state: two streams of one length that differ in one word of 8 bytes never have the same hash.
 * Not cryptographic: it detects changes, not forgeries.
 */
#ifndef EASYFIRST_DATA_FILES_CONTENT_HASH_H
#define EASYFIRST_DATA_FILES_CONTENT_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct ContentHash { /* zero-initialize */
    uint64_t state, size;    /* size: bytes so far */
    unsigned char tail[8];   /* [size % 8] bytes of an incomplete word */
} ContentHash;

/* The value does not depend on how the bytes are divided over the calls. */
void content_hash_add(ContentHash *hash, const void *bytes, size_t size);
uint64_t content_hash_value(const ContentHash *hash);

#endif
