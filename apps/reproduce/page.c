/* page.c - a table's report as a page: the rows with their intervals, and curves over the sizes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/report.h"
#include "apps/eval/page_parts.h"
#include "apps/reproduce/report.h"
#include "apps/reproduce/run_child.h"
#include "apps/show/markup.h"

/* ---- Rows. ---- */

static int put_paragraph(FILE *out, const char *text, Error *err) {
    if (!text) return 0;
    fputs("<p>", out);
    TRY(page_text_put(out, text, err));
    fputs("</p>\n", out);
    return 0;
}

static void put_number(FILE *out, double value) {
    if (isnan(value))
        fputs("<td>&ndash;</td>", out);
    else
        fprintf(out, "<td>%.2f</td>", value);
}

static int put_row(FILE *out, const PlanCell *cell, const Outcome *o, double most, Error *err) {
    fputs("<tr><td>", out);
    TRY(page_text_put(out, cell->label, err));
    if (cell->size[0]) fprintf(out, ", %s", cell->size);
    fputs("</td><td>", out);
    TRY(page_text_put(out, cell->metric, err));
    fputs("</td>", out);
    put_number(out, cell->paper);
    put_number(out, o->value);
    if (isnan(o->low)) {
        fputs("<td></td><td>", out);
        if (isnan(o->value)) TRY(page_text_put(out, o->why, err));
    } else {
        fprintf(out, "<td>%.2f to %.2f</td><td>", o->low, o->high);
        page_bar(out, o->low, o->value, o->high, 0, most);
    }
    fputs("</td></tr>\n", out);
    return 0;
}

static double largest(const Plan *p, const Outcome *outcomes) {
    double most = 0;
    for (int i = 0; i < p->cell_count; i++)
        most = fmax(most, fmax(fmax(p->cells[i].paper, outcomes[i].value), outcomes[i].high));
    return most > 0 ? most : 1;
}

static int put_rows(FILE *out, const Plan *p, const Outcome *outcomes, Error *err) {
    fputs("<div class=\"wide\"><table>\n<tr><th></th><th>metric</th><th>paper</th><th>ours</th>"
          "<th>95 %</th><th></th></tr>\n",
          out);
    const double most = largest(p, outcomes);
    for (int i = 0; i < p->cell_count; i++)
        TRY(put_row(out, &p->cells[i], &outcomes[i], most, err));
    fputs("</table></div>\n", out);
    return 0;
}

/* ---- Curves. ---- */

enum { WIDTH = 480, HEIGHT = 240, LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 30 };

typedef struct Curve {
    FILE *out;
    int count; /* of sizes */
    double most;
} Curve;

static double curve_x(const Curve *c, int i) {
    return LEFT + (c->count < 2 ? 0.5 : (double)i / (c->count - 1)) * (WIDTH - LEFT - RIGHT);
}

static double curve_y(const Curve *c, double value) {
    return HEIGHT - BOTTOM - value / c->most * (HEIGHT - TOP - BOTTOM);
}

static void put_line(const Curve *c, const PlanCell *cells, const Outcome *outcomes, bool paper) {
    int points = 0;
    fprintf(c->out, "<polyline class=\"%s\" points=\"", paper ? "paper" : "ours");
    for (int i = 0; i < c->count; i++) {
        const double value = paper ? cells[i].paper : outcomes[i].value;
        if (isnan(value)) continue;
        fprintf(c->out, "%s%.1f,%.1f", points++ ? " " : "", curve_x(c, i), curve_y(c, value));
    }
    fputs("\"/>\n", c->out);
    for (int i = 0; i < c->count; i++) {
        const double value = paper ? cells[i].paper : outcomes[i].value;
        const double x = curve_x(c, i);
        if (isnan(value)) continue;
        fprintf(c->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n",
                paper ? "paper" : "ours", x, curve_y(c, value));
        if (!paper && !isnan(outcomes[i].low))
            fprintf(c->out,
                    "<line class=\"range\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x,
                    x, curve_y(c, outcomes[i].low), curve_y(c, outcomes[i].high));
    }
}

/* Cells [first, first + count) are one row of the table over its sizes. */
static int put_curve(FILE *out, const PlanCell *cells, const Outcome *outcomes, int count,
                     Error *err) {
    Curve c = {.out = out, .count = count};
    for (int i = 0; i < count; i++)
        c.most = fmax(c.most, fmax(fmax(cells[i].paper, outcomes[i].value), outcomes[i].high));
    if (!(c.most > 0)) return 0;
    c.most *= 1.05;
    fputs("<h2>", out);
    TRY(page_text_put(out, cells[0].label, err));
    fputs("</h2>\n", out);
    fprintf(out, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, HEIGHT);
    for (int i = 0; i <= 4; i++) {
        const double value = c.most * i / 4, y = curve_y(&c, value);
        fprintf(out,
                "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n",
                LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4, c.most < 10 ? 1 : 0, value);
    }
    for (int i = 0; i < count; i++) {
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", curve_x(&c, i),
                HEIGHT - 10);
        TRY(page_text_put(out, cells[i].size, err));
        fputs("</text>\n", out);
    }
    put_line(&c, cells, outcomes, true);
    put_line(&c, cells, outcomes, false);
    fputs("</svg>\n", out);
    return 0;
}

static int put_curves(FILE *out, const Plan *p, const Outcome *outcomes, Error *err) {
    if (!p->plot) return 0;
    fputs("<p class=\"note\">Curves: the paper's dashed, ours solid with 95 % intervals.</p>\n",
          out);
    for (int first = 0, count; first < p->cell_count; first += count) {
        const char *label = p->cells[first].label;
        for (count = 1; first + count < p->cell_count; count++)
            if (strcmp(p->cells[first + count].label, label)) break;
        if (count > 1) TRY(put_curve(out, &p->cells[first], &outcomes[first], count, err));
    }
    return 0;
}

/* ---- Claims. ---- */

static int put_claim(FILE *out, const Claim *c, Error *err) {
    fputs("<tr><td>", out);
    TRY(page_text_put(out, c->text, err));
    if (c->greater->size[0] || c->less->size[0]) fprintf(out, ", %s", c->greater->of_size);
    fputs("</td>", out);
    put_number(out, c->difference);
    if (isnan(c->low))
        fputs("<td></td>", out);
    else
        fprintf(out, "<td>%.2f to %.2f%s</td>", c->low, c->high, c->paired ? "" : ", not paired");
    fprintf(out, "<td>%s", verdict_names[c->verdict]);
    if (c->why) {
        fputs(": ", out);
        TRY(page_text_put(out, c->why, err));
    }
    fputs("</td></tr>\n", out);
    return 0;
}

static int put_claims(FILE *out, const Claims *claims, Error *err) {
    if (!claims->count) return 0;
    fputs("<h2>Claims</h2>\n<div class=\"wide\"><table>\n<tr><th></th><th>difference</th>"
          "<th>95 %</th><th></th></tr>\n",
          out);
    for (int i = 0; i < claims->count; i++) TRY(put_claim(out, &claims->items[i], err));
    fputs("</table></div>\n", out);
    return 0;
}

/* ---- The page. ---- */

static int put_commands(FILE *out, const Plan *p, const StepRecord *records, Error *err) {
    fputs("<h2>Commands</h2>\n<ol class=\"note\">\n", out);
    for (int i = 0; i < p->step_count; i++) {
        if (!p->steps[i].needed) continue;
        char *text = command_line_text(p->steps[i].program, p->steps[i].words, err);
        if (!text) return -1;
        fputs("<li><code>", out);
        int status = page_text_put(out, text, err);
        free(text);
        TRY(status);
        fprintf(out, "</code>%s</li>\n", records[i].state == STEP_DONE ? "" : " (not finished)");
    }
    fputs("</ol>\n", out);
    return 0;
}

static int put_page(EvalPage *page, const Plan *p, const StepRecord *records,
                    const Outcome *outcomes, const Claims *claims, Error *err) {
    TRY(page_begin(page, p->title, err));
    TRY(put_paragraph(page->out, p->source, err));
    TRY(put_paragraph(page->out, p->about, err));
    TRY(put_paragraph(page->out, p->note, err));
    TRY(put_paragraph(page->out, report_caution(p), err));
    TRY(put_rows(page->out, p, outcomes, err));
    TRY(put_claims(page->out, claims, err));
    TRY(put_curves(page->out, p, outcomes, err));
    TRY(put_commands(page->out, p, records, err));
    page_end(page);
    return 0;
}

int report_page(const Plan *p, const StepRecord *records, const Outcome *outcomes,
                const Claims *claims, const char *path, Error *err) {
    Markup markup;
    EvalPage page = {0};
    TRY(markup_begin(&markup, err));
    page.out = markup.out;
    TRY(markup_end(&markup, put_page(&page, p, records, outcomes, claims, err), err));
    return markup_write(markup.text, markup.size, path, err);
}
