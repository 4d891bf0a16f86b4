/* feature_cache.h - features of a frozen vision tower on disk, so that later epochs and runs neither
 * decode nor encode their images again.
 *
 * One file: a header, which names the tower (its weights, the preprocessing) and the type and shape
 * of an image's features, then records of one size: the image's key (of its path, size and time of
 * change), a hash of the features, the features. Records are only ever added, each by one write; one
 * that an interruption left incomplete is cut off when the file is opened, one that is damaged is
 * not used. A file made with another tower is refused.
 */
#ifndef EASYFIRST_APPS_TRAIN_FEATURE_CACHE_H
#define EASYFIRST_APPS_TRAIN_FEATURE_CACHE_H

#include "projector/model.h"

enum { FEATURE_KEY = 64 }; /* hexadecimal digits, without a terminating 0 */

typedef struct FeatureCache FeatureCache;

/* For the vision tower of this model, whose weights need not be prepared yet. The file is made if it
 * does not exist, and is this process's until it is closed: another one's is an error. */
int feature_cache_open(FeatureCache **cache, const char *path, const Model *model, Dtype dtype,
                       Error *err);
void feature_cache_close(FeatureCache *cache); /* NULL is allowed */

Dtype feature_cache_dtype(const FeatureCache *cache);
size_t feature_cache_bytes(const FeatureCache *cache); /* of an image's features */

/* The key of an image file as it is now; false if there is no such file. */
bool feature_cache_key(char key[FEATURE_KEY], const char *path);

/* Whether the features are there; `features` then has them. From any thread. */
bool feature_cache_read(FeatureCache *cache, const char key[FEATURE_KEY], void *features);

/* Adds an image's features, unless they are there. Where nothing more can be written (a full disk),
 * nothing more is added, which is no error: feature_cache_problem. */
void feature_cache_add(FeatureCache *cache, const char key[FEATURE_KEY], const void *features);

int64_t feature_cache_count(const FeatureCache *cache);       /* images in it */
int64_t feature_cache_damaged(const FeatureCache *cache);     /* records that could not be used */
const char *feature_cache_problem(const FeatureCache *cache); /* why nothing is added; NULL */

#endif
