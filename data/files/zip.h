/* zip.h - the directory of a zip file and its uncompressed entries.
 *
 * Enough of the format (with its 64-bit extension) for PyTorch's files: no compression, no
 * encryption, one volume, nothing before the first entry. Checksums are not verified: that would
 * read the whole file.
 */
#ifndef EASYFIRST_DATA_FILES_ZIP_H
#define EASYFIRST_DATA_FILES_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "data/files/mapped_file.h"
#include "kernels/error.h"

typedef struct ZipEntry {
    const char *name; /* in the map, not terminated */
    size_t name_length;
    uint64_t size, packed_size; /* bytes, uncompressed and in the zip */
    uint64_t header;            /* where the entry begins in the file */
    uint16_t method, flags;
} ZipEntry;

typedef struct Zip {
    const MappedFile *file;
    ZipEntry *entries; /* sorted by name, for zip_find */
    size_t count;
} Zip;

/* Reads the directory of a file, which must outlive the Zip. On failure *zip is empty. */
int zip_directory_open(Zip *zip, const MappedFile *file, Error *err);
void zip_directory_close(Zip *zip);

/* NULL if there is none of that name. */
const ZipEntry *zip_find(const Zip *zip, const char *name, size_t length);

/* Where the entry's bytes lie in the map: entry->size of them, checked to be in the file. Errors: a
 * compressed or encrypted entry, a directory that contradicts the entry. */
int zip_bytes(const Zip *zip, const ZipEntry *entry, const unsigned char **bytes, Error *err);

#endif
