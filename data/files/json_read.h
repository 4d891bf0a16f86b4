/* json_read.h - JSON to jansson's tree, with a bound on memory.
 *
 * A tree takes up to 130 times its text: "[],[],..." has a value every 3 bytes, each of 140 bytes.
 * So the text is scanned first, at about a gigabyte a second: brackets, quotes and commas give an
 * upper bound of the tree's memory, and more than the reader's limit is refused before the tree is
 * built. All JSON is read through this.
 */
#ifndef EASYFIRST_DATA_FILES_JSON_READ_H
#define EASYFIRST_DATA_FILES_JSON_READ_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "kernels/error.h"

enum {
    JSON_DEPTH_MOST = 64,        /* nested brackets */
    JSON_MEMORY_MOST = 96 << 20, /* bytes of a tree, by default */
    JSON_TEXT_MOST = 32 << 20,   /* bytes of text, by default */
};

/* Upper bounds of a text's tree in memory and of its depth. Malformed text is weighed as far as
 * possible; jansson then refuses it. */
typedef struct JsonWeight {
    size_t memory;
    size_t depth;
} JsonWeight;
JsonWeight json_weigh(const char *text, size_t size);

/* Whether a text is too heavy for a tree of `memory` bytes (0: JSON_MEMORY_MOST) or nested deeper
 * than JSON_DEPTH_MOST; then `why` (of `size` bytes) has the message, without a path. */
bool json_too_heavy(const char *text, size_t text_size, size_t memory, char *why, size_t size);

/* Text to a tree; release with json_decref. `flags` are jansson's; a byte order mark is skipped.
 * `memory` as above. Errors: too heavy, malformed (with line and column), or what file_kind_hint
 * recognizes: UTF-16, a web page, a compressed file, an empty file. *json is NULL then. */
int json_read_text(json_t **json, const char *text, size_t size, size_t flags, size_t memory,
                   const char *path, Error *err);

/* The same for a regular file of at most `most` bytes (0: JSON_TEXT_MOST). */
int json_read_file(json_t **json, const char *path, size_t most, size_t flags, size_t memory,
                   Error *err);

#endif
