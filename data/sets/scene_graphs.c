#include "data/sets/scene_graphs.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files/array_grow.h"
#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/json_array.h"
#include "data/sets/image_file.h"

/* The scan of all files; until its end a box's class is its name's number in order of
 * occurrence. */
typedef struct Scan {
    SceneGraphs *graphs;
    const SceneGraphsOptions *options;
    Skipped *skipped;
    const char *path; /* of the current file */
    json_t *names;    /* name: its number */
    ContentHash hash; /* of all files */
} Scan;

enum { SIDE_MOST = 1 << 24 }; /* pixels that a float counts exactly */

/* ---- Names. ---- */

/* Whether a member is a string that can be a name. */
static bool is_name(const json_t *name) {
    return json_is_string(name) && json_string_length(name) > 0 &&
           strlen(json_string_value(name)) == json_string_length(name);
}

/* The number of a name: in the given table, or in order of occurrence. */
static int name_number(Scan *s, const char *name, int32_t *number, Error *err) {
    const json_t *known = json_object_get(s->names, name);
    size_t count = json_object_size(s->names);
    *number = known ? (int32_t)json_integer_value(known) : -1;
    if (known || s->options->classes) return 0;
    if (count >= SCENE_CLASSES_MOST)
        return error_set(err,
                         "%s: its objects have more than %d names, the maximum number of classes",
                         s->path, SCENE_CLASSES_MOST - 1);
    if (json_object_set_new(s->names, name, json_integer((json_int_t)count)))
        return error_set(err, "%s: out of memory for the names of objects", s->path);
    *number = (int32_t)count;
    return 0;
}

/* The names known before the first file. */
static int names_begin(Scan *s, Error *err) {
    const SceneGraphsOptions *o = s->options;
    s->names = json_object();
    int failed = s->names ? 0 : -1;
    for (int i = 0; o->classes && i < o->class_count; i++)
        failed |= json_object_set_new(s->names, o->classes[i], json_integer(i));
    if (!o->classes) failed |= json_object_set_new(s->names, SCENE_BACKGROUND, json_integer(0));
    return failed ? error_set(err, "out of memory for the names of objects") : 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Makes the table of classes; boxes get their index in it. */
static int names_end(Scan *s, Error *err) {
    SceneGraphs *g = s->graphs;
    size_t count = json_object_size(s->names), i = 0;
    int32_t *place = calloc(count, sizeof *place);
    const char *name;
    json_t *number;
    g->classes = calloc(count, sizeof *g->classes);
    int status = place && g->classes ? 0 : -1;
    json_object_foreach(s->names, name, number) {
        if (status) break;
        g->classes[i] = strdup(name);
        if (!g->classes[i++]) status = -1;
        g->class_count = (int)i;
    }
    /* Given ones are in order already; made ones begin with the background. */
    if (status == 0 && !s->options->classes)
        qsort(g->classes + 1, count - 1, sizeof *g->classes, by_text);
    for (int c = 0; status == 0 && c < g->class_count; c++)
        place[json_integer_value(json_object_get(s->names, g->classes[c]))] = c;
    for (int64_t b = 0; status == 0 && b < g->box_count; b++)
        if (g->boxes[b].class >= 0) g->boxes[b].class = place[g->boxes[b].class];
    free(place);
    return status ? error_set(err, "out of memory for the names of objects") : 0;
}

/* ---- One image. ---- */

static void add_bad(const Scan *s, const char *kind, const char *image, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void add_bad(const Scan *s, const char *kind, const char *image, const char *format, ...) {
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    skipped_add(s->skipped, kind, "%.150s: image %.80s: %s", s->path, image, what);
}

/* A finite number of an object; false after counting what is wrong. */
static bool take_number(const Scan *s, const json_t *object, const char *image, const char *id,
                        const char *name, double *value) {
    const json_t *number = json_object_get(object, name);
    *value = json_number_value(number);
    if (json_is_number(number) && isfinite(*value)) return true;
    add_bad(s, "object without a box", image, "object %.60s: \"%s\" is %s, expected a number", id,
            name, number ? "something else" : "missing");
    return false;
}

/* The part of a box within the image; false after counting what is wrong. */
static bool take_box(const Scan *s, const json_t *object, const Scene *scene, const char *id,
                     SceneBox *box) {
    static const char *const fields[4] = {"x", "y", "w", "h"};
    double v[4];
    for (int i = 0; i < 4; i++)
        if (!take_number(s, object, scene->image, id, fields[i], &v[i])) return false;
    if (!(v[2] > 0 && v[3] > 0)) {
        add_bad(s, "box without area", scene->image, "object %.60s is %g wide and %g high", id,
                v[2], v[3]);
        return false;
    }
    *box = (SceneBox){.left = (float)fmax(v[0], 0),
                      .top = (float)fmax(v[1], 0),
                      .right = (float)fmin(v[0] + v[2], scene->width),
                      .bottom = (float)fmin(v[1] + v[3], scene->height)};
    if (box->left < box->right && box->top < box->bottom) return true;
    add_bad(s, "box outside of the image", scene->image,
            "object %.60s is at (%g, %g), %g x %g, in an image of %d x %d", id, v[0], v[1], v[2],
            v[3], scene->width, scene->height);
    return false;
}

static int take_object(Scan *s, const json_t *object, Scene *scene, const char *id, Error *err) {
    SceneGraphs *g = s->graphs;
    const json_t *name = json_object_get(object, "name");
    SceneBox box;
    g->samples++;
    if (!is_name(name)) {
        add_bad(s, "object without a name", scene->image,
                "object %.60s: \"name\" is %s, expected a string", id,
                name ? "something else" : "missing");
        return 0;
    }
    if (!take_box(s, object, scene, id, &box)) return 0;
    TRY(name_number(s, json_string_value(name), &box.class, err));
    if ((size_t)g->box_count == g->box_capacity) {
        SceneBox *grown = array_grow(g->boxes, &g->box_capacity, sizeof *grown);
        if (!grown)
            return error_set(err, "%s: out of memory for %lld objects", s->path,
                             (long long)g->box_count);
        g->boxes = grown;
    }
    g->boxes[g->box_count++] = box;
    scene->box_count++;
    return 0;
}

static bool take_side(const Scan *s, const json_t *graph, const char *key, const char *name,
                      int32_t *side) {
    const json_t *value = json_object_get(graph, name);
    json_int_t n = json_integer_value(value); /* 0 if it is not an integer */
    *side = (int32_t)(n < 1 || n > SIDE_MOST ? 0 : n);
    if (*side) return true;
    add_bad(s, "image without a size", key, "\"%s\" is %s, expected a whole number of pixels", name,
            value ? "something else" : "missing");
    return false;
}

/* The image's file: NULL after counting what is wrong. */
static int take_image(const Scan *s, const char *key, char **image, Error *err) {
    char text[512];
    const char *slash = strrchr(key, '/'), *last = slash ? slash + 1 : key;
    *image = NULL;
    if (!last[0] || image_leaves_folder(key)) {
        add_bad(s, "image outside of the folder", key,
                "expected a path within the folder of images, without \"..\"");
        return 0;
    }
    if (asprintf(image, "%s%s", key, strchr(last, '.') ? "" : ".jpg") < 0) {
        *image = NULL;
        return error_set(err, "%s: out of memory", s->path);
    }
    const char *kind = image_file_check(text, sizeof text, s->options->images, *image);
    if (!kind) return 0;
    add_bad(s, kind, key, "%s", text);
    free(*image);
    *image = NULL;
    return 0;
}

static int take_scene(Scan *s, const char *key, const json_t *graph, Scene *scene, Error *err) {
    const json_t *objects = json_object_get(graph, "objects"), *object;
    const char *id;
    *scene = (Scene){.first_box = s->graphs->box_count};
    s->graphs->samples++;
    if (!json_is_object(objects)) {
        add_bad(s, "image without objects", key, "\"objects\" is %s, expected an object",
                objects ? "something else" : "missing");
        return 0;
    }
    if (!take_side(s, graph, key, "width", &scene->width) ||
        !take_side(s, graph, key, "height", &scene->height))
        return 0;
    TRY(take_image(s, key, &scene->image, err));
    if (!scene->image) return 0;
    json_object_foreach((json_t *)objects, id, object) TRY(take_object(s, object, scene, id, err));
    return 0;
}

static int visit_scene(void *user, const JsonElement *element, Error *err) {
    Scan *s = user;
    SceneGraphs *g = s->graphs;
    Scene scene;
    if (!element->value) {
        g->samples++;
        add_bad(s, element->kind, element->key, "%s", element->why);
        return 0;
    }
    int status = take_scene(s, element->key, element->value, &scene, err);
    if (status == 0 && scene.image && (size_t)g->count == g->scene_capacity) {
        Scene *grown = array_grow(g->scenes, &g->scene_capacity, sizeof *grown);
        if (grown)
            g->scenes = grown;
        else
            status =
                error_set(err, "%s: out of memory for %lld images", s->path, (long long)g->count);
    }
    if (status || !scene.image) {
        free(scene.image);
        return status;
    }
    g->scenes[g->count++] = scene;
    return s->options->limit > 0 && g->count >= s->options->limit;
}

/* ---- Files. ---- */

static int scan_file(Scan *s, const char *path, Error *err) {
    int64_t bytes;
    s->path = path;
    int fd = file_open_input(path, "scene graphs are read from a file on disk", &bytes, err);
    if (fd < 0) return -1;
    ContentHash hash = {0};
    FileWindow window = {.path = path, .fd = fd, .hash = &hash};
    int status = window_more(&window, 0, err);
    const char *other = status == 0 ? file_kind_hint(window.bytes, window.size) : NULL;
    if (other) status = error_set(err, "%s: this is %s", path, other);
    size_t begin = window.size >= 3 && !memcmp(window.bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;
    if (status == 0) status = json_object_walk(&window, begin, visit_scene, s, err);
    window_free(&window);
    close(fd);
    TRY(status);
    uint64_t numbers[2] = {content_hash_value(&hash), (uint64_t)bytes};
    content_hash_add(&s->hash, numbers, sizeof numbers);
    if (!s->options->file) return 0;
    return s->options->file(s->options->user, path, bytes, numbers[0], err);
}

static int scan_all(Scan *s, const char *const *paths, int count, Error *err) {
    SceneGraphs *g = s->graphs;
    int64_t limit = s->options->limit;
    TRY(names_begin(s, err));
    for (int i = 0; i < count && !(limit && g->count >= limit); i++)
        TRY(scan_file(s, paths[i], err));
    if (!g->count && s->skipped->kind_count)
        return error_set(err, "%s: none of its images can be used: %s (%s)", paths[0],
                         s->skipped->kinds[0].kind, s->skipped->kinds[0].first);
    if (!g->count) return error_set(err, "%s: it has no images", paths[0]);
    TRY(names_end(s, err));
    /* An image's file may have been added or removed. */
    for (int64_t i = 0; i < g->count; i++) {
        const char *image = g->scenes[i].image;
        content_hash_add(&s->hash, image, strlen(image) + 1);
    }
    g->fingerprint = content_hash_value(&s->hash);
    return 0;
}

int scene_graphs_open(SceneGraphs *graphs, const char *const *paths, int count,
                      const SceneGraphsOptions *options, Skipped *skipped, Error *err) {
    *graphs = (SceneGraphs){0};
    if (!options->images)
        return error_set_code(err, ERROR_NO_IMAGES, "%s: the folder of its images is not named",
                              paths[0]);
    Scan scan = {.graphs = graphs, .options = options, .skipped = skipped};
    graphs->images = strdup(options->images);
    if (!graphs->images) return error_set(err, "out of memory");
    int status = scan_all(&scan, paths, count, err);
    json_decref(scan.names);
    if (status) scene_graphs_close(graphs);
    return status;
}

void scene_graphs_close(SceneGraphs *g) {
    for (int64_t i = 0; i < g->count; i++) free(g->scenes[i].image);
    for (int i = 0; i < g->class_count; i++) free(g->classes[i]);
    free(g->scenes), free(g->boxes), free(g->classes), free(g->images);
    *g = (SceneGraphs){0};
}

/* ---- Labels. ---- */

static double area(const SceneBox *b) {
    return (double)(b->right - b->left) * (double)(b->bottom - b->top);
}

void scene_labels(int32_t *labels, const SceneGraphs *graphs, const Scene *scene,
                  const SceneGrid *grid) {
    const SceneBox *boxes = scene->box_count ? graphs->boxes + scene->first_box : NULL;
    for (int j = 0; j < grid->side; j++)
        for (int i = 0; i < grid->side; i++) {
            double x = grid->left + (i + 0.5) * grid->step_x;
            double y = grid->top + (j + 0.5) * grid->step_y, least = INFINITY;
            int32_t label = 0;
            for (int b = 0; b < scene->box_count; b++) {
                const SceneBox *box = &boxes[b];
                bool inside = x >= box->left && x < box->right && y >= box->top && y < box->bottom;
                if (!inside || !(area(box) < least)) continue;
                least = area(box);
                label = box->class;
            }
            labels[j * grid->side + i] = label;
        }
}
