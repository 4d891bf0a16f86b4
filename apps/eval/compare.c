/* compare.c - compares two evaluations of the same questions. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apps/cli/json.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/eval/compare.h"
#include "apps/eval/eval.h"
#include "apps/eval/page.h"
#include "apps/score/sure.h"
#include "data/files/json_memory.h"

static const CommandHelp help = {
    .name = "eval compare",
    .usage = "[options] FOLDER FOLDER",
    .about =
        "Compares two evaluations, folders of `easyfirst eval gqa` or `eval text` (--out), of the\n"
        "same questions; others are refused (--other-prompts: unless only the prompts differ).\n"
        "For each score: both values, the difference of the second folder's from the first's with\n"
        "its 95 % confidence interval, and p, how likely so large a difference is by chance, by\n"
        "paired bootstrap and by approximate randomization, as sacrebleu's. Then how many\n"
        "questions the second one won and lost, and the same for each file and type of questions,\n"
        "where Holm's method corrects p for the number of files or types.\n"
        "--report writes a page for a browser with the answers that changed, with their images.",
    .examples = "easyfirst eval compare before after\n"
                "easyfirst eval compare before after --report changes.html --images gqa/images",
};

typedef struct Compare {
    ResampleOptions options;
    PageOptions page;
    const char *report;
    bool json, other_prompts;
    const char *folders[2];
    Comparison comparison;
} Compare;

/* ---- JSON. ---- */

static json_t *row_json(const CompareRow *row) {
    json_t *object = paired_json(&row->paired);
    json_object_set_new(object, "questions", json_integer(row->count));
    if (!isnan(row->p_holm)) json_object_set_new(object, "p_holm", json_real(row->p_holm));
    if (row->metric) return object;
    json_object_set_new(object, "won", json_integer(row->won));
    json_object_set_new(object, "lost", json_integer(row->lost));
    json_object_set_new(object, "same", json_integer(row->same));
    return object;
}

/* The member of an object that is an object itself; it is made. */
static json_t *inside(json_t *object, const char *name) {
    if (!json_object_get(object, name)) json_object_set_new(object, name, json_object());
    return json_object_get(object, name);
}

static json_t *comparison_json(const Compare *o) {
    const Comparison *c = &o->comparison;
    json_memory_begin();
    json_t *object = json_object(), *scores = inside(object, "scores");
    for (int s = 0; s < 2; s++) {
        json_t *side = inside(object, s ? "second" : "first");
        json_object_set_new(side, "folder", json_text(o->folders[s]));
        json_object_set_new(side, "model", json_text(compare_model(c, s)));
    }
    if (c->other_prompts) json_object_set_new(object, "other_prompts", json_true());
    json_object_set_new(object, "task", json_string(c->sides[0].task->name));
    json_object_set_new(object, "questions", json_integer(c->sides[0].count));
    json_object_set_new(object, "won", json_integer(c->won));
    json_object_set_new(object, "lost", json_integer(c->lost));
    json_object_set_new(object, "same", json_integer(c->same));
    for (int i = 0; i < c->row_count; i++) {
        const CompareRow *row = &c->rows[i];
        json_t *to =
            row->group ? inside(inside(inside(object, "by"), row->group), row->name) : scores;
        json_object_set_new(to, c->sides[0].task->keys[row->metric], row_json(row));
    }
    if (json_object_get(object, "by"))
        json_object_set_new(object, "correction", json_string("Holm"));
    if (!json_memory_failed()) return object;
    json_decref(object);
    return NULL;
}

/* ---- For people. ---- */

enum { NAME_WIDTH = 18 };

static void print_header(const char *title, bool group, bool winners) {
    char name[64];
    snprintf(name, sizeof name, "%s", title);
    printf("%-*s%9s%9s%9s  %-20s%10s%10s", NAME_WIDTH, name, "first", "second", "change", "95 %",
           "p (boot.)", "p (rand.)");
    if (group) printf("%10s", "p (Holm)");
    if (winners) printf("%7s%7s%8s", "won", "lost", "same");
    putchar('\n');
}

static void print_row(const CompareRow *row, const char *name, bool winners) {
    const Paired *p = &row->paired;
    char range[64];
    snprintf(range, sizeof range, "%+.2f to %+.2f", p->difference.low, p->difference.high);
    report_field(stdout, name);
    int width = (int)strlen(name);
    printf("%*s", width < NAME_WIDTH ? NAME_WIDTH - width : 1, "");
    if (isnan(p->scores[0]) || isnan(p->scores[1]))
        printf("%9s%9s", "-", "-");
    else
        printf("%9.2f%9.2f%+9.2f  %-20s%10.4f%10.4f", p->scores[0], p->scores[1],
               p->scores[1] - p->scores[0], range, p->p_bootstrap, p->p_random);
    if (!isnan(row->p_holm)) printf("%10.4f", row->p_holm);
    if (winners)
        printf("%7lld%7lld%8lld", (long long)row->won, (long long)row->lost, (long long)row->same);
    putchar('\n');
}

static void print_groups(const Comparison *c) {
    const ScoredTask *task = c->sides[0].task;
    const char *group = NULL, *name = NULL;
    char title[64];
    for (int i = 0; i < c->row_count; i++) {
        const CompareRow *row = &c->rows[i];
        const bool file = row->group && !strcmp(row->group, "file");
        if (!row->group) continue;
        const bool begins =
            !group || strcmp(group, row->group) || (file && (!name || strcmp(name, row->name)));
        if (begins) {
            putchar('\n');
            if (file) report_field(stdout, row->name), putchar('\n');
            snprintf(title, sizeof title, "by %s type", row->group);
            print_header(file                             ? ""
                         : !strcmp(row->group, "subject") ? "by subject"
                                                          : title,
                         true, !file);
        }
        group = row->group, name = row->name;
        print_row(row, file ? task->titles[row->metric] : row->name, !file);
    }
}

static void print_text(const Compare *o) {
    const Comparison *c = &o->comparison;
    const ScoredTask *task = c->sides[0].task;
    char number[REPORT_NUMBER_SIZE];
    for (int s = 0; s < 2; s++) {
        printf("%-10s", s ? "second" : "first");
        report_field(stdout, o->folders[s]);
        fputs("  (model ", stdout);
        report_field(stdout, compare_model(c, s));
        fputs(")\n", stdout);
    }
    report_number(number, c->sides[0].count);
    printf("questions %s: the second one won %lld, lost %lld, %lld are the same (by %s)\n\n",
           number, (long long)c->won, (long long)c->lost, (long long)c->same, task->titles[0]);
    print_header(task->name, false, false);
    for (int i = 0; i < c->row_count; i++)
        if (!c->rows[i].group) print_row(&c->rows[i], task->titles[c->rows[i].metric], false);
    print_groups(c);
    for (int i = 0; i < c->row_count; i++)
        if (c->rows[i].group) {
            puts("\np (Holm): p (rand.), corrected by Holm's method for the rows of its table");
            return;
        }
}

static int run(Compare *o, Error *err) {
    TRY(compare_open(&o->comparison, o->folders[0], o->folders[1], o->other_prompts, &o->options,
                     err));
    if (o->report) TRY(eval_page_compare(&o->comparison, o->folders, &o->page, o->report, err));
    if (o->json)
        TRY(json_print_line(comparison_json(o), JSON_DIGITS, err));
    else
        print_text(o);
    return report_flush(err);
}

int eval_compare(int argc, char **argv) {
    Compare o = {.page = {.answers = PAGE_ANSWERS}};
    OptionGroup group = {
        .title = "options",
        .options = {
            {"report", 0, OPTION_TEXT, "FILE", &o.report, "also write a self-contained HTML page"},
            {"images", 0, OPTION_TEXT, "FOLDER", &o.page.images,
             "the images for it (default: the first evaluation's --images)"},
            {"answers", 0, OPTION_INTEGER, "N", &o.page.answers,
             "changed answers on it, won and lost each (default 50)", 0, 100000},
            {"samples", 0, OPTION_INTEGER, "N", &o.options.samples,
             "resamples of the bootstrap (default 1000)", 2, 10000000},
            {"trials", 0, OPTION_INTEGER, "N", &o.options.trials,
             "trials of the randomization (default 10000)", 2, 10000000},
            {"seed", 0, OPTION_SEED, "N", &o.options.seed, "seed of both (default 12345)"},
            {"other-prompts", 0, OPTION_FLAG, NULL, &o.other_prompts,
             "the same questions in other words, such as without an\n"
             "instruction: only ids and targets must be the same"},
            {"json", 0, OPTION_FLAG, NULL, &o.json, "one JSON object"}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status >= 0) return status;
    if (argc - first != 2)
        return options_wrong(&help, "two folders are needed: those of the evaluations to compare");
    if (o.page.images && !o.report) return options_wrong(&help, "--images needs --report");
    o.folders[0] = argv[first], o.folders[1] = argv[first + 1];
    Error err;
    status = run(&o, &err) ? 1 : 0;
    if (status) report_failure(&err);
    compare_free(&o.comparison);
    return status;
}
