/* json_array.h - a file that is one JSON array, or one JSON object, element by element.
 *
 * A small scanner finds where each element ends (it knows strings, escapes and nesting, nothing
 * else), and jansson parses the element by itself, so memory is bounded by the longest element
 * (WINDOW_MOST), not by the file. That the text between elements is right (the brackets around all,
 * the commas) is checked here, what is inside by jansson.
 */
#ifndef EASYFIRST_DATA_FILES_JSON_ARRAY_H
#define EASYFIRST_DATA_FILES_JSON_ARRAY_H

#include <jansson.h>

#include "data/files/file_window.h"

/* How elements, and lines of JSON, are parsed: an element may be of any kind, and texts may hold
 * NUL (which whoever uses the text has to look for). */
enum { JSON_ELEMENT_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES };

/* What an element's tree may take; more is left out as "too large". */
enum { JSON_ELEMENT_MEMORY = 64 << 20 };

/* What is wrong with an element. */
typedef enum JsonFaultKind {
    JSON_FAULT_NONE,
    JSON_FAULT_MEMORY,   /* there is none */
    JSON_FAULT_SYNTAX,   /* malformed: brackets, quotes or commas */
    JSON_FAULT_CONTENTS, /* sound brackets around a wrong text or number, or a key that is there
                            twice */
    JSON_FAULT_LARGE     /* too many values, or nested too deeply */
} JsonFaultKind;

typedef struct JsonFault {
    JsonFaultKind kind;
    int position;  /* bytes into the text */
    bool cut;      /* the text ended too early */
    char why[192]; /* without a place */
} JsonFault;

/* One element or line by itself, in bounded memory; NULL where something is wrong. */
json_t *json_element(const char *text, size_t size, JsonFault *fault);

/* Of a fault, as a kind of problem (skipped.h): "not JSON", "not text", "repeated key", "too
 * large". */
const char *json_fault_name(const JsonFault *fault);

typedef struct JsonElement {
    const char *key; /* of an object's member, with what its value is; NULL in an array */
    json_t *value; /* released after the visit; NULL where only its texts or numbers are wrong (not
                      UTF-8, half a surrogate pair, a number too large), a key is there twice, or it
                      is too large */
    const char *why;  /* then: what is wrong, */
    const char *kind; /* and json_fault_name */
    int64_t number;   /* from 1 */
    int64_t offset;   /* in the file */
    size_t size;
} JsonElement;

/* 0 to go on, 1 to stop here, -1 for an error. */
typedef int (*JsonVisit)(void *user, const JsonElement *element, Error *err);

/* Visits all elements, from index `begin` of a window that stands at the file's start. Errors have
 * the file, line, column and byte: malformed JSON, a file that ends too early, anything after the
 * array's end, an element of more than WINDOW_MOST bytes. */
int json_array_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err);

/* The same for a file that is one JSON object: its members, in the order of the file, a name that
 * stands there twice twice. A member whose name is no text (not UTF-8, NUL bytes) is malformed. */
int json_object_walk(FileWindow *window, size_t begin, JsonVisit visit, void *user, Error *err);

#endif
