/* dataset.h - all the files of a training run as one list of units: what can be trained on, how
 * long each is, and where it stands. One pass over the data at the start; texts and images are
 * read again when their turn comes.
 */
#ifndef EASYFIRST_APPS_TRAIN_DATASET_H
#define EASYFIRST_APPS_TRAIN_DATASET_H

#include "data/sets/batches.h"
#include "data/sets/scene_graphs.h"
#include "projector/examples.h"

typedef struct DatasetOptions {
    RecordsOptions records;
    ExampleConfig example;
    double max_bad_fraction; /* more bad records than this share are an error */
    int64_t limit;           /* units at most; 0: all */
    /* Told now and then how far the pass is; may be NULL. */
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
    int64_t *first_record; /* [file_count + 1]: a unit's record is counted through all files */
    BatchUnit *units;      /* [count] */
    int64_t count;
    size_t capacity;
    int64_t samples; /* records that were looked at, good and bad (of scene graphs: images and
                        objects) */
    unsigned char *counted; /* of each usable record RECORD_BAD: it is among the bad ones already;
                               RECORD_MET: trouble with its image was. A data loader sets them, so that a
                               record counts once, however often it comes */
    double *weights;        /* [sources] of a mixture; NULL if the data is none */
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

/* Reads and tokenizes everything once. Several files are one after the other; weights count only if
 * one of the paths is a mixture (then a plain file weighs 1). No unit at all is an error. The
 * tokenizer must outlive the dataset. On failure *dataset is empty. */
int dataset_open(Dataset *dataset, const char *const *paths, int count,
                 const DatasetOptions *options, Error *err);
void dataset_close(Dataset *dataset);

/* The same of scene graphs: an image is a unit of `patches` tokens, one sequence. */
int dataset_open_scenes(Dataset *dataset, const char *const *paths, int count,
                        const SceneGraphsOptions *options, int patches, double max_bad_fraction,
                        Error *err);

/* A unit's record and example, again; not of scene graphs. `examples` and *record are the caller's
 * memory (record_free, examples_free); *example points into `examples`. Safe from several threads,
 * each with its own. */
int dataset_unit(const Dataset *dataset, int64_t unit, Record *record, Examples *examples,
                 const Example **example, Error *err);

/* The file in which a unit stands. */
const Records *dataset_file(const Dataset *dataset, int64_t unit);

#endif
