/* score.c - scores answers that somebody else, or an earlier run, has given. */
#include <stdio.h>
#include <string.h>

#include "apps/commands.h"
#include "apps/cli/options.h"
#include "apps/score/score.h"

static const CommandHelp help = {
    .name = "score",
    .usage = "text [options] ANSWERS REFERENCES...\n"
             "gqa [options] PREDICTIONS QUESTIONS",
    .about =
        "Scores files of answers, whoever made them; no model is needed. `score text` compares\n"
        "texts line by line: BLEU, chrF, Rouge, exact match, F1, numbers, choices. `score gqa`\n"
        "gives GQA's official metrics. `easyfirst score text --help` and `easyfirst score gqa\n"
        "--help` tell the options.",
    .examples = "easyfirst score text answers.txt references.txt\n"
                "easyfirst score gqa predictions.json testdev_balanced_questions.json",
};

int command_score(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "text")) return score_text(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "gqa")) return score_gqa(argc - 1, argv + 1);
    if (argc > 1 && argv[1][0] != '-')
        return options_wrong(&help, "what is to be scored is \"text\" or \"gqa\", not \"%s\"",
                             argv[1]);
    int first, status = options_read(&help, NULL, 0, argc, argv, &first);
    if (status >= 0) return status;
    return options_wrong(&help, "what is to be scored: \"text\" or \"gqa\"?");
}
