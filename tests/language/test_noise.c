/* The forward process: mask frequencies and loss weights. Seeds are fixed; a correct implementation
 * exceeds the limits once in about ten thousand seeds. */
#include <math.h>

#include "language/noise.h"
#include "tests/test.h"

enum { TIMESTEPS = 50, TOKENS = 20, DRAWS = 60000 };

/* |observed - n p| in standard deviations of a binomial count. */
static double deviations(double observed, double n, double p) {
    return n == 0 ? 0 : fabs(observed - n * p) / sqrt(n * p * (1 - p) + 1e-9);
}

typedef struct Counts {
    double draws, masked;
} Counts;

static void timesteps_are_uniform_and_rates_theirs(void **state) {
    (void)state;
    NoiseConfig config = noise_config_default();
    assert_int_equal(config.timesteps, TIMESTEPS);
    assert_int_equal(noise_copies(&config), 2);
    Counts at[2][TIMESTEPS + 1] = {0};
    double pairs = 0, matmul = 0;
    for (uint64_t stream = 0; stream < DRAWS; stream++) {
        bool masked[2 * TOKENS];
        NoiseDraw draw;
        noise_draw(&config, 11, stream, TOKENS, masked, &draw);
        for (int c = 0; c < 2; c++) {
            int t = (int)draw.t[c];
            assert_true(t >= 1 && t <= TIMESTEPS && t == draw.t[c]);
            assert_true(draw.weight[c] == TIMESTEPS - (t - 1));
            at[c][t].draws += TOKENS;
            for (int i = 0; i < TOKENS; i++) at[c][t].masked += masked[c * TOKENS + i];
        }
        pairs++, matmul += (draw.t[0] - 25.5) * (draw.t[1] - 25.5);
    }
    for (int c = 0; c < 2; c++) {
        double chi = 0, expected = (double)DRAWS / TIMESTEPS;
        for (int t = 1; t <= TIMESTEPS; t++) {
            double d = at[c][t].draws / TOKENS - expected;
            chi += d * d / expected;
            double off = deviations(at[c][t].masked, at[c][t].draws, (double)t / TIMESTEPS);
            if (!(off < 4.5)) fail_msg("copy %d, t = %d: %g deviations off", c, t, off);
        }
        if (!(chi < 91)) fail_msg("chi square of the timesteps %g", chi); /* 49 degrees: 99.98 % */
    }
    /* The variance of t is (T^2 - 1) / 12. */
    double variance = (TIMESTEPS * TIMESTEPS - 1) / 12.0;
    assert_true(fabs(matmul / pairs) < 4 * variance / sqrt(pairs));
}

static void copies_are_coupled(void **state) {
    (void)state;
    NoiseConfig config = noise_config_default();
    config.timesteps = 6; /* so that every pair of timesteps is frequent */
    double hi_count[7][7] = {0}, both[7][7] = {0}, tokens[7][7] = {0};
    for (uint64_t stream = 0; stream < DRAWS; stream++) {
        bool masked[2 * TOKENS];
        NoiseDraw draw;
        noise_draw(&config, 5, stream, TOKENS, masked, &draw);
        int a = (int)draw.t[0], b = (int)draw.t[1];
        const bool *hi = masked + (b > a ? TOKENS : 0), *lo = masked + (b > a ? 0 : TOKENS);
        for (int i = 0; i < TOKENS; i++) {
            if (a != b) assert_true(hi[i] || !lo[i]);
            tokens[a][b]++, hi_count[a][b] += hi[i], both[a][b] += hi[i] && lo[i];
        }
    }
    for (int a = 1; a <= 6; a++)
        for (int b = 1; b <= 6; b++) {
            /* Given the mask at hi: lo / hi. With equal timesteps the masks are independent: t /
             * T. */
            double rate = a == b ? a / 6.0 : (double)(a < b ? a : b) / (a < b ? b : a);
            double off = deviations(both[a][b], hi_count[a][b], rate);
            if (rate == 1) assert_true(both[a][b] == hi_count[a][b]);
            if (!(off < 4.5)) fail_msg("t = %d and %d: %g deviations off", a, b, off);
            assert_true(tokens[a][b] > 1000);
        }
}

/* E[weight masked / N] is the mean over t of w(t) t / T: (T + 1)(T + 2) / (6 T) for the linear
 * weights, (T + 1) / 2 for the constant ones, and 1 for LLaDA, whose loss is then as if every token
 * were masked once. */
static void expected_weights(void **state) {
    (void)state;
    static const double T = TIMESTEPS;
    NoiseConfig linear = noise_config_default(), constant = linear, llada = linear;
    constant.weighting = WEIGHTING_CONSTANT;
    llada.objective = OBJECTIVE_LLADA, llada.complementary = true, llada.eps = 0.05f;
    const NoiseConfig *configs[] = {&linear, &constant, &llada};
    const double expected[] = {(T + 1) * (T + 2) / (6 * T), (T + 1) / 2, 1};
    for (int k = 0; k < 3; k++)
        for (int c = 0; c < 2; c++) {
            double sum = 0, squares = 0;
            for (uint64_t stream = 0; stream < DRAWS; stream++) {
                bool masked[2 * TOKENS];
                NoiseDraw draw;
                int n = 0;
                noise_draw(configs[k], 3, stream, TOKENS, masked, &draw);
                for (int i = 0; i < TOKENS; i++) n += masked[c * TOKENS + i];
                double x = draw.weight[c] * n / TOKENS;
                sum += x, squares += x * x;
            }
            double mean = sum / DRAWS, error = sqrt((squares / DRAWS - mean * mean) / DRAWS);
            /* The complement's weight 1 / (1 - p) is almost unbounded, and so is its variance. */
            double limit = k == 2 && c == 1 ? 0.05 : 4 * error;
            if (!(fabs(mean - expected[k]) < limit && error < 0.02 * expected[k]))
                fail_msg("weighting %d, copy %d: %g, expected %g", k, c, mean, expected[k]);
        }
}

static void llada_masks(void **state) {
    (void)state;
    NoiseConfig config = noise_config_default();
    config.objective = OBJECTIVE_LLADA;
    config.eps = 0.1f;
    assert_int_equal(noise_copies(&config), 1);
    enum { BINS = 30 };
    double bins[BINS] = {0}, masked_all = 0, p_all = 0, variance = 0, least = 1, most = 0;
    for (uint64_t stream = 0; stream < DRAWS; stream++) {
        bool masked[2 * TOKENS];
        NoiseDraw draw;
        config.complementary = true;
        assert_int_equal(noise_copies(&config), 2);
        noise_draw(&config, 7, stream, TOKENS, masked, &draw);
        double p = draw.t[0];
        assert_true(p > 0.1f && p < 1);
        assert_true(fabs(draw.t[1] - (1 - p)) < 1e-12 && draw.t[1] > 0);
        assert_true(draw.weight[0] == 1 / p && draw.weight[1] == 1 / draw.t[1]);
        if (p < least) least = p;
        if (p > most) most = p;
        bins[(int)((p - 0.1f) / (1 - 0.1f) * BINS)]++;
        for (int i = 0; i < TOKENS; i++) {
            assert_true(masked[i] != masked[TOKENS + i]);
            masked_all += masked[i], p_all += p, variance += p * (1 - p);
        }
        /* Without a complement the first copy is the same. */
        bool alone[TOKENS];
        NoiseDraw single;
        config.complementary = false;
        noise_draw(&config, 7, stream, TOKENS, alone, &single);
        assert_memory_equal(alone, masked, sizeof alone);
        assert_true(single.weight[0] == draw.weight[0] && single.weight[1] == 0);
    }
    double chi = 0, expected = (double)DRAWS / BINS;
    for (int i = 0; i < BINS; i++) chi += (bins[i] - expected) * (bins[i] - expected) / expected;
    assert_true(chi < 64); /* 29 degrees: 99.98 % */
    assert_true(least < 0.101 && most > 0.999);
    assert_true(fabs(masked_all - p_all) < 4 * sqrt(variance));
}

static void draws_depend_on_seed_and_stream_alone(void **state) {
    (void)state;
    enum { LONG = 300 };
    bool a[2 * LONG], b[2 * LONG], shorter[2 * TOKENS];
    NoiseDraw da, db;
    NoiseConfig config = noise_config_default();
    noise_draw(&config, 1, 2, LONG, a, &da);
    noise_draw(&config, 1, 2, LONG, b, &db);
    assert_memory_equal(a, b, sizeof a);
    assert_true(da.t[0] == db.t[0] && da.t[1] == db.t[1]);
    /* A token's mask does not depend on how many follow. */
    noise_draw(&config, 1, 2, TOKENS, shorter, &db);
    assert_memory_equal(shorter, a, TOKENS);
    assert_memory_equal(shorter + TOKENS, a + LONG, TOKENS);
    int other_seed = 0, other_stream = 0;
    for (uint64_t s = 3; s < 8; s++) {
        noise_draw(&config, s, 2, LONG, b, &db);
        other_seed += memcmp(a, b, sizeof a) != 0;
        noise_draw(&config, 1, s, LONG, b, &db);
        other_stream += memcmp(a, b, sizeof a) != 0;
    }
    assert_int_equal(other_seed, 5);
    assert_int_equal(other_stream, 5);
    noise_draw(&config, 1, 2, 0, NULL, &db);
    assert_true(db.t[0] == da.t[0]);
}

static void smoothing_factors(void **state) {
    (void)state;
    NoiseConfig config = noise_config_default();
    assert_true(noise_smoothing(&config, 7) == 0);
    config.label_smoothing = 0.25f;
    /* weight x factor is ls T at any timestep. */
    for (int t = 1; t <= 50; t++)
        assert_true(fabs(noise_smoothing(&config, 51 - t) * (51 - t) - 12.5) < 1e-12);
    config.objective = OBJECTIVE_LLADA;
    assert_true(noise_smoothing(&config, 7) == 0.25);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timesteps_are_uniform_and_rates_theirs),
        cmocka_unit_test(copies_are_coupled),
        cmocka_unit_test(expected_weights),
        cmocka_unit_test(llada_masks),
        cmocka_unit_test(draws_depend_on_seed_and_stream_alone),
        cmocka_unit_test(smoothing_factors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
