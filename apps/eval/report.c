/* report.c - an evaluation as a page for a browser. */
#include <stdio.h>

#include "apps/cli/options.h"
#include "apps/cli/report.h"
#include "apps/eval/eval.h"
#include "apps/eval/page.h"

static const CommandHelp help = {
    .name = "eval report",
    .usage = "[options] FOLDER FILE",
    .about =
        "Writes a self-contained HTML page of a finished evaluation, the folder of `easyfirst "
        "eval\n"
        "gqa` or `eval text` (--out): its scores with 95 % confidence intervals, by file and type\n"
        "of questions, and the worst answers, with their images. It needs no model, and the\n"
        "page makes no request. To compare two evaluations: easyfirst eval compare --report.",
    .examples = "easyfirst eval report gqa-model gqa.html",
};

int eval_report(int argc, char **argv) {
    PageOptions page = {.answers = PAGE_ANSWERS};
    OptionGroup group = {.title = "options",
                         .options = {{"images", 0, OPTION_TEXT, "FOLDER", &page.images,
                                      "the images (default: the evaluation's --images)"},
                                     {"answers", 0, OPTION_INTEGER, "N", &page.answers,
                                      "worst answers on it (default 50)", 0, 100000}}};
    int first, status = options_read(&help, &group, 1, argc, argv, &first);
    if (status >= 0) return status;
    if (argc - first != 2)
        return options_wrong(&help, "two names are needed: FOLDER of the evaluation, FILE of the "
                                    "page");
    Scored scored = {0};
    json_t *result = NULL;
    Error err;
    status = scored_read(&scored, argv[first], &result, &err);
    if (status == 0)
        status = eval_page_report(&scored, result, argv[first], &page, argv[first + 1], &err);
    if (status == 0) status = report_flush(&err);
    if (status) report_failure(&err);
    scored_free(&scored);
    json_decref(result);
    return status ? 1 : 0;
}
