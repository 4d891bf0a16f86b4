/* gqa_file.h - the format of a GQA file, and its entries. Private to the readers of GQA's files. */
#ifndef EASYFIRST_DATA_SETS_GQA_FILE_H
#define EASYFIRST_DATA_SETS_GQA_FILE_H

#include <jansson.h>

#include "data/files/file_window.h"
#include "data/files/json_array.h"
#include "data/sets/skipped.h"

typedef enum GqaFileKind {
    GQA_FILE_EMPTY,  /* nothing, or white space */
    GQA_FILE_ARRAY,  /* begins with [ */
    GQA_FILE_OBJECT, /* {"name": {...: an object of objects */
    GQA_FILE_LINES,  /* {"name": anything else: an object a line */
    GQA_FILE_OTHER
} GqaFileKind;

typedef struct GqaFile {
    FileWindow window;
    size_t begin; /* after a byte order mark */
    GqaFileKind kind;
    bool wrapped; /* an object whose first member is a list */
} GqaFile;

/* `path` must outlive the file. Close it exactly once if this succeeded. Errors: no such file, or
 * not a regular file (a folder, a pipe). */
int gqa_file_open(GqaFile *file, const char *path, Error *err);
void gqa_file_close(GqaFile *file);

/* What an unexpected file may be, as file_kind_of; NULL. */
const char *gqa_file_hint(const GqaFile *file);

/* Opens and visits all entries: of an array, of an object (with `key`), or lines (element->number
 * is the line's number). Lines that are not JSON are visited as elements without a value. `kinds`
 * has the bits 1 << GqaFileKind of the expected formats, and `what` names them for the error. */
int gqa_file_walk(const char *path, unsigned kinds, const char *what, JsonVisit visit, void *user,
                  Error *err);

/* A string member, which may be empty; NULL if it is missing, not a string, or has a NUL byte. */
const char *gqa_member(const json_t *object, const char *name);

/* An id: a string that is not empty, or an integer, written into `digits`. NULL otherwise. */
const char *gqa_id_of(const json_t *value, char digits[24]);

#endif
