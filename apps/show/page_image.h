/* page_image.h - an image as a data URL; private to the page. */
#ifndef EASYFIRST_APPS_SHOW_PAGE_IMAGE_H
#define EASYFIRST_APPS_SHOW_PAGE_IMAGE_H

#include "vision/image.h"

/* A data URL of the image, with at most `edge` pixels on a side (smaller ones keep their size): PNG
 * or JPEG of quality 88, whichever is shorter. Terminated; the caller's to free; NULL on
 * failure. */
char *image_address(const Image *pixels, int edge, Error *err);

#endif
