/* dataset.h - all data files of a training run as one list of units, with the length and position
 * of each. The data is scanned once at the start; texts and images are read again when a step needs
 * them.
 */
#ifndef EASYFIRST_APPS_TRAIN_DATASET_H
#define EASYFIRST_APPS_TRAIN_DATASET_H

#include "data/sets/batches.h"
#include "data/sets/scene_graphs.h"
#include "projector/examples.h"

typedef struct DatasetOptions {
    RecordsOptions records;
    ExampleConfig example;
    ParallelFiles parallel;  /* further files */
    double max_bad_fraction; /* a larger share of bad records is an error */
    int64_t limit;           /* units at most; 0: all */
    /* Called now and then with the progress of the scan; may be NULL. */
    void (*progress)(void *user, const char *path, int64_t done, int64_t all);
    void *user;
} DatasetOptions;

/* A file that was read. */
typedef struct DatasetFile {
    char *path;
    int64_t bytes;
    uint64_t hash; /* of its contents */
} DatasetFile;

/* What is known of a record in `counted`. */
enum { RECORD_BAD = 1, RECORD_MET = 2 };

typedef struct Dataset {
    DatasetOptions options;
    Records **files; /* [file_count] */
    int file_count;
    int64_t *first_record; /* [file_count + 1]: records are numbered across all files */
    BatchUnit *units;      /* [count] */
    int64_t count;
    size_t capacity;
    int64_t samples;        /* records read, good and bad (of scene graphs: images and objects) */
    unsigned char *counted; /* of each usable record: RECORD_BAD if it was counted as bad,
                               RECORD_MET if an image of it failed. Set by the data loader, so that
                               a record counts once, however often it is read */
    double *weights;        /* [sources] of a mixture; NULL: not a mixture */
    int sources;
    Skipped skipped;
    int longest;          /* tokens of the longest unit */
    int64_t tokens;       /* of all units */
    int64_t with_image;   /* units */
    uint64_t fingerprint; /* of the files' contents; see records_fingerprint */
    DatasetFile *read;    /* [read_count] */
    int read_count;
    size_t read_capacity;
    SceneGraphs *scenes; /* unit i is image i of these; NULL: units are of records */
} Dataset;

/* Reads and tokenizes everything once. Several files are concatenated; weights apply only if one of
 * the paths is a mixture (then a plain file weighs 1). No unit at all is an error. The tokenizer
 * must outlive the dataset. On failure *dataset is empty. */
int dataset_open(Dataset *dataset, const char *const *paths, int count,
                 const DatasetOptions *options, Error *err);
void dataset_close(Dataset *dataset);

/* The same of scene graphs: an image is a unit of `patches` tokens, one sequence. */
int dataset_open_scenes(Dataset *dataset, const char *const *paths, int count,
                        const SceneGraphsOptions *options, int patches, double max_bad_fraction,
                        Error *err);

/* Reads a unit's record and example again; not for scene graphs. `examples` and *record are the
 * caller's memory (record_free, examples_free); *example points into `examples`. Thread-safe if
 * each thread has its own. */
int dataset_unit(const Dataset *dataset, int64_t unit, Record *record, Examples *examples,
                 const Example **example, Error *err);

/* The file that holds a unit. */
const Records *dataset_file(const Dataset *dataset, int64_t unit);

#endif
