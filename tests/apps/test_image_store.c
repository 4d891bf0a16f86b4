/* The server's decoded images: found by what was sent, and bounded in number and in bytes. */
#include "tests/test.h"

#include <string.h>

#include "apps/serve/image_store.h"

static ImageStore store;

static ef_image *square(int side, unsigned char value) {
    ef_image *image;
    ef_error err;
    size_t bytes = (size_t)side * (size_t)side * 3;
    unsigned char *pixels = malloc(bytes);
    assert_non_null(pixels);
    memset(pixels, value, bytes);
    assert_int_equal(ef_image_from_pixels(pixels, side, side, 0, &image, &err), 0);
    free(pixels);
    return image;
}

static void keep(int number, int side) {
    unsigned char digest[IMAGE_STORE_DIGEST];
    char sent[32];
    snprintf(sent, sizeof sent, "image %d", number);
    ef_image *image = square(side, (unsigned char)number);
    assert_true(image_store_digest(digest, sent));
    image_store_add(&store, digest, image);
    ef_image_close(image);
}

/* The width of the image that is kept; 0: none is. */
static int kept(int number) {
    unsigned char digest[IMAGE_STORE_DIGEST];
    char sent[32];
    snprintf(sent, sizeof sent, "image %d", number);
    assert_true(image_store_digest(digest, sent));
    ef_image *image = image_store_find(&store, digest);
    int width = ef_image_width(image);
    ef_image_close(image);
    return width;
}

static void test_number(void **state) {
    (void)state;
    image_store_open(&store);
    assert_int_equal(kept(0), 0);
    for (int i = 0; i < IMAGE_STORE_COUNT; i++) keep(i, 3 + i);
    for (int i = 0; i < IMAGE_STORE_COUNT; i++) assert_int_equal(kept(i), 3 + i);
    assert_int_equal(kept(0), 3); /* from now on 1 is the oldest */
    keep(1000, 5);
    assert_int_equal(kept(1), 0);
    assert_int_equal(kept(0), 3);
    assert_int_equal(kept(1000), 5);
    keep(1000, 9); /* it has that one */
    assert_int_equal(kept(1000), 5);
    image_store_close(&store);
}

static void test_bytes(void **state) {
    (void)state;
    const int side = 1100; /* 3.6 MB: four fit */
    image_store_open(&store);
    for (int i = 0; i < 7; i++) keep(i, side);
    for (int i = 0; i < 7; i++) assert_int_equal(kept(i), i < 3 ? 0 : side);
    assert_true(store.bytes <= IMAGE_STORE_BYTES);
    keep(8, 2600); /* more than all */
    assert_int_equal(kept(8), 0);
    assert_int_equal(kept(6), side);
    image_store_close(&store);
    assert_int_equal(store.bytes, 0);
}

/* Who has an image keeps it, whatever becomes of the store. */
static void test_shared(void **state) {
    (void)state;
    unsigned char digest[IMAGE_STORE_DIGEST];
    image_store_open(&store);
    keep(1, 7);
    assert_true(image_store_digest(digest, "image 1"));
    ef_image *image = image_store_find(&store, digest);
    for (int i = 2; i < 2 + IMAGE_STORE_COUNT; i++) keep(i, 4);
    assert_int_equal(kept(1), 0);
    image_store_close(&store);
    assert_int_equal(ef_image_width(image), 7);
    ef_image_close(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_number), cmocka_unit_test(test_bytes),
                                       cmocka_unit_test(test_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
