#include "apps/show/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "apps/show/markup.h"
#include "apps/show/page_parts.h"
#include "apps/show/page_image.h"
#include "apps/show/text.h"
#include "projector/easyfirst.h"

/* The values of the page's placeholders. */
typedef struct PageTexts {
    PagePart style, script;
    char *data, *pixels; /* JSON; the image's data URL; NULL: none */
    char *question, *answer, *image;
} PageTexts;

/* A source of the Content-Security-Policy: the hash of an inline script or style. */
static int put_hash(FILE *out, PagePart part, Error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE], text[EVP_MAX_MD_SIZE * 2];
    unsigned size = 0;
    if (!EVP_Digest(part.text, part.size, digest, &size, EVP_sha256(), NULL))
        return error_set(err, "libcrypto cannot compute SHA-256: check its installation");
    EVP_EncodeBlock(text, digest, (int)size);
    fprintf(out, "'sha256-%s'", (char *)text);
    return 0;
}

static int put_policy(FILE *out, const PageTexts *texts, Error *err) {
    fputs("default-src 'none'; img-src data:; style-src ", out);
    TRY(put_hash(out, texts->style, err));
    fputs("; script-src ", out);
    TRY(put_hash(out, texts->script, err));
    fputs("; base-uri 'none'; form-action 'none'", out);
    return 0;
}

static void put_image(FILE *out, const PageTexts *texts) {
    if (!texts->pixels) return;
    fputs("<img id=\"image\" alt=\"The image: ", out);
    markup_put(out, texts->image);
    fprintf(out, "\" src=\"%s\">", texts->pixels);
}

/* Fills one placeholder. */
static int put_place(FILE *out, const char *name, size_t size, const PageTexts *texts, Error *err) {
#define IS(what) (size == strlen(what) && !memcmp(name, what, size))
    if (IS("policy")) return put_policy(out, texts, err);
    if (IS("style")) return fwrite(texts->style.text, 1, texts->style.size, out), 0;
    if (IS("script")) return fwrite(texts->script.text, 1, texts->script.size, out), 0;
    if (IS("data")) return fputs(texts->data, out), 0;
    if (IS("image")) return put_image(out, texts), 0;
    if (IS("question")) return markup_put(out, texts->question), 0;
    if (IS("answer")) return markup_put(out, texts->answer), 0;
    if (IS("version")) return fputs(EF_VERSION, out), 0;
#undef IS
    return error_set(err, "the page has an unknown placeholder {{%.*s}}", (int)size, name);
}

static int put_page(FILE *out, const PageTexts *texts, Error *err) {
    PagePart page = page_part_html();
    for (const char *at = page.text, *end = page.text + page.size; at < end;) {
        const char *open = memmem(at, (size_t)(end - at), "{{", 2);
        if (!open) open = end;
        fwrite(at, 1, (size_t)(open - at), out);
        if (open == end) return 0;
        const char *close = memmem(open, (size_t)(end - open), "}}", 2);
        if (!close) return error_set(err, "the page has a placeholder without its end");
        TRY(put_place(out, open + 2, (size_t)(close - open - 2), texts, err));
        at = close + 2;
    }
    return 0;
}

/* Attention maps would be misplaced on another image. */
static int image_check(const Trace *trace, const Image *pixels, Error *err) {
    const TraceGeometry *known = &trace->geometry;
    if (!pixels || !known->width ||
        (pixels->width == known->width && pixels->height == known->height))
        return 0;
    return error_set(err,
                     "the image has %d x %d pixels, the one that was asked about %d x %d: it is "
                     "another one",
                     pixels->width, pixels->height, known->width, known->height);
}

static int texts_make(PageTexts *texts, const Trace *trace, const Image *pixels, Error *err) {
    *texts = (PageTexts){.style = page_part_style(), .script = page_part_script()};
    TRY(image_check(trace, pixels, err));
    texts->question = harmless_text(trace_heading(trace));
    texts->answer = harmless_text(trace->hypotheses[trace->best].text);
    texts->image = page_name(trace->image ? trace->image : "", 0);
    if (!texts->question || !texts->answer || !texts->image)
        return error_set(err, "out of memory for the page's texts");
    if (pixels && !(texts->pixels = image_address(pixels, PAGE_EDGE, err))) return -1;
    return (texts->data = page_json(trace, err)) ? 0 : -1;
}

static void texts_free(PageTexts *texts) {
    free(texts->data), free(texts->pixels);
    free(texts->question), free(texts->answer), free(texts->image);
}

char *page_text(const Trace *trace, const Image *pixels, size_t *size, Error *err) {
    PageTexts texts;
    Markup page;
    int status = texts_make(&texts, trace, pixels, err);
    if (status == 0 && (status = markup_begin(&page, err)) == 0)
        status = markup_end(&page, put_page(page.out, &texts, err), err);
    texts_free(&texts);
    if (status) return NULL;
    if (size) *size = page.size;
    return page.text;
}

int page_write(const Trace *trace, const Image *pixels, const char *path, Error *err) {
    size_t size;
    char *text = page_text(trace, pixels, &size, err);
    return markup_write(text, size, path, err);
}
