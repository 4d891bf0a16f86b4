/* library.h - the options of a command line as those of the public library (projector/easyfirst.h),
 * and what `--show` takes from inside of it.
 */
#ifndef EASYFIRST_APPS_CLI_LIBRARY_H
#define EASYFIRST_APPS_CLI_LIBRARY_H

#include "apps/cli/report.h"
#include "apps/cli/session.h"
#include "projector/easyfirst.h"

/* The library's view of an Error. */
static inline ef_error *library_error(Error *err) {
    return (ef_error *)(void *)err;
}

/* Opens the model of the command line, which is to answer; closed with ef_model_close. */
int library_open(ef_model **model, const CommonOptions *o, Timings *timings, Error *err);

enum { LIBRARY_STRATEGY = 128 };

/* The options of answers; `strategy` takes the name that they point to. */
ef_options library_options(const CommonOptions *o, char strategy[LIBRARY_STRATEGY]);

/* ---- For --show, which looks inside. ---- */

/* A session over an open model, as ShowJob takes it: borrowed, never closed. */
Session library_session(const ef_model *model);

/* The tokens of images: blocks[i] of *tokens are image i's; the model's, until the next call. */
int library_see(ef_model *model, ef_image *const *images, int count, int *blocks, Tensor *tokens,
                Timings *timings, Error *err);

#endif
