/* json_array.h - reads a file that is one JSON array, or one JSON object, element by element.
 *
 * A small scanner finds where each element ends (it knows strings, escapes and nesting, nothing
 * else), and jansson parses the element by itself, so memory is bounded by the longest element
 * (WINDOW_MOST), not by the file. The text between elements (outer brackets, commas) is checked
 * here, their contents by jansson.
 */
#ifndef EASYFIRST_DATA_FILES_JSON_ARRAY_H
#define EASYFIRST_DATA_FILES_JSON_ARRAY_H

#include <jansson.h>

#include "data/files/file_window.h"

/* How elements, and lines of JSON, are parsed: an element may be of any type, and strings may hold
 * NUL (which the caller must check). */
enum { JSON_ELEMENT_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES };

/* Bytes that an element's tree may take; larger elements are skipped as "too large". */
enum { JSON_ELEMENT_MEMORY = 64 << 20 };

/* What is wrong with an element. */
typedef enum JsonFaultKind {
    JSON_FAULT_NONE,
    JSON_FAULT_MEMORY,   /* out of memory */
    JSON_FAULT_SYNTAX,   /* malformed: brackets, quotes or commas */
    JSON_FAULT_CONTENTS, /* well-formed, but with an invalid string or number, or a duplicate key */
    JSON_FAULT_LARGE     /* too many values, or nested too deeply */
} JsonFaultKind;

typedef struct JsonFault {
    JsonFaultKind kind;
    int position;  /* bytes into the text */
    bool cut;      /* the text ended too early */
    char why[192]; /* without the position */
} JsonFault;

/* Parses one element or line, in bounded memory; NULL with *fault on failure. */
json_t *json_element(const char *text, size_t size, JsonFault *fault);

/* The kind of a fault, for skipped.h: "not JSON", "not text", "repeated key", "too large". */
const char *json_fault_name(const JsonFault *fault);

typedef struct JsonElement {
    const char *key; /* of an object's member; NULL in an array */
    json_t *value; /* released after the visit; NULL if only its strings or numbers are invalid (not
                      UTF-8, half a surrogate pair, a number too large), a key is duplicated, or it
                      is too large */
    const char *why;  /* of a NULL value: what is wrong, */
    const char *kind; /* and json_fault_name */
    int64_t number;   /* from 1 */
    int64_t offset;   /* in the file */
    size_t size;
} JsonElement;

/* Returns 0 to continue, 1 to stop, -1 for an error. */
typedef int (*JsonVisit)(void *user, const JsonElement *element, Error *err);

/* Visits all elements, from index `begin` of a window at the file's start. Errors have the file,
 * line, column and byte: malformed JSON, a file that ends too early, anything after the array's
 * end, an element of more than WINDOW_MOST bytes. */
int json_array_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err);

/* The same for a file that is one JSON object: its members, in the order of the file, a duplicate
 * name twice. A member whose name is not valid (not UTF-8, NUL bytes) is malformed. */
int json_object_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err);

#endif
