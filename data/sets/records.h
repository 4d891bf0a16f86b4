/* records.h - training and evaluation data as records: turns of prompt and answer, and perhaps a
 * image.
 *
 * Formats, recognised by content (a file's first byte that is no white space: '[', '{', another):
 *   LLaVA JSON   one array of {"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}
 *                (blip_laion_cc_sbu_558k.json, llava_v1_5_mix665k.json); `id` a text or a number,
 *                no "image" for text alone. Read as a stream, one element in memory at a time.
 *   jsonl pairs  a line a record: {"inputs", "targets"}; or LLaVA's objects, one a line.
 *   plain text   one document a paragraph (separated by empty lines), or a line with the
 *                option text_lines: for masked diffusion on text alone.
 *   a folder     with ratio.json ({file: weight}, Flan 2022's layout) and jsonl files: a mixture.
 * A file of 1 GB takes 16 bytes of memory a record: where it stands in the file. Records are read
 * again, one at a time, when they are needed.
 *
 * Of a conversation every answer is a turn, with the human's words in front of it ("" if there are
 * none); a leading "system" part and questions without an answer are left out and noted. Arrays may
 * hold pairs, and lines may mix the two kinds. "id" may be a text or a whole number; null and ""
 * are as if absent. A byte order mark, line ends of two bytes, and empty lines do no harm.
 *
 * A record has at most one image: "image" or "images", a path or a list of one. Its place is in
 * front of the prompt whether the prompts have LLaVA's mark "<image>" or not, and the mark is taken
 * out of the prompt where it stands. A record that says more than can be used is skipped, and not
 * trained on as something else: several images, more marks than images, a mark in an answer, a
 * video or sound, a system prompt or context in a field of its own. Other fields ("source",
 * "width", ...) are not looked at.
 */
#ifndef EASYFIRST_DATA_SETS_RECORDS_H
#define EASYFIRST_DATA_SETS_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "data/sets/skipped.h"
#include "kernels/error.h"

typedef struct RecordTurn {
    const char *prompt;   /* the human's words without "<image>"; "" for plain text */
    const char *response; /* the answer */
} RecordTurn;

typedef struct Record {
    const char *id;    /* as text; "" if it has none */
    const char *image; /* path below the folder of images, as in the file; NULL: none */
    RecordTurn *turns; /* [count], count >= 1: turns without an answer are left out */
    int count;
    void *memory; /* of all the texts; record_free */
} Record;

void record_free(Record *record);

typedef struct RecordsOptions {
    const char *images;      /* folder of images; NULL: a record with an image is a problem */
    const char *prompts_for; /* what needs prompts ("train adapt"): plain text, which has none, is
                                refused; NULL: plain text is read */
    bool text_lines;         /* plain text: every line is a document */
    bool check_images;       /* look while scanning whether each image's file is there */
    int64_t limit;           /* usable records at most, of each file; 0: all */
} RecordsOptions;

typedef struct Records Records;

/* Scans the file or folder once, front to back. What is wrong with a single record (no
 * conversations, a value of the wrong type, an image path that is absolute or leaves the folder
 * with "..", an image that is missing or empty, a line that is no JSON, text with NUL bytes or
 * that is not UTF-8, too many values for JSON_ELEMENT_MEMORY) is counted in *problems, once for
 * each record, and the record is left out; of an empty answer it is the turn. What makes the rest
 * unreadable (malformed JSON in an array: the message has line, column and byte; a ratio.json that
 * names no file or one that is not there) is an error, and so are a file of which no record can be
 * used (its first problem is told), a file of another kind (Parquet, CSV, compressed, UTF-16, an
 * object around the array: see file_kind.h), and a pipe. *records is NULL on failure. */
int records_open(Records **records, const char *path, const RecordsOptions *options,
                 Skipped *skipped, Error *err);
void records_close(Records *records); /* NULL is allowed */

/* Whether files are there and of a kind that can be read: their beginnings alone are looked at, so
 * that a wrong --data is told at once. */
int records_check(const char *path, const RecordsOptions *options, Error *err);

int64_t records_count(const Records *records);   /* usable ones */
int64_t records_scanned(const Records *records); /* all that were seen */

/* Sources of a mixture, in the order of their names; 1 for a file. The records of source s are
 * [begin, end), at least one. */
int records_sources(const Records *records);
const char *records_source(const Records *records, int source, int64_t *begin, int64_t *end,
                           double *weight);

/* One record; safe from several threads at once. An error here is that of this record alone. */
int records_read(const Records *records, int64_t index, Record *record, Error *err);

/* The full path of a record's image. */
int records_image_path(const Records *records, const Record *record, char *path, int size,
                       Error *err);

/* Whether a usable record was counted in *problems all the same: one of its turns was left out. */
bool records_flawed(const Records *records, int64_t index);

/* A hash of the contents and weights of the files, taken while they were scanned, and of where
 * their usable records stand (an image may have come or gone): another one means other data. Names
 * and times of the files, and what is in the images, are not part of it. */
uint64_t records_fingerprint(const Records *records);

/* Of one source: its path, bytes, and the hash of its contents. */
const char *records_source_file(const Records *records, int source, int64_t *bytes, uint64_t *hash);

#endif
