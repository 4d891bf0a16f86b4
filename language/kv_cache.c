#include "language/kv_cache.h"

#include <stdlib.h>

#include "language/spread.h"

int kv_cache_open(KvCache *cache, const LanguageModel *m, Device *device, int64_t rows,
                  Error *err) {
    const int layers = language_layers(m), own = m->spread ? spread_own(m->spread) : layers;
    const int first = m->spread ? spread_first(m->spread) : 0;
    const int64_t width = 2 * block_key_width(language_block(m));
    const Dtype compute = language_params(m)->compute;
    const size_t bytes = (size_t)(rows * width) * dtype_size(compute);
    *cache = (KvCache){.layer_count = layers, .rows = rows};
    cache->layers = calloc((size_t)layers, sizeof *cache->layers);
    int status = cache->layers ? 0 : error_set(err, "out of memory for %d layers", layers);
    if (status == 0 && own) status = device_alloc(device, &cache->memory, bytes * (size_t)own, err);
    for (int l = 0; l < own && status == 0; l++)
        cache->layers[first + l] =
            tensor_2d((char *)cache->memory + bytes * (size_t)l, compute, rows, width);
    if (status == 0 && m->spread) status = spread_cache_open(m->spread, cache, err);
    if (status) kv_cache_close(cache, m, device);
    return status;
}

void kv_cache_close(KvCache *cache, const LanguageModel *m, Device *device) {
    if (m->spread && cache->number) spread_cache_close(m->spread, cache);
    device_free(device, cache->memory);
    free(cache->layers);
    *cache = (KvCache){0};
}

int kv_cache_copy(const KvCache *to, int64_t to_row, const KvCache *from, int64_t from_row,
                  int64_t count, const LanguageModel *m, Device *device, Error *err) {
    if (!count) return 0;
    for (int l = 0; l < to->layer_count; l++) {
        if (!tensor_present(to->layers[l])) continue;
        TRY(convert_forward(device, tensor_rows(to->layers[l], to_row, count),
                            tensor_rows(from->layers[l], from_row, count), err));
    }
    return m->spread ? spread_cache_copy(m->spread, to, to_row, from, from_row, count, err) : 0;
}
