#include "data/files/file_hash.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "data/files/file_open.h"

enum { BLOCK = 1 << 20 };

/* Adds a file to the digest. */
static int hash_bytes(EVP_MD_CTX *digest, int fd, const char *path, Error *err) {
    unsigned char *block = malloc(BLOCK);
    if (!block) return error_set(err, "out of memory");
    int status = 0;
    for (ssize_t n = 1; n > 0 && status == 0;) {
        n = read(fd, block, BLOCK);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n < 0)
            status = error_set(err, "%s: %s", path, strerror(errno));
        else if (n > 0 && EVP_DigestUpdate(digest, block, (size_t)n) != 1)
            status = error_set(err, "%s: cannot compute its hash", path);
    }
    free(block);
    return status;
}

static int hash_finish(char hex[FILE_HASH_SIZE], EVP_MD_CTX *digest) {
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (EVP_DigestFinal_ex(digest, value, &size) != 1 || size != (FILE_HASH_SIZE - 1) / 2)
        return -1;
    for (unsigned i = 0; i < size; i++) snprintf(hex + 2 * (size_t)i, 3, "%02x", value[i]);
    return 0;
}

int file_hash(char hex[FILE_HASH_SIZE], const char *path, Error *err) {
    hex[0] = 0;
    int fd = file_open_input(path, NULL, NULL, err);
    if (fd < 0) return -1;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int status = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1
                     ? hash_bytes(digest, fd, path, err)
                     : error_set(err, "out of memory");
    if (status == 0 && hash_finish(hex, digest))
        status = error_set(err, "%s: cannot compute its hash", path);
    EVP_MD_CTX_free(digest);
    close(fd);
    return status;
}

int bytes_hash(char hex[FILE_HASH_SIZE], const void *bytes, size_t size, Error *err) {
    hex[0] = 0;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, bytes, size) == 1 && hash_finish(hex, digest) == 0;
    EVP_MD_CTX_free(digest);
    return good ? 0 : error_set(err, "out of memory for a hash");
}
