/* kv_cache.h - memory for the keys and values of a language model's blocks (KvCache in
 * kernels/block.h). Of a model that is spread over several ranks each has those of its own blocks.
 */
#ifndef EASYFIRST_LANGUAGE_KV_CACHE_H
#define EASYFIRST_LANGUAGE_KV_CACHE_H

#include "language/language.h"

/* `rows` rows, values undefined. After a failure the cache is empty. */
int kv_cache_open(KvCache *cache, const LanguageModel *model, Device *device, int64_t rows,
                  Error *err);
void kv_cache_close(KvCache *cache, const LanguageModel *model, Device *device);

/* Copies rows [from_row, from_row + count) of a cache to another one, or within it. */
int kv_cache_copy(const KvCache *to, int64_t to_row, const KvCache *from, int64_t from_row,
                  int64_t count, const LanguageModel *model, Device *device, Error *err);

#endif
