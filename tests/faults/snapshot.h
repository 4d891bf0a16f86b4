/* snapshot.h - a folder's names and contents, for comparison with the expected ones. */
#ifndef EASYFIRST_TESTS_FAULTS_SNAPSHOT_H
#define EASYFIRST_TESTS_FAULTS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SnapshotFile {
    char name[200]; /* relative to the folder */
    uint64_t hash;  /* of the content; measured times in JSON are left out */
    size_t size;
} SnapshotFile;

typedef struct Snapshot {
    SnapshotFile *files; /* [count], by name */
    size_t count, capacity;
} Snapshot;

/* The lock of a folder that is not yet renamed into place. It remains if the process is killed
 * right after the rename: the folder is complete, and the file is ignored. */
#define SNAPSHOT_MARKER ".easyfirst-partial"

/* All regular files below a folder, except SNAPSHOT_MARKER, and its folders (whose names end in
 * '/'); empty if it does not exist. Fails the test if a file cannot be read. */
Snapshot snapshot_take(const char *folder);
void snapshot_free(Snapshot *snapshot);

const SnapshotFile *snapshot_find(const Snapshot *snapshot, const char *name);

/* True if they are equal; else writes the difference into `why`. */
bool snapshot_same(const Snapshot *found, const Snapshot *expected, char *why, size_t size);

/* Copies a folder and its contents; `to` must not exist. */
void folder_copy(const char *from, const char *to);

#endif
