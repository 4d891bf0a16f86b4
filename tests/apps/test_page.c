/* The page and the figure, without a browser: what is in them, that no text becomes markup, that
 * they hold the trace. tests/page_browser.py looks at them in a browser. */
#include <math.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "apps/show/figure.h"
#include "apps/show/fold.h"
#include "apps/show/markup.h"
#include "apps/show/page.h"
#include "apps/show/text.h"
#include "tests/program.h"

enum { MASK = 250001, SCRIPTS_MOST = 60 * 1024 };

static const char *const hostile[] = {"</script><script>alert(1)</script>",
                                      "<!--",
                                      "]]>",
                                      "<img src=x onerror=alert(1)>",
                                      "\"'`&lt;&amp;",
                                      "\xe2\x80\xaegnp.exe",
                                      "\xe2\x80\xa8\xe2\x80\xa9",
                                      "{{data}}{{nothing}}",
                                      "\xef\xbf\xbe\xef\xbf\xbf",
                                      "\x01\x1b[31m",
                                      "\\u003c\\",
                                      "\xf0\x9f\x90\xb1\xe7\x8c\xab"};
enum { HOSTILE = (int)(sizeof hostile / sizeof *hostile) };

/* ---- Traces, made up. ---- */

typedef struct Shape {
    int hypotheses, steps, length, alternatives, grid; /* grid 0: no image is known */
    const char *question, *image;
} Shape;

static const char *piece_of(int id, char *text, size_t size) {
    if (id == MASK) return "<mask>";
    if (id < HOSTILE) return hostile[id];
    snprintf(text, size, "%sw%d", id % 3 ? "\xe2\x96\x81" : "", id);
    return text;
}

static void put_piece(json_t *object, const char *id_key, const char *piece_key, int id) {
    char text[32];
    json_object_set_new(object, id_key, json_integer(id));
    json_object_set_new(object, piece_key, json_string(piece_of(id, text, sizeof text)));
}

static double random_score(TestRandom *random) {
    return (double)(float)log(1 - test_random_uniform(random));
}

static json_t *make_cell(TestRandom *random, int alternatives, int id) {
    json_t *cell = json_object(), *list = json_array();
    put_piece(cell, "id", "piece", id);
    json_object_set_new(cell, "masked", json_boolean(id == MASK));
    json_object_set_new(cell, "score", id == MASK ? json_null() : json_real(random_score(random)));
    int proposal = (int)(test_random_uniform(random) * 40);
    put_piece(cell, "proposal", "proposal_piece", proposal);
    json_object_set_new(cell, "proposal_score", json_real(random_score(random)));
    for (int i = 0; i < alternatives; i++) {
        json_t *alternative = json_object();
        put_piece(alternative, "id", "piece", (proposal + i) % 40); /* the first is the proposal */
        json_object_set_new(alternative, "score", json_real(-1.0 - i));
        json_array_append_new(list, alternative);
    }
    if (alternatives) json_object_set(cell, "top_k", list);
    json_decref(list);
    return cell;
}

/* The same cell but for the score of its last runner-up. */
static json_t *other_alternative(const json_t *cell, int step) {
    json_t *copy = json_deep_copy(cell), *alternatives = json_object_get(copy, "top_k");
    if (alternatives)
        json_object_set_new(json_array_get(alternatives, json_array_size(alternatives) - 1),
                            "score", json_real(-20.0 - step));
    return copy;
}

/* Some cells stay what they were, others are written, erased and replaced. */
static json_t *make_steps(TestRandom *random, const Shape *shape, int length) {
    json_t *steps = json_array(), *before = NULL;
    for (int s = 1; s <= shape->steps; s++) {
        json_t *cells = json_array();
        for (int i = 0; i < length; i++) {
            double luck = test_random_uniform(random);
            if (before && luck < 0.1)
                json_array_append_new(cells,
                                      other_alternative(json_array_get(before, (size_t)i), s));
            else if (before && luck < 0.5)
                json_array_append(cells, json_array_get(before, (size_t)i));
            else
                json_array_append_new(cells,
                                      make_cell(random, shape->alternatives,
                                                luck < 0.7 && s < shape->steps
                                                    ? MASK
                                                    : (int)(test_random_uniform(random) * 40)));
        }
        json_array_append_new(
            steps, json_pack("{s:i, s:b, s:o}", "step", s, "evaluated", s % 2, "cells", cells));
        before = cells;
    }
    return steps;
}

static json_t *make_maps(TestRandom *random, int length, int patches) {
    json_t *list = json_array();
    for (int i = 0; i < length; i++) {
        json_t *row = json_array();
        for (int k = 0; k < patches; k++)
            json_array_append_new(row, json_real(test_random_uniform(random) / patches));
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *make_trace(const Shape *shape, uint64_t seed) {
    TestRandom random = {seed};
    json_t *o = json_object(), *hypotheses = json_array(), *tokens = json_array();
    int best = shape->hypotheses / 2;
    for (int k = 0; k < shape->hypotheses; k++) {
        int length = shape->length + k;
        json_t *steps = make_steps(&random, shape, length);
        json_t *h = json_pack("{s:s, s:i, s:i, s:f, s:i}", "text", hostile[k % HOSTILE], "length",
                              length, "sample", 0, "score", -0.5 - fabs((double)(k - best)),
                              "evaluations", shape->steps);
        if (shape->grid)
            json_object_set_new(h, "attention",
                                make_maps(&random, length, shape->grid * shape->grid));
        json_object_set(k == best ? o : h, "trace", steps);
        if (k == best) {
            json_t *cells =
                json_object_get(json_array_get(steps, json_array_size(steps) - 1), "cells");
            for (size_t i = 0; i < json_array_size(cells); i++) {
                json_t *c = json_array_get(cells, i);
                json_array_append_new(tokens,
                                      json_pack("{s:O, s:O, s:O}", "id", json_object_get(c, "id"),
                                                "piece", json_object_get(c, "piece"), "score",
                                                json_object_get(c, "score")));
            }
        }
        json_decref(steps);
        json_array_append_new(hypotheses, h);
    }
    json_t *rest =
        json_pack("{s:s, s:s, s:f, s:i, s:o, s:i, s:i, s:s, s:I, s:i, s:o, s:s, s:i}", "question",
                  shape->question, "answer", hostile[best % HOSTILE], "score", -0.5, "length",
                  shape->length + best, "tokens", tokens, "steps", shape->steps, "evaluations",
                  shape->steps * shape->hypotheses, "strategy", "cmlm", "seed",
                  (json_int_t)INT64_MAX, "prompt_tokens", 3, "hypotheses", hypotheses, "model",
                  "/home/me/secret/run/model", "best", best);
    json_object_update(o, rest);
    json_decref(rest);
    if (shape->image) json_object_set_new(o, "image", json_string(shape->image));
    if (shape->grid)
        json_object_set_new(o, "geometry",
                            json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "width", 7,
                                      "height", 5, "size", 32, "grid", shape->grid, "left", 1.0,
                                      "top", 0.0, "scale_x", 5.0 / 32, "scale_y", 5.0 / 32));
    return o;
}

static void write_trace(const char *path, Trace *trace, const Shape *shape, uint64_t seed) {
    Error err;
    json_t *o = make_trace(shape, seed);
    assert_int_equal(json_dump_file(o, path, JSON_REAL_PRECISION(9)), 0);
    json_decref(o);
    assert_ok(trace_read_json(trace, path, &err), &err);
}

static void open_trace(Trace *trace, const Shape *shape, uint64_t seed) {
    char folder[256], path[300];
    temporary_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/trace.json", folder);
    write_trace(path, trace, shape, seed);
    temporary_remove(folder);
}

static Image made_image(int width, int height, bool noise) {
    Image image = {width, height, malloc((size_t)width * (size_t)height * 3)};
    TestRandom random = {77};
    for (size_t i = 0; i < (size_t)width * (size_t)height * 3; i++)
        image.pixels[i] = noise ? (uint8_t)test_random_next(&random) : (uint8_t)(i / 3 % 5 * 50);
    return image;
}

/* ---- What is in a page. ---- */

/* What stands between two texts, of which the first occurs only once; the caller's to free. */
static char *between(const char *page, const char *begin, const char *end) {
    const char *at = strstr(page, begin);
    if (!at) fail_msg("the page has no %s", begin);
    at += strlen(begin);
    if (strstr(at, begin)) fail_msg("the page has two %s", begin);
    const char *to = strstr(at, end);
    if (!to) fail_msg("the page has no %s behind %s", end, begin);
    return strndup(at, (size_t)(to - at));
}

static int occurrences(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)); text += strlen(what)) n++;
    return n;
}

static void assert_hashed(const char *policy, const char *directive, const char *text) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    char base64[128], wanted[256];
    unsigned size;
    assert_true(EVP_Digest(text, strlen(text), digest, &size, EVP_sha256(), NULL));
    EVP_EncodeBlock((unsigned char *)base64, digest, (int)size);
    snprintf(wanted, sizeof wanted, "; %s 'sha256-%s';", directive, base64);
    if (!strstr(policy, wanted)) fail_msg("the policy \"%s\" lacks \"%s\"", policy, wanted);
}

/* The page's own script and style by their hashes, images within it, and nothing else. */
static void assert_policy(const char *page) {
    char *policy = between(page, "Content-Security-Policy\" content=\"", "\">");
    char *style = between(page, "<style>", "</style>");
    char *script = between(page, "<script>", "</script>");
    assert_hashed(policy, "style-src", style);
    assert_hashed(policy, "script-src", script);
    assert_int_equal(strncmp(policy, "default-src 'none'; img-src data:; ", 34), 0);
    assert_null(strstr(policy, "unsafe"));
    assert_null(strstr(policy, "http"));
    assert_null(strstr(script, "innerHTML"));
    assert_null(strstr(script, "document.write"));
    free(policy), free(style), free(script);
}

static const char *xml_wrong(const char *at);

static json_t *page_data(const char *page) {
    char *data = between(page, "<script type=\"application/json\" id=\"trace\">", "</script>");
    for (const char *at = data; *at; at++)
        if (*at == '<' || *at == '>' || *at == '&' || (unsigned char)*at >= 0x7F || *at < 0x20)
            fail_msg("the data has a byte %d", *at);
    json_error_t error;
    json_t *o = json_loads(data, 0, &error);
    if (!o) fail_msg("the data is no JSON: %s", error.text);
    free(data);
    return o;
}

static void same_text(const json_t *value, const char *text) {
    char *harmless = harmless_text(text);
    assert_string_equal(json_string_value(value), harmless);
    free(harmless);
}

static void same_piece(const json_t *data, const json_t *index, const char *piece) {
    assert_true(json_is_integer(index));
    same_text(json_array_get(json_object_get(data, "pieces"), (size_t)json_integer_value(index)),
              piece);
}

/* To the digits that the page has. */
static void same_score(const json_t *value, double score) {
    double found = json_number_value(value);
    if (!(fabs(found - score) <= 6e-5 * fabs(score) + 1e-12))
        fail_msg("score %.9g, expected %.9g", found, score);
}

static void same_cell(const json_t *data, const json_t *cell, const TraceEntry *e) {
    const json_t *likely = json_array_get(cell, 3);
    if (e->masked) {
        assert_int_equal(json_integer_value(json_array_get(cell, 1)), -1);
    } else {
        same_piece(data, json_array_get(cell, 1), e->piece);
        same_score(json_array_get(cell, 2), (double)e->score);
    }
    same_piece(data, json_array_get(likely, 0), e->proposal_piece);
    same_score(json_array_get(likely, 1), (double)e->proposal_score);
    size_t at = 2;
    for (int i = 0; i < e->alternative_count; i++) {
        if (e->alternatives[i].id == e->proposal) continue;
        same_piece(data, json_array_get(likely, at++), e->alternatives[i].piece);
        same_score(json_array_get(likely, at++), (double)e->alternatives[i].score);
    }
    assert_int_equal(json_array_size(likely), at);
}

/* Steps say what changed: the cells are what they said last. */
static void same_steps(const json_t *data, const json_t *steps, const TraceHypothesis *h) {
    const json_t **now = calloc((size_t)h->length, sizeof *now);
    assert_int_equal(json_array_size(steps), h->steps);
    for (int s = 0; s < h->steps; s++) {
        const json_t *step = json_array_get(steps, (size_t)s);
        assert_int_equal(json_integer_value(json_array_get(step, 0)), h->evaluated[s]);
        for (size_t k = 1; k < json_array_size(step); k++) {
            const json_t *cell = json_array_get(step, k);
            int64_t place = json_integer_value(json_array_get(cell, 0));
            assert_in_range(place, 0, h->length - 1);
            now[place] = cell;
        }
        for (int i = 0; i < h->length; i++) {
            assert_non_null(now[i]);
            same_cell(data, now[i], &trace_entries(h, s)[i]);
        }
    }
    free(now);
}

static void same_maps(const json_t *maps, const TraceHypothesis *h, int patches) {
    assert_int_equal(json_array_size(maps), h->attention ? h->length : 0);
    for (int i = 0; h->attention && i < h->length; i++) {
        const json_t *map = json_array_get(maps, (size_t)i);
        assert_int_equal(json_array_size(map), patches);
        for (int k = 0; k < patches; k++) {
            double found = 1e-6 * json_number_value(json_array_get(map, (size_t)k));
            assert_true(fabs(found - (double)h->attention[i * patches + k]) <= 0.51e-6);
        }
    }
}

static void same_trace(const json_t *data, const Trace *trace) {
    const json_t *list = json_object_get(data, "hypotheses");
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)trace->seed);
    assert_string_equal(json_string_value(json_object_get(data, "seed")), seed);
    assert_int_equal(json_array_size(list), trace->count);
    assert_int_equal(json_integer_value(json_object_get(data, "best")), trace->best);
    same_text(json_object_get(data, "question"), trace->question);
    for (int k = 0; k < trace->count; k++) {
        const json_t *h = json_array_get(list, (size_t)k);
        same_text(json_object_get(h, "text"), trace->hypotheses[k].text);
        same_score(json_object_get(h, "score"), trace->hypotheses[k].score);
        same_steps(data, json_object_get(h, "steps"), &trace->hypotheses[k]);
        same_maps(json_object_get(h, "attention"), &trace->hypotheses[k],
                  trace->geometry.grid * trace->geometry.grid);
    }
}

static const Shape shapes[] = {
    {1, 1, 1, 0, 0, "?", NULL},
    {1, 50, 13, 5, 0, "What is it?", "a/b/dog.jpg"},
    {3, 9, 40, 2, 4, "</title><script>alert(1)</script>", "/home/me/<img src=x onerror=alert(1)>"},
    {5, 17, 3, 3, 2, "\"'&<!-- \xe2\x80\xae {{answer}} -->", "\"onload=\"alert(1)"},
};
enum { SHAPES = (int)(sizeof shapes / sizeof *shapes) };

static void page_holds_the_trace(void **state) {
    (void)state;
    Error err;
    for (int i = 0; i < SHAPES; i++) {
        Trace trace;
        open_trace(&trace, &shapes[i], 100 + (uint64_t)i);
        size_t size;
        char *page = page_text(&trace, NULL, &size, &err);
        if (!page) fail_msg("%s", err.text);
        assert_int_equal(size, strlen(page));
        json_t *data = page_data(page);
        same_trace(data, &trace);
        if (shapes[i].image)
            assert_null(strchr(json_string_value(json_object_get(data, "image")), '/'));
        assert_string_equal(json_string_value(json_object_get(data, "model")), "run/model");
        assert_null(strstr(page, "secret"));
        assert_null(strstr(page, "/home/"));
        json_decref(data);
        char *again = page_text(&trace, NULL, NULL, &err);
        assert_string_equal(page, again);
        free(again), free(page);
        trace_free(&trace);
    }
}

/* The example that is shipped: whatever has touched the file since, a browser still runs it. */
static void example_runs(void **state) {
    (void)state;
    char *page = file_bytes("data/bundled/filling.html", NULL);
    assert_non_null(page);
    assert_policy(page);
    json_decref(page_data(page));
    free(page);
}

static void nothing_becomes_markup(void **state) {
    (void)state;
    Error err;
    int scripts = 0, tags = 0;
    for (int i = 0; i < SHAPES; i++) {
        Trace trace;
        open_trace(&trace, &shapes[i], 7);
        char *page = page_text(&trace, NULL, NULL, &err);
        assert_policy(page);
        /* As many elements whatever the texts are. */
        if (!i) scripts = occurrences(page, "<script"), tags = occurrences(page, "<");
        assert_int_equal(scripts, 2);
        assert_int_equal(occurrences(page, "<script"), 2);
        assert_int_equal(occurrences(page, "</script"), 2);
        assert_int_equal(occurrences(page, "<"), tags);
        assert_null(strstr(page, "<!--"));
        assert_null(strstr(page, "\xe2\x80\xae"));
        assert_null(strstr(page, "http:"));
        assert_int_equal(occurrences(page, "https:"),
                         1); /* a link, which nothing follows by itself */
        assert_non_null(strstr(page, "<a href=\"https://arxiv.org/abs/2308.12219\" rel="));
        json_t *data = page_data(page);
        char *text = between(page, "id=\"trace\">", "</script>");
        assert_true(strlen(page) - strlen(text) < SCRIPTS_MOST);
        json_decref(data);
        free(text), free(page);
        trace_free(&trace);
    }
}

/* A trace with markup in all of its texts (a file that once came from outside). */
static void markup_in_every_text(void **state) {
    (void)state;
    Error err;
    Trace trace;
    assert_ok(trace_read_json(&trace, "tests/golden/cases/page-hostile.json", &err), &err);
    char *page = page_text(&trace, NULL, NULL, &err);
    if (!page) fail_msg("%s", err.text);
    assert_policy(page);
    json_decref(page_data(page));
    assert_int_equal(occurrences(page, "<script"), 2);
    assert_int_equal(occurrences(page, "</script"), 2);
    assert_null(strstr(page, "<!--"));
    assert_null(strstr(page, "<img"));
    char *title = between(page, "<title>", "</title>");
    assert_null(strchr(title, '<'));
    assert_int_equal(occurrences(title, "&lt;/script&gt;"), 2); /* of question and answer */
    char *figure = figure_text(&trace, NULL, &err);
    const char *wrong = figure ? xml_wrong(figure) : err.text;
    if (wrong) fail_msg("%s", wrong);
    free(title), free(page), free(figure);
    trace_free(&trace);
}

/* ---- Images. ---- */

/* The image of a page as a file's bytes. */
static unsigned char *image_bytes(const char *page, size_t *size, bool *png) {
    char *address = between(page, "src=\"data:image/", "\"");
    *png = !strncmp(address, "png;", 4);
    const char *base64 = strstr(address, "base64,") + 7;
    size_t length = strlen(base64);
    unsigned char *bytes = malloc(length);
    int n = EVP_DecodeBlock(bytes, (const unsigned char *)base64, (int)length);
    assert_true(n > 0);
    *size = (size_t)n; /* padding may be counted */
    free(address);
    return bytes;
}

static void check_image(int width, int height, bool noise, int wide, int high) {
    Error err;
    Trace trace;
    open_trace(&trace, &shapes[1], 5);
    Image image = made_image(width, height, noise), found;
    char *page = page_text(&trace, &image, NULL, &err);
    if (!page) fail_msg("%s", err.text);
    assert_non_null(strstr(page, "alt=\"The image: dog.jpg\""));
    size_t size;
    bool png;
    unsigned char *bytes = image_bytes(page, &size, &png);
    assert_int_equal(png, !noise);
    assert_null(memmem(bytes, size, "Exif", 4));
    assert_ok(image_decode(&found, bytes, size, "the page's image", NULL, &err), &err);
    assert_int_equal(found.width, wide);
    assert_int_equal(found.height, high);
    if (png && wide == width)
        assert_memory_equal(found.pixels, image.pixels, (size_t)width * (size_t)height * 3);
    image_free(&found), image_free(&image);
    free(bytes), free(page);
    trace_free(&trace);
}

static void images_are_encoded_anew(void **state) {
    (void)state;
    check_image(1, 1, false, 1, 1);
    check_image(7, 5, false, 7, 5);
    check_image(1024, 3, false, 1024, 3);
    check_image(201, 99, true, 201, 99);
    check_image(1500, 700, true, 1024, 478);
    check_image(2, 5000, false, 1, 1024);
}

static void wrong_images_are_refused(void **state) {
    (void)state;
    Error err;
    Trace trace;
    open_trace(&trace, &shapes[2], 5); /* an image of 7 x 5 is known */
    Image image = made_image(5, 7, false);
    assert_null(page_text(&trace, &image, NULL, &err));
    check_message(&err, "page_text", (const char *[]){"5 x 7", "7 x 5", "another", NULL});
    image.width = 7, image.height = 5;
    char *page = page_text(&trace, &image, NULL, &err);
    if (!page) fail_msg("%s", err.text);
    assert_int_equal(occurrences(page, "<img"), 1);
    assert_non_null(strstr(page, "alt=\"The image: &lt;img src=x onerror=alert(1)&gt;\" src"));
    free(page);
    image_free(&image);
    trace_free(&trace);
}

/* ---- The figure. ---- */

/* Whether a text is well-formed XML, as far as a figure needs it: elements nest and end, attributes
 * are quoted, "<" and "&" are escaped, characters are allowed. Returns what is wrong, or NULL. */
static const char *xml_wrong(const char *at) {
    char open[16][32];
    int depth = 0, roots = 0;
    if (!strncmp(at, "<?xml ", 6)) at = strstr(at, "?>") + 2;
    while (*at) {
        if ((unsigned char)*at < 0x20 && *at != '\n') return "a control character";
        if (!strncmp(at, "\xef\xbf\xbe", 3) || !strncmp(at, "\xef\xbf\xbf", 3))
            return "U+FFFE or U+FFFF";
        if (*at == '&') {
            size_t n = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz#0123456789");
            if (at[1 + n] != ';' || !n) return "a bare &";
        }
        if (*at == '>') return "a bare >"; /* allowed, but never written */
        if (*at != '<') {
            if (!depth && *at != '\n') return "text outside of the root";
            at++;
            continue;
        }
        bool end = at[1] == '/';
        at += 1 + end;
        size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz");
        if (!n || n > 31) return "no name";
        if (end) {
            if (!depth || strncmp(open[depth - 1], at, n) || open[depth - 1][n])
                return "the wrong end";
            depth--, at += n;
            if (*at++ != '>') return "an end that goes on";
            continue;
        }
        if (!depth && roots++) return "two roots";
        if (depth == 16) return "too deep";
        memcpy(open[depth], at, n), open[depth][n] = 0, depth++;
        for (at += n; *at == ' ';) {
            at += 1 + strspn(at + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-");
            if (strncmp(at, "=\"", 2)) return "an attribute without a value";
            at += 2 + strcspn(at + 2, "\"<&");
            if (*at++ != '"') return "a bad value";
        }
        if (*at == '/') depth--, at++;
        if (*at++ != '>') return "a bad element";
    }
    return depth || roots != 1 ? "no end" : NULL;
}

static void figure_is_xml(void **state) {
    (void)state;
    assert_non_null(xml_wrong("<a><b></a></b>"));
    assert_non_null(xml_wrong("<a>&</a>"));
    assert_non_null(xml_wrong("<a b=c/>"));
    assert_null(xml_wrong("<a b=\"c\">&lt;<d/></a>\n"));
    Error err;
    for (int i = 0; i < SHAPES; i++) {
        Trace trace;
        open_trace(&trace, &shapes[i], 31 + (uint64_t)i);
        size_t size;
        char *figure = figure_text(&trace, &size, &err);
        if (!figure) fail_msg("%s", err.text);
        assert_int_equal(size, strlen(figure));
        const char *wrong = xml_wrong(figure);
        if (wrong) fail_msg("shape %d: %s", i, wrong);
        assert_null(strstr(figure, "<script"));
        assert_null(strstr(figure, "href"));
        assert_int_equal(occurrences(figure, "http"), 1); /* the name space */
        char *again = figure_text(&trace, NULL, &err);
        assert_string_equal(figure, again);
        free(again), free(figure);
        trace_free(&trace);
    }
}

/* Marks: as many as there are words written and erased, and the two of the legend. */
static void figure_marks_every_change(void **state) {
    (void)state;
    Error err;
    Trace trace;
    open_trace(&trace, &shapes[1], 8);
    const TraceHypothesis *h = &trace.hypotheses[trace.best];
    int written = 0, erased = 0, words = 0;
    for (int i = 0; i < h->length; i++) {
        int before = MASK;
        for (int s = 0; s < h->steps; s++) {
            const TraceEntry *e = &trace_entries(h, s)[i];
            int id = e->masked ? MASK : e->id;
            written += id != MASK && id != before, erased += before != MASK && id != before;
            before = id;
        }
        words += before != MASK;
    }
    assert_true(written > h->length && erased > 0);
    char *figure = figure_text(&trace, NULL, &err);
    char *caption = between(figure, "serif\" fill=\"#111\">", "</text>");
    char *shown_answer = harmless_text(h->text);
    Markup escaped;
    assert_ok(markup_begin(&escaped, &err), &err);
    markup_put(escaped.out, shown_answer);
    assert_ok(markup_end(&escaped, 0, &err), &err);
    assert_true(strlen(caption) > 0 && !strncmp(escaped.text, caption, strlen(caption) / 2));
    free(caption), free(shown_answer), free(escaped.text);
    assert_int_equal(occurrences(figure, "width=\"2\""), written + 1);
    assert_int_equal(occurrences(figure, "stroke-width"), erased + 1);
    char *labels = between(figure, "<g font-family=\"serif\"", "</g>");
    assert_int_equal(occurrences(labels, "<text"), words);
    assert_non_null(strstr(figure, ">step</text>"));
    assert_non_null(strstr(figure, ">position</text>"));
    free(labels), free(figure);
    trace_free(&trace);
}

/* Tokens of a template: named in the page's data, in the figure a bar each that nothing marks as
 * written, and one in the legend. */
static void given_tokens_are_shown(void **state) {
    (void)state;
    enum { GIVEN = 3 };
    static const int given[GIVEN] = {0, 4, 12};
    Error err;
    Trace trace;
    open_trace(&trace, &shapes[1], 8);
    TraceHypothesis *h = &trace.hypotheses[trace.best];
    char *without = figure_text(&trace, NULL, &err);
    assert_int_equal(occurrences(without, "stroke=\"#888\""), 0);
    assert_null(strstr(without, ">given</text>"));
    char *page = page_text(&trace, NULL, NULL, &err);
    json_t *data = page_data(page);
    assert_null(json_object_get(json_array_get(json_object_get(data, "hypotheses"), 0), "fixed"));
    json_decref(data), free(page);
    h->fixed = calloc((size_t)h->length, sizeof *h->fixed);
    assert_non_null(h->fixed);
    int written = 0;
    for (int i = 0; i < GIVEN; i++) h->fixed[given[i]] = true;
    for (int i = 0; i < h->length; i++)
        for (int s = 0, before = MASK; s < h->steps && !h->fixed[i]; s++) {
            const TraceEntry *e = &trace_entries(h, s)[i];
            int id = e->masked ? MASK : e->id;
            written += id != MASK && id != before;
            before = id;
        }
    char *figure = figure_text(&trace, NULL, &err);
    assert_int_equal(occurrences(figure, "stroke=\"#888\""), GIVEN + 1);
    assert_int_equal(occurrences(figure, "width=\"2\""), written + 1);
    assert_non_null(strstr(figure, ">given</text>"));
    assert_null(xml_wrong(figure));
    page = page_text(&trace, NULL, NULL, &err);
    data = page_data(page);
    const json_t *list =
        json_object_get(json_array_get(json_object_get(data, "hypotheses"), 0), "fixed");
    assert_int_equal(json_array_size(list), GIVEN);
    for (size_t i = 0; i < GIVEN; i++)
        assert_int_equal(json_integer_value(json_array_get(list, i)), given[i]);
    json_decref(data), free(page), free(without), free(figure);
    trace_free(&trace);
}

/* ---- Files. ---- */

static void files_appear_whole(void **state) {
    (void)state;
    char folder[256], page[300], figure[300], nowhere[300];
    Error err;
    Trace trace;
    temporary_folder(folder, sizeof folder);
    snprintf(page, sizeof page, "%s/page.html", folder);
    snprintf(figure, sizeof figure, "%s/figure.svg", folder);
    snprintf(nowhere, sizeof nowhere, "%s/no/page.html", folder);
    open_trace(&trace, &shapes[1], 1);
    assert_ok(page_write(&trace, NULL, page, &err), &err);
    assert_ok(figure_write(&trace, figure, &err), &err);
    char *wanted = page_text(&trace, NULL, NULL, &err), *found = file_bytes(page, NULL);
    assert_string_equal(found, wanted);
    free(found), free(wanted);
    wanted = figure_text(&trace, NULL, &err), found = file_bytes(figure, NULL);
    assert_string_equal(found, wanted);
    free(found), free(wanted);
    assert_refused(page_write(&trace, NULL, nowhere, &err), &err, nowhere, "cannot be written");
    assert_refused(figure_write(&trace, nowhere, &err), &err, nowhere, "cannot be written");
    trace_free(&trace);
    temporary_remove(folder);
}

/* ---- The program. ---- */

static void same_file(const char *path, char *wanted) {
    char *found = file_bytes(path, NULL);
    assert_non_null(found);
    assert_string_equal(found, wanted);
    free(found), free(wanted);
}

static void show_writes_both(void **state) {
    (void)state;
    Run r;
    Trace trace;
    Error err;
    char json[300], page[300], figure[300];
    run_start(&r);
    path_in(json, sizeof json, &r, "trace.json");
    path_in(page, sizeof page, &r, "page.html");
    path_in(figure, sizeof figure, &r, "figure.svg");
    write_trace(json, &trace, &shapes[3], 2);
    run(&r, "show", "--from", json, "--html", page, "--svg", figure, "--every-step");
    assert_int_equal(r.status, 0);
    same_file(page, page_text(&trace, NULL, NULL, &err));
    same_file(figure, figure_text(&trace, NULL, &err));
    Trace shown;
    assert_ok(fold_make(&shown, &trace, &err), &err);
    run(&r, "show", "--from", json, "--html", page, "--svg", figure);
    assert_int_equal(r.status, 0);
    same_file(page, page_text(&shown, NULL, NULL, &err));
    same_file(figure, figure_text(&shown, NULL, &err));
    char *wanted = page_text(&shown, NULL, NULL, &err);
    fold_free(&shown);
    run(&r, "show", "--from", json, "--html", "-"); /* the page and nothing else */
    expect(&r, 0, wanted);
    free(wanted);
    run(&r, "show", "--from", json, "--html", "-", "--svg", "-");
    assert_message(&r, 2, "--html", "--svg", "standard output");
    run(&r, "show", "--from", json, "--svg", "-", "--image", "x.png");
    assert_message(&r, 2, "--image", "--html");
    run(&r, "show", "--from", json, "--html", "-", "--image", "/no/such.png");
    assert_message(&r, 1, "/no/such.png");
    trace_free(&trace);
    run_end(&r);
}

/* A JPEG that a phone might have made: Exif says that it lies on its side, and has a secret. */
static char *phone_image(size_t *size) {
    static const char exif[] = "\xff\xe1\0\x3a"
                               "Exif\0\0MM\0*\0\0\0\x08\0\1"
                               "\x01\x12\0\3\0\0\0\1\0\6\0\0" /* orientation: 6 */
                               "\0\0\0\0GPS: the secret place...";
    size_t extra = sizeof exif - 1;
    char *plain = file_bytes("data/bundled/images/tractor.jpg", size);
    assert_non_null(plain);
    assert_int_equal(extra, 2 + 0x3a);
    char *bytes = malloc(*size + extra);
    memcpy(bytes, plain, 2), memcpy(bytes + 2, exif, extra);
    memcpy(bytes + 2 + extra, plain + 2, *size - 2);
    *size += extra;
    free(plain);
    return bytes;
}

static void images_keep_no_secrets(void **state) {
    (void)state;
    Run r;
    Trace trace;
    Error err;
    Image upright, stored, found;
    size_t size;
    bool png;
    char json[300], image[300];
    run_start(&r);
    path_in(json, sizeof json, &r, "trace.json");
    write_trace(json, &trace, &shapes[1], 2);
    char *bytes = phone_image(&size);
    assert_non_null(memmem(bytes, size, "secret", 6));
    write_file(&r, "phone.jpg", bytes, size, image, sizeof image);
    free(bytes);
    assert_ok(image_read(&upright, image, NULL, &err), &err);
    assert_ok(image_read(&stored, image, &(ImageOptions){.ignore_orientation = true}, &err), &err);
    run(&r, "show", "--from", json, "--html", "-", "--image", image);
    assert_int_equal(r.status, 0);
    unsigned char *shown = image_bytes(r.out, &size, &png);
    assert_null(memmem(shown, size, "Exif", 4));
    assert_null(memmem(shown, size, "secret", 6));
    assert_ok(image_decode(&found, shown, size, "the page's image", NULL, &err), &err);
    assert_int_equal(found.width, upright.width);
    assert_int_equal(found.height, upright.height);
    double near = 0, far = 0;
    size_t n = (size_t)found.width * (size_t)found.height * 3;
    for (size_t i = 0; i < n; i++) {
        near += abs(found.pixels[i] - upright.pixels[i]);
        far += abs(found.pixels[i] - stored.pixels[i]);
    }
    if (!(near < 6 * (double)n && far > 18 * (double)n))
        fail_msg("%.2f off the upright image, %.2f off the stored one", near / (double)n,
                 far / (double)n);
    free(shown);
    image_free(&found), image_free(&upright), image_free(&stored);
    trace_free(&trace);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_holds_the_trace),    cmocka_unit_test(example_runs),
        cmocka_unit_test(nothing_becomes_markup),  cmocka_unit_test(markup_in_every_text),
        cmocka_unit_test(images_are_encoded_anew), cmocka_unit_test(wrong_images_are_refused),
        cmocka_unit_test(figure_is_xml),           cmocka_unit_test(figure_marks_every_change),
        cmocka_unit_test(files_appear_whole),      cmocka_unit_test(show_writes_both),
        cmocka_unit_test(images_keep_no_secrets),  cmocka_unit_test(given_tokens_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
