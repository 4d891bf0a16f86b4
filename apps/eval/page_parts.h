/* page_parts.h - what the pages of evaluations are made of; private to them. */
#ifndef EASYFIRST_APPS_EVAL_PAGE_PARTS_H
#define EASYFIRST_APPS_EVAL_PAGE_PARTS_H

#include <stdio.h>

#include "apps/eval/page.h"

/* The state of a page that is written. */
typedef struct EvalPage {
    FILE *out;
    const char *images; /* folder; NULL: there are no images */
    int64_t bytes;      /* of the embedded images */
    int left_out;       /* images beyond the bound, or unreadable */
} EvalPage;

/* Head and beginning of the body. */
int page_begin(EvalPage *page, const char *title, Error *err);
void page_end(EvalPage *page);

/* A text, cleaned and escaped; an absent one as a dash. */
int page_text_put(FILE *out, const char *text, Error *err);

/* A list of cards, `count` lines of `first` (and of `second`, NULL: none): image, prompt, target and
 * answers. */
int page_cards(EvalPage *page, const ScoredTask *task, const ScoredLine *first,
               const ScoredLine *second, const int64_t *lines, int64_t count, Error *err);

/* A bar from `low` to `high` with a mark at `value`, on an axis from `from` to `to`; with a line at
 * zero if the axis has one. */
void page_bar(FILE *out, double low, double value, double high, double from, double to);

/* The evaluation's folder of images, if questions have any. */
const char *page_images(const PageOptions *options, const json_t *result);

#endif
