#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/serve/serve.h"

int serve_page_make(ServePage *page, Error *err) {
    *page = (ServePage){0};
    page->page = strdup("<!doctype html><title>easyfirst</title>");
    page->policy = strdup("default-src 'none'");
    if (!page->page || !page->policy) return error_set(err, "out of memory");
    page->page_size = strlen(page->page);
    return 0;
}

void serve_page_free(ServePage *page) {
    free(page->page), free(page->policy);
    *page = (ServePage){0};
}
