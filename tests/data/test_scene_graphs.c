/* Scene graphs: what is read of them and what is refused, and which patch an object covers, through
 * the geometry of preprocessing. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/sets/scene_graphs.h"
#include "tests/images.h"
#include "tests/program.h"
#include "vision/preprocess.h"

static int random_below(TestRandom *r, int n) {
    return (int)(test_random_next(r) % (uint64_t)n);
}

/* ---- Geometry. ---- */

/* An image whose red is its x and whose green its y: after preprocessing they show where each point
 * has come from. */
static void test_map(void **state) {
    (void)state;
    static uint8_t pixels[200 * 200 * 3];
    TestRandom r = {4711};
    Error err;
    int looked = 0;
    for (int round = 0; round < 60; round++) {
        PreprocessConfig config = preprocess_clip_default();
        Image in = {20 + random_below(&r, 180), 20 + random_below(&r, 180), pixels}, out;
        PreprocessMap map;
        config.size = 8 + random_below(&r, 60), config.pad = round % 2;
        for (int y = 0; y < in.height; y++)
            for (int x = 0; x < in.width; x++) {
                uint8_t *p = &pixels[3 * (y * in.width + x)];
                p[0] = (uint8_t)x, p[1] = (uint8_t)y, p[2] = 255;
            }
        assert_ok(preprocess_crop(&out, &in, &config, &err), &err);
        assert_ok(preprocess_map(&map, in.width, in.height, &config, &err), &err);
        for (int j = 0; j < config.size; j++)
            for (int i = 0; i < config.size; i++) {
                const uint8_t *p = &out.pixels[3 * (j * config.size + i)];
                double x = map.left + (i + 0.5) * map.scale_x;
                double y = map.top + (j + 0.5) * map.scale_y;
                double border = 2 + 2 * fmax(fmax(map.scale_x, map.scale_y), 1);
                double inside = fmin(fmin(x, in.width - x), fmin(y, in.height - y));
                if (inside < -border) /* the color of the padding */
                    assert_true(abs(p[2] - (int)(255 * config.mean[2])) <= 1);
                if (inside < border) continue;
                looked++;
                if (!(fabs(x - 0.5 - p[0]) <= 1) || !(fabs(y - 0.5 - p[1]) <= 1))
                    fail_msg("%dx%d to %d, pad %d: point %d, %d is told from %g, %g but has "
                             "%d, %d",
                             in.width, in.height, config.size, config.pad, i, j, x, y, p[0], p[1]);
            }
        image_free(&out);
    }
    assert_true(looked > 20000);
    PreprocessMap map;
    PreprocessConfig config = preprocess_clip_default();
    assert_refused(preprocess_map(&map, 0, 5, &config, &err), &err, "0x5");
    assert_refused(preprocess_map(&map, 1, 1 << 30, &config, &err), &err, "narrow");
}

/* ---- Files of scene graphs. ---- */

static void write_grey(const Run *r, const char *name, int width, int height) {
    char path[512];
    uint8_t *pixels = calloc((size_t)width * (size_t)height, 3);
    assert_non_null(pixels);
    path_in(path, sizeof path, r, name);
    image_write(path, pixels, width, height);
    free(pixels);
}

static int open_graphs(SceneGraphs *g, const Run *r, const char *text,
                       const SceneGraphsOptions *options, Skipped *skipped, Error *err) {
    char path[512];
    write_file(r, "graphs.json", text, strlen(text), path, sizeof path);
    *skipped = (Skipped){.total = 0};
    return scene_graphs_open(g, (const char *const[]){path}, 1, options, skipped, err);
}

static void test_graphs(void **state) {
    (void)state;
    Run r;
    SceneGraphs g, held;
    Skipped skipped;
    Error err;
    run_start(&r);
    SceneGraphsOptions options = {.images = r.folder};
    write_grey(&r, "a.png", 30, 20), write_grey(&r, "17.jpg", 10, 10);
    const char *text =
        "\xEF\xBB\xBF {\"a.png\": {\"width\": 30, \"height\": 20, \"objects\": {"
        "\"1\": {\"name\": \"tree\", \"x\": -5, \"y\": 2.5, \"w\": 20, \"h\": 50},"
        "\"2\": {\"name\": \"ball\", \"x\": 4, \"y\": 6, \"w\": 3, \"h\": 4, \"attributes\": []}}},"
        "\n\"17\": {\"objects\": {}, \"height\": 10, \"width\": 10, \"location\": null},"
        "\"a.png\": {\"width\": 30, \"height\": 20, \"objects\": {"
        "\"1\": {\"name\": \"background\", \"x\": 0, \"y\": 0, \"w\": 3, \"h\": 3},"
        "\"2\": {\"name\": \"ball\", \"x\": 0, \"y\": 0, \"w\": 30, \"h\": 20}}}}";
    assert_ok(open_graphs(&g, &r, text, &options, &skipped, &err), &err);
    assert_int_equal(skipped.total, 0);
    assert_int_equal(g.count, 3);
    assert_int_equal(g.samples, 3 + 4);
    assert_int_equal(g.class_count, 3);
    assert_string_equal(g.classes[0], "background");
    assert_string_equal(g.classes[1], "ball");
    assert_string_equal(g.classes[2], "tree");
    assert_string_equal(g.scenes[0].image, "a.png");
    assert_string_equal(g.scenes[1].image, "17.jpg");
    assert_int_equal(g.scenes[1].box_count, 0);
    const SceneBox *b = g.boxes;
    assert_true(b[0].left == 0 && b[0].top == 2.5f && b[0].right == 15 && b[0].bottom == 20);
    assert_int_equal(b[0].class, 2);
    assert_int_equal(b[1].class, 1);
    assert_int_equal(b[2].class, 0);
    /* Held-out images have the same table; what it does not know has no class. */
    SceneGraphsOptions table = {.images = r.folder,
                                .classes = (const char *const *)g.classes,
                                .class_count = g.class_count,
                                .limit = 1};
    const char *other = "{\"17\": {\"width\": 10, \"height\": 10, \"objects\": {"
                        "\"1\": {\"name\": \"tree\", \"x\": 0, \"y\": 0, \"w\": 5, \"h\": 5},"
                        "\"2\": {\"name\": \"house\", \"x\": 5, \"y\": 5, \"w\": 5, \"h\": 5}}},"
                        "\"a.png\": {\"width\": 30, \"height\": 20, \"objects\": {}}}";
    assert_ok(open_graphs(&held, &r, other, &table, &skipped, &err), &err);
    assert_int_equal(held.count, 1);
    assert_int_equal(held.class_count, 3);
    assert_int_equal(held.boxes[0].class, 2);
    assert_int_equal(held.boxes[1].class, -1);
    int32_t labels[4];
    scene_labels(labels, &held, &held.scenes[0], &(SceneGrid){2, 0, 0, 5, 5});
    assert_true(labels[0] == 2 && labels[1] == 0 && labels[2] == 0 && labels[3] == -1);
    assert_true(held.fingerprint != g.fingerprint);
    scene_graphs_close(&g), scene_graphs_close(&held);
    /* Longer than what is read at once. */
    enum { MANY = 6000, EACH = 200 };
    char *all = malloc(MANY * EACH);
    assert_non_null(all);
    size_t used = 0;
    for (int i = 0; i < MANY; i++)
        used += (size_t)snprintf(all + used, EACH,
                                 "%s\"a.png\": {\"width\": 30, \"height\": 20, \"objects\": "
                                 "{\"%d\": {\"name\": \"c%d\", \"x\": %d, \"y\": %d, \"w\": 1, "
                                 "\"h\": 1}}}",
                                 i ? ",\n" : "{", i, i % 10, i % 30, i % 19);
    snprintf(all + used, EACH, "}");
    assert_true(used > 2 << 18);
    assert_ok(open_graphs(&g, &r, all, &options, &skipped, &err), &err);
    assert_int_equal(skipped.total, 0);
    assert_int_equal(g.count, MANY);
    for (int i = 0; i < MANY; i++) {
        b = &g.boxes[g.scenes[i].first_box];
        assert_true(b->left == (float)(i % 30) && b->top == (float)(i % 19));
        assert_int_equal(b->class, 1 + i % 10);
    }
    scene_graphs_close(&g);
    free(all);
    run_end(&r);
}

/* Each bad image or object is counted under its kind, and the good ones stay. */
static void test_bad_graphs(void **state) {
    (void)state;
#define GOOD "\"good.png\": {\"width\": 10, \"height\": 8, \"objects\": {}}"
#define OBJECT(fields) \
    "\"good.png\": {\"width\": 10, \"height\": 8, \"objects\": {\"7\": " fields "}}"
    static const struct {
        const char *text, *kind, *word;
    } bad[] = {
        {"\"gone\": {\"width\": 1, \"height\": 1, \"objects\": {}}", "no such image", "gone.jpg"},
        {"\"empty.png\": {\"width\": 1, \"height\": 1, \"objects\": {}}", "empty image file",
         "empty.png"},
        {"\"../good.png\": {\"width\": 10, \"height\": 8, \"objects\": {}}",
         "image outside of the folder", "../good.png"},
        {"\"/etc/passwd\": {\"width\": 10, \"height\": 8, \"objects\": {}}",
         "image outside of the folder", "passwd"},
        {"\"\": {\"width\": 10, \"height\": 8, \"objects\": {}}", "image outside of the folder",
         "image"},
        {"\"good.png\": {\"height\": 8, \"objects\": {}}", "image without a size", "width"},
        {"\"good.png\": {\"width\": 10, \"height\": -8, \"objects\": {}}", "image without a size",
         "height"},
        {"\"good.png\": {\"width\": 1e300, \"height\": 8, \"objects\": {}}", "image without a size",
         "width"},
        {"\"good.png\": {\"width\": 10, \"height\": 8}", "image without objects", "missing"},
        {"\"good.png\": {\"width\": 10, \"height\": 8, \"objects\": [1]}", "image without objects",
         "something else"},
        {"\"good.png\": 7", "image without objects", "good.png"},
        {"\"good.png\": {\"width\": 10, \"height\": \"\xff\"}", "not text", "0xff"},
        {OBJECT("7"), "object without a name", "object 7"},
        {OBJECT("{\"x\": 1, \"y\": 1, \"w\": 1, \"h\": 1}"), "object without a name", "missing"},
        {OBJECT("{\"name\": \"\", \"x\": 1, \"y\": 1, \"w\": 1, \"h\": 1}"),
         "object without a name", "something else"},
        {OBJECT("{\"name\": \"a\\u0000b\", \"x\": 1, \"y\": 1, \"w\": 1, \"h\": 1}"),
         "object without a name", "something else"},
        {OBJECT("{\"name\": \"a\", \"x\": 1, \"y\": 1, \"h\": 1}"), "object without a box",
         "\"w\""},
        {OBJECT("{\"name\": \"a\", \"x\": \"1\", \"y\": 1, \"w\": 1, \"h\": 1}"),
         "object without a box", "\"x\""},
        {OBJECT("{\"name\": \"a\", \"x\": 1, \"y\": 1, \"w\": 0, \"h\": 1}"), "box without area",
         "0 wide"},
        {OBJECT("{\"name\": \"a\", \"x\": 1, \"y\": 1, \"w\": 3, \"h\": -1}"), "box without area",
         "-1 high"},
        {OBJECT("{\"name\": \"a\", \"x\": 10, \"y\": 1, \"w\": 3, \"h\": 1}"),
         "box outside of the image", "10 x 8"},
        {OBJECT("{\"name\": \"a\", \"x\": 1, \"y\": -9, \"w\": 3, \"h\": 9}"),
         "box outside of the image", "-9"},
    };
    Run r;
    SceneGraphs g;
    Skipped skipped;
    Error err;
    char text[1000];
    run_start(&r);
    SceneGraphsOptions options = {.images = r.folder};
    write_grey(&r, "good.png", 10, 8);
    char path[400];
    write_file(&r, "empty.png", "", 0, path, sizeof path);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{%s, " GOOD "}", bad[i].text);
        assert_ok(open_graphs(&g, &r, text, &options, &skipped, &err), &err);
        bool object = strstr(bad[i].kind, "object ") || strstr(bad[i].kind, "box ");
        assert_int_equal(g.count, 1 + object);
        assert_int_equal(g.box_count, 0);
        if (skipped.total != 1 || strcmp(skipped.kinds[0].kind, bad[i].kind) ||
            !strstr(skipped.kinds[0].first, bad[i].word) ||
            !strstr(skipped.kinds[0].first, "graphs.json"))
            fail_msg("%s: %d problems, the first: %s: %s", bad[i].text, (int)skipped.total,
                     skipped.kinds[0].kind, skipped.kinds[0].first);
        scene_graphs_close(&g);
    }
    /* What makes the rest unreadable. */
    static const char *const broken[][2] = {
        {"{" GOOD ", \"good.png\": {\"width\": 10, \"hei", "truncated"},
        {"{" GOOD, "truncated"},
        {"{" GOOD ",", "truncated"},
        {"{\"good.png\"", "truncated"},
        {"{\"good.png\": ", "truncated"},
        {"{\"good.png\": }", "expected a value"},
        {"{\"good.png\" {}}", "colon"},
        {"{" GOOD " " GOOD "}", "comma or }"},
        {"{" GOOD ",}", "after the comma"},
        {"{17: {}}", "expected a member"},
        {"{\"a\xff\": {}}", "0xff"},
        {"{" GOOD "} 5", "text after the end"},
        {"{\"good.png\": [1}}", "malformed"},
        {"[" GOOD "]", "not a JSON object"},
        {"", "empty"},
        {"{}", "no images"},
        {"{\"good.png\": 7}", "none of its images"},
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        assert_refused(open_graphs(&g, &r, broken[i][0], &options, &skipped, &err), &err,
                       broken[i][1], "graphs.json");
    options.images = NULL;
    assert_refused(open_graphs(&g, &r, "{" GOOD "}", &options, &skipped, &err), &err, "not named");
    assert_int_equal(err.code, ERROR_NO_IMAGES);
    run_end(&r);
}

/* The fingerprint is of the contents, not of the time; a pipe is refused and not waited for; an
 * image of millions of values is skipped. */
static void test_files(void **state) {
    (void)state;
    Run r;
    SceneGraphs g;
    Skipped skipped;
    Error err;
    char path[512];
    run_start(&r);
    SceneGraphsOptions options = {.images = r.folder};
    write_grey(&r, "a.png", 30, 20);
    const char *text = "{\"a.png\": {\"width\": 30, \"height\": 20, \"objects\": {}}}";
    assert_ok(open_graphs(&g, &r, text, &options, &skipped, &err), &err);
    uint64_t first = g.fingerprint;
    scene_graphs_close(&g);
    path_in(path, sizeof path, &r, "graphs.json");
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    const char *paths[] = {path};
    assert_ok(scene_graphs_open(&g, paths, 1, &options, &skipped, &err), &err);
    assert_true(g.fingerprint == first);
    scene_graphs_close(&g);
    text = "{\"a.png\": {\"width\": 31, \"height\": 20, \"objects\": {}}}";
    assert_ok(open_graphs(&g, &r, text, &options, &skipped, &err), &err);
    assert_true(g.fingerprint != first);
    scene_graphs_close(&g);
    enum { SIZE = 3 << 20 };
    char *big = malloc(SIZE + 300), *p = big;
    assert_non_null(big);
    p += sprintf(p, "{\"big\": {\"objects\": [[]");
    while (p < big + SIZE) p = stpcpy(p, ",[]");
    sprintf(p, "]}, %s", text + 1);
    assert_ok(open_graphs(&g, &r, big, &options, &skipped, &err), &err);
    assert_int_equal(g.count, 1);
    assert_string_equal(skipped.kinds[0].kind, "too large");
    scene_graphs_close(&g);
    free(big);
    path_in(path, sizeof path, &r, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(5); /* ends the test where it waits */
    assert_refused(scene_graphs_open(&g, paths, 1, &options, &skipped, &err), &err,
                   "a pipe (FIFO)");
    alarm(0);
    run_end(&r);
}

/* Boxes are drawn, the larger ones first, and the image is preprocessed: each patch has the
 * color of its class at its center. */
static void test_labels(void **state) {
    (void)state;
    enum { CLASSES = 5, BOXES = 6, GRID = 7, PATCH = 9 };
    static uint8_t pixels[150 * 150 * 3];
    TestRandom r = {99};
    Error err;
    int looked = 0, found = 0;
    for (int round = 0; round < 80; round++) {
        SceneBox boxes[BOXES];
        Scene scene = {.width = 30 + random_below(&r, 120),
                       .height = 30 + random_below(&r, 120),
                       .box_count = BOXES};
        for (int b = 0; b < BOXES; b++) {
            int x = random_below(&r, scene.width - 8), y = random_below(&r, scene.height - 8);
            boxes[b] = (SceneBox){
                (float)x, (float)y, (float)(x + 4 + random_below(&r, scene.width - x - 4)),
                (float)(y + 4 + random_below(&r, scene.height - y - 4)), random_below(&r, CLASSES)};
        }
        memset(pixels, 0, sizeof pixels);
        bool drawn[BOXES] = {false};
        for (int n = 0; n < BOXES; n++) {
            int most = -1;
            double size = -1;
            for (int b = BOXES - 1; b >= 0; b--) { /* of equal ones the first comes last */
                double area = (boxes[b].right - boxes[b].left) * (boxes[b].bottom - boxes[b].top);
                if (!drawn[b] && area > size) most = b, size = area;
            }
            drawn[most] = true;
            for (int y = (int)boxes[most].top; y < (int)boxes[most].bottom; y++)
                for (int x = (int)boxes[most].left; x < (int)boxes[most].right; x++)
                    pixels[3 * (y * scene.width + x)] = (uint8_t)(50 * boxes[most].class);
        }
        PreprocessConfig config = preprocess_clip_default();
        config.size = GRID * PATCH, config.pad = round % 2, config.mean[0] = 0;
        Image in = {scene.width, scene.height, pixels}, out;
        PreprocessMap map;
        assert_ok(preprocess_crop(&out, &in, &config, &err), &err);
        assert_ok(preprocess_map(&map, scene.width, scene.height, &config, &err), &err);
        SceneGraphs graphs = {.boxes = boxes};
        SceneGrid grid = {GRID, map.left, map.top, PATCH * map.scale_x, PATCH * map.scale_y};
        int32_t labels[GRID * GRID];
        scene_labels(labels, &graphs, &scene, &grid);
        for (int j = 0; j < GRID; j++)
            for (int i = 0; i < GRID; i++) {
                int cx = i * PATCH + PATCH / 2, cy = j * PATCH + PATCH / 2;
                int level = out.pixels[3 * (cy * config.size + cx)];
                bool flat = true; /* no edge is near */
                for (int d = 0; d < 25; d++) {
                    int at = (cy + d / 5 - 2) * config.size + cx + d % 5 - 2;
                    flat &= out.pixels[3 * at] == level;
                }
                if (!flat) continue;
                looked++, found += level > 0;
                assert_int_equal(50 * labels[j * GRID + i], level);
            }
        image_free(&out);
    }
    assert_true(looked > 1000 && found > 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_bad_graphs), cmocka_unit_test(test_files),
        cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
