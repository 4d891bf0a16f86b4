/* gqa.h - the question files of GQA (Hudson, Manning, 2019), official and LLaVA's.
 *
 *   {"20": {"question": "Is it overcast?", "imageId": "n161313", "answer": "no",
 *           "isBalanced": true, "groups": {"global": null, "local": "..."}, "entailed": [...],
 *           "types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"},
 *           "semantic": [{"operation": "select", "argument": "scene", ...}, ...],
 *           "annotations": {"question": {"0": "777"}, "fullAnswer": {}, ...}, ...}, ...}
 *
 * or lines of {"question_id": "20", "image": "n161313.jpg", "text": "Is it overcast?\n..."}, which
 * have an answer only if "answer" was added. The file's first bytes tell the two formats apart. A
 * folder is read as all of its .json files, in the order of their names, like the official
 * train_all_questions. Files are read as a stream, one question in memory at a time.
 *
 * What is wrong with one entry is counted by kind and named, see skipped.h. An entry with an id and
 * nothing else usable is still a question: it cannot be answered and stays in the denominator.
 */
#ifndef EASYFIRST_DATA_SETS_GQA_H
#define EASYFIRST_DATA_SETS_GQA_H

#include <stdbool.h>
#include <stdint.h>

#include "data/sets/skipped.h"
#include "data/sets/text_table.h"
#include "kernels/error.h"

typedef struct GqaQuestion {
    const char *id;
    const char *image_id; /* the image's name in the scene graphs */
    const char *image;    /* its file within the folder of images: with ".jpg" where the name has no
                             extension; NULL: missing or not within that folder */
    const char *text;     /* as in the file: LLaVA's has its instruction; NULL: missing */
    const char *answer;   /* NULL: the file has none (hidden, LLaVA's) */
    const char *structural; /* choose, compare, logical, query, verify; NULL: the file has none */
    const char *semantic;   /* attr, cat, global, obj, rel; NULL */
    const char *detailed;   /* NULL */
    const char *group;      /* groups.global; NULL: none */
    bool llava;             /* from a line, not from an official file */
    bool balanced;          /* isBalanced: is scored; true if the file does not say */
    bool scene;             /* the whole image is a region, too: a step has a member "scene" */
    int steps;              /* of reasoning, as the official script counts them; -1: not known */
    const char *const *entailed; /* ids, [entailed_count] */
    int entailed_count;
    const char *const *regions; /* ids of objects in annotations.question, then .fullAnswer */
    int region_count;
} GqaQuestion;

/* The kinds of entries without a unique id. */
#define GQA_NO_OBJECT "line that is not a JSON object"
#define GQA_NO_ID     "line without an id"
#define GQA_TWICE     "question that occurs twice"

/* Returns 0 to continue, -1 for an error. What *question points to is valid until the visit
 * ends. */
typedef int (*GqaVisit)(void *user, const GqaQuestion *question, Error *err);

/* Visits all questions of a file or folder in their order; a duplicate id is visited twice. Entries
 * that are not objects, or lines without an id, are counted in *skipped and in *bad. Errors: what
 * makes the rest unreadable (malformed JSON, a truncated file), and a file without any question. */
int gqa_questions_walk(const char *path, GqaVisit visit, void *user, Skipped *skipped, int64_t *bad,
                       Error *err);

/* ---- Questions in memory. ---- */

typedef struct GqaAsked {
    int32_t id;    /* number in `ids` */
    int32_t image; /* number in `texts` of the image's file, or -1 */
    int32_t text;  /* in `texts`, or -1 */
} GqaAsked;

typedef struct GqaQuestions {
    GqaAsked *items; /* [count], in the order of the file */
    int64_t count;
    int64_t bad;     /* entries without an id: not questions, but reported */
    TextTable ids;   /* the number of an id is the index in `items` */
    TextTable texts; /* questions and names of images */
    size_t capacity;
    bool llava; /* LLaVA's: the texts have an instruction already */
} GqaQuestions;

/* Reads the questions that are balanced, or with `all` every one. Of duplicate ids the last entry
 * counts, at the position of the first, as in Python's json, and the duplicate is counted in
 * *skipped; entries that were not selected replace none. On failure *questions is empty. */
int gqa_questions_read(GqaQuestions *questions, const char *path, bool all, Skipped *skipped,
                       Error *err);
void gqa_questions_free(GqaQuestions *questions);

/* NULL where there is none. */
static inline const char *gqa_id(const GqaQuestions *q, int64_t index) {
    return text_table_get(&q->ids, q->items[index].id);
}
static inline const char *gqa_image(const GqaQuestions *q, int64_t index) {
    return q->items[index].image < 0 ? NULL : text_table_get(&q->texts, q->items[index].image);
}
static inline const char *gqa_text(const GqaQuestions *q, int64_t index) {
    return q->items[index].text < 0 ? NULL : text_table_get(&q->texts, q->items[index].text);
}

/* The index of the question with an id, or -1. */
static inline int64_t gqa_find(const GqaQuestions *q, const char *id) {
    return text_table_find(&q->ids, id);
}

#endif
