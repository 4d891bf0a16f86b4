/* scene_graphs.h - images with the boxes of their objects: GQA's scene graphs (Hudson, Manning,
 * 2019), read for which object covers which part of an image.
 *
 *   {"2370799": {"width": 500, "height": 333,
 *                "objects": {"1234": {"name": "dog", "x": 10, "y": 20, "w": 130, "h": 95, ...},
 * ...},
 *                ...}, ...}
 *
 * An image's file is its name in the graph, with ".jpg" where that has no extension; boxes are in
 * the image's pixels, from its upper left corner. Attributes, relations and other fields are
 * ignored. A file is read as a stream, one image in memory at a time; 20 bytes are kept for each
 * object.
 */
#ifndef EASYFIRST_DATA_SETS_SCENE_GRAPHS_H
#define EASYFIRST_DATA_SETS_SCENE_GRAPHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/sets/skipped.h"
#include "kernels/error.h"

/* Class 0 is the background; more classes than this are an error. */
#define SCENE_BACKGROUND "background"
enum { SCENE_CLASSES_MOST = 65535 };

/* The part of an object's box that lies within the image. */
typedef struct SceneBox {
    float left, top, right, bottom; /* of points x: left <= x < right */
    int32_t class;                  /* -1: its name is not in the given table of classes */
} SceneBox;

typedef struct Scene {
    char *image; /* the file's path within the folder of images */
    int32_t width, height;
    int64_t first_box; /* its boxes are [first_box, first_box + box_count) */
    int32_t box_count;
} Scene;

typedef struct SceneGraphs {
    char *images;  /* folder of images */
    Scene *scenes; /* [count] */
    int64_t count;
    SceneBox *boxes; /* [box_count], those of one image in the order of the file */
    int64_t box_count;
    char **classes; /* [class_count]: "background", then names in the order of strcmp */
    int class_count;
    int64_t samples;      /* images and objects read, good and bad */
    uint64_t fingerprint; /* of the files' contents and of which images could be used */
    size_t scene_capacity, box_capacity;
} SceneGraphs;

typedef struct SceneGraphsOptions {
    const char *images; /* folder of images */
    /* The table of another SceneGraphs, for held-out data; NULL: made of the names in
     * these files. */
    const char *const *classes;
    int class_count;
    int64_t limit; /* images that are used at most; 0: all */
    /* Called for each file read, with its size and the hash of its contents; may be NULL. */
    int (*file)(void *user, const char *path, int64_t bytes, uint64_t hash, Error *err);
    void *user;
} SceneGraphsOptions;

/* Reads all files, one after the other. What is wrong with one image (no size, no objects, a name
 * that leaves the folder, no such file) or one object (no name, a number missing, a box without
 * area or outside of its image) is counted in *skipped, and it is left out. Errors: what makes the
 * rest unreadable (malformed JSON, a truncated file: with line, column and byte), and no usable
 * image at all. On failure *graphs is empty. */
int scene_graphs_open(SceneGraphs *graphs, const char *const *paths, int count,
                      const SceneGraphsOptions *options, Skipped *skipped, Error *err);
void scene_graphs_close(SceneGraphs *graphs);

/* A grid of points over an image: point (i, j) is (left + (i + 1/2) step_x, top + (j + 1/2)
 * step_y) in the image's pixels, and may lie outside of it. */
typedef struct SceneGrid {
    int side; /* points in each direction */
    double left, top, step_x, step_y;
} SceneGrid;

/* labels [side * side], in reading order: the class of the smallest box (clipped to the image) that
 * each point lies in, of equally small ones the first; 0 where there is none. */
void scene_labels(int32_t *labels, const SceneGraphs *graphs, const Scene *scene,
                  const SceneGrid *grid);

#endif
