#include "tests/test.h"

#include <ftw.h>
#include <math.h>
#include <unistd.h>

double relative_error(const float *a, const float *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
        double d = (double)a[i] - b[i];
        difference += d * d;
        norm += (double)b[i] * b[i];
    }
    if (norm == 0) return difference == 0 ? 0 : INFINITY;
    return sqrt(difference / norm);
}

void assert_close(const float *a, const float *b, size_t n, double limit, const char *what) {
    double e = relative_error(a, b, n);
    if (!(e <= limit)) fail_msg("%s: relative error %g, at most %g allowed", what, e, limit);
}

void check_message(const Error *err, const char *call, const char **words) {
    if (!err->text[0]) fail_msg("%s: failed without a message", call);
    if (strchr(err->text, '\n')) fail_msg("%s: message of several lines: %s", call, err->text);
    for (; *words; words++)
        if (!strstr(err->text, *words))
            fail_msg("%s: message lacks \"%s\": %s", call, *words, err->text);
}

char *file_bytes(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    size_t used = 0, capacity = 1 << 16;
    char *bytes = malloc(capacity + 1);
    while (bytes) {
        used += fread(bytes + used, 1, capacity - used, f);
        if (used < capacity) break;
        char *more = realloc(bytes, (capacity *= 2) + 1);
        if (!more) free(bytes);
        bytes = more;
    }
    fclose(f);
    if (bytes) bytes[used] = 0;
    if (size) *size = used;
    return bytes;
}

const char *shared_file(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "../shared/data/%s", name);
    return access(path, R_OK) == 0 ? path : NULL;
}

void temporary_folder(char *path, size_t size) {
    const char *base = getenv("TMPDIR");
    snprintf(path, size, "%s/easyfirst-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(path)) fail_msg("cannot make a folder %s", path);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info, (void)type, (void)where;
    return remove(path);
}

void temporary_remove(const char *path) {
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

uint64_t test_random_next(TestRandom *random) {
    uint64_t x = random->state ? random->state : 0x9e3779b97f4a7c15u;
    x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
    random->state = x;
    return x * 0x2545f4914f6cdd1du;
}

double test_random_uniform(TestRandom *random) {
    return (double)(test_random_next(random) >> 11) * 0x1p-53;
}

float test_random_normal(TestRandom *random) {
    double u = 1 - test_random_uniform(random), v = test_random_uniform(random);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}
