/* page.h - an evaluation, or the comparison of two, as one self-contained HTML page: scores with
 * their intervals, and the worst or the changed answers, images beside them.
 *
 * The page has no script and makes no request: a Content-Security-Policy allows its one style, by
 * its hash, and embedded images. Texts are cleaned and escaped; images are re-encoded from their
 * pixels, at most PAGE_IMAGE_EDGE on a side, and no more than PAGE_IMAGE_BYTES of them together;
 * the page says how many were left out. The same folders and images give the same bytes.
 */
#ifndef EASYFIRST_APPS_EVAL_PAGE_H
#define EASYFIRST_APPS_EVAL_PAGE_H

#include "apps/eval/compare.h"

enum { PAGE_ANSWERS = 50, PAGE_IMAGE_EDGE = 256, PAGE_IMAGE_BYTES = 16 << 20 };

typedef struct PageOptions {
    const char *images; /* folder; NULL: as the evaluation's settings name it */
    int answers;        /* the worst ones; changed ones: of those won, and of those lost */
} PageOptions;

/* `path` is a file, which appears whole or not at all, or "-". */
int eval_page_compare(const Comparison *comparison, const char *const folders[2],
                      const PageOptions *options, const char *path, Error *err);
int eval_page_report(const Scored *scored, const json_t *result, const char *folder,
                     const PageOptions *options, const char *path, Error *err);

#endif
