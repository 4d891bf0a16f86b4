/* records.h - training and evaluation data as records: turns of prompt and answer, and perhaps an
 * image.
 *
 * Formats, recognized by content (a file's first byte other than white space: '[', '{', another):
 *   LLaVA JSON   one array of {"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}
 *                (blip_laion_cc_sbu_558k.json, llava_v1_5_mix665k.json); `id` a string or a number,
 *                no "image" for text alone. Read as a stream, one element in memory at a time.
 *   jsonl pairs  a line a record: {"inputs", "targets"}; or LLaVA's objects, one a line.
 *   plain text   one document a paragraph (separated by empty lines), or a line with the
 *                option text_lines: for masked diffusion on text alone.
 *   a folder     with ratio.json ({file: weight}, Flan 2022's layout) and jsonl files: a mixture.
 *   others       tables, parallel files, SQuAD's JSON, chats and more, each also as .gz: see
 *                data/formats/format.h. Unpacked and built prompts lie in a temporary file.
 * Memory is 16 bytes a record, its position in the file, whatever the file's size. Records are read
 * again, one at a time, when they are needed.
 *
 * In a conversation every answer is a turn, with the human's text before it as its prompt ("" if
 * there is none); a leading "system" part and questions without an answer are left out and noted.
 * Arrays may hold pairs, and lines may mix the two kinds. "id" may be a string or an integer; null
 * and "" count as absent. A byte order mark, CRLF line ends and empty lines are accepted.
 *
 * A record has at most one image: "image" or "images", a path or a list of one. It goes before the
 * prompt whether or not the prompt has LLaVA's placeholder "<image>", which is removed. A record
 * with contents that cannot be used is skipped, not trained on in part: several images, more
 * placeholders than images, a placeholder in an answer, a video or sound, a system prompt or
 * context in its own field. Other fields ("source", "width", ...) are ignored.
 */
#ifndef EASYFIRST_DATA_SETS_RECORDS_H
#define EASYFIRST_DATA_SETS_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "data/formats/prompt.h"
#include "data/sets/skipped.h"
#include "kernels/error.h"

typedef struct RecordTurn {
    const char *prompt;   /* the human's text without "<image>"; "" for plain text */
    const char *response; /* the answer */
} RecordTurn;

typedef struct Record {
    const char *id;    /* as text; "" if it has none */
    const char *image; /* path within the folder of images, as in the file; NULL: none */
    RecordTurn *turns; /* [count], count >= 1: turns without an answer are left out */
    int count;
    void *memory; /* of all the texts; record_free */
} Record;

void record_free(Record *record);

typedef struct RecordsOptions {
    const char *images;      /* folder of images; NULL: records with an image are skipped */
    const char *prompts_for; /* the command that needs prompts ("train adapt"): plain text, which
                                has none, is refused; NULL: plain text is read */
    bool text_lines;         /* plain text: every line is a document */
    bool check_images;       /* check while scanning that each image's file exists */
    int64_t limit;           /* usable records at most, of each file; 0: all */
    PromptOptions prompt;    /* demonstrations, templates, parallel files; texts are the caller's */
    const char *languages;   /* "en,fr", "not-de": records with more than a few words of other
                                languages are left out and noted (data/formats/languages.h); NULL: all stay */
} RecordsOptions;

typedef struct Records Records;

/* Scans the file or folder once, front to back. What is wrong with a single record (no
 * conversations, a value of the wrong type, an image path that is absolute or leaves the folder
 * with "..", an image that is missing or empty, a line that is not JSON, text with NUL bytes or
 * that is not UTF-8, too many values for JSON_ELEMENT_MEMORY) is counted in *skipped, once for each
 * record, and the record is skipped; of an empty answer only the turn. What makes the rest
 * unreadable (malformed JSON in an array: the message has line, column and byte; a ratio.json that
 * names no file or a missing one) is an error, and so are a file without a usable record (the
 * message has the first reason), a file of another format (Parquet, zip, UTF-16, an object around
 * the array: see file_kind.h), and a pipe. *records is NULL on failure. */
int records_open(Records **records, const char *path, const RecordsOptions *options,
                 Skipped *skipped, Error *err);
void records_close(Records *records); /* NULL is allowed */

/* Checks that files exist and have a readable format: reads only their beginnings, so that a wrong
 * --data is reported at once. */
int records_check(const char *path, const RecordsOptions *options, Error *err);

int64_t records_count(const Records *records);   /* usable ones */
int64_t records_scanned(const Records *records); /* all that were read */

/* Sources of a mixture, in the order of their names; 1 for a file. The records of source s are
 * [begin, end), at least one. */
int records_sources(const Records *records);
const char *records_source(const Records *records, int source, int64_t *begin, int64_t *end,
                           double *weight);

/* One record; safe from several threads at once. An error here concerns this record only. */
int records_read(const Records *records, int64_t index, Record *record, Error *err);

/* The full path of a record's image. */
int records_image_path(const Records *records, const Record *record, char *path, int size,
                       Error *err);

/* Whether a usable record was also counted in *skipped: one of its turns was left out. */
bool records_flawed(const Records *records, int64_t index);

/* A hash of the contents and weights of the files, taken while they were scanned, and of the
 * positions of their usable records (which missing images change). Names and times of the files,
 * and the contents of images, are not part of it. */
uint64_t records_fingerprint(const Records *records);

/* One source's path, size in bytes, and hash of its contents. */
const char *records_source_file(const Records *records, int source, int64_t *bytes, uint64_t *hash);

#endif
