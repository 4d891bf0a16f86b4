/* images.h - names of images on the command line of `ask`, and folders of them. */
#ifndef EASYFIRST_APPS_ASK_IMAGES_H
#define EASYFIRST_APPS_ASK_IMAGES_H

#include <stdbool.h>

#include "data/files/text_list.h"
#include "kernels/error.h"

/* Whether a word is written as an image's name is, so that it is no question even if there is no
 * such file: one word, with an image's ending. */
bool image_named(const char *word);

bool image_folder(const char *word);

/* Puts in place of each folder of the list the files in it that are named like images, in the order
 * of their names; a folder without one is an error. `texts` takes the new names, to be freed one by
 * one with images_free. */
int images_expand(TextList *list, TextList *texts, Error *err);
void images_free(TextList *texts);

#endif
