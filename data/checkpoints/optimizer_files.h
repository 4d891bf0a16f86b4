/* optimizer_files.h - an optimizer's tables to and from files. */
#ifndef EASYFIRST_DATA_CHECKPOINTS_OPTIMIZER_FILES_H
#define EASYFIRST_DATA_CHECKPOINTS_OPTIMIZER_FILES_H

#include "kernels/optimizer.h"

/* The masters and moments of one table, as training_state_write and training_state_read; moments in
 * 8 bits as they are, so that a resumed run continues to the bit: next to "<name>", "<name>.m" and
 * "<name>.v" of U8, in the parameter's shape, there are "<name>.m.scale" and "<name>.v.scale", F32
 * [blocks of 256 values]. Those that stay in 32 bits are F32, without scales. A file with moments of
 * another kind is refused before anything is changed. */
int optimizer_part_write(const OptimizerPart *part, const char *path, Error *err);
int optimizer_part_read(OptimizerPart *part, const char *path, Error *err);

#endif
