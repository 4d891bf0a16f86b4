#include "apps/reproduce/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/json.h"
#include "apps/cli/report.h"
#include "apps/reproduce/run_child.h"
#include "data/files/file_write.h"
#include "data/files/path.h"
#include "projector/easyfirst.h"

const char *report_caution(const Plan *p) {
    if (p->options.limit || p->options.steps)
        return "This is a trial: --limit or --train-steps shortened evaluations or training. Its "
               "numbers say nothing about the paper's.";
    if (p->options.small)
        return "This is the small form: models of at most a few million parameters on made-up "
               "data. "
               "The paper's numbers stand for another task; compare the order of the rows.";
    return NULL;
}

/* ---- Markdown. ---- */

/* A text in a cell of a table. */
static void put_cell(FILE *out, const char *text) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
}

static void put_number(FILE *out, double value) {
    if (isnan(value))
        fputs("-", out);
    else
        fprintf(out, "%.2f", value);
}

static void put_row(FILE *out, const PlanCell *cell, const Outcome *o) {
    fputs("| ", out);
    put_cell(out, cell->label);
    if (cell->size[0]) fprintf(out, ", %s", cell->size);
    fputs(" | ", out);
    put_cell(out, cell->metric);
    fputs(" | ", out);
    put_number(out, cell->paper);
    fputs(" | ", out);
    if (isnan(o->value))
        put_cell(out, o->why ? o->why : "-");
    else
        put_number(out, o->value);
    fputs(" | ", out);
    if (!isnan(o->low)) fprintf(out, "%.2f to %.2f", o->low, o->high);
    fputs(" |\n", out);
}

static void put_claims(FILE *out, const Claims *claims) {
    if (!claims->count) return;
    fputs("\n| claim | difference | 95 % interval | |\n|---|---:|---|---|\n", out);
    for (int i = 0; i < claims->count; i++) {
        const Claim *c = &claims->items[i];
        fputs("| ", out);
        put_cell(out, c->text);
        if (c->greater->size[0] || c->less->size[0]) fprintf(out, ", %s", c->greater->of_size);
        fputs(" | ", out);
        put_number(out, c->difference);
        fputs(" | ", out);
        if (!isnan(c->low))
            fprintf(out, "%.2f to %.2f%s", c->low, c->high, c->paired ? "" : ", not paired");
        fprintf(out, " | %s", verdict_names[c->verdict]);
        if (c->why) fputs(": ", out), put_cell(out, c->why);
        fputs(" |\n", out);
    }
}

static int put_commands(FILE *out, const Plan *p, const StepRecord *records, Error *err) {
    static const char *const states[] = {"not run yet", "", "failed", "blocked by a failure"};
    fputs("\n## Commands\n\n```\n", out);
    for (int i = 0; i < p->step_count; i++) {
        const PlanStep *s = &p->steps[i];
        if (!s->needed) continue;
        char *text = command_line_text(s->program, s->words, err), time[REPORT_NUMBER_SIZE];
        if (!text) return -1;
        report_duration(time, records[i].seconds);
        fprintf(out, "%s   # %s\n", text,
                records[i].state == STEP_DONE ? time : states[records[i].state]);
        free(text);
    }
    fputs("```\n", out);
    return 0;
}

static int put_markdown(FILE *out, const Plan *p, const StepRecord *records,
                        const Outcome *outcomes, const Claims *claims, Error *err) {
    const char *caution = report_caution(p);
    fprintf(out, "# %s: %s\n\n%s. easyfirst %s.\n\n%s\n", p->name, p->title, p->source, EF_VERSION,
            p->about);
    if (p->note) fprintf(out, "\n%s\n", p->note);
    if (caution) fprintf(out, "\n%s\n", caution);
    fputs("\n| | metric | paper | ours | 95 % interval |\n|---|---|---:|---:|---|\n", out);
    for (int i = 0; i < p->cell_count; i++) put_row(out, &p->cells[i], &outcomes[i]);
    put_claims(out, claims);
    return put_commands(out, p, records, err);
}

static int write_markdown(const Plan *p, const StepRecord *records, const Outcome *outcomes,
                          const Claims *claims, const char *path, Error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return error_set(err, "out of memory for the report");
    int status = put_markdown(out, p, records, outcomes, claims, err);
    if (fclose(out) != 0 && status == 0) status = error_set(err, "out of memory for the report");
    if (status == 0) status = file_write_all(path, text, size, err);
    free(text);
    return status;
}

/* ---- JSON. ---- */

static void set_number(json_t *object, const char *name, double value) {
    json_object_set_new(object, name, isnan(value) ? json_null() : json_real(value));
}

static json_t *cell_json(const Plan *p, const PlanCell *cell, const Outcome *o) {
    json_t *json = json_pack("{s:s, s:s, s:s}", "label", cell->label, "size", cell->size, "metric",
                             cell->metric);
    set_number(json, "paper", cell->paper);
    set_number(json, "ours", o->value);
    set_number(json, "low", o->low);
    set_number(json, "high", o->high);
    if (cell->step >= 0) {
        json_object_set_new(json, "step", json_text(p->steps[cell->step].name));
        json_object_set_new(json, "result", json_text(p->steps[cell->step].result));
        json_object_set_new(json, "value", json_text(cell->value));
    }
    if (isnan(o->value) && o->why) json_object_set_new(json, "why", json_text(o->why));
    return json;
}

static json_t *step_json(const PlanStep *s, const StepRecord *record) {
    char *text = command_line_text(s->program, s->words, NULL);
    json_t *json = json_pack("{s:o, s:o, s:b, s:i, s:f}", "name", json_text(s->name), "command",
                             json_text(text ? text : ""), "done", record->state == STEP_DONE,
                             "status", record->status, "seconds", record->seconds);
    free(text);
    return json;
}

static json_t *claim_json(const Claim *c) {
    const bool sized = c->greater->size[0] || c->less->size[0];
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "text", c->text, "size",
                  sized ? c->greater->of_size : "", "greater", c->greater->label, "less",
                  c->less->label, "verdict", verdict_names[c->verdict], "paired", c->paired);
    set_number(json, "difference", c->difference);
    set_number(json, "low", c->low);
    set_number(json, "high", c->high);
    if (c->why) json_object_set_new(json, "why", json_text(c->why));
    return json;
}

static int write_json(const Plan *p, const StepRecord *records, const Outcome *outcomes,
                      const Claims *claims, const char *path, Error *err) {
    const char *caution = report_caution(p);
    json_t *rows = json_array(), *steps = json_array(), *said = json_array();
    for (int i = 0; i < claims->count; i++)
        json_array_append_new(said, claim_json(&claims->items[i]));
    for (int i = 0; i < p->cell_count; i++)
        json_array_append_new(rows, cell_json(p, &p->cells[i], &outcomes[i]));
    for (int i = 0; i < p->step_count; i++)
        if (p->steps[i].needed) json_array_append_new(steps, step_json(&p->steps[i], &records[i]));
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s*, s:s*, s:o, s:o, s:o}", "easyfirst",
                  EF_VERSION, "table", p->name, "title", p->title, "source", p->source, "about",
                  p->about, "small", p->options.small, "note", p->note, "caution", caution, "rows",
                  rows, "claims", said, "steps", steps);
    char *text = json_line(json, JSON_DIGITS);
    int status = text ? file_write_all(path, text, strlen(text), err)
                      : error_set(err, "out of memory for the report");
    free(text);
    return status;
}

/* ---- All of them. ---- */

static int write_all(const Plan *p, const StepRecord *records, const Outcome *outcomes,
                     const Claims *claims, Error *err) {
    static const char *const endings[] = {"md", "json", "html"};
    int status = 0;
    for (int i = 0; i < 3 && status == 0; i++) {
        char *path = path_format(err, "%s/%s.%s", p->options.out, p->name, endings[i]);
        status = !path    ? -1
                 : i == 0 ? write_markdown(p, records, outcomes, claims, path, err)
                 : i == 1 ? write_json(p, records, outcomes, claims, path, err)
                          : report_page(p, records, outcomes, claims, path, err);
        free(path);
    }
    return status;
}

int report_write(const Plan *p, const StepRecord *records, int *without, Error *err) {
    Outcome *outcomes = calloc((size_t)p->cell_count + 1, sizeof *outcomes);
    int status = outcomes ? 0 : error_set(err, "out of memory for the report");
    Claims claims = {NULL, 0};
    const bool trial = p->options.limit || p->options.steps;
    *without = 0;
    for (int i = 0; i < p->cell_count && status == 0; i++) {
        status = outcome_read(p, &p->cells[i], records, &outcomes[i], err);
        const PlanCell *cell = &p->cells[i];
        /* A trial's models may say nothing that could be counted. */
        const bool expected = cell->step >= 0 && !(trial && records[cell->step].state == STEP_DONE);
        *without += expected && isnan(outcomes[i].value);
    }
    if (status == 0) status = claims_judge(&claims, p, outcomes, err);
    if (status == 0) status = write_all(p, records, outcomes, &claims, err);
    if (status == 0) {
        report_print(stdout, "%s: %s\n", p->name, p->title);
        fputs("| | metric | paper | ours | 95 % interval |\n|---|---|---:|---:|---|\n", stdout);
        for (int i = 0; i < p->cell_count; i++) put_row(stdout, &p->cells[i], &outcomes[i]);
        put_claims(stdout, &claims);
        status = report_flush(err);
    }
    claims_free(&claims);
    free(outcomes);
    return status;
}
