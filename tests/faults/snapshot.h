/* snapshot.h - what is in a folder: names and contents, to be compared with what should be. */
#ifndef EASYFIRST_TESTS_FAULTS_SNAPSHOT_H
#define EASYFIRST_TESTS_FAULTS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SnapshotFile {
    char name[200]; /* below the folder */
    uint64_t hash;  /* of the content; of JSON with measured times without these */
    size_t size;
} SnapshotFile;

typedef struct Snapshot {
    SnapshotFile *files; /* [count], by name */
    size_t count, capacity;
} Snapshot;

/* The lock of a folder that is not in its place yet. It stays where the process is killed between
 * the two: the folder is whole, and nobody looks at the file. */
#define SNAPSHOT_MARKER ".easyfirst-partial"

/* Of all regular files below a folder, but for SNAPSHOT_MARKER, and its folders (whose names end in
 * '/'); none if it is not there. Fails the test where a file cannot be read. */
Snapshot snapshot_take(const char *folder);
void snapshot_free(Snapshot *snapshot);

const SnapshotFile *snapshot_find(const Snapshot *snapshot, const char *name);

/* Writes into `why` in what two differ, and returns false; or true. */
bool snapshot_same(const Snapshot *found, const Snapshot *expected, char *why, size_t size);

/* Copies a folder with all that is in it; `to` must not exist. */
void folder_copy(const char *from, const char *to);

#endif
