/* The assembler includes the files; the Makefile lists them as dependencies of this one. */
#include "apps/show/page_parts.h"

#define BRING_IN(name, file)                                                                       \
    __asm__(".section .rodata\n"                                                                   \
            ".global page_" #name "_begin\n"                                                       \
            ".global page_" #name "_end\n"                                                         \
            "page_" #name "_begin:\n"                                                              \
            ".incbin \"apps/show/page/" file "\"\n"                                                \
            "page_" #name "_end:\n"                                                                \
            ".byte 0\n"                                                                            \
            ".previous\n");                                                                        \
    extern const char page_##name##_begin[] __attribute__((visibility("hidden")));                 \
    extern const char page_##name##_end[] __attribute__((visibility("hidden")));                   \
    PagePart page_part_##name(void) {                                                              \
        return (PagePart){page_##name##_begin, (size_t)(page_##name##_end - page_##name##_begin)}; \
    }

BRING_IN(html, "page.html")
BRING_IN(style, "page.css")
BRING_IN(script, "page.js")
