/* format.h - files of other programs as prompts and answers.
 *
 * What data/sets/records.h reads as it is are lines or an array of {"inputs", "targets"} or of
 * LLaVA's conversations, and plain text. Everything else comes through here:
 *   - a file of another shape (a table, parallel files, SQuAD's JSON, star graphs) is read once, and
 *     its prompts are written as such lines to a temporary file;
 *   - an object of another shape (GSM8K's, Alpaca's, messages) is turned into such an object, each
 *     time that it is read;
 *   - a gzip file of any of these is unpacked into a temporary file.
 * A format is recognized by its contents (of tables: the first 1,000 rows); the table of formats.c has
 * one row for each, and a file of this folder its code. data/README.md lists them.
 */
#ifndef EASYFIRST_DATA_FORMATS_FORMAT_H
#define EASYFIRST_DATA_FORMATS_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "data/files/file_window.h"
#include "data/formats/prompt.h"

/* Told of each record that cannot be used: a constant kind, and its place and reason. */
typedef void (*FormatReject)(void *user, const char *kind, const char *why);

/* A file while it is read. */
typedef struct FormatInput {
    const char *path; /* for messages */
    const char *name; /* its name without folders and ".gz": of a language or a subject */
    const char *unit; /* the format's */
    const Prompting *prompting;
    int fd;
    bool text;     /* see FormatOptions */
    int64_t limit; /* samples at most; 0: all */
    FormatReject reject;
    void *user;       /* of reject and take */
    int64_t rejected; /* samples */
    int64_t taken;
    bool instructed; /* one of them had an instruction */
    int (*take)(void *user, const Sample *sample, Error *err);
} FormatInput;

/* A format that is a file of its own shape. `known` looks at the beginning of a file. */
typedef struct Format {
    const char *name;                  /* of data/README.md's table; a few words for messages */
    const char *unit;                  /* what its samples are in messages: "line", "question" */
    bool (*known)(FormatInput *input); /* a file that cannot be read is not */
    int (*read)(FormatInput *input, Error *err); /* all of it, with sample_take */
    bool json;                                   /* it begins with a brace */
    bool prompt_template;                        /* its prompts are made by --template */
    bool by_option;                              /* known by an option, whatever the file is */
} Format;

/* A format that is an object of a line or an array. */
typedef struct ObjectFormat {
    const char *name;
    bool (*known)(const json_t *object);
    /* A new object of {"inputs", "targets"} or {"conversations"} with all other members; NULL with a
     * kind and a reason. */
    json_t *(*convert)(json_t *object, const Prompting *prompting, ObjectFault *fault);
} ObjectFormat;

extern const Format formats[];              /* ends with a name NULL */
extern const ObjectFormat object_formats[]; /* likewise */

/* Names of all formats, for messages: "a, b or c". Static storage. */
const char *formats_list(void);

/* ---- For readers. ---- */

/* Gives a sample to the input's `take`, after checking that its texts are UTF-8 and that it has an
 * answer. 1: enough. */
int sample_take(FormatInput *input, const Sample *sample, Error *err);

/* Counts a sample that cannot be used: "<path>: <unit> <number>: ...". */
void sample_reject(FormatInput *input, int64_t number, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- For data sets. ---- */

/* What stays of a file that was opened. */
typedef struct FormatFile {
    int fd; /* of the file, or of a temporary one; the caller's to close */
    bool temporary;
    bool built;    /* lines of finished prompts: nothing is put before them any more */
    int64_t bytes; /* of the file itself, with that of the answers */
    int64_t rejected;
} FormatFile;

typedef struct FormatOptions {
    const Prompting *prompting; /* NULL: none */
    bool lines;                 /* an array becomes lines, too */
    bool text;                  /* plain text is wanted: a table must be one in each of its lines */
    int64_t limit;
    FormatReject reject;
    void *user;
} FormatOptions;

/* Opens a file of any format. Plain text, and JSON of no known shape, stay as they are (fd is the
 * file's own). Errors: what cannot be read, a format without a usable sample, options of prompts that
 * this format does not have. */
int format_file_open(FormatFile *file, const char *path, const FormatOptions *options, Error *err);

/* Whether a file would be unpacked or built (1), or stays as it is (0), without reading all of it: to
 * find at once what cannot be read. -1 with a message. */
int format_file_check(const char *path, const FormatOptions *options, Error *err);

/* The object with "inputs" and "targets", or conversations, of any object of a known format, with
 * demonstrations and instruction; a new reference. Objects of no known format stay as they are. NULL
 * with the fault. `prompting` may be NULL. */
json_t *format_object(json_t *object, const Prompting *prompting, ObjectFault *fault);

/* Whether an object is of a known format. */
bool format_object_known(const json_t *object);

/* Reads the demonstrations of --demonstrations. On failure *prompting is empty. */
int prompting_open(Prompting *prompting, const PromptOptions *options, Error *err);
void prompting_close(Prompting *prompting);

#endif
