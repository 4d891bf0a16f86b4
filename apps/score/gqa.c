/* gqa.c - GQA's metrics of predictions that anyone made. */
#include <stdlib.h>

#include "apps/score/score.h"
#include "apps/score/gqa_report.h"
#include "apps/cli/options.h"
#include "apps/cli/report.h"

static const CommandHelp help = {
    .name = "score gqa",
    .usage = "[options] PREDICTIONS QUESTIONS",
    .about =
        "Scores answers to GQA's questions as its official script does, and with lmms-eval's\n"
        "exact match as well. PREDICTIONS is the official [{\"questionId\", \"prediction\"}], "
        "compared\n"
        "as it is, or LLaVA's answers, lines of {\"question_id\", \"text\"}, lower-cased and "
        "without\n"
        "final periods. QUESTIONS is an official file of questions, or the folder that holds one "
        "in\n"
        "parts. Balanced questions are scored; one without a prediction counts as wrong. A metric\n"
        "that needs a file which is not named is absent.",
    .examples = "easyfirst score gqa answers.jsonl testdev_balanced_questions.json\n"
                "easyfirst score gqa val_predictions.json val_all_questions.json --choices "
                "val_choices.json\n"
                "easyfirst score gqa p.json val_balanced_questions.json --all-questions \\\n"
                "    val_all_questions.json --scene-graphs val_sceneGraphs.json \\\n"
                "    --attentions val_attentions.json --json",
};

/* Predictions of which none answers a question would score 0 %, which is no result. */
static int check_usable(const GqaScore *score, const GqaFiles *files, Error *err) {
    if (score->unanswered < score->questions) return 0;
    if (!score->predictions)
        return error_set(err,
                         "%s: there is no prediction in it that could be read; expected "
                         "[{\"questionId\": ..., \"prediction\": ...}] or lines of "
                         "{\"question_id\": ..., \"text\": ...}",
                         files->predictions);
    return error_set(
        err,
        "%s: none of its %lld predictions is for one of the %lld questions that are "
        "scored in %s (%lld are for questions that are not there): do the files belong "
        "together?",
        files->predictions, (long long)score->predictions, (long long)score->questions,
        files->questions, (long long)score->unknown);
}

int score_gqa(int argc, char **argv) {
    GqaFiles files = {.predictions = NULL};
    bool json = false, confidence = false;
    OptionGroup groups[] = {
        {"files",
         {{"choices", 0, OPTION_TEXT, "FILE", &files.choices,
           "possible answers, for validity and plausibility"},
          {"all-questions", 0, OPTION_TEXT, "FILE", &files.all_questions,
           "all questions, for consistency; not needed where QUESTIONS has them"},
          {"scene-graphs", 0, OPTION_TEXT, "FILE", &files.scene_graphs,
           "places of objects, for grounding"},
          {"attentions", 0, OPTION_TEXT, "FILE", &files.attentions,
           "the attention on the image, 7 x 7, for grounding"}}},
        {"output",
         {{"json", 0, OPTION_FLAG, NULL, &json, "print one JSON object"},
          {"confidence", 0, OPTION_FLAG, NULL, &confidence,
           "95 % confidence intervals, from 1,000 bootstrap resamples of the\n"
           "questions"}}},
    };
    int first, status = options_read(&help, groups, 2, argc, argv, &first);
    if (status >= 0) return status;
    if (argc - first != 2)
        return options_wrong(&help, "two files are needed: PREDICTIONS QUESTIONS");
    files.outcomes = confidence;
    files.predictions = argv[first], files.questions = argv[first + 1];
    GqaScore *score = calloc(1, sizeof *score);
    Error err;
    status = score ? gqa_score(score, &files, &err) : error_set(&err, "out of memory");
    if (status == 0) {
        gqa_report_skipped(score, NULL);
        status = check_usable(score, &files, &err);
        if (status == 0 && confidence) status = gqa_confidence(score, NULL, &err);
    }
    if (status == 0) {
        if (json)
            status = json_print_line(gqa_report_json(score), 17, &err);
        else
            gqa_report_text(stdout, score);
        if (status == 0) status = report_flush(&err);
    }
    if (score) gqa_score_free(score);
    free(score);
    if (status) report_failure(&err);
    return status ? 1 : 0;
}
