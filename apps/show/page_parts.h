/* page_parts.h - what the page is made of; private to the page. */
#ifndef EASYFIRST_APPS_SHOW_PAGE_PARTS_H
#define EASYFIRST_APPS_SHOW_PAGE_PARTS_H

#include "apps/show/trace.h"

/* The files of apps/show/page/, which are part of the program. */
typedef struct PagePart {
    const char *text; /* not terminated */
    size_t size;
} PagePart;

PagePart page_part_html(void);
PagePart page_part_style(void);
PagePart page_part_script(void);

/* The page's block of JSON (page.h), terminated; the caller's to free. NULL on failure. */
char *page_json(const Trace *trace, Error *err);

/* The end of a path, with so many folders before the last name, made harmless: where a file lay is
 * nobody's business who gets a page to see. The caller's to free; NULL without memory. */
char *page_name(const char *path, int folders);

#endif
