/* The training stage `segment`: its loss and gradients, and whole runs. */
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "projector/model.h"
#include "kernels/params.h"
#include "tests/llava_set.h"
#include "tests/matrix.h"
#include "tests/images.h"
#include "tests/program.h"
#include "vision/segment.h"

#define TOKENIZER "tests/golden/models/tiny-base/language/sentencepiece.bpe.model"
#define TINY      "tests/golden/models/tiny-base"

static int random_below(TestRandom *r, int n) {
    return (int)(test_random_next(r) % (uint64_t)n);
}

/* ---- The loss. ---- */

typedef struct Trained {
    Device *device;
    Model model;
    Params params;
    SegmentHead head;
    Arena arena;
} Trained;

enum { IMAGES = 3, CLASSES = 5 };

static void tower_start(Trained *t, bool class_token, bool recompute) {
    Error err;
    *t = (Trained){.device = NULL};
    assert_ok(test_device_open(&t->device, &(DeviceOptions){0}, &err), &err);
    ModelOptions options = {
        .folder = TINY, .describe_only = true, .feature_layer = FEATURE_LAYER_UNSET};
    assert_ok(model_open(&t->model, &options, t->device, &err), &err);
    t->model.vit.config.class_token = class_token;
    params_init(&t->params, t->device);
    assert_ok(segment_declare(&t->head, t->model.vit.config.block.width, CLASSES, &t->params, &err),
              &err);
    assert_ok(params_allocate(&t->params, DTYPE_F32, &err), &err);
    params_initialise(&t->params, 3);
    assert_ok(params_train(&t->params, DTYPE_F32, &err), &err);
    assert_ok(params_train(&t->model.vision.params, DTYPE_F32, &err), &err);
    size_t bytes = segment_bytes(&t->model.vit, &t->head, IMAGES, recompute);
    assert_ok(arena_open(&t->arena, t->device, bytes, &err), &err);
}

static void tower_end(Trained *t) {
    arena_close(&t->arena);
    params_free(&t->params);
    model_close(&t->model);
    device_close(t->device);
}

typedef struct Sample {
    float *pixels;
    int32_t *labels;
    int patches, side;
} Sample;

static Sample sample_make(const Vit *vit, uint64_t seed) {
    TestRandom r = {seed};
    int side = vit->config.image_size, patches = vit_patches(&vit->config);
    Sample s = {calloc((size_t)(IMAGES * 3 * side * side), sizeof(float)),
                calloc((size_t)(IMAGES * patches), sizeof(int32_t)), patches, side};
    assert_true(s.pixels && s.labels);
    for (int i = 0; i < IMAGES * 3 * side * side; i++) s.pixels[i] = test_random_normal(&r);
    for (int i = 0; i < IMAGES * patches; i++) s.labels[i] = random_below(&r, CLASSES + 1) - 1;
    return s;
}

static void sample_free(Sample *s) {
    free(s->pixels), free(s->labels);
}

static double total(Trained *t, const Sample *s, int first, int images, SegmentRun run,
                    float *losses) {
    Error err;
    SegmentBatch batch = {images, s->pixels + first * 3 * s->side * s->side,
                          s->labels + first * s->patches, 0.25f, 0.1f};
    assert_ok(segment_pass(&t->model.vit, &t->head, &t->arena, &batch, &run, losses, &err), &err);
    assert_int_equal(t->arena.used, 0);
    double sum = 0;
    for (int i = 0; i < images * s->patches; i++) sum += (double)losses[i];
    return sum;
}

static float *gradients(const Params *p) {
    float *g = malloc((size_t)p->flat * sizeof *g);
    assert_non_null(g);
    memcpy(g, p->grad, (size_t)p->flat * sizeof *g);
    memset(p->grad, 0, (size_t)p->flat * sizeof *g);
    return g;
}

static const float *values_of(Params *params, const char *name) {
    return params->master + params_find(params, name)->offset;
}

/* Losses, score and the head's gradients against plain loops in double over the tower's
 * features. */
static void check_head(bool class_token) {
    Trained t;
    Error err;
    tower_start(&t, class_token, false);
    const Vit *vit = &t.model.vit;
    Sample s = sample_make(vit, 11);
    int d = vit->config.block.width, each = vit_feature_rows(&vit->config);
    float *x = malloc((size_t)(IMAGES * each * d) * sizeof *x);
    float *losses = calloc((size_t)(IMAGES * s.patches), sizeof *losses);
    Arena own;
    assert_true(x && losses);
    size_t bytes = vit_work_bytes(vit, IMAGES);
    assert_ok(arena_open(&own, t.device, bytes, &err), &err);
    Tensor pixels = tensor_nd(s.pixels, DTYPE_F32, 4, (int64_t[]){IMAGES, 3, s.side, s.side});
    assert_ok(vit_forward(vit, &own, tensor_2d(x, DTYPE_F32, IMAGES * each, d), pixels, NULL, &err),
              &err);
    arena_close(&own);
    SegmentScore score = {0}, wanted = {0};
    total(&t, &s, 0, IMAGES, (SegmentRun){.backward = true, .score = &score}, losses);
    float *g = gradients(&t.params);
    const float *w = values_of(&t.params, "segment.weight");
    const float *b = values_of(&t.params, "segment.bias");
    double dw[CLASSES * 64] = {0}, db[CLASSES] = {0};
    assert_true(d <= 64);
    for (int i = 0; i < IMAGES * s.patches; i++) {
        int label = s.labels[i], best = 0;
        const float *row = x + ((i / s.patches) * each + class_token + i % s.patches) * d;
        double z[CLASSES], sum = 0, loss = 0;
        for (int c = 0; c < CLASSES; c++) {
            z[c] = b[c];
            for (int k = 0; k < d; k++) z[c] += (double)w[c * d + k] * row[k];
            sum += exp(z[c]);
            if (z[c] > z[best]) best = c;
        }
        for (int c = 0; c < CLASSES && label >= 0; c++) {
            double share = 0.9 * (c == label) + 0.1 / CLASSES, p = exp(z[c]) / sum;
            loss -= 0.25 * share * log(p);
            db[c] += 0.25 * (p - share);
            for (int k = 0; k < d; k++) dw[c * d + k] += 0.25 * (p - share) * row[k];
        }
        if (!(fabs(loss - losses[i]) <= 1e-6 * (1 + fabs(loss))))
            fail_msg("patch %d: loss %g, expected %g", i, (double)losses[i], loss);
        if (label < 0) continue;
        wanted.patches++, wanted.right += best == label;
        wanted.objects += label > 0, wanted.objects_right += label > 0 && best == label;
    }
    assert_memory_equal(&score, &wanted, sizeof score);
    float exact[CLASSES * 64];
    for (int i = 0; i < CLASSES * d; i++) exact[i] = (float)dw[i];
    assert_close(g + params_find(&t.params, "segment.weight")->offset, exact, (size_t)(CLASSES * d),
                 2e-5, "the weight's gradient");
    for (int i = 0; i < CLASSES; i++) exact[i] = (float)db[i];
    assert_close(g + params_find(&t.params, "segment.bias")->offset, exact, CLASSES, 2e-5,
                 "the bias's gradient");
    free(g), free(x), free(losses);
    sample_free(&s);
    tower_end(&t);
}

static void test_head(void **state) {
    (void)state;
    check_head(false);
    check_head(true);
}

/* The tower's gradient along a random direction is the derivative of the loss. */
static void test_tower(void **state) {
    (void)state;
    Trained t;
    tower_start(&t, false, false);
    Sample s = sample_make(&t.model.vit, 21);
    Params *p = &t.model.vision.params;
    float *losses = calloc((size_t)(IMAGES * s.patches), sizeof *losses);
    float *kept = malloc((size_t)p->flat * sizeof *kept);
    assert_true(losses && kept);
    total(&t, &s, 0, IMAGES, (SegmentRun){.backward = true}, losses);
    float *g = gradients(p);
    free(gradients(&t.params));
    memcpy(kept, p->master, (size_t)p->flat * sizeof *kept);
    for (int round = 0; round < 4; round++) {
        TestRandom r = {31 + (uint64_t)round};
        double derivative = 0, sums[2], length = 0;
        const double step = 2e-4;
        float *v = malloc((size_t)p->flat * sizeof *v);
        assert_non_null(v);
        for (int64_t i = 0; i < p->flat; i++) {
            length += (double)g[i] * g[i];
        }
        length = sqrt(length / (double)p->flat);
        for (int64_t i = 0; i < p->flat; i++) {
            /* Not in the gaps; partly along the gradient, so that the derivative is not small. */
            v[i] = g[i] == 0 ? 0 : test_random_normal(&r) + (float)(g[i] / length);
            derivative += (double)v[i] * g[i];
        }
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < p->flat; i++)
                p->master[i] = kept[i] + (float)(side ? -step : step) * v[i];
            sums[side] = total(&t, &s, 0, IMAGES, (SegmentRun){.backward = false}, losses);
        }
        double found = (sums[0] - sums[1]) / (2 * step);
        if (!(fabs(found - derivative) <= 5e-3 * fabs(derivative)))
            fail_msg("slope %g, by the gradient %g", found, derivative);
        free(v);
    }
    free(g), free(kept), free(losses);
    sample_free(&s);
    tower_end(&t);
}

/* Activation checkpointing changes no bit; micro-batches of one image each have the same sum. */
static void test_same(void **state) {
    (void)state;
    float *found[3][2] = {{NULL}};
    int64_t flat[2] = {0};
    double sums[3];
    for (int way = 0; way < 3; way++) {
        Trained t;
        tower_start(&t, false, way == 1);
        Sample s = sample_make(&t.model.vit, 41);
        float *losses = calloc((size_t)(IMAGES * s.patches), sizeof *losses);
        SegmentRun run = {.backward = true, .recompute = way == 1};
        sums[way] = 0;
        for (int i = 0; i < (way == 2 ? IMAGES : 1); i++)
            sums[way] += total(&t, &s, i, way == 2 ? 1 : IMAGES, run, losses);
        /* At most the predicted memory, and not much less. */
        if (way < 2) assert_true((double)t.arena.peak >= 0.98 * (double)t.arena.size);
        flat[0] = t.params.flat, flat[1] = t.model.vision.params.flat;
        found[way][0] = gradients(&t.params), found[way][1] = gradients(&t.model.vision.params);
        free(losses);
        sample_free(&s);
        tower_end(&t);
    }
    assert_true(sums[0] == sums[1]);
    for (int part = 0; part < 2; part++) {
        size_t n = (size_t)flat[part];
        assert_memory_equal(found[0][part], found[1][part], n * sizeof(float));
        assert_close(found[2][part], found[0][part], n, 2e-6, "image by image");
        for (int way = 0; way < 3; way++) free(found[way][part]);
    }
    /* Invalid labels. */
    Trained t;
    Error err;
    tower_start(&t, false, false);
    Sample s = sample_make(&t.model.vit, 41);
    s.labels[7] = CLASSES;
    float *losses = calloc((size_t)(IMAGES * s.patches), sizeof *losses);
    SegmentBatch batch = {IMAGES, s.pixels, s.labels, 1, 0};
    assert_refused(
        segment_pass(&t.model.vit, &t.head, &t.arena, &batch, &(SegmentRun){0}, losses, &err), &err,
        "patch 7", "class 5");
    assert_refused(segment_declare(&t.head, 8, 1, &t.params, &err), &err, "1 classes");
    free(losses);
    sample_free(&s);
    tower_end(&t);
}

/* ---- Whole runs. ---- */

typedef struct Bench {
    Run run;
    char model[300], train[300], valid[300], images[300];
} Bench;

/* One or two squares on gray noise, in an image that is not square. */
static void draw_squares(FILE *f, const char *images, const char *name, bool first, TestRandom *r) {
    enum { WIDTH = 40, HEIGHT = 33 };
    static const uint8_t colours[3][3] = {{220, 30, 30}, {30, 170, 40}, {40, 60, 210}};
    static const char *const names[3] = {"red square", "green square", "blue square"};
    static uint8_t pixels[HEIGHT][WIDTH][3];
    char path[600];
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++)
        (&pixels[0][0][0])[i] = (uint8_t)(120 + random_below(r, 20));
    fprintf(f, "%s\"%s\": {\"width\": %d, \"height\": %d, \"objects\": {", first ? "{" : ",\n",
            name, WIDTH, HEIGHT);
    int count = 1 + random_below(r, 2);
    for (int n = 0; n < count; n++) {
        int side = 14 + random_below(r, 6), colour = random_below(r, 3);
        int x = n * 20 + random_below(r, 40 / count - side + 1);
        int y = random_below(r, HEIGHT - side + 1);
        for (int j = y; j < y + side; j++)
            for (int i = x; i < x + side; i++) memcpy(pixels[j][i], colours[colour], 3);
        fprintf(f, "%s\"%d\": {\"name\": \"%s\", \"x\": %d, \"y\": %d, \"w\": %d, \"h\": %d}",
                n ? ", " : "", n, names[colour], x, y, side, side);
    }
    fprintf(f, "}}");
    snprintf(path, sizeof path, "%s/%s", images, name);
    image_write(path, &pixels[0][0][0], WIDTH, HEIGHT);
}

static void write_squares(const Bench *b, const char *path, const char *stem, int count,
                          uint64_t seed) {
    TestRandom r = {seed};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%03d.png", stem, i);
        draw_squares(f, b->images, name, i == 0, &r);
    }
    fprintf(f, "}\n");
    assert_int_equal(fclose(f), 0);
}

static void bench_start(Bench *b, int images) {
    Run *r = &b->run;
    run_start(r);
    path_in(b->model, sizeof b->model, r, "model");
    path_in(b->train, sizeof b->train, r, "train.json");
    path_in(b->valid, sizeof b->valid, r, "valid.json");
    path_in(b->images, sizeof b->images, r, "squares");
    assert_int_equal(mkdir(b->images, 0777), 0);
    write_squares(b, b->train, "t", images, 5);
    write_squares(b, b->valid, "v", 60, 6);
    run(r, "new", b->model, "--tokenizer", TOKENIZER, "--layers", "1", "--width", "16", "--heads",
        "2", "--ffn", "32", "--positions", "130", "--image-size", "40", "--patch", "5",
        "--vision-layers", "3", "--vision-width", "32", "--vision-heads", "2", "--vision-ffn", "64",
        "--feature-layer", "-1", "--projector", "linear", "--seed", "5");
    expect(r, 0, "");
}

static bool there(const Run *r, const char *name) {
    char path[512];
    path_in(path, sizeof path, r, name);
    return access(path, F_OK) == 0;
}

static void assert_same_file(const Run *r, const char *a, const char *b) {
    char path[2][512], *bytes[2];
    size_t size[2];
    path_in(path[0], sizeof path[0], r, a), path_in(path[1], sizeof path[1], r, b);
    for (int i = 0; i < 2; i++)
        if (!(bytes[i] = file_bytes(path[i], &size[i]))) fail_msg("%s is missing", path[i]);
    if (size[0] != size[1] || memcmp(bytes[0], bytes[1], size[0]))
        fail_msg("%s and %s differ", a, b);
    free(bytes[0]), free(bytes[1]);
}

/* All lines of a run's metrics. */
static json_t *metrics_of(const Run *r, const char *out) {
    char name[300], path[512];
    snprintf(name, sizeof name, "%s/metrics.jsonl", out);
    path_in(path, sizeof path, r, name);
    char *text = file_bytes(path, NULL);
    json_t *lines = json_array();
    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        json_array_append_new(lines, json_loads(line, 0, NULL));
    free(text);
    return lines;
}

/* The last (or with `at` 0 the first) value of a key in a run's metrics; NaN: none. */
static double metric(const Run *r, const char *out, const char *key, int at) {
    json_t *lines = metrics_of(r, out), *line;
    size_t i;
    double found = NAN;
    json_array_foreach(lines, i, line) {
        const json_t *value = json_object_get(line, key);
        if (value && (at || isnan(found))) found = json_number_value(value);
    }
    json_decref(lines);
    return found;
}

/* It finds the squares in unseen images; a second run resumes; other stages use the tower and drop
 * the layer. */
static void test_learns(void **state) {
    (void)state;
    Bench b;
    char out[300], again[300], trained[340], align[300];
    bench_start(&b, 240);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out"), path_in(again, sizeof again, r, "again");
    path_in(align, sizeof align, r, "align");
    snprintf(trained, sizeof trained, "%s/model", out);
    run(r, "train", "segment", "-m", b.model, "--data", b.train, "--images", b.images, "--valid",
        b.valid, "--out", out, "--epochs", "9", "--batch-sequences", "16", "--lr", "4e-3",
        "--valid-every", "100", "--save-every", "0", "--threads", "1");
    expect(r, 0, "");
    assert_non_null(strstr(r->err, "240 images"));
    assert_non_null(strstr(r->err, "3 classes"));
    assert_non_null(strstr(r->err, "patches right"));
    double patches = metric(r, "out", "valid_accuracy", 1);
    double objects = metric(r, "out", "valid_object_accuracy", 1);
    double loss = metric(r, "out", "valid_loss", 1);
    print_message("note: squares in 60 held-out images after 135 steps: loss %.3f, %.1f %% of the "
                  "patches right, %.1f %% of those of objects\n",
                  loss, 100 * patches, 100 * objects);
    assert_true(objects > 0.9 && patches > 0.9);
    assert_true(metric(r, "out", "valid_object_accuracy", 0) < 0.7);
    assert_same_file(r, "model/language/model.safetensors", "out/model/language/model.safetensors");
    assert_same_file(r, "model/projector.safetensors", "out/model/projector.safetensors");
    assert_same_file(r, "model/length.safetensors", "out/model/length.safetensors");
    assert_true(there(r, "out/model/segment.json") && there(r, "out/model/segment.safetensors"));
    /* Resumes with the same classes; starts anew with others. */
    run(r, "train", "segment", "-m", trained, "--data", b.train, "--images", b.images, "--valid",
        b.valid, "--out", again, "--steps", "1");
    expect(r, 0, "");
    assert_non_null(strstr(r->err, "continues from"));
    assert_true(fabs(metric(r, "again", "valid_loss", 0) - loss) <= 1e-5 * loss);
    temporary_remove(again);
    const char *other = "{\"t000.png\": {\"width\": 40, \"height\": 33, \"objects\": {\"1\": "
                        "{\"name\": \"hat\", \"x\": 0, \"y\": 0, \"w\": 5, \"h\": 5}}}}";
    char hats[300];
    write_file(r, "hats.json", other, strlen(other), hats, sizeof hats);
    run(r, "train", "segment", "-m", trained, "--data", hats, "--images", b.images, "--out", again,
        "--steps", "1");
    expect(r, 0, "");
    assert_null(strstr(r->err, "continues from"));
    temporary_remove(again);
    char layer[400];
    write_file(r, "out/model/segment.safetensors", "x", 1, layer, sizeof layer);
    run(r, "train", "segment", "-m", trained, "--data", b.train, "--images", b.images, "--out",
        again, "--steps", "1", "-q");
    assert_message(r, 1, layer);
    /* Another stage ignores it. */
    LlavaSet set;
    llava_set_make(&set, r->folder, 4);
    run(r, "train", "align", "-m", trained, "--data", set.captions, "--images", set.images, "--out",
        align, "--steps", "1", "--batch-sequences", "2", "--micro-batch-tokens", "64", "-q");
    expect(r, 0, "");
    assert_same_file(r, "out/model/vision/model.safetensors",
                     "align/model/vision/model.safetensors");
    assert_false(there(r, "align/model/segment.json"));
    assert_false(there(r, "align/model/segment.safetensors"));
    run_end(r);
}

#define SEGMENT(b, out)                                                                    \
    "train", "segment", "-m", (b)->model, "--data", (b)->train, "--images", (b)->images,   \
        "--valid", (b)->valid, "--out", (out), "--steps", "12", "--batch-sequences", "10", \
        "--micro-batch-tokens", "300", "--label-smoothing", "0.1", "--save-every", "4",    \
        "--log-every", "1", "--valid-every", "5", "--valid-limit", "9", "-q"

static void assert_same_run(const Run *r, const char *a, const char *b) {
    static const char *const keys[] = {"step",       "loss",           "norm",
                                       "valid_loss", "valid_accuracy", "valid_object_accuracy"};
    json_t *x = metrics_of(r, a), *y = metrics_of(r, b);
    assert_true(json_array_size(x) >= 12 + 3);
    assert_int_equal(json_array_size(x), json_array_size(y));
    for (size_t i = 0; i < json_array_size(x); i++)
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            const json_t *p = json_object_get(json_array_get(x, i), keys[k]);
            const json_t *q = json_object_get(json_array_get(y, i), keys[k]);
            if (p != q && !json_equal(p, q)) fail_msg("line %d: %s differs", (int)i, keys[k]);
        }
    json_decref(x), json_decref(y);
    static const char *const files[] = {"vision/model.safetensors", "vision/config.json",
                                        "segment.safetensors", "segment.json", "easyfirst.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char names[2][300];
        snprintf(names[0], sizeof names[0], "%s/model/%s", a, files[i]);
        snprintf(names[1], sizeof names[1], "%s/model/%s", b, files[i]);
        assert_same_file(r, names[0], names[1]);
    }
}

/* Sends SIGKILL when metrics.jsonl has `lines` lines. */
static void kill_at(const Run *r, int lines, char *const *args) {
    char *argv[64], path[512];
    const char *program = getenv("EASYFIRST");
    int n = 0, status;
    argv[n++] = (char *)(program && *program ? program : "build/easyfirst");
    for (; *args; args++) argv[n++] = *args;
    argv[n] = NULL;
    path_in(path, sizeof path, r, "killed/metrics.jsonl");
    pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(99);
    }
    assert_true(child > 0);
    for (int tries = 0; tries < 20000; tries++) {
        char *text = file_bytes(path, NULL);
        int found = text ? count_lines(text) : 0;
        free(text);
        if (found >= lines) break;
        if (waitpid(child, &status, WNOHANG) == child) fail_msg("ended by itself: %d", status);
        usleep(1000);
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

/* Stopped or killed and resumed, also with less memory, it equals the uninterrupted run; also with
 * the tower alone, without a language model. */
static void test_resume(void **state) {
    (void)state;
    Bench b;
    char whole[300], parts[300], killed[300], alone[300], eye[340];
    bench_start(&b, 40);
    Run *r = &b.run;
    path_in(whole, sizeof whole, r, "whole"), path_in(parts, sizeof parts, r, "parts");
    path_in(killed, sizeof killed, r, "killed"), path_in(alone, sizeof alone, r, "alone");
    run(r, SEGMENT(&b, whole));
    expect(r, 0, "");
    run(r, SEGMENT(&b, parts), "--stop-after", "5");
    expect(r, 0, "");
    assert_false(there(r, "parts/model"));
    run(r, "train", "--resume", "--out", parts, "--activation-checkpointing");
    expect(r, 0, "");
    assert_same_run(r, "whole", "parts");
    kill_at(r, 7, (char *[]){SEGMENT(&b, killed), NULL});
    run(r, "train", "--resume", "--out", killed);
    expect(r, 0, "");
    assert_same_run(r, "whole", "killed");
    /* Other images in the same file. */
    run(r, SEGMENT(&b, alone), "--stop-after", "2");
    expect(r, 0, "");
    write_squares(&b, b.train, "t", 41, 5);
    run(r, "train", "--resume", "--out", alone);
    assert_message(r, 1, "data", "checkpoint-00000002");
    temporary_remove(alone);
    write_squares(&b, b.train, "t", 40, 5);
    /* --vision PATH alone, with the folder's feature layer. */
    snprintf(eye, sizeof eye, "%s/vision", b.model);
    run(r, "train", "segment", "--vision", eye, "--feature-layer", "-1", "--data", b.train,
        "--images", b.images, "--out", alone, "--steps", "2", "--batch-sequences", "10",
        "--micro-batch-tokens", "300", "--dtype", "f32", "--label-smoothing", "0.1", "--log-every",
        "1");
    expect(r, 0, "");
    assert_false(there(r, "alone/model/language"));
    assert_true(there(r, "alone/model/vision/preprocessor_config.json"));
    assert_true(metric(r, "alone", "loss", 0) == metric(r, "whole", "loss", 0));
    temporary_remove(whole);
    char from[340];
    snprintf(from, sizeof from, "%s/model", alone);
    run(r, "train", "segment", "-m", from, "--data", b.train, "--images", b.images, "--out", whole,
        "--steps", "1", "-q");
    expect(r, 0, "");
    run_end(r);
}

static void test_refused(void **state) {
    (void)state;
    Bench b;
    char out[300], path[400];
    bench_start(&b, 20);
    Run *r = &b.run;
    path_in(out, sizeof out, r, "out");
#define REFUSED(...)                                                                            \
    run(r, "train", "segment", "-m", b.model, "--data", b.train, "--images", b.images, "--out", \
        out, "--steps", "2", "-q", __VA_ARGS__)
    REFUSED("--dropout", "0.1");
    assert_message(r, 2, "--dropout", "segment");
    REFUSED("--train-vision");
    assert_message(r, 2, "--train-vision", "segment");
    REFUSED("--new-projector", "linear");
    assert_message(r, 2, "--new-projector", "segment");
    REFUSED("--lora-rank", "2");
    assert_message(r, 2, "--lora-rank", "segment");
    run(r, "train", "segment", "-m", b.model, "--data", b.train, "--out", out);
    assert_message(r, 2, "--images", "segment");
    snprintf(path, sizeof path, "%s/language", b.model);
    run(r, "train", "segment", "--language", path, "--data", b.train, "--images", b.images, "--out",
        out);
    assert_message(r, 2, "vision tower", "--vision");
    /* Unreadable images: more than the allowed fraction, found at the start or during training. */
    const char *text = "{\"t000.png\": {\"width\": 40, \"height\": 33, \"objects\": {}},"
                       " \"t001.png\": {\"width\": 33, \"height\": 40, \"objects\": {}},"
                       " \"gone\": {\"width\": 33, \"height\": 40, \"objects\": {}}}";
    char bad[300];
    write_file(r, "bad.json", text, strlen(text), bad, sizeof bad);
    run(r, "train", "segment", "-m", b.model, "--data", bad, "--images", b.images, "--out", out,
        "--steps", "2", "-q");
    assert_message(r, 1, "no such image: 1", "gone.jpg");
    run(r, "train", "segment", "-m", b.model, "--data", bad, "--data", b.train, "--images",
        b.images, "--out", out, "--epochs", "1", "--max-bad-fraction", "0.03", "-q");
    assert_message(r, 1, "image of another size: 1", "t001.png", "40x33");
    temporary_remove(out);
    run(r, "train", "segment", "-m", b.model, "--data", bad, "--data", b.train, "--images",
        b.images, "--out", out, "--epochs", "1", "--max-bad-fraction", "0.5");
    expect(r, 0, "");
    assert_non_null(strstr(r->err, "left out   1 x no such image"));
    assert_non_null(strstr(r->err, "left out   image of another size"));
    run_end(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),   cmocka_unit_test(test_tower),
        cmocka_unit_test(test_same),   cmocka_unit_test(test_learns),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
