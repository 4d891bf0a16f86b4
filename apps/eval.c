/* eval.c - the command: selects what to measure. */
#include "apps/eval/eval.h"

#include <stdio.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/cli/options.h"
#include "apps/cli/processes.h"
#include "kernels/nearest_word.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    bool divided; /* among mpirun's processes */
} kinds[] = {
    {"gqa", eval_gqa, true},          {"text", eval_text, true},
    {"order", eval_order, false},     {"likelihood", eval_likelihood, true},
    {"compare", eval_compare, false}, {"report", eval_report, false},
};
enum { KIND_COUNT = sizeof kinds / sizeof kinds[0] };

static const CommandHelp help = {
    .name = "eval",
    .usage = "gqa [options] QUESTIONS --images FOLDER --out FOLDER\n"
             "text [options] --task TASK FILE... --out FOLDER\n"
             "order [options] FILE [--images FOLDER]\n"
             "likelihood [options] FILE [--out FOLDER]\n"
             "compare [options] FOLDER FOLDER\n"
             "report [options] FOLDER FILE",
    .about =
        "Runs a model on a benchmark and scores its answers as the benchmark's own scripts do.\n"
        "\n"
        "  gqa         questions about images, in GQA's or LLaVA's files\n"
        "  text        lines of {\"inputs\", \"targets\"}: translation, summaries, choices, short\n"
        "              answers, numbers\n"
        "  order       the order in which answers are denoised: easy words first, erasures\n"
        "  likelihood  bits per byte and perplexity of texts\n"
        "  compare     two evaluations of the same questions: is one better?\n"
        "  report      an evaluation as an HTML page\n"
        "\n"
        "`easyfirst eval gqa --help` and so on list the options. An interrupted run resumes\n"
        "with the same command. To score existing answers: easyfirst score.",
    .examples =
        "easyfirst eval gqa -m model testdev_balanced_questions.json --images gqa/images \\\n"
        "    --out gqa-model\n"
        "easyfirst eval text -m model --task translation test.de-en.jsonl --out de-en",
};

/* Of several processes each reads the same command line, and finds the same wrong with it. */
static int run_kind(int kind, int argc, char **argv) {
    if (!comm_started() || kinds[kind].divided) return kinds[kind].run(argc, argv);
    const int muted = processes_mute();
    const int status = options_wrong(&help,
                                     "%s is not divided among processes: start it without "
                                     "mpirun",
                                     kinds[kind].name);
    processes_unmute(muted, true);
    return status;
}

int command_eval(int argc, char **argv) {
    int first;
    if (argc < 2)
        return options_wrong(
            &help, "name what to measure: gqa, text, order, likelihood, compare or report");
    for (int i = 0; i < KIND_COUNT; i++)
        if (!strcmp(argv[1], kinds[i].name)) return run_kind(i, argc - 1, argv + 1);
    int status = options_read(&help, NULL, 0, argc, argv, &first);
    if (status >= 0) return status;
    const char *names[KIND_COUNT + 1] = {NULL};
    for (int i = 0; i < KIND_COUNT; i++) names[i] = kinds[i].name;
    const char *near = nearest_word(argv[1], names);
    return options_wrong(&help, "unknown evaluation \"%s\"%s%s%s", argv[1],
                         near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}
