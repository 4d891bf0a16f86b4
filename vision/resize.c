#include "vision/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Both passes are sums of weight * sample in fixed point. All are taken modulo 2^32 in unsigned
 * arithmetic: the true sums fit 32 bits with sign, so the order of adding, and what is added
 * beforehand for the empty parts of a canvas, make no difference to a single bit. */
enum { FRACTION_BITS = 22, HALF = 1 << (FRACTION_BITS - 1) };

/* The horizontal pass takes eight taps at a time (see taps_sum). */
enum { TAPS = 8 };

/* The weights of outputs [from, from + count) of one direction. Output i sums the `length[i]`
 * samples from `first[i]` on, counted from the picture's first sample, not the canvas's. What the
 * rest of its window, which sees the empty canvas, weighs is in `outside[i]`. */
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

/* Keys' cubic with a = -1/2. The order of operations is Pillow's: other orders round otherwise. */
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

/* One direction: `length` samples of the picture lie at `start` on a canvas of `canvas` samples,
 * which is resized to `size` samples; wanted are the outputs [from, from + count). */
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
        /* Pillow rounds by cutting off the fraction of x + 0.5, towards zero for negative x too. */
        int64_t begin = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
        if (begin < 0) begin = 0;
        if (end > canvas) end = canvas;
        double sum = 0;
        for (int64_t x = begin; x < end; x++)
            sum += window[x - begin] = cubic(((double)x - centre + 0.5) * shrink);
        /* The part of the window that sees the picture; an empty one lies at the picture's begin or
         * end, so that both ends of the windows only ever move forward. */
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

/* The horizontal weights as row_resample reads them, and the sums to start from. */
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

/* The SSE2 multiplication that adds products in pairs, pmaddwd, wants factors of 16 bits. A weight
 * needs 24, so it is split: weight = upper * 4096 + lower with 0 <= lower < 4096. Of each group of
 * eight taps, tap t is paired with tap t + 4; see taps_sum for why. */
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

enum { GROUP_READ = 28 }; /* bytes that a group of eight pixels is read with */

/* Sums of weight * sample over `groups` groups of eight RGB pixels, added to sum[3].
 *
 * Pixels 0..3 of a group are 12 bytes, r0 g0 b0 r1 ... b3, and so are pixels 4..7. Interleaving the
 * two gives r0 r4 g0 g4 b0 b4 r1 r5 | g1 g5 b1 b5 r2 r6 g2 g6 | b2 b6 r3 r7 g3 g7 b3 b7: three
 * vectors of four pairs, each pair of one channel and with no lane wasted, so that pmaddwd sums
 * pairs without taking the channels apart. With the weights' pairs in the order (0 4) (1 5) (2 6)
 * (3 7), the vectors need the pairs 0 0 0 1, 1 1 2 2 and 2 3 3 3. */
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

/* The horizontal pass over one row of the picture: out [count, 3]. `end` is the end of all pixels.
 * A window's last group may reach beyond the window, where the weights are zero, and into the next
 * row, but must not reach beyond the end. */
static void row_resample(uint8_t *out, const uint8_t *row, const uint8_t *end, const RowPlan *p) {
    const Weights *w = p->weights;
    for (int i = 0; i < w->count; i++) {
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

/* Both passes, with one row of the picture at a time: it is resampled horizontally and then added,
 * with its weight, to all output rows whose vertical window it is in (some four of them when
 * shrinking). So memory does not grow with the picture. */
static void resample(Image *out, const Image *in, const RowPlan *p, const Weights *vertical,
                     const uint8_t colour[3], uint32_t *sums, uint8_t *row) {
    const Weights *horizontal = p->weights;
    const int64_t row_samples = (int64_t)out->width * 3;
    /* What a canvas row above or below the picture gives in the horizontal pass. */
    for (int i = 0; i < horizontal->count; i++) {
        uint32_t weight = (uint32_t)horizontal->outside[i];
        for (int t = 0; t < horizontal->length[i]; t++)
            weight += (uint32_t)horizontal->taps[(int64_t)i * horizontal->stride + t];
        for (int c = 0; c < 3; c++) row[i * 3 + c] = sample_round(HALF + weight * colour[c]);
    }
    for (int i = 0; i < vertical->count; i++)
        for (int64_t x = 0; x < row_samples; x++)
            sums[i * row_samples + x] = HALF + (uint32_t)vertical->outside[i] * row[x];

    /* Windows begin and end in the order of their outputs, so the outputs that a row contributes
     * to are a range that only moves forward. */
    const uint8_t *end = in->pixels + (int64_t)in->width * in->height * 3;
    int64_t y = vertical->first[0];
    for (int low = 0, high = 0; low < vertical->count; y++) {
        while (low < vertical->count && vertical->first[low] + vertical->length[low] <= y) low++;
        if (high < low) high = low;
        while (high < vertical->count && vertical->first[high] <= y) high++;
        if (low == high) continue;
        row_resample(row, in->pixels + y * in->width * 3, end, p);
        for (int i = low; i < high; i++) {
            uint32_t weight =
                (uint32_t)vertical->taps[(int64_t)i * vertical->stride + y - vertical->first[i]];
            uint32_t *sum = sums + i * row_samples;
            for (int64_t x = 0; x < row_samples; x++) sum[x] += weight * row[x];
        }
    }
    for (int64_t i = 0; i < row_samples * out->height; i++) out->pixels[i] = sample_round(sums[i]);
}

int image_resize_on_canvas(Image *out, const Image *in, const Canvas *canvas, int width, int height,
                           int left, int top, int crop_width, int crop_height, Error *err) {
    *out = (Image){0};
    if (!in->pixels || in->width < 1 || in->height < 1)
        return error_set(err, "cannot resize an empty picture");
    if (width < 1 || height < 1 || crop_width < 1 || crop_height < 1 || left < 0 || top < 0 ||
        left > width - crop_width || top > height - crop_height)
        return error_set(err, "cannot cut %dx%d pixels at (%d, %d) out of a picture of %dx%d",
                         crop_width, crop_height, left, top, width, height);
    if (canvas->left < 0 || canvas->top < 0 || canvas->left > canvas->width - in->width ||
        canvas->top > canvas->height - in->height)
        return error_set(err, "a picture of %dx%d pixels at (%d, %d) does not fit on %dx%d",
                         in->width, in->height, canvas->left, canvas->top, canvas->width,
                         canvas->height);

    Weights horizontal = {0}, vertical = {0};
    RowPlan plan = {0};
    size_t samples = (size_t)crop_width * (size_t)crop_height * 3;
    uint32_t *sums = malloc(samples * sizeof *sums);
    uint8_t *row = malloc((size_t)crop_width * 3);
    *out = (Image){crop_width, crop_height, malloc(samples)};
    int result = -1;
    if (sums && row && out->pixels &&
        weights_make(&horizontal, canvas->width, canvas->left, in->width, width, left,
                     crop_width) == 0 &&
        weights_make(&vertical, canvas->height, canvas->top, in->height, height, top,
                     crop_height) == 0 &&
        row_plan_make(&plan, &horizontal, canvas->colour) == 0) {
        resample(out, in, &plan, &vertical, canvas->colour, sums, row);
        result = 0;
    } else {
        image_free(out);
        error_set(err, "not enough memory to resize %dx%d pixels to %dx%d", in->width, in->height,
                  width, height);
    }
    row_plan_free(&plan);
    weights_free(&vertical);
    weights_free(&horizontal);
    free(row);
    free(sums);
    return result;
}

int image_resize_bicubic(Image *out, const Image *in, int width, int height, int left, int top,
                         int crop_width, int crop_height, Error *err) {
    const Canvas whole = {.width = in->width, .height = in->height};
    return image_resize_on_canvas(out, in, &whole, width, height, left, top, crop_width,
                                  crop_height, err);
}
