/* checkpoint_files.h - what the programs that test checkpoints share: a folder for their files,
 * and the values of the golden tensors. */
#ifndef EASYFIRST_TESTS_CHECKPOINT_FILES_H
#define EASYFIRST_TESTS_CHECKPOINT_FILES_H

#include "data/checkpoints/checkpoint.h"
#include "tests/test.h"

#define GOLDEN "tests/golden/checkpoint/"

/* Setup and teardown of a group of tests: they make and remove the folder of `at`. */
int make_folder(void **state);
int remove_folder(void **state);

/* The path of a file in that folder ("" is the folder); overwritten by the next call but one. */
const char *at(const char *name);

void save(const char *path, const void *bytes, size_t size);
void save_text(const char *path, const char *text);

/* Opens and closes; after a failure, checks that the checkpoint was left empty. */
int open_path(const char *path, Error *err);

/* Opens what must open, and checks the order of names. `stem` may be NULL. */
void open_good(Checkpoint *c, const char *path, const char *stem);

double value_at(const Tensor *t, size_t i);

#define DIMS(...)       \
    (int[]) {           \
        __VA_ARGS__, -1 \
    }

/* Fails unless the tensor exists, of this type and shape (a list ended by -1), contiguous and
 * aligned, with the values that tests/reference/make_checkpoints.py gives every tensor. */
void check_tensor(const Checkpoint *c, const char *name, Dtype dtype, const int *shape);

/* The tensors of every type, and the views, that the golden files of several formats have. */
void check_types(const Checkpoint *c);
void check_views(const Checkpoint *c);

#endif
