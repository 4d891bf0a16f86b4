/* reproduce.c - the tables and figures of the papers, each by one command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/common.h"
#include "apps/cli/report.h"
#include "apps/commands.h"
#include "apps/reproduce/data.h"
#include "apps/reproduce/files.h"
#include "apps/reproduce/report.h"
#include "apps/reproduce/run_child.h"
#include "apps/reproduce/steps.h"
#include "data/files/path.h"

static const CommandHelp help = {
    .name = "reproduce",
    .usage = "TABLE [options]\n"
             "TABLE --small [options]\n"
             "list\n"
             "data FOLDER",
    .about =
        "Reproduces a table or figure of the papers: trains and evaluates by other commands of\n"
        "this program and writes a report with the paper's numbers next to ours, their 95 %\n"
        "intervals and the exact commands: OUT/TABLE.md, .html (with curves) and .json. `list`\n"
        "lists the tables; `all` is all of them.\n"
        "\n"
        "The full form reads public models and data below --files. --check only says which of\n"
        "them are missing, what they are called and where they come from, and prints the\n"
        "commands; with --limit N it also answers the first N prompts of what needs no training.\n"
        "\n"
        "--small does the same in small, without any files: models of at most a few million\n"
        "parameters, trained on made-up data (`reproduce data FOLDER` writes them). What has no\n"
        "small form says so in the report. --limit and --train-steps shorten a run to try it.\n"
        "\n"
        "Called again, finished steps are not repeated, and an interrupted one resumes. A step\n"
        "that fails does not stop those that do not need it; the exit status is then 1.",
    .examples = "easyfirst reproduce list\n"
                "easyfirst reproduce table8 --size xxl --files downloads --check\n"
                "easyfirst reproduce table7 --size base,large --files downloads --out tables\n"
                "easyfirst reproduce all --small --out small",
};

typedef struct Reproduce {
    PlanOptions plan;
    StepsOptions steps;
    bool check;
} Reproduce;

static void groups_make(Reproduce *r, OptionGroup groups[1]) {
    groups[0] = (OptionGroup){
        "options",
        {{"small", 0, OPTION_FLAG, NULL, &r->plan.small, "in small, without any files"},
         {"check", 0, OPTION_FLAG, NULL, &r->check,
          "only say which files are missing, and print the commands"},
         {"size", 0, OPTION_TEXT, "LIST", &r->plan.sizes,
          "only these of the table's sizes, with commas between: base, large, xl,\n"
          "xxl"},
         {"files", 0, OPTION_TEXT, "FOLDER", &r->plan.files,
          "folder of the models and data that a full run reads (default .)"},
         {"out", 'o', OPTION_TEXT, "FOLDER", &r->plan.out,
          "reports, models and evaluations; tables share it (default reproduced)"},
         {"limit", 0, OPTION_INTEGER, "N", &r->plan.limit,
          "a trial: evaluate only the first N of each file", 1, 1 << 30},
         {"train-steps", 0, OPTION_INTEGER, "N", &r->plan.steps, "a trial: train so many steps", 1,
          1 << 30},
         device_option(&r->steps.device),
         threads_option(&r->steps.threads),
         {"quiet", 'q', OPTION_FLAG, NULL, &r->steps.quiet, "no progress on standard error"}}};
}

/* ---- Checking. ---- */

static int print_commands(const Plan *p, Error *err) {
    for (int i = 0; i < p->step_count; i++) {
        if (!p->steps[i].needed) continue;
        char *text = command_line_text(p->steps[i].program, p->steps[i].words, err);
        if (!text) return -1;
        report_print(stdout, "%s\n", text);
        free(text);
    }
    return report_flush(err);
}

/* Bytes of memory that the step's models take to answer, more than this machine has; else 0. */
static double too_much(const Plan *p, const PlanStep *s, const char *device) {
    const double machine = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (device && strcmp(device, "cpu")) return 0;
    for (int i = 0; i < s->file_count; i++)
        if (p->files[s->files[i]].memory > machine) return p->files[s->files[i]].memory;
    return 0;
}

/* Leaves only the evaluations that need no other step, and fit into memory. */
static void keep_first(Plan *p, const char *device) {
    for (int i = 0; i < p->step_count; i++) {
        PlanStep *s = &p->steps[i];
        const double memory = too_much(p, s, device);
        s->needed &= s->after_count == 0 && !strcmp(s->words[0], "eval");
        if (s->needed && memory > 0)
            report_print(stdout, "not tried %s: %.0f GB of memory are needed\n", s->name,
                         memory * 1e-9);
        s->needed &= memory == 0;
    }
    for (int i = 0; i < p->cell_count; i++) {
        PlanCell *c = &p->cells[i];
        if (c->step < 0 || p->steps[c->step].needed) continue;
        c->why = p->steps[c->step].after_count ? "needs training first"
                                               : "needs more memory than this machine has";
        c->step = -1;
    }
}

/* --check --limit N: the first answers, as a trial. */
static int first_answers(const Reproduce *r, Plan *p, bool *failed, Error *err) {
    StepRecord *records;
    bool stopped;
    int without = 0;
    keep_first(p, r->steps.device);
    TRY(steps_records(p, &records, err));
    int status = steps_run(p, &r->steps, records, &stopped, err);
    if (status == 0) status = report_write(p, records, &without, err);
    *failed |= status == 0 && without > 0;
    free(records);
    return status;
}

static int check(const Reproduce *r, Plan *p, bool *failed, Error *err) {
    int missing;
    report_print(stdout, "%s: %s (%s)\n", p->name, p->title, p->source);
    TRY(files_check(p, &missing, err));
    *failed |= missing > 0;
    TRY(print_commands(p, err));
    return missing || !p->options.limit ? 0 : first_answers(r, p, failed, err);
}

/* ---- Running. ---- */

/* Exit statuses of a run: 1, something failed; 3, interrupted. */
static int run_plan(const Reproduce *r, Plan *p, int *exit_status, Error *err) {
    StepRecord *records;
    bool stopped = false;
    int missing = 0, without = 0;
    if (!p->options.small) TRY(files_check(p, &missing, err));
    if (missing)
        return error_set(err,
                         "%s: %d files are missing or unusable (see above); --files names their "
                         "folder",
                         p->name, missing);
    TRY(steps_records(p, &records, err));
    int status = steps_run(p, &r->steps, records, &stopped, err);
    if (status == 0) status = report_write(p, records, &without, err);
    if (status == 0 && without) *exit_status = 1;
    if (status == 0 && stopped) *exit_status = 3;
    free(records);
    return status;
}

static int reproduce_one(const Reproduce *r, const char *name, int *exit_status, Error *err) {
    Plan plan;
    bool failed = false;
    PlanOptions options = r->plan;
    /* A check's answers are no part of a run. */
    char *trial = r->check ? path_join(options.out, "check", err) : NULL;
    if (r->check && !trial) return -1;
    if (r->check && options.limit) options.out = trial;
    int status = plan_read(&plan, name, &options, err);
    if (status == 0)
        status = r->check ? check(r, &plan, &failed, err) : run_plan(r, &plan, exit_status, err);
    if (failed) *exit_status = 1;
    plan_free(&plan);
    free(trial);
    return status;
}

/* Each table, whether or not others failed. */
static int reproduce_all(const Reproduce *r, int *exit_status, Error *err) {
    char **names = plan_names(err);
    if (!names) return -1;
    for (char **name = names; *name && *exit_status != 3; name++)
        if (reproduce_one(r, *name, exit_status, err)) {
            report_failure(err);
            *exit_status = 1;
        }
    plan_names_free(names);
    return 0;
}

static int list_tables(Error *err) {
    char **names = plan_names(err);
    int status = names ? 0 : -1;
    for (char **name = names; name && *name && status == 0; name++) {
        char *title = plan_title(*name, err);
        if (!title) status = -1;
        if (title) report_print(stdout, "%-16s%s\n", *name, title);
        free(title);
    }
    plan_names_free(names);
    return status ? status : report_flush(err);
}

static int run(const Reproduce *r, int count, char **words, int *exit_status, Error *err) {
    if (!strcmp(words[0], "list")) return list_tables(err);
    if (!strcmp(words[0], "data")) return small_data_write(words[1], err);
    (void)count;
    if (!strcmp(words[0], "all")) return reproduce_all(r, exit_status, err);
    return reproduce_one(r, words[0], exit_status, err);
}

int command_reproduce(int argc, char **argv) {
    Reproduce r = {.plan = {.files = ".", .out = "reproduced"}};
    OptionGroup groups[1];
    Error err;
    int first, exit_status = 0;
    groups_make(&r, groups);
    int status = options_read(&help, groups, 1, argc, argv, &first);
    if (status >= 0) return status;
    const int count = argc - first;
    if (count < 1)
        return options_wrong(&help, "name a table; `easyfirst reproduce list` lists them");
    const bool data = !strcmp(argv[first], "data");
    if (count != 1 + data)
        return count < 1 + data
                   ? options_wrong(&help, "data needs the folder to write")
                   : options_wrong(&help, "\"%s\" is one word too many", argv[first + 1 + data]);
    if (run(&r, count, argv + first, &exit_status, &err) == 0) return exit_status;
    report_failure(&err);
    return 1;
}
