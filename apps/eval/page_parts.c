#include "apps/eval/page_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "apps/show/markup.h"
#include "apps/show/page_image.h"
#include "apps/show/text.h"
#include "data/files/path.h"
#include "data/sets/image_file.h"
#include "projector/easyfirst.h"
#include "vision/image.h"

/* Colors are pairs, for light and for dark. */
static const char style[] =
    ":root{color-scheme:light dark;--paper:light-dark(#fbfaf7,#16181b);"
    "--sheet:light-dark(#fff,#1e2125);--ink:light-dark(#1f1e1b,#ecebe6);"
    "--quiet:light-dark(#66635c,#a3a29c);--line:light-dark(#e3dfd6,#32363b);"
    "--accent:light-dark(#1d6a70,#6cc3bd);--good:light-dark(#2d7d46,#5fc27e);"
    "--bad:light-dark(#b3401f,#e58a63)}"
    "*{box-sizing:border-box}body{margin:0;color:var(--ink);background:var(--paper);"
    "font:1rem/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu "
    "Sans\",sans-serif}"
    "main{max-width:72rem;margin:0 auto;padding:1.25rem clamp(1rem,4vw,3rem) 3rem}"
    "h1{font-size:1.4rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}"
    ".note,footer,dt{color:var(--quiet);font-size:.875rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.3rem .55rem;text-align:right;border-bottom:1px solid "
    "var(--line);white-space:nowrap}"
    "th{color:var(--quiet);font-weight:500;font-size:.875rem}"
    "th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;min-width:"
    "11rem;"
    "overflow-wrap:anywhere}"
    "svg{display:block;width:9rem;height:1.1rem}.axis{stroke:var(--line)}"
    ".range{stroke:var(--accent);stroke-width:3}.mark{fill:var(--ink)}"
    ".plot{width:100%;max-width:36rem;height:auto}.plot text{fill:var(--quiet);font-size:11px}"
    ".plot .range{stroke-width:1.5}polyline{fill:none;stroke:var(--accent);stroke-width:2}"
    "circle.ours{fill:var(--accent)}polyline.paper{stroke:var(--quiet);stroke-dasharray:4 3}"
    "circle.paper{fill:var(--quiet)}"
    ".cards{list-style:none;margin:0;padding:0;display:grid;gap:.75rem}"
    ".card{display:grid;grid-template-columns:auto minmax(0,1fr);gap:1rem;padding:.9rem 1rem;"
    "background:var(--sheet);border:1px solid var(--line);border-radius:6px}"
    ".card img{display:block;width:10rem;height:auto;border-radius:4px}"
    ".card dl{margin:0;grid-column:2;min-width:0}.card.plain dl{grid-column:1/-1}"
    "dt{float:left;clear:left;width:6rem}dd{margin:0 0 .15rem 6rem;overflow-wrap:anywhere;"
    "white-space:pre-wrap;max-height:15rem;overflow-y:auto;unicode-bidi:isolate}"
    ".good{color:var(--good)}.bad{color:var(--bad)}"
    "footer{margin-top:2.5rem}@media(max-width:40rem){.card{grid-template-columns:1fr}"
    ".card dl{grid-column:1}}";

/* ---- Head and end. ---- */

int page_text_put(FILE *out, const char *text, Error *err) {
    if (!text) return fputs("&ndash;", out), 0;
    char *clean = harmless_text(text);
    if (!clean) return error_set(err, "out of memory for the page's texts");
    markup_put(out, clean);
    free(clean);
    return 0;
}

int page_begin(EvalPage *page, const char *title, Error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE], hash[EVP_MAX_MD_SIZE * 2];
    unsigned size = 0;
    if (!EVP_Digest(style, sizeof style - 1, digest, &size, EVP_sha256(), NULL))
        return error_set(err, "libcrypto cannot compute SHA-256: check its installation");
    EVP_EncodeBlock(hash, digest, (int)size);
    fprintf(page->out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src "
            "data:; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
            (char *)hash);
    TRY(page_text_put(page->out, title, err));
    fprintf(page->out, "</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
    TRY(page_text_put(page->out, title, err));
    fputs("</h1>\n", page->out);
    return 0;
}

void page_end(EvalPage *page) {
    fputs("<footer>", page->out);
    if (page->left_out)
        fprintf(page->out, "%d image%s not embedded: unreadable, or beyond %d MB of images. ",
                page->left_out, page->left_out == 1 ? " is" : "s are", PAGE_IMAGE_BYTES >> 20);
    fprintf(page->out,
            "95 %% confidence intervals by bootstrap. easyfirst %s</footer>\n</main>\n</body>\n"
            "</html>\n",
            EF_VERSION);
}

const char *page_images(const PageOptions *options, const json_t *result) {
    if (options->images) return options->images;
    const json_t *data = json_object_get(json_object_get(result, "settings"), "data");
    return json_string_value(json_object_get(data, "images"));
}

/* ---- Bars. ---- */

void page_bar(FILE *out, double low, double value, double high, double from, double to) {
    enum { WIDTH = 144 };
    const double scale = to > from ? (WIDTH - 8) / (to - from) : 0;
#define AT(x) (4 + scale * ((x)-from))
    fprintf(out, "<svg viewBox=\"0 0 %d 18\" aria-hidden=\"true\">", WIDTH);
    fprintf(out, "<path class=\"axis\" d=\"M4,9H%d\"/>", WIDTH - 4);
    if (from <= 0 && to >= 0) fprintf(out, "<path class=\"axis\" d=\"M%.1f,1V17\"/>", AT(0.0));
    if (isfinite(low) && isfinite(high))
        fprintf(out, "<path class=\"range\" d=\"M%.1f,9H%.1f\"/>", AT(low), AT(high));
    if (isfinite(value))
        fprintf(out, "<circle class=\"mark\" cx=\"%.1f\" cy=\"9\" r=\"3.5\"/>", AT(value));
    fputs("</svg>", out);
#undef AT
}

/* ---- Cards. ---- */

/* The image of a card; one that cannot be read or does not fit is counted. */
static int put_image(EvalPage *page, const char *name, bool *shown, Error *err) {
    Image image = {0};
    *shown = false;
    if (!page->images || !name || image_leaves_folder(name)) return 0;
    char *path = path_join(page->images, name, err), *address = NULL;
    if (!path) return -1;
    Error ignored;
    if (page->bytes < PAGE_IMAGE_BYTES && image_read(&image, path, NULL, &ignored) == 0)
        address = image_address(&image, PAGE_IMAGE_EDGE, &ignored);
    if (address && page->bytes + (int64_t)strlen(address) <= PAGE_IMAGE_BYTES) {
        fputs("<img alt=\"", page->out);
        int status = page_text_put(page->out, name, err);
        fprintf(page->out, "\" src=\"%s\">", address);
        page->bytes += (int64_t)strlen(address);
        *shown = status == 0;
    } else {
        page->left_out++;
    }
    free(path), free(address);
    image_free(&image);
    return 0;
}

static int put_entry(FILE *out, const char *title, const char *kind, const char *text, double value,
                     Error *err) {
    fprintf(out, "<dt>%s</dt><dd%s%s%s>", title, kind ? " class=\"" : "", kind ? kind : "",
            kind ? "\"" : "");
    TRY(page_text_put(out, text, err));
    if (isfinite(value)) fprintf(out, " <span class=\"note\">%.4g</span>", value);
    fputs("</dd>", out);
    return 0;
}

static int put_card(EvalPage *page, const ScoredTask *task, const ScoredLine *a,
                    const ScoredLine *b, Error *err) {
    bool shown;
    const char *type = a->types[0];
    const double x = a->values[0], y = b ? b->values[0] : NAN;
    FILE *out = page->out;
    /* The class is known only when the image is: an image first, in its own column. */
    fputs("<li class=\"card\">", out);
    TRY(put_image(page, a->image, &shown, err));
    fputs(shown ? "<dl>" : "<span></span><dl>", out);
    TRY(put_entry(out, "question", NULL, a->prompt, NAN, err));
    TRY(put_entry(out, "target", NULL, a->target, NAN, err));
    const char *first = !b ? NULL : x > y ? "good" : y > x ? "bad" : NULL;
    TRY(put_entry(out, b ? "first" : "answer", first, a->answer, x, err));
    if (b) TRY(put_entry(out, "second", y > x ? "good" : x > y ? "bad" : NULL, b->answer, y, err));
    fputs("<dt>id</dt><dd class=\"note\">", out);
    TRY(page_text_put(out, a->id, err));
    if (type) {
        fprintf(out, ", %s ", task->types[0]);
        TRY(page_text_put(out, type, err));
    }
    fputs("</dd></dl></li>\n", out);
    return 0;
}

int page_cards(EvalPage *page, const ScoredTask *task, const ScoredLine *first,
               const ScoredLine *second, const int64_t *lines, int64_t count, Error *err) {
    fputs("<ol class=\"cards\">\n", page->out);
    for (int64_t i = 0; i < count; i++)
        TRY(put_card(page, task, &first[lines[i]], second ? &second[lines[i]] : NULL, err));
    fputs("</ol>\n", page->out);
    return 0;
}
