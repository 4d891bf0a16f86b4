#include "data/metrics/references.h"

#include <limits.h>
#include <stdlib.h>

void references_free(References *r) {
    free(r->texts), free(r->begins);
    *r = (References){0};
}

static int references_begin(References *r, int64_t count, size_t texts, Error *err) {
    *r = (References){.count = count};
    if (count < 0 || texts > INT_MAX)
        return error_set(err, "%zu references are more than can be compared", texts);
    r->texts = calloc(texts + 1, sizeof *r->texts);
    r->begins = calloc((size_t)count + 1, sizeof *r->begins);
    if (r->texts && r->begins) return 0;
    references_free(r);
    return error_set(err, "out of memory for %zu references", texts);
}

int references_from_columns(References *r, const char *const *const *columns, int column_count,
                            int64_t count, Error *err) {
    size_t texts = 0, used = 0;
    for (int c = 0; c < column_count; c++)
        for (int64_t i = 0; i < count; i++) texts += columns[c][i] != NULL;
    TRY(references_begin(r, count, texts, err));
    for (int64_t i = 0; i < count; i++) {
        for (int c = 0; c < column_count; c++)
            if (columns[c][i]) r->texts[used++] = columns[c][i];
        r->begins[i + 1] = used;
    }
    return 0;
}

int references_join(References *r, const References *const *parts, int part_count, Error *err) {
    size_t texts = 0, used = 0;
    int64_t count = part_count ? parts[0]->count : 0;
    for (int p = 0; p < part_count; p++) texts += parts[p]->begins[count];
    TRY(references_begin(r, count, texts, err));
    for (int64_t i = 0; i < count; i++) {
        for (int p = 0; p < part_count; p++) {
            const char *const *of;
            int n = references_of(parts[p], i, &of);
            for (int k = 0; k < n; k++) r->texts[used++] = of[k];
        }
        r->begins[i + 1] = used;
    }
    return 0;
}
