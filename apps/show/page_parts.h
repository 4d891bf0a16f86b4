/* page_parts.h - the files and data that the page is made of; private to the page. */
#ifndef EASYFIRST_APPS_SHOW_PAGE_PARTS_H
#define EASYFIRST_APPS_SHOW_PAGE_PARTS_H

#include "apps/trace/trace.h"

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

/* The end of a path, with `folders` folders before the last name, control characters replaced: a
 * page does not reveal where a file was. The caller's to free; NULL: out of memory. */
char *page_name(const char *path, int folders);

/* Defines a function that gives a file, which the assembler includes: PREFIXpart_NAME. `scope` is
 * static, or nothing; the Makefile lists the files as dependencies. */
#define PAGE_PART(scope, prefix, name, path)                                        \
    __asm__(".section .rodata\n"                                                    \
            ".global " #prefix #name "_begin\n"                                     \
            ".global " #prefix #name "_end\n" #prefix #name "_begin:\n"             \
            ".incbin \"" path "\"\n" #prefix #name "_end:\n"                        \
            ".byte 0\n"                                                             \
            ".previous\n");                                                         \
    extern const char prefix##name##_begin[] __attribute__((visibility("hidden"))); \
    extern const char prefix##name##_end[] __attribute__((visibility("hidden")));   \
    scope PagePart prefix##part_##name(void) {                                      \
        return (PagePart){prefix##name##_begin,                                     \
                          (size_t)(prefix##name##_end - prefix##name##_begin)};     \
    }

#endif
