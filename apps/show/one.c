#include "apps/show/one.h"

#include "apps/show/fold.h"
#include "apps/show/lines.h"

void show_way_rows(ShowWay *way, OptionGroup *group) {
    const Option rows[] = {
        {"speed", 0, OPTION_REAL, "X", &way->speed,
         "steps a second on a terminal (default 8); those that\n"
         "change nothing play ten times as fast",
         0.01, 1000},
        {"step", 0, OPTION_FLAG, NULL, &way->step, "on a terminal, begin paused"},
        {"steps-only", 0, OPTION_FLAG, NULL, &way->steps_only,
         "print a line for each step, on a terminal, too"},
        {"all-steps", 'a', OPTION_FLAG, NULL, &way->all_steps,
         "also print steps that change nothing"},
        {"every-step", 0, OPTION_FLAG, NULL, &way->every_step,
         "also tokens that are erased only to be written again"},
    };
    way->speed = SHOW_SPEED;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) option_add(group, rows[i]);
}

static bool on_screen(const ShowWay *way) {
    return !way->silent && !way->plain && !way->steps_only && !way->all_steps && terminal_usable();
}

static ShowOptions show_options(const ShowWay *way) {
    return (ShowOptions){
        .speed = way->speed, .step = way->step, .keep = way->keep, .every_step = way->every_step};
}

/* A finished trace as lines. */
static int print_lines(const Trace *trace, const ShowWay *way, Error *err) {
    if (way->silent) return 0;
    if (way->plain) return show_answer_line(stdout, trace, err);
    if (way->every_step) return show_lines(stdout, trace, way->all_steps, err);
    Trace shown;
    TRY(fold_make(&shown, trace, err));
    int status = show_lines(stdout, &shown, way->all_steps, err);
    fold_free(&shown);
    return status;
}

/* ---- Lines. Those of every step are printed as they happen; what is folded is known at the end.
 * ---- */

typedef struct Printer {
    Trace *trace;
    const Tokenizer *tokenizer;
    bool print, all;
    Error error; /* of a step; empty: none */
} Printer;

/* A DecodeCallback. */
static void print_step(void *user, const DecodeStep *step) {
    Printer *p = user;
    if (p->error.text[0] || trace_step(p->trace, p->tokenizer, step, &p->error)) return;
    if (!p->print) return;
    if (show_line(stdout, &p->trace->hypotheses[0], step->step - 1, p->all, &p->error)) return;
    fflush(stdout); /* while it is displayed; errors are reported at the end */
}

/* ---- One question. ---- */

static int answer(const ShowJob *job, const AnswerOptions *options, Answers *answers, Error *err) {
    AnswerRequest request = {.prompt = job->prompt,
                             .image = job->image ? job->block : -1,
                             .length = job->common->length,
                             .turns = job->turns,
                             .turn_count = job->turn_count,
                             .answer_template = job->common->answer_template};
    TRY(multimodal_answer(&job->session->model.parts, job->tokens, &request, 1, options, answers,
                          err));
    timings_add(job->timings, answers);
    if (answers->items[0].error) return error_set(err, "%s", answers->items[0].error);
    return 0;
}

static int hypotheses(const ShowJob *job) {
    const AnswerOptions *options = &job->common->answer;
    return answer_beam(options, job->common->answer_template != NULL) * options->samples;
}

static int on_terminal(const ShowJob *job, Trace *trace, bool *quit, Error *err) {
    const Tokenizer *tokenizer = job->session->model.tokenizer;
    AnswerOptions options = job->common->answer;
    ShowOptions how = show_options(job->way);
    ShowLive live;
    Answers answers = {0};
    TRY(show_live_begin(&live, trace, tokenizer, hypotheses(job), &how, err));
    options.callback = show_live_step, options.user = &live;
    int status = answer(job, &options, &answers, err);
    int shown = show_live_end(&live, status ? NULL : &answers, 0, status ? NULL : err);
    *quit = live.quit;
    answers_free(&answers);
    return status ? status : shown;
}

static int as_lines(const ShowJob *job, Trace *trace, Error *err) {
    const Tokenizer *tokenizer = job->session->model.tokenizer;
    const ShowWay *way = job->way;
    AnswerOptions options = job->common->answer;
    bool at_once = hypotheses(job) == 1 && way->every_step && !way->silent && !way->plain;
    Printer printer = {
        .trace = trace, .tokenizer = tokenizer, .print = at_once, .all = way->all_steps};
    Answers answers = {0};
    options.callback = print_step, options.user = &printer;
    int status = answer(job, &options, &answers, err);
    if (status == 0 && printer.error.text[0]) status = error_set(err, "%s", printer.error.text);
    if (status == 0) status = trace_finish(trace, &answers, 0, tokenizer, err);
    if (status == 0)
        status = at_once ? show_answer_line(stdout, trace, err) : print_lines(trace, way, err);
    answers_free(&answers);
    return status;
}

int show_one(const ShowJob *job, Trace *trace, bool *quit, Error *err) {
    const ModelOptions *model = &job->common->model;
    TraceAbout about = {.image = job->image,
                        .question = job->question,
                        .is_prompt = job->is_prompt,
                        .model = job->common->bundled[0] ? "bundled"
                                 : model->folder         ? model->folder
                                                         : model->language,
                        .options = &job->common->answer.decode,
                        .answer_template = job->common->answer_template};
    *quit = false;
    TRY(trace_begin(trace, &about, err));
    const Multimodal *parts = &job->session->model.parts;
    int status = 0;
    if (job->image)
        status = trace_geometry(trace, job->width, job->height, &parts->preprocess,
                                tower_grid(parts->tower), err);
    if (status == 0 && on_screen(job->way))
        status = on_terminal(job, trace, quit, err);
    else if (status == 0)
        status = as_lines(job, trace, err);
    if (status) trace_free(trace);
    return status;
}

int show_again(const Trace *trace, const ShowWay *way, bool *quit, Error *err) {
    ShowOptions how = show_options(way);
    *quit = false;
    if (on_screen(way)) return show_play(trace, &how, quit, err);
    return print_lines(trace, way, err);
}
