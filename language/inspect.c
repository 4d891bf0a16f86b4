#include "language/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys shared by several sequences, such as an image's, are copied from the device once. */
typedef struct KeyRange {
    int32_t begin, end; /* rows of the keys */
    int64_t offset;     /* rows before it in the copy */
} KeyRange;

struct InspectBuffers {
    KeyRange *ranges; /* [3 * capacity], the first range_count in use */
    int range_count;
    int (*of)[3];             /* [capacity]: the ranges of each sequence */
    int64_t q_rows, key_rows; /* of all sequences together, of all ranges together */
    void *memory;             /* device: f32 [q_rows, width] and [key_rows, key_width] */
    float *host;              /* the same, and once more the keys, transposed range by range */
    int64_t device_size, host_size, score_size; /* in values */
    double *weights; /* [score_size]: of one row and head over its keys */
    float *scores;   /* [score_size] */
    double *sums;    /* [image_rows]: the weights of the image, over the heads */
};

int inspector_open(Inspector *inspector, Device *device, const BlockConfig *block, int layers,
                   int image_rows, int capacity, Error *err) {
    *inspector = (Inspector){.device = device,
                             .layers = layers,
                             .width = (int)block_query_width(block),
                             .key_width = (int)block_key_width(block),
                             .heads = block->heads,
                             .image_rows = image_rows,
                             .window = block->window,
                             .global_every = block->global_every,
                             .scale = 1 / sqrt((double)block_head_width(block)),
                             .capacity = capacity};
    size_t n = (size_t)capacity;
    inspector->sequences = calloc(n + 1, sizeof *inspector->sequences);
    struct InspectBuffers *b = inspector->buffers = calloc(1, sizeof *b);
    if (b) {
        b->ranges = calloc(3 * n + 1, sizeof *b->ranges);
        b->of = calloc(n + 1, sizeof *b->of);
        b->sums = calloc((size_t)image_rows + 1, sizeof *b->sums);
    }
    if (inspector->sequences && b && b->ranges && b->of && b->sums) return 0;
    return error_set(err, "out of memory for inspecting %d sequences", capacity);
}

void inspector_close(Inspector *inspector) {
    struct InspectBuffers *b = inspector->buffers;
    if (b) {
        device_free(inspector->device, b->memory);
        free(b->ranges), free(b->of), free(b->host), free(b->weights), free(b->scores);
        free(b->sums);
    }
    free(b);
    free(inspector->sequences);
    *inspector = (Inspector){0};
}

/* ---- The setup of a batch. ---- */

static int range_find(struct InspectBuffers *b, int32_t begin, int32_t end) {
    int i = 0;
    while (i < b->range_count && (b->ranges[i].begin != begin || b->ranges[i].end != end)) i++;
    if (i < b->range_count) return i;
    b->ranges[b->range_count++] = (KeyRange){begin, end, b->key_rows};
    b->key_rows += end - begin;
    return i;
}

static int buffers_grow(Inspector *inspector, int64_t longest, Error *err) {
    struct InspectBuffers *b = inspector->buffers;
    int64_t keys = b->key_rows * inspector->key_width, size = b->q_rows * inspector->width + keys,
            all = size + keys;
    if (size > b->device_size) {
        device_free(inspector->device, b->memory);
        b->memory = NULL, b->device_size = 0;
        TRY(device_alloc(inspector->device, &b->memory, (size_t)size * sizeof(float), err));
        b->device_size = size;
    }
    if (all > b->host_size) {
        free(b->host);
        b->host_size = 0;
        b->host = malloc((size_t)all * sizeof *b->host);
        if (!b->host) return error_set(err, "out of memory for %lld keys", (long long)b->key_rows);
        b->host_size = all;
    }
    if (longest > b->score_size) {
        free(b->weights), free(b->scores);
        b->score_size = 0;
        b->weights = malloc((size_t)longest * sizeof *b->weights);
        b->scores = malloc((size_t)longest * sizeof *b->scores);
        if (!b->weights || !b->scores)
            return error_set(err, "out of memory for attention over %lld rows", (long long)longest);
        b->score_size = longest;
    }
    return 0;
}

/* Before the first layer: collects the key ranges, allocates memory for them and zeroes the
 * maps. */
static int inspect_begin(Inspector *inspector, Error *err) {
    struct InspectBuffers *b = inspector->buffers;
    b->range_count = 0;
    b->q_rows = b->key_rows = 0;
    int64_t longest = 0;
    size_t map = (size_t)inspector->image_rows * sizeof(float);
    for (int s = 0; s < inspector->count; s++) {
        const InspectSequence *sequence = &inspector->sequences[s];
        int64_t keys = 0;
        for (int i = 0; i < sequence->span->range_count; i++) {
            int32_t begin = sequence->span->range[i].begin, end = sequence->span->range[i].end;
            b->of[s][i] = range_find(b, begin, end);
            keys += end - begin;
        }
        if (keys > longest) longest = keys;
        b->q_rows += sequence->length;
        for (int i = 0; i < sequence->length; i++)
            if (sequence->rows[i].map) memset(sequence->rows[i].map, 0, map);
    }
    return buffers_grow(inspector, longest, err);
}

/* ---- One layer. ---- */

/* Copies queries and keys to the host as f32, and the keys also transposed, so that the scores of
 * adjacent keys are computed together. */
static int rows_fetch(const Inspector *inspector, Tensor q, Tensor k, Error *err) {
    const struct InspectBuffers *b = inspector->buffers;
    int64_t d = inspector->key_width, row = 0;
    const size_t queries = (size_t)(b->q_rows * inspector->width);
    Tensor all = tensor_2d(b->memory, DTYPE_F32, b->q_rows, inspector->width),
           all_keys = tensor_2d((float *)b->memory + queries, DTYPE_F32, b->key_rows, d);
    for (int s = 0; s < inspector->count; s++) {
        const InspectSequence *sequence = &inspector->sequences[s];
        TRY(convert_forward(inspector->device, tensor_rows(all, row, sequence->length),
                            tensor_rows(q, sequence->q_begin, sequence->length), err));
        row += sequence->length;
    }
    for (int i = 0; i < b->range_count; i++) {
        const KeyRange *r = &b->ranges[i];
        int64_t n = r->end - r->begin;
        TRY(convert_forward(inspector->device, tensor_rows(all_keys, r->offset, n),
                            tensor_rows(k, r->begin, n), err));
    }
    TRY(device_download(inspector->device, b->host, all.data,
                        tensor_bytes(all) + tensor_bytes(all_keys), err));
    const float *keys = b->host + queries;
    float *turned = b->host + queries + b->key_rows * d;
    for (int i = 0; i < b->range_count; i++) {
        const KeyRange *r = &b->ranges[i];
        int64_t n = r->end - r->begin;
        for (int64_t t = 0; t < n; t++)
            for (int64_t c = 0; c < d; c++)
                turned[r->offset * d + c * n + t] = keys[(r->offset + t) * d + c];
    }
    return 0;
}

/* scores[t] = q k[t], for `columns` columns; k is transposed, [columns, n]. */
static void range_scores(float *restrict scores, const float *restrict q, const float *restrict k,
                         int64_t columns, int64_t n) {
    memset(scores, 0, (size_t)n * sizeof *scores);
    for (int64_t c = 0; c < columns; c++)
        for (int64_t t = 0; t < n; t++) scores[t] += q[c] * k[c * n + t];
}

/* What row `row` of a sequence's answer attends to of `keys` keys, in a layer. */
static void keys_seen(const Inspector *inspector, int s, int row, int layer, int keys, int *first,
                      int *end) {
    const InspectSequence *sequence = &inspector->sequences[s];
    const BlockConfig block = {.window = inspector->window,
                               .global_every = inspector->global_every};
    AttentionSpan span = *sequence->span;
    if (block_is_local(&block, layer)) span.window = inspector->window;
    const int query = sequence->q_begin - span.q_begin + row;
    *first = attention_first(&span, keys, query), *end = attention_seen(&span, keys, query);
}

/* Adds one head's attention weights of one query to the sums of the image's rows. */
static int head_add(const Inspector *inspector, int s, int row, const float *q, int head, int layer,
                    Error *err) {
    const struct InspectBuffers *b = inspector->buffers;
    const InspectSequence *sequence = &inspector->sequences[s];
    const int64_t d = inspector->key_width, columns = inspector->width / inspector->heads;
    const float *turned = b->host + b->q_rows * inspector->width + b->key_rows * d;
    const int64_t key_head = head / (inspector->width / d); /* neighbors share keys */
    int64_t keys = 0, image = -1;
    for (int i = 0; i < sequence->span->range_count; i++) {
        const KeyRange *r = &b->ranges[b->of[s][i]];
        int64_t n = r->end - r->begin;
        range_scores(b->scores + keys, q + head * columns,
                     turned + r->offset * d + key_head * columns * n, columns, n);
        if (sequence->image >= r->begin && sequence->image < r->end)
            image = keys + sequence->image - r->begin;
        keys += n;
    }
    if (image < 0 || image + inspector->image_rows > keys)
        return error_set(err,
                         "the image's rows from %d on are not among those that row %d attends to",
                         sequence->image, sequence->q_begin);
    double most = -INFINITY, sum = 0;
    int first, end;
    keys_seen(inspector, s, row, layer, (int)keys, &first, &end);
    memset(b->weights, 0, (size_t)keys * sizeof *b->weights);
    for (int t = first; t < end; t++)
        if (b->scores[t] > most) most = b->scores[t];
    for (int t = first; t < end; t++)
        sum += b->weights[t] = exp(inspector->scale * (b->scores[t] - most));
    if (!(sum >= 1 && sum <= (double)keys)) /* the largest term is 1 */
        return error_set(err, "the attention of layer %d is not a number: the model is broken",
                         layer + 1);
    for (int i = 0; i < inspector->image_rows; i++) b->sums[i] += b->weights[image + i] / sum;
    return 0;
}

int inspector_layer(void *user, int layer, Tensor q, Tensor k, Error *err) {
    Inspector *inspector = user;
    const struct InspectBuffers *b = inspector->buffers;
    if (layer == 0) TRY(inspect_begin(inspector, err));
    if (!inspector->count) return 0;
    TRY(rows_fetch(inspector, q, k, err));
    const float *row = b->host;
    int n = inspector->image_rows;
    for (int s = 0; s < inspector->count; s++) {
        for (int i = 0; i < inspector->sequences[s].length; i++, row += inspector->width) {
            const InspectRow *out = &inspector->sequences[s].rows[i];
            if (!out->map && !out->layers) continue;
            memset(b->sums, 0, (size_t)n * sizeof *b->sums);
            for (int h = 0; h < inspector->heads; h++)
                TRY(head_add(inspector, s, i, row, h, layer, err));
            for (int p = 0; p < n; p++) {
                double mean = b->sums[p] / inspector->heads;
                if (out->map) out->map[p] += (float)(mean / inspector->layers);
                if (out->layers) out->layers[(int64_t)layer * n + p] = (float)mean;
            }
        }
    }
    return 0;
}

/* ---- Alternatives. ---- */

int top_k_choose(Proposal *out, int k, const float *logits, int32_t limit, int32_t banned,
                 Error *err) {
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < k; i++) out[i] = (Proposal){-1, -INFINITY};
    for (int32_t v = 0; v < limit; v++) {
        if (v == banned) continue;
        float logit = logits[v];
        if (isnan(logit) || logit == INFINITY)
            return error_set(err, "the logit of token %d is %g, a finite number expected", (int)v,
                             (double)logit);
        if (logit > most) most = logit;
        int at = k;
        while (at > 0 && (out[at - 1].token < 0 || logit > out[at - 1].score)) at--;
        if (at == k) continue;
        memmove(out + at + 1, out + at, (size_t)(k - 1 - at) * sizeof *out);
        out[at] = (Proposal){v, logit};
    }
    for (int32_t v = 0; v < limit; v++)
        if (v != banned) sum += exp(logits[v] - most);
    for (int i = 0; i < k && out[i].token >= 0; i++)
        out[i].score = (float)(out[i].score - most - log(sum));
    return 0;
}

void given_scores_take(double *scores, const int32_t *ids, int count, const float *logits,
                       int32_t limit, int32_t banned) {
    double most = -INFINITY, sum = 0;
    bool finite = true;
    for (int32_t v = 0; v < limit; v++) {
        if (v == banned) continue;
        finite &= !isnan(logits[v]) && logits[v] < INFINITY;
        if (logits[v] > most) most = logits[v];
    }
    for (int32_t v = 0; v < limit; v++)
        if (v != banned) sum += exp(logits[v] - most);
    double all = most + log(sum);
    for (int i = 0; i < count; i++) {
        bool possible = ids[i] >= 0 && ids[i] < limit && ids[i] != banned;
        scores[i] = !finite ? NAN : possible ? logits[ids[i]] - all : -INFINITY;
    }
}
