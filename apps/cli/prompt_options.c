#include "apps/cli/prompt_options.h"

#include "apps/cli/json.h"

enum { SHOTS_MOST = 1000 };

void prompt_group(PromptOptions *p, ParallelFiles *f, OptionGroup *group) {
    *group =
        (OptionGroup){"prompts",
                      {{"template", 0, OPTION_TEXT, "TEXT", &p->prompt_template,
                        "prompts of parallel files and tables: {source} is the line of\n"
                        "--source or the first of a pair, {NAME} a column"},
                       {"instruction", 0, OPTION_TEXT, "TEXT", &p->instruction,
                        "before each prompt, instead of the format's own"},
                       {"no-instruction", 0, OPTION_FLAG, NULL, &p->no_instruction,
                        "leave the format's own out (MMLU, SQuAD, TyDiQA)"},
                       {"demonstrations", 0, OPTION_TEXT, "FILE", &p->demonstrations,
                        "few-shot prompts: questions with their answers, a file of any format"},
                       {"shots", 0, OPTION_INTEGER, "K", &p->shots,
                        "its first K go before each prompt", 0, SHOTS_MOST}}};
    if (!f) return;
    const Option rows[] = {
        {"source", 0, OPTION_TEXT, "FILE", &f->source, "parallel files: prompts, a line each"},
        {"target", 0, OPTION_TEXT, "FILE", &f->target, "and their answers"},
        {"pairs", 0, OPTION_TEXT, "FILE", &f->pairs, "or both in lines with a tab between them"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) option_add(group, rows[i]);
}

int prompt_options_check(const PromptOptions *p, const ParallelFiles *f, Error *err) {
    if ((f->source != NULL) != (f->target != NULL))
        return error_set(err, "--source and --target belong together: prompts and their answers");
    if ((p->shots > 0) != (p->demonstrations != NULL))
        return error_set(err, "--shots K and --demonstrations FILE belong together");
    if (p->instruction && p->no_instruction)
        return error_set(err, "--instruction and --no-instruction exclude each other");
    return 0;
}

json_t *prompt_options_json(const PromptOptions *p) {
    const struct {
        const char *name, *text;
    } texts[] = {{"template", p->prompt_template},
                 {"instruction", p->instruction},
                 {"demonstrations", p->demonstrations},
                 {"answers", p->answers}};
    json_t *object = json_object();
    int failed = !object;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !failed; i++)
        if (texts[i].text)
            failed |= json_object_set_new(object, texts[i].name, json_text(texts[i].text));
    if (!failed && p->shots) failed |= json_object_set_new(object, "shots", json_integer(p->shots));
    if (!failed && p->no_instruction)
        failed |= json_object_set_new(object, "no_instruction", json_true());
    if (!failed && p->pairs) failed |= json_object_set_new(object, "pairs", json_true());
    if (!failed) return object;
    json_decref(object);
    return NULL;
}
