/* gqa_grounding.c - the share of attention in the regions that a question and its full answer name:
 * for each region, the sum over a map's cells of the attention times the part of the cell that the
 * region covers; summed over the regions, which may overlap. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"
#include "data/sets/gqa_answers.h"
#include "data/sets/gqa_file.h"
#include "data/metrics/gqa_state.h"

/* ---- Scene graphs. ---- */

/* A finite number, or NaN. */
static double number_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int take_object(GqaState *s, const char *scene, const char *id, const json_t *object,
                       double width, double height, Error *err) {
    int32_t number = text_table_find(&s->objects, id);
    if (number < 0) return 0; /* not an image of any question */
    double x = number_of(object, "x"), y = number_of(object, "y");
    double w = number_of(object, "w"), h = number_of(object, "h");
    if (!isfinite(x + y + w + h)) {
        skipped_add(&s->score->skipped, "object without a box",
                    "%.150s: image %.80s: object %.60s: expected \"x\", \"y\", \"w\", \"h\"",
                    s->files->scene_graphs, scene, id);
        return 0;
    }
    if (s->box_count == s->box_capacity) {
        GqaBox *grown = array_grow(s->boxes, &s->box_capacity, sizeof *grown);
        if (!grown) return error_set(err, "out of memory for %zu objects", s->box_count);
        s->boxes = grown;
    }
    s->boxes[s->box_count++] =
        (GqaBox){number, x / width, y / height, (x + w) / width, (y + h) / height};
    return 0;
}

static int take_image(void *user, const JsonElement *element, Error *err) {
    GqaState *s = user;
    int32_t image = text_table_find(&s->images, element->key);
    if (image < 0) return 0;
    json_t *objects = json_object_get(element->value, "objects"), *object;
    double width = number_of(element->value, "width"), height = number_of(element->value, "height");
    const char *id;
    if (!(width > 0 && height > 0) || !json_is_object(objects)) {
        skipped_add(&s->score->skipped, "image that is wrong in the scene graphs",
                    "%.150s: image %.80s: expected \"width\", \"height\" and \"objects\"",
                    s->files->scene_graphs, element->key);
        return 0;
    }
    GqaScene *scene = &s->scenes[image];
    if (scene->known)
        skipped_add(&s->score->skipped, "image that occurs twice",
                    "%.150s: image %.80s: the last one counts", s->files->scene_graphs,
                    element->key);
    *scene = (GqaScene){.first_box = s->box_count, .known = true};
    json_object_foreach(objects, id, object)
        TRY(take_object(s, element->key, id, object, width, height, err));
    scene->box_count = s->box_count - scene->first_box;
    return 0;
}

/* ---- Maps. ---- */

/* The length of the overlap of two intervals. */
static double shared(double a0, double a1, double b0, double b1) {
    double begin = fmax(a0, b0), end = fmin(a1, b1);
    return end > begin ? end - begin : 0;
}

/* The attention in a region; a cell [x][y] is edge wide and high. */
static double attention_in(const double *map, double x0, double y0, double x1, double y1) {
    const double edge = 1.0 / GQA_MAP_SIDE;
    double sum = 0;
    for (int i = 0; i < GQA_MAP_SIDE; i++)
        for (int j = 0; j < GQA_MAP_SIDE; j++) {
            double cx0 = edge * i, cx1 = edge * (i + 1), cy0 = edge * j, cy1 = edge * (j + 1);
            double covered = shared(cx0, cx1, x0, x1) * shared(cy0, cy1, y0, y1);
            sum += map[GQA_MAP_SIDE * i + j] * (covered / ((cx1 - cx0) * (cy1 - cy0)));
        }
    return sum;
}

static const GqaBox *find_box(const GqaState *s, const GqaScene *scene, int32_t object) {
    for (size_t b = 0; b < scene->box_count; b++)
        if (s->boxes[scene->first_box + b].object == object) return &s->boxes[scene->first_box + b];
    return NULL;
}

static int take_attention(void *user, const char *id, const double *map, Error *err) {
    GqaState *s = user;
    int32_t number = text_table_find(&s->ids, id);
    (void)err;
    if (number < 0 || s->states[number].scored < 0) return 0;
    GqaScored *q = &s->scored[s->states[number].scored];
    if (!q->live) return 0;
    if (q->looked)
        skipped_add(&s->score->skipped, "attention that occurs twice",
                    "%.150s: question %.80s: the last one counts", s->files->attentions, id);
    bool again = q->looked;
    q->looked = true;
    if (q->image < 0 || !s->scenes[q->image].known) return 0;
    const GqaScene *scene = &s->scenes[q->image];
    q->grounded = true;
    q->grounding = 0;
    for (int32_t i = 0; i < q->region_count; i++) {
        int32_t object = s->regions.items[q->first_region + (size_t)i];
        const GqaBox *box = find_box(s, scene, object);
        if (box)
            q->grounding += attention_in(map, box->x0, box->y0, box->x1, box->y1);
        else if (!again)
            skipped_add(&s->score->skipped, "region without an object",
                        "question %.80s: object %.60s is not in the scene graph of its image "
                        "%.80s",
                        id, text_table_get(&s->objects, object),
                        text_table_get(&s->images, q->image));
    }
    if (q->scene) q->grounding += attention_in(map, 0, 0, 1, 1);
    return 0;
}

int gqa_ground(GqaState *s, Error *err) {
    double sum = 0;
    int64_t count = 0;
    s->scenes = calloc(s->images.count + 1, sizeof *s->scenes);
    if (!s->scenes) return error_set(err, "out of memory for %zu images", s->images.count);
    TRY(gqa_file_walk(s->files->scene_graphs, 1u << GQA_FILE_OBJECT,
                      "{\"image\": {\"width\": ..., \"height\": ..., \"objects\": {...}}}",
                      take_image, s, err));
    TRY(gqa_attentions_walk(s->files->attentions, take_attention, s, &s->score->skipped, err));
    for (size_t i = 0; i < s->scored_count; i++) {
        const GqaScored *q = &s->scored[i];
        if (!q->live) continue;
        if (q->image < 0 || !s->scenes[q->image].known) {
            skipped_add(&s->score->skipped, "image that is not in the scene graphs",
                        "%.150s: image %.80s of question %.80s", s->files->scene_graphs,
                        q->image < 0 ? "(none)" : text_table_get(&s->images, q->image),
                        gqa_scored_id(s, q));
            continue;
        }
        /* Without a map grounding is 0. */
        if (!q->looked)
            skipped_add(&s->score->skipped, "question without attention", "%.150s: question %.80s",
                        s->files->attentions, gqa_scored_id(s, q));
        sum += q->grounded ? q->grounding : 0;
        count++;
    }
    gqa_mean(s->score, GQA_GROUNDING, sum, count, "no question's image is in the scene graphs");
    return 0;
}
