/* page.c - the page, put together once from the files of apps/serve/page/ and the style of
 * apps/show/page/. The assembler includes the files; the Makefile lists them as dependencies.
 *
 * The policy allows this page's script and style by their hashes, those of `show`'s page, which is
 * opened in a frame without rights, and requests to this server; nothing else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "apps/serve/serve.h"
#include "apps/show/markup.h"
#include "apps/show/page_parts.h"

PAGE_PART(static, serve_, html, "apps/serve/page/serve.html")
PAGE_PART(static, serve_, style, "apps/serve/page/serve.css")
PAGE_PART(static, serve_, script, "apps/serve/page/serve.js")

/* 'sha256-...', of one text or two after each other. */
static int put_hash(FILE *out, PagePart first, PagePart second, Error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE], text[EVP_MAX_MD_SIZE * 2];
    unsigned size = 0;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool done = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
                EVP_DigestUpdate(context, first.text, first.size) &&
                EVP_DigestUpdate(context, second.text, second.size) &&
                EVP_DigestFinal_ex(context, digest, &size);
    EVP_MD_CTX_free(context);
    if (!done) return error_set(err, "libcrypto cannot compute SHA-256: check its installation");
    EVP_EncodeBlock(text, digest, (int)size);
    fprintf(out, " 'sha256-%s'", (char *)text);
    return 0;
}

static int put_policy(FILE *out, Error *err) {
    const PagePart none = {"", 0};
    fputs("default-src 'none'; img-src data: blob:; connect-src 'self'; frame-src blob:; style-src",
          out);
    TRY(put_hash(out, page_part_style(), serve_part_style(), err));
    TRY(put_hash(out, page_part_style(), none, err));
    fputs("; script-src", out);
    TRY(put_hash(out, serve_part_script(), none, err));
    TRY(put_hash(out, page_part_script(), none, err));
    fputs("; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", out);
    return 0;
}

static void put_part(FILE *out, PagePart part) {
    fwrite(part.text, 1, part.size, out);
}

static int put_page(FILE *out, Error *err) {
    const PagePart page = serve_part_html();
    for (const char *at = page.text, *end = page.text + page.size; at < end;) {
        const char *open = memmem(at, (size_t)(end - at), "{{", 2);
        const char *close = open ? memmem(open, (size_t)(end - open), "}}", 2) : NULL;
        fwrite(at, 1, (size_t)((close ? open : end) - at), out);
        if (!close) return 0;
        if (!strncmp(open, "{{style}}", 9))
            put_part(out, page_part_style()), put_part(out, serve_part_style());
        else if (!strncmp(open, "{{script}}", 10))
            put_part(out, serve_part_script());
        else if (!strncmp(open, "{{version}}", 11))
            fputs(EF_VERSION, out);
        else
            return error_set(err, "the page has an unknown placeholder");
        at = close + 2;
    }
    return 0;
}

static int text_make(char **text, size_t *size, int (*put)(FILE *, Error *), Error *err) {
    Markup markup;
    TRY(markup_begin(&markup, err));
    TRY(markup_end(&markup, put(markup.out, err), err));
    *text = markup.text, *size = markup.size;
    return 0;
}

int serve_page_make(ServePage *page, Error *err) {
    size_t policy;
    *page = (ServePage){0};
    TRY(text_make(&page->policy, &policy, put_policy, err));
    return text_make(&page->page, &page->page_size, put_page, err);
}

void serve_page_free(ServePage *page) {
    free(page->page), free(page->policy);
    *page = (ServePage){0};
}
