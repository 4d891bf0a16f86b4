#include "tests/llava_set.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/images.h"

enum { SIDE = 40, COLOURS = 4, SHAPES = 3 };

static const char *const colour_names[COLOURS] = {"red", "green", "blue", "yellow"};
static const char *const shape_names[SHAPES] = {"circle", "square", "line"};
static const uint8_t colours[COLOURS][3] = {
    {220, 30, 30}, {30, 170, 40}, {40, 60, 210}, {230, 210, 40}};

static bool inside(int shape, int x, int y, int cx, int cy) {
    int dx = x - cx, dy = y - cy;
    if (shape == 0) return dx * dx + dy * dy < 100;
    if (shape == 1) return abs(dx) < 9 && abs(dy) < 9;
    return abs(dy) < 3;
}

static void draw(const char *path, int shape, int colour, TestRandom *random) {
    static uint8_t pixels[SIDE][SIDE][3];
    int cx = 12 + (int)(test_random_next(random) % 16),
        cy = 12 + (int)(test_random_next(random) % 16);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++)
                pixels[y][x][c] = inside(shape, x, y, cx, cy)
                                      ? colours[colour][c]
                                      : (uint8_t)(120 + test_random_next(random) % 20);
    image_write(path, &pixels[0][0][0], SIDE, SIDE);
}

static FILE *create(const char *path) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    return f;
}

static void write_caption(FILE *f, int i, int shape, int colour) {
    fprintf(f,
            "%s{\"id\": \"%09d\", \"image\": \"shapes/%05d.png\", \"conversations\": [{\"from\": "
            "\"human\", \"value\": \"Describe the image.\\n<image>\"}, {\"from\": \"gpt\", "
            "\"value\": \"a %s %s\"}]}",
            i ? ",\n" : "[", i, i, colour_names[colour], shape_names[shape]);
}

/* Several turns as LLaVA merges them: the first with the image and the instruction. */
static void write_conversation(FILE *f, int i, int shape, int colour) {
    if (i % 3 == 1) /* an id that is a number */
        fprintf(f, "%s{\"id\": %d", i ? ",\n" : "[", i);
    else
        fprintf(f, "%s{\"id\": \"%06d\"", i ? ",\n" : "[", i);
    fprintf(
        f,
        ", \"image\": \"shapes/%05d.png\", \"conversations\": [{\"from\": \"human\", \"value\": "
        "\"<image>\\nWhat colour is it?\\nAnswer the question using a single word or "
        "phrase.\"}, {\"from\": \"gpt\", \"value\": \"%s\"}, {\"from\": \"human\", \"value\": "
        "\"What shape is it?\"}, {\"from\": \"gpt\", \"value\": \"%s\"}]}",
        i, colour_names[colour], shape_names[shape]);
}

static void write_text_only(FILE *f, int i) {
    fprintf(
        f,
        ",\n{\"id\": \"text%d\", \"conversations\": [{\"from\": \"human\", \"value\": \"Is the sky "
        "clear or cloudy?\"}, {\"from\": \"gpt\", \"value\": \"It is clear.\"}]}",
        i);
}

/* Each must be counted and skipped, and never end a run by itself. */
static const char *const broken_records[] = {
    "{\"id\": \"b1\", \"image\": \"shapes/00000.png\"}",
    "{\"id\": \"b2\", \"image\": \"shapes/nowhere.png\", \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"red\"}]}",
    "{\"id\": \"b3\", \"image\": \"../../etc/passwd\", \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"red\"}]}",
    "{\"id\": \"b4\", \"image\": \"shapes/empty.png\", \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"red\"}]}",
    "{\"id\": \"b5\", \"image\": \"shapes/00000.png\", \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"  \"}]}",
    "{\"id\": \"b6\", \"image\": \"shapes/00000.png\", \"conversations\": 7}",
    /* Found only when it is decoded: a GIF that is called a JPEG. */
    "{\"id\": \"b7\", \"image\": \"shapes/gif.jpg\", \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"<image>\\nWhat?\"}, {\"from\": \"gpt\", \"value\": \"red\"}]}",
};

enum { BROKEN = sizeof broken_records / sizeof broken_records[0] };

static void write_bytes(const char *folder, const char *name, const char *bytes, size_t size) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = create(path);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* The photographs of ../shared as images with a plain caption. */
static void add_photographs(LlavaSet *set, FILE *f) {
    static const char *const names[] = {"extreme_ironing.jpg", "waterview.jpg", "llava_logo.png"};
    for (int i = 0; i < 3; i++) {
        char name[64], link[400], real[4096];
        snprintf(name, sizeof name, "images/%s", names[i]);
        const char *path = shared_file(name);
        if (!path || !realpath(path, real)) continue;
        snprintf(link, sizeof link, "%s/%s", set->images, names[i]);
        assert_int_equal(symlink(real, link), 0);
        fprintf(
            f,
            ",\n{\"id\": \"photo%d\", \"image\": \"%s\", \"conversations\": [{\"from\": \"human\", "
            "\"value\": \"<image>\\nDescribe.\"}, {\"from\": \"gpt\", \"value\": \"a "
            "photograph\"}]}",
            i, names[i]);
    }
}

void llava_set_make(LlavaSet *set, const char *folder, int images) {
    TestRandom random = {7};
    char path[500];
    set->image_count = images, set->broken_records = BROKEN;
    snprintf(set->images, sizeof set->images, "%s/images", folder);
    snprintf(set->captions, sizeof set->captions, "%s/captions.json", folder);
    snprintf(set->conversations, sizeof set->conversations, "%s/conversations.json", folder);
    snprintf(set->broken, sizeof set->broken, "%s/broken.json", folder);
    snprintf(path, sizeof path, "%s/shapes", set->images);
    assert_int_equal(mkdir(set->images, 0777), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    write_bytes(path, "empty.png", "", 0);
    write_bytes(path, "gif.jpg", "GIF89a\1\0\1\0\0\0\0;", 14);
    FILE *files[3] = {create(set->captions), create(set->conversations), create(set->broken)};
    for (int i = 0; i < images; i++) {
        int shape = (int)(test_random_next(&random) % SHAPES);
        int colour = (int)(test_random_next(&random) % COLOURS);
        snprintf(path, sizeof path, "%s/shapes/%05d.png", set->images, i);
        draw(path, shape, colour, &random);
        write_caption(files[0], i, shape, colour);
        write_conversation(files[1], i, shape, colour);
        write_conversation(files[2], i, shape, colour);
        if (i % 8 == 3) write_text_only(files[1], i);
    }
    add_photographs(set, files[0]);
    for (int i = 0; i < BROKEN; i++) fprintf(files[2], ",\n%s", broken_records[i]);
    for (int i = 0; i < 3; i++) {
        fputs("]\n", files[i]);
        assert_int_equal(fclose(files[i]), 0);
    }
}
