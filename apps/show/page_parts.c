/* The assembler includes the files; the Makefile lists them as dependencies of this one. */
#include "apps/show/page_parts.h"

PAGE_PART(, page_, html, "apps/show/page/page.html")
PAGE_PART(, page_, style, "apps/show/page/page.css")
PAGE_PART(, page_, script, "apps/show/page/page.js")
