/* feed.h - pictures on their way: a thread that reads, decodes and crops the next batch's
 * pictures while this one's questions are answered. */
#ifndef EASYFIRST_APPS_EVAL_FEED_H
#define EASYFIRST_APPS_EVAL_FEED_H

#include <stdint.h>

#include "vision/preprocess.h"

/* One picture, cropped to the square that the vision tower reads (preprocess_crop; cropping it once
 * more changes nothing). */
typedef struct EvalPicture {
    Image image;
    int width, height; /* of the file */
    Error bad;         /* why it cannot be used; else its text is empty */
} EvalPicture;

typedef struct EvalFeedConfig {
    const char *folder;
    const char *const *names; /* [count] files below it */
    const int64_t *ends;      /* [batches]: batch b has the names [ends[b - 1], ends[b]) */
    int64_t batches;
    PreprocessConfig preprocess;
    int threads; /* that decode pictures */
} EvalFeedConfig;

typedef struct EvalFeed EvalFeed;

/* Starts the thread. *feed is NULL on failure. The configuration's pointers must outlive it. */
int eval_feed_open(EvalFeed **feed, const EvalFeedConfig *config, Error *err);
void eval_feed_close(EvalFeed *feed); /* NULL is allowed; stops the thread */

/* The pictures of the next batch, waiting for them; [count], the caller's: eval_pictures_free. */
int eval_feed_next(EvalFeed *feed, EvalPicture **pictures, Error *err);
void eval_pictures_free(EvalPicture *pictures, int64_t count);

#endif
