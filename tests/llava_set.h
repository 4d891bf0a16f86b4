/* llava_set.h - a small data set in LLaVA's format, with images: colored shapes that are drawn here
 * and, if ../shared exists, its photographs; conversations about them; and records that are
 * malformed in every way that users meet. */
#ifndef EASYFIRST_TESTS_LLAVA_SET_H
#define EASYFIRST_TESTS_LLAVA_SET_H

#include "tests/test.h"

typedef struct LlavaSet {
    char captions[300];      /* stage 1: one caption an image */
    char conversations[300]; /* stage 2: several turns, text-only records, all kinds of ids */
    char broken[300];        /* the same, with malformed records among the valid ones */
    char images[300];        /* the folder of images */
    int image_count, broken_records;
} LlavaSet;

/* Writes everything below `folder`. */
void llava_set_make(LlavaSet *set, const char *folder, int images);

#endif
