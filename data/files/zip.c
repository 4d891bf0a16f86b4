/* The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (4.3 and 4.5.3). */
#include "data/files/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_SIZE = 30,     /* the fixed part of an entry's own header */
    DIRECTORY_SIZE = 46, /* of its line in the directory */
    END_SIZE = 22,       /* of the end record */
    END64_SIZE = 56,
    LOCATOR64_SIZE = 20,
    COMMENT_MAX = 65535,
    EXTRA_64 = 1,  /* the extra field that holds 64-bit sizes */
    ENCRYPTED = 1, /* flag */
};

static uint64_t little(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static bool signature(const unsigned char *bytes, unsigned char a, unsigned char b) {
    return bytes[0] == 'P' && bytes[1] == 'K' && bytes[2] == a && bytes[3] == b;
}

typedef struct Directory {
    uint64_t offset, size, count;
} Directory;

/* The end record is the last thing but a comment of up to 64 KB, so it is looked for backwards; its
 * comment must reach exactly to the end, which a chance occurrence of the signature will not. */
static const unsigned char *find_end(const MappedFile *file) {
    for (size_t back = END_SIZE; back <= file->size && back <= END_SIZE + COMMENT_MAX; back++) {
        const unsigned char *at = file->bytes + file->size - back;
        if (signature(at, 5, 6) && little(at + 20, 2) == back - END_SIZE) return at;
    }
    return NULL;
}

static int find_directory(const MappedFile *file, Directory *directory, Error *err) {
    const unsigned char *end = find_end(file);
    if (!end)
        return error_set(err,
                         "%s: no zip directory at its end; the file is cut off (%zu bytes): copy "
                         "or download it again",
                         file->path, file->size);
    *directory = (Directory){
        .offset = little(end + 16, 4), .size = little(end + 12, 4), .count = little(end + 10, 2)};

    size_t end_at = (size_t)(end - file->bytes);
    if (end_at >= LOCATOR64_SIZE && signature(end - LOCATOR64_SIZE, 6, 7)) {
        uint64_t at = little(end - LOCATOR64_SIZE + 8, 8);
        if (at > file->size || file->size - at < END64_SIZE || !signature(file->bytes + at, 6, 6))
            return error_set(err, "%s: its 64-bit zip directory is damaged", file->path);
        const unsigned char *end64 = file->bytes + at;
        *directory = (Directory){.offset = little(end64 + 48, 8),
                                 .size = little(end64 + 40, 8),
                                 .count = little(end64 + 32, 8)};
    }
    if (directory->offset > file->size || directory->size > file->size - directory->offset ||
        directory->count > directory->size / DIRECTORY_SIZE)
        return error_set(err,
                         "%s: its zip directory (%llu bytes at %llu) is not in the file (%zu "
                         "bytes); the file is damaged",
                         file->path, (unsigned long long)directory->size,
                         (unsigned long long)directory->offset, file->size);
    return 0;
}

/* A 32-bit field of all ones means: look into the extra field, which holds only the fields so
 * marked, in this order. */
static bool read_extra(ZipEntry *entry, const unsigned char *extra, size_t length) {
    uint64_t *fields[] = {&entry->size, &entry->packed_size, &entry->header};
    while (length >= 4) {
        size_t id = (size_t)little(extra, 2), size = (size_t)little(extra + 2, 2);
        if (size > length - 4) return false;
        const unsigned char *value = extra + 4;
        size_t left = id == EXTRA_64 ? size : 0;
        for (int i = 0; i < 3 && id == EXTRA_64; i++) {
            if (*fields[i] != UINT32_MAX) continue;
            if (left < 8) return false;
            *fields[i] = little(value, 8);
            value += 8;
            left -= 8;
        }
        extra += 4 + size;
        length -= 4 + size;
    }
    return true;
}

/* Reads the line at *at, of which *left bytes remain, and steps over it. */
static bool read_line(ZipEntry *entry, const unsigned char **at, uint64_t *left) {
    const unsigned char *line = *at;
    if (*left < DIRECTORY_SIZE || !signature(line, 1, 2)) return false;
    size_t name = (size_t)little(line + 28, 2), extra = (size_t)little(line + 30, 2);
    size_t whole = DIRECTORY_SIZE + name + extra + (size_t)little(line + 32, 2);
    if (whole > *left) return false;
    *entry = (ZipEntry){.name = (const char *)line + DIRECTORY_SIZE,
                        .name_length = name,
                        .size = little(line + 24, 4),
                        .packed_size = little(line + 20, 4),
                        .header = little(line + 42, 4),
                        .method = (uint16_t)little(line + 10, 2),
                        .flags = (uint16_t)little(line + 8, 2)};
    *at += whole;
    *left -= whole;
    return read_extra(entry, line + DIRECTORY_SIZE + name, extra);
}

static int name_compare(const void *a, const void *b) {
    const ZipEntry *x = a, *y = b;
    size_t shorter = x->name_length < y->name_length ? x->name_length : y->name_length;
    int order = memcmp(x->name, y->name, shorter);
    if (order) return order;
    return (x->name_length > y->name_length) - (x->name_length < y->name_length);
}

/* zip_bytes needs each entry's own header. They are megabytes apart, and met one after another each
 * costs a wait for the disk (1 s for 260 tensors of a cold file, 0.005 s so). The directory is in
 * the order of the file; entries that share a page with the last one are passed over. */
static void prefetch_headers(const Zip *zip) {
    enum { APART = 4096 };
    uint64_t next = 0;
    for (size_t i = 0; i < zip->count; i++) {
        const ZipEntry *entry = &zip->entries[i];
        if (entry->header < next || entry->header >= zip->file->size) continue;
        mapped_file_prefetch(zip->file, (size_t)entry->header, LOCAL_SIZE + entry->name_length);
        next = entry->header + APART;
    }
}

static int read_directory(Zip *zip, const Directory *directory, Error *err) {
    const MappedFile *file = zip->file;
    zip->entries = malloc((size_t)(directory->count + 1) * sizeof *zip->entries);
    if (!zip->entries) return error_set(err, "%s: out of memory", file->path);
    const unsigned char *at = file->bytes + directory->offset;
    uint64_t left = directory->size;
    for (; zip->count < directory->count; zip->count++)
        if (!read_line(&zip->entries[zip->count], &at, &left))
            return error_set(err, "%s: entry %zu of its zip directory is damaged", file->path,
                             zip->count);
    prefetch_headers(zip);
    qsort(zip->entries, zip->count, sizeof *zip->entries, name_compare);
    for (size_t i = 1; i < zip->count; i++)
        if (name_compare(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return error_set(err, "%s: two zip entries of the name \"%.*s\"", file->path,
                             (int)zip->entries[i].name_length, zip->entries[i].name);
    return 0;
}

int zip_directory_open(Zip *zip, const MappedFile *file, Error *err) {
    *zip = (Zip){.file = file};
    Directory directory = {0};
    TRY(find_directory(file, &directory, err));
    int failed = read_directory(zip, &directory, err);
    if (failed) zip_directory_close(zip);
    return failed;
}

void zip_directory_close(Zip *zip) {
    free(zip->entries);
    *zip = (Zip){0};
}

const ZipEntry *zip_find(const Zip *zip, const char *name, size_t length) {
    ZipEntry key = {.name = name, .name_length = length};
    return bsearch(&key, zip->entries, zip->count, sizeof *zip->entries, name_compare);
}

int zip_bytes(const Zip *zip, const ZipEntry *entry, const unsigned char **bytes, Error *err) {
    const MappedFile *file = zip->file;
    int shown = entry->name_length < 200 ? (int)entry->name_length : 200;
    if (entry->method != 0 || entry->flags & ENCRYPTED)
        return error_set(err,
                         "%s: zip entry \"%.*s\" is compressed or encrypted, PyTorch stores it "
                         "plain; save it again with torch.save",
                         file->path, shown, entry->name);
    const unsigned char *header = NULL; /* formed only once it is known to be in the file */
    if (entry->header <= file->size && file->size - entry->header >= LOCAL_SIZE)
        header = file->bytes + entry->header;
    if (!header || !signature(header, 3, 4) || entry->packed_size != entry->size)
        return error_set(err,
                         "%s: zip entry \"%.*s\" is not where the directory says; the file "
                         "is damaged",
                         file->path, shown, entry->name);
    /* The lengths here may differ from the directory's: PyTorch pads its data to 64 bytes with an
     * extra field that only this header has. */
    size_t name = (size_t)little(header + 26, 2), extra = (size_t)little(header + 28, 2);
    size_t left = file->size - (size_t)entry->header - LOCAL_SIZE;
    if (name + extra > left || entry->size > left - name - extra)
        return error_set(err,
                         "%s: zip entry \"%.*s\" of %llu bytes ends after the file (%zu bytes); "
                         "the file is cut off or damaged",
                         file->path, shown, entry->name, (unsigned long long)entry->size,
                         file->size);
    if (name != entry->name_length || memcmp(header + LOCAL_SIZE, entry->name, name) != 0)
        return error_set(err,
                         "%s: zip entry \"%.*s\" has another name in the directory; the file "
                         "is damaged",
                         file->path, shown, entry->name);
    *bytes = header + LOCAL_SIZE + name + extra;
    return 0;
}
