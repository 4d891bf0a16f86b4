#include "apps/show/figure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/show/markup.h"
#include "apps/show/text.h"

/* All lengths are whole pixels of CSS: no decimal point that a locale could turn into a comma. */
enum {
    PLOT_WIDTH = 660, /* of the columns together, about */
    COLUMN_LEAST = 2,
    COLUMN_MOST = 56,
    LEFT = 56,
    MARGIN = 12,
    BELOW = 84, /* axis and legend */
    LEGEND_PARTS = 25,
    LEGEND_PART = 5,
    LEGEND_WORDS = 330, /* next to the colors */
    LEGEND_GIVEN = 60,  /* ... and, of a template, "given" */
    CAPTION_LINES = 6   /* of a question or an answer; the whole text is in the description */
};

/* A text above the cells, in lines. */
typedef struct Caption {
    StyledText text;
    Layout layout;
    int font, lines; /* that are shown */
} Caption;

typedef struct Figure {
    FILE *out;
    const TraceHypothesis *h;
    Caption question, answer;
    int column, row, font; /* sizes */
    int top;               /* of the cells */
    int right, bottom;     /* of the cells */
    int width, height;
} Figure;

/* Probabilities 0, 1/4 ... 1: the page's colors on light ground. */
static const int ramp[5][3] = {{0xd9, 0x7a, 0x52},
                               {0xe5, 0xa3, 0x74},
                               {0xef, 0xca, 0x95},
                               {0xdd, 0xe2, 0xba},
                               {0xb5, 0xdf, 0xd7}};

/* The color of a probability in 0..1, as 0xRRGGBB. */
static int color(double p) {
    double at = p > 0 ? fmin(p, 1) * 4 : 0;
    int k = at < 3 ? (int)at : 3, rgb = 0;
    for (int i = 0; i < 3; i++)
        rgb = rgb << 8 | (int)(ramp[k][i] + (at - k) * (ramp[k + 1][i] - ramp[k][i]) + 0.5);
    return rgb;
}

/* ---- Words. ---- */

/* A piece as displayed; the caller's to free. */
static char *word_make(const char *piece) {
    static const char space[] = "\xe2\x96\x81";
    char *word = harmless_text(strncmp(piece, space, 3) ? piece : piece + 3);
    if (!word) return NULL;
    char *to = word;
    for (const char *at = word; *at;) {
        if (!strncmp(at, space, 3))
            *to++ = ' ', at += 3;
        else
            *to++ = *at++;
    }
    *to = 0;
    return word;
}

static int put_words(const Figure *f, Error *err) {
    const TraceEntry *last = trace_entries(f->h, f->h->steps - 1);
    fprintf(f->out, "<g font-family=\"serif\" font-size=\"%d\">\n", f->font + 1);
    for (int i = 0; i < f->h->length; i++) {
        if (last[i].masked) continue;
        char *word = word_make(last[i].piece);
        if (!word) return error_set(err, "out of memory for the figure's tokens");
        fprintf(f->out, "<text x=\"%d\" y=\"%d\">", f->right + 8,
                f->top + i * f->row + f->row / 2 + f->font / 3);
        markup_put(f->out, word);
        fputs("</text>\n", f->out);
        free(word);
    }
    fputs("</g>\n", f->out);
    return 0;
}

/* ---- Cells. ---- */

static bool same(const TraceEntry *a, const TraceEntry *b) {
    return a->masked == b->masked && (a->masked || (a->id == b->id && a->score == b->score));
}

/* A fixed token: a bar without a color of its own, in all steps. */
static void put_fixed(const Figure *f, int position) {
    fprintf(f->out,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#fff\" stroke=\"#888\"/>\n",
            LEFT, f->top + position * f->row + 2, f->h->steps * f->column, f->row - 4);
}

static void put_run(const Figure *f, int position, int from, int to, const TraceEntry *e) {
    fprintf(f->out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%06x\"/>\n",
            LEFT + from * f->column, f->top + position * f->row + 1, (to - from) * f->column,
            f->row - 2, (unsigned)color(exp((double)e->score)));
}

static void put_written(const Figure *f, int position, int step) {
    fprintf(f->out, "<rect x=\"%d\" y=\"%d\" width=\"2\" height=\"%d\" fill=\"#222\"/>\n",
            LEFT + step * f->column, f->top + position * f->row + 1, f->row - 2);
}

static void put_cross(const Figure *f, int x, int y) {
    int r = f->row / 5;
    fprintf(f->out,
            "<path d=\"M%d %dl%d %dm0 -%dl-%d %d\" stroke=\"#222\" stroke-width=\"1.5\"/>\n", x - r,
            y - r, 2 * r, 2 * r, 2 * r, 2 * r, 2 * r);
}

/* One position in all steps: bars for unchanged tokens, marks where it was written and erased. */
static void put_position(const Figure *f, int position) {
    const TraceEntry *before = NULL;
    if (trace_fixed(f->h, position)) {
        put_fixed(f, position);
        return;
    }
    for (int s = 0, end; s < f->h->steps; s = end) {
        const TraceEntry *e = &trace_entries(f->h, s)[position];
        for (end = s + 1; end < f->h->steps; end++)
            if (!same(e, &trace_entries(f->h, end)[position])) break;
        bool stood = before && !before->masked;
        bool other = !stood || e->masked || e->id != before->id;
        if (!e->masked) put_run(f, position, s, end, e);
        if (!e->masked && other) put_written(f, position, s);
        if (stood && other)
            put_cross(f, LEFT + s * f->column + f->column / 2,
                      f->top + position * f->row + f->row / 2);
        before = e;
    }
}

static void put_ground(const Figure *f) {
    fprintf(f->out, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", f->width, f->height);
    for (int i = 0; i <= f->h->length; i++)
        fprintf(f->out, "<path d=\"M%d %dH%d\" stroke=\"#ddd\"/>\n", LEFT, f->top + i * f->row,
                f->right);
}

/* ---- Axes and legend. ---- */

static int round_unit(double least) {
    static const int parts[] = {1, 2, 5};
    for (int power = 1;; power *= 10)
        for (int i = 0; i < 3; i++)
            if (parts[i] * power >= least || power > 100000) return parts[i] * power;
}

static void put_axes(const Figure *f) {
    int across = round_unit(34.0 / f->column), down = round_unit(14.0 / f->row);
    fputs("<g text-anchor=\"middle\" fill=\"#444\">\n", f->out);
    for (int s = 1; s <= f->h->steps; s++)
        if (s % across == 0 || (s == 1 && across * f->column > 34))
            fprintf(f->out, "<text x=\"%d\" y=\"%d\">%d</text>\n",
                    LEFT + (s - 1) * f->column + f->column / 2, f->bottom + 16, s);
    fprintf(f->out, "<text x=\"%d\" y=\"%d\">step</text>\n", (LEFT + f->right) / 2, f->bottom + 34);
    int middle = (f->top + f->bottom) / 2;
    fprintf(f->out, "<text x=\"14\" y=\"%d\" transform=\"rotate(-90 14 %d)\">position</text>\n",
            middle, middle);
    fputs("</g>\n<g text-anchor=\"end\" fill=\"#444\">\n", f->out);
    for (int i = 1; i <= f->h->length; i++)
        if (i % down == 0 || i == 1)
            fprintf(f->out, "<text x=\"%d\" y=\"%d\">%d</text>\n", LEFT - 8,
                    f->top + (i - 1) * f->row + f->row / 2 + f->font / 3, i);
    fputs("</g>\n", f->out);
}

static void put_legend(const Figure *f) {
    int y = f->bottom + 52, x = LEFT, end = x + LEGEND_PARTS * LEGEND_PART;
    for (int i = 0; i < LEGEND_PARTS; i++)
        fprintf(f->out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"10\" fill=\"#%06x\"/>\n",
                x + i * LEGEND_PART, y, LEGEND_PART,
                (unsigned)color((double)i / (LEGEND_PARTS - 1)));
    fprintf(f->out,
            "<g fill=\"#444\" font-size=\"11\"><text x=\"%d\" y=\"%d\">0</text>"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">1</text>"
            "<text x=\"%d\" y=\"%d\">probability of the token</text>"
            "<text x=\"%d\" y=\"%d\">written</text><text x=\"%d\" y=\"%d\">erased</text></g>\n",
            x, y + 23, end, y + 23, end + 8, y + 9, end + 164, y + 9, end + 234, y + 9);
    fprintf(f->out, "<rect x=\"%d\" y=\"%d\" width=\"2\" height=\"12\" fill=\"#222\"/>\n",
            end + 154, y - 1);
    put_cross(f, end + 222, y + 5);
    if (!f->h->fixed) return;
    fprintf(f->out,
            "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"9\" fill=\"#fff\" stroke=\"#888\"/>"
            "<text x=\"%d\" y=\"%d\" fill=\"#444\" font-size=\"11\">given</text>\n",
            end + 280, y, end + 300, y + 9);
}

/* ---- Question and answer. ---- */

/* A column of text is assumed to be 0.55 em wide, more than the letters of most fonts. */
static int caption_make(Caption *caption, const char *text, int font, int width, Error *err) {
    caption->font = font;
    int columns = width * 100 / (font * 55);
    TRY(styled_append(&caption->text, text, strlen(text), 0, err));
    TRY(layout_make(&caption->layout, &caption->text, columns > 8 ? columns : 8, err));
    size_t lines = caption->layout.line_count;
    caption->lines = lines < CAPTION_LINES ? (int)lines : CAPTION_LINES;
    return 0;
}

static int caption_height(const Caption *caption) {
    return caption->lines * (caption->font + 6);
}

static void caption_free(Caption *caption) {
    styled_free(&caption->text), layout_free(&caption->layout);
}

static int put_caption(const Figure *f, const Caption *caption, int y, const char *style,
                       Error *err) {
    for (int i = 0; i < caption->lines; i++) {
        const Line *line = &caption->layout.lines[i];
        const Cluster *first = &caption->layout.clusters[line->first],
                      *last = first + line->count - 1;
        size_t size = line->count ? last->begin + last->size - first->begin : 0;
        char *text = size ? strndup(caption->text.text + first->begin, size) : strdup("");
        if (!text) return error_set(err, "out of memory for the figure's texts");
        bool cut = i + 1 == caption->lines && caption->layout.line_count > (size_t)caption->lines;
        fprintf(f->out, "<text x=\"%d\" y=\"%d\" font-size=\"%d\" %s>", LEFT,
                y + (i + 1) * (caption->font + 6) - 6, caption->font, style);
        markup_put(f->out, text);
        fputs(cut ? " \xe2\x80\xa6</text>\n" : "</text>\n", f->out);
        free(text);
    }
    return 0;
}

static int put_captions(const Figure *f, Error *err) {
    int y = MARGIN;
    TRY(put_caption(f, &f->question, y, "fill=\"#444\"", err));
    return put_caption(f, &f->answer, y + caption_height(&f->question),
                       "font-family=\"serif\" fill=\"#111\"", err);
}

/* ---- The whole. ---- */

static int figure_measure(Figure *f, const Trace *trace, int label, Error *err) {
    int fit = PLOT_WIDTH / f->h->steps;
    f->column = fit < COLUMN_LEAST ? COLUMN_LEAST : fit > COLUMN_MOST ? COLUMN_MOST : fit;
    f->row = f->h->length <= 40 ? 20 : 15;
    f->font = f->h->length <= 40 ? 12 : 10;
    f->right = LEFT + f->h->steps * f->column;
    f->width = f->right + 16 + label * (f->font + 1) * 2 / 3;
    int legend = LEFT + LEGEND_PARTS * LEGEND_PART + LEGEND_WORDS - 40;
    if (f->h->fixed) legend += LEGEND_GIVEN;
    if (f->width < legend) f->width = legend;
    int room = f->width - LEFT - MARGIN;
    TRY(caption_make(&f->question, trace_heading(trace), 13, room, err));
    TRY(caption_make(&f->answer, f->h->text, 17, room, err));
    f->top = MARGIN + caption_height(&f->question) + caption_height(&f->answer) + MARGIN;
    f->bottom = f->top + f->h->length * f->row;
    f->height = f->bottom + BELOW;
    return 0;
}

/* Columns of the widest token, as in a terminal; -1: out of memory. */
static int widest(const TraceHypothesis *h) {
    const TraceEntry *last = trace_entries(h, h->steps - 1);
    int most = 0;
    for (int i = 0; i < h->length; i++) {
        char *word = last[i].masked ? strdup("") : word_make(last[i].piece);
        if (!word) return -1;
        int width = text_width(word);
        if (width > most) most = width;
        free(word);
    }
    return most;
}

static int put_about(const Figure *f, const Trace *trace, Error *err) {
    char *question = harmless_text(trace_heading(trace)), *answer = harmless_text(f->h->text);
    char *strategy = harmless_text(trace->strategy);
    bool bad = !question || !answer || !strategy;
    if (!bad) {
        fputs("<title id=\"title\">", f->out), markup_put(f->out, question);
        fputs(" \xe2\x80\x94 ", f->out), markup_put(f->out, answer);
        fputs("</title>\n<desc id=\"about\">How an answer was filled in: ", f->out),
            markup_put(f->out, answer);
        fputs(" (", f->out), markup_put(f->out, strategy);
        fprintf(f->out, ", %d steps)</desc>\n", f->h->steps);
    }
    free(question), free(answer), free(strategy);
    return bad ? error_set(err, "out of memory for the figure's texts") : 0;
}

static int put_all(Figure *f, const Trace *trace, Error *err) {
    int label = widest(f->h);
    if (label < 0) return error_set(err, "out of memory for the figure's tokens");
    TRY(figure_measure(f, trace, label, err));
    fprintf(f->out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"%d\" role=\"img\" "
            "aria-labelledby=\"title about\">\n",
            f->width, f->height, f->width, f->height, f->font);
    TRY(put_about(f, trace, err));
    put_ground(f);
    TRY(put_captions(f, err));
    for (int i = 0; i < f->h->length; i++) put_position(f, i);
    TRY(put_words(f, err));
    put_axes(f);
    put_legend(f);
    fputs("</svg>\n", f->out);
    return 0;
}

static int put_figure(FILE *out, const Trace *trace, Error *err) {
    Figure f = {.out = out, .h = &trace->hypotheses[trace->best]};
    int status = put_all(&f, trace, err);
    caption_free(&f.question), caption_free(&f.answer);
    return status;
}

char *figure_text(const Trace *trace, size_t *size, Error *err) {
    Markup figure;
    if (markup_begin(&figure, err)) return NULL;
    if (markup_end(&figure, put_figure(figure.out, trace, err), err)) return NULL;
    if (size) *size = figure.size;
    return figure.text;
}

int figure_write(const Trace *trace, const char *path, Error *err) {
    size_t size = 0;
    char *text = figure_text(trace, &size, err);
    return markup_write(text, size, path, err);
}
