/* gqa_state.h - the data that GQA scoring keeps of its files. Private to data/metrics/. */
#ifndef EASYFIRST_DATA_METRICS_GQA_STATE_H
#define EASYFIRST_DATA_METRICS_GQA_STATE_H

#include "data/metrics/gqa.h"
#include "data/sets/text_table.h"

/* What is known of an id. Texts are numbers in `answers`, gold and predicted alike: the same text
 * is the same number. */
typedef struct GqaIdState {
    int32_t prediction; /* -1: none */
    int32_t gold;       /* -1: no such question, or it has no answer */
    int32_t scored;     /* index in `scored`; -1: not balanced, or no such question */
    bool known;         /* a question has this id ... */
    bool in_all;        /* ... in the file of all questions */
} GqaIdState;

enum { GQA_UNKNOWN = 2 };

/* A balanced question. Types, groups and names are numbers in `names`, -1: none. */
typedef struct GqaScored {
    int32_t id;
    int32_t structural, semantic, detailed, group, image;
    int32_t words, steps;
    int32_t entailed_count, region_count;
    size_t first_entailed, first_region;
    bool live;   /* false: a later entry with its id is not balanced */
    bool common; /* types.detailed has "Common" */
    bool scene;
    uint8_t valid, plausible; /* 0, 1 or GQA_UNKNOWN */
    bool looked;              /* it has an attention map */
    bool grounded;            /* it has a map, and an image with known size */
    double grounding;
    bool exact;      /* right without case and punctuation */
    double entailed; /* share of the entailed questions answered right; NaN: does not count */
} GqaScored;

/* An object's box in fractions of its image's sides. */
typedef struct GqaBox {
    int32_t object; /* in `objects` */
    double x0, y0, x1, y1;
} GqaBox;

typedef struct GqaScene {
    size_t first_box, box_count;
    bool known;
} GqaScene;

/* An array of numbers that grows. */
typedef struct GqaNumbers {
    int32_t *items;
    size_t count, capacity;
} GqaNumbers;

typedef struct GqaState {
    const GqaFiles *files;
    GqaScore *score;
    TextTable ids, answers, names, images, objects;
    GqaIdState *states; /* [ids.count] */
    size_t state_capacity;
    GqaScored *scored; /* [scored_count] */
    size_t scored_count, scored_capacity;
    GqaNumbers entailed; /* in `ids` */
    GqaNumbers regions;  /* in `objects` */
    GqaScene *scenes;    /* [images.count] */
    GqaBox *boxes;
    size_t box_count, box_capacity;
    bool all; /* the file of all questions is being read */
} GqaState;

/* Whether the question was answered with its gold answer. */
static inline bool gqa_right(const GqaIdState *id) {
    return id->gold >= 0 && id->gold == id->prediction;
}

static inline const char *gqa_scored_id(const GqaState *s, const GqaScored *q) {
    return text_table_get(&s->ids, q->id);
}

/* Reads scene graphs and attention maps; fills `looked`, `grounded` and `grounding`. */
int gqa_ground(GqaState *state, Error *err);

/* The tables, the distribution, and the self-check, into state->score. */
int gqa_tabulate(GqaState *state, Error *err);

/* Fills state->score->outcomes. */
int gqa_keep_outcomes(GqaState *state, Error *err);

/* Writes why a metric is absent. */
void gqa_absent(GqaScore *score, GqaMetricKind kind, const char *why);
/* sum / count, in percent. With a count of 0 it is absent with reason `why`, or (NULL) 0, as in the
 * official script. */
void gqa_mean(GqaScore *score, GqaMetricKind kind, double sum, int64_t count, const char *why);

#endif
