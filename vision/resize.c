#include "vision/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Both passes are sums of weight * sample in fixed point. All are modulo 2^32 in unsigned
 * arithmetic: the true sums fit signed 32 bits, so the result is exact in any order, also with the
 * sums for the empty parts of a canvas added first. */
enum { FRACTION_BITS = 22, HALF = 1 << (FRACTION_BITS - 1) };

/* The horizontal pass takes eight taps at a time (see taps_sum). */
enum { TAPS = 8 };

/* The weights of outputs [from, from + count) of one direction. Output i sums the `length[i]`
 * samples from `first[i]` on, counted from the image's first sample, not the canvas's. `outside[i]`
 * is the weight of the rest of its window, over the empty canvas. */
typedef struct Weights {
    int count;
    int stride; /* of `taps`: the longest window, rounded up to whole groups of TAPS */
    int *first;
    int *length;
    int32_t *outside;
    int32_t *taps; /* [count, stride], zero beyond a window's length */
} Weights;

static void weights_free(Weights *w) {
    free(w->first);
    free(w->length);
    free(w->outside);
    free(w->taps);
    *w = (Weights){0};
}

/* Keys' cubic with a = -1/2. The order of operations is Pillow's: others round differently. */
static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

static int32_t fixed_point(double weight) {
    double v = weight * (1 << FRACTION_BITS);
    return (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
}

/* One direction: `length` samples of the image lie at `start` on a canvas of `canvas` samples,
 * which is resized to `size` samples; computes the weights of outputs [from, from + count). */
static int weights_make(Weights *w, int canvas, int start, int length, int size, int from,
                        int count) {
    *w = (Weights){.count = count};
    const double scale = (double)canvas / size;
    const double stretch = scale < 1 ? 1 : scale, shrink = 1 / stretch, support = 2 * stretch;
    int64_t longest = (int64_t)ceil(support) * 2 + 1;
    int64_t inside = longest < length ? longest : length;
    if (longest > canvas) longest = canvas;
    w->stride = (int)((inside + TAPS - 1) / TAPS * TAPS);
    w->first = malloc((size_t)count * sizeof *w->first);
    w->length = malloc((size_t)count * sizeof *w->length);
    w->outside = malloc((size_t)count * sizeof *w->outside);
    w->taps = calloc((size_t)count * (size_t)w->stride, sizeof *w->taps);
    double *window = malloc((size_t)longest * sizeof *window);
    if (!w->first || !w->length || !w->outside || !w->taps || !window) {
        free(window);
        weights_free(w);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        const double centre = ((int64_t)from + i + 0.5) * scale;
        /* Pillow rounds by truncating x + 0.5, towards zero for negative x too. */
        int64_t begin = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
        if (begin < 0) begin = 0;
        if (end > canvas) end = canvas;
        double sum = 0;
        for (int64_t x = begin; x < end; x++)
            sum += window[x - begin] = cubic(((double)x - centre + 0.5) * shrink);
        /* The part of the window over the image; an empty one is at the image's begin or end, so
         * that both ends of the windows are monotonic. */
        int64_t low = clamp(begin, start, (int64_t)start + length);
        int64_t high = clamp(end, start, (int64_t)start + length);
        w->first[i] = (int)(low - start);
        w->length[i] = (int)(high - low);
        uint32_t outside = 0;
        for (int64_t x = begin; x < end; x++) {
            int32_t weight = fixed_point(sum != 0 ? window[x - begin] / sum : window[x - begin]);
            if (x >= low && x < high)
                w->taps[(int64_t)i * w->stride + (x - low)] = weight;
            else
                outside += (uint32_t)weight;
        }
        w->outside[i] = (int32_t)outside;
    }
    free(window);
    return 0;
}

static uint8_t sample_round(uint32_t sum) {
    int32_t v = (int32_t)sum >> FRACTION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* The horizontal weights as row_resample reads them, and the initial sums. */
typedef struct RowPlan {
    const Weights *weights;
    uint32_t *base;   /* [count, 3]: one half, for rounding, plus what the canvas contributes */
    int16_t *halves;  /* [count, stride / TAPS, 2, TAPS], see below */
    uint8_t *scratch; /* a copy of one window, for windows too near to the end of the pixels */
} RowPlan;

static void row_plan_free(RowPlan *p) {
    free(p->base);
    free(p->halves);
    free(p->scratch);
    *p = (RowPlan){0};
}

/* SSE2's pmaddwd, which adds products in pairs, needs factors of 16 bits. A weight needs 24, so it
 * is split: weight = upper * 4096 + lower with 0 <= lower < 4096. Of each group of eight taps, tap
 * t is paired with tap t + 4; see taps_sum for why. */
static int row_plan_make(RowPlan *p, const Weights *w, const uint8_t colour[3]) {
    *p = (RowPlan){.weights = w};
    size_t count = (size_t)w->count, groups = (size_t)w->stride / TAPS;
    p->base = malloc(count * 3 * sizeof *p->base);
    p->halves = malloc(count * groups * 2 * TAPS * sizeof *p->halves);
    p->scratch = calloc((size_t)w->stride * 3 + TAPS, 1);
    if (!p->base || !p->halves || !p->scratch) {
        row_plan_free(p);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        for (int c = 0; c < 3; c++)
            p->base[i * 3 + (size_t)c] = HALF + (uint32_t)w->outside[i] * colour[c];
        for (size_t g = 0; g < groups; g++) {
            const int32_t *taps = w->taps + (i * groups + g) * TAPS;
            int16_t *upper = p->halves + (i * groups + g) * 2 * TAPS, *lower = upper + TAPS;
            for (int t = 0; t < TAPS; t++) {
                int at = t % 4 * 2 + t / 4;
                upper[at] = (int16_t)(taps[t] >> 12);
                lower[at] = (int16_t)(taps[t] & 4095);
            }
        }
    }
    return 0;
}

#ifdef __SSE2__

enum { GROUP_READ = 28 }; /* bytes read for a group of eight pixels */

/* Sums of weight * sample over `groups` groups of eight RGB pixels, added to sum[3].
 *
 * Pixels 0..3 of a group are 12 bytes, r0 g0 b0 r1 ... b3, and so are pixels 4..7. Interleaving the
 * two gives r0 r4 g0 g4 b0 b4 r1 r5 | g1 g5 b1 b5 r2 r6 g2 g6 | b2 b6 r3 r7 g3 g7 b3 b7: three
 * vectors of four pairs, each pair of one channel and with no lane wasted, so that pmaddwd sums
 * pairs without separating the channels. With the weights' pairs in the order (0 4) (1 5) (2 6) (3
 * 7), the vectors need the pairs 0 0 0 1, 1 1 2 2 and 2 3 3 3. */
static inline void taps_sum(uint32_t sum[3], const uint8_t *pixels, const int16_t *halves,
                            int groups) {
    const __m128i zero = _mm_setzero_si128();
    __m128i upper0 = zero, upper1 = zero, upper2 = zero, lower0 = zero, lower1 = zero,
            lower2 = zero;
    for (int g = 0; g < groups; g++, pixels += TAPS * 3, halves += 2 * TAPS) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)pixels);
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(pixels + 12));
        __m128i ab = _mm_unpacklo_epi8(a, b);
        __m128i s0 = _mm_unpacklo_epi8(ab, zero), s1 = _mm_unpackhi_epi8(ab, zero);
        __m128i s2 = _mm_unpacklo_epi8(_mm_unpackhi_epi8(a, b), zero);
        __m128i u = _mm_loadu_si128((const __m128i *)(const void *)halves);
        __m128i l = _mm_loadu_si128((const __m128i *)(const void *)(halves + TAPS));
#define PAIRS(v, p, q, r, s) _mm_shuffle_epi32(v, _MM_SHUFFLE(s, r, q, p))
        upper0 = _mm_add_epi32(upper0, _mm_madd_epi16(s0, PAIRS(u, 0, 0, 0, 1)));
        upper1 = _mm_add_epi32(upper1, _mm_madd_epi16(s1, PAIRS(u, 1, 1, 2, 2)));
        upper2 = _mm_add_epi32(upper2, _mm_madd_epi16(s2, PAIRS(u, 2, 3, 3, 3)));
        lower0 = _mm_add_epi32(lower0, _mm_madd_epi16(s0, PAIRS(l, 0, 0, 0, 1)));
        lower1 = _mm_add_epi32(lower1, _mm_madd_epi16(s1, PAIRS(l, 1, 1, 2, 2)));
        lower2 = _mm_add_epi32(lower2, _mm_madd_epi16(s2, PAIRS(l, 2, 3, 3, 3)));
#undef PAIRS
    }
    uint32_t lane[12];
    _mm_storeu_si128((__m128i *)(void *)lane, _mm_add_epi32(_mm_slli_epi32(upper0, 12), lower0));
    _mm_storeu_si128((__m128i *)(void *)(lane + 4),
                     _mm_add_epi32(_mm_slli_epi32(upper1, 12), lower1));
    _mm_storeu_si128((__m128i *)(void *)(lane + 8),
                     _mm_add_epi32(_mm_slli_epi32(upper2, 12), lower2));
    for (int c = 0; c < 3; c++) sum[c] += lane[c] + lane[c + 3] + lane[c + 6] + lane[c + 9];
}

#else

enum { GROUP_READ = TAPS * 3 };

/* The same in plain C, from the same tables. */
static inline void taps_sum(uint32_t sum[3], const uint8_t *pixels, const int16_t *halves,
                            int groups) {
    for (int g = 0; g < groups; g++, halves += 2 * TAPS)
        for (int t = 0; t < TAPS; t++, pixels += 3) {
            int at = t % 4 * 2 + t / 4;
            uint32_t weight = (uint32_t)(halves[at] * 4096 + halves[TAPS + at]);
            for (int c = 0; c < 3; c++) sum[c] += weight * pixels[c];
        }
}

#endif

/* The horizontal pass over one row of the image: outputs [low, high) of out [count, 3]. A window's
 * last group may reach beyond the window, where the weights are zero, but must not reach beyond the
 * row's end. */
static void row_resample(uint8_t *out, const uint8_t *row, const uint8_t *end, const RowPlan *p,
                         int low, int high) {
    const Weights *w = p->weights;
    for (int i = low; i < high; i++) {
        uint32_t sum[3] = {p->base[i * 3], p->base[i * 3 + 1], p->base[i * 3 + 2]};
        int groups = (w->length[i] + TAPS - 1) / TAPS;
        if (groups > 0) {
            const uint8_t *window = row + (int64_t)w->first[i] * 3;
            if (end - window < ((int64_t)groups - 1) * TAPS * 3 + GROUP_READ) {
                memcpy(p->scratch, window, (size_t)w->length[i] * 3);
                window = p->scratch;
            }
            taps_sum(sum, window, p->halves + (int64_t)i * w->stride * 2, groups);
        }
        for (int c = 0; c < 3; c++) out[i * 3 + c] = sample_round(sum[c]);
    }
}

/* The outputs [*low, *high) whose windows contain sample `at`. Windows begin and end in the order
 * of their outputs. */
static void weights_range(const Weights *w, int64_t at, int *low, int *high) {
    int begin = 0, end = w->count;
    while (begin < end) {
        int middle = begin + (end - begin) / 2;
        if ((int64_t)w->first[middle] + w->length[middle] > at)
            end = middle;
        else
            begin = middle + 1;
    }
    *low = begin;
    end = w->count;
    while (begin < end) {
        int middle = begin + (end - begin) / 2;
        if (w->first[middle] > at)
            end = middle;
        else
            begin = middle + 1;
    }
    *high = begin;
}

/* Both passes, with one row of the image at a time: it is resampled horizontally and then added,
 * with its weight, to all output rows whose vertical window it is in (some four of them when
 * shrinking). So memory is independent of the image's size.
 *
 * With columns the horizontal pass is accumulated first: `columns` holds its sums so far, for its
 * outputs [low, high) and the rows [top, bottom) that the vertical pass needs. */
struct Resampler {
    Weights horizontal, vertical;
    RowPlan plan;
    int in_width, width, height;
    int low, high;     /* the horizontal outputs whose windows overlap the image */
    uint32_t *sums;    /* [height, width, 3] */
    uint8_t *row;      /* [width, 3] */
    uint32_t *columns; /* [high - low, bottom - top, 3]; NULL for rows */
    int64_t top, bottom;
    uint8_t *pixels; /* [height, width, 3] */
};

void resampler_free(Resampler *r) {
    if (!r) return;
    row_plan_free(&r->plan);
    weights_free(&r->vertical);
    weights_free(&r->horizontal);
    free(r->sums);
    free(r->row);
    free(r->columns);
    free(r->pixels);
    free(r);
}

static uint32_t sum_of_taps(const Weights *w, int output) {
    uint32_t sum = 0;
    for (int t = 0; t < w->length[output]; t++)
        sum += (uint32_t)w->taps[(int64_t)output * w->stride + t];
    return sum;
}

/* The initial sums of the vertical pass: one half, for rounding, plus the canvas's contribution:
 * its rows above and below the image and its columns at the sides. */
static void sums_start(Resampler *r, const uint8_t colour[3]) {
    const Weights *horizontal = &r->horizontal, *vertical = &r->vertical;
    const int64_t row_samples = (int64_t)r->width * 3;
    r->low = 0, r->high = horizontal->count;
    while (r->low < r->high && horizontal->length[r->low] == 0) r->low++;
    while (r->high > r->low && horizontal->length[r->high - 1] == 0) r->high--;
    for (int i = 0; i < horizontal->count; i++) {
        uint32_t weight = (uint32_t)horizontal->outside[i] + sum_of_taps(horizontal, i);
        for (int c = 0; c < 3; c++) r->row[i * 3 + c] = sample_round(HALF + weight * colour[c]);
    }
    for (int i = 0; i < vertical->count; i++) {
        uint32_t outside = (uint32_t)vertical->outside[i], all = outside + sum_of_taps(vertical, i);
        for (int64_t x = 0; x < row_samples; x++) {
            bool sees_image = x >= r->low * 3 && x < r->high * 3;
            r->sums[i * row_samples + x] = HALF + (sees_image ? outside : all) * r->row[x];
        }
    }
}

static int resampler_check(const Canvas *canvas, int in_width, int in_height, int width, int height,
                           int left, int top, int crop_width, int crop_height, Error *err) {
    if (in_width < 1 || in_height < 1) return error_set(err, "cannot resize an empty image");
    if (width < 1 || height < 1 || crop_width < 1 || crop_height < 1 || left < 0 || top < 0 ||
        left > width - crop_width || top > height - crop_height)
        return error_set(err, "cannot cut %dx%d pixels at (%d, %d) out of an image of %dx%d",
                         crop_width, crop_height, left, top, width, height);
    if (canvas->left < 0 || canvas->top < 0 || canvas->left > canvas->width - in_width ||
        canvas->top > canvas->height - in_height)
        return error_set(err, "an image of %dx%d pixels at (%d, %d) does not fit on %dx%d",
                         in_width, in_height, canvas->left, canvas->top, canvas->width,
                         canvas->height);
    return 0;
}

Resampler *resampler_new(const Canvas *canvas, int in_width, int in_height, int width, int height,
                         int left, int top, int crop_width, int crop_height, Error *err) {
    if (resampler_check(canvas, in_width, in_height, width, height, left, top, crop_width,
                        crop_height, err) != 0)
        return NULL;
    size_t samples = (size_t)crop_width * (size_t)crop_height * 3;
    Resampler *r = calloc(1, sizeof *r);
    if (r) {
        r->in_width = in_width, r->width = crop_width, r->height = crop_height;
        r->sums = malloc(samples * sizeof *r->sums);
        r->row = malloc((size_t)crop_width * 3);
        r->pixels = malloc(samples);
    }
    if (r && r->sums && r->row && r->pixels &&
        weights_make(&r->horizontal, canvas->width, canvas->left, in_width, width, left,
                     crop_width) == 0 &&
        weights_make(&r->vertical, canvas->height, canvas->top, in_height, height, top,
                     crop_height) == 0 &&
        row_plan_make(&r->plan, &r->horizontal, canvas->colour) == 0) {
        sums_start(r, canvas->colour);
        return r;
    }
    resampler_free(r);
    error_set(err, "not enough memory to resize %dx%d pixels to %dx%d", in_width, in_height, width,
              height);
    return NULL;
}

static void add_weighted(uint32_t *sum, const uint8_t *samples, int64_t count, uint32_t weight) {
    for (int64_t i = 0; i < count; i++) sum[i] += weight * samples[i];
}

static uint32_t tap_of(const Weights *w, int output, int64_t at) {
    return (uint32_t)w->taps[(int64_t)output * w->stride + at - w->first[output]];
}

/* Adds r->row, which is row y after the horizontal pass, to the outputs [low, high). */
static void vertical_add(Resampler *r, int64_t y, int low, int high) {
    const int64_t row_samples = (int64_t)r->width * 3, begin = (int64_t)r->low * 3;
    const int64_t count = (int64_t)(r->high - r->low) * 3;
    for (int i = low; i < high; i++)
        add_weighted(r->sums + i * row_samples + begin, r->row + begin, count,
                     tap_of(&r->vertical, i, y));
}

void resampler_row(Resampler *r, int y, const uint8_t *rgb) {
    int low, high;
    weights_range(&r->vertical, y, &low, &high);
    if (low >= high) return;
    row_resample(r->row, rgb, rgb + (int64_t)r->in_width * 3, &r->plan, r->low, r->high);
    vertical_add(r, y, low, high);
}

int resampler_use_columns(Resampler *r, Error *err) {
    const Weights *v = &r->vertical;
    r->top = v->first[0];
    r->bottom = (int64_t)v->first[v->count - 1] + v->length[v->count - 1];
    int64_t samples = (r->bottom - r->top) * 3;
    r->columns = malloc(((size_t)(r->high - r->low) * (size_t)samples + 1) * sizeof *r->columns);
    if (!r->columns)
        return error_set(err, "not enough memory to resize %dx%d pixels", r->in_width,
                         (int)(r->bottom - r->top));
    for (int i = r->low; i < r->high; i++)
        for (int64_t s = 0; s < samples; s++)
            r->columns[(i - r->low) * samples + s] = r->plan.base[(int64_t)i * 3 + s % 3];
    return 0;
}

void resampler_column(Resampler *r, int x, const uint8_t *rgb) {
    const int64_t samples = (r->bottom - r->top) * 3;
    int low, high;
    weights_range(&r->horizontal, x, &low, &high);
    for (int i = low; i < high; i++)
        add_weighted(r->columns + (i - r->low) * samples, rgb + r->top * 3, samples,
                     tap_of(&r->horizontal, i, x));
}

/* The vertical pass, after all columns. */
static void columns_finish(Resampler *r) {
    const int64_t samples = (r->bottom - r->top) * 3;
    for (int64_t y = r->top; y < r->bottom; y++) {
        int low, high;
        weights_range(&r->vertical, y, &low, &high);
        for (int i = r->low; i < r->high; i++)
            for (int c = 0; c < 3; c++)
                r->row[i * 3 + c] =
                    sample_round(r->columns[(i - r->low) * samples + (y - r->top) * 3 + c]);
        vertical_add(r, y, low, high);
    }
}

void resampler_finish(Resampler *r, Image *out) {
    if (r->columns) columns_finish(r);
    int64_t samples = (int64_t)r->width * r->height * 3;
    for (int64_t i = 0; i < samples; i++) r->pixels[i] = sample_round(r->sums[i]);
    *out = (Image){r->width, r->height, r->pixels};
    r->pixels = NULL;
}

int image_resize_on_canvas(Image *out, const Image *in, const Canvas *canvas, int width, int height,
                           int left, int top, int crop_width, int crop_height, Error *err) {
    *out = (Image){0};
    Resampler *r = resampler_new(canvas, in->pixels ? in->width : 0, in->height, width, height,
                                 left, top, crop_width, crop_height, err);
    if (!r) return -1;
    for (int y = 0; y < in->height; y++)
        resampler_row(r, y, in->pixels + (int64_t)y * in->width * 3);
    resampler_finish(r, out);
    resampler_free(r);
    return 0;
}

int image_resize_bicubic(Image *out, const Image *in, int width, int height, int left, int top,
                         int crop_width, int crop_height, Error *err) {
    const Canvas whole = {.width = in->width, .height = in->height};
    return image_resize_on_canvas(out, in, &whole, width, height, left, top, crop_width,
                                  crop_height, err);
}
