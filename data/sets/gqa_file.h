/* gqa_file.h - what kind of file it is, and its entries. Private to the readers of GQA's files. */
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
    size_t begin; /* behind a byte order mark */
    GqaFileKind kind;
    bool wrapped; /* an object whose first member is a list */
} GqaFile;

/* `path` must stay. Exactly one close for an open that succeeded. Errors: no such file, or none
 * that can be read at any place (a folder, a pipe). */
int gqa_file_open(GqaFile *file, const char *path, Error *err);
void gqa_file_close(GqaFile *file);

/* What kind of file it may be that has nothing of what was expected, as file_kind_of; NULL. */
const char *gqa_file_hint(const GqaFile *file);

/* Opens and visits all entries: of an array, of an object (with `key`), or lines (element->number
 * is the line's number). Lines that are no JSON are shown as elements without a value. `kinds` is a
 * set of bits 1 << GqaFileKind that are expected, and `what` tells what was, for the error
 * otherwise. */
int gqa_file_walk(const char *path, unsigned kinds, const char *what, JsonVisit visit, void *user,
                  Error *err);

/* A text member, which may be empty; NULL if it is missing, no text, or has a NUL byte. */
const char *gqa_member(const json_t *object, const char *name);

/* An id: a text that is not empty, or a whole number, written into `digits`. NULL otherwise. */
const char *gqa_id_of(const json_t *value, char digits[24]);

#endif
