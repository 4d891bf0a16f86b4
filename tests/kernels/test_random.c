/* Philox against its published test vectors, and the properties of the derived numbers. The other
 * constants were computed by tests/reference/decode_reference.py. */
#include <math.h>

#include "kernels/random.h"
#include "tests/test.h"

static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, /* the digits of pi */
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint32_t out[4];
        random_philox(out, vectors[i].counter, vectors[i].key);
        assert_memory_equal(out, vectors[i].expected, sizeof out);
    }
}

static void uniform_is_a_word_of_a_block(void **state) {
    (void)state;
    uint64_t seed = 0x0123456789abcdef, stream = 0xfedcba9876543210;
    static const double first[] = {0.6833904961822554, 0.9633079358609393, 0.2379649254726246,
                                   0.5379385488340631, 0.9225265755085275, 0.2751768542220816};
    for (uint64_t i = 0; i < 6; i++) assert_true(random_uniform(seed, stream, i) == first[i]);
    /* An index above 32 bits reaches the counter's second word. */
    uint64_t index = (UINT64_C(1) << 34) + 3;
    assert_true(random_uniform(seed, stream, index) == (253662316 + 0.5) / 4294967296.0);
}

static void uniform_is_uniform(void **state) {
    (void)state;
    enum { COUNT = 200000, BINS = 64 };
    int bins[BINS] = {0};
    double sum = 0, squares = 0, matmul = 0, last = 0.5;
    for (int i = 0; i < COUNT; i++) {
        double u = random_uniform(42, 7, (uint64_t)i);
        assert_true(u > 0 && u < 1);
        bins[(int)(u * BINS)]++;
        sum += u, squares += u * u, matmul += (u - 0.5) * (last - 0.5);
        last = u;
    }
    double chi = 0, expected = (double)COUNT / BINS;
    for (int i = 0; i < BINS; i++) chi += (bins[i] - expected) * (bins[i] - expected) / expected;
    /* 63 degrees of freedom: 99.99 % lie below 113. The other limits are 4 standard deviations. */
    assert_true(chi < 113);
    assert_true(fabs(sum / COUNT - 0.5) < 4 * sqrt(1.0 / 12 / COUNT));
    assert_true(fabs(squares / COUNT - 1.0 / 3) < 4 * sqrt(4.0 / 45 / COUNT));
    assert_true(fabs(matmul / COUNT) < 4 * 1.0 / 12 / sqrt(COUNT));
}

static void gumbel_draws_from_a_softmax(void **state) {
    (void)state;
    static const double known[] = {-0.6428228738520375, 1.5114907682982177, -0.4957116259886132};
    uint64_t stream = random_stream(8, 0, 1, 1);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(fabs(random_gumbel(7, stream, i) - known[i]) < 1e-12);

    static const double probability[] = {0.1, 0.2, 0.7};
    enum { DRAWS = 40000 };
    int counts[3] = {0};
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        int best = 0;
        double most = -INFINITY;
        for (int v = 0; v < 3; v++) {
            double z = log(probability[v]) + random_gumbel(1, 2, 3 * draw + (uint64_t)v);
            if (z > most) most = z, best = v;
        }
        counts[best]++;
    }
    for (int v = 0; v < 3; v++) {
        double p = probability[v];
        assert_true(fabs((double)counts[v] / DRAWS - p) < 4 * sqrt(p * (1 - p) / DRAWS));
    }
}

static int compare_words(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void streams_differ(void **state) {
    (void)state;
    assert_true(random_stream(0, 0, 0, 0) == UINT64_C(0x2130748aaac80268));
    assert_true(random_stream(8, 0, 1, 0) == UINT64_C(0xd8616aaa788dc2b5));
    assert_true(random_stream(13, 2, 50, 2) == UINT64_C(0x78a62b187ca37ca2));
    enum { SIDE = 16, COUNT = SIDE * SIDE * SIDE * 3 };
    uint64_t *all = malloc(COUNT * sizeof *all);
    assert_non_null(all);
    size_t used = 0;
    for (uint64_t a = 0; a < SIDE; a++)
        for (uint64_t b = 0; b < SIDE; b++)
            for (uint64_t c = 0; c < SIDE; c++)
                for (uint64_t d = 0; d < 3; d++) all[used++] = random_stream(a, b, c, d);
    qsort(all, used, sizeof *all, compare_words);
    for (size_t i = 1; i < used; i++) assert_true(all[i] != all[i - 1]);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers), cmocka_unit_test(uniform_is_a_word_of_a_block),
        cmocka_unit_test(uniform_is_uniform),   cmocka_unit_test(gumbel_draws_from_a_softmax),
        cmocka_unit_test(streams_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
